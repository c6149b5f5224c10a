//! `payment.*`: paying.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Pays an invoice, or a node without one (keysend: `node_id`, `amount_msat` and `idempotency_key`). Answers as soon
/// as the attempt is stored; `payment.wait` gives the outcome. The same invoice is never paid twice. What one channel cannot
/// send goes in parts over several, where the receiver takes them; what fails on one way is tried over another.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentSend {
    /// The invoice to pay (BOLT 11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoice: Option<String>,
    /// The node to pay without an invoice: 33 bytes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The amount in millisatoshi, for an invoice that leaves it to the payer or for a payment without an invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub amount_msat: Option<u64>,
    /// The most to pay in fees over all attempts, in millisatoshi. Without it the larger of 5,000 msat and 1 % of the
    /// amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fee_msat: Option<u64>,
    /// How long new attempts are made, in seconds: 1 to 3600; 60 without it. What is in flight then is still waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_secs: Option<u32>,
    /// The only way to take, from the peer that gets the first HTLC to the receiver: 1 to 20 hops. It is tried once, and the
    /// payment is not split. Without it the node finds ways: a channel with the receiver, and those that the invoice names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Vec<RouteHop>>,
    /// Any text of 1 to 128 characters that names this payment: the same text with the same parameters never pays
    /// twice, and with other parameters is refused. It is remembered for 1,000 days, and at least until the payment has ended.
    /// Required without an invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A hop of a route: a node, and the HTLC that leads to it. What a node keeps for itself is the difference to the next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteHop {
    /// The node that the hop leads to: 33 bytes, hex.
    pub node_id: String,
    /// The channel that leads there, `BxTxO`, as the node before calls it. Needed but for the first hop, whose channel is one
    /// of ours: without it the one that fits is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_channel_id: Option<String>,
    /// What the HTLC over that channel brings, in millisatoshi. The last hop's is the amount of the payment.
    #[schemars(range(min = 1))]
    pub amount_msat: u64,
    /// Blocks from now until that HTLC expires: for the last hop at least what the invoice asks for, and a few more in case
    /// blocks are found on the way.
    #[schemars(range(min = 1))]
    pub expiry_blocks: u32,
}

impl Method for PaymentSend {
    const NAME: &'static str = "payment.send";
    const MOVES_MONEY: bool = true;
    const SCOPES: &'static [Scope] = &[Scope::Pay];
    const NEEDS_CHAIN: bool = true;
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::Restored,
        ErrorKind::PeerNotConnected,
        ErrorKind::ChannelStateUnfit,
        ErrorKind::InvoiceInvalid,
        ErrorKind::InvoiceExpired,
        ErrorKind::InvoiceWrongNetwork,
        ErrorKind::InvoiceAmountRequired,
        ErrorKind::InvoiceAmountMismatch,
        ErrorKind::PaymentNotFound,
        ErrorKind::NoRoute,
        ErrorKind::InsufficientCapacity,
        ErrorKind::PaymentToSelf,
        ErrorKind::FeeTooHigh,
        ErrorKind::AuthBudgetExceeded,
        ErrorKind::StorageFailed,
        ErrorKind::DiskLow,
    ];
    const EXAMPLE: &'static str = r#"{ "invoice": "$invoice", "max_fee_msat": 10000 }"#;
    type Result = PaymentSent;
}

/// A payment is stored and under way, or was so before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentSent {
    /// Names the payment.
    pub payment_id: String,
    /// Its payment hash: 32 bytes, hex.
    pub payment_hash: String,
    /// The state of the payment.
    pub state: PaymentState,
}

/// Waits until a payment has succeeded or failed, or the time is over; then says how it stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentWait {
    /// The payment.
    pub payment_id: String,
    /// How long to wait, in seconds: 0 to 600; 60 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 600))]
    pub timeout_secs: Option<u32>,
}

impl Method for PaymentWait {
    const NAME: &'static str = "payment.wait";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Pay];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::PaymentNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "payment_id": "$payment_id", "timeout_secs": 30 }"#;
    type Result = PaymentInfo;
}

/// Shows one payment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentGet {
    /// The payment.
    pub payment_id: String,
}

impl Method for PaymentGet {
    const NAME: &'static str = "payment.get";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Pay];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::PaymentNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "payment_id": "$payment_id" }"#;
    type Result = PaymentInfo;
}

/// Has no new attempt made for a payment. What is in flight is decided by the network: the payment stays `pending` until
/// then, and may still succeed. Of a payment that has ended it only tells the end. A token abandons what was begun with it;
/// with the scope `admin`, whatever was begun. A repeat changes nothing, and takes no key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentAbandon {
    /// The payment.
    pub payment_id: String,
}

impl Method for PaymentAbandon {
    const NAME: &'static str = "payment.abandon";
    const SCOPES: &'static [Scope] = &[Scope::Pay];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::PaymentNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "payment_id": "$payment_id" }"#;
    type Result = PaymentInfo;
}

/// A payment of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentInfo {
    /// Names the payment.
    pub payment_id: String,
    /// Its payment hash: 32 bytes, hex.
    pub payment_hash: String,
    /// The state of the payment.
    pub state: PaymentState,
    /// The node paid: 33 bytes, hex.
    pub node_id: String,
    /// What the receiver gets, in millisatoshi.
    pub amount_msat: u64,
    /// The proof of payment: 32 bytes, hex; present where the state is `succeeded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preimage: Option<String>,
    /// What was paid in fees, in millisatoshi; present where the state is `succeeded`. Of a payment in parts it may still
    /// fall: parts that are not decided yet are counted as paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee_msat: Option<u64>,
    /// Why it failed; present where the state is `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<PaymentFailure>,
    /// When it was asked for, in unix seconds.
    pub created_at: u64,
    /// When it succeeded or failed, in unix seconds; absent until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<u64>,
}

/// The state of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Not known yet: the money may or may not arrive.
    Pending,
    /// The receiver has it, and the preimage is the proof.
    Succeeded,
    /// Nothing was paid, and nothing of this payment can be paid any more.
    Failed,
}

/// Why a payment failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentFailure {
    /// The kind of failure, in snake case: the name of a BOLT 4 failure such as `incorrect_or_unknown_payment_details`,
    /// or of an error of this interface such as `no_route`.
    pub kind: String,
    /// The same for people: who failed it, over which channel, with which code, what that means and what to do.
    pub message: String,
}

/// Lists the payments that this node sent, in the order of their names.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentList {
    /// The `next` of the page before; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for PaymentList {
    const NAME: &'static str = "payment.list";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "limit": 10 }"#;
    type Result = PaymentPage;
}

/// A page of payments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentPage {
    /// The payments.
    pub items: Vec<PaymentInfo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
