//! Who can afford what, in every order: feerates, HTLCs, caps on what can be lost (BOLT 2, "Updating Fees", "Bounding
//! exposure to trimmed in-flight HTLCs", "Message Retransmission").
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use std::collections::VecDeque;

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use duo::{Alice, Bob, Duo, Terms, Who, sat};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_bolt::wire::{CommitmentSigned, Message, UpdateFee};
use outrigger_channel::{Command, Effect, Link, Phase, Refusal, Reply, Rule};

const fn feerate(feerate: u32) -> FeeratePerKw {
    FeeratePerKw::new(feerate)
}

fn update_fee(duo: &Duo, per_kw: u32) -> Message {
    Message::UpdateFee(UpdateFee { channel_id: duo.bob.channel.id(), feerate_per_kw: feerate(per_kw) })
}

/// `who` warned of this, and its channel lives.
fn assert_warned(duo: &mut Duo, who: Who, rule: &Rule) {
    let text = rule.to_string();
    let said = std::mem::take(&mut duo.side_mut(who).outbox);
    let warned = said.iter().any(|m| matches!(m, Message::Warning(warning) if warning.data.to_string() == text));
    assert!(warned, "no warning: {text}; {:?}", duo.side(who).channel.phase());
    assert_eq!(*duo.side(who).channel.phase(), Phase::Normal);
    assert_eq!(*duo.side(who).channel.link(), Link::Disconnected);
}

/// Both are in step, of one mind, and each could publish what it holds.
fn assert_whole(duo: &Duo, case: &str) {
    for who in Who::BOTH {
        let side = duo.side(who);
        assert_eq!(*side.channel.phase(), Phase::Normal, "{case}");
        assert!(matches!(side.channel.link(), Link::Connected(_)), "{case}");
        assert!(side.monitor.local_commitment_tx(&*side.signer).is_ok(), "{case}");
        let (ours, theirs) = (&side.channel.rows().head, &duo.side(who.other()).channel.rows().head);
        assert_eq!(ours.local_number, theirs.remote_number, "{case}");
        assert_eq!(
            (ours.fee.local, ours.fee.remote, ours.fee.change),
            (theirs.fee.remote, theirs.fee.local, None),
            "{case}"
        );
    }
    duo.balances(Alice);
}

/// One thing that may cross a fee change.
#[derive(Clone, Copy, Debug)]
enum Act {
    Fee,
    Add(Who),
    Remove(Who),
    Sign(Who),
}

fn act(duo: &mut Duo, act: Act, number: u8) {
    // Refused where the other side's last signature is not answered: the next run makes up for it.
    let _answer = match act {
        Act::Fee => duo.order(Alice, Command::UpdateFee(feerate(1000 + 100 * u32::from(number)))),
        Act::Add(who) => duo.add(who, sat(10_000 + u64::from(number)), number),
        Act::Remove(who) => duo.fulfill(who, 0, 1),
        Act::Sign(who) => duo.order(who, Command::Commit),
    };
}

fn permutations(of: &[Act]) -> Vec<Vec<Act>> {
    let Some((first, rest)) = of.split_first() else { return vec![Vec::new()] };
    let inserted = |order: Vec<Act>| {
        (0..=order.len()).map(move |at| [&order[..at], &[*first], &order[at..]].concat()).collect::<Vec<_>>()
    };
    permutations(rest).into_iter().flat_map(inserted).collect()
}

/// Every order of a fee change, an add and a removal of each side, cut off sooner or later.
#[test]
fn cst_5_a_fee_change_crosses_adds_removals_and_reconnections_in_every_order() {
    let mut standing = Duo::normal(&Terms::default());
    standing.add(Alice, sat(50_000), 1).expect("room");
    standing.add(Bob, sat(20_000), 1).expect("room");
    standing.run();
    let acts = [Act::Fee, Act::Add(Alice), Act::Add(Bob), Act::Remove(Alice), Act::Remove(Bob)];
    let mut orders = 0;
    for order in permutations(&acts) {
        for cut in (0..8).step_by(2) {
            let case = format!("{order:?}, cut after {cut} messages");
            let mut duo = standing.clone();
            for (number, what) in (2..).zip(&order) {
                act(&mut duo, *what, number);
                let signer = if number % 2 == 0 { Alice } else { Bob };
                act(&mut duo, Act::Sign(signer), number);
                duo.receive(signer.other());
            }
            for message in 0..cut {
                let to = if message % 3 == 0 { Bob } else { Alice };
                duo.receive(to);
            }
            duo.reconnect();
            duo.run();
            assert_whole(&duo, &case);
            // What was lost is proposed again, and a second change follows the first.
            act(&mut duo, Act::Fee, 9);
            duo.run();
            assert_whole(&duo, &case);
            assert_eq!(duo.bob.channel.rows().head.fee.local, feerate(1900), "{case}");
            orders += 1;
        }
    }
    println!("{orders} orders");
}

