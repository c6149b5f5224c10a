//! A panic of any thread ends the whole daemon: by a process of its own, which is this test over again.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use outrigger_sidecar::fatal::panics_end_the_process;
use outrigger_sidecar::lock::Mutex;

const PART: &str = "OUTRIGGER_PANICS_AS_CHILD";
const SIGABRT: i32 = 6;

/// Takes two locks in two orders, on a thread of its own, and lives on.
fn as_child() {
    panics_end_the_process();
    let (one, other) = (Mutex::new(1), Mutex::new(2));
    drop((one.lock(), other.lock()));
    let against = std::thread::spawn(move || drop((other.lock(), one.lock())));
    assert!(against.join().is_err(), "the order of locks is watched");
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
