//! HTLCs and fees of an open channel (BOLT 2, "Normal Operation").
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use duo::{Alice, Bob, Duo, Terms, Who, add, context, hash, high_s, policy, preimage, sat, signer};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::wire::{
    ChannelReady, CommitmentSigned, Message, PerCommitmentSecret, RevokeAndAck, UpdateAddHtlc, UpdateFailHtlc,
    UpdateFailMalformedHtlc, UpdateFee, UpdateFulfillHtlc,
};
use outrigger_channel::{
    Command, Effect, FailReason, Guard, HtlcOutcome, Input, Link, Phase, Refusal, Reply, Rule, Signer, UpdateRefused,
};

/// Alice has offered, and Bob has irrevocably, an HTLC with id 0 of this amount.
fn standing(amount: Msat) -> Duo {
    let mut duo = Duo::normal(&Terms::default());
    assert_eq!(duo.add(Alice, amount, 1), Ok(Reply::Added { htlc_id: 0 }));
    duo.run();
    let effects = duo.take_effects(Bob);
    assert!(matches!(effects.as_slice(), [Effect::Incoming(incoming)] if incoming.htlc_id == 0));
    duo
}

fn outcomes(effects: &[Effect]) -> Vec<(u64, HtlcOutcome)> {
    let outcome = |effect: &Effect| match effect {
        Effect::Settle { htlc_id, outcome, .. } => Some((*htlc_id, outcome.clone())),
        _ => None,
    };
    effects.iter().filter_map(outcome).collect()
}

/// `who` ended the connection with a warning of this text, and its channel lives.
fn assert_warned(duo: &mut Duo, who: Who, rule: &Rule) {
    let text = rule.to_string();
    let warned = duo
        .side_mut(who)
        .outbox
        .drain(..)
        .any(|message| matches!(&message, Message::Warning(warning) if warning.data.to_string() == text));
    assert!(warned, "no warning: {text}; {:?}", duo.side(who).channel.phase());
    assert!(duo.take_effects(who).iter().any(|effect| matches!(effect, Effect::Disconnect(_))));
    assert_eq!(*duo.side(who).channel.phase(), Phase::Normal);
    assert_eq!(*duo.side(who).channel.link(), Link::Disconnected);
}

/// `who` failed the channel with an error of this text, and publishes its newest commitment.
fn assert_failed(duo: &mut Duo, who: Who, rule: &Rule) {
    let text = rule.to_string();
    let told = duo
        .side_mut(who)
        .outbox
        .drain(..)
        .any(|message| matches!(&message, Message::Error(error) if error.data.to_string() == text));
    assert!(told, "no error: {text}; {:?}", duo.side(who).channel.phase());
    assert_eq!(
        *duo.side(who).channel.phase(),
        Phase::Failed { reason: text, publish: true, reserved: false, spend: None }
    );
}

/// `who` lets an add pass that a removal or a lower feerate could yet pay for, and refuses the signature of it.
fn assert_warned_once_signed(duo: &mut Duo, who: Who, rule: &Rule) {
    assert!(duo.side(who).outbox.is_empty());
    let (channel_id, signature) = (duo.alice.channel.id(), duo.bob.monitor.rows().head.local.signature);
    let signed = CommitmentSigned { channel_id, signature, htlc_signatures: Vec::new(), funding_txid: None };
    duo.message(who, &Message::CommitmentSigned(signed));
    assert_warned(duo, who, rule);
}

#[test]
fn an_htlc_is_offered_and_fulfilled() {
    let mut duo = standing(sat(50_000));
    assert_eq!(duo.balances(Alice), (550_000_000, 400_000_000));
    assert_eq!(duo.fulfill(Bob, 0, 1), Ok(Reply::Done));
    duo.receive(Alice).expect("update_fulfill_htlc");
    // The proof counts from the message on, before anything is signed.
    assert_eq!(outcomes(&duo.take_effects(Alice)), [(0, HtlcOutcome::Fulfilled(preimage(1)))]);
    duo.run();
    assert_eq!(duo.balances(Alice), (550_000_000, 450_000_000));
    assert!(matches!(duo.take_effects(Bob).as_slice(), [Effect::Removed { htlc_id: 0 }]));
    assert!(duo.take_effects(Alice).is_empty());
    for who in [Alice, Bob] {
        assert!(duo.side(who).channel.rows().htlcs.is_empty());
        assert!(duo.side(who).channel.rows().onions.is_empty());
    }
}

