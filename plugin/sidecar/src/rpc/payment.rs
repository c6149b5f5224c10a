//! `payment.*`.

use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::PaymentHash;
use outrigger_rpc_schema::{
    PaymentAbandon, PaymentGet, PaymentInfo, PaymentList, PaymentPage, PaymentSend, PaymentSent, PaymentWait, RouteHop,
    Scope,
};

use super::desk::Call;
use super::rights::Bearers;
use super::serve::Serve;
use super::{Answer, Backend, Doors, Fault, PaymentOrder, PaymentTarget, page, read, token};
use crate::payment::GivenHop;
use crate::token::TokenId;

/// How long `payment.send` has new attempts made where the caller does not say.
const DEFAULT_TIMEOUT_SECS: u32 = 60;

impl<B: Backend> Serve<B> for PaymentSend {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<PaymentSent> {
        let order = payment_order(self, call.caller.payer(), |key| read::key(key, &call.caller, &*doors))?;
        doors.node()?.payment_send(order).await
    }
}

fn payment_order(
    call: PaymentSend,
    payer: Option<TokenId>,
    key: impl FnOnce(String) -> Answer<String>,
) -> Answer<PaymentOrder> {
    let max_fee = call.max_fee_msat.map(Msat::new);
    let idempotency_key = call.idempotency_key.map(key).transpose()?;
    let amount = call.amount_msat.map(Msat::new);
    let target = match (call.invoice, call.node_id) {
        (Some(invoice), None) => PaymentTarget::Invoice { invoice, amount },
        (None, Some(node_id)) => {
            let node_id = read::id("node_id", &node_id)?;
            let amount = amount.ok_or_else(|| Fault::invalid_parameter("amount_msat", "is needed with node_id"))?;
            if idempotency_key.is_none() {
                return Err(Fault::invalid_parameter("idempotency_key", "is needed with node_id"));
            }
            PaymentTarget::Node { node_id, amount }
        }
        (Some(_), Some(_)) => return Err(Fault::invalid_parameter("node_id", "must not be given with an invoice")),
        (None, None) => return Err(Fault::invalid_parameter("invoice", "is needed, or node_id with amount_msat")),
    };
    let timeout = Duration::from_secs(call.timeout_secs.unwrap_or(DEFAULT_TIMEOUT_SECS).into());
    let route = call.route.as_deref().map(route).transpose()?;
    Ok(PaymentOrder { target, max_fee, timeout, route, idempotency_key, payer })
}

/// The hops of a route; what is wrong with one is told with its number, from 1.
fn route(hops: &[RouteHop]) -> Answer<Vec<GivenHop>> {
    let hop = |(index, hop): (usize, &RouteHop)| {
        let unfit = |problem: &str| {
            let number = index.saturating_add(1);
            Fault::invalid_parameter("route", format!("hop {number} {problem}"))
        };
        let node = read::id("node_id", &hop.node_id).map_err(|_| unfit("has no valid node_id in lowercase hex"))?;
        let channel = hop.short_channel_id.as_deref().map(str::parse).transpose();
        let channel = channel.map_err(|_| unfit("has no valid short_channel_id, BxTxO"))?;
        Ok(GivenHop { node, channel, amount: Msat::new(hop.amount_msat), blocks: hop.expiry_blocks })
    };
    hops.iter().enumerate().map(hop).collect()
}

impl<B: Backend> Serve<B> for PaymentAbandon {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<PaymentInfo> {
        let payment_id = read::name("payment_id", self.payment_id)?;
        let may_all =
            |token: &TokenId| doors.rights(token).is_some_and(|rights| token::allows(rights.scopes, &[Scope::Admin]));
        let only_of = call.caller.payer().filter(|token| !may_all(token));
        doors.node()?.payment_abandon(payment_id, only_of).await
    }
}

impl<B: Backend> Serve<B> for PaymentWait {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PaymentInfo> {
        let payment_id = read::name("payment_id", self.payment_id)?;
        doors.waiting(doors.node()?.payment_wait(payment_id, read::patience(self.timeout_secs))).await
    }
}

impl<B: Backend> Serve<B> for PaymentGet {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PaymentInfo> {
        let payment_id = read::name("payment_id", self.payment_id)?;
        doors.node()?.payment_get(payment_id).await
    }
}

impl<B: Backend> Serve<B> for PaymentList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<PaymentPage> {
        let limit = page::limit(self.limit);
        // A payment's name is 32 bytes in hex, as a payment hash is.
        let after = read::cursor::<PaymentHash>(self.after.as_deref())?.map(|name| name.0);
        let payments = doors.node()?.payment_list(after, limit.saturating_add(1)).await?;
        let (items, next) = page::cut(payments, limit, |payment| payment.payment_id.clone());
        Ok(PaymentPage { items, next })
    }
}
