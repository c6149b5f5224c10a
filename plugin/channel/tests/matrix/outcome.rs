//! What a message comes to, told from what was said and what changed.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

use std::fmt;

use outrigger_bolt::wire::Message;
use outrigger_channel::{ChannelRows, Context, Effect, Link, OpeningInput, OpeningStep, Phase};

use crate::duo::{self, Duo, Who, context, policy, signer};
use crate::messages::Opened;

/// What a message comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is as it was not before, and nothing is said.
    Ignored,
    /// It was good, and the conversation goes on.
    Accepted,
    /// A `warning`, and the connection ends.
    Warned,
    /// The connection ends, and the channel lives.
    Dropped,
    /// The channel fails; the peer is told why, unless it said so itself.
    Failed,
    /// The channel is over, and the peer is told so once more.
    Told,
    /// There never was a channel: it is forgotten.
    Forgotten,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignored => ".",
            Self::Accepted => "a",
            Self::Warned => "W",
            Self::Dropped => "X",
            Self::Failed => "E",
            Self::Told => "t",
            Self::Forgotten => "-",
        })
    }
}

/// Hands the message over and says what it came to. What refuses it moves no row.
pub fn hand_over(duo: &mut Duo, victim: Who, message: &Message) -> Outcome {
    duo.side_mut(victim).outbox.clear();
    duo.take_effects(victim);
    let before = duo.side(victim).channel.clone();
    duo.message(victim, message);
    let (sent, effects) = (duo.side(victim).outbox.clone(), duo.take_effects(victim));
    let after = &duo.side(victim).channel;
    let said = |wanted: &str| sent.iter().any(|message| message.name() == wanted);
    let dropped = effects.iter().any(|effect| matches!(effect, Effect::Disconnect(_)));
    let phase_name = |phase: &Phase| std::mem::discriminant(phase);
    let is_new = phase_name(before.phase()) != phase_name(after.phase());
    match after.phase() {
        Phase::Failed { .. } if is_new => {
            let told_us = matches!(message, Message::Error(_)) && !duo.side(victim).restored;
            assert!(said("error") != told_us, "the peer is told, unless it told us");
            assert_eq!(*after.link(), Link::Disconnected);
            return Outcome::Failed;
        }
        Phase::Closed { .. } if is_new => return Outcome::Forgotten,
        Phase::Funding(_)
        | Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closing { .. }
        | Phase::Closed { .. }
        | Phase::Failed { .. } => {}
    }
    let same = same_but_for_preimages(before.rows(), after.rows());
    match (said("warning"), dropped) {
        (warned, true) => {
            assert!(same, "a refusal moves no row");
            assert_eq!(*after.link(), Link::Disconnected, "a refusal ends the connection");
            if warned { Outcome::Warned } else { Outcome::Dropped }
        }
        (true, false) => panic!("a warning without an end of the connection"),
        (false, false) if same && said("error") => Outcome::Told,
        (false, false) if before == *after && sent.is_empty() && effects.is_empty() => Outcome::Ignored,
        (false, false) => Outcome::Accepted,
    }
}

/// Whether the rows are the same; a preimage that came with a refused message may have reached the monitor.
fn same_but_for_preimages(before: &ChannelRows, after: &ChannelRows) -> bool {
    let mut before = before.clone();
    before.head.monitor_update_id = after.head.monitor_update_id;
    before == *after
}

/// Hands a message to an opening. `Gone` with an `error` is a failure, with a `warning` only the opening's end.
pub fn hand_to_opening(opened: &mut Opened, message: &Message, restored: bool) -> Outcome {
    let (policy, signer) = (policy(), signer(opened.victim));
    let cx = Context { restored, ..context(500, &policy, &signer) };
    let step = opened.opening.step(OpeningInput::Message(message), &cx);
    let ends = |effects: &[Effect], name: &str| duo::sent(effects).iter().any(|message| message.name() == name);
    match step {
        OpeningStep::Wait(effects) if effects.is_empty() => Outcome::Ignored,
        OpeningStep::Wait(effects) if ends(&effects, "warning") => Outcome::Warned,
        OpeningStep::Wait(_) | OpeningStep::Fund { .. } | OpeningStep::Renamed(..) | OpeningStep::Born(_) => {
            Outcome::Accepted
        }
        OpeningStep::Gone { effects, .. } if ends(&effects, "warning") => Outcome::Warned,
        OpeningStep::Gone { effects, .. } if ends(&effects, "error") => Outcome::Failed,
        OpeningStep::Gone { .. } => Outcome::Forgotten,
    }
}
