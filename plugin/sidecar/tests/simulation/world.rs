//! The world: whole nodes, their links and their chain, moved one event at a time in an order that the seed decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_bolt::wire::{ChannelUpdate, Message};
use outrigger_channel::{CHANNEL_PONG_BYTES, Command, Feerates};
use outrigger_sidecar::clock::{Clock, StandIn};
use outrigger_sidecar::manager::OpenOrder;
use outrigger_sidecar::manager::outbox::{Heard, Origin, PeerHandler, outbox};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::chain::Chain;
use super::clock::VirtualClock;
use super::disk::Content;
use super::faults::Plan;
use super::ledger::Ledger;
use super::network::{End, Link, Taken, read};
use super::node::{Node, Told, Waits};
use super::payments::Payment;
use super::signer::{Signers, Signing};
use super::sinks;

/// Bytes that may wait for a peer.
const OUTBOX_BYTES: usize = 1 << 22;

/// How often each thing has happened.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, what: &'static str, number: u64) {
        *self.0.entry(what).or_default() += number;
    }

    pub fn one(&mut self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn merge(&mut self, other: &Self) {
        for (what, number) in &other.0 {
            self.add(what, *number);
        }
    }
}

/// One thing that can happen next.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Deliver {
        link: usize,
        side: usize,
    },
    /// A side learns that its connection is over.
    Over {
        link: usize,
        side: usize,
    },
    Commit(usize),
    Visit {
        node: usize,
        at: usize,
    },
    Notice(usize),
    Order(usize),
    Block(usize),
    /// The time of an HTLC set is over.
    Time(usize),
    /// A node does the next thing for a backup.
    Sink {
        node: usize,
        at: usize,
    },
    /// A backup makes something durable, or says so.
    Backup {
        node: usize,
        at: usize,
    },
    /// A node hears something of its backups.
    News(usize),
}

pub struct World {
    pub rng: ChaCha8Rng,
    pub clock: Rc<VirtualClock>,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub chain: Chain,
    pub ledger: Ledger,
    pub signers: Signers,
    pub payments: Vec<Payment>,
    /// Hashes of which somebody has offered an HTLC by hand.
    pub replayed: BTreeSet<PaymentHash>,
    pub plan: Plan,
    pub counts: Counts,
    pub events: u64,
    trace: Trace,
    /// What stood on disks, to be put back.
    pub copies: BTreeMap<usize, Content>,
    _stand_in: StandIn,
}

/// What is done with the schedule's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    Off,
    /// Each line is printed.
    Shown,
    /// A digest of all lines is kept.
    Digested,
}

struct Trace {
    tracing: Tracing,
    digest: u64,
}

