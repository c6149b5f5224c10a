//! Rows of the monitor: head, evidence, secrets, the peer's HTLC signatures and preimages.

use std::sync::Arc;

use bitcoin::consensus;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::id::PaymentPreimage;
use outrigger_bolt::tx::commitment::{CommitmentHtlc, HtlcDirection};
use outrigger_bolt::wire::tlv::TlvWriter;

use super::{CorruptRow, Fault, Fields, Nested, Record, Row, decode_row, encode_row};
use crate::changes::{
    Evidence, FundingSpend, MonitorHead, RemoteCommitment, ReplacedCommitment, SignedCommitment, Taken,
};
use crate::commitments::htlc::{HtlcKey, Offerer};
use crate::monitor::ClaimKind;

impl Row for MonitorHead {
    const NAME: &'static str = "monitor head";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

impl Row for Evidence {
    const NAME: &'static str = "evidence";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

/// The number of a revoked commitment of the peer, and its secret.
impl Row for (u64, [u8; 32]) {
    const NAME: &'static str = "per-commitment secret";

    fn encode(&self) -> Vec<u8> {
        encode_row(&Secret(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes).map(|Secret(secret)| secret)
    }
}

/// The peer's signatures for the HTLC transactions of one local commitment.
impl Row for Vec<Signature> {
    const NAME: &'static str = "HTLC signatures";

    fn encode(&self) -> Vec<u8> {
        encode_row(&HtlcSignatures(self.clone()))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes).map(|HtlcSignatures(signatures)| signatures)
    }
}

impl Row for PaymentPreimage {
    const NAME: &'static str = "preimage";

    fn encode(&self) -> Vec<u8> {
        encode_row(&Preimage(*self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes).map(|Preimage(preimage)| preimage)
    }
}

impl Row for FundingSpend {
    const NAME: &'static str = "spend of the funding output";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

impl Row for Taken {
    const NAME: &'static str = "taken output";

    fn encode(&self) -> Vec<u8> {
        encode_row(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow> {
        decode_row(Self::NAME, bytes)
    }
}

impl Record for MonitorHead {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.update_id);
        fields.record(2, &Nested(&self.local));
        fields.record(4, &Nested(&self.remote));
        fields.optional(6, self.remote_next.as_ref().map(Nested).as_ref());
        fields.record(8, &self.next_secret_number);
        fields.record(10, &u8::from(self.failed));
        fields.record(12, &u8::from(self.may_publish));
        fields.record(14, &u8::from(self.closed));
        fields.optional(15, self.told_spend.as_ref().map(|(txid, _)| txid));
        fields.optional(16, self.closing.as_ref());
        fields.optional(17, self.told_spend.as_ref().map(|(_, height)| height));
        fields.optional(18, self.reserved.then_some(1u8).as_ref());
        fields.optional(20, self.replaced.as_deref().map(Nested).as_ref());
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            update_id: fields.value(0)?,
            local: fields.record(2)?,
            remote: fields.record(4)?,
            remote_next: fields.optional_record(6)?,
            next_secret_number: fields.value(8)?,
            failed: fields.flag(10)?,
            may_publish: fields.flag(12)?,
            closed: fields.flag(14)?,
            told_spend: match (fields.optional(15)?, fields.optional(17)?) {
                (Some(txid), Some(height)) => Some((txid, height)),
                (None, None) => None,
                (Some(_), None) => return Err(Fault::Missing(17)),
                (None, Some(_)) => return Err(Fault::Missing(15)),
            },
            closing: fields.optional(16)?,
            reserved: fields.mark(18)?,
            replaced: fields.optional_record(20)?.map(Box::new),
        })
    }
}

/// Without the HTLC signatures, which have a row of their own.
impl Record for SignedCommitment {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.number);
        fields.record(2, &self.feerate);
        fields.record(4, &self.to_local);
        fields.record(6, &self.to_remote);
        fields.record(8, &self.signature);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            number: fields.value(0)?,
            feerate: fields.value(2)?,
            to_local: fields.value(4)?,
            to_remote: fields.value(6)?,
            signature: fields.value(8)?,
            htlc_signatures: Vec::new(),
        })
    }
}

impl Record for ReplacedCommitment {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &Nested(&self.commitment));
        fields.record(2, &self.commitment.htlc_signatures);
        fields.record(4, &Nested(&CommitmentHtlcs(self.htlcs.clone())));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let commitment: SignedCommitment = fields.record(0)?;
        let commitment = SignedCommitment { htlc_signatures: fields.value(2)?, ..commitment };
        let CommitmentHtlcs(htlcs) = fields.record(4)?;
        Ok(Self { commitment, htlcs })
    }
}

/// Fields 0, 2, 4 and so on are one HTLC each.
struct CommitmentHtlcs(Vec<CommitmentHtlc>);

