//! The only seam to secrets. A signer derives what it signs from facts, and refuses by a guard of its own what a
//! corrupted caller could ask: a secret too early, or a commitment whose secret is out (KEY-4).

use bitcoin::Transaction;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::keys::{
    Basepoints, CommitmentKeys, DegenerateKey, InvalidSignature, derivation, per_commitment_secret, public_key, sign,
    verify,
};
use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
use outrigger_bolt::tx::fee::ANCHOR_SAT;
use outrigger_bolt::tx::funding::FundingOutput;
use outrigger_bolt::tx::htlc::second_stage_sighash;
use outrigger_bolt::tx::{claim, script};
use zeroize::Zeroizing;

use crate::changes::{ChannelParams, MonitorHead};

/// The keys of one channel: signs, and gives away per-commitment points and, when it is due, secrets.
pub trait Signer: Send + Sync {
    /// Our public keys of this channel (BOLT 3, "Key Derivation").
    fn basepoints(&self) -> &Basepoints;

    /// The point of the local commitment of this number, which counts from 0 and stays below 2^48.
    fn per_commitment_point(&self, number: u64) -> PublicKey;

    /// Signs a commitment of the peer and, in BOLT 3 output order, the second stage of each of its HTLC outputs
    /// (BOLT 2, `commitment_signed`). `keys` are those that the commitment was built with. The same arguments give the
    /// same bytes, so a message that is made again is the message that was lost (CST-3).
    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>);

    /// Signs a local commitment, which can then be published. The commitment is built here from its plan, so that what
    /// is signed is what the guard looked at.
    fn sign_local_commitment(
        &self,
        guard: &Guard,
        params: &ChannelParams,
        plan: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused>;

    /// Signs a mutual close (BOLT 3, "Closing Transaction").
    fn sign_closing(&self, params: &ChannelParams, closing: &Transaction) -> Signature;

    /// Signs input `input` of `spend`, which spends our anchor in a commitment of either side. `None` where there is no such
    /// input, as for the two below.
    fn sign_anchor(&self, params: &ChannelParams, spend: &Transaction, input: usize) -> Option<Signature>;

    /// Signs an input that spends our balance in the local commitment of this number, after its delay: the transaction,
    /// the place of the input in it, and what the output is worth.
    fn sign_to_local(
        &self,
        params: &ChannelParams,
        number: u64,
        place: (&Transaction, usize, Sat),
    ) -> Option<Signature>;

    /// Signs an input that spends our balance in any commitment of the peer.
    fn sign_to_remote(&self, place: (&Transaction, usize, Sat)) -> Option<Signature>;

    /// The per-commitment secret of a local commitment, which revokes it (BOLT 2, `revoke_and_ack`).
    fn release_secret(&self, number: u64, guard: &Guard) -> Result<[u8; 32], ReleaseRefused>;

    /// Checks a signature for a transaction of the channel (BOLT 2; CST-10). The secrets that are released stand on the
    /// peer's signatures, so it is the signer that says whether they are good: on the curve, but for signers of tests.
    fn verify(&self, sighash: &Message, signature: &Signature, key: &PublicKey) -> Result<(), InvalidSignature> {
        verify(sighash, signature, key)
    }

    /// The keys in the scripts of the commitment of `owner` with this per-commitment point (BOLT 3, "Key Derivation").
    fn commitment_keys(
        &self,
        owner: &Basepoints,
        other: &Basepoints,
        per_commitment_point: &PublicKey,
    ) -> Result<CommitmentKeys, DegenerateKey> {
        CommitmentKeys::derive(owner, other, per_commitment_point)
    }
}

impl ChannelParams {
    /// The funding output that was agreed on.
    pub fn funding_output(&self) -> FundingOutput {
        FundingOutput {
            pubkeys: [self.local.basepoints.funding_pubkey, self.remote.basepoints.funding_pubkey],
            amount: self.capacity,
        }
    }
}

/// What durable rows allow the signer. Made from them alone, so it moves in the commit that moves the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Secrets below this number may be released; the commitment of this number and later ones may be signed.
    released_below: u64,
    /// The one commitment that may be signed, once it is known which.
    closing: Option<u64>,
    /// The rows are known to be old: they allow nothing.
    sealed: bool,
}

