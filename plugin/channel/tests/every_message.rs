//! What messages may not do to a channel, and what rows may not be. The whole matrix stands in `matrix.rs`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use bitcoin::{ScriptBuf, Transaction};
use duo::{Alice, Bob, Duo, SHUTDOWN_SCRIPT, Terms, hash, preimage, sat, signer};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Feature;
use outrigger_bolt::wire::{
    ChannelReady, ChannelReestablish, ClosingSigned, CommitmentSigned, Error, FundingSigned, Message,
    PerCommitmentSecret, RevokeAndAck, Shutdown, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee,
    UpdateFulfillHtlc, Warning,
};
use outrigger_channel::{ChainEvent, Channel, ChannelNote, ChannelRows, Command, Effect, Input, Link, Phase, Signer};

fn born() -> Duo {
    Duo::born(&Terms::default())
}

fn normal() -> Duo {
    Duo::normal(&Terms::default())
}

/// Bob has received an HTLC and offered one; both stand.
fn standing() -> Duo {
    let mut duo = normal();
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.add(Bob, sat(20_000), 1).expect("room");
    duo.run();
    duo
}

fn proposing() -> Duo {
    let mut duo = standing();
    duo.add(Bob, sat(5_000), 2).expect("room");
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.bob.outbox.clear();
    duo
}

fn awaiting_revocation() -> Duo {
    let mut duo = proposing();
    duo.commit(Bob);
    duo.bob.outbox.clear();
    duo
}

fn closing() -> Duo {
    let mut duo = normal();
    let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
    duo.order(Bob, Command::Shutdown { script, feerate: FeeratePerKw::new(1500) }).expect("a good script");
    duo.run();
    assert!(matches!(duo.bob.channel.phase(), Phase::Closing { .. }));
    duo
}

/// One of each message that can name a channel, some of them in two versions.
fn messages(duo: &Duo) -> Vec<Message> {
    let channel_id = duo.bob.channel.id();
    let head = &duo.alice.channel.rows().head;
    let point = signer(Alice).per_commitment_point(head.local_number + 2);
    let signature = duo.bob.monitor.rows().head.local.signature;
    let add = UpdateAddHtlc {
        channel_id,
        id: head.next_local_htlc_id,
        amount_msat: sat(1000),
        payment_hash: hash(9),
        cltv_expiry: 600,
        onion_routing_packet: Box::new([0; 1366]),
        path_key: Some(point),
    };
    let reestablish = ChannelReestablish {
        channel_id,
        next_commitment_number: head.local_number + 1,
        next_revocation_number: 0,
        your_last_per_commitment_secret: PerCommitmentSecret([0; 32]),
        my_current_per_commitment_point: point,
    };
    let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
    let fulfill = |id| UpdateFulfillHtlc { channel_id, id, payment_preimage: preimage(1) };
    vec![
        Message::FundingSigned(FundingSigned { channel_id, signature }),
        Message::ChannelReady(ChannelReady { channel_id, second_per_commitment_point: point, short_channel_id: None }),
        Message::Shutdown(Shutdown { channel_id, scriptpubkey: script }),
        Message::Shutdown(Shutdown { channel_id, scriptpubkey: ScriptBuf::new() }),
        Message::ClosingSigned(ClosingSigned { channel_id, fee_satoshis: Sat::new(1000), signature, fee_range: None }),
        Message::UpdateAddHtlc(add.clone()),
        Message::UpdateAddHtlc(UpdateAddHtlc { id: u64::MAX, ..add }),
        Message::UpdateFulfillHtlc(fulfill(0)),
        Message::UpdateFulfillHtlc(fulfill(u64::MAX)),
        Message::UpdateFailHtlc(UpdateFailHtlc { channel_id, id: 0, reason: vec![0; 60_000] }),
        Message::UpdateFailMalformedHtlc(UpdateFailMalformedHtlc {
            channel_id,
            id: 0,
            sha256_of_onion: [0; 32],
            failure_code: 0x8000 | 4,
        }),
        Message::CommitmentSigned(CommitmentSigned {
            channel_id,
            signature,
            htlc_signatures: vec![signature; 483],
            funding_txid: None,
        }),
        Message::RevokeAndAck(RevokeAndAck {
            channel_id,
            per_commitment_secret: PerCommitmentSecret([3; 32]),
            next_per_commitment_point: point,
        }),
        Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(900) }),
        Message::ChannelReestablish(ChannelReestablish {
            next_commitment_number: u64::MAX,
            next_revocation_number: u64::MAX,
            ..reestablish.clone()
        }),
        Message::ChannelReestablish(reestablish),
        Message::Warning(Warning { channel_id, data: vec![255; 300].into() }),
        Message::Error(Error { channel_id, data: vec![255; 300].into() }),
    ]
}

