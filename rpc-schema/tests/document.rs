//! The checked-in OpenRPC document and the rules that its names keep.
#![expect(clippy::expect_used, clippy::panic, reason = "a test stops at its first surprise")]

use std::collections::BTreeSet;
use std::path::Path;

use outrigger_rpc_schema::{
    ErrorKind, EventNotice, EventsEnded, Scope, document, methods, notifications, reference, typescript,
};
use serde_json::{Map, Value, json};

/// Units that an integer carries at the end of its name.
const UNITS: [&str; 10] =
    ["_msat", "_sat", "_sat_per_vb", "_at", "_height", "_blocks", "_secs", "_seq", "_bytes", "_micros"];

/// Integers that count things or order them, and so have no unit.
const COUNTS: [&str; 28] = [
    "code",
    "calls",
    "calls_at_once",
    "calls_now",
    "calls_peak",
    "errors",
    "turns",
    "protocol",
    "held_events",
    "lag_updates",
    "stalled_channels",
    "commits",
    "rows",
    "peers",
    "channels",
    "route_hints",
    "htlcs",
    "commitment_number",
    "limit",
    "seq",
    "at",
    "settled",
    "refused",
    "failed",
    "pending",
    "incoming",
    "outgoing",
    "fee_proportional_millionths",
];

/// What is made from the types and checked in, by its path from this crate.
fn made() -> [(&'static str, String); 3] {
    [
        ("openrpc.json", format!("{:#}\n", document())),
        ("REFERENCE.md", reference()),
        ("../contrib/typescript/src/interface.ts", typescript()),
    ]
}

#[test]
fn rpc_11_checked_in_document_and_what_is_made_with_it_are_current() {
    for (name, current) in made() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE_OPENRPC").is_some() {
            std::fs::write(&path, &current).expect("it can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == current,
            "{name} is stale; if the change is wanted: UPDATE_OPENRPC=1 cargo test -p outrigger-rpc-schema"
        );
    }
}

#[test]
fn every_example_is_a_call_that_the_schema_admits_and_has_samples_for_its_variables() {
    for (method, described) in methods().iter().zip(document()["methods"].as_array().expect("methods")) {
        let example = &described["examples"][0];
        let sample = |value: &Value| (value["name"].as_str().unwrap_or_default().to_owned(), value["value"].clone());
        let sampled: Map<String, Value> =
            example["params"].as_array().expect("parameters").iter().map(sample).collect();
        assert_eq!(method.check(&sampled), Ok(()), "{}: {sampled:?}", method.name);
        assert!(!example.to_string().contains('$'), "{}: a variable without a sample in example.rs", method.name);
        let names = |parameters: &Map<String, Value>| parameters.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&sampled), names(&method.example), "{}", method.name);
        let wide = !method.parameters.is_empty() && method.example.is_empty();
        assert!(!wide, "{}: an example without parameters shows nothing of them", method.name);
    }
}

#[test]
fn methods_are_those_of_the_release_and_named_group_verb() {
    let names: Vec<&str> = methods().iter().map(|method| method.name).collect();
    let release = "rpc.discover plugin.manifest plugin.init node.info node.status node.stop node.config_get node.log_level chain.status chain.feerates chain.notify_block \
                   wallet.balance wallet.new_address wallet.send wallet.wait wallet.utxos peer.connect peer.disconnect \
                   peer.list channel.open channel.open_wait channel.list channel.get channel.wait channel.close channel.force_close channel.set_policy \
                   invoice.create invoice.get invoice.list invoice.decode payment.send payment.wait payment.get payment.list \
                   payment.abandon forward.list forward.stats backup.status event.list event.subscribe event.unsubscribe token.create token.list token.revoke";
    assert_eq!(names.join(" "), release);
}

#[test]
fn only_methods_that_commit_money_refuse_notifications() {
    let paying: Vec<&str> = methods().iter().filter(|method| method.moves_money).map(|method| method.name).collect();
    assert_eq!(paying, ["wallet.send", "channel.open", "channel.close", "channel.force_close", "payment.send"]);
}