#[test]
fn a_failure_counts_only_once_it_is_irrevocable() {
    let mut duo = standing(sat(50_000));
    assert_eq!(duo.fail(Bob, 0), Ok(Reply::Done));
    duo.commit(Bob);
    // update_fail_htlc and commitment_signed come; revoke_and_ack and commitment_signed go.
    duo.receive(Alice);
    duo.receive(Alice);
    duo.commit(Alice);
    assert!(outcomes(&duo.take_effects(Alice)).is_empty());
    duo.run();
    let failed = HtlcOutcome::Failed(FailReason::Encrypted(vec![3; 292]));
    assert_eq!(outcomes(&duo.take_effects(Alice)), [(0, failed)]);
    assert_eq!(duo.balances(Alice), (600_000_000, 400_000_000));
}

#[test]
fn htlcs_cross_in_both_directions() {
    let mut duo = Duo::normal(&Terms::default());
    for number in 1..=5 {
        duo.add(Alice, sat(10_000 + u64::from(number)), number).expect("room");
        duo.add(Bob, sat(300 + u64::from(number)), number + 10).expect("room");
        duo.commit(Alice);
        duo.commit(Bob);
    }
    duo.run();
    for id in 0..5_u8 {
        duo.fulfill(Bob, u64::from(id), id + 1).expect("standing");
        duo.fail(Alice, u64::from(id)).expect("standing");
    }
    duo.run();
    assert_eq!(duo.balances(Alice), (600_000_000 - 50_015_000, 400_000_000 + 50_015_000));
    assert_eq!(outcomes(&duo.take_effects(Bob)).len(), 5);
    assert_eq!(outcomes(&duo.take_effects(Alice)).len(), 5);
}

#[test]
fn the_opener_changes_the_feerate() {
    let mut duo = Duo::normal(&Terms::default());
    assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(2000))), Ok(Reply::Done));
    assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(3000))), Err(Refusal::FeeChangePending));
    duo.run();
    for who in [Alice, Bob] {
        let fee = duo.side(who).channel.rows().head.fee;
        assert_eq!((fee.local.get(), fee.remote.get(), fee.change), (2000, 2000, None));
    }
    assert_eq!(duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(3000))), Ok(Reply::Done));
    assert_eq!(duo.order(Bob, Command::UpdateFee(FeeratePerKw::new(3000))), Err(Refusal::NotOpener));
}

#[test]
fn a_second_feerate_may_come_before_the_first_is_acknowledged() {
    let mut duo = Duo::normal(&Terms::default());
    duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(2000))).expect("taken");
    duo.commit(Alice);
    duo.receive(Bob);
    duo.receive(Bob);
    let channel_id = duo.bob.channel.id();
    duo.message(Bob, &Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(2500) }));
    assert_eq!(*duo.bob.channel.phase(), Phase::Normal);
    assert_eq!(duo.bob.channel.rows().head.fee.local.get(), 2000);
}

#[test]
fn commands_out_of_place_are_refused() {
    let mut duo = standing(sat(50_000));
    assert_eq!(duo.fulfill(Bob, 7, 1), Err(Refusal::UnknownHtlc));
    assert_eq!(duo.fulfill(Bob, 0, 2), Err(Refusal::WrongPreimage));
    assert_eq!(duo.fulfill(Bob, 0, 1), Ok(Reply::Done));
    assert_eq!(duo.fulfill(Bob, 0, 1), Ok(Reply::Done), "told again");
    assert_eq!(duo.fail(Bob, 0), Ok(Reply::Done), "a claim is never replaced");
    assert_eq!(duo.bob.outbox.len(), 1);
    assert_eq!(duo.add(Alice, Msat::ZERO, 3), Err(Refusal::AmountTooSmall(Msat::new(1000))));
    let Command::AddHtlc { amount, payment_hash, onion, source, .. } = add(sat(1000), 3) else { panic!() };
    let timed = Command::AddHtlc { amount, payment_hash, cltv_expiry: 500_000_000, onion, source };
    assert_eq!(duo.order(Alice, timed), Err(Refusal::ExpiryIsTime));
    duo.disconnect();
    assert_eq!(duo.add(Alice, sat(1000), 3), Err(Refusal::NotConnected));
    assert!(Refusal::NotConnected.is_retryable());
    assert_eq!(duo.fail(Bob, 0), Err(Refusal::NotConnected));
}

#[test]
fn a_claim_takes_an_unsigned_failure_back_with_the_connection() {
    let mut duo = standing(sat(50_000));
    duo.fail(Bob, 0).expect("standing");
    assert_eq!(duo.fulfill(Bob, 0, 1), Err(Refusal::FailureProposed));
    assert!(matches!(duo.take_effects(Bob).as_slice(), [Effect::Disconnect(_)]));
    // The shell signs once more before it hears of the disconnect that was asked for.
    duo.commit(Bob);
    assert_eq!(duo.bob.monitor.rows().preimages.get(&hash(1)), Some(&preimage(1)));
    duo.reconnect();
    duo.run();
    assert_eq!(duo.fulfill(Bob, 0, 1), Ok(Reply::Done));
    duo.run();
    assert_eq!(duo.balances(Bob), (450_000_000, 550_000_000));
}

