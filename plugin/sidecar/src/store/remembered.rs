//! How long idempotency keys are remembered, and how a call is found by its `op_id`. Ids are in the order of time, and a table leads from
//! each to its key: so a commit that brings a key finds the oldest at the table's beginning, and nothing walks over all of them.

use std::ops::Bound;

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableError};

use super::journal::rows::SealedRow;
use super::read::unreadable;
use super::row::{InvoiceRow, OperationRow, OperationState};
use super::schema::{Table, UnderWay};
use super::seal::unseal;
use super::{Batch, Reader, StoreError};

/// How old a key is, in milliseconds, when it is forgotten: a thousand days.
const KEPT_MS: u64 = 1000 * 24 * 3600 * 1000;

/// The most keys that one commit looks at, and so the most that it forgets; twice as many as it brings, where those are more.
const CHUNK: usize = 64;

/// The bytes of an id that are its time, in milliseconds since 1970.
const TIME_BYTES: usize = 6;

impl Batch {
    /// Writes what a key answers from now on, and the id by which the call is found.
    pub fn remember(&mut self, operation: &OperationRow) {
        self.put(Table::OperationId, operation.op_id.to_vec(), Some(operation.key()));
        self.put(Table::Operation, operation.key(), Some(operation.encode()));
    }
}

impl Reader {
    /// The call of this id.
    pub fn operation_of(&self, op_id: &[u8; 16]) -> Result<Option<OperationRow>, StoreError> {
        let Some(ids) = ids(&self.transaction()?)? else { return Ok(None) };
        let Some(key) = ids.get(op_id.as_slice())? else { return Ok(None) };
        let key = unseal(Table::OperationId, op_id, key.value()).map_err(unreadable)?;
        let row = self.get(Table::Operation, key, OperationRow::decode)?;
        Ok(row.filter(|row| row.op_id == *op_id))
    }
}

/// Drops keys that are old.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    /// The last id that was looked at. Those up to it were dropped, or are under way and looked at again when all old ones were.
    passed: Option<Vec<u8>>,
}

impl Forgetting {
    /// The rows that go with a commit that writes these, which are sorted: none where it brings no key. A key is old by the time of the
    /// newest that comes, or by `latest` (unix seconds) where that is before it: one clock that is wrong makes none old.
    pub(super) fn rows(
        &mut self,
        db: &Database,
        written: &[SealedRow],
        latest: u64,
    ) -> Result<Vec<SealedRow>, StoreError> {
        let mut brought = written.iter().filter(|row| row.table == Table::OperationId && row.value.is_some());
        let Some(newest) = brought.next_back().and_then(|row| time_of(&row.key)) else { return Ok(Vec::new()) };
        let most = CHUNK.max(brought.count().saturating_add(1).saturating_mul(2));
        let now = newest.min(latest.saturating_mul(1000));
        let Some(oldest_kept) = now.checked_sub(KEPT_MS) else { return Ok(Vec::new()) };
        let transaction = db.begin_read()?;
        let Some(ids) = ids(&transaction)? else { return Ok(Vec::new()) };
        let found = Found::open(&transaction, now / 1000)?;
        let to = oldest_kept.to_be_bytes();
        let to = to.get(8 - TIME_BYTES..).unwrap_or_default();
        let passed = self.passed.as_deref().filter(|passed| *passed < to);
        let from = passed.map_or(Bound::Unbounded, Bound::Excluded);
        let old = ids.range::<&[u8]>((from, Bound::Excluded(to)))?;
        let (mut rows, mut last) = (Vec::new(), None);
        let mut looked_at = 0_usize;
        for entry in old.take(most) {
            let (id, value) = entry?;
            let id = id.value();
            looked_at = looked_at.saturating_add(1);
            last = Some(id.to_vec());
            // What is damaged says of nothing that it has ended, and is kept.
            let Ok(key) = unseal(Table::OperationId, id, value.value()) else { continue };
            let in_order = |row: &SealedRow| (row.table, row.key.as_slice()).cmp(&(Table::Operation, key));
            if written.binary_search_by(in_order).is_ok() {
                continue;
            }
            let is_its = match found.operation(key)? {
                Known::Needed => continue,
                Known::Nothing => false,
                Known::Over { op_id } => op_id == id,
            };
            rows.push(SealedRow { table: Table::OperationId, key: id.to_vec(), value: None });
            if is_its {
                rows.push(SealedRow { table: Table::Operation, key: key.to_vec(), value: None });
            }
        }
        // Where that was all, the next one begins anew.
        self.passed = last.filter(|_| looked_at == most);
        Ok(rows)
    }
}

/// What is known of the call of a key.
enum Known {
    /// Nothing: the key is gone.
    Nothing,
    /// It may still be under way.
    Needed,
    /// The call of this id, of which no more will come.
    Over { op_id: [u8; 16] },
}

/// The tables that say whether a call has ended.
struct Found {
    operations: Open,
    under_way: Open,
    invoices: Open,
    /// Unix seconds.
    now: u64,
}

type Open = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The ids of calls; none in a file that has had no call since there are ids.
fn ids(transaction: &ReadTransaction) -> Result<Option<Open>, StoreError> {
    match transaction.open_table(Table::OperationId.definition()) {
        Ok(open) => Ok(Some(open)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

impl Found {
    fn open(transaction: &ReadTransaction, now: u64) -> Result<Self, StoreError> {
        Ok(Self {
            operations: transaction.open_table(Table::Operation.definition())?,
            under_way: transaction.open_table(Table::UnderWay.definition())?,
            invoices: transaction.open_table(Table::Invoice.definition())?,
            now,
        })
    }

    fn operation(&self, key: &[u8]) -> Result<Known, StoreError> {
        let Some(value) = self.operations.get(key)? else { return Ok(Known::Nothing) };
        let row = unseal(Table::Operation, key, value.value()).map_err(unreadable);
        let Ok(row) = row.and_then(|row| OperationRow::decode(row).map_err(unreadable)) else {
            return Ok(Known::Needed);
        };
        let is_under_way = match row.state {
            OperationState::Opening => true,
            OperationState::Pending { .. } | OperationState::Failed { .. } | OperationState::Interrupted => {
                self.is_under_way(&UnderWay::Opening(row.idempotency_key))?
            }
            OperationState::Payment { payment_id } => self.is_under_way(&UnderWay::Payment(payment_id))?,
            OperationState::Sent { txid } => self.is_under_way(&UnderWay::Sent(txid))?,
            OperationState::Invoice { payment_hash } => self.is_payable(&payment_hash.0)?,
            OperationState::Address { .. } => false,
        };
        Ok(if is_under_way { Known::Needed } else { Known::Over { op_id: row.op_id } })
    }

    fn is_under_way(&self, begun: &UnderWay) -> Result<bool, StoreError> {
        Ok(self.under_way.get(begun.key().as_slice())?.is_some())
    }

    /// Whether the invoice is neither paid nor over its time; also where that cannot be read.
    fn is_payable(&self, hash: &[u8]) -> Result<bool, StoreError> {
        let Some(value) = self.invoices.get(hash)? else { return Ok(false) };
        let row = unseal(Table::Invoice, hash, value.value()).ok().and_then(|row| InvoiceRow::decode(row).ok());
        Ok(row.is_none_or(|row| row.paid.is_none() && row.expires_at > self.now))
    }
}

/// The time in an id, in milliseconds since 1970.
fn time_of(id: &[u8]) -> Option<u64> {
    Some(id.get(..TIME_BYTES)?.iter().fold(0, |time, byte| time << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
