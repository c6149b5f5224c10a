//! A channel that failed, on the chain: what is published, what is ours in what stands there, and when it is over.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::keys::verify;
use outrigger_bolt::tx::{claim, script};
use outrigger_bolt::wire::{Message, UpdateFulfillHtlc};
use outrigger_channel::{
    ChainEvent, ChannelNote, Claim, ClaimKind, Command, Enforcement, HtlcOutcome, Input, Monitor, Offerer, Phase,
    Publish, Signer, Spend, Watch,
};
use pair::{Alice, Bob, Fate, Name, Pair, Setup};

/// A channel with balances on both sides and some past.
fn with_balances() -> Pair {
    let mut pair = Pair::connected(31, &Setup::default());
    for round in 0..3u64 {
        pair.pay(Alice, Msat::new(120_000_000 + round), Fate::Fulfilled);
        pair.heal();
    }
    pair
}

fn fail(pair: &mut Pair, name: Name) {
    pair.order(name, Command::Fail { reason: "asked for".to_owned() }).expect("an order");
    pair.flush(name);
}

fn enforcement(pair: &Pair, name: Name) -> Enforcement {
    let node = pair.node(name);
    node.monitor.enforcement(&node.signer).expect("a failed channel")
}

fn publish(pair: &Pair, name: Name) -> Publish {
    enforcement(pair, name).publish.expect("a commitment to publish")
}

/// The commitment that a side would publish now, signed by both.
fn commitment(pair: &Pair, name: Name) -> Transaction {
    let node = pair.node(name);
    node.monitor.local_commitment_tx(&node.signer).expect("our newest commitment")
}

fn spent(pair: &mut Pair, name: Name, height: u32, tx: &Transaction) {
    pair.world.height = pair.world.height.max(height);
    pair.input(name, Input::Chain(ChainEvent::FundingSpent { height, tx }));
    pair.flush(name);
}

/// A transaction that takes the claim and pays all but the fee to somebody.
fn sweep(pair: &Pair, name: Name, claim: &Claim, fee: Sat) -> Transaction {
    let mut tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![claim.input()],
        output: vec![TxOut {
            value: claim.value().saturating_sub(fee).into(),
            script_pubkey: ScriptBuf::from([[0x00, 0x14].as_slice(), &[7; 20]].concat()),
        }],
    };
    let node = pair.node(name);
    let params = &node.channel.rows().params;
    tx.input[0].witness = claim.witness(&node.signer, params, &tx, 0).expect("a claim of ours");
    tx
}

fn output_spent(pair: &mut Pair, name: Name, claim: &Claim, height: u32, tx: &Transaction) {
    pair.world.height = pair.world.height.max(height);
    let event =
        ChainEvent::OutputSpent { outpoint: claim.outpoint, kind: claim.kind, value: claim.value(), height, tx };
    pair.input(name, Input::Chain(event));
    pair.flush(name);
}

fn height(pair: &mut Pair, name: Name, height: u32) {
    pair.world.height = height;
    pair.input(name, Input::Chain(ChainEvent::Height(height)));
    pair.flush(name);
}

fn watches(pair: &Pair, name: Name) -> Vec<Watch> {
    let node = pair.node(name);
    node.monitor.watches(&node.signer, pair.world.policy.close_depth)
}

#[test]
fn a_failed_channel_gives_its_newest_commitment_its_anchor_and_what_is_at_stake() {
    let mut pair = with_balances();
    assert_eq!(pair.node(Alice).monitor.enforcement(&pair.node(Alice).signer), None, "nothing has failed");
    fail(&mut pair, Alice);
    let found = publish(&pair, Alice);
    assert_eq!(found.tx, commitment(&pair, Alice));
    let rows = pair.node(Alice).monitor.rows();
    let paid: Amount = found.tx.output.iter().map(|output| output.value).sum();
    assert_eq!(found.fee, rows.params.capacity.saturating_sub(paid.into()));
    assert_eq!(found.at_stake, rows.head.local.to_local.to_sat_floor());
    let anchor = found.anchor.expect("an anchor of ours");
    assert_eq!((anchor.kind, anchor.value()), (ClaimKind::Anchor, Sat::new(330)));
    let script = script::anchor(&rows.params.local.basepoints.funding_pubkey);
    assert_eq!(anchor.output.script_pubkey, script::p2wsh(&script));
    assert_eq!(anchor.at_stake, found.at_stake);
    assert_eq!(anchor.input().sequence, Sequence::ENABLE_RBF_NO_LOCKTIME);
    assert!(enforcement(&pair, Alice).claims.is_empty());
}

