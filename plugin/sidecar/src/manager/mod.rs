//! 

pub mod outbox;
