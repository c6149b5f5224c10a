//! The wallet on blocks made by hand.

use bdk_wallet::LocalOutput;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut, Witness};
use outrigger_bolt::amount::FeeratePerKw;
use rand::{Rng, SeedableRng};

use super::*;

const FEERATE: FeeratePerKw = FeeratePerKw::new(1000);

fn seed(byte: u8) -> Seed {
    let dir = tempfile::tempdir().unwrap();
    Seed::create(dir.path(), || Ok([byte; 32])).unwrap()
}

/// A wallet, the chain it sees and the rows that it wrote.
struct Bench {
    wallet: Wallet,
    blocks: Vec<Block>,
    rows: Vec<Vec<u8>>,
    coins: u32,
}

impl Bench {
    fn new() -> Self {
        let wallet = Wallet::load(&seed(1), Network::Regtest, &[]).unwrap();
        let mut bench = Self { wallet, blocks: vec![genesis_block(Network::Regtest)], rows: Vec::new(), coins: 0 };
        bench.wallet.connected(0, &bench.blocks[0].clone()).unwrap();
        bench
    }

    fn block(&self, txdata: Vec<Transaction>) -> Block {
        let mut block = Block { header: self.blocks.last().unwrap().header, txdata };
        block.header.prev_blockhash = self.blocks.last().unwrap().block_hash();
        block.header.time += 1;
        block.header.merkle_root = block.compute_merkle_root().unwrap_or(TxMerkleNode::all_zeros());
        block
    }

    fn mine(&mut self, txdata: Vec<Transaction>) {
        let block = self.block(txdata);
        self.wallet.connected(self.blocks.len() as u32, &block).unwrap();
        self.blocks.push(block);
    }

    fn undo(&mut self) {
        let gone = self.blocks.pop().unwrap();
        let height = self.blocks.len() as u32;
        self.wallet.disconnected(height, gone.block_hash(), gone.header.prev_blockhash).unwrap();
    }

    /// A stranger's payment to the wallet.
    fn payment(&mut self, sat: u64) -> Transaction {
        self.coins += 1;
        let script_pubkey = self.wallet.new_address().unwrap().script_pubkey();
        let previous_output = OutPoint::new(Txid::from_byte_array([9; 32]), self.coins);
        let input = TxIn { previous_output, sequence: Sequence::MAX, ..TxIn::default() };
        let output = TxOut { value: Amount::from_sat(sat), script_pubkey };
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
    }

    fn receive(&mut self, sat: u64) {
        let tx = self.payment(sat);
        self.mine(vec![tx]);
    }

    fn commit(&mut self) {
        self.rows.extend(self.wallet.take_staged());
    }

    /// What a crash after the last commit leaves.
    fn reload(&mut self) {
        self.wallet = Wallet::load(&seed(1), Network::Regtest, &self.rows).unwrap();
    }

    fn fund(&mut self, sat: u64) -> Result<(Transaction, u32), WalletFault> {
        self.wallet.fund(target(), Sat::new(sat), FEERATE, Sat::ZERO)
    }

    fn confirmed(&mut self) -> u64 {
        self.wallet.balance().confirmed.get()
    }
}

fn target() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([3; 32]))
}

#[test]
fn an_address_waits_for_the_first_block() {
    let mut wallet = Wallet::load(&seed(1), Network::Regtest, &[]).unwrap();
    assert_eq!(wallet.new_address().unwrap_err(), WalletFault::NotStarted);
    assert_eq!(wallet.fund(target(), Sat::new(1000), FEERATE, Sat::ZERO).unwrap_err(), WalletFault::NotStarted);
    assert_eq!(wallet.tip(), None);
}

#[test]
fn the_first_block_may_have_any_height_and_is_remembered() {
    let mut wallet = Wallet::load(&seed(1), Network::Regtest, &[]).unwrap();
    let mut rows = vec![wallet.take_staged().unwrap()];
    let block = Bench::new().block(Vec::new());
    wallet.connected(700, &block).unwrap();
    rows.extend(wallet.take_staged());
    assert!(wallet.take_staged().is_none());
    let again = Wallet::load(&seed(1), Network::Regtest, &rows).unwrap();
    assert_eq!(again.tip(), Some((700, block.block_hash())));
    assert_eq!(again.hash_at(700), Some(block.block_hash()));
}

#[test]
fn a_start_at_the_genesis_block_is_remembered_too() {
    let mut bench = Bench::new();
    bench.commit();
    bench.reload();
    assert_eq!(bench.wallet.tip(), Some((0, bench.blocks[0].block_hash())));
}

#[test]
fn coins_addresses_and_tip_survive_a_restart() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let given = bench.wallet.new_address().unwrap();
    bench.commit();
    bench.receive(7_000);
    bench.commit();
    let (tip, balance) = (bench.wallet.tip(), bench.wallet.balance());
    bench.reload();
    assert_eq!((bench.wallet.tip(), bench.wallet.balance()), (tip, balance));
    assert_eq!(bench.confirmed(), 57_000);
    assert_ne!(bench.wallet.new_address().unwrap(), given);
    let compacted = bench.wallet.take_compacted().unwrap();
    bench.rows = vec![compacted];
    bench.reload();
    assert_eq!((bench.wallet.tip(), bench.wallet.balance()), (tip, balance));
    assert!(bench.wallet.take_compacted().is_none());
}

