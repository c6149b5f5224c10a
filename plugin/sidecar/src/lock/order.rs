//! The order in which locks are taken, learnt while the program runs: a lock that is taken against it could wait for ever,
//! and stops the thread that takes it instead, whether anything would have hung this time or not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;

use parking_lot::Mutex;

use super::sole::{Task, task};

/// Where locks of one kind are made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class(&'static Location<'static>);

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

impl Class {
    #[track_caller]
    pub(super) fn here() -> Self {
        Self(Location::caller())
    }
}

/// What was taken while what was held, and where that was.
static ORDER: Mutex<Order> = Mutex::new(Order { after: BTreeMap::new() });

struct Order {
    after: BTreeMap<Class, BTreeMap<Class, &'static Location<'static>>>,
}

impl Order {
    /// Learns that one is taken while the other is held. Where that turns a known order round, what that was.
    fn learn(
        &mut self,
        held: Class,
        taken: Class,
        at: &'static Location<'static>,
    ) -> Result<(), &'static Location<'static>> {
        if self.after.get(&held).is_some_and(|after| after.contains_key(&taken)) {
            return Ok(());
        }
        if let Some(earlier) = self.leads_to(taken, held) {
            return Err(earlier);
        }
        self.after.entry(held).or_default().insert(taken, at);
        Ok(())
    }

    /// The last step of a way from one class to another, if there is any.
    fn leads_to(&self, from: Class, to: Class) -> Option<&'static Location<'static>> {
        let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
        while let Some(class) = open.pop() {
            for (next, at) in self.after.get(&class).into_iter().flatten() {
                if *next == to {
                    return Some(at);
                }
                if seen.insert(*next) {
                    open.push(*next);
                }
            }
        }
        None
    }
}

thread_local! {
    /// What the tasks of this thread hold; outside of models there is one.
    static HELD: RefCell<Vec<(Task, Class)>> = const { RefCell::new(Vec::new()) };
}

/// A lock that is held, or waited for.
#[derive(Debug)]
pub(super) struct Entry(Task, Class);

impl Entry {
    #[track_caller]
    #[expect(clippy::panic, reason = "a lock that is taken against the order is a bug, and could hang")]
    pub(super) fn of(class: Class) -> Self {
        let (task, at) = (task(), Location::caller());
        let held: Vec<Class> =
            HELD.with_borrow(|held| held.iter().filter(|(of, _)| *of == task).map(|(_, class)| *class).collect());
        if held.contains(&class) {
            panic!("at {at}: a second lock of {class:?} while this thread holds one");
        }
        for other in held {
            let learnt = ORDER.lock().learn(other, class, at);
            if let Err(earlier) = learnt {
                panic!("at {at}: a lock of {class:?} while one of {other:?} is held; the other way round at {earlier}");
            }
        }
        HELD.with_borrow_mut(|held| held.push((task, class)));
        Self(task, class)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|entry| *entry == (self.0, self.1)) {
                held.remove(at);
            }
        });
    }
}
