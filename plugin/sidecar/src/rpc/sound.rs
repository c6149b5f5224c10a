//! Whether a body is sound JSON: one value, UTF-8, no key twice, not nested deep. Readers differ on a body that is
//! not, and a body that two readers understand differently must not move money.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// No method takes anything nested deeper.
const MAX_DEPTH: usize = 16;

/// Checks a body; the error says what is wrong and where.
pub(super) fn check(body: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    Sound { depth: 0 }.deserialize(&mut reader)?;
    reader.end()
}

/// Walks a value and keeps nothing of it but its depth.
#[derive(Clone, Copy)]
struct Sound {
    depth: usize,
}

impl Sound {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(Self { depth: self.depth.saturating_add(1) })
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(inside)?;
            if !keys.insert(key) {
                return Err(A::Error::custom("a key stands twice in an object"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn bad_input_81_unsound_json_is_refused() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let bad: [&[u8]; 8] = [
            b"",
            b"{",
            b"{} {}",
            br#"{"a":1,"a":1}"#,
            br#"[{"p":{"\u0061":1,"a":2}}]"#,
            b"{\"a\":\"\xff\"}",
            b"{\"\xff\":1}",
            deep.as_bytes(),
        ];
        for body in bad {
            assert!(check(body).is_err(), "{}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        }
    }

    #[test]
    fn sound_json_passes() {
        for body in [r#"{"a":{"a":[1,-1,1.5,null,true,"x",18446744073709551616]}}"#, "[]", "{}"] {
            assert!(check(body.as_bytes()).is_ok(), "{body}");
        }
    }
}
