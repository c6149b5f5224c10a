//! The seam between the manager and the sockets: the door by which messages come in, the queue by which they go out.
//!
//! A queue belongs to one connection and dies with it, so nothing that was queued before a disconnect can reach the
//! next session (CST-2). It is bounded in bytes: a peer that does not read loses its connection, never our memory.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use outrigger_bolt::id::NodeId;
use outrigger_bolt::wire::{Init, Message};
use tokio::sync::Notify;

use crate::lock::Mutex;

/// The generation of a connection: a later connection of the same peer has a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The peer came to us.
    Peer,
    /// We went to the peer, because somebody wanted it.
    Us,
}

/// A message that was read.
#[derive(Debug)]
pub struct Heard {
    pub message: Message,
    /// Its length on the wire, its `type` included.
    pub bytes: usize,
}

/// Resolves once the peer's mailbox and the writer are under their budgets.
pub type Room<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What the sockets need of the manager. No method blocks: each is called from a task of the socket runtime.
pub trait PeerHandler: Send + Sync + 'static {
    /// The `init` that we send: our features, and our chain in `networks`.
    fn our_init(&self) -> Init;

    /// A peer has proved its key and its `init` is acceptable. Whatever goes into `outbox` from here on follows our
    /// `init`. An error is told to the peer in a `warning`, and the connection ends.
    ///
    /// At most one connection of a peer is up: the older one has been told `disconnected` before this call.
    fn connected(&self, peer: NodeId, origin: Origin, init: &Init, outbox: Outbox) -> Result<Connection, String>;

    /// Messages other than `init`, `ping` and `pong` that came together, in their order.
    fn messages(&self, peer: &NodeId, connection: Connection, heard: Vec<Heard>);

    /// Until this resolves nothing more is read from the peer's socket. Writing goes on meanwhile.
    fn room<'a>(&'a self, peer: &'a NodeId) -> Room<'a>;

    /// The connection is over: exactly once for each `connected` that succeeded, and no `messages` follow it.
    fn disconnected(&self, peer: &NodeId, connection: Connection);
}

/// A message in the form in which it waits.
pub struct Outgoing {
    /// The message type (BOLT 1).
    pub type_number: u16,
    /// Type and payload, at most 65535 bytes.
    pub bytes: Vec<u8>,
}

/// What the writer of a connection finds in its queue.
pub enum Next {
    /// Messages to send, in order; never empty.
    Messages(Vec<Outgoing>),
    /// The queue was closed, and everything that was to be sent has been handed out.
    Closed(Closed),
}

/// Why a queue takes no more messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// [`Outbox::close`] was called; what stood in the queue is still sent.
    OnRequest(String),
    /// The peer does not read: more than the budget had gathered. What stood in the queue is dropped.
    OverBudget {
        /// The budget that was exceeded, in bytes.
        max_bytes: usize,
    },
    /// The connection ended.
    Disconnected,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnRequest(reason) => f.write_str(reason),
            Self::OverBudget { max_bytes } => write!(f, "more than {max_bytes} bytes waited for the peer to read"),
            Self::Disconnected => f.write_str("the connection has ended"),
        }
    }
}

/// How much the writer takes at once, in bytes: enough for one write to be worth its system call.
const TAKE_BYTES: usize = 64 * 1024;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    /// Bytes waiting, and bytes taken by the writer but not yet written.
    bytes: usize,
    taken: usize,
    closed: Option<Closed>,
}

struct Shared {
    /// A leaf lock: nothing else is locked while it is held.
    queue: Mutex<Queue>,
    max_bytes: usize,
    changed: Notify,
    overflowed: Notify,
}

/// The sending end of a connection's queue. Clones send into the same connection.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// The socket's end of a connection's queue. Dropping it closes the queue.
pub struct OutboxReader {
    shared: Arc<Shared>,
}

