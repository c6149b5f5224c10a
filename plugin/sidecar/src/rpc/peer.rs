//! `peer.*`.

use std::sync::Arc;

use outrigger_rpc_schema::{PeerConnect, PeerConnected, PeerDisconnect, PeerDisconnected, PeerList, PeerPage};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, PeerQuery, page, read};

impl<B: Backend> Serve<B> for PeerConnect {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PeerConnected> {
        let node_id = read::id("node_id", &self.node_id)?;
        let address = read::peer_address(&self.address)?;
        doors.node()?.peer_connect(node_id, address).await
    }
}

impl<B: Backend> Serve<B> for PeerList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PeerPage> {
        let limit = page::limit(self.limit);
        let query = PeerQuery { after: read::cursor(self.after.as_deref())?, count: limit.saturating_add(1) };
        let peers = doors.node()?.peer_list(query).await?;
        let (items, next) = page::cut(peers, limit, |peer| peer.node_id.clone());
        Ok(PeerPage { items, next })
    }
}

impl<B: Backend> Serve<B> for PeerDisconnect {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PeerDisconnected> {
        let node_id = read::id("node_id", &self.node_id)?;
        let was_connected = doors.node()?.peer_disconnect(node_id).await?;
        Ok(PeerDisconnected { node_id: self.node_id, was_connected })
    }
}
