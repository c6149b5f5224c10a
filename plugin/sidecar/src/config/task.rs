//! What the program is started for: a node, or one of the uses that have a word of their own in front.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::values::{self, Values, Variables, expand};
use super::{BackupKind, Config, ConfigFault};

/// A use of the program.
#[derive(Debug)]
pub enum Task {
    /// The node.
    Run(Box<Config>),
    /// `--check-config`: the configuration is shown, or what is wrong with it; as one JSON object where that is asked for.
    CheckConfig(Box<Result<Config, ConfigFault>>, bool),
    /// `init`: the data directory gets a seed.
    Init(Box<Config>, InitOrder),
    /// `restore`: a data directory is made from a backup.
    Restore(Box<Config>, RestoreOrder),
    /// `verify-backup`: what would be restored is held against the database.
    VerifyBackup(Box<Config>, RestoreOrder),
    /// `sink-check`: a program is put through the Persist contract.
    SinkCheck(SinkCheckOrder),
    /// `man`: the manual page is printed.
    Manual,
}

/// What `init` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitOrder {
    /// Words that were written down before are read from the standard input; new ones are made otherwise.
    pub import: bool,
    /// One JSON object in place of words.
    pub json: bool,
}

/// What `restore` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreOrder {
    /// Where the backup is.
    pub from: BackupKind,
    /// Only tell what would come of it.
    pub dry_run: bool,
    /// One JSON object in place of words.
    pub json: bool,
    /// Go on without what cannot be read of the backup now.
    pub takes_what_is_there: bool,
}

/// What `sink-check` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkCheckOrder {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// One JSON object in place of words.
    pub json: bool,
    /// What the check in any order is drawn from.
    pub seed: Option<u64>,
}

/// What the help of the program ends with: what the words in front are, and what an end of it means.
pub(super) const AFTER_HELP: &str = "\
Other uses:
  outriggerd init                       make the seed, and show its words to write down; --import takes words
  outriggerd restore --from SINK        make a data directory from a backup
  outriggerd verify-backup --from SINK  hold a backup against the database
  outriggerd sink-check -- COMMAND      check a program that is to keep backups
  outriggerd man                        print the manual page
Each but the last has its own --help. --check-config shows what is in force, and starts nothing.

Exit codes:
  0  stopped
  1  refused to start: the words say what to do
  2  the arguments are wrong; --check-config: the configuration is; restore and verify-backup: something is missing or differs
  3  the disk refused: look at it, then restart
  4  a fault of its own: report it first, do not restart in a loop
  5  a required backup refused a second channel: replace it first
  6  restore, verify-backup: a backup could not be read now, nothing was written
A panic ends it by SIGABRT; restarting is safe.";

impl Task {
    /// Reads the command line, the first argument being the program, and the configuration file it names or finds.
    /// `variables` are those of the environment; `home` is the operator's home directory.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        home: &Path,
    ) -> Result<Self, ConfigFault> {
        let around = (&variables.into_iter().collect(), home);
        let mut arguments: Vec<_> = arguments.into_iter().collect();
        match arguments.get(1).and_then(|word| word.to_str()) {
            Some("init") => {
                arguments.remove(1);
                let matches = init_command().try_get_matches_from(arguments)?;
                let order = InitOrder { import: matches.get_flag("import"), json: matches.get_flag("json") };
                Ok(Self::Init(Box::new(config(&matches, around)?), order))
            }
            Some("restore") => {
                arguments.remove(1);
                let (config, order) = restore_order(restore_command().try_get_matches_from(arguments)?, around)?;
                Ok(Self::Restore(Box::new(config), order))
            }
            Some("verify-backup") => {
                arguments.remove(1);
                let (config, order) = restore_order(verify_command().try_get_matches_from(arguments)?, around)?;
                Ok(Self::VerifyBackup(Box::new(config), order))
            }
            Some("sink-check") => {
                arguments.remove(1);
                let matches = sink_check_command().try_get_matches_from(arguments)?;
                let command = matches.get_many::<String>("command").into_iter().flatten().cloned().collect();
                let seed = matches.get_one::<u64>("seed").copied();
                Ok(Self::SinkCheck(SinkCheckOrder { command, json: matches.get_flag("json"), seed }))
            }
            Some("man") => Ok(Self::Manual),
            Some(_) | None => {
                let matches = node_command().try_get_matches_from(arguments)?;
                let config = config(&matches, around);
                if matches.get_flag("check_config") {
                    return Ok(Self::CheckConfig(Box::new(config), matches.get_flag("json")));
                }
                config.map(|config| Self::Run(Box::new(config)))
            }
        }
    }
}

