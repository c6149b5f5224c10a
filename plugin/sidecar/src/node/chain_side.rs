//! The chain's side of the node: blocks to channels and wallet, funding and publishing for channels.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bitcoin::{Address, Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use crossbeam_channel::Receiver;
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_channel::Feerates;
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::backups::{is_tip_due, tell_tip};
use super::older::Older;
use crate::chain::broadcast::Broadcaster;
use crate::chain::feerate::{Estimates, FeeEstimator};
use crate::chain::follow::{BlockListener, ChainState};
use crate::chain::stop::StopFlag;
use crate::clock::Clock;
use crate::lock::Mutex;
use crate::manager::Manager;
use crate::store::backup::{Followed, Hub};
use crate::store::row::EventRow;
use crate::store::schema::{RESERVE_LOW_KEY, Table, UnderWay};
use crate::store::{Batch, ChainOrder, FundingRequest, Held};
use crate::sweep::{Purse, Sweeper};
use crate::wallet::{Balance, Movement, Unspent, Wallet, WalletFault};

/// What the wallet keeps for each channel that may have to be closed alone (OCC-12), and for all of them at most.
const RESERVE_PER_CHANNEL: Sat = Sat::new(10_000);
const RESERVE_MOST: Sat = Sat::new(100_000);

/// The wallet, and the rows under which its change sets are stored.
pub(super) struct StoredWallet {
    wallet: Mutex<Wallet>,
    next_row: AtomicU64,
    manager: Arc<Manager>,
    /// Whether the last look found less than the reserve, as the file says.
    is_short: AtomicBool,
}

impl Purse for StoredWallet {
    fn with(&self, work: &mut dyn FnMut(&mut Wallet, &mut Batch)) {
        let (waiter, durable) = oneshot::channel();
        self.change(|wallet, batch| {
            work(wallet, batch);
            batch.hold(Held::Durable(waiter));
        });
        // The writer drops the waiter only with the process.
        let _ = durable.blocking_recv();
    }
}

/// The event of what a block at this height moves in the wallet. What only pays it is a deposit, whoever sends it.
fn moved(movement: &Movement, height: u32) -> EventRow {
    let Movement { txid, received, spent, fee } = movement;
    let txid = txid.to_string();
    let (kind, fields) = match fee {
        _ if *spent == Sat::ZERO => {
            ("wallet_received", json!({ "txid": txid, "block_height": height, "amount_sat": received.get() }))
        }
        Some(fee) => (
            "wallet_confirmed",
            json!({
                "txid": txid, "block_height": height, "received_sat": received.get(), "spent_sat": spent.get(), "fee_sat": fee.get()
            }),
        ),
        None => (
            "wallet_confirmed",
            json!({ "txid": txid, "block_height": height, "received_sat": received.get(), "spent_sat": spent.get() }),
        ),
    };
    EventRow::new(Clock::now_unix(), kind, fields)
}

/// What the wallet keeps back with so many channels.
fn reserve(channels: usize) -> Sat {
    let channels = u64::try_from(channels).unwrap_or(u64::MAX);
    Sat::new(RESERVE_PER_CHANNEL.get().saturating_mul(channels)).min(RESERVE_MOST)
}

/// Blocks below the tip that a record for backups tells of: a bitcoind that a restored node finds need not know a block that was
/// replaced since.
const RECORD_DEPTH: u32 = 6;

impl StoredWallet {
    /// The block that sinks are told of when this one is the tip.
    pub(super) fn recorded(&self, tip: (u32, BlockHash)) -> (u32, BlockHash) {
        self.wallet.lock().below_tip(RECORD_DEPTH).unwrap_or(tip)
    }

    /// The newest block that was taken in.
    pub(super) fn tip(&self) -> Option<(u32, BlockHash)> {
        self.wallet.lock().tip()
    }

