//! The checked-in OpenRPC document and the rules that its names keep.

use std::collections::BTreeSet;
use std::path::Path;

use outrigger_rpc_schema::{ErrorKind, document, methods};
use serde_json::Value;

/// Units that an integer carries at the end of its name.
const UNITS: [&str; 10] =
    ["_msat", "_sat", "_sat_per_vb", "_at", "_height", "_blocks", "_secs", "_seq", "_bytes", "_micros"];

/// Integers that count things or order them, and so have no unit.
const COUNTS: [&str; 20] = [
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

#[test]
fn rpc_11_checked_in_document_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openrpc.json");
    let current = format!("{:#}\n", document());
    if std::env::var_os("UPDATE_OPENRPC").is_some() {
        std::fs::write(&path, &current).expect("openrpc.json can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("openrpc.json can be read");
    assert!(
        kept == current,
        "openrpc.json is stale; if the change is wanted: UPDATE_OPENRPC=1 cargo test -p outrigger-rpc-schema"
    );
}

#[test]
fn methods_are_those_of_the_release_and_named_group_verb() {
    let names: Vec<&str> = methods().iter().map(|method| method.name).collect();
    let release = "node.info node.status node.stop chain.status wallet.balance wallet.new_address peer.connect \
                   peer.list channel.open channel.list channel.get channel.close channel.force_close channel.set_policy \
                   invoice.create invoice.get payment.send payment.wait payment.get \
                   payment.abandon forward.list forward.stats backup.status event.list";
    assert_eq!(names.join(" "), release);
}

#[test]
fn only_methods_that_commit_money_refuse_notifications() {
    let paying: Vec<&str> = methods().iter().filter(|method| method.moves_money).map(|method| method.name).collect();
    assert_eq!(paying, ["channel.open", "channel.close", "channel.force_close", "payment.send"]);
}

#[test]
fn every_integer_carries_its_unit_and_no_field_is_a_bare_amount() {
    each_field(|path, name, schema| {
        assert!(name != "amount" && name != "fee" && name != "feerate", "{path}: no unit");
        if schema.get("type") == Some(&Value::from("integer")) {
            let unit = UNITS.iter().any(|unit| name.ends_with(unit));
            assert!(unit || COUNTS.contains(&name), "{path}: an integer without a unit in its name");
        }
        assert_ne!(schema.get("type"), Some(&Value::from("number")), "{path}: not a whole number");
    });
}

#[test]
fn every_field_and_method_is_described() {
    each_field(|path, _, schema| {
        let text = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        assert!(text.len() > 5, "{path}: not described");
    });
    for method in methods() {
        assert!(method.summary.len() > 10, "{}: not described", method.name);
    }
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
        ("storage_", 1900),
    ];
    for kind in ErrorKind::ALL {
        for (prefix, band) in bands.iter().filter(|(prefix, _)| kind.name().starts_with(prefix)) {
            assert_eq!(kind.code() / 100 * 100, *band, "{} belongs to {prefix}", kind.name());
        }
    }
}

/// Visits each named field of every parameter and result: its path, its name, its schema.
fn each_field(mut visit: impl FnMut(&str, &str, &Value)) {
    for method in methods() {
        for parameter in &method.parameters {
            let path = format!("{}({})", method.name, parameter.name);
            visit(&path, &parameter.name, &parameter.schema);
            fields_below(&path, &parameter.schema, &mut visit);
        }
        fields_below(method.name, method.result.as_value(), &mut visit);
    }
}

fn fields_below(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &str, &Value)) {
    if let Some(items) = schema.get("items") {
        fields_below(&format!("{path}[]"), items, visit);
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, name, field);
        fields_below(&path, field, visit);
    }
}
