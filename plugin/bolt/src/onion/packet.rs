//! The onion packet: built by the origin, peeled by each hop (BOLT 4, "Packet Structure").

use std::fmt;

use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Scalar, SecretKey};

use super::failure;
use super::stream::{self, KeyType};
use crate::keys::signature::secp;
use crate::wire::codec::{BigSize, Decode, Encode, Reader, Writer};

/// Bytes of a packet.
pub const PACKET_LEN: usize = 1366;

/// Bytes that all payloads share, each with its length and HMAC.
pub const HOP_PAYLOADS_LEN: usize = 1300;

/// Bytes of an HMAC.
const HMAC_LEN: usize = 32;

/// A packet as it travels in `update_add_htlc`. Any 1366 bytes are one; [`peel`] finds out whether it is good.
#[derive(Clone, PartialEq, Eq)]
pub struct OnionPacket {
    version: u8,
    public_key: [u8; 33],
    hop_payloads: [u8; HOP_PAYLOADS_LEN],
    hmac: [u8; HMAC_LEN],
}

impl OnionPacket {
    /// From the bytes of a message.
    pub fn from_bytes(bytes: &[u8; PACKET_LEN]) -> Self {
        let [version, ..] = *bytes;
        Self {
            version,
            public_key: field(bytes, 1),
            hop_payloads: field(bytes, 1 + 33),
            hmac: field(bytes, 1 + 33 + HOP_PAYLOADS_LEN),
        }
    }

    /// The bytes for a message.
    pub fn to_bytes(&self) -> [u8; PACKET_LEN] {
        let mut bytes = [0; PACKET_LEN];
        let parts = [self.version].into_iter().chain(self.public_key).chain(self.hop_payloads).chain(self.hmac);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    fn malformed(&self, code: u16) -> PeelError {
        PeelError::Malformed(self.malformed_as(code))
    }

    fn malformed_as(&self, code: u16) -> Malformed {
        Malformed { code, sha256_of_onion: sha256::Hash::hash(&self.to_bytes()).to_byte_array() }
    }
}

impl fmt::Debug for OnionPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnionPacket").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The `N` bytes from `at` on.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.iter_mut().zip(bytes.iter().skip(at)).for_each(|(to, from)| *to = *from);
    field
}

/// A stop on the route. Its payload may hold a payment secret, so `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Hop {
    /// The node that peels the packet here.
    pub node: PublicKey,
    /// What it is told: a TLV stream, without its length.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop").field("node", &self.node).finish_non_exhaustive()
    }
}

/// A packet, and the secrets that its failures are read with.
#[derive(Clone, PartialEq, Eq)]
pub struct Built {
    /// The packet for the first hop.
    pub packet: OnionPacket,
    /// The secret shared with each hop, in order.
    pub shared_secrets: Vec<[u8; 32]>,
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("packet", &self.packet).finish_non_exhaustive()
    }
}

/// Why a packet could not be built. The caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A route without hops.
    #[error("a route needs at least one hop")]
    NoHops,
    /// The payloads do not fit.
    #[error("payloads take {needed} bytes of the {HOP_PAYLOADS_LEN} there are")]
    TooLarge {
        /// The bytes of all payloads with their lengths and HMACs.
        needed: usize,
    },
    /// A payload of fewer than two bytes, which no TLV stream has (BOLT 4).
    #[error("payload of hop {hop} is shorter than 2 bytes")]
    PayloadTooShort {
        /// The place of the hop, from 0.
        hop: usize,
    },
    /// A blinding factor that is no scalar of the curve: use another session key.
    #[error("session key gives no valid blinding")]
    DegenerateKey,
}

/// What the packet's origin and one hop have in common.
struct HopKeys {
    ephemeral: PublicKey,
    shared_secret: [u8; 32],
}

