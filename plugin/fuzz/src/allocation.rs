//! How many bytes a closure holds at most: the bound on what a claimed length can make us allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What every decoder may hold beside four times its input.
pub const FLOOR: usize = 64 * 1024;

/// What one that reads a transaction may. rust-bitcoin takes room on the word of a length, whatever comes then: up to a
/// megabyte for each of its lists; for a witness four bytes for each of up to four million elements, and when an element
/// of up to four megabytes is announced then twice as much again.
pub const TRANSACTION_FLOOR: usize = 36 * 1024 * 1024;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator with a count per thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn took(bytes: usize) {
    // A thread that ends has no counters any more, and nobody who reads them.
    let _ = HELD.try_with(|held| {
        let now = held.get().saturating_add(bytes);
        held.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

fn gave(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Runs `read` over an input of `len` bytes, and asserts that it never held more than four times that and 64 KiB.
pub fn bounded<R>(len: usize, read: impl FnOnce() -> R) -> R {
    bounded_by(FLOOR, len, read)
}

/// The same with another floor than 64 KiB.
pub fn bounded_by<R>(floor: usize, len: usize, read: impl FnOnce() -> R) -> R {
    let before = HELD.get();
    PEAK.set(before);
    let result = read();
    let peak = PEAK.get().saturating_sub(before);
    let limit = len.saturating_mul(4).saturating_add(floor);
    assert!(peak <= limit, "{peak} bytes were held at once for an input of {len}: the limit is {limit}");
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_is_counted_and_what_was_given_back_is_not() {
        for _ in 0..10 {
            bounded(0, || drop(std::hint::black_box(vec![1_u8; FLOOR / 2])));
        }
        let too_much = std::panic::catch_unwind(|| bounded(0, || std::hint::black_box(vec![1_u8; FLOOR + 1])));
        assert!(too_much.is_err());
    }
}
