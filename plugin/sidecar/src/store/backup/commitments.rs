//! Which of our commitments of a channel every required sink has: none newer is published for a channel that a sink will never have
//! (the Persist contract, "PermanentFailure").

use std::collections::BTreeMap;

/// More than a peer can sign before it has our revocation: it lacks our per-commitment point for a third (BOLT 2,
/// `revoke_and_ack`).
const MOST_WAITING: usize = 4;

/// Local commitments by their numbers.
#[derive(Debug, Default)]
pub(super) struct LocalCommitments {
    complete: Option<u64>,
    /// Those that no revocation of ours may have followed yet, with the ids of the commits that they came with.
    waiting: BTreeMap<u64, u64>,
}

impl LocalCommitments {
    /// A commitment came with the commit of this id. It may be told again with a later one.
    pub(super) fn came(&mut self, number: u64, id: u64) {
        if self.complete.is_some_and(|complete| number <= complete) || self.waiting.len() >= MOST_WAITING {
            return;
        }
        self.waiting.entry(number).or_insert(id);
    }

    /// Every required sink has everything up to this id.
    pub(super) fn clear(&mut self, id: u64) {
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.get() <= id) {
            self.complete = Some(first.remove_entry().0);
        }
    }

    /// The newest that every required sink has; none where that is not known, as after a start.
    pub(super) fn complete(&self) -> Option<u64> {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_complete_one_rises_with_what_sinks_have_and_is_unknown_before() {
        let mut commitments = LocalCommitments::default();
        assert_eq!(commitments.complete(), None);
        commitments.came(7, 40);
        commitments.clear(39);
        assert_eq!(commitments.complete(), None, "a start does not know how far the sinks were");
        commitments.came(7, 45);
        commitments.clear(40);
        assert_eq!(commitments.complete(), Some(7), "told again it is no newer");
        commitments.came(8, 41);
        assert_eq!(commitments.complete(), Some(7));
        commitments.clear(u64::MAX);
        commitments.came(8, 50);
        commitments.came(7, 50);
        assert_eq!(commitments.complete(), Some(8));
        for number in 9..100 {
            commitments.came(number, 60);
        }
        assert_eq!(commitments.waiting.len(), MOST_WAITING);
    }
}
