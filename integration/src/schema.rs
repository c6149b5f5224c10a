//! The schema that every call of a test is held against: what was asked, and what was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use outrigger_rpc_schema::{CallError, Refusal, document};
use serde_json::{Map, Value, json};

use crate::Done;

/// The code of a parameter that is unknown, missing or does not fit.
const INVALID_PARAMETER: i32 = -32602;
/// The code of a method that there is not.
const UNKNOWN_METHOD: i32 = -32601;

/// The OpenRPC document, ready to judge calls.
pub struct Schema {
    methods: BTreeMap<String, Described>,
    /// All that there are, whatever has them.
    errors: Errors,
    error_data: Value,
    /// What may be told by itself, under each name.
    notifications: BTreeMap<String, Vec<Told>>,
}

/// Errors, by code and kind.
type Errors = BTreeSet<(i64, String)>;

/// A notification.
#[derive(Clone)]
struct Told {
    params: Value,
    /// The errors that it may have; none where it has none.
    errors: Errors,
}

struct Described {
    parameters: Value,
    result: Value,
    /// The errors that a call of it may be refused with.
    errors: Errors,
}

impl Schema {
    /// The schema of this version of the interface.
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn current() -> &'static Self {
        static CURRENT: LazyLock<Schema> = LazyLock::new(|| {
            Schema::of(&document()).expect("the document has the parts that its own tests find in it")
        });
        &CURRENT
    }

    /// The schema that an OpenRPC document tells.
    pub fn of(document: &Value) -> Done<Self> {
        let (mut methods, mut notifications) = (BTreeMap::new(), BTreeMap::new());
        for method in document["methods"].as_array().ok_or("no methods")? {
            let (mut properties, mut required) = (Map::new(), Vec::new());
            for parameter in method["params"].as_array().ok_or("no parameters")? {
                let name = parameter["name"].as_str().ok_or("a parameter without a name")?;
                properties.insert(name.to_owned(), parameter["schema"].clone());
                if parameter["required"] == true {
                    required.push(name.to_owned());
                }
            }
            let described = Described {
                parameters: json!({ "type": "object", "properties": properties, "required": required }),
                result: method["result"]["schema"].clone(),
                errors: listed(document, &method["errors"])?,
            };
            for told in method["x-notifications"].as_array().into_iter().flatten() {
                let name = told["name"].as_str().ok_or("a notification without a name")?.to_owned();
                let known: &mut BTreeMap<String, Told> = notifications.entry(name).or_default();
                known.insert(told["params"]["$ref"].to_string(), Told::of(document, told)?);
            }
            methods.insert(method["name"].as_str().ok_or("a method without a name")?.to_owned(), described);
        }
        let components = &document["components"];
        let errors = components["errors"].as_object().ok_or("no errors")?;
        let errors = errors.iter().filter_map(|(kind, error)| Some((error["code"].as_i64()?, kind.clone()))).collect();
        let error_data = components["schemas"]["ErrorData"].clone();
        let notifications =
            notifications.into_iter().map(|(name, told)| (name, told.into_values().collect())).collect();
        Ok(Self { methods, errors, error_data, notifications })
    }

    /// What of a call is not as the document tells; nothing where all is. A call that the document does not admit must have been
    /// refused for it. An answer that never came is no fault of the schema's.
    pub fn fault(&self, method: &str, parameters: &Value, answer: &Result<Value, CallError>) -> Option<String> {
        let described = self.methods.get(method);
        let wanted = match described {
            None => Some(UNKNOWN_METHOD),
            Some(described) => complaint(&described.parameters, parameters, "$").map(|_| INVALID_PARAMETER),
        };
        match (answer, wanted) {
            (Ok(_), Some(code)) => Some(format!("{method}: answered, and should be refused with {code}: {parameters}")),
            (Ok(result), None) => self.result_fault(method, result),
            (Err(CallError::Refused(refusal)), wanted) => {
                let data = refusal.data.as_ref().and_then(|data| serde_json::to_value(data).ok()).unwrap_or_default();
                let listed = described.map_or(&self.errors, |described| &described.errors);
                let fault = self.error_fault(refusal.code, &data, listed, wanted);
                fault.map(|fault| format!("{method}: {fault}: {parameters}"))
            }
            (Err(_), _) => None,
        }
    }

    /// The same of an answer as it came over the wire.
    pub fn answer_fault(&self, method: &str, parameters: &Value, answer: &Value) -> Option<String> {
        let error = match answer.get("error") {
            None => return self.fault(method, parameters, &Ok(answer["result"].clone())),
            Some(error) => error,
        };
        let code = error["code"].as_i64().and_then(|code| code.try_into().ok());
        let message = error["message"].as_str().map(str::to_owned);
        let (Some(code), Some(message)) = (code, message) else { return Some(format!("{method}: no error: {answer}")) };
        let Ok(data) = serde_json::from_value(error["data"].clone()) else {
            return Some(format!("{method}: no data of an error: {answer}"));
        };
        self.fault(method, parameters, &Err(CallError::Refused(Refusal { code, message, data })))
    }

    /// What of a method's result is not as the document tells; nothing where all is.
    pub fn result_fault(&self, method: &str, result: &Value) -> Option<String> {
        let Some(described) = self.methods.get(method) else {
            return Some(format!("{method}: there is no such method"));
        };
        let complaint = complaint(&described.result, result, "$")?;
        Some(format!("{method}: its result is not as its schema tells: {complaint}: {result}"))
    }

    /// What of a refusal is not as the document tells, whatever was asked; nothing where all is. `data` is null where there is none.
    pub fn refusal_fault(&self, code: i32, data: &Value) -> Option<String> {
        self.error_fault(code, data, &self.errors, None)
    }

    /// What of a message that came by itself is not as the document tells; nothing where all is. Exactly one of the notifications of
    /// its method must fit, and its error be one that the document lists for it.
    pub fn notice_fault(&self, notice: &Value) -> Option<String> {
        let (name, params) = (notice["method"].as_str().unwrap_or_default(), &notice["params"]);
        if notice["jsonrpc"] != "2.0" || notice.get("id").is_some() {
            return Some(format!("no notification of JSON-RPC: {notice}"));
        }
        let Some(known) = self.notifications.get(name) else {
            return Some(format!("there is no notification {name:?}: {notice}"));
        };
        let complaints: Vec<_> = known.iter().map(|told| complaint(&told.params, params, "$")).collect();
        let mut fitting = known.iter().zip(&complaints).filter(|(_, complaint)| complaint.is_none());
        let (Some((told, _)), None) = (fitting.next(), fitting.next()) else {
            return Some(format!("a notice of {name} does not fit exactly one schema: {complaints:?}: {notice}"));
        };
        let error = params.get("error").map(|error| {
            (error["code"].as_i64().unwrap_or_default(), error["data"]["kind"].as_str().unwrap_or_default().to_owned())
        });
        let listed = error.is_none_or(|error| told.errors.contains(&error));
        (!listed).then(|| format!("a notice of {name} has an error that is not listed: {notice}"))
    }

    /// What of an error is not as the document tells, `listed` being those that there may be, and `wanted` the code that there must be.
    fn error_fault(&self, code: i32, data: &Value, listed: &Errors, wanted: Option<i32>) -> Option<String> {
        if let Some(complaint) = complaint(&self.error_data, data, "$") {
            return Some(format!("the error's data is not as its schema tells: {complaint}: {data}"));
        }
        let kind = data["kind"].as_str().unwrap_or_default();
        if !listed.contains(&(code.into(), kind.to_owned())) {
            return Some(format!("the schema lists no error {code} {kind} for it"));
        }
        let other = wanted.filter(|wanted| *wanted != code);
        other.map(|wanted| format!("refused with {code} {kind}, and should be with {wanted}"))
    }
}

