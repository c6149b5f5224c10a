//! Whether a restore would bring back what there is, looked at while the node runs: every channel of the database is restored from
//! the backup into a database of its own, as a start would load it, and held against the rows of the same id.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use outrigger_bolt::id::ChannelId;
use redb::{Database, ReadTransaction, ReadableDatabase};

use super::Image;
use super::kept::{id_in, rows_in, tables};
use super::source::{Source, StoredChannel};
use crate::store::StoreError;
use crate::store::restore::Restore;
use crate::store::restore::compare::{Life, difference, is_own, living};
use crate::store::schema::Table;

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

/// Rows of a channel, in bytes, beyond which it is not tried while the node runs: a try holds some copies of it.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many channels would be restored as they are.
    Right(usize),
    /// Nothing was found wrong, and these channels are too large to be tried, in words too.
    Partly(Vec<ChannelId>, String),
    /// Nothing was found wrong, and not every channel could be compared: it is looked again later.
    Later(String),
    /// Nothing was found wrong, and something could not be read: the backup may be away for a while, in words.
    Unread(String),
    /// It would not bring back what there is, in words.
    Wrong(String),
}

/// What one look at one thing found.
enum Seen {
    Right,
    /// It is over here by now.
    Gone,
    /// It has so many bytes of rows that it is not tried.
    TooLarge(u64),
    /// The backup is behind or in trouble, or the rows moved on faster than they could be read.
    Elsewhere(String),
    /// The backup did not let it be read, while nothing moved.
    Unread(String),
    /// What is wrong, while nothing moved.
    Wrong(String),
}

/// A backup beside the database that it is held against.
pub struct Look<'a> {
    pub restore: &'a Restore<'a>,
    pub db: &'a Database,
    /// The id up to which the backup says that it has all of a channel; nothing where it is not to have it.
    pub complete: &'a dyn Fn(&ChannelId) -> Option<u64>,
    /// Whether it was given a record of the chain since the start.
    pub has_tip: &'a dyn Fn() -> bool,
    /// Whether nothing troubles the backup now: what cannot be read meanwhile is no fault of what it holds.
    pub is_well: &'a dyn Fn() -> bool,
    /// Waits so long; false where the process ends.
    pub pause: &'a dyn Fn(Duration) -> bool,
}

/// What came of all looks so far.
#[derive(Default)]
struct Sum {
    right: usize,
    large: Vec<ChannelId>,
    too_large: Vec<String>,
    later: Vec<String>,
    unread: Vec<String>,
    wrong: Vec<String>,
}

impl Sum {
    fn take_in(&mut self, what: &str, seen: Seen) {
        match seen {
            Seen::Right | Seen::Gone => {}
            Seen::TooLarge(bytes) => self.too_large.push(format!(
                "{what} has {bytes} bytes of rows, and {MOST_BYTES} are tried at most while the node runs: stop it and run \
                 outriggerd verify-backup"
            )),
            Seen::Elsewhere(words) => self.later.push(format!("{what}: {words}")),
            Seen::Unread(words) => self.unread.push(format!("{what}: {words}")),
            Seen::Wrong(words) => self.wrong.push(format!("{what}: {words}")),
        }
    }

    fn is_full(&self) -> bool {
        self.wrong.len() >= TOLD || self.later.len().saturating_add(self.unread.len()) >= LATE
    }

    fn verdict(mut self) -> Verdict {
        if !self.wrong.is_empty() {
            return Verdict::Wrong(self.wrong.join("; "));
        }
        if !self.unread.is_empty() {
            self.unread.truncate(TOLD);
            return Verdict::Unread(self.unread.join("; "));
        }
        if let Some(words) = self.later.pop() {
            return Verdict::Later(words);
        }
        self.too_large.truncate(TOLD);
        if self.large.is_empty() {
            Verdict::Right(self.right)
        } else {
            Verdict::Partly(self.large, self.too_large.join("; "))
        }
    }
}

