//! The locks of unit tests: those that a model makes are the model checker's, all others are plain.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

#[path = "plain.rs"]
mod plain;

/// Whether this code runs in a model.
fn is_model() -> bool {
    shuttle::current::try_get_current_task().is_some()
}

pub(super) enum Mutex<T> {
    Plain(plain::Mutex<T>),
    Model(shuttle::sync::Mutex<T>),
}

pub(super) enum MutexGuard<'a, T> {
    Plain(plain::MutexGuard<'a, T>),
    Model(shuttle::sync::MutexGuard<'a, T>),
}

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        if is_model() { Self::Model(shuttle::sync::Mutex::new(value)) } else { Self::Plain(plain::Mutex::new(value)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        match self {
            Self::Plain(lock) => MutexGuard::Plain(lock.lock()),
            Self::Model(lock) => MutexGuard::Model(lock.lock().expect("a model ends with its first panic")),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Plain(guard) => guard,
            Self::Model(guard) => guard,
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Self::Plain(guard) => guard,
            Self::Model(guard) => guard,
        }
    }
}

pub(super) enum RwLock<T> {
    Plain(plain::RwLock<T>),
    Model(shuttle::sync::RwLock<T>),
}

pub(super) enum ReadGuard<'a, T> {
    Plain(plain::ReadGuard<'a, T>),
    Model(shuttle::sync::RwLockReadGuard<'a, T>),
}

pub(super) enum WriteGuard<'a, T> {
    Plain(plain::WriteGuard<'a, T>),
    Model(shuttle::sync::RwLockWriteGuard<'a, T>),
}

impl<T> RwLock<T> {
    pub(super) fn new(value: T) -> Self {
        if is_model() { Self::Model(shuttle::sync::RwLock::new(value)) } else { Self::Plain(plain::RwLock::new(value)) }
    }

    pub(super) fn read(&self) -> ReadGuard<'_, T> {
        match self {
            Self::Plain(lock) => ReadGuard::Plain(lock.read()),
            Self::Model(lock) => ReadGuard::Model(lock.read().expect("a model ends with its first panic")),
        }
    }

    pub(super) fn write(&self) -> WriteGuard<'_, T> {
        match self {
            Self::Plain(lock) => WriteGuard::Plain(lock.write()),
            Self::Model(lock) => WriteGuard::Model(lock.write().expect("a model ends with its first panic")),
        }
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Plain(guard) => guard,
            Self::Model(guard) => guard,
        }
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Plain(guard) => guard,
            Self::Model(guard) => guard,
        }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self {
            Self::Plain(guard) => guard,
            Self::Model(guard) => guard,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Condvar(plain::Condvar);

impl Condvar {
    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(super) fn wait_while<T>(&self, guard: &mut MutexGuard<'_, T>, condition: impl FnMut(&mut T) -> bool) {
        self.0.wait_while(plain_guard(guard), condition);
    }

    pub(super) fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        condition: impl FnMut(&mut T) -> bool,
        patience: Duration,
    ) -> bool {
        self.0.wait_while_for(plain_guard(guard), condition, patience)
    }
}

fn plain_guard<'a, 'b, T>(guard: &'a mut MutexGuard<'b, T>) -> &'a mut plain::MutexGuard<'b, T> {
    match guard {
        MutexGuard::Plain(guard) => guard,
        MutexGuard::Model(_) => panic!("no model waits for a condition"),
    }
}
