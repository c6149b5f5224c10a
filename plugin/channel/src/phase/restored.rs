//! Restored mode: the node's rows are older than what it once told its peers. One proof on any channel is enough, since
//! all rows are of one file; from then on the whole node signs nothing, publishes no local commitment, and asks its peers
//! to close (BOLT 2, "Message Retransmission"; BAK-1, BAK-2, BAK-7).

use bitcoin::Transaction;

use super::ended;
use crate::changes::{MonitorStep, Phase};
use crate::draft::Draft;
use crate::input::{Context, Input};
use crate::link;
use crate::monitor::onchain;
use crate::transition::Effect;
use crate::violation::Rule;

/// What restored mode makes of a channel before anything else happens to it: whatever is open fails without publishing,
/// and what had failed before no longer publishes. A mutual close that both have signed stands, for nothing follows it.
pub(crate) fn enter(draft: &mut Draft<'_>, cx: &Context<'_>) {
    if !cx.restored {
        return;
    }
    match draft.head().phase {
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } => {
            draft.fail(Rule::Restored.to_string(), false);
            ended::send_reason(draft);
            link::on_disconnected(draft);
        }
        Phase::Failed { publish: true, .. } | Phase::Failed { reserved: true, .. } => withhold(draft),
        Phase::Failed { publish: false, reserved: false, .. } | Phase::Closing { .. } | Phase::Closed { .. } => {}
    }
}

/// Whether a channel under restored mode has nothing to do with this input. A close that is under way is neither agreed on
/// again nor changed: each of its messages would need a signature.
pub(crate) fn ignores(draft: &Draft<'_>, input: &Input<'_>, cx: &Context<'_>) -> bool {
    let talk = matches!(input, Input::Connected(_) | Input::Message(_));
    cx.restored && talk && matches!(draft.head().phase, Phase::Closing { .. })
}

/// The peer, or the chain, knows of a newer state of this channel than our rows do.
pub(crate) fn proved(draft: &mut Draft<'_>, proof: String) {
    withhold(draft);
    draft.effect(Effect::Restored { proof });
}

/// How a spend of the funding output proves that our rows are old, if it does. Both sides have signed it: a commitment with
/// a number that no commitment of our rows has reached (CST-1), or a close of which they know nothing.
pub(super) fn proof_in(draft: &Draft<'_>, tx: &Transaction) -> Option<String> {
    let (params, head) = (draft.params(), draft.head());
    let (channel_id, txid) = (draft.channel_id(), tx.compute_txid());
    let newest = head.local_number.max(head.remote_number);
    match onchain::number_of(params, tx) {
        Some(number) if number <= newest => None,
        Some(number) => Some(format!(
            "commitment {number} of channel {channel_id} is in the chain as {txid}; the newest that this file knows is {newest}"
        )),
        None if may_have_signed_close(draft) => None,
        None => Some(format!(
            "a cooperative close of channel {channel_id} is in the chain as {txid}; this file knows of none that was signed"
        )),
    }
}

/// Whether our rows allow for a signature of ours for a close.
fn may_have_signed_close(draft: &Draft<'_>) -> bool {
    let head = draft.head();
    match head.phase {
        Phase::Funding(_) | Phase::Normal => false,
        Phase::ShuttingDown { signed, .. } => signed,
        Phase::Closing { .. } | Phase::Closed { .. } => true,
        // BOLT 2: a close is signed after both have said `shutdown`, and with no HTLC left.
        Phase::Failed { .. } => {
            head.local_shutdown.is_some() && head.remote_shutdown.is_some() && draft.htlcs().is_empty()
        }
    }
}

/// Our newest commitment may be revoked: a channel that had failed before does not publish it any more.
fn withhold(draft: &mut Draft<'_>) {
    if !matches!(draft.head().phase, Phase::Failed { publish: true, .. } | Phase::Failed { reserved: true, .. }) {
        return;
    }
    if let Phase::Failed { publish, reserved, .. } = &mut draft.head_mut().phase {
        (*publish, *reserved) = (false, false);
    }
    draft.monitor(MonitorStep::Failed { publish: false });
}
