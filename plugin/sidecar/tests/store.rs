//! The store through its own doors: what a commit releases, what a start refuses, and that refusing changes nothing.
#![expect(clippy::unwrap_used, reason = "a test says by panicking what is wrong")]

#[expect(dead_code, unreachable_pub, reason = "the simulation uses all of it")]
#[path = "simulation/disk.rs"]
mod disk;

use std::fs;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use disk::{Damage, Disk, Failing};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentPreimage};
use outrigger_sidecar::clock::Clock;
use outrigger_sidecar::store::row::{EventRow, PaymentRow, PaymentState};
use outrigger_sidecar::store::schema::Table;
use outrigger_sidecar::store::seal::seal;
use outrigger_sidecar::store::{self, Batch, Commits, EventLimits, Held, Reader, StoreError, Writer, writer};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{Database, ReadableDatabase, StorageBackend};
use tokio::sync::oneshot;

const LIMIT: Duration = Duration::from_secs(20);

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join(store::FILE)
}

fn fresh(dir: &Path) -> Arc<Database> {
    store::open(dir, "regtest", &node(1)).unwrap()
}

fn payment(byte: u8, state: PaymentState) -> PaymentRow {
    PaymentRow {
        payment_id: [byte; 32],
        payment_hash: PaymentHash([byte; 32]),
        destination: node(2),
        amount: Msat::new(1_000),
        created_at: 7,
        next_part: 0,
        again: None,
        charge: None,
        lost: Msat::ZERO,
        state,
    }
}

fn staged(row: &PaymentRow) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
    batch
}

/// Law 1: what is held comes out only once its rows can be read back.
#[test]
fn what_a_batch_holds_is_released_after_its_rows_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let (released, seen) = mpsc::channel();
    let reader = Reader::new(db.clone());
    let deliver = move |effects: store::Released, seq| {
        for held in effects.open() {
            let Held::Durable(_) = held else { panic!("unexpected {held:?}") };
            released.send((reader.payment(&[9; 32]).unwrap(), seq)).unwrap();
        }
    };
    let (writer, _) = Writer::start(db, deliver, |fault| panic!("{fault}")).unwrap();
    let row = payment(9, PaymentState::Pending);
    let mut batch = staged(&row);
    batch.event(EventRow::new(1, "invoice_paid", serde_json::json!({})));
    batch.hold(Held::Durable(oneshot::channel().0));
    writer.submit(batch);
    assert_eq!(seen.recv_timeout(LIMIT).unwrap(), (Some(row), 1));
}

/// Nothing of a batch that rests on what could not be read is written or released, nor of any after it.
#[test]
fn what_rests_on_a_failed_read_is_never_written_nor_anything_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let reader = Reader::new(db.clone());
    let (stopped, seen) = mpsc::channel();
    let deliver = |_: store::Released, _| panic!("nothing may be released");
    let (writer, thread) = Writer::start(db, deliver, move |fault| stopped.send(fault.to_string()).unwrap()).unwrap();
    let mut batch = staged(&payment(9, PaymentState::Pending));
    batch.hold(Held::Durable(oneshot::channel().0));
    batch.give_up(StoreError::Io("the first".to_owned()));
    batch.give_up(StoreError::Io("the second".to_owned()));
    writer.submit(batch);
    writer.submit(staged(&payment(8, PaymentState::Pending)));
    let words = seen.recv_timeout(LIMIT).unwrap();
    assert!(words.contains("the first"), "{words}");
    thread.join().unwrap();
    assert_eq!((reader.payment(&[9; 32]).unwrap(), reader.payment(&[8; 32]).unwrap()), (None, None));
}

/// A commit with events, of these times; then the numbers of those that are kept.
fn told(writer: &Writer, commits: &mut Commits, reader: &Reader, times: &[u64]) -> Vec<u64> {
    let mut batch = Batch::default();
    times.iter().for_each(|at| batch.event(EventRow::new(*at, "invoice_paid", serde_json::json!({}))));
    writer.submit(batch);
    drop(commits.next(10).unwrap().unwrap());
    let found: Vec<_> = reader.events(0, &[], 1000).unwrap().0.into_iter().map(|(seq, _)| seq).collect();
    let ends = (reader.oldest_event().unwrap(), reader.newest_event().unwrap());
    assert_eq!(ends, (found.first().copied(), *found.last().unwrap()), "readers can tell what is gone");
    found
}

