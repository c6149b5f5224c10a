//! Calls to open a channel, by their idempotency key: the same key and body give the first answer, and a crash between
//! call and channel is told as a failure.

use std::collections::HashMap;

use outrigger_bolt::id::NodeId;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Manager, OpenOrder};
use crate::clock::{Clock, NoEntropy};
use crate::lock::Mutex;
use crate::store::row::{EventRow, OperationRow, OperationState};
use crate::store::schema::{Table, UnderWay};
use crate::store::{Batch, Held, Reader, StoreError};

/// Why a call to open a channel was not begun.
#[derive(Debug, thiserror::Error)]
pub enum OperationFault {
    #[error("this idempotency key was used for another call")]
    Conflict,
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Calls whose row may not be durable yet.
#[derive(Debug, Default)]
pub struct Operations {
    begun: Mutex<HashMap<String, (OperationRow, oneshot::Receiver<()>)>>,
}

impl Operations {
    /// Begins an operation, or gives the one of this key. `order` makes the mail for the peer from the new row.
    pub fn begin(
        &self,
        manager: &Manager,
        reader: &Reader,
        peer: &NodeId,
        key: &str,
        body: [u8; 32],
        order: impl FnOnce(OperationRow) -> OpenOrder,
    ) -> Result<OperationRow, OperationFault> {
        let mut begun = self.begun.lock();
        // Before the look at the file: what is durable need not be remembered here, and is found there.
        begun.retain(|_, (_, durable)| matches!(durable.try_recv(), Err(TryRecvError::Empty)));
        let known = reader.operation(key)?.or_else(|| begun.get(key).map(|(row, _)| row.clone()));
        if let Some(row) = known {
            return if row.body == body { Ok(row) } else { Err(OperationFault::Conflict) };
        }
        let row = OperationRow {
            idempotency_key: key.to_owned(),
            op_id: Clock::timed_name()?,
            body,
            state: OperationState::Opening,
        };
        let (waiter, durable) = oneshot::channel();
        begun.insert(key.to_owned(), (row.clone(), durable));
        let mut batch = Batch::default();
        batch.hold(Held::Durable(waiter));
        batch.remember(&row);
        batch.begin(&UnderWay::Opening(key.to_owned()));
        manager.env().writer.submit(batch);
        if manager.open_channel(peer, order(row.clone())).is_err() {
            let failed = row.failed("the peer is not connected; peer.connect first");
            let mut batch = Batch::default();
            batch.event(EventRow::open_failed(Clock::now_unix(), &failed));
            batch.put(Table::Operation, failed.key(), Some(failed.encode()));
            batch.end(&UnderWay::Opening(key.to_owned()));
            manager.env().writer.submit(batch);
            return Ok(failed);
        }
        Ok(row)
    }
}

/// Openings that a crash interrupted: they had no rows, and nothing was signed or sent that binds us.
pub fn fail_interrupted(manager: &Manager, openings: Vec<OperationRow>) {
    let mut batch = Batch::default();
    for row in openings {
        let row = row.failed("the node stopped before the channel was signed; nothing was spent, open again");
        batch.event(EventRow::open_failed(Clock::now_unix(), &row));
        batch.put(Table::Operation, row.key(), Some(row.encode()));
        batch.end(&UnderWay::Opening(row.idempotency_key));
    }
    manager.env().writer.submit(batch);
}
