//! A signer that remembers every commitment that it signed.

use std::collections::HashMap;
use std::sync::Mutex;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Transaction, Txid};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::keys::{Basepoints, CommitmentKeys};
use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
use outrigger_channel::{ChannelParams, Guard, ReleaseRefused, Signer, SigningRefused, SoftSigner};

pub struct LoggingSigner {
    inner: SoftSigner,
    signed: Mutex<HashMap<Txid, (Signature, CommitmentTx)>>,
}

impl LoggingSigner {
    pub fn new(seed: [u8; 32]) -> Self {
        Self { inner: SoftSigner::new(seed), signed: Mutex::new(HashMap::new()) }
    }

    /// Whether this very commitment of the peer was ever signed.
    pub fn has_signed(&self, txid: &Txid) -> bool {
        self.signed.lock().expect("the log").contains_key(txid)
    }

    /// The first commitment, at the opening.
    pub fn only_commitment(&self) -> CommitmentTx {
        let signed = self.signed.lock().expect("the log");
        assert_eq!(signed.len(), 1);
        signed.values().next().expect("one").1.clone()
    }

    /// Our signature for it.
    pub fn signature_of(&self, txid: &Txid) -> Signature {
        self.signed.lock().expect("the log").get(txid).expect("a commitment that we signed").0
    }

    /// The commitment that this signature signs.
    pub fn commitment_of(&self, signature: &Signature) -> CommitmentTx {
        let signed = self.signed.lock().expect("the log");
        let (_, commitment) = signed.values().find(|(known, _)| known == signature).expect("a signature of ours");
        commitment.clone()
    }
}

impl Signer for LoggingSigner {
    fn basepoints(&self) -> &Basepoints {
        self.inner.basepoints()
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        self.inner.per_commitment_point(number)
    }

    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        let signatures = self.inner.sign_remote_commitment(params, commitment, keys);
        self.signed.lock().expect("the log").insert(commitment.txid(), (signatures.0, commitment.clone()));
        signatures
    }

    fn sign_local_commitment(
        &self,
        guard: &Guard,
        params: &ChannelParams,
        plan: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused> {
        self.inner.sign_local_commitment(guard, params, plan)
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
