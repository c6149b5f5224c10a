//! A required backup refuses a channel amid what goes on in it, and a node falls before that, behind it and between. Where a payment
//! is relayed, it refuses the channel that brings it or the one that takes it on, before the other has heard of it or behind.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Transaction};
use outrigger_bolt::id::ChannelId;
use outrigger_channel::Command;
use outrigger_sidecar::store::row::PaymentState;

use super::super::backup::{Backup, head_in};
use super::super::behaviours::Behaviour;
use super::super::ledger::{Founded, Htlc, Name, Outcome};
use super::super::rows;
use super::super::world::World;
use super::script::{End, Script, Step, script};
use super::scripts::{LOSER, bury, channels, pay, some_steps};

/// Whose backup refuses the channel of what it is given next.
pub const REFUSALS: &[Script] = &[
    refusal(
        "refused-payee",
        2,
        &[|world| {
            refuse_next(world);
            pay(world, &[0, 1], 5_000_000);
        }],
    ),
    refusal(
        "refused-payer",
        2,
        &[|world| {
            pay(world, &[1, 0], 5_000_000);
            some_steps(world, 30);
            refuse_next(world);
        }],
    ),
    refusal(
        "refused-amid",
        2,
        &[|world| {
            pay(world, &[0, 1], 5_000_000);
            some_steps(world, 40);
            refuse_next(world);
        }],
    ),
    refusal(
        "refused-relay-out",
        3,
        &[|world| {
            refuse_link(world, OUTGOING);
            pay(world, &[0, LOSER, 2], 4_000_000);
        }],
    ),
    refusal(
        "refused-relay-out-paid",
        3,
        &[|world| {
            pay(world, &[0, LOSER, 2], 4_000_000);
            until_paid(world);
            refuse_link(world, OUTGOING);
        }],
    ),
    refusal(
        "refused-relay-in",
        3,
        &[|world| {
            refuse_link(world, INCOMING);
            pay(world, &[0, LOSER, 2], 4_000_000);
        }],
    ),
    refusal(
        "refused-relay-in-paid",
        3,
        &[|world| {
            pay(world, &[0, LOSER, 2], 4_000_000);
            until_paid(world);
            refuse_link(world, INCOMING);
        }],
    ),
    // Its operator has it closed, and a node falls before that or behind it.
    ordered(
        "refused-amid-ordered",
        2,
        &[
            |world| {
                pay(world, &[0, 1], 5_000_000);
                some_steps(world, 40);
                refuse_next(world);
            },
            order_end,
            World::mine,
            bury,
        ],
    ),
];

/// The links that bring a relayed payment, and take it on.
const INCOMING: usize = 0;
const OUTGOING: usize = 1;

/// More steps than a payment over two channels takes.
const STEPS: usize = 1000;

/// What an anchor is worth (BOLT 3).
const ANCHOR_SAT: u64 = 330;

const REFUSING: &[Step] = &[|world| world.nodes[LOSER].backups[0].behaviour = Behaviour::Refusing];

const fn refusal(name: &'static str, nodes: usize, steps: &'static [Step]) -> Script {
    Script { backups: &[LOSER], before: REFUSING, end: End::Refused, ..script(name, nodes, steps) }
}

const fn ordered(name: &'static str, nodes: usize, steps: &'static [Step]) -> Script {
    Script { end: End::Ordered, ..refusal(name, nodes, steps) }
}

/// The operator has the refused channel closed: what is kept for it is published.
fn order_end(world: &mut World) {
    if let Some(channel) = refused(world) {
        world.order(LOSER, channel, Command::Fail { reason: "its operator wants it closed".to_owned() });
    }
}

fn backup(world: &World) -> &Backup {
    &world.nodes[LOSER].backups[0]
}

fn refuse_next(world: &mut World) {
    backup(world).turn_bad();
}

/// The next write of the channel on this link is refused.
fn refuse_link(world: &World, link: usize) {
    let nodes = world.links[link].nodes;
    let own = world.ledger.funded().find(|(_, founded)| nodes.iter().all(|node| founded.nodes.contains(node)));
    backup(world).turn_bad_for(*own.expect("a channel on the link").0);
}

