//! Publishing transactions, again and again until told that they are no longer needed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::{Block, Transaction, Txid};

use super::ChainSource;
use super::fault::RpcFault;
use crate::lock::{Condvar, Mutex};

/// How often everything is published again between blocks: mempools forget.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What bitcoind said of a transaction the last time (`sendrawtransaction`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not asked yet.
    Waiting,
    /// It is in the mempool.
    Accepted,
    /// It is in the chain (code -27).
    InChain,
    /// An input is unknown or spent (code -25): a parent is missing, or a rival came first.
    InputsMissing(String),
    /// Against bitcoind's policy (code -26): the feerate is too low, or a rival pays more.
    AgainstPolicy(String),
    /// bitcoind could not be asked.
    NotAsked(String),
    /// Any other refusal, with its code.
    Refused(i32, String),
}

impl Outcome {
    fn of(result: Result<Txid, RpcFault>) -> Self {
        match result {
            Ok(_) => Self::Accepted,
            Err(fault) => match fault.kind.refusal() {
                Some(-27) => Self::InChain,
                Some(-25) => Self::InputsMissing(fault.message),
                Some(-26) => Self::AgainstPolicy(fault.message),
                Some(code) => Self::Refused(code, fault.message),
                None => Self::NotAsked(fault.to_string()),
            },
        }
    }

    /// Whether the network has it, as far as bitcoind knows.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Accepted | Self::InChain)
    }
}

/// The set of transactions to publish, and the thread that does it. Dropping it ends the thread.
pub struct Broadcaster {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    set: Mutex<Set>,
    wake: Condvar,
}

#[derive(Default)]
struct Set {
    /// By order of publishing, so that a parent goes before its child.
    entries: BTreeMap<u64, Entry>,
    next: u64,
    stopped: bool,
}

struct Entry {
    txid: Txid,
    tx: Arc<Transaction>,
    due: bool,
    /// It leaves with its first confirmation.
    until_confirmed: bool,
    outcome: Outcome,
}

impl Set {
    fn entry_of(&mut self, txid: Txid) -> Option<&mut Entry> {
        self.entries.values_mut().find(|entry| entry.txid == txid)
    }

    fn nothing_to_do(&mut self) -> bool {
        !self.stopped && self.entries.values().all(|entry| !entry.due)
    }

    fn all_due(&mut self) {
        for entry in self.entries.values_mut() {
            entry.due = true;
        }
    }
}

impl Broadcaster {
    /// Starts the thread. An error is the operating system's refusal of a thread.
    pub fn start(source: Arc<dyn ChainSource>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let run = move || theirs.run(source.as_ref());
        let thread = std::thread::Builder::new().name("broadcast".to_owned()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Publishes `tx` soon, then on every block and each minute until [`forget`](Self::forget). Never blocks.
    pub fn publish(&self, tx: Transaction) {
        self.add(tx, false);
    }

    /// As [`publish`](Self::publish), until a block has it: whoever wants it published will ask again if that block
    /// leaves. What is published anyhow stays as it is.
    pub fn publish_until_confirmed(&self, tx: Transaction) {
        self.add(tx, true);
    }

    /// A block came: what was only to be published until now leaves. Costs nothing where there is no such transaction.
    pub fn confirmed(&self, block: &Block) {
        let mut set = self.shared.set.lock();
        if set.entries.values().any(|entry| entry.until_confirmed) {
            let confirmed: HashSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
            set.entries.retain(|_, entry| !(entry.until_confirmed && confirmed.contains(&entry.txid)));
        }
    }

    fn add(&self, tx: Transaction, until_confirmed: bool) {
        let txid = tx.compute_txid();
        let mut set = self.shared.set.lock();
        match set.entry_of(txid) {
            Some(entry) => {
                entry.due = true;
                entry.until_confirmed &= until_confirmed;
            }
            None => {
                let place = set.next;
                set.next = place.saturating_add(1);
                let tx = Arc::new(tx);
                let entry = Entry { txid, tx, due: true, until_confirmed, outcome: Outcome::Waiting };
                set.entries.insert(place, entry);
            }
        }
        self.shared.wake.notify_all();
    }

    /// Stops publishing the transaction: it is deep enough in the chain, or a rival is.
    pub fn forget(&self, txid: Txid) {
        self.shared.set.lock().entries.retain(|_, entry| entry.txid != txid);
    }

    /// Publishes everything again: a block may have made room, confirmed a parent or undone a confirmation.
    pub fn new_block(&self) {
        self.shared.set.lock().all_due();
        self.shared.wake.notify_all();
    }

    /// What is being published and how it stands.
    pub fn list(&self) -> Vec<(Txid, Outcome)> {
        self.shared.set.lock().entries.values().map(|entry| (entry.txid, entry.outcome.clone())).collect()
    }
}

impl Drop for Broadcaster {
    fn drop(&mut self) {
        self.shared.set.lock().stopped = true;
        self.shared.wake.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the broadcasting thread had panicked");
        }
    }
}

impl Shared {
    fn run(&self, source: &dyn ChainSource) {
        loop {
            let Some(due) = self.await_due() else { return };
            for (txid, tx) in due {
                let outcome = Outcome::of(source.broadcast(&tx));
                self.note(txid, outcome);
            }
        }
    }

