//! The on-chain wallet: coins of the seed's BIP 84 account, from which channels are funded.
//!
//! `bdk_wallet` does the bookkeeping. What it stages for the disk goes into the batch of the step that caused it:
//! an address must not be shown, nor a transaction leave, before [`Wallet::take_staged`] of it is committed.

use std::collections::BTreeMap;

use bdk_wallet::chain::keychain_txout::DEFAULT_LOOKAHEAD;
use bdk_wallet::chain::{BlockId, CheckPoint};
use bdk_wallet::template::Bip84Public;
use bdk_wallet::{KeychainKind, LoadError, Update};
use bitcoin::bip32::{ChildNumber, Xpriv, Xpub};
use bitcoin::constants::genesis_block;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Address, Block, BlockHash, Network, OutPoint, Transaction, Txid};
use outrigger_bolt::amount::Sat;

use crate::clock::Clock;
use crate::key::Seed;

mod coins;
mod funding;
mod movements;
mod older;
mod stored;
#[cfg(test)]
mod tests;
mod view;

pub use coins::Coin;
use coins::is_confirmed;
pub use movements::Movement;
use stored::{Marks, Stored};
pub use view::Unspent;
use view::View;

/// How many addresses of each kind beyond the last that is known a wallet looks for whose words may have been used before. Other
/// wallets look for 20; who gave out more than a thousand that nobody paid has to find the rest with another wallet.
pub const WIDE: u32 = 1000;

/// What the wallet refuses or cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalletFault {
    /// No block was seen yet: a payment to an address given out now could be missed.
    #[error("the chain is not known yet: wait until bitcoind answers and has synchronised")]
    NotStarted,
    /// Not enough coins that are confirmed, or our own change, and not locked by another transaction.
    #[error("{needed} are needed with the fee, {available} are there")]
    InsufficientFunds {
        /// Amount and fee.
        needed: Sat,
        /// What could be spent.
        available: Sat,
    },
    /// The coins would do, but not with what is kept to pay the fees of channels that close alone (OCC-12).
    #[error(
        "{left} would be left, and {reserve} are kept back to pay the fees of channels that close without the peer; send \
         more coins to the wallet"
    )]
    Reserve {
        /// What would be left.
        left: Sat,
        /// What has to be left.
        reserve: Sat,
    },
    /// Only a transaction that no node relays could spend so many coins.
    #[error(
        "so many small coins are needed for {0} that the transaction would not be relayed; send larger coins to the wallet"
    )]
    TooManyCoins(Sat),
    /// The output is too small to be relayed.
    #[error("{0} is below the dust limit")]
    Dust(Sat),
    /// The rows are not what this code wrote.
    #[error("the wallet's rows are damaged: {0}")]
    Damaged(String),
    /// The rows were written by a newer release.
    #[error("the wallet's rows have version {0}: use the release that wrote them, or a newer one")]
    Newer(u8),
    /// The rows belong to another seed or another network (KEY-3).
    #[error("the wallet's rows belong to another seed or network: {0}")]
    OtherSeed(String),
    /// A bug: the wallet contradicts itself.
    #[error("the wallet contradicts itself: {0}")]
    Inconsistent(String),
}

/// The wallet's coins by what can be done with them. No coin is counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Confirmed and free.
    pub confirmed: Sat,
    /// Not confirmed and free: change of our own transactions, and payments to us, those included that a
    /// reorganisation took back.
    pub unconfirmed: Sat,
    /// Mined to us less than 100 blocks ago.
    pub immature: Sat,
    /// Promised to a transaction that was not seen on the network yet.
    pub locked: Sat,
}

