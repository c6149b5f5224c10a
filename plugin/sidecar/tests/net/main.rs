//! Connections as a peer sees them: a peer of our own making on one side, [`Network`] and a manager of our own making
//! on the other. Over loopback sockets; over pipes and tokio's paused clock where time is what is tested.
//!
//! Test names carry the ids of the catalogue of bad inputs and of known failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic wherever it likes")]

mod dialling;
mod fake_manager;
mod gossip;
mod handshake;
mod hostile;
mod messages;
mod raw_peer;
mod sessions;
mod setup;
mod time;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::features::Features;
use outrigger_bolt::wire::Init;
use outrigger_sidecar::net::{Network, Socket};

use fake_manager::{Events, FakeManager};
use raw_peer::RawPeer;

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

/// A test that hears nothing for so long has failed; on the paused clock that is at once.
const PATIENCE: Duration = Duration::from_secs(600);
/// The key of the node under test.
const NODE: u8 = 0x11;
/// The key of the peer of our own making.
const PEER: u8 = 0x22;

fn init_on(network: bitcoin::Network) -> Init {
    let networks = Some(vec![ChainHash::using_genesis_block_const(network)]);
    Init { globalfeatures: Features::empty(), features: Features::init(), networks, remote_addr: None }
}

fn init() -> Init {
    init_on(bitcoin::Network::Regtest)
}

/// The node under test, with what its manager heard.
struct Node {
    network: Network,
    manager: Arc<FakeManager>,
    events: Events,
}

impl Node {
    fn with_key(byte: u8) -> Self {
        let (manager, events) = FakeManager::new(init());
        Self { network: Network::new(secret(byte), manager.clone()), manager, events }
    }

    fn new() -> Self {
        Self::with_key(NODE)
    }

    async fn listening() -> (Self, SocketAddr) {
        let node = Self::new();
        let address = node.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        (node, address)
    }

    /// A peer that has shown its key over a loopback socket.
    async fn stranger() -> (Self, RawPeer) {
        let (node, address) = Self::listening().await;
        let peer = RawPeer::connect(address, PEER, &node.network.node_id()).await;
        (node, peer)
    }

    /// A peer that is connected over a loopback socket, both `init` messages having passed.
    async fn connected() -> (Self, RawPeer) {
        let (mut node, mut peer) = Self::stranger().await;
        peer.exchange_init().await;
        node.events.connected().await;
        (node, peer)
    }

    /// A pipe whose one end the node under test answers as it would an inbound connection.
    fn pipe(&self, buffer: usize) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let (reader, writer) = tokio::io::split(ours);
        let network = self.network.clone();
        tokio::spawn(async move { network.answer(Socket::new(reader, writer)).await });
        theirs
    }

    /// A peer that is connected over a pipe which holds `buffer` bytes.
    async fn connected_by_pipe(buffer: usize) -> (Self, RawPeer) {
        let mut node = Self::new();
        let mut peer = RawPeer::initiate(node.pipe(buffer), PEER, &node.network.node_id()).await;
        peer.exchange_init().await;
        node.events.connected().await;
        (node, peer)
    }
}
