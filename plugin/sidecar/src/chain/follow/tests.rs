//! The follower against a scripted bitcoind: no threads, no sleeping.

use std::collections::{HashMap, VecDeque};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness};
use parking_lot::Mutex;

use super::clocks::clock_trouble;
use super::*;
use crate::chain::PackageAnswer;

/// bitcoind as a tree of blocks and a best one among them.
struct Scripted {
    state: Mutex<Script>,
}

struct Script {
    blocks: HashMap<BlockHash, (u32, Block)>,
    genesis: BlockHash,
    best: BlockHash,
    initial_block_download: bool,
    headers_ahead: u32,
    faults: VecDeque<FaultKind>,
    /// How many calls succeed before one that times out.
    calls_before_timeout: Option<u32>,
    /// Given in place of the block with this hash.
    forged: HashMap<BlockHash, Block>,
    pruned: bool,
    /// The block with this hash cannot be read.
    undecodable: Option<BlockHash>,
    prune_height: Option<u32>,
    asked_blocks: usize,
}

impl Script {
    fn best_chain(&self) -> Vec<BlockHash> {
        let mut chain = Vec::new();
        let mut hash = self.best;
        while let Some((height, block)) = self.blocks.get(&hash) {
            chain.push(hash);
            if *height == 0 {
                break;
            }
            hash = block.header.prev_blockhash;
        }
        chain.reverse();
        chain
    }

    fn mine_on(&mut self, parent: BlockHash, tag: u8) -> BlockHash {
        let (height, parent_block) = &self.blocks[&parent];
        let height = height + 1;
        let block = child_of(parent_block, height, tag);
        let hash = block.block_hash();
        self.blocks.insert(hash, (height, block));
        hash
    }

    /// Mines `count` blocks on `parent` and makes the last one best.
    fn extend(&mut self, parent: BlockHash, count: u32, tag: u8) -> BlockHash {
        self.best = (0..count).fold(parent, |tip, _| self.mine_on(tip, tag));
        self.best
    }
}

fn child_of(parent: &Block, height: u32, tag: u8) -> Block {
    let coinbase = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::builder().push_int(i64::from(height)).push_slice([tag]).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(5000), script_pubkey: ScriptBuf::new() }],
    };
    let mut block = Block { header: parent.header, txdata: vec![coinbase] };
    block.header.prev_blockhash = parent.block_hash();
    block.header.time += 600;
    block.header.merkle_root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

impl Scripted {
    fn new(network: Network) -> Arc<Self> {
        let genesis = genesis_block(network);
        let hash = genesis.block_hash();
        let script = Script {
            blocks: HashMap::from([(hash, (0, genesis))]),
            genesis: hash,
            best: hash,
            initial_block_download: false,
            headers_ahead: 0,
            faults: VecDeque::new(),
            calls_before_timeout: None,
            forged: HashMap::new(),
            pruned: false,
            undecodable: None,
            prune_height: None,
            asked_blocks: 0,
        };
        Arc::new(Self { state: Mutex::new(script) })
    }

    fn script<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        change(&mut self.state.lock())
    }

    fn answer<R>(&self, give: impl FnOnce(&mut Script) -> R) -> Result<R, RpcFault> {
        let mut script = self.state.lock();
        let timeout = script.calls_before_timeout == Some(0);
        script.calls_before_timeout = script.calls_before_timeout.and_then(|calls| calls.checked_sub(1));
        if timeout {
            script.faults.push_front(FaultKind::Timeout);
        }
        match script.faults.pop_front() {
            Some(kind) => Err(RpcFault::new(kind, "scripted")),
            None => Ok(give(&mut script)),
        }
    }
}

impl ChainSource for Scripted {
    fn chain_info(&self) -> Result<ChainInfo, RpcFault> {
        self.answer(|script| {
            let blocks = script.blocks[&script.best].0;
            ChainInfo {
                blocks,
                headers: blocks + script.headers_ahead,
                best: script.best,
                initial_block_download: script.initial_block_download,
                prune_height: script.prune_height,
            }
        })
    }

    fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, RpcFault> {
        self.answer(|script| script.best_chain().get(height as usize).copied())
    }

    fn header(&self, hash: BlockHash) -> Result<Option<HeaderInfo>, RpcFault> {
        self.answer(|script| {
            let (height, block) = script.blocks.get(&hash)?;
            let mut chainwork = [0; 32];
            chainwork[28..].copy_from_slice(&height.to_be_bytes());
            Some(HeaderInfo {
                height: *height,
                previous: (*height > 0).then_some(block.header.prev_blockhash),
                active: script.best_chain().contains(&hash),
                chainwork,
                time: u64::from(block.header.time),
                median_time: u64::from(block.header.time),
            })
        })
    }

    fn block(&self, hash: BlockHash) -> Result<Block, RpcFault> {
        self.answer(|script| {
            script.asked_blocks += 1;
            if script.pruned {
                return Err(RpcFault::new(FaultKind::Pruned, "Block not available (pruned data)"));
            }
            if script.undecodable == Some(hash) {
                return Err(RpcFault::new(FaultKind::Undecodable, format_args!("block {hash}: huge witness")));
            }
            Ok(script.forged.get(&hash).cloned().unwrap_or_else(|| script.blocks[&hash].1.clone()))
        })?
    }

    fn wait_for_new_block(&self, _: BlockHash, _: Duration, _: &StopFlag) -> Result<(), RpcFault> {
        self.answer(|_| ())
    }

    fn submit_package(&self, _: &[Transaction]) -> Result<PackageAnswer, RpcFault> {
        unreachable!("the follower publishes nothing")
    }
    fn mempool_spender(&self, _: OutPoint) -> Result<Option<Txid>, RpcFault> {
        unreachable!("the follower publishes nothing")
    }
    fn mempool_transaction(&self, _: Txid) -> Result<Option<Transaction>, RpcFault> {
        unreachable!("the follower publishes nothing")
    }
    fn broadcast(&self, tx: &Transaction) -> Result<Txid, RpcFault> {
        Ok(tx.compute_txid())
    }

    fn estimate_fee(&self, _: u16) -> Result<Option<u64>, RpcFault> {
        Ok(None)
    }

    fn mempool_min_fee(&self) -> Result<u64, RpcFault> {
        Ok(1000)
    }
}

/// Keeps the chain as a listener must, and checks the order of the calls.
#[derive(Default)]
struct Recorder {
    chain: Mutex<Vec<(u32, BlockHash)>>,
    states: Mutex<Vec<ChainState>>,
    disconnects: Mutex<u32>,
    /// The block that is to be seen again next, and those that were.
    wanted: Mutex<Option<u32>>,
    again: Mutex<Vec<(u32, BlockHash)>>,
    /// What was said of blocks that are no more.
    kept: Mutex<Vec<Option<u32>>>,
}

impl BlockListener for Recorder {
    fn tip(&self) -> Option<(u32, BlockHash)> {
        self.chain.lock().last().copied()
    }

    fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.chain.lock().iter().find(|(at, _)| *at == height).map(|(_, hash)| *hash)
    }

    fn connected(&self, height: u32, block: &Block) {
        let mut chain = self.chain.lock();
        if let Some((tip_height, tip)) = chain.last() {
            assert_eq!((height, block.header.prev_blockhash), (tip_height + 1, *tip));
        }
        chain.push((height, block.block_hash()));
    }

    fn disconnected(&self, height: u32, hash: BlockHash, previous: BlockHash) {
        let mut chain = self.chain.lock();
        assert_eq!(chain.pop(), Some((height, hash)));
        assert_eq!(chain.last(), Some(&(height - 1, previous)));
        *self.disconnects.lock() += 1;
    }

    fn wants_again(&self) -> Option<u32> {
        let (tip, _) = self.tip()?;
        self.wanted.lock().take_if(|wanted| *wanted > tip);
        *self.wanted.lock()
    }

    fn again(&self, height: u32, block: &Block) {
        self.again.lock().push((height, block.block_hash()));
        *self.wanted.lock() = Some(height + 1);
    }

    fn pruned(&self, kept: Option<u32>) {
        self.kept.lock().push(kept);
        *self.wanted.lock() = None;
    }

    fn state(&self, state: ChainState) {
        self.states.lock().push(state);
    }
}

