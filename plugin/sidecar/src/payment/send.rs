//! Sending: one HTLC at a time, over a channel with the payee or over the ways that its invoice names. Where one way
//! fails, the next is tried, within the fee that the caller allows.

use std::collections::BTreeMap;

use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, PaymentSecret};
use outrigger_bolt::invoice::{HintHop, InvalidInvoice, Invoice};
use outrigger_bolt::onion::{self, Failure, FinalPayload, Hop, Payload, PaymentData, Unwrapped, failure};
use outrigger_channel::{Command, FailReason, HtlcOutcome, HtlcSource, Refusal, Reply};
use tokio::sync::oneshot;

use super::route::{self, Arrives, Route};
use super::{Idempotency, Payments, Pending, State, forget_outcome, remember};
use crate::clock::{Clock, NoEntropy};
use crate::manager::ChannelView;
use crate::manager::deliver::ReplyTo;
use crate::store::part::PartRow;
use crate::store::row::{OperationState, PaymentRow, PaymentState};
use crate::store::schema::{Table, UnderWay};
use crate::store::{Batch, Held, StoreError};

/// Blocks added to the payee's final expiry, so that a block found on the way fails nothing (BOLT 7, "shadow route").
const FINAL_CLTV_MARGIN: u32 = 3;

/// Blocks that an HTLC of ours may be held at most: whoever holds it holds our money.
const MAX_HELD_BLOCKS: u32 = 2016;

/// The most paid in fees where the caller says nothing: this much, or one part in [`DEFAULT_FEE_SHARE`] of the amount where
/// that is more.
const DEFAULT_FEE: Msat = Msat::new(5000);
const DEFAULT_FEE_SHARE: u64 = 100;

/// An invoice to pay.
#[derive(Clone, Debug)]
pub struct PayOrder {
    pub invoice: String,
    /// For invoices that name no amount.
    pub amount: Option<Msat>,
    /// The most to pay in fees.
    pub max_fee: Option<Msat>,
    pub idempotency: Option<Idempotency>,
}

/// Why a payment was not begun. Nothing was sent and nothing is stored.
#[derive(Debug, thiserror::Error)]
pub enum SendFault {
    #[error("the chain is not synced yet, so nothing is paid; see node.status")]
    NotSynced,
    #[error("{0}")]
    Invoice(#[from] InvalidInvoice),
    #[error("the invoice has expired at {0} (unix seconds); ask for a new one")]
    Expired(u64),
    #[error("the invoice names no amount: give amount_msat")]
    AmountMissing,
    #[error("the invoice asks for {asked} and amount_msat says {given}; leave amount_msat out")]
    AmountDiffers { asked: Msat, given: Msat },
    #[error("an amount of zero cannot be paid")]
    AmountZero,
    #[error("the invoice is our own")]
    OwnInvoice,
    #[error("no channel leads to {0}, and its invoice names no way that begins at a peer of ours")]
    NoRoute(NodeId),
    #[error("{0} is not connected, and the channels with it wait for it")]
    NotConnected(NodeId),
    #[error("the channels with {node} can send {spendable} at the most, and the invoice asks for {asked}")]
    TooLarge { node: NodeId, spendable: Msat, asked: Msat },
    #[error(
        "the payee, or a node on the way, would hold the payment for {blocks} blocks, and no more than {most} are lent"
    )]
    HeldTooLong { blocks: u32, most: u32 },
    #[error("the way costs {fee} in fees, and no more than {most} may be paid")]
    FeeTooHigh { fee: Msat, most: Msat },
    #[error("the payment does not fit an onion")]
    Onion,
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl SendFault {
    /// How much it tells of why no way was taken, where several have a reason each.
    const fn weight(&self) -> u8 {
        match self {
            Self::FeeTooHigh { .. } | Self::HeldTooLong { .. } => 3,
            Self::TooLarge { .. } => 2,
            Self::NotConnected(_) => 1,
            Self::NoRoute(_)
            | Self::NotSynced
            | Self::Invoice(_)
            | Self::Expired(_)
            | Self::AmountMissing
            | Self::AmountDiffers { .. }
            | Self::AmountZero
            | Self::OwnInvoice
            | Self::Onion
            | Self::NoEntropy(_)
            | Self::Store(_) => 0,
        }
    }
}

