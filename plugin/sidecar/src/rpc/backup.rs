//! `backup.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{BackupReport, BackupStatus};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors};

impl<B: Backend> Serve<B> for BackupStatus {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<BackupReport> {
        doors.node()?.backup_status().await
    }
}
