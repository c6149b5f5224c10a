//! A channel that a required sink will never have: which of our commitments is kept for it, and what is remembered of the sink.

use super::held::{numbers, rowless};
use super::*;
use crate::store::backup::State;
use crate::store::backup::kept::committed_in;
use crate::store::schema::REFUSALS_KEY;

/// Orders in which two threads may come to the locks, by chance; of five one would find them the wrong way round.
const SCHEDULES: usize = 60;

/// The commitment of this number comes, and with it the revocation of the one before.
fn signed(bench: &mut Bench, channel: ChannelId, number: u64) {
    bench.step(channel, number, vec![Effect::Revoke { number: number - 1 }]);
}

/// What the node hears of the refusal that comes next.
fn refusal(bench: &Bench) -> Unstored {
    let News::Unstored(unstored) = bench.next_news().unwrap() else { panic!("no channel was refused") };
    unstored
}

/// The next thing that this sink is given is one that it will never have.
fn refuses_next(bench: &mut Bench, number: usize) -> Unstored {
    bench.sinks[number].manner = Manner::FailingOnce;
    assert!(bench.give(number));
    refusal(bench)
}

/// As the manager does, before it fails the channel.
fn remember(bench: &mut Bench, refusals: &Refusals) {
    let mut batch = Batch::default();
    batch.put(Table::Meta, REFUSALS_KEY.to_vec(), refusals.encode());
    bench.commit(batch);
}

#[test]
fn per_5_the_newest_commitment_that_every_required_sink_has_is_the_one_whose_secret_never_left() {
    let mut bench = Bench::new(&[(Manner::Sound, true), (Manner::Slow, true), (Manner::Slow, false)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.give_all();
    bench.sinks[1].complete(0);
    assert_eq!(bench.taken(), ["promise 1"]);
    signed(&mut bench, FIRST, 1);
    bench.give_all();
    bench.sinks[1].complete(0);
    assert_eq!(bench.taken(), ["Revoke { number: 0 }"]);
    // Both have commitment 1. One of them gets 2, and the other will never have it.
    signed(&mut bench, FIRST, 2);
    assert!(bench.give(0));
    let unstored = refuses_next(&mut bench, 1);
    assert_eq!((unstored.is_new, unstored.complete), (false, Some(1)));
    assert!(bench.taken().is_empty(), "its secret never leaves");
    // Nor where a peer asks for it on a new connection, or the sink has second thoughts.
    bench.commit(rowless(at(FIRST, 2), vec![Effect::Revoke { number: 1 }, say(FIRST, "again")]));
    bench.sinks[1].ends_for_test().channel_monitor_updated(&FIRST, 3);
    bench.give_all();
    assert!(bench.taken().is_empty());
}

#[test]
fn per_5_a_commitment_that_every_required_sink_has_is_kept_where_only_what_follows_it_is_refused() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    signed(&mut bench, FIRST, 1);
    bench.give_all();
    assert_eq!(bench.taken(), ["Revoke { number: 0 }"]);
    // A step without a commitment of ours.
    bench.step(FIRST, 9, vec![promise(1)]);
    assert_eq!(refuses_next(&mut bench, 0).complete, Some(1));
}

/// A peer may misbehave while its revocation waits: words are dropped with a connection, and the commitment stays what it is.
#[test]
fn per_5_a_revocation_that_was_dropped_with_its_connection_was_never_told() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.give_all();
    bench.sinks[0].complete(0);
    signed(&mut bench, FIRST, 1);
    bench.give_all();
    for connection in 2..10 {
        bench.commit(rowless(at(FIRST, connection), vec![Effect::Revoke { number: 0 }]));
    }
    bench.step(FIRST, 7, vec![say(FIRST, "more")]);
    assert_eq!(refuses_next(&mut bench, 0).complete, Some(0), "1 was not complete, whatever came later");
}

/// What a peer learns from them is no promise, and it may have lost data while the channel was refused.
#[test]
fn bak_1_a_channel_that_a_sink_refused_tells_its_numbers_before_its_error_then_and_on_each_connection() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.give_all();
    bench.step(FIRST, 1, vec![numbers(FIRST), say(FIRST, "?")]);
    refuses_next(&mut bench, 0);
    bench.step(FIRST, 2, vec![error(FIRST)]);
    assert_eq!(bench.taken(), ["channel_reestablish on 1", "error on 1"]);
    bench.commit(rowless(at(FIRST, 2), vec![numbers(FIRST), Effect::Revoke { number: 0 }, error(FIRST)]));
    assert_eq!(bench.taken(), ["channel_reestablish on 2", "error on 2"]);
}

