//! What the methods ask of the node: the seam between the interface and everything behind it.

use std::future::Future;
use std::time::Duration;

use bitcoin::{OutPoint, Txid};
use outrigger_bolt::address::PeerAddress;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_rpc_schema as schema;
use tokio::sync::watch;

use super::{Answer, Whose};
use crate::manager::terms::TermsChange;
use crate::payment::GivenHop;
use crate::token::{Token, TokenId, TokenOrder, Tokens};

/// The node behind the interface; tests have one of their own.
///
/// Parameters are read and checked before they get here: types, ranges and lengths, not whether the node can do it. An
/// answer is given when it is durable. When the caller hangs up, a method that moves money goes on to its end; any other
/// is dropped at its next await.
pub trait Backend: Send + Sync + 'static {
    /// `node.info`.
    fn node_info(&self) -> impl Future<Output = Answer<schema::NodeInfoReport>> + Send;
    /// `chain.status`.
    fn chain_status(&self) -> impl Future<Output = Answer<schema::ChainStatusReport>> + Send;
    /// `/metrics`: all that is measured, in the text format of Prometheus.
    fn metrics(&self) -> impl Future<Output = String> + Send;
    /// `chain.feerates`.
    fn chain_feerates(&self) -> impl Future<Output = Answer<schema::ChainFeeratesReport>> + Send;
    /// `chain.notify_block`.
    fn chain_notify_block(&self) -> impl Future<Output = Answer<schema::ChainNotified>> + Send;
    /// `wallet.send`.
    fn wallet_send(&self, order: SendOrder) -> impl Future<Output = Answer<schema::WalletSent>> + Send;
    /// `wallet.wait`: the transaction once it is so deep, or as it is after `timeout`.
    fn wallet_wait(
        &self,
        txid: Txid,
        depth_blocks: u32,
        timeout: Duration,
    ) -> impl Future<Output = Answer<schema::WalletTransaction>> + Send;
    /// `wallet.utxos`: the first `count` outputs after `after`, by outpoint.
    fn wallet_utxos(
        &self,
        after: Option<OutPoint>,
        count: usize,
    ) -> impl Future<Output = Answer<Vec<schema::WalletUtxo>>> + Send;
    /// `peer.disconnect`: whether it was connected.
    fn peer_disconnect(&self, node_id: NodeId) -> impl Future<Output = Answer<bool>> + Send;
    /// `invoice.list`: the first `count` invoices after `after`, by payment hash.
    fn invoice_list(
        &self,
        after: Option<PaymentHash>,
        count: usize,
    ) -> impl Future<Output = Answer<Vec<schema::InvoiceInfo>>> + Send;
    /// `invoice.decode`.
    fn invoice_decode(&self, invoice: String) -> impl Future<Output = Answer<schema::InvoiceDecoded>> + Send;
    /// `payment.list`: the first `count` payments after `after`, by id.
    fn payment_list(
        &self,
        after: Option<[u8; 32]>,
        count: usize,
    ) -> impl Future<Output = Answer<Vec<schema::PaymentInfo>>> + Send;
    /// `wallet.balance`.
    fn wallet_balance(&self) -> impl Future<Output = Answer<schema::WalletBalanceReport>> + Send;
    /// `wallet.new_address`: another at each call, and the same for a key seen before.
    fn wallet_new_address(
        &self,
        idempotency_key: Option<String>,
    ) -> impl Future<Output = Answer<schema::WalletAddress>> + Send;
    /// `peer.connect`.
    fn peer_connect(
        &self,
        node_id: NodeId,
        address: PeerAddress,
    ) -> impl Future<Output = Answer<schema::PeerConnected>> + Send;
    /// `peer.list`: the first `query.count` peers after `query.after`, by node id.
    fn peer_list(&self, query: PeerQuery) -> impl Future<Output = Answer<Vec<schema::PeerInfo>>> + Send;
    /// `channel.open`: starts the opening or, for a key seen before, tells how far it is. Waits for nobody but the disk.
    fn channel_open(&self, order: OpenOrder) -> impl Future<Output = Answer<schema::ChannelOpened>> + Send;
    /// `channel.open_wait`: the opening once it is over, or as it is after `timeout`.
    fn channel_open_wait(
        &self,
        op_id: [u8; 16],
        whose: Whose,
        timeout: Duration,
    ) -> impl Future<Output = Answer<schema::ChannelOpened>> + Send;
    /// `channel.list`: the first `query.count` channels after `query.after` that match, by channel id.
    fn channel_list(&self, query: ChannelQuery) -> impl Future<Output = Answer<Vec<schema::ChannelInfo>>> + Send;
    /// `channel.get`.
    fn channel_get(&self, channel_id: ChannelId) -> impl Future<Output = Answer<schema::ChannelInfo>> + Send;
    /// `channel.wait`: the channel once it is in this state or beyond it, or as it is after `timeout`.
    fn channel_wait(
        &self,
        channel_id: ChannelId,
        state: schema::ChannelState,
        timeout: Duration,
    ) -> impl Future<Output = Answer<schema::ChannelInfo>> + Send;
    /// `channel.close`.
    fn channel_close(
        &self,
        channel_id: ChannelId,
        feerate: Option<FeeratePerKw>,
    ) -> impl Future<Output = Answer<schema::ChannelClosing>> + Send;
    /// `channel.force_close`.
    fn channel_force_close(
        &self,
        channel_id: ChannelId,
    ) -> impl Future<Output = Answer<schema::ChannelForceClosing>> + Send;
    /// `channel.set_policy`.
    fn channel_set_policy(
        &self,
        channel_id: ChannelId,
        change: TermsChange,
    ) -> impl Future<Output = Answer<schema::ForwardingTerms>> + Send;
    /// `invoice.create`.
    fn invoice_create(&self, order: InvoiceOrder) -> impl Future<Output = Answer<schema::InvoiceCreated>> + Send;
    /// `invoice.get`.
    fn invoice_get(&self, payment_hash: PaymentHash) -> impl Future<Output = Answer<schema::InvoiceInfo>> + Send;
    /// `payment.send`.
    fn payment_send(&self, order: PaymentOrder) -> impl Future<Output = Answer<schema::PaymentSent>> + Send;
    /// `payment.wait`: the payment once it is no longer pending, or as it is after `timeout`.
    fn payment_wait(
        &self,
        payment_id: String,
        timeout: Duration,
    ) -> impl Future<Output = Answer<schema::PaymentInfo>> + Send;
    /// `payment.get`.
    fn payment_get(&self, payment_id: String) -> impl Future<Output = Answer<schema::PaymentInfo>> + Send;
    /// `payment.abandon`, of a payment that this token began where one is given.
    fn payment_abandon(
        &self,
        payment_id: String,
        only_of: Option<TokenId>,
    ) -> impl Future<Output = Answer<schema::PaymentInfo>> + Send;
    /// `forward.list`: the first `query.count` forwards after `query.after` in the direction asked for.
    fn forward_list(&self, query: ForwardQuery) -> impl Future<Output = Answer<Vec<schema::ForwardInfo>>> + Send;
    /// `forward.stats`.
    fn forward_stats(&self, query: StatsQuery) -> impl Future<Output = Answer<schema::ForwardReport>> + Send;
    /// `backup.status`.
    fn backup_status(&self) -> impl Future<Output = Answer<schema::BackupReport>> + Send;
    /// `event.list`.
    fn event_list(&self, query: EventQuery) -> impl Future<Output = Answer<schema::EventPage>> + Send;
    /// The newest event that may be told now, and what hears of the next. Numbers rise; some may be passed over.
    fn event_news(&self) -> Answer<(u64, watch::Receiver<u64>)>;
    /// The tokens that admit callers.
    fn tokens(&self) -> &Tokens;
    /// `token.create`.
    fn token_create(&self, order: TokenOrder) -> impl Future<Output = Answer<schema::TokenCreated>> + Send;
    /// `token.list`: the first `count` tokens whose names come after `after`, by name.
    fn token_list(&self, after: Option<&str>, count: usize) -> impl Future<Output = Answer<Vec<Token>>> + Send;
    /// `token.revoke`.
    fn token_revoke(&self, name: &str) -> impl Future<Output = Answer<()>> + Send;
}