/// What the rows of so many events have, keys included.
fn bytes_of(events: u64) -> u64 {
    let row = EventRow::new(1, "invoice_paid", serde_json::json!({})).encode();
    events * (8 + seal(Table::Event, &1_u64.to_be_bytes(), &row).len() as u64)
}

#[test]
fn law_6_events_are_kept_as_long_as_there_is_room_and_the_newest_always() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let reader = Reader::new(db.clone());
    assert_eq!((reader.oldest_event().unwrap(), reader.newest_event().unwrap()), (None, 0));
    let limits = |bytes, secs| EventLimits { bytes, secs };
    let open = |limits| {
        let (writer, commits) = Writer::new(db.clone()).unwrap();
        (writer, commits.keeping_events(limits, || u64::MAX))
    };
    let (writer, mut commits) = open(limits(bytes_of(3), 0));
    for (events, kept) in [(2, vec![1, 2]), (1, vec![1, 2, 3]), (2, vec![3, 4, 5]), (5, vec![6, 7, 8, 9, 10])] {
        assert_eq!(told(&writer, &mut commits, &reader, &vec![1; events]), kept);
    }
    // A start goes on with the sum.
    let (writer, mut commits) = open(limits(bytes_of(3), 0));
    assert_eq!(told(&writer, &mut commits, &reader, &[1]), [9, 10, 11]);
    let (writer, mut commits) = open(limits(1, 0));
    assert_eq!(told(&writer, &mut commits, &reader, &[1]), [12], "the newest stays");
    let (writer, mut commits) = open(EventLimits::default());
    assert_eq!(told(&writer, &mut commits, &reader, &[1; 200]).len(), 201, "0 is no limit");
    let (writer, mut commits) = open(limits(bytes_of(2), 0));
    for kept in [138, 75, 12, 2, 2] {
        assert_eq!(told(&writer, &mut commits, &reader, &[1]).len(), kept, "a chunk with each commit");
    }
}

#[test]
fn law_6_events_are_kept_until_they_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let reader = Reader::new(db.clone());
    let (writer, commits) = Writer::new(db).unwrap();
    let mut commits = commits.keeping_events(EventLimits { bytes: 0, secs: 100 }, || u64::MAX);
    for (times, kept) in [
        (vec![1000, 1001], vec![1, 2]),
        (vec![1100], vec![1, 2, 3]),
        (vec![1101], vec![2, 3, 4]),
        // A clock that was put back takes nothing away.
        (vec![900], vec![2, 3, 4, 5]),
        (vec![1102, 1201], vec![4, 5, 6, 7]),
        (vec![1202, 1202], vec![6, 7, 8, 9]),
        (vec![9999], vec![10]),
    ] {
        assert_eq!(told(&writer, &mut commits, &reader, &times), kept, "{times:?}");
    }
}

#[test]
fn law_6_one_wrong_clock_does_not_age_the_events() {
    /// Two hours after the chain's time.
    const LATEST: u64 = 1_200;
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let reader = Reader::new(db.clone());
    let (writer, commits) = Writer::new(db.clone()).unwrap();
    let mut commits = commits.keeping_events(EventLimits { bytes: 0, secs: 100 }, || LATEST);
    for (times, kept) in [
        (vec![1_000, 1_100], vec![1, 2]),
        // A year from now: the oldest is older than 100 s by the chain too, the other is not.
        (vec![LATEST + 31_536_000], vec![2, 3]),
        (vec![LATEST + 31_536_000], vec![2, 3, 4]),
    ] {
        assert_eq!(told(&writer, &mut commits, &reader, &times), kept, "{times:?}");
    }
    drop((writer, commits));
    // No block was seen yet: nothing is known to be old.
    let (writer, commits) = Writer::new(db).unwrap();
    let mut commits = commits.keeping_events(EventLimits { bytes: 0, secs: 100 }, || 0);
    assert_eq!(told(&writer, &mut commits, &reader, &[LATEST + 31_536_000]), [2, 3, 4, 5]);
}

