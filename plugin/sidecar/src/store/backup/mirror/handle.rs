//! What the thread that writes a mirror shares: the open files, and how much waits for them.

use std::sync::Arc;
use std::time::Duration;

use redb::Database;

use super::place::{Files, Looks, MirrorPlace};
use super::record::Completed;
use super::{CAME_BACK, GONE, Job, holdings_in};
use crate::lock::{Condvar, Mutex};
use crate::store::StoreError;
use crate::store::backup::{Holding, SinkEnds};
use crate::store::commit::apply;
use crate::store::journal::{Journal, Shelf, rows};
use crate::store::reserve::Reserve;

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
    /// Whether [`enter`](Self::enter) would not wait.
    pub(super) fn has_room(&self, size: usize) -> bool {
        is_room(*self.bytes.lock(), size)
    }

    /// Waits until there is room, which there is for one thing of any size. False where the process ends before.
    pub(super) fn enter(&self, size: usize, ends: &SinkEnds) -> bool {
        let mut bytes = self.bytes.lock();
        while !is_room(*bytes, size) {
            if ends.is_stopping() {
                return false;
            }
            self.freed.wait_while_for(&mut bytes, |bytes| !is_room(*bytes, size), LOOK_WHETHER_IT_ENDS);
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

fn is_room(bytes: usize, size: usize) -> bool {
    bytes == 0 || bytes.saturating_add(size) <= BACKLOG_BYTES
}

/// The open files, and which ones had their names when they were opened.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) db: Arc<Database>,
    /// What redb has open.
    storage: Reserve,
    journal: Arc<Mutex<Journal>>,
    files: Files,
}

impl Open {
    pub(super) fn over((db, storage): (Database, Reserve), journal: Journal, files: Files) -> Self {
        Self { db: Arc::new(db), storage, journal: Arc::new(Mutex::new(journal)), files }
    }

    /// Makes what the jobs change durable, by one sync of the journal, and then seen by those who read; all of it or nothing. Says
    /// whether the mirror is the one that was written before: one that is not is left as it is. After a fault there must be no other
    /// commit before the files are opened anew.
    pub(super) fn commit(&self, jobs: &[Job]) -> Result<bool, StoreError> {
        let mut journal = self.journal.lock();
        let Some(changed) = super::draft::rows_of(&self.db, jobs)? else { return Ok(false) };
        // What is seen is durable.
        if changed.is_empty() {
            return Ok(true);
        }
        let body = rows::encode(&changed);
        if !journal.fits(body.len()) {
            journal.turn_over(&self.db, &changed, false)?;
            // A record without rows: what went past the journal is missed in an older file beside it.
            journal.append(&[]).map_err(StoreError::io)?;
            return Ok(true);
        }
        if !journal.takes(body.len()) {
            journal.turn_over(&self.db, &[], false)?;
        }
        journal.append(&body).map_err(StoreError::io)?;
        apply(&self.db, &changed, redb::Durability::None, false)?;
        Ok(true)
    }

    /// Makes durable in the mirror's own file what the journal alone has for good, where there is any or `is_last`.
    pub(super) fn checkpoint(&self, is_last: bool) -> Result<(), StoreError> {
        let mut journal = self.journal.lock();
        let is_due = journal.has_records() || (is_last && !journal.is_closed());
        if is_due { journal.turn_over(&self.db, &[], is_last) } else { Ok(()) }
    }

    /// Takes the mirror's file from a thread that never goes on: the thread that writes opens it anew.
    pub(super) fn let_go(&self) {
        if let Err(fault) = self.storage.let_go() {
            tracing::warn!(%fault, "a mirror that was damaged stays locked until the node stops");
        }
    }

    /// Nothing is written while this is held.
    #[cfg(test)]
    pub(super) fn at_rest(&self) -> crate::lock::MutexGuard<'_, Journal> {
        self.journal.lock()
    }

    /// Whether the journal fills up.
    pub(super) fn is_filling(&self) -> bool {
        self.journal.lock().is_filling()
    }
}

/// Why nothing is read while the file is not open.
const CLOSED: &str = "it was closed after a fault, and is opened again with the next write";

/// The open files, which the thread that writes shares with those that read what they hold.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) place: MirrorPlace,
    open: Mutex<State>,
    completed: Mutex<Memory>,
}

/// How the files are open, or were.
#[derive(Debug, Default)]
struct State {
    /// None after a fault: redb writes nothing more then before it is opened anew.
    open: Option<Open>,
    /// Which files were open last.
    last: Option<Files>,
    /// How the files looked that were not opened, when they were looked at last.
    refused: Option<Option<Looks>>,
}

