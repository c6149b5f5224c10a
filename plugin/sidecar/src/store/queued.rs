//! Facts whose rows are on their way to the file: until those are durable, the file does not show them.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Batch, Held};

/// What was staged and is not yet in the file. A key keeps its value for as long as it is known, here or there. Rows become
/// durable in the order in which they are queued, so the oldest goes first.
#[derive(Debug)]
pub struct Queued<K, V> {
    order: VecDeque<(K, oneshot::Receiver<()>)>,
    facts: HashMap<K, V>,
}

impl<K, V> Default for Queued<K, V> {
    fn default() -> Self {
        Self { order: VecDeque::new(), facts: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Queued<K, V> {
    /// Remembers a fact until the batch that has its rows is durable.
    pub fn add(&mut self, key: K, value: V, batch: &mut Batch) {
        let (waiter, durable) = oneshot::channel();
        batch.hold(Held::Durable(waiter));
        self.facts.insert(key, value);
        self.order.push_back((key, durable));
    }

    /// The fact of this key, where it is on its way. To be asked before the file is: what is forgotten here is found there.
    pub fn get(&mut self, key: &K) -> Option<V> {
        while let Some((oldest, durable)) = self.order.front_mut()
            && !matches!(durable.try_recv(), Err(TryRecvError::Empty))
        {
            self.facts.remove(oldest);
            self.order.pop_front();
        }
        self.facts.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_remembered_until_its_rows_are_durable_or_never_will_be() {
        let mut queued = Queued::default();
        let [mut written, mut waiting, mut dropped] = [(); 3].map(|()| Batch::default());
        queued.add(1, 'a', &mut written);
        queued.add(2, 'b', &mut dropped);
        queued.add(3, 'c', &mut waiting);
        assert_eq!([1, 2, 3, 4].map(|key| queued.get(&key)), [Some('a'), Some('b'), Some('c'), None]);
        for held in written.release().open() {
            let Held::Durable(waiter) = held else { panic!("{held:?}") };
            waiter.send(()).unwrap();
        }
        assert_eq!([1, 2, 3].map(|key| queued.get(&key)), [None, Some('b'), Some('c')]);
        drop(dropped);
        assert_eq!([1, 2, 3].map(|key| queued.get(&key)), [None, None, Some('c')]);
        assert_eq!(queued.order.len(), 1, "what is forgotten takes no room");
    }
}
