//! A file that is looked at where it may not be written: on a medium that is mounted to be read alone, or another user's. What redb writes
//! as it opens one is kept from it in any case (`reserve.rs`).

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;

/// Opens a file to look at: as one that is written, so that whoever writes it is met, or where it may not be written to be read alone.
pub(in crate::store) fn opened_to_look(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => {
            let backend = FileBackend::new(file).map_err(|fault| io::Error::other(fault.to_string()))?;
            Ok(Box::new(backend))
        }
        Err(fault) if matches!(fault.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            let file = File::open(path)?;
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => Err(io::Error::from(io::ErrorKind::ResourceBusy)),
                // A disk without locks has no writer of ours either.
                Ok(()) | Err(TryLockError::Error(_)) => Ok(Box::new(Still(file))),
            }
        }
        Err(fault) => Err(fault),
    }
}

/// A file that is read alone. It is locked for as long as it is open.
#[derive(Debug)]
struct Still(File);

impl StorageBackend for Still {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, at)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
