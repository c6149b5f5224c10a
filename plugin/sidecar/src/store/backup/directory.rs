//! A backup in plain files: one for each full write and each update, under names that a person can read, for whatever copies
//! files elsewhere. FORMAT.md tells the layout.
//!
//! A file is written under another name, synced, renamed, and its directory synced. None is overwritten, but the record of a block
//! by a newer one: what stands under a name is the same, or damaged and set aside, or proof of another history. Of each channel two
//! full writes that open are kept with all that followed them, so that damage of the newest costs one update and not the channel.
//! What this node does not know of is never touched (BAK-5).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_bolt::id::{ChannelId, NodeId};

use super::MISSING;
use super::image::{Image, TipRecord, Update};
use super::sealed::{CannotOpen, MAX_RECORD_BYTES, RecordKind, RecordName, Sealer};
use super::source::{NamedRecord, NoRecord};
use crate::store::generation::make_directory_on;
use crate::store::ground::{Ground, System};
use crate::store::schema::Table;

mod alone;
mod names;
mod persist;
mod read;
#[cfg(test)]
mod tests;

use alone::AHEAD;
pub use names::parse_name;
use names::{names_in, path_of, place_of, tips};
pub use persist::DirectorySink;
pub use read::DirectorySource;

/// The most records of one channel: more than consolidation ever leaves.
const MAX_NAMES: usize = 1_000_000;

/// What every record's name ends with.
const SUFFIX: &str = ".sealed";

/// Where channels that are over stand: no start reads them (law 6).
const OVER: &str = "over";

/// What is behind a name that is not written to its end.
const UNFINISHED: &str = ".new";

/// What is behind a name whose content does not open.
const DAMAGED: &str = ".damaged";

/// What an operator does where not even the directory is there.
const UNMOUNTED: &str = "there is no such directory: mount its disk, or make it";

/// The file that says to a person what stands beside it.
const NOTE: &str = "README.txt";

const NOTE_TEXT: &str = "A backup of an Outrigger node's channels, one directory a channel, encrypted with a key from its seed.\n\
    full-N is everything at write N, update-M-N what changed from M to N. Copy all of it, change and delete nothing.\n\
    To restore: outriggerd restore --from directory:PATH, where PATH holds the directory that this file is in.\n";

/// Why a write did not happen. Nothing that was there is lost.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryFault {
    /// The disk refused: it may do so for a while.
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: io::Error },
    /// Another database of this node wrote there.
    #[error("{} is there with another content: another copy of this node's database has written to this backup", .0.display())]
    OtherHistory(PathBuf),
    /// It can be opened by a newer version alone, where it is not damaged.
    #[error(
        "{} was written by a newer version (form {form}), or is damaged; nothing was changed. Start the newer version, or, where \
         there never was one, move the file away",
        path.display()
    )]
    Newer { path: PathBuf, form: u8 },
    /// What cannot be read may be the proof that the database is an old copy.
    #[error("{} has a record that cannot be read and is newer than the database: {AHEAD}", .0.display())]
    Ahead(PathBuf),
    #[error("{} holds more than {MAX_NAMES} records: move away what this node did not write", .0.display())]
    TooMany(PathBuf),
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable.
    Now,
    /// It was before, or a full write that came later holds it.
    Before,
    /// An update that does not follow what is there, or is one too many: a full write is to be made in its place.
    NeedsFull,
}

/// The records of one channel by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub fulls: BTreeSet<u64>,
    /// Where each update leads to, by what it follows.
    pub updates: BTreeMap<u64, u64>,
}

impl Names {
    /// The newest full write, and the id that gapless updates lead to from there.
    pub fn reach(&self) -> Option<(u64, u64)> {
        let full = *self.fulls.last()?;
        Some((full, self.reach_from(full)))
    }

    /// The id that gapless updates lead to from this one.
    fn reach_from(&self, full: u64) -> u64 {
        let mut id = full;
        while let Some(next) = self.updates.get(&id).filter(|next| **next > id) {
            id = *next;
        }
        id
    }

    /// The newest id that any name tells of.
    pub fn newest(&self) -> Option<u64> {
        self.fulls.iter().chain(self.updates.values()).max().copied()
    }

    pub(super) fn insert(&mut self, name: &RecordName) {
        match name.kind {
            RecordKind::Full => drop(self.fulls.insert(name.id)),
            RecordKind::Update => drop(self.updates.insert(name.from, name.id)),
            RecordKind::Tip => {}
        }
    }

