//! What runs for the backups of a node, as steps that the world takes; and what happens to backups in a seed.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use outrigger_bolt::id::ChannelId;
use outrigger_channel::{Command, Phase};
use outrigger_sidecar::store::backup::{Hub, News, Open, Persist, SinkTerms, Start};
use outrigger_sidecar::store::{self, Snapshot, StoreError};
use rand::Rng;
use redb::Database;

use super::backup::{Backup, CLOCKS};
use super::behaviours::{Behaviour, Lie};
use super::disk::Damage;
use super::node::{NETWORK, Node};
use super::rows;
use super::world::{Event, World};

/// What runs for a node's backups. Their threads are steps that the world takes.
pub struct Sinks {
    pub hub: Arc<Hub>,
    sinks: Vec<Box<dyn Persist>>,
    pub news: Receiver<News>,
    pub has_given_up: bool,
}

impl Sinks {
    /// Those over what the start found, as `node.rs` makes them; none without a backup, and in restored mode.
    pub fn of(node: &Node, db: &Arc<Database>, file: &Snapshot) -> Result<Option<Self>, StoreError> {
        if node.backups.is_empty() || file.restored.is_some() {
            return Ok(None);
        }
        let names: Vec<_> = node.backups.iter().map(Backup::name).collect();
        let start = Start::of(db, file, &names, &names)?;
        let (told, news) = crossbeam_channel::unbounded();
        let opener =
            |backup: Backup| -> (SinkTerms, Open) { (backup.terms(), Box::new(move |ends| backup.open(ends))) };
        let openers = node.backups.iter().cloned().map(opener).collect();
        let found = (start, store::last_event(db)?);
        let (hub, sinks) = Hub::new((NETWORK, node.id), db.clone(), found, CLOCKS, openers, told);
        Ok(Some(Self { hub, sinks, news, has_given_up: false }))
    }

    /// Gives the backup of this number the next thing.
    pub fn step(&mut self, at: usize) {
        if let Some(sink) = self.sinks.get_mut(at) {
            self.hub.step(at, &mut **sink);
        }
    }

    /// Hears what those backups hold that are there; nobody waits longer for the others.
    pub fn hear(&mut self, backups: &[Backup]) -> Result<(), StoreError> {
        for at in (0..backups.len()).filter(|at| !backups[*at].is_away()) {
            self.step(at);
            if let Ok(News::Storage(fault)) = self.news.try_recv() {
                return Err(fault);
            }
        }
        Ok(())
    }
}

/// What can happen next for the backups of a node.
pub fn possible(node: &Node, found: &mut Vec<(Event, u32)>) {
    let Some(sinks) = node.live.as_ref().and_then(|live| live.sinks.as_ref()) else { return };
    for (at, backup) in node.backups.iter().enumerate() {
        if sinks.hub.has_work(at) && !backup.is_away() {
            found.push((Event::Sink { node: node.number, at }, node.pace));
        }
        if backup.is_behind() {
            found.push((Event::Backup { node: node.number, at }, node.pace));
        }
    }
    if !sinks.news.is_empty() {
        found.push((Event::News(node.number), node.pace));
    }
}

impl World {
    /// Backups for a node of a seed: none, one or two.
    pub fn draw_backups(&mut self, node: usize) {
        for at in 0..self.rng.random_range(0..3) {
            let (behaviour, is_required) = (Behaviour::draw(&mut self.rng), self.rng.random_bool(0.6));
            let kind = if is_required { "required backups" } else { "backups that follow" };
            [kind, behaviour.kind()].into_iter().for_each(|kind| self.counts.one(kind));
            self.note(format_args!("{node}: backup {at} is {behaviour:?}, required: {is_required}"));
            let backup = Backup::new(&format!("copy-{at}"), is_required, behaviour, self.rng.random());
            self.nodes[node].backups.push(backup);
        }
    }

    pub fn step_sink(&mut self, node: usize, at: usize) {
        self.note(format_args!("{node}: does something for its backup {at}"));
        self.act_for_backup(node, |world| {
            world.nodes[node].live.as_mut().expect("a live node").sinks.as_mut().expect("sinks").step(at);
        });
    }

    pub fn complete_in_backup(&mut self, node: usize, at: usize) {
        self.note(format_args!("{node}: its backup {at} has something"));
        self.act_for_backup(node, |world| {
            let backup = world.nodes[node].backups[at].clone();
            backup.complete_one(&mut world.rng);
        });
    }

    pub fn hear_of_backup(&mut self, node: usize) {
        let news = self.nodes[node].live().sinks.as_ref().expect("sinks").news.try_recv();
        match news.expect("news") {
            News::Ahead { proof } => {
                self.nodes[node].live().core.manager.prove_old(&proof);
                self.look_at_age(node);
            }
            News::Storage(fault) => self.failed(node, fault),
            News::Unstored(unstored) => {
                self.counts.one("channels that a backup refuses");
                self.note(format_args!("{node}: a backup refuses channel {}", unstored.channel));
                self.ledger.ended_alone.insert(unstored.channel);
                self.ledger.refused.insert((node, unstored.channel));
                self.nodes[node].live().core.manager.fail_unstored(unstored);
            }
            News::Heard => self.nodes[node].live().core.manager.heard(),
            News::Kept { channel, number } => self.nodes[node].live().core.manager.keep(channel, number),
            News::Dead { reason } => self.replace_backup(node, &reason),
        }
    }

