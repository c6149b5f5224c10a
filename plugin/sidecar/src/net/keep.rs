//! Peers that are to stay connected: dialled again whenever they are not, ever more patiently.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::features::Features;
use outrigger_bolt::id::NodeId;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::dial::DialFault;
use super::{Network, Stopped};
use crate::clock::Clock;
use crate::lock::Mutex;

/// Dials of kept peers that run at once: a start with many peers does not open all sockets in one go.
const MAX_DIALS: usize = 32;

/// The waits between attempts: each may be twice as long as the one before, from 1 s to 60 s, and each lasts between
/// half and all of that, so that two nodes which dial each other do not stay in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    longest: Duration,
}

impl Backoff {
    /// The first wait is at most this.
    pub const FIRST: Duration = Duration::from_secs(1);
    /// No wait is longer.
    pub const LAST: Duration = Duration::from_secs(60);

    /// Before any attempt.
    pub fn new() -> Self {
        Self { longest: Self::FIRST }
    }

    /// The wait before the next attempt; `random` is any number, each as likely.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let half = self.longest / 2;
        self.longest = self.longest.saturating_mul(2).min(Self::LAST);
        let span = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_millis(random % span)
    }

    /// The peer was connected for this long. Only more than the longest wait makes the waits short again: a peer that
    /// accepts and hangs up is not dialled the faster for it.
    pub fn was_connected(&mut self, time: Duration) {
        if time > Self::LAST {
            self.longest = Self::FIRST;
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// Dials peers, and keeps those connected that it is told to keep.
#[derive(Clone)]
pub struct Dialer {
    shared: Arc<Kept>,
}

struct Kept {
    net: Network,
    /// The address of each kept peer, by way of which its task hears of a new one. A leaf lock.
    peers: Mutex<HashMap<NodeId, watch::Sender<String>>>,
    dials: Semaphore,
}

impl Dialer {
    pub(super) fn new(net: Network) -> Self {
        let peers = Mutex::new(HashMap::new());
        Self { shared: Arc::new(Kept { net, peers, dials: Semaphore::new(MAX_DIALS) }) }
    }

    /// Connects once, now: see [`Network::connect`].
    pub async fn connect(&self, peer: NodeId, address: &str) -> Result<Features, DialFault> {
        self.shared.net.connect(peer, address).await
    }

    /// From now on the peer is dialled at `address` (`host:port`) whenever it is not connected. A second call gives a
    /// kept peer a new address.
    pub fn keep(&self, peer: NodeId, address: impl Into<String>) {
        let address = address.into();
        let mut peers = self.shared.peers.lock();
        if let Some(kept) = peers.get(&peer) {
            kept.send_replace(address);
            return;
        }
        let (sender, receiver) = watch::channel(address);
        peers.insert(peer, sender);
        let stopped = self.shared.net.shared.stopped();
        tokio::spawn(keep(Arc::clone(&self.shared), peer, receiver, stopped));
    }

    /// Ends the connection of the peer, which is not dialled any more. Whether there was one.
    pub async fn disconnect(&self, peer: &NodeId) -> bool {
        self.drop(peer);
        self.shared.net.shared.seats.vacate(peer).await
    }

    /// The peer is not dialled any more. A connection that is up stays up.
    pub fn drop(&self, peer: &NodeId) {
        self.shared.peers.lock().remove(peer);
    }
}

/// Keeps one peer connected until it is dropped or the network stops.
async fn keep(kept: Arc<Kept>, peer: NodeId, mut address: watch::Receiver<String>, mut stopped: Stopped) {
    let mut dropped = address.clone();
    tokio::select! {
        () = redial(&kept, &peer, &mut address) => {}
        // The sender is gone when the peer is no longer kept.
        () = async { while dropped.changed().await.is_ok() {} } => {}
        () = stopped.wait() => {}
    }
}

async fn redial(kept: &Kept, peer: &NodeId, address: &mut watch::Receiver<String>) {
    let mut backoff = Backoff::new();
    let mut last_fault = None;
    loop {
        let fault = attempt(kept, peer, address).await.err();
        if let Some(fault) = &fault
            && last_fault.as_ref() != Some(fault)
        {
            tracing::info!("cannot reach {peer}: {fault}");
        }
        last_fault = fault;
        let since = Instant::now();
        kept.net.shared.seats.vacant(peer).await;
        backoff.was_connected(since.elapsed());
        tokio::select! {
            () = tokio::time::sleep(backoff.next_wait(random())) => {}
            changed = address.changed() => match changed {
                Ok(()) => backoff = Backoff::new(),
                Err(_) => return,
            },
        }
    }
}

async fn attempt(kept: &Kept, peer: &NodeId, address: &mut watch::Receiver<String>) -> Result<Features, DialFault> {
    // The semaphore is never closed, so the permit is always given.
    let _permit = kept.dials.acquire().await;
    let address = address.borrow_and_update().clone();
    kept.net.connect(*peer, &address).await
}

/// A number for the jitter. It guards nothing, so a machine without randomness only loses the jitter.
fn random() -> u64 {
    Clock::random_bytes().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        for random in [0, u64::MAX, 123_456_789] {
            let mut backoff = Backoff::new();
            for longest in [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs) {
                let wait = backoff.next_wait(random);
                assert!(wait >= longest / 2 && wait < longest, "{wait:?} of {longest:?}");
            }
        }
    }

    #[test]
    fn only_a_lasting_connection_makes_waits_short_again() {
        let mut backoff = Backoff::new();
        backoff.next_wait(0);
        for brief in [Duration::ZERO, Backoff::LAST] {
            backoff.was_connected(brief);
            assert!(backoff.next_wait(0) >= Backoff::FIRST);
        }
        backoff.was_connected(Backoff::LAST + Duration::from_millis(1));
        assert!(backoff.next_wait(0) < Backoff::FIRST);
    }

    #[test]
    fn waits_differ_by_chance() {
        assert_ne!(Backoff::new().next_wait(1), Backoff::new().next_wait(2));
    }
}
