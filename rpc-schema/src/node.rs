//! `node.*`: what this node is, whether it is ready, and how to stop it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Tells who this node is and how much it holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeInfo {}

impl Method for NodeInfo {
    const NAME: &'static str = "node.info";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = NodeInfoReport;
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeInfoReport {
    /// The node's public key: 33 bytes, hex.
    pub node_id: String,
    /// The name the operator gave to the node.
    pub alias: String,
    /// The version of the daemon.
    pub version: String,
    /// The Bitcoin network: `regtest` or `signet`.
    pub network: String,
    /// Height of the newest block that the node has taken in; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_height: Option<u32>,
    /// Hash of that block, hex in display order; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_hash: Option<String>,
    /// Where peers can reach the node, as `host:port`.
    pub addresses: Vec<String>,
    /// The features that the node offers in `init` (BOLT 9): the bit field as hex, most significant byte first.
    pub features: String,
    /// How many peers are connected.
    pub peers: u32,
    /// How many channels are not in history; one that is closed goes there once its end is buried.
    pub channels: u32,
    /// What the store has written since the daemon was started.
    pub store: StoreReport,
}

/// What the store has written since the daemon was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreReport {
    /// Transactions that were written and synced; each holds the steps of all channels that waited for it.
    pub commits: u64,
    /// Rows that were written or deleted.
    pub rows: u64,
    /// What was in the rows that were written, in bytes; the file takes more, since it is written in pages.
    pub staged_bytes: u64,
    /// Time that the commits took together, in microseconds, syncs included.
    pub commit_micros: u64,
}

/// Tells in which phase the daemon is. Answers from the first moment of the process on.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {}

impl Method for NodeStatus {
    const NAME: &'static str = "node.status";
    const SCOPES: &'static [Scope] = &Scope::ALL;
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = NodeStatusReport;
}

/// The phase of the daemon and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatusReport {
    /// The phase.
    pub phase: Phase,
    /// Why the daemon is in this phase, and what to do about it; absent where the phase says it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Height of the newest block that the node has taken in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_height: Option<u32>,
    /// Height that bitcoind has reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_height: Option<u32>,
    /// What is wrong with backups and what to do; absent where nothing is. `backup.status` tells more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<String>,
    /// That the disk of the data directory has too little room, how much, and what to do; absent where it has enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// What is wrong with the machine's clock and what to do; absent where nothing is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// How far the wallet is that looks at older blocks, since `wallet.start_height` was given when it had begun already, or why it cannot;
    /// absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wallet: Option<String>,
    /// The version of the daemon.
    pub version: String,
    /// The Bitcoin network: `regtest` or `signet`.
    pub network: String,
}

/// A phase in the life of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The daemon is opening its store.
    #[default]
    Starting,
    /// bitcoind does not answer yet, or is not ready.
    WaitingForBitcoind,
    /// Blocks are being taken in; nothing is opened, accepted or paid.
    Syncing,
    /// All methods work.
    Ready,
    /// The database is older than what peers were told: the node signs nothing and only collects what is its own.
    Restored,
    /// The daemon is closing its store.
    Stopping,
}

/// Stops the daemon. It answers first, then ends its connections and closes its store.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeStop {}

impl Method for NodeStop {
    const NAME: &'static str = "node.stop";
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = NodeStopping;
}

/// The daemon has been told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStopping {
    /// Always `stopping`.
    pub phase: Phase,
}
