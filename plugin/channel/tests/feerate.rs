//! Which commitment feerate the opener wants, and that no feerate which the peer chooses ends a channel.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod duo;

use duo::{Alice, Bob, Duo, Terms, policy, sat};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::wire::{Message, UpdateFee};
use outrigger_channel::{Command, Link, Policy, Refusal, Reply};

fn wanted(duo: &Duo, estimate: u32) -> Option<u32> {
    duo.alice.channel.feerate_to_propose(FeeratePerKw::new(estimate), &policy()).map(FeeratePerKw::get)
}

#[test]
fn fee_4_the_opener_wants_the_estimate_once_it_is_far_from_what_is_in_force() {
    let mut duo = Duo::normal(&Terms::default());
    for (estimate, proposal) in [
        (1000, None),
        (1249, None),
        (1250, Some(1250)),
        (801, None),
        (800, Some(800)),
        (0, Some(253)),
        (1, Some(253)),
        // A tenth of the channel for a commitment with all the HTLCs that there may be (CST-11).
        (25_001, Some(15_808)),
        (u32::MAX, Some(15_808)),
    ] {
        assert_eq!(wanted(&duo, estimate), proposal, "{estimate}");
        let of_accepter = duo.bob.channel.feerate_to_propose(FeeratePerKw::new(estimate), &policy());
        assert_eq!(of_accepter, None, "the accepter proposes nothing");
    }
    let capped = Policy { max_commitment_feerate: FeeratePerKw::new(12_000), ..policy() };
    let proposal = duo.alice.channel.feerate_to_propose(FeeratePerKw::new(24_000), &capped);
    assert_eq!(proposal, Some(FeeratePerKw::new(12_000)));
    // What was proposed is the middle of the next span: an estimate that flaps within it moves nothing.
    assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(1250))), Ok(Reply::Done));
    assert_eq!(wanted(&duo, 5000), None, "one change at a time (CST-5)");
    duo.commit(Alice);
    assert_eq!(wanted(&duo, 5000), None, "signed, and not yet in both commitments");
    duo.run();
    for (estimate, proposal) in [(1001, None), (1000, Some(1000)), (1562, None), (1563, Some(1563))] {
        assert_eq!(wanted(&duo, estimate), proposal, "{estimate}");
    }
    duo.disconnect();
    assert_eq!(wanted(&duo, 5000), None, "nobody is there to hear it");
    duo.connect();
    duo.run();
    assert_eq!(wanted(&duo, 5000), Some(5000));
}

/// What is wanted is taken, whatever the balance, and a little more would not be.
#[test]
fn fee_4_the_opener_never_wants_more_than_it_can_pay() {
    let mut limited = 0;
    for push in (900_000..985_000).step_by(1_237) {
        let mut duo = Duo::normal(&Terms { push: sat(push), ..Terms::default() });
        let feerate = wanted(&duo, 24_000).expect("a fourth more can be paid for");
        match duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(feerate + 1))) {
            Err(Refusal::CannotAffordFee) => limited += 1,
            Err(Refusal::CommitmentTooCostly(_)) => {}
            other => panic!("{push}: {feerate}: {other:?}"),
        }
        assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(feerate))), Ok(Reply::Done), "{push}");
        duo.commit(Alice);
        duo.run();
        assert_eq!(duo.bob.channel.rows().head.fee.local.get(), feerate, "the peer took it");
    }
    assert!(limited > 10, "{limited}");
}

/// With anchors a low feerate is the opener's own affair: the accepter takes whatever is relayed, and closes for none.
#[test]
fn fee_4_an_accepter_closes_for_no_disagreement_about_the_feerate() {
    let mut duo = Duo::normal(&Terms { bob: strict(), ..Terms::default() });
    let channel_id = duo.bob.channel.id();
    for feerate in [253, 2_000, 253, 999, 253] {
        duo.message(Bob, &Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(feerate) }));
        assert!(duo.bob.outbox.is_empty(), "{feerate} is taken in silence");
    }
    for feerate in [0, 252, 2_001, u32::MAX] {
        let mut duo = Duo::normal(&Terms { bob: strict(), ..Terms::default() });
        duo.message(Bob, &Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(feerate) }));
        assert!(matches!(duo.bob.outbox.pop_front(), Some(Message::Warning(_))), "{feerate}");
        assert_eq!(duo.bob.channel.summary(duo.height).state, "normal", "the connection goes, the channel stays");
    }
    // It works on at the lowest that is relayed.
    let mut duo = Duo::normal(&Terms::default());
    assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::FLOOR)), Ok(Reply::Done));
    duo.commit(Alice);
    duo.run();
    for (who, number) in [(Alice, 1), (Bob, 2)] {
        assert!(matches!(duo.add(who, Msat::new(5_000_000), number), Ok(Reply::Added { .. })));
        duo.commit(who);
        duo.run();
    }
    assert_eq!(duo.alice.channel.rows().head.fee.remote, FeeratePerKw::FLOOR);
}

