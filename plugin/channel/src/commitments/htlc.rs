//! The life of an HTLC as a table (BOLT 2, "Normal Operation").

/// Who offered an HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offerer {
    Local,
    Remote,
}

/// An HTLC's identity in its channel: never its hash or amount (FWD-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcKey {
    pub offerer: Offerer,
    pub id: u64,
}

/// How far an update that one side sent has come, told from the side that sent it. An add walks through all five; so
/// does the removal, sent by the side that did not offer. The first and the last are in no row: the first goes with the
/// connection, and after the last an add is settled in place and a removed HTLC has no row.
///
/// | stage | sender's message order | in receiver's commitment | in sender's commitment |
/// |---|---|---|---|
/// | `Proposed` | `update_*` sent | no | no |
/// | `Signed` | covered by sender's `commitment_signed` | newest | no |
/// | `Revoked` | receiver's `revoke_and_ack` | yes | due |
/// | `Acknowledged` | covered by receiver's `commitment_signed` | yes | yes, as soon as it is received |
/// | `Settled` | sender's `revoke_and_ack` | irrevocably | irrevocably |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Proposed,
    Signed,
    Revoked,
    Acknowledged,
    Settled,
}

/// Where an HTLC stands: being added, standing, or being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HtlcState {
    Adding(Stage),
    Removing(Stage),
}

/// Whose commitment transaction is meant, or who sent an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Local,
    Remote,
}

/// What moves updates from stage to stage. Receiving `commitment_signed` and sending `revoke_and_ack` are one step here,
/// so they are one move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// We sent `commitment_signed`.
    SignedRemote,
    /// The peer sent `revoke_and_ack`.
    RemoteRevoked,
    /// The peer sent `commitment_signed`, and our `revoke_and_ack` answers it.
    LocalSignedAndRevoked,
}

impl Side {
    /// The counterparty.
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

impl Offerer {
    /// The side that sends the add.
    pub const fn side(self) -> Side {
        match self {
            Self::Local => Side::Local,
            Self::Remote => Side::Remote,
        }
    }
}

impl HtlcKey {
    /// An HTLC that we offered.
    pub const fn offered(id: u64) -> Self {
        Self { offerer: Offerer::Local, id }
    }

    /// An HTLC that we received.
    pub const fn received(id: u64) -> Self {
        Self { offerer: Offerer::Remote, id }
    }
}

impl Stage {
    /// Where an update of `sender` goes from here, or `None` where this move does not concern it.
    pub const fn after(self, sender: Side, event: Move) -> Option<Self> {
        match (event, sender, self) {
            (Move::SignedRemote, Side::Local, Self::Proposed) => Some(Self::Signed),
            (Move::SignedRemote, Side::Remote, Self::Revoked) => Some(Self::Acknowledged),
            (Move::RemoteRevoked, Side::Local, Self::Signed) => Some(Self::Revoked),
            (Move::RemoteRevoked, Side::Remote, Self::Acknowledged) => Some(Self::Settled),
            (Move::LocalSignedAndRevoked, Side::Remote, Self::Proposed) => Some(Self::Revoked),
            (Move::LocalSignedAndRevoked, Side::Local, Self::Revoked) => Some(Self::Settled),
            (
                Move::SignedRemote | Move::RemoteRevoked | Move::LocalSignedAndRevoked,
                Side::Local | Side::Remote,
                Self::Proposed | Self::Signed | Self::Revoked | Self::Acknowledged | Self::Settled,
            ) => None,
        }
    }

    /// Whether an update of `sender` at this stage has taken effect in the newest commitment of `owner`.
    pub const fn in_effect(self, sender: Side, owner: Side) -> bool {
        let since = match (sender, owner) {
            (Side::Local, Side::Remote) | (Side::Remote, Side::Local) => Self::Signed,
            (Side::Local, Side::Local) | (Side::Remote, Side::Remote) => Self::Acknowledged,
        };
        self as u8 >= since as u8
    }

    /// Whether an update of `sender` at this stage must be in the next commitment of `owner`, but is not in its newest.
    pub const fn is_due(self, sender: Side, owner: Side) -> bool {
        match (sender, owner) {
            (Side::Local, Side::Remote) | (Side::Remote, Side::Local) => matches!(self, Self::Proposed),
            (Side::Local, Side::Local) | (Side::Remote, Side::Remote) => matches!(self, Self::Revoked),
        }
    }
}

impl HtlcState {
    /// Irrevocably committed, and nobody is removing it: only now may it be fulfilled or failed (BOLT 2).
    pub const STANDING: Self = Self::Adding(Stage::Settled);

    /// How far the update that is under way has come, and who sent it.
    pub const fn update(self, offerer: Offerer) -> (Side, Stage) {
        match self {
            Self::Adding(stage) => (offerer.side(), stage),
            Self::Removing(stage) => (offerer.side().other(), stage),
        }
    }

    /// Whether the newest commitment of `owner` holds the HTLC.
    pub const fn in_commitment(self, offerer: Offerer, owner: Side) -> bool {
        let (sender, stage) = self.update(offerer);
        let effective = stage.in_effect(sender, owner);
        match self {
            Self::Adding(_) => effective,
            Self::Removing(_) => !effective,
        }
    }

    /// The state after this move, or `None` where the move does not concern it.
    pub const fn after(self, offerer: Offerer, event: Move) -> Option<Self> {
        let (sender, stage) = self.update(offerer);
        match (self, stage.after(sender, event)) {
            (Self::Adding(_), Some(next)) => Some(Self::Adding(next)),
            (Self::Removing(_), Some(next)) => Some(Self::Removing(next)),
            (Self::Adding(_) | Self::Removing(_), None) => None,
        }
    }
}
