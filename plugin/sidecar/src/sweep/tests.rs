//! Plans: what is paid, for what, and never more than it is worth.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_channel::{Claim, ClaimKind, Publish, SWEEP_DUST};

use super::Turn;
use super::plan::{Draft, Lack, Market, Plan, Prior, budget, plan_child, plan_sweep};
use crate::wallet::Coin;

fn outpoint(number: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([number; 32]), vout: u32::from(number) }
}

fn p2wpkh(number: u8) -> ScriptBuf {
    ScriptBuf::from_bytes([[0x00, 0x14].as_slice(), &[number; 20]].concat())
}

fn coin(number: u8, sat: u64) -> Coin {
    Coin { outpoint: outpoint(number), output: TxOut { value: Amount::from_sat(sat), script_pubkey: p2wpkh(number) } }
}

fn market(sat_per_kw: u32) -> Market {
    Market { height: 1000, target: FeeratePerKw::new(sat_per_kw), floor: FeeratePerKw::FLOOR }
}

fn claim(kind: ClaimKind, sat: u64, script_bytes: usize) -> Claim {
    Claim {
        kind,
        outpoint: outpoint(200),
        output: TxOut { value: Amount::from_sat(sat), script_pubkey: ScriptBuf::new() },
        from_height: 0,
        deadline: None,
        at_stake: Sat::new(sat),
        commitment_number: 1,
        delay: 0,
        witness_script: ScriptBuf::from_bytes(vec![0; script_bytes]),
    }
}

/// A commitment of about 1116 weight units that pays `fee`, with so much of ours in it.
fn publish(fee: u64, at_stake: u64) -> Publish {
    let output = TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::from_bytes(vec![0; 34]) };
    let mut witness = Witness::new();
    for length in [0, 72, 72, 71] {
        witness.push(vec![0; length]);
    }
    let input = TxIn { previous_output: outpoint(99), script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness };
    let tx =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output; 4] };
    let anchor = Claim { at_stake: Sat::new(at_stake), ..claim(ClaimKind::Anchor, 330, 40) };
    Publish { tx, fee: Sat::new(fee), anchor: Some(anchor), at_stake: Sat::new(at_stake) }
}

/// The draft with witnesses as long as they can be: the script of an anchor is 40 bytes, that of the sweeps here 77.
fn made(plan: Plan) -> Draft {
    let Plan::Make(mut draft) = plan else { panic!("{plan:?}") };
    let is_child = draft.tx.input.len() > 1;
    for (index, input) in draft.tx.input.iter_mut().enumerate() {
        input.witness.push([1; 72]);
        match (index, is_child) {
            (0, true) => input.witness.push([1; 40]),
            (0, false) => {
                input.witness.push([]);
                input.witness.push([1; 77]);
            }
            (1.., _) => input.witness.push([1; 33]),
        }
    }
    draft
}

fn assert_sound(draft: &Draft) {
    let paid: Amount = draft.tx.output.iter().map(|output| output.value).sum();
    let put_in: Amount = draft.spent.iter().map(|output| output.value).sum();
    assert_eq!(Sat::from(put_in - paid), draft.fee, "every satoshi is accounted for");
    assert_eq!(draft.tx.input.len(), draft.spent.len());
    assert!(draft.tx.output.iter().all(|output| Sat::from(output.value) >= SWEEP_DUST));
    assert!(draft.tx.input.iter().all(|input| input.sequence.is_rbf()));
}

fn again<'a>(draft: &'a Draft, since_height: u32, refusals: u32) -> Option<Prior<'a>> {
    Some(Prior { tx: &draft.tx, fee: draft.fee, since_height, refusals })
}

#[test]
fn the_package_reaches_the_feerate_and_the_child_alone_does_too() {
    let publish = publish(280, 1_000_000);
    for rate in [300, 1000, 5000, 25_000] {
        let draft = made(plan_child(&publish, None, &[coin(1, 1_000_000)], &p2wpkh(9), &market(rate)));
        assert_sound(&draft);
        let child = draft.tx.weight().to_wu();
        let package = child + publish.tx.weight().to_wu();
        let per_kw = (draft.fee.get() + publish.fee.get()) * 1000 / package;
        assert!((u64::from(rate)..=u64::from(rate) * 102 / 100 + 5).contains(&per_kw), "{rate}: {per_kw}");
        assert!(draft.fee.get() * 1000 / child >= u64::from(rate));
        assert_eq!(draft.tx.output[0].script_pubkey, p2wpkh(9));
    }
}

#[test]
fn a_commitment_that_pays_enough_goes_alone_and_so_does_one_with_nothing_of_ours() {
    let mut publish = publish(5000, 1_000_000);
    let coins = [coin(1, 1_000_000)];
    assert_eq!(plan_child(&publish, None, &coins, &p2wpkh(9), &market(1000)), Plan::Alone);
    assert!(matches!(plan_child(&publish, None, &coins, &p2wpkh(9), &market(10_000)), Plan::Make(_)));
    publish.anchor = None;
    assert_eq!(plan_child(&publish, None, &coins, &p2wpkh(9), &market(10_000)), Plan::Alone);
}

