//! The only seam to secrets.

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::keys::{Basepoints, CommitmentKeys};
use outrigger_bolt::tx::CommitmentTx;

use crate::changes::ChannelParams;

/// The keys of one channel.
pub trait Signer: Send + Sync {
    /// The five public keys that we tell the peer.
    fn basepoints(&self) -> &Basepoints;

    /// Our per-commitment point for the local commitment of this number.
    fn per_commitment_point(&self, number: u64) -> PublicKey;

    /// Signs a remote commitment and its HTLC transactions, the latter in BOLT 3 output order. `keys` are those of the
    /// remote commitment; amounts, delays and funding keys stand in `params`.
    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>);
}
