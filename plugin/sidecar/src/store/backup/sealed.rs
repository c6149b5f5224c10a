//! What is kept where others may read or write it: encrypted with a key that only the seed gives, and bound to the name
//! under which it is kept. A record that was changed, swapped with another, or put in the place of a newer one does not open.

use std::cmp::Ordering;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use outrigger_bolt::id::{ChannelId, NodeId};
use zeroize::Zeroizing;

use super::SinkEnds;

/// The form that is written: its first byte.
const VERSION: u8 = 1;

/// The largest sealed record that is written and read back, in bytes. A full write grows with the HTLCs that its channel ever had,
/// some 150 bytes each: one that comes near the limit is to be closed.
pub const MAX_RECORD_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of a nonce (XChaCha20).
const NONCE_LEN: usize = 24;

/// Bytes of a Poly1305 tag.
const TAG_LEN: usize = 16;

/// Lengths are rounded up to a multiple of this, so that they tell little of what a channel does.
const STEP: usize = 512;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Everything of a channel.
    Full,
    /// What changed since the record before.
    Update,
    /// How far the chain was followed; of no channel.
    Tip,
}

impl RecordKind {
    /// The word for it in files and in the protocol of commands.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Update => "update",
            Self::Tip => "tip",
        }
    }

    /// The kind that a word means.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Full, Self::Update, Self::Tip].into_iter().find(|kind| kind.word() == word)
    }
}

/// The name of a record: it is part of what is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName {
    /// The channel; zeroes for a tip.
    pub channel: ChannelId,
    pub kind: RecordKind,
    /// The id that an update follows; else 0.
    pub from: u64,
    /// The id that it leads to. For a tip its height.
    pub id: u64,
}

impl RecordName {
    /// Everything of a channel as it was at this id.
    pub const fn full(channel: ChannelId, id: u64) -> Self {
        Self { channel, kind: RecordKind::Full, from: 0, id }
    }

    /// What changed from one id to a later one.
    pub const fn update(channel: ChannelId, from: u64, id: u64) -> Self {
        Self { channel, kind: RecordKind::Update, from, id }
    }

    /// How far the chain was followed.
    pub const fn tip(height: u32) -> Self {
        Self { channel: ChannelId([0; 32]), kind: RecordKind::Tip, from: 0, id: height as u64 }
    }
}

/// Bytes that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotOpen {
    #[error("it was written by a newer version (form {0}), or is damaged")]
    Newer(u8),
    #[error("it ends too early")]
    Short,
    #[error("it is damaged, stands under another's name, or was written with another seed")]
    NotAuthentic,
}

/// Whether a record holds everything of a channel that takes so many bytes. Where it does not the channel waits, alone, and the operator
/// is shown why: a record that cannot be read back must not count, and no channel is to be failed for what can be mended.
pub(super) fn fits(ends: &SinkEnds, channel: &ChannelId, bytes: usize) -> bool {
    let bytes = bytes as u64;
    let with_rest = bytes.saturating_add((STEP + NONCE_LEN + TAG_LEN + 1) as u64);
    if with_rest > MAX_RECORD_BYTES {
        let words = format!(
            "channel {channel} has {bytes} bytes of rows, and a record holds {MAX_RECORD_BYTES} at most: a mirror has no such limit, so \
             put one in the place of this backup; or take it out of the configuration, and close the channel"
        );
        tracing::error!(words, "a channel is too large for a backup");
        ends.waits_alone(channel, &words);
        return false;
    }
    ends.joins_again(channel);
    if with_rest > MAX_RECORD_BYTES / 2 {
        tracing::warn!(%channel, bytes, limit = MAX_RECORD_BYTES, "a channel grows too large for a backup: close it soon");
    }
    true
}

/// Seals and opens the records of one node.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    nonces: Zeroizing<[u8; 32]>,
    /// Network and node, authenticated with every record.
    owner: Vec<u8>,
}

impl Sealer {
    /// `secret` is the branch of the seed that is for backups alone.
    pub fn new(secret: &[u8; 32], network: &str, node_id: &NodeId) -> Self {
        let key = Zeroizing::new(mac(secret, &[b"outrigger backup key"]));
        let mut owner = node_id.serialize().to_vec();
        owner.extend_from_slice(network.as_bytes());
        Self {
            cipher: XChaCha20Poly1305::new(key.as_slice().into()),
            nonces: Zeroizing::new(mac(secret, &[b"outrigger backup nonce"])),
            owner,
        }
    }

