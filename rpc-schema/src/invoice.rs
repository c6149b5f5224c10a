//! `invoice.*`: asking to be paid (BOLT 11).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Creates an invoice. It is stored before it is given out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvoiceCreate {
    /// The amount asked for, in millisatoshi; without it the payer decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub amount_msat: Option<u64>,
    /// What the payment is for; the payer sees it. At most 639 bytes.
    pub description: String,
    /// How long the invoice can be paid, in seconds: 1 to 31,536,000; 3600 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expiry_secs: Option<u32>,
    /// A text of the operator's own, at most 128 characters; the payer does not see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Any text of 1 to 128 characters that names this invoice: the same text with the same parameters gives the same
    /// invoice again, and with other parameters is refused. It is remembered for 1,000 days, and at least until the invoice is paid
    /// or has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Method for InvoiceCreate {
    const NAME: &'static str = "invoice.create";
    const SCOPES: &'static [Scope] = &[Scope::Invoice];
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::Restored,
        ErrorKind::InvoiceNotFound,
        ErrorKind::InvoiceInvalid,
        ErrorKind::StorageFailed,
        ErrorKind::DiskLow,
    ];
    const EXAMPLE: &'static str = r#"{ "amount_msat": 100000, "description": "coffee", "label": "table 7" }"#;
    type Result = InvoiceCreated;
}

/// An invoice to hand to the payer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceCreated {
    /// The invoice (BOLT 11).
    pub invoice: String,
    /// Its payment hash: 32 bytes, hex.
    pub payment_hash: String,
    /// When it expires, in unix seconds.
    pub expires_at: u64,
    /// How many ways to this node it names, a count: channels whose peers have told what they ask for forwarding. With none,
    /// only a node that has a channel with this one can pay it.
    pub route_hints: u32,
}

/// Shows one invoice of this node. It tells what the database has: where backups are required, what every one of them
/// has is told by events. Rely on `invoice_paid` of `event.list` before goods are shipped.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvoiceGet {
    /// The invoice's payment hash: 32 bytes, hex.
    pub payment_hash: String,
}

impl Method for InvoiceGet {
    const NAME: &'static str = "invoice.get";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Invoice];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::InvoiceNotFound, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "payment_hash": "$payment_hash" }"#;
    type Result = InvoiceInfo;
}

/// An invoice of this node, or what came to it without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceInfo {
    /// The invoice (BOLT 11); absent for a payment that nobody asked for (keysend).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invoice: Option<String>,
    /// Its payment hash: 32 bytes, hex.
    pub payment_hash: String,
    /// The state of the invoice.
    pub state: InvoiceState,
    /// The amount asked for, in millisatoshi; absent where the payer decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_msat: Option<u64>,
    /// The amount received, in millisatoshi; absent until it is paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_msat: Option<u64>,
    /// What the payment is for.
    pub description: String,
    /// The operator's own text; absent where none was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it was created, in unix seconds.
    pub created_at: u64,
    /// When it expires, in unix seconds.
    pub expires_at: u64,
    /// When it was paid, in unix seconds; absent until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paid_at: Option<u64>,
}

/// The state of an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceState {
    /// Can be paid.
    Open,
    /// Has been paid: its preimage has been released.
    Paid,
    /// Was not paid in time.
    Expired,
}

/// Lists the invoices of this node, and what came to it without one, in the order of their payment hashes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvoiceList {
    /// The `next` of the page before; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for InvoiceList {
    const NAME: &'static str = "invoice.list";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Invoice];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "limit": 10 }"#;
    type Result = InvoicePage;
}

/// A page of invoices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InvoicePage {
    /// The invoices.
    pub items: Vec<InvoiceInfo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Reads an invoice of anybody on this node's network, and pays nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvoiceDecode {
    /// The invoice (BOLT 11).
    pub invoice: String,
}

impl Method for InvoiceDecode {
    const NAME: &'static str = "invoice.decode";
    const SCOPES: &'static [Scope] = &Scope::ALL;
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::InvoiceInvalid, ErrorKind::InvoiceWrongNetwork];
    const EXAMPLE: &'static str = r#"{ "invoice": "$invoice" }"#;
    type Result = InvoiceDecoded;
}

/// What an invoice asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceDecoded {
    /// The node that is paid: 33 bytes, hex.
    pub node_id: String,
    /// Its payment hash: 32 bytes, hex.
    pub payment_hash: String,
    /// The amount asked for, in millisatoshi; absent where the payer decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_msat: Option<u64>,
    /// What the payment is for, in the words of who made it; absent where only a hash of it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made, in unix seconds.
    pub created_at: u64,
    /// When it expires, in unix seconds.
    pub expires_at: u64,
    /// Blocks that the last HTLC must leave before it expires.
    pub final_cltv_blocks: u32,
    /// How many ways to the payee it names, a count.
    pub route_hints: u32,
}
