//! BOLT 3, appendix F: commitment and HTLC transactions with anchors, to the last signature.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Transaction};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::PaymentPreimage;
use outrigger_bolt::keys::derivation::derive_private_key;
use outrigger_bolt::keys::{Basepoints, CommitmentKeys, sign, verify};
use outrigger_bolt::tx::Unaffordable;
use outrigger_bolt::tx::closing::closing_transaction;
use outrigger_bolt::tx::commitment::{
    CommitmentHtlc, CommitmentPlan, CommitmentTx, HtlcDirection, HtlcOutput, commitment_number, obscuring_factor,
};
use outrigger_bolt::tx::fee::{commitment_cost, commitment_fee, is_trimmed};
use outrigger_bolt::tx::funding::FundingOutput;
use outrigger_bolt::tx::htlc::{SighashKind, htlc_sighash, htlc_transaction, success_witness, timeout_witness};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

/// The appendix's two nodes; "local" owns the commitments and opened the channel.
struct Vectors {
    keys: CommitmentKeys,
    funding: FundingOutput,
    local_funding_key: SecretKey,
    remote_funding_key: SecretKey,
    local_htlc_key: SecretKey,
    remote_htlc_key: SecretKey,
    local_payment: PublicKey,
    remote_payment: PublicKey,
}

impl Vectors {
    fn new() -> Self {
        let secp = Secp256k1::new();
        let key = |hex: &str| hex.parse::<SecretKey>().unwrap();
        let local_funding_key = key("30ff4956bbdd3222d44cc5e8a1261dab1e07957bdac5ae88fe3261ef321f3749");
        let remote_funding_key = key("1552dfba4f6cf29a62a0af13c8d6981d36d0ef8d61ba10fb0fe90da7634d7e13");
        let local_payment = key(&"11".repeat(32));
        let remote_revocation = key(&"22".repeat(32));
        let local_delayed = key(&"33".repeat(32));
        let remote_payment = key(&"44".repeat(32));
        let point = key("1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100").public_key(&secp);
        // The appendix uses the payment basepoints as HTLC basepoints too; those it does not name are not used.
        let local = Basepoints {
            funding_pubkey: local_funding_key.public_key(&secp),
            revocation: point,
            payment: local_payment.public_key(&secp),
            delayed_payment: local_delayed.public_key(&secp),
            htlc: local_payment.public_key(&secp),
        };
        let remote = Basepoints {
            funding_pubkey: remote_funding_key.public_key(&secp),
            revocation: remote_revocation.public_key(&secp),
            payment: remote_payment.public_key(&secp),
            delayed_payment: point,
            htlc: remote_payment.public_key(&secp),
        };
        Self {
            keys: CommitmentKeys::derive(&local, &remote, &point).unwrap(),
            funding: FundingOutput {
                pubkeys: [local.funding_pubkey, remote.funding_pubkey],
                amount: Sat::new(10_000_000),
            },
            local_funding_key,
            remote_funding_key,
            local_htlc_key: derive_private_key(&local_payment, &point).unwrap(),
            remote_htlc_key: derive_private_key(&remote_payment, &point).unwrap(),
            local_payment: local.payment,
            remote_payment: remote.payment,
        }
    }

    fn plan<'a>(&'a self, vector: &Value, htlcs: &'a [CommitmentHtlc]) -> CommitmentPlan<'a> {
        let [owner_funding_pubkey, other_funding_pubkey] = self.funding.pubkeys;
        let number = |name: &str| vector[name].as_u64().unwrap();
        let txid = "8984484a580b825b9972d7adb15050b3ab624ccd731946b3eeddb92f4e7ef6be".parse().unwrap();
        CommitmentPlan {
            funding_outpoint: OutPoint { txid, vout: 0 },
            number: 42,
            opener_payment_basepoint: self.local_payment,
            accepter_payment_basepoint: self.remote_payment,
            owner_is_opener: true,
            to_self_delay: 144,
            dust_limit: Sat::new(number("DustLimitSatoshis")),
            feerate: FeeratePerKw::new(u32::try_from(number("FeePerKw")).unwrap()),
            to_owner: Msat::new(number("LocalBalance")),
            to_other: Msat::new(number("RemoteBalance")),
            htlcs,
            keys: &self.keys,
            owner_funding_pubkey,
            other_funding_pubkey,
        }
    }

