//! Onion routing (BOLT 4): the packet that finds its way, the payload for each hop, the failure that comes back.
//!
//! Nothing here is random: the session key is an argument, and must never serve twice.

pub mod failure;
pub mod packet;
pub mod payload;
mod stream;

pub use failure::{Failure, Unwrapped};
pub use packet::{BuildError, Built, Hop, Malformed, OnionPacket, PeelError, Peeled, build, peel, shared_secret};
pub use payload::{FinalPayload, ForwardPayload, InvalidPayload, Payload, PaymentData};
