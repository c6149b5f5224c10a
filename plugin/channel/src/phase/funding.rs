//! From the signed funding transaction to `channel_ready` on both sides (BOLT 2, "The `channel_ready` Message").

use bitcoin::Transaction;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::features::Feature;
use outrigger_bolt::id::ShortChannelId;
use outrigger_bolt::wire::{ChannelReady, Message};

use crate::changes::{ChannelHead, ChannelParams, FundingTold, Phase};
use crate::draft::Draft;
use crate::input::Context;
use crate::link::Link;
use crate::phase::ended::{self, error_message};
use crate::phase::{announcement, shutdown};
use crate::transition::{ChannelNote, Effect, Watch};
use crate::violation::{Rule, Violation};

/// Confirmations before an output of a coinbase can be spent (consensus; FND-4).
const COINBASE_MATURITY: u32 = 100;

/// Blocks after which a funding transaction that was not seen is given up (BOLT 2, `channel_ready`; FND-6).
const FUNDING_TIMEOUT: u32 = 2016;

/// Blocks after which the operator is told that a funding transaction of ours is not confirmed: a day.
const FUNDING_STUCK: u32 = 144;

/// The height at which the funding output is deep enough, once it is in a block.
pub(crate) fn ready_height(head: &ChannelHead, params: &ChannelParams) -> Option<u32> {
    let height = head.funding_height?;
    let is_coinbase = head.short_channel_id.is_some_and(|scid| scid.tx_index() == 0);
    let maturity = if is_coinbase { COINBASE_MATURITY } else { 1 };
    Some(height.saturating_add(params.minimum_depth.max(maturity)).saturating_sub(1))
}

/// The height at which an accepter forgets a channel whose funding transaction never came, failed or not. The opener never
/// does: it may have published it.
pub(crate) fn forgotten_height(head: &ChannelHead, params: &ChannelParams) -> Option<u32> {
    let never_came = match head.phase {
        Phase::Funding(_) => head.funding_height.is_none(),
        Phase::Failed { spend: None, .. } => head.short_channel_id.is_none(),
        Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closing { .. }
        | Phase::Closed { .. }
        | Phase::Failed { spend: Some(_), .. } => false,
    };
    (never_came && !params.is_opener).then(|| params.opened_height.saturating_add(FUNDING_TIMEOUT))
}

/// The height at which a funding transaction of ours that was not seen is told to the operator, who alone can make room
/// for it. The channel is kept: what we published binds us.
pub(crate) fn stuck_height(head: &ChannelHead, params: &ChannelParams) -> Option<u32> {
    let waiting = params.is_opener && head.funding_height.is_none() && matches!(head.phase, Phase::Funding(_));
    let is_news = !head.channel_ready_sent && !head.told.stuck;
    (waiting && is_news).then(|| params.opened_height.saturating_add(FUNDING_STUCK))
}

/// Whether the channel is only a promise of the peer's: not in a block, and with nothing for us in it.
pub(crate) fn nothing_at_stake(head: &ChannelHead, params: &ChannelParams) -> bool {
    forgotten_height(head, params).is_some() && params.push == Msat::ZERO
}

/// Confirmations that are missing at this height.
pub(crate) fn confirmations_needed(head: &ChannelHead, params: &ChannelParams, height: u32) -> u32 {
    if head.channel_ready_sent {
        return 0;
    }
    ready_height(head, params).map_or(params.minimum_depth, |ready| ready.saturating_sub(height))
}

/// The funding transaction stands in a block. It is held to what was agreed, each time it is seen there (FND-1).
pub(crate) fn on_confirmed(
    draft: &mut Draft<'_>,
    (height, tx_index): (u32, u32),
    tx: &Transaction,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    if !found(draft, (height, tx_index), tx) {
        return Ok(());
    }
    if let Some(ready) = ready_height(draft.head(), draft.params()).filter(|ready| *ready > cx.height) {
        draft.effect(Effect::Watch(Watch::Height(ready)));
    }
    announcement::check_held(draft, cx);
    on_height(draft, cx)
}

/// Takes down where the funding transaction stands, of a failed channel too: only then is there anything to publish for, and what a
/// peer has pushed becomes ours. False where it is another, or is not what was agreed on, and then there never was a channel.
pub(crate) fn found(draft: &mut Draft<'_>, (height, tx_index): (u32, u32), tx: &Transaction) -> bool {
    let params = draft.params();
    if tx.compute_txid() != params.funding.txid {
        return false;
    }
    match check_funding(params, tx, (height, tx_index)) {
        Ok(scid) => {
            if (draft.head().funding_height, draft.head().short_channel_id) != (Some(height), Some(scid)) {
                let head = draft.head_mut();
                head.funding_height = Some(height);
                head.short_channel_id = Some(scid);
            }
            if !is_told(draft.head(), params) {
                draft.head_mut().told.pending = true;
                draft.effect(Effect::Note(ChannelNote::pending(params)));
            }
            true
        }
        Err(reason) => {
            mismatched(draft, height, reason);
            false
        }
    }
}

/// Exact script, exact amount, exact place (BOLT 2: no `channel_ready` for anything else).
fn check_funding(
    params: &ChannelParams,
    tx: &Transaction,
    (height, tx_index): (u32, u32),
) -> Result<ShortChannelId, String> {
    let vout = params.funding.vout;
    let index = usize::try_from(vout).map_err(|_| format!("there is no output {vout}"))?;
    let output = tx.output.get(index).ok_or_else(|| format!("there is no output {vout}"))?;
    if output.script_pubkey != params.funding_output().script_pubkey() {
        return Err(format!("output {vout} has another script than the 2-of-2 of this channel"));
    }
    if output.value != bitcoin::Amount::from(params.capacity) {
        return Err(format!("output {vout} is worth {} and not {}", output.value, params.capacity));
    }
    ShortChannelId::new(height, tx_index, vout).ok_or_else(|| "its place in the chain has no short id".to_owned())
}

