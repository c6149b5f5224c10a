//! Sinks: where the rows of channels are kept beyond the database, under the Persist contract.
//!
//! What one commit changes of one channel is an [`Update`]; all that is kept of a channel is an [`Image`]. One sequence of
//! ids per channel runs over both: every commit that changes kept rows of a channel raises its id by one, and the row `persist` says
//! in the same transaction at which id the rows stand. So an image that is read later says by itself how new it is.
//!
//! The local commit comes first. Then the hub hands what it changed to each sink's own thread, under no lock, and the gate
//! holds the channel's promises until every *required* sink has completed that id. Enforcements and other channels go on.
//!
//! | answer of a sink | what it means |
//! |---|---|
//! | [`Answer::Completed`] | durable there now |
//! | [`Answer::InProgress`] | the sink will call [`SinkEnds::channel_monitor_updated`] for this id, once; until then promises wait |
//! | [`Answer::PermanentFailure`] | the channel fails, and nothing newer is published than what every required sink has |
//!
//! An I/O fault is none of these answers: a sink tries again, by [`SinkEnds::until_well`], for as long as it takes.

pub mod command;
mod commitments;
pub mod conform;
mod desk;
pub mod directory;
pub mod ends;
pub mod followed;
pub(in crate::store) mod gate;
pub mod hub;
pub mod image;
pub mod kept;
mod lanes;
pub mod mirror;
mod news;
mod numbering;
mod owed;
pub mod refusals;
pub mod sealed;
pub mod source;
#[cfg(test)]
mod stand_in;
pub mod start;
pub mod verified;
pub mod verify;

use bitcoin::OutPoint;
use outrigger_bolt::id::ChannelId;

use self::source::{Source, SourceFault};
use super::StoreError;
pub use desk::{SinkTerms, SinkView, State};
pub use ends::{SinkEnds, SinkFault};
pub use followed::Followed;
pub use gate::HeldEvents;
pub use hub::{Clocks, Hub, Open};
pub use image::{Image, RowChange, TipRecord, Update};
pub use lanes::Lag;
pub use news::{News, Unstored};
pub use start::Start;

/// What an operator does about a backup whose place is missing. An empty directory may be where its disk is to be mounted, so none
/// is made there but at the first start that has the backup's name.
const MISSING: &str = "there is no backup in this place. Its disk may not be mounted: mount it. A new backup is made at the next \
    start; to begin one anew that was there before, take it out of the configuration for one start, or give it another name";

/// What a sink says to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is durable.
    Completed,
    /// It will be, and then the sink calls [`SinkEnds::channel_monitor_updated`] with the same channel and id, exactly once.
    /// Completions may come in any order.
    InProgress,
    /// It never will be, in words for the operator. The channel is failed for it, and a second such answer of the same
    /// sink stops the node: this is for what no waiting mends, never for a disk or a line that is away.
    PermanentFailure(String),
}

/// A channel of which a sink holds all rows, up to an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub channel: ChannelId,
    /// The newest id to which the rows there are complete: an image at `n`, and every update from `n + 1` to this one.
    pub id: u64,
}

/// The immutable view of a channel that goes with a write. The rows are read when they are asked for, so the image may be newer
/// than the write that it came with, never older: it is at its own [`Image::id`], which is what a sink that keeps it
/// completes and remembers.
pub struct Full<'a>(&'a dyn Fn() -> Result<Image, StoreError>);

impl<'a> Full<'a> {
    /// A view that is read by `image`.
    pub fn new(image: &'a dyn Fn() -> Result<Image, StoreError>) -> Self {
        Self(image)
    }

    /// All rows of the channel. A fault is the database's and not the sink's: it answers [`Answer::InProgress`] to it, and the
    /// process is about to stop.
    pub fn image(&self) -> Result<Image, StoreError> {
        (self.0)()
    }
}

/// Opens what a sink keeps for reading, as often as it is called.
pub type Reader = Box<dyn FnMut() -> Result<Box<dyn Source>, SourceFault> + Send>;

/// Where rows of channels are kept. Each sink has a thread of its own, on which all of these are called, one after the other;
/// they may take as long as they like. `channel` is the name of a channel; `funding` goes with it for those who file by it.
///
/// What an implementation may rely on: ids of one channel rise from call to call, and a call of an update at `id` comes after the
/// sink was given every id before it, since its last full write. What it must do: complete each id it was given once (by its
/// answer or by a call); not complete what is not durable; keep what it completed over a crash at any moment; take a full write at
/// `n` for the end of everything before `n`; ignore, and complete, what comes at or below an id that it has. It may gather what it is
/// given until [`all_given`](Self::all_given).
pub trait Persist: Send {
    /// A channel comes to life: nothing of it was written before. Nothing of it has been broadcast either.
    fn persist_new_channel(&mut self, channel: &ChannelId, funding: OutPoint, full: &Full<'_>, id: u64) -> Answer;

    /// A channel has changed, and `full` has the change already. With an update, which follows id `id - 1`, the sink may keep that
    /// or the whole; without one it keeps the whole: the start, a sink that was added, a gap or an overflow ask for that.
    ///
    /// A channel whose image has neither `channel_params` nor `closed_channel` was forgotten, and may be deleted.
    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        funding: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        id: u64,
    ) -> Answer;

    /// The chain as it stood when everything before this call was committed: a restore needs no block further back. Comes at the
    /// start and every 144 blocks. Nobody waits for it: a sink that cannot keep it now keeps the next one.
    fn persist_tip(&mut self, tip: &TipRecord) -> Answer;

    /// Nothing else waits to be given now: what was gathered is to be made durable. Comes after each run of calls, so what one commit of
    /// the database changed can be made durable in one piece.
    fn all_given(&mut self) {}

    /// What reads back what is kept while the sink lives, on any thread; nothing where it can only be read when the sink does not
    /// live. Asked before any other call, and by [`kept_tip`](Self::kept_tip).
    fn reader(&self) -> Option<Reader> {
        None
    }

    /// What is held and complete, asked at the start, before any write. Channels that are over may be left out.
    /// A sink that cannot tell (a [`SinkFault::Passing`] one is asked again) is given everything in full.
    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault>;

    /// What was told as held is not newer than the database, and counts from now on. What is seen may be in no more than memory after a
    /// kill, or after a sync that failed: it is made durable. Comes behind [`holdings`](Self::holdings), before any write; where it
    /// cannot be done now both are asked again.
    fn settle(&mut self) -> Result<(), SinkFault> {
        Ok(())
    }

    /// The newest record of the tip that is held, asked once, behind [`holdings`](Self::holdings). One that cannot be read now is
    /// none. Where the newest is damaged an older one may be given: what it names that the database has not proves as much.
    fn kept_tip(&mut self) -> Option<Vec<u8>> {
        self.reader()?().ok()?.tip().ok()?
    }
}
