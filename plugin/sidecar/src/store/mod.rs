//! The store: one redb file and its journal, one writer, one commit per group of steps. The format is told in `FORMAT.md`.

pub mod backup;
pub mod batch;
pub mod channel_update;
pub mod closed;
mod commit;
pub mod forward;
pub mod fresh;
pub mod generation;
pub mod ground;
pub mod journal;
pub mod load;
pub mod part;
pub mod queued;
pub mod read;
mod record;
pub mod remembered;
pub mod replay;
mod reserve;
pub mod restore;
mod retention;
pub mod room;
pub mod row;
pub mod schema;
pub mod seal;
mod still;
pub mod terms;
pub mod token;
pub mod troubles;
pub mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_bolt::id::NodeId;
use redb::{Database, ReadableDatabase, StorageBackend};

pub use batch::{Address, Batch, ChainOrder, FundingRequest, Held, Released, Step};
pub use generation::{Age, Generation};
pub use journal::{Beside, Journal, Shelf};
pub use load::Snapshot;
pub use queued::Queued;
pub use read::Reader;
pub use retention::EventLimits;
pub use writer::{Commits, Gathered, Writer, WriterStats};

use backup::mirror::is_mirror;
use ground::{Ground, System};
use reserve::Reserve;
use schema::{FORMAT_VERSION, Table};
use seal::{seal, unseal};

/// What is wrong with the store. The process stops on any of these; nothing has left that was not durable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file and what was met, where it is known which file.
    #[error(
        "the disk or file refused: {0}. Look whether the disk is there, has room and may be written to, and what the \
         system's log says of it; nothing was sent, so restarting is safe once the disk is well"
    )]
    Io(String),
    #[error(
        "{path}: {reason}; do not delete it, it holds your channels, and start from no older copy, which would lose them: ask \
         for help"
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error("{path} was written by a newer version (format {found}, this program knows {known}); nothing was changed")]
    Newer { path: PathBuf, found: u16, known: u16 },
    #[error(
        "{path} is not as it was written: it tells whether {database} is the newest of its kind. Make sure that this is no old \
         copy, then remove {path} and start again; nothing was changed"
    )]
    Companion { path: PathBuf, database: PathBuf },
    #[error(
        "{path} is missing, and {companion} says that this node has one, at generation {generation}. Put it back, or the disk \
         or link that leads to it; to begin anew, without channels, remove {companion}. Nothing was changed"
    )]
    Missing { path: PathBuf, companion: PathBuf, generation: u64 },
    #[error(
        "{path} is missing, and {journal} has what was committed to it. Put it back, or the disk or link that leads to it; to \
         begin anew, without channels, remove {journal}. Nothing was changed"
    )]
    OnlyJournal { path: PathBuf, journal: PathBuf },
    #[error(
        "{path} is missing, and the newest commits may stand nowhere else: put it back. If it is lost for good, make an empty file \
         {path}.lost: the node then starts in restored mode, signs nothing more, and its peers are asked to close. Nothing was \
         changed"
    )]
    NoJournal { path: PathBuf },
    #[error(
        "{path} does not begin where outrigger.redb beside it says: one of the two is a copy of another time, or {path} is damaged. Put \
         back the two that were there together last, and never older ones: what peers were told since would cost money. Nothing was \
         changed"
    )]
    Apart { path: PathBuf },
    #[error("{0} is a link to a file that is missing: put that back, or its disk. Nothing was changed")]
    DeadLink(PathBuf),
    /// redb locks each open file: a second one of the same process finds it locked too.
    #[error(
        "{0} is open already, and one program opens it at a time: end the other one. Nothing is known to be wrong with it"
    )]
    InUse(PathBuf),
    #[error("{path} belongs to {found}, this start is for {wanted}; nothing was changed")]
    Foreign { path: PathBuf, found: String, wanted: String },
}

impl StoreError {
    fn io(fault: impl std::fmt::Display) -> Self {
        Self::Io(fault.to_string())
    }

    /// The same of this file.
    fn io_of(path: &Path, fault: impl std::fmt::Display) -> Self {
        Self::io(format_args!("{}: {fault}", path.display()))
    }

    /// Names the directory of a file of which only the name is told.
    fn within(self, dir: &Path) -> Self {
        self.renamed(|name| dir.join(name))
    }

    /// Names a file of another name than the database, where redb met something in it.
    fn of_file(self, path: &Path) -> Self {
        self.renamed(|name| if name == Path::new(FILE) { path.to_owned() } else { name })
    }

