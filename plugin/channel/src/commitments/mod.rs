//! The two commitments of a channel and the updates that move them (BOLT 2, "Normal Operation").

mod deferral;
pub(crate) mod fee;
pub(crate) mod htlc;
pub(crate) mod outlook;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod spec;
pub(crate) mod totals;
