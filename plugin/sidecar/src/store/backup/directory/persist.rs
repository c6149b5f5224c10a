//! A directory as a sink.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use outrigger_bolt::id::{ChannelId, NodeId};

use super::alone::ALONE;
use super::{Directory, DirectoryFault, DirectorySource, Written};
use crate::store::backup::sealed::{Sealer, fits};
use crate::store::backup::source::{Source, SourceFault};
use crate::store::backup::{Answer, Full, Holding, Image, Persist, Reader, SinkEnds, SinkFault, TipRecord, Update};
use crate::store::ground::{Ground, system};

/// So often the files of one channel are tried, while the place takes others, before it waits alone.
const TRIES: u32 = 6;

/// So often a start looks at a channel whose files it cannot read.
const LOOKS: u32 = 3;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What an operator does where no channel can be read.
const UNREAD: &str = "nothing is written to this backup before it can be read, since it may hold more than the database. Mend the disk; \
    or move what cannot be read away, and it counts as lost and is written anew";

/// A [`Directory`] under the Persist contract. A disk that is away or full is waited for.
pub struct DirectorySink {
    path: PathBuf,
    owner: (String, NodeId),
    sealer: Arc<Sealer>,
    full_every: usize,
    ends: SinkEnds,
    ground: Arc<dyn Ground>,
    /// Nothing until its disk is there.
    directory: Option<Directory>,
    /// Channels of which something could not be read or was damaged when they were looked at, in words. What that had may be newer than
    /// the database.
    doubtful: HashMap<ChannelId, String>,
}

impl From<DirectoryFault> for SinkFault {
    fn from(fault: DirectoryFault) -> Self {
        match fault {
            // A form and a number of files prove nothing: an operator can mend both, and no channel is to be lost for them.
            DirectoryFault::Io { .. }
            | DirectoryFault::Newer { .. }
            | DirectoryFault::TooMany(_)
            | DirectoryFault::Ahead(_) => Self::Passing(fault.to_string()),
            DirectoryFault::OtherHistory(_) => Self::Lasting(fault.to_string()),
        }
    }
}

impl From<SourceFault> for SinkFault {
    fn from(fault: SourceFault) -> Self {
        match fault {
            SourceFault::Unreadable { .. } => Self::Passing(fault.to_string()),
            SourceFault::NotOurs { .. } => Self::Lasting(fault.to_string()),
        }
    }
}

impl DirectorySink {
    /// Keeps the channels of the node and network `owner` under `path`, a full write after each `full_every` updates.
    pub fn new(path: PathBuf, owner: (String, NodeId), sealer: Arc<Sealer>, full_every: usize, ends: SinkEnds) -> Self {
        let (ground, directory, doubtful) = (system(), None, HashMap::new());
        Self { path, owner, sealer, full_every, ends, ground, directory, doubtful }
    }

    /// The same on another file system.
    #[must_use]
    pub fn on(self, ground: Arc<dyn Ground>) -> Self {
        Self { ground, ..self }
    }

