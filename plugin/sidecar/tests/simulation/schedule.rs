//! A seed's schedule: who there is, what happens to them, and how it ends.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::onion::{self, FinalPayload, Hop, Payload, PaymentData};
use outrigger_channel::{Command, Feerates, HtlcSource, Policy};
use outrigger_sidecar::manager::ChannelView;
use outrigger_sidecar::manager::relay::register::{Caps, Load};
use outrigger_sidecar::manager::terms::ForwardingPolicy;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::backup::Backup;
use super::network::Link;
use super::node::{Config, Node};
use super::signer::Signing;
use super::world::{Counts, Tracing, World};

/// What kind of world a seed makes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub nodes: usize,
    /// Of a line; else the topology is random.
    pub is_line: bool,
    pub steps: usize,
    pub has_backups: bool,
    /// The step at which a disk dies.
    pub loss: Option<usize>,
    /// How often a step is a fault, or something that an operator or the chain does.
    pub faults: f64,
    pub actions: f64,
}

impl Shape {
    fn of(world: &mut World) -> Self {
        let rng = &mut world.rng;
        let nodes = *[2, 3, 3, 4, 4, 5, 6].choose(rng).expect("some");
        let (is_line, steps, has_backups) = (rng.random_bool(0.3), rng.random_range(200..1200), rng.random_bool(0.5));
        let loss = (has_backups && rng.random_bool(0.3)).then(|| rng.random_range(steps / 3..steps));
        Self {
            nodes,
            is_line,
            steps,
            has_backups,
            loss,
            faults: *[0.0, 0.002, 0.01, 0.03].choose(rng).expect("some"),
            actions: *[0.02, 0.05, 0.1].choose(rng).expect("some"),
        }
    }
}

/// Runs one seed to its end. What does not hold panics.
pub fn simulate(seed: u64, signing: Signing, tracing: Tracing) -> (Counts, u64) {
    let mut world = World::new(seed, signing, tracing);
    world.plan.is_drawn = true;
    let shape = Shape::of(&mut world);
    world.note(format_args!("{shape:?}"));
    world.found(shape);
    world.live(shape);
    world.heal();
    world.assert_at_rest();
    world.assert_paid();
    world.pay_again();
    world.assert_at_rest();
    world.assert_backups();
    world.end_what_ends_alone();
    if world.rng.random_bool(0.3) {
        world.close_all();
    }
    let relayed = world.ledger.relayed();
    world.counts.add("relays", relayed);
    let (all, forgotten) = (world.ledger.funded().count() as u64, world.ledger.never_funded.len() as u64);
    let amid = all - world.counts.0["channels"];
    world.counts.add("channels opened amid all else", amid);
    world.counts.add("channels forgotten by their opener", forgotten);
    let (events, signatures) = (world.events, world.signers.journal.lock().signatures);
    world.counts.add("events", events);
    world.counts.add("signatures", signatures);
    (std::mem::take(&mut world.counts), world.digest())
}

pub fn feerates(commitment: u32) -> Feerates {
    Feerates {
        commitment: FeeratePerKw::new(commitment),
        normal: FeeratePerKw::new(commitment + 500),
        floor: FeeratePerKw::new(253),
    }
}

