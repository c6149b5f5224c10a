//! A script: what is run, and what must hold at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use outrigger_sidecar::store::row::PaymentState;

use super::super::disk::{File, Operation};
use super::super::faults::Plan;
use super::super::node::Node;
use super::super::rows;
use super::super::seen::Seen;
use super::super::signer::Signing;
use super::super::stopped::Stopped;
use super::super::world::{Tracing, World};
use super::points::Point;
use super::refused;
use super::scripts::{LOSER, bury, channels, fail, found_with, pay, sink_deep, start_old};

/// One thing that somebody does; then the world comes to rest.
pub(super) type Step = fn(&mut World);

/// How the channels are at the end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Open,
    Closed,
    /// By one operator alone.
    Alone,
    /// By one operator alone, while HTLCs may be pending.
    Amid,
    /// Closed for so long that they are history.
    History,
    /// By the peers of a node whose rows are older than what it told them; this makes them so, where nothing has.
    Restored(Step),
    /// One of them by whoever may: a required backup has refused it.
    Refused,
    /// As that, and its operator may have ordered it.
    Ordered,
}

/// A short run of few nodes in a line.
pub struct Script {
    pub name: &'static str,
    pub(super) nodes: usize,
    /// Of each link, before the steps begin.
    pub(super) channels: usize,
    /// Nodes with a required backup.
    pub(super) backups: &'static [usize],
    /// What comes before anything goes wrong.
    pub(super) before: &'static [Step],
    pub(super) steps: &'static [Step],
    pub(super) end: End,
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

pub(super) const fn script(name: &'static str, nodes: usize, steps: &'static [Step]) -> Script {
    Script { name, nodes, channels: 1, backups: &[], before: &[], steps, end: End::Open }
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
        if matches!(self.end, End::Refused) {
            refused::assert_kept(world);
        }
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
            End::Amid => {
                world.assert_at_rest();
                // As above. What was pending stands in the chain.
                fail(world);
                world.rest();
                bury(world);
                world.assert_paid();
                channels(world).iter().for_each(|channel| refused::assert_settled(world, channel));
                for (node, view) in world.all_channels() {
                    assert!(["failed", "closed"].contains(&view.summary.state), "node {node}: {view:?}");
                }
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
            End::Refused | End::Ordered => refused::assert_ended(world),
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
            let is_refused = refused::is_refused(world, channel);
            let channel = channel.to_string();
            // The events of a node with an older disk are older too.
            for node in founded.nodes.map(|node| &world.nodes[node]).into_iter().filter(|node| !node.is_old) {
                let told = ["channel_pending", "channel_ready", "channel_closed", "channel_failed"]
                    .map(|kind| Seen::count(node, kind, &channel));
                // HTLCs that are left in the chain keep a channel from its end.
                let told =
                    if is_refused || matches!(self.end, End::Amid) { [told[0], told[1], 1, told[3]] } else { told };
                let expected = match self.end {
                    End::Open => [1, 1, 0, 0],
                    End::Refused | End::Ordered if !is_refused => [1, 1, 0, 0],
                    End::Closed | End::History => [1, 1, 1, 0],
                    End::Alone | End::Amid | End::Refused | End::Ordered | End::Restored(_) => [1, 1, 1, 1],
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
            if world.is_unsure(&begun.payment_hash) {
                continue;
            }
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
pub(super) fn assert_at_rest(world: &mut World) {
    // Also of channels that are ended alone, where nothing was under way.
    let ended = std::mem::take(&mut world.ledger.ended_alone);
    world.assert_at_rest();
    world.assert_paid();
    world.ledger.ended_alone = ended;
}

/// Every channel has closed, by a transaction in the chain.
pub(super) fn assert_closed(world: &World) {
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
