//! Released effects to queue ends. Delivery only enqueues: it never blocks, never steps a channel, takes no peer lock.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use bitcoin::OutPoint;
use crossbeam_channel::Sender;
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_bolt::onion::FinalPayload;
use outrigger_bolt::wire::{Message, PerCommitmentSecret, RevokeAndAck};
use outrigger_channel::{
    Channel, CommandId, Effect, Guard, HtlcOutcome, HtlcSource, IncomingHtlc, Publication, Refusal, Reply, Watch,
};
use tokio::sync::{oneshot, watch};

use super::block::ChainIndex;
use super::directory::{PeerDirectory, Posted};
use super::mail::Mail;
use super::outbox::{Origin, Outbox};
use super::registered::{Channels, Named, Registered};
use super::relay::register::HtlcName;
use crate::lock::{Mutex, RwLock};
use crate::store::row::{Downstream, SettlementRow};
use crate::store::{Address, ChainOrder, Held, Released};

/// News for the owner of payments and invoices.
#[derive(Debug)]
pub enum PaymentNotice {
    /// An HTLC that ends here is irrevocably ours to decide, by what its onion says. Failures are made with the secret.
    Incoming { peer: NodeId, htlc: IncomingHtlc, shared_secret: [u8; 32], payload: Box<FinalPayload> },
    /// An HTLC of one of our payments has its answer.
    Settled { payment_id: [u8; 32], part: u16, channel: ChannelId, htlc_id: u64, outcome: HtlcOutcome },
    /// The channel took the HTLC of a part, or refused it.
    Answered { payment_id: [u8; 32], part: u16, answer: Result<Reply, Refusal> },
}

/// Who waits for the answer of a command.
#[derive(Debug)]
pub enum ReplyTo {
    Payment { payment_id: [u8; 32], part: u16 },
    Caller(oneshot::Sender<Result<Reply, Refusal>>),
}

/// The queue ends that delivery knows.
#[derive(Debug)]
pub struct Ends {
    pub payments: Sender<PaymentNotice>,
    pub chain: Sender<ChainOrder>,
    /// The newest released event.
    pub events: watch::Sender<u64>,
}

/// Connections that peers without a channel have opened to us, at most (DOS-1, DOS-7). Those with a channel, and those
/// that we dialled, are kept out by nobody.
pub const MAX_GUESTS: usize = 100;

/// The connections that stand.
#[derive(Default)]
struct Connections {
    lines: HashMap<NodeId, Line>,
    /// How many of them are guests'.
    guests: usize,
}

struct Line {
    connection: u64,
    outbox: Outbox,
    /// The peer came to us, and has had no channel since.
    is_guest: bool,
}

impl Connections {
    fn remove(&mut self, peer: &NodeId) -> Option<Line> {
        let line = self.lines.remove(peer)?;
        self.guests = self.guests.saturating_sub(usize::from(line.is_guest));
        Some(line)
    }

    fn is_no_guest(&mut self, peer: &NodeId) {
        if let Some(line) = self.lines.get_mut(peer)
            && std::mem::take(&mut line.is_guest)
        {
            self.guests = self.guests.saturating_sub(1);
        }
    }
}

/// What was released together, gathered for each peer in its order: what it is sent, and the mail for its worker.
#[derive(Default)]
struct Post {
    words: BTreeMap<NodeId, Vec<(Address, Word)>>,
    mail: BTreeMap<NodeId, Vec<Mail>>,
    /// Who is told last: what the commit had for others is on its way by then.
    waiters: Vec<oneshot::Sender<()>>,
}

/// Something for a connection.
#[expect(clippy::large_enum_variant, reason = "nearly all are messages, and none outlives a delivery")]
enum Word {
    Message(Message),
    /// The secret of the local commitment of this number, if the guard lets it go.
    Revoke {
        number: u64,
        guard: Option<Guard>,
    },
    Close(String),
}

