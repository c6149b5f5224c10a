//! A directory as a sink.

use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::OutPoint;
use outrigger_bolt::id::{ChannelId, NodeId};

use super::{Directory, DirectoryFault, DirectorySource, Written};
use crate::store::backup::sealed::{Sealer, fits};
use crate::store::backup::source::{Source, SourceFault};
use crate::store::backup::{Answer, Full, Holding, Image, Persist, Reader, SinkEnds, SinkFault, TipRecord, Update};

/// What an operator does where the disk cannot be read.
const UNREAD: &str = "nothing is written to this backup before it can be read, since it may hold more than the database. Mend the disk; \
    or move what cannot be read away, and it counts as lost and is written anew";

/// A [`Directory`] under the Persist contract. A disk that is away or full is waited for.
pub struct DirectorySink {
    path: PathBuf,
    owner: (String, NodeId),
    sealer: Arc<Sealer>,
    full_every: usize,
    ends: SinkEnds,
    /// Nothing until its disk is there.
    directory: Option<Directory>,
}

impl From<DirectoryFault> for SinkFault {
    fn from(fault: DirectoryFault) -> Self {
        match fault {
            // A form and a number of files prove nothing: an operator can mend both, and no channel is to be lost for them.
            DirectoryFault::Io { .. } | DirectoryFault::Newer { .. } | DirectoryFault::TooMany(_) => {
                Self::Passing(fault.to_string())
            }
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
        Self { path, owner, sealer, full_every, ends, directory: None }
    }

    fn directory(&mut self) -> Result<&mut Directory, DirectoryFault> {
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => Directory::open(&self.path, (&self.owner.0, &self.owner.1), self.sealer.clone(), self.full_every)?,
        };
        Ok(self.directory.insert(directory))
    }

    /// Does the work until it is done, or a fault comes that lasts, or the process ends.
    fn answer(
        &mut self,
        work: impl Fn(&mut Directory) -> Result<Written, DirectoryFault>,
    ) -> (Answer, Option<Written>) {
        let ends = self.ends.clone();
        let done = ends.until_well(|| match self.directory().and_then(&work) {
            Ok(written) => Ok(written),
            Err(fault) => {
                // What stands there is read anew: the disk may be another one by then.
                self.directory = None;
                Err(fault.into())
            }
        });
        match done {
            Some(Ok(written)) => (Answer::Completed, Some(written)),
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
        let answer = self.answer(|directory| directory.write_full(channel, image.id, &content)).0;
        self.retire_if(!image.is_live(), channel);
        answer
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
        let Some(update) = update else { return self.write_full(channel, full) };
        let content = update.encode();
        match self.answer(|directory| directory.write_update(channel, (update.after, update.id), &content)) {
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
        let mut holdings = Vec::new();
        for channel in source.living()? {
            // What is held counts as complete.
            self.directory()?.settle(&channel)?;
            let mut stored = source.read(&channel)?;
            // What cannot be read may be newer than the database: it is asked for again, and nothing is written over it before.
            if let Some(words) = stored.unread.first() {
                return Err(SinkFault::Passing(format!("{words}; {UNREAD}")));
            }
            let image = stored.image();
            for fault in &stored.faults {
                tracing::warn!(%channel, %fault, "a backup is damaged: it is written anew");
            }
            // One that is over is left out: the database may not know it any more.
            holdings.extend(image.filter(Image::is_live).map(|image| Holding { channel, id: image.id }));
        }
        Ok(holdings)
    }
}
