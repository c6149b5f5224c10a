//! The chain's side of the node: blocks to channels and wallet, funding and publishing for channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bitcoin::{Address, Block, BlockHash, Transaction};
use crossbeam_channel::Receiver;
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_channel::Feerates;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::chain::broadcast::Broadcaster;
use crate::chain::feerate::{Estimates, FeeEstimator};
use crate::chain::follow::{BlockListener, ChainState};
use crate::chain::stop::StopFlag;
use crate::manager::Manager;
use crate::store::schema::Table;
use crate::store::{Batch, ChainOrder, FundingRequest, Held};
use crate::wallet::{Balance, Wallet, WalletFault};

/// The wallet, and the rows under which its change sets are stored.
pub(super) struct StoredWallet {
    wallet: Mutex<Wallet>,
    next_row: AtomicU64,
    manager: Arc<Manager>,
}

impl StoredWallet {
    /// `rows` change sets were loaded; they are replaced by one.
    pub(super) fn new(mut wallet: Wallet, rows: u64, manager: Arc<Manager>) -> Self {
        let compacted = wallet.take_compacted();
        let stored = Self { wallet: Mutex::new(wallet), next_row: AtomicU64::new(rows), manager };
        if let Some(compacted) = compacted {
            let mut batch = Batch::default();
            for row in 0..rows {
                batch.put(Table::Wallet, row.to_be_bytes().to_vec(), None);
            }
            batch.put(Table::Wallet, 0u64.to_be_bytes().to_vec(), Some(compacted));
            stored.next_row.store(1, Ordering::Relaxed);
            stored.manager.env().writer.submit(batch);
        }
        stored
    }

    /// What the wallet holds.
    pub(super) fn balance(&self) -> Balance {
        self.wallet.lock().balance()
    }

    /// An address that was never given out; the row that says so is durable.
    pub(super) async fn new_address(&self) -> Result<Address, WalletFault> {
        let (waiter, durable) = oneshot::channel();
        let address = self.change(|wallet, batch| {
            batch.hold(Held::Durable(waiter));
            wallet.new_address()
        })?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(address)
    }

    /// Changes the wallet and stores what it staged, in the order of the changes: the lock is held until the batch is
    /// queued.
    fn change<R>(&self, f: impl FnOnce(&mut Wallet, &mut Batch) -> R) -> R {
        let mut wallet = self.wallet.lock();
        let mut batch = Batch::default();
        let result = f(&mut wallet, &mut batch);
        if let Some(staged) = wallet.take_staged() {
            let row = self.next_row.fetch_add(1, Ordering::Relaxed);
            batch.put(Table::Wallet, row.to_be_bytes().to_vec(), Some(staged));
        }
        self.manager.env().writer.submit(batch);
        result
    }

    fn fund(&self, request: &FundingRequest, feerate: FeeratePerKw) -> Result<(Transaction, u32), WalletFault> {
        self.change(|wallet, _| wallet.fund(request.script_pubkey.clone(), request.amount, feerate))
    }
}

/// Takes blocks in, for channels first and the wallet last: the wallet's row is the tip, so a block that is in the file
/// was taken in by all.
pub(super) struct Listener {
    pub(super) manager: Arc<Manager>,
    pub(super) wallet: Arc<StoredWallet>,
    pub(super) broadcaster: Arc<Broadcaster>,
    pub(super) estimator: Arc<FeeEstimator>,
    pub(super) state: watch::Sender<Option<ChainState>>,
    /// Whether a block was taken back since the last one came.
    pub(super) reorganised: AtomicBool,
}

impl BlockListener for Listener {
    fn tip(&self) -> Option<(u32, BlockHash)> {
        self.wallet.wallet.lock().tip()
    }

    fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.wallet.wallet.lock().hash_at(height)
    }

    fn connected(&self, height: u32, block: &Block) {
        self.manager.block_connected(height, block);
        let taken = self.wallet.change(|wallet, _| wallet.connected(height, block));
        if let Err(fault) = taken {
            tracing::error!(height, %fault, "the wallet did not take a block in");
        }
        if self.reorganised.swap(false, Ordering::Relaxed) {
            // A funding transaction that was forgotten once its channel was ready may be in no block now, and in no
            // mempool. The wallet knows since the first block of the new branch.
            for tx in self.wallet.wallet.lock().unconfirmed() {
                self.broadcaster.publish_until_confirmed(tx);
            }
        }
        self.broadcaster.confirmed(block);
        self.broadcaster.new_block();
    }

    fn disconnected(&self, height: u32, hash: BlockHash, previous: BlockHash) {
        self.manager.block_disconnected(height);
        let taken = self.wallet.change(|wallet, _| wallet.disconnected(height, hash, previous));
        if let Err(fault) = taken {
            tracing::error!(height, %fault, "the wallet did not give a block back");
        }
        self.reorganised.store(true, Ordering::Relaxed);
    }

    fn state(&self, state: ChainState) {
        let synced = matches!(state, ChainState::Synced { .. });
        if synced {
            self.set_shutdown_script();
            let (feerates, is_estimate) = feerates(&self.estimator.current());
            self.manager.set_feerates(feerates, is_estimate);
        }
        self.manager.env().chain.set_synced(synced);
        self.state.send_replace(Some(state));
    }
}

impl Listener {
    /// An address to which channels are promised when they are opened, and cooperative closes that peers begin pay us: one
    /// per start, and another with the next block once a channel has it. Its row is queued before any message that names
    /// it.
    fn set_shutdown_script(&self) {
        if !self.manager.env().wants_shutdown_script() {
            return;
        }
        match self.wallet.change(|wallet, _| wallet.new_address()) {
            Ok(address) => self.manager.env().set_shutdown_script(address.script_pubkey()),
            Err(fault) => tracing::error!(%fault, "no address for cooperative closes"),
        }
    }
}

/// Estimates in the channel's terms, and whether channels follow the one for commitments.
pub(super) fn feerates(estimates: &Estimates) -> (Feerates, bool) {
    let Estimates { commitment, normal, floor, is_estimate } = *estimates;
    (Feerates { commitment, normal, floor }, is_estimate)
}

/// Has the channels follow the estimates until `stop` is raised. Blocks the thread.
pub(super) fn follow_estimates(estimator: &FeeEstimator, manager: &Manager, stop: &StopFlag) {
    estimator.run(stop, |estimates| {
        let (feerates, is_estimate) = feerates(&estimates);
        manager.set_feerates(feerates, is_estimate);
    });
}

/// Carries out what channels ask of wallet and mempool, until every queue end is gone.
pub(super) fn carry_out(
    orders: &Receiver<ChainOrder>,
    wallet: &StoredWallet,
    broadcaster: &Broadcaster,
    manager: &Manager,
) {
    while let Ok(order) = orders.recv() {
        match order {
            ChainOrder::Publish(tx) => {
                wallet.change(|wallet, _| wallet.saw_unconfirmed(&tx));
                broadcaster.publish(tx);
            }
            ChainOrder::Forget(txid) => broadcaster.forget(txid),
            ChainOrder::Fund(request) => {
                let feerate = request.feerate.unwrap_or_else(|| manager.env().chain.feerates().normal);
                let funding = wallet.fund(&request, feerate).map_err(|fault| fault.to_string());
                manager.funded(&request.peer, request.channel, funding);
            }
            ChainOrder::Release(txid) => wallet.change(|wallet, _| wallet.release(txid)),
        }
    }
}
