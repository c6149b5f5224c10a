//! The configuration as it is shown: every key with its value, its default and where the value comes from.

use std::path::Path;

use bitcoin::Network;
use outrigger_rpc_schema::{ConfigItem, ConfigReport, rendezvous};

use super::backup::{BACKUP_KEYS, BackupKey, BackupRead};
use super::keys::{KEYS, Key};
use super::values::Values;
use super::{BitcoindAuth, Config, Origin, Ports, network_name};

/// What stands for a secret.
const HIDDEN: &str = "(hidden)";

/// Every key as it is in force.
pub(super) fn report(values: &Values, config: &Config, home: &Path) -> ConfigReport {
    let keys = KEYS.iter().map(|key| item(key, values, config, home));
    let backups = values.backups_read().iter().flat_map(|backup| backup_items(backup, values));
    let file = values.file().map(|path| path.display().to_string());
    ConfigReport { file, items: keys.chain(backups).collect() }
}

fn item(key: &Key, values: &Values, config: &Config, home: &Path) -> ConfigItem {
    let default = default(key, config.network, home);
    let (value, origin) = match found(key.name, config) {
        Some(found) => found,
        None => {
            let origin = values.origin(key.name);
            let text = values.text(key.name);
            (if origin == Origin::Default || text.is_empty() { default.clone() } else { text.to_owned() }, origin)
        }
    };
    let value = if key.is_secret() && !value.is_empty() { HIDDEN.to_owned() } else { value };
    let (origin, place) = (origin.kind(), origin.place());
    ConfigItem { key: key.name.to_owned(), value, default, takes: key.kind.told(), origin, place }
}

/// What was made of several keys and of bitcoind's own configuration, or is written in another way than it is used.
fn found(key: &str, config: &Config) -> Option<(String, Origin)> {
    let search = &config.bitcoind.search;
    match (key, &config.bitcoind.auth) {
        ("bitcoind.url", _) => Some((config.bitcoind.address.clone(), search.address.clone())),
        ("bitcoind.cookie", BitcoindAuth::Cookie(path)) => Some((path.display().to_string(), search.auth.clone())),
        ("bitcoind.user", BitcoindAuth::UserPass { user, .. }) => Some((user.clone(), search.auth.clone())),
        ("bitcoind.password", BitcoindAuth::UserPass { password, .. }) => {
            Some((if password.is_empty() { "" } else { HIDDEN }.to_owned(), search.auth.clone()))
        }
        ("bitcoind.cookie" | "bitcoind.user" | "bitcoind.password", _) => Some((String::new(), Origin::Default)),
        _ => None,
    }
}

/// What is taken where nobody says anything.
fn default(key: &Key, network: Network, home: &Path) -> String {
    let ports = Ports::of(network);
    let local = |port: u16| format!("127.0.0.1:{port}");
    let path = |path: std::path::PathBuf| path.display().to_string();
    match key.name {
        "data_dir" => path(rendezvous::default_data_directory(home)),
        "listen" => local(ports.listen),
        "rpc.address" => local(ports.rpc),
        "bitcoind.url" => local(ports.bitcoind),
        "bitcoind.data_dir" => path(home.join(".bitcoin")),
        "bitcoind.cookie" => path(home.join(".bitcoin").join(network_name(network)).join(".cookie")),
        _ => key.default.to_owned(),
    }
}

/// The keys of one `[[backup]]` that have a meaning for its kind.
fn backup_items(backup: &BackupRead, values: &Values) -> Vec<ConfigItem> {
    let item = |row: &BackupKey| {
        let name = row.name_in_table();
        let given = backup.given.get(name);
        let origin = match (given, values.file()) {
            (Some((_, line)), Some(path)) => Origin::File(path.to_owned(), *line),
            _ => Origin::Default,
        };
        ConfigItem {
            key: format!("backup.{}.{name}", backup.config.name),
            value: given.map_or(row.key.default, |(text, _)| text).to_owned(),
            default: row.key.default.to_owned(),
            takes: row.key.kind.told(),
            origin: origin.kind(),
            place: origin.place(),
        }
    };
    BACKUP_KEYS.iter().filter(|row| row.is_of(backup.config.kind.name())).map(item).collect()
}

/// The same for people, a key a line.
pub fn text(config: &Config) -> String {
    let report = &config.report;
    let widest = report.items.iter().map(|item| item.key.len()).max().unwrap_or_default();
    let mut text = match &report.file {
        Some(file) => format!("# the configuration file is {file}\n"),
        None => "# there is no configuration file\n".to_owned(),
    };
    for item in &report.items {
        let origin = match &item.place {
            Some(place) => format!("{} ({})", place, item.origin.name()),
            None => item.origin.name().to_owned(),
        };
        let (key, value) = (&item.key, &item.value);
        text.push_str(&format!("{key:<widest$} = {}  # {origin}\n", value.escape_debug()));
    }
    text.push_str(&format!("# bitcoind: {}\n", config.bitcoind.search.words()));
    text
}
