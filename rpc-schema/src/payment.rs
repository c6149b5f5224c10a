//! `payment.*`: paying.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Method;

/// Pays an invoice, or a node without one (keysend: `node_id`, `amount_msat` and `idempotency_key`). Answers as soon
/// as the attempt is stored; `payment.wait` gives the outcome. The same invoice is never paid twice.
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
    /// Any text of 1 to 128 characters that names this payment: the same text with the same parameters never pays
    /// twice, and with other parameters is refused. Required without an invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Method for PaymentSend {
    const NAME: &'static str = "payment.send";
    const MOVES_MONEY: bool = true;
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
    /// What was paid in fees, in millisatoshi; present where the state is `succeeded`.
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
    /// The same for people.
    pub message: String,
}
