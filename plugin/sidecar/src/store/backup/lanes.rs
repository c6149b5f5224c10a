//! What one sink is still to be given, and how far it is, channel by channel; a state machine without threads or clock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::OutPoint;
use outrigger_bolt::id::ChannelId;

use self::lane::{Apart, Lane, Open};
use super::Holding;
use super::image::{TipRecord, Update};

/// Updates that wait for one sink, and what they take in memory: beyond it a channel's updates collapse into one full write.
pub(super) const QUEUE_UPDATES: usize = 8192;
pub(super) const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Why a full write is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// The channel has just come to life.
    New,
    /// It is not known that the sink is complete: a start, a gap, an overflow.
    Again,
}

/// The next thing to give to a sink.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Full { channel: ChannelId, funding: OutPoint, whole: Whole },
    Update { funding: OutPoint, update: Arc<Update> },
    Tip(TipRecord),
}

/// What a sink did with a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completed {
    /// Everything of the channel up to this id is durable there.
    UpTo(u64),
    /// It was not asked for, or was completed before: it counts for nothing.
    Stray,
}

/// How far a sink is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Ids that are not complete, over all channels.
    pub updates: u64,
    /// What it has yet to complete, in bytes of keys and rows, about: what waits to be given to it, and what it has in hand. A full
    /// write that is due counts as much as the last one of that channel, or as the updates that it stands for where they are more; and
    /// never less than a channel without history. Once it is made it counts what it has.
    pub bytes: u64,
    /// For how long the oldest of it waits.
    pub waited: Duration,
    /// Channels that have anything to wait for.
    pub channels: usize,
}

/// A tip, and what is to be complete before it: a restore follows the chain from the newest tip that it finds, so none may stand
/// beside rows that are older.
#[derive(Debug)]
struct WaitingTip {
    tip: TipRecord,
    /// Channels that are not complete at the newest ids that they had when the tip came.
    behind: BTreeMap<ChannelId, u64>,
}

/// All channels of one sink.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<ChannelId, Lane>,
    /// Channels with work, in the order in which they get their turn.
    ready: VecDeque<ChannelId>,
    tip: Option<WaitingTip>,
    /// The newest tip that it was given, or was found to have.
    given_tip: Option<TipRecord>,
    /// That one is to be given again: it names less by now.
    is_due_again: bool,
    /// What waits in memory, over all channels.
    updates: usize,
    bytes: usize,
    /// Whether it is known what the sink holds: nothing is given to it before.
    is_known: bool,
    /// It gets nothing any more: it is ahead of the database, or the node runs on old rows.
    is_off: bool,
}

impl Lanes {
    /// A channel that a start found, at this id. A full write is due unless the sink turns out to hold that.
    pub(super) fn load(&mut self, channel: ChannelId, funding: OutPoint, id: u64, now: Instant) {
        self.lanes.insert(channel, Lane::new(funding, id, Some((Whole::Again, now))));
        self.wake(channel);
    }

    /// What the sink holds is known now. A channel that it holds at the id of the start needs no full write.
    pub(super) fn told(&mut self, holdings: &[Holding], at_start: &HashMap<ChannelId, u64>) {
        for Holding { channel, id } in holdings {
            let Some(lane) = self.lanes.get_mut(channel) else { continue };
            lane.had = lane.had.max(*id);
            if at_start.get(channel) == Some(id) && lane.given == 0 && lane.is_followed(*id) {
                (lane.given, lane.complete, lane.whole) = (*id, *id, None);
                if let Some(waiting) = self.tip.as_mut().filter(|_| lane.complete >= lane.wanted) {
                    waiting.behind.remove(channel);
                }
            }
        }
        self.is_known = true;
    }

    /// Gives nothing any more.
    pub(super) fn turn_off(&mut self) {
        self.is_off = true;
        self.lanes.clear();
        self.ready.clear();
        (self.updates, self.bytes, self.tip, self.given_tip, self.is_due_again) = (0, 0, None, None, false);
    }

    /// Whether what the sink holds does not count yet, and is to.
    pub(super) fn is_unknown(&self) -> bool {
        !self.is_known && !self.is_off
    }

    pub(super) fn is_off(&self) -> bool {
        self.is_off
    }

    /// A commit changed the channel. `funding` is that of a channel that is not known yet.
    pub(super) fn add(&mut self, update: &Arc<Update>, funding: OutPoint, now: Instant) {
        if self.is_off {
            return;
        }
        let (channel, is_first) = (update.channel, update.is_first());
        if update.forgets() {
            self.unname(&channel);
        }
        let whole = if is_first { Whole::New } else { Whole::Again };
        let lane = self.lanes.entry(channel).or_insert_with(|| Lane::new(funding, 0, Some((whole, now))));
        lane.wanted = lane.wanted.max(update.id);
        lane.is_over |= update.is_last();
        // A full write that was read later than this commit has it already; one that comes first needs nothing of it.
        if lane.is_dead || update.id <= lane.given || is_first || lane.apart != Apart::No {
            lane.stands_for(update);
            return self.wake(channel);
        }
        if update.after != lane.last() && lane.whole.is_none() {
            lane.whole = Some((Whole::Again, now));
            lane.stands_for(update);
            return self.collapse(channel, now);
        }
        lane.queue.push_back((update.clone(), now));
        self.updates = self.updates.saturating_add(1);
        self.bytes = self.bytes.saturating_add(update.size());
        if self.updates > QUEUE_UPDATES || self.bytes > QUEUE_BYTES {
            self.collapse(channel, now);
        } else {
            self.wake(channel);
        }
    }

