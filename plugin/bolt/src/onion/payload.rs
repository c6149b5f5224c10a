//! What a hop is told (BOLT 4, "`payload` format").

use std::fmt;

use crate::amount::Msat;
use crate::id::{PaymentPreimage, PaymentSecret, ShortChannelId};
use crate::wire::codec::{BigSize, Decode, DecodeError, Encode, EncodeError, Reader, Truncated, Writer};
use crate::wire::tlv::{TlvRecord, TlvStream, TlvWriter};

const AMT_TO_FORWARD: u64 = 2;
const OUTGOING_CLTV_VALUE: u64 = 4;
const SHORT_CHANNEL_ID: u64 = 6;
const PAYMENT_DATA: u64 = 8;
const PAYMENT_METADATA: u64 = 16;
/// Assigned outside of the BOLTs: a preimage that the sender chose.
const KEYSEND_PREIMAGE: u64 = 5_482_373_484;

/// The payload of one hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// To a hop that passes the HTLC on.
    Forward(ForwardPayload),
    /// To the final node.
    Final(FinalPayload),
}

/// What to send on, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardPayload {
    /// The amount of the outgoing HTLC.
    pub amt_to_forward: Msat,
    /// The expiry of the outgoing HTLC.
    pub outgoing_cltv_value: u32,
    /// The outgoing channel.
    pub short_channel_id: ShortChannelId,
}

/// What the final node is to receive.
#[derive(Clone, PartialEq, Eq)]
pub struct FinalPayload {
    /// The amount that the HTLC must have at least.
    pub amt_to_forward: Msat,
    /// The expiry that the HTLC must have at least.
    pub outgoing_cltv_value: u32,
    /// Proof that the payer holds the invoice, and the amount of all parts.
    pub payment_data: Option<PaymentData>,
    /// The invoice's metadata, handed back.
    pub payment_metadata: Option<Vec<u8>>,
    /// A spontaneous payment's preimage.
    pub keysend_preimage: Option<PaymentPreimage>,
}

impl fmt::Debug for FinalPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalPayload")
            .field("amt_to_forward", &self.amt_to_forward)
            .field("outgoing_cltv_value", &self.outgoing_cltv_value)
            .field("payment_data", &self.payment_data)
            .finish_non_exhaustive()
    }
}

/// `payment_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentData {
    /// The invoice's payment secret.
    pub payment_secret: PaymentSecret,
    /// The amount of all parts together.
    pub total_msat: Msat,
}

impl Encode for PaymentData {
    fn encode(&self, writer: &mut Writer) {
        self.payment_secret.encode(writer);
        Truncated(self.total_msat).encode(writer);
    }
}

impl Decode for PaymentData {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let payment_secret = PaymentSecret::decode(reader)?;
        let Truncated(total_msat) = Truncated::decode(reader)?;
        Ok(Self { payment_secret, total_msat })
    }
}

/// A payload that cannot be acted on: answered with `invalid_onion_payload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid onion payload: type {tlv_type} at byte {offset}")]
pub struct InvalidPayload {
    /// The record at fault, or the one that is missing.
    pub tlv_type: u64,
    /// Where it stands in the payload; 0 where it is missing, or valid but in a payload of the wrong kind.
    pub offset: u16,
}

impl InvalidPayload {
    /// Of a record that should be there, or should not.
    const fn presence(tlv_type: u64) -> Self {
        Self { tlv_type, offset: 0 }
    }
}

/// Every record that is understood, not yet told apart by who may have which.
#[derive(Default)]
struct Records {
    amt_to_forward: Option<Msat>,
    outgoing_cltv_value: Option<u32>,
    short_channel_id: Option<ShortChannelId>,
    payment_data: Option<PaymentData>,
    payment_metadata: Option<Vec<u8>>,
    keysend_preimage: Option<PaymentPreimage>,
}

impl Payload {
    /// Reads the payload that [`super::peel`] found; `is_final` where it found no next packet.
    ///
    /// Blinded paths are not understood: their records count as unknown even types.
    pub fn decode(payload: &[u8], is_final: bool) -> Result<Self, InvalidPayload> {
        let records = Records::decode(payload)?;
        let amt_to_forward = records.amt_to_forward.ok_or(InvalidPayload::presence(AMT_TO_FORWARD))?;
        let outgoing_cltv_value = records.outgoing_cltv_value.ok_or(InvalidPayload::presence(OUTGOING_CLTV_VALUE))?;
        if !is_final {
            let short_channel_id = records.short_channel_id.ok_or(InvalidPayload::presence(SHORT_CHANNEL_ID))?;
            // What only the final node may be told shows that the packet was not made for this place.
            records.refuse_final_records()?;
            return Ok(Self::Forward(ForwardPayload { amt_to_forward, outgoing_cltv_value, short_channel_id }));
        }
        if records.short_channel_id.is_some() {
            return Err(InvalidPayload::presence(SHORT_CHANNEL_ID));
        }
        Ok(Self::Final(FinalPayload {
            amt_to_forward,
            outgoing_cltv_value,
            payment_data: records.payment_data,
            payment_metadata: records.payment_metadata,
            keysend_preimage: records.keysend_preimage,
        }))
    }