fn strict() -> Policy {
    Policy { max_commitment_feerate: FeeratePerKw::new(2_000), ..policy() }
}

/// What was signed comes again as it was, and meanwhile the opener has revoked to HTLCs of which it knew nothing then: it is
/// held to those that it has signed for.
#[test]
fn fee_1_cst_3_an_update_fee_that_comes_again_is_judged_by_what_the_opener_knew() {
    for htlcs in [1, 2, 10] {
        let mut duo = Duo::normal(&Terms::default());
        let highest = wanted(&duo, u32::MAX).expect("a rise");
        for number in 1..=htlcs {
            assert!(duo.add(Bob, sat(5_000), number).is_ok());
        }
        duo.commit(Bob);
        // It crosses them.
        assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(highest))), Ok(Reply::Done));
        while duo.receive(Alice).is_some() {}
        duo.commit(Alice);
        for expected in ["update_fee", "revoke_and_ack"] {
            assert_eq!(duo.receive(Bob).map(|message| message.name()), Some(expected));
        }
        // The signature for both is lost.
        assert_eq!(duo.alice.outbox.front().map(Message::name), Some("commitment_signed"));
        duo.reconnect();
        duo.run();
        for head in [&duo.alice.channel.rows().head, &duo.bob.channel.rows().head] {
            assert_eq!([head.fee.local, head.fee.remote].map(FeeratePerKw::get), [highest; 2], "{htlcs} HTLCs");
        }
    }
}

/// The same holds for an add that comes again behind the fee change that was made after it: it was affordable with one HTLC
/// more, and several have crossed it.
#[test]
fn cst_3_cst_7_an_add_that_comes_again_is_judged_by_what_the_opener_knew() {
    for push in [960_000, 970_000, 975_000] {
        let mut duo = Duo::normal(&Terms { push: sat(push), ..Terms::default() });
        for number in 1..=4 {
            assert!(duo.add(Bob, sat(5_000), number).is_ok());
        }
        duo.commit(Bob);
        // They cross.
        assert!(duo.add(Alice, sat(2_000), 9).is_ok(), "{push}");
        let highest = wanted(&duo, 24_000).expect("a rise");
        assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(highest))), Ok(Reply::Done));
        while duo.receive(Alice).is_some() {}
        duo.commit(Alice);
        for expected in ["update_add_htlc", "update_fee", "revoke_and_ack"] {
            assert_eq!(duo.receive(Bob).map(|message| message.name()), Some(expected));
        }
        // The signature for both is lost.
        assert_eq!(duo.alice.outbox.front().map(Message::name), Some("commitment_signed"));
        duo.reconnect();
        duo.run();
        for head in [&duo.alice.channel.rows().head, &duo.bob.channel.rows().head] {
            assert_eq!([head.fee.local, head.fee.remote].map(FeeratePerKw::get), [highest; 2], "{push}");
        }
        assert_eq!(duo.bob.channel.rows().htlcs.len(), 5, "{push}");
    }
}

/// Where we are the opener: adds that come again after the peer has revoked to a feerate of ours that it did not know.
#[test]
fn cst_3_cst_7_adds_that_come_again_are_judged_by_the_feerate_that_the_accepter_had_signed_for() {
    for (push, htlcs) in [(969_000, 5), (960_000, 7), (940_000, 9)] {
        let mut duo = Duo::normal(&Terms { push: sat(push), ..Terms::default() });
        for number in 1..=htlcs {
            assert!(duo.add(Bob, sat(5_000), number).is_ok());
        }
        // It crosses them.
        let highest = wanted(&duo, 24_000).expect("a rise");
        assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(highest))), Ok(Reply::Done));
        duo.commit(Alice);
        while duo.receive(Bob).is_some() {}
        duo.commit(Bob);
        come_again(&mut duo, usize::from(htlcs));
        for head in [&duo.alice.channel.rows().head, &duo.bob.channel.rows().head] {
            assert_eq!([head.fee.local, head.fee.remote].map(FeeratePerKw::get), [highest; 2], "{push}");
        }
    }
}

