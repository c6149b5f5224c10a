//! Two channels that talk to each other over a lossy link, each over a store that can be cut at any point.
//!
//! After every step of either side the four properties of the design are asserted: rows and value agree, a crash is a
//! disconnect, lost effects are made again, and the monitor's rows alone rebuild every commitment ever signed.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod founding;
#[path = "../layered/mod.rs"]
pub mod layered;
pub mod link;
pub mod node;
pub mod signer;
pub mod store;

use std::collections::BTreeMap;

use bitcoin::constants::ChainHash;
use bitcoin::{ScriptBuf, Transaction, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::{PaymentHash, PaymentPreimage};
use outrigger_bolt::wire::{Message, Ping};
use outrigger_channel::{
    ChainEvent, ChannelNote, Command, CommandId, FailReason, Feerates, HtlcOutcome, HtlcSource, Input, Offerer, Phase,
    Policy, Refusal, Reply,
};

use link::Connection;
use node::Node;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The opener.
    Alice,
    Bob,
}

pub use Name::{Alice, Bob};

impl Name {
    pub const BOTH: [Self; 2] = [Alice, Bob];

    pub const fn other(self) -> Self {
        match self {
            Alice => Bob,
            Bob => Alice,
        }
    }

    const fn index(self) -> usize {
        match self {
            Alice => 0,
            Bob => 1,
        }
    }
}

/// What the receiver of a payment does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Fulfilled,
    Failed,
    Malformed,
    /// One of several equal HTLCs: this one and the next have different fates.
    ByTurns,
}

/// A payment that was asked for. Several HTLCs, of either side, may have its hash and amount.
#[derive(Clone, Copy, Debug)]
pub struct Payment {
    pub amount: Msat,
    pub preimage: PaymentPreimage,
    pub fate: Fate,
}

impl Payment {
    /// How its receiver removes the HTLC of this id.
    pub fn removal(&self, htlc_id: u64) -> Decision {
        let fate = match (self.fate, htlc_id % 3) {
            (Fate::ByTurns, 0) => Fate::Fulfilled,
            (Fate::ByTurns, 1) => Fate::Failed,
            (Fate::ByTurns, _) => Fate::Malformed,
            (fate, _) => fate,
        };
        match fate {
            Fate::Fulfilled | Fate::ByTurns => Decision::Fulfill(self.preimage),
            Fate::Failed => Decision::Fail(FailReason::Encrypted(vec![7; 32])),
            Fate::Malformed => {
                Decision::Fail(FailReason::Malformed { sha256_of_onion: [9; 32], failure_code: 0x8000 | 5 })
            }
        }
    }
}

/// How a payment is removed, before it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Fulfill(PaymentPreimage),
    Fail(FailReason),
}

/// What surrounds the two: the chain, fees, policy, and what was asked of them.
pub struct World {
    pub height: u32,
    pub feerates: Feerates,
    pub policy: Policy,
    pub mempool: BTreeMap<Txid, Transaction>,
    pub payments: BTreeMap<PaymentHash, Payment>,
    /// How each received HTLC is removed, by its offerer and id: decided once, as a settlement row is.
    pub decisions: BTreeMap<(Name, u64), Decision>,
    /// HTLCs that were asked for: each has a source of its own.
    asked: u16,
}

/// The two channels and all that is between them.
pub struct Pair {
    nodes: [Node; 2],
    pub world: World,
    connection: Option<Connection>,
    generation: u64,
    features: Features,
    next_command: u64,
    /// Messages that were handed over so far.
    pub delivered: usize,
    /// What goes wrong, and with which message.
    pub cut: Option<Cut>,
}

/// One fault, at the message of this number.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub at: usize,
    pub kind: CutKind,
}

/// What happens to the message, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutKind {
    /// It is lost with the connection.
    Before,
    /// It is acted on, and the connection is lost before an answer is out.
    After,
    /// Its receiver dies before anything of it is durable.
    ReceiverDiesBefore,
    /// Its receiver dies as soon as it is durable, before an answer is out.
    ReceiverDiesAfter,
    /// Its sender dies once it is acted on.
    SenderDies,
}

