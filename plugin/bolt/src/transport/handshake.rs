//! The three acts (BOLT 8, "Authenticated Key Exchange Handshake"). Each consumes the one before it, so that none can be
//! left out or played twice. An ephemeral key must be fresh randomness for every connection: it is the caller's to draw.

use std::fmt;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use zeroize::Zeroizing;

use super::cipher::{self, BadMac, Decryptor, Encryptor, MAC_LEN, Secret};
use crate::id::NodeId;

/// Bytes of act one.
pub const ACT_ONE_LEN: usize = 1 + POINT_LEN + MAC_LEN;
/// Bytes of act two.
pub const ACT_TWO_LEN: usize = 1 + POINT_LEN + MAC_LEN;
/// Bytes of act three.
pub const ACT_THREE_LEN: usize = 1 + SEALED_POINT_LEN + MAC_LEN;

const POINT_LEN: usize = 33;
const SEALED_POINT_LEN: usize = POINT_LEN + MAC_LEN;
const VERSION: u8 = 0;
const PROTOCOL_NAME: &[u8] = b"Noise_XK_secp256k1_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"lightning";

/// One of the three messages of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Initiator to responder.
    One,
    /// Responder to initiator.
    Two,
    /// Initiator to responder.
    Three,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Three => "three",
        })
    }
}

/// What is wrong with an act that was received. Nothing is answered: the connection is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("act {act}: {fault}")]
pub struct HandshakeError {
    /// The act that was received.
    pub act: Act,
    /// What is wrong with it.
    pub fault: HandshakeFault,
}

/// The ways in which an act can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeFault {
    /// Not exactly as long as the act must be.
    #[error("wrong length")]
    Length,
    /// A handshake version that is not 0.
    #[error("unknown handshake version {0}")]
    Version(u8),
    /// A key that is no point of the curve.
    #[error("invalid public key")]
    PublicKey,
    /// The initiator's encrypted static key does not authenticate.
    #[error("bad ciphertext")]
    Ciphertext,
    /// The act's own tag does not authenticate.
    #[error("bad tag")]
    Tag,
}

/// A finished handshake.
pub struct Established {
    /// Encrypts what we send.
    pub encryptor: Encryptor,
    /// Decrypts what we receive.
    pub decryptor: Decryptor,
    /// Who the peer proved to be.
    pub remote: NodeId,
}

/// The side that connected, waiting for act two.
pub struct Initiator {
    noise: Noise,
    local_static: Key,
    ephemeral: Key,
    remote_static: PublicKey,
}

/// The side that was connected to, waiting for act one.
pub struct Responder {
    noise: Noise,
    local_static: Key,
    ephemeral: Key,
}

/// The side that was connected to, waiting for act three.
pub struct ResponderAfterActTwo {
    noise: Noise,
    ephemeral: Key,
}

impl Initiator {
    /// Begins a connection to `remote`: act one, to be sent, and what waits for the answer.
    pub fn begin(local_static: SecretKey, remote: &NodeId, ephemeral: SecretKey) -> ([u8; ACT_ONE_LEN], Self) {
        let (local_static, ephemeral) = (Key(local_static), Key(ephemeral));
        let remote_static = *remote.public_key();
        let mut noise = Noise::new(&remote_static);
        noise.mix_hash(&ephemeral.public());
        noise.mix_key(&ephemeral, &remote_static);
        let tag = noise.seal(0, &[]);
        let act_one = assemble(&ephemeral.public(), &tag);
        (act_one, Self { noise, local_static, ephemeral, remote_static })
    }

    /// Takes act two: act three, to be sent, and the connection.
    pub fn act_two(mut self, act_two: &[u8]) -> Result<([u8; ACT_THREE_LEN], Established), HandshakeError> {
        let responder_ephemeral = self.noise.read_ephemeral(Act::Two, &self.ephemeral, act_two)?;
        let sealed_static = self.noise.seal(1, &self.local_static.public());
        self.noise.mix_key(&self.local_static, &responder_ephemeral);
        let tag = self.noise.seal(0, &[]);
        let act_three = assemble(&sealed_static, &tag);
        let (sending, receiving, chaining_key) = self.noise.split();
        let established = Established {
            encryptor: Encryptor::new(*sending, *chaining_key),
            decryptor: Decryptor::new(*receiving, *chaining_key),
            remote: NodeId::new(self.remote_static),
        };
        Ok((act_three, established))
    }
}

impl Responder {
    /// Waits for act one.
    pub fn new(local_static: SecretKey, ephemeral: SecretKey) -> Self {
        let (local_static, ephemeral) = (Key(local_static), Key(ephemeral));
        Self { noise: Noise::new(&local_static.public_key()), local_static, ephemeral }
    }

    /// Takes act one: act two, to be sent, and what waits for the answer.
    pub fn act_one(mut self, act_one: &[u8]) -> Result<([u8; ACT_TWO_LEN], ResponderAfterActTwo), HandshakeError> {
        let initiator_ephemeral = self.noise.read_ephemeral(Act::One, &self.local_static, act_one)?;
        self.noise.mix_hash(&self.ephemeral.public());
        self.noise.mix_key(&self.ephemeral, &initiator_ephemeral);
        let tag = self.noise.seal(0, &[]);
        let act_two = assemble(&self.ephemeral.public(), &tag);
        Ok((act_two, ResponderAfterActTwo { noise: self.noise, ephemeral: self.ephemeral }))
    }
}

