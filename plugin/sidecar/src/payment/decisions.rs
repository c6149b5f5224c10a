//! Decisions on received HTLCs whose rows may not be durable yet: until they are, the file does not show them.

use std::collections::{HashSet, VecDeque};

use outrigger_bolt::id::PaymentHash;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::manager::relay::register::HtlcName;

/// A decision on a received HTLC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    pub(super) htlc: HtlcName,
    /// The hash of the invoice that it claims.
    pub(super) claims: Option<PaymentHash>,
}

/// What was decided and queued. Rows become durable in the order in which they are queued, so the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    queued: VecDeque<(Decision, oneshot::Receiver<()>)>,
    decided: HashSet<HtlcName>,
    claimed: HashSet<PaymentHash>,
}

impl Decisions {
    /// Remembers a decision until `durable` says that its rows are.
    pub(super) fn add(&mut self, decision: Decision, durable: oneshot::Receiver<()>) {
        let Decision { htlc, claims } = decision;
        self.decided.insert(htlc);
        self.claimed.extend(claims);
        self.queued.push_back((decision, durable));
    }

    /// Forgets what the file shows by now. To be called before the file is read: what is forgotten here is found there.
    pub(super) fn forget_durable(&mut self) {
        while let Some((Decision { htlc, claims }, durable)) = self.queued.front_mut()
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
    use outrigger_bolt::id::ChannelId;

    use super::*;

    #[test]
    fn a_decision_is_remembered_until_its_rows_are_durable() {
        let mut decisions = Decisions::default();
        let name = |htlc_id| HtlcName { channel: ChannelId([1; 32]), htlc_id };
        let (first, second) = (name(0), name(1));
        let hash = PaymentHash([7; 32]);
        let (written, durable) = oneshot::channel();
        let (_unwritten, pending) = oneshot::channel();
        decisions.add(Decision { htlc: first, claims: Some(hash) }, durable);
        decisions.add(Decision { htlc: second, claims: None }, pending);
        decisions.forget_durable();
        assert!(decisions.has_decided(&first) && decisions.has_decided(&second) && decisions.has_claimed(&hash));
        written.send(()).unwrap();
        decisions.forget_durable();
        assert!(!decisions.has_decided(&first) && !decisions.has_claimed(&hash));
        assert!(decisions.has_decided(&second));
    }
}