impl World {
    fn config(&mut self) -> Config {
        let rng = &mut self.rng;
        let mut pick = |of: &[u64]| *of.choose(rng).expect("some");
        let policy = Policy {
            chain_hash: ChainHash::using_genesis_block_const(Network::Regtest),
            min_funding: Sat::new(20_000),
            max_funding: Sat::new(100_000_000),
            dust_limit: Sat::new(pick(&[354, 354, 990])),
            reserve_ppm: 10_000,
            to_self_delay: 144,
            max_to_self_delay: 2016,
            max_accepted_htlcs: pick(&[4, 30, 30]) as u16,
            max_in_flight_ppm: pick(&[200_000, 1_000_000, 1_000_000]) as u32,
            htlc_minimum: Msat::new(pick(&[1, 1, 1000])),
            minimum_depth: pick(&[1, 2]) as u32,
            max_minimum_depth: 144,
            max_dust_exposure: Sat::new(pick(&[50_000, 50_000, 12_000])),
            max_commitment_feerate: FeeratePerKw::new(25_000),
            close_depth: 6,
        };
        let forwarding = ForwardingPolicy {
            cltv_expiry_delta: pick(&[34, 80]) as u16,
            fee_base_msat: pick(&[1, 1000]) as u32,
            fee_proportional_millionths: pick(&[0, 100, 3000]) as u32,
            htlc_minimum: Msat::new(1),
            htlc_maximum: None,
        };
        let most = Load { htlcs: pick(&[3, 50]) as u32, value: Msat::new(u64::MAX) };
        Config { policy, forwarding, caps: Caps { node: most, peer: most } }
    }

    /// Nodes, links, and open channels, before anything goes wrong.
    fn found(&mut self, shape: Shape) {
        for number in 0..shape.nodes {
            let (config, pace) = (self.config(), *[1, 4, 4, 16].choose(&mut self.rng).expect("some"));
            let feerates = feerates(self.rng.random_range(253..1500));
            self.nodes.push(Node::new(number, config, pace, feerates, self.signers.clone()));
            if shape.has_backups {
                self.draw_backups(number);
            }
            self.start(number);
        }
        for number in 1..shape.nodes {
            let earlier = if shape.is_line { number - 1 } else { self.rng.random_range(0..number) };
            self.add_link([earlier, number]);
        }
        if !shape.is_line {
            for _ in 0..self.rng.random_range(0..shape.nodes) {
                let (a, b) = (self.rng.random_range(0..shape.nodes), self.rng.random_range(0..shape.nodes));
                if a < b && !self.links.iter().any(|link| link.nodes == [a, b]) {
                    self.add_link([a, b]);
                }
            }
        }
        for link in 0..self.links.len() {
            self.connect(link);
            for _ in 0..*[1, 1, 2, 3].choose(&mut self.rng).expect("some") {
                self.open_some(link);
            }
        }
        self.rest();
        for _ in 0..3 {
            self.mine();
            self.rest();
        }
        for view in self.all_channels() {
            assert_eq!((view.1.summary.state, view.1.summary.connected), ("normal", true), "{:?}", view.1);
        }
        let channels = self.ledger.channels.len() as u64;
        assert!(channels >= self.links.len() as u64, "a channel on each link");
        self.counts.add("channels", channels);
    }

    fn open_some(&mut self, link: usize) {
        let capacity = *[40_000, 150_000, 1_000_000].choose(&mut self.rng).expect("some");
        let tenths = *[0, 1, 5, 5, 8].choose(&mut self.rng).expect("some");
        let push = capacity * 100 * tenths + self.rng.random_range(0..1000);
        let side = self.rng.random_range(0..2);
        self.open(link, side, (capacity, push));
    }

    /// A channel more, while payments, faults and blocks go on.
    fn open_another(&mut self) {
        let link = self.rng.random_range(0..self.links.len());
        if self.links[link].is_up() && !self.links[link].nodes.iter().any(|node| self.nodes[*node].is_old) {
            self.counts.one("openings amid all else");
            self.open_some(link);
        }
    }

    pub fn add_link(&mut self, nodes: [usize; 2]) {
        let pace = *[1, 4, 4, 16].choose(&mut self.rng).expect("some");
        self.links.push(Link::new(nodes, pace));
    }

