//!

pub mod outbox;
