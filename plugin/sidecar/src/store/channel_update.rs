//! The newest `channel_update` of each side of a channel (BOLT 7).

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::codec::{Decode, Encode, Writer};
use outrigger_bolt::wire::{ChannelUpdate, EncodeError};

use super::record::{BadRecord, RecordReader, RecordWriter};
use super::schema::channel_key;

/// The newest update of each side. Nothing of a channel hangs on them but what we say next and what our invoices hint at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelUpdates {
    /// Ours, as it was last sent: what follows it must be later.
    pub local: Option<ChannelUpdate>,
    /// The peer's, whose signature was verified.
    pub remote: Option<ChannelUpdate>,
}

/// Whose update a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOf {
    Local,
    Remote,
}

impl UpdateOf {
    /// The key of the row: channel, whose (0 ours, 1 the peer's).
    pub fn key(self, channel: &ChannelId) -> Vec<u8> {
        let mut key = channel_key(channel);
        key.push(match self {
            Self::Local => 0,
            Self::Remote => 1,
        });
        key
    }

    /// The parts of a key made by [`key`](Self::key), or `None` for other bytes.
    pub fn parse_key(key: &[u8]) -> Option<(ChannelId, Self)> {
        let (channel, rest) = key.split_first_chunk::<32>()?;
        let whose = match rest {
            [0] => Self::Local,
            [1] => Self::Remote,
            _ => return None,
        };
        Some((ChannelId(*channel), whose))
    }
}

/// The bytes of a row. An update that was sent or received fits, so an error is a bug of the caller.
pub fn encode(update: &ChannelUpdate) -> Result<Vec<u8>, EncodeError> {
    let mut writer = Writer::new();
    update.encode(&mut writer);
    Ok(RecordWriter::new(1).put(0, writer.finish()?).finish())
}

/// Reads a row.
pub fn decode(bytes: &[u8]) -> Result<ChannelUpdate, BadRecord> {
    let mut record = RecordReader::new(bytes, 1)?;
    let update = ChannelUpdate::decode_value(record.bytes(0, "channel_update")?)
        .map_err(|_| BadRecord::Malformed("channel_update"))?;
    record.finish()?;
    Ok(update)
}
