//! Connections to peers: BOLT 8 and framing, the `init` exchange, `ping` and `pong`, byte budgets, and nothing else.
//!
//! Each socket has one task ([`connection`]). It reads only while the manager has room, so a backlog reaches the peer as
//! a full socket, and it writes from a bounded [`outbox`](crate::manager::outbox). What it reads goes through
//! [`PeerHandler`]; a connection that ends says so there exactly once.
//!
//! What a broken peer gets is one of two things: the connection is dropped, or dropped after a `warning`. No channel is
//! ever failed here.

mod bucket;
mod connection;
mod dial;
mod frame;
mod handshake;
mod init;
mod keep;
mod keepalive;
mod listen;
mod seat;
mod socket;
mod socks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::NodeId;
use tokio::sync::watch;

pub use dial::DialFault;
pub use keep::{Backoff, Dialer};
pub use keepalive::{ANSWER_TIMEOUT, PING_AFTER_SEND, PING_WHEN_IDLE, PONG_TIMEOUT};
pub use socket::Socket;
pub use socks::{Proxy, ProxyFault, Reply, Step};

use crate::manager::outbox::PeerHandler;

/// A peer has this long for each act of the handshake (DOS-7).
pub const ACT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer has this long for its `init` (DOS-7).
pub const INIT_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that takes none of our bytes for this long is gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the last messages and the closing of a connection may take.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// Gossip of one peer that is looked at, in bytes: a burst, room for the `channel_update` of some 1800 channels, and so
/// much a second after that. What comes beyond it is dropped unread, and so is gossip that no graph is kept for.
pub const GOSSIP_BURST_BYTES: u64 = 256 * 1024;
/// See [`GOSSIP_BURST_BYTES`].
pub const GOSSIP_BYTES_PER_SECOND: u64 = 4 * 1024;
/// How many messages without use for us a connection reads at full speed: pings beyond what is answered, unknown odd types, gossip
/// that no graph is kept for (DOS-9).
pub const IGNORED_BURST: u64 = 20_000;
/// How many a second after that.
pub const IGNORED_PER_SECOND: u64 = 1_000;
/// Messages that wait for one peer to read them, in bytes.
pub const OUTBOX_BYTES: usize = 4 * 1024 * 1024;

/// All connections of the node. Clones are the same.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    node_secret: SecretKey,
    handler: Arc<dyn PeerHandler>,
    seats: seat::Seats,
    /// What outgoing connections go through.
    proxy: Option<Proxy>,
    /// True tells every task to end. Each task holds a receiver, so the last of them closes it.
    stop: watch::Sender<bool>,
}

impl Network {
    /// No connection yet; `node_secret` is the key behind our node id.
    pub fn new(node_secret: SecretKey, handler: Arc<dyn PeerHandler>) -> Self {
        Self::through(None, node_secret, handler)
    }

    /// The same, with outgoing connections going through this proxy.
    pub fn through(proxy: Option<Proxy>, node_secret: SecretKey, handler: Arc<dyn PeerHandler>) -> Self {
        let (seats, stop) = (seat::Seats::default(), watch::Sender::new(false));
        Self { shared: Arc::new(Shared { node_secret, handler, seats, proxy, stop }) }
    }

    /// The identity under which peers know us.
    pub fn node_id(&self) -> NodeId {
        NodeId::new(self.shared.node_secret.public_key(&Secp256k1::signing_only()))
    }

    /// Accepts connections at `address` until the network stops, and gives the address with the port that was taken.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        listen::listen(&self.shared, address).await
    }

    /// Runs an inbound connection from its first byte to its end; resolves when it is over.
    pub async fn answer(&self, socket: Socket) {
        let stopped = self.shared.stopped();
        listen::answer(&self.shared, socket, stopped, || {}).await;
    }

    /// Meets `peer` over a socket that we opened. On success the connection runs on by itself.
    pub async fn greet(&self, peer: NodeId, socket: Socket) -> Result<Features, DialFault> {
        dial::greet(&self.shared, peer, socket).await
    }

    /// Connects to `peer` at `address` (`host:port`), or finds it connected. Gives the features of its `init`.
    pub async fn connect(&self, peer: NodeId, address: &str) -> Result<Features, DialFault> {
        dial::connect(&self.shared, peer, address).await
    }

    /// The dialler that keeps peers connected.
    pub fn dialer(&self) -> Dialer {
        Dialer::new(self.clone())
    }

    /// Ends every connection, listener and dialler; resolves when the last of them is gone.
    pub async fn stop(&self) {
        self.shared.stop.send_replace(true);
        self.shared.stop.closed().await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.node_secret.non_secure_erase();
    }
}

/// A task's view of the stop signal, and its proof that it still runs.
struct Stopped(watch::Receiver<bool>);

impl Shared {
    fn stopped(&self) -> Stopped {
        Stopped(self.stop.subscribe())
    }
}

impl Stopped {
    /// Resolves when the network stops.
    async fn wait(&mut self) {
        // An error would mean that the network itself is gone, which is a stop too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
