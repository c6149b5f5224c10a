//! Coins on chain: what callers see of them, and what they send.

use std::str::FromStr;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hex::DisplayHex;
use bitcoin::{Address, Network, OutPoint};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_rpc_schema as schema;
use serde_json::json;
use tokio::sync::oneshot;

use super::answers::{digest, storage, wallet_fault};
use super::backend::Doorkeeper;
use crate::clock::Clock;
use crate::rpc::{Answer, Fault, SendOrder};
use crate::store::row::{EventRow, OperationRow, OperationState};
use crate::store::schema::UnderWay;
use crate::store::{Batch, ChainOrder, Held};

impl Doorkeeper {
    /// `wallet.send`. A key that sent something before is answered with that.
    pub(super) async fn send_coins(&self, order: SendOrder) -> Answer<schema::WalletSent> {
        let address = self.address(&order.address)?;
        let feerate = order.feerate.map_or(0, FeeratePerKw::get);
        let script = address.script_pubkey();
        let amount = order.amount.get().to_be_bytes();
        let body = digest(&[b"wallet.send", script.as_bytes(), &amount, &feerate.to_be_bytes()]);
        let _one_at_a_time = self.turns.of(&order.idempotency_key).await;
        let known = self.reader.operation(&order.idempotency_key).map_err(storage)?;
        if let Some(row) = known {
            return self.sent(row, &order.idempotency_key, body);
        }
        self.require_current()?;
        self.require_synced()?;
        self.check_feerate(order.feerate)?;
        let feerate = order.feerate.unwrap_or_else(|| self.manager.env().chain.feerates().normal);
        if self.wallet.locks_coins() {
            // Those of an opening that is told to have failed are free, or about to be.
            self.chain_is_told().await;
        }
        let op_id = Clock::timed_name().map_err(Fault::internal)?;
        let (waiter, durable) = oneshot::channel();
        let made = self.wallet.send(script, order.amount, feerate, |batch, tx| {
            let (txid, state) = (tx.compute_txid(), OperationState::Sent { txid: tx.compute_txid() });
            let row = OperationRow { idempotency_key: order.idempotency_key.clone(), op_id, body, state };
            batch.remember(&row);
            batch.begin(&UnderWay::Sent(txid));
            let op = op_id.to_lower_hex_string();
            let fields = json!({ "op_id": op, "txid": txid.to_string(), "amount_sat": order.amount.get() });
            batch.event(EventRow::new(Clock::now_unix(), "wallet_sent", fields));
            batch.hold(Held::Chain(ChainOrder::Send(tx.clone())));
            batch.hold(Held::Durable(waiter));
            row
        });
        let row = made.map_err(wallet_fault)?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        self.sent(row, &order.idempotency_key, body)
    }

    fn sent(&self, row: OperationRow, key: &str, body: [u8; 32]) -> Answer<schema::WalletSent> {
        let OperationState::Sent { txid } = row.state else { return Err(Fault::idempotency_conflict(key)) };
        if row.body != body {
            return Err(Fault::idempotency_conflict(key));
        }
        let is_confirmed = self.wallet.has_confirmed(txid);
        let state = if is_confirmed { schema::SendState::Confirmed } else { schema::SendState::Pending };
        Ok(schema::WalletSent { op_id: row.op_id.to_lower_hex_string(), txid: txid.to_string(), state })
    }

    /// `wallet.new_address`. A key that was given one before is answered with that.
    pub(super) async fn give_address(&self, key: Option<String>) -> Answer<schema::WalletAddress> {
        let Some(key) = key else {
            let address = self.wallet.new_address(|_, _| ()).await.map_err(wallet_fault)?;
            return Ok(schema::WalletAddress { address: address.to_string() });
        };
        let body = digest(&[b"wallet.new_address"]);
        let _one_at_a_time = self.turns.of(&key).await;
        match self.reader.operation(&key).map_err(storage)? {
            Some(OperationRow { body: known, state: OperationState::Address { address }, .. }) if known == body => {
                Ok(schema::WalletAddress { address })
            }
            Some(_) => Err(Fault::idempotency_conflict(&key)),
            None => {
                let op_id = Clock::timed_name().map_err(Fault::internal)?;
                let remember = |batch: &mut Batch, address: &Address| {
                    let state = OperationState::Address { address: address.to_string() };
                    let row = OperationRow { idempotency_key: key, op_id, body, state };
                    batch.remember(&row);
                };
                let address = self.wallet.new_address(remember).await.map_err(wallet_fault)?;
                Ok(schema::WalletAddress { address: address.to_string() })
            }
        }
    }

    /// A feerate that a caller chose for the wallet's coins is bounded as that of a close is: what is above it goes to miners.
    pub(super) fn check_feerate(&self, chosen: Option<FeeratePerKw>) -> Answer<()> {
        let most = self.manager.env().policy.max_commitment_feerate;
        match chosen.filter(|chosen| *chosen > most) {
            Some(chosen) => Err(Fault::feerate_out_of_range(format_args!("the feerate {chosen} is above {most}"))),
            None => Ok(()),
        }
    }

    /// An address of this node's network.
    fn address(&self, text: &str) -> Answer<Address> {
        let unfit = |problem: &str| Fault::invalid_parameter("address", problem);
        let address = Address::<NetworkUnchecked>::from_str(text).map_err(|_| unfit("is no Bitcoin address"))?;
        address.require_network(self.payments.network()).map_err(|_| unfit("is of another network"))
    }

    /// `wallet.utxos`.
    pub(super) fn coins(&self, after: Option<OutPoint>, count: usize) -> Vec<schema::WalletUtxo> {
        let network: Network = self.payments.network();
        let coins = self.wallet.coins(after, count);
        let utxo = |coin: crate::wallet::Unspent| schema::WalletUtxo {
            outpoint: coin.outpoint.to_string(),
            amount_sat: coin.amount.get(),
            address: Address::from_script(&coin.script, network).map(|address| address.to_string()).unwrap_or_default(),
            confirmed_height: coin.confirmed_height,
            locked: coin.is_locked,
        };
        coins.into_iter().map(utxo).collect()
    }
}
