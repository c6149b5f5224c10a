//! Blocks that the wallet did not take in, or took in while it knew fewer addresses: looked at again where the operator says later
//! that the words had coins there.

use std::sync::Arc;

use bdk_wallet::Update;
use bdk_wallet::chain::{BlockId, ConfirmationBlockTime, TxUpdate};
use bitcoin::{Block, Transaction};

use super::{Wallet, WalletFault, inconsistent};

impl Wallet {
    /// The block from which on every block up to the tip was looked at; `None` before the first, and where the rows are of a
    /// release that did not write it.
    pub fn looked_from(&self) -> Option<u32> {
        self.marks.looked_from
    }

    /// Takes from a block, which the tip stands on or is, what concerns the wallet; a block that is known already changes nothing.
    /// Says whether it fits what the wallet knows of the chain: where it does not, nothing was taken. Blocks come in their order, up to
    /// the tip, so that what spends a coin comes behind it.
    pub fn look_again(&mut self, height: u32, block: &Block) -> Result<bool, WalletFault> {
        let id = BlockId { height, hash: block.block_hash() };
        let is_above = self.tip.is_none_or(|(tip, _)| height > tip);
        if is_above || self.hash_at(height).is_some_and(|known| known != id.hash) {
            return Ok(false);
        }
        let anchor = ConfirmationBlockTime { block_id: id, confirmation_time: block.header.time.into() };
        for tx in &block.txdata {
            // One by one: each may make more addresses known, and coins that the next one spends.
            if self.concerns(tx) {
                self.take_older(tx, anchor)?;
            }
        }
        Ok(true)
    }

    /// Every block from this one up to the tip was looked at.
    pub fn looked_again(&mut self, from: u32) {
        self.marks.looked_from = Some(self.marks.looked_from.map_or(from, |known| known.min(from)));
        self.marks_staged = true;
    }

    fn concerns(&self, tx: &Transaction) -> bool {
        let index = self.inner.spk_index();
        tx.output.iter().any(|output| index.index_of_spk(output.script_pubkey.clone()).is_some())
            || tx.input.iter().any(|input| index.txout(input.previous_output).is_some())
    }

    fn take_older(&mut self, tx: &Transaction, anchor: ConfirmationBlockTime) -> Result<(), WalletFault> {
        let txid = tx.compute_txid();
        let mut tx_update = TxUpdate::default();
        tx_update.txs.push(Arc::new(tx.clone()));
        tx_update.anchors.insert((anchor, txid));
        let chain = self.inner.latest_checkpoint().insert(anchor.block_id);
        let update = Update { tx_update, chain: Some(chain), ..Update::default() };
        self.inner.apply_update(update).map_err(inconsistent)?;
        self.locked.remove(&txid);
        self.view = None;
        Ok(())
    }
}