impl Look<'_> {
    /// Looks at what the backup lists, at its record of the chain, and at every channel that lives. A fault is one of the database.
    pub fn verify(&self, source: &mut dyn Source) -> Result<Verdict, StoreError> {
        let mut sum = Sum::default();
        sum.take_in("what it lists", self.settled(&mut || self.list(source))?);
        sum.take_in("its record of the chain", self.settled(&mut || self.tip(source))?);
        // A transaction that was kept open would keep every page that is freed meanwhile.
        let channels = living(&self.db.begin_read()?)?;
        for channel in channels {
            let seen = self.settled(&mut || self.seen(source, &channel))?;
            sum.right = sum.right.saturating_add(usize::from(matches!(seen, Seen::Right)));
            sum.large.extend(matches!(seen, Seen::TooLarge(_)).then_some(channel));
            sum.take_in(&format!("channel {channel}"), seen);
            if sum.is_full() {
                break;
            }
        }
        Ok(sum.verdict())
    }

    /// What is seen of a thing once it holds still. What reads while the sink writes may find a record gone, so a fault counts when
    /// it stays: when the last looks that found one agree on it.
    fn settled(&self, look: &mut dyn FnMut() -> Result<Seen, StoreError>) -> Result<Seen, StoreError> {
        let (mut wrong, mut agree, mut last) = (String::new(), 0_usize, Seen::Gone);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 && !(self.pause)(PAUSE) {
                return Ok(Seen::Elsewhere("the process ends".to_owned()));
            }
            match look()? {
                seen @ (Seen::Right | Seen::Gone | Seen::TooLarge(_)) => return Ok(seen),
                seen @ (Seen::Elsewhere(_) | Seen::Unread(_)) => last = seen,
                Seen::Wrong(words) => {
                    agree = if words == wrong { agree.saturating_add(1) } else { 1 };
                    last = Seen::Elsewhere(words.clone());
                    wrong = words;
                }
            }
        }
        Ok(if agree >= AGREE { Seen::Wrong(wrong) } else { last })
    }

    /// What could not be read. What a backup refuses for a moment it has.
    fn unread(&self, words: impl std::fmt::Display) -> Seen {
        if (self.is_well)() {
            Seen::Unread(words.to_string())
        } else {
            Seen::Elsewhere(format!("the backup is in trouble ({words})"))
        }
    }

    /// What was odd in the answers of this look, where that is all that is amiss.
    fn odd(&self, source: &mut dyn Source) -> Seen {
        let odd = source.faults();
        if odd.is_empty() { Seen::Right } else { self.wrong(odd.join("; ")) }
    }

    /// What is wrong, unless the backup is in trouble.
    fn wrong(&self, words: impl std::fmt::Display) -> Seen {
        if (self.is_well)() {
            Seen::Wrong(words.to_string())
        } else {
            Seen::Elsewhere(format!("the backup is in trouble ({words})"))
        }
    }

    /// A restore goes by what the backup lists: what it lists and the database has never known tells that one of the two is another's, or
    /// an old copy, and what it does not list is not restored, whether or not it is there. The list is read first: a channel is in the
    /// database before a backup hears of it.
    fn list(&self, source: &mut dyn Source) -> Result<Seen, StoreError> {
        let listed = match source.channels() {
            Ok(listed) => listed.into_iter().collect::<HashSet<_>>(),
            Err(fault) => return Ok(self.unread(fault)),
        };
        if let Some(words) = source.unread().first() {
            return Ok(self.unread(words));
        }
        let transaction = self.db.begin_read()?;
        for channel in &listed {
            if Life::of(&transaction, channel)? == Life::Unknown {
                let words = "and this database does not know it, so it is an old copy, or another's";
                return Ok(self.wrong(format!("channel {channel} is there, {words}")));
            }
        }
        let has = |channel: &ChannelId| (self.complete)(channel).is_some_and(|complete| complete > 0);
        let missing = living(&transaction)?.into_iter().find(|channel| !listed.contains(channel) && has(channel));
        Ok(match missing {
            Some(channel) => self.wrong(format!("channel {channel} is not there, and it has told that it has it")),
            None => self.odd(source),
        })
    }

    /// The record of the chain that a restore would begin from. It is read before the database: what it names is durable there first.
    fn tip(&self, source: &mut dyn Source) -> Result<Seen, StoreError> {
        let has_tip = (self.has_tip)();
        let tip = match source.tip() {
            Ok(tip) => tip,
            Err(fault) => return Ok(self.unread(fault)),
        };
        if let Some(words) = source.unread().first() {
            return Ok(self.unread(words));
        }
        let tip = match tip {
            Some(bytes) => self.restore.tip_of(&bytes),
            None if has_tip => match source.faults() {
                odd if odd.is_empty() => Err("it was given one, and none can be read".to_owned()),
                odd => Err(odd.join("; ")),
            },
            None => return Ok(self.odd(source)),
        };
        let tip = match tip {
            Ok(tip) => tip,
            Err(words) => return Ok(self.wrong(words)),
        };
        let transaction = self.db.begin_read()?;
        for (channel, id) in tip.channels.iter().flatten() {
            let here = id_in(&transaction, channel)?;
            if *id > here {
                return Ok(
                    self.wrong(format!("it names write {id} of channel {channel}, and the database is at {here}"))
                );
            }
        }
        Ok(self.odd(source))
    }

    fn seen(&self, source: &mut dyn Source, channel: &ChannelId) -> Result<Seen, StoreError> {
        let Some(before) = Print::of(&self.db.begin_read()?, channel)? else { return Ok(Seen::Gone) };
        match (self.complete)(channel) {
            None => return Ok(Seen::Gone),
            Some(complete) if complete < before.id => return Ok(Seen::Elsewhere("the backup is late".to_owned())),
            Some(_) => {}
        }
        if before.bytes > MOST_BYTES {
            return Ok(Seen::TooLarge(before.bytes));
        }
        let read = source.read(channel).map_err(|fault| fault.to_string());
        let read =
            read.and_then(|stored| if stored.unread.is_empty() { Ok(stored) } else { Err(stored.unread.join("; ")) });
        let is_read = read.is_ok();
        let brought = read.and_then(|stored| self.brought_back(stored, before.id));
        let after = self.db.begin_read()?;
        if Life::of(&after, channel)? != Life::Living {
            return Ok(Seen::Gone);
        }
        let now = id_in(&after, channel)?;
        let words = match brought {
            Ok(image) if image.id == before.id && before.is_of(&image) => return Ok(Seen::Right),
            Ok(image) if image.id == now => match difference(&after, &image)? {
                None => return Ok(Seen::Right),
                Some(words) => words,
            },
            Ok(image) if image.id < before.id => {
                let words = "it has told that it has every write up to";
                format!("{words} {}, and what can be read of it ends with {}", before.id, image.id)
            }
            Ok(image) => format!("the backup is at write {}, and this is another one by now", image.id),
            Err(words) => words,
        };
        Ok(match (now == before.id, is_read) {
            (true, true) => self.wrong(words),
            (true, false) => self.unread(words),
            (false, _) => Seen::Elsewhere(format!("it moved on while it was read ({words})")),
        })
    }

    /// What would be restored of a channel from a backup that is complete up to `id`, or what is wrong with it.
    fn brought_back(&self, mut stored: StoredChannel, id: u64) -> Result<Image, String> {
        stored.cut_to(id);
        let Some(image) = stored.image().filter(|_| stored.faults.is_empty()) else {
            return Err(stored.faults.join("; "));
        };
        drop(stored);
        self.restore.read_back(image).map_err(|fault| fault.to_string())
    }
}

