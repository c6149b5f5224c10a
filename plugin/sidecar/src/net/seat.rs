//! One connection a peer: the newest takes the seat, and waits until the one before it is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_bolt::features::Features;
use outrigger_bolt::id::NodeId;
use tokio::sync::watch;

use crate::lock::Mutex;

/// The seats of all peers that have shown an acceptable `init`.
#[derive(Clone, Default)]
pub(super) struct Seats {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// A leaf lock. The map's hash is seeded at random, since peers choose the keys (DOS-6).
    taken: Mutex<HashMap<NodeId, Taken>>,
    next: AtomicU64,
}

struct Taken {
    number: u64,
    features: Features,
    /// True tells the holder to leave; closed once the holder has left.
    leave: watch::Sender<bool>,
}

/// A peer's only seat. Dropping it lets the next connection of the peer, or a dialler, go on.
pub(super) struct Seat {
    seats: Seats,
    peer: NodeId,
    number: u64,
    leave: watch::Receiver<bool>,
}

impl Seats {
    /// Takes the peer's seat: tells its holder to leave, and resolves once it has. `None` where a still newer
    /// connection took the seat meanwhile.
    pub(super) async fn take(&self, peer: NodeId, features: Features) -> Option<Seat> {
        let (leave, told) = watch::channel(false);
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let older = self.inner.taken.lock().insert(peer, Taken { number, features, leave });
        let seat = Seat { seats: self.clone(), peer, number, leave: told };
        if let Some(older) = older {
            older.leave.send_replace(true);
            older.leave.closed().await;
        }
        let outrun = *seat.leave.borrow();
        (!outrun).then_some(seat)
    }

    /// Has whoever holds the peer's seat leave, and resolves once it has. Whether there was one.
    pub(super) async fn vacate(&self, peer: &NodeId) -> bool {
        let Some(leave) = self.inner.taken.lock().get(peer).map(|taken| taken.leave.clone()) else { return false };
        leave.send_replace(true);
        leave.closed().await;
        true
    }

    /// The features of a peer that has a seat.
    pub(super) fn features(&self, peer: &NodeId) -> Option<Features> {
        self.inner.taken.lock().get(peer).map(|taken| taken.features.clone())
    }

    /// Resolves once no connection holds the peer's seat.
    pub(super) async fn vacant(&self, peer: &NodeId) {
        loop {
            let Some(leave) = self.inner.taken.lock().get(peer).map(|taken| taken.leave.clone()) else { return };
            leave.closed().await;
        }
    }
}

impl Seat {
    /// Resolves when a newer connection of the peer wants the seat.
    pub(super) async fn wanted(&self) {
        let mut leave = self.leave.clone();
        // An error means that the entry is gone, which only a newer connection can cause while this seat is held.
        let _ = leave.wait_for(|leave| *leave).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.inner.taken.lock();
        if taken.get(&self.peer).is_some_and(|taken| taken.number == self.number) {
            taken.remove(&self.peer);
        }
    }
}
