//! A mirror: a second redb file, best on another disk, with the same guarantees as the database: two-phase durable commits.
//!
//! It has the tables of the database, of which only those that sinks keep are filled, and a mark in `meta` by which neither is taken
//! for the other. What waits becomes one commit, so it costs no more syncs than the database itself.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bitcoin::OutPoint;
use crossbeam_channel::{Receiver, Sender};
use outrigger_bolt::id::{ChannelId, NodeId};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use super::ends::{SinkEnds, SinkFault};
use super::image::{Image, TipRecord, Update};
use super::kept::tables;
use super::{Answer, Full, Holding, MISSING, Persist, Reader};
use crate::fatal::contain;
use crate::store::schema::{MIRROR_KEY, TIP_KEY, Table};
use crate::store::seal::{seal, unseal};
use crate::store::{StoreError, check_identity, initialise, open_sound, sync_directory};

mod handle;
mod read;

use handle::{Backlog, Handle};
pub use read::MirrorSource;

/// The most that one commit of a mirror takes in.
const GROUP_LIMIT: usize = 4096;

/// What an operator does where the file was taken away while it was written to.
const GONE: &str = "it was deleted or replaced while the node runs: put back the file that was there";

/// What an operator does where another file is in its place.
const ANOTHER: &str = "it is not the mirror as it was written, but an older copy or an empty one: put the right one back, or \
    start again, and this one is filled";

/// Whose mirror it is, and where.
#[derive(Clone, Debug)]
pub struct MirrorPlace {
    pub path: PathBuf,
    pub network: String,
    pub node_id: NodeId,
}

/// The sink. What it is given goes to a thread of its own, which commits what has gathered and completes all of it.
pub struct Mirror {
    /// What was handed to the thread, by channel that lives: one that is over has no id there that an update could follow.
    newest: HashMap<ChannelId, u64>,
    jobs: Option<Sender<Job>>,
    backlog: Arc<Backlog>,
    handle: Arc<Handle>,
    ends: SinkEnds,
    thread: Option<JoinHandle<()>>,
}

/// One thing to write.
enum Job {
    Full(Box<Image>, u64),
    Update(Arc<Update>),
    Tip(Box<TipRecord>),
    /// It is there already: completed with what stands before it.
    Known(ChannelId, u64),
}

impl Job {
    /// What it takes in memory, about.
    fn size(&self) -> usize {
        match self {
            Self::Full(image, _) => image.size(),
            Self::Update(update) => update.size(),
            Self::Tip(_) | Self::Known(..) => size_of::<Self>(),
        }
    }
}

impl MirrorPlace {
    /// Device and number of the file that stands there.
    fn file(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).map(|file| (file.dev(), file.ino())).ok()
    }

    /// Refuses, before the node starts, a mirror that no waiting makes right: the database itself, a file that is no mirror, another
    /// node's or network's, or one that a newer version wrote. A file that is not there, or cannot be read now, is none of these.
    /// The text says what is wrong and what to do.
    pub fn check(&self, database: &Path) -> Result<(), String> {
        let path = self.path.display();
        let is_database = || Err(format!("{path} is the node's own database; name a file on another disk"));
        if is_same_file(&self.path, database) {
            return is_database();
        }
        let sidecars = [self.path.parent(), database.parent()].map(|dir| dir.and_then(|dir| dir.canonicalize().ok()));
        if let [Some(here), Some(there)] = sidecars
            && here == there
            && self.path.file_name() == database.file_name()
        {
            return is_database();
        }
        match self.opened() {
            Ok(_) | Err(StoreError::Io(_)) => Ok(()),
            // It is a copy: what is damaged may be moved away.
            Err(StoreError::Corrupt { path, reason }) => Err(format!("{}: {reason}; {DAMAGED}", path.display())),
            Err(
                fault @ (StoreError::Newer { .. }
                | StoreError::Companion { .. }
                | StoreError::Missing { .. }
                | StoreError::OnlyJournal { .. }
                | StoreError::NoJournal { .. }
                | StoreError::Apart { .. }
                | StoreError::DeadLink(_)
                | StoreError::InUse(_)
                | StoreError::Foreign { .. }),
            ) => Err(fault.to_string()),
        }
    }

    /// Makes the mirror where there is none, and is for the first start with it: one that goes away later has what was completed,
    /// and an empty one in its place has not. Its directory must be there: it may be a disk that is away.
    pub fn make(&self) -> Result<(), StoreError> {
        if self.is_there()? { Ok(()) } else { self.create() }
    }

    fn is_there(&self) -> Result<bool, StoreError> {
        self.path.try_exists().map_err(|fault| StoreError::io_of(&self.path, fault))
    }

    /// The mirror's file, which must be there.
    fn opened(&self) -> Result<Database, StoreError> {
        if !self.is_there()? {
            return Err(StoreError::io_of(&self.path, MISSING));
        }
        let check = |db: &Database| {
            if !is_mirror(db)? {
                let (found, wanted) = ("a node's database".to_owned(), "a mirror".to_owned());
                return Err(StoreError::Foreign { path: self.path.clone(), found, wanted });
            }
            check_identity(db, &self.path, &self.network, &self.node_id)
        };
        open_sound(&self.path, check).map(|(db, ())| db)
    }

    /// Made under another name and renamed when it is whole, so that a crash leaves no half of one.
    fn create(&self) -> Result<(), StoreError> {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let unfinished = self.path.with_file_name(format!("{name}.new"));
        match fs::remove_file(&unfinished) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(fault)),
            Ok(()) | Err(_) => {}
        }
        let db = Database::create(&unfinished).map_err(StoreError::from)?;
        initialise(&db, &self.network, &self.node_id)?;
        let transaction = db.begin_write()?;
        transaction
            .open_table(Table::Meta.definition())?
            .insert(MIRROR_KEY, seal(Table::Meta, MIRROR_KEY, &[1]).as_slice())?;
        transaction.commit()?;
        drop(db);
        fs::rename(&unfinished, &self.path).map_err(StoreError::io)?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_directory(dir).map_err(StoreError::io)
    }
}

