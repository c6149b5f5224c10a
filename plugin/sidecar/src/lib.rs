//! The sidecar: threads, disk, sockets, bitcoind and RPC around the values of `channel`.
//!
//! See `plugin/ARCHITECTURE.md` for the arrows between these modules and the life of a message.

pub mod chain;
pub mod clock;
pub mod config;
pub mod fatal;
pub mod key;
pub mod lock;
pub mod log;
pub mod manager;
pub mod measure;
pub mod net;
pub mod node;
pub mod payment;
pub mod rpc;
pub mod store;
pub mod supervisor;
pub mod sweep;
pub mod token;
pub mod wallet;