impl Post {
    fn put(&mut self, peer: NodeId, mail: Mail) {
        self.mail.entry(peer).or_default().push(mail);
    }

    fn say(&mut self, at: Address, word: Word) {
        self.words.entry(at.peer).or_default().push((at, word));
    }
}

/// Delivers released effects.
pub struct Deliver {
    directory: Arc<PeerDirectory>,
    work: Sender<NodeId>,
    ends: Ends,
    connections: RwLock<Connections>,
    channels: RwLock<Channels>,
    replies: Mutex<HashMap<CommandId, ReplyTo>>,
    index: Mutex<ChainIndex>,
    /// Mailboxes that a worker has or will have, and notices that are not done with. Only a wait that is bounded anyhow asks.
    busy: AtomicIsize,
    /// How many transactions were handed to the broadcaster.
    published: watch::Sender<u64>,
}

impl Deliver {
    /// `work` is the queue of peers with mail, drained by the manager's workers.
    pub fn new(directory: Arc<PeerDirectory>, work: Sender<NodeId>, ends: Ends) -> Self {
        Self {
            directory,
            work,
            ends,
            connections: RwLock::default(),
            channels: RwLock::default(),
            replies: Mutex::default(),
            index: Mutex::default(),
            busy: AtomicIsize::new(0),
            published: watch::Sender::new(0),
        }
    }

    /// The one place that opens what a commit released. `last_seq` is the newest event on disk. What came together goes on
    /// together: a peer's worker finds all of its mail at once, and a channel signs for all of it at once.
    pub fn deliver(&self, released: Released, last_seq: u64) {
        let mut post = Post::default();
        for held in released.open() {
            match held {
                Held::Channel { at, effect, guard } => self.effect(at, *effect, guard, &mut post),
                Held::Order { peer, channel, id, command } => post.put(peer, Mail::Order { channel, id, command }),
                Held::Settled { peer, channel, htlc_id, settlement } => {
                    post.put(peer, Mail::Settled { channel, htlc_id, settlement });
                }
                Held::Archived { peer, channel } => post.put(peer, Mail::Archived { channel }),
                Held::Chain(order) => self.chain(order),
                Held::Durable(waiter) => post.waiters.push(waiter),
            }
        }
        post.words.into_iter().for_each(|(peer, words)| self.say(&peer, words));
        post.mail.into_iter().for_each(|(peer, mail)| self.order(&peer, mail));
        for waiter in post.waiters {
            // A caller that no longer waits needs no word.
            let _ = waiter.send(());
        }
        self.ends.events.send_if_modified(|newest| std::mem::replace(newest, last_seq) != last_seq);
    }

    /// Puts mail into a peer's box and wakes a worker if none has it.
    pub fn post(&self, peer: &NodeId, mail: Mail) -> Result<(), Box<Mail>> {
        self.wake(peer, self.directory.post(peer, mail))
    }

    /// The same with much mail at once.
    pub(super) fn post_all(&self, peer: &NodeId, mail: Vec<Mail>) -> Result<(), Vec<Mail>> {
        self.wake(peer, self.directory.post_all(peer, mail))
    }

    /// Tells a worker of a box that nobody has yet.
    fn wake<M>(&self, peer: &NodeId, posted: Posted<M>) -> Result<(), M> {
        match posted {
            Posted::Waiting => Ok(()),
            Posted::Schedule => {
                self.busy.fetch_add(1, Ordering::Relaxed);
                self.schedule(peer);
                Ok(())
            }
            Posted::NoSuchPeer(mail) => Err(mail),
        }
    }

