//! The rows of a channel and of its monitor, and the change sets that carry them to disk and back.
//!
//! Fields are tables; the last write wins; `None` deletes. So change sets merge over steps, and loading is applying.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, ShortChannelId};
use outrigger_bolt::keys::Basepoints;
use outrigger_bolt::tx::commitment::CommitmentHtlc;

use crate::commitments::htlc::{HtlcKey, HtlcState};
use crate::input::FailReason;
use crate::monitor::ClaimKind;
use crate::transition::HtlcSource;

/// A later change set folded into an earlier one.
pub trait Merge: Default {
    /// Takes `later` in: its rows win.
    fn merge(&mut self, later: Self);
    /// Whether there is nothing to write.
    fn is_empty(&self) -> bool;
}

/// What both sides agreed when the channel was opened. Written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelParams {
    pub channel_id: ChannelId,
    pub peer: NodeId,
    /// Which of our channel keys this is; the signer is made from it.
    pub keys_index: u64,
    pub is_opener: bool,
    pub announce: bool,
    pub channel_type: Features,
    pub funding: OutPoint,
    pub capacity: Sat,
    pub push: Msat,
    /// Confirmations before we send `channel_ready`.
    pub minimum_depth: u32,
    /// The best height when the funding transaction was signed.
    pub opened_height: u32,
    /// The alias that our `channel_ready` gives the peer where both offer `option_scid_alias`.
    pub scid_alias: ShortChannelId,
    pub local: SideParams,
    pub remote: SideParams,
}

/// What one side brought into the channel. Limits are those that this side *set for the other*, as on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideParams {
    pub basepoints: Basepoints,
    /// Below it, no output stands in this side's commitment.
    pub dust_limit: Sat,
    /// What the other side must keep.
    pub channel_reserve: Sat,
    /// Blocks that the other side's own output waits.
    pub to_self_delay: u16,
    /// The most that the other side may have in flight towards this one.
    pub max_htlc_value_in_flight: Msat,
    pub max_accepted_htlcs: u16,
    pub htlc_minimum: Msat,
    pub upfront_shutdown_script: Option<ScriptBuf>,
}

/// The part of a channel that moves. Small: it is written with nearly every step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelHead {
    pub phase: Phase,
    /// Number of the newest local commitment that the peer signed; all before it are revoked.
    pub local_number: u64,
    /// Number of the newest remote commitment that we signed.
    pub remote_number: u64,
    /// The peer's per-commitment point for the commitment before `remote_number`, exactly as long as the peer owes the
    /// `revoke_and_ack` of that one: the secret must answer to it.
    pub revoking_point: Option<PublicKey>,
    /// The peer's per-commitment point for commitment `remote_number`.
    pub remote_point: PublicKey,
    /// The peer's point for the commitment after that, once it was told.
    pub remote_next_point: Option<PublicKey>,
    /// The peer's newest per-commitment secret, which `channel_reestablish` repeats.
    pub last_remote_secret: Option<[u8; 32]>,
    /// What went out last, so that a resend keeps the order (BOLT 2, `channel_reestablish`).
    pub last_sent: LastSent,
    /// The id that our next committed HTLC gets, and the peer's.
    pub next_local_htlc_id: u64,
    pub next_remote_htlc_id: u64,
    /// Feerate of each commitment, and a change on its way.
    pub fee: FeeState,
    /// What each commitment holds, in running totals.
    pub local_commitment: Totals,
    pub remote_commitment: Totals,
    pub funding_height: Option<u32>,
    pub short_channel_id: Option<ShortChannelId>,
    pub channel_ready_sent: bool,
    pub channel_ready_received: bool,
    pub remote_scid_alias: Option<ShortChannelId>,
    pub local_shutdown: Option<ScriptBuf>,
    pub remote_shutdown: Option<ScriptBuf>,
    /// Id of the newest update that the monitor was given; ids are gapless from 1.
    pub monitor_update_id: u64,
    /// Until our `channel_ready`: what was told of the funding transaction. A start sees the newest block again, and a
    /// reorganisation others, and neither is news.
    pub told: FundingTold,
}

/// What the operator was told of a funding transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FundingTold {
    /// That the peer's is in a block.
    pub pending: bool,
    /// That ours is in none.
    pub stuck: bool,
}

