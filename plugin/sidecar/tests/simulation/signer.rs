//! Signers that are watched over the whole life of a node, restarts included: what they sign, and which secrets are out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::keys::CommitmentKeys;
use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
use outrigger_channel::{ChannelParams, Guard, Signer, SigningRefused, SoftSigner};
use outrigger_sidecar::key::NodeKeys;
use parking_lot::Mutex;

use super::fake::Fake;
use super::layered::{Layer, Layered};

/// Whose commitment a per-commitment point is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub node: usize,
    pub keys_index: u64,
    pub number: u64,
}

/// What all signers of a simulation have done.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    pub points: HashMap<PublicKey, Point>,
    /// What a node that starts again need not derive again, where its signers are fake.
    pub known: HashMap<Point, PublicKey>,
    /// Points whose secret has left its node.
    pub revealed: HashSet<PublicKey>,
    /// The lowest number of each channel side whose secret has not left.
    pub released_below: HashMap<(usize, u64), u64>,
    /// The newest own commitment of each channel side that was signed.
    pub signed_local: HashMap<(usize, u64), u64>,
    /// Channel sides of which a commitment was published: their secrets stay where they are.
    pub published: HashSet<(usize, u64)>,
    /// For which point of the peer a signature was made.
    pub signed: HashMap<Signature, PublicKey>,
    pub signatures: u64,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

impl Journal {
    /// A commitment of this channel side is published, the one that was signed last.
    pub fn publishes(&mut self, side: (usize, u64)) {
        let (below, number) = (self.released_below.get(&side).copied(), self.signed_local.get(&side).copied());
        if number < below {
            self.violations.push(format!("{side:?} publishes its commitment {number:?}, revoked below {below:?}"));
        }
        self.published.insert(side);
    }

    /// The secret of this commitment leaves.
    pub fn reveals(&mut self, point: PublicKey, whose: Point) {
        let side = (whose.node, whose.keys_index);
        if self.published.contains(&side) {
            self.violations.push(format!("the secret of {whose:?} leaves after a commitment was published"));
        }
        self.revealed.insert(point);
        let below = self.released_below.entry(side).or_default();
        *below = (*below).max(whose.number + 1);
    }
}

/// Who signs in a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// The daemon's signer.
    Real,
    Fake,
}

/// Of so many seeds one has real signers.
const REAL_EVERY: u64 = 4;

impl Signing {
    pub fn of(seed: u64) -> Self {
        if seed.is_multiple_of(REAL_EVERY) { Self::Real } else { Self::Fake }
    }
}

/// The signers of a simulation.
#[derive(Clone)]
pub struct Signers {
    pub signing: Signing,
    pub journal: Arc<Mutex<Journal>>,
}

impl Signers {
    /// The signer of a channel of a node.
    pub fn signer(&self, keys: &NodeKeys, node: usize, keys_index: u64) -> Arc<dyn Signer> {
        let (real, journal) = (SoftSigner::new(keys.channel_seed(keys_index)), self.journal.clone());
        let inner: Box<dyn Signer> = match self.signing {
            Signing::Real => Box::new(real),
            Signing::Fake => Box::new(Layered(Fake { real, node, keys_index, journal: journal.clone() })),
        };
        Arc::new(Layered(Watched { inner, node, keys_index, journal }))
    }
}

/// A signer whose every act is in the journal.
struct Watched {
    inner: Box<dyn Signer>,
    node: usize,
    keys_index: u64,
    journal: Arc<Mutex<Journal>>,
}

impl Layer for Watched {
    fn inner(&self) -> &dyn Signer {
        &*self.inner
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
        let side = (self.node, self.keys_index);
        let below = journal.released_below.get(&side).copied().unwrap_or_default();
        if signed.is_ok() {
            journal.signed_local.insert(side, plan.number);
        }
        if signed.is_ok() && plan.number < below {
            let (node, number) = (self.node, plan.number);
            journal.violations.push(format!("node {node} signs its own commitment {number}, revoked below {below}"));
        }
        signed
    }
}
