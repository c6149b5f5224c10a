//! Payments whose end is not known, and what becomes of their HTLCs. A payment fails only when none of its HTLCs is in flight;
//! it succeeds with the first preimage, and then waits for the others to be decided (PAY-4).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, PaymentPreimage};
use outrigger_channel::{HtlcOutcome, Refusal, Reply};
use serde_json::json;
use tokio::sync::oneshot;

use super::order::Recipe;
use super::plan::MIN_PART;
use super::send::Attempt;
use super::words::{Explained, Verdict};
use super::{Payments, forget_outcome};
use crate::clock::Clock;
use crate::store::part::PartRow;
use crate::store::row::{EventRow, PaymentRow, PaymentState};
use crate::store::schema::{Table, UnderWay};
use crate::store::{Batch, Held};

/// A payment of which an HTLC is in flight.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) row: PaymentRow,
    /// Its HTLCs whose outcome is open, by number.
    pub(super) flights: BTreeMap<u16, Flight>,
    /// What another attempt is made by; none once none is to be made.
    pub(super) recipe: Option<Recipe>,
    /// Since a start no attempt was made: peers may have yet to come.
    pub(super) is_patient: bool,
    /// Channels of parts that a start found, whose peers have not said since that the rows are the newest. A later file may
    /// know that those have paid, or others: before, no new attempt is made and nothing is said to be unpaid (BAK-1).
    pub(super) unproven: BTreeSet<ChannelId>,
    /// What the file is told of parts that have ended once the payment goes on: until then a start finds them again, and asks
    /// their channels.
    pub(super) deferred: Batch,
    /// The most telling failure of a part.
    why: Option<Explained>,
    /// Why no new attempt is made, beside that.
    gave_up: Option<String>,
    /// Nobody wants it any more.
    is_abandoned: bool,
}

/// An HTLC in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) row: PartRow,
    /// Its way's place in the recipe, if it has one.
    pub(super) way: Option<usize>,
}

/// What is to be done after an HTLC has failed.
pub(super) enum Next {
    /// What it was to bring goes another way, by this recipe.
    Again { recipe: Box<Recipe>, missing: Msat, max_fee: Msat, in_flight: usize, next_part: u16 },
    /// A new attempt, or the word that nothing was paid, waits for peers. All rows stay as they are.
    Hold,
    /// What is left in flight is waited for. The row says what the payment costs now, or that no new attempt is made.
    Wait,
    /// Nothing is in flight any more: the payment is over as its row says.
    Over(Box<Pending>),
}

impl Pending {
    pub(super) fn of(row: PaymentRow, flights: BTreeMap<u16, Flight>) -> Self {
        Self {
            row,
            flights,
            recipe: None,
            is_patient: false,
            unproven: BTreeSet::new(),
            deferred: Batch::default(),
            why: None,
            gave_up: None,
            is_abandoned: false,
        }
    }

    /// Rows of parts that have ended go with what the payment does next.
    pub(super) fn take_deferred(&mut self) -> Batch {
        std::mem::take(&mut self.deferred)
    }

    /// An HTLC is ordered.
    pub(super) fn takes_off(&mut self, part: u16, flight: Flight) {
        self.row.next_part = self.row.next_part.max(part.saturating_add(1));
        self.carry(&flight, Msat::saturating_add);
        self.flights.insert(part, flight);
    }

    /// An HTLC is decided: it is in flight no longer.
    fn lands(&mut self, part: u16) -> Option<Flight> {
        let flight = self.flights.remove(&part)?;
        self.carry(&flight, Msat::saturating_sub);
        Some(flight)
    }

    fn carry(&mut self, flight: &Flight, count: impl Fn(Msat, Msat) -> Msat) {
        let way = self.recipe.as_mut().zip(flight.way).and_then(|(recipe, way)| recipe.ways.get_mut(way));
        if let Some(way) = way {
            way.carries = count(way.carries, flight.row.amount);
        }
    }

    pub(super) fn in_flight(&self, of: impl Fn(&PartRow) -> Msat) -> Msat {
        self.flights.values().fold(Msat::ZERO, |sum, flight| sum.saturating_add(of(&flight.row)))
    }

