//! Sending: HTLCs over channels with the payee or over the ways that its invoice names, in parts where one channel does not
//! suffice; or over the one route that the caller gives. Where a part fails, what it was to bring goes other ways, within the
//! fee and the time that the caller allows.

use std::collections::BTreeMap;

use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash};
use outrigger_bolt::invoice::Invoice;
use outrigger_bolt::onion::{self, FinalPayload, Hop, Payload, PaymentData, Unwrapped, failure};
use outrigger_channel::{Command, HtlcSource};
use tokio::sync::oneshot;

use super::order::{PayOrder, Recipe, SendFault, Whom, amount_of};
use super::pending::Flight;
use super::plan::{MAX_IN_FLIGHT, Piece, Task, check, plan};
use super::route::{Arrives, BadRoute, GivenHop, Route};
use super::{Idempotency, Payments, Pending, State, remember};
use crate::clock::Clock;
use crate::manager::deliver::ReplyTo;
use crate::store::part::{PartHop, PartRow};
use crate::store::row::{OperationState, PaymentRow, PaymentState};
use crate::store::schema::{Table, UnderWay};
use crate::store::token::TokenId;
use crate::store::{Batch, Held, StoreError};

/// Blocks added to the payee's final expiry, so that a block found on the way fails nothing (BOLT 7, "shadow route").
const FINAL_CLTV_MARGIN: u32 = 3;

/// HTLCs that one payment makes over all its attempts, at most.
pub(super) const MAX_ATTEMPTS: u16 = 200;

/// One HTLC to be offered to a channel.
pub(super) struct Attempt {
    part: u16,
    peer: NodeId,
    cltv_expiry: u32,
    flight: Flight,
    onion: Box<[u8; 1366]>,
}

/// Whether a known payment is the one that is asked for: it is no answer for another payee or amount.
fn same_terms(existing: &PaymentRow, payee: &NodeId, amount: Option<Msat>) -> Result<(), SendFault> {
    let what = match (existing.destination == *payee, amount) {
        (false, _) => "payee",
        (true, Some(amount)) if amount != existing.amount => "amount",
        (true, _) => return Ok(()),
    };
    Err(SendFault::HashTaken { payee: existing.destination, amount: existing.amount, what })
}

impl Payments {
    /// Begins a payment and returns it once its row is durable. A payment of the same hash that is pending or has
    /// succeeded is returned as it is: an invoice is paid once.
    pub async fn send(&self, order: PayOrder) -> Result<PaymentRow, SendFault> {
        let invoice = match &order.whom {
            Whom::Invoice { invoice, .. } => Some(Invoice::parse(invoice, self.terms.network)?),
            Whom::Node { .. } => None,
        };
        // Before anything that time changes: a repeat hears how the payment stands also once the invoice has expired.
        if let (Some(invoice), Whom::Invoice { amount, .. }) = (&invoice, &order.whom) {
            let existing = self.existing(&self.state.lock(), &invoice.terms.payment_hash)?;
            if let Some(existing) = existing {
                same_terms(&existing, &invoice.payee, amount_of(invoice.terms.amount, *amount)?)?;
                let (waiter, durable) = oneshot::channel();
                let mut batch = Batch::default();
                batch.hold(Held::Durable(waiter));
                remember(&mut batch, order.idempotency, OperationState::Payment { payment_id: existing.payment_id })?;
                // Its row may still be on the way to the file: it is told only once it is there.
                self.manager.env().writer.submit(batch);
                let _ = durable.await;
                return Ok(existing);
            }
        }
        if !self.manager.env().chain.is_synced() {
            return Err(SendFault::NotSynced);
        }
        if self.manager.env().room.is_low() {
            return Err(SendFault::NoRoom);
        }
        let recipe = self.recipe(&order, invoice)?;
        let row = PaymentRow {
            payment_id: Clock::random_bytes()?,
            payment_hash: recipe.hash,
            destination: recipe.payee,
            amount: recipe.amount,
            created_at: Clock::now_unix(),
            next_part: 0,
            again: recipe.again(&order),
            charge: None,
            lost: Msat::ZERO,
            state: PaymentState::Pending,
        };
        let attempts = self.first_attempts(&row.payment_id, &recipe)?;
        let (row, durable) = self.begin(row, recipe, attempts, (order.idempotency, order.payer))?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(row)
    }

    fn first_attempts(&self, payment_id: &[u8; 32], recipe: &Recipe) -> Result<Vec<Attempt>, SendFault> {
        match &recipe.given {
            Some(hops) => {
                let piece = self.given(recipe, hops)?;
                Ok(vec![self.attempt(payment_id, 0, recipe, piece)?])
            }
            None => self.attempts(payment_id, 0, recipe, (recipe.amount, recipe.max_fee, 0)),
        }
    }

