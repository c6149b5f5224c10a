//! A client of the interface: calls over HTTP, events over WebSocket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonrpsee::client_transport::ws::WsHandshakeError;
use jsonrpsee::core::client::{ClientT, Error as ClientError};
use jsonrpsee::core::traits::ToRpcParams;
use jsonrpsee::http_client::transport::Error as TransportError;
use jsonrpsee::http_client::{HeaderMap, HeaderValue, HttpClient};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::rendezvous::{ADDRESS_FILE, CERTIFICATE_FILE, COOKIE_FILE, ENCRYPTED};
use crate::{ErrorData, EventSubscribe, Events, Method, tls};

/// Longer than the longest wait that a method offers (600 s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(630);

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient,
    place: Place,
}

/// Where the daemon is found.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// By the files that it leaves in this directory, new at every start.
    Directory(PathBuf),
    /// Here.
    Door(Door),
}

/// Where a daemon listens, what is shown to it, and whom to take for it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// `host:port`.
    pub(crate) address: String,
    credentials: HeaderValue,
    pub(crate) trust: Trust,
}

/// Whom to take for the daemon.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Whoever is at the address: nothing is encrypted.
    Plain,
    /// Whom the authorities of this machine vouch for.
    Machine,
    /// Who has one of these certificates, or one that they vouch for.
    These(String),
    /// Who has the first of these certificates.
    Own(String),
}

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// The daemon's address or cookie cannot be read: it does not run, or elsewhere.
    NotFound {
        /// The file that is missing or unreadable.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The address does not answer.
    Unreachable(String),
    /// Whoever is at the address has not shown over TLS that it is the daemon, and was sent nothing: why, and what to do.
    Untrusted(String),
    /// The daemon answered with an HTTP status instead of a result: 401 is a wrong cookie.
    Rejected(u16),
    /// The daemon refused the call.
    Refused(Refusal),
    /// The answer is not what the schema says.
    Garbled(String),
}

/// The daemon's reason for refusing a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code: JSON-RPC's own, or one in the band of a group.
    pub code: i32,
    /// What went wrong, for people.
    pub message: String,
    /// Kind, hint and whether to try again; absent where the fault was found before the method.
    pub data: Option<Box<ErrorData>>,
}

impl Client {
    /// A client of the daemon at `address` (`ip:port`) that shows this cookie, the whole text of the cookie file.
    pub fn new(address: &str, cookie: &str) -> Result<Self, CallError> {
        Self::at(Door::new(address, &basic(cookie), Trust::Plain)?)
    }

    /// A client of the daemon at `address` (`ip:port`) that shows this token, as `token.create` gave it.
    pub fn with_token(address: &str, token: &str) -> Result<Self, CallError> {
        Self::at(Door::new(address, &bearer(token), Trust::Plain)?)
    }

    /// The same over TLS, at `host:port`. Trusted is a daemon that has one of these certificates (PEM), whatever its name and dates say,
    /// or one that they vouch for under the name of the address; without them one that the authorities of this machine vouch for. Nothing
    /// is sent to anybody else, the token neither.
    pub fn with_token_over_tls(address: &str, token: &str, certificates: Option<&str>) -> Result<Self, CallError> {
        let trust = certificates.map_or(Trust::Machine, |certificates| Trust::These(certificates.to_owned()));
        Self::at(Door::new(address, &bearer(token), trust)?)
    }

    fn at(door: Door) -> Result<Self, CallError> {
        Ok(Self { http: door.http()?, place: Place::Door(door) })
    }

    /// A client of the daemon whose network directory this is. Where its port speaks TLS, it is known by the certificate that it left
    /// there, and by no other.
    pub fn in_directory(directory: &Path) -> Result<Self, CallError> {
        let place = Place::Directory(directory.to_owned());
        Ok(Self { http: place.door()?.http()?, place })
    }

    /// Follows events; nothing is asked before the first is waited for. A daemon that starts again is found by its directory, or by its
    /// address where a token is shown: a cookie that was given as text is of one run.
    pub fn follow(&self, asked: EventSubscribe) -> Events {
        Events::new(self.place.clone(), asked)
    }

    /// Calls a method.
    pub async fn call<M: Method>(&self, method: M) -> Result<M::Result, CallError> {
        self.http.request(M::NAME, ByName(to_raw_value(&method))).await.map_err(CallError::from)
    }

    /// Calls a method by name, with parameters that nobody has checked.
    pub async fn call_untyped(&self, name: &str, parameters: &Map<String, Value>) -> Result<Value, CallError> {
        self.http.request(name, ByName(to_raw_value(parameters))).await.map_err(CallError::from)
    }
}

impl Place {
    /// The door as it is now.
    pub(crate) fn door(&self) -> Result<Door, CallError> {
        let directory = match self {
            Self::Door(door) => return Ok(door.clone()),
            Self::Directory(directory) => directory,
        };
        let address = read(directory.join(ADDRESS_FILE))?;
        let cookie = read(directory.join(COOKIE_FILE))?;
        match address.trim().strip_prefix(ENCRYPTED) {
            None => Door::new(address.trim(), &basic(&cookie), Trust::Plain),
            Some(address) => {
                let certificates = read(directory.join(CERTIFICATE_FILE))?;
                Door::new(address, &basic(&cookie), Trust::Own(certificates))
            }
        }
    }
}