    /// The commitment with both signatures, after checking the remote one against the vector.
    fn signed(&self, commitment: &CommitmentTx, remote_sig: &Signature) -> Transaction {
        let sighash = commitment.sighash(&self.funding);
        let [local_pubkey, remote_pubkey] = &self.funding.pubkeys;
        assert_eq!(sign(&sighash, &self.remote_funding_key), *remote_sig);
        assert_eq!(verify(&sighash, remote_sig, remote_pubkey), Ok(()));
        let local_sig = sign(&sighash, &self.local_funding_key);
        let mut tx = commitment.tx.clone();
        tx.input[0].witness = self.funding.witness([(remote_pubkey, remote_sig), (local_pubkey, &local_sig)]);
        tx
    }

    /// The HTLC transaction with both signatures, after checking the remote one against the vector.
    fn signed_htlc(&self, commitment: &CommitmentTx, output: &HtlcOutput, remote_sig: &Signature) -> Transaction {
        let mut tx = htlc_transaction(commitment.txid(), output, &self.keys, 144);
        let script = output.htlc.witness_script(&self.keys);
        let amount = output.htlc.amount.to_sat_floor();
        let remote_sighash = htlc_sighash(&tx, &script, amount, SighashKind::Other);
        assert_eq!(sign(&remote_sighash, &self.remote_htlc_key), *remote_sig);
        assert_eq!(verify(&remote_sighash, remote_sig, &self.keys.other_htlc), Ok(()));
        let local_sig = sign(&htlc_sighash(&tx, &script, amount, SighashKind::Owner), &self.local_htlc_key);
        tx.input[0].witness = match output.htlc.direction {
            HtlcDirection::Offered => timeout_witness(remote_sig, &local_sig, &script),
            HtlcDirection::Received => success_witness(remote_sig, &local_sig, &preimage(&output.htlc), &script),
        };
        tx
    }
}

/// The appendix's HTLCs: direction, amount, expiry and the byte that the preimage repeats.
const HTLCS: [(HtlcDirection, u64, u32, u8); 7] = [
    (HtlcDirection::Received, 1_000_000, 500, 0),
    (HtlcDirection::Received, 2_000_000, 501, 1),
    (HtlcDirection::Offered, 2_000_000, 502, 2),
    (HtlcDirection::Offered, 3_000_000, 503, 3),
    (HtlcDirection::Received, 4_000_000, 504, 4),
    (HtlcDirection::Offered, 5_000_000, 506, 5),
    (HtlcDirection::Offered, 5_000_001, 505, 5),
];

fn htlc(id: usize) -> CommitmentHtlc {
    let (direction, amount, cltv_expiry, byte) = HTLCS[id];
    let payment_hash = PaymentPreimage([byte; 32]).payment_hash();
    CommitmentHtlc { id: id as u64, direction, amount: Msat::new(amount), payment_hash, cltv_expiry }
}

fn preimage(htlc: &CommitmentHtlc) -> PaymentPreimage {
    PaymentPreimage([HTLCS[htlc.id as usize].3; 32])
}

fn htlcs_of(vector: &Value) -> Vec<CommitmentHtlc> {
    if !vector["UseTestHtlcs"].as_bool().unwrap() {
        return Vec::new();
    }
    let same_amount = vector["Name"].as_str().unwrap().contains("same amount and preimage");
    let ids = if same_amount { vec![1, 5, 6] } else { vec![0, 1, 2, 3, 4] };
    ids.into_iter().map(htlc).collect()
}

fn cases() -> Vec<Value> {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/bolt3-anchors.json")).unwrap();
    fixture["cases"].as_array().unwrap().clone()
}

fn signature(value: &Value) -> Signature {
    Signature::from_der(&hex::decode(value.as_str().unwrap()).unwrap()).unwrap()
}

fn transaction(value: &Value) -> Transaction {
    deserialize_hex(value.as_str().unwrap()).unwrap()
}