    /// The newest tip. An older one that still waits is not worth giving.
    pub(super) fn add_tip(&mut self, tip: TipRecord) {
        if self.is_off {
            return;
        }
        // What waits alone is not waited for: the tip names ids, and rows that are older are followed from their own block.
        let may_come = |lane: &Lane| !lane.is_dead && lane.apart == Apart::No;
        let lanes = self.lanes.iter().filter(|(_, lane)| may_come(lane) && lane.complete < lane.wanted);
        self.tip = Some(WaitingTip { tip, behind: lanes.map(|(channel, lane)| (*channel, lane.wanted)).collect() });
    }

    /// The channel was never funded, and nothing of it will be there: so that a restore does not count it as lost, the newest tip no
    /// longer names it, and is given again, before the channel goes, where it did.
    fn unname(&mut self, channel: &ChannelId) {
        let unname = |tip: &mut TipRecord| {
            let Some(named) = &mut tip.channels else { return false };
            let before = named.len();
            named.retain(|(named, _)| named != channel);
            named.len() < before
        };
        if let Some(waiting) = &mut self.tip {
            unname(&mut waiting.tip);
            waiting.behind.remove(channel);
        }
        self.is_due_again |= self.given_tip.as_mut().is_some_and(unname);
    }

    /// The sink was found to have this tip, and the database knows of some that it names no more.
    pub(super) fn found_tip(&mut self, tip: TipRecord, gone: &[ChannelId]) {
        if self.is_off || self.given_tip.is_some() {
            return;
        }
        self.given_tip = Some(tip);
        gone.iter().for_each(|channel| self.unname(channel));
    }

    /// Whether it was given a tip, or was found to have one.
    pub(super) fn has_given_tip(&self) -> bool {
        self.given_tip.is_some()
    }

    /// Whether there is anything to be given.
    pub(super) fn has_work(&self) -> bool {
        let is_due = |channel: &ChannelId| self.lanes.get(channel).is_some_and(Lane::has_work);
        self.is_known && !self.is_off && (self.tip.is_some() || self.is_due_again || self.ready.iter().any(is_due))
    }

