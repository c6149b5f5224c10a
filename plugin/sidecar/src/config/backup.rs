//! `[[backup]]`: where the rows of channels are kept beyond the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ConfigFault;
use super::values::expand;
use outrigger_rpc_schema::nearest;

/// The most sinks that a node has.
const MAX_SINKS: usize = 8;

/// The most bytes of a name.
const MAX_NAME: usize = 32;

/// Updates of a channel after which a directory gets one file in their place.
const CONSOLIDATE_EVERY: u32 = 100;

/// Hours between two tries of a restore from a sink.
const VERIFY_EVERY_HOURS: u32 = 24;

/// A sink as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// Its identity from one start to the next.
    pub name: String,
    /// Whether promises to peers wait for it.
    pub is_required: bool,
    /// How often a restore from it is tried while the node runs; nothing for never.
    pub verify_every: Option<Duration>,
    /// What it is.
    pub kind: BackupKind,
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// A second database.
    Mirror {
        /// Its file.
        path: PathBuf,
    },
    /// A file for each channel and each update.
    Directory {
        /// Where they are.
        path: PathBuf,
        /// Updates of a channel after which they become one file.
        consolidate_every: u32,
    },
    /// A program of the operator's own.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

impl BackupKind {
    /// What the operator calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mirror { .. } => "mirror",
            Self::Directory { .. } => "directory",
            Self::Command { .. } => "command",
        }
    }
}

/// What the example file says of it.
pub(super) const EXAMPLE: &str = "
# Where the rows of channels are kept beyond the database, one [[backup]] for each place; README.md says what for. A peer
# is told nothing, and no payment goes on, before each one with requirement = \"required\" has what it stands on; one with
# \"follow\" is shown where it lags. `backup.status` says how each stands. These stand in the file alone and have no flags.
# A restore from each is tried once it has everything, and then every so many hours: verify_every_hours, 1 to 8760, else
# 24; 0 for never.
#
# A second database, best on another disk, with a journal of 16 MiB beside it. Its directory must be there.
#   [[backup]]
#   name = \"second-disk\"
#   kind = \"mirror\"
#   requirement = \"required\"
#   path = \"/mnt/second/outrigger-mirror.redb\"
#
# A file for each channel and each update, which become one again every so many updates (1 to 10000, else 100).
#   [[backup]]
#   name = \"files\"
#   kind = \"directory\"
#   requirement = \"follow\"
#   path = \"/mnt/nas/outrigger\"
#   consolidate_every = 100
#
# A program of your own, which is given everything encrypted.
#   [[backup]]
#   name = \"elsewhere\"
#   kind = \"command\"
#   requirement = \"follow\"
#   command = [\"/usr/local/bin/keep-elsewhere\", \"--bucket\", \"mine\"]
";

/// All keys, for what is misspelt.
const KEYS: &[&str] = &["name", "kind", "requirement", "verify_every_hours", "path", "consolidate_every", "command"];

/// Reads every `[[backup]]` of a file.
pub(super) fn read(file: &Path, value: &toml::Value, home: &Path) -> Result<Vec<BackupConfig>, ConfigFault> {
    let origin = file.display().to_string();
    let unfit =
        |key: &str, problem: String| ConfigFault::Unfit { key: key.to_owned(), origin: origin.clone(), problem };
    let tables =
        value.as_array().ok_or_else(|| unfit("backup", "is written as [[backup]], once for each".to_owned()))?;
    let mut backups: Vec<BackupConfig> = Vec::new();
    for value in tables {
        let table = value.as_table().ok_or_else(|| unfit("backup", "must be a table".to_owned()))?;
        let entry = Entry { table, file, home, unfit: &unfit };
        let backup = entry.read()?;
        if backups.iter().any(|other| other.name == backup.name) {
            return Err(unfit("backup.name", format!("two are called {}", backup.name)));
        }
        if backups.iter().any(|other| other.kind == backup.kind) {
            return Err(unfit("backup", format!("{} is the same place as another", backup.name)));
        }
        backups.push(backup);
    }
    if backups.len() > MAX_SINKS {
        return Err(unfit("backup", format!("there are {}; a node has at most {MAX_SINKS}", backups.len())));
    }
    Ok(backups)
}

