//! `backup.*`: where the rows of channels are kept beyond the database.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Tells how every backup of the configuration stands, and how far it is behind.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupStatus {}

impl Method for BackupStatus {
    const NAME: &'static str = "backup.status";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = BackupReport;
}

/// How the backups stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackupReport {
    /// The backups, in the order of the configuration; none where none is configured.
    pub items: Vec<BackupInfo>,
    /// How many channels take no new HTLCs because a required backup has been late with them for more than 20 seconds.
    pub stalled_channels: u32,
    /// How many events are not told yet because a required backup lacks a channel that they, or events before them, tell of.
    pub held_events: u64,
    /// For how long the oldest of them waits, in seconds.
    pub held_events_secs: u64,
    /// The channels that the oldest of them waits for, 16 at most.
    pub held_events_for: Vec<String>,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackupInfo {
    /// Its name in the configuration.
    pub name: String,
    /// What it is: `mirror`, `directory` or `command`.
    pub kind: String,
    /// Whether promises to peers wait for it.
    pub required: bool,
    /// How it stands.
    pub state: BackupState,
    /// What is wrong, and absent where nothing is known to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do; absent where nothing is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How many writes of all channels it has yet to complete, a count.
    pub lag_updates: u64,
    /// What it has yet to complete, in bytes of keys and rows, about: what waits to be given to it, and what it has in hand. Until a write of
    /// a whole channel is made it is an estimate: as much as the last one, or as the updates that it stands for where they are more, and
    /// 2,048 bytes at least. It is 0 only where nothing waits.
    pub lag_bytes: u64,
    /// For how long the oldest write that it has yet to complete waits, in seconds.
    pub lag_secs: u64,
    /// When it last completed a write, in unix seconds; absent before the first since the start of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<u64>,
    /// When a restore from it was last tried by the node and found right, in unix seconds, over restarts; absent before the first.
    /// `outriggerd verify-backup` changes nothing, and so not this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<u64>,
    /// Why the last restore that was tried from it would not have brought back what the node has; absent where it would, and before
    /// the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_failure: Option<String>,
    /// Why no restore is tried from it now, or not of all channels; absent where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified: Option<String>,
}

/// How a backup stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupState {
    /// It has not told yet what it holds.
    Starting,
    /// It has everything.
    Complete,
    /// It is behind, and nothing is known to be wrong.
    Behind,
    /// It cannot be reached or written to, and is tried again.
    Troubled,
    /// It refused a channel for good. A second refusal stops the daemon where it is required.
    Failed,
    /// It holds more than the database, which is an old copy; it is left as it is.
    Ahead,
    /// The node is in restored mode and gives nothing to backups.
    Off,
}
