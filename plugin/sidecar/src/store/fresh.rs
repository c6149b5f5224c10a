//! A database that is made: it is whole under another name before it gets its own. A crash at any moment leaves none, or one that has
//! all of it; what it leaves under the other name is replaced by the next one that is made.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use outrigger_bolt::id::NodeId;
use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::reserve::Reserve;
use super::{CACHE_BYTES, FILE, StoreError, initialise, sync_directory};

/// Where a database is made: a directory, or what a test has in its place.
pub trait Site: Debug {
    /// An empty file under another name than the database has; one that a crash left there is gone.
    fn fresh(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Gives that file the name of the database, which no file has.
    fn rename(&self) -> io::Result<()>;

    /// Makes the name durable.
    fn sync_name(&self) -> io::Result<()>;

    /// Takes the name from it again.
    fn take_back(&self) -> io::Result<()>;

    /// The directory in words to an operator.
    fn path(&self) -> PathBuf;
}

/// A directory of the file system.
#[derive(Debug)]
pub(super) struct Directory<'a>(pub(super) &'a Path);

impl Directory<'_> {
    fn unfinished(&self) -> PathBuf {
        self.0.join(unfinished())
    }
}

fn unfinished() -> String {
    format!("{FILE}.new")
}

impl Site for Directory<'_> {
    fn fresh(&self) -> io::Result<Box<dyn StorageBackend>> {
        match fs::remove_file(self.unfinished()) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
            Ok(()) | Err(_) => {}
        }
        let file = File::options().read(true).write(true).create_new(true).open(self.unfinished())?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn rename(&self) -> io::Result<()> {
        fs::rename(self.unfinished(), self.0.join(FILE))
    }

    fn sync_name(&self) -> io::Result<()> {
        sync_directory(self.0)
    }

    fn take_back(&self) -> io::Result<()> {
        fs::rename(self.0.join(FILE), self.unfinished())
    }

    fn path(&self) -> PathBuf {
        self.0.to_owned()
    }
}

/// Makes a database of this node, with what `fill` writes into it before it has its name. Where that is refused there is none, but
/// that a disk which is gone may have all of it.
pub(super) fn create(
    site: &dyn Site,
    network: &str,
    node_id: &NodeId,
    fill: impl FnOnce(&Database) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let refused = |fault: io::Error| StoreError::io_of(&site.path().join(unfinished()), fault);
    let storage = Reserve::of(site.fresh().map_err(refused)?);
    // There is nothing in it that could be spoilt.
    storage.release().map_err(refused)?;
    let db = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(storage.clone())?;
    initialise(&db, network, node_id)?;
    fill(&db)?;
    drop(db);
    if storage.has_refused() {
        return Err(refused(io::Error::other("the disk refused a write as the file was closed")));
    }
    site.rename().map_err(refused)?;
    site.sync_name().map_err(|fault| {
        // Whoever is told that nothing was made finds nothing.
        let _is_taken_back = site.take_back();
        StoreError::io_of(&site.path(), fault)
    })
}
