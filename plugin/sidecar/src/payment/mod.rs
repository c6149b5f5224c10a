//! Payments and invoices: one owner, its own thread, never entered under a peer lock nor holding one into it.

mod found;
mod order;
mod pending;
mod plan;
mod receive;
mod route;
mod send;
mod sets;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::Network;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use outrigger_bolt::id::{ChannelId, PaymentHash};
use tokio::sync::watch;

pub use found::Unfinished;
pub use order::{PayOrder, SendFault, Whom};
pub use receive::{InvoiceFault, InvoiceOrder};
pub use route::{BadRoute, GivenHop};

use crate::clock::{Clock, NoEntropy};
use crate::lock::Mutex;
use crate::manager::Manager;
use crate::manager::deliver::PaymentNotice;
use crate::store::row::{OperationRow, OperationState, PaymentRow};
use crate::store::schema::{Table, outcome_key};
use crate::store::{Batch, Queued, Reader};
use crate::token::Tokens;
use pending::Pending;
use sets::Sets;

/// The owner of payments and invoices.
pub struct Payments {
    manager: Arc<Manager>,
    reader: Reader,
    terms: Terms,
    tokens: Arc<Tokens>,
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
        let operation = OperationRow { idempotency_key, op_id: Clock::timed_name()?, body, state };
        batch.remember(&operation);
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
    /// Payments that a start found and that cannot go on yet, and when they are looked at again.
    waiting: BTreeSet<[u8; 32]>,
    next_look: Option<Instant>,
}

impl Payments {
    /// Takes in what a start found. `carried` says whether the HTLC of a part may stand in some channel.
    pub fn new(
        manager: Arc<Manager>,
        reader: Reader,
        terms: Terms,
        events: watch::Receiver<u64>,
        mut unfinished: Unfinished,
        carried: impl Fn(&[u8; 32], u16) -> bool,
    ) -> Self {
        let tokens = std::mem::take(&mut unfinished.tokens);
        let payments = Self { manager, reader, terms, tokens, events, state: Mutex::default() };
        payments.take_in(unfinished, carried);
        payments
    }

    /// The network that it pays on.
    pub fn network(&self) -> Network {
        self.terms.network
    }

    /// Handles notices, and what has its time, until every queue end is gone.
    pub fn work(&self, notices: &Receiver<PaymentNotice>) {
        loop {
            let end = self.next_time();
            if end.is_some_and(|end| end <= Clock::monotonic()) {
                self.on_time();
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

    /// When [`on_time`](Self::on_time) has something to do.
    pub fn next_time(&self) -> Option<Instant> {
        let (set, look) = (self.next_set_end(), self.state.lock().next_look);
        set.into_iter().chain(look).min()
    }

    /// Does what has its time.
    pub fn on_time(&self) {
        self.expire_sets();
        self.look_again();
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
        self.manager.deliver().rests();
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
}

/// The batch that forgets an outcome row, for the transaction that takes it in.
fn forget_outcome(payment_id: &[u8; 32], channel: &ChannelId, htlc_id: u64) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Outcome, outcome_key(payment_id, channel, htlc_id), None);
    batch
}

fn hex(bytes: &[u8]) -> String {
    bitcoin::hex::DisplayHex::to_lower_hex_string(bytes)
}

#[cfg(test)]
mod tests;
