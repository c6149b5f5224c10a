//! A mirror and its journal: what a commit asks of the disk, what a kill leaves, and what is told of files that do not go together.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::store::backup::source::Source;
use crate::store::commit::apply;
use crate::store::initialise;
use crate::store::journal::rows::SealedRow;
use crate::store::journal::start::attach;
use crate::store::reserve::Reserve;
use crate::store::schema::MIRROR_KEY;

pub(super) const PAGE: usize = 4096;

/// Channels that one commit of the database touches.
const TOUCHED: u8 = 8;

pub(super) fn channel(number: u8) -> ChannelId {
    ChannelId([number; 32])
}

pub(super) fn head_of(channel: ChannelId, id: u64) -> Vec<RowChange> {
    vec![change(Table::ChannelHead, channel_key(&channel), Some(&[id as u8; 300]))]
}

pub(super) fn image_of(channel: ChannelId, id: u64) -> Image {
    let rows = image(id).rows.into_iter().map(|((table, _), value)| ((table, channel_key(&channel)), value));
    Image { rows: rows.collect(), ..Image::new("regtest", node(1), channel, id) }
}

pub(super) fn changed(channel: ChannelId, id: u64) -> Job {
    Job::Update(Arc::new(Update { channel, after: id - 1, id, changes: head_of(channel, id) }))
}

/// What a restore would find in files that nobody has open, which stay as they are.
pub(super) fn restored(place: &MirrorPlace) -> Result<(Option<u64>, Vec<String>), String> {
    let content = || [place.path.clone(), journal_of(&place.path)].map(|path| fs::read(path).ok());
    let before = content();
    let read = || {
        let mut source = MirrorSource::open(place.clone()).map_err(|fault| fault.to_string())?;
        let stored = source.read(&CHANNEL).map_err(|fault| fault.to_string())?;
        Ok((stored.reached(), [stored.faults, source.faults()].concat()))
    };
    let found = read();
    assert!(content() == before, "a look changed a file");
    found
}

/// A mirror with this many updates behind a full write at 4, as a kill leaves it.
pub(super) fn killed_after(updates: u64) -> (tempfile::TempDir, MirrorPlace) {
    let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut bench = Bench::at(place(dir.path()));
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    // One record each: what waits together becomes one.
    for id in 5..5 + updates {
        bench.update(&update(id, head_of(CHANNEL, id)), &image(id));
        assert_eq!(bench.completed(), id);
    }
    bench.mirror.killer()(left.path());
    let place = place(left.path());
    (left, place)
}

/// The records with rows that stand in a journal, each by its epoch and its index.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let pages = bytes.chunks(PAGE).filter(|page| page.starts_with(b"outr-rec"));
    pages.map(|page| page[8..40].to_vec()).filter(|name| name[24..] != [0; 8]).collect()
}

#[test]
fn dsk_6_what_is_given_together_is_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    let read = |channel, id| move || Ok(image_of(channel, id));
    for channel in (1..=TOUCHED).map(channel) {
        let read = read(channel, 1);
        bench.mirror.persist_new_channel(&channel, funding(), &Full::new(&read), 1);
    }
    bench.mirror.all_given();
    (1..=TOUCHED).for_each(|_| assert_eq!(bench.completed(), 1));
    const COMMITS: u64 = 40;
    // A journal that is turned over at rest leaves those that stood in the other half.
    let mut seen = BTreeSet::from_iter(records(&journal_of(&place.path)));
    assert_eq!(seen.len(), 1);
    for id in 2..2 + COMMITS {
        for channel in (1..=TOUCHED).map(channel) {
            let update = Update { channel, after: id - 1, id, changes: head_of(channel, id) };
            let read = read(channel, id);
            bench.mirror.update_persisted_channel(&channel, funding(), Some(&update), &Full::new(&read), id);
        }
        assert!(bench.completed.is_empty(), "nothing is written before all of it was given");
        bench.mirror.all_given();
        (1..=TOUCHED).for_each(|_| assert_eq!(bench.completed(), id));
        seen.extend(records(&journal_of(&place.path)));
        assert_eq!(seen.len() as u64, id);
    }
    drop(bench);
    assert_eq!(read_back(&place).id, 1 + COMMITS);
}

/// Two files in memory, and what was asked of them.
#[derive(Clone, Debug, Default)]
struct Watched {
    log: Arc<StdMutex<Vec<&'static str>>>,
    /// Whether the disk has no room for the mirror's own file to grow.
    is_full: Arc<AtomicBool>,
    /// Whether the journal cannot be synced.
    is_broken: Arc<AtomicBool>,
    is_wide: bool,
    files: [Arc<InMemoryBackend>; 2],
}

