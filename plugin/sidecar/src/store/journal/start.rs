//! What a start makes of database and journal, before anything is read of the database: it gets what it lacks, or is refused,
//! or is known to be old. All that is written stands back until the database was found to be sound (`store/reserve.rs`).

use redb::{Database, Durability, ReadableDatabase, StorageBackend};

use super::super::StoreError;
use super::super::commit::apply;
use super::super::schema::{RESTORED_KEY, Table};
use super::image::{FORMAT_VERSION, Image, NoImage, Verdict, fresh};
use super::rows::SealedRow;
use super::shelf::Shelf;
use super::{Journal, JournalRow, meta};

/// What is to be done with the journal once the database was found to be sound.
pub(crate) struct Attached {
    plan: Plan,
    /// The proof that the database is an old copy.
    pub(crate) old: Option<String>,
    /// Whether the last record of the journal is torn or damaged: the bytes of a record that was cut by a crash tell no more.
    pub(crate) is_torn: bool,
}

enum Plan {
    /// Commits are the database's own.
    Without,
    /// A journal is made, with the epoch of this row, which the database has.
    Make(JournalRow),
    /// It goes on as it is: it has no record, and the first commit begins the next epoch.
    Stay(Box<Journal>),
    /// It goes on with the epoch of the row, which the database has.
    Go(Box<Journal>, JournalRow),
}

/// What stands on the shelf, for the database with a row.
enum Found {
    Kept {
        journal: Box<Journal>,
        rows: Vec<SealedRow>,
        is_begun: bool,
        is_torn: bool,
    },
    Missing,
    /// The proof.
    Ahead(String),
    Refused(StoreError),
}

/// Gives the database what it lacks. `is_old` says whether the database is known to be an old copy, `may_make` whether one that
/// never had a journal gets one.
///
/// A database in restored mode whose journal does not go with it gives it up for good: who has the newest database finds the
/// journal as it was.
pub(crate) fn attach(db: &Database, shelf: &dyn Shelf, is_old: bool, may_make: bool) -> Result<Attached, StoreError> {
    let is_restored = {
        let meta = db.begin_read()?.open_table(Table::Meta.definition())?;
        meta.get(RESTORED_KEY)?.is_some()
    };
    let attached = |plan| Ok(Attached { plan, old: None, is_torn: false });
    let Some(row) = JournalRow::in_database(db)? else {
        if is_old || is_restored || !may_make {
            return attached(Plan::Without);
        }
        if is_orphaned(db, shelf)? {
            let reason = format!("it does not name {}, which stands beside it", shelf.path().display());
            return Err(StoreError::Corrupt { path: shelf.database(), reason });
        }
        let row = JournalRow::first()?;
        durably(db, &[meta(Some(&row))])?;
        return attached(Plan::Make(row));
    };
    if is_old {
        if is_restored {
            durably(db, &[meta(None)])?;
        }
        return attached(Plan::Without);
    }
    match found(shelf, &row)? {
        Found::Kept { mut rows, .. } if is_restored => {
            rows.push(meta(None));
            durably(db, &rows)?;
            attached(Plan::Without)
        }
        // The row may be seen and on no disk: the sync that was to bring it there failed, or its process was killed before. Then the half
        // of the epoch before has what the database on the disk lacks, and the next epoch would go there. So nothing is begun before
        // the database is open, which writes its root again. Where the epoch has a record its row was durable first.
        Found::Kept { journal, is_begun: false, is_torn, .. } => {
            Ok(Attached { plan: Plan::Stay(journal), old: None, is_torn })
        }
        Found::Kept { journal, mut rows, is_begun: true, is_torn } => {
            let next = row.next(false)?;
            rows.push(meta(Some(&next)));
            durably(db, &rows)?;
            Ok(Attached { plan: Plan::Go(journal, next), old: None, is_torn })
        }
        Found::Missing | Found::Ahead(_) if is_restored => {
            durably(db, &[meta(None)])?;
            attached(Plan::Without)
        }
        Found::Missing if row.is_closed => {
            let next = row.next(false)?;
            durably(db, &[meta(Some(&next))])?;
            attached(Plan::Make(next))
        }
        Found::Ahead(proof) => Ok(Attached { plan: Plan::Without, old: Some(proof), is_torn: false }),
        Found::Missing if shelf.is_given_up() => {
            let (path, database) = (shelf.path(), shelf.database());
            let proof = format!("{} is lost, with the newest commits of {}", path.display(), database.display());
            Ok(Attached { plan: Plan::Without, old: Some(proof), is_torn: false })
        }
        Found::Missing => Err(StoreError::NoJournal { path: shelf.path() }),
        Found::Refused(fault) => Err(fault),
    }
}