#[test]
fn fnd_5_a_funding_transaction_is_segwit_signed_and_exact() {
    let mut bench = Bench::new();
    bench.receive(30_000);
    bench.receive(40_000);
    let (tx, index) = bench.fund(60_000).unwrap();
    let output = &tx.output[index as usize];
    assert_eq!((output.value, &output.script_pubkey), (Amount::from_sat(60_000), &target()));
    assert_eq!(tx.input.len(), 2);
    assert!(tx.input.iter().all(|input| input.script_sig.is_empty() && input.witness.len() == 2));
    let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
    let fee = 70_000 - paid;
    let least = FEERATE.fee(tx.weight().to_wu()).get();
    assert!((least..=least + 10).contains(&fee), "{fee} for {least}");
    let mut naked = tx.clone();
    naked.input[1].witness = Witness::new();
    assert!(check_segwit(&naked).is_err());
    let mut legacy = tx;
    legacy.input[0].script_sig = ScriptBuf::from_bytes(vec![0]);
    assert!(check_segwit(&legacy).is_err());
}

#[test]
fn fnd_13_inputs_are_locked_until_released() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let (tx, _) = bench.fund(20_000).unwrap();
    let balance = bench.wallet.balance();
    assert_eq!((balance.confirmed.get(), balance.locked.get()), (0, 50_000));
    assert!(matches!(bench.fund(20_000), Err(WalletFault::InsufficientFunds { .. })));
    bench.wallet.release(tx.compute_txid());
    assert_eq!(bench.confirmed(), 50_000);
    bench.fund(20_000).unwrap();
}

#[test]
fn fnd_13_a_restart_frees_the_inputs_of_what_was_never_stored() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.fund(20_000).unwrap();
    bench.commit();
    bench.reload();
    assert_eq!(bench.confirmed(), 50_000);
    bench.fund(20_000).unwrap();
}

/// Its row outlives the start and the wallet's knows nothing of it: where that is dropped, no release has to be stored.
#[test]
fn fnd_13_a_start_locks_the_coins_of_what_was_stored_and_has_not_left_and_stores_nothing() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let (tx, _) = bench.fund(20_000).unwrap();
    bench.commit();
    bench.reload();
    bench.wallet.keep_coins_of(&tx);
    let balance = bench.wallet.balance();
    assert_eq!((balance.confirmed.get(), balance.unconfirmed.get(), balance.locked.get()), (0, 0, 50_000));
    let fault = bench.fund(10_000).unwrap_err();
    let has_nothing = matches!(fault, WalletFault::InsufficientFunds { available, .. } if available == Sat::ZERO);
    assert!(has_nothing, "its change is no coin: {fault}");
    assert!(bench.wallet.unconfirmed().is_empty(), "no reorganisation publishes it");
    bench.wallet.release(tx.compute_txid());
    assert!(bench.wallet.take_staged().is_none());
    assert_eq!(bench.confirmed(), 50_000);
    // One that leaves in the end is seen like any other.
    bench.wallet.keep_coins_of(&tx);
    bench.wallet.saw_unconfirmed(&tx);
    let balance = bench.wallet.balance();
    assert_eq!((balance.confirmed, balance.locked), (Sat::ZERO, Sat::ZERO));
    assert_eq!(bench.wallet.unconfirmed(), [tx]);
}

#[test]
fn a_published_transaction_spends_and_gives_change_and_can_be_released() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let (tx, index) = bench.fund(20_000).unwrap();
    bench.wallet.saw_unconfirmed(&tx);
    let change = tx.output[1 - index as usize].value.to_sat();
    let balance = bench.wallet.balance();
    assert_eq!((balance.confirmed.get(), balance.unconfirmed.get(), balance.locked.get()), (0, change, 0));
    bench.commit();
    bench.reload();
    assert_eq!(bench.wallet.balance(), balance, "a published transaction survives a restart");
    bench.wallet.release(tx.compute_txid());
    assert_eq!(bench.confirmed(), 50_000);
    bench.commit();
    bench.reload();
    assert_eq!(bench.confirmed(), 50_000);
}

#[test]
fn our_change_funds_before_it_confirms() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let (tx, _) = bench.fund(20_000).unwrap();
    bench.wallet.saw_unconfirmed(&tx);
    let (next, _) = bench.fund(10_000).unwrap();
    assert_eq!(next.input[0].previous_output.txid, tx.compute_txid());
}

#[test]
fn fnd_11_a_strangers_unconfirmed_coin_funds_nothing() {
    let mut bench = Bench::new();
    let payment = bench.payment(50_000);
    bench.wallet.saw_unconfirmed(&payment);
    assert_eq!(bench.wallet.balance().unconfirmed.get(), 50_000);
    let fault = bench.fund(20_000).unwrap_err();
    assert!(matches!(fault, WalletFault::InsufficientFunds { available, .. } if available == Sat::ZERO), "{fault}");
    bench.mine(vec![payment]);
    bench.fund(20_000).unwrap();
}