#[derive(Debug)]
struct WatchedFile(Watched, usize);

impl WatchedFile {
    fn ask(&self, what: [&'static str; 2]) {
        self.0.log.lock().unwrap().push(what[self.1]);
    }
}

impl StorageBackend for WatchedFile {
    fn len(&self) -> std::io::Result<u64> {
        self.0.files[self.1].len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.files[self.1].read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.ask(["grow", "grow journal"]);
        if self.1 == 0 && self.0.is_full.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.files[self.1].set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.ask(["sync", "sync journal"]);
        if self.1 == 1 && self.0.is_broken.load(Ordering::SeqCst) {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        self.0.files[self.1].sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.ask(["write", "write journal"]);
        self.0.files[self.1].write(offset, data)
    }
}

impl Shelf for Watched {
    fn open(&self) -> std::io::Result<Option<Box<dyn StorageBackend>>> {
        let file = WatchedFile(self.clone(), 1);
        Ok(if file.len()? == 0 { None } else { Some(Box::new(file)) })
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> std::io::Result<()>,
    ) -> std::io::Result<(Box<dyn StorageBackend>, usize)> {
        let file = WatchedFile(self.clone(), 1);
        let half_len = if self.is_wide { WIDE } else { HALF };
        lay(&file, half_len)?;
        Ok((Box::new(file), half_len))
    }

    fn path(&self) -> PathBuf {
        "journal".into()
    }

    fn is_given_up(&self) -> bool {
        false
    }
}

/// Bytes of a half of a watched journal.
const HALF: usize = 256 * 1024;

/// The same where nothing fills it.
const WIDE: usize = 16 << 20;

impl Watched {
    /// The files as they are opened for writing.
    fn opened(&self) -> Open {
        let is_new = self.files[0].len().unwrap() == 0;
        let storage = Reserve::of(Box::new(WatchedFile(self.clone(), 0)));
        storage.release().unwrap();
        let db = Database::builder().create_with_backend(storage.clone()).unwrap();
        if is_new {
            initialise(&db, "regtest", &node(1)).unwrap();
        }
        let journal = attach(&db, self, false, true).unwrap().settle(self).unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        place.make().unwrap();
        Open::over((db, storage), journal, place.files().unwrap())
    }

    fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn syncs(&self) -> usize {
        self.taken().iter().filter(|asked| asked.starts_with("sync")).count()
    }
}

#[test]
fn dsk_2_dsk_6_a_commit_of_a_mirror_is_one_write_and_one_sync_before_anything_is_seen() {
    let watched = Watched::default();
    let open = watched.opened();
    let jobs = |id| (1..=TOUCHED).map(|number| changed(channel(number), id)).collect::<Vec<_>>();
    let begun: Vec<_> = (1..=TOUCHED).map(|number| Job::Full(Box::new(image_of(channel(number), 1)), 1)).collect();
    assert!(open.commit(&begun).unwrap());
    drop(watched.taken());
    for id in 2..22 {
        assert!(open.commit(&jobs(id)).unwrap());
        assert_eq!(watched.taken(), ["write journal", "sync journal"]);
        assert_eq!(holdings_in(&open.db).unwrap()[0].id, id);
    }
    assert!(open.commit(&jobs(21)).unwrap() && watched.taken().is_empty(), "what is there already costs nothing");
    open.checkpoint(false).unwrap();
    let asked = watched.taken();
    assert_eq!(asked[..2], ["write journal", "sync journal"], "the next epoch is begun first");
    assert_eq!(asked.iter().filter(|asked| **asked == "sync").count(), 2, "{asked:?}");
    open.checkpoint(false).unwrap();
    assert!(watched.taken().is_empty(), "there is nothing to make durable");
    // Many commits: the journal turns over now and then.
    const COMMITS: u64 = 400;
    let mut syncs = 0;
    for id in 22..22 + COMMITS {
        assert!(open.commit(&jobs(id)).unwrap());
        if open.is_filling() {
            open.checkpoint(false).unwrap();
        }
        syncs += watched.syncs();
    }
    // A record of these takes a page, and half of a half has so many.
    let turned = COMMITS as usize / (HALF / PAGE / 2 - 1);
    let allowed = COMMITS as usize + 4 * (turned + 1);
    assert!(syncs <= allowed, "{syncs} syncs for {COMMITS} commits, {allowed} at the most");
    let newest = holdings_in(&open.db).unwrap();
    watched.is_broken.store(true, Ordering::SeqCst);
    assert!(matches!(open.commit(&jobs(22 + COMMITS)), Err(StoreError::Io(_))));
    assert_eq!(holdings_in(&open.db).unwrap(), newest, "nobody sees what is not durable");
}

/// The record is durable, and the mirror's own file has no room for the rows: it was not completed, and is not lost.
#[test]
fn dsk_8_a_commit_whose_rows_meet_a_full_disk_is_made_again_when_there_is_room() {
    let watched = Watched { is_wide: true, ..Watched::default() };
    let open = watched.opened();
    let large = |number| {
        let rows = [((Table::ChannelParams, channel_key(&channel(number))), vec![number; 200_000])];
        Job::Full(Box::new(Image { rows: rows.into(), ..image_of(channel(number), 4) }), 4)
    };
    watched.is_full.store(true, Ordering::SeqCst);
    let mut completed = Vec::new();
    let met = loop {
        let next = completed.len() as u8 + 1;
        match open.commit(&[large(next)]) {
            Ok(is_written) => assert!(is_written),
            Err(fault) => break fault,
        }
        completed.push(next);
        assert!(completed.len() < 60, "the file never grows");
    };
    assert!(matches!(met, StoreError::Io(_)), "{met}");
    let refused = completed.len() as u8 + 1;
    drop(open);
    watched.is_full.store(false, Ordering::SeqCst);
    let open = watched.opened();
    drop(watched.taken());
    assert!(open.commit(&[Job::Known(channel(refused), 4)]).unwrap(), "its record was durable");
    assert!(completed.iter().all(|number| open.commit(&[Job::Known(channel(*number), 4)]).unwrap()));
    assert!(watched.taken().is_empty());
    assert!(open.commit(&[large(refused), changed(channel(refused), 5)]).unwrap());
}

#[test]
fn per_1_dsk_6_what_a_kill_leaves_has_all_that_was_completed_and_again_after_a_second_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::at(place(dir.path()));
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    for id in 5..9 {
        bench.update(&update(id, head_of(CHANNEL, id)), &image(id));
        assert_eq!(bench.completed(), id);
        let [left, again] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        bench.mirror.killer()(left.path());
        assert_eq!(restored(&place(left.path())), Ok((Some(id), Vec::new())));
        let mut second = Bench::at(place(left.path()));
        assert_eq!(second.mirror.holdings().unwrap(), [Holding { channel: CHANNEL, id }]);
        second.mirror.killer()(again.path());
        assert_eq!(restored(&place(again.path())), Ok((Some(id), Vec::new())));
        second.update(&update(id + 1, head_of(CHANNEL, id + 1)), &image(id + 1));
        assert_eq!(second.completed(), id + 1);
        second.mirror.killer()(again.path());
        assert_eq!(restored(&place(again.path())), Ok((Some(id + 1), Vec::new())));
    }
}

/// As builds before the journal left it.
#[test]
fn a_mirror_without_a_journal_is_read_as_it_is_and_gets_one_when_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    {
        let db = Database::create(&place.path).unwrap();
        initialise(&db, "regtest", &node(1)).unwrap();
        let row = |table: Table, key: &[u8], value: &[u8]| SealedRow {
            table,
            key: key.to_vec(),
            value: Some(seal(table, key, value)),
        };
        let mut rows = vec![row(Table::Meta, MIRROR_KEY, &[1]), row(Table::Persist, &CHANNEL.0, &4_u64.to_be_bytes())];
        rows.extend(image(4).rows.iter().map(|((table, key), value)| row(*table, key, value)));
        apply(&db, &rows, redb::Durability::Immediate, false).unwrap();
    }
    place.check(&dir.path().join("outrigger.redb")).unwrap();
    assert_eq!(restored(&place), Ok((Some(4), Vec::new())));
    assert!(!journal_of(&place.path).exists(), "looking makes nothing");
    {
        // A table that came later is not there.
        let db = Database::open(&place.path).unwrap();
        let transaction = db.begin_write().unwrap();
        assert!(transaction.delete_table(Table::Followed.definition()).unwrap());
        transaction.commit().unwrap();
    }
    let mut bench = Bench::at(place.clone());
    assert_eq!(bench.mirror.holdings().unwrap(), [Holding { channel: CHANNEL, id: 4 }]);
    bench.update(&update(5, head_of(CHANNEL, 5)), &image(5));
    assert_eq!(bench.completed(), 5);
    let followed = vec![change(Table::Followed, channel_key(&CHANNEL), Some(b"a block"))];
    bench.update(&update(6, followed), &image(6));
    assert_eq!(bench.completed(), 6);
    bench.full(&image(7));
    assert_eq!(bench.completed(), 7);
    let left = tempfile::tempdir().unwrap();
    bench.mirror.killer()(left.path());
    assert_eq!(restored(&super::place(left.path())), Ok((Some(7), Vec::new())));
}

