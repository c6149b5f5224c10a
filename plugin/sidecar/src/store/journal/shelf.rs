//! Where a start finds the journal of its database, or makes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::super::sync_directory;
use super::{FILE, HALF_LEN};

/// A place for one journal.
pub trait Shelf {
    /// The journal that stands there.
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Makes one in the place of what stands there, with what `lay` writes. Its name is durable when this returns.
    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)>;

    /// What it is called in words to an operator.
    fn path(&self) -> PathBuf;

    /// Whether the operator has said that it is lost for good.
    fn is_given_up(&self) -> bool;
}

/// The place beside the database in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a>(pub &'a Path);

impl Beside<'_> {
    /// The file by which an operator says that the journal is lost for good.
    pub fn given_up(&self) -> PathBuf {
        self.0.join(format!("{FILE}.lost"))
    }
}

impl Shelf for Beside<'_> {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match File::options().read(true).write(true).open(self.path()) {
            Ok(file) => Ok(Some(backend(file)?)),
            // Nor is one made in the place of one that another disk holds.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound && self.path().is_symlink() => {
                Err(io::Error::other("a link to a file that is missing: put that back, or its disk"))
            }
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)> {
        let unfinished = self.0.join(format!("{FILE}.new"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        let file = backend(file)?;
        lay(&*file, HALF_LEN)?;
        fs::rename(&unfinished, self.path())?;
        sync_directory(self.0)?;
        Ok((file, HALF_LEN))
    }

    fn path(&self) -> PathBuf {
        self.0.join(FILE)
    }

    fn is_given_up(&self) -> bool {
        self.given_up().exists()
    }
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    Ok(Box::new(FileBackend::new(file).map_err(|fault| io::Error::other(fault.to_string()))?))
}
