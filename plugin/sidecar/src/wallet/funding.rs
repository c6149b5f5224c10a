//! Transactions that fund channels.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use bdk_wallet::chain::BlockId;
use bdk_wallet::{KeychainKind, LocalOutput};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Sat};

use super::{Coin, Wallet, WalletFault, check_segwit, inconsistent};

/// Weight units of a P2WPKH output: 8 bytes of value, the script with its length.
const CHANGE_WEIGHT: u64 = 4 * (8 + 1 + 22);
/// What a P2WPKH output is worth at least, or it is not relayed (Bitcoin Core, `GetDustThreshold`).
const LEAST_CHANGE: Sat = Sat::new(294);
/// Weight units of version, lock time, the counts of inputs and outputs in a byte each, and the two marks of a witness.
const FRAME_WEIGHT: u64 = 4 * (4 + 4 + 1 + 1) + 2;
/// From so many inputs on their count takes two bytes more.
const LONG_COUNT: usize = 253;
/// A heavier transaction is not relayed (Bitcoin Core, `MAX_STANDARD_TX_WEIGHT`); there is room for the change.
const MAX_STANDARD_WEIGHT: u64 = 400_000 - CHANGE_WEIGHT;
/// Weight units of a P2WPKH input: outpoint, empty script, sequence, witness.
const INPUT_WEIGHT: u64 = 4 * (36 + 1 + 4) + Coin::WITNESS_WEIGHT;

/// So many transactions in no block stand one on another at most: no mempool takes a longer chain (Bitcoin Core,
/// `DEFAULT_ANCESTOR_LIMIT`).
const MOST_ANCESTORS: usize = 25;

/// What a transaction spends, and what comes back.
struct Choice {
    coins: Vec<LocalOutput>,
    change: Option<Sat>,
    fee: Sat,
}

impl Wallet {
    /// Makes and signs a transaction that pays `amount` to `script` and leaves `reserve` in the wallet, and tells the
    /// output's index. Its inputs are locked until it is [seen](Self::saw_unconfirmed) or [released](Self::release).
    pub fn fund(
        &mut self,
        script: ScriptBuf,
        amount: Sat,
        feerate: FeeratePerKw,
        reserve: Sat,
    ) -> Result<(Transaction, u32), WalletFault> {
        let (height, _) = self.tip.ok_or(WalletFault::NotStarted)?;
        if Amount::from(amount) > Amount::MAX_MONEY {
            return Err(WalletFault::InsufficientFunds { needed: amount, available: self.balance().confirmed });
        }
        if Amount::from(amount) < script.minimal_non_dust() {
            return Err(WalletFault::Dust(amount));
        }
        let payment = TxOut { value: amount.into(), script_pubkey: script };
        let mut coins = self.free_coins();
        // One that brings less than its input costs pays for nothing, and anybody may send any number of them.
        coins.retain(|coin| Sat::from(coin.txout.value) > feerate.fee(INPUT_WEIGHT));
        let spendable = worth(&coins);
        let Choice { coins, change, fee } = choose(coins, &payment, feerate)?;
        let left = spendable.saturating_sub(amount).saturating_sub(fee);
        if left < reserve {
            return Err(WalletFault::Reserve { left, reserve });
        }
        let mut output = vec![payment.clone()];
        if let Some(change) = change {
            output.push(TxOut { value: change.into(), script_pubkey: self.change_script()? });
        }
        // The order says nothing of which output is whose (BIP 69).
        output.sort_by(|one, other| (one.value, &one.script_pubkey).cmp(&(other.value, &other.script_pubkey)));
        // Not mined below its height, as most wallets have it; replaceable by a higher fee.
        let lock_time = LockTime::from_height(height).unwrap_or(LockTime::ZERO);
        let input = |coin: &LocalOutput| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        };
        let input = coins.iter().map(input).collect();
        let mut tx = Transaction { version: Version::TWO, lock_time, input, output };
        let spent: Vec<TxOut> = coins.iter().map(|coin| coin.txout.clone()).collect();
        self.sign_coins(&mut tx, &spent)?;
        check_segwit(&tx)?;
        let index = tx.output.iter().position(|output| *output == payment).and_then(|index| u32::try_from(index).ok());
        let index = index.ok_or_else(|| inconsistent("the payment is not in its transaction"))?;
        self.locked.insert(tx.compute_txid(), coins.iter().map(|coin| coin.outpoint).collect());
        Ok((tx, index))
    }

    /// Coins that may be spent: none of other transactions in the making, none that is immature, and none that a stranger
    /// could still take back, because a funding transaction that never confirms binds both sides (FND-11). So our own change
    /// counts where it comes from coins of ours alone: an anchor's child dies with the commitment that it pays for.
    fn free_coins(&mut self) -> Vec<LocalOutput> {
        let locked = self.locked_outpoints();
        self.unspent();
        let coins = self.view.iter().flat_map(|view| view.values());
        let coins = coins.filter(|coin| !locked.contains(&coin.outpoint)).filter(|coin| {
            if coin.chain_position.is_confirmed() {
                !self.is_immature(coin)
            } else {
                coin.keychain == KeychainKind::Internal && self.spends_ours_alone(coin.outpoint.txid)
            }
        });
        coins.cloned().collect()
    }

    /// Whether the transaction, which is in no block, spends coins of ours alone that are in one, or change of transactions
    /// that do so too, and so on down: a reorganisation may have taken a stranger's coin back with all that was made of it.
    fn spends_ours_alone(&self, txid: Txid) -> bool {
        let (index, graph) = (self.inner.spk_index(), self.inner.tx_graph());
        let (mut open, mut known) = (vec![txid], BTreeSet::from([txid]));
        while let Some(tx) = open.pop().map(|txid| graph.get_tx(txid)) {
            let Some(tx) = tx.filter(|_| known.len() < MOST_ANCESTORS) else { return false };
            for coin in tx.input.iter().map(|input| input.previous_output) {
                match index.txout(coin) {
                    Some(_) if self.stands_in_block(coin.txid) => {}
                    Some(((KeychainKind::Internal, _), _)) => open.extend(known.insert(coin.txid).then_some(coin.txid)),
                    Some(((KeychainKind::External, _), _)) | None => return false,
                }
            }
        }
        true
    }

    /// Whether a block up to the tip holds the transaction, by its anchors alone: asked for each input of a transaction.
    fn stands_in_block(&self, txid: Txid) -> bool {
        let tip = self.tip.map_or(0, |(height, _)| height);
        let chain = self.inner.local_chain();
        let stands = |block: &BlockId| {
            block.height <= tip && chain.get(block.height).is_some_and(|known| known.hash() == block.hash)
        };
        let node = self.inner.tx_graph().get_tx_node(txid);
        node.is_some_and(|node| node.anchors.iter().any(|anchor| stands(&anchor.block_id)))
    }
}

