//! A panic of any thread ends the whole daemon: by a process of its own, which is this test over again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use outrigger_sidecar::fatal::{contain, panics_end_the_process};
use outrigger_sidecar::key::Seed;
use outrigger_sidecar::lock::Mutex;
use outrigger_sidecar::store::backup::mirror::{Mirror, MirrorPlace, MirrorSource};
use outrigger_sidecar::store::backup::source::Source;
use outrigger_sidecar::store::backup::{Persist, SinkEnds};
use outrigger_sidecar::token::{TokenOrder, Tokens};

const PART: &str = "OUTRIGGER_PANICS_AS_CHILD";
const SIGABRT: i32 = 6;

/// Takes two locks in two orders, on a thread of its own, and lives on.
fn as_child() {
    panics_end_the_process(|| {});
    let (one, other) = (Mutex::new(1), Mutex::new(2));
    drop((one.lock(), other.lock()));
    let against = std::thread::spawn(move || drop((other.lock(), one.lock())));
    assert!(against.join().is_err(), "the order of locks is watched");
}

/// Makes a mirror of which one page after the other is damaged, and looks at each.
fn with_each_page_damaged(mut look: impl FnMut(&MirrorPlace, usize)) {
    let dir = tempfile::tempdir().expect("a directory");
    let node_id = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".parse().expect("a node");
    let place = MirrorPlace::new(dir.path().join("mirror.redb"), "regtest", node_id);
    place.make().expect("a mirror");
    let whole = std::fs::read(&place.path).expect("its bytes");
    // The first bytes of a page say what it is.
    for page in (1..whole.len() / 4096).map(|page| page * 4096).filter(|page| whole[*page..page + 8] != [0; 8]) {
        let mut bent = whole.clone();
        bent[page] ^= 0xff;
        std::fs::write(&place.path, bent).expect("written");
        look(&place, page / 4096);
    }
}

/// Reads such a mirror where a panic is no more contained: that was for what went before.
fn over_a_damaged_file_after_a_copy() {
    panics_end_the_process(|| {});
    contain(|_| (), || ());
    with_each_page_damaged(|place, _| {
        if let Ok(mut source) = MirrorSource::open(place.clone()) {
            drop(source.channels());
        }
    });
    println!("it lives on");
}

/// Opens such a mirror as a sink does: redb panics over some. Who asked the sink within such work of its own is told as well.
fn over_a_damaged_mirror() {
    panics_end_the_process(|| {});
    with_each_page_damaged(|place, page| {
        let ends = SinkEnds::new(|_, _| (), Instant::now);
        let mut mirror = Mirror::new(place.clone(), ends.clone());
        let (told, heard) = crossbeam_channel::bounded(1);
        let (around, around_heard) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || {
            let holdings = contain(move |words| drop(around.send(words.to_owned())), || mirror.holdings());
            // Who waits has seen its trouble, or hears this.
            let _ = told.send(holdings.map(drop));
        });
        let words = loop {
            match heard.try_recv() {
                Ok(Err(fault)) => break fault.to_string(),
                Ok(Ok(())) => break String::new(),
                Err(_) => {}
            }
            match ends.trouble_now() {
                Some((words, _)) => {
                    let around = around_heard.recv_timeout(Duration::from_secs(30)).expect("told as well");
                    assert!(words.contains(&around), "{words}, and {around}");
                    break words;
                }
                None => std::thread::yield_now(),
            }
        };
        println!("page {page}: {words}");
    });
    println!("it lives on");
    // The harness would wait for the hook, in which the stopped thread stays.
    std::process::exit(0);
}

/// Panics with words that have all in them that a thread at work may hold: what is secret in it and can be printed at all.
fn with_secrets_at_hand(dir: &str) {
    panics_end_the_process(|| {});
    let seed = Seed::load(Path::new(dir)).expect("a seed").expect("there");
    let order = TokenOrder { name: "shop".to_owned(), scopes: 1, expiry_secs: None, budget: None };
    let tokens = Tokens::default();
    let (text, row, _) = tokens.create(order, drop).expect("a token");
    std::fs::write(Path::new(dir).join("token"), text.as_bytes()).expect("written");
    let admitted = tokens.admit(&text);
    assert!(admitted.is_some());
    panic!("no canary: {:?}", (&seed, &tokens, row, admitted));
}

#[test]
fn key_5_a_panic_with_a_seed_and_a_token_at_hand_tells_neither() {
    if let Some(dir) = std::env::var_os(PART) {
        return with_secrets_at_hand(dir.to_str().expect("a path"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    drop(Seed::create(dir.path(), || Ok([0x9d; 32])).expect("a seed"));
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "key_5_a_panic_with_a_seed_and_a_token_at_hand_tells_neither", "--nocapture"])
        .env(PART, dir.path())
        .env("RUST_BACKTRACE", "full")
        .output()
        .expect("a process");
    let said = [String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr)].concat();
    assert_eq!(child.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("no canary: (Seed(..), Tokens"), "it is printed what the thread held: {said}");
    let words = std::fs::read_to_string(dir.path().join("seed")).expect("words");
    let words: Vec<_> = words.split_whitespace().collect();
    for three in words.windows(3) {
        assert!(!said.contains(&three.join(" ")), "words of the seed");
        assert!(!said.contains(&format!("{three:?}")), "words of the seed");
    }
    let token = std::fs::read_to_string(dir.path().join("token")).expect("a token");
    let secret = token.rsplit('_').next().expect("its secret");
    let bytes = |hex: &str| (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16)).collect();
    let secret_bytes: Result<Vec<u8>, _> = bytes(secret);
    let secret_bytes = format!("{:?}", secret_bytes.expect("hex"));
    for secret in [secret.to_owned(), secret_bytes, "9d".repeat(32), format!("{:?}", [0x9d; 32])] {
        assert!(secret.len() >= 64 && !said.contains(&secret), "a secret of {} letters", secret.len());
    }
}

#[test]
fn per_2_a_mirror_over_which_redb_panics_is_that_sinks_fault_and_the_process_lives_on() {
    if std::env::var_os(PART).is_some() {
        return over_a_damaged_mirror();
    }
    let name = "per_2_a_mirror_over_which_redb_panics_is_that_sinks_fault_and_the_process_lives_on";
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(PART, "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("it lives on"), "{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(said.contains("so that nothing can be read or written (panicked at"), "no panic was met: {said}");
}

/// In one thread a copy and the node's own database are read in turns: damage of the latter is not to be taken for the copy's.
#[test]
fn bak_1_what_redb_panics_over_outside_of_a_copy_ends_the_process() {
    if std::env::var_os(PART).is_some() {
        return over_a_damaged_file_after_a_copy();
    }
    let name = "bak_1_what_redb_panics_over_outside_of_a_copy_ends_the_process";
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(PART, "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("panicked at") && said.contains("redb"), "{said}");
}

#[test]
fn cst_16_a_lock_that_is_taken_against_the_order_ends_the_process_and_not_a_thread() {
    if std::env::var_os(PART).is_some() {
        return as_child();
    }
    let name = "cst_16_a_lock_that_is_taken_against_the_order_ends_the_process_and_not_a_thread";
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(PART, "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("the other way round at") && said.contains("panicked at"), "{said}");
}