#[test]
fn htlcs_that_are_ours_count_as_at_stake_and_others_do_not() {
    let mut pair = with_balances();
    pair.pay(Alice, Msat::new(40_000_000), Fate::Fulfilled);
    pair.pay(Bob, Msat::new(7_000_000), Fate::Fulfilled);
    pair.run();
    for (name, offered) in [(Alice, 40_000), (Bob, 7_000)] {
        fail(&mut pair, name);
        let local = pair.node(name).monitor.rows().head.local.to_local.to_sat_floor();
        assert_eq!(publish(&pair, name).at_stake, local.saturating_add(Sat::new(offered)), "{name:?}");
    }
}

#[test]
fn our_own_commitment_gives_to_local_after_the_delay_of_the_peer() {
    let mut pair = with_balances();
    fail(&mut pair, Alice);
    let tx = commitment(&pair, Alice);
    spent(&mut pair, Alice, 700, &tx);
    let Enforcement { publish, claims } = enforcement(&pair, Alice);
    assert_eq!(publish, None, "it stands in the chain");
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    let params = &pair.node(Alice).channel.rows().params;
    let delay = params.remote.to_self_delay;
    assert_eq!((claim.kind, claim.from_height), (ClaimKind::ToLocal, 700 + u32::from(delay)));
    assert_eq!(claim.input().sequence, Sequence::from_height(delay));
    assert_eq!(claim.at_stake, claim.value());
    assert_signed_and_weighed(&pair, Alice, claim);
}

#[test]
fn every_commitment_of_the_peer_gives_to_remote_after_one_block() {
    let mut pair = with_balances();
    let params = pair.node(Bob).channel.rows().params.clone();
    // Alice has signed a next commitment that Bob has not revoked the one before for.
    pair.pay(Alice, Msat::new(1_000_000), Fate::Fulfilled);
    pair.command(Alice, Command::Commit);
    pair.flush(Alice);
    let given = pair.node(Alice).given_by_number();
    let head = pair.node(Alice).monitor.rows().head.clone();
    let next = head.remote_next.as_ref().map_or(head.remote.number, |next| next.number);
    fail(&mut pair, Alice);
    let mut seen = Vec::new();
    for (number, commitment) in given.iter().filter(|(number, _)| **number + 4 >= next) {
        spent(&mut pair, Alice, 700, &commitment.tx);
        let claims = enforcement(&pair, Alice).claims;
        let index = commitment.to_other_index.expect("our balance is in it");
        let [claim] = claims.as_slice() else { panic!("{number}: {claims:?}") };
        assert_eq!((claim.kind, claim.from_height), (ClaimKind::ToRemote, 701));
        assert_eq!(claim.outpoint, OutPoint { txid: commitment.txid(), vout: index });
        assert_eq!(claim.input().sequence, Sequence::from_consensus(1));
        assert_signed_and_weighed(&pair, Alice, claim);
        seen.push(pair.node(Alice).monitor.classify(&commitment.tx, &pair.node(Alice).signer));
        let told = pair.node(Alice).notes.last().cloned();
        let value = claim.value();
        assert!(
            matches!(told, Some(ChannelNote::Spent { what, ours, from_height: 701, .. })
                if ours == value && seen.last() == Some(&what)),
            "{told:?}"
        );
    }
    assert!(seen.contains(&Spend::Remote) && seen.contains(&Spend::RemoteNext), "{seen:?}");
    assert!(seen.iter().any(|spend| matches!(spend, Spend::Revoked(_))), "{seen:?}");
    assert_eq!(params.local.to_self_delay, pair.node(Alice).channel.rows().params.remote.to_self_delay);
}