/// A batch without rows costs no commit and still waits for those before it.
#[test]
fn a_rowless_batch_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let (released, seen) = mpsc::channel();
    let reader = Reader::new(db.clone());
    let deliver = move |effects: store::Released, _| {
        for _ in effects.open() {
            released.send(reader.payment(&[1; 32]).unwrap().is_some()).unwrap();
        }
    };
    let (writer, _) = Writer::start(db, deliver, |fault| panic!("{fault}")).unwrap();
    writer.submit(staged(&payment(1, PaymentState::Pending)));
    let mut empty = Batch::default();
    empty.hold(Held::Durable(oneshot::channel().0));
    writer.submit(empty);
    assert!(seen.recv_timeout(LIMIT).unwrap(), "released before the row that was queued first");
    let commits = writer.stats().commits.load(Ordering::Relaxed);
    assert_eq!(commits, 1);
}

/// Rows that nobody waits for take no commit of their own where others follow; alone they are written all the same.
#[test]
fn rows_that_nobody_waits_for_wait_for_company() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let (released, seen) = mpsc::channel();
    let reader = Reader::new(db.clone());
    let deliver = move |effects: store::Released, _| released.send(effects).unwrap();
    let (writer, commits) = Writer::new(db).unwrap();
    let commits = commits.asking(|| false, || Some(Clock::monotonic()));
    let thread = commits.on_a_thread(deliver, |fault| panic!("{fault}")).unwrap();
    let count = |of: fn(&writer::WriterStats) -> &AtomicU64| of(writer.stats()).load(Ordering::Relaxed);
    // A machine may pause for longer than company is waited for, but not each time.
    let together = (0..50).any(|_| {
        let (commits, batches) = (count(|stats| &stats.commits), count(|stats| &stats.batches));
        writer.submit(staged(&payment(1, PaymentState::Pending)));
        let begun = Instant::now();
        while count(|stats| &stats.batches) == batches {
            assert!(begun.elapsed() < LIMIT, "the writer takes no batch");
            std::thread::yield_now();
        }
        let mut awaited = Batch::default();
        awaited.hold(Held::Durable(oneshot::channel().0));
        awaited.event(EventRow::new(1, "invoice_paid", serde_json::json!({})));
        writer.submit(awaited);
        drop(seen.recv_timeout(LIMIT).unwrap());
        count(|stats| &stats.commits) == commits + 1
    });
    assert!(together, "the row was written alone, and then the other");
    writer.submit(staged(&payment(6, PaymentState::Pending)));
    drop(writer);
    thread.join().unwrap();
    assert!(reader.payment(&[6; 32]).unwrap().is_some(), "written at the end at the latest");
}

#[test]
fn events_are_numbered_without_a_gap_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..2 {
        let db = fresh(dir.path());
        let (released, seen) = mpsc::channel();
        let deliver = move |_: store::Released, seq| released.send(seq).unwrap();
        let (writer, thread) = Writer::start(db, deliver, |fault| panic!("{fault}")).unwrap();
        let mut batch = Batch::default();
        for _ in 0..3 {
            batch.event(EventRow::new(round, "channel_ready", serde_json::json!({ "round": round })));
        }
        writer.submit(batch);
        assert_eq!(seen.recv_timeout(LIMIT).unwrap(), (round + 1) * 3);
        drop(writer);
        thread.join().unwrap();
    }
    let reader = Reader::new(fresh(dir.path()));
    let (events, last) = reader.events(0, &[], 100).unwrap();
    assert_eq!(events.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(last, 6);
    let (page, last) = reader.events(2, &["channel_ready".to_owned()], 2).unwrap();
    assert_eq!((page.first().map(|(seq, _)| *seq), page.len(), last), (Some(3), 2, 4));
    let (none, last) = reader.events(0, &["invoice_paid".to_owned()], 100).unwrap();
    assert!(none.is_empty());
    assert_eq!(last, 6, "the next page goes on after what was looked at");
}

#[test]
fn a_payment_row_reads_back_in_every_state() {
    let ends = [
        PaymentState::Pending,
        PaymentState::Succeeded { preimage: PaymentPreimage([3; 32]), fee: Msat::new(5), at: 8 },
        PaymentState::Failed { kind: "no_route".into(), message: "there is none".into(), at: 9 },
    ];
    for state in ends {
        let row = payment(4, state);
        assert_eq!(PaymentRow::decode(&row.encode()), Ok(row));
    }
}

