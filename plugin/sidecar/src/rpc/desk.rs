//! The desk behind every door: what is said there is sound JSON, is JSON-RPC, and is answered for a caller who is known.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use jsonrpsee::core::middleware::RpcServiceBuilder;
use jsonrpsee::server::{
    BatchRequestConfig, HttpBody, HttpRequest, HttpResponse, RegisterMethodError, ServerConfig, ServerHandle,
    TowerService, stop_channel,
};
use jsonrpsee::types::Id;
use tower::Service;
use tower::layer::util::{Identity, Stack};

use super::auth::Caller;
use super::calls::CallsLayer;
use super::gate::{refused, turned_away};
use super::rights::Bearers;
use super::server::methods;
use super::session::Line;
use super::{Backend, Doors, Fault, envelope, sound};

/// The largest message: 1 MiB.
pub(super) const MAX_BODY_BYTES: u32 = 1024 * 1024;

/// The longest answer: 10 MiB, far above a page of 1000 of anything.
pub(super) const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;

/// The most requests in a batch.
const MAX_BATCH: u32 = 20;

/// Who calls, and over what.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) caller: Caller,
    /// The connection that more can be said on later; none for a request over HTTP.
    pub(super) line: Option<Line>,
}

/// Answers messages.
pub(super) struct Desk {
    rpc: TowerService<Stack<CallsLayer, Identity>, Identity>,
    /// What the server would be stopped by, if it had sockets of its own.
    _handle: ServerHandle,
}

impl Desk {
    /// A desk that asks the node behind these doors.
    pub(super) fn new<B: Backend>(doors: Arc<Doors<B>>) -> Result<Self, RegisterMethodError> {
        let bearers: Arc<dyn Bearers> = doors.clone();
        let config = ServerConfig::builder()
            .max_request_body_size(MAX_BODY_BYTES)
            .max_response_body_size(u32::try_from(MAX_ANSWER_BYTES).unwrap_or(u32::MAX))
            // Connections are counted at the doors.
            .max_connections(u32::MAX)
            .set_batch_request_config(BatchRequestConfig::Limit(MAX_BATCH))
            .http_only()
            .build();
        let (stop, handle) = stop_channel();
        let rpc = jsonrpsee::server::Server::builder()
            .set_config(config)
            .set_rpc_middleware(RpcServiceBuilder::new().layer(CallsLayer(bearers)))
            .to_service_builder()
            .build(methods(doors)?, stop);
        Ok(Self { rpc, _handle: handle })
    }

    /// The answer to a message, as HTTP has it.
    pub(super) async fn answer(&self, message: Vec<u8>, call: Call) -> HttpResponse {
        if let Err(error) = sound::check(&message) {
            return refused(Id::Null, Fault::parse_error(error));
        }
        let message = match envelope::check(message) {
            Ok(message) => message,
            Err((id, fault)) => return refused(id, fault),
        };
        let mut request = HttpRequest::new(HttpBody::from(message));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.extensions_mut().insert(call);
        let answer = self.rpc.clone().call(request).await;
        answer.unwrap_or_else(|_| turned_away(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// The answer to a message of a session; none for a notification.
    pub(super) async fn reply(&self, message: Vec<u8>, call: Call) -> Option<String> {
        let answer = self.answer(message, call).await.into_body().collect().await.ok()?;
        let text = String::from_utf8(answer.to_bytes().to_vec()).ok()?;
        Some(text).filter(|text| !text.is_empty() && text != "null")
    }
}
