//! What the schema says, for people.

use outrigger_rpc_schema::{EventSubscribe, Method, MethodInfo, Parameter, first_sentence, methods};
use serde_json::Value;

/// Width of a line of help.
const WIDTH: usize = 100;

/// What the command line makes of `event.subscribe`.
const FOLLOWING: &str = "outrigger-cli prints a line for each event, and with --json the event as it came, until it is interrupted. A \
                         daemon that is lost is looked for again, which the standard error tells, and the events go on where they \
                         were: none is missed, and none comes twice. It ends with exit code 0 where nobody reads its lines any more, \
                         1 where they cannot be written or the daemon will not tell any more, as with event_gap, 2 where after_seq \
                         is beyond its newest event, as after a restore, which begins events anew, and 3 where it is not reached at \
                         first or does not take the cookie or the token.";

/// Every method with its first sentence.
pub(crate) fn overview() -> String {
    let mut text = String::from(
        "outrigger-cli: the JSON-RPC interface of outriggerd on the command line\n\n\
         Usage: outrigger-cli [OPTIONS] METHOD [name=value ...]\n\
         \x20      outrigger-cli METHOD --help\n\
         \x20      outrigger-cli event.subscribe [after_seq=N] [kinds=A,B]    a line for each event, until interrupted\n\
         \x20      outrigger-cli completions bash|zsh|fish\n\
         \x20      outrigger-cli man\n\n\
         Options:\n\
         \x20 --json              print the result as one line of JSON\n\
         \x20 --data-dir DIR      the daemon's data directory (OUTRIGGER_DATA_DIR; default ~/.outrigger)\n\
         \x20 --network NETWORK   regtest or signet (OUTRIGGER_NETWORK; default: the one that runs)\n\
         \x20 --url URL           a daemon elsewhere: https://HOST:PORT, or http:// at 127.0.0.1 (OUTRIGGER_URL)\n\
         \x20 --token-file FILE   what token.create gave, for --url (OUTRIGGER_TOKEN_FILE)\n\
         \x20 --ca FILE           PEM: the authority that signed the daemon's certificate, or that certificate, for https://;\n\
         \x20                     without it those that this machine trusts (OUTRIGGER_CA)\n\n\
         Exit code: 0 done, 1 refused by the daemon, or its answer could not be written, 2 wrong usage, 3 daemon not reached\n\n\
         Methods:\n",
    );
    for method in methods() {
        text.push_str(&format!("  {:<19} {}\n", method.name, first_sentence(&method.summary)));
    }
    text
}

/// One method with its parameters and its result.
pub(crate) fn method(method: &MethodInfo) -> String {
    let mut text = format!("{}\n\nUsage: outrigger-cli {}", wrapped(&method.summary, 0), method.name);
    for parameter in &method.parameters {
        let name = &parameter.name;
        text.push_str(&if parameter.required { format!(" {name}=...") } else { format!(" [{name}=...]") });
    }
    text.push('\n');
    if !method.parameters.is_empty() {
        text.push_str("\nParameters:\n");
        method.parameters.iter().for_each(|parameter| text.push_str(&entry(parameter)));
    }
    if method.name == EventSubscribe::NAME {
        text.push_str(&format!("\n{}\n", wrapped(FOLLOWING, 0)));
    }
    text.push_str("\nResult:\n");
    fields(method.result.as_value(), 2, &mut text);
    text
}

fn entry(parameter: &Parameter) -> String {
    let needed = if parameter.required { "required, " } else { "" };
    format!("  {} ({needed}{})\n      {}\n", parameter.name, parameter.kind, wrapped(&parameter.description, 6))
}

/// The fields of an object, those of what is inside it indented.
fn fields(schema: &Value, indent: usize, text: &mut String) {
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let mut description = field.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        if let Some(choices) = choices(field) {
            description.push_str(&format!(" One of {choices}."));
        }
        let margin = " ".repeat(indent);
        text.push_str(&format!("{margin}{name}\n{margin}    {}\n", wrapped(&description, indent.saturating_add(4))));
        fields(field.get("items").unwrap_or(field), indent.saturating_add(4), text);
    }
}

/// The texts that a field may have, where the schema lists them.
fn choices(field: &Value) -> Option<String> {
    let options = field.get("oneOf")?.as_array()?;
    let texts: Vec<&str> = options.iter().filter_map(|option| option.get("const")?.as_str()).collect();
    Some(texts.join(", "))
}

/// Breaks a text into lines; all but the first are indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column.saturating_add(length) >= WIDTH {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            lines.push(' ');
        }
        lines.push_str(word);
        column = column.saturating_add(length).saturating_add(1);
    }
    lines
}
