//! Reading and writing bytes: errors, cursor, traits and the integers of BOLT 1, big-endian.
//! Reading is from a slice, which bounds every allocation.

/// Why bytes are not what they should be. All of these are the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer than the two bytes of a message `type`.
    #[error("no message type: fewer than 2 bytes")]
    NoType,
    /// A message type that is even and not known: the connection must be closed (BOLT 1).
    #[error("unknown even message type {0}")]
    UnknownEvenType(u16),
    /// Insufficient length for the contents.
    #[error("insufficient length for the contents")]
    Short,
    /// Bytes left over after a field that must fill its space.
    #[error("{0} bytes too many")]
    TooLong(usize),
    /// A BigSize in more bytes than it needs.
    #[error("bigsize is not minimally encoded")]
    NonMinimalBigSize,
    /// A truncated integer with a leading zero byte.
    #[error("truncated integer has a leading zero")]
    NonMinimalInteger,
    /// TLV types that are not strictly increasing.
    #[error("tlv type {found} after {previous}: not strictly increasing")]
    TlvOrder {
        /// The type of the record before.
        previous: u64,
        /// The type that should have been larger.
        found: u64,
    },
    /// A TLV length that exceeds the bytes remaining.
    #[error("tlv type {0}: length exceeds the remaining bytes")]
    TlvPastEnd(u64),
    /// A TLV type that is even and not known: the whole stream fails (BOLT 1).
    #[error("unknown even tlv type {0}")]
    UnknownEvenTlv(u64),
    /// 33 bytes that are no compressed point of the curve.
    #[error("not a valid point")]
    InvalidPoint,
    /// 64 bytes whose r or s is not below the order of the curve.
    #[error("not a valid signature encoding")]
    InvalidSignature,
}

/// Why a value has no encoding. Our fault, or that of the caller who made the value too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A message over 65535 bytes, or a field over what its length prefix can say.
    #[error("over the maximum of 65535 bytes")]
    TooLong,
    /// TLV records handed over in an order that is not strictly increasing.
    #[error("tlv type {found} written after {previous}")]
    TlvOrder {
        /// The type of the record before.
        previous: u64,
        /// The type that should have been larger.
        found: u64,
    },
}

/// A cursor over received bytes. It hands out parts of the slice, so no claimed length can allocate.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes, or [`DecodeError::Short`].
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes, or [`DecodeError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Bytes after their own `u16` length.
    pub fn prefixed(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = u16::decode(self)?;
        self.take(usize::from(len))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Asserts that all was read, or [`DecodeError::TooLong`].
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TooLong(self.rest.len())) }
    }
}

/// Gathers encoded bytes. The first fault is kept and comes out of [`Writer::finish`].
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    fault: Option<EncodeError>,
}

impl Writer {
    /// Starts empty.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), fault: None }
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends the `u16` that says how many of something follow.
    pub fn count(&mut self, count: usize) {
        match u16::try_from(count) {
            Ok(count) => self.bytes(&count.to_be_bytes()),
            Err(_) => self.fail(EncodeError::TooLong),
        }
    }

    /// Appends bytes after their own `u16` length.
    pub fn prefixed(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.bytes(bytes);
    }

    /// Appends `count` zero bytes.
    pub fn zeros(&mut self, count: u16) {
        self.bytes.resize(self.bytes.len().saturating_add(usize::from(count)), 0);
    }

    /// Records that the value has no encoding.
    pub fn fail(&mut self, fault: EncodeError) {
        self.fault.get_or_insert(fault);
    }

    /// The bytes, or the first fault met.
    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        self.fault.map_or(Ok(self.bytes), Err)
    }
}

/// A value with an encoding.
pub trait Encode {
    /// Appends the encoding as a field, with its own length where the type has no fixed one.
    fn encode(&self, writer: &mut Writer);

    /// Appends the encoding as a whole TLV value, where the record's length already says how long it is.
    fn encode_value(&self, writer: &mut Writer) {
        self.encode(writer);
    }
}

/// A value that can be read back from its encoding.
pub trait Decode: Sized {
    /// Reads the value as a field and leaves what follows.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads the value from exactly these bytes, as in a TLV record.
    fn decode_value(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// The variable-length integer of TLV types and lengths: CompactSize, but big-endian (BOLT 1, appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BigSize(pub u64);

impl Encode for BigSize {
    fn encode(&self, writer: &mut Writer) {
        if let Ok(small @ 0..=0xfc) = u8::try_from(self.0) {
            small.encode(writer);
        } else if let Ok(two) = u16::try_from(self.0) {
            0xfd_u8.encode(writer);
            two.encode(writer);
        } else if let Ok(four) = u32::try_from(self.0) {
            0xfe_u8.encode(writer);
            four.encode(writer);
        } else {
            0xff_u8.encode(writer);
            self.0.encode(writer);
        }
    }
}

impl Decode for BigSize {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (value, least) = match u8::decode(reader)? {
            0xfd => (u64::from(u16::decode(reader)?), 0xfd),
            0xfe => (u64::from(u32::decode(reader)?), 0x1_0000),
            0xff => (u64::decode(reader)?, 0x1_0000_0000),
            small => (u64::from(small), 0),
        };
        if value < least { Err(DecodeError::NonMinimalBigSize) } else { Ok(Self(value)) }
    }
}

/// A `tu16`, `tu32` or `tu64`: an integer without its leading zero bytes, the last field of a TLV value (BOLT 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Truncated<T>(pub T);

impl<T: Encode> Encode for Truncated<T> {
    fn encode(&self, writer: &mut Writer) {
        let mut full = Writer::new();
        self.0.encode(&mut full);
        let zeros = full.bytes.iter().take_while(|byte| **byte == 0).count();
        writer.bytes(full.bytes.get(zeros..).unwrap_or_default());
    }
}

impl<T: Decode> Decode for Truncated<T> {
    /// Takes all that is left: a truncated integer is always the last field.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let digits = reader.rest();
        let width = size_of::<T>();
        let zeros = width.checked_sub(digits.len()).ok_or(DecodeError::TooLong(digits.len().saturating_sub(width)))?;
        if digits.first() == Some(&0) {
            return Err(DecodeError::NonMinimalInteger);
        }
        let mut full = vec![0; zeros];
        full.extend_from_slice(digits);
        T::decode_value(&full).map(Self)
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array()
    }
}

impl<const N: usize> Encode for Box<[u8; N]> {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.as_ref());
    }
}

impl<const N: usize> Decode for Box<[u8; N]> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::new)
    }
}

impl Encode for u8 {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&[*self]);
    }
}

impl Decode for u8 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::from_be_bytes)
    }
}

impl Encode for u16 {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.to_be_bytes());
    }
}

impl Decode for u16 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::from_be_bytes)
    }
}

impl Encode for u32 {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.to_be_bytes());
    }
}

impl Decode for u32 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::from_be_bytes)
    }
}

impl Encode for u64 {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.to_be_bytes());
    }
}

impl Decode for u64 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::from_be_bytes)
    }
}
