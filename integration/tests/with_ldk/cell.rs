//! One cell of the matrix: what happens in it, and its name.

use std::fmt;

use outrigger_integration::proxy::Way;

use crate::meeting::Side;

/// What happens in one cell. Its name repeats it alone: `MATRIX_CELL=NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) opener: Side,
    pub(crate) act: Act,
    pub(crate) blow: Blow,
}

/// What is under way when the blow falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A payment, after which the channel goes on.
    Pay(Payment),
    /// A payment, and while its HTLC is at that point somebody closes the channel.
    PayAndClose { payment: Payment, closer: Side },
    /// The end of an idle channel.
    Close { closer: Side, point: ClosingPoint },
}

/// A payment, and the message that is lost or late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) payer: Side,
    pub(crate) ending: Ending,
    pub(crate) point: Point,
    pub(crate) fees: Fees,
}

/// What fees do while the HTLC is at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fees {
    Steady,
    /// The opener asks for another feerate (BOLT 2, `update_fee`).
    Move,
}

/// How the receiver removes the HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Fulfil,
    Fail,
}

/// What befalls the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// What was held arrives late.
    Delay,
    Cut,
    KillSidecar,
    RestartLdk,
}

/// Where in the life of an HTLC the wire is held. In the order of BOLT 2, "Normal Operation", each is the first message
/// that does not arrive; "back" is what the receiver of the payment sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Add,
    AddSignature,
    BackRevocation,
    BackSignature,
    Revocation,
    BackRemoval,
    BackRemovalSignature,
    RemovalRevocation,
    RemovalSignature,
    BackLastRevocation,
}

/// Where in the end of an idle channel the wire is held. "Back" is what the node sends that did not begin the close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosingPoint {
    Shutdown,
    BackShutdown,
    Offer,
    BackOffer,
    SecondOffer,
    BackSecondOffer,
}

/// Where the wire is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) way: Way,
    /// So many bytes still pass.
    pub(crate) pass: usize,
    /// So many then wait: all that can be sent while they do. A message that nobody expects, such as a `ping`, shifts them.
    pub(crate) held: usize,
}

/// What encryption adds to a message (BOLT 8): its length and two authentication codes.
const FRAME: usize = 2 + 16 + 16;
/// `update_add_htlc` on the wire, without TLVs.
const ADD: usize = FRAME + 2 + 32 + 8 + 8 + 32 + 4 + 1366;
/// `commitment_signed` on the wire, without HTLCs. Both name the funding transaction in it.
const SIGNATURE: usize = FRAME + 2 + 32 + 64 + 2 + 2 + 32;
/// What each HTLC with an output adds to it.
const HTLC_SIGNATURE: usize = 64;
/// `revoke_and_ack` on the wire.
const REVOCATION: usize = FRAME + 2 + 32 + 32 + 33;
/// `update_fee` on the wire.
pub(crate) const UPDATE_FEE: u64 = FRAME as u64 + 2 + 32 + 4;
/// `shutdown` on the wire, to a script of 22 bytes.
const SHUTDOWN: usize = FRAME + 2 + 32 + 2 + 22;
/// `closing_signed` on the wire, with its range of fees.
const OFFER: usize = FRAME + 2 + 32 + 8 + 64 + 18;

/// The message that removes the HTLC, on the wire. LDK adds how long it held the HTLC (`attribution_data`).
const fn removal(ending: Ending, by: Side) -> usize {
    let plain = match ending {
        Ending::Fulfil => FRAME + 2 + 32 + 8 + 32,
        Ending::Fail => FRAME + 2 + 32 + 8 + 2 + 292,
    };
    match by {
        Side::Sidecar => plain,
        Side::Ldk => plain + 1 + 3 + 920,
    }
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Sidecar, Self::Ldk];

    /// The way of what this node sends: the daemon dials.
    pub(crate) fn way(self) -> Way {
        match self {
            Self::Sidecar => Way::Out,
            Self::Ldk => Way::Back,
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Sidecar => Self::Ldk,
            Self::Ldk => Self::Sidecar,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Ldk => "ldk",
        }
    }
}

