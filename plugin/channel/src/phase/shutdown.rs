//! The cooperative close: `shutdown`, `closing_signed`, and the phases Closing and Closed (BOLT 2, "Channel Close").

use bitcoin::{ScriptBuf, Transaction};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_bolt::wire::{ClosingSigned, Shutdown};

use crate::draft::Draft;
use crate::input::Context;
use crate::transition::Watch;
use crate::violation::{Refusal, Rule, Violation};

/// Where the negotiation of the closing fee stands on this connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negotiation {}

pub(crate) fn on_shutdown(_: &mut Draft<'_>, _: &Shutdown, _: &Context<'_>) -> Result<(), Violation> {
    Err(Violation::Warn(Rule::UnexpectedMessage("shutdown")))
}

pub(crate) fn on_closing_signed(_: &mut Draft<'_>, _: &ClosingSigned, _: &Context<'_>) -> Result<(), Violation> {
    Err(Violation::Warn(Rule::UnexpectedMessage("closing_signed")))
}

pub(crate) fn command_shutdown(_: &mut Draft<'_>, _: &ScriptBuf, _: FeeratePerKw, _: &Context<'_>) -> Result<(), Refusal> {
    Err(Refusal::NotReady)
}

/// Channel_reestablish is done both ways, in phase ShuttingDown or Closing: what must be said again is sent here.
pub(crate) fn on_connected_closing(_: &mut Draft<'_>, _: &Context<'_>) -> Result<(), Violation> {
    Ok(())
}

/// Called after each `commitment_signed` or `revoke_and_ack`, and after Command::Commit, in phase ShuttingDown: a
/// shutdown that waited for pending updates goes out, and the negotiation begins once no HTLC is left.
pub(crate) fn advance(_: &mut Draft<'_>, _: &Context<'_>) -> Result<(), Violation> {
    Ok(())
}

/// A transaction at this height spends the funding output; in any phase but Failed.
pub(crate) fn on_funding_spent(_: &mut Draft<'_>, _: u32, _: &Transaction, _: &Context<'_>) {}

pub(crate) fn on_funding_spend_unconfirmed(_: &mut Draft<'_>, _: &Context<'_>) {}

/// A height came that the phase Closing may have asked for.
pub(crate) fn on_height(_: &mut Draft<'_>, _: u32, _: &Context<'_>) {}

/// What the phase Closing waits for in the chain, besides the funding output.
pub(crate) fn watches(_: &crate::changes::ChannelHead, _: u32) -> Vec<Watch> {
    Vec::new()
}