impl ResponderAfterActTwo {
    /// Takes act three: the connection.
    pub fn act_three(mut self, act_three: &[u8]) -> Result<Established, HandshakeError> {
        let fail = |fault| HandshakeError { act: Act::Three, fault };
        let (sealed_static, tag) = disassemble::<ACT_THREE_LEN>(Act::Three, act_three)?;
        let point = self.noise.open(1, sealed_static).map_err(|BadMac| fail(HandshakeFault::Ciphertext))?;
        let remote = PublicKey::from_slice(&point).map_err(|_| fail(HandshakeFault::PublicKey))?;
        self.noise.mix_key(&self.ephemeral, &remote);
        self.noise.open(0, tag).map_err(|BadMac| fail(HandshakeFault::Tag))?;
        let (receiving, sending, chaining_key) = self.noise.split();
        Ok(Established {
            encryptor: Encryptor::new(*sending, *chaining_key),
            decryptor: Decryptor::new(*receiving, *chaining_key),
            remote: NodeId::new(remote),
        })
    }
}

/// The handshake state of BOLT 8: `h`, `ck` and the newest `temp_k`.
struct Noise {
    hash: [u8; 32],
    chaining_key: Secret,
    temp_key: Secret,
}

impl Noise {
    /// BOLT 8, "Handshake State Initialization".
    fn new(responder_static: &PublicKey) -> Self {
        let hash = sha256::Hash::hash(PROTOCOL_NAME).to_byte_array();
        let mut noise = Self { hash, chaining_key: Zeroizing::new(hash), temp_key: Zeroizing::new([0; 32]) };
        noise.mix_hash(PROLOGUE);
        noise.mix_hash(&responder_static.serialize());
        noise
    }

    /// `h = SHA-256(h || data)`
    fn mix_hash(&mut self, data: &[u8]) {
        let mut engine = sha256::Hash::engine();
        engine.input(&self.hash);
        engine.input(data);
        self.hash = sha256::Hash::from_engine(engine).to_byte_array();
    }

    /// `ck, temp_k = HKDF(ck, ECDH(ours, theirs))`
    fn mix_key(&mut self, ours: &Key, theirs: &PublicKey) {
        let mut shared = SharedSecret::new(theirs, &ours.0);
        (self.chaining_key, self.temp_key) = cipher::hkdf(&self.chaining_key, shared.as_ref());
        shared.non_secure_erase();
    }

    /// Encrypts under `temp_k` with `h` as associated data, and mixes the ciphertext into `h`.
    fn seal(&mut self, nonce: u64, plaintext: &[u8]) -> Vec<u8> {
        let ciphertext = cipher::encrypt_with_ad(&self.temp_key, nonce, &self.hash, plaintext);
        self.mix_hash(&ciphertext);
        ciphertext
    }

    /// Decrypts what [`Noise::seal`] made on the other side.
    fn open(&mut self, nonce: u64, ciphertext: &[u8]) -> Result<Vec<u8>, BadMac> {
        let plaintext = cipher::decrypt_with_ad(&self.temp_key, nonce, &self.hash, ciphertext)?;
        self.mix_hash(ciphertext);
        Ok(plaintext)
    }

    /// The receiver's steps of act one and act two: the peer's ephemeral key, once its tag holds.
    fn read_ephemeral(&mut self, act: Act, ours: &Key, bytes: &[u8]) -> Result<PublicKey, HandshakeError> {
        let (point, tag) = disassemble::<ACT_ONE_LEN>(act, bytes)?;
        let ephemeral =
            PublicKey::from_slice(point).map_err(|_| HandshakeError { act, fault: HandshakeFault::PublicKey })?;
        self.mix_hash(point);
        self.mix_key(ours, &ephemeral);
        self.open(0, tag).map_err(|BadMac| HandshakeError { act, fault: HandshakeFault::Tag })?;
        Ok(ephemeral)
    }

    /// The initiator's sending key, its receiving key, and the chaining key of both.
    fn split(self) -> (Secret, Secret, Secret) {
        let (first, second) = cipher::hkdf(&self.chaining_key, &[]);
        (first, second, self.chaining_key)
    }
}

/// An act to be sent: version, payload, tag. The three lengths add up to `N`.
fn assemble<const N: usize>(payload: &[u8], tag: &[u8]) -> [u8; N] {
    let mut act = [VERSION; N];
    act.iter_mut().skip(1).zip(payload.iter().chain(tag)).for_each(|(to, from)| *to = *from);
    act
}

/// The payload and the tag of an act received, which must have exactly `N` bytes and a version that is known.
fn disassemble<const N: usize>(act: Act, bytes: &[u8]) -> Result<(&[u8], &[u8]), HandshakeError> {
    let fail = |fault| HandshakeError { act, fault };
    let bytes: &[u8; N] = bytes.try_into().map_err(|_| fail(HandshakeFault::Length))?;
    let (version, rest) = bytes.split_first().ok_or(fail(HandshakeFault::Length))?;
    if *version != VERSION {
        return Err(fail(HandshakeFault::Version(*version)));
    }
    let (payload, tag) = rest.split_last_chunk::<MAC_LEN>().ok_or(fail(HandshakeFault::Length))?;
    Ok((payload, tag))
}

/// A private key that is wiped when dropped.
struct Key(SecretKey);

impl Key {
    fn public_key(&self) -> PublicKey {
        self.0.public_key(&Secp256k1::signing_only())
    }

    fn public(&self) -> [u8; POINT_LEN] {
        self.public_key().serialize()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}
