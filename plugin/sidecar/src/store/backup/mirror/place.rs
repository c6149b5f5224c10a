//! Where a mirror stands: its file with the journal beside it, and how the two are made, opened and looked at.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_bolt::id::NodeId;
use redb::{Database, ReadableDatabase};

use super::super::MISSING;
use super::DAMAGED;
use crate::store::generation::make_private;
use crate::store::ground::{Ground, system};
use crate::store::journal::start::{Attached, attach, is_orphaned};
use crate::store::journal::{self, Beside, Journal, Shelf};
use crate::store::reserve::Reserve;
use crate::store::schema::{MIRROR_KEY, Table};
use crate::store::seal::seal;
use crate::store::{StoreError, check_identity, initialise, kept_back, reserved, stored, stored_to_look};

/// Whose mirror it is, and where.
#[derive(Clone, Debug)]
pub struct MirrorPlace {
    /// The file. Its journal has the same name with `.journal` behind it.
    pub path: PathBuf,
    pub network: String,
    pub node_id: NodeId,
    pub(super) ground: Arc<dyn Ground>,
}

/// Device and number of a file.
type FileId = (u64, u64);

/// Which files have the names of a mirror and of its journal, and how long the journal is, which never changes. A copy over a name
/// keeps its file: [`Looks`] tell that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Files {
    mirror: FileId,
    /// None before one is made.
    journal: Option<(FileId, u64)>,
}

/// What changes while a file is copied to its name: which one it is, its length, and when it was written last.
type Look = (FileId, u64, i64, i64);

/// Both files as they look at a moment.
pub(super) type Looks = (Look, Look);

impl Files {
    pub(super) const fn has_journal(&self) -> bool {
        self.journal.is_some()
    }

    /// Whether these are the ones that stood there before, but for a journal that was not there.
    pub(super) fn may_be(&self, before: &Self) -> bool {
        self.mirror == before.mirror && (before.journal.is_none() || self.journal == before.journal)
    }
}

impl MirrorPlace {
    /// The place of this node's and network's mirror in this file.
    pub fn new(path: impl Into<PathBuf>, network: &str, node_id: NodeId) -> Self {
        Self { path: path.into(), network: network.to_owned(), node_id, ground: system() }
    }

    /// The same on another file system.
    #[must_use]
    pub fn on(self, ground: Arc<dyn Ground>) -> Self {
        Self { ground, ..self }
    }

    /// The place of the journal: beside the file itself where the name is a link to it, so that both are on one disk.
    pub(super) fn shelf(&self) -> Beside {
        Beside::file(&self.path.canonicalize().unwrap_or_else(|_| self.path.clone())).on(self.ground.clone())
    }

    /// The files that stand there, where the mirror's does.
    pub(super) fn files(&self) -> Option<Files> {
        let found = |path: &Path| fs::metadata(path).map(|file| ((file.dev(), file.ino()), file.len())).ok();
        let (mirror, _) = found(&self.path)?;
        Some(Files { mirror, journal: found(&self.shelf().path()) })
    }

    /// How both files look, where both are there.
    pub(super) fn looks(&self) -> Option<Looks> {
        let look = |path: &Path| {
            fs::metadata(path).map(|file| ((file.dev(), file.ino()), file.len(), file.mtime(), file.mtime_nsec())).ok()
        };
        Some((look(&self.path)?, look(&self.shelf().path())?))
    }

    /// Refuses, before the node starts, a mirror that no waiting makes right: the database itself, a file that is no mirror, another
    /// node's or network's, or one that a newer version wrote. A file that is not there, or cannot be read now, is none of these, nor
    /// is one whose journal is missing or of another time: the right one may be put back while the node runs. Nothing is changed.
    /// The text says what is wrong and what to do.
    pub fn check(&self, database: &Path) -> Result<(), String> {
        let path = self.path.display();
        if is_same_file(&self.path, database) || self.is_in_the_way_of(database) {
            return Err(format!(
                "{path} is the node's own database, or takes the name of its journal; name a file on another disk"
            ));
        }
        match self.looked_at() {
            Ok(_) | Err(StoreError::Io(_) | StoreError::NoJournal { .. } | StoreError::Apart { .. }) => Ok(()),
            // It is a copy: what is damaged may be moved away.
            Err(StoreError::Corrupt { path, reason }) => Err(format!("{}: {reason}; {DAMAGED}", path.display())),
            Err(
                fault @ (StoreError::Newer { .. }
                | StoreError::Companion { .. }
                | StoreError::Missing { .. }
                | StoreError::OnlyJournal { .. }
                | StoreError::DeadLink(_)
                | StoreError::InUse(_)
                | StoreError::Foreign { .. }),
            ) => Err(fault.to_string()),
        }
    }

