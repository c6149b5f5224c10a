//! Commitment transactions (BOLT 3, "Commitment Transaction").

use std::cmp::Ordering;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{Message, PublicKey};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

use super::funding::FundingOutput;
use super::{Unaffordable, fee, output_order, script};
use crate::amount::{FeeratePerKw, Msat, Sat};
use crate::id::PaymentHash;
use crate::keys::CommitmentKeys;

/// Who offered an HTLC, seen from the owner of the commitment that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HtlcDirection {
    /// By the owner: it goes back to the owner after its expiry.
    Offered,
    /// By the other side: the owner takes it with the preimage.
    Received,
}

/// An HTLC as one commitment holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitmentHtlc {
    /// The id that its offerer gave it (BOLT 2, `update_add_htlc`).
    pub id: u64,
    /// Seen from the commitment's owner.
    pub direction: HtlcDirection,
    /// The amount; its output is worth the whole satoshis of it.
    pub amount: Msat,
    /// What the preimage must hash to.
    pub payment_hash: PaymentHash,
    /// The block height from which it can time out.
    pub cltv_expiry: u32,
}

impl CommitmentHtlc {
    /// The witness script of its output.
    pub fn witness_script(&self, keys: &CommitmentKeys) -> ScriptBuf {
        match self.direction {
            HtlcDirection::Offered => script::offered_htlc(keys, &self.payment_hash),
            HtlcDirection::Received => script::received_htlc(keys, &self.payment_hash, self.cltv_expiry),
        }
    }
}

/// All that decides a commitment transaction.
#[derive(Clone, Copy, Debug)]
pub struct CommitmentPlan<'a> {
    /// The channel's funding output.
    pub funding_outpoint: OutPoint,
    /// The commitment number, counting up from 0; hidden in locktime and sequence.
    pub number: u64,
    /// `payment_basepoint` of `open_channel`.
    pub opener_payment_basepoint: PublicKey,
    /// `payment_basepoint` of `accept_channel`.
    pub accepter_payment_basepoint: PublicKey,
    /// Whether the owner opened the channel, and so pays fee and anchors.
    pub owner_is_opener: bool,
    /// The delay that the other side asked of the owner.
    pub to_self_delay: u16,
    /// The owner's `dust_limit_satoshis`.
    pub dust_limit: Sat,
    /// The commitment's feerate.
    pub feerate: FeeratePerKw,
    /// The owner's balance without HTLCs, before fee and anchors.
    pub to_owner: Msat,
    /// The other side's balance without HTLCs, before fee and anchors.
    pub to_other: Msat,
    /// The HTLCs in this commitment, in any order.
    pub htlcs: &'a [CommitmentHtlc],
    /// The commitment's own keys.
    pub keys: &'a CommitmentKeys,
    /// The owner's key in the funding output and its anchor.
    pub owner_funding_pubkey: PublicKey,
    /// The other side's key in the funding output and its anchor.
    pub other_funding_pubkey: PublicKey,
}

/// An HTLC that has an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HtlcOutput {
    /// The place of the output in the commitment transaction.
    pub index: u32,
    /// The HTLC it holds.
    pub htlc: CommitmentHtlc,
}

/// A commitment transaction with its outputs told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentTx {
    /// The transaction, unsigned.
    pub tx: Transaction,
    /// The untrimmed HTLCs in output order, which is the order of `htlc_signatures` (BOLT 2, `commitment_signed`).
    pub htlc_outputs: Vec<HtlcOutput>,
    /// `to_local`, where it is not trimmed.
    pub to_owner_index: Option<u32>,
    /// `to_remote`, where it is not trimmed.
    pub to_other_index: Option<u32>,
    /// `to_local_anchor`, where there is one.
    pub owner_anchor_index: Option<u32>,
    /// `to_remote_anchor`, where there is one.
    pub other_anchor_index: Option<u32>,
}

impl CommitmentTx {
    /// Builds the transaction, or tells that the opener cannot pay for it.
    pub fn build(plan: &CommitmentPlan<'_>) -> Result<Self, Unaffordable> {
        let mut outputs = plan.outputs()?;
        outputs.sort_by(PlannedOutput::order);
        let mut commitment = Self {
            tx: plan.transaction(outputs.iter().map(|output| output.tx_out.clone()).collect()),
            htlc_outputs: Vec::new(),
            to_owner_index: None,
            to_other_index: None,
            owner_anchor_index: None,
            other_anchor_index: None,
        };
        for (index, output) in (0..).zip(&outputs) {
            match output.purpose {
                Purpose::ToOwner => commitment.to_owner_index = Some(index),
                Purpose::ToOther => commitment.to_other_index = Some(index),
                Purpose::OwnerAnchor => commitment.owner_anchor_index = Some(index),
                Purpose::OtherAnchor => commitment.other_anchor_index = Some(index),
                Purpose::Htlc(htlc) => commitment.htlc_outputs.push(HtlcOutput { index, htlc }),
            }
        }
        Ok(commitment)
    }

    /// The transaction's id, which signatures do not change.
    pub fn txid(&self) -> Txid {
        self.tx.compute_txid()
    }

    /// What both sides sign.
    pub fn sighash(&self, funding: &FundingOutput) -> Message {
        funding.sighash(&self.tx)
    }
}

/// What an output is for.
#[derive(Clone, Copy)]
enum Purpose {
    ToOwner,
    ToOther,
    OwnerAnchor,
    OtherAnchor,
    Htlc(CommitmentHtlc),
}

