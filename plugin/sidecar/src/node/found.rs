//! What a start finds in the data directory, read and checked whole before anything is built on it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::Publication;
use redb::Database;

use super::StartFault;
use super::backups::{self, Sinks, Whose};
use super::verify::Tries;
use crate::clock::Clock;
use crate::config::{BackupConfig, Config, network_name};
use crate::fatal::is_of_redb;
use crate::key::{NodeKeys, Seed};
use crate::store::backup::sealed::Sealer;
use crate::store::backup::start::known_sinks;
use crate::store::backup::{Hub, Start};
use crate::store::row::OperationState;
use crate::store::{self, Generation, Snapshot, StoreError};
use crate::wallet::{Wallet, WalletFault};

#[cfg(test)]
mod tests;

/// The newest durable state of a node, with its keys, and the ends that keep it.
pub(super) struct Found {
    pub(super) keys: Arc<NodeKeys>,
    pub(super) db: Arc<Database>,
    pub(super) file: Snapshot,
    /// What rises with the file, unless that is old.
    pub(super) generation: Option<Generation>,
    pub(super) sinks: Option<Sinks>,
    pub(super) coins: Wallet,
    /// The number of the wallet's next row.
    pub(super) next_wallet_row: u64,
}

impl Found {
    /// Reads database, journal, generation and what the sinks are known by. Nothing that is refused is changed.
    pub(super) fn read(config: &Config, directory: &Path, seed: &Seed) -> Result<Self, StartFault> {
        let keys = Arc::new(NodeKeys::derive(seed, config.network));
        // A file that is refused is closed in there too: redb may find damage only then.
        let (network, node_id) = (network_name(config.network), keys.node_id());
        let sealer = Arc::new(Sealer::new(keys.backup_secret(), network, &node_id));
        let whose = Whose { directory, network, node_id, sealer };
        backups::check(&config.backups, &whose)?;
        let damaged = StoreError::Corrupt { path: directory.join(store::FILE), reason: "it is corrupt".to_owned() };
        // The first commit among it: redb looks at what pages are free only then.
        let read = || -> Result<_, StartFault> {
            let (db, file) = store::open_and_load(directory, network, &node_id)?;
            let age = Generation::at_start(directory, (network, &node_id), &db, file.restored.is_some())?;
            Ok((db, file, age))
        };
        let (db, mut file, age) = told_of_damage(damaged.into(), read)?;
        let generation = file.aged(age);
        let sinks = sinks(&db, &file, &config.backups, &whose)?;
        let (coins, next_wallet_row) = load_wallet(seed, config.network, &file, config.start_height.is_some())?;
        Ok(Self { keys, db, file, generation, sinks, coins, next_wallet_row })
    }

    /// Whose channels the file has.
    pub(super) fn peers_with_channels(&self) -> Vec<NodeId> {
        self.file.channels.iter().map(|loaded| loaded.channel.rows().params.peer).collect()
    }
}

/// The seed of the directory, made on the first start only: never beside a database that another seed signed for.
pub(super) fn seed(directory: &Path) -> Result<Seed, StartFault> {
    if let Some(seed) = Seed::load(directory)? {
        return Ok(seed);
    }
    if has_database(directory) {
        return Err(StartFault::SeedMissing(directory.to_owned()));
    }
    let seed = Seed::create(directory, Clock::random_bytes)?;
    tracing::info!(directory = %directory.display(), "a new seed was made: write down the words in the file seed");
    Ok(seed)
}

/// Whether a database is or was in the directory, for which a seed has signed.
pub(super) fn has_database(directory: &Path) -> bool {
    let was_here = |name: &str| fs::symlink_metadata(directory.join(name)).is_ok();
    [store::FILE, store::generation::FILE, store::journal::FILE].into_iter().any(was_here)
}

/// The sinks over what the start found. A node in restored mode makes no backups: what it has is old.
fn sinks(
    db: &Arc<Database>,
    file: &Snapshot,
    backups: &[BackupConfig],
    whose: &Whose<'_>,
) -> Result<Option<Sinks>, StoreError> {
    if file.restored.is_some() {
        return Ok(None);
    }
    let names: Vec<_> = backups.iter().map(|backup| backup.name.as_str()).collect();
    let standing = backups::standing(backups, whose, &known_sinks(db)?);
    let start = Start::of(db, file, &names, &standing)?;
    if backups.is_empty() {
        return Ok(None);
    }
    let (told, news) = backups::news();
    let (last_event, whom) = (store::last_event(db)?, (whose.network, whose.node_id));
    let openers = backups::openers(backups, whose);
    let (hub, made) = Hub::new(whom, db.clone(), (start, last_event), backups::CLOCKS, openers, told);
    let tries = Tries::new((whose.network.to_owned(), whose.node_id), db.clone(), hub.clone(), (backups, &made));
    Ok(Some(Sinks { hub, made, news, tries }))
}

/// The wallet of the file, which knows what was published and keeps the coins of what has not left; and the number of its next row.
/// `had_coins` where the operator says that its words had some before.
fn load_wallet(
    seed: &Seed,
    network: bitcoin::Network,
    file: &Snapshot,
    had_coins: bool,
) -> Result<(Wallet, u64), WalletFault> {
    let next_row = file.wallet.last().map_or(0, |(row, _)| row.saturating_add(1));
    let change_sets: Vec<_> = file.wallet.iter().map(|(_, bytes)| bytes.clone()).collect();
    // Words that were there before the database may have been used: nobody knows how many addresses were given out.
    let is_wide = had_coins || (change_sets.is_empty() && !seed.is_new());
    let load = if is_wide { Wallet::load_wide } else { Wallet::load };
    let mut wallet = load(seed, network, &change_sets)?;
    let unsent: HashSet<_> = file.openings.iter().filter_map(|opening| waiting_channel(&opening.state)).collect();
    for row in &file.broadcasts {
        if row.what == Publication::Funding && unsent.contains(&row.channel) {
            // Counted as published it would be stored as such, and outlive its channel, should a backup refuse that.
            wallet.keep_coins_of(&row.tx);
        } else {
            // What a block holds stays confirmed.
            wallet.saw_unconfirmed(&row.tx);
        }
    }
    for (_, _, row) in &file.sweeps {
        wallet.saw_unconfirmed(&row.tx);
    }
    Ok((wallet, next_row))
}

/// The channel of an opening that is under way, whose funding transaction waits for backups.
fn waiting_channel(state: &OperationState) -> Option<ChannelId> {
    match state {
        OperationState::Pending { channel_id, .. } => Some(*channel_id),
        OperationState::Opening
        | OperationState::Failed { .. }
        | OperationState::Interrupted
        | OperationState::Payment { .. }
        | OperationState::Invoice { .. }
        | OperationState::Sent { .. }
        | OperationState::Address { .. } => None,
    }
}

/// redb takes some pages at their word and panics where they are damaged or missing: the operator is told then what is told of
/// any damage (bad input 91), and the start is refused in the same way. Nothing of it has reached the file.
pub(super) fn told_of_damage<R>(refused: StartFault, read: impl FnOnce() -> R) -> R {
    let usual = Arc::new(std::panic::take_hook());
    let inner = usual.clone();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_of_redb(panic) {
            return inner(panic);
        }
        crate::log::last_words(format!("outriggerd: {refused}"));
        std::process::exit(refused.exit_code().into());
    }));
    let read = read();
    std::panic::set_hook(Box::new(move |panic| usual(panic)));
    read
}
