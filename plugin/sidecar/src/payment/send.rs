//! Sending. Direct payments only: the payee is a peer with whom a channel stands.

use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, PaymentSecret};
use outrigger_bolt::invoice::{InvalidInvoice, Invoice};
use outrigger_bolt::onion::{self, FinalPayload, Hop, Payload, PaymentData, Unwrapped, failure};
use outrigger_channel::{Command, FailReason, HtlcOutcome, HtlcSource, Refusal, Reply};
use tokio::sync::oneshot;

use super::{Idempotency, Payments, State, forget_outcome, remember};
use crate::clock::{Clock, NoEntropy};
use crate::manager::ChannelView;
use crate::manager::deliver::ReplyTo;
use crate::store::row::{OperationState, PaymentRow, PaymentState};
use crate::store::schema::{Table, UnderWay};
use crate::store::{Batch, Held, StoreError};

/// Blocks added to the payee's final expiry, so that a block found on the way fails nothing (BOLT 7, "shadow route").
const FINAL_CLTV_MARGIN: u32 = 3;

/// An invoice to pay.
#[derive(Clone, Debug)]
pub struct PayOrder {
    pub invoice: String,
    /// For invoices that name no amount.
    pub amount: Option<Msat>,
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
    #[error("no usable channel with {0}; only direct payments are there yet: open a channel with the payee")]
    NoChannel(NodeId),
    #[error("{0} is not connected, and the channels with it wait for it")]
    NotConnected(NodeId),
    #[error("the channels with {node} can send {spendable} at the most, and the invoice asks for {asked}")]
    TooLarge { node: NodeId, spendable: Msat, asked: Msat },
    #[error("the payment does not fit an onion")]
    Onion,
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What goes into the onion of a direct payment.
struct Recipe {
    payee: NodeId,
    hash: PaymentHash,
    secret: PaymentSecret,
    metadata: Option<Vec<u8>>,
    amount: Msat,
    cltv_expiry: u32,
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
        let terms = self.recipe(invoice, order.amount)?;
        let channel = self.choose(&terms.payee, terms.amount)?;
        let row = PaymentRow {
            payment_id: Clock::random_bytes()?,
            payment_hash: terms.hash,
            destination: terms.payee,
            amount: terms.amount,
            created_at: Clock::now_unix(),
            state: PaymentState::Pending,
        };
        let onion = self.onion(&row.payment_id, &terms)?;
        let (row, durable) = self.begin(row, &terms, channel, onion, order.idempotency)?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(row)
    }

    fn recipe(&self, invoice: Invoice, given: Option<Msat>) -> Result<Recipe, SendFault> {
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
        if payee == self.manager.env().keys.node_id() {
            return Err(SendFault::OwnInvoice);
        }
        let height = self.manager.env().chain.height();
        let cltv_expiry = height.saturating_add(terms.min_final_cltv_expiry_delta).saturating_add(FINAL_CLTV_MARGIN);
        Ok(Recipe {
            payee,
            hash: terms.payment_hash,
            secret: terms.payment_secret,
            metadata: terms.payment_metadata,
            amount,
            cltv_expiry,
        })
    }

    /// The payment of this hash that must not be made again. One whose end is on its way to the file still shows there
    /// as pending, so nothing can end and be begun anew between two looks.
    fn existing(&self, state: &State, hash: &PaymentHash) -> Result<Option<PaymentRow>, StoreError> {
        let pending = state.by_hash.get(hash).and_then(|id| state.pending.get(id)).cloned();
        if pending.is_some() {
            return Ok(pending);
        }
        let last = self.reader.payment_by_hash(hash)?;
        Ok(last.filter(|row| !matches!(row.state, PaymentState::Failed { .. })))
    }

    /// The channel with the smallest balance that suffices: large balances are kept for large payments.
    fn choose(&self, payee: &NodeId, amount: Msat) -> Result<ChannelId, SendFault> {
        let channels = self.manager.channels_of(payee);
        let open: Vec<&ChannelView> = channels.iter().filter(|view| view.summary.state == "normal").collect();
        if open.is_empty() {
            return Err(SendFault::NoChannel(*payee));
        }
        let usable: Vec<&ChannelView> = open.into_iter().filter(|view| view.summary.connected).collect();
        let spendable = usable.iter().map(|view| view.summary.spendable).max();
        let spendable = spendable.ok_or(SendFault::NotConnected(*payee))?;
        usable
            .iter()
            .filter(|view| view.summary.spendable >= amount)
            .min_by_key(|view| view.summary.spendable)
            .map(|view| view.channel_id)
            .ok_or(SendFault::TooLarge { node: *payee, spendable, asked: amount })
    }

    fn onion(&self, payment_id: &[u8; 32], terms: &Recipe) -> Result<Box<[u8; 1366]>, SendFault> {
        let payload = Payload::Final(FinalPayload {
            amt_to_forward: terms.amount,
            outgoing_cltv_value: terms.cltv_expiry,
            payment_data: Some(PaymentData { payment_secret: terms.secret, total_msat: terms.amount }),
            payment_metadata: terms.metadata.clone(),
            keysend_preimage: None,
        });
        let hops = [Hop { node: *terms.payee.public_key(), payload: payload.encode().map_err(|_| SendFault::Onion)? }];
        let built = onion::build(&self.session_key(payment_id), &hops, &terms.hash.0).map_err(|_| SendFault::Onion)?;
        Ok(Box::new(built.packet.to_bytes()))
    }

