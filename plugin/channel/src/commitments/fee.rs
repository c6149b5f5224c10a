//! Who can afford what (BOLT 2, `update_add_htlc` and `update_fee`). All costs come from the one function of
//! `bolt::tx::fee`, all counts from the same trimming rule that builds the transaction (CST-7, CST-8).

use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::tx::fee::{commitment_cost, commitment_weight, is_trimmed};
use outrigger_bolt::wire::{Message, UpdateFee};

use super::htlc::{Side, Stage};
use super::outlook::{Next, Outlook, Unsigned};
use crate::changes::ChannelParams;
use crate::draft::Draft;
use crate::input::Policy;
use crate::violation::{Refusal, Rule, Violation};

/// HTLCs that the opener keeps room for when it adds one: that one, and the next.
const HTLC_ROOM: usize = 2;

/// What is left of a balance after costs and reserve; nothing where it falls short.
fn left_after(balance: Msat, cost: Sat, reserve: Sat) -> Msat {
    let kept = cost.saturating_add(reserve).to_msat().unwrap_or(Msat::new(u64::MAX));
    balance.saturating_sub(kept)
}

/// Whether a balance covers costs and reserve.
fn covers(balance: Msat, cost: Sat, reserve: Sat) -> bool {
    balance.to_sat_floor() >= cost.saturating_add(reserve)
}

/// The most that the commitments of a channel whose fee the peer pays may cost. What an old commitment burns is a loss of
/// ours once the peer's balance has moved over to us, and a peer that mines has it back (CST-11). A tenth of the channel;
/// in a small one, what HTLCs without an output may lose.
pub(crate) fn cost_cap(capacity: Sat, policy: &Policy) -> Sat {
    share_of(capacity).max(policy.max_dust_exposure)
}

/// The part of the cap that both sides know.
fn share_of(capacity: Sat) -> Sat {
    /// One in so many satoshis of the channel.
    const SHARE: u64 = 10;
    Sat::new(capacity.get() / SHARE)
}

/// The highest feerate at which a commitment with so many HTLC outputs costs no more than this.
fn highest_feerate_of(cost: Sat, outputs: usize) -> FeeratePerKw {
    let fee = cost.saturating_sub(commitment_cost(FeeratePerKw::new(0), outputs));
    // The fee is rounded down, so the feerate is the last one below that of a satoshi more.
    let below = fee.get().saturating_add(1).saturating_mul(1000).saturating_sub(1);
    let feerate = below.checked_div(commitment_weight(outputs)).unwrap_or(0);
    FeeratePerKw::new(u32::try_from(feerate).unwrap_or(u32::MAX))
}

/// Twice the feerate: what the fee spike buffer must bear (BOLT 2, `update_add_htlc`).
fn spiked(feerate: FeeratePerKw) -> FeeratePerKw {
    FeeratePerKw::new(feerate.get().saturating_mul(2))
}

impl Outlook {
    fn highest_feerate(&self) -> FeeratePerKw {
        self.local.feerate.max(self.remote.feerate)
    }

    fn worst_outputs(&self) -> usize {
        self.worst_local.max(self.worst_remote)
    }

    /// What one more HTLC of ours may be worth as to our balance: above the reserve, and where we pay the fee, above the
    /// fee spike buffer too, and above what lets us survive all that the peer may add meanwhile. All updates of ours are in
    /// the next remote commitment, so our balance is never lower than there.
    pub(crate) fn affordable(&self, params: &ChannelParams) -> Msat {
        let (balance, reserve) = (self.remote.totals.to_local, params.reserve_of(Side::Local));
        match params.opener() {
            Side::Local => {
                let cost =
                    commitment_cost(spiked(self.highest_feerate()), self.worst_outputs().saturating_add(HTLC_ROOM));
                left_after(balance, cost, reserve).min(left_after(balance, self.cost_of_a_burst(params), Sat::ZERO))
            }
            Side::Remote => left_after(balance, Sat::ZERO, reserve),
        }
    }

    /// What a commitment costs at the lowest feerate with one HTLC of ours more and with all that the peer may add: they may
    /// be on their way, signed for, and `opener_survives` holds us to all of them.
    fn cost_of_a_burst(&self, params: &ChannelParams) -> Sat {
        let more = params.local.max_accepted_htlcs.saturating_sub(self.local.totals.offered_by_remote.count);
        let outputs = self.worst_outputs().saturating_add(1).saturating_add(usize::from(more));
        commitment_cost(FeeratePerKw::FLOOR, outputs)
    }

