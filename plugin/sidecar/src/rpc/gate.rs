//! The HTTP gate: what does not come from a caller on this machine who holds the cookie or a token is turned away before a byte
//! of its body is read, and an unsound body before anything in it is looked at. The operator's page alone is anybody's to read:
//! it holds nothing of the node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use jsonrpsee::server::http::is_json;
use jsonrpsee::server::{HttpBody, HttpResponse};
use jsonrpsee::types::{ErrorObjectOwned, Id, Response, ResponsePayload};
use outrigger_rpc_schema::Scope;
use soketto::handshake::http::is_upgrade_request;

use super::auth::{Caller, Cookie, Shown};
use super::desk::MAX_BODY_BYTES;
use super::door::Entrance;
use super::operator_page::{self, PageFile};
use super::rights::{Bearers, NotOpen};
use super::{Fault, Place, token};

/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is let through.
pub(super) struct Rules {
    hosts: Vec<String>,
    origins: Vec<String>,
    cookie: Cookie,
    bearers: Arc<dyn Bearers>,
    serves_page: bool,
}

/// What a request that is let through is for.
pub(super) enum Errand {
    /// A message in the body.
    Call(Caller),
    /// A connection on which both sides speak.
    Session(Caller),
    /// A file of the operator's page.
    File(&'static PageFile),
    /// What is measured, for who may read.
    Metrics,
}

/// Where what is measured is asked for.
const METRICS: &str = "/metrics";

impl Rules {
    /// Callers that show the cookie or a token and mean the server at this address, by its own name or as localhost. A page of
    /// another name that resolves to this machine (DNS rebinding) does not mean it.
    pub(super) fn new(bound: SocketAddr, place: &Place, cookie: Cookie, bearers: Arc<dyn Bearers>) -> Self {
        let port = bound.port();
        let mut hosts = vec![bound.to_string(), format!("localhost:{port}")];
        if matches!(bound.ip(), IpAddr::V4(_)) {
            hosts.push(format!("127.0.0.1:{port}"));
        } else {
            hosts.push(format!("[::1]:{port}"));
        }
        let mut origins = place.origins.clone();
        if place.page {
            let scheme = if place.tls.is_some() { "https" } else { "http" };
            origins.extend(hosts.iter().map(|host| format!("{scheme}://{host}")));
            origins.extend(place.hosts.iter().flat_map(|host| origins_behind(host)));
        }
        hosts.extend(place.hosts.iter().cloned());
        Self { hosts, origins, cookie, bearers, serves_page: place.page }
    }

    /// What the request is for and who makes it, or the first rule that its head breaks, as the status to answer with.
    pub(super) fn verdict<T>(&self, entrance: Entrance, request: &Request<T>) -> Result<Errand, StatusCode> {
        let headers = request.headers();
        // No page can open the socket file: there the name of the server says nothing.
        let is_meant = entrance == Entrance::SocketFile || self.names_this_server(request);
        if !is_meant || !self.is_from_a_page_that_may(headers) {
            return Err(StatusCode::FORBIDDEN);
        }
        let is_upgrade = request.method() == Method::GET && is_upgrade_request(request);
        if !is_upgrade && request.method() == Method::GET && request.uri().path() == METRICS {
            return self.may_read(entrance, headers).map(|()| Errand::Metrics);
        }
        if !is_upgrade && self.serves_page && [Method::GET, Method::HEAD].contains(request.method()) {
            return operator_page::file(request.uri().path()).map(Errand::File).ok_or(StatusCode::NOT_FOUND);
        }
        if request.method() != Method::POST && !is_upgrade {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let caller = self.whose(entrance, headers, is_upgrade)?;
        if is_upgrade {
            return Ok(Errand::Session(caller));
        }
        if !is_json(headers.get(CONTENT_TYPE)) {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        if declared_bytes(headers).is_some_and(|bytes| bytes > u64::from(MAX_BODY_BYTES)) {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(Errand::Call(caller))
    }

    /// What is measured tells balances: it is for the owner, and for tokens that may read.
    fn may_read(&self, entrance: Entrance, headers: &HeaderMap) -> Result<(), StatusCode> {
        let Caller::Token(token) = self.whose(entrance, headers, false)? else { return Ok(()) };
        let rights = self.bearers.rights(&token).ok_or(StatusCode::UNAUTHORIZED)?;
        if token::allows(rights.scopes, &[Scope::Read]) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
    }

    fn whose(&self, entrance: Entrance, headers: &HeaderMap, is_upgrade: bool) -> Result<Caller, StatusCode> {
        match entrance {
            Entrance::Port => self.caller(headers, is_upgrade),
            Entrance::SocketFile => Ok(Caller::Owner),
        }
    }

    /// What is measured now.
    pub(super) async fn metrics(&self) -> HttpResponse {
        let Some(text) = self.bearers.clone().metrics().await else {
            return turned_away(StatusCode::SERVICE_UNAVAILABLE);
        };
        let mut response = HttpResponse::new(HttpBody::from(text));
        let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, format);
        response
    }

    /// Whose secret the request shows.
    fn caller(&self, headers: &HeaderMap, is_upgrade: bool) -> Result<Caller, StatusCode> {
        let in_protocol = || is_upgrade.then(|| Shown::in_protocol(headers)).flatten();
        match Shown::in_headers(headers).or_else(in_protocol) {
            Some(Shown::Basic(shown)) if self.cookie.is(&shown) => Ok(Caller::Owner),
            Some(Shown::Bearer(shown)) => match self.bearers.admit(shown) {
                Ok(Some(token)) => Ok(Caller::Token(token)),
                Ok(None) => Err(StatusCode::UNAUTHORIZED),
                Err(NotOpen) => Err(StatusCode::SERVICE_UNAVAILABLE),
            },
            Some(Shown::Basic(_)) | None => Err(StatusCode::UNAUTHORIZED),
        }
    }

    /// Whether no page sends the request, or one that was named. A browser says which page it is, and no page can keep it from
    /// that; WebSocket is no exception.
    fn is_from_a_page_that_may(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        // Scheme and host have no case (RFC 6454, section 4).
        let is_named = |origin: &HeaderValue| {
            self.origins.iter().any(|named| named.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        };
        origins.next().is_none_or(is_named) && origins.next().is_none()
    }

    /// Whether everything in the request that names its server names this one: one `Host` at most, and the target's
    /// own authority where it has one.
    fn names_this_server<T>(&self, request: &Request<T>) -> bool {
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

/// How a browser names the page of a server that is known by this name: a proxy with TLS may stand before it, and a browser
/// leaves out the port that the scheme has anyway.
fn origins_behind(host: &str) -> [String; 2] {
    let without = |port: &str| host.strip_suffix(port).unwrap_or(host);
    [format!("http://{}", without(":80")), format!("https://{}", without(":443"))]
}

fn declared_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The body, if it is small enough and arrives in time.
pub(super) async fn whole(body: HttpBody) -> Result<Vec<u8>, StatusCode> {
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
pub(super) fn turned_away(status: StatusCode) -> HttpResponse {
    let mut response = HttpResponse::new(HttpBody::empty());
    *response.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"outrigger\""));
    }
    response
}

/// A JSON-RPC error for a whole body; the id is null where none of the body's can be trusted.
pub(super) fn refused(id: Id<'_>, fault: Fault) -> HttpResponse {
    let payload = ResponsePayload::<()>::error(ErrorObjectOwned::from(fault));
    let body = serde_json::to_string(&Response::new(payload, id)).unwrap_or_default();
    jsonrpsee::server::http::response::ok_response(body)
}
