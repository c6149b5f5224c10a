//! Whether the peer is still there: `ping` when it is quiet or when what we sent is unconfirmed, and an end when no
//! `pong` comes back (BOLT 1, "The `ping` and `pong` Messages").
//!
//! A commitment sent into a dead connection would pin its HTLCs until their deadline (CST-14). Messages arrive in
//! order, so the answer to a `ping` proves that everything sent before it arrived. What it does not prove is that the
//! peer's channel still works: that is known by the answer that some messages of ours are owed, [`Owed`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{ClosingComplete, CommitmentSigned, Error, Padding, Ping, Pong};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::lock::Mutex;

/// A peer from which nothing came for this long is pinged.
pub const PING_WHEN_IDLE: Duration = Duration::from_secs(60);
/// What we sent is confirmed by a `ping` at most this much later.
pub const PING_AFTER_SEND: Duration = Duration::from_secs(5);
/// A `pong` that takes longer ends the connection. Channels are not failed for it (BOLT 1).
pub const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// A `revoke_and_ack` or `closing_sig` that takes longer ends the connection, whatever else the peer answers: the next
/// one begins with `channel_reestablish`, which heals most of what can be wrong. Channels are not failed for it (CST-14).
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The `num_pong_bytes` that we ask for, so that a `pong` can be told from one that answers nothing.
const NUM_PONG_BYTES: u16 = 16;
/// Names all channels with the peer (BOLT 1, "The `error` and `warning` Messages").
const ALL_CHANNELS: ChannelId = ChannelId([0; 32]);

/// The answer that a message of ours asks for, one at a time on each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owed {
    /// To `commitment_signed` (BOLT 2, "Completing the Transition to the Updated State").
    RevokeAndAck,
    /// To `closing_complete`. BOLT 2: without it no other may be sent, and the connection should be closed.
    ClosingSig,
}

impl Owed {
    /// What a message of this type is owed.
    const fn to(type_number: u16) -> Option<Self> {
        match type_number {
            CommitmentSigned::TYPE => Some(Self::RevokeAndAck),
            ClosingComplete::TYPE => Some(Self::ClosingSig),
            _ => None,
        }
    }
}

impl fmt::Display for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RevokeAndAck => "revoke_and_ack",
            Self::ClosingSig => "closing_sig",
        })
    }
}

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
    /// When the answers of each channel are overdue. No longer than twice the list of our channels with the peer.
    answers_due: BTreeMap<(ChannelId, Owed), Instant>,
    /// Reads are paused: a `pong` may wait unread, and its absence says nothing.
    paused: bool,
}

/// What the peer owes for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Pong,
    Answer(ChannelId, Owed),
}

enum Tick {
    Ping,
    Overdue(Overdue),
    Until(Instant),
    Paused,
}

impl Keepalive {
    /// A connection on which both `init` messages have just passed.
    pub(super) fn new() -> Self {
        let state = State {
            heard: Instant::now(),
            unconfirmed: None,
            pong_due: None,
            answers_due: BTreeMap::new(),
            paused: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// A whole message came from the peer.
    pub(super) fn heard(&self) {
        self.state.lock().heard = Instant::now();
    }

    /// A message was written.
    pub(super) fn sent(&self, type_number: u16, message: &[u8]) {
        if matches!(type_number, Ping::TYPE | Pong::TYPE) {
            return;
        }
        let mut state = self.state.lock();
        state.unconfirmed.get_or_insert_with(Instant::now);
        if let Some(channel) = channel_after_type(message) {
            if let Some(owed) = Owed::to(type_number) {
                state.answers_due.entry((channel, owed)).or_insert_with(|| Instant::now() + ANSWER_TIMEOUT);
            }
            if type_number == Error::TYPE {
                state.expect_nothing_of(channel);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The peer sent what a message of ours on this channel was owed.
    pub(super) fn paid(&self, channel: ChannelId, owed: Owed) {
        self.state.lock().answers_due.remove(&(channel, owed));
    }

    /// The peer sent the `error` after which nothing of this channel comes.
    pub(super) fn failed(&self, channel: ChannelId) {
        self.state.lock().expect_nothing_of(channel);
    }

    /// A `pong` came. False where it answers no `ping` of ours: it is then ignored.
    pub(super) fn answered(&self, pong: &Pong) -> bool {
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

    /// Reading goes on: what may have waited unread has its full time again.
    pub(super) fn resume(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.paused = false;
        state.heard = now;
        state.pong_due = state.pong_due.map(|due| due.max(now + PONG_TIMEOUT));
        for due in state.answers_due.values_mut() {
            *due = (*due).max(now + ANSWER_TIMEOUT);
        }
        self.changed.notify_one();
    }

    /// Sends a `ping` whenever one is due; resolves when something is overdue.
    pub(super) async fn overdue(&self, mut send: impl FnMut(Ping)) -> Overdue {
        loop {
            let tick = self.state.lock().tick(Instant::now());
            match tick {
                Tick::Ping => send(Ping { num_pong_bytes: NUM_PONG_BYTES, byteslen: Padding(0) }),
                Tick::Overdue(what) => return what,
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
    /// An `error` was said, by whichever side.
    fn expect_nothing_of(&mut self, channel: ChannelId) {
        self.answers_due.retain(|(owner, _), _| channel != ALL_CHANNELS && *owner != channel);
    }

    fn tick(&mut self, now: Instant) -> Tick {
        if self.paused {
            return Tick::Paused;
        }
        let first = self.answers_due.iter().min_by_key(|(_, due)| **due).map(|(name, due)| (*name, *due));
        match first {
            Some(((channel, owed), due)) if due <= now => Tick::Overdue(Overdue::Answer(channel, owed)),
            Some((_, due)) => match self.next_ping(now) {
                Tick::Until(other) => Tick::Until(other.min(due)),
                at_once @ (Tick::Ping | Tick::Overdue(_) | Tick::Paused) => at_once,
            },
            None => self.next_ping(now),
        }
    }

    fn next_ping(&mut self, now: Instant) -> Tick {
        if let Some(due) = self.pong_due {
            return if due <= now { Tick::Overdue(Overdue::Pong) } else { Tick::Until(due) };
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

/// The `channel_id` of a message whose first field it is.
fn channel_after_type(message: &[u8]) -> Option<ChannelId> {
    message.get(2..34)?.try_into().ok().map(ChannelId)
}
