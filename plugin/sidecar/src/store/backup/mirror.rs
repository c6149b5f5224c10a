//! A mirror: a second redb file, best on another disk, with a journal beside it as the database has one (ADR 13, 16), and with the
//! same guarantees.
//!
//! It has the tables of the database, of which only those that sinks keep are filled, and a mark in `meta` by which neither is taken
//! for the other. What one commit of the database changed becomes one commit, with one sync.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use bitcoin::OutPoint;
use crossbeam_channel::Sender;
use outrigger_bolt::id::ChannelId;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::ends::{SinkEnds, SinkFault};
use super::image::{Image, TipRecord, Update};
use super::{Answer, Full, Holding, Persist, Reader};
use crate::fatal::contain;
use crate::store::StoreError;
use crate::store::schema::Table;
use crate::store::seal::unseal;

mod draft;
mod handle;
mod open;
mod place;
mod read;
mod record;
mod scribe;
mod watch;

use handle::{Backlog, Handle};
pub use place::MirrorPlace;
pub(in crate::store) use place::is_mirror;
pub use read::MirrorSource;
use scribe::Scribe;

/// The most that one commit of a mirror takes in.
const GROUP_LIMIT: usize = 4096;

/// What an operator does where a file was taken away while it was written to.
const GONE: &str = "it or its journal was deleted or replaced while the node runs: put back the files that were there";

/// What is told while files that came back are looked at again.
const CAME_BACK: &str = "other files have this name and its journal's, or they are being written: they are looked at again, and used when \
    nobody writes to them any more";

/// What is told of a file that cannot be understood while the node runs: it may be half of a copy.
const UNREADABLE: &str =
    "Where it is being copied to this place at the moment, let that end: the journal first, then the mirror. Else";

/// What an operator does where another file is in its place.
const ANOTHER: &str = "it is not the mirror as it was written, but an older copy or an empty one: put the right one back, with its \
    journal, or start again, and this one is filled";

/// What an operator does about a mirror and a journal that do not go together.
const UNPAIRED: &str = "the mirror and its journal are not of one time: one of the two is missing, an older copy or another's. Put back \
    the two that were there together. Where they are lost, move away what is there, and take this backup out of the configuration for \
    one start: the next one makes another";

/// What an operator does about a mirror that is damaged: it is a copy, and may be moved away.
pub const DAMAGED: &str = "it is damaged; move the mirror and its journal away, and take this backup out of the configuration for one \
    start: the next one makes another";

