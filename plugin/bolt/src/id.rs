//! Names of nodes, channels and payments.

use std::fmt;
use std::str::FromStr;

use bitcoin::OutPoint;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::PublicKey;

/// A text that is not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct InvalidId(pub &'static str);

/// A node's public key (BOLT 8).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(PublicKey);

impl NodeId {
    /// The identity that this key proves.
    pub const fn new(key: PublicKey) -> Self {
        Self(key)
    }

    /// The key itself.
    pub const fn public_key(&self) -> &PublicKey {
        &self.0
    }

    /// The 33 bytes of the compressed key.
    pub fn serialize(&self) -> [u8; 33] {
        self.0.serialize()
    }

    /// From the 33 bytes of a compressed key.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
        PublicKey::from_slice(bytes).map(Self).map_err(|_| InvalidId("node_id"))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        PublicKey::from_str(text).map(Self).map_err(|_| InvalidId("node_id"))
    }
}

/// Thirty-two bytes with a meaning, shown as lowercase hex.
macro_rules! thirty_two_bytes {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0.as_hex(), f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                <[u8; 32]>::from_hex(text).map(Self).map_err(|_| InvalidId($word))
            }
        }
    )*};
}

thirty_two_bytes! {
    /// A channel's name: the funding txid with the output index mixed into its last two bytes,
    /// or the opener's temporary choice before there is one (BOLT 2).
    ChannelId = "channel_id";
    /// The SHA256 of a payment preimage (BOLT 4).
    PaymentHash = "payment_hash";
    /// The proof of payment. Shown to callers who own it, never logged: it has no `Debug` that prints it.
    PaymentPreimage = "payment_preimage";
    /// What proves to the receiver that a payer holds the invoice (BOLT 4, `payment_secret`). Never logged.
    PaymentSecret = "payment_secret";
}

impl ChannelId {
    /// The name that a v1 channel has from its funding outpoint on (BOLT 2, "Definition of `channel_id`").
    pub fn from_funding(outpoint: OutPoint) -> Self {
        let mut bytes = outpoint.txid.to_byte_array();
        let [.., high, low] = &mut bytes;
        let [index_high, index_low] = (outpoint.vout as u16).to_be_bytes();
        *high ^= index_high;
        *low ^= index_low;
        Self(bytes)
    }
}

impl PaymentPreimage {
    /// The hash that this preimage answers.
    pub fn payment_hash(&self) -> PaymentHash {
        PaymentHash(sha256::Hash::hash(&self.0).to_byte_array())
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PaymentPreimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentPreimage(..)")
    }
}

impl fmt::Debug for PaymentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentSecret(..)")
    }
}

/// Where a funding output stands in the chain: block height, transaction index, output index (BOLT 7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortChannelId(u64);

impl ShortChannelId {
    /// From its parts, or `None` where one does not fit its 24, 24 or 16 bits.
    pub fn new(block_height: u32, tx_index: u32, output_index: u32) -> Option<Self> {
        const MAX_24: u32 = (1 << 24) - 1;
        if block_height > MAX_24 || tx_index > MAX_24 || output_index > u32::from(u16::MAX) {
            return None;
        }
        Some(Self(u64::from(block_height) << 40 | u64::from(tx_index) << 16 | u64::from(output_index)))
    }

    /// From the eight bytes that stand in messages.
    pub const fn from_u64(scid: u64) -> Self {
        Self(scid)
    }

    /// The eight bytes that stand in messages.
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// An alias (BOLT 2, `channel_ready`) made of these random bits. Its block height is 2^23 or more, some 150 years
    /// ahead, so that it is never the real id of any channel.
    pub const fn alias(random: u64) -> Self {
        Self(random | 1 << 63)
    }

    /// The height of the block that holds the funding transaction.
    pub const fn block_height(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// The index of the funding transaction in its block.
    pub const fn tx_index(self) -> u32 {
        (self.0 >> 16) as u32 & 0x00ff_ffff
    }

    /// The index of the funding output in its transaction.
    pub const fn output_index(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.block_height(), self.tx_index(), self.output_index())
    }
}

impl fmt::Debug for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ShortChannelId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId("short_channel_id");
        let mut parts = text.split('x').map(|part| part.parse::<u32>().map_err(|_| invalid));
        let mut next = || parts.next().unwrap_or(Err(invalid));
        let scid = Self::new(next()?, next()?, next()?).ok_or(invalid)?;
        if parts.next().is_some() { Err(invalid) } else { Ok(scid) }
    }
}
