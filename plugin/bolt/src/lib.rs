//! The words and cryptography of the Lightning specification; stateless.
//!
//! | BOLT | module |
//! |---|---|
//! | 1, 2, 7 (messages) | [`wire`] |
//! | 7 (addresses) | [`address`] |
//! | 3 (keys, secrets) | [`keys`] |
//! | 3 (transactions) | [`tx`] |
//! | 4 (onion routing) | [`onion`] |
//! | 8 (transport) | [`transport`] |
//! | 9 (features) | [`features`] |
//! | 11 (invoices) | [`invoice`] |
//!
//! Nothing here reads a clock, a disk, a socket or a source of randomness: all of them are arguments.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod address;
pub mod amount;
pub mod features;
pub mod id;
pub mod invoice;
pub mod keys;
pub mod onion;
pub mod transport;
pub mod tx;
pub mod wire;