/// What was completed.
#[derive(Debug, Default)]
struct Memory {
    /// None before the mirror was open.
    completed: Option<Completed>,
    /// The files that were found to hold that.
    in_files: Option<Files>,
}

impl Handle {
    pub(super) fn of(place: MirrorPlace) -> Self {
        Self { place, open: Mutex::default(), completed: Mutex::default() }
    }

    /// The mirror holds this, and from now on no less.
    pub(super) fn holds(&self, holdings: &[Holding]) {
        self.completed.lock().completed = Some(Completed::of(holdings));
    }

    /// Whether the open files may be those that were written before: they hold what was completed, but for what the jobs change.
    pub(super) fn has_completed(&self, open: &Open, jobs: &[Job]) -> Result<bool, StoreError> {
        if self.completed.lock().in_files == Some(open.files) {
            return Ok(true);
        }
        let holdings = holdings_in(&open.db)?;
        let mut memory = self.completed.lock();
        let completed = memory.completed.get_or_insert_with(|| Completed::of(&holdings));
        let is_in = completed.is_in(&holdings, jobs);
        memory.in_files = Some(open.files).filter(|_| is_in);
        Ok(is_in)
    }

    /// The jobs are complete.
    pub(super) fn completes(&self, jobs: &[Job]) {
        if let Some(completed) = &mut self.completed.lock().completed {
            completed.take(jobs);
        }
    }

    /// The files, which are opened where they are not, or where others stand under their names by now. For the thread that writes.
    pub(super) fn open(&self) -> Result<Open, StoreError> {
        let mut state = self.open.lock();
        if let Some(open) = state.open.as_ref().filter(|open| self.stands(open)) {
            return Ok(open.clone());
        }
        state.open = None;
        self.completed.lock().in_files = None;
        match self.may_be_opened(&state).and_then(|()| self.opened()) {
            Ok(opened) => {
                *state = State { open: Some(opened.clone()), last: Some(opened.files), refused: None };
                Ok(opened)
            }
            Err(fault) => {
                state.refused = Some(self.place.looks());
                Err(fault)
            }
        }
    }

    /// Refuses files that may be half of a copy: others than were open last, or others than were refused last, are to look the same in
    /// two tries, with a pause between them. Nor is a journal made while the one that was there may be put back.
    fn may_be_opened(&self, state: &State) -> Result<(), StoreError> {
        let (files, looks) = (self.place.files(), self.place.looks());
        let Some(looks) = looks else {
            // What is missing is told, and a mirror gets its first journal.
            let is_lost = files.is_some() && state.last.is_some();
            return if is_lost { Err(StoreError::NoJournal { path: self.place.shelf().path() }) } else { Ok(()) };
        };
        let is_quiet = match &state.refused {
            Some(refused) => *refused == Some(looks),
            None => state.last.is_none() || files == state.last,
        };
        if is_quiet { Ok(()) } else { Err(StoreError::io_of(&self.place.path, CAME_BACK)) }
    }

    /// A journal that never had a record may be made anew: a second look finds it.
    fn opened(&self) -> Result<Open, StoreError> {
        match self.opened_once()? {
            None => self.opened_once()?.ok_or_else(|| StoreError::io_of(&self.place.path, GONE)),
            Some(opened) => Ok(opened),
        }
    }

    /// None where other files had the names before than have them now: which ones were opened is not known.
    fn opened_once(&self) -> Result<Option<Open>, StoreError> {
        let before = self.place.files();
        let (opened, journal) = self.place.opened()?;
        let now = self.place.files().filter(|now| before.is_some_and(|before| now.may_be(&before)));
        Ok(now.map(|files| Open::over(opened, journal, files)))
    }

    /// The files as they are open.
    pub(super) fn now(&self) -> Option<Open> {
        self.open.lock().open.clone()
    }

    /// The mirror as it is open, where the files still have their names; says why there is none. For those that only read: they neither
    /// open it nor keep it, so the thread that writes can close it after a fault and open it again.
    pub(super) fn standing(&self) -> Result<Open, &'static str> {
        let state = self.open.lock();
        let open = state.open.as_ref().ok_or(CLOSED)?;
        if self.stands(open) { Ok(open.clone()) } else { Err(GONE) }
    }

    /// Whether these files have their names yet: who finds others there, or none, has written to what nobody will find.
    pub(super) fn stands(&self, open: &Open) -> bool {
        self.place.files() == Some(open.files)
    }

    pub(super) fn close(&self) {
        self.open.lock().open = None;
    }
}
