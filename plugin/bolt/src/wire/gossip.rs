//! Gossip (BOLT 7). What is received stays opaque for now; what we make ourselves is typed.

use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message as Digest, PublicKey, Secp256k1, VerifyOnly};

use super::codec::{Decode, DecodeError, Encode, EncodeError, Writer};
use super::message::wire_message;
use super::tlv::Extension;
use super::{Message, Opaque};
use crate::amount::Msat;
use crate::id::{ChannelId, NodeId, ShortChannelId};
use crate::keys::verify;

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

/// One side of an announced channel: its node, and its key in the 2-of-2 of the funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedSide {
    /// The node's public key.
    pub node_id: NodeId,
    /// Its `funding_pubkey`.
    pub funding_pubkey: PublicKey,
}

impl AnnouncementSignatures {
    /// What the signatures sign: the double SHA256 of the `channel_announcement` that they are for, without the four
    /// signatures at its start and with no feature bits, of which BOLT 9 assigns it none. The lesser `node_id` comes
    /// first (BOLT 7, "The `channel_announcement` Message").
    pub fn digest(&self, chain_hash: ChainHash, one: &AnnouncedSide, other: &AnnouncedSide) -> Digest {
        let (first, second) = if one.node_id < other.node_id { (one, other) } else { (other, one) };
        let no_features = 0u16.to_be_bytes();
        let mut engine = sha256d::Hash::engine();
        engine.input(&no_features);
        engine.input(chain_hash.as_bytes());
        engine.input(&self.short_channel_id.to_u64().to_be_bytes());
        for node_id in [first.node_id, second.node_id] {
            engine.input(&node_id.serialize());
        }
        for funding_pubkey in [first.funding_pubkey, second.funding_pubkey] {
            engine.input(&funding_pubkey.serialize());
        }
        Digest::from_digest(sha256d::Hash::from_engine(engine).to_byte_array())
    }

    /// Whether both signatures are those of `sender`, whose channel with `other` has this `short_channel_id`.
    pub fn are_by(&self, sender: &AnnouncedSide, other: &AnnouncedSide, chain_hash: ChainHash) -> bool {
        let digest = self.digest(chain_hash, sender, other);
        verify(&digest, &self.node_signature, sender.node_id.public_key()).is_ok()
            && verify(&digest, &self.bitcoin_signature, &sender.funding_pubkey).is_ok()
    }
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
