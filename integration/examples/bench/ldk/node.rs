//! One LDK node in a process of its own: all of LDK that an application runs, its strongest documented persistence, and
//! the events of an application that only accepts channels and claims payments.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use lightning::bitcoin::hashes::Hash;
use lightning::bitcoin::secp256k1::PublicKey;
use lightning::bitcoin::{BlockHash, Network, ScriptBuf};
use lightning::chain::BestBlock;
use lightning::events::{Event, PaymentPurpose};
use lightning::io::Cursor;
use lightning::ln::channelmanager::{ChainParameters, ChannelManager, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler, PeerManager};
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::DefaultMessageRouter;
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::types::payment::PaymentHash;
use lightning::util::config::{MaxDustHTLCExposure, UserConfig};
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync, MonitorUpdatingPersister,
};
use lightning::util::ser::ReadableArgs;
use lightning_persister::fs_store::FilesystemStore;

use super::types::{Channels, Flat, Gossip, Graph, Lookup, Monitors, Mute, Peers, Persister, Quiet, Router, Watcher};
use outrigger_integration::Done;

/// Where the chain begins that the driver makes. Near height 1, ids of channels that LDK invents meet real ones.
pub(super) const FIRST_HEIGHT: u32 = 800_000;

/// Updates of a monitor before it is written whole: what LDK Node takes.
const UPDATES_BEFORE_WHOLE: u64 = 100;

/// What the node tells whoever drives it.
pub(super) enum News {
    /// A channel wants its funding transaction.
    Funding { temporary: ChannelId, peer: PublicKey, sat: u64, script: ScriptBuf },
    /// The sender has the preimage.
    Sent(PaymentHash),
    /// The HTLC has left both commitments.
    Gone,
    /// What must not happen in a benchmark.
    Failed(String),
}

/// A node's parts.
pub(super) struct Node {
    pub(super) id: PublicKey,
    pub(super) monitors: Arc<Monitors>,
    pub(super) channels: Arc<Channels>,
    pub(super) peers: Arc<Peers>,
    pub(super) gossip: Arc<Gossip>,
    pub(super) store: Arc<FilesystemStore>,
    pub(super) news: Mutex<Receiver<News>>,
    pub(super) application: Application,
}

