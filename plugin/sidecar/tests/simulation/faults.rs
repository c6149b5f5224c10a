//! Commits, and all that ends a node's process: a crash that the seed decides, and one at a point that the sweep names.

use std::collections::BTreeMap;

use outrigger_channel::Effect;
use outrigger_sidecar::node::{STORAGE_EXIT_CODE, StartFault};
use outrigger_sidecar::store::{Batch, Held, Released, StoreError};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::disk::{Damage, Failing};
use super::world::World;

/// What is to go wrong in a run of the sweep, and what was counted where nothing is.
#[derive(Debug)]
pub struct Plan {
    /// What is left of a disk that fails.
    pub damage: Damage,
    /// The machine stops once more, after so many operations of what follows, and this is left of its disk then.
    pub again: Option<(u64, Damage)>,
    /// The process of a node ends after the commit of this number, with so many of its effects delivered.
    pub killed: Option<(usize, usize, usize)>,
    /// The machine of a node stops where it does the thing of this number for its backup: before it, or after.
    pub stopped: Option<(usize, usize, bool)>,
    /// What each commit of each node released.
    pub released: Vec<(usize, Vec<&'static str>)>,
    /// What was told before its commit: the disk's operations behind it come between the two.
    pub ordered: Vec<&'static str>,
    /// How many things each node did for its backup, and the backup for it.
    pub acts: BTreeMap<usize, usize>,
    /// How often a node has fallen as planned.
    pub fallen: u32,
    /// Nothing is planned: the seed draws what goes wrong.
    pub is_drawn: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let (again, killed, stopped) = (None, None, None);
        let (released, ordered, acts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { damage: Damage::Kept, again, killed, stopped, released, ordered, acts, fallen: 0, is_drawn: false }
    }
}

impl Plan {
    /// How many commits of a node there were.
    fn commits_of(&self, node: usize) -> usize {
        self.released.iter().filter(|(of, _)| *of == node).count()
    }

    /// Takes note of what a commit released; says how much of it is delivered where the process ends in the midst of it.
    fn committed(&mut self, node: usize, released: &Released) -> Option<usize> {
        let number = self.commits_of(node);
        self.released.push((node, released.held().iter().map(name).collect()));
        self.killed.take_if(|(of, commit, _)| (*of, *commit) == (node, number)).map(|(.., keep)| keep)
    }

    /// Takes note of a thing that is about to be done for a backup; says whether the machine stops before or after.
    fn acts(&mut self, node: usize) -> Option<bool> {
        let number = self.acts.entry(node).or_default();
        let stops = self.stopped.take_if(|(of, act, _)| (*of, *act) == (node, *number)).map(|(.., is_after)| is_after);
        *number += 1;
        stops
    }
}

/// What a thing is that waits for a commit: the variant, of an effect that of the effect.
fn name(held: &Held) -> &'static str {
    match held {
        Held::Channel { effect, .. } => match &**effect {
            Effect::Send(_) => "Send",
            Effect::Revoke { .. } => "Revoke",
            Effect::Disconnect(_) => "Disconnect",
            Effect::Publish { .. } => "Publish",
            Effect::Restored { .. } => "Restored",
            Effect::Watch(_) => "Watch",
            Effect::Incoming(_) => "Incoming",
            Effect::Settle { .. } => "Settle",
            Effect::Removed { .. } => "Removed",
            Effect::Reply(..) => "Reply",
            Effect::Note(_) => "Note",
        },
        Held::Order { .. } => "Order",
        Held::Settled { .. } => "Settled",
        Held::Archived { .. } => "Archived",
        Held::Chain(_) => "Chain",
        Held::Durable(_) => "Durable",
    }
}

/// How often a start is made where disks go on failing.
const STARTS: usize = 5;

impl World {
    /// The end of the commit that was begun, and what it releases; or the beginning of the next, which may tell its orders.
    pub fn commit(&mut self, node: usize, limit: usize) {
        let live = self.nodes[node].live.as_mut().expect("a live node");
        let commits = &mut live.duties.commits;
        let Some(gathered) = live.gathered.take() else {
            let mut gathered = commits.gather(limit).expect("a batch");
            if self.rng.random_ratio(3, 4) {
                let (orders, last_seq) = commits.orders(&mut gathered);
                self.plan.ordered.extend(orders.held().iter().map(name));
                live.release(orders, last_seq);
            }
            live.gathered = Some(gathered);
            return;
        };
        match commits.finish(gathered) {
            Ok((released, last_seq)) => {
                self.deliver_released(node, released, last_seq);
                self.checkpoint(node);
            }
            Err(fault) => self.failed(node, fault),
        }
    }

