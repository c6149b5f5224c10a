//! The node: builds the parts in order, and owns shutdown.

mod answers;
mod backend;
mod backups;
mod chain_side;
pub mod core;
mod forwards;
mod lock;
pub mod restore;
mod settings;
mod workers;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use outrigger_bolt::id::NodeId;
use outrigger_rpc_schema::{NodeStatusReport, Phase};
use redb::Database;
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::core::{Core, Duties, Ground};
use crate::chain::ChainSource;
use crate::chain::broadcast::Broadcaster;
use crate::chain::feerate::FeeEstimator;
use crate::chain::follow::{BlockListener, ChainState, Follower};
use crate::chain::rpc::Bitcoind;
use crate::chain::stop::StopFlag;
use crate::clock::{Clock, NoEntropy};
use crate::config::{BackupConfig, Config, network_name};
use crate::key::{NodeKeys, Seed, SeedFault};
use crate::manager::Manager;
use crate::manager::env::{ChainView, soft_signers};
use crate::manager::operations::Operations;
use crate::net::{Dialer, Network};
use crate::rpc::{self, Doors, Server, ServerFault};
use crate::store::backup::sealed::Sealer;
use crate::store::backup::start::known_sinks;
use crate::store::backup::{Hub, Start};
use crate::store::{self, Generation, Snapshot, StoreError};
use crate::sweep::{Sweeper, Tools};
use crate::wallet::{Wallet, WalletFault};
use backend::{Doorkeeper, Identity};
use backups::{Sinks, Whose};
use chain_side::{Listener, StoredWallet, carry_out, feerates, follow_estimates};
use lock::lock_directory;
use settings::{access, caps, forwarding_policy, policy};

/// The exit code of a process whose disk refused a write (PER-5, DSK-1): a supervisor may restart it, an operator must look.
pub const STORAGE_EXIT_CODE: u8 = 3;

/// The exit code of a process of which a required backup refused two channels for good: it is to be replaced first.
pub const BACKUP_EXIT_CODE: u8 = 5;

/// How often what has its time is looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// What the process ends with after a fault of its own (CST-12): a supervisor that starts it again at once would fail one
/// channel more each time.
pub const FAULT_EXIT_CODE: u8 = 4;

/// Why there is no node, or no more.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    #[error("{}: {reason}", path.display())]
    Directory { path: PathBuf, reason: String },
    #[error("another outriggerd{pid} runs on {}: stop it first; two would lose money", path.display())]
    Running { path: PathBuf, pid: String },
    #[error("{0}")]
    Seed(#[from] SeedFault),
    #[error("there is or was a database in {} but no seed: put the seed file back; a new one could not sign for it", .0.display())]
    SeedMissing(PathBuf),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("the backup {name} cannot be used: {reason}")]
    Backup { name: String, reason: String },
    #[error("{0}")]
    Wallet(#[from] WalletFault),
    #[error("{0}")]
    Rpc(#[from] ServerFault),
    #[error(
        "a fault of this node, which would have failed other channels too: {0}. Report it before you start it again"
    )]
    Fault(Arc<str>),
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl StartFault {
    /// What the process ends with: [`STORAGE_EXIT_CODE`] where a disk refused, [`FAULT_EXIT_CODE`] for a fault of our own, 1
    /// otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Directory { .. } | Self::Store(StoreError::Io(_)) | Self::Seed(SeedFault::Io { .. }) => {
                STORAGE_EXIT_CODE
            }
            Self::Fault(_) => FAULT_EXIT_CODE,
            Self::Store(
                StoreError::Corrupt { .. }
                | StoreError::Newer { .. }
                | StoreError::Foreign { .. }
                | StoreError::Companion { .. }
                | StoreError::Missing { .. }
                | StoreError::OnlyJournal { .. }
                | StoreError::NoJournal { .. }
                | StoreError::Apart { .. }
                | StoreError::DeadLink(_),
            )
            | Self::Running { .. }
            | Self::Backup { .. }
            | Self::Seed(_)
            | Self::SeedMissing(_)
            | Self::Wallet(_)
            | Self::Rpc(_)
            | Self::NoEntropy(_)
            | Self::Io(_) => 1,
        }
    }
}

/// A running node. The process ends when [`run`](Self::run) returns.
pub struct Node {
    doors: Arc<Doors<Doorkeeper>>,
    server: Server,
    network: Network,
    parts: Parts,
    listen: std::net::SocketAddr,
    /// Held for as long as the process lives.
    _lock: File,
}

/// What the threads share.
struct Parts {
    manager: Arc<Manager>,
    stop: StopFlag,
    chain: watch::Receiver<Option<ChainState>>,
    dialer: Dialer,
    redial: Vec<(NodeId, String)>,
    follower: JoinHandle<()>,
    sinks: Option<Arc<Hub>>,
    wallet: Arc<StoredWallet>,
}

