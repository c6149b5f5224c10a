//! Channels as delivery knows them: whose they are and what they are called, without their peers' locks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_channel::Signer;

/// What is known of a channel without its peer's lock.
#[derive(Clone)]
pub struct Registered {
    pub peer: NodeId,
    pub signer: Arc<dyn Signer>,
    /// The channel ends with its local commitment of this number: what is on its way reveals neither its secret nor later ones.
    pub(super) closing: Arc<AtomicU64>,
}

impl Registered {
    /// A channel that may go on.
    pub(super) fn new(peer: NodeId, signer: Arc<dyn Signer>) -> Self {
        Self { peer, signer, closing: Arc::new(AtomicU64::new(u64::MAX)) }
    }
}

/// The channels that have rows.
#[derive(Default)]
pub(super) struct Channels {
    pub(super) known: HashMap<ChannelId, Registered>,
    /// By what they are called.
    pub(super) named: HashMap<ShortChannelId, Named>,
    pub(super) by_peer: HashMap<NodeId, usize>,
}

/// Whom a `short_channel_id` names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) peer: NodeId,
    pub(super) channel: ChannelId,
    /// Whether onions may call the channel so; the peer may in any case.
    pub(super) in_onions: bool,
}
