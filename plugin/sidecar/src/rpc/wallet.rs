//! `wallet.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{WalletAddress, WalletBalance, WalletBalanceReport, WalletNewAddress};

use super::serve::Serve;
use super::{Answer, Backend, Caller, Doors};

impl<B: Backend> Serve<B> for WalletBalance {
    async fn serve(self, doors: Arc<Doors<B>>, _: Caller) -> Answer<WalletBalanceReport> {
        doors.node()?.wallet_balance().await
    }
}

impl<B: Backend> Serve<B> for WalletNewAddress {
    async fn serve(self, doors: Arc<Doors<B>>, _: Caller) -> Answer<WalletAddress> {
        doors.node()?.wallet_new_address().await
    }
}
