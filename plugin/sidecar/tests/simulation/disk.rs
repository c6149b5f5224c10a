//! A disk that keeps what was synced. A crash leaves that, and of what was written since, any part (redb must do with it).
//! It can be told to fail at one operation or from there on.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

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
struct Platter {
    /// What reads see.
    seen: Vec<u8>,
    /// What a crash leaves for certain.
    durable: Vec<u8>,
    /// What has happened since the last sync.
    since: Vec<Change>,
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

impl Disk {
    /// A disk that has these bytes.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platter { seen: bytes.clone(), durable: bytes, ..Platter::default() })))
    }

    /// What reads see.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().seen.clone()
    }

    /// The disk as the next start finds it. What is still open over the old one writes into nothing from here on.
    pub fn crash(&self, damage: Damage, rng: &mut ChaCha8Rng) -> Self {
        let mut platter = self.0.lock();
        platter.dead = true;
        let mut left = std::mem::take(&mut platter.durable);
        for change in std::mem::take(&mut platter.since) {
            match damage {
                Damage::Dropped => {}
                Damage::Kept => apply(&mut left, &change),
                Damage::Reordered => {
                    if rng.random_bool(0.5) {
                        apply(&mut left, &change);
                    }
                }
                Damage::Torn(piece) => change.pieces(piece).iter().filter(|_| rng.random_bool(0.5)).for_each(|piece| {
                    apply(&mut left, piece);
                }),
            }
        }
        Self::of(left)
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
    fn admit(&mut self, operation: Operation, change: Option<Change>) -> io::Result<()> {
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

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.0.lock();
        platter.readable()?;
        Ok(platter.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let platter = self.0.lock();
        platter.readable()?;
        let found = platter.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock();
        if !platter.dead {
            let grows = len as usize > platter.seen.len();
            let operation = if grows { Operation::Grow } else { Operation::Shrink };
            platter.admit(operation, Some(Change::Length(len as usize)))?;
        }
        platter.seen.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock();
        if platter.dead {
            return Ok(());
        }
        platter.admit(Operation::Sync, None)?;
        for change in std::mem::take(&mut platter.since) {
            apply(&mut platter.durable, &change);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        let mut platter = self.0.lock();
        if !platter.dead {
            platter.admit(Operation::Write, Some(Change::Write(at, data.to_vec())))?;
        }
        let end = at + data.len();
        if platter.seen.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        platter.seen[at..end].copy_from_slice(data);
        Ok(())
    }
}
