//! Where a value of the configuration comes from.

use std::fmt;
use std::path::PathBuf;

use outrigger_rpc_schema::ConfigOrigin;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The configuration file, with the line where it is known.
    File(PathBuf, Option<usize>),
    /// A variable of the environment.
    Environment(String),
    /// The command line: the flag with its dashes.
    Flag(String),
    /// bitcoind's configuration, and the line.
    BitcoinConf(PathBuf, usize),
    /// Where bitcoind puts it by itself, in this directory.
    BitcoindDirectory(PathBuf),
}

impl Origin {
    /// The kind in the words of the interface.
    pub(super) const fn kind(&self) -> ConfigOrigin {
        match self {
            Self::Default => ConfigOrigin::Default,
            Self::File(..) => ConfigOrigin::File,
            Self::Environment(_) => ConfigOrigin::Environment,
            Self::Flag(_) => ConfigOrigin::Flag,
            Self::BitcoinConf(..) => ConfigOrigin::BitcoinConf,
            Self::BitcoindDirectory(_) => ConfigOrigin::BitcoindDirectory,
        }
    }

    /// The place, where it is one.
    pub(super) fn place(&self) -> Option<String> {
        match self {
            Self::Default => None,
            Self::File(path, None) | Self::BitcoindDirectory(path) => Some(path.display().to_string()),
            Self::File(path, Some(line)) | Self::BitcoinConf(path, line) => Some(format!("{}:{line}", path.display())),
            Self::Environment(name) | Self::Flag(name) => Some(name.clone()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Some(place) => f.write_str(&place),
            None => f.write_str("the default"),
        }
    }
}
