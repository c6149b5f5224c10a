//! The mirror on a disk: what it holds, what it refuses, and that a fault of its disk costs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex as StdMutex;
use std::time::{Duration, Instant};

use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

use outrigger_bolt::id::NodeId;

use super::super::{RowChange, kept};
use super::handle::BACKLOG_BYTES;
use super::open::Open;
use super::place::Files;
use super::*;
use crate::store::journal::{Beside, Shelf};
use crate::store::open_reserved;
use crate::store::schema::{FORMAT_VERSION, channel_key, htlc_key};
use crate::store::seal::seal;

mod failed;
mod paired;
mod replaced;
mod swept;

const CHANNEL: ChannelId = ChannelId([1; 32]);
const LIMIT: Duration = Duration::from_secs(30);

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

fn place(dir: &Path) -> MirrorPlace {
    MirrorPlace::new(dir.join("mirror.redb"), "regtest", node(1))
}

fn funding() -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout: 0 }
}

fn image(id: u64) -> Image {
    let mut image = Image::new("regtest", node(1), CHANNEL, id);
    for (table, value) in
        [(Table::ChannelParams, "params"), (Table::ChannelHead, "head"), (Table::MonitorHead, "monitor")]
    {
        image.rows.insert((table, channel_key(&CHANNEL)), value.as_bytes().to_vec());
    }
    image
}

fn update(id: u64, changes: Vec<RowChange>) -> Update {
    Update { channel: CHANNEL, after: id - 1, id, changes }
}

fn change(table: Table, key: Vec<u8>, value: Option<&[u8]>) -> RowChange {
    RowChange { table, key, value: value.map(<[u8]>::to_vec) }
}

/// A mirror, and what it has completed.
struct Bench {
    mirror: Mirror,
    ends: SinkEnds,
    completed: crossbeam_channel::Receiver<u64>,
}

impl Bench {
    fn at(place: MirrorPlace) -> Self {
        place.make().unwrap();
        let (told, completed) = crossbeam_channel::unbounded();
        let told = StdMutex::new(told);
        let complete = move |_: &ChannelId, id| told.lock().unwrap().send(id).unwrap();
        let ends = SinkEnds::new(complete, Instant::now);
        let mut mirror = Mirror::new(place, ends.clone());
        mirror.holdings().unwrap();
        Self { mirror, ends, completed }
    }

    fn full(&mut self, image: &Image) {
        let read = || Ok(image.clone());
        let answer = self.mirror.persist_new_channel(&CHANNEL, funding(), &Full::new(&read), image.id);
        assert_eq!(answer, Answer::InProgress);
        self.mirror.all_given();
    }

    fn update(&mut self, update: &Update, image: &Image) {
        let read = || Ok(image.clone());
        let full = Full::new(&read);
        let answer = self.mirror.update_persisted_channel(&CHANNEL, funding(), Some(update), &full, update.id);
        assert_eq!(answer, Answer::InProgress);
        self.mirror.all_given();
    }

    fn completed(&self) -> u64 {
        self.completed.recv_timeout(LIMIT).unwrap()
    }

    /// Waits until it has trouble, and gives the words for it.
    fn trouble(&self) -> String {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            if let Some((words, _)) = self.ends.trouble_now() {
                return words;
            }
            std::thread::yield_now();
        }
        panic!("nothing troubles it");
    }

    /// Waits until some of these words are told.
    fn told(&self, words: &[&str]) {
        let begun = Instant::now();
        while !words.iter().any(|words| self.trouble().contains(words)) {
            if begun.elapsed() > LIMIT {
                // Its thread ends too.
                self.ends.stop();
                panic!("{}", self.trouble());
            }
            std::thread::yield_now();
        }
    }
}

impl Mirror {
    /// Copies both files into a directory as a kill at a moment between two writes leaves them; nor are they opened meanwhile.
    pub(in crate::store::backup) fn killer(&self) -> impl Fn(&Path) + Send + use<> {
        let handle = self.handle.clone();
        move |to| {
            let names = [handle.place.path.clone(), handle.place.shelf().path()];
            handle.at_rest(|| {
                for from in names.iter().filter(|name| name.exists()) {
                    fs::copy(from, to.join(from.file_name().unwrap())).unwrap();
                }
            });
        }
    }
}

fn journal_of(path: &Path) -> PathBuf {
    Beside::file(path).path()
}

