//! The JSON-RPC interface: who may call, what a call must look like, and what it asks of the node.
//!
//! A request passes `gate` (HTTP: host, origin, cookie, type, size, sound JSON), then `calls` (JSON-RPC: known method,
//! id where money moves), then its method's file, which reads the parameters into the node's own types and asks the
//! [`Backend`]. Until the node has one, [`Doors`] answers `node.status` and `node.stop` alone.

pub mod auth;
mod backend;
mod backup;
mod calls;
mod chain;
mod channel;
mod doors;
mod error;
mod event;
mod forward;
mod gate;
mod invoice;
mod node;
mod page;
mod payment;
mod peer;
mod read;
mod rights;
mod serve;
pub mod server;
mod sound;
mod token;
mod wallet;

pub use auth::Caller;
pub use backend::{
    Backend, ChannelQuery, EventQuery, ForwardQuery, InvoiceOrder, OpenOrder, PaymentOrder, PaymentTarget, PeerAddress,
    PeerQuery, StatsQuery,
};
pub use doors::Doors;
pub use error::{Answer, Fault};
pub use server::{Server, ServerFault, start};
