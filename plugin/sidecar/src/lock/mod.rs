//! Locks: those of `parking_lot`, whose `RwLock` is fair to writers, watched in builds with debug assertions (`order`), and
//! scheduled by a model checker where a model makes them (`engine`, unit tests only).
//!
//! No order of locks is written down anywhere: each build that tests learns the order from what is taken while what is
//! held, and stops on the first lock that is taken against it.

#[cfg_attr(test, path = "engine.rs")]
#[cfg_attr(test, expect(clippy::expect_used, clippy::panic, reason = "a model ends with its first panic"))]
#[cfg_attr(not(test), path = "plain.rs")]
mod engine;
#[cfg(debug_assertions)]
mod order;
mod sole;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

pub use sole::Sole;

/// What watches one lock: nothing in release builds.
#[derive(Clone, Copy, Debug)]
struct Watched {
    /// Where it was made: all locks of one place are of one class.
    #[cfg(debug_assertions)]
    class: order::Class,
}

/// For as long as a lock is held.
#[derive(Debug)]
struct Held {
    #[cfg(debug_assertions)]
    _entry: order::Entry,
}

impl Watched {
    #[track_caller]
    fn here() -> Self {
        Self {
            #[cfg(debug_assertions)]
            class: order::Class::here(),
        }
    }

    #[track_caller]
    fn taken(self) -> Held {
        Held {
            #[cfg(debug_assertions)]
            _entry: order::Entry::of(self.class),
        }
    }
}

/// Mutual exclusion. A panic while it is held does not poison it.
pub struct Mutex<T> {
    watched: Watched,
    inner: engine::Mutex<T>,
}

/// Access to what a [`Mutex`] holds.
pub struct MutexGuard<'a, T> {
    inner: engine::MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Mutex<T> {
    /// Locks made at one place of the source are of one class, of which a thread holds one at most.
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self { watched: Watched::here(), inner: engine::Mutex::new(value) }
    }

    /// Waits until nobody else has it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // Before it waits: what would hang is told.
        let held = self.watched.taken();
        MutexGuard { inner: self.inner.lock(), _held: held }
    }
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Many readers or one writer. A writer that waits goes before readers that come after it, so a thread that reads must not
/// read again.
pub struct RwLock<T> {
    watched: Watched,
    inner: engine::RwLock<T>,
}

/// Shared access to what a [`RwLock`] holds.
pub struct ReadGuard<'a, T> {
    inner: engine::ReadGuard<'a, T>,
    _held: Held,
}

/// Sole access to what a [`RwLock`] holds.
pub struct WriteGuard<'a, T> {
    inner: engine::WriteGuard<'a, T>,
    _held: Held,
}

impl<T> RwLock<T> {
    /// See [`Mutex::new`].
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self { watched: Watched::here(), inner: engine::RwLock::new(value) }
    }

    /// Waits until nobody writes.
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let held = self.watched.taken();
        ReadGuard { inner: self.inner.read(), _held: held }
    }

    /// Waits until nobody else has it.
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let held = self.watched.taken();
        WriteGuard { inner: self.inner.write(), _held: held }
    }
}

impl<T: Default> Default for RwLock<T> {
    #[track_caller]
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").finish_non_exhaustive()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Threads that wait for what another changes under a [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar {
    inner: engine::Condvar,
}

impl Condvar {
    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.inner.notify_all();
    }

    /// Gives the lock back and takes it again when woken, for as long as the condition holds.
    pub fn wait_while<T>(&self, guard: &mut MutexGuard<'_, T>, condition: impl FnMut(&mut T) -> bool) {
        self.inner.wait_while(&mut guard.inner, condition);
    }

    /// The same, for so long at most. Whether the condition held to the end.
    pub fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        condition: impl FnMut(&mut T) -> bool,
        patience: Duration,
    ) -> bool {
        self.inner.wait_while_for(&mut guard.inner, condition, patience)
    }
}

#[cfg(test)]
mod tests;
