//! What the transactions of a block move in the wallet.

use bitcoin::{Amount, Block, BlockHash, Transaction, Txid};
use outrigger_bolt::amount::Sat;

use super::Wallet;

/// What a transaction moves in the wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The transaction.
    pub txid: Txid,
    /// What its outputs pay the wallet, change included.
    pub received: Sat,
    /// What its inputs take from the wallet.
    pub spent: Sat,
    /// What it pays in fees, where every input is the wallet's; else not all that it spends is known, and others may pay.
    pub fee: Option<Sat>,
}

impl Wallet {
    /// What each transaction of a block, which was taken in, moves in the wallet; those that move nothing are not told.
    pub fn movements(&self, block: &Block) -> Vec<Movement> {
        block.txdata.iter().filter_map(|tx| self.movement(tx)).collect()
    }

    pub(super) fn movement(&self, tx: &Transaction) -> Option<Movement> {
        let index = self.inner.spk_index();
        let (spent, received) = index.sent_and_received(tx, ..);
        let is_all_ours = tx.input.iter().all(|input| index.txout(input.previous_output).is_some());
        let paid: Amount = tx.output.iter().map(|output| output.value).sum();
        let fee = spent.checked_sub(paid).filter(|_| is_all_ours).map(Sat::from);
        let moves = spent > Amount::ZERO || received > Amount::ZERO;
        moves.then(|| Movement { txid: tx.compute_txid(), received: received.into(), spent: spent.into(), fee })
    }

    /// Whether the transaction is known to stand in this very block.
    pub fn has_in_block(&self, txid: Txid, block: BlockHash) -> bool {
        let node = self.inner.tx_graph().get_tx_node(txid);
        node.is_some_and(|node| node.anchors.iter().any(|anchor| anchor.block_id.hash == block))
    }
}