#[test]
fn the_preimage_of_a_claim_reaches_the_monitor_without_a_connection() {
    let mut duo = standing(sat(50_000));
    duo.disconnect();
    assert_eq!(duo.fulfill(Bob, 0, 1), Err(Refusal::NotConnected));
    assert_eq!(duo.bob.monitor.rows().preimages.get(&hash(1)), Some(&preimage(1)));
}

#[test]
fn bad_input_38_amount_zero_or_below_minimum() {
    for amount in [0, 999] {
        let mut duo = Duo::normal(&Terms::default());
        let add = duo.update_add(0, Msat::new(amount));
        duo.message(Bob, &Message::UpdateAddHtlc(add));
        assert_warned(&mut duo, Bob, &Rule::AmountTooSmall(Msat::new(1000)));
    }
}

#[test]
fn bad_input_39_htlc_id_skipped_or_reused() {
    let mut duo = Duo::normal(&Terms::default());
    let skipped = duo.update_add(1, sat(1000));
    duo.message(Bob, &Message::UpdateAddHtlc(skipped));
    assert_failed(&mut duo, Bob, &Rule::HtlcIdOutOfOrder { expected: 0, found: 1 });

    let mut duo = standing(sat(1000));
    let reused = duo.update_add(0, sat(1000));
    duo.message(Bob, &Message::UpdateAddHtlc(reused));
    assert_failed(&mut duo, Bob, &Rule::HtlcIdOutOfOrder { expected: 1, found: 0 });
}

#[test]
fn bad_input_39_an_uncommitted_id_comes_again_after_a_reconnect() {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(1000), 1).expect("room");
    duo.receive(Bob);
    duo.reconnect();
    assert_eq!(outcomes(&duo.take_effects(Alice)), [(0, HtlcOutcome::NeverCommitted)]);
    duo.run();
    assert_eq!(duo.add(Alice, sat(2000), 2), Ok(Reply::Added { htlc_id: 0 }));
    duo.run();
    let effects = duo.take_effects(Bob);
    assert!(matches!(effects.as_slice(), [Effect::Incoming(incoming)] if incoming.amount == sat(2000)));
}

#[test]
fn bad_input_40_more_htlcs_or_more_value_than_accepted() {
    let mut terms = Terms::default();
    terms.bob.max_accepted_htlcs = 2;
    let mut duo = Duo::normal(&terms);
    duo.add(Alice, sat(1000), 1).expect("room");
    duo.add(Alice, sat(1000), 2).expect("room");
    assert_eq!(duo.add(Alice, sat(1000), 3), Err(Refusal::TooManyHtlcs(2)));
    duo.run();
    let third = duo.update_add(2, sat(1000));
    duo.message(Bob, &Message::UpdateAddHtlc(third));
    assert_warned(&mut duo, Bob, &Rule::TooManyHtlcs);

    let mut terms = Terms::default();
    terms.bob.max_in_flight_ppm = 100_000;
    let mut duo = Duo::normal(&terms);
    duo.add(Alice, sat(100_000), 1).expect("room");
    assert_eq!(duo.add(Alice, sat(1000), 2), Err(Refusal::TooMuchInFlight(sat(100_000))));
    duo.run();
    let more = duo.update_add(1, sat(1000));
    duo.message(Bob, &Message::UpdateAddHtlc(more));
    assert_warned(&mut duo, Bob, &Rule::TooMuchInFlight);
}

#[test]
fn bad_input_41_an_htlc_that_the_sender_cannot_afford() {
    // The opener: reserve, fee of one HTLC and both anchors stay.
    let cost = 10_000 + (1124 + 172) + 660;
    for (amount, fine) in [(600_000 - cost, true), (600_000 - cost + 1, false)] {
        let mut duo = Duo::normal(&Terms::default());
        let add = duo.update_add(0, sat(amount));
        duo.message(Bob, &Message::UpdateAddHtlc(add));
        if fine {
            assert_eq!(*duo.bob.channel.phase(), Phase::Normal);
            assert!(duo.bob.outbox.is_empty());
        } else {
            assert_warned_once_signed(&mut duo, Bob, &Rule::CannotAffordHtlc);
        }
    }
    // More than any feerate would leave it.
    let mut duo = Duo::normal(&Terms::default());
    let add = duo.update_add(0, sat(600_000));
    duo.message(Bob, &Message::UpdateAddHtlc(add));
    assert_warned(&mut duo, Bob, &Rule::CannotAffordHtlc);
    // The accepter: only the reserve stays.
    for (amount, fine) in [(390_000, true), (390_001, false)] {
        let mut duo = Duo::normal(&Terms::default());
        let add = duo.update_add(0, sat(amount));
        duo.message(Alice, &Message::UpdateAddHtlc(add));
        if fine {
            assert!(duo.alice.outbox.is_empty());
        } else {
            assert_warned(&mut duo, Alice, &Rule::CannotAffordHtlc);
        }
    }
}

