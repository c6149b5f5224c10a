//! The follower, the broadcaster and the wallet on a real bitcoind.

#![expect(clippy::unwrap_used, reason = "a step that fails ends its test")]

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use bitcoin::hashes::Hash;
use bitcoin::{Address, Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, Txid, WScriptHash};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_sidecar::chain::ChainSource;
use outrigger_sidecar::chain::broadcast::{Broadcaster, Outcome};
use outrigger_sidecar::chain::fault::FaultKind;
use outrigger_sidecar::chain::feerate::FeeEstimator;
use outrigger_sidecar::chain::follow::{BlockListener, ChainState, Follower};
use outrigger_sidecar::chain::rpc::{Access, Auth, Bitcoind};
use outrigger_sidecar::chain::stop::StopFlag;
use outrigger_sidecar::key::Seed;
use outrigger_sidecar::wallet::{Balance, Wallet};
use parking_lot::{Condvar, Mutex};
use serde_json::json;
use zeroize::Zeroizing;

mod bitcoind;

use bitcoind::{PATIENCE, Regtest};

/// A wallet that listens to the follower.
struct Listener {
    seen: Mutex<Seen>,
    changed: Condvar,
}

struct Seen {
    wallet: Wallet,
    rows: Vec<Vec<u8>>,
    state: Option<ChainState>,
    states: Vec<ChainState>,
    disconnected: u32,
}

impl Seen {
    fn commit(&mut self) {
        self.rows.extend(self.wallet.take_staged());
    }

    fn synced_at(&self) -> Option<u32> {
        match self.state {
            Some(ChainState::Synced { height, .. }) => Some(height),
            _ => None,
        }
    }

    fn is_blind(&self, why: &str) -> bool {
        matches!(&self.state, Some(ChainState::Blind { reason }) if reason.contains(why))
    }
}

impl BlockListener for Listener {
    fn tip(&self) -> Option<(u32, BlockHash)> {
        self.seen.lock().wallet.tip()
    }

    fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.seen.lock().wallet.hash_at(height)
    }

    fn connected(&self, height: u32, block: &Block) {
        let mut seen = self.seen.lock();
        seen.wallet.connected(height, block).unwrap();
        seen.commit();
        self.changed.notify_all();
    }

    fn disconnected(&self, height: u32, hash: BlockHash, previous: BlockHash) {
        let mut seen = self.seen.lock();
        seen.wallet.disconnected(height, hash, previous).unwrap();
        seen.commit();
        seen.disconnected += 1;
    }

    fn state(&self, state: ChainState) {
        let mut seen = self.seen.lock();
        seen.states.push(state.clone());
        seen.state = Some(state);
        self.changed.notify_all();
    }
}

/// A follower on its own thread, as in the daemon.
struct Node {
    source: Arc<Bitcoind>,
    listener: Arc<Listener>,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

fn seed() -> Seed {
    let dir = tempfile::tempdir().unwrap();
    Seed::create(dir.path(), || Ok([1; 32])).unwrap()
}

impl Node {
    fn start(access: Access, network: Network, rows: Vec<Vec<u8>>) -> Self {
        let stop = StopFlag::new();
        let source = Arc::new(Bitcoind::new(access, stop.clone()));
        let wallet = Wallet::load(&seed(), network, &rows).unwrap();
        let seen = Seen { wallet, rows, state: None, states: Vec::new(), disconnected: 0 };
        let listener = Arc::new(Listener { seen: Mutex::new(seen), changed: Condvar::new() });
        let (theirs, told, flag) = (source.clone(), listener.clone(), stop.clone());
        let thread = std::thread::spawn(move || Follower::run(theirs, told, (network, None), None, &flag));
        Self { source, listener, stop, thread: Some(thread) }
    }

    fn wait(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let mut seen = self.listener.seen.lock();
        let timeout = self.listener.changed.wait_while_for(&mut seen, |seen| !condition(seen), PATIENCE);
        assert!(!timeout.timed_out(), "{what}: {:?} at {:?}", seen.state, seen.wallet.tip());
    }

    fn wait_synced(&self, at: u32) {
        self.wait("not synced", |seen| seen.synced_at() == Some(at));
    }

    fn address(&self) -> Address {
        self.listener.seen.lock().wallet.new_address().unwrap()
    }

    fn balance(&self) -> Balance {
        self.listener.seen.lock().wallet.balance()
    }

