//! What a commit released and a sink has yet to complete: promises wait here, each channel's in their order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::wire::Message;
use outrigger_channel::{ChannelNote, Effect};

use self::kinds::{are_numbers, is_end, is_word, is_word_before, is_word_held, survives_error, survives_failure};
use super::commitments::LocalCommitments;
use super::start::AtStart;
use crate::store::Address;
use crate::store::batch::{Held, Released};

mod kinds;

pub(in crate::store) use self::kinds::is_promise;

/// A channel whose promises are held for longer takes no new HTLCs and is shown as stalled.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(20);

/// Words for the peer that wait of one channel, at most: more than 483 HTLCs each way take (BOLT 2,
/// `max_accepted_htlcs`). Beyond it the connection ends in their place, and `channel_reestablish` says what to say
/// again.
pub(super) const MOST_WORDS: usize = 1024;

/// So many entries of events wait before it is looked which of them wait for nothing of their own any more.
pub(super) const MANY_ENTRIES: usize = 64;

/// Entries of events that wait, at most. Beyond it neighbours become one, whose events are told once both might be.
pub(super) const MOST_ENTRIES: usize = 1024;

/// Why such a connection ends.
const TOO_MANY_WORDS: &str = "too much of one channel waits for a backup";

/// What waits of one channel.
#[derive(Debug, Default)]
struct Waiting {
    /// Whose it is: what anybody else is to be told under its name is none of its own. A channel without
    /// `channel_params` has none, and then nobody is anybody else.
    peer: Option<NodeId>,
    /// The newest id that a commit gave it.
    id: u64,
    /// Every required sink that is to have the channel has everything up to this one.
    cleared: u64,
    /// Every required sink has it up to this one, those that refuse it too, as far as they have told: never less than `cleared`, but
    /// where one of them refuses it.
    has: u64,
    held: VecDeque<Kept>,
    /// The oldest id that a promise waits for, or waited for until a new connection dropped it, and since when. It ends
    /// once that id is cleared, and no sooner.
    oldest: Option<(u64, Instant)>,
    /// Of ours, those that every required sink has.
    commitments: LocalCommitments,
    /// A sink will never have it: it says no more than its numbers and why it failed.
    is_failed: bool,
    /// It has failed so, and which of its commitments every required sink has was not known then.
    is_unknown: bool,
    /// Its rows are in history.
    is_over: bool,
}

/// One promise that waits.
#[derive(Debug)]
struct Kept {
    /// The id that it waits for.
    need: u64,
    since: Instant,
    held: Held,
}

impl Waiting {
    fn is_of(&self, peer: &NodeId) -> bool {
        self.peer.is_none_or(|own| own == *peer)
    }

    /// Keeps one more word for the peer. Behind the end of its connection there is nothing to say.
    fn say(&mut self, at: Address, word: Held, now: Instant) {
        if self.held.iter().any(|kept| is_end(&kept.held)) {
            return;
        }
        if self.held.iter().filter(|kept| is_word_held(&kept.held)).count() < MOST_WORDS {
            return self.hold(word, now);
        }
        self.held.retain(|kept| !is_word_held(&kept.held));
        let effect = Box::new(Effect::Disconnect(TOO_MANY_WORDS.to_owned()));
        self.hold(Held::Channel { at, effect, guard: None }, now);
    }

    fn hold(&mut self, held: Held, now: Instant) {
        if self.cleared < self.id {
            self.oldest.get_or_insert((self.id, now));
        }
        self.held.push_back(Kept { need: self.id, since: now, held });
    }

    /// Every required sink has everything up to this id: what waited for that.
    fn clear(&mut self, id: u64) -> Vec<Held> {
        self.cleared = self.cleared.max(id);
        let mut freed = Vec::new();
        while self.held.front().is_some_and(|kept| kept.need <= self.cleared)
            && let Some(kept) = self.held.pop_front()
        {
            freed.push(kept.held);
        }
        if self.oldest.is_some_and(|(need, _)| need <= self.cleared) {
            self.oldest = self.held.front().map(|kept| (kept.need, kept.since));
        }
        freed
    }
}