impl ChannelHead {
    /// Whether the peer still owes `revoke_and_ack`, so that no `commitment_signed` may be sent (BOLT 2).
    pub const fn awaiting_revocation(&self) -> bool {
        self.revoking_point.is_some()
    }
}

/// Running totals of one side's newest commitment, HTLCs on their way in or out counted as they stand there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub to_local: Msat,
    pub to_remote: Msat,
    pub offered_by_local: HtlcTotals,
    pub offered_by_remote: HtlcTotals,
}

/// Count and value of HTLCs in one direction. `untrimmed` is the number that have an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HtlcTotals {
    pub count: u16,
    pub untrimmed: u16,
    pub value: Msat,
}

/// Feerates in force, and a change on its way through the same stages as an HTLC. `change` is for our own `update_fee`
/// alone, one at a time (CST-5): `Signed` while it is in the remote commitment only, `Revoked` once it is due in ours. A
/// peer's change needs no mark: we revoke in the step that signs it, so what is in our commitment is due in theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeState {
    pub local: FeeratePerKw,
    pub remote: FeeratePerKw,
    pub change: Option<(FeeratePerKw, crate::commitments::htlc::Stage)>,
}

/// Which of the two was sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastSent {
    Nothing,
    Commitment,
    Revocation,
}

/// Where a channel is in its life. Opening is no phase: it has no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Signed; the funding transaction has yet to reach its depth on both sides.
    Funding(FundingPhase),
    Normal,
    /// At least one `shutdown` went out or came in.
    ShuttingDown {
        feerate: FeeratePerKw,
        /// Whether the peer has a signature of ours for a close, whenever it got that: it may publish that close, so the
        /// balances must not change any more.
        signed: bool,
    },
    /// A mutual close is signed by both and published until it is confirmed.
    Closing {
        /// The one that was signed last, until one confirms: then that one.
        tx: Transaction,
        /// Others that both signed, oldest first: with `option_simple_close` any of them may confirm.
        others: Vec<Transaction>,
        /// The feerate of a transaction of our own that the peer has yet to sign (`closing_complete`).
        wanted: Option<FeeratePerKw>,
        confirmed_height: Option<u32>,
    },
    /// The mutual close, or another spend, is buried.
    Closed {
        txid: Txid,
        height: u32,
    },
    /// Ended by an error. `publish`: a commitment of ours is published unless a spend is already known; not where the
    /// peer proved that we have fallen behind, which no later message takes back. `reserved`: not yet, but at the first
    /// deadline of an HTLC or by order, since a backup that must have the newest state never will.
    Failed {
        reason: String,
        publish: bool,
        reserved: bool,
        spend: Option<(Txid, u32)>,
    },
}

impl Phase {
    /// The mutual closes that go out until one of them confirms, oldest first.
    pub fn closes_to_publish(&self) -> Vec<&Transaction> {
        match self {
            Self::Closing { tx, others, confirmed_height: None, .. } => others.iter().chain([tx]).collect(),
            Self::Funding(_)
            | Self::Normal
            | Self::ShuttingDown { .. }
            | Self::Closing { confirmed_height: Some(_), .. }
            | Self::Closed { .. }
            | Self::Failed { .. } => Vec::new(),
        }
    }

    /// Whether it failed without publishing, keeps nothing for later, and nothing spends its funding output yet: a required backup
    /// refused it, and which commitment the others have was not known, or the whole node is in restored mode.
    pub const fn is_withheld(&self) -> bool {
        matches!(self, Self::Failed { publish: false, reserved: false, spend: None, .. })
    }

    /// What callers call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Funding(_) => "funding",
            Self::Normal => "normal",
            Self::ShuttingDown { .. } => "shutting_down",
            Self::Closing { .. } => "closing",
            Self::Closed { .. } => "closed",
            Self::Failed { .. } => "failed",
        }
    }

    /// Why the channel failed, where it has.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed { reason, .. } => Some(reason),
            Self::Funding(_)
            | Self::Normal
            | Self::ShuttingDown { .. }
            | Self::Closing { .. }
            | Self::Closed { .. } => None,
        }
    }
}

/// What the opener publishes until the channel is confirmed; the accepter has nothing to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingPhase {
    pub tx: Option<Arc<Transaction>>,
}

