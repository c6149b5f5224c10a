//! Keys and pseudo-random streams made from a shared secret (BOLT 4, "Key Generation" and "Pseudo Random Byte
//! Stream").

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};

/// What a key is for.
#[derive(Clone, Copy)]
pub(super) enum KeyType {
    /// Hides the payloads of a packet.
    Rho,
    /// Authenticates a packet.
    Mu,
    /// Authenticates a failure.
    Um,
    /// Hides a failure.
    Ammag,
    /// Fills a new packet.
    Pad,
}

impl KeyType {
    const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Rho => b"rho",
            Self::Mu => b"mu",
            Self::Um => b"um",
            Self::Ammag => b"ammag",
            Self::Pad => b"pad",
        }
    }

    /// The key of this type that belongs to a secret.
    pub(super) fn derive(self, secret: &[u8; 32]) -> [u8; 32] {
        hmac(self.bytes(), &[secret])
    }
}

/// HMAC-SHA256 over the concatenation of `parts`.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    parts.iter().for_each(|part| engine.input(part));
    Hmac::from_engine(engine).to_byte_array()
}

/// XORs the key's stream, which starts at `skip`, onto `bytes`.
pub(super) fn apply(key: &[u8; 32], skip: usize, bytes: &mut [u8]) {
    let mut cipher = ChaCha20::new(key.into(), &[0; 12].into());
    // The start of the stream is dropped; packets are short, so seeking would gain nothing.
    cipher.apply_keystream(&mut vec![0; skip]);
    cipher.apply_keystream(bytes);
}
