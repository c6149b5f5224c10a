//! What a sink is given of the node: how it tells that something is durable, that it has trouble, and how it waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_bolt::id::ChannelId;

use crate::lock::{Condvar, Mutex};

/// The first and the longest wait before a sink tries again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Why a sink did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkFault {
    /// A disk, a line or a process that is away: it is tried again.
    #[error("{0}")]
    Passing(String),
    /// What no waiting mends: it belongs to another node, or was written by a newer version.
    #[error("{0}")]
    Lasting(String),
}

/// What is known of a sink from outside of its thread.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is wrong now, and since when.
    trouble: Option<(String, Instant)>,
    /// Channels of which no record takes all, why, and since when.
    alone: BTreeMap<ChannelId, (String, Instant)>,
    /// Those of them that have not been set apart yet.
    newly_alone: Vec<ChannelId>,
    is_stopping: bool,
}

/// Who hears of completions.
type Complete = dyn Fn(&ChannelId, u64) + Send + Sync;

/// Who hears of channels that a sink has lost.
type Lost = dyn Fn(&ChannelId) + Send + Sync;

/// The monotonic clock, which this module has no other way to.
pub type Now = fn() -> Instant;

/// The ends that a sink is given when it is made; cloned freely, for threads of its own.
#[derive(Clone)]
pub struct SinkEnds {
    shared: Arc<Shared>,
    complete: Arc<Complete>,
    lost: Arc<Lost>,
    now: Now,
}

impl SinkEnds {
    /// Ends whose completions go to `complete`, which only takes note of them.
    pub fn new(complete: impl Fn(&ChannelId, u64) + Send + Sync + 'static, now: Now) -> Self {
        Self { shared: Arc::default(), complete: Arc::new(complete), lost: Arc::new(|_| ()), now }
    }

    /// The same, with `lost` for what is told of channels whose records are gone.
    #[must_use]
    pub fn losing(self, lost: impl Fn(&ChannelId) + Send + Sync + 'static) -> Self {
        Self { lost: Arc::new(lost), ..self }
    }

    /// What was complete of this channel is not there any more: a full write of it is due, and what comes waits for that. What was
    /// given and not completed yet stays to be completed, at the latest with that full write.
    pub fn lost(&self, channel: &ChannelId) {
        (self.lost)(channel);
    }

    /// What was answered with [`Answer::InProgress`](super::Answer::InProgress) is durable. To be called once for each.
    pub fn channel_monitor_updated(&self, channel: &ChannelId, id: u64) {
        (self.complete)(channel, id);
    }

    /// Something is wrong that the sink tries to get over: shown to the operator until [`well`](Self::well).
    pub fn trouble(&self, words: &str) {
        let mut state = self.shared.state.lock();
        let since = state.trouble.take().map_or_else(self.now, |(_, since)| since);
        state.trouble = Some((words.to_owned(), since));
    }

    /// Nothing is wrong any more.
    pub fn well(&self) {
        self.shared.state.lock().trouble = None;
    }

    /// What is wrong, and since when.
    pub fn trouble_now(&self) -> Option<(String, Instant)> {
        let state = self.shared.state.lock();
        let alone = state.alone.values().min_by_key(|(_, since)| *since).map(|(words, since)| {
            let more = match state.alone.len() {
                1 => String::new(),
                all => format!(" (and {} channels more)", all.saturating_sub(1)),
            };
            (format!("{words}{more}"), *since)
        });
        state.trouble.clone().or(alone)
    }

    /// This channel cannot be written as it is, being too large for a record or by the fault of its own files: the sink is given no more of
    /// it before it is over, and others go on. Shown to the operator until it [can](Self::joins_again).
    pub fn waits_alone(&self, channel: &ChannelId, words: &str) {
        let mut state = self.shared.state.lock();
        let since = state.alone.remove(channel).map_or_else(self.now, |(_, since)| since);
        state.alone.insert(*channel, (words.to_owned(), since));
        state.newly_alone.push(*channel);
    }

    /// The channel can be written again.
    pub fn joins_again(&self, channel: &ChannelId) {
        self.shared.state.lock().alone.remove(channel);
    }

    /// The channels that have come to wait alone since this was last asked.
    pub(super) fn take_alone(&self) -> Vec<ChannelId> {
        std::mem::take(&mut self.shared.state.lock().newly_alone)
    }

    /// The clock.
    pub(super) fn now(&self) -> Now {
        self.now
    }

    /// The process ends: whoever waits gives up.
    pub fn stop(&self) {
        self.shared.state.lock().is_stopping = true;
        self.shared.stopped.notify_all();
    }

    /// Whether the process ends.
    pub fn is_stopping(&self) -> bool {
        self.shared.state.lock().is_stopping
    }

    /// Waits so long, less where the process ends. Says whether to go on.
    #[must_use = "a sink that goes on after the end keeps the process"]
    pub fn pause(&self, length: Duration) -> bool {
        let mut state = self.shared.state.lock();
        self.shared.stopped.wait_while_for(&mut state, |state| !state.is_stopping, length);
        !state.is_stopping
    }

    /// Does the work, again and again while its faults are passing ones, with growing pauses; the operator is shown what is
    /// wrong meanwhile. None where the process ends before it is done.
    pub fn until_well<R>(&self, mut work: impl FnMut() -> Result<R, SinkFault>) -> Option<Result<R, SinkFault>> {
        let mut pause = FIRST_PAUSE;
        loop {
            match work() {
                Ok(done) => {
                    self.well();
                    return Some(Ok(done));
                }
                Err(fault @ SinkFault::Lasting(_)) => {
                    self.trouble(&fault.to_string());
                    return Some(Err(fault));
                }
                Err(SinkFault::Passing(words)) => self.trouble(&words),
            }
            if !self.pause(pause) {
                return None;
            }
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_fault_is_tried_again_and_shown_meanwhile_and_a_lasting_one_is_told() {
        let ends = SinkEnds::new(|_, _| (), Instant::now);
        let mut tries = 0;
        let done = ends.until_well(|| {
            tries += 1;
            if tries == 1 {
                return Err(SinkFault::Passing("the disk is away".into()));
            }
            assert_eq!(ends.trouble_now().unwrap().0, "the disk is away");
            Ok(tries)
        });
        assert_eq!(done, Some(Ok(2)));
        assert!(ends.trouble_now().is_none());
        let lasting = SinkFault::Lasting("another node's".into());
        assert_eq!(ends.until_well(|| Err::<(), _>(lasting.clone())), Some(Err(lasting.clone())));
        assert_eq!(ends.trouble_now().unwrap().0, "another node's");
    }

    #[test]
    fn the_end_of_the_process_ends_every_wait() {
        let ends = SinkEnds::new(|_, _| (), Instant::now);
        let (waiter, (waits, has_begun)) = (ends.clone(), crossbeam_channel::bounded(1));
        let thread = std::thread::spawn(move || {
            waiter.until_well(|| {
                let _ = waits.try_send(());
                Err::<(), _>(SinkFault::Passing("away".into()))
            })
        });
        has_begun.recv().unwrap();
        ends.stop();
        assert_eq!(thread.join().unwrap(), None);
        assert!(!ends.pause(Duration::from_secs(3600)));
    }
}
