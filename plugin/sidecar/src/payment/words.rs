//! Failures of HTLCs in words: who failed it, over which channel, with which code, what that means and what to do.

use outrigger_bolt::onion::{Failure, Unwrapped};
use outrigger_channel::{FailReason, Refusal};

use crate::store::part::{PartHop, PartRow};

/// A failure in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Explained {
    /// In snake case: the name of a BOLT 4 failure, or one of ours.
    pub(super) kind: &'static str,
    pub(super) message: String,
    pub(super) verdict: Verdict,
}

/// What a failure says of another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// The peer went away before it was signed: nothing is wrong with the way.
    Unsent,
    /// Other parts were missing: nothing is wrong with the way.
    Incomplete,
    /// It was too much for our own channel at this moment; another may take it, over the same way.
    OutletFull,
    /// Our own channel is of no use; another may be, over the same way.
    OutletUseless,
    /// It was too much for a channel at this moment.
    TooMuch,
    /// The way is of no use.
    NoUse,
    /// No other way is to be tried: the payee does not want the payment, or may have been paid.
    Final,
    /// No other way is to be tried, and what was to be sent is lost to the miners.
    Lost,
}

impl Explained {
    pub(super) const fn new(kind: &'static str, message: String, verdict: Verdict) -> Self {
        Self { kind, message, verdict }
    }

    /// Our own channel did not take the HTLC: nothing was sent.
    pub(super) fn refused(row: &PartRow, refusal: &Refusal) -> Self {
        let is_too_much = matches!(
            refusal,
            Refusal::InsufficientBalance { .. } | Refusal::TooMuchInFlight(_) | Refusal::DustExposure(_)
        );
        let verdict = if is_too_much { Verdict::OutletFull } else { Verdict::OutletUseless };
        Self::new("refused_by_channel", format!("our channel {} refused it: {refusal}", row.channel), verdict)
    }

    /// The peer went away before the HTLC was signed.
    pub(super) fn never_committed(row: &PartRow) -> Self {
        let message = format!("the peer of channel {} disconnected before the payment was signed", row.channel);
        let message = format!("{message}; nothing was paid, and it is safe to pay again");
        Self::new("disconnected", message, Verdict::Unsent)
    }

    /// The channel ended on the chain without an output for the HTLC.
    pub(super) fn no_output(row: &PartRow) -> Self {
        let message = format!(
            "channel {} ended on the chain by a transaction with no output for this payment: either it was not in it yet, \
             and nothing was paid, or it was too small for one, and its amount went to the miners; nobody can take more of \
             ours for it, but a node on the way may have paid the payee with money of its own: ask the payee before you \
             pay again",
            row.channel
        );
        Self::new("ended_on_chain", message, Verdict::Lost)
    }

    /// A node on the way, or the payee, failed it. `read` undoes the layers of an encrypted reason.
    pub(super) fn failed(row: &PartRow, reason: &FailReason, read: impl FnOnce(&[u8]) -> Unwrapped) -> Self {
        match reason {
            FailReason::Malformed { failure_code, .. } => {
                let who = who(&row.route, 0);
                let message = format!("{who} could not read the onion (code {failure_code:#06x})");
                Self::new("invalid_onion", message, Verdict::NoUse)
            }
            FailReason::Encrypted(reason) => match read(reason) {
                Unwrapped::Attributed { hop, failure } => Self::attributed(&row.route, hop, &failure),
                Unwrapped::Unattributable => Self::new("failed", UNREADABLE.to_owned(), Verdict::NoUse),
            },
        }
    }

    fn attributed(route: &[PartHop], hop: usize, failure: &Failure) -> Self {
        let is_payee = hop.saturating_add(1) >= route.len();
        let (name, code, who) = (failure.name(), failure.code(), who(route, hop));
        let message = format!("{who} refused it: {name} (code {code:#06x}): {}", meaning(failure));
        Self::new(name, message, verdict(failure, is_payee))
    }
}

