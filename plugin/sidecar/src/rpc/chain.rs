//! `chain.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{ChainStatus, ChainStatusReport};

use super::serve::Serve;
use super::{Answer, Backend, Caller, Doors};

impl<B: Backend> Serve<B> for ChainStatus {
    async fn serve(self, doors: Arc<Doors<B>>, _: Caller) -> Answer<ChainStatusReport> {
        doors.node()?.chain_status().await
    }
}
