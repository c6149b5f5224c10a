//! Rows of HTLCs that were decided: those that we received, and those of payments of ours.

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, PaymentHash, PaymentPreimage};
use outrigger_channel::{Command, FailReason, HtlcOutcome};

use crate::store::record::{BadRecord, RecordReader, RecordWriter};

/// The decided outcome of a received HTLC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettlementRow {
    Fulfil(PaymentPreimage),
    Fail(FailReason),
    /// What we relayed was claimed by the next peer.
    FulfilledDownstream(PaymentPreimage, Downstream),
    /// What we relayed has failed: by the next peer, for a reason that is yet to be wrapped with the secret of the received
    /// onion, or with the channel to it, which ended on the chain without an output for it.
    FailedDownstream(Option<FailReason>, Downstream),
}

/// The HTLC that was offered to the next peer for a received one, and what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downstream {
    pub channel: ChannelId,
    pub htlc_id: u64,
    /// Zero where it came back: the preimage was told for another HTLC of its hash.
    pub amount: Msat,
}

impl SettlementRow {
    /// What the outcome of an HTLC that we relayed is to the one that it was received as; none for an add that was never
    /// committed.
    pub fn of_downstream(outcome: &HtlcOutcome, offered: Downstream) -> Option<Self> {
        match outcome {
            HtlcOutcome::Fulfilled(preimage) => Some(Self::FulfilledDownstream(*preimage, offered)),
            HtlcOutcome::Failed(reason) => Some(Self::FailedDownstream(Some(reason.clone()), offered)),
            HtlcOutcome::NoOutput => Some(Self::FailedDownstream(None, offered)),
            HtlcOutcome::NeverCommitted => None,
        }
    }

    /// Whether the preimage is told: such a decision is never reversed.
    pub const fn is_fulfilled(&self) -> bool {
        match self {
            Self::Fulfil(_) | Self::FulfilledDownstream(..) => true,
            Self::Fail(_) | Self::FailedDownstream(..) => false,
        }
    }

    /// Whether it is a failure as it came from downstream: it is not for the channel before it is wrapped.
    pub const fn is_raw(&self) -> bool {
        match self {
            Self::FailedDownstream(..) => true,
            Self::Fulfil(_) | Self::FulfilledDownstream(..) | Self::Fail(_) => false,
        }
    }

    /// The order that carries the outcome out.
    pub fn command(&self, htlc_id: u64) -> Command {
        match self {
            Self::Fulfil(preimage) | Self::FulfilledDownstream(preimage, _) => {
                Command::Fulfill { htlc_id, preimage: *preimage }
            }
            // One that could not be wrapped has no onion any more: it is on its way out, and the order changes nothing.
            Self::Fail(reason) | Self::FailedDownstream(Some(reason), _) => {
                Command::FailHtlc { htlc_id, reason: reason.clone() }
            }
            Self::FailedDownstream(None, _) => Command::FailHtlc { htlc_id, reason: FailReason::Encrypted(Vec::new()) },
        }
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let record = RecordWriter::new(1);
        match self {
            Self::Fulfil(preimage) => record.put(0, preimage.0),
            Self::FulfilledDownstream(preimage, offered) => put_offered(record.put(0, preimage.0), offered),
            Self::Fail(reason) => put_reason(record, reason),
            Self::FailedDownstream(Some(reason), offered) => {
                put_offered(put_reason(record, reason).put(6, []), offered)
            }
            Self::FailedDownstream(None, offered) => put_offered(record.put(6, []), offered),
        }
        .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = match record.array_some(0, "preimage")?.map(PaymentPreimage) {
            Some(preimage) => match offered_some(&mut record)? {
                Some(offered) => Self::FulfilledDownstream(preimage, offered),
                None => Self::Fulfil(preimage),
            },
            None => match (reason_some(&mut record)?, record.bytes_some(6)) {
                (reason, Some([])) => {
                    let offered = offered_some(&mut record)?.ok_or(BadRecord::Missing("channel"))?;
                    Self::FailedDownstream(reason, offered)
                }
                (Some(reason), None) => Self::Fail(reason),
                (None, None) => return Err(BadRecord::Missing("reason")),
                (_, Some(_)) => return Err(BadRecord::Malformed("mark of a failure downstream")),
            },
        };
        record.finish()?;
        Ok(row)
    }
}

