//! Two channels whose messages the test hands over one by one, each durable at once. Alice opens.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use bitcoin::absolute::LockTime;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, ShortChannelId};
use outrigger_bolt::wire::{Message, PerCommitmentSecret, RevokeAndAck, UpdateAddHtlc};
use outrigger_channel::{
    Birth, ChainEvent, Channel, Command, CommandId, Context, Effect, FailReason, Feerates, Guard, HtlcSource, Input,
    Monitor, OpenOrder, Opening, OpeningInput, OpeningStep, Policy, Refusal, Reply, Signer, SoftSigner,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Alice,
    Bob,
}

pub use Who::{Alice, Bob};

impl Who {
    pub const BOTH: [Self; 2] = [Alice, Bob];

    pub fn other(self) -> Self {
        match self {
            Alice => Bob,
            Bob => Alice,
        }
    }
}

pub fn policy() -> Policy {
    Policy {
        chain_hash: ChainHash::REGTEST,
        min_funding: Sat::new(20_000),
        max_funding: Sat::new(16_000_000),
        dust_limit: Sat::new(354),
        reserve_ppm: 10_000,
        to_self_delay: 144,
        max_to_self_delay: 2016,
        max_accepted_htlcs: 30,
        max_in_flight_ppm: 1_000_000,
        htlc_minimum: Msat::new(1000),
        minimum_depth: 3,
        max_minimum_depth: 144,
        max_dust_exposure: Sat::new(50_000),
        max_commitment_feerate: FeeratePerKw::new(25_000),
        close_depth: 6,
    }
}

pub fn feerates() -> Feerates {
    Feerates { commitment: FeeratePerKw::new(1000), normal: FeeratePerKw::new(1500), floor: FeeratePerKw::new(253) }
}

pub fn features() -> Features {
    Features::empty().require(Feature::STATIC_REMOTEKEY).offer(Feature::ANCHORS).offer(Feature::SHUTDOWN_ANYSEGWIT)
}

pub fn signer(who: Who) -> SoftSigner {
    match who {
        Alice => SoftSigner::new([1; 32]),
        Bob => SoftSigner::new([2; 32]),
    }
}

pub fn node_secret(who: Who) -> SecretKey {
    let byte = match who {
        Alice => 0x11,
        Bob => 0x22,
    };
    SecretKey::from_slice(&[byte; 32]).expect("a key")
}

pub fn node_id(who: Who) -> NodeId {
    NodeId::new(node_secret(who).public_key(&Secp256k1::signing_only()))
}

/// The alias that each side gives its channel.
pub fn scid_alias(who: Who) -> ShortChannelId {
    match who {
        Alice => ShortChannelId::alias(0xa11ce),
        Bob => ShortChannelId::alias(0xb0b),
    }
}

/// What a test may vary before the channel is opened.
#[derive(Clone, Debug)]
pub struct Terms {
    pub funding: Sat,
    pub push: Msat,
    pub feerate: FeeratePerKw,
    pub alice: Policy,
    pub bob: Policy,
    /// What both offer in `init`.
    pub features: Features,
    pub announce: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            funding: Sat::new(1_000_000),
            push: Msat::new(400_000_000),
            feerate: FeeratePerKw::new(1000),
            alice: policy(),
            bob: policy(),
            features: features(),
            announce: false,
        }
    }
}

pub const TEMPORARY_ID: ChannelId = ChannelId([5; 32]);

pub fn order(terms: &Terms) -> OpenOrder {
    OpenOrder {
        peer: node_id(Bob),
        keys_index: 0,
        temporary_channel_id: TEMPORARY_ID,
        funding: terms.funding,
        push: terms.push,
        announce: terms.announce,
        commitment_feerate: terms.feerate,
        shutdown_script: None,
        scid_alias: scid_alias(Alice),
        features: terms.features.clone(),
    }
}

/// A transaction with one output that pays this. `coinbase` makes it one.
pub fn funding_tx(script_pubkey: ScriptBuf, amount: Sat, coinbase: bool) -> Transaction {
    let previous_output =
        if coinbase { OutPoint::null() } else { OutPoint::new("11".repeat(32).parse().expect("a txid"), 0) };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1_u8; 64]]),
        }],
        output: vec![TxOut { value: amount.into(), script_pubkey }],
    }
}

