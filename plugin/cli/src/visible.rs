//! What others wrote, on the way to a terminal or a file (RPC-10).

pub(crate) use outrigger_rpc_schema::visible::{json, text};

/// The same of a text that has lines of its own.
pub(crate) fn lines(words: &str) -> String {
    words.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use outrigger_rpc_schema::visible::steers;
    use outrigger_rpc_schema::{CallError, ErrorData, EventList, Method, Refusal, methods};
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::fault::Fault;
    use crate::show;

    const HOSTILE: &str = "a\u{1b}[2Jb\u{202e}c\nid:  7\r\u{9b}31m\u{7f}\t\u{2028}\u{61c}\u{200b}\u{e0041}";

    /// A value of a schema in which each text that has no fixed words is this one.
    fn filled(schema: &Value, text: &str) -> Value {
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words.first().cloned().unwrap_or_default();
        }
        for kind in ["oneOf", "anyOf", "allOf"] {
            let options = schema.get(kind).and_then(Value::as_array).into_iter().flatten();
            if let Some(first) = options.into_iter().find(|option| option["type"] != "null") {
                return filled(first, text);
            }
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().cloned().unwrap_or_default(),
            kind => kind.clone(),
        };
        match kind.as_str() {
            Some("string") => text.into(),
            Some("integer" | "number") => 7.into(),
            Some("boolean") => true.into(),
            Some("array") => json!([filled(&schema["items"], text), filled(&schema["items"], text)]),
            _ => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                Value::Object(fields.map(|(name, schema)| (name.clone(), filled(schema, text))).collect::<Map<_, _>>())
            }
        }
    }

    #[test]
    fn rpc_10_no_field_of_any_result_steers_the_terminal_or_begins_a_line() {
        let mut texts = 0;
        for method in methods() {
            let [hostile, plain] = [HOSTILE, "x"].map(|text| filled(method.result.as_value(), text));
            texts += hostile.to_string().matches("[2J").count();
            // As a table, and a field a line.
            for width in [usize::MAX, 0] {
                let shown = show::result(&hostile, width);
                assert!(!shown.chars().any(|letter| letter != '\n' && steers(letter)), "{}: {shown:?}", method.name);
                let expected = show::result(&plain, width).lines().count();
                assert_eq!(shown.lines().count(), expected, "{}: {shown}", method.name);
            }
            let line = json(&hostile);
            assert!(!line.chars().any(steers), "{}: {line:?}", method.name);
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), hostile);
            if method.name == EventList::NAME {
                let event = &hostile["items"][0];
                assert!(event["message"] == HOSTILE && event["backup"] == HOSTILE, "{event}");
                assert!(!show::event(event).chars().any(steers));
            }
        }
        assert!(texts > 200, "{texts} texts are too few to be all");
    }

    #[test]
    fn rpc_10_no_refusal_and_no_fault_steers_the_terminal_or_begins_a_line() {
        let [kind, hint] = [HOSTILE; 2].map(str::to_owned);
        let data = ErrorData { kind, retryable: true, hint, parameter: None, after_seq: None };
        let refusal = |data| Refusal { code: 1300, message: HOSTILE.to_owned(), data };
        for (fault, lines) in [
            (Fault::Call(CallError::Refused(refusal(Some(Box::new(data))))), 3),
            (Fault::Call(CallError::Refused(refusal(None))), 2),
            (Fault::Call(CallError::Garbled(HOSTILE.replace('\n', ""))), 2),
            (Fault::Call(CallError::Untrusted(HOSTILE.replace('\n', ""))), 1),
        ] {
            let told = fault.told(false);
            assert!(!told.chars().any(|letter| letter != '\n' && steers(letter)), "{told:?}");
            assert_eq!(told.lines().count(), lines, "{told}");
            let told = fault.told(true);
            assert!(!told.chars().any(steers), "{told:?}");
        }
    }
}
