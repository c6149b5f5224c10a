//! What each effect is at the gate: a promise, a word for one connection, or neither; and what outlives the failure of its channel.

use outrigger_bolt::wire::Message;
use outrigger_channel::{Effect, HtlcOutcome, Publication, Reply};

use crate::store::Address;
use crate::store::batch::Held;

/// Whether an effect binds us to what the rows of its commit say. An enforcement does not, nor does what stays within
/// the node and takes nothing back: a preimage from downstream is told upstream at once, a failure waits for this
/// channel's sinks too. Nor do answers to callers, except that an HTLC was offered: a refusal has no rows, and an order
/// that was taken, such as a close, is safe to lose and to give again.
pub(in crate::store) fn is_promise(effect: &Effect) -> bool {
    match effect {
        Effect::Send(_)
        | Effect::Revoke { .. }
        | Effect::Disconnect(_)
        | Effect::Publish { what: Publication::Funding, .. }
        | Effect::Incoming(_)
        | Effect::Reply(_, Ok(Reply::Added { .. }))
        | Effect::Settle {
            outcome: HtlcOutcome::Failed(_) | HtlcOutcome::NoOutput | HtlcOutcome::NeverCommitted,
            ..
        } => true,
        Effect::Publish { what: Publication::MutualClose, .. }
        | Effect::Settle { outcome: HtlcOutcome::Fulfilled(_), .. }
        | Effect::Reply(_, Ok(Reply::Done) | Err(_))
        | Effect::Restored { .. }
        | Effect::Watch(_)
        | Effect::Removed { .. }
        | Effect::Note(_) => false,
    }
}

/// Whether it is for one connection alone.
pub(super) fn is_word(effect: &Effect) -> bool {
    match effect {
        Effect::Send(_) | Effect::Revoke { .. } | Effect::Disconnect(_) => true,
        Effect::Publish { .. }
        | Effect::Restored { .. }
        | Effect::Watch(_)
        | Effect::Incoming(_)
        | Effect::Settle { .. }
        | Effect::Removed { .. }
        | Effect::Reply(..)
        | Effect::Note(_) => false,
    }
}

pub(super) fn is_word_held(held: &Held) -> bool {
    matches!(held, Held::Channel { effect, .. } if is_word(effect))
}

pub(super) fn is_word_before(held: &Held, connection: u64) -> bool {
    matches!(held, Held::Channel { at, effect, .. } if at.connection < connection && is_word(effect))
}

/// Whether a connection ends with it.
pub(super) fn is_end(held: &Held) -> bool {
    matches!(held, Held::Channel { effect, .. } if matches!(**effect, Effect::Disconnect(_)))
}

/// Whether it still happens once the peer is to be told of an `error` on this connection: no other word does but our numbers on
/// the same one, nor does the chain's answer to a received HTLC come from anywhere but the chain.
pub(super) fn survives_error(held: &Held, connection: u64) -> bool {
    let is_funding = |effect: &Effect| matches!(effect, Effect::Publish { what: Publication::Funding, .. });
    let is_on_it = |at: &Address| at.connection == connection;
    survives_failure(held)
        || matches!(held, Held::Channel { at, effect, .. } if is_funding(effect) || (is_on_it(at) && are_numbers(held)))
}

/// Whether it is our `channel_reestablish`. It promises nothing that the rows of the `error` behind it do not say, and a peer with an
/// old copy of its own learns from it alone that the copy is old: by the `error` it would publish what it has revoked (BAK-1).
pub(super) fn are_numbers(held: &Held) -> bool {
    matches!(held, Held::Channel { effect, .. } if matches!(**effect, Effect::Send(Message::ChannelReestablish(_))))
}

/// Whether it still happens once the channel has failed for want of a sink: words but the `error`, HTLCs that nobody was told of and the funding
/// transaction do not.
pub(super) fn survives_failure(held: &Held) -> bool {
    let Held::Channel { effect, .. } = held else { return true };
    match &**effect {
        Effect::Send(message) => matches!(message, Message::Error(_)),
        Effect::Revoke { .. } | Effect::Incoming(_) | Effect::Publish { what: Publication::Funding, .. } => false,
        Effect::Disconnect(_)
        | Effect::Publish { what: Publication::MutualClose, .. }
        | Effect::Restored { .. }
        | Effect::Watch(_)
        | Effect::Settle { .. }
        | Effect::Removed { .. }
        | Effect::Reply(..)
        | Effect::Note(_) => true,
    }
}
