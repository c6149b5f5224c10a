//! Keys of a channel (BOLT 3, "Keys") and the signatures made with them.
//!
//! The *owner* of a commitment is the node that may broadcast it, BOLT 3's "local"; the *other* is its counterparty.
//! Commitment numbers count up from 0; how they map to BOLT 3's descending index is known to [`secrets`] alone.

pub mod derivation;
pub mod secrets;
pub mod signature;

pub use derivation::{Basepoints, CommitmentKeys, DegenerateKey};
pub use secrets::{CorruptSecrets, SecretMismatch, SecretSlot, SecretStore, per_commitment_secret};
pub use signature::{InvalidSignature, public_key, sign, verify};
