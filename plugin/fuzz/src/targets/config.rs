//! The configuration file, as the daemon reads it from disk.

use std::ffi::OsString;
use std::fs;

use outrigger_sidecar::config::{Config, example_file};
use outrigger_sidecar::key::Seed;

use super::Target;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target::new("config_file", file, || {
            let example = example_file();
            let set: String = example.lines().filter(|line| !line.starts_with("# ")).map(uncommented).collect();
            vec![example.into_bytes(), set.into_bytes(), b"[channel]\nto_self_delay = 144\n".to_vec()]
        }),
        Target::new("bitcoin_conf", bitcoin_conf, || {
            vec![b"rpcuser=a # b\nrpcport=1\n[signet]\nrpcport=38332\nrpccookiefile=c\nincludeconf=bitcoin.conf\n".to_vec()]
        }),
        Target::new("seed_words", seed_words, || {
            vec!["abandon ".repeat(12).into_bytes(), b"zoo ZOO zoo zoo zoo zoo\nzoo zoo zoo zoo zoo wrong".to_vec()]
        }),
        Target::new("config_arguments", arguments, || {
            vec![b"--network\nregtest\n--bitcoind-url\n127.0.0.1:1".to_vec(), b"--channel-to-self-delay\n5".to_vec()]
        }),
    ]
}

fn uncommented(line: &str) -> String {
    format!("{}\n", line.strip_prefix('#').unwrap_or(line))
}

/// A file of any bytes is read, or refused with a text that names the file or the key.
fn file(data: &[u8]) {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("outrigger.toml");
    fs::write(&path, data).expect("a file");
    let arguments = ["outriggerd", "--config"].map(OsString::from).into_iter().chain([path.into_os_string()]);
    read(arguments, home.path());
}

/// bitcoind's own configuration may hold anything: it is passed over, or refused for its port.
fn bitcoin_conf(data: &[u8]) {
    let home = tempfile::tempdir().expect("a directory");
    fs::create_dir(home.path().join(".bitcoin")).expect("a directory");
    fs::write(home.path().join(".bitcoin/bitcoin.conf"), data).expect("a file");
    read(["outriggerd"].map(OsString::from), home.path());
}

/// Words that somebody typed are a seed, or the fault tells nothing of them.
fn seed_words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Seed::of_words(text) {
        Ok(seed) => assert!(matches!(seed.words().len(), 12 | 15 | 18 | 21 | 24)),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

fn arguments(data: &[u8]) {
    let home = tempfile::tempdir().expect("a directory");
    let text = String::from_utf8_lossy(data);
    // Help and version are answers of another kind than a configuration.
    read(std::iter::once("outriggerd").chain(text.lines()).map(OsString::from), home.path());
}

fn read(arguments: impl IntoIterator<Item = OsString>, home: &std::path::Path) {
    match Config::read(arguments, home) {
        Ok(config) => assert!(config.channel.max_accepted_htlcs >= 1 && config.channel.max_accepted_htlcs <= 483),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}
