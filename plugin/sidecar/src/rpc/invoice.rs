//! `invoice.*`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::amount::Msat;
use outrigger_rpc_schema::{
    InvoiceCreate, InvoiceCreated, InvoiceDecode, InvoiceDecoded, InvoiceGet, InvoiceInfo, InvoiceList, InvoicePage,
};

use super::desk::Call;
use super::serve::Serve;
use super::{Answer, Backend, Doors, Fault, InvoiceOrder, page, read};

/// What fits into field `d` (BOLT 11): 1023 groups of five bits.
const DESCRIPTION_BYTES: usize = 639;

/// How long an invoice can be paid where the caller does not say: an hour, as BOLT 11 has it.
const DEFAULT_EXPIRY_SECS: u32 = 3600;

impl<B: Backend> Serve<B> for InvoiceCreate {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<InvoiceCreated> {
        if self.description.len() > DESCRIPTION_BYTES {
            return Err(Fault::invalid_parameter("description", "must have at most 639 bytes"));
        }
        let key = |key| read::key(key, &call.caller, &*doors);
        let order = InvoiceOrder {
            amount: self.amount_msat.map(Msat::new),
            description: self.description,
            expiry: Duration::from_secs(self.expiry_secs.unwrap_or(DEFAULT_EXPIRY_SECS).into()),
            label: self.label.map(|label| read::name("label", label)).transpose()?,
            idempotency_key: self.idempotency_key.map(key).transpose()?,
        };
        doors.node()?.invoice_create(order).await
    }
}

impl<B: Backend> Serve<B> for InvoiceGet {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<InvoiceInfo> {
        let payment_hash = read::id("payment_hash", &self.payment_hash)?;
        doors.node()?.invoice_get(payment_hash).await
    }
}

impl<B: Backend> Serve<B> for InvoiceList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<InvoicePage> {
        let limit = page::limit(self.limit);
        let after = read::cursor(self.after.as_deref())?;
        let invoices = doors.node()?.invoice_list(after, limit.saturating_add(1)).await?;
        let (items, next) = page::cut(invoices, limit, |invoice| invoice.payment_hash.clone());
        Ok(InvoicePage { items, next })
    }
}

impl<B: Backend> Serve<B> for InvoiceDecode {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<InvoiceDecoded> {
        doors.node()?.invoice_decode(self.invoice).await
    }
}