pub fn context<'a>(height: u32, policy: &'a Policy, signer: &'a SoftSigner) -> Context<'a> {
    static ALICE: LazyLock<PublicKey> = LazyLock::new(|| self::signer(Alice).basepoints().funding_pubkey);
    let who = if signer.basepoints().funding_pubkey == *ALICE { Alice } else { Bob };
    Context {
        height,
        feerates: feerates(),
        policy,
        signer,
        node_id: node_id(who),
        shutdown_script: Script::from_bytes(SHUTDOWN_SCRIPT),
        restored: false,
    }
}

/// P2WPKH of some key.
pub const SHUTDOWN_SCRIPT: &[u8] = &[0, 20, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];

/// Carries out an opening up to both births.
pub fn open(terms: &Terms, coinbase: bool) -> (Birth, Birth, Transaction) {
    open_by(terms, |script_pubkey, amount| funding_tx(script_pubkey, amount, coinbase))
}

/// The same, with a funding transaction of the caller's, which pays the channel by its first output.
pub fn open_by(terms: &Terms, fund: impl FnOnce(ScriptBuf, Sat) -> Transaction) -> (Birth, Birth, Transaction) {
    let (alice, bob) = (signer(Alice), signer(Bob));
    let (alice_cx, bob_cx) = (context(500, &terms.alice, &alice), context(500, &terms.bob, &bob));
    let (mut opener, open) = Opening::open(order(terms), &alice_cx).expect("an order to follow");
    let Message::OpenChannel(open) = wired(&open) else { panic!("{open:?}") };
    let (mut accepter, accept) =
        Opening::accept(&open, node_id(Alice), (0, scid_alias(Bob)), &terms.features, &bob_cx).expect("accepted");
    let OpeningStep::Fund { script_pubkey, amount } = opener.step(OpeningInput::Message(&wired(&accept)), &alice_cx)
    else {
        panic!("the opener funds")
    };
    let tx = fund(script_pubkey, amount);
    let funded = opener.step(OpeningInput::Funding { tx: tx.clone(), output_index: 0 }, &alice_cx);
    let OpeningStep::Renamed(_, effects) = funded else { panic!("{funded:?}") };
    let created = sent(&effects).remove(0);
    let OpeningStep::Born(bobs) = accepter.step(OpeningInput::Message(&wired(&created)), &bob_cx) else {
        panic!("the accepter signs")
    };
    let signed = sent(&bobs.effects).remove(0);
    let OpeningStep::Born(alices) = opener.step(OpeningInput::Message(&wired(&signed)), &alice_cx) else {
        panic!("the opener takes the signature")
    };
    (*alices, *bobs, tx)
}

/// A message as it comes out of the wire.
pub fn wired(message: &Message) -> Message {
    Message::decode(&message.encode().expect("an encoding")).expect("what was encoded")
}

pub fn sent(effects: &[Effect]) -> Vec<Message> {
    let message = |effect: &Effect| if let Effect::Send(message) = effect { Some(message.clone()) } else { None };
    effects.iter().filter_map(message).collect()
}

/// One side of a channel with all that it needs.
#[derive(Clone)]
pub struct Side {
    pub signer: Arc<SoftSigner>,
    pub policy: Policy,
    /// Whether this side's node is in restored mode.
    pub restored: bool,
    pub channel: Channel,
    pub monitor: Monitor,
    pub outbox: VecDeque<Message>,
    /// All effects but messages, in order.
    pub effects: Vec<Effect>,
}

impl Side {
    fn new(who: Who, policy: Policy, birth: Birth) -> Self {
        let (monitor, _) = Monitor::new(&birth.monitor).expect("a first update");
        monitor.check_against(birth.channel.rows()).expect("channel and monitor agree");
        Self {
            signer: Arc::new(signer(who)),
            policy,
            restored: false,
            channel: birth.channel,
            monitor,
            outbox: VecDeque::new(),
            effects: birth.effects,
        }
    }