/// Fields 8, 10 and 12: the HTLC that was offered.
fn put_offered(record: RecordWriter, Downstream { channel, htlc_id, amount }: &Downstream) -> RecordWriter {
    record.put(8, channel.0).put(10, htlc_id.to_be_bytes()).put(12, amount.get().to_be_bytes())
}

fn offered_some(record: &mut RecordReader<'_>) -> Result<Option<Downstream>, BadRecord> {
    let Some(channel) = record.array_some(8, "channel")? else { return Ok(None) };
    let (htlc_id, amount) = (record.u64(10, "HTLC id")?, Msat::new(record.u64(12, "amount")?));
    Ok(Some(Downstream { channel: ChannelId(channel), htlc_id, amount }))
}

/// Fields 2 and 4: an encrypted reason, or a malformed onion's digest and code.
fn put_reason(record: RecordWriter, reason: &FailReason) -> RecordWriter {
    match reason {
        FailReason::Encrypted(reason) => record.put(2, reason),
        FailReason::Malformed { sha256_of_onion, failure_code } => {
            let mut value = failure_code.to_be_bytes().to_vec();
            value.extend_from_slice(sha256_of_onion);
            record.put(4, value)
        }
    }
}

fn reason_some(record: &mut RecordReader<'_>) -> Result<Option<FailReason>, BadRecord> {
    if let Some(reason) = record.bytes_some(2) {
        return Ok(Some(FailReason::Encrypted(reason.to_vec())));
    }
    let malformed: Option<[u8; 34]> = record.array_some(4, "reason")?;
    Ok(malformed.map(|[high, low, sha256_of_onion @ ..]| FailReason::Malformed {
        sha256_of_onion,
        failure_code: u16::from_be_bytes([high, low]),
    }))
}

/// What an HTLC of a payment of ours came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeRow {
    pub part: u16,
    pub payment_hash: PaymentHash,
    /// None where the channel ended on the chain without an output for the HTLC.
    pub outcome: Option<SettlementRow>,
}

impl OutcomeRow {
    /// The row of an outcome; none for an add that was never committed.
    pub fn of(part: u16, payment_hash: PaymentHash, outcome: &HtlcOutcome) -> Option<Self> {
        let outcome = match outcome {
            HtlcOutcome::Fulfilled(preimage) => Some(SettlementRow::Fulfil(*preimage)),
            HtlcOutcome::Failed(reason) => Some(SettlementRow::Fail(reason.clone())),
            HtlcOutcome::NoOutput => None,
            HtlcOutcome::NeverCommitted => return None,
        };
        Some(Self { part, payment_hash, outcome })
    }

    /// The outcome as it was told.
    pub fn outcome(&self) -> HtlcOutcome {
        match &self.outcome {
            Some(SettlementRow::Fulfil(preimage) | SettlementRow::FulfilledDownstream(preimage, _)) => {
                HtlcOutcome::Fulfilled(*preimage)
            }
            Some(SettlementRow::Fail(reason) | SettlementRow::FailedDownstream(Some(reason), _)) => {
                HtlcOutcome::Failed(reason.clone())
            }
            Some(SettlementRow::FailedDownstream(None, _)) | None => HtlcOutcome::NoOutput,
        }
    }

    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        let record = RecordWriter::new(1).put(0, self.part.to_be_bytes()).put(2, self.payment_hash.0);
        match &self.outcome {
            Some(outcome) => record.put(4, outcome.encode()),
            None => record.put(6, []),
        }
        .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            part: u16::from_be_bytes(record.array(0, "part")?),
            payment_hash: PaymentHash(record.array(2, "payment_hash")?),
            outcome: match record.bytes_some(4) {
                Some(outcome) => Some(SettlementRow::decode(outcome)?),
                None => record.array(6, "outcome").map(|[]: [u8; 0]| None)?,
            },
        };
        record.finish()?;
        Ok(row)
    }
}
