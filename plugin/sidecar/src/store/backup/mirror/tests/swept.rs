//! A machine with the two files of a mirror, or of a database, whose syncs fail and whose power does. A life of a real mirror that stops at
//! each operation is swept by `tests/simulation/stops.rs`.

use redb::StorageBackend;

use super::paired::{changed, channel};
use super::*;
use crate::store::initialise;
use crate::store::journal::start::attach;

/// Bytes of a half of the journal.
pub(super) const HALF: usize = 64 * 1024;

pub(super) const CHANNELS: [u8; 2] = [1, 2];

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Dropped,
    Kept,
    /// The last write came in part.
    Torn,
    /// Only the last write came.
    Reordered,
}

pub(super) const FATES: [Fate; 4] = [Fate::Dropped, Fate::Kept, Fate::Torn, Fate::Reordered];

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(len) => bytes.resize(*len, 0),
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

/// A file: what is durable, and what is seen.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    seen: Vec<u8>,
    unsynced: Vec<Change>,
}

impl File {
    fn of(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), seen: bytes, unsynced: Vec::new() }
    }

    /// A sync that succeeds.
    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        unsynced.iter().for_each(|change| change.apply(&mut self.durable));
    }

    /// A sync that fails: what it was to write is seen on, is on no disk, and no later sync writes it.
    fn fail_to_sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let lengths = unsynced.iter().filter(|change| matches!(change, Change::Length(_)));
        lengths.for_each(|change| change.apply(&mut self.durable));
    }

    fn left(&self, fate: Fate) -> Self {
        let mut bytes = self.durable.clone();
        let (last, before) = match self.unsynced.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        match (fate, last) {
            (Fate::Dropped, _) | (_, None) => {}
            (Fate::Kept, _) => self.unsynced.iter().for_each(|change| change.apply(&mut bytes)),
            (Fate::Torn, Some(last)) => {
                before.iter().for_each(|change| change.apply(&mut bytes));
                match last {
                    Change::Write(at, data) => {
                        Change::Write(*at, data[..data.len() / 1024 * 512].to_vec()).apply(&mut bytes)
                    }
                    Change::Length(_) => {}
                }
            }
            // A file has the length that its writes need.
            (Fate::Reordered, Some(last)) => {
                let lengths = before.iter().filter(|change| matches!(change, Change::Length(_)));
                lengths.chain([last]).for_each(|change| change.apply(&mut bytes));
            }
        }
        Self::of(bytes)
    }
}

/// Both files on one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine(Arc<StdMutex<Inside>>);

#[derive(Clone, Debug, Default)]
struct Inside {
    files: [File; 2],
    /// Whether the journal has its name.
    is_made: bool,
    done: usize,
    /// The operation at which the power fails.
    ends_at: usize,
    /// From which operation on syncs fail, and how many of them.
    failing: (usize, usize),
    /// The operations that did.
    failed: Vec<usize>,
}

impl Inside {
    /// Counts an operation. An error from the moment on at which the power fails.
    fn count(&mut self) -> std::io::Result<()> {
        self.done += 1;
        if self.done >= self.ends_at { Err(std::io::Error::other("the power has failed")) } else { Ok(()) }
    }

    fn change(&mut self, file: usize, change: Change) -> std::io::Result<()> {
        let counted = self.count();
        if self.done <= self.ends_at {
            change.apply(&mut self.files[file].seen);
            self.files[file].unsynced.push(change);
        }
        counted
    }
}

#[derive(Debug)]
pub(super) struct OnMachine(pub(super) Machine, pub(super) usize);

impl StorageBackend for OnMachine {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.0.lock().unwrap().files[self.1].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let inside = self.0.0.lock().unwrap();
        let at = offset as usize;
        let bytes = inside.files[self.1].seen.get(at..at + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.0.lock().unwrap().change(self.1, Change::Length(len as usize))
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let mut inside = self.0.0.lock().unwrap();
        inside.count()?;
        if inside.done >= inside.failing.0 && inside.failing.1 > 0 {
            inside.failing.1 -= 1;
            let done = inside.done;
            inside.failed.push(done);
            inside.files[self.1].fail_to_sync();
            return Err(std::io::Error::from_raw_os_error(5));
        }
        inside.files[self.1].sync();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.0.lock().unwrap().change(self.1, Change::Write(offset as usize, data.to_vec()))
    }
}

