//! Decisions on received HTLCs whose rows may not be durable yet: until they are, the file does not show them.

use std::collections::{HashSet, VecDeque};

use outrigger_bolt::id::{ChannelId, PaymentHash};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// A received HTLC: its channel and its id, never its hash.
pub(super) type HtlcName = (ChannelId, u64);

/// What was decided and queued. Rows become durable in the order in which they are queued, so the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    queued: VecDeque<(HtlcName, Option<PaymentHash>, oneshot::Receiver<()>)>,
    decided: HashSet<HtlcName>,
    claimed: HashSet<PaymentHash>,
}

impl Decisions {
    /// Remembers a decision, with the hash of the invoice that it claims, until `durable` says that its rows are.
    pub(super) fn add(&mut self, htlc: HtlcName, claims: Option<PaymentHash>, durable: oneshot::Receiver<()>) {
        self.decided.insert(htlc);
        self.claimed.extend(claims);
        self.queued.push_back((htlc, claims, durable));
    }

    /// Forgets what the file shows by now. To be called before the file is read: what is forgotten here is found there.
    pub(super) fn forget_durable(&mut self) {
        while let Some((htlc, claims, durable)) = self.queued.front_mut()
            && !matches!(durable.try_recv(), Err(TryRecvError::Empty))
        {
            self.decided.remove(htlc);
            if let Some(hash) = claims {
                self.claimed.remove(hash);
            }
            self.queued.pop_front();
        }
    }

    /// Whether a decision on this HTLC is on its way to the file.
    pub(super) fn has_decided(&self, htlc: &HtlcName) -> bool {
        self.decided.contains(htlc)
    }

    /// Whether a claim of this invoice is on its way to the file.
    pub(super) fn has_claimed(&self, hash: &PaymentHash) -> bool {
        self.claimed.contains(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_remembered_until_its_rows_are_durable() {
        let mut decisions = Decisions::default();
        let (first, second) = ((ChannelId([1; 32]), 0), (ChannelId([1; 32]), 1));
        let hash = PaymentHash([7; 32]);
        let (written, durable) = oneshot::channel();
        let (_unwritten, pending) = oneshot::channel();
        decisions.add(first, Some(hash), durable);
        decisions.add(second, None, pending);
        decisions.forget_durable();
        assert!(decisions.has_decided(&first) && decisions.has_decided(&second) && decisions.has_claimed(&hash));
        written.send(()).unwrap();
        decisions.forget_durable();
        assert!(!decisions.has_decided(&first) && !decisions.has_claimed(&hash));
        assert!(decisions.has_decided(&second));
    }
}