/// The same, where what has become ours to pay for is an HTLC that took most of our balance.
#[test]
fn cst_3_cst_7_adds_that_come_again_are_judged_by_the_balance_that_the_accepter_had_signed_for() {
    for htlcs in [20, 25, 29] {
        let mut duo = Duo::normal(&Terms { push: sat(500_000), ..Terms::default() });
        for number in 1..=htlcs {
            assert!(duo.add(Bob, sat(5_000), number).is_ok());
        }
        let spendable = duo.alice.channel.summary(0).spendable;
        assert!(duo.add(Alice, spendable, 99).is_ok());
        duo.commit(Alice);
        while duo.receive(Bob).is_some() {}
        duo.commit(Bob);
        come_again(&mut duo, usize::from(htlcs));
        assert_eq!(duo.alice.channel.rows().htlcs.len(), usize::from(htlcs) + 1);
        assert_eq!(duo.bob.channel.rows().htlcs.len(), usize::from(htlcs) + 1);
    }
}

/// A small channel, in which both accept many HTLCs. Alice keeps 1000 sat.
fn small() -> Terms {
    let accepts = |count| Policy { max_accepted_htlcs: count, max_dust_exposure: Sat::new(50_000), ..policy() };
    Terms {
        funding: Sat::new(100_000),
        push: sat(60_000),
        feerate: FeeratePerKw::FLOOR,
        alice: accepts(60),
        bob: accepts(60),
        ..Terms::default()
    }
}

/// An opener with a small reserve spends all that it may, and HTLCs of ours are on their way: they are no more than its
/// reserve pays for, so what each has signed stands.
#[test]
fn cst_7_a_burst_of_ours_that_an_add_of_a_small_opener_crosses_is_one_that_it_survives() {
    let mut duo = Duo::normal(&small());
    let mut burst = 0;
    while duo.add(Bob, sat(600), burst).is_ok() {
        burst += 1;
    }
    // 1000 sat of reserve, 43.516 sat for an HTLC at the lowest feerate.
    assert_eq!(burst, 22);
    assert_eq!(duo.add(Bob, sat(600), burst), Err(Refusal::PeerCannotAffordHtlc));
    assert_eq!(duo.bob.channel.summary(510).spendable, Msat::ZERO);
    duo.commit(Bob);
    while duo.receive(Alice).is_some() {}
    // What a peer may do that keeps no more than BOLT 2 asks of it: 660 sat of anchors, a commitment with one HTLC.
    let kept = 1000 + 660 + 253 * (1124 + 172) / 1000;
    let add = Message::UpdateAddHtlc(duo.update_add(0, sat(40_000 - kept)));
    let in_step = duo.clone();
    duo.message(Bob, &add);
    assert!(matches!(duo.bob.channel.link(), Link::Connected(_)), "{:?}", duo.bob.outbox);
    // A satoshi more is more than it may spend.
    let mut duo = in_step;
    let add = Message::UpdateAddHtlc(duo.update_add(0, sat(40_001 - kept)));
    duo.message(Bob, &add);
    assert!(matches!(duo.bob.channel.link(), Link::Disconnected));
    // Once it has signed for them, there is room for as many again.
    let mut duo = Duo::normal(&small());
    for number in 0..44 {
        assert!(duo.add(Bob, sat(600), number).is_ok(), "{number}");
        if number == 21 {
            duo.run();
        }
    }
    assert_eq!(duo.add(Bob, sat(600), 44), Err(Refusal::PeerCannotAffordHtlc));
}

/// HTLCs of ours that the opener removes before it spends what is left are in no commitment with what it adds.
#[test]
fn cst_7_an_opener_with_a_small_reserve_is_not_held_to_what_it_removes() {
    let mut duo = Duo::normal(&small());
    for number in 0..31 {
        assert!(duo.add(Bob, sat(600), number).is_ok(), "{number}");
        if number == 20 {
            duo.run();
        }
    }
    duo.run();
    for id in 0..31 {
        duo.fail(Alice, id).expect("standing");
    }
    while duo.receive(Bob).is_some() {}
    // It keeps its reserve and the cost of a commitment with the HTLC that it adds.
    let kept = 1000 + 660 + 253 * (1124 + 172) / 1000;
    let add = Message::UpdateAddHtlc(duo.update_add(0, sat(40_000 - kept)));
    duo.message(Bob, &add);
    assert!(matches!(duo.bob.channel.link(), Link::Connected(_)), "{:?}", duo.bob.outbox);
}

