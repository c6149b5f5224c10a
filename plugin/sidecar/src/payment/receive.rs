//! Receiving: invoices, and the judgement of HTLCs that end here, in sets or alone.

use std::time::Instant;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentSecret};
use outrigger_bolt::invoice::{DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA, Description, Invoice, Terms, UnwritableInvoice};
use outrigger_bolt::onion::{Failure, FinalPayload, failure};
use outrigger_channel::{FailReason, IncomingHtlc};
use serde_json::json;
use tokio::sync::oneshot;

use super::sets::{Added, Part, Promise};
use super::{Idempotency, Payments, remember};
use crate::clock::{Clock, NoEntropy};
use crate::manager::relay::{self, register::HtlcName};
use crate::store::row::{EventRow, InvoiceRow, OperationState, Paid, SettlementRow};
use crate::store::schema::Table;
use crate::store::{Batch, Held};

/// The most that a payer may overpay (BOLT 4: no more than twice the amount expected).
const OVERPAY_FACTOR: u64 = 2;

/// Blocks that a claimed HTLC must have left at the least: enough to claim it on the chain (BOLT 2, "`cltv_expiry_delta`
/// Selection": 2R + G + S), and what a payer owes that was told of no delta.
const CLAIM_BLOCKS: u32 = DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA;

/// An invoice to make.
#[derive(Clone, Debug)]
pub struct InvoiceOrder {
    pub amount: Option<Msat>,
    pub description: String,
    pub expiry_secs: u64,
    pub label: Option<String>,
    /// The caller's key and the digest of the call, if it gave one.
    pub idempotency: Option<Idempotency>,
}

/// Why an invoice was not made.
#[derive(Debug, thiserror::Error)]
pub enum InvoiceFault {
    #[error("{0}")]
    Unwritable(#[from] UnwritableInvoice),
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
}

impl Payments {
    /// Makes an invoice and returns it once it is durable.
    pub async fn create_invoice(&self, order: InvoiceOrder) -> Result<InvoiceRow, InvoiceFault> {
        let env = self.manager.env();
        let nonce = Clock::random_bytes()?;
        let preimage = env.keys.invoice_preimage(&nonce);
        let payment_secret = env.keys.payment_secret(&nonce);
        let created_at = Clock::now_unix();
        let terms = Terms {
            network: self.terms.network,
            amount: order.amount,
            payment_hash: preimage.payment_hash(),
            payment_secret,
            description: Description::Text(order.description.clone()),
            timestamp: created_at,
            expiry_secs: order.expiry_secs,
            min_final_cltv_expiry_delta: u32::from(self.terms.final_cltv_blocks),
            payment_metadata: None,
            route_hints: self.manager.route_hints(),
            basic_mpp: true,
        };
        let row = InvoiceRow {
            payment_hash: preimage.payment_hash(),
            preimage,
            payment_secret,
            amount: order.amount,
            created_at,
            expires_at: created_at.saturating_add(order.expiry_secs),
            min_final_cltv_expiry: u32::from(self.terms.final_cltv_blocks),
            invoice: Some(terms.sign(|digest| env.keys.sign_invoice(digest))?),
            description: order.description,
            label: order.label,
            paid: None,
        };
        let (waiter, durable) = oneshot::channel();
        let mut batch = Batch::default();
        batch.put(Table::Invoice, row.payment_hash.0.to_vec(), Some(row.encode()));
        let state = OperationState::Invoice { payment_hash: row.payment_hash };
        remember(&mut batch, order.idempotency, state)?;
        batch.hold(Held::Durable(waiter));
        env.writer.submit(batch);
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(row)
    }

    /// How many ways to us an invoice of ours names.
    pub fn route_hints_of(&self, row: &InvoiceRow) -> u32 {
        let parsed = row.invoice.as_ref().and_then(|text| Invoice::parse(text, self.terms.network).ok());
        parsed.map_or(0, |invoice| u32::try_from(invoice.terms.route_hints.len()).unwrap_or(u32::MAX))
    }

    /// An invoice as it is on disk.
    pub fn invoice(&self, hash: &PaymentHash) -> Result<Option<InvoiceRow>, crate::store::StoreError> {
        self.reader.invoice(hash)
    }

