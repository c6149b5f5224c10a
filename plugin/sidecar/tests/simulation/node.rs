//! One whole node: manager, payments and store over a simulated disk. Its threads are steps that the world takes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, ScriptBuf, Transaction, WPubkeyHash};
use outrigger_bolt::id::NodeId;
use outrigger_channel::{Feerates, Policy, Refusal, Reply};
use outrigger_sidecar::key::{NodeKeys, Seed};
use outrigger_sidecar::manager::env::ChainView;
use outrigger_sidecar::manager::pending::MAX_PENDING_PER_PEER;
use outrigger_sidecar::manager::relay::register::Caps;
use outrigger_sidecar::manager::terms::ForwardingPolicy;
use outrigger_sidecar::node::core::{self, Core, Duties, Ground};
use outrigger_sidecar::payment::{InvoiceFault, SendFault, Terms};
use outrigger_sidecar::store::backup::Followed;
use outrigger_sidecar::store::row::{InvoiceRow, PaymentRow};
use outrigger_sidecar::store::schema::Table;
use outrigger_sidecar::store::{self, Batch, Gathered, Generation, Released, StoreError};
use redb::Database;

use super::backup::Backup;
use super::chain::{self, Chain};
use super::disk::Disk;
use super::signer::Signers;
use super::sinks::Sinks;

/// The network of every simulation.
pub const NETWORK: &str = "regtest";

/// As many nodes as any seed has.
pub const MOST_NODES: usize = 6;

/// Their keys: derived once, they cost more than a simulation.
static KEYS: LazyLock<Vec<Arc<NodeKeys>>> = LazyLock::new(|| {
    let keys = |number: usize| {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed::create(dir.path(), || Ok([number as u8 + 1; 32])).unwrap();
        Arc::new(NodeKeys::derive(&seed, Network::Regtest))
    };
    (0..MOST_NODES).map(keys).collect()
});

/// Blocks between two records of the tip.
const TIP_EVERY: u32 = 4;

/// Blocks that an HTLC to a node must leave before it expires.
const FINAL_CLTV_BLOCKS: u16 = 18;

/// What the operator of a node has chosen.
#[derive(Clone, Debug)]
pub struct Config {
    pub policy: Policy,
    pub forwarding: ForwardingPolicy,
    pub caps: Caps,
}

/// What a caller waits for.
pub enum Waits {
    Invoice { payment: usize, future: Fut<Result<InvoiceRow, InvoiceFault>> },
    Send { payment: usize, future: Fut<Result<PaymentRow, SendFault>> },
    Order { future: Fut<Result<Reply, Refusal>> },
}

/// What a caller was told.
pub enum Told {
    Invoice { payment: usize, answer: Result<InvoiceRow, InvoiceFault> },
    Sent { payment: usize, answer: Result<PaymentRow, SendFault> },
    Ordered { answer: Result<Reply, Refusal> },
}

pub type Fut<T> = Pin<Box<dyn Future<Output = T>>>;

/// What is lost in a crash.
pub struct Live {
    pub core: Core,
    pub duties: Duties,
    pub db: Arc<Database>,
    /// The commit that is being made: its orders may be told already.
    pub gathered: Option<Gathered>,
    /// Peers in the workers' queue.
    pub work: Vec<NodeId>,
    /// The height of the newest block that was taken in.
    pub tip: u32,
    /// How many reorganisations were taken in.
    pub forks: usize,
    pub waits: Vec<Waits>,
    /// None without a backup, and in restored mode.
    pub sinks: Option<Sinks>,
}

pub struct Node {
    pub number: usize,
    pub id: NodeId,
    pub keys: Arc<NodeKeys>,
    pub config: Config,
    pub disk: Disk,
    pub backups: Vec<Backup>,
    /// It may believe that its rows are old: an older copy was put into the place of its disk, or what came of a backup; or a backup
    /// has told it so.
    pub is_old: bool,
    /// It believes so for a lie alone.
    pub is_fooled: bool,
    /// It may end a connection.
    pub hangs_up: bool,
    pub live: Option<Live>,
    /// How readily its writer, workers and other threads run, beside other nodes'.
    pub pace: u32,
    pub feerates: Feerates,
    signers: Signers,
}

