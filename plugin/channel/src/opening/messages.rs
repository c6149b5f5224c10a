//! `open_channel` and `accept_channel` as an opening makes them (BOLT 2).

use outrigger_bolt::wire::{AcceptChannel, OpenChannel};

use super::Opening;
use super::terms::ANNOUNCE_CHANNEL;
use crate::input::Context;

impl Opening {
    pub(super) fn open_channel(&self, cx: &Context<'_>) -> OpenChannel {
        let local = &self.local;
        OpenChannel {
            chain_hash: cx.policy.chain_hash,
            temporary_channel_id: self.temporary_channel_id,
            funding_satoshis: self.funding,
            push_msat: self.push,
            dust_limit_satoshis: local.dust_limit,
            max_htlc_value_in_flight_msat: local.max_htlc_value_in_flight,
            channel_reserve_satoshis: local.channel_reserve,
            htlc_minimum_msat: local.htlc_minimum,
            feerate_per_kw: self.feerate,
            to_self_delay: local.to_self_delay,
            max_accepted_htlcs: local.max_accepted_htlcs,
            funding_pubkey: local.basepoints.funding_pubkey,
            revocation_basepoint: local.basepoints.revocation,
            payment_basepoint: local.basepoints.payment,
            delayed_payment_basepoint: local.basepoints.delayed_payment,
            htlc_basepoint: local.basepoints.htlc,
            first_per_commitment_point: cx.signer.per_commitment_point(0),
            channel_flags: if self.announce { ANNOUNCE_CHANNEL } else { 0 },
            // BOLT 2: present, if empty, wherever other records are.
            upfront_shutdown_script: Some(local.upfront_shutdown_script.clone().unwrap_or_default()),
            channel_type: Some(self.channel_type.clone()),
        }
    }

    pub(super) fn accept_channel(&self, cx: &Context<'_>) -> AcceptChannel {
        let local = &self.local;
        AcceptChannel {
            temporary_channel_id: self.temporary_channel_id,
            dust_limit_satoshis: local.dust_limit,
            max_htlc_value_in_flight_msat: local.max_htlc_value_in_flight,
            channel_reserve_satoshis: local.channel_reserve,
            htlc_minimum_msat: local.htlc_minimum,
            minimum_depth: cx.policy.minimum_depth.max(1),
            to_self_delay: local.to_self_delay,
            max_accepted_htlcs: local.max_accepted_htlcs,
            funding_pubkey: local.basepoints.funding_pubkey,
            revocation_basepoint: local.basepoints.revocation,
            payment_basepoint: local.basepoints.payment,
            delayed_payment_basepoint: local.basepoints.delayed_payment,
            htlc_basepoint: local.basepoints.htlc,
            first_per_commitment_point: cx.signer.per_commitment_point(0),
            upfront_shutdown_script: Some(local.upfront_shutdown_script.clone().unwrap_or_default()),
            channel_type: Some(self.channel_type.clone()),
        }
    }
}
