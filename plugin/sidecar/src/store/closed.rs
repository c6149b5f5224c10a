//! Channels whose end is buried for good. They are in no memory and slow no start: their one row is read when their peer
//! comes back to them, or a caller asks.

use std::ops::Bound;
use std::sync::Arc;

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::{Channel, ChannelHead, ChannelParams, ChannelRows, MonitorRows, Row};

use super::batch::{Batch, Held};
use super::read::{Reader, unreadable};
use super::record::{BadRecord, RecordReader, RecordWriter};
use super::row::{BroadcastRow, PUBLICATIONS};
use super::schema::{Table, channel_key, htlc_key, numbered_key, outpoint_key, preimage_key};
use super::seal::unseal;
use super::{Address, StoreError};

/// What is kept of a channel: enough to answer its peer, and to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedRow {
    pub params: Arc<ChannelParams>,
    pub head: ChannelHead,
}

impl ClosedRow {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1).put(0, self.params.encode()).put(2, self.head.encode()).finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let params = ChannelParams::decode(record.bytes(0, "parameters")?);
        let head = ChannelHead::decode(record.bytes(2, "head")?);
        record.finish()?;
        Ok(Self {
            params: Arc::new(params.map_err(|_| BadRecord::Malformed("parameters"))?),
            head: head.map_err(|_| BadRecord::Malformed("head"))?,
        })
    }

    fn channel(self) -> Result<Channel, StoreError> {
        Channel::of_history(self.params, self.head).map_err(unreadable)
    }
}

impl Batch {
    /// Moves a channel into history: its rows go, and one is left of it, or none where it was never funded. `settlements`
    /// are the HTLC ids of decisions that were never taken back. Evidence stays: to delete it would cost what the channel
    /// ever carried, in one step.
    pub fn archive(&mut self, at: Address, channel: &Channel, monitor: &MonitorRows, settlements: &[u64]) {
        let id = &at.channel;
        let ChannelRows { params, head, htlcs, onions } = channel.rows();
        for table in [Table::ChannelParams, Table::ChannelHead, Table::MonitorHead, Table::FundingSpend] {
            self.put(table, channel_key(id), None);
        }
        for key in htlcs.keys() {
            self.put(Table::Htlc, htlc_key(id, *key), None);
        }
        for key in onions.keys() {
            self.put(Table::Onion, htlc_key(id, *key), None);
        }
        for slot in monitor.secrets.keys() {
            self.put(Table::Secret, numbered_key(id, u64::from(*slot)), None);
        }
        for number in monitor.htlc_signatures.keys() {
            self.put(Table::HtlcSignatures, numbered_key(id, *number), None);
        }
        for hash in monitor.preimages.keys() {
            self.put(Table::Preimage, preimage_key(id, hash), None);
        }
        for outpoint in monitor.taken.keys() {
            self.put(Table::Taken, outpoint_key(id, outpoint), None);
            self.put(Table::Sweep, outpoint_key(id, outpoint), None);
        }
        for htlc_id in settlements {
            self.put(Table::Settlement, numbered_key(id, *htlc_id), None);
        }
        for what in PUBLICATIONS {
            self.put(Table::Broadcast, BroadcastRow::key_of(id, what), None);
        }
        if channel.was_funded() {
            let row = ClosedRow { params: Arc::clone(params), head: head.clone() };
            self.put(Table::ClosedChannel, channel_key(id), Some(row.encode()));
        }
        self.hold(Held::Archived { peer: at.peer, channel: at.channel });
    }
}

impl Reader {
    /// A channel in history.
    pub fn closed(&self, channel: &ChannelId) -> Result<Option<Channel>, StoreError> {
        let row = self.get(Table::ClosedChannel, &channel.0, ClosedRow::decode)?;
        row.map(ClosedRow::channel).transpose()
    }

    /// Channels in history after this one, by id, at most `limit`, with this peer if one is named.
    pub fn closed_after(
        &self,
        after: Option<&ChannelId>,
        peer: Option<&NodeId>,
        limit: usize,
    ) -> Result<Vec<Channel>, StoreError> {
        let table = self.table(Table::ClosedChannel)?;
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.0.as_slice()));
        let mut found = Vec::new();
        for entry in table.range::<&[u8]>((start, Bound::Unbounded))? {
            if found.len() >= limit {
                break;
            }
            let (key, value) = entry?;
            let row = unseal(Table::ClosedChannel, key.value(), value.value()).map_err(unreadable)?;
            let row = ClosedRow::decode(row).map_err(unreadable)?;
            if peer.is_none_or(|peer| row.params.peer == *peer) {
                found.push(row.channel()?);
            }
        }
        Ok(found)
    }
}
