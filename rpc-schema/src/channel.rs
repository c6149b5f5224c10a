//! `channel.*`: opening, looking at and closing channels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Opens a channel with a connected peer. Answers as soon as the opening is stored, which is before the peer has agreed:
/// `channel.open_wait` waits for its end, and an event tells of it. A repeat of the same call tells how far the opening is,
/// at once too.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelOpen {
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
    /// The channel's capacity in satoshi, taken from the wallet; the fee of the funding transaction comes on top.
    pub funding_sat: u64,
    /// Any text of 1 to 128 characters that names this opening: the same text with the same parameters never opens a
    /// second channel, and with other parameters is refused. It is remembered for 1,000 days, and at least until the opening is over.
    pub idempotency_key: String,
    /// Millisatoshi of the capacity that are given to the peer; 0 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_msat: Option<u64>,
    /// Whether the channel shall be announced to the network; false without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<bool>,
    /// Feerate of the funding transaction in satoshi per virtual byte; bitcoind's estimate without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub feerate_sat_per_vb: Option<u32>,
}

impl Method for ChannelOpen {
    const NAME: &'static str = "channel.open";
    const MOVES_MONEY: bool = true;
    const SCOPES: &'static [Scope] = &[Scope::Channel];
    const NEEDS_CHAIN: bool = true;
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::Restored,
        ErrorKind::PeerNotConnected,
        ErrorKind::FeerateOutOfRange,
        ErrorKind::StorageFailed,
        ErrorKind::DiskLow,
    ];
    const EXAMPLE: &'static str = r#"{ "node_id": "$node_id", "funding_sat": 500000, "idempotency_key": "my-first" }"#;
    type Result = ChannelOpened;
}

/// Waits until an opening is over, and tells what became of it: `pending` with the channel's name, once every required backup has
/// the channel; or `failed`, once the coins that were meant for it are free again; or `unknown`. After `timeout_secs` it answers how far it is then.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelOpenWait {
    /// The opening, as `channel.open` named it: 16 bytes, hex. A token finds those that it began itself, or that another token of
    /// its name did; one that may do everything finds all.
    pub op_id: String,
    /// How long to wait at most, in seconds: 1 to 600; 60 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_secs: Option<u32>,
}

impl Method for ChannelOpenWait {
    const NAME: &'static str = "channel.open_wait";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::OperationNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "op_id": "$op_id", "timeout_secs": 60 }"#;
    type Result = ChannelOpened;
}

/// How far an opening is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelOpened {
    /// Names the opening: 16 bytes, hex. `channel.open_wait` finds it by that.
    pub op_id: String,
    /// How far it is.
    pub state: OpenState,
    /// The channel's name, hex; absent until it is final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<String>,
    /// The id of the funding transaction; absent until it is final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub funding_txid: Option<String>,
    /// Why it failed, and then no coins were spent; or why it is not known what became of it, and what to look at. Present where the state
    /// is `failed` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How far an opening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenState {
    /// The peers are still agreeing, or a required backup is waited for (`backup.status`); nothing can have been spent.
    Opening,
    /// The funding transaction is signed and stored, and is being published; `channel.get` tells the rest, and `channel.wait` waits.
    Pending,
    /// The opening has ended without a channel.
    Failed,
    /// The node has lost data (restored mode), and with it what became of the opening: the funding transaction may be in the chain.
    /// `failure` says what to look at. Nothing more is told of it, and no event.
    Unknown,
}

/// Lists channels that are not forgotten, in the order of their names. It tells what the database has, as
/// `channel.get`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelList {
    /// Only channels in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ChannelState>,
    /// Only channels with this peer: 33 bytes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The `next` of the page before; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many channels to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for ChannelList {
    const NAME: &'static str = "channel.list";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "state": "normal", "limit": 10 }"#;
    type Result = ChannelPage;
}

/// A page of channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelPage {
    /// The channels.
    pub items: Vec<ChannelInfo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Shows one channel. It tells what the database has: where backups are required, what every one of them has is told by
/// events.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelGet {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
}