    /// `rows` change sets were loaded; they are replaced by one. `is_short` as the file says.
    pub(super) fn new(mut wallet: Wallet, (rows, is_short): (u64, bool), manager: Arc<Manager>) -> Self {
        let compacted = wallet.take_compacted();
        let stored = Self {
            wallet: Mutex::new(wallet),
            next_row: AtomicU64::new(rows),
            manager,
            is_short: AtomicBool::new(is_short),
        };
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

    /// Whether coins are kept for transactions that have not left.
    pub(super) fn locks_coins(&self) -> bool {
        self.wallet.lock().locks_coins()
    }

    /// What the wallet holds.
    pub(super) fn balance(&self) -> Balance {
        self.wallet.lock().balance()
    }

    /// An address that was never given out; the row that says so is durable, with what `note` stages.
    pub(super) async fn new_address(&self, note: impl FnOnce(&mut Batch, &Address)) -> Result<Address, WalletFault> {
        let (waiter, durable) = oneshot::channel();
        let address = self.change(|wallet, batch| {
            batch.hold(Held::Durable(waiter));
            let address = wallet.new_address()?;
            note(batch, &address);
            Ok::<_, WalletFault>(address)
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

    /// Takes a block in or gives one back, and says with the wallet's row how far channels have followed.
    fn block(&self, work: impl FnOnce(&mut Wallet, &mut Batch) -> Result<(), WalletFault>) -> Result<(), WalletFault> {
        self.change(|wallet, batch| {
            work(wallet, batch)?;
            if let Some((height, hash)) = wallet.below_tip(RECORD_DEPTH) {
                Followed { height, hash }.note(batch);
            }
            Ok(())
        })
    }

    fn fund(&self, request: &FundingRequest, feerate: FeeratePerKw) -> Result<(Transaction, u32), WalletFault> {
        let reserve = reserve(self.manager.env().standing().saturating_add(1));
        self.change(|wallet, _| wallet.fund(request.script_pubkey.clone(), request.amount, feerate, reserve))
    }

    /// Makes and signs a transaction of the operator's, which leaves what is kept for channels, and stores with it what `note`
    /// stages.
    pub(super) fn send<R>(
        &self,
        script: ScriptBuf,
        amount: Sat,
        feerate: FeeratePerKw,
        note: impl FnOnce(&mut Batch, &Transaction) -> R,
    ) -> Result<R, WalletFault> {
        let reserve = reserve(self.manager.env().standing());
        self.change(|wallet, batch| {
            let (tx, _) = wallet.fund(script, amount, feerate, reserve)?;
            // It is published whatever comes: the wallet's rows have it from here on.
            wallet.saw_unconfirmed(&tx);
            Ok(note(batch, &tx))
        })
    }

    /// Whether the wallet has begun to follow the chain, and from which block on it has looked at all, where that is known.
    pub(super) fn looked_from(&self) -> (bool, Option<u32>) {
        let wallet = self.wallet.lock();
        (wallet.tip().is_some(), wallet.looked_from())
    }

    /// See [`Wallet::look_again`]. What is new by it is told.
    pub(super) fn look_again(&self, height: u32, block: &Block) -> Result<bool, WalletFault> {
        let hash = block.block_hash();
        self.change(|wallet, batch| {
            let txids = block.txdata.iter().map(Transaction::compute_txid);
            let known: HashSet<_> = txids.filter(|txid| wallet.has_in_block(*txid, hash)).collect();
            let is_taken = wallet.look_again(height, block)?;
            if is_taken {
                let movements = wallet.movements(block);
                let new = movements.iter().filter(|movement| !known.contains(&movement.txid));
                new.for_each(|movement| batch.event(moved(movement, height)));
            }
            Ok(is_taken)
        })
    }

    /// See [`Wallet::looked_again`].
    pub(super) fn looked_again(&self, from: u32) {
        self.change(|wallet, _| wallet.looked_again(from));
    }

    /// Unspent outputs after this one, by outpoint.
    pub(super) fn coins(&self, after: Option<OutPoint>, count: usize) -> Vec<Unspent> {
        self.wallet.lock().all_unspent(after, count)
    }

    /// Whether a block holds the transaction.
    pub(super) fn has_confirmed(&self, txid: Txid) -> bool {
        self.wallet.lock().has_confirmed(txid)
    }

    /// Height and depth of the block that holds a transaction of the wallet's, if one does; none where it is not the wallet's.
    pub(super) fn depth(&self, txid: Txid) -> Option<Option<(u32, u32)>> {
        let wallet = self.wallet.lock();
        let tip = wallet.tip().map_or(0, |(height, _)| height);
        let height = wallet.confirmed_height(txid)?;
        Some(height.map(|height| (height, tip.saturating_sub(height).saturating_add(1))))
    }

    /// Looks whether the confirmed coins are the reserve of all channels, and tells the operator when they have become less: once,
    /// whatever starts come in between. Refuses peers' channels where that is configured.
    fn look_at_reserve(&self, accept_needs_reserve: bool) {
        let reserve = reserve(self.manager.env().standing());
        let confirmed = self.balance().confirmed;
        let is_short = confirmed < reserve;
        self.manager.env().chain.set_accepting(!is_short || !accept_needs_reserve);
        if self.is_short.swap(is_short, Ordering::Relaxed) == is_short {
            return;
        }
        let mut batch = Batch::default();
        batch.put(Table::Meta, RESERVE_LOW_KEY.to_vec(), is_short.then(|| vec![1]));
        if !is_short {
            return self.manager.env().writer.submit(batch);
        }
        let words = format!(
            "the wallet holds {confirmed} confirmed, and should hold {reserve} to pay for closing its channels alone: send \
             coins to an address of wallet.new_address"
        );
        tracing::warn!(words, "too few coins");
        batch.event(EventRow::new(Clock::now_unix(), "wallet_reserve_low", json!({ "message": words })));
        self.manager.env().writer.submit(batch);
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
    pub(super) sweeper: Arc<Sweeper>,
    /// Whether a block was taken back since the last one came.
    pub(super) reorganised: AtomicBool,
    /// Who keeps the rows of channels elsewhere too.
    pub(super) sinks: Option<Arc<Hub>>,
    pub(super) accept_needs_reserve: bool,
    /// Tells callers what is wrong with the machine's clock.
    pub(super) tell_clock: Box<dyn Fn(Option<String>) + Send + Sync>,
    /// What the wallet has yet to look at.
    pub(super) older: Older,
}

impl BlockListener for Listener {
    fn tip(&self) -> Option<(u32, BlockHash)> {
        self.wallet.tip()
    }

    fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.wallet.wallet.lock().hash_at(height)
    }

    fn connected(&self, height: u32, block: &Block) {
        self.manager.block_connected(height, block);
        let taken = self.wallet.block(|wallet, batch| {
            wallet.connected(height, block)?;
            for movement in &wallet.movements(block) {
                batch.event(moved(movement, height));
                if movement.spent > Sat::ZERO {
                    // A key of `wallet.send` that names it may be forgotten from here on.
                    batch.end(&UnderWay::Sent(movement.txid));
                }
            }
            Ok(())
        });
        if let Err(fault) = taken {
            tracing::error!(height, %fault, "the wallet did not take a block in");
        }
        if self.reorganised.swap(false, Ordering::Relaxed) {
            // A funding transaction that was forgotten once its channel was ready may be in no block now, and in no
            // mempool. The wallet knows since the first block of the new branch.
            self.publish_what_was_left();
        }
        self.broadcaster.confirmed(block);
        self.broadcaster.new_block();
        self.wallet.look_at_reserve(self.accept_needs_reserve);
        if let Some(sinks) = self.sinks.as_ref().filter(|_| is_tip_due(height)) {
            // What the block changed of channels has reached the sinks' queues then: the record comes behind it.
            let (waiter, durable) = oneshot::channel();
            let mut batch = Batch::default();
            batch.hold(Held::Durable(waiter));
            self.manager.env().writer.submit(batch);
            // The writer drops the waiter only with the process.
            let _ = durable.blocking_recv();
            tell_tip(&self.manager, sinks, self.wallet.recorded((height, block.block_hash())));
        }
        // Behind what the block made channels order.
        let mut batch = Batch::default();
        batch.hold(Held::Chain(ChainOrder::NewBlock));
        self.manager.env().writer.submit(batch);
    }

    fn disconnected(&self, height: u32, hash: BlockHash, previous: BlockHash) {
        // Before what channels order because of it.
        let mut batch = Batch::default();
        batch.hold(Held::Chain(ChainOrder::BlockLeft));
        self.manager.env().writer.submit(batch);
        self.manager.block_disconnected(height);
        let taken = self.wallet.block(|wallet, _| wallet.disconnected(height, hash, previous));
        if let Err(fault) = taken {
            tracing::error!(height, %fault, "the wallet did not give a block back");
        }
        self.reorganised.store(true, Ordering::Relaxed);
    }

    fn wants_again(&self) -> Option<u32> {
        let (tip, _) = self.tip()?;
        self.older.wanted(&self.wallet, tip)
    }

    fn again(&self, height: u32, block: &Block) {
        let tip = self.tip().map_or(height, |(tip, _)| tip);
        self.older.take(&self.wallet, (height, block), tip);
    }

    fn pruned(&self, kept: Option<u32>) {
        self.older.pruned(kept);
    }

    fn clock(&self, trouble: Option<String>) {
        (self.tell_clock)(trouble);
    }

    fn state(&self, state: ChainState) {
        let synced = matches!(state, ChainState::Synced { .. });
        if synced {
            // At a start too: what was sent and is in no block yet is published by nobody else.
            if self.reorganised.swap(false, Ordering::Relaxed) && !self.manager.env().is_restored() {
                self.publish_what_was_left();
            }
            self.set_shutdown_script();
            // bitcoind estimates from blocks: with each there may be another feerate.
            self.estimator.refresh();
            let (feerates, is_estimate) = feerates(&self.estimator.current());
            self.manager.set_feerates(feerates, is_estimate);
        }
        self.manager.env().chain.set_synced(synced);
        self.state.send_replace(Some(state));
    }
}

impl Listener {
    /// Publishes what a reorganisation took from the chain, but for what sweeps and channels in the making publish
    /// themselves, if they may. Should the file not be readable, nothing: the node is about to stop.
    fn publish_what_was_left(&self) {
        let rows = match self.manager.env().reader.broadcasts() {
            Ok(rows) => rows,
            Err(fault) => return tracing::error!(%fault, "what channels publish cannot be read"),
        };
        let kept = rows.iter().filter(|row| self.manager.keeps_to_itself(row));
        let kept: HashSet<_> = kept.map(|row| row.tx.compute_txid()).collect();
        let unconfirmed = self.wallet.wallet.lock().unconfirmed();
        for tx in unconfirmed {
            let txid = tx.compute_txid();
            if !kept.contains(&txid) && !self.sweeper.publishes(txid) {
                self.broadcaster.publish_until_confirmed(tx);
            }
        }
    }

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
    sweeper: &Sweeper,
    manager: &Manager,
) {
    while let Ok(order) = orders.recv() {
        match order {
            ChainOrder::Publish(tx) => {
                wallet.change(|wallet, _| wallet.saw_unconfirmed(&tx));
                broadcaster.publish(tx);
            }
            ChainOrder::Send(tx) => broadcaster.publish_until_confirmed(tx),
            ChainOrder::Forget(txid) => broadcaster.forget(txid),
            ChainOrder::Fund(request) => {
                let feerate = request.feerate.unwrap_or_else(|| manager.env().chain.feerates().normal);
                let funding = wallet.fund(&request, feerate).map_err(|fault| fault.to_string());
                manager.funded(&request.peer, request.channel, funding);
            }
            ChainOrder::NewBlock => sweeper.new_block(),
            ChainOrder::BlockLeft => sweeper.block_left(),
            ChainOrder::Enforce { channel, params, enforcement } => {
                sweeper.enforce(channel, params, enforcement.map(|enforcement| *enforcement));
            }
            ChainOrder::Release(txid) => wallet.change(|wallet, _| wallet.release(txid)),
            // Whoever waited may have gone.
            ChainOrder::Reached(waiter) => drop(waiter.send(())),
        }
    }
}