#[test]
fn cst_5_a_feerate_that_is_replaced_before_it_is_signed_counts_for_nothing() {
    let mut duo = Duo::normal(&Terms::default());
    duo.order(Alice, Command::UpdateFee(feerate(2000))).expect("affordable");
    for replaced in [1500, 3000, 253] {
        let message = update_fee(&duo, replaced);
        duo.message(Bob, &message);
    }
    duo.run();
    assert_whole(&duo, "replaced");
    assert_eq!(duo.bob.channel.rows().head.fee.local, feerate(2000));
}

#[test]
fn cst_5_a_feerate_that_was_signed_comes_again_after_a_reconnection_and_one_that_was_not_does_not() {
    let mut duo = Duo::normal(&Terms::default());
    duo.order(Alice, Command::UpdateFee(feerate(2000))).expect("affordable");
    duo.reconnect();
    duo.run();
    assert_whole(&duo, "not signed");
    assert_eq!(duo.bob.channel.rows().head.fee.local, feerate(1000));
    duo.order(Alice, Command::UpdateFee(feerate(2000))).expect("affordable");
    duo.commit(Alice);
    duo.reconnect();
    duo.run();
    assert_whole(&duo, "signed");
    assert_eq!(duo.bob.channel.rows().head.fee.local, feerate(2000));
}

/// With every HTLC that both accept, the opener raises the feerate as far as it can, and not a step further.
#[test]
fn cst_9_the_highest_feerate_leaves_both_a_valid_commitment() {
    let mut terms = Terms { push: sat(900_000), ..Terms::default() };
    (terms.alice.max_accepted_htlcs, terms.bob.max_accepted_htlcs) = (12, 12);
    // The cap on what a commitment costs is out of the way.
    (terms.alice.max_dust_exposure, terms.bob.max_dust_exposure) = (Sat::new(400_000), Sat::new(400_000));
    let mut full = Duo::normal(&terms);
    for number in 0..12 {
        full.add(Alice, sat(1_000), number).expect("room");
        full.add(Bob, sat(1_000), number + 20).expect("room");
        full.run();
    }
    let mut highest = None;
    for per_kw in (1000..25_000).step_by(250) {
        let mut duo = full.clone();
        match duo.order(Alice, Command::UpdateFee(feerate(per_kw))) {
            Ok(_) => {
                duo.run();
                assert_whole(&duo, &format!("{per_kw}"));
                let head = &duo.bob.channel.rows().head;
                let cost = 660 + u64::from(per_kw) * (1124 + 172 * 24) / 1000;
                assert!(head.local_commitment.to_remote >= sat(10_000 + cost), "the reserve stays at {per_kw}");
                highest = Some(per_kw);
            }
            Err(refused) => assert_eq!(refused, Refusal::CannotAffordFee, "{per_kw}"),
        }
    }
    // What is left is 88 000 sat; reserve, anchors and one HTLC more are kept.
    assert_eq!(highest, Some(14_250));
    // The peer holds the opener to the same, but for the HTLC more.
    for (per_kw, fine) in [(14_250, true), (15_000, false)] {
        let mut duo = full.clone();
        let message = update_fee(&duo, per_kw);
        duo.message(Bob, &message);
        if fine {
            assert!(duo.bob.outbox.is_empty());
        } else {
            assert_warned(&mut duo, Bob, &Rule::CannotAffordFee);
        }
    }
}

