//! What the nodes of the sweep do, and what must hold at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message};
use outrigger_channel::{Command, Policy};
use outrigger_sidecar::manager::relay::register::{Caps, Load};
use outrigger_sidecar::manager::terms::ForwardingPolicy;
use outrigger_sidecar::store::row::PaymentState;

use super::super::backup::Backup;
use super::super::disk::{Content, File, Operation};
use super::super::faults::Plan;
use super::super::node::{Config, Node};
use super::super::payments::Flaw;
use super::super::rows;
use super::super::schedule::feerates;
use super::super::seen::Seen;
use super::super::signer::{Signers, Signing};
use super::super::stopped::Stopped;
use super::super::world::{Tracing, World};
use super::points::Point;

/// One thing that somebody does; then the world comes to rest.
type Step = fn(&mut World);

/// How the channels are at the end.
#[derive(Clone, Copy, Debug)]
enum End {
    Open,
    Closed,
    /// By one operator alone.
    Alone,
    /// Closed for so long that they are history.
    History,
    /// By the peers of a node whose rows are older than what it told them; this makes them so, where nothing has.
    Restored(Step),
}

/// A short run of few nodes in a line.
pub struct Script {
    pub name: &'static str,
    nodes: usize,
    /// Of each link, before the steps begin.
    channels: usize,
    /// Nodes with a required backup.
    backups: &'static [usize],
    /// What comes before anything goes wrong.
    before: &'static [Step],
    steps: &'static [Step],
    end: End,
}