#[test]
fn bad_input_42_expiry_that_is_a_time() {
    let mut duo = Duo::normal(&Terms::default());
    let add = UpdateAddHtlc { cltv_expiry: 500_000_000, ..duo.update_add(0, sat(1000)) };
    duo.message(Bob, &Message::UpdateAddHtlc(add));
    assert_warned(&mut duo, Bob, &Rule::ExpiryIsTime);
}

#[test]
fn bad_input_43_expiry_in_the_past_is_committed_for_the_shell_to_fail() {
    let mut duo = Duo::normal(&Terms::default());
    let Command::AddHtlc { amount, payment_hash, onion, source, .. } = add(sat(1000), 3) else { panic!() };
    duo.order(Alice, Command::AddHtlc { amount, payment_hash, cltv_expiry: 1, onion, source }).expect("taken");
    duo.run();
    assert!(matches!(duo.take_effects(Bob).as_slice(), [Effect::Incoming(incoming)] if incoming.cltv_expiry == 1));
}

fn fulfil_message(duo: &Duo, id: u64, number: u8) -> Message {
    let channel_id = duo.alice.channel.id();
    Message::UpdateFulfillHtlc(UpdateFulfillHtlc { channel_id, id, payment_preimage: preimage(number) })
}

#[test]
fn bad_input_45_a_wrong_fulfil_is_a_warning_but_a_right_preimage_is_kept() {
    let mut duo = standing(sat(50_000));
    let wrong = fulfil_message(&duo, 0, 2);
    duo.message(Alice, &wrong);
    assert_warned(&mut duo, Alice, &Rule::WrongPreimage(0));
    assert!(duo.alice.monitor.rows().preimages.is_empty());

    let mut duo = standing(sat(50_000));
    let unknown = fulfil_message(&duo, 7, 1);
    duo.message(Alice, &unknown);
    assert_warned(&mut duo, Alice, &Rule::UnknownHtlc(7));
    assert_eq!(duo.alice.monitor.rows().preimages.get(&hash(1)), Some(&preimage(1)));

    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.commit(Alice);
    let early = fulfil_message(&duo, 0, 1);
    duo.message(Alice, &early);
    assert_eq!(outcomes(&duo.alice.effects), [(0, HtlcOutcome::Fulfilled(preimage(1)))], "the proof counts");
    assert_warned(&mut duo, Alice, &Rule::HtlcNotCommitted(0));
}

#[test]
fn bad_input_46_malformed_without_badonion() {
    let mut duo = standing(sat(50_000));
    let channel_id = duo.alice.channel.id();
    let malformed = UpdateFailMalformedHtlc { channel_id, id: 0, sha256_of_onion: [0; 32], failure_code: 0x4000 | 5 };
    duo.message(Alice, &Message::UpdateFailMalformedHtlc(malformed));
    assert_warned(&mut duo, Alice, &Rule::NotBadOnion);
}

#[test]
fn bad_input_47_fulfil_and_fail_of_the_same_htlc() {
    let mut duo = standing(sat(50_000));
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.receive(Alice);
    let channel_id = duo.alice.channel.id();
    duo.message(Alice, &Message::UpdateFailHtlc(UpdateFailHtlc { channel_id, id: 0, reason: Vec::new() }));
    assert_failed(&mut duo, Alice, &Rule::HtlcAlreadyRemoved(0));
}

#[test]
fn bad_input_48_update_fee_from_the_accepter_or_out_of_bounds() {
    let fee = |duo: &Duo, feerate| {
        let channel_id = duo.alice.channel.id();
        Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(feerate) })
    };
    let mut duo = Duo::normal(&Terms::default());
    let message = fee(&duo, 1000);
    duo.message(Alice, &message);
    assert_warned(&mut duo, Alice, &Rule::FeeFromAccepter);
    for (feerate, rule) in [(0, Rule::FeerateTooLow), (250_000, Rule::FeerateTooHigh(FeeratePerKw::new(25_000)))] {
        let mut duo = Duo::normal(&Terms::default());
        let message = fee(&duo, feerate);
        duo.message(Bob, &message);
        assert_warned(&mut duo, Bob, &rule);
    }
    // CST-9: more than the opener can pay above its reserve.
    let mut duo = Duo::normal(&Terms { funding: Sat::new(29_000), push: Msat::ZERO, ..Terms::default() });
    let message = fee(&duo, 25_000);
    duo.message(Bob, &message);
    assert_warned(&mut duo, Bob, &Rule::CannotAffordFee);
}