impl Ending {
    pub(crate) const BOTH: [Self; 2] = [Self::Fulfil, Self::Fail];

    fn name(self) -> &'static str {
        match self {
            Self::Fulfil => "fulfil",
            Self::Fail => "fail",
        }
    }
}

impl Fees {
    pub(crate) const BOTH: [Self; 2] = [Self::Steady, Self::Move];

    fn name(self) -> &'static str {
        match self {
            Self::Steady => "fees_steady",
            Self::Move => "fees_move",
        }
    }
}

impl Blow {
    pub(crate) const ALL: [Self; 4] = [Self::Delay, Self::Cut, Self::KillSidecar, Self::RestartLdk];

    fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Cut => "cut",
            Self::KillSidecar => "kill_sidecar",
            Self::RestartLdk => "restart_ldk",
        }
    }
}

impl Point {
    pub(crate) const ALL: [Self; 10] = [
        Self::Add,
        Self::AddSignature,
        Self::BackRevocation,
        Self::BackSignature,
        Self::Revocation,
        Self::BackRemoval,
        Self::BackRemovalSignature,
        Self::RemovalRevocation,
        Self::RemovalSignature,
        Self::BackLastRevocation,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::AddSignature => "add_signature",
            Self::BackRevocation => "back_revocation",
            Self::BackSignature => "back_signature",
            Self::Revocation => "revocation",
            Self::BackRemoval => "back_removal",
            Self::BackRemovalSignature => "back_removal_signature",
            Self::RemovalRevocation => "removal_revocation",
            Self::RemovalSignature => "removal_signature",
            Self::BackLastRevocation => "back_last_revocation",
        }
    }
}

impl Payment {
    /// Where the wire is held for it.
    pub(crate) fn hold(self) -> Hold {
        let (payer, payee) = (self.payer, self.payer.other());
        // What each sends in all, message by message.
        let there = [ADD, SIGNATURE + HTLC_SIGNATURE, REVOCATION, REVOCATION, SIGNATURE];
        let back = [REVOCATION, SIGNATURE + HTLC_SIGNATURE, removal(self.ending, payee), SIGNATURE, REVOCATION];
        // The one that is held, and how many go with it before the other's silence ends the talk.
        let (way, messages, at, count) = match self.point {
            Point::Add => (payer.way(), there, 0, 2),
            Point::AddSignature => (payer.way(), there, 1, 1),
            Point::BackRevocation => (payee.way(), back, 0, 2),
            Point::BackSignature => (payee.way(), back, 1, 1),
            Point::Revocation => (payer.way(), there, 2, 1),
            Point::BackRemoval => (payee.way(), back, 2, 2),
            Point::BackRemovalSignature => (payee.way(), back, 3, 1),
            Point::RemovalRevocation => (payer.way(), there, 3, 2),
            Point::RemovalSignature => (payer.way(), there, 4, 1),
            Point::BackLastRevocation => (payee.way(), back, 4, 1),
        };
        let pass = messages.iter().take(at).sum();
        let held = messages.iter().skip(at).take(count).sum();
        Hold { way, pass, held }
    }

    fn name(self) -> String {
        let fees = match self.fees {
            Fees::Steady => "",
            Fees::Move => "-fees_move",
        };
        format!("{}_pays-{}-{}{fees}", self.payer.name(), self.ending.name(), self.point.name())
    }
}

impl ClosingPoint {
    pub(crate) const ALL: [Self; 6] =
        [Self::Shutdown, Self::BackShutdown, Self::Offer, Self::BackOffer, Self::SecondOffer, Self::BackSecondOffer];

