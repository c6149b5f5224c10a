//! What others wrote, as it may be put before a person: a peer, who pays or is paid, or a daemon elsewhere chooses names, descriptions and
//! reasons, and nothing of them may steer a terminal or look like a line of ours (RPC-10).

use serde_json::Value;

/// Whether a letter ends a line, steers a terminal, or turns the direction of writing.
pub fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in one line, with all that steers made visible.
pub fn text(text: &str) -> String {
    let visible = |letter: char| if steers(letter) { letter.escape_unicode().to_string() } else { letter.to_string() };
    text.chars().map(visible).collect()
}

/// JSON in one line, with the same value. It leaves some letters as they are that a terminal would obey; all of them have four digits.
pub fn json(value: &Value) -> String {
    let plain = |letter: char| if steers(letter) { format!("\\u{:04x}", letter as u32) } else { letter.to_string() };
    value.to_string().chars().map(plain).collect()
}
