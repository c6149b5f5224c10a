//! Whether sound JSON is JSON-RPC 2.0: one request, or a list of them. What is none is refused in the words of every other refusal,
//! and never taken for a notification because of an id that cannot be given back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jsonrpsee::types::Id;
use serde_json::value::RawValue;

use super::Fault;

/// Stands in a batch for an entry that is no request.
const NO_REQUEST: &str = "{}";

/// Why a message is no request, and the id to answer with.
pub(super) type Refused = (Id<'static>, Fault);

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// The message as it is to be answered. Each entry of a batch is answered by itself; one whose id cannot be given back becomes one that
/// is no request to anybody.
pub(super) fn check(message: Vec<u8>) -> Result<Vec<u8>, Refused> {
    match message.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {
            let fields: Fields<'_> = read(&message)?;
            match problem(&fields) {
                None => Ok(message),
                Some(problem) => Err((id(&fields).unwrap_or(Id::Null), Fault::invalid_request(problem))),
            }
        }
        Some(b'[') => {
            let entries: Vec<&RawValue> = read(&message)?;
            if entries.is_empty() {
                return Err((Id::Null, Fault::invalid_request("a batch must not be empty")));
            }
            let checked: Vec<_> = entries.iter().map(|entry| entry_of(entry.get())).collect();
            if checked.iter().all(|entry| matches!(entry, Cow::Borrowed(_))) {
                return Ok(message);
            }
            Ok(format!("[{}]", checked.join(",")).into_bytes())
        }
        Some(_) | None => Err((Id::Null, Fault::invalid_request("it must be an object, or a list of them"))),
    }
}

fn read<'a, T: serde::Deserialize<'a>>(message: &'a [u8]) -> Result<T, Refused> {
    serde_json::from_slice(message).map_err(|error| (Id::Null, Fault::parse_error(error)))
}

/// The entry, where it is an object whose id, if it has one, an answer can bear. What reads requests would take a list for one too, by the
/// order of its fields.
fn entry_of(entry: &str) -> Cow<'_, str> {
    let fields = serde_json::from_str::<Fields<'_>>(entry);
    let is_answerable = fields.is_ok_and(|fields| !fields.contains_key("id") || id(&fields).is_some());
    if is_answerable { Cow::Borrowed(entry) } else { Cow::Owned(NO_REQUEST.to_owned()) }
}

/// What of an object is not as JSON-RPC has it. Fields that it does not know say nothing.
fn problem(fields: &Fields<'_>) -> Option<&'static str> {
    if fields.contains_key("id") && id(fields).is_none() {
        Some("its id must be a text, a whole number from 0 to 18446744073709551615, or null")
    } else if text(fields, "jsonrpc").as_deref() != Some("2.0") {
        Some(r#"its jsonrpc must be "2.0""#)
    } else if text(fields, "method").is_none() {
        Some("its method must be a text")
    } else {
        None
    }
}

/// The id, where there is one that an answer can bear.
fn id(fields: &Fields<'_>) -> Option<Id<'static>> {
    serde_json::from_str::<Id<'_>>(fields.get("id")?.get()).ok().map(Id::into_owned)
}

fn text(fields: &Fields<'_>, name: &str) -> Option<String> {
    serde_json::from_str(fields.get(name)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(message: &str) -> (Id<'static>, String) {
        let (id, fault) = check(message.into()).unwrap_err();
        (id, fault.to_string())
    }

    #[test]
    fn what_is_no_request_is_told_so_under_its_id() {
        for (message, id, problem) in [
            ("5", Id::Null, "it must be an object"),
            (r#""node.status""#, Id::Null, "it must be an object"),
            ("[]", Id::Null, "a batch must not be empty"),
            ("{}", Id::Null, "its jsonrpc"),
            (r#"{"jsonrpc":"1.0","id":7,"method":"node.status"}"#, Id::Number(7), "its jsonrpc"),
            (r#"{"jsonrpc":2.0,"id":"a","method":"node.status"}"#, Id::Str("a".into()), "its jsonrpc"),
            (r#"{"jsonrpc":"2.0","id":7}"#, Id::Number(7), "its method"),
            (r#"{"jsonrpc":"2.0","id":7,"method":1}"#, Id::Number(7), "its method"),
            (r#"{"jsonrpc":"2.0","id":-1,"method":"node.status"}"#, Id::Null, "its id"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"node.status"}"#, Id::Null, "its id"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"node.status"}"#, Id::Null, "its id"),
            (r#"{"jsonrpc":"2.0","id":true,"method":"node.status"}"#, Id::Null, "its id"),
        ] {
            let (found, told) = refusal(message);
            assert_eq!(found, id, "{message}");
            assert!(told.contains(problem), "{message}: {told}");
        }
    }

    #[test]
    fn requests_notifications_and_batches_of_them_pass_as_they_are() {
        for message in [
            r#" {"jsonrpc":"2.0","id":1,"method":"node.status","params":{},"more":1}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"node.status"}"#,
            r#"{"jsonrpc":"2.0","method":"node.status"}"#,
            r#"[{"jsonrpc":"2.0","id":18446744073709551615,"\u006dethod":"node.status"}, {}]"#,
        ] {
            assert_eq!(check(message.into()), Ok(message.into()), "{message}");
        }
    }

    #[test]
    fn an_entry_whose_id_cannot_be_given_back_is_no_request_and_the_others_stay() {
        let (good, bad) = (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, r#"{"jsonrpc":"2.0","id":-1,"method":"a"}"#);
        let list = r#"["2.0",1,"node.stop",{}]"#;
        let checked = check(format!("[{good},{bad},5,{list}]").into_bytes());
        assert_eq!(checked, Ok(format!("[{good},{{}},{{}},{{}}]").into_bytes()));
    }
}
