//! What waits at the gate, and what nobody makes it let go or forget.

use super::super::super::gate::{Gate, MANY_ENTRIES, MOST_ENTRIES, MOST_WORDS};
use super::*;
use outrigger_bolt::wire::{ChannelReestablish, PerCommitmentSecret};
use outrigger_channel::{ChannelNote, Refusal};

/// Effects that no row stands behind, for a peer on a connection.
pub(super) fn rowless(at: Address, effects: Vec<Effect>) -> Batch {
    let mut batch = Batch::default();
    effects.into_iter().for_each(|effect| batch.hold_effect(at, effect));
    batch
}

/// The numbers of a channel, which come first on a connection.
pub(super) fn numbers(channel: ChannelId) -> Effect {
    Effect::Send(Message::ChannelReestablish(ChannelReestablish {
        channel_id: channel,
        next_commitment_number: 1,
        next_revocation_number: 0,
        your_last_per_commitment_secret: PerCommitmentSecret([0; 32]),
        my_current_per_commitment_point: *node(7).public_key(),
    }))
}

/// Any peer may name any channel: an `open_channel` under its id, or a message for it, is answered with an `error`.
#[test]
fn dos_a_stranger_who_names_somebody_elses_channel_wipes_nothing_that_waits_for_it() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    let promised = || vec![say(FIRST, "ours"), Effect::Revoke { number: 0 }, incoming(FIRST)];
    let stranger = Address { peer: node(8), connection: 7, channel: FIRST };
    bench.open(FIRST, promised());
    bench.commit(rowless(stranger, vec![error(FIRST)]));
    assert_eq!(bench.taken(), ["error on 7"], "it waits for nobody's channel");
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["warning on 1", "Revoke { number: 0 }", "incoming"]);
    // Whose it is stands in the file too.
    let mut bench = bench.restarted(&[FIRST]);
    bench.commit(rowless(at(FIRST, 1), promised()));
    bench.commit(rowless(stranger, vec![say(FIRST, "theirs"), error(FIRST)]));
    assert_eq!(bench.taken(), ["warning on 7", "error on 7"]);
    bench.hear();
    assert_eq!(bench.taken(), ["warning on 1", "Revoke { number: 0 }", "incoming"]);
}

/// A peer may draw answers from us for as long as a backup is away.
#[test]
fn dos_words_that_wait_are_bounded_and_more_of_them_end_the_connection_instead() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![incoming(FIRST)]);
    bench.commit(rowless(at(FIRST, 1), vec![say(FIRST, "?"); MOST_WORDS]));
    assert_eq!(bench.hub.gate.lock().held(&FIRST), MOST_WORDS + 1);
    bench.commit(rowless(at(FIRST, 1), vec![say(FIRST, "one too many"), say(FIRST, "and another")]));
    assert_eq!(bench.hub.gate.lock().held(&FIRST), 2);
    bench.commit(rowless(at(FIRST, 1), vec![promise(1)]));
    bench.give_all();
    bench.sinks[0].complete(0);
    let taken = bench.taken();
    assert_eq!(taken.len(), 3, "{taken:?}");
    assert_eq!((&*taken[0], &*taken[2]), ("incoming", "promise 1"));
    assert!(taken[1].starts_with("Disconnect("), "{taken:?}");
}

/// The next connection is told everything anew.
#[test]
fn the_end_of_a_connection_that_waits_says_nothing_on_the_next_one() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![Effect::Disconnect("enough".into()), say(FIRST, "unheard")]);
    assert_eq!(bench.hub.gate.lock().held(&FIRST), 1);
    bench.commit(rowless(at(FIRST, 2), vec![say(FIRST, "anew"), say(FIRST, "and more")]));
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["warning on 2", "warning on 2"]);
}

