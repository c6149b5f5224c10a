//! What each side of a channel holds to end it alone is taken by a real bitcoind, at every step of the channel's life: the
//! peer's signatures are not only valid, they are such as the network relays (CST-10).
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bitcoind;
#[path = "../../channel/tests/duo/mod.rs"]
mod duo;

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, script,
};
use bitcoind::Regtest;
use duo::{Alice, Bob, Duo, SHUTDOWN_SCRIPT, Terms, Who, sat};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Feature;
use outrigger_channel::{Command, HtlcKey, HtlcState, Monitor, Offerer, Phase};
use serde_json::json;

/// What mining one of the first blocks of regtest pays.
const REWARD: Amount = Amount::from_sat(5_000_000_000);
/// Channels of this test.
const COINS: u32 = 4;

/// A chain with coins that anybody may spend.
struct Chain {
    regtest: Regtest,
    coins: Vec<OutPoint>,
    /// What was shown to bitcoind, and how many HTLC outputs it has.
    taken: BTreeMap<Txid, usize>,
}

impl Chain {
    fn new() -> Self {
        let regtest = Regtest::start();
        let address = Address::p2wsh(&anybody(), Network::Regtest);
        let blocks = regtest.mine(COINS, &address);
        // The coins are mature, and the chain is higher than the channels believe: their closes are final.
        regtest.mine(510, &address);
        let coinbase = |block| {
            let told = regtest.call("getblock", &[json!(block), json!(1)]);
            OutPoint { txid: told["tx"][0].as_str().unwrap().parse().unwrap(), vout: 0 }
        };
        let coins = blocks.into_iter().map(coinbase).collect();
        Self { regtest, coins, taken: BTreeMap::new() }
    }

    /// A channel whose funding transaction is in a block; neither side has heard of that.
    fn channel(&mut self, terms: &Terms) -> Duo {
        let coin = self.coins.pop().unwrap();
        let duo = Duo::of(terms, duo::open_by(terms, |script_pubkey, amount| funding(coin, script_pubkey, amount)));
        self.regtest.call("sendrawtransaction", &[json!(serialize_hex(&duo.tx))]);
        self.regtest.mine(1, &Address::p2wsh(&anybody(), Network::Regtest));
        duo
    }

    /// Whether bitcoind would take it into its mempool, whatever it pays; its reason where it would not.
    fn takes(&self, tx: &Transaction) -> Result<(), String> {
        let told = self.regtest.call("testmempoolaccept", &[json!([serialize_hex(tx)]), json!(0)]);
        if told[0]["allowed"] == json!(true) { Ok(()) } else { Err(told[0]["reject-reason"].to_string()) }
    }

    /// Holds what both sides could publish now against bitcoind; each transaction once. Both are loaded from their rows.
    fn check(&mut self, duo: &Duo) {
        for who in Who::BOTH {
            let side = duo.side(who);
            let monitor = Monitor::load(side.monitor.rows().clone()).unwrap();
            let held = [monitor.local_commitment_tx(&*side.signer).unwrap()];
            let closes = side.channel.phase().closes_to_publish().into_iter().cloned();
            let htlcs = monitor.local_commitment(&*side.signer).unwrap().htlc_outputs.len();
            for tx in held.into_iter().chain(closes) {
                let txid = tx.compute_txid();
                if !self.taken.contains_key(&txid) {
                    assert_eq!(self.takes(&tx), Ok(()), "{who:?}: {}", serialize_hex(&tx));
                    self.taken.insert(txid, htlcs);
                }
            }
        }
    }

    /// Hands every message over until nothing moves, and looks at what both hold after each of them.
    fn run(&mut self, duo: &mut Duo) {
        loop {
            let mut moved = false;
            for who in Who::BOTH {
                while duo.receive(who).is_some() {
                    moved = true;
                    self.check(duo);
                }
                duo.commit(who);
                self.check(duo);
                moved |= !duo.side(who).outbox.is_empty();
            }
            if !moved {
                return;
            }
        }
    }

    /// The channel is ready on both sides.
    fn ready(&mut self, terms: &Terms) -> Duo {
        let mut duo = self.channel(terms);
        self.check(&duo);
        duo.confirm();
        self.run(&mut duo);
        assert!(Who::BOTH.iter().all(|who| matches!(duo.side(*who).channel.phase(), Phase::Normal)));
        duo
    }

    /// Both offer HTLCs of these amounts at once.
    fn add(&mut self, duo: &mut Duo, amounts: &[Msat]) {
        for (number, amount) in (1..).zip(amounts) {
            for who in Who::BOTH {
                duo.add(who, *amount, number).unwrap();
            }
        }
        self.run(duo);
    }

    /// Each side fulfils what it can of the HTLCs with an even id and fails the others.
    fn remove(&mut self, duo: &mut Duo) {
        for who in Who::BOTH {
            let rows = duo.side(who).channel.rows().htlcs.clone();
            let standing = |key: &HtlcKey| key.offerer == Offerer::Remote && rows[key].state == HtlcState::STANDING;
            for key in rows.keys().filter(|key| standing(key)) {
                let number = (1..=u8::MAX).find(|number| duo::hash(*number) == rows[key].payment_hash).unwrap();
                let done = if key.id % 2 == 0 { duo.fulfill(who, key.id, number) } else { duo.fail(who, key.id) };
                done.unwrap();
            }
        }
        self.run(duo);
        assert!(Who::BOTH.iter().all(|who| duo.side(*who).channel.rows().htlcs.is_empty()));
    }

