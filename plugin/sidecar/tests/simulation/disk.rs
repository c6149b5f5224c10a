//! A disk with two files, database and journal, that keeps what was synced. A crash leaves that, and of what was written since,
//! any part (both must do with it). It can be told to fail at one operation on either, or from there on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_sidecar::store::{Shelf, journal};
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

/// Bytes of each half of a journal: few, so that epochs change often.
const HALF_LEN: usize = 128 * 1024;

/// The files by number.
const DATABASE: usize = 0;
const JOURNAL: usize = 1;

/// What is asked of the disk that may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Write,
    Sync,
    /// A new length, greater than the one before.
    Grow,
    Shrink,
}

/// How the disk fails from an operation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// The machine stops in the midst of it.
    Power,
    /// It is refused, and no other.
    Once,
    /// It is refused, and every later one.
    ForEver,
    /// The file grows no more.
    Full,
}

/// What a crash leaves of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Kept,
    Dropped,
    /// Each aligned piece of so many bytes, or not.
    Torn(usize),
    /// Each write as a whole, or not.
    Reordered,
}

impl Damage {
    pub const ALL: [Self; 5] = [Self::Kept, Self::Dropped, Self::Torn(512), Self::Torn(4096), Self::Reordered];
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct Content {
    /// What reads see.
    seen: Vec<u8>,
    /// What a crash leaves for certain.
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct Platter {
    files: [Content; 2],
    /// What has happened to which file since it was synced.
    since: Vec<(usize, Change)>,
    /// All that was asked for.
    asked: Vec<Operation>,
    /// From which operation on it fails.
    fails: Option<(u64, Failing)>,
    has_failed: bool,
    /// The machine is gone: nothing that is written reaches anything.
    dead: bool,
}

/// One node's disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

/// One of its files.
#[derive(Clone, Debug)]
struct OnDisk(Disk, usize);

impl Disk {
    /// A disk that has this database and no journal.
    pub fn of(database: Vec<u8>) -> Self {
        Self::with([database, Vec::new()])
    }

    fn with(files: [Vec<u8>; 2]) -> Self {
        let files = files.map(|bytes| Content { seen: bytes.clone(), durable: bytes });
        Self(Arc::new(Mutex::new(Platter { files, ..Platter::default() })))
    }

    /// The database as reads see it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().files[DATABASE].seen.clone()
    }

    /// The file of the database.
    pub fn database(&self) -> Box<dyn StorageBackend> {
        Box::new(OnDisk(self.clone(), DATABASE))
    }

    /// The disk as the next start finds it. What is still open over the old one writes into nothing from here on.
    pub fn crash(&self, damage: Damage, rng: &mut ChaCha8Rng) -> Self {
        let mut platter = self.0.lock();
        platter.dead = true;
        let mut left = [DATABASE, JOURNAL].map(|file| std::mem::take(&mut platter.files[file].durable));
        for (file, change) in std::mem::take(&mut platter.since) {
            let left = &mut left[file];
            match damage {
                Damage::Dropped => {}
                Damage::Kept => apply(left, &change),
                Damage::Reordered => {
                    if rng.random_bool(0.5) {
                        apply(left, &change);
                    }
                }
                Damage::Torn(piece) => change.pieces(piece).iter().filter(|_| rng.random_bool(0.5)).for_each(|piece| {
                    apply(left, piece);
                }),
            }
        }
        Self::with(left)
    }

    /// It fails so from the operation on that comes after so many.
    pub fn fail_after(&self, operations: u64, failing: Failing) {
        let mut platter = self.0.lock();
        let number = platter.asked.len() as u64 + operations;
        platter.fails = Some((number, failing));
    }

    /// Whether it has failed as it was told to.
    pub fn has_failed(&self) -> bool {
        self.0.lock().has_failed
    }

    /// What was asked of it since it was put in.
    pub fn asked(&self) -> Vec<Operation> {
        self.0.lock().asked.clone()
    }
}

/// The change as a crash may leave it; what lies beyond the end makes the file longer.
fn apply(left: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            if left.len() < at + bytes.len() {
                left.resize(at + bytes.len(), 0);
            }
            left[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Length(len) => left.resize(*len, 0),
    }
}

impl Change {
    /// What of it reaches the disk at once.
    fn pieces(self, piece: usize) -> Vec<Self> {
        let Self::Write(mut at, bytes) = self else { return vec![self] };
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (first, later) = rest.split_at(rest.len().min(piece - at % piece));
            pieces.push(Self::Write(at, first.to_vec()));
            (at, rest) = (at + first.len(), later);
        }
        pieces
    }
}

