//! What sinks are told of the chain: which block the rows of all channels have taken in, and at which ids.

use super::*;
use crate::store::backup::followed::Followed;

fn block(height: u32) -> Followed {
    Followed { height, hash: BlockHash::from_byte_array([7; 32]) }
}

/// The wallet's row for a block, as far as sinks are concerned.
fn followed(height: u32) -> Batch {
    let mut batch = Batch::default();
    block(height).note(&mut batch);
    batch
}

/// The newest record of the tip that the first sink was given, when the node asks for one of block 900.
fn told(bench: &mut Bench) -> TipRecord {
    bench.hub.tip(900, BlockHash::from_byte_array([9; 32]), Vec::new());
    bench.give_all();
    bench.sinks[0].kept.lock().tips.last().unwrap().clone()
}

fn followed_in(bench: &Bench, channel: &ChannelId) -> Option<Followed> {
    bench.sinks[0].kept.lock().images[channel].followed()
}

#[test]
fn bak_1_a_start_knows_how_far_the_rows_had_followed_before_any_of_them_changes() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.open(SECOND, vec![]);
    bench.commit(followed(700));
    bench.give_all();
    assert_eq!(followed_in(&bench, &FIRST), None, "nothing of it has changed since the block");

    let mut bench = bench.restarted(&[FIRST, SECOND]);
    bench.hear();
    let tip = told(&mut bench);
    assert_eq!((tip.height, tip.hash), (700, block(700).hash));
    assert_eq!(tip.channels, Some(vec![(FIRST, 1), (SECOND, 1)]));
    bench.step(FIRST, 1, vec![]);
    bench.give_all();
    assert_eq!(followed_in(&bench, &FIRST), Some(block(700)));
    assert_eq!(bench.image(&FIRST).followed(), Some(block(700)));

    // What its rows say already is not written again, nor by a start.
    let bench = bench.restarted(&[FIRST, SECOND]);
    bench.hear();
    let mut writes = changed(FIRST, 2, vec![]).writes;
    let updates = bench.hub.number(&mut writes, &BTreeMap::new()).unwrap();
    assert!(updates[0].changes.iter().all(|change| change.table != Table::Followed));
    assert_eq!(followed_in(&bench, &SECOND), None);
}

#[test]
fn bak_1_a_number_that_a_start_gives_is_of_rows_that_say_how_far_they_have_followed() {
    let mut bench = Bench::new(&[]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.commit(followed(700));
    let Bench { dir, db, hub, writer, commits, .. } = bench;
    drop((hub, writer, commits));
    let mut bench = Bench::over(dir, db, &[(Manner::Sound, true, Store::default())], &[FIRST]);
    bench.hear();
    bench.give_all();
    assert_eq!(bench.calls(0), [("full", bench.id(&FIRST))]);
    assert_eq!(followed_in(&bench, &FIRST), Some(block(700)));
    assert_eq!(bench.image(&FIRST).followed(), Some(block(700)), "as the database has it");
}

/// A restore would look for what no sink was given yet, and may never be.
#[test]
fn bak_1_a_record_of_the_tip_names_what_is_durable_alone() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.commit(followed(700));
    // A commit is under way: a block, a step, and a channel that comes to life.
    let mut writes = followed(701).writes;
    writes.extend(changed(FIRST, 1, vec![]).writes);
    let mut born = changed(SECOND, 0, vec![]);
    born.put(Table::ChannelParams, channel_key(&SECOND), Some(params_of(SECOND)));
    writes.extend(born.writes);
    let updates = bench.hub.number(&mut writes, &BTreeMap::new()).unwrap();
    let tip = told(&mut bench);
    assert_eq!((tip.height, tip.channels), (700, Some(vec![(FIRST, 1)])));
    bench.hub.committed(updates);
    let now = bench.hub.numbering.lock().standing();
    assert_eq!(now, Some((block(701), vec![(FIRST, 2), (SECOND, 1)])));
}

/// Rows of a channel that is over, such as preimages for others, bring it to no record.
#[test]
fn bak_1_a_channel_that_is_over_is_named_by_no_record_of_the_tip() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.open(SECOND, vec![]);
    bench.commit(followed(700));
    assert_eq!(told(&mut bench).channels, Some(vec![(FIRST, 1), (SECOND, 1)]));
    let mut gone = Batch::default();
    gone.put(Table::ChannelParams, channel_key(&FIRST), None);
    bench.commit(gone);
    bench.give_all();
    let named = bench.sinks[0].kept.lock().tips.last().unwrap().channels.clone();
    assert_eq!(named, Some(vec![(SECOND, 1)]), "it was never funded: the record is given again without it");
    let mut late = Batch::default();
    late.put(Table::Evidence, channel_key(&FIRST), Some(vec![1]));
    bench.commit(late);
    assert_eq!(told(&mut bench).channels, Some(vec![(SECOND, 1)]));
}