impl Method for ChannelGet {
    const NAME: &'static str = "channel.get";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::ChannelNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "channel_id": "$channel_id" }"#;
    type Result = ChannelInfo;
}

/// Waits until a channel is in a state, or in one from which it cannot come there any more, and shows it: after `timeout_secs` as it is
/// then. What became of it stands in `state`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelWait {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
    /// The state to wait for.
    pub state: ChannelState,
    /// How long to wait at most, in seconds: 1 to 600; 60 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_secs: Option<u32>,
}

impl Method for ChannelWait {
    const NAME: &'static str = "channel.wait";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::ChannelNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "channel_id": "$channel_id", "state": "normal", "timeout_secs": 30 }"#;
    type Result = ChannelInfo;
}

/// A channel. Every amount is of the state that both sides have signed, the pending HTLCs taken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelInfo {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
    /// The state of the channel.
    pub state: ChannelState,
    /// Why the channel is frozen, and absent otherwise. What cannot be read of it is empty or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_reason: Option<String>,
    /// Why the channel failed, or why its cooperative close has not come about and what to do; absent otherwise. Under
    /// restored mode also what to do where the peer does not close. What the peer said is escaped and cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether a required backup is so late with the channel that it takes no new HTLCs; `backup.status` says why.
    #[serde(default)]
    pub stalled: bool,
    /// Whether the peer is connected and the channel is agreed on since (BOLT 2, `channel_reestablish`).
    pub connected: bool,
    /// The funding output, as `txid:n`.
    pub funding_outpoint: String,
    /// Where the funding output stands in the chain, as `BxTxO`; absent until a block holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_channel_id: Option<String>,
    /// The amount of the funding output, in satoshi.
    pub capacity_sat: u64,
    /// What is ours, in millisatoshi.
    pub local_msat: u64,
    /// What is the peer's, in millisatoshi.
    pub remote_msat: u64,
    /// The most that one payment could send now, in millisatoshi: ours less reserve, fees and limits.
    pub spendable_msat: u64,
    /// The most that one payment could bring now, in millisatoshi.
    pub receivable_msat: u64,
    /// How many HTLCs are pending.
    pub htlcs: u32,
    /// The channel type (BOLT 9): the bit field as hex, most significant byte first.
    pub channel_type: String,
    /// The number of the newest commitment transaction of ours, counting up from 0 (BOLT 3).
    pub commitment_number: u64,
    /// Whether this node opened the channel and pays its commitment fees.
    pub is_opener: bool,
    /// Whether the channel is to be announced to the network.
    pub announce: bool,
    /// How many confirmations the funding output still needs; absent once it has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed_blocks: Option<u32>,
    /// The id of the transaction that closes the channel; absent until one is known. Where several are signed, the newest
    /// of them, until one confirms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closing_txid: Option<String>,
    /// What is asked for forwarding HTLCs to the peer; absent where nothing is forwarded any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<ForwardingTerms>,
}

/// What is asked for forwarding HTLCs over a channel to its peer (BOLT 7, `channel_update`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardingTerms {
    /// Blocks between the expiry of the incoming and of the outgoing HTLC.
    pub cltv_delta_blocks: u16,
    /// The fee of each HTLC, in millisatoshi.
    pub fee_base_msat: u32,
    /// The fee for each million that is forwarded.
    pub fee_proportional_millionths: u32,
    /// The smallest HTLC that is forwarded, in millisatoshi; the peer may take only larger ones.
    pub htlc_minimum_msat: u64,
    /// The largest HTLC that is forwarded, in millisatoshi; absent for as much as the channel carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htlc_maximum_msat: Option<u64>,
}

