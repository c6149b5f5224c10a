//! A cooperative close that is begun and does not come about: the operator is told why, and what to do.

use outrigger_bolt::wire::{Shutdown, Warning};

use super::*;

/// A new connection on which both sides close by `closing_signed`.
fn reconnect_without_simple_close(rogue: &mut Rogue, channel: &mut Channel) {
    const SIMPLE_CLOSE: usize = 60;
    let offered = Features::init();
    let kept = offered.bits().filter(|bit| bit & !1 != SIMPLE_CLOSE);
    let features = kept.fold(Features::empty(), |all, bit| all.with_bit(u16::try_from(bit).unwrap()));
    rogue.bench.manager.disconnected(&rogue.id, rogue.connection);
    let (sender, queue) = outbox(1 << 20);
    let init = Init { features: features.clone(), ..rogue.bench.manager.our_init() };
    rogue.connection = rogue.bench.manager.connected(rogue.id, Origin::Peer, &init, sender).unwrap();
    rogue.queue = queue;
    rogue.waiting.clear();
    rogue.step(channel, Input::Disconnected);
    rogue.step(channel, Input::Connected(&features));
}

fn reason(rogue: &Rogue, channel: &Channel) -> Option<String> {
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!(view.summary.state, "shutting_down");
    view.obstacle
}

fn events(rogue: &Rogue) -> Vec<String> {
    let (events, _) = rogue.bench.reader.events(0, &["channel_close_stuck".to_owned()], 10).unwrap();
    events.into_iter().map(|(_, event)| event.fields["message"].as_str().unwrap().to_owned()).collect()
}

/// The peer begins the close; what it offers for it is below all that bitcoind relays here.
async fn offer_too_little(rogue: &mut Rogue, channel: &mut Channel) -> String {
    reconnect_without_simple_close(rogue, channel);
    rogue.until(channel, |_, message| matches!(message, Message::Shutdown(_))).await;
    let Message::Warning(warning) = rogue.hear_type(Warning::TYPE).await else { panic!("a warning") };
    // The batch that the warning left with holds the event.
    rogue.bench.durable().await;
    warning.data.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn fee_ranges_that_do_not_meet_are_shown_with_what_to_do() {
    let mut rogue = Rogue::connect();
    let mut channel = rogue.open_normal().await;
    let floor = FeeratePerKw::new(2000);
    rogue.bench.manager.env().chain.set_feerates(Feerates { commitment: floor, normal: floor, floor });
    reconnect_without_simple_close(&mut rogue, &mut channel);
    rogue.until(&mut channel, |channel, _| matches!(channel.link(), outrigger_channel::Link::Connected(_))).await;
    let order = Command::Shutdown { script: script(), feerate: FeeratePerKw::new(253) };
    rogue.step(&mut channel, Input::Command(CommandId(1), order));
    rogue.hear_type(Shutdown::TYPE).await;
    assert_eq!(reason(&rogue, &channel), None, "nothing is wrong yet");

    // A close of both outputs weighs some 670: 169 sat and twice that are offered, 1340 are asked for.
    let told = offer_too_little(&mut rogue, &mut channel).await;
    assert!(told.contains("does not meet ours"), "{told}");
    let shown = reason(&rogue, &channel).unwrap();
    assert!(shown.contains(&told) && shown.contains("channel.force_close"), "{shown}");
    assert_eq!(events(&rogue), [shown.as_str()]);

    // The same again on the next connection is shown, and told once.
    offer_too_little(&mut rogue, &mut channel).await;
    assert!(reason(&rogue, &channel).is_some());
    assert_eq!(events(&rogue).len(), 1);

    // Fees have fallen: it is over, and with it the complaint.
    rogue.bench.manager.env().chain.set_feerates(feerates());
    reconnect_without_simple_close(&mut rogue, &mut channel);
    rogue.until(&mut channel, |channel, _| matches!(channel.phase(), Phase::Closing { .. })).await;
    rogue.dealt_with().await;
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!((view.summary.state, view.obstacle), ("closing", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_warns_of_in_a_close_is_shown() {
    let mut rogue = Rogue::connect();
    let mut channel = rogue.open_normal().await;
    let warning = |text: &str| Message::Warning(Warning { channel_id: channel.id(), data: text.into() });
    rogue.tell(warning("nothing is closing yet"));
    let order = Command::Shutdown { script: script(), feerate: FeeratePerKw::new(300) };
    rogue.bench.manager.command(channel.id(), order).await.unwrap();
    rogue.hear_type(Shutdown::TYPE).await;
    assert_eq!(reason(&rogue, &channel), None);
    rogue.tell(warning("unable to come to consensus about the closing fee"));
    rogue.dealt_with().await;
    let shown = reason(&rogue, &channel).unwrap();
    assert!(shown.contains("the peer warned: unable to come to consensus about the closing fee"), "{shown}");
    rogue.bench.durable().await;
    assert_eq!(events(&rogue), [shown]);

    // The channel fails in the end: its own reason is what is shown then.
    let order = Command::Fail { reason: "by order".to_owned() };
    rogue.bench.manager.command(channel.id(), order).await.unwrap();
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!((view.summary.failure.as_deref(), view.obstacle), (Some("by order"), None));
    rogue.step(&mut channel, Input::Disconnected);
}
