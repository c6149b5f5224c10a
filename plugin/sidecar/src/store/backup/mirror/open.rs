//! The files of a mirror as they are open for writing.

use std::sync::Arc;

use redb::Database;

use super::Job;
use super::place::Files;
use super::watch::Watch;
use crate::lock::Mutex;
use crate::store::StoreError;
use crate::store::commit::apply;
use crate::store::journal::{Journal, rows};
use crate::store::reserve::Reserve;

/// The open files, and which ones had their names when they were opened.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) db: Arc<Database>,
    /// What redb has open.
    pub(super) storage: Reserve,
    journal: Arc<Mutex<Journal>>,
    pub(super) files: Files,
    watch: Option<Arc<Watch>>,
}

impl Open {
    pub(super) fn over((db, storage): (impl Into<Arc<Database>>, Reserve), journal: Journal, files: Files) -> Self {
        Self { db: db.into(), storage, journal: Arc::new(Mutex::new(journal)), files, watch: None }
    }

    /// The same, watched for others who write to them.
    pub(super) fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(Arc::new(watch)), ..self }
    }

    /// Makes what the jobs change durable, by one sync of the journal, and then seen by those who read; all of it or nothing. Says
    /// whether the mirror is the one that was written before: one that is not is left as it is. After a fault there must be no other
    /// commit before the files are opened anew.
    pub(super) fn commit(&self, jobs: &[Job]) -> Result<bool, StoreError> {
        let mut journal = self.journal.lock();
        self.begins()?;
        let done = self.committed(&mut journal, jobs);
        self.ends(&journal)?;
        done
    }

    fn committed(&self, journal: &mut Journal, jobs: &[Job]) -> Result<bool, StoreError> {
        let Some(changed) = super::draft::rows_of(&self.db, jobs)? else { return Ok(false) };
        // What is seen is durable.
        if changed.is_empty() {
            return Ok(true);
        }
        let body = rows::encode(&changed);
        if !journal.fits(body.len()) {
            // What goes past the journal is missed in an older file beside it: the epoch goes on by two, and more than one is a proof.
            // No crash leaves it without that, since the second one begins before the rows are durable anywhere.
            journal.turn_over(&self.db, &[], false)?;
            journal.turn_over(&self.db, &changed, false)?;
            return Ok(true);
        }
        if !journal.takes(body.len()) {
            journal.turn_over(&self.db, &[], false)?;
            self.ends(journal)?;
            self.begins()?;
        }
        journal.append(&body).map_err(StoreError::io)?;
        self.watch.as_ref().map_or(Ok(()), |watch| watch.goes_on())?;
        apply(&self.db, &changed, redb::Durability::None, false)?;
        Ok(true)
    }

    fn begins(&self) -> Result<(), StoreError> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch.begins())
    }

    /// What the journal has is what was written.
    fn ends(&self, journal: &Journal) -> Result<(), StoreError> {
        let Some(watch) = &self.watch else { return Ok(()) };
        watch.ends();
        if journal.stands().map_err(StoreError::io)? { Ok(()) } else { Err(watch.is_touched()) }
    }

    /// Makes durable in the mirror's own file what the journal alone has for good, where there is any or `is_last`.
    pub(super) fn checkpoint(&self, is_last: bool) -> Result<(), StoreError> {
        let mut journal = self.journal.lock();
        let is_due = journal.has_records() || (is_last && !journal.is_closed());
        if !is_due {
            return Ok(());
        }
        self.begins()?;
        let done = journal.turn_over(&self.db, &[], is_last);
        self.ends(&journal)?;
        done
    }

    /// Whether nobody else is known to have written to the files.
    pub(super) fn is_untouched(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| watch.is_untouched())
    }

    /// Through this nothing reaches the mirror's file any more.
    pub(super) fn let_go(&self) {
        super::handle::let_go(&self.storage);
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
