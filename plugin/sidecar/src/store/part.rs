//! The row of one HTLC of a payment of ours: the way that it went, so that its failure can be read after a restart.

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};

use super::record::{BadRecord, RecordReader, RecordWriter};

/// Bytes of a node id, and of a hop: node id and `short_channel_id`.
const NODE_ID_LEN: usize = 33;
const HOP_LEN: usize = NODE_ID_LEN + 8;

/// One HTLC of a payment, while its outcome is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// What left us, fees included.
    pub sends: Msat,
    /// What of it arrives.
    pub amount: Msat,
    /// The channel of ours that it was given to.
    pub channel: ChannelId,
    /// The hops that its onion was built for, the payee last.
    pub route: Vec<PartHop>,
}

/// A node on the way of an HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHop {
    pub node: NodeId,
    /// The channel that leads to it, as the node before it calls that; none for the first, which our own channel leads to.
    pub channel: Option<ShortChannelId>,
}

impl PartRow {
    /// What it pays in fees if it arrives.
    pub fn fee(&self) -> Msat {
        self.sends.saturating_sub(self.amount)
    }

    /// The key of its row: payment, part.
    pub fn key(payment_id: &[u8; 32], part: u16) -> Vec<u8> {
        [payment_id.as_slice(), &part.to_be_bytes()].concat()
    }

    /// The parts of a key made by [`key`](Self::key), or `None` for other bytes.
    pub fn parse_key(key: &[u8]) -> Option<([u8; 32], u16)> {
        let (payment_id, part) = key.split_first_chunk::<32>()?;
        Some((*payment_id, u16::from_be_bytes(part.try_into().ok()?)))
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let route: Vec<u8> = self.route.iter().flat_map(PartHop::encode).collect();
        RecordWriter::new(1)
            .put(0, self.sends.get().to_be_bytes())
            .put(2, self.amount.get().to_be_bytes())
            .put(4, route)
            .put(6, self.channel.0)
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let (sends, amount) = (Msat::new(record.u64(0, "sent")?), Msat::new(record.u64(2, "amount")?));
        let (hops, rest) = record.bytes(4, "route")?.as_chunks::<HOP_LEN>();
        let route = hops.iter().map(PartHop::decode).collect::<Option<Vec<_>>>();
        let route = route.ok_or(BadRecord::Malformed("route"))?;
        if !rest.is_empty() || route.is_empty() {
            return Err(BadRecord::Malformed("route"));
        }
        let channel = ChannelId(record.array(6, "channel")?);
        record.finish()?;
        Ok(Self { sends, amount, channel, route })
    }
}

impl PartHop {
    /// Node id, `short_channel_id`; 0 for none.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.node.serialize().to_vec();
        bytes.extend_from_slice(&self.channel.map_or(0, ShortChannelId::to_u64).to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HOP_LEN]) -> Option<Self> {
        let (node, channel) = bytes.split_first_chunk::<NODE_ID_LEN>()?;
        let channel = u64::from_be_bytes(channel.try_into().ok()?);
        let channel = (channel != 0).then(|| ShortChannelId::from_u64(channel));
        Some(Self { node: NodeId::from_slice(node).ok()?, channel })
    }
}