/// What an old commitment burns is ours once the peer has moved its balance over: it is a tenth of the channel at most.
#[test]
fn cst_11_a_peer_that_drives_the_fee_up_is_refused_at_the_cap() {
    let terms = Terms::default();
    let cap = Sat::new(100_000);
    // 660 sat of anchors, and 30 HTLCs that Bob would accept.
    let highest = (100_000_999 - 660_000) / (1124 + 172 * 30);
    let mut duo = Duo::normal(&terms);
    let message = update_fee(&duo, highest + 1);
    duo.message(Bob, &message);
    assert_warned(&mut duo, Bob, &Rule::CommitmentTooCostly(cap));

    let mut duo = Duo::normal(&terms);
    assert_eq!(
        duo.order(Alice, Command::UpdateFee(feerate(highest + 1))),
        Err(Refusal::CommitmentTooCostly(cap)),
        "we do not ask of a peer what we would refuse"
    );
    duo.order(Alice, Command::UpdateFee(feerate(highest))).expect("at the cap");
    duo.run();
    assert_whole(&duo, "at the cap");
    // Bob may add nothing that costs more; Alice may fill what he accepts.
    assert_eq!(duo.add(Bob, sat(1000), 1), Err(Refusal::CommitmentTooCostly(cap)));
    for number in 0..30 {
        duo.add(Alice, sat(1000), number).expect("below the cap");
    }
    duo.run();
    assert_whole(&duo, "full");
    let burnt = |duo: &Duo| {
        let tx = duo.bob.monitor.remote_commitments(&*duo.bob.signer).expect("signed").remove(0).tx;
        1_000_000 - tx.output.iter().map(|output| output.value.to_sat()).sum::<u64>()
    };
    let old = burnt(&duo);
    assert!((99_000..=100_000).contains(&old), "{old}");
    for id in 0..30 {
        duo.fail(Bob, id).expect("standing");
    }
    duo.run();
    duo.order(Alice, Command::UpdateFee(feerate(253))).expect("lower");
    duo.run();
    let spendable = duo.alice.channel.summary(510).spendable;
    duo.add(Alice, spendable, 40).expect("spendable");
    duo.run();
    duo.fulfill(Bob, 30, 40).expect("standing");
    duo.run();
    let kept = duo.alice.channel.rows().head.local_commitment.to_local.to_sat_floor().get();
    assert!(old - kept <= cap.get(), "publishing the old state costs Bob {} sat", old - kept);
}

#[test]
fn cst_11_a_channel_is_not_opened_at_a_feerate_beyond_the_cap() {
    let open = |per_kw: u32| {
        let terms = Terms { feerate: feerate(per_kw), ..Terms::default() };
        let (alice, bob) = (duo::signer(Alice), duo::signer(Bob));
        let (_, open) = outrigger_channel::Opening::open(duo::order(&terms), &duo::context(500, &terms.alice, &alice))
            .expect("an order to follow");
        let Message::OpenChannel(open) = open else { panic!("{open:?}") };
        let cx = duo::context(500, &terms.bob, &bob);
        let keys = (0, duo::scid_alias(Bob));
        outrigger_channel::Opening::accept(&open, duo::node_id(Alice), keys, &duo::features(), &cx).map(|_| ())
    };
    let highest = (100_000_999 - 660_000) / (1124 + 172 * 30);
    assert!(open(highest).is_ok());
    let refused = open(highest + 1).expect_err("too costly");
    assert_eq!(*refused.rule(), Rule::CommitmentTooCostly(Sat::new(100_000)));
}

/// The dust limits of the two sides differ: an HTLC may have an output in one commitment and none in the other.
fn unequal() -> Terms {
    let mut terms = Terms::default();
    terms.bob.dust_limit = Sat::new(900);
    (terms.alice.max_dust_exposure, terms.bob.max_dust_exposure) = (Sat::new(3600), Sat::new(3600));
    terms
}

/// Four HTLCs below Bob's dust limit are as much as either lets be lost; the fifth is not offered.
#[test]
fn fee_1_dust_of_our_own_stops_at_the_cap_of_either_commitment() {
    for (who, amount) in [(Alice, 899), (Alice, 354), (Bob, 899), (Bob, 354)] {
        let mut duo = Duo::normal(&unequal());
        for number in 1..=4 {
            assert!(duo.add(who, sat(amount), number).is_ok(), "{who:?} {amount} {number}");
        }
        assert_eq!(duo.add(who, sat(amount), 5), Err(Refusal::DustExposure(Sat::new(3600))), "{who:?} {amount}");
        assert!(duo.add(who, sat(900), 5).is_ok(), "one with an output in both loses nothing");
        duo.run();
        assert_whole(&duo, "at the cap");
        for commitment in duo.side(who).monitor.remote_commitments(&*duo.side(who).signer).expect("signed") {
            let outputs: u64 = commitment.tx.output.iter().map(|output| output.value.to_sat()).sum();
            let fee = 1124 + 172 * commitment.htlc_outputs.len() as u64;
            let burnt = 1_000_000 - outputs - fee;
            assert!(burnt <= 3600, "{burnt} sat are burnt");
        }
    }
    // In Alice's own commitments alone, ten of 353 sat are below it.
    let mut terms = unequal();
    terms.bob.dust_limit = Sat::new(354);
    let mut duo = Duo::normal(&terms);
    for number in 1..=10 {
        duo.add(Alice, sat(353), number).expect("below the cap");
    }
    assert_eq!(duo.add(Alice, sat(353), 11), Err(Refusal::DustExposure(Sat::new(3600))));
}

