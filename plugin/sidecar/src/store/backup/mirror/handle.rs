//! What the thread that writes a mirror shares: how its files are open, what they are known to hold, and how much waits for them.

use std::sync::Arc;
use std::time::Duration;

use redb::Database;

use super::open::Open;
use super::place::{Files, Looks, MirrorPlace, Unwritten};
use super::record::Completed;
use super::watch::Watch;
use super::{ANOTHER, CAME_BACK, GONE, Job, holdings_in};
use crate::lock::{Condvar, Mutex};
use crate::store::StoreError;
use crate::store::backup::{Holding, SinkEnds};
use crate::store::journal::Shelf;
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

/// Why nothing is read while the file is not open.
const CLOSED: &str = "it was closed after a fault, and is opened again with the next write";

/// The files, which the thread that writes shares with those that read what they hold.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) place: MirrorPlace,
    open: Mutex<State>,
    /// What was completed; none before the mirror was open.
    completed: Mutex<Option<Completed>>,
}

/// How the files are open, or were.
#[derive(Debug, Default)]
struct State {
    /// None after a fault: redb writes nothing more then before it is opened anew.
    open: Option<Open>,
    /// They are open, and nothing is written to them before they were judged.
    unwritten: Option<(Unwritten, Option<Looks>)>,
    /// Which files were open last.
    last: Option<Files>,
    /// How they looked when they were closed, where nobody else had written to them.
    closed: Option<Looks>,
    /// How the files looked that were not opened, when they were looked at last.
    refused: Option<Option<Looks>>,
}

/// A mirror that is read while it is open.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) db: Arc<Database>,
    storage: Reserve,
}

impl Reading {
    /// Takes the mirror's file from a thread that never goes on: the thread that writes opens it anew.
    pub(super) fn let_go(&self) {
        let_go(&self.storage);
    }
}

/// Nothing reaches the file through this from now on.
pub(super) fn let_go(storage: &Reserve) {
    if let Err(fault) = storage.let_go() {
        tracing::warn!(%fault, "a mirror that was damaged or replaced stays locked until the node stops");
    }
}

impl Handle {
    pub(super) fn of(place: MirrorPlace) -> Self {
        Self { place, open: Mutex::default(), completed: Mutex::default() }
    }

    /// The mirror holds this, and from now on no less.
    pub(super) fn holds(&self, holdings: &[Holding]) {
        *self.completed.lock() = Some(Completed::of(holdings));
    }

    /// Refuses files that cannot be those that were written before: they hold what was completed, but for what the jobs change.
    fn judge(&self, db: &Database, jobs: &[Job]) -> Result<(), StoreError> {
        let holdings = holdings_in(db).map_err(|fault| fault.of_file(&self.place.path))?;
        let mut completed = self.completed.lock();
        let completed = completed.get_or_insert_with(|| Completed::of(&holdings));
        if completed.is_in(&holdings, jobs) { Ok(()) } else { Err(StoreError::io_of(&self.place.path, ANOTHER)) }
    }

    /// The jobs are complete.
    pub(super) fn completes(&self, jobs: &[Job]) {
        if let Some(completed) = &mut *self.completed.lock() {
            completed.take(jobs);
        }
    }

    /// What the mirror holds. Neither file is written to for it: it may prove that the database is old, and is left as it is then.
    pub(super) fn look(&self) -> Result<Reading, StoreError> {
        let mut state = self.open.lock();
        self.leave_what_is_gone(&mut state);
        if let Some(reading) = reading(&state) {
            return Ok(reading);
        }
        self.find(&mut state, None)?;
        reading(&state).ok_or_else(|| StoreError::io_of(&self.place.path, GONE))
    }

    /// The files for writing, which are opened where they are not, or where others stand under their names by now, or what stands there
    /// is another's. Nothing is written before they are known to hold what was completed, but for what the jobs change. For the thread
    /// that writes.
    pub(super) fn open_for(&self, jobs: &[Job]) -> Result<Open, StoreError> {
        let mut state = self.open.lock();
        self.leave_what_is_gone(&mut state);
        if let Some(open) = &state.open {
            return Ok(open.clone());
        }
        // A journal that never had a record may be made anew: a second look finds it.
        for _ in 0..2 {
            self.find(&mut state, Some(jobs))?;
            let before = self.place.files();
            let begun = match state.unwritten.take() {
                Some((found, _)) => self.place.begun(found),
                None => Err(StoreError::io_of(&self.place.path, GONE)),
            };
            let ((db, storage), journal) = begun.inspect_err(|_| state.refused = Some(self.place.looks()))?;
            // Where other files have the names than had them before it is not known which ones were opened.
            let now = self.place.files().filter(|now| before.is_some_and(|before| now.may_be(&before)));
            if let Some(files) = now {
                let watch = Watch::over(self.place.clone(), storage.clone());
                let open = Open::over((db, storage), journal, files).watched(watch);
                *state = State { open: Some(open.clone()), last: Some(files), ..State::default() };
                return Ok(open);
            }
            drop((db, storage, journal));
            // What was made or closed just now is our own.
            state.refused = Some(self.place.looks());
        }
        Err(StoreError::io_of(&self.place.path, GONE))
    }

