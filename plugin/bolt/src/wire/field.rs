//! The encodings of our own types and of the curve's: BOLT 1, "Fundamental Types", and the length prefixes of BOLT 2.

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Txid};

use super::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::amount::{FeeratePerKw, Msat, Sat};
use crate::features::Features;
use crate::id::{ChannelId, PaymentHash, PaymentPreimage, PaymentSecret, ShortChannelId};

impl Encode for Sat {
    fn encode(&self, writer: &mut Writer) {
        self.get().encode(writer);
    }
}

impl Decode for Sat {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u64::decode(reader).map(Self::new)
    }
}

impl Encode for Msat {
    fn encode(&self, writer: &mut Writer) {
        self.get().encode(writer);
    }
}

impl Decode for Msat {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u64::decode(reader).map(Self::new)
    }
}

impl Encode for FeeratePerKw {
    fn encode(&self, writer: &mut Writer) {
        self.get().encode(writer);
    }
}

impl Decode for FeeratePerKw {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u32::decode(reader).map(Self::new)
    }
}

impl Encode for ShortChannelId {
    fn encode(&self, writer: &mut Writer) {
        self.to_u64().encode(writer);
    }
}

impl Decode for ShortChannelId {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u64::decode(reader).map(Self::from_u64)
    }
}

impl Encode for ChannelId {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
}

impl Decode for ChannelId {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}

impl Encode for PaymentHash {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
}

impl Decode for PaymentHash {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}

impl Encode for PaymentPreimage {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
}

impl Decode for PaymentPreimage {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}

impl Encode for PaymentSecret {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
}

impl Decode for PaymentSecret {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}

impl Encode for ChainHash {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.as_bytes());
    }
}

impl Decode for ChainHash {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array::<32>().map(Self::from)
    }
}

impl Encode for Txid {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.to_byte_array());
    }
}

impl Decode for Txid {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::from_byte_array)
    }
}

impl Encode for PublicKey {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.serialize());
    }
}

impl Decode for PublicKey {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_slice(&reader.array::<33>()?).map_err(|_| DecodeError::InvalidPoint)
    }
}

impl Encode for Signature {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.serialize_compact());
    }
}

impl Decode for Signature {
    /// Takes a high S as it stands: verification refuses it, with the channel at hand to blame.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_compact(&reader.array::<64>()?).map_err(|_| DecodeError::InvalidSignature)
    }
}

impl Encode for Vec<Signature> {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.len());
        self.iter().for_each(|signature| signature.encode(writer));
    }
}

impl Decode for Vec<Signature> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = u16::decode(reader)?;
        let mut all = Reader::new(reader.take(usize::from(count).saturating_mul(64))?);
        (0..count).map(|_| Signature::decode(&mut all)).collect()
    }
}

impl Encode for Vec<ChainHash> {
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.len());
        self.encode_value(writer);
    }

    fn encode_value(&self, writer: &mut Writer) {
        self.iter().for_each(|chain| chain.encode(writer));
    }
}

impl Decode for Vec<ChainHash> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = u16::decode(reader)?;
        Self::decode_value(reader.take(usize::from(count).saturating_mul(32))?)
    }

    fn decode_value(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut chains = Self::new();
        while !reader.is_empty() {
            chains.push(ChainHash::decode(&mut reader)?);
        }
        Ok(chains)
    }
}

impl Encode for Vec<u8> {
    fn encode(&self, writer: &mut Writer) {
        writer.prefixed(self);
    }

    fn encode_value(&self, writer: &mut Writer) {
        writer.bytes(self);
    }
}

impl Decode for Vec<u8> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.prefixed().map(Self::from)
    }

    fn decode_value(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(bytes.to_vec())
    }
}

impl Encode for ScriptBuf {
    fn encode(&self, writer: &mut Writer) {
        writer.prefixed(self.as_bytes());
    }

    fn encode_value(&self, writer: &mut Writer) {
        writer.bytes(self.as_bytes());
    }
}

impl Decode for ScriptBuf {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Vec::decode(reader).map(Self::from_bytes)
    }

    fn decode_value(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(bytes.to_vec()))
    }
}

impl Encode for Features {
    fn encode(&self, writer: &mut Writer) {
        writer.prefixed(&self.to_be_bytes());
    }

    fn encode_value(&self, writer: &mut Writer) {
        writer.bytes(&self.to_be_bytes());
    }
}

impl Decode for Features {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.prefixed().map(Self::from_be_bytes)
    }

    fn decode_value(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::from_be_bytes(bytes))
    }
}
