//! The server: one port and one socket file, HTTP and WebSocket on both; or the parent's pipe.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::server::{RegisterMethodError, RpcModule};
use outrigger_rpc_schema as schema;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::auth::{Cookie, Rendezvous};
use super::desk::Desk;
use super::door::{Entrance, House, attend, stopped};
use super::gate::Rules;
use super::serve::register;
use super::tls::{TlsDoor, TlsFault, TlsFiles};
use super::{Backend, Doors, feed, socket_file, stdio};

/// Connections to the port at once: a stranger who fills it keeps nobody from the socket file.
pub const MAX_ON_PORT: usize = 1200;
/// Connections to the socket file at once.
pub const MAX_ON_SOCKET_FILE: usize = 256;

/// How long connections may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Why the interface could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// The address is not of this machine alone.
    #[error(
        "JSON-RPC is not served on {0}: it is not a loopback address, and whoever reaches the port could try to spend. Bind \
         127.0.0.1 and use a tunnel (ssh -L) from elsewhere; or give rpc.tls_cert and rpc.tls_key; or set rpc.allow_remote where a proxy \
         with TLS stands before it"
    )]
    NotLoopback(SocketAddr),
    /// There is no TLS as it was asked for.
    #[error("JSON-RPC cannot be served with TLS: {0}")]
    Tls(#[from] TlsFault),
    /// The port cannot be had.
    #[error(
        "cannot listen for JSON-RPC on {address}: {error}. Nothing was started. Where another program has the port, stop it or \
         choose another with rpc.address (--rpc-address); port 0 takes any that is free"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// Cookie, address or socket file cannot be written.
    #[error("cannot write the JSON-RPC cookie, address and socket into {directory}: {error}")]
    Rendezvous {
        /// The directory of the network.
        directory: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// Two methods have one name.
    #[error("the methods cannot be registered: {0}")]
    Methods(#[from] RegisterMethodError),
}

/// Where the interface is served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A loopback address, or any with TLS; port 0 takes any that is free.
    pub address: SocketAddr,
    /// With which certificate TLS is spoken on the port; without one, none is.
    pub tls: Option<TlsFiles>,
    /// Whether the address may be of another kind without TLS: who reaches it is not encrypted.
    pub allow_remote: bool,
    /// Names of this server beside its own, as `host:port`.
    pub hosts: Vec<String>,
    /// Pages that may call: what a browser says in `Origin`. None but these.
    pub origins: Vec<String>,
    /// Whether the operator's page is served, and may call.
    pub page: bool,
}

impl Place {
    /// A loopback address, for no page.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, tls: None, allow_remote: false, hosts: Vec::new(), origins: Vec::new(), page: false }
    }
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    socket_file: Option<PathBuf>,
    stop: watch::Sender<bool>,
    /// Ends once every connection has.
    alive: mpsc::Receiver<Infallible>,
    tasks: Vec<JoinHandle<()>>,
    desk: Arc<Desk>,
    /// The session with the parent.
    parent: Option<JoinHandle<()>>,
    rendezvous: Rendezvous,
}

/// Serves the interface. Cookie, address and socket file are put into `directory`, whose lock the caller holds. `secret` is
/// fresh from the operating system.
pub async fn start<B: Backend>(
    place: Place,
    directory: &Path,
    secret: &Zeroizing<[u8; 32]>,
    doors: Arc<Doors<B>>,
) -> Result<Server, ServerFault> {
    let address = place.address;
    let published = directory.join(schema::rendezvous::CERTIFICATE_FILE);
    let tls = place.tls.as_ref().map(|files| TlsDoor::open(files, &published)).transpose()?;
    let (tls, certificate) = tls.map(|(door, pem)| (Arc::new(door), pem)).unzip();
    if !address.ip().is_loopback() && tls.is_none() && !place.allow_remote {
        return Err(ServerFault::NotLoopback(address));
    }
    let desk = Arc::new(Desk::new(doors.clone())?);
    let bind = |error| ServerFault::Bind { address, error };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    if !bound.ip().is_loopback() && tls.is_none() {
        tracing::warn!(%bound, "JSON-RPC is served beyond this machine and not encrypted: whoever listens can take tokens and spend");
    }
    if bound.ip().is_unspecified() && place.hosts.is_empty() {
        tracing::warn!(%bound, "JSON-RPC is served beyond this machine, and nobody elsewhere gets in: rpc.hosts has no name that they could use");
    }
    let cookie = Cookie::new(secret);
    let written = |error| ServerFault::Rendezvous { directory: directory.display().to_string(), error };
    let rendezvous = Rendezvous::publish(directory, &cookie, bound, certificate.as_deref()).map_err(written)?;
    let sockets = socket_file::listen(directory).map_err(written)?;
    let (stop, stopping) = watch::channel(false);
    let (alive, ended) = mpsc::channel(1);
    let rules = Arc::new(Rules::new(bound, &place, cookie, doors.clone()));
    let house = House { desk: desk.clone(), rules, stop: stopping, alive };
    let mut tasks = vec![tokio::spawn(feed::read(doors))];
    tasks.extend(tls.clone().map(|tls| tokio::spawn(tls.follow())));
    let socket_file = sockets.map(|(listener, path)| {
        let accept = move || {
            let listener = listener.clone();
            async move { listener.accept().await.map(|(stream, _)| stream) }
        };
        let receive = |house: House, stream, place| house.speak(Entrance::SocketFile, stream, place);
        tasks.push(tokio::spawn(attend(house.clone(), MAX_ON_SOCKET_FILE, accept, receive)));
        path
    });
    let listener = Arc::new(listener);
    let accept = move || {
        let listener = listener.clone();
        async move {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        }
    };
    let receive = move |house: House, stream, place| house.knock(tls.clone(), stream, place);
    tasks.push(tokio::spawn(attend(house, MAX_ON_PORT, accept, receive)));
    Ok(Server { address: bound, socket_file, stop, alive: ended, tasks, desk, parent: None, rendezvous })
}

