//! What is asked of bitcoind, by method: how often, with how many errors, and how long it took.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::clock::Clock;
use crate::lock::Mutex;
use crate::measure::{Histogram, Measured};

/// What the node allows itself: calls under way at once, the long poll for the next block not counted.
pub const AT_ONCE: usize = 2;

/// Calls since the start of the process. There are as many methods as the source names.
#[derive(Debug, Default)]
pub struct Calls {
    by_method: Mutex<BTreeMap<&'static str, Arc<Counted>>>,
    waited: Histogram,
    now: AtomicU32,
    peak: AtomicU32,
}

/// A call that is under way.
pub(super) struct UnderWay<'a>(&'a Calls);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Counted {
    took: Histogram,
    errors: AtomicU64,
}

/// What was asked by one method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodCalls {
    /// The method's name at bitcoind.
    pub method: &'static str,
    /// From the request to the answer, also where that is an error.
    pub took: Measured,
    /// How many had no answer, or one that was an error.
    pub errors: u64,
}

impl Calls {
    /// Counts a call that began then, with its outcome.
    pub(super) fn ended<T, E>(&self, method: &'static str, begun: Instant, outcome: &Result<T, E>) {
        let counted = self.by_method.lock().entry(method).or_default().clone();
        counted.took.observe(Clock::monotonic().saturating_duration_since(begun));
        if outcome.is_err() {
            counted.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call that waited for its turn since then, and is under way until what this gives is dropped.
    pub(super) fn begun(&self, asked: Instant) -> UnderWay<'_> {
        self.waited.observe(Clock::monotonic().saturating_duration_since(asked));
        let now = self.now.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.peak.fetch_max(now, Ordering::Relaxed);
        UnderWay(self)
    }

    /// Calls that are under way now, and the most that ever were at once.
    pub fn at_once(&self) -> (u32, u32) {
        (self.now.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed))
    }

    /// Every method that was called, by its name.
    pub fn by_method(&self) -> Vec<MethodCalls> {
        let known = self.by_method.lock();
        let calls = |(&method, counted): (&&'static str, &Arc<Counted>)| MethodCalls {
            method,
            took: counted.took.measured(),
            errors: counted.errors.load(Ordering::Relaxed),
        };
        known.iter().map(calls).collect()
    }

    /// How long calls waited for their turn, the long poll not counted.
    pub fn waited(&self) -> Measured {
        self.waited.measured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_their_method_with_their_errors() {
        let calls = Calls::default();
        let now = Clock::monotonic();
        calls.ended("getblock", now, &Ok::<_, ()>(()));
        calls.ended("getblock", now, &Err::<(), _>(()));
        calls.ended("getblockhash", now, &Ok::<_, ()>(()));
        {
            let _one = calls.begun(now);
            let _two = calls.begun(now);
            assert_eq!(calls.at_once(), (2, 2));
        }
        assert_eq!((calls.at_once(), calls.waited().count), ((0, 2), 2));
        let told: Vec<_> = calls.by_method().into_iter().map(|one| (one.method, one.took.count, one.errors)).collect();
        assert_eq!(told, [("getblock", 2, 1), ("getblockhash", 1, 0)]);
    }
}