/// Takes a mirror and its journal to other names.
fn take(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
    fs::rename(journal_of(from), journal_of(to)).unwrap();
}

/// Takes the files away until the thread that writes has closed it for that, and puts it back.
fn fail_once(bench: &mut Bench, place: &MirrorPlace, given: &Update) {
    let away = place.path.with_extension("away");
    take(&place.path, &away);
    bench.update(given, &image(given.id));
    let words = bench.trouble();
    assert!(words.contains("there is no backup in this place"), "{words}");
    take(&away, &place.path);
}

/// What a restore would find.
fn read_back(place: &MirrorPlace) -> Image {
    let ((db, _), _) = place.opened().unwrap();
    let transaction = db.begin_read().unwrap();
    kept::image_in(&transaction, ("regtest", &node(1)), &CHANNEL).unwrap()
}

#[test]
fn what_a_mirror_completed_is_read_back_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::at(place(dir.path()));
    let mut expected = image(4);
    bench.full(&expected);
    assert_eq!(bench.completed(), 4);
    let key = htlc_key(&CHANNEL, outrigger_channel::HtlcKey::received(3));
    let changes = [
        update(
            5,
            vec![
                change(Table::Htlc, key.clone(), Some(b"htlc")),
                change(Table::ChannelHead, channel_key(&CHANNEL), Some(b"5")),
            ],
        ),
        update(6, vec![change(Table::Htlc, key, None)]),
    ];
    for update in &changes {
        expected.apply(update).unwrap();
        bench.update(update, &expected);
    }
    // One that it has is ignored and completed; one that leaves a gap becomes a full write.
    bench.update(&changes[0], &expected);
    let mut later = image(9);
    later.rows.remove(&(Table::MonitorHead, channel_key(&CHANNEL)));
    bench.update(&update(9, Vec::new()), &later);
    assert_eq!([(); 4].map(|()| bench.completed()), [5, 6, 5, 9]);
    drop(bench);
    let place = place(dir.path());
    assert_eq!(read_back(&place), later);
    let mut again = Bench::at(place.clone());
    assert_eq!(again.mirror.holdings().unwrap(), [Holding { channel: CHANNEL, id: 9 }]);
    // The channel ends: nothing of it is held any more.
    let gone = [Table::ChannelParams, Table::ChannelHead].map(|table| change(table, channel_key(&CHANNEL), None));
    again.update(&update(10, gone.to_vec()), &later);
    assert_eq!(again.completed(), 10);
    drop(again);
    assert!(Bench::at(place).mirror.holdings().unwrap().is_empty());
}

#[test]
fn a_mirror_on_a_disk_that_is_away_waits_for_it_and_completes_then() {
    let dir = tempfile::tempdir().unwrap();
    let [disk, away] = ["disk", "away"].map(|name| dir.path().join(name));
    let place = MirrorPlace { path: disk.join("mirror.redb"), ..place(dir.path()) };
    fs::create_dir(&disk).unwrap();
    place.make().unwrap();
    fs::rename(&disk, &away).unwrap();
    assert!(place.check(&dir.path().join("outrigger.redb")).is_ok(), "a disk that is away is no reason to refuse");
    assert!(place.make().is_err() && !disk.exists());
    let (told, completed) = crossbeam_channel::unbounded();
    let told = StdMutex::new(told);
    let ends = SinkEnds::new(move |_, id| told.lock().unwrap().send(id).unwrap(), Instant::now);
    let mut mirror = Mirror::new(place, ends.clone());
    assert!(matches!(mirror.holdings(), Err(SinkFault::Passing(_))));
    let mut bench = Bench { mirror, ends, completed };
    bench.full(&image(1));
    bench.trouble();
    fs::rename(&away, &disk).unwrap();
    assert_eq!(bench.completed(), 1);
    assert!(bench.ends.trouble_now().is_none());
}

#[test]
fn per_2_a_mirror_that_goes_away_is_not_made_anew_while_the_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    drop(bench);
    let mut bench = Bench::at(place.clone());
    let away = dir.path().join("away.redb");
    take(&place.path, &away);
    let five = update(5, vec![change(Table::ChannelHead, channel_key(&CHANNEL), Some(b"5"))]);
    bench.update(&five, &image(5));
    let words = bench.trouble();
    assert!(words.contains("mirror.redb: there is no backup in this place. Its disk may not be mounted"), "{words}");
    assert!(matches!(bench.mirror.holdings(), Err(SinkFault::Passing(_))));
    assert!(!place.path.exists() && bench.completed.is_empty());
    take(&away, &place.path);
    assert_eq!(bench.completed(), 5);
    drop(bench);
    assert_eq!(read_back(&place).rows[&(Table::ChannelHead, channel_key(&CHANNEL))], b"5");
}