/// One HTLC; shared by channel and monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcRow {
    pub amount: Msat,
    pub payment_hash: PaymentHash,
    /// Absolute block height.
    pub cltv_expiry: u32,
    pub state: HtlcState,
    /// Whose it is, for HTLCs that we offered.
    pub source: Option<HtlcSource>,
    /// How it is being removed, from the first commitment without it on.
    pub removal: Option<Removal>,
}

/// How an HTLC leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    Fulfilled(PaymentPreimage),
    Failed(FailReason),
}

/// Rows that a step of the channel writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelChanges {
    pub params: Option<Arc<ChannelParams>>,
    pub head: Option<ChannelHead>,
    pub htlcs: BTreeMap<HtlcKey, Option<HtlcRow>>,
    /// The onion of an HTLC, for as long as it may have to be sent again or has yet to be peeled.
    pub onions: BTreeMap<HtlcKey, Option<Arc<[u8; 1366]>>>,
}

/// All rows of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRows {
    pub params: Arc<ChannelParams>,
    pub head: ChannelHead,
    pub htlcs: BTreeMap<HtlcKey, HtlcRow>,
    pub onions: BTreeMap<HtlcKey, Arc<[u8; 1366]>>,
}

/// What the monitor learns from one step of the channel. Ids are gapless from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorUpdate {
    pub id: u64,
    pub steps: Vec<MonitorStep>,
    /// The HTLC rows that the same step wrote.
    pub htlcs: BTreeMap<HtlcKey, Option<HtlcRow>>,
}

/// One fact for the monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorStep {
    /// The channel exists, with both first commitments.
    Funded { params: Arc<ChannelParams>, local: SignedCommitment, remote: RemoteCommitment },
    /// The peer signed a new local commitment; the one before it is about to be revoked.
    LocalCommitment(SignedCommitment),
    /// We signed a new remote commitment.
    RemoteCommitment(RemoteCommitment),
    /// The peer revoked the remote commitment of this number.
    Revocation { number: u64, secret: [u8; 32] },
    /// A preimage that claims an HTLC we received, or that settles one we offered.
    Preimage(PaymentPreimage),
    /// The channel was failed: only the newest local commitment may be published, and nothing signed after it. Without
    /// `publish` not even that: the peer proved that we have fallen behind (CST-1).
    Failed { publish: bool },
    /// Behind [`Failed`](Self::Failed) without `publish`: the local commitment of this number, the newest or the one before it, is
    /// the newest that every required backup has. It is kept to be published later, and never revoked.
    Reserved { number: u64 },
    /// The commitment that was reserved is published from now on.
    Due,
    /// A block holds a transaction that spends the funding output of a failed channel.
    FundingSpent(FundingSpend),
    /// The block that held it left the chain.
    FundingUnspent,
    /// A block holds a transaction that takes an output of the spend that concerns us.
    OutputTaken(OutPoint, Taken),
    /// Every block from this height on left the chain, and what was taken there was not.
    OutputsUntaken { from_height: u32 },
    /// What took outputs in blocks up to this height is buried.
    TakenBuried { height: u32 },
    /// The channel's end is buried.
    Closed,
}

/// What spends the funding output of a failed channel in the chain as it stands now: the place where claims, HTLC outputs and
/// penalties are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingSpend {
    pub tx: Arc<Transaction>,
    /// Height of its block.
    pub height: u32,
}

/// How an output of that transaction was taken, in the chain as it stands now. Outputs of second stages will stand here too:
/// the key is the whole outpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub kind: ClaimKind,
    /// What took it.
    pub txid: Txid,
    /// Height of that transaction's block.
    pub height: u32,
    /// What the output was worth.
    pub value: Sat,
    /// What was paid in fees, where that transaction spends nothing else.
    pub fee: Option<Sat>,
    /// Whether it is buried, and the operator was told.
    pub told: bool,
}

/// A local commitment with the peer's signatures. Its HTLCs are those whose row says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCommitment {
    pub number: u64,
    pub feerate: FeeratePerKw,
    pub to_local: Msat,
    pub to_remote: Msat,
    pub signature: Signature,
    /// In BOLT 3 output order.
    pub htlc_signatures: Vec<Signature>,
}

/// A local commitment that a newer one has replaced, whole: HTLCs of it may have no rows any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedCommitment {
    /// With its HTLC signatures.
    pub commitment: SignedCommitment,
    pub htlcs: Vec<CommitmentHtlc>,
}

