//! Receiving: invoices, and the judgement of HTLCs that end here.

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentSecret};
use outrigger_bolt::invoice::{Description, Invoice, Terms, UnwritableInvoice};
use outrigger_bolt::onion::{Failure, FinalPayload, failure};
use outrigger_channel::{FailReason, IncomingHtlc};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Idempotency, Payments, remember};
use crate::clock::{Clock, NoEntropy};
use crate::store::row::{EventRow, InvoiceRow, OperationState, Paid, SettlementRow};
use crate::store::schema::{Table, numbered_key};
use crate::store::{Batch, Held};

/// The most that a payer may overpay (BOLT 4: no more than twice the amount expected).
const OVERPAY_FACTOR: u64 = 2;

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
            basic_mpp: false,
        };
        let row = InvoiceRow {
            payment_hash: preimage.payment_hash(),
            preimage,
            payment_secret,
            amount: order.amount,
            created_at,
            expires_at: created_at.saturating_add(order.expiry_secs),
            min_final_cltv_expiry: u32::from(self.terms.final_cltv_blocks),
            invoice: terms.sign(|digest| env.keys.sign_invoice(digest))?,
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
        let parsed = Invoice::parse(&row.invoice, self.terms.network);
        parsed.map_or(0, |invoice| u32::try_from(invoice.terms.route_hints.len()).unwrap_or(u32::MAX))
    }

    /// An invoice as it is on disk.
    pub fn invoice(&self, hash: &PaymentHash) -> Result<Option<InvoiceRow>, crate::store::StoreError> {
        self.reader.invoice(hash)
    }

    /// An HTLC that ends here is irrevocably ours to decide; the dispatcher tells of each once. The decision is a row before
    /// the channel hears of it.
    pub(super) fn incoming(&self, peer: NodeId, htlc: &IncomingHtlc, shared_secret: &[u8; 32], payload: &FinalPayload) {
        let mut batch = Batch::default();
        let settlement = match self.judge(htlc, payload) {
            Ok(invoice) => {
                let now = Clock::now_unix();
                let preimage = invoice.preimage;
                let paid = InvoiceRow { paid: Some(Paid { amount: htlc.amount, at: now }), ..invoice };
                self.state.lock().claims.add(paid.payment_hash, (), &mut batch);
                batch.put(Table::Invoice, paid.payment_hash.0.to_vec(), Some(paid.encode()));
                batch.event(EventRow::new(
                    now,
                    "invoice_paid",
                    json!({ "payment_hash": paid.payment_hash.to_string(), "amount_msat": htlc.amount.get() }),
                ));
                SettlementRow::Fulfil(preimage)
            }
            Err(failure) => SettlementRow::Fail(FailReason::Encrypted(failure::create(shared_secret, &failure))),
        };
        let key = numbered_key(&htlc.channel, htlc.htlc_id);
        batch.put(Table::Settlement, key, Some(settlement.encode()));
        batch.hold(Held::Settled { peer, channel: htlc.channel, htlc_id: htlc.htlc_id, settlement });
        self.manager.env().writer.submit(batch);
    }

    /// One answer for everything that a prober could learn from (BOLT 4).
    fn unknown_details(&self, htlc: &IncomingHtlc) -> Failure {
        let height = self.manager.env().chain.height();
        Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: htlc.amount, height }
    }

    /// BOLT 4, "Failure Messages", as the final node.
    fn judge(&self, htlc: &IncomingHtlc, payload: &FinalPayload) -> Result<InvoiceRow, Failure> {
        let env = self.manager.env();
        let height = env.chain.height();
        if !env.chain.is_synced() {
            return Err(Failure::TemporaryNodeFailure);
        }
        if htlc.over_exposed {
            return Err(Failure::TemporaryNodeFailure);
        }
        if payload.outgoing_cltv_value > htlc.cltv_expiry {
            return Err(Failure::FinalIncorrectCltvExpiry { cltv_expiry: htlc.cltv_expiry });
        }
        if payload.amt_to_forward > htlc.amount {
            return Err(Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: htlc.amount });
        }
        let unknown = self.unknown_details(htlc);
        let is_being_claimed = self.is_being_claimed(&htlc.payment_hash);
        let invoice = match self.reader.invoice(&htlc.payment_hash) {
            Ok(Some(invoice)) => invoice,
            Ok(None) => return Err(unknown),
            Err(fault) => {
                tracing::error!(%fault, "an invoice could not be read");
                return Err(Failure::TemporaryNodeFailure);
            }
        };
        let Some(data) = &payload.payment_data else { return Err(unknown) };
        let wanted = invoice.amount.unwrap_or(htlc.amount);
        let is_good = secrets_match(&data.payment_secret, &invoice.payment_secret)
            && data.total_msat == htlc.amount
            && htlc.amount >= wanted
            && htlc.amount.get() <= wanted.get().saturating_mul(OVERPAY_FACTOR)
            && invoice.expires_at > Clock::now_unix()
            && htlc.cltv_expiry >= height.saturating_add(invoice.min_final_cltv_expiry)
            // An onion whose own expiry is past may be a replay that the set has forgotten.
            && payload.outgoing_cltv_value >= height
            && !is_being_claimed
            && invoice.paid.is_none();
        if is_good { Ok(invoice) } else { Err(unknown) }
    }

    /// Whether a claim of the invoice is on its way to the file. Asked before the file is.
    fn is_being_claimed(&self, hash: &PaymentHash) -> bool {
        self.state.lock().claims.get(hash).is_some()
    }
}

/// In constant time: the secret is what keeps probers out.
fn secrets_match(left: &PaymentSecret, right: &PaymentSecret) -> bool {
    subtle::ConstantTimeEq::ct_eq(left.0.as_slice(), right.0.as_slice()).into()
}