    /// The same where no job is there.
    pub(super) fn open(&self) -> Result<Open, StoreError> {
        self.open_for(&[])
    }

    /// Opens the files where they are not, judges them where there are jobs for them, and writes nothing.
    fn find(&self, state: &mut State, jobs: Option<&[Job]>) -> Result<(), StoreError> {
        let looks = self.place.looks();
        let found = match state.unwritten.take() {
            Some((found, then)) if then == looks => Ok(found),
            // What stands there may be half of a copy by now.
            Some((found, then)) => {
                drop(found);
                state.refused = Some(then);
                self.may_be_opened(state).and_then(|()| self.place.found())
            }
            None => self.may_be_opened(state).and_then(|()| self.place.found()),
        };
        let judged = found.and_then(|found| jobs.map_or(Ok(()), |jobs| self.judge(&found.db, jobs)).map(|()| found));
        match judged {
            Ok(found) => {
                (state.unwritten, state.last) = (Some((found, looks)), self.place.files());
                Ok(())
            }
            Err(fault) => {
                state.refused = Some(self.place.looks());
                Err(fault)
            }
        }
    }

    /// Closes files that have lost their names, or that somebody else has written to: through those nothing is written any more.
    fn leave_what_is_gone(&self, state: &mut State) {
        let Some(open) = &state.open else { return };
        let is_untouched = open.is_untouched();
        if is_untouched && self.has_names(open) {
            return;
        }
        if !is_untouched && self.has_names(open) {
            open.let_go();
        }
        (state.open, state.closed) = (None, None);
    }

    /// Refuses files that may be half of a copy: others than were open last, or that look otherwise than when they were closed or
    /// refused last, are to look the same in two tries, with a pause between them. Nor is a journal made while the one that was there
    /// may be put back.
    fn may_be_opened(&self, state: &State) -> Result<(), StoreError> {
        let (files, looks) = (self.place.files(), self.place.looks());
        let Some(looks) = looks else {
            // What is missing is told, and a mirror gets its first journal.
            let is_lost = files.is_some() && state.last.is_some_and(|last| last.has_journal());
            return if is_lost { Err(StoreError::NoJournal { path: self.place.shelf().path() }) } else { Ok(()) };
        };
        let is_quiet = match &state.refused {
            Some(refused) => *refused == Some(looks),
            None => state.last.is_none() || (files == state.last && state.closed == Some(looks)),
        };
        if is_quiet { Ok(()) } else { Err(StoreError::io_of(&self.place.path, CAME_BACK)) }
    }

    /// The files as they are open for writing.
    pub(super) fn now(&self) -> Option<Open> {
        self.open.lock().open.clone()
    }

    /// The mirror as it is open, where the files still have their names and nobody else has written to them; says why there is none. For
    /// those that only read: they neither open it nor keep it, so the thread that writes can close it after a fault and open it again.
    pub(super) fn standing(&self) -> Result<Reading, &'static str> {
        let state = self.open.lock();
        let reading = reading(&state).ok_or(CLOSED)?;
        let is_so = match (&state.open, &state.unwritten) {
            (Some(open), _) => self.has_names(open) && open.is_untouched(),
            (None, Some((_, looks))) => *looks == self.place.looks(),
            (None, None) => false,
        };
        if is_so { Ok(reading) } else { Err(GONE) }
    }

    /// Whether these files have their names yet, and what was written last: who finds others there, or none, has written to what nobody
    /// will find.
    pub(super) fn stands(&self, open: &Open) -> bool {
        self.has_names(open) && open.is_untouched()
    }

    /// Does the work while nothing is written, opened or closed.
    #[cfg(test)]
    pub(super) fn at_rest<R>(&self, work: impl FnOnce() -> R) -> R {
        let state = self.open.lock();
        let _at_rest = state.open.as_ref().map(Open::at_rest);
        work()
    }

    fn has_names(&self, open: &Open) -> bool {
        self.place.files() == Some(open.files)
    }

    pub(super) fn close(&self) {
        let mut state = self.open.lock();
        if let Some((_, looks)) = state.unwritten.take() {
            state.closed = looks;
        }
        let Some(open) = state.open.take() else { return };
        let is_ours = open.is_untouched();
        if !is_ours && self.has_names(&open) {
            open.let_go();
        }
        // What redb writes as it closes is its own.
        drop(open);
        state.closed = self.place.looks().filter(|_| is_ours);
    }
}

fn reading(state: &State) -> Option<Reading> {
    let open = state.open.as_ref().map(|open| (open.db.clone(), open.storage.clone()));
    let unwritten = || state.unwritten.as_ref().map(|(found, _)| (found.db.clone(), found.storage.clone()));
    open.or_else(unwritten).map(|(db, storage)| Reading { db, storage })
}