    /// What nobody needs any more once the newest full write was made: all before the newest one of the others that opens.
    fn outdated(&self, opens: impl Fn(u64) -> bool) -> (Vec<u64>, Vec<(u64, u64)>) {
        let Some(kept) = self.fulls.iter().rev().skip(1).find(|id| opens(**id)) else { return Default::default() };
        let fulls = self.fulls.range(..kept).copied().collect();
        let updates = self.updates.iter().map(|(from, id)| (*from, *id)).filter(|(_, id)| id <= kept);
        (fulls, updates.collect())
    }
}

/// Makes a place for this node in a directory that is there, and is for the first start that backs up into it.
pub fn make_place(dir: &Path, owner: (&str, &NodeId)) -> Result<(), DirectoryFault> {
    make_place_on(&System, dir, owner)
}

/// The same on this file system.
pub fn make_place_on(
    ground: &dyn Ground,
    dir: &Path,
    (network, node_id): (&str, &NodeId),
) -> Result<(), DirectoryFault> {
    let root = place_of(dir, network, node_id);
    let made = check_there(dir, UNMOUNTED).and_then(|()| make_directory_on(ground, &root));
    made.map_err(|reason| DirectoryFault::Io { path: root, reason })
}

fn check_there(dir: &Path, words: &str) -> io::Result<()> {
    if dir.is_dir() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::NotFound, words)) }
}

/// A directory that backups are written to.
pub struct Directory {
    /// `NETWORK-NODE` below what the operator named.
    root: PathBuf,
    sealer: Arc<Sealer>,
    /// Updates after which a full write takes their place.
    full_every: usize,
    /// What is known to stand there, of channels that were written to since the start or the last fault: each name is durable.
    known: HashMap<ChannelId, Names>,
    /// What all that changes anything goes through.
    ground: Arc<dyn Ground>,
}

impl Directory {
    /// The place of this node in a directory, both of which must be there: an empty directory may be where a disk is to be mounted.
    pub fn open(
        ground: Arc<dyn Ground>,
        dir: &Path,
        (network, node_id): (&str, &NodeId),
        sealer: Arc<Sealer>,
        full_every: usize,
    ) -> Result<Self, DirectoryFault> {
        let root = place_of(dir, network, node_id);
        let io_fault = |reason| DirectoryFault::Io { path: root.clone(), reason };
        check_there(dir, UNMOUNTED).and_then(|()| check_there(&root, MISSING)).map_err(io_fault)?;
        let directory = Self { root: root.clone(), sealer, full_every, known: HashMap::new(), ground };
        directory.clean(&root).map_err(io_fault)?;
        // Names may stand there whose sync failed.
        directory.sync(dir).and_then(|()| directory.sync(&root)).map_err(io_fault)?;
        if !root.join(NOTE).exists() {
            directory.place(&root.join(NOTE), NOTE_TEXT.as_bytes())?;
        }
        Ok(directory)
    }

    /// Writes everything of a channel as it is at `id`. What it makes superfluous goes.
    pub fn write_full(&mut self, channel: &ChannelId, id: u64, content: &[u8]) -> Result<Written, DirectoryFault> {
        let names = self.names(channel)?;
        if names.fulls.last().is_some_and(|full| *full > id) {
            return Ok(Written::Before);
        }
        let name = RecordName::full(*channel, id);
        let written = self.write(&name, content)?;
        let (root, sealer) = (self.root.clone(), self.sealer.clone());
        let names = self.names(channel)?;
        names.insert(&name);
        let opens = |id| read_record(&sealer, &root, RecordName::full(*channel, id)).is_ok();
        let (fulls, updates) = names.outdated(opens);
        for name in fulls.iter().map(|id| RecordName::full(*channel, *id)) {
            self.forget(&name)?;
        }
        for name in updates.iter().map(|(from, id)| RecordName::update(*channel, *from, *id)) {
            self.forget(&name)?;
        }
        Ok(written)
    }

    /// Writes what changed of a channel from one id to a later one.
    pub fn write_update(
        &mut self,
        channel: &ChannelId,
        (from, id): (u64, u64),
        content: &[u8],
    ) -> Result<Written, DirectoryFault> {
        let full_every = self.full_every;
        let names = self.names(channel)?;
        let Some((full, reach)) = names.reach() else { return Ok(Written::NeedsFull) };
        if id <= full {
            return Ok(Written::Before);
        }
        let is_there = names.updates.get(&from) == Some(&id);
        let follows = from == reach && names.updates.range(full..).count() < full_every;
        if !is_there && !follows {
            return Ok(if id <= reach { Written::Before } else { Written::NeedsFull });
        }
        let name = RecordName::update(*channel, from, id);
        let written = self.write(&name, content)?;
        self.names(channel)?.insert(&name);
        Ok(written)
    }

