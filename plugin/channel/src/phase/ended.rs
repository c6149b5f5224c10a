//! Channels that are over: Failed and Closed. What they still do is answer, learn preimages and watch.

use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message};

use crate::changes::{ChannelHead, FundingSpend, MonitorStep, Phase};
use crate::commitments::htlc::HtlcKey;
use crate::commitments::receive;
use crate::draft::Draft;
use crate::input::{Command, Context};
use crate::link;
use crate::monitor::{ClaimKind, onchain};
use crate::phase::{funding, restored};
use crate::transition::{ChannelNote, Effect, Reply, Watch};
use crate::violation::Refusal;

/// Blocks under which the end of a channel is out of reach of any reorganisation: only then is it forgotten (REO-1).
const FORGET_DEPTH: u32 = 100;

/// The height from which on a closed channel needs nothing but its answer to a peer that comes back to it.
pub(crate) fn history_height(head: &ChannelHead) -> Option<u32> {
    match head.phase {
        Phase::Closed { height, .. } => Some(height.saturating_add(FORGET_DEPTH).saturating_sub(1)),
        Phase::Funding(_)
        | Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closing { .. }
        | Phase::Failed { .. } => None,
    }
}

/// The channel is over: it is to be told when it is history.
pub(crate) fn close(draft: &mut Draft<'_>, txid: Txid, height: u32, note: ChannelNote) {
    draft.set_phase(Phase::Closed { txid, height });
    draft.monitor(MonitorStep::Closed);
    if let Some(height) = history_height(draft.head()) {
        draft.effect(Effect::Watch(Watch::Height(height)));
    }
    draft.effect(Effect::Note(note));
}

/// An `error` for one channel.
pub(crate) fn error_message(channel_id: ChannelId, text: &str) -> Message {
    Message::Error(Error { channel_id, data: text.into() })
}

/// What a peer is told that comes back to a channel that is over (BOLT 2: repeat the error).
pub(crate) fn send_reason(draft: &mut Draft<'_>) {
    let text = match &draft.head().phase {
        Phase::Failed { reason, .. } => reason.clone(),
        Phase::Closed { .. } => "the channel is closed".to_owned(),
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } | Phase::Closing { .. } => return,
    };
    let message = error_message(draft.channel_id(), &text);
    draft.send(message);
}