/// Odd fields may be skipped, even ones must be understood, a newer version is not guessed at.
#[test]
fn per_7_rows_of_tomorrow_are_skipped_or_refused() {
    let mut row = payment(4, PaymentState::Pending).encode();
    let version = row.clone();
    row.extend([0x63, 1, 0]); // field 99, one byte
    assert_eq!(PaymentRow::decode(&row), Ok(payment(4, PaymentState::Pending)));
    row.extend([0x64, 1, 0]); // field 100
    assert_eq!(
        PaymentRow::decode(&row).unwrap_err().to_string(),
        "a row with field 100, which must be understood and is not"
    );
    let mut version = version;
    if let Some(first) = version.first_mut() {
        *first = 2;
    }
    assert_eq!(
        PaymentRow::decode(&version).unwrap_err().to_string(),
        "a row of version 2, which this program does not know"
    );
}

#[test]
fn prs_2_no_bytes_make_a_row_panic() {
    let whole = payment(4, PaymentState::Failed { kind: "a".into(), message: "b".into(), at: 9 }).encode();
    for length in 0..whole.len() {
        let cut = whole.get(..length).unwrap();
        assert_ne!(PaymentRow::decode(cut).ok(), PaymentRow::decode(&whole).ok(), "cut at {length}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bent = whole.clone();
            if let Some(byte) = bent.get_mut(at) {
                *byte ^= 1 << bit;
            }
            drop(PaymentRow::decode(&bent));
        }
    }
}

/// Opens a file that must be refused, and checks that not a byte of it changed.
fn refusal(dir: &Path, network: &str, node_id: &NodeId) -> StoreError {
    let before = fs::read(file(dir)).unwrap();
    let fault = store::open(dir, network, node_id).unwrap_err();
    assert!(before == fs::read(file(dir)).unwrap(), "the file was changed: {fault}");
    fault
}

#[test]
fn bad_input_91_an_empty_file_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file(dir.path()), []).unwrap();
    let fault = refusal(dir.path(), "regtest", &node(1));
    assert!(matches!(fault, StoreError::Corrupt { .. }), "{fault}");
    assert!(fault.to_string().contains("do not delete it"), "{fault}");
}

#[test]
fn bad_input_91_a_file_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(file(dir.path()), b"-- a text that somebody saved under this name --".repeat(400)).unwrap();
    let fault = refusal(dir.path(), "regtest", &node(1));
    assert!(matches!(fault, StoreError::Corrupt { .. }), "{fault}");
}

#[test]
fn bad_input_91_a_truncated_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(fresh(dir.path()));
    let whole = fs::read(file(dir.path())).unwrap();
    for keep in [1, 100, 4096, 8192, whole.len() / 2] {
        fs::write(file(dir.path()), whole.get(..keep).unwrap()).unwrap();
        let fault = store::open(dir.path(), "regtest", &node(1)).unwrap_err();
        assert!(matches!(fault, StoreError::Corrupt { .. } | StoreError::Io(_)), "{keep}: {fault}");
    }
}

#[test]
fn bad_input_92_a_newer_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let transaction = db.begin_write().unwrap();
    let table = Table::Meta.definition();
    let newer = seal(Table::Meta, b"format", &3u16.to_be_bytes());
    transaction.open_table(table).unwrap().insert(b"format".as_slice(), newer.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    let fault = refusal(dir.path(), "regtest", &node(1));
    assert!(matches!(fault, StoreError::Newer { found: 3, known: 2, .. }), "{fault}");
}

/// There is no older one yet that could be migrated: it stays untouched.
#[test]
fn bad_input_92_per_9_an_older_file_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let transaction = db.begin_write().unwrap();
    let older = seal(Table::Meta, b"format", &1u16.to_be_bytes());
    let table = Table::Meta.definition();
    transaction.open_table(table).unwrap().insert(b"format".as_slice(), older.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    assert_corrupt(&refusal(dir.path(), "regtest", &node(1)));
}

