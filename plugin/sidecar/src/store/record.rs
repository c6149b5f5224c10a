//! The shape of a row that the sidecar itself owns: a version, then fields of type, length and value in rising order.
//! A reader skips an odd type that it does not know and refuses an even one.

use std::collections::BTreeMap;

use outrigger_bolt::id::NodeId;
use outrigger_bolt::wire::codec::{Encode, Writer};
use outrigger_bolt::wire::tlv::{TlvStream, TlvWriter};

/// A row that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    #[error("an empty row")]
    Empty,
    #[error("a row of version {0}, which this program does not know")]
    Version(u8),
    #[error("a row that ends inside a field")]
    Truncated,
    #[error("a row with field {0}, which must be understood and is not")]
    UnknownEven(u64),
    #[error("a row without its {0}")]
    Missing(&'static str),
    #[error("a row whose {0} cannot be read")]
    Malformed(&'static str),
}

/// Writes fields; types must rise.
#[derive(Debug)]
pub(super) struct RecordWriter {
    version: u8,
    fields: Vec<(u64, Vec<u8>)>,
}

impl RecordWriter {
    pub(super) fn new(version: u8) -> Self {
        Self { version, fields: Vec::new() }
    }

    pub(super) fn put(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((field, value.as_ref().to_vec()));
        self
    }

    pub(super) fn put_some(self, field: u64, value: Option<impl AsRef<[u8]>>) -> Self {
        match value {
            Some(value) => self.put(field, value),
            None => self,
        }
    }

    /// The bytes of the row.
    #[expect(clippy::expect_used, reason = "the callers are the row types of this crate, whose field numbers rise")]
    pub(super) fn finish(self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.version.encode(&mut writer);
        let mut stream = TlvWriter::new(&mut writer);
        for (field, value) in &self.fields {
            stream.record(*field, value);
        }
        writer.finish().expect("fields rise")
    }
}

/// The fields of a row, each taken once.
#[derive(Debug)]
pub(super) struct RecordReader<'a> {
    fields: BTreeMap<u64, &'a [u8]>,
}

impl<'a> RecordReader<'a> {
    /// Takes a row apart; it must be of this version.
    pub(super) fn new(bytes: &'a [u8], version: u8) -> Result<Self, BadRecord> {
        let (found, rest) = bytes.split_first().ok_or(BadRecord::Empty)?;
        if *found != version {
            return Err(BadRecord::Version(*found));
        }
        let mut fields = BTreeMap::new();
        let mut stream = TlvStream::new(rest);
        while let Some(record) = stream.next_record().map_err(|_| BadRecord::Truncated)? {
            fields.insert(record.number, record.value);
        }
        Ok(Self { fields })
    }

    /// Checks that what was not taken may be skipped.
    pub(super) fn finish(self) -> Result<(), BadRecord> {
        match self.fields.into_keys().find(|field| field % 2 == 0) {
            Some(field) => Err(BadRecord::UnknownEven(field)),
            None => Ok(()),
        }
    }

    pub(super) fn bytes_some(&mut self, field: u64) -> Option<&'a [u8]> {
        self.fields.remove(&field)
    }

    pub(super) fn bytes(&mut self, field: u64, name: &'static str) -> Result<&'a [u8], BadRecord> {
        self.bytes_some(field).ok_or(BadRecord::Missing(name))
    }

    pub(super) fn array_some<const N: usize>(
        &mut self,
        field: u64,
        name: &'static str,
    ) -> Result<Option<[u8; N]>, BadRecord> {
        self.bytes_some(field).map(|bytes| bytes.try_into().map_err(|_| BadRecord::Malformed(name))).transpose()
    }

    pub(super) fn array<const N: usize>(&mut self, field: u64, name: &'static str) -> Result<[u8; N], BadRecord> {
        self.array_some(field, name)?.ok_or(BadRecord::Missing(name))
    }

    pub(super) fn u8(&mut self, field: u64, name: &'static str) -> Result<u8, BadRecord> {
        self.array(field, name).map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn u32(&mut self, field: u64, name: &'static str) -> Result<u32, BadRecord> {
        self.array(field, name).map(u32::from_be_bytes)
    }

    pub(super) fn u64_some(&mut self, field: u64, name: &'static str) -> Result<Option<u64>, BadRecord> {
        Ok(self.array_some(field, name)?.map(u64::from_be_bytes))
    }

    pub(super) fn u64(&mut self, field: u64, name: &'static str) -> Result<u64, BadRecord> {
        self.array(field, name).map(u64::from_be_bytes)
    }

    pub(super) fn text_some(&mut self, field: u64, name: &'static str) -> Result<Option<String>, BadRecord> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| BadRecord::Malformed(name));
        self.bytes_some(field).map(text).transpose()
    }

    pub(super) fn text(&mut self, field: u64, name: &'static str) -> Result<String, BadRecord> {
        self.text_some(field, name)?.ok_or(BadRecord::Missing(name))
    }

    pub(super) fn node_id(&mut self, field: u64, name: &'static str) -> Result<NodeId, BadRecord> {
        NodeId::from_slice(self.bytes(field, name)?).map_err(|_| BadRecord::Malformed(name))
    }
}
