//! Following bitcoind's best chain, block by block.
//!
//! The truth is the walk from our tip by previous hash, with every block verified; `waitfornewblock` only says when to
//! look. Whatever is odd about bitcoind or its chain is a [`ChainState`], never a crash, and leaves our tip where it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::constants::genesis_block;
use bitcoin::{Block, BlockHash, Network};

use super::fault::{FaultKind, RpcFault};
use super::stop::StopFlag;
use super::{ChainInfo, ChainSource, HeaderInfo};
use crate::clock::Clock;

mod again;
mod clocks;
#[cfg(test)]
mod tests;

/// How long the long poll may last. It keeps one of bitcoind's few RPC threads, also for a while after we are killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The deepest reorganisation that is followed without the operator.
const MAX_REORG: usize = 100;
/// The most blocks connected between two looks at bitcoind's tip.
const BLOCKS_AT_ONCE: u32 = 100;
/// Headers run a little ahead of their blocks at any time; more than this is a chain still being downloaded.
const HEADERS_AHEAD: u32 = 2;
/// Blocks to catch up with before this is called syncing.
const SHORT_CATCH_UP: u32 = 6;
/// A tip older than this may be an attacker's doing (BTC-7). One honest pause in 160,000 is as long.
const STALE_TIP_SECS: u64 = 2 * 60 * 60;
/// bitcoind silent for longer than this leaves us blind (BTC-4).
const BLIND_AFTER: Duration = Duration::from_secs(10 * 60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How well we see the chain. Only `Synced` may open, accept, relay or pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainState {
    /// bitcoind does not answer, or not yet.
    WaitingForBitcoind {
        /// What happened and what to do.
        reason: String,
    },
    /// bitcoind, or we after it, catches up.
    Syncing {
        /// The height reached.
        height: u32,
        /// The height to reach.
        target: u32,
    },
    /// Our tip is bitcoind's.
    Synced {
        /// Height of the tip.
        height: u32,
        /// Hash of the tip.
        hash: BlockHash,
    },
    /// What bitcoind shows cannot be followed or trusted: the operator is needed.
    Blind {
        /// What happened and what to do.
        reason: String,
    },
}

/// Who is told of the chain. Called on the follower's thread, in the chain's order.
pub trait BlockListener: Send + Sync {
    /// Height and hash of the last block connected and not disconnected, or `None` before the first ever.
    fn tip(&self) -> Option<(u32, BlockHash)>;

    /// The connected block at `height`, for at least the last 101 heights up to the tip.
    /// Needed only where bitcoind no longer knows our tip.
    fn hash_at(&self, height: u32) -> Option<BlockHash>;

    /// A verified block on top of the tip. The very first is bitcoind's tip of that moment, at any height.
    fn connected(&self, height: u32, block: &Block);

    /// The tip, `hash` at `height`, left the best chain; `previous` is the tip now.
    fn disconnected(&self, height: u32, hash: BlockHash, previous: BlockHash);

    /// A block at or below the tip that is to be seen though it was passed over, or seen, before.
    fn wants_again(&self) -> Option<u32> {
        None
    }

    /// That block, verified. It was in the best chain with the tip a moment ago.
    fn again(&self, height: u32, block: &Block) {
        let _ = (height, block);
    }

    /// bitcoind does not have that block any more; it says from which on it has them.
    fn pruned(&self, kept: Option<u32>) {
        let _ = kept;
    }

    /// The state changed.
    fn state(&self, state: ChainState);

    /// What is wrong with the machine's clock, and what to do, has changed.
    fn clock(&self, trouble: Option<String>) {
        drop(trouble);
    }
}

/// The thread's state: what was verified and reported, never the tip, which is the listener's.
pub struct Follower {
    source: Arc<dyn ChainSource>,
    listener: Arc<dyn BlockListener>,
    network: Network,
    /// The first block, where it is not to be bitcoind's newest.
    start_height: Option<u32>,
    genesis_verified: bool,
    best: Option<(BlockHash, HeaderInfo)>,
    reported: Option<ChainState>,
    failing_since: Option<Instant>,
    pause: Duration,
    blind_after: Duration,
    /// What was last said of the machine's clock, so that it is said once.
    clock_trouble: Option<&'static str>,
}

/// What to wait for before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    NewBlock(BlockHash),
    Sleep(Duration),
}

/// A round that came to an end without an obstacle.
enum Round {
    /// Blocks came or went: look again at once.
    Moved,
    /// bitcoind's answers contradict each other, as they may while it switches chains.
    Unsettled,
    /// Our tip is bitcoind's, or there is nothing to follow yet.
    Arrived(ChainState, BlockHash),
}