/// A reorganisation takes back a stranger's payment, with two transactions of ours that stand on it one behind the other.
#[test]
fn fnd_11_the_change_of_change_of_a_coin_that_may_be_taken_back_funds_nothing() {
    let mut bench = Bench::new();
    bench.receive(90_000);
    for sat in [20_000, 10_000] {
        let (tx, _) = bench.fund(sat).unwrap();
        bench.wallet.saw_unconfirmed(&tx);
        bench.mine(vec![tx]);
    }
    bench.undo();
    bench.undo();
    // The payment stands, so nobody but us can undo what was made of it.
    let (tx, _) = bench.fund(5_000).unwrap();
    bench.wallet.release(tx.compute_txid());
    bench.undo();
    let fault = bench.fund(5_000).unwrap_err();
    assert!(matches!(fault, WalletFault::InsufficientFunds { available, .. } if available == Sat::ZERO), "{fault}");
}

/// Own change in a chain that no mempool takes one more of funds nothing either.
#[test]
fn fnd_11_change_at_the_end_of_a_long_chain_funds_nothing_before_a_block_holds_some_of_it() {
    let mut bench = Bench::new();
    bench.receive(900_000);
    let mut made = Vec::new();
    let fault = loop {
        match bench.fund(20_000) {
            Ok((tx, _)) => {
                bench.wallet.saw_unconfirmed(&tx);
                made.push(tx);
            }
            Err(fault) => break fault,
        }
    };
    assert_eq!(made.len(), 25, "{fault}");
    bench.mine(made.drain(..1).collect());
    bench.fund(20_000).unwrap();
}

#[test]
fn reo_5_a_reorg_takes_coins_away_and_brings_them_back() {
    let mut bench = Bench::new();
    bench.mine(Vec::new());
    let payment = bench.payment(50_000);
    bench.mine(vec![payment.clone()]);
    bench.mine(Vec::new());
    bench.commit();
    assert_eq!(bench.confirmed(), 50_000);
    bench.undo();
    bench.undo();
    assert_eq!(bench.wallet.tip().unwrap().0, 1);
    assert_eq!(bench.wallet.hash_at(2), None);
    let mut other = bench.block(Vec::new());
    other.header.time += 7;
    bench.wallet.connected(2, &other).unwrap();
    bench.blocks.push(other);
    assert_eq!(bench.confirmed(), 0, "the payment is in no block of this chain");
    bench.mine(vec![payment]);
    assert_eq!(bench.confirmed(), 50_000);
    bench.commit();
    bench.reload();
    assert_eq!((bench.wallet.tip().unwrap().0, bench.confirmed()), (3, 50_000));
}

#[test]
fn reo_4_our_own_transaction_survives_the_loss_of_its_block() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let (tx, index) = bench.fund(20_000).unwrap();
    bench.wallet.saw_unconfirmed(&tx);
    let change = tx.output[1 - index as usize].value.to_sat();
    bench.mine(vec![tx]);
    assert_eq!(bench.confirmed(), change);
    bench.undo();
    let mut other = bench.block(Vec::new());
    other.header.time += 7;
    bench.wallet.connected(2, &other).unwrap();
    let balance = bench.wallet.balance();
    assert_eq!((balance.confirmed.get(), balance.unconfirmed.get()), (0, change), "the coin stays spent");
}

#[test]
fn a_block_that_does_not_fit_is_an_error_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.mine(Vec::new());
    let tip = bench.wallet.tip();
    let mut stranger = bench.block(Vec::new());
    stranger.header.prev_blockhash = BlockHash::from_byte_array([8; 32]);
    assert!(matches!(bench.wallet.connected(5, &stranger), Err(WalletFault::Inconsistent(_))));
    let (hash, previous) = (stranger.block_hash(), tip.unwrap().1);
    assert!(matches!(bench.wallet.disconnected(1, hash, previous), Err(WalletFault::Inconsistent(_))));
    assert_eq!(bench.wallet.tip(), tip);
}

#[test]
fn bad_input_105_an_empty_wallet_and_dust_are_refused() {
    let mut bench = Bench::new();
    assert!(matches!(bench.fund(20_000), Err(WalletFault::InsufficientFunds { .. })));
    bench.receive(50_000);
    assert_eq!(bench.fund(100).unwrap_err(), WalletFault::Dust(Sat::new(100)));
    assert!(matches!(bench.fund(50_000), Err(WalletFault::InsufficientFunds { .. })));
    assert!(bench.fund(u64::MAX).is_err());
    assert_eq!(bench.confirmed(), 50_000);
}

#[test]
fn key_3_rows_of_another_seed_or_network_are_refused() {
    let mut bench = Bench::new();
    bench.commit();
    let other_seed = Wallet::load(&seed(2), Network::Regtest, &bench.rows);
    assert!(matches!(other_seed.err(), Some(WalletFault::OtherSeed(_))));
    let other_network = Wallet::load(&seed(1), Network::Signet, &bench.rows);
    assert!(matches!(other_network.err(), Some(WalletFault::OtherSeed(_))));
}