#[test]
fn appendix_f_commitments_and_htlc_transactions() {
    let vectors = Vectors::new();
    let cases = cases();
    assert_eq!(cases.len(), 9);
    for case in &cases {
        let name = case["Name"].as_str().unwrap();
        let mut htlcs = htlcs_of(case);
        // The order in which a caller lists them decides nothing.
        htlcs.reverse();
        let commitment = CommitmentTx::build(&vectors.plan(case, &htlcs)).unwrap();
        let signed = vectors.signed(&commitment, &signature(&case["RemoteSigHex"]));
        assert_eq!(signed, transaction(&case["ExpectedCommitmentTxHex"]), "{name}");

        let expected = case["HtlcDescs"].as_array().unwrap();
        assert_eq!(commitment.htlc_outputs.len(), expected.len(), "{name}");
        for (output, desc) in commitment.htlc_outputs.iter().zip(expected) {
            let signed = vectors.signed_htlc(&commitment, output, &signature(&desc["RemoteSigHex"]));
            assert_eq!(signed, transaction(&desc["ResolutionTxHex"]), "{name}, output {}", output.index);
        }
        let factor = obscuring_factor(&vectors.local_payment, &vectors.remote_payment);
        assert_eq!(commitment_number(&signed, factor), Some(42));
    }
}

#[test]
fn appendix_c_keys_and_obscuring_factor() {
    let vectors = Vectors::new();
    let key = |hex: &str| hex.parse::<PublicKey>().unwrap();
    let keys = &vectors.keys;
    assert_eq!(keys.owner_htlc, key("030d417a46946384f88d5f3337267c5e579765875dc4daca813e21734b140639e7"));
    assert_eq!(keys.other_htlc, key("0394854aa6eab5b2a8122cc726e9dded053a2184d88256816826d6231c068d4a5b"));
    assert_eq!(keys.delayed_payment, key("03fd5960528dc152014952efdb702a88f71e3c1653b2314431701ec77e57fde83c"));
    assert_eq!(keys.revocation, key("0212a140cd0c6539d07cd08dfe09984dec3251ea808b892efeac3ede9402bf2b19"));
    assert_eq!(obscuring_factor(&vectors.local_payment, &vectors.remote_payment), 0x2bb0_3852_1914);
    assert_eq!(
        vectors.funding.witness_script().to_hex_string(),
        "5221023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb21030e9f7b623d2ccc7c9bd44d66d5ce21ce504c0acf6385a132cec6d3c39fa711c152ae"
    );
}

#[test]
fn cst_8_an_htlc_is_trimmed_exactly_below_the_dust_limit() {
    let vectors = Vectors::new();
    let cases = cases();
    for offset in -2_i64..=2 {
        let amount = Msat::new((546_000 + offset) as u64);
        for direction in [HtlcDirection::Offered, HtlcDirection::Received] {
            let htlcs = [CommitmentHtlc { direction, amount, ..htlc(0) }];
            let plan = vectors.plan(&cases[0], &htlcs);
            let commitment = CommitmentTx::build(&plan).unwrap();
            let trimmed = is_trimmed(amount, plan.dust_limit);
            assert_eq!(trimmed, offset < 0);
            assert_eq!(commitment.htlc_outputs.is_empty(), trimmed);
            let to_owner = commitment.tx.output[commitment.to_owner_index.unwrap() as usize].value;
            let cost = commitment_cost(plan.feerate, usize::from(!trimmed));
            assert_eq!(Sat::from(to_owner), Sat::new(7_000_000).checked_sub(cost).unwrap());
        }
    }
}

#[test]
fn the_opener_pays_whoever_owns_the_commitment() {
    let vectors = Vectors::new();
    let cases = cases();
    let mut plan = vectors.plan(&cases[0], &[]);
    plan.owner_is_opener = false;
    let commitment = CommitmentTx::build(&plan).unwrap();
    let value = |index: Option<u32>| Sat::from(commitment.tx.output[index.unwrap() as usize].value);
    assert_eq!(value(commitment.to_owner_index), Sat::new(7_000_000));
    assert_eq!(value(commitment.to_other_index), Sat::new(3_000_000 - 16_860 - 660));

    let cost = commitment_cost(plan.feerate, 0);
    for (balance, affordable) in [(cost.get() * 1000, true), (cost.get() * 1000 - 1, false)] {
        plan.to_other = Msat::new(balance);
        let built = CommitmentTx::build(&plan);
        assert_eq!(built.is_ok(), affordable);
        let refused = built.err();
        let expected = (!affordable).then_some(Unaffordable { cost, balance: plan.to_other });
        assert_eq!(refused, expected);
    }
}

