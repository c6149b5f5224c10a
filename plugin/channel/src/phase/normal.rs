//! Messages and orders of an open channel, held to its phase (BOLT 2, "Normal Operation").

use outrigger_bolt::id::PaymentPreimage;
use outrigger_bolt::wire::Message;

use crate::changes::{ChannelHead, MonitorStep, Phase, Removal};
use crate::commitments::htlc::HtlcKey;
use crate::commitments::send::{self, Offer};
use crate::commitments::{fee, receive};
use crate::draft::Draft;
use crate::input::{Command, Context, FailReason};
use crate::link::Link;
use crate::phase::{announcement, funding, shutdown};
use crate::transition::Reply;
use crate::violation::{Refusal, Rule, Violation};

/// A message on an established link, in any phase but Failed and Closed.
pub(crate) fn on_message(draft: &mut Draft<'_>, message: &Message, cx: &Context<'_>) -> Result<(), Violation> {
    match message {
        Message::ChannelReady(ready) => funding::on_channel_ready(draft, ready, cx),
        Message::UpdateAddHtlc(_)
        | Message::UpdateFulfillHtlc(_)
        | Message::UpdateFailHtlc(_)
        | Message::UpdateFailMalformedHtlc(_)
        | Message::UpdateFee(_)
        | Message::CommitmentSigned(_)
        | Message::RevokeAndAck(_) => on_operation(draft, message, cx),
        Message::Shutdown(shutdown) => shutdown::on_shutdown(draft, shutdown, cx),
        Message::ClosingSigned(closing) => shutdown::on_closing_signed(draft, closing, cx),
        Message::ClosingComplete(complete) => shutdown::on_closing_complete(draft, complete, cx),
        Message::ClosingSig(signed) => shutdown::on_closing_sig(draft, signed, cx),
        Message::AnnouncementSignatures(signatures) => announcement::on_signatures(draft, signatures, cx),
        Message::ChannelReestablish(_) => Err(Violation::Warn(Rule::RepeatedReestablish)),
        Message::Pong(pong) => shutdown::on_pong(draft, pong, cx),
        Message::Error(_) | Message::Warning(_) | Message::Ping(_) | Message::Gossip(_) | Message::Unknown(_) => Ok(()),
        Message::Init(_)
        | Message::OpenChannel(_)
        | Message::AcceptChannel(_)
        | Message::FundingCreated(_)
        | Message::FundingSigned(_) => Err(Violation::Warn(Rule::UnexpectedMessage(message.name()))),
    }
}

