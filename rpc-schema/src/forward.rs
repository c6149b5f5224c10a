//! `forward.*`: what was relayed between peers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Lists HTLCs that were relayed and whose fee is earned, the newest million of them, oldest first. `after` the last page
/// seen, it gives what came since.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardList {
    /// Whether the newest come first; false without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_first: Option<bool>,
    /// The `next` of the page before, or the `seq` of the last forward that is known; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many forwards to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for ForwardList {
    const NAME: &'static str = "forward.list";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "newest_first": true, "limit": 10 }"#;
    type Result = ForwardPage;
}

/// A page of forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardPage {
    /// The forwards.
    pub items: Vec<ForwardInfo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// An HTLC that was received from one peer, offered to another and claimed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardInfo {
    /// The number of this forward, rising.
    pub seq: u64,
    /// When its fee was earned: the received HTLC was claimed and is gone; in unix seconds.
    pub settled_at: u64,
    /// The channel that it came by, hex.
    pub incoming_channel_id: String,
    /// What it brought, in millisatoshi.
    pub incoming_msat: u64,
    /// The channel that it went by, hex.
    pub outgoing_channel_id: String,
    /// What went on, in millisatoshi; 0 where that came back, and the preimage was known from another HTLC of the same
    /// payment: then all that was brought was earned.
    pub outgoing_msat: u64,
    /// What was earned, in millisatoshi.
    pub fee_msat: u64,
}

/// Sums over forwards by day and channel, and what is being forwarded now.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardStats {
    /// The start of the time that counts, in unix seconds, taken to the start of its day by UTC; 30 days before
    /// `until_at` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_at: Option<u64>,
    /// The end of that time, in unix seconds, taken to the end of its day by UTC; now without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_at: Option<u64>,
    /// How many channels to give at most, those that earned the most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for ForwardStats {
    const NAME: &'static str = "forward.stats";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "limit": 10 }"#;
    type Result = ForwardReport;
}

/// Sums over forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardReport {
    /// The first second that counts, in unix seconds.
    pub since_at: u64,
    /// The last second that counts, in unix seconds.
    pub until_at: u64,
    /// Forwards that went through.
    pub settled: u64,
    /// HTLCs that this node did not hand on.
    pub refused: u64,
    /// HTLCs that were handed on and failed.
    pub failed: u64,
    /// What the settled ones brought, in millisatoshi.
    pub incoming_msat: u64,
    /// What of it went on, in millisatoshi.
    pub outgoing_msat: u64,
    /// What was earned, in millisatoshi.
    pub fees_msat: u64,
    /// HTLCs that are being forwarded now.
    pub pending: u32,
    /// What those brought, in millisatoshi.
    pub pending_msat: u64,
    /// The channels that had a part in it, those that earned the most first.
    pub channels: Vec<ForwardChannel>,
}

/// What was forwarded over one channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForwardChannel {
    /// The channel, hex.
    pub channel_id: String,
    /// Forwards that came by it and were settled.
    pub incoming: u64,
    /// What they brought, in millisatoshi.
    pub incoming_msat: u64,
    /// Forwards that went by it and were settled.
    pub outgoing: u64,
    /// What went on by it, in millisatoshi.
    pub outgoing_msat: u64,
    /// What was earned with those that went by it, in millisatoshi.
    pub fees_msat: u64,
    /// HTLCs that were to go by it and were not handed on.
    pub refused: u64,
    /// HTLCs that went by it and failed.
    pub failed: u64,
}
