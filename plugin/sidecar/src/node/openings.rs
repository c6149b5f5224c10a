//! `channel.open`: the call, and what its operation came to.

use std::time::Duration;

use outrigger_bolt::amount::FeeratePerKw;
use outrigger_rpc_schema as schema;
use tokio::sync::oneshot;

use super::answers::{digest, opening_report, storage};
use super::backend::Doorkeeper;
use crate::manager::OpenOrder;
use crate::manager::operations::OperationFault;
use crate::rpc::{self, Answer, Fault};
use crate::store::row::{OperationRow, OperationState};
use crate::store::{Batch, ChainOrder, Held};

/// How long `channel.open` waits for the channel's final name before it answers with the operation alone.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

impl Doorkeeper {
    /// `channel.open`. A key that opened something before is answered with that.
    pub(super) async fn open_channel(&self, order: rpc::OpenOrder) -> Answer<schema::ChannelOpened> {
        let body = digest(&[
            b"channel.open",
            &order.node_id.serialize(),
            &order.funding.get().to_be_bytes(),
            &order.push.get().to_be_bytes(),
            &[u8::from(order.announce)],
            &order.feerate.map_or(0, FeeratePerKw::get).to_be_bytes(),
        ]);
        let key = &order.idempotency_key;
        if self.reader.operation(key).map_err(storage)?.is_none() {
            self.require_current()?;
            self.require_synced()?;
            self.check_feerate(order.feerate)?;
            if !self.manager.is_connected(&order.node_id) {
                return Err(Fault::peer_not_connected(&order.node_id));
            }
        }
        let mail = |operation| OpenOrder {
            operation,
            funding: order.funding,
            push: order.push,
            announce: order.announce,
            funding_feerate: order.feerate,
        };
        let begun = self.operations.begin(&self.manager, &self.reader, &order.node_id, key, body, mail);
        let row = begun.map_err(|fault| match fault {
            OperationFault::Conflict => Fault::idempotency_conflict(key),
            OperationFault::NoEntropy(fault) => Fault::internal(fault),
            OperationFault::Store(fault) => storage(fault),
        })?;
        self.opened(row).await
    }

    /// The operation once the channel has its final name, and every required backup has it; or that it is under way when patience
    /// ends.
    async fn opened(&self, row: OperationRow) -> Answer<schema::ChannelOpened> {
        if !matches!(row.state, OperationState::Opening | OperationState::Pending { .. }) {
            return self.ended(row).await;
        }
        let mut events = self.events.clone();
        let mut published = self.manager.deliver().published();
        let key = row.idempotency_key.clone();
        let settled = tokio::time::timeout(OPEN_PATIENCE, async {
            loop {
                events.mark_unchanged();
                published.mark_unchanged();
                // In this order: once it is no longer under way the row is final.
                let is_opening = self.reader.is_opening(&key)?;
                let known = self.reader.operation(&key)?.filter(|_| !is_opening);
                if let Some(row) = known.filter(|row| !matches!(row.state, OperationState::Opening)) {
                    return Ok(row);
                }
                // The senders live as long as the node does.
                tokio::select! {
                    _ = events.changed() => {}
                    _ = published.changed() => {}
                }
            }
        });
        match settled.await {
            Ok(outcome) => self.ended(outcome.map_err(storage)?).await,
            Err(_) => opening_report(OperationRow { state: OperationState::Opening, ..row }),
        }
    }

    /// What an operation came to that is over. The coins of one that failed are free when its caller hears of it, so that they can be
    /// spent by the next call.
    async fn ended(&self, row: OperationRow) -> Answer<schema::ChannelOpened> {
        if matches!(row.state, OperationState::Failed { .. }) {
            let (waiter, reached) = oneshot::channel();
            let mut batch = Batch::default();
            batch.hold(Held::Chain(ChainOrder::Reached(waiter)));
            self.manager.env().writer.submit(batch);
            // The writer and the wallet drop the waiter only with the process.
            let _ = tokio::time::timeout(OPEN_PATIENCE, reached).await;
        }
        opening_report(row)
    }
}