#[test]
fn the_smallest_single_coin_that_suffices_is_taken_else_the_largest_together() {
    let publish = publish(0, 1_000_000);
    let one =
        made(plan_child(&publish, None, &[coin(1, 900_000), coin(2, 700), coin(3, 20_000)], &p2wpkh(9), &market(1000)));
    assert_eq!(one.tx.input[1].previous_output, outpoint(3));
    let many = [coin(1, 500), coin(2, 450), coin(3, 600), coin(4, 550)];
    let draft = made(plan_child(&publish, None, &many, &p2wpkh(9), &market(500)));
    assert_sound(&draft);
    assert_eq!(draft.tx.input[1].previous_output, outpoint(3));
    assert_eq!(draft.tx.input.len(), 3);
    let lacks = plan_child(&publish, None, &many[..2], &p2wpkh(9), &market(5000));
    assert!(matches!(lacks, Plan::Lacks(Lack::Coins(_))), "{lacks:?}");
    assert!(matches!(plan_child(&publish, None, &[], &p2wpkh(9), &market(1000)), Plan::Lacks(Lack::Coins(_))));
}

#[test]
fn occ_2_no_fee_is_above_the_budget_whatever_the_market_asks() {
    for (at_stake, most) in [(0, 0), (1, 1), (600, 600), (1000, 1000), (1999, 1000), (2002, 1001), (500_000, 250_000)] {
        assert_eq!(budget(Sat::new(at_stake)), Sat::new(most), "{at_stake}");
    }
    for at_stake in [0, 500, 1500, 20_000, 3_000_000] {
        let publish = publish(280, at_stake);
        for rate in [253, 1000, 60_000, u32::MAX] {
            let plan = plan_child(&publish, None, &[coin(1, 90_000_000)], &p2wpkh(9), &market(rate));
            if let Plan::Make(draft) = plan {
                assert_sound(&draft);
                assert!(draft.fee <= budget(Sat::new(at_stake)), "{at_stake} at {rate}: {}", draft.fee);
            }
            let swept = plan_sweep(&claim(ClaimKind::ToLocal, at_stake, 77), None, &p2wpkh(9), &market(rate));
            if let Plan::Make(draft) = swept {
                assert_sound(&draft);
                assert!(draft.fee.get() <= at_stake / 2, "{at_stake} at {rate}: {}", draft.fee);
            }
        }
    }
    let dear = Market { floor: FeeratePerKw::new(50_000), ..market(1000) };
    let lacks = plan_child(&publish(280, 10_000), None, &[coin(1, 90_000_000)], &p2wpkh(9), &dear);
    assert!(matches!(lacks, Plan::Lacks(Lack::Budget { .. })), "{lacks:?}");
    // With more at stake all of the budget is spent, where that is enough for the mempool.
    let draft = made(plan_child(&publish(280, 200_000), None, &[coin(1, 90_000_000)], &p2wpkh(9), &market(900_000)));
    assert_eq!(draft.fee, Sat::new(100_000));
}

#[test]
fn occ_8_a_replacement_pays_more_than_what_it_replaces_and_its_feerate_never_goes_down() {
    let publish = publish(280, 5_000_000);
    let coins = [coin(1, 90_000), coin(2, 4_000_000)];
    let mut prior = made(plan_child(&publish, None, &coins, &p2wpkh(9), &market(1000)));
    for rate in [1000, 900, 253] {
        let plan = plan_child(&publish, again(&prior, 1000, 0), &coins, &p2wpkh(9), &market(rate));
        assert_eq!(plan, Plan::Keep, "{rate}");
    }
    for rate in [1010, 1500, 2500, 40_000] {
        let next = made(plan_child(&publish, again(&prior, 1000, 0), &coins, &p2wpkh(9), &market(rate)));
        assert_sound(&next);
        let weight = next.tx.weight().to_wu();
        assert!(next.fee.get() >= prior.fee.get() + weight.div_ceil(4), "BIP 125 rules 3 and 4");
        prior = next;
    }
    // A coin of it is gone: another child, which pays more all the same.
    let next = made(plan_child(&publish, again(&prior, 1000, 0), &coins[1..], &p2wpkh(9), &market(253)));
    assert!(next.fee > prior.fee && next.tx.input.iter().all(|input| input.previous_output != outpoint(1)));
    // None is left: what was made stays.
    assert_eq!(plan_child(&publish, again(&prior, 1000, 0), &[], &p2wpkh(9), &market(253)), Plan::Keep);
}

