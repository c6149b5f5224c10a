//! Whether what came back is what the document lets one expect.

use outrigger_integration::schema::Schema;
use outrigger_rpc_schema::{CallError, ErrorData, Refusal};
use serde_json::{Value, json};

use crate::doors::{Door, TOKENS};
use crate::draw::has_an_answer;

/// Codes that the server's library has for itself: messages and answers that are too large. Their data is its own.
const OF_THE_LIBRARY: std::ops::RangeInclusive<i64> = -32011..=-32000;

/// The most requests in a batch.
const MAX_BATCH: usize = 20;

/// Kinds that no caller may bring about.
const FAULTS_OF_ITS_OWN: [&str; 4] = ["internal", "storage_failed", "starting", "stopping"];

/// What judges answers.
pub(crate) struct Judge<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) document: &'a Value,
}

impl Judge<'_> {
    /// Whether something must come back for this message.
    pub(crate) fn is_answered(&self, message: &Value) -> bool {
        match message {
            Value::Array(entries) if !entries.is_empty() && entries.len() <= MAX_BATCH => {
                entries.iter().any(|entry| self.is_one_answered(entry))
            }
            other => self.is_one_answered(other),
        }
    }

    fn is_one_answered(&self, entry: &Value) -> bool {
        !is_request(entry) || entry.get("id").is_some() || self.moves_money(&entry["method"])
    }

    fn moves_money(&self, method: &Value) -> bool {
        let methods = self.document["methods"].as_array().into_iter().flatten();
        methods.into_iter().any(|known| known["name"] == *method && known["x-moves-money"] == true)
    }

    /// What is wrong with an answer to this message.
    pub(crate) fn fault(&self, door: Door, message: &Value, answer: Option<&Value>) -> Option<String> {
        let Some(answer) = answer else {
            return self.is_answered(message).then(|| "there was no answer".to_owned());
        };
        if !self.is_answered(message) {
            return Some("a notification was answered".to_owned());
        }
        let Value::Array(entries) = message else { return self.fault_of_one(door, message, answer) };
        if entries.is_empty() {
            return self.refused_with(answer, -32600);
        }
        if entries.len() > MAX_BATCH {
            return self.refused_with(answer, -32010);
        }
        let Value::Array(answers) = answer else { return Some("a batch was answered by no list".to_owned()) };
        let awaited: Vec<_> = entries.iter().filter(|entry| self.is_one_answered(entry)).collect();
        if answers.len() != awaited.len() {
            return Some(format!("{} answers to {}", answers.len(), awaited.len()));
        }
        awaited.iter().zip(answers).find_map(|(entry, answer)| self.fault_of_one(door, entry, answer))
    }

    fn fault_of_one(&self, door: Door, entry: &Value, answer: &Value) -> Option<String> {
        let is_one = answer["jsonrpc"] == "2.0"
            && answer.as_object().is_some_and(|fields| fields.len() == 3)
            && answer.get("id").is_some()
            && (answer.get("result").is_some() != answer.get("error").is_some());
        if !is_one {
            return Some("it is no answer of JSON-RPC".to_owned());
        }
        let id = entry.get("id").filter(|id| has_an_answer(id)).unwrap_or(&Value::Null);
        if answer["id"] != *id {
            return Some("it has another id".to_owned());
        }
        if !is_request(entry) {
            return self.refused_with(answer, -32600);
        }
        if entry.get("id").is_none() {
            let is_refused = answer["error"]["data"]["kind"] == "notification_refused";
            return (!is_refused).then(|| "a notification that moves money was not refused".to_owned());
        }
        let method = entry["method"].as_str().unwrap_or_default();
        let parameters = entry.get("params").filter(|given| !given.is_null()).cloned().unwrap_or_else(|| json!({}));
        if let Some(fault) = self.fault_of_rights(door, method, &parameters, answer) {
            return Some(fault);
        }
        if let Some(error) = answer.get("error") {
            return self.fault_of_refusal(door, method, &parameters, error);
        }
        self.schema.fault(method, &parameters, &Ok(answer["result"].clone()))
    }

    fn fault_of_refusal(&self, door: Door, method: &str, parameters: &Value, error: &Value) -> Option<String> {
        if let Some(fault) = self.fault_of_error(error) {
            return Some(fault);
        }
        let kind = error["data"]["kind"].as_str().unwrap_or_default();
        // It is asked for before the parameters are looked at; whether it may be, was judged already.
        if matches!(door, Door::Token(_)) && kind == "auth_scope_missing" {
            return None;
        }
        let data: ErrorData = match serde_json::from_value(error["data"].clone()) {
            Ok(data) => data,
            Err(_) if self.is_of_the_library(error) => return None,
            Err(fault) => return Some(fault.to_string()),
        };
        let code = error["code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or_default();
        let refusal = Refusal { code, message: String::new(), data: Some(Box::new(data)) };
        self.schema.fault(method, parameters, &Err(CallError::Refused(refusal)))
    }

    /// Whether a token's caller got what its scopes allow, and was refused the rest for that reason and no other.
    fn fault_of_rights(&self, door: Door, method: &str, parameters: &Value, answer: &Value) -> Option<String> {
        let Door::Token(which) = door else { return None };
        let methods = self.document["methods"].as_array().into_iter().flatten();
        let scopes = methods.into_iter().find(|known| known["name"] == method)?["x-scopes"].as_array()?;
        let has = TOKENS.get(which)?;
        let may = scopes.iter().any(|scope| has.iter().any(|has| scope == has.name()));
        let code = answer["error"]["code"].as_i64();
        let kind = answer["error"]["data"]["kind"].as_str().unwrap_or_default();
        let is_missing = code == Some(1803) && kind == "auth_scope_missing";
        if !may {
            // What is no sound call is found out before anybody asks what it is for.
            let is_unsound = code.is_some_and(|code| [-32700, -32600].contains(&code));
            return (!is_missing && !is_unsound)
                .then(|| format!("{method} is for {scopes:?}, and a token of {has:?} was not refused for that"));
        }
        let gives_away = method == "channel.open" && parameters["push_msat"].as_u64() > Some(0);
        let may_be_missing = gives_away || method == "payment.abandon";
        let is_stray = kind.starts_with("auth_") && !(is_missing && may_be_missing);
        is_stray.then(|| format!("{method} is for {scopes:?}, and a token of {has:?} was refused with {kind}"))
    }

    fn refused_with(&self, answer: &Value, code: i64) -> Option<String> {
        let error = &answer["error"];
        let other = (error["code"] != code).then(|| format!("it is not refused with {code}"));
        other.or_else(|| self.fault_of_error(error))
    }

    /// What of an error is not as the document tells, or is the daemon's own fault.
    pub(crate) fn fault_of_error(&self, error: &Value) -> Option<String> {
        let code = error["code"].as_i64().and_then(|code| i32::try_from(code).ok());
        let (Some(code), Some(message)) = (code, error["message"].as_str()) else {
            return Some("an error has a code and a message".to_owned());
        };
        if self.is_of_the_library(error) {
            return None;
        }
        let data = &error["data"];
        if message.is_empty() || data["hint"].as_str().is_none_or(str::is_empty) {
            return Some("an error says what happened and what to do".to_owned());
        }
        if FAULTS_OF_ITS_OWN.iter().any(|kind| data["kind"] == *kind) {
            return Some("it is a fault of the daemon's own".to_owned());
        }
        self.schema.refusal_fault(code, data)
    }

    fn is_of_the_library(&self, error: &Value) -> bool {
        error["code"].as_i64().is_some_and(|code| OF_THE_LIBRARY.contains(&code))
    }

    /// What is wrong with the answer to bytes that may be anything: the daemon reads more strictly than this.
    pub(crate) fn fault_of_any(&self, answer: &Value) -> Option<String> {
        let answers = answer.as_array().map_or(std::slice::from_ref(answer), Vec::as_slice);
        answers.iter().find_map(|answer| match (answer.get("result"), answer.get("error")) {
            (None, Some(error)) => self.fault_of_error(error),
            (Some(result), None) if result.is_object() => None,
            _ => Some("it is no answer of JSON-RPC".to_owned()),
        })
    }

    /// What is wrong with a notice of a subscription.
    pub(crate) fn fault_of_notice(&self, notice: &Value) -> Option<String> {
        self.schema.notice_fault(notice).or_else(|| self.fault_of_error(notice["params"].get("error")?))
    }
}

/// Whether it is a request or a notification of JSON-RPC.
fn is_request(entry: &Value) -> bool {
    entry.is_object()
        && entry["jsonrpc"] == "2.0"
        && entry["method"].is_string()
        && entry.get("id").is_none_or(has_an_answer)
}
