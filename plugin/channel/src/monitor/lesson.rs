//! An update on its way into a monitor: what it writes, or why it cannot follow.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::OutPoint;
use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::id::PaymentHash;
use outrigger_bolt::keys::public_key;

use super::{Monitor, Previous, UpdateRefused, without_htlc_signatures};
use crate::changes::{
    Evidence, FundingSpend, HtlcRow, MonitorChanges, MonitorHead, MonitorStep, RemoteCommitment, SignedCommitment,
    Taken,
};
use crate::commitments::htlc::HtlcKey;

/// One update on its way in: the head as it will be, and the rows to write.
pub(super) struct Lesson<'a> {
    monitor: &'a Monitor,
    head: MonitorHead,
    changes: MonitorChanges,
}

impl<'a> Lesson<'a> {
    /// Over the rows as they are.
    pub(super) fn begin(monitor: &'a Monitor) -> Self {
        Self { monitor, head: monitor.rows.head.clone(), changes: MonitorChanges::default() }
    }

    /// What the update of this id writes.
    pub(super) fn end(mut self, id: u64) -> MonitorChanges {
        self.head.update_id = id;
        self.changes.head = Some(self.head);
        self.changes
    }

    pub(super) fn learn(&mut self, step: &MonitorStep) -> Result<(), UpdateRefused> {
        match step {
            MonitorStep::Funded { .. } => {
                return Err(UpdateRefused::NotFunded { id: self.head.update_id.saturating_add(1) });
            }
            MonitorStep::LocalCommitment(commitment) => self.local_commitment(commitment)?,
            MonitorStep::RemoteCommitment(commitment) => self.remote_commitment(commitment)?,
            MonitorStep::Revocation { number, secret } => self.revocation(*number, secret)?,
            MonitorStep::Preimage(preimage) => {
                self.changes.preimages.insert(preimage.payment_hash(), Some(*preimage));
            }
            MonitorStep::Failed { publish } => {
                self.head.failed = true;
                self.head.may_publish &= publish;
                self.head.reserved = false;
                if self.head.may_publish {
                    // Whoever publishes it must never tell its secret.
                    self.head.closing.get_or_insert(self.head.local.number);
                }
            }
            MonitorStep::Reserved { number } => self.reserve(*number)?,
            MonitorStep::Due => {
                self.head.may_publish |= std::mem::take(&mut self.head.reserved);
            }
            MonitorStep::FundingSpent(spend) => {
                self.head.told_spend = Some(spend.place());
                self.put_spend(Some(spend.clone()));
            }
            MonitorStep::FundingUnspent => self.put_spend(None),
            MonitorStep::OutputTaken(outpoint, taken) => {
                self.changes.taken.insert(*outpoint, Some(*taken));
            }
            MonitorStep::OutputsUntaken { from_height } => self.forget_taken(|taken| taken.height >= *from_height),
            MonitorStep::TakenBuried { height } => {
                let buried = self.monitor.rows.taken.iter().filter(|(_, taken)| taken.height <= *height);
                let told = buried.map(|(outpoint, taken)| (*outpoint, Some(Taken { told: true, ..*taken })));
                self.changes.taken.extend(told);
            }
            MonitorStep::Closed => {
                self.head.closed = true;
                self.put_spend(None);
            }
        }
        Ok(())
    }

    /// What stands in the chain in the place of what stood there: what was taken from that was never taken.
    fn put_spend(&mut self, spend: Option<FundingSpend>) {
        if self.monitor.rows.spend.is_some() || spend.is_some() {
            self.changes.spend = Some(spend);
        }
        self.forget_taken(|_| true);
    }

    fn forget_taken(&mut self, which: impl Fn(&Taken) -> bool) {
        let taken = self.monitor.rows.taken.iter().filter(|(_, taken)| which(taken));
        let forgotten: Vec<OutPoint> = taken.map(|(outpoint, _)| *outpoint).collect();
        self.changes.taken.extend(forgotten.into_iter().map(|outpoint| (outpoint, None)));
    }

    fn local_commitment(&mut self, commitment: &SignedCommitment) -> Result<(), UpdateRefused> {
        self.signable()?;
        let replaced = self.head.local.number;
        due(replaced.saturating_add(1), commitment.number)?;
        // A commitment without HTLC outputs has no row here.
        if self.monitor.rows.htlc_signatures.contains_key(&replaced) {
            self.changes.htlc_signatures.insert(replaced, None);
        }
        if !commitment.htlc_signatures.is_empty() {
            self.changes.htlc_signatures.insert(commitment.number, Some(commitment.htlc_signatures.clone()));
        }
        self.head.local = without_htlc_signatures(commitment);
        Ok(())
    }