#[test]
fn per_5_a_start_knows_what_is_complete_once_every_required_sink_has_told_or_written_it() {
    let begun = || {
        let mut bench = Bench::new(&[(Manner::Sound, true), (Manner::Sound, true)]);
        bench.hear();
        bench.open(FIRST, vec![]);
        bench.give_all();
        bench
    };
    // At rest: both hold it.
    let mut bench = begun().restarted(&[FIRST]);
    bench.hear();
    bench.step(FIRST, 1, vec![]);
    assert_eq!(refuses_next(&mut bench, 0).complete, Some(LOADED));
    // One of them has lost it, and will not have it again: what it had is not known.
    let bench = begun();
    bench.sinks[1].kept.lock().images.clear();
    let mut bench = bench.restarted(&[FIRST]);
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, None);
    // It came back with less than there is.
    let mut bench = begun();
    bench.step(FIRST, 1, vec![Effect::Revoke { number: LOADED - 1 }]);
    assert!(bench.give(0));
    let mut bench = bench.restarted(&[FIRST]);
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, None);
}

/// A commit of the channel, and whether a local commitment of this number comes with it.
fn stepped(bench: &mut Bench, number: Option<u64>) {
    let mut batch = changed(FIRST, 1, vec![]);
    number.into_iter().for_each(|number| batch.comes(FIRST, number));
    bench.commit(batch);
}

/// Of two sinks that have the channel, both told what they hold or not yet.
fn begun_with(numbers: &[Option<u64>]) -> Bench {
    let mut bench = Bench::new(&[(Manner::Sound, true), (Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    for number in numbers {
        bench.give_all();
        stepped(&mut bench, *number);
    }
    // The last commit comes to no sink before the process ends.
    bench.restarted(&[FIRST])
}

#[test]
fn per_5_after_a_start_a_sink_that_lacks_only_what_followed_the_newest_commitment_has_it() {
    let mut bench = begun_with(&[Some(LOADED), None]);
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, Some(LOADED));
    // It lacks the commitment itself: whether the one before it is revoked is not known.
    let mut bench = begun_with(&[Some(LOADED)]);
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, None);
    let mut bench = begun_with(&[Some(LOADED), Some(LOADED)]);
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, None, "told again it counts as newer");
    // A sink that was set back has less.
    let bench = begun_with(&[Some(LOADED), None, None]);
    bench.sinks[1].kept.lock().images.get_mut(&FIRST).unwrap().id = 1;
    let mut bench = bench;
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, None);
    // A row that is of another commitment says nothing.
    let mut bench = begun_with(&[Some(LOADED - 1), None]);
    bench.hear();
    assert_eq!(refuses_next(&mut bench, 1).complete, None);
}

#[test]
fn per_5_the_row_of_the_newest_commitment_goes_with_the_channel() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    let row = |bench: &Bench| committed_in(&bench.db.begin_read().unwrap(), &FIRST).unwrap();
    let mut batch = changed(FIRST, 0, vec![]);
    batch.put(Table::ChannelParams, channel_key(&FIRST), Some(params_of(FIRST)));
    batch.comes(FIRST, 0);
    bench.commit(batch);
    assert_eq!(row(&bench), Some((0, 1)));
    stepped(&mut bench, None);
    assert_eq!(row(&bench), Some((0, 1)));
    stepped(&mut bench, Some(1));
    assert_eq!(row(&bench), Some((1, 3)));
    let mut batch = changed(FIRST, 0, vec![]);
    batch.put(Table::ChannelParams, channel_key(&FIRST), None);
    bench.commit(batch);
    assert_eq!((row(&bench), bench.id(&FIRST)), (None, 4));
}

