//! What each side asks for in `open_channel` and `accept_channel`, and what of it is acceptable (BOLT 2).

use bitcoin::ScriptBuf;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::keys::Basepoints;
use outrigger_bolt::tx::closing::is_shutdown_script;
use outrigger_bolt::tx::fee::commitment_cost;
use outrigger_bolt::wire::{AcceptChannel, OpenChannel};

use super::OpenOrder;
use crate::changes::SideParams;
use crate::commitments::fee::{check_feerate, cost_cap};
use crate::input::{Context, Policy};
use crate::violation::{Refusal, Rule};

/// Below it, some standard output type would not be relayed (BOLT 3, "Dust Limits").
const MIN_DUST_LIMIT: Sat = Sat::new(354);
/// A higher dust limit only serves to burn other people's HTLCs.
const MAX_DUST_LIMIT: Sat = Sat::new(10_000);
/// More could not all be signed in one message (BOLT 2, `update_add_htlc`).
const MAX_ACCEPTED_HTLCS: u16 = 483;
/// From here on, both sides must offer `option_support_large_channel`, which we do not (BOLT 2, `open_channel`).
const LARGE_CHANNEL: Sat = Sat::new(1 << 24);
const MILLION: u128 = 1_000_000;

/// The one defined bit of `channel_flags` (BOLT 2, `open_channel`).
pub(super) const ANNOUNCE_CHANNEL: u8 = 1;

/// Whether the opener wants the channel to be announced.
pub(super) const fn is_announced(open: &OpenChannel) -> bool {
    open.channel_flags & ANNOUNCE_CHANNEL != 0
}

/// The script that we commit to where the peer offers to hold us to it. Without an address of ours there is none, which
/// an empty one says (BOLT 2, `option_upfront_shutdown_script`).
pub(super) fn upfront_script(features: &Features, cx: &Context<'_>) -> Option<ScriptBuf> {
    let offered = features.supports(Feature::UPFRONT_SHUTDOWN_SCRIPT);
    let script = Some(cx.shutdown_script.to_owned()).filter(|_| offered);
    script.filter(|script| is_shutdown_script(script, features))
}

