//! The seed and every secret that grows from it. No type here has a `Debug` that could print one.

mod node_keys;
pub mod seed;
mod words;

pub use node_keys::NodeKeys;
pub use seed::{Seed, SeedFault};
pub use words::WordsFault;
