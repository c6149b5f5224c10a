//! The journal beside the database, through the doors of a start and of the writer: what a crash leaves is whole, what is
//! damaged or does not belong together is told, and nothing that was released is lost without a word.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says by panicking what is wrong")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use outrigger_sidecar::store::generation::FILE as COMPANION;
use outrigger_sidecar::store::journal::image::{Image, NoImage, Verdict};
use outrigger_sidecar::store::journal::{FILE as JOURNAL, HALF_LEN, JournalRow};
use outrigger_sidecar::store::row::EventRow;
use outrigger_sidecar::store::schema::{JOURNAL_KEY, Table};
use outrigger_sidecar::store::seal::unseal;
use outrigger_sidecar::store::{
    self, Age, Batch, Commits, FILE as DATABASE, Generation, Held, Released, Shelf, Snapshot, StoreError, Writer,
};
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};
use tokio::sync::oneshot;

const LIMIT: Duration = Duration::from_secs(20);
const PAGE: usize = 4096;

/// Bytes of a half where the journal is a small one.
const SMALL: usize = 256 * 1024;

/// Bytes of a half where nothing fills it.
const WIDE: usize = 4 << 20;

/// Bytes of a record's header.
const HEADER: usize = 76;

fn node() -> NodeId {
    let secret = SecretKey::from_slice(&[1; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

/// A store that runs.
struct Running {
    db: Arc<Database>,
    snapshot: Snapshot,
    writer: Writer,
    commits: Commits,
}

/// A start in a directory, as the daemon makes it.
fn start(dir: &Path) -> Result<Running, StoreError> {
    let (db, mut snapshot) = store::open_and_load(dir, "regtest", &node())?;
    let age = Generation::at_start(dir, ("regtest", &node()), &db, snapshot.restored.is_some())?;
    let generation = snapshot.aged(age);
    let (writer, commits) = Writer::new(db.clone())?;
    let commits = commits.raising(generation).journaled(snapshot.journal.take());
    Ok(Running { db, snapshot, writer, commits })
}

fn started(dir: &Path) -> Running {
    start(dir).unwrap_or_else(|fault| panic!("{fault}"))
}

fn batch(number: u8, value: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Wallet, u64::from(number).to_be_bytes().to_vec(), Some(value.to_vec()));
    batch.event(EventRow::new(7, "invoice_paid", serde_json::json!({ "number": number })));
    batch
}

impl Running {
    fn commit(&mut self, batch: Batch) {
        self.writer.submit(batch);
        drop(self.commits.next(1).unwrap().unwrap());
    }

    /// Commits one row, and an event, in a commit of its own.
    fn put(&mut self, number: u8) {
        self.commit(batch(number, &[number; 40]));
    }

    fn checkpoints(&self) -> u64 {
        self.writer.stats().checkpoints.load(Ordering::Relaxed)
    }

    /// The numbers of rows that readers find, and of events.
    fn found(&self) -> (Vec<u8>, usize) {
        let read = self.db.begin_read().unwrap();
        let table = read.open_table(Table::Wallet.definition()).unwrap();
        let rows = table.iter().unwrap().map(|entry| {
            let (key, value) = entry.unwrap();
            unseal(Table::Wallet, key.value(), value.value()).unwrap();
            key.value()[7]
        });
        let events = read.open_table(Table::Event.definition()).unwrap();
        (rows.collect(), events.iter().unwrap().count())
    }

    fn row(&self) -> JournalRow {
        let read = self.db.begin_read().unwrap();
        let meta = read.open_table(Table::Meta.definition()).unwrap();
        let row = meta.get(JOURNAL_KEY).unwrap().unwrap();
        JournalRow::decode(unseal(Table::Meta, JOURNAL_KEY, row.value()).unwrap()).unwrap()
    }

    /// The process ends well.
    fn stop(mut self) {
        let mut last = Batch::default();
        last.conclude();
        self.commit(last);
    }
}

const FILES: [&str; 3] = [DATABASE, JOURNAL, COMPANION];

/// What a killed process leaves: the files as they are at this moment.
fn killed(dir: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    FILES.iter().for_each(|name| copy(dir, left.path(), name));
    left
}

fn copy(from: &Path, to: &Path, name: &str) {
    fs::copy(from.join(name), to.join(name)).unwrap();
}

fn content(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// A start that is refused, and changes nothing.
fn refused(dir: &Path) -> StoreError {
    let before = content(dir);
    let Err(fault) = start(dir) else { panic!("it started") };
    assert!(before == content(dir), "a file was changed: {fault}");
    fault
}

/// Where the epoch of a store begins in its journal.
fn begin(row: &JournalRow, half_len: usize) -> usize {
    PAGE + if row.epoch.number.is_multiple_of(2) { 0 } else { half_len }
}

/// A small journal with four commits in its epoch.
fn small() -> (JournalRow, Vec<u8>) {
    let watched = Watched::default();
    let mut running = watched.start();
    (0..4).for_each(|number| running.put(number));
    let file = watched.journal.lock().unwrap().clone().unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read(0, &mut bytes).unwrap();
    (running.row(), bytes)
}

fn judge(bytes: &[u8], row: &JournalRow) -> Result<Verdict, NoImage> {
    Image::of(bytes.to_vec()).map(|image| image.judge(row))
}

/// How many rows a journal is found to have.
fn rows(verdict: &Result<Verdict, NoImage>) -> usize {
    match verdict {
        Ok(Verdict::Kept { rows, .. }) => rows.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn per_1_dsk_6_what_a_kill_leaves_has_every_commit_and_again_after_a_second_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    for number in 0..8 {
        running.put(number);
        let left = killed(dir.path());
        let again = started(left.path());
        assert_eq!(again.found(), ((0..=number).collect(), usize::from(number) + 1));
        // Killed as soon as it has started, before another commit.
        let left = killed(left.path());
        let mut again = started(left.path());
        again.put(200);
        let left = killed(left.path());
        assert_eq!(started(left.path()).found().1, usize::from(number) + 2, "events keep their numbers");
    }
    assert_eq!(running.checkpoints(), 0, "all of it stood in the journal alone");
}

#[test]
fn a_journal_that_fills_up_is_turned_over_and_a_commit_too_big_for_it_goes_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    let number = || fs::read_to_string(dir.path().join(COMPANION)).unwrap();
    for number in 0..40 {
        running.commit(batch(number, &vec![number; 1 << 20]));
    }
    assert!(running.checkpoints() >= 5, "{}", running.checkpoints());
    let (row, before) = (running.row(), number());
    assert_eq!(started(killed(dir.path()).path()).found().1, 40);
    running.commit(batch(40, &vec![1; HALF_LEN]));
    assert_eq!(running.row().epoch.number, row.epoch.number + 1);
    assert_ne!(number(), before, "what is lost with it is known to be");
    running.put(41);
    assert_eq!(started(killed(dir.path()).path()).found(), ((0..=41).collect(), 42));
}

/// What was committed is in the database for good when nothing has come for a while, without a commit of its own.
#[test]
fn at_rest_the_database_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let Running { db, snapshot: _, writer, commits } = started(dir.path());
    let deliver = |released: Released, _| {
        for held in released.open() {
            let Held::Durable(waiter) = held else { panic!("{held:?}") };
            waiter.send(()).unwrap();
        }
    };
    let thread = commits.on_a_thread(deliver, |fault| panic!("{fault}")).unwrap();
    let (waiter, durable) = oneshot::channel();
    let mut awaited = batch(1, &[1]);
    awaited.hold(Held::Durable(waiter));
    writer.submit(awaited);
    durable.blocking_recv().unwrap();
    let begun = Instant::now();
    while writer.stats().checkpoints.load(Ordering::Relaxed) == 0 {
        assert!(begun.elapsed() < LIMIT, "the database never catches up");
        std::thread::yield_now();
    }
    assert_eq!(writer.stats().commits.load(Ordering::Relaxed), 1);
    drop((writer, db));
    thread.join().unwrap();
}

#[test]
fn bad_input_91_a_journal_cut_at_any_byte_of_its_last_two_records_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    (0..4).for_each(|number| running.put(number));
    let (row, whole) = small();
    // Each commit: a payment's row, its event, and what all events hold.
    assert_eq!(rows(&judge(&whole, &row)), 12);
    let last_two = |half_len| begin(&row, half_len) + 3 * PAGE..begin(&row, half_len) + 5 * PAGE;
    for len in last_two(SMALL) {
        assert_eq!(judge(&whole[..len], &row), Err(NoImage::Damaged("it ends before its end")), "cut at {len}");
    }
    let (left, last_two) = (killed(dir.path()), last_two(HALF_LEN));
    for len in [last_two.start, last_two.start + 100, last_two.end - PAGE, last_two.end - 1, 100, 1, 0] {
        fs::OpenOptions::new().write(true).open(left.path().join(JOURNAL)).unwrap().set_len(len as u64).unwrap();
        let fault = refused(left.path());
        assert!(matches!(&fault, StoreError::Corrupt { path, .. } if path.ends_with(JOURNAL)), "{fault}");
        copy(dir.path(), left.path(), JOURNAL);
    }
    assert_eq!(started(left.path()).found().1, 4);
}

/// The last record, of which a crash left a part: its batch was never released.
#[test]
fn per_1_a_torn_last_record_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    (0..4).for_each(|number| running.put(number));
    let (row, whole) = small();
    let last = begin(&row, SMALL) + 4 * PAGE;
    let body = (last..last + PAGE).rfind(|at| whole[*at] != 0).unwrap() + 1;
    for from in last..body {
        let mut torn = whole.clone();
        torn[from..body].fill(0);
        assert_eq!(rows(&judge(&torn, &row)), 9, "torn at {from}");
    }
    let left = killed(dir.path());
    let mut torn = fs::read(dir.path().join(JOURNAL)).unwrap();
    let last = begin(&running.row(), HALF_LEN) + 4 * PAGE;
    torn[last + HEADER + 20..last + PAGE].fill(0);
    fs::write(left.path().join(JOURNAL), torn).unwrap();
    let mut again = started(left.path());
    assert_eq!(again.found(), ((0..3).collect(), 3));
    // It goes on over what was torn.
    again.put(9);
    assert_eq!(started(killed(left.path()).path()).found().0, [0, 1, 2, 9]);
}

