//! `[[backup]]`: where the rows of channels are kept beyond the database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_rpc_schema::nearest;

use super::ConfigFault;
use super::keys::{Key, key};
use super::kind::Kind;
use super::origin::Origin;
use super::values::{expand, line_name};

/// The most sinks that a node has.
const MAX_SINKS: usize = 8;

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

/// A key of each `[[backup]]`.
pub(super) struct BackupKey {
    /// Its row. Its name begins with the table's; it never stands on the command line.
    pub(super) key: Key,
    /// Whether it must be given.
    pub(super) is_required: bool,
    /// The kinds that it has a meaning for; nothing for all.
    pub(super) kinds: Option<&'static [&'static str]>,
}

impl BackupKey {
    /// The name as it stands in the table.
    pub(super) fn name_in_table(&self) -> &'static str {
        self.key.name.strip_prefix("backup.").unwrap_or(self.key.name)
    }

    /// Whether it has a meaning for a kind.
    pub(super) fn is_of(&self, kind: &str) -> bool {
        self.kinds.is_none_or(|kinds| kinds.contains(&kind))
    }
}

const fn row(key: Key, is_required: bool, kinds: Option<&'static [&'static str]>) -> BackupKey {
    BackupKey { key: Key { on_command_line: false, ..key }, is_required, kinds }
}

/// Every key of a `[[backup]]`.
pub(super) const BACKUP_KEYS: &[BackupKey] = &[
    row(
        key(
            "backup.name",
            Kind::Line(32),
            "",
            "Its name from one start to the next: letters from a to z, digits, - and _.",
        ),
        true,
        None,
    ),
    row(
        key(
            "backup.kind",
            Kind::Choice(&["mirror", "directory", "command"]),
            "",
            "What it is: a second database, a file for each channel and each update, or a program of your own.",
        ),
        true,
        None,
    ),
    row(
        key(
            "backup.requirement",
            Kind::Choice(&["required", "follow"]),
            "",
            "Whether promises to peers wait until it has what they stand on, or it is only shown where it lags.",
        ),
        true,
        None,
    ),
    row(
        key(
            "backup.verify_every_hours",
            Kind::Number(0, 8760),
            "24",
            "Hours between two tries of a restore from it while the node runs; 0 for never.",
        ),
        false,
        None,
    ),
    row(
        key("backup.path", Kind::Text, "", "Its file, or its directory; begins with / or ~/."),
        true,
        Some(&["mirror", "directory"]),
    ),
    row(
        key(
            "backup.consolidate_every",
            Kind::Number(1, 10_000),
            "100",
            "Updates of a channel after which a directory gets one file in their place.",
        ),
        false,
        Some(&["directory"]),
    ),
    row(key("backup.command", Kind::Program, "", "The program and its arguments."), true, Some(&["command"])),
];

fn row_of(name: &str) -> Option<&'static BackupKey> {
    BACKUP_KEYS.iter().find(|row| row.name_in_table() == name)
}

/// A range and a default, for people.
fn range(name: &str) -> (String, &'static str) {
    let row = row_of(name);
    let words = row.map(|row| row.key.kind.words()).unwrap_or_default();
    let range = words.strip_prefix("a whole number from ").unwrap_or_default().to_owned();
    (range, row.map_or("", |row| row.key.default))
}

/// What the example file says of it.
pub(super) fn example() -> String {
    let ((hours, every), (updates, each)) = (range("verify_every_hours"), range("consolidate_every"));
    format!(
        "
# Where the rows of channels are kept beyond the database, one [[backup]] for each place; README.md says what for. A peer
# is told nothing, and no payment goes on, before each one with requirement = \"required\" has what it stands on; one with
# \"follow\" is shown where it lags. `backup.status` says how each stands. These stand in the file alone and have no flags.
# A restore from each is tried once it has everything, and then every so many hours: verify_every_hours, {hours}, else
# {every}; 0 for never.
#
# A second database, best on another disk, with a journal of 16 MiB beside it. Its directory must be there.
#   [[backup]]
#   name = \"second-disk\"
#   kind = \"mirror\"
#   requirement = \"required\"
#   path = \"/mnt/second/outrigger-mirror.redb\"
#
# A file for each channel and each update, which become one again every so many updates ({updates}, else {each}).
#   [[backup]]
#   name = \"files\"
#   kind = \"directory\"
#   requirement = \"follow\"
#   path = \"/mnt/nas/outrigger\"
#   consolidate_every = {each}
#
# A program of your own, which is given everything encrypted.
#   [[backup]]
#   name = \"elsewhere\"
#   kind = \"command\"
#   requirement = \"follow\"
#   command = [\"/usr/local/bin/keep-elsewhere\", \"--bucket\", \"mine\"]
"
    )
}

/// A sink, and what the file says of it.
pub(super) struct BackupRead {
    /// What was made of it.
    pub(super) config: BackupConfig,
    /// The keys that were given, by their names in the table: as text, and the line where it is known.
    pub(super) given: BTreeMap<&'static str, (String, Option<usize>)>,
}

/// A file, and the lines of its keys.
type Source<'a> = (&'a Path, &'a BTreeMap<String, usize>);