/// Events that wait, up to a number.
#[derive(Debug)]
struct WaitingEvents {
    up_to: u64,
    since: Instant,
    /// What the channels that the commit changed are to be complete at.
    waits: BTreeMap<ChannelId, u64>,
}

impl WaitingEvents {
    /// Whether it waits for anything of its own.
    fn still_waits(&mut self, channels: &HashMap<ChannelId, Waiting>) -> bool {
        self.waits.retain(|channel, id| {
            let waiting = channels.get(channel);
            waiting.is_some_and(|waiting| waiting.cleared < *id && !waiting.is_failed)
        });
        !self.waits.is_empty()
    }

    /// Takes in the entry behind it: what either waits for, both wait for. Ids of a channel only rise.
    fn take_in(&mut self, next: Self) {
        self.up_to = next.up_to;
        self.waits.extend(next.waits);
    }
}

/// Events that are not told yet. One channel may hold back those of all others: readers follow the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldEvents {
    pub count: u64,
    /// For how long the oldest of them waits.
    pub waited: Duration,
    /// The channels that the oldest of them waits for.
    pub channels: Vec<ChannelId>,
}

/// Promises that wait.
#[derive(Debug, Default)]
pub(super) struct Gate {
    channels: HashMap<ChannelId, Waiting>,
    /// The oldest first, since readers follow the numbers.
    events: VecDeque<WaitingEvents>,
    /// With so many entries they are looked through again.
    fold_at: usize,
    /// The newest event that may be read.
    readable: u64,
    /// The newest event on disk.
    newest_event: u64,
    /// What the last commit gave.
    newest_ids: BTreeMap<ChannelId, u64>,
    /// Nothing that waits is let go, whatever a sink completes.
    is_sealed: bool,
    /// Nothing is held any more.
    is_open: bool,
}

impl Gate {
    /// Events up to this number were there at the start.
    pub(super) fn starting_at(event: u64) -> Self {
        Self { readable: event, newest_event: event, ..Self::default() }
    }

    /// A channel that the start found: nothing is promised for it before every required sink has it at its id.
    pub(super) fn load(&mut self, channel: ChannelId, found: &AtStart) {
        let (peer, id, is_unknown) = (Some(found.peer), found.id, found.is_withheld);
        let mut waiting = Waiting { peer, id, is_unknown, ..Waiting::default() };
        waiting.commitments.came(found.local_number, found.committed);
        self.channels.insert(channel, waiting);
    }

    /// A commit gave the channels these ids; what it releases of them waits for that. `born` are those that came to
    /// life with it, and whose they are.
    pub(super) fn committed(&mut self, ids: BTreeMap<ChannelId, u64>, born: impl Iterator<Item = (ChannelId, NodeId)>) {
        if self.is_open {
            return;
        }
        for (channel, id) in &ids {
            self.channels.entry(*channel).or_default().id = *id;
        }
        for (channel, peer) in born {
            let waiting = self.channels.entry(channel).or_default();
            waiting.peer = Some(peer);
            waiting.commitments.came(0, waiting.id);
        }
        self.newest_ids = ids;
    }

    /// Lets through what waits for nothing and keeps the rest.
    pub(super) fn pass(&mut self, released: Released, now: Instant) -> Released {
        if self.is_open {
            return released;
        }
        Released::of(released.open().into_iter().filter_map(|held| self.keep(held, now)).collect())
    }

    /// Events up to this number are on disk, those that are new with the last commit: they wait for its ids.
    pub(super) fn events(&mut self, last_seq: u64, now: Instant) {
        if last_seq > self.newest_event {
            self.newest_event = last_seq;
            let waits = std::mem::take(&mut self.newest_ids);
            self.events.push_back(WaitingEvents { up_to: last_seq, since: now, waits });
            self.let_events_through();
            self.fold_events();
        }
    }

