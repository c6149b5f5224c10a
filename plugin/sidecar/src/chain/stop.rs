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
    raised: Mutex<bool>,
    wake: Condvar,
}

impl StopFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag for good.
    pub fn raise(&self) {
        *self.inner.raised.lock() = true;
        self.inner.wake.notify_all();
    }

    /// Whether the flag is raised.
    pub fn is_raised(&self) -> bool {
        *self.inner.raised.lock()
    }

    /// Sleeps for `time` or until the flag is raised; tells whether it is raised.
    pub fn sleep(&self, time: Duration) -> bool {
        let mut raised = self.inner.raised.lock();
        self.inner.wake.wait_while_for(&mut raised, |raised| !*raised, time);
        *raised
    }
}