    /// The TLV stream. Fails only where `payment_metadata` is too long for any packet.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut writer = Writer::new();
        let mut stream = TlvWriter::new(&mut writer);
        match self {
            Self::Forward(forward) => {
                stream.record(AMT_TO_FORWARD, &Truncated(forward.amt_to_forward));
                stream.record(OUTGOING_CLTV_VALUE, &Truncated(forward.outgoing_cltv_value));
                stream.record(SHORT_CHANNEL_ID, &forward.short_channel_id);
            }
            Self::Final(last) => {
                stream.record(AMT_TO_FORWARD, &Truncated(last.amt_to_forward));
                stream.record(OUTGOING_CLTV_VALUE, &Truncated(last.outgoing_cltv_value));
                stream.optional(PAYMENT_DATA, last.payment_data.as_ref());
                stream.optional(PAYMENT_METADATA, last.payment_metadata.as_ref());
                stream.optional(KEYSEND_PREIMAGE, last.keysend_preimage.as_ref());
            }
        }
        writer.finish()
    }
}

impl Records {
    fn decode(payload: &[u8]) -> Result<Self, InvalidPayload> {
        let mut records = Self::default();
        let mut stream = TlvStream::new(payload);
        let mut offset = 0_u16;
        let at = |offset, fault| InvalidPayload { tlv_type: type_of(fault), offset };
        while let Some(record) = stream.next_record().map_err(|fault| at(offset, fault))? {
            let invalid = InvalidPayload { tlv_type: record.number, offset };
            records.take(&record).map_err(|_| invalid)?;
            offset = offset.saturating_add(record_len(&record));
        }
        Ok(records)
    }

    fn take(&mut self, record: &TlvRecord<'_>) -> Result<(), DecodeError> {
        match record.number {
            AMT_TO_FORWARD => self.amt_to_forward = Some(record.decode::<Truncated<Msat>>()?.0),
            OUTGOING_CLTV_VALUE => self.outgoing_cltv_value = Some(record.decode::<Truncated<u32>>()?.0),
            SHORT_CHANNEL_ID => self.short_channel_id = Some(record.decode()?),
            PAYMENT_DATA => self.payment_data = Some(record.decode()?),
            PAYMENT_METADATA => self.payment_metadata = Some(record.decode()?),
            KEYSEND_PREIMAGE => self.keysend_preimage = Some(record.decode()?),
            _ => record.ignore()?,
        }
        Ok(())
    }

    fn refuse_final_records(&self) -> Result<(), InvalidPayload> {
        let present = [
            (PAYMENT_DATA, self.payment_data.is_some()),
            (PAYMENT_METADATA, self.payment_metadata.is_some()),
            (KEYSEND_PREIMAGE, self.keysend_preimage.is_some()),
        ];
        match present.into_iter().find(|(_, present)| *present) {
            Some((tlv_type, _)) => Err(InvalidPayload::presence(tlv_type)),
            None => Ok(()),
        }
    }
}

/// The type that a broken stream can be blamed on, 0 where it has none.
const fn type_of(fault: DecodeError) -> u64 {
    match fault {
        DecodeError::TlvOrder { found, .. } => found,
        DecodeError::TlvPastEnd(number) | DecodeError::UnknownEvenTlv(number) => number,
        DecodeError::NoType
        | DecodeError::UnknownEvenType(_)
        | DecodeError::Short
        | DecodeError::TooLong(_)
        | DecodeError::NonMinimalBigSize
        | DecodeError::NonMinimalInteger
        | DecodeError::InvalidPoint
        | DecodeError::InvalidSignature => 0,
    }
}

/// The bytes that a record takes in its stream.
fn record_len(record: &TlvRecord<'_>) -> u16 {
    let mut header = Writer::new();
    BigSize(record.number).encode(&mut header);
    BigSize(record.value.len() as u64).encode(&mut header);
    let header_len = header.finish().map_or(0, |bytes| bytes.len());
    u16::try_from(header_len.saturating_add(record.value.len())).unwrap_or(u16::MAX)
}
