//! A file that is not written to before all of it that a start reads was found to be sound: what redb writes as it opens and
//! repairs is kept back until then. A file that is refused stays as it was, byte by byte, whatever a crash left of it.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{BackendError, StorageBackend};

use crate::lock::Mutex;

/// The file; clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct Reserve(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: Box<dyn StorageBackend>,
    is_released: AtomicBool,
    is_let_go: AtomicBool,
    has_refused: AtomicBool,
    kept: Mutex<Vec<Change>>,
}

/// What is kept back, in the order in which it came.
#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
    Sync,
}

impl Reserve {
    pub(super) fn of(file: Box<dyn StorageBackend>) -> Self {
        Self(Arc::new(Shared {
            file,
            is_released: AtomicBool::new(false),
            is_let_go: AtomicBool::new(false),
            has_refused: AtomicBool::new(false),
            kept: Mutex::default(),
        }))
    }

    /// The file is sound: what was kept back is written, in its order, and from here on nothing is kept back. Where the disk
    /// refuses some of it the file is as after a crash at that moment, and redb, which is about to close it, sees no
    /// difference: it reads what it wrote, and what it writes reaches the file no more.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut kept = self.0.kept.lock();
        for change in kept.iter() {
            match change {
                Change::Write(at, bytes) => self.file()?.write(*at, bytes)?,
                Change::Length(len) => self.file()?.set_len(*len)?,
                Change::Sync => self.file()?.sync_data()?,
            }
        }
        *kept = Vec::new();
        self.0.is_released.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the file from whoever has it open and cannot close it any more, such as a thread that never goes on: its lock is free, and
    /// through this nothing is read or written from now on.
    pub(super) fn let_go(&self) -> io::Result<()> {
        self.0.is_let_go.store(true, Ordering::Release);
        self.0.file.close()
    }

    /// Whether the file has refused any change since it was released: what redb meets as it closes a database it keeps to itself.
    pub(super) fn has_refused(&self) -> bool {
        self.0.has_refused.load(Ordering::Acquire)
    }

    /// What came of a change that was not kept back.
    fn noted(&self, changed: io::Result<()>) -> io::Result<()> {
        if changed.is_err() {
            self.0.has_refused.store(true, Ordering::Release);
        }
        changed
    }

    /// The file, where it was not let go.
    fn file(&self) -> io::Result<&dyn StorageBackend> {
        if self.0.is_let_go.load(Ordering::Acquire) {
            return Err(io::Error::other("it was closed after a fault"));
        }
        Ok(&*self.0.file)
    }

    fn is_released(&self) -> bool {
        self.0.is_released.load(Ordering::Acquire)
    }

    /// Keeps a change back. False where nothing is kept back any more.
    fn keep(&self, change: impl FnOnce() -> Change) -> bool {
        if self.is_released() {
            return false;
        }
        let mut kept = self.0.kept.lock();
        // Whoever waited for the release goes on after it.
        let is_kept = !self.is_released();
        if is_kept {
            kept.push(change());
        }
        is_kept
    }
}

/// The part of `out`, which is read at `at`, that `len` bytes at `from` cover: from where to where in it.
fn overlap(at: u64, out: &[u8], from: u64, len: usize) -> (usize, usize) {
    let place =
        |offset: u64| usize::try_from(offset.saturating_sub(at)).map_or(out.len(), |place| place.min(out.len()));
    (place(from), place(from.saturating_add(len as u64)))
}

impl StorageBackend for Reserve {
    fn len(&self) -> io::Result<u64> {
        let kept = self.0.kept.lock();
        let newest = kept.iter().rev().find_map(|change| match change {
            Change::Length(len) => Some(*len),
            Change::Write(..) | Change::Sync => None,
        });
        newest.map_or_else(|| self.file()?.len(), Ok)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_released() {
            return self.file()?.read(at, out);
        }
        if at.saturating_add(out.len() as u64) > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(0);
        let (_, there) = overlap(at, out, 0, usize::try_from(self.file()?.len()?).unwrap_or(usize::MAX));
        if let Some(there) = out.get_mut(..there).filter(|there| !there.is_empty()) {
            self.file()?.read(at, there)?;
        }
        for change in self.0.kept.lock().iter() {
            match change {
                Change::Write(from, bytes) => {
                    let (begin, end) = overlap(at, out, *from, bytes.len());
                    let skipped = usize::try_from(at.saturating_sub(*from)).unwrap_or(usize::MAX);
                    let bytes = bytes.get(skipped.min(bytes.len())..).unwrap_or_default();
                    out.get_mut(begin..end)
                        .unwrap_or_default()
                        .iter_mut()
                        .zip(bytes)
                        .for_each(|(to, byte)| *to = *byte);
                }
                Change::Length(len) => {
                    let (begin, end) = overlap(at, out, *len, usize::MAX);
                    out.get_mut(begin..end).unwrap_or_default().fill(0);
                }
                Change::Sync => {}
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.keep(|| Change::Length(len)) { Ok(()) } else { self.noted(self.file()?.set_len(len)) }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.keep(|| Change::Sync) { Ok(()) } else { self.noted(self.file()?.sync_data()) }
    }

    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        if self.keep(|| Change::Write(at, data.to_vec())) { Ok(()) } else { self.noted(self.file()?.write(at, data)) }
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    /// A file on a disk that refuses each write but the first ones.
    #[derive(Clone, Debug)]
    struct Refusing(Arc<(InMemoryBackend, Mutex<usize>)>);

    impl StorageBackend for Refusing {
        fn len(&self) -> io::Result<u64> {
            self.0.0.len()
        }

        fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.0.read(at, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.0.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.0.sync_data()
        }

        fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
            let mut left = self.0.1.lock();
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            self.0.0.write(at, data)
        }
    }

    fn read(file: &dyn StorageBackend, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        file.read(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn dsk_1_what_the_disk_refuses_of_what_was_kept_back_is_read_all_the_same_and_nothing_follows_it() {
        let file = Refusing(Arc::new((InMemoryBackend::new(), Mutex::new(1))));
        file.set_len(4).unwrap();
        let reserve = Reserve::of(Box::new(file.clone()));
        reserve.write(0, b"ab").unwrap();
        reserve.set_len(6).unwrap();
        reserve.write(1, b"cdef").unwrap();
        assert_eq!((read(&file, 0, 4), read(&reserve, 0, 6)), (vec![0; 4], b"acdef\0".to_vec()));
        assert_eq!(reserve.release().unwrap_err().kind(), io::ErrorKind::StorageFull);
        // What came before it stands, as after a crash there.
        assert_eq!((file.len().unwrap(), read(&file, 0, 6)), (6, b"ab\0\0\0\0".to_vec()));
        *file.0.1.lock() = usize::MAX;
        reserve.write(5, b"g").unwrap();
        reserve.sync_data().unwrap();
        assert_eq!(read(&reserve, 0, 6), b"acdefg");
        assert_eq!(read(&file, 0, 6), b"ab\0\0\0\0", "nothing follows what was refused");
        // Asked once more it is written whole.
        reserve.release().unwrap();
        assert_eq!((read(&file, 0, 6), read(&reserve, 0, 6)), (b"acdefg".to_vec(), b"acdefg".to_vec()));
        reserve.write(0, b"z").unwrap();
        assert_eq!(read(&file, 0, 1), b"z");
    }
}
