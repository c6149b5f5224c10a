//! Restored mode: proof that the rows are old, and what every channel of the node does from then on.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod duo;

use bitcoin::absolute::LockTime;
use bitcoin::{OutPoint, ScriptBuf, Witness};
use duo::{Alice, Bob, Duo, SHUTDOWN_SCRIPT, Terms, sat, sent};
use outrigger_bolt::amount::{FeeratePerKw, Msat};
use outrigger_bolt::wire::{ChannelReestablish, Message, PerCommitmentSecret};
use outrigger_channel::{
    ChainEvent, ChannelNote, Command, Effect, Input, Link, Phase, Publication, Refusal, Signer, SoftSigner,
};

/// An input, made anew each time, and its name.
type Named = (&'static str, fn() -> Input<'static>);

/// One channel in each phase, and its name.
fn in_every_phase() -> Vec<(&'static str, Duo)> {
    let normal = || {
        let mut duo = Duo::normal(&Terms::default());
        duo.add(Alice, sat(5000), 1).unwrap();
        duo.run();
        duo.take_effects(Alice);
        duo
    };
    let mut shutting_down = normal();
    shutdown(&mut shutting_down);
    let mut closing = Duo::normal(&Terms::default());
    shutdown(&mut closing);
    closing.run();
    closing.take_effects(Alice);
    let mut failed = normal();
    failed.order(Alice, Command::Fail { reason: "by order".to_owned() }).unwrap();
    failed.take_effects(Alice);
    failed.alice.outbox.clear();
    vec![
        ("funding", Duo::born(&Terms::default())),
        ("normal", normal()),
        ("shutting_down", shutting_down),
        ("closing", closing),
        ("failed", failed),
    ]
}

fn shutdown(duo: &mut Duo) {
    let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
    duo.order(Alice, Command::Shutdown { script, feerate: FeeratePerKw::new(1500) }).unwrap();
}

fn errors(messages: &[Message]) -> Vec<String> {
    let text =
        |message: &Message| if let Message::Error(error) = message { Some(error.data.to_string()) } else { None };
    messages.iter().filter_map(text).collect()
}

#[test]
fn bak_7_under_restored_mode_every_open_channel_fails_without_publishing_whatever_reaches_it_first() {
    let inputs: [Named; 4] = [
        ("commit", || Input::Command(outrigger_channel::CommandId(9), Command::Commit)),
        ("disconnected", || Input::Disconnected),
        ("height", || Input::Chain(ChainEvent::Height(600))),
        ("fail", || Input::Command(outrigger_channel::CommandId(9), Command::Fail { reason: "by order".into() })),
    ];
    for (name, input) in inputs {
        for (phase, mut duo) in in_every_phase() {
            let before = duo.alice.channel.rows().head.clone();
            duo.alice.restored = true;
            duo.alice.outbox.clear();
            duo.take_effects(Alice);
            duo.input(Alice, input());
            let head = &duo.alice.channel.rows().head;
            let what = format!("{phase}, {name}");
            assert_eq!((head.local_number, head.remote_number), (before.local_number, before.remote_number), "{what}");
            match phase {
                // Both have signed that the channel ends so, and nothing follows it.
                "closing" => assert!(matches!(head.phase, Phase::Closing { .. }), "{what}: {:?}", head.phase),
                "failed" => {
                    assert!(
                        matches!(&head.phase, Phase::Failed { publish: false, reason, .. } if reason == "by order")
                    );
                    let enforced = duo.alice.monitor.enforcement(&*duo.alice.signer).expect("a failed channel");
                    assert_eq!(enforced.publish, None, "{what}");
                }
                _open => {
                    assert!(matches!(head.phase, Phase::Failed { publish: false, .. }), "{what}: {:?}", head.phase);
                    let told: Vec<Message> = duo.alice.outbox.iter().cloned().collect();
                    let [error] = errors(&told).try_into().unwrap();
                    assert!(error.contains("please close the channel from your side"), "{error}");
                    assert_eq!(told.len(), 1, "{what}: {told:?}");
                    assert_eq!(*duo.alice.channel.link(), Link::Disconnected, "{what}");
                }
            }
            assert!(phase == "closing" || !duo.alice.monitor.rows().head.may_publish, "{what}");
            let published = |effect: &Effect| matches!(effect, Effect::Publish { what: Publication::Funding, .. });
            assert!(!duo.alice.effects.iter().any(published), "{what}");
            assert!(!duo.alice.channel.resume(&duo.alice.policy).iter().any(published), "{what}");
            // The spend is watched for as before.
            assert!(!duo.alice.channel.watches().is_empty(), "{what}");
        }
    }
}

