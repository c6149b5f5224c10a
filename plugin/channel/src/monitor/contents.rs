//! What each commitment that can still be published holds, read from the state of each HTLC.

use bitcoin::secp256k1::PublicKey;
use outrigger_bolt::tx::commitment::CommitmentHtlc;

use crate::changes::{MonitorRows, RemoteCommitment, ReplacedCommitment, SignedCommitment};
use crate::commitments::htlc::{HtlcState, Offerer, Side, Stage};
use crate::commitments::spec::{CommitmentSpec, commitment_htlc};

/// The commitments that can still be published unpunished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Our newest.
    Local,
    /// The peer's newest whose predecessor is revoked.
    Remote,
    /// The one that we signed after it.
    RemoteNext,
}

impl Which {
    /// Whether an HTLC in this state stands in this commitment.
    fn holds(self, offerer: Offerer, state: HtlcState) -> bool {
        match self {
            Self::Local => state.in_commitment(offerer, Side::Local),
            Self::RemoteNext => state.in_commitment(offerer, Side::Remote),
            Self::Remote => match (state, before_the_newest(state, offerer)) {
                (HtlcState::Adding(_), effective) => effective,
                (HtlcState::Removing(_), effective) => !effective,
            },
        }
    }

    fn owner(self) -> Side {
        match self {
            Self::Local => Side::Local,
            Self::Remote | Self::RemoteNext => Side::Remote,
        }
    }
}

/// Whether the update under way had taken effect in the remote commitment before our newest `commitment_signed`: ours
/// once the peer has revoked what came before it, the peer's own once it has revoked what lacked it (BOLT 2).
fn before_the_newest(state: HtlcState, offerer: Offerer) -> bool {
    let (sender, stage) = state.update(offerer);
    match sender {
        Side::Local => stage >= Stage::Revoked,
        Side::Remote => stage >= Stage::Settled,
    }
}

/// Our newest commitment; `point` is our per-commitment point of its number.
pub(super) fn local(rows: &MonitorRows, point: PublicKey) -> CommitmentSpec {
    let SignedCommitment { number, feerate, to_local, to_remote, .. } = rows.head.local;
    spec(rows, Which::Local, &RemoteCommitment { number, point, feerate, to_local, to_remote })
}

/// The HTLCs of our newest commitment. A received one that has left it may stand in the peer's still, and is claimed there.
pub(super) fn standing(rows: &MonitorRows) -> Vec<CommitmentHtlc> {
    htlcs(rows, Which::Local)
}

/// Our newest commitment, whole, to be kept beyond the one that replaces it: without its per-commitment point, which its number
/// gives.
pub(super) fn replaced(rows: &MonitorRows) -> ReplacedCommitment {
    let number = rows.head.local.number;
    let htlc_signatures = rows.htlc_signatures.get(&number).cloned().unwrap_or_default();
    let commitment = SignedCommitment { htlc_signatures, ..rows.head.local.clone() };
    ReplacedCommitment { commitment, htlcs: htlcs(rows, Which::Local) }
}

/// What that one holds.
pub(super) fn of_replaced(replaced: &ReplacedCommitment, point: PublicKey) -> CommitmentSpec {
    let SignedCommitment { number, feerate, to_local, to_remote, .. } = replaced.commitment;
    CommitmentSpec { owner: Side::Local, number, point, feerate, to_local, to_remote, htlcs: replaced.htlcs.clone() }
}

/// The peer's commitments that it may publish unpunished, the older one first.
pub(super) fn remote(rows: &MonitorRows) -> Vec<CommitmentSpec> {
    let current = spec(rows, Which::Remote, &rows.head.remote);
    let next = rows.head.remote_next.as_ref().map(|next| spec(rows, Which::RemoteNext, next));
    std::iter::once(current).chain(next).collect()
}

fn spec(rows: &MonitorRows, which: Which, commitment: &RemoteCommitment) -> CommitmentSpec {
    CommitmentSpec {
        owner: which.owner(),
        number: commitment.number,
        point: commitment.point,
        feerate: commitment.feerate,
        to_local: commitment.to_local,
        to_remote: commitment.to_remote,
        htlcs: htlcs(rows, which),
    }
}

fn htlcs(rows: &MonitorRows, which: Which) -> Vec<CommitmentHtlc> {
    let held = rows.htlcs.iter().filter(|(key, row)| which.holds(key.offerer, row.state));
    held.map(|(key, row)| commitment_htlc(which.owner(), *key, row)).collect()
}
