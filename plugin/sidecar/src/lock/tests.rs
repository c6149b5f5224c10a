//! The watch over the order of locks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// What the second of two steps says as it panics.
fn refused(step: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(step)).expect_err("is stopped");
    panic.downcast_ref::<String>().expect("words").clone()
}

#[test]
fn cst_16_locks_taken_in_two_orders_are_told_though_nothing_hangs() {
    let (one, other, third) = (Mutex::new(1), RwLock::new(2), Mutex::new(3));
    {
        let _one = one.lock();
        let _other = other.read();
    }
    {
        let _other = other.write();
        let _third = third.lock();
    }
    let words = refused(|| {
        let _third = third.lock();
        let _one = one.lock();
    });
    assert!(words.contains("the other way round"), "{words}");
    // What was refused is not held, nor is what was held then.
    let _one = one.lock();
    let _third = third.lock();
}

#[test]
fn a_second_lock_of_one_class_is_told_be_it_of_readers_or_another_lock() {
    let lock = RwLock::new(1);
    let words = refused(|| {
        let _first = lock.read();
        let _second = lock.read();
    });
    assert!(words.contains("a second lock"), "{words}");
    let of_one_place: Vec<_> = (0..2).map(Mutex::new).collect();
    let words = refused(|| {
        let _locks: Vec<_> = of_one_place.iter().map(Mutex::lock).collect();
    });
    assert!(words.contains("a second lock"), "{words}");
}

#[test]
fn a_condition_gives_the_lock_to_whoever_changes_it() {
    let (state, changed) = (Mutex::new(0), Condvar::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            *state.lock() = 1;
            changed.notify_all();
        });
        let mut guard = state.lock();
        changed.wait_while(&mut guard, |state| *state == 0);
        assert_eq!(*guard, 1);
        assert!(changed.wait_while_for(&mut guard, |state| *state == 1, Duration::from_millis(1)), "nobody changes it");
    });
}

#[test]
fn a_model_finds_an_update_that_is_lost_between_two_locks() {
    let found = catch_unwind(|| {
        let lost_update = || {
            let count = std::sync::Arc::new(Mutex::new(0));
            let add = |count: &Mutex<u32>| {
                let seen = *count.lock();
                *count.lock() = seen + 1;
            };
            let other = count.clone();
            let thread = shuttle::thread::spawn(move || add(&other));
            add(&count);
            thread.join().unwrap();
            assert_eq!(*count.lock(), 2, "an update was lost");
        };
        shuttle::check_random(lost_update, 100);
    });
    assert!(found.is_err(), "the two never met");
}