/// Which peers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerQuery {
    /// Only peers whose node id comes after this one.
    pub after: Option<NodeId>,
    /// How many to give at most; one more than the page, so that its end shows.
    pub count: usize,
}

/// A channel to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// The peer.
    pub node_id: NodeId,
    /// The capacity.
    pub funding: Sat,
    /// What is given to the peer; not more than the capacity.
    pub push: Msat,
    /// Whether to announce the channel.
    pub announce: bool,
    /// Feerate of the funding transaction; the estimate without it.
    pub feerate: Option<FeeratePerKw>,
    /// The name of this opening.
    pub idempotency_key: String,
}

/// Coins to send on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendOrder {
    /// Where to, not read yet.
    pub address: String,
    /// What arrives, not 0.
    pub amount: Sat,
    /// Feerate of the transaction; the estimate without it.
    pub feerate: Option<FeeratePerKw>,
    /// The name of this transaction.
    pub idempotency_key: String,
}

/// Which channels are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelQuery {
    /// Only in this state.
    pub state: Option<schema::ChannelState>,
    /// Only with this peer.
    pub node_id: Option<NodeId>,
    /// Only channels whose id comes after this one.
    pub after: Option<ChannelId>,
    /// How many to give at most; one more than the page, so that its end shows.
    pub count: usize,
}

