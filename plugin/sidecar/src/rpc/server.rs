//! The server: one loopback port, HTTP alone.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{BatchRequestConfig, RegisterMethodError, RpcModule, ServerConfig, ServerHandle};
use outrigger_rpc_schema as schema;
use zeroize::Zeroizing;

use super::auth::{Cookie, Rendezvous};
use super::calls::CallsLayer;
use super::gate::{GateLayer, MAX_BODY_BYTES, Rules};
use super::rights::Bearers;
use super::serve::register;
use super::{Backend, Doors};

/// The longest answer: 10 MiB, far above a page of 1000 of anything.
pub(super) const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;

/// The most requests in a batch.
const MAX_BATCH: u32 = 20;

/// The most connections at once.
const MAX_CONNECTIONS: u32 = 64;

/// Why the interface could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// The address is not of this machine alone.
    #[error(
        "JSON-RPC is not served on {0}: it is not a loopback address, and whoever reaches the port could try to spend. Bind 127.0.0.1 and use a tunnel (ssh -L) from elsewhere"
    )]
    NotLoopback(SocketAddr),
    /// The port cannot be had.
    #[error("cannot listen for JSON-RPC on {address}: {error}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// Cookie or address cannot be written.
    #[error("cannot write the JSON-RPC cookie and address into {directory}: {error}")]
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

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
    rendezvous: Rendezvous,
}

/// Serves the interface on a loopback address; port 0 takes any that is free. Cookie and address are written into
/// `directory`, whose lock the caller holds. `secret` is fresh from the operating system.
pub async fn start<B: Backend>(
    address: SocketAddr,
    directory: &Path,
    secret: &Zeroizing<[u8; 32]>,
    doors: Arc<Doors<B>>,
) -> Result<Server, ServerFault> {
    if !address.ip().is_loopback() {
        return Err(ServerFault::NotLoopback(address));
    }
    let bearers: Arc<dyn Bearers> = doors.clone();
    let methods = methods(doors)?;
    let bind = |error| ServerFault::Bind { address, error };
    let listener = std::net::TcpListener::bind(address).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let cookie = Cookie::new(secret);
    let rendezvous = Rendezvous::publish(directory, &cookie, bound)
        .map_err(|error| ServerFault::Rendezvous { directory: directory.display().to_string(), error })?;
    let config = ServerConfig::builder()
        .max_request_body_size(MAX_BODY_BYTES)
        .max_response_body_size(u32::try_from(MAX_ANSWER_BYTES).unwrap_or(u32::MAX))
        .max_connections(MAX_CONNECTIONS)
        .set_batch_request_config(BatchRequestConfig::Limit(MAX_BATCH))
        .http_only()
        .build();
    let server = jsonrpsee::server::Server::builder()
        .set_config(config)
        .set_http_middleware(tower::ServiceBuilder::new().layer(GateLayer(Arc::new(Rules::new(
            bound,
            cookie,
            bearers.clone(),
        )))))
        .set_rpc_middleware(RpcServiceBuilder::new().layer(CallsLayer(bearers)))
        .build_from_tcp(listener)
        .map_err(bind)?;
    let handle = server.start(methods);
    Ok(Server { address: bound, handle, rendezvous })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Removes cookie and address, takes no more calls, and ends when those under way have their answers.
    pub async fn stop(self) {
        drop(self.rendezvous);
        // An error says that it has stopped already.
        let _ = self.handle.stop();
        self.handle.stopped().await;
    }
}

/// Every method of the schema.
fn methods<B: Backend>(doors: Arc<Doors<B>>) -> Result<RpcModule<Doors<B>>, RegisterMethodError> {
    let mut module = RpcModule::from_arc(doors);
    register::<B, schema::NodeInfo>(&mut module)?;
    register::<B, schema::NodeStatus>(&mut module)?;
    register::<B, schema::NodeStop>(&mut module)?;
    register::<B, schema::ChainStatus>(&mut module)?;
    register::<B, schema::WalletBalance>(&mut module)?;
    register::<B, schema::WalletNewAddress>(&mut module)?;
    register::<B, schema::PeerConnect>(&mut module)?;
    register::<B, schema::PeerList>(&mut module)?;
    register::<B, schema::ChannelOpen>(&mut module)?;
    register::<B, schema::ChannelList>(&mut module)?;
    register::<B, schema::ChannelGet>(&mut module)?;
    register::<B, schema::ChannelClose>(&mut module)?;
    register::<B, schema::ChannelForceClose>(&mut module)?;
    register::<B, schema::ChannelSetPolicy>(&mut module)?;
    register::<B, schema::InvoiceCreate>(&mut module)?;
    register::<B, schema::InvoiceGet>(&mut module)?;
    register::<B, schema::PaymentSend>(&mut module)?;
    register::<B, schema::PaymentWait>(&mut module)?;
    register::<B, schema::PaymentGet>(&mut module)?;
    register::<B, schema::PaymentAbandon>(&mut module)?;
    register::<B, schema::ForwardList>(&mut module)?;
    register::<B, schema::ForwardStats>(&mut module)?;
    register::<B, schema::BackupStatus>(&mut module)?;
    register::<B, schema::EventList>(&mut module)?;
    register::<B, schema::TokenCreate>(&mut module)?;
    register::<B, schema::TokenList>(&mut module)?;
    register::<B, schema::TokenRevoke>(&mut module)?;
    Ok(module)
}
