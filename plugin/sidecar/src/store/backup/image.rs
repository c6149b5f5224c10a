//! What sinks hold, as values and as bytes: images, updates and tips.
//!
//! Bytes are a version, fields of type, length and value in rising order, odd ones to be skipped and even ones to be understood
//! where they are not known, and behind them a check: the beginning of a SHA256 over what comes before.

use std::collections::BTreeMap;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{BlockHash, OutPoint, Txid};
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::wire::codec::{BigSize, Decode, Encode, Reader, Writer};

use super::kept::{is_of, number_of, table_of};
use crate::store::record::{BadRecord, RecordReader, RecordWriter};
use crate::store::schema::Table;

/// The version of images, updates and tips.
const VERSION: u8 = 1;

/// Bytes of the check at the end.
const CHECK_LEN: usize = 8;

/// Which of the three the bytes are: the field 0 of each.
const IMAGE: u8 = 1;
const UPDATE: u8 = 2;
const TIP: u8 = 3;

/// One row that was written, or deleted where there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What one commit changed of the kept rows of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub channel: ChannelId,
    /// The id that the rows must stand at for this update to follow.
    pub after: u64,
    /// The id that they stand at with it.
    pub id: u64,
    /// In the order of the commit; each row once.
    pub changes: Vec<RowChange>,
}

/// Everything that is kept of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The network's name, as in the database.
    pub network: String,
    /// Whose channel it is: ours.
    pub node_id: NodeId,
    pub channel: ChannelId,
    /// The id that the rows stand at.
    pub id: u64,
    /// Rows by table and key, without the check that the database has behind each.
    pub rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

/// The chain at a moment at which every write before had been handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TipRecord {
    pub network: String,
    pub node_id: NodeId,
    pub height: u32,
    pub hash: BlockHash,
    /// When it was written, in unix seconds.
    pub at_unix: u64,
    /// Where peers with channels are reached.
    pub peers: Vec<(NodeId, String)>,
    /// The id of each channel that lived then: rows that are as new have taken in this block and all before it. Nothing where the
    /// record does not say.
    pub channels: Option<Vec<(ChannelId, u64)>>,
}

/// An update that does not follow the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an update of channel {channel} follows id {after}, and the rows are at {found}")]
pub struct Gap {
    pub channel: ChannelId,
    pub after: u64,
    pub found: u64,
}

impl Image {
    /// An image without rows.
    pub fn new(network: &str, node_id: NodeId, channel: ChannelId, id: u64) -> Self {
        Self { network: network.to_owned(), node_id, channel, id, rows: BTreeMap::new() }
    }

    /// The output that funds the channel, where its parameters can be read.
    pub fn funding(&self) -> Option<OutPoint> {
        self.params().map(|params| params.funding)
    }

    /// Takes an update in. One at or below the image's id is in it already and changes nothing; one that leaves a gap is refused, and
    /// the image is as it was.
    pub fn apply(&mut self, update: &Update) -> Result<(), Gap> {
        if update.channel == self.channel && update.id <= self.id {
            return Ok(());
        }
        if update.channel != self.channel || update.after != self.id {
            return Err(Gap { channel: update.channel, after: update.after, found: self.id });
        }
        for RowChange { table, key, value } in &update.changes {
            match value {
                Some(value) => self.rows.insert((*table, key.clone()), value.clone()),
                None => self.rows.remove(&(*table, key.clone())),
            };
        }
        self.id = update.id;
        Ok(())
    }

    /// What it takes in memory, about.
    pub fn size(&self) -> usize {
        let of = |((_, key), value): (&(Table, Vec<u8>), &Vec<u8>)| {
            key.len().saturating_add(value.len()).saturating_add(ROW_OVERHEAD)
        };
        self.rows.iter().map(of).sum()
    }

    /// The bytes of the image.
    pub fn encode(&self) -> Vec<u8> {
        let mut rows = Writer::new();
        for ((table, key), value) in &self.rows {
            write_row(&mut rows, *table, key, Some(value));
        }
        let record = RecordWriter::new(VERSION)
            .put(0, [IMAGE])
            .put(2, &self.network)
            .put(4, self.node_id.serialize())
            .put(6, self.channel.0)
            .put(8, self.id.to_be_bytes())
            .put(10, bytes_of(rows));
        checked(record.finish())
    }

