//! One Lightning channel and its monitor, as values: no socket, disk, thread, clock or randomness.
//!
//! The contract, on one screen:
//!
//! - [`Channel::step`] reads the channel and one [`Input`] and returns a [`Transition`]: the rows that change, what a
//!   disconnect would roll back, what the monitor must learn, and the effects. The channel itself is untouched, so a
//!   broken message leaves the value whole, which is what a unilateral close publishes.
//! - [`Channel::apply`] takes the transition in. Loading from disk is the same function, from nothing.
//! - Effects may leave only once the rows of the same transition are durable. Any of them may be lost in between: each
//!   is made again from the row that its variant names, save `Reply` and `Note`.
//! - A disconnect and a crash are the same event: [`Volatile`] is all that is lost, and it is in no row.
//! - [`Monitor`] learns every commitment from its updates alone, and needs no row of the channel but the HTLC rows,
//!   which the two share.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod changes;
mod channel;
mod commitments;
mod draft;
mod input;
mod link;
mod monitor;
mod opening;
mod phase;
mod row;
mod signer;
mod soundness;
mod transition;
mod violation;

pub use changes::*;
pub use channel::{Channel, Summary};
pub use commitments::htlc::{HtlcKey, HtlcState, Offerer, Stage};
pub use input::*;
pub use link::{Link, VolatileChanges};
pub use monitor::{
    CannotClaim, CannotPublish, Claim, ClaimKind, Enforcement, Monitor, Publish, RevokedCommitment, RevokedOutput,
    SWEEP_DUST, Spend, UpdateRefused,
};
pub use opening::{Birth, OpenOrder, Opening, OpeningInput, OpeningStep};
pub use phase::shutdown::CHANNEL_PONG_BYTES;
pub use row::{CorruptRow, CorruptRows, Fault, Row};
pub use signer::{Guard, ReleaseRefused, Signer, SigningRefused, SoftSigner};
pub use transition::*;
pub use violation::{Refusal, Rule, Violation};
