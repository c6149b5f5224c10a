//! ECDSA as BOLT 2 and 3 use it: deterministic when made, low-S or refused when received.

use std::sync::LazyLock;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};

/// Why a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// The upper of the two possible S values: valid by consensus, but bitcoind relays no such transaction.
    #[error("signature has a high S value and could not be relayed")]
    HighS,
    /// Another key, another message, or no signature at all.
    #[error("signature does not match")]
    Mismatch,
}

/// The one curve context: built once, its tables are read only.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static CONTEXT: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);
    &CONTEXT
}

/// The point of a secret: `secret * G`.
pub fn public_key(secret: &SecretKey) -> PublicKey {
    secret.public_key(secp())
}

/// Signs with the nonce of RFC 6979, so that signing again gives the same bytes (BOLT 3, Appendix C). S is low.
pub fn sign(message: &Message, key: &SecretKey) -> Signature {
    secp().sign_ecdsa(message, key)
}

/// Checks a signature that a peer sent for a transaction.
///
/// A high-S signature is refused although it is valid: a transaction that carries it would not be relayed, so
/// holding it would be holding nothing.
pub fn verify(message: &Message, signature: &Signature, key: &PublicKey) -> Result<(), InvalidSignature> {
    let mut low_s = *signature;
    low_s.normalize_s();
    if low_s != *signature {
        return Err(InvalidSignature::HighS);
    }
    secp().verify_ecdsa(message, signature, key).map_err(|_| InvalidSignature::Mismatch)
}