#[test]
fn damaged_and_newer_rows_are_refused() {
    let mut bench = Bench::new();
    bench.commit();
    let load = |row: &[u8]| Wallet::load(&seed(1), Network::Regtest, &[row.to_vec()]).err().unwrap();
    let whole = &bench.rows[0];
    assert!(matches!(load(&[]), WalletFault::Damaged(_)));
    assert!(matches!(load(&whole[..whole.len() / 2]), WalletFault::Damaged(_)));
    assert!(matches!(load(&[0, b'{', b'}']), WalletFault::Damaged(_)));
    assert_eq!(load(&[2, b'{', b'}']), WalletFault::Newer(2));
}

#[test]
fn a_compacted_wallet_does_not_grow_with_the_chain() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.commit();
    for _ in 0..3000 {
        bench.mine(Vec::new());
        bench.commit();
    }
    let size = |bench: &mut Bench| {
        bench.reload();
        bench.wallet.take_compacted().unwrap().len()
    };
    let before = size(&mut bench);
    for _ in 0..1000 {
        bench.mine(Vec::new());
        bench.commit();
    }
    let after = size(&mut bench);
    assert!(after < before + 100, "{before} {after}");
    assert_eq!(bench.confirmed(), 50_000, "the block that holds our coin is kept");
    assert_eq!(bench.wallet.hash_at(3900), Some(bench.blocks[3900].block_hash()));
}

#[test]
fn addresses_are_those_of_bip_84() {
    // BIP 84's own vector: the mnemonic of eleven times "abandon" and "about".
    let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    let mnemonic = bip39::Mnemonic::parse(words).unwrap();
    let master = Xpriv::new_master(Network::Bitcoin, &mnemonic.to_seed("")).unwrap();
    let (external, internal) = descriptors(&master, Network::Bitcoin).unwrap();
    let wallet =
        bdk_wallet::Wallet::create(external, internal).network(Network::Bitcoin).create_wallet_no_persist().unwrap();
    let first = |keychain| wallet.peek_address(keychain, 0).address.to_string();
    assert_eq!(first(KeychainKind::External), "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu");
    assert_eq!(first(KeychainKind::Internal), "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el");
}

#[test]
fn reo_5_after_a_reorg_of_any_depth_the_wallet_is_that_of_a_fresh_replay() {
    for depth in 1..=8_usize {
        let mut bench = Bench::new();
        let payments: Vec<_> = (1..=8).map(|n| bench.payment(n * 10_000)).collect();
        for payment in &payments {
            bench.mine(vec![payment.clone()]);
            bench.commit();
        }
        for _ in 0..depth {
            bench.undo();
        }
        bench.mine(Vec::new());
        // The first of the undone payments never comes back.
        for payment in payments.iter().skip(9 - depth).rev() {
            bench.mine(vec![payment.clone()]);
        }
        bench.mine(Vec::new());
        bench.commit();

        let mut fresh = Bench::new();
        for payment in &payments {
            let same = fresh.payment(payment.output[0].value.to_sat());
            assert_eq!(same, *payment);
        }
        for (height, block) in bench.blocks.iter().enumerate().skip(1) {
            fresh.wallet.connected(height as u32, block).unwrap();
        }
        let lost = Sat::new((9 - depth as u64) * 10_000);
        assert_eq!(fresh.confirmed(), 360_000 - lost.get());
        // All that is left of the old branch is that the lost payment was once seen, and may confirm again.
        let expected = Balance { unconfirmed: lost, ..fresh.wallet.balance() };
        for _ in 0..2 {
            assert_eq!(bench.wallet.balance(), expected, "depth {depth}");
            assert_eq!(bench.wallet.tip(), fresh.wallet.tip());
            for height in 0..=bench.blocks.len() as u32 {
                assert_eq!(bench.wallet.hash_at(height), fresh.wallet.hash_at(height), "height {height}");
            }
            bench.reload();
        }
    }
}

#[test]
fn reo_5_a_crash_in_the_middle_of_a_reorg_is_made_up_for() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.mine(Vec::new());
    bench.commit();
    let tip = bench.wallet.tip();
    bench.undo();
    bench.undo();
    bench.commit();
    bench.reload();
    assert_eq!(bench.wallet.tip(), tip, "a disconnected block is told again");
    let mut other = bench.block(Vec::new());
    other.header.time += 7;
    bench.wallet.connected(1, &other).unwrap();
    assert_eq!((bench.wallet.tip(), bench.confirmed()), (Some((1, other.block_hash())), 0));
}

#[test]
fn what_a_reorganisation_takes_back_is_to_be_published_again() {
    let mut bench = Bench::new();
    bench.receive(100_000);
    let (tx, _) = bench.fund(20_000).unwrap();
    bench.wallet.saw_unconfirmed(&tx);
    bench.mine(vec![tx.clone()]);
    assert_eq!(bench.wallet.unconfirmed(), []);
    bench.undo();
    bench.mine(vec![]);
    assert_eq!(bench.wallet.unconfirmed(), std::slice::from_ref(&tx));
    bench.commit();
    bench.reload();
    assert_eq!(bench.wallet.unconfirmed(), [tx], "also after a crash");
}

