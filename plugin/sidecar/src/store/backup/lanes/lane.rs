//! One channel of one sink.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::OutPoint;

use super::super::sealed::MAX_RECORD_BYTES;
use super::{Completed, Update, Whole};

/// Writes of one channel that a sink may have answered and not completed; it is given no more before it completes some.
pub(super) const OPEN_WRITES: usize = 256;

/// What a full write takes at least, in bytes: about that of a channel without history. It stands for one of which nothing is known.
pub(super) const LEAST_IMAGE: usize = 2048;

/// The most that is counted for updates which a full write replaces: it has their end and not their way, and no record takes more.
const MOST_REPLACED: usize = MAX_RECORD_BYTES as usize;

/// What one channel still has to give to the sink.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) funding: OutPoint,
    /// The newest id of the channel.
    pub(super) wanted: u64,
    /// The newest id that the sink was given.
    pub(super) given: u64,
    /// Everything up to this id is durable.
    pub(super) complete: u64,
    /// The newest id that the sink is known to have: told at the start, or complete. It stays where the sink refuses what follows.
    pub(super) had: u64,
    pub(super) queue: VecDeque<(Arc<Update>, Instant)>,
    pub(super) whole: Option<(Whole, Instant)>,
    /// Bytes of updates that are not given, since the full write that is due has what they changed.
    pub(super) replaced: usize,
    /// Bytes of the last image that was made of it; 0 before the first.
    pub(super) image: usize,
    /// Given and not completed.
    pub(super) open: BTreeMap<u64, Open>,
    /// Completed, while something before it is not.
    pub(super) done: BTreeSet<u64>,
    /// Whether it stands among those that have work, or is being worked on.
    pub(super) is_ready: bool,
    /// The sink said that it will never have this channel.
    pub(super) is_dead: bool,
    /// The channel's life is over: once that is complete the lane goes.
    pub(super) is_over: bool,
    /// Whether it waits because no record takes it.
    pub(super) apart: Apart,
}

/// A write that a sink has in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) is_full: bool,
    /// When it came, or became due.
    pub(super) since: Instant,
    pub(super) bytes: usize,
}

/// A channel that no record takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    No,
    /// What is left of it once it is over may fit.
    UntilOver,
    /// Nor did that.
    ForGood,
}

impl Lane {
    pub(super) fn new(funding: OutPoint, wanted: u64, whole: Option<(Whole, Instant)>) -> Self {
        let (queue, open, done) = (VecDeque::new(), BTreeMap::new(), BTreeSet::new());
        let (given, complete, had, replaced, image) = (0, 0, 0, 0, 0);
        let (is_ready, is_dead, is_over, apart) = (false, false, false, Apart::No);
        Self {
            funding,
            wanted,
            given,
            complete,
            had,
            queue,
            whole,
            replaced,
            image,
            open,
            done,
            is_ready,
            is_dead,
            is_over,
            apart,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        let may_be_given = match self.apart {
            Apart::No => self.open.len() < OPEN_WRITES,
            Apart::UntilOver => self.is_over,
            Apart::ForGood => false,
        };
        !self.is_dead && may_be_given && (self.whole.is_some() || !self.queue.is_empty())
    }

    /// The id that the next update of the queue must follow.
    pub(super) fn last(&self) -> u64 {
        self.queue.back().map_or(self.given, |(update, _)| update.id)
    }

    /// Whether the queue leads from this id to the newest one.
    pub(super) fn is_followed(&self, id: u64) -> bool {
        self.queue.front().map_or(self.wanted == id, |(update, _)| update.after == id)
    }

    /// Takes note that this update is not given: the full write that is due has what it changes.
    pub(super) fn stands_for(&mut self, update: &Update) {
        if self.whole.is_some() {
            self.replaces(update.size());
        }
    }

    /// So many bytes of updates are not given.
    pub(super) fn replaces(&mut self, bytes: usize) {
        self.replaced = self.replaced.saturating_add(bytes).min(MOST_REPLACED);
    }

    /// About how many bytes the full write has that is due: none where none is.
    pub(super) fn due_bytes(&self) -> usize {
        self.whole.map_or(0, |_| self.image.max(self.replaced).max(LEAST_IMAGE))
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        let waits = self.queue.front().map(|(_, since)| *since).into_iter();
        let open = self.open.range(self.complete.saturating_add(1)..).next().map(|(_, open)| open.since);
        waits.chain(self.whole.map(|(_, since)| since)).chain(open).min()
    }

    /// Says whether there is news: the new end of what is complete without a gap.
    pub(super) fn complete(&mut self, id: u64) -> Completed {
        let Some(Open { is_full, .. }) = self.open.remove(&id) else { return Completed::Stray };
        if is_full {
            self.complete = self.complete.max(id);
        } else {
            self.done.insert(id);
        }
        let complete = self.complete;
        self.done.retain(|done| *done > complete);
        while self.done.remove(&self.complete.saturating_add(1)) {
            self.complete = self.complete.saturating_add(1);
        }
        self.had = self.had.max(self.complete);
        Completed::UpTo(self.complete)
    }
}
