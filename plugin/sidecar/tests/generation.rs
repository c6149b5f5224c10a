//! The generation of a data directory: an old copy of the database is found at the start, and nothing else is taken for
//! one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says by panicking what is wrong")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use outrigger_sidecar::store::generation::FILE as COMPANION;
use outrigger_sidecar::store::schema::{FORMAT_VERSION, RESTORED_KEY, Table};
use outrigger_sidecar::store::{self, Age, Batch, Generation, Held, Released, StoreError, Writer};
use redb::Database;
use tokio::sync::oneshot;

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

/// A start as far as generations go; as the daemon makes it.
fn start(dir: &Path) -> (Arc<Database>, Option<Age>) {
    let (db, file) = store::open_and_load(dir, "regtest", &node(1)).unwrap();
    let age = Generation::at_start(dir, ("regtest", &node(1)), &db, file.restored.is_some()).unwrap();
    (db, age)
}

fn newest(dir: &Path) -> (Arc<Database>, Generation) {
    match start(dir) {
        (db, Some(Age::Newest(generation))) => (db, generation),
        (_, other) => panic!("{other:?}"),
    }
}

fn proof(dir: &Path) -> String {
    match start(dir) {
        (_, Some(Age::Old(proof))) => proof,
        (_, other) => panic!("{other:?}"),
    }
}

fn database(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(store::FILE)).unwrap()
}

/// The number in the file beside the database.
fn number(dir: &Path) -> u64 {
    let text = fs::read_to_string(dir.join(COMPANION)).unwrap();
    text.lines().find_map(|line| line.strip_prefix("generation ")).unwrap().parse().unwrap()
}

/// A writer over a database, and its thread.
fn writer(db: Arc<Database>, generation: Generation) -> (Writer, JoinHandle<()>) {
    let (writer, commits) = Writer::new(db).unwrap();
    let deliver = |released: Released, _| {
        for held in released.open() {
            let Held::Durable(waiter) = held else { panic!("{held:?}") };
            // Some wait for nothing.
            let _ = waiter.send(());
        }
    };
    let thread = commits.raising(Some(generation)).on_a_thread(deliver, |fault| panic!("{fault}")).unwrap();
    (writer, thread)
}

/// Writes one row in a commit of its own.
fn commit(writer: &Writer, table: Table, key: &[u8]) {
    let (waiter, durable) = oneshot::channel();
    let mut batch = Batch::default();
    batch.put(table, key.to_vec(), Some(vec![1]));
    batch.hold(Held::Durable(waiter));
    writer.submit(batch);
    durable.blocking_recv().unwrap();
}

fn conclude(writer: Writer, thread: JoinHandle<()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(writer.conclude());
    drop(writer);
    thread.join().unwrap();
}

#[test]
fn bak_1_a_copy_from_before_the_last_start_is_old_and_who_has_the_newest_can_put_it_back() {
    let dir = tempfile::tempdir().unwrap();
    drop(newest(dir.path()));
    let copy = database(dir.path());
    drop(newest(dir.path()));
    let (last, companion) = (database(dir.path()), fs::read(dir.path().join(COMPANION)).unwrap());
    fs::write(dir.path().join(store::FILE), &copy).unwrap();
    for _ in 0..2 {
        let words = proof(dir.path());
        assert_eq!(
            words,
            "outrigger.redb is at generation 1 and generation in the same directory has seen 2: an old copy was put back"
        );
        assert_eq!(fs::read(dir.path().join(COMPANION)).unwrap(), companion, "an old database teaches nothing");
    }
    fs::write(dir.path().join(store::FILE), &last).unwrap();
    drop(newest(dir.path()));
}

/// A copy of a database that runs, from before the node was stopped well.
#[test]
fn bak_1_bak_7_a_copy_of_a_running_database_is_old_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (db, generation) = newest(dir.path());
    let (writer, thread) = writer(db, generation);
    commit(&writer, Table::Wallet, &[0; 8]);
    let copy = database(dir.path());
    commit(&writer, Table::Wallet, &[1; 8]);
    conclude(writer, thread);
    let last = database(dir.path());
    fs::write(dir.path().join(store::FILE), copy).unwrap();
    assert!(proof(dir.path()).contains("an old copy was put back"));
    fs::write(dir.path().join(store::FILE), last).unwrap();
    drop(newest(dir.path()));
}