    /// Writes how far the chain was followed; the newest two are kept.
    pub fn write_tip(&mut self, height: u32, content: &[u8]) -> Result<Written, DirectoryFault> {
        let written = self.write(&RecordName::tip(height), content)?;
        let heights = tips(&self.root).map_err(|reason| DirectoryFault::Io { path: self.root.clone(), reason })?;
        for old in heights.iter().rev().skip(2) {
            self.forget(&RecordName::tip(*old))?;
        }
        Ok(written)
    }

    /// The channel is over: what is kept of it moves aside. Where it cannot, it stays, and a start reads it in vain.
    pub fn retire(&mut self, channel: &ChannelId) -> Result<(), DirectoryFault> {
        let (from, over) = (self.root.join(channel.to_string()), self.root.join(OVER));
        let io_fault = |reason| DirectoryFault::Io { path: over.clone(), reason };
        self.known.remove(channel);
        self.make(&over).map_err(io_fault)?;
        if over.join(channel.to_string()).exists() {
            return Ok(());
        }
        self.ground.rename(&from, &over.join(channel.to_string())).map_err(io_fault)?;
        self.sync(&over).and_then(|()| self.sync(&self.root)).map_err(io_fault)
    }

    /// Makes a directory in the place of this node, and never that place itself.
    fn make(&self, dir: &Path) -> io::Result<()> {
        check_there(&self.root, MISSING)?;
        make_directory_on(&*self.ground, dir)
    }

    /// Makes the names in a directory durable.
    fn sync(&self, dir: &Path) -> io::Result<()> {
        self.ground.sync_names(dir)
    }

    /// Makes the names of a channel's records durable: a sync of one may have failed, and it stands there all the same.
    fn settle(&self, channel: &ChannelId) -> Result<(), DirectoryFault> {
        let dir = self.root.join(channel.to_string());
        self.sync(&dir).map_err(|reason| DirectoryFault::Io { path: dir, reason })
    }

    fn names(&mut self, channel: &ChannelId) -> Result<&mut Names, DirectoryFault> {
        if !self.known.contains_key(channel) {
            let dir = self.root.join(channel.to_string());
            let io_fault = |reason| DirectoryFault::Io { path: dir.clone(), reason };
            self.make(&dir).map_err(io_fault)?;
            self.clean(&dir).map_err(io_fault)?;
            self.settle(channel)?;
            let names =
                names_in(&dir, channel).map_err(io_fault)?.ok_or_else(|| DirectoryFault::TooMany(dir.clone()))?;
            self.known.insert(*channel, names);
        }
        Ok(self.known.entry(*channel).or_default())
    }