    /// An HTLC that ends here is irrevocably ours to decide; the dispatcher tells of each once. The decision is a row before
    /// the channel hears of it.
    pub(super) fn incoming(&self, peer: NodeId, htlc: &IncomingHtlc, shared_secret: &[u8; 32], payload: &FinalPayload) {
        let part = Part {
            peer,
            name: HtlcName { channel: htlc.channel, htlc_id: htlc.htlc_id },
            amount: htlc.amount,
            arrives: payload.amt_to_forward,
            cltv_expiry: htlc.cltv_expiry,
            shared_secret: *shared_secret,
        };
        match self.judge(htlc, payload) {
            Ok(owed) => self.gather(owed, part),
            Err(why) => self.refuse(&[part], |_| why.clone()),
        }
    }

    /// The sets whose time is over fail (BOLT 4: `mpp_timeout`). Called whenever [`next_set_end`](Self::next_set_end) has come.
    pub fn expire_sets(&self) {
        let late = self.state.lock().sets.expire(Clock::monotonic());
        if !late.is_empty() {
            self.refuse(&late, |_| Failure::MppTimeout);
        }
    }

    /// When the oldest set that is not whole is over; none where there is no such set.
    pub fn next_set_end(&self) -> Option<Instant> {
        self.state.lock().sets.next_end()
    }

    fn gather(&self, owed: Owed, part: Part) {
        let hash = owed.row.payment_hash;
        let added = self.state.lock().sets.add(hash, owed.promise, part, Clock::monotonic());
        match added {
            Added::Held => {}
            Added::Whole(parts) => self.complete(owed, parts),
            Added::Contradicts(parts) => self.refuse(&parts, |part| self.unknown_details(part.amount)),
            Added::Full(part) => self.refuse(&[part], |_| Failure::TemporaryNodeFailure),
        }
    }

    /// All parts are there. They are claimed, unless one of those that were held cannot be claimed any more: then none is.
    fn complete(&self, owed: Owed, parts: Vec<Part>) {
        let height = self.manager.env().chain.height();
        let nearest = parts.iter().map(|part| part.cltv_expiry).min().unwrap_or_default();
        if nearest < height.saturating_add(CLAIM_BLOCKS) {
            return self.refuse(&parts, |part| self.unknown_details(part.amount));
        }
        let held_before = parts.split_last().map_or(&[][..], |(_, held)| held);
        if !held_before.iter().all(|part| self.manager.holds(&part.peer, &part.name)) {
            return self.refuse(&parts, |_| Failure::TemporaryNodeFailure);
        }
        self.claim(owed, &parts);
    }

    /// The decisions, in one transaction: the payment is ours, and each part is to be fulfilled. The parts then move by their
    /// own steps, and are told again until each is irrevocably gone (PER-1).
    fn claim(&self, owed: Owed, parts: &[Part]) {
        let now = Clock::now_unix();
        let amount = parts.iter().fold(Msat::ZERO, |sum, part| sum.saturating_add(part.amount));
        let paid = InvoiceRow { paid: Some(Paid { amount, at: now }), ..owed.row };
        let mut batch = Batch::default();
        self.state.lock().claims.add(paid.payment_hash, (), &mut batch);
        batch.put(Table::Invoice, paid.payment_hash.0.to_vec(), Some(paid.encode()));
        let kind = if paid.invoice.is_some() { "invoice_paid" } else { "keysend_received" };
        let fields = json!({ "payment_hash": paid.payment_hash.to_string(), "amount_msat": amount.get() });
        batch.event(EventRow::new(now, kind, fields));
        for part in parts {
            relay::decide(&mut batch, part.peer, part.name, SettlementRow::Fulfil(paid.preimage));
        }
        self.manager.env().writer.submit(batch);
    }

    /// The decisions that fail these parts, in one transaction.
    fn refuse(&self, parts: &[Part], why: impl Fn(&Part) -> Failure) {
        let mut batch = Batch::default();
        for part in parts {
            let reason = FailReason::Encrypted(failure::create(&part.shared_secret, &why(part)));
            relay::decide(&mut batch, part.peer, part.name, SettlementRow::Fail(reason));
        }
        self.manager.env().writer.submit(batch);
    }

    /// One answer for everything that a prober could learn from (BOLT 4).
    fn unknown_details(&self, amount: Msat) -> Failure {
        Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: amount, height: self.manager.env().chain.height() }
    }

