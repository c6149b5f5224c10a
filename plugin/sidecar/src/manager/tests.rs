//! A manager over a real file, and a peer that keeps to the messages but not to the rules.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{
    Block, BlockHash, CompactTarget, Network, ScriptBuf, Transaction, TxIn, TxMerkleNode, TxOut, WPubkeyHash,
};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::{NodeId, PaymentPreimage, ShortChannelId};
use outrigger_bolt::keys::{Basepoints, CommitmentKeys, per_commitment_secret};
use outrigger_bolt::tx::commitment::CommitmentTx;
use outrigger_bolt::wire::{
    AcceptChannel, ChannelReady, FundingSigned, Message, OpenChannel, PerCommitmentSecret, Pong, RevokeAndAck,
    Shutdown, UpdateAddHtlc,
};
use outrigger_channel::{
    Birth, ChainEvent, Channel, ChannelParams, CommandId, Context, Effect, Feerates, Guard, HtlcSource, IncomingHtlc,
    Input, Monitor, MonitorHead, Opening, OpeningInput, OpeningStep, Policy, ReleaseRefused, RemoteCommitment, Signer,
    SoftSigner,
};
use tokio::sync::watch;

use super::deliver::{Ends, PaymentNotice};
use super::env::ChainView;
use super::outbox::{Heard, Next, Origin, OutboxReader, outbox};
use super::relay::Telling;
use super::relay::register::{Caps, Load};
use super::workers::Heavy;
use super::*;
use crate::key::{NodeKeys, Seed};
use crate::store::channel_update::ChannelUpdates;
use crate::store::row::{OperationRow, OperationState};
use crate::store::{self, Reader, Writer};
use crossbeam_channel::Receiver;
use layered::{Layer, Layered};

mod close_stuck;
mod forwarding;
mod frozen;
mod history;
mod hostile_blocks;
mod hostile_words;
#[path = "../../../channel/tests/layered/mod.rs"]
mod layered;
mod listing;
mod models;
mod openings;
mod relay;
mod restored;
mod sinks;
mod stalled;
mod unheard;
mod workers;

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) const HEIGHT: u32 = 500;

/// Those that are not in history.
fn every_channel(manager: &Manager) -> Vec<ChannelView> {
    manager.channels(None, None, usize::MAX, |_| true)
}

fn policy() -> Policy {
    Policy {
        chain_hash: ChainHash::using_genesis_block_const(Network::Regtest),
        min_funding: Sat::new(20_000),
        max_funding: Sat::new(100_000_000),
        dust_limit: Sat::new(354),
        reserve_ppm: 10_000,
        to_self_delay: 144,
        max_to_self_delay: 2016,
        max_accepted_htlcs: 30,
        max_in_flight_ppm: 1_000_000,
        htlc_minimum: Msat::new(1),
        minimum_depth: 1,
        max_minimum_depth: 144,
        max_dust_exposure: Sat::new(1_000_000),
        max_commitment_feerate: FeeratePerKw::new(25_000),
        close_depth: 6,
    }
}

fn forwarding_policy() -> ForwardingPolicy {
    ForwardingPolicy {
        cltv_expiry_delta: 80,
        fee_base_msat: 1000,
        fee_proportional_millionths: 100,
        htlc_minimum: Msat::new(1),
        htlc_maximum: None,
    }
}

/// HTLCs that these nodes forward at one time, and those of one peer.
const CAPS: Caps =
    Caps { node: Load { htlcs: 8, value: Msat::new(u64::MAX) }, peer: Load { htlcs: 5, value: Msat::new(u64::MAX) } };

fn feerates() -> Feerates {
    Feerates { commitment: FeeratePerKw::new(1000), normal: FeeratePerKw::new(1500), floor: FeeratePerKw::new(253) }
}

fn script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([3; 20]))
}

/// The key of a peer.
fn secret_of(number: u16) -> SecretKey {
    let mut secret = [9; 32];
    secret[..2].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_slice(&secret).unwrap()
}

fn id_of(number: u16) -> NodeId {
    NodeId::new(secret_of(number).public_key(&Secp256k1::new()))
}