/// The longest wait for the last commit.
const LAST_COMMIT: Duration = Duration::from_secs(5);

impl Node {
    /// Builds everything. The interface answers `node.status` from its first lines on; peers are met only in
    /// [`run`](Self::run), once the chain is seen.
    pub async fn start(config: &Config) -> Result<Self, StartFault> {
        let directory = config.network_dir();
        let lock = lock_directory(&directory)?;
        let doors = Doors::new(network_name(config.network));
        let secret = Zeroizing::new(Clock::random_bytes()?);
        let server = rpc::start(config.rpc_address, &directory, &secret, doors.clone()).await?;
        let seed = seed(&directory)?;
        let parts = tokio::task::block_in_place(|| build(config, &directory, &seed, &doors))?;
        let (parts, network) = parts;
        Ok(Self { doors, server, network, parts, listen: config.listen, _lock: lock })
    }

    /// Runs until somebody asks it to stop.
    pub async fn run(self) -> Result<(), StartFault> {
        let Self { doors, server, network, mut parts, listen, _lock } = self;
        let manager = parts.manager.clone();
        let outcome = tokio::select! {
            outcome = live(&doors, &network, &mut parts, listen) => outcome,
            fault = manager.env().faulty() => Err(StartFault::Fault(fault)),
            () = doors.stop_requested() => Ok(()),
        };
        doors.request_stop();
        tracing::info!("stopping");
        network.stop().await;
        parts.stop.raise();
        let sinks = parts.sinks.take();
        // The follower is asked to stop and looks at the flag between two calls.
        let _ = tokio::task::spawn_blocking(move || parts.follower.join()).await;
        // What nobody waited for is written too. A writer that has stopped for a fault answers nobody.
        let _ = tokio::time::timeout(LAST_COMMIT, manager.env().writer.conclude()).await;
        if let Some(sinks) = sinks {
            backups::drain(&sinks).await;
        }
        server.stop().await;
        outcome
    }

    /// The doors, through which the process can be asked to stop.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let doors = self.doors.clone();
        move || doors.request_stop()
    }
}

/// Waits for the chain, then meets peers, and keeps the status up to date until the process stops.
async fn live(
    doors: &Doors<Doorkeeper>,
    network: &Network,
    parts: &mut Parts,
    listen: std::net::SocketAddr,
) -> Result<(), StartFault> {
    let mut has_met_peers = false;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    let mut restored = parts.manager.env().restored();
    loop {
        let state = parts.chain.borrow_and_update().clone();
        let synced = matches!(state, Some(ChainState::Synced { .. }));
        if synced && !has_met_peers {
            if let (Some(sinks), Some(ChainState::Synced { height, hash })) = (&parts.sinks, &state) {
                backups::hear(&parts.manager, sinks).await;
                tokio::task::block_in_place(|| {
                    backups::tell_tip(&parts.manager, sinks, parts.wallet.recorded((*height, *hash)));
                });
            }
            // No peer is connected before the monitors have reached bitcoind's tip.
            parts.manager.resume();
            let address = network.listen(listen).await?;
            tracing::info!(%address, "waiting for peers");
            for (peer, address) in parts.redial.drain(..) {
                parts.dialer.keep(peer, address);
            }
            has_met_peers = true;
        }
        let proof = restored.borrow_and_update().clone();
        if let (Some(sinks), Some(_)) = (&parts.sinks, &proof) {
            // What is on disk is old: no backup is to be made of it.
            tokio::task::block_in_place(|| sinks.give_up());
        }
        doors.report(|status| report(status, state.as_ref(), proof.as_deref()));
        let changed = tokio::select! {
            changed = parts.chain.changed() => changed,
            changed = restored.changed() => changed,
            _ = housekeeping.tick() => {
                tokio::task::block_in_place(|| parts.manager.expire_openings(Clock::monotonic()));
                Ok(())
            }
        };
        if changed.is_err() {
            return Ok(());
        }
    }
}

