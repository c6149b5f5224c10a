//! The wallet that a start finds beside a channel in the making.

use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, WScriptHash};
use outrigger_bolt::amount::{FeeratePerKw, Sat};

use super::*;
use crate::store::row::{BroadcastRow, OperationRow};

/// A funding transaction of a wallet with one coin, and the wallet's row.
fn funded(seed: &Seed) -> (Transaction, Vec<u8>) {
    let mut wallet = Wallet::load(seed, Network::Regtest, &[]).unwrap();
    let genesis = genesis_block(Network::Regtest);
    wallet.connected(0, &genesis).unwrap();
    let script_pubkey = wallet.new_address().unwrap().script_pubkey();
    let payment = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: OutPoint::new(Txid::from_byte_array([9; 32]), 0), ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(50_000), script_pubkey }],
    };
    let mut block = Block { header: genesis.header, txdata: vec![payment] };
    block.header.prev_blockhash = genesis.block_hash();
    wallet.connected(1, &block).unwrap();
    let script = ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([3; 32]));
    let (tx, _) = wallet.fund(script, Sat::new(20_000), FeeratePerKw::new(1000), Sat::ZERO).unwrap();
    (tx, wallet.take_staged().unwrap())
}

/// Were it stored that it was seen, a crash behind the refusal of its channel would leave it without a row: a reorganisation would
/// publish it.
#[test]
fn per_5_a_start_keeps_the_coins_of_a_funding_transaction_that_has_not_left_and_stores_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let seed = Seed::create(dir.path(), || Ok([1; 32])).unwrap();
    let (tx, row) = funded(&seed);
    let channel = ChannelId([1; 32]);
    let started = |opened: Option<ChannelId>| {
        let opening = |channel| OperationRow {
            idempotency_key: "retry-1".to_owned(),
            op_id: [1; 16],
            body: [2; 32],
            state: OperationState::Pending { channel_id: channel, funding_txid: tx.compute_txid() },
        };
        let file = Snapshot {
            wallet: vec![(6, row.clone())],
            broadcasts: vec![BroadcastRow { channel, what: Publication::Funding, tx: tx.clone() }],
            openings: opened.map(opening).into_iter().collect(),
            ..Snapshot::default()
        };
        let (wallet, next_row) = load_wallet(&seed, Network::Regtest, &file, false).unwrap();
        assert_eq!(next_row, 7);
        wallet
    };
    let mut wallet = started(Some(channel));
    let balance = wallet.balance();
    assert_eq!((balance.locked.get(), balance.confirmed.get(), balance.unconfirmed.get()), (50_000, 0, 0));
    assert!(wallet.unconfirmed().is_empty() && !wallet.counts_unconfirmed(tx.compute_txid()));
    // One that has left, and one of another channel, is seen again.
    for opened in [None, Some(ChannelId([2; 32]))] {
        let mut wallet = started(opened);
        assert_eq!((wallet.balance().locked, wallet.unconfirmed()), (Sat::ZERO, vec![tx.clone()]));
    }
}
