//! How far the rows of a channel had followed the chain: a restore follows it from there, or from the newest record of the tip
//! where the rows are known to be as new as that.
//!
//! The wallet's row for a block is queued behind the rows of every channel that the block concerns, and with it one of `meta` that
//! names the block. So in the commit that has it, and in each later one, the rows of every channel have taken in that block and all
//! before it. The writer tells each channel's rows so, with the first change of theirs that comes after it.

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use super::image::Image;
use crate::store::batch::Batch;
use crate::store::record::{BadRecord, RecordReader, RecordWriter};
use crate::store::schema::{FOLLOWED_KEY, Table, channel_key};

/// The version of rows.
const VERSION: u8 = 1;

/// A block that was taken in, with all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub height: u32,
    pub hash: BlockHash,
}

impl Followed {
    /// The bytes of a row.
    pub fn encode(&self) -> Vec<u8> {
        let record = RecordWriter::new(VERSION).put(0, self.height.to_be_bytes()).put(2, self.hash.as_byte_array());
        record.finish()
    }

    /// Reads a row.
    pub fn decode(row: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(row, VERSION)?;
        let height = record.u32(0, "height")?;
        let hash = BlockHash::from_byte_array(record.array(2, "block hash")?);
        record.finish()?;
        Ok(Self { height, hash })
    }

    /// Says so in the batch of the wallet's row for a block that is this one or a later one. The rows of channels were queued before.
    pub fn note(&self, batch: &mut Batch) {
        batch.put(Table::Meta, FOLLOWED_KEY.to_vec(), Some(self.encode()));
    }
}

impl Image {
    /// How far these rows had followed the chain at least, where they say so.
    pub fn followed(&self) -> Option<Followed> {
        let row = self.rows.get(&(Table::Followed, channel_key(&self.channel)))?;
        // Without it the channel is followed from the newest record of the tip.
        Followed::decode(row).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_95_a_row_is_read_as_it_was_written_and_what_is_none_is_refused() {
        let followed = Followed { height: 800_000, hash: BlockHash::from_byte_array([7; 32]) };
        assert_eq!(Followed::decode(&followed.encode()), Ok(followed));
        for length in 0..followed.encode().len() {
            assert!(Followed::decode(&followed.encode()[..length]).is_err(), "{length} bytes");
        }
    }
}