/// The database is raised first. Whatever a crash leaves of the file beside it, the database is not older than that.
#[test]
fn bak_1_per_3_no_crash_makes_a_database_look_old() {
    let dir = tempfile::tempdir().unwrap();
    let companion = dir.path().join(COMPANION);
    // Before the file was there, on the very first start.
    drop(newest(dir.path()));
    fs::remove_file(&companion).unwrap();
    drop(newest(dir.path()));
    for _ in 0..3 {
        // Between the commit and the file, and while the file is written.
        let before = fs::read(&companion).unwrap();
        drop(newest(dir.path()));
        fs::write(&companion, &before).unwrap();
        fs::write(dir.path().join(format!("{COMPANION}.new")), b"format 2\nnetw").unwrap();
        let last = number(dir.path());
        drop(newest(dir.path()));
        assert!(number(dir.path()) > last);
    }
    // An image of a database that runs is what a power cut leaves.
    let (db, generation) = newest(dir.path());
    let (writer, thread) = writer(db, generation);
    commit(&writer, Table::Wallet, &[0; 8]);
    let (image, beside) = (database(dir.path()), fs::read(&companion).unwrap());
    drop(writer);
    thread.join().unwrap();
    fs::write(dir.path().join(store::FILE), image).unwrap();
    fs::write(&companion, beside).unwrap();
    drop(newest(dir.path()));
}

#[test]
fn bak_1_the_generation_rises_once_in_256_commits_and_no_more_in_restored_mode() {
    let dir = tempfile::tempdir().unwrap();
    let (db, generation) = newest(dir.path());
    let (writer, thread) = writer(db, generation);
    let first = number(dir.path());
    for count in 1..=600_u64 {
        commit(&writer, Table::Wallet, &count.to_be_bytes());
        assert_eq!(number(dir.path()), first + count / 256, "after {count} commits");
    }
    let copy = database(dir.path());
    commit(&writer, Table::Meta, RESTORED_KEY);
    for count in 0..300_u64 {
        commit(&writer, Table::Wallet, &count.to_be_bytes());
    }
    conclude(writer, thread);
    assert_eq!(number(dir.path()), first + 2, "what is known to be old teaches nothing");
    assert!(matches!(start(dir.path()), (_, None)));
    fs::write(dir.path().join(store::FILE), copy).unwrap();
    drop(newest(dir.path()));
}

/// A start that must be refused and change no file.
fn refusal(dir: &Path, network: &str, node_id: &NodeId) -> StoreError {
    let files = || [store::FILE, COMPANION].map(|name| fs::read(dir.join(name)).unwrap());
    let before = files();
    let fault = store::open_and_load(dir, network, node_id).err().unwrap();
    assert!(before == files(), "a file was changed: {fault}");
    fault
}

/// A directory with the database as a crash leaves it: to open it is to change it.
fn left_by_a_crash() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (db, _generation) = newest(dir.path());
    let image = database(dir.path());
    drop(db);
    fs::write(dir.path().join(store::FILE), image).unwrap();
    dir
}

#[test]
fn bad_input_92_93_what_a_crash_left_of_a_newer_or_another_nodes_file_is_refused_untouched() {
    let dir = left_by_a_crash();
    let fault = refusal(dir.path(), "signet", &node(1));
    assert!(matches!(&fault, StoreError::Foreign { found, .. } if found == "network regtest"), "{fault}");
    let fault = refusal(dir.path(), "regtest", &node(2));
    assert!(matches!(&fault, StoreError::Foreign { wanted, .. } if *wanted == format!("node {}", node(2))), "{fault}");
    let text = fs::read_to_string(dir.path().join(COMPANION)).unwrap();
    fs::write(
        dir.path().join(COMPANION),
        text.replace(&format!("format {FORMAT_VERSION}"), &format!("format {}", FORMAT_VERSION + 1)),
    )
    .unwrap();
    let fault = refusal(dir.path(), "regtest", &node(1));
    assert!(matches!(fault, StoreError::Newer { found: 3, known: 2, .. }), "{fault}");
    fs::write(dir.path().join(COMPANION), text).unwrap();
    drop(newest(dir.path()));
}

