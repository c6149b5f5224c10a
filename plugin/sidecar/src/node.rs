//! The node: builds the parts in order, and owns shutdown.

mod answers;
mod backend;
mod backups;
mod build;
mod chain_side;
mod coins;
pub mod core;
mod exposition;
mod forwards;
mod found;
mod heart;
pub mod init;
mod keyed;
mod lock;
mod lookout;
mod metrics;
mod older;
mod openings;
pub mod restore;
mod settings;
mod tokens;
mod troubles;
mod verify;
mod waits;
mod workers;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use outrigger_bolt::id::NodeId;
use outrigger_rpc_schema::{NodeStatusReport, Phase};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::chain::follow::ChainState;
use crate::chain::stop::StopFlag;
use crate::clock::{Clock, NoEntropy};
use crate::config::{Config, network_name};
use crate::key::SeedFault;
use crate::log::Levels;
use crate::manager::Manager;
use crate::net::{Dialer, Network};
use crate::rpc::{self, Doors, Server, ServerFault};
use crate::store::StoreError;
use crate::store::backup::Hub;
use crate::store::room::Room;
use crate::supervisor::Supervisor;
use crate::wallet::WalletFault;
use backend::Doorkeeper;
use build::build;
use chain_side::StoredWallet;
use found::Found;
use lock::lock_making_room;
use settings::place;

pub use settings::tls_files;

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
    #[error(
        "the data directory {} cannot be used: {reason}. Nothing was changed. See that it is there, ours and on a disk that can be \
         written, or choose another with --data-dir", path.display()
    )]
    Directory { path: PathBuf, reason: String },
    #[error(
        "cannot listen for peers on {address}: {reason}. Nothing is lost. Where another program has the port, stop it or choose \
         another with listen (--listen)"
    )]
    Listen { address: SocketAddr, reason: io::Error },
    #[error(
        "others on this machine may read {}, which holds the secrets that claim payments, and that cannot be changed: {reason}. \
         Nothing was changed. As its owner run: chmod 700 {}", path.display(), path.display()
    )]
    TooOpen { path: PathBuf, reason: io::Error },
    #[error("stopped before the database was open; nothing was changed")]
    Stopped,
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
            Self::Stopped => 0,
            Self::Store(
                StoreError::Corrupt { .. }
                | StoreError::Newer { .. }
                | StoreError::Foreign { .. }
                | StoreError::Companion { .. }
                | StoreError::Missing { .. }
                | StoreError::OnlyJournal { .. }
                | StoreError::NoJournal { .. }
                | StoreError::Apart { .. }
                | StoreError::DeadLink(_)
                | StoreError::InUse(_),
            )
            | Self::Running { .. }
            | Self::TooOpen { .. }
            | Self::Listen { .. }
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
    listen: SocketAddr,
    supervisor: Option<Arc<Supervisor>>,
    room: Room,
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
        Self::start_within(config, None, None).await
    }

    /// The same, with what changes the levels of the log, and who is told how the node does.
    pub async fn start_within(
        config: &Config,
        levels: Option<Levels>,
        supervisor: Option<Arc<Supervisor>>,
    ) -> Result<Self, StartFault> {
        let directory = config.network_dir();
        let mut room = Room::of(&directory, config.disk_reserve);
        let lock = lock_making_room(&directory, || room.at_start())?;
        let doors = Doors::new(network_name(config.network));
        let secret = Zeroizing::new(Clock::random_bytes()?);
        doors.set_config(config.report.clone());
        if let Some(levels) = levels {
            doors.set_levels(levels);
        }
        if let Some(supervisor) = supervisor.clone() {
            let statuses = doors.statuses();
            tokio::spawn(async move { heart::tell_status(&supervisor, statuses).await });
        }
        let mut server = rpc::start(place(&config.rpc), &directory, &secret, doors.clone()).await?;
        if config.stdio {
            server.serve_parent(doors.clone(), (std::io::stdin(), std::io::stdout()));
        }
        doors.report(|status| status.reason = Some("the database is being opened and checked".to_owned()));
        let (owned, behind) = (config.clone(), doors.clone());
        // The lock goes with the thread: it is held for as long as that may write, also where nobody waits for it any more.
        let opening = tokio::task::spawn_blocking(move || {
            let seed = found::seed(&directory)?;
            let (parts, network) = build(&owned, (Found::read(&owned, &directory, &seed)?, room), &behind)?;
            Ok((parts, network, lock))
        });
        let opened: Result<_, StartFault> = tokio::select! {
            opened = opening => opened.unwrap_or_else(|ended| match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StartFault::Stopped),
            }),
            () = doors.stop_requested() => {
                if let Some(supervisor) = supervisor {
                    supervisor.stopping();
                }
                server.stop().await;
                return Err(StartFault::Stopped);
            }
        };
        let (parts, network, lock) = opened?;
        let room = Room::of(&config.network_dir(), config.disk_reserve);
        Ok(Self { doors, server, network, parts, listen: config.listen, supervisor, room, _lock: lock })
    }

    /// Runs until somebody asks it to stop.
    pub async fn run(self) -> Result<(), StartFault> {
        let Self { doors, server, network, mut parts, listen, supervisor, room, _lock } = self;
        let manager = parts.manager.clone();
        if let Some(supervisor) = supervisor.clone() {
            supervisor.ready();
            let (statuses, manager) = (doors.statuses(), manager.clone());
            tokio::spawn(
                async move { heart::beat(&supervisor, statuses, || heart::come_through(manager.clone())).await },
            );
        }
        let outcome = tokio::select! {
            outcome = live(&doors, &network, &mut parts, listen) => outcome,
            fault = manager.env().faulty() => Err(StartFault::Fault(fault)),
            () = doors.stop_requested() => Ok(()),
        };
        doors.request_stop();
        if let Some(supervisor) = supervisor {
            supervisor.stopping();
        }
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
        if let Err(fault) = room.at_end() {
            tracing::warn!(%fault, "the ballast cannot be taken from the full disk of the data directory");
        }
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
    listen: SocketAddr,
) -> Result<(), StartFault> {
    let mut has_met_peers = false;
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    let mut restored = parts.manager.env().restored();
    doors.report(|status| status.block_height = parts.wallet.tip().map(|(height, _)| height));
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
            let bound = network.listen(listen).await;
            let address = bound.map_err(|reason| StartFault::Listen { address: listen, reason })?;
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
         yours comes to the wallet. If the newest database still exists, stop the node and put that one back instead, with \
         the outrigger.journal that stood beside it (and generation, where it comes from another directory); start no \
         other copy"
    )
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Nothing had been sent that is not on disk, so stopping is safe, and going on is not.
fn stop_for_storage(fault: StoreError) {
    tracing::error!(%fault, "the store failed: the node stops");
    crate::log::flush();
    std::process::exit(STORAGE_EXIT_CODE.into());
}