const UNREADABLE: &str = "it was refused on its way without a readable reason, so that nobody can be blamed: pay over another \
    way, or later";

/// What is to be thought of the way.
fn verdict(failure: &Failure, is_payee: bool) -> Verdict {
    if !is_payee {
        let is_too_much = matches!(failure, Failure::TemporaryChannelFailure { .. });
        return if is_too_much { Verdict::TooMuch } else { Verdict::NoUse };
    }
    if matches!(failure, Failure::MppTimeout) {
        Verdict::Incomplete
    } else if matches!(failure, Failure::TemporaryNodeFailure) {
        // It says something of a moment, and nothing of the payment.
        Verdict::NoUse
    } else {
        Verdict::Final
    }
}

/// The node at this place of the way, in words.
fn who(route: &[PartHop], hop: usize) -> String {
    let next = route.get(hop.saturating_add(1));
    match (route.get(hop), next) {
        (Some(PartHop { node, .. }), Some(PartHop { node: to, channel: Some(channel) })) => {
            format!("node {node} on the way, which was to send it over channel {channel} to {to},")
        }
        (Some(PartHop { node, .. }), Some(_)) => format!("node {node} on the way"),
        (Some(PartHop { node, .. }), None) => format!("the payee {node}"),
        (None, _) => "the payee".to_owned(),
    }
}

/// What a failure means, and what to do (BOLT 4, "Failure Messages").
fn meaning(failure: &Failure) -> &'static str {
    match failure {
        Failure::TemporaryNodeFailure => "the node cannot do it at this moment; try again later, or avoid the node",
        Failure::PermanentNodeFailure => "the node does not forward at all; avoid it",
        Failure::RequiredNodeFeatureMissing => "the node wants a feature that the payment has not; avoid it",
        Failure::InvalidOnionVersion { .. } | Failure::InvalidOnionHmac { .. } | Failure::InvalidOnionKey { .. } => {
            "the next node could not read the onion that it was given; avoid the node"
        }
        Failure::TemporaryChannelFailure { .. } => {
            "the channel cannot carry it at this moment; try a smaller amount, another way, or later"
        }
        Failure::PermanentChannelFailure => "the channel is gone; use another way, or ask for a new invoice",
        Failure::RequiredChannelFeatureMissing => "the channel wants a feature that the payment has not; avoid it",
        Failure::UnknownNextPeer => "it knows no such channel; ask the payee for a new invoice, or mend the route",
        Failure::AmountBelowMinimum { .. } => {
            "the amount is below what the channel carries; pay more at once, or another way"
        }
        Failure::FeeInsufficient { .. } => {
            "it wants a higher fee than the route pays; ask for a new invoice, or mend the route"
        }
        Failure::IncorrectCltvExpiry { .. } => {
            "it wants more blocks than the route leaves it; ask for a new invoice, or mend the route"
        }
        Failure::ExpiryTooSoon { .. } => "too few blocks were left when it came there; try again, or mend the route",
        Failure::IncorrectOrUnknownPaymentDetails { .. } => {
            "the payee knows no such payment, has been paid, or wants another amount; ask for a new invoice"
        }
        Failure::FinalIncorrectCltvExpiry { .. } | Failure::FinalIncorrectHtlcAmount { .. } => {
            "what arrived is not what was sent: a node on the way has changed it; use another way"
        }
        Failure::ChannelDisabled { .. } => "the channel is switched off; use another way, or try later",
        Failure::ExpiryTooFar => "the payment would be held for longer than it allows; use a shorter way",
        Failure::InvalidOnionPayload { .. } => "it could not act on what it was told; avoid the node",
        Failure::MppTimeout => "other parts of the payment did not come in time; try again",
        Failure::InvalidOnionBlinding { .. } => "a blinded way failed; ask for a new invoice",
        Failure::Other { .. } => "the code is not known here; use another way, or try later",
    }
}
