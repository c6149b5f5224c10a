//! A machine to whose file system backups write: files and names in a real directory, and a note of all that was asked. What a stop at any of
//! it leaves is the model's: bytes that their file's sync has made durable, names that their directory's has, and of the rest what
//! [`Damage`] says.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use outrigger_sidecar::store::ground::Ground;
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

use super::disk::Damage;

/// Bytes of each half of a journal: few, so that epochs change often.
const HALF_LEN: usize = 64 * 1024;

/// A file or a directory, whatever names it has.
type Node = usize;

/// The directory that everything is in.
const ROOT: Node = 0;

/// What is asked of the machine that changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Create,
    Write,
    Length,
    Sync,
    Rename,
    Remove,
    MakeDirectory,
    SyncNames,
}

/// What it comes to. The rename of a directory into another one is there or not, and for good once both have been synced.
#[derive(Clone, Debug)]
enum Change {
    Write(Node, usize, Vec<u8>),
    Length(Node, usize),
    Name(Node, OsString, Option<Node>),
    Move { from: (Node, OsString), to: (Node, OsString), node: Node, unsynced: Vec<Node> },
}

impl Change {
    /// What a sync of this file or directory makes of it: nothing where it stands for good then.
    fn left_by_sync_of(mut self, synced: Node) -> Option<Self> {
        match &mut self {
            Self::Write(node, ..) | Self::Length(node, _) | Self::Name(node, ..) => {
                if *node == synced {
                    return None;
                }
            }
            Self::Move { unsynced, .. } => {
                unsynced.retain(|node| *node != synced);
                if unsynced.is_empty() {
                    return None;
                }
            }
        }
        Some(self)
    }

    fn pieces(self, damage: Damage) -> Vec<Self> {
        match self {
            Self::Write(node, at, bytes) => {
                damage.pieces(at, bytes).into_iter().map(|(at, bytes)| Self::Write(node, at, bytes)).collect()
            }
            whole => vec![whole],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Directory(BTreeMap<OsString, Node>),
    File(Vec<u8>),
}

/// What a machine has: for good, and what has come since.
#[derive(Clone, Debug)]
pub struct Content {
    durable: Vec<Thing>,
    since: Vec<Change>,
}

impl Default for Content {
    fn default() -> Self {
        Self { durable: vec![Thing::Directory(BTreeMap::new())], since: Vec::new() }
    }
}

fn apply(things: &mut [Thing], change: &Change) {
    let mut name = |(dir, name): (Node, &OsString), node: Option<Node>| {
        let Thing::Directory(names) = &mut things[dir] else { panic!("a name in a file") };
        match node {
            Some(node) => drop(names.insert(name.clone(), node)),
            None => drop(names.remove(name)),
        }
    };
    match change {
        Change::Name(dir, word, node) => name((*dir, word), *node),
        Change::Move { from, to, node, .. } => {
            name((from.0, &from.1), None);
            name((to.0, &to.1), Some(*node));
        }
        Change::Write(node, at, written) => {
            let Thing::File(bytes) = &mut things[*node] else { panic!("bytes in a directory") };
            let end = at + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(written);
        }
        Change::Length(node, len) => {
            let Thing::File(bytes) = &mut things[*node] else { panic!("bytes in a directory") };
            bytes.resize(*len, 0);
        }
    }
}

impl Content {
    /// What whoever reads sees.
    fn seen(&self) -> Vec<Thing> {
        let mut things = self.durable.clone();
        self.since.iter().for_each(|change| apply(&mut things, change));
        things
    }

    /// The operation begins: all of it may come to the disk or not.
    pub fn begin(&mut self, operation: &Operation) {
        self.durable.extend(operation.made.clone());
        self.since.extend(operation.changes.iter().cloned());
    }

    /// It has ended.
    pub fn end(&mut self, operation: &Operation) {
        let Some(synced) = operation.synced else { return };
        for change in std::mem::take(&mut self.since) {
            match change.clone().left_by_sync_of(synced) {
                Some(left) => self.since.push(left),
                None => apply(&mut self.durable, &change),
            }
        }
    }

    /// What the next start finds after a stop.
    pub fn crash(&self, damage: Damage, rng: &mut ChaCha8Rng) -> Self {
        if damage == Damage::Cached {
            return self.clone();
        }
        let mut durable = self.durable.clone();
        for change in &self.since {
            for piece in change.clone().pieces(damage) {
                if damage.keeps(rng) {
                    apply(&mut durable, &piece);
                }
            }
        }
        Self { durable, since: Vec::new() }
    }

    /// Whether nobody can tell the two from each other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.durable == other.durable && self.since.is_empty() && other.since.is_empty()
    }
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    pub asked: Asked,
    made: Option<Thing>,
    changes: Vec<Change>,
    synced: Option<Node>,
}

/// What has happened on a machine, in its order.
#[derive(Clone, Debug)]
pub enum Noted<T> {
    Asked(Arc<Operation>),
    Told(T),
}

#[derive(Debug)]
struct Inside<T> {
    begun_with: Content,
    notes: Vec<Noted<T>>,
    /// By device number: nodes that have names.
    nodes: HashMap<u64, Node>,
    count: usize,
}

/// A machine that runs; clones are the same one. `T` is what else is noted.
#[derive(Debug)]
pub struct Machine<T>(Arc<(tempfile::TempDir, Mutex<Inside<T>>)>);

impl<T> Clone for Machine<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Machine<T> {
    /// A machine with this on its disk.
    pub fn with(content: Content) -> Self {
        let (dir, things) = (tempfile::tempdir().unwrap(), content.seen());
        let mut nodes = HashMap::new();
        let mut open = vec![(dir.path().to_owned(), ROOT)];
        while let Some((path, node)) = open.pop() {
            match &things[node] {
                Thing::Directory(names) => {
                    if node != ROOT {
                        fs::create_dir(&path).unwrap();
                    }
                    open.extend(names.iter().map(|(name, node)| (path.join(name), *node)));
                }
                Thing::File(bytes) => fs::write(&path, bytes).unwrap(),
            }
            nodes.insert(fs::metadata(&path).unwrap().ino(), node);
        }
        let inside = Inside { begun_with: content, notes: Vec::new(), nodes, count: things.len() };
        Self(Arc::new((dir, Mutex::new(inside))))
    }

