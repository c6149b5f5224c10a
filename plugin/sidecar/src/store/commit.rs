//! What makes a commit durable: a record of the journal, or, where there is none or it is turned over, a transaction of the
//! database that is synced twice. Numbers and sums that are only known within a commit are given here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use outrigger_bolt::amount::Msat;
use redb::{Database, Durability, ReadableDatabase, ReadableTable};

use super::StoreError;
use super::batch::{Batch, Write};
use super::forward::{FORWARDS_KEPT, ForwardTotals};
use super::generation::{self, Generation};
use super::journal::rows::{self, SealedRow};
use super::journal::{self, Journal};
use super::read::unreadable;
use super::remembered::Forgetting;
use super::retention::Retention;
use super::schema::{GENERATION_KEY, RESTORED_KEY, Table};
use super::seal::{seal, unseal};
use super::token::TokenId;
use super::writer::WriterStats;

/// Commits of a database without a journal between two that also save the allocator state, so that a start after a crash need
/// not walk the file. Its cost grows with the file, so it is not paid at each commit.
const ALLOCATOR_EVERY: u64 = 256;

/// Database and journal as the writer drives them.
pub(super) struct Keeper {
    db: Arc<Database>,
    /// None in restored mode, where it may belong to a newer database, and where nobody gave one.
    pub(super) journal: Option<Journal>,
    /// None where it does not rise: the file is known to be old, or stands in no directory.
    pub(super) generation: Option<Generation>,
    pub(super) events: Retention,
    keys: Forgetting,
    next_forward: u64,
    stats: Arc<WriterStats>,
}

impl Keeper {
    pub(super) fn new(db: Arc<Database>, stats: Arc<WriterStats>) -> Result<Self, StoreError> {
        Ok(Self {
            journal: None,
            generation: None,
            events: Retention::of(&db)?,
            keys: Forgetting::default(),
            next_forward: next_number(&db, Table::Forward)?,
            db,
            stats,
        })
    }

    /// The newest event on disk.
    pub(super) fn last_seq(&self) -> u64 {
        self.events.last_seq()
    }

    /// Makes the rows of a batch durable, and seen by every reader. After a fault there must be no other.
    pub(super) fn commit(&mut self, batch: &mut Batch, now: Option<Instant>) -> Result<(), StoreError> {
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        let is_proven_old = batch.writes.iter().any(is_restored);
        if is_proven_old {
            (self.generation, self.journal) = (None, None);
        }
        if let Some(age) = &mut self.generation {
            age.committed(now);
        }
        let mut rows = self.rows_of(batch)?;
        if is_proven_old {
            rows.push(journal::meta(None));
        }
        let body = if self.journal.is_some() { rows::encode(&rows) } else { Vec::new() };
        if batch.is_last || !self.journal.as_ref().is_some_and(|journal| journal.fits(body.len())) {
            return self.through(&rows, batch.is_last, now);
        }
        if !self.journal.as_ref().is_some_and(|journal| journal.takes(body.len())) {
            self.checkpoint(now)?;
        }
        if let Some(journal) = &mut self.journal {
            let took = journal.append(&body).map_err(|fault| StoreError::io_of(Path::new(journal::FILE), fault))?;
            self.stats.sync_times.observe(took);
        }
        apply(&self.db, &rows, Durability::None, false)
    }

    /// Whether a checkpoint is due however busy the node is: the journal fills up, or it is time for another generation.
    pub(super) fn is_checkpoint_due(&self, now: Option<Instant>) -> bool {
        let is_time = || self.generation.as_ref().is_some_and(|age| age.due(now, false).is_some());
        self.journal.as_ref().is_some_and(|journal| journal.is_filling() || (journal.has_records() && is_time()))
    }