/// Whether the operator was told that the channel waits for confirmations, and what of it is ours.
fn is_told(head: &ChannelHead, params: &ChannelParams) -> bool {
    // What we open is told with its signature, and what a peer opens before our `channel_ready`.
    params.is_opener || head.channel_ready_sent || head.told.pending
}

/// There is no channel behind the funding outpoint. Nothing of ours is in it: what was told to be is taken back.
pub(crate) fn forget(draft: &mut Draft<'_>, height: u32, text: &str) {
    let (head, params) = (draft.head(), draft.params());
    let told = if is_told(head, params) {
        Some(ChannelNote::ours_at_first(params))
    } else {
        matches!(head.phase, Phase::Failed { .. }).then_some(Msat::ZERO)
    };
    let note = ChannelNote::NeverFunded { txid: params.funding.txid, told, reason: text.to_owned() };
    let message = error_message(draft.channel_id(), text);
    let txid = draft.params().funding.txid;
    draft.reset_volatile();
    draft.send(message);
    ended::close(draft, txid, height, note);
}

/// What the peer named as the funding output, and was never seen in a block, is spent there without a signature of ours: it
/// is some other output, older than the channel. Such a spend says nothing of our rows, whatever number it bears.
pub(super) fn never_was(draft: &mut Draft<'_>, height: u32) {
    mismatched(
        draft,
        height,
        "its output was spent without our signature, so it never was one of this channel".to_owned(),
    );
}

/// The funding output is not what was agreed on (FND-1).
fn mismatched(draft: &mut Draft<'_>, height: u32, reason: String) {
    let text = Rule::FundingMismatch(reason.clone()).to_string();
    draft.effect(Effect::Note(ChannelNote::FundingMismatch { reason }));
    forget(draft, height, &text);
}

/// The block with the funding transaction is gone. Before `channel_ready` we wait anew; after it our word stands.
pub(crate) fn on_unconfirmed(draft: &mut Draft<'_>) {
    let head = draft.head_mut();
    head.funding_height = None;
    if !head.channel_ready_sent {
        head.short_channel_id = None;
    }
    if let Some(height) = forgotten_height(draft.head(), draft.params()) {
        draft.effect(Effect::Watch(Watch::Height(height)));
    }
}

/// `channel_ready` is due as soon as the funding transaction is deep enough, connected or not.
pub(crate) fn on_height(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    if forget_in_time(draft, cx) {
        return Ok(());
    }
    let head = draft.head();
    if stuck_height(head, draft.params()).is_some_and(|stuck| cx.height >= stuck) {
        let note = ChannelNote::FundingStuck { txid: draft.params().funding.txid, blocks: FUNDING_STUCK };
        draft.head_mut().told.stuck = true;
        draft.effect(Effect::Note(note));
        return Ok(());
    }
    let deep = ready_height(head, draft.params()).is_some_and(|ready| cx.height >= ready);
    if !deep || head.channel_ready_sent {
        return Ok(());
    }
    let head = draft.head_mut();
    (head.channel_ready_sent, head.told) = (true, FundingTold::default());
    if matches!(draft.link(), Link::Connected(_)) {
        send_channel_ready(draft, cx);
    }
    become_normal(draft, cx)
}

/// Forgets the channel where its funding transaction never came (BOLT 2, `channel_ready`; FND-6).
pub(crate) fn forget_in_time(draft: &mut Draft<'_>, cx: &Context<'_>) -> bool {
    let due = forgotten_height(draft.head(), draft.params()).is_some_and(|height| cx.height >= height);
    if due {
        forget(draft, cx.height, "the funding transaction never came");
    }
    due
}

/// Also sent again on every reconnection before the first update (BOLT 2, "Message Retransmission").
pub(crate) fn send_channel_ready(draft: &mut Draft<'_>, cx: &Context<'_>) {
    let channel_id = draft.channel_id();
    let second_per_commitment_point = cx.signer.per_commitment_point(1);
    // BOLT 2: the alias is sent where `option_scid_alias` is negotiated, the same each time.
    let offered = draft.link().features().is_some_and(|features| features.supports(Feature::SCID_ALIAS));
    let short_channel_id = offered.then_some(draft.params().scid_alias);
    draft.send(Message::ChannelReady(ChannelReady { channel_id, second_per_commitment_point, short_channel_id }));
}

/// The peer's `channel_ready` may come before ours is due: it is remembered. A repeated one may bring a new alias; else
/// it is ignored (BOLT 2).
pub(crate) fn on_channel_ready(
    draft: &mut Draft<'_>,
    message: &ChannelReady,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    if message.short_channel_id.is_some() && draft.head().remote_scid_alias != message.short_channel_id {
        draft.head_mut().remote_scid_alias = message.short_channel_id;
    }
    if draft.head().channel_ready_received {
        return Ok(());
    }
    let head = draft.head_mut();
    head.channel_ready_received = true;
    head.remote_next_point = Some(message.second_per_commitment_point);
    become_normal(draft, cx)
}

fn become_normal(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    let head = draft.head();
    let ready = head.channel_ready_sent && head.channel_ready_received;
    if let (true, Phase::Funding(_), Some(short_channel_id)) = (ready, &head.phase, head.short_channel_id) {
        draft.set_phase(Phase::Normal);
        draft.effect(Effect::Note(ChannelNote::Ready { short_channel_id }));
        return shutdown::on_ready(draft, cx);
    }
    Ok(())
}
