//! Rows of the channel: parameters, head, HTLCs and onions.

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid, consensus};
use outrigger_bolt::id::NodeId;
use outrigger_bolt::keys::Basepoints;
use outrigger_bolt::wire::tlv::{TlvStream, TlvWriter};

use super::{CorruptRow, Fault, Fields, Nested, Record, Row, decode_row, encode_row};
use crate::changes::{
    ChannelHead, ChannelParams, FeeState, FundingPhase, FundingTold, HtlcRow, HtlcTotals, LastSent, Phase, Removal,
    SideParams, Totals,
};
use crate::commitments::htlc::{HtlcState, Stage};
use crate::input::FailReason;
use crate::transition::HtlcSource;

impl Row for ChannelParams {
    const NAME: &'static str = "channel parameters";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

impl ChannelParams {
    /// The peer in the bytes of a row that cannot be read as a whole, where the fields before the damage tell it.
    pub fn peer_in(bytes: &[u8]) -> Option<NodeId> {
        let (_version, fields) = bytes.split_first()?;
        let mut stream = TlvStream::new(fields);
        while let Ok(Some(record)) = stream.next_record() {
            if record.number == 2 {
                return NodeId::from_slice(record.value).ok();
            }
        }
        None
    }
}

impl Row for ChannelHead {
    const NAME: &'static str = "channel head";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

impl Row for HtlcRow {
    const NAME: &'static str = "HTLC";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

impl Row for [u8; 1366] {
    const NAME: &'static str = "onion";

    fn encode(&self) -> Vec<u8> {
        encode_row(&Onion(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes).map(|Onion(packet)| packet)
    }
}

struct Onion([u8; 1366]);

impl Record for Onion {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        fields.value(0).map(Self)
    }
}

impl Record for ChannelParams {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.channel_id);
        fields.record(2, self.peer.public_key());
        fields.record(4, &self.keys_index);
        fields.record(6, &u8::from(self.is_opener));
        fields.record(8, &u8::from(self.announce));
        fields.record(10, &self.channel_type);
        fields.record(12, &self.funding.txid);
        fields.record(14, &self.funding.vout);
        fields.record(16, &self.capacity);
        fields.record(18, &self.push);
        fields.record(20, &self.minimum_depth);
        fields.record(22, &Nested(&self.local));
        fields.record(24, &Nested(&self.remote));
        fields.record(26, &self.opened_height);
        fields.record(28, &self.scid_alias);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            channel_id: fields.value(0)?,
            peer: NodeId::new(fields.value(2)?),
            keys_index: fields.value(4)?,
            is_opener: fields.flag(6)?,
            announce: fields.flag(8)?,
            channel_type: fields.value(10)?,
            funding: OutPoint { txid: fields.value(12)?, vout: fields.value(14)? },
            capacity: fields.value(16)?,
            push: fields.value(18)?,
            minimum_depth: fields.value(20)?,
            local: fields.record(22)?,
            remote: fields.record(24)?,
            opened_height: fields.value(26)?,
            scid_alias: fields.value(28)?,
        })
    }
}

impl Record for SideParams {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.basepoints.funding_pubkey);
        fields.record(2, &self.basepoints.revocation);
        fields.record(4, &self.basepoints.payment);
        fields.record(6, &self.basepoints.delayed_payment);
        fields.record(8, &self.basepoints.htlc);
        fields.record(10, &self.dust_limit);
        fields.record(12, &self.channel_reserve);
        fields.record(14, &self.to_self_delay);
        fields.record(16, &self.max_htlc_value_in_flight);
        fields.record(18, &self.max_accepted_htlcs);
        fields.record(20, &self.htlc_minimum);
        fields.optional(22, self.upfront_shutdown_script.as_ref());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            basepoints: Basepoints {
                funding_pubkey: fields.value(0)?,
                revocation: fields.value(2)?,
                payment: fields.value(4)?,
                delayed_payment: fields.value(6)?,
                htlc: fields.value(8)?,
            },
            dust_limit: fields.value(10)?,
            channel_reserve: fields.value(12)?,
            to_self_delay: fields.value(14)?,
            max_htlc_value_in_flight: fields.value(16)?,
            max_accepted_htlcs: fields.value(18)?,
            htlc_minimum: fields.value(20)?,
            upfront_shutdown_script: fields.optional(22)?,
        })
    }
}