#[test]
fn occ_6_the_feerate_rises_with_time_and_refusals_and_reaches_the_budget_before_a_deadline() {
    let mut publish = publish(280, 1_000_000);
    let coins = [coin(1, 90_000_000)];
    let first = made(plan_child(&publish, None, &coins, &p2wpkh(9), &market(253)));
    let at = |height: u32| Market { height, ..market(253) };
    assert_eq!(plan_child(&publish, again(&first, 1000, 0), &coins, &p2wpkh(9), &at(1005)), Plan::Keep);
    let later = made(plan_child(&publish, again(&first, 1000, 0), &coins, &p2wpkh(9), &at(1006)));
    let much_later = made(plan_child(&publish, again(&first, 1000, 0), &coins, &p2wpkh(9), &at(1126)));
    assert!(later.fee > first.fee && much_later.fee.get() > 50 * first.fee.get(), "{}", much_later.fee);
    let refused = made(plan_child(&publish, again(&first, 1000, 1), &coins, &p2wpkh(9), &at(1000)));
    assert!(refused.fee > first.fee);
    // An estimator that is stuck at the floor, and a deadline.
    let anchor = publish.anchor.as_mut().unwrap();
    anchor.deadline = Some(1031);
    let mut prior = made(plan_child(&publish, None, &coins, &p2wpkh(9), &at(1000)));
    for height in 1001..1031 {
        let plan = plan_child(&publish, again(&prior, 1000, 0), &coins, &p2wpkh(9), &at(height));
        let next = made(plan);
        assert!(next.fee > prior.fee && next.fee <= Sat::new(500_000));
        prior = next;
    }
    assert!(prior.fee.get() > 490_000, "at the last block the budget is used: {}", prior.fee);
}

#[test]
fn a_sweep_waits_for_its_block_and_goes_where_it_is_told() {
    let mut claim = claim(ClaimKind::ToLocal, 600_000, 77);
    claim.delay = 144;
    claim.from_height = 1002;
    assert_eq!(plan_sweep(&claim, None, &p2wpkh(9), &market(1000)), Plan::NotYet);
    claim.from_height = 1001;
    let draft = made(plan_sweep(&claim, None, &p2wpkh(9), &market(1000)));
    assert_sound(&draft);
    assert_eq!(draft.tx.input[0].sequence, Sequence::from_height(144));
    assert_eq!(draft.tx.output[0].script_pubkey, p2wpkh(9));
    let weight = draft.tx.weight().to_wu();
    assert_eq!(weight, claim.sweep_weight());
    let rate = draft.fee.get() * 1000 / weight;
    assert!((1000..=1020).contains(&rate), "{rate}");
    assert_eq!(plan_sweep(&claim, again(&draft, 1000, 0), &p2wpkh(9), &market(500)), Plan::Keep);
    let next = made(plan_sweep(&claim, again(&draft, 1000, 0), &p2wpkh(9), &market(1010)));
    assert!(next.fee.get() >= draft.fee.get() + weight.div_ceil(4), "BIP 125 rules 3 and 4");
    let dear = Market { floor: FeeratePerKw::new(900_000), ..market(1000) };
    assert!(matches!(plan_sweep(&claim, None, &p2wpkh(9), &dear), Plan::Lacks(Lack::Budget { .. })));
}

#[test]
fn plans_of_arbitrary_amounts_never_panic() {
    for sat in [0, 1, 293, 294, 330, 353, 354, 600, 2_100_000_000_000_000, u64::MAX / 2] {
        for rate in [0, 253, u32::MAX] {
            for height in [0, u32::MAX] {
                let market = Market { height, target: FeeratePerKw::new(rate), floor: FeeratePerKw::new(rate) };
                let mut claim = claim(ClaimKind::ToRemote, sat, 37);
                for deadline in [None, Some(0), Some(u32::MAX)] {
                    claim.deadline = deadline;
                    let _plan = plan_sweep(&claim, None, &p2wpkh(1), &market);
                    let publish = publish(sat, sat);
                    let _plan = plan_child(&publish, None, &[coin(1, sat), coin(2, 1)], &p2wpkh(1), &market);
                }
            }
        }
    }
}

/// Between a block that left and the next one, which may hold the same transactions, none is made anew.
#[test]
fn reo_1_occ_8_nothing_is_planned_between_a_block_that_left_and_the_next_one() {
    let mut turn = Turn::default();
    turn.ask();
    assert!(turn.has_come());
    for _ in 0..2 {
        turn.block_left();
        assert!(!turn.has_come());
        // What the disconnected block makes channels order.
        turn.ask();
        assert!(!turn.has_come());
    }
    turn.block_came();
    assert!(turn.has_come());
    turn.take();
    assert!(!turn.has_come());
    // Where no block comes for long, it is taken all the same: a deadline may be near.
    turn.block_left();
    turn.take();
    turn.ask();
    assert!(turn.has_come());
}
