//! What a step leads to: rows, and effects that wait for those rows to be durable.

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, PaymentHash, PaymentPreimage, ShortChannelId};
use outrigger_bolt::wire::Message;

use crate::changes::{ChannelChanges, ChannelParams, MonitorUpdate};
use crate::input::{CommandId, FailReason};
use crate::link::VolatileChanges;
use crate::monitor::{ClaimKind, Spend};
use crate::violation::Refusal;

/// The whole outcome of one step. Nothing in it has happened yet.
#[must_use = "a transition that is dropped is a step that never was"]
#[derive(Debug, Default)]
pub struct Transition {
    /// Rows to write, for disk and for [`Channel::apply`](crate::Channel::apply) alike.
    pub changes: ChannelChanges,
    /// What a disconnect rolls back; never in a row.
    pub volatile: VolatileChanges,
    /// What the monitor must know before any effect leaves: nothing or one update.
    pub monitor: Option<MonitorUpdate>,
    /// What may happen once the rows are durable, in this order.
    pub effects: Vec<Effect>,
    /// A fault of our own, for which no peer can be blamed. The step fails its channel at most; the node is to stop, so
    /// that the same fault fails no other (CST-12).
    pub fault: Option<String>,
}

/// Something that leaves the channel. Made again from rows after a crash, as each variant says.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most effects are messages: boxing them would cost more than it saves")]
pub enum Effect {
    /// A message to the peer. Made again by `channel_reestablish` or by the phase on `Connected`.
    Send(Message),
    /// `revoke_and_ack` for the local commitment of this number. The secret enters at delivery, against the proof that
    /// the successor is durable. Made again by `channel_reestablish`.
    Revoke { number: u64 },
    /// End the connection, after what was sent before it. The text is for our log.
    Disconnect(String),
    /// A transaction to broadcast until it is confirmed. Made again from the phase in the head row.
    Publish { what: Publication, tx: Transaction },
    /// Proof that our rows are older than what we once told: the whole node goes into restored mode, for good. A row
    /// before that of the step that saw the proof; the text says what it was.
    Restored { proof: String },
    /// Something the chain must tell us of. Made again by [`Channel::watches`](crate::Channel::watches).
    Watch(Watch),
    /// A received HTLC is irrevocably committed: relay or receive it. Made again from its row.
    Incoming(IncomingHtlc),
    /// An HTLC that we offered, of this amount, has its answer. Made again from its row or from the outcome row staged with
    /// it.
    Settle { htlc_id: u64, source: HtlcSource, amount: Msat, payment_hash: PaymentHash, outcome: HtlcOutcome },
    /// The removal of a received HTLC is irrevocable on both sides: its settlement may be forgotten.
    Removed { htlc_id: u64 },
    /// The answer to a command. Lost in a crash: callers ask again.
    Reply(CommandId, Result<Reply, Refusal>),
    /// News for the operator. Staged as an event row with the step that made it.
    Note(ChannelNote),
}

/// What a published transaction is. Commitments are not among them: they follow from the monitor's rows
/// ([`Monitor::enforcement`](crate::Monitor::enforcement)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Publication {
    Funding,
    MutualClose,
}

/// What a channel wants to hear of from the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The confirmation of this output, its reorganisation, and its spend.
    Funding { outpoint: OutPoint, script_pubkey: ScriptBuf },
    /// The spend of an output that a failed channel has in the chain.
    Output { outpoint: OutPoint, kind: ClaimKind, value: Sat },
    /// The best block reaching this height.
    Height(u32),
}

/// Who an offered HTLC belongs to; stored in the HTLC's own row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HtlcSource {
    /// A payment of our own.
    Payment { payment_id: [u8; 32], part: u16 },
    /// A received HTLC that we relay.
    Relayed { channel: ChannelId, htlc_id: u64 },
}

/// A received HTLC that neither side can take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingHtlc {
    pub channel: ChannelId,
    pub htlc_id: u64,
    pub amount: Msat,
    pub payment_hash: PaymentHash,
    /// Absolute block height.
    pub cltv_expiry: u32,
    pub onion: Box<[u8; 1366]>,
    /// To be failed, its preimage not to be told: HTLCs that have no output, as this one has none in one of the
    /// commitments, could lose more than our cap (BOLT 2, "Bounding exposure to trimmed in-flight HTLCs"; FEE-1).
    pub over_exposed: bool,
}

/// How an offered HTLC ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HtlcOutcome {
    /// Told at `update_fulfill_htlc`: the proof counts from the moment it is known.
    Fulfilled(PaymentPreimage),
    /// Told when the removal is irrevocable on both commitments, never before.
    Failed(FailReason),
    /// The add was never signed and is gone with the connection: it may be offered again.
    NeverCommitted,
    /// The channel has ended on the chain, buried, by a transaction with no output for it: nobody can claim it any more.
    NoOutput,
}

/// The good answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The HTLC was offered under this id. It is in no row before the `commitment_signed` that covers it.
    Added { htlc_id: u64 },
    /// The order was taken.
    Done,
}

/// News of a channel that an operator acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelNote {
    /// Waiting for confirmations: from its signature on where we opened it, from its first block on where the peer did.
    /// What is put in of our coins, and what of the channel is `ours` to begin with: they differ by what is pushed.
    Pending { funding: OutPoint, capacity: Sat, put_in: Sat, ours: Msat },
    /// Usable in both directions.
    Ready { short_channel_id: ShortChannelId },
    /// A cooperative close has begun.
    ShuttingDown { by_us: bool },
    /// The cooperative close is signed and published.
    Closing { txid: Txid },
    /// The close is buried: the channel is history. What of it was `ours` in the newest local commitment, before the opener's costs, and
    /// what a cooperative close has `paid` us; what comes home of a failed channel is told by `Swept`.
    Closed { txid: Txid, height: u32, ours: Msat, paid: Option<Sat> },
    /// The funding output of a failed channel is spent in a block: what by, what of it is `ours` and from which height it
    /// can be taken, what is `left` there because it is not worth its fee, and what the transaction pays in fees.
    Spent { txid: Txid, height: u32, what: Spend, ours: Sat, left: Sat, from_height: u32, fee: Sat },
    /// An output of a failed channel came home: what arrived, and the fee where it is known.
    Swept { txid: Txid, amount: Sat, fee: Option<Sat> },
    /// The channel was failed. What is safe and what to do stand in the text.
    Failed { reason: String },
    /// The funding transaction does not pay what was agreed: the channel never existed (FND-1).
    FundingMismatch { reason: String },
    /// The funding transaction never came, or never left: the channel is forgotten (FND-6). Where the operator had heard of the channel:
    /// what of it was `told` to be ours.
    NeverFunded { txid: Txid, told: Option<Msat>, reason: String },
    /// Our own funding transaction has waited this many blocks for its first confirmation.
    FundingStuck { txid: Txid, blocks: u32 },
}

impl ChannelNote {
    /// What of the channel is ours to begin with, in millisatoshi: the opener may push some, or all, to the other side.
    pub(crate) fn ours_at_first(params: &ChannelParams) -> Msat {
        let all = params.capacity.to_msat().unwrap_or_default();
        if params.is_opener { all.saturating_sub(params.push) } else { params.push }
    }

    /// The news that a channel waits for confirmations.
    pub(crate) fn pending(params: &ChannelParams) -> Self {
        let put_in = if params.is_opener { params.capacity } else { Sat::ZERO };
        let ours = Self::ours_at_first(params);
        Self::Pending { funding: params.funding, capacity: params.capacity, put_in, ours }
    }
}
