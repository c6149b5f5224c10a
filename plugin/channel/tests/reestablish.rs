//! Reconnections at every point of an exchange (BOLT 2, "Message Retransmission").
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use duo::{Alice, Bob, Duo, Terms, Who, features, hash, preimage, sat};
use outrigger_bolt::amount::{FeeratePerKw, Msat};
use outrigger_bolt::wire::{ChannelReestablish, Message, PerCommitmentSecret};
use outrigger_channel::{ChainEvent, Command, Effect, HtlcOutcome, Input, Link, Phase, Reply, Rule, Signer};

/// A channel in which two HTLCs were settled, so that every counter and secret has moved.
fn used() -> Duo {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.add(Bob, sat(20_000), 2).expect("room");
    duo.run();
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.fail(Alice, 0).expect("standing");
    duo.run();
    duo.take_effects(Alice);
    duo.take_effects(Bob);
    duo
}

/// The `channel_reestablish` that the peer of `who` sent, not delivered; ours is delivered to nobody either.
fn on_reconnect(duo: &mut Duo, who: Who) -> ChannelReestablish {
    duo.reconnect();
    duo.side_mut(who).outbox.clear();
    let Some(Message::ChannelReestablish(message)) = duo.side_mut(who.other()).outbox.pop_front() else {
        panic!("channel_reestablish comes first")
    };
    message
}

fn assert_failed(duo: &mut Duo, who: Who, rule: &Rule, publish: bool) {
    let reason = rule.to_string();
    let told = duo
        .side_mut(who)
        .outbox
        .drain(..)
        .any(|message| matches!(&message, Message::Error(error) if error.data.to_string() == reason));
    assert!(told, "no error: {reason}; {:?}", duo.side(who).channel.phase());
    assert_eq!(*duo.side(who).channel.phase(), Phase::Failed { reason, publish, reserved: false, spend: None });
}

/// One exchange, in which Alice pays, both have an HTLC removed, and the feerate changes: cut after `messages`.
/// Messages go in turns, one each way; `commit_first` signs first.
fn exchange_cut_after(messages: usize, commit_first: Who) -> Duo {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.add(Bob, sat(20_000), 2).expect("room");
    duo.run();
    duo.take_effects(Alice);
    duo.take_effects(Bob);
    duo.add(Alice, sat(10_000), 3).expect("room");
    duo.fail(Alice, 0).expect("standing");
    duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(1200))).expect("taken");
    duo.add(Bob, sat(5_000), 4).expect("room");
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.commit(commit_first);
    duo.commit(commit_first.other());
    let mut to = commit_first.other();
    for _ in 0..messages {
        if duo.receive(to).is_none() {
            duo.commit(to);
        }
        to = to.other();
    }
    duo
}

/// After the cut: all that was signed comes to its end, all that was not comes back as never committed.
fn assert_heals(mut duo: Duo, case: &str) {
    duo.reconnect();
    duo.run();
    for who in [Alice, Bob] {
        assert_eq!(*duo.side(who).channel.phase(), Phase::Normal, "{case}");
        assert!(matches!(duo.side(who).channel.link(), Link::Connected(_)), "{case}");
        let head = &duo.side(who).channel.rows().head;
        let peers = &duo.side(who.other()).channel.rows().head;
        assert_eq!(head.local_number, peers.remote_number, "{case}");
    }
    duo.balances(Alice);
    // What the shell does on a reconnection, and then as the receiver of everything that stands.
    for who in [Alice, Bob] {
        let received = duo.side(who).channel.resume(&duo.side(who).policy);
        for effect in received {
            let Effect::Incoming(incoming) = effect else { panic!("{effect:?}") };
            let number = (1..9).find(|number| hash(*number) == incoming.payment_hash).expect("one of ours");
            assert_eq!(duo.fulfill(who, incoming.htlc_id, number), Ok(Reply::Done), "{case}");
        }
    }
    duo.run();
    let (alice, bob) = duo.balances(Alice);
    assert_eq!(alice + bob, 1_000_000_000, "{case}");
    for who in [Alice, Bob] {
        assert!(duo.side(who).channel.rows().htlcs.is_empty(), "{case}");
    }
}

#[test]
fn cst_2_cst_3_cst_5_every_cut_of_an_exchange_heals() {
    for commit_first in [Alice, Bob] {
        for messages in 0..30 {
            let duo = exchange_cut_after(messages, commit_first);
            assert_heals(duo, &format!("{commit_first:?} signs first, {messages} messages arrive"));
        }
    }
}

