//! Files that an operator puts back, moves or links while the node runs or before it starts, and what a stop or a panic leaves of them.

use std::io::Write;
use std::time::SystemTime;

use super::paired::{head_of, image_of, killed_after, restored};
use super::scribe::Scribe;
use super::*;
use crate::store::backup::source::Source;

/// Both files of a mirror.
fn pair(place: &MirrorPlace) -> [PathBuf; 2] {
    [place.path.clone(), journal_of(&place.path)]
}

/// Takes both files away from a mirror that runs, where nothing is written to them, and says what they hold.
fn taken(bench: &Bench, place: &MirrorPlace) -> [Vec<u8>; 2] {
    let open = bench.mirror.handle.now();
    let _at_rest = open.as_ref().map(Open::at_rest);
    pair(place).map(|path| {
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        bytes
    })
}

#[test]
fn bak_1_a_mirror_that_is_being_copied_back_is_waited_for_whichever_file_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    let [mirror, journal] = pair(&place);
    for (id, is_mirror_first) in [(5, true), (6, false)] {
        let content = taken(&bench, &place);
        bench.update(&update(id, head_of(CHANNEL, id)), &image(id));
        bench.trouble();
        let mut files = [(&mirror, &content[0]), (&journal, &content[1])];
        if !is_mirror_first {
            files.reverse();
        }
        for (path, bytes) in files {
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            if path == files[1].0 {
                bench.told(&["Where it is being copied to this place at the moment, let that end"]);
            }
            assert!(bench.completed.is_empty());
            fs::write(path, bytes).unwrap();
            if path == files[0].0 {
                bench.told(&["not of one time", "belongs to is not there"]);
            }
        }
        assert_eq!(bench.completed(), id);
        assert!(bench.ends.trouble_now().is_none());
    }
    drop(bench);
    assert_eq!(read_back(&place).id, 6);
}

/// Some tools give a file its length first.
#[test]
fn bak_1_files_that_came_back_are_not_opened_while_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let handle = Handle::of(place.clone());
    drop(handle.open().unwrap());
    handle.close();
    drop(handle.open().unwrap());
    handle.close();
    let [_, journal] = pair(&place);
    let copy = dir.path().join("copy");
    fs::copy(&journal, &copy).unwrap();
    fs::rename(&copy, &journal).unwrap();
    let begun = SystemTime::now();
    let waits = || {
        let words = handle.open().unwrap_err().to_string();
        assert!(words.contains("used when nobody writes to them any more"), "{words}");
    };
    waits();
    for seconds in 1..4 {
        let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
        file.set_modified(begun + Duration::from_secs(seconds)).unwrap();
        waits();
    }
    handle.open().unwrap();
}

/// A mirror that was whole when its process ended needs no journal at a start; while the node runs that may be on its way.
#[test]
fn bak_1_no_journal_is_made_for_a_mirror_that_comes_back_without_the_one_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    drop(bench);
    let [mirror, journal] = pair(&place);
    let content = [&mirror, &journal].map(|path| fs::read(path).unwrap());
    let mut bench = Bench::at(place.clone());
    drop(taken(&bench, &place));
    fs::write(&mirror, &content[0]).unwrap();
    bench.update(&update(5, head_of(CHANNEL, 5)), &image(5));
    bench.told(&["not of one time"]);
    assert!(!journal.exists() && bench.completed.is_empty());
    fs::write(&journal, &content[1]).unwrap();
    assert_eq!(bench.completed(), 5);
}

#[test]
fn bak_1_another_nodes_mirror_in_the_place_is_told_and_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    let other = MirrorPlace { path: dir.path().join("other.redb"), node_id: node(2), ..place.clone() };
    other.make().unwrap();
    drop(other.opened().unwrap());
    let away = dir.path().join("away.redb");
    take(&place.path, &away);
    take(&other.path, &place.path);
    bench.update(&update(5, head_of(CHANNEL, 5)), &image(5));
    bench.told(&["belongs to"]);
    assert!(bench.completed.is_empty());
    take(&place.path, &other.path);
    take(&away, &place.path);
    assert_eq!(bench.completed(), 5);
}

