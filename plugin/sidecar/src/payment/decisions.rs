//! Decisions on received HTLCs whose rows may not be durable yet: until they are, the file does not show them.

use std::collections::{HashMap, HashSet, VecDeque};

use outrigger_bolt::id::{ChannelId, PaymentHash};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::replay::OnionDigest;

/// A received HTLC: its channel and its id, never its hash.
pub(super) type HtlcName = (ChannelId, u64);

/// A decision on a received HTLC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision {
    pub(super) htlc: HtlcName,
    /// The hash of the invoice that it claims.
    pub(super) claims: Option<PaymentHash>,
    /// The onion that was processed for it.
    pub(super) onion: Option<OnionDigest>,
}

/// What was decided and queued. Rows become durable in the order in which they are queued, so the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    queued: VecDeque<(Decision, oneshot::Receiver<()>)>,
    decided: HashSet<HtlcName>,
    claimed: HashSet<PaymentHash>,
    processed: HashMap<OnionDigest, HtlcName>,
}

impl Decisions {
    /// Remembers a decision until `durable` says that its rows are.
    pub(super) fn add(&mut self, decision: Decision, durable: oneshot::Receiver<()>) {
        let Decision { htlc, claims, onion } = decision;
        self.decided.insert(htlc);
        self.claimed.extend(claims);
        self.processed.extend(onion.map(|onion| (onion, htlc)));
        self.queued.push_back((decision, durable));
    }

    /// Forgets what the file shows by now. To be called before the file is read: what is forgotten here is found there.
    pub(super) fn forget_durable(&mut self) {
        while let Some((Decision { htlc, claims, onion }, durable)) = self.queued.front_mut()
            && !matches!(durable.try_recv(), Err(TryRecvError::Empty))
        {
            self.decided.remove(htlc);
            if let Some(hash) = claims {
                self.claimed.remove(hash);
            }
            if let Some(onion) = onion {
                self.processed.remove(onion);
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

    /// The HTLC for which this onion was processed, where that is on its way to the file.
    pub(super) fn processed_for(&self, onion: &OnionDigest) -> Option<HtlcName> {
        self.processed.get(onion).copied()
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
        decisions.add(Decision { htlc: first, claims: Some(hash), onion: Some([8; 32]) }, durable);
        decisions.add(Decision { htlc: second, claims: None, onion: None }, pending);
        decisions.forget_durable();
        assert_eq!(decisions.processed_for(&[8; 32]), Some(first));
        assert!(decisions.has_decided(&first) && decisions.has_decided(&second) && decisions.has_claimed(&hash));
        written.send(()).unwrap();
        decisions.forget_durable();
        assert!(!decisions.has_decided(&first) && !decisions.has_claimed(&hash));
        assert_eq!(decisions.processed_for(&[8; 32]), None);
        assert!(decisions.has_decided(&second));
    }
}