/// The peer's are committed, and to be failed from the one on that exceeds the cap.
#[test]
fn fee_1_dust_of_the_peer_is_failed_beyond_the_cap() {
    let mut terms = unequal();
    terms.alice.max_dust_exposure = Sat::new(100_000);
    let mut duo = Duo::normal(&terms);
    let mut told = Vec::new();
    for number in 1..=6 {
        duo.add(Alice, sat(899), number).expect("Alice minds less");
        duo.run();
        for effect in duo.take_effects(Bob) {
            let Effect::Incoming(incoming) = effect else { panic!("{effect:?}") };
            told.push((incoming.htlc_id, incoming.over_exposed));
        }
    }
    assert_eq!(told, [(0, false), (1, false), (2, false), (3, false), (4, true), (5, true)]);
    // One that has an output in both is none of it, and what is failed makes room.
    duo.add(Alice, sat(900), 7).expect("room");
    for id in [4, 5, 3] {
        duo.fail(Bob, id).expect("standing");
    }
    duo.run();
    duo.add(Alice, sat(899), 8).expect("room");
    duo.run();
    let told = duo.take_effects(Bob).into_iter().filter_map(|effect| match effect {
        Effect::Incoming(incoming) => Some((incoming.htlc_id, incoming.over_exposed)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(6, false), (7, false)]);
    // Made again from rows, the word is the same.
    let again = duo.bob.channel.resume(&duo.bob.policy).into_iter().filter_map(|effect| match effect {
        Effect::Incoming(incoming) => Some(incoming.over_exposed),
        _ => None,
    });
    assert_eq!(again.collect::<Vec<_>>(), [false; 5]);
}

/// Alice's HTLC stands; Bob claims it and spends what it gives him, and signs both.
fn claimed_and_spent() -> (Duo, Message, Message, Message) {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(100_000), 1).expect("room");
    duo.run();
    duo.fulfill(Bob, 0, 1).expect("standing");
    assert_eq!(duo.add(Bob, sat(450_000), 2), Ok(Reply::Added { htlc_id: 0 }));
    duo.commit(Bob);
    let said: Vec<Message> = duo.bob.outbox.drain(..).collect();
    let [fulfil, add, signed]: [Message; 3] = said.try_into().expect("two updates and a signature");
    (duo, fulfil, add, signed)
}

/// BOLT 2, "Message Retransmission": what is sent again may come in another order.
#[test]
fn an_add_may_come_before_the_removal_that_pays_for_it() {
    let (mut duo, fulfil, add, signed) = claimed_and_spent();
    for message in [&add, &fulfil, &signed] {
        duo.message(Alice, message);
    }
    assert!(matches!(duo.alice.channel.link(), Link::Connected(_)));
    duo.run();
    assert_whole(&duo, "reordered");
    assert_eq!(duo.balances(Bob), (50_000_000, 500_000_000));

    // The same after a reconnection, with both in the resent signature.
    let (mut duo, ..) = claimed_and_spent();
    duo.reconnect();
    duo.receive(Bob).expect("channel_reestablish");
    let mut again: VecDeque<Message> = std::mem::take(&mut duo.bob.outbox);
    let at = again.iter().position(|message| matches!(message, Message::UpdateAddHtlc(_))).expect("sent again");
    let add = again.remove(at).expect("it is there");
    again.insert(at - 1, add);
    assert!(matches!(again[at], Message::UpdateFulfillHtlc(_)));
    duo.bob.outbox = again;
    duo.run();
    assert_whole(&duo, "resent");
    assert_eq!(duo.balances(Bob), (50_000_000, 500_000_000));
}

#[test]
fn bad_input_41_an_add_that_nothing_pays_for_is_refused_with_its_signature() {
    let (mut duo, _, add, signed) = claimed_and_spent();
    let before = duo.alice.channel.rows().clone();
    duo.message(Alice, &add);
    duo.message(Alice, &signed);
    assert_warned(&mut duo, Alice, &Rule::CannotAffordHtlc);
    assert_eq!(*duo.alice.channel.rows(), before);

    // What no removal could pay for is refused at once, also behind one that waits.
    let (mut duo, _, add, _) = claimed_and_spent();
    duo.message(Alice, &add);
    let more = Message::UpdateAddHtlc(duo.update_add(1, sat(40_001)));
    duo.message(Alice, &more);
    assert_warned(&mut duo, Alice, &Rule::CannotAffordHtlc);

    // Those that wait count against the limits like any other.
    let mut terms = Terms::default();
    terms.alice.max_accepted_htlcs = 2;
    let mut duo = Duo::normal(&terms);
    duo.add(Alice, sat(100_000), 1).expect("room");
    duo.run();
    for (id, amount) in [(0, 390_001), (1, 1_000)] {
        let add = Message::UpdateAddHtlc(duo.update_add(id, sat(amount)));
        duo.message(Alice, &add);
        assert!(matches!(duo.alice.channel.link(), Link::Connected(_)));
    }
    let third = Message::UpdateAddHtlc(duo.update_add(2, sat(1_000)));
    duo.message(Alice, &third);
    assert_warned(&mut duo, Alice, &Rule::TooManyHtlcs);
}