    fn renamed(self, rename: impl FnOnce(PathBuf) -> PathBuf) -> Self {
        match self {
            Self::Io(told) => match told.strip_prefix(FILE) {
                Some(what) => Self::Io(format!("{}{what}", rename(FILE.into()).display())),
                None => Self::Io(told),
            },
            Self::Corrupt { path, reason } => Self::Corrupt { path: rename(path), reason },
            Self::InUse(path) => Self::InUse(rename(path)),
            other @ (Self::Newer { .. }
            | Self::Companion { .. }
            | Self::Missing { .. }
            | Self::OnlyJournal { .. }
            | Self::NoJournal { .. }
            | Self::Apart { .. }
            | Self::DeadLink(_)
            | Self::Foreign { .. }) => other,
        }
    }

    /// What redb met: pages that lead past the end of the file, or name no table of ours, are damage. To start again would
    /// not help.
    fn of(fault: &redb::Error) -> Self {
        if matches!(fault, redb::Error::DatabaseAlreadyOpen) {
            return Self::InUse(FILE.into());
        }
        let is_damage = match fault {
            redb::Error::Io(fault) => fault.kind() == io::ErrorKind::UnexpectedEof,
            redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_) => true,
            // redb may know more kinds one day; none of the others is about what stands in the file.
            _ => false,
        };
        if is_damage {
            Self::Corrupt { path: FILE.into(), reason: fault.to_string() }
        } else {
            Self::io_of(Path::new(FILE), fault)
        }
    }
}

macro_rules! redb_faults {
    ($($fault:ty),*) => {$(
        impl From<$fault> for StoreError {
            fn from(fault: $fault) -> Self { Self::of(&fault.into()) }
        }
    )*};
}
redb_faults!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError,
    redb::DatabaseError
);

/// The name of the main file.
pub const FILE: &str = "outrigger.redb";

/// What redb keeps of the file in memory, at most; left alone it takes a gibibyte, page by page, as payments are made (law 6).
/// What is not there is read from the system's own cache.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Opens the main file in `dir`, or creates it on the first start, and checks that it is this node's. What its journal has
/// goes into it; none is made, and commits are the file's own.
pub fn open(dir: &Path, network: &str, node_id: &NodeId) -> Result<Arc<Database>, StoreError> {
    let file = database(dir, network, node_id)?;
    let opened = open_after(file, (&dir.join(FILE), network, node_id), (&Beside::node(dir), false), |_| Ok(()));
    Ok(opened.map_err(|fault| fault.within(dir))?.db)
}

/// The same, with all that a start reads, and with a journal for the writer. A file that is refused, whatever the reason, is
/// as it was: what redb writes as it opens it reaches the file only after everything was read.
pub fn open_and_load(dir: &Path, network: &str, node_id: &NodeId) -> Result<(Arc<Database>, Snapshot), StoreError> {
    let file = database(dir, network, node_id)?;
    let opened = open_after(file, (&dir.join(FILE), network, node_id), (&Beside::node(dir), true), load::load);
    Ok(opened.map_err(|fault| fault.within(dir))?.loaded())
}

/// The same on storage other than a directory: what is empty becomes a new database.
pub fn open_and_load_on(
    storage: Box<dyn StorageBackend>,
    (shelf, place): (&dyn Shelf, &dyn generation::Place),
    (network, node_id): (&str, &NodeId),
) -> Result<(Arc<Database>, Snapshot), StoreError> {
    let seen = generation::check_in(place, network, node_id)?.unwrap_or_default();
    Ok(open_after((storage, seen), (Path::new(FILE), network, node_id), (shelf, true), load::load)?.loaded())
}

/// The database as a start would find it, for looking at: neither it nor its journal is changed by a byte, and no journal is made.
pub fn open_to_look(dir: &Path, network: &str, node_id: &NodeId) -> Result<Database, StoreError> {
    let path = dir.join(FILE);
    let file = stored(&System, &path)?;
    let looked = || {
        let db = Database::builder().create_with_backend(Reserve::of(file))?;
        check_identity(&db, &path, network, node_id)?;
        refuse_mirror(&db, &path)?;
        // What the journal has goes into what is kept back; what would be done to the journal is not.
        drop(journal::start::attach(&db, &Beside::node(dir), false, false)?);
        load::load(&db)?;
        Ok(db)
    };
    looked().map_err(|fault: StoreError| fault.within(dir))
}

/// The file of a database, and the generation that was seen beside it.
type Found = (Box<dyn StorageBackend>, u64);

/// The file of the database in a directory, which is made on the first start.
fn database(dir: &Path, network: &str, node_id: &NodeId) -> Result<Found, StoreError> {
    let seen = generation::check(dir, network, node_id).map_err(|fault| match fault {
        StoreError::Io(fault) => StoreError::io_of(&dir.join(generation::FILE), fault),
        fault => fault,
    })?;
    database_seen(dir, (network, node_id), seen).map_err(|fault| fault.within(dir))
}

