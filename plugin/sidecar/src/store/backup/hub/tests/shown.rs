//! What is shown of a sink: how far it is behind, and when a restore from it was found right.

use super::*;
use crate::store::backup::Lag;
use crate::store::schema::VERIFIED_KEY;

fn lag(bench: &Bench, number: usize) -> Lag {
    bench.hub.views()[number].lag
}

/// What it was given counts until it says that it has it, and so does what waits.
#[test]
fn per_2_what_a_late_sink_has_in_hand_counts_in_bytes_until_it_is_complete() {
    let mut bench = Bench::new(&[(Manner::Slow, false), (Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    let least = 2_048;
    assert_eq!((lag(&bench, 0).updates, lag(&bench, 0).bytes), (1, least), "it is not made yet");
    bench.give_all();
    let whole = bench.image(&FIRST).size() as u64;
    assert!(whole > 0);
    assert_eq!((lag(&bench, 0).updates, lag(&bench, 0).bytes), (1, whole));
    assert_eq!(lag(&bench, 1), Lag::default());
    // Two updates wait, and are then in its hands.
    bench.step(FIRST, 1, vec![]);
    let one = lag(&bench, 0).bytes - whole;
    assert!(one > 0);
    bench.step(FIRST, 2, vec![]);
    assert_eq!(lag(&bench, 0).bytes, whole + 2 * one);
    bench.give_all();
    assert_eq!((lag(&bench, 0).updates, lag(&bench, 0).bytes), (3, whole + 2 * one), "handing it over changes nothing");
    bench.open(SECOND, vec![]);
    bench.give_all();
    let second = bench.image(&SECOND).size() as u64;
    assert_eq!(lag(&bench, 0).bytes, whole + 2 * one + second);
    assert_eq!(lag(&bench, 1), Lag::default(), "one that is prompt is never behind");

    // The last one comes first.
    bench.sinks[0].complete(2);
    assert_eq!((lag(&bench, 0).updates, lag(&bench, 0).bytes), (4, whole + one + second));
    bench.sinks[0].complete(0);
    assert_eq!((lag(&bench, 0).updates, lag(&bench, 0).bytes), (3, one + second));
    bench.sinks[0].complete(0);
    assert_eq!((lag(&bench, 0).updates, lag(&bench, 0).bytes), (1, second));
    bench.sinks[0].complete(0);
    assert_eq!(lag(&bench, 0), Lag::default());
}

/// What a full write has takes away what came before it, also what is never completed.
#[test]
fn per_2_what_a_full_write_has_does_not_count_beside_it() {
    let mut bench = Bench::new(&[(Manner::Slow, false)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.give_all();
    bench.sinks[0].complete(0);
    bench.step(FIRST, 1, vec![]);
    bench.give_all();
    bench.step(FIRST, 2, vec![]);
    bench.sinks[0].ends_for_test().lost(&FIRST);
    bench.give_all();
    bench.sinks[0].complete(1);
    assert_eq!(lag(&bench, 0), Lag::default(), "the update in between is still open there");
    bench.sinks[0].complete(0);
    assert_eq!(lag(&bench, 0), Lag::default());

    // Nor does a channel that the sink will never have.
    bench.step(FIRST, 3, vec![]);
    bench.give_all();
    assert!(lag(&bench, 0).bytes > 0);
    bench.step(FIRST, 4, vec![]);
    bench.sinks[0].manner = Manner::FailingOnce;
    bench.give_all();
    assert_eq!(lag(&bench, 0), Lag::default());
}

fn verified(bench: &Bench) -> Vec<Option<u64>> {
    bench.hub.views().into_iter().map(|view| view.verified_at_unix).collect()
}

/// A restore from the sink of this name is found right, and the row that says so is committed where `is_kept`.
fn finds_right(bench: &mut Bench, name: &str, is_kept: bool) {
    let (at_unix, row) = bench.hub.verified(name, |row| row);
    assert_eq!(at_unix, (CLOCKS.unix)());
    if is_kept {
        let mut batch = Batch::default();
        batch.put(Table::Meta, VERIFIED_KEY.to_vec(), row);
        bench.commit(batch);
        bench.hub.is_verified(name, at_unix);
    }
}

#[test]
fn the_time_of_the_last_verified_restore_outlives_a_start_and_is_forgotten_with_its_sink() {
    let at = Some((CLOCKS.unix)());
    let mut bench = Bench::new(&[(Manner::Sound, true), (Manner::Sound, false), (Manner::Sound, false)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.give_all();
    finds_right(&mut bench, "sink-1", true);
    assert_eq!(verified(&bench), [None, at, None]);
    // What the database does not know is not shown.
    finds_right(&mut bench, "sink-2", false);
    assert_eq!(verified(&bench), [None, at, None]);

    let mut bench = bench.restarted(&[FIRST]);
    assert_eq!(verified(&bench), [None, at, None]);
    // Of those that come later no row lacks what is known.
    bench.hear();
    finds_right(&mut bench, "sink-0", true);
    let bench = bench.restarted(&[FIRST]);
    assert_eq!(verified(&bench), [at, at, None]);
    assert!(bench.hub.not_verified("sink-0", "a gap"));
    assert_eq!(verified(&bench), [at, at, None], "it was right then");

    // A start with the first one alone forgets the other, and one without any forgets all.
    let Bench { dir, db, hub, writer, commits, sinks, .. } = bench;
    let kept: Vec<_> = sinks.iter().map(|sink| (sink.manner, true, sink.kept.clone())).collect();
    drop((hub, writer, commits, sinks));
    let bench = Bench::over(dir, db, &kept[..1], &[FIRST]);
    assert_eq!(verified(&bench), [at]);
    let Bench { dir, db, hub, writer, commits, sinks, .. } = bench;
    drop((hub, writer, commits, sinks));
    let bench = Bench::over(dir, db, &kept[..2], &[FIRST]);
    assert_eq!(verified(&bench), [at, None]);
    let Bench { dir, db, hub, writer, commits, sinks, .. } = bench;
    drop((hub, writer, commits, sinks));
    drop(Bench::over(dir.clone(), db.clone(), &[], &[]));
    let bench = Bench::over(dir, db, &kept, &[FIRST]);
    assert_eq!(verified(&bench), [None; 3]);
}

#[test]
fn a_row_of_verified_restores_that_is_none_is_refused_by_a_start() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    let mut batch = Batch::default();
    batch.put(Table::Meta, VERIFIED_KEY.to_vec(), Some(b"lately sink-0".to_vec()));
    bench.commit(batch);
    let refused = Start::over(&bench.db, std::iter::empty(), (&["sink-0"], &["sink-0"])).unwrap_err();
    assert!(refused.to_string().contains("a verified restore without its time"), "{refused}");
}
