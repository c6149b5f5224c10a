//! How bitcoind is found: what the operator says, then what its own configuration says, then where it puts its cookie by itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bitcoin::Network;
use zeroize::Zeroizing;

use super::bitcoin_conf::BitcoinConf;
use super::values::Values;
use super::{ConfigFault, Origin, Ports, network_name};

/// How to reach bitcoind.
#[derive(Clone, Debug)]
pub struct BitcoindConfig {
    /// `host:port` of its RPC server.
    pub address: String,
    /// How to be admitted.
    pub auth: BitcoindAuth,
    /// Whether the address may be of another machine; the connection is not encrypted.
    pub allow_remote: bool,
    /// How often it is looked for a block where nobody says that there is one; none: bitcoind is asked to say so.
    pub poll: Option<Duration>,
    /// Where the two come from.
    pub search: BitcoindSearch,
}

/// What was looked at for bitcoind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitcoindSearch {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where the address comes from.
    pub address: Origin,
    /// Where cookie or user and password come from.
    pub auth: Origin,
    /// What was tried for credentials, in this order, each with what came of it; the last one is what is used.
    pub tried: Vec<String>,
}

/// How bitcoind admits us.
#[derive(Clone)]
pub enum BitcoindAuth {
    /// By the cookie file that it writes at every start. It need not be there yet.
    Cookie(PathBuf),
    /// By `rpcuser` and `rpcpassword`, or an `rpcauth` pair.
    UserPass {
        /// The user.
        user: String,
        /// The password, wiped when dropped.
        password: Zeroizing<String>,
    },
}

impl fmt::Debug for BitcoindAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie(path) => write!(f, "Cookie({})", path.display()),
            Self::UserPass { user, .. } => write!(f, "UserPass({user}, ..)"),
        }
    }
}

impl fmt::Display for BitcoindAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie(path) => write!(f, "the cookie file {}", path.display()),
            Self::UserPass { user, .. } => write!(f, "user {user} and a password"),
        }
    }
}

impl BitcoindSearch {
    /// What was tried, for people.
    pub fn words(&self) -> String {
        format!("tried for credentials, in this order: {}", self.tried.join("; "))
    }
}

pub(super) fn bitcoind(values: &Values, home: &Path, network: Network) -> Result<BitcoindConfig, ConfigFault> {
    let said = values.path("bitcoind.data_dir", home);
    let data_dir = said.clone().unwrap_or_else(|| home.join(".bitcoin"));
    let conf = BitcoinConf::read(&data_dir, network_name(network));
    let (address, address_from) = address(values, &conf, network)?;
    // A password of this machine's bitcoind is not told to another machine.
    let conf_may_be_meant = said.is_some() || is_of_this_machine(&address);
    let (auth, auth_from, tried) = credentials(values, home, &conf, conf_may_be_meant)?;
    let search = BitcoindSearch { data_dir, address: address_from, auth: auth_from, tried };
    let poll = Some(values.number("bitcoind.poll_secs")).filter(|secs| *secs > 0).map(Duration::from_secs);
    Ok(BitcoindConfig { address, auth, allow_remote: values.flag("bitcoind.allow_remote"), poll, search })
}

fn address(values: &Values, conf: &BitcoinConf, network: Network) -> Result<(String, Origin), ConfigFault> {
    let url = values.text("bitcoind.url");
    let (address, origin) = match url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/') {
        "" => match conf.network_only("rpcport") {
            Some(entry) => (format!("127.0.0.1:{}", entry.value.as_str()), entry.origin()),
            None => (format!("127.0.0.1:{}", Ports::of(network).bitcoind), Origin::Default),
        },
        address => (address.to_owned(), values.origin("bitcoind.url")),
    };
    let port = address.rsplit_once(':').map(|(host, port)| (host.len(), port.parse::<u16>()));
    if matches!(port, Some((1.., Ok(1..)))) && !address.contains(['/', '@', ' ']) {
        return Ok((address, origin));
    }
    if let Origin::BitcoinConf(..) = origin {
        let problem =
            "rpcport of bitcoin.conf must be a port; bitcoind.url says where bitcoind is in its place".to_owned();
        return Err(ConfigFault::Unfit { key: "bitcoind.url".to_owned(), origin: origin.to_string(), problem });
    }
    Err(values.unfit("bitcoind.url", "must be host:port or http://host:port, without user or path"))
}

fn is_of_this_machine(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What admits us, where that comes from, and what was tried for it.
fn credentials(
    values: &Values,
    home: &Path,
    conf: &BitcoinConf,
    conf_may_be_meant: bool,
) -> Result<(BitcoindAuth, Origin, Vec<String>), ConfigFault> {
    let cookie = values.path("bitcoind.cookie", home);
    let (user, password) = (values.text("bitcoind.user"), values.text("bitcoind.password"));
    let mut tried = Vec::new();
    match (&cookie, user.is_empty(), password.is_empty()) {
        (Some(_), true, true) | (None, true, true) => {
            tried.push("bitcoind.user and bitcoind.password: not set".to_owned())
        }
        (None, false, false) => {
            let origin = values.origin("bitcoind.password");
            tried.push(format!("bitcoind.user and bitcoind.password of {origin}"));
            return Ok((user_and_password(user, password), origin, tried));
        }
        (None, _, _) => return Err(values.unfit("bitcoind.user", "needs bitcoind.password beside it, and it the user")),
        (Some(_), _, _) => return Err(values.unfit("bitcoind.cookie", "excludes bitcoind.user and bitcoind.password")),
    }
    if let Some(cookie) = cookie {
        let origin = values.origin("bitcoind.cookie");
        tried.push(format!("bitcoind.cookie of {origin}: {}", cookie.display()));
        return Ok((BitcoindAuth::Cookie(cookie), origin, tried));
    }
    tried.push("bitcoind.cookie: not set".to_owned());
    let path = conf.path().display();
    if let Some(fault) = conf.fault() {
        tried.push(format!("rpcpassword in {path}: {fault}"));
    } else if let Some(password) = conf.any("rpcpassword").filter(|entry| !entry.value.is_empty()) {
        if conf_may_be_meant {
            let user = conf.any("rpcuser").map_or("", |entry| entry.value.as_str());
            tried.push(format!("rpcuser and rpcpassword of {}", password.origin()));
            return Ok((user_and_password(user, &password.value), password.origin(), tried));
        }
        tried.push(format!("rpcpassword in {path}: not told to another machine unless bitcoind.data_dir is set"));
    } else {
        tried.push(format!("rpcpassword in {path}: none"));
    }
    if let Some(entry) = conf.any("rpcauth") {
        let place = entry.origin();
        tried.push(format!(
            "rpcauth of {place}: only a hash; set bitcoind.user and bitcoind.password to what it was made of"
        ));
    }
    let (cookie, origin) = conf.cookie();
    tried.push(format!("the cookie file {}", cookie.display()));
    Ok((BitcoindAuth::Cookie(cookie), origin, tried))
}

fn user_and_password(user: &str, password: &str) -> BitcoindAuth {
    BitcoindAuth::UserPass { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) }
}
