//! BOLT 3, closing transactions, fees and weights; BOLT 2, the scripts of `shutdown`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{OutPoint, ScriptBuf, Sequence, TxOut};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::keys::sign;
use outrigger_bolt::tx::Unaffordable;
use outrigger_bolt::tx::closing::{
    ClosingVariant, Share, closing_outputs, closing_transaction, closing_weight, is_simple_close_script,
    is_standard_shutdown_script, simple_closing_outputs, simple_closing_transaction,
};
use outrigger_bolt::tx::fee::{commitment_cost, commitment_fee, commitment_weight};
use outrigger_bolt::tx::funding::FundingOutput;

fn script(hex: &str) -> ScriptBuf {
    ScriptBuf::from_hex(hex).unwrap()
}

fn p2wpkh(byte: &str) -> ScriptBuf {
    script(&format!("0014{}", byte.repeat(20)))
}

fn values(outputs: &[TxOut]) -> Vec<u64> {
    outputs.iter().map(|output| output.value.to_sat()).collect()
}

#[test]
fn expected_weights_and_fees() {
    assert_eq!([0, 1, 966].map(commitment_weight), [1124, 1296, 1124 + 172 * 966]);
    assert_eq!(commitment_fee(FeeratePerKw::new(15_000), 0), Sat::new(16_860));
    assert_eq!(commitment_fee(FeeratePerKw::FLOOR, 1), Sat::new(327));
    assert_eq!(commitment_cost(FeeratePerKw::FLOOR, 1), Sat::new(327 + 660));
    assert_eq!(commitment_fee(FeeratePerKw::new(u32::MAX), usize::MAX), Sat::new(u64::MAX / 1000));
}

#[test]
fn closing_signed_takes_the_fee_from_the_opener_and_drops_dust() {
    let (opener_script, accepter_script) = (p2wpkh("01"), p2wpkh("02"));
    let outputs = |opener, accepter| {
        closing_outputs(
            &Share { script_pubkey: &opener_script, balance: Msat::new(opener) },
            &Share { script_pubkey: &accepter_script, balance: Msat::new(accepter) },
            Sat::new(1000),
            Sat::new(354),
        )
    };
    assert_eq!(values(&outputs(10_000_999, 5_000_999).unwrap()), [9000, 5000]);
    assert_eq!(values(&outputs(1_354_000, 353_999).unwrap()), [354]);
    assert_eq!(values(&outputs(1_353_999, 354_000).unwrap()), [354]);
    let refused = Unaffordable { cost: Sat::new(1000), balance: Msat::new(999_999) };
    assert_eq!(outputs(999_999, 5_000_000), Err(refused));
}

#[test]
fn closing_transactions_are_sorted_and_sequenced() {
    let output = |value, script_pubkey| TxOut { value: Sat::new(value).into(), script_pubkey };
    let (high, low) = (output(500, p2wpkh("02")), output(500, p2wpkh("01")));
    let legacy = closing_transaction(OutPoint::null(), vec![high.clone(), low.clone()]);
    assert_eq!(legacy.output, [low.clone(), high.clone()]);
    assert_eq!(legacy.input[0].sequence, Sequence::MAX);
    assert_eq!(legacy.lock_time.to_consensus_u32(), 0);

    let simple = simple_closing_transaction(OutPoint::null(), vec![high.clone(), output(499, p2wpkh("03"))], 123_456);
    assert_eq!(values(&simple.output), [499, 500]);
    assert_eq!(simple.input[0].sequence.to_consensus_u32(), 0xffff_fffd);
    assert_eq!(simple.lock_time.to_consensus_u32(), 123_456);
}

#[test]
fn simple_close_takes_the_fee_from_the_closer_and_burns_op_return() {
    let (closer_script, closee_script) = (script("6a06010203040506"), p2wpkh("02"));
    let closer = Share { script_pubkey: &closer_script, balance: Msat::new(10_000_999) };
    let closee = Share { script_pubkey: &closee_script, balance: Msat::new(7_000_999) };
    let outputs = |one, two, variant| simple_closing_outputs(one, two, Sat::new(300), variant);
    assert_eq!(values(&outputs(&closer, &closee, ClosingVariant::Both).unwrap()), [0, 7000]);
    assert_eq!(values(&outputs(&closee, &closer, ClosingVariant::Both).unwrap()), [6700, 0]);
    assert_eq!(values(&outputs(&closee, &closer, ClosingVariant::CloserOnly).unwrap()), [6700]);
    assert_eq!(values(&outputs(&closer, &closee, ClosingVariant::CloseeOnly).unwrap()), [7000]);
    let poor = Share { script_pubkey: &closee_script, balance: Msat::new(299_999) };
    assert!(outputs(&poor, &closer, ClosingVariant::Both).is_err());
}