    /// Reads an image.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = opened(bytes, IMAGE)?;
        let mut image = Self::new(
            &record.text(2, "network")?,
            record.node_id(4, "node id")?,
            ChannelId(record.array(6, "channel")?),
            record.u64(8, "id")?,
        );
        for RowChange { table, key, value } in read_rows(record.bytes(10, "rows")?, &image.channel)? {
            let value = value.ok_or(BadRecord::Malformed("rows"))?;
            if image.rows.insert((table, key), value).is_some() {
                return Err(BadRecord::Malformed("rows"));
            }
        }
        record.finish()?;
        Ok(image)
    }
}

impl Update {
    /// The bytes of the update.
    pub fn encode(&self) -> Vec<u8> {
        let mut rows = Writer::new();
        for RowChange { table, key, value } in &self.changes {
            write_row(&mut rows, *table, key, value.as_deref());
        }
        let record = RecordWriter::new(VERSION)
            .put(0, [UPDATE])
            .put(6, self.channel.0)
            .put(8, self.id.to_be_bytes())
            .put(10, bytes_of(rows))
            .put(12, self.after.to_be_bytes());
        checked(record.finish())
    }

    /// Reads an update.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = opened(bytes, UPDATE)?;
        let (channel, id) = (ChannelId(record.array(6, "channel")?), record.u64(8, "id")?);
        let changes = read_rows(record.bytes(10, "rows")?, &channel)?;
        let after = record.u64(12, "id before it")?;
        record.finish()?;
        if after >= id {
            return Err(BadRecord::Malformed("id before it"));
        }
        Ok(Self { channel, after, id, changes })
    }

    /// What it takes in memory, about: what a queue is bounded by.
    pub fn size(&self) -> usize {
        let of = |change: &RowChange| {
            change.key.len().saturating_add(change.value.as_ref().map_or(0, Vec::len)).saturating_add(ROW_OVERHEAD)
        };
        self.changes.iter().map(of).sum()
    }
}

/// What a row costs in memory beside its bytes.
const ROW_OVERHEAD: usize = size_of::<RowChange>();

impl TipRecord {
    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut peers = Writer::new();
        for (node_id, address) in &self.peers {
            peers.bytes(&node_id.serialize());
            write_bytes(&mut peers, address.as_bytes());
        }
        let record = RecordWriter::new(VERSION)
            .put(0, [TIP])
            .put(2, &self.network)
            .put(4, self.node_id.serialize())
            .put(6, self.height.to_be_bytes())
            .put(8, self.hash.as_byte_array())
            .put(10, self.at_unix.to_be_bytes())
            .put(11, bytes_of(peers))
            .put_some(13, self.channels.as_ref().map(|channels| ids_to_bytes(channels)));
        checked(record.finish())
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = opened(bytes, TIP)?;
        let mut tip = Self {
            network: record.text(2, "network")?,
            node_id: record.node_id(4, "node id")?,
            height: record.u32(6, "height")?,
            hash: BlockHash::from_byte_array(record.array(8, "block hash")?),
            at_unix: record.u64(10, "time")?,
            peers: Vec::new(),
            channels: None,
        };
        let malformed = |_| BadRecord::Malformed("peers");
        let mut peers = Reader::new(record.bytes_some(11).unwrap_or_default());
        while !peers.is_empty() {
            let node_id = NodeId::from_slice(peers.take(33).map_err(malformed)?);
            let address = String::from_utf8(read_bytes(&mut peers).ok_or(BadRecord::Malformed("peers"))?.to_vec());
            let peer = node_id.ok().zip(address.ok()).ok_or(BadRecord::Malformed("peers"))?;
            tip.peers.push(peer);
        }
        let malformed = BadRecord::Malformed("channels");
        tip.channels = record.bytes_some(13).map(|ids| ids_of_bytes(ids).ok_or(malformed)).transpose()?;
        record.finish()?;
        Ok(tip)
    }
}

