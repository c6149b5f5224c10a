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
        Phase::Failed { publish: true, .. } => withhold(draft),
        Phase::Failed { publish: false, .. } | Phase::Closing { .. } | Phase::Closed { .. } => {}
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

/// A commitment with a number that no commitment of our rows has reached: both sides signed it, so our rows are old (CST-1).
/// Under restored mode that is known already, and told once.
pub(crate) fn on_spend(draft: &mut Draft<'_>, tx: &Transaction, cx: &Context<'_>) {
    if cx.restored {
        return;
    }
    let (params, head) = (draft.params(), draft.head());
    let newest = head.local_number.max(head.remote_number);
    if let Some(number) = onchain::number_of(params, tx).filter(|number| *number > newest) {
        let (channel_id, txid) = (draft.channel_id(), tx.compute_txid());
        let proof = format!(
            "commitment {number} of channel {channel_id} is in the chain as {txid}; the newest that this file knows is {newest}"
        );
        proved(draft, proof);
    }
}

/// Our newest commitment may be revoked: a channel that had failed before does not publish it any more.
fn withhold(draft: &mut Draft<'_>) {
    if !matches!(draft.head().phase, Phase::Failed { publish: true, .. }) {
        return;
    }
    if let Phase::Failed { publish, .. } = &mut draft.head_mut().phase {
        *publish = false;
    }
    draft.monitor(MonitorStep::Failed { publish: false });
}