/// The payee has told its preimage, and nobody has heard of it.
fn until_paid(world: &mut World) {
    let is_told = |world: &World| world.ledger.htlcs.values().any(|htlc| htlc.outcome == Some(Outcome::Fulfilled));
    for _ in 0..STEPS {
        if is_told(world) || world.plan.fallen > 0 {
            return;
        }
        some_steps(world, 1);
    }
    panic!("the payee never tells its preimage");
}

/// Whether the backup has refused the channel.
pub fn is_refused(world: &World, channel: &ChannelId) -> bool {
    world.nodes.iter().flat_map(|node| &node.backups).any(|backup| backup.has_refused(channel))
}

fn refused(world: &World) -> Option<ChannelId> {
    channels(world).into_iter().find(|channel| is_refused(world, channel))
}

/// The node whose backup it is runs, and no block has come since the refusal: what it keeps for the channel is the newest commitment
/// that the backup has; nothing where that is not known, since the backup lacks the newest that the disk has.
pub fn assert_kept(world: &mut World) {
    for _ in 0..3 {
        if world.nodes[LOSER].live.is_none() {
            world.start(LOSER);
        }
        world.rest();
    }
    let Some(channel) = refused(world).filter(|_| world.nodes[LOSER].live.is_some()) else { return };
    let head = rows::monitor_head(&world.nodes[LOSER].live().db, &channel).expect("a channel has a monitor");
    assert!(head.failed, "{channel} was refused, and goes on");
    let mut had = None;
    backup(world).has(&channel, |image| {
        had = head_in(image).map(|head| head.local_number);
        true
    });
    let (newest, had) = (head.local.number, had.expect("it had the channel"));
    let is_known = head.closing.is_some() || (had < newest && world.plan.fallen > 0);
    assert!(is_known, "{channel}: nothing is kept; the backup has commitment {had}, and the newest is {newest}");
    assert!(
        head.closing.is_none_or(|number| number <= had),
        "{channel}: the backup has {had} and not {:?}",
        head.closing
    );
    assert!(head.reserved == head.closing.is_some() && !head.may_publish, "{channel}: nobody has asked for it");
}

/// The refused channel comes to its end in the chain, and the others go on.
pub fn assert_ended(world: &mut World) {
    if refused(world).is_none() {
        // The crash came first: what is written next is refused.
        let way: Vec<_> = (0..world.nodes.len()).collect();
        pay(world, &way, 1_000_000);
        world.rest();
        assert_kept(world);
    }
    let channel = refused(world).expect("a channel that is refused");
    assert_eq!(backup(world).refusals(), 1);
    order_end(world);
    world.rest();
    bury(world);
    assert_settled(world, &channel);
    let published = world.ledger.published.clone();
    for (node, view) in world.all_channels() {
        if view.channel_id != channel {
            assert_eq!(view.summary.state, "normal", "node {node}: {view:?}");
            continue;
        }
        // HTLCs that are left in the chain keep it from its end.
        assert!(["failed", "closed"].contains(&view.summary.state), "node {node}: {view:?}");
        let spend = world.chain.spender(&view.summary.funding).expect("somebody has closed it");
        if published.get(&spend.compute_txid()) == Some(&LOSER) {
            let head = rows::monitor_head(&world.nodes[LOSER].live().db, &channel);
            assert!(head.is_none_or(|head| head.closing.is_some()), "it published what it does not keep");
        }
    }
    let beyond = world.ledger.funded().find(|(other, _)| **other != channel).map(|(_, founded)| founded.nodes);
    if let Some([one, other]) = beyond {
        let peer = if one == LOSER { other } else { one };
        let before = world.payments.len();
        pay(world, &[LOSER, peer], 1_000_000);
        world.rest();
        let begun = world.payments[before].answer.clone().expect("an answer").expect("a payment");
        let row = world.nodes[LOSER].live().core.payments.get(&begun.payment_id).unwrap().expect("a row");
        assert!(matches!(row.state, PaymentState::Succeeded { .. }), "the other channel stands still: {row:?}");
    }
}

/// The HTLC of a channel that this output of its commitment is of. No balance is worth as much.
fn htlc_of<'a>(world: &'a World, channel: &ChannelId, sat: u64) -> Option<(&'a Name, &'a Htlc)> {
    world.ledger.htlcs.iter().find(|((of, ..), htlc)| of == channel && htlc.amount.get() / 1000 == sat)
}