#[test]
fn a_second_cut_right_after_the_first_heals_too() {
    for messages in 0..20 {
        for resent in 0..8 {
            let mut duo = exchange_cut_after(messages, Alice);
            duo.reconnect();
            for number in 0..resent {
                duo.receive(if number % 2 == 0 { Bob } else { Alice });
            }
            assert_heals(duo, &format!("{messages} messages, then {resent}"));
        }
    }
}

#[test]
fn cst_4_a_fulfil_that_was_never_signed_is_rolled_back_and_its_preimage_kept() {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.run();
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.receive(Alice).expect("update_fulfill_htlc");
    duo.take_effects(Alice);
    duo.reconnect();
    assert_eq!(duo.alice.monitor.rows().preimages.get(&hash(1)), Some(&preimage(1)));
    duo.run();
    assert_eq!(duo.alice.channel.rows().htlcs.len(), 1, "nothing was committed");
    assert_eq!(duo.fulfill(Bob, 0, 1), Ok(Reply::Done), "and so it is told again");
    duo.run();
    assert_eq!(duo.balances(Alice), (550_000_000, 450_000_000));
}

#[test]
fn cst_3_the_resent_commitment_is_the_one_that_was_lost() {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.add(Alice, sat(40_000), 2).expect("room");
    duo.commit(Alice);
    let lost: Vec<Message> = duo.alice.outbox.iter().cloned().collect();
    duo.reconnect();
    duo.receive(Alice).expect("channel_reestablish");
    let again: Vec<Message> = duo.alice.outbox.iter().skip(1).cloned().collect();
    // Neither side has revoked anything, so channel_ready comes first (BOLT 2).
    assert!(matches!(again[0], Message::ChannelReady(_)));
    assert_eq!(again[1..], lost[..]);
}

#[test]
fn cst_3_commitment_and_revocation_are_resent_in_their_order() {
    // Both sign at once; each gets the other's signature, and answers. Bob's order: commitment, then revocation.
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.add(Bob, sat(50_000), 2).expect("room");
    duo.commit(Alice);
    duo.commit(Bob);
    duo.receive(Bob);
    duo.receive(Bob);
    let lost: Vec<Message> = duo.bob.outbox.iter().cloned().collect();
    assert!(matches!(
        lost.as_slice(),
        [Message::UpdateAddHtlc(_), Message::CommitmentSigned(_), Message::RevokeAndAck(_)]
    ));
    duo.reconnect();
    duo.receive(Bob).expect("channel_reestablish");
    let again: Vec<Message> = duo.bob.outbox.iter().skip(1).cloned().collect();
    assert_eq!(again, lost);
    duo.run();

    // The other order: a revocation goes out, and a commitment after it.
    let mut duo = used();
    duo.add(Alice, sat(50_000), 3).expect("room");
    duo.commit(Alice);
    duo.receive(Bob);
    duo.receive(Bob);
    duo.commit(Bob);
    let lost: Vec<Message> = duo.bob.outbox.iter().cloned().collect();
    assert!(matches!(lost.as_slice(), [Message::RevokeAndAck(_), Message::CommitmentSigned(_)]));
    duo.reconnect();
    duo.receive(Bob).expect("channel_reestablish");
    let again: Vec<Message> = duo.bob.outbox.iter().skip(1).cloned().collect();
    assert_eq!(again, lost);
    duo.run();
    duo.balances(Alice);
}

#[test]
fn channel_ready_is_resent_until_the_first_commitment() {
    let mut duo = Duo::normal(&Terms::default());
    duo.reconnect();
    duo.receive(Alice).expect("channel_reestablish");
    assert!(duo.alice.outbox.iter().any(|message| matches!(message, Message::ChannelReady(_))));
    duo.run();
    let mut duo = used();
    duo.reconnect();
    duo.receive(Alice).expect("channel_reestablish");
    assert_eq!(duo.alice.outbox.len(), 1, "only our own channel_reestablish");
}

#[test]
fn channel_ready_that_came_due_without_a_connection_is_sent_with_the_next() {
    let mut duo = Duo::born(&Terms::default());
    duo.disconnect();
    duo.confirm();
    assert!(duo.alice.channel.rows().head.channel_ready_sent);
    duo.connect();
    duo.run();
    for who in [Alice, Bob] {
        assert_eq!(*duo.side(who).channel.phase(), Phase::Normal);
    }
}

#[test]
fn bad_input_54_next_commitment_number_zero() {
    let mut duo = used();
    let message = on_reconnect(&mut duo, Alice);
    duo.message(Alice, &Message::ChannelReestablish(ChannelReestablish { next_commitment_number: 0, ..message }));
    assert_failed(&mut duo, Alice, &Rule::ZeroCommitmentNumber, true);
}