/// What is written to a file that has lost its name is found by nobody: it does not count.
#[test]
fn per_2_a_mirror_that_is_deleted_or_replaced_while_it_is_open_completes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    bench.update(&update(5, Vec::new()), &image(5));
    assert_eq!([bench.completed(), bench.completed()], [4, 5]);
    let copy = dir.path().join("copy.redb");
    fs::copy(&place.path, &copy).unwrap();
    fs::remove_file(&place.path).unwrap();
    bench.update(&update(6, Vec::new()), &image(6));
    let words = bench.trouble();
    assert!(words.contains("the mirror that this journal belongs to is not there"), "{words}");
    assert!(!place.path.exists() && bench.completed.is_empty(), "none is made in its place");
    // An empty one is not the one that was there, alone or with a journal of its own.
    let empty = MirrorPlace { path: dir.path().join("empty.redb"), ..place.clone() };
    let until_told = |bench: &Bench, words: &str| {
        bench.told(&[words]);
        assert!(bench.completed.is_empty());
    };
    empty.make().unwrap();
    fs::rename(&empty.path, &place.path).unwrap();
    until_told(&bench, "not of one time");
    let kept = dir.path().join("kept.journal");
    fs::rename(journal_of(&place.path), &kept).unwrap();
    let begun = MirrorPlace { path: dir.path().join("begun.redb"), ..place.clone() };
    begun.make().unwrap();
    drop(begun.opened().unwrap());
    take(&begun.path, &place.path);
    until_told(&bench, "an older copy or an empty one");
    // A whole copy is as good as the one that was there.
    fs::rename(&kept, journal_of(&place.path)).unwrap();
    fs::rename(&copy, &place.path).unwrap();
    assert_eq!(bench.completed(), 6);
    drop(bench);
    assert_eq!(read_back(&place).id, 6);
}

/// redb locks each open file: a reader that kept the file open would keep the thread that writes from opening it again.
#[test]
fn bak_1_a_mirror_that_is_read_while_its_disk_fails_goes_on_and_is_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    let mut reader = bench.mirror.reader().unwrap();
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    let mut source = reader().unwrap();
    assert_eq!(source.read(&CHANNEL).unwrap().reached(), Some(4));
    fail_once(&mut bench, &place, &update(5, Vec::new()));
    assert_eq!(bench.completed(), 5);
    assert!(bench.ends.trouble_now().is_none());
    assert_eq!(source.read(&CHANNEL).unwrap().reached(), Some(5));
    // In the middle of a read: the file is tried again until that has ended.
    let open = bench.mirror.handle.open().unwrap();
    fail_once(&mut bench, &place, &update(6, Vec::new()));
    bench.told(&["is open already"]);
    assert!(bench.completed.is_empty());
    let closed = source.read(&CHANNEL).unwrap_err().to_string();
    assert!(closed.contains("it was closed after a fault"), "{closed}");
    drop(open);
    assert_eq!(bench.completed(), 6);
    assert_eq!(source.read(&CHANNEL).unwrap().reached(), Some(6));
    // What is read has the mirror's name.
    fs::remove_file(&place.path).unwrap();
    let gone = source.read(&CHANNEL).unwrap_err().to_string();
    assert!(gone.contains("was deleted or replaced") && reader().is_err(), "{gone}");
}

#[test]
fn per_2_what_was_written_counts_by_the_file_it_was_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let handle = Handle::of(place.clone());
    let written = handle.open().unwrap();
    assert!(handle.stands(&written));
    let another = MirrorPlace { path: dir.path().join("another.redb"), ..place.clone() };
    another.make().unwrap();
    fs::rename(&another.path, &place.path).unwrap();
    // Another thread opens the new one meanwhile, when it looked the same twice.
    assert!(handle.open().is_err());
    let new = handle.open().unwrap();
    assert!(handle.stands(&new) && !handle.stands(&written));
}

