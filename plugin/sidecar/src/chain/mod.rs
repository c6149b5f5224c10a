//! The chain as bitcoind tells it: following blocks, publishing transactions, feerates.
//!
//! Everything here talks to bitcoind through [`ChainSource`], and tells the node through [`follow::BlockListener`].

use std::time::Duration;

use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};

pub mod broadcast;
pub mod calls;
pub mod fault;
pub mod feerate;
pub mod follow;
mod gate;
mod http;
pub mod rpc;
pub mod stop;

use fault::RpcFault;
use stop::StopFlag;

/// What bitcoind says of its chain (`getblockchaininfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Height of the most-work chain that bitcoind has validated.
    pub blocks: u32,
    /// Height of the best header it knows.
    pub headers: u32,
    /// Hash of the block at `blocks`.
    pub best: BlockHash,
    /// Whether bitcoind says of itself that it still does its initial download.
    pub initial_block_download: bool,
    /// The lowest height whose block is kept, on a pruned node.
    pub prune_height: Option<u32>,
}

/// What bitcoind says of one block header (`getblockheader`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderInfo {
    /// Height of the block.
    pub height: u32,
    /// The block it builds on; the genesis block has none.
    pub previous: Option<BlockHash>,
    /// Whether the block is in the chain that bitcoind holds to be best.
    pub active: bool,
    /// Work of the chain up to this block, big-endian.
    pub chainwork: [u8; 32],
    /// The block's own claim of its time, unix seconds.
    pub time: u64,
    /// The median time of the block and the ten before it, unix seconds: it never goes back along the chain.
    pub median_time: u64,
}

/// What bitcoind says of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackageAnswer {
    /// All of it is in the mempool.
    Accepted,
    /// Not all of it is: bitcoind's reasons, by transaction where it names one.
    Refused(Vec<(Option<Txid>, String)>),
}

/// Where the chain comes from: bitcoind, or a script in tests.
pub trait ChainSource: Send + Sync {
    /// The state of the best chain.
    fn chain_info(&self) -> Result<ChainInfo, RpcFault>;

    /// The block at `height` of the best chain, or `None` above its tip.
    fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, RpcFault>;

    /// What is known of the block, whether in the best chain or not, or `None` where it was never seen.
    fn header(&self, hash: BlockHash) -> Result<Option<HeaderInfo>, RpcFault>;

    /// The whole block. The answer is not verified here.
    fn block(&self, hash: BlockHash) -> Result<Block, RpcFault>;

    /// Returns when the best block may be another than `known`, after `patience`, or when `stop` is raised.
    /// Only a hint: returning early, late or for nothing is allowed.
    fn wait_for_new_block(&self, known: BlockHash, patience: Duration, stop: &StopFlag) -> Result<(), RpcFault>;

    /// Hands the transaction to bitcoind's mempool and so to the network.
    fn broadcast(&self, tx: &Transaction) -> Result<Txid, RpcFault>;

    /// Hands transactions to bitcoind's mempool together, parents first, so that the fee of the last one counts for all
    /// (`submitpackage`).
    fn submit_package(&self, package: &[Transaction]) -> Result<PackageAnswer, RpcFault>;

    /// The transaction in bitcoind's mempool that spends the output.
    fn mempool_spender(&self, outpoint: OutPoint) -> Result<Option<Txid>, RpcFault>;

    /// A transaction in bitcoind's mempool.
    fn mempool_transaction(&self, txid: Txid) -> Result<Option<Transaction>, RpcFault>;

    /// The feerate for confirmation within `target` blocks, in satoshi per 1000 vbytes, or `None` without data.
    fn estimate_fee(&self, target: u16) -> Result<Option<u64>, RpcFault>;

    /// The lowest feerate that bitcoind's mempool takes now, in satoshi per 1000 vbytes.
    fn mempool_min_fee(&self) -> Result<u64, RpcFault>;
}