#[test]
fn bad_input_93_another_networks_or_another_nodes_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(fresh(dir.path()));
    let fault = refusal(dir.path(), "signet", &node(1));
    assert!(matches!(&fault, StoreError::Foreign { found, .. } if found == "network regtest"), "{fault}");
    let fault = refusal(dir.path(), "regtest", &node(2));
    assert!(matches!(&fault, StoreError::Foreign { wanted, .. } if *wanted == format!("node {}", node(2))), "{fault}");
    fresh(dir.path()).begin_read().unwrap();
}

/// A file of many pages, closed well.
fn populated(dir: &Path) -> Vec<u8> {
    populate(store::open_and_load(dir, "regtest", &node(1)).unwrap().0);
    fs::read(file(dir)).unwrap()
}

fn populate(db: Arc<Database>) {
    let (writer, mut commits) = Writer::new(db).unwrap();
    for number in 0..=255 {
        let mut batch = staged(&payment(number, PaymentState::Pending));
        batch.put(Table::Wallet, u64::from(number).to_be_bytes().to_vec(), Some(vec![number; 700]));
        batch.event(EventRow::new(7, "invoice_paid", serde_json::json!({ "number": number })));
        writer.submit(batch);
    }
    // The same pages each time.
    while commits.waiting() > 0 {
        drop(commits.next(16).unwrap().unwrap());
    }
}

/// What is read at a start and afterwards; an error is what the operator is told.
fn read_all(dir: &Path) -> Result<(), StoreError> {
    let (db, snapshot) = store::open_and_load(dir, "regtest", &node(1))?;
    read_rows(db, snapshot)
}

fn read_rows(db: Arc<Database>, snapshot: store::Snapshot) -> Result<(), StoreError> {
    let wallet: Vec<_> = snapshot.wallet.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(wallet, (0..=255).map(|number| vec![number; 700]).collect::<Vec<_>>());
    let reader = Reader::new(db);
    for number in 0..=255 {
        // A bit of a key hides its row from whoever asks for it by name.
        let found = reader.payment(&[number; 32])?;
        assert_eq!(found.unwrap_or(payment(number, PaymentState::Pending)), payment(number, PaymentState::Pending));
    }
    let (events, _) = reader.events(0, &[], 1000)?;
    assert_eq!(events.len(), 256);
    Ok(())
}

fn assert_corrupt(fault: &StoreError) {
    let told = fault.to_string();
    assert!(matches!(fault, StoreError::Corrupt { .. }), "{told}");
    assert!(told.contains("do not delete it") && told.contains("start from no older copy"), "{told}");
}

/// The files of a directory.
fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Cut behind any page the file is refused, and not a byte of what is left is overwritten.
#[test]
fn bad_input_91_a_file_cut_behind_any_page_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let whole = populated(dir.path());
    for keep in (0..whole.len()).step_by(4096) {
        let left = whole.get(..keep).unwrap();
        fs::write(file(dir.path()), left).unwrap();
        assert_corrupt(&read_all(dir.path()).unwrap_err());
        assert!(fs::read(file(dir.path())).unwrap() == left, "the rest of the file was changed, cut at {keep}");
        assert_eq!(names(dir.path()), [store::journal::FILE, store::FILE], "no other file was made");
    }
    fs::write(file(dir.path()), &whole).unwrap();
    read_all(dir.path()).unwrap();
}

/// A bit that flipped is never read as something else: what it concerns is refused, or stops redb where its pages
/// contradict themselves (the process then says the same words), or it stood where nothing is kept. Several bytes of every
/// page are tried.
#[test]
fn bad_input_91_a_bit_that_flipped_in_any_page_is_never_read_as_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let whole = populated(dir.path());
    // What redb does with pages that contradict themselves is told by its panics, of which there are many here.
    std::panic::set_hook(Box::new(|_| {}));
    let (mut refused, mut stopped, mut unused) = (0, 0, 0);
    for at in (0..whole.len()).step_by(4096 * 2).flat_map(|page| [1, 5, 150, 1501, 4000].map(|at| page + at)) {
        let mut bent = whole.clone();
        let Some(byte) = bent.get_mut(at) else { continue };
        *byte ^= 1 << (at % 8);
        fs::write(file(dir.path()), &bent).unwrap();
        match std::panic::catch_unwind(|| read_all(dir.path())) {
            Ok(Ok(())) => unused += 1,
            Ok(Err(fault)) => {
                assert_corrupt(&fault);
                refused += 1;
            }
            Err(panic) => {
                let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                assert!(!words.contains("assertion `left == right`"), "byte {at} was read as something else: {words}");
                stopped += 1;
            }
        }
    }
    drop(std::panic::take_hook());
    println!("{refused} were refused, {stopped} stopped redb, {unused} were where nothing is kept");
    assert!(refused > 40, "{refused} {stopped} {unused}");
}