/// What the rows of a channel are known by when they have moved on: a try keeps no copy of them.
struct Print {
    id: u64,
    /// What they take.
    bytes: u64,
    /// Over its own rows, in their order; of rows that are not tried, over some.
    digest: sha256::Hash,
    /// Those that a backup may have more of. They go as soon as they are of no use.
    preimages: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Print {
    /// Of a channel that lives.
    fn of(transaction: &ReadTransaction, channel: &ChannelId) -> Result<Option<Self>, StoreError> {
        if Life::of(transaction, channel)? != Life::Living {
            return Ok(None);
        }
        let (mut bytes, mut digest, mut preimages) = (0_u64, sha256::Hash::engine(), BTreeMap::new());
        rows_in(transaction, channel, |table, key, row| {
            bytes = bytes.saturating_add(key.len() as u64).saturating_add(row.len() as u64);
            if bytes > MOST_BYTES {
                return;
            }
            if is_own(table) {
                take_in(&mut digest, table, key, row);
            } else {
                preimages.insert(key.to_vec(), row.to_vec());
            }
        })?;
        let id = id_in(transaction, channel)?;
        Ok(Some(Self { id, bytes, digest: sha256::Hash::from_engine(digest), preimages }))
    }

    /// Whether these are its rows.
    fn is_of(&self, image: &Image) -> bool {
        let mut digest = sha256::Hash::engine();
        for table in tables().filter(|table| is_own(*table)) {
            let rows = image.rows.range((table, Vec::new())..).take_while(|((found, _), _)| *found == table);
            rows.for_each(|((_, key), row)| take_in(&mut digest, table, key, row));
        }
        let has = |(key, row): (&Vec<u8>, &Vec<u8>)| image.rows.get(&(Table::Preimage, key.clone())) == Some(row);
        sha256::Hash::from_engine(digest) == self.digest && self.preimages.iter().all(has)
    }
}

/// A row with its place, so that no two lists of rows are taken for one another.
fn take_in(digest: &mut sha256::HashEngine, table: Table, key: &[u8], row: &[u8]) {
    let (name, lengths) =
        (table.name().as_bytes(), [key.len() as u64, row.len() as u64].map(u64::to_be_bytes).concat());
    [&[u8::try_from(name.len()).unwrap_or(u8::MAX)], name, &lengths, key, row]
        .iter()
        .for_each(|part| digest.input(part));
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