/// What another sink tells later counts as well, and so does what the one that refuses has told.
#[test]
fn per_5_what_is_not_known_at_the_refusal_is_told_once_when_the_last_sink_has_told_what_it_holds() {
    let mut bench = begun_with(&[Some(LOADED), None]);
    let holdings = |bench: &Bench, number: usize| bench.sinks[number].clone().holdings().unwrap();
    let told = holdings(&bench, 1);
    bench.hub.learn(1, &told);
    assert_eq!(refuses_next(&mut bench, 1).complete, None, "the other one has not told");
    let told = holdings(&bench, 0);
    bench.hub.learn(0, &told);
    let News::Kept { channel, number } = bench.next_news().unwrap() else { panic!("it is known now") };
    assert_eq!((channel, number), (FIRST, LOADED));
    bench.give_all();
    assert!(bench.next_news().is_none(), "once");
    assert!(bench.taken().is_empty(), "the channel has failed all the same");
}

/// Whoever completes what was missing waits for the refusal to be told: under every order in which two sinks come to it.
#[test]
fn per_5_what_a_failed_channel_keeps_is_never_told_before_its_failure() {
    let race = || {
        let bench = begun_with(&[Some(LOADED), None]);
        let holdings = |bench: &Bench, number: usize| bench.sinks[number].clone().holdings().unwrap();
        let [of_the_first, of_the_second] = [0, 1].map(|number| holdings(&bench, number));
        bench.hub.learn(1, &of_the_second);
        let work = bench.hub.desks[1].with(Lanes::next).unwrap();
        let (hub, mut sink) = (bench.hub.clone(), bench.sinks[1].clone());
        sink.manner = Manner::FailingOnce;
        let refuses = shuttle::thread::spawn(move || hub.give(1, &mut sink, work));
        let hub = bench.hub.clone();
        let tells = shuttle::thread::spawn(move || hub.learn(0, &of_the_first));
        [refuses, tells].into_iter().for_each(|task| task.join().unwrap());
        match refusal(&bench).complete {
            Some(number) => assert_eq!(number, LOADED, "the other one had told"),
            None => assert!(matches!(bench.next_news(), Some(News::Kept { channel: FIRST, number: LOADED }))),
        }
        assert!(bench.next_news().is_none(), "once");
    };
    let mut config = shuttle::Config::default();
    // A database is opened on it.
    config.stack_size = 1 << 20;
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(SCHEDULES), config).run(race);
}

/// The sink that refused it has been mended or replaced, or has told at last.
#[test]
fn per_5_a_start_tells_of_a_channel_that_had_failed_without_its_being_known() {
    WITHHELD.set(Some(FIRST));
    let bench = begun_with(&[Some(LOADED), None]);
    assert!(bench.next_news().is_none());
    bench.hear();
    let News::Kept { channel, number } = bench.next_news().unwrap() else { panic!("it is known now") };
    assert_eq!((channel, number), (FIRST, LOADED));
    let mut bench = begun_with(&[Some(LOADED)]);
    bench.hear();
    assert!(bench.next_news().is_none(), "they lack it");
    assert!(bench.give(0));
    assert!(bench.next_news().is_none(), "one of them does");
    assert!(bench.give(1));
    assert!(matches!(bench.next_news(), Some(News::Kept { channel: FIRST, number: LOADED })));
    WITHHELD.set(None);
    let bench = begun_with(&[Some(LOADED), None]);
    bench.hear();
    assert!(bench.next_news().is_none(), "of a channel that lives there is nothing to tell");
}

