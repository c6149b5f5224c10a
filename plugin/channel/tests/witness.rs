//! Witnesses of a transaction that spends the funding output, as blocks may hold them.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use outrigger_channel::{ChainEvent, Input, Phase, Spend};
use pair::{Alice, Fate, Name, Pair, Setup};

fn spend(funding: OutPoint, witness: Witness, outputs: usize) -> Transaction {
    let output = TxOut { value: Amount::from_sat(330), script_pubkey: ScriptBuf::new() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: funding, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness }],
        output: vec![output; outputs],
    }
}

/// Empty, without one element, with elements of every kind of length, with more than a script could take.
fn witnesses() -> Vec<Witness> {
    let elements: [Vec<Vec<u8>>; 8] = [
        vec![],
        vec![vec![]],
        vec![vec![]; 3],
        vec![vec![], vec![0x30], vec![], vec![0x51]],
        vec![vec![], vec![0xff; 72], vec![0xff; 73], vec![0xff; 71]],
        vec![vec![1; 520]; 2],
        vec![vec![2; 400_000]],
        vec![vec![]; 500_000],
    ];
    elements.iter().map(|stack| Witness::from_slice(stack)).collect()
}

/// N<0.18 took the first element of any witness for granted.
#[test]
fn prs_6_a_spend_with_any_witness_or_none_is_taken_in_without_panic() {
    for (number, witness) in witnesses().into_iter().enumerate() {
        for outputs in [0, 1, 5] {
            let mut pair = Pair::connected(1, &Setup::default());
            pair.pay(Alice, outrigger_bolt::amount::Msat::new(20_000_000), Fate::Fulfilled);
            pair.run();
            let funding = pair.node(Alice).channel.rows().params.funding;
            let tx = spend(funding, witness.clone(), outputs);
            for name in Name::BOTH {
                let node = pair.node(name);
                assert_eq!(node.monitor.classify(&tx, &node.signer), Spend::Unknown, "witness {number}");
                let height = pair.world.height + 1;
                pair.input(name, Input::Chain(ChainEvent::FundingSpent { height, tx: &tx }));
                pair.flush(name);
                // What has not the form of a commitment can only be a close, and none was signed over the HTLC.
                let phase = pair.phase(name);
                assert!(matches!(phase, Phase::Failed { publish: false, spend: Some(_), .. }), "{phase:?}");
                pair.input(name, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
                pair.flush(name);
            }
        }
    }
}