/// All messages but two are ignored: a reestablish is answered, and a preimage is worth money. A peer that lost its data
/// may need our numbers to know that it did, so a closed channel tells them still (CST-20).
pub(crate) fn on_message(draft: &mut Draft<'_>, message: &Message, cx: &Context<'_>) {
    match message {
        Message::ChannelReestablish(reestablish) => {
            let proof = link::proof_of_loss(draft.head(), reestablish, cx);
            // The peer proves it again on every connection: told once.
            if let Some(proof) = proof.filter(|_| !cx.restored) {
                restored::proved(draft, proof);
            }
            if matches!(draft.head().phase, Phase::Closed { .. }) {
                let reestablish = link::own_reestablish(draft, cx);
                draft.send(Message::ChannelReestablish(reestablish));
            }
            send_reason(draft);
        }
        Message::UpdateFulfillHtlc(fulfill) => {
            receive::learn_preimage(draft, HtlcKey::offered(fulfill.id), fulfill.payment_preimage);
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
        | Message::UpdateAddHtlc(_)
        | Message::UpdateFailHtlc(_)
        | Message::UpdateFailMalformedHtlc(_)
        | Message::CommitmentSigned(_)
        | Message::RevokeAndAck(_)
        | Message::UpdateFee(_)
        | Message::AnnouncementSignatures(_)
        | Message::Gossip(_)
        | Message::Unknown(_) => {}
    }
}

/// A preimage goes to the monitor, which claims on the chain; a failure needs nothing but time.
pub(crate) fn on_command(draft: &mut Draft<'_>, command: Command) -> Result<Reply, Refusal> {
    match command {
        Command::Fulfill { htlc_id, preimage } => {
            let row = draft.htlc(HtlcKey::received(htlc_id)).ok_or(Refusal::UnknownHtlc)?;
            if row.payment_hash != preimage.payment_hash() {
                return Err(Refusal::WrongPreimage);
            }
            draft.monitor(MonitorStep::Preimage(preimage));
            Ok(Reply::Done)
        }
        Command::Fail { .. } => {
            publish_reserved(draft);
            Ok(Reply::Done)
        }
        Command::FailHtlc { .. } | Command::Commit | Command::Withhold { .. } => Ok(Reply::Done),
        Command::AddHtlc { .. } | Command::UpdateFee(_) | Command::Shutdown { .. } => Err(Refusal::Ended),
    }
}

/// What spends the funding output of a failed channel in a block; the monitor resolves it. Seen again after a restart, it
/// changes nothing.
pub(crate) fn on_funding_spent(draft: &mut Draft<'_>, height: u32, tx: &Transaction, cx: &Context<'_>) {
    if !onchain::is_of_channel(draft.params(), draft.head(), tx, cx.signer) {
        return funding::never_was(draft, height);
    }
    let proof = restored::proof_in(draft, tx);
    spent(draft, (height, tx), proof, cx);
}

/// What spends the funding output of a failed channel, and the proof that it gives of rows that are old.
pub(super) fn spent(draft: &mut Draft<'_>, (height, tx): (u32, &Transaction), proof: Option<String>, cx: &Context<'_>) {
    let found = (tx.compute_txid(), height);
    if let Phase::Failed { spend, .. } = &draft.head().phase
        && *spend != Some(found)
    {
        if let Phase::Failed { spend, .. } = &mut draft.head_mut().phase {
            *spend = Some(found);
        }
        draft.monitor(MonitorStep::FundingSpent(FundingSpend { tx: Arc::new(tx.clone()), height }));
    }
    // Under restored mode it is known already, and told once.
    if let Some(proof) = proof.filter(|_| !cx.restored) {
        restored::proved(draft, proof);
    }
}

/// What a required backup has of the channel, and nothing newer, is published from now on (the Persist contract,
/// "PermanentFailure"). Does nothing where nothing is reserved.
pub(crate) fn publish_reserved(draft: &mut Draft<'_>) {
    if matches!(draft.head().phase, Phase::Failed { reserved: true, .. }) {
        if let Phase::Failed { publish, reserved, .. } = &mut draft.head_mut().phase {
            (*publish, *reserved) = (true, false);
        }
        draft.monitor(MonitorStep::Due);
    }
}

/// Nothing in the chain spends the funding output any more: the newest local commitment goes out again.
pub(crate) fn on_funding_spend_unconfirmed(draft: &mut Draft<'_>) {
    if matches!(draft.head().phase, Phase::Failed { spend: Some(_), .. }) {
        if let Phase::Failed { spend, .. } = &mut draft.head_mut().phase {
            *spend = None;
        }
        draft.monitor(MonitorStep::FundingUnspent);
    }
}

/// An output of the spend was taken, by us or by somebody else.
pub(crate) fn on_output_spent(
    draft: &mut Draft<'_>,
    outpoint: OutPoint,
    (kind, value): (ClaimKind, Sat),
    (tx, height): (&Transaction, u32),
) {
    if matches!(draft.head().phase, Phase::Failed { spend: Some(_), .. }) {
        let taken = onchain::taken(kind, value, outpoint, (tx, height));
        draft.monitor(MonitorStep::OutputTaken(outpoint, taken));
    }
}

pub(crate) fn on_outputs_unspent(draft: &mut Draft<'_>, from_height: u32) {
    if matches!(draft.head().phase, Phase::Failed { spend: Some(_), .. }) {
        draft.monitor(MonitorStep::OutputsUntaken { from_height });
    }
}

/// What was taken up to this height stays taken.
pub(crate) fn on_taken_buried(draft: &mut Draft<'_>, height: u32) {
    if matches!(draft.head().phase, Phase::Failed { spend: Some(_), .. }) {
        draft.monitor(MonitorStep::TakenBuried { height });
    }
}

/// The end of a failed channel is as deep as the policy asks, with all that was ours in it; the newest of it stands at this
/// height.
pub(crate) fn on_buried(draft: &mut Draft<'_>, height: u32) {
    if let Phase::Failed { spend: Some((txid, _)), .. } = draft.head().phase {
        let ours = draft.head().local_commitment.to_local;
        close(draft, txid, height, ChannelNote::Closed { txid, height, ours, paid: None });
    }
}