#[test]
fn occ_12_what_is_kept_for_closes_is_not_spent_on_a_channel() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let mut fund = |sat, reserve| bench.wallet.fund(target(), Sat::new(sat), FEERATE, Sat::new(reserve));
    let Err(WalletFault::Reserve { left, reserve }) = fund(40_000, 10_000) else { panic!("the reserve is spent") };
    assert!(left < Sat::new(10_000) && left > Sat::new(9_000) && reserve == Sat::new(10_000), "{left}");
    assert!(fund(39_000, 10_000).is_ok(), "nothing is locked by what was refused");
}

/// A child of somebody's anchor that spends these coins: its anchor needs no signature of the wallet.
fn child(bench: &mut Bench, coins: &[Coin], left: u64) -> (Transaction, Vec<TxOut>) {
    let anchor = TxOut { value: Amount::from_sat(330), script_pubkey: target() };
    let anchor_input = TxIn { previous_output: OutPoint::new(Txid::from_byte_array([8; 32]), 0), ..TxIn::default() };
    let inputs = coins.iter().map(|coin| TxIn { previous_output: coin.outpoint, ..TxIn::default() });
    let script_pubkey = bench.wallet.change_script().unwrap();
    let mut tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: std::iter::once(anchor_input).chain(inputs).collect(),
        output: vec![TxOut { value: Amount::from_sat(left), script_pubkey }],
    };
    let spent: Vec<TxOut> = std::iter::once(anchor).chain(coins.iter().map(|coin| coin.output.clone())).collect();
    bench.wallet.sign_coins(&mut tx, &spent).unwrap();
    (tx, spent)
}

#[test]
fn occ_11_coins_of_a_child_are_signed_and_weigh_what_was_estimated() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.receive(7_000);
    let coins = bench.wallet.coins(None);
    assert_eq!(coins.len(), 2);
    let (tx, spent) = child(&mut bench, &coins, 40_000);
    assert!(tx.input[0].witness.is_empty(), "the anchor is another's to sign");
    for (input, output) in tx.input.iter().zip(&spent).skip(1) {
        let weight = bitcoin::consensus::serialize(&input.witness).len() as u64;
        assert!((Coin::WITNESS_WEIGHT - 2..=Coin::WITNESS_WEIGHT).contains(&weight), "{weight}");
        assert_eq!(output.script_pubkey, ScriptBuf::new_p2wpkh(&key_of(&input.witness).wpubkey_hash()));
    }
    let none = tx.input.len() - 1;
    assert!(bench.wallet.sign_coins(&mut tx.clone(), &spent[..none]).is_ok(), "fewer outputs than inputs");
}

fn key_of(witness: &Witness) -> bitcoin::CompressedPublicKey {
    bitcoin::CompressedPublicKey::from_slice(&witness[1]).unwrap()
}

#[test]
fn occ_14_the_coins_of_a_child_count_once_and_come_back_with_what_replaces_it() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.receive(7_000);
    let coins = bench.wallet.coins(None);
    let (first, _) = child(&mut bench, &coins[..1], 6_000);
    bench.wallet.saw_unconfirmed(&first);
    assert_eq!(bench.wallet.coins(None), coins[1..]);
    assert_eq!(bench.wallet.coins(Some(&first)), coins);
    let (second, _) = child(&mut bench, &coins, 50_000);
    bench.wallet.release(first.compute_txid());
    bench.wallet.saw_unconfirmed(&second);
    assert!(bench.wallet.coins(None).is_empty());
    assert!(bench.wallet.counts_unconfirmed(second.compute_txid()));
    assert!(!bench.wallet.counts_unconfirmed(first.compute_txid()));
    // Given up and taken up again within one second.
    bench.wallet.release(second.compute_txid());
    assert_eq!(bench.wallet.coins(None), coins);
    bench.wallet.saw_unconfirmed(&second);
    assert!(bench.wallet.coins(None).is_empty());
    // The one that was replaced is mined all the same: its coins are gone for good.
    bench.mine(vec![first.clone()]);
    assert!(bench.wallet.has_confirmed(first.compute_txid()));
    assert!(bench.wallet.coins(Some(&first)).iter().all(|coin| coin.outpoint != coins[0].outpoint));
}

/// FND-11: an anchor's child dies with the commitment that it pays for, and its change with it.
#[test]
fn fnd_11_the_change_of_an_anchors_child_funds_nothing_before_it_confirms() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.receive(7_000);
    let coins = bench.wallet.coins(None);
    let (child, _) = child(&mut bench, &coins[..1], 40_000);
    bench.wallet.saw_unconfirmed(&child);
    let fault = bench.fund(20_000).unwrap_err();
    assert!(matches!(fault, WalletFault::InsufficientFunds { available, .. } if available.get() == 7_000), "{fault}");
    bench.mine(vec![child]);
    bench.fund(20_000).unwrap();
}