    /// Where the wire is held for it, when `closer` begins. Once both have sent `shutdown`, the opener offers a fee.
    pub(crate) fn hold(self, closer: Side, opener: Side) -> Hold {
        let (there, back) = (closer.way(), closer.other().way());
        let (way, pass, held) = match self {
            Self::Shutdown => (there, 0, SHUTDOWN),
            Self::BackShutdown if closer == opener => (back, 0, SHUTDOWN),
            Self::BackShutdown => (back, 0, SHUTDOWN + OFFER),
            Self::Offer => (there, SHUTDOWN, OFFER),
            Self::BackOffer => (back, SHUTDOWN, OFFER),
            Self::SecondOffer => (there, SHUTDOWN + OFFER, OFFER),
            Self::BackSecondOffer => (back, SHUTDOWN + OFFER, OFFER),
        };
        Hold { way, pass, held }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::BackShutdown => "back_shutdown",
            Self::Offer => "offer",
            Self::BackOffer => "back_offer",
            Self::SecondOffer => "second_offer",
            Self::BackSecondOffer => "back_second_offer",
        }
    }
}

impl Cell {
    /// Whether LDK 0.2.7 cannot do it.
    pub(crate) fn is_beyond_ldk(self) -> bool {
        self.blow == Blow::RestartLdk && (self.is_forgotten_htlc() || self.is_forgotten_close())
    }

    /// As the opener LDK has both signatures by then. Started again, it fails the channel that it closed: its commitment
    /// goes out, and its close may not.
    fn is_forgotten_close(self) -> bool {
        let Act::Close { point, .. } = self.act else { return false };
        self.opener == Side::Ldk && matches!(point, ClosingPoint::SecondOffer | ClosingPoint::BackSecondOffer)
    }

    /// LDK starts with an HTLC to itself that it has not looked at yet, in a channel that it
    /// knows to be shutting down, and forgets it: the alias by which it would find the channel is mapped at its start for
    /// channels alone that are not. The HTLC stays until its expiry, whatever the peer does.
    fn is_forgotten_htlc(self) -> bool {
        let Act::PayAndClose { payment: Payment { payer: Side::Sidecar, point, .. }, closer } = self.act else {
            return false;
        };
        match point {
            // What is held is the daemon's, its `shutdown` included.
            Point::Add | Point::AddSignature | Point::Revocation => closer == Side::Ldk,
            Point::BackRevocation | Point::BackSignature => true,
            Point::BackRemoval
            | Point::BackRemovalSignature
            | Point::RemovalRevocation
            | Point::RemovalSignature
            | Point::BackLastRevocation => false,
        }
    }

    /// Whether it takes a minute: LDK looks at its feerate no more often.
    pub(crate) fn is_slow(self) -> bool {
        let fees = match self.act {
            Act::Pay(payment) | Act::PayAndClose { payment, .. } => payment.fees,
            Act::Close { .. } => Fees::Steady,
        };
        (self.opener, fees) == (Side::Ldk, Fees::Move)
    }

    /// The cell in each dimension: two cells are alike in one where their values there are the same text.
    pub(crate) fn dimensions(self) -> Vec<String> {
        let mut values = vec![format!("{}_opens", self.opener.name()), self.blow.name().to_owned()];
        let payment = |payment: Payment| {
            let [ending, point] = [payment.ending.name(), payment.point.name()].map(str::to_owned);
            [format!("{}_pays", payment.payer.name()), ending, point, payment.fees.name().to_owned()]
        };
        match self.act {
            Act::Pay(paid) => values.extend(payment(paid)),
            Act::PayAndClose { payment: paid, closer } => {
                values.extend(payment(paid));
                values.push(format!("{}_closes", closer.name()));
            }
            Act::Close { closer, point } => {
                values.extend([format!("{}_closes", closer.name()), point.name().to_owned()]);
            }
        }
        values
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_opens-", self.opener.name())?;
        match self.act {
            Act::Pay(payment) => write!(f, "{}", payment.name())?,
            Act::PayAndClose { payment, closer } => write!(f, "{}-{}_closes", payment.name(), closer.name())?,
            Act::Close { closer, point } => write!(f, "{}_closes-{}", closer.name(), point.name())?,
        }
        write!(f, "-{}", self.blow.name())
    }
}