#[test]
fn per_2_a_full_write_or_a_tip_does_not_count_in_an_older_pair_that_was_put_in_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let [old, new] = ["old.redb", "new.redb"].map(|name| dir.path().join(name));
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    drop(bench);
    for (from, to) in pair(&place).iter().zip([old.clone(), journal_of(&old)]) {
        fs::copy(from, to).unwrap();
    }
    let mut bench = Bench::at(place.clone());
    bench.update(&update(5, head_of(CHANNEL, 5)), &image(5));
    assert_eq!(bench.completed(), 5);
    take(&place.path, &new);
    take(&old, &place.path);
    let there = content(&place);
    let second = super::paired::channel(2);
    let read = || Ok(image_of(second, 1));
    let tip = TipRecord {
        network: "regtest".to_owned(),
        node_id: node(1),
        height: 1,
        hash: bitcoin::BlockHash::all_zeros(),
        at_unix: 1,
        peers: Vec::new(),
        channels: None,
    };
    bench.mirror.persist_tip(&tip);
    bench.mirror.persist_new_channel(&second, funding(), &Full::new(&read), 1);
    bench.mirror.all_given();
    bench.told(&["an older copy or an empty one"]);
    assert!(bench.completed.is_empty());
    assert!(content(&place) == there, "nothing is written into an older pair");
    take(&place.path, &old);
    take(&new, &place.path);
    assert_eq!(bench.completed(), 1);
    drop(bench);
    let mut held = Bench::at(place.clone()).mirror.holdings().unwrap();
    held.sort_by_key(|holding| holding.id);
    assert_eq!(held, [Holding { channel: second, id: 1 }, Holding { channel: CHANNEL, id: 5 }]);
    let older = MirrorPlace { path: old, ..place };
    let mut source = MirrorSource::open(older.clone()).unwrap();
    assert_eq!((source.channels().unwrap(), source.tip().unwrap()), (vec![CHANNEL], None));
    drop(source);
    assert_eq!(read_back(&older).id, 4);
}

/// The bytes of both files.
fn content(place: &MirrorPlace) -> [Vec<u8>; 2] {
    pair(place).map(|path| fs::read(path).unwrap())
}

/// What a kill would leave.
fn left_by(bench: &Bench) -> [Vec<u8>; 2] {
    let left = tempfile::tempdir().unwrap();
    bench.mirror.killer()(left.path());
    content(&super::place(left.path()))
}

/// Overwrites files as `cp` does: they stay the files that they were.
fn copied_over(files: &[(PathBuf, &Vec<u8>)]) {
    for (path, bytes) in files {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    }
}

#[test]
fn per_2_bak_1_files_that_are_overwritten_in_place_while_they_are_open_are_others_and_nothing_is_written_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    let [mirror, journal] = pair(&place);
    let mut id = 4;
    bench.full(&image(id));
    assert_eq!(bench.completed(), id);
    let empty = {
        let other = MirrorPlace { path: dir.path().join("empty.redb"), ..place.clone() };
        other.make().unwrap();
        drop(other.opened().unwrap());
        content(&other)
    };
    let older = left_by(&bench);
    for (which, words) in [
        (0, "an older copy or an empty one"),
        (1, "not of one time"),
        (2, "not of one time"),
        (3, "an older copy or an empty one"),
    ] {
        id += 1;
        bench.update(&update(id, head_of(CHANNEL, id)), &image(id));
        assert_eq!(bench.completed(), id);
        let newest = left_by(&bench);
        let put = match which {
            0 => vec![(journal.clone(), &older[1]), (mirror.clone(), &older[0])],
            1 => vec![(journal.clone(), &older[1])],
            2 => vec![(mirror.clone(), &older[0])],
            _ => vec![(journal.clone(), &empty[1]), (mirror.clone(), &empty[0])],
        };
        {
            // Nothing is written meanwhile.
            let open = bench.mirror.handle.now().unwrap();
            let _at_rest = open.at_rest();
            copied_over(&put);
        }
        let there = content(&place);
        id += 1;
        bench.update(&update(id, head_of(CHANNEL, id)), &image(id));
        bench.told(&[words]);
        assert!(bench.completed.is_empty(), "{which}");
        assert!(content(&place) == there, "{which}: what was put there was changed");
        copied_over(&[(journal.clone(), &newest[1]), (mirror.clone(), &newest[0])]);
        assert_eq!(bench.completed(), id, "{which}");
    }
    drop(bench);
    assert_eq!(read_back(&place).id, id);
}

