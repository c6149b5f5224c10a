//! Witness scripts of commitment and HTLC transactions (BOLT 3, "Commitment Transaction Outputs").

use bitcoin::hashes::{Hash, hash160, ripemd160};
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CLTV, OP_CSV, OP_DROP, OP_DUP, OP_ELSE, OP_ENDIF, OP_EQUAL,
    OP_EQUALVERIFY, OP_HASH160, OP_IF, OP_IFDUP, OP_NOTIF, OP_SIZE, OP_SWAP,
};
use bitcoin::script::{Builder, Script, ScriptBuf};
use bitcoin::secp256k1::PublicKey;

use crate::id::PaymentHash;
use crate::keys::CommitmentKeys;

/// The 2-of-2 of both funding keys, the lexicographically lesser one first.
pub fn funding_script(one: &PublicKey, two: &PublicKey) -> ScriptBuf {
    let (one, two) = (one.serialize(), two.serialize());
    let (lesser, greater) = if one <= two { (one, two) } else { (two, one) };
    Builder::new()
        .push_int(2)
        .push_slice(lesser)
        .push_slice(greater)
        .push_int(2)
        .push_opcode(OP_CHECKMULTISIG)
        .into_script()
}

/// The owner's output after `to_self_delay` blocks, the other side's with the revocation key.
///
/// The script of `to_local` and of the output of both HTLC transactions.
pub fn revocable(keys: &CommitmentKeys, to_self_delay: u16) -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_IF)
        .push_slice(keys.revocation.serialize())
        .push_opcode(OP_ELSE)
        .push_int(i64::from(to_self_delay))
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_slice(keys.delayed_payment.serialize())
        .push_opcode(OP_ENDIF)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

/// The other side's balance, spendable one block after the commitment confirms (`to_remote` with anchors).
pub fn to_remote(other_payment: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(other_payment.serialize())
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_int(1)
        .push_opcode(OP_CSV)
        .into_script()
}

/// An anchor: its side's at once, anybody's after 16 blocks.
pub fn anchor(funding_pubkey: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(funding_pubkey.serialize())
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_IFDUP)
        .push_opcode(OP_NOTIF)
        .push_int(16)
        .push_opcode(OP_CSV)
        .push_opcode(OP_ENDIF)
        .into_script()
}

/// An HTLC that the commitment's owner offered.
pub fn offered_htlc(keys: &CommitmentKeys, payment_hash: &PaymentHash) -> ScriptBuf {
    revocation_or_other_htlc_key(keys)
        .push_opcode(OP_NOTIF)
        .push_opcode(OP_DROP)
        .push_int(2)
        .push_opcode(OP_SWAP)
        .push_slice(keys.owner_htlc.serialize())
        .push_int(2)
        .push_opcode(OP_CHECKMULTISIG)
        .push_opcode(OP_ELSE)
        .push_opcode(OP_HASH160)
        .push_slice(ripemd160::Hash::hash(&payment_hash.0).to_byte_array())
        .push_opcode(OP_EQUALVERIFY)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ENDIF)
        .push_int(1)
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_opcode(OP_ENDIF)
        .into_script()
}

/// An HTLC that the commitment's owner received.
pub fn received_htlc(keys: &CommitmentKeys, payment_hash: &PaymentHash, cltv_expiry: u32) -> ScriptBuf {
    revocation_or_other_htlc_key(keys)
        .push_opcode(OP_IF)
        .push_opcode(OP_HASH160)
        .push_slice(ripemd160::Hash::hash(&payment_hash.0).to_byte_array())
        .push_opcode(OP_EQUALVERIFY)
        .push_int(2)
        .push_opcode(OP_SWAP)
        .push_slice(keys.owner_htlc.serialize())
        .push_int(2)
        .push_opcode(OP_CHECKMULTISIG)
        .push_opcode(OP_ELSE)
        .push_opcode(OP_DROP)
        .push_int(i64::from(cltv_expiry))
        .push_opcode(OP_CLTV)
        .push_opcode(OP_DROP)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ENDIF)
        .push_int(1)
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_opcode(OP_ENDIF)
        .into_script()
}

/// How both HTLC scripts begin: the revocation key, else the other side's key and a question of 32 bytes.
fn revocation_or_other_htlc_key(keys: &CommitmentKeys) -> Builder {
    Builder::new()
        .push_opcode(OP_DUP)
        .push_opcode(OP_HASH160)
        .push_slice(hash160::Hash::hash(&keys.revocation.serialize()).to_byte_array())
        .push_opcode(OP_EQUAL)
        .push_opcode(OP_IF)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ELSE)
        .push_slice(keys.other_htlc.serialize())
        .push_opcode(OP_SWAP)
        .push_opcode(OP_SIZE)
        .push_int(32)
        .push_opcode(OP_EQUAL)
}

/// The output script that commits to a witness script.
pub fn p2wsh(witness_script: &Script) -> ScriptBuf {
    ScriptBuf::new_p2wsh(&witness_script.wscript_hash())
}
