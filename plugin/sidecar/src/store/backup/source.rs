//! Reading a backup: what every sink must be able to give back.

use outrigger_bolt::id::ChannelId;

use super::directory::Names;
use super::image::{Image, Update};
use super::sealed::RecordName;

/// A record that was read and is what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRecord {
    pub name: RecordName,
    pub content: Vec<u8>,
}

/// What a backup still has of a channel: a full write and the updates that follow it without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChannel {
    pub channel: ChannelId,
    /// Nothing where no full write can be read.
    pub full: Option<NamedRecord>,
    pub updates: Vec<NamedRecord>,
    /// The newest id that the backup tells of, whether or not it can be read.
    pub newest: Option<u64>,
    /// What is damaged or missing for certain, in words.
    pub faults: Vec<String>,
    /// What could not be read now and may be there all the same, in words.
    pub unread: Vec<String>,
}

/// Why there is no record of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRecord {
    /// It is not there, or damaged, in words: no other look finds it.
    Lost(String),
    /// It was refused, or its disk had a fault, in words: another look may find it.
    Unread(String),
}

/// Why nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    #[error("{place}: {reason}")]
    Unreadable { place: String, reason: String },
    #[error(
        "{place} has no backup of this node and network ({wanted}), but {found}: is it the right seed, and the right --network?"
    )]
    NotOurs { place: String, wanted: String, found: String },
}

impl SourceFault {
    /// The place and what is wrong with it.
    pub fn unreadable(place: impl std::fmt::Display, reason: impl std::fmt::Display) -> Self {
        Self::Unreadable { place: place.to_string(), reason: reason.to_string() }
    }
}

/// A backup that is read. Nothing in it is changed.
pub trait Source {
    /// Every channel that it has anything of.
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault>;

    /// What it has of one.
    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault>;

    /// The newest record of how far the chain was followed. Where that one is lost an older one may be given, and then
    /// [`faults`](Self::faults) or [`unread`](Self::unread) tell of it.
    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault>;

    /// What was odd in its answers since this was last asked, beside what was told of each channel, in words.
    fn faults(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What could not be read since this was last asked and may be there all the same, beside what was told of each channel, in words:
    /// a part of the list, or the record of the tip.
    fn unread(&mut self) -> Vec<String> {
        Vec::new()
    }
}

impl StoredChannel {
    /// The id that its records lead to.
    pub fn reached(&self) -> Option<u64> {
        let last = self.updates.last().or(self.full.as_ref())?;
        Some(last.name.id)
    }

    /// The channel as the records leave it, as far as they can be read and fit together; what is wrong beyond goes into `faults`.
    pub fn image(&mut self) -> Option<Image> {
        let full = self.full.as_ref()?;
        let mut image = match Image::decode(&full.content) {
            Ok(image) if image.channel == self.channel && image.id == full.name.id => image,
            Ok(_) => return self.unusable("the full write is of another channel or id"),
            Err(fault) => return self.unusable(&format!("the full write cannot be read: {fault}")),
        };
        for record in &self.updates {
            let applied = match Update::decode(&record.content) {
                Ok(update) if update.id == record.name.id => image.apply(&update).map_err(|gap| gap.to_string()),
                Ok(update) => Err(format!("update {} holds update {}", record.name.id, update.id)),
                Err(fault) => Err(format!("update {} cannot be read: {fault}", record.name.id)),
            };
            if let Err(fault) = applied {
                self.faults.push(fault);
                break;
            }
        }
        Some(image)
    }

    fn unusable(&mut self, fault: &str) -> Option<Image> {
        self.faults.push(fault.to_owned());
        None
    }

    /// A channel of which nothing was read.
    pub const fn nothing(channel: ChannelId) -> Self {
        Self { channel, full: None, updates: Vec::new(), newest: None, faults: Vec::new(), unread: Vec::new() }
    }

    fn lacks(&mut self, none: NoRecord) {
        match none {
            NoRecord::Lost(words) => self.faults.push(words),
            NoRecord::Unread(words) => self.unread.push(words),
        }
    }

    /// What is missing behind something that could not be read may be there with it: it is no fault before that was looked at again.
    fn misses(&mut self, words: String) {
        let told = if self.unread.is_empty() { &mut self.faults } else { &mut self.unread };
        told.push(words);
    }

    /// Reads the newest full write that can be read and what follows it, until something is missing or damaged.
    pub fn gather(
        channel: ChannelId,
        names: &Names,
        mut read: impl FnMut(RecordName) -> Result<NamedRecord, NoRecord>,
    ) -> Self {
        let mut stored = Self { newest: names.newest(), ..Self::nothing(channel) };
        for id in names.fulls.iter().rev() {
            match read(RecordName::full(channel, *id)) {
                Ok(full) => {
                    stored.full = Some(full);
                    break;
                }
                Err(none) => stored.lacks(none),
            }
        }
        let Some(mut id) = stored.reached() else {
            stored.misses("no full write of it can be read".to_owned());
            return stored;
        };
        while let Some(next) = names.updates.get(&id).filter(|next| **next > id) {
            match read(RecordName::update(channel, id, *next)) {
                Ok(update) => stored.updates.push(update),
                Err(none) => {
                    stored.lacks(none);
                    break;
                }
            }
            id = *next;
        }
        if let Some(newest) = stored.newest.filter(|newest| *newest > id) {
            stored.misses(format!("it has writes up to {newest}, and those after {id} cannot be used"));
        }
        stored
    }
}
