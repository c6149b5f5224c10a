//! The rows that the sidecar itself owns. Rows of channels and monitors are encoded by the `channel` crate.

use bitcoin::hashes::Hash;
use bitcoin::{Transaction, Txid, consensus};
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, PaymentSecret};
use outrigger_channel::Publication;

use super::record::{BadRecord, RecordReader, RecordWriter};
use super::token::Charge;

mod event;
mod settlement;

pub use event::EventRow;
pub use settlement::{Downstream, OutcomeRow, SettlementRow};

/// A transaction to broadcast until it is buried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastRow {
    pub channel: ChannelId,
    pub what: Publication,
    pub tx: Transaction,
}

impl BroadcastRow {
    /// A channel publishes one transaction at a time of each kind.
    pub fn key(&self) -> Vec<u8> {
        Self::key_of(&self.channel, self.what)
    }

    /// The key of the row for one kind.
    pub fn key_of(channel: &ChannelId, what: Publication) -> Vec<u8> {
        let mut key = channel.0.to_vec();
        key.push(publication_number(what));
        key
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1)
            .put(0, self.channel.0)
            .put(2, [publication_number(self.what)])
            .put(4, consensus::serialize(&self.tx))
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            channel: ChannelId(record.array(0, "channel")?),
            what: match record.u8(2, "kind")? {
                0 => Publication::Funding,
                1 => Publication::MutualClose,
                2..=u8::MAX => return Err(BadRecord::Malformed("kind")),
            },
            tx: consensus::deserialize(record.bytes(4, "transaction")?)
                .map_err(|_| BadRecord::Malformed("transaction"))?,
        };
        record.finish()?;
        Ok(row)
    }
}

/// The newest transaction of ours that spends an output of a commitment: the child that carries a commitment's fee, or a
/// sweep to the wallet. A later one takes its place and never pays less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepRow {
    pub tx: Transaction,
    /// What it pays in fees.
    pub fee: Sat,
    /// The best height when the first transaction for this output was made.
    pub since_height: u32,
}

impl SweepRow {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1)
            .put(0, consensus::serialize(&self.tx))
            .put(2, self.fee.get().to_be_bytes())
            .put(4, self.since_height.to_be_bytes())
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            tx: consensus::deserialize(record.bytes(0, "transaction")?)
                .map_err(|_| BadRecord::Malformed("transaction"))?,
            fee: Sat::new(record.u64(2, "fee")?),
            since_height: record.u32(4, "height")?,
        };
        record.finish()?;
        Ok(row)
    }
}

/// Every kind of publication, for the deletion of all of a channel's rows.
pub const PUBLICATIONS: [Publication; 2] = [Publication::Funding, Publication::MutualClose];

fn publication_number(what: Publication) -> u8 {
    match what {
        Publication::Funding => 0,
        Publication::MutualClose => 1,
    }
}

/// A payment that we sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRow {
    pub payment_id: [u8; 32],
    pub payment_hash: PaymentHash,
    pub destination: NodeId,
    pub amount: Msat,
    pub created_at: u64,
    /// The number of its next HTLC: no two of a payment have one number.
    pub next_part: u16,
    /// By what new attempts are made; none where none is to be made any more.
    pub again: Option<AgainRow>,
    /// What it counts for in the sum of the token that it was made with; none where no token made it.
    pub charge: Option<Charge>,
    /// What a channel that ended on the chain had no output for: it went to the miners, whatever the payment comes to.
    pub lost: Msat,
    pub state: PaymentState,
}

/// What new attempts of a pending payment are made by, before a start and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgainRow {
    pub whom: PaidFor,
    /// The most that all parts together may pay in fees.
    pub max_fee: Msat,
    /// Unix seconds from which on no attempt is made.
    pub until: u64,
}

/// What a payment is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaidFor {
    /// An invoice, as it was given.
    Invoice(String),
    /// Nothing: the preimage is ours (keysend).
    Keysend(PaymentPreimage),
}

impl AgainRow {
    fn put(&self, record: RecordWriter) -> RecordWriter {
        let record = record.put(22, self.max_fee.get().to_be_bytes()).put(24, self.until.to_be_bytes());
        match &self.whom {
            PaidFor::Invoice(invoice) => record.put(26, invoice),
            PaidFor::Keysend(preimage) => record.put(28, preimage.0),
        }
    }

    fn read(record: &mut RecordReader<'_>) -> Result<Option<Self>, BadRecord> {
        let Some(max_fee) = record.u64_some(22, "fee limit")? else { return Ok(None) };
        let until = record.u64(24, "time")?;
        let whom = match record.array_some(28, "preimage")? {
            Some(preimage) => PaidFor::Keysend(PaymentPreimage(preimage)),
            None => PaidFor::Invoice(record.text(26, "invoice")?),
        };
        Ok(Some(Self { whom, max_fee: Msat::new(max_fee), until }))
    }
}

