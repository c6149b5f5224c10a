//! Which channel a required sink has refused for good, from one start to the next: the second one that it refuses stops the node, also
//! where a restart lies between the two.

use std::collections::BTreeMap;

use bitcoin::hex::{DisplayHex, FromHex};
use outrigger_bolt::id::ChannelId;

/// By the name of the sink, the first channel that it refused. One that the configuration no longer has is forgotten by a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(pub BTreeMap<String, ChannelId>);

impl Refusals {
    /// The row in `meta`, if there is anything to remember: a line for each, the channel in hex and the name.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let lines: Vec<_> = self.0.iter().map(|(name, channel)| format!("{} {name}", channel.0.as_hex())).collect();
        (!lines.is_empty()).then(|| lines.join("\n").into_bytes())
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<Self, &'static str> {
        let line = |line: &str| {
            let (channel, name) = line.split_once(' ')?;
            Some((name.to_owned(), ChannelId(FromHex::from_hex(channel).ok()?)))
        };
        let text = std::str::from_utf8(row).map_err(|_| "refusals that are no text")?;
        let lines: Option<_> = text.lines().map(line).collect();
        lines.map(Self).ok_or("a refusal that names no channel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_remembered_and_a_malformed_row_is_told() {
        let refusals = Refusals([("one more".to_owned(), ChannelId([7; 32]))].into());
        let row = refusals.encode().unwrap();
        assert_eq!(Refusals::decode(&row), Ok(refusals));
        assert_eq!(Refusals::default().encode(), None);
        assert_eq!(Refusals::decode(b""), Ok(Refusals::default()));
        for malformed in [&b"\xff"[..], b"07 name", b"name", &row[..40]] {
            assert!(Refusals::decode(malformed).is_err(), "{malformed:?}");
        }
    }
}