    /// What is to be given next, and nothing else of that channel before [`answered`](Self::answered).
    pub(super) fn next(&mut self) -> Option<Work> {
        if !self.is_known || self.is_off {
            return None;
        }
        if self.tip.as_ref().is_some_and(|waiting| waiting.behind.is_empty()) {
            let tip = self.tip.take().map(|waiting| waiting.tip);
            self.given_tip.clone_from(&tip);
            self.is_due_again = false;
            return tip.map(Work::Tip);
        }
        if std::mem::take(&mut self.is_due_again)
            && let Some(tip) = &self.given_tip
        {
            return Some(Work::Tip(tip.clone()));
        }
        while let Some(channel) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&channel) else { continue };
            if !lane.has_work() {
                lane.is_ready = false;
                continue;
            }
            if let Some((whole, _)) = lane.whole {
                return Some(Work::Full { channel, funding: lane.funding, whole });
            }
            let Some((update, since)) = lane.queue.pop_front() else { continue };
            self.updates = self.updates.saturating_sub(1);
            let bytes = update.size();
            self.bytes = self.bytes.saturating_sub(bytes);
            lane.given = update.id;
            lane.open.insert(update.id, Open { is_full: false, since, bytes });
            return Some(Work::Update { funding: lane.funding, update });
        }
        None
    }

    /// A full write was read at this id and is about to be given. What came up to it is in it.
    pub(super) fn reads(&mut self, channel: &ChannelId, id: u64, now: Instant) {
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        let bytes = lane.due_bytes();
        let Some((_, since)) = lane.whole.take() else { return };
        (lane.given, lane.wanted, lane.replaced) = (id, lane.wanted.max(id), 0);
        lane.open.insert(id, Open { is_full: true, since, bytes });
        while lane.queue.front().is_some_and(|(update, _)| update.id <= id)
            && let Some((update, _)) = lane.queue.pop_front()
        {
            self.updates = self.updates.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(update.size());
        }
        if !lane.is_followed(id) {
            self.collapse(*channel, now);
        }
    }

    /// What is given at this id is a whole image, of so many bytes.
    pub(super) fn made(&mut self, channel: &ChannelId, id: u64, bytes: usize) {
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        lane.image = bytes;
        if let Some(open) = lane.open.get_mut(&id) {
            open.bytes = bytes;
        }
    }

    /// The call has come back: the channel may have its next turn.
    pub(super) fn answered(&mut self, channel: &ChannelId) {
        if let Some(lane) = self.lanes.get_mut(channel) {
            lane.is_ready = false;
            self.wake(*channel);
        }
    }

    /// The sink has made something durable.
    pub(super) fn completed(&mut self, channel: &ChannelId, id: u64) -> Completed {
        let Some(lane) = self.lanes.get_mut(channel) else { return Completed::Stray };
        let completed = lane.complete(id);
        if let Some(waiting) = &mut self.tip
            && waiting.behind.get(channel).is_some_and(|wanted| *wanted <= lane.complete)
        {
            waiting.behind.remove(channel);
        }
        if lane.is_over && lane.complete >= lane.wanted {
            self.lanes.remove(channel);
        } else {
            self.wake(*channel);
        }
        completed
    }

    /// The sink has lost what was complete there.
    pub(super) fn lost(&mut self, channel: &ChannelId, now: Instant) {
        let Some(lane) = self.lanes.get_mut(channel).filter(|lane| !lane.is_dead) else { return };
        (lane.complete, lane.had) = (0, 0);
        lane.done.clear();
        if let Some(waiting) = &mut self.tip {
            waiting.behind.insert(*channel, lane.wanted);
        }
        self.collapse(*channel, now);
    }

    /// No record takes the channel: it waits, alone, for a full write of what is left of it once it is over.
    pub(super) fn set_apart(&mut self, channel: &ChannelId, now: Instant) {
        let Some(lane) = self.lanes.get_mut(channel).filter(|lane| !lane.is_dead) else { return };
        lane.apart = if lane.is_over { Apart::ForGood } else { Apart::UntilOver };
        // What could not be written is not under way.
        let since = lane.open.remove(&lane.given).map_or(now, |open| open.since);
        if let Some(waiting) = &mut self.tip {
            waiting.behind.remove(channel);
        }
        self.collapse(*channel, since);
    }

    /// The sink will never have this channel: nobody waits for it any more.
    pub(super) fn give_up(&mut self, channel: &ChannelId) {
        let Some(lane) = self.lanes.get_mut(channel) else { return };
        lane.is_dead = true;
        lane.open.clear();
        if let Some(waiting) = &mut self.tip {
            waiting.behind.remove(channel);
        }
        self.drop_queue(channel);
    }

    /// Up to which id of the channel everything is durable; nothing where nobody waits for that.
    pub(super) fn complete(&self, channel: &ChannelId) -> Option<u64> {
        if self.is_off {
            return None;
        }
        self.lanes.get(channel).filter(|lane| !lane.is_dead).map(|lane| lane.complete)
    }

    /// Up to which id the sink is known to have the channel, also one that it refuses; nothing where it is none of its concern.
    pub(super) fn had(&self, channel: &ChannelId) -> Option<u64> {
        self.lanes.get(channel).filter(|_| !self.is_off).map(|lane| lane.had)
    }

    /// Whether the sink is known to have everything of every channel.
    pub(super) fn lag(&self, now: Instant) -> Lag {
        let mut lag = Lag { bytes: self.bytes as u64, ..Lag::default() };
        let mut oldest = None;
        for lane in self.lanes.values().filter(|lane| !lane.is_dead) {
            let behind = lane.wanted.saturating_sub(lane.complete);
            if behind > 0 {
                lag.updates = lag.updates.saturating_add(behind);
                lag.channels = lag.channels.saturating_add(1);
                let in_hand = lane.open.range(lane.complete.saturating_add(1)..).map(|(_, open)| open.bytes as u64);
                lag.bytes = in_hand.chain([lane.due_bytes() as u64]).fold(lag.bytes, u64::saturating_add);
                oldest = oldest.into_iter().chain(lane.oldest()).min();
            }
        }
        lag.waited = oldest.map_or(Duration::ZERO, |oldest| now.saturating_duration_since(oldest));
        lag
    }

    fn wake(&mut self, channel: ChannelId) {
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        if !lane.is_ready && lane.has_work() {
            lane.is_ready = true;
            self.ready.push_back(channel);
        }
    }

    /// In place of its updates the channel gets one full write.
    fn collapse(&mut self, channel: ChannelId, now: Instant) {
        let bytes = self.drop_queue(&channel);
        if let Some(lane) = self.lanes.get_mut(&channel) {
            lane.replaces(bytes);
            let since = lane.whole.map_or(now, |(_, since)| since);
            let whole = lane.whole.map_or(Whole::Again, |(whole, _)| whole);
            lane.whole = Some((whole, since));
        }
        self.wake(channel);
    }

    /// Gives the bytes that waited.
    fn drop_queue(&mut self, channel: &ChannelId) -> usize {
        let Some(lane) = self.lanes.get_mut(channel) else { return 0 };
        let mut dropped: usize = 0;
        for (update, _) in lane.queue.drain(..) {
            dropped = dropped.saturating_add(update.size());
            self.updates = self.updates.saturating_sub(1);
        }
        self.bytes = self.bytes.saturating_sub(dropped);
        dropped
    }
}

mod lane;
#[cfg(test)]
mod tests;