/// Where a payment stands; never a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentState {
    Pending,
    Succeeded { preimage: PaymentPreimage, fee: Msat, at: u64 },
    Failed { kind: String, message: String, at: u64 },
}

impl PaymentRow {
    /// Whether its outcome is open.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, PaymentState::Pending)
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let record = RecordWriter::new(1)
            .put(0, self.payment_id)
            .put(2, self.payment_hash.0)
            .put(4, self.destination.serialize())
            .put(6, self.amount.get().to_be_bytes())
            .put(8, self.created_at.to_be_bytes());
        let record = match &self.state {
            PaymentState::Pending => record,
            PaymentState::Succeeded { preimage, fee, at } => {
                record.put(10, at.to_be_bytes()).put(12, preimage.0).put(14, fee.get().to_be_bytes())
            }
            PaymentState::Failed { kind, message, at } => {
                record.put(10, at.to_be_bytes()).put(16, kind).put(18, message)
            }
        };
        let record = record.put(20, self.next_part.to_be_bytes());
        match &self.again {
            Some(again) => again.put(record),
            None => record,
        }
        .put_some(30, self.charge.map(Charge::to_bytes))
        .put_some(32, (self.lost > Msat::ZERO).then(|| self.lost.get().to_be_bytes()))
        .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            payment_id: record.array(0, "payment_id")?,
            payment_hash: PaymentHash(record.array(2, "payment_hash")?),
            destination: record.node_id(4, "destination")?,
            amount: Msat::new(record.u64(6, "amount")?),
            created_at: record.u64(8, "time")?,
            // No number may be used twice: where none is known, none is left.
            next_part: record.array_some(20, "next part")?.map_or(u16::MAX, u16::from_be_bytes),
            again: AgainRow::read(&mut record)?,
            charge: record.array_some(30, "charge")?.map(Charge::from_bytes),
            lost: Msat::new(record.u64_some(32, "what was lost")?.unwrap_or(0)),
            state: match record.u64_some(10, "time")? {
                None => PaymentState::Pending,
                Some(at) => match record.array_some(12, "preimage")? {
                    Some(preimage) => PaymentState::Succeeded {
                        preimage: PaymentPreimage(preimage),
                        fee: Msat::new(record.u64(14, "fee")?),
                        at,
                    },
                    None => PaymentState::Failed {
                        kind: record.text(16, "failure kind")?,
                        message: record.text(18, "failure message")?,
                        at,
                    },
                },
            },
        };
        record.finish()?;
        Ok(row)
    }
}

/// An invoice that we made, or what came to us without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceRow {
    pub payment_hash: PaymentHash,
    pub preimage: PaymentPreimage,
    pub payment_secret: PaymentSecret,
    pub amount: Option<Msat>,
    pub created_at: u64,
    pub expires_at: u64,
    pub min_final_cltv_expiry: u32,
    /// None for a payment that nobody asked for (keysend).
    pub invoice: Option<String>,
    pub description: String,
    pub label: Option<String>,
    pub paid: Option<Paid>,
}

/// How an invoice was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    pub amount: Msat,
    pub at: u64,
}

impl InvoiceRow {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let paid = self.paid.map(|paid| {
            let mut value = paid.amount.get().to_be_bytes().to_vec();
            value.extend_from_slice(&paid.at.to_be_bytes());
            value
        });
        RecordWriter::new(1)
            .put(0, self.payment_hash.0)
            .put(2, self.preimage.0)
            .put(4, self.payment_secret.0)
            .put_some(6, self.amount.map(|amount| amount.get().to_be_bytes()))
            .put(8, self.created_at.to_be_bytes())
            .put(10, self.expires_at.to_be_bytes())
            .put(12, self.min_final_cltv_expiry.to_be_bytes())
            .put_some(14, self.invoice.as_ref())
            .put_some(15, self.label.as_ref())
            .put_some(16, paid)
            .put(18, &self.description)
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            payment_hash: PaymentHash(record.array(0, "payment_hash")?),
            preimage: PaymentPreimage(record.array(2, "preimage")?),
            payment_secret: PaymentSecret(record.array(4, "payment_secret")?),
            amount: record.u64_some(6, "amount")?.map(Msat::new),
            created_at: record.u64(8, "time")?,
            expires_at: record.u64(10, "expiry")?,
            min_final_cltv_expiry: record.u32(12, "final CLTV")?,
            invoice: record.text_some(14, "invoice")?,
            description: record.text(18, "description")?,
            label: record.bytes_some(15).map(|label| String::from_utf8_lossy(label).into_owned()),
            paid: match record.array_some::<16>(16, "payment")? {
                None => None,
                Some(value) => {
                    let (amount, at) = value.split_at(8);
                    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
                    Some(Paid { amount: Msat::new(number(amount)), at: number(at) })
                }
            },
        };
        record.finish()?;
        Ok(row)
    }
}