    /// Puts entries that wait for nothing of their own to those before them: while one channel waits, the others go on. Of those that
    /// still wait neighbours become one where there are many: the channel that waits may go on making events. A look is paid for
    /// by as many entries that came since the last one.
    fn fold_events(&mut self) {
        if self.events.len() < self.fold_at.max(MANY_ENTRIES) {
            return;
        }
        let mut kept: VecDeque<WaitingEvents> = VecDeque::new();
        for mut entry in std::mem::take(&mut self.events) {
            let still_waits = entry.still_waits(&self.channels);
            match kept.back_mut() {
                Some(before) if !still_waits => before.up_to = entry.up_to,
                Some(_) | None => kept.push_back(entry),
            }
        }
        if kept.len() > MOST_ENTRIES / 2 {
            kept = in_pairs(kept);
        }
        self.fold_at = kept.len().saturating_mul(2).min(MOST_ENTRIES);
        self.events = kept;
    }

    /// How many entries of events wait.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.events.len()
    }

    /// How much waits of a channel.
    #[cfg(test)]
    pub(super) fn held(&self, channel: &ChannelId) -> usize {
        self.channels.get(channel).map_or(0, |waiting| waiting.held.len())
    }

    /// How many channels it knows.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.channels.len()
    }

    /// The newest event on disk.
    pub(super) fn newest(&self) -> u64 {
        self.newest_event
    }

    /// The newest event that may be told.
    pub(super) fn readable(&self) -> u64 {
        self.readable
    }

    /// What is not told yet.
    pub(super) fn held_events(&self, now: Instant) -> HeldEvents {
        let Some(WaitingEvents { since, waits, .. }) = self.events.front() else { return HeldEvents::default() };
        HeldEvents {
            count: self.newest_event.saturating_sub(self.readable),
            waited: now.saturating_duration_since(*since),
            channels: waits.keys().copied().collect(),
        }
    }

    /// Every required sink has the channel up to this id, also those that refuse what follows. Gives the newest local commitment that
    /// all of them have, where the channel has failed without its being known.
    pub(super) fn has(&mut self, channel: &ChannelId, id: u64) -> Option<u64> {
        let waiting = self.channels.get_mut(channel).filter(|_| !self.is_sealed)?;
        waiting.has = waiting.has.max(id);
        waiting.commitments.clear(waiting.has);
        let complete = waiting.commitments.complete().filter(|_| waiting.is_unknown);
        waiting.is_unknown &= complete.is_none();
        complete
    }

    /// Every required sink that is to have the channel has it up to this id: what waited for that goes on.
    pub(super) fn cleared(&mut self, channel: &ChannelId, id: u64) -> Released {
        // One that is over is not known any more.
        let Some(waiting) = self.channels.get_mut(channel).filter(|_| !self.is_sealed) else {
            return Released::of(Vec::new());
        };
        let freed = waiting.clear(id);
        self.forget_if_over(channel);
        self.let_events_through();
        Released::of(freed)
    }

    /// The channel is failed for want of a sink: what it promised and has not left never does. Gives what goes on, and the newest
    /// local commitment that every required sink has: its secret has not left, and never will.
    pub(super) fn fail(&mut self, channel: &ChannelId) -> (Released, Option<u64>) {
        let waiting = self.channels.entry(*channel).or_default();
        (waiting.is_failed, waiting.oldest) = (true, None);
        let complete = waiting.commitments.complete();
        waiting.is_unknown = complete.is_none();
        waiting.held.retain(|kept| survives_failure(&kept.held) || are_numbers(&kept.held));
        if self.is_sealed {
            return (Released::of(Vec::new()), complete);
        }
        let freed = waiting.held.drain(..).map(|kept| kept.held).collect();
        self.let_events_through();
        (Released::of(freed), complete)
    }

    /// The rows that promises stand on are old, or the process is about to stop: nothing is let go any more.
    pub(super) fn seal(&mut self) {
        self.is_sealed = !self.is_open;
    }

    /// Nothing is held from here on: the node is in restored mode, which promises nothing. What was promised before
    /// never leaves, as with a channel that is failed.
    pub(super) fn open(&mut self) -> Released {
        (self.is_open, self.is_sealed) = (true, false);
        let mut channels: Vec<_> = self.channels.drain().collect();
        channels.sort_unstable_by_key(|(channel, _)| *channel);
        let held = channels.into_iter().flat_map(|(_, waiting)| waiting.held).map(|kept| kept.held);
        let freed = held.filter(survives_failure).collect();
        self.let_events_through();
        Released::of(freed)
    }

    /// The channels whose promises have waited too long.
    pub(super) fn stalled(&self, now: Instant) -> impl Iterator<Item = ChannelId> {
        let is_late = move |(_, since)| now.saturating_duration_since(since) >= STALLED_AFTER;
        let late = self.channels.iter().filter(move |(_, waiting)| waiting.oldest.is_some_and(is_late));
        late.map(|(channel, _)| *channel)
    }

    fn keep(&mut self, held: Held, now: Instant) -> Option<Held> {
        if let Held::Archived { channel, .. } = &held {
            if let Some(waiting) = self.channels.get_mut(channel) {
                waiting.is_over = true;
            }
            self.forget_if_over(&channel.clone());
            return Some(held);
        }
        let Held::Channel { at, effect, .. } = &held else { return Some(held) };
        let at = *at;
        let waiting = self.channels.get_mut(&at.channel).filter(|waiting| waiting.is_of(&at.peer));
        let Some(waiting) = waiting else { return Some(held) };
        if waiting.is_failed && !survives_failure(&held) && !are_numbers(&held) {
            return None;
        }
        if let Effect::Revoke { number } = **effect {
            waiting.commitments.came(number.saturating_add(1), waiting.id);
            waiting.commitments.clear(waiting.has);
        }
        if matches!(**effect, Effect::Send(Message::Error(_)) | Effect::Note(ChannelNote::Failed { .. })) {
            // The channel has failed: a commitment of ours may be published any moment, and nothing that was to follow it is said. The
            // peer is told of it, unless it was the peer that said so.
            waiting.held.retain(|older| survives_error(&older.held, at.connection));
        }
        if !is_promise(effect) {
            return Some(held);
        }
        let is_word = is_word(effect);
        if is_word {
            // `channel_reestablish` says what to send again on a new connection.
            waiting.held.retain(|older| !is_word_before(&older.held, at.connection));
        }
        let waits_for_nothing = waiting.is_failed || (waiting.held.is_empty() && waiting.cleared >= waiting.id);
        if waits_for_nothing && !self.is_sealed {
            return Some(held);
        }
        if is_word {
            waiting.say(at, held, now);
        } else {
            waiting.hold(held, now);
        }
        None
    }

    fn forget_if_over(&mut self, channel: &ChannelId) {
        let is_over = |waiting: &Waiting| waiting.is_over && waiting.held.is_empty();
        if self.channels.get(channel).is_some_and(is_over) {
            self.channels.remove(channel);
        }
    }

    fn let_events_through(&mut self) {
        if self.is_sealed {
            return;
        }
        while let Some(entry) = self.events.front_mut() {
            if entry.still_waits(&self.channels) {
                return;
            }
            self.readable = entry.up_to;
            self.events.pop_front();
        }
    }
}

/// Every second entry put to the one before it.
fn in_pairs(entries: VecDeque<WaitingEvents>) -> VecDeque<WaitingEvents> {
    let mut paired: VecDeque<WaitingEvents> = VecDeque::with_capacity(entries.len().div_ceil(2));
    for (number, entry) in entries.into_iter().enumerate() {
        match paired.back_mut().filter(|_| number % 2 == 1) {
            Some(before) => before.take_in(entry),
            None => paired.push_back(entry),
        }
    }
    paired
}