/// What a payment asks for, and the ways that were not tried yet. Lost in a crash: then what is under way decides.
#[derive(Debug)]
pub(super) struct Recipe {
    payee: NodeId,
    hash: PaymentHash,
    secret: PaymentSecret,
    metadata: Option<Vec<u8>>,
    amount: Msat,
    max_fee: Msat,
    /// Blocks that the payee wants to be left when the HTLC reaches it.
    final_cltv_blocks: u32,
    /// The channels of each way, the payee's own channel with us being the one without any. The next one is last.
    untried: Vec<Vec<HintHop>>,
}

/// One HTLC to be offered to a channel.
struct Attempt {
    part: u16,
    peer: NodeId,
    channel: ChannelId,
    cltv_expiry: u32,
    row: PartRow,
    onion: Box<[u8; 1366]>,
}

impl Payments {
    /// Begins a payment and returns it once its row is durable. A payment of the same hash that is pending or has
    /// succeeded is returned as it is: an invoice is paid once.
    pub async fn send(&self, order: PayOrder) -> Result<PaymentRow, SendFault> {
        let invoice = Invoice::parse(&order.invoice, self.terms.network)?;
        // Before anything that time changes: a repeat hears how the payment stands also once the invoice has expired.
        let existing = self.existing(&self.state.lock(), &invoice.terms.payment_hash)?;
        if let Some(existing) = existing {
            let (waiter, durable) = oneshot::channel();
            let mut batch = Batch::default();
            batch.hold(Held::Durable(waiter));
            remember(&mut batch, order.idempotency, OperationState::Payment { payment_id: existing.payment_id })?;
            // Its row may still be on the way to the file: it is told only once it is there.
            self.manager.env().writer.submit(batch);
            let _ = durable.await;
            return Ok(existing);
        }
        if !self.manager.env().chain.is_synced() {
            return Err(SendFault::NotSynced);
        }
        let mut recipe = self.recipe(invoice, order.amount, order.max_fee)?;
        let row = PaymentRow {
            payment_id: Clock::random_bytes()?,
            payment_hash: recipe.hash,
            destination: recipe.payee,
            amount: recipe.amount,
            created_at: Clock::now_unix(),
            state: PaymentState::Pending,
        };
        let attempt = self.attempt(&row.payment_id, 0, &mut recipe)?;
        let (row, durable) = self.begin(row, recipe, attempt, order.idempotency)?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(row)
    }

    fn recipe(&self, invoice: Invoice, given: Option<Msat>, max_fee: Option<Msat>) -> Result<Recipe, SendFault> {
        let (payee, terms) = (invoice.payee, invoice.terms);
        let expires_at = terms.timestamp.saturating_add(terms.expiry_secs);
        if expires_at <= Clock::now_unix() {
            return Err(SendFault::Expired(expires_at));
        }
        let amount = match (terms.amount, given) {
            (Some(asked), Some(given)) if asked != given => return Err(SendFault::AmountDiffers { asked, given }),
            (Some(amount), _) | (None, Some(amount)) => amount,
            (None, None) => return Err(SendFault::AmountMissing),
        };
        if amount == Msat::ZERO {
            return Err(SendFault::AmountZero);
        }
        let us = self.manager.env().keys.node_id();
        if payee == us {
            return Err(SendFault::OwnInvoice);
        }
        let mut untried = route::ways(&us, payee, &terms.route_hints);
        untried.reverse();
        let share = Msat::new(amount.get() / DEFAULT_FEE_SHARE);
        Ok(Recipe {
            payee,
            hash: terms.payment_hash,
            secret: terms.payment_secret,
            metadata: terms.payment_metadata,
            amount,
            max_fee: max_fee.unwrap_or(share.max(DEFAULT_FEE)),
            final_cltv_blocks: terms.min_final_cltv_expiry_delta,
            untried,
        })
    }

