//! `wallet.*`.

use std::sync::Arc;

use bitcoin::OutPoint;
use outrigger_bolt::amount::Sat;
use outrigger_rpc_schema::{
    WalletAddress, WalletBalance, WalletBalanceReport, WalletNewAddress, WalletSend, WalletSent, WalletTransaction,
    WalletUtxoPage, WalletUtxos, WalletWait,
};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, SendOrder, page, read};

impl<B: Backend> Serve<B> for WalletBalance {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<WalletBalanceReport> {
        doors.node()?.wallet_balance().await
    }
}

impl<B: Backend> Serve<B> for WalletNewAddress {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<WalletAddress> {
        let key = self.idempotency_key.map(|key| read::key(key, &call.caller, &*doors)).transpose()?;
        doors.node()?.wallet_new_address(key).await
    }
}

impl<B: Backend> Serve<B> for WalletUtxos {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<WalletUtxoPage> {
        let limit = page::limit(self.limit);
        let after = read::cursor::<OutPoint>(self.after.as_deref())?;
        let utxos = doors.node()?.wallet_utxos(after, limit.saturating_add(1)).await?;
        let (items, next) = page::cut(utxos, limit, |utxo| utxo.outpoint.clone());
        Ok(WalletUtxoPage { items, next })
    }
}

/// How deep a transaction is waited for where the caller does not say.
const DEFAULT_DEPTH_BLOCKS: u32 = 1;

impl<B: Backend> Serve<B> for WalletWait {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<WalletTransaction> {
        let txid = read::id("txid", &self.txid)?;
        let depth = self.depth_blocks.unwrap_or(DEFAULT_DEPTH_BLOCKS);
        doors.waiting(doors.node()?.wallet_wait(txid, depth, read::patience(self.timeout_secs))).await
    }
}

impl<B: Backend> Serve<B> for WalletSend {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<WalletSent> {
        let order = SendOrder {
            address: self.address,
            amount: Sat::new(self.amount_sat),
            feerate: read::feerate(self.feerate_sat_per_vb)?,
            idempotency_key: read::key(self.idempotency_key, &call.caller, &*doors)?,
        };
        doors.node()?.wallet_send(order).await
    }
}