/// The peer that most tests have.
fn peer_id() -> NodeId {
    id_of(9)
}

/// A manager with one worker, its file, and the queue ends that nobody else reads.
pub(crate) struct Bench {
    pub(crate) manager: Arc<Manager>,
    pub(crate) reader: Reader,
    db: Arc<redb::Database>,
    pub(crate) notices: Receiver<PaymentNotice>,
    pub(crate) events: watch::Receiver<u64>,
    orders: Receiver<ChainOrder>,
    dir: Arc<tempfile::TempDir>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|_| Vec::new())
    }

    /// With channels that a start found.
    fn with(load: impl FnOnce(&NodeKeys) -> Vec<LoadedChannel>) -> Self {
        Self::made(policy(), load)
    }

    /// One whose peers may offer so many HTLCs in each channel.
    fn taking(max_accepted_htlcs: u16) -> Self {
        Self::made(Policy { max_accepted_htlcs, ..policy() }, |_| Vec::new())
    }

    fn made(policy: Policy, load: impl FnOnce(&NodeKeys) -> Vec<LoadedChannel>) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let seed = Seed::create(dir.path(), || Ok([1; 32])).unwrap();
        let keys = Arc::new(NodeKeys::derive(&seed, Network::Regtest));
        let db = store::open(dir.path(), "regtest", &keys.node_id()).unwrap();
        let more = load(&keys);
        Self::over((dir, db), keys, (policy, forwarding_policy()), more)
    }

    /// Another start over the same file, as after a crash.
    pub(crate) fn restarted(&self) -> Self {
        let (parts, keys) = ((self.dir.clone(), self.db.clone()), self.manager.env().keys.clone());
        Self::over(parts, keys, (policy(), forwarding_policy()), Vec::new())
    }

    fn over(
        (dir, db): (Arc<tempfile::TempDir>, Arc<redb::Database>),
        keys: Arc<NodeKeys>,
        (policy, terms): (Policy, ForwardingPolicy),
        more: Vec<LoadedChannel>,
    ) -> Self {
        let store::Snapshot { mut channels, frozen, restored, .. } = store::load::load(&*db).unwrap();
        channels.extend(more);
        let (work, mailboxes) = crossbeam_channel::unbounded();
        let (payments, notices) = crossbeam_channel::unbounded();
        let (chain, orders) = crossbeam_channel::unbounded();
        let (events_end, events) = watch::channel(0);
        let directory = Arc::new(PeerDirectory::default());
        let ends = Ends { payments, chain, events: events_end };
        let deliver = Arc::new(Deliver::new(directory.clone(), work, ends));
        let delivery = deliver.clone();
        let deliver_released = move |released, seq| delivery.deliver(released, seq);
        let (writer, _) = Writer::start(db.clone(), deliver_released, |fault| panic!("{fault}")).unwrap();
        let reader = Reader::new(db.clone());
        let view = ChainView::new(HEIGHT, feerates());
        let terms = (terms, CAPS);
        let env = Env::new(view, policy, terms, keys, (writer, reader.clone()), restored).freezing(frozen);
        env.chain.set_synced(true);
        env.set_shutdown_script(script());
        let manager = Arc::new(Manager::new(directory, deliver, env, channels));
        manager.tell_of_frozen();
        let (worker, heavy) = (manager.clone(), Heavy::default());
        let (for_heavy, queued) = (manager.clone(), heavy.clone());
        std::thread::spawn(move || worker.work(&mailboxes, &heavy));
        std::thread::spawn(move || for_heavy.work_on_heavy(&queued));
        Self { manager, reader, db, notices, events, orders, dir }
    }
}

/// Waits no longer than [`LIMIT`] for something that is sure to come.
pub(crate) async fn within<R>(what: &str, comes: impl Future<Output = R>) -> R {
    let came = tokio::time::timeout(LIMIT, comes).await;
    came.unwrap_or_else(|_| panic!("waited {LIMIT:?} until {what}"))
}

