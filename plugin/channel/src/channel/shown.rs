//! What a channel tells without a step: its names, what it could carry, and itself as callers are shown it.

use bitcoin::{OutPoint, ScriptBuf};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::ShortChannelId;

use super::Channel;
use crate::changes::{ChannelHead, ChannelParams, HtlcTotals, Phase};
use crate::commitments::fee;
use crate::input::Policy;
use crate::link::Link;
use crate::phase::{funding, shutdown};

/// A channel as callers are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// `funding`, `normal`, `shutting_down`, `closing`, `closed` or `failed`.
    pub state: &'static str,
    /// Why it failed, where it has.
    pub failure: Option<String>,
    /// Whether the peer is there and in step.
    pub connected: bool,
    pub funding: OutPoint,
    pub short_channel_id: Option<ShortChannelId>,
    /// What the peer may call the channel in HTLCs that it offers us.
    pub local_scid_alias: ShortChannelId,
    /// What the peer asked us to call it.
    pub remote_scid_alias: Option<ShortChannelId>,
    /// How route hints of our invoices, and the `channel_update` that we send the peer, name the channel: by the peer's
    /// alias where it gave one, else by its real id unless the channel type hides that (BOLT 2, `channel_ready`; BOLT 7,
    /// `channel_update`).
    pub hint_scid: Option<ShortChannelId>,
    /// The script that a close pays us to, once it is fixed.
    pub shutdown_script: Option<ScriptBuf>,
    pub capacity: Sat,
    /// What is ours in our newest commitment, HTLCs not counted, before the opener's costs.
    pub local: Msat,
    /// What is the peer's there.
    pub remote: Msat,
    /// The largest HTLC that we could send now.
    pub spendable: Msat,
    /// The largest HTLC that the peer could send now.
    pub receivable: Msat,
    /// HTLCs in any commitment.
    pub htlcs: usize,
    /// Number of our newest commitment.
    pub commitment_number: u64,
    pub channel_type: Features,
    pub announce: bool,
    pub is_opener: bool,
    /// Confirmations that the funding transaction still lacks for our `channel_ready`.
    pub confirmations_needed: u32,
}

impl Channel {
    /// What onions may call the channel: the alias that we gave it, and its real id unless its type hides that (BOLT 2,
    /// `channel_ready`).
    pub fn names(&self) -> impl Iterator<Item = ShortChannelId> + use<> {
        let (head, params) = (&self.rows.head, &self.rows.params);
        let real = head.short_channel_id.filter(|_| !hides_its_id(params));
        [Some(params.scid_alias), real].into_iter().flatten()
    }

    /// HTLCs that we offer in the peer's next commitment: how much of its limits is in use.
    pub fn offered(&self) -> HtlcTotals {
        self.volatile.outlook.remote.totals.offered_by_local
    }

    /// Whether a received HTLC of this amount is to be failed because HTLCs like it could lose too much to fees. It stands
    /// in the commitments already; its preimage should not be told (BOLT 2, "Bounding exposure to trimmed in-flight
    /// HTLCs").
    pub fn exposes_too_much(&self, amount: Msat, policy: &Policy) -> bool {
        self.volatile.outlook.exposes_too_much(&self.rows.params, 0, amount, policy)
    }

    /// The commitment feerate to propose by [`Command::UpdateFee`](crate::Command::UpdateFee) where this is the estimate. `None` where the one in
    /// force is near enough, where the peer is the opener, and while nothing can be proposed: not in step, closing, or
    /// another change is on its way (CST-5).
    pub fn feerate_to_propose(&self, estimate: FeeratePerKw, policy: &Policy) -> Option<FeeratePerKw> {
        let (head, outlook) = (&self.rows.head, &self.volatile.outlook);
        let is_open = matches!((&head.phase, &self.volatile.link), (Phase::Normal, Link::Connected(_)));
        let is_pending = outlook.fee_proposed || head.fee.change.is_some();
        if !is_open || is_pending || !self.rows.params.is_opener {
            return None;
        }
        fee::to_propose(&self.rows.params, outlook, estimate, policy)
    }

    /// The channel at this block height, for callers.
    pub fn summary(&self, height: u32) -> Summary {
        let (head, params, outlook) = (&self.rows.head, &self.rows.params, &self.volatile.outlook);
        let open = matches!(head.phase, Phase::Normal);
        Summary {
            state: head.phase.name(),
            failure: head.phase.failure().map(str::to_owned),
            connected: matches!(self.volatile.link, Link::Connected(_)),
            funding: params.funding,
            short_channel_id: head.short_channel_id,
            local_scid_alias: params.scid_alias,
            remote_scid_alias: head.remote_scid_alias,
            hint_scid: hint_scid(head, params),
            shutdown_script: shutdown::own_script(head, params).cloned(),
            capacity: params.capacity,
            local: head.local_commitment.to_local,
            remote: head.local_commitment.to_remote,
            spendable: if open { outlook.spendable(params) } else { Msat::ZERO },
            receivable: if open { outlook.receivable(params) } else { Msat::ZERO },
            htlcs: self.rows.htlcs.len(),
            commitment_number: head.local_number,
            channel_type: params.channel_type.clone(),
            announce: params.announce,
            is_opener: params.is_opener,
            confirmations_needed: funding::confirmations_needed(head, params, height),
        }
    }
}

fn hint_scid(head: &ChannelHead, params: &ChannelParams) -> Option<ShortChannelId> {
    head.remote_scid_alias.or(head.short_channel_id.filter(|_| !hides_its_id(params)))
}

fn hides_its_id(params: &ChannelParams) -> bool {
    params.channel_type.supports(Feature::SCID_ALIAS)
}