/// `seen` is the newest generation of the file, where one was seen.
fn database_seen(dir: &Path, (network, node_id): (&str, &NodeId), seen: Option<u64>) -> Result<Found, StoreError> {
    let path = dir.join(FILE);
    let refused = |fault: io::Error| StoreError::io_of(&path, fault);
    if !path.try_exists().map_err(refused)? {
        // Nor is one made in the place of one that another disk holds.
        if path.is_symlink() {
            return Err(StoreError::DeadLink(path));
        }
        if let Some(generation) = seen {
            return Err(StoreError::Missing { path, companion: dir.join(generation::FILE), generation });
        }
        let journal = dir.join(journal::FILE);
        if std::fs::symlink_metadata(&journal).is_ok() {
            return Err(StoreError::OnlyJournal { path, journal });
        }
        fresh::create(&fresh::Directory(dir), network, node_id, |_| Ok(()))?;
    }
    let file = stored(&System, &path)?;
    // A process that died may have left names that are on no disk yet, of this file or of its journal.
    sync_directory(dir).map_err(|fault| StoreError::io_of(dir, fault))?;
    Ok((file, seen.unwrap_or_default()))
}

/// A file that is there. redb would turn an empty one into a new database: an existing one is only ever opened (bad input 91).
fn stored(ground: &dyn Ground, path: &Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    let refused = |fault: io::Error| StoreError::io_of(path, fault);
    let file = File::options().read(true).write(true).open(path).map_err(refused)?;
    if file.metadata().map_err(refused)?.len() == 0 {
        return Err(StoreError::Corrupt { path: path.to_owned(), reason: "it is empty".to_owned() });
    }
    Ok(ground.backend(file)?)
}

/// The same to look at, also where it may not be written.
fn stored_to_look(path: &Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    let refused = |fault: io::Error| match fault.kind() {
        io::ErrorKind::ResourceBusy => StoreError::InUse(path.to_owned()),
        _ => StoreError::io_of(path, fault),
    };
    let file = still::opened_to_look(path).map_err(refused)?;
    match file.len().map_err(|fault| StoreError::io_of(path, fault))? {
        0 => Err(StoreError::Corrupt { path: path.to_owned(), reason: "it is empty".to_owned() }),
        _ => Ok(file),
    }
}

/// Opens a file that is there. One that `read` refuses stays as it was, by the byte: what is written before `read` has found it sound is
/// kept back until then. What redb opens comes with it. Then redb's root was written again and synced: what is seen is durable, also where
/// a sync had failed before and only the system's cache had the newest root.
fn open_reserved<R>(
    file: Box<dyn StorageBackend>,
    path: &Path,
    read: impl FnOnce(&Database) -> Result<R, StoreError>,
) -> Result<((Database, Reserve), R), StoreError> {
    let (db, storage) = kept_back(file, path)?;
    let found = read(&db)?;
    storage.release().map_err(|fault| StoreError::io_of(path, fault))?;
    Ok(((db, storage), found))
}

/// The same before anything is released.
fn kept_back(file: Box<dyn StorageBackend>, path: &Path) -> Result<(Database, Reserve), StoreError> {
    // What is decided by this file, about others too, is not to be taken back by a crash of the machine: a process that died
    // may have left in the system's cache what is on no disk yet.
    file.sync_data().map_err(|fault| StoreError::io_of(path, fault))?;
    reserved(file, path)
}

/// Opens a file; all that is written to it is kept back until it is released.
fn reserved(file: Box<dyn StorageBackend>, path: &Path) -> Result<(Database, Reserve), StoreError> {
    let storage = Reserve::of(file);
    let opened = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(storage.clone());
    let db = opened.map_err(|fault| match fault {
        redb::DatabaseError::Storage(redb::StorageError::Io(fault)) if is_of_the_disk(&fault) => {
            StoreError::io_of(path, fault)
        }
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        fault => StoreError::Corrupt { path: path.to_owned(), reason: fault.to_string() },
    })?;
    Ok((db, storage))
}

/// What a start finds.
struct Opened<R> {
    db: Arc<Database>,
    read: R,
    journal: Option<Journal>,
    /// The proof that the database is an old copy.
    old: Option<String>,
}

impl Opened<Snapshot> {
    /// All that a start needs, the journal and the proof with it.
    fn loaded(self) -> (Arc<Database>, Snapshot) {
        let Self { db, read: mut found, journal, old } = self;
        found.journal = journal;
        found.aged(old.map(Age::Old));
        (db, found)
    }
}

