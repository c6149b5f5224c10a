//! `backup.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{BackupReport, BackupStatus};

use super::serve::Serve;
use super::{Answer, Backend, Caller, Doors};

impl<B: Backend> Serve<B> for BackupStatus {
    async fn serve(self, doors: Arc<Doors<B>>, _: Caller) -> Answer<BackupReport> {
        doors.node()?.backup_status().await
    }
}