impl Record for CommitmentHtlcs {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        for (number, htlc) in (0..).step_by(2).zip(&self.0) {
            fields.record(number, &Nested(htlc));
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let htlcs = (0..).step_by(2).map_while(|number| fields.optional_record(number).transpose());
        htlcs.collect::<Result<_, _>>().map(Self)
    }
}

impl Record for CommitmentHtlc {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &u8::from(self.direction == HtlcDirection::Received));
        fields.record(2, &self.id);
        fields.record(4, &self.amount);
        fields.record(6, &self.payment_hash);
        fields.record(8, &self.cltv_expiry);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            direction: if fields.flag(0)? { HtlcDirection::Received } else { HtlcDirection::Offered },
            id: fields.value(2)?,
            amount: fields.value(4)?,
            payment_hash: fields.value(6)?,
            cltv_expiry: fields.value(8)?,
        })
    }
}

impl Record for RemoteCommitment {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.number);
        fields.record(2, &self.point);
        fields.record(4, &self.feerate);
        fields.record(6, &self.to_local);
        fields.record(8, &self.to_remote);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            number: fields.value(0)?,
            point: fields.value(2)?,
            feerate: fields.value(4)?,
            to_local: fields.value(6)?,
            to_remote: fields.value(8)?,
        })
    }
}

impl Record for Evidence {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.payment_hash);
        fields.record(2, &self.cltv_expiry);
        fields.record(4, &self.amount);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self { payment_hash: fields.value(0)?, cltv_expiry: fields.value(2)?, amount: fields.value(4)? })
    }
}

impl Record for FundingSpend {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &consensus::serialize(self.tx.as_ref()));
        fields.record(2, &self.height);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let bytes: Vec<u8> = fields.value(0)?;
        let tx = consensus::deserialize(&bytes).map_err(|_| Fault::Field(0))?;
        Ok(Self { tx: Arc::new(tx), height: fields.value(2)? })
    }
}

impl Record for Taken {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        let (kind, htlc) = kind_number(self.kind);
        fields.record(0, &kind);
        if let Some(HtlcKey { offerer, id }) = htlc {
            fields.record(2, &u8::from(offerer == Offerer::Remote));
            fields.record(4, &id);
        }
        fields.record(6, &self.txid);
        fields.record(8, &self.height);
        fields.record(10, &self.value);
        fields.optional(12, self.fee.as_ref());
        fields.record(14, &u8::from(self.told));
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let number: u8 = fields.value(0)?;
        let htlc = match fields.optional::<u8>(2)? {
            None => None,
            Some(0) => Some(HtlcKey { offerer: Offerer::Local, id: fields.value(4)? }),
            Some(1) => Some(HtlcKey { offerer: Offerer::Remote, id: fields.value(4)? }),
            Some(2..) => return Err(Fault::Field(2)),
        };
        Ok(Self {
            kind: kind(number, htlc).ok_or(Fault::Field(0))?,
            txid: fields.value(6)?,
            height: fields.value(8)?,
            value: fields.value(10)?,
            fee: fields.optional(12)?,
            told: fields.flag(14)?,
        })
    }
}

/// The number of a kind, and the HTLC that it names.
fn kind_number(kind: ClaimKind) -> (u8, Option<HtlcKey>) {
    match kind {
        ClaimKind::Anchor => (0, None),
        ClaimKind::ToLocal => (1, None),
        ClaimKind::ToRemote => (2, None),
        ClaimKind::Htlc(key) => (3, Some(key)),
        ClaimKind::SecondStage(key) => (4, Some(key)),
        ClaimKind::RevokedBalance => (5, None),
        ClaimKind::RevokedHtlc(key) => (6, Some(key)),
    }
}

fn kind(number: u8, htlc: Option<HtlcKey>) -> Option<ClaimKind> {
    match (number, htlc) {
        (0, None) => Some(ClaimKind::Anchor),
        (1, None) => Some(ClaimKind::ToLocal),
        (2, None) => Some(ClaimKind::ToRemote),
        (3, Some(key)) => Some(ClaimKind::Htlc(key)),
        (4, Some(key)) => Some(ClaimKind::SecondStage(key)),
        (5, None) => Some(ClaimKind::RevokedBalance),
        (6, Some(key)) => Some(ClaimKind::RevokedHtlc(key)),
        (_, Some(_) | None) => None,
    }
}

struct Secret((u64, [u8; 32]));

impl Record for Secret {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        let Self((number, secret)) = self;
        fields.record(0, number);
        fields.record(2, secret);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        Ok(Self((fields.value(0)?, fields.value(2)?)))
    }
}

struct HtlcSignatures(Vec<Signature>);

impl Record for HtlcSignatures {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        fields.value(0).map(Self)
    }
}

struct Preimage(PaymentPreimage);

impl Record for Preimage {
    fn write(&self, fields: &mut TlvWriter<'_>) {
        fields.record(0, &self.0);
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        fields.value(0).map(Self)
    }
}