    fn fund(&self, sat: u64) -> (Transaction, u32) {
        let mut seen = self.listener.seen.lock();
        let funded = seen.wallet.fund(target(), Sat::new(sat), FeeratePerKw::new(1000), Sat::ZERO).unwrap();
        seen.wallet.saw_unconfirmed(&funded.0);
        seen.commit();
        funded
    }

    /// Ends the thread and gives what the disk would hold.
    fn finish(mut self) -> Vec<Vec<u8>> {
        self.stop.raise();
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut self.listener.seen.lock().rows)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn target() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([3; 32]))
}

/// Somebody else's address.
fn elsewhere() -> Address {
    Address::from_script(&target(), Network::Regtest).unwrap()
}

fn outcome(broadcaster: &Broadcaster, txid: Txid) -> Option<Outcome> {
    broadcaster.list().into_iter().find(|(listed, _)| *listed == txid).map(|(_, outcome)| outcome)
}

/// Waits until bitcoind's word on the transaction is the expected one.
fn wait_outcome(broadcaster: &Broadcaster, txid: Txid, expected: impl Fn(&Outcome) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !outcome(broadcaster, txid).is_some_and(|outcome| expected(&outcome)) {
        assert!(std::time::Instant::now() < deadline, "{:?}", outcome(broadcaster, txid));
        std::thread::yield_now();
    }
}

#[test]
fn a_coin_is_mined_spent_confirmed_and_reorganised() {
    let regtest = Regtest::start();
    let node = Node::start(regtest.access(), Network::Regtest, Vec::new());
    node.wait_synced(0);
    regtest.mine(101, &node.address());
    node.wait_synced(101);
    let coin = 5_000_000_000;
    // What the next block may spend is mature: the coins of the blocks 1 and 2.
    assert_eq!((node.balance().confirmed.get(), node.balance().immature.get()), (2 * coin, 99 * coin));

    let broadcaster = Broadcaster::start(node.source.clone()).unwrap();
    let (tx, index) = node.fund(1_000_000);
    let change = tx.output[1 - index as usize].value.to_sat();
    let txid = tx.compute_txid();
    broadcaster.publish(tx);
    wait_outcome(&broadcaster, txid, |outcome| *outcome == Outcome::Accepted);
    assert_eq!((node.balance().confirmed.get(), node.balance().unconfirmed.get()), (coin, change));

    let confirming = regtest.mine(2, &elsewhere())[0];
    node.wait_synced(103);
    assert_eq!(node.balance().confirmed.get(), change + 3 * coin, "two more coinbases are mature");
    broadcaster.new_block();
    wait_outcome(&broadcaster, txid, |outcome| *outcome == Outcome::InChain);

    // REO-4, BTC-3: the shorter chain is waited out, the longer one is followed.
    regtest.call("invalidateblock", &[json!(confirming)]);
    node.wait("not frozen", |seen| seen.is_blind("went back"));
    assert_eq!(node.listener.tip().unwrap().0, 103);
    regtest.mine_empty(3, &elsewhere());
    node.wait_synced(104);
    assert_eq!(node.listener.seen.lock().disconnected, 2);
    assert_eq!((node.balance().confirmed.get(), node.balance().unconfirmed.get()), (4 * coin, change));
    broadcaster.new_block();
    wait_outcome(&broadcaster, txid, |outcome| *outcome == Outcome::Accepted);
    regtest.mine(1, &elsewhere());
    node.wait_synced(105);
    assert_eq!(node.balance().confirmed.get(), change + 5 * coin);
    broadcaster.forget(txid);
    assert!(broadcaster.list().is_empty());
}

#[test]
fn btc_4_bitcoind_restarts_with_a_new_cookie() {
    let mut regtest = Regtest::start();
    let node = Node::start(regtest.access(), Network::Regtest, Vec::new());
    node.wait_synced(0);
    regtest.mine(3, &elsewhere());
    node.wait_synced(3);
    let cookie = regtest.cookie();
    regtest.stop();
    node.wait("not missed", |seen| matches!(seen.state, Some(ChainState::WaitingForBitcoind { .. })));
    regtest.start_again();
    assert_ne!(regtest.cookie(), cookie);
    regtest.mine(2, &elsewhere());
    node.wait_synced(5);
    assert_eq!(node.source.chain_info().unwrap().blocks, 5);
}

