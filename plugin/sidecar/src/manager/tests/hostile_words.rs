//! What a peer says of channels in `error`: which of them fail, and what is shown of its words.

use outrigger_bolt::wire::{Error, PeerText, Warning};

use super::*;

fn state(bench: &Bench, channel: &Channel) -> &'static str {
    bench.manager.channel(&channel.id()).unwrap().summary.state
}

/// Resolves once all that the peers said before has been handled and stored.
async fn handled(rogue: &Rogue, channel: &Channel) {
    let known = rogue.bench.manager.command(channel.id(), Command::Commit).await;
    assert!(known.is_ok() || known == Err(Refusal::Ended), "{known:?}");
    rogue.bench.durable().await;
}

fn error(channel_id: ChannelId, text: &str) -> Message {
    Message::Error(Error { channel_id, data: text.into() })
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_16_an_error_for_an_unknown_channel_is_ignored() {
    let mut rogue = Rogue::connect();
    let channel = rogue.open().await;
    rogue.tell(error(ChannelId([0x77; 32]), "we do not know it"));
    rogue.tell(Message::Warning(Warning { channel_id: ChannelId([0x77; 32]), data: "careful".into() }));
    handled(&rogue, &channel).await;
    assert_ne!(state(&rogue.bench, &channel), "failed");
    let (events, _) = rogue.bench.reader.events(0, &["channel_failed".to_owned()], 10).unwrap();
    assert_eq!(events, []);
    // The next thing that the peer hears is not an answer to that.
    rogue.tell(error(channel.id(), "now really"));
    handled(&rogue, &channel).await;
    assert_eq!(state(&rogue.bench, &channel), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_16_an_error_for_all_channels_fails_those_with_that_peer_alone() {
    let bench = Arc::new(Bench::new());
    let mut one = Rogue::meet(bench.clone(), 9);
    let (first, second) = (one.open().await, one.open().await);
    let mut other = Rogue::meet(bench.clone(), 10);
    let third = other.open().await;
    one.tell(error(ChannelId([0; 32]), "everything is over"));
    handled(&one, &first).await;
    handled(&other, &third).await;
    assert_eq!([&first, &second].map(|channel| state(&bench, channel)), ["failed", "failed"]);
    assert_ne!(state(&bench, &third), "failed");
    // A warning for all channels fails none.
    other.tell(Message::Warning(Warning { channel_id: ChannelId([0; 32]), data: "careful".into() }));
    handled(&other, &third).await;
    assert_ne!(state(&bench, &third), "failed");
}

/// The words stand in the row, the event and the answers of the interface as they are shown: escaped and cut.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_17_an_errors_words_are_stored_and_shown_escaped_and_cut() {
    let mut rogue = Rogue::connect();
    let texts = [
        ("ok\x1b[2J\r\n\u{202e}evil\u{2028}".to_owned(), ": ok\\u{1b}[2J\\u{d}\\u{a}\\u{202e}evil\\u{2028}".to_owned()),
        ("x".repeat(65_535 - 36), format!(": {}...", "x".repeat(253))),
        // BOLT 1: the data may be empty.
        (String::new(), " and gave no reason".to_owned()),
    ];
    for (number, (text, shown)) in texts.into_iter().enumerate() {
        let channel = rogue.open().await;
        rogue.tell(error(channel.id(), &text));
        handled(&rogue, &channel).await;
        let (events, _) = rogue.bench.reader.events(0, &["channel_failed".to_owned()], 10).unwrap();
        let (_, event) = &events[number];
        let expected = format!("the peer sent an error{shown}");
        assert_eq!(event.fields["message"], expected.as_str());
        let loaded = rogue.bench.load().channels;
        let loaded = loaded.iter().find(|loaded| loaded.channel.id() == channel.id()).unwrap();
        let Phase::Failed { reason, .. } = loaded.channel.phase() else { panic!("{:?}", loaded.channel.phase()) };
        assert_eq!(*reason, expected);
    }
    assert_eq!(PeerText::from("x").to_string(), "x");
}
