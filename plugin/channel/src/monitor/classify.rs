//! What a spend of the funding output is (BOLT 5, "General Nomenclature"). Any transaction may stand here: nothing is
//! taken for granted (FND-2).

use bitcoin::Transaction;

use super::{Monitor, onchain};
use crate::signer::Signer;

/// A spend of the funding output, by what it asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// A close that both signed.
    Mutual,
    /// Our newest commitment, or the one before it that was published in its stead.
    Local,
    /// The peer's newest commitment whose predecessor is revoked.
    Remote,
    /// The commitment that we signed for the peer after that.
    RemoteNext,
    /// A commitment of the peer whose secret we hold.
    Revoked(u64),
    /// What our rows do not explain: a later commitment, or a close while they hold HTLCs. The peer knows a newer state.
    Unknown,
}

/// Known commitments are known by their txid. Both sides sign nothing but commitments and closes, and only a
/// commitment carries its number in locktime and sequence (BOLT 3, "Commitment Transaction"). No close is signed while an HTLC
/// is left (BOLT 2, "Closing Negotiation").
pub(super) fn classify(monitor: &Monitor, spend: &Transaction, signer: &dyn Signer) -> Spend {
    let head = &monitor.rows.head;
    let txid = spend.compute_txid();
    if monitor.own_commitments(signer).any(|commitment| commitment.tx.compute_txid() == txid) {
        return Spend::Local;
    }
    if let Ok(remote) = monitor.remote_commitments(signer) {
        for (commitment, known) in remote.iter().zip([Spend::Remote, Spend::RemoteNext]) {
            if commitment.tx.compute_txid() == txid {
                return known;
            }
        }
    }
    match onchain::number_of(&monitor.rows.params, spend) {
        None if monitor.rows.htlcs.is_empty() => Spend::Mutual,
        None => Spend::Unknown,
        Some(number) if number < head.next_secret_number => Spend::Revoked(number),
        Some(_) => Spend::Unknown,
    }
}
