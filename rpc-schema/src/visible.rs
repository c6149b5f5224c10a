//! What others wrote, as it may be put before a person: a peer, who pays or is paid, or a daemon elsewhere chooses names, descriptions and
//! reasons, and nothing of them may steer a terminal or look like a line of ours (RPC-10).

use serde_json::Value;

/// Whether a letter ends a line, steers a terminal, turns the direction of writing, or takes no room or shows nothing. Joiners (U+200C,
/// U+200D) and selectors of variants are left as they are: words and signs are spelled with them.
pub fn steers(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{206f}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
        || matches!(letter, '\u{e0000}'..='\u{e007f}')
}

/// A text in one line, with all that steers made visible.
pub fn text(text: &str) -> String {
    let visible = |letter: char| if steers(letter) { letter.escape_unicode().to_string() } else { letter.to_string() };
    text.chars().map(visible).collect()
}

/// JSON in one line, with the same value: `serde_json` leaves some letters as they are that a terminal would obey.
pub fn json(value: &Value) -> String {
    let units =
        |letter: char| letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    let plain = |letter: char| if steers(letter) { units(letter) } else { letter.to_string() };
    value.to_string().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpc_10_what_steers_or_is_not_seen_is_shown_and_the_value_stays_what_it_is() {
        let hostile = "a\u{1b}b\u{202e}c\u{200b}d\u{feff}e\u{ad}f\u{2060}g\u{e0041}h\u{e007f}i\u{3164}j\u{206a}";
        let shown = text(hostile);
        assert_eq!(shown, r"a\u{1b}b\u{202e}c\u{200b}d\u{feff}e\u{ad}f\u{2060}g\u{e0041}h\u{e007f}i\u{3164}j\u{206a}");
        let value = serde_json::json!({ "reason": hostile });
        let line = json(&value);
        assert!(!line.contains(steers), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        let spelled = "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645} \u{1f468}\u{200d}\u{1f469}";
        assert_eq!(text(spelled), spelled, "words that are spelled with joiners");
    }
}