impl Node {
    pub fn new(number: usize, config: Config, pace: u32, feerates: Feerates, signers: Signers) -> Self {
        let keys = KEYS[number].clone();
        let (id, disk) = (keys.node_id(), Disk::default());
        Self {
            number,
            id,
            keys,
            config,
            disk,
            backups: Vec::new(),
            is_old: false,
            is_fooled: false,
            hangs_up: false,
            live: None,
            pace,
            feerates,
            signers,
        }
    }

    /// What runs, where it does.
    pub fn live(&self) -> &Live {
        self.live.as_ref().unwrap_or_else(|| panic!("node {} is down", self.number))
    }

    /// Starts from the disk, up to the tip of the chain, as `node.rs` does. Returns what was to be published.
    pub fn start(&mut self, chain: &Chain) -> Result<Vec<Transaction>, StoreError> {
        let owner = (NETWORK, &self.id);
        let (db, mut file) = store::open_and_load_on(self.disk.database(), (&self.disk, &self.disk), owner)?;
        let age = Generation::at_start_in(Box::new(self.disk.clone()), owner, &db, file.restored.is_some())?;
        let generation = file.aged(age);
        assert!(file.frozen.is_empty(), "node {} froze channels: {:?}", self.number, file.frozen);
        assert!(
            file.restored.is_none() || self.is_old,
            "node {} believes that its file is old: {:?}",
            self.number,
            file.restored
        );
        let sinks = Sinks::of(self, &db, &file)?;
        let place = file.wallet.first().map(|(_, row)| u64::from_be_bytes(row.as_slice().try_into().unwrap()));
        let (tip, forks) = place.map_or((chain::BEGIN, 0), |place| (place as u32, (place >> 32) as usize));
        let (signers, keys, number) = (self.signers.clone(), self.keys.clone(), self.number);
        let ground = Ground {
            sinks: sinks.as_ref().map(|sinks| sinks.hub.clone()),
            keys: self.keys.clone(),
            signers: Arc::new(move |keys_index| signers.signer(&keys, number, keys_index)),
            view: ChainView::new(tip, self.feerates),
            policy: self.config.policy.clone(),
            pending_per_peer: MAX_PENDING_PER_PEER,
            forwarding: (self.config.forwarding, self.config.caps),
            payments: Terms { network: Network::Regtest, final_cltv_blocks: FINAL_CLTV_BLOCKS, accept_keysend: true },
        };
        let (core, mut duties) = core::build(db.clone(), &mut file, ground)?;
        duties.commits = duties.commits.raising(generation).journaled(file.journal.take());
        if let Some(sinks) = &sinks {
            let deliver = core.manager.deliver().clone();
            sinks.hub.deliver_to(move |released, last_seq| deliver.deliver(released, last_seq));
        }
        let broadcasts = std::mem::take(&mut file.broadcasts).into_iter();
        let published = broadcasts.filter(|row| core.manager.publishes_at_start(row, sinks.is_some()));
        let published = published.map(|row| row.tx).collect();
        let live = Live { core, duties, db, gathered: None, work: Vec::new(), tip, forks, waits: Vec::new(), sinks };
        self.live = Some(live);
        while self.is_behind(chain) {
            self.follow(chain);
        }
        self.live.as_mut().unwrap().hear(&self.backups)?;
        let manager = &self.live().core.manager;
        manager.env().set_shutdown_script(self.script());
        manager.set_feerates(self.feerates, true);
        manager.env().chain.set_synced(true);
        manager.resume();
        Ok(published)
    }

    /// Whether the chain has something new for the node, which runs.
    pub fn is_behind(&self, chain: &Chain) -> bool {
        let live = self.live();
        live.forks < chain.forks.len() || live.tip < chain.height()
    }

