//! Models of what threads share: mailboxes, the writer's queue with delivery behind it, and the set of onions, under many
//! schedules of their threads. A schedule that fails is printed, and `shuttle::replay` runs it again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use outrigger_bolt::wire::{Padding, Ping, UpdateFee};
use redb::backends::InMemoryBackend;
use shuttle::rand::Rng;
use shuttle::thread;

use super::*;
use crate::lock::Mutex;
use crate::manager::directory::Posted;
use crate::manager::outbox::{Next, OutboxReader, outbox};
use crate::manager::peer::Live;
use crate::manager::relay::onions::{Onions, Seen, Unprocessed};
use crate::store::schema::Table;
use crate::store::{Address, Commits};

/// Schedules of each model, by chance: a fair choice, since tasks that have nothing to do yield and look again.
fn check(model: fn()) {
    shuttle::check_random(model, 800);
}

/// Runs the tasks until each has said that it is done.
fn join(tasks: Vec<thread::JoinHandle<()>>) {
    tasks.into_iter().for_each(|task| task.join().expect("a task of the model"));
}

/// The workers' queue, of which a model sees every step.
#[derive(Default)]
struct Queue {
    peers: Mutex<VecDeque<NodeId>>,
}

/// What two posters have sent, as the workers found it.
#[derive(Default)]
struct Read {
    mail: Mutex<Vec<u64>>,
}

impl Read {
    fn count(&self) -> usize {
        self.mail.lock().len()
    }
}

const POSTERS: u64 = 2;
const EACH: u64 = 3;

/// A piece of mail of this number; the last one of each poster makes those before it count, which may be updates.
fn piece(number: u64) -> Mail {
    let is_last = number % EACH == EACH - 1;
    if is_last || shuttle::rand::thread_rng().gen_bool(0.5) {
        return Mail::Disconnected { connection: number };
    }
    let (channel_id, feerate_per_kw) = (ChannelId([1; 32]), FeeratePerKw::FLOOR);
    let message = Box::new(Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw }));
    Mail::Message { connection: number, message, bytes: 38 }
}

/// As the manager posts to a peer that may be forgotten at any moment.
fn post(directory: &PeerDirectory, queue: &Queue, peer: NodeId, number: u64) {
    let mut mail = piece(number);
    loop {
        directory.ensure(peer);
        match directory.post(&peer, mail) {
            Posted::Waiting => return,
            Posted::Schedule => return queue.peers.lock().push_back(peer),
            Posted::NoSuchPeer(returned) => mail = *returned,
        }
    }
}

/// As the manager's workers work: two pieces of mail a visit.
fn work(directory: &PeerDirectory, queue: &Queue, read: &Read) {
    while read.count() < usize::try_from(POSTERS * EACH).unwrap() {
        let next = queue.peers.lock().pop_front();
        let Some(peer) = next else {
            thread::yield_now();
            continue;
        };
        let mail = directory.take_mail(&peer, 2);
        let visited = directory.with(&peer, |_| {
            for piece in mail {
                let (Mail::Disconnected { connection } | Mail::Message { connection, .. }) = piece else {
                    panic!("{piece:?}")
                };
                read.mail.lock().push(connection);
            }
        });
        assert!(visited.is_some(), "mail was taken of a peer that is gone");
        if directory.give_back(&peer) {
            directory.forget_idle(&peer);
        } else {
            queue.peers.lock().push_back(peer);
        }
    }
}

#[test]
fn mail_is_read_once_in_its_order_whoever_posts_works_or_forgets_the_peer() {
    check(|| {
        let directory = Arc::new(PeerDirectory::default());
        let (queue, read) = (Arc::new(Queue::default()), Arc::new(Read::default()));
        let peer = id_of(1);
        let mut tasks = Vec::new();
        for poster in 0..POSTERS {
            let (directory, queue) = (directory.clone(), queue.clone());
            tasks.push(thread::spawn(move || {
                for piece in 0..EACH {
                    // The workers may be through with all that there was.
                    (0..shuttle::rand::thread_rng().gen_range(0..20)).for_each(|_| thread::yield_now());
                    post(&directory, &queue, peer, poster * EACH + piece);
                }
            }));
        }
        for _ in 0..2 {
            let (directory, queue, read) = (directory.clone(), queue.clone(), read.clone());
            tasks.push(thread::spawn(move || work(&directory, &queue, &read)));
        }
        join(tasks);
        let read = read.mail.lock().clone();
        for poster in 0..POSTERS {
            let of_poster: Vec<_> = read.iter().copied().filter(|piece| piece / EACH == poster).collect();
            assert_eq!(of_poster, (poster * EACH..(poster + 1) * EACH).collect::<Vec<_>>());
        }
        assert_eq!(read.len(), 6);
    });
}

