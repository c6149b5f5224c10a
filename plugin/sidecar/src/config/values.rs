//! The values that the operator gave, by key, each checked against its row when it comes in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Command};
use outrigger_rpc_schema::{nearest, rendezvous};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::ConfigFault;
use super::backup::{self, BackupConfig, BackupRead};
use super::keys::{KEYS, Key, VARIABLES};
use super::origin::Origin;
use super::task::AFTER_HELP;

/// The configuration file in the data directory, read where no other is named.
const FILE_NAME: &str = "outrigger.toml";

/// The flag that names the configuration file.
const CONFIG_FLAG: &str = "config";

/// The flag by which a parent that speaks over the pipe starts the daemon.
const STDIO_FLAG: &str = "stdio";

/// The variable that names the configuration file, behind [`VARIABLES`].
const CONFIG_VARIABLE: &str = "CONFIG";

/// The variable by which tests find the program, behind [`VARIABLES`]: it says nothing to the program itself.
const EXE_VARIABLE: &str = "EXE";

/// Values by key, of which one that is not there has its default; and the sinks, which the file alone has.
#[derive(Default)]
pub(super) struct Values {
    given: BTreeMap<&'static str, Given>,
    backups: Vec<BackupRead>,
    stdio: bool,
    /// The configuration file that was read.
    file: Option<PathBuf>,
}

/// A value as text, and where it comes from.
struct Given {
    text: Zeroizing<String>,
    origin: Origin,
}

/// Variables of the environment, in any order.
pub(super) type Variables = Vec<(OsString, OsString)>;