    fn directory(&mut self) -> Result<&mut Directory, DirectoryFault> {
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => {
                let (ground, owner) = (self.ground.clone(), (self.owner.0.as_str(), &self.owner.1));
                Directory::open(ground, &self.path, owner, self.sealer.clone(), self.full_every)?
            }
        };
        Ok(self.directory.insert(directory))
    }

    /// Does the work until it is done, or a fault comes that lasts, or the process ends. Where the files of this channel alone are at fault,
    /// it waits alone: an I/O fault is no permanent failure, and takes this backup from no other channel.
    fn answer(
        &mut self,
        channel: &ChannelId,
        work: impl Fn(&mut Directory) -> Result<Written, DirectoryFault>,
    ) -> (Answer, Option<Written>) {
        let (ends, mut tries) = (self.ends.clone(), 0_u32);
        let done = ends.until_well(|| match self.directory().and_then(&work) {
            Ok(written) => Ok(Ok(written)),
            Err(fault) => {
                tries = tries.saturating_add(1);
                let is_tried = tries >= TRIES || matches!(fault, DirectoryFault::Ahead(_));
                let is_alone = is_tried && fault.may_be_of_one() && self.directory().is_ok_and(|place| place.works());
                // What stands there is read anew: the disk may be another one by then.
                self.directory = None;
                if is_alone { Ok(Err(fault)) } else { Err(fault.into()) }
            }
        });
        match done {
            Some(Ok(Ok(written))) => (Answer::Completed, Some(written)),
            Some(Ok(Err(fault))) => {
                let unread = self.doubtful.get(channel).map(|words| format!(" ({words})")).unwrap_or_default();
                let words = format!("channel {channel}: {fault}{unread}; {ALONE}");
                tracing::error!(words, "the files of a channel in a backup cannot be used");
                self.ends.waits_alone(channel, &words);
                (Answer::InProgress, None)
            }
            Some(Err(fault)) => (Answer::PermanentFailure(fault.to_string()), None),
            None => (Answer::InProgress, None),
        }
    }

    fn write_full(&mut self, channel: &ChannelId, full: &Full<'_>) -> Answer {
        let Ok(image) = full.image() else { return Answer::InProgress };
        let content = image.encode();
        if !fits(&self.ends, channel, content.len()) {
            return Answer::InProgress;
        }
        let is_doubtful = self.doubtful.contains_key(channel);
        let write = |directory: &mut Directory| {
            if is_doubtful {
                directory.check_no_newer(channel, image.id)?;
            }
            directory.write_full(channel, image.id, &content)
        };
        let answer = self.answer(channel, write).0;
        if answer == Answer::Completed {
            self.doubtful.remove(channel);
        }
        self.retire_if(!image.is_live(), channel);
        answer
    }

    /// What is held of a channel, in some looks; else why that cannot be told.
    fn held(&mut self, source: &mut DirectorySource, channel: &ChannelId) -> Result<Option<Holding>, String> {
        let mut looks = 1;
        loop {
            match self.looked_at(source, channel) {
                Err(_) if looks < LOOKS && self.ends.pause(PAUSE) => looks = looks.saturating_add(1),
                found => return found,
            }
        }
    }

    fn looked_at(&mut self, source: &mut DirectorySource, channel: &ChannelId) -> Result<Option<Holding>, String> {
        // What is held counts as complete.
        let settled = self.directory().and_then(|directory| directory.settle(channel));
        settled.map_err(|fault| fault.to_string())?;
        let mut stored = source.read(channel).map_err(|fault| fault.to_string())?;
        if let Some(words) = stored.unread.first() {
            return Err(words.clone());
        }
        let image = stored.image();
        for fault in &stored.faults {
            tracing::warn!(%channel, %fault, "a backup is damaged: it is written anew");
            self.doubtful.insert(*channel, fault.clone());
        }
        // One that is over is left out: the database may not know it any more.
        Ok(image.filter(Image::is_live).map(|image| Holding { channel: *channel, id: image.id }))
    }

    /// Nobody waits for it: a channel that stays where it is costs a start that looks at it.
    fn retire_if(&mut self, is_over: bool, channel: &ChannelId) {
        let retired = self.directory.as_mut().filter(|_| is_over).map(|directory| directory.retire(channel));
        if let Some(Err(fault)) = retired {
            tracing::warn!(%channel, %fault, "a channel that is over stays among those that live in a backup");
        }
    }
}

impl Persist for DirectorySink {
    fn persist_new_channel(&mut self, channel: &ChannelId, _: OutPoint, full: &Full<'_>, _: u64) -> Answer {
        self.write_full(channel, full)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        _: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        _: u64,
    ) -> Answer {
        // Nothing is known to be there that it could follow, where not all could be read.
        let Some(update) = update.filter(|_| !self.doubtful.contains_key(channel)) else {
            return self.write_full(channel, full);
        };
        let content = update.encode();
        match self.answer(channel, |directory| directory.write_update(channel, (update.after, update.id), &content)) {
            (_, Some(Written::NeedsFull)) => self.write_full(channel, full),
            (answer, _) => {
                self.retire_if(update.is_last() && answer == Answer::Completed, channel);
                answer
            }
        }
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        let content = tip.encode();
        match self.directory().and_then(|directory| directory.write_tip(tip.height, &content)) {
            Ok(_) => {
                self.ends.well();
                Answer::Completed
            }
            // Nobody waits for it: the next one is tried.
            Err(fault) => {
                self.ends.trouble(&fault.to_string());
                self.directory = None;
                Answer::InProgress
            }
        }
    }

    fn reader(&self) -> Option<Reader> {
        let (path, owner, sealer) = (self.path.clone(), self.owner.clone(), self.sealer.clone());
        Some(Box::new(move || Ok(Box::new(DirectorySource::open(&path, (&owner.0, &owner.1), sealer.clone())?))))
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        self.directory()?;
        let mut source = DirectorySource::open(&self.path, (&self.owner.0, &self.owner.1), self.sealer.clone())?;
        self.doubtful.clear();
        let (mut holdings, mut unread) = (Vec::new(), HashMap::new());
        let living = source.living()?;
        for channel in &living {
            match self.held(&mut source, channel) {
                Ok(holding) => holdings.extend(holding),
                // It costs no other channel: it is written anew, where nothing that is there is named as newer.
                Err(words) => {
                    tracing::warn!(%channel, %words, "a channel of a backup cannot be read: it is written anew");
                    unread.insert(*channel, words);
                }
            }
        }
        // That is the disk's fault and no channel's.
        if let Some(words) = unread.values().next().filter(|_| unread.len() > 1 && unread.len() == living.len()) {
            return Err(SinkFault::Passing(format!("{words}; {UNREAD}")));
        }
        self.doubtful.extend(unread);
        Ok(holdings)
    }
}