/// Why a round found no way on.
enum Halt {
    Fault(RpcFault),
    Blind(String),
}

impl From<RpcFault> for Halt {
    fn from(fault: RpcFault) -> Self {
        Self::Fault(fault)
    }
}

fn blind<T>(reason: String) -> Result<T, Halt> {
    Err(Halt::Blind(reason))
}

impl Follower {
    /// A follower for the chain of `network`, at the listener's tip.
    fn new(source: Arc<dyn ChainSource>, listener: Arc<dyn BlockListener>, network: Network) -> Self {
        Self {
            source,
            listener,
            network,
            start_height: None,
            genesis_verified: false,
            best: None,
            reported: None,
            failing_since: None,
            pause: FIRST_PAUSE,
            blind_after: BLIND_AFTER,
            clock_trouble: None,
        }
    }

    /// The same, which begins at this height where the listener has no tip yet.
    fn starting_at(self, start_height: Option<u32>) -> Self {
        Self { start_height, ..self }
    }

    /// Follows until `stop` is raised; where the listener has no tip yet, from `start_height` on, or from bitcoind's newest block.
    /// Blocks the thread. `poll` is how often it looks for a block where it hears of none; without it bitcoind is asked to say when
    /// there is one.
    pub fn run(
        source: Arc<dyn ChainSource>,
        listener: Arc<dyn BlockListener>,
        (network, start_height): (Network, Option<u32>),
        poll: Option<Duration>,
        stop: &StopFlag,
    ) {
        let mut follower = Self::new(source, listener, network).starting_at(start_height);
        while !stop.is_raised() {
            let known = stop.nudges();
            let wait = match (follower.step(), poll) {
                (Pause::No, _) => continue,
                (Pause::NewBlock(_), Some(poll)) => poll,
                (Pause::NewBlock(tip), None) => match follower.source.wait_for_new_block(tip, PATIENCE, stop) {
                    Ok(()) => continue,
                    Err(fault) => follower.on_fault(&fault),
                },
                (Pause::Sleep(time), _) => time,
            };
            stop.doze(known, wait);
        }
    }

    /// One look at bitcoind, and all that follows from it.
    fn step(&mut self) -> Pause {
        let round = self.round();
        if !matches!(round, Err(Halt::Fault(_))) {
            self.failing_since = None;
            self.pause = FIRST_PAUSE;
        }
        match round {
            Ok(Round::Moved) => Pause::No,
            Ok(Round::Unsettled) => Pause::Sleep(FIRST_PAUSE),
            Ok(Round::Arrived(state, best)) => {
                self.report(state);
                Pause::NewBlock(best)
            }
            Err(Halt::Blind(reason)) => {
                self.report(ChainState::Blind { reason });
                Pause::Sleep(LONGEST_PAUSE)
            }
            Err(Halt::Fault(fault)) => Pause::Sleep(self.on_fault(&fault)),
        }
    }

    /// Reports the fault and returns the time to wait. bitcoind may come back as another one: what was verified is void.
    fn on_fault(&mut self, fault: &RpcFault) -> Duration {
        self.genesis_verified = false;
        self.best = None;
        let failing_for = self.failing_since.get_or_insert_with(Clock::monotonic).elapsed();
        let reason = fault.advice();
        let needs_somebody = matches!(fault.kind, FaultKind::Pruned | FaultKind::Undecodable);
        let is_blind = needs_somebody || failing_for >= self.blind_after;
        if fault.kind != FaultKind::Stopped {
            let state = if is_blind { ChainState::Blind { reason } } else { ChainState::WaitingForBitcoind { reason } };
            self.report(state);
        }
        let pause = self.pause;
        self.pause = LONGEST_PAUSE.min(pause.saturating_mul(2));
        pause
    }

    fn report(&mut self, state: ChainState) {
        if self.reported.as_ref() != Some(&state) {
            self.reported = Some(state.clone());
            self.listener.state(state);
        }
    }

    fn round(&mut self) -> Result<Round, Halt> {
        let info = self.source.chain_info()?;
        self.check_genesis()?;
        let Some(best) = self.best_header(info.best)? else {
            return Ok(Round::Unsettled);
        };
        let Some((height, hash)) = self.listener.tip() else {
            return self.start(&info);
        };
        if hash == info.best {
            let arrived = self.arrived(&info, &best)?;
            if let Round::Arrived(state @ ChainState::Synced { .. }, _) = &arrived {
                self.report(state.clone());
                if self.look_again(&info)? {
                    return Ok(Round::Moved);
                }
            }
            return Ok(arrived);
        }
        match self.source.header(hash)? {
            Some(ours) if ours.height != height => {
                blind(format!("our block {hash} stands at height {}, not {height}", ours.height))
            }
            Some(ours) if ours.active => self.catch_up(&info, height, hash),
            Some(ours) => self.leave_stale(&best, &ours, hash),
            None => self.leave_unknown(&best, height, hash),
        }
    }