/// A file in memory, its writer's end, and who reads it.
fn file() -> (Writer, Commits, Reader) {
    let db = Arc::new(redb::Database::builder().create_with_backend(InMemoryBackend::new()).unwrap());
    let transaction = db.begin_write().unwrap();
    for table in Table::ALL {
        transaction.open_table(table.definition()).unwrap();
    }
    transaction.commit().unwrap();
    let (writer, commits) = Writer::new(db.clone()).unwrap();
    (writer, commits, Reader::new(db))
}

/// What is in a connection's queue now, by the numbers of its pings.
fn sent(reader: &mut OutboxReader) -> Vec<u16> {
    let mut next = pin!(reader.next());
    match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending | Poll::Ready(Next::Closed(_)) => Vec::new(),
        Poll::Ready(Next::Messages(messages)) => {
            let number = |bytes: &[u8]| match Message::decode(bytes).unwrap() {
                Message::Ping(ping) => ping.num_pong_bytes,
                other => panic!("{other:?}"),
            };
            messages.iter().map(|message| number(&message.bytes)).collect()
        }
    }
}

/// The row that stands behind a message.
fn row_of(peer: &NodeId, number: u16) -> NodeId {
    let first = u16::from(peer.serialize()[1]) << 8;
    id_of(first.wrapping_add(number))
}

/// Two peers' steps, the writer, a socket that sends what is delivered, and a connection that is replaced meanwhile.
struct Delivery {
    directory: Arc<PeerDirectory>,
    deliver: Arc<Deliver>,
    writer: Writer,
    reader: Reader,
    /// Which connection each message was made for: peer, number, connection.
    made: Mutex<Vec<(NodeId, u16, u64)>>,
    _ends: (Receiver<NodeId>, Receiver<PaymentNotice>, Receiver<ChainOrder>),
}

impl Delivery {
    fn new() -> (Self, Commits) {
        let (work, mailboxes) = crossbeam_channel::unbounded();
        let (payments, notices) = crossbeam_channel::unbounded();
        let (chain, orders) = crossbeam_channel::unbounded();
        let directory = Arc::new(PeerDirectory::default());
        let ends = Ends { payments, chain, events: watch::channel(0).0 };
        let deliver = Arc::new(Deliver::new(directory.clone(), work, ends));
        let (writer, commits, reader) = file();
        let made = Mutex::default();
        (Self { directory, deliver, writer, reader, made, _ends: (mailboxes, notices, orders) }, commits)
    }

    /// What net does when a peer has come.
    fn connect(&self, peer: NodeId, connection: u64) -> OutboxReader {
        let (outbox, socket) = outbox(1 << 20);
        assert!(self.deliver.connected(peer, connection, Origin::Us, outbox));
        self.directory.ensure(peer);
        let features = Features::init();
        self.directory
            .with(&peer, |peer| peer.live = Some(Live { connection, features, answered: Default::default() }));
        socket
    }

    /// One step: a row, and a message that stands on it, queued under the peer's lock.
    fn step(&self, peer: NodeId, number: u16) {
        self.directory.with(&peer, |state| {
            let at = Address { peer, connection: state.connection(), channel: ChannelId([0; 32]) };
            self.made.lock().push((peer, number, at.connection));
            let mut batch = Batch::default();
            batch.put(Table::PeerAddress, row_of(&peer, number).serialize().to_vec(), Some(b"durable:1".to_vec()));
            let ping = Ping { num_pong_bytes: number, byteslen: Padding(0) };
            batch.hold_effect(at, Effect::Send(Message::Ping(ping)));
            self.writer.submit(batch);
        });
    }

    fn made_for(&self, peer: NodeId, connection: u64) -> Vec<u16> {
        let made = self.made.lock();
        made.iter().filter(|(of, _, on)| (*of, *on) == (peer, connection)).map(|(_, number, _)| *number).collect()
    }
}

const STEPS: u16 = 4;