    /// A backup refused a second channel: the node stops, and its operator puts another one into its place.
    fn replace_backup(&mut self, node: usize, reason: &str) {
        self.counts.one("backups replaced");
        self.note(format_args!("{node}: stops for its backup: {reason}"));
        self.fall(node, Damage::Cached);
        let seed = self.rng.random();
        let dead = self.nodes[node].backups.iter_mut().find(|backup| backup.is_required() && backup.refusals() > 1);
        let dead = dead.expect("a backup that refused two channels");
        *dead = Backup::in_place_of(dead, seed);
    }

    /// A node fell before it was durable that a backup refused a channel, and the one in its place takes the channel: it goes on.
    pub fn forget_refusals(&mut self, node: usize) {
        let Self { ledger, nodes, .. } = self;
        let Node { number, backups, live: Some(live), .. } = &nodes[node] else { return };
        let has_failed = |channel: &ChannelId| {
            let head = rows::head(&live.db, channel);
            head.is_none_or(|head| matches!(head.phase, Phase::Failed { .. } | Phase::Closed { .. }))
        };
        let is_taken = |channel: &ChannelId| !backups.iter().any(|backup| backup.has_refused(channel));
        let of_node = ledger.refused.iter().filter(|(of, channel)| of == number && is_taken(channel));
        let forgotten: Vec<_> = of_node.map(|(_, channel)| *channel).filter(|channel| !has_failed(channel)).collect();
        for channel in forgotten {
            self.counts.one("refusals that nobody remembers");
            self.ledger.refused.remove(&(node, channel));
            if !self.ledger.refused.iter().any(|(_, refused)| *refused == channel) {
                self.ledger.ended_alone.remove(&channel);
            }
            self.note(format_args!("{node}: has forgotten that a backup refused channel {channel}"));
        }
    }

    /// A node that a backup has told of more than it was ever given is in restored mode, as if its rows were old. A crash before that
    /// is durable takes it back.
    pub fn look_at_age(&mut self, node: usize) {
        let Some(live) = &self.nodes[node].live else { return };
        let is_restored = live.core.manager.env().is_restored();
        let Node { is_old, is_fooled, backups, .. } = &mut self.nodes[node];
        if is_restored && !*is_old {
            assert!(backups.iter().any(Backup::has_boasted), "node {node} is in restored mode, and nobody lied to it");
            (*is_old, *is_fooled) = (true, true);
            self.ledger.old.insert(node);
            self.counts.one("nodes that a lie puts into restored mode");
            self.note(format_args!("{node}: is in restored mode for a lie"));
        } else if !is_restored && *is_fooled {
            (*is_old, *is_fooled) = (false, false);
            self.ledger.old.remove(&node);
            self.note(format_args!("{node}: has forgotten a lie"));
        }
    }

    /// Backups go away and come back, have old copies made of them, and go against their nature.
    pub fn move_backups(&mut self) {
        for node in 0..self.nodes.len() {
            for at in 0..self.nodes[node].backups.len() {
                let backup = self.nodes[node].backups[at].clone();
                match backup.behaviour {
                    Behaviour::Failing if backup.is_away() && self.rng.random_bool(0.02) => {
                        self.note(format_args!("{node}: backup {at} is back"));
                        backup.set_away(false);
                    }
                    Behaviour::Failing if self.rng.random_bool(0.005) => {
                        self.counts.one("backups away");
                        self.note(format_args!("{node}: backup {at} is away"));
                        backup.set_away(true);
                    }
                    Behaviour::Refusing if backup.refusals() < 2 && self.rng.random_bool(0.002) => backup.turn_bad(),
                    // What it does comes with a start.
                    Behaviour::Lying(Lie::More | Lie::Forgets) if self.rng.random_bool(0.003) => {
                        backup.turn_bad();
                        self.crash(node);
                    }
                    _ => {}
                }
                if self.rng.random_bool(0.004) {
                    backup.remember();
                }
            }
        }
        self.look_for_stalls();
    }

    /// Every backup is there again.
    pub fn bring_backups_back(&mut self) {
        let backups: Vec<_> = self.nodes.iter().flat_map(|node| node.backups.iter().cloned()).collect();
        backups.iter().filter(|backup| backup.is_away()).for_each(|backup| backup.set_away(false));
    }

    /// What the daemon does every second. Says whether anything has changed.
    pub fn look_for_stalls(&mut self) -> bool {
        let mut has_changed = false;
        for node in 0..self.nodes.len() {
            let Some(hub) = self.nodes[node].live.as_ref().and_then(|live| Some(live.sinks.as_ref()?.hub.clone()))
            else {
                continue;
            };
            let mut changed = hub.look_for_stalls();
            changed.sort_unstable();
            for channel in changed {
                let is_stalled = hub.is_stalled(&channel);
                if is_stalled {
                    self.counts.one("channels stalled");
                }
                self.note(format_args!("{node}: channel {channel} is stalled: {is_stalled}"));
                self.nodes[node].live().core.manager.set_stalled(&channel, is_stalled);
                self.after(node);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Operators have channels closed that a backup refused: what every required backup has of them is published.
    pub fn force_refused(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_old || self.rng.random_bool(0.5) {
                continue;
            }
            let refused: Vec<_> = {
                let ended = self.ledger.ended_alone.iter().copied();
                ended
                    .filter(|channel| self.nodes[node].backups.iter().any(|backup| backup.has_refused(channel)))
                    .collect()
            };
            for channel in refused {
                self.order(node, channel, Command::Fail { reason: "its operator wants it closed".to_owned() });
            }
        }
    }
}