/// What it holds may prove that the database is old, and it is left as it is then.
#[test]
fn bak_1_a_mirror_is_not_changed_by_a_byte_before_something_is_written_to_it() {
    let (_left, place) = killed_after(3);
    let before = content(&place);
    let mut bench = Bench::at(place.clone());
    assert_eq!(bench.mirror.holdings().unwrap(), [Holding { channel: CHANNEL, id: 7 }]);
    let mut source = bench.mirror.reader().unwrap()().unwrap();
    assert_eq!(source.read(&CHANNEL).unwrap().reached(), Some(7));
    drop(source);
    drop(bench);
    assert!(content(&place) == before, "it was written to");
    // It goes on as it is.
    let mut bench = Bench::at(place.clone());
    bench.update(&update(8, head_of(CHANNEL, 8)), &image(8));
    assert_eq!(bench.completed(), 8);
    drop(bench);
    // The files are others by the time of the first write.
    let mut bench = Bench::at(place.clone());
    let newest = content(&place);
    copied_over(&[(pair(&place)[1].clone(), &before[1]), (place.path.clone(), &before[0])]);
    bench.update(&update(9, head_of(CHANNEL, 9)), &image(9));
    bench.told(&["an older copy or an empty one"]);
    assert!(bench.completed.is_empty() && content(&place) == before);
    copied_over(&[(pair(&place)[1].clone(), &newest[1]), (place.path.clone(), &newest[0])]);
    assert_eq!(bench.completed(), 9);
}

/// An older copy may also have what is over since.
#[test]
fn per_2_an_older_pair_that_holds_a_channel_that_is_over_is_not_the_one_that_was_written() {
    let completed = record::Completed::of(&[Holding { channel: CHANNEL, id: 4 }]);
    let held = |id| [Holding { channel: CHANNEL, id }];
    let ends = vec![change(Table::ChannelParams, channel_key(&CHANNEL), None)];
    let last = Job::Update(Arc::new(update(5, ends)));
    let full = Job::Full(Box::new(image(7)), 7);
    assert!(completed.is_in(&held(4), &[]) && completed.is_in(&held(5), &[]));
    assert!(!completed.is_in(&held(3), std::slice::from_ref(&full)), "what was complete is not there");
    assert!(!completed.is_in(&[], std::slice::from_ref(&full)));
    assert!(completed.is_in(&[], std::slice::from_ref(&last)), "its end may have come to the disk");
    let mut over = record::Completed::of(&held(4));
    over.take(&[last]);
    assert!(over.is_in(&[], &[]) && !over.is_in(&held(4), &[]));
    assert!(over.is_in(&held(7), std::slice::from_ref(&full)));
    over.take(&[full]);
    assert!(over.is_in(&held(7), &[]) && !over.is_in(&held(6), &[]));
}

#[test]
fn per_2_a_commit_with_a_change_and_a_channel_forgotten_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let handle = Handle::of(place.clone());
    let write = |jobs: &[Job]| handle.open_for(jobs).unwrap().commit(jobs).unwrap();
    assert!(write(&[Job::Full(Box::new(image(4)), 4)]));
    let gone = [Table::ChannelParams, Table::ChannelHead, Table::MonitorHead];
    let gone = gone.map(|table| change(table, channel_key(&CHANNEL), None)).to_vec();
    let changed = || Job::Update(Arc::new(update(5, head_of(CHANNEL, 5))));
    let jobs = [changed(), Job::Known(CHANNEL, 5), Job::Update(Arc::new(update(6, gone)))];
    assert!(write(&jobs));
    handle.close();
    assert!(write(&jobs), "it came to the disk although it failed");
    assert!(holdings_in(&handle.look().unwrap().db).unwrap().is_empty());
    // The same without the end is another file's.
    assert!(!write(&jobs[..1]) && !write(&jobs[1..2]));
    drop(handle);
    assert!(read_back(&place).rows.is_empty());
}