impl Server {
    /// Serves the parent of this process too, over its pipe: a message a line. The end of the input asks for a stop.
    pub fn serve_parent<B: Backend>(
        &mut self,
        doors: Arc<Doors<B>>,
        pipe: (impl Read + Send + 'static, impl Write + Send + 'static),
    ) {
        let stop = stopped(self.stop.subscribe());
        self.parent = Some(tokio::spawn(stdio::run(doors, self.desk.clone(), pipe, stop)));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket file; none where its path is too long for one.
    pub fn socket_file(&self) -> Option<&Path> {
        self.socket_file.as_deref()
    }

    /// Removes cookie, address and socket file, takes no more calls, and ends when those under way have their answers.
    pub async fn stop(self) {
        let Self { rendezvous, socket_file, stop, mut alive, tasks, parent, .. } = self;
        drop(rendezvous);
        if let Some(path) = &socket_file {
            // One that is gone already is no harm.
            let _ = std::fs::remove_file(path);
        }
        stop.send_replace(true);
        let all_ended = async {
            if let Some(parent) = parent {
                let _ = parent.await;
            }
            alive.recv().await
        };
        if tokio::time::timeout(STOP_PATIENCE, all_ended).await.is_err() {
            tracing::warn!("connections of callers were cut off");
        }
        tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Every method of the schema.
pub(super) fn methods<B: Backend>(doors: Arc<Doors<B>>) -> Result<RpcModule<Doors<B>>, RegisterMethodError> {
    let mut module = RpcModule::from_arc(doors);
    register::<B, schema::RpcDiscover>(&mut module)?;
    register::<B, schema::PluginManifest>(&mut module)?;
    register::<B, schema::PluginInit>(&mut module)?;
    register::<B, schema::NodeInfo>(&mut module)?;
    register::<B, schema::NodeStatus>(&mut module)?;
    register::<B, schema::NodeStop>(&mut module)?;
    register::<B, schema::ConfigGet>(&mut module)?;
    register::<B, schema::LogLevels>(&mut module)?;
    register::<B, schema::ChainStatus>(&mut module)?;
    register::<B, schema::ChainFeerates>(&mut module)?;
    register::<B, schema::ChainNotifyBlock>(&mut module)?;
    register::<B, schema::WalletBalance>(&mut module)?;
    register::<B, schema::WalletNewAddress>(&mut module)?;
    register::<B, schema::WalletSend>(&mut module)?;
    register::<B, schema::WalletWait>(&mut module)?;
    register::<B, schema::WalletUtxos>(&mut module)?;
    register::<B, schema::PeerConnect>(&mut module)?;
    register::<B, schema::PeerDisconnect>(&mut module)?;
    register::<B, schema::PeerList>(&mut module)?;
    register::<B, schema::ChannelOpen>(&mut module)?;
    register::<B, schema::ChannelOpenWait>(&mut module)?;
    register::<B, schema::ChannelList>(&mut module)?;
    register::<B, schema::ChannelGet>(&mut module)?;
    register::<B, schema::ChannelWait>(&mut module)?;
    register::<B, schema::ChannelClose>(&mut module)?;
    register::<B, schema::ChannelForceClose>(&mut module)?;
    register::<B, schema::ChannelSetPolicy>(&mut module)?;
    register::<B, schema::InvoiceCreate>(&mut module)?;
    register::<B, schema::InvoiceGet>(&mut module)?;
    register::<B, schema::InvoiceList>(&mut module)?;
    register::<B, schema::InvoiceDecode>(&mut module)?;
    register::<B, schema::PaymentSend>(&mut module)?;
    register::<B, schema::PaymentWait>(&mut module)?;
    register::<B, schema::PaymentGet>(&mut module)?;
    register::<B, schema::PaymentList>(&mut module)?;
    register::<B, schema::PaymentAbandon>(&mut module)?;
    register::<B, schema::ForwardList>(&mut module)?;
    register::<B, schema::ForwardStats>(&mut module)?;
    register::<B, schema::BackupStatus>(&mut module)?;
    register::<B, schema::EventList>(&mut module)?;
    register::<B, schema::TokenCreate>(&mut module)?;
    register::<B, schema::TokenList>(&mut module)?;
    register::<B, schema::TokenRevoke>(&mut module)?;
    register::<B, schema::EventSubscribe>(&mut module)?;
    register::<B, schema::EventUnsubscribe>(&mut module)?;
    Ok(module)
}
