//! Message encryption with key rotation (BOLT 8, "Lightning Message Specification").

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::Zeroizing;

use crate::wire::MAX_MESSAGE_LEN;

/// Bytes of a Poly1305 tag.
pub const MAC_LEN: usize = 16;

/// Bytes of an encrypted length with its MAC: what is read first of every message.
pub const LENGTH_HEADER_LEN: usize = 2 + MAC_LEN;

/// Most bytes of a message on the wire.
pub const MAX_PACKET_LEN: usize = LENGTH_HEADER_LEN + MAX_MESSAGE_LEN + MAC_LEN;

/// How often a key is used before it is rotated.
const KEY_USES: u64 = 1000;

/// A 32-byte secret that is wiped when dropped.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// Received bytes that fail authentication. The connection is beyond use, and to be dropped without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message authentication failed")]
pub struct BadMac;

/// A message over 65535 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message of {0} bytes, over the maximum of 65535")]
pub struct MessageTooLong(pub usize);

/// The sending half of a connection.
pub struct Encryptor(RotatingKey);

/// The receiving half of a connection.
pub struct Decryptor(RotatingKey);

/// A key, how often it was used, and what the next one is derived from.
struct RotatingKey {
    key: Secret,
    chaining_key: Secret,
    nonce: u64,
}

impl Encryptor {
    /// Starts with the `sk` and `ck` that the handshake ended with.
    pub fn new(key: [u8; 32], chaining_key: [u8; 32]) -> Self {
        Self(RotatingKey::new(key, chaining_key))
    }

    /// The packet that carries `message`: encrypted length, encrypted message.
    pub fn encrypt(&mut self, message: &[u8]) -> Result<Vec<u8>, MessageTooLong> {
        let length = u16::try_from(message.len()).map_err(|_| MessageTooLong(message.len()))?;
        let mut packet = self.0.seal(&length.to_be_bytes());
        packet.extend(self.0.seal(message));
        Ok(packet)
    }
}

impl Decryptor {
    /// Starts with the `rk` and `ck` that the handshake ended with.
    pub fn new(key: [u8; 32], chaining_key: [u8; 32]) -> Self {
        Self(RotatingKey::new(key, chaining_key))
    }

    /// How long the next message is. Its packet goes on for [`MAC_LEN`] bytes more than that.
    pub fn decrypt_length(&mut self, header: &[u8; LENGTH_HEADER_LEN]) -> Result<u16, BadMac> {
        let length = self.0.open(header)?;
        length.as_slice().try_into().map(u16::from_be_bytes).map_err(|_| BadMac)
    }

    /// The message, from the bytes after its length: the encrypted message and its MAC.
    pub fn decrypt_message(&mut self, body: &[u8]) -> Result<Vec<u8>, BadMac> {
        self.0.open(body)
    }
}

impl RotatingKey {
    fn new(key: [u8; 32], chaining_key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key), chaining_key: Zeroizing::new(chaining_key), nonce: 0 }
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let ciphertext = encrypt_with_ad(&self.key, self.nonce, &[], plaintext);
        self.count_use();
        ciphertext
    }

    fn open(&mut self, ciphertext: &[u8]) -> Result<Vec<u8>, BadMac> {
        let plaintext = decrypt_with_ad(&self.key, self.nonce, &[], ciphertext)?;
        self.count_use();
        Ok(plaintext)
    }

    /// BOLT 8, "Lightning Message Key Rotation": a new key once the nonce reaches 1000. The old one is overwritten.
    fn count_use(&mut self) {
        self.nonce = self.nonce.saturating_add(1);
        if self.nonce >= KEY_USES {
            (self.chaining_key, self.key) = hkdf(&self.chaining_key, self.key.as_slice());
            self.nonce = 0;
        }
    }
}

/// `HKDF(salt, ikm)` with a zero-length `info`: two keys of 32 bytes (RFC 5869).
pub(super) fn hkdf(salt: &[u8; 32], ikm: &[u8]) -> (Secret, Secret) {
    let extracted = Zeroizing::new(hmac(salt, &[ikm]));
    let first = Zeroizing::new(hmac(&extracted, &[&[1]]));
    let second = Zeroizing::new(hmac(&extracted, &[first.as_slice(), &[2]]));
    (first, second)
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    parts.iter().for_each(|part| engine.input(part));
    Hmac::from_engine(engine).to_byte_array()
}

/// Noise's nonce: 32 zero bits and then a little-endian counter, unlike all else in Lightning (BOLT 8).
fn nonce_bytes(nonce: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    let (_, counter) = bytes.split_at_mut(4);
    counter.copy_from_slice(&nonce.to_le_bytes());
    bytes
}

/// `encryptWithAD(k, n, ad, plaintext)`
#[expect(clippy::expect_used, reason = "ChaCha20-Poly1305 refuses only plaintexts of 256 GiB and more")]
pub(super) fn encrypt_with_ad(key: &[u8; 32], nonce: u64, ad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    ChaCha20Poly1305::new(key.into())
        .encrypt(&nonce_bytes(nonce).into(), Payload { msg: plaintext, aad: ad })
        .expect("messages are at most 65535 bytes")
}

/// `decryptWithAD(k, n, ad, ciphertext)`
pub(super) fn decrypt_with_ad(key: &[u8; 32], nonce: u64, ad: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, BadMac> {
    ChaCha20Poly1305::new(key.into())
        .decrypt(&nonce_bytes(nonce).into(), Payload { msg: ciphertext, aad: ad })
        .map_err(|_| BadMac)
}