    /// What the recipe learns of a way, or of the channel of ours that leads to it, over which a part has failed.
    fn learn(&mut self, flight: &Flight, verdict: Verdict) {
        let Some(recipe) = self.recipe.as_mut() else { return };
        let halved = |tried: Msat| {
            let half = Msat::new(tried.get() / 2);
            if recipe.in_parts && half >= MIN_PART { half } else { Msat::ZERO }
        };
        let way = flight.way.and_then(|way| recipe.ways.get_mut(way));
        match (verdict, way) {
            (Verdict::Unsent | Verdict::Incomplete, _) => {}
            (Verdict::OutletFull, _) => recipe.outlets.trust(flight.row.channel, halved(flight.row.sends)),
            (Verdict::OutletUseless, _) => recipe.outlets.trust(flight.row.channel, Msat::ZERO),
            (Verdict::TooMuch, Some(way)) => {
                way.most = match halved(flight.row.amount) {
                    Msat::ZERO => Msat::ZERO,
                    half => way.most.min(way.carries.saturating_add(half)),
                };
            }
            (Verdict::NoUse | Verdict::Final | Verdict::Lost, Some(way)) => way.most = Msat::ZERO,
            (Verdict::TooMuch | Verdict::NoUse | Verdict::Final | Verdict::Lost, None) => {}
        }
        // Alone, a part that came too late for the others comes too late again.
        let is_alone = flight.row.amount == recipe.amount && verdict == Verdict::Incomplete;
        if verdict >= Verdict::Final || is_alone || recipe.given.is_some() {
            self.make_no_more();
        }
    }

    /// No new attempt is made, here or after a start.
    fn make_no_more(&mut self) {
        (self.recipe, self.row.again) = (None, None);
    }

    fn fails(mut self, part: u16, explained: Explained, now: Instant) -> (Option<Self>, Option<Next>) {
        let Some(flight) = self.lands(part) else { return (Some(self), None) };
        let is_lost = explained.verdict == Verdict::Lost;
        if let PaymentState::Succeeded { fee, .. } = &mut self.row.state {
            // Of what is lost to the miners nothing comes back.
            *fee = fee.saturating_sub(if is_lost { Msat::ZERO } else { flight.row.fee() });
            return match self.flights.is_empty() {
                true => (None, Some(Next::Over(Box::new(self)))),
                false => (Some(self), Some(Next::Wait)),
            };
        }
        if is_lost {
            self.row.lost = self.row.lost.saturating_add(flight.row.sends);
        }
        self.learn(&flight, explained.verdict);
        if self.why.as_ref().is_none_or(|why| explained.verdict >= why.verdict) {
            self.why = Some(explained);
        }
        self.goes_on(now)
    }

    /// What is to be done next, of a payment that has not ended.
    pub(super) fn goes_on(mut self, now: Instant) -> (Option<Self>, Option<Next>) {
        if self.recipe.as_ref().is_some_and(|recipe| now >= recipe.deadline) {
            self.give_up("no other way was tried: timeout_secs had passed, or the invoice had expired");
        }
        if self.waits_for_proofs() {
            return (Some(self), Some(Next::Hold));
        }
        let Some(recipe) = self.recipe.take() else {
            return if self.flights.is_empty() {
                (None, Some(Next::Over(Box::new(self))))
            } else {
                (Some(self), Some(Next::Wait))
            };
        };
        let missing = recipe.amount.saturating_sub(self.in_flight(|row| row.amount));
        if missing == Msat::ZERO {
            self.recipe = Some(recipe);
            return (Some(self), None);
        }
        let max_fee = recipe.max_fee.saturating_sub(self.in_flight(PartRow::fee));
        let (in_flight, next_part) = (self.flights.len(), self.row.next_part);
        let again = Next::Again { recipe: Box::new(recipe), missing, max_fee, in_flight, next_part };
        (Some(self), Some(again))
    }

    pub(super) fn give_up(&mut self, why: &str) {
        self.make_no_more();
        self.gave_up.get_or_insert_with(|| why.to_owned());
    }

    /// The row of a payment that has failed, told with all that is known of why.
    fn failed_row(self) -> PaymentRow {
        if !self.row.is_pending() {
            return self.row;
        }
        let why = self.why.unwrap_or_else(|| Explained::new("interrupted", INTERRUPTED.to_owned(), Verdict::Unsent));
        let message = match self.gave_up {
            Some(gave_up) => format!("{}; {gave_up}", why.message),
            None => why.message,
        };
        let state = PaymentState::Failed { kind: why.kind.to_owned(), message, at: Clock::now_unix() };
        PaymentRow { state, again: None, ..self.row }
    }
}

const INTERRUPTED: &str =
    "the node stopped before the payment was offered to the peer; nothing was paid, and it is safe to pay again";

impl Payments {
    /// Stages the row of a payment. What it counts for in its token's sum follows what it costs, in the same transaction.
    pub(super) fn put(&self, batch: &mut Batch, row: &mut PaymentRow) {
        if let Some(charge) = &mut row.charge {
            let costs = match &row.state {
                // What was counted when it was begun: the most that it may come to.
                PaymentState::Pending => charge.amount,
                PaymentState::Succeeded { fee, .. } => row.amount.saturating_add(*fee),
                PaymentState::Failed { .. } => row.lost,
            };
            self.tokens.settle(batch, charge, costs);
        }
        batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
    }