impl Guard {
    /// The guard that durable monitor rows stand for: the successor of each commitment below `local` is signed by the
    /// peer and kept. Once one is published or reserved for it, its own secret stays whatever has taken its place.
    pub fn of(durable: &MonitorHead) -> Self {
        let newest = durable.local.number;
        let released_below = durable.closing.map_or(newest, |closing| closing.min(newest));
        Self { released_below, closing: durable.closing, sealed: !durable.may_publish }
    }

    /// The lowest local commitment whose secret was never released.
    pub fn released_below(&self) -> u64 {
        self.released_below
    }
}

/// The signer keeps a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseRefused {
    /// No durable commitment has taken the place of the one it revokes.
    #[error("secret {number} stays: the newest durable local commitment is {durable}")]
    NotReplaced { number: u64, durable: u64 },
    /// The rows are known to be old (restored mode).
    #[error("secret {number} stays: the channel's rows are old")]
    Sealed { number: u64 },
}

/// The signer does not sign a local commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningRefused {
    /// The rows are known to be old (restored mode): any commitment of theirs may be revoked.
    #[error("commitment {number} is not signed: the channel's rows are old")]
    Sealed { number: u64 },
    /// Its secret is out: the peer could take everything.
    #[error("commitment {number} may be revoked: the newest durable local commitment is {durable}")]
    Revoked { number: u64, durable: u64 },
    /// Another one is published, or kept for it.
    #[error("commitment {number} is not signed: the channel ends with {closing}")]
    NotTheLast { number: u64, closing: u64 },
    /// Its keys were not made from our per-commitment point of that number.
    #[error("commitment {number} is not built on our per-commitment point")]
    ForeignPoint { number: u64 },
    /// Its balances cannot pay its fee and anchors.
    #[error("commitment {number} cannot be built")]
    Unaffordable { number: u64 },
}

/// A signer with its keys in memory, all of them derived from one seed. It has no `Debug`; the keys are erased on drop.
pub struct SoftSigner {
    funding: SecretKey,
    payment: SecretKey,
    delayed_payment: SecretKey,
    htlc: SecretKey,
    basepoints: Basepoints,
    commitment_seed: Zeroizing<[u8; 32]>,
}

impl SoftSigner {
    /// The signer of the channel that this seed belongs to; the same seed always gives the same keys.
    pub fn new(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let public = |purpose: &str| {
            let mut secret = derive_secret(&seed, purpose);
            let point = public_key(&secret);
            secret.non_secure_erase();
            point
        };
        let basepoints = Basepoints {
            funding_pubkey: public("funding"),
            revocation: public("revocation"),
            payment: public("payment"),
            delayed_payment: public("delayed_payment"),
            htlc: public("htlc"),
        };
        Self {
            funding: derive_secret(&seed, "funding"),
            payment: derive_secret(&seed, "payment"),
            delayed_payment: derive_secret(&seed, "delayed_payment"),
            htlc: derive_secret(&seed, "htlc"),
            commitment_seed: Zeroizing::new(digest(&seed, "commitment_seed", 0)),
            basepoints,
        }
    }
}

impl Drop for SoftSigner {
    fn drop(&mut self) {
        self.funding.non_secure_erase();
        self.payment.non_secure_erase();
        self.delayed_payment.non_secure_erase();
        self.htlc.non_secure_erase();
    }
}

impl Signer for SoftSigner {
    fn basepoints(&self) -> &Basepoints {
        &self.basepoints
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        public_key(&per_commitment_secret(&self.commitment_seed, number))
    }

