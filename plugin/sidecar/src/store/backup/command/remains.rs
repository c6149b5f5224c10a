//! What is left of a life that nothing ends: a program of another user, or one that waits for a disk for ever. Nobody waits for it, and
//! no other life begins before it is gone.

use std::io;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::lock::Mutex;

/// The process that was left behind, where there is one; clones are of the same one.
#[derive(Clone, Default)]
pub(super) struct Remains(Arc<Mutex<Option<Left>>>);

struct Left {
    process: Child,
    /// What waits for its end and then ends its group. It is not buried before: until then its number is nobody else's.
    watcher: Option<Thread>,
}

impl Left {
    fn lives(&mut self) -> bool {
        let is_watched = self.watcher.as_ref().is_some_and(|watcher| !watcher.ends_within(Duration::ZERO));
        is_watched || matches!(self.process.try_wait(), Ok(None))
    }
}

impl Remains {
    /// The number of the process that was left behind and has not ended.
    pub(super) fn process(&self) -> Option<u32> {
        let mut left = self.0.lock();
        if !left.as_mut().is_some_and(Left::lives) {
            *left = None;
        }
        left.as_ref().map(|left| left.process.id())
    }

    /// Buries the process where it has ended, and leaves it behind where it has not, with what waits for that.
    pub(super) fn take(&self, process: Child, watcher: Option<Thread>) {
        let mut left = Left { process, watcher };
        if left.lives() {
            *self.0.lock() = Some(left);
        }
    }
}

/// A thread that may not end.
pub(super) struct Thread {
    /// Nothing comes of it but its end.
    ended: Receiver<()>,
}

impl Thread {
    pub(super) fn begin(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (lives, ended) = bounded(0);
        let work = move || {
            run();
            drop(lives);
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { ended })
    }

    /// Waits so long for its end. Says whether it came.
    pub(super) fn ends_within(&self, length: Duration) -> bool {
        self.ended.recv_timeout(length) == Err(RecvTimeoutError::Disconnected)
    }
}