/// Large channels wait for room, and not in memory.
#[test]
fn what_waits_for_a_mirror_is_bounded_in_bytes_and_one_thing_of_any_size_goes_through() {
    let (backlog, ends) = (Arc::new(Backlog::default()), SinkEnds::new(|_, _| (), Instant::now));
    assert!(backlog.enter(BACKLOG_BYTES * 3, &ends), "one thing of any size");
    let (waiting, waiting_ends) = (backlog.clone(), ends.clone());
    let next = std::thread::spawn(move || waiting.enter(1, &waiting_ends));
    backlog.leave(BACKLOG_BYTES * 3);
    assert!(next.join().unwrap());
    assert!(backlog.enter(BACKLOG_BYTES - 1, &ends), "up to the limit");
    let (waiting, waiting_ends) = (backlog.clone(), ends.clone());
    let next = std::thread::spawn(move || waiting.enter(1, &waiting_ends));
    ends.stop();
    assert!(!next.join().unwrap(), "the end of the process ends the wait");
    assert_eq!(*backlog.bytes.lock(), BACKLOG_BYTES);
}

#[test]
fn per_2_an_update_does_not_go_into_another_copy_of_the_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let [old, new] = ["old.redb", "new.redb"].map(|name| dir.path().join(name));
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    drop(bench);
    fs::copy(&place.path, &old).unwrap();
    fs::copy(journal_of(&place.path), journal_of(&old)).unwrap();
    let mut bench = Bench::at(place.clone());
    bench.update(&update(5, Vec::new()), &image(5));
    assert_eq!(bench.completed(), 5);
    drop(bench);
    let mut bench = Bench::at(place.clone());
    take(&place.path, &new);
    take(&old, &place.path);
    bench.update(&update(6, Vec::new()), &image(6));
    // One that was complete before is not in the old copy either.
    bench.update(&update(5, Vec::new()), &image(6));
    bench.told(&["an older copy or an empty one"]);
    assert!(bench.completed.is_empty());
    take(&place.path, &old);
    take(&new, &place.path);
    assert_eq!([bench.completed(), bench.completed()], [6, 5]);
    drop(bench);
    assert_eq!(read_back(&place).id, 6);
    assert_eq!(read_back(&MirrorPlace { path: old, ..place }).id, 4, "nothing was written into it");
}

/// A commit may come to the disk although it failed: it is made again then.
#[test]
fn per_2_a_commit_that_came_to_the_disk_can_be_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let handle = Handle::of(place.clone());
    let job = |update: Update| Job::Update(Arc::new(update));
    let row = |table, value: Option<&[u8]>| change(table, channel_key(&CHANNEL), value);
    let write = |jobs: &[Job]| handle.open_for(jobs).unwrap().commit(jobs).unwrap();
    let held = || holdings_in(&handle.look().unwrap().db).unwrap();
    let twice = |jobs: &[Job]| {
        let first = write(jobs);
        handle.close();
        [first, write(jobs)]
    };
    assert!(!write(&[job(update(5, Vec::new()))]), "nothing is there that it follows");
    assert!(!write(&[Job::Known(CHANNEL, 1)]));
    assert!(held().is_empty());
    let begun = [Job::Full(Box::new(image(4)), 4), job(update(5, Vec::new())), Job::Known(CHANNEL, 5)];
    assert_eq!(twice(&begun), [true; 2]);
    assert_eq!(twice(&[job(update(6, vec![row(Table::ChannelHead, Some(b"6"))])), Job::Known(CHANNEL, 4)]), [true; 2]);
    assert!(!write(&[job(update(8, Vec::new()))]), "a gap");
    assert_eq!(held(), [Holding { channel: CHANNEL, id: 6 }]);
    let mut ends =
        [Table::ChannelParams, Table::ChannelHead, Table::MonitorHead].map(|table| row(table, None)).to_vec();
    ends.push(row(Table::ClosedChannel, Some(b"over")));
    let over =
        [job(update(7, vec![row(Table::ChannelHead, Some(b"7"))])), job(update(8, ends)), Job::Known(CHANNEL, 7)];
    assert_eq!(twice(&over), [true; 2]);
    assert!(held().is_empty());
    handle.close();
    let left = read_back(&place).rows;
    assert_eq!(left.into_keys().collect::<Vec<_>>(), [(Table::ClosedChannel, channel_key(&CHANNEL))]);
}