    /// Whether the mirror or its journal would have a name that one of the node's own files has.
    fn is_in_the_way_of(&self, database: &Path) -> bool {
        let directory = |path: &Path| path.parent().and_then(|dir| dir.canonicalize().ok());
        let is_own = |path: &Path| {
            directory(path).is_some_and(|dir| Some(dir) == directory(database))
                && (path.file_name() == database.file_name() || path.file_name() == Some(OsStr::new(journal::FILE)))
        };
        is_own(&self.path) || is_own(&self.shelf().path())
    }

    /// Makes the mirror where there is none, and is for the first start with it: one that goes away later has what was completed,
    /// and an empty one in its place has not. Its directory must be there: it may be a disk that is away. The journal is made when it
    /// is opened first.
    pub fn make(&self) -> Result<(), StoreError> {
        if self.is_there()? {
            return Ok(());
        }
        // Nor is one made in the place of one that another disk holds.
        if let Some(fault) = self.dead_link() {
            return Err(fault);
        }
        let shelf = self.shelf();
        match shelf.open().map_err(|fault| StoreError::io_of(&shelf.path(), fault))? {
            Some(_) => Err(StoreError::io_of(&shelf.path(), ALONE)),
            None => self.create(),
        }
    }

    /// What is told of a name that is a link, where nothing is at its end.
    fn dead_link(&self) -> Option<StoreError> {
        let leads_to = fs::read_link(&self.path).ok()?;
        Some(StoreError::io_of(&self.path, format_args!("{DEAD_LINK} {}: {DEAD_LINK_HELP}", leads_to.display())))
    }

    fn is_there(&self) -> Result<bool, StoreError> {
        self.path.try_exists().map_err(|fault| StoreError::io_of(&self.path, fault))
    }

    /// The mirror and its journal, to be written; the mirror must be there. Neither is changed by a byte before it has
    /// [begun](Self::begun). One that never had a journal gets one then.
    pub(super) fn found(&self) -> Result<Unwritten, StoreError> {
        let shelf = self.shelf();
        if !self.is_there()? {
            return Err(match shelf.open() {
                Ok(Some(_)) => StoreError::io_of(&shelf.path(), ALONE),
                Ok(None) | Err(_) => self.dead_link().unwrap_or_else(|| StoreError::io_of(&self.path, MISSING)),
            });
        }
        // Who put them there need not have made their names durable.
        let directory = directory_of(&shelf.path()).to_owned();
        self.ground.sync_names(&directory).map_err(|fault| StoreError::io_of(&directory, fault))?;
        let found = || {
            let (db, storage) = kept_back(stored(&*self.ground, &self.path)?, &self.path)?;
            self.check_file(&db)?;
            let attached = attached(&db, &shelf, true)?;
            if attached.old.is_some() {
                return Err(StoreError::Apart { path: shelf.path() });
            }
            Ok(Unwritten { db: Arc::new(db), storage, attached })
        };
        found().map_err(|fault: StoreError| fault.of_file(&self.path))
    }

    /// Writes to both what was kept back. To be called once it is known to be the mirror that was written before.
    pub(super) fn begun(&self, found: Unwritten) -> Result<((Arc<Database>, Reserve), Journal), StoreError> {
        let (Unwritten { db, storage, attached }, shelf) = (found, self.shelf());
        // Nothing in it is encrypted.
        for path in [&self.path, &shelf.path()] {
            match make_private(path) {
                Ok(Some(mode)) => {
                    tracing::warn!(path = %path.display(), "others on this machine could read the mirror (mode {mode:o}): not any more");
                }
                Ok(None) => {}
                // One that is not there yet is made so.
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                Err(fault) => {
                    tracing::warn!(path = %path.display(), "whether others may read the mirror is not known: {fault}")
                }
            }
        }
        let settled = attached.settle(&shelf).and_then(|journal| {
            let journal = journal.ok_or_else(|| StoreError::Apart { path: shelf.path() })?;
            storage.release().map_err(|fault| StoreError::io_of(&self.path, fault))?;
            Ok(journal)
        });
        settled.map(|journal| ((db, storage), journal)).map_err(|fault| fault.of_file(&self.path))
    }

    /// Both at once.
    #[cfg(test)]
    pub(super) fn opened(&self) -> Result<((Arc<Database>, Reserve), Journal), StoreError> {
        self.begun(self.found()?)
    }