    /// BOLT 4, "Failure Messages", as the final node: what is owed for the HTLC, if it and its like bring all of it.
    fn judge(&self, htlc: &IncomingHtlc, payload: &FinalPayload) -> Result<Owed, Failure> {
        let env = self.manager.env();
        if !env.chain.is_synced() || env.is_restored() || htlc.over_exposed {
            return Err(Failure::TemporaryNodeFailure);
        }
        if payload.outgoing_cltv_value > htlc.cltv_expiry {
            return Err(Failure::FinalIncorrectCltvExpiry { cltv_expiry: htlc.cltv_expiry });
        }
        if payload.amt_to_forward > htlc.amount {
            return Err(Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: htlc.amount });
        }
        let is_being_claimed = self.is_being_claimed(&htlc.payment_hash);
        let found = self.reader.invoice(&htlc.payment_hash).map_err(|fault| {
            tracing::error!(%fault, "an invoice could not be read");
            Failure::TemporaryNodeFailure
        })?;
        let owed = match found {
            Some(invoice) => owed_for_invoice(invoice, htlc, payload),
            None => self.owed_for_keysend(htlc, payload),
        };
        let height = env.chain.height();
        owed.filter(|owed| {
            htlc.cltv_expiry >= height.saturating_add(owed.row.min_final_cltv_expiry)
                // An onion whose own expiry is past may be a replay that the set has forgotten.
                && payload.outgoing_cltv_value >= height
                && !is_being_claimed
                && owed.row.paid.is_none()
        })
        .ok_or_else(|| self.unknown_details(htlc.amount))
    }

    /// Whether a claim of the invoice is on its way to the file. Asked before the file is.
    fn is_being_claimed(&self, hash: &PaymentHash) -> bool {
        self.state.lock().claims.get(hash).is_some()
    }

    /// What nobody asked for, where the operator takes it: the payer chose the preimage (bLIP 3). Without `payment_data` it
    /// comes in one part.
    fn owed_for_keysend(&self, htlc: &IncomingHtlc, payload: &FinalPayload) -> Option<Owed> {
        let preimage = payload.keysend_preimage.filter(|preimage| preimage.payment_hash() == htlc.payment_hash)?;
        if !self.terms.accept_keysend {
            return None;
        }
        let promise = match &payload.payment_data {
            Some(data) => Promise { secret: Some(data.payment_secret), total: data.total_msat },
            None => Promise { secret: None, total: payload.amt_to_forward },
        };
        if !is_within(htlc, promise.total, promise.total) {
            return None;
        }
        let now = Clock::now_unix();
        let row = InvoiceRow {
            payment_hash: htlc.payment_hash,
            preimage,
            payment_secret: promise.secret.unwrap_or(PaymentSecret([0; 32])),
            amount: None,
            created_at: now,
            expires_at: now,
            min_final_cltv_expiry: CLAIM_BLOCKS,
            invoice: None,
            description: String::new(),
            label: None,
            paid: None,
        };
        Some(Owed { row, promise })
    }
}

/// What one payment to us is owed for, and what its parts say of the whole.
struct Owed {
    row: InvoiceRow,
    promise: Promise,
}

fn owed_for_invoice(invoice: InvoiceRow, htlc: &IncomingHtlc, payload: &FinalPayload) -> Option<Owed> {
    let data = payload.payment_data.as_ref()?;
    let total = data.total_msat;
    let is_good = secrets_match(&data.payment_secret, &invoice.payment_secret)
        && is_within(htlc, total, invoice.amount.unwrap_or(total))
        && invoice.expires_at > Clock::now_unix();
    let promise = Promise { secret: Some(data.payment_secret), total };
    is_good.then_some(Owed { row: invoice, promise })
}

/// Whether the whole is what is wanted, no more than twice that, and the HTLC not more than that either (BOLT 4, "Failure
/// Messages": the amount paid is `total_msat`).
fn is_within(htlc: &IncomingHtlc, total: Msat, wanted: Msat) -> bool {
    let most = Msat::new(wanted.get().saturating_mul(OVERPAY_FACTOR));
    total > Msat::ZERO && total >= wanted && total <= most && htlc.amount <= most
}

/// In constant time: the secret is what keeps probers out.
fn secrets_match(left: &PaymentSecret, right: &PaymentSecret) -> bool {
    subtle::ConstantTimeEq::ct_eq(left.0.as_slice(), right.0.as_slice()).into()
}