#[test]
fn bad_input_91_dsk_9_any_byte_of_a_record_in_the_midst_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    (0..4).for_each(|number| running.put(number));
    let (row, whole) = small();
    for record in 0..4 {
        let at = begin(&row, SMALL) + record * PAGE;
        let body = (at..at + PAGE).rfind(|at| whole[*at] != 0).unwrap() + 1;
        for byte in at..body {
            let mut bent = whole.clone();
            bent[byte] ^= 1 << (byte % 8);
            assert!(matches!(judge(&bent, &row), Ok(Verdict::Damaged(_))), "record {record}, byte {}", byte - at);
        }
    }
    let left = killed(dir.path());
    let mut bent = fs::read(dir.path().join(JOURNAL)).unwrap();
    bent[begin(&running.row(), HALF_LEN) + 2 * PAGE + HEADER + 3] ^= 1;
    fs::write(left.path().join(JOURNAL), bent).unwrap();
    let fault = refused(left.path());
    assert!(matches!(&fault, StoreError::Corrupt { .. }) && fault.to_string().contains("record 2"), "{fault}");
    assert!(fault.to_string().contains("do not delete it"), "{fault}");
}

#[test]
fn bad_input_92_93_a_newer_a_foreign_or_another_journal_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    running.put(1);
    let left = killed(dir.path());
    let place = left.path().join(JOURNAL);
    let mut newer = fs::read(&place).unwrap();
    newer[9] = 2;
    fs::write(&place, newer).unwrap();
    let fault = refused(left.path());
    assert!(matches!(&fault, StoreError::Newer { path, found: 2, known: 1 } if path.ends_with(JOURNAL)), "{fault}");

    let other = tempfile::tempdir().unwrap();
    started(other.path()).put(1);
    copy(other.path(), left.path(), JOURNAL);
    let fault = refused(left.path());
    assert!(matches!(&fault, StoreError::Foreign { found, .. } if found == "another database"), "{fault}");

    for bytes in [Vec::new(), vec![0; PAGE], b"-- a text --".repeat(4000), vec![0; 2 * HALF_LEN + PAGE]] {
        fs::write(&place, bytes).unwrap();
        let fault = refused(left.path());
        assert!(matches!(&fault, StoreError::Corrupt { path, .. } if path.ends_with(JOURNAL)), "{fault}");
    }
}

