//! A parameter as the schema describes it, and the check of a call against it.

use std::fmt;

use schemars::Schema;
use serde_json::{Map, Value};

use crate::{MethodInfo, nearest};

/// A parameter of a method, or a field of an object that is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name, with the unit in it.
    pub name: String,
    /// Whether a call without it is refused.
    pub required: bool,
    /// What it takes.
    pub kind: ParameterType,
    /// What it means, with its default.
    pub description: String,
    /// Its JSON schema, self-contained.
    pub schema: Value,
}

/// What a parameter takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterType {
    /// A whole number in this range, both ends included.
    Integer {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// `true` or `false`.
    Boolean,
    /// Any text.
    Text,
    /// One of these texts.
    Choice(Vec<String>),
    /// A list of values of one type.
    List(Box<ParameterType>),
    /// An object with these fields, and no others.
    Object(Vec<Parameter>),
}

/// Why a call's parameters are refused. It names the parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterFault {
    /// The method has no parameter of this name.
    Unknown {
        /// The name given.
        parameter: String,
        /// The parameter that is spelled most alike.
        nearest: Option<String>,
    },
    /// A required parameter is not there.
    Missing {
        /// The name that is needed.
        parameter: String,
    },
    /// The value does not fit.
    Unfit {
        /// The name given.
        parameter: String,
        /// What it takes.
        expected: String,
    },
}

impl MethodInfo {
    /// Checks names and types of a call's parameters, before any of their meaning is looked at.
    pub fn check(&self, given: &Map<String, Value>) -> Result<(), ParameterFault> {
        for (name, value) in given {
            let Some(parameter) = self.parameter(name) else {
                let known = self.parameters.iter().map(|parameter| parameter.name.as_str());
                return Err(ParameterFault::Unknown {
                    parameter: name.clone(),
                    nearest: nearest(name, known).map(str::to_owned),
                });
            };
            if !parameter.kind.admits(value) {
                return Err(ParameterFault::Unfit { parameter: name.clone(), expected: parameter.kind.to_string() });
            }
        }
        let missing = self.parameters.iter().find(|wanted| wanted.required && !given.contains_key(&wanted.name));
        match missing {
            Some(wanted) => Err(ParameterFault::Missing { parameter: wanted.name.clone() }),
            None => Ok(()),
        }
    }

    /// The parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }
}

impl ParameterType {
    /// Whether a JSON value is of this type. Null is of none: what has no value is left out.
    pub fn admits(&self, value: &Value) -> bool {
        match self {
            Self::Integer { min, max } => value.as_u64().is_some_and(|number| (*min..=*max).contains(&number)),
            Self::Boolean => value.is_boolean(),
            Self::Text => value.is_string(),
            Self::Choice(choices) => value.as_str().is_some_and(|text| choices.iter().any(|choice| choice == text)),
            Self::List(element) => value.as_array().is_some_and(|items| items.iter().all(|item| element.admits(item))),
            Self::Object(fields) => value.as_object().is_some_and(|given| {
                let fits = |field: &Parameter| match given.get(&field.name) {
                    Some(value) => field.kind.admits(value),
                    None => !field.required,
                };
                fields.iter().all(fits) && given.keys().all(|name| fields.iter().any(|field| field.name == *name))
            }),
        }
    }

    /// Reads the type out of a self-contained JSON schema of the kinds that this interface uses.
    fn of(schema: &Value) -> Self {
        if let Some(choices) = choices(schema) {
            return Self::Choice(choices);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("integer") => Self::Integer {
                min: schema.get("minimum").and_then(Value::as_u64).unwrap_or(0),
                max: schema.get("maximum").and_then(Value::as_u64).unwrap_or_else(|| widest(schema)),
            },
            Some("boolean") => Self::Boolean,
            Some("array") => Self::List(Box::new(schema.get("items").map_or(Self::Text, Self::of))),
            Some("object") => Self::Object(parameters(schema)),
            Some(_) | None => Self::Text,
        }
    }
}

impl fmt::Display for ParameterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Boolean => f.write_str("true or false"),
            Self::Text => f.write_str("a text"),
            Self::Choice(choices) => write!(f, "one of {}", choices.join(", ")),
            Self::List(element) => write!(f, "a list, each element {element}"),
            Self::Object(fields) => {
                f.write_str("an object of")?;
                for (place, field) in fields.iter().enumerate() {
                    let separator = if place == 0 { "" } else { "," };
                    let optional = if field.required { "" } else { ", may be left out" };
                    write!(f, "{separator} {} ({}{optional})", field.name, field.kind)?;
                }
                Ok(())
            }
        }
    }
}

impl ParameterFault {
    /// The name of the parameter that is at fault.
    pub fn parameter(&self) -> &str {
        match self {
            Self::Unknown { parameter, .. } | Self::Missing { parameter } | Self::Unfit { parameter, .. } => parameter,
        }
    }
}

impl fmt::Display for ParameterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { parameter, nearest: Some(nearest) } => {
                write!(f, "unknown parameter {parameter:?}; did you mean {nearest}?")
            }
            Self::Unknown { parameter, nearest: None } => write!(f, "unknown parameter {parameter:?}"),
            Self::Missing { parameter } => write!(f, "missing parameter {parameter}"),
            Self::Unfit { parameter, expected } => write!(f, "parameter {parameter} must be {expected}"),
        }
    }
}

impl std::error::Error for ParameterFault {}

/// The parameters that a self-contained object schema describes, the required ones first.
pub(crate) fn parameters(schema: &Value) -> Vec<Parameter> {
    let required = |name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut parameters: Vec<Parameter> = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| Parameter {
            name: name.clone(),
            required: required(name),
            kind: ParameterType::of(schema),
            description: description(schema),
            schema: schema.clone(),
        })
        .collect();
    parameters.sort_by_key(|parameter| !parameter.required);
    parameters
}

/// The description that a schema carries, on one line.
pub(crate) fn description(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// A description up to the end of its first sentence, the full stop left out.
pub fn first_sentence(text: &str) -> &str {
    text.split_once(". ").map_or(text.trim_end_matches('.'), |(sentence, _)| sentence)
}

/// Takes null out of every type of a schema: what has no value is absent from an object.
pub(crate) fn forbid_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(options)) = schema.get_mut("anyOf") {
        options.retain(|option| option.get("type").and_then(Value::as_str) != Some("null"));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                let object = schema.ensure_object();
                object.entry(key).or_insert(value);
            }
        }
    }
    schemars::transform::transform_subschemas(&mut forbid_null, schema);
}

/// The texts that a schema admits, where it lists them.
fn choices(schema: &Value) -> Option<Vec<String>> {
    if let Some(options) = schema.get("oneOf").and_then(Value::as_array) {
        return Some(options.iter().filter_map(|option| text(option.get("const")?)).collect());
    }
    let options = schema.get("enum").and_then(Value::as_array)?;
    Some(options.iter().filter_map(text).collect())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The largest number that the schema's integer format holds.
fn widest(schema: &Value) -> u64 {
    match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => u8::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        Some(_) | None => u64::MAX,
    }
}