/// The name of a file that was made is durable with its content.
impl Shelf for Machine {
    fn open(&self) -> std::io::Result<Option<Box<dyn StorageBackend>>> {
        let is_made = self.0.lock().unwrap().is_made;
        Ok(is_made.then(|| Box::new(OnMachine(self.clone(), 1)) as Box<dyn StorageBackend>))
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> std::io::Result<()>,
    ) -> std::io::Result<(Box<dyn StorageBackend>, usize)> {
        let file = OnMachine(self.clone(), 1);
        lay(&file, HALF)?;
        self.0.lock().unwrap().is_made = true;
        Ok((Box::new(file), HALF))
    }

    fn path(&self) -> PathBuf {
        "journal".into()
    }

    fn is_given_up(&self) -> bool {
        false
    }
}

impl Machine {
    /// A mirror that was just made.
    pub(super) fn new() -> Self {
        let machine = Self::default();
        machine.0.lock().unwrap().ends_at = usize::MAX;
        let db = Database::builder().create_with_backend(OnMachine(machine.clone(), 0)).unwrap();
        initialise(&db, "regtest", &node(1)).unwrap();
        drop(db);
        machine.after(Fate::Kept, usize::MAX)
    }

    /// The machine after the power was gone, where it fails again at this operation.
    pub(super) fn after(&self, fate: Fate, ends_at: usize) -> Self {
        let inside = self.0.lock().unwrap();
        let [mirror, journal] = inside.files.each_ref().map(|file| file.left(fate));
        let journal = if inside.is_made { journal } else { File::default() };
        let is_made = inside.is_made;
        let left = Inside { files: [mirror, journal], is_made, ends_at, ..Inside::default() };
        Self(Arc::new(StdMutex::new(left)))
    }

    /// The same machine, where syncs fail from this operation on, so many of them.
    pub(super) fn failing(self, from: usize, times: usize) -> Self {
        self.0.lock().unwrap().failing = (from, times);
        self
    }

    /// The operations that failed.
    pub(super) fn failed(&self) -> Vec<usize> {
        self.0.lock().unwrap().failed.clone()
    }

    /// How many operations were done, and whether the power is gone.
    pub(super) fn done(&self) -> (usize, bool) {
        let inside = self.0.lock().unwrap();
        (inside.done, inside.done >= inside.ends_at)
    }

    /// As a sink opens the files: what is written before they were found sound is kept back.
    pub(super) fn opened(&self, files: Files) -> Result<Open, StoreError> {
        let read = |db: &Database| {
            let attached = attach(db, self, false, true)?;
            assert!(attached.old.is_none(), "{:?}", attached.old);
            attached.settle(self)
        };
        let (db, journal) = open_reserved(Box::new(OnMachine(self.clone(), 0)), Path::new("mirror"), read)?;
        Ok(Open::over(db, journal.unwrap(), files))
    }
}

/// What was completed is there, of both channels alike, and goes on.
pub(super) fn assert_kept(machine: &Machine, files: Files, completed: u64, when: &str) {
    let open = machine.opened(files).unwrap_or_else(|fault| panic!("{when}: {fault}"));
    let held = holdings_in(&open.db).unwrap();
    let ids: Vec<_> = held.iter().map(|holding| holding.id).collect();
    let is_whole = ids.is_empty() && completed == 0
        || ids.len() == 2 && ids[0] == ids[1] && (completed..=completed + 1).contains(&ids[0]);
    assert!(is_whole, "{when}: {ids:?}, and {completed} was completed");
    if let Some(id) = ids.first() {
        let next = CHANNELS.map(|number| changed(channel(number), id + 1));
        assert!(open.commit(&next).unwrap(), "{when}: it does not go on");
    }
}
