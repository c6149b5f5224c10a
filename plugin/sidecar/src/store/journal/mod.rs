//! The journal beside the database: one record for each commit, durable by one sync. The same rows are in the database by
//! then as far as its readers go, and durable there at the next checkpoint. A start puts into the database what the journal
//! has and the database lost. `FORMAT.md` tells the layout and the crash argument, ADR 13 why.

pub mod image;
mod record;
pub mod rows;
mod shelf;
pub(crate) mod start;

use std::io;
use std::time::Duration;

use redb::{Database, Durability, ReadableDatabase, StorageBackend};

use super::StoreError;
use super::commit::apply;
use super::record::{BadRecord, RecordReader, RecordWriter};
use super::schema::{JOURNAL_KEY, Table};
use super::seal::{seal, unseal};
use crate::clock::Clock;

pub use record::Epoch;
pub use shelf::{Beside, Shelf};

use image::start_of;
use record::{Header, Key, PAGE};
use rows::SealedRow;

/// The name of the journal.
pub const FILE: &str = "outrigger.journal";

/// Bytes of each half of the journal. Epochs take the halves in turn.
pub const HALF_LEN: usize = 8 * 1024 * 1024;

/// What the database knows of its journal: a row of `meta`, rewritten by each checkpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct JournalRow {
    /// Stands in the journal too: it is this database's.
    pub id: [u8; 16],
    /// What the checks of its records are made with.
    pub key: [u8; 32],
    /// Its records that the database may lack are of this epoch.
    pub epoch: Epoch,
    /// There are none: the process ended well.
    pub is_closed: bool,
}

impl std::fmt::Debug for JournalRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalRow").field("epoch", &self.epoch).field("is_closed", &self.is_closed).finish()
    }
}

impl JournalRow {
    /// Of a journal that is made now.
    fn first() -> Result<Self, StoreError> {
        let epoch = Epoch { number: 1, salt: random()? };
        Ok(Self { id: random()?, key: random()?, epoch, is_closed: false })
    }

    /// The same journal in the next epoch.
    fn next(&self, is_closed: bool) -> Result<Self, StoreError> {
        let number = self.epoch.number.saturating_add(1);
        Ok(Self { epoch: Epoch { number, salt: random()? }, is_closed, ..self.clone() })
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1)
            .put(0, self.id)
            .put(2, self.key)
            .put(4, self.epoch.number.to_be_bytes())
            .put(6, self.epoch.salt)
            .put(8, [u8::from(self.is_closed)])
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let (id, key) = (record.array(0, "id")?, record.array(2, "key")?);
        let epoch = Epoch { number: record.u64(4, "epoch")?, salt: record.array(6, "salt")? };
        let is_closed = match record.u8(8, "state")? {
            0 => false,
            1 => true,
            2..=u8::MAX => return Err(BadRecord::Malformed("state")),
        };
        record.finish()?;
        Ok(Self { id, key, epoch, is_closed })
    }

    /// The row as `meta` holds it.
    pub(super) fn sealed(&self) -> Vec<u8> {
        seal(Table::Meta, JOURNAL_KEY, &self.encode())
    }

    fn in_database(db: &Database) -> Result<Option<Self>, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { path: super::FILE.into(), reason };
        let meta = db.begin_read()?.open_table(Table::Meta.definition())?;
        let Some(row) = meta.get(JOURNAL_KEY)? else { return Ok(None) };
        let row = unseal(Table::Meta, JOURNAL_KEY, row.value()).map_err(|fault| corrupt(fault.to_string()))?;
        Self::decode(row).map(Some).map_err(|fault| corrupt(fault.to_string()))
    }
}

/// The row as a write of the database; none takes it away.
pub(super) fn meta(row: Option<&JournalRow>) -> SealedRow {
    SealedRow { table: Table::Meta, key: JOURNAL_KEY.to_vec(), value: row.map(JournalRow::sealed) }
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    Clock::random_bytes().map_err(StoreError::io)
}

/// The journal of a database that runs.
#[derive(Debug)]
pub struct Journal {
    file: Box<dyn StorageBackend>,
    key: Key,
    half_len: usize,
    row: JournalRow,
    /// Where the next record stands, and its index.
    next: (usize, u64),
    /// A start found the epoch: the next record begins another, whose salt no copy of the directory has.
    is_found: bool,
    /// Where the newest two records of the epoch stand that were appended, and their indices.
    newest: [Option<(usize, u64)>; 2],
}

impl Journal {
    /// The journal in this file, whose newest epoch `row` names and has no record yet but its first.
    fn over(file: Box<dyn StorageBackend>, half_len: usize, row: JournalRow) -> Self {
        let next = (start_of(row.epoch.number, half_len).saturating_add(PAGE), 1);
        Self { file, key: Key::new(&row.key), half_len, row, next, is_found: false, newest: [None; 2] }
    }

