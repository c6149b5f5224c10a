//! Rows as bytes. A row is one version byte and a TLV stream over the primitives of BOLT 1: an odd field that is not
//! known may be skipped, an even one must be understood. A newer version is refused, never guessed at.

mod channel;
mod field;
mod monitor;

use std::collections::BTreeMap;

use outrigger_bolt::wire::tlv;

pub(crate) use field::Field;

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rows that do not fit together: {0}")]
pub struct CorruptRows(String);

impl CorruptRows {
    /// With what was found, for the operator.
    pub fn new(finding: impl Into<String>) -> Self {
        Self(finding.into())
    }
}

/// A value written as a TLV stream: a whole row, or a field within one.
pub(crate) trait Record: Sized {
    fn write(&self, fields: &mut Writer);
    fn read(fields: &mut Reader<'_>) -> Result<Self, Fault>;
}

/// Gathers the fields of a record in ascending order.
#[derive(Default)]
pub(crate) struct Writer(BTreeMap<u64, Vec<u8>>);

impl Writer {
    pub(crate) fn field(&mut self, number: u64, value: &impl Field) -> &mut Self {
        let mut bytes = Vec::new();
        value.put(&mut bytes);
        self.0.insert(number, bytes);
        self
    }

    pub(crate) fn optional(&mut self, number: u64, value: Option<&impl Field>) -> &mut Self {
        if let Some(value) = value {
            self.field(number, value);
        }
        self
    }

    pub(crate) fn record(&mut self, number: u64, value: &impl Record) -> &mut Self {
        self.0.insert(number, stream(value));
        self
    }
}

/// Hands out the fields of a record.
pub(crate) struct Reader<'a>(BTreeMap<u64, &'a [u8]>);

impl Reader<'_> {
    pub(crate) fn field<T: Field>(&mut self, number: u64) -> Result<T, Fault> {
        self.optional(number)?.ok_or(Fault::Missing(number))
    }

    pub(crate) fn optional<T: Field>(&mut self, number: u64) -> Result<Option<T>, Fault> {
        self.0.remove(&number).map(|bytes| whole(bytes).ok_or(Fault::Field(number))).transpose()
    }

    pub(crate) fn record<T: Record>(&mut self, number: u64) -> Result<T, Fault> {
        self.optional_record(number)?.ok_or(Fault::Missing(number))
    }

    pub(crate) fn optional_record<T: Record>(&mut self, number: u64) -> Result<Option<T>, Fault> {
        self.0.remove(&number).map(parse).transpose()
    }
}

/// A field that fills its bytes exactly.
fn whole<T: Field>(mut bytes: &[u8]) -> Option<T> {
    let value = T::take(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

fn stream(record: &impl Record) -> Vec<u8> {
    let mut fields = Writer::default();
    record.write(&mut fields);
    let mut bytes = Vec::new();
    for (number, value) in &fields.0 {
        tlv::write_record(&mut bytes, *number, value);
    }
    bytes
}

fn parse<T: Record>(bytes: &[u8]) -> Result<T, Fault> {
    let mut fields = BTreeMap::new();
    for record in tlv::records(bytes) {
        let (number, value) = record.map_err(|_| Fault::Stream)?;
        fields.insert(number, value);
    }
    let mut reader = Reader(fields);
    let record = T::read(&mut reader)?;
    match reader.0.keys().find(|number| number.is_multiple_of(2)) {
        Some(number) => Err(Fault::Unknown(*number)),
        None => Ok(record),
    }
}

/// The bytes of a row that is this record.
fn encode_row(record: &impl Record) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(stream(record));
    bytes
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