    /// The channel took the HTLC, or refused it: then nothing was sent.
    pub(super) fn answered(&self, payment_id: [u8; 32], part: u16, answer: Result<Reply, Refusal>) {
        if let Err(refusal) = answer {
            self.part_failed((payment_id, part), Batch::default(), |row| Explained::refused(row, &refusal));
        }
    }

    /// An HTLC of a payment has its answer. Told again after a crash, so the second time changes nothing.
    pub(super) fn settled(
        &self,
        (payment_id, part): ([u8; 32], u16),
        (channel, htlc_id): (ChannelId, u64),
        outcome: &HtlcOutcome,
    ) {
        let name = (payment_id, part);
        let batch = match outcome {
            // There is no row of an HTLC that was never signed.
            HtlcOutcome::NeverCommitted => Batch::default(),
            HtlcOutcome::Fulfilled(_) | HtlcOutcome::Failed(_) | HtlcOutcome::NoOutput => {
                forget_outcome(&payment_id, &channel, htlc_id)
            }
        };
        match outcome {
            HtlcOutcome::Fulfilled(preimage) => self.part_fulfilled(name, *preimage, batch),
            HtlcOutcome::Failed(reason) => self.part_failed(name, batch, |row| {
                Explained::failed(row, reason, |bytes| self.read_failure(&payment_id, part, &row.route, bytes))
            }),
            HtlcOutcome::NoOutput => self.part_failed(name, batch, Explained::no_output),
            HtlcOutcome::NeverCommitted => self.part_failed(name, batch, Explained::never_committed),
        }
    }

    /// The payee has told its preimage: the payment has succeeded, whatever the other parts come to. What is in flight yet is
    /// counted as paid, until it proves not to be.
    fn part_fulfilled(&self, (payment_id, part): ([u8; 32], u16), preimage: PaymentPreimage, mut batch: Batch) {
        batch.put(Table::Part, PartRow::key(&payment_id, part), None);
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.get_mut(&payment_id)
            && let Some(flight) = pending.lands(part)
        {
            pending.make_no_more();
            batch.merge(pending.take_deferred());
            if pending.row.is_pending() {
                let fee = flight.row.fee().saturating_add(pending.in_flight(PartRow::fee));
                pending.row.state = PaymentState::Succeeded { preimage, fee, at: Clock::now_unix() };
                tell_end(&mut batch, &pending.row);
                self.put(&mut batch, &mut pending.row);
            }
            if pending.flights.is_empty() {
                batch.end(&UnderWay::Payment(payment_id));
                state.forget(&payment_id);
            }
        }
        self.manager.env().writer.submit(batch);
    }

    /// A part has failed: what it was to bring goes another way where there is one and it can help, in the transaction that
    /// takes the failure in.
    fn part_failed(
        &self,
        (payment_id, part): ([u8; 32], u16),
        mut batch: Batch,
        explain: impl FnOnce(&PartRow) -> Explained,
    ) {
        batch.put(Table::Part, PartRow::key(&payment_id, part), None);
        let row = self.state.lock().pending.get(&payment_id).and_then(|pending| pending.flights.get(&part)).cloned();
        let next = row.and_then(|flight| {
            let explained = explain(&flight.row);
            self.look_for_proofs(&payment_id);
            tracing::info!(payment = %super::hex(&payment_id), part, reason = explained.message, "a part of a payment failed");
            self.state.lock().fails((payment_id, part), explained)
        });
        let left = match next {
            // Told again: it must not take away what is kept for the next start.
            None => self.state.lock().defer(&payment_id, batch, |kept| !kept.is_rowless()),
            Some(next) => {
                self.do_next(payment_id, next, batch);
                None
            }
        };
        if let Some(batch) = left {
            self.manager.env().writer.submit(batch);
        }
    }

    pub(super) fn do_next(&self, payment_id: [u8; 32], next: Next, mut batch: Batch) {
        match next {
            Next::Wait => {
                // Under the owner's lock: a caller that abandons the payment writes its row too.
                let mut state = self.state.lock();
                if let Some(pending) = state.pending.get_mut(&payment_id) {
                    if pending.row.is_pending() && !pending.unproven.is_empty() {
                        // Another start must ask the channels of the parts that have ended, too.
                        pending.deferred.merge(std::mem::take(&mut batch));
                    }
                    self.put(&mut batch, &mut pending.row);
                }
                self.manager.env().writer.submit(batch);
            }
            Next::Hold => {
                let mut state = self.state.lock();
                state.wait(payment_id, Clock::monotonic().checked_add(LOOK_AGAIN));
                if let Some(batch) = state.defer(&payment_id, batch, |_| true) {
                    self.manager.env().writer.submit(batch);
                }
            }
            Next::Over(pending) => self.over(*pending, batch),
            Next::Again { recipe, missing, max_fee, in_flight, next_part } => {
                let task = (missing, max_fee, in_flight);
                let attempts = self.attempts(&payment_id, next_part, &recipe, task).map_err(|fault| fault.to_string());
                self.go_on(payment_id, *recipe, attempts, batch);
            }
        }
    }

