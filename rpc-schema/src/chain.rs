//! `chain.*`: what the node knows of the chain, through bitcoind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Tells how far the node follows the chain.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainStatus {}

impl Method for ChainStatus {
    const NAME: &'static str = "chain.status";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[];
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
    /// What was asked of bitcoind since the start of the daemon, by method.
    pub calls: Vec<ChainCalls>,
    /// What the node allows itself to ask at once, and what it asks.
    pub budget: ChainBudget,
}

/// What was asked of bitcoind by one method since the start of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainCalls {
    /// The method's name at bitcoind.
    pub method: String,
    /// How many calls have ended.
    pub calls: u64,
    /// How many of them had no answer, or one that is an error; a block that bitcoind does not have is one too.
    pub errors: u64,
    /// How long one took on average, in microseconds. `waitfornewblock` waits for the next block.
    pub mean_micros: u64,
    /// Half of them took no longer than this, in microseconds: the end of a bucket of a histogram, 120 s at the most.
    pub half_within_micros: u64,
    /// 99 of 100 took no longer than this, in microseconds: as above.
    pub most_within_micros: u64,
}

/// What the node allows itself to ask of bitcoind at once, and what it asks. The long poll for the next block has a connection of its own
/// and is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainBudget {
    /// The most calls that are under way at once; one of them is kept for those with a deadline.
    pub calls_at_once: u32,
    /// Calls that are under way now.
    pub calls_now: u32,
    /// The most that were under way at once since the start of the daemon.
    pub calls_peak: u32,
    /// How many calls have had their turn since the start of the daemon.
    pub turns: u64,
    /// How long one waited for its turn on average, in microseconds.
    pub turn_mean_micros: u64,
    /// 99 of 100 waited no longer than this, in microseconds: the end of a bucket of a histogram, 120 s at the most.
    pub turn_most_within_micros: u64,
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

/// Tells the feerates that the node goes by, each in satoshi per virtual byte, rounded up.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainFeerates {}

impl Method for ChainFeerates {
    const NAME: &'static str = "chain.feerates";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = ChainFeeratesReport;
}

/// Feerates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainFeeratesReport {
    /// What funding and closing transactions pay unless the caller says otherwise.
    pub normal_sat_per_vb: u32,
    /// What commitment transactions of our channels are asked to pay.
    pub commitment_sat_per_vb: u32,
    /// The least that is relayed.
    pub floor_sat_per_vb: u32,
}

/// Says that there may be a new block, as bitcoind's `blocknotify` does. The node finds blocks by itself; this makes it look at once
/// where it is waiting to ask again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainNotifyBlock {
    /// The block's hash, 32 bytes as hex: taken for what bitcoind calls with, and not relied on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_hash: Option<String>,
}

impl Method for ChainNotifyBlock {
    const NAME: &'static str = "chain.notify_block";
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ERRORS: &'static [ErrorKind] = &[];
    const EXAMPLE: &'static str =
        r#"{ "block_hash": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206" }"#;
    type Result = ChainNotified;
}

/// The node looks for blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainNotified {
    /// Height of the newest block that the node had taken in before; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_height: Option<u32>,
}