    /// The newest commitment that every required backup has is kept, with all that can be claimed of it, beyond the rows that the
    /// channel still has of it.
    fn reserve(&mut self, number: u64) -> Result<(), UpdateRefused> {
        let newest = self.head.local.number;
        if number != newest {
            let previous = self.monitor.previous.as_ref();
            let previous = previous.filter(|previous| previous.replaced.commitment.number == number);
            let Previous { replaced, preimages } =
                previous.ok_or(UpdateRefused::Commitment { expected: newest, found: number })?.as_ref();
            let told = preimages.iter().map(|preimage| (preimage.payment_hash(), Some(*preimage)));
            self.changes.preimages.extend(told);
            self.head.replaced = Some(Box::new(replaced.clone()));
        }
        (self.head.closing, self.head.reserved) = (Some(number), true);
        Ok(())
    }

    fn remote_commitment(&mut self, commitment: &RemoteCommitment) -> Result<(), UpdateRefused> {
        self.signable()?;
        let expected = self.head.remote.number.saturating_add(1);
        if self.head.remote_next.is_some() {
            // BOLT 2: one unrevoked successor at most.
            return Err(UpdateRefused::Commitment { expected, found: commitment.number });
        }
        due(expected, commitment.number)?;
        self.head.remote_next = Some(commitment.clone());
        Ok(())
    }

    fn revocation(&mut self, number: u64, secret: &[u8; 32]) -> Result<(), UpdateRefused> {
        let refused = UpdateRefused::Secret { number };
        due(self.head.remote.number, number)?;
        let Some(next) = self.head.remote_next.take() else {
            return Err(UpdateRefused::Commitment { expected: number, found: number });
        };
        let promised = SecretKey::from_slice(secret).map_err(|_| refused)?;
        if public_key(&promised) != self.head.remote.point {
            return Err(refused);
        }
        let slot = self.monitor.secrets.clone().insert(number, *secret).map_err(|_| refused)?;
        self.changes.secrets.insert(slot, (number, *secret));
        self.head.next_secret_number = number.saturating_add(1);
        self.head.remote = next;
        Ok(())
    }

    fn signable(&self) -> Result<(), UpdateRefused> {
        if self.head.failed || self.head.closed { Err(UpdateRefused::Failed) } else { Ok(()) }
    }

    /// An HTLC has a row from the first commitment on that holds it: then its evidence is written, once.
    pub(super) fn keep_evidence(&mut self, htlcs: &BTreeMap<HtlcKey, Option<HtlcRow>>) {
        let known = &self.monitor.rows.htlcs;
        let first_seen = htlcs.iter().filter(|(key, _)| !known.contains_key(key));
        self.changes.evidence.extend(first_seen.filter_map(|(key, row)| Some((*key, Evidence::of(row.as_ref()?)))));
    }

    /// A preimage has done its work when the last HTLC with its hash is irrevocably removed (FWD-1).
    pub(super) fn forget_preimages(&mut self, htlcs: &BTreeMap<HtlcKey, Option<HtlcRow>>) {
        let rows = &self.monitor.rows;
        let removed: BTreeSet<PaymentHash> = htlcs
            .iter()
            .filter(|(_, row)| row.is_none())
            .filter_map(|(key, _)| Some(rows.htlcs.get(key)?.payment_hash))
            .filter(|hash| rows.preimages.contains_key(hash) || self.changes.preimages.contains_key(hash))
            .collect();
        if removed.is_empty() {
            return;
        }
        let standing = rows.htlcs.iter().filter(|(key, _)| !matches!(htlcs.get(key), Some(None))).map(|(_, row)| row);
        let written = htlcs.values().flatten();
        let needed: BTreeSet<PaymentHash> = standing.chain(written).map(|row| row.payment_hash).collect();
        for hash in removed.difference(&needed) {
            self.changes.preimages.insert(*hash, None);
        }
    }
}

fn due(expected: u64, found: u64) -> Result<(), UpdateRefused> {
    if expected == found { Ok(()) } else { Err(UpdateRefused::Commitment { expected, found }) }
}