#[test]
fn bak_2_a_peer_that_agrees_with_old_numbers_gets_its_reestablish_an_error_and_nothing_signed() {
    for (phase, mut duo) in in_every_phase() {
        if matches!(phase, "closing" | "failed") {
            continue;
        }
        duo.disconnect();
        duo.alice.restored = true;
        duo.connect();
        let told: Vec<Message> = duo.alice.outbox.iter().cloned().collect();
        assert!(
            matches!(told.as_slice(), [Message::Error(_), Message::ChannelReestablish(_), Message::Error(_)]),
            "{phase}: {told:?}"
        );
        let agrees = duo.bob.outbox.pop_front().unwrap();
        duo.alice.outbox.clear();
        duo.message(Alice, &agrees);
        duo.commit(Alice);
        let told: Vec<Message> = duo.alice.outbox.drain(..).collect();
        assert!(matches!(told.as_slice(), [Message::Error(_)]), "{phase}: {told:?}");
        assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: false, .. }), "{phase}");
        assert_eq!(duo.add(Alice, sat(1000), 7), Err(Refusal::Ended), "{phase}");
    }
}

#[test]
fn a_close_that_both_signed_is_neither_agreed_on_again_nor_taken_back_under_restored_mode() {
    let (_, mut duo) = in_every_phase().into_iter().find(|(phase, _)| *phase == "closing").unwrap();
    duo.disconnect();
    duo.alice.restored = true;
    duo.connect();
    duo.run();
    assert!(duo.alice.outbox.is_empty());
    assert!(matches!(duo.alice.channel.phase(), Phase::Closing { .. }));
    assert!(matches!(
        duo.alice.channel.resume(&duo.alice.policy).as_slice(),
        [Effect::Publish { what: Publication::MutualClose, .. }]
    ));
}

/// What Bob says where Alice has lost `lost` commitments.
fn proof(duo: &Duo, lost: u64) -> Message {
    let (alice, bob) = (&duo.alice.channel.rows().head, &duo.bob.channel.rows().head);
    let next_revocation_number = alice.local_number + lost;
    Message::ChannelReestablish(ChannelReestablish {
        channel_id: duo.alice.channel.id(),
        next_commitment_number: bob.local_number + 1 + lost,
        next_revocation_number,
        your_last_per_commitment_secret: PerCommitmentSecret(released(next_revocation_number - 1)),
        my_current_per_commitment_point: duo.bob.signer.per_commitment_point(bob.local_number + lost),
    })
}

/// Alice's secret of that number, as a later state of hers would have given it away.
fn released(number: u64) -> [u8; 32] {
    let mut later = Duo::normal(&Terms::default());
    let mut amount = 1000;
    while later.alice.channel.rows().head.local_number <= number {
        amount += 1;
        later.add(Alice, sat(amount), 9).unwrap();
        later.run();
    }
    let guard = outrigger_channel::Guard::of(&later.alice.monitor.rows().head);
    SoftSigner::new([1; 32]).release_secret(number, &guard).expect("below the newest commitment")
}

