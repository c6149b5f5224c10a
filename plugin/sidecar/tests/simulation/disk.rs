//! A disk with three files, database, journal and generation, and those that are to be one of them, that keeps what was synced. A crash leaves that, and of what was
//! written since, any part (all must do with it). It can be told to fail at one operation on any, or from there on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use outrigger_sidecar::store::fresh::Site;
use outrigger_sidecar::store::generation::Place;
use outrigger_sidecar::store::{Shelf, journal};
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

/// Bytes of each half of a journal: few, so that epochs change often.
const HALF_LEN: usize = 128 * 1024;

/// Its files. One without bytes is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Database,
    Journal,
    Generation,
    /// The next generation, before it has its name.
    Unfinished,
    /// The names of the others.
    Directory,
    /// A database that is being made, before it has its name.
    Draft,
}

const FILES: [File; 6] =
    [File::Database, File::Journal, File::Generation, File::Unfinished, File::Directory, File::Draft];

/// What is asked of the disk that may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Write,
    Sync,
    /// A new length, greater than the one before.
    Grow,
    Shrink,
    Rename,
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
    /// There is no room: nothing is written, and no file grows.
    Full,
}

/// What is left of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    Kept,
    Dropped,
    /// Each aligned piece of so many bytes, or not.
    Torn(usize),
    /// Each write as a whole, or not.
    Reordered,
    /// The process alone is gone. The machine still has all of it in its memory, and on no disk.
    Cached,
}

impl Damage {
    /// Of a machine that stops.
    pub const ALL: [Self; 5] = [Self::Kept, Self::Dropped, Self::Torn(512), Self::Torn(4096), Self::Reordered];

    /// Whether one piece of what was not synced is left.
    pub fn keeps(self, rng: &mut ChaCha8Rng) -> bool {
        match self {
            Self::Kept | Self::Cached => true,
            Self::Dropped => false,
            Self::Torn(_) | Self::Reordered => rng.random_bool(0.5),
        }
    }

    /// What of a write reaches the disk at once.
    pub fn pieces(self, mut at: usize, bytes: Vec<u8>) -> Vec<(usize, Vec<u8>)> {
        let Self::Torn(piece) = self else { return vec![(at, bytes)] };
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (first, later) = rest.split_at(rest.len().min(piece - at % piece));
            pieces.push((at, first.to_vec()));
            (at, rest) = (at + first.len(), later);
        }
        pieces
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
    /// The file that was written beside takes this name.
    Rename(File),
    /// Nothing has this name any more.
    Remove(File),
}

/// Bytes by file.
type Files = [Vec<u8>; FILES.len()];

#[derive(Debug, Default)]
struct Platter {
    /// What reads see.
    seen: Files,
    /// What a crash leaves for certain.
    durable: Files,
    /// What has happened to which file since it was synced.
    since: Vec<(File, Change)>,
    /// All that was asked for.
    asked: Vec<(File, Operation)>,
    /// From which operation on it fails.
    fails: Option<(u64, Failing)>,
    has_failed: bool,
    /// The machine is gone: nothing that is written reaches anything.
    dead: bool,
}

/// What stands on a disk.
#[derive(Clone, Debug, Default)]
pub struct Content(Files);

/// One node's disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

/// One of its files.
#[derive(Clone, Debug)]
struct OnDisk(Disk, File);

impl Disk {
    /// A disk that has this database and nothing else.
    pub fn of(database: Vec<u8>) -> Self {
        let mut files = Files::default();
        files[File::Database as usize] = database;
        Self::with(Content(files))
    }

    /// A disk that has this, all of it durable.
    pub fn with(Content(files): Content) -> Self {
        Self(Arc::new(Mutex::new(Platter { seen: files.clone(), durable: files, ..Platter::default() })))
    }

