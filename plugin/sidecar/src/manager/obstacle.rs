//! Why a cooperative close that was begun does not come about. It is nobody's fault where fees do not meet (BOLT 2, "Legacy
//! Closing Negotiation: `closing_signed`"), and money is not put on the chain for that: the operator decides.

use outrigger_bolt::wire::Message;
use outrigger_channel::{Effect, Input, Phase};

use super::drive::Drive;
use super::peer::Slot;
use crate::clock::Clock;
use crate::store::Address;
use crate::store::row::EventRow;

impl Drive<'_> {
    /// Remembers why a cooperative close that was begun does not come about, and tells it once: a peer may repeat it on
    /// every connection.
    pub(super) fn note_obstacle(&mut self, at: Address, slot: &mut Slot, obstacle: Option<String>) {
        if !matches!(slot.channel.phase(), Phase::ShuttingDown { .. }) {
            slot.obstacle = None;
            return;
        }
        let Some(obstacle) = obstacle else { return };
        if slot.obstacle.is_none() {
            self.batch.event(EventRow::close_stuck(Clock::now_unix(), at.peer, at.channel, &in_words(&obstacle)));
        }
        slot.obstacle = Some(obstacle);
    }
}

/// What an operator is told of a cooperative close that does not come about.
pub(super) fn in_words(obstacle: &str) -> String {
    format!(
        "the cooperative close has not come about: {obstacle}. It is tried again on each connection: wait, or end the channel \
         alone with channel.force_close"
    )
}

/// What a peer complains of without ending anything.
pub(super) fn complaint(input: &Input<'_>) -> Option<String> {
    match input {
        Input::Message(Message::Warning(warning)) => Some(format!("the peer warned: {}", warning.data)),
        Input::Message(_) | Input::Connected(_) | Input::Disconnected | Input::Command(..) | Input::Chain(_) => None,
    }
}

/// Why a step ends the connection, where it does.
pub(super) fn ending(effect: &Effect) -> Option<String> {
    if let Effect::Disconnect(reason) = effect { Some(reason.clone()) } else { None }
}