impl Values {
    /// Reads the command line, the environment and the file.
    pub(super) fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variables: &Variables,
        home: &Path,
    ) -> Result<Self, ConfigFault> {
        Self::of(&command().try_get_matches_from(arguments)?, variables, home)
    }

    /// Reads the file that these flags name, or that is found, and lets the environment win over it, and the flags over all.
    pub(super) fn of(matches: &ArgMatches, variables: &Variables, home: &Path) -> Result<Self, ConfigFault> {
        let mut above = Self::default();
        let mut named = above.give_environment(variables)?;
        for key in KEYS.iter().filter(|key| key.on_command_line) {
            if let Some(text) = matches.get_one::<String>(key.name) {
                above.give(key, text, Origin::Flag(format!("--{}", key.flag())))?;
            }
        }
        if let Some(path) = matches.get_one::<String>(CONFIG_FLAG) {
            named = Some(path.clone());
        }
        let data_dir = above.path("data_dir", home).unwrap_or_else(|| rendezvous::default_data_directory(home));
        let mut values = match named.map(|path| expand(&path, home)) {
            Some(path) => Self::from_file(&path, home)?,
            None => match data_dir.join(FILE_NAME) {
                path if path.exists() => Self::from_file(&path, home)?,
                _ => Self::default(),
            },
        };
        values.given.append(&mut above.given);
        // The other commands have no such flag.
        values.stdio = matches.try_get_one::<bool>(STDIO_FLAG).ok().flatten().copied().unwrap_or(false);
        Ok(values)
    }

    /// Takes what the environment says; gives the configuration file that it names.
    fn give_environment(&mut self, variables: &Variables) -> Result<Option<String>, ConfigFault> {
        let mut named = None;
        for (name, value) in variables {
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(VARIABLES)) else { continue };
            let unfit = |key: &str, problem: &str| ConfigFault::Unfit {
                key: key.to_owned(),
                origin: format!("{VARIABLES}{rest}"),
                problem: problem.to_owned(),
            };
            let key = KEYS.iter().find(|key| key.variable().strip_prefix(VARIABLES) == Some(rest));
            let known = key.map_or(rest, |key| key.name);
            let text = value.to_str().ok_or_else(|| unfit(known, "must be UTF-8"))?;
            match key {
                None if rest == EXE_VARIABLE => {}
                None if rest == CONFIG_VARIABLE => named = Some(text.to_owned()),
                None if is_service_link(rest, text) => {}
                None => {
                    let open: Vec<_> = KEYS.iter().filter(|key| !key.is_secret()).map(Key::variable).collect();
                    let variable = format!("{VARIABLES}{rest}");
                    let nearest = nearest(&variable, open.iter().map(String::as_str)).map(str::to_owned);
                    return Err(ConfigFault::UnknownVariable { variable, nearest });
                }
                // Whoever looks at the process, or at its container, reads its environment (RPC-5).
                Some(key) if key.is_secret() => {
                    return Err(unfit(key.name, "a secret stands in the configuration file, not in the environment"));
                }
                Some(key) => self.give(key, text, Origin::Environment(format!("{VARIABLES}{rest}")))?,
            }
        }
        Ok(named)
    }

    /// Reads a file.
    fn from_file(path: &Path, home: &Path) -> Result<Self, ConfigFault> {
        let unreadable = |reason: String| ConfigFault::Unreadable { path: path.to_owned(), reason };
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?);
        let table: toml::Table = text.parse().map_err(|error| unreadable(fault_without_source(&error, &text)))?;
        let lines = lines(&text);
        let mut values = Self { file: Some(path.to_owned()), ..Self::default() };
        for (name, value) in &table {
            match value {
                value if name == "backup" => values.backups = backup::read((path, &lines), value, home)?,
                toml::Value::Table(section) => {
                    for (inner, value) in section {
                        values.give_from_file((path, &lines), &format!("{name}.{inner}"), value)?;
                    }
                }
                value => values.give_from_file((path, &lines), name, value)?,
            }
        }
        if !values.text("bitcoind.password").is_empty() {
            let mode = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.permissions().mode();
            if mode & 0o077 != 0 {
                let problem = "others can read the file: chmod 600 it, or use bitcoind's cookie";
                return Err(values.unfit("bitcoind.password", problem));
            }
        }
        Ok(values)
    }

    fn give_from_file(
        &mut self,
        (path, lines): (&Path, &BTreeMap<String, usize>),
        name: &str,
        value: &toml::Value,
    ) -> Result<(), ConfigFault> {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let nearest = nearest(name, KEYS.iter().map(|key| key.name)).map(str::to_owned);
            return Err(ConfigFault::UnknownKey { path: path.to_owned(), key: name.to_owned(), nearest });
        };
        let origin = Origin::File(path.to_owned(), lines.get(name).copied());
        let Some(text) = key.kind.text_of(value) else {
            let problem = format!("must be {}", key.kind.words());
            return Err(ConfigFault::Unfit { key: key.name.to_owned(), origin: origin.to_string(), problem });
        };
        self.give(key, &text, origin)
    }

    fn give(&mut self, key: &Key, text: &str, origin: Origin) -> Result<(), ConfigFault> {
        if !key.kind.admits(text) {
            let problem = match unsafe_network(key, text) {
                Some(problem) => problem.to_owned(),
                None => format!("must be {}", key.kind.words()),
            };
            return Err(ConfigFault::Unfit { key: key.name.to_owned(), origin: origin.to_string(), problem });
        }
        self.given.insert(key.name, Given { text: Zeroizing::new(text.to_owned()), origin });
        Ok(())
    }

    /// The sinks.
    pub(super) fn backups(&self) -> Vec<BackupConfig> {
        self.backups.iter().map(|read| read.config.clone()).collect()
    }

    /// The sinks with what the file says of each.
    pub(super) fn backups_read(&self) -> &[BackupRead] {
        &self.backups
    }

    /// Whether a parent speaks over standard input and output.
    pub(super) fn stdio(&self) -> bool {
        self.stdio
    }

    /// The configuration file that was read.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where the value comes from.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.given.get(name).map_or(Origin::Default, |given| given.origin.clone())
    }

    /// The value as text, the default where none was given.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(given) => &given.text,
            None => default(name),
        }
    }

    /// The value as a number. Its row's range lies within `T`.
    #[expect(clippy::expect_used, reason = "every value was checked against its row, and a test reads every row")]
    pub(super) fn number<T: TryFrom<u64>>(&self, name: &str) -> T {
        let number: u64 = self.text(name).parse().expect("a number was checked when it came in");
        T::try_from(number).ok().expect("the row's range lies within the type")
    }

    /// The value as a switch.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// The value as a path, `~/` standing for the home directory; nothing where it is empty.
    pub(super) fn path(&self, name: &str, home: &Path) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(|text| expand(text, home))
    }

    /// A fault of this key's value.
    pub(super) fn unfit(&self, name: &str, problem: &str) -> ConfigFault {
        let origin = self.origin(name).to_string();
        ConfigFault::Unfit { key: name.to_owned(), origin, problem: problem.to_owned() }
    }
}