    /// The database as reads see it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().seen[File::Database as usize].clone()
    }

    /// All that reads see.
    pub fn content(&self) -> Content {
        Content(self.0.lock().seen.clone())
    }

    /// Puts this in the place of what stands there, of a file or of all; it is durable. Nothing may be open.
    pub fn put_back(&self, content: &Content, file: Option<File>) {
        let mut platter = self.0.lock();
        for number in FILES.into_iter().filter(|number| file.is_none_or(|file| file == *number)) {
            let bytes = &content.0[number as usize];
            platter.seen[number as usize].clone_from(bytes);
            platter.durable[number as usize].clone_from(bytes);
        }
        platter.since.retain(|(of, _)| file.is_some_and(|file| file != *of));
    }

    /// The file of the database.
    pub fn database(&self) -> Box<dyn StorageBackend> {
        Box::new(OnDisk(self.clone(), File::Database))
    }

    /// The disk as the next start finds it. What is still open over the old one writes into nothing from here on.
    pub fn crash(&self, damage: Damage, rng: &mut ChaCha8Rng) -> Self {
        let mut platter = self.0.lock();
        platter.dead = true;
        let (mut left, since) = (std::mem::take(&mut platter.durable), std::mem::take(&mut platter.since));
        if damage == Damage::Cached {
            let durable = left.clone();
            since.iter().for_each(|(file, change)| apply(&mut left, *file, change));
            return Self(Arc::new(Mutex::new(Platter { seen: left, durable, since, ..Platter::default() })));
        }
        for (file, change) in since {
            for piece in change.pieces(damage) {
                if damage.keeps(rng) {
                    apply(&mut left, file, &piece);
                }
            }
        }
        Self::with(Content(left))
    }

    /// Another disk on which the same has happened.
    pub fn copied(&self) -> Self {
        let platter = self.0.lock();
        let Platter { seen, durable, since, asked, .. } = &*platter;
        let (seen, durable, since, asked) = (seen.clone(), durable.clone(), since.clone(), asked.clone());
        Self(Arc::new(Mutex::new(Platter { seen, durable, since, asked, ..Platter::default() })))
    }

    /// It fails so from the operation on that comes after so many.
    pub fn fail_after(&self, operations: u64, failing: Failing) {
        let mut platter = self.0.lock();
        let number = platter.asked.len() as u64 + operations;
        platter.fails = Some((number, failing));
    }

    /// Nothing fails any more that has not yet: there is room, and power.
    pub fn mend(&self) {
        self.0.lock().fails = None;
    }

    /// Whether it has failed as it was told to.
    pub fn has_failed(&self) -> bool {
        self.0.lock().has_failed
    }

    /// How it fails, or is about to.
    pub fn failing(&self) -> Option<Failing> {
        self.0.lock().fails.map(|(_, failing)| failing)
    }

    /// What was asked of it since it was put in.
    pub fn asked(&self) -> Vec<(File, Operation)> {
        self.0.lock().asked.clone()
    }
}

/// The change as a crash may leave it; what lies beyond the end makes the file longer.
fn apply(left: &mut Files, file: File, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            let left = &mut left[file as usize];
            if left.len() < at + bytes.len() {
                left.resize(at + bytes.len(), 0);
            }
            left[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        Change::Length(len) => left[file as usize].resize(*len, 0),
        Change::Rename(to) => {
            let from = if *to == File::Database { File::Draft } else { File::Unfinished };
            left[*to as usize] = left[from as usize].clone();
        }
        Change::Remove(name) => left[*name as usize].clear(),
    }
}

impl Change {
    /// What of it reaches the disk at once.
    fn pieces(self, damage: Damage) -> Vec<Self> {
        match self {
            Self::Write(at, bytes) => {
                damage.pieces(at, bytes).into_iter().map(|(at, bytes)| Self::Write(at, bytes)).collect()
            }
            whole => vec![whole],
        }
    }
}

impl Platter {
    /// Whether the operation is done; what is not is in the midst of it where the machine stops.
    fn admit(&mut self, file: File, operation: Operation, changes: Vec<Change>) -> io::Result<()> {
        let number = self.asked.len() as u64;
        self.asked.push((file, operation));
        let takes_room = matches!(operation, Operation::Write | Operation::Grow);
        let fault = self.fails.and_then(|(from, failing)| match failing {
            Failing::Power if number >= from => Some(io::Error::other("the power is gone")),
            Failing::Once if number == from => Some(io::Error::from_raw_os_error(5)),
            Failing::ForEver if number >= from => Some(io::Error::from_raw_os_error(5)),
            Failing::Full if number >= from && takes_room => Some(io::ErrorKind::StorageFull.into()),
            Failing::Power | Failing::Once | Failing::ForEver | Failing::Full => None,
        });
        let is_under_way = self.fails.is_some_and(|(from, failing)| failing == Failing::Power && number == from);
        if fault.is_none() || is_under_way {
            self.since.extend(changes.into_iter().map(|change| (file, change)));
        }
        self.has_failed |= fault.is_some();
        fault.map_or(Ok(()), Err)
    }