    /// Between two commits the journal is turned over, where it is full or nothing comes for a while.
    fn checkpoint(&mut self, node: usize) {
        let Some(live) = &mut self.nodes[node].live else { return };
        let commits = &mut live.duties.commits;
        let is_due = commits.is_checkpoint_due() || self.rng.random_ratio(1, 6);
        if !commits.is_ahead() || !is_due {
            return;
        }
        match commits.checkpoint() {
            Ok(()) => {
                self.counts.one("checkpoints");
                self.note(format_args!("{node}: turns its journal over"));
            }
            Err(fault) => self.failed(node, fault),
        }
    }

    /// The process of a node ends for its disk, with the exit code of that.
    pub fn failed(&mut self, node: usize, fault: StoreError) {
        let words = fault.to_string();
        assert!(self.nodes[node].disk.has_failed(), "node {node} ends on a good disk: {words}");
        assert_eq!(StartFault::from(fault).exit_code(), STORAGE_EXIT_CODE, "node {node}: {words}");
        if self.plan.is_drawn { self.fall_for_disk(node) } else { self.fall_as_planned(node) }
    }

    /// The disk of a node refuses something soon: once, everything from then on, or what takes room.
    pub fn hurt_disk(&mut self, node: usize) {
        let failing = *[Failing::Once, Failing::ForEver, Failing::Full].choose(&mut self.rng).expect("some");
        let operations = self.rng.random_range(0..24);
        self.note(format_args!("{node}: after {operations} operations its disk fails, {failing:?}"));
        self.nodes[node].disk.fail_after(operations, failing);
    }

    /// The process of a node has ended for its disk, which is well at the next start, or is still full.
    fn fall_for_disk(&mut self, node: usize) {
        let failing = self.nodes[node].disk.failing();
        self.counts.one(match failing {
            Some(Failing::Full) => "full disks",
            Some(Failing::ForEver) => "disks that refuse all from some operation on",
            Some(Failing::Once | Failing::Power) | None => "disks that refuse one operation",
        });
        let damage = *Damage::ALL.choose(&mut self.rng).expect("some");
        self.note(format_args!("{node}: falls, for its disk fails, {failing:?}, {damage:?}"));
        self.fall(node, damage);
        if failing == Some(Failing::Full) && self.rng.random_bool(0.5) {
            self.nodes[node].disk.fail_after(0, Failing::Full);
        }
    }

    /// A node does something for its backup, or the backup for it, unless the machine stops.
    pub fn act_for_backup(&mut self, node: usize, act: impl FnOnce(&mut Self)) {
        match self.plan.acts(node) {
            None => act(self),
            Some(is_after) => {
                if is_after {
                    act(self);
                    self.after(node);
                }
                self.fall_as_planned(node);
            }
        }
    }

    fn deliver_released(&mut self, node: usize, mut released: Released, last_seq: u64) {
        let killed_after = self.plan.committed(node, &released);
        let live = self.nodes[node].live();
        match killed_after {
            None => {
                live.release(released, last_seq);
                self.look_at_disk(node);
            }
            Some(keep) => {
                // The newest event is told last.
                let told = *live.core.events.borrow();
                released.keep(keep);
                live.release(released, told);
                self.look_at_disk(node);
                self.after(node);
                self.fall_as_planned(node);
            }
        }
    }

    /// The process of a node is gone, and its disk is as the plan says.
    fn fall_as_planned(&mut self, node: usize) {
        self.plan.fallen += 1;
        let damage = self.plan.damage;
        self.note(format_args!("{node}: falls, and its disk is {damage:?}"));
        self.fall(node, damage);
        if let Some((operations, damage)) = self.plan.again.take() {
            self.nodes[node].disk.fail_after(operations, Failing::Power);
            self.plan.damage = damage;
        }
    }