/// What still comes after a channel's end is a full write: no update has an id to follow there.
#[test]
fn what_comes_after_the_end_of_a_channel_is_kept_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::at(place(dir.path()));
    bench.full(&image(4));
    let mut over = image(6);
    over.rows.clear();
    over.rows.insert((Table::ClosedChannel, channel_key(&CHANNEL)), b"over".to_vec());
    let ends = [Table::ChannelParams, Table::ChannelHead, Table::MonitorHead];
    let mut ends = ends.map(|table| change(table, channel_key(&CHANNEL), None)).to_vec();
    ends.push(change(Table::ClosedChannel, channel_key(&CHANNEL), Some(b"over")));
    bench.update(&update(5, ends), &over);
    bench.update(&update(6, Vec::new()), &over);
    bench.update(&update(7, Vec::new()), &Image { id: 7, ..over.clone() });
    assert_eq!([(); 4].map(|()| bench.completed()), [4, 5, 6, 7]);
    drop(bench);
    assert_eq!(read_back(&place(dir.path())).rows, over.rows);
    assert!(Bench::at(place(dir.path())).mirror.holdings().unwrap().is_empty());
}

#[test]
fn a_mirror_ends_with_its_process_though_its_disk_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let ends = SinkEnds::new(|_, _| (), Instant::now);
    let away = MirrorPlace { path: dir.path().join("disk/mirror.redb"), ..place(dir.path()) };
    let mut mirror = Mirror::new(away, ends.clone());
    let read = || Ok(image(1));
    assert_eq!(mirror.persist_new_channel(&CHANNEL, funding(), &Full::new(&read), 1), Answer::InProgress);
    mirror.all_given();
    ends.stop();
    drop(mirror);
}

#[test]
fn bad_input_91_a_mirror_refuses_what_is_not_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join(crate::store::FILE);
    drop(crate::store::open(dir.path(), "regtest", &node(1)).unwrap());
    let refused = |place: MirrorPlace| place.check(&database).unwrap_err();
    let on = |path: PathBuf| MirrorPlace { path, ..place(dir.path()) };
    assert!(refused(on(database.clone())).contains("the node's own database"));
    let link = dir.path().join("link.redb");
    std::os::unix::fs::symlink(&database, &link).unwrap();
    assert!(refused(on(link)).contains("the node's own database"));
    let copy = dir.path().join("copy.redb");
    fs::copy(&database, &copy).unwrap();
    let words = refused(on(copy));
    assert!(words.contains("a node's database") && words.contains("a mirror"), "{words}");

    let place = place(dir.path());
    place.check(&database).unwrap();
    assert!(!place.path.exists(), "looking makes nothing");
    place.make().unwrap();
    place.check(&database).unwrap();
    let before = fs::read(&place.path).unwrap();
    assert!(refused(MirrorPlace { network: "signet".into(), ..place.clone() }).contains("network regtest"));
    assert!(refused(MirrorPlace { node_id: node(2), ..place.clone() }).contains(&node(1).to_string()));
    assert!(fs::read(&place.path).unwrap() == before, "refused, it is as it was");
    // One that another program reads is not damaged.
    let open = place.opened().unwrap();
    let words = refused(place.clone());
    assert!(words.contains("is open already") && !words.contains("damaged"), "{words}");
    drop(open);
    {
        let ((db, _), _) = place.opened().unwrap();
        let transaction = db.begin_write().unwrap();
        let newer = seal(Table::Meta, b"format", &(FORMAT_VERSION + 1).to_be_bytes());
        transaction.open_table(Table::Meta.definition()).unwrap().insert(&b"format"[..], newer.as_slice()).unwrap();
        transaction.commit().unwrap();
    }
    assert!(refused(place.clone()).contains("a newer version"));
    fs::write(&place.path, b"").unwrap();
    assert!(refused(place.clone()).contains("it is empty"));
    fs::write(&place.path, vec![7; 10_000]).unwrap();
    assert!(!refused(place).is_empty());
}

#[test]
fn bak_1_a_mirror_that_is_put_in_the_place_of_the_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    fs::rename(&place.path, dir.path().join(crate::store::FILE)).unwrap();
    let fault = crate::store::open(dir.path(), "regtest", &node(1)).unwrap_err().to_string();
    assert!(fault.contains("a mirror") && fault.contains("is restored from a mirror"), "{fault}");
}
