//! What the thread that writes a mirror shares: the open file, and how much waits for it.

use std::sync::Arc;
use std::time::Duration;

use redb::Database;

use super::{GONE, MirrorPlace};
use crate::lock::{Condvar, Mutex};
use crate::store::StoreError;
use crate::store::backup::{MISSING, SinkEnds};

/// What waits for the thread, and what it is writing, in bytes.
pub(super) const BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// How often who waits for room looks whether the process ends.
const LOOK_WHETHER_IT_ENDS: Duration = Duration::from_millis(200);

/// What waits for the thread or is being written, in bytes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) bytes: Mutex<usize>,
    freed: Condvar,
}

impl Backlog {
    /// Waits until there is room, which there is for one thing of any size. False where the process ends before.
    pub(super) fn enter(&self, size: usize, ends: &SinkEnds) -> bool {
        let mut bytes = self.bytes.lock();
        while *bytes > 0 && bytes.saturating_add(size) > BACKLOG_BYTES {
            if ends.is_stopping() {
                return false;
            }
            self.freed.wait_while_for(
                &mut bytes,
                |bytes| *bytes > 0 && bytes.saturating_add(size) > BACKLOG_BYTES,
                LOOK_WHETHER_IT_ENDS,
            );
        }
        *bytes = bytes.saturating_add(size);
        true
    }

    pub(super) fn leave(&self, size: usize) {
        let mut bytes = self.bytes.lock();
        *bytes = bytes.saturating_sub(size);
        drop(bytes);
        self.freed.notify_all();
    }
}

/// Device and number of a file.
type File = (u64, u64);

/// An open database, and the file that had its name when it was opened.
type Open = (Arc<Database>, File);

/// Why nothing is read while the file is not open.
const CLOSED: &str = "it was closed after a fault, and is opened again with the next write";

/// The open file, which the thread that writes shares with those that read what it holds.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) place: MirrorPlace,
    /// Closed after a fault: redb writes nothing more then
    /// before it is opened anew.
    open: Mutex<Option<Open>>,
}

impl Handle {
    pub(super) fn of(place: MirrorPlace) -> Self {
        Self { place, open: Mutex::default() }
    }

    /// The file, which is opened where it is not, or where another one stands under its name by now. For the thread that writes.
    pub(super) fn database(&self) -> Result<Open, StoreError> {
        let mut open = self.open.lock();
        if let Some((db, file)) = &*open
            && self.place.file() == Some(*file)
        {
            return Ok((db.clone(), *file));
        }
        *open = None;
        let before = self.place.file();
        let db = Arc::new(self.place.opened()?);
        // One that was put there meanwhile is found before anything counts as written.
        let file = before.ok_or_else(|| StoreError::io_of(&self.place.path, MISSING))?;
        *open = Some((db.clone(), file));
        Ok((db, file))
    }

    /// The file as it is open, where it still has its name; says why there is none. For those that only read: they neither open it
    /// nor keep it, so the thread that writes can close it after a fault and open it again.
    pub(super) fn standing(&self) -> Result<Arc<Database>, &'static str> {
        let open = self.open.lock();
        let (db, file) = open.as_ref().ok_or(CLOSED)?;
        if self.stands(*file) { Ok(db.clone()) } else { Err(GONE) }
    }

    /// Whether this file has its name yet: who finds another there, or none, has written to what nobody will find.
    pub(super) fn stands(&self, file: File) -> bool {
        self.place.file() == Some(file)
    }

    pub(super) fn close(&self) {
        *self.open.lock() = None;
    }
}