    /// The bytes to keep under this name. The same name and content give the same bytes. The nonce is a keyed hash of both, so
    /// it is never that of another content.
    pub fn seal(&self, name: &RecordName, content: &[u8]) -> Vec<u8> {
        let label = self.label(name);
        let mut plain = Zeroizing::new(Vec::with_capacity(content.len().saturating_add(STEP)));
        plain.extend_from_slice(&(content.len() as u64).to_be_bytes());
        plain.extend_from_slice(content);
        let padded = plain.len().div_ceil(STEP).saturating_mul(STEP);
        plain.resize(padded, 0);
        let digest = mac(&self.nonces, &[&(label.len() as u64).to_be_bytes(), &label, &plain]);
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let payload = Payload { msg: &plain, aad: &label };
        #[expect(clippy::expect_used, reason = "the cipher refuses no length below 256 GiB")]
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload).expect("a record is no 256 GiB");
        [&[VERSION], nonce.as_slice(), &sealed].concat()
    }

    /// The content that was sealed under this name.
    pub fn open(&self, name: &RecordName, bytes: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (version, rest) = bytes.split_first().ok_or(CannotOpen::Short)?;
        match version.cmp(&VERSION) {
            // The form is authenticated: what opens as one of ours is no newer one, and its first byte is damaged.
            Ordering::Greater if self.opened(name, rest).is_ok() => Err(CannotOpen::NotAuthentic),
            Ordering::Greater => Err(CannotOpen::Newer(*version)),
            Ordering::Less => Err(CannotOpen::NotAuthentic),
            Ordering::Equal => self.opened(name, rest),
        }
    }

    /// What stands behind the form in a record of this one.
    fn opened(&self, name: &RecordName, rest: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(CannotOpen::Short)?;
        if sealed.len() < TAG_LEN {
            return Err(CannotOpen::Short);
        }
        let label = self.label(name);
        let payload = Payload { msg: sealed, aad: &label };
        let opened = self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| CannotOpen::NotAuthentic)?;
        let plain = Zeroizing::new(opened);
        let (length, content) = plain.split_first_chunk::<8>().ok_or(CannotOpen::NotAuthentic)?;
        let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| CannotOpen::NotAuthentic)?;
        Ok(content.get(..length).ok_or(CannotOpen::NotAuthentic)?.to_vec())
    }

    fn label(&self, name: &RecordName) -> Vec<u8> {
        let mut label = vec![VERSION, name.kind as u8];
        label.extend_from_slice(&name.channel.0);
        label.extend_from_slice(&name.from.to_be_bytes());
        label.extend_from_slice(&name.id.to_be_bytes());
        label.extend_from_slice(&self.owner);
        label
    }
}

/// HMAC-SHA256 of these parts, one behind the other.
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    parts.iter().for_each(|part| engine.input(part));
    Hmac::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::new(PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[byte; 32]).unwrap()))
    }

    fn name() -> RecordName {
        RecordName::update(ChannelId([1; 32]), 5, 7)
    }

    #[test]
    fn bak_8_a_record_opens_under_its_own_name_for_its_own_node_and_in_no_other_way() {
        let sealer = Sealer::new(&[1; 32], "regtest", &node(1));
        let sealed = sealer.seal(&name(), b"all of it");
        assert_eq!(sealer.open(&name(), &sealed).unwrap(), b"all of it");
        let others = [
            RecordName { channel: ChannelId([2; 32]), ..name() },
            RecordName { kind: RecordKind::Full, ..name() },
            RecordName { kind: RecordKind::Tip, ..name() },
            RecordName { id: 8, ..name() },
            RecordName { from: 6, ..name() },
            RecordName { id: 6, ..name() },
        ];
        for other in others {
            assert_eq!(sealer.open(&other, &sealed), Err(CannotOpen::NotAuthentic), "{other:?}");
        }
        let strangers = [
            Sealer::new(&[2; 32], "regtest", &node(1)),
            Sealer::new(&[1; 32], "signet", &node(1)),
            Sealer::new(&[1; 32], "regtest", &node(2)),
        ];
        for stranger in strangers {
            assert_eq!(stranger.open(&name(), &sealed), Err(CannotOpen::NotAuthentic));
        }
    }

    #[test]
    fn bak_8_no_bit_and_no_end_of_a_record_can_be_changed() {
        let sealer = Sealer::new(&[1; 32], "regtest", &node(1));
        let sealed = sealer.seal(&name(), b"content");
        for bit in 0..sealed.len() * 8 {
            let mut bent = sealed.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&name(), &bent), Err(CannotOpen::NotAuthentic), "bit {bit}");
        }
        let mut newer = sealed.clone();
        (newer[0], newer[1]) = (VERSION + 1, !newer[1]);
        assert_eq!(sealer.open(&name(), &newer), Err(CannotOpen::Newer(VERSION + 1)), "no record of this form");
        for length in 0..sealed.len() {
            assert!(sealer.open(&name(), &sealed[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn bad_input_95_a_channel_that_no_record_holds_is_told_and_not_written() {
        let ends = SinkEnds::new(|_, _| (), std::time::Instant::now);
        let most = MAX_RECORD_BYTES as usize - STEP - NONCE_LEN - TAG_LEN - 1;
        assert!(fits(&ends, &ChannelId([1; 32]), most) && ends.trouble_now().is_none());
        assert!(!fits(&ends, &ChannelId([1; 32]), most + 1));
        let (words, _) = ends.trouble_now().unwrap();
        assert!(words.contains(&ChannelId([1; 32]).to_string()) && words.contains("268435456 at most"), "{words}");
    }

    #[test]
    fn the_length_of_a_record_tells_its_content_in_steps_alone() {
        let sealer = Sealer::new(&[1; 32], "regtest", &node(1));
        let length = |content: usize| sealer.seal(&name(), &vec![0; content]).len();
        assert_eq!(length(0), length(STEP - 8));
        assert_eq!(length(STEP - 7), length(2 * STEP - 8));
        assert_eq!(length(STEP - 7) - length(0), STEP);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes_and_another_one_another_nonce() {
        let sealer = Sealer::new(&[1; 32], "regtest", &node(1));
        assert_eq!(sealer.seal(&name(), b"a"), sealer.seal(&name(), b"a"));
        let nonce = |name: &RecordName, content: &[u8]| sealer.seal(name, content)[1..=NONCE_LEN].to_vec();
        assert_ne!(nonce(&name(), b"a"), nonce(&name(), b"b"));
        assert_ne!(nonce(&name(), b"a"), nonce(&RecordName { id: 8, ..name() }, b"a"));
        assert_ne!(nonce(&name(), b"a"), nonce(&name(), b"a\0"), "padding is no content");
    }
}