#[test]
fn bad_input_49_a_commitment_without_updates_is_let_pass_once() {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(1000), 1).expect("room");
    duo.run();
    let number = duo.bob.channel.rows().head.local_number;
    // Bob's own signer for Alice signs her state again, with Bob's next number.
    let empty = empty_commitment(&mut duo);
    duo.message(Bob, &Message::CommitmentSigned(empty.clone()));
    assert_eq!(duo.bob.channel.rows().head.local_number, number + 1);
    duo.message(Bob, &Message::CommitmentSigned(empty));
    assert_warned(&mut duo, Bob, &Rule::EmptyCommitment);
}

/// What Alice would send had she nothing to sign: made by proposing and taking back on a copy of her channel.
fn empty_commitment(duo: &mut Duo) -> CommitmentSigned {
    use outrigger_bolt::keys::CommitmentKeys;
    use outrigger_bolt::tx::commitment::{CommitmentHtlc, CommitmentPlan, CommitmentTx, HtlcDirection};
    use outrigger_channel::Signer;
    let rows = duo.bob.channel.rows().clone();
    let (params, head) = (&rows.params, &rows.head);
    let number = head.local_number + 1;
    let (bob, alice) = (&params.local.basepoints, &params.remote.basepoints);
    let keys = CommitmentKeys::derive(bob, alice, &duo.bob.signer.per_commitment_point(number)).expect("keys");
    let htlcs: Vec<CommitmentHtlc> = rows
        .htlcs
        .iter()
        .map(|(key, row)| CommitmentHtlc {
            id: key.id,
            direction: HtlcDirection::Received,
            amount: row.amount,
            payment_hash: row.payment_hash,
            cltv_expiry: row.cltv_expiry,
        })
        .collect();
    let plan = CommitmentPlan {
        funding_outpoint: params.funding,
        number,
        opener_payment_basepoint: alice.payment,
        accepter_payment_basepoint: bob.payment,
        owner_is_opener: false,
        to_self_delay: params.remote.to_self_delay,
        dust_limit: params.local.dust_limit,
        feerate: head.fee.local,
        to_owner: head.local_commitment.to_local,
        to_other: head.local_commitment.to_remote,
        htlcs: &htlcs,
        keys: &keys,
        owner_funding_pubkey: bob.funding_pubkey,
        other_funding_pubkey: alice.funding_pubkey,
    };
    let commitment = CommitmentTx::build(&plan).expect("affordable");
    let (signature, htlc_signatures) =
        duo.alice.signer.sign_remote_commitment(&duo.alice.channel.rows().params, &commitment, &keys);
    CommitmentSigned { channel_id: params.channel_id, signature, htlc_signatures, funding_txid: None }
}

/// Alice's commitment_signed for two equal HTLCs and a larger one, on its way to Bob, who has seen the adds.
fn commitment_on_its_way() -> (Duo, CommitmentSigned) {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(20_000), 1).expect("room");
    duo.add(Alice, sat(30_000), 2).expect("room");
    duo.commit(Alice);
    duo.receive(Bob);
    duo.receive(Bob);
    let Some(Message::CommitmentSigned(signed)) = duo.alice.outbox.pop_front() else { panic!("signed") };
    (duo, signed)
}

#[test]
fn bad_input_50_signatures_missing_swapped_or_wrong() {
    let (mut duo, mut signed) = commitment_on_its_way();
    signed.htlc_signatures.pop();
    duo.message(Bob, &Message::CommitmentSigned(signed));
    assert_failed(&mut duo, Bob, &Rule::HtlcSignatureCount { expected: 2, found: 1 });

    let (mut duo, mut signed) = commitment_on_its_way();
    signed.htlc_signatures.push(signed.signature);
    duo.message(Bob, &Message::CommitmentSigned(signed));
    assert_failed(&mut duo, Bob, &Rule::HtlcSignatureCount { expected: 2, found: 3 });

    let (mut duo, mut signed) = commitment_on_its_way();
    signed.htlc_signatures.reverse();
    duo.message(Bob, &Message::CommitmentSigned(signed));
    assert_failed(&mut duo, Bob, &Rule::BadHtlcSignature(0));

    let (mut duo, mut signed) = commitment_on_its_way();
    signed.signature = signed.htlc_signatures[0];
    duo.message(Bob, &Message::CommitmentSigned(signed));
    let Phase::Failed { reason, .. } = duo.bob.channel.phase() else { panic!("failed") };
    assert!(reason.starts_with("signature does not sign the commitment transaction with this txid: "), "{reason}");
    assert!(duo.bob.monitor.rows().head.local.number == 0, "the old commitment is what is published");
}