/// A mirror has nothing of a channel that was never funded: what names it still is found at a start, and given again before it goes.
#[test]
fn bak_1_a_record_that_a_sink_has_since_before_a_start_is_given_again_without_a_channel_that_is_forgotten() {
    let forget = |channel: ChannelId| {
        let mut gone = Batch::default();
        gone.put(Table::ChannelParams, channel_key(&channel), None);
        gone
    };
    let named = |bench: &Bench| {
        let kept = bench.sinks[0].kept.lock();
        let tips: Vec<_> = kept.tips.iter().map(|tip| tip.channels.clone().unwrap()).collect();
        (tips.len(), tips.last().unwrap().clone())
    };
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.open(SECOND, vec![]);
    bench.commit(followed(700));
    assert_eq!(told(&mut bench).channels, Some(vec![(FIRST, 1), (SECOND, 1)]));

    // What it names lives: nothing is given at a start.
    let mut bench = bench.restarted(&[FIRST, SECOND]);
    bench.hear();
    bench.give_all();
    assert_eq!(named(&bench), (1, vec![(FIRST, 1), (SECOND, 1)]));
    bench.commit(forget(FIRST));
    bench.give_all();
    assert_eq!(named(&bench), (2, vec![(SECOND, 1)]), "behind a start too");

    // A start that finds it gone does the same: the last one ended between the two.
    let mut bench = bench.restarted(&[SECOND]);
    bench.hear();
    bench.give_all();
    bench.commit(forget(SECOND));
    let mut bench = bench.restarted(&[]);
    bench.hear();
    bench.give_all();
    assert_eq!(named(&bench), (3, vec![]));
}

/// A try that passes over a channel says nothing of what was wrong with it.
#[test]
fn bak_1_what_was_wrong_with_a_backup_is_over_once_a_try_finds_it_right_as_far_as_it_looked() {
    let bench = Bench::new(&[(Manner::Sound, true)]);
    let name = bench.hub.views()[0].terms.name.clone();
    let failure = || bench.hub.views()[0].verify_failure.clone();
    let words = format!("channel {FIRST}: a gap");
    assert!(bench.hub.not_verified(&name, &words));
    bench.hub.partly_verified(&name, &[SECOND, FIRST]);
    assert_eq!(failure(), Some(words), "it was not looked at");
    bench.hub.partly_verified(&name, &[SECOND]);
    assert_eq!(failure(), None);
    assert_eq!(bench.hub.views()[0].verified_at_unix, None, "not all of it was looked at");
    assert!(bench.hub.not_verified(&name, "a gap again"), "it is news");
}

/// The sink's own files of the channel may be gone, or never have come: its record of the tip says what was durable here.
#[test]
fn bak_1_a_record_of_the_tip_that_names_what_the_file_has_not_proves_that_the_file_is_old() {
    for (named, here) in [((SECOND, 1), "knows no such channel"), ((FIRST, 9), "is at 1")] {
        let mut bench = Bench::new(&[(Manner::Sound, true)]);
        bench.hear();
        bench.open(FIRST, vec![]);
        bench.commit(followed(700));
        bench.give_all();
        let tip = told(&mut bench);
        bench.sinks[0].kept.lock().tips.push(TipRecord { channels: Some(vec![(FIRST, 1), named]), ..tip });

        let mut bench = bench.restarted(&[FIRST]);
        bench.hear();
        let News::Ahead { proof } = bench.next_news().unwrap() else { panic!("no proof") };
        let expected = format!("sink-0 names channel {} at write {} and", named.0, named.1);
        assert!(proof.contains(&expected) && proof.contains(here), "{proof}");
        assert_eq!(bench.hub.views()[0].state, crate::store::backup::State::Ahead);
        bench.calls(0);
        bench.step(FIRST, 1, vec![promise(1), enforcement(1)]);
        bench.give_all();
        assert_eq!(bench.taken(), ["enforcement 1"]);
        assert!(bench.calls(0).is_empty(), "it is left as it is");
    }
}

/// What was forgotten, and what is in history, keeps its id in the file.
#[test]
fn bak_1_a_record_of_the_tip_that_names_a_channel_which_has_ended_since_proves_nothing() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.open(SECOND, vec![]);
    bench.commit(followed(700));
    bench.give_all();
    let tip = told(&mut bench);
    assert_eq!(tip.channels, Some(vec![(FIRST, 1), (SECOND, 1)]));
    let mut end = Batch::default();
    end.put(Table::ChannelParams, channel_key(&SECOND), None);
    bench.commit(end);
    let bench = bench.restarted(&[FIRST]);
    bench.hear();
    assert!(bench.next_news().is_none());
}
