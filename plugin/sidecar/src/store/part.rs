//! The row of one HTLC of a payment of ours: the way that it went, so that its failure can be read after a restart.

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::NodeId;

use super::record::{BadRecord, RecordReader, RecordWriter};

/// Bytes of a node id.
const NODE_ID_LEN: usize = 33;

/// One HTLC of a payment, while its outcome is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    /// What left us, fees included.
    pub sends: Msat,
    /// What of it arrives.
    pub amount: Msat,
    /// The nodes that its onion was built for, the payee last.
    pub route: Vec<NodeId>,
}

impl PartRow {
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
        let route: Vec<u8> = self.route.iter().flat_map(NodeId::serialize).collect();
        RecordWriter::new(1)
            .put(0, self.sends.get().to_be_bytes())
            .put(2, self.amount.get().to_be_bytes())
            .put(4, route)
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let (sends, amount) = (Msat::new(record.u64(0, "sent")?), Msat::new(record.u64(2, "amount")?));
        let (nodes, rest) = record.bytes(4, "route")?.as_chunks::<NODE_ID_LEN>();
        let route = nodes.iter().map(|node| NodeId::from_slice(node)).collect::<Result<Vec<_>, _>>();
        let route = route.map_err(|_| BadRecord::Malformed("route"))?;
        if !rest.is_empty() || route.is_empty() {
            return Err(BadRecord::Malformed("route"));
        }
        record.finish()?;
        Ok(Self { sends, amount, route })
    }
}