/// The signature is over what it should be, and the estimated weight is that of the real transaction or little more.
fn assert_signed_and_weighed(pair: &Pair, name: Name, claim: &Claim) {
    let tx = sweep(pair, name, claim, Sat::new(500));
    let witness = &tx.input[0].witness;
    let bytes = witness.nth(0).expect("a signature");
    let signature = bitcoin::ecdsa::Signature::from_slice(bytes).expect("a signature").signature;
    let witness_script = ScriptBuf::from(witness.last().expect("a script").to_vec());
    assert_eq!(claim.output.script_pubkey, script::p2wsh(&witness_script));
    let sighash = claim::input_sighash(&tx, 0, &witness_script, claim.value()).expect("an input");
    let node = pair.node(name);
    let key = match claim.kind {
        ClaimKind::ToRemote => node.signer.basepoints().payment,
        ClaimKind::ToLocal => {
            let head = &node.monitor.rows().head.local;
            let point = node.signer.per_commitment_point(head.number);
            outrigger_bolt::keys::derivation::derive_public_key(&node.signer.basepoints().delayed_payment, &point)
                .expect("a key")
        }
        other => panic!("{other:?}"),
    };
    verify(&sighash, &signature, &key).expect("our signature");
    let (estimate, real) = (claim.sweep_weight(), tx.weight().to_wu());
    assert!((real..=real + 2).contains(&estimate), "{:?}: estimated {estimate}, really {real}", claim.kind);
}

#[test]
fn occ_16_a_state_that_our_rows_do_not_explain_gives_to_remote_and_nothing_of_ours_is_published() {
    let mut pair = with_balances();
    let old = pair.node(Alice).store.clone();
    for _ in 0..2 {
        pair.pay(Bob, Msat::new(9_000_000), Fate::Fulfilled);
        pair.heal();
    }
    let newer = commitment(&pair, Bob);
    let balance = pair.node(Alice).monitor.rows().head.local.to_local.to_sat_floor();
    pair.disconnect();
    pair.restore(Alice, old);
    spent(&mut pair, Alice, 700, &newer);
    assert!(matches!(pair.phase(Alice), Phase::Failed { publish: false, spend: Some(_), .. }));
    let Enforcement { publish, claims } = enforcement(&pair, Alice);
    assert_eq!(publish, None);
    let [claim] = claims.as_slice() else { panic!("{claims:?}") };
    assert_eq!(claim.kind, ClaimKind::ToRemote);
    assert!(claim.value() <= balance && claim.value().get() + 5000 > balance.get(), "{}", claim.value());
    assert_signed_and_weighed(&pair, Alice, claim);
    // Not published either where the chain takes it back.
    pair.input(Alice, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
    assert_eq!(enforcement(&pair, Alice), Enforcement { publish: None, claims: Vec::new() });
}

#[test]
fn occ_16_a_spend_that_is_no_commitment_panics_nobody() {
    let mut pair = with_balances();
    fail(&mut pair, Alice);
    let funding = pair.node(Alice).channel.rows().params.funding;
    for outputs in [0, 1, 3] {
        let output = TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::new() };
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: funding,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![output; outputs],
        };
        spent(&mut pair, Alice, 700 + outputs as u32, &tx);
        assert_eq!(enforcement(&pair, Alice), Enforcement { publish: None, claims: Vec::new() });
    }
    let buried = 703 + pair.world.policy.close_depth - 1;
    height(&mut pair, Alice, buried);
    assert!(matches!(pair.phase(Alice), Phase::Closed { height: 703, .. }), "{:?}", pair.phase(Alice));
}

#[test]
fn occ_16_a_close_that_nobody_signed_is_told_loudly() {
    let mut pair = with_balances();
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: pair.node(Alice).channel.rows().params.funding, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::new() }],
    };
    spent(&mut pair, Alice, 700, &tx);
    let alarm = |note: &ChannelNote| matches!(note, ChannelNote::Spent { what: Spend::Unknown, ours: Sat::ZERO, .. });
    assert_eq!(pair.node(Alice).notes.iter().filter(|note| alarm(note)).count(), 1);
}