/// The other way round: as the opener we keep what lets us survive all that the peer may have on its way.
#[test]
fn cst_7_a_small_opener_keeps_what_a_burst_of_the_peer_costs() {
    let mut duo = Duo::normal(&small());
    let kept = 660 + 253 * (1124 + 172 * 61) / 1000;
    let spendable = duo.alice.channel.summary(510).spendable;
    assert_eq!(spendable, sat(40_000 - kept));
    assert!(duo.add(Alice, spendable, 99).is_ok());
    duo.commit(Alice);
    // It crosses all that a peer sends that keeps no more than BOLT 2 asks of it.
    for id in 0..60 {
        let add = Message::UpdateAddHtlc(duo.update_add(id, sat(600)));
        duo.message(Alice, &add);
        assert!(matches!(duo.alice.channel.link(), Link::Connected(_)), "{id}: {:?}", duo.alice.outbox);
    }
}

/// Alice hears so many adds and a revocation; the signature behind them is lost, and all of it comes again.
fn come_again(duo: &mut Duo, adds: usize) {
    for _ in 0..adds {
        assert_eq!(duo.receive(Alice).map(|message| message.name()), Some("update_add_htlc"));
    }
    assert_eq!(duo.receive(Alice).map(|message| message.name()), Some("revoke_and_ack"));
    assert_eq!(duo.bob.outbox.front().map(Message::name), Some("commitment_signed"));
    duo.reconnect();
    duo.run();
}

/// What the opener has not signed for, its `update_fee` is not held to: so there are never more of those HTLCs than it may
/// offer itself, which the cap reckons with.
#[test]
fn cst_11_htlcs_that_the_opener_has_not_signed_for_are_no_more_than_it_may_offer() {
    let few = Policy { max_accepted_htlcs: 5, ..policy() };
    let mut duo = Duo::normal(&Terms { bob: few, ..Terms::default() });
    let is_bounded = |duo: &mut Duo| matches!(duo.add(Bob, sat(2000), 9), Err(Refusal::CommitmentTooCostly(_)));
    for number in 0..5 {
        duo.add(Bob, sat(2000), number).expect("room");
    }
    assert!(is_bounded(&mut duo), "not signed by us either");
    duo.commit(Bob);
    while duo.receive(Alice).is_some() {}
    while duo.receive(Bob).is_some() {}
    assert!(is_bounded(&mut duo), "Alice has revoked, and signed nothing");
    duo.run();
    for number in 0..5 {
        duo.add(Bob, sat(2000), 10 + number).expect("as many again, once she has signed");
    }
    assert!(is_bounded(&mut duo));
}

/// The accepter's `max_dust_exposure` is no part of the protocol: no rise of ours may need more of it than any accepter has,
/// since what is signed comes again on every connection, and would be warned of on each.
#[test]
fn cst_11_fee_4_no_rise_is_wanted_that_an_accepter_with_a_smaller_exposure_warns_of() {
    let exposes = |sat| Policy { max_dust_exposure: Sat::new(sat), ..policy() };
    let (funding, push, feerate) = (Sat::new(40_000), sat(20_000), FeeratePerKw::new(400));
    let mut duo =
        Duo::normal(&Terms { funding, push, feerate, alice: exposes(50_000), bob: exposes(1_000), ..Terms::default() });
    // 4000 sat, a tenth of the channel, for a commitment with 30 HTLCs.
    let highest = wanted(&duo, u32::MAX).expect("a rise");
    assert_eq!(highest, 531);
    assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(highest))), Ok(Reply::Done));
    duo.commit(Alice);
    duo.run();
    assert!(matches!(duo.bob.channel.link(), Link::Connected(_)));
    assert_eq!(duo.bob.channel.rows().head.fee.local.get(), highest);
    assert_eq!(wanted(&duo, u32::MAX), None);
    // What was agreed on when the channel was opened stays, and falls with the estimate.
    let feerate = FeeratePerKw::new(1000);
    let duo = Duo::normal(&Terms {
        funding,
        push,
        feerate,
        alice: exposes(50_000),
        bob: exposes(50_000),
        ..Terms::default()
    });
    assert_eq!([wanted(&duo, u32::MAX), wanted(&duo, 1000), wanted(&duo, 800)], [None, None, Some(800)]);
}