#[test]
fn every_integer_carries_its_unit_and_no_field_is_a_bare_amount() {
    let fields = fields(&document());
    assert!(fields.len() > 100, "{} fields are few", fields.len());
    assert_eq!(fields.iter().filter_map(unit_fault).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn every_field_and_method_is_described() {
    assert_eq!(fields(&document()).iter().filter_map(description_fault).collect::<Vec<_>>(), Vec::<String>::new());
    for method in methods() {
        assert!(method.summary.len() > 10, "{}: not described", method.name);
    }
}

/// The two tests above would pass where the walk came by nothing, or asked nothing of what it came by.
#[test]
fn a_document_that_breaks_the_rules_is_found_out() {
    let integer = |description: &str| json!({ "type": "integer", "description": description });
    let deep = json!({ "type": "array", "items": { "type": "object", "properties": {
        "height": integer("Not one of the units."), "paid_msat": integer(""), "at": integer("In unix seconds."),
    } } });
    let choice = json!({ "description": "A kind.", "oneOf": [{ "const": "one", "description": "One of it." }, { "const": "two" }] });
    let broken = json!({
        "methods": [{
            "name": "a.b",
            "params": [
                { "name": "amount", "description": "Whole.", "schema": { "type": "string", "description": "A text." } },
                { "name": "ratio", "description": "Whole.", "schema": { "type": "number", "description": "A ratio." } },
                { "name": "sums", "description": "Whole.",
                  "schema": { "type": "array", "description": "Of numbers.", "items": { "type": "integer" } } },
            ],
            "result": { "name": "B", "schema": { "type": "object", "properties": { "rows_of": deep, "kind": choice } } },
        }],
        "components": { "schemas": { "C": { "type": "object", "properties": { "count": integer("How many.") } } } },
    });
    let fields = fields(&broken);
    assert_eq!(
        fields.iter().filter_map(unit_fault).collect::<Vec<_>>(),
        [
            "a.b(amount): no unit",
            "a.b(ratio): not a whole number",
            "a.b(sums): an integer without a unit in its name",
            "a.b.rows_of[].height: an integer without a unit in its name",
            "C.count: an integer without a unit in its name",
        ]
    );
    assert_eq!(
        fields.iter().filter_map(description_fault).collect::<Vec<_>>(),
        ["a.b.kind: not described: two", "a.b.rows_of: not described", "a.b.rows_of[].paid_msat: not described"]
    );
}

#[test]
#[should_panic(expected = "a.b.x: patternProperties is not looked into")]
fn a_schema_that_the_walk_does_not_know_is_not_passed_over() {
    let odd = json!({ "type": "object", "patternProperties": { ".*": { "type": "integer" } } });
    let result = json!({ "type": "object", "properties": { "x": odd } });
    let method = json!({ "name": "a.b", "params": [], "result": { "name": "B", "schema": result } });
    fields(&json!({ "methods": [method], "components": { "schemas": {} } }));
}

#[test]
fn every_result_is_an_object_and_nothing_is_nullable() {
    for method in methods() {
        assert_eq!(method.result.get("type"), Some(&Value::from("object")), "{}", method.name);
    }
    assert!(!document().to_string().contains(r#""null""#));
}

#[test]
fn error_kinds_have_names_of_their_own_and_codes_in_their_bands() {
    let names: BTreeSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), ErrorKind::ALL.len());
    let domain: Vec<i32> = ErrorKind::ALL.iter().map(|kind| kind.code()).filter(|code| *code > 0).collect();
    let codes: BTreeSet<i32> = domain.iter().copied().collect();
    assert_eq!(codes.len(), domain.len());
    let bands = [
        ("chain_", 1100),
        ("bitcoind_", 1100),
        ("wallet_", 1200),
        ("peer_", 1300),
        ("channel_", 1400),
        ("invoice_", 1500),
        ("payment_", 1600),
        ("event_", 1700),
        ("auth_", 1800),
        ("storage_", 1900),
    ];
    for kind in ErrorKind::ALL {
        for (prefix, band) in bands.iter().filter(|(prefix, _)| kind.name().starts_with(prefix)) {
            assert_eq!(kind.code() / 100 * 100, *band, "{} belongs to {prefix}", kind.name());
        }
    }
}

/// A client is made from the document alone: it learns there what a call may be refused with, and of nothing that is never said.
#[test]
fn every_method_lists_its_errors_and_every_error_belongs_to_something() {
    let document = document();
    let mut belongs: BTreeSet<&str> = ErrorKind::BEFORE_ANY_METHOD.iter().map(|kind| kind.name()).collect();
    belongs.extend(notifications().iter().flat_map(|told| told.errors).map(|kind| kind.name()));
    for (method, told) in methods().iter().zip(document["methods"].as_array().expect("methods")) {
        let code = |error: &Value| {
            let path = error["$ref"].as_str().expect("a reference").strip_prefix('#').expect("within the document");
            document.pointer(path).unwrap_or_else(|| panic!("{path} is not there"))["code"].as_i64().expect("a code")
        };
        let codes: Vec<i64> = told["errors"].as_array().expect("a list").iter().map(code).collect();
        assert_eq!(
            codes,
            method.errors.iter().map(|kind| i64::from(kind.code())).collect::<Vec<_>>(),
            "{}",
            method.name
        );
        // OpenRPC wants them told apart by their codes.
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len(), "{}: {codes:?}", method.name);
        let lists = |kind: &ErrorKind| method.errors.contains(kind);
        assert!(ErrorKind::OF_ANY_METHOD.iter().all(lists), "{}", method.name);
        assert!(!ErrorKind::BEFORE_ANY_METHOD.iter().any(lists), "{}", method.name);
        assert_eq!(lists(&ErrorKind::NotificationRefused), method.moves_money, "{}", method.name);
        belongs.extend(method.errors.iter().map(|kind| kind.name()));
    }
    assert_eq!(belongs, ErrorKind::ALL.iter().map(|kind| kind.name()).collect());
}

/// A named value of the interface.
struct Field {
    path: String,
    name: String,
    schema: Value,
}

fn unit_fault(Field { path, name, schema }: &Field) -> Option<String> {
    if ["amount", "fee", "feerate"].contains(&name.as_str()) {
        return Some(format!("{path}: no unit"));
    }
    // A list's name tells the unit of what is in it.
    let kind = schema.get("items").unwrap_or(schema).get("type").and_then(Value::as_str);
    let has_unit = UNITS.iter().any(|unit| name.ends_with(unit)) || COUNTS.contains(&name.as_str());
    match kind {
        Some("number") => Some(format!("{path}: not a whole number")),
        Some("integer") if !has_unit => Some(format!("{path}: an integer without a unit in its name")),
        Some(_) | None => None,
    }
}

fn description_fault(Field { path, schema, .. }: &Field) -> Option<String> {
    let is_described =
        |schema: &Value| schema.get("description").and_then(Value::as_str).is_some_and(|text| text.len() > 5);
    if !is_described(schema) {
        return Some(format!("{path}: not described"));
    }
    let inner = schema.get("items").unwrap_or(schema);
    let mut options = inner.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    options.find(|option| !is_described(option)).map(|option| {
        format!("{path}: not described: {}", option.get("const").and_then(Value::as_str).unwrap_or_default())
    })
}

/// Each named field of every parameter, result and component of a document.
fn fields(document: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    for method in document["methods"].as_array().expect("methods") {
        let method_name = method["name"].as_str().expect("a name");
        for parameter in method["params"].as_array().expect("parameters") {
            let name = parameter["name"].as_str().expect("a name");
            field(format!("{method_name}({name})"), name, &parameter["schema"], &mut found);
        }
        below(method_name, &method["result"]["schema"], &mut found);
    }
    for (name, schema) in document["components"]["schemas"].as_object().expect("components") {
        below(name, schema, &mut found);
    }
    found
}

fn field(path: String, name: &str, schema: &Value, found: &mut Vec<Field>) {
    found.push(Field { path: path.clone(), name: name.to_owned(), schema: schema.clone() });
    below(&path, schema, found);
}

/// The fields inside a schema. What it does not know it does not pass over: fields might be in there.
fn below(path: &str, schema: &Value, found: &mut Vec<Field>) {
    for (keyword, value) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "properties" => value
                .as_object()
                .expect("properties are an object")
                .iter()
                .for_each(|(name, schema)| field(format!("{path}.{name}"), name, schema, found)),
            "items" => below(&format!("{path}[]"), value, found),
            "oneOf" => {
                let is_text = |option: &Value| option.get("const").is_some_and(Value::is_string);
                assert!(
                    value.as_array().is_some_and(|options| options.iter().all(is_text)),
                    "{path}: not of texts alone"
                );
            }
            "additionalProperties" => assert_eq!(value, &json!(false), "{path}: fields without a name"),
            "type" | "title" | "description" | "required" | "format" | "minimum" | "maximum" | "enum" | "default"
            | "const" => {}
            other => panic!("{path}: {other} is not looked into"),
        }
    }
}