#[test]
fn bak_1_a_mirror_without_the_journal_that_it_names_is_told_and_given_up_in_words() {
    let (left, place) = killed_after(3);
    let (journal, away) = (journal_of(&place.path), left.path().join("away"));
    fs::rename(&journal, &away).unwrap();
    let refused = restored(&place).unwrap_err();
    assert!(refused.contains("one of the two is missing") && refused.contains("mirror.redb.journal.lost"), "{refused}");
    // The start goes on, and the sink waits for it.
    place.check(&left.path().join("outrigger.redb")).unwrap();
    {
        let (told, completed) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(move |_, id| told.send(id).unwrap(), Instant::now);
        let mut mirror = Mirror::new(place.clone(), ends.clone());
        assert!(
            matches!(mirror.holdings(), Err(SinkFault::Passing(words)) if words.contains("one of the two is missing"))
        );
        let mut bench = Bench { mirror, ends, completed };
        bench.full(&image(8));
        assert!(bench.trouble().contains("move away what is there") && bench.completed.is_empty());
        assert!(!journal.exists(), "none is made in its place");
        fs::rename(&away, &journal).unwrap();
        assert_eq!(bench.completed(), 8);
    }
    // It is lost for good: what the mirror has alone is read, and each channel says so.
    let (left, place) = killed_after(3);
    fs::remove_file(journal_of(&place.path)).unwrap();
    fs::write(left.path().join("mirror.redb.journal.lost"), []).unwrap();
    let (_, faults) = restored(&place).unwrap();
    assert!(faults[0].contains("mirror.redb.journal is lost, with the newest commits of"), "{faults:?}");
    // Who writes does not take it for whole.
    assert!(matches!(place.opened(), Err(StoreError::Apart { .. })));
}

#[test]
fn bak_1_files_of_two_times_or_two_mirrors_are_told_and_not_put_together() {
    let (_old, old) = killed_after(1);
    let (other_dir, other) = killed_after(1);
    let [goes_on, left] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (runs, new) = (place(goes_on.path()), place(left.path()));
    fs::copy(&old.path, &runs.path).unwrap();
    fs::copy(journal_of(&old.path), journal_of(&runs.path)).unwrap();
    let mut bench = Bench::at(runs);
    bench.update(&update(6, head_of(CHANNEL, 6)), &image(6));
    assert_eq!(bench.completed(), 6);
    bench.mirror.killer()(left.path());
    drop(bench);
    let mixed = tempfile::tempdir().unwrap();
    let mix = |mirror: &MirrorPlace, journal: &MirrorPlace| {
        let place = place(mixed.path());
        fs::copy(&mirror.path, &place.path).unwrap();
        fs::copy(journal_of(&journal.path), journal_of(&place.path)).unwrap();
        let refused = restored(&place).unwrap_err();
        assert!(refused.contains("not of one time"), "{refused}");
        assert!(matches!(place.opened(), Err(StoreError::Apart { .. })));
        place.check(&mixed.path().join("outrigger.redb")).unwrap();
    };
    mix(&old, &new);
    mix(&new, &old);
    mix(&new, &other);
    // One that names none beside a journal that was used.
    let fresh = MirrorPlace { path: other_dir.path().join("fresh.redb"), ..other.clone() };
    fresh.make().unwrap();
    mix_fresh(&fresh, &other);
    assert_eq!(restored(&old), Ok((Some(5), Vec::new())), "an old pair is an old copy");
    assert_eq!(restored(&new), Ok((Some(6), Vec::new())));
}