impl Door {
    pub(crate) fn new(address: &str, credentials: &str, trust: Trust) -> Result<Self, CallError> {
        let mut credentials =
            HeaderValue::from_str(credentials).map_err(|error| CallError::Garbled(error.to_string()))?;
        // It is shown to nobody who debugs.
        credentials.set_sensitive(true);
        Ok(Self { address: address.to_owned(), credentials, trust })
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", self.credentials.clone());
        headers
    }

    fn http(&self) -> Result<HttpClient, CallError> {
        let mut builder = HttpClient::builder().set_headers(self.headers()).request_timeout(REQUEST_TIMEOUT);
        builder = match &self.trust {
            Trust::Plain | Trust::Machine => builder,
            Trust::These(certificates) => builder.with_custom_cert_store(tls::trusting(certificates)?),
            Trust::Own(certificates) => builder.with_custom_cert_store(tls::trusting_first(certificates)?),
        };
        let scheme = if matches!(self.trust, Trust::Plain) { "http://" } else { ENCRYPTED };
        builder.build(format!("{scheme}{}", self.address)).map_err(CallError::from)
    }
}

/// What shows a token.
fn bearer(token: &str) -> String {
    format!("Bearer {}", token.trim())
}

/// What shows a cookie.
fn basic(cookie: &str) -> String {
    format!("Basic {}", STANDARD.encode(cookie.trim()))
}

/// Parameters as one JSON object.
pub(crate) struct ByName(pub(crate) Result<Box<RawValue>, serde_json::Error>);

impl ToRpcParams for ByName {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        self.0.map(Some)
    }
}

fn read(path: PathBuf) -> Result<String, CallError> {
    std::fs::read_to_string(&path).map_err(|error| CallError::NotFound { path, reason: error.to_string() })
}

impl CallError {
    /// The refusal's kind, where the daemon gave one.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.data.as_ref().map(|data| data.kind.as_str()),
            Self::NotFound { .. }
            | Self::Unreachable(_)
            | Self::Untrusted(_)
            | Self::Rejected(_)
            | Self::Garbled(_) => None,
        }
    }
}

impl CallError {
    /// What it means that this came in the place of an answer.
    pub(crate) fn without_answer(fault: &(dyn std::error::Error + 'static)) -> Self {
        tls::refusal(fault).map_or_else(|| Self::Unreachable(root_cause(fault)), Self::Untrusted)
    }
}

impl From<ClientError> for CallError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Call(object) => Self::Refused(Refusal::from(object)),
            ClientError::Transport(cause) => {
                if let Some(TransportError::Rejected { status_code }) = cause.downcast_ref() {
                    return Self::Rejected(*status_code);
                }
                match cause.downcast_ref() {
                    Some(
                        WsHandshakeError::Rejected { status_code } | WsHandshakeError::Redirected { status_code, .. },
                    ) => Self::Rejected(*status_code),
                    // It does not give this as its source.
                    Some(WsHandshakeError::Io(fault)) => Self::without_answer(fault),
                    Some(_) | None => Self::without_answer(cause.as_ref()),
                }
            }
            ClientError::RestartNeeded(_) | ClientError::ServiceDisconnect => {
                Self::Unreachable("the connection has ended".to_owned())
            }
            ClientError::RequestTimeout => Self::Unreachable("no answer in time".to_owned()),
            other => Self::Garbled(other.to_string()),
        }
    }
}

/// The innermost error: the layers above it only say that a request failed.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl From<ErrorObjectOwned> for Refusal {
    fn from(object: ErrorObjectOwned) -> Self {
        let data = object.data().and_then(|data| serde_json::from_str(data.get()).ok());
        Self { code: object.code(), message: object.message().to_owned(), data }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { path, reason } => write!(f, "cannot read {}: {reason}", path.display()),
            Self::Unreachable(reason) => write!(f, "cannot reach the daemon: {reason}"),
            Self::Untrusted(words) => write!(f, "nothing was sent to the daemon: {words}"),
            Self::Rejected(400) => f.write_str(
                "the daemon rejected the request (HTTP 400): where its port speaks TLS, the address must begin with https://",
            ),
            Self::Rejected(403) => f.write_str(
                "the daemon rejected the request (HTTP 403): the name in the address must be one of its rpc.hosts, with the port",
            ),
            Self::Rejected(401) => f.write_str("the daemon does not accept the cookie or the token (HTTP 401)"),
            Self::Rejected(status) => write!(f, "the daemon rejected the request (HTTP {status})"),
            Self::Refused(refusal) => write!(f, "{} ({})", refusal.message, refusal.code),
            Self::Garbled(reason) => write!(f, "the answer cannot be understood: {reason}"),
        }
    }
}

impl std::error::Error for CallError {}
