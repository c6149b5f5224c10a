//! The funding output and the witness that spends it (BOLT 3, "Funding Transaction Output").

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{ScriptBuf, Transaction, TxOut, Witness, ecdsa};

use super::script;
use crate::amount::Sat;

/// The funding output of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FundingOutput {
    /// One side's funding key; which side comes first does not matter.
    pub pubkeys: [PublicKey; 2],
    /// The capacity of the channel.
    pub amount: Sat,
}

impl FundingOutput {
    /// The 2-of-2 witness script.
    pub fn witness_script(&self) -> ScriptBuf {
        let [one, two] = &self.pubkeys;
        script::funding_script(one, two)
    }

    /// The script that the output on the chain must have.
    pub fn script_pubkey(&self) -> ScriptBuf {
        script::p2wsh(&self.witness_script())
    }

    /// The output itself.
    pub fn tx_out(&self) -> TxOut {
        TxOut { value: self.amount.into(), script_pubkey: self.script_pubkey() }
    }

    /// What both sides sign in a transaction whose only input spends this output: a commitment or a closing.
    ///
    /// `spend` is one that [`super::commitment`] or [`super::closing`] built; without any input it panics.
    pub fn sighash(&self, spend: &Transaction) -> Message {
        p2wsh_sighash(spend, &self.witness_script(), self.amount, EcdsaSighashType::All)
    }

    /// The witness `0 <signature_for_pubkey1> <signature_for_pubkey2>`, each signature given with its key.
    pub fn witness(&self, signatures: [(&PublicKey, &Signature); 2]) -> Witness {
        let [(key_one, signature_one), (key_two, signature_two)] = signatures;
        let one = ecdsa::Signature::sighash_all(*signature_one).serialize();
        let two = ecdsa::Signature::sighash_all(*signature_two).serialize();
        let (first, second) = if key_one.serialize() <= key_two.serialize() { (one, two) } else { (two, one) };
        let mut witness = Witness::new();
        witness.push([]);
        witness.push(first);
        witness.push(second);
        witness.push(self.witness_script());
        witness
    }
}

/// The BIP 143 digest of input 0, which spends a P2WSH output of this script and amount.
pub(super) fn p2wsh_sighash(
    spend: &Transaction,
    witness_script: &bitcoin::Script,
    amount: Sat,
    kind: EcdsaSighashType,
) -> Message {
    #[expect(clippy::expect_used, reason = "fails only where input 0 is missing; every transaction built here has it")]
    let sighash = SighashCache::new(spend)
        .p2wsh_signature_hash(0, witness_script, amount.into(), kind)
        .expect("the transaction has an input");
    Message::from_digest(sighash.to_byte_array())
}
