//! What can be told to a peer's worker.

use bitcoin::Transaction;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::Message;
use outrigger_channel::{Command, CommandId, IncomingHtlc};

use super::relay::Offer;
use super::relay::register::HtlcName;
use crate::store::backup::Unstored;
use crate::store::row::{OperationRow, SettlementRow};

/// One thing for a peer's worker to do. Mail of one peer is handled in order, by one worker at a time.
#[derive(Debug)]
pub enum Mail {
    /// A connection stands; it replaces any older one.
    Connected { connection: u64, features: Features },
    /// A connection ended.
    Disconnected { connection: u64 },
    /// A message of the peer, of so many bytes on the wire.
    Message { connection: u64, message: Box<Message>, bytes: usize },
    /// Open a channel to the peer.
    Open(Box<OpenOrder>),
    /// The wallet has built the funding transaction, or says why not.
    Funded { channel: ChannelId, funding: Result<Box<(Transaction, u32)>, String> },
    /// An order to a channel.
    Order { channel: ChannelId, id: CommandId, command: Command },
    /// A height that the channel asked for was reached before it asked.
    Height { channel: ChannelId, height: u32 },
    /// The estimate for commitments moved: channels that we opened may want another feerate.
    FeerateMoved,
    /// The channel is in history, durably.
    Archived { channel: ChannelId },
    /// The node has gone into restored mode: every channel is to learn it.
    Restored,
    /// The channel's promises have waited long for a backup, or do so no more.
    Stalled { channel: ChannelId, is_stalled: bool },
    /// Every required backup has told what it holds: what the channel waited with is published.
    Heard { channel: ChannelId },
    /// A required backup will never have a channel.
    Unstored(Box<Unstored>),
    /// The funding transaction of a channel of ours may leave.
    FundPublicly { channel: ChannelId, tx: Box<Transaction> },
    /// A received HTLC is irrevocably committed.
    Incoming(IncomingHtlc),
    /// Another peer's HTLC is to be offered to this one.
    Offer(Box<Offer>),
    /// What was offered downstream for a received HTLC was never signed, and is gone.
    Again(HtlcName),
    /// A received HTLC was decided; the row is queued.
    Settled { channel: ChannelId, htlc_id: u64, settlement: SettlementRow },
}

/// An operator's wish for a channel.
#[derive(Debug)]
pub struct OpenOrder {
    /// The row of the call; it is completed in the transaction that makes the channel.
    pub operation: OperationRow,
    pub funding: Sat,
    pub push: Msat,
    pub announce: bool,
    /// For the funding transaction; the node's estimate if none.
    pub funding_feerate: Option<FeeratePerKw>,
}

impl Mail {
    /// Whether it changes nothing until the peer says more: an update is nothing before the `commitment_signed` that covers it
    /// (BOLT 2, "Normal Operation"). `update_fulfill_htlc` is not among these: a preimage is money at once.
    pub(super) fn waits_for_more(&self) -> bool {
        let Self::Message { message, .. } = self else { return false };
        matches!(
            **message,
            Message::UpdateAddHtlc(_)
                | Message::UpdateFailHtlc(_)
                | Message::UpdateFailMalformedHtlc(_)
                | Message::UpdateFee(_)
        )
    }

    /// What the piece counts against the budget of its mailbox, in bytes. Only the peer's own mail counts, with what it
    /// takes in memory whatever it was on the wire (DOS-1).
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Message { bytes, .. } => bytes.saturating_add(size_of::<Message>()).saturating_add(size_of::<Self>()),
            Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::Open(_)
            | Self::Funded { .. }
            | Self::Order { .. }
            | Self::Height { .. }
            | Self::FeerateMoved
            | Self::Archived { .. }
            | Self::Restored
            | Self::Stalled { .. }
            | Self::Heard { .. }
            | Self::Unstored(_)
            | Self::FundPublicly { .. }
            | Self::Incoming(_)
            | Self::Offer(_)
            | Self::Again(_)
            | Self::Settled { .. } => 0,
        }
    }
}
