//! Reads for callers: payments, invoices, events and operations come from the file, never from memory, so that nothing
//! is told that is not durable.

use std::ops::Bound;
use std::sync::Arc;

use outrigger_bolt::address::PeerAddress;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};

use super::StoreError;
use super::replay::ReplayRow;
use super::row::{BroadcastRow, EventRow, InvoiceRow, OperationRow, PaymentRow, SettlementRow};
use super::schema::{Table, UnderWay, numbered_key, parse_replay_height_key};
use super::seal::unseal;

/// The most rows that one page holds.
pub const PAGE_LIMIT: usize = 1000;

/// Point and range reads of released rows.
#[derive(Clone, Debug)]
pub struct Reader {
    db: Arc<Database>,
}

impl Reader {
    /// Reads from this file.
    pub fn new(db: Arc<Database>) -> Self {
        Self { db }
    }

    /// A payment by its id.
    pub fn payment(&self, payment_id: &[u8; 32]) -> Result<Option<PaymentRow>, StoreError> {
        self.get(Table::Payment, payment_id, PaymentRow::decode)
    }

    /// The newest payment for a hash.
    pub fn payment_by_hash(&self, hash: &PaymentHash) -> Result<Option<PaymentRow>, StoreError> {
        let id = self.get(Table::PaymentByHash, &hash.0, |bytes| Ok::<_, StoreError>(bytes.to_vec()))?;
        match id.and_then(|id| id.try_into().ok()) {
            Some(id) => self.payment(&id),
            None => Ok(None),
        }
    }

    /// The first `count` payments after this one, by id.
    pub fn payments(&self, after: Option<&[u8; 32]>, count: usize) -> Result<Vec<PaymentRow>, StoreError> {
        self.page(Table::Payment, after, count, PaymentRow::decode)
    }

    /// The first `count` invoices after this one, by payment hash.
    pub fn invoices(&self, after: Option<&PaymentHash>, count: usize) -> Result<Vec<InvoiceRow>, StoreError> {
        self.page(Table::Invoice, after.map(|hash| &hash.0), count, InvoiceRow::decode)
    }