/// Builds the packet for a route (BOLT 4, "Packet Construction").
///
/// `associated_data` is the payment hash. `session_key` must be fresh for each packet.
pub fn build(session_key: &SecretKey, hops: &[Hop], associated_data: &[u8]) -> Result<Built, BuildError> {
    let framed = frame_payloads(hops)?;
    let keys = hop_keys(session_key, hops)?;
    let first = keys.first().ok_or(BuildError::NoHops)?;
    let filler = filler(&keys, &framed);

    let mut hop_payloads = vec![0; HOP_PAYLOADS_LEN];
    stream::apply(&KeyType::Pad.derive(&session_key.secret_bytes()), 0, &mut hop_payloads);
    let mut hmac = [0; HMAC_LEN];
    let mut last_filler = Some(filler);
    for (key, frame) in keys.iter().zip(&framed).rev() {
        let mut wrapped = [frame.as_slice(), &hmac, &hop_payloads].concat();
        wrapped.truncate(HOP_PAYLOADS_LEN);
        stream::apply(&KeyType::Rho.derive(&key.shared_secret), 0, &mut wrapped);
        if let Some(filler) = last_filler.take() {
            wrapped.truncate(HOP_PAYLOADS_LEN.saturating_sub(filler.len()));
            wrapped.extend(filler);
        }
        hmac = stream::hmac(&KeyType::Mu.derive(&key.shared_secret), &[&wrapped, associated_data]);
        hop_payloads = wrapped;
    }

    let packet = OnionPacket {
        version: 0,
        public_key: first.ephemeral.serialize(),
        hop_payloads: field(&hop_payloads, 0),
        hmac,
    };
    Ok(Built { packet, shared_secrets: keys.iter().map(|key| key.shared_secret).collect() })
}

/// Each payload behind its length, after checking that all fit together with their HMACs.
fn frame_payloads(hops: &[Hop]) -> Result<Vec<Vec<u8>>, BuildError> {
    if hops.is_empty() {
        return Err(BuildError::NoHops);
    }
    if let Some(hop) = hops.iter().position(|hop| hop.payload.len() < 2) {
        return Err(BuildError::PayloadTooShort { hop });
    }
    let framed: Vec<_> = hops.iter().map(|hop| frame(&hop.payload)).collect();
    let needed = framed.iter().fold(0_usize, |sum, frame| sum.saturating_add(frame_len(frame)));
    if needed > HOP_PAYLOADS_LEN { Err(BuildError::TooLarge { needed }) } else { Ok(framed) }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    BigSize(payload.len() as u64).encode(&mut writer);
    writer.bytes(payload);
    writer.finish().unwrap_or_default()
}

/// What a hop takes of the packet: its frame and the HMAC behind it.
const fn frame_len(frame: &[u8]) -> usize {
    frame.len().saturating_add(HMAC_LEN)
}

/// The ephemeral key and the shared secret of each hop (BOLT 4, "Blinding Ephemeral Onion Keys").
fn hop_keys(session_key: &SecretKey, hops: &[Hop]) -> Result<Vec<HopKeys>, BuildError> {
    let mut ephemeral_key = *session_key;
    hops.iter()
        .map(|hop| {
            let ephemeral = ephemeral_key.public_key(secp());
            let shared_secret = SharedSecret::new(&hop.node, &ephemeral_key).secret_bytes();
            let blinding = blinding_factor(&ephemeral.serialize(), &shared_secret).ok_or(BuildError::DegenerateKey)?;
            ephemeral_key = ephemeral_key.mul_tweak(&blinding).map_err(|_| BuildError::DegenerateKey)?;
            Ok(HopKeys { ephemeral, shared_secret })
        })
        .collect()
}

/// `SHA256(public_key || shared_secret)`.
fn blinding_factor(ephemeral: &[u8; 33], shared_secret: &[u8; 32]) -> Option<Scalar> {
    let mut engine = sha256::Hash::engine();
    engine.input(ephemeral);
    engine.input(shared_secret);
    Scalar::from_be_bytes(sha256::Hash::from_engine(engine).to_byte_array()).ok()
}

/// What the hops before the last will have shifted in behind the last payload (BOLT 4, "Filler Generation").
fn filler(keys: &[HopKeys], framed: &[Vec<u8>]) -> Vec<u8> {
    let mut filler = Vec::new();
    let before_last = framed.len().saturating_sub(1);
    for (key, frame) in keys.iter().zip(framed).take(before_last) {
        let start = HOP_PAYLOADS_LEN.saturating_sub(filler.len());
        filler.resize(filler.len().saturating_add(frame_len(frame)), 0);
        stream::apply(&KeyType::Rho.derive(&key.shared_secret), start, &mut filler);
    }
    filler
}