    /// The HTLCs that bring `missing` within this fee, beside so many that are in flight. Ways are looked at under the locks
    /// of peers, never under the owner's (law 3).
    pub(super) fn attempts(
        &self,
        payment_id: &[u8; 32],
        next_part: u16,
        recipe: &Recipe,
        (missing, max_fee, in_flight): (Msat, Msat, usize),
    ) -> Result<Vec<Attempt>, SendFault> {
        let env = self.manager.env();
        if !env.chain.is_synced() || env.is_restored() {
            return Err(SendFault::NotSynced);
        }
        if env.room.is_low() {
            return Err(SendFault::NoRoom);
        }
        let task = self.task(recipe, (missing, max_fee));
        let max_parts = if recipe.in_parts { MAX_IN_FLIGHT.saturating_sub(in_flight) } else { 1 };
        let task = Task { max_parts, ..task };
        let look =
            |peer: &NodeId, amount| recipe.outlets.within(self.manager.outlets(peer, amount, MAX_IN_FLIGHT), amount);
        let pieces = plan(&recipe.ways, &task, &look)?;
        if pieces.len() > usize::from(MAX_ATTEMPTS.saturating_sub(next_part)) {
            return Err(SendFault::TooManyAttempts(MAX_ATTEMPTS));
        }
        let numbered = (next_part..MAX_ATTEMPTS).zip(pieces);
        numbered.map(|(part, piece)| self.attempt(payment_id, part, recipe, piece)).collect()
    }

    fn task(&self, recipe: &Recipe, (amount, max_fee): (Msat, Msat)) -> Task {
        let height = self.manager.env().chain.height();
        let cltv_expiry = height.saturating_add(recipe.final_cltv_blocks).saturating_add(FINAL_CLTV_MARGIN);
        Task { payee: recipe.payee, arrives: Arrives { amount, cltv_expiry }, height, max_fee, max_parts: 1 }
    }

    /// The route that the caller gave, over the channel of ours that it names or over the one that fits.
    fn given(&self, recipe: &Recipe, hops: &[GivenHop]) -> Result<Piece, SendFault> {
        let task = self.task(recipe, (recipe.amount, recipe.max_fee));
        let route = Route::given(hops, task.height).ok_or(BadRoute::Empty)?;
        check(&route, &task, recipe.max_fee)?;
        let peer = route.first();
        let outlets = self.manager.outlets(&peer, route.sends, 1);
        if !outlets.has_channel {
            return Err(SendFault::NoRoute(recipe.payee));
        }
        let too_large = |spendable| SendFault::TooLarge { spendable, asked: route.sends };
        let channel = match hops.first().and_then(|hop| hop.channel) {
            Some(name) => {
                let channel = self.manager.channel_called(&peer, name).ok_or(BadRoute::NotOurs(name))?;
                let others_can = !outlets.largest.is_empty();
                let unusable = || if others_can { SendFault::Unusable(name) } else { SendFault::NotConnected(peer) };
                let spendable = self.manager.outlet(&peer, &channel).ok_or_else(unusable)?;
                if spendable < route.sends {
                    return Err(too_large(spendable));
                }
                channel
            }
            None => {
                let (spendable, _) = *outlets.largest.first().ok_or(SendFault::NotConnected(peer))?;
                outlets.fit.ok_or(too_large(spendable))?.1
            }
        };
        Ok(Piece { way: None, route, channel, amount: recipe.amount })
    }

    /// The payment of this hash that must not be made again. One whose end is on its way to the file still shows there
    /// as pending, so nothing can end and be begun anew between two looks.
    fn existing(&self, state: &State, hash: &PaymentHash) -> Result<Option<PaymentRow>, StoreError> {
        let pending = state.by_hash.get(hash).and_then(|id| state.pending.get(id)).map(|pending| pending.row.clone());
        if pending.is_some() {
            return Ok(pending);
        }
        let last = self.reader.payment_by_hash(hash)?;
        Ok(last.filter(|row| !matches!(row.state, PaymentState::Failed { .. })))
    }

    fn attempt(&self, payment_id: &[u8; 32], part: u16, recipe: &Recipe, piece: Piece) -> Result<Attempt, SendFault> {
        let Piece { way, route, channel, amount } = piece;
        let onion = self.onion((payment_id, part), &route, recipe, amount)?;
        let row = PartRow { sends: route.sends, amount, channel, route: route.hops() };
        let (peer, cltv_expiry) = (route.first(), route.cltv_expiry);
        Ok(Attempt { part, peer, cltv_expiry, flight: Flight { row, way }, onion })
    }