    fn feerate(&mut self, duo: &mut Duo, feerate: u32) {
        duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(feerate))).unwrap();
        self.run(duo);
        let spec = |who| duo.side(who).channel.rows().head.fee.local;
        assert_eq!(Who::BOTH.map(spec), [FeeratePerKw::new(feerate); 2]);
    }

    fn close(&mut self, duo: &mut Duo) {
        let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
        duo.order(Bob, Command::Shutdown { script, feerate: FeeratePerKw::new(1500) }).unwrap();
        self.run(duo);
        assert!(Who::BOTH.iter().all(|who| matches!(duo.side(*who).channel.phase(), Phase::Closing { .. })));
    }
}

/// A script that every witness satisfies.
fn anybody() -> ScriptBuf {
    script::Builder::new().push_opcode(OP_TRUE).into_script()
}

fn funding(coin: OutPoint, script_pubkey: ScriptBuf, amount: Sat) -> Transaction {
    let value = Amount::from(amount);
    let rest = REWARD - value - Amount::from_sat(10_000);
    let input = TxIn {
        previous_output: coin,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[anybody().to_bytes()]),
    };
    let change = TxOut { value: rest, script_pubkey: anybody().to_p2wsh() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut { value, script_pubkey }, change],
    }
}

/// Amounts around the dust limit, far below and above it.
fn amounts() -> Vec<Msat> {
    let of_sat = [1, 353, 354, 355, 5_000, 20_000, 20_000, 9_999, 10_000];
    of_sat.map(sat).into_iter().chain([Msat::new(354_999), Msat::new(5_000_001)]).collect()
}

fn dance(chain: &mut Chain, terms: &Terms) -> Duo {
    let mut duo = chain.ready(terms);
    chain.add(&mut duo, &amounts());
    chain.feerate(&mut duo, 5_000);
    chain.feerate(&mut duo, 253);
    chain.remove(&mut duo);
    // As many as the policy lets in.
    chain.add(&mut duo, &[sat(2_000); 30]);
    chain.feerate(&mut duo, 2_000);
    chain.remove(&mut duo);
    duo
}

#[test]
fn cst_10_every_commitment_and_close_that_is_held_is_taken_by_bitcoind() {
    let mut chain = Chain::new();
    let mut duo = dance(&mut chain, &Terms::default());
    chain.close(&mut duo);

    let mut unequal = Terms { features: duo::features().offer(Feature::SIMPLE_CLOSE), ..Terms::default() };
    // Of an HTLC between the two limits only one of the two commitments has an output.
    unequal.bob.dust_limit = Sat::new(9_999);
    for policy in [&mut unequal.alice, &mut unequal.bob] {
        policy.max_dust_exposure = Sat::new(500_000);
    }
    let mut duo = dance(&mut chain, &unequal);
    chain.close(&mut duo);

    // One side has nothing in the channel, and then only what it is owed.
    let mut poor = chain.ready(&Terms { push: Msat::ZERO, ..Terms::default() });
    let mut added = 0;
    loop {
        let spendable = poor.alice.channel.summary(poor.height).spendable;
        if spendable < sat(1) {
            break;
        }
        added += 1;
        poor.add(Alice, spendable.min(sat(200_000)), added).unwrap();
        chain.run(&mut poor);
    }
    for (id, number) in (0..).zip(1..=added) {
        poor.fulfill(Bob, id, number).unwrap();
        chain.run(&mut poor);
    }

    let with_htlcs = chain.taken.values().filter(|htlcs| **htlcs > 0).count();
    println!("{} transactions, {with_htlcs} commitments with HTLC outputs", chain.taken.len());
    assert!(chain.taken.len() > 60 && with_htlcs > 40, "{} {with_htlcs}", chain.taken.len());
}

/// The other form of a signature is as valid to a block, and no mempool takes it: so no peer's may be kept.
#[test]
fn cst_10_bitcoind_takes_no_commitment_with_a_high_s_signature() {
    let mut chain = Chain::new();
    let duo = chain.ready(&Terms::default());
    let mut tx = duo.alice.monitor.local_commitment_tx(&*duo.alice.signer).unwrap();
    let mut elements: Vec<Vec<u8>> = tx.input[0].witness.iter().map(<[u8]>::to_vec).collect();
    let signature = bitcoin::ecdsa::Signature::from_slice(&elements[1]).unwrap();
    let high: Signature = duo::high_s(&signature.signature);
    elements[1] = [high.serialize_der().as_ref(), &[signature.sighash_type as u8]].concat();
    tx.input[0].witness = Witness::from_slice(&elements);
    let refused = chain.takes(&tx).unwrap_err();
    assert!(refused.contains("S value is unnecessarily high"), "{refused}");
}