    /// Derived, not stored: a failure can be read after a restart.
    fn session_key(&self, payment_id: &[u8; 32]) -> SecretKey {
        self.manager.env().keys.onion_session_key(payment_id)
    }

    /// Stages the payment and the order to its channel. Where another caller was first, meanwhile, it is that caller's
    /// payment that is returned: it may even have ended by now (PAY-2).
    fn begin(
        &self,
        row: PaymentRow,
        terms: &Recipe,
        channel: ChannelId,
        onion: Box<[u8; 1366]>,
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
        state.by_hash.insert(row.payment_hash, row.payment_id);
        state.pending.insert(row.payment_id, row.clone());
        let id = env.next_command();
        self.manager.deliver().expect_reply(id, ReplyTo::Payment { payment_id: row.payment_id, part: 0 });
        let command = Command::AddHtlc {
            amount: terms.amount,
            payment_hash: terms.hash,
            cltv_expiry: terms.cltv_expiry,
            onion,
            source: HtlcSource::Payment { payment_id: row.payment_id, part: 0 },
        };
        batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
        batch.begin(&UnderWay::Payment(row.payment_id));
        batch.put(Table::PaymentByHash, row.payment_hash.0.to_vec(), Some(row.payment_id.to_vec()));
        batch.hold(Held::Order { peer: terms.payee, channel, id, command });
        // Submitted under the owner's lock: the rows of a hash are queued in the order in which they were decided.
        env.writer.submit(batch);
        Ok((row, durable))
    }

    /// Reads what came back with the keys that the packet was built with.
    fn read_failure(&self, payment_id: &[u8; 32], destination: NodeId, reason: &[u8]) -> Unwrapped {
        let hops = [Hop { node: *destination.public_key(), payload: vec![0; 2] }];
        match onion::build(&self.session_key(payment_id), &hops, &[]) {
            Ok(built) => failure::unwrap(&built.shared_secrets, reason),
            Err(_) => Unwrapped::Unattributable,
        }
    }

    /// The channel took the HTLC, or refused it: then nothing was sent.
    pub(super) fn answered(&self, payment_id: [u8; 32], answer: Result<Reply, Refusal>) {
        if let Err(refusal) = answer {
            self.finish_failed(&payment_id, "refused_by_channel", &refusal.to_string(), Batch::default());
        }
    }

    /// An HTLC of a payment has its answer. Told again after a crash, so the second time changes nothing.
    pub(super) fn settled(&self, payment_id: [u8; 32], channel: ChannelId, htlc_id: u64, outcome: &HtlcOutcome) {
        match outcome {
            HtlcOutcome::Fulfilled(preimage) => self.succeeded(payment_id, channel, htlc_id, *preimage),
            HtlcOutcome::Failed(reason) => {
                let (kind, message) = self.explain(&payment_id, reason);
                self.finish_failed(&payment_id, kind, &message, forget_outcome(&payment_id, &channel, htlc_id));
            }
            HtlcOutcome::NoOutput => {
                let batch = forget_outcome(&payment_id, &channel, htlc_id);
                self.finish_failed(&payment_id, "ended_on_chain", NO_OUTPUT, batch);
            }
            HtlcOutcome::NeverCommitted => {
                self.finish_failed(&payment_id, "disconnected", NEVER_COMMITTED, Batch::default());
            }
        }
    }

    fn succeeded(&self, payment_id: [u8; 32], channel: ChannelId, htlc_id: u64, preimage: PaymentPreimage) {
        let batch = forget_outcome(&payment_id, &channel, htlc_id);
        let Some(row) = self.take_pending(&payment_id) else {
            return self.manager.env().writer.submit(batch);
        };
        let at = Clock::now_unix();
        let state = PaymentState::Succeeded { preimage, fee: Msat::ZERO, at };
        self.finish(PaymentRow { state, ..row }, batch);
    }

    /// A failure in words: who failed it, with which code, and what that means.
    fn explain(&self, payment_id: &[u8; 32], reason: &FailReason) -> (&'static str, String) {
        let destination = self.state.lock().pending.get(payment_id).map(|row| row.destination);
        match (reason, destination) {
            (FailReason::Malformed { failure_code, .. }, _) => {
                ("invalid_onion", format!("the payee could not read the onion (code {failure_code:#06x})"))
            }
            (FailReason::Encrypted(_), None) => ("failed", "the payment failed".to_owned()),
            (FailReason::Encrypted(reason), Some(destination)) => {
                match self.read_failure(payment_id, destination, reason) {
                    Unwrapped::Attributed { failure, .. } => {
                        let (name, code) = (failure.name(), failure.code());
                        (name, format!("the payee refused it: {name} (code {code:#06x})"))
                    }
                    Unwrapped::Unattributable => {
                        ("failed", "the payee refused it without a readable reason".to_owned())
                    }
                }
            }
        }
    }
}

const NO_OUTPUT: &str = "the channel ended on the chain by a transaction with no output for this payment, which was too small for one \
    or not yet in it: the payee can claim nothing, and it is safe to pay again";

const NEVER_COMMITTED: &str =
    "the peer disconnected before the payment was signed; nothing was paid, and it is safe to pay again";
