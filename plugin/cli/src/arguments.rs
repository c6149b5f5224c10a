//! What stands on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// The command line, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Where the daemon keeps everything; the default place without it.
    pub(crate) data_dir: Option<PathBuf>,
    /// The daemon's network; whichever runs without it.
    pub(crate) network: Option<String>,
    /// The address of a daemon elsewhere, and what is shown and trusted there.
    pub(crate) remote: Option<Remote>,
    /// Whether the result is printed as it came.
    pub(crate) json: bool,
    /// What to do.
    pub(crate) request: Request,
}

/// A daemon that is not found by its files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// `http://host:port` or `https://host:port`.
    pub(crate) url: String,
    /// The file that holds a token.
    pub(crate) token_file: Option<PathBuf>,
    /// The file that holds the certificates to trust; those of this machine without it.
    pub(crate) ca: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// List the methods.
    Overview,
    /// Describe a method.
    Describe(String),
    /// Print the script by which a shell completes; empty where none is named.
    Completions(String),
    /// Print the manual page.
    Manual,
    /// Call a method.
    Call {
        /// Its name.
        method: String,
        /// Its parameters, each as `name=value`.
        words: Vec<String>,
    },
}

impl Arguments {
    /// Reads the command line, the first argument being the program. An error is also what `--version` prints.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = command().try_get_matches_from(arguments)?;
        Ok(Self {
            data_dir: text(&matches, "data-dir", "OUTRIGGER_DATA_DIR").map(PathBuf::from),
            network: text(&matches, "network", "OUTRIGGER_NETWORK"),
            remote: remote(&matches)?,
            json: matches.get_flag("json"),
            request: request(&matches),
        })
    }
}

/// The options that name a daemon on this machine.
const HERE: [&str; 2] = ["data-dir", "network"];

/// The daemon elsewhere, where one is meant: an option for this machine wins over what the environment says.
fn remote(matches: &ArgMatches) -> Result<Option<Remote>, clap::Error> {
    let is_here = HERE.iter().any(|option| matches.contains_id(option));
    let Some(url) = text(matches, "url", "OUTRIGGER_URL").filter(|_| !is_here) else {
        return match ["token-file", "ca"].iter().find(|option| matches.contains_id(option)) {
            None => Ok(None),
            Some(option) => {
                let words = format!("--{option} says something of the daemon that --url names, and none is named\n");
                Err(command().error(ErrorKind::MissingRequiredArgument, words))
            }
        };
    };
    let file = |option, variable| text(matches, option, variable).map(PathBuf::from);
    let (token_file, ca) = (file("token-file", "OUTRIGGER_TOKEN_FILE"), file("ca", "OUTRIGGER_CA"));
    Ok(Some(Remote { url, token_file, ca }))
}

fn request(matches: &ArgMatches) -> Request {
    let mut words = matches.get_many::<String>("words").into_iter().flatten().cloned();
    match words.next() {
        None => Request::Overview,
        Some(word) if word == "help" => words.next().map_or(Request::Overview, Request::Describe),
        Some(word) if word == "completions" => Request::Completions(words.next().unwrap_or_default()),
        Some(word) if word == "man" => Request::Manual,
        Some(method) if matches.get_flag("help") => Request::Describe(method),
        Some(method) => Request::Call { method, words: words.collect() },
    }
}

/// The flag's value, or the environment's.
fn text(matches: &ArgMatches, flag: &str, variable: &str) -> Option<String> {
    let given = matches.get_one::<String>(flag).cloned();
    given.or_else(|| std::env::var(variable).ok()).filter(|text| !text.is_empty())
}

fn command() -> Command {
    Command::new("outrigger-cli")
        .version(env!("CARGO_PKG_VERSION"))
        .override_usage(
            "outrigger-cli [--json] [--data-dir DIR] [--network NETWORK] METHOD [name=value ...]\n       \
             outrigger-cli [--json] --url https://HOST:PORT --token-file FILE [--ca FILE] METHOD [name=value ...]",
        )
        .disable_help_flag(true)
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::SetTrue))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
        .arg(Arg::new("data-dir").long("data-dir").value_name("DIR"))
        .arg(Arg::new("network").long("network").value_name("NETWORK"))
        .arg(Arg::new("url").long("url").value_name("URL").conflicts_with_all(HERE))
        .arg(Arg::new("token-file").long("token-file").value_name("FILE"))
        .arg(Arg::new("ca").long("ca").value_name("FILE"))
        .arg(Arg::new("words").num_args(0..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Arguments {
        Arguments::read(["outrigger-cli"].iter().chain(words).map(OsString::from)).expect("is read")
    }

    #[test]
    fn options_may_stand_before_and_after_the_method() {
        let call = Request::Call { method: "event.list".to_owned(), words: vec!["limit=1".to_owned()] };
        assert_eq!(read(&["--json", "event.list", "limit=1"]), read(&["event.list", "limit=1", "--json"]));
        let arguments = read(&["event.list", "--network", "regtest", "limit=1", "--data-dir=/x"]);
        assert_eq!(arguments.request, call);
        assert_eq!(arguments.network.as_deref(), Some("regtest"));
        assert_eq!(arguments.data_dir, Some(PathBuf::from("/x")));
    }

    #[test]
    fn help_is_asked_for_in_three_ways() {
        let describe = Request::Describe("node.info".to_owned());
        assert_eq!(read(&["node.info", "--help"]).request, describe);
        assert_eq!(read(&["help", "node.info"]).request, describe);
        for words in [&[][..], &["help"], &["--help"], &["-h"]] {
            assert_eq!(read(words).request, Request::Overview, "{words:?}");
        }
    }

    #[test]
    fn what_is_said_of_a_daemon_elsewhere_is_said_of_one() {
        let remote = read(&["--url", "https://x:1", "--token-file=/t", "--ca", "/c", "node.info"])
            .remote
            .expect("one elsewhere");
        let file = |path: &str| Some(PathBuf::from(path));
        assert_eq!((remote.url.as_str(), remote.token_file, remote.ca), ("https://x:1", file("/t"), file("/c")));
        for words in [&["--ca", "/c"][..], &["--token-file", "/t"], &["--url", "x", "--network", "signet"]] {
            let words = ["outrigger-cli"].iter().chain(words).map(OsString::from);
            assert!(Arguments::read(words).is_err());
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }
}
