//! Text that a peer chose.

use std::fmt::{self, Write as _};

use super::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The most characters of a peer's text that are ever shown.
const SHOWN: usize = 256;

/// The `data` of `error` and `warning`: any bytes. It can only be shown in a form that is safe in a log, a terminal or
/// a page: printable ASCII as it stands and the rest escaped (BOLT 1: not to be printed verbatim), 256 characters at most.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PeerText(Vec<u8>);

impl PeerText {
    /// The bytes as they came, for protocol use only.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for PeerText {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&str> for PeerText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// One character, shown so that it can neither steer a terminal nor be taken for another.
fn escape(character: char) -> String {
    match character {
        '\\' => r"\\".to_owned(),
        ' '..='~' => character.to_string(),
        other => other.escape_unicode().to_string(),
    }
}

impl fmt::Display for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ELLIPSIS: &str = "...";
        let text = String::from_utf8_lossy(&self.0);
        let mut shown = String::new();
        let mut fits_with_ellipsis = 0;
        for character in text.chars() {
            shown.push_str(&escape(character));
            if shown.len() <= SHOWN.saturating_sub(ELLIPSIS.len()) {
                fits_with_ellipsis = shown.len();
            }
            if shown.len() > SHOWN {
                shown.truncate(fits_with_ellipsis);
                shown.push_str(ELLIPSIS);
                break;
            }
        }
        f.write_str(&shown)
    }
}

impl fmt::Debug for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        fmt::Display::fmt(self, f)?;
        f.write_char('"')
    }
}

impl Encode for PeerText {
    fn encode(&self, writer: &mut Writer) {
        self.0.encode(writer);
    }
}

impl Decode for PeerText {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Vec::decode(reader).map(Self)
    }
}