#[test]
fn dsk_11_a_journal_that_is_missing_is_asked_for_unless_the_process_had_ended_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    running.put(1);
    let left = killed(dir.path());
    fs::remove_file(left.path().join(JOURNAL)).unwrap();
    let fault = refused(left.path());
    assert!(matches!(fault, StoreError::NoJournal { .. }) && fault.to_string().contains("put it back"), "{fault}");
    // Its operator gives it up.
    fs::write(left.path().join(format!("{JOURNAL}.lost")), []).unwrap();
    for _ in 0..2 {
        let mut again = started(left.path());
        assert!(again.snapshot.restored.as_deref().is_some_and(|proof| proof.contains("is lost")));
        assert!(!left.path().join(JOURNAL).exists(), "none is made");
        if again.snapshot.is_found_old {
            let mut known = Batch::default();
            known.put(Table::Meta, b"restored".to_vec(), again.snapshot.restored.clone().map(String::into_bytes));
            again.commit(known);
        }
        again.put(9);
    }
    // It is found after all: what has been written since does not go back.
    copy(dir.path(), left.path(), JOURNAL);
    assert_eq!(started(left.path()).found().0, [9]);

    running.stop();
    // To look at it changes nothing.
    drop(started(dir.path()));
    let left = killed(dir.path());
    fs::remove_file(left.path().join(JOURNAL)).unwrap();
    let mut again = started(left.path());
    assert_eq!((again.snapshot.restored.clone(), again.found()), (None, (vec![1], 1)));
    again.put(2);
    assert_eq!(started(killed(left.path()).path()).found(), (vec![1, 2], 2));
}