impl Platter {
    /// Whether the operation is done; what is not is in the midst of it where the machine stops.
    fn admit(&mut self, operation: Operation, change: Option<(usize, Change)>) -> io::Result<()> {
        let number = self.asked.len() as u64;
        self.asked.push(operation);
        let fault = self.fails.and_then(|(from, failing)| match failing {
            Failing::Power if number >= from => Some(io::Error::other("the power is gone")),
            Failing::Once if number == from => Some(io::Error::from_raw_os_error(5)),
            Failing::ForEver if number >= from => Some(io::Error::from_raw_os_error(5)),
            Failing::Full if number >= from && operation == Operation::Grow => Some(io::ErrorKind::StorageFull.into()),
            Failing::Power | Failing::Once | Failing::ForEver | Failing::Full => None,
        });
        let is_under_way = self.fails.is_some_and(|(from, failing)| failing == Failing::Power && number == from);
        if fault.is_none() || is_under_way {
            self.since.extend(change);
        }
        self.has_failed |= fault.is_some();
        fault.map_or(Ok(()), Err)
    }

    /// A disk that has failed for good is not read either.
    fn readable(&self) -> io::Result<()> {
        let is_gone = matches!(self.fails, Some((_, Failing::Power | Failing::ForEver)));
        if self.has_failed && is_gone && !self.dead { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.0.0.lock();
        platter.readable()?;
        Ok(platter.files[self.1].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let platter = self.0.0.lock();
        platter.readable()?;
        let found = platter.files[self.1].seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.0.lock();
        if !platter.dead {
            let grows = len as usize > platter.files[self.1].seen.len();
            let operation = if grows { Operation::Grow } else { Operation::Shrink };
            platter.admit(operation, Some((self.1, Change::Length(len as usize))))?;
        }
        platter.files[self.1].seen.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.0.lock();
        if platter.dead {
            return Ok(());
        }
        platter.admit(Operation::Sync, None)?;
        let since = std::mem::take(&mut platter.since).into_iter();
        let (synced, left): (Vec<_>, Vec<_>) = since.partition(|(file, _)| *file == self.1);
        platter.since = left;
        synced.iter().for_each(|(file, change)| apply(&mut platter.files[*file].durable, change));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        let mut platter = self.0.0.lock();
        if !platter.dead {
            platter.admit(Operation::Write, Some((self.1, Change::Write(at, data.to_vec()))))?;
        }
        let (end, seen) = (at + data.len(), &mut platter.files[self.1].seen);
        if seen.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        seen[at..end].copy_from_slice(data);
        Ok(())
    }
}

/// The name of a file that was made is durable with its content, by a rename that is not played here.
impl Shelf for Disk {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let file: Box<dyn StorageBackend> = Box::new(OnDisk(self.clone(), JOURNAL));
        Ok(if file.len()? == 0 { None } else { Some(file) })
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)> {
        let file: Box<dyn StorageBackend> = Box::new(OnDisk(self.clone(), JOURNAL));
        lay(&*file, HALF_LEN)?;
        Ok((file, HALF_LEN))
    }

    fn path(&self) -> PathBuf {
        journal::FILE.into()
    }

    fn is_given_up(&self) -> bool {
        false
    }
}
