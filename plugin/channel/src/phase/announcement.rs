//! `announcement_signatures` (BOLT 7). Channels are not announced yet: the peer's signatures are held to what they must
//! sign, and nothing more.

use outrigger_bolt::wire::{AnnouncedSide, AnnouncementSignatures, Message, Warning};

use crate::draft::Draft;
use crate::input::Context;
use crate::link;
use crate::transition::Effect;
use crate::violation::{Rule, Violation};

/// The peer signs the announcement. It may know the place of the funding output before we do: then it is held.
pub(crate) fn on_signatures(
    draft: &mut Draft<'_>,
    message: &AnnouncementSignatures,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    if !draft.params().announce {
        return Ok(());
    }
    if draft.head().short_channel_id.is_none() {
        draft.hold_announcement(message.clone());
        return Ok(());
    }
    if are_right(draft, message, cx) { Ok(()) } else { Err(Violation::Warn(Rule::AnnouncementSignatures)) }
}

/// The funding output has its place: what was held is looked at now. What the block brought stays, whatever it says.
pub(super) fn check_held(draft: &mut Draft<'_>, cx: &Context<'_>) {
    let Some(held) = draft.early_announcement().cloned() else { return };
    if are_right(draft, &held, cx) {
        return;
    }
    let (channel_id, text) = (draft.channel_id(), Rule::AnnouncementSignatures.to_string());
    draft.send(Message::Warning(Warning { channel_id, data: text.as_str().into() }));
    draft.effect(Effect::Disconnect(text));
    link::on_disconnected(draft);
}

fn are_right(draft: &Draft<'_>, message: &AnnouncementSignatures, cx: &Context<'_>) -> bool {
    let params = draft.params();
    let ours = AnnouncedSide { node_id: cx.node_id, funding_pubkey: params.local.basepoints.funding_pubkey };
    let theirs = AnnouncedSide { node_id: params.peer, funding_pubkey: params.remote.basepoints.funding_pubkey };
    draft.head().short_channel_id == Some(message.short_channel_id)
        && message.are_by(&theirs, &ours, cx.policy.chain_hash)
}