    /// The same as a start found it, without any record but the first.
    fn found(self) -> Self {
        Self { is_found: true, ..self }
    }

    /// Whether a record with so many bytes fits into an epoch that has no other.
    pub(super) fn fits(&self, body_len: usize) -> bool {
        record::span(body_len) <= self.half_len.saturating_sub(PAGE)
    }

    /// Whether it may be appended: it fits behind those that stand, the database does not say that it has everything, and the epoch was
    /// begun since the start.
    pub(super) fn takes(&self, body_len: usize) -> bool {
        record::span(body_len) <= self.half_len.saturating_sub(self.used()) && !self.row.is_closed && !self.is_found
    }

    /// Whether a checkpoint should come before the epoch is full.
    pub(super) fn is_filling(&self) -> bool {
        self.used() > self.half_len / 2
    }

    /// Whether the database says that it has everything: not after another record.
    pub(super) fn is_closed(&self) -> bool {
        self.row.is_closed
    }

    /// Whether the database may lack anything.
    pub(super) fn has_records(&self) -> bool {
        self.next.1 > 1
    }

    /// Bytes of the epoch.
    fn used(&self) -> usize {
        self.next.0.saturating_sub(start_of(self.row.epoch.number, self.half_len))
    }

    /// Makes a record durable; it was asked whether it [takes](Self::takes) it. After a fault there must be no other. Gives how long
    /// the disk took.
    pub(super) fn append(&mut self, body: &[u8]) -> io::Result<Duration> {
        let (at, index) = self.next;
        let bytes = record::seal(&self.key, (self.row.epoch, index), at, body);
        self.file.write(at as u64, &bytes)?;
        let begun = Clock::monotonic();
        self.file.sync_data()?;
        self.next = (at.saturating_add(bytes.len()), index.saturating_add(1));
        let [last, _] = self.newest;
        self.newest = [Some((at, index)), last];
        Ok(Clock::monotonic().saturating_duration_since(begun))
    }

    /// Makes durable in the database what the journal alone has for good, and these rows with it, by a transaction that is two-phase:
    /// peers choose some of our bytes, and a one-phase commit could be steered into a checksum collision.
    ///
    /// The next epoch is begun before that in the other half: what stands there is in the database for good. The database goes on with
    /// the one that stands until it has the row that names the next. After a fault there must be no other: what a failed sync has left
    /// is seen and may be on no disk, so the database is to be opened anew, which writes its root again.
    pub(super) fn turn_over<'a>(
        &mut self,
        db: &Database,
        rows: impl IntoIterator<Item = &'a SealedRow>,
        is_closed: bool,
    ) -> Result<(), StoreError> {
        let next = self.row.next(is_closed)?;
        self.begin_as(&next).map_err(StoreError::io)?;
        let own = meta(Some(&next));
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.push(&own);
        apply(db, rows, Durability::Immediate, true)?;
        self.turn(next);
        Ok(())
    }

    /// Whether the file still has the record that begins the epoch and those that were appended last. Another file's bytes that were
    /// copied over it have not.
    pub(super) fn stands(&self) -> io::Result<bool> {
        let begins = (start_of(self.row.epoch.number, self.half_len), 0);
        let begins = Some(begins).filter(|_| !self.is_found);
        for (at, index) in self.newest.into_iter().flatten().chain(begins) {
            let mut bytes = [0; PAGE];
            self.file.read(at as u64, &mut bytes)?;
            let header = Header::of(&self.key, &bytes, at);
            if header.is_none_or(|header| (header.epoch, header.index) != (self.row.epoch, index)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn begin_as(&self, next: &JournalRow) -> io::Result<()> {
        let at = start_of(next.epoch.number, self.half_len);
        self.file.write(at as u64, &record::seal(&self.key, (next.epoch, 0), at, &[]))?;
        self.file.sync_data()
    }

    /// The database has this row for good: what comes now belongs to its epoch.
    fn turn(&mut self, row: JournalRow) {
        self.next = (start_of(row.epoch.number, self.half_len).saturating_add(PAGE), 1);
        (self.row, self.is_found, self.newest) = (row, false, [None; 2]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_journal_reads_back_and_shows_nobody_its_key() {
        let epoch = Epoch { number: 7, salt: [3; 16] };
        for is_closed in [false, true] {
            let row = JournalRow { id: [1; 16], key: [0x5a; 32], epoch, is_closed };
            assert_eq!(JournalRow::decode(&row.encode()), Ok(row.clone()));
            assert!(!format!("{row:?} {:?}", Key::new(&row.key)).contains("90"));
        }
        let row = JournalRow { id: [1; 16], key: [2; 32], epoch, is_closed: false }.encode();
        let (_, rest) = row.split_last().unwrap();
        assert_eq!(JournalRow::decode(&[rest, &[2]].concat()), Err(BadRecord::Malformed("state")));
    }
}
