//! One sink from the outside: its name, what it is to be given, and what is known of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use outrigger_bolt::id::ChannelId;

use super::ends::{Now, SinkEnds};
use super::lanes::{Lag, Lanes, Work};
use crate::lock::{Condvar, Mutex};

/// What the operator said of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTerms {
    /// The name that the operator gave it, which is its identity from one start to the next.
    pub name: String,
    /// `mirror`, `directory` or `command`.
    pub kind: &'static str,
    /// Whether promises wait for it; else its lag is shown and no more.
    pub is_required: bool,
}

/// How a sink stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not told yet what it holds.
    Starting,
    /// It has everything.
    Complete,
    /// It is behind, and nothing is known to be wrong.
    Behind,
    /// Something is wrong that it tries to get over, for so long.
    Troubled { reason: String, since: Duration },
    /// It said once that it will never have a channel. The next such answer stops the node.
    Failed { reason: String },
    /// It holds more than the database: it is left as it is.
    Ahead,
}

/// A sink as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkView {
    pub terms: SinkTerms,
    pub state: State,
    pub lag: Lag,
    /// When something was last completed there, in unix seconds.
    pub completed_at_unix: Option<u64>,
    /// When a restore from it was last tried and found right, in unix seconds.
    pub verified_at_unix: Option<u64>,
    /// Why the last restore that was tried from it was not right, where it was not.
    pub verify_failure: Option<String>,
    /// Why none is tried from it, or not of all channels, where that is so.
    pub unverified: Option<String>,
}

/// One sink, shared by the writer, by its own thread and by those that complete.
pub(super) struct Desk {
    pub(super) terms: SinkTerms,
    pub(super) ends: SinkEnds,
    lanes: Mutex<Lanes>,
    /// Rung when there may be work.
    work: Condvar,
    /// It has told what it holds, and that was judged.
    pub(super) has_told: AtomicBool,
    /// It could not tell what it holds, and no waiting changes that: it was told of as one that holds nothing.
    pub(super) is_mute: AtomicBool,
    /// The channel that it refused for good, in this run or before, and why.
    refused: Mutex<Option<(ChannelId, String)>>,
    completed_at_unix: AtomicU64,
    verified_at_unix: AtomicU64,
    verify_failure: Mutex<Option<String>>,
    unverified: Mutex<Option<String>>,
}

impl Desk {
    /// `refused` is the channel that it refused for good before this start; `verified` when a restore from it was last found right
    /// before that, in unix seconds.
    pub(super) fn new(
        terms: SinkTerms,
        ends: SinkEnds,
        lanes: Lanes,
        (refused, verified): (Option<ChannelId>, Option<u64>),
    ) -> Self {
        let before = |channel| (channel, format!("it refused channel {channel} for good before this start"));
        Self {
            terms,
            ends,
            lanes: Mutex::new(lanes),
            work: Condvar::default(),
            has_told: AtomicBool::new(false),
            is_mute: AtomicBool::new(false),
            refused: Mutex::new(refused.map(before)),
            completed_at_unix: AtomicU64::new(0),
            verified_at_unix: AtomicU64::new(verified.unwrap_or(0)),
            verify_failure: Mutex::default(),
            unverified: Mutex::default(),
        }
    }

