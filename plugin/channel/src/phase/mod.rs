//! What each phase of a channel's life does with messages, orders and blocks.

pub(crate) mod announcement;
pub(crate) mod closing;
pub(crate) mod ended;
pub(crate) mod funding;
pub(crate) mod normal;
pub(crate) mod restored;
pub(crate) mod shutdown;
mod simple_close;
