//! A line of the log: words for people or a JSON object for programs. Nothing in it can begin another line or steer a terminal,
//! whoever chose the text.

use std::fmt::{self, Debug, Write as _};
use std::time::Duration;

use outrigger_rpc_schema::{UtcTime, visible};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;

/// As much of a text as is kept.
const MAX_CHARS: usize = 4000;

/// The name of the event's own words among its fields.
const MESSAGE: &str = "message";

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) json: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let said = Said { at: Clock::wall(), level: metadata.level().as_str(), target: metadata.target(), fields };
        writeln!(writer, "{}", if self.json { said.json() } else { said.text() })
    }
}

impl Lines {
    /// A line of the log's own, with its end: a warning with a number of lines.
    pub(super) fn notice(self, words: &str, lines: u64) -> String {
        let fields = Fields { message: words.to_owned(), others: vec![("lines", lines.into())] };
        let said = Said { at: Clock::wall(), level: "WARN", target: "outrigger_sidecar::log", fields };
        format!("{}\n", if self.json { said.json() } else { said.text() })
    }
}

/// The event's words, and its other fields in their order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            (MESSAGE, Value::String(text)) => self.message = text,
            (MESSAGE, other) => self.message = other.to_string(),
            (name, value) => self.others.push((name, value)),
        }
    }
}

fn cut(text: &str) -> Value {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => Value::String(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Value::String(text.to_owned()),
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, cut(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, cut(&format!("{value:?}")));
    }
}

/// An event as it is written.
struct Said<'a> {
    /// Since 1970.
    at: Duration,
    level: &'static str,
    target: &'a str,
    fields: Fields,
}

impl Said<'_> {
    fn text(&self) -> String {
        let mut line = format!(
            "{} {:>5} {}: {}",
            timestamp(self.at),
            self.level,
            self.target,
            visible::text(&self.fields.message)
        );
        for (name, value) in &self.fields.others {
            let value = match value {
                // Where a value ends is not to depend on what it says.
                Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                    format!("\"{}\"", visible::text(text).replace('"', "\\\""))
                }
                Value::String(text) => visible::text(text),
                other => other.to_string(),
            };
            // Writing to a string cannot fail.
            let _ = write!(line, " {name}={value}");
        }
        line
    }

    fn json(&self) -> String {
        let others = self.fields.others.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let mut object = Map::new();
        object.insert("at".to_owned(), timestamp(self.at).into());
        object.insert("level".to_owned(), self.level.to_lowercase().into());
        object.insert("target".to_owned(), self.target.into());
        object.insert(MESSAGE.to_owned(), self.fields.message.clone().into());
        object.insert("fields".to_owned(), Value::Object(others.collect()));
        visible::json(&Value::Object(object))
    }
}

/// A time as RFC 3339 has it, in UTC, with milliseconds.
fn timestamp(since_1970: Duration) -> String {
    let UtcTime { year, month, day, hour, minute, second } = UtcTime::at(since_1970.as_secs());
    let millis = since_1970.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said() -> Said<'static> {
        let others = vec![
            ("peer_text", Value::String("a\u{1b}[2J\nERROR x: \"b\u{202e}\u{9b}".to_owned())),
            ("height", json!(7)),
            ("reason", Value::String("plain".to_owned())),
        ];
        let fields = Fields { message: "a peer\rsaid".to_owned(), others };
        Said { at: Duration::from_millis(951_782_399_045), level: "WARN", target: "outrigger_sidecar::net", fields }
    }

    #[test]
    fn rpc_10_what_a_peer_says_neither_begins_a_line_nor_steers_a_terminal() {
        let expected = "2000-02-28T23:59:59.045Z  WARN outrigger_sidecar::net: a peer\\u{d}said \
                        peer_text=\"a\\u{1b}[2J\\u{a}ERROR x: \\\"b\\u{202e}\\u{9b}\" height=7 reason=plain";
        assert_eq!(said().text(), expected);
        let line = said().json();
        assert!(!line.chars().any(visible::steers), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "at": "2000-02-28T23:59:59.045Z", "level": "warn", "target": "outrigger_sidecar::net", "message": "a peer\rsaid",
            "fields": { "peer_text": "a\u{1b}[2J\nERROR x: \"b\u{202e}\u{9b}", "height": 7, "reason": "plain" },
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_text_is_cut_at_a_letter() {
        assert_eq!(cut("ä"), json!("ä"));
        let long = cut(&"ä".repeat(MAX_CHARS + 1));
        assert_eq!(long, json!(format!("{}…", "ä".repeat(MAX_CHARS))));
        assert_eq!(cut(&"ä".repeat(MAX_CHARS)), json!("ä".repeat(MAX_CHARS)));
    }
}