impl Record for ChannelHead {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &Nested(&self.phase));
        fields.record(2, &self.local_number);
        fields.record(4, &self.remote_number);
        fields.optional(6, self.revoking_point.as_ref());
        fields.record(8, &self.remote_point);
        fields.optional(10, self.remote_next_point.as_ref());
        fields.optional(12, self.last_remote_secret.as_ref());
        fields.record(14, &Nested(&self.last_sent));
        fields.record(16, &self.next_local_htlc_id);
        fields.record(18, &self.next_remote_htlc_id);
        fields.record(20, &Nested(&self.fee));
        fields.record(22, &Nested(&self.local_commitment));
        fields.record(24, &Nested(&self.remote_commitment));
        fields.optional(26, self.funding_height.as_ref());
        fields.optional(28, self.short_channel_id.as_ref());
        fields.record(30, &u8::from(self.channel_ready_sent));
        fields.record(32, &u8::from(self.channel_ready_received));
        fields.optional(34, self.remote_scid_alias.as_ref());
        fields.optional(36, self.local_shutdown.as_ref());
        fields.optional(38, self.remote_shutdown.as_ref());
        fields.record(40, &self.monitor_update_id);
        fields.optional(41, told_number(self.told).as_ref());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            phase: fields.record(0)?,
            local_number: fields.value(2)?,
            remote_number: fields.value(4)?,
            revoking_point: fields.optional(6)?,
            remote_point: fields.value(8)?,
            remote_next_point: fields.optional(10)?,
            last_remote_secret: fields.optional(12)?,
            last_sent: fields.record(14)?,
            next_local_htlc_id: fields.value(16)?,
            next_remote_htlc_id: fields.value(18)?,
            fee: fields.record(20)?,
            local_commitment: fields.record(22)?,
            remote_commitment: fields.record(24)?,
            funding_height: fields.optional(26)?,
            short_channel_id: fields.optional(28)?,
            channel_ready_sent: fields.flag(30)?,
            channel_ready_received: fields.flag(32)?,
            remote_scid_alias: fields.optional(34)?,
            local_shutdown: fields.optional(36)?,
            remote_shutdown: fields.optional(38)?,
            monitor_update_id: fields.value(40)?,
            told: told(fields.optional(41)?).ok_or(Fault::Field(41))?,
        })
    }
}

/// A bit for each; nothing where nothing was told.
fn told_number(told: FundingTold) -> Option<u8> {
    let FundingTold { pending, stuck } = told;
    (pending || stuck).then(|| u8::from(pending) | (u8::from(stuck) << 1))
}

fn told(number: Option<u8>) -> Option<FundingTold> {
    let number = number.unwrap_or(0);
    (number < 4).then_some(FundingTold { pending: number & 1 != 0, stuck: number & 2 != 0 })
}

impl Record for Totals {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.to_local);
        fields.record(2, &self.to_remote);
        fields.record(4, &Nested(&self.offered_by_local));
        fields.record(6, &Nested(&self.offered_by_remote));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            to_local: fields.value(0)?,
            to_remote: fields.value(2)?,
            offered_by_local: fields.record(4)?,
            offered_by_remote: fields.record(6)?,
        })
    }
}

impl Record for HtlcTotals {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.count);
        fields.record(2, &self.untrimmed);
        fields.record(4, &self.value);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self { count: fields.value(0)?, untrimmed: fields.value(2)?, value: fields.value(4)? })
    }
}

impl Record for FeeState {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.local);
        fields.record(2, &self.remote);
        if let Some((feerate, stage)) = &self.change {
            fields.record(4, feerate);
            fields.record(6, &stage_number(*stage));
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let (local, remote) = (fields.value(0)?, fields.value(2)?);
        let change = match fields.optional(4)? {
            None => None,
            Some(feerate) => Some((feerate, stage(fields.value(6)?).ok_or(Fault::Field(6))?)),
        };
        Ok(Self { local, remote, change })
    }
}

impl Record for LastSent {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        let kind: u8 = match self {
            Self::Nothing => 0,
            Self::Commitment => 1,
            Self::Revocation => 2,
        };
        fields.record(0, &kind);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        match fields.value(0)? {
            0u8 => Ok(Self::Nothing),
            1 => Ok(Self::Commitment),
            2 => Ok(Self::Revocation),
            3.. => Err(Fault::Field(0)),
        }
    }
}

