//! Payments that a start found. The file may be older than what peers have heard, and then a later one may have paid: nothing
//! is tried anew, and nothing is said to be unpaid, before the peers of the parts that are known have been in step with it
//! (BAK-1, PAY-2).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::ChannelId;

use super::order::Recipe;
use super::pending::{Flight, Pending};
use super::send::MAX_ATTEMPTS;
use super::{Payments, hex};
use crate::clock::Clock;
use crate::store::Batch;
use crate::store::load::LoadedOutcome;
use crate::store::part::PartRow;
use crate::store::row::{PaymentRow, PaymentState};
use crate::store::schema::Table;
use crate::token::Tokens;

/// What a start found of payments that have not ended.
#[derive(Debug, Default)]
pub struct Unfinished {
    pub pending: Vec<PaymentRow>,
    pub parts: Vec<(([u8; 32], u16), PartRow)>,
    /// Outcomes that were learned but not taken in.
    pub outcomes: Vec<LoadedOutcome>,
    /// Who pays for those that a token made.
    pub tokens: Arc<Tokens>,
}

/// Parts of a payment for which nothing was signed, as far as the file knows.
#[derive(Default)]
struct Unsigned {
    /// Takes their rows away.
    batch: Batch,
    fees: Msat,
    channels: BTreeSet<ChannelId>,
}

impl Pending {
    /// One that a start found, which goes on by this recipe.
    fn found(
        row: PaymentRow,
        flights: BTreeMap<u16, PartRow>,
        Unsigned { batch, channels, .. }: Unsigned,
        recipe: Option<Recipe>,
    ) -> Self {
        let mut found = Self::of(row, BTreeMap::new());
        (found.is_patient, found.recipe, found.deferred) = (recipe.is_some(), recipe, batch);
        found.unproven = flights.values().map(|row| row.channel).chain(channels).collect();
        for (part, row) in flights {
            let ways = found.recipe.as_ref().map_or(&[][..], |recipe| &recipe.ways);
            let way = ways.iter().position(|way| way.is_of(&row.route));
            found.takes_off(part, Flight { row, way });
        }
        if found.recipe.is_some() && found.row.next_part >= MAX_ATTEMPTS {
            found
                .give_up("no other way was tried: as many attempts were made as are allowed, or nobody knows how many");
        }
        found
    }

    /// Whether something is to be brought that is not in flight.
    fn lacks_parts(&self) -> bool {
        self.recipe.as_ref().is_some_and(|recipe| self.in_flight(|row| row.amount) < recipe.amount)
    }

    /// Whether what is to be done next must wait for peers to say that the file is the newest: another attempt, or the word
    /// that nothing was paid.
    pub(super) fn waits_for_proofs(&self) -> bool {
        let is_next_unsafe = self.lacks_parts() || self.flights.is_empty();
        self.row.is_pending() && is_next_unsafe && !self.unproven.is_empty()
    }
}

impl Payments {
    /// Takes in what a start found. `carried` says whether the HTLC of a part may stand in some channel.
    pub(super) fn take_in(&self, unfinished: Unfinished, carried: impl Fn(&[u8; 32], u16) -> bool) {
        let Unfinished { pending, parts, outcomes, tokens: _ } = unfinished;
        let decided: HashSet<_> = outcomes.iter().map(|outcome| (outcome.payment_id, outcome.row.part)).collect();
        let mut flights: HashMap<[u8; 32], BTreeMap<u16, PartRow>> = HashMap::new();
        let mut unsigned: HashMap<[u8; 32], Unsigned> = HashMap::new();
        // Of a file that is old, nothing says what became of a part since.
        let is_old = self.manager.env().is_restored();
        for ((payment_id, part), row) in parts {
            if is_old || decided.contains(&(payment_id, part)) || carried(&payment_id, part) {
                flights.entry(payment_id).or_default().insert(part, row);
            } else {
                // Nothing was signed for it: its HTLC would have a row, or its outcome.
                let Unsigned { batch, fees, channels } = unsigned.entry(payment_id).or_default();
                batch.put(Table::Part, PartRow::key(&payment_id, part), None);
                *fees = fees.saturating_add(row.fee());
                channels.insert(row.channel);
            }
        }
        for row in pending {
            let of_payment = flights.remove(&row.payment_id).unwrap_or_default();
            let forgotten = unsigned.remove(&row.payment_id).unwrap_or_default();
            self.found(row, of_payment, forgotten, is_old);
        }
        for Unsigned { batch, .. } in unsigned.into_values() {
            self.manager.env().writer.submit(batch);
        }
        for LoadedOutcome { payment_id, channel, htlc_id, row } in outcomes {
            self.settled((payment_id, row.part), (channel, htlc_id), &row.outcome());
        }
    }

    /// Goes on with a payment that a start found. What it forgets of it and what that changes is one transaction, now or once
    /// it goes on.
    fn found(&self, mut row: PaymentRow, flights: BTreeMap<u16, PartRow>, unsigned: Unsigned, is_old: bool) {
        if let PaymentState::Succeeded { fee, .. } = &mut row.state {
            *fee = fee.saturating_sub(unsigned.fees);
        }
        let recipe = self.recipe_again(&row).filter(|_| row.is_pending() && !is_old);
        let mut pending = Pending::found(row, flights, unsigned, recipe);
        pending.unproven.retain(|channel| !self.manager.is_proven(channel));
        let (payment_id, waits) = (pending.row.payment_id, pending.waits_for_proofs());
        if pending.flights.is_empty() && pending.recipe.is_none() && !waits && !is_old {
            return self.over(pending, Batch::default());
        }
        if waits {
            let payment = hex(&payment_id);
            tracing::info!(payment, "a payment goes on once the peers of its channels are in step with this file");
        }
        // Until all have proved to be so, another start must ask the same channels.
        if !pending.row.is_pending() || pending.unproven.is_empty() {
            let mut batch = pending.take_deferred();
            self.put(&mut batch, &mut pending.row);
            self.manager.env().writer.submit(batch);
        }
        let looks = (pending.lacks_parts() || waits) && !is_old;
        let mut state = self.state.lock();
        state.remember(pending);
        if looks {
            state.wait(payment_id, Some(Clock::monotonic()));
        }
    }

    /// Payments that a start found, and that could not go on so far, are looked at again.
    pub fn look_again(&self) {
        let now = Clock::monotonic();
        let waiting = {
            let mut state = self.state.lock();
            if state.next_look.is_none_or(|next| now < next) {
                return;
            }
            state.next_look = None;
            std::mem::take(&mut state.waiting)
        };
        for payment_id in waiting {
            self.look_for_proofs(&payment_id);
            let next = self.state.lock().with(&payment_id, |pending| pending.goes_on(now));
            if let Some(next) = next {
                self.do_next(payment_id, next, Batch::default());
            }
        }
    }

    /// Which peers have said since the start that the rows are the newest. They are looked at under the locks of peers, never
    /// under the owner's (law 3).
    pub(super) fn look_for_proofs(&self, payment_id: &[u8; 32]) {
        let of = |state: &super::State| state.pending.get(payment_id).map(|pending| pending.unproven.clone());
        let Some(mut unproven) = of(&self.state.lock()).filter(|unproven| !unproven.is_empty()) else { return };
        unproven.retain(|channel| !self.manager.is_proven(channel));
        if let Some(pending) = self.state.lock().pending.get_mut(payment_id) {
            pending.unproven = unproven;
        }
    }
}
