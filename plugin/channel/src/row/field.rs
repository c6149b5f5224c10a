//! The values that fields hold: fixed-size integers big-endian, points compressed, signatures compact, and what has no
//! fixed size last in its field.

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, ShortChannelId};

/// A value with one form as bytes.
pub(crate) trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);

    /// Takes the value from the front, or `None` where it does not stand there. What follows stays.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let (value, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(*value)
    }
}

impl Field for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        <[u8; 1]>::take(from).map(|[byte]| byte)
    }
}

impl Field for u16 {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_be_bytes().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        <[u8; 2]>::take(from).map(Self::from_be_bytes)
    }
}

impl Field for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_be_bytes().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        <[u8; 4]>::take(from).map(Self::from_be_bytes)
    }
}

impl Field for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_be_bytes().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        <[u8; 8]>::take(from).map(Self::from_be_bytes)
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            2.. => None,
        }
    }
}

impl Field for Msat {
    fn put(&self, out: &mut Vec<u8>) {
        self.get().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u64::take(from).map(Self::new)
    }
}

impl Field for Sat {
    fn put(&self, out: &mut Vec<u8>) {
        self.get().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u64::take(from).map(Self::new)
    }
}

impl Field for FeeratePerKw {
    fn put(&self, out: &mut Vec<u8>) {
        self.get().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u32::take(from).map(Self::new)
    }
}

impl Field for ChannelId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Field::take(from).map(Self)
    }
}

impl Field for PaymentHash {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Field::take(from).map(Self)
    }
}

impl Field for PaymentPreimage {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Field::take(from).map(Self)
    }
}

impl Field for ShortChannelId {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_u64().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u64::take(from).map(Self::from_u64)
    }
}

impl Field for PublicKey {
    fn put(&self, out: &mut Vec<u8>) {
        self.serialize().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_slice(&<[u8; 33]>::take(from)?).ok()
    }
}

impl Field for NodeId {
    fn put(&self, out: &mut Vec<u8>) {
        self.serialize().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        PublicKey::take(from).map(Self::new)
    }
}

impl Field for Signature {
    fn put(&self, out: &mut Vec<u8>) {
        self.serialize_compact().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_compact(&<[u8; 64]>::take(from)?).ok()
    }
}

impl Field for Txid {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_byte_array().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Field::take(from).map(Self::from_byte_array)
    }
}

impl Field for OutPoint {
    fn put(&self, out: &mut Vec<u8>) {
        self.txid.put(out);
        self.vout.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(Self { txid: Txid::take(from)?, vout: u32::take(from)? })
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

/// To the end of the field.
impl Field for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(std::mem::take(from).to_vec())
    }
}

/// To the end of the field.
impl Field for Vec<Signature> {
    fn put(&self, out: &mut Vec<u8>) {
        for signature in self {
            signature.put(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut signatures = Self::new();
        while !from.is_empty() {
            signatures.push(Signature::take(from)?);
        }
        Some(signatures)
    }
}

/// To the end of the field.
impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::take(from)?).ok()
    }
}

/// To the end of the field.
impl Field for ScriptBuf {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Vec::take(from).map(Self::from_bytes)
    }
}

/// To the end of the field, big-endian as in messages (BOLT 9).
impl Field for Features {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(Self::from_bytes(std::mem::take(from)))
    }
}

/// To the end of the field, as the chain has it.
impl Field for Transaction {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(encode::serialize(self));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        encode::deserialize(std::mem::take(from)).ok()
    }
}
