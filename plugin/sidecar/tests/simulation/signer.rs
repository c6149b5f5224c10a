//! Signers that are watched over the whole life of a node, restarts included: what they sign, and which secrets are out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::amount::Sat;
use outrigger_bolt::keys::{Basepoints, CommitmentKeys};
use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
use outrigger_channel::{ChannelParams, Guard, ReleaseRefused, Signer, SigningRefused};
use parking_lot::Mutex;

/// Whose commitment a per-commitment point is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub node: usize,
    pub keys_index: u64,
    pub number: u64,
}

/// What all signers of a simulation have done.
#[derive(Debug, Default)]
pub struct Journal {
    pub points: HashMap<PublicKey, Point>,
    /// Points whose secret has left its node.
    pub revealed: HashSet<PublicKey>,
    /// The lowest number of each channel side whose secret has not left.
    pub released_below: HashMap<(usize, u64), u64>,
    /// For which point of the peer a signature was made.
    pub signed: HashMap<Signature, PublicKey>,
    pub signatures: u64,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

/// A signer whose every act is in the journal.
pub struct Watched {
    pub inner: Box<dyn Signer>,
    pub node: usize,
    pub keys_index: u64,
    pub journal: Arc<Mutex<Journal>>,
}

impl Signer for Watched {
    fn basepoints(&self) -> &Basepoints {
        self.inner.basepoints()
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        let point = self.inner.per_commitment_point(number);
        let whose = Point { node: self.node, keys_index: self.keys_index, number };
        self.journal.lock().points.insert(point, whose);
        point
    }

    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        let signatures = self.inner.sign_remote_commitment(params, commitment, keys);
        let mut journal = self.journal.lock();
        let point = keys.per_commitment_point;
        journal.signatures += 1 + signatures.1.len() as u64;
        if journal.revealed.contains(&point) {
            let whose = journal.points.get(&point).copied();
            journal.violations.push(format!("node {} signs a revoked commitment of its peer: {whose:?}", self.node));
        }
        journal.signed.insert(signatures.0, point);
        signatures
    }

    fn sign_local_commitment(
        &self,
        guard: &Guard,
        params: &ChannelParams,
        plan: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused> {
        let signed = self.inner.sign_local_commitment(guard, params, plan);
        let mut journal = self.journal.lock();
        let below = journal.released_below.get(&(self.node, self.keys_index)).copied().unwrap_or_default();
        if signed.is_ok() && plan.number < below {
            let (node, number) = (self.node, plan.number);
            journal.violations.push(format!("node {node} signs its own commitment {number}, revoked below {below}"));
        }
        signed
    }

    fn sign_closing(&self, params: &ChannelParams, closing: &Transaction) -> Signature {
        self.inner.sign_closing(params, closing)
    }

    fn sign_anchor(&self, params: &ChannelParams, spend: &Transaction, input: usize) -> Option<Signature> {
        self.inner.sign_anchor(params, spend, input)
    }

    fn sign_to_local(
        &self,
        params: &ChannelParams,
        number: u64,
        place: (&Transaction, usize, Sat),
    ) -> Option<Signature> {
        self.inner.sign_to_local(params, number, place)
    }

    fn sign_to_remote(&self, place: (&Transaction, usize, Sat)) -> Option<Signature> {
        self.inner.sign_to_remote(place)
    }

    fn release_secret(&self, number: u64, guard: &Guard) -> Result<[u8; 32], ReleaseRefused> {
        self.inner.release_secret(number, guard)
    }
}
