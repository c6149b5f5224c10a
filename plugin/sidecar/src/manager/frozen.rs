//! Frozen channels: rows of theirs cannot be read, so nothing of them is signed or published, and the others go on (bad
//! input 95). They have no slot: nothing that steps a channel can reach them.

use std::collections::BTreeMap;

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::wire::{Message, Warning};
use serde_json::json;

use super::Manager;
use super::drive::Drive;
use crate::clock::Clock;
use crate::store::load::FrozenChannel;
use crate::store::row::EventRow;
use crate::store::{Address, Batch};

/// What an operator is told to do about any of them.
const REMEDY: &str = "nothing of it is signed or published and its rows stay as they are; keep a copy of outrigger.redb, \
                      do not delete it, start the release that wrote it or ask for help; the peer can still close the channel";

/// What the peer is told when it comes back to the channel. A `warning`: an `error` would have it fail the channel.
const TO_THE_PEER: &str = "this channel is frozen here: its stored state cannot be read; please keep it open, or close it \
                           from your side";

/// The channels that a start froze. They stay so until the next start.
#[derive(Debug, Default)]
pub struct FrozenChannels(BTreeMap<ChannelId, FrozenChannel>);

impl FrozenChannels {
    /// By their names.
    pub fn new(frozen: Vec<FrozenChannel>) -> Self {
        Self(frozen.into_iter().map(|channel| (channel.channel_id, channel)).collect())
    }

    /// Whether the channel is one of them.
    pub fn contains(&self, channel: &ChannelId) -> bool {
        self.0.contains_key(channel)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    pub fn get(&self, channel: &ChannelId) -> Option<&FrozenChannel> {
        self.0.get(channel)
    }

    /// All of them, or those with one peer, by channel id.
    pub fn of(&self, peer: Option<NodeId>) -> impl Iterator<Item = &FrozenChannel> {
        self.0.values().filter(move |channel| peer.is_none() || channel.peer == peer)
    }
}

impl Manager {
    /// Tells the operator of every frozen channel, in the log and as an event. Called once at the start.
    pub fn tell_of_frozen(&self) {
        let mut batch = Batch::default();
        for FrozenChannel { channel_id, peer, reason, .. } in self.env.frozen.of(None) {
            tracing::error!(channel = %channel_id, reason, "a channel is frozen: {REMEDY}");
            let mut fields = json!({ "channel_id": channel_id.to_string(), "message": format!("{reason}: {REMEDY}") });
            if let (Some(peer), Some(fields)) = (peer, fields.as_object_mut()) {
                fields.insert("node_id".into(), peer.to_string().into());
            }
            batch.event(EventRow::new(Clock::now_unix(), "channel_frozen", fields));
        }
        self.env.writer.submit(batch);
    }
}

impl Drive<'_> {
    /// A message about a frozen channel. Only `channel_reestablish` is answered: without ours nothing else may come.
    pub(super) fn message_to_frozen(&mut self, at: Address, message: &Message) {
        if matches!(message, Message::ChannelReestablish(_)) {
            tracing::warn!(peer = %at.peer, channel = %at.channel, "the peer came back to a frozen channel");
            self.send(at, Message::Warning(Warning { channel_id: at.channel, data: TO_THE_PEER.into() }));
        }
    }
}
