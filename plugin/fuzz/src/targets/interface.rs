//! Parameters of calls, as the schema checks and the types of `rpc-schema` read them.

use outrigger_rpc_schema::{
    BackupStatus, ConfigGet, LogLevels, ChainFeerates, ChainNotifyBlock, ChainStatus, EventSubscribe, EventUnsubscribe, InvoiceDecode, InvoiceList,
    PaymentList, WalletWait, ChannelWait, PeerDisconnect, PluginInit, PluginManifest, RpcDiscover, WalletSend, WalletUtxos, ChannelClose, ChannelForceClose, ChannelGet, ChannelList, ChannelOpen, ChannelOpenWait, ChannelSetPolicy,
    EventList, ForwardList, ForwardStats, InvoiceCreate, InvoiceGet, Method, MethodInfo, NodeInfo, NodeStatus,
    NodeStop, Parameter, ParameterType, PaymentAbandon, PaymentGet, PaymentSend, PaymentWait, PeerConnect, PeerList,
    TokenCreate, TokenList, TokenRevoke, WalletBalance, WalletNewAddress, methods,
};
use serde_json::{Map, Value, json};

use super::Target;
use crate::draw::Draw;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target::new("rpc_parameters", parameters, || {
            let call = |method: &MethodInfo| {
                let given: Map<String, Value> =
                    method.parameters.iter().map(|parameter| (parameter.name.clone(), fitting(parameter))).collect();
                Value::Object(given).to_string().into_bytes()
            };
            methods().iter().map(call).collect()
        }),
        Target::new("rpc_parameter_values", values, || (0..40).map(|number| vec![number; 30]).collect()),
    ]
}

fn fitting(parameter: &Parameter) -> Value {
    match &parameter.kind {
        ParameterType::Integer { min, .. } => json!(min),
        ParameterType::Boolean => json!(true),
        ParameterType::Text => json!("text"),
        ParameterType::Choice(choices) => json!(choices.first()),
        ParameterType::List(element) => match &**element {
            ParameterType::Object(fields) => json!([object(fields)]),
            ParameterType::Integer { .. }
            | ParameterType::Boolean
            | ParameterType::Text
            | ParameterType::Choice(_)
            | ParameterType::List(_) => json!([]),
        },
        ParameterType::Object(fields) => object(fields),
    }
}

fn object(fields: &[Parameter]) -> Value {
    Value::Object(fields.iter().map(|field| (field.name.clone(), fitting(field))).collect())
}

/// Any JSON object to every method: what the check lets through, the method's type can read.
fn parameters(data: &[u8]) {
    let Ok(given) = serde_json::from_slice::<Map<String, Value>>(data) else { return };
    for method in methods() {
        call(method, &given);
    }
}

/// Objects whose names are mostly those of one method, with values from the ends of each type.
fn values(data: &[u8]) {
    let mut draw = Draw::new(data);
    let method = &methods()[draw.below(methods().len())];
    let mut given = Map::new();
    for parameter in &method.parameters {
        if draw.byte() & 7 != 0 {
            let fits = draw.byte() & 3 == 0;
            given.insert(parameter.name.clone(), if fits { fitting(parameter) } else { any(&mut draw, 2) });
        }
    }
    if draw.byte() & 15 == 1 {
        given.insert(String::from_utf8_lossy(draw.bytes(20)).into_owned(), any(&mut draw, 1));
    }
    call(method, &given);
}

fn any(draw: &mut Draw<'_>, depth: u8) -> Value {
    match draw.below(12) {
        0 => Value::Null,
        1 => json!(draw.byte() & 1 == 0),
        2..5 => json!(draw.number(1 << 32)),
        5 => json!(-i64::from(draw.u32())),
        6 => json!(f64::from(draw.u32()) / 3.0),
        7 | 8 => json!(String::from_utf8_lossy(draw.bytes(64))),
        9 => json!("f".repeat(draw.below(200))),
        10 if depth > 0 => (0..draw.below(4)).map(|_| any(draw, depth - 1)).collect(),
        _ => json!({}),
    }
}

fn call(method: &MethodInfo, given: &Map<String, Value>) {
    if let Err(fault) = method.check(given) {
        let named = fault.parameter();
        assert!(given.contains_key(named) || method.parameter(named).is_some(), "the fault names no parameter");
        return;
    }
    if let Some((_, read)) = READERS.iter().find(|(name, _)| *name == method.name) {
        let read = read(Value::Object(given.clone()));
        assert_eq!(read, Ok(()), "{}: the check and the type disagree on {given:?}", method.name);
    }
}

type Reader = fn(Value) -> Result<(), String>;

const fn reader<M: Method>() -> (&'static str, Reader) {
    (M::NAME, |value| serde_json::from_value::<M>(value).map(drop).map_err(|fault| fault.to_string()))
}

/// The type of each method.
const READERS: &[(&str, Reader)] = &[
    reader::<NodeInfo>(),
    reader::<NodeStatus>(),
    reader::<NodeStop>(),
    reader::<ConfigGet>(),
    reader::<LogLevels>(),
    reader::<ChainStatus>(),
    reader::<WalletBalance>(),
    reader::<WalletNewAddress>(),
    reader::<PeerConnect>(),
    reader::<PeerList>(),
    reader::<ChannelOpen>(),
    reader::<ChannelOpenWait>(),
    reader::<ChannelList>(),
    reader::<ChannelGet>(),
    reader::<ChannelClose>(),
    reader::<ChannelForceClose>(),
    reader::<ChannelSetPolicy>(),
    reader::<InvoiceCreate>(),
    reader::<InvoiceGet>(),
    reader::<PaymentSend>(),
    reader::<PaymentWait>(),
    reader::<PaymentGet>(),
    reader::<PaymentAbandon>(),
    reader::<ForwardList>(),
    reader::<ForwardStats>(),
    reader::<BackupStatus>(),
    reader::<EventList>(),
    reader::<EventSubscribe>(),
    reader::<EventUnsubscribe>(),
    reader::<ChainFeerates>(),
    reader::<ChainNotifyBlock>(),
    reader::<InvoiceDecode>(),
    reader::<InvoiceList>(),
    reader::<PaymentList>(),
    reader::<PeerDisconnect>(),
    reader::<PluginInit>(),
    reader::<PluginManifest>(),
    reader::<RpcDiscover>(),
    reader::<WalletSend>(),
    reader::<WalletUtxos>(),
    reader::<WalletWait>(),
    reader::<ChannelWait>(),
    reader::<TokenCreate>(),
    reader::<TokenList>(),
    reader::<TokenRevoke>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_reader() {
        for method in methods() {
            assert!(READERS.iter().any(|(name, _)| *name == method.name), "{} is not read", method.name);
        }
    }
}
