//! Invoices and payments that callers make, once for each idempotency key.

use bitcoin::hex::DisplayHex;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{PaymentHash, ShortChannelId};
use outrigger_bolt::invoice::InvalidInvoice;
use outrigger_rpc_schema as schema;

use super::answers::{digest, invoice_created, payment_id_of, payment_state, storage};
use super::backend::Doorkeeper;
use crate::payment::{self, GivenHop, InvoiceFault, PayOrder, SendFault, Whom};
use crate::rpc::{self, Answer, Fault, PaymentTarget};
use crate::store::row::{InvoiceRow, OperationState};
use crate::token::{NotCharged, TokenId};

/// How many keys can be served at once, at most.
const TURNS: usize = 64;

/// Calls of one idempotency key come one after the other, so that the second finds what the first made.
#[derive(Debug)]
pub(super) struct Turns(Vec<tokio::sync::Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| tokio::sync::Mutex::default()).collect())
    }
}

impl Turns {
    /// Waits for the call before with this key. Some keys share their turn.
    pub(super) async fn of(&self, key: &str) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let place = key.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % TURNS;
        match self.0.get(place) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        }
    }
}

impl Doorkeeper {
    /// `invoice.create`. A key that made one before is answered with that one.
    pub(super) async fn create_invoice(&self, order: rpc::InvoiceOrder) -> Answer<schema::InvoiceCreated> {
        let idempotency = order.idempotency_key.map(|key| {
            let amount = order.amount.map_or(0, Msat::get).to_be_bytes();
            let expiry = order.expiry.as_secs().to_be_bytes();
            let label = order.label.as_deref().unwrap_or_default();
            let body = digest(&[b"invoice.create", &amount, &expiry, order.description.as_bytes(), label.as_bytes()]);
            (key, body)
        });
        let _one_at_a_time = match &idempotency {
            Some((key, _)) => self.turns.of(key).await,
            None => None,
        };
        if let Some(OperationState::Invoice { payment_hash }) = self.answered_before(idempotency.as_ref())? {
            return self
                .stored_invoice(&payment_hash)
                .map(|row| invoice_created(&row, self.payments.route_hints_of(&row)));
        }
        self.require_current()?;
        self.require_room()?;
        let order = payment::InvoiceOrder {
            amount: order.amount,
            description: order.description,
            expiry_secs: order.expiry.as_secs(),
            label: order.label,
            idempotency,
        };
        let created = self.payments.create_invoice(order).await.map_err(|fault| match fault {
            InvoiceFault::Unwritable(fault) => Fault::invoice_invalid(fault),
            InvoiceFault::NoEntropy(fault) => Fault::internal(fault),
        })?;
        Ok(invoice_created(&created, self.payments.route_hints_of(&created)))
    }

    /// `payment.send`. A key that made one before is answered with that one, as it stands.
    pub(super) async fn send_payment(&self, order: rpc::PaymentOrder) -> Answer<schema::PaymentSent> {
        let idempotency = payment_name(&order);
        let _one_at_a_time = match &idempotency {
            Some((key, _)) => Some(self.turns.of(key).await),
            None => None,
        };
        let row = match self.answered_before(idempotency.as_ref())? {
            Some(OperationState::Payment { payment_id }) => {
                let id = payment_id.to_lower_hex_string();
                self.payments.get(&payment_id).map_err(storage)?.ok_or_else(|| Fault::payment_not_found(&id))?
            }
            Some(_) | None => {
                self.require_current()?;
                let whom = match order.target {
                    PaymentTarget::Invoice { invoice, amount } => Whom::Invoice { invoice, amount },
                    PaymentTarget::Node { node_id, amount } => Whom::Node { node_id, amount },
                };
                let rpc::PaymentOrder { max_fee, timeout, route, payer, .. } = order;
                let sent = self.payments.send(PayOrder { whom, max_fee, timeout, route, idempotency, payer }).await;
                sent.map_err(|fault| self.send_fault(fault))?
            }
        };
        let (payment_id, payment_hash) = (row.payment_id.to_lower_hex_string(), row.payment_hash.to_string());
        Ok(schema::PaymentSent { payment_id, payment_hash, state: payment_state(&row) })
    }

    /// `payment.abandon`.
    pub(super) async fn abandon_payment(
        &self,
        payment_id: String,
        only_of: Option<TokenId>,
    ) -> Answer<schema::PaymentInfo> {
        if let Some(token) = only_of {
            let row = self.payments.get(&payment_id_of(&payment_id)?).map_err(storage)?;
            if row.is_some_and(|row| row.charge.is_none_or(|charge| charge.token != token)) {
                return Err(Fault::payment_of_another());
            }
        }
        match self.payments.abandon(&payment_id_of(&payment_id)?) {
            // The writer drops the waiter only with the process.
            Some(durable) => drop(durable.await),
            None => self.manager.env().writer.barrier().await,
        }
        rpc::Backend::payment_get(self, payment_id).await
    }

