//! Derivation of a commitment's keys from basepoints and a per-commitment point (BOLT 3, "Key Derivation").

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar, SecretKey};

use super::signature::secp;

/// A derivation that met the point at infinity or a scalar outside of the curve's order.
///
/// Chance does not produce it; points chosen to cancel each other do, so it is the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key derivation gives no valid key")]
pub struct DegenerateKey;

/// The public keys that one side contributes to a channel (BOLT 2, `open_channel` and `accept_channel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basepoints {
    /// The side's key in the 2-of-2 funding output, and of its anchor.
    pub funding_pubkey: PublicKey,
    /// Blinded into the revocation keys of the *other* side's commitments.
    pub revocation: PublicKey,
    /// Receives this side's balance on the other side's commitments; never tweaked (static_remotekey).
    pub payment: PublicKey,
    /// Receives this side's balance on its own commitments, after the delay.
    pub delayed_payment: PublicKey,
    /// Signs and receives HTLCs.
    pub htlc: PublicKey,
}

/// The keys that the scripts of one commitment hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitmentKeys {
    /// The owner's point that all others were derived with.
    pub per_commitment_point: PublicKey,
    /// `revocationpubkey`: whole only once the owner has revoked the commitment.
    pub revocation: PublicKey,
    /// `local_delayedpubkey`, of the owner.
    pub delayed_payment: PublicKey,
    /// `local_htlcpubkey`, of the owner.
    pub owner_htlc: PublicKey,
    /// `remote_htlcpubkey`, of the other side.
    pub other_htlc: PublicKey,
    /// `remotepubkey`: the other side's untouched payment basepoint.
    pub other_payment: PublicKey,
}

impl CommitmentKeys {
    /// The keys of `owner`'s commitment that belongs to `per_commitment_point`.
    pub fn derive(
        owner: &Basepoints,
        other: &Basepoints,
        per_commitment_point: &PublicKey,
    ) -> Result<Self, DegenerateKey> {
        Ok(Self {
            per_commitment_point: *per_commitment_point,
            revocation: revocation_public_key(&other.revocation, per_commitment_point)?,
            delayed_payment: derive_public_key(&owner.delayed_payment, per_commitment_point)?,
            owner_htlc: derive_public_key(&owner.htlc, per_commitment_point)?,
            other_htlc: derive_public_key(&other.htlc, per_commitment_point)?,
            other_payment: other.payment,
        })
    }
}

/// `basepoint + SHA256(per_commitment_point || basepoint) * G`.
pub fn derive_public_key(basepoint: &PublicKey, per_commitment_point: &PublicKey) -> Result<PublicKey, DegenerateKey> {
    let tweak = tweak(per_commitment_point, basepoint)?;
    basepoint.add_exp_tweak(secp(), &tweak).map_err(|_| DegenerateKey)
}

/// The private key of [`derive_public_key`]: `basepoint_secret + SHA256(per_commitment_point || basepoint)`.
pub fn derive_private_key(
    basepoint_secret: &SecretKey,
    per_commitment_point: &PublicKey,
) -> Result<SecretKey, DegenerateKey> {
    let basepoint = basepoint_secret.public_key(secp());
    let tweak = tweak(per_commitment_point, &basepoint)?;
    basepoint_secret.add_tweak(&tweak).map_err(|_| DegenerateKey)
}

/// `revocationpubkey`, of which neither side alone can know the private key.
pub fn revocation_public_key(
    revocation_basepoint: &PublicKey,
    per_commitment_point: &PublicKey,
) -> Result<PublicKey, DegenerateKey> {
    let basepoint_tweak = tweak(revocation_basepoint, per_commitment_point)?;
    let commitment_tweak = tweak(per_commitment_point, revocation_basepoint)?;
    let blinded_basepoint = revocation_basepoint.mul_tweak(secp(), &basepoint_tweak).map_err(|_| DegenerateKey)?;
    let blinded_point = per_commitment_point.mul_tweak(secp(), &commitment_tweak).map_err(|_| DegenerateKey)?;
    blinded_basepoint.combine(&blinded_point).map_err(|_| DegenerateKey)
}

/// `revocationprivkey`: known to whoever holds the revocation basepoint's secret once the commitment is revoked.
pub fn revocation_private_key(
    revocation_basepoint_secret: &SecretKey,
    per_commitment_secret: &SecretKey,
) -> Result<SecretKey, DegenerateKey> {
    let revocation_basepoint = revocation_basepoint_secret.public_key(secp());
    let per_commitment_point = per_commitment_secret.public_key(secp());
    let basepoint_tweak = tweak(&revocation_basepoint, &per_commitment_point)?;
    let commitment_tweak = tweak(&per_commitment_point, &revocation_basepoint)?;
    let blinded_basepoint = revocation_basepoint_secret.mul_tweak(&basepoint_tweak).map_err(|_| DegenerateKey)?;
    let blinded_secret = per_commitment_secret.mul_tweak(&commitment_tweak).map_err(|_| DegenerateKey)?;
    blinded_basepoint.add_tweak(&Scalar::from(blinded_secret)).map_err(|_| DegenerateKey)
}

/// `SHA256(first || second)` as a scalar.
fn tweak(first: &PublicKey, second: &PublicKey) -> Result<Scalar, DegenerateKey> {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    Scalar::from_be_bytes(sha256::Hash::from_engine(engine).to_byte_array()).map_err(|_| DegenerateKey)
}