impl CutKind {
    pub const ALL: [Self; 5] =
        [Self::Before, Self::After, Self::ReceiverDiesBefore, Self::ReceiverDiesAfter, Self::SenderDies];
}

/// What the two agree on before they begin.
#[derive(Clone, Debug)]
pub struct Setup {
    pub capacity: Sat,
    pub push: Msat,
    pub feerate: FeeratePerKw,
    /// The opener's `upfront_shutdown_script`.
    pub upfront_script: Option<ScriptBuf>,
    /// `dust_limit_satoshis` of each.
    pub dust_limits: [Sat; 2],
    /// `max_accepted_htlcs` of each.
    pub max_accepted_htlcs: [u16; 2],
    /// The most that each lets HTLCs without an output lose.
    pub max_dust_exposure: [Sat; 2],
    /// What both offer in `init`: [`founding::features`] negotiates `option_simple_close`, the default does not.
    pub features: Features,
}

impl Setup {
    /// What each of the two asks for.
    pub fn policies(&self, base: &Policy) -> [Policy; 2] {
        [0, 1].map(|index| Policy {
            dust_limit: self.dust_limits[index],
            max_accepted_htlcs: self.max_accepted_htlcs[index],
            max_dust_exposure: self.max_dust_exposure[index],
            ..base.clone()
        })
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            capacity: Sat::new(1_000_000),
            push: Msat::new(400_000_000),
            feerate: FeeratePerKw::new(1000),
            upfront_script: None,
            dust_limits: [Sat::new(354); 2],
            max_accepted_htlcs: [30; 2],
            max_dust_exposure: [Sat::new(50_000); 2],
            features: founding::legacy_features(),
        }
    }
}

pub fn policy() -> Policy {
    Policy {
        chain_hash: ChainHash::REGTEST,
        min_funding: Sat::new(20_000),
        max_funding: Sat::new(100_000_000),
        dust_limit: Sat::new(354),
        reserve_ppm: 10_000,
        to_self_delay: 144,
        max_to_self_delay: 2016,
        max_accepted_htlcs: 30,
        max_in_flight_ppm: 1_000_000,
        htlc_minimum: Msat::new(1),
        minimum_depth: 3,
        max_minimum_depth: 144,
        max_dust_exposure: Sat::new(50_000),
        max_commitment_feerate: FeeratePerKw::new(25_000),
        close_depth: 6,
    }
}

impl Pair {
    /// Two nodes with a channel whose funding transaction is deep enough for both, not connected.
    pub fn open(seed: u64, setup: &Setup) -> Self {
        let (mut pair, tx) = Self::funded(seed, setup);
        pair.confirm_funding(&tx);
        pair
    }

    /// Two nodes with a channel whose funding transaction is signed and in no block.
    pub fn funded(seed: u64, setup: &Setup) -> (Self, Transaction) {
        let world = World {
            height: 500,
            feerates: Feerates {
                commitment: FeeratePerKw::new(1000),
                normal: FeeratePerKw::new(1500),
                floor: FeeratePerKw::new(253),
            },
            policy: policy(),
            mempool: BTreeMap::new(),
            payments: BTreeMap::new(),
            decisions: BTreeMap::new(),
            asked: 0,
        };
        let (nodes, tx) = founding::found(seed, setup, &world);
        let features = setup.features.clone();
        let pair =
            Self { nodes, world, connection: None, generation: 0, features, next_command: 0, delivered: 0, cut: None };
        (pair, tx)
    }

    /// Puts the funding transaction into a block and buries it.
    pub fn confirm_funding(&mut self, tx: &Transaction) {
        let height = self.world.height + 1;
        self.world.height = height;
        for name in Name::BOTH {
            self.input(name, Input::Chain(ChainEvent::FundingConfirmed { height, tx_index: 1, tx }));
            self.flush(name);
        }
        self.world.height += self.world.policy.minimum_depth;
        for name in Name::BOTH {
            self.tell_height(name);
            self.flush(name);
        }
    }