    fn sign_remote_commitment(
        &self,
        params: &ChannelParams,
        commitment: &CommitmentTx,
        keys: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        let signature = sign(&params.funding_output().sighash(&commitment.tx), &self.funding);
        #[expect(clippy::expect_used, reason = "the same tweak has given the public key in `keys`")]
        let mut key = derivation::derive_private_key(&self.htlc, &keys.per_commitment_point).expect("a valid key");
        let commitment_txid = commitment.tx.compute_txid();
        // BOLT 2: the delay of the peer's second-stage outputs is the one that we set.
        let to_self_delay = params.local.to_self_delay;
        let htlc_signatures = commitment
            .htlc_outputs
            .iter()
            .map(|output| sign(&second_stage_sighash(commitment_txid, output, keys, to_self_delay), &key))
            .collect();
        key.non_secure_erase();
        (signature, htlc_signatures)
    }

    fn sign_local_commitment(
        &self,
        guard: &Guard,
        params: &ChannelParams,
        plan: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused> {
        let number = plan.number;
        if guard.sealed {
            return Err(SigningRefused::Sealed { number });
        }
        if number < guard.released_below {
            return Err(SigningRefused::Revoked { number, durable: guard.released_below });
        }
        if let Some(closing) = guard.closing.filter(|closing| *closing != number) {
            return Err(SigningRefused::NotTheLast { number, closing });
        }
        if plan.keys.per_commitment_point != self.per_commitment_point(number) {
            return Err(SigningRefused::ForeignPoint { number });
        }
        let commitment = CommitmentTx::build(plan).map_err(|_| SigningRefused::Unaffordable { number })?;
        Ok(sign(&params.funding_output().sighash(&commitment.tx), &self.funding))
    }

    fn sign_closing(&self, params: &ChannelParams, closing: &Transaction) -> Signature {
        sign(&params.funding_output().sighash(closing), &self.funding)
    }

    fn sign_anchor(&self, params: &ChannelParams, spend: &Transaction, input: usize) -> Option<Signature> {
        let script = script::anchor(&params.local.basepoints.funding_pubkey);
        claim::input_sighash(spend, input, &script, ANCHOR_SAT).map(|sighash| sign(&sighash, &self.funding))
    }

    fn sign_to_local(
        &self,
        params: &ChannelParams,
        number: u64,
        (spend, input, amount): (&Transaction, usize, Sat),
    ) -> Option<Signature> {
        let point = self.per_commitment_point(number);
        let keys = self.commitment_keys(&self.basepoints, &params.remote.basepoints, &point).ok()?;
        let script = script::revocable(&keys, params.remote.to_self_delay);
        let sighash = claim::input_sighash(spend, input, &script, amount)?;
        let mut key = derivation::derive_private_key(&self.delayed_payment, &point).ok()?;
        let signature = sign(&sighash, &key);
        key.non_secure_erase();
        Some(signature)
    }

    fn sign_to_remote(&self, (spend, input, amount): (&Transaction, usize, Sat)) -> Option<Signature> {
        let script = script::to_remote(&self.basepoints.payment);
        claim::input_sighash(spend, input, &script, amount).map(|sighash| sign(&sighash, &self.payment))
    }

    fn release_secret(&self, number: u64, guard: &Guard) -> Result<[u8; 32], ReleaseRefused> {
        if guard.sealed {
            Err(ReleaseRefused::Sealed { number })
        } else if number < guard.released_below {
            Ok(per_commitment_secret(&self.commitment_seed, number).secret_bytes())
        } else {
            Err(ReleaseRefused::NotReplaced { number, durable: guard.released_below })
        }
    }
}

/// One key of the channel. All but a share of 2^-128 of the digests are valid keys; then the next one is taken.
fn derive_secret(seed: &[u8; 32], purpose: &str) -> SecretKey {
    let mut attempt = 0;
    loop {
        if let Ok(secret) = SecretKey::from_slice(Zeroizing::new(digest(seed, purpose, attempt)).as_slice()) {
            return secret;
        }
        attempt = attempt.wrapping_add(1);
    }
}

/// A tagged hash of the seed: one value for each purpose and attempt.
fn digest(seed: &[u8; 32], purpose: &str, attempt: u8) -> [u8; 32] {
    let tag = sha256::Hash::hash(b"outrigger/channel-keys");
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_byte_array());
    engine.input(tag.as_byte_array());
    engine.input(seed);
    engine.input(&[attempt]);
    engine.input(purpose.as_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}
