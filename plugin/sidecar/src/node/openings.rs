//! `channel.open`: the call, and what its operation came to.

use std::time::Duration;

use bitcoin::hex::DisplayHex;
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_rpc_schema as schema;
use tokio::sync::oneshot;

use super::answers::{digest, opening_report, storage};
use super::backend::Doorkeeper;
use crate::manager::OpenOrder;
use crate::manager::operations::{self, OperationFault};
use crate::rpc::{self, Answer, Fault, Whose};
use crate::store::row::{OperationRow, OperationState};
use crate::store::{Batch, ChainOrder, Held, StoreError};

impl Doorkeeper {
    /// `channel.open`: answers when the operation is a row. A key that opened something before is answered with how far that is.
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
        // Of any two calls with one key the second finds the row of the first, whatever their methods.
        let _one_at_a_time = self.turns.of(key).await;
        if self.reader.operation(key).map_err(storage)?.is_none() {
            self.require_current()?;
            self.require_synced()?;
            self.require_room()?;
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
        let begun = operations::begin(&self.manager, &self.reader, &order.node_id, key, body, mail);
        begun.map_err(|fault| match fault {
            OperationFault::Conflict => Fault::idempotency_conflict(key),
            OperationFault::NoEntropy(fault) => Fault::internal(fault),
            OperationFault::Store(fault) => storage(fault),
        })?;
        // Law 1: its row may be on its way to the file.
        self.told().await;
        // By its key: a call of before there were ids has none.
        let known = self.as_told(|| self.reader.operation(key))?;
        let known = known.ok_or_else(|| Fault::internal("an opening that was begun has no row"))?;
        opening_report(known, self.manager.env().is_restored())
    }

    /// `channel.open_wait`.
    pub(super) async fn wait_for_opening(
        &self,
        op_id: [u8; 16],
        whose: Whose,
        timeout: Duration,
    ) -> Answer<schema::ChannelOpened> {
        let find = || {
            let found =
                self.as_told(|| self.reader.operation_of(&op_id))?.filter(|row| whose.includes(&row.idempotency_key));
            found.ok_or_else(|| Fault::operation_not_found(&op_id.to_lower_hex_string()))
        };
        if let Some(instead) = no_opening(&find()?.state) {
            return Err(instead);
        }
        let (mut events, mut published) = (self.events.clone(), self.manager.deliver().published());
        let over = tokio::time::timeout(timeout, async {
            loop {
                events.mark_unchanged();
                published.mark_unchanged();
                let row = find()?;
                if matches!(row.state, OperationState::Failed { .. }) {
                    self.chain_is_told().await;
                }
                if !matches!(row.state, OperationState::Opening) {
                    return Ok(row);
                }
                // The senders live as long as the node does.
                tokio::select! {
                    _ = events.changed() => {}
                    _ = published.changed() => {}
                }
            }
        });
        opening_report(over.await.unwrap_or_else(|_| find())?, self.manager.env().is_restored())
    }

    /// The operation that `find` reads, as it may be told: that of an opening names its channel once every required backup has it. Nothing
    /// is waited for any more where the file is old: `channel.get` says what is left of the channel.
    fn as_told(&self, find: impl Fn() -> Result<Option<OperationRow>, StoreError>) -> Answer<Option<OperationRow>> {
        let Some(row) = find().map_err(storage)? else { return Ok(None) };
        let is_left = self.manager.env().is_restored() && matches!(row.state, OperationState::Pending { .. });
        if !is_left && self.reader.is_opening(&row.idempotency_key).map_err(storage)? {
            return Ok(Some(OperationRow { state: OperationState::Opening, ..row }));
        }
        // In this order: once it is no longer under way the row is final.
        find().map_err(storage)
    }

    /// What was ordered of the wallet and the broadcaster before has been carried out: the coins of an opening that failed are free
    /// when its caller hears of it, so that they can be spent by the next call.
    pub(super) async fn chain_is_told(&self) {
        let (waiter, reached) = oneshot::channel();
        let mut batch = Batch::default();
        batch.hold(Held::Chain(ChainOrder::Reached(waiter)));
        self.manager.env().writer.submit(batch);
        // The writer and the wallet drop the waiter only with the process.
        let _ = reached.await;
    }
}

/// What is told of an operation that is no opening.
fn no_opening(state: &OperationState) -> Option<Fault> {
    let (method, hint) = match state {
        OperationState::Opening
        | OperationState::Pending { .. }
        | OperationState::Failed { .. }
        | OperationState::Interrupted => return None,
        OperationState::Payment { .. } => ("payment.send", "payment.wait waits for a payment, by its payment_id."),
        OperationState::Sent { .. } => ("wallet.send", "wallet.wait waits for a transaction, by its txid."),
        OperationState::Invoice { .. } => ("invoice.create", "Nothing is left to wait for but the event invoice_paid."),
        OperationState::Address { .. } => ("wallet.new_address", "Nothing is left to wait for."),
    };
    let fault = Fault::invalid_parameter("op_id", format!("is of {method}, and not of channel.open"));
    Some(fault.with_hint(hint))
}