/// The uses that have a command line of their own, by their word in front.
pub(super) fn uses() -> [(&'static str, Command); 4] {
    [
        ("init", init_command()),
        ("restore", restore_command()),
        ("verify-backup", verify_command()),
        ("sink-check", sink_check_command()),
    ]
}

/// What is read beside the command line: the environment, and the home directory.
type Around<'a> = (&'a Variables, &'a Path);

fn config(matches: &ArgMatches, (variables, home): Around<'_>) -> Result<Config, ConfigFault> {
    Config::from_values(&Values::of(matches, variables, home)?, home)
}

fn restore_order(matches: ArgMatches, around: Around<'_>) -> Result<(Config, RestoreOrder), ConfigFault> {
    let config = config(&matches, around)?;
    let from = place(matches.get_one::<String>("from").map_or("", String::as_str), &config, around.1)?;
    // To verify is to restore without writing.
    let dry_run = !matches!(matches.try_get_one::<bool>("dry_run"), Ok(Some(false)));
    let takes_what_is_there = matches!(matches.try_get_one::<bool>("take_what_is_there"), Ok(Some(true)));
    Ok((config, RestoreOrder { from, dry_run, json: matches.get_flag("json"), takes_what_is_there }))
}

/// `KIND:PLACE`, or the name of a `[[backup]]` of the configuration.
fn place(text: &str, config: &Config, home: &Path) -> Result<BackupKind, ConfigFault> {
    let unfit = |problem: &str| ConfigFault::Unfit {
        key: "from".to_owned(),
        origin: "--from".to_owned(),
        problem: problem.to_owned(),
    };
    let kinds = "must be mirror:FILE, directory:PATH, command:PROGRAM with arguments, or the name of a [[backup]]";
    let Some((kind, place)) = text.split_once(':') else {
        let named = config.backups.iter().find(|backup| backup.name == text);
        return named.map(|backup| backup.kind.clone()).ok_or_else(|| unfit(kinds));
    };
    let path = Some(expand(place, home)).filter(|path| !path.as_os_str().is_empty());
    let path = || path.clone().ok_or_else(|| unfit(kinds));
    match kind {
        "mirror" => Ok(BackupKind::Mirror { path: path()? }),
        "directory" => Ok(BackupKind::Directory { path: path()?, consolidate_every: 1 }),
        "command" => {
            let command: Vec<_> = place.split_whitespace().map(str::to_owned).collect();
            if command.is_empty() { Err(unfit(kinds)) } else { Ok(BackupKind::Command { command }) }
        }
        _ => Err(unfit(kinds)),
    }
}

fn json_flag() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object")
}

fn from_flag() -> Arg {
    Arg::new("from")
        .long("from")
        .value_name("SINK")
        .required(true)
        .help("mirror:FILE, directory:PATH, command:PROGRAM ARGUMENTS, or the name of a [[backup]]")
}

/// The command line of the node itself.
pub(super) fn node_command() -> Command {
    let check = Arg::new("check_config").long("check-config").action(ArgAction::SetTrue).help(
        "Read the configuration, print every key with its value and where that comes from, and start nothing: exit code 0, or 2 where \
         something is wrong",
    );
    values::command().arg(check).arg(json_flag().requires("check_config"))
}

fn init_command() -> Command {
    let import = Arg::new("import").long("import").action(ArgAction::SetTrue).help(
        "Take 12 to 24 words that were written down before, from the standard input; what is typed is not shown. Never given as an \
         argument: every user of the machine can read those",
    );
    values::command()
        .bin_name("outriggerd init")
        .about(
            "Makes the seed of a node, from which its keys are made, and shows its 24 words, or takes words that were written down \
             before. A seed that is there is never overwritten",
        )
        .after_help("Exit code: 0 when the seed was written, 1 when nothing was changed, 2 when the arguments are wrong.")
        .arg(import)
        .arg(json_flag())
}

fn verify_command() -> Command {
    values::command()
        .bin_name("outriggerd verify-backup")
        .about(
            "Restores a backup in memory and holds every channel against the database. The node must be stopped, so that the \
             database stands still",
        )
        .after_help("Exit code: 0 when all is the same, 2 when it is not, 1 when it could not be looked at, 6 when something of the backup could not be \
             read: run it again.",
        )
        .arg(from_flag())
        .arg(json_flag())
}

