//! What backups in files ask of a file system that changes it. What only reads goes to it past this. A test stands in for the machine here
//! and stops it at each operation.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::{journal, sync_directory};

/// A file system to write to. Nothing is durable before it was synced: a file's bytes by its own sync, its name by that of its directory.
pub trait Ground: Debug + Send + Sync {
    /// A file that is empty, where there was none or another.
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    }

    /// Writes all of it behind what was written to this file.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    /// Makes what was written to the file durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file or a directory another name; a file that has it loses it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Takes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// A directory that is its owner's alone, in one that is there.
    fn make_directory(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(dir)
    }

    /// Makes the names in a directory durable.
    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        sync_directory(dir)
    }

    /// An open file as redb and the journal write to it, locked while it is open.
    fn backend(&self, file: File) -> Result<Box<dyn StorageBackend>, redb::DatabaseError> {
        Ok(Box::new(FileBackend::new(file)?))
    }

    /// Bytes of each half of a journal that is made here.
    fn half_len(&self) -> usize {
        journal::HALF_LEN
    }
}

/// The file system of the machine.
#[derive(Debug)]
pub struct System;

impl Ground for System {}

/// The file system of the machine, as those hold it that may be given another.
pub fn system() -> Arc<dyn Ground> {
    Arc::new(System)
}
