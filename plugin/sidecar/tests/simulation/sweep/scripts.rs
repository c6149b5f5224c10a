//! What the nodes of the sweep do, and what must hold at the end. Scripts of sinks and of restores join here.

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::ChannelId;
use outrigger_channel::{Command, Policy};
use outrigger_sidecar::manager::relay::register::{Caps, Load};
use outrigger_sidecar::manager::terms::ForwardingPolicy;
use outrigger_sidecar::store::row::PaymentState;

use super::super::disk::Operation;
use super::super::node::{Config, Node};
use super::super::payments::Flaw;
use super::super::schedule::feerates;
use super::super::seen::Seen;
use super::super::signer::{Signers, Signing};
use super::super::world::{Tracing, World};
use super::points::Point;

/// One thing that somebody does; then the world comes to rest.
type Step = fn(&mut World);

/// How the channels are at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    /// By one operator alone.
    Alone,
}

/// A short run of few nodes in a line.
pub struct Script {
    pub name: &'static str,
    nodes: usize,
    /// Of each link, before the steps begin.
    channels: usize,
    steps: &'static [Step],
    end: End,
}

/// What a run left.
pub struct Run {
    /// What each node's disk was asked, from the first step on.
    pub operations: Vec<Vec<Operation>>,
    /// What each commit of each node released.
    pub released: Vec<(usize, Vec<&'static str>)>,
    pub digest: u64,
}

const fn script(name: &'static str, nodes: usize, steps: &'static [Step]) -> Script {
    Script { name, nodes, channels: 1, steps, end: End::Open }
}

pub const SCRIPTS: &[Script] = &[
    script("open", 2, &[|world| world.open(0, 1, (300_000, 50_000_000)), World::mine, World::mine, World::mine]),
    script("pay", 2, &[|world| pay(world, &[0, 1], 5_000_000), |world| pay(world, &[1, 0], 1_000_000)]),
    script("keysend", 2, &[|world| world.give(0, 1, Msat::new(7_000_000))]),
    script("relay", 3, &[|world| pay(world, &[0, 1, 2], 4_000_000)]),
    Script {
        channels: 2,
        ..script(
            "parts",
            3,
            &[|world| world.pay_over(0, 2, Msat::new(700_000_000), &[[0, 1, 2].as_slice(); 3], Flaw::None)],
        )
    },
    script("fail", 3, &[|world| world.pay_over(0, 2, Msat::new(4_000_000), &[&[0, 1, 2]], Flaw::Secret)]),
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
    script(
        "reconnect",
        3,
        &[
            |world| {
                pay(world, &[0, 1, 2], 3_000_000);
                some_steps(world, 45);
                world.disconnect(1);
            },
            |world| world.connect(1),
            |world| world.disconnect(0),
            |world| world.connect(0),
        ],
    ),
    script(
        "restart",
        3,
        &[
            |world| {
                pay(world, &[0, 1, 2], 3_000_000);
                some_steps(world, 60);
                world.stop(1);
            },
            |world| world.start(1),
            |world| (0..2).for_each(|link| world.connect(link)),
        ],
    ),
    Script {
        end: End::Closed,
        ..script("close", 2, &[|world| pay(world, &[0, 1], 5_000_000), close, World::mine, bury])
    },
    Script {
        end: End::Alone,
        ..script("alone", 2, &[|world| pay(world, &[0, 1], 5_000_000), fail, World::mine, bury])
    },
];

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
    for _ in 0..TO_SELF_DELAY + 8 {
        world.mine();
        world.rest();
    }
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
    for number in 0..nodes {
        world.nodes.push(node(number, world.signers.clone()));
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

impl Script {
    /// Runs it, with this going wrong. What does not hold panics.
    pub fn run(&self, seed: u64, point: Option<&Point>, tracing: Tracing) -> Run {
        let mut world = World::new(seed, Signing::Real, tracing);
        found(&mut world, self.nodes, self.channels);
        world.plan.first = world.plan.released.len();
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
        let released = world.plan.released.split_off(world.plan.first);
        assert_eq!(world.plan.fallen > 0, point.is_some(), "nothing went wrong, or what should not");
        self.assert_whole(&mut world);
        Run { operations, released, digest: world.digest() }
    }

    /// What must hold once everything is connected again.
    fn assert_whole(&self, world: &mut World) {
        world.plan.killed = None;
        world.heal();
        assert_eq!(world.htlcs_left(), 0, "HTLCs stand although everything is connected and at rest");
        world.assert_paid();
        world.ledger.at_rest(&world.nodes);
        match self.end {
            End::Open => {
                world.pay_again();
                world.ledger.at_rest(&world.nodes);
            }
            End::Closed => world.close_all(),
            End::Alone => {
                // What its operator asked may not have been durable: callers ask again.
                fail(world);
                world.rest();
                bury(world);
                for (node, view) in world.all_channels() {
                    assert_eq!(view.summary.state, "closed", "node {node}: {view:?}");
                    assert!(world.chain.is_spent(&view.summary.funding));
                }
            }
        }
        self.assert_events(world);
    }

    /// Every event that the rows call for is there, and no event twice.
    fn assert_events(&self, world: &World) {
        for node in &world.nodes {
            world.ledger.seen.events_once(node);
        }
        for (channel, founded) in world.ledger.funded() {
            let channel = channel.to_string();
            for node in founded.nodes.map(|node| &world.nodes[node]) {
                let told = ["channel_pending", "channel_ready", "channel_closed", "channel_failed"]
                    .map(|kind| Seen::count(node, kind, &channel));
                let expected = match self.end {
                    End::Open => [1, 1, 0, 0],
                    End::Closed => [1, 1, 1, 0],
                    End::Alone => [1, 1, 1, 1],
                };
                assert_eq!(told, expected, "node {}: {channel}", node.number);
            }
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