    /// Whether the journal has what the database may lack.
    pub(super) fn is_ahead(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::has_records)
    }

    /// Makes durable in the database what the journal alone has for good, and begins the journal's next epoch.
    pub(super) fn checkpoint(&mut self, now: Option<Instant>) -> Result<(), StoreError> {
        self.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.through(&[], false, now)
    }

    /// A transaction of the database that is durable, and two-phase: peers choose some of our bytes, and a one-phase commit
    /// could be steered into a checksum collision. The journal, where there is one, turns over with it.
    ///
    /// Rows that come this way past the journal raise the generation: what is lost with them is known to be.
    fn through(&mut self, rows: &[SealedRow], is_last: bool, now: Option<Instant>) -> Result<(), StoreError> {
        let goes_past = self.journal.is_some() && !rows.is_empty();
        let number = self.generation.as_ref().and_then(|age| age.due(now, is_last || goes_past));
        let row = |number| SealedRow {
            table: Table::Meta,
            key: GENERATION_KEY.to_vec(),
            value: Some(generation::sealed(number)),
        };
        let own = number.map(row);
        let rows = rows.iter().chain(&own);
        match &mut self.journal {
            Some(journal) => journal.turn_over(&self.db, rows, is_last)?,
            None => {
                let saves = self.stats.commits.load(Ordering::Relaxed).is_multiple_of(ALLOCATOR_EVERY);
                apply(&self.db, rows, Durability::Immediate, saves)?;
            }
        }
        if let (Some(age), Some(number)) = (&mut self.generation, number) {
            age.is_durable(number, now)?;
        }
        Ok(())
    }

    /// The rows as the database is to hold them, table by table; of two writes of one key the later one stands.
    fn rows_of(&mut self, batch: &mut Batch) -> Result<Vec<SealedRow>, StoreError> {
        batch.writes.sort_by(|one, next| (one.table, &one.key).cmp(&(next.table, &next.key)));
        batch.writes.dedup_by(|later, kept| {
            let is_again = (later.table, &later.key) == (kept.table, &kept.key);
            if is_again {
                kept.value = later.value.take();
            }
            is_again
        });
        let mut rows = Vec::with_capacity(batch.writes.len());
        for Write { table, key, value } in std::mem::take(&mut batch.writes) {
            self.stats.wrote(&key, value.as_deref());
            let value = value.map(|value| seal(table, &key, &value));
            rows.push(SealedRow { table, key, value });
        }
        let forgotten = self.keys.rows(&self.db, &rows, (self.events.latest)())?;
        for row in forgotten.into_iter().chain(self.events.rows(&self.db, &batch.events)?) {
            self.stats.wrote(&row.key, row.value.as_deref());
            rows.push(row);
        }
        // As many rows as come in go out at the far end.
        for forward in &batch.forwards {
            rows.push(self.written(Table::Forward, self.next_forward.to_be_bytes().to_vec(), &forward.encode()));
            if let Some(oldest) = self.next_forward.checked_sub(FORWARDS_KEPT) {
                rows.push(SealedRow { table: Table::Forward, key: oldest.to_be_bytes().to_vec(), value: None });
            }
            self.next_forward = self.next_forward.saturating_add(1);
        }
        self.add_totals(batch, &mut rows)?;
        self.add_spent(batch, &mut rows)?;
        Ok(rows)
    }

    /// Sums get what is to be added to them.
    fn add_totals(&self, batch: &Batch, rows: &mut Vec<SealedRow>) -> Result<(), StoreError> {
        if batch.totals.is_empty() {
            return Ok(());
        }
        let open = self.db.begin_read()?.open_table(Table::ForwardTotals.definition())?;
        for (name, more) in &batch.totals {
            let key = name.encode();
            let mut sum = open.get(key.as_slice())?.map(|row| read_totals(&key, row.value())).unwrap_or_default();
            sum.add(more);
            rows.push(self.written(Table::ForwardTotals, key, &sum.encode()));
        }
        Ok(())
    }

    /// What was spent with tokens gets what is to be added. A token that is no more has no sum, and gets none.
    fn add_spent(&self, batch: &Batch, rows: &mut Vec<SealedRow>) -> Result<(), StoreError> {
        if batch.spent.is_empty() {
            return Ok(());
        }
        let open = self.db.begin_read()?.open_table(Table::TokenSpent.definition())?;
        for (token, more) in &batch.spent {
            let is_its = |row: &SealedRow| row.table == Table::TokenSpent && row.key == token;
            let sum = match rows.iter().position(is_its) {
                // Written in this very commit: the token is made, or taken back.
                Some(place) => rows.remove(place).value.map(|value| read_spent(token, &value)),
                None => open.get(token.as_slice())?.map(|row| read_spent(token, row.value())),
            };
            match sum {
                Some(sum) => {
                    let sum = more.applied(sum?).get().to_be_bytes();
                    rows.push(self.written(Table::TokenSpent, token.to_vec(), &sum));
                }
                None => rows.push(SealedRow { table: Table::TokenSpent, key: token.to_vec(), value: None }),
            }
        }
        Ok(())
    }

    fn written(&self, table: Table, key: Vec<u8>, row: &[u8]) -> SealedRow {
        self.stats.wrote(&key, Some(row));
        let value = Some(seal(table, &key, row));
        SealedRow { table, key, value }
    }
}

/// Writes rows in one transaction. `saves` says whether the allocator state goes with it.
pub(super) fn apply<'a>(
    db: &Database,
    rows: impl IntoIterator<Item = &'a SealedRow>,
    durability: Durability,
    saves: bool,
) -> Result<(), StoreError> {
    let rows: Vec<_> = rows.into_iter().collect();
    let mut transaction = db.begin_write()?;
    transaction.set_durability(durability)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(saves);
    for rows in rows.chunk_by(|one, next| one.table == next.table) {
        let Some(table) = rows.first().map(|row| row.table) else { continue };
        let mut open = transaction.open_table(table.definition())?;
        for row in rows {
            match &row.value {
                Some(value) => drop(open.insert(row.key.as_slice(), value.as_slice())?),
                None => drop(open.remove(row.key.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// From a proof that the file is old neither its generation nor the journal's epoch rises any more: a newer file may still be put
/// back, and is to find both as they were. The old one goes on without a journal, and never takes in again what one has.
fn is_restored(write: &Write) -> bool {
    write.table == Table::Meta && write.key == RESTORED_KEY
}

/// A sum as it stands. One that is damaged begins anew: no channel needs it, and nothing else may stop for it.
fn read_totals(key: &[u8], row: &[u8]) -> ForwardTotals {
    let read = unseal(Table::ForwardTotals, key, row).map_err(unreadable);
    read.and_then(|row| ForwardTotals::decode(row).map_err(unreadable)).unwrap_or_else(|fault| {
        tracing::error!(%fault, "the totals of a day's forwards were lost");
        ForwardTotals::default()
    })
}

/// A sum as it stands. One that is damaged is no sum: to begin anew would let the token spend again.
fn read_spent(token: &TokenId, row: &[u8]) -> Result<Msat, StoreError> {
    let row = unseal(Table::TokenSpent, token, row).map_err(unreadable)?;
    row.try_into().map(|sum| Msat::new(u64::from_be_bytes(sum))).map_err(|_| unreadable("a sum that is no number"))
}

/// One past the newest number on disk; the first is 1.
pub(super) fn next_number(db: &Database, table: Table) -> Result<u64, StoreError> {
    let table = db.begin_read()?.open_table(table.definition())?;
    let last = table.last()?.and_then(|(key, _)| key.value().try_into().ok().map(u64::from_be_bytes));
    Ok(last.map_or(1, |seq| seq + 1))
}