/// The queue of one connection. It holds at most `max_bytes` bytes of messages, those being written included, and whatever was
/// queued together with the last of them.
pub fn outbox(max_bytes: usize) -> (Outbox, OutboxReader) {
    let shared =
        Arc::new(Shared { queue: Mutex::default(), max_bytes, changed: Notify::new(), overflowed: Notify::new() });
    (Outbox { shared: Arc::clone(&shared) }, OutboxReader { shared })
}

impl Outbox {
    /// Queues a message and never blocks. False where the connection is closed or closing; a message that does not fit
    /// the budget, or not a message's 65535 bytes, closes it.
    pub fn send(&self, message: Message) -> bool {
        self.send_all(vec![message])
    }

    /// The same with messages that belong together: they go out in one piece where they fit.
    pub fn send_all(&self, messages: Vec<Message>) -> bool {
        let mut unfit = None;
        let outgoing: Vec<_> = messages
            .into_iter()
            .map_while(|message| match message.encode() {
                Ok(bytes) => Some(Outgoing { type_number: message.type_number(), bytes }),
                Err(error) => {
                    unfit = Some(format!("{} cannot be sent: {error}", message.name()));
                    None
                }
            })
            .collect();
        let pushed = self.shared.queue.lock().push(outgoing, self.shared.max_bytes);
        match pushed {
            Pushed::Waits => self.shared.changed.notify_one(),
            Pushed::TooMuch => self.shared.overflowed.notify_one(),
            Pushed::Closed => {}
        }
        let is_unfit = unfit.is_some();
        unfit.into_iter().for_each(|reason| self.close(reason));
        pushed == Pushed::Waits && !is_unfit
    }

    /// Ends the connection once what is queued has been sent. The first reason stands.
    pub fn close(&self, reason: impl Into<String>) {
        self.shared.queue.lock().closed.get_or_insert_with(|| Closed::OnRequest(reason.into()));
        self.shared.changed.notify_one();
    }

    /// Whether messages are no longer taken.
    pub fn is_closed(&self) -> bool {
        self.shared.queue.lock().closed.is_some()
    }

    /// Bytes of messages that wait or are being written.
    pub fn queued_bytes(&self) -> usize {
        let queue = self.shared.queue.lock();
        queue.bytes.saturating_add(queue.taken)
    }
}

impl OutboxReader {
    /// The next messages in order, or why there are none to come. What the call before gave counts as written.
    ///
    /// Cancel safe: a call that is dropped before it resolves has taken nothing.
    pub async fn next(&mut self) -> Next {
        self.shared.queue.lock().taken = 0;
        loop {
            if let Some(next) = self.shared.queue.lock().take() {
                return next;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Resolves when the budget is exceeded, so that a write in which the peer lets us hang can be given up.
    pub fn overflow(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.overflowed.notified().await }
    }
}

impl Drop for OutboxReader {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed.get_or_insert(Closed::Disconnected);
        queue.clear();
        queue.taken = 0;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushed {
    Waits,
    TooMuch,
    Closed,
}

impl Queue {
    /// Takes all of what belongs together where the first of it fits. A peer that reads what there is finds room for the words
    /// of one commit, however many they are; after every reconnection they would be as many again.
    fn push(&mut self, messages: Vec<Outgoing>, max_bytes: usize) -> Pushed {
        if self.closed.is_some() {
            return Pushed::Closed;
        }
        let Some(first) = messages.first() else { return Pushed::Waits };
        if self.bytes.saturating_add(self.taken).saturating_add(first.bytes.len()) > max_bytes {
            self.clear();
            self.closed = Some(Closed::OverBudget { max_bytes });
            return Pushed::TooMuch;
        }
        for message in messages {
            self.bytes = self.bytes.saturating_add(message.bytes.len());
            self.waiting.push_back(message);
        }
        Pushed::Waits
    }

    fn take(&mut self) -> Option<Next> {
        let mut messages = Vec::new();
        while self.taken < TAKE_BYTES
            && let Some(message) = self.waiting.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(message.bytes.len());
            self.taken = self.taken.saturating_add(message.bytes.len());
            messages.push(message);
        }
        if messages.is_empty() {
            return self.closed.clone().map(Next::Closed);
        }
        Some(Next::Messages(messages))
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }
}