/// Coins, addresses and their keys. It has one owner and is not shared.
pub struct Wallet {
    /// The root of the keys, wiped when dropped. `inner` knows public keys alone.
    master: Xpriv,
    inner: bdk_wallet::Wallet,
    /// The last block connected and not disconnected; `inner` learns of a disconnected block from its successor, so what it
    /// says of confirmations is held against this.
    tip: Option<(u32, BlockHash)>,
    /// The step that connects the first block also stores that there was one.
    start_staged: bool,
    marks: Marks,
    /// The next row stores the marks.
    marks_staged: bool,
    /// Inputs of transactions that were made but not seen yet. In memory alone: a crash frees them, and a start sees the
    /// transactions that survived it again, or keeps their coins where they have not left.
    locked: BTreeMap<Txid, Vec<OutPoint>>,
    compacted: Option<Vec<u8>>,
    /// The unspent outputs, where nothing has happened since that could have changed them in more ways than are known.
    view: Option<View>,
    /// The highest block that was ever connected: what lies above it is new to `inner`.
    highest: u32,
}

impl Wallet {
    /// The wallet as the change sets left it, in the order in which they were taken; a new one where there are none.
    pub fn load(seed: &Seed, network: Network, change_sets: &[Vec<u8>]) -> Result<Self, WalletFault> {
        Self::of(seed, network, change_sets, false)
    }

    /// The same of words that may have been used before, here or elsewhere: from now on, and after every later load, it knows what pays
    /// any of the next [`WIDE`] addresses of each kind, since nobody told it how many were given out.
    pub fn load_wide(seed: &Seed, network: Network, change_sets: &[Vec<u8>]) -> Result<Self, WalletFault> {
        Self::of(seed, network, change_sets, true)
    }

    fn of(seed: &Seed, network: Network, change_sets: &[Vec<u8>], is_wide: bool) -> Result<Self, WalletFault> {
        let master = seed.master(network);
        let (external, internal) = descriptors(&master, network)?;
        let mut stored = Stored::merge(change_sets)?;
        let marks = Marks { is_wide: is_wide || stored.marks.is_wide, ..stored.marks };
        let lookahead = if marks.is_wide { WIDE } else { DEFAULT_LOOKAHEAD };
        let (inner, tip) = if change_sets.is_empty() {
            let created = bdk_wallet::Wallet::create(external, internal).network(network).lookahead(lookahead);
            let created = created.create_wallet_no_persist();
            (created.map_err(inconsistent)?, None)
        } else {
            stored.prune();
            let loaded = bdk_wallet::Wallet::load()
                .descriptor(KeychainKind::External, Some(external))
                .descriptor(KeychainKind::Internal, Some(internal))
                .check_network(network)
                .lookahead(lookahead)
                .load_wallet_no_persist(stored.bdk.clone());
            let inner = loaded.map_err(load_fault)?.ok_or_else(|| WalletFault::Damaged("they are empty".to_owned()))?;
            let tip = inner.latest_checkpoint().block_id();
            (inner, stored.started.then_some((tip.height, tip.hash)))
        };
        let compacted = (change_sets.len() > 1).then(|| stored.encode());
        let highest = inner.latest_checkpoint().height();
        Ok(Self {
            master,
            inner,
            tip,
            start_staged: false,
            marks_staged: marks != stored.marks,
            marks,
            locked: BTreeMap::new(),
            compacted,
            view: None,
            highest,
        })
    }

    /// The first row of a wallet whose rows were lost, and which goes on from a block that was connected once. It looks for what
    /// pays any of its first `addresses` addresses from there on; what it had before is not found by it.
    pub fn resumed_at(
        seed: &Seed,
        network: Network,
        (height, hash): (u32, BlockHash),
        addresses: u32,
    ) -> Result<Vec<u8>, WalletFault> {
        let mut wallet = Self::load(seed, network, &[])?;
        let genesis = BlockId { height: 0, hash: genesis_block(network).block_hash() };
        let blocks = [genesis, BlockId { height, hash }];
        let chain = CheckPoint::from_block_ids(blocks.into_iter().take(if height == 0 { 1 } else { 2 }));
        let chain = chain.map_err(|_| inconsistent("two blocks do not make a chain"))?;
        let last_active_indices =
            [KeychainKind::External, KeychainKind::Internal].map(|keychain| (keychain, addresses)).into();
        let update = Update { last_active_indices, chain: Some(chain), ..Update::default() };
        wallet.inner.apply_update(update).map_err(inconsistent)?;
        wallet.marks = Marks { looked_from: height.checked_add(1), is_wide: true };
        (wallet.start_staged, wallet.marks_staged) = (true, true);
        Ok(wallet.take_staged().unwrap_or_default())
    }