/// The proof may come from a sink that is waited for or from one that follows; others complete what they are given
/// meanwhile.
#[test]
fn bak_1_once_the_file_is_proved_old_nothing_leaves_that_waited_and_most_of_it_never_does() {
    for is_required in [true, false] {
        let mut bench = Bench::new(&[(Manner::Sound, is_required), (Manner::Sound, true)]);
        bench.hear();
        bench.open(FIRST, Vec::new());
        bench.open(SECOND, Vec::new());
        bench.give_all();
        bench.sinks[0].kept.lock().images.get_mut(&FIRST).unwrap().id = 5;
        let mut bench = bench.restarted(&[FIRST, SECOND]);
        let readable = bench.hub.readable_events();
        let never = vec![say(FIRST, "?"), Effect::Revoke { number: 0 }, incoming(FIRST), publish_funding()];
        bench.commit(rowless(at(FIRST, 1), never));
        bench.commit(rowless(at(FIRST, 1), vec![failed()]));
        bench.hear();
        assert!(bench.taken().is_empty());
        assert!(matches!(bench.next_news(), Some(News::Ahead { .. })));
        let mut batch = changed(SECOND, 1, vec![say(SECOND, "?"), promise(1), enforcement(2)]);
        batch.event(EventRow::new(7, "payment_failed", serde_json::json!({})));
        bench.commit(batch);
        bench.step(FIRST, 1, vec![Effect::Revoke { number: 1 }]);
        bench.give_all();
        assert_eq!((bench.calls(1).len(), bench.taken()), (4, vec!["enforcement 2".to_owned()]));
        assert_eq!(*readable.borrow(), 0);
        bench.hub.give_up();
        let mut left = bench.taken();
        left.sort();
        assert_eq!(left, ["failed", "promise 1"], "neither a peer nor the chain hears of it");
        assert_eq!(*readable.borrow(), 1);
        // In restored mode a peer is told why its channel fails.
        bench.step(FIRST, 2, vec![error(FIRST)]);
        assert_eq!(bench.taken(), ["error on 1"]);
    }
}

/// The process is about to end with code 5, and other threads go on until it has.
#[test]
fn a_second_refusal_lets_nothing_go_that_other_sinks_complete() {
    let mut bench = Bench::new(&[(Manner::Failing, true), (Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![say(FIRST, "?")]);
    bench.give_all();
    bench.open(SECOND, vec![say(SECOND, "?"), promise(1)]);
    bench.give_all();
    assert!(matches!(bench.next_news(), Some(News::Unstored(Unstored { channel: FIRST, complete: None, .. }))));
    assert!(matches!(bench.next_news(), Some(News::Dead { .. })));
    while !bench.sinks[1].kept.lock().open.is_empty() {
        bench.sinks[1].complete(0);
    }
    assert!(bench.taken().is_empty());
}

/// An operator who asks a channel that stands still is answered: why it takes no HTLC, and that it will be closed.
#[test]
fn refusals_and_orders_that_were_taken_are_answered_while_a_required_sink_is_late() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.give_all();
    pass(Duration::from_secs(20));
    assert_eq!(bench.hub.look_for_stalls(), [FIRST]);
    let refused = Effect::Reply(CommandId(2), Err(Refusal::Stalled));
    bench.commit(rowless(at(FIRST, 1), vec![refused, promise(3)]));
    let done = Effect::Reply(CommandId(4), Ok(Reply::Done));
    bench.step(FIRST, 1, vec![error(FIRST), done]);
    assert_eq!(bench.taken(), ["Reply(CommandId(2), Err(Stalled))", "Reply(CommandId(4), Ok(Done))"]);
    bench.give_all();
    bench.sinks[0].complete(0);
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["promise 1", "promise 3", "error on 1"]);
}

/// Each `channel_reestablish` takes the place of what was to be said before it, and the sink is as late as it was.
#[test]
fn a_peer_that_comes_back_again_and_again_does_not_hide_that_a_sink_is_late() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![say(FIRST, "first")]);
    bench.give_all();
    for connection in 2..6 {
        pass(Duration::from_secs(5));
        assert_eq!(bench.hub.look_for_stalls().len(), usize::from(connection == 5), "connection {connection}");
        bench.commit(rowless(at(FIRST, connection), vec![say(FIRST, "again")]));
    }
    assert!(bench.hub.is_stalled(&FIRST));
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["warning on 5"]);
    assert_eq!(bench.hub.look_for_stalls(), [FIRST], "it goes on");
    bench.step(FIRST, 1, vec![promise(1)]);
    pass(Duration::from_secs(19));
    assert!(bench.hub.look_for_stalls().is_empty(), "what waits now has waited for less");
}

