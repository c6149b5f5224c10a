//! Spending the outputs of a commitment that stands in the chain: the digest of an input and the witness that it needs
//! (BOLT 3, "Commitment Transaction Outputs"; BOLT 5, "Unilateral Close Handling").

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Message;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Script, Transaction, Witness, ecdsa};

use crate::amount::Sat;

/// The bytes of a signature in a witness, its sighash byte included: low-S and at its longest (BIP 66).
const SIGNATURE_BYTES: u64 = 72;

/// What is signed in input `input` of `spend`, which spends a P2WSH output of this script and amount, over everything
/// (BIP 143). `None` where the transaction has no such input.
pub fn input_sighash(spend: &Transaction, input: usize, witness_script: &Script, amount: Sat) -> Option<Message> {
    let mut cache = SighashCache::new(spend);
    let sighash = cache.p2wsh_signature_hash(input, witness_script, amount.into(), EcdsaSighashType::All).ok()?;
    Some(Message::from_digest(sighash.to_byte_array()))
}

/// The witness of the owner's own output once its delay is over: `<local_delayedsig> <>`.
pub fn to_local_witness(signature: &Signature, witness_script: &Script) -> Witness {
    let mut witness = signed(signature);
    witness.push([]);
    witness.push(witness_script);
    witness
}

/// The witness of the other side's output: `<remote_sig>`.
pub fn to_remote_witness(signature: &Signature, witness_script: &Script) -> Witness {
    let mut witness = signed(signature);
    witness.push(witness_script);
    witness
}

/// The witness of an anchor, by its own side: `<sig>`.
pub fn anchor_witness(signature: &Signature, witness_script: &Script) -> Witness {
    to_remote_witness(signature, witness_script)
}

/// The most weight units that the witness of a claim takes: a signature, `more` bytes with their lengths, and the script.
/// Scripts of commitments are shorter than 253 bytes, so that each length is one byte.
pub fn witness_weight(more: u64, witness_script: &Script) -> u64 {
    let script = u64::try_from(witness_script.len()).unwrap_or(u64::MAX);
    (1 + 1 + SIGNATURE_BYTES + 1_u64).saturating_add(more).saturating_add(script)
}

fn signed(signature: &Signature) -> Witness {
    let mut witness = Witness::new();
    witness.push(ecdsa::Signature::sighash_all(*signature).serialize());
    witness
}