fn mix_fresh(fresh: &MirrorPlace, other: &MirrorPlace) {
    fs::copy(journal_of(&other.path), journal_of(&fresh.path)).unwrap();
    assert!(restored(fresh).unwrap_err().contains("not of one time"));
    assert!(matches!(fresh.opened(), Err(StoreError::Apart { .. })));
    // Nor is another mirror made beside it.
    fs::remove_file(&fresh.path).unwrap();
    let fault = fresh.make().unwrap_err().to_string();
    assert!(fault.contains("the mirror that this journal belongs to is not there"), "{fault}");
    assert!(!fresh.path.exists());
}

#[test]
fn bad_input_91_dsk_9_a_journal_that_is_damaged_or_cut_is_told_or_costs_the_last_write_alone() {
    let (_left, place) = killed_after(5);
    let journal = journal_of(&place.path);
    let whole = fs::read(&journal).unwrap();
    let used: Vec<_> = (0..whole.len()).step_by(PAGE).filter(|at| whole[*at..at + 8] != [0; 8]).collect();
    assert!(used.len() > 6);
    let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
    let (mut refused, mut torn) = (0, 0);
    for at in used {
        for byte in [0, 40, 60, 80, 100] {
            file.write_all_at(&[whole[at + byte] ^ 1], (at + byte) as u64).unwrap();
            match restored(&place) {
                // A record of an epoch that is over, or the padding, says nothing.
                Ok((Some(9), faults)) => assert_eq!(faults, Vec::<String>::new()),
                // The last one looks torn, and where not even its first bytes stand as if it was never written.
                Ok((reached, faults)) => {
                    assert_eq!((reached, faults.len()), (Some(8), usize::from(byte > 0)), "{faults:?}");
                    assert!(faults.iter().all(|words| words.contains("its last record is not whole")), "{faults:?}");
                    torn += 1;
                }
                Err(words) => {
                    assert!(words.contains("mirror.redb.journal: ") && words.contains("keep it as it is"), "{words}");
                    refused += 1;
                }
            }
            file.write_all_at(&whole[at + byte..=at + byte], (at + byte) as u64).unwrap();
        }
    }
    assert!(refused > 10 && torn > 1, "{refused}, {torn}");
    for len in (0..whole.len()).step_by(whole.len() / 40 / PAGE * PAGE).rev() {
        file.set_len(len as u64).unwrap();
        let words = restored(&place).unwrap_err();
        assert!(words.contains("it ends before its end"), "cut at {len}: {words}");
        let words = place.check(Path::new("/nowhere")).unwrap_err();
        assert!(words.contains("move the mirror and its journal away"), "{words}");
    }
    fs::write(&journal, &whole).unwrap();
    assert_eq!(restored(&place), Ok((Some(9), Vec::new())));
}

/// What is appended to a file that has lost its name is found by nobody.
#[test]
fn per_2_a_journal_that_is_taken_away_replaced_or_cut_while_it_is_open_completes_nothing() {
    let (left, place) = killed_after(1);
    let journal = journal_of(&place.path);
    let mut bench = Bench::at(place.clone());
    let bench_handle = bench.mirror.handle.clone();
    let mut id = 5;
    let mut next = |bench: &mut Bench| {
        id += 1;
        bench.update(&update(id, head_of(CHANNEL, id)), &image(id));
        id
    };
    let until_told = |bench: &Bench| {
        bench.told(&["not of one time", "it ends before its end"]);
        assert!(bench.completed.is_empty());
    };
    let first = next(&mut bench);
    assert_eq!(bench.completed(), first);
    let away = left.path().join("away");
    fs::rename(&journal, &away).unwrap();
    let taken = next(&mut bench);
    until_told(&bench);
    assert!(!journal.exists());
    fs::rename(&away, &journal).unwrap();
    assert_eq!(bench.completed(), taken);
    // A copy with the same content is as good. Nothing is written meanwhile.
    let replaced_by = |other: Option<&Path>| {
        let open = bench_handle.now().unwrap();
        let _at_rest = open.at_rest();
        fs::copy(&journal, &away).unwrap();
        fs::rename(other.unwrap_or(&away), &journal).unwrap();
    };
    replaced_by(None);
    let replaced = next(&mut bench);
    assert_eq!(bench.completed(), replaced);
    let (_other, foreign) = killed_after(1);
    let foreign_copy = left.path().join("foreign");
    fs::copy(journal_of(&foreign.path), &foreign_copy).unwrap();
    replaced_by(Some(&foreign_copy));
    let waits = next(&mut bench);
    until_told(&bench);
    fs::rename(&away, &journal).unwrap();
    assert_eq!(bench.completed(), waits);
    let whole = {
        let open = bench_handle.now().unwrap();
        let _at_rest = open.at_rest();
        let whole = fs::read(&journal).unwrap();
        fs::OpenOptions::new().write(true).open(&journal).unwrap().set_len(PAGE as u64 * 3).unwrap();
        whole
    };
    let cut = next(&mut bench);
    until_told(&bench);
    // It may be put right while the node runs.
    fs::write(&journal, whole).unwrap();
    assert_eq!(bench.completed(), cut);
}