    /// Orders the new attempts, unless nobody wants them any more.
    fn go_on(&self, payment_id: [u8; 32], recipe: Recipe, attempts: Result<Vec<Attempt>, String>, mut batch: Batch) {
        let mut state = self.state.lock();
        let Some(pending) = state.pending.get_mut(&payment_id) else { return self.manager.env().writer.submit(batch) };
        let is_disowned = pending.row.charge.is_some_and(|charge| !self.tokens.is_kept(&charge.token));
        match attempts {
            _ if is_disowned => pending.give_up(DISOWNED),
            Ok(attempts) if !pending.is_abandoned => {
                (pending.recipe, pending.is_patient) = (Some(recipe), false);
                batch.merge(pending.take_deferred());
                self.stage(&mut batch, pending, attempts);
                return self.manager.env().writer.submit(batch);
            }
            Err(_) if pending.is_patient && !pending.is_abandoned => {
                pending.recipe = Some(recipe);
                state.wait(payment_id, Clock::monotonic().checked_add(LOOK_AGAIN));
                if !batch.is_rowless() {
                    self.manager.env().writer.submit(batch);
                }
                return;
            }
            Ok(_) => pending.give_up(ABANDONED),
            Err(fault) => pending.give_up(&format!("nothing else was left to try: {fault}")),
        }
        if !pending.flights.is_empty() {
            batch.merge(pending.take_deferred());
            self.put(&mut batch, &mut pending.row);
            return self.manager.env().writer.submit(batch);
        }
        let pending = state.forget(&payment_id);
        drop(state);
        if let Some(pending) = pending {
            self.over(pending, batch);
        }
    }

    /// A payment of which nothing is in flight has its last row in the same transaction as `batch`, and its one event.
    pub(super) fn over(&self, mut pending: Pending, mut batch: Batch) {
        let had_ended = !pending.row.is_pending();
        if !had_ended && self.manager.env().is_restored() {
            // BAK-1: of a file that is old, nothing says that nothing was paid.
            self.put(&mut batch, &mut pending.row);
            self.manager.env().writer.submit(batch);
            return self.state.lock().remember(pending);
        }
        batch.merge(pending.take_deferred());
        let mut row = pending.failed_row();
        if !had_ended {
            tell_end(&mut batch, &row);
        }
        self.put(&mut batch, &mut row);
        batch.end(&UnderWay::Payment(row.payment_id));
        self.manager.env().writer.submit(batch);
    }

    /// No new attempt is made for the payment; what is in flight is decided by the network. None where it is not pending. What
    /// is returned resolves once that is durable: a start must know of it before a caller does, who may pay by another way then.
    pub fn abandon(&self, payment_id: &[u8; 32]) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        let pending = state.pending.get_mut(payment_id).filter(|pending| pending.row.is_pending());
        let pending = pending?;
        pending.is_abandoned = true;
        pending.give_up(ABANDONED);
        let (waiter, durable) = oneshot::channel();
        let mut batch = Batch::default();
        batch.hold(Held::Durable(waiter));
        self.put(&mut batch, &mut pending.row);
        let is_over = |found: &Pending| found.flights.is_empty() && !found.waits_for_proofs();
        if state.waiting.contains(payment_id) && state.pending.get(payment_id).is_some_and(is_over) {
            let pending = state.forget(payment_id);
            drop(state);
            match pending {
                Some(pending) => self.over(pending, batch),
                None => self.manager.env().writer.submit(batch),
            }
            return Some(durable);
        }
        // Under the owner's lock: a later row of it must not be queued before.
        self.manager.env().writer.submit(batch);
        Some(durable)
    }
}

/// How long a payment that a start found waits until it is looked at again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

const DISOWNED: &str = "no other way was tried: the token that it was made with was revoked";

const ABANDONED: &str = "no other way was tried: the payment was abandoned";

/// The one event of a payment that has ended.
fn tell_end(batch: &mut Batch, row: &PaymentRow) {
    let (id, hash) = (super::hex(&row.payment_id), row.payment_hash.to_string());
    let mut fields = json!({ "payment_id": id, "payment_hash": hash, "amount_msat": row.amount.get() });
    let kind = match &row.state {
        PaymentState::Pending => return,
        PaymentState::Succeeded { .. } => "payment_succeeded",
        PaymentState::Failed { message, .. } => {
            if let Some(fields) = fields.as_object_mut() {
                fields.insert("message".to_owned(), message.clone().into());
            }
            "payment_failed"
        }
    };
    batch.event(EventRow::new(Clock::now_unix(), kind, fields));
}

mod known;
#[cfg(test)]
mod tests;
