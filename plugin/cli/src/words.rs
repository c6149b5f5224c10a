//! From `name=value` to the parameters of a call, by the types that the schema gives them.

use outrigger_rpc_schema::{MethodInfo, ParameterFault, ParameterType};
use serde_json::{Map, Value};

use crate::fault::Fault;

/// The parameters that the words stand for, checked against the schema.
pub(crate) fn parameters(method: &MethodInfo, words: &[String]) -> Result<Map<String, Value>, Fault> {
    let mut parameters = Map::new();
    for word in words {
        let (name, text) = match (word.split_once('='), &*method.parameters) {
            (Some((name, text)), _) => (name, text),
            // bitcoind's blocknotify has a place for the hash alone.
            (None, [only]) => (&*only.name, &**word),
            (None, _) => {
                return Err(Fault::Usage(format!("{word:?} is not name=value; outrigger-cli {} --help", method.name)));
            }
        };
        let value = match method.parameter(name) {
            None => Value::String(text.to_owned()),
            Some(parameter) => value(&parameter.kind, text).ok_or_else(|| ParameterFault::Unfit {
                parameter: name.to_owned(),
                expected: parameter.kind.to_string(),
            })?,
        };
        if parameters.insert(name.to_owned(), value).is_some() {
            return Err(Fault::Usage(format!("parameter {name} is given twice")));
        }
    }
    method.check(&parameters)?;
    Ok(parameters)
}

/// The value that a text stands for, if it is of the type.
fn value(kind: &ParameterType, text: &str) -> Option<Value> {
    match kind {
        ParameterType::Integer { .. } => text.parse::<u64>().ok().map(Value::from),
        ParameterType::Boolean => text.parse::<bool>().ok().map(Value::from),
        ParameterType::Text | ParameterType::Choice(_) => Some(Value::from(text)),
        // What has structure is written as JSON.
        ParameterType::Object(_) => serde_json::from_str(text).ok(),
        ParameterType::List(element) if matches!(**element, ParameterType::Object(_)) => {
            serde_json::from_str(text).ok()
        }
        ParameterType::List(element) => {
            text.split(',').filter(|text| !text.is_empty()).map(|text| value(element, text)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(method: &str, words: &[&str]) -> Result<Value, String> {
        let method = MethodInfo::named(method).expect("a method");
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parameters(method, &words).map(Value::Object).map_err(|fault| fault.to_string())
    }

    #[test]
    fn values_have_the_types_of_the_schema() {
        let open = ["node_id=02", "funding_sat=100000", "idempotency_key=1", "announce=true"];
        let expected = json!({ "node_id": "02", "funding_sat": 100_000, "idempotency_key": "1", "announce": true });
        assert_eq!(read("channel.open", &open), Ok(expected));
        let events = read("event.list", &["kinds=channel_ready,invoice_paid", "after_seq=18446744073709551615"]);
        assert_eq!(events, Ok(json!({ "kinds": ["channel_ready", "invoice_paid"], "after_seq": u64::MAX })));
        assert_eq!(read("invoice.create", &["description=a=b"]), Ok(json!({ "description": "a=b" })));
    }

    #[test]
    fn the_only_parameter_of_a_method_may_stand_alone() {
        let named = read("chain.notify_block", &["block_hash=00ff"]);
        assert_eq!(named, Ok(json!({ "block_hash": "00ff" })));
        assert_eq!(read("chain.notify_block", &["00ff"]), named);
        let twice = read("chain.notify_block", &["00ff", "block_hash=00ff"]).expect_err("is refused");
        assert!(twice.starts_with("error: parameter block_hash is given twice"), "{twice}");
        let none = read("node.status", &["00ff"]).expect_err("is refused");
        assert!(none.starts_with("error: \"00ff\" is not name=value"), "{none}");
    }

    #[test]
    fn bad_input_82_the_bad_parameter_is_named() {
        for (words, message) in [
            (&["funding_sat=-1"][..], "error: parameter funding_sat must be a whole number from 0 to"),
            (&["funding_sat=1.5"], "error: parameter funding_sat must be a whole number"),
            (&["funding_sat=18446744073709551616"], "error: parameter funding_sat must be a whole number"),
            (&["announce=yes"], "error: parameter announce must be true or false"),
            (&["fundng_sat=1"], "error: unknown parameter \"fundng_sat\"; did you mean funding_sat?"),
            (&["announce=true", "announce=true"], "error: parameter announce is given twice"),
            (&["100000"], "error: \"100000\" is not name=value; outrigger-cli channel.open --help"),
            (&["funding_sat=1", "idempotency_key=a"], "error: missing parameter node_id"),
        ] {
            let fault = read("channel.open", words).expect_err("is refused");
            assert!(fault.starts_with(message), "{words:?}: {fault}");
        }
    }
}