/// Channels and ids, one behind the other.
fn ids_to_bytes(channels: &[(ChannelId, u64)]) -> Vec<u8> {
    channels.iter().flat_map(|(channel, id)| channel.0.into_iter().chain(id.to_be_bytes())).collect()
}

fn ids_of_bytes(mut bytes: &[u8]) -> Option<Vec<(ChannelId, u64)>> {
    let mut channels = Vec::new();
    while !bytes.is_empty() {
        let (channel, rest) = bytes.split_first_chunk::<32>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        channels.push((ChannelId(*channel), u64::from_be_bytes(*id)));
        bytes = rest;
    }
    Some(channels)
}

/// The name of a funding output in files: `txid_index`.
pub fn outpoint_name(outpoint: &OutPoint) -> String {
    format!("{}_{}", outpoint.txid, outpoint.vout)
}

/// The output of such a name, or `None` for other texts.
pub fn parse_outpoint_name(name: &str) -> Option<OutPoint> {
    let (txid, vout) = name.split_once('_')?;
    Some(OutPoint { txid: txid.parse::<Txid>().ok()?, vout: vout.parse().ok()? })
}

/// The bytes with their check behind them.
fn checked(mut bytes: Vec<u8>) -> Vec<u8> {
    let check = sha256::Hash::hash(&bytes).to_byte_array();
    bytes.extend(check.iter().take(CHECK_LEN));
    bytes
}

/// The fields, once the check is found to answer and the kind to be this one.
fn opened(bytes: &[u8], kind: u8) -> Result<RecordReader<'_>, BadRecord> {
    let (bytes, found) = bytes.split_last_chunk::<CHECK_LEN>().ok_or(BadRecord::Truncated)?;
    if !sha256::Hash::hash(bytes).to_byte_array().starts_with(found) {
        return Err(BadRecord::Malformed("check"));
    }
    let mut record = RecordReader::new(bytes, VERSION)?;
    if record.u8(0, "kind")? != kind {
        return Err(BadRecord::Malformed("kind"));
    }
    Ok(record)
}

#[expect(
    clippy::expect_used,
    reason = "none of the writers above is ever made to fail: no field has a length of 16 bits"
)]
fn bytes_of(writer: Writer) -> Vec<u8> {
    writer.finish().expect("no field has a length of 16 bits")
}

fn write_bytes(writer: &mut Writer, bytes: &[u8]) {
    BigSize(bytes.len() as u64).encode(writer);
    writer.bytes(bytes);
}

fn read_bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = BigSize::decode(reader).ok()?.0;
    reader.take(usize::try_from(len).ok()?).ok()
}

/// A row: table number, length and key, 1, length and value; or 0 behind the key of one that is deleted.
fn write_row(writer: &mut Writer, table: Table, key: &[u8], value: Option<&[u8]>) {
    // Other tables are no channel's, and none of their rows is ever taken in.
    let Some(number) = number_of(table) else { return };
    BigSize(number).encode(writer);
    write_bytes(writer, key);
    match value {
        Some(value) => {
            writer.bytes(&[1]);
            write_bytes(writer, value);
        }
        None => writer.bytes(&[0]),
    }
}

/// Rows of this channel. A row of a table that is not known is skipped where its number is odd.
fn read_rows(bytes: &[u8], channel: &ChannelId) -> Result<Vec<RowChange>, BadRecord> {
    let malformed = || BadRecord::Malformed("rows");
    let (mut reader, mut rows) = (Reader::new(bytes), Vec::new());
    while !reader.is_empty() {
        let number = BigSize::decode(&mut reader).map_err(|_| malformed())?.0;
        let key = read_bytes(&mut reader).ok_or_else(malformed)?;
        let value = match reader.array().map_err(|_| malformed())? {
            [0] => None,
            [1] => Some(read_bytes(&mut reader).ok_or_else(malformed)?.to_vec()),
            [2..=u8::MAX] => return Err(malformed()),
        };
        match table_of(number) {
            Some(table) if is_of(channel, table, key) => rows.push(RowChange { table, key: key.to_vec(), value }),
            Some(_) => return Err(malformed()),
            None if number % 2 == 1 => {}
            None => return Err(BadRecord::UnknownEven(number)),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