/// Every HTLC has the same end on both edges, or the chain has what is left of it; and of the channel that ended alone each output is
/// one node's, to the satoshi that the channel says.
pub(super) fn assert_settled(world: &World, ended: &ChannelId) {
    world.assert_at_rest();
    let founded = world.ledger.channels[ended].clone();
    let spend = world.chain.spender(&founded.funding).expect("somebody has closed it").clone();
    let is_in_chain = |name: &Name| name.0 == *ended && has_output(&spend, &world.ledger.htlcs[name]);
    for (down, up) in &world.ledger.upstream {
        let (htlc, outcomes) = (&world.ledger.htlcs[up], [down, up].map(|name| world.ledger.htlcs[name].outcome));
        if outcomes[1] == Some(Outcome::Failed) {
            assert_ne!(outcomes[0], Some(Outcome::Fulfilled), "{up:?} is given up, and {down:?} was paid");
            assert!(!is_in_chain(down), "{up:?} is given up, and {down:?} may still be taken from the chain");
        }
        if outcomes[0] == Some(Outcome::Fulfilled) && outcomes[1] != Some(Outcome::Fulfilled) {
            // It must have been in the ended channel that it came, and then with what takes it from the chain.
            let is_there = is_in_chain(up) && rows::has_preimage(&world.nodes[LOSER].live().db, &up.0, &htlc.hash);
            let has_heard = world.ledger.told.contains(&(LOSER, htlc.hash));
            assert!(is_there || !has_heard, "{down:?} was paid, and {up:?} brings nothing");
        }
    }
    assert_shared_out(world, (ended, &founded), &spend);
}

fn has_output(spend: &Transaction, htlc: &Htlc) -> bool {
    spend.output.iter().any(|output| output.value.to_sat() == htlc.amount.get() / 1000)
}

/// Each output of the commitment in the chain is an anchor, an HTLC, or the balance of one node, which takes it.
fn assert_shared_out(world: &World, (channel, founded): (&ChannelId, &Founded), spend: &Transaction) {
    let txid = spend.compute_txid();
    let mut expected = world.ledger.balances(channel, founded);
    let mut home = [0i128; 2];
    let mut paid_out = 0;
    for (vout, output) in (0..).zip(&spend.output) {
        let sat = output.value.to_sat();
        paid_out += i128::from(sat);
        let outpoint = OutPoint { txid, vout };
        let takers: BTreeSet<_> =
            (0..world.nodes.len()).filter(|node| world.ledger.claimed.contains_key(&(*node, outpoint))).collect();
        if sat == ANCHOR_SAT {
            continue;
        }
        if let Some(((_, offerer, _), htlc)) = htlc_of(world, channel, sat) {
            // Whose it is the chain will tell: it is in nobody's balance.
            let owner = if htlc.outcome == Some(Outcome::Fulfilled) { htlc.to } else { *offerer };
            expected[usize::from(founded.nodes[0] != owner)] -= i128::from(htlc.amount.get());
            continue;
        }
        let [taker] = takers.iter().copied().collect::<Vec<_>>().try_into().unwrap_or_else(|_| {
            panic!("{sat} sat in {outpoint} are taken by {takers:?}");
        });
        assert!(founded.nodes.contains(&taker), "node {taker} takes {sat} sat of a channel of others");
        home[usize::from(founded.nodes[0] != taker)] += i128::from(sat);
    }
    let capacity: i128 = founded.balances.iter().map(|balance| i128::from(balance.get())).sum::<i128>() / 1000;
    // The opener pays for the commitment and for both anchors (BOLT 3). What is below a satoshi goes to the fee: less than one of each
    // output.
    let costs = capacity - paid_out + 2 * i128::from(ANCHOR_SAT);
    for side in 0..2 {
        let node = founded.nodes[side];
        let pays = rows::params(&world.nodes[node].live().db, channel).expect("a channel").is_opener;
        let (own, got) = (expected[side] / 1000 - if pays { costs } else { 0 }, home[side]);
        let rounded = if pays { spend.output.len() as i128 } else { 0 };
        assert!((own..=own + rounded).contains(&got), "node {node} takes {got} sat of {own} in {channel}");
    }
}