/// Whether the file bears the mark of a mirror.
pub(in crate::store) fn is_mirror(db: &impl ReadableDatabase) -> Result<bool, StoreError> {
    let transaction = db.begin_read()?;
    match transaction.open_table(Table::Meta.definition()) {
        Ok(meta) => Ok(meta.get(MIRROR_KEY)?.is_some()),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}

/// Whether two names lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let name = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    name(one).is_some() && name(one) == name(other)
}

/// A fault of the file, as one of a sink: what is wrong with its contents stays wrong. Who reads may have it open yet when the thread
/// that writes opens it again.
fn fault_of(fault: StoreError) -> SinkFault {
    match fault {
        StoreError::Io(reason) => SinkFault::Passing(reason),
        StoreError::InUse(_) => SinkFault::Passing(fault.to_string()),
        StoreError::Corrupt { path, reason } => SinkFault::Lasting(format!("{}: {reason}; {DAMAGED}", path.display())),
        StoreError::Newer { .. }
        | StoreError::Companion { .. }
        | StoreError::Missing { .. }
        | StoreError::DeadLink(_)
        | StoreError::OnlyJournal { .. }
        | StoreError::NoJournal { .. }
        | StoreError::Apart { .. }
        | StoreError::Foreign { .. } => SinkFault::Lasting(fault.to_string()),
    }
}

impl Mirror {
    /// The mirror at this place, which was [checked](MirrorPlace::check).
    pub fn new(place: MirrorPlace, ends: SinkEnds) -> Self {
        let (jobs, queue) = crossbeam_channel::bounded(GROUP_LIMIT);
        let handle = Arc::new(Handle::of(place));
        let backlog = Arc::new(Backlog::default());
        let scribe = Scribe { handle: handle.clone(), backlog: backlog.clone(), ends: ends.clone() };
        let contained = ends.clone();
        let work = move || contain(move |words| contained.trouble(&broken(words)), || scribe.work(&queue));
        let thread = std::thread::spawn(work);
        Self { newest: HashMap::new(), jobs: Some(jobs), backlog, handle, ends, thread: Some(thread) }
    }

    fn hand_over(&mut self, job: Job) -> Answer {
        // The thread ends only with the process: it completes what it takes.
        if let Some(jobs) = &self.jobs
            && self.backlog.enter(job.size(), &self.ends)
        {
            let _ = jobs.send(job);
        }
        Answer::InProgress
    }

    fn whole(&mut self, channel: &ChannelId, full: &Full<'_>, id: u64) -> Answer {
        // The database failed, and the process ends for it.
        let Ok(image) = full.image() else { return Answer::InProgress };
        if image.is_live() {
            self.newest.insert(*channel, image.id);
        } else {
            self.newest.remove(channel);
        }
        self.hand_over(Job::Full(Box::new(image), id))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.jobs = None;
        // One that redb's panic has stopped never ends.
        if let Some(thread) = self.thread.take().filter(|_| !has_stopped(&self.ends)) {
            let _ = thread.join();
        }
    }
}

