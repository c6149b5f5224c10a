//! `outriggerd init`: the data directory gets a seed, new or from words that were written down before.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use zeroize::Zeroizing;

use super::StartFault;
use super::found::told_of_damage;
use super::lock::lock_directory;
use crate::clock::Clock;
use crate::config::{Config, InitOrder, network_name};
use crate::key::{NodeKeys, Seed, SeedFault, WordsFault};
use crate::store::{self, StoreError};

/// Why there is no new seed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum NotInitialised {
    /// The directory cannot be used, or belongs to a process that runs.
    #[error("{0}")]
    Start(#[from] StartFault),
    /// The seed's file.
    #[error("{0}. Nothing was changed")]
    Seed(#[from] SeedFault),
    /// There is a seed.
    #[error(
        "there is a seed already: {}. It is not overwritten, and nothing was changed: its words are in that file. For another node \
         choose another --data-dir", .0.display()
    )]
    Exists(PathBuf),
    /// There is a database, which another seed signed for.
    #[error(
        "there is or was a database in {}: a new seed could not sign for its channels. Nothing was changed. Put the seed's file \
         back, or type its words with --import; for another node choose another --data-dir", .0.display()
    )]
    HasDatabase(PathBuf),
    /// The words are no seed.
    #[error("{0}. Nothing was written")]
    Words(#[from] WordsFault),
    /// The words belong to another node than the database.
    #[error("these words are of another node than the database that is there: {0}. Nothing was written")]
    OtherNode(StoreError),
    /// The standard input ended or cannot be read.
    #[error("the words cannot be read: {0}. Nothing was written")]
    Input(#[from] io::Error),
}

/// Writes a seed and gives what is shown of it. `typed` reads words, where some are to be imported.
pub fn init(
    config: &Config,
    order: InitOrder,
    typed: impl FnOnce() -> io::Result<Zeroizing<String>>,
) -> Result<Zeroizing<String>, NotInitialised> {
    let directory = config.network_dir();
    let _lock = lock_directory(&directory)?;
    if Seed::is_there(&directory)? {
        return Err(NotInitialised::Exists(directory.join("seed")));
    }
    if !order.import {
        if super::found::has_database(&directory) {
            return Err(NotInitialised::HasDatabase(directory));
        }
        let seed = Seed::create(&directory, Clock::random_bytes)?;
        return Ok(shown(&seed, config, &directory, order));
    }
    let seed = Seed::of_words(&typed()?)?;
    check_owner(config, &directory, &seed)?;
    seed.keep(&directory)?;
    Ok(shown(&seed, config, &directory, order))
}

/// KEY-3: words are kept beside a database only where they signed for it.
fn check_owner(config: &Config, directory: &Path, seed: &Seed) -> Result<(), NotInitialised> {
    let (network, node_id) = (network_name(config.network), NodeKeys::derive(seed, config.network).node_id());
    store::generation::check(directory, network, &node_id).map_err(NotInitialised::OtherNode)?;
    if !directory.join(store::FILE).exists() {
        return Ok(());
    }
    let damaged = StoreError::Corrupt { path: directory.join(store::FILE), reason: "it is corrupt".to_owned() };
    let looked = told_of_damage(damaged.into(), || store::open_to_look(directory, network, &node_id));
    match looked {
        Ok(_) => Ok(()),
        Err(fault @ StoreError::Foreign { .. }) => Err(NotInitialised::OtherNode(fault)),
        Err(fault) => Err(StartFault::Store(fault).into()),
    }
}

/// What the operator sees: the words only where they are new.
fn shown(seed: &Seed, config: &Config, directory: &Path, order: InitOrder) -> Zeroizing<String> {
    let (network, file) = (network_name(config.network), directory.join("seed"));
    let (file, node_id) = (file.display(), NodeKeys::derive(seed, config.network).node_id());
    if order.json {
        let words = if order.import { json!(null) } else { json!(seed.words()) };
        let mut object = json!({ "network": network, "node_id": node_id.to_string(), "seed_file": file.to_string() });
        if !words.is_null() {
            object["words"] = words;
        }
        return Zeroizing::new(object.to_string());
    }
    if order.import {
        return Zeroizing::new(format!(
            "the words are in {file}, readable by you alone. The node on {network} is {node_id}.\n\
             Start it with --wallet-start-height HEIGHT, a block before the first coins of these words: without it the wallet \
             looks from bitcoind's newest block on. A later start may give it too, or a lower one.\n\
             Where these words had channels: never run them twice, and see \"When the disk dies\" in README.md first."
        ));
    }
    let words = seed.words();
    let mut text = Zeroizing::new(String::with_capacity(2048));
    text.push_str("Write these words down, in this order, and keep the paper where nobody else finds it:\n\n");
    for (index, word) in words.iter().enumerate() {
        let number = index.saturating_add(1);
        text.push_str(&format!("{number:>4} {word:<10}{}", if number % 4 == 0 { "\n" } else { "" }));
    }
    text.push_str(&format!(
        "\nWhoever has them has the coins. They restore the coins on chain; what is in channels needs a backup too (README.md).\n\
         They are in {file}, readable by you alone. The node on {network} is {node_id}."
    ));
    text
}
