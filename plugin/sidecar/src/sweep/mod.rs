//! Bringing the money of failed channels home: the newest commitment with a child that carries its fee, and sweeps of what
//! is ours in the chain. [`plan`] decides, this carries out.
//!
//! What is to be done for a channel is always given whole, from its rows, and is planned anew on every block, each minute,
//! and when it changes. The newest transaction for each output is a row before it leaves, so that after a crash the same
//! one goes out again, and no later one pays less.

mod carry;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::{OutPoint, Txid};
use outrigger_bolt::id::ChannelId;
use outrigger_channel::{ChannelParams, Enforcement, SoftSigner};

use crate::chain::ChainSource;
use crate::chain::feerate::FeeEstimator;
use crate::key::NodeKeys;
use crate::lock::{Condvar, Mutex};
use crate::store::Batch;
use crate::store::row::SweepRow;
use crate::wallet::Wallet;
use carry::Carrier;

/// How often everything is published again between blocks: mempools forget.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The wallet, as the owner of its rows gives it out.
pub trait Purse: Send + Sync {
    /// Runs `work` on the wallet, alone, stores what both staged in one transaction, and returns once that is durable.
    fn with(&self, work: &mut dyn FnMut(&mut Wallet, &mut Batch));
}

/// What the thread works with.
#[derive(Clone)]
pub struct Tools {
    pub source: Arc<dyn ChainSource>,
    pub estimator: Arc<FeeEstimator>,
    pub purse: Arc<dyn Purse>,
    pub keys: Arc<NodeKeys>,
}

/// Failed channels with what is to be done for them, and the thread that does it. Dropping it ends the thread.
pub struct Sweeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    keys: Arc<NodeKeys>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    works: BTreeMap<ChannelId, Work>,
    /// The newest transaction for each output, as on disk.
    rows: BTreeMap<(ChannelId, OutPoint), SweepRow>,
    turn: Turn,
    stopped: bool,
}

/// Whether everything is to be planned anew.
#[derive(Debug, Default)]
struct Turn {
    due: bool,
    /// A block has left and none has come since: until the next one, coins and parents of what was published may be nowhere,
    /// and a transaction made anew would only compete with the one that comes back.
    between_blocks: bool,
}

impl Turn {
    /// Something is to be done.
    fn ask(&mut self) {
        self.due = true;
    }

    fn block_left(&mut self) {
        self.between_blocks = true;
    }

    fn block_came(&mut self) {
        *self = Self { due: true, between_blocks: false };
    }

    fn has_come(&self) -> bool {
        self.due && !self.between_blocks
    }

    /// It is taken: where it had not come, because nothing was heard of a block for long.
    fn take(&mut self) {
        *self = Self::default();
    }
}

/// What is to be done for one channel; nothing once it is over.
#[derive(Clone)]
struct Work {
    params: Arc<ChannelParams>,
    signer: Arc<SoftSigner>,
    enforcement: Option<Arc<Enforcement>>,
}

impl Sweeper {
    /// Starts the thread with the rows that were loaded. An error is the operating system's refusal of a thread.
    pub fn start(tools: Tools, rows: Vec<(ChannelId, OutPoint, SweepRow)>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.state.lock().rows =
            rows.into_iter().map(|(channel, outpoint, row)| ((channel, outpoint), row)).collect();
        let (theirs, keys) = (Arc::clone(&shared), Arc::clone(&tools.keys));
        let mut carrier = Carrier::new(tools);
        let run = move || {
            while let Some(works) = theirs.await_due() {
                carrier.visit(works, &theirs);
            }
        };
        let thread = std::thread::Builder::new().name("sweep".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread), keys })
    }

    /// Takes what is to be done for a channel, in the place of what was to be done before. Never blocks on the thread.
    pub fn enforce(&self, channel: ChannelId, params: Arc<ChannelParams>, enforcement: Option<Enforcement>) {
        let mut state = self.shared.state.lock();
        let signer = match state.works.get(&channel) {
            Some(known) => known.signer.clone(),
            None => Arc::new(SoftSigner::new(self.keys.channel_seed(params.keys_index))),
        };
        state.works.insert(channel, Work { params, signer, enforcement: enforcement.map(Arc::new) });
        state.turn.ask();
        self.shared.wake.notify_all();
    }

    /// A block came, and the wallet has taken it in: everything is planned again.
    pub fn new_block(&self) {
        self.shared.state.lock().turn.block_came();
        self.shared.wake.notify_all();
    }

    /// A block left: nothing is planned before the next one, or for a minute where none comes.
    pub fn block_left(&self) {
        self.shared.state.lock().turn.block_left();
    }

    /// Whether the transaction is one that is published from here.
    pub fn publishes(&self, txid: Txid) -> bool {
        self.shared.state.lock().rows.values().any(|row| row.tx.compute_txid() == txid)
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.wake.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the sweeping thread had panicked");
        }
    }
}

impl Shared {
    /// The channels to look at, or `None` at the end. Nothing is asked of bitcoind where there is no such channel.
    fn await_due(&self) -> Option<Vec<(ChannelId, Work)>> {
        let mut state = self.state.lock();
        loop {
            let idle = |state: &mut State| !state.stopped && (!state.turn.has_come() || state.works.is_empty());
            let timed_out = self.wake.wait_while_for(&mut state, idle, AGAIN_AFTER);
            if state.stopped {
                return None;
            }
            if !state.works.is_empty() && (state.turn.has_come() || timed_out) {
                state.turn.take();
                return Some(state.works.iter().map(|(channel, work)| (*channel, work.clone())).collect());
            }
        }
    }

    fn row(&self, channel: ChannelId, outpoint: OutPoint) -> Option<SweepRow> {
        self.state.lock().rows.get(&(channel, outpoint)).cloned()
    }

    fn rows(&self, channel: ChannelId) -> Vec<(OutPoint, SweepRow)> {
        let state = self.state.lock();
        let rows = state.rows.iter().filter(|((owner, _), _)| *owner == channel);
        rows.map(|((_, outpoint), row)| (*outpoint, row.clone())).collect()
    }

    fn put(&self, channel: ChannelId, outpoint: OutPoint, row: SweepRow) {
        self.state.lock().rows.insert((channel, outpoint), row);
    }

    /// The channel is over: its rows are gone. What was ordered since stays.
    fn forget(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        state.rows.retain(|(owner, _), _| *owner != channel);
        if state.works.get(&channel).is_some_and(|work| work.enforcement.is_none()) {
            state.works.remove(&channel);
        }
    }
}
