//! Normal operation (BOLT 2).

use std::fmt;

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;

use super::codec::{Decode, DecodeError, Encode, Reader, Writer};
use super::message::wire_message;
use crate::amount::{FeeratePerKw, Msat};
use crate::id::{ChannelId, PaymentHash, PaymentPreimage};

/// Bytes of an `onion_routing_packet` (BOLT 4).
pub const ONION_PACKET_LEN: usize = 1366;

wire_message! {
    /// Offers an HTLC (BOLT 2, "Adding an HTLC").
    128 "update_add_htlc" UpdateAddHtlc names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// Counts the sender's HTLCs in this channel, from 0.
        id: u64,
        /// What the HTLC is worth.
        amount_msat: Msat,
        /// What its preimage must hash to.
        payment_hash: PaymentHash,
        /// The block height at which it expires.
        cltv_expiry: u32,
        /// The packet for the receiver and the hops after it (BOLT 4).
        onion_routing_packet: Box<[u8; ONION_PACKET_LEN]>,
    } tlvs {
        /// The point of the blinded path that the HTLC travels on (BOLT 4).
        0 => path_key: PublicKey,
    }
}

wire_message! {
    /// Claims an HTLC with its preimage (BOLT 2, "Removing an HTLC").
    130 "update_fulfill_htlc" UpdateFulfillHtlc names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The receiver's number of the HTLC.
        id: u64,
        /// What hashes to the HTLC's `payment_hash`.
        payment_preimage: PaymentPreimage,
    } tlvs {}
}

wire_message! {
    /// Gives an HTLC back (BOLT 2, "Removing an HTLC").
    131 "update_fail_htlc" UpdateFailHtlc names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The receiver's number of the HTLC.
        id: u64,
        /// Encrypted for the origin of the payment (BOLT 4).
        reason: Vec<u8>,
    } tlvs {}
}

wire_message! {
    /// Gives an HTLC back whose onion could not be read (BOLT 2, "Removing an HTLC").
    135 "update_fail_malformed_htlc" UpdateFailMalformedHtlc names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The receiver's number of the HTLC.
        id: u64,
        /// The hash of the packet that was received.
        sha256_of_onion: [u8; 32],
        /// A BOLT 4 failure code with the BADONION bit.
        failure_code: u16,
    } tlvs {}
}

wire_message! {
    /// Signs the receiver's next commitment transaction (BOLT 2, "Committing Updates So Far").
    132 "commitment_signed" CommitmentSigned names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// For the commitment transaction.
        signature: Signature,
        /// For each HTLC transaction, in the order of the commitment's outputs (BOLT 3).
        htlc_signatures: Vec<Signature>,
    } tlvs {
        /// The funding transaction whose output this commitment spends.
        1 => funding_txid: Txid,
    }
}

wire_message! {
    /// Revokes the sender's old commitment (BOLT 2, "Completing the Transition to the Updated State").
    133 "revoke_and_ack" RevokeAndAck names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The secret of the commitment that is revoked.
        per_commitment_secret: PerCommitmentSecret,
        /// The point of the commitment after the next.
        next_per_commitment_point: PublicKey,
    } tlvs {}
}

wire_message! {
    /// The opener changes the feerate of commitment transactions (BOLT 2, "Updating Fees").
    134 "update_fee" UpdateFee names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The new feerate.
        feerate_per_kw: FeeratePerKw,
    } tlvs {}
}

/// A secret that revokes a commitment once it is out. Never logged: it has no `Debug` that prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PerCommitmentSecret(pub [u8; 32]);

impl fmt::Debug for PerCommitmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerCommitmentSecret(..)")
    }
}

impl Encode for PerCommitmentSecret {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
}

impl Decode for PerCommitmentSecret {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}
