//! Whether the peer is still there: `ping` when it is quiet or when what we sent is unconfirmed, and an end when no
//! `pong` comes back (BOLT 1, "The `ping` and `pong` Messages").
//!
//! A commitment sent into a dead connection would pin its HTLCs until their deadline (CST-14). Messages arrive in
//! order, so the answer to a `ping` proves that everything sent before it arrived.

use std::time::Duration;

use outrigger_bolt::wire::{Padding, Ping, Pong};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A peer from which nothing came for this long is pinged.
pub const PING_WHEN_IDLE: Duration = Duration::from_secs(60);
/// What we sent is confirmed by a `ping` at most this much later.
pub const PING_AFTER_SEND: Duration = Duration::from_secs(5);
/// A `pong` that takes longer ends the connection. Channels are not failed for it (BOLT 1).
pub const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// The `num_pong_bytes` that we ask for, so that a `pong` can be told from one that answers nothing.
const NUM_PONG_BYTES: u16 = 16;

/// The liveness of one connection.
pub(super) struct Keepalive {
    /// A leaf lock.
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    heard: Instant,
    /// When the oldest message was sent that no `ping` has followed.
    unconfirmed: Option<Instant>,
    /// When the `pong` that we wait for is overdue.
    pong_due: Option<Instant>,
    /// Reads are paused: a `pong` may wait unread, and its absence says nothing.
    paused: bool,
}

enum Tick {
    Ping,
    Overdue,
    Until(Instant),
    Paused,
}

impl Keepalive {
    /// A connection on which both `init` messages have just passed.
    pub(super) fn new() -> Self {
        let state = State { heard: Instant::now(), unconfirmed: None, pong_due: None, paused: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// A whole message came from the peer.
    pub(super) fn heard(&self) {
        self.state.lock().heard = Instant::now();
    }

    /// A message other than `ping` and `pong` was written.
    pub(super) fn sent(&self) {
        self.state.lock().unconfirmed.get_or_insert_with(Instant::now);
        self.changed.notify_one();
    }

    /// A `pong` came. False where it answers no `ping` of ours: it is then ignored.
    pub(super) fn answered(&self, pong: Pong) -> bool {
        let mut state = self.state.lock();
        let answers = state.pong_due.is_some() && pong.byteslen == Padding(NUM_PONG_BYTES);
        if answers {
            state.pong_due = None;
            self.changed.notify_one();
        }
        answers
    }

    /// Reading stops until [`Keepalive::resume`].
    pub(super) fn pause(&self) {
        self.state.lock().paused = true;
        self.changed.notify_one();
    }

    /// Reading goes on: a `pong` that waited unread has its full time again.
    pub(super) fn resume(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.paused = false;
        state.heard = now;
        state.pong_due = state.pong_due.map(|due| due.max(now + PONG_TIMEOUT));
        self.changed.notify_one();
    }

    /// Sends a `ping` whenever one is due; resolves when a `pong` is overdue.
    pub(super) async fn overdue(&self, mut send: impl FnMut(Ping)) {
        loop {
            let tick = self.state.lock().tick(Instant::now());
            match tick {
                Tick::Ping => send(Ping { num_pong_bytes: NUM_PONG_BYTES, byteslen: Padding(0) }),
                Tick::Overdue => return,
                Tick::Paused => self.changed.notified().await,
                Tick::Until(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}

impl State {
    fn tick(&mut self, now: Instant) -> Tick {
        if self.paused {
            return Tick::Paused;
        }
        if let Some(due) = self.pong_due {
            return if due <= now { Tick::Overdue } else { Tick::Until(due) };
        }
        let idle = self.heard + PING_WHEN_IDLE;
        let due = self.unconfirmed.map_or(idle, |sent| idle.min(sent + PING_AFTER_SEND));
        if now < due {
            return Tick::Until(due);
        }
        self.unconfirmed = None;
        self.pong_due = Some(now + PONG_TIMEOUT);
        Tick::Ping
    }
}

/// How many of a peer's pings are answered: a burst, and one a second after that (BOLT 1 allows limits, DOS-9).
pub(super) struct PingAllowance {
    left: u32,
    counted_at: Instant,
}

impl PingAllowance {
    const BURST: u32 = 32;

    pub(super) fn new() -> Self {
        Self { left: Self::BURST, counted_at: Instant::now() }
    }

    /// Whether this `ping` is answered.
    pub(super) fn spend(&mut self) -> bool {
        let now = Instant::now();
        let seconds = now.duration_since(self.counted_at).as_secs();
        if seconds > 0 {
            self.counted_at = now;
            self.left = self.left.saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX)).min(Self::BURST);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
