//! Channel establishment v1 (BOLT 2).

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Txid};

use super::message::wire_message;
use crate::amount::{FeeratePerKw, Msat, Sat};
use crate::features::Features;
use crate::id::{ChannelId, ShortChannelId};

wire_message! {
    /// The opener proposes a channel (BOLT 2, "The `open_channel` Message").
    32 "open_channel" OpenChannel names temporary_channel_id {
        /// The chain that the channel will live on.
        chain_hash: ChainHash,
        /// Names the channel until the funding transaction is known.
        temporary_channel_id: ChannelId,
        /// What the opener puts into the channel.
        funding_satoshis: Sat,
        /// What of it the opener gives away at once.
        push_msat: Msat,
        /// Outputs below this are left out of the opener's commitment transactions.
        dust_limit_satoshis: Sat,
        /// Most value of HTLCs that the accepter may offer at a time.
        max_htlc_value_in_flight_msat: Msat,
        /// What the accepter must keep as its own balance.
        channel_reserve_satoshis: Sat,
        /// Least value of an HTLC that the opener takes.
        htlc_minimum_msat: Msat,
        /// Feerate of the first commitment transactions.
        feerate_per_kw: FeeratePerKw,
        /// Blocks by which the accepter's outputs to itself are delayed.
        to_self_delay: u16,
        /// Most HTLCs that the accepter may offer at a time; at most 483.
        max_accepted_htlcs: u16,
        /// The opener's key in the 2-of-2 of the funding output.
        funding_pubkey: PublicKey,
        /// Basepoint of revocation keys (BOLT 3).
        revocation_basepoint: PublicKey,
        /// Where the accepter's commitment pays the opener (BOLT 3).
        payment_basepoint: PublicKey,
        /// Basepoint of the opener's delayed outputs to itself (BOLT 3).
        delayed_payment_basepoint: PublicKey,
        /// Basepoint of HTLC keys (BOLT 3).
        htlc_basepoint: PublicKey,
        /// The point of commitment number 0.
        first_per_commitment_point: PublicKey,
        /// Bit 0 is `announce_channel`.
        channel_flags: u8,
    } tlvs {
        /// The script that a mutual close must pay the opener; empty means none.
        0 => upfront_shutdown_script: ScriptBuf,
        /// The type of channel proposed.
        1 => channel_type: Features,
    }
}

wire_message! {
    /// The accepter takes the proposal (BOLT 2, "The `accept_channel` Message").
    33 "accept_channel" AcceptChannel names temporary_channel_id {
        /// The opener's temporary name of the channel.
        temporary_channel_id: ChannelId,
        /// Outputs below this are left out of the accepter's commitment transactions.
        dust_limit_satoshis: Sat,
        /// Most value of HTLCs that the opener may offer at a time.
        max_htlc_value_in_flight_msat: Msat,
        /// What the opener must keep as its own balance.
        channel_reserve_satoshis: Sat,
        /// Least value of an HTLC that the accepter takes.
        htlc_minimum_msat: Msat,
        /// Confirmations of the funding transaction that the accepter waits for.
        minimum_depth: u32,
        /// Blocks by which the opener's outputs to itself are delayed.
        to_self_delay: u16,
        /// Most HTLCs that the opener may offer at a time; at most 483.
        max_accepted_htlcs: u16,
        /// The accepter's key in the 2-of-2 of the funding output.
        funding_pubkey: PublicKey,
        /// Basepoint of revocation keys (BOLT 3).
        revocation_basepoint: PublicKey,
        /// Where the opener's commitment pays the accepter (BOLT 3).
        payment_basepoint: PublicKey,
        /// Basepoint of the accepter's delayed outputs to itself (BOLT 3).
        delayed_payment_basepoint: PublicKey,
        /// Basepoint of HTLC keys (BOLT 3).
        htlc_basepoint: PublicKey,
        /// The point of commitment number 0.
        first_per_commitment_point: PublicKey,
    } tlvs {
        /// The script that a mutual close must pay the accepter; empty means none.
        0 => upfront_shutdown_script: ScriptBuf,
        /// The type of channel, as proposed.
        1 => channel_type: Features,
    }
}

wire_message! {
    /// The opener names the funding output and signs the accepter's commitment (BOLT 2, "The `funding_created` Message").
    34 "funding_created" FundingCreated names temporary_channel_id {
        /// The opener's temporary name of the channel.
        temporary_channel_id: ChannelId,
        /// The funding transaction.
        funding_txid: Txid,
        /// The output of it that is the channel.
        funding_output_index: u16,
        /// For the accepter's commitment transaction number 0.
        signature: Signature,
    } tlvs {}
}

wire_message! {
    /// The accepter signs the opener's commitment (BOLT 2, "The `funding_signed` Message").
    35 "funding_signed" FundingSigned names channel_id {
        /// The channel, from here on by its funding output.
        channel_id: ChannelId,
        /// For the opener's commitment transaction number 0.
        signature: Signature,
    } tlvs {}
}

wire_message! {
    /// The funding transaction is deep enough for the sender (BOLT 2, "The `channel_ready` Message").
    36 "channel_ready" ChannelReady names channel_id {
        /// The channel.
        channel_id: ChannelId,
        /// The point of commitment number 1.
        second_per_commitment_point: PublicKey,
    } tlvs {
        /// An alias by which the receiver may route over this channel.
        1 => short_channel_id: ShortChannelId,
    }
}
