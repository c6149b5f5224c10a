//! The interface as types of TypeScript.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::{ErrorData, ErrorKind, MethodInfo, NotificationInfo, methods, notifications, parameter};

const HEAD: &str = "\
// The interface of Outrigger. Made from the types in rpc-schema/src: UPDATE_OPENRPC=1 cargo test -p outrigger-rpc-schema
";

/// The types of every method's parameters and result, and the table of methods.
pub fn typescript() -> String {
    let mut settings = SchemaSettings::draft07();
    settings.meta_schema = None;
    let mut types = settings.into_generator();
    let named: Vec<(&MethodInfo, [String; 2])> =
        methods().iter().map(|method| (method, (method.define)(&mut types))).collect();
    types.subschema_for::<ErrorData>();
    notifications().iter().for_each(|told| (told.define)(&mut types));

    let mut text = HEAD.to_owned();
    for (name, schema) in types.take_definitions(true) {
        text.push('\n');
        text.push_str(&definition(&name, schema));
    }
    text.push_str(
        "\n/** What went wrong, where this version knows it: `kind` of `ErrorData`. */\nexport type ErrorKind =",
    );
    for kind in ErrorKind::ALL {
        text.push_str(&format!("\n  | \"{}\"", kind.name()));
    }
    text.push_str(";\n\n/** What a call of any method may be refused for. */\nexport type CommonErrorKind = ");
    text.push_str(&union(&ErrorKind::OF_ANY_METHOD));
    text.push_str(
        ";\n\n/** Every method, with the types of its parameters and of its result, and the kinds of its errors. */\n\
         export interface Methods {\n",
    );
    for (method, [parameters, result]) in &named {
        text.push_str(&comment(&method.summary, "  "));
        let own = method.own_errors();
        let or_own = if own.is_empty() { String::new() } else { format!(" | {}", union(&own)) };
        text.push_str(&format!("  \"{}\": {{\n    parameters: {parameters};\n    result: {result};\n", method.name));
        text.push_str(&format!("    errors: CommonErrorKind{or_own};\n  }};\n"));
    }
    text.push_str("}\n\n");
    text.push_str(&told());
    text.push_str(
        "\n/** The methods that must be called with an id, as they move money. */\nexport const MOVES_MONEY = [",
    );
    for (method, _) in named.iter().filter(|(method, _)| method.moves_money) {
        text.push_str(&format!("\n  \"{}\",", method.name));
    }
    text.push_str("\n] as const;\n");
    text
}

/// One of these kinds.
fn union(kinds: &[ErrorKind]) -> String {
    kinds.iter().map(|kind| format!("\"{}\"", kind.name())).collect::<Vec<_>>().join(" | ")
}

/// The table of notifications.
fn told() -> String {
    let mut text = "/** What is told on a connection on which both sides speak, by the `method` of the notification: its `params`. */\n\
                    export interface Notifications {\n"
        .to_owned();
    let mut names: Vec<&str> = notifications().iter().map(|told| told.name).collect();
    names.dedup();
    for name in names {
        let of_name = |told: &&NotificationInfo| told.name == name;
        let params: Vec<&str> = notifications().iter().filter(of_name).map(|told| &*told.params_name).collect();
        text.push_str(&format!("  \"{name}\": {};\n", params.join(" | ")));
    }
    text.push_str("}\n");
    text
}

/// One named type.
fn definition(name: &str, schema: Value) -> String {
    let mut schema = Schema::try_from(schema).unwrap_or_default();
    parameter::forbid_null(&mut schema);
    let schema = schema.as_value();
    let about = comment(&parameter::description(schema), "");
    match options(schema) {
        Some(options) => {
            let mut text = format!("{about}export type {name} =");
            for (option, meaning) in options {
                text.push_str(&format!("\n{}  | {option}", comment(&meaning, "  ")).replace("\n\n", "\n"));
            }
            format!("{text};\n")
        }
        None => format!("{about}export interface {name} {}\n", object(schema, "")),
    }
}

/// The texts that a type has, each with its meaning.
fn options(schema: &Value) -> Option<Vec<(String, String)>> {
    if let Some(options) = schema.get("oneOf").and_then(Value::as_array) {
        let option = |option: &Value| Some((option.get("const")?.to_string(), parameter::description(option)));
        return options.iter().map(option).collect();
    }
    let texts = schema.get("enum").and_then(Value::as_array)?;
    Some(texts.iter().map(|text| (text.to_string(), String::new())).collect())
}

/// The fields of an object.
fn object(schema: &Value, margin: &str) -> String {
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    if properties.is_empty() {
        return "{}".to_owned();
    }
    let required = schema.get("required").and_then(Value::as_array);
    let inner = format!("{margin}  ");
    let mut text = "{\n".to_owned();
    for (name, field) in properties {
        let needed = required.is_some_and(|names| names.iter().any(|required| required == name));
        let mark = if needed { "" } else { "?" };
        text.push_str(&comment(&parameter::description(field), &inner));
        text.push_str(&format!("{inner}{name}{mark}: {};\n", type_of(field, &inner)));
    }
    format!("{text}{margin}}}")
}

/// The type of a field.
fn type_of(schema: &Value, margin: &str) -> String {
    let reference = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref")).and_then(Value::as_str);
    if let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) {
        return name.to_owned();
    }
    if let Some(options) = options(schema) {
        return options.into_iter().map(|(text, _)| text).collect::<Vec<_>>().join(" | ");
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => "number".to_owned(),
        Some("boolean") => "boolean".to_owned(),
        Some("array") => {
            format!("{}[]", schema.get("items").map_or("string".to_owned(), |items| type_of(items, margin)))
        }
        Some("object") => object(schema, margin),
        Some(_) | None => "string".to_owned(),
    }
}

/// A comment over what follows it; nothing where there is nothing to say.
fn comment(text: &str, margin: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{margin}/** {} */\n", text.replace("*/", "* /")) }
}
