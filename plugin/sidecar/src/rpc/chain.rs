//! `chain.*`.

use std::sync::Arc;

use bitcoin::BlockHash;
use outrigger_rpc_schema::{
    ChainFeerates, ChainFeeratesReport, ChainNotified, ChainNotifyBlock, ChainStatus, ChainStatusReport,
};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, read};

impl<B: Backend> Serve<B> for ChainStatus {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChainStatusReport> {
        doors.node()?.chain_status().await
    }
}

impl<B: Backend> Serve<B> for ChainFeerates {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChainFeeratesReport> {
        doors.node()?.chain_feerates().await
    }
}

impl<B: Backend> Serve<B> for ChainNotifyBlock {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChainNotified> {
        if let Some(hash) = &self.block_hash {
            read::id::<BlockHash>("block_hash", hash)?;
        }
        doors.node()?.chain_notify_block().await
    }
}
