//! Reconnection (BOLT 2, "Message Retransmission").

use bitcoin::secp256k1::PublicKey;

use super::message::wire_message;
use super::operation::PerCommitmentSecret;
use crate::id::ChannelId;

wire_message! {
    /// Where the sender stands in a channel after a reconnection (BOLT 2, "Message Retransmission").
    ///
    /// The records about a funding in progress are odd, and passed over.
    136 "channel_reestablish" ChannelReestablish names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The number of the next `commitment_signed` that the sender awaits.
        next_commitment_number: u64,
        /// The number of the next `revoke_and_ack` that the sender awaits.
        next_revocation_number: u64,
        /// The last secret that the sender had of us; all zero where it had none.
        your_last_per_commitment_secret: PerCommitmentSecret,
        /// A point of the sender's; with static remote keys it says nothing.
        my_current_per_commitment_point: PublicKey,
    } tlvs {}
}