    /// Every channel as each of its nodes shows it.
    pub fn all_channels(&self) -> Vec<(usize, ChannelView)> {
        let of_node = |node: &Node| {
            let views = node
                .live
                .as_ref()
                .map(|live| live.core.manager.channels(None, None, usize::MAX, |_| true))
                .unwrap_or_default();
            views.into_iter().map(|view| (node.number, view)).collect::<Vec<_>>()
        };
        let all = self.nodes.iter().flat_map(of_node);
        all.filter(|(_, view)| !self.ledger.never_funded.contains(&view.channel_id)).collect()
    }

    /// The eventful part.
    fn live(&mut self, shape: Shape) {
        for step in 0..shape.steps {
            if shape.loss == Some(step) {
                self.lose_some_disk();
            }
            if self.rng.random_bool(shape.faults) {
                self.fault();
            } else if self.rng.random_bool(shape.actions) || !self.step() {
                self.action();
            }
            self.mend();
            if shape.has_backups {
                self.move_backups();
            }
        }
    }

    fn fault(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        match self.rng.random_range(0..14) {
            0..4 => self.crash(node),
            4 => self.reorganise(),
            5..7 => self.hurt_disk(node),
            _ => {
                let link = self.rng.random_range(0..self.links.len());
                self.disconnect(link);
            }
        }
    }