/// The sink. What it is given goes, when that is all for now, to a thread of its own, which commits what has gathered and completes all
/// of it.
pub struct Mirror {
    /// What was handed to the thread, by channel that lives: one that is over has no id there that an update could follow.
    newest: HashMap<ChannelId, u64>,
    /// What the thread is to get in one piece.
    gathered: Vec<Job>,
    jobs: Option<Sender<Vec<Job>>>,
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

/// What is wrong, and what to do about it.
fn words_of(fault: &StoreError) -> String {
    match fault {
        StoreError::Io(reason) => reason.clone(),
        StoreError::Corrupt { path, reason } => format!("{}: {reason}. {UNREADABLE} {DAMAGED}", path.display()),
        StoreError::NoJournal { path } | StoreError::Apart { path } => format!("{}: {UNPAIRED}", path.display()),
        StoreError::InUse(_)
        | StoreError::Newer { .. }
        | StoreError::Companion { .. }
        | StoreError::Missing { .. }
        | StoreError::DeadLink(_)
        | StoreError::OnlyJournal { .. }
        | StoreError::Foreign { .. } => fault.to_string(),
    }
}

/// The same to who would read it, and may have nothing else.
fn words_to_read(fault: &StoreError) -> String {
    match fault {
        StoreError::Corrupt { path, reason } => format!("{}: {reason}: keep it as it is", path.display()),
        StoreError::NoJournal { path } | StoreError::Apart { path } => format!(
            "{path}: the mirror and its journal are not of one time: one of the two is missing, an older copy or another's. Put the two \
             that were there together beside each other. Where the journal is lost for good, move away what stands in its place and make \
             an empty file {path}.lost: then what the mirror has alone is read, which may be older",
            path = path.display()
        ),
        StoreError::Io(_)
        | StoreError::InUse(_)
        | StoreError::Newer { .. }
        | StoreError::Companion { .. }
        | StoreError::Missing { .. }
        | StoreError::DeadLink(_)
        | StoreError::OnlyJournal { .. }
        | StoreError::Foreign { .. } => words_of(fault),
    }
}

/// A fault of the file, as one of a sink. Who reads may have it open yet when the thread that writes opens it again; a file that is
/// missing, half of a copy, damaged or another's may be put right while the node runs.
fn fault_of(fault: StoreError) -> SinkFault {
    let words = words_of(&fault);
    match fault {
        StoreError::Io(_)
        | StoreError::InUse(_)
        | StoreError::NoJournal { .. }
        | StoreError::Apart { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Foreign { .. } => SinkFault::Passing(words),
        StoreError::Newer { .. }
        | StoreError::Companion { .. }
        | StoreError::Missing { .. }
        | StoreError::DeadLink(_)
        | StoreError::OnlyJournal { .. } => SinkFault::Lasting(words),
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
        let (newest, gathered) = (HashMap::new(), Vec::new());
        Self { newest, gathered, jobs: Some(jobs), backlog, handle, ends, thread: Some(thread) }
    }

    fn hand_over(&mut self, job: Job) -> Answer {
        let size = job.size();
        // What waits here is not written, and leaves no room.
        if self.gathered.len() >= GROUP_LIMIT || !self.backlog.has_room(size) {
            self.all_given();
        }
        if self.backlog.enter(size, &self.ends) {
            self.gathered.push(job);
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
        // One that redb's panic has stopped takes nothing and never ends.
        let thread = self.thread.take().filter(|_| !has_stopped(&self.ends));
        if thread.is_some() {
            self.all_given();
        }
        self.jobs = None;
        drop(thread.map(JoinHandle::join));
    }
}

/// What is shown where redb panics over a file: it takes some pages at their word.
fn broken(words: &str) -> String {
    format!("{BROKEN} ({words}). Stop the node: {DAMAGED}")
}

const BROKEN: &str = "it is damaged so that nothing can be read or written";

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

    fn all_given(&mut self) {
        // The thread ends only with the process: it completes what it takes.
        if let Some(jobs) = self.jobs.as_ref().filter(|_| !self.gathered.is_empty()) {
            let _ = jobs.send(std::mem::take(&mut self.gathered));
        }
    }

    fn reader(&self) -> Option<Reader> {
        let (handle, ends) = (self.handle.clone(), self.ends.clone());
        Some(Box::new(move || Ok(Box::new(MirrorSource::beside(handle.clone(), ends.clone())?))))
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let (ends, handle) = (self.ends.clone(), self.handle.clone());
        let read = move || handle.look().and_then(|found| holdings_in(&found.db));
        let holdings = contain(move |words| ends.trouble(&broken(words)), read).map_err(|fault| {
            self.handle.close();
            fault_of(fault)
        })?;
        self.newest = holdings.iter().map(|holding| (holding.channel, holding.id)).collect();
        self.handle.holds(&holdings);
        Ok(holdings)
    }

    /// What the journal has is written to the mirror's own file and synced, also what the kernel alone had.
    fn settle(&mut self) -> Result<(), SinkFault> {
        let (ends, handle) = (self.ends.clone(), self.handle.clone());
        let open = move || handle.open().map(drop);
        contain(move |words| ends.trouble(&broken(words)), open).map_err(|fault| {
            self.handle.close();
            fault_of(fault)
        })
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

#[cfg(test)]
mod tests;
