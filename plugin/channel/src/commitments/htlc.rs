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