    /// Whether this many more HTLCs of an amount could lose too much to fees in either commitment. An HTLC without an output
    /// counts as if it were worth the dust limit, the most that it can be.
    pub(crate) fn exposes_too_much(&self, params: &ChannelParams, more: u64, amount: Msat, policy: &Policy) -> bool {
        [(Side::Local, self.worst_local), (Side::Remote, self.worst_remote)].into_iter().any(|(owner, outputs)| {
            let dust_limit = params.dust_limit(owner);
            let trimmed = u64::try_from(self.alive.saturating_sub(outputs)).unwrap_or(u64::MAX).saturating_add(more);
            let exposure = Sat::new(trimmed.saturating_mul(dust_limit.get()));
            is_trimmed(amount, dust_limit) && exposure > policy.max_dust_exposure
        })
    }

    /// The highest feerate that we can pay as the opener with one HTLC more than there are, our reserve kept.
    fn payable_feerate(&self, params: &ChannelParams) -> FeeratePerKw {
        let balance = self.remote.totals.to_local.to_sat_floor();
        let spare = balance.saturating_sub(params.reserve_of(Side::Local));
        highest_feerate_of(spare, self.worst_outputs().saturating_add(1))
    }

    /// Whether the peer, where it is the opener, can pay for one more HTLC of ours in both commitments, whatever it has on
    /// its way to us.
    pub(crate) fn opener_can_take_htlc(&self, params: &ChannelParams) -> bool {
        match params.opener() {
            Side::Local => true,
            Side::Remote => {
                let balance = self.local.totals.to_remote.min(self.remote.totals.to_remote);
                let cost = commitment_cost(self.highest_feerate(), self.worst_outputs().saturating_add(1));
                covers(balance, cost, params.reserve_of(Side::Remote)) && self.emptied_opener_survives(params)
            }
        }
    }

    /// Whether the opener still survives one more HTLC of ours if adds of its own cross those that it has not signed for: they
    /// may take its balance down to the reserve and what they and the HTLCs that it knew of cost, at the lowest feerate that
    /// it may have set. Neither side would have done wrong, and what each had signed for would come again at every
    /// reconnection, only to be refused (CST-7).
    fn emptied_opener_survives(&self, params: &ChannelParams) -> bool {
        let crossed = usize::from(self.unanswered);
        let known = self.worst_outputs().saturating_sub(crossed).saturating_add(1);
        let left = commitment_cost(FeeratePerKw::FLOOR, known).saturating_add(params.reserve_of(Side::Remote));
        left >= commitment_cost(FeeratePerKw::FLOOR, known.saturating_add(crossed).saturating_add(1))
    }

    /// Whether commitments of this feerate stay below the cap on their cost, with so many HTLCs of the side that does not
    /// pay. The opener's own are counted as the most that it may offer, so that a peer meets the cap with its `update_fee`
    /// and never with an add.
    fn is_within_cap(params: &ChannelParams, (feerate, accepters): (FeeratePerKw, u16), policy: &Policy) -> bool {
        commitment_cost(feerate, Self::capped_outputs(params, accepters)) <= cost_cap(params.capacity, policy)
    }

    fn capped_outputs(params: &ChannelParams, accepters: u16) -> usize {
        usize::from(accepters).saturating_add(usize::from(params.side(params.opener().other()).max_accepted_htlcs))
    }

    /// The highest feerate that we may propose as the opener where commitments may cost no more than this.
    fn capped_feerate(&self, params: &ChannelParams, cap: Sat) -> FeeratePerKw {
        highest_feerate_of(cap, Self::capped_outputs(params, self.local.totals.offered_by_remote.count))
    }

    /// Whether one more HTLC of ours keeps within the cap. Where we pay the fee, it was reckoned with at `update_fee`. What the
    /// peer has not signed for its next `update_fee` is not held to; so there are never more of these than it may offer itself,
    /// which the cap reckons with.
    pub(crate) fn htlc_is_within_cap(&self, params: &ChannelParams, policy: &Policy) -> bool {
        let ours = self.remote.totals.offered_by_local.count.saturating_add(1);
        params.is_opener
            || self.unanswered < params.local.max_accepted_htlcs
                && Self::is_within_cap(params, (self.highest_feerate(), ours), policy)
    }

    /// Whether a feerate that we would set as the opener keeps within the cap.
    fn our_feerate_is_within_cap(&self, params: &ChannelParams, feerate: FeeratePerKw, policy: &Policy) -> bool {
        Self::is_within_cap(params, (feerate, self.local.totals.offered_by_remote.count), policy)
    }

