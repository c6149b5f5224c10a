//! What is on a node's disk, row by row: what the invariants are held against.

use outrigger_bolt::id::{ChannelId, PaymentHash};
use outrigger_channel::{ChannelHead, ChannelParams, HtlcKey, HtlcRow, MonitorHead, Row};
use outrigger_sidecar::store::part::PartRow;
use outrigger_sidecar::store::schema::{Table, channel_key, htlc_key, parse_htlc_key, preimage_key};
use outrigger_sidecar::store::seal::unseal;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

fn row<R>(db: &Database, table: Table, key: &[u8], decode: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let open = db.begin_read().unwrap().open_table(table.definition()).unwrap();
    let value = open.get(key).unwrap()?;
    Some(decode(unseal(table, key, value.value()).unwrap()))
}

pub fn head(db: &Database, channel: &ChannelId) -> Option<ChannelHead> {
    row(db, Table::ChannelHead, &channel_key(channel), |bytes| ChannelHead::decode(bytes).unwrap())
}

pub fn params(db: &Database, channel: &ChannelId) -> Option<ChannelParams> {
    row(db, Table::ChannelParams, &channel_key(channel), |bytes| ChannelParams::decode(bytes).unwrap())
}

pub fn monitor_head(db: &Database, channel: &ChannelId) -> Option<MonitorHead> {
    row(db, Table::MonitorHead, &channel_key(channel), |bytes| MonitorHead::decode(bytes).unwrap())
}

pub fn htlc(db: &Database, channel: &ChannelId, key: HtlcKey) -> Option<HtlcRow> {
    row(db, Table::Htlc, &htlc_key(channel, key), |bytes| HtlcRow::decode(bytes).unwrap())
}

/// Whether the monitor of a channel has the preimage of this hash.
pub fn has_preimage(db: &Database, channel: &ChannelId, hash: &PaymentHash) -> bool {
    row(db, Table::Preimage, &preimage_key(channel, hash), |_| ()).is_some()
}

/// The heads of all channels, those alone that `is_new` asks for by channel and bytes.
pub fn heads(db: &Database, mut is_new: impl FnMut(ChannelId, &[u8]) -> bool) -> Vec<(ChannelId, ChannelHead)> {
    let open = db.begin_read().unwrap().open_table(Table::ChannelHead.definition()).unwrap();
    let found = open.iter().unwrap().filter_map(|entry| {
        let (key, value) = entry.unwrap();
        let channel = ChannelId(key.value().try_into().unwrap());
        let row = unseal(Table::ChannelHead, key.value(), value.value()).unwrap();
        is_new(channel, row).then(|| (channel, ChannelHead::decode(row).unwrap()))
    });
    found.collect()
}

pub fn htlcs(db: &Database) -> Vec<(ChannelId, HtlcKey, HtlcRow)> {
    let open = db.begin_read().unwrap().open_table(Table::Htlc.definition()).unwrap();
    let found = open.iter().unwrap().map(|entry| {
        let (key, value) = entry.unwrap();
        let row = unseal(Table::Htlc, key.value(), value.value()).unwrap();
        let (channel, htlc) = parse_htlc_key(key.value()).unwrap();
        (channel, htlc, HtlcRow::decode(row).unwrap())
    });
    found.collect()
}

/// The parts of a payment that are under way.
pub fn parts(db: &Database, payment: &[u8; 32]) -> Vec<PartRow> {
    let open = db.begin_read().unwrap().open_table(Table::Part.definition()).unwrap();
    let found = open.iter().unwrap().map(|entry| {
        let (key, value) = entry.unwrap();
        let row = unseal(Table::Part, key.value(), value.value()).unwrap();
        (PartRow::parse_key(key.value()).unwrap(), PartRow::decode(row).unwrap())
    });
    found.filter(|((of, _), _)| of == payment).map(|(_, part)| part).collect()
}

/// How many rows a table has.
pub fn count(db: &Database, table: Table) -> u64 {
    db.begin_read().unwrap().open_table(table.definition()).unwrap().len().unwrap()
}

/// Whether the channel is in history.
pub fn is_closed(db: &Database, channel: &ChannelId) -> bool {
    row(db, Table::ClosedChannel, &channel_key(channel), |_| ()).is_some()
}