#[test]
fn bad_input_91_dsk_11_a_damaged_generation_file_is_refused_with_words_that_say_what_to_do() {
    let dir = left_by_a_crash();
    let companion = dir.path().join(COMPANION);
    let whole = fs::read(&companion).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|keep| whole[..keep].to_vec()).collect();
    damaged.extend([vec![0; whole.len()], vec![0xff; 9], whole.repeat(100_000)]);
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 1 << (at % 7);
        damaged.push(bent);
    }
    for bytes in damaged {
        fs::write(&companion, &bytes).unwrap();
        let fault = refusal(dir.path(), "regtest", &node(1));
        let words = fault.to_string();
        let is_told =
            matches!(fault, StoreError::Companion { .. }) && words.contains("Make sure that this is no old copy");
        // A digit of the format may become another.
        assert!(is_told || matches!(fault, StoreError::Newer { .. }), "{words}");
    }
    fs::remove_file(&companion).unwrap();
    drop(newest(dir.path()));
}

/// What a crash left is repaired as it is opened: not where it is damaged too.
#[test]
fn bad_input_91_dsk_9_dsk_11_what_a_crash_left_cut_behind_any_page_or_bent_is_refused_untouched() {
    let dir = left_by_a_crash();
    let whole = database(dir.path());
    std::panic::set_hook(Box::new(|_| {}));
    let mut changed = Vec::new();
    let mut attempt = |bytes: &[u8], what: &str, must_fail: bool| {
        fs::write(dir.path().join(store::FILE), bytes).unwrap();
        let opened = std::panic::catch_unwind(|| {
            let opened = store::open_and_load(dir.path(), "regtest", &node(1));
            opened.map(drop).map_err(|fault| fault.to_string())
        });
        let is_refused = !matches!(opened, Ok(Ok(())));
        if (must_fail && !is_refused) || (is_refused && database(dir.path()) != bytes) {
            changed.push(format!("{what}: {opened:?}"));
        }
        usize::from(is_refused)
    };
    for keep in (0..whole.len()).step_by(4096) {
        attempt(&whole[..keep], &format!("cut at {keep}"), true);
    }
    let mut refused = 0;
    for at in (0..whole.len()).step_by(997) {
        let mut bent = whole.clone();
        bent[at..].iter_mut().take(9).for_each(|byte| *byte ^= 0x41);
        refused += attempt(&bent, &format!("bent at {at}"), false);
    }
    drop(std::panic::take_hook());
    assert!(changed.is_empty(), "{changed:?}");
    assert!(refused > 0, "no byte mattered");
    fs::write(dir.path().join(store::FILE), whole).unwrap();
    drop(newest(dir.path()));
}

/// Nor is one made in the place of a link whose disk is not there.
#[test]
fn bak_1_dsk_11_a_database_that_is_missing_beside_its_file_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(newest(dir.path()));
    let (path, elsewhere) = (dir.path().join(store::FILE), dir.path().join("another disk"));
    fs::rename(&path, &elsewhere).unwrap();
    let refused = || store::open_and_load(dir.path(), "regtest", &node(1)).map(|_| ()).unwrap_err();
    let fault = refused();
    assert!(matches!(fault, StoreError::Missing { generation: 1, .. }), "{fault}");
    let words = fault.to_string();
    assert!(words.contains("is missing") && words.contains("Put it back") && words.contains("Nothing was changed"));
    assert!(!path.exists(), "nothing is made in its place");
    std::os::unix::fs::symlink(dir.path().join("no disk"), &path).unwrap();
    let companion = fs::read(dir.path().join(COMPANION)).unwrap();
    for _ in 0..2 {
        let fault = refused();
        assert!(matches!(fault, StoreError::DeadLink(_)), "{fault}");
        assert!(!path.exists() && path.is_symlink(), "the link is there yet");
        // The same without the file beside it.
        let _ = fs::remove_file(dir.path().join(COMPANION));
    }
    fs::write(dir.path().join(COMPANION), companion).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    drop(newest(dir.path()));
    assert!(path.is_symlink() && elsewhere.exists());
}

#[test]
fn dsk_8_a_disk_without_room_for_the_number_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(newest(dir.path()));
    let unfinished = dir.path().join(format!("{COMPANION}.new"));
    std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
    drop(newest(dir.path()));
    assert_eq!(number(dir.path()), 1, "it stays behind");
    fs::remove_file(&unfinished).unwrap();
    drop(newest(dir.path()));
    assert_eq!(number(dir.path()), 3);
}
