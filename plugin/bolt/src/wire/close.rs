//! Mutual close (BOLT 2, "Channel Close").

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::ecdsa::Signature;

use super::codec::{Decode, DecodeError, Encode, Reader, Writer};
use super::message::wire_message;
use crate::amount::Sat;
use crate::id::ChannelId;

wire_message! {
    /// The sender will add no more HTLCs (BOLT 2, "Closing Initiation: `shutdown`").
    38 "shutdown" Shutdown names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// Where the sender wants its balance.
        scriptpubkey: ScriptBuf,
    } tlvs {}
}

wire_message! {
    /// Offers a closing transaction of this fee (BOLT 2, "Legacy Closing Negotiation: `closing_signed`").
    39 "closing_signed" ClosingSigned names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The fee of the closing transaction.
        fee_satoshis: Sat,
        /// For the closing transaction of that fee.
        signature: Signature,
    } tlvs {
        /// The fees that the sender would take.
        1 => fee_range: FeeRange,
    }
}

wire_message! {
    /// The closer offers its closing transaction (BOLT 2, "Closing Negotiation").
    40 "closing_complete" ClosingComplete names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// Where the closer, who pays the fee, wants its balance.
        closer_scriptpubkey: ScriptBuf,
        /// Where the closee wants its balance.
        closee_scriptpubkey: ScriptBuf,
        /// The fee of the closing transaction.
        fee_satoshis: Sat,
        /// The `nLockTime` of the closing transaction.
        locktime: u32,
    } tlvs {
        /// For the transaction that pays the closer alone.
        1 => closer_output_only: Signature,
        /// For the transaction that pays the closee alone.
        2 => closee_output_only: Signature,
        /// For the transaction that pays both.
        3 => closer_and_closee_outputs: Signature,
    }
}

wire_message! {
    /// The closee signs the closer's transaction (BOLT 2, "Closing Negotiation").
    41 "closing_sig" ClosingSig names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// Where the closer wants its balance, as in `closing_complete`.
        closer_scriptpubkey: ScriptBuf,
        /// Where the closee wants its balance, as in `closing_complete`.
        closee_scriptpubkey: ScriptBuf,
        /// The fee, as in `closing_complete`.
        fee_satoshis: Sat,
        /// The `nLockTime`, as in `closing_complete`.
        locktime: u32,
    } tlvs {
        /// For the transaction that pays the closer alone.
        1 => closer_output_only: Signature,
        /// For the transaction that pays the closee alone.
        2 => closee_output_only: Signature,
        /// For the transaction that pays both.
        3 => closer_and_closee_outputs: Signature,
    }
}

/// The fees that a side would take for the closing transaction, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeRange {
    /// The least.
    pub min_fee_satoshis: Sat,
    /// The most.
    pub max_fee_satoshis: Sat,
}

impl Encode for FeeRange {
    fn encode(&self, writer: &mut Writer) {
        self.min_fee_satoshis.encode(writer);
        self.max_fee_satoshis.encode(writer);
    }
}

impl Decode for FeeRange {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { min_fee_satoshis: Sat::decode(reader)?, max_fee_satoshis: Sat::decode(reader)? })
    }
}