impl Bench {
    /// Nothing is under way any more, with a worker or with the owner of payments.
    pub(crate) async fn at_rest(&self) {
        let busy = || self.manager.deliver().is_busy();
        within("nothing is under way any more", async {
            while busy() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// All that was queued for the writer is durable.
    pub(crate) async fn durable(&self) {
        within("the writer has written what was queued", self.manager.env().writer.barrier()).await;
    }

    /// Looks until this holds, each time when what was queued before is durable.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        within(what, async {
            while !holds() {
                self.manager.env().writer.barrier().await;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The node as it starts after a crash, with this forwarding policy. Nobody tells the old one anything more.
    async fn started_again(&self, terms: ForwardingPolicy) -> Arc<Self> {
        self.durable().await;
        let (parts, keys) = ((self.dir.clone(), self.db.clone()), self.manager.env().keys.clone());
        Arc::new(Self::over(parts, keys, (policy(), terms), Vec::new()))
    }

    /// The same, with the terms that it had.
    pub(crate) async fn started_again_as_it_was(&self) -> Arc<Self> {
        self.started_again(forwarding_policy()).await
    }

    /// As if a channel with the peer had said that the HTLC is irrevocably committed.
    pub(crate) fn dispatch(&self, from: NodeId, htlc: &IncomingHtlc) {
        let letters = loop {
            // A peer without a channel may be forgotten at any moment.
            self.manager.directory.ensure(from);
            let letters = self.manager.directory.with(&from, |peer| {
                let mut drive = Drive::new(&self.manager.env, &self.manager.deliver);
                drive.dispatch(peer.node_id, htlc.clone(), Telling::New);
                drive.finish(peer)
            });
            if let Some(letters) = letters {
                break letters;
            }
        };
        self.manager.tell_others(letters);
    }

    /// A block comes that holds our newest commitment of this channel, which has failed.
    pub(crate) fn spend_with_newest_commitment(&self, channel: &ChannelId) {
        let Registered { peer, .. } = self.manager.deliver().registered(channel).unwrap();
        let newest = |peer: &mut Peer| peer.slots[channel].monitor.local_commitment_tx(&*peer.slots[channel].signer);
        let tx = self.manager.directory.with(&peer, newest).unwrap().unwrap();
        self.manager.block_connected(self.manager.env().chain.height() + 1, &block_of(vec![tx]));
    }

    /// The count of channels that may have to be closed alone is what asking all of them gives.
    fn assert_counted(&self, expected: usize) {
        let found = self.load().channels;
        assert_eq!(found.iter().filter(|loaded| peer::stands(&loaded.channel)).count(), expected);
        assert_eq!(self.manager.env().standing(), expected);
    }

    /// What a start would find now.
    pub(crate) fn load(&self) -> store::Snapshot {
        store::load::load(&*self.db).unwrap()
    }
}

/// Keys whose per-commitment secrets answer to their points and are otherwise unrelated, unless a seed chains them.
struct Unchained {
    keys: SoftSigner,
    chain: Option<[u8; 32]>,
}

impl Unchained {
    fn secret(&self, number: u64) -> SecretKey {
        match &self.chain {
            Some(seed) => per_commitment_secret(seed, number),
            None => SecretKey::from_slice(sha256::Hash::hash(&number.to_be_bytes()).as_byte_array()).unwrap(),
        }
    }
}

impl Layer for Unchained {
    fn inner(&self) -> &dyn Signer {
        &self.keys
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        self.secret(number).public_key(&Secp256k1::new())
    }

    fn release_secret(&self, number: u64, _: &Guard) -> Result<[u8; 32], ReleaseRefused> {
        Ok(self.secret(number).secret_bytes())
    }
}

/// A peer: channels driven by hand over the manager's own door.
pub(crate) struct Rogue {
    pub(crate) bench: Arc<Bench>,
    id: NodeId,
    secret: SecretKey,
    /// Openings so far.
    asked: u8,
    /// What the node gets of each.
    push_msat: u64,
    connection: Connection,
    queue: OutboxReader,
    waiting: VecDeque<Message>,
    /// Gossip that was heard, apart from the talk about channels.
    gossip: Vec<Message>,
    signer: Layered<Unchained>,
    policy: Policy,
    script: ScriptBuf,
}

impl Rogue {
    pub(crate) fn connect() -> Self {
        Self::connect_to(Bench::new())
    }

    /// The same peer on a new connection.
    fn connect_to(bench: impl Into<Arc<Bench>>) -> Self {
        Self::meet(bench.into(), 9)
    }

    /// The peer of this number, just connected to a node.
    pub(crate) fn meet(bench: Arc<Bench>, number: u16) -> Self {
        let (id, secret) = (id_of(number), secret_of(number));
        let (sender, queue) = outbox(1 << 20);
        let connection = bench.manager.connected(id, Origin::Peer, &bench.manager.our_init(), sender).unwrap();
        let mut seed = [5; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let signer = Layered(Unchained { keys: SoftSigner::new(seed), chain: None });
        let (waiting, gossip) = Default::default();
        let (policy, script) = (policy(), script());
        Self {
            bench,
            id,
            secret,
            asked: 0,
            push_msat: 400_000_000,
            connection,
            queue,
            waiting,
            gossip,
            signer,
            policy,
            script,
        }
    }

    /// The same peer with secrets that form a chain, so that its channels live on.
    pub(crate) fn that_keeps_its_word(self) -> Self {
        let chain = Some(self.secret.secret_bytes());
        Self { signer: Layered(Unchained { chain, ..self.signer.0 }), ..self }
    }

    /// Who the peer is.
    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// What an onion says to the peer, and what is to go on.
    pub(crate) fn peel(&self, add: &UpdateAddHtlc) -> outrigger_bolt::onion::Peeled {
        peel(&self.secret, &add.onion_routing_packet, &add.payment_hash)
    }

    /// Whether the node's HTLC stands irrevocably.
    pub(crate) fn holds(&self, channel: &Channel, htlc_id: u64) -> bool {
        channel.incoming(htlc_id, &self.policy).is_some()
    }

    /// The connection ends, and a new one comes, to this node.
    pub(crate) fn reconnect(&mut self, bench: Arc<Bench>) {
        self.bench.manager.disconnected(&self.id, self.connection);
        let (sender, queue) = outbox(1 << 20);
        self.connection = bench.manager.connected(self.id, Origin::Peer, &bench.manager.our_init(), sender).unwrap();
        (self.bench, self.queue) = (bench, queue);
        self.waiting.clear();
        self.gossip.clear();
    }

    fn context(&self, height: u32) -> Context<'_> {
        Context {
            height,
            feerates: feerates(),
            policy: &self.policy,
            signer: &self.signer,
            node_id: self.id,
            shutdown_script: &self.script,
            restored: false,
        }
    }

    pub(crate) fn tell(&self, message: Message) {
        self.bench.manager.messages(&self.id, self.connection, vec![Heard { message, bytes: 100 }]);
    }

    /// Everything said so far was dealt with, and what was answered to it is heard: the answer to an unknown name comes
    /// last. Gives what came before it.
    pub(crate) async fn dealt_with(&mut self) -> Vec<Message> {
        let channel_id = ChannelId([0xee; 32]);
        self.tell(Message::Shutdown(Shutdown { channel_id, scriptpubkey: ScriptBuf::new() }));
        let mut before = Vec::new();
        loop {
            match self.hear().await {
                Message::Error(error) if error.channel_id == channel_id => return before,
                message => before.push(message),
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> Message {
        while self.waiting.is_empty() {
            match tokio::time::timeout(LIMIT, self.queue.next()).await.expect("nothing is heard") {
                Next::Messages(messages) => {
                    let messages = messages.iter().map(|message| Message::decode(&message.bytes).unwrap());
                    let (gossip, rest) = messages.partition::<Vec<_>, _>(|heard| matches!(heard, Message::Gossip(_)));
                    self.gossip.extend(gossip);
                    self.waiting.extend(rest);
                }
                Next::Closed(closed) => panic!("{closed}"),
            }
        }
        self.waiting.pop_front().unwrap()
    }

    /// The next message of this type; what comes before it is about other channels.
    async fn hear_type(&mut self, type_number: u16) -> Message {
        loop {
            let message = self.hear().await;
            if message.type_number() == type_number {
                return message;
            }
        }
    }

    fn wish(&self, temporary: u8) -> outrigger_channel::OpenOrder {
        outrigger_channel::OpenOrder {
            peer: self.bench.manager.env().keys.node_id(),
            keys_index: 1,
            features: Features::init(),
            temporary_channel_id: ChannelId([temporary; 32]),
            funding: Sat::new(1_000_000),
            push: Msat::new(self.push_msat),
            announce: false,
            commitment_feerate: FeeratePerKw::new(1000),
            shutdown_script: None,
            scid_alias: ShortChannelId::alias(1),
        }
    }

    /// Asks the node for a channel; what it answers is yet to be heard.
    fn ask(&mut self) -> Opening {
        self.asked += 1;
        self.ask_for(self.asked)
    }

    fn ask_for(&mut self, temporary: u8) -> Opening {
        let (opening, open) = Opening::open(self.wish(temporary), &self.context(HEIGHT)).unwrap();
        self.tell(open);
        opening
    }

    /// Opens a channel to the node, up to the signatures. The funding transaction stays here.
    async fn fund(&mut self) -> (Channel, Transaction) {
        let opening = self.ask();
        let (birth, tx) = self.complete(opening).await;
        (birth.channel, tx)
    }

    /// Carries an opening out, up to the signed funding transaction.
    async fn negotiate(&mut self) -> (Birth, Transaction) {
        let opening = self.ask_for(7);
        self.complete(opening).await
    }

    async fn complete(&mut self, mut opening: Opening) -> (Birth, Transaction) {
        let accept = self.hear_type(AcceptChannel::TYPE).await;
        let step = opening.step(OpeningInput::Message(&accept), &self.context(HEIGHT));
        let OpeningStep::Fund { script_pubkey, amount } = step else { panic!("{accept:?}") };
        let tx = funding_of(script_pubkey, amount);
        let funding = OpeningInput::Funding { tx: tx.clone(), output_index: 0 };
        let OpeningStep::Renamed(id, effects) = opening.step(funding, &self.context(HEIGHT)) else { panic!("renamed") };
        self.carry_out(id, effects);
        let signed = self.hear_type(FundingSigned::TYPE).await;
        let OpeningStep::Born(birth) = opening.step(OpeningInput::Message(&signed), &self.context(HEIGHT)) else {
            panic!("{signed:?}")
        };
        // The watch is delivered behind `funding_signed`: a round trip later it stands.
        assert!(self.bench.manager.command(birth.channel_id, Command::Commit).await.is_ok());
        (*birth, tx)
    }

    /// Opens a channel to the node and puts its funding transaction into a block.
    pub(crate) async fn open(&mut self) -> Channel {
        let (mut channel, tx) = self.fund().await;
        let block = block_of(vec![coinbase(), tx.clone()]);
        self.bench.manager.block_connected(HEIGHT + 1, &block);
        let confirmed = ChainEvent::FundingConfirmed { height: HEIGHT + 1, tx_index: 1, tx: &tx };
        self.step(&mut channel, Input::Chain(confirmed));
        channel
    }

    /// As [`open`](Self::open), until both sides use it.
    pub(crate) async fn open_normal(&mut self) -> Channel {
        let mut channel = self.open().await;
        self.until(&mut channel, |channel, _| channel.summary(HEIGHT + 1).state == "normal").await;
        assert!(self.dealt_with().await.is_empty());
        channel
    }

    /// The node wants a channel to us: its `open_channel`.
    async fn wanted(&mut self, push: Msat) -> OpenChannel {
        let operation = OperationRow {
            idempotency_key: "retry-1".to_owned(),
            op_id: [1; 16],
            body: [2; 32],
            state: OperationState::Opening,
        };
        let (funding, announce, funding_feerate) = (Sat::new(500_000), false, None);
        let order = super::OpenOrder { operation, funding, push, announce, funding_feerate };
        self.bench.manager.open_channel(&self.id, order).unwrap();
        let Message::OpenChannel(open) = self.hear().await else { panic!("open_channel") };
        open
    }

    /// We accept, and the node's wallet is asked for the transaction, which is made here.
    async fn accepted(&mut self, open: &OpenChannel) -> (Opening, Transaction) {
        let (node, own) = (self.bench.manager.env().keys.node_id(), (1, ShortChannelId::alias(1)));
        let (opening, answer) = Opening::accept(open, node, own, &Features::init(), &self.context(HEIGHT)).unwrap();
        self.tell(answer);
        let ChainOrder::Fund(request) = self.bench.orders.recv_timeout(LIMIT).unwrap() else { panic!("fund") };
        (opening, funding_of(request.script_pubkey, request.amount))
    }

    /// The node opens a channel to us, up to the signatures.
    async fn is_funded(&mut self, push: Msat) -> (Channel, Transaction) {
        let open = self.wanted(push).await;
        let (mut opening, tx) = self.accepted(&open).await;
        self.bench.manager.funded(&self.id, open.temporary_channel_id, Ok((tx.clone(), 0)));
        let created = self.hear().await;
        let OpeningStep::Born(birth) = opening.step(OpeningInput::Message(&created), &self.context(HEIGHT)) else {
            panic!("{created:?}")
        };
        self.carry_out(birth.channel_id, birth.effects);
        self.dealt_with().await;
        let order = self.bench.orders.recv_timeout(LIMIT).unwrap();
        assert!(matches!(&order, ChainOrder::Publish(published) if *published == tx), "{order:?}");
        (birth.channel, tx)
    }

    /// As [`is_funded`](Self::is_funded), until both sides use the channel.
    async fn is_opened_to(&mut self, push: Msat) -> Channel {
        let (mut channel, tx) = self.is_funded(push).await;
        self.bench.manager.block_connected(HEIGHT + 1, &block_of(vec![coinbase(), tx.clone()]));
        let confirmed = ChainEvent::FundingConfirmed { height: HEIGHT + 1, tx_index: 1, tx: &tx };
        self.step(&mut channel, Input::Chain(confirmed));
        self.until(&mut channel, |channel, _| channel.summary(HEIGHT + 1).state == "normal").await;
        assert!(self.dealt_with().await.is_empty());
        channel
    }

    /// Hears messages of the channel until one of them, or what it leads to, is the one awaited.
    pub(crate) async fn until(&mut self, channel: &mut Channel, done: impl Fn(&Channel, &Message) -> bool) {
        loop {
            let message = self.hear().await;
            self.step(channel, Input::Message(&message));
            if done(channel, &message) {
                return;
            }
        }
    }

    pub(crate) fn step(&self, channel: &mut Channel, input: Input<'_>) {
        let mut transition = channel.step(input, &self.context(HEIGHT + 1));
        channel.take_in(&mut transition);
        let pongs: Vec<_> = transition.effects.iter().filter_map(pong_to).collect();
        self.carry_out(channel.id(), transition.effects);
        for pong in pongs {
            // The wire answers it, not the manager.
            self.step(channel, Input::Message(&Message::Pong(pong)));
        }
    }

    fn carry_out(&self, channel_id: ChannelId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(message) => self.tell(message),
                Effect::Revoke { number } => {
                    self.tell(Message::RevokeAndAck(RevokeAndAck {
                        channel_id,
                        per_commitment_secret: PerCommitmentSecret(self.signer.0.secret(number).secret_bytes()),
                        next_per_commitment_point: self.signer.per_commitment_point(number + 2),
                    }));
                }
                _ => {}
            }
        }
    }
}

/// What an onion says to whoever has this key.
pub(crate) fn peel(
    secret: &SecretKey,
    onion: &[u8; 1366],
    hash: &outrigger_bolt::id::PaymentHash,
) -> outrigger_bolt::onion::Peeled {
    let ecdh = |point: &PublicKey| bitcoin::secp256k1::ecdh::SharedSecret::new(point, secret).secret_bytes();
    outrigger_bolt::onion::peel(ecdh, &outrigger_bolt::onion::OnionPacket::from_bytes(onion), &hash.0).unwrap()
}

/// The answer to a `ping` among the effects.
fn pong_to(effect: &Effect) -> Option<Pong> {
    if let Effect::Send(Message::Ping(ping)) = effect { ping.answer() } else { None }
}

/// What pays this, and spends nothing that is known.
fn funding_of(script_pubkey: ScriptBuf, amount: Sat) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn::default()],
        output: vec![TxOut { value: amount.into(), script_pubkey }],
    }
}

fn coinbase() -> Transaction {
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: Vec::new() }
}

pub(crate) fn block_of(txdata: Vec<Transaction>) -> Block {
    let header = Header {
        version: BlockVersion::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    Block { header, txdata }
}

fn add(number: u8) -> Command {
    Command::AddHtlc {
        amount: Msat::new(10_000_000),
        payment_hash: PaymentPreimage([number; 32]).payment_hash(),
        cltv_expiry: HEIGHT + 100,
        onion: Box::new([0; 1366]),
        source: HtlcSource::Payment { payment_id: [number; 32], part: 0 },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_form_no_chain_fail_the_channel_and_not_the_process() {
    let mut rogue = Rogue::connect();
    let mut channel = rogue.open().await;
    let mut added = 0;
    // The first secret stands alone; the second contradicts it.
    let error = loop {
        let message = rogue.hear().await;
        if let Message::Error(error) = &message {
            break error.data.to_string();
        }
        rogue.step(&mut channel, Input::Message(&message));
        if channel.rows().htlcs.len() == added && added < 2 && channel.summary(HEIGHT + 1).state == "normal" {
            added += 1;
            rogue.step(&mut channel, Input::Command(CommandId(1), add(u8::try_from(added).unwrap())));
            rogue.step(&mut channel, Input::Command(CommandId(1), Command::Commit));
        }
    };
    assert!(error.contains("secret 1 is not the one that was promised"), "{error}");
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!(view.summary.state, "failed");
}

/// A channel with a peer of its own, open and in step, whose monitor was spoilt.
fn spoilt(keys: &NodeKeys, index: u8, spoil: impl Fn(&mut MonitorHead)) -> LoadedChannel {
    let (ours, theirs) = (SoftSigner::new(keys.channel_seed(u64::from(index))), SoftSigner::new([index; 32]));
    let (policy, script) = (policy(), script());
    let peer = NodeId::new(theirs.per_commitment_point(9));
    let context = |signer, height| Context {
        height,
        feerates: feerates(),
        policy: &policy,
        signer,
        node_id: peer,
        shutdown_script: &script,
        restored: false,
    };
    let (our_cx, their_cx) = (context(&ours as &dyn Signer, HEIGHT), context(&theirs as &dyn Signer, HEIGHT));
    let order = outrigger_channel::OpenOrder {
        peer: keys.node_id(),
        keys_index: 1,
        features: Features::init(),
        temporary_channel_id: ChannelId([7; 32]),
        funding: Sat::new(1_000_000),
        push: Msat::new(400_000_000),
        announce: false,
        commitment_feerate: FeeratePerKw::new(1000),
        shutdown_script: None,
        scid_alias: ShortChannelId::alias(1),
    };
    let (mut opener, open) = Opening::open(order, &their_cx).unwrap();
    let Message::OpenChannel(open) = open else { panic!("{open:?}") };
    let (mut accepter, accept) =
        Opening::accept(&open, peer, (u64::from(index), ShortChannelId::alias(2)), &Features::init(), &our_cx).unwrap();
    let OpeningStep::Fund { script_pubkey, amount } = opener.step(OpeningInput::Message(&accept), &their_cx) else {
        panic!("{accept:?}")
    };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn::default()],
        output: vec![TxOut { value: amount.into(), script_pubkey }],
    };
    let funding = OpeningInput::Funding { tx: tx.clone(), output_index: 0 };
    let OpeningStep::Renamed(channel_id, effects) = opener.step(funding, &their_cx) else { panic!("renamed") };
    let created = effects.into_iter().find_map(|effect| match effect {
        Effect::Send(message) => Some(message),
        _ => None,
    });
    let OpeningStep::Born(birth) = accepter.step(OpeningInput::Message(&created.unwrap()), &our_cx) else {
        panic!("born")
    };
    let mut channel = birth.channel;
    let confirmed = ChainEvent::FundingConfirmed { height: HEIGHT + 1, tx_index: 1, tx: &tx };
    let second_per_commitment_point = theirs.per_commitment_point(1);
    let ready = Message::ChannelReady(ChannelReady { channel_id, second_per_commitment_point, short_channel_id: None });
    for input in [Input::Chain(confirmed), Input::Message(&ready)] {
        let mut transition = channel.step(input, &context(&ours as &dyn Signer, HEIGHT + 1));
        channel.take_in(&mut transition);
    }
    let mut rows = Monitor::new(&birth.monitor).unwrap().0.rows().clone();
    spoil(&mut rows.head);
    LoadedChannel {
        channel,
        monitor: Monitor::load(rows).unwrap(),
        settlements: BTreeMap::new(),
        updates: ChannelUpdates::default(),
        terms: Default::default(),
    }
}

/// Gives an order to fifty channels that all meet the same fault, and counts those that fail for it.
async fn failed_of_fifty(spoil: impl Fn(&mut MonitorHead) + Copy) -> usize {
    const CHANNELS: u8 = 50;
    let bench = Bench::with(|keys| (1..=CHANNELS).map(|index| spoilt(keys, index, spoil)).collect());
    let channels: Vec<_> = every_channel(&bench.manager).into_iter().map(|view| view.channel_id).collect();
    assert_eq!(channels.len(), usize::from(CHANNELS));
    let orders = (1..).zip(&channels).map(|(number, channel)| {
        let (manager, channel) = (bench.manager.clone(), *channel);
        tokio::spawn(async move { manager.command(channel, add(number)).await })
    });
    let mut taken = 0;
    for order in orders.collect::<Vec<_>>() {
        match order.await.unwrap() {
            Ok(_) => taken += 1,
            Err(refused) => assert_eq!(refused, Refusal::Stopping),
        }
    }
    assert_eq!(taken, 1, "no order is taken after the first fault");
    let fault = bench.manager.env().faulty().await;
    assert!(channels.iter().any(|channel| fault.contains(&channel.to_string())), "{fault}");
    every_channel(&bench.manager).iter().filter(|view| view.summary.state == "failed").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn cst_12_a_fault_of_ours_fails_one_channel_of_fifty_and_stops_the_node() {
    let failed = failed_of_fifty(|head| {
        head.remote_next = Some(RemoteCommitment { number: 1, ..head.remote.clone() });
    });
    assert_eq!(failed.await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn cst_12_a_monitor_that_can_follow_no_step_at_all_fails_no_channel() {
    assert_eq!(failed_of_fifty(|head| head.update_id += 1).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cst_15_a_peer_that_spins_states_is_paused_and_loses_nothing() {
    let bench = Bench::new();
    let (sender, _queue) = outbox(1 << 20);
    let connection = bench.manager.connected(peer_id(), Origin::Peer, &bench.manager.our_init(), sender).unwrap();
    let add = Message::UpdateAddHtlc(UpdateAddHtlc {
        channel_id: ChannelId([1; 32]),
        id: 0,
        amount_msat: Msat::new(1),
        payment_hash: PaymentPreimage([1; 32]).payment_hash(),
        cltv_expiry: 1,
        onion_routing_packet: Box::new([0; 1366]),
        path_key: None,
    });
    // Far beyond a burst, so that the pause is longer than this test could take.
    for _ in 0..60_000 {
        bench.manager.messages(&peer_id(), connection, vec![Heard { message: add.clone(), bytes: 1 }]);
    }
    let peer = peer_id();
    let mut room = bench.manager.room(&peer);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(room.as_mut().poll(&mut cx).is_pending(), "the peer is not read for a while");
    let other = id_of(4);
    bench.durable().await;
    assert!(bench.manager.room(&other).as_mut().poll(&mut cx).is_ready(), "and no other peer waits for it");
}