/// What is shown where redb panics over a file: it takes some pages at their word.
fn broken(words: &str) -> String {
    format!("{BROKEN} ({words}). Stop the node: {DAMAGED}")
}

const BROKEN: &str = "it is damaged so that nothing can be read or written";

/// What an operator does about a mirror that is damaged: it is a copy, and may be moved away.
pub const DAMAGED: &str = "it is damaged; move it away, and take this backup out of the configuration for one start: the next one \
    makes another";

fn has_stopped(ends: &SinkEnds) -> bool {
    ends.trouble_now().is_some_and(|(words, _)| words.starts_with(BROKEN))
}

impl Persist for Mirror {
    fn persist_new_channel(&mut self, channel: &ChannelId, _funding: OutPoint, full: &Full<'_>, id: u64) -> Answer {
        self.whole(channel, full, id)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        _funding: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        id: u64,
    ) -> Answer {
        let newest = self.newest.get(channel).copied();
        match update {
            Some(update) if newest.is_some_and(|newest| update.id <= newest) => {
                self.hand_over(Job::Known(*channel, id))
            }
            Some(update) if newest == Some(update.after) => {
                if update.is_last() {
                    self.newest.remove(channel);
                } else {
                    self.newest.insert(*channel, update.id);
                }
                self.hand_over(Job::Update(Arc::new(update.clone())))
            }
            Some(_) | None => self.whole(channel, full, id),
        }
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        self.hand_over(Job::Tip(Box::new(tip.clone())))
    }

    fn reader(&self) -> Option<Reader> {
        let (handle, ends) = (self.handle.clone(), self.ends.clone());
        Some(Box::new(move || Ok(Box::new(MirrorSource::beside(handle.clone(), ends.clone())?))))
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let (ends, handle) = (self.ends.clone(), self.handle.clone());
        let read = move || handle.database().and_then(|(db, _)| holdings_in(&db));
        let holdings = contain(move |words| ends.trouble(&broken(words)), read).map_err(|fault| {
            self.handle.close();
            fault_of(fault)
        })?;
        self.newest = holdings.iter().map(|holding| (holding.channel, holding.id)).collect();
        Ok(holdings)
    }
}

/// What a mirror holds: the channels that live.
fn holdings_in(db: &Database) -> Result<Vec<Holding>, StoreError> {
    let table = db.begin_read()?.open_table(Table::Persist.definition())?;
    let mut holdings = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let channel = key.value().try_into().map(ChannelId).map_err(|_| corrupt("a key of the wrong length"))?;
        holdings.push(Holding { channel, id: id_in(key.value(), value.value())? });
    }
    Ok(holdings)
}

/// The id in a row of `persist`.
fn id_in(key: &[u8], value: &[u8]) -> Result<u64, StoreError> {
    let row = unseal(Table::Persist, key, value).map_err(|fault| corrupt(&fault.to_string()))?;
    row.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("an id that is no number"))
}

fn corrupt(reason: &str) -> StoreError {
    StoreError::Corrupt { path: "a mirror".into(), reason: reason.to_owned() }
}

/// The thread that writes.
struct Scribe {
    handle: Arc<Handle>,
    backlog: Arc<Backlog>,
    ends: SinkEnds,
}

impl Scribe {
    fn work(self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut jobs = vec![first];
            while jobs.len() < GROUP_LIMIT
                && let Ok(next) = queue.try_recv()
            {
                jobs.push(next);
            }
            let ends = self.ends.clone();
            match ends.until_well(|| self.commit(&jobs)) {
                Some(Ok(())) => jobs.iter().for_each(|job| complete(&ends, job)),
                // The operator is shown what is wrong, and what waits for it waits on: a file that is damaged or another's may be
                // taken away, or the configuration changed, and no channel need die for it.
                Some(Err(_)) | None => return,
            }
            self.backlog.leave(jobs.iter().map(Job::size).sum());
        }
    }

    fn commit(&self, jobs: &[Job]) -> Result<(), SinkFault> {
        let committed = self.try_to_commit(jobs);
        if committed.is_err() {
            self.handle.close();
        }
        committed
    }

    fn try_to_commit(&self, jobs: &[Job]) -> Result<(), SinkFault> {
        let path = &self.handle.place.path;
        let passing = |words: &str| Err(SinkFault::Passing(format!("{}: {words}", path.display())));
        let (db, file) = self.handle.database().map_err(fault_of)?;
        if !write(&db, jobs).map_err(fault_of)? {
            return passing(ANOTHER);
        }
        // A file that was taken away while it was written to has it, and nobody will find it.
        if self.handle.stands(file) { Ok(()) } else { passing(GONE) }
    }
}