/// Which forwards are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardQuery {
    /// Whether the newest come first.
    pub newest_first: bool,
    /// Only those that come after this one in that order.
    pub after: Option<u64>,
    /// How many to give at most; one more than the page, so that its end shows.
    pub count: usize,
}

/// Which sums over forwards are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsQuery {
    /// Unix seconds; 30 days before `until_at` without it.
    pub since_at: Option<u64>,
    /// Unix seconds, not before `since_at`; now without it.
    pub until_at: Option<u64>,
    /// How many channels to give at most.
    pub count: usize,
}

/// An invoice to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceOrder {
    /// The amount, not 0; without it the payer decides.
    pub amount: Option<Msat>,
    /// At most 639 bytes (BOLT 11, field `d`).
    pub description: String,
    /// How long it can be paid: from a second to a year.
    pub expiry: Duration,
    /// The operator's own text.
    pub label: Option<String>,
    /// The name of this invoice's creation.
    pub idempotency_key: Option<String>,
}

/// A payment to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentOrder {
    /// Whom to pay.
    pub target: PaymentTarget,
    /// The most to pay in fees over all attempts; the default share of the amount without it.
    pub max_fee: Option<Msat>,
    /// How long new attempts are made: from a second to an hour.
    pub timeout: Duration,
    /// The only way to take.
    pub route: Option<Vec<GivenHop>>,
    /// The name of this payment; always there without an invoice.
    pub idempotency_key: Option<String>,
    /// The token that it is counted for; none for whoever may do everything.
    pub payer: Option<TokenId>,
}

/// Whom to pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentTarget {
    /// The text of an invoice, not read yet, and the amount given beside it.
    Invoice {
        /// What claims to be a BOLT 11 invoice.
        invoice: String,
        /// For an invoice that leaves the amount open.
        amount: Option<Msat>,
    },
    /// A node that expects nothing (keysend).
    Node {
        /// The receiver.
        node_id: NodeId,
        /// The amount, not 0.
        amount: Msat,
    },
}

/// Which events are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// Only events after this number; from the oldest kept without it.
    pub after_seq: Option<u64>,
    /// Only these kinds; all where it is empty.
    pub kinds: Vec<schema::EventKind>,
    /// How many to give at most.
    pub limit: usize,
}
