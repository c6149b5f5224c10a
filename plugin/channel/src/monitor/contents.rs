//! What a commitment holds, read from the state of each HTLC; and the transaction that follows from it.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use outrigger_bolt::amount::{FeeratePerKw, Msat};
use outrigger_bolt::keys::CommitmentKeys;
use outrigger_bolt::tx::commitment::{CommitmentHtlc, CommitmentPlan, CommitmentTx, HtlcDirection};

use crate::changes::{ChannelParams, HtlcRow, MonitorRows, RemoteCommitment};
use crate::commitments::htlc::{HtlcKey, HtlcState, Offerer, Side, Stage};
use crate::row::CorruptRows;

/// The commitments that can still be published unpunished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
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

/// All that determines one commitment transaction.
pub(super) struct Contents {
    params: Arc<ChannelParams>,
    owner: Side,
    number: u64,
    feerate: FeeratePerKw,
    to_local: Msat,
    to_remote: Msat,
    htlcs: Vec<CommitmentHtlc>,
    keys: CommitmentKeys,
}

impl Contents {
    /// Our newest commitment; `point` is our per-commitment point of its number.
    pub(super) fn local(rows: &MonitorRows, point: PublicKey) -> Result<Self, CorruptRows> {
        let local = &rows.head.local;
        let commitment = RemoteCommitment {
            number: local.number,
            point,
            feerate: local.feerate,
            to_local: local.to_local,
            to_remote: local.to_remote,
        };
        Self::of(rows, Which::Local, &commitment)
    }

    /// The peer's newest commitment whose predecessor is revoked.
    pub(super) fn remote(rows: &MonitorRows, commitment: &RemoteCommitment) -> Result<Self, CorruptRows> {
        Self::of(rows, Which::Remote, commitment)
    }

    /// The peer's commitment after that.
    pub(super) fn remote_next(rows: &MonitorRows, commitment: &RemoteCommitment) -> Result<Self, CorruptRows> {
        Self::of(rows, Which::RemoteNext, commitment)
    }

    fn of(rows: &MonitorRows, which: Which, commitment: &RemoteCommitment) -> Result<Self, CorruptRows> {
        let owner = which.owner();
        let (local, remote) = (&rows.params.local.basepoints, &rows.params.remote.basepoints);
        let (ours, theirs) = match owner {
            Side::Local => (local, remote),
            Side::Remote => (remote, local),
        };
        let keys = CommitmentKeys::derive(ours, theirs, &commitment.point)
            .map_err(|_| CorruptRows("a commitment's per-commitment point gives no key"))?;
        let htlcs = rows.htlcs.iter().filter(|(key, row)| which.holds(key.offerer, row.state));
        Ok(Self {
            params: Arc::clone(&rows.params),
            owner,
            number: commitment.number,
            feerate: commitment.feerate,
            to_local: commitment.to_local,
            to_remote: commitment.to_remote,
            htlcs: htlcs.map(|(key, row)| commitment_htlc(owner, *key, row)).collect(),
            keys,
        })
    }

    /// The plan of the transaction, from the point of view of its owner (BOLT 3).
    pub(super) fn plan(&self) -> CommitmentPlan<'_> {
        let (local, remote) = (&self.params.local, &self.params.remote);
        let (owner, other, to_owner, to_other) = match self.owner {
            Side::Local => (local, remote, self.to_local, self.to_remote),
            Side::Remote => (remote, local, self.to_remote, self.to_local),
        };
        let (opener, accepter) = if self.params.is_opener { (local, remote) } else { (remote, local) };
        CommitmentPlan {
            funding_outpoint: self.params.funding,
            number: self.number,
            opener_payment_basepoint: opener.basepoints.payment,
            accepter_payment_basepoint: accepter.basepoints.payment,
            owner_is_opener: self.params.is_opener == (self.owner == Side::Local),
            // BOLT 2: each side says how long the other's own output waits.
            to_self_delay: other.to_self_delay,
            dust_limit: owner.dust_limit,
            feerate: self.feerate,
            to_owner,
            to_other,
            htlcs: &self.htlcs,
            keys: &self.keys,
            owner_funding_pubkey: owner.basepoints.funding_pubkey,
            other_funding_pubkey: other.basepoints.funding_pubkey,
        }
    }

    /// The transaction, not signed.
    pub(super) fn build(&self) -> Result<CommitmentTx, CorruptRows> {
        CommitmentTx::build(&self.plan()).map_err(|_| CorruptRows("a signed commitment cannot pay its own fee"))
    }
}

fn commitment_htlc(owner: Side, key: HtlcKey, row: &HtlcRow) -> CommitmentHtlc {
    CommitmentHtlc {
        id: key.id,
        direction: if key.offerer.side() == owner { HtlcDirection::Offered } else { HtlcDirection::Received },
        amount: row.amount,
        payment_hash: row.payment_hash,
        cltv_expiry: row.cltv_expiry,
    }
}