impl Attached {
    /// The journal for what comes. The database was found to be sound, and its newest row of the journal is not on disk yet.
    pub(crate) fn settle(self, shelf: &dyn Shelf) -> Result<Option<Journal>, StoreError> {
        match self.plan {
            Plan::Without => Ok(None),
            Plan::Stay(journal) => Ok(Some(journal.found())),
            Plan::Make(row) => {
                let lay = |file: &dyn StorageBackend, half_len| {
                    let bytes = fresh(&row, half_len);
                    file.set_len(bytes.len() as u64)?;
                    file.write(0, &bytes)?;
                    file.sync_data()
                };
                let (file, half_len) = shelf.make(&lay).map_err(StoreError::io)?;
                Ok(Some(Journal::over(file, half_len, row)))
            }
            Plan::Go(mut journal, row) => {
                journal.begin_as(&row).map_err(StoreError::io)?;
                journal.turn(row);
                Ok(Some(*journal))
            }
        }
    }
}

fn found(shelf: &dyn Shelf, row: &JournalRow) -> Result<Found, StoreError> {
    let opened = shelf.open().map_err(|fault| StoreError::io_of(&shelf.path(), fault));
    let Some(file) = opened? else { return Ok(Found::Missing) };
    let path = shelf.path();
    let image = match Image::read(&*file).map_err(StoreError::io)? {
        Ok(image) => image,
        Err(NoImage::Newer(found)) => {
            return Ok(Found::Refused(StoreError::Newer { path, found, known: FORMAT_VERSION }));
        }
        Err(NoImage::Damaged(reason)) => {
            return Ok(Found::Refused(StoreError::Corrupt { path, reason: reason.to_owned() }));
        }
    };
    Ok(match image.judge(row) {
        Verdict::Kept { rows, is_begun, is_torn } => {
            let journal = Box::new(Journal::over(file, image.half_len, row.clone()));
            Found::Kept { journal, rows, is_begun, is_torn }
        }
        Verdict::Ahead => Found::Ahead(format!(
            "{} is at epoch {} and {} holds later commits: an old copy was put back",
            shelf.database().display(),
            row.epoch.number,
            path.display()
        )),
        Verdict::Foreign => {
            let wanted = format!("{} as it stands beside it", shelf.database().display());
            let found = "another database".to_owned();
            Found::Refused(StoreError::Foreign { path, found, wanted })
        }
        Verdict::Apart => Found::Refused(StoreError::Apart { path }),
        Verdict::Damaged(reason) => Found::Refused(StoreError::Corrupt { path, reason }),
    })
}

/// Whether a journal that was used stands beside a database that names none: the database has lost the row, or is of another time. None
/// is made in its place. What a crash on the very first start leaves has no record yet.
pub(crate) fn is_orphaned(db: &Database, shelf: &dyn Shelf) -> Result<bool, StoreError> {
    if JournalRow::in_database(db)?.is_some() {
        return Ok(false);
    }
    let opened = shelf.open().map_err(|fault| StoreError::io_of(&shelf.path(), fault));
    let Some(file) = opened? else { return Ok(false) };
    let is_new = Image::read(&*file).map_err(StoreError::io)?.is_ok_and(|image| !image.was_used());
    Ok(!is_new)
}

fn durably(db: &Database, rows: &[SealedRow]) -> Result<(), StoreError> {
    apply(db, rows, Durability::Immediate, true)
}