#[test]
fn cst_10_bad_input_50_a_high_s_signature_is_refused() {
    let (mut duo, mut signed) = commitment_on_its_way();
    signed.signature = high_s(&signed.signature);
    duo.message(Bob, &Message::CommitmentSigned(signed));
    assert_failed(&mut duo, Bob, &Rule::HighS);

    let (mut duo, mut signed) = commitment_on_its_way();
    signed.htlc_signatures[1] = high_s(&signed.htlc_signatures[1]);
    duo.message(Bob, &Message::CommitmentSigned(signed));
    assert_failed(&mut duo, Bob, &Rule::HighS);
}

#[test]
fn bad_input_51_a_second_commitment_before_our_revocation() {
    let (mut duo, signed) = commitment_on_its_way();
    duo.message(Bob, &Message::CommitmentSigned(signed.clone()));
    let add = duo.update_add(2, sat(1000));
    duo.message(Bob, &Message::UpdateAddHtlc(add));
    duo.message(Bob, &Message::CommitmentSigned(signed));
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: true, .. }));
}

#[test]
fn bad_input_53_revocations_that_are_not_due_or_not_true() {
    let revocation = |duo: &Duo, secret| {
        let channel_id = duo.alice.channel.id();
        let next_per_commitment_point = duo.alice.channel.rows().params.remote.basepoints.htlc;
        let per_commitment_secret = PerCommitmentSecret(secret);
        Message::RevokeAndAck(RevokeAndAck { channel_id, per_commitment_secret, next_per_commitment_point })
    };
    let mut duo = Duo::normal(&Terms::default());
    let unsolicited = revocation(&duo, [1; 32]);
    duo.message(Alice, &unsolicited);
    assert_failed(&mut duo, Alice, &Rule::UnsolicitedRevocation);
    for secret in [[1; 32], [0; 32], [255; 32]] {
        let (mut duo, _) = commitment_on_its_way();
        let wrong = revocation(&duo, secret);
        duo.message(Alice, &wrong);
        assert_failed(&mut duo, Alice, &Rule::WrongSecret);
    }
}

/// Each secret answers to its point, but they are no chain: the monitor says so, and the channel can still be failed.
#[test]
fn bad_input_53_a_secret_that_breaks_the_chain() {
    let unchained = SecretKey::from_slice(&[7; 32]).expect("a key");
    let point = unchained.public_key(&Secp256k1::signing_only());
    let mut duo = Duo::born(&Terms::default());
    duo.confirm();
    let channel_id = duo.alice.channel.id();
    let ready = ChannelReady { channel_id, second_per_commitment_point: point, short_channel_id: None };
    duo.message(Alice, &Message::ChannelReady(ready));
    let revocation = |secret| {
        let per_commitment_secret = PerCommitmentSecret(secret);
        Message::RevokeAndAck(RevokeAndAck { channel_id, per_commitment_secret, next_per_commitment_point: point })
    };
    let mut durable = duo.bob.monitor.rows().head.clone();
    durable.local.number = 1;
    let first = duo.bob.signer.release_secret(0, &Guard::of(&durable)).expect("given");
    duo.add(Alice, sat(20_000), 1).expect("room");
    duo.commit(Alice);
    duo.message(Alice, &revocation(first));
    duo.add(Alice, sat(20_000), 2).expect("room");
    duo.commit(Alice);
    let message = revocation(unchained.secret_bytes());
    let (policy, alice) = (policy(), signer(Alice));
    let cx = context(duo.height, &policy, &alice);
    let update = duo.alice.channel.step(Input::Message(&message), &cx).monitor.expect("an update");
    let refused = duo.alice.monitor.step(&update).expect_err("no chain");
    assert_eq!(refused, UpdateRefused::Secret { number: 1 });
    let answer = duo.order(Alice, Command::Fail { reason: refused.to_string() });
    assert_eq!(answer, Ok(Reply::Done));
    assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: true, .. }));
}

