//! BOLT 1, appendix A: every BigSize vector.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use outrigger_bolt::wire::codec::{BigSize, Reader, Writer};
use outrigger_bolt::wire::{Decode, DecodeError, Encode};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

fn vectors(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/bolt1_bigsize.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

fn bytes(vector: &Value) -> Vec<u8> {
    hex::decode(vector["bytes"].as_str().unwrap()).unwrap()
}

fn encoded(value: u64) -> Vec<u8> {
    let mut writer = Writer::new();
    BigSize(value).encode(&mut writer);
    writer.finish().unwrap()
}

#[test]
fn decoding_vectors() {
    for vector in vectors("decoding") {
        let expected = match vector["fault"].as_str() {
            None => Ok(BigSize(vector["value"].as_u64().unwrap())),
            Some("NonMinimalBigSize") => Err(DecodeError::NonMinimalBigSize),
            Some("Short") => Err(DecodeError::Short),
            Some(other) => panic!("fault {other} in the fixture"),
        };
        assert_eq!(BigSize::decode_value(&bytes(&vector)), expected, "{}", vector["name"]);
    }
}

#[test]
fn encoding_vectors() {
    for vector in vectors("encoding") {
        assert_eq!(encoded(vector["value"].as_u64().unwrap()), bytes(&vector), "{}", vector["name"]);
    }
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn every_value_comes_back(value: u64, shift in 0_u32..64) {
        let value = value >> shift;
        prop_assert_eq!(BigSize::decode_value(&encoded(value)), Ok(BigSize(value)));
    }

    /// No two encodings of one value: what decodes is what would have been written.
    #[test]
    fn what_decodes_is_minimal(bytes: [u8; 9]) {
        let mut reader = Reader::new(&bytes);
        if let Ok(BigSize(value)) = BigSize::decode(&mut reader) {
            prop_assert_eq!(encoded(value), bytes[..9 - reader.remaining()].to_vec());
        }
    }
}