/// The block of an anchor's child leaves: from that moment on its change is as good as the commitment, whoever asks.
#[test]
fn reo_5_fnd_11_a_coin_whose_block_left_is_not_confirmed_even_before_the_next_block() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    bench.receive(7_000);
    let coins = bench.wallet.coins(None);
    let (child, _) = child(&mut bench, &coins[..1], 40_000);
    bench.wallet.saw_unconfirmed(&child);
    bench.mine(vec![child.clone()]);
    let of = |wallet: &mut Wallet| (wallet.balance().confirmed.get(), wallet.balance().unconfirmed.get());
    assert_eq!((of(&mut bench.wallet), bench.wallet.coins(None).len()), ((47_000, 0), 2));
    let taken_back = |bench: &mut Bench, when| {
        assert_eq!(of(&mut bench.wallet), (7_000, 40_000), "{when}");
        let fault = bench.fund(20_000).unwrap_err();
        assert!(
            matches!(fault, WalletFault::InsufficientFunds { available, .. } if available.get() == 7_000),
            "{fault}"
        );
        assert_eq!(bench.wallet.coins(None).len(), 1, "{when}");
        let to_replace: Vec<u64> =
            bench.wallet.coins(Some(&child)).iter().map(|coin| coin.output.value.to_sat()).collect();
        assert!(to_replace.contains(&50_000) && !to_replace.contains(&40_000), "{when}: {to_replace:?}");
        assert!(!bench.wallet.has_confirmed(child.compute_txid()), "{when}");
        assert_eq!(bench.wallet.unconfirmed(), std::slice::from_ref(&child), "{when}");
    };
    bench.undo();
    taken_back(&mut bench, "before the next block");
    bench.mine(Vec::new());
    taken_back(&mut bench, "after it");
    bench.mine(vec![child.clone()]);
    assert_eq!(of(&mut bench.wallet), (47_000, 0));
    bench.fund(20_000).unwrap();
}

/// Anybody may send any number of coins that cost more than they bring.
#[test]
fn coins_that_cost_more_than_they_bring_are_left_where_they_are() {
    let mut bench = Bench::new();
    bench.receive(90_000);
    let dust = FEERATE.fee(272).get();
    let payments = (0..20).map(|_| bench.payment(dust)).collect();
    bench.mine(payments);
    let (first, _) = bench.fund(20_000).unwrap();
    bench.wallet.saw_unconfirmed(&first);
    let (second, _) = bench.fund(20_000).unwrap();
    assert_eq!((first.input.len(), second.input.len()), (1, 1), "our change, and none of the dust");
    let fault = bench.fund(60_000).unwrap_err();
    assert!(matches!(fault, WalletFault::InsufficientFunds { available, .. } if available.get() < 50_000), "{fault}");
}

#[test]
fn a_transaction_too_heavy_to_be_relayed_is_not_made() {
    let mut bench = Bench::new();
    let payments = (0..1_500).map(|_| bench.payment(2_000)).collect();
    bench.mine(payments);
    assert!(bench.fund(1_000_000).is_ok());
    assert!(matches!(bench.fund(2_600_000), Err(WalletFault::InsufficientFunds { .. })), "the others are locked");
    bench.commit();
    bench.reload();
    assert!(matches!(bench.fund(2_600_000), Err(WalletFault::TooManyCoins(_))));
}

/// What the wallet keeps of its coins is what a walk through all its history finds, whatever happens. `WALLET_SEED` replays one.
#[test]
fn coins_are_those_of_a_walk_through_history_after_any_events() {
    let replayed = std::env::var("WALLET_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    for seed in replayed.map_or(0..10, |seed| seed..seed + 1) {
        let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let (mut bench, mut made, mut seen) = (Bench::new(), Vec::new(), Vec::new());
        let mut undone: Vec<Block> = Vec::new();
        for step in 0..60 {
            match dice.random_range(0..11) {
                0 | 1 => bench.receive(dice.random_range(10_000..90_000)),
                2 => {
                    let payment = bench.payment(50_000);
                    bench.wallet.saw_unconfirmed(&payment);
                    seen.push(payment);
                }
                3 => made.extend(bench.fund(dice.random_range(1_000..60_000)).ok().map(|(tx, _)| tx)),
                4 if !made.is_empty() => {
                    let tx = made.swap_remove(dice.random_range(0..made.len()));
                    bench.wallet.saw_unconfirmed(&tx);
                    seen.push(tx);
                }
                5 if !seen.is_empty() => {
                    let tx = seen.swap_remove(dice.random_range(0..seen.len()));
                    bench.wallet.release(tx.compute_txid());
                    made.push(tx);
                }
                6 if bench.blocks.len() > 3 => {
                    undone.extend(bench.blocks.last().cloned());
                    bench.undo();
                }
                // A branch that was left comes back.
                9 | 10
                    if undone.last().is_some_and(|block| {
                        block.header.prev_blockhash == bench.blocks.last().unwrap().block_hash()
                    }) =>
                {
                    let block = undone.pop().unwrap();
                    bench.wallet.connected(bench.blocks.len() as u32, &block).unwrap();
                    bench.blocks.push(block);
                }
                7 => bench.mine(std::mem::take(&mut seen)),
                // A crash within a reorganisation is made up for by another test.
                8 if bench.wallet.inner.latest_checkpoint().height() as usize + 1 == bench.blocks.len() => {
                    bench.commit();
                    bench.reload();
                }
                _ => bench.mine(Vec::new()),
            }
            // As the daemon does after each step.
            bench.commit();
            let walked: Vec<OutPoint> = bench.wallet.inner.list_unspent().map(|coin| coin.outpoint).collect();
            let kept: Vec<OutPoint> = bench.wallet.unspent().values().map(|coin| coin.outpoint).collect();
            assert_eq!(kept, walked, "WALLET_SEED={seed}, step {step}");
            let confirmed = |wallet: &bdk_wallet::Wallet| wallet.balance().confirmed.to_sat();
            // It learns of a block that left from the next one.
            let tip = bench.wallet.tip();
            let has_left =
                |coin: &LocalOutput| coin.chain_position.is_confirmed() && !is_confirmed(tip, &coin.chain_position);
            let left = bench.wallet.inner.list_unspent().filter(has_left).map(|coin| coin.txout.value.to_sat());
            let stands = confirmed(&bench.wallet.inner) - left.sum::<u64>();
            let locked = bench.wallet.balance().locked.get();
            assert!(stands - bench.confirmed() <= locked, "WALLET_SEED={seed}, step {step}");
        }
    }
}