    /// The mirror with what its journal has, for looking at, also where neither may be written: neither is changed by a byte. Where the operator has given the journal up
    /// it comes with the words for what that costs.
    pub(super) fn looked_at(&self) -> Result<Looked, StoreError> {
        let looked = || {
            let (db, _kept_back) = reserved(stored_to_look(&self.path)?, &self.path)?;
            self.check_file(&db)?;
            let shelf = self.shelf().to_look();
            let Attached { old: lost, is_torn, .. } = attached(&db, &shelf, false)?;
            if lost.is_some() && !shelf.is_given_up() {
                return Err(StoreError::Apart { path: shelf.path() });
            }
            let torn = is_torn.then(|| format!("{}: {TORN}", shelf.path().display()));
            Ok(Looked { db, lost, torn })
        };
        looked().map_err(|fault: StoreError| fault.of_file(&self.path))
    }

    /// Refuses what is no mirror of this node and network.
    fn check_file(&self, db: &Database) -> Result<(), StoreError> {
        if !is_mirror(db)? {
            let found = "a node's database".to_owned();
            let wanted = "a mirror: start from a database only where it is the newest".to_owned();
            return Err(StoreError::Foreign { path: self.path.clone(), found, wanted });
        }
        check_identity(db, &self.path, &self.network, &self.node_id)
    }

    /// Made under another name and renamed when it is whole, so that a crash leaves no half of one.
    fn create(&self) -> Result<(), StoreError> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let unfinished = self.path.with_file_name(format!("{name}.new"));
        match self.ground.remove(&unfinished) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(fault)),
            Ok(()) | Err(_) => {}
        }
        let file = self.ground.create(&unfinished).map_err(StoreError::io)?;
        let storage = Reserve::of(self.ground.backend(file)?);
        // There is nothing in it that could be spoilt.
        storage.release().map_err(StoreError::io)?;
        let db = Database::builder().create_with_backend(storage.clone())?;
        initialise(&db, &self.network, &self.node_id)?;
        let transaction = db.begin_write()?;
        transaction
            .open_table(Table::Meta.definition())?
            .insert(MIRROR_KEY, seal(Table::Meta, MIRROR_KEY, &[1]).as_slice())?;
        transaction.commit()?;
        drop(db);
        if storage.has_refused() {
            return Err(StoreError::io_of(&unfinished, "the disk refused a write as the file was closed"));
        }
        self.ground.rename(&unfinished, &self.path).map_err(StoreError::io)?;
        self.ground.sync_names(directory_of(&self.path)).map_err(StoreError::io)
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A mirror that is open, with what its journal has: all that makes of it is kept back.
pub(super) struct Unwritten {
    pub(super) db: Arc<Database>,
    /// What redb has open.
    pub(super) storage: Reserve,
    attached: Attached,
}

impl std::fmt::Debug for Unwritten {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unwritten(..)")
    }
}

/// A mirror that is looked at, and what is not as it should be.
pub(super) struct Looked {
    pub(super) db: Database,
    /// Its journal was given up, and what that costs.
    pub(super) lost: Option<String>,
    /// The last record of its journal is not whole.
    pub(super) torn: Option<String>,
}

/// What it means that the last record of a journal is not whole.
const TORN: &str = "its last record is not whole. Where the machine stopped in the midst of that write it had not counted, and nothing \
    is missing; else it was damaged since, and the newest writes of the channels that it had are lost";

/// What is told of a name that is a link to nothing, and of where it leads.
const DEAD_LINK: &str = "it is a link, and there is nothing at";

/// What an operator does about it.
const DEAD_LINK_HELP: &str =
    "put back what was there, or mount its disk; for a new backup name the file itself, or remove the link";

/// What a journal says to an operator whose mirror is not there.
const ALONE: &str = "the mirror that this journal belongs to is not there. Put it back; where it is lost, move the journal away too, \
    and take this backup out of the configuration for one start: the next one makes another";

/// What the journal has goes into the file, which is told from one that is of another time, or another's.
fn attached(db: &Database, shelf: &Beside, may_make: bool) -> Result<Attached, StoreError> {
    if is_orphaned(db, shelf)? {
        return Err(StoreError::Apart { path: shelf.path() });
    }
    attach(db, shelf, false, may_make).map_err(|fault| match fault {
        StoreError::Foreign { path, .. } if path == shelf.path() => StoreError::Apart { path },
        fault => fault,
    })
}

/// Whether the file bears the mark of a mirror.
pub(in crate::store) fn is_mirror(db: &impl ReadableDatabase) -> Result<bool, StoreError> {
    let transaction = db.begin_read()?;
    match transaction.open_table(Table::Meta.definition()) {
        Ok(meta) => Ok(meta.get(MIRROR_KEY)?.is_some()),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// Whether two names lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let name = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    name(one).is_some() && name(one) == name(other)
}