    /// All that [`load`](Self::load) was given in one change set, to be stored in place of it. Once, where it was more than one.
    pub fn take_compacted(&mut self) -> Option<Vec<u8>> {
        self.compacted.take()
    }

    /// What changed since the last call, for the batch of the step that changed it.
    pub fn take_staged(&mut self) -> Option<Vec<u8>> {
        let bdk = self.inner.take_staged();
        let started = std::mem::take(&mut self.start_staged);
        let marks = std::mem::take(&mut self.marks_staged).then_some(self.marks);
        let is_some = bdk.is_some() || started || marks.is_some();
        is_some.then(|| Stored { started, marks: marks.unwrap_or_default(), bdk: bdk.unwrap_or_default() }.encode())
    }

    /// Height and hash of the last block connected and not disconnected, or `None` before the first ever.
    pub fn tip(&self) -> Option<(u32, BlockHash)> {
        self.tip
    }

    /// The connected block at `height`, where it is remembered: at least the last thousand.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        let (tip_height, tip) = self.tip?;
        if height == tip_height {
            return Some(tip);
        }
        let known = self.inner.local_chain().get(height).map(|checkpoint| checkpoint.hash());
        known.filter(|_| height < tip_height)
    }

    /// The block so many below the tip; the tip where that one is not remembered.
    pub fn below_tip(&self, depth: u32) -> Option<(u32, BlockHash)> {
        let below = self.tip?.0.checked_sub(depth);
        below.and_then(|below| Some((below, self.hash_at(below)?))).or(self.tip)
    }

    /// A block on top of the tip, or the first one, at any height.
    pub fn connected(&mut self, height: u32, block: &Block) -> Result<(), WalletFault> {
        let hash = block.block_hash();
        let is_next = self.inner.latest_checkpoint().hash() == block.header.prev_blockhash && height > self.highest;
        let applied = match self.tip {
            None if height == 0 => Ok(()),
            None => {
                let genesis = BlockId { height: 0, hash: genesis_block(self.inner.network()).block_hash() };
                self.inner.apply_block_connected_to(block, height, genesis).map_err(|error| error.to_string())
            }
            Some(_) => self.inner.apply_block(block, height).map_err(|error| error.to_string()),
        };
        applied.map_err(|error| inconsistent(format_args!("block {hash} at height {height}: {error}")))?;
        self.view_after_block(is_next);
        self.highest = self.highest.max(height);
        if self.tip.is_none() {
            self.start_staged = true;
            self.looked_again(height);
        }
        self.tip = Some((height, hash));
        if !self.locked.is_empty() {
            for tx in &block.txdata {
                self.locked.remove(&tx.compute_txid());
            }
        }
        Ok(())
    }

    /// The tip left the best chain; `previous` is the tip now.
    pub fn disconnected(&mut self, height: u32, hash: BlockHash, previous: BlockHash) -> Result<(), WalletFault> {
        let below = height.checked_sub(1).filter(|_| self.tip == Some((height, hash)));
        let below = below.ok_or_else(|| {
            inconsistent(format_args!("block {hash} at height {height} is not the tip and cannot leave"))
        })?;
        self.tip = Some((below, previous));
        self.view = None;
        Ok(())
    }

    /// A transaction of ours that was or will now be published: its inputs are spent and its change is there.
    /// Called again at start for those that are not confirmed.
    pub fn saw_unconfirmed(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        self.locked.remove(&txid);
        // Later than it was given up, if it was: else it would stay so.
        let given_up = self.inner.tx_graph().get_last_evicted(txid).map_or(0, |at| at.saturating_add(1));
        let is_known = self.inner.tx_graph().get_tx(txid).is_some();
        self.inner.apply_unconfirmed_txs([(tx.clone(), Clock::now_unix().max(given_up))]);
        self.view_after_transaction(tx, is_known);
    }

    /// A transaction of ours that the file has and that has not left yet: its inputs are locked as when it was
    /// [made](Self::fund). Nothing of that is stored, so one that never leaves is given up with its rows alone.
    pub fn keep_coins_of(&mut self, tx: &Transaction) {
        let spent = tx.input.iter().map(|input| input.previous_output).collect();
        self.locked.insert(tx.compute_txid(), spent);
    }

    /// Transactions of ours, or that pay us, which are in no block: after a reorganisation they have to be published
    /// again, since nobody else need have kept them.
    pub fn unconfirmed(&self) -> Vec<Transaction> {
        let ours = self.inner.transactions().filter(|tx| !is_confirmed(self.tip, &tx.chain_position));
        ours.filter(|tx| !tx.tx_node.tx.is_coinbase()).map(|tx| tx.tx_node.tx.as_ref().clone()).collect()
    }

    /// Whether coins are kept for transactions that have not left.
    pub fn locks_coins(&self) -> bool {
        !self.locked.is_empty()
    }

    /// Frees the inputs of a transaction that will never be published.
    pub fn release(&mut self, txid: Txid) {
        self.locked.remove(&txid);
        let last_seen = self.inner.tx_graph().get_tx_node(txid).and_then(|node| node.last_seen);
        if let Some(last_seen) = last_seen {
            self.inner.apply_evicted_txs([(txid, Clock::now_unix().max(last_seen))]);
            self.view = None;
        }
    }

    /// An address that was never given out before.
    pub fn new_address(&mut self) -> Result<Address, WalletFault> {
        self.tip.ok_or(WalletFault::NotStarted)?;
        Ok(self.inner.reveal_next_address(KeychainKind::External).address)
    }
}

