//! Channels that an invoice may name as ways to us, kept in the order of how much they can bring: an invoice costs the same
//! whatever the number of channels (law 6). In powers of two, so that few payments move a channel.

use std::collections::BTreeSet;

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::invoice::HintHop;
use outrigger_channel::Phase;

use super::Manager;
use super::drive::Drive;
use super::forwarding::hint;
use super::peer::Peer;
use super::registered::Registered;
use crate::lock::Mutex;

/// Route hints in one invoice: a payer tries few, and each makes the invoice longer.
const MAX_HINTS: usize = 3;

/// Channels that are looked at for them. Of one power of two, which of them can bring the most is not known before.
const CANDIDATES: usize = 12;

/// The channels, the power of two of what each can bring first.
#[derive(Debug, Default)]
pub(super) struct Hints(Mutex<BTreeSet<(u32, ChannelId)>>);

impl Hints {
    /// Gives a channel its place.
    fn place(&self, channel: ChannelId, before: Option<u32>, now: Option<u32>) {
        if before == now {
            return;
        }
        let mut sorted = self.0.lock();
        if let Some(before) = before {
            sorted.remove(&(before, channel));
        }
        if let Some(now) = now {
            sorted.insert((now, channel));
        }
    }

    fn largest(&self) -> Vec<ChannelId> {
        self.0.lock().iter().rev().take(CANDIDATES).map(|(_, channel)| *channel).collect()
    }
}

impl Drive<'_> {
    /// Gives a channel its places among those that send and among those that invoices name, after whatever it went through.
    pub(super) fn rank(&self, peer: &mut Peer, channel: &ChannelId) {
        peer.rank(channel);
        let node = peer.node_id;
        let Some(slot) = peer.slots.get_mut(channel) else { return };
        let is_open = matches!(slot.channel.phase(), Phase::Normal);
        let brings = is_open.then(|| hint(node, slot, 0)).flatten().map(|(receivable, _)| receivable.get());
        let now = brings.map(|msat| msat.checked_ilog2().unwrap_or_default());
        self.env.hints.place(*channel, std::mem::replace(&mut slot.hinted, now), now);
    }

    /// Takes a channel out of its peer, and out of these places.
    pub(super) fn take_out(&self, peer: &mut Peer, channel: &ChannelId) -> Option<super::peer::Slot> {
        let slot = peer.remove(channel)?;
        self.env.hints.place(*channel, slot.hinted, None);
        Some(slot)
    }
}

impl Manager {
    /// Ways to us for an invoice (BOLT 11, field `r`): open channels whose peers have told what they ask, those that can
    /// bring the most first. No channel is announced, so a payer knows of none.
    pub fn route_hints(&self) -> Vec<Vec<HintHop>> {
        let mut hints: Vec<_> = self.env.hints.largest().iter().filter_map(|channel| self.hint_of(channel)).collect();
        hints.sort_by_key(|(receivable, _)| std::cmp::Reverse(*receivable));
        hints.into_iter().take(MAX_HINTS).map(|(_, hop)| vec![hop]).collect()
    }

    fn hint_of(&self, channel: &ChannelId) -> Option<(outrigger_bolt::amount::Msat, HintHop)> {
        let Registered { peer, .. } = self.deliver.registered(channel)?;
        let of_slot = |state: &mut Peer| {
            let slot = state.slots.get(channel).filter(|slot| matches!(slot.channel.phase(), Phase::Normal))?;
            hint(peer, slot, self.env.chain.height())
        };
        self.directory.with(&peer, of_slot)?
    }
}