#[test]
fn rpc_6_every_method_names_the_scopes_that_allow_it() {
    for method in methods() {
        assert!(!method.scopes.is_empty(), "{}: no token but one of admin could ever call it", method.name);
        let gives_away = ["payment.send", "payment.abandon"].contains(&method.name);
        assert_eq!(method.scopes == [Scope::Pay], gives_away, "{}", method.name);
        let of_tokens = method.name.starts_with("token.")
            || ["node.stop", "node.log_level", "wallet.send", "channel.force_close", "chain.notify_block"]
                .contains(&method.name);
        assert_eq!(method.scopes == [Scope::Admin], of_tokens, "{}", method.name);
    }
}

/// No method shows or takes a secret of the node's, and none is there for whoever debugs it.
#[test]
fn rpc_9_no_method_is_for_debugging_or_tells_what_the_node_signs_with() {
    for method in methods() {
        let group = method.name.split('.').next();
        let groups = [
            "rpc", "plugin", "node", "chain", "wallet", "peer", "channel", "invoice", "payment", "forward", "event",
            "backup", "token",
        ];
        assert!(group.is_some_and(|group| groups.contains(&group)), "{}", method.name);
    }
    let document = document().to_string().to_lowercase();
    for secret in ["seed", "mnemonic", "xpriv", "private_key", "secret_key", "words"] {
        assert!(!document.contains(&format!("\"{}\":", secret)), "a field is named {secret}");
    }
}

