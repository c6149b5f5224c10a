//! The first half of a cooperative close: `shutdown` from both sides, until no HTLC is left (BOLT 2, "Closing
//! Initiation: `shutdown`"). What follows is in [`super::closing`].

use bitcoin::{Script, ScriptBuf};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::tx::closing::{is_shutdown_script, is_simple_close_script, is_standard_shutdown_script};
use outrigger_bolt::wire::{Message, Padding, Ping, Pong, Shutdown};

use super::closing::{self, Offer};
use super::simple_close::{self, Proposal};
use crate::changes::{ChannelHead, ChannelParams, Phase};
use crate::commitments::htlc::Offerer;
use crate::draft::Draft;
use crate::input::Context;
use crate::link::{self, Link};
use crate::transition::{ChannelNote, Effect};
use crate::violation::{Refusal, Rule, Violation};

pub(crate) use super::closing::{
    on_closing_signed, on_funding_spend_unconfirmed, on_funding_spent, on_height, watches,
};
pub(crate) use super::simple_close::{on_closing_complete, on_closing_sig};

/// Where the close stands on this connection. `shutdown` is sent again on the next, and the negotiation starts over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Negotiation {
    pub(crate) shutdown_sent: bool,
    pub(crate) shutdown_received: bool,
    /// Our newest `closing_signed`.
    pub(crate) offer: Option<Offer>,
    /// The fee of the peer's newest `closing_signed`.
    pub(crate) counteroffer: Option<Sat>,
    /// Our `closing_complete` that the peer has yet to answer.
    pub(crate) proposal: Option<Box<Proposal>>,
    /// The peer asked for the close, and may pay for it: our `closing_complete` waits for the peer's.
    pub(crate) awaits_closer: bool,
    pub(crate) resent: Resent,
}

/// Whether all that the peer had signed before the link was re-established has come again. BOLT 2 gives it no order to the
/// peer's `shutdown`, and LDK sends that first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resent {
    /// Nothing is due, or the peer has signed, has offered a fee, or has answered our `ping`.
    #[default]
    Complete,
    /// It may be on its way, HTLCs that are older than the peer's `shutdown` included.
    Awaited,
    /// So it may, and our `ping` went out behind the peer's `shutdown`. What is sent again is queued together with that, so
    /// the `pong` comes after it.
    Asked,
}

/// The least and the most `num_pong_bytes` of a channel's `ping`: more than any other of ours asks for.
pub const CHANNEL_PONG_BYTES: std::ops::RangeInclusive<u16> = 256..=511;

/// The `num_pong_bytes` of a channel's `ping`. Several channels may ask the same peer, so each asks for its own number.
fn pong_bytes(channel: ChannelId) -> u16 {
    let [.., last] = channel.0;
    CHANNEL_PONG_BYTES.start().saturating_add(last.into())
}

/// Whether this `pong` answers the channel's `ping`.
pub(crate) fn is_awaited(negotiation: &Negotiation, channel: ChannelId, pong: &Pong) -> bool {
    negotiation.resent == Resent::Asked && pong.byteslen == Padding(pong_bytes(channel))
}

/// The link is up again: whatever the peer had signed may come again.
pub(crate) fn on_reestablished(draft: &mut Draft<'_>) {
    // A peer that has signed the close has no HTLC on its way.
    if matches!(draft.head().phase, Phase::Normal | Phase::ShuttingDown { .. }) {
        set_resent(draft, Resent::Awaited);
    }
}

/// Whether an `update_add_htlc` breaks the peer's word. BOLT 2: none after `shutdown`; but one that was signed before that
/// is sent again, and cannot be told from a new one until the peer has signed. Never once the peer has a close that we have
/// signed, on whatever connection: what came later would be in our commitment, and not in the close that it publishes.
pub(crate) fn forbids_add(draft: &Draft<'_>) -> bool {
    let has_close = matches!(draft.head().phase, Phase::ShuttingDown { signed: true, .. });
    draft.head().remote_shutdown.is_some() && (has_close || draft.negotiation().resent == Resent::Complete)
}