#[test]
fn bak_1_what_went_past_the_journal_is_missed_in_an_older_mirror_beside_it() {
    let (_old, old) = killed_after(1);
    let [goes_on, left, mixed] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let runs = place(goes_on.path());
    for (from, to) in pair(&old).iter().zip(pair(&runs)) {
        fs::copy(from, to).unwrap();
    }
    let mut bench = Bench::at(runs);
    bench.update(&update(6, head_of(CHANNEL, 6)), &image(6));
    assert_eq!(bench.completed(), 6);
    let before = place(mixed.path());
    bench.mirror.killer()(mixed.path());
    let mut large = image(7);
    large.rows.insert((Table::ChannelParams, channel_key(&CHANNEL)), vec![7; 9 << 20]);
    bench.full(&large);
    assert_eq!(bench.completed(), 7);
    bench.mirror.killer()(left.path());
    assert_eq!(restored(&place(left.path())), Ok((Some(7), Vec::new())));
    fs::copy(journal_of(&place(left.path()).path), journal_of(&before.path)).unwrap();
    let refused = restored(&before).unwrap_err();
    assert!(refused.contains("not of one time"), "{refused}");
    // It goes on behind such a record.
    bench.mirror.killer()(left.path());
    let mut second = Bench::at(place(left.path()));
    assert_eq!(second.mirror.holdings().unwrap(), [Holding { channel: CHANNEL, id: 7 }]);
    second.update(&update(8, head_of(CHANNEL, 8)), &image(8));
    assert_eq!(second.completed(), 8);
}

#[test]
fn bad_input_91_a_link_that_leads_nowhere_is_no_place_for_a_new_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let away = dir.path().join("disk/real.redb");
    std::os::unix::fs::symlink(&away, &place.path).unwrap();
    let words = [place.make().unwrap_err(), place.opened().unwrap_err()].map(|fault| fault.to_string());
    for words in words {
        assert!(words.contains(&format!("there is nothing at {}", away.display())), "{words}");
        assert!(words.contains("mount its disk") && words.contains("remove the link"), "{words}");
    }
    assert!(place.path.is_symlink());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
    // The disk comes: it is used as it is.
    fs::create_dir(away.parent().unwrap()).unwrap();
    MirrorPlace { path: away, ..place.clone() }.make().unwrap();
    place.make().unwrap();
    assert!(place.path.is_symlink() && place.opened().is_ok());
}

/// What is logged on this thread meanwhile.
fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<crate::lock::Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn dsk_11_a_stop_in_trouble_says_that_mirror_and_journal_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let ends = SinkEnds::new(|_, _| (), Instant::now);
    let handle = Arc::new(Handle::of(place.clone()));
    let stopped = |jobs: Vec<Job>| {
        let (give, queue) = crossbeam_channel::unbounded();
        if !jobs.is_empty() {
            give.send(jobs).unwrap();
        }
        drop(give);
        let scribe = Scribe { handle: handle.clone(), backlog: Arc::default(), ends: ends.clone() };
        logged(|| scribe.work(&queue))
    };
    let full = || vec![Job::Full(Box::new(image(4)), 4)];
    assert_eq!(stopped(full()), "", "in order nothing is told");
    assert_eq!(stopped(Vec::new()), "", "nor where nothing was written since");
    handle.open().unwrap();
    fs::remove_file(&place.path).unwrap();
    let words = stopped(Vec::new());
    assert!(words.contains("deleted or replaced") && words.contains("the two go together"), "{words}");
    // The disk is away until the node stops.
    ends.stop();
    let words = stopped(full());
    assert!(words.contains("mirror.redb") && words.contains("it could not be opened"), "{words}");
}

#[test]
fn bak_1_a_mirror_that_a_stuck_thread_has_open_is_let_go_and_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let handle = Handle::of(place);
    let stuck = handle.open().unwrap();
    handle.close();
    assert!(matches!(handle.open(), Err(StoreError::InUse(_))));
    stuck.let_go();
    let again = handle.open().unwrap();
    assert!(again.commit(&[Job::Full(Box::new(image(4)), 4)]).unwrap());
    // Through the one that was let go nothing reaches the file any more.
    assert!(stuck.checkpoint(true).is_err());
    again.checkpoint(true).unwrap();
}
