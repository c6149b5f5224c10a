//! What the sinks have to tell the rest of the node.

use outrigger_bolt::id::ChannelId;

use super::refusals::Refusals;
use crate::store::StoreError;

/// What the rest of the node is to know.
#[derive(Debug)]
pub enum News {
    /// A sink holds what the database does not know: the database is an old copy. The text is the proof.
    Ahead { proof: String },
    /// Every required sink has told what it holds, and nothing that the database does not know. At least once after a start with such
    /// sinks, where none of them proves the contrary or cannot tell.
    Heard,
    /// A required sink will never have a channel, which is to be failed.
    Unstored(Unstored),
    /// It is known by now which local commitment every required sink has of a channel that failed for want of one.
    Kept { channel: ChannelId, number: u64 },
    /// The same sink has refused a second channel: the node is to stop.
    Dead { reason: String },
    /// The database cannot be read: the node is to stop.
    Storage(StoreError),
}

/// A channel that a required sink will never have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstored {
    pub channel: ChannelId,
    pub reason: String,
    /// Nothing of it has left.
    pub is_new: bool,
    /// The number of the newest local commitment that every required sink has, where that is known: nothing newer is ever
    /// published.
    pub complete: Option<u64>,
    /// What the file is to remember, from before the channel fails on.
    pub refusals: Refusals,
}