/// The status that a state of the chain means, under restored mode where there is proof for it.
fn report(status: &mut NodeStatusReport, state: Option<&ChainState>, proof: Option<&str>) {
    let (phase, reason, height, target) = match state {
        None => (Phase::WaitingForBitcoind, None, None, None),
        Some(ChainState::WaitingForBitcoind { reason }) => {
            (Phase::WaitingForBitcoind, Some(reason.clone()), None, None)
        }
        Some(ChainState::Syncing { height, target }) => (Phase::Syncing, None, Some(*height), Some(*target)),
        Some(ChainState::Synced { height, .. }) => (Phase::Ready, None, Some(*height), None),
        Some(ChainState::Blind { reason }) => (Phase::Syncing, Some(reason.clone()), None, None),
    };
    (status.phase, status.reason) = match (phase, proof) {
        (Phase::Ready, Some(proof)) => (Phase::Restored, Some(restored_text(proof))),
        (_, Some(proof)) => {
            let waits = reason.map(|reason| format!("{reason}; ")).unwrap_or_default();
            (phase, Some(format!("{waits}{}", restored_text(proof))))
        }
        (_, None) => (phase, reason),
    };
    // What was taken in stays so while bitcoind is away.
    status.block_height = height.or(status.block_height);
    status.target_height = target;
}

/// What happened, what is safe, and what to do.
fn restored_text(proof: &str) -> String {
    format!(
        "restored mode: the database is older than what peers were told ({proof}). Nothing is signed or published any more, \
         so nothing is lost by running. Leave the node running and connected: its peers are asked to close, and what is \
         yours comes to the wallet. If the newest database still exists, stop the node and put that one back instead; \
         start no other copy"
    )
}

/// The seed of the directory, made on the first start only: never beside a database that another seed signed for.
fn seed(directory: &Path) -> Result<Seed, StartFault> {
    if let Some(seed) = Seed::load(directory)? {
        return Ok(seed);
    }
    let was_here = |name: &str| fs::symlink_metadata(directory.join(name)).is_ok();
    if [store::FILE, store::generation::FILE, store::journal::FILE].into_iter().any(was_here) {
        return Err(StartFault::SeedMissing(directory.to_owned()));
    }
    Ok(Seed::create(directory, Clock::random_bytes)?)
}

fn build(
    config: &Config,
    directory: &Path,
    seed: &Seed,
    doors: &Arc<Doors<Doorkeeper>>,
) -> Result<(Parts, Network), StartFault> {
    let keys = Arc::new(NodeKeys::derive(seed, config.network));
    // A file that is refused is closed in there too: redb may find damage only then.
    let (network_name, node_id) = (network_name(config.network), keys.node_id());
    let sealer = Arc::new(Sealer::new(keys.backup_secret(), network_name, &node_id));
    let whose = Whose { directory, network: network_name, node_id, sealer };
    backups::check(&config.backups, &whose)?;
    let read = || store::open_and_load(directory, network_name, &node_id);
    let (db, mut file) = told_of_damage(directory, read)?;
    let age = Generation::at_start(directory, (network_name, &node_id), &db, file.restored.is_some())?;
    let generation = file.aged(age);
    let sinks = sinks(&db, &file, &config.backups, &whose)?;
    let hub = sinks.as_ref().map(|sinks| sinks.hub.clone());
    let published = file.broadcasts.iter().map(|row| &row.tx).chain(file.sweeps.iter().map(|(_, _, row)| &row.tx));
    let (coins, next_wallet_row) = load_wallet(seed, config.network, &file.wallet, published)?;
    let height = coins.tip().map_or(0, |(height, _)| height);

    let stop = StopFlag::new();
    let source: Arc<dyn ChainSource> = Arc::new(Bitcoind::new(access(config), stop.clone()));
    let estimator = Arc::new(FeeEstimator::new(source.clone(), config.network, config.max_feerate));
    let broadcaster = Arc::new(Broadcaster::start(source.clone())?);

    let with_channels: Vec<_> = file.channels.iter().map(|loaded| loaded.channel.rows().params.peer).collect();
    let ground = Ground {
        view: ChainView::new(height, feerates(&estimator.current()).0),
        policy: policy(config),
        pending_per_peer: config.channel.max_pending_per_peer,
        forwarding: (forwarding_policy(config), caps(config)),
        payments: crate::payment::Terms {
            network: config.network,
            final_cltv_blocks: config.final_cltv_blocks,
            accept_keysend: config.accept_keysend,
        },
        signers: soft_signers(keys.clone()),
        keys: keys.clone(),
        sinks: hub.clone(),
    };
    let (Core { manager, payments, reader, events }, duties) = core::build(db, &mut file, ground)?;
    let Duties { commits, mailboxes, notices, orders } = duties;
    let (delivery, workers) = (manager.deliver().clone(), manager.deliver().clone());
    let commits = commits.asking(move || workers.is_busy(), || Some(Clock::monotonic()));
    let commits = commits.raising(generation).journaled(file.journal.take());
    match sinks {
        Some(Sinks { hub, made, news }) => {
            let _threads = hub.run(made, move |released, seq| delivery.deliver(released, seq))?;
            let status = doors.clone();
            let tell = move |words| status.report(|status| status.backups = words);
            backups::watch(hub.clone(), news, manager.clone(), (stop.clone(), tell))?;
            commits.on_a_thread(move |released, seq| hub.release(released, seq), stop_for_storage)?;
        }
        None => drop(commits.on_a_thread(move |released, seq| delivery.deliver(released, seq), stop_for_storage)?),
    }
    let wallet = Arc::new(StoredWallet::new(coins, next_wallet_row, manager.clone()));
    for row in file.broadcasts.into_iter().filter(|row| manager.publishes_at_start(row, hub.is_some())) {
        broadcaster.publish(row.tx);
    }
    let tools =
        Tools { source: source.clone(), estimator: estimator.clone(), purse: wallet.clone(), keys: keys.clone() };
    let sweeper = Arc::new(Sweeper::start(tools, file.sweeps)?);

    let (state, chain) = watch::channel(None);
    let network = Network::new(*keys.node_secret(), manager.clone());
    let dialer = network.dialer();
    doors.open(Arc::new(Doorkeeper {
        manager: manager.clone(),
        payments: payments.clone(),
        wallet: wallet.clone(),
        reader,
        dialer: dialer.clone(),
        operations: Operations::default(),
        keyed_calls: tokio::sync::Mutex::default(),
        chain: chain.clone(),
        events,
        sinks: hub.clone(),
        identity: identity(config),
    }));

    workers::spawn_workers(&manager, &mailboxes)?;
    spawn("payments", move || payments.work(&notices))?;
    let (carrier, publisher, funder) = (manager.clone(), broadcaster.clone(), wallet.clone());
    let enforcer = sweeper.clone();
    spawn("wallet", move || carry_out(&orders, &funder, &publisher, &enforcer, &carrier))?;
    let (estimates, told, estimates_stop) = (estimator.clone(), manager.clone(), stop.clone());
    spawn("feerates", move || follow_estimates(&estimates, &told, &estimates_stop))?;
    let listener: Arc<dyn BlockListener> = Arc::new(Listener {
        manager: manager.clone(),
        wallet: wallet.clone(),
        broadcaster,
        estimator,
        state,
        sweeper,
        reorganised: AtomicBool::new(false),
        sinks: hub.clone(),
        accept_needs_reserve: config.channel.accept_needs_reserve,
    });
    let (follower_stop, followed) = (stop.clone(), config.network);
    let follower = spawn("chain", move || Follower::run(source, listener, followed, &follower_stop))?;

    let redial = file.peer_addresses.into_iter().filter(|(peer, _)| with_channels.contains(peer)).collect();
    Ok((Parts { manager, stop, chain, dialer, redial, follower, sinks: hub, wallet }, network))
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
    Ok(Some(Sinks { hub, made, news }))
}

