//! What an output must be worth to exist, and what a commitment costs (BOLT 3, "Trimmed Outputs" and "Fees").
//!
//! Acceptance, sending, building, reserves and dust exposure all ask here, so that they cannot disagree.

use crate::amount::{FeeratePerKw, Msat, Sat};

/// The value of each of the two anchor outputs.
pub const ANCHOR_SAT: Sat = Sat::new(330);

/// An amount in whole satoshis, or `None` where [`is_trimmed`] leaves its output out.
pub fn untrimmed(amount: Sat, dust_limit: Sat) -> Option<Sat> {
    let amount_msat = amount.to_msat().unwrap_or(Msat::new(u64::MAX));
    (!is_trimmed(amount_msat, dust_limit)).then_some(amount)
}

/// The expected weight of a commitment without HTLC outputs.
pub const COMMITMENT_BASE_WEIGHT: u64 = 1124;

/// The expected weight that each untrimmed HTLC adds to a commitment.
pub const COMMITMENT_HTLC_WEIGHT: u64 = 172;

/// Whether an output of this amount is left out of a commitment whose owner set this dust limit.
///
/// Holds for balances and for HTLCs alike: HTLC transactions pay no fee, so nothing is deducted before comparing.
pub const fn is_trimmed(amount: Msat, dust_limit: Sat) -> bool {
    amount.to_sat_floor().get() < dust_limit.get()
}

/// The expected weight of a commitment with this count of untrimmed HTLCs.
pub fn commitment_weight(untrimmed: usize) -> u64 {
    let htlcs = u64::try_from(untrimmed).unwrap_or(u64::MAX);
    COMMITMENT_BASE_WEIGHT.saturating_add(COMMITMENT_HTLC_WEIGHT.saturating_mul(htlcs))
}

/// The base fee of a commitment with this count of untrimmed HTLCs, in whole satoshis, rounded down.
pub fn commitment_fee(feerate: FeeratePerKw, untrimmed: usize) -> Sat {
    feerate.fee(commitment_weight(untrimmed))
}

/// All that the opener pays for a commitment: its base fee and both anchors, of which one may turn out to be absent.
pub fn commitment_cost(feerate: FeeratePerKw, untrimmed: usize) -> Sat {
    commitment_fee(feerate, untrimmed).saturating_add(ANCHOR_SAT).saturating_add(ANCHOR_SAT)
}