/// What a run left.
pub struct Run {
    /// What each node's disk was asked, from the first step on.
    pub operations: Vec<Vec<(File, Operation)>>,
    /// What each commit of each node released.
    pub released: Vec<(usize, Vec<&'static str>)>,
    /// What was told before its commit.
    pub ordered: Vec<&'static str>,
    /// How many things each node did for its backup, and the backup for it.
    pub acts: BTreeMap<usize, usize>,
    pub digest: u64,
}

const fn script(name: &'static str, nodes: usize, steps: &'static [Step]) -> Script {
    Script { name, nodes, channels: 1, backups: &[], before: &[], steps, end: End::Open }
}

pub const SCRIPTS: &[Script] = &[
    script("open", 2, OPEN),
    script("pay", 2, &[|world| pay(world, &[0, 1], 5_000_000), |world| pay(world, &[1, 0], 1_000_000)]),
    script("keysend", 2, &[|world| world.give(0, 1, Msat::new(7_000_000))]),
    script("relay", 3, RELAY),
    Script { channels: 2, ..script("parts", 3, PARTS) },
    script("fail", 3, FAIL),
    script(
        "fee",
        2,
        &[
            |world| {
                pay(world, &[1, 0], 2_000_000);
                world.set_feerates(0, feerates(2_500));
            },
            |world| world.set_feerates(0, feerates(600)),
        ],
    ),
    script("reconnect", 3, RECONNECT),
    script("restart", 3, RESTART),
    Script { end: End::Closed, ..script("close", 2, CLOSE) },
    Script {
        end: End::Alone,
        ..script("alone", 2, &[|world| pay(world, &[0, 1], 5_000_000), fail, World::mine, bury])
    },
    // A peer is in trouble that passes, and says so.
    Script {
        before: &[|world| world.nodes[1].hangs_up = true],
        ..script(
            "passing",
            2,
            &[
                |world| {
                    pay(world, &[0, 1], 2_000_000);
                    some_steps(world, 30);
                    complain(world);
                },
                |world| world.connect(0),
            ],
        )
    },
    Script {
        before: &[close, World::mine, |world| sink_deep(world, 97)],
        end: End::History,
        ..script("history", 2, &[World::mine, World::mine, World::mine, World::mine])
    },
    // With required backups. Their completions are events among the others.
    Script { backups: &[0, 1], ..script("backed-open", 2, OPEN) },
    Script { backups: &[0], ..script("backed-payer", 2, &[|world| pay(world, &[0, 1], 5_000_000)]) },
    Script { backups: &[1], ..script("backed-payee", 2, &[|world| pay(world, &[0, 1], 5_000_000)]) },
    Script { backups: &[1], ..script("backed-relay", 3, RELAY) },
    Script { backups: &[0, 1, 2], ..script("backed-relays", 3, RELAY) },
    Script { backups: &[2], channels: 2, ..script("backed-parts", 3, PARTS) },
    Script { backups: &[1], ..script("backed-fail", 3, FAIL) },
    Script { backups: &[1], ..script("backed-reconnect", 3, RECONNECT) },
    Script { backups: &[1], ..script("backed-restart", 3, RESTART) },
    Script { backups: &[0, 1], end: End::Closed, ..script("backed-close", 2, CLOSE) },
    // Disks are lost: what comes of the backup, or an older copy, is put into the place of the newest.
    Script {
        backups: &[1],
        end: End::Restored(restore),
        ..script("restore", 2, &[|world| pay(world, &[0, 1], 5_000_000), restore, start_old, World::mine, bury])
    },
    Script {
        backups: &[1],
        before: &[|world| copy(world, 1)],
        end: End::Restored(put_all_back),
        ..script(
            "backup-ahead",
            2,
            &[|world| pay(world, &[0, 1], 5_000_000), put_all_back, start_old, World::mine, bury],
        )
    },
    Script {
        before: &[|world| copy(world, 1)],
        end: End::Restored(put_all_back),
        ..script("old", 2, &[|world| pay(world, &[0, 1], 5_000_000), put_all_back, start_old, World::mine, bury])
    },
    Script {
        before: &[|world| copy(world, 1)],
        end: End::Restored(put_database_back),
        ..script(
            "old-database",
            2,
            &[|world| pay(world, &[0, 1], 5_000_000), put_database_back, start_old, World::mine, bury],
        )
    },
];

const OPEN: &[Step] = &[|world| world.open(0, 1, (300_000, 50_000_000)), World::mine, World::mine, World::mine];
const RELAY: &[Step] = &[|world| pay(world, &[0, 1, 2], 4_000_000)];
const PARTS: &[Step] = &[|world| world.pay_over(0, 2, Msat::new(700_000_000), &[[0, 1, 2].as_slice(); 3], Flaw::None)];
const FAIL: &[Step] = &[|world| world.pay_over(0, 2, Msat::new(4_000_000), &[&[0, 1, 2]], Flaw::Secret)];
const RECONNECT: &[Step] = &[
    |world| {
        pay(world, &[0, 1, 2], 3_000_000);
        some_steps(world, 45);
        world.disconnect(1);
    },
    |world| world.connect(1),
    |world| world.disconnect(0),
    |world| world.connect(0),
];
const RESTART: &[Step] = &[
    |world| {
        pay(world, &[0, 1, 2], 3_000_000);
        some_steps(world, 60);
        world.stop(1);
    },
    |world| world.start(1),
    |world| (0..2).for_each(|link| world.connect(link)),
];
const CLOSE: &[Step] = &[|world| pay(world, &[0, 1], 5_000_000), close, World::mine, bury];

/// Whose disk is lost in a script.
const LOSER: usize = 1;

pub fn pay(world: &mut World, way: &[usize], msat: u64) {
    let (Some(payer), Some(payee)) = (way.first(), way.last()) else { return };
    world.pay_over(*payer, *payee, Msat::new(msat), &[way], Flaw::None);
}

/// Some of what follows, so that the next thing comes in the midst of it.
fn some_steps(world: &mut World, count: usize) {
    for _ in 0..count {
        if world.plan.fallen > 0 || !world.step() {
            return;
        }
    }
}

fn channels(world: &World) -> Vec<ChannelId> {
    world.ledger.funded().map(|(channel, _)| *channel).collect()
}

fn close(world: &mut World) {
    for channel in channels(world) {
        let script = world.nodes[0].script();
        world.order(0, channel, Command::Shutdown { script, feerate: FeeratePerKw::new(1_500) });
    }
}

/// The operator of node 1 ends every channel alone.
fn fail(world: &mut World) {
    for channel in channels(world) {
        world.ledger.ended_alone.insert(channel);
        world.order(1, channel, Command::Fail { reason: "the operator wants it".to_owned() });
    }
}

/// As many blocks as bury a claim after its delay.
fn bury(world: &mut World) {
    sink_deep(world, TO_SELF_DELAY + 8);
}

fn sink_deep(world: &mut World, blocks: u16) {
    for _ in 0..blocks {
        world.mine();
        world.rest();
    }
}

/// Node 0 tells node 1 of a trouble of its own, for which the connection ends and no channel.
fn complain(world: &mut World) {
    if let Some((channel_id, _)) = world.ledger.funded().next()
        && world.links[0].is_up()
    {
        let error = Error { channel_id: *channel_id, data: "sync error".into() };
        world.links[0].wires[1].push_back((Message::Error(error), 0));
    }
}

/// What stands on the disk of a node now is kept.
fn copy(world: &mut World, node: usize) {
    world.stop(node);
    let content = world.nodes[node].disk.content();
    world.copies.insert(node, content);
    world.start(node);
    (0..world.links.len()).for_each(|link| world.connect(link));
}

/// A node's disk is replaced, all of it or a file, by one with older rows: its peers will close its channels.
fn replace(world: &mut World, content: &Content, file: Option<File>) {
    world.stop(LOSER);
    let channels: Vec<_> = world.ledger.funded().filter(|(_, founded)| founded.nodes.contains(&LOSER)).collect();
    let channels: Vec<_> = channels.into_iter().map(|(channel, _)| *channel).collect();
    world.ledger.ended_alone.extend(channels);
    world.ledger.old.insert(LOSER);
    world.ledger.seen.forget(LOSER);
    world.nodes[LOSER].is_old = true;
    world.nodes[LOSER].disk.put_back(content, file);
}

fn put_all_back(world: &mut World) {
    let content = world.copies[&LOSER].clone();
    replace(world, &content, None);
}

fn put_database_back(world: &mut World) {
    let content = world.copies[&LOSER].clone();
    replace(world, &content, Some(File::Database));
}

/// The disk is gone, and another one gets what the backup has.
fn restore(world: &mut World) {
    world.stop(LOSER);
    let backup = world.nodes[LOSER].backups[0].clone();
    let (disk, rebuilt) = world.rebuilt(LOSER, backup);
    assert!(rebuilt.is_whole(), "{rebuilt:?}");
    replace(world, &disk.content(), None);
}

/// The node with the older disk starts, and meets its peers.
fn start_old(world: &mut World) {
    world.start(LOSER);
    world.rest();
    (0..world.links.len()).for_each(|link| world.connect(link));
}

const TO_SELF_DELAY: u16 = 6;

fn config() -> Config {
    let policy = Policy {
        chain_hash: ChainHash::using_genesis_block_const(Network::Regtest),
        min_funding: Sat::new(20_000),
        max_funding: Sat::new(100_000_000),
        dust_limit: Sat::new(354),
        reserve_ppm: 10_000,
        to_self_delay: TO_SELF_DELAY,
        max_to_self_delay: 2016,
        max_accepted_htlcs: 30,
        max_in_flight_ppm: 1_000_000,
        htlc_minimum: Msat::new(1),
        minimum_depth: 1,
        max_minimum_depth: 144,
        max_dust_exposure: Sat::new(50_000),
        max_commitment_feerate: FeeratePerKw::new(25_000),
        close_depth: 6,
    };
    let forwarding = ForwardingPolicy {
        cltv_expiry_delta: 34,
        fee_base_msat: 1000,
        fee_proportional_millionths: 100,
        htlc_minimum: Msat::new(1),
        htlc_maximum: None,
    };
    let most = Load { htlcs: 50, value: Msat::new(u64::MAX) };
    Config { policy, forwarding, caps: Caps { node: most, peer: most } }
}

/// A node of a line, before its first start.
pub fn node(number: usize, signers: Signers) -> Node {
    Node::new(number, config(), 4, feerates(1_000), signers)
}

/// Nodes in a line, with so many channels on each link.
pub fn found(world: &mut World, nodes: usize, channels_each: usize) {
    found_with(world, nodes, channels_each, &[]);
}

/// The same, of which these nodes have a required backup.
fn found_with(world: &mut World, nodes: usize, channels_each: usize, backups: &[usize]) {
    for number in 0..nodes {
        let mut node = node(number, world.signers.clone());
        node.backups.extend(backups.contains(&number).then(Backup::default));
        world.nodes.push(node);
        world.start(number);
    }
    for number in 1..nodes {
        world.add_link([number - 1, number]);
        world.connect(number - 1);
        for _ in 0..channels_each {
            world.open(number - 1, 0, (1_000_000, 400_000_000));
        }
    }
    world.rest();
    for _ in 0..2 {
        world.mine();
        world.rest();
    }
    assert_eq!(channels(world).len(), channels_each * (nodes - 1), "a channel was not opened");
}

/// The first channel of a node closes.
pub fn close_one(world: &mut World, node: usize) {
    let of_node = world.ledger.funded().find(|(_, founded)| founded.nodes.contains(&node));
    let channel = *of_node.expect("a channel").0;
    let script = world.nodes[node].script();
    world.order(node, channel, Command::Shutdown { script, feerate: FeeratePerKw::new(1_500) });
}

/// Of which seed and script, and whether its signers are real.
type Beginning = (u64, &'static str, bool);

thread_local! {
    /// Worlds before the first step, by seed and script: each costs as much as many a run.
    static BEGUN: RefCell<BTreeMap<Beginning, Rc<Stopped>>> = const { RefCell::new(BTreeMap::new()) };
}

impl Script {
    /// The world before the first step, at rest.
    fn begun(&self, seed: u64, signing: Signing, tracing: Tracing) -> World {
        let name = (seed, self.name, signing == Signing::Real);
        let known = BEGUN.with_borrow(|known| known.get(&name).cloned());
        let stopped = known.unwrap_or_else(|| {
            let mut world = World::new(seed, signing, Tracing::Off);
            found_with(&mut world, self.nodes, self.channels, self.backups);
            for step in self.before {
                step(&mut world);
                world.rest();
            }
            let stopped = Rc::new(Stopped::of(world));
            BEGUN.with_borrow_mut(|known| known.insert(name, stopped.clone()));
            stopped
        });
        stopped.go_on(tracing)
    }

    /// Runs it, with this going wrong. What does not hold panics.
    pub fn run(&self, seed: u64, point: Option<&Point>, signing: Signing, tracing: Tracing) -> Run {
        let mut world = self.begun(seed, signing, tracing);
        world.plan = Plan::default();
        let before: Vec<_> = world.nodes.iter().map(|node| node.disk.asked().len()).collect();
        if let Some(point) = point {
            point.prepare(&mut world);
        }
        for step in self.steps {
            step(&mut world);
            world.rest();
            if world.plan.fallen > 0 {
                break;
            }
        }
        let asked = |(node, before): (&Node, &usize)| node.disk.asked().split_off(*before);
        let operations = match point {
            None => world.nodes.iter().zip(&before).map(asked).collect(),
            Some(_) => Vec::new(),
        };
        let released = std::mem::take(&mut world.plan.released);
        let ordered = std::mem::take(&mut world.plan.ordered);
        let acts = std::mem::take(&mut world.plan.acts);
        let may_not_fall = point.is_none_or(|point| !point.must_fall);
        assert!(world.plan.fallen > 0 || may_not_fall, "nothing went wrong");
        assert!(world.plan.fallen == 0 || point.is_some(), "something went wrong that should not");
        self.assert_whole(&mut world);
        Run { operations, released, ordered, acts, digest: world.digest() }
    }

    /// What must hold once everything is connected again.
    fn assert_whole(&self, world: &mut World) {
        (world.plan.killed, world.plan.stopped) = (None, None);
        world.heal();
        world.nodes.iter().for_each(|node| node.disk.mend());
        match self.end {
            End::Open => {
                assert_at_rest(world);
                world.pay_again();
                world.assert_at_rest();
            }
            End::Closed => {
                assert_at_rest(world);
                world.close_all();
            }
            End::Alone => {
                assert_at_rest(world);
                // What its operator asked may not have been durable: callers ask again.
                fail(world);
                world.rest();
                bury(world);
                assert_closed(world);
            }
            End::History => {
                sink_deep(world, 8);
                for (channel, founded) in world.ledger.funded() {
                    for node in founded.nodes {
                        let db = &world.nodes[node].live().db;
                        assert!(rows::is_closed(db, channel), "node {node}: {channel} is no history");
                        assert!(world.nodes[node].live().core.manager.channel(channel).is_none(), "node {node}");
                    }
                }
            }
            End::Restored(make_old) => {
                if !world.nodes[LOSER].is_old {
                    pay(world, &[0, 1], 3_000_000);
                    world.rest();
                    assert_at_rest(world);
                    make_old(world);
                    start_old(world);
                    world.rest();
                    World::mine(world);
                }
                bury(world);
                assert_closed(world);
                assert_home(world);
            }
        }
        self.assert_events(world);
        for node in world.nodes.iter().filter(|node| !node.is_old) {
            node.backups.iter().for_each(|backup| backup.assert_complete(node));
        }
    }

    /// Every event that the rows call for is there, and no event twice.
    fn assert_events(&self, world: &World) {
        for node in &world.nodes {
            world.ledger.seen.events_once(node);
        }
        for (channel, founded) in world.ledger.funded() {
            let channel = channel.to_string();
            // The events of a node with an older disk are older too.
            for node in founded.nodes.map(|node| &world.nodes[node]).into_iter().filter(|node| !node.is_old) {
                let told = ["channel_pending", "channel_ready", "channel_closed", "channel_failed"]
                    .map(|kind| Seen::count(node, kind, &channel));
                let expected = match self.end {
                    End::Open => [1, 1, 0, 0],
                    End::Closed | End::History => [1, 1, 1, 0],
                    End::Alone | End::Restored(_) => [1, 1, 1, 1],
                };
                assert_eq!(told, expected, "node {}: {channel}", node.number);
            }
        }
        if world.nodes.iter().any(|node| node.is_old) {
            return;
        }
        for (number, payment) in world.payments.iter().enumerate() {
            let Some(Ok(begun)) = &payment.answer else { continue };
            let (payer, payee) = (&world.nodes[payment.payer], &world.nodes[payment.payee]);
            let row = payer.live().core.payments.get(&begun.payment_id).unwrap().expect("a payment that was told");
            let hash = begun.payment_hash.to_string();
            let told = ["payment_succeeded", "payment_failed"].map(|kind| Seen::count(payer, kind, &hash));
            let is_paid = matches!(row.state, PaymentState::Succeeded { .. });
            assert_eq!(told, [usize::from(is_paid), usize::from(!is_paid)], "payment {number}: {row:?}");
            let kind = if payment.is_keysend { "keysend_received" } else { "invoice_paid" };
            assert_eq!(Seen::count(payee, kind, &hash), usize::from(is_paid), "payment {number}: {row:?}");
        }
    }
}

/// Nothing is under way, and every payment has ended as both of its nodes say.
fn assert_at_rest(world: &mut World) {
    // Also of channels that are ended alone, where nothing was under way.
    let ended = std::mem::take(&mut world.ledger.ended_alone);
    world.assert_at_rest();
    world.assert_paid();
    world.ledger.ended_alone = ended;
}

/// Every channel has closed, by a transaction in the chain.
fn assert_closed(world: &World) {
    for (node, view) in world.all_channels() {
        assert_eq!(view.summary.state, "closed", "node {node}: {view:?}");
        assert!(world.chain.is_spent(&view.summary.funding));
    }
}

/// The node whose rows were older is in restored mode, and could take from the chain what was its own by the newest.
fn assert_home(world: &World) {
    assert!(world.nodes[LOSER].live().core.manager.env().is_restored(), "its file is old, and it does not know it");
    let claimed = world.ledger.claimed.iter().filter(|((node, _), _)| *node == LOSER);
    let home: u64 = claimed.map(|(_, value)| value.to_sat()).sum();
    let own = world.ledger.funded().map(|(channel, founded)| {
        let side = usize::from(founded.nodes[0] != LOSER);
        world.ledger.balances(channel, founded)[side] / 1000
    });
    let own: i128 = own.sum();
    assert!(i128::from(home) >= own, "{home} sat came home of {own}");
}