#[test]
fn no_message_but_an_error_ends_a_channel_without_a_reason_to() {
    // What is only out of place costs the connection, never the channel.
    for index in [0, 3, 4, 7, 8, 9, 10] {
        let mut duo = normal();
        let message = messages(&duo).swap_remove(index);
        duo.message(Bob, &message);
        assert_eq!(*duo.bob.channel.phase(), Phase::Normal, "{}", message.name());
        assert_eq!(*duo.bob.channel.link(), Link::Disconnected, "{}", message.name());
    }
}

#[test]
fn an_error_does_not_undo_a_mutual_close() {
    let mut duo = closing();
    let before = duo.bob.channel.phase().clone();
    let error = Error { channel_id: duo.bob.channel.id(), data: "no such channel".into() };
    duo.message(Bob, &Message::Error(error.clone()));
    assert_eq!(*duo.bob.channel.phase(), before);
    duo.connect();
    duo.message(Bob, &Message::Error(error));
    assert_eq!(*duo.bob.channel.phase(), before);
    // The operator may still choose to go to the chain alone.
    duo.order(Bob, Command::Fail { reason: "it does not confirm".to_owned() }).expect("always taken");
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: true, .. }));
}

#[test]
fn fnd_8_an_error_before_the_funding_confirms_leaves_an_accepter_nothing_to_publish() {
    let error =
        |duo: &Duo| Message::Error(Error { channel_id: duo.bob.channel.id(), data: "the wallet refused".into() });
    let mut duo = Duo::born(&Terms { push: Msat::ZERO, ..Terms::default() });
    let message = error(&duo);
    duo.message(Bob, &message);
    assert!(matches!(duo.bob.channel.phase(), Phase::Closed { .. }));
    assert!(duo.bob.monitor.is_closed());
    // With a push there may be something to fetch, and the opener has always published.
    let mut duo = born();
    let message = error(&duo);
    for who in [Alice, Bob] {
        duo.message(who, &message);
        assert!(matches!(duo.side(who).channel.phase(), Phase::Failed { publish: true, .. }));
    }
}

/// What is told to be ours, with a true, or taken back.
fn told_to_be_ours(effect: Effect) -> Option<(bool, Msat)> {
    match effect {
        Effect::Note(ChannelNote::Pending { ours, .. }) => Some((true, ours)),
        Effect::Note(ChannelNote::NeverFunded { told, .. }) => Some((false, told?)),
        _ => None,
    }
}

#[test]
fn fnd_1_fnd_6_a_channel_that_failed_before_its_funding_confirmed_is_held_to_it_still() {
    let failed = || {
        let mut duo = born();
        duo.order(Bob, Command::Fail { reason: "by order".to_owned() }).expect("always taken");
        assert!(!duo.bob.channel.is_backed() && duo.alice.channel.is_backed());
        duo.take_effects(Bob);
        duo
    };
    let confirm = |duo: &mut Duo, tx: &Transaction| {
        duo.input(Bob, Input::Chain(ChainEvent::FundingConfirmed { height: 600, tx_index: 4, tx }));
    };
    let mut duo = failed();
    let tx = duo.tx.clone();
    confirm(&mut duo, &tx);
    assert!(duo.bob.channel.is_backed());
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { publish: true, spend: None, .. }));
    duo.input(Bob, Input::Chain(ChainEvent::FundingUnconfirmed));
    assert!(!duo.bob.channel.is_backed());
    duo.height = 2515;
    duo.input(Bob, Input::Chain(ChainEvent::Height(2515)));
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { .. }));
    duo.height = 2516;
    duo.input(Bob, Input::Chain(ChainEvent::Height(2516)));
    assert!(matches!(duo.bob.channel.phase(), Phase::Closed { .. }));
    // Books: what is told to be ours comes with the block, once, and is taken back with the end.
    let told: Vec<_> = duo.take_effects(Bob).into_iter().filter_map(told_to_be_ours).collect();
    assert_eq!(told, [(true, Msat::new(400_000_000)), (false, Msat::new(400_000_000))]);

    // A block holds it: nothing is forgotten, however long nobody spends it.
    let mut duo = failed();
    confirm(&mut duo, &tx);
    duo.height = 9_000;
    duo.input(Bob, Input::Chain(ChainEvent::Height(9_000)));
    assert!(matches!(duo.bob.channel.phase(), Phase::Failed { .. }));
    // The opener, whose own transaction may be anywhere, never forgets.
    let mut duo = born();
    duo.order(Alice, Command::Fail { reason: "by order".to_owned() }).expect("always taken");
    duo.height = 9_000;
    duo.input(Alice, Input::Chain(ChainEvent::Height(9_000)));
    assert!(matches!(duo.alice.channel.phase(), Phase::Failed { .. }));
}