    /// BTC-1: the chain must be our network's from its first block on.
    fn check_genesis(&mut self) -> Result<(), Halt> {
        if self.genesis_verified {
            return Ok(());
        }
        let ours = genesis_block(self.network).block_hash();
        match self.source.block_hash(0)? {
            Some(theirs) if theirs == ours => {
                self.genesis_verified = true;
                Ok(())
            }
            other => blind(format!(
                "bitcoind follows another chain: its first block is {}, that of {} is {ours}; connect to the right bitcoind",
                other.map_or_else(|| "missing".to_owned(), |hash| hash.to_string()),
                self.network
            )),
        }
    }

    fn best_header(&mut self, hash: BlockHash) -> Result<Option<HeaderInfo>, Halt> {
        if let Some((known, header)) = self.best
            && known == hash
        {
            return Ok(Some(header));
        }
        let header = self.source.header(hash)?;
        self.best = header.map(|header| (hash, header));
        Ok(header)
    }

    /// Whether bitcoind still downloads the chain. A regtest chain is as old as its last `generate`.
    fn downloads(&self, info: &ChainInfo) -> bool {
        let ahead = info.headers.saturating_sub(info.blocks) > HEADERS_AHEAD;
        ahead || (info.initial_block_download && self.network != Network::Regtest)
    }

    /// The node's first block. Nothing before it can concern a seed that did not exist; for one that did, the operator says
    /// where to begin.
    fn start(&mut self, info: &ChainInfo) -> Result<Round, Halt> {
        if self.downloads(info) {
            let state = ChainState::Syncing { height: info.blocks, target: info.headers };
            return Ok(Round::Arrived(state, info.best));
        }
        let height = self.start_height.unwrap_or(info.blocks);
        if height > info.blocks {
            return blind(format!(
                "wallet.start_height is {height}, and bitcoind's newest block is {}: give the height of a block that is there",
                info.blocks
            ));
        }
        if let Some(kept) = info.prune_height.filter(|kept| *kept > height) {
            return blind(format!(
                "wallet.start_height is {height}, and bitcoind pruned that block and has blocks from {kept} on: give a height from \
                 there on, or run bitcoind with -reindex and less pruning"
            ));
        }
        let hash = if height == info.blocks { Some(info.best) } else { self.source.block_hash(height)? };
        let Some(hash) = hash else { return Ok(Round::Unsettled) };
        let block = self.verified_block(hash)?;
        self.listener.connected(height, &block);
        Ok(Round::Moved)
    }

    fn arrived(&mut self, info: &ChainInfo, best: &HeaderInfo) -> Result<Round, Halt> {
        self.compare_clocks(best.median_time);
        let age = Clock::now_unix().saturating_sub(best.time);
        if self.downloads(info) {
            let state = ChainState::Syncing { height: info.blocks, target: info.headers };
            return Ok(Round::Arrived(state, info.best));
        }
        if self.network != Network::Regtest && age > STALE_TIP_SECS {
            let reason = format!(
                "the newest block, {} at height {}, is {} minutes old; look at bitcoind's connections",
                info.best,
                best.height,
                age / 60
            );
            return Ok(Round::Arrived(ChainState::Blind { reason }, info.best));
        }
        Ok(Round::Arrived(ChainState::Synced { height: best.height, hash: info.best }, info.best))
    }

