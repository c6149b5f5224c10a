//! A channel whose own files are at fault: it waits alone, and the others of its place go on.

use std::io;

use outrigger_bolt::id::ChannelId;

use super::{Directory, DirectoryFault, NOTE, UNFINISHED, with_suffix};

/// What an operator does about a record that cannot be read and is newer than the database.
pub(super) const AHEAD: &str = "an old copy of the database may have been put back, so nothing is written over that record. Mend the \
    disk, so that it can be read; or, where you know the database to be the newest, move the record away, and nothing else. Then start again";

/// What it means that a channel waits alone.
pub(super) const ALONE: &str =
    "this channel waits, and others go on: it is given to this backup again at the next start";

impl DirectoryFault {
    /// Whether it may be of one channel's own files, and not of the place. Of a disk that is full it is not: room comes back.
    pub(super) fn may_be_of_one(&self) -> bool {
        match self {
            Self::Io { reason, .. } => {
                !matches!(reason.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Newer { .. } | Self::TooMany(_) | Self::Ahead(_) => true,
            Self::OtherHistory(_) => false,
        }
    }
}

impl Directory {
    /// Refuses a channel of which a record is named that is newer than this id.
    pub(super) fn check_no_newer(&mut self, channel: &ChannelId, id: u64) -> Result<(), DirectoryFault> {
        match self.names(channel)?.newest() {
            Some(newest) if newest > id => Err(DirectoryFault::Ahead(self.root.join(channel.to_string()))),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the place takes a file, whatever is wrong with those of one channel.
    pub(super) fn works(&self) -> bool {
        let trial = with_suffix(&self.root.join(NOTE), UNFINISHED);
        let made =
            self.ground.create(&trial).and_then(|file| self.ground.sync(&file)).and_then(|()| self.sync(&self.root));
        let removed = self.ground.remove(&trial);
        made.and(removed).is_ok()
    }
}