#[test]
fn bad_input_56_bad_input_62_proof_puts_the_whole_node_into_restored_mode_in_every_phase() {
    for (phase, mut duo) in in_every_phase() {
        let message = proof(&duo, 2);
        duo.disconnect();
        duo.connect();
        duo.take_effects(Alice);
        duo.alice.outbox.clear();
        duo.message(Alice, &message);
        let proofs: Vec<&String> = duo
            .alice
            .effects
            .iter()
            .filter_map(|effect| if let Effect::Restored { proof } = effect { Some(proof) } else { None })
            .collect();
        let [proof] = proofs.as_slice() else { panic!("{phase}: {proofs:?}") };
        assert!(proof.contains(&duo.alice.channel.id().to_string()), "{phase}: {proof}");
        let head = &duo.alice.channel.rows().head;
        match phase {
            "closing" => assert!(matches!(head.phase, Phase::Closing { .. }), "{:?}", head.phase),
            _other => {
                assert!(matches!(head.phase, Phase::Failed { publish: false, .. }), "{phase}: {:?}", head.phase);
                assert!(!duo.alice.monitor.rows().head.may_publish, "{phase}");
            }
        }
        let published = duo.alice.monitor.enforcement(&*duo.alice.signer).and_then(|enforced| enforced.publish);
        assert_eq!(published, None, "{phase}: what failed before was being published");
        assert!(sent(&duo.alice.effects).is_empty());

        // bad_input_62: the truth again, then a lie, under the mode that the proof has brought.
        duo.alice.restored = true;
        duo.take_effects(Alice);
        duo.message(Alice, &message);
        duo.disconnect();
        duo.connect();
        let lie = duo.bob.outbox.pop_front();
        if let Some(lie) = lie {
            duo.message(Alice, &lie);
        }
        let head = &duo.alice.channel.rows().head;
        assert!(matches!(head.phase, Phase::Failed { publish: false, .. } | Phase::Closing { .. }), "{phase}");
        assert!(
            !duo.alice.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. })),
            "{phase}: told once"
        );
    }
}

/// The first time they meet, the copy dies before it hears the proof, and its old numbers have the peer fail the channel.
#[test]
fn bak_1_an_old_copy_hears_the_proof_before_the_error_of_a_peer_that_has_failed_the_channel() {
    let mut duo = Duo::normal(&Terms::default());
    let copy = duo.alice.clone();
    for _ in 0..2 {
        duo.add(Alice, sat(5000), 1).unwrap();
        duo.run();
    }
    duo.disconnect();
    duo.alice = copy;
    duo.reconnect();
    duo.receive(Bob);
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: true, .. }), "{:?}", duo.bob.channel.phase());
    duo.reconnect();
    let told: Vec<Message> = duo.bob.outbox.iter().cloned().collect();
    assert!(matches!(told.as_slice(), [Message::ChannelReestablish(_), Message::Error(_)]), "{told:?}");
    duo.take_effects(Alice);
    while duo.receive(Alice).is_some() {}
    assert!(
        matches!(duo.alice.channel.phase(), Phase::Failed { publish: false, .. }),
        "{:?}",
        duo.alice.channel.phase()
    );
    assert!(duo.alice.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. })));
    let enforced = duo.alice.monitor.enforcement(&*duo.alice.signer).expect("a failed channel");
    assert_eq!(enforced.publish, None, "what it would publish is revoked");
}

#[test]
fn bad_input_57_a_number_without_its_secret_proves_nothing() {
    let mut duo = Duo::normal(&Terms::default());
    let Message::ChannelReestablish(mut message) = proof(&duo, 2) else { panic!("a reestablish") };
    message.your_last_per_commitment_secret.0[31] ^= 1;
    duo.disconnect();
    duo.connect();
    duo.take_effects(Alice);
    duo.message(Alice, &Message::ChannelReestablish(message));
    assert!(!duo.alice.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. })));
    assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: true, .. }));
}

/// What became of a channel, and what was told of it.
fn told(duo: &mut Duo) -> (bool, Vec<ChannelNote>) {
    let effects = duo.take_effects(Bob);
    let restored = effects.iter().any(|effect| matches!(effect, Effect::Restored { .. }));
    let note = |effect| if let Effect::Note(note) = effect { Some(note) } else { None };
    (restored, effects.into_iter().filter_map(note).collect())
}