    fn send_fault(&self, fault: SendFault) -> Fault {
        match fault {
            SendFault::NotSynced => self.not_synced(),
            SendFault::NoRoom => self.disk_low(),
            SendFault::Invoice(reason @ InvalidInvoice::WrongNetwork(_)) => Fault::invoice_wrong_network(reason),
            SendFault::Invoice(reason) => Fault::invoice_invalid(reason),
            SendFault::Expired(_) => Fault::invoice_expired(),
            SendFault::AmountMissing => Fault::invoice_amount_required(),
            SendFault::AmountDiffers { asked, given } => Fault::invoice_amount_mismatch(asked, given),
            SendFault::HashTaken { .. } => Fault::invoice_invalid(fault),
            SendFault::AmountZero => Fault::invalid_parameter("amount_msat", "must be above zero"),
            SendFault::OwnInvoice => Fault::payment_to_self(),
            SendFault::NoRoute(node) => Fault::no_route(&node),
            SendFault::HeldTooLong { .. } => Fault::invoice_invalid(fault),
            SendFault::FeeTooHigh { fee, most } => Fault::fee_too_high(fee, most),
            SendFault::Route(problem) => Fault::invalid_parameter("route", problem),
            SendFault::Unusable(_) => Fault::channel_state_unfit(fault),
            SendFault::NotConnected(node) if self.manager.is_connected(&node) => Fault::channels_not_agreed(&node),
            SendFault::NotConnected(node) => Fault::peer_not_connected(&node),
            SendFault::TooLarge { spendable, asked } => Fault::insufficient_capacity(asked, spendable),
            SendFault::TooManyAttempts(_) => Fault::internal(fault),
            SendFault::Onion => Fault::invoice_invalid("it does not fit an onion"),
            SendFault::NoEntropy(fault) => Fault::internal(fault),
            SendFault::NotCharged(NotCharged::Gone) => Fault::token_ended(),
            SendFault::NotCharged(fault @ NotCharged::OverBudget { .. }) => Fault::budget_exceeded(fault),
            SendFault::Store(fault) => storage(fault),
        }
    }

    /// The state of the operation that an earlier call of this key and body began. The digest of a body names its
    /// method, so a key that another method used is a conflict too.
    fn answered_before(&self, idempotency: Option<&(String, [u8; 32])>) -> Answer<Option<OperationState>> {
        let Some((key, body)) = idempotency else { return Ok(None) };
        match self.reader.operation(key).map_err(storage)? {
            None => Ok(None),
            Some(row) if row.body == *body => Ok(Some(row.state)),
            Some(_) => Err(Fault::idempotency_conflict(key)),
        }
    }

    pub(super) fn stored_invoice(&self, hash: &PaymentHash) -> Answer<InvoiceRow> {
        self.payments.invoice(hash).map_err(storage)?.ok_or_else(|| Fault::invoice_not_found(hash))
    }
}

/// The caller's key, with a digest of all that the payment is.
fn payment_name(order: &rpc::PaymentOrder) -> Option<(String, [u8; 32])> {
    let key = order.idempotency_key.clone()?;
    let (invoice, node, amount) = match &order.target {
        PaymentTarget::Invoice { invoice, amount } => (invoice.as_bytes(), Vec::new(), amount.map_or(0, Msat::get)),
        PaymentTarget::Node { node_id, amount } => (&[][..], node_id.serialize().to_vec(), amount.get()),
    };
    let max_fee = order.max_fee.map(|fee| fee.get().to_be_bytes());
    let route: Vec<u8> = order.route.iter().flatten().flat_map(hop_bytes).collect();
    let body = digest(&[
        b"payment.send",
        invoice,
        &node,
        &amount.to_be_bytes(),
        max_fee.as_ref().map_or(&[], |fee| fee),
        &order.timeout.as_secs().to_be_bytes(),
        &route,
    ]);
    Some((key, body))
}

fn hop_bytes(hop: &GivenHop) -> Vec<u8> {
    let channel = hop.channel.map_or(0, ShortChannelId::to_u64).to_be_bytes();
    [&hop.node.serialize()[..], &channel, &hop.amount.get().to_be_bytes(), &hop.blocks.to_be_bytes()].concat()
}
