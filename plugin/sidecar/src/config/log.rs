//! What is logged, how and where.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use outrigger_rpc_schema::{LogLevel, nearest};

use super::ConfigFault;
use super::values::Values;

/// The parts of the daemon that have a level of their own: its modules.
pub const LOG_TARGETS: [&str; 14] = [
    "chain",
    "clock",
    "key",
    "lock",
    "manager",
    "net",
    "node",
    "payment",
    "rpc",
    "store",
    "supervisor",
    "sweep",
    "token",
    "wallet",
];

/// What is logged, how and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The level of parts without one of their own.
    pub level: LogLevel,
    /// Parts with a level of their own.
    pub targets: BTreeMap<&'static str, LogLevel>,
    /// A JSON object a line, in place of words.
    pub json: bool,
    /// The file; the standard error without one.
    pub file: Option<LogFile>,
}

/// Where the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The newest file.
    pub path: PathBuf,
    /// Its size, in bytes, at which another is begun.
    pub max_bytes: u64,
    /// How many are kept beside it.
    pub kept: usize,
}

pub(super) fn log(values: &Values, home: &Path) -> Result<LogConfig, ConfigFault> {
    let unfit = |problem: String| values.unfit("log_targets", &problem);
    let mut targets = BTreeMap::new();
    for pair in values.text("log_targets").split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (part, word) = pair.split_once('=').ok_or_else(|| unfit(format!("{pair}: must be PART=LEVEL")))?;
        let part = LOG_TARGETS.into_iter().find(|known| *known == part.trim()).ok_or_else(|| {
            let meant = nearest(part, LOG_TARGETS).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
            unfit(format!("there is no part {part}{meant}"))
        })?;
        let level = level(word.trim()).ok_or_else(|| {
            unfit(format!("{part}: the level must be one of {}", LogLevel::ALL.map(LogLevel::name).join(", ")))
        })?;
        targets.insert(part, level);
    }
    let file = match values.path("log_file", home) {
        None => None,
        Some(path) => Some(LogFile {
            path: checked(values, path)?,
            max_bytes: values.number("log_max_bytes"),
            kept: values.number("log_kept_files"),
        }),
    };
    let level = level(values.text("log_level")).unwrap_or_default();
    Ok(LogConfig { level, targets, json: values.text("log_format") == "json", file })
}

fn level(word: &str) -> Option<LogLevel> {
    LogLevel::ALL.into_iter().find(|level| level.name() == word)
}

/// Bad input 88: in a directory that everybody may write to, anybody could put another file in the log's place.
fn checked(values: &Values, path: PathBuf) -> Result<PathBuf, ConfigFault> {
    const OTHERS_WRITE: u32 = 0o002;
    if !path.is_absolute() {
        return Err(values.unfit("log_file", "must begin with / or ~/"));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    match parent.metadata() {
        Err(error) => {
            let problem = format!("its directory {} cannot be used: {error}; make it first", parent.display());
            Err(values.unfit("log_file", &problem))
        }
        Ok(found) if found.mode() & OTHERS_WRITE != 0 => {
            let problem = format!("everybody can write to its directory: chmod o-w {}", parent.display());
            Err(values.unfit("log_file", &problem))
        }
        Ok(_) => Ok(path),
    }
}