    /// Works on the lanes, and wakes the sink's thread.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Lanes) -> R) -> R {
        let done = work(&mut self.lanes.lock());
        self.work.notify_all();
        done
    }

    /// The next thing to give; waits for it. None once the process ends.
    pub(super) fn next(&self) -> Option<Work> {
        let mut lanes = self.lanes.lock();
        loop {
            if self.ends.is_stopping() {
                return None;
            }
            self.set_apart(&mut lanes);
            if let Some(work) = lanes.next() {
                return Some(work);
            }
            let mut has_waited = false;
            self.work.wait_while(&mut lanes, |_| !std::mem::replace(&mut has_waited, true));
        }
    }

    /// The next thing to give, where there is any now. None once the process ends.
    pub(super) fn next_now(&self) -> Option<Work> {
        if self.ends.is_stopping() {
            return None;
        }
        let mut lanes = self.lanes.lock();
        self.set_apart(&mut lanes);
        lanes.next()
    }

    /// Channels that wait alone are given no more from now on.
    fn set_apart(&self, lanes: &mut Lanes) {
        self.ends.take_alone().iter().for_each(|channel| lanes.set_apart(channel, (self.ends.now())()));
    }

    pub(super) fn stop(&self) {
        self.ends.stop();
        self.with(|_| ());
    }

    /// Up to which id the channel is complete; nothing where nobody waits for this sink.
    pub(super) fn complete(&self, channel: &ChannelId) -> Option<u64> {
        self.lanes.lock().complete(channel)
    }

    /// Up to which id it is known to have the channel, also one that it refuses.
    pub(super) fn had(&self, channel: &ChannelId) -> Option<u64> {
        self.lanes.lock().had(channel)
    }

    pub(super) fn has_completed(&self, at_unix: u64) {
        self.completed_at_unix.store(at_unix, Ordering::Relaxed);
    }

    pub(super) fn is_verified(&self, at_unix: u64) {
        self.verified_at_unix.store(at_unix, Ordering::Relaxed);
        *self.verify_failure.lock() = None;
    }

    /// A restore was tried and nothing was wrong, but that these channels were not tried: what was wrong with one of them may be yet.
    pub(super) fn is_partly_verified(&self, untried: &[ChannelId]) {
        let mut failure = self.verify_failure.lock();
        let is_of_one = |words: &String| untried.iter().any(|channel| words.contains(&channel.to_string()));
        *failure = failure.take().filter(is_of_one);
    }

    /// Why no restore is tried from it, or not of all channels; nothing where one is.
    pub(super) fn is_unverified(&self, reason: Option<String>) {
        *self.unverified.lock() = reason;
    }

    /// A restore was tried and was not right. Says whether the one before it was.
    pub(super) fn is_not_verified(&self, reason: &str) -> bool {
        self.verify_failure.lock().replace(reason.to_owned()).is_none()
    }

    /// It has refused this channel for good. Says whether it had refused another one before: then it is the sink that is at fault.
    pub(super) fn has_refused(&self, channel: &ChannelId, reason: &str) -> bool {
        let mut refused = self.refused.lock();
        let first = refused.as_ref().map_or(*channel, |(first, _)| *first);
        *refused = Some((first, reason.to_owned()));
        first != *channel
    }

    /// The first channel that it refused for good.
    pub(super) fn refused(&self) -> Option<ChannelId> {
        self.refused.lock().as_ref().map(|(channel, _)| *channel)
    }

    pub(super) fn view(&self, now: Now) -> SinkView {
        let now = now();
        let (lag, is_off) = {
            let lanes = self.lanes.lock();
            (lanes.lag(now), lanes.is_off())
        };
        let failure = self.refused.lock().clone().map(|(_, reason)| reason);
        let verify_failure = self.verify_failure.lock().clone();
        let trouble = self.ends.trouble_now();
        let state = match (is_off, failure, trouble) {
            (true, _, _) => State::Ahead,
            (false, Some(reason), _) => State::Failed { reason },
            (false, None, Some((reason, since))) => {
                State::Troubled { reason, since: now.saturating_duration_since(since) }
            }
            (false, None, None) if !self.has_told.load(Ordering::Relaxed) => State::Starting,
            (false, None, None) if lag.updates == 0 => State::Complete,
            (false, None, None) => State::Behind,
        };
        let at = |unix: &AtomicU64| Some(unix.load(Ordering::Relaxed)).filter(|unix| *unix > 0);
        SinkView {
            terms: self.terms.clone(),
            state,
            lag,
            completed_at_unix: at(&self.completed_at_unix),
            verified_at_unix: at(&self.verified_at_unix),
            verify_failure,
            unverified: self.unverified.lock().clone(),
        }
    }
}