    /// The next way that can be taken, with the onion for it. An error is the most telling of the reasons why the ways that
    /// were left cannot; they are not tried again.
    fn attempt(&self, payment_id: &[u8; 32], part: u16, recipe: &mut Recipe) -> Result<Attempt, SendFault> {
        let height = self.manager.env().chain.height();
        let cltv_expiry = height.saturating_add(recipe.final_cltv_blocks).saturating_add(FINAL_CLTV_MARGIN);
        let arrives = Arrives { amount: recipe.amount, cltv_expiry };
        let mut fault = SendFault::NoRoute(recipe.payee);
        while let Some(channels) = recipe.untried.pop() {
            let Some(route) = Route::over(&channels, recipe.payee, arrives) else { continue };
            match self.affordable(&route, recipe) {
                Ok(channel) => {
                    return Ok(Attempt {
                        part,
                        peer: route.first(),
                        channel,
                        cltv_expiry: route.cltv_expiry,
                        row: PartRow { sends: route.sends, amount: recipe.amount, route: route.nodes() },
                        onion: self.onion(payment_id, part, &route, recipe, cltv_expiry)?,
                    });
                }
                Err(other) if other.weight() >= fault.weight() => fault = other,
                Err(_) => {}
            }
        }
        Err(fault)
    }

