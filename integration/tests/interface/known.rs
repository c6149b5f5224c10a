//! What a caller has seen of a node, by the names of the parameters that take it: so that calls mean something that is there.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;

/// Of one name, the newest so many.
const MOST: usize = 12;

/// Fields of answers, and the parameters that they fit.
const FITS: [(&str, &str); 13] = [
    ("node_id", "node_id"),
    ("channel_id", "channel_id"),
    ("payment_id", "payment_id"),
    ("payment_hash", "payment_hash"),
    ("invoice", "invoice"),
    ("next", "after"),
    ("outpoint", "after"),
    ("subscription_id", "subscription_id"),
    ("short_channel_id", "short_channel_id"),
    ("op_id", "op_id"),
    ("txid", "txid"),
    ("funding_txid", "txid"),
    ("closing_txid", "txid"),
];

/// Values that calls can be made of.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<BTreeMap<String, Vec<String>>>);

impl Known {
    /// Takes note of a value for the parameters of this name.
    pub(crate) fn note(&self, name: &str, value: &str) {
        let mut known = self.0.lock().expect("nobody panics with it");
        let values = known.entry(name.to_owned()).or_default();
        if !values.iter().any(|known| known == value) {
            values.push(value.to_owned());
            if values.len() > MOST {
                values.remove(0);
            }
        }
    }

    /// Takes note of all that an answer names.
    pub(crate) fn harvest(&self, answer: &Value) {
        match answer {
            Value::Array(items) => items.iter().for_each(|item| self.harvest(item)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    match (field.as_str(), FITS.iter().find(|(field, _)| field == name)) {
                        (Some(text), Some((_, parameter))) => self.note(parameter, text),
                        _ => self.harvest(field),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// One of the values for this name, by a number.
    pub(crate) fn pick(&self, name: &str, number: u64) -> Option<String> {
        let known = self.0.lock().expect("nobody panics with it");
        let values = known.get(name)?;
        let index = usize::try_from(number).unwrap_or_default().checked_rem(values.len())?;
        values.get(index).cloned()
    }
}