/// A file that was restored from before a cooperative close: its payment is not known to have failed, and never is.
#[test]
fn bak_1_occ_16_a_close_that_the_file_knows_nothing_of_proves_it_old_and_tells_no_outcome() {
    for (failed_before, shutting_down) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut pair = with_balances();
        // One with an output, and one without.
        for amount in [40_000_000, 300_000] {
            pair.pay(Alice, Msat::new(amount), Fate::Fulfilled);
        }
        pair.run();
        let script = pair.node(Alice).shutdown_script.clone();
        let shutdown = Command::Shutdown { script, feerate: FeeratePerKw::new(1500) };
        if shutting_down {
            pair.order(Alice, shutdown.clone()).expect("a shutdown");
            pair.run();
        }
        let old = pair.node(Alice).store.clone();
        pair.heal();
        if !shutting_down {
            pair.order(Alice, shutdown).expect("a shutdown");
            pair.run();
        }
        let Phase::Closing { tx: close, .. } = pair.phase(Bob).clone() else { panic!("{:?}", pair.phase(Bob)) };
        pair.disconnect();
        pair.restore(Alice, old);
        let pending = pair.node(Alice).channel.rows().htlcs.len();
        assert_eq!(pending, 2, "the file is of a time when the payments were under way");
        if failed_before {
            fail(&mut pair, Alice);
        }
        let notes = pair.node(Alice).notes.len();
        spent(&mut pair, Alice, 700, &close);
        let what = format!("failed before: {failed_before}, shutting down: {shutting_down}");
        assert!(matches!(pair.phase(Alice), Phase::Failed { publish: false, spend: Some(_), .. }), "{what}");
        let alarm = |note: &ChannelNote| matches!(note, ChannelNote::Spent { what: Spend::Unknown, .. });
        assert!(pair.node(Alice).notes.iter().skip(notes).any(alarm), "{what}");
        assert!(pair.node(Alice).restored, "{what}");
        for round in 0..3 {
            height(&mut pair, Alice, 1000 + round);
            assert!(pair.node(Alice).is_failed(), "{what}: nobody knows what became of them");
            assert!(
                !pair.node(Alice).outcomes().keys().any(|id| *id >= 3),
                "{what}: {:?}",
                pair.node(Alice).outcomes()
            );
            pair.crash(Alice);
        }
    }
}

#[test]
fn a_close_that_the_peer_alone_holds_both_signatures_of_is_no_proof_of_old_rows() {
    for failed_before in [false, true] {
        let mut pair = with_balances();
        let script = pair.node(Alice).shutdown_script.clone();
        let shutdown = Command::Shutdown { script, feerate: FeeratePerKw::new(1500) };
        pair.order(Alice, shutdown).expect("a shutdown");
        // Alice signs; what Bob answers is lost.
        while !matches!(pair.phase(Bob), Phase::Closing { .. }) {
            let moved =
                [Alice, Bob].into_iter().any(|name| pair.commit(name)) || pair.receive(Bob) || pair.receive(Alice);
            assert!(moved, "the close comes about");
        }
        let Phase::Closing { tx: close, .. } = pair.phase(Bob).clone() else { panic!("a close") };
        pair.disconnect();
        assert!(matches!(pair.phase(Alice), Phase::ShuttingDown { signed: true, .. }), "{:?}", pair.phase(Alice));
        if failed_before {
            fail(&mut pair, Alice);
        }
        spent(&mut pair, Alice, 700, &close);
        assert!(!pair.node(Alice).restored);
        let buried = 700 + pair.world.policy.close_depth - 1;
        height(&mut pair, Alice, buried);
        assert!(matches!(pair.phase(Alice), Phase::Closed { .. }), "{:?}", pair.phase(Alice));
    }
}

