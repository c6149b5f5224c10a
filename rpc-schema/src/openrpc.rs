//! The OpenRPC document: the interface for programs and for people of other languages.

use serde_json::{Map, Value, json};

use crate::method::self_contained;
use crate::{ErrorData, ErrorKind, MethodInfo, NotificationInfo, Parameter, example, methods, notifications};

/// The OpenRPC document of this version of the interface.
pub fn document() -> Value {
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "Outrigger",
            "description": "The plugin interface of the Outrigger Lightning sidecar: JSON-RPC 2.0 over HTTP and \
                WebSocket on a loopback port and a unix socket. Parameters are given by name, results are objects. A field without a value is absent, \
                never null.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "methods": methods().iter().map(method).collect::<Vec<_>>(),
        "components": {
            "errors": ErrorKind::ALL.into_iter().map(error).collect::<Map<_, _>>(),
            "schemas": schemas(),
        },
    })
}

/// The types that are referred to, by their names.
fn schemas() -> Map<String, Value> {
    let error_data = ("ErrorData".to_owned(), self_contained::<ErrorData>().to_value());
    let params = |told: &NotificationInfo| (told.params_name.clone(), told.params.clone().to_value());
    std::iter::once(error_data).chain(notifications().iter().map(params)).collect()
}

fn method(method: &MethodInfo) -> Value {
    let mut told = json!({
        "name": method.name,
        "summary": method.summary,
        "deprecated": method.deprecated_in.is_some(),
        "paramStructure": "by-name",
        "params": method.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "result": { "name": method.result_name, "schema": method.result },
        "errors": references(&method.errors),
        "examples": [example_of(method)],
        "x-moves-money": method.moves_money,
        "x-needs-session": method.needs_session,
        "x-scopes": method.scopes,
        "x-added-in": method.added_in,
    });
    if let Some(version) = method.deprecated_in {
        told["x-deprecated-in"] = version.into();
    }
    let follow: Vec<_> = notifications().iter().filter(|told| told.begun_by.contains(&method.name)).collect();
    if !follow.is_empty() {
        told["x-notifications"] = follow.into_iter().map(notification).collect();
    }
    told
}

/// A notification that may follow the answer. OpenRPC has no word for it.
fn notification(told: &NotificationInfo) -> Value {
    json!({
        "name": told.name,
        "summary": told.summary,
        "params": { "$ref": format!("#/components/schemas/{}", told.params_name) },
        "errors": references(told.errors),
    })
}

/// Kinds of errors, by what the components have under their names.
fn references(kinds: &[ErrorKind]) -> Value {
    kinds.iter().map(|kind| json!({ "$ref": format!("#/components/errors/{}", kind.name()) })).collect()
}

/// A pairing of parameters and result as OpenRPC has it; the result is left to the reader's daemon.
fn example_of(method: &MethodInfo) -> Value {
    let value = |(name, value): (String, Value)| json!({ "name": name, "value": value });
    let parameters: Vec<_> = example::sampled(&method.example).into_iter().map(value).collect();
    json!({ "name": method.name, "params": parameters })
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
    })
}

/// An error object of OpenRPC, under the kind that stands in `data`.
fn error(kind: ErrorKind) -> (String, Value) {
    let (code, name) = kind.code_and_name();
    (name.to_owned(), json!({ "code": code, "message": name.replace('_', " ") }))
}
