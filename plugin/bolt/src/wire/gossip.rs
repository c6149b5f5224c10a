//! Gossip (BOLT 7). What is received stays opaque for now; what we make ourselves is typed.

use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message as Digest, PublicKey, Secp256k1, VerifyOnly};

use super::codec::{Decode, DecodeError, Encode, EncodeError, Writer};
use super::message::wire_message;
use super::tlv::Extension;
use super::{Message, Opaque};
use crate::amount::Msat;
use crate::id::{ChannelId, ShortChannelId};

wire_message! {
    /// The sender's halves of the signatures of a `channel_announcement` (BOLT 7, "The `announcement_signatures` Message").
    259 "announcement_signatures" AnnouncementSignatures names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// Where its funding output stands in the chain.
        short_channel_id: ShortChannelId,
        /// By the sender's node key.
        node_signature: Signature,
        /// By the sender's funding key.
        bitcoin_signature: Signature,
    } tlvs {}
}

wire_message! {
    /// What one side asks for forwarding over a channel (BOLT 7, "The `channel_update` Message").
    258 "channel_update" ChannelUpdate {
        /// By the node key, over [`ChannelUpdate::digest`].
        signature: Signature,
        /// The chain that the channel lives on.
        chain_hash: ChainHash,
        /// The channel, or an alias of it.
        short_channel_id: ShortChannelId,
        /// Unix time of the update; larger replaces smaller.
        timestamp: u32,
        /// Bit 0 is always set; bit 1 is `dont_forward`.
        message_flags: u8,
        /// Bit 0 is the direction, bit 1 is `disable`.
        channel_flags: u8,
        /// Blocks to be taken off an HTLC's expiry.
        cltv_expiry_delta: u16,
        /// Least value of an HTLC.
        htlc_minimum_msat: Msat,
        /// Fee of an HTLC, in millisatoshi.
        fee_base_msat: u32,
        /// Fee in millionths of the amount.
        fee_proportional_millionths: u32,
        /// Most value of an HTLC.
        htlc_maximum_msat: Msat,
        /// Records after the fields; the signature covers them.
        extension: Extension,
    } tlvs {}
}

impl ChannelUpdate {
    /// What the signature signs: the double SHA256 of all that follows it (BOLT 7).
    pub fn digest(&self) -> Result<Digest, EncodeError> {
        const SIGNATURE_LEN: usize = 64;
        let mut writer = Writer::new();
        self.encode(&mut writer);
        let bytes = writer.finish()?;
        let signed = bytes.get(SIGNATURE_LEN..).unwrap_or_default();
        Ok(Digest::from_digest(sha256d::Hash::hash(signed).to_byte_array()))
    }

    /// Whether `node` signed it.
    pub fn is_signed_by(&self, secp: &Secp256k1<VerifyOnly>, node: &PublicKey) -> bool {
        self.digest().is_ok_and(|digest| secp.verify_ecdsa(&digest, &self.signature, node).is_ok())
    }

    /// The message that carries it.
    pub fn into_message(self) -> Result<Message, EncodeError> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        Ok(Message::Gossip(Opaque::new(Self::TYPE, &writer.finish()?)))
    }

    /// Reads it from gossip received, `None` where that is of another type.
    pub fn from_gossip(gossip: &Opaque) -> Option<Result<Self, DecodeError>> {
        (gossip.type_number() == Self::TYPE).then(|| Self::decode_value(gossip.payload()))
    }
}