impl Recorder {
    fn last_state(&self) -> ChainState {
        self.states.lock().last().cloned().unwrap()
    }

    fn blind_reason(&self) -> String {
        match self.last_state() {
            ChainState::Blind { reason } => reason,
            other => panic!("not blind but {other:?}"),
        }
    }
}

/// A follower that has seen `blocks` blocks of a regtest chain from the first on.
fn following(blocks: u32) -> (Arc<Scripted>, Arc<Recorder>, Follower) {
    let source = Scripted::new(Network::Regtest);
    let recorder = Arc::new(Recorder::default());
    let mut follower = Follower::new(source.clone(), recorder.clone(), Network::Regtest);
    settle(&mut follower);
    source.script(|script| script.extend(script.genesis, blocks, 0));
    settle(&mut follower);
    assert_eq!(recorder.tip(), Some((blocks, source.script(|script| script.best))));
    (source, recorder, follower)
}

/// Steps until there is something to wait for.
fn settle(follower: &mut Follower) -> Pause {
    for _ in 0..50 {
        let pause = follower.step();
        if pause != Pause::No {
            return pause;
        }
    }
    panic!("the follower does not come to rest");
}

fn synced(source: &Scripted) -> ChainState {
    source.script(|script| ChainState::Synced { height: script.blocks[&script.best].0, hash: script.best })
}