    /// The channel of ours that the way begins with.
    fn affordable(&self, route: &Route, recipe: &Recipe) -> Result<ChannelId, SendFault> {
        let channel = self.choose(&route.first(), recipe.payee, route.sends)?;
        let blocks = route.cltv_expiry.saturating_sub(self.manager.env().chain.height());
        if blocks > MAX_HELD_BLOCKS {
            return Err(SendFault::HeldTooLong { blocks, most: MAX_HELD_BLOCKS });
        }
        let fee = route.sends.saturating_sub(recipe.amount);
        if fee > recipe.max_fee {
            return Err(SendFault::FeeTooHigh { fee, most: recipe.max_fee });
        }
        Ok(channel)
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

    /// The channel with the smallest balance that suffices: large balances are kept for large payments.
    fn choose(&self, peer: &NodeId, payee: NodeId, amount: Msat) -> Result<ChannelId, SendFault> {
        let channels = self.manager.channels_of(peer);
        let open: Vec<&ChannelView> = channels.iter().filter(|view| view.summary.state == "normal").collect();
        if open.is_empty() {
            return Err(SendFault::NoRoute(payee));
        }
        let usable: Vec<&ChannelView> = open.into_iter().filter(|view| view.summary.connected).collect();
        let spendable = usable.iter().map(|view| view.summary.spendable).max();
        let spendable = spendable.ok_or(SendFault::NotConnected(*peer))?;
        usable
            .iter()
            .filter(|view| view.summary.spendable >= amount)
            .min_by_key(|view| view.summary.spendable)
            .map(|view| view.channel_id)
            .ok_or(SendFault::TooLarge { node: *peer, spendable, asked: amount })
    }

    fn onion(
        &self,
        payment_id: &[u8; 32],
        part: u16,
        route: &Route,
        recipe: &Recipe,
        cltv_expiry: u32,
    ) -> Result<Box<[u8; 1366]>, SendFault> {
        let last = Payload::Final(FinalPayload {
            amt_to_forward: recipe.amount,
            outgoing_cltv_value: cltv_expiry,
            payment_data: Some(PaymentData { payment_secret: recipe.secret, total_msat: recipe.amount }),
            payment_metadata: recipe.metadata.clone(),
            keysend_preimage: None,
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

    /// Derived, not stored: a failure can be read after a restart.
    fn session_key(&self, payment_id: &[u8; 32], part: u16) -> SecretKey {
        self.manager.env().keys.onion_session_key(payment_id, part)
    }

    /// Stages the payment and the order to its channel. Where another caller was first, meanwhile, it is that caller's
    /// payment that is returned: it may even have ended by now (PAY-2).
    fn begin(
        &self,
        row: PaymentRow,
        recipe: Recipe,
        attempt: Attempt,
        idempotency: Option<Idempotency>,
    ) -> Result<(PaymentRow, oneshot::Receiver<()>), SendFault> {
        let (waiter, durable) = oneshot::channel();
        let env = self.manager.env();
        let mut batch = Batch::default();
        batch.hold(Held::Durable(waiter));
        let mut state = self.state.lock();
        if let Some(existing) = self.existing(&state, &row.payment_hash)? {
            remember(&mut batch, idempotency, OperationState::Payment { payment_id: existing.payment_id })?;
            env.writer.submit(batch);
            return Ok((existing, durable));
        }
        remember(&mut batch, idempotency, OperationState::Payment { payment_id: row.payment_id })?;
        batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
        batch.begin(&UnderWay::Payment(row.payment_id));
        batch.put(Table::PaymentByHash, row.payment_hash.0.to_vec(), Some(row.payment_id.to_vec()));
        let mut pending = Pending { row: row.clone(), parts: BTreeMap::new(), recipe: Some(recipe) };
        self.stage(&mut batch, &mut pending, attempt);
        state.by_hash.insert(row.payment_hash, row.payment_id);
        state.pending.insert(row.payment_id, pending);
        // Submitted under the owner's lock: the rows of a hash are queued in the order in which they were decided.
        env.writer.submit(batch);
        Ok((row, durable))
    }

    /// Stages one HTLC of a payment: its row, and the order to its channel.
    fn stage(&self, batch: &mut Batch, pending: &mut Pending, attempt: Attempt) {
        let Attempt { part, peer, channel, cltv_expiry, row, onion } = attempt;
        let (payment_id, payment_hash) = (pending.row.payment_id, pending.row.payment_hash);
        let id = self.manager.env().next_command();
        self.manager.deliver().expect_reply(id, ReplyTo::Payment { payment_id, part });
        let source = HtlcSource::Payment { payment_id, part };
        let command = Command::AddHtlc { amount: row.sends, payment_hash, cltv_expiry, onion, source };
        batch.put(Table::Part, PartRow::key(&payment_id, part), Some(row.encode()));
        batch.hold(Held::Order { peer, channel, id, command });
        pending.parts.insert(part, row);
    }

    /// Reads what came back with the keys that the packet was built with: the place of the node that failed it, and what
    /// it says.
    fn read_failure(&self, payment_id: &[u8; 32], part: u16, route: &[NodeId], reason: &[u8]) -> Unwrapped {
        let hops: Vec<_> = route.iter().map(|node| Hop { node: *node.public_key(), payload: vec![0; 2] }).collect();
        match onion::build(&self.session_key(payment_id, part), &hops, &[]) {
            Ok(built) => failure::unwrap(&built.shared_secrets, reason),
            Err(_) => Unwrapped::Unattributable,
        }
    }

    /// The channel took the HTLC, or refused it: then nothing was sent.
    pub(super) fn answered(&self, payment_id: [u8; 32], part: u16, answer: Result<Reply, Refusal>) {
        if let Err(refusal) = answer {
            let explained = Explained::passing("refused_by_channel", refusal.to_string());
            self.part_failed(payment_id, part, explained, Batch::default());
        }
    }

    /// An HTLC of a payment has its answer. Told again after a crash, so the second time changes nothing.
    pub(super) fn settled(
        &self,
        (payment_id, part): ([u8; 32], u16),
        (channel, htlc_id): (ChannelId, u64),
        outcome: &HtlcOutcome,
    ) {
        match outcome {
            HtlcOutcome::Fulfilled(preimage) => {
                self.succeeded((payment_id, part), *preimage, forget_outcome(&payment_id, &channel, htlc_id));
            }
            HtlcOutcome::Failed(reason) => {
                let explained = self.explain(&payment_id, part, reason);
                self.part_failed(payment_id, part, explained, forget_outcome(&payment_id, &channel, htlc_id));
            }
            HtlcOutcome::NoOutput => {
                let explained = Explained::passing("ended_on_chain", NO_OUTPUT.to_owned());
                self.part_failed(payment_id, part, explained, forget_outcome(&payment_id, &channel, htlc_id));
            }
            HtlcOutcome::NeverCommitted => {
                let explained = Explained::passing("disconnected", NEVER_COMMITTED.to_owned());
                self.part_failed(payment_id, part, explained, Batch::default());
            }
        }
    }

    fn succeeded(&self, (payment_id, part): ([u8; 32], u16), preimage: PaymentPreimage, batch: Batch) {
        let Some(pending) = self.take_pending(&payment_id) else {
            return self.manager.env().writer.submit(batch);
        };
        let at = Clock::now_unix();
        let fee = pending.parts.get(&part).map_or(Msat::ZERO, |row| row.sends.saturating_sub(row.amount));
        self.finish(pending, PaymentState::Succeeded { preimage, fee, at }, batch);
    }

    /// One way failed: the next is tried where there is one and it can help, in the transaction that takes the failure in.
    fn part_failed(&self, payment_id: [u8; 32], part: u16, explained: Explained, mut batch: Batch) {
        let found = self
            .state
            .lock()
            .pending
            .get_mut(&payment_id)
            .and_then(|pending| pending.parts.contains_key(&part).then(|| pending.recipe.take()));
        let Some(recipe) = found else {
            return self.manager.env().writer.submit(batch);
        };
        // Ways are looked at under the locks of peers, never under the owner's (law 3).
        let next = recipe.filter(|_| !explained.is_final).and_then(|mut recipe| {
            let attempt = self.attempt(&payment_id, part.checked_add(1)?, &mut recipe).ok()?;
            Some((attempt, recipe))
        });
        let Some((attempt, recipe)) = next else {
            return self.finish_failed(&payment_id, explained.kind, &explained.message, batch);
        };
        tracing::info!(payment = %super::hex(&payment_id), part, reason = explained.message, "the next way is tried");
        batch.put(Table::Part, PartRow::key(&payment_id, part), None);
        if let Some(pending) = self.state.lock().pending.get_mut(&payment_id) {
            pending.parts.remove(&part);
            pending.recipe = Some(recipe);
            self.stage(&mut batch, pending, attempt);
        }
        self.manager.env().writer.submit(batch);
    }

    /// A failure in words: who failed it, with which code, and what that means.
    fn explain(&self, payment_id: &[u8; 32], part: u16, reason: &FailReason) -> Explained {
        let state = self.state.lock();
        let route =
            state.pending.get(payment_id).and_then(|pending| pending.parts.get(&part)).map(|row| row.route.clone());
        drop(state);
        let route = route.unwrap_or_default();
        match reason {
            FailReason::Malformed { failure_code, .. } => {
                let who = who(&route, 0);
                Explained::passing(
                    "invalid_onion",
                    format!("{who} could not read the onion (code {failure_code:#06x})"),
                )
            }
            FailReason::Encrypted(reason) => match self.read_failure(payment_id, part, &route, reason) {
                Unwrapped::Attributed { hop, failure } => {
                    let (name, code, who) = (failure.name(), failure.code(), who(&route, hop));
                    let is_final = hop.saturating_add(1) == route.len() && !is_of_a_node(&failure);
                    Explained { kind: name, message: format!("{who} refused it: {name} (code {code:#06x})"), is_final }
                }
                Unwrapped::Unattributable => {
                    Explained::passing("failed", "it was refused on its way without a readable reason".to_owned())
                }
            },
        }
    }
}

/// A failure in words.
struct Explained {
    kind: &'static str,
    message: String,
    /// No other way would help: the payee does not want the payment.
    is_final: bool,
}

impl Explained {
    const fn passing(kind: &'static str, message: String) -> Self {
        Self { kind, message, is_final: false }
    }
}

/// Whether the failure says something of a node's moment, and nothing of the payment.
const fn is_of_a_node(failure: &Failure) -> bool {
    matches!(failure, Failure::TemporaryNodeFailure)
}

/// The node at this place of the way, in words.
fn who(route: &[NodeId], hop: usize) -> String {
    match route.get(hop) {
        Some(node) if hop.saturating_add(1) < route.len() => format!("node {node} on the way"),
        Some(_) | None => "the payee".to_owned(),
    }
}

const NO_OUTPUT: &str = "the channel ended on the chain by a transaction with no output for this payment, which was too small for one \
    or not yet in it: the payee can claim nothing, and it is safe to pay again";

const NEVER_COMMITTED: &str =
    "the peer disconnected before the payment was signed; nothing was paid, and it is safe to pay again";