    /// Our tip is in the best chain: what stands above it is connected.
    fn catch_up(&mut self, info: &ChainInfo, height: u32, hash: BlockHash) -> Result<Round, Halt> {
        let missing = info.blocks.saturating_sub(height);
        if missing > SHORT_CATCH_UP || !matches!(self.reported, Some(ChainState::Synced { .. })) {
            self.report(ChainState::Syncing { height, target: info.headers });
        }
        let (mut height, mut tip) = (height, hash);
        for _ in 0..missing.min(BLOCKS_AT_ONCE) {
            let Some(next_height) = height.checked_add(1) else {
                return blind("the chain is higher than heights go".to_owned());
            };
            // BTC-6: the oldest block that is still needed is the one above our tip.
            if let Some(kept) = info.prune_height.filter(|kept| *kept > next_height) {
                return blind(format!(
                    "the block at height {next_height} is needed, but bitcoind pruned it and has blocks from {kept} on; \
                     fetch the missing ones with getblockfrompeer, or run bitcoind with -reindex and less pruning"
                ));
            }
            let Some(next) = self.source.block_hash(next_height)? else {
                return Ok(Round::Unsettled);
            };
            let block = self.verified_block(next)?;
            if block.header.prev_blockhash != tip {
                return self.explain_gap(next_height, next, tip);
            }
            self.listener.connected(next_height, &block);
            (height, tip) = (next_height, next);
        }
        if missing == 0 { Ok(Round::Unsettled) } else { Ok(Round::Moved) }
    }

    /// The block above our tip does not build on it: a reorganisation came in between, or bitcoind lies.
    fn explain_gap(&self, height: u32, next: BlockHash, tip: BlockHash) -> Result<Round, Halt> {
        let tip_is_active = self.source.header(tip)?.is_some_and(|header| header.active);
        if tip_is_active && self.source.block_hash(height)? == Some(next) {
            return blind(format!("bitcoind lies: block {next} at height {height} does not build on {tip} below it"));
        }
        Ok(Round::Unsettled)
    }

    /// Our tip is known but no longer in the best chain.
    fn leave_stale(&self, best: &HeaderInfo, ours: &HeaderInfo, hash: BlockHash) -> Result<Round, Halt> {
        // BTC-3, BTC-7: bitcoind never goes to a chain with less work unless somebody made it.
        if best.chainwork < ours.chainwork {
            return self.gone_back(best, ours.height, hash);
        }
        let mut leaving = Vec::new();
        let (mut hash, mut header) = (hash, *ours);
        while !header.active {
            let Some(previous) = header.previous else {
                return blind(format!("bitcoind lies: the first block {hash} is not in its chain"));
            };
            if leaving.len() >= MAX_REORG {
                return blind(format!("bitcoind's chain left ours more than {MAX_REORG} blocks ago; ask other nodes"));
            }
            leaving.push((header.height, hash, previous));
            let Some(below) = self.source.header(previous)? else {
                return Ok(Round::Unsettled);
            };
            (hash, header) = (previous, below);
        }
        self.disconnect(&leaving);
        Ok(Round::Moved)
    }

    /// bitcoind never saw our tip: after a reindex, or with another data directory.
    fn leave_unknown(&self, best: &HeaderInfo, height: u32, hash: BlockHash) -> Result<Round, Halt> {
        if best.height < height {
            return self.gone_back(best, height, hash);
        }
        let mut leaving = Vec::new();
        let mut tip = (height, hash);
        while leaving.len() < MAX_REORG {
            let below = tip.0.checked_sub(1).and_then(|below| Some((below, self.listener.hash_at(below)?)));
            let Some(below) = below else { break };
            leaving.push((tip.0, tip.1, below.1));
            if self.source.header(below.1)?.is_some_and(|header| header.active) {
                self.disconnect(&leaving);
                return Ok(Round::Moved);
            }
            tip = below;
        }
        blind(format!(
            "bitcoind knows neither our block {hash} at height {height} nor one of the {MAX_REORG} before it; \
             connect to the bitcoind that this node was started with"
        ))
    }

    fn gone_back(&self, best: &HeaderInfo, height: u32, hash: BlockHash) -> Result<Round, Halt> {
        blind(format!(
            "bitcoind's chain went back to height {}, below our block {hash} at height {height}; \
             waiting for it to come back",
            best.height
        ))
    }

    fn disconnect(&self, leaving: &[(u32, BlockHash, BlockHash)]) {
        for (height, hash, previous) in leaving {
            self.listener.disconnected(*height, *hash, *previous);
        }
    }

    /// The block, proved to be what was asked for: its hash, its work, its transactions and their witnesses.
    fn verified_block(&self, hash: BlockHash) -> Result<Block, Halt> {
        let block = self.source.block(hash)?;
        let lie = if block.block_hash() != hash {
            "has another hash"
        } else if block.header.validate_pow(block.header.target()).is_err() {
            "has not the work that it claims"
        } else if !block.check_merkle_root() {
            "does not hold the transactions that its header names"
        } else if !block.check_witness_commitment() {
            "does not hold the witnesses that it commits to"
        } else {
            return Ok(block);
        };
        blind(format!("bitcoind lies: the block that it gave for {hash} {lie}; do not trust this bitcoind"))
    }
}