/// A client is made from the document alone: what it refers to is there, and the params of a notice are what the Rust types read.
#[test]
fn notices_of_a_subscription_are_described_by_schemas_of_the_document() {
    let document = document();
    let methods = document["methods"].as_array().expect("methods");
    let beginning: Vec<&Value> = methods.iter().filter(|method| method.get("x-notifications").is_some()).collect();
    let names: Vec<&Value> = beginning.iter().map(|method| &method["name"]).collect();
    assert_eq!(names, ["plugin.init", "event.subscribe"]);
    assert_eq!(beginning[0]["x-notifications"], beginning[1]["x-notifications"]);
    let told = beginning[1]["x-notifications"].as_array().expect("a list");
    assert_eq!(told.len(), notifications().len());
    let resolved = |reference: &Value| {
        let path = reference["$ref"].as_str().expect("a reference").strip_prefix('#').expect("within the document");
        document.pointer(path).unwrap_or_else(|| panic!("{path} is not there")).clone()
    };
    for told in told {
        assert_eq!(told["name"], "event.subscribe");
        assert_eq!(resolved(&told["params"])["type"], "object");
        told["errors"].as_array().expect("a list").iter().for_each(|error| assert!(resolved(error)["code"].is_i64()));
    }
    let required = |told: &Value| resolved(&told["params"])["required"].clone();
    assert_eq!(required(&told[0]), json!(["subscription_id", "event"]));
    assert_eq!(required(&told[1]), json!(["subscription_id", "error"]));
    let last = json!({ "subscription_id": "1", "error": {
        "code": 1702, "message": "The reader is too slow.",
        "data": { "kind": "event_behind", "retryable": true, "hint": "Read faster.", "after_seq": 7 },
    } });
    let read: EventNotice = serde_json::from_value(last.clone()).expect("is read");
    let EventNotice::Ended(EventsEnded { error, .. }) = &read else { panic!("{read:?}") };
    assert_eq!(error.data.after_seq, Some(7));
    assert_eq!(serde_json::to_value(&read).expect("is written"), last);
    let kinds: Vec<(u32, &str)> = notifications()[1]
        .errors
        .iter()
        .map(|kind| (u32::try_from(kind.code()).expect("of a band"), kind.name()))
        .collect();
    assert!(kinds.contains(&(error.code, error.data.kind.as_str())), "{kinds:?}");
}

/// Scripts go by the version with which a method came, and by the one in which it is to be replaced.
#[test]
fn rpc_11_every_method_tells_with_which_version_it_came() {
    let number = |version: &str| -> Vec<u32> {
        version.split('.').map(|part| part.parse().expect("versions are three numbers")).collect()
    };
    let here = number(env!("CARGO_PKG_VERSION"));
    let document = document();
    let told = document["methods"].as_array().expect("methods");
    assert_eq!(told.len(), methods().len());
    for (method, told) in methods().iter().zip(told) {
        let added = number(method.added_in);
        assert!(added.len() == 3 && added <= here, "{}", method.name);
        assert_eq!(told["x-added-in"], method.added_in);
        assert_eq!(told["deprecated"], method.deprecated_in.is_some());
        assert_eq!(told.get("x-deprecated-in").and_then(Value::as_str), method.deprecated_in);
        if let Some(deprecated) = method.deprecated_in.map(number) {
            assert!(added < deprecated && deprecated <= here, "{}", method.name);
        }
    }
}
