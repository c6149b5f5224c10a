//! A client of the interface over HTTP.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonrpsee::core::client::{ClientT, Error as ClientError};
use jsonrpsee::core::traits::ToRpcParams;
use jsonrpsee::http_client::transport::Error as TransportError;
use jsonrpsee::http_client::{HeaderMap, HeaderValue, HttpClient};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use crate::rendezvous::{ADDRESS_FILE, CERTIFICATE_FILE, COOKIE_FILE, ENCRYPTED};
use crate::{ErrorData, Method, tls};

/// Longer than the longest wait that a method offers (600 s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(630);

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    http: HttpClient,
}

/// Whom to take for the daemon.
#[derive(Clone, Copy)]
enum Trust<'a> {
    /// Whoever is at the address: nothing is encrypted.
    Plain,
    /// Whom the authorities of this machine vouch for.
    Machine,
    /// Who has one of these certificates, or one that they vouch for.
    These(&'a str),
    /// Who has the first of these certificates.
    Own(&'a str),
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
        Self::authorized(address, &basic(cookie), Trust::Plain)
    }

    /// A client of the daemon at `address` (`ip:port`) that shows this token, as `token.create` gave it.
    pub fn with_token(address: &str, token: &str) -> Result<Self, CallError> {
        Self::authorized(address, &format!("Bearer {}", token.trim()), Trust::Plain)
    }

    /// The same over TLS, at `host:port`. Trusted is a daemon that has one of these certificates (PEM), whatever its name and dates say,
    /// or one that they vouch for under the name of the address; without them one that the authorities of this machine vouch for. Nothing
    /// is sent to anybody else, the token neither.
    pub fn with_token_over_tls(address: &str, token: &str, certificates: Option<&str>) -> Result<Self, CallError> {
        let trust = certificates.map_or(Trust::Machine, Trust::These);
        Self::authorized(address, &format!("Bearer {}", token.trim()), trust)
    }

    fn authorized(address: &str, credentials: &str, trust: Trust<'_>) -> Result<Self, CallError> {
        let mut credentials =
            HeaderValue::from_str(credentials).map_err(|error| CallError::Garbled(error.to_string()))?;
        credentials.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", credentials);
        let mut builder = HttpClient::builder().set_headers(headers).request_timeout(REQUEST_TIMEOUT);
        builder = match trust {
            Trust::Plain | Trust::Machine => builder,
            Trust::These(certificates) => builder.with_custom_cert_store(tls::trusting(certificates)?),
            Trust::Own(certificates) => builder.with_custom_cert_store(tls::trusting_first(certificates)?),
        };
        let scheme = if matches!(trust, Trust::Plain) { "http://" } else { ENCRYPTED };
        Ok(Self { http: builder.build(format!("{scheme}{address}")).map_err(CallError::from)? })
    }

    /// A client of the daemon whose network directory this is. Where its port speaks TLS, it is known by the certificate that it left
    /// there, and by no other.
    pub fn in_directory(directory: &Path) -> Result<Self, CallError> {
        let address = read(directory.join(ADDRESS_FILE))?;
        let cookie = read(directory.join(COOKIE_FILE))?;
        match address.trim().strip_prefix(ENCRYPTED) {
            None => Self::authorized(address.trim(), &basic(&cookie), Trust::Plain),
            Some(address) => {
                let certificates = read(directory.join(CERTIFICATE_FILE))?;
                Self::authorized(address, &basic(&cookie), Trust::Own(&certificates))
            }
        }
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

/// What shows a cookie.
fn basic(cookie: &str) -> String {
    format!("Basic {}", STANDARD.encode(cookie.trim()))
}

/// Parameters as one JSON object.
struct ByName(Result<Box<RawValue>, serde_json::Error>);

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

impl From<ClientError> for CallError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Call(object) => Self::Refused(Refusal::from(object)),
            ClientError::Transport(cause) => match cause.downcast_ref::<TransportError>() {
                Some(TransportError::Rejected { status_code }) => Self::Rejected(*status_code),
                Some(_) | None => tls::refusal(cause.as_ref())
                    .map_or_else(|| Self::Unreachable(root_cause(cause.as_ref())), Self::Untrusted),
            },
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