/// The answer to an idempotent call, kept with its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// The caller's key, at most 256 bytes.
    pub idempotency_key: String,
    pub op_id: [u8; 16],
    /// Digest of the call's body: the same key with another body is a conflict.
    pub body: [u8; 32],
    pub state: OperationState,
}

/// How far the call has come: `channel.open`, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationState {
    Opening,
    Pending {
        channel_id: ChannelId,
        funding_txid: Txid,
    },
    Failed {
        reason: String,
    },
    /// The node stopped while it was under way. In a file that is the newest no channel was signed, so the opening has failed; of an
    /// old one that is not known, and a file may prove old long after the start that found this.
    Interrupted,
    /// `payment.send` began this payment.
    Payment {
        payment_id: [u8; 32],
    },
    /// `invoice.create` was answered.
    Invoice {
        payment_hash: PaymentHash,
    },
    /// `wallet.send` made this transaction.
    Sent {
        txid: Txid,
    },
    /// `wallet.new_address` gave this address.
    Address {
        address: String,
    },
}

impl OperationRow {
    /// The key of the row.
    pub fn key(&self) -> Vec<u8> {
        self.idempotency_key.as_bytes().to_vec()
    }

    /// What a key names that is no opening with an end.
    fn keyed(record: &mut RecordReader<'_>) -> Result<OperationState, BadRecord> {
        let hash = record.array_some(12, "payment_hash")?;
        let payment = record.array_some(14, "payment_id")?;
        let txid = record.array_some(16, "txid")?;
        if let Some(address) = record.bytes_some(18) {
            let address = String::from_utf8(address.to_vec()).map_err(|_| BadRecord::Malformed("address"))?;
            let is_alone = hash.is_none() && payment.is_none() && txid.is_none();
            return is_alone.then_some(OperationState::Address { address }).ok_or(BadRecord::Malformed("state"));
        }
        Ok(match (hash, payment, txid) {
            (Some(hash), None, None) => OperationState::Invoice { payment_hash: PaymentHash(hash) },
            (None, Some(payment_id), None) => OperationState::Payment { payment_id },
            (None, None, Some(txid)) => OperationState::Sent { txid: Txid::from_byte_array(txid) },
            (None, None, None) => OperationState::Opening,
            _ => return Err(BadRecord::Malformed("state")),
        })
    }

    /// The row once the channel exists.
    pub fn pending(self, channel_id: ChannelId, funding_txid: Txid) -> Self {
        Self { state: OperationState::Pending { channel_id, funding_txid }, ..self }
    }

    /// The row once the opening failed.
    pub fn failed(self, reason: &str) -> Self {
        Self { state: OperationState::Failed { reason: reason.to_owned() }, ..self }
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let record = RecordWriter::new(1).put(0, &self.idempotency_key).put(2, self.op_id).put(4, self.body);
        match &self.state {
            OperationState::Opening => record,
            OperationState::Pending { channel_id, funding_txid } => {
                record.put(6, channel_id.0).put(8, funding_txid.to_byte_array())
            }
            OperationState::Failed { reason } => record.put(10, reason),
            OperationState::Interrupted => record.put(20, []),
            OperationState::Invoice { payment_hash } => record.put(12, payment_hash.0),
            OperationState::Payment { payment_id } => record.put(14, payment_id),
            OperationState::Sent { txid } => record.put(16, txid.to_byte_array()),
            OperationState::Address { address } => record.put(18, address),
        }
        .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            idempotency_key: record.text(0, "idempotency key")?,
            op_id: record.array(2, "op_id")?,
            body: record.array(4, "digest")?,
            state: match (record.array_some(6, "channel")?, record.array_some(8, "txid")?) {
                (Some(channel), Some(txid)) => OperationState::Pending {
                    channel_id: ChannelId(channel),
                    funding_txid: Txid::from_byte_array(txid),
                },
                (Some(_), None) | (None, Some(_)) => return Err(BadRecord::Malformed("channel")),
                (None, None) => match record.bytes_some(10) {
                    Some(reason) => OperationState::Failed { reason: String::from_utf8_lossy(reason).into_owned() },
                    None => match record.bytes_some(20) {
                        Some([]) => OperationState::Interrupted,
                        Some(_) => return Err(BadRecord::Malformed("state")),
                        None => Self::keyed(&mut record)?,
                    },
                },
            },
        };
        record.finish()?;
        Ok(row)
    }
}
