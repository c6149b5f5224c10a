//! The row of a processed onion (FWD-17).

use outrigger_bolt::id::ChannelId;

use super::record::{BadRecord, RecordReader, RecordWriter};

/// The HTLC whose onion was processed, and the height after which the onion has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRow {
    pub channel: ChannelId,
    pub htlc_id: u64,
    pub until: u32,
}

impl ReplayRow {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1)
            .put(0, self.channel.0)
            .put(2, self.htlc_id.to_be_bytes())
            .put(4, self.until.to_be_bytes())
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            channel: ChannelId(record.array(0, "channel")?),
            htlc_id: record.u64(2, "HTLC id")?,
            until: record.u32(4, "height")?,
        };
        record.finish()?;
        Ok(row)
    }
}