/// Adds that an opener can afford only at the lower feerate that follows them.
#[test]
fn an_add_may_come_before_the_feerate_that_makes_it_affordable() {
    let mut duo = Duo::normal(&Terms { feerate: feerate(10_000), ..Terms::default() });
    duo.order(Alice, Command::UpdateFee(feerate(1_000))).expect("lower");
    duo.run();
    let spendable = duo.alice.channel.summary(510).spendable;
    let mut duo = Duo::normal(&Terms { feerate: feerate(10_000), ..Terms::default() });
    let add = Message::UpdateAddHtlc(duo.update_add(0, spendable));
    duo.message(Bob, &add);
    let lower = update_fee(&duo, 1_000);
    duo.message(Bob, &lower);
    assert!(matches!(duo.bob.channel.link(), Link::Connected(_)));
    // The signature is held to both: a made-up one is looked at, and is wrong.
    let (channel_id, signature) = (duo.bob.channel.id(), duo.bob.monitor.rows().head.local.signature);
    let signed = CommitmentSigned { channel_id, signature, htlc_signatures: Vec::new(), funding_txid: None };
    duo.message(Bob, &Message::CommitmentSigned(signed));
    let Phase::Failed { reason, .. } = duo.bob.channel.phase() else { panic!("failed") };
    assert!(reason.starts_with("signature does not sign"), "{reason}");
}

/// No splice is ever pending here, so a signature for another funding transaction is a batch without ours.
#[test]
fn bad_input_52_a_commitment_signed_for_another_funding_transaction_fails_the_channel() {
    let signed = |duo: &mut Duo| {
        duo.add(Alice, sat(20_000), 1).expect("room");
        duo.commit(Alice);
        duo.receive(Bob);
        let Some(Message::CommitmentSigned(signed)) = duo.alice.outbox.pop_front() else { panic!("signed") };
        signed
    };
    let mut duo = Duo::normal(&Terms::default());
    let ours = signed(&mut duo);
    assert_eq!(ours.funding_txid, Some(duo.tx.compute_txid()), "BOLT 2: it names what it spends");
    let foreign = CommitmentSigned { funding_txid: Some(Txid::from_byte_array([7; 32])), ..ours.clone() };
    duo.message(Bob, &Message::CommitmentSigned(foreign));
    let Phase::Failed { reason, publish: true, .. } = duo.bob.channel.phase() else { panic!("failed") };
    assert_eq!(*reason, Rule::ForeignFunding.to_string());
    assert_eq!(duo.bob.monitor.rows().head.local.number, 0, "the old commitment is what is published");

    // `start_batch` is of an odd type that nothing was agreed on for: what follows is taken one by one.
    let mut duo = Duo::normal(&Terms::default());
    let ours = signed(&mut duo);
    let channel_id = duo.bob.channel.id();
    let batch = [&127_u16.to_be_bytes()[..], &channel_id.0, &2_u16.to_be_bytes()].concat();
    let batch = Message::decode(&batch).expect("odd");
    assert!(matches!(batch, Message::Unknown(_)));
    let before = duo.bob.channel.clone();
    duo.message(Bob, &batch);
    assert_eq!(duo.bob.channel, before);
    duo.message(Bob, &Message::CommitmentSigned(ours.clone()));
    assert_eq!(duo.bob.channel.rows().head.local_number, 1);
    let foreign = CommitmentSigned { funding_txid: Some(Txid::from_byte_array([7; 32])), ..ours };
    duo.message(Bob, &Message::CommitmentSigned(foreign));
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: true, .. }));

    // Without the record, as peers sent it before there were splices, it is for the one that there is.
    let mut duo = Duo::normal(&Terms::default());
    let ours = signed(&mut duo);
    duo.message(Bob, &Message::CommitmentSigned(CommitmentSigned { funding_txid: None, ..ours }));
    assert_eq!(duo.bob.channel.rows().head.local_number, 1);
}
