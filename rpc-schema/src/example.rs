//! Examples of calls: as they stand with a method, with variables of a shell, and as the document gives them, with samples.

use serde_json::{Map, Value};

/// What stands for a variable where no shell puts in the reader's own.
const SAMPLES: [(&str, &str); 9] = [
    ("$node_id", "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619"),
    ("$peer_address", "203.0.113.7:9735"),
    ("$bitcoin_address", "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x"),
    ("$channel_id", "77a1c94f1e7b3d5f0a2c4e6880b2d4f6183a5c7e90b1d3f5274a6c8eb0d2f416"),
    ("$op_id", "019ac3f2a1e07d4b6f8091a2b3c4d5e6"),
    ("$payment_hash", "5cb0a7d3e1f24896b8d0c2e4f6081a3c5e7092b4d6f8193b5d7fa1c3e507294b"),
    ("$payment_id", "5cb0a7d3e1f24896b8d0c2e4f6081a3c5e7092b4d6f8193b5d7fa1c3e507294b"),
    ("$txid", "9f0c6b2d4e8a1357c9e0b2d4f6183a5c7e90b1d3f5274a6c8eb0d2f41677a1c9"),
    ("$invoice", "lnbcrt1m1exampleofaninvoice"),
];

/// The parameters of an example, samples in the place of variables. A variable without a sample stays, and a test names it.
pub(crate) fn sampled(example: &Map<String, Value>) -> Map<String, Value> {
    example.iter().map(|(name, value)| (name.clone(), sample(value))).collect()
}

fn sample(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let sample =
                SAMPLES.iter().find(|(variable, _)| variable == text).map_or(text.as_str(), |(_, sample)| sample);
            Value::from(sample)
        }
        Value::Array(items) => items.iter().map(sample).collect(),
        Value::Object(fields) => Value::Object(sampled(fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}
