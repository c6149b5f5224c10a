//! A world at rest whose nodes are stopped: what is gone on with again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use outrigger_bolt::id::PaymentHash;
use outrigger_channel::Feerates;
use parking_lot::Mutex;
use rand_chacha::ChaCha8Rng;

use super::backup::Backup;
use super::chain::Chain;
use super::clock::VirtualClock;
use super::disk::{Content, Disk};
use super::ledger::Ledger;
use super::network::Link;
use super::node::{Config, Node};
use super::payments::Payment;
use super::signer::{Journal, Signers, Signing};
use super::world::{Tracing, World};

pub struct Stopped {
    rng: ChaCha8Rng,
    clock: VirtualClock,
    nodes: Vec<StoppedNode>,
    links: Vec<([usize; 2], u32)>,
    chain: Chain,
    ledger: Ledger,
    signing: Signing,
    journal: Journal,
    payments: Vec<Payment>,
    replayed: BTreeSet<PaymentHash>,
    copies: BTreeMap<usize, Content>,
}

struct StoppedNode {
    config: Config,
    content: Content,
    backups: Vec<Backup>,
    hangs_up: bool,
    pace: u32,
    feerates: Feerates,
}

impl Stopped {
    /// Stops every node well, and keeps what is left.
    pub fn of(mut world: World) -> Self {
        for node in 0..world.nodes.len() {
            world.stop(node);
        }
        let node = |node: &Node| StoppedNode {
            config: node.config.clone(),
            content: node.disk.content(),
            backups: node.backups.iter().map(Backup::copied).collect(),
            hangs_up: node.hangs_up,
            pace: node.pace,
            feerates: node.feerates,
        };
        let World { rng, clock, nodes, links, chain, ledger, signers, payments, replayed, copies, .. } = world;
        Self {
            rng,
            clock: VirtualClock::clone(&clock),
            nodes: nodes.iter().map(node).collect(),
            links: links.iter().map(|link| (link.nodes, link.pace)).collect(),
            chain,
            ledger,
            signing: signers.signing,
            journal: signers.journal.lock().clone(),
            payments,
            replayed,
            copies,
        }
    }

    /// The world as it was, with all nodes started and connected.
    pub fn go_on(&self, tracing: Tracing) -> World {
        let journal = Arc::new(Mutex::new(self.journal.clone()));
        let signers = Signers { signing: self.signing, journal };
        let nodes = self.nodes.iter().enumerate().map(|(number, stopped)| {
            let StoppedNode { config, content, backups, hangs_up, pace, feerates } = stopped;
            let mut node = Node::new(number, config.clone(), *pace, *feerates, signers.clone());
            node.disk = Disk::with(content.clone());
            node.backups = backups.iter().map(Backup::copied).collect();
            node.hangs_up = *hangs_up;
            node
        });
        let nodes = nodes.collect();
        let mut world = World::by(Rc::new(self.clock.clone()), signers, tracing);
        world.nodes = nodes;
        world.links = self.links.iter().map(|(nodes, pace)| Link::new(*nodes, *pace)).collect();
        world.rng = self.rng.clone();
        world.chain = self.chain.clone();
        world.ledger = self.ledger.clone();
        world.payments = self.payments.clone();
        world.replayed = self.replayed.clone();
        world.copies = self.copies.clone();
        (0..world.nodes.len()).for_each(|node| world.start(node));
        (0..world.links.len()).for_each(|link| world.connect(link));
        world.rest();
        world
    }
}