#[test]
fn a_transaction_spends_confirmed_coins_before_change_that_is_not_and_large_ones_before_small_ones() {
    let mut bench = Bench::new();
    bench.receive(30_000);
    bench.receive(90_000);
    bench.receive(40_000);
    let (first, _) = bench.fund(20_000).unwrap();
    bench.wallet.saw_unconfirmed(&first);
    assert_eq!(bench.confirmed(), 70_000, "the largest was enough");
    // The change is larger than any coin that is confirmed.
    let (second, _) = bench.fund(60_000).unwrap();
    assert!(second.input.iter().all(|input| input.previous_output.txid != first.compute_txid()));
    assert_eq!(second.input.len(), 2);
    bench.wallet.saw_unconfirmed(&second);
    assert!(bench.fund(60_000).is_ok(), "what is left is our own change");
}

#[test]
fn change_that_would_be_dust_is_left_to_the_miners() {
    let mut bench = Bench::new();
    bench.receive(50_000);
    let without_change = 50_000 - FEERATE.fee(10_000).get();
    let (tx, _) = (1..).find_map(|more| bench.fund(50_000 - more).ok()).unwrap();
    assert_eq!(tx.output.len(), 1);
    assert!(tx.output[0].value.to_sat() > without_change, "only the fee is missing");
}

#[test]
fn a_wallet_whose_rows_were_lost_goes_on_from_a_block_and_finds_what_pays_its_first_addresses() {
    let mut lost = Bench::new();
    lost.mine(Vec::new());
    // Addresses of which no row tells any more.
    for _ in 0..300 {
        lost.wallet.new_address().unwrap();
    }
    let payment = lost.payment(70_000);
    let tip = lost.wallet.tip().unwrap();
    let row = Wallet::resumed_at(&seed(1), Network::Regtest, tip, 1000).unwrap();
    let mut wallet = Wallet::load(&seed(1), Network::Regtest, &[row]).unwrap();
    assert_eq!(wallet.tip(), Some(tip));
    assert_eq!(wallet.hash_at(tip.0), Some(tip.1));
    wallet.connected(2, &lost.block(vec![payment])).unwrap();
    assert_eq!(wallet.balance().confirmed.get(), 70_000);
    // What is given out from now on is none of those that were.
    let given = wallet.new_address().unwrap();
    // 301 were given out before, and the thousand includes all of them.
    assert!((301..1000).all(|_| lost.wallet.new_address().unwrap() != given));
    let genesis = lost.blocks[0].block_hash();
    let row = Wallet::resumed_at(&seed(1), Network::Regtest, (0, genesis), 1000).unwrap();
    assert_eq!(Wallet::load(&seed(1), Network::Regtest, &[row]).unwrap().tip(), Some((0, genesis)));
}

#[test]
fn a_block_below_the_tip_is_told_where_it_is_remembered() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.mine(Vec::new());
    }
    assert_eq!(bench.wallet.below_tip(6), Some((4, bench.blocks[4].block_hash())));
    assert_eq!(bench.wallet.below_tip(11), bench.wallet.tip(), "there is none");
    let row = Wallet::resumed_at(&seed(1), Network::Regtest, bench.wallet.tip().unwrap(), 10).unwrap();
    let resumed = Wallet::load(&seed(1), Network::Regtest, &[row]).unwrap();
    assert_eq!(resumed.below_tip(6), bench.wallet.tip(), "it knows no other");
    assert_eq!(Wallet::load(&seed(1), Network::Regtest, &[]).unwrap().below_tip(6), None);
}

