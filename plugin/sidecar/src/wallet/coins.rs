//! Single coins for transactions that are made elsewhere: the children that carry the fees of commitments.

use bdk_wallet::chain::{ChainPosition, ConfirmationBlockTime};
use bdk_wallet::{KeychainKind, LocalOutput};
use bitcoin::{BlockHash, OutPoint, Psbt, ScriptBuf, Transaction, TxOut, Txid, Witness};

use super::{Wallet, WalletFault, inconsistent};

/// Confirmations before an output of a coinbase can be spent (consensus).
const COINBASE_MATURITY: u32 = 100;

/// In no block, as far as is known.
pub(super) const NOWHERE: ChainPosition<ConfirmationBlockTime> =
    ChainPosition::Unconfirmed { first_seen: None, last_seen: None };

/// Whether a block up to the tip holds it. `bdk_wallet` learns of a block that left from its successor, and believes until then
/// what was in it (REO-5).
pub(super) fn is_confirmed(tip: Option<(u32, BlockHash)>, position: &ChainPosition<ConfirmationBlockTime>) -> bool {
    let height = position.confirmation_height_upper_bound().filter(|_| position.is_confirmed());
    height.zip(tip).is_some_and(|(height, (tip, _))| height <= tip)
}

/// The coin, in no block where its block has left.
pub(super) fn as_of(tip: Option<(u32, BlockHash)>, coin: LocalOutput) -> LocalOutput {
    if is_confirmed(tip, &coin.chain_position) { coin } else { LocalOutput { chain_position: NOWHERE, ..coin } }
}

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

    fn of(output: &LocalOutput) -> Self {
        Self { outpoint: output.outpoint, output: output.txout.clone() }
    }
}

impl Wallet {
    /// Confirmed coins that are free, and those that `besides` alone spends, which is to be replaced.
    pub fn coins(&mut self, besides: Option<&Transaction>) -> Vec<Coin> {
        let locked = self.locked_outpoints();
        self.unspent();
        let Some(besides) = besides else {
            let coins = self.view.iter().flat_map(|view| view.values());
            let free = coins.filter(|coin| coin.chain_position.is_confirmed() && !locked.contains(&coin.outpoint));
            return free.filter(|coin| !self.is_immature(coin)).map(Coin::of).collect();
        };
        let replaced: Vec<OutPoint> = besides.input.iter().map(|input| input.previous_output).collect();
        let outputs = self.inner.list_output().map(|coin| as_of(self.tip, coin));
        outputs
            .filter(|coin| coin.chain_position.is_confirmed() && !locked.contains(&coin.outpoint))
            .filter(|coin| {
                !coin.is_spent || (replaced.contains(&coin.outpoint) && !self.is_spent_in_block(&coin.outpoint))
            })
            .filter(|coin| !self.is_immature(coin))
            .map(|coin| Coin::of(&coin))
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
            if let Some(coin) = self.output_of_ours(outgoing.previous_output) {
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
        self.inner.get_tx(txid).is_some_and(|tx| is_confirmed(self.tip, &tx.chain_position))
    }

    /// Height of the block that holds a transaction, if one does; none where it is not the wallet's. Costs a walk through the wallet's
    /// transactions only where some block held it.
    pub fn confirmed_height(&self, txid: Txid) -> Option<Option<u32>> {
        let node = self.inner.tx_graph().get_tx_node(txid)?;
        if node.anchors.is_empty() {
            return Some(None);
        }
        let found = self.inner.get_tx(txid).filter(|tx| is_confirmed(self.tip, &tx.chain_position));
        Some(found.and_then(|tx| tx.chain_position.confirmation_height_upper_bound()))
    }

    /// Whether the transaction counts as spending coins although no block holds it.
    pub fn counts_unconfirmed(&self, txid: Txid) -> bool {
        self.inner.get_tx(txid).is_some_and(|tx| !is_confirmed(self.tip, &tx.chain_position))
    }

    /// An output that pays the wallet, whether or not it is spent. Where it stands in the chain is not looked up.
    fn output_of_ours(&self, outpoint: OutPoint) -> Option<LocalOutput> {
        let ((keychain, derivation_index), txout) = self.inner.spk_index().txout(outpoint)?;
        let (txout, chain_position) = (txout.clone(), NOWHERE);
        Some(LocalOutput { outpoint, txout, keychain, is_spent: false, derivation_index, chain_position })
    }

    fn is_spent_in_block(&self, outpoint: &OutPoint) -> bool {
        let spenders = self.inner.tx_graph().outspends(*outpoint);
        spenders.iter().any(|txid| self.has_confirmed(*txid))
    }

    pub(super) fn is_immature(&self, coin: &LocalOutput) -> bool {
        let is_coinbase = self.inner.tx_graph().get_tx(coin.outpoint.txid).is_none_or(|tx| tx.is_coinbase());
        let next = self.tip.map_or(0, |(height, _)| height.saturating_add(1));
        let height = coin.chain_position.confirmation_height_upper_bound();
        is_coinbase && height.is_none_or(|height| next < height.saturating_add(COINBASE_MATURITY))
    }
}