#[test]
fn btc_5_blocks_mined_while_we_are_down_are_seen_and_coins_found() {
    let regtest = Regtest::start();
    let node = Node::start(regtest.access(), Network::Regtest, Vec::new());
    node.wait_synced(0);
    let address = node.address();
    node.listener.seen.lock().commit();
    let rows = node.finish();
    regtest.mine(100, &address);
    regtest.mine(50, &elsewhere());
    let node = Node::start(regtest.access(), Network::Regtest, rows);
    node.wait_synced(150);
    let balance = node.balance();
    assert_eq!((balance.confirmed.get(), balance.immature.get()), (51 * 5_000_000_000, 49 * 5_000_000_000));
    let tip = node.listener.tip();
    let rows = node.finish();
    assert_eq!(Wallet::load(&seed(), Network::Regtest, &rows).unwrap().tip(), tip);
}

#[test]
fn btc_1_another_network_is_refused() {
    let regtest = Regtest::start();
    let node = Node::start(regtest.access(), Network::Signet, Vec::new());
    node.wait("not refused", |seen| seen.is_blind("another chain"));
    assert_eq!(node.listener.tip(), None);
}

#[test]
fn bad_input_103_a_transaction_without_inputs_is_kept_and_named() {
    let regtest = Regtest::start();
    let source = Arc::new(Bitcoind::new(regtest.access(), StopFlag::new()));
    let broadcaster = Broadcaster::start(source).unwrap();
    let mut tx = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([7; 32]), 0),
            ..bitcoin::TxIn::default()
        }],
        output: vec![bitcoin::TxOut { value: bitcoin::Amount::from_sat(100_000), script_pubkey: target() }],
    };
    broadcaster.publish(tx.clone());
    wait_outcome(&broadcaster, tx.compute_txid(), |outcome| matches!(outcome, Outcome::InputsMissing(_)));
    tx.output[0].value = bitcoin::Amount::from_sat(1);
    broadcaster.publish(tx.clone());
    wait_outcome(&broadcaster, tx.compute_txid(), |outcome| {
        matches!(outcome, Outcome::AgainstPolicy(_) | Outcome::InputsMissing(_))
    });
    assert_eq!(broadcaster.list().len(), 2);
}

#[test]
fn what_does_not_exist_is_no_fault_and_what_is_not_ours_is() {
    let regtest = Regtest::start();
    let stop = StopFlag::new();
    let source = Bitcoind::new(regtest.access(), stop.clone());
    assert_eq!(source.header(BlockHash::from_byte_array([5; 32])).unwrap(), None);
    assert_eq!(source.block_hash(1).unwrap(), None);
    assert_eq!(source.block(BlockHash::from_byte_array([5; 32])).unwrap_err().kind, FaultKind::NotFound);
    assert_eq!(source.estimate_fee(6).unwrap(), None);
    assert!(source.mempool_min_fee().unwrap() > 0);

    let refused = |auth| {
        let access = Access { auth, ..regtest.access() };
        Bitcoind::new(access, StopFlag::new()).chain_info().unwrap_err().kind
    };
    let password = Zeroizing::new("wrong".to_owned());
    assert_eq!(refused(Auth::UserPass { user: "__cookie__".to_owned(), password }), FaultKind::Unauthorized);
    assert_eq!(refused(Auth::Cookie(PathBuf::from("/nonexistent/.cookie"))), FaultKind::NoCookie);
    let cookie = regtest.cookie();
    let (user, password) = cookie.split_once(':').unwrap();
    let auth = Auth::UserPass { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) };
    let by_password = Bitcoind::new(Access { auth, ..regtest.access() }, StopFlag::new());
    assert_eq!(by_password.chain_info().unwrap(), source.chain_info().unwrap());

    stop.raise();
    assert_eq!(source.chain_info().unwrap_err().kind, FaultKind::Stopped);
}

#[test]
fn feerates_of_a_fresh_regtest_are_the_fixed_ones() {
    let regtest = Regtest::start();
    let source = Arc::new(Bitcoind::new(regtest.access(), StopFlag::new()));
    let estimator = FeeEstimator::new(source, Network::Regtest, FeeratePerKw::new(25_000));
    estimator.refresh();
    let current = estimator.current();
    assert_eq!((current.commitment.get(), current.normal.get(), current.floor.get()), (1000, 1000, 253));
}
