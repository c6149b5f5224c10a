//! `plugin.*` and `rpc.*`: what a host can learn of this plugin, and what it tells it at the beginning.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ErrorKind, EventKind, Method, OptionTakes, Scope};

/// The version of this interface's protocol. It rises when something that a caller relies on changes its meaning.
pub const PROTOCOL_VERSION: u32 = 1;

/// Gives the OpenRPC document of this interface.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RpcDiscover {}

impl Method for RpcDiscover {
    const NAME: &'static str = "rpc.discover";
    const SCOPES: &'static [Scope] = &Scope::ALL;
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = RpcDiscovered;
}

/// The OpenRPC document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RpcDiscovered {
    /// The version of OpenRPC.
    pub openrpc: String,
    /// Name and version of the interface.
    #[schemars(schema_with = "any_object")]
    pub info: Map<String, Value>,
    /// Every method.
    #[schemars(schema_with = "any_objects")]
    pub methods: Vec<Map<String, Value>>,
    /// Every error.
    #[schemars(schema_with = "any_object")]
    pub components: Map<String, Value>,
}

/// What OpenRPC says of it is not said again.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

fn any_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "object" } })
}

/// Tells a host all that it needs to drive this plugin.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginManifest {}

impl Method for PluginManifest {
    const NAME: &'static str = "plugin.manifest";
    const SCOPES: &'static [Scope] = &Scope::ALL;
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[];
    type Result = PluginManifestReport;
}

/// What the plugin is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginManifestReport {
    /// The plugin's name.
    pub name: String,
    /// The version of the daemon.
    pub version: String,
    /// The version of this interface's protocol.
    pub protocol: u32,
    /// The methods by their groups.
    pub groups: Vec<PluginGroup>,
    /// The kinds of events that can be subscribed to.
    #[serde(deserialize_with = "crate::event::all_of_any_version")]
    pub event_kinds: Vec<EventKind>,
    /// Calls that the plugin makes to its host; none in this version.
    pub hooks: Vec<String>,
    /// What the operator can set, in `outrigger.toml` or as flags.
    pub options: Vec<PluginOption>,
    /// The features that the node offers in `init` (BOLT 9): the bit field as hex; absent until the database is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
}

/// A group of methods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginGroup {
    /// What stands before the point in their names.
    pub name: String,
    /// Their names.
    pub methods: Vec<String>,
}

/// What the operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginOption {
    /// The key, with its section.
    pub name: String,
    /// What it takes: any other value is refused at the start, and by `--check-config`.
    pub takes: OptionTakes,
    /// Its default, as text; empty where it depends on the network or the machine, or where there is none.
    pub default: String,
    /// What it means.
    pub description: String,
    /// The flag by which it is given on the command line; absent for what stands in the file alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// Whether it is a key of a table that may stand several times: `backup.path` is `path` of each `[[backup]]`, and
    /// `node.config_get` tells it as `backup.NAME.path`.
    pub repeats: bool,
    /// Whether it must be given, where `repeats` in each such table.
    pub required: bool,
    /// Values of `kind` in the same table beside which it has a meaning; beside others it is refused. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_of_kinds: Option<Vec<String>>,
}

/// Begins to work with a host: tells it which of its options are in force, and subscribes this connection to events. Options are read
/// at the start of the daemon, from flags and file, so one that differs from what is in force is refused and changes nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginInit {
    /// Options that the host expects, each as `name=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// Kinds of events to tell of on this connection, from now on: as `event.subscribe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<EventKind>>,
}

impl Method for PluginInit {
    const NAME: &'static str = "plugin.init";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::EventGap,
        ErrorKind::EventNoSession,
        ErrorKind::EventTooManySubscriptions,
        ErrorKind::StorageFailed,
    ];
    const EXAMPLE: &'static str = r#"{ "options": ["network=regtest"] }"#;
    type Result = PluginInitialised;
}

/// What was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginInitialised {
    /// The version of this interface's protocol.
    pub protocol: u32,
    /// Options that are in force as the host expects, each as it was given.
    pub accepted: Vec<String>,
    /// Those that are not: unknown, or set otherwise. Give them as flags when the daemon is started.
    pub refused: Vec<String>,
    /// Names the subscription; absent where none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
}
