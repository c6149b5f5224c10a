//! What of bitcoind's own configuration concerns its callers, read as bitcoind reads it: sections by network, the first value of
//! a key, and files that the main one includes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Origin;

/// The file's name in bitcoind's data directory.
const FILE_NAME: &str = "bitcoin.conf";

/// Longer than any configuration of bitcoind.
const MAX_BYTES: u64 = 1024 * 1024;

/// The most files that are included.
const MAX_INCLUDED: usize = 16;

/// The keys that are looked for. No other value is kept.
const KEYS: [&str; 7] = ["rpcport", "rpcuser", "rpcpassword", "rpcauth", "rpccookiefile", "datadir", "includeconf"];

/// A line.
pub(super) struct Entry {
    section: String,
    key: &'static str,
    pub(super) value: Zeroizing<String>,
    path: PathBuf,
    line: usize,
}

impl Entry {
    pub(super) fn origin(&self) -> Origin {
        Origin::BitcoinConf(self.path.clone(), self.line)
    }
}

/// bitcoind's configuration for one network.
pub(super) struct BitcoinConf {
    data_dir: PathBuf,
    path: PathBuf,
    network: &'static str,
    entries: Vec<Entry>,
    fault: Option<String>,
}

impl BitcoinConf {
    /// Reads the configuration in bitcoind's data directory. One that is not there, or not for us, is no fault of ours:
    /// [`fault`](Self::fault) tells.
    pub(super) fn read(data_dir: &Path, network: &'static str) -> Self {
        let path = data_dir.join(FILE_NAME);
        let mut conf =
            Self { data_dir: data_dir.to_owned(), path: path.clone(), network, entries: Vec::new(), fault: None };
        match text(&path) {
            Ok(text) => conf.take(&path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => conf.fault = Some("no such file".to_owned()),
            Err(error) => conf.fault = Some(format!("it cannot be read: {error}")),
        }
        let included: Vec<_> = conf.all("includeconf").map(|entry| data_dir.join(entry.value.as_str())).collect();
        for path in included.into_iter().take(MAX_INCLUDED) {
            // bitcoind itself does not start with one that it cannot read.
            if let Ok(text) = text(&path) {
                conf.take(&path, &text);
            }
        }
        conf
    }

    fn take(&mut self, path: &Path, text: &str) {
        let mut section = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim().to_owned();
                continue;
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            let (within, name) = match name.trim().split_once('.') {
                Some((network, name)) if section.is_empty() => (network.to_owned(), name),
                Some(_) => continue,
                None => (section.clone(), name.trim()),
            };
            if let Some(key) = KEYS.into_iter().find(|key| *key == name) {
                let value = Zeroizing::new(value.trim().to_owned());
                let line = number.saturating_add(1);
                self.entries.push(Entry { section: within, key, value, path: path.to_owned(), line });
            }
        }
    }

    /// Where it was looked for.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why nothing was found.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Lines of this key that count on this network, those of the network's own section first.
    fn all(&self, key: &'static str) -> impl Iterator<Item = &Entry> {
        let of = move |section: &'static str| {
            self.entries.iter().filter(move |entry| entry.key == key && entry.section == section)
        };
        of(self.network).chain(of(""))
    }

    /// The value of a key that counts wherever it stands.
    pub(super) fn any(&self, key: &'static str) -> Option<&Entry> {
        self.all(key).next()
    }

    /// The value of a key that counts on a test network only in its own section.
    pub(super) fn network_only(&self, key: &'static str) -> Option<&Entry> {
        self.all(key).find(|entry| entry.section == self.network)
    }

    /// Where bitcoind writes its cookie, as far as can be told.
    pub(super) fn cookie(&self) -> (PathBuf, Origin) {
        let moved = self.any("datadir").filter(|entry| Path::new(entry.value.as_str()).is_absolute());
        let data_dir = moved.map_or_else(|| self.data_dir.clone(), |entry| PathBuf::from(entry.value.as_str()));
        let of_network = data_dir.join(self.network);
        match (self.any("rpccookiefile").filter(|entry| !entry.value.is_empty()), moved) {
            (Some(entry), _) => (of_network.join(entry.value.as_str()), entry.origin()),
            (None, Some(entry)) => (of_network.join(".cookie"), entry.origin()),
            (None, None) => (of_network.join(".cookie"), Origin::BitcoindDirectory(data_dir)),
        }
    }
}

fn text(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> (tempfile::TempDir, BitcoinConf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
        std::fs::write(dir.path().join("more.conf"), "rpcuser=included\n[regtest]\nrpcport=7\n").unwrap();
        let conf = BitcoinConf::read(dir.path(), "regtest");
        (dir, conf)
    }

    fn value(entry: Option<&Entry>) -> Option<(&str, usize)> {
        entry.map(|entry| (entry.value.as_str(), entry.line))
    }

    #[test]
    fn sections_first_values_and_comments_count_as_with_bitcoind() {
        let text = "rpcuser=first # and a comment\nrpcuser=second\nrpcport=1\nregtest.rpccookiefile=c\nunknown=1\n\
                    [signet]\nrpcport=2\nrpcuser=signet\n[regtest]\n rpcport = 3 \nrpcport=4\nsignet.rpcuser=no\n";
        let (dir, conf) = conf(text);
        assert_eq!(value(conf.any("rpcuser")), Some(("first", 1)));
        assert_eq!(value(conf.network_only("rpcport")), Some(("3", 10)));
        assert_eq!(value(conf.any("rpcpassword")), None);
        let (path, origin) = conf.cookie();
        assert_eq!(path, dir.path().join("regtest/c"));
        assert_eq!(origin, Origin::BitcoinConf(dir.path().join(FILE_NAME), 4));
        // bitcoind listens on a test network where its section says so, whatever stands above.
        let (_dir, conf) = self::conf("rpcport=1\n");
        assert_eq!(value(conf.network_only("rpcport")), None);
    }

    #[test]
    fn included_files_come_behind_and_a_moved_data_directory_is_followed() {
        let (_dir, conf) = conf("includeconf=more.conf\nincludeconf=missing.conf\ndatadir=/elsewhere\n");
        assert_eq!(value(conf.any("rpcuser")), Some(("included", 1)));
        assert_eq!(value(conf.network_only("rpcport")), Some(("7", 3)));
        assert_eq!(conf.cookie().0, Path::new("/elsewhere/regtest/.cookie"));
        let (_dir, conf) = self::conf("rpcuser=own\nincludeconf=more.conf\n");
        assert_eq!(value(conf.any("rpcuser")), Some(("own", 1)));
    }

    #[test]
    fn a_configuration_that_is_not_there_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let conf = BitcoinConf::read(dir.path(), "signet");
        assert_eq!(conf.fault(), Some("no such file"));
        assert_eq!(conf.cookie().0, dir.path().join("signet/.cookie"));
        std::fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
        assert!(BitcoinConf::read(dir.path(), "signet").fault().unwrap().contains("cannot be read"));
    }
}
