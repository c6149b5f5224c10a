//! Rows as bytes. A row is one version byte and a TLV stream over the primitives of BOLT 1: an odd field that is not
//! known may be skipped, an even one must be understood. A newer version is refused, never guessed at.

mod channel;
mod monitor;

use std::collections::BTreeMap;

use outrigger_bolt::wire::codec::{Decode, Encode, Writer};
use outrigger_bolt::wire::tlv::{TlvStream, TlvWriter};

/// The version that this build writes, and the only one that it reads.
const VERSION: u8 = 1;

/// A value that is stored as one row.
pub trait Row: Sized {
    /// What the row is called in errors.
    const NAME: &'static str;

    /// The bytes of the row.
    fn encode(&self) -> Vec<u8>;

    /// The row that these bytes hold. They may come from a damaged file: anything may stand in them.
    fn decode(bytes: &[u8]) -> Result<Self, CorruptRow>;
}

/// Bytes that are not the row they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {row} row: {fault}")]
pub struct CorruptRow {
    pub row: &'static str,
    pub fault: Fault,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is empty")]
    Empty,
    #[error("version {0} is not known; a newer release may have written it")]
    Version(u8),
    #[error("its fields are not a TLV stream")]
    Stream,
    #[error("field {0} is missing")]
    Missing(u64),
    #[error("field {0} is not what it should be")]
    Field(u64),
    #[error("field {0} is not known and must be understood")]
    Unknown(u64),
}

/// Rows that can be read one by one, but not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rows that do not fit together: {0}")]
pub struct CorruptRows(pub &'static str);

impl CorruptRows {
    /// All that channel and monitor both know is the same but the number of the newest update.
    pub const UPDATE_GAP: Self = Self("channel and monitor disagree on the newest update alone: updates are missing");
}

/// A value written as a TLV stream: a whole row, or one field of a row.
trait Record: Sized {
    /// Writes the fields by increasing number.
    fn write(&self, fields: &mut TlvWriter<'_>);

    /// Takes the fields that it knows.
    fn read(fields: &mut Fields<'_>) -> Result<Self, Fault>;
}

/// The fields of a record that were not taken yet.
struct Fields<'a>(BTreeMap<u64, &'a [u8]>);

impl Fields<'_> {
    fn optional<T: Decode>(&mut self, number: u64) -> Result<Option<T>, Fault> {
        self.0.remove(&number).map(|bytes| T::decode_value(bytes).map_err(|_| Fault::Field(number))).transpose()
    }

    fn value<T: Decode>(&mut self, number: u64) -> Result<T, Fault> {
        self.optional(number)?.ok_or(Fault::Missing(number))
    }

    fn flag(&mut self, number: u64) -> Result<bool, Fault> {
        match self.value::<u8>(number)? {
            0 => Ok(false),
            1 => Ok(true),
            2.. => Err(Fault::Field(number)),
        }
    }

    /// A flag that is written only where it is set.
    fn mark(&mut self, number: u64) -> Result<bool, Fault> {
        match self.optional::<u8>(number)? {
            None => Ok(false),
            Some(1) => Ok(true),
            Some(0 | 2..) => Err(Fault::Field(number)),
        }
    }

    fn optional_record<T: Record>(&mut self, number: u64) -> Result<Option<T>, Fault> {
        self.0.remove(&number).map(parse).transpose()
    }

    fn record<T: Record>(&mut self, number: u64) -> Result<T, Fault> {
        self.optional_record(number)?.ok_or(Fault::Missing(number))
    }
}

/// A record as the value of a field.
struct Nested<'a, T>(&'a T);

impl<T: Record> Encode for Nested<'_, T> {
    fn encode(&self, writer: &mut Writer) {
        self.0.write(&mut TlvWriter::new(writer));
    }
}

fn parse<T: Record>(bytes: &[u8]) -> Result<T, Fault> {
    let mut stream = TlvStream::new(bytes);
    let mut fields = Fields(BTreeMap::new());
    while let Some(record) = stream.next_record().map_err(|_| Fault::Stream)? {
        fields.0.insert(record.number, record.value);
    }
    let record = T::read(&mut fields)?;
    match fields.0.keys().find(|number| number.is_multiple_of(2)) {
        Some(number) => Err(Fault::Unknown(*number)),
        None => Ok(record),
    }
}

/// The bytes of a row that is this record.
#[expect(
    clippy::expect_used,
    reason = "only a list of more than 65535 elements has no encoding; 483 HTLCs is the most"
)]
fn encode_row(record: &impl Record) -> Vec<u8> {
    let mut writer = Writer::new();
    VERSION.encode(&mut writer);
    Nested(record).encode(&mut writer);
    writer.finish().expect("every row can be encoded")
}

/// The record that is this row.
fn decode_row<T: Record>(row: &'static str, bytes: &[u8]) -> Result<T, CorruptRow> {
    let record = match bytes.split_first() {
        None => Err(Fault::Empty),
        Some((&VERSION, stream)) => parse(stream),
        Some((version, _)) => Err(Fault::Version(*version)),
    };
    record.map_err(|fault| CorruptRow { row, fault })
}
