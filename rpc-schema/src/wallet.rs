//! `wallet.*`: the coins on chain.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Method, Scope};

/// Tells what the on-chain wallet holds. Channels are not in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletBalance {}

impl Method for WalletBalance {
    const NAME: &'static str = "wallet.balance";
    const SCOPES: &'static [Scope] = &[Scope::Read];
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

/// Gives a new address of the wallet, never given before.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WalletNewAddress {}

impl Method for WalletNewAddress {
    const NAME: &'static str = "wallet.new_address";
    const SCOPES: &'static [Scope] = &[Scope::Invoice, Scope::Channel];
    type Result = WalletAddress;
}

/// An address of the wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalletAddress {
    /// A segwit address of the node's network.
    pub address: String,
}
