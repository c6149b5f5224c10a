//! Connection setup and control (BOLT 1).

use bitcoin::constants::ChainHash;

use super::codec::{Decode, DecodeError, Encode, Reader, Writer};
use super::message::wire_message;
use super::text::PeerText;
use crate::features::Features;
use crate::id::ChannelId;

wire_message! {
    /// The first message each way: what the sender supports and requires (BOLT 1, "The `init` Message").
    16 "init" Init {
        /// Bits below 14 of old; to be combined with `features`.
        globalfeatures: Features,
        /// The sender's features.
        features: Features,
    } tlvs {
        /// The chains that the sender will gossip about or open channels on.
        1 => networks: Vec<ChainHash>,
        /// The address at which the sender saw us, as an address descriptor (BOLT 7). Any bytes: never trusted.
        3 => remote_addr: Vec<u8>,
    }
}

wire_message! {
    /// The sender has failed a channel, or all of them (BOLT 1, "The `error` and `warning` Messages").
    17 "error" Error names channel_id {
        /// The channel; all zero means every channel with the sender.
        channel_id: ChannelId,
        /// What went wrong, in the sender's words.
        data: PeerText,
    } tlvs {}
}

wire_message! {
    /// Something is wrong, but no channel has failed (BOLT 1, "The `error` and `warning` Messages").
    1 "warning" Warning names channel_id {
        /// The channel; all zero means none in particular.
        channel_id: ChannelId,
        /// What went wrong, in the sender's words.
        data: PeerText,
    } tlvs {}
}

wire_message! {
    /// Asks for a `pong` (BOLT 1, "The `ping` and `pong` Messages").
    18 "ping" Ping {
        /// The `byteslen` that the answer shall have; from 65532 on there is to be no answer.
        num_pong_bytes: u16,
        /// Padding.
        byteslen: Padding,
    } tlvs {}
}

wire_message! {
    /// Answers a `ping` (BOLT 1, "The `ping` and `pong` Messages").
    19 "pong" Pong {
        /// Padding, as long as the `ping` asked for.
        byteslen: Padding,
    } tlvs {}
}

/// So many ignored bytes after their `u16` length. Sent as zeros: never memory that held something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding(pub u16);

impl Encode for Padding {
    fn encode(&self, writer: &mut Writer) {
        self.0.encode(writer);
        writer.zeros(self.0);
    }
}

impl Decode for Padding {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = u16::decode(reader)?;
        reader.take(usize::from(len))?;
        Ok(Self(len))
    }
}

impl Init {
    /// One map of both: a receiver must combine the two (BOLT 1, "The `init` Message").
    pub fn combined_features(&self) -> Features {
        self.globalfeatures.union(&self.features)
    }

    /// Whether the sender is interested in this chain. One that lists none has not said that it is not.
    pub fn allows_chain(&self, chain: ChainHash) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.contains(&chain))
    }
}

impl Ping {
    /// The `pong` that is due, `None` where the ping is to be ignored (BOLT 1: `num_pong_bytes` of 65532 or more).
    pub const fn answer(&self) -> Option<Pong> {
        if self.num_pong_bytes < 65532 { Some(Pong { byteslen: Padding(self.num_pong_bytes) }) } else { None }
    }
}
