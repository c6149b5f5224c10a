//! A result, for people: one line per field, lists as tables where they fit, units beside their numbers.

use outrigger_rpc_schema::UtcTime;
use serde_json::{Map, Value};

use crate::visible;

/// Width of a terminal that does not say its own.
const DEFAULT_WIDTH: usize = 120;

/// The width that the shell says the terminal has.
pub(crate) fn terminal_width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(DEFAULT_WIDTH)
}

/// The whole result.
pub(crate) fn result(result: &Value, width: usize) -> String {
    match result {
        Value::Object(object) => fields(object, width),
        other => format!("{}\n", plain(other)),
    }
}

/// An event in one line: its number, its time and its kind, and then what it carries.
pub(crate) fn event(event: &Value) -> String {
    let Some(event) = event.as_object() else { return plain(event) };
    let mut line = String::new();
    for key in ["seq", "at", "kind"] {
        line.push_str(&event.get(key).map(|value| cell(key, value)).unwrap_or_default());
        line.push_str("  ");
    }
    let rest = event.iter().filter(|(key, _)| !["seq", "at", "kind"].contains(&key.as_str()));
    let pairs: Vec<String> = rest.map(|(key, value)| format!("{}: {}", label(key), cell(key, value))).collect();
    line.push_str(&pairs.join(", "));
    line.trim_end().to_owned()
}

/// A line per field; below them what has lines of its own.
fn fields(object: &Map<String, Value>, width: usize) -> String {
    let names: Vec<String> = object.keys().map(|key| label(key)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let mut lines = String::new();
    let mut below = String::new();
    for (key, value) in object {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => below.push_str(&list(items, width)),
            Value::Array(items) if key == "items" && items.is_empty() => below.push_str("(none)\n"),
            value => {
                let name = format!("{}:", label(key));
                lines.push_str(&format!("{name:<pad$} {}\n", cell(key, value), pad = widest.saturating_add(1)));
            }
        }
    }
    if below.is_empty() { lines } else { format!("{below}{lines}") }
}

/// Objects as a table, or one after the other where the table is wider than the terminal.
fn list(items: &[Value], width: usize) -> String {
    let objects: Vec<&Map<String, Value>> = items.iter().filter_map(Value::as_object).collect();
    let mut keys: Vec<&String> = Vec::new();
    for key in objects.iter().flat_map(|object| object.keys()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let head: Vec<String> = keys.iter().map(|key| label(key)).collect();
    let row = |object: &&Map<String, Value>| {
        let text = |key: &&String| object.get(*key).map(|value| cell(key, value)).unwrap_or_default();
        keys.iter().map(text).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(objects.iter().map(row)).collect();
    let table = table(&rows);
    if table.lines().all(|line| line.chars().count() <= width) {
        return table;
    }
    objects.iter().map(|object| format!("{}\n", fields(object, width))).collect()
}

/// Rows in columns as wide as their widest cell.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// A unit at the end of a name.
#[derive(Clone, Copy)]
enum Unit {
    /// Written after the number.
    Word(&'static str),
    /// Unix seconds, written as date and time.
    Time,
}

/// The units that names carry, the longer before those that they end with.
const UNITS: [(&str, Unit); 6] = [
    ("_sat_per_vb", Unit::Word("sat/vB")),
    ("_msat", Unit::Word("msat")),
    ("_sat", Unit::Word("sat")),
    ("_blocks", Unit::Word("blocks")),
    ("_secs", Unit::Word("s")),
    ("_at", Unit::Time),
];

fn unit(key: &str) -> Option<(&str, Unit)> {
    if key == "at" {
        return Some((key, Unit::Time));
    }
    UNITS.iter().find_map(|(suffix, unit)| key.strip_suffix(suffix).map(|name| (name, *unit)))
}

/// The name of a field, its unit taken off: the unit stands beside the number.
fn label(key: &str) -> String {
    unit(key).map_or(key, |(name, _)| name).replace('_', " ")
}

/// The value of a field.
fn cell(key: &str, value: &Value) -> String {
    match (value.as_u64(), unit(key)) {
        (Some(number), Some((_, Unit::Word(unit)))) => format!("{} {unit}", grouped(number)),
        (Some(number), Some((_, Unit::Time))) => date_and_time(number),
        _ => plain(value),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => visible::text(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null | Value::Number(_) => value.to_string(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(object) => {
            let pairs = object.iter().map(|(key, value)| format!("{}: {}", label(key), cell(key, value)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    }
}

/// A number with its thousands set apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Unix seconds as date and time in UTC.
fn date_and_time(unix: u64) -> String {
    let UtcTime { year, month, day, hour, minute, second } = UtcTime::at(unix);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_aligned_and_units_stand_beside_their_numbers() {
        let value = json!({
            "expires_at": 1_700_000_000, "capacity_sat": 1_000_000, "local_msat": 7, "announce": false,
            "features": "2a", "block_height": 123_456, "needed_blocks": 3,
        });
        let expected = "announce:     no\n\
                        block height: 123456\n\
                        capacity:     1,000,000 sat\n\
                        expires:      2023-11-14 22:13:20 UTC\n\
                        features:     2a\n\
                        local:        7 msat\n\
                        needed:       3 blocks\n";
        assert_eq!(result(&value, 80), expected);
    }

    #[test]
    fn an_event_is_one_line_whatever_a_peer_wrote() {
        let value = json!({
            "seq": 7, "at": 1_700_000_000, "kind": "invoice_paid", "amount_msat": 5000, "message": "a\nb",
        });
        let line = "7  2023-11-14 22:13:20 UTC  invoice_paid  amount: 5,000 msat, message: a\\u{a}b";
        assert_eq!(event(&value), line);
        let bare = json!({ "seq": 8, "at": 0, "kind": "channel_ready" });
        assert_eq!(event(&bare), "8  1970-01-01 00:00:00 UTC  channel_ready");
    }

    #[test]
    fn lists_are_tables_where_they_fit() {
        let value = json!({ "items": [{ "seq": 1, "kind": "a" }, { "seq": 10, "txid": "b" }], "next_seq": 10 });
        assert_eq!(result(&value, 80), "kind  seq  txid\na     1\n      10   b\nnext seq: 10\n");
        let blocks = result(&value, 10);
        assert_eq!(blocks, "kind: a\nseq:  1\n\nseq:  10\ntxid: b\n\nnext seq: 10\n");
        assert_eq!(result(&json!({ "items": [] }), 80), "(none)\n");
    }

    #[test]
    fn rpc_10_foreign_text_cannot_steer_the_terminal() {
        let value = json!({ "message": "a\u{1b}[2Jb\u{202e}c\nd" });
        assert_eq!(result(&value, 80), "message: a\\u{1b}[2Jb\\u{202e}c\\u{a}d\n");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date_and_time(unix), text);
        }
    }
}