/// Updates, signatures and revocations. In phase ShuttingDown they go on until no HTLC is left.
fn on_operation(draft: &mut Draft<'_>, message: &Message, cx: &Context<'_>) -> Result<(), Violation> {
    match draft.head().phase {
        Phase::Normal | Phase::ShuttingDown { .. } => {}
        Phase::Funding(_) => return Err(Violation::Warn(Rule::BeforeReady)),
        Phase::Closing { .. } | Phase::Closed { .. } | Phase::Failed { .. } => {
            return Err(Violation::Warn(Rule::UnexpectedMessage(message.name())));
        }
    }
    match message {
        Message::UpdateAddHtlc(_) if shutdown::forbids_add(draft) => Err(Violation::Warn(Rule::AddAfterShutdown)),
        Message::UpdateAddHtlc(add) => receive::add_htlc(draft, add),
        Message::UpdateFulfillHtlc(fulfill) => receive::fulfill_htlc(draft, fulfill.id, fulfill.payment_preimage),
        Message::UpdateFailHtlc(fail) => receive::fail_htlc(draft, fail.id, FailReason::Encrypted(fail.reason.clone())),
        Message::UpdateFailMalformedHtlc(fail) => {
            let reason =
                FailReason::Malformed { sha256_of_onion: fail.sha256_of_onion, failure_code: fail.failure_code };
            receive::fail_htlc(draft, fail.id, reason)
        }
        Message::UpdateFee(update) => fee::receive_update_fee(draft, update, cx.policy),
        Message::CommitmentSigned(signed) => {
            receive::commitment_signed(draft, signed, cx)?;
            shutdown::on_signed(draft, cx)
        }
        Message::RevokeAndAck(revoked) => {
            receive::revoke_and_ack(draft, revoked, cx.policy)?;
            shutdown::advance(draft, cx)
        }
        Message::Init(_)
        | Message::Error(_)
        | Message::Warning(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::OpenChannel(_)
        | Message::AcceptChannel(_)
        | Message::FundingCreated(_)
        | Message::FundingSigned(_)
        | Message::ChannelReady(_)
        | Message::Shutdown(_)
        | Message::ClosingSigned(_)
        | Message::ClosingComplete(_)
        | Message::ClosingSig(_)
        | Message::ChannelReestablish(_)
        | Message::AnnouncementSignatures(_)
        | Message::Gossip(_)
        | Message::Unknown(_) => Err(Violation::Warn(Rule::UnexpectedMessage(message.name()))),
    }
}

/// An order, in any phase but Failed and Closed. `Commit` and `Fail` are the channel's own.
pub(crate) fn on_command(draft: &mut Draft<'_>, command: Command, cx: &Context<'_>) -> Result<Reply, Refusal> {
    match command {
        Command::AddHtlc { amount, payment_hash, cltv_expiry, onion, source } => {
            may_add(draft)?;
            send::add_htlc(draft, Offer { amount, payment_hash, cltv_expiry, onion, source }, cx.policy)
        }
        Command::Fulfill { htlc_id, preimage } => {
            learn_own_preimage(draft, htlc_id, preimage)?;
            may_update(draft)?;
            send::fulfill_htlc(draft, htlc_id, preimage)
        }
        Command::FailHtlc { htlc_id, reason } => {
            draft.htlc(HtlcKey::received(htlc_id)).ok_or(Refusal::UnknownHtlc)?;
            may_update(draft)?;
            send::fail_htlc(draft, htlc_id, reason)
        }
        Command::UpdateFee(feerate) => {
            may_update(draft)?;
            // BOLT 2: no update once `shutdown` was said and no HTLC is left. Once we have signed a commitment without any,
            // the peer may begin to negotiate before we hear of it: nothing that we still sign comes in its way.
            let signed = &draft.head().remote_commitment;
            let is_last = signed.offered_by_local.count == 0 && signed.offered_by_remote.count == 0;
            if matches!(draft.head().phase, Phase::ShuttingDown { .. }) && is_last {
                return Err(Refusal::ShuttingDown);
            }
            fee::send_update_fee(draft, feerate, cx.policy).map(|()| Reply::Done)
        }
        Command::Shutdown { script, feerate } => {
            shutdown::command_shutdown(draft, &script, feerate, cx).map(|()| Reply::Done)
        }
        Command::Commit | Command::Fail { .. } | Command::Withhold { .. } => Ok(Reply::Done),
    }
}

/// The monitor must be able to claim on the chain whatever becomes of the connection. An HTLC whose claim is proposed or
/// committed was told already; one whose failure is, was not.
fn learn_own_preimage(draft: &mut Draft<'_>, htlc_id: u64, preimage: PaymentPreimage) -> Result<(), Refusal> {
    let key = HtlcKey::received(htlc_id);
    let row = draft.htlc(key).ok_or(Refusal::UnknownHtlc)?;
    if row.payment_hash != preimage.payment_hash() {
        return Err(Refusal::WrongPreimage);
    }
    if !matches!(draft.removal(key).or(row.removal.as_ref()), Some(Removal::Fulfilled(_))) {
        draft.monitor(MonitorStep::Preimage(preimage));
    }
    Ok(())
}

/// No HTLC is offered once either side has said `shutdown` (BOLT 2).
fn may_add(draft: &Draft<'_>) -> Result<(), Refusal> {
    match draft.head().phase {
        Phase::ShuttingDown { .. } | Phase::Closing { .. } => Err(Refusal::ShuttingDown),
        Phase::Normal if draft.head().remote_shutdown.is_some() => Err(Refusal::ShuttingDown),
        Phase::Funding(_) | Phase::Normal | Phase::Closed { .. } | Phase::Failed { .. } => may_update(draft),
    }
}

fn may_update(draft: &Draft<'_>) -> Result<(), Refusal> {
    may_operate(draft.head())?;
    match draft.link() {
        Link::Connected(_) => Ok(()),
        Link::Disconnected | Link::Reestablishing(_) => Err(Refusal::NotConnected),
    }
}

/// Whether updates may move at all.
pub(crate) fn may_operate(head: &ChannelHead) -> Result<(), Refusal> {
    match head.phase {
        Phase::Normal | Phase::ShuttingDown { .. } => Ok(()),
        Phase::Funding(_) => Err(Refusal::NotReady),
        Phase::Closing { .. } => Err(Refusal::ShuttingDown),
        Phase::Closed { .. } | Phase::Failed { .. } => Err(Refusal::Ended),
    }
}

/// Signs what has gathered, where the phase, the link and the protocol allow it.
pub(crate) fn commit(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    if may_update(draft).is_err() {
        return Ok(());
    }
    send::commitment(draft, cx)?;
    shutdown::advance(draft, cx)
}
