//! `wallet.*`: the coins on chain.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Tells what the on-chain wallet holds. Channels are not in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletBalance {}

impl Method for WalletBalance {
    const NAME: &'static str = "wallet.balance";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = WalletBalanceReport;
}

/// What the on-chain wallet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletBalanceReport {
    /// Satoshis in confirmed outputs that nothing has claimed: what a channel can be funded with.
    pub confirmed_sat: u64,
    /// Satoshis in outputs that wait for their first confirmation.
    pub unconfirmed_sat: u64,
    /// Satoshis in outputs that a funding transaction under way has claimed.
    pub locked_sat: u64,
}

/// Gives a new address of the wallet, never given before but to a call of the same key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletNewAddress {
    /// Any text of 1 to 128 characters that names this call: the same text gives the same address again. Without it each call gives
    /// another one. It is remembered for 1,000 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Method for WalletNewAddress {
    const NAME: &'static str = "wallet.new_address";
    const SCOPES: &'static [Scope] = &[Scope::Invoice, Scope::Channel];
    const ERRORS: &'static [ErrorKind] =
        &[ErrorKind::ChainNotSynced, ErrorKind::WalletFailed, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "idempotency_key": "till-7" }"#;
    type Result = WalletAddress;
}

/// An address of the wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletAddress {
    /// A segwit address of the node's network.
    pub address: String,
}

/// Lists the unspent outputs of the wallet, by outpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletUtxos {
    /// The `next` of the page before; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for WalletUtxos {
    const NAME: &'static str = "wallet.utxos";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[];
    const EXAMPLE: &'static str = r#"{ "limit": 10 }"#;
    type Result = WalletUtxoPage;
}

/// A page of outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletUtxoPage {
    /// The outputs.
    pub items: Vec<WalletUtxo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An unspent output of the wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletUtxo {
    /// Where it is, as `txid:n`.
    pub outpoint: String,
    /// What it is worth, in satoshi.
    pub amount_sat: u64,
    /// The address that it pays.
    pub address: String,
    /// Height of the block that holds it; absent while it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_height: Option<u32>,
    /// Whether a transaction in the making has claimed it.
    pub locked: bool,
}

/// Sends coins on chain. It answers once the signed transaction is stored, which which is then published until a block holds it; the events
/// `wallet_sent` and `wallet_confirmed` tell of it, and `wallet.wait` waits for the block. What the node keeps to pay for closing its channels is left in the wallet.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletSend {
    /// Where to: an address of the node's network.
    pub address: String,
    /// How much arrives, in satoshi; the fee comes on top.
    #[schemars(range(min = 1))]
    pub amount_sat: u64,
    /// Any text of 1 to 128 characters that names this transaction: the same text with the same parameters never sends twice, and
    /// with other parameters is refused. It is remembered for 1,000 days, and at least until a block holds the transaction.
    pub idempotency_key: String,
    /// Feerate in satoshi per virtual byte; bitcoind's estimate without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub feerate_sat_per_vb: Option<u32>,
}

impl Method for WalletSend {
    const NAME: &'static str = "wallet.send";
    const MOVES_MONEY: bool = true;
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const NEEDS_CHAIN: bool = true;
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::Restored,
        ErrorKind::InsufficientFunds,
        ErrorKind::WalletFailed,
        ErrorKind::FeerateOutOfRange,
        ErrorKind::StorageFailed,
    ];
    const EXAMPLE: &'static str =
        r#"{ "address": "$bitcoin_address", "amount_sat": 20000, "idempotency_key": "rent-may" }"#;
    type Result = WalletSent;
}

/// A transaction is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletSent {
    /// Names the call.
    pub op_id: String,
    /// The id of the transaction.
    pub txid: String,
    /// How far it is.
    pub state: SendState,
}

/// Waits until blocks hold a transaction of the wallet's, such as one of `wallet.send` or a funding transaction of `channel.open`, and
/// answers with how far it is: the longest after `timeout_secs`, as it is then. The event `wallet_confirmed` tells of the first block.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletWait {
    /// The id of the transaction: one that spends coins of the wallet, or pays it.
    pub txid: String,
    /// How many blocks there shall be from the one that holds it to the newest, both counted: 1 to 144; 1 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 144))]
    pub depth_blocks: Option<u32>,
    /// How long to wait at most, in seconds: 1 to 600; 60 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_secs: Option<u32>,
}

impl Method for WalletWait {
    const NAME: &'static str = "wallet.wait";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::WalletTransactionNotFound];
    const EXAMPLE: &'static str = r#"{ "txid": "$txid", "depth_blocks": 1, "timeout_secs": 30 }"#;
    type Result = WalletTransaction;
}

/// A transaction of the wallet's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletTransaction {
    /// Its id.
    pub txid: String,
    /// How far it is.
    pub state: SendState,
    /// Height of the block that holds it; absent while it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_height: Option<u32>,
    /// How many blocks there are from the one that holds it to the newest, both counted; 0 while it is in none.
    pub depth_blocks: u32,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SendState {
    /// It is published until a block holds it.
    Pending,
    /// A block holds it.
    Confirmed,
}