/// Changes what is asked for forwarding over one channel; what is not given stays. The peer is told, and for ten minutes
/// payments that meet the terms before this change are forwarded too. Answers with all terms of the channel as they are
/// then. It takes no key: a repeat sets the same again, over what another caller may have set meanwhile.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelSetPolicy {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
    /// Whether all that was set for this channel before is dropped first, so that the config's terms hold again where
    /// nothing is given here; false without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_config: Option<bool>,
    /// Blocks between the expiry of the incoming and of the outgoing HTLC: 34 to 2016.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 34, max = 2016))]
    pub cltv_delta_blocks: Option<u16>,
    /// The fee of each HTLC, in millisatoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_base_msat: Option<u32>,
    /// The fee for each million that is forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_proportional_millionths: Option<u32>,
    /// The smallest HTLC that is forwarded, in millisatoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htlc_minimum_msat: Option<u64>,
    /// The largest HTLC that is forwarded, in millisatoshi; 0 for as much as the channel carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htlc_maximum_msat: Option<u64>,
}

impl Method for ChannelSetPolicy {
    const NAME: &'static str = "channel.set_policy";
    const SCOPES: &'static [Scope] = &[Scope::Channel];
    const ERRORS: &'static [ErrorKind] =
        &[ErrorKind::ChannelNotFound, ErrorKind::ChannelStateUnfit, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str =
        r#"{ "channel_id": "$channel_id", "fee_base_msat": 0, "fee_proportional_millionths": 250 }"#;
    type Result = ForwardingTerms;
}

/// The state of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// Waits for its confirmations, or for the peer's `channel_ready`.
    Funding,
    /// Carries payments.
    Normal,
    /// Takes no new payments and waits for the pending ones to end.
    ShuttingDown,
    /// The closing transaction is agreed on or published, and not deep enough yet.
    Closing,
    /// Closed for good.
    Closed,
    /// Failed: our newest commitment transaction goes on chain, and the money comes home from there. Where a required
    /// backup refused the channel, only what every required backup has goes there, at the first deadline of an HTLC or
    /// by `channel.force_close`, or nothing where that is not known; in restored mode nothing. `reason` says which.
    Failed,
    /// Stored rows of it cannot be read: nothing of it is signed or published, and its rows stay as they are.
    Frozen,
}

/// Closes a channel together with the peer. Answers at once; pending payments end first. A repeat tells how far it is, and takes no key;
/// with a higher feerate it replaces the closing transaction, where the peer knows `option_simple_close`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelClose {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
    /// Feerate of the closing transaction in satoshi per virtual byte; bitcoind's estimate without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub feerate_sat_per_vb: Option<u32>,
}

impl Method for ChannelClose {
    const NAME: &'static str = "channel.close";
    const MOVES_MONEY: bool = true;
    const SCOPES: &'static [Scope] = &[Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::Restored,
        ErrorKind::ChainNotSynced,
        ErrorKind::WalletFailed,
        ErrorKind::ChannelNotFound,
        ErrorKind::ChannelStateUnfit,
        ErrorKind::StorageFailed,
    ];
    const EXAMPLE: &'static str = r#"{ "channel_id": "$channel_id", "feerate_sat_per_vb": 5 }"#;
    type Result = ChannelClosing;
}

/// A channel is being closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelClosing {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
    /// The state of the channel.
    pub state: ChannelState,
}

/// Closes a channel without the peer: our newest commitment transaction, or, of a channel that a backup refused, the
/// newest that every required backup has, goes on chain, and our balance comes to the wallet after the delay that the
/// peer set, less fees. `channel.close` is cheaper where the peer answers. Refused for a channel of which the peer has
/// proved a newer state. Where a required backup has not told since the start what it holds, nothing is published before
/// it has: `reason` in `channel.get` says so. Answers at once; a repeat tells how far it is, and takes no key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelForceClose {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
}

impl Method for ChannelForceClose {
    const NAME: &'static str = "channel.force_close";
    const MOVES_MONEY: bool = true;
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ERRORS: &'static [ErrorKind] =
        &[ErrorKind::Restored, ErrorKind::ChannelNotFound, ErrorKind::ChannelStateUnfit, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "channel_id": "$channel_id" }"#;
    type Result = ChannelForceClosing;
}

/// A channel is being closed without the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelForceClosing {
    /// The channel's name: 32 bytes, hex.
    pub channel_id: String,
    /// The state of the channel: `failed` until the money is home, then `closed`.
    pub state: ChannelState,
    /// The id of our commitment transaction, or of the transaction that closed the channel instead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closing_txid: Option<String>,
}
