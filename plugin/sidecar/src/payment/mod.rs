//! Payments and invoices: one owner, its own thread, never entered under a peer lock nor holding one into it.

mod receive;
mod route;
mod send;
mod sets;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::Network;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use outrigger_bolt::id::PaymentHash;
use serde_json::json;
use tokio::sync::watch;

pub use receive::{InvoiceFault, InvoiceOrder};
pub use send::{PayOrder, SendFault};

use crate::clock::{Clock, NoEntropy};
use crate::lock::Mutex;
use crate::manager::Manager;
use crate::manager::deliver::PaymentNotice;
use crate::store::load::LoadedOutcome;
use crate::store::part::PartRow;
use crate::store::row::{EventRow, OperationRow, OperationState, PaymentRow, PaymentState};
use crate::store::schema::{Table, UnderWay, outcome_key};
use crate::store::{Batch, Queued, Reader};
use send::Recipe;
use sets::Sets;

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
    /// Whether payments are taken that nobody asked for.
    pub accept_keysend: bool,
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
    pending: HashMap<[u8; 32], Pending>,
    by_hash: HashMap<PaymentHash, [u8; 32]>,
    /// Invoices whose claim is on its way to the file.
    claims: Queued<PaymentHash, ()>,
    /// HTLCs to us that wait for the rest of their payment.
    sets: Sets,
}

/// A payment whose outcome is open.
#[derive(Debug)]
struct Pending {
    row: PaymentRow,
    /// Its HTLCs whose outcome is open.
    parts: BTreeMap<u16, PartRow>,
    /// What another attempt is made by; none after a restart.
    recipe: Option<Recipe>,
}

/// What a start found of payments that have not ended.
#[derive(Debug, Default)]
pub struct Unfinished {
    pub pending: Vec<PaymentRow>,
    pub parts: Vec<(([u8; 32], u16), PartRow)>,
    /// Outcomes that were learned but not taken in.
    pub outcomes: Vec<LoadedOutcome>,
}

impl Payments {
    /// Takes in what a start found. `carried` says whether an HTLC of the payment stands in some channel.
    pub fn new(
        manager: Arc<Manager>,
        reader: Reader,
        terms: Terms,
        events: watch::Receiver<u64>,
        unfinished: Unfinished,
        carried: impl Fn(&[u8; 32]) -> bool,
    ) -> Self {
        let Unfinished { pending, parts, outcomes } = unfinished;
        let payments = Self { manager, reader, terms, events, state: Mutex::default() };
        {
            let mut state = payments.state.lock();
            for row in &pending {
                state.by_hash.insert(row.payment_hash, row.payment_id);
                let parts = BTreeMap::new();
                state.pending.insert(row.payment_id, Pending { row: row.clone(), parts, recipe: None });
            }
            for ((payment_id, part), row) in parts {
                if let Some(pending) = state.pending.get_mut(&payment_id) {
                    pending.parts.insert(part, row);
                }
            }
        }
        let has_outcome: Vec<_> = outcomes.iter().map(|outcome| outcome.payment_id).collect();
        for LoadedOutcome { payment_id, channel, htlc_id, row } in outcomes {
            payments.settled((payment_id, row.part), (channel, htlc_id), &row.outcome());
        }
        for row in pending {
            // Nothing was signed for it: its HTLC would have a row, or its outcome.
            if !carried(&row.payment_id) && !has_outcome.contains(&row.payment_id) {
                payments.finish_failed(&row.payment_id, "interrupted", INTERRUPTED, Batch::default());
            }
        }
        payments
    }

    /// Handles notices, and what has its time, until every queue end is gone.
    pub fn work(&self, notices: &Receiver<PaymentNotice>) {
        loop {
            let end = self.next_set_end();
            if end.is_some_and(|end| end <= Clock::monotonic()) {
                self.expire_sets();
                continue;
            }
            let notice = match end {
                Some(end) => notices.recv_deadline(end),
                None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match notice {
                Ok(notice) => self.take(notice),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Handles one notice.
    pub fn take(&self, notice: PaymentNotice) {
        match notice {
            PaymentNotice::Incoming { peer, htlc, shared_secret, payload } => {
                self.incoming(peer, &htlc, &shared_secret, &payload);
            }
            PaymentNotice::Settled { payment_id, part, channel, htlc_id, outcome } => {
                self.settled((payment_id, part), (channel, htlc_id), &outcome);
            }
            PaymentNotice::Answered { payment_id, part, answer } => self.answered(payment_id, part, answer),
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
    fn finish(&self, ended: Pending, state: PaymentState, mut batch: Batch) {
        let row = PaymentRow { state, ..ended.row };
        for part in ended.parts.keys() {
            batch.put(Table::Part, PartRow::key(&row.payment_id, *part), None);
        }
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
        let Some(pending) = self.take_pending(payment_id) else {
            return self.manager.env().writer.submit(batch);
        };
        let at = Clock::now_unix();
        let state = PaymentState::Failed { kind: kind.to_owned(), message: message.to_owned(), at };
        self.finish(pending, state, batch);
    }

    fn take_pending(&self, payment_id: &[u8; 32]) -> Option<Pending> {
        let mut state = self.state.lock();
        let pending = state.pending.remove(payment_id)?;
        if state.by_hash.get(&pending.row.payment_hash) == Some(payment_id) {
            state.by_hash.remove(&pending.row.payment_hash);
        }
        Some(pending)
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