fn restore_command() -> Command {
    values::command()
        .bin_name("outriggerd restore")
        .about(
            "Makes a data directory from a backup. The node that is started from it is in restored mode for good: it asks its \
             peers to close, and brings home what is its own. The seed must be in the data directory of the network, and no \
             database",
        )
        .after_help(
            "Exit code: 0 when all was restored, 2 when a channel was not or is behind, 1 when nothing was done, 6 when something of \
             the backup could not be read, and nothing was written: run it again.",
        )
        .arg(from_flag())
        .arg(Arg::new("dry_run").long("dry-run").action(ArgAction::SetTrue).help("Write nothing, tell what would be"))
        .arg(
            Arg::new("take_what_is_there")
                .long("take-what-is-there")
                .action(ArgAction::SetTrue)
                .help("Restore what can be read, and leave out for good what cannot"),
        )
        .arg(json_flag())
}

fn sink_check_command() -> Command {
    Command::new("outriggerd")
        .bin_name("outriggerd sink-check")
        .about(
            "Puts a program that is to keep backups through the contract, as a node that does not exist: run it on a place of \
             its own",
        )
        .after_help("Exit code: 0 when the program keeps the contract, 1 when it does not.")
        .arg(json_flag())
        .arg(
            Arg::new("seed")
                .long("seed")
                .value_name("NUMBER")
                .value_parser(clap::value_parser!(u64))
                .help("Repeats the last check in the order that this number gives"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .required(true)
                .num_args(1..)
                .last(true)
                .help("The program and its arguments"),
        )
}

/// Where a backup is, for people.
pub fn place_text(place: &BackupKind) -> String {
    let path = |path: &PathBuf| path.display().to_string();
    match place {
        BackupKind::Mirror { path: file } => format!("mirror:{}", path(file)),
        BackupKind::Directory { path: dir, .. } => format!("directory:{}", path(dir)),
        BackupKind::Command { command } => format!("command:{}", command.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(words: &str) -> Result<Task, String> {
        let dir = tempfile::tempdir().unwrap();
        let words = std::iter::once("outriggerd").chain(words.split(' ')).map(OsString::from);
        Task::read(words, [], dir.path()).map_err(|fault| fault.to_string())
    }

    fn restore(words: &str) -> RestoreOrder {
        match task(words) {
            Ok(Task::Restore(_, order)) => order,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_use_has_its_word_and_its_flags() {
        let Ok(Task::Run(config)) = task("--network regtest") else { panic!("a node") };
        assert_eq!(config.network, bitcoin::Network::Regtest);
        let order = restore("restore --from directory:/mnt/b --network regtest --dry-run --json");
        let from = BackupKind::Directory { path: "/mnt/b".into(), consolidate_every: 1 };
        assert_eq!(order, RestoreOrder { from, dry_run: true, json: true, takes_what_is_there: false });
        let order = restore("restore --from mirror:/mnt/m.redb");
        let from = BackupKind::Mirror { path: "/mnt/m.redb".into() };
        assert_eq!(order, RestoreOrder { from, dry_run: false, json: false, takes_what_is_there: false });
        assert!(restore("restore --from mirror:/mnt/m.redb --take-what-is-there").takes_what_is_there);
        assert!(task("verify-backup --from mirror:/mnt/m.redb --take-what-is-there").is_err());
        let Ok(Task::VerifyBackup(_, order)) = task("verify-backup --from directory:/mnt/b") else { panic!() };
        assert!(order.dry_run && !order.json);
        let Ok(Task::SinkCheck(order)) = task("sink-check --json --seed 7 -- ./keep --bucket mine") else { panic!() };
        assert_eq!(order.command, ["./keep", "--bucket", "mine"]);
        assert_eq!((order.json, order.seed), (true, Some(7)));
    }

    #[test]
    fn what_is_no_place_for_a_backup_is_told_what_one_is() {
        for place in ["tape:/dev/st0", "nothing", "directory:", "mirror:", "command:"] {
            let words = task(&format!("restore --from {place}")).unwrap_err();
            assert!(words.contains("must be mirror:FILE, directory:PATH, command:PROGRAM"), "{place}: {words}");
        }
        assert!(task("restore").unwrap_err().contains("--from"));
        assert!(task("sink-check").unwrap_err().contains("COMMAND"));
        assert!(task("sink-check ./keep").is_err(), "what is behind -- is the program");
    }

    #[test]
    fn a_backup_of_the_configuration_is_known_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("outrigger.toml");
        let entry = "[[backup]]\nname = \"mine\"\nkind = \"command\"\nrequirement = \"follow\"\ncommand = [\"keep it\", \"x\"]\n";
        std::fs::write(&file, entry).unwrap();
        let words = ["outriggerd", "restore", "--from", "mine", "--config", file.to_str().unwrap()];
        let Ok(Task::Restore(_, order)) = Task::read(words.map(OsString::from), [], dir.path()) else { panic!() };
        assert_eq!(order.from, BackupKind::Command { command: vec!["keep it".to_owned(), "x".to_owned()] });
        assert_eq!(place_text(&order.from), "command:keep it x");
    }
}
