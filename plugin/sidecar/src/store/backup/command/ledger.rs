//! What was given to a program and is not complete yet: so that every completion is told once, and a program that was started
//! again is given everything that it may have lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outrigger_bolt::id::ChannelId;

use super::Request;
use crate::lock::Mutex;
use crate::store::backup::sealed::{RecordKind, RecordName};
use crate::store::backup::{Answer, Holding, SinkEnds, Update};

/// Open updates of one channel that are held to be given again. Beyond, a full write takes their place.
const MAX_OPEN: usize = 64;

/// Updates of one channel behind a full record. Beyond, another one takes their place: a program need not list, nor a restore read, more
/// than these.
const FULL_EVERY: usize = 4096;

/// Open writes of all channels.
pub(super) struct Ledger {
    channels: Mutex<HashMap<ChannelId, Open>>,
    ends: SinkEnds,
}

/// Those of one channel.
#[derive(Default)]
struct Open {
    /// The newest full write that is complete: it voids everything before it. Or what was found to be whole at the start.
    complete: u64,
    /// The newest record that was given: an update has to follow it. Nothing is given before a full write where the program has lost
    /// the channel: then it is 0.
    newest: u64,
    /// The newest id that the program completed: it has to hold all up to it.
    kept: u64,
    /// Updates that were given since the newest full record.
    updates: usize,
    /// By the id of the record.
    writes: BTreeMap<u64, Write>,
}

struct Write {
    is_full: bool,
    /// Ids that the node awaits and that are complete with it.
    awaited: Vec<u64>,
    /// Nothing where a later full write is with the program.
    request: Option<Arc<Request>>,
}

/// Where a write finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a full write that is complete.
    Complete,
    /// In a full write that is open, and complete with it.
    Open,
    /// It is to be given to the program.
    New,
}

impl Ledger {
    pub(super) fn new(ends: SinkEnds) -> Self {
        Self { channels: Mutex::new(HashMap::new()), ends }
    }

    /// Takes in a write that is about to be given. The node awaits `given`.
    pub(super) fn enter(&self, name: &RecordName, given: u64, request: &Arc<Request>) -> Place {
        let mut channels = self.channels.lock();
        let open = channels.entry(name.channel).or_default();
        if given <= open.complete {
            return Place::Complete;
        }
        if let Some((_, full)) = open.writes.range_mut(given..).find(|(_, write)| write.is_full) {
            full.awaited.push(given);
            return Place::Open;
        }
        open.newest = open.newest.max(name.id);
        let is_full = name.kind == RecordKind::Full;
        open.updates = if is_full { 0 } else { open.updates.saturating_add(1) };
        // A full write may stand at the id of an update that is open: it takes its place.
        let mut awaited = open.writes.remove(&name.id).map(|write| write.awaited).unwrap_or_default();
        awaited.push(given);
        open.writes.insert(name.id, Write { is_full, awaited, request: Some(request.clone()) });
        Place::New
    }

    /// The program answered that the write is complete: so it is for the node, unless it was told of it before.
    pub(super) fn answered(&self, name: &RecordName, given: u64) -> Answer {
        let Some(awaited) = self.take(&name.channel, name.id) else { return Answer::InProgress };
        self.tell(&name.channel, awaited.into_iter().filter(|id| *id != given));
        Answer::Completed
    }

    /// The program has the write in its hands: what a full one voids need not be given to it again.
    pub(super) fn accepted(&self, name: &RecordName) {
        if name.kind != RecordKind::Full {
            return;
        }
        if let Some(open) = self.channels.lock().get_mut(&name.channel) {
            open.writes.range_mut(..name.id).for_each(|(_, write)| write.request = None);
        }
    }

    /// Takes a write back; whether it was still open.
    pub(super) fn withdraw(&self, channel: &ChannelId, id: u64) -> bool {
        let mut channels = self.channels.lock();
        channels.get_mut(channel).is_some_and(|open| open.writes.remove(&id).is_some())
    }

