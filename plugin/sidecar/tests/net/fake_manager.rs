//! A manager that only writes down what it hears.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use outrigger_bolt::id::NodeId;
use outrigger_bolt::wire::{Init, Message};
use outrigger_sidecar::manager::outbox::{Connection, Heard, Origin, Outbox, PeerHandler, Room};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::PATIENCE;

pub(super) enum Event {
    Connected(NodeId, Init, Connection, Outbox),
    Message(Connection, Box<Message>, usize),
    Disconnected(Connection),
}

pub(super) struct FakeManager {
    init: Init,
    refusal: Mutex<Option<String>>,
    room: watch::Sender<bool>,
    events: mpsc::UnboundedSender<Event>,
    next: AtomicU64,
    /// How many messages came together each time.
    groups: Mutex<Vec<usize>>,
}

/// What the manager heard, in order.
pub(super) struct Events(mpsc::UnboundedReceiver<Event>);

impl FakeManager {
    pub(super) fn new(init: Init) -> (Arc<Self>, Events) {
        let (events, heard) = mpsc::unbounded_channel();
        let room = watch::Sender::new(true);
        let manager =
            Self { init, refusal: Mutex::new(None), room, events, next: AtomicU64::new(1), groups: Mutex::default() };
        (Arc::new(manager), Events(heard))
    }

    pub(super) fn set_room(&self, room: bool) {
        self.room.send_replace(room);
    }

    pub(super) fn refuse(&self, reason: &str) {
        *self.refusal.lock() = Some(reason.to_owned());
    }

    pub(super) fn groups(&self) -> Vec<usize> {
        self.groups.lock().clone()
    }

    fn tell(&self, event: Event) {
        // A test that has ended listens no more.
        let _ = self.events.send(event);
    }
}

impl PeerHandler for FakeManager {
    fn our_init(&self) -> Init {
        self.init.clone()
    }

    fn connected(&self, peer: NodeId, _: Origin, init: &Init, outbox: Outbox) -> Result<Connection, String> {
        if let Some(reason) = self.refusal.lock().clone() {
            return Err(reason);
        }
        let connection = Connection(self.next.fetch_add(1, Ordering::SeqCst));
        self.tell(Event::Connected(peer, init.clone(), connection, outbox));
        Ok(connection)
    }

    fn messages(&self, _peer: &NodeId, connection: Connection, heard: Vec<Heard>) {
        self.groups.lock().push(heard.len());
        for Heard { message, bytes } in heard {
            self.tell(Event::Message(connection, Box::new(message), bytes));
        }
    }

    fn room<'a>(&'a self, _peer: &'a NodeId) -> Room<'a> {
        let mut room = self.room.subscribe();
        Box::pin(async move {
            room.wait_for(|room| *room).await.unwrap();
        })
    }

    fn disconnected(&self, _peer: &NodeId, connection: Connection) {
        self.tell(Event::Disconnected(connection));
    }
}

impl Events {
    pub(super) async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.0.recv()).await.expect("nothing was heard").unwrap()
    }

    pub(super) async fn connected(&mut self) -> (NodeId, Connection, Outbox) {
        match self.next().await {
            Event::Connected(peer, _, connection, outbox) => (peer, connection, outbox),
            Event::Message(_, message, _) => panic!("{} instead of a connection", message.name()),
            Event::Disconnected(_) => panic!("an end instead of a connection"),
        }
    }

    pub(super) async fn message(&mut self) -> (Connection, Message, usize) {
        match self.next().await {
            Event::Message(connection, message, bytes) => (connection, *message, bytes),
            Event::Connected(..) => panic!("a connection instead of a message"),
            Event::Disconnected(_) => panic!("an end instead of a message"),
        }
    }

    pub(super) async fn disconnected(&mut self) -> Connection {
        match self.next().await {
            Event::Disconnected(connection) => connection,
            Event::Connected(..) => panic!("a connection instead of an end"),
            Event::Message(_, message, _) => panic!("{} instead of an end", message.name()),
        }
    }

    /// Nothing was heard up to now.
    pub(super) fn none(&mut self) -> bool {
        self.0.is_empty()
    }
}