/// One `[[backup]]`.
struct Entry<'a> {
    table: &'a toml::Table,
    file: &'a Path,
    home: &'a Path,
    unfit: &'a dyn Fn(&str, String) -> ConfigFault,
}

impl Entry<'_> {
    fn read(&self) -> Result<BackupConfig, ConfigFault> {
        if let Some(key) = self.table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let nearest = nearest(key, KEYS.iter().copied()).map(|key| format!("backup.{key}"));
            let (path, key) = (self.file.to_owned(), format!("backup.{key}"));
            return Err(ConfigFault::UnknownKey { path, key, nearest });
        }
        let name = self.text("name")?;
        let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            return Err(self.unfit("name", "must have 1 to 32 letters from a to z, digits, - and _"));
        }
        let is_required = match self.text("requirement")? {
            "required" => true,
            "follow" => false,
            _ => return Err(self.unfit("requirement", "must be required or follow")),
        };
        let (kind, keys): (_, &[&str]) = match self.text("kind")? {
            "mirror" => (BackupKind::Mirror { path: self.path()? }, &["path"]),
            "directory" => {
                let kind = BackupKind::Directory { path: self.path()?, consolidate_every: self.consolidate_every()? };
                (kind, &["path", "consolidate_every"])
            }
            "command" => (BackupKind::Command { command: self.command()? }, &["command"]),
            _ => return Err(self.unfit("kind", "must be mirror, directory or command")),
        };
        let is_stray = |key: &&String| {
            !["name", "kind", "requirement", "verify_every_hours"].iter().chain(keys).any(|known| known == key)
        };
        if let Some(stray) = self.table.keys().find(is_stray) {
            return Err(self.unfit(stray, &format!("has no meaning for a {}", kind.name())));
        }
        Ok(BackupConfig { name: name.to_owned(), is_required, verify_every: self.verify_every()?, kind })
    }

    fn unfit(&self, key: &str, problem: &str) -> ConfigFault {
        (self.unfit)(&format!("backup.{key}"), problem.to_owned())
    }

    fn text(&self, key: &str) -> Result<&str, ConfigFault> {
        match self.table.get(key) {
            Some(toml::Value::String(text)) => Ok(text),
            Some(_) => Err(self.unfit(key, "must be a text")),
            None => Err(self.unfit(key, "is missing")),
        }
    }

    fn path(&self) -> Result<PathBuf, ConfigFault> {
        let path = expand(self.text("path")?, self.home);
        // What a relative one is relative to would depend on who starts the daemon.
        if path.is_absolute() { Ok(path) } else { Err(self.unfit("path", "must begin with / or ~/")) }
    }

    fn consolidate_every(&self) -> Result<u32, ConfigFault> {
        self.number("consolidate_every", (1, 10_000), CONSOLIDATE_EVERY)
    }

    /// How long is between two tries of a restore; nothing for never.
    fn verify_every(&self) -> Result<Option<Duration>, ConfigFault> {
        let hours = self.number("verify_every_hours", (0, 8760), VERIFY_EVERY_HOURS)?;
        Ok((hours > 0).then(|| Duration::from_secs(u64::from(hours).saturating_mul(3600))))
    }

    fn number(&self, key: &str, (least, most): (u32, u32), default: u32) -> Result<u32, ConfigFault> {
        let unfit = || self.unfit(key, &format!("must be a whole number from {least} to {most}"));
        match self.table.get(key) {
            None => Ok(default),
            Some(toml::Value::Integer(number)) => {
                u32::try_from(*number).ok().filter(|number| (least..=most).contains(number)).ok_or_else(unfit)
            }
            Some(_) => Err(unfit()),
        }
    }

    fn command(&self) -> Result<Vec<String>, ConfigFault> {
        let problem = "must be a list of texts: the program and its arguments";
        let words = match self.table.get("command") {
            None => return Err(self.unfit("command", "is missing")),
            Some(toml::Value::Array(words)) => words,
            Some(_) => return Err(self.unfit("command", problem)),
        };
        let command: Option<Vec<_>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
        let is_whole = |command: &Vec<String>| command.first().is_some_and(|program| !program.is_empty());
        command.filter(is_whole).ok_or_else(|| self.unfit("command", problem))
    }
}
