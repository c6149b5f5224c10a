//! The JSON-RPC gate: unknown methods, and calls without an id.

use std::future::Future;
use std::sync::Arc;

use jsonrpsee::core::middleware::{Batch, BatchEntry, Notification, RpcServiceT};
use jsonrpsee::server::{BatchResponseBuilder, MethodResponse};
use jsonrpsee::types::{ErrorObjectOwned, Id, Request};
use outrigger_rpc_schema::{MethodInfo, methods, nearest};
use tower::Layer;

use super::desk::{Call, MAX_ANSWER_BYTES};
use super::rights::Bearers;
use super::{Answer, Caller, Fault, token};

/// Puts the gate before a service.
#[derive(Clone)]
pub(super) struct CallsLayer(pub(super) Arc<dyn Bearers>);

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { bearers: Arc::clone(&self.0), inner }
    }
}

/// Lets known methods through to the service behind it, for callers that may use them.
#[derive(Clone)]
pub(super) struct Calls<S> {
    bearers: Arc<dyn Bearers>,
    inner: S,
}

/// Whether the caller may use the method. A token may have ended since the request came in.
fn admitted(bearers: &dyn Bearers, request: &Request<'_>, method: &MethodInfo) -> Answer<()> {
    match request.extensions.get::<Call>().map(|call| &call.caller) {
        Some(Caller::Owner) => Ok(()),
        Some(Caller::Token(token)) => match bearers.rights(token) {
            None => Err(Fault::token_ended()),
            Some(rights) if token::allows(rights.scopes, method.scopes) => Ok(()),
            Some(_) => Err(Fault::scope_missing(method.name, method.scopes)),
        },
        None => Err(Fault::internal("a call of nobody")),
    }
}

impl<S> RpcServiceT for Calls<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Clone + Send + Sync + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let Self { bearers, inner } = self.clone();
        async move {
            if let Some(method) = MethodInfo::named(request.method_name()) {
                tracing::trace!(method = method.name, "a call");
                return match admitted(bearers.as_ref(), &request, method) {
                    Ok(()) => inner.call(request).await,
                    Err(fault) => MethodResponse::error(request.id, ErrorObjectOwned::from(fault)),
                };
            }
            let known = methods().iter().map(|method| method.name);
            let fault = Fault::unknown_method(request.method_name(), nearest(request.method_name(), known));
            MethodResponse::error(request.id, ErrorObjectOwned::from(fault))
        }
    }

    /// A notification has no answer. One that moves money is refused with an error nevertheless: its sender would
    /// never learn what became of the money. Any other is carried out.
    fn notification<'a>(&self, notification: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let this = self.clone();
        async move {
            if MethodInfo::named(notification.method_name()).is_some_and(|method| method.moves_money) {
                let fault = Fault::notification_refused(notification.method_name());
                return MethodResponse::error(Id::Null, ErrorObjectOwned::from(fault));
            }
            let Notification { jsonrpc, method, params, extensions } = notification;
            let request = Request { jsonrpc, id: Id::Null, method, params, extensions };
            drop(this.call(request).await);
            MethodResponse::notification()
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let this = self.clone();
        async move {
            let mut answers = BatchResponseBuilder::new_with_limit(MAX_ANSWER_BYTES);
            let mut notified = false;
            for entry in batch {
                let answer = match entry {
                    Ok(BatchEntry::Call(request)) => this.call(request).await,
                    Ok(BatchEntry::Notification(notification)) => this.notification(notification).await,
                    Err(fault) => {
                        let (_, id) = fault.into_parts();
                        let fault = Fault::invalid_request("an entry is none");
                        MethodResponse::error(id, ErrorObjectOwned::from(fault))
                    }
                };
                if answer.is_notification() {
                    notified = true;
                } else if let Err(too_long) = answers.append(answer) {
                    return too_long;
                }
            }
            if notified && answers.is_empty() {
                return MethodResponse::notification();
            }
            MethodResponse::from_batch(answers.finish())
        }
    }
}