fn complete(ends: &SinkEnds, job: &Job) {
    match job {
        Job::Full(image, id) => ends.channel_monitor_updated(&image.channel, *id),
        Job::Update(update) => ends.channel_monitor_updated(&update.channel, update.id),
        Job::Known(channel, id) => ends.channel_monitor_updated(channel, *id),
        Job::Tip(_) => {}
    }
}

/// Says whether the file is the one that was written before; one that is not is left as it is.
fn write(db: &Database, jobs: &[Job]) -> Result<bool, StoreError> {
    let mut transaction = db.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // Peers choose some of our bytes: a one-phase commit could be steered into a checksum collision.
    transaction.set_two_phase_commit(true);
    for job in jobs {
        let follows = match job {
            Job::Full(image, _) => {
                write_image(&transaction, image)?;
                true
            }
            Job::Update(update) => write_update(&transaction, update)?,
            Job::Tip(tip) => {
                let row = seal(Table::Meta, TIP_KEY, &tip.encode());
                transaction.open_table(Table::Meta.definition())?.insert(TIP_KEY, row.as_slice())?;
                true
            }
            Job::Known(channel, id) => match stands_at(&transaction, channel)? {
                Some(at) => at >= *id,
                None => is_over(&transaction, channel)?,
            },
        };
        if !follows {
            return Ok(false);
        }
    }
    transaction.commit()?;
    Ok(true)
}

/// The id at which the rows of a channel that lives stand.
fn stands_at(transaction: &WriteTransaction, channel: &ChannelId) -> Result<Option<u64>, StoreError> {
    let ids = transaction.open_table(Table::Persist.definition())?;
    let row = ids.get(channel.0.as_slice())?;
    row.map(|row| id_in(&channel.0, row.value())).transpose()
}

fn is_over(transaction: &WriteTransaction, channel: &ChannelId) -> Result<bool, StoreError> {
    let closed = transaction.open_table(Table::ClosedChannel.definition())?;
    Ok(closed.get(channel.0.as_slice())?.is_some())
}

/// The rows of the image, and no other of the channel.
fn write_image(transaction: &WriteTransaction, image: &Image) -> Result<(), StoreError> {
    for table in tables() {
        let mut open = transaction.open_table(table.definition())?;
        let mut old = Vec::new();
        for entry in open.range(image.channel.0.as_slice()..)? {
            let key = entry?.0.value().to_vec();
            if !key.starts_with(&image.channel.0) {
                break;
            }
            old.push(key);
        }
        for key in old {
            open.remove(key.as_slice())?;
        }
    }
    // One that was never funded leaves nothing (FND-8).
    let rows = image.rows.iter().filter(|_| !image.is_forgotten());
    for ((table, key), value) in rows {
        transaction.open_table(table.definition())?.insert(key.as_slice(), seal(*table, key, value).as_slice())?;
    }
    write_id(transaction, &image.channel, Some(image.id).filter(|_| image.is_live()))
}

/// Says whether the update follows what stands there; else nothing of it is written. A commit that failed may have come to the
/// disk, and is made again: then all of it is there already, or the channel is over.
fn write_update(transaction: &WriteTransaction, update: &Update) -> Result<bool, StoreError> {
    match stands_at(transaction, &update.channel)? {
        Some(at) if at >= update.id => return Ok(true),
        Some(at) if at == update.after => {}
        None if update.is_last() || is_over(transaction, &update.channel)? => {}
        Some(_) | None => return Ok(false),
    }
    for change in &update.changes {
        let mut open = transaction.open_table(change.table.definition())?;
        match &change.value {
            Some(value) => {
                let row = seal(change.table, &change.key, value);
                open.insert(change.key.as_slice(), row.as_slice())?;
            }
            None => drop(open.remove(change.key.as_slice())?),
        }
    }
    write_id(transaction, &update.channel, Some(update.id).filter(|_| !update.is_last()))?;
    Ok(true)
}

/// The id of a channel that lives; one that is over is not held any more.
fn write_id(transaction: &WriteTransaction, channel: &ChannelId, id: Option<u64>) -> Result<(), StoreError> {
    let mut ids = transaction.open_table(Table::Persist.definition())?;
    match id {
        Some(id) => {
            let row = seal(Table::Persist, &channel.0, &id.to_be_bytes());
            ids.insert(channel.0.as_slice(), row.as_slice())?;
        }
        None => drop(ids.remove(channel.0.as_slice())?),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