#[test]
fn cst_7_both_add_at_once_at_every_balance_around_the_limit() {
    // Alice, who pays the fee, is left with what a buffer of twice the fee and two HTLCs costs, give or take.
    let buffer = 10_000 + 2 * (1124 + 2 * 172) + 660;
    for spare in 0..=6 {
        let alice = 20_000 + buffer - 3 + spare;
        let terms = Terms { push: sat(1_000_000 - alice), ..Terms::default() };
        let mut duo = Duo::normal(&terms);
        let added = duo.add(Alice, sat(20_000), 1);
        assert_eq!(added.is_ok(), spare >= 3, "{alice} sat");
        duo.add(Bob, sat(5_000), 2).expect("the accepter pays no fee");
        duo.commit(Alice);
        duo.commit(Bob);
        duo.run();
        for who in [Alice, Bob] {
            assert_eq!(*duo.side(who).channel.phase(), Phase::Normal, "{alice} sat");
            assert!(matches!(duo.side(who).channel.link(), Link::Connected(_)), "{alice} sat");
        }
        duo.fulfill(Alice, 0, 2).expect("standing");
        duo.run();
        duo.balances(Alice);
    }
}

#[test]
fn cst_8_near_dust_htlc_is_charged_as_it_is_built() {
    // Amounts around the dust limit, at the balance where one output more is the difference.
    for amount in [352, 353, 354, 355, 356] {
        let charged = if amount < 354 { 0 } else { 172 };
        let cost = 10_000 + 1124 + charged + 660;
        for (alice, fine) in [(amount + cost, true), (amount + cost - 1, false)] {
            let terms = Terms { push: sat(1_000_000 - alice), ..Terms::default() };
            let mut duo = Duo::normal(&terms);
            let add = duo.update_add(0, sat(amount));
            duo.message(Bob, &Message::UpdateAddHtlc(add));
            if fine {
                assert!(duo.bob.outbox.is_empty(), "{amount} sat of {alice}");
            } else {
                assert_warned_once_signed(&mut duo, Bob, &Rule::CannotAffordHtlc);
            }
        }
    }
}

#[test]
fn cst_6_both_directions_filled_to_their_limits_load_again() {
    let mut terms = Terms::default();
    (terms.alice.max_accepted_htlcs, terms.bob.max_accepted_htlcs) = (3, 7);
    let mut duo = Duo::normal(&terms);
    for number in 0..7 {
        duo.add(Alice, sat(1000), number).expect("room");
    }
    for number in 0..3 {
        duo.add(Bob, sat(1000), number).expect("room");
    }
    duo.run();
    duo.reconnect();
    duo.run();
    assert_eq!(duo.alice.channel.rows().htlcs.len(), 10);
    assert_eq!(duo.add(Bob, sat(1000), 9), Err(Refusal::TooManyHtlcs(3)));
    assert_eq!(duo.add(Alice, sat(1000), 9), Err(Refusal::TooManyHtlcs(7)));
}

#[test]
fn what_is_spendable_can_be_spent_and_not_a_msat_more() {
    for who in [Alice, Bob] {
        let mut duo = Duo::normal(&Terms::default());
        let spendable = duo.side(who).channel.summary(503).spendable;
        assert!(duo.add(who, Msat::new(spendable.get() + 1), 1).is_err());
        assert!(duo.add(who, spendable, 1).is_ok());
        duo.run();
        assert_eq!(*duo.side(who).channel.phase(), Phase::Normal);
        assert_eq!(duo.side(who).channel.summary(503).spendable, Msat::ZERO);
    }
}

#[test]
fn a_failed_channel_still_learns_preimages_and_nothing_else() {
    let mut duo = standing(sat(50_000));
    let taken = duo.order(Alice, Command::Fail { reason: "as the operator wishes".to_owned() });
    assert_eq!(taken, Ok(Reply::Done));
    assert_failed(&mut duo, Alice, &Rule::Ordered("as the operator wishes".to_owned()));
    duo.take_effects(Alice);
    let fulfil = fulfil_message(&duo, 0, 1);
    duo.message(Alice, &fulfil);
    assert_eq!(outcomes(&duo.take_effects(Alice)), [(0, HtlcOutcome::Fulfilled(preimage(1)))]);
    assert_eq!(duo.alice.monitor.rows().preimages.len(), 1);
    assert_eq!(duo.add(Alice, sat(1000), 4), Err(Refusal::Ended));
    duo.connect();
    // A peer that has lost data learns it before the error has it publish what it has revoked (BAK-1).
    assert!(matches!(duo.alice.outbox.pop_front(), Some(Message::ChannelReestablish(_))));
    assert!(matches!(duo.alice.outbox.pop_front(), Some(Message::Error(_))));

    // The peer fails too once it is told, and claims on the chain.
    let error = Message::Error(outrigger_bolt::wire::Error {
        channel_id: duo.bob.channel.id(),
        data: "as the operator wishes".into(),
    });
    duo.message(Bob, &error);
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: true, .. }));
    assert_eq!(duo.fulfill(Bob, 0, 1), Ok(Reply::Done));
    assert_eq!(duo.bob.monitor.rows().preimages.len(), 1);
}