    fn write(&self, name: &RecordName, content: &[u8]) -> Result<Written, DirectoryFault> {
        let path = path_of(&self.root, name);
        let sealed = self.sealer.seal(name, content);
        let io_fault = |reason| DirectoryFault::Io { path: path.clone(), reason };
        match read_bounded(&path) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            Ok(Some(there)) if there == sealed => return self.before(&path),
            Ok(Some(there)) => match self.sealer.open(name, &there) {
                Ok(there) if is_same(name, &there, content) => return self.before(&path),
                // Of one block the newest record counts: it names the channels of its time.
                Ok(_) if name.kind == RecordKind::Tip => {}
                Ok(_) => return Err(DirectoryFault::OtherHistory(path)),
                Err(CannotOpen::Newer(form)) => return Err(DirectoryFault::Newer { path, form }),
                Err(CannotOpen::Short | CannotOpen::NotAuthentic) => self.set_aside(&path).map_err(io_fault)?,
            },
            // Nor does a file that the disk does not read stand in the way of what is to have its name.
            Ok(None) | Err(_) => self.set_aside(&path).map_err(io_fault)?,
        }
        self.place(&path, &sealed)?;
        Ok(Written::Now)
    }

    /// It is there already. Whether it is durable is not known: the sync of its name may have failed.
    fn before(&self, path: &Path) -> Result<Written, DirectoryFault> {
        let synced = File::open(path).and_then(|file| self.ground.sync(&file)).and_then(|()| self.sync_above(path));
        synced.map(|()| Written::Before).map_err(|reason| DirectoryFault::Io { path: path.to_owned(), reason })
    }

    fn sync_above(&self, path: &Path) -> io::Result<()> {
        self.sync(path.parent().unwrap_or(&self.root))
    }

    /// A file that is whole or not there. A failed sync of it is not tried again: the next try is another file.
    fn place(&self, path: &Path, bytes: &[u8]) -> Result<(), DirectoryFault> {
        let io_fault = |reason| DirectoryFault::Io { path: path.to_owned(), reason };
        let unfinished = with_suffix(path, UNFINISHED);
        let ground = &*self.ground;
        let placed = ground
            .create(&unfinished)
            .and_then(|mut file| ground.write(&mut file, bytes).and_then(|()| ground.sync(&file)))
            .and_then(|()| ground.rename(&unfinished, path));
        if let Err(fault) = placed {
            // It is cleaned at the next start where it cannot be now.
            let _ = ground.remove(&unfinished);
            return Err(io_fault(fault));
        }
        self.sync_above(path).map_err(io_fault)
    }

    /// Removes what a crash left of a write.
    fn clean(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let file = entry?.file_name();
            let left = file.to_str().and_then(|file| file.strip_suffix(UNFINISHED));
            if left.is_some_and(|left| left == NOTE || parse_name(&ChannelId([0; 32]), left).is_some()) {
                self.ground.remove(&dir.join(&file))?;
            }
        }
        Ok(())
    }

    /// Keeps a file that does not open under another name: part of it may be of use yet.
    fn set_aside(&self, path: &Path) -> io::Result<()> {
        let mut aside = with_suffix(path, DAMAGED);
        while aside.exists() {
            aside = with_suffix(&aside, DAMAGED);
        }
        self.ground.rename(path, &aside)
    }

    fn forget(&mut self, name: &RecordName) -> Result<(), DirectoryFault> {
        let path = path_of(&self.root, name);
        match self.ground.remove(&path) {
            Err(reason) if reason.kind() != io::ErrorKind::NotFound => return Err(DirectoryFault::Io { path, reason }),
            Ok(()) | Err(_) => {}
        }
        if let Some(names) = self.known.get_mut(&name.channel) {
            match name.kind {
                RecordKind::Full => drop(names.fulls.remove(&name.id)),
                RecordKind::Update => drop(names.updates.remove(&name.from)),
                RecordKind::Tip => {}
            }
        }
        Ok(())
    }
}

/// Whether two records of one name tell the same. The address of a peer changes without a new id, the preimages that a sink still
/// must have for other channels depend on what these have there, and a tip has a time.
fn is_same(name: &RecordName, one: &[u8], other: &[u8]) -> bool {
    let is_history = |table: Table| !matches!(table, Table::PeerAddress | Table::Preimage);
    match name.kind {
        RecordKind::Full => {
            let read = |bytes: &[u8]| {
                let mut image = Image::decode(bytes).ok()?;
                image.rows.retain(|(table, _), _| is_history(*table));
                Some(image)
            };
            read(one).is_some_and(|one| Some(one) == read(other))
        }
        RecordKind::Update => {
            let read = |bytes: &[u8]| {
                let mut update = Update::decode(bytes).ok()?;
                update.changes.retain(|change| is_history(change.table));
                Some(update)
            };
            read(one).is_some_and(|one| Some(one) == read(other))
        }
        RecordKind::Tip => {
            let read = |bytes: &[u8]| Some(TipRecord { at_unix: 0, ..TipRecord::decode(bytes).ok()? });
            read(one).is_some_and(|one| Some(one) == read(other))
        }
    }
}

/// The record that stands under this name, or what is wrong with it. A disk that cannot be read does not say that nothing is there.
fn read_record(sealer: &Sealer, root: &Path, name: RecordName) -> Result<NamedRecord, NoRecord> {
    let path = path_of(root, &name);
    let lost = |words: &dyn std::fmt::Display| NoRecord::Lost(format!("{}: {words}", path.display()));
    let bytes = match read_bounded(&path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(lost(&format_args!("it has more than {MAX_RECORD_BYTES} bytes"))),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Err(lost(&fault)),
        Err(fault) => return Err(NoRecord::Unread(format!("{}: {fault}", path.display()))),
    };
    let content = sealer.open(&name, &bytes).map_err(|fault| lost(&fault))?;
    Ok(NamedRecord { name, content })
}

/// The file's bytes; nothing where there are too many.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_RECORD_BYTES.saturating_add(1)).read_to_end(&mut bytes)? as u64;
    Ok((read <= MAX_RECORD_BYTES).then_some(bytes))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
