//! Single coins for transactions that are made elsewhere: the children that carry the fees of commitments.

use bdk_wallet::{KeychainKind, LocalOutput};
use bitcoin::{OutPoint, Psbt, ScriptBuf, Transaction, TxOut, Txid, Witness};
use outrigger_bolt::amount::Sat;

use super::{Wallet, WalletFault, inconsistent};

/// Confirmations before an output of a coinbase can be spent (consensus).
const COINBASE_MATURITY: u32 = 100;

/// A confirmed P2WPKH output of the wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it is.
    pub output: TxOut,
}

impl Coin {
    /// The most weight units that the witness of a P2WPKH input takes: a signature of 72 bytes and a key, each with its
    /// length, and their count.
    pub const WITNESS_WEIGHT: u64 = 1 + 1 + 72 + 1 + 33;
}

impl Wallet {
    /// Confirmed coins that are free, and those that `besides` alone spends, which is to be replaced.
    pub fn coins(&self, besides: Option<&Transaction>) -> Vec<Coin> {
        let replaced: Vec<OutPoint> =
            besides.iter().flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
        let locked: Vec<OutPoint> = self.locked.values().flatten().copied().collect();
        let outputs = self.inner.list_output();
        outputs
            .filter(|coin| coin.chain_position.is_confirmed() && !locked.contains(&coin.outpoint))
            .filter(|coin| {
                !coin.is_spent || (replaced.contains(&coin.outpoint) && !self.is_spent_in_block(&coin.outpoint))
            })
            .filter(|coin| !self.is_immature(coin))
            .map(|coin| Coin { outpoint: coin.outpoint, output: coin.txout })
            .collect()
    }

    /// A script for change that was never used before. It must not leave before [`take_staged`](Self::take_staged) is
    /// committed.
    pub fn change_script(&mut self) -> Result<ScriptBuf, WalletFault> {
        self.tip.ok_or(WalletFault::NotStarted)?;
        Ok(self.inner.reveal_next_address(KeychainKind::Internal).address.script_pubkey())
    }

    /// Signs the inputs that spend these coins; the others must have a witness already or get one later. All spent outputs
    /// are given, in the order of the inputs.
    pub fn sign_coins(&self, tx: &mut Transaction, spent: &[TxOut]) -> Result<(), WalletFault> {
        let mut unsigned = tx.clone();
        for input in &mut unsigned.input {
            input.witness = Witness::new();
        }
        let mut psbt = Psbt::from_unsigned_tx(unsigned).map_err(inconsistent)?;
        for ((input, outgoing), output) in psbt.inputs.iter_mut().zip(&tx.input).zip(spent) {
            let found = self.inner.list_output().find(|coin| coin.outpoint == outgoing.previous_output);
            if let Some(coin) = found {
                *input = self.inner.get_psbt_input(coin, None, true).map_err(inconsistent)?;
            }
            input.witness_utxo = Some(output.clone());
        }
        // An error tells of inputs that are not the wallet's; what is missing of its own is found below.
        let _foreign = psbt.sign(&self.master, self.inner.secp_ctx());
        for (input, outgoing) in psbt.inputs.iter().zip(&mut tx.input) {
            if let Some((key, signature)) = input.partial_sigs.first_key_value() {
                outgoing.witness = Witness::p2wpkh(signature, &key.inner);
            }
        }
        let is_ours = |output: &TxOut| self.inner.is_mine(output.script_pubkey.clone());
        let unsigned = tx.input.iter().zip(spent).any(|(input, output)| is_ours(output) && input.witness.is_empty());
        if unsigned { Err(inconsistent("a coin of ours cannot be signed")) } else { Ok(()) }
    }

    /// Whether a block holds the transaction.
    pub fn has_confirmed(&self, txid: Txid) -> bool {
        self.inner.get_tx(txid).is_some_and(|tx| tx.chain_position.is_confirmed())
    }

    /// Whether the transaction counts as spending coins although no block holds it.
    pub fn counts_unconfirmed(&self, txid: Txid) -> bool {
        self.inner.get_tx(txid).is_some_and(|tx| !tx.chain_position.is_confirmed())
    }

    /// Confirmed coins and our own change that nothing is promised: what a reserve is counted in.
    pub(super) fn spendable(&self, unspendable: &[OutPoint]) -> Sat {
        let coins = self.inner.list_unspent().filter(|coin| !unspendable.contains(&coin.outpoint));
        coins.map(|coin| Sat::from(coin.txout.value)).fold(Sat::ZERO, Sat::saturating_add)
    }

    fn is_spent_in_block(&self, outpoint: &OutPoint) -> bool {
        let spenders = self.inner.tx_graph().outspends(*outpoint);
        spenders.iter().any(|txid| self.inner.get_tx(*txid).is_some_and(|tx| tx.chain_position.is_confirmed()))
    }

    fn is_immature(&self, coin: &LocalOutput) -> bool {
        let is_coinbase = self.inner.tx_graph().get_tx(coin.outpoint.txid).is_none_or(|tx| tx.is_coinbase());
        let next = self.tip.map_or(0, |(height, _)| height.saturating_add(1));
        let height = coin.chain_position.confirmation_height_upper_bound();
        is_coinbase && height.is_none_or(|height| next < height.saturating_add(COINBASE_MATURITY))
    }
}