    /// What is down comes up after a while, and what is not connected connects.
    fn mend(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].live.is_none() && self.rng.random_bool(0.05) {
                self.start(node);
            }
        }
        for link in 0..self.links.len() {
            if self.links[link].is_idle() && self.rng.random_bool(0.1) {
                self.connect(link);
            }
        }
    }

    fn action(&mut self) {
        match self.rng.random_range(0..100) {
            0..8 => {
                let amount = self.amount();
                self.want_keysend(amount);
            }
            8..78 => {
                for _ in 0..*[1, 1, 1, 4].choose(&mut self.rng).expect("some") {
                    let amount = self.amount();
                    self.want_payment(amount);
                }
            }
            78..86 => {
                let node = self.rng.random_range(0..self.nodes.len());
                let highest = if self.rng.random_bool(0.2) { 20_000 } else { 3_000 };
                let feerate = self.rng.random_range(253..highest);
                self.set_feerates(node, feerates(feerate));
            }
            86..91 => self.mine(),
            91..93 => self.replay(),
            93..95 => self.abandon(),
            95..98 => self.open_another(),
            _ => self.clock.pass(Duration::from_secs(self.rng.random_range(1..100))),
        }
    }

    /// A node offers an HTLC again that it has offered before, with the same onion (FWD-17).
    fn replay(&mut self) {
        let Some((node, add)) = self.ledger.adds.choose(&mut self.rng).cloned() else { return };
        if self.nodes[node].live.is_none() {
            return;
        }
        self.counts.one("replays");
        self.replayed.insert(add.payment_hash);
        let source = HtlcSource::Payment { payment_id: self.rng.random(), part: 0 };
        let command = Command::AddHtlc {
            amount: add.amount_msat,
            payment_hash: add.payment_hash,
            cltv_expiry: add.cltv_expiry,
            onion: add.onion_routing_packet,
            source,
        };
        self.order(node, add.channel_id, command);
    }

    /// Around dust limits, large and small.
    fn amount(&mut self) -> Msat {
        let msat = match self.rng.random_range(0..6) {
            0 => self.rng.random_range(1..2_000),
            1 => self.rng.random_range(352_000..356_000),
            2 => self.rng.random_range(988_000..992_000),
            3 => self.rng.random_range(1..100_000_000),
            _ => self.rng.random_range(1..6_000_000),
        };
        Msat::new(msat)
    }

    /// Pays over each channel, in each direction in which there is money. What a backup was drawn to refuse, and did not come to, it takes.
    pub fn pay_again(&mut self) {
        if self.plan.is_drawn {
            self.nodes.iter().flat_map(|node| &node.backups).for_each(Backup::stay_good);
        }
        for node in 0..self.nodes.len() {
            self.set_feerates(node, feerates(500));
        }
        self.rest();
        let standing = self.standing();
        for (node, view) in self.all_channels() {
            let id = view.channel_id;
            if self.ledger.ends_alone(&id) || standing.iter().any(|(channel, ..)| *channel == id) {
                continue;
            }
            assert_eq!((view.summary.state, view.summary.connected), ("normal", true), "node {node}: {view:?}");
            let view = self.nodes[node].live().core.manager.channel(&id).expect("a channel");
            let payee = self.nodes.iter().position(|other| other.id == view.peer).expect("a node");
            let least = self.nodes[payee].config.policy.htlc_minimum.max(Msat::new(1_000));
            if view.summary.spendable < least {
                continue;
            }
            self.counts.one("channels paid over again");
            self.pay_once_over(node, payee, &view, least);
        }
    }

    fn pay_once_over(&mut self, node: usize, payee: usize, view: &ChannelView, amount: Msat) {
        let payment = self.payments.len();
        let plain = super::payments::Payment::plain(node, payee, amount);
        self.payments.push(plain);
        self.invoice_only(payment);
        self.rest();
        let (hash, secret) = self.invoice_of(payment);
        let cltv_expiry = self.chain.height() + 30;
        let payload = FinalPayload {
            amt_to_forward: amount,
            outgoing_cltv_value: cltv_expiry,
            payment_data: Some(PaymentData { payment_secret: secret, total_msat: amount }),
            payment_metadata: None,
            keysend_preimage: None,
        };
        let hop = Hop { node: *view.peer.public_key(), payload: Payload::Final(payload).encode().expect("a payload") };
        let session_key = SecretKey::from_slice(&self.rng.random::<[u8; 32]>()).expect("a key");
        let built = onion::build(&session_key, &[hop], &hash.0).expect("an onion");
        let command = Command::AddHtlc {
            amount,
            payment_hash: hash,
            cltv_expiry,
            onion: Box::new(built.packet.to_bytes()),
            source: HtlcSource::Payment { payment_id: hash.0, part: 0 },
        };
        let channel: ChannelId = view.channel_id;
        self.order(node, channel, command);
        self.rest();
        let flow = self.ledger.flow(payee, &hash);
        assert_eq!(flow, (0, amount.get()), "channel {channel} cannot pay again from node {node}: {:?}", view.summary);
    }

    /// Closes every channel together with its peer, and buries the closes.
    pub fn close_all(&mut self) {
        let standing = self.standing();
        let is_left = |id: &ChannelId| self.ledger.ends_alone(id) || standing.iter().any(|(channel, ..)| channel == id);
        let channels: Vec<_> = self.ledger.funded().map(|(id, founded)| (*id, founded.nodes)).collect();
        let channels: Vec<_> = channels.into_iter().filter(|(id, _)| !is_left(id)).collect();
        let mut outputs = Vec::new();
        for (channel, nodes) in &channels {
            let node = nodes[self.rng.random_range(0..2)];
            let view = self.nodes[node].live().core.manager.channel(channel).expect("a channel");
            outputs.push(view.summary.funding);
            let script = self.nodes[node].script();
            let script = view.summary.shutdown_script.unwrap_or(script);
            self.order(node, *channel, Command::Shutdown { script, feerate: FeeratePerKw::new(1_500) });
            if self.rng.random_bool(0.2) {
                let link = self.rng.random_range(0..self.links.len());
                self.disconnect(link);
            }
        }
        for _ in 0..8 {
            self.rest();
            (0..self.links.len()).for_each(|link| self.connect(link));
            self.rest();
            self.mine();
        }
        self.rest();
        for output in outputs {
            assert!(self.chain.is_spent(&output), "a close was not published");
        }
        for (node, view) in self.all_channels() {
            if channels.iter().any(|(id, _)| *id == view.channel_id) {
                assert_eq!(view.summary.state, "closed", "node {node}: {view:?}");
            }
        }
        self.counts.add("channels closed", channels.len() as u64);
    }
}
