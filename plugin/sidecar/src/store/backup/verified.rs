//! When a restore from each sink was last tried and found right, from one start to the next.

use std::collections::BTreeMap;

/// By the name of the sink, the unix second. One that the configuration no longer has is forgotten by a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified(pub BTreeMap<String, u64>);

impl Verified {
    /// The row in `meta`, if there is anything to remember: a line for each, the second and the name.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let lines: Vec<_> = self.0.iter().map(|(name, at)| format!("{at} {name}")).collect();
        (!lines.is_empty()).then(|| lines.join("\n").into_bytes())
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<Self, &'static str> {
        let line = |line: &str| {
            let (at, name) = line.split_once(' ')?;
            let is_number = at.bytes().all(|digit| digit.is_ascii_digit());
            Some((name.to_owned(), at.parse().ok().filter(|at| is_number && *at > 0)?))
        };
        let text = std::str::from_utf8(row).map_err(|_| "times of verified restores that are no text")?;
        let lines: Option<_> = text.split('\n').filter(|_| !text.is_empty()).map(line).collect();
        lines.map(Self).ok_or("a verified restore without its time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_remembered_and_a_malformed_row_is_told() {
        let verified = Verified([("one more".to_owned(), 1_800_000_000), ("second".to_owned(), u64::MAX)].into());
        let row = verified.encode().unwrap();
        assert_eq!(row, format!("1800000000 one more\n{} second", u64::MAX).into_bytes());
        assert_eq!(Verified::decode(&row), Ok(verified));
        assert_eq!(Verified::default().encode(), None);
        assert_eq!(Verified::decode(b""), Ok(Verified::default()));
        for malformed in
            [&b"\xff"[..], b"1800000000", b"name", b"0 name", b"+7 name", b"18446744073709551616 name", b"7 name\n"]
        {
            assert!(Verified::decode(malformed).is_err(), "{malformed:?}");
        }
    }
}
