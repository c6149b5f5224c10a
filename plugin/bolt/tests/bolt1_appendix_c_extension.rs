//! BOLT 1, appendix C: extensions of `init`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use outrigger_bolt::features::Features;
use outrigger_bolt::wire::{DecodeError, Init, Message};
use serde_json::Value;

fn vectors(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/bolt1_extension.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

#[test]
fn valid_extensions() {
    let plain =
        Init { globalfeatures: Features::empty(), features: Features::empty(), networks: None, remote_addr: None };
    for vector in vectors("valid") {
        let bytes = hex::decode(vector.as_str().unwrap()).unwrap();
        assert_eq!(Message::decode(&bytes), Ok(Message::Init(plain.clone())), "{vector}");
    }
}

#[test]
fn invalid_extensions() {
    for vector in vectors("invalid") {
        let bytes = hex::decode(vector["message"].as_str().unwrap()).unwrap();
        let expected = match vector["fault"].as_str().unwrap() {
            "Short" => DecodeError::Short,
            "UnknownEvenTlv" => DecodeError::UnknownEvenTlv(0xca),
            "TlvOrder" => DecodeError::TlvOrder { previous: 0xc9, found: 0xc9 },
            other => panic!("fault {other} in the fixture"),
        };
        assert_eq!(Message::decode(&bytes), Err(expected), "{vector}");
    }
}