    fn step(&mut self, height: u32, input: Input<'_>) {
        let cx = Context { restored: self.restored, ..context(height, &self.policy, &self.signer) };
        let mut transition = self.channel.step(input, &cx);
        if let Some(update) = &transition.monitor {
            let loaded = Monitor::load(self.monitor.rows().clone()).expect("rows of a monitor");
            self.monitor = loaded;
            self.monitor.update(update).expect("an update that follows");
        }
        let mut loaded = Channel::load(self.channel.rows().clone()).expect("rows of a channel");
        self.channel.take_in(&mut transition);
        loaded.apply(&transition.changes);
        assert_eq!(loaded.rows(), self.channel.rows(), "loading is applying");
        Channel::load(self.channel.rows().clone()).expect("rows of a channel");
        self.monitor.check_against(self.channel.rows()).expect("channel and monitor agree");
        for effect in transition.effects {
            self.deliver(effect);
        }
    }

    fn deliver(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => self.outbox.push_back(message),
            Effect::Revoke { number } => {
                let guard = Guard::of(&self.monitor.rows().head);
                let secret = self.signer.release_secret(number, &guard).expect("the successor is durable");
                self.outbox.push_back(Message::RevokeAndAck(RevokeAndAck {
                    channel_id: self.channel.id(),
                    per_commitment_secret: PerCommitmentSecret(secret),
                    next_per_commitment_point: self.signer.per_commitment_point(number + 2),
                }));
            }
            other => self.effects.push(other),
        }
    }
}

#[derive(Clone)]
pub struct Duo {
    pub alice: Side,
    pub bob: Side,
    pub height: u32,
    pub tx: Transaction,
    features: Features,
    next_command: u64,
}

impl Duo {
    /// An `update_add_htlc` as a peer makes it that asks nobody whether it may.
    pub fn update_add(&self, id: u64, amount: Msat) -> UpdateAddHtlc {
        UpdateAddHtlc {
            channel_id: self.alice.channel.id(),
            id,
            amount_msat: amount,
            payment_hash: hash(9),
            cltv_expiry: 600,
            onion_routing_packet: Box::new([0; 1366]),
            path_key: None,
        }
    }

    /// Both born, still connected, the funding transaction not confirmed.
    pub fn born(terms: &Terms) -> Self {
        Self::born_of(terms, false)
    }

    pub fn born_of(terms: &Terms, coinbase: bool) -> Self {
        Self::of(terms, open(terms, coinbase))
    }

    /// What [`open`] or [`open_by`] gives.
    pub fn of(terms: &Terms, (alice, bob, tx): (Birth, Birth, Transaction)) -> Self {
        let mut duo = Self {
            alice: Side::new(Alice, terms.alice.clone(), alice),
            bob: Side::new(Bob, terms.bob.clone(), bob),
            height: 500,
            tx,
            features: terms.features.clone(),
            next_command: 0,
        };
        for who in [Alice, Bob] {
            duo.side_mut(who).effects.retain(|effect| !matches!(effect, Effect::Send(_)));
        }
        duo
    }

    /// An open channel.
    pub fn normal(terms: &Terms) -> Self {
        let mut duo = Self::born(terms);
        duo.confirm();
        duo.run();
        duo.take_effects(Alice);
        duo.take_effects(Bob);
        duo
    }

    /// Buries the funding transaction deep enough.
    pub fn confirm(&mut self) {
        self.height = 503;
        let tx = self.tx.clone();
        for who in [Alice, Bob] {
            self.input(who, Input::Chain(ChainEvent::FundingConfirmed { height: 501, tx_index: 4, tx: &tx }));
        }
    }

    pub fn side(&self, who: Who) -> &Side {
        match who {
            Alice => &self.alice,
            Bob => &self.bob,
        }
    }

    pub fn side_mut(&mut self, who: Who) -> &mut Side {
        match who {
            Alice => &mut self.alice,
            Bob => &mut self.bob,
        }
    }

    pub fn input(&mut self, who: Who, input: Input<'_>) {
        let height = self.height;
        self.side_mut(who).step(height, input);
    }

    pub fn message(&mut self, to: Who, message: &Message) {
        self.input(to, Input::Message(&wired(message)));
    }

    /// Hands over the oldest message to `to`, and returns it.
    pub fn receive(&mut self, to: Who) -> Option<Message> {
        let message = self.side_mut(to.other()).outbox.pop_front()?;
        match &message {
            Message::Ping(ping) => self.side_mut(to).outbox.extend(ping.answer().map(Message::Pong)),
            message => self.message(to, message),
        }
        Some(message)
    }