    /// Whether a worker or the owner of payments has anything to do.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// A mailbox was given back, or a notice is done with: what came of it is in the writer's queue.
    pub fn rests(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Puts a peer that has mail at the end of the workers' queue.
    pub(super) fn schedule(&self, peer: &NodeId) {
        // The workers end only with the process.
        let _ = self.work.send(*peer);
    }

    /// Remembers where to send messages of this connection. False, and nothing is remembered, where it would be one
    /// guest too many.
    #[must_use = "a connection that was not taken is told so"]
    pub(super) fn connected(&self, peer: NodeId, connection: u64, origin: Origin, outbox: Outbox) -> bool {
        let is_guest = origin == Origin::Peer && !self.channels.read().by_peer.contains_key(&peer);
        let mut connections = self.connections.write();
        let older = connections.remove(&peer);
        let is_welcome = !is_guest || connections.guests < MAX_GUESTS;
        if is_welcome {
            connections.guests = connections.guests.saturating_add(usize::from(is_guest));
            connections.lines.insert(peer, Line { connection, outbox, is_guest });
        }
        drop(connections);
        if let Some(older) = older {
            older.outbox.close("a newer connection replaces this one");
        }
        is_welcome
    }

    /// The peers with a channel that has rows, in no order.
    pub fn peers_with_channels(&self) -> Vec<NodeId> {
        self.channels.read().by_peer.keys().copied().collect()
    }

    /// The peers that are connected now, in the order of their ids.
    pub(super) fn connected_peers(&self) -> Vec<NodeId> {
        let mut peers: Vec<_> = self.connections.read().lines.keys().copied().collect();
        peers.sort_unstable();
        peers
    }

    /// Whether a connection stands. True from `peer.connect`'s answer on: the peer's worker may hear of it later, but
    /// before any mail that is posted now.
    pub(super) fn is_connected(&self, peer: &NodeId) -> bool {
        self.connections.read().lines.contains_key(peer)
    }

    /// Forgets the connection unless a newer one stands.
    pub(super) fn disconnected(&self, peer: &NodeId, connection: u64) {
        let mut connections = self.connections.write();
        if connections.lines.get(peer).is_some_and(|line| line.connection == connection) {
            connections.remove(peer);
        }
    }

    /// Makes a channel known: whose it is, and the keys that release its secrets. False where the id is taken: two
    /// peers may name one funding output at the same time, and rows of two channels under one id would be no channel.
    #[must_use = "a channel whose id is taken must not come to life"]
    pub(super) fn register(&self, channel: ChannelId, registered: Registered) -> bool {
        let peer = registered.peer;
        let mut channels = self.channels.write();
        match channels.known.entry(channel) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(vacant) => vacant.insert(registered),
        };
        let count = channels.by_peer.entry(peer).or_default();
        *count = count.saturating_add(1);
        drop(channels);
        self.connections.write().is_no_guest(&peer);
        true
    }