#[test]
fn words_that_were_used_before_are_looked_for_far_ahead_and_new_ones_are_not() {
    let mut elsewhere = Bench::new();
    for _ in 0..600 {
        elsewhere.wallet.new_address().unwrap();
    }
    elsewhere.receive(70_000);
    for _ in 0..800 {
        elsewhere.wallet.new_address().unwrap();
    }
    elsewhere.receive(5_000);
    let found = |wallet: &mut Wallet, heights: std::ops::RangeInclusive<u32>| {
        for height in heights {
            wallet.connected(height, &elsewhere.blocks[height as usize]).unwrap();
        }
        wallet.balance().confirmed.get()
    };
    let mut narrow = Wallet::load(&seed(1), Network::Regtest, &[]).unwrap();
    assert_eq!(found(&mut narrow, 0..=2), 0);
    let mut wide = Wallet::load_wide(&seed(1), Network::Regtest, &[]).unwrap();
    assert_eq!(found(&mut wide, 0..=1), 70_000);
    // A start later nobody says it any more, and the next address is counted from the last.
    let rows = [wide.take_staged().unwrap()];
    assert_eq!(found(&mut Wallet::load(&seed(1), Network::Regtest, &rows).unwrap(), 2..=2), 75_000);
}

#[test]
fn older_blocks_give_coins_and_take_what_was_spent_since() {
    let mut elsewhere = Bench::new();
    for _ in 0..700 {
        elsewhere.wallet.new_address().unwrap();
    }
    elsewhere.mine(Vec::new());
    elsewhere.receive(100_000);
    elsewhere.receive(20_000);
    let (first, _) = elsewhere.fund(60_000).unwrap();
    let payment = elsewhere.payment(7_000);
    elsewhere.mine(vec![payment]);
    for _ in 0..6 {
        elsewhere.mine(Vec::new());
    }
    elsewhere.wallet.saw_unconfirmed(&first);
    elsewhere.mine(vec![first]);
    let expected = elsewhere.wallet.balance();
    let (tip, blocks) = (11, &elsewhere.blocks);
    assert_eq!(elsewhere.wallet.tip().unwrap().0, tip);

    let mut late = Wallet::load(&seed(1), Network::Regtest, &[]).unwrap();
    for height in 9..=tip {
        late.connected(height, &blocks[height as usize]).unwrap();
    }
    // Of the three payments it has seen nothing, but their spend has brought change.
    let before = late.balance();
    assert_eq!((late.looked_from(), before.confirmed.get() + 20_000 + 7_000), (Some(9), expected.confirmed.get()));
    let rows = [late.take_staged().unwrap()];
    let mut late = Wallet::load_wide(&seed(1), Network::Regtest, &rows).unwrap();
    // Above the tip, and of another chain.
    assert_eq!(late.look_again(tip + 1, &elsewhere.block(Vec::new())), Ok(false));
    assert_eq!(late.look_again(10, &blocks[2]), Ok(false));
    assert_eq!(late.balance(), before);
    for height in 2..=tip {
        assert_eq!(late.look_again(height, &blocks[height as usize]), Ok(true));
    }
    assert_eq!(late.balance(), expected);
    late.looked_again(2);
    let rows = [rows[0].clone(), late.take_staged().unwrap()];
    let mut again = Wallet::load(&seed(1), Network::Regtest, &rows).unwrap();
    assert_eq!((again.looked_from(), again.balance()), (Some(2), expected));
    assert_eq!(again.tip(), late.tip());
    // It goes on with the chain, and leaves it, as before.
    let next = elsewhere.block(Vec::new());
    again.connected(tip + 1, &next).unwrap();
    again.disconnected(tip + 1, next.block_hash(), next.header.prev_blockhash).unwrap();
    assert_eq!(again.balance(), expected);
    // Compaction keeps it.
    let rows = [again.take_compacted().unwrap()];
    assert_eq!(Wallet::load(&seed(1), Network::Regtest, &rows).unwrap().looked_from(), Some(2));
}

#[test]
fn what_a_transaction_moves_is_told_with_the_fee_where_the_wallet_pays_all_of_it() {
    let mut bench = Bench::new();
    let deposit = bench.payment(100_000);
    let block = bench.block(vec![deposit.clone()]);
    bench.mine(vec![deposit.clone()]);
    let movement = |tx: &Transaction, received, spent, fee: Option<u64>| Movement {
        txid: tx.compute_txid(),
        received: Sat::new(received),
        spent: Sat::new(spent),
        fee: fee.map(Sat::new),
    };
    assert_eq!(bench.wallet.movements(&block), [movement(&deposit, 100_000, 0, None)]);
    assert!(bench.wallet.has_in_block(deposit.compute_txid(), block.block_hash()));
    assert!(!bench.wallet.has_in_block(deposit.compute_txid(), bench.blocks[0].block_hash()));

    let (tx, _) = bench.fund(30_000).unwrap();
    let change: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>() - 30_000;
    let fee = 100_000 - 30_000 - change;
    // Another pays as well: what it puts in is not known.
    let mut shared = tx.clone();
    shared.input.push(TxIn { previous_output: OutPoint::new(Txid::from_byte_array([8; 32]), 0), ..TxIn::default() });
    let of_nobody = Transaction { input: Vec::new(), output: Vec::new(), ..deposit.clone() };
    let block = bench.block(vec![of_nobody, tx.clone()]);
    bench.mine(block.txdata.clone());
    assert_eq!(bench.wallet.movements(&block), [movement(&tx, change, 100_000, Some(fee))]);
    assert_eq!(bench.wallet.movement(&shared), Some(movement(&shared, change, 100_000, None)));
}