/// A share in parts per million, rounded down.
fn share(amount: u64, ppm: u32) -> u64 {
    let share = u128::from(amount).saturating_mul(u128::from(ppm)) / MILLION;
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// The least that we ask a peer to keep, also of a small channel: peers have dust limits of up to some 550 sat, and refuse
/// a reserve below them (BOLT 2, `accept_channel`).
const LEAST_RESERVE: Sat = Sat::new(1000);

/// What we ask for in a channel of this capacity. Our reserve is above the dust limits of both sides, as BOLT 2 demands
/// of it; the opener does not know the peer's yet and gives zero.
pub(super) fn own(cx: &Context<'_>, capacity: Sat, remote_dust_limit: Sat, script: Option<ScriptBuf>) -> SideParams {
    let policy = cx.policy;
    let reserve = Sat::new(share(capacity.get(), policy.reserve_ppm));
    let in_flight = share(capacity.get(), policy.max_in_flight_ppm).saturating_mul(1000);
    SideParams {
        basepoints: *cx.signer.basepoints(),
        dust_limit: own_dust_limit(policy),
        channel_reserve: reserve.max(LEAST_RESERVE).max(own_dust_limit(policy)).max(remote_dust_limit),
        to_self_delay: policy.to_self_delay,
        max_htlc_value_in_flight: Msat::new(in_flight).max(policy.htlc_minimum),
        max_accepted_htlcs: own_max_accepted_htlcs(policy),
        htlc_minimum: policy.htlc_minimum,
        upfront_shutdown_script: script,
    }
}

fn own_dust_limit(policy: &Policy) -> Sat {
    policy.dust_limit.max(MIN_DUST_LIMIT)
}

fn own_max_accepted_htlcs(policy: &Policy) -> u16 {
    policy.max_accepted_htlcs.clamp(1, MAX_ACCEPTED_HTLCS)
}

fn largest_funding(policy: &Policy) -> Sat {
    policy.max_funding.min(LARGE_CHANNEL.saturating_sub(Sat::new(1)))
}

/// Whether we may open this at all.
pub(super) fn check_order(order: &OpenOrder, cx: &Context<'_>) -> Result<(), Refusal> {
    let policy = cx.policy;
    let (minimum, maximum) = (policy.min_funding, largest_funding(policy));
    if !order.features.supports(Feature::ANCHORS) {
        return Err(Refusal::PeerLacksAnchors);
    }
    if order.funding < minimum || order.funding > maximum {
        return Err(Refusal::FundingOutOfRange { minimum, maximum });
    }
    let (floor, maximum) = (FeeratePerKw::FLOOR, policy.max_commitment_feerate);
    if order.commitment_feerate < floor || order.commitment_feerate > maximum {
        return Err(Refusal::FeerateOutOfRange { floor, maximum });
    }
    if order.shutdown_script.as_ref().is_some_and(|script| !is_shutdown_script(script, &order.features)) {
        return Err(Refusal::ShutdownScript);
    }
    // The peer will ask for a reserve of about ours; with less than that we could not send a thing.
    let reserve = own(cx, order.funding, Sat::ZERO, None).channel_reserve;
    check_balances(order.funding, order.push, order.commitment_feerate, reserve).map_err(|_| Refusal::PushTooLarge)
}

/// A peer's `open_channel`, all but what depends on our own terms. Gives its `channel_type`.
pub(super) fn check_open(open: &OpenChannel, features: &Features, cx: &Context<'_>) -> Result<Features, Rule> {
    let policy = cx.policy;
    if open.chain_hash != policy.chain_hash {
        return Err(Rule::UnknownChain);
    }
    let channel_type = check_channel_type(open, features)?;
    check_upfront_script(open.upfront_shutdown_script.as_ref(), features)?;
    if open.funding_satoshis < policy.min_funding || open.funding_satoshis == Sat::ZERO {
        return Err(Rule::FundingTooSmall(policy.min_funding));
    }
    let largest = largest_funding(policy);
    if open.funding_satoshis > largest {
        return Err(Rule::FundingTooLarge(largest));
    }
    check_feerate(open.feerate_per_kw, policy)?;
    check_side(&of_open(open), open.funding_satoshis, (features, policy))?;
    let reserve = own(cx, open.funding_satoshis, open.dust_limit_satoshis, None).channel_reserve;
    let reserve = reserve.max(open.channel_reserve_satoshis);
    check_balances(open.funding_satoshis, open.push_msat, open.feerate_per_kw, reserve)?;
    let cap = cost_cap(open.funding_satoshis, policy);
    let most = commitment_cost(open.feerate_per_kw, usize::from(own_max_accepted_htlcs(policy)));
    if most > cap { Err(Rule::CommitmentTooCostly(cap)) } else { Ok(channel_type) }
}

/// What an `accept_channel` says besides its terms, held to the type that we asked for.
pub(super) fn check_accept(
    accept: &AcceptChannel,
    (channel_type, features): (&Features, &Features),
    cx: &Context<'_>,
) -> Result<(), Rule> {
    match &accept.channel_type {
        None => return Err(Rule::ChannelTypeMissing),
        Some(found) if found == channel_type => {}
        Some(_) => return Err(Rule::ChannelTypeChanged),
    }
    check_upfront_script(accept.upfront_shutdown_script.as_ref(), features)?;
    let maximum = cx.policy.max_minimum_depth;
    if accept.minimum_depth > maximum { Err(Rule::MinimumDepthTooLong(maximum)) } else { Ok(()) }
}

/// The types that we open and accept. Others are refused, those for channels without confirmation among them (FND-11).
fn check_channel_type(open: &OpenChannel, features: &Features) -> Result<Features, Rule> {
    let channel_type = open.channel_type.as_ref().ok_or(Rule::ChannelTypeMissing)?;
    if *channel_type == Features::channel_type_anchors() {
        return Ok(channel_type.clone());
    }
    // BOLT 2, `open_channel`: the receiver fails a channel that is to be announced under an alias.
    if channel_type.supports(Feature::SCID_ALIAS) && is_announced(open) {
        return Err(Rule::AliasAnnounced);
    }
    let alias = *channel_type == Features::channel_type_anchors_scid_alias();
    if alias && features.supports(Feature::SCID_ALIAS) {
        Ok(channel_type.clone())
    } else {
        Err(Rule::ChannelTypeUnsuitable)
    }
}

/// BOLT 2: where both offer the feature, the record must be there, if empty (FND-12).
fn check_upfront_script(script: Option<&ScriptBuf>, features: &Features) -> Result<(), Rule> {
    let missing = script.is_none() && features.supports(Feature::UPFRONT_SHUTDOWN_SCRIPT);
    if missing { Err(Rule::UpfrontScriptMissing) } else { Ok(()) }
}

/// The limits that the peer sets for us: none may keep us from using, or from enforcing, the channel.
pub(super) fn check_side(
    side: &SideParams,
    capacity: Sat,
    (features, policy): (&Features, &Policy),
) -> Result<(), Rule> {
    if side.dust_limit < MIN_DUST_LIMIT {
        return Err(Rule::DustLimitTooSmall);
    }
    if side.dust_limit > MAX_DUST_LIMIT {
        return Err(Rule::DustLimitTooLarge);
    }
    if side.channel_reserve < side.dust_limit {
        return Err(Rule::ReserveBelowDust);
    }
    if side.channel_reserve > Sat::new((capacity.get() / 10).max(MAX_DUST_LIMIT.get())) {
        return Err(Rule::ReserveTooLarge);
    }
    if side.to_self_delay > policy.max_to_self_delay {
        return Err(Rule::ToSelfDelayTooLong(policy.max_to_self_delay));
    }
    if side.max_accepted_htlcs == 0 || side.max_accepted_htlcs > MAX_ACCEPTED_HTLCS {
        return Err(Rule::MaxAcceptedHtlcs);
    }
    if side.htlc_minimum > Msat::new(capacity.get().saturating_mul(10)) {
        return Err(Rule::HtlcMinimumTooLarge);
    }
    if side.max_htlc_value_in_flight < side.htlc_minimum {
        return Err(Rule::MaxInFlightTooSmall);
    }
    match &side.upfront_shutdown_script {
        Some(script) if !is_shutdown_script(script, features) => Err(Rule::ShutdownScript),
        Some(_) | None => Ok(()),
    }
}

/// Either side's reserve is above either side's dust limit, so that no commitment is without any output (CST-9).
pub(super) fn check_sides(local: &SideParams, remote: &SideParams) -> Result<(), Rule> {
    let reserve = local.channel_reserve.min(remote.channel_reserve);
    let dust_limit = local.dust_limit.max(remote.dust_limit);
    if reserve < dust_limit { Err(Rule::ReserveBelowDust) } else { Ok(()) }
}

/// The first commitment: the opener pays for it, and somebody is above the reserve.
pub(super) fn check_balances(funding: Sat, push: Msat, feerate: FeeratePerKw, reserve: Sat) -> Result<(), Rule> {
    let opener = funding.to_msat().and_then(|all| all.checked_sub(push)).ok_or(Rule::PushAboveFunding)?;
    let left = opener.to_sat_floor().checked_sub(commitment_cost(feerate, 0)).ok_or(Rule::OpenerCannotPayFee)?;
    if left <= reserve && push.to_sat_floor() <= reserve { Err(Rule::NobodyAboveReserve) } else { Ok(()) }
}

/// The peer's terms as the opener.
pub(super) fn of_open(open: &OpenChannel) -> SideParams {
    SideParams {
        basepoints: Basepoints {
            funding_pubkey: open.funding_pubkey,
            revocation: open.revocation_basepoint,
            payment: open.payment_basepoint,
            delayed_payment: open.delayed_payment_basepoint,
            htlc: open.htlc_basepoint,
        },
        dust_limit: open.dust_limit_satoshis,
        channel_reserve: open.channel_reserve_satoshis,
        to_self_delay: open.to_self_delay,
        max_htlc_value_in_flight: open.max_htlc_value_in_flight_msat,
        max_accepted_htlcs: open.max_accepted_htlcs,
        htlc_minimum: open.htlc_minimum_msat,
        upfront_shutdown_script: nonempty(open.upfront_shutdown_script.as_ref()),
    }
}

/// The peer's terms as the accepter.
pub(super) fn of_accept(accept: &AcceptChannel) -> SideParams {
    SideParams {
        basepoints: Basepoints {
            funding_pubkey: accept.funding_pubkey,
            revocation: accept.revocation_basepoint,
            payment: accept.payment_basepoint,
            delayed_payment: accept.delayed_payment_basepoint,
            htlc: accept.htlc_basepoint,
        },
        dust_limit: accept.dust_limit_satoshis,
        channel_reserve: accept.channel_reserve_satoshis,
        to_self_delay: accept.to_self_delay,
        max_htlc_value_in_flight: accept.max_htlc_value_in_flight_msat,
        max_accepted_htlcs: accept.max_accepted_htlcs,
        htlc_minimum: accept.htlc_minimum_msat,
        upfront_shutdown_script: nonempty(accept.upfront_shutdown_script.as_ref()),
    }
}

/// A script of no length says that there is none (BOLT 2).
fn nonempty(script: Option<&ScriptBuf>) -> Option<ScriptBuf> {
    script.filter(|script| !script.is_empty()).cloned()
}
