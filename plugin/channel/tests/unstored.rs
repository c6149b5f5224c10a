//! Channels that a required backup will never have: they end without a word to the chain (the Persist contract,
//! "PermanentFailure").
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use bitcoin::ScriptBuf;
use duo::{Alice, Bob, Duo, SHUTDOWN_SCRIPT, Terms, sat};
use outrigger_bolt::amount::{FeeratePerKw, Msat};
use outrigger_bolt::wire::Message;
use outrigger_channel::{CannotPublish, ChannelNote, Command, Effect, Phase};

fn withhold(is_new: bool) -> Command {
    Command::Withhold { reason: "the backup has no room, ever".to_owned(), is_new, complete: None }
}

fn notes(effects: &[Effect]) -> Vec<&ChannelNote> {
    effects.iter().filter_map(|effect| if let Effect::Note(note) = effect { Some(note) } else { None }).collect()
}

#[test]
fn it_fails_with_an_error_to_the_peer_and_publishes_nothing_then_or_later() {
    let mut duo = Duo::normal(&Terms::default());
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.run();
    duo.take_effects(Alice);
    duo.alice.outbox.clear();
    duo.order(Alice, withhold(false)).expect("always taken");
    let expected = "the backup has no room, ever";
    let phase = duo.alice.channel.phase();
    assert!(matches!(phase, Phase::Failed { publish: false, reason, .. } if reason == expected), "{phase:?}");
    let told = duo
        .alice
        .outbox
        .iter()
        .any(|message| matches!(message, Message::Error(error) if error.data.to_string() == expected));
    assert!(told, "{:?}", duo.alice.outbox);
    let never = |duo: &Duo| {
        let signer = duo::signer(Alice);
        assert_eq!(duo.alice.monitor.local_commitment_tx(&signer), Err(CannotPublish::Withheld));
        let enforcement = duo.alice.monitor.enforcement(&signer).expect("a failed channel");
        assert!(enforcement.publish.is_none());
    };
    never(&duo);
    // Nor at the operator's order.
    duo.order(Alice, Command::Fail { reason: "by order".to_owned() }).expect("always taken");
    never(&duo);
}

/// What of a channel that never was had been told to be ours; there is no other news.
fn told_of_the_end(effects: &[Effect]) -> Option<Msat> {
    match notes(effects).as_slice() {
        [ChannelNote::NeverFunded { told, .. }] => *told,
        notes => panic!("{notes:?}"),
    }
}

#[test]
fn one_of_which_nothing_has_left_never_was() {
    for who in [Alice, Bob] {
        let mut duo = Duo::born(&Terms::default());
        duo.take_effects(who);
        duo.order(who, withhold(true)).expect("always taken");
        assert!(matches!(duo.side(who).channel.phase(), Phase::Closed { .. }));
        assert!(duo.side(who).monitor.is_closed());
        let effects = duo.take_effects(who);
        // What the opener was told of is taken back: all but what is pushed.
        assert_eq!(told_of_the_end(&effects), (who == Alice).then_some(Msat::new(600_000_000)));
    }
    // Nor was one that has failed in the meantime.
    let mut duo = Duo::born(&Terms::default());
    duo.order(Alice, Command::Fail { reason: "by order".to_owned() }).expect("always taken");
    duo.take_effects(Alice);
    duo.order(Alice, withhold(true)).expect("always taken");
    assert!(duo.alice.monitor.is_closed());
    assert_eq!(told_of_the_end(&duo.take_effects(Alice)), Some(Msat::new(600_000_000)));
    // It is no longer new once it is in use.
    let mut duo = Duo::normal(&Terms::default());
    duo.order(Alice, withhold(true)).expect("always taken");
    assert!(matches!(duo.alice.channel.phase(), Phase::Failed { publish: false, .. }));
}

#[test]
fn a_close_that_both_have_signed_stands_and_what_has_ended_stays_as_it_is() {
    let mut duo = Duo::normal(&Terms::default());
    let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
    duo.order(Alice, Command::Shutdown { script, feerate: FeeratePerKw::new(1500) }).expect("a good script");
    duo.run();
    duo.order(Alice, withhold(false)).expect("always taken");
    assert!(matches!(duo.alice.channel.phase(), Phase::Closing { .. }));
    let mut duo = Duo::normal(&Terms::default());
    duo.order(Alice, Command::Fail { reason: "by order".to_owned() }).expect("always taken");
    duo.order(Alice, withhold(false)).expect("always taken");
    assert!(
        matches!(duo.alice.channel.phase(), Phase::Failed { publish: true, .. }),
        "its commitment may be out already"
    );
}