    /// Forgets a channel that is in history, or never was, and what it waited for in the chain. What it had asked before
    /// its rows went was delivered before.
    pub(super) fn unregister(&self, peer: NodeId, channel: ChannelId, funding: OutPoint, waits: &[Watch]) {
        let mut channels = self.channels.write();
        // Once in the life of a channel: no index of its names is kept for that.
        channels.named.retain(|_, named| named.channel != channel);
        if channels.known.remove(&channel).is_some()
            && let Entry::Occupied(mut count) = channels.by_peer.entry(peer)
        {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(channels);
        self.index.lock().forget(peer, channel, funding, waits);
    }

    /// Takes the channel's names in. One that its type hides is for its peer alone.
    pub(super) fn name(&self, peer: NodeId, channel: &Channel) {
        let id = channel.id();
        let real = channel.rows().head.short_channel_id.map(|name| (name, false));
        let all = real.into_iter().chain(channel.names().map(|name| (name, true)));
        // Ids of two channels are equal only where a reorganisation is on its way through: the later one is right.
        let named = all.map(|(name, in_onions)| (name, Named { peer, channel: id, in_onions }));
        self.channels.write().named.extend(named);
    }

    /// A name that a reorganisation took from the channel.
    pub(super) fn unname(&self, channel: ChannelId, name: ShortChannelId) {
        let mut channels = self.channels.write();
        if channels.named.get(&name).is_some_and(|named| named.channel == channel) {
            channels.named.remove(&name);
        }
    }

    /// The channel that an onion calls so, and its peer.
    pub(super) fn named(&self, name: ShortChannelId) -> Option<(NodeId, ChannelId)> {
        let named = self.channels.read().named.get(&name).copied();
        named.filter(|named| named.in_onions).map(|named| (named.peer, named.channel))
    }

    /// The channel that its peer calls so.
    pub(super) fn named_by(&self, peer: &NodeId, name: ShortChannelId) -> Option<ChannelId> {
        let named = self.channels.read().named.get(&name).copied();
        named.filter(|named| named.peer == *peer).map(|named| named.channel)
    }

    /// What is known of a channel.
    pub fn registered(&self, channel: &ChannelId) -> Option<Registered> {
        self.channels.read().known.get(channel).cloned()
    }

    /// The channel ends with its local commitment of this number, whose row is queued: revocations that are still on their way tell
    /// nothing that could be used against it.
    pub(super) fn ends_with(&self, channel: &ChannelId, number: u64) {
        if let Some(registered) = self.registered(channel) {
            registered.closing.fetch_min(number, Ordering::AcqRel);
        }
    }

    /// Word of each transaction that was handed to the broadcaster.
    pub fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Who is to be told the answer of this command. A command without an entry is answered to nobody.
    pub fn expect_reply(&self, id: CommandId, to: ReplyTo) {
        self.replies.lock().insert(id, to);
    }

    /// Nobody will answer this command.
    pub(super) fn forget_reply(&self, id: CommandId) {
        self.replies.lock().remove(&id);
    }

    /// The index of outpoints and heights that channels wait for.
    pub(super) fn index(&self) -> &Mutex<ChainIndex> {
        &self.index
    }

    fn effect(&self, at: Address, effect: Effect, guard: Option<Guard>, post: &mut Post) {
        match effect {
            Effect::Send(message) => post.say(at, Word::Message(message)),
            Effect::Revoke { number } => post.say(at, Word::Revoke { number, guard }),
            Effect::Disconnect(reason) => post.say(at, Word::Close(reason)),
            // That it may leave is a row first: a channel that is refused before never was.
            Effect::Publish { what: Publication::Funding, tx } => {
                post.put(at.peer, Mail::FundPublicly { channel: at.channel, tx: Box::new(tx) });
            }
            Effect::Publish { what: Publication::MutualClose, tx } => self.chain(ChainOrder::Publish(tx)),
            Effect::Watch(watch) => self.watch(at, watch, post),
            Effect::Incoming(htlc) => post.put(at.peer, Mail::Incoming(htlc)),
            Effect::Settle { htlc_id, source, amount, payment_hash: _, outcome } => {
                let offered = Downstream { channel: at.channel, htlc_id, amount };
                self.settle(offered, source, outcome, post);
            }
            Effect::Reply(id, answer) => self.reply(id, answer),
            Effect::Restored { .. } => self.restored(),
            Effect::Removed { .. } | Effect::Note(_) => {}
        }
    }

    /// One channel's proof is every channel's: a row, and a message to each peer (law 3).
    fn restored(&self) {
        for peer in self.directory.ids() {
            // A peer that is forgotten meanwhile has no channel.
            drop(self.post(&peer, Mail::Restored));
        }
    }

    /// Queues what a peer is to hear, in one piece: what is read together is answered together. Words of an older connection are
    /// dropped (CST-2).
    fn say(&self, peer: &NodeId, words: Vec<(Address, Word)>) {
        let line = self.connections.read().lines.get(peer).map(|line| (line.connection, line.outbox.clone()));
        let Some((connection, outbox)) = line else { return };
        let mut messages = Vec::new();
        for (at, word) in words.into_iter().filter(|(at, _)| at.connection == connection) {
            match word {
                Word::Message(message) => messages.push(message),
                Word::Revoke { number, guard } => messages.extend(self.revocation(at.channel, number, guard)),
                Word::Close(reason) => {
                    outbox.send_all(std::mem::take(&mut messages));
                    outbox.close(reason);
                }
            }
        }
        if !messages.is_empty() {
            outbox.send_all(messages);
        }
    }

    /// The secret enters here, after the commit that made its successor durable (law 1; catalogue item 10).
    fn revocation(&self, channel_id: ChannelId, number: u64, guard: Option<Guard>) -> Option<Message> {
        let Registered { signer, closing, .. } = self.registered(&channel_id)?;
        if number >= closing.load(Ordering::Acquire) {
            tracing::warn!(channel = %channel_id, number, "the channel ends with this commitment: its secret stays");
            return None;
        }
        match signer.release_secret(number, &guard?) {
            Ok(secret) => Some(Message::RevokeAndAck(RevokeAndAck {
                channel_id,
                per_commitment_secret: PerCommitmentSecret(secret),
                next_per_commitment_point: signer.per_commitment_point(number.saturating_add(2)),
            })),
            Err(refused) => {
                tracing::error!(channel = %channel_id, number, %refused, "the signer kept a secret");
                None
            }
        }
    }

    fn watch(&self, at: Address, watch: Watch, post: &mut Post) {
        let already = self.watch_now(at.peer, at.channel, watch);
        if let Some(height) = already {
            post.put(at.peer, Mail::Height { channel: at.channel, height });
        }
    }

    /// Puts a wish into the index. Returns the height if one was wished for that is already reached.
    pub(super) fn watch_now(&self, peer: NodeId, channel: ChannelId, watch: Watch) -> Option<u32> {
        self.index.lock().watch(peer, channel, watch)
    }

    fn settle(&self, offered: Downstream, source: HtlcSource, outcome: HtlcOutcome, post: &mut Post) {
        match source {
            HtlcSource::Payment { payment_id, part } => {
                let Downstream { channel, htlc_id, amount: _ } = offered;
                self.notify(PaymentNotice::Settled { payment_id, part, channel, htlc_id, outcome });
            }
            HtlcSource::Relayed { channel, htlc_id } => {
                // A channel that is over has nothing left to settle.
                let Some(Registered { peer, .. }) = self.registered(&channel) else { return };
                let mail = match SettlementRow::of_downstream(&outcome, offered) {
                    Some(settlement) => Mail::Settled { channel, htlc_id, settlement },
                    None => Mail::Again(HtlcName { channel, htlc_id }),
                };
                post.put(peer, mail);
            }
        }
    }

    fn reply(&self, id: CommandId, answer: Result<Reply, Refusal>) {
        match self.replies.lock().remove(&id) {
            Some(ReplyTo::Payment { payment_id, part }) => {
                self.notify(PaymentNotice::Answered { payment_id, part, answer });
            }
            // A caller that no longer waits needs no word.
            Some(ReplyTo::Caller(waiter)) => drop(waiter.send(answer)),
            None => {}
        }
    }

    /// Puts what was released for a peer into its box. Orders to a peer that is gone are answered.
    fn order(&self, peer: &NodeId, mail: Vec<Mail>) {
        for returned in self.post_all(peer, mail).err().unwrap_or_default() {
            if let Mail::Order { id, .. } = returned {
                self.reply(id, Err(Refusal::UnknownChannel));
            }
        }
    }

    pub(super) fn notify(&self, notice: PaymentNotice) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        // The owner of payments ends only with the process.
        let _ = self.ends.payments.send(notice);
    }

    fn chain(&self, order: ChainOrder) {
        let is_published = matches!(order, ChainOrder::Publish(_));
        // The chain threads end only with the process.
        let _ = self.ends.chain.send(order);
        if is_published {
            self.published.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
