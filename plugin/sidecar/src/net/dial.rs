//! One outbound connection, and what can be wrong with it in words that an operator can act on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::address::{Host, InvalidAddress, PeerAddress};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::NodeId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use super::connection::{self, MeetFault};
use super::handshake::{self, HandshakeFault};
use super::socket::Socket;
use super::socks::{self, Proxy, ProxyFault};
use crate::manager::outbox::Origin;

/// How long the TCP connection may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a peer could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialFault {
    /// Nothing listens at the address.
    #[error("the address refused the connection")]
    Refused,
    /// The address does not resolve, or there is no way to it.
    #[error("the address cannot be reached: {0}")]
    Unreachable(String),
    /// The address, or the node behind it, did not answer in time.
    #[error("no answer in time while {0}")]
    Timeout(&'static str),
    /// The address is none.
    #[error("the address {0}")]
    NoAddress(#[from] InvalidAddress),
    /// Only a proxy finds the address, and there is none.
    #[error("an onion service can be reached through Tor only, and no proxy is configured")]
    NoProxy,
    /// The proxy did not connect.
    #[error("{0}")]
    Proxy(#[from] ProxyFault),
    /// The handshake failed: the node behind the address does not hold the key of the node id.
    #[error("the handshake failed: {0}")]
    WrongKey(String),
    /// One side does not accept the other's `init`, or we do not accept the peer.
    #[error("the peers do not accept each other: {0}")]
    InitRefused(String),
    /// Our network is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl DialFault {
    /// The stable name of the fault.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout(_) => "timeout",
            Self::NoAddress(_) => "no_address",
            Self::NoProxy => "no_proxy",
            Self::Proxy(_) => "proxy",
            Self::WrongKey(_) => "wrong_key",
            Self::InitRefused(_) => "init_refused",
            Self::Stopping => "stopping",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Refused => "Check that the peer is running and that the port is its Lightning port.",
            Self::Unreachable(_) => "Check the address (host:port) and that this machine has a way to it.",
            Self::Timeout(_) => "Check the address, and that no firewall drops the connection.",
            Self::NoAddress(_) => "Give an address of this form.",
            Self::NoProxy => "Run Tor, and set `proxy = \"127.0.0.1:9050\"` in the configuration.",
            Self::Proxy(fault) => fault.hint(),
            Self::WrongKey(_) => "Check that the node_id is that of the node at this address.",
            Self::InitRefused(_) => "The message says what the peers disagree on; most often it is the network.",
            Self::Stopping => "Start the node again.",
        }
    }

    /// Whether the same call may succeed later with nothing changed on our side.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused | Self::Unreachable(_) | Self::Timeout(_) => true,
            Self::Proxy(fault) => fault.retryable(),
            Self::NoAddress(_) | Self::NoProxy | Self::WrongKey(_) | Self::InitRefused(_) | Self::Stopping => false,
        }
    }
}

impl From<MeetFault> for DialFault {
    fn from(fault: MeetFault) -> Self {
        match fault {
            MeetFault::Handshake(HandshakeFault::Timeout(_)) => Self::Timeout("waiting for the peer's handshake"),
            MeetFault::Handshake(fault @ HandshakeFault::NoEntropy(_)) => Self::Unreachable(fault.to_string()),
            MeetFault::Handshake(fault) => Self::WrongKey(fault.to_string()),
            MeetFault::Init(fault) if fault.is_timeout() => Self::Timeout("waiting for the peer's init"),
            MeetFault::Init(fault) => Self::InitRefused(fault.to_string()),
            MeetFault::NotWanted(reason) => Self::InitRefused(reason),
            MeetFault::Outrun => Self::InitRefused("a newer connection of the same peer took its place".to_owned()),
        }
    }
}

/// Connects to a peer, or finds it connected.
pub(super) async fn connect(net: &Arc<Shared>, peer: NodeId, address: &str) -> Result<Features, DialFault> {
    if let Some(features) = net.seats.features(&peer) {
        return Ok(features);
    }
    let mut stopped = net.stopped();
    let stream = tokio::select! {
        stream = open(net.proxy.as_ref(), peer, address) => stream?,
        () = stopped.wait() => return Err(DialFault::Stopping),
    };
    greet(net, peer, Socket::from(stream)).await
}

/// A stream to what listens at `address`, directly or through the proxy.
async fn open(proxy: Option<&Proxy>, peer: NodeId, address: &str) -> Result<TcpStream, DialFault> {
    let target: PeerAddress = address.parse()?;
    if let Some(proxy) = proxy.filter(|proxy| proxy.is_for(&target.host)) {
        return Ok(open_through(proxy, peer, &target).await?);
    }
    let direct = async {
        match &target.host {
            Host::Ip(ip) => Some(TcpStream::connect((*ip, target.port)).await),
            Host::Name(name) => Some(TcpStream::connect((name.as_str(), target.port)).await),
            // No resolver may hear of it (RFC 7686).
            Host::Onion(_) => None,
        }
    };
    match timeout(OPEN_TIMEOUT, direct).await.map(Option::transpose) {
        Ok(Ok(None)) => Err(DialFault::NoProxy),
        Ok(Ok(Some(stream))) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(DialFault::Refused),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(DialFault::Timeout("connecting")),
        Ok(Err(error)) => Err(DialFault::Unreachable(error.to_string())),
        Err(_) => Err(DialFault::Timeout("connecting")),
    }
}

async fn open_through(proxy: &Proxy, peer: NodeId, target: &PeerAddress) -> Result<TcpStream, ProxyFault> {
    let at = proxy.address();
    let mut stream = match timeout(OPEN_TIMEOUT, TcpStream::connect(at)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(ProxyFault::Refused(at)),
        Ok(Err(error)) => return Err(ProxyFault::Unreachable(at, error.to_string())),
        Err(_) => return Err(ProxyFault::Unreachable(at, "no answer in time".to_owned())),
    };
    socks::ask(&mut stream, target, &proxy.password(&peer)).await?;
    Ok(stream)
}

/// Meets a peer over an open socket, and lets the connection run on by itself.
pub(super) async fn greet(net: &Arc<Shared>, peer: NodeId, socket: Socket) -> Result<Features, DialFault> {
    let mut stopped = net.stopped();
    let meet = async {
        let session = handshake::initiate(&net.node_secret, peer, socket).await?;
        connection::join(net, session, Origin::Us).await
    };
    let live = tokio::select! {
        live = meet => live?,
        () = stopped.wait() => return Err(DialFault::Stopping),
    };
    let features = live.features();
    tokio::spawn(live.run(stopped));
    Ok(features)
}