    /// A disk that has failed for good is not read either.
    fn readable(&self) -> io::Result<()> {
        let is_gone = matches!(self.fails, Some((_, Failing::Power | Failing::ForEver)));
        if self.has_failed && is_gone && !self.dead { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    fn rename(&mut self, change: Change) -> io::Result<()> {
        self.admit(File::Directory, Operation::Rename, vec![change.clone()])?;
        apply(&mut self.seen, File::Directory, &change);
        Ok(())
    }

    fn sync(&mut self, file: File) -> io::Result<()> {
        if self.dead {
            return Ok(());
        }
        self.admit(file, Operation::Sync, Vec::new())?;
        let since = std::mem::take(&mut self.since).into_iter();
        let (synced, left): (Vec<_>, Vec<_>) = since.partition(|(of, _)| *of == file);
        self.since = left;
        synced.iter().for_each(|(file, change)| apply(&mut self.durable, *file, change));
        Ok(())
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        let platter = self.0.0.lock();
        platter.readable()?;
        Ok(platter.seen[self.1 as usize].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let platter = self.0.0.lock();
        platter.readable()?;
        let found = platter.seen[self.1 as usize].get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.0.lock();
        if !platter.dead {
            let grows = len as usize > platter.seen[self.1 as usize].len();
            let operation = if grows { Operation::Grow } else { Operation::Shrink };
            platter.admit(self.1, operation, vec![Change::Length(len as usize)])?;
        }
        platter.seen[self.1 as usize].resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.0.lock().sync(self.1)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        let mut platter = self.0.0.lock();
        if !platter.dead {
            platter.admit(self.1, Operation::Write, vec![Change::Write(at, data.to_vec())])?;
        }
        let (end, seen) = (at + data.len(), &mut platter.seen[self.1 as usize]);
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
        let file: Box<dyn StorageBackend> = Box::new(OnDisk(self.clone(), File::Journal));
        Ok(if file.len()? == 0 { None } else { Some(file) })
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)> {
        let file: Box<dyn StorageBackend> = Box::new(OnDisk(self.clone(), File::Journal));
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

impl Place for Disk {
    fn read(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let platter = self.0.lock();
        platter.readable()?;
        let found = &platter.seen[File::Generation as usize];
        Ok((!found.is_empty()).then(|| found.iter().take(limit as usize).copied().collect()))
    }

    fn write_beside(&self, text: &[u8]) -> io::Result<()> {
        let mut platter = self.0.lock();
        if platter.dead {
            return Ok(());
        }
        platter.admit(File::Unfinished, Operation::Write, vec![Change::Length(0), Change::Write(0, text.to_vec())])?;
        platter.seen[File::Unfinished as usize] = text.to_vec();
        platter.sync(File::Unfinished)
    }

    fn rename(&self) -> io::Result<()> {
        let mut platter = self.0.lock();
        if platter.dead {
            return Ok(());
        }
        platter.rename(Change::Rename(File::Generation))
    }

    fn sync_name(&self) -> io::Result<()> {
        self.0.lock().sync(File::Directory)
    }

    fn path(&self) -> PathBuf {
        PathBuf::new()
    }
}

impl Site for Disk {
    fn fresh(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file: Box<dyn StorageBackend> = Box::new(OnDisk(self.clone(), File::Draft));
        if file.len()? > 0 {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn rename(&self) -> io::Result<()> {
        self.0.lock().rename(Change::Rename(File::Database))
    }

    fn sync_name(&self) -> io::Result<()> {
        self.0.lock().sync(File::Directory)
    }

    fn take_back(&self) -> io::Result<()> {
        self.0.lock().rename(Change::Remove(File::Database))
    }

    fn path(&self) -> PathBuf {
        PathBuf::new()
    }
}