#[test]
fn closing_weight_is_that_of_the_signed_transaction() {
    let secp = Secp256k1::new();
    let keys = [[1; 32], [2; 32]].map(|bytes| SecretKey::from_slice(&bytes).unwrap());
    let pubkeys = keys.map(|key| key.public_key(&secp));
    let funding = FundingOutput { pubkeys, amount: Sat::new(100_000) };
    let scripts = [p2wpkh("01"), script(&format!("5120{}", "02".repeat(32)))];
    let outputs = scripts
        .iter()
        .map(|script_pubkey| TxOut { value: Sat::new(40_000).into(), script_pubkey: script_pubkey.clone() });
    let mut tx = closing_transaction(OutPoint::null(), outputs.collect());
    let signatures = keys.map(|key| sign(&funding.sighash(&tx), &key));
    let witness = funding.witness([(&pubkeys[1], &signatures[1]), (&pubkeys[0], &signatures[0])]);
    assert_eq!(witness, funding.witness([(&pubkeys[0], &signatures[0]), (&pubkeys[1], &signatures[1])]));
    // The estimate takes 73 bytes for each signature, whose real length is 71 or 72.
    let unused: usize = [1, 2].map(|item| 73 - witness.nth(item).unwrap().len()).iter().sum();
    tx.input[0].witness = witness;
    let estimate = closing_weight(scripts.iter().map(ScriptBuf::as_script));
    assert_eq!(estimate, tx.weight().to_wu() + unused as u64);
}

#[test]
fn fnd_12_shutdown_scripts() {
    let table = [
        // Script, standard without anysegwit, with it, only under option_simple_close.
        (format!("0014{}", "ab".repeat(20)), true, true, false),
        (format!("0020{}", "ab".repeat(32)), true, true, false),
        (format!("5120{}", "ab".repeat(32)), false, true, false),
        ("51024e73".to_owned(), false, true, false),
        ("5102abcd".to_owned(), false, true, false),
        (format!("6028{}", "ab".repeat(40)), false, true, false),
        ("5101ab".to_owned(), false, false, false),
        (format!("6029{}", "ab".repeat(41)), false, false, false),
        (format!("0013{}", "ab".repeat(19)), false, false, false),
        (format!("0021{}", "ab".repeat(33)), false, false, false),
        (format!("0028{}", "ab".repeat(40)), false, false, false),
        // No witness version 17 exists.
        ("6102abcd".to_owned(), false, false, false),
        (format!("76a914{}88ac", "ab".repeat(20)), false, false, false),
        (format!("a914{}87", "ab".repeat(20)), false, false, false),
        (String::new(), false, false, false),
        ("6a".to_owned(), false, false, false),
        ("6a050102030405".to_owned(), false, false, false),
        ("6a06010203040506".to_owned(), false, false, true),
        (format!("6a4b{}", "ab".repeat(75)), false, false, true),
        (format!("6a4c4b{}", "ab".repeat(75)), false, false, false),
        (format!("6a4c4c{}", "ab".repeat(76)), false, false, true),
        (format!("6a4c50{}", "ab".repeat(80)), false, false, true),
        (format!("6a4c51{}", "ab".repeat(81)), false, false, false),
        (format!("6a4c50{}", "ab".repeat(79)), false, false, false),
        ("6a0601020304050607".to_owned(), false, false, false),
    ];
    for (hex, plain, anysegwit, simple) in table {
        let script = script(&hex);
        assert_eq!(is_standard_shutdown_script(&script, false), plain, "{hex}");
        assert_eq!(is_standard_shutdown_script(&script, true), anysegwit, "{hex}");
        assert_eq!(is_simple_close_script(&script), simple, "{hex}");
    }
}
