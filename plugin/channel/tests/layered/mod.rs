//! A signer before another one: it does what its layer says, and the other does the rest.
#![allow(unreachable_pub, reason = "a part of several test binaries")]

use bitcoin::Transaction;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::keys::{Basepoints, CommitmentKeys, DegenerateKey, InvalidSignature};
use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
use outrigger_channel::{ChannelParams, Guard, ReleaseRefused, Signer, SigningRefused};

/// What is done otherwise, or looked at; nothing, if nothing is said.
pub trait Layer: Send + Sync {
    /// Who does the rest.
    fn inner(&self) -> &dyn Signer;

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        self.inner().per_commitment_point(number)
    }

    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        self.inner().sign_remote_commitment(params, commitment, keys)
    }

    fn sign_local_commitment(
        &self,
        guard: &Guard,
        params: &ChannelParams,
        plan: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused> {
        self.inner().sign_local_commitment(guard, params, plan)
    }

    fn sign_closing(&self, params: &ChannelParams, closing: &Transaction) -> Signature {
        self.inner().sign_closing(params, closing)
    }

    fn release_secret(&self, number: u64, guard: &Guard) -> Result<[u8; 32], ReleaseRefused> {
        self.inner().release_secret(number, guard)
    }

    fn verify(&self, sighash: &Message, signature: &Signature, key: &PublicKey) -> Result<(), InvalidSignature> {
        self.inner().verify(sighash, signature, key)
    }

    fn commitment_keys(
        &self,
        owner: &Basepoints,
        other: &Basepoints,
        per_commitment_point: &PublicKey,
    ) -> Result<CommitmentKeys, DegenerateKey> {
        self.inner().commitment_keys(owner, other, per_commitment_point)
    }
}

/// The signer that a layer makes of the one behind it.
pub struct Layered<L>(pub L);

impl<L: Layer> Signer for Layered<L> {
    fn basepoints(&self) -> &Basepoints {
        self.0.inner().basepoints()
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        self.0.per_commitment_point(number)
    }

    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        self.0.sign_remote_commitment(params, commitment, keys)
    }

    fn sign_local_commitment(
        &self,
        guard: &Guard,
        params: &ChannelParams,
        plan: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused> {
        self.0.sign_local_commitment(guard, params, plan)
    }

    fn sign_closing(&self, params: &ChannelParams, closing: &Transaction) -> Signature {
        self.0.sign_closing(params, closing)
    }

    fn sign_anchor(&self, params: &ChannelParams, spend: &Transaction, input: usize) -> Option<Signature> {
        self.0.inner().sign_anchor(params, spend, input)
    }

    fn sign_to_local(
        &self,
        params: &ChannelParams,
        number: u64,
        place: (&Transaction, usize, Sat),
    ) -> Option<Signature> {
        self.0.inner().sign_to_local(params, number, place)
    }

    fn sign_to_remote(&self, place: (&Transaction, usize, Sat)) -> Option<Signature> {
        self.0.inner().sign_to_remote(place)
    }

    fn release_secret(&self, number: u64, guard: &Guard) -> Result<[u8; 32], ReleaseRefused> {
        self.0.release_secret(number, guard)
    }

    fn verify(&self, sighash: &Message, signature: &Signature, key: &PublicKey) -> Result<(), InvalidSignature> {
        self.0.verify(sighash, signature, key)
    }

    fn commitment_keys(
        &self,
        owner: &Basepoints,
        other: &Basepoints,
        per_commitment_point: &PublicKey,
    ) -> Result<CommitmentKeys, DegenerateKey> {
        self.0.commitment_keys(owner, other, per_commitment_point)
    }
}
