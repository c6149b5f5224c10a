//! The coins as they stand, kept from one look to the next.
//!
//! To answer any question about outputs, `bdk_wallet` goes through every transaction that it has ever seen, and for each of
//! them down the chain of blocks to its own. That grows with history, so it is asked only after what may have changed
//! more than is known here: a block with a transaction of ours, a reorganisation, a conflict.

use std::collections::{BTreeMap, BTreeSet};

use bdk_wallet::chain::Merge;
use bdk_wallet::{KeychainKind, LocalOutput};
use bitcoin::{OutPoint, ScriptBuf, Transaction};
use outrigger_bolt::amount::Sat;

use super::coins::{NOWHERE, as_of};
use super::{Balance, Wallet};

/// Keychain and derivation index of the script, and the output: the order in which `bdk_wallet` has them.
type Place = ((KeychainKind, u32), OutPoint);

/// An unspent output, as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unspent {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it is worth.
    pub amount: Sat,
    /// What it pays.
    pub script: ScriptBuf,
    /// Height of its block; none while it is in none.
    pub confirmed_height: Option<u32>,
    /// Whether a transaction in the making spends it.
    pub is_locked: bool,
}

/// Every unspent output of the wallet.
pub(super) type View = BTreeMap<Place, LocalOutput>;

impl Wallet {
    /// Every unspent output of the wallet.
    pub(super) fn unspent(&mut self) -> &View {
        let (inner, tip) = (&self.inner, self.tip);
        self.view.get_or_insert_with(|| {
            let place = |coin: &LocalOutput| ((coin.keychain, coin.derivation_index), coin.outpoint);
            inner.list_unspent().map(|coin| (place(&coin), as_of(tip, coin))).collect()
        })
    }

    /// A block was taken in. Where it holds nothing of ours, stands on the last one, and is higher than any before it, no coin has
    /// changed. One of a branch that comes back brings nothing that is new, and changes coins all the same.
    pub(super) fn view_after_block(&mut self, is_next: bool) {
        let concerns = self.inner.staged().is_some_and(|staged| !staged.tx_graph.is_empty());
        if concerns || !is_next {
            self.view = None;
        }
    }

    /// A transaction was taken in that no block holds; `is_known` where it had been before.
    pub(super) fn view_after_transaction(&mut self, tx: &Transaction, is_known: bool) {
        let Some(view) = self.view.as_mut() else { return };
        let (index, graph, txid) = (self.inner.spk_index(), self.inner.tx_graph(), tx.compute_txid());
        let spent = tx.input.iter().map(|input| input.previous_output);
        // What another of our transactions spends too is decided by more than is known here.
        let mut is_clear = !is_known && spent.clone().all(|coin| graph.outspends(coin).iter().all(|it| *it == txid));
        for coin in spent {
            if let Some((place, _)) = index.txout(coin) {
                is_clear &= view.remove(&(place, coin)).is_some();
            }
        }
        for vout in (0..).take(tx.output.len()) {
            let outpoint = OutPoint { txid, vout };
            if let Some(((keychain, derivation_index), txout)) = index.txout(outpoint) {
                let (txout, chain_position) = (txout.clone(), NOWHERE);
                let coin = LocalOutput { outpoint, txout, keychain, is_spent: false, derivation_index, chain_position };
                view.insert(((keychain, derivation_index), outpoint), coin);
            }
        }
        if !is_clear {
            self.view = None;
        }
    }

    /// What the wallet holds.
    pub fn balance(&mut self) -> Balance {
        let (mut balance, locked) = (Balance::default(), self.locked_outpoints());
        self.unspent();
        for coin in self.view.iter().flat_map(View::values) {
            let sum = if locked.contains(&coin.outpoint) {
                &mut balance.locked
            } else if !coin.chain_position.is_confirmed() {
                &mut balance.unconfirmed
            } else if self.is_immature(coin) {
                &mut balance.immature
            } else {
                &mut balance.confirmed
            };
            *sum = sum.saturating_add(Sat::from(coin.txout.value));
        }
        balance
    }

    /// Unspent outputs after this one, by outpoint, at most `count`.
    pub fn all_unspent(&mut self, after: Option<OutPoint>, count: usize) -> Vec<Unspent> {
        let locked = self.locked_outpoints();
        let mut coins: Vec<_> = self.unspent().values().cloned().collect();
        coins.retain(|coin| after.is_none_or(|after| coin.outpoint > after));
        coins.sort_by_key(|coin| coin.outpoint);
        coins.truncate(count);
        let unspent = |coin: LocalOutput| Unspent {
            outpoint: coin.outpoint,
            amount: coin.txout.value.into(),
            script: coin.txout.script_pubkey,
            confirmed_height: coin
                .chain_position
                .confirmation_height_upper_bound()
                .filter(|_| coin.chain_position.is_confirmed()),
            is_locked: locked.contains(&coin.outpoint),
        };
        coins.into_iter().map(unspent).collect()
    }

    /// What is promised to transactions that were not seen yet.
    pub(super) fn locked_outpoints(&self) -> BTreeSet<OutPoint> {
        self.locked.values().flatten().copied().collect()
    }
}
