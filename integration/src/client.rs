//! A client whose every call is held against the schema, as tests of the debug build have it.

use std::path::Path;

use outrigger_rpc_schema::{CallError, Method};
use serde_json::{Map, Value};

use crate::schema::Schema;

/// A client of one daemon. In the release build, which is measured, it checks nothing.
#[derive(Clone, Debug)]
pub struct Client {
    inner: outrigger_rpc_schema::Client,
}

impl Client {
    /// A client of the daemon whose network directory this is.
    pub fn in_directory(directory: &Path) -> Result<Self, CallError> {
        Ok(Self { inner: outrigger_rpc_schema::Client::in_directory(directory)? })
    }

    /// A client that shows a token at this address.
    pub fn with_token(address: &str, token: &str) -> Result<Self, CallError> {
        Ok(Self { inner: outrigger_rpc_schema::Client::with_token(address, token)? })
    }

    /// The same over TLS, with what is trusted; see [`outrigger_rpc_schema::Client::with_token_over_tls`].
    pub fn with_token_over_tls(address: &str, token: &str, trusted: Option<&str>) -> Result<Self, CallError> {
        Ok(Self { inner: outrigger_rpc_schema::Client::with_token_over_tls(address, token, trusted)? })
    }

    /// Calls a method. A call or an answer that is not as the schema tells fails the test by a panic.
    pub async fn call<M: Method>(&self, method: M) -> Result<M::Result, CallError> {
        if !cfg!(debug_assertions) {
            return self.inner.call(method).await;
        }
        let garbled = |error: serde_json::Error| CallError::Garbled(error.to_string());
        let parameters = serde_json::to_value(&method).and_then(serde_json::from_value).map_err(garbled)?;
        serde_json::from_value(self.call_untyped(M::NAME, &parameters).await?).map_err(garbled)
    }

    /// Calls a method by name, with parameters that nobody has checked. Fails the test as [`Self::call`] does.
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    pub async fn call_untyped(&self, name: &str, parameters: &Map<String, Value>) -> Result<Value, CallError> {
        let answer = self.inner.call_untyped(name, parameters).await;
        if cfg!(debug_assertions)
            && let Some(fault) = Schema::current().fault(name, &Value::Object(parameters.clone()), &answer)
        {
            panic!("{fault}");
        }
        answer
    }
}
