//! The flag by which threads are told to end, and on which they sleep.

use std::sync::Arc;
use std::time::Duration;

use crate::lock::{Condvar, Mutex};

/// Raised once, seen by every thread that holds a copy. Sleeping threads wake at once.
#[derive(Clone, Debug, Default)]
pub struct StopFlag {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_raised: bool,
    /// How often there was news.
    nudges: u64,
}

impl StopFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag for good.
    pub fn raise(&self) {
        self.inner.state.lock().is_raised = true;
        self.inner.wake.notify_all();
    }

    /// Wakes whoever [dozes](Self::doze), and keeps awake whoever is about to.
    pub fn nudge(&self) {
        let mut state = self.inner.state.lock();
        state.nudges = state.nudges.wrapping_add(1);
        drop(state);
        self.inner.wake.notify_all();
    }

    /// Whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        self.inner.state.lock().is_raised
    }

    /// Sleeps for `time` or until the flag is raised; tells whether it is raised.
    pub fn sleep(&self, time: Duration) -> bool {
        let mut state = self.inner.state.lock();
        self.inner.wake.wait_while_for(&mut state, |state| !state.is_raised, time);
        state.is_raised
    }

    /// How often it was nudged.
    pub fn nudges(&self) -> u64 {
        self.inner.state.lock().nudges
    }

    /// Sleeps likewise, but not once it was nudged more often than `known`: what there was news of while somebody looked is looked
    /// at again.
    pub fn doze(&self, known: u64, time: Duration) -> bool {
        let mut state = self.inner.state.lock();
        self.inner.wake.wait_while_for(&mut state, |state| !state.is_raised && state.nudges == known, time);
        state.is_raised
    }
}