/// A signature of ours for a close goes to the peer.
pub(super) fn gave_signature(draft: &mut Draft<'_>) {
    if matches!(draft.head().phase, Phase::ShuttingDown { signed: false, .. })
        && let Phase::ShuttingDown { signed, .. } = &mut draft.head_mut().phase
    {
        *signed = true;
    }
}

/// Whether all that the peer had signed has come again; asked of the peer where it may not.
pub(super) fn is_all_there(draft: &mut Draft<'_>) -> bool {
    match draft.negotiation().resent {
        Resent::Complete => true,
        Resent::Awaited => {
            ask_for_resent(draft);
            false
        }
        Resent::Asked => false,
    }
}

/// The peer has signed. What it sends again is signed at once, so all of it is there.
pub(crate) fn on_signed(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    set_resent(draft, Resent::Complete);
    advance(draft, cx)
}

/// The peer answers a `ping`.
pub(crate) fn on_pong(draft: &mut Draft<'_>, pong: &Pong, cx: &Context<'_>) -> Result<(), Violation> {
    if !is_awaited(draft.negotiation(), draft.channel_id(), pong) {
        return Ok(());
    }
    set_resent(draft, Resent::Complete);
    advance(draft, cx)
}

/// Has the peer tell when all that it sends again is there.
fn ask_for_resent(draft: &mut Draft<'_>) {
    let num_pong_bytes = pong_bytes(draft.channel_id());
    draft.send(Message::Ping(Ping { num_pong_bytes, byteslen: Padding(0) }));
    set_resent(draft, Resent::Asked);
}

fn set_resent(draft: &mut Draft<'_>, resent: Resent) {
    if draft.negotiation().resent != resent {
        change_negotiation(draft, |negotiation| negotiation.resent = resent);
    }
}

/// The peer wants the channel to end.
pub(crate) fn on_shutdown(draft: &mut Draft<'_>, message: &Shutdown, cx: &Context<'_>) -> Result<(), Violation> {
    check_script_of_peer(draft, &message.scriptpubkey).map_err(Violation::Warn)?;
    if draft.negotiation().shutdown_received {
        return Ok(());
    }
    // BOLT 2: no `shutdown` before the sender's updates are signed.
    if peer_has_unsigned_updates(draft) {
        return Err(Violation::Warn(Rule::ShutdownWithPendingUpdates));
    }
    if matches!(draft.head().phase, Phase::Normal) && !has_own_script(draft, cx) {
        wait_for_script(draft);
        return Ok(());
    }
    set_script_of_peer(draft, &message.scriptpubkey);
    change_negotiation(draft, |negotiation| negotiation.shutdown_received = true);
    answer(draft, cx)
}

/// The channel became usable: a `shutdown` that came before is answered now.
pub(crate) fn on_ready(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    if draft.head().remote_shutdown.is_some() { answer(draft, cx) } else { Ok(()) }
}

/// Begins the close that the peer asked for, where it has not begun.
fn answer(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    match draft.head().phase {
        Phase::Normal if !has_own_script(draft, cx) => {
            wait_for_script(draft);
            Ok(())
        }
        Phase::Normal => {
            begin(draft, cx.shutdown_script, cx.feerates.normal);
            change_negotiation(draft, |negotiation| negotiation.awaits_closer = true);
            draft.effect(Effect::Note(ChannelNote::ShuttingDown { by_us: false }));
            advance(draft, cx)
        }
        Phase::ShuttingDown { .. } | Phase::Closing { .. } => advance(draft, cx),
        // An unconfirmed channel is closed as soon as it is one; BOLT 2 lets the answer wait for that.
        Phase::Funding(_) | Phase::Closed { .. } | Phase::Failed { .. } => Ok(()),
    }
}

/// Whether there is a script of ours that the answer may name. The wallet gives none before it is synced, and an output
/// without a script would be anybody's.
fn has_own_script(draft: &Draft<'_>, cx: &Context<'_>) -> bool {
    let script = own_script(draft.head(), draft.params()).map_or(cx.shutdown_script, ScriptBuf::as_script);
    match draft.link().features() {
        Some(features) => is_shutdown_script(script, features),
        None => is_standard_shutdown_script(script, true),
    }
}