/// The writer's thread, as far as it is one of the model's.
fn commit_all(delivery: &Delivery, commits: &mut Commits) {
    let mut released = 0;
    while released < 2 * STEPS {
        if commits.waiting() == 0 {
            thread::yield_now();
            continue;
        }
        let before = commits.waiting();
        let (effects, seq) = commits.next(2).unwrap().unwrap();
        released += u16::try_from(before.min(2)).unwrap();
        thread::yield_now();
        delivery.deliver.deliver(effects, seq);
    }
}

#[test]
fn cst_2_what_is_sent_is_durable_in_the_order_of_the_states_and_for_no_newer_connection() {
    check(|| {
        let (one, other) = (id_of(1), id_of(2));
        let (delivery, mut commits) = Delivery::new();
        let delivery = Arc::new(delivery);
        let (mut of_one, mut of_other) = (delivery.connect(one, 1), delivery.connect(other, 1));
        let mut tasks = Vec::new();
        for peer in [one, other] {
            let delivery = delivery.clone();
            tasks.push(thread::spawn(move || (1..=STEPS).for_each(|number| delivery.step(peer, number))));
        }
        let committing = delivery.clone();
        tasks.push(thread::spawn(move || commit_all(&committing, &mut commits)));
        let replacing = delivery.clone();
        let newer = Arc::new(Mutex::new(None));
        let socket = newer.clone();
        tasks.push(thread::spawn(move || {
            replacing.deliver.disconnected(&one, 1);
            thread::yield_now();
            *socket.lock() = Some(replacing.connect(one, 2));
        }));
        // The socket of the other peer: whatever it finds to send is in the file.
        let reading = delivery.clone();
        tasks.push(thread::spawn(move || {
            let mut found = Vec::new();
            while found.len() < usize::from(STEPS) {
                let sent = sent(&mut of_other);
                for number in &sent {
                    let row = reading.reader.peer_address(&row_of(&other, *number)).unwrap();
                    assert!(row.is_some(), "message {number} left before its row was durable");
                }
                found.extend(sent);
                thread::yield_now();
            }
            assert_eq!(found, (1..=STEPS).collect::<Vec<_>>());
        }));
        join(tasks);
        let mut of_newer = newer.lock().take().unwrap();
        for (socket, connection) in [(&mut of_one, 1), (&mut of_newer, 2)] {
            let (sent, made) = (sent(socket), delivery.made_for(one, connection));
            // What was made for a connection that is gone is dropped from some point on; nothing is out of turn.
            assert!(made.starts_with(&sent), "connection {connection}: {sent:?} of {made:?}");
            assert!(connection == 1 || sent == made, "the connection that stands gets all that was made for it");
        }
    });
}

#[test]
fn fwd_17_of_two_peers_that_bring_one_onion_one_is_first_whenever_the_file_learns_of_it() {
    check(|| {
        let (writer, mut commits, reader) = file();
        let onions = Arc::new(Onions::default());
        let found = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in 1..=2 {
            let (onions, found, writer, reader) = (onions.clone(), found.clone(), writer.clone(), reader.clone());
            tasks.push(thread::spawn(move || {
                // Twice each: a start tells of an HTLC again.
                for _ in 0..2 {
                    let name = HtlcName { channel: ChannelId([number; 32]), htlc_id: 0 };
                    let mut batch = Batch::default();
                    let seen = onions.process((&mut batch, &reader), &[7; 32], name, (HEIGHT + 9, HEIGHT)).unwrap();
                    found.lock().push((number, seen));
                    writer.submit(batch);
                    thread::yield_now();
                }
            }));
        }
        tasks.push(thread::spawn(move || {
            let mut taken = 0;
            while taken < 4 {
                if commits.waiting() > 0 {
                    taken += 1;
                    for held in commits.next(1).unwrap().unwrap().0.open() {
                        let Held::Durable(waiter) = held else { panic!("{held:?}") };
                        // Nobody may wait for it any more.
                        let _ = waiter.send(());
                    }
                }
                thread::yield_now();
            }
        }));
        join(tasks);
        let found = found.lock().clone();
        let firsts = found.iter().filter(|(_, seen)| matches!(seen, Ok(Seen::First))).count();
        assert_eq!(firsts, 1, "{found:?}");
        let winner = found.iter().find(|(_, seen)| matches!(seen, Ok(Seen::First))).unwrap().0;
        for (number, seen) in &found {
            match seen {
                Ok(_) => assert_eq!(*number, winner, "{found:?}"),
                Err(Unprocessed::Replay) => assert_ne!(*number, winner, "{found:?}"),
                Err(Unprocessed::TooFar) => panic!("{found:?}"),
            }
        }
    });
}