    pub fn path(&self) -> &Path {
        self.0.0.path()
    }

    /// Something else has happened.
    pub fn tell(&self, told: T) {
        self.0.1.lock().notes.push(Noted::Told(told));
    }

    /// What it began with, and all that has happened.
    pub fn notes(&self) -> (Content, Vec<Noted<T>>) {
        let inside = self.0.1.lock();
        (inside.begun_with.clone(), inside.notes.clone())
    }
}

impl<T> Inside<T> {
    fn of(&self, file: &fs::Metadata) -> Node {
        self.nodes[&file.ino()]
    }

    /// The directory of a path, and the name in it.
    fn place(&self, path: &Path) -> io::Result<(Node, OsString)> {
        let dir = self.of(&fs::metadata(path.parent().unwrap())?);
        Ok((dir, path.file_name().unwrap().to_owned()))
    }

    fn note(&mut self, asked: Asked, changes: Vec<Change>) {
        self.notes.push(Noted::Asked(Arc::new(Operation { asked, made: None, changes, synced: None })));
    }

    fn note_sync(&mut self, asked: Asked, synced: Node) {
        let operation = Operation { asked, made: None, changes: Vec::new(), synced: Some(synced) };
        self.notes.push(Noted::Asked(Arc::new(operation)));
    }

    /// Something new has this name.
    fn note_made(&mut self, asked: Asked, path: &Path, made: Thing) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let node = self.count;
        self.count += 1;
        self.nodes.insert(fs::metadata(path)?.ino(), node);
        let changes = vec![Change::Name(dir, name, Some(node))];
        self.notes.push(Noted::Asked(Arc::new(Operation { asked, made: Some(made), changes, synced: None })));
        Ok(())
    }
}

impl<T: Clone + std::fmt::Debug + Send + 'static> Ground for Machine<T> {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut inside = self.0.1.lock();
        let was_there = path.exists();
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        if was_there {
            let node = inside.of(&file.metadata()?);
            inside.note(Asked::Create, vec![Change::Length(node, 0)]);
        } else {
            inside.note_made(Asked::Create, path, Thing::File(Vec::new()))?;
        }
        Ok(file)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let mut inside = self.0.1.lock();
        let (node, at) = (inside.of(&file.metadata()?), file.stream_position()? as usize);
        file.write_all(bytes)?;
        inside.note(Asked::Write, vec![Change::Write(node, at, bytes.to_vec())]);
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut inside = self.0.1.lock();
        let node = inside.of(&file.metadata()?);
        inside.note_sync(Asked::Sync, node);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inside = self.0.1.lock();
        let node = inside.of(&fs::metadata(from)?);
        fs::rename(from, to)?;
        let (from, to) = (inside.place(from)?, inside.place(to)?);
        let unsynced = if from.0 == to.0 { vec![to.0] } else { vec![from.0, to.0] };
        inside.note(Asked::Rename, vec![Change::Move { from, to, node, unsynced }]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inside = self.0.1.lock();
        fs::remove_file(path)?;
        let (dir, name) = inside.place(path)?;
        inside.note(Asked::Remove, vec![Change::Name(dir, name, None)]);
        Ok(())
    }

    fn make_directory(&self, dir: &Path) -> io::Result<()> {
        let mut inside = self.0.1.lock();
        fs::create_dir(dir)?;
        inside.note_made(Asked::MakeDirectory, dir, Thing::Directory(BTreeMap::new()))
    }

    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        let mut inside = self.0.1.lock();
        let node = inside.of(&fs::metadata(dir)?);
        inside.note_sync(Asked::SyncNames, node);
        Ok(())
    }

    fn backend(&self, file: File) -> Result<Box<dyn StorageBackend>, redb::DatabaseError> {
        let node = file.metadata().map(|file| self.0.1.lock().of(&file)).map_err(redb::StorageError::from)?;
        Ok(Box::new(OnMachine { machine: self.clone(), file, node }))
    }

    fn half_len(&self) -> usize {
        HALF_LEN
    }
}

/// A file that redb and the journal write.
#[derive(Debug)]
struct OnMachine<T> {
    machine: Machine<T>,
    file: File,
    node: Node,
}

impl<T: Clone + std::fmt::Debug + Send + 'static> StorageBackend for OnMachine<T> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inside = self.machine.0.1.lock();
        self.file.set_len(len)?;
        inside.note(Asked::Length, vec![Change::Length(self.node, len as usize)]);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.machine.0.1.lock().note_sync(Asked::Sync, self.node);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inside = self.machine.0.1.lock();
        self.file.write_all_at(data, offset)?;
        inside.note(Asked::Write, vec![Change::Write(self.node, offset as usize, data.to_vec())]);
        Ok(())
    }
}