/// A remote commitment that we signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommitment {
    pub number: u64,
    pub point: PublicKey,
    pub feerate: FeeratePerKw,
    pub to_local: Msat,
    pub to_remote: Msat,
}

/// The moving part of a monitor. What it shares with the channel's head is cross-checked on load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorHead {
    /// Id of the newest update that is in these rows.
    pub update_id: u64,
    /// `htlc_signatures` is empty here: they have a row of their own per commitment.
    pub local: SignedCommitment,
    /// The newest remote commitment whose predecessor is revoked, and the one signed after it.
    pub remote: RemoteCommitment,
    pub remote_next: Option<RemoteCommitment>,
    /// Lowest number whose secret the peer has not told.
    pub next_secret_number: u64,
    pub failed: bool,
    /// Whether a commitment of ours may be published: for ever not, once the peer proved that we have fallen behind.
    pub may_publish: bool,
    /// The number of the one local commitment that is published, or is reserved for it, once the channel has failed: from then on
    /// no other is signed, and its secret and those of later ones are never released.
    pub closing: Option<u64>,
    /// Whether that one is kept until it is due: a required backup will never have what came after it.
    pub reserved: bool,
    /// That one, where it is not `local`.
    pub replaced: Option<Box<ReplacedCommitment>>,
    pub closed: bool,
    /// The newest spend of the funding output that the operator was told of, and the height of its block: seen there again
    /// after a crash or a reorganisation, it is no news.
    pub told_spend: Option<(Txid, u32)>,
}

/// What the scripts of one HTLC need, for ever: written once when it is first signed into any commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub payment_hash: PaymentHash,
    pub cltv_expiry: u32,
    pub amount: Msat,
}

/// Rows that a monitor writes. HTLC rows are not among them: the channel's change set of the same step holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonitorChanges {
    /// Written once.
    pub params: Option<Arc<ChannelParams>>,
    pub head: Option<MonitorHead>,
    /// Append-only; not held in memory.
    pub evidence: BTreeMap<HtlcKey, Evidence>,
    /// By slot of the 49-entry store (BOLT 3, "Efficient Per-commitment Secret Storage"): number and secret.
    pub secrets: BTreeMap<u8, (u64, [u8; 32])>,
    /// The peer's HTLC signatures by local commitment number.
    pub htlc_signatures: BTreeMap<u64, Option<Vec<Signature>>>,
    pub preimages: BTreeMap<PaymentHash, Option<PaymentPreimage>>,
    /// `Some(None)` deletes.
    pub spend: Option<Option<FundingSpend>>,
    pub taken: BTreeMap<OutPoint, Option<Taken>>,
}

/// All rows of a monitor that are held in memory, the HTLC rows shared with the channel included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorRows {
    pub params: Arc<ChannelParams>,
    pub head: MonitorHead,
    pub secrets: BTreeMap<u8, (u64, [u8; 32])>,
    pub htlc_signatures: BTreeMap<u64, Vec<Signature>>,
    pub preimages: BTreeMap<PaymentHash, PaymentPreimage>,
    pub spend: Option<FundingSpend>,
    pub taken: BTreeMap<OutPoint, Taken>,
    pub htlcs: BTreeMap<HtlcKey, HtlcRow>,
}

impl Merge for ChannelChanges {
    fn merge(&mut self, later: Self) {
        self.params = later.params.or(self.params.take());
        self.head = later.head.or(self.head.take());
        self.htlcs.extend(later.htlcs);
        self.onions.extend(later.onions);
    }

    fn is_empty(&self) -> bool {
        self.params.is_none() && self.head.is_none() && self.htlcs.is_empty() && self.onions.is_empty()
    }
}

impl Merge for MonitorChanges {
    fn merge(&mut self, later: Self) {
        self.params = later.params.or(self.params.take());
        self.head = later.head.or(self.head.take());
        self.evidence.extend(later.evidence);
        self.secrets.extend(later.secrets);
        self.htlc_signatures.extend(later.htlc_signatures);
        self.preimages.extend(later.preimages);
        self.spend = later.spend.or(self.spend.take());
        self.taken.extend(later.taken);
    }

    fn is_empty(&self) -> bool {
        self.params.is_none()
            && self.head.is_none()
            && self.evidence.is_empty()
            && self.secrets.is_empty()
            && self.htlc_signatures.is_empty()
            && self.preimages.is_empty()
            && self.spend.is_none()
            && self.taken.is_empty()
    }
}
