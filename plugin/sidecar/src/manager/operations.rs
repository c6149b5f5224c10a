//! Calls to open a channel, by their idempotency key: the same key and body give the first answer, and a crash between
//! call and channel is told as a failure.

use outrigger_bolt::id::NodeId;

use super::{Manager, OpenOrder};
use crate::clock::{Clock, NoEntropy};
use crate::store::row::{EventRow, OperationRow, OperationState};
use crate::store::schema::{Table, UnderWay};
use crate::store::{Batch, Reader, StoreError};

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

/// Begins an operation, or gives the one of this key. `order` makes the mail for the peer from the new row. A second call with the key must
/// not come before the row of the first is durable: it is found in the file alone.
pub fn begin(
    manager: &Manager,
    reader: &Reader,
    peer: &NodeId,
    key: &str,
    body: [u8; 32],
    order: impl FnOnce(OperationRow) -> OpenOrder,
) -> Result<OperationRow, OperationFault> {
    if let Some(row) = reader.operation(key)? {
        return if row.body == body { Ok(row) } else { Err(OperationFault::Conflict) };
    }
    let (op_id, state) = (Clock::timed_name()?, OperationState::Opening);
    let row = OperationRow { idempotency_key: key.to_owned(), op_id, body, state };
    let mut batch = Batch::default();
    batch.remember(&row);
    batch.begin(&UnderWay::Opening(key.to_owned()));
    manager.env().writer.submit(batch);
    if manager.open_channel(peer, order(row.clone())).is_err() {
        let mut batch = Batch::default();
        fail(&mut batch, row.clone(), "the peer is not connected; peer.connect first");
        manager.env().writer.submit(batch);
    }
    Ok(row)
}

/// Takes down that an opening ends without a channel, and why.
pub(super) fn fail(batch: &mut Batch, operation: OperationRow, reason: &str) {
    batch.event(EventRow::open_failed(Clock::now_unix(), &operation, reason));
    put_end(batch, &operation.failed(reason));
}

/// Takes down how an opening ends: it is under way no longer.
pub(super) fn put_end(batch: &mut Batch, row: &OperationRow) {
    batch.put(Table::Operation, row.key(), Some(row.encode()));
    batch.end(&UnderWay::Opening(row.idempotency_key.clone()));
}

/// What is told of an opening that a crash interrupted: it had no rows, and nothing was signed or sent that binds us.
pub const INTERRUPTED: &str = "the node stopped before the channel was signed; nothing was spent, open again";

/// Openings that a crash interrupted have failed. Of a file that is old nobody knows that, and no event says so: the channel may be in
/// the rows that are lost, and its funding transaction in the chain.
pub fn end_interrupted(manager: &Manager, openings: Vec<OperationRow>) {
    let mut batch = Batch::default();
    for row in openings {
        if !manager.env().is_restored() {
            batch.event(EventRow::open_failed(Clock::now_unix(), &row, INTERRUPTED));
        }
        put_end(&mut batch, &OperationRow { state: OperationState::Interrupted, ..row });
    }
    manager.env().writer.submit(batch);
}
