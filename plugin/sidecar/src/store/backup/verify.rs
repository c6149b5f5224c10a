//! Whether a restore would bring back what there is, looked at while the node runs: every channel of the database is restored from
//! the backup into a database of its own, as a start would load it, and held against the rows of the same id.

use std::time::Duration;

use outrigger_bolt::id::ChannelId;
use redb::{Database, ReadableDatabase};

use super::Image;
use super::kept::image_in;
use super::source::{Source, StoredChannel};
use crate::store::StoreError;
use crate::store::restore::{Restore, difference, living};

/// How often a channel is looked at that moves on meanwhile, or that the backup is late with.
const ATTEMPTS: usize = 20;

/// Between two looks at one channel.
const PAUSE: Duration = Duration::from_millis(100);

/// So many looks at a channel that held still must agree on what is wrong.
const AGREE: usize = 3;

/// The most faults that are told.
const TOLD: usize = 8;

/// So many channels that could not be compared end a try: each has taken its whole time, and the backup is late with more.
const LATE: usize = 16;

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many channels would be restored as they are.
    Right(usize),
    /// Nothing was found wrong, and not every channel could be compared: it is looked again later.
    Later(String),
    /// It would not bring back what there is, in words.
    Wrong(String),
}

/// What one look at one channel found.
enum Seen {
    Right,
    /// It is over here by now.
    Gone,
    /// The backup is behind or in trouble, or the rows moved on faster than they could be read.
    Elsewhere(String),
    /// What is wrong, while nothing moved.
    Wrong(String),
}

/// A backup beside the database that it is held against.
pub struct Look<'a> {
    pub restore: &'a Restore<'a>,
    pub db: &'a Database,
    /// The id up to which the backup says that it has all of a channel; nothing where it is not to have it.
    pub complete: &'a dyn Fn(&ChannelId) -> Option<u64>,
    /// Whether nothing troubles the backup now: what cannot be read meanwhile is no fault of what it holds.
    pub is_well: &'a dyn Fn() -> bool,
    /// Waits so long; false where the process ends.
    pub pause: &'a dyn Fn(Duration) -> bool,
}

impl Look<'_> {
    /// Looks at every channel that lives. A fault is one of the database.
    pub fn verify(&self, source: &mut dyn Source) -> Result<Verdict, StoreError> {
        let (mut right, mut later, mut wrong) = (0_usize, Vec::new(), Vec::new());
        // A transaction that was kept open would keep every page that is freed meanwhile.
        let channels = living(&self.db.begin_read()?)?;
        for channel in channels {
            match self.settled(source, &channel)? {
                Seen::Right => right = right.saturating_add(1),
                Seen::Gone => {}
                Seen::Elsewhere(words) => later.push(format!("channel {channel}: {words}")),
                Seen::Wrong(words) => wrong.push(format!("channel {channel}: {words}")),
            }
            if wrong.len() >= TOLD || later.len() >= LATE {
                break;
            }
        }
        Ok(match (wrong.is_empty(), later.pop()) {
            (true, None) => Verdict::Right(right),
            (true, Some(words)) => Verdict::Later(words),
            (false, _) => Verdict::Wrong(wrong.join("; ")),
        })
    }

    /// What is seen of a channel once it holds still. What reads while the sink writes may find a record gone, so a fault counts when
    /// it stays: when the last looks that found one agree on it.
    fn settled(&self, source: &mut dyn Source, channel: &ChannelId) -> Result<Seen, StoreError> {
        let (mut wrong, mut agree, mut last) = (String::new(), 0_usize, String::new());
        for attempt in 0..ATTEMPTS {
            if attempt > 0 && !(self.pause)(PAUSE) {
                return Ok(Seen::Elsewhere("the process ends".to_owned()));
            }
            match self.seen(source, channel)? {
                seen @ (Seen::Right | Seen::Gone) => return Ok(seen),
                Seen::Elsewhere(words) => last = words,
                Seen::Wrong(words) => {
                    agree = if words == wrong { agree.saturating_add(1) } else { 1 };
                    last.clone_from(&words);
                    wrong = words;
                }
            }
        }
        Ok(if agree >= AGREE { Seen::Wrong(wrong) } else { Seen::Elsewhere(last) })
    }

    fn seen(&self, source: &mut dyn Source, channel: &ChannelId) -> Result<Seen, StoreError> {
        let Some(before) = self.image(channel)? else { return Ok(Seen::Gone) };
        match (self.complete)(channel) {
            None => return Ok(Seen::Gone),
            Some(complete) if complete < before.id => return Ok(Seen::Elsewhere("the backup is late".to_owned())),
            Some(_) => {}
        }
        let stored = source.read(channel);
        let Some(after) = self.image(channel)? else { return Ok(Seen::Gone) };
        let is_still = before.id == after.id;
        Ok(match self.compared(stored.map_err(|fault| fault.to_string()), before, after) {
            Seen::Wrong(words) if !is_still => Seen::Elsewhere(format!("it moved on while it was read ({words})")),
            Seen::Wrong(words) if !(self.is_well)() => Seen::Elsewhere(format!("the backup is in trouble ({words})")),
            seen @ (Seen::Right | Seen::Gone | Seen::Elsewhere(_) | Seen::Wrong(_)) => seen,
        })
    }

    /// What a backup has that is complete up to `before`, which became `after` while it was read.
    fn compared(&self, stored: Result<StoredChannel, String>, before: Image, after: Image) -> Seen {
        let mut stored = match stored {
            Ok(stored) => stored,
            Err(fault) => return Seen::Wrong(fault),
        };
        stored.cut_to(before.id);
        let Some(image) = stored.image().filter(|_| stored.faults.is_empty()) else {
            return Seen::Wrong(stored.faults.join("; "));
        };
        if image.id < before.id {
            let words = "it has told that it has every write up to";
            return Seen::Wrong(format!("{words} {}, and what can be read of it ends with {}", before.id, image.id));
        }
        let wanted = [before, after].into_iter().find(|wanted| wanted.id == image.id);
        let Some(wanted) = wanted else {
            return Seen::Elsewhere(format!("the backup is at write {}, and this is another one by now", image.id));
        };
        match self.restore.read_back(&image) {
            Ok(found) => difference(&wanted, &found).map_or(Seen::Right, Seen::Wrong),
            Err(fault) => Seen::Wrong(fault.to_string()),
        }
    }

    fn image(&self, channel: &ChannelId) -> Result<Option<Image>, StoreError> {
        let owner = (self.restore.network, &self.restore.node_id);
        Ok(Some(image_in(&self.db.begin_read()?, owner, channel)?).filter(Image::is_live))
    }
}

impl StoredChannel {
    /// Leaves out what came after this id, where the full write is no newer.
    fn cut_to(&mut self, id: u64) {
        if self.full.as_ref().is_some_and(|full| full.name.id <= id) {
            self.updates.retain(|update| update.name.id <= id);
        }
    }
}

#[cfg(test)]
mod tests;