/// Ten pages of which bits flipped at random, seed after seed: a start tells of it or stops and overwrites nothing; or it was
/// nothing that a start reads. `PAGES_SEED=n` repeats one.
#[test]
fn bad_input_91_dsk_9_ten_pages_flipped_at_random_are_told_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let whole = populated(dir.path());
    let chosen = std::env::var("PAGES_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    std::panic::set_hook(Box::new(|_| {}));
    let (mut refused, mut stopped, mut read, mut changed) = (0, 0, 0, Vec::new());
    for seed in chosen.map_or(0..60, |seed| seed..seed + 1) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bent = whole.clone();
        for _ in 0..10 {
            let page = rng.random_range(0..whole.len() / 4096) * 4096;
            for _ in 0..rng.random_range(1..200) {
                bent[page + rng.random_range(0..4096)] ^= 1 << rng.random_range(0..8);
            }
        }
        fs::write(file(dir.path()), &bent).unwrap();
        let outcome = std::panic::catch_unwind(|| store::open_and_load(dir.path(), "regtest", &node(1)).map(|_| ()));
        match &outcome {
            Ok(Ok(())) => read += 1,
            Ok(Err(fault)) => {
                if !matches!(fault, StoreError::Corrupt { .. }) {
                    changed.push(format!("PAGES_SEED={seed}: {fault}"));
                }
                refused += 1;
            }
            Err(_) => stopped += 1,
        }
        let names = names(dir.path());
        if names != [store::journal::FILE, store::FILE] {
            changed.push(format!("PAGES_SEED={seed}: {names:?}"));
        }
        let is_kept = matches!(outcome, Ok(Ok(()))) || fs::read(file(dir.path())).unwrap() == bent;
        if !is_kept {
            changed.push(format!("PAGES_SEED={seed}: {outcome:?}"));
        }
    }
    drop(std::panic::take_hook());
    println!("{refused} were refused, {stopped} stopped redb, {read} had nothing that a start reads");
    assert!(changed.is_empty(), "files that were refused were changed: {changed:?}");
    assert!(chosen.is_some() || refused + stopped > 20, "{refused} {stopped} {read}");
}

