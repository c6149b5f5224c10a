//! What was relayed: a row for each HTLC that went through, and totals by day and channels.

use std::collections::BTreeMap;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::ChannelId;
use redb::AccessGuard;

use super::StoreError;
use super::read::{PAGE_LIMIT, Reader, unreadable};
use super::record::{BadRecord, RecordReader, RecordWriter};
use super::row::Downstream;
use super::schema::Table;
use super::seal::unseal;

/// Rows of single forwards that are kept; the totals stay.
pub const FORWARDS_KEPT: u64 = 1_000_000;

const SECS_PER_DAY: u64 = 24 * 3600;

/// An HTLC that was received, offered to another peer and claimed by it, and whose removal upstream is irrevocable: its fee
/// is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardRow {
    /// The received HTLC.
    pub incoming: Downstream,
    /// The offered HTLC.
    pub outgoing: Downstream,
    /// Unix seconds.
    pub settled_at: u64,
}

impl ForwardRow {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let Self { incoming, outgoing, settled_at } = self;
        RecordWriter::new(1)
            .put(0, incoming.channel.0)
            .put(2, incoming.htlc_id.to_be_bytes())
            .put(4, incoming.amount.get().to_be_bytes())
            .put(6, outgoing.channel.0)
            .put(8, outgoing.htlc_id.to_be_bytes())
            .put(10, outgoing.amount.get().to_be_bytes())
            .put(12, settled_at.to_be_bytes())
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let mut edge = |first: u64| {
            Ok::<_, BadRecord>(Downstream {
                channel: ChannelId(record.array(first, "channel")?),
                htlc_id: record.u64(first + 2, "HTLC id")?,
                amount: Msat::new(record.u64(first + 4, "amount")?),
            })
        };
        let (incoming, outgoing) = (edge(0)?, edge(6)?);
        let row = Self { incoming, outgoing, settled_at: record.u64(12, "time")? };
        record.finish()?;
        Ok(row)
    }

    /// What it adds to the totals.
    pub(super) fn totals(&self) -> ForwardTotals {
        ForwardTotals {
            settled: 1,
            incoming: self.incoming.amount,
            outgoing: self.outgoing.amount,
            ..ForwardTotals::default()
        }
    }

    pub(super) fn totals_key(&self) -> TotalsKey {
        TotalsKey {
            day: day_of(self.settled_at),
            incoming: self.incoming.channel,
            outgoing: Some(self.outgoing.channel),
        }
    }
}

/// Days since 1970, by UTC.
pub fn day_of(unix: u64) -> u32 {
    u32::try_from(unix / SECS_PER_DAY).unwrap_or(u32::MAX)
}

/// The first and the last second of these days.
pub fn days((from, to): (u32, u32)) -> (u64, u64) {
    (u64::from(from) * SECS_PER_DAY, u64::from(to) * SECS_PER_DAY + (SECS_PER_DAY - 1))
}

/// Whose totals: the day, the channel that HTLCs came by, and the one that they went by or were to go by, where it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TotalsKey {
    pub day: u32,
    pub incoming: ChannelId,
    pub outgoing: Option<ChannelId>,
}

impl TotalsKey {
    /// The key of the row.
    pub fn encode(&self) -> Vec<u8> {
        let outgoing = self.outgoing.as_ref().map_or(&[][..], |channel| &channel.0);
        [&self.day.to_be_bytes(), self.incoming.0.as_slice(), outgoing].concat()
    }

    /// What a key made by [`encode`](Self::encode) names, or `None` for other bytes.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let (day, rest) = key.split_first_chunk::<4>()?;
        let (incoming, rest) = rest.split_first_chunk::<32>()?;
        let outgoing = if rest.is_empty() { None } else { Some(ChannelId(rest.try_into().ok()?)) };
        Some(Self { day: u32::from_be_bytes(*day), incoming: ChannelId(*incoming), outgoing })
    }
}

