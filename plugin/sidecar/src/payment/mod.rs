//! Payments and invoices: one owner, its own thread, never entered under a peer lock nor holding one into it.

mod decisions;
mod receive;
mod replay;
mod send;

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::Network;
use crossbeam_channel::Receiver;
use outrigger_bolt::id::PaymentHash;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

pub use receive::{InvoiceFault, InvoiceOrder};
pub use send::{PayOrder, SendFault};

use crate::clock::{Clock, NoEntropy};
use crate::manager::Manager;
use crate::manager::deliver::PaymentNotice;
use crate::store::load::LoadedOutcome;
use crate::store::row::{EventRow, OperationRow, OperationState, PaymentRow, PaymentState};
use crate::store::schema::{Table, UnderWay, outcome_key};
use crate::store::{Batch, Reader};
use decisions::Decisions;

/// The owner of payments and invoices.
pub struct Payments {
    manager: Arc<Manager>,
    reader: Reader,
    terms: Terms,
    /// The newest released event: waiters look again when it moves.
    events: watch::Receiver<u64>,
    state: Mutex<State>,
}

/// What the operator chose for payments.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub network: Network,
    /// Blocks that an HTLC to us must leave before it expires.
    pub final_cltv_blocks: u16,
}

/// A caller's key and the digest of its call.
pub type Idempotency = (String, [u8; 32]);

/// Stages what a key answers from now on, with the effect of the call.
fn remember(batch: &mut Batch, idempotency: Option<Idempotency>, state: OperationState) -> Result<(), NoEntropy> {
    if let Some((idempotency_key, body)) = idempotency {
        let operation = OperationRow { idempotency_key, op_id: Clock::random_bytes()?, body, state };
        batch.put(Table::Operation, operation.key(), Some(operation.encode()));
    }
    Ok(())
}

/// What is under way. Everything else is read from the file.
#[derive(Debug, Default)]
struct State {
    pending: HashMap<[u8; 32], PaymentRow>,
    by_hash: HashMap<PaymentHash, [u8; 32]>,
    decisions: Decisions,
}

impl Payments {
    /// Takes in what a start found: payments under way, and outcomes that were learned but not taken in.
    pub fn new(
        manager: Arc<Manager>,
        reader: Reader,
        terms: Terms,
        events: watch::Receiver<u64>,
        pending: Vec<PaymentRow>,
        outcomes: Vec<LoadedOutcome>,
        carried: impl Fn(&[u8; 32]) -> bool,
    ) -> Self {
        let payments = Self { manager, reader, terms, events, state: Mutex::default() };
        {
            let mut state = payments.state.lock();
            for row in &pending {
                state.by_hash.insert(row.payment_hash, row.payment_id);
                state.pending.insert(row.payment_id, row.clone());
            }
        }
        let has_outcome: Vec<_> = outcomes.iter().map(|outcome| outcome.payment_id).collect();
        for LoadedOutcome { payment_id, channel, htlc_id, row } in outcomes {
            payments.settled(payment_id, channel, htlc_id, &row.outcome());
        }
        for row in pending {
            // Nothing was signed for it: its HTLC would have a row, or its outcome.
            if !carried(&row.payment_id) && !has_outcome.contains(&row.payment_id) {
                payments.finish_failed(&row.payment_id, "interrupted", INTERRUPTED, Batch::default());
            }
        }
        payments
    }

    /// Handles notices until every queue end is gone.
    pub fn work(&self, notices: &Receiver<PaymentNotice>) {
        while let Ok(notice) = notices.recv() {
            match notice {
                PaymentNotice::Incoming { peer, htlc } => self.incoming(peer, &htlc),
                PaymentNotice::Settled { payment_id, part: _, channel, htlc_id, outcome } => {
                    self.settled(payment_id, channel, htlc_id, &outcome);
                }
                PaymentNotice::Answered { payment_id, part: _, answer } => self.answered(payment_id, answer),
            }
        }
    }

    /// A payment as it is on disk.
    pub fn get(&self, payment_id: &[u8; 32]) -> Result<Option<PaymentRow>, crate::store::StoreError> {
        self.reader.payment(payment_id)
    }

    /// Waits until the payment has ended, or until the future is dropped.
    pub async fn wait(&self, payment_id: &[u8; 32]) -> Result<Option<PaymentRow>, crate::store::StoreError> {
        let mut events = self.events.clone();
        loop {
            events.mark_unchanged();
            match self.reader.payment(payment_id)? {
                Some(row) if row.is_pending() => {}
                ended => return Ok(ended),
            }
            // The sender lives in the writer's delivery, which ends only with the process.
            if events.changed().await.is_err() {
                return self.reader.payment(payment_id);
            }
        }
    }

    /// Ends a payment in the same transaction as `batch`: its row, its event.
    fn finish(&self, row: PaymentRow, mut batch: Batch) {
        let now = Clock::now_unix();
        let id = hex(&row.payment_id);
        let event = match &row.state {
            PaymentState::Pending => return,
            PaymentState::Succeeded { .. } => EventRow::new(
                now,
                "payment_succeeded",
                json!({ "payment_id": id, "payment_hash": row.payment_hash.to_string(),
                        "amount_msat": row.amount.get() }),
            ),
            PaymentState::Failed { message, .. } => EventRow::new(
                now,
                "payment_failed",
                json!({ "payment_id": id, "payment_hash": row.payment_hash.to_string(),
                        "amount_msat": row.amount.get(), "message": message }),
            ),
        };
        batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
        batch.end(&UnderWay::Payment(row.payment_id));
        batch.event(event);
        self.manager.env().writer.submit(batch);
    }

    fn finish_failed(&self, payment_id: &[u8; 32], kind: &str, message: &str, batch: Batch) {
        let Some(row) = self.take_pending(payment_id) else {
            return self.manager.env().writer.submit(batch);
        };
        let at = Clock::now_unix();
        let state = PaymentState::Failed { kind: kind.to_owned(), message: message.to_owned(), at };
        self.finish(PaymentRow { state, ..row }, batch);
    }

    fn take_pending(&self, payment_id: &[u8; 32]) -> Option<PaymentRow> {
        let mut state = self.state.lock();
        let row = state.pending.remove(payment_id)?;
        if state.by_hash.get(&row.payment_hash) == Some(payment_id) {
            state.by_hash.remove(&row.payment_hash);
        }
        Some(row)
    }
}

const INTERRUPTED: &str =
    "the node stopped before the payment was offered to the peer; nothing was paid, and it is safe to pay again";

/// The batch that forgets an outcome row, for the transaction that takes it in.
fn forget_outcome(payment_id: &[u8; 32], channel: &outrigger_bolt::id::ChannelId, htlc_id: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Outcome, outcome_key(payment_id, channel, htlc_id), None);
    batch
}

fn hex(bytes: &[u8]) -> String {
    bitcoin::hex::DisplayHex::to_lower_hex_string(bytes)
}

#[cfg(test)]
mod tests;
