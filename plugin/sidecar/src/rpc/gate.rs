//! The HTTP gate: what does not come from a caller on this machine who holds the cookie or a token is turned away before a byte
//! of its body is read, and an unsound body before anything in it is looked at.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use jsonrpsee::core::BoxError;
use jsonrpsee::server::http::is_json;
use jsonrpsee::server::{HttpBody, HttpRequest, HttpResponse};
use jsonrpsee::types::{ErrorObjectOwned, Id, Response, ResponsePayload};
use tower::{Layer, Service};

use super::auth::{Cookie, Shown};
use super::rights::{Bearers, NotOpen};
use super::{Caller, Fault, sound};

/// The largest body: 1 MiB.
pub(super) const MAX_BODY_BYTES: u32 = 1024 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is let through.
pub(super) struct Rules {
    hosts: Vec<String>,
    cookie: Cookie,
    bearers: Arc<dyn Bearers>,
}

impl Rules {
    /// Callers that show the cookie or a token and mean the server at this address, by its own name or as localhost. A page of
    /// another name that resolves to this machine (DNS rebinding) does not mean it.
    pub(super) fn new(bound: SocketAddr, cookie: Cookie, bearers: Arc<dyn Bearers>) -> Self {
        let port = bound.port();
        let mut hosts = vec![bound.to_string(), format!("localhost:{port}")];
        if matches!(bound.ip(), IpAddr::V4(_)) {
            hosts.push(format!("127.0.0.1:{port}"));
        } else {
            hosts.push(format!("[::1]:{port}"));
        }
        Self { hosts, cookie, bearers }
    }

    /// Who calls, or the first rule that a request's head breaks, as the status to answer with.
    fn verdict<T>(&self, request: &HttpRequest<T>) -> Result<Caller, StatusCode> {
        let headers = request.headers();
        if !self.names_this_server(request) || headers.contains_key(ORIGIN) {
            return Err(StatusCode::FORBIDDEN);
        }
        if request.method() != Method::POST {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let caller = self.caller(headers)?;
        if !is_json(headers.get(CONTENT_TYPE)) {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        if declared_bytes(headers).is_some_and(|bytes| bytes > u64::from(MAX_BODY_BYTES)) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(caller)
    }

    /// Whose secret the request shows.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, StatusCode> {
        match Shown::in_headers(headers) {
            Some(Shown::Basic(shown)) if self.cookie.is(&shown) => Ok(Caller::Owner),
            Some(Shown::Bearer(shown)) => match self.bearers.admit(shown) {
                Ok(Some(token)) => Ok(Caller::Token(token)),
                Ok(None) => Err(StatusCode::UNAUTHORIZED),
                Err(NotOpen) => Err(StatusCode::SERVICE_UNAVAILABLE),
            },
            Some(Shown::Basic(_)) | None => Err(StatusCode::UNAUTHORIZED),
        }
    }

    /// Whether everything in the request that names its server names this one: one `Host` at most, and the target's
    /// own authority where it has one.
    fn names_this_server<T>(&self, request: &HttpRequest<T>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter();
        let header = hosts.next().map(|host| host.to_str().unwrap_or_default());
        let target = request.uri().authority().map(http::uri::Authority::as_str);
        let allowed = |name: &str| self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
        hosts.next().is_none()
            && (header.is_some() || target.is_some())
            && header.is_none_or(allowed)
            && target.is_none_or(allowed)
    }
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Puts the gate before a service.
#[derive(Clone)]
pub(super) struct GateLayer(pub(super) Arc<Rules>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { rules: Arc::clone(&self.0), inner }
    }
}

/// The gate before a service.
#[derive(Clone)]
pub(super) struct Gate<S> {
    rules: Arc<Rules>,
    inner: S,
}

impl<S> Service<HttpRequest> for Gate<S>
where
    S: Service<HttpRequest, Response = HttpResponse, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let caller = match self.rules.verdict(&request) {
            Ok(caller) => caller,
            Err(status) => return Box::pin(async move { Ok(turned_away(status)) }),
        };
        // The clone is not known to be ready; the service that was polled is, and goes into the future.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            head.extensions.insert(caller);
            let body = match whole(body).await {
                Ok(body) => body,
                Err(status) => return Ok(turned_away(status)),
            };
            match sound::check(&body) {
                Ok(()) => ready.call(HttpRequest::from_parts(head, HttpBody::from(body))).await,
                Err(error) => Ok(refused(Fault::parse_error(error))),
            }
        })
    }
}

/// The body, if it is small enough and arrives in time.
async fn whole(body: HttpBody) -> Result<Vec<u8>, StatusCode> {
    let limit = usize::try_from(MAX_BODY_BYTES).unwrap_or(usize::MAX);
    let limited = Limited::new(body, limit);
    let collected = tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// An answer with nothing but the status: whoever is turned away learns nothing more.
fn turned_away(status: StatusCode) -> HttpResponse {
    let mut response = HttpResponse::new(HttpBody::empty());
    *response.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"outrigger\""));
    }
    response
}

/// A JSON-RPC error for a body in which no id can be trusted.
fn refused(fault: Fault) -> HttpResponse {
    let payload = ResponsePayload::<()>::error(ErrorObjectOwned::from(fault));
    let body = serde_json::to_string(&Response::new(payload, Id::Null)).unwrap_or_default();
    jsonrpsee::server::http::response::ok_response(body)
}
