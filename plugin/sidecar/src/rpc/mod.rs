//! The JSON-RPC interface: who may call, what a call must look like, and what it asks of the node.
//!
//! A connection comes in by a door (`door`: HTTP and WebSocket, on the port and the socket file; `tls`: what the port begins with
//! where it is encrypted; `stdio`: the parent's pipe). Its head passes the `gate` (host, origin, cookie or token, type, size). What
//! is said then comes to the `desk`: sound JSON, and JSON-RPC with `calls` before it (known method, what the token allows, id where money moves), then the method's file, which
//! reads the parameters into the node's own types and asks the [`Backend`]. Until the node has one, [`Doors`] answers
//! `node.status` and `node.stop` alone. A connection on which both sides speak is a `session`; its subscriptions read the `feed`.

pub mod auth;
mod backend;
mod backup;
mod calls;
mod chain;
mod channel;
mod config;
mod desk;
mod door;
mod doors;
mod envelope;
mod error;
mod event;
mod feed;
mod forward;
mod gate;
mod invoice;
mod node;
mod operator_page;
mod page;
mod payment;
mod peer;
mod plugin;
mod read;
mod rights;
mod serve;
pub mod server;
mod session;
mod socket_file;
mod sound;
mod stdio;
mod tls;
mod token;
mod unread;
mod wallet;
mod websocket;

pub use auth::Caller;
pub use backend::{
    Backend, ChannelQuery, EventQuery, ForwardQuery, InvoiceOrder, OpenOrder, PaymentOrder, PaymentTarget, PeerQuery,
    SendOrder, StatsQuery,
};
pub use door::HEAD_TIMEOUT;
pub use doors::Doors;
pub use error::{Answer, Fault};
pub use gate::BODY_TIMEOUT;
pub use outrigger_bolt::address::PeerAddress;
pub use read::Whose;
pub use server::{MAX_ON_PORT, MAX_ON_SOCKET_FILE, Place, Server, ServerFault, start};
pub use tls::{TlsFault, TlsFiles};
pub use unread::UNREAD_TIMEOUT;