/// The wallet of these rows, which knows what was published, and the number of its next row.
fn load_wallet<'a>(
    seed: &Seed,
    network: bitcoin::Network,
    rows: &[(u64, Vec<u8>)],
    published: impl Iterator<Item = &'a bitcoin::Transaction>,
) -> Result<(Wallet, u64), WalletFault> {
    let next_row = rows.last().map_or(0, |(row, _)| row.saturating_add(1));
    let change_sets: Vec<_> = rows.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut wallet = Wallet::load(seed, network, &change_sets)?;
    for tx in published {
        // What a block holds stays confirmed.
        wallet.saw_unconfirmed(tx);
    }
    Ok((wallet, next_row))
}

/// redb takes some pages at their word and panics where they are damaged or missing: the operator is told then what is told of
/// any damage (bad input 91), and the start is refused in the same way. Nothing of it has reached the file.
fn told_of_damage<R>(directory: &Path, read: impl FnOnce() -> R) -> R {
    let usual = Arc::new(std::panic::take_hook());
    let (path, inner) = (directory.join(store::FILE), usual.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(std::panic::Location::file).unwrap_or_default();
        // Our own places are told from the root of this workspace on.
        if !place.contains("redb") {
            return inner(panic);
        }
        let refused = StartFault::from(StoreError::Corrupt { path: path.clone(), reason: "it is corrupt".to_owned() });
        eprintln!("outriggerd: {refused}");
        std::process::exit(refused.exit_code().into());
    }));
    let read = read();
    std::panic::set_hook(Box::new(move |panic| usual(panic)));
    read
}

fn identity(config: &Config) -> Identity {
    Identity {
        alias: config.alias.clone(),
        network: network_name(config.network),
        addresses: vec![config.listen.to_string()],
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Nothing had been sent that is not on disk, so stopping is safe, and going on is not.
fn stop_for_storage(fault: StoreError) {
    tracing::error!(%fault, "the store failed: the node stops");
    std::process::exit(STORAGE_EXIT_CODE.into());
}