    /// The same, connected and in step.
    pub fn connected(seed: u64, setup: &Setup) -> Self {
        let mut pair = Self::open(seed, setup);
        pair.connect();
        pair.run();
        pair
    }

    pub fn node(&self, name: Name) -> &Node {
        &self.nodes[name.index()]
    }

    pub fn node_mut(&mut self, name: Name) -> &mut Node {
        &mut self.nodes[name.index()]
    }

    pub fn phase(&self, name: Name) -> &Phase {
        self.node(name).channel.phase()
    }

    /// Steps one side. Its rows are staged, its effects held.
    pub fn input(&mut self, name: Name, input: Input<'_>) {
        if std::env::var_os("DANCE_TRACE").is_some() {
            eprintln!("{name:?} <- {}", trace(&input));
        }
        let Self { nodes, world, generation, .. } = self;
        let (node, peer) = match (name, nodes) {
            (Alice, [alice, bob]) => (alice, &*bob),
            (Bob, [alice, bob]) => (bob, &*alice),
        };
        let monitor_learned = node.step(input, world, *generation);
        node.assert_properties(world);
        if monitor_learned {
            node.assert_commitments(peer);
        }
    }

    /// Gives an order. What it is answered can be read once it is delivered.
    pub fn command(&mut self, name: Name, command: Command) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.input(name, Input::Command(id, command));
        id
    }

    /// Gives an order and waits for its answer.
    pub fn order(&mut self, name: Name, command: Command) -> Result<Reply, Refusal> {
        let id = self.command(name, command);
        self.flush(name);
        self.node_mut(name).replies.remove(&id).expect("an order is answered")
    }

    /// Asks for a payment; it counts as asked whatever becomes of it.
    pub fn pay(&mut self, from: Name, amount: Msat, fate: Fate) -> CommandId {
        let number = self.world.payments.len();
        let preimage = PaymentPreimage(founding::bytes("preimage", number as u64));
        let payment_hash = preimage.payment_hash();
        self.world.payments.insert(payment_hash, Payment { amount, preimage, fate });
        self.offer(from, payment_hash, number as u32 % 3)
    }

    /// Offers one HTLC more of a payment, by either side.
    pub fn offer(&mut self, from: Name, payment_hash: PaymentHash, delay: u32) -> CommandId {
        let amount = self.world.payments[&payment_hash].amount;
        let part = self.world.asked;
        self.world.asked += 1;
        let source = HtlcSource::Payment { payment_id: payment_hash.0, part };
        let onion = Box::new([part as u8; 1366]);
        let cltv_expiry = self.world.height + 100 + delay;
        self.command(from, Command::AddHtlc { amount, payment_hash, cltv_expiry, onion, source })
    }

    /// Removes a received HTLC as its fate has it, or fails it where it could lose too much to fees.
    pub fn remove(&mut self, name: Name, htlc_id: u64) {
        let Some(incoming) = self.node(name).incoming.get(&htlc_id) else { return };
        let (payment, over_exposed) = (self.world.payments[&incoming.payment_hash], incoming.over_exposed);
        let decision = self.world.decisions.entry((name.other(), htlc_id)).or_insert_with(|| {
            if over_exposed { Decision::Fail(FailReason::Encrypted(vec![8; 32])) } else { payment.removal(htlc_id) }
        });
        let command = match decision.clone() {
            Decision::Fulfill(preimage) => Command::Fulfill { htlc_id, preimage },
            Decision::Fail(reason) => Command::FailHtlc { htlc_id, reason },
        };
        self.command(name, command);
    }

    /// Removes all that can be removed.
    pub fn remove_all(&mut self, name: Name) {
        let ids: Vec<u64> = self.node(name).incoming.keys().copied().collect();
        for id in ids {
            self.remove(name, id);
        }
    }

    /// Makes the oldest staged step of one side durable, and delivers its effects.
    pub fn commit(&mut self, name: Name) -> bool {
        let Some(batch) = self.node_mut(name).commit() else { return false };
        self.deliver(name, batch);
        true
    }

    /// Makes the oldest staged step durable, and dies before its effects are delivered.
    pub fn commit_and_crash(&mut self, name: Name) {
        let _lost = self.node_mut(name).commit();
        self.crash(name);
    }

    /// Makes all staged steps of one side durable.
    pub fn flush(&mut self, name: Name) {
        while self.commit(name) {}
    }

    fn deliver(&mut self, name: Name, batch: node::Batch) {
        let Self { nodes, world, connection, .. } = self;
        let node = &mut nodes[name.index()];
        let alive = connection.as_ref().is_some_and(|connection| connection.generation == batch.generation);
        let disconnect = node.deliver(batch.effects, world, |message| {
            if let (true, Some(connection)) = (alive, connection.as_mut()) {
                connection.send(name, message);
            }
        });
        if disconnect && alive {
            self.disconnect();
        }
    }

    /// A new connection, over the old one if there is any. `init` is exchanged.
    pub fn connect(&mut self) {
        self.disconnect();
        self.generation += 1;
        self.connection = Some(Connection::new(self.generation));
        for name in Name::BOTH {
            let features = self.features.clone();
            self.input(name, Input::Connected(&features));
        }
    }

    /// The connection is gone with everything that was in flight.
    pub fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            for name in Name::BOTH {
                self.input(name, Input::Disconnected);
            }
        }
    }

    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// One side dies and starts again from what is durable. The other sees a disconnect.
    pub fn crash(&mut self, name: Name) {
        self.connection = None;
        self.input(name.other(), Input::Disconnected);
        let Self { nodes, world, .. } = self;
        nodes[name.index()].restart(world);
    }

    /// One side starts again from another state of its store.
    pub fn restore(&mut self, name: Name, store: store::Store) {
        self.node_mut(name).restore(store);
        self.crash(name);
    }

    /// How many messages are on their way to this side.
    pub fn in_flight(&self, to: Name) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.in_flight(to))
    }

    /// Hands the oldest message on its way to this side over.
    pub fn receive(&mut self, to: Name) -> bool {
        let Some(message) = self.connection.as_mut().and_then(|connection| connection.receive(to)) else {
            return false;
        };
        self.delivered += 1;
        if let Message::Ping(ping) = &message {
            return self.pong(to, ping);
        }
        let cut = self.cut.filter(|cut| cut.at + 1 == self.delivered).map(|cut| cut.kind);
        if cut != Some(CutKind::Before) {
            self.input(to, Input::Message(&message));
        }
        match cut {
            None => {}
            Some(CutKind::Before) => self.disconnect(),
            Some(CutKind::After) => {
                self.disconnect();
                self.flush(to);
            }
            Some(CutKind::ReceiverDiesBefore) => self.crash(to),
            Some(CutKind::ReceiverDiesAfter) => self.commit_and_crash(to),
            Some(CutKind::SenderDies) => self.crash(to.other()),
        }
        true
    }

    /// A node answers a `ping` at once, whatever its channel is at.
    fn pong(&mut self, from: Name, ping: &Ping) -> bool {
        if let (Some(connection), Some(pong)) = (self.connection.as_mut(), ping.answer()) {
            connection.send(from, &Message::Pong(pong));
        }
        true
    }

    /// A message that the peer would never send.
    pub fn inject(&mut self, to: Name, message: &Message) {
        self.input(to, Input::Message(message));
        self.flush(to);
    }

    /// Delivers and signs until nothing moves any more.
    pub fn run(&mut self) {
        for _round in 0..10_000 {
            let mut moved = false;
            for name in Name::BOTH {
                moved |= self.commit(name);
                moved |= self.receive(name);
            }
            if moved {
                continue;
            }
            for name in Name::BOTH {
                self.command(name, Command::Commit);
                self.node_mut(name).trim_empty_batches();
                moved |= self.commit(name);
            }
            if !moved && Name::BOTH.into_iter().all(|name| self.in_flight(name) == 0) {
                return;
            }
        }
        panic!("the two never come to rest");
    }

    /// Reconnects and lets every payment come to its end.
    pub fn heal(&mut self) {
        for _round in 0..50 {
            if self.connection.is_none() {
                self.connect();
            }
            self.run();
            if Name::BOTH.into_iter().all(|name| self.node(name).incoming.is_empty()) && self.connection.is_some() {
                return;
            }
            for name in Name::BOTH {
                self.remove_all(name);
            }
            self.run();
        }
        panic!("the channel does not heal: {:#?}", Name::BOTH.map(|name| self.node(name).channel.rows().clone()));
    }

    /// Puts a transaction of the mempool into the next block, if there is one, and tells both.
    pub fn mine(&mut self) {
        self.world.height += 1;
        let height = self.world.height;
        let tx = self.world.mempool.pop_first().map(|(_, tx)| tx);
        // All of them spend the funding output.
        self.world.mempool.clear();
        for name in Name::BOTH {
            if let Some(tx) = &tx {
                self.input(name, Input::Chain(ChainEvent::FundingSpent { height, tx }));
            }
            self.tell_height(name);
            self.flush(name);
        }
    }

    /// Tells one side of a height that it asked for.
    pub fn tell_height(&mut self, name: Name) {
        let height = self.world.height;
        if self.node_mut(name).asked_for(height) {
            self.input(name, Input::Chain(ChainEvent::Height(height)));
        }
    }

    /// Whether either side has begun to close.
    pub fn is_shutting_down(&self) -> bool {
        let closing = |phase: &Phase| matches!(phase, Phase::ShuttingDown { .. } | Phase::Closing { .. });
        Name::BOTH.into_iter().any(|name| closing(self.phase(name)))
    }

    /// Both hold a fully signed close that pays each side its balance, the fee taken from the opener alone, or with
    /// `option_simple_close` from either.
    pub fn assert_closed_fairly(&self) {
        for name in Name::BOTH {
            let node = self.node(name);
            let Phase::Closing { tx, .. } = self.phase(name) else { panic!("{name:?} is not closing") };
            if self.features.supports(Feature::SIMPLE_CLOSE) {
                self.assert_simple_closes(name);
                continue;
            }
            assert!(self.world.mempool.contains_key(&tx.compute_txid()), "{name:?} published its close");
            assert_eq!(tx.input[0].witness.len(), 4, "both have signed");
            let paid_to = |script: &ScriptBuf| {
                let mut outputs = tx.output.iter().filter(|output| output.script_pubkey == *script);
                outputs.next().map_or(0, |output| output.value.to_sat())
            };
            let head = &node.channel.rows().head;
            let (alice, bob) = match name {
                Alice => (head.local_commitment.to_local, head.local_commitment.to_remote),
                Bob => (head.local_commitment.to_remote, head.local_commitment.to_local),
            };
            let [alice, bob] = [alice, bob].map(|msat| msat.to_sat_floor().get());
            let to_bob = paid_to(&self.node(Bob).shutdown_script);
            // Each side leaves out what is below its own limit, and either may have made this one (BOLT 3).
            let params = &node.channel.rows().params;
            let dust = params.local.dust_limit.max(params.remote.dust_limit).get();
            assert!(to_bob == bob || (to_bob == 0 && bob < dust), "the accepter pays no fee");
            let fee = alice - paid_to(&self.node(Alice).shutdown_script);
            assert!(fee > 0 && (fee < 3_000 || alice < 3_000), "a fee of {fee}");
        }
    }

    /// Each close that both signed takes its fee from one side alone, and any of them may confirm.
    fn assert_simple_closes(&self, name: Name) {
        let head = &self.node(name).channel.rows().head.local_commitment;
        let (alice, bob) = match name {
            Alice => (head.to_local, head.to_remote),
            Bob => (head.to_remote, head.to_local),
        };
        let owed = [alice, bob].map(|msat| msat.to_sat_floor().get());
        for tx in self.phase(name).closes_to_publish() {
            assert!(self.world.mempool.contains_key(&tx.compute_txid()), "{name:?} published its close");
            assert_eq!(tx.input[0].witness.len(), 4, "both have signed");
            let paid = Name::BOTH.map(|side| {
                let script = &self.node(side).shutdown_script;
                tx.output
                    .iter()
                    .find(|output| output.script_pubkey == *script)
                    .map_or(0, |output| output.value.to_sat())
            });
            let is_whole = |side: usize| paid[side] == owed[side] || (paid[side] == 0 && owed[side] < 294);
            assert!(is_whole(0) || is_whole(1), "the closee pays no fee: {paid:?} of {owed:?}");
            let fee = owed[0] + owed[1] - paid[0] - paid[1];
            assert!(fee > 0 && fee < 10_000, "a fee of {fee}");
        }
    }

    /// Mines the published close and buries it, until the channel is history on both sides.
    pub fn bury_close(&mut self) {
        self.mine();
        for _ in 1..self.world.policy.close_depth {
            for name in Name::BOTH {
                let phase = self.phase(name);
                assert!(matches!(phase, Phase::Closing { confirmed_height: Some(_), .. }), "{phase:?}");
            }
            self.mine();
        }
        for name in Name::BOTH {
            assert!(matches!(self.phase(name), Phase::Closed { .. }), "{:?}", self.phase(name));
            assert!(self.node(name).monitor.is_closed());
            let owned = self.node(name).channel.summary(0).local;
            let note = self.node(name).notes.last();
            // What was owned at the end, and no more than that was paid out.
            let is_told = |note: &ChannelNote| matches!(note, ChannelNote::Closed { ours, paid: Some(paid), .. } if *ours == owned && *paid <= ours.to_sat_floor());
            assert!(note.is_some_and(is_told), "{note:?}");
        }
    }

    /// Every payment that was ever signed has ended as its receiver decided, both sides agree on it, and every
    /// millisatoshi is where it should be. To be called at rest.
    pub fn assert_settled(&self, setup: &Setup) {
        let total = setup.capacity.to_msat().expect("a capacity").get() as i128;
        let mut balance = [total - i128::from(setup.push.get()), i128::from(setup.push.get())];
        for from in Name::BOTH {
            let (payer, payee) = (self.node(from), self.node(from.other()));
            for (id, evidence) in payer.store.evidence(Offerer::Local) {
                let payment = &self.world.payments[&evidence.payment_hash];
                assert_eq!(payment.amount, evidence.amount);
                let outcome = payer.outcomes().get(&id).cloned().expect("a signed payment has an outcome");
                match (&outcome, self.world.decisions[&(from, id)].clone()) {
                    (HtlcOutcome::Fulfilled(proof), Decision::Fulfill(preimage)) => {
                        assert_eq!(*proof, preimage);
                        balance[from.index()] -= i128::from(payment.amount.get());
                        balance[from.other().index()] += i128::from(payment.amount.get());
                    }
                    (HtlcOutcome::Failed(told), Decision::Fail(reason)) => assert_eq!(*told, reason),
                    (outcome, removal) => panic!("{outcome:?} where {removal:?} was decided"),
                }
            }
            let offered: Vec<_> = payer.store.evidence(Offerer::Local).collect();
            let received: Vec<_> = payee.store.evidence(Offerer::Remote).collect();
            assert_eq!(offered, received, "both sides know of the same payments");
        }
        for name in Name::BOTH {
            let rows = self.node(name).channel.rows();
            assert!(rows.htlcs.is_empty() && rows.onions.is_empty(), "nothing is left of any payment");
            assert!(self.node(name).monitor.rows().preimages.is_empty(), "no preimage is left");
            let expected = [balance[name.index()], balance[name.other().index()]];
            for totals in [&rows.head.local_commitment, &rows.head.remote_commitment] {
                assert_eq!([totals.to_local, totals.to_remote].map(|msat| i128::from(msat.get())), expected);
            }
        }
    }
}

/// One line of what happens, for whoever replays a seed with `DANCE_TRACE` set.
fn trace(input: &Input<'_>) -> String {
    match input {
        Input::Message(message) => format!("message {}", message.name()),
        Input::Command(_, Command::AddHtlc { amount, .. }) => format!("add {amount}"),
        Input::Command(_, command) => format!("command {command:?}"),
        Input::Connected(_) => "connected".to_owned(),
        Input::Disconnected => "disconnected".to_owned(),
        Input::Chain(_) => "chain".to_owned(),
    }
}
