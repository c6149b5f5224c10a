//! What a key takes: the one rule by which a value is refused, and by which a host is told what fits.

use outrigger_rpc_schema::{OptionKind, OptionTakes};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A text of at most so many bytes, without control characters.
    Line(u16),
    /// A whole number in this range, both ends included.
    Number(u64, u64),
    /// `true` or `false`.
    Flag,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A program and its arguments, each a text.
    Program,
}

impl Kind {
    /// Whether this text is a value.
    pub(super) fn admits(self, text: &str) -> bool {
        match self {
            Self::Text | Self::Program => true,
            Self::Line(most) => text.len() <= usize::from(most) && !text.chars().any(char::is_control),
            Self::Number(least, most) => text.parse::<u64>().is_ok_and(|number| (least..=most).contains(&number)),
            Self::Flag => matches!(text, "true" | "false"),
            Self::Choice(choices) => choices.contains(&text),
        }
    }

    /// The text of a value of a file, where it has the type that this takes. Of a program all but its name is left out: arguments
    /// may be secrets of its own.
    pub(super) fn text_of(self, value: &toml::Value) -> Option<String> {
        match (self, value) {
            (Self::Text | Self::Line(_) | Self::Choice(_), toml::Value::String(text)) => Some(text.clone()),
            (Self::Number(..), toml::Value::Integer(number)) => Some(number.to_string()),
            (Self::Flag, toml::Value::Boolean(flag)) => Some(flag.to_string()),
            (Self::Program, toml::Value::Array(words)) => {
                let is_whole = words.iter().all(toml::Value::is_str);
                let program = words.first().and_then(toml::Value::as_str);
                program.filter(|program| is_whole && !program.is_empty()).map(str::to_owned)
            }
            _ => None,
        }
    }

    /// What fits, as it stands behind "must be".
    pub(super) fn words(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Line(most) => format!("a text of at most {most} bytes without control characters"),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(choices) => match choices.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => choices.join(""),
            },
            Self::Program => "a list of texts: the program and its arguments".to_owned(),
        }
    }

    /// The same for programs.
    pub(super) fn told(self) -> OptionTakes {
        let of = |kind| OptionTakes { kind, ..OptionTakes::default() };
        match self {
            Self::Text => of(OptionKind::Text),
            Self::Line(most) => OptionTakes { longest_bytes: Some(most), ..of(OptionKind::Text) },
            Self::Number(least, most) => {
                OptionTakes { least: Some(least.to_string()), most: Some(most.to_string()), ..of(OptionKind::Integer) }
            }
            Self::Flag => of(OptionKind::Boolean),
            Self::Choice(choices) => {
                let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
                OptionTakes { choices: Some(choices), ..of(OptionKind::Text) }
            }
            Self::Program => of(OptionKind::List),
        }
    }
}
