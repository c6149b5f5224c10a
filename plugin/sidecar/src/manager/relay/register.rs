//! What is dispatched and what is relayed now, in memory: the totals that the caps are held to (FWD-15, FWD-16). A start
//! makes it again from the rows of offered HTLCs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId};

use crate::lock::Mutex;

/// A received HTLC: its channel and its id, never its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcName {
    pub channel: ChannelId,
    pub htlc_id: u64,
}

/// Count and value of relayed HTLCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub htlcs: u32,
    pub value: Msat,
}

/// The most that may be relayed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// For all peers together.
    pub node: Load,
    /// For one peer that sends them.
    pub peer: Load,
}

impl Load {
    const fn with(self, amount: Msat) -> Self {
        Self { htlcs: self.htlcs.saturating_add(1), value: self.value.saturating_add(amount) }
    }

    const fn without(self, amount: Msat) -> Self {
        Self { htlcs: self.htlcs.saturating_sub(1), value: self.value.saturating_sub(amount) }
    }

    fn is_within(self, cap: Self) -> bool {
        self.htlcs <= cap.htlcs && self.value <= cap.value
    }
}

/// Received HTLCs that were dispatched, until their removal is irrevocable.
#[derive(Debug, Default)]
pub(in crate::manager) struct Register {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    dispatched: HashMap<HtlcName, Dispatched>,
    by_peer: HashMap<NodeId, Load>,
    node: Load,
}

#[derive(Clone, Copy, Debug)]
struct Dispatched {
    from: NodeId,
    /// What it brings, where it was taken for relay.
    relays: Option<Msat>,
}

impl Register {
    /// Whether the HTLC is to be dispatched now: it never was, or was taken back. From here on it is.
    pub(super) fn dispatch(&self, htlc: HtlcName, from: NodeId) -> bool {
        match self.state.lock().dispatched.entry(htlc) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Dispatched { from, relays: None });
                true
            }
        }
    }

    /// Counts a dispatched HTLC as relayed; false where that would be above a cap.
    #[must_use = "what is above a cap is not relayed"]
    pub(super) fn take(&self, htlc: HtlcName, amount: Msat, caps: &Caps) -> bool {
        let mut state = self.state.lock();
        let Some(found) = state.dispatched.get(&htlc).copied() else { return false };
        let of_peer = state.by_peer.get(&found.from).copied().unwrap_or_default().with(amount);
        let of_node = state.node.with(amount);
        if !of_peer.is_within(caps.peer) || !of_node.is_within(caps.node) {
            return false;
        }
        state.count(htlc, Dispatched { relays: Some(amount), ..found });
        true
    }

    /// An HTLC that a start found offered downstream: no cap is asked, it is there.
    pub(in crate::manager) fn load(&self, htlc: HtlcName, from: NodeId, amount: Msat) {
        self.state.lock().count(htlc, Dispatched { from, relays: Some(amount) });
    }

    /// What is relayed now.
    pub(in crate::manager) fn load_of_node(&self) -> Load {
        self.state.lock().node
    }

    /// It is decided: it counts as relayed no longer, and is still not dispatched again.
    pub(in crate::manager) fn release(&self, htlc: &HtlcName) {
        let mut state = self.state.lock();
        if let Some(found) = state.dispatched.get_mut(htlc)
            && let Some(amount) = found.relays.take()
        {
            let from = found.from;
            state.discount(from, amount);
        }
    }

    /// The removal is irrevocable, or the HTLC is to be dispatched anew.
    pub(in crate::manager) fn forget(&self, htlc: &HtlcName) {
        let mut state = self.state.lock();
        let Some(Dispatched { from, relays: Some(amount) }) = state.dispatched.remove(htlc) else { return };
        state.discount(from, amount);
    }
}

impl State {
    fn discount(&mut self, from: NodeId, amount: Msat) {
        self.node = self.node.without(amount);
        if let Entry::Occupied(mut of_peer) = self.by_peer.entry(from) {
            let left = of_peer.get().without(amount);
            if left.htlcs == 0 {
                of_peer.remove();
            } else {
                of_peer.insert(left);
            }
        }
    }

    fn count(&mut self, htlc: HtlcName, dispatched: Dispatched) {
        let amount = dispatched.relays.unwrap_or_default();
        self.node = self.node.with(amount);
        let of_peer = self.by_peer.entry(dispatched.from).or_default();
        *of_peer = of_peer.with(amount);
        self.dispatched.insert(htlc, dispatched);
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

    use super::*;

    fn node(byte: u8) -> NodeId {
        let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
        NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
    }

    fn name(htlc_id: u64) -> HtlcName {
        HtlcName { channel: ChannelId([7; 32]), htlc_id }
    }

    fn load(htlcs: u32, value: u64) -> Load {
        Load { htlcs, value: Msat::new(value) }
    }

    #[test]
    fn an_htlc_is_dispatched_once_until_it_is_forgotten() {
        let register = Register::default();
        assert!(register.dispatch(name(1), node(1)));
        assert!(!register.dispatch(name(1), node(1)));
        register.forget(&name(1));
        assert!(register.dispatch(name(1), node(1)));
        register.load(name(2), node(1), Msat::new(5));
        assert!(!register.dispatch(name(2), node(1)), "a start found it downstream");
    }

    #[test]
    fn fwd_15_fwd_16_count_and_value_are_capped_for_a_peer_and_for_the_node() {
        let caps = Caps { node: load(3, 1000), peer: load(2, 600) };
        let register = Register::default();
        let mut next = 0;
        let mut take = |peer: u8, amount: u64| {
            next += 1;
            assert!(register.dispatch(name(next), node(peer)));
            register.take(name(next), Msat::new(amount), &caps)
        };
        assert!(take(1, 500));
        assert!(!take(1, 101), "above the value of a peer");
        assert!(take(1, 100));
        assert!(!take(1, 0), "above the count of a peer");
        assert!(!take(2, 401), "above the value of the node");
        assert!(take(2, 400));
        assert!(!take(3, 0), "above the count of the node");
        register.forget(&name(1));
        assert!(register.dispatch(name(99), node(3)) && register.take(name(99), Msat::new(500), &caps));
        assert!(!register.take(name(1000), Msat::new(0), &caps), "never dispatched");
        // What is decided makes room, and is not dispatched again before it is forgotten.
        register.release(&name(99));
        register.release(&name(99));
        assert!(!register.dispatch(name(99), node(3)));
        assert!(register.dispatch(name(100), node(3)) && register.take(name(100), Msat::new(500), &caps));
    }
}