impl Drop for Wallet {
    fn drop(&mut self) {
        self.master.private_key.non_secure_erase();
    }
}

fn inconsistent(what: impl std::fmt::Display) -> WalletFault {
    WalletFault::Inconsistent(what.to_string())
}

/// The receiving and the change descriptor of BIP 84's first account, without private keys.
fn descriptors(master: &Xpriv, network: Network) -> Result<(Bip84Public<Xpub>, Bip84Public<Xpub>), WalletFault> {
    let secp = Secp256k1::new();
    let coin = if network == Network::Bitcoin { 0 } else { 1 };
    let path = [84, coin, 0].map(|index| ChildNumber::Hardened { index });
    let account = Xpub::from_priv(&secp, &master.derive_priv(&secp, &path).map_err(inconsistent)?);
    let descriptor = |keychain| Bip84Public(account, master.fingerprint(&secp), keychain);
    Ok((descriptor(KeychainKind::External), descriptor(KeychainKind::Internal)))
}

/// FND-5: a transaction whose id a third party could change must never fund a channel.
fn check_segwit(tx: &Transaction) -> Result<(), WalletFault> {
    let safe = tx.input.iter().all(|input| input.script_sig.is_empty() && !input.witness.is_empty());
    if safe && !tx.input.is_empty() {
        return Ok(());
    }
    Err(inconsistent("an input has no witness: the txid is not final"))
}

fn load_fault(error: LoadError) -> WalletFault {
    match error {
        LoadError::Mismatch(mismatch) => WalletFault::OtherSeed(mismatch.to_string()),
        other => WalletFault::Damaged(other.to_string()),
    }
}
