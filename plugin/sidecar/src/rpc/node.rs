//! `node.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{NodeInfo, NodeInfoReport, NodeStatus, NodeStatusReport, NodeStop, NodeStopping, Phase};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors};

impl<B: Backend> Serve<B> for NodeInfo {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<NodeInfoReport> {
        doors.node()?.node_info().await
    }
}

impl<B: Backend> Serve<B> for NodeStatus {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<NodeStatusReport> {
        Ok(doors.status())
    }
}

impl<B: Backend> Serve<B> for NodeStop {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<NodeStopping> {
        doors.request_stop();
        Ok(NodeStopping { phase: Phase::Stopping })
    }
}