#[test]
fn dsk_11_after_a_stop_in_order_the_mirrors_own_file_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    bench.update(&update(5, head_of(CHANNEL, 5)), &image(5));
    assert_eq!([bench.completed(), bench.completed()], [4, 5]);
    drop(bench);
    fs::remove_file(journal_of(&place.path)).unwrap();
    assert_eq!(restored(&place), Ok((Some(5), Vec::new())));
    let mut bench = Bench::at(place.clone());
    bench.update(&update(6, head_of(CHANNEL, 6)), &image(6));
    assert_eq!(bench.completed(), 6);
    let left = tempfile::tempdir().unwrap();
    bench.mirror.killer()(left.path());
    assert_eq!(restored(&super::place(left.path())), Ok((Some(6), Vec::new())));
}

#[test]
fn at_rest_the_mirrors_own_file_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::at(place(dir.path()));
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    let begun = Instant::now();
    while bench.mirror.handle.now().unwrap().at_rest().has_records() {
        assert!(begun.elapsed() < LIMIT, "it never catches up");
        std::thread::yield_now();
    }
    let left = tempfile::tempdir().unwrap();
    bench.mirror.killer()(left.path());
    let place = place(left.path());
    fs::remove_file(journal_of(&place.path)).unwrap();
    fs::write(left.path().join("mirror.redb.journal.lost"), []).unwrap();
    assert_eq!(restored(&place).unwrap().0, Some(4));
}

#[test]
fn what_is_too_big_for_the_journal_goes_past_it_and_one_that_fills_up_is_turned_over() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let mut bench = Bench::at(place.clone());
    let large = |id: u64, len: usize| {
        let mut large = image(id);
        large.rows.insert((Table::ChannelParams, channel_key(&CHANNEL)), vec![id as u8; len]);
        large
    };
    for (id, len) in [(4, 9 << 20), (5, 5 << 20), (6, 3 << 20), (7, 5 << 20), (8, 100), (9, 9 << 20), (10, 100)] {
        bench.full(&large(id, len));
        assert_eq!(bench.completed(), id);
        let left = tempfile::tempdir().unwrap();
        bench.mirror.killer()(left.path());
        assert!(read_back(&super::place(left.path())) == large(id, len), "at {id}");
    }
}

/// What is durable is to be on the mirror's disk.
#[test]
fn the_journal_of_a_mirror_that_is_named_by_a_link_stands_beside_the_file_itself() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let real = MirrorPlace { path: disk.join("real.redb"), ..place(dir.path()) };
    real.make().unwrap();
    let place = place(dir.path());
    std::os::unix::fs::symlink(&real.path, &place.path).unwrap();
    let mut bench = Bench::at(place.clone());
    bench.full(&image(4));
    assert_eq!(bench.completed(), 4);
    assert!(journal_of(&real.path).exists() && !journal_of(&place.path).exists());
}

#[test]
fn bad_input_91_a_mirror_whose_journal_would_be_the_nodes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join(crate::store::FILE);
    for name in ["outrigger", "outrigger.redb", "outrigger.journal"] {
        let words = MirrorPlace { path: dir.path().join(name), ..place(dir.path()) }.check(&database).unwrap_err();
        assert!(words.contains("takes the name of its journal"), "{name}: {words}");
    }
    MirrorPlace { path: dir.path().join("mirror"), ..place(dir.path()) }.check(&database).unwrap();
}

/// KEY-1: nothing in a mirror is encrypted, and its directory is the operator's.
#[test]
fn key_1_a_mirror_that_others_may_read_becomes_private_when_it_is_opened_to_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    drop(place.opened().unwrap());
    let files = [place.path.clone(), place.shelf().path()];
    for file in &files {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    // Who only looks changes nothing.
    drop(place.looked_at().unwrap());
    let modes = || files.each_ref().map(|file| fs::metadata(file).unwrap().permissions().mode() & 0o7777);
    assert_eq!(modes(), [0o644; 2]);
    drop(place.opened().unwrap());
    assert_eq!(modes(), [0o600; 2]);
}