/// A peer names any output of its own as the funding output, and spends it by a transaction that bears the form and a later
/// number of a commitment: anybody can make that, so it says nothing of our rows.
#[test]
fn fnd_1_a_spend_of_what_never_was_the_funding_output_is_no_proof_and_no_alarm() {
    let mut later = Duo::normal(&Terms::default());
    for number in 1..4 {
        later.add(Bob, sat(2000 + u64::from(number)), number).unwrap();
        later.run();
    }
    let genuine = later.alice.monitor.local_commitment_tx(&*later.alice.signer).expect("a commitment to publish");
    let mut forged = genuine.clone();
    let witness: Vec<Vec<u8>> = genuine.input[0].witness.iter().map(<[u8]>::to_vec).collect();
    let of_bob = later.bob.channel.rows().params.local.basepoints.funding_pubkey;
    let of_alice = later.alice.channel.rows().params.local.basepoints.funding_pubkey;
    // The signatures stand in the order of the keys: Bob's is replaced by Alice's.
    let (bobs, alices) = if of_bob.serialize() < of_alice.serialize() { (1, 2) } else { (2, 1) };
    let mut signed_twice = witness.clone();
    signed_twice[bobs] = witness[alices].clone();
    forged.input[0].witness = Witness::from_slice(&signed_twice);
    let mut plain = forged.clone();
    plain.lock_time = LockTime::ZERO;

    for failed_before in [false, true] {
        for spend in [&forged, &plain] {
            let mut duo = Duo::born(&Terms::default());
            if failed_before {
                duo.order(Bob, Command::Fail { reason: "by order".to_owned() }).unwrap();
            }
            told(&mut duo);
            duo.input(Bob, Input::Chain(ChainEvent::FundingSpent { height: 510, tx: spend }));
            assert!(matches!(duo.bob.channel.phase(), Phase::Closed { .. }), "{:?}", duo.bob.channel.phase());
            let (restored, notes) = told(&mut duo);
            let [ChannelNote::FundingMismatch { .. }, ChannelNote::NeverFunded { told, .. }] = notes.as_slice() else {
                panic!("{notes:?}")
            };
            assert!(!restored && *told == failed_before.then_some(Msat::ZERO), "{told:?}");
            assert!(!duo.bob.channel.was_funded(), "nothing is kept of it");
        }
        // Signed by Bob it is what it seems, though he never saw the funding transaction; so it is where its output was
        // seen, and where it is his own.
        let mut other_s = witness.clone();
        let signature = bitcoin::ecdsa::Signature::from_slice(&witness[bobs]).unwrap();
        let high = duo::high_s(&signature.signature).serialize_der();
        other_s[bobs] = [high.as_ref(), &[signature.sighash_type as u8]].concat();
        let mut flipped = genuine.clone();
        flipped.input[0].witness = Witness::from_slice(&other_s);
        for (spend, seen) in [(&genuine, false), (&flipped, false), (&forged, true)] {
            let mut duo = if seen { Duo::normal(&Terms::default()) } else { Duo::born(&Terms::default()) };
            if failed_before {
                duo.order(Bob, Command::Fail { reason: "by order".to_owned() }).unwrap();
            }
            told(&mut duo);
            duo.input(Bob, Input::Chain(ChainEvent::FundingSpent { height: 510, tx: spend }));
            assert!(told(&mut duo).0, "proof");
            assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: false, spend: Some(_), .. }));
        }
    }
}

#[test]
fn cst_1_a_later_commitment_in_the_chain_puts_the_node_into_restored_mode() {
    // Two lives of one channel: the later one's commitment confirms before the eyes of the earlier one.
    let earlier = Duo::normal(&Terms::default());
    let mut later = Duo::normal(&Terms::default());
    for number in 1..4 {
        later.add(Bob, sat(2000 + u64::from(number)), number).unwrap();
        later.run();
    }
    let spend = later.bob.monitor.local_commitment_tx(&*later.bob.signer).expect("a commitment to publish");
    assert_eq!(spend.input[0].previous_output, OutPoint { txid: earlier.tx.compute_txid(), vout: 0 });
    for failed_before in [false, true] {
        let mut duo = Duo::normal(&Terms::default());
        if failed_before {
            duo.order(Alice, Command::Fail { reason: "by order".to_owned() }).unwrap();
        }
        duo.take_effects(Alice);
        duo.input(Alice, Input::Chain(ChainEvent::FundingSpent { height: 510, tx: &spend }));
        assert!(duo.alice.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. })), "{failed_before}");
        assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: false, spend: Some(_), .. }));
        assert!(!duo.alice.monitor.rows().head.may_publish);

        // Seen again after a reorganisation, and by another channel of the node: it is known, and told once.
        let mut other = Duo::normal(&Terms::default());
        for duo in [&mut duo, &mut other] {
            duo.alice.restored = true;
            duo.take_effects(Alice);
            duo.input(Alice, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
            duo.input(Alice, Input::Chain(ChainEvent::FundingSpent { height: 511, tx: &spend }));
            assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: false, spend: Some((_, 511)), .. }));
            assert!(!duo.alice.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. })));
        }
    }
    // Of the later life itself it is a close like any other.
    later.take_effects(Alice);
    later.input(Alice, Input::Chain(ChainEvent::FundingSpent { height: 510, tx: &spend }));
    assert!(!later.alice.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. })));
}
