//! `node.config_get`: what the daemon was told, and by whom.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Tells every key of the configuration with the value that is in force, its default, and where the value comes from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigGet {
    /// Only these keys, by their names; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
}

impl Method for ConfigGet {
    const NAME: &'static str = "node.config_get";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::Starting];
    const EXAMPLE: &'static str = r#"{ "keys": ["network", "bitcoind.cookie"] }"#;
    type Result = ConfigReport;
}

/// The configuration that is in force. It was read when the daemon was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigReport {
    /// The configuration file that was read; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Keys in the order of the example file, and those of each `[[backup]]` after them, as `backup.NAME.path`.
    pub items: Vec<ConfigItem>,
}

/// A key of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigItem {
    /// Its name: `name`, or `section.name`; of a backup `backup.NAME.key`.
    pub key: String,
    /// The value that is in force, as text; of a secret only whether there is one: `(hidden)`, of a program its name without its
    /// arguments.
    pub value: String,
    /// What it would be if nobody had said anything.
    pub default: String,
    /// What it takes.
    pub takes: OptionTakes,
    /// Where the value comes from.
    pub origin: ConfigOrigin,
    /// The place where the value stands: `file:line`, the name of a variable, a flag, a directory; absent for a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// What a key of the configuration takes: a value of this kind, and of these choices or in this range where there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OptionTakes {
    /// The kind of value.
    pub kind: OptionKind,
    /// The texts that are taken; absent where it is no choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// The least whole number that is taken, as text as values are; present for whole numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
    /// The most that is taken, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<String>,
    /// The most bytes that a text may have, of which none may be a control character; absent where it may be any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_bytes: Option<u16>,
}

/// The kind of value that a key of the configuration takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptionKind {
    /// A text; the description says what it is to hold.
    #[default]
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list of texts.
    List,
}

/// Where a value of the configuration comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigOrigin {
    /// Nobody said anything.
    #[default]
    Default,
    /// The configuration file.
    File,
    /// A variable of the environment.
    Environment,
    /// The command line.
    Flag,
    /// bitcoind's own configuration, `bitcoin.conf`.
    BitcoinConf,
    /// Where bitcoind puts it by itself, in its data directory.
    BitcoindDirectory,
}

impl ConfigOrigin {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "flag",
            Self::BitcoinConf => "bitcoin_conf",
            Self::BitcoindDirectory => "bitcoind_directory",
        }
    }
}

/// Tells how much each part of the daemon logs, and changes it until the daemon ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevels {
    /// The level from now on, of the part in `target`, or of all parts that have none of their own; without it nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// The part of the daemon: one of those that the result lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Method for LogLevels {
    const NAME: &'static str = "node.log_level";
    const SCOPES: &'static [Scope] = &[Scope::Admin];
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::Starting];
    const EXAMPLE: &'static str = r#"{ "target": "chain", "level": "debug" }"#;
    type Result = LogLevelsReport;
}

/// How much each part of the daemon logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLevelsReport {
    /// The level of all parts that have none of their own.
    pub level: LogLevel,
    /// Every part, with the level that it has.
    pub targets: Vec<LogTarget>,
}

/// A part of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogTarget {
    /// Its name.
    pub target: String,
    /// What it logs.
    pub level: LogLevel,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What went wrong and concerns the operator.
    Error,
    /// What may go wrong, too.
    Warn,
    /// What happens, too.
    #[default]
    Info,
    /// How it happens, too.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Every level, the least first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name on the wire and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