/// A database that is proved to be old while it runs: the journal stays as it is, for the newest.
#[test]
fn bak_1_from_the_proof_on_the_journal_of_an_old_database_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    running.put(1);
    let before = fs::read(dir.path().join(JOURNAL)).unwrap();
    let mut known = Batch::default();
    known.put(Table::Meta, b"restored".to_vec(), Some(b"a peer is ahead".to_vec()));
    running.commit(known);
    running.put(2);
    assert!(!running.commits.is_ahead());
    running.commits.checkpoint().unwrap();
    let left = killed(dir.path());
    for number in 3..5 {
        let mut again = started(left.path());
        assert_eq!(again.snapshot.restored.as_deref(), Some("a peer is ahead"));
        again.put(number);
    }
    assert_eq!(started(left.path()).found().0, [1, 2, 3, 4]);
    assert!(fs::read(left.path().join(JOURNAL)).unwrap() == before, "the journal was written");
}

#[test]
fn bad_input_91_a_journal_that_is_a_dead_link_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    running.put(1);
    running.stop();
    fs::remove_file(dir.path().join(JOURNAL)).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join(JOURNAL)).unwrap();
    let Err(fault) = start(dir.path()) else { panic!("it started") };
    assert!(fault.to_string().contains("a link to a file that is missing"), "{fault}");
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn bak_1_dsk_11_a_database_that_is_missing_beside_its_journal_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    started(dir.path()).stop();
    fs::remove_file(dir.path().join(DATABASE)).unwrap();
    assert!(matches!(refused(dir.path()), StoreError::Missing { .. }));
    fs::remove_file(dir.path().join(COMPANION)).unwrap();
    assert!(matches!(refused(dir.path()), StoreError::OnlyJournal { .. }));
    fs::remove_file(dir.path().join(JOURNAL)).unwrap();
    drop(started(dir.path()));
}

/// A database that has lost the row of its journal is damaged: none is made in the place of one that was used.
#[test]
fn bad_input_91_a_database_that_does_not_name_its_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    running.put(1);
    let mut gone = Batch::default();
    gone.put(Table::Meta, JOURNAL_KEY.to_vec(), None);
    running.commits = running.commits.journaled(None);
    running.commit(gone);
    let fault = refused(killed(dir.path()).path());
    assert!(matches!(&fault, StoreError::Corrupt { .. }) && fault.to_string().contains("does not name"), "{fault}");
    // As after a crash on the very first start.
    let dir = tempfile::tempdir().unwrap();
    drop(store::open(dir.path(), "regtest", &node()).unwrap());
    let other = tempfile::tempdir().unwrap();
    drop(store::open_and_load(other.path(), "regtest", &node()).unwrap());
    copy(other.path(), dir.path(), JOURNAL);
    started(dir.path()).put(1);
}