/// A close that we have signed may be published whenever the peer likes. What it added after that would be in our commitment
/// and not in the close: it would have paid nothing. So it adds nothing more, on no connection, whatever it may have lost.
#[test]
fn cst_17_a_peer_that_has_a_close_of_ours_adds_nothing_more() {
    for features in [duo::features(), duo::features().offer(Feature::SIMPLE_CLOSE)] {
        let mut duo = Duo::normal(&Terms { features, ..Terms::default() });
        let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
        duo.order(Alice, Command::Shutdown { script, feerate: FeeratePerKw::new(1500) }).expect("a good script");
        duo.receive(Bob);
        let is_signed = |duo: &Duo| matches!(duo.alice.channel.phase(), Phase::ShuttingDown { signed: true, .. });
        assert!(!is_signed(&duo), "no signature has left");
        duo.receive(Alice);
        assert!(is_signed(&duo));
        let channel_id = duo.alice.channel.id();
        let add = Message::UpdateAddHtlc(UpdateAddHtlc {
            channel_id,
            id: 0,
            amount_msat: sat(50_000),
            payment_hash: hash(7),
            cltv_expiry: 600,
            onion_routing_packet: Box::new([0; 1366]),
            path_key: None,
        });
        for _ in 0..2 {
            duo.reconnect();
            let reestablish = duo.bob.outbox.pop_front().expect("the first word");
            duo.message(Alice, &reestablish);
            let shutdown = duo.bob.channel.rows().head.local_shutdown.clone().expect("fixed");
            duo.message(Alice, &Message::Shutdown(Shutdown { channel_id, scriptpubkey: shutdown }));
            let said: Vec<&str> = duo.alice.outbox.iter().map(Message::name).collect();
            assert_eq!(said.last(), Some(&"ping"), "no other signature before all is there: {said:?}");
            duo.alice.outbox.clear();
            duo.message(Alice, &add);
            let Some(Message::Warning(warning)) = duo.alice.outbox.front() else { panic!("{:?}", duo.alice.outbox) };
            assert_eq!(warning.data.to_string(), "update_add_htlc after shutdown");
            assert!(is_signed(&duo));
        }
    }
}

#[test]
fn cst_13_an_error_that_only_tells_of_a_passing_trouble_costs_the_connection() {
    for text in ["internal error", "sync error"] {
        let mut duo = proposing();
        let error = Error { channel_id: duo.bob.channel.id(), data: text.into() };
        duo.take_effects(Bob);
        duo.message(Bob, &Message::Error(error));
        assert_eq!(*duo.bob.channel.phase(), Phase::Normal);
        assert_eq!(*duo.bob.channel.link(), Link::Disconnected);
        assert!(matches!(duo.take_effects(Bob).first(), Some(Effect::Disconnect(_))));
    }
}

#[test]
fn rows_that_no_channel_wrote_are_refused() {
    let refused = |change: &dyn Fn(&mut ChannelRows)| {
        let mut rows = awaiting_revocation().bob.channel.rows().clone();
        Channel::load(rows.clone()).expect("rows of a channel");
        change(&mut rows);
        Channel::load(rows).map(|_| ()).expect_err("corrupt rows").to_string()
    };
    let reasons = [
        refused(&|rows| rows.head.local_commitment.to_local = Msat::ZERO),
        refused(&|rows| rows.head.remote_commitment.offered_by_local.count = 7),
        refused(&|rows| rows.head.next_local_htlc_id = 0),
        refused(&|rows| rows.head.revoking_point = None),
        refused(&|rows| rows.htlcs.clear()),
        refused(&|rows| rows.htlcs.values_mut().for_each(|row| row.removal = None)),
    ];
    for reason in reasons {
        assert!(reason.contains("commitment") || reason.contains("HTLC"), "{reason}");
    }
}