    /// The transactions to publish now, or `None` at the end.
    fn await_due(&self) -> Option<Vec<(Txid, Arc<Transaction>)>> {
        let mut set = self.set.lock();
        if self.wake.wait_while_for(&mut set, Set::nothing_to_do, AGAIN_AFTER) {
            set.all_due();
        }
        if set.stopped {
            return None;
        }
        let due = |entry: &mut Entry| std::mem::take(&mut entry.due).then(|| (entry.txid, Arc::clone(&entry.tx)));
        Some(set.entries.values_mut().filter_map(due).collect())
    }

    fn note(&self, txid: Txid, outcome: Outcome) {
        let mut set = self.set.lock();
        let Some(entry) = set.entry_of(txid) else { return };
        if entry.outcome != outcome {
            match outcome.is_success() {
                true => tracing::info!(%txid, ?outcome, "published"),
                false => tracing::warn!(%txid, ?outcome, "not published, will be tried again"),
            }
            entry.outcome = outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn btc_8_bad_input_103_codes_of_sendrawtransaction() {
        let refused = |code| Err(RpcFault::from_code(code, "why"));
        assert_eq!(Outcome::of(refused(-27)), Outcome::InChain);
        assert_eq!(Outcome::of(refused(-25)), Outcome::InputsMissing("why".to_owned()));
        assert_eq!(Outcome::of(refused(-26)), Outcome::AgainstPolicy("why".to_owned()));
        assert_eq!(Outcome::of(refused(-22)), Outcome::Refused(-22, "why".to_owned()));
        assert!(matches!(Outcome::of(refused(-28)), Outcome::NotAsked(_)));
    }

    fn transaction(lock_time: u32) -> Transaction {
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::from_consensus(lock_time),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    #[test]
    fn transactions_go_out_in_order_again_on_each_block_and_never_once_forgotten() {
        let broadcaster = Broadcaster { shared: Arc::default(), thread: None };
        let due =
            || -> Vec<Txid> { broadcaster.shared.await_due().unwrap().into_iter().map(|(txid, _)| txid).collect() };
        let (parent, child) = (transaction(9), transaction(1));
        let txids = [parent.compute_txid(), child.compute_txid()];
        broadcaster.publish(parent.clone());
        broadcaster.publish(child);
        broadcaster.publish(parent);
        assert_eq!(due(), txids, "in order, each once");
        assert!(broadcaster.shared.set.lock().nothing_to_do());
        broadcaster.shared.note(txids[0], Outcome::Accepted);
        broadcaster.shared.note(txids[1], Outcome::AgainstPolicy("fee".to_owned()));
        let listed = [(txids[0], Outcome::Accepted), (txids[1], Outcome::AgainstPolicy("fee".to_owned()))];
        assert_eq!(broadcaster.list(), listed);
        broadcaster.new_block();
        assert_eq!(due(), txids, "an accepted one too: mempools forget and blocks are undone");
        broadcaster.forget(txids[0]);
        broadcaster.shared.note(txids[0], Outcome::Accepted);
        broadcaster.new_block();
        assert_eq!(due(), [txids[1]]);
    }

    #[test]
    fn what_a_reorganisation_took_back_leaves_once_it_is_confirmed_again() {
        let broadcaster = Broadcaster { shared: Arc::default(), thread: None };
        let (taken_back, funding) = (transaction(9), transaction(1));
        broadcaster.publish(funding.clone());
        broadcaster.publish_until_confirmed(taken_back.clone());
        broadcaster.publish_until_confirmed(funding.clone());
        let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        broadcaster.confirmed(&block);
        assert_eq!(broadcaster.list().len(), 2);
        block.txdata.extend([taken_back, funding.clone()]);
        broadcaster.confirmed(&block);
        let left: Vec<Txid> = broadcaster.list().into_iter().map(|(txid, _)| txid).collect();
        assert_eq!(left, [funding.compute_txid()], "what a channel publishes stays until it is told otherwise");
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let broadcaster = Broadcaster { shared: Arc::default(), thread: None };
        let shared = Arc::clone(&broadcaster.shared);
        let thread = std::thread::spawn(move || shared.await_due().is_none());
        drop(broadcaster);
        assert!(thread.join().unwrap());
    }
}