struct PlannedOutput {
    tx_out: TxOut,
    purpose: Purpose,
}

impl PlannedOutput {
    fn new(value: Sat, witness_script: &ScriptBuf, purpose: Purpose) -> Self {
        let tx_out = TxOut { value: value.into(), script_pubkey: script::p2wsh(witness_script) };
        Self { tx_out, purpose }
    }

    /// Equal outputs go by `cltv_expiry` (BOLT 3, "Transaction Output Ordering"); those equal in that too have equal
    /// HTLC transactions, and go by id so that the order does not depend on how the caller listed them.
    fn order(&self, other: &Self) -> Ordering {
        output_order(&self.tx_out, &other.tx_out).then_with(|| self.tie_break().cmp(&other.tie_break()))
    }

    fn tie_break(&self) -> Option<(u32, u64)> {
        match self.purpose {
            Purpose::Htlc(htlc) => Some((htlc.cltv_expiry, htlc.id)),
            Purpose::ToOwner | Purpose::ToOther | Purpose::OwnerAnchor | Purpose::OtherAnchor => None,
        }
    }
}

impl CommitmentPlan<'_> {
    /// The HTLCs that get an output.
    fn untrimmed(&self) -> impl Iterator<Item = &CommitmentHtlc> {
        self.htlcs.iter().filter(|htlc| !fee::is_trimmed(htlc.amount, self.dust_limit))
    }

    /// The outputs that are not trimmed, unsorted.
    fn outputs(&self) -> Result<Vec<PlannedOutput>, Unaffordable> {
        let untrimmed = self.untrimmed().count();
        let (to_owner, to_other) = self.balances_after_cost(untrimmed)?;
        let mut outputs: Vec<_> = self
            .untrimmed()
            .map(|htlc| {
                let script = htlc.witness_script(self.keys);
                PlannedOutput::new(htlc.amount.to_sat_floor(), &script, Purpose::Htlc(*htlc))
            })
            .collect();
        // A side has an anchor where it has an output of its own, or where there are HTLCs.
        if let Some(amount) = to_owner {
            let script = script::revocable(self.keys, self.to_self_delay);
            outputs.push(PlannedOutput::new(amount, &script, Purpose::ToOwner));
        }
        if to_owner.is_some() || untrimmed > 0 {
            let script = script::anchor(&self.owner_funding_pubkey);
            outputs.push(PlannedOutput::new(fee::ANCHOR_SAT, &script, Purpose::OwnerAnchor));
        }
        if let Some(amount) = to_other {
            let script = script::to_remote(&self.keys.other_payment);
            outputs.push(PlannedOutput::new(amount, &script, Purpose::ToOther));
        }
        if to_other.is_some() || untrimmed > 0 {
            let script = script::anchor(&self.other_funding_pubkey);
            outputs.push(PlannedOutput::new(fee::ANCHOR_SAT, &script, Purpose::OtherAnchor));
        }
        Ok(outputs)
    }

    /// The two balances after the opener has paid, `None` where trimmed (BOLT 3, "Fee Payment").
    fn balances_after_cost(&self, untrimmed: usize) -> Result<(Option<Sat>, Option<Sat>), Unaffordable> {
        let cost = fee::commitment_cost(self.feerate, untrimmed);
        let (owner_cost, other_cost) = if self.owner_is_opener { (cost, Sat::ZERO) } else { (Sat::ZERO, cost) };
        let to_owner = Unaffordable::deduct(self.to_owner, owner_cost)?;
        let to_other = Unaffordable::deduct(self.to_other, other_cost)?;
        Ok((fee::untrimmed(to_owner, self.dust_limit), fee::untrimmed(to_other, self.dust_limit)))
    }

    /// The transaction around its outputs, with the obscured number in locktime and sequence.
    fn transaction(&self, output: Vec<TxOut>) -> Transaction {
        let factor = obscuring_factor(&self.opener_payment_basepoint, &self.accepter_payment_basepoint);
        let [_, _, h0, h1, h2, l0, l1, l2] = (self.number ^ factor).to_be_bytes();
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(u32::from_be_bytes([0x20, l0, l1, l2])),
            input: vec![TxIn {
                previous_output: self.funding_outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::from_consensus(u32::from_be_bytes([0x80, h0, h1, h2])),
                witness: Witness::new(),
            }],
            output,
        }
    }
}

/// The 48 bits that hide the commitment number.
pub fn obscuring_factor(opener_payment_basepoint: &PublicKey, accepter_payment_basepoint: &PublicKey) -> u64 {
    let mut engine = sha256::Hash::engine();
    engine.input(&opener_payment_basepoint.serialize());
    engine.input(&accepter_payment_basepoint.serialize());
    let [.., a, b, c, d, e, f] = sha256::Hash::from_engine(engine).to_byte_array();
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The commitment number that a transaction spending the funding output hides, or `None` where locktime or sequence
/// are not those of a commitment.
pub fn commitment_number(tx: &Transaction, obscuring_factor: u64) -> Option<u64> {
    let [input] = tx.input.as_slice() else { return None };
    let [0x20, l0, l1, l2] = tx.lock_time.to_consensus_u32().to_be_bytes() else { return None };
    let [0x80, h0, h1, h2] = input.sequence.to_consensus_u32().to_be_bytes() else { return None };
    Some(u64::from_be_bytes([0, 0, h0, h1, h2, l0, l1, l2]) ^ obscuring_factor)
}
