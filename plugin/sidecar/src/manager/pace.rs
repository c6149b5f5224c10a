//! How fast a peer may move its channels on (CST-15). Every HTLC that was ever signed leaves a row for ever, and every
//! commitment costs a sync of the disk, so a peer that does nothing but add and remove would fill the one and hold up the
//! other. It is read more slowly instead: nothing that it sent is refused, and no channel is the worse for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use outrigger_bolt::id::NodeId;
use outrigger_bolt::wire::Message;

use crate::lock::Mutex;

/// What a peer may send at once, after a rest: more than any honest burst, and less than five megabytes on disk.
const BURST: u32 = 50_000;

/// What it may send in a second, for as long as it likes. At some 90 bytes an HTLC that is below a gigabyte a day.
const PER_SECOND: u32 = 100;

/// Peers that are remembered before those that have rested are forgotten.
const REMEMBERED: usize = 1024;

/// What each peer has left.
#[derive(Debug, Default)]
pub(super) struct Pace {
    peers: Mutex<HashMap<NodeId, Allowance>>,
}

/// What is left, in messages; below nothing, what is owed.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    at: Instant,
    told: bool,
}

impl Allowance {
    fn at(self, now: Instant) -> Self {
        let rested = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(PER_SECOND);
        Self { left: (self.left + rested).min(f64::from(BURST)), at: now, ..self }
    }

    fn is_full(self) -> bool {
        self.left >= f64::from(BURST)
    }
}

impl Pace {
    /// Counts a message that the peer sent. True the first time that it has nothing left.
    pub(super) fn count(&self, peer: &NodeId, message: &Message, now: Instant) -> bool {
        if !is_counted(message) {
            return false;
        }
        let mut peers = self.peers.lock();
        if peers.len() >= REMEMBERED && !peers.contains_key(peer) {
            peers.retain(|_, allowance| !allowance.at(now).is_full());
        }
        let fresh = Allowance { left: f64::from(BURST), at: now, told: false };
        let allowance = peers.entry(*peer).or_insert(fresh);
        let rested = allowance.at(now);
        *allowance = Allowance { left: rested.left - 1.0, ..rested };
        let is_first = allowance.left < 0.0 && !allowance.told;
        allowance.told |= is_first;
        is_first
    }

    /// How long the peer is not to be read.
    pub(super) fn pause(&self, peer: &NodeId, now: Instant) -> Duration {
        let owed = self.peers.lock().get(peer).map_or(0.0, |allowance| -allowance.at(now).left);
        if owed > 0.0 { Duration::from_secs_f64(owed / f64::from(PER_SECOND)) } else { Duration::ZERO }
    }
}

/// What makes a state, and what leaves a row of it.
fn is_counted(message: &Message) -> bool {
    matches!(message, Message::CommitmentSigned(_) | Message::UpdateAddHtlc(_))
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use outrigger_bolt::amount::FeeratePerKw;
    use outrigger_bolt::id::{ChannelId, PaymentHash};
    use outrigger_bolt::wire::{UpdateAddHtlc, UpdateFee};

    use super::*;
    use crate::clock::Clock;

    fn peer(number: u32) -> NodeId {
        let mut secret = [1; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        NodeId::new(SecretKey::from_slice(&secret).unwrap().public_key(&Secp256k1::new()))
    }

    fn add() -> Message {
        Message::UpdateAddHtlc(UpdateAddHtlc {
            channel_id: ChannelId([1; 32]),
            id: 0,
            amount_msat: outrigger_bolt::amount::Msat::new(1),
            payment_hash: PaymentHash([1; 32]),
            cltv_expiry: 1,
            onion_routing_packet: Box::new([0; 1366]),
            path_key: None,
        })
    }

    #[test]
    fn cst_15_a_peer_that_spins_states_is_read_more_slowly() {
        let (pace, now, peer, add) = (Pace::default(), Clock::monotonic(), peer(1), add());
        for _ in 0..BURST {
            assert!(!pace.count(&peer, &add, now));
        }
        assert_eq!(pace.pause(&peer, now), Duration::ZERO, "a burst is let pass");
        assert!(pace.count(&peer, &add, now), "said once");
        assert!(!pace.count(&peer, &add, now));
        let second = Duration::from_secs(1);
        assert_eq!(pace.pause(&peer, now), second * 2 / PER_SECOND);
        assert_eq!(pace.pause(&peer, now + second), Duration::ZERO);
        let later = now + second;
        for _ in 0..PER_SECOND {
            pace.count(&peer, &add, later);
        }
        assert_eq!(pace.pause(&peer, later), second * 2 / PER_SECOND, "so many a second, and no more");
    }

    #[test]
    fn cst_15_only_what_moves_a_state_is_counted_and_rested_peers_are_forgotten() {
        let (pace, now, add) = (Pace::default(), Clock::monotonic(), add());
        let fee = Message::UpdateFee(UpdateFee { channel_id: ChannelId([1; 32]), feerate_per_kw: FeeratePerKw::FLOOR });
        pace.count(&peer(0), &fee, now);
        assert!(pace.peers.lock().is_empty());
        let remembered = u32::try_from(REMEMBERED).unwrap();
        for number in 0..remembered {
            pace.count(&peer(number), &add, now);
        }
        pace.count(&peer(remembered), &add, now + Duration::from_secs(1));
        assert_eq!(pace.peers.lock().len(), 1);
    }
}
