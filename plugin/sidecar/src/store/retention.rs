//! How long events are kept. The writer deletes them in its own commits, a chunk in each that brings new ones, so that nothing waits for
//! it: limits are passed by what comes between two such commits, and hold again with the next ones.

use redb::{Database, ReadableDatabase, ReadableTable};

use super::StoreError;
use super::journal::rows::SealedRow;
use super::read::unreadable;
use super::row::EventRow;
use super::schema::{EVENT_BYTES_KEY, Table};
use super::seal::{seal, unseal};

/// The most events that one commit deletes; twice as many as it brings, where those are more.
const CHUNK: usize = 64;

/// What is kept of events. Of each limit, 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventLimits {
    /// Bytes of all rows, keys included.
    pub bytes: u64,
    /// Seconds by which an event may be older than the newest, or than the latest that it can be, where the newest says later.
    pub secs: u64,
}

/// The events of a database.
#[derive(Debug)]
pub(super) struct Retention {
    pub(super) limits: EventLimits,
    /// No event is taken for later than this says, in seconds since 1970, when others are counted back from it.
    pub(super) latest: fn() -> u64,
    next_seq: u64,
    /// None is kept that is older.
    oldest_seq: u64,
    /// Its time, where that is known.
    oldest_at: Option<u64>,
    bytes: u64,
}

impl Retention {
    /// The events of this database. Their bytes are added up by a walk where nobody has counted them yet.
    pub(super) fn of(db: &Database) -> Result<Self, StoreError> {
        let transaction = db.begin_read()?;
        let table = transaction.open_table(Table::Event.definition())?;
        let number = |key: &[u8]| key.try_into().map(u64::from_be_bytes).map_err(|_| unreadable("a key"));
        let oldest = table.first()?.map(|(key, _)| number(key.value())).transpose()?;
        let newest = table.last()?.map(|(key, _)| number(key.value())).transpose()?;
        let next_seq = newest.map_or(1, |newest| newest.saturating_add(1));
        let meta = transaction.open_table(Table::Meta.definition())?;
        let counted = meta.get(EVENT_BYTES_KEY)?.and_then(|row| {
            let row = unseal(Table::Meta, EVENT_BYTES_KEY, row.value()).ok()?;
            row.try_into().ok().map(u64::from_be_bytes)
        });
        let bytes = match counted {
            Some(bytes) => bytes,
            None => {
                let sizes = table.iter()?.map(|entry| entry.map(|(key, row)| size(key.value(), row.value())));
                sizes.sum::<Result<u64, _>>()?
            }
        };
        let limits = EventLimits::default();
        Ok(Self {
            limits,
            latest: || u64::MAX,
            next_seq,
            oldest_seq: oldest.unwrap_or(next_seq),
            oldest_at: None,
            bytes,
        })
    }

    /// The newest event; 0 before the first.
    pub(super) fn last_seq(&self) -> u64 {
        self.next_seq.saturating_sub(1)
    }

    /// The rows of a commit that brings these events: theirs, those that go, and what all of them have then.
    pub(super) fn rows(&mut self, db: &Database, events: &[EventRow]) -> Result<Vec<SealedRow>, StoreError> {
        let Some(newest) = events.iter().map(|event| event.at).max() else { return Ok(Vec::new()) };
        let now = newest.min((self.latest)());
        let (first_new, mut rows) = (self.next_seq, Vec::with_capacity(events.len().saturating_add(1)));
        for event in events {
            let key = self.next_seq.to_be_bytes().to_vec();
            let value = seal(Table::Event, &key, &event.encode());
            self.bytes = self.bytes.saturating_add(size(&key, &value));
            self.next_seq = self.next_seq.saturating_add(1);
            rows.push(SealedRow { table: Table::Event, key, value: Some(value) });
        }
        if self.is_over(now) {
            self.drop_oldest(db, first_new, now, CHUNK.max(events.len().saturating_mul(2)), &mut rows)?;
        }
        let bytes = seal(Table::Meta, EVENT_BYTES_KEY, &self.bytes.to_be_bytes());
        rows.push(SealedRow { table: Table::Meta, key: EVENT_BYTES_KEY.to_vec(), value: Some(bytes) });
        Ok(rows)
    }

    /// Whether the oldest event is to go, or its time not known.
    fn is_over(&self, now: u64) -> bool {
        let EventLimits { bytes, secs } = self.limits;
        let is_old = |at: u64| at.saturating_add(secs) < now;
        (bytes != 0 && self.bytes > bytes) || (secs != 0 && self.oldest_at.is_none_or(is_old))
    }

    /// Drops `most` of the oldest, as long as they are over a limit. What this commit brings stays: the numbers of events go on from the
    /// newest row.
    fn drop_oldest(
        &mut self,
        db: &Database,
        first_new: u64,
        now: u64,
        most: usize,
        rows: &mut Vec<SealedRow>,
    ) -> Result<(), StoreError> {
        let table = db.begin_read()?.open_table(Table::Event.definition())?;
        let (from, to) = (self.oldest_seq.to_be_bytes(), first_new.to_be_bytes());
        let mut dropped = 0;
        for entry in table.range(from.as_slice()..to.as_slice())? {
            let (key, row) = entry?;
            let (key, row) = (key.value(), row.value());
            self.oldest_seq = key.try_into().map(u64::from_be_bytes).map_err(|_| unreadable("a key"))?;
            // A damaged one has no time, and is of no use.
            let event = unseal(Table::Event, key, row).ok().and_then(|row| EventRow::decode(row).ok());
            self.oldest_at = Some(event.map_or(0, |event| event.at));
            if dropped == most || !self.is_over(now) {
                return Ok(());
            }
            rows.push(SealedRow { table: Table::Event, key: key.to_vec(), value: None });
            self.bytes = self.bytes.saturating_sub(size(key, row));
            dropped = dropped.saturating_add(1);
        }
        (self.oldest_seq, self.oldest_at) = (first_new, None);
        Ok(())
    }
}

fn size(key: &[u8], row: &[u8]) -> u64 {
    (key.len() as u64).saturating_add(row.len() as u64)
}