#[test]
fn bad_input_55_next_commitment_number_off_by_two_and_by_one() {
    for (add, subtract) in [(2, 0), (0, 2), (1, 0), (0, 1)] {
        let mut duo = used();
        let message = on_reconnect(&mut duo, Alice);
        let expected = message.next_commitment_number;
        let found = expected + add - subtract;
        let message = ChannelReestablish { next_commitment_number: found, ..message };
        duo.message(Alice, &Message::ChannelReestablish(message));
        assert_failed(&mut duo, Alice, &Rule::CommitmentNumber { expected, found }, true);
    }
}

#[test]
fn cst_1_bad_input_56_proof_that_we_have_fallen_behind_never_leads_to_a_broadcast() {
    for ahead in 1..=5 {
        let mut duo = used();
        let message = on_reconnect(&mut duo, Alice);
        // What Bob would say had Alice gone on for so many commitments and lost them: her own secrets.
        let next_revocation_number = message.next_revocation_number + ahead;
        let secret = secret_of_alice(next_revocation_number - 1);
        let lie = message.clone();
        let message = ChannelReestablish {
            next_revocation_number,
            next_commitment_number: message.next_commitment_number + ahead,
            your_last_per_commitment_secret: PerCommitmentSecret(secret),
            ..message
        };
        duo.message(Alice, &Message::ChannelReestablish(message));
        assert_failed(&mut duo, Alice, &Rule::FallenBehind, false);
        assert!(!duo.alice.monitor.rows().head.may_publish);
        assert!(!duo.alice.effects.iter().any(|effect| matches!(effect, Effect::Publish { .. })));

        // bad_input_62: no later message takes it back, nor does another reconnection.
        duo.message(Alice, &Message::ChannelReestablish(lie));
        let error = outrigger_bolt::wire::Error { channel_id: duo.alice.channel.id(), data: "sync".into() };
        duo.message(Alice, &Message::Error(error));
        duo.input(Alice, Input::Connected(&features()));
        assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: false, .. }));
        let told: Vec<&Message> = duo.alice.outbox.iter().collect();
        assert!(
            matches!(told.as_slice(), [Message::Error(_), Message::ChannelReestablish(_), Message::Error(_)]),
            "the old numbers are told on every connection: {told:?}"
        );
    }
}

/// The secret of Alice's commitment, as her signer gives it once a later one is durable.
fn secret_of_alice(number: u64) -> [u8; 32] {
    let mut head = used().alice.monitor.rows().head.clone();
    head.local.number = number + 1;
    duo::signer(Alice).release_secret(number, &outrigger_channel::Guard::of(&head)).expect("released by now")
}

#[test]
fn bad_input_57_a_higher_revocation_number_with_a_false_secret() {
    let mut duo = used();
    let message = on_reconnect(&mut duo, Alice);
    let expected = message.next_revocation_number;
    for found in [expected + 1, u64::MAX] {
        let mut duo = used();
        let message = on_reconnect(&mut duo, Alice);
        let message = ChannelReestablish { next_revocation_number: found, ..message };
        duo.message(Alice, &Message::ChannelReestablish(message));
        assert_failed(&mut duo, Alice, &Rule::RevocationNumber { expected, found }, true);
    }
    let message = ChannelReestablish { your_last_per_commitment_secret: PerCommitmentSecret([7; 32]), ..message };
    duo.message(Alice, &Message::ChannelReestablish(message));
    assert_failed(&mut duo, Alice, &Rule::LastSecret, true);
}

#[test]
fn bad_input_58_a_peer_that_is_behind_by_two() {
    let mut duo = used();
    let message = on_reconnect(&mut duo, Alice);
    let expected = message.next_revocation_number;
    let found = expected - 2;
    let message = ChannelReestablish {
        next_revocation_number: found,
        your_last_per_commitment_secret: PerCommitmentSecret([0; 32]),
        ..message
    };
    duo.message(Alice, &Message::ChannelReestablish(message));
    assert_failed(&mut duo, Alice, &Rule::RevocationNumber { expected, found }, true);
}

#[test]
fn bad_input_60_a_message_before_channel_reestablish() {
    let mut duo = used();
    let update = Message::UpdateFailHtlc(outrigger_bolt::wire::UpdateFailHtlc {
        channel_id: duo.alice.channel.id(),
        id: 0,
        reason: Vec::new(),
    });
    on_reconnect(&mut duo, Alice);
    duo.message(Alice, &update);
    let text = Rule::BeforeReestablish.to_string();
    let Some(Message::Warning(warning)) = duo.alice.outbox.pop_front() else { panic!("a warning") };
    assert_eq!(warning.data.to_string(), text);
    assert!(matches!(duo.take_effects(Alice).as_slice(), [Effect::Disconnect(_)]));
    assert_eq!(*duo.alice.channel.phase(), Phase::Normal);
}

