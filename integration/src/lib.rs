//! Black-box parts: a real bitcoind, the built daemon as an operator starts it, and what is needed to wait for them.
//! Nothing here knows the product's insides: it links `rpc-schema` alone.

pub mod bare;
pub mod bitcoind;
pub mod client;
pub mod dice;
pub mod door;
pub mod fake_bitcoind;
pub mod fee_oracle;
pub mod moment;
pub mod proxy;
pub mod regtest;
pub mod schema;
pub mod sidecar;
pub mod socks;
pub mod wait;

pub use bare::Bare;
pub use bitcoind::Bitcoind;
pub use client::Client;
pub use dice::Dice;
pub use door::Door;
pub use fake_bitcoind::FakeBitcoind;
pub use fee_oracle::FeeOracle;
pub use moment::Moment;
pub use proxy::Proxy;
pub use regtest::{Regtest, on_regtest};
pub use sidecar::Sidecar;
pub use wait::until;

/// What went wrong, with its causes, for people.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;
/// The result of a step.
pub type Done<T> = Result<T, Fault>;