    /// Whether the opener can pay the lowest feerate that is relayed if everything that either side has proposed ends up in
    /// one commitment. Where updates cross, the fee may come out lower than the feerate asks for, and each side may have
    /// done nothing wrong (CST-7); but what no node relays enforces no HTLC, and a burst of them must not lead there.
    pub(crate) fn opener_survives(&self, params: &ChannelParams) -> bool {
        let balance = match params.opener() {
            Side::Local => self.remote.totals.to_local,
            Side::Remote => self.local.totals.to_remote,
        };
        covers(balance, commitment_cost(FeeratePerKw::FLOOR, self.outputs_ahead()), Sat::ZERO)
    }

    /// The most outputs that a commitment may have once everything proposed is in it. What the peer removes before it adds is in
    /// no commitment that has the add, and neither is what we removed and it has revoked to: they are out of the next local
    /// commitment. HTLCs of ours that are on their way to the peer are in none yet. An HTLC may have an output in the remote
    /// commitment alone.
    fn outputs_ahead(&self) -> usize {
        let on_their_way = usize::from(self.unanswered.saturating_sub(self.unsigned.count));
        let in_remote_alone = self.worst_remote.saturating_sub(self.worst_local);
        let ahead = self.local.totals.untrimmed().saturating_add(on_their_way).saturating_add(in_remote_alone);
        ahead.min(self.worst_outputs())
    }

    /// What we can send in one HTLC now.
    pub(crate) fn spendable(&self, params: &ChannelParams) -> Msat {
        let offered = &self.remote.totals.offered_by_local;
        if offered.count >= params.remote.max_accepted_htlcs || !self.opener_can_take_htlc(params) {
            return Msat::ZERO;
        }
        self.affordable(params).min(params.remote.max_htlc_value_in_flight.saturating_sub(offered.value))
    }

    /// What the peer can send in one HTLC now, as far as we can tell: the peer keeps a buffer of its own.
    pub(crate) fn receivable(&self, params: &ChannelParams) -> Msat {
        let offered = &self.local.totals.offered_by_remote;
        if offered.count >= params.local.max_accepted_htlcs {
            return Msat::ZERO;
        }
        let cost = match params.opener() {
            Side::Local => Sat::ZERO,
            Side::Remote => commitment_cost(self.highest_feerate(), self.worst_outputs().saturating_add(1)),
        };
        left_after(self.local.totals.to_remote, cost, params.reserve_of(Side::Remote))
            .min(params.local.max_htlc_value_in_flight.saturating_sub(offered.value))
    }
}

impl Next {
    /// Whether the peer, who has just added an HTLC or changed the feerate, can afford this commitment with its reserve.
    /// Where we pay the fee, we must be able to, our reserve aside. That holds our peer to no more than it knew, whenever it
    /// sent that.
    pub(super) fn affordable_for_peer(&self, params: &ChannelParams, news: News) -> bool {
        let News { unsigned, feerate } = news;
        let feerate = feerate.map_or(self.feerate, |before| before.min(self.feerate));
        let cost = commitment_cost(feerate, self.totals.untrimmed().saturating_sub(unsigned.outputs));
        let reserve = params.reserve_of(Side::Remote);
        match params.opener() {
            Side::Remote => covers(self.totals.to_remote, cost, reserve),
            Side::Local => {
                let balance = self.totals.to_local.saturating_add(unsigned.value);
                covers(self.totals.to_remote, Sat::ZERO, reserve) && covers(balance, cost, Sat::ZERO)
            }
        }
    }
}

/// Proposes another feerate, one at a time (CST-5). Never one that leaves us without a valid commitment (CST-9).
pub(crate) fn send_update_fee(draft: &mut Draft<'_>, feerate: FeeratePerKw, policy: &Policy) -> Result<(), Refusal> {
    let params = draft.params();
    if !params.is_opener {
        return Err(Refusal::NotOpener);
    }
    let (floor, maximum) = (FeeratePerKw::FLOOR, policy.max_commitment_feerate);
    if feerate < floor || feerate > maximum {
        return Err(Refusal::FeerateOutOfRange { floor, maximum });
    }
    let outlook = draft.outlook();
    if outlook.fee_proposed || draft.head().fee.change.is_some() {
        return Err(Refusal::FeeChangePending);
    }
    if !outlook.our_feerate_is_within_cap(params, feerate, policy) {
        return Err(Refusal::CommitmentTooCostly(cost_cap(params.capacity, policy)));
    }
    if feerate == outlook.remote.feerate {
        return Ok(());
    }
    let cost = commitment_cost(feerate, outlook.worst_outputs().saturating_add(1));
    if !covers(outlook.remote.totals.to_local, cost, params.reserve_of(Side::Local)) {
        return Err(Refusal::CannotAffordFee);
    }
    let outlook = draft.outlook_mut();
    outlook.set_feerate(Side::Remote, feerate);
    outlook.fee_proposed = true;
    draft.send(Message::UpdateFee(UpdateFee { channel_id: params.channel_id, feerate_per_kw: feerate }));
    Ok(())
}