/// Reads every `[[backup]]` of a file.
pub(super) fn read(source: Source<'_>, value: &toml::Value, home: &Path) -> Result<Vec<BackupRead>, ConfigFault> {
    let unfit = |key: &str, line: Option<usize>, problem: String| {
        let origin = Origin::File(source.0.to_owned(), line).to_string();
        ConfigFault::Unfit { key: key.to_owned(), origin, problem }
    };
    let first = source.1.get("backup").copied();
    let tables =
        value.as_array().ok_or_else(|| unfit("backup", first, "is written as [[backup]], once for each".to_owned()))?;
    let mut backups: Vec<BackupRead> = Vec::new();
    for (index, value) in tables.iter().enumerate() {
        let table = value.as_table().ok_or_else(|| unfit("backup", first, "must be a table".to_owned()))?;
        let entry = Entry { table, index, source, home, unfit: &unfit };
        let read = entry.read()?;
        if backups.iter().any(|other| other.config.name == read.config.name) {
            return Err(entry.unfit("name", &format!("two are called {}", read.config.name)));
        }
        if backups.iter().any(|other| other.config.kind == read.config.kind) {
            let problem = format!("{} is the same place as another", read.config.name);
            return Err(unfit("backup", entry.line("name"), problem));
        }
        backups.push(read);
    }
    if backups.len() > MAX_SINKS {
        let problem = format!("there are {}; a node has at most {MAX_SINKS}", backups.len());
        return Err(unfit("backup", first, problem));
    }
    Ok(backups)
}

/// One `[[backup]]`.
struct Entry<'a> {
    table: &'a toml::Table,
    index: usize,
    source: Source<'a>,
    home: &'a Path,
    unfit: &'a dyn Fn(&str, Option<usize>, String) -> ConfigFault,
}

impl Entry<'_> {
    fn read(&self) -> Result<BackupRead, ConfigFault> {
        let given = self.given()?;
        let text = |name: &str| given.get(name).map(|(text, _)| text.as_str());
        let kind = text("kind").ok_or_else(|| self.missing("kind"))?;
        if let Some(row) =
            BACKUP_KEYS.iter().find(|row| row.is_required && row.is_of(kind) && text(row.name_in_table()).is_none())
        {
            return Err(self.missing(row.name_in_table()));
        }
        let is_stray = |name: &&&str| row_of(name).is_some_and(|row| !row.is_of(kind));
        if let Some(stray) = given.keys().find(is_stray) {
            return Err(self.unfit(stray, &format!("has no meaning for a {kind}")));
        }
        let name = text("name").unwrap_or_default();
        let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter);
        if name.is_empty() || !name.chars().all(fits) {
            return Err(self.unfit("name", "must have 1 to 32 letters from a to z, digits, - and _"));
        }
        let number = |name: &str| -> u32 {
            let text = text(name).or_else(|| row_of(name).map(|row| row.key.default));
            // Its row's range lies within the type.
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let kind = match kind {
            "mirror" => BackupKind::Mirror { path: self.path(text("path"))? },
            "directory" => {
                BackupKind::Directory { path: self.path(text("path"))?, consolidate_every: number("consolidate_every") }
            }
            _ => BackupKind::Command { command: self.command() },
        };
        let verify_every = Some(u64::from(number("verify_every_hours"))).filter(|hours| *hours > 0);
        let verify_every = verify_every.map(|hours| Duration::from_secs(hours.saturating_mul(3600)));
        let is_required = text("requirement") == Some("required");
        let config = BackupConfig { name: name.to_owned(), is_required, verify_every, kind };
        Ok(BackupRead { config, given })
    }

    /// What was given, each checked against its row.
    fn given(&self) -> Result<BTreeMap<&'static str, (String, Option<usize>)>, ConfigFault> {
        let mut given = BTreeMap::new();
        for (name, value) in self.table {
            let Some(row) = row_of(name) else {
                let known = BACKUP_KEYS.iter().map(BackupKey::name_in_table);
                let nearest = nearest(name, known).map(|key| format!("backup.{key}"));
                let (path, key) = (self.source.0.to_owned(), format!("backup.{name}"));
                return Err(ConfigFault::UnknownKey { path, key, nearest });
            };
            let kind = row.key.kind;
            let text = kind.text_of(value).filter(|text| kind.admits(text));
            let text = text.ok_or_else(|| self.unfit(name, &format!("must be {}", kind.words())))?;
            given.insert(row.name_in_table(), (text, self.line(name)));
        }
        Ok(given)
    }

    fn line(&self, name: &str) -> Option<usize> {
        self.source.1.get(&line_name("backup", self.index, name)).copied()
    }

    fn unfit(&self, name: &str, problem: &str) -> ConfigFault {
        (self.unfit)(&format!("backup.{name}"), self.line(name), problem.to_owned())
    }

    fn missing(&self, name: &str) -> ConfigFault {
        self.unfit(name, "is missing")
    }

    fn path(&self, text: Option<&str>) -> Result<PathBuf, ConfigFault> {
        let path = expand(text.unwrap_or_default(), self.home);
        // What a relative one is relative to would depend on who starts the daemon.
        if path.is_absolute() { Ok(path) } else { Err(self.unfit("path", "must begin with / or ~/")) }
    }

    /// The program and its arguments, which were found to be texts.
    fn command(&self) -> Vec<String> {
        let words = self.table.get("command").and_then(toml::Value::as_array).into_iter().flatten();
        words.filter_map(toml::Value::as_str).map(str::to_owned).collect()
    }
}
