//! What a channel can be told: peer messages, our own commands, the chain, and the state of the connection.

use bitcoin::constants::ChainHash;
use bitcoin::{OutPoint, Script, ScriptBuf, Transaction};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentPreimage};
use outrigger_bolt::wire::Message;

use crate::monitor::ClaimKind;
use crate::signer::Signer;
use crate::transition::HtlcSource;

/// One thing that happens to a channel.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection to the peer stands and `init` was exchanged: `channel_reestablish` is due (BOLT 2).
    Connected(&'a Features),
    /// The connection is gone: every update that no `commitment_signed` covered is forgotten on both sides (BOLT 2).
    Disconnected,
    /// A message of the peer that names this channel.
    Message(&'a Message),
    /// An order of our own; it is answered by [`Effect::Reply`](crate::Effect::Reply) with the same id.
    Command(CommandId, Command),
    /// News from the chain.
    Chain(ChainEvent<'a>),
}

/// Ties the answer of a command to whoever gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// An order of our own to an established channel.
#[derive(Clone, Debug)]
pub enum Command {
    /// Offer an HTLC (BOLT 2, `update_add_htlc`). Answered with [`Reply::Added`](crate::Reply::Added) or refused.
    AddHtlc { amount: Msat, payment_hash: PaymentHash, cltv_expiry: u32, onion: Box<[u8; 1366]>, source: HtlcSource },
    /// Claim a received HTLC that is irrevocably committed (BOLT 2, `update_fulfill_htlc`).
    Fulfill { htlc_id: u64, preimage: PaymentPreimage },
    /// Fail a received HTLC that is irrevocably committed (BOLT 2, `update_fail_htlc`, `update_fail_malformed_htlc`).
    FailHtlc { htlc_id: u64, reason: FailReason },
    /// Propose another feerate for the commitments; only the opener may (BOLT 2, `update_fee`).
    UpdateFee(FeeratePerKw),
    /// Sign what has gathered since the last `commitment_signed`, where the protocol allows it now; else nothing
    /// happens and the next `revoke_and_ack` or `Commit` will. Given once for every drained mailbox.
    Commit,
    /// Begin a cooperative close that pays us to `script` (BOLT 2, `shutdown`).
    Shutdown { script: ScriptBuf, feerate: FeeratePerKw },
    /// End the channel unilaterally, for a reason shown to the peer; or publish what one that has failed keeps in reserve.
    Fail { reason: String },
    /// End the channel: a required backup will never have its newest state. Where `is_new`, nothing of the channel has left this
    /// node since it was signed, so it never was. `complete` is the number of the newest local commitment that every required
    /// backup has, where that is known: only that one is ever published, at the first deadline of an HTLC or by
    /// [`Fail`](Self::Fail). Given again once that is known; of a channel that keeps one, or publishes, it changes nothing.
    Withhold { reason: String, is_new: bool, complete: Option<u64> },
}

/// How a received HTLC is failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// An onion for the sender, already encrypted by us (BOLT 4, "Returning Errors").
    Encrypted(Vec<u8>),
    /// The onion could not be read, so there is no key to encrypt with (BOLT 2, `update_fail_malformed_htlc`).
    Malformed { sha256_of_onion: [u8; 32], failure_code: u16 },
}

/// News from the chain, for the one channel it concerns.
#[derive(Clone, Copy, Debug)]
pub enum ChainEvent<'a> {
    /// The funding transaction stands in the block at `height`, at index `tx_index`.
    FundingConfirmed { height: u32, tx_index: u32, tx: &'a Transaction },
    /// The block that held the funding transaction was disconnected.
    FundingUnconfirmed,
    /// A transaction in the block at `height` spends the funding output.
    FundingSpent { height: u32, tx: &'a Transaction },
    /// The block that held the spend was disconnected.
    FundingSpendUnconfirmed,
    /// A transaction in the block at `height` spends an output of a failed channel that was asked for with this kind and
    /// value.
    OutputSpent { outpoint: OutPoint, kind: ClaimKind, value: Sat, height: u32, tx: &'a Transaction },
    /// Every block from this height on was disconnected, and with it what spends outputs of a failed channel.
    OutputsUnspent { from_height: u32 },
    /// What took outputs of a failed channel in blocks up to `height` is buried. The monitor makes this of a height.
    TakenBuried { height: u32 },
    /// Everything that a failed channel has in the chain is taken and buried; the newest of it stands in the block at
    /// `height`. The monitor makes this of a height.
    Buried { height: u32 },
    /// An HTLC of a failed channel whose commitment is reserved has reached its deadline. The monitor makes this of a height.
    Due,
    /// The best block is now at this height: a height that the channel asked for, or one above it.
    Height(u32),
}

/// The world as the step may see it.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Height of the best block.
    pub height: u32,
    /// What fees cost now.
    pub feerates: Feerates,
    /// What we ask of peers and of ourselves.
    pub policy: &'a Policy,
    /// The keys of this channel.
    pub signer: &'a dyn Signer,
    /// Our own name: `announcement_signatures` sign it.
    pub node_id: NodeId,
    /// An address of our wallet, empty while there is none. It is fixed when a channel is opened with a peer that offers
    /// `option_upfront_shutdown_script`; else it is where a cooperative close that the peer begins pays us.
    pub shutdown_script: &'a Script,
    /// The node is in restored mode: some peer proved that our rows are old, so those of every channel may be (BAK-7).
    /// Nothing is signed and no local commitment published: a channel that steps under it fails without publishing.
    pub restored: bool,
}

/// Current estimates, already clamped to sane bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feerates {
    /// For commitments with anchors: enough to be relayed and to enter a package.
    pub commitment: FeeratePerKw,
    /// For funding and cooperative closes.
    pub normal: FeeratePerKw,
    /// The lowest that bitcoind takes into its mempool.
    pub floor: FeeratePerKw,
}

/// The limits that we set, from the operator's config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The chain that we follow; channels of no other are opened.
    pub chain_hash: ChainHash,
    /// Smallest channel that a peer may open to us.
    pub min_funding: Sat,
    /// Largest channel that a peer may open to us, or we to a peer.
    pub max_funding: Sat,
    /// Our dust limit; 354 sat is safe for every output type (BOLT 3, "Dust Limits").
    pub dust_limit: Sat,
    /// The share of the capacity, in parts per million, that each side keeps as its reserve.
    pub reserve_ppm: u32,
    /// Blocks that the peer's own output waits after it publishes its commitment (`to_self_delay`).
    pub to_self_delay: u16,
    /// The longest `to_self_delay` that we let a peer set for us.
    pub max_to_self_delay: u16,
    /// HTLCs that we accept in flight from the peer, at most 483.
    pub max_accepted_htlcs: u16,
    /// The share of the capacity, in parts per million, that may be in flight towards us.
    pub max_in_flight_ppm: u32,
    /// Smallest HTLC that we accept.
    pub htlc_minimum: Msat,
    /// Confirmations before a channel that the peer funds is usable.
    pub minimum_depth: u32,
    /// The most confirmations that we let a peer ask of a channel that we fund.
    pub max_minimum_depth: u32,
    /// The most that HTLCs without an output of their own may be worth in one commitment: it goes to miners if that is
    /// published (BOLT 2, `max_dust_htlc_exposure_msat`).
    pub max_dust_exposure: Sat,
    /// The highest commitment feerate that we sign for.
    pub max_commitment_feerate: FeeratePerKw,
    /// Blocks in which a mutual close must be buried before the channel counts as closed.
    pub close_depth: u32,
}