    /// The program takes no record as large as one of this channel, in its own words: the channel waits, alone.
    pub(super) fn too_large(&self, channel: &ChannelId, words: &str) {
        self.ends.waits_alone(
            channel,
            &format!("channel {channel} has a record that is too large for the program: {words}"),
        );
    }

    /// The program tells a completion; whether there was anything to complete. One that a full write has voided comes late and
    /// counts for nothing.
    pub(super) fn completed(&self, channel: &ChannelId, id: u64) -> bool {
        match self.take(channel, id) {
            Some(awaited) => {
                self.tell(channel, awaited.into_iter());
                true
            }
            None => self.channels.lock().get(channel).is_some_and(|open| id <= open.complete),
        }
    }

    /// What the program has to hold of each channel.
    pub(super) fn kept(&self) -> Vec<(ChannelId, u64)> {
        let channels = self.channels.lock();
        channels.iter().filter(|(_, open)| open.kept > 0).map(|(channel, open)| (*channel, open.kept)).collect()
    }

    /// The program does not hold what it completed of a channel. What is open is complete with the full write that comes, and no
    /// update is given before.
    pub(super) fn lose(&self, channel: &ChannelId) {
        if let Some(open) = self.channels.lock().get_mut(channel) {
            (open.complete, open.newest, open.kept) = (0, 0, 0);
            open.writes.values_mut().filter(|write| !write.is_full).for_each(|write| write.request = None);
        }
        self.ends.lost(channel);
    }

    /// The channel is over: nothing of it need be there any more.
    pub(super) fn is_over(&self, channel: &ChannelId) {
        if let Some(open) = self.channels.lock().get_mut(channel) {
            open.kept = 0;
        }
    }

    /// Whether the update may go as such: it follows what was given, and few are held. Else a full write takes its place.
    pub(super) fn takes(&self, update: &Update) -> bool {
        let held = |open: &Open| open.writes.values().filter(|write| write.request.is_some()).count();
        let channels = self.channels.lock();
        let few = |open: &Open| held(open) < MAX_OPEN && open.updates < FULL_EVERY;
        channels.get(&update.channel).is_some_and(|open| update.after <= open.newest && few(open))
    }

    /// Whether what the update follows was given.
    pub(super) fn may_follow(&self, name: &RecordName) -> bool {
        self.channels.lock().get(&name.channel).is_some_and(|open| name.from <= open.newest)
    }

    /// The program was found to hold this, with so many updates behind a full record.
    pub(super) fn holds(&self, holding: &Holding, updates: usize) {
        let mut channels = self.channels.lock();
        let open = channels.entry(holding.channel).or_default();
        open.complete = open.complete.max(holding.id);
        open.newest = open.newest.max(holding.id);
        open.kept = open.kept.max(holding.id);
        open.updates = open.updates.max(updates);
    }

    /// What a program that was started again is to be given, each channel's in its order.
    pub(super) fn to_give_again(&self) -> Vec<(ChannelId, u64, Arc<Request>)> {
        let channels = self.channels.lock();
        let of_channel = |(channel, open): (&ChannelId, &Open)| -> Vec<_> {
            let request = |(id, write): (&u64, &Write)| Some((*channel, *id, write.request.clone()?));
            open.writes.iter().filter_map(request).collect()
        };
        channels.iter().flat_map(of_channel).collect()
    }

    fn take(&self, channel: &ChannelId, id: u64) -> Option<Vec<u64>> {
        let mut channels = self.channels.lock();
        let open = channels.get_mut(channel)?;
        let write = open.writes.remove(&id)?;
        open.kept = open.kept.max(id);
        if !write.is_full {
            return Some(write.awaited);
        }
        open.complete = open.complete.max(id);
        let later = open.writes.split_off(&id);
        let voided = std::mem::replace(&mut open.writes, later);
        Some(voided.into_values().flat_map(|write| write.awaited).chain(write.awaited).collect())
    }

    /// Under no lock: whoever hears of it takes its own.
    fn tell(&self, channel: &ChannelId, awaited: impl Iterator<Item = u64>) {
        awaited.for_each(|id| self.ends.channel_monitor_updated(channel, id));
    }
}