/// The version of the layout stands in the file from its first commit on, and a file without it is refused: no start could know
/// what to migrate. A first start that is killed anywhere leaves a whole database or none (it is made under another name).
#[test]
fn per_9_the_version_is_always_there_and_a_file_without_it_is_refused_untouched() {
    let (mut rng, mut whole, mut refused) = (ChaCha8Rng::seed_from_u64(9), 0, 0);
    for operations in 0.. {
        let disk = Disk::default();
        disk.fail_after(operations, Failing::Power);
        let made = on(&disk).map(drop);
        if !disk.has_failed() {
            made.unwrap();
            break;
        }
        for damage in Damage::ALL {
            let disk = Disk::default();
            disk.fail_after(operations, Failing::Power);
            drop(on(&disk));
            let left = disk.crash(damage, &mut rng);
            if left.bytes().is_empty() {
                continue;
            }
            // It may be one that redb itself cannot read yet.
            match std::panic::catch_unwind(AssertUnwindSafe(|| on(&left))) {
                Ok(Ok(db)) => {
                    let meta = db.begin_read().unwrap().open_table(Table::Meta.definition()).unwrap();
                    assert!(meta.get(b"format".as_slice()).unwrap().is_some(), "{operations} {damage:?}");
                    whole += 1;
                }
                Ok(Err(_)) | Err(_) => refused += 1,
            }
        }
    }
    assert!(whole > 0 && refused > 0, "{whole} {refused}");

    let dir = tempfile::tempdir().unwrap();
    let db = fresh(dir.path());
    let transaction = db.begin_write().unwrap();
    transaction.open_table(Table::Meta.definition()).unwrap().remove(b"format".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    assert_corrupt(&refusal(dir.path(), "regtest", &node(1)));
}

/// What a start repairs is opened anew before anything is written: a commit after a repair is there after the next crash, and
/// after one in the midst of the repair.
#[test]
fn dsk_3_a_commit_after_a_repair_is_there_after_the_next_crash() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for damage in Damage::ALL {
        let mut disk = Disk::default();
        populate(on(&disk).unwrap());
        for round in 0..8 {
            // The process is gone in the midst of a commit, and the next one while it repairs, at any operation.
            let db = on(&disk).unwrap();
            disk.fail_after(round, Failing::Power);
            let (writer, mut commits) = Writer::new(db).unwrap();
            writer.submit(staged(&payment(0, PaymentState::Pending)));
            drop(commits.next(1));
            disk = disk.crash(damage, &mut rng);
            disk.fail_after(round, Failing::Power);
            drop(on(&disk));
            disk = disk.crash(damage, &mut rng);
            // Repaired, written to, and gone without a word.
            let db = on(&disk).unwrap();
            let (writer, mut commits) = Writer::new(db).unwrap();
            let key = [round.to_be_bytes().as_slice(), &[7; 24]].concat();
            let mut batch = Batch::default();
            batch.put(Table::Replay, key.clone(), Some(vec![9]));
            writer.submit(batch);
            drop(commits.next(1).unwrap().unwrap());
            disk = disk.crash(damage, &mut rng);
            let db = on(&disk).unwrap();
            let replay = db.begin_read().unwrap().open_table(Table::Replay.definition()).unwrap();
            assert!(replay.get(key.as_slice()).unwrap().is_some(), "{damage:?} {round}");
            drop(replay);
            let snapshot = store::load::load(&*db).unwrap();
            read_rows(db, snapshot).unwrap();
        }
    }
}

/// The database on a disk, opened as a start does.
fn on(disk: &Disk) -> Result<Arc<Database>, StoreError> {
    store::open_on(disk.database(), disk, "regtest", &node(1)).map(|(db, _)| db)
}

/// A disk of which one read fails, or all from that one on.
#[derive(Clone, Debug)]
struct Unread {
    disk: Disk,
    reads: Arc<AtomicU64>,
    fails_at: u64,
    for_ever: bool,
}

impl StorageBackend for Unread {
    fn len(&self) -> io::Result<u64> {
        self.disk.database().len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        let is_refused = if self.for_ever { number >= self.fails_at } else { number == self.fails_at };
        if is_refused { Err(io::Error::from_raw_os_error(5)) } else { self.disk.database().read(offset, out) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.database().set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.database().sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.database().write(offset, data)
    }
}

/// An iterator of redb that met an error may show fewer rows after it. Whichever read fails, a start and whoever reads later get
/// all rows or an error; `clippy.toml` keeps the calls away whose guards lose writes.
#[test]
fn dsk_5_a_read_that_fails_is_told_and_hides_no_row() {
    let dir = tempfile::tempdir().unwrap();
    populate(fresh(dir.path()));
    let bytes = fs::read(file(dir.path())).unwrap();
    let read = |disk: Unread| {
        let shelf = disk.disk.clone();
        let (db, _) = store::open_on(Box::new(disk), &shelf, "regtest", &node(1))?;
        let snapshot = store::load::load(&*db)?;
        read_rows(db, snapshot)
    };
    let mut told = 0;
    for for_ever in [false, true] {
        for fails_at in 0.. {
            let disk = Unread { disk: Disk::of(bytes.clone()), reads: Arc::default(), fails_at, for_ever };
            let reads = disk.reads.clone();
            let outcome = read(disk);
            if reads.load(Ordering::Relaxed) <= fails_at {
                outcome.unwrap();
                break;
            }
            if let Err(fault) = outcome {
                assert!(matches!(&fault, StoreError::Io(words) if words.contains(store::FILE)), "{fails_at}: {fault}");
                told += 1;
            }
        }
    }
    assert!(told > 20, "{told}");
}