/// The script that a close must pay us to: fixed upfront, or by a `shutdown` of ours.
pub(crate) fn own_script<'a>(head: &'a ChannelHead, params: &'a ChannelParams) -> Option<&'a ScriptBuf> {
    params.local.upfront_shutdown_script.as_ref().or(head.local_shutdown.as_ref())
}

/// Leaves the close for another connection, on which the peer asks again (BOLT 2: `shutdown` is sent again).
fn wait_for_script(draft: &mut Draft<'_>) {
    draft.effect(Effect::Disconnect("no address of ours to close the channel to yet".to_owned()));
    link::on_disconnected(draft);
}

/// Ends the channel because we want it to. Asked again, it changes the feerate of a negotiation yet to come, or with
/// `option_simple_close` replaces the close by a dearer one.
pub(crate) fn command_shutdown(
    draft: &mut Draft<'_>,
    script: &ScriptBuf,
    feerate: FeeratePerKw,
    cx: &Context<'_>,
) -> Result<(), Refusal> {
    let by_us = match draft.head().phase {
        Phase::Funding(_) => return Err(Refusal::NotReady),
        Phase::Normal => true,
        Phase::ShuttingDown { .. } => false,
        Phase::Closing { confirmed_height: None, .. } => {
            check_own_script(draft, script)?;
            return simple_close::bump(draft, feerate, cx);
        }
        Phase::Closing { confirmed_height: Some(_), .. } => return Err(Refusal::ShuttingDown),
        Phase::Closed { .. } | Phase::Failed { .. } => return Err(Refusal::Ended),
    };
    check_feerate(feerate, cx.feerates.floor, cx)?;
    check_own_script(draft, script)?;
    begin(draft, script, feerate);
    change_negotiation(draft, |negotiation| negotiation.awaits_closer = false);
    if by_us {
        draft.effect(Effect::Note(ChannelNote::ShuttingDown { by_us: true }));
    }
    // No message of the peer is at work here, so whatever is not yet due waits.
    say_shutdown(draft);
    if simple_close::is_negotiated(draft) {
        simple_close::propose(draft, cx);
    }
    Ok(())
}

/// A close of ours pays at least `floor`, and what bitcoind relays.
pub(super) fn check_feerate(feerate: FeeratePerKw, floor: FeeratePerKw, cx: &Context<'_>) -> Result<(), Refusal> {
    let floor = floor.max(cx.feerates.floor).max(FeeratePerKw::FLOOR);
    let maximum = cx.policy.max_commitment_feerate;
    if feerate < floor || feerate > maximum { Err(Refusal::FeerateOutOfRange { floor, maximum }) } else { Ok(()) }
}

/// Our script is the one that we fixed before, if any, and one of the forms that BOLT 2 allows.
fn check_own_script(draft: &Draft<'_>, script: &Script) -> Result<(), Refusal> {
    if own_script(draft.head(), draft.params()).is_some_and(|fixed| fixed.as_script() != script) {
        return Err(Refusal::ShutdownScriptFixed);
    }
    if is_standard_shutdown_script(script, false) {
        return Ok(());
    }
    match draft.link().features() {
        None if is_standard_shutdown_script(script, true) || is_simple_close_script(script) => {
            Err(Refusal::NotConnected)
        }
        Some(features) if is_shutdown_script(script, features) => Ok(()),
        None | Some(_) => Err(Refusal::ShutdownScript),
    }
}

fn begin(draft: &mut Draft<'_>, script: &Script, feerate: FeeratePerKw) {
    let upfront = draft.params().local.upfront_shutdown_script.clone();
    let head = draft.head_mut();
    if head.local_shutdown.is_none() {
        head.local_shutdown = Some(upfront.unwrap_or_else(|| script.to_owned()));
    }
    let signed = matches!(head.phase, Phase::ShuttingDown { signed: true, .. });
    head.phase = Phase::ShuttingDown { feerate, signed };
}

/// The link is up again in phase ShuttingDown or Closing. BOLT 2: a `shutdown` that was sent is sent again; one that
/// only waited for signatures may go now as well, for no proposal of ours has outlived the disconnect.
pub(crate) fn on_connected_closing(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    send_shutdown(draft);
    advance(draft, cx)
}