/// What a hop finds in a packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Peeled {
    /// The secret shared with the origin: failures are made and wrapped with it.
    pub shared_secret: [u8; 32],
    /// The TLV stream for this hop.
    pub payload: Vec<u8>,
    /// The packet for the next hop; `None` at the final node.
    pub next: Option<OnionPacket>,
}

impl fmt::Debug for Peeled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peeled").field("is_final", &self.next.is_none()).finish_non_exhaustive()
    }
}

/// A packet that no failure can be returned for: the answer is `update_fail_malformed_htlc` (BOLT 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed onion: failure code {code:#06x}")]
pub struct Malformed {
    /// One of the BADONION codes.
    pub code: u16,
    /// What was received, as proof to the sender of the HTLC.
    pub sha256_of_onion: [u8; 32],
}

/// Why a packet was refused.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeelError {
    /// Version, key or HMAC is wrong.
    #[error(transparent)]
    Malformed(Malformed),
    /// The packet is authentic but has no payload where there should be one: `invalid_onion_payload`, which the
    /// secret returns to the origin.
    #[error("onion payload has an invalid length")]
    InvalidPayload {
        /// The secret shared with the origin.
        shared_secret: [u8; 32],
    },
}

impl fmt::Debug for PeelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Peels one layer (BOLT 4, "Onion Decryption").
///
/// `ecdh` gives SHA256 of the compressed product of a point and the node's key. Whether the packet was seen before is
/// for the caller to know.
pub fn peel(
    ecdh: impl FnOnce(&PublicKey) -> [u8; 32],
    packet: &OnionPacket,
    associated_data: &[u8],
) -> Result<Peeled, PeelError> {
    if packet.version != 0 {
        return Err(packet.malformed(failure::INVALID_ONION_VERSION));
    }
    let invalid_key = || packet.malformed(failure::INVALID_ONION_KEY);
    let ephemeral = PublicKey::from_slice(&packet.public_key).map_err(|_| invalid_key())?;
    let shared_secret = ecdh(&ephemeral);
    let hmac = stream::hmac(&KeyType::Mu.derive(&shared_secret), &[&packet.hop_payloads, associated_data]);
    if !fixed_time_eq(&hmac, &packet.hmac) {
        return Err(packet.malformed(failure::INVALID_ONION_HMAC));
    }

    let mut unwrapped = [packet.hop_payloads, [0; HOP_PAYLOADS_LEN]].concat();
    stream::apply(&KeyType::Rho.derive(&shared_secret), 0, &mut unwrapped);
    let (payload, next_hmac, rest) = split_frame(&unwrapped).ok_or(PeelError::InvalidPayload { shared_secret })?;
    if fixed_time_eq(&next_hmac, &[0; HMAC_LEN]) {
        return Ok(Peeled { shared_secret, payload, next: None });
    }
    let blinding = blinding_factor(&packet.public_key, &shared_secret).ok_or_else(invalid_key)?;
    let next_key = ephemeral.mul_tweak(secp(), &blinding).map_err(|_| invalid_key())?;
    let next = OnionPacket { version: 0, public_key: next_key.serialize(), hop_payloads: rest, hmac: next_hmac };
    Ok(Peeled { shared_secret, payload, next: Some(next) })
}

/// The secret that a packet shares with its origin, without peeling it: what failures on their way back are wrapped with.
/// `ecdh` as for [`peel`].
pub fn shared_secret(ecdh: impl FnOnce(&PublicKey) -> [u8; 32], packet: &OnionPacket) -> Result<[u8; 32], Malformed> {
    let key = PublicKey::from_slice(&packet.public_key);
    key.map(|key| ecdh(&key)).map_err(|_| packet.malformed_as(failure::INVALID_ONION_KEY))
}

/// This hop's payload, the HMAC behind it and the next hop's bytes; `None` where the length does not allow it.
fn split_frame(unwrapped: &[u8]) -> Option<(Vec<u8>, [u8; HMAC_LEN], [u8; HOP_PAYLOADS_LEN])> {
    let mut reader = Reader::new(unwrapped);
    let length = usize::try_from(BigSize::decode(&mut reader).ok()?.0).ok()?;
    // Lengths 0 and 1 are reserved.
    if length < 2 {
        return None;
    }
    let payload = reader.take(length).ok()?.to_vec();
    let hmac = reader.array().ok()?;
    let rest = reader.array().ok()?;
    Some((payload, hmac, rest))
}