#[test]
fn the_first_start_takes_the_tip_alone() {
    let source = Scripted::new(Network::Regtest);
    source.script(|script| script.extend(script.genesis, 30, 0));
    let recorder = Arc::new(Recorder::default());
    let mut follower = Follower::new(source.clone(), recorder.clone(), Network::Regtest);
    settle(&mut follower);
    assert_eq!(recorder.chain.lock().as_slice(), [(30, source.script(|script| script.best))]);
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn a_first_start_begins_where_the_operator_says() {
    let source = Scripted::new(Network::Regtest);
    source.script(|script| script.extend(script.genesis, 30, 0));
    let begun_at = |height| {
        let recorder = Arc::new(Recorder::default());
        let follower = Follower::new(source.clone(), recorder.clone(), Network::Regtest);
        settle(&mut follower.starting_at(Some(height)));
        recorder
    };
    for (height, blocks) in [(1, 30), (28, 3), (30, 1)] {
        let recorder = begun_at(height);
        let seen: Vec<_> = recorder.chain.lock().iter().map(|(height, _)| *height).collect();
        assert_eq!((seen.first(), seen.len()), (Some(&height), blocks));
        assert_eq!(recorder.last_state(), synced(&source));
    }
    let reason = begun_at(31).blind_reason();
    assert!(reason.contains("wallet.start_height is 31, and bitcoind's newest block is 30"), "{reason}");
    source.script(|script| script.prune_height = Some(20));
    let reason = begun_at(19).blind_reason();
    assert!(reason.contains("wallet.start_height is 19") && reason.contains("from 20 on"), "{reason}");
    assert_eq!(begun_at(20).chain.lock().len(), 11);
}

#[test]
fn older_blocks_that_are_wanted_are_seen_up_to_the_tip_and_no_new_one_waits_for_them() {
    let (source, recorder, mut follower) = following(60);
    *recorder.wanted.lock() = Some(5);
    assert_eq!(follower.step(), Pause::No);
    let seen = recorder.again.lock().len();
    assert!((1..56).contains(&seen), "{seen} were seen between two looks at the tip");
    source.script(|script| script.extend(script.best, 1, 0));
    settle(&mut follower);
    let chain = source.script(|script| script.best_chain());
    let expected: Vec<_> = (5..=61).zip(chain[5..].iter().copied()).collect();
    assert_eq!(*recorder.again.lock(), expected);
    assert_eq!(recorder.last_state(), synced(&source));
    let new = recorder.chain.lock().len();
    assert_eq!(new, 62);
}

#[test]
fn an_older_block_that_was_pruned_is_told_of_and_stops_nothing() {
    let (source, recorder, mut follower) = following(30);
    source.script(|script| script.prune_height = Some(20));
    *recorder.wanted.lock() = Some(19);
    settle(&mut follower);
    assert_eq!((&*recorder.kept.lock(), recorder.again.lock().len()), (&vec![Some(20)], 0));
    assert_eq!(recorder.last_state(), synced(&source));
    // bitcoind may delete a block that it still had when it was asked.
    source.script(|script| (script.prune_height, script.pruned) = (None, true));
    *recorder.wanted.lock() = Some(19);
    settle(&mut follower);
    assert_eq!((recorder.kept.lock().last(), recorder.again.lock().len()), (Some(&None), 0));
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn btc_5_blocks_mined_while_away_are_all_seen() {
    let (source, recorder, mut follower) = following(3);
    source.script(|script| script.extend(script.best, 250, 0));
    settle(&mut follower);
    assert_eq!(recorder.chain.lock().len(), 254);
    assert!(recorder.states.lock().contains(&ChainState::Syncing { height: 3, target: 253 }));
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn reo_5_a_reorg_of_several_blocks_equals_a_fresh_walk() {
    let (source, recorder, mut follower) = following(10);
    let fork = source.script(|script| script.best_chain()[6]);
    source.script(|script| script.extend(fork, 7, 1));
    settle(&mut follower);
    assert_eq!(*recorder.disconnects.lock(), 4);
    let walked: Vec<_> = recorder.chain.lock().iter().map(|(_, hash)| *hash).collect();
    assert_eq!(walked, source.script(|script| script.best_chain()));
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn btc_4_bitcoind_goes_away_and_comes_back_with_a_new_cookie() {
    let (source, recorder, mut follower) = following(2);
    source.script(|script| {
        script.extend(script.best, 1, 0);
        script.faults =
            [FaultKind::Unreachable, FaultKind::NoCookie, FaultKind::Unauthorized, FaultKind::WarmingUp].into();
    });
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let Pause::Sleep(time) = follower.step() else { panic!("a fault is waited for") };
        assert!(matches!(recorder.last_state(), ChainState::WaitingForBitcoind { .. }));
        pauses.push(time);
    }
    assert!(pauses.is_sorted() && pauses[0] < pauses[3], "{pauses:?}");
    assert!(!follower.genesis_verified, "another bitcoind may have come back");
    settle(&mut follower);
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn a_fault_at_any_call_loses_nothing() {
    for calls_before in 0..40 {
        let (source, recorder, mut follower) = following(10);
        let fork = source.script(|script| script.best_chain()[7]);
        source.script(|script| script.extend(fork, 5, 1));
        source.script(|script| script.calls_before_timeout = Some(calls_before));
        settle(&mut follower);
        settle(&mut follower);
        let walked: Vec<_> = recorder.chain.lock().iter().map(|(_, hash)| *hash).collect();
        assert_eq!(walked, source.script(|script| script.best_chain()));
    }
}

#[test]
fn btc_4_bad_input_99_a_long_silence_is_blindness() {
    let (source, recorder, mut follower) = following(2);
    follower.blind_after = Duration::ZERO;
    source.script(|script| script.faults.push_back(FaultKind::Unreachable));
    follower.step();
    assert!(recorder.blind_reason().contains("start bitcoind"));
    settle(&mut follower);
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn btc_3_a_tip_that_goes_backwards_freezes_until_it_returns() {
    let (source, recorder, mut follower) = following(20);
    let tip = source.script(|script| {
        let seventh = script.best_chain()[7];
        std::mem::replace(&mut script.best, seventh)
    });
    assert!(matches!(settle(&mut follower), Pause::Sleep(_)));
    assert!(recorder.blind_reason().contains("went back to height 7"));
    assert_eq!(recorder.tip(), Some((20, tip)), "nothing was disconnected");
    source.script(|script| script.best = tip);
    settle(&mut follower);
    assert_eq!(recorder.last_state(), synced(&source));
    assert_eq!(*recorder.disconnects.lock(), 0);
}

#[test]
fn btc_3_a_restored_data_directory_freezes_until_our_tip_is_known_again() {
    let (source, recorder, mut follower) = following(20);
    let (tip, forgotten) = source.script(|script| {
        let chain = script.best_chain();
        let forgotten: Vec<_> = chain[8..].iter().map(|hash| script.blocks.remove_entry(hash).unwrap()).collect();
        (std::mem::replace(&mut script.best, chain[7]), forgotten)
    });
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("went back"));
    source.script(|script| {
        script.blocks.extend(forgotten);
        script.best = tip;
    });
    settle(&mut follower);
    assert_eq!(recorder.last_state(), synced(&source));
    assert_eq!(*recorder.disconnects.lock(), 0);
}

#[test]
fn bad_input_97_an_unknown_tip_is_left_by_our_own_records() {
    let (source, recorder, mut follower) = following(20);
    source.script(|script| {
        let chain = script.best_chain();
        for hash in &chain[18..] {
            script.blocks.remove(hash);
        }
        script.extend(chain[17], 4, 1);
    });
    settle(&mut follower);
    assert_eq!(*recorder.disconnects.lock(), 3);
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn bad_input_97_an_unknown_tip_without_a_near_fork_is_another_chain() {
    let (source, recorder, mut follower) = following(5);
    recorder.chain.lock().retain(|(height, _)| *height == 5);
    source.script(|script| {
        let tip = script.best;
        script.extend(script.genesis, 9, 1);
        script.blocks.remove(&tip);
    });
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("knows neither our block"));
    assert_eq!(*recorder.disconnects.lock(), 0);
}

#[test]
fn bad_input_97_a_reorg_of_more_than_a_hundred_blocks_is_not_followed() {
    let (source, recorder, mut follower) = following(101);
    source.script(|script| script.extend(script.genesis, 102, 1));
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("more than 100 blocks"));
    assert_eq!(*recorder.disconnects.lock(), 0);
}

#[test]
fn btc_1_another_genesis_is_another_chain() {
    let source = Scripted::new(Network::Signet);
    let recorder = Arc::new(Recorder::default());
    let mut follower = Follower::new(source, recorder.clone(), Network::Regtest);
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("another chain"));
    assert_eq!(recorder.tip(), None);
}

#[test]
fn btc_2_btc_7_bad_input_98_initial_download_headers_ahead_and_an_old_tip_are_not_synced() {
    let source = Scripted::new(Network::Signet);
    let recorder = Arc::new(Recorder::default());
    let mut follower = Follower::new(source.clone(), recorder.clone(), Network::Signet);
    source.script(|script| script.initial_block_download = true);
    settle(&mut follower);
    assert_eq!(recorder.last_state(), ChainState::Syncing { height: 0, target: 0 });
    assert_eq!(recorder.tip(), None, "a birthday in the middle of a download would miss payments");
    source.script(|script| {
        script.initial_block_download = false;
        script.headers_ahead = HEADERS_AHEAD + 1;
    });
    settle(&mut follower);
    assert_eq!(recorder.last_state(), ChainState::Syncing { height: 0, target: 3 });
    source.script(|script| script.headers_ahead = HEADERS_AHEAD);
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("minutes old"));
    assert_eq!(recorder.tip().unwrap().0, 0);
}

#[test]
fn bad_input_100_a_forged_block_is_never_connected() {
    type Forgery = fn(&mut Block);
    let forgeries: [(&str, Forgery); 3] = [
        ("another hash", |block| block.header.time += 1),
        ("transactions", |block| block.txdata[0].output[0].value = Amount::from_sat(1)),
        ("witnesses", |block| block.txdata[0].input[0].witness = Witness::from_slice(&[[0; 32]])),
    ];
    for (reason, forge) in forgeries {
        let (source, recorder, mut follower) = following(3);
        source.script(|script| {
            let next = script.extend(script.best, 1, 0);
            let mut forged = script.blocks[&next].1.clone();
            forge(&mut forged);
            script.forged.insert(next, forged);
        });
        settle(&mut follower);
        assert!(recorder.blind_reason().contains(reason), "{}", recorder.blind_reason());
        assert_eq!(recorder.tip().unwrap().0, 3);
        source.script(|script| script.forged.clear());
        settle(&mut follower);
        assert_eq!(recorder.last_state(), synced(&source));
    }
}

#[test]
fn bad_input_100_a_block_without_its_work_is_never_connected() {
    let (source, recorder, mut follower) = following(3);
    source.script(|script| {
        let next = script.mine_on(script.best, 0);
        let (height, mut block) = script.blocks[&next].clone();
        while block.header.validate_pow(block.header.target()).is_ok() {
            block.header.nonce += 1;
        }
        script.best = block.block_hash();
        script.blocks.insert(script.best, (height, block));
    });
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("work"));
    assert_eq!(recorder.tip().unwrap().0, 3);
}