/// Field 0 says which phase it is; each phase has field numbers of its own, so that none is read for another.
impl Record for Phase {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        match self {
            Self::Funding(FundingPhase { tx }) => {
                fields.record(0, &0u8);
                fields.optional(2, tx.as_ref().map(|tx| consensus::serialize(tx.as_ref())).as_ref());
            }
            Self::Normal => fields.record(0, &1u8),
            Self::ShuttingDown { feerate, signed } => {
                fields.record(0, &2u8);
                fields.record(4, feerate);
                fields.record(26, &u8::from(*signed));
            }
            Self::Closing { tx, others, wanted, confirmed_height } => {
                fields.record(0, &3u8);
                fields.record(6, &consensus::serialize(tx));
                fields.optional(8, confirmed_height.as_ref());
                fields.record(22, &Nested(&Transactions(others.clone())));
                fields.optional(24, wanted.as_ref());
            }
            Self::Closed { txid, height } => {
                fields.record(0, &4u8);
                fields.record(10, txid);
                fields.record(12, height);
            }
            Self::Failed { reason, publish, reserved, spend } => {
                fields.record(0, &5u8);
                fields.record(14, &reason.as_bytes().to_vec());
                fields.record(16, &u8::from(*publish));
                fields.optional(18, spend.as_ref().map(|(txid, _)| txid));
                fields.optional(20, spend.as_ref().map(|(_, height)| height));
                fields.optional(28, reserved.then_some(1u8).as_ref());
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        match fields.value(0)? {
            0u8 => Ok(Self::Funding(FundingPhase { tx: transaction(fields, 2)?.map(Arc::new) })),
            1 => Ok(Self::Normal),
            2 => Ok(Self::ShuttingDown { feerate: fields.value(4)?, signed: fields.flag(26)? }),
            3 => Ok(Self::Closing {
                tx: transaction(fields, 6)?.ok_or(Fault::Missing(6))?,
                confirmed_height: fields.optional(8)?,
                others: fields.record::<Transactions>(22)?.0,
                wanted: fields.optional(24)?,
            }),
            4 => Ok(Self::Closed { txid: fields.value(10)?, height: fields.value(12)? }),
            5 => Ok(Self::Failed {
                reason: String::from_utf8(fields.value(14)?).map_err(|_| Fault::Field(14))?,
                publish: fields.flag(16)?,
                reserved: fields.mark(28)?,
                spend: match fields.optional::<Txid>(18)? {
                    None => None,
                    Some(txid) => Some((txid, fields.value(20)?)),
                },
            }),
            6.. => Err(Fault::Field(0)),
        }
    }
}

/// Fields 0, 2, 4 and so on are one transaction each.
struct Transactions(Vec<Transaction>);

impl Record for Transactions {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        for (number, tx) in (0..).step_by(2).zip(&self.0) {
            fields.record(number, &consensus::serialize(tx));
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        (0..).step_by(2).map_while(|number| transaction(fields, number).transpose()).collect::<Result<_, _>>().map(Self)
    }
}

fn transaction(fields: &mut Fields<'_>, number: u64) -> Result<Option<Transaction>, Fault> {
    let bytes: Option<Vec<u8>> = fields.optional(number)?;
    bytes.map(|bytes| consensus::deserialize(&bytes).map_err(|_| Fault::Field(number))).transpose()
}

impl Record for HtlcRow {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.amount);
        fields.record(2, &self.payment_hash);
        fields.record(4, &self.cltv_expiry);
        fields.record(6, &state_bytes(self.state));
        fields.optional(8, self.source.as_ref().map(Nested).as_ref());
        fields.optional(10, self.removal.as_ref().map(Nested).as_ref());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            amount: fields.value(0)?,
            payment_hash: fields.value(2)?,
            cltv_expiry: fields.value(4)?,
            state: state(fields.value(6)?).ok_or(Fault::Field(6))?,
            source: fields.optional_record(8)?,
            removal: fields.optional_record(10)?,
        })
    }
}

fn state_bytes(state: HtlcState) -> [u8; 2] {
    match state {
        HtlcState::Adding(stage) => [0, stage_number(stage)],
        HtlcState::Removing(stage) => [1, stage_number(stage)],
    }
}

fn state([direction, at]: [u8; 2]) -> Option<HtlcState> {
    match direction {
        0 => stage(at).map(HtlcState::Adding),
        1 => stage(at).map(HtlcState::Removing),
        2.. => None,
    }
}

fn stage_number(stage: Stage) -> u8 {
    match stage {
        Stage::Proposed => 0,
        Stage::Signed => 1,
        Stage::Revoked => 2,
        Stage::Acknowledged => 3,
        Stage::Settled => 4,
    }
}

fn stage(number: u8) -> Option<Stage> {
    match number {
        0 => Some(Stage::Proposed),
        1 => Some(Stage::Signed),
        2 => Some(Stage::Revoked),
        3 => Some(Stage::Acknowledged),
        4 => Some(Stage::Settled),
        5.. => None,
    }
}

impl Record for HtlcSource {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        match self {
            Self::Payment { payment_id, part } => {
                fields.record(0, payment_id);
                fields.record(2, part);
            }
            Self::Relayed { channel, htlc_id } => {
                fields.record(4, channel);
                fields.record(6, htlc_id);
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        match fields.optional(0)? {
            Some(payment_id) => Ok(Self::Payment { payment_id, part: fields.value(2)? }),
            None => Ok(Self::Relayed { channel: fields.value(4)?, htlc_id: fields.value(6)? }),
        }
    }
}

impl Record for Removal {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        match self {
            Self::Fulfilled(preimage) => fields.record(0, preimage),
            Self::Failed(FailReason::Encrypted(reason)) => fields.record(2, reason),
            Self::Failed(FailReason::Malformed { sha256_of_onion, failure_code }) => {
                fields.record(4, sha256_of_onion);
                fields.record(6, failure_code);
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        if let Some(preimage) = fields.optional(0)? {
            return Ok(Self::Fulfilled(preimage));
        }
        if let Some(reason) = fields.optional(2)? {
            return Ok(Self::Failed(FailReason::Encrypted(reason)));
        }
        let (sha256_of_onion, failure_code) = (fields.value(4)?, fields.value(6)?);
        Ok(Self::Failed(FailReason::Malformed { sha256_of_onion, failure_code }))
    }
}