#[test]
fn updates_cost_no_rows_before_they_are_signed() {
    let mut duo = Duo::normal(&Terms::default());
    let before = duo.alice.channel.rows().clone();
    for number in 0..10 {
        duo.add(Alice, sat(1000), number).expect("room");
        duo.receive(Bob);
    }
    assert_eq!(*duo.alice.channel.rows(), before);
    assert_eq!(duo.bob.channel.rows().htlcs.len(), 0);
}

#[test]
fn fee_2_htlcs_without_an_output_are_bounded_in_what_they_can_lose() {
    let mut terms = Terms::default();
    terms.alice.max_dust_exposure = Sat::new(4 * 354);
    let mut duo = Duo::normal(&terms);
    for number in 1..=4 {
        duo.add(Alice, sat(353), number).expect("room");
    }
    assert_eq!(duo.add(Alice, sat(353), 5), Err(Refusal::DustExposure(Sat::new(4 * 354))));
    assert!(duo.add(Alice, sat(354), 5).is_ok(), "one with an output loses nothing");
    duo.run();
    assert!(!duo.alice.channel.exposes_too_much(sat(353), &terms.alice));
    // What the peer adds is committed and left to relay to fail.
    duo.add(Bob, sat(300), 6).expect("room");
    duo.run();
    assert!(duo.alice.channel.exposes_too_much(sat(300), &terms.alice));
    assert!(!duo.alice.channel.exposes_too_much(sat(400), &terms.alice));
    duo.fail(Bob, 0).expect("standing");
    duo.run();
    assert!(!duo.alice.channel.exposes_too_much(sat(300), &terms.alice));
}

/// A feerate at which a few HTLCs matter, below a cap that is out of the way.
fn costly() -> Terms {
    let mut terms = Terms { feerate: FeeratePerKw::new(20_000), ..Terms::default() };
    terms.bob.max_dust_exposure = Sat::new(400_000);
    terms
}

/// The peer knows all of our balance here: HTLCs that we cannot pay for are its fault, and would leave a commitment that
/// no node relays.
#[test]
fn cst_7_a_burst_that_the_opener_cannot_pay_for_is_refused() {
    let mut duo = Duo::normal(&costly());
    let spendable = duo.alice.channel.summary(503).spendable;
    duo.add(Alice, spendable, 1).expect("spendable");
    duo.run();
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.run();
    duo.take_effects(Alice);
    let taken = (0..30).take_while(|id| {
        let add = duo.update_add(*id, sat(1000));
        duo.message(Alice, &Message::UpdateAddHtlc(add));
        matches!(duo.alice.channel.link(), Link::Connected(_))
    });
    // Reserve and twice the fee for two HTLCs are left, at 3440 sat for each HTLC.
    assert_eq!(taken.count(), 13);
    assert_warned(&mut duo, Alice, &Rule::CannotAffordHtlc);
}

#[test]
fn cst_7_a_burst_of_the_peers_htlcs_crossing_ours_never_costs_the_channel() {
    let terms = costly();
    for burst in (0..=25).step_by(5) {
        for opener_spends in [true, false] {
            let mut duo = Duo::normal(&terms);
            let (spender, other) = if opener_spends { (Alice, Bob) } else { (Bob, Alice) };
            let spendable = duo.side(spender).channel.summary(503).spendable;
            duo.add(spender, spendable, 1).expect("spendable");
            for number in 2..2 + burst {
                if duo.add(other, sat(1000), number).is_err() {
                    break;
                }
            }
            duo.commit(Alice);
            duo.commit(Bob);
            duo.run();
            for who in [Alice, Bob] {
                assert_eq!(*duo.side(who).channel.phase(), Phase::Normal, "{burst} {opener_spends}");
                assert!(matches!(duo.side(who).channel.link(), Link::Connected(_)), "{burst} {opener_spends}");
                assert!(duo.side(who).monitor.local_commitment_tx(&*duo.side(who).signer).is_ok());
            }
            // What was paid less for is resolved like anything else.
            duo.fulfill(other, 0, 1).expect("standing");
            for id in 0..u64::from(burst) {
                let _never_added = duo.fail(spender, id);
            }
            duo.run();
            let (alice, bob) = duo.balances(Alice);
            assert_eq!(alice + bob, 1_000_000_000, "{burst} {opener_spends}");
        }
    }
}
