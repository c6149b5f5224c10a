//! Events: what operators act on, with the fields that callers see.

use bitcoin::hex::DisplayHex;
use outrigger_bolt::amount::Sat;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::{ChannelNote, Spend};
use serde_json::{Value, json};

use super::super::record::{BadRecord, RecordReader, RecordWriter};
use super::{OperationRow, OperationState};

/// Something that an operator acts on.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// Unix seconds.
    pub at: u64,
    pub kind: String,
    /// The fields that the kind has, as they stand in `event.list`.
    pub fields: Value,
}

impl EventRow {
    /// An event with these fields, which must be a JSON object.
    pub fn new(at: u64, kind: &str, fields: Value) -> Self {
        Self { at, kind: kind.to_owned(), fields }
    }

    /// This opening of ours ends without a channel. One that had its name before was told under that.
    pub fn open_failed(at: u64, operation: &OperationRow, reason: &str) -> Self {
        let mut fields = json!({ "message": reason });
        if let (OperationState::Pending { channel_id, .. }, Value::Object(fields)) = (&operation.state, &mut fields) {
            fields.insert("channel_id".into(), channel_id.to_string().into());
        }
        Self::new(at, "open_failed", fields).of_call(Some(operation.op_id))
    }

    /// The event, which the call of this id has brought about.
    pub(in crate::store) fn of_call(mut self, op_id: Option<[u8; 16]>) -> Self {
        if let (Some(op_id), Value::Object(fields)) = (op_id, &mut self.fields) {
            fields.insert("op_id".into(), op_id.to_lower_hex_string().into());
        }
        self
    }

    /// A peer or the chain proved on this channel that the node's file is old.
    pub fn restored(at: u64, peer: NodeId, channel: ChannelId, proof: &str) -> Self {
        let fields = json!({ "channel_id": channel.to_string(), "node_id": peer.to_string(), "message": proof });
        Self::new(at, "node_restored", fields)
    }

    /// A cooperative close that was begun does not come about, for this reason.
    pub fn close_stuck(at: u64, peer: NodeId, channel: ChannelId, reason: &str) -> Self {
        let fields = json!({ "channel_id": channel.to_string(), "node_id": peer.to_string(), "message": reason });
        Self::new(at, "channel_close_stuck", fields)
    }

    /// News of a channel that an operator acts on; a beginning shutdown is none, nor what a peer can do for nothing.
    pub fn of_channel(at: u64, peer: NodeId, channel: ChannelId, note: &ChannelNote) -> Option<Self> {
        let (kind, mut fields) = match note {
            ChannelNote::Pending { funding, put_in, ours, .. } => (
                "channel_pending",
                json!({ "txid": funding.txid.to_string(), "amount_sat": put_in.get(), "amount_msat": ours.get() }),
            ),
            ChannelNote::Ready { .. } => ("channel_ready", json!({})),
            ChannelNote::ShuttingDown { .. } | ChannelNote::NeverFunded { told: None, .. } => return None,
            ChannelNote::NeverFunded { txid, told: Some(told), reason } => {
                ("channel_closed", json!({ "txid": txid.to_string(), "amount_msat": told.get(), "message": reason }))
            }
            ChannelNote::Closing { txid } => ("channel_closing", json!({ "txid": txid.to_string() })),
            ChannelNote::Closed { txid, ours, paid: None, .. } => {
                ("channel_closed", json!({ "txid": txid.to_string(), "amount_msat": ours.get() }))
            }
            ChannelNote::Closed { txid, ours, paid: Some(paid), .. } => {
                // What is not a whole satoshi stays with the fee.
                let fee = ours.to_sat_floor().saturating_sub(*paid);
                let (amount, fee) = (paid.get(), fee.get());
                let fields = json!({
                    "txid": txid.to_string(), "amount_msat": ours.get(), "amount_sat": amount, "fee_sat": fee
                });
                ("channel_closed", fields)
            }
            ChannelNote::Spent { txid, height, what, ours, left, from_height, fee } => {
                let (kind, words) = spend_words(*what, *height, (*ours, *left), *from_height);
                let fields = json!({
                    "txid": txid.to_string(), "message": words, "amount_sat": ours.get(), "fee_sat": fee.get()
                });
                (kind, fields)
            }
            ChannelNote::Swept { txid, amount, fee } => {
                let mut fields = json!({ "txid": txid.to_string(), "amount_sat": amount.get() });
                if let (Some(fee), Value::Object(fields)) = (fee, &mut fields) {
                    fields.insert("fee_sat".into(), fee.get().into());
                }
                ("channel_swept", fields)
            }
            ChannelNote::Failed { reason } | ChannelNote::FundingMismatch { reason } => {
                ("channel_failed", json!({ "message": reason }))
            }
            ChannelNote::FundingStuck { txid, blocks } => {
                let message = format!(
                    "the funding transaction is not confirmed after {blocks} blocks: its feerate is too low, or it \
                     conflicts with another; after 2016 blocks the peer forgets the channel"
                );
                ("channel_funding_stuck", json!({ "txid": txid.to_string(), "message": message }))
            }
        };
        if let Value::Object(fields) = &mut fields {
            fields.insert("channel_id".into(), channel.to_string().into());
            fields.insert("node_id".into(), peer.to_string().into());
        }
        Some(Self::new(at, kind, fields))
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1).put(0, self.at.to_be_bytes()).put(2, &self.kind).put(4, self.fields.to_string()).finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            at: record.u64(0, "time")?,
            kind: record.text(2, "kind")?,
            fields: serde_json::from_slice(record.bytes(4, "fields")?).map_err(|_| BadRecord::Malformed("fields"))?,
        };
        record.finish()?;
        Ok(row)
    }
}

/// The kind of event that a spend of the funding output is, and what there is to say about it.
fn spend_words(what: Spend, height: u32, (ours, left): (Sat, Sat), from_height: u32) -> (&'static str, String) {
    let home = match (ours, left) {
        (Sat::ZERO, Sat::ZERO) => "nothing of ours is in it".to_owned(),
        (Sat::ZERO, left) => format!("{left} of it are ours, too little to be worth a fee: they stay there"),
        (ours, _) => format!("{ours} of it are ours and go to the wallet from block {from_height} on"),
    };
    match what {
        Spend::Mutual => ("channel_closing", format!("the cooperative close is in block {height}")),
        Spend::Local => ("channel_closing", format!("our commitment is in block {height}; {home}")),
        Spend::Remote | Spend::RemoteNext => {
            ("channel_closing", format!("the peer's commitment is in block {height}; {home}"))
        }
        Spend::Revoked(number) => (
            "channel_alarm",
            format!(
                "THE PEER PUBLISHED A REVOKED COMMITMENT (number {number}), in block {height}; {home}. This release does not \
                 take the peer's part as a penalty yet: it may be lost. Keep the data directory"
            ),
        ),
        Spend::Unknown => (
            "channel_alarm",
            format!(
                "a transaction that our records do not explain spent the channel in block {height}; {home}. Records were lost, or a key \
                 has leaked: do not open channels before it is clear which"
            ),
        ),
    }
}