fn open_after<R>(
    (file, seen): Found,
    (path, network, node_id): (&Path, &str, &NodeId),
    (shelf, may_make_journal): (&dyn Shelf, bool),
    read: impl FnOnce(&Database) -> Result<R, StoreError>,
) -> Result<Opened<R>, StoreError> {
    let is_new = file.len().map_err(StoreError::io)? == 0;
    let ((db, _), (read, journal, old)) = open_reserved(file, path, |db| {
        if is_new {
            initialise(db, network, node_id)?;
        }
        check_identity(db, path, network, node_id)?;
        refuse_mirror(db, path)?;
        // The journal may belong to the newest database: one that is known to be old leaves it as it is.
        let is_old = generation::in_database(db)? < seen;
        let mut attached = journal::start::attach(db, shelf, is_old, may_make_journal)?;
        let (read, old) = (read(db)?, attached.old.take());
        // The journal knows of its next epoch before the database does.
        Ok((read, attached.settle(shelf)?, old))
    })?;
    Ok(Opened { db: Arc::new(db), read, journal, old })
}

fn refuse_mirror(db: &Database, path: &Path) -> Result<(), StoreError> {
    if !is_mirror(db)? {
        return Ok(());
    }
    let (found, wanted) = ("a mirror".to_owned(), "a node's database: a node is restored from a mirror".to_owned());
    Err(StoreError::Foreign { path: path.to_owned(), found, wanted })
}

/// Whether the disk did not read what is there; the others say that what is there is no database, or ends too early.
fn is_of_the_disk(fault: &std::io::Error) -> bool {
    !matches!(fault.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

/// The same as [`open`], on storage other than a file, and with a journal: what is empty becomes a new database.
pub fn open_on(
    storage: Box<dyn StorageBackend>,
    shelf: &dyn Shelf,
    network: &str,
    node_id: &NodeId,
) -> Result<(Arc<Database>, Option<Journal>), StoreError> {
    let opened = open_after((storage, 0), (Path::new(FILE), network, node_id), (shelf, true), |_| Ok(()))?;
    match opened.old {
        Some(reason) => Err(StoreError::Corrupt { path: FILE.into(), reason }),
        None => Ok((opened.db, opened.journal)),
    }
}

fn initialise(db: &Database, network: &str, node_id: &NodeId) -> Result<(), StoreError> {
    let transaction = db.begin_write()?;
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    {
        let mut meta = transaction.open_table(Table::Meta.definition())?;
        let facts: [(&[u8], &[u8]); 3] = [
            (b"format", &FORMAT_VERSION.to_be_bytes()),
            (b"network", network.as_bytes()),
            (b"node_id", &node_id.serialize()),
        ];
        for (name, fact) in facts {
            meta.insert(name, seal(Table::Meta, name, fact).as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn check_identity(db: &impl ReadableDatabase, path: &Path, network: &str, node_id: &NodeId) -> Result<(), StoreError> {
    let corrupt = |reason: &str| StoreError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
    let meta = db
        .begin_read()?
        .open_table(Table::Meta.definition())
        .map_err(|_| corrupt("it has no table of facts about itself"))?;
    let field = |name: &str| -> Result<Vec<u8>, StoreError> {
        let value = meta.get(name.as_bytes())?.ok_or_else(|| corrupt("a fact about itself is missing"))?;
        let fact = unseal(Table::Meta, name.as_bytes(), value.value()).map_err(|fault| corrupt(&fault.to_string()))?;
        Ok(fact.to_vec())
    };
    let format = field("format")?.try_into().map(u16::from_be_bytes).map_err(|_| corrupt("its format is no number"))?;
    if format > FORMAT_VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found: format, known: FORMAT_VERSION });
    }
    if format < FORMAT_VERSION {
        return Err(corrupt(
            "it was written by a build before the first release: start that build, close its channels, then begin anew",
        ));
    }
    let foreign = |found: String, wanted: String| Err(StoreError::Foreign { path: path.to_owned(), found, wanted });
    let found = String::from_utf8_lossy(&field("network")?).into_owned();
    if found != network {
        return foreign(format!("network {found}"), format!("network {network}"));
    }
    let found = NodeId::from_slice(&field("node_id")?).map_err(|_| corrupt("its node id is no key"))?;
    if found != *node_id {
        return foreign(format!("node {found}"), format!("node {node_id}"));
    }
    Ok(())
}

/// The number of the newest event in the file; 0 where there is none.
pub fn last_event(db: &Arc<Database>) -> Result<u64, StoreError> {
    Ok(commit::next_number(db, Table::Event)?.saturating_sub(1))
}

/// Makes a new file's name durable.
fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all())
}
