//! Rows of the monitor: head, evidence, secrets, the peer's HTLC signatures and preimages.

use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::id::PaymentPreimage;
use outrigger_bolt::wire::tlv::TlvWriter;

use super::{CorruptRow, Fault, Fields, Nested, Record, Row, decode_row, encode_row};
use crate::changes::{Evidence, MonitorHead, RemoteCommitment, SignedCommitment};

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