/// Neither is behind unnoticed, whichever of the two was put back; those of one time go together.
#[test]
fn bak_1_bak_7_an_old_journal_is_refused_and_an_old_database_is_in_restored_mode() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = started(dir.path());
    running.put(1);
    let before = killed(dir.path());
    running.put(2);
    // The journal has seen both: the older database gets what it lacks.
    let mixed = killed(dir.path());
    copy(before.path(), mixed.path(), DATABASE);
    assert_eq!(started(mixed.path()).found(), (vec![1, 2], 2));

    running.commits.checkpoint().unwrap();
    running.put(3);
    let newest = killed(dir.path());
    let mixed = killed(dir.path());
    copy(before.path(), mixed.path(), JOURNAL);
    let fault = refused(mixed.path());
    assert!(matches!(fault, StoreError::Apart { .. }), "{fault}");

    let mixed = killed(dir.path());
    copy(before.path(), mixed.path(), DATABASE);
    for _ in 0..2 {
        let mut old = started(mixed.path());
        let proof = old.snapshot.restored.clone().unwrap();
        assert!(proof.contains("an old copy was put back"), "{proof}");
        if old.snapshot.is_found_old {
            let mut known = Batch::default();
            known.put(Table::Meta, b"restored".to_vec(), Some(proof.into_bytes()));
            old.commit(known);
        }
        old.put(7);
    }
    // Who has the newest database puts it back: the journal is as it was.
    copy(newest.path(), mixed.path(), DATABASE);
    let again = started(mixed.path());
    assert_eq!((again.snapshot.restored.clone(), again.found()), (None, (vec![1, 2, 3], 3)));
}

/// Two copies of one directory that both went on: the database of one does not take the journal of the other.
#[test]
fn bak_7_the_journal_of_another_copy_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    started(dir.path()).put(1);
    let (one, other) = (killed(dir.path()), killed(dir.path()));
    started(one.path()).put(2);
    started(other.path()).put(3);
    let (one, other) = (killed(one.path()), killed(other.path()));
    copy(other.path(), one.path(), JOURNAL);
    let fault = refused(one.path());
    assert!(matches!(fault, StoreError::Apart { .. }), "{fault}");
}

/// Two files in memory, and all that was asked of them.
#[derive(Clone, Debug, Default)]
struct Watched {
    log: Arc<Mutex<Vec<&'static str>>>,
    journal: Arc<Mutex<Option<Arc<InMemoryBackend>>>>,
    written: Arc<AtomicU64>,
    is_wide: bool,
    /// Syncs of the journal that are yet to come before one fails; none does at 0.
    fails_in: Arc<AtomicU64>,
}

#[derive(Debug)]
struct WatchedFile {
    watched: Watched,
    file: Arc<InMemoryBackend>,
    names: [&'static str; 2],
}

impl StorageBackend for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watched.log.lock().unwrap().push(self.names[1]);
        if self.names[1] == "sync journal" && self.watched.fails_in.load(Ordering::SeqCst) > 0 {
            self.watched.fails_in.fetch_sub(1, Ordering::SeqCst);
            if self.watched.fails_in.load(Ordering::SeqCst) == 0 {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watched.log.lock().unwrap().push(self.names[0]);
        self.watched.written.fetch_add(data.len() as u64, Ordering::SeqCst);
        self.file.write(offset, data)
    }
}

impl Watched {
    fn start(&self) -> Running {
        let file = Arc::new(InMemoryBackend::new());
        let names = ["write database", "sync database"];
        let database = Box::new(WatchedFile { watched: self.clone(), file, names });
        let (db, journal) = store::open_on(database, self, "regtest", &node()).unwrap();
        let (writer, commits) = Writer::new(db.clone()).unwrap();
        Running { db, snapshot: Snapshot::default(), writer, commits: commits.journaled(journal) }
    }

    fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl Shelf for Watched {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        Ok(None)
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)> {
        let file = Arc::new(InMemoryBackend::new());
        *self.journal.lock().unwrap() = Some(file.clone());
        let names = ["write journal", "sync journal"];
        let file: Box<dyn StorageBackend> = Box::new(WatchedFile { watched: self.clone(), file, names });
        let half_len = if self.is_wide { WIDE } else { SMALL };
        lay(&*file, half_len)?;
        Ok((file, half_len))
    }

    fn path(&self) -> PathBuf {
        JOURNAL.into()
    }

