//! A signer that remembers every commitment that it signed.

use std::collections::HashMap;
use std::sync::Mutex;

use bitcoin::Txid;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::keys::CommitmentKeys;
use outrigger_bolt::tx::commitment::CommitmentTx;
use outrigger_channel::{ChannelParams, Signer, SoftSigner};

use super::layered::{Layer, Layered};

pub type LoggingSigner = Layered<Log>;

pub struct Log {
    inner: SoftSigner,
    signed: Mutex<HashMap<Txid, (Signature, CommitmentTx)>>,
}

impl LoggingSigner {
    pub fn new(seed: [u8; 32]) -> Self {
        Self(Log { inner: SoftSigner::new(seed), signed: Mutex::new(HashMap::new()) })
    }

    /// Whether this very commitment of the peer was ever signed.
    pub fn has_signed(&self, txid: &Txid) -> bool {
        self.0.signed.lock().expect("the log").contains_key(txid)
    }

    /// The first commitment, at the opening.
    pub fn only_commitment(&self) -> CommitmentTx {
        let signed = self.0.signed.lock().expect("the log");
        assert_eq!(signed.len(), 1);
        signed.values().next().expect("one").1.clone()
    }

    /// Our signature for it.
    pub fn signature_of(&self, txid: &Txid) -> Signature {
        self.0.signed.lock().expect("the log").get(txid).expect("a commitment that we signed").0
    }

    /// The commitment that this signature signs.
    pub fn commitment_of(&self, signature: &Signature) -> CommitmentTx {
        let signed = self.0.signed.lock().expect("the log");
        let (_, commitment) = signed.values().find(|(known, _)| known == signature).expect("a signature of ours");
        commitment.clone()
    }
}

impl Layer for Log {
    fn inner(&self) -> &dyn Signer {
        &self.inner
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
}