#[test]
fn anchors_follow_outputs_and_htlcs() {
    let vectors = Vectors::new();
    let cases = cases();
    let htlcs = [htlc(4)];
    let mut plan = vectors.plan(&cases[0], &htlcs);
    plan.to_other = Msat::ZERO;
    let with_htlc = CommitmentTx::build(&plan).unwrap();
    assert_eq!((with_htlc.to_other_index, with_htlc.other_anchor_index.is_some()), (None, true));
    plan.htlcs = &[];
    let without = CommitmentTx::build(&plan).unwrap();
    assert_eq!((without.to_other_index, without.other_anchor_index), (None, None));
    assert!(without.owner_anchor_index.is_some());
}

#[test]
fn a_closing_transaction_hides_no_commitment_number() {
    let outpoint = OutPoint::null();
    assert_eq!(commitment_number(&closing_transaction(outpoint, Vec::new()), 0), None);
    let no_input =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: Vec::new(), output: Vec::new() };
    assert_eq!(commitment_number(&no_input, 0), None);
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig {
        cases: 128,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
    }
}

proptest! {
    #![proptest_config(seeds_kept())]

    /// CST-8: what acceptance computes from the trimming function is what the built transaction holds, and no
    /// satoshi appears from nowhere.
    #[test]
    fn cst_8_built_transactions_agree_with_the_trimming_function(
        amounts in prop::collection::vec((any::<bool>(), 1_u64..4_000_000, 400_u32..410, 0_u8..3), 0..12),
        to_owner in 0_u64..5_000_000_000,
        to_other in 0_u64..5_000_000_000,
        dust in 354_u64..2_000,
        feerate in 253_u32..5_000,
        number in 0_u64..(1 << 48),
    ) {
        let vectors = Vectors::new();
        let cases = cases();
        let htlcs: Vec<_> = (0..).zip(&amounts).map(|(id, (offered, amount, cltv_expiry, hash))| CommitmentHtlc {
            id,
            direction: if *offered { HtlcDirection::Offered } else { HtlcDirection::Received },
            amount: Msat::new(*amount),
            payment_hash: PaymentPreimage([*hash; 32]).payment_hash(),
            cltv_expiry: *cltv_expiry,
        }).collect();
        let mut plan = vectors.plan(&cases[0], &htlcs);
        plan.number = number;
        plan.dust_limit = Sat::new(dust);
        plan.feerate = FeeratePerKw::new(feerate);
        plan.to_owner = Msat::new(to_owner);
        plan.to_other = Msat::new(to_other);

        let untrimmed = htlcs.iter().filter(|htlc| !is_trimmed(htlc.amount, plan.dust_limit)).count();
        let cost = commitment_cost(plan.feerate, untrimmed);
        let Ok(commitment) = CommitmentTx::build(&plan) else {
            prop_assert!(plan.to_owner.to_sat_floor() < cost);
            return Ok(());
        };
        prop_assert_eq!(commitment.htlc_outputs.len(), untrimmed);
        let paid: u64 = commitment.tx.output.iter().map(|output| output.value.to_sat()).sum();
        let funds = htlcs.iter().map(|htlc| htlc.amount.to_sat_floor().get()).sum::<u64>()
            + plan.to_owner.to_sat_floor().get() + plan.to_other.to_sat_floor().get();
        prop_assert!(paid + commitment_fee(plan.feerate, untrimmed).get() <= funds);
        let factor = obscuring_factor(&vectors.local_payment, &vectors.remote_payment);
        prop_assert_eq!(commitment_number(&commitment.tx, factor), Some(number));

        let sorted = commitment.tx.output.windows(2).all(|pair| {
            (pair[0].value, pair[0].script_pubkey.as_bytes()) <= (pair[1].value, pair[1].script_pubkey.as_bytes())
        });
        prop_assert!(sorted);
        let twins_sorted = commitment.htlc_outputs.windows(2).all(|pair| {
            let [one, two] = [0, 1].map(|place: usize| &commitment.tx.output[pair[place].index as usize]);
            one != two || pair[0].htlc.cltv_expiry <= pair[1].htlc.cltv_expiry
        });
        prop_assert!(twins_sorted);
        let mut shuffled = htlcs.clone();
        shuffled.reverse();
        plan.htlcs = &shuffled;
        prop_assert_eq!(CommitmentTx::build(&plan), Ok(commitment));
    }
}