/// Whether a variable is one of those by which Kubernetes tells each container of the services around it, here of one whose name
/// begins with `outriggerd`: `rest` is what follows [`VARIABLES`]. They say nothing to the program. `PORT` alone is theirs only with
/// their value: an operator may have meant a key by it.
fn is_service_link(rest: &str, text: &str) -> bool {
    // A longer name of the service stands before.
    let ends = |with: &str| rest.strip_suffix(with).is_some_and(|name| name.is_empty() || name.ends_with('_'));
    let is_port = |digits: &str| digits.parse::<u16>().is_ok();
    let is_of_a_service = ends("SERVICE_HOST")
        || ends("SERVICE_PORT")
        || rest.starts_with("SERVICE_PORT_")
        || rest.contains("_SERVICE_PORT_");
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme));
    // PORT_9735_TCP and PORT_9735_TCP_ADDR.
    let mut words = rest.rsplit('_').peekable();
    words.next_if(|word| ["PROTO", "PORT", "ADDR"].contains(word));
    let is_of_a_port = words.next().is_some_and(|word| ["TCP", "UDP", "SCTP"].contains(&word))
        && words.next().is_some_and(is_port)
        && words.next() == Some("PORT");
    is_of_a_service || is_of_a_port || (ends("PORT") && is_url)
}

/// The line of every key of a file, by its name with its section; of what stands in a list of tables, as that of `[[backup]]`, by
/// [`line_name`].
fn lines(text: &str) -> BTreeMap<String, usize> {
    let line = |at: usize| text.get(..at).map_or(0, |before| before.matches('\n').count()).saturating_add(1);
    let mut lines = BTreeMap::new();
    let Ok(table) = DeTable::parse(text) else { return lines };
    for (name, value) in table.get_ref() {
        match value.get_ref() {
            DeValue::Table(section) => {
                for inner in section.keys() {
                    lines.insert(format!("{}.{}", name.get_ref(), inner.get_ref()), line(inner.span().start));
                }
            }
            value => {
                lines.insert(name.get_ref().to_string(), line(name.span().start));
                let tables = value.as_array().into_iter().flatten().enumerate();
                for (index, table) in tables.filter_map(|(index, table)| Some((index, table.get_ref().as_table()?))) {
                    for inner in table.keys() {
                        lines.insert(line_name(name.get_ref(), index, inner.get_ref()), line(inner.span().start));
                    }
                }
            }
        }
    }
    lines
}

/// The name, for [`lines`], of a key in one of several tables of a name.
pub(super) fn line_name(table: &str, index: usize, key: &str) -> String {
    format!("{table}[{index}].{key}")
}

pub(super) fn default(name: &str) -> &'static str {
    KEYS.iter().find(|key| key.name == name).map_or("", |key| key.default)
}

/// Why a network that exists is refused.
fn unsafe_network(key: &Key, text: &str) -> Option<&'static str> {
    let is_mainnet = key.name == "network" && ["mainnet", "bitcoin", "main"].contains(&text);
    is_mainnet.then_some(
        "mainnet is refused: this version cannot yet collect every output of a channel that a peer closes alone, \
         so real money could be lost; use signet or regtest",
    )
}

/// What is wrong with a TOML file and in which line, without the line itself: it may hold the password.
fn fault_without_source(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count().saturating_add(1), error.message())
}

pub(super) fn expand(path: &str, home: &Path) -> PathBuf {
    match path.strip_prefix("~/") {
        Some(below) => home.join(below),
        None => PathBuf::from(path),
    }
}

/// The command line: a flag per key.
pub(super) fn command() -> Command {
    let config = Arg::new(CONFIG_FLAG)
        .long(CONFIG_FLAG)
        .value_name("FILE")
        .help("The configuration file. Default: outrigger.toml in the data directory, if it is there");
    let stdio = Arg::new(STDIO_FLAG).long(STDIO_FLAG).action(ArgAction::SetTrue).help(
        "Serve JSON-RPC on standard input and output too, a message a line, with full rights; the end of the input is a stop",
    );
    // clap keeps the names for as long as the process lives.
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| KEYS.iter().map(Key::flag).collect());
    let flags = KEYS.iter().zip(NAMES.iter()).filter(|(key, _)| key.on_command_line).map(|(key, name)| {
        let help = match key.default {
            "" => key.meaning.to_owned(),
            default => format!("{} [default: {default}]", key.meaning),
        };
        Arg::new(key.name).long(name.as_str()).value_name("VALUE").help(help)
    });
    Command::new("outriggerd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A Lightning sidecar for the bitcoind you already run")
        .after_help(AFTER_HELP)
        .arg(config)
        .arg(stdio)
        .args(flags)
}
