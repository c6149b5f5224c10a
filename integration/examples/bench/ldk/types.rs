//! The parts that an LDK node of the benchmark is put together from, by name.

use std::sync::{Arc, RwLock};

use lightning::bitcoin::{ScriptBuf, Transaction};
use lightning::chain::Filter;
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::ChainMonitor;
use lightning::ln::channelmanager::ChannelManager;
use lightning::ln::peer_handler::{IgnoringMessageHandler, PeerManager};
use lightning::onion_message::messenger::DefaultMessageRouter;
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{ChangeDestinationSourceSync, InMemorySigner, KeysManager};
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::persist::MonitorUpdatingPersister;
use lightning_net_tokio::SocketDescriptor;
use lightning_persister::fs_store::FilesystemStore;

/// Says what LDK warns of, and keeps the rest to itself.
pub(super) struct Quiet;

impl Logger for Quiet {
    fn log(&self, record: Record<'_>) {
        if matches!(record.level, Level::Error | Level::Warn) && std::env::var_os("OUTRIGGER_BENCH_LOG").is_some() {
            eprintln!("LDK {} {}:{} {}", record.level, record.module_path, record.line, record.args);
        }
    }
}

/// Publishes nothing: the driver puts funding transactions into blocks itself.
pub(super) struct Mute;

impl BroadcasterInterface for Mute {
    fn broadcast_transactions(&self, _transactions: &[&Transaction]) {}
}

/// The feerate that Outrigger finds on a regtest chain.
pub(super) struct Flat;

impl FeeEstimator for Flat {
    fn get_est_sat_per_1000_weight(&self, _target: ConfirmationTarget) -> u32 {
        1000
    }
}

/// Nothing is swept in a benchmark.
pub(super) struct NoChange;

impl ChangeDestinationSourceSync for NoChange {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        Err(())
    }
}

pub(super) type Graph = NetworkGraph<Arc<Quiet>>;
pub(super) type Scorer = ProbabilisticScorer<Arc<Graph>, Arc<Quiet>>;
pub(super) type Router = DefaultRouter<
    Arc<Graph>,
    Arc<Quiet>,
    Arc<KeysManager>,
    Arc<RwLock<Scorer>>,
    ProbabilisticScoringFeeParameters,
    Scorer,
>;
pub(super) type Messages = DefaultMessageRouter<Arc<Graph>, Arc<Quiet>, Arc<KeysManager>>;
pub(super) type Lookup = dyn UtxoLookup + Send + Sync;
pub(super) type Gossip = P2PGossipSync<Arc<Graph>, Arc<Lookup>, Arc<Quiet>>;
pub(super) type Persister = MonitorUpdatingPersister<
    Arc<FilesystemStore>,
    Arc<Quiet>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Mute>,
    Arc<Flat>,
>;
pub(super) type Watcher = dyn Filter + Send + Sync;
pub(super) type Monitors =
    ChainMonitor<InMemorySigner, Arc<Watcher>, Arc<Mute>, Arc<Flat>, Arc<Quiet>, Arc<Persister>, Arc<KeysManager>>;
pub(super) type Channels = ChannelManager<
    Arc<Monitors>,
    Arc<Mute>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Flat>,
    Arc<Router>,
    Arc<Messages>,
    Arc<Quiet>,
>;
pub(super) type Peers = PeerManager<
    SocketDescriptor,
    Arc<Channels>,
    Arc<Gossip>,
    IgnoringMessageHandler,
    Arc<Quiet>,
    IgnoringMessageHandler,
    Arc<KeysManager>,
    IgnoringMessageHandler,
>;
