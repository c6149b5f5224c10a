//! What the nodes of the sweep do.

use std::collections::BTreeSet;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message};
use outrigger_channel::{Command, Policy};
use outrigger_sidecar::manager::pending::MAX_PENDING_PER_PEER;
use outrigger_sidecar::manager::relay::register::{Caps, Load};
use outrigger_sidecar::manager::terms::ForwardingPolicy;

use super::super::backup::Backup;
use super::super::disk::{Content, File};
use super::super::ledger::Outcome;
use super::super::node::{Config, Node};
use super::super::payments::Flaw;
use super::super::rows;
use super::super::schedule::feerates;
use super::super::signer::Signers;
use super::super::world::World;
use super::script::{End, Script, Step, script};

/// The script of a payment in five parts.
pub const FIVE_PARTS: &str = "per-1-five-parts";

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
    // PER-1: the payee gets one payment in five parts over five channels, and claims all of them.
    Script { channels: 5, ..script(FIVE_PARTS, 2, PARTS_OF_FIVE) },
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
    Script { backups: &[1], end: End::Amid, ..script("backed-alone", 2, &[fail_amid, World::mine, bury]) },
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
const PARTS_OF_FIVE: &[Step] = &[|world| pay(world, &[0, 1], 2_500_000_000), assert_five_parts];
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

/// More rounds of payments both ways than it takes until a commitment has one of each.
const ROUNDS: usize = 100;

/// Whose disk is lost in a script.
pub const LOSER: usize = 1;

pub fn pay(world: &mut World, way: &[usize], msat: u64) {
    let (Some(payer), Some(payee)) = (way.first(), way.last()) else { return };
    world.pay_over(*payer, *payee, Msat::new(msat), &[way], Flaw::None);
}

/// Some of what follows, so that the next thing comes in the midst of it.
pub(super) fn some_steps(world: &mut World, count: usize) {
    for _ in 0..count {
        if world.plan.fallen > 0 || !world.step() {
            return;
        }
    }
}

pub(super) fn channels(world: &World) -> Vec<ChannelId> {
    world.ledger.funded().map(|(channel, _)| *channel).collect()
}

pub(super) fn close(world: &mut World) {
    for channel in channels(world) {
        let script = world.nodes[0].script();
        world.order(0, channel, Command::Shutdown { script, feerate: FeeratePerKw::new(1_500) });
    }
}

/// The payment went in as many parts as there are channels, one over each, and all are claimed.
fn assert_five_parts(world: &mut World) {
    let claimed = world.ledger.htlcs.iter().filter(|(_, htlc)| htlc.outcome == Some(Outcome::Fulfilled));
    let over: BTreeSet<_> = claimed.clone().map(|((channel, ..), _)| *channel).collect();
    assert_eq!((claimed.count(), over.len()), (5, 5), "five parts over five channels");
}

/// The operator of node 1 ends every channel alone while its newest commitment has an HTLC of each side.
fn fail_amid(world: &mut World) {
    for _ in 0..ROUNDS {
        pay(world, &[0, 1], 5_000_000);
        pay(world, &[1, 0], 3_000_000);
        while world.plan.fallen == 0 && world.step() {
            if has_both(world) {
                return fail(world);
            }
        }
        if world.plan.fallen > 0 {
            return;
        }
    }
    panic!("no commitment has an HTLC of each side");
}

fn has_both(world: &World) -> bool {
    let Some(live) = &world.nodes[LOSER].live else { return false };
    let heads = channels(world).into_iter().filter_map(|channel| rows::head(&live.db, &channel));
    let mut totals = heads.map(|head| head.local_commitment);
    totals.any(|totals| [totals.offered_by_local, totals.offered_by_remote].iter().all(|side| side.value > Msat::ZERO))
}

/// The operator of node 1 ends every channel alone.
pub(super) fn fail(world: &mut World) {
    for channel in channels(world) {
        world.ledger.ended_alone.insert(channel);
        world.order(1, channel, Command::Fail { reason: "the operator wants it".to_owned() });
    }
}

/// As many blocks as bury a claim after its delay.
pub(super) fn bury(world: &mut World) {
    sink_deep(world, TO_SELF_DELAY + 8);
}

pub(super) fn sink_deep(world: &mut World, blocks: u16) {
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
pub(super) fn start_old(world: &mut World) {
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

/// Nodes in a line, with so many channels on each link; these of them have a required backup.
pub fn found_with(world: &mut World, nodes: usize, channels_each: usize, backups: &[usize]) {
    for number in 0..nodes {
        let mut node = node(number, world.signers.clone());
        node.backups.extend(backups.contains(&number).then(Backup::default));
        world.nodes.push(node);
        world.start(number);
    }
    for number in 1..nodes {
        world.add_link([number - 1, number]);
        world.connect(number - 1);
        for opened in 0..channels_each {
            if opened > 0 && opened % MAX_PENDING_PER_PEER == 0 {
                confirm(world);
            }
            world.open(number - 1, 0, (1_000_000, 400_000_000));
        }
    }
    confirm(world);
    assert_eq!(channels(world).len(), channels_each * (nodes - 1), "a channel was not opened");
}

/// What is being opened is ready.
fn confirm(world: &mut World) {
    world.rest();
    sink_deep(world, 2);
}

/// The first channel of a node closes.
pub fn close_one(world: &mut World, node: usize) {
    let of_node = world.ledger.funded().find(|(_, founded)| founded.nodes.contains(&node));
    let channel = *of_node.expect("a channel").0;
    let script = world.nodes[node].script();
    world.order(node, channel, Command::Shutdown { script, feerate: FeeratePerKw::new(1_500) });
}
