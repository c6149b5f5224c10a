//! A signer that saves the work on the curve, for most seeds. Its signatures are digests, so anybody could make them; a
//! signature for other bytes or by another key is refused as a real one would be.
//!
//! What is not looked at where it signs, and is in the seeds with real signers: that a channel's signatures and keys hold
//! on the curve, and so by the rules of consensus; that a node can sign for the keys in the scripts; that a high S is
//! refused. Per-commitment points and secrets, onions and invoices are real in every seed.

use std::sync::{Arc, LazyLock};

use bitcoin::Transaction;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use outrigger_bolt::keys::{Basepoints, CommitmentKeys, DegenerateKey, InvalidSignature, public_key};
use outrigger_bolt::tx::commitment::CommitmentTx;
use outrigger_bolt::tx::htlc::second_stage_sighash;
use outrigger_channel::{ChannelParams, Signer, SoftSigner};
use parking_lot::Mutex;

use super::layered::Layer;
use super::signer::{Journal, Point};

pub struct Fake {
    /// Its basepoints, points and secrets; and what no simulation gets to, the claims of a channel that ends alone.
    pub real: SoftSigner,
    pub node: usize,
    pub keys_index: u64,
    pub journal: Arc<Mutex<Journal>>,
}

/// Points in the scripts of commitments: any will do that both sides take alike.
static POINTS: LazyLock<Vec<PublicKey>> = LazyLock::new(|| {
    let secret = |number: u32| SecretKey::from_slice(sha256::Hash::hash(&number.to_be_bytes()).as_byte_array());
    (0..1024).map(|number| public_key(&secret(number).expect("a key"))).collect()
});

fn digest(parts: &[&[u8]]) -> sha256::Hash {
    let mut engine = sha256::Hash::engine();
    parts.iter().for_each(|part| engine.input(part));
    sha256::Hash::from_engine(engine)
}

/// R is a digest of what is signed and by whom, and S is one: a form that a real signature could have.
fn sign(sighash: &Message, key: &PublicKey) -> Signature {
    let mut compact = [0; 64];
    compact[1..32].copy_from_slice(&digest(&[sighash.as_ref(), &key.serialize()])[1..]);
    compact[63] = 1;
    Signature::from_compact(&compact).expect("R and S are below the order of the curve")
}

/// The point that stands for one that is derived.
fn derived(basepoint: &PublicKey, per_commitment_point: &PublicKey) -> PublicKey {
    let digest = digest(&[&basepoint.serialize(), &per_commitment_point.serialize()]);
    POINTS[usize::from(u16::from_be_bytes([digest[0], digest[1]])) % POINTS.len()]
}

impl Layer for Fake {
    fn inner(&self) -> &dyn Signer {
        &self.real
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        let whose = Point { node: self.node, keys_index: self.keys_index, number };
        *self.journal.lock().known.entry(whose).or_insert_with(|| self.real.per_commitment_point(number))
    }

    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        let signature = self.sign_closing(params, &commitment.tx);
        let (txid, delay) = (commitment.txid(), params.local.to_self_delay);
        let outputs = commitment.htlc_outputs.iter();
        let sighashes = outputs.map(|output| second_stage_sighash(txid, output, keys, delay));
        (signature, sighashes.map(|sighash| sign(&sighash, &keys.other_htlc)).collect())
    }

    fn sign_closing(&self, params: &ChannelParams, closing: &Transaction) -> Signature {
        sign(&params.funding_output().sighash(closing), &self.real.basepoints().funding_pubkey)
    }

    fn verify(&self, sighash: &Message, signature: &Signature, key: &PublicKey) -> Result<(), InvalidSignature> {
        if *signature == sign(sighash, key) { Ok(()) } else { Err(InvalidSignature::Mismatch) }
    }

    fn commitment_keys(
        &self,
        owner: &Basepoints,
        other: &Basepoints,
        per_commitment_point: &PublicKey,
    ) -> Result<CommitmentKeys, DegenerateKey> {
        Ok(CommitmentKeys {
            per_commitment_point: *per_commitment_point,
            revocation: derived(&other.revocation, per_commitment_point),
            delayed_payment: derived(&owner.delayed_payment, per_commitment_point),
            owner_htlc: derived(&owner.htlc, per_commitment_point),
            other_htlc: derived(&other.htlc, per_commitment_point),
            other_payment: other.payment,
        })
    }
}
