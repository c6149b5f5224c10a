//! The payments whose end is not known, as their owner keeps them.

use std::time::Instant;

use super::super::State;
use super::super::words::Explained;
use super::{Next, Pending};
use crate::clock::Clock;
use crate::store::Batch;

impl State {
    /// An HTLC has failed; none where it is known already.
    pub(super) fn fails(&mut self, (payment_id, part): ([u8; 32], u16), explained: Explained) -> Option<Next> {
        self.with(&payment_id, |pending| pending.fails(part, explained, Clock::monotonic()))
    }

    pub(in super::super) fn with(
        &mut self,
        payment_id: &[u8; 32],
        change: impl FnOnce(Pending) -> (Option<Pending>, Option<Next>),
    ) -> Option<Next> {
        let (left, next) = change(self.forget(payment_id)?);
        if let Some(pending) = left {
            self.remember(pending);
        }
        next
    }

    /// Keeps what is to be written of the payment until it goes on, and returns it where that is not so.
    pub(super) fn defer(
        &mut self,
        payment_id: &[u8; 32],
        batch: Batch,
        which: impl Fn(&Batch) -> bool,
    ) -> Option<Batch> {
        match self.pending.get_mut(payment_id).filter(|pending| which(&pending.deferred)) {
            Some(pending) => {
                pending.deferred.merge(batch);
                None
            }
            None => Some(batch),
        }
    }

    /// The payment is looked at again at that time, or with those that are looked at sooner.
    pub(in super::super) fn wait(&mut self, payment_id: [u8; 32], at: Option<Instant>) {
        self.waiting.insert(payment_id);
        self.next_look = self.next_look.into_iter().chain(at).min();
    }

    /// Takes a payment out, with what names it.
    pub(in super::super) fn forget(&mut self, payment_id: &[u8; 32]) -> Option<Pending> {
        let pending = self.pending.remove(payment_id)?;
        self.waiting.remove(payment_id);
        self.next_look = self.next_look.filter(|_| !self.waiting.is_empty());
        if self.by_hash.get(&pending.row.payment_hash) == Some(payment_id) {
            self.by_hash.remove(&pending.row.payment_hash);
        }
        Some(pending)
    }

    pub(in super::super) fn remember(&mut self, pending: Pending) {
        self.by_hash.insert(pending.row.payment_hash, pending.row.payment_id);
        self.pending.insert(pending.row.payment_id, pending);
    }
}
