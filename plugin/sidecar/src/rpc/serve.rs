//! From a call on the wire to the method's own file and back.

use std::future::Future;
use std::sync::Arc;

use jsonrpsee::server::{RegisterMethodError, RpcModule};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use outrigger_rpc_schema::{Method, MethodInfo};
use serde_json::{Map, Value};

use super::desk::Call;
use super::{Answer, Backend, Doors, Fault};

/// A method as the daemon serves it.
pub(super) trait Serve<B: Backend>: Method {
    /// Reads the parameters' meaning and asks the node.
    fn serve(self, doors: Arc<Doors<B>>, call: Call) -> impl Future<Output = Answer<Self::Result>> + Send;
}

/// Adds a method to the module.
pub(super) fn register<B: Backend, M: Serve<B>>(module: &mut RpcModule<Doors<B>>) -> Result<(), RegisterMethodError> {
    module.register_async_method(M::NAME, |params, doors, extensions| async move {
        let call = extensions.get::<Call>().cloned().ok_or_else(|| Fault::internal("a call of nobody"))?;
        let (method, is_keyed) = parse::<M>(&params)?;
        let answer = carry_out(method, is_keyed, doors, call).await?;
        // As a value: the wire form then has one order of fields.
        serde_json::to_value(answer).map_err(|error| ErrorObjectOwned::from(Fault::internal(error)))
    })?;
    Ok(())
}

/// The answer. What moves money goes on when the caller hangs up, and so does what bears a key: the server drops this future then, and a
/// call that was cut short between two of its steps would be neither done nor refused, or give up its turn before its row is there.
async fn carry_out<B: Backend, M: Serve<B>>(
    method: M,
    is_keyed: bool,
    doors: Arc<Doors<B>>,
    call: Call,
) -> Answer<M::Result> {
    if !M::MOVES_MONEY && !is_keyed {
        return method.serve(doors, call).await;
    }
    let whole = tokio::spawn(method.serve(doors, call)).await;
    whole.unwrap_or_else(|error| Err(Fault::internal(format!("{} ended early: {error}", M::NAME))))
}

/// The parameters, checked against the schema, so that a fault names the one that causes it; and whether an idempotency key is among them.
fn parse<M: Method>(params: &Params<'_>) -> Answer<(M, bool)> {
    let given: Map<String, Value> = match params.as_str() {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|_| Fault::parameters_by_name())?,
    };
    let method = MethodInfo::named(M::NAME).ok_or_else(|| Fault::internal("a method outside the schema"))?;
    method.check(&given)?;
    let is_keyed = given.contains_key("idempotency_key");
    let method = serde_json::from_value(Value::Object(given))
        .map_err(|error| Fault::internal(format!("unread parameter: {error}")))?;
    Ok((method, is_keyed))
}