fn worth(coins: &[LocalOutput]) -> Sat {
    coins.iter().map(|coin| Sat::from(coin.txout.value)).fold(Sat::ZERO, Sat::saturating_add)
}

/// The fewest coins that pay for the output and the fee, in the order of their outpoints: confirmed before our own change that is
/// not, so that what we fund waits for nothing, and large before small.
fn choose(mut coins: Vec<LocalOutput>, payment: &TxOut, feerate: FeeratePerKw) -> Result<Choice, WalletFault> {
    let available = worth(&coins);
    coins.sort_by_key(|coin| (!coin.chain_position.is_confirmed(), Reverse(coin.txout.value), coin.outpoint));
    let amount = Sat::from(payment.value);
    let (mut sum, mut count) = (Sat::ZERO, 0_usize);
    let mut weight = FRAME_WEIGHT.saturating_add(payment.weight().to_wu());
    let mut fee = feerate.fee(weight);
    for coin in &coins {
        count = count.saturating_add(1);
        sum = sum.saturating_add(coin.txout.value.into());
        weight = weight.saturating_add(INPUT_WEIGHT).saturating_add(if count == LONG_COUNT { 4 * 2 } else { 0 });
        // One satoshi more than the fee of the weight: that is rounded down, and relay rounds up.
        fee = feerate.fee(weight).saturating_add(Sat::new(1));
        if weight > MAX_STANDARD_WEIGHT {
            return Err(WalletFault::TooManyCoins(amount));
        }
        if sum >= amount.saturating_add(fee) {
            coins.truncate(count);
            coins.sort_by_key(|coin| coin.outpoint);
            let with_change = feerate.fee(weight.saturating_add(CHANGE_WEIGHT)).saturating_add(Sat::new(1));
            let change = sum.saturating_sub(amount).saturating_sub(with_change);
            let (change, fee) =
                if change >= LEAST_CHANGE { (Some(change), with_change) } else { (None, sum.saturating_sub(amount)) };
            return Ok(Choice { coins, change, fee });
        }
    }
    Err(WalletFault::InsufficientFunds { needed: amount.saturating_add(fee), available })
}
