//! `peer.*`: the nodes this one talks to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Connects to a peer. Where it is connected already, says so at once: a repeat changes nothing, and takes no key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerConnect {
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
    /// Where it listens, as `host:port`; an IPv6 address stands in brackets.
    pub address: String,
}

impl Method for PeerConnect {
    const NAME: &'static str = "peer.connect";
    const SCOPES: &'static [Scope] = &[Scope::Channel];
    const NEEDS_CHAIN: bool = true;
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::PeerUnreachable,
        ErrorKind::PeerHandshakeFailed,
        ErrorKind::PeerIncompatible,
        ErrorKind::PeerIsSelf,
    ];
    const EXAMPLE: &'static str = r#"{ "node_id": "$node_id", "address": "$peer_address" }"#;
    type Result = PeerConnected;
}

/// A peer is connected and has sent its `init`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerConnected {
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
    /// The features that the peer offers (BOLT 9): the bit field as hex, most significant byte first.
    pub features: String,
}

/// Lists the peers that are connected or have a channel with this node, in the order of their keys.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerList {
    /// The `next` of the page before; the first page without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many peers to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for PeerList {
    const NAME: &'static str = "peer.list";
    const SCOPES: &'static [Scope] = &[Scope::Read, Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "limit": 10 }"#;
    type Result = PeerPage;
}

/// A page of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerPage {
    /// The peers.
    pub items: Vec<PeerInfo>,
    /// What to give as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerInfo {
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Where it was reached last, as `host:port`; absent where it has only ever come to us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The features that the peer offers (BOLT 9), as hex; absent while it is not connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// How many channels with it are not in history.
    pub channels: u32,
}

/// Ends the connection to a peer, which is not dialled again before `peer.connect` or a restart. The peer may come back by itself. It
/// takes no key: a repeat ends a newer connection too.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerDisconnect {
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
}

impl Method for PeerDisconnect {
    const NAME: &'static str = "peer.disconnect";
    const SCOPES: &'static [Scope] = &[Scope::Channel];
    const ERRORS: &'static [ErrorKind] = &[];
    const EXAMPLE: &'static str = r#"{ "node_id": "$node_id" }"#;
    type Result = PeerDisconnected;
}

/// The peer is not connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerDisconnected {
    /// The peer's public key: 33 bytes, hex.
    pub node_id: String,
    /// Whether it was connected.
    pub was_connected: bool,
}
