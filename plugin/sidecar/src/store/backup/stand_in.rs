//! Sinks of tests: one that keeps in memory what it is given, with every fault that a sink may have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bitcoin::OutPoint;
use outrigger_bolt::id::ChannelId;

use super::{Answer, Full, Holding, Image, Persist, SinkEnds, SinkFault, TipRecord, Update};
use crate::lock::Mutex;

/// How a sink behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should: what it is given is kept, and completed by its answer.
    Sound,
    /// What it is given is kept, and completed when the test says so, in the order that the test says.
    Slow,
    /// It says of everything that it is in progress, and never completes it.
    Forgetful,
    /// It completes each write twice.
    Twice,
    /// It completes ids that it was not given.
    Lying,
    /// It fails for good with its first write, and is sound from then on.
    FailingOnce,
    /// It fails for good with every write.
    Failing,
}

/// What a sink was given and holds.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) images: BTreeMap<ChannelId, Image>,
    pub(super) tips: Vec<TipRecord>,
    /// Every call: whether it was a first, a full write or an update, of which channel, and at which id.
    pub(super) calls: Vec<(&'static str, ChannelId, u64)>,
    /// How many calls there had been each time when that was all.
    pub(super) runs: Vec<usize>,
    /// Given and not completed.
    pub(super) open: VecDeque<(ChannelId, u64)>,
}

/// The sink. What it holds outlives it.
#[derive(Clone)]
pub(super) struct StandIn {
    pub(super) manner: Manner,
    pub(super) kept: Arc<Mutex<Kept>>,
    ends: SinkEnds,
}

impl StandIn {
    pub(super) fn new(manner: Manner, kept: Arc<Mutex<Kept>>, ends: SinkEnds) -> Self {
        Self { manner, kept, ends }
    }

    /// Completes the write that stands at this place among those that are open.
    pub(super) fn complete(&self, place: usize) {
        let Some((channel, id)) = self.kept.lock().open.remove(place) else { return };
        self.ends.channel_monitor_updated(&channel, id);
    }

    /// The ends that it was given.
    pub(super) fn ends_for_test(&self) -> &SinkEnds {
        &self.ends
    }

    fn answer(&mut self, channel: &ChannelId, id: u64) -> Answer {
        match self.manner {
            Manner::Sound => Answer::Completed,
            Manner::Slow => {
                self.kept.lock().open.push_back((*channel, id));
                Answer::InProgress
            }
            Manner::Forgetful => Answer::InProgress,
            Manner::Twice => {
                self.ends.channel_monitor_updated(channel, id);
                Answer::Completed
            }
            Manner::Lying => {
                self.ends.channel_monitor_updated(channel, id.saturating_add(7));
                self.ends.channel_monitor_updated(&ChannelId([0xee; 32]), id);
                Answer::InProgress
            }
            Manner::FailingOnce => {
                self.manner = Manner::Sound;
                Answer::PermanentFailure("no room, ever".into())
            }
            Manner::Failing => Answer::PermanentFailure("no room, ever".into()),
        }
    }
}

impl Persist for StandIn {
    fn persist_new_channel(&mut self, channel: &ChannelId, _funding: OutPoint, full: &Full<'_>, id: u64) -> Answer {
        let image = full.image().expect("the database is well");
        assert_eq!(image.id, id, "a full write is at its own id");
        let mut kept = self.kept.lock();
        kept.calls.push(("new", *channel, id));
        kept.images.insert(*channel, image);
        drop(kept);
        self.answer(channel, id)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        _funding: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        id: u64,
    ) -> Answer {
        let mut kept = self.kept.lock();
        match update {
            Some(update) => {
                kept.calls.push(("update", *channel, id));
                let image = kept.images.get_mut(channel).expect("an update follows a full write");
                image.apply(update).expect("updates have no gap");
            }
            None => {
                drop(kept);
                let image = full.image().expect("the database is well");
                assert_eq!(image.id, id, "a full write is at its own id");
                kept = self.kept.lock();
                kept.calls.push(("full", *channel, id));
                kept.images.insert(*channel, image);
            }
        }
        drop(kept);
        self.answer(channel, id)
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        self.kept.lock().tips.push(tip.clone());
        Answer::Completed
    }

    fn all_given(&mut self) {
        let mut kept = self.kept.lock();
        let calls = kept.calls.len();
        kept.runs.push(calls);
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let kept = self.kept.lock();
        let holding = |image: &Image| Holding { channel: image.channel, id: image.id };
        Ok(kept.images.values().filter(|image| image.is_live()).map(holding).collect())
    }

    fn kept_tip(&mut self) -> Option<Vec<u8>> {
        self.kept.lock().tips.last().map(TipRecord::encode)
    }
}
