//! What channels can send, kept in order by each peer: a payment asks for what it needs, whatever the number of channels
//! (law 6).

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_channel::{Link, Phase};

use super::Manager;
use super::forwarding::is_usable;
use super::peer::{Peer, Slot};
use super::registered::Registered;

/// What the channels with one peer can send now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlets {
    /// Whether there is a channel that is open, usable or not.
    pub has_channel: bool,
    /// The channel with the smallest balance that suffices, and that balance: large ones are kept for large payments.
    pub fit: Option<(Msat, ChannelId)>,
    /// Those that can send the most, the largest first.
    pub largest: Vec<(Msat, ChannelId)>,
}

impl Peer {
    /// Puts the channel into its place in the order, after whatever it went through.
    pub(super) fn rank(&mut self, channel: &ChannelId) {
        let Some(slot) = self.slots.get_mut(channel) else { return };
        let now = (is_usable(&slot.channel) && !slot.is_stalled).then(|| slot.channel.summary(0).spendable);
        if slot.ranked == now {
            return;
        }
        if let Some(before) = std::mem::replace(&mut slot.ranked, now) {
            self.by_spendable.remove(&(before, *channel));
        }
        if let Some(spendable) = now {
            self.by_spendable.insert((spendable, *channel));
        }
    }

    /// Takes a channel out.
    pub(super) fn remove(&mut self, channel: &ChannelId) -> Option<Slot> {
        let slot = self.slots.remove(channel)?;
        if let Some(ranked) = slot.ranked {
            self.by_spendable.remove(&(ranked, *channel));
        }
        self.weigh(channel);
        Some(slot)
    }

    fn outlets(&self, amount: Msat, most: usize) -> Outlets {
        let largest: Vec<_> = self.by_spendable.iter().rev().take(most).copied().collect();
        // Only where none is usable they are looked through, until the first that is open.
        let is_open = |slot: &Slot| matches!(slot.channel.phase(), Phase::Normal);
        Outlets {
            has_channel: !largest.is_empty() || self.slots.values().any(is_open),
            fit: self.by_spendable.range((amount, ChannelId([0; 32]))..).next().copied(),
            largest,
        }
    }
}

impl Manager {
    /// What the channels with the peer can send now: the one that fits the amount, and at most so many of the largest.
    pub fn outlets(&self, peer: &NodeId, amount: Msat, most: usize) -> Outlets {
        self.directory.with(peer, |peer| peer.outlets(amount, most)).unwrap_or_default()
    }

    /// What a channel with the peer can send now, if it is usable.
    pub fn outlet(&self, peer: &NodeId, channel: &ChannelId) -> Option<Msat> {
        self.directory.with(peer, |peer| peer.slots.get(channel)?.ranked)?
    }

    /// The channel with the peer that is called so: by its real id, or by an alias of either side.
    pub fn channel_called(&self, peer: &NodeId, name: ShortChannelId) -> Option<ChannelId> {
        if let Some(channel) = self.deliver.named_by(peer, name) {
            return Some(channel);
        }
        // The peer's own alias: whoever gives one asks for a single channel.
        let is_called = |slot: &&Slot| slot.channel.rows().head.remote_scid_alias == Some(name);
        self.directory.with(peer, |peer| peer.slots.values().find(is_called).map(|slot| slot.channel.id()))?
    }

    /// Whether the rows of a channel are known to be the newest: since the start its peer was in step with them and is so
    /// still, or the channel has ended; one that failed, once the chain shows by what it ended. Those of a frozen one never
    /// are.
    pub fn is_proven(&self, channel: &ChannelId) -> bool {
        let Some(Registered { peer, .. }) = self.deliver.registered(channel) else {
            return !self.env.frozen.contains(channel);
        };
        let proves = |slot: &Slot| match slot.channel.phase() {
            Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } => {
                matches!(slot.channel.link(), Link::Connected(_))
            }
            Phase::Failed { spend, .. } => spend.is_some(),
            Phase::Closing { .. } | Phase::Closed { .. } => true,
        };
        self.directory.with(&peer, |peer| peer.slots.get(channel).is_none_or(proves)).unwrap_or(true)
    }
}
