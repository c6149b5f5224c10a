//! `chain.*`: what the node knows of the chain, through bitcoind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Method, Scope};

/// Tells how far the node follows the chain.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainStatus {}

impl Method for ChainStatus {
    const NAME: &'static str = "chain.status";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    type Result = ChainStatusReport;
}

/// How far the node follows the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainStatusReport {
    /// The Bitcoin network: `regtest` or `signet`.
    pub network: String,
    /// The state.
    pub state: ChainState,
    /// Why the node is in this state; absent where the state says it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Height of the newest block that the node has taken in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_height: Option<u32>,
    /// Hash of that block, hex in display order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_hash: Option<String>,
    /// Height that bitcoind has reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_height: Option<u32>,
}

/// How the node stands to bitcoind's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChainState {
    /// bitcoind does not answer, or is not ready.
    WaitingForBitcoind,
    /// Blocks are being taken in.
    Syncing,
    /// The node has taken in bitcoind's newest block.
    Synced,
    /// What bitcoind says cannot be used: another chain, a pruned block, a block that is not what was asked for.
    Blind,
}
