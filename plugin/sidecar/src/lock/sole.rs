//! What a thread does once at a time.

use std::cell::RefCell;

thread_local! {
    /// The tasks of this thread that are at it; outside of models there is one.
    static AT_IT: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

/// One thread of execution: a thread, or in a model one of the tasks that take turns on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task(#[cfg(test)] Option<shuttle::scheduler::TaskId>);

pub(super) fn task() -> Task {
    Task(
        #[cfg(test)]
        shuttle::current::try_get_current_task(),
    )
}

/// Says for as long as it lives that this thread is at something that it may not do twice at a time. Watched in release
/// builds too.
#[derive(Debug)]
pub struct Sole(Task);

impl Sole {
    /// A second one on the same thread is a bug, and stops the thread with these words.
    #[expect(clippy::panic, reason = "a nested lock is a bug that could deadlock: law 3 stops the process instead")]
    pub fn begin(words: &str) -> Self {
        let task = task();
        let is_first = AT_IT.with_borrow_mut(|at_it| {
            let is_first = !at_it.contains(&task);
            if is_first {
                at_it.push(task);
            }
            is_first
        });
        if !is_first {
            panic!("{words}");
        }
        Self(task)
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        AT_IT.with_borrow_mut(|at_it| at_it.retain(|task| *task != self.0));
    }
}