impl Node {
    /// A node with keys of this number and its files in `directory`. A store that holds a node already is read.
    pub(super) fn new(directory: &Path, number: u8) -> Done<Self> {
        let log = Arc::new(Quiet);
        let (mute, flat) = (Arc::new(Mute), Arc::new(Flat));
        let keys = Arc::new(KeysManager::new(&[number; 32], 1_700_000_000, u32::from(number), true));
        let graph = Arc::new(NetworkGraph::new(Network::Regtest, log.clone()));
        let store = Arc::new(FilesystemStore::new(directory.to_owned()));
        let persister: Arc<Persister> = Arc::new(MonitorUpdatingPersister::new(
            store.clone(),
            log.clone(),
            UPDATES_BEFORE_WHOLE,
            keys.clone(),
            keys.clone(),
            mute.clone(),
            flat.clone(),
        ));
        let persisted = persister.clone();
        let monitors = Arc::new(Monitors::new(
            None::<Arc<Watcher>>,
            mute.clone(),
            log.clone(),
            flat.clone(),
            persister,
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        let channels = Arc::new(
            match KVStoreSync::read(
                &*store,
                CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
                CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
                CHANNEL_MANAGER_PERSISTENCE_KEY,
            ) {
                Ok(written) => read(&written, &graph, &keys, &monitors, &persisted)?,
                Err(_) => channels(&graph, &keys, &monitors),
            },
        );
        let gossip = Arc::new(P2PGossipSync::new(graph, None::<Arc<Lookup>>, log.clone()));
        let handler = MessageHandler {
            chan_handler: channels.clone(),
            route_handler: gossip.clone(),
            onion_message_handler: IgnoringMessageHandler {},
            custom_message_handler: IgnoringMessageHandler {},
            send_only_message_handler: IgnoringMessageHandler {},
        };
        let peers = Arc::new(PeerManager::new(handler, now(), &[number; 32], log, keys.clone()));
        let id = keys.get_node_id(Recipient::Node).map_err(|()| "a node without an id")?;
        let (told, news) = channel();
        let application =
            Application { channels: channels.clone(), told, trusts: Arc::default(), ready: Arc::default() };
        Ok(Self { id, monitors, channels, peers, gossip, store, news: Mutex::new(news), application })
    }
}

/// The manager and the monitors that a process before this one left behind.
fn read(
    written: &[u8],
    graph: &Arc<Graph>,
    keys: &Arc<KeysManager>,
    monitors: &Arc<Monitors>,
    persister: &Persister,
) -> Done<Channels> {
    let kept = persister.read_all_channel_monitors_with_updates()?;
    let (router, messages) = (router(graph, keys), Arc::new(DefaultMessageRouter::new(graph.clone(), keys.clone())));
    let args = ChannelManagerReadArgs::new(
        keys.clone(),
        keys.clone(),
        keys.clone(),
        Arc::new(Flat),
        monitors.clone(),
        Arc::new(Mute),
        router,
        messages,
        Arc::new(Quiet),
        terms_of_channels(),
        kept.iter().map(|(_, monitor)| monitor).collect(),
    );
    let read = <(BlockHash, Channels)>::read(&mut Cursor::new(written), args);
    let (_, channels) = read.map_err(|fault| format!("the manager cannot be read: {fault:?}"))?;
    for (_, monitor) in kept {
        let id = monitor.channel_id();
        monitors.load_existing_monitor(id, monitor).map_err(|()| "a monitor cannot be loaded")?;
    }
    Ok(channels)
}

fn router(graph: &Arc<Graph>, keys: &Arc<KeysManager>) -> Arc<Router> {
    let log = Arc::new(Quiet);
    let decay = ProbabilisticScoringDecayParameters::default();
    let scorer = Arc::new(RwLock::new(ProbabilisticScorer::new(decay, graph.clone(), log.clone())));
    let terms = ProbabilisticScoringFeeParameters::default();
    Arc::new(DefaultRouter::new(graph.clone(), log, keys.clone(), scorer, terms))
}

fn channels(graph: &Arc<Graph>, keys: &Arc<KeysManager>, monitors: &Arc<Monitors>) -> Channels {
    let (log, router) = (Arc::new(Quiet), router(graph, keys));
    let messages = Arc::new(DefaultMessageRouter::new(graph.clone(), keys.clone()));
    let best_block = BestBlock::new(BlockHash::all_zeros(), FIRST_HEIGHT);
    ChannelManager::new(
        Arc::new(Flat),
        monitors.clone(),
        Arc::new(Mute),
        router,
        messages,
        log,
        keys.clone(),
        keys.clone(),
        keys.clone(),
        terms_of_channels(),
        ChainParameters { network: Network::Regtest, best_block },
        now(),
    )
}

/// As near as LDK comes to what the daemons are told on their command line.
fn terms_of_channels() -> UserConfig {
    let mut config = UserConfig::default();
    let handshake = &mut config.channel_handshake_config;
    handshake.minimum_depth = 1;
    handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
    handshake.our_max_accepted_htlcs = 483;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    handshake.our_htlc_minimum_msat = 1;
    config.channel_handshake_limits.force_announced_channel_preference = false;
    config.channel_config.max_dust_htlc_exposure = MaxDustHTLCExposure::FixedLimitMsat(5_000_000_000);
    config.channel_config.forwarding_fee_base_msat = 1000;
    config.channel_config.forwarding_fee_proportional_millionths = 100;
    // Without these nothing is forwarded over unannounced channels, and no anchor channel is accepted.
    config.accept_forwards_to_priv_channels = true;
    config.manually_accept_inbound_channels = true;
    config
}

/// Seconds since 1970.
pub(super) fn now() -> u32 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
}

/// What an application does with LDK's events.
#[derive(Clone)]
pub(super) struct Application {
    channels: Arc<Channels>,
    told: Sender<News>,
    /// Channels are used before they are confirmed: LDK has at most four that are not, and thousands are to be opened.
    /// Meanwhile the manager is not written: it is written whole, and nobody measures.
    pub(super) trusts: Arc<AtomicBool>,
    /// Channels that came to be usable.
    pub(super) ready: Arc<AtomicUsize>,
}

impl Application {
    fn tell(&self, news: News) {
        // Nobody listens any more once the process ends.
        let _ = self.told.send(news);
    }

    pub(super) fn take(&self, event: Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let (channel, peer) = (&temporary_channel_id, &counterparty_node_id);
                let accepted = if self.trusts.load(Ordering::Relaxed) {
                    self.channels.accept_inbound_channel_from_trusted_peer_0conf(channel, peer, 1, None)
                } else {
                    self.channels.accept_inbound_channel(channel, peer, 1, None)
                };
                if let Err(fault) = accepted {
                    self.tell(News::Failed(format!("a channel is not accepted: {fault:?}")));
                }
            }
            Event::FundingGenerationReady {
                temporary_channel_id: temporary,
                counterparty_node_id: peer,
                channel_value_satoshis: sat,
                output_script: script,
                ..
            } => self.tell(News::Funding { temporary, peer, sat, script }),
            Event::PaymentClaimable {
                purpose: PaymentPurpose::Bolt11InvoicePayment { payment_preimage: Some(preimage), .. },
                ..
            } => self.channels.claim_funds(preimage),
            Event::ChannelReady { .. } => drop(self.ready.fetch_add(1, Ordering::Relaxed)),
            Event::PaymentSent { payment_hash, .. } => self.tell(News::Sent(payment_hash)),
            Event::PaymentPathSuccessful { .. } => self.tell(News::Gone),
            Event::PaymentFailed { reason, .. } => self.tell(News::Failed(format!("a payment failed: {reason:?}"))),
            Event::ChannelClosed { reason, .. } => self.tell(News::Failed(format!("a channel closed: {reason:?}"))),
            Event::HTLCHandlingFailed { failure_reason, .. } => {
                self.tell(News::Failed(format!("an HTLC was not forwarded: {failure_reason:?}")));
            }
            _ => {}
        }
    }
}