    fn page<R, E: std::fmt::Display>(
        &self,
        table: Table,
        after: Option<&[u8; 32]>,
        count: usize,
        decode: impl Fn(&[u8]) -> Result<R, E>,
    ) -> Result<Vec<R>, StoreError> {
        let open = self.table(table)?;
        let first = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_slice()));
        let mut found = Vec::new();
        for entry in open.range::<&[u8]>((first, Bound::Unbounded))?.take(count.min(PAGE_LIMIT.saturating_add(1))) {
            let (key, value) = entry?;
            let row = unseal(table, key.value(), value.value()).map_err(unreadable)?;
            found.push(decode(row).map_err(unreadable)?);
        }
        Ok(found)
    }

    /// An invoice of ours by its hash.
    pub fn invoice(&self, hash: &PaymentHash) -> Result<Option<InvoiceRow>, StoreError> {
        self.get(Table::Invoice, &hash.0, InvoiceRow::decode)
    }

    /// The decision on a received HTLC, until its removal is irrevocable.
    pub fn settlement(&self, channel: &ChannelId, htlc_id: u64) -> Result<Option<SettlementRow>, StoreError> {
        self.get(Table::Settlement, &numbered_key(channel, htlc_id), SettlementRow::decode)
    }

    /// The HTLC for which an onion was processed, by the digest of the onion's shared secret.
    pub fn replay(&self, onion: &[u8; 32]) -> Result<Option<ReplayRow>, StoreError> {
        self.get(Table::Replay, onion, ReplayRow::decode)
    }

    /// Processed onions that expired below this height, the oldest first, at most `limit`: height and digest.
    pub fn expired_replays(&self, below: u32, limit: usize) -> Result<Vec<(u32, [u8; 32])>, StoreError> {
        let table = self.db.begin_read()?.open_table(Table::ReplayByHeight.definition())?;
        let mut found = Vec::new();
        for entry in table.range(..below.to_be_bytes().as_slice())?.take(limit) {
            found.push(parse_replay_height_key(entry?.0.value()).ok_or_else(|| unreadable("a key"))?);
        }
        Ok(found)
    }

    /// What is published until its channel needs it no longer. A row that cannot be read is left out: the start froze
    /// its channel.
    pub fn broadcasts(&self) -> Result<Vec<BroadcastRow>, StoreError> {
        let mut found = Vec::new();
        for entry in self.table(Table::Broadcast)?.iter()? {
            let (key, value) = entry?;
            let row = unseal(Table::Broadcast, key.value(), value.value()).ok();
            found.extend(row.and_then(|row| BroadcastRow::decode(row).ok()));
        }
        Ok(found)
    }

    /// The operation that was started under this key.
    pub fn operation(&self, idempotency_key: &str) -> Result<Option<OperationRow>, StoreError> {
        self.get(Table::Operation, idempotency_key.as_bytes(), OperationRow::decode)
    }

    /// Whether the end of the opening of this key is not known yet.
    pub fn is_opening(&self, idempotency_key: &str) -> Result<bool, StoreError> {
        let key = UnderWay::Opening(idempotency_key.to_owned()).key();
        Ok(self.get(Table::UnderWay, &key, |_| Ok::<_, StoreError>(()))?.is_some())
    }

    /// Where a peer was last reached; nothing where what is kept of that is no address.
    pub fn peer_address(&self, peer: &NodeId) -> Result<Option<String>, StoreError> {
        let found = self.get(Table::PeerAddress, &peer.serialize(), |row| Ok::<_, StoreError>(address(row)))?;
        Ok(found.flatten())
    }

    /// Events after `after`, oldest first, at most `limit`, of these kinds if any are named. With them comes the number
    /// of the last event that was looked at: where the next call goes on.
    pub fn events(
        &self,
        after: u64,
        kinds: &[String],
        limit: usize,
    ) -> Result<(Vec<(u64, EventRow)>, u64), StoreError> {
        let table = self.table(Table::Event)?;
        let start = after.saturating_add(1).to_be_bytes();
        let (mut found, mut last) = (Vec::new(), after);
        for entry in table.range(start.as_slice()..)? {
            if found.len() >= limit.min(PAGE_LIMIT) {
                break;
            }
            let (key, value) = entry?;
            let seq = key.value().try_into().map(u64::from_be_bytes).map_err(|_| unreadable("a key"))?;
            let row = unseal(Table::Event, key.value(), value.value()).map_err(unreadable)?;
            let event = EventRow::decode(row).map_err(unreadable)?;
            last = seq;
            if kinds.is_empty() || kinds.contains(&event.kind) {
                found.push((seq, event));
            }
        }
        Ok((found, last))
    }

    /// The number of the oldest event that is kept; none before the first.
    pub fn oldest_event(&self) -> Result<Option<u64>, StoreError> {
        let first = self.table(Table::Event)?.first()?.map(|(key, _)| key.value().try_into().map(u64::from_be_bytes));
        first.transpose().map_err(|_| unreadable("a key"))
    }

    /// The number of the newest event; 0 before the first.
    pub fn newest_event(&self) -> Result<u64, StoreError> {
        let last = self.table(Table::Event)?.last()?.map(|(key, _)| key.value().try_into().map(u64::from_be_bytes));
        last.transpose().map(Option::unwrap_or_default).map_err(|_| unreadable("a key"))
    }

    /// How many rows a table has.
    #[cfg(test)]
    pub fn count(&self, table: Table) -> Result<u64, StoreError> {
        Ok(redb::ReadableTableMetadata::len(&self.table(table)?)?)
    }

    pub(super) fn transaction(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.db.begin_read()?)
    }

    pub(super) fn table(&self, table: Table) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        Ok(self.db.begin_read()?.open_table(table.definition())?)
    }

    pub(super) fn get<R, E: std::fmt::Display>(
        &self,
        table: Table,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Option<R>, StoreError> {
        let open = self.table(table)?;
        let Some(value) = open.get(key)? else { return Ok(None) };
        let row = unseal(table, key, value.value()).map_err(unreadable)?;
        decode(row).map(Some).map_err(unreadable)
    }
}

/// The address in a row of [`Table::PeerAddress`], as it was written; nothing where it is none.
pub(super) fn address(row: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(row).ok()?;
    text.parse::<PeerAddress>().is_ok().then(|| text.to_owned())
}

pub(super) fn unreadable(fault: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: "outrigger.redb".into(), reason: fault.to_string() }
}