/// Sums over forwards. Those that were claimed are counted when their fee is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardTotals {
    /// Forwards that went through.
    pub settled: u64,
    /// What they brought.
    pub incoming: Msat,
    /// What of it went on.
    pub outgoing: Msat,
    /// HTLCs that this node did not hand on.
    pub refused: u64,
    /// HTLCs that were handed on and failed.
    pub failed: u64,
}

impl ForwardTotals {
    /// One HTLC that was not handed on.
    pub fn one_refused() -> Self {
        Self { refused: 1, ..Self::default() }
    }

    /// One HTLC that failed behind us.
    pub fn one_failed() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// What was earned.
    pub fn fees(&self) -> Msat {
        self.incoming.saturating_sub(self.outgoing)
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.settled = self.settled.saturating_add(other.settled);
        self.incoming = self.incoming.saturating_add(other.incoming);
        self.outgoing = self.outgoing.saturating_add(other.outgoing);
        self.refused = self.refused.saturating_add(other.refused);
        self.failed = self.failed.saturating_add(other.failed);
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1)
            .put(0, self.settled.to_be_bytes())
            .put(2, self.incoming.get().to_be_bytes())
            .put(4, self.outgoing.get().to_be_bytes())
            .put(6, self.refused.to_be_bytes())
            .put(8, self.failed.to_be_bytes())
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            settled: record.u64(0, "count")?,
            incoming: Msat::new(record.u64(2, "amount")?),
            outgoing: Msat::new(record.u64(4, "amount")?),
            refused: record.u64(6, "count")?,
            failed: record.u64(8, "count")?,
        };
        record.finish()?;
        Ok(row)
    }
}

fn read_forward(
    (number, row): (AccessGuard<'_, &[u8]>, AccessGuard<'_, &[u8]>),
) -> Result<(u64, ForwardRow), StoreError> {
    let row = unseal(Table::Forward, number.value(), row.value()).map_err(unreadable)?;
    let number = number.value().try_into().map(u64::from_be_bytes).map_err(|_| unreadable("a key"))?;
    Ok((number, ForwardRow::decode(row).map_err(unreadable)?))
}

/// Which way a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    OldestFirst,
    NewestFirst,
}

impl Reader {
    /// Forwards that went through, from the one after `after` in this direction, at most `limit`, each with its number.
    pub fn forwards(
        &self,
        after: Option<u64>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, ForwardRow)>, StoreError> {
        let table = self.table(Table::Forward)?;
        let limit = limit.min(PAGE_LIMIT.saturating_add(1));
        match direction {
            Direction::OldestFirst => {
                let first = after.map_or(0, |after| after.saturating_add(1)).to_be_bytes();
                let range = table.range(first.as_slice()..)?;
                range.take(limit).map(|entry| entry.map(read_forward)?).collect()
            }
            Direction::NewestFirst => {
                let end = after.unwrap_or(u64::MAX).to_be_bytes();
                let range = table.range(..end.as_slice())?;
                range.rev().take(limit).map(|entry| entry.map(read_forward)?).collect()
            }
        }
    }

    /// Totals of the days from `from` to `to`, both included, by the channels that HTLCs came and went by.
    pub fn forward_totals(
        &self,
        (from, to): (u32, u32),
    ) -> Result<BTreeMap<(ChannelId, Option<ChannelId>), ForwardTotals>, StoreError> {
        let table = self.table(Table::ForwardTotals)?;
        let mut sums = BTreeMap::<_, ForwardTotals>::new();
        for entry in table.range(from.to_be_bytes().as_slice()..)? {
            let (key, value) = entry?;
            let name = TotalsKey::parse(key.value()).ok_or_else(|| unreadable("a key"))?;
            if name.day > to {
                break;
            }
            let row = unseal(Table::ForwardTotals, key.value(), value.value()).map_err(unreadable)?;
            let totals = ForwardTotals::decode(row).map_err(unreadable)?;
            sums.entry((name.incoming, name.outgoing)).or_default().add(&totals);
        }
        Ok(sums)
    }
}