    /// Gives an order and returns its answer.
    pub fn order(&mut self, who: Who, command: Command) -> Result<Reply, Refusal> {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.input(who, Input::Command(id, command));
        let effects = &mut self.side_mut(who).effects;
        let at = effects.iter().position(|effect| matches!(effect, Effect::Reply(to, _) if *to == id));
        let Effect::Reply(_, answer) = effects.remove(at.expect("an answer")) else { panic!("an answer") };
        answer
    }

    pub fn commit(&mut self, who: Who) {
        self.order(who, Command::Commit).expect("always taken");
    }

    /// Hands everything over and signs until nothing moves.
    pub fn run(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for who in [Alice, Bob] {
                while self.receive(who).is_some() {
                    moved = true;
                }
                self.commit(who);
                moved |= !self.side(who).outbox.is_empty();
            }
            if !moved {
                return;
            }
        }
        panic!("the two never come to rest");
    }

    /// Loses the connection and every message on it.
    pub fn disconnect(&mut self) {
        for who in [Alice, Bob] {
            self.side_mut(who).outbox.clear();
            self.input(who, Input::Disconnected);
            let loaded = Channel::load(self.side(who).channel.rows().clone()).expect("rows of a channel");
            assert_eq!(loaded, self.side(who).channel, "a crash is a disconnect");
        }
    }

    pub fn connect(&mut self) {
        let features = self.features.clone();
        for who in [Alice, Bob] {
            self.input(who, Input::Connected(&features));
        }
    }

    pub fn reconnect(&mut self) {
        self.disconnect();
        self.connect();
    }

    pub fn add(&mut self, who: Who, amount: Msat, number: u8) -> Result<Reply, Refusal> {
        self.order(who, add(amount, number))
    }

    pub fn fulfill(&mut self, who: Who, htlc_id: u64, number: u8) -> Result<Reply, Refusal> {
        self.order(who, Command::Fulfill { htlc_id, preimage: preimage(number) })
    }

    pub fn fail(&mut self, who: Who, htlc_id: u64) -> Result<Reply, Refusal> {
        self.order(who, Command::FailHtlc { htlc_id, reason: FailReason::Encrypted(vec![3; 292]) })
    }

    pub fn take_effects(&mut self, who: Who) -> Vec<Effect> {
        std::mem::take(&mut self.side_mut(who).effects)
    }

    /// Balances of `who` and of the other side, the same in both commitments of both.
    pub fn balances(&self, who: Who) -> (u64, u64) {
        let head = &self.side(who).channel.rows().head;
        let theirs = &self.side(who.other()).channel.rows().head;
        let ours = (head.local_commitment.to_local.get(), head.local_commitment.to_remote.get());
        for (local, remote) in [
            (head.remote_commitment.to_local, head.remote_commitment.to_remote),
            (theirs.local_commitment.to_remote, theirs.local_commitment.to_local),
            (theirs.remote_commitment.to_remote, theirs.remote_commitment.to_local),
        ] {
            assert_eq!(ours, (local.get(), remote.get()), "all commitments say the same");
        }
        ours
    }
}

pub fn preimage(number: u8) -> PaymentPreimage {
    PaymentPreimage([number; 32])
}

pub fn hash(number: u8) -> PaymentHash {
    preimage(number).payment_hash()
}

pub fn source(number: u8) -> HtlcSource {
    HtlcSource::Payment { payment_id: [number; 32], part: 0 }
}

pub fn add(amount: Msat, number: u8) -> Command {
    Command::AddHtlc {
        amount,
        payment_hash: hash(number),
        cltv_expiry: 600,
        onion: Box::new([number; 1366]),
        source: source(number),
    }
}

pub fn sat(sat: u64) -> Msat {
    Sat::new(sat).to_msat().expect("fits")
}

/// The same signature with the other of the two possible S values.
pub fn high_s(signature: &Signature) -> Signature {
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").expect("hex");
    let mut compact = signature.serialize_compact();
    let mut borrow = 0_i32;
    for index in (32..64).rev() {
        let digit = i32::from(order[index - 32]) - i32::from(compact[index]) - borrow;
        borrow = i32::from(digit < 0);
        compact[index] = u8::try_from(digit.rem_euclid(256)).expect("a byte");
    }
    Signature::from_compact(&compact).expect("a signature")
}
