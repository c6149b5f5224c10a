//! HTLC-timeout and HTLC-success transactions, which pay no fee of their own (BOLT 3, option_anchors).

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::Message;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, ecdsa};

use super::commitment::{HtlcDirection, HtlcOutput};
use super::{funding, script};
use crate::amount::Sat;
use crate::id::PaymentPreimage;
use crate::keys::CommitmentKeys;

/// Whose signature over an HTLC transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SighashKind {
    /// The commitment owner's, over everything.
    Owner,
    /// The other side's, over one input and one output, so that the owner may add inputs that pay a fee
    /// (BOLT 5, "Generation of HTLC Transactions").
    Other,
}

impl SighashKind {
    const fn sighash_type(self) -> EcdsaSighashType {
        match self {
            Self::Owner => EcdsaSighashType::All,
            Self::Other => EcdsaSighashType::SinglePlusAnyoneCanPay,
        }
    }
}

/// The second-stage transaction of an HTLC output of the owner's commitment: HTLC-timeout where the owner offered
/// the HTLC, HTLC-success where it was received. Unsigned.
pub fn htlc_transaction(
    commitment_txid: Txid,
    output: &HtlcOutput,
    keys: &CommitmentKeys,
    to_self_delay: u16,
) -> Transaction {
    let lock_time = match output.htlc.direction {
        HtlcDirection::Offered => LockTime::from_consensus(output.htlc.cltv_expiry),
        HtlcDirection::Received => LockTime::ZERO,
    };
    Transaction {
        version: Version::TWO,
        lock_time,
        input: vec![TxIn {
            previous_output: OutPoint::new(commitment_txid, output.index),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::from_consensus(1),
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: output.htlc.amount.to_sat_floor().into(),
            script_pubkey: script::p2wsh(&script::revocable(keys, to_self_delay)),
        }],
    }
}

/// What one side signs in an HTLC transaction, given the witness script and the amount of the HTLC output it spends.
pub fn htlc_sighash(htlc_tx: &Transaction, witness_script: &Script, amount: Sat, kind: SighashKind) -> Message {
    funding::p2wsh_sighash(htlc_tx, witness_script, amount, kind.sighash_type())
}

/// What the other side signs in the second stage of an HTLC output of the owner's commitment (BOLT 2, `commitment_signed`).
pub fn second_stage_sighash(
    commitment_txid: Txid,
    output: &HtlcOutput,
    keys: &CommitmentKeys,
    to_self_delay: u16,
) -> Message {
    let second_stage = htlc_transaction(commitment_txid, output, keys, to_self_delay);
    let (script, amount) = (output.htlc.witness_script(keys), output.htlc.amount.to_sat_floor());
    htlc_sighash(&second_stage, &script, amount, SighashKind::Other)
}

/// The witness of an HTLC-success transaction: `0 <remotehtlcsig> <localhtlcsig> <payment_preimage>`.
pub fn success_witness(
    other: &Signature,
    owner: &Signature,
    preimage: &PaymentPreimage,
    witness_script: &Script,
) -> Witness {
    witness(other, owner, &preimage.0, witness_script)
}

/// The witness of an HTLC-timeout transaction: `0 <remotehtlcsig> <localhtlcsig> <>`.
pub fn timeout_witness(other: &Signature, owner: &Signature, witness_script: &Script) -> Witness {
    witness(other, owner, &[], witness_script)
}

fn witness(other: &Signature, owner: &Signature, preimage: &[u8], witness_script: &Script) -> Witness {
    let with_type = |signature: &Signature, kind: SighashKind| {
        ecdsa::Signature { signature: *signature, sighash_type: kind.sighash_type() }.to_vec()
    };
    let mut witness = Witness::new();
    witness.push([]);
    witness.push(with_type(other, SighashKind::Other));
    witness.push(with_type(owner, SighashKind::Owner));
    witness.push(preimage);
    witness.push(witness_script);
    witness
}
