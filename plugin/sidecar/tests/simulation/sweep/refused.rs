//! A required backup refuses a channel amid what goes on in it, and a node falls before that, behind it and between.

use outrigger_bolt::id::ChannelId;
use outrigger_channel::Command;
use outrigger_sidecar::store::row::PaymentState;

use super::super::backup::{Backup, head_in};
use super::super::behaviours::Behaviour;
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
];

const REFUSING: &[Step] = &[|world| world.nodes[LOSER].backups[0].behaviour = Behaviour::Refusing];

const fn refusal(name: &'static str, nodes: usize, steps: &'static [Step]) -> Script {
    Script { backups: &[LOSER], before: REFUSING, end: End::Refused, ..script(name, nodes, steps) }
}

fn backup(world: &World) -> &Backup {
    &world.nodes[LOSER].backups[0]
}

fn refuse_next(world: &mut World) {
    backup(world).turn_bad();
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
        pay(world, &[0, LOSER], 1_000_000);
        world.rest();
        assert_kept(world);
    }
    let channel = refused(world).expect("a channel that is refused");
    assert_eq!(backup(world).refusals(), 1);
    world.order(LOSER, channel, Command::Fail { reason: "its operator wants it closed".to_owned() });
    world.rest();
    bury(world);
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