    fn onion(
        &self,
        (payment_id, part): (&[u8; 32], u16),
        route: &Route,
        recipe: &Recipe,
        amount: Msat,
    ) -> Result<Box<[u8; 1366]>, SendFault> {
        // BOLT 4: every part says what all of them bring.
        let total_msat = recipe.amount;
        let last = Payload::Final(FinalPayload {
            amt_to_forward: amount,
            outgoing_cltv_value: route.final_cltv_expiry,
            payment_data: recipe.secret.map(|payment_secret| PaymentData { payment_secret, total_msat }),
            payment_metadata: recipe.metadata.clone(),
            keysend_preimage: recipe.keysend,
        });
        let forwards = route.forwards.iter().map(|(node, payload)| (*node, Payload::Forward(*payload)));
        let hops = forwards.chain([(route.payee, last)]).map(|(node, payload)| {
            let payload = payload.encode().map_err(|_| SendFault::Onion)?;
            Ok(Hop { node: *node.public_key(), payload })
        });
        let hops = hops.collect::<Result<Vec<_>, SendFault>>()?;
        let session_key = self.session_key(payment_id, part);
        let built = onion::build(&session_key, &hops, &recipe.hash.0).map_err(|_| SendFault::Onion)?;
        Ok(Box::new(built.packet.to_bytes()))
    }

    /// Derived, not stored: a failure can be read after a restart. No part of a payment has the number of another.
    fn session_key(&self, payment_id: &[u8; 32], part: u16) -> SecretKey {
        self.manager.env().keys.onion_session_key(payment_id, part)
    }

    /// Stages the payment and the orders to its channels. Where another caller was first, meanwhile, it is that caller's
    /// payment that is returned: it may even have ended by now (PAY-2).
    fn begin(
        &self,
        mut row: PaymentRow,
        recipe: Recipe,
        attempts: Vec<Attempt>,
        (idempotency, payer): (Option<Idempotency>, Option<TokenId>),
    ) -> Result<(PaymentRow, oneshot::Receiver<()>), SendFault> {
        let (waiter, durable) = oneshot::channel();
        let env = self.manager.env();
        let mut batch = Batch::default();
        batch.hold(Held::Durable(waiter));
        let mut state = self.state.lock();
        if let Some(existing) = self.existing(&state, &row.payment_hash)? {
            same_terms(&existing, &row.destination, Some(row.amount))?;
            remember(&mut batch, idempotency, OperationState::Payment { payment_id: existing.payment_id })?;
            env.writer.submit(batch);
            return Ok((existing, durable));
        }
        remember(&mut batch, idempotency, OperationState::Payment { payment_id: row.payment_id })?;
        let most = recipe.amount.saturating_add(recipe.max_fee);
        // The last that can refuse the payment: whatever is counted is begun.
        row.charge = payer.map(|token| self.tokens.charge(&mut batch, &token, most)).transpose()?;
        batch.begin(&UnderWay::Payment(row.payment_id));
        batch.put(Table::PaymentByHash, row.payment_hash.0.to_vec(), Some(row.payment_id.to_vec()));
        let mut pending = Pending::of(row, BTreeMap::new());
        pending.recipe = Some(recipe);
        self.stage(&mut batch, &mut pending, attempts);
        let row = pending.row.clone();
        state.by_hash.insert(row.payment_hash, row.payment_id);
        state.pending.insert(row.payment_id, pending);
        // Submitted under the owner's lock: the rows of a hash are queued in the order in which they were decided.
        env.writer.submit(batch);
        Ok((row, durable))
    }

    /// Stages HTLCs of a payment: their rows, its own, and the orders to their channels.
    pub(super) fn stage(&self, batch: &mut Batch, pending: &mut Pending, attempts: Vec<Attempt>) {
        let (payment_id, payment_hash) = (pending.row.payment_id, pending.row.payment_hash);
        for Attempt { part, peer, cltv_expiry, flight, onion } in attempts {
            let id = self.manager.env().next_command();
            self.manager.deliver().expect_reply(id, ReplyTo::Payment { payment_id, part });
            let source = HtlcSource::Payment { payment_id, part };
            let (amount, channel) = (flight.row.sends, flight.row.channel);
            let command = Command::AddHtlc { amount, payment_hash, cltv_expiry, onion, source };
            batch.put(Table::Part, PartRow::key(&payment_id, part), Some(flight.row.encode()));
            batch.hold(Held::Order { peer, channel, id, command });
            pending.takes_off(part, flight);
        }
        self.put(batch, &mut pending.row);
    }

    /// Reads what came back with the keys that the packet was built with: the place of the node that failed it, and what
    /// it says.
    pub(super) fn read_failure(&self, payment_id: &[u8; 32], part: u16, route: &[PartHop], reason: &[u8]) -> Unwrapped {
        let hops: Vec<_> = route.iter().map(|hop| Hop { node: *hop.node.public_key(), payload: vec![0; 2] }).collect();
        match onion::build(&self.session_key(payment_id, part), &hops, &[]) {
            Ok(built) => failure::unwrap(&built.shared_secrets, reason),
            Err(_) => Unwrapped::Unattributable,
        }
    }
}