/// The feerate that we should propose as the opener: the estimate, once it is a fourth above or a fifth below the one in
/// force. What was proposed becomes the middle of that span, so an estimate that wavers within it moves nothing. Never
/// above the caps, nor above what we can pay for, even if that is a smaller step. What HTLCs without an output may lose is the
/// accepter's own choice, which it tells nobody, and what we have signed comes again on every connection: so no rise is above
/// what the channel's size alone allows.
pub(crate) fn to_propose(
    params: &ChannelParams,
    outlook: &Outlook,
    estimate: FeeratePerKw,
    policy: &Policy,
) -> Option<FeeratePerKw> {
    let in_force = outlook.highest_feerate();
    let is_rise = |wanted: FeeratePerKw| u64::from(wanted.get()) * 4 >= u64::from(in_force.get()) * 5;
    let is_fall = |wanted: FeeratePerKw| u64::from(wanted.get()) * 5 <= u64::from(in_force.get()) * 4;
    let ours = policy.max_commitment_feerate.min(outlook.capped_feerate(params, cost_cap(params.capacity, policy)));
    let anyones = outlook.capped_feerate(params, share_of(params.capacity));
    let cap = ours.min(anyones.max(in_force));
    let wanted = estimate.min(cap).max(FeeratePerKw::FLOOR);
    if is_fall(wanted) {
        return Some(wanted);
    }
    let payable = wanted.min(outlook.payable_feerate(params));
    is_rise(payable).then_some(payable)
}

/// The opener's new feerate, for our commitment first. One that comes before the last is signed replaces it.
pub(crate) fn receive_update_fee(draft: &mut Draft<'_>, message: &UpdateFee, policy: &Policy) -> Result<(), Violation> {
    let params = draft.params();
    if params.is_opener {
        return Err(Violation::Warn(Rule::FeeFromAccepter));
    }
    check_feerate(message.feerate_per_kw, policy).map_err(Violation::Warn)?;
    let news = news_to_peer(draft);
    let outlook = draft.outlook_mut();
    let known = outlook.local.totals.offered_by_local.count.saturating_sub(news.unsigned.count);
    let is_within_cap = Outlook::is_within_cap(params, (message.feerate_per_kw, known), policy);
    outlook.set_feerate(Side::Local, message.feerate_per_kw);
    outlook.fee_received = true;
    if !outlook.local.affordable_for_peer(params, news) || !outlook.opener_survives(params) {
        return Err(Violation::Warn(Rule::CannotAffordFee));
    }
    if is_within_cap {
        Ok(())
    } else {
        Err(Violation::Warn(Rule::CommitmentTooCostly(cost_cap(params.capacity, policy))))
    }
}

/// What is in the next local commitment and may be news to the peer: HTLCs and a feerate of ours that it has revoked to and not
/// signed for.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    unsigned: Unsigned,
    /// The feerate before ours.
    feerate: Option<FeeratePerKw>,
}

/// A peer's update is judged by those updates of ours that it has signed for, and not by those that it has only revoked to: one
/// that is sent again after a reconnection may be older than that revocation (BOLT 2, "Message Retransmission"). It is never
/// older than the last `commitment_signed` that we received.
pub(super) fn news_to_peer(draft: &Draft<'_>) -> News {
    let fee = &draft.head().fee;
    let feerate = matches!(fee.change, Some((_, Stage::Revoked))).then_some(fee.local);
    News { unsigned: draft.outlook().unsigned, feerate }
}

/// The bounds of a feerate that a peer sets. With anchors a low one is no danger, only one that no node relays is.
pub(crate) fn check_feerate(feerate: FeeratePerKw, policy: &Policy) -> Result<(), Rule> {
    if feerate < FeeratePerKw::FLOOR {
        Err(Rule::FeerateTooLow)
    } else if feerate > policy.max_commitment_feerate {
        Err(Rule::FeerateTooHigh(policy.max_commitment_feerate))
    } else {
        Ok(())
    }
}
