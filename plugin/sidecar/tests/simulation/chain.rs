//! One chain and one mempool for all nodes. Coins come from nowhere: what is simulated is what channels see of it.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness,
};
use outrigger_sidecar::store::FundingRequest;

/// The height at which every simulation begins.
pub const BEGIN: u32 = 500;

/// What the names of transactions end in that nobody looks for.
const COIN: u8 = 0xc0;

#[derive(Clone, Default)]
pub struct Chain {
    blocks: Vec<Block>,
    mempool: BTreeMap<Txid, Transaction>,
    spent: BTreeSet<OutPoint>,
    /// What is in blocks.
    known: BTreeSet<Txid>,
    /// Outputs that are to be spent, and the lowest height of a block that may do so.
    claims: BTreeMap<OutPoint, (Amount, u32)>,
    coins: u64,
    /// The lowest height of each reorganisation, in their order.
    pub forks: Vec<u32>,
}

impl Chain {
    pub fn height(&self) -> u32 {
        BEGIN + self.blocks.len() as u32
    }

    /// The block at this height, above [`BEGIN`].
    pub fn block(&self, height: u32) -> Block {
        self.blocks[(height - BEGIN - 1) as usize].clone()
    }

    /// Takes a transaction into the mempool, unless what it spends is spent.
    pub fn publish(&mut self, tx: Transaction) {
        if !tx.input.iter().any(|input| self.spent.contains(&input.previous_output)) {
            self.mempool.insert(tx.compute_txid(), tx);
        }
    }

    /// An output is to be spent from this height on, and its value paid out.
    pub fn claim(&mut self, outpoint: OutPoint, value: Amount, from_height: u32) {
        self.claims.insert(outpoint, (value, from_height));
    }

    fn publish_claims(&mut self) {
        let height = self.height() + 1;
        let ripe: Vec<_> =
            self.claims.iter().filter(|(_, (_, from))| *from <= height).map(|(at, (value, _))| (*at, *value)).collect();
        for (outpoint, value) in ripe {
            self.claims.remove(&outpoint);
            let mut tx = self.coin(vec![TxOut { value, script_pubkey: ScriptBuf::new_op_return([]) }]);
            tx.input[0].previous_output = outpoint;
            self.publish(tx);
        }
    }

    /// A block with what waits; of transactions that spend one output, one.
    pub fn mine(&mut self) -> usize {
        self.publish_claims();
        let mut txdata = vec![self.coin(Vec::new())];
        for tx in std::mem::take(&mut self.mempool).into_values() {
            if tx.input.iter().any(|input| self.spent.contains(&input.previous_output)) {
                continue;
            }
            if tx.input.iter().all(|input| self.has(&input.previous_output.txid)) {
                self.spent.extend(tx.input.iter().map(|input| input.previous_output));
                txdata.push(tx);
            } else {
                // Whoever publishes it does so again with each block.
                self.mempool.insert(tx.compute_txid(), tx);
            }
        }
        let header = Header {
            version: BlockVersion::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.forks.len() as u32,
            bits: CompactTarget::from_consensus(0),
            nonce: self.height() + 1,
        };
        let count = txdata.len() - 1;
        self.known.extend(txdata.iter().map(Transaction::compute_txid));
        self.blocks.push(Block { header, txdata });
        count
    }

    /// What waits, which nobody mines for now.
    pub fn hold_back(&mut self) -> Vec<Transaction> {
        std::mem::take(&mut self.mempool).into_values().collect()
    }

    /// Takes so many blocks back, if there are as many: what was in them waits again. False where there are not.
    pub fn take_back(&mut self, depth: usize) -> bool {
        if self.blocks.len() <= depth {
            return false;
        }
        for block in self.blocks.split_off(self.blocks.len() - depth) {
            for tx in block.txdata.into_iter().skip(1) {
                for input in &tx.input {
                    self.spent.remove(&input.previous_output);
                }
                self.known.remove(&tx.compute_txid());
                self.mempool.insert(tx.compute_txid(), tx);
            }
        }
        self.forks.push(self.height() + 1);
        true
    }

    /// Whether a transaction is in a block, or one of those that coins come from.
    pub fn has(&self, txid: &Txid) -> bool {
        self.known.contains(txid) || txid.as_byte_array()[8..] == [COIN; 24]
    }

    /// What spends this output in a block.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        let spends = |tx: &&Transaction| tx.input.iter().any(|input| input.previous_output == *outpoint);
        self.blocks.iter().flat_map(|block| &block.txdata).find(spends)
    }

    /// Whether something in a block spends this output.
    pub fn is_spent(&self, outpoint: &OutPoint) -> bool {
        self.spent.contains(outpoint)
    }

    /// What a wallet answers: a transaction that pays for the channel, and the place of the output.
    pub fn fund(&mut self, request: &FundingRequest) -> (Transaction, u32) {
        let output = |value, script_pubkey| TxOut { value, script_pubkey };
        let paid = output(Amount::from(request.amount), request.script_pubkey.clone());
        let change = output(Amount::from_sat(50_000), ScriptBuf::new_op_return([]));
        (self.coin(vec![change, paid]), 1)
    }

    fn coin(&mut self, output: Vec<TxOut>) -> Transaction {
        self.coins += 1;
        let mut txid = [COIN; 32];
        txid[..8].copy_from_slice(&self.coins.to_be_bytes());
        let previous_output = OutPoint { txid: Txid::from_byte_array(txid), vout: 0 };
        let input = TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1]]),
        };
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
    }
}
