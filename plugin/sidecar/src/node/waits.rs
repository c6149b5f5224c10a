//! Waits of callers: for a block that holds a transaction, for a channel that comes to a state.

use std::time::Duration;

use bitcoin::Txid;
use outrigger_bolt::id::ChannelId;
use outrigger_rpc_schema as schema;
use schema::ChannelState;

use super::backend::Doorkeeper;
use crate::rpc::{Answer, Backend, Fault};

/// How often a channel is looked at that nothing is heard of: not every state is told by an event.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Doorkeeper {
    /// `wallet.wait`.
    pub(super) async fn wait_for_block(
        &self,
        txid: Txid,
        depth_blocks: u32,
        timeout: Duration,
    ) -> Answer<schema::WalletTransaction> {
        let mut chain = self.chain.clone();
        let deep = tokio::time::timeout(timeout, async {
            loop {
                chain.mark_unchanged();
                let found = self.transaction(txid)?;
                // The sender lives as long as the node does.
                if found.depth_blocks >= depth_blocks || chain.changed().await.is_err() {
                    return Ok(found);
                }
            }
        });
        match deep.await {
            Ok(found) => found,
            Err(_) => self.transaction(txid),
        }
    }

    fn transaction(&self, txid: Txid) -> Answer<schema::WalletTransaction> {
        let found = self.wallet.depth(txid).ok_or_else(|| Fault::transaction_not_found(&txid))?;
        let (state, confirmed_height, depth_blocks) = match found {
            Some((height, depth)) => (schema::SendState::Confirmed, Some(height), depth),
            None => (schema::SendState::Pending, None, 0),
        };
        Ok(schema::WalletTransaction { txid: txid.to_string(), state, confirmed_height, depth_blocks })
    }

    /// `channel.wait`.
    pub(super) async fn wait_for_channel(
        &self,
        channel_id: ChannelId,
        wanted: ChannelState,
        timeout: Duration,
    ) -> Answer<schema::ChannelInfo> {
        let mut events = self.events.clone();
        let there = tokio::time::timeout(timeout, async {
            loop {
                events.mark_unchanged();
                let found = self.channel_get(channel_id).await?;
                if found.state == wanted || !may_come_to(found.state, wanted) {
                    return Ok(found);
                }
                tokio::select! {
                    _ = events.changed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        });
        match there.await {
            Ok(found) => found,
            Err(_) => self.channel_get(channel_id).await,
        }
    }
}

/// Whether a channel in the one state may come to the other one.
fn may_come_to(state: ChannelState, wanted: ChannelState) -> bool {
    let place = |state| match state {
        ChannelState::Funding => 0,
        ChannelState::Normal => 1,
        ChannelState::ShuttingDown => 2,
        ChannelState::Closing => 3,
        ChannelState::Failed => 4,
        ChannelState::Closed => 5,
        // A start finds it so, and nothing else comes of it before the next.
        ChannelState::Frozen => 6,
    };
    place(state) < place(wanted) && wanted != ChannelState::Frozen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_not_waited_for_where_it_will_never_be() {
        use ChannelState::{Closed, Closing, Failed, Frozen, Funding, Normal, ShuttingDown};
        for (state, wanted) in [
            (Funding, Normal),
            (Funding, Failed),
            (Normal, Closed),
            (ShuttingDown, Closing),
            (Closing, Failed),
            (Failed, Closed),
        ] {
            assert!(may_come_to(state, wanted), "{state:?} {wanted:?}");
            assert!(!may_come_to(wanted, state), "{wanted:?} {state:?}");
        }
        for state in [Funding, Normal, Closed, Frozen] {
            assert!(!may_come_to(state, Frozen) && !may_come_to(Frozen, state), "{state:?}");
        }
    }
}