#[test]
fn bad_input_61_channel_reestablish_twice() {
    let mut duo = used();
    let message = Message::ChannelReestablish(on_reconnect(&mut duo, Alice));
    duo.message(Alice, &message);
    duo.message(Alice, &message);
    let warned = duo.alice.outbox.iter().any(|message| matches!(message, Message::Warning(_)));
    assert!(warned);
    assert_eq!(*duo.alice.channel.link(), Link::Disconnected);
}

#[test]
fn cst_2_messages_of_a_connection_that_is_over_are_ignored() {
    let mut duo = used();
    duo.add(Bob, sat(1000), 5).expect("room");
    duo.commit(Bob);
    let stale: Vec<Message> = duo.bob.outbox.drain(..).collect();
    duo.disconnect();
    let before = duo.alice.channel.clone();
    for message in &stale {
        duo.message(Alice, message);
    }
    assert_eq!(duo.alice.channel, before);
    assert!(duo.alice.outbox.is_empty());
}

#[test]
fn a_new_connection_without_a_disconnect_rolls_back_as_well() {
    let mut duo = used();
    duo.add(Alice, sat(1000), 5).expect("room");
    duo.alice.outbox.clear();
    duo.connect();
    let effects = duo.take_effects(Alice);
    assert!(matches!(effects.as_slice(), [Effect::Settle { htlc_id: 1, outcome: HtlcOutcome::NeverCommitted, .. }]));
    duo.run();
    assert_eq!(duo.add(Alice, sat(1000), 5), Ok(Reply::Added { htlc_id: 1 }));
}

#[test]
fn fnd_11_a_reorganisation_before_channel_ready_starts_the_count_anew() {
    let mut duo = Duo::born(&Terms::default());
    let tx = duo.tx.clone();
    duo.height = 502;
    duo.input(Bob, Input::Chain(ChainEvent::FundingConfirmed { height: 501, tx_index: 4, tx: &tx }));
    duo.input(Bob, Input::Chain(ChainEvent::FundingUnconfirmed));
    assert_eq!(duo.bob.channel.rows().head.short_channel_id, None);
    duo.height = 503;
    duo.input(Bob, Input::Chain(ChainEvent::Height(503)));
    assert!(!duo.bob.channel.rows().head.channel_ready_sent);
    duo.input(Bob, Input::Chain(ChainEvent::FundingConfirmed { height: 503, tx_index: 1, tx: &tx }));
    duo.height = 505;
    duo.input(Bob, Input::Chain(ChainEvent::Height(505)));
    assert!(duo.bob.channel.rows().head.channel_ready_sent);
    let scid = duo.bob.channel.rows().head.short_channel_id.expect("confirmed");
    assert_eq!(scid.to_string(), "503x1x0");
    assert_eq!(duo.bob.channel.summary(505).spendable, Msat::ZERO, "nothing is usable before both are ready");
}

/// LND's order where the funding transaction reached its depth without a connection.
#[test]
fn channel_ready_before_channel_reestablish_is_taken() {
    let mut duo = Duo::born(&Terms::default());
    duo.disconnect();
    duo.confirm();
    duo.connect();
    for who in [Alice, Bob] {
        let ready = Message::ChannelReady(outrigger_bolt::wire::ChannelReady {
            channel_id: duo.alice.channel.id(),
            second_per_commitment_point: duo.side(who.other()).signer.per_commitment_point(1),
            short_channel_id: None,
        });
        duo.message(who, &ready);
        let signature = duo.side(who).monitor.rows().head.local.signature;
        let announcement = outrigger_bolt::wire::AnnouncementSignatures {
            channel_id: duo.alice.channel.id(),
            short_channel_id: duo.alice.channel.rows().head.short_channel_id.expect("confirmed"),
            node_signature: signature,
            bitcoin_signature: signature,
        };
        duo.message(who, &Message::AnnouncementSignatures(announcement));
        assert!(matches!(duo.side(who).channel.link(), Link::Reestablishing(_)));
    }
    duo.run();
    for who in [Alice, Bob] {
        assert_eq!(*duo.side(who).channel.phase(), Phase::Normal);
        assert!(matches!(duo.side(who).channel.link(), Link::Connected(_)));
    }
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.run();
    assert_eq!(duo.bob.channel.rows().htlcs.len(), 1);
}
