//! What the check of a call's parameters lets through, and what it names when it does not.
#![expect(clippy::expect_used, reason = "a test stops at its first surprise")]

use outrigger_rpc_schema::{ChannelOpen, Method, MethodInfo, ParameterFault, ParameterType, PaymentSend};
use serde_json::{Map, Value, json};

fn check(method: &str, parameters: Value) -> Result<(), ParameterFault> {
    let parameters: Map<String, Value> = serde_json::from_value(parameters).expect("an object");
    MethodInfo::named(method).expect("a method").check(&parameters)
}

#[test]
fn bad_input_82_wrong_amounts_are_refused_by_name() {
    for wrong in [json!(-1), json!(1.5), json!("1000"), json!(18_446_744_073_709_551_616.0), Value::Null, json!([])] {
        let fault = check("payment.send", json!({ "invoice": "lnbcrt1", "amount_msat": wrong })).unwrap_err();
        assert_eq!(fault.parameter(), "amount_msat");
        assert_eq!(
            fault.to_string(),
            "parameter amount_msat must be a whole number from 1 to 18446744073709551615",
            "given {wrong}"
        );
    }
    assert_eq!(check("payment.send", json!({ "invoice": "lnbcrt1", "amount_msat": u64::MAX })), Ok(()));
}

#[test]
fn bad_input_82_unknown_parameter_is_refused_by_name_with_the_one_meant() {
    let fault = check("invoice.create", json!({ "description": "", "amount_sat": 1 })).unwrap_err();
    assert_eq!(fault.to_string(), r#"unknown parameter "amount_sat"; did you mean amount_msat?"#);
    let fault = check("node.status", json!({ "verbose": true })).unwrap_err();
    assert_eq!(fault.to_string(), r#"unknown parameter "verbose""#);
}

#[test]
fn bad_input_82_missing_parameter_is_refused_by_name() {
    let fault = check("channel.open", json!({ "node_id": "02", "funding_sat": 100_000 })).unwrap_err();
    assert_eq!(fault.to_string(), "missing parameter idempotency_key");
}

#[test]
fn limits_of_the_schema_are_checked() {
    for (limit, fits) in [(0, false), (1, true), (1000, true), (1001, false)] {
        assert_eq!(check("event.list", json!({ "limit": limit })).is_ok(), fits, "limit {limit}");
    }
    assert_eq!(check("event.list", json!({ "kinds": ["channel_ready", "invoice_paid"] })), Ok(()));
    let fault = check("event.list", json!({ "kinds": ["channel_ready", "cake"] })).unwrap_err();
    assert_eq!(fault.parameter(), "kinds");
    let fault = check("channel.list", json!({ "state": "open" })).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "parameter state must be one of funding, normal, shutting_down, closing, closed, failed, frozen"
    );
}

#[test]
fn types_are_read_out_of_the_schema() {
    let open = MethodInfo::named(ChannelOpen::NAME).expect("a method");
    let kind = |name: &str| open.parameter(name).map(|parameter| (parameter.required, parameter.kind.clone()));
    assert_eq!(kind("funding_sat"), Some((true, ParameterType::Integer { min: 0, max: u64::MAX })));
    assert_eq!(kind("feerate_sat_per_vb"), Some((false, ParameterType::Integer { min: 1, max: u32::MAX.into() })));
    assert_eq!(kind("announce"), Some((false, ParameterType::Boolean)));
    assert_eq!(kind("node_id"), Some((true, ParameterType::Text)));
}

#[test]
fn a_typed_call_passes_the_check_and_leaves_out_what_has_no_value() {
    let call = PaymentSend { invoice: Some("lnbcrt1".to_owned()), ..Default::default() };
    let parameters = serde_json::to_value(&call).expect("serializes");
    assert_eq!(parameters, json!({ "invoice": "lnbcrt1" }));
    assert_eq!(check(PaymentSend::NAME, parameters), Ok(()));
}
