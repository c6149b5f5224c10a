//! What one side's commitment holds, and the transaction that says so (BOLT 3).

use std::collections::BTreeMap;

use bitcoin::secp256k1::PublicKey;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::keys::CommitmentKeys;
use outrigger_bolt::tx::commitment::{CommitmentHtlc, CommitmentPlan, CommitmentTx, HtlcDirection};
use outrigger_bolt::tx::fee::{ANCHOR_SAT, commitment_cost, is_trimmed};

use super::htlc::{HtlcKey, Side};
use crate::changes::{ChannelParams, HtlcRow, Totals};
use crate::signer::Signer;
use crate::violation::Rule;

/// All that one commitment depends on, besides what was agreed at the opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitmentSpec {
    pub(crate) owner: Side,
    pub(crate) number: u64,
    /// The owner's per-commitment point.
    pub(crate) point: PublicKey,
    pub(crate) feerate: FeeratePerKw,
    pub(crate) to_local: Msat,
    pub(crate) to_remote: Msat,
    pub(crate) htlcs: Vec<CommitmentHtlc>,
}

/// A commitment transaction with the keys in its scripts.
#[derive(Clone, Debug)]
pub(crate) struct BuiltCommitment {
    pub(crate) commitment: CommitmentTx,
    pub(crate) keys: CommitmentKeys,
    /// What the owner waits for its own outputs.
    pub(crate) to_self_delay: u16,
}

impl CommitmentSpec {
    /// The commitment of `owner` with these totals, and with the HTLCs whose rows say that its newest one holds them.
    pub(crate) fn of(
        owner: Side,
        (number, point): (u64, PublicKey),
        (feerate, totals): (FeeratePerKw, &Totals),
        rows: &BTreeMap<HtlcKey, &HtlcRow>,
    ) -> Self {
        let htlcs = rows
            .iter()
            .filter(|(key, row)| row.state.in_commitment(key.offerer, owner))
            .map(|(key, row)| commitment_htlc(owner, *key, row))
            .collect();
        Self { owner, number, point, feerate, to_local: totals.to_local, to_remote: totals.to_remote, htlcs }
    }

    /// The keys in its scripts.
    pub(crate) fn keys(&self, params: &ChannelParams, signer: &dyn Signer) -> Result<CommitmentKeys, Rule> {
        let (owner, other) = (params.side(self.owner), params.side(self.owner.other()));
        let keys = signer.commitment_keys(&owner.basepoints, &other.basepoints, &self.point);
        keys.map_err(|_| Rule::DegeneratePoint)
    }

    /// All that decides the transaction, from the point of view of its owner (BOLT 3).
    pub(crate) fn plan<'a>(&'a self, params: &ChannelParams, keys: &'a CommitmentKeys) -> CommitmentPlan<'a> {
        let (owner, other) = (params.side(self.owner), params.side(self.owner.other()));
        let (opener, accepter) = (params.side(params.opener()), params.side(params.opener().other()));
        let (to_owner, to_other) = match self.owner {
            Side::Local => (self.to_local, self.to_remote),
            Side::Remote => (self.to_remote, self.to_local),
        };
        let (to_owner, to_other) = if params.opener() == self.owner {
            (opener_share(to_owner, self.feerate, &self.htlcs, owner.dust_limit), to_other)
        } else {
            (to_owner, opener_share(to_other, self.feerate, &self.htlcs, owner.dust_limit))
        };
        CommitmentPlan {
            funding_outpoint: params.funding,
            number: self.number,
            opener_payment_basepoint: opener.basepoints.payment,
            accepter_payment_basepoint: accepter.basepoints.payment,
            owner_is_opener: params.opener() == self.owner,
            // BOLT 2: each side says how long the other's own output waits.
            to_self_delay: other.to_self_delay,
            dust_limit: owner.dust_limit,
            feerate: self.feerate,
            to_owner,
            to_other,
            htlcs: &self.htlcs,
            keys,
            owner_funding_pubkey: owner.basepoints.funding_pubkey,
            other_funding_pubkey: other.basepoints.funding_pubkey,
        }
    }

    /// The transaction, unsigned.
    pub(crate) fn build(&self, params: &ChannelParams, signer: &dyn Signer) -> Result<BuiltCommitment, Rule> {
        let keys = self.keys(params, signer)?;
        let commitment = CommitmentTx::build(&self.plan(params, &keys)).map_err(|_| Rule::Unaffordable)?;
        Ok(BuiltCommitment { commitment, keys, to_self_delay: params.side(self.owner.other()).to_self_delay })
    }
}

/// What the opener puts into a commitment that is built: its balance, or the whole cost where that is more.
///
/// Updates of both sides may cross and cost more together than the opener has left, though each was affordable. The fee
/// is then less than the feerate asks for (BOLT 2, "Updating Fees"; BOLT 3, "Fee Payment"): the opener pays all that it
/// has above the anchors and gets no output. Below the anchors there is no commitment to build.
fn opener_share(balance: Msat, feerate: FeeratePerKw, htlcs: &[CommitmentHtlc], dust_limit: Sat) -> Msat {
    let untrimmed = htlcs.iter().filter(|htlc| !is_trimmed(htlc.amount, dust_limit)).count();
    let cost = commitment_cost(feerate, untrimmed);
    if balance.to_sat_floor() < ANCHOR_SAT.saturating_add(ANCHOR_SAT) {
        return balance;
    }
    cost.to_msat().map_or(balance, |cost| balance.max(cost))
}

/// An HTLC as the commitment of `owner` holds it.
pub(crate) fn commitment_htlc(owner: Side, key: HtlcKey, row: &HtlcRow) -> CommitmentHtlc {
    CommitmentHtlc {
        id: key.id,
        direction: if key.offerer.side() == owner { HtlcDirection::Offered } else { HtlcDirection::Received },
        amount: row.amount,
        payment_hash: row.payment_hash,
        cltv_expiry: row.cltv_expiry,
    }
}