#[test]
fn btc_6_bad_input_101_a_pruned_block_names_the_remedy() {
    let (source, recorder, mut follower) = following(3);
    source.script(|script| {
        script.extend(script.best, 1, 0);
        script.pruned = true;
    });
    settle(&mut follower);
    assert!(recorder.blind_reason().contains("getblockfrompeer"));
    let asked = source.script(|script| {
        script.prune_height = Some(5);
        script.asked_blocks
    });
    settle(&mut follower);
    let reason = recorder.blind_reason();
    assert!(reason.contains("height 4") && reason.contains("from 5 on"), "{reason}");
    assert_eq!(source.script(|script| script.asked_blocks), asked, "known without asking");
    source.script(|script| {
        script.pruned = false;
        script.prune_height = Some(4);
    });
    settle(&mut follower);
    assert_eq!(recorder.last_state(), synced(&source));
}

#[test]
fn a_tip_that_stands_still_fetches_no_block() {
    let (source, _, mut follower) = following(3);
    let before = source.script(|script| script.asked_blocks);
    for _ in 0..20 {
        assert!(matches!(follower.step(), Pause::NewBlock(_)));
    }
    assert_eq!(source.script(|script| script.asked_blocks), before);
}

#[test]
fn clk_2_a_clock_that_is_two_hours_off_is_told() {
    const MEDIAN: u64 = 1_700_000_000;
    let trouble = |wall, network| clock_trouble(wall, MEDIAN, network).is_some();
    for network in [Network::Signet, Network::Regtest] {
        for (wall, is_behind) in [(0, true), (MEDIAN - 7201, true), (MEDIAN - 7200, false), (MEDIAN + 7200, false)] {
            assert_eq!(trouble(wall, network), is_behind, "{wall} on {network}");
        }
    }
    // 2100.
    assert!(trouble(4_102_444_800, Network::Signet));
    assert!(!trouble(4_102_444_800, Network::Regtest), "a regtest chain says nothing of the time");
}

/// CVE-2022-39389: a node that went on without such a block saw nothing of what followed.
#[test]
fn prs_7_a_block_that_cannot_be_read_blinds_at_once_and_is_never_skipped() {
    let (source, recorder, mut follower) = following(5);
    let tip = recorder.tip();
    let unreadable = source.script(|script| script.extend(script.best, 1, 0));
    source.script(|script| {
        script.undecodable = Some(unreadable);
        // The blocks above it could be read well.
        script.extend(unreadable, 3, 0)
    });
    for _ in 0..5 {
        settle(&mut follower);
        let reason = recorder.blind_reason();
        assert!(reason.contains(&unreadable.to_string()) && reason.contains("newer outriggerd"), "{reason}");
        assert_eq!(recorder.tip(), tip, "nothing above it is connected");
    }
    source.script(|script| script.undecodable = None);
    settle(&mut follower);
    assert_eq!(recorder.last_state(), synced(&source));
    assert_eq!(recorder.tip().map(|(height, _)| height), Some(9), "every block was connected, in its order");
}
