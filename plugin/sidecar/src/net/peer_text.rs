//! Text that a peer chose, made safe to log.

use std::fmt;

/// As much of a peer's text as is shown, in characters after escaping.
const SHOWN_CHARS: usize = 256;

/// A peer's bytes with everything but printable ASCII escaped, cut to 256 characters (BOLT 1: `data` that is not
/// printable ASCII is not printed verbatim).
pub(super) struct PeerText<'a>(pub(super) &'a [u8]);

impl fmt::Display for PeerText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut room = SHOWN_CHARS;
        for byte in self.0 {
            let escaped = std::ascii::escape_default(*byte);
            match room.checked_sub(escaped.len()) {
                Some(left) => room = left,
                None => return Ok(()),
            }
            write!(f, "{escaped}")?;
        }
        Ok(())
    }
}

/// How many of a connection's texts are logged; the others are only counted (DOS-10).
pub(super) const LOGGED_TEXTS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_17_text_is_escaped_and_cut() {
        assert_eq!(PeerText(b"no funds").to_string(), "no funds");
        assert_eq!(PeerText(b"\x1b[31m\n\xe2\x80\xae").to_string(), "\\x1b[31m\\n\\xe2\\x80\\xae");
        assert_eq!(PeerText(&[b'a'; 65_000]).to_string(), "a".repeat(256));
        assert_eq!(PeerText(&[0x1b; 65_000]).to_string(), "\\x1b".repeat(64));
    }
}