impl Told {
    fn of(document: &Value, told: &Value) -> Done<Self> {
        Ok(Self { params: referred(document, &told["params"])?.clone(), errors: listed(document, &told["errors"])? })
    }
}

/// What a reference within the document refers to.
fn referred<'a>(document: &'a Value, reference: &Value) -> Done<&'a Value> {
    let path = reference["$ref"].as_str().and_then(|path| path.strip_prefix('#')).ok_or("no reference")?;
    Ok(document.pointer(path).ok_or_else(|| format!("{path} is not in the document"))?)
}

/// The errors that a method or a notification lists.
fn listed(document: &Value, references: &Value) -> Done<Errors> {
    let mut errors = Errors::new();
    for reference in references.as_array().ok_or("no list of errors")? {
        let code = referred(document, reference)?["code"].as_i64().ok_or("an error without a code")?;
        let kind = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        errors.insert((code, kind.to_owned()));
    }
    Ok(errors)
}

/// Why a value is not as a schema tells, and where in it; nothing where it is. It takes no field that the schema does not name, and
/// no keyword that it does not know: a schema that it cannot judge by is a fault.
fn complaint(schema: &Value, value: &Value, path: &str) -> Option<String> {
    let Some(keywords) = schema.as_object() else { return Some(format!("{path}: there is no schema")) };
    let mut faults = keywords.iter().filter_map(|(keyword, told)| match keyword.as_str() {
        "title" | "description" | "format" | "default" | "additionalProperties" => None,
        "type" => (!is_of(told, value)).then(|| format!("{path}: is not of type {told}")),
        "const" => (value != told).then(|| format!("{path}: is not {told}")),
        "enum" => (!told.as_array()?.contains(value)).then(|| format!("{path}: is none of {told}")),
        "oneOf" => {
            let fitting = told.as_array()?.iter().filter(|option| complaint(option, value, path).is_none()).count();
            (fitting != 1).then(|| format!("{path}: fits {fitting} of {told}"))
        }
        "minimum" => (value.as_u64() < told.as_u64()).then(|| format!("{path}: is less than {told}")),
        "maximum" => (value.as_u64() > told.as_u64()).then(|| format!("{path}: is more than {told}")),
        "items" => {
            let items = value.as_array()?.iter().enumerate();
            items.filter_map(|(at, item)| complaint(told, item, &format!("{path}[{at}]"))).next()
        }
        "required" => {
            let given = value.as_object()?;
            let missing = told.as_array()?.iter().filter_map(Value::as_str).find(|name| !given.contains_key(*name));
            missing.map(|name| format!("{path}: has no {name}"))
        }
        "properties" => {
            let fields = value.as_object()?.iter();
            fields.filter_map(|(name, field)| complaint(told.get(name)?, field, &format!("{path}.{name}"))).next()
        }
        other => Some(format!("{path}: its schema has {other}, which cannot be judged")),
    });
    faults.next().or_else(|| {
        // An object of which no field is told holds a document of another standard, such as OpenRPC.
        let known = schema.get("properties").and_then(Value::as_object)?;
        let mut names = value.as_object()?.keys();
        names.find(|name| !known.contains_key(*name)).map(|name| format!("{path}: {name} is unknown"))
    })
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use outrigger_rpc_schema::{ErrorData, Refusal};

    use super::*;

    /// What is wrong with a value, of which the first and the last stand for what is right.
    #[test]
    fn a_value_is_judged_by_every_keyword_that_the_document_has() {
        let state = json!({ "oneOf": [{ "const": "open", "type": "string" }, { "const": "shut", "type": "string" }] });
        let item = json!({ "type": "object", "properties": { "state": state, "fee_msat": { "type": "integer" } }, "required": ["state"] });
        let schema = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": { "type": "array", "items": item },
                "limit": { "type": "integer", "format": "uint32", "minimum": 1, "maximum": 1000 },
                "kind": { "type": "string", "enum": ["a", "b"] },
                "is_new": { "type": "boolean" },
            },
        });
        for (value, fault) in [
            (json!({ "items": [] }), None),
            (json!([]), Some("$: is not of type \"object\"")),
            (json!({}), Some("$: has no items")),
            (json!({ "items": {} }), Some("$.items: is not of type \"array\"")),
            (json!({ "items": [{}] }), Some("$.items[0]: has no state")),
            (json!({ "items": [{ "state": "ajar" }] }), Some("$.items[0].state: fits 0 of")),
            (json!({ "items": [{ "state": "open", "more": 1 }] }), Some("$.items[0]: more is unknown")),
            (json!({ "items": [{ "state": "open", "fee_msat": -1 }] }), Some("$.items[0].fee_msat: is not of type")),
            (json!({ "items": [{ "state": "open", "fee_msat": 1.5 }] }), Some("$.items[0].fee_msat: is not of type")),
            (json!({ "items": [{ "state": "open", "fee_msat": null }] }), Some("$.items[0].fee_msat: is not of type")),
            (json!({ "items": [], "limit": 0 }), Some("$.limit: is less than 1")),
            (json!({ "items": [], "limit": 1001 }), Some("$.limit: is more than 1000")),
            (json!({ "items": [], "kind": "c" }), Some("$.kind: is none of")),
            (json!({ "items": [], "is_new": "true" }), Some("$.is_new: is not of type")),
            (
                json!({ "items": [{ "state": "shut", "fee_msat": 1 }], "limit": 1000, "kind": "b", "is_new": true }),
                None,
            ),
        ] {
            let found = complaint(&schema, &value, "$");
            let is_expected = found.as_deref().unwrap_or_default().starts_with(fault.unwrap_or_default());
            assert!(is_expected && found.is_some() == fault.is_some(), "{value}: {found:?}");
        }
        let odd = json!({ "type": "object", "anyOf": [] });
        assert_eq!(
            complaint(&odd, &json!({}), "$").as_deref(),
            Some("$: its schema has anyOf, which cannot be judged")
        );
    }

    fn refused(code: i32, kind: &str) -> Result<Value, CallError> {
        let data = ErrorData {
            kind: kind.to_owned(),
            retryable: false,
            hint: "None.".to_owned(),
            parameter: None,
            after_seq: None,
        };
        Err(CallError::Refused(Refusal { code, message: "no".to_owned(), data: Some(Box::new(data)) }))
    }

    #[test]
    fn a_notice_is_judged_by_the_one_schema_that_it_fits() {
        let event = json!({ "seq": 1, "at": 2, "kind": "invoice_paid" });
        let error = |code: i64, kind: &str| json!({ "code": code, "message": "no", "data": { "kind": kind, "retryable": true, "hint": "Wait." } });
        let fault = |params: Value| {
            let notice = json!({ "jsonrpc": "2.0", "method": "event.subscribe", "params": params });
            Schema::current().notice_fault(&notice).unwrap_or_default()
        };
        assert_eq!(fault(json!({ "subscription_id": "1", "event": event })), "");
        assert_eq!(fault(json!({ "subscription_id": "1", "error": error(1702, "event_behind") })), "");
        for wrong in [
            json!({ "event": event }),
            json!({ "subscription_id": 1, "event": event }),
            json!({ "subscription_id": "1" }),
            json!({ "subscription_id": "1", "event": event, "error": error(1702, "event_behind") }),
            json!({ "subscription_id": "1", "event": { "seq": 1, "at": 2, "kind": "no_such_kind" } }),
            json!({ "subscription_id": "1", "event": event, "more": 1 }),
        ] {
            assert!(fault(wrong.clone()).contains("does not fit exactly one schema"), "{wrong}");
        }
        for (code, kind) in [(1701, "event_behind"), (1401, "channel_not_found")] {
            let told = fault(json!({ "subscription_id": "1", "error": error(code, kind) }));
            assert!(told.contains("not listed"), "{told}");
        }
        let other = json!({ "jsonrpc": "2.0", "method": "event.list", "params": {} });
        assert!(Schema::current().notice_fault(&other).is_some_and(|fault| fault.contains("no notification")));
        let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": "event.subscribe", "params": {} });
        assert!(Schema::current().notice_fault(&asked).is_some());
    }

    #[test]
    fn a_document_whose_method_lists_an_error_that_is_not_there_or_lists_none_is_no_schema() {
        let of = |errors: Value| {
            let mut document = document();
            document["methods"][0]["errors"] = errors;
            Schema::of(&document).err().map(|fault| fault.to_string()).unwrap_or_default()
        };
        let reference = |kind: &str| json!([{ "$ref": format!("#/components/errors/{kind}") }]);
        assert_eq!(of(reference("internal")), "");
        assert_eq!(of(reference("no_such_kind")), "/components/errors/no_such_kind is not in the document");
        assert_eq!(of(Value::Null), "no list of errors");
    }

    #[test]
    fn a_call_is_judged_with_its_answer() {
        let fault = |method: &str, parameters: Value, answer| Schema::current().fault(method, &parameters, &answer);
        let address = json!({ "address": "bcrt1q" });
        assert_eq!(fault("wallet.new_address", json!({}), Ok(address.clone())), None);
        let answered = fault("wallet.new_address", json!({ "more": 1 }), Ok(address.clone())).expect("a fault");
        assert!(answered.contains("answered, and should be refused with -32602"), "{answered}");
        assert!(fault("wallet.old_address", json!({}), Ok(address)).is_some());
        assert!(fault("wallet.new_address", json!({}), Ok(json!({ "address": 1 }))).is_some());

        let (get, wrong) = (json!({ "channel_id": "00" }), json!({ "channel_id": 0 }));
        assert_eq!(fault("channel.get", get.clone(), refused(1401, "channel_not_found")), None);
        assert_eq!(fault("channel.get", get.clone(), refused(-32602, "invalid_parameter")), None, "by its meaning");
        assert_eq!(fault("channel.get", wrong.clone(), refused(-32602, "invalid_parameter")), None);
        assert!(fault("channel.get", wrong, refused(1401, "channel_not_found")).is_some());
        assert!(fault("channel.get", get.clone(), refused(1402, "channel_not_found")).is_some(), "another kind's code");
        assert!(fault("channel.get", get.clone(), refused(1401, "no_such_kind")).is_some());
        // Each is an error of the interface, and of another method.
        for (method, code, kind) in [
            ("channel.list", 1401, "channel_not_found"),
            ("channel.get", 1601, "payment_not_found"),
            ("node.status", 1001, "starting"),
        ] {
            let asked = if method == "channel.get" { get.clone() } else { json!({}) };
            let told = fault(method, asked, refused(code, kind)).expect("a fault");
            assert!(told.contains(&format!("the schema lists no error {code} {kind} for it")), "{told}");
        }
        for (code, kind) in [
            (-32602, "invalid_parameter"),
            (-32603, "internal"),
            (1802, "auth_token_ended"),
            (1803, "auth_scope_missing"),
        ] {
            assert_eq!(fault("node.status", json!({}), refused(code, kind)), None, "any method may have it");
        }
        assert!(fault("channel.get", get, refused(-32601, "unknown_method")).is_some(), "there is one");
        assert_eq!(fault("channel.fetch", json!({}), refused(-32601, "unknown_method")), None);
        assert!(fault("channel.fetch", json!({}), refused(-32603, "internal")).is_some());
    }
}
