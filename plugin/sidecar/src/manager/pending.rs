//! Channels in the making that peers ask for: how many there may be, and how long one may take.
//!
//! They cost the peer nothing before their funding transaction is in a block, so they are counted when the message
//! comes, before anything is made of it (FND-6, FND-7).

use std::collections::HashSet;
use std::time::Duration;

use outrigger_bolt::id::NodeId;

use crate::lock::Mutex;

/// Channels by one peer that are not confirmed yet, unless the operator allows more.
pub const MAX_PENDING_PER_PEER: usize = 4;
/// Peers that have channels pending and no channel that was ever funded. Those with one are a class of their own: they
/// are kept out by nobody.
pub const MAX_PENDING_PEERS: usize = 50;
/// An opening in which the peers take longer to sign is over: its coins and its place are free again (FND-9, FND-13).
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(600);

/// Who has channels in the making. A leaf lock; the hash is seeded at random, since peers choose their keys (DOS-6).
#[derive(Debug)]
pub(super) struct Pending {
    most_per_peer: usize,
    peers: Mutex<Peers>,
}

impl Default for Pending {
    fn default() -> Self {
        Self::of(MAX_PENDING_PER_PEER)
    }
}

#[derive(Debug, Default)]
struct Peers {
    /// Strangers with channels that they opened and that are in no block.
    strangers: HashSet<NodeId>,
    /// Peers with an opening under way, ours included.
    opening: HashSet<NodeId>,
}

impl Pending {
    /// With so many channels of one peer at once.
    pub(super) fn of(most_per_peer: usize) -> Self {
        Self { most_per_peer, peers: Mutex::default() }
    }

    /// Whether a peer with so many channels in the making may begin another.
    pub(super) fn has_room(&self, of_peer: usize) -> bool {
        of_peer < self.most_per_peer
    }

    /// Counts a stranger in; false where there are too many. Whoever asks must [`note`](Self::note) in the same visit
    /// how it came out.
    pub(super) fn admit(&self, peer: NodeId) -> bool {
        let mut peers = self.peers.lock();
        let has_room = peers.strangers.len() < MAX_PENDING_PEERS || peers.strangers.contains(&peer);
        if has_room {
            peers.strangers.insert(peer);
        }
        has_room
    }

    /// How a peer stands after a visit.
    pub(super) fn note(&self, peer: NodeId, is_pending_stranger: bool, is_opening: bool) {
        let mut peers = self.peers.lock();
        let Peers { strangers, opening } = &mut *peers;
        for (set, belongs) in [(strangers, is_pending_stranger), (opening, is_opening)] {
            if belongs {
                set.insert(peer);
            } else {
                set.remove(&peer);
            }
        }
    }

    /// Peers with an opening under way.
    pub(super) fn opening(&self) -> Vec<NodeId> {
        self.peers.lock().opening.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnd_6_a_peer_has_four_channels_in_the_making_or_as_many_as_the_operator_says() {
        for (pending, most) in [(Pending::default(), 4), (Pending::of(1000), 1000), (Pending::of(1), 1)] {
            assert!(pending.has_room(most - 1));
            assert!(!pending.has_room(most));
        }
    }
}