    /// Takes the next reorganisation in, or else the next block. Channels first, and last the wallet, whose row says up to
    /// where all have come.
    pub fn follow(&mut self, chain: &Chain) {
        let live = self.live.as_mut().unwrap();
        match chain.forks.get(live.forks) {
            Some(lowest) => {
                for height in (*lowest..=live.tip).rev() {
                    live.core.manager.block_disconnected(height);
                }
                live.tip = live.tip.min(*lowest - 1);
                live.forks += 1;
            }
            None => {
                live.tip += 1;
                live.core.manager.block_connected(live.tip, &chain.block(live.tip));
            }
        }
        let mut batch = Batch::default();
        let place = (live.forks as u64) << 32 | u64::from(live.tip);
        batch.put(Table::Wallet, 0u64.to_be_bytes().to_vec(), Some(place.to_be_bytes().to_vec()));
        live.place().note(&mut batch);
        live.core.manager.env().writer.submit(batch);
        if live.tip.is_multiple_of(TIP_EVERY) {
            live.tell_tip();
        }
    }

    /// Where its closes pay.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([self.number as u8 + 1; 20]))
    }

    /// Looks whether anything that a caller waits for has come.
    pub fn poll(&mut self) -> Vec<Told> {
        let Some(live) = &mut self.live else { return Vec::new() };
        let mut told = Vec::new();
        live.waits.retain_mut(|waits| match waits.poll() {
            Poll::Ready(answer) => {
                told.push(answer);
                false
            }
            Poll::Pending => true,
        });
        told
    }
}

impl Waits {
    fn poll(&mut self) -> Poll<Told> {
        let mut context = Context::from_waker(Waker::noop());
        match self {
            Self::Invoice { payment, future } => {
                future.as_mut().poll(&mut context).map(|answer| Told::Invoice { payment: *payment, answer })
            }
            Self::Send { payment, future } => {
                future.as_mut().poll(&mut context).map(|answer| Told::Sent { payment: *payment, answer })
            }
            Self::Order { future } => future.as_mut().poll(&mut context).map(|answer| Told::Ordered { answer }),
        }
    }
}

impl Live {
    /// Hears what the backups hold, before a peer is met, and tells them of the tip.
    fn hear(&mut self, backups: &[Backup]) -> Result<(), StoreError> {
        let Some(sinks) = &mut self.sinks else { return Ok(()) };
        sinks.hear(backups)?;
        let has_heard = sinks.hub.unheard().is_empty();
        match sinks.hub.proof() {
            Some(proof) => self.core.manager.prove_old(proof),
            None => {
                if has_heard {
                    self.core.manager.heard();
                }
                self.tell_tip();
            }
        }
        Ok(())
    }

    /// Up to where all have followed the chain; the hash says how many reorganisations were taken in.
    fn place(&self) -> Followed {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(self.forks as u64).to_be_bytes());
        Followed { height: self.tip, hash: BlockHash::from_byte_array(hash) }
    }

    fn tell_tip(&self) {
        let Followed { height, hash } = self.place();
        self.sinks.iter().for_each(|sinks| sinks.hub.tip(height, hash, Vec::new()));
    }

    /// What a commit released goes to the backup's gate, or on.
    pub fn release(&self, released: Released, last_seq: u64) {
        match &self.sinks {
            Some(sinks) => sinks.hub.release(released, last_seq),
            None => self.core.manager.deliver().deliver(released, last_seq),
        }
    }

    /// The newest event that readers may be told.
    pub fn newest_event(&self) -> u64 {
        match &self.sinks {
            Some(sinks) => *sinks.hub.readable_events().borrow(),
            None => *self.core.events.borrow(),
        }
    }

    /// Of an old file no backup is to be made.
    pub fn give_up_if_restored(&mut self) {
        if let Some(sinks) = &mut self.sinks
            && self.core.manager.env().is_restored()
            && !std::mem::replace(&mut sinks.has_given_up, true)
        {
            sinks.hub.give_up();
        }
    }

    /// The peers whose mailboxes wait for a worker; any of several workers may be the quickest.
    pub fn gather_work(&mut self) {
        self.work.extend(self.duties.mailboxes.try_iter());
    }
}