impl World {
    pub fn new(seed: u64, signing: Signing, tracing: Tracing) -> Self {
        let signers = Signers { signing, journal: Arc::default() };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, ..Self::by(Rc::new(VirtualClock::new(seed)), signers, tracing) }
    }

    /// An empty one with this clock.
    pub fn by(clock: Rc<VirtualClock>, signers: Signers, tracing: Tracing) -> Self {
        let stand_in = Clock::replace_on_this_thread(clock.clone());
        Self {
            rng: ChaCha8Rng::seed_from_u64(0),
            clock,
            nodes: Vec::new(),
            links: Vec::new(),
            chain: Chain::default(),
            ledger: Ledger::new(),
            signers,
            payments: Vec::new(),
            replayed: BTreeSet::new(),
            plan: Plan::default(),
            counts: Counts::default(),
            events: 0,
            trace: Trace { tracing, digest: 0xcbf2_9ce4_8422_2325 },
            copies: BTreeMap::new(),
            _stand_in: stand_in,
        }
    }

    /// One line of the schedule.
    pub fn note(&mut self, line: impl Display) {
        match self.trace.tracing {
            Tracing::Off => {}
            Tracing::Shown => println!("{:6} {line}", self.events),
            Tracing::Digested => {
                for byte in line.to_string().bytes() {
                    self.trace.digest = (self.trace.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
    }

    fn is_noted(&self) -> bool {
        self.trace.tracing != Tracing::Off
    }

    /// The digest of the schedule so far.
    pub fn digest(&self) -> u64 {
        self.trace.digest
    }

    fn number_of(&self, id: &NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).expect("a node of this world")
    }

    /// All that can happen next, with how readily it does.
    fn possible(&mut self) -> Vec<(Event, u32)> {
        let mut found = Vec::new();
        for (number, link) in self.links.iter().enumerate() {
            for side in 0..2 {
                if link.ends[side].is_none() {
                    continue;
                }
                if !link.wires[side].is_empty() {
                    found.push((Event::Deliver { link: number, side }, link.pace));
                } else if link.cut {
                    found.push((Event::Over { link: number, side }, link.pace));
                }
            }
        }
        let now = Clock::monotonic();
        for node in &mut self.nodes {
            let (number, pace) = (node.number, node.pace);
            if node.live.is_some() && node.is_behind(&self.chain) {
                found.push((Event::Block(number), pace));
            }
            let Some(live) = &mut node.live else { continue };
            if live.gathered.is_some() || live.duties.commits.waiting() > 0 {
                found.push((Event::Commit(number), pace));
            }
            live.gather_work();
            found.extend((0..live.work.len()).map(|at| (Event::Visit { node: number, at }, pace)));
            if !live.duties.notices.is_empty() {
                found.push((Event::Notice(number), pace));
            }
            if !live.duties.orders.is_empty() {
                found.push((Event::Order(number), pace));
            }
            if live.core.payments.next_time().is_some_and(|end| end <= now) {
                found.push((Event::Time(number), pace));
            }
            sinks::possible(node, &mut found);
        }
        found
    }

    /// Lets one thing happen. False where nothing can.
    pub fn step(&mut self) -> bool {
        let possible = self.possible();
        let Ok((event, _)) = possible.choose_weighted(&mut self.rng, |(_, weight)| *weight) else { return false };
        self.events += 1;
        self.clock.pass(Duration::from_millis(self.rng.random_range(1..20)));
        let node = self.happen(*event);
        self.after(node);
        true
    }

    /// Lets things happen until nothing can.
    pub fn rest(&mut self) {
        for _ in 0..200_000 {
            if !self.step() && !self.look_for_stalls() {
                return;
            }
        }
        panic!("the world never comes to rest");
    }

    fn happen(&mut self, event: Event) -> usize {
        match event {
            Event::Deliver { link, side } => self.deliver(link, side),
            Event::Over { link, side } => {
                let (node, peer) = self.sides(link, side);
                self.note(format_args!("{node}: the connection with {peer} is over"));
                let end = self.links[link].ends[side].take().expect("an end");
                end.outbox.close("over");
                let peer = self.nodes[peer].id;
                self.nodes[node].live().core.manager.disconnected(&peer, end.connection);
                node
            }
            Event::Commit(node) => {
                let limit = *[1, 1, 2, 3, usize::MAX, usize::MAX].choose(&mut self.rng).expect("some");
                self.note(format_args!("{node}: commits {limit} batches at most"));
                self.commit(node, limit);
                node
            }
            Event::Visit { node, at } => {
                let live = self.nodes[node].live.as_mut().expect("a live node");
                let peer = live.work.remove(at);
                live.core.manager.drain(&peer);
                let peer = self.number_of(&peer);
                self.note(format_args!("{node}: visits {peer}"));
                node
            }
            Event::Notice(node) => {
                let live = self.nodes[node].live();
                let notice = live.duties.notices.try_recv().expect("a notice");
                live.core.payments.take(notice);
                self.note(format_args!("{node}: payments take a notice"));
                node
            }
            Event::Order(node) => {
                let order = self.nodes[node].live().duties.orders.try_recv().expect("an order");
                self.carry_out(node, order);
                node
            }
            Event::Time(node) => {
                self.nodes[node].live().core.payments.on_time();
                self.note(format_args!("{node}: payments do what has its time"));
                node
            }
            Event::Block(node) => {
                self.nodes[node].follow(&self.chain);
                let tip = self.nodes[node].live().tip;
                self.note(format_args!("{node}: the chain is at {tip}"));
                node
            }
            Event::Sink { node, at } => {
                self.step_sink(node, at);
                node
            }
            Event::Backup { node, at } => {
                self.complete_in_backup(node, at);
                node
            }
            Event::News(node) => {
                self.hear_of_backup(node);
                node
            }
        }
    }

    /// The node at one side of a link, and the one at the other.
    fn sides(&self, link: usize, side: usize) -> (usize, usize) {
        let nodes = self.links[link].nodes;
        (nodes[side], nodes[1 - side])
    }

    fn deliver(&mut self, link: usize, side: usize) -> usize {
        let (node, from) = self.sides(link, side);
        let (message, len) = self.links[link].wires[side].pop_front().expect("a message");
        if self.is_noted() {
            self.note(format_args!("{node}: receives {} of {from}", named(&message)));
        }
        self.ledger.arrives(node, &message);
        let end = self.links[link].ends[side].as_ref().expect("an end");
        let hand_over = match &message {
            Message::Ping(ping) => {
                if let Some(pong) = ping.answer() {
                    end.outbox.send(Message::Pong(pong));
                }
                false
            }
            Message::Pong(pong) => CHANNEL_PONG_BYTES.contains(&pong.byteslen.0),
            Message::Gossip(gossip) => gossip.type_number() == ChannelUpdate::TYPE,
            _ => true,
        };
        if hand_over {
            let peer = self.nodes[from].id;
            self.nodes[node].live().core.manager.messages(&peer, end.connection, vec![Heard { message, bytes: len }]);
        }
        node
    }

    /// The invariants of what stands on a disk.
    pub fn look_at_disk(&mut self, node: usize) {
        let Self { nodes, ledger, .. } = self;
        let deliver = nodes[node].live().core.manager.deliver();
        let peer_of = |channel: &ChannelId| {
            let peer = deliver.registered(channel)?.peer;
            nodes.iter().position(|node| node.id == peer)
        };
        ledger.committed(&nodes[node], peer_of);
        ledger.seen.events_are_told(&nodes[node]);
    }

    /// What an event at a node brings with it at once: answers to callers, and messages on the wire.
    pub fn after(&mut self, node: usize) {
        if let Some(live) = &mut self.nodes[node].live {
            live.give_up_if_restored();
        }
        for told in self.nodes[node].poll() {
            self.told(node, told);
        }
        for link in 0..self.links.len() {
            if let Some(side) = self.links[link].side_of(node) {
                self.pump(link, side);
            }
        }
        let violations = std::mem::take(&mut self.signers.journal.lock().violations);
        assert!(violations.is_empty(), "{violations:?}");
        if let Some(live) = &self.nodes[node].live {
            let mut faulty = std::pin::pin!(live.core.manager.env().faulty());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(fault) = faulty.as_mut().poll(&mut context) {
                panic!("node {node} met a fault of its own: {fault}");
            }
        }
    }

    fn pump(&mut self, link: usize, side: usize) {
        let Some(taken) = self.links[link].take(side) else { return };
        let (node, peer) = self.sides(link, side);
        let (messages, closed) = match taken {
            Taken::Messages(messages) => (messages, None),
            Taken::Closed(messages, reason) => (messages, Some(reason)),
        };
        for bytes in messages {
            let message = read(&bytes);
            if self.is_noted() {
                self.note(format_args!("{node}: sends {} to {peer}", named(&message)));
            }
            self.ledger.sent(&self.nodes[node], peer, &message, &mut self.signers.journal.lock());
            let link = &mut self.links[link];
            if !link.cut {
                link.wires[1 - side].push_back((message, bytes.len()));
            }
        }
        let Some(reason) = closed else { return };
        assert!(self.nodes[node].hangs_up, "node {node} ends its connection with node {peer}: {reason}");
        let Self { links, rng, .. } = self;
        links[link].cut(rng);
    }

    fn told(&mut self, node: usize, told: Told) {
        match told {
            Told::Invoice { answer: Err(_), .. } if self.nodes[node].is_old => {}
            Told::Invoice { payment, answer } => self.invoiced(payment, answer.expect("an invoice")),
            Told::Sent { payment, answer } => {
                let began = if answer.is_ok() { "begins" } else { "does not begin" };
                self.note(format_args!("{node}: {began} payment {payment}"));
                // An order that is repeated is answered with a payment that may be at a later attempt.
                let is_first = !self.payments.iter().any(|other| other.is_of(&answer));
                if is_first && answer.as_ref().is_ok_and(|row| row.next_part > 1) {
                    self.counts.one("payments split");
                }
                self.payments[payment].answer = Some(answer.map_err(|fault| fault.to_string()));
            }
            Told::Ordered { answer } => self.note(format_args!("{node}: answers an order: {answer:?}")),
        }
    }

    pub fn connect(&mut self, link: usize) {
        let nodes = self.links[link].nodes;
        if !self.links[link].is_idle() || nodes.iter().any(|node| self.nodes[*node].live.is_none()) {
            return;
        }
        self.note(format_args!("{} and {} connect", nodes[0], nodes[1]));
        self.links[link].cut = false;
        self.links[link].wires = Default::default();
        for side in 0..2 {
            let (node, peer) = self.sides(link, side);
            let (sender, reader) = outbox(OUTBOX_BYTES);
            let origin = if side == 0 { Origin::Us } else { Origin::Peer };
            let init = self.nodes[peer].live().core.manager.our_init();
            let manager = &self.nodes[node].live().core.manager;
            let connection = manager.connected(self.nodes[peer].id, origin, &init, sender.clone()).expect("room");
            self.links[link].ends[side] = Some(End { connection, outbox: sender, reader });
        }
        nodes.into_iter().for_each(|node| self.after(node));
    }

    pub fn disconnect(&mut self, link: usize) {
        if self.links[link].is_up() {
            self.counts.one("disconnects");
            let nodes = self.links[link].nodes;
            self.note(format_args!("the connection of {} and {} is cut", nodes[0], nodes[1]));
            let Self { links, rng, .. } = self;
            links[link].cut(rng);
        }
    }

    pub fn set_feerates(&mut self, node: usize, feerates: Feerates) {
        self.counts.one("fee changes");
        self.nodes[node].feerates = feerates;
        self.note(format_args!("{node}: commitments cost {}", feerates.commitment.get()));
        if let Some(live) = &self.nodes[node].live {
            live.core.manager.set_feerates(feerates, true);
            self.after(node);
        }
    }

    /// A node's operator opens a channel.
    pub fn open(&mut self, link: usize, side: usize, (funding, push): (u64, u64)) {
        use outrigger_bolt::amount::{Msat, Sat};
        use outrigger_sidecar::manager::operations::begin;
        let (node, peer) = self.sides(link, side);
        let (live, peer_id) = (self.nodes[node].live(), self.nodes[peer].id);
        let order = |operation| OpenOrder {
            operation,
            funding: Sat::new(funding),
            push: Msat::new(push),
            announce: false,
            funding_feerate: None,
        };
        let key = format!("{}", self.rng.random::<u64>());
        let manager = &live.core.manager;
        let begun = begin(manager, &live.core.reader, &peer_id, &key, [0; 32], order);
        // A side learns later than the world that a connection is over.
        assert!(begun.is_ok() || !self.links[link].is_up(), "an operation");
        self.after(node);
    }

    /// Gives a channel an order.
    pub fn order(&mut self, node: usize, channel: ChannelId, command: Command) {
        let live = self.nodes[node].live.as_mut().expect("a live node");
        let manager = live.core.manager.clone();
        let future = Box::pin(async move { manager.command(channel, command).await });
        live.waits.push(Waits::Order { future });
        self.after(node);
    }
}

/// A message as the schedule shows it: what it is, and of which channel.
fn named(message: &Message) -> String {
    let channel = message.channel_id().map(|channel| channel.to_string()[..6].to_owned());
    format!("{} {}", message.name(), channel.unwrap_or_default())
}