/// Goes as far as it can in phase ShuttingDown or Closing: our `shutdown` once our updates are signed; once no HTLC is
/// left, our `closing_complete` or the opener's first `closing_signed`.
pub(crate) fn advance(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    say_shutdown(draft);
    if simple_close::is_negotiated(draft) {
        simple_close::propose(draft, cx);
        return Ok(());
    }
    if !draft.params().is_opener || draft.negotiation().offer.is_some() || !may_negotiate(draft) {
        return Ok(());
    }
    // Some peers fail a channel over an offer that meets an HTLC of theirs, one that they send again included.
    if is_all_there(draft) { closing::make_first_offer(draft, cx) } else { Ok(()) }
}

/// Sends our `shutdown` if nothing is left that a `commitment_signed` must cover first (BOLT 2).
fn say_shutdown(draft: &mut Draft<'_>) {
    if !draft.outlook().remote.changed {
        send_shutdown(draft);
    }
}

fn send_shutdown(draft: &mut Draft<'_>) {
    if !is_connected(draft) || draft.negotiation().shutdown_sent {
        return;
    }
    if let Some(scriptpubkey) = draft.head().local_shutdown.clone() {
        draft.send(Message::Shutdown(Shutdown { channel_id: draft.channel_id(), scriptpubkey }));
        change_negotiation(draft, |negotiation| negotiation.shutdown_sent = true);
    }
}

/// Whether both sides have said `shutdown` on this connection and nothing moves any more: no HTLC, no revocation owed,
/// no update under way (BOLT 2).
pub(super) fn may_negotiate(draft: &Draft<'_>) -> bool {
    let (head, outlook, negotiation) = (draft.head(), draft.outlook(), draft.negotiation());
    is_connected(draft)
        && negotiation.shutdown_sent
        && negotiation.shutdown_received
        && draft.has_no_htlcs()
        && !head.awaiting_revocation()
        && head.fee.change.is_none()
        && !outlook.local.changed
        && !outlook.remote.changed
}

pub(super) fn change_negotiation(draft: &mut Draft<'_>, change: impl FnOnce(&mut Negotiation)) {
    let mut negotiation = draft.negotiation().clone();
    change(&mut negotiation);
    draft.set_negotiation(negotiation);
}

/// BOLT 2: one of the standard forms, the one that was fixed at the opening, and the same one every time. With
/// `option_simple_close` a new connection may bring another.
fn check_script_of_peer(draft: &Draft<'_>, script: &Script) -> Result<(), Rule> {
    check_form_of_peer(draft, script)?;
    let may_change = simple_close::is_negotiated(draft) && !draft.negotiation().shutdown_received;
    let said = draft.head().remote_shutdown.as_ref().filter(|_| !may_change);
    if said.is_some_and(|said| said.as_script() != script) { Err(Rule::ShutdownScriptChanged) } else { Ok(()) }
}

/// One of the standard forms, and the one that was fixed at the opening.
pub(super) fn check_form_of_peer(draft: &Draft<'_>, script: &Script) -> Result<(), Rule> {
    if !draft.link().features().is_some_and(|features| is_shutdown_script(script, features)) {
        return Err(Rule::ShutdownScript);
    }
    let upfront = draft.params().remote.upfront_shutdown_script.as_ref();
    if upfront.is_some_and(|fixed| fixed.as_script() != script) { Err(Rule::ShutdownScriptChanged) } else { Ok(()) }
}

/// The script that the peer named last is the one that closes pay it to (BOLT 2, `closing_complete`).
pub(super) fn set_script_of_peer(draft: &mut Draft<'_>, script: &Script) {
    if draft.head().remote_shutdown.as_deref() != Some(script) {
        draft.head_mut().remote_shutdown = Some(script.to_owned());
    }
}

fn peer_has_unsigned_updates(draft: &Draft<'_>) -> bool {
    let unsigned_fee = !draft.params().is_opener && draft.outlook().local.feerate != draft.head().fee.local;
    draft.adds().keys().any(|key| key.offerer == Offerer::Remote)
        || draft.removals().keys().any(|key| key.offerer == Offerer::Local)
        || unsigned_fee
}

fn is_connected(draft: &Draft<'_>) -> bool {
    matches!(draft.link(), Link::Connected(_))
}
