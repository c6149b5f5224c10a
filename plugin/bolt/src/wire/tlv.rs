//! TLV streams (BOLT 1, "Type-Length-Value Format"): messages, onion payloads and stored rows all use them.

use super::codec::{BigSize, Decode, DecodeError, Encode, EncodeError, Reader, Writer};

/// Reads a stream record by record, holding it to the order, minimality and length rules.
#[derive(Clone, Debug)]
pub struct TlvStream<'a> {
    reader: Reader<'a>,
    previous: Option<u64>,
}

/// One record: its type and the bytes of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlvRecord<'a> {
    /// The record's `type`.
    pub number: u64,
    /// Exactly `length` bytes.
    pub value: &'a [u8],
}

impl<'a> TlvStream<'a> {
    /// Starts at the first record.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), previous: None }
    }

    /// The next record, `None` at the end of the bytes.
    ///
    /// Fails with `Short`, `NonMinimalBigSize`, `TlvOrder` or `TlvPastEnd`; the stream is then worth nothing.
    pub fn next_record(&mut self) -> Result<Option<TlvRecord<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let BigSize(number) = BigSize::decode(&mut self.reader)?;
        if let Some(previous) = self.previous.replace(number)
            && number <= previous
        {
            return Err(DecodeError::TlvOrder { previous, found: number });
        }
        let BigSize(length) = BigSize::decode(&mut self.reader)?;
        let past_end = DecodeError::TlvPastEnd(number);
        let length = usize::try_from(length).map_err(|_| past_end)?;
        let value = self.reader.take(length).map_err(|_| past_end)?;
        Ok(Some(TlvRecord { number, value }))
    }
}

impl TlvRecord<'_> {
    /// Reads the value, which must be as long as its encoding exactly.
    pub fn decode<T: Decode>(&self) -> Result<T, DecodeError> {
        T::decode_value(self.value)
    }

    /// Passes over a record of a type not known here: fine when odd, [`DecodeError::UnknownEvenTlv`] when even.
    pub const fn ignore(&self) -> Result<(), DecodeError> {
        if self.number.is_multiple_of(2) { Err(DecodeError::UnknownEvenTlv(self.number)) } else { Ok(()) }
    }
}

/// Writes a stream. Records must be handed over by strictly increasing type: the caller's duty, checked here.
#[derive(Debug)]
pub struct TlvWriter<'a> {
    writer: &'a mut Writer,
    previous: Option<u64>,
}

impl<'a> TlvWriter<'a> {
    /// Appends to what `writer` holds.
    pub const fn new(writer: &'a mut Writer) -> Self {
        Self { writer, previous: None }
    }

    /// Appends a record. A type out of order comes out of [`Writer::finish`] as [`EncodeError::TlvOrder`].
    pub fn record(&mut self, number: u64, value: &impl Encode) {
        if let Some(previous) = self.previous.replace(number)
            && number <= previous
        {
            self.writer.fail(EncodeError::TlvOrder { previous, found: number });
        }
        let mut inner = Writer::new();
        value.encode_value(&mut inner);
        match inner.finish() {
            Ok(bytes) => {
                BigSize(number).encode(self.writer);
                BigSize(bytes.len() as u64).encode(self.writer);
                self.writer.bytes(&bytes);
            }
            Err(fault) => self.writer.fail(fault),
        }
    }

    /// Appends a record where there is a value.
    pub fn optional(&mut self, number: u64, value: Option<&impl Encode>) {
        if let Some(value) = value {
            self.record(number, value);
        }
    }
}

/// The extension of a signed message: kept byte for byte, because the signature covers it (BOLT 1, appendix C).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension(Vec<u8>);

impl Extension {
    /// The bytes of the stream.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Encode for Extension {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.0);
    }
}

impl Decode for Extension {
    /// Takes all that is left: a valid stream without unknown even types.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = reader.rest();
        let mut stream = TlvStream::new(bytes);
        while let Some(record) = stream.next_record()? {
            record.ignore()?;
        }
        Ok(Self(bytes.to_vec()))
    }
}