    /// The process of a node is gone; this is left on its disk of what was not synced.
    pub fn fall(&mut self, node: usize, damage: Damage) {
        let live = self.nodes[node].live.take();
        self.nodes[node].disk = self.nodes[node].disk.crash(damage, &mut self.rng);
        drop(live);
        self.is_gone(node);
    }

    /// Nobody runs at a node any more.
    fn is_gone(&mut self, node: usize) {
        for link in &mut self.links {
            if let Some(side) = link.side_of(node) {
                link.lose(side, &mut self.rng);
            }
        }
        for at in 0..self.nodes[node].backups.len() {
            let backup = self.nodes[node].backups[at].clone();
            if backup.lose_node(&mut self.rng) {
                self.counts.one("backups that forgot");
                self.note(format_args!("{node}: backup {at} forgets"));
            }
        }
    }

    /// A node is gone, with everything that its disk does not have.
    pub fn crash(&mut self, node: usize) {
        self.counts.one("crashes");
        let way = self.rng.random_range(0..4);
        let damage = *Damage::ALL.choose(&mut self.rng).expect("some");
        let disk = self.nodes[node].disk.clone();
        let Some(live) = &mut self.nodes[node].live else { return };
        let limit = if way == 1 { self.rng.random_range(1..4) } else { usize::MAX };
        let commits = &mut live.duties.commits;
        let gathered = live.gathered.take();
        let begun = gathered.or_else(|| (commits.waiting() > 0).then(|| commits.gather(limit)).flatten());
        match (way, begun) {
            // Nothing of what waits is durable.
            (0, _) | (_, None) => {}
            // Some is, and nothing of that was delivered.
            (1 | 2, Some(gathered)) => drop(commits.finish(gathered)),
            // In the midst of a commit or a checkpoint.
            (_, Some(gathered)) => {
                disk.fail_after(self.rng.random_range(0..12), Failing::Power);
                let (finished, turns_over) = (commits.finish(gathered), self.rng.random_bool(0.5));
                if finished.is_ok() && turns_over {
                    drop(commits.checkpoint());
                }
            }
        }
        self.note(format_args!("{node}: crashes in way {way}, {damage:?}"));
        self.fall(node, damage);
    }

    /// A node is asked to stop: what is queued is written, and its file is closed.
    pub fn stop(&mut self, node: usize) {
        self.note(format_args!("{node}: stops"));
        if let Some(live) = &self.nodes[node].live {
            let mut last = Batch::default();
            last.conclude();
            live.core.manager.env().writer.submit(last);
        }
        while let Some(live) = &self.nodes[node].live
            && (live.gathered.is_some() || live.duties.commits.waiting() > 0)
        {
            self.commit(node, usize::MAX);
            self.after(node);
        }
        if self.nodes[node].live.take().is_none() {
            return;
        }
        self.is_gone(node);
        if self.nodes[node].disk.has_failed() {
            self.fall_as_planned(node);
        }
    }

    /// A node starts, or starts again. What its peers, callers and readers saw of it must be there.
    pub fn start(&mut self, node: usize) {
        self.note(format_args!("{node}: starts"));
        match self.nodes[node].start(&self.chain) {
            Ok(published) => {
                self.look_at_age(node);
                self.forget_refusals(node);
                published.into_iter().for_each(|tx| self.chain.publish(tx));
                if !self.nodes[node].is_old {
                    self.ledger.seen.held_against(&self.nodes[node], |channel| self.is_had(channel));
                    self.told_is_kept(node);
                }
                self.after(node);
            }
            Err(fault) => self.failed(node, fault),
        }
    }

    /// Everything runs and is connected, and comes to rest.
    pub fn heal(&mut self) {
        self.bring_backups_back();
        if self.plan.is_drawn {
            self.nodes.iter().for_each(|node| node.disk.mend());
        }
        for _ in 0..STARTS {
            for node in 0..self.nodes.len() {
                if self.nodes[node].live.is_none() {
                    self.start(node);
                }
            }
            self.rest();
            (0..self.links.len()).for_each(|link| self.connect(link));
            self.rest();
            for _ in 0..3 {
                self.mine();
                self.rest();
            }
            if self.nodes.iter().all(|node| node.live.is_some()) {
                return;
            }
        }
        panic!("a node falls each time that it starts");
    }
}