/// A channel that is never without anything that waits, since its sink is one write late all the time, stands still at
/// no time.
#[test]
fn a_sink_that_keeps_up_a_little_late_stalls_no_channel() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(0)]);
    bench.give_all();
    for number in 1..20 {
        pass(Duration::from_secs(5));
        bench.step(FIRST, number, vec![promise(number)]);
        bench.give_all();
        bench.sinks[0].complete(0);
        assert_eq!(bench.taken(), [format!("promise {}", number - 1)]);
        assert!(bench.hub.look_for_stalls().is_empty(), "after {number} steps");
    }
}

/// A peer's own `error` is answered by none of ours: the step that fails the channel drops what was to be said all the same.
#[test]
fn key_4_nothing_that_was_to_be_said_outlives_a_failure_that_the_peer_asked_for() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![say(FIRST, "?"), Effect::Revoke { number: 0 }, publish_funding(), failed(), promise(1)]);
    bench.give_all();
    bench.step(FIRST, 1, vec![Effect::Note(ChannelNote::Failed { reason: "the peer said so".to_owned() })]);
    assert_eq!(bench.taken().len(), 1, "the note itself");
    bench.give_all();
    bench.sinks[0].complete(0);
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["publish Funding", "failed", "promise 1"]);
}

/// By the `error` alone a peer with an old copy would publish what it has revoked.
#[test]
fn bak_1_the_numbers_of_a_failed_channel_go_before_the_error_of_their_connection_whatever_waits() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![say(FIRST, "?"), Effect::Revoke { number: 0 }]);
    for connection in [1, 2] {
        bench.commit(rowless(at(FIRST, connection), vec![numbers(FIRST), error(FIRST)]));
    }
    assert!(bench.taken().is_empty());
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["channel_reestablish on 2", "error on 2"]);
    // A failure on one connection says nothing of what was to be said on another.
    bench.step(FIRST, 1, vec![numbers(FIRST), publish_funding()]);
    let failure = Effect::Note(ChannelNote::Failed { reason: "the peer said so".to_owned() });
    bench.commit(rowless(at(FIRST, 2), vec![failure]));
    assert_eq!(bench.taken().len(), 1, "the note itself");
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["publish Funding"]);
}

/// One channel waits for hours, and others forward: each of their commits waits a moment of its own.
#[test]
fn per_5_events_that_one_channel_holds_back_take_little_memory_however_many_others_make() {
    const COMMITS: u64 = 10_000;
    let mut gate = Gate::default();
    gate.committed([(FIRST, 1)].into(), std::iter::empty());
    gate.events(1, now());
    let mut most = 0;
    for number in 1..=COMMITS {
        gate.committed([(SECOND, number)].into(), std::iter::empty());
        gate.events(number + 1, now());
        assert!(gate.cleared(&SECOND, number - 1).is_empty());
        most = most.max(gate.entries());
    }
    assert!(most <= MANY_ENTRIES, "{most} entries");
    assert_eq!((gate.readable(), gate.held_events(now()).count), (0, COMMITS + 1));
    drop(gate.cleared(&FIRST, 1));
    assert_eq!(gate.readable(), COMMITS, "the newest waits for itself");
    drop(gate.cleared(&SECOND, COMMITS));
    assert_eq!((gate.readable(), gate.entries()), (COMMITS + 1, 0));
}

/// The channel that waits makes events of its own, each of which waits for it.
#[test]
fn per_5_events_of_a_channel_that_waits_take_little_memory_however_many_it_makes() {
    const COMMITS: u64 = 50_000;
    let mut gate = Gate::default();
    let mut most = 0;
    for number in 1..=COMMITS {
        gate.committed([(FIRST, number)].into(), std::iter::empty());
        gate.events(number, now());
        most = most.max(gate.entries());
    }
    assert!(most <= MOST_ENTRIES, "{most} entries");
    assert_eq!((gate.readable(), gate.held_events(now()).count), (0, COMMITS));
    // No event is told before its own id is complete, and most are not much later.
    for cleared in (1..=COMMITS).step_by(977) {
        drop(gate.cleared(&FIRST, cleared));
        assert!(gate.readable() <= cleared, "{} at {cleared}", gate.readable());
    }
    assert!(gate.readable() > COMMITS - 5_000, "{}", gate.readable());
    drop(gate.cleared(&FIRST, COMMITS));
    assert_eq!((gate.readable(), gate.entries()), (COMMITS, 0));
}