    fn is_given_up(&self) -> bool {
        false
    }
}

/// Law 1: between the rows of a batch and what it releases stands a sync, one; and the database's own come at a checkpoint.
#[test]
fn dsk_2_dsk_6_a_commit_is_one_write_and_one_sync_of_the_journal_before_its_release() {
    let watched = Watched::default();
    let mut running = watched.start();
    drop(watched.taken());
    for number in 0..50 {
        running.writer.submit(batch(number, &[7; 300]));
        let (released, last) = running.commits.next(1).unwrap().unwrap();
        // The release is in hand, and this is all that was asked of the disk.
        assert_eq!(watched.taken(), ["write journal", "sync journal"]);
        assert_eq!((released.is_empty(), last), (true, u64::from(number) + 1));
    }
    running.commits.checkpoint().unwrap();
    let asked = watched.taken();
    assert_eq!(asked[..2], ["write journal", "sync journal"], "the next epoch is begun first");
    let syncs = asked.iter().filter(|asked| **asked == "sync database").count();
    assert_eq!(syncs, 2, "the database's commit has two phases: {asked:?}");
    assert_eq!(asked.last(), Some(&"sync database"));
}

/// What a hundred commits of a node that relays ask of the disk, checkpoint included, with a journal and without.
#[test]
fn a_journal_halves_the_syncs_and_what_is_written() {
    let [with, without] = [true, false].map(|has_journal| {
        let watched = Watched { is_wide: true, ..Watched::default() };
        let mut running = watched.start();
        if !has_journal {
            running.commits = running.commits.journaled(None);
        }
        // Channels with rows of history, a few of which each commit touches.
        let mut before = Batch::default();
        for number in 0..5000_u64 {
            before.put(Table::Evidence, number.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec(), Some(vec![1; 90]));
        }
        running.commit(before);
        if has_journal {
            running.commits.checkpoint().unwrap();
        }
        drop(watched.taken());
        watched.written.store(0, Ordering::SeqCst);
        for commit in 0..100_u64 {
            let mut batch = batch(1, &[7; 100]);
            for channel in 0..8_u64 {
                let key = channel.wrapping_mul(0x1234_5678_9abc_def1).to_be_bytes().to_vec();
                for table in [Table::ChannelHead, Table::MonitorHead, Table::HtlcSignatures] {
                    batch.put(table, key.clone(), Some(vec![commit as u8; 300]));
                }
                let key = (channel * 1000 + commit).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
                batch.put(Table::Evidence, key.clone(), Some(vec![2; 90]));
                batch.put(Table::Htlc, key, Some(vec![2; 120]));
            }
            running.commit(batch);
        }
        if has_journal {
            running.commits.checkpoint().unwrap();
        }
        let syncs = watched.taken().iter().filter(|asked| asked.starts_with("sync")).count();
        (syncs, watched.written.load(Ordering::SeqCst))
    });
    println!("syncs and bytes of a hundred commits: {with:?} with a journal, {without:?} without");
    // Where the database grows it syncs once more.
    assert!(with.0 <= 106 && without.0 >= 200);
    assert!(with.1 * 2 < without.1);
}

#[test]
fn bad_input_96_per_5_dsk_1_a_failed_sync_of_the_journal_releases_nothing_and_shows_no_row() {
    let watched = Watched::default();
    let mut running = watched.start();
    running.put(1);
    watched.fails_in.store(1, Ordering::SeqCst);
    let (waiter, mut durable) = oneshot::channel();
    let mut awaited = batch(2, &[2]);
    awaited.hold(Held::Durable(waiter));
    running.writer.submit(awaited);
    let fault = running.commits.next(1).unwrap().unwrap_err();
    assert!(matches!(&fault, StoreError::Io(_)) && fault.to_string().contains("nothing was sent"), "{fault}");
    assert_eq!(durable.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    assert_eq!(running.found(), (vec![1], 1), "no reader sees what is not durable");
}

#[test]
fn an_old_age_that_was_found_by_the_journal_is_found_once() {
    let mut snapshot = Snapshot::default();
    assert!(snapshot.aged(Some(Age::Old("the journal".to_owned()))).is_none());
    assert!(snapshot.aged(Some(Age::Old("the generation".to_owned()))).is_none());
    assert_eq!((snapshot.restored.as_deref(), snapshot.is_found_old), (Some("the journal"), true));
}