#[test]
fn the_second_channel_that_a_sink_refuses_stops_the_node_also_where_a_start_lies_between() {
    let begun = || {
        let mut bench = Bench::new(&[(Manner::Sound, true), (Manner::Sound, false)]);
        bench.hear();
        bench.open(FIRST, vec![]);
        bench.open(SECOND, vec![]);
        bench.give_all();
        bench.step(FIRST, 1, vec![]);
        let unstored = refuses_next(&mut bench, 0);
        assert_eq!(unstored.refusals, Refusals([("sink-0".to_owned(), FIRST)].into()));
        (bench, unstored.refusals)
    };
    // The row is durable before the channel fails: the same channel is refused again, and no other.
    let (mut bench, refusals) = begun();
    remember(&mut bench, &refusals);
    let mut bench = bench.restarted(&[FIRST, SECOND]);
    assert!(matches!(&bench.hub.views()[0].state, State::Failed { reason } if reason.contains("before")));
    bench.hear();
    bench.step(SECOND, 1, vec![promise(1)]);
    bench.step(FIRST, 2, vec![]);
    let mut dead = 0;
    bench.sinks[0].manner = Manner::Failing;
    while bench.give(0) {}
    while let Some(news) = bench.next_news() {
        match news {
            News::Unstored(again) => assert_eq!((again.channel, again.refusals), (FIRST, refusals.clone())),
            News::Dead { reason } => {
                assert!(reason.contains("sink-0 failed for good a second time"), "{reason}");
                dead += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(dead, 1, "one bad backup does not cost a channel at each start");
    assert!(bench.taken().is_empty());
    // A crash before the row: the first refusal is yet to come, and it costs one channel.
    let (bench, _) = begun();
    let mut bench = bench.restarted(&[FIRST, SECOND]);
    bench.hear();
    bench.step(SECOND, 1, vec![]);
    assert_eq!(refuses_next(&mut bench, 0).channel, SECOND);
}

#[test]
fn what_a_sink_has_refused_is_forgotten_with_its_name_and_kept_with_it() {
    let bench = Bench::new(&[]);
    let mut bench = bench.restarted(&[]);
    let refusals = Refusals([("first".to_owned(), FIRST), ("second".to_owned(), SECOND)].into());
    remember(&mut bench, &refusals);
    let start = |names: &[&str]| {
        let start = Start::over(&bench.db, std::iter::empty(), (names, names)).unwrap();
        (start.refused_by("first"), start.refused_by("second"))
    };
    assert_eq!(start(&["first", "second"]), (Some(FIRST), Some(SECOND)));
    assert_eq!(start(&["second"]), (None, Some(SECOND)), "out of the configuration for one start");
    assert_eq!(start(&["first", "second"]), (None, Some(SECOND)));
    assert_eq!(start(&[]), (None, None));
    assert_eq!(start(&["first", "second"]), (None, None));
}

#[test]
fn events_that_one_channel_holds_back_are_counted_and_it_is_named() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    assert_eq!(bench.hub.held_events(), HeldEvents::default());
    let event = |channel| {
        let mut batch = changed(channel, 1, vec![]);
        batch.event(EventRow::new(7, "channel_failed", serde_json::json!({})));
        batch
    };
    bench.commit(event(FIRST));
    bench.commit(event(SECOND));
    pass(Duration::from_secs(30));
    let held = HeldEvents { count: 2, waited: Duration::from_secs(30), channels: vec![FIRST] };
    assert_eq!(bench.hub.held_events(), held);
    bench.give_all();
    bench.sinks[0].complete(1);
    assert_eq!(bench.hub.held_events(), held, "readers follow the numbers");
    bench.sinks[0].complete(0);
    assert_eq!((bench.hub.held_events(), *bench.hub.readable_events().borrow()), (HeldEvents::default(), 2));
}

#[test]
fn a_tip_is_given_once_everything_before_it_is_complete_and_no_refused_channel_keeps_it() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.give_all();
    let hash = BlockHash::from_byte_array([3; 32]);
    let heights = |bench: &Bench| bench.sinks[0].kept.lock().tips.iter().map(|tip| tip.height).collect::<Vec<_>>();
    bench.hub.tip(144, hash, Vec::new());
    bench.give_all();
    assert!(heights(&bench).is_empty(), "a write is in progress");
    // What comes later is no concern of that tip.
    bench.step(FIRST, 1, vec![]);
    bench.open(SECOND, vec![]);
    bench.sinks[0].complete(0);
    bench.give_all();
    assert_eq!(heights(&bench), [144]);
    bench.hub.tip(288, hash, Vec::new());
    bench.give_all();
    assert_eq!(heights(&bench), [144]);
    bench.sinks[0].complete(0);
    bench.sinks[0].complete(0);
    bench.give_all();
    assert_eq!(heights(&bench), [144, 288]);
    // A newer one takes the place of one that still waits.
    bench.step(FIRST, 2, vec![]);
    bench.hub.tip(432, hash, Vec::new());
    bench.hub.tip(576, hash, Vec::new());
    refuses_next(&mut bench, 0);
    bench.give_all();
    assert_eq!(heights(&bench), [144, 288, 576]);
}