#[test]
fn reo_5_what_is_ours_follows_from_the_chain_as_it_stands_now() {
    let mut pair = with_balances();
    fail(&mut pair, Alice);
    let (ours, theirs) = (commitment(&pair, Alice), commitment(&pair, Bob));
    let fresh = pair.node(Alice).monitor.rows().clone();
    let view = |pair: &Pair| (enforcement(pair, Alice), watches(pair, Alice));
    let before = view(&pair);
    spent(&mut pair, Alice, 700, &ours);
    let with_ours = view(&pair);
    pair.crash(Alice);
    assert_eq!(view(&pair), with_ours, "a restart changes nothing");
    for _ in 0..2 {
        pair.input(Alice, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
        assert_eq!(view(&pair), before);
        spent(&mut pair, Alice, 702, &theirs);
        let claims = enforcement(&pair, Alice).claims;
        assert!(matches!(claims.as_slice(), [Claim { kind: ClaimKind::ToRemote, .. }]), "{claims:?}");
        // Swapped in one reorganisation, without a word in between.
        spent(&mut pair, Alice, 700, &ours);
        assert_eq!(view(&pair), with_ours);
    }
    pair.input(Alice, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
    let mut after = pair.node(Alice).monitor.rows().clone();
    // Nobody takes back what was told.
    assert_eq!(after.head.told_spend.take(), Some((ours.compute_txid(), 700)));
    after.head.update_id = fresh.head.update_id;
    assert_eq!(after, fresh, "disconnected and connected again is as if never");
}

#[test]
fn occ_14_events_that_are_told_again_change_nothing() {
    let mut pair = with_balances();
    fail(&mut pair, Alice);
    let tx = commitment(&pair, Alice);
    spent(&mut pair, Alice, 700, &tx);
    let claim = enforcement(&pair, Alice).claims.remove(0);
    let swept = sweep(&pair, Alice, &claim, Sat::new(500));
    output_spent(&mut pair, Alice, &claim, 900, &swept);
    let rows = pair.node(Alice).monitor.rows().clone();
    let notes = pair.node(Alice).notes.len();
    for _ in 0..2 {
        spent(&mut pair, Alice, 700, &tx);
        output_spent(&mut pair, Alice, &claim, 900, &swept);
    }
    assert_eq!(*pair.node(Alice).monitor.rows(), rows);
    assert_eq!(pair.node(Alice).notes.len(), notes);
}

/// A crash may come after the rows of a spend and before those of its block: the start takes the spend back, and sees it again.
#[test]
fn per_4_occ_14_a_spend_that_is_seen_in_its_block_again_is_told_once() {
    for revoked in [false, true] {
        let mut pair = with_balances();
        let old = commitment(&pair, Bob);
        pair.pay(Bob, Msat::new(5_000_000), Fate::Fulfilled);
        pair.heal();
        let newest = commitment(&pair, Bob);
        let tx = if revoked { old } else { newest };
        let told = |pair: &Pair| {
            let is_spend = |note: &&ChannelNote| matches!(note, ChannelNote::Spent { .. });
            pair.node(Alice).notes.iter().filter(is_spend).count()
        };
        spent(&mut pair, Alice, 700, &tx);
        assert_eq!(told(&pair), 1);
        for crashes in [true, false, true] {
            if crashes {
                pair.crash(Alice);
            }
            pair.input(Alice, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
            spent(&mut pair, Alice, 700, &tx);
            assert_eq!(told(&pair), 1);
        }
        // In another block it is news: what is ours is free later.
        pair.input(Alice, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
        spent(&mut pair, Alice, 702, &tx);
        assert_eq!(told(&pair), 2);
    }
}

#[test]
fn occ_13_reo_1_a_channel_is_closed_when_spend_and_sweep_are_buried_and_not_before() {
    let mut pair = with_balances();
    fail(&mut pair, Alice);
    let depth = pair.world.policy.close_depth;
    let tx = commitment(&pair, Alice);
    spent(&mut pair, Alice, 700, &tx);
    let claim = enforcement(&pair, Alice).claims.remove(0);
    height(&mut pair, Alice, 700 + depth);
    assert!(pair.node(Alice).is_failed(), "the balance is still in the chain");
    let swept = sweep(&pair, Alice, &claim, Sat::new(500));
    output_spent(&mut pair, Alice, &claim, 900, &swept);
    assert!(enforcement(&pair, Alice).claims.is_empty());
    assert!(watches(&pair, Alice).contains(&Watch::Height(900 + depth - 1)));
    // A reorganisation takes the sweep out of its block, and puts it into a later one.
    pair.input(Alice, Input::Chain(ChainEvent::OutputsUnspent { from_height: 900 }));
    assert_eq!(enforcement(&pair, Alice).claims, std::slice::from_ref(&claim));
    height(&mut pair, Alice, 900 + depth);
    assert!(pair.node(Alice).is_failed());
    output_spent(&mut pair, Alice, &claim, 910, &swept);
    pair.crash(Alice);
    height(&mut pair, Alice, 910 + depth - 2);
    assert!(pair.node(Alice).is_failed());
    height(&mut pair, Alice, 910 + depth - 1);
    assert_eq!(*pair.phase(Alice), Phase::Closed { txid: tx.compute_txid(), height: 910 });
    let home = ChannelNote::Swept {
        txid: swept.compute_txid(),
        amount: claim.value().saturating_sub(Sat::new(500)),
        fee: Some(Sat::new(500)),
    };
    let ours = pair.node(Alice).channel.summary(910).local;
    let closed = ChannelNote::Closed { txid: tx.compute_txid(), height: 910, ours, paid: None };
    assert_eq!(pair.node(Alice).notes[pair.node(Alice).notes.len() - 2..], [home, closed]);
    let node = pair.node(Alice);
    assert_eq!(node.monitor.enforcement(&node.signer), None);
    assert!(watches(&pair, Alice).is_empty());
    assert!(node.monitor.rows().spend.is_none() && node.monitor.rows().taken.is_empty(), "history takes no memory");
    Monitor::load(node.monitor.rows().clone()).expect("rows of a monitor");
}

#[test]
fn a_balance_too_small_to_be_taken_stays_where_it_is_and_the_channel_ends() {
    let mut pair = Pair::connected(33, &Setup { push: Msat::new(400_000), ..Setup::default() });
    fail(&mut pair, Bob);
    let tx = commitment(&pair, Alice);
    spent(&mut pair, Bob, 700, &tx);
    assert!(enforcement(&pair, Bob).claims.is_empty());
    let buried = 701 + pair.world.policy.close_depth - 1;
    height(&mut pair, Bob, buried);
    assert!(matches!(pair.phase(Bob), Phase::Closed { .. }), "{:?}", pair.phase(Bob));
}

#[test]
fn htlc_outputs_and_revoked_commitments_keep_a_channel_failed() {
    let mut pair = with_balances();
    pair.pay(Alice, Msat::new(40_000_000), Fate::Fulfilled);
    pair.run();
    fail(&mut pair, Bob);
    let tx = commitment(&pair, Bob);
    spent(&mut pair, Bob, 700, &tx);
    let claim = enforcement(&pair, Bob).claims.remove(0);
    let swept = sweep(&pair, Bob, &claim, Sat::new(500));
    output_spent(&mut pair, Bob, &claim, 900, &swept);
    height(&mut pair, Bob, 2000);
    assert!(pair.node(Bob).is_failed(), "an HTLC output is not resolved yet");
    let home = |pair: &Pair, name| {
        let notes = pair.node(name).notes.iter();
        notes.filter(|note| matches!(note, ChannelNote::Swept { fee: Some(fee), .. } if fee.get() == 500)).count()
    };
    assert_eq!(home(&pair, Bob), 1, "what came home is told all the same");
    pair.crash(Bob);
    height(&mut pair, Bob, 2001);
    assert_eq!(home(&pair, Bob), 1, "and once");
    fail(&mut pair, Alice);
    let revoked = pair.node(Alice).given_by_number().remove(&1).expect("a commitment");
    spent(&mut pair, Alice, 700, &revoked.tx);
    let claim = enforcement(&pair, Alice).claims.remove(0);
    let swept = sweep(&pair, Alice, &claim, Sat::new(500));
    output_spent(&mut pair, Alice, &claim, 710, &swept);
    height(&mut pair, Alice, 714);
    assert_eq!(home(&pair, Alice), 0, "not before it is buried");
    height(&mut pair, Alice, 715);
    assert_eq!(home(&pair, Alice), 1);
    height(&mut pair, Alice, 2000);
    assert!(pair.node(Alice).is_failed(), "the penalty is not there yet");
}

#[test]
fn a_claim_is_worth_taking_if_half_of_it_pays_the_lowest_feerate_and_leaves_no_dust() {
    let mut pair = with_balances();
    fail(&mut pair, Alice);
    let tx = commitment(&pair, Alice);
    spent(&mut pair, Alice, 700, &tx);
    let mut claim = enforcement(&pair, Alice).claims.remove(0);
    let fee = FeeratePerKw::FLOOR.fee(claim.sweep_weight()).get();
    for (value, worth) in [(fee + 293, false), (fee + 294, true), (354, false), (100_000, true), (0, false)] {
        claim.output.value = Amount::from_sat(value);
        assert_eq!(claim.is_worth_taking(), worth, "{value} at a fee of {fee}");
    }
}

#[test]
fn an_order_to_fail_does_not_undo_a_close_that_is_in_a_block() {
    let mut pair = with_balances();
    let script = pair.node(Alice).shutdown_script.clone();
    let shutdown = Command::Shutdown { script, feerate: FeeratePerKw::new(1500) };
    pair.order(Alice, shutdown).expect("a shutdown");
    pair.run();
    pair.mine();
    pair.command(Alice, Command::Fail { reason: "asked for".to_owned() });
    pair.flush(Alice);
    assert!(matches!(pair.phase(Alice), Phase::Closing { confirmed_height: Some(_), .. }), "{:?}", pair.phase(Alice));
}

/// Our own commitment, swept and buried; where the channel ends then.
fn ended_by_own_commitment(pair: &mut Pair, name: Name, tx: &Transaction) {
    spent(pair, name, 700, tx);
    let claim = enforcement(pair, name).claims.remove(0);
    let home = claim.from_height;
    let sweep = sweep(pair, name, &claim, Sat::new(500));
    output_spent(pair, name, &claim, home, &sweep);
    let buried = home + pair.world.policy.close_depth - 1;
    height(pair, name, buried);
    assert!(matches!(pair.phase(name), Phase::Closed { .. }), "{:?}", pair.phase(name));
}

/// An HTLC that is too small for an output goes to miners; its payment ends when that is buried, and as what it was if the
/// peer told the preimage before (FWD-1).
#[test]
fn fwd_8_an_htlc_without_an_output_ends_with_its_channel() {
    for told in [false, true] {
        let mut pair = with_balances();
        for amount in [300_000, 353_999] {
            pair.pay(Alice, Msat::new(amount), Fate::Fulfilled);
        }
        pair.pay(Bob, Msat::new(310_000), Fate::Fulfilled);
        pair.run();
        let offered: Vec<_> = pair.node(Alice).channel.rows().htlcs.clone().into_iter().collect();
        let offered: Vec<_> = offered.into_iter().filter(|(key, _)| key.offerer == Offerer::Local).collect();
        assert_eq!((offered.len(), pair.node(Alice).channel.rows().htlcs.len()), (2, 3));
        fail(&mut pair, Alice);
        if told {
            let (key, row) = &offered[0];
            let payment_preimage = pair.world.payments[&row.payment_hash].preimage;
            let channel_id = pair.node(Alice).channel.id();
            pair.inject(
                Alice,
                &Message::UpdateFulfillHtlc(UpdateFulfillHtlc { channel_id, id: key.id, payment_preimage }),
            );
        }
        let tx = commitment(&pair, Alice);
        ended_by_own_commitment(&mut pair, Alice, &tx);
        let outcomes: Vec<_> = offered.iter().map(|(key, _)| pair.node(Alice).outcomes()[&key.id].clone()).collect();
        assert_eq!(matches!(outcomes[0], HtlcOutcome::Fulfilled(_)), told, "{outcomes:?}");
        assert_eq!(outcomes[0] == HtlcOutcome::NoOutput, !told);
        assert_eq!(outcomes[1], HtlcOutcome::NoOutput);
    }
}

/// The peer claims one of two HTLCs of one hash and tells nothing of the other, which has no output where the channel ends:
/// who is upstream of it gets the preimage, and nobody waits for ever.
#[test]
fn fwd_6_an_htlc_without_an_output_is_claimed_with_the_preimage_of_its_sibling() {
    let mut pair = with_balances();
    pair.pay(Alice, Msat::new(300_000), Fate::Fulfilled);
    pair.run();
    let htlcs = |pair: &Pair| pair.node(Alice).channel.rows().htlcs.clone();
    let (first, row) = htlcs(&pair).pop_first().expect("an HTLC");
    pair.offer(Alice, row.payment_hash, 0);
    pair.run();
    let (second, _) = htlcs(&pair).pop_last().expect("another");
    assert_ne!(first.id, second.id);
    pair.remove(Bob, first.id);
    pair.run();
    assert_eq!(htlcs(&pair).keys().collect::<Vec<_>>(), [&second], "the first is irrevocably removed");
    assert_eq!(pair.node(Alice).outcomes().get(&second.id), None);
    fail(&mut pair, Alice);
    let tx = commitment(&pair, Alice);
    ended_by_own_commitment(&mut pair, Alice, &tx);
    let preimage = pair.world.payments[&row.payment_hash].preimage;
    assert_eq!(pair.node(Alice).outcomes()[&second.id], HtlcOutcome::Fulfilled(preimage));
}

/// Under restored mode an HTLC that the file shows as open may have been fulfilled since: no outcome is told of it.
#[test]
fn bak_1_nothing_is_told_of_an_htlc_without_an_output_where_the_file_is_old() {
    let mut pair = with_balances();
    pair.pay(Alice, Msat::new(300_000), Fate::Fulfilled);
    pair.run();
    let (key, _) = pair.node(Alice).channel.rows().htlcs.clone().pop_first().expect("an HTLC");
    fail(&mut pair, Alice);
    let tx = commitment(&pair, Alice);
    pair.node_mut(Alice).restored = true;
    ended_by_own_commitment(&mut pair, Alice, &tx);
    assert_eq!(pair.node(Alice).outcomes().get(&key.id), None);
}
