//! BOLT 1, appendix B: every TLV vector, in both of its namespaces.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::secp256k1::PublicKey;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::ShortChannelId;
use outrigger_bolt::wire::codec::{Reader, Truncated, Writer};
use outrigger_bolt::wire::tlv::{TlvStream, TlvWriter};
use outrigger_bolt::wire::{Decode, DecodeError, Encode, EncodeError};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

/// `tlv3` of the namespace `n1`.
#[derive(Clone, Debug, PartialEq)]
struct Tlv3 {
    node_id: PublicKey,
    amount_msat_1: Msat,
    amount_msat_2: Msat,
}

impl Decode for Tlv3 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node_id: Decode::decode(reader)?,
            amount_msat_1: Decode::decode(reader)?,
            amount_msat_2: Decode::decode(reader)?,
        })
    }
}

impl Encode for Tlv3 {
    fn encode(&self, writer: &mut Writer) {
        self.node_id.encode(writer);
        self.amount_msat_1.encode(writer);
        self.amount_msat_2.encode(writer);
    }
}

/// The namespace `n1`.
#[derive(Clone, Debug, Default, PartialEq)]
struct N1 {
    tlv1: Option<Truncated<u64>>,
    tlv2: Option<ShortChannelId>,
    tlv3: Option<Tlv3>,
    tlv4: Option<u16>,
}

impl N1 {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut n1 = Self::default();
        let mut stream = TlvStream::new(bytes);
        while let Some(record) = stream.next_record()? {
            match record.number {
                1 => n1.tlv1 = Some(record.decode()?),
                2 => n1.tlv2 = Some(record.decode()?),
                3 => n1.tlv3 = Some(record.decode()?),
                254 => n1.tlv4 = Some(record.decode()?),
                _ => record.ignore()?,
            }
        }
        Ok(n1)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let mut tlvs = TlvWriter::new(&mut writer);
        tlvs.optional(1, self.tlv1.as_ref());
        tlvs.optional(2, self.tlv2.as_ref());
        tlvs.optional(3, self.tlv3.as_ref());
        tlvs.optional(254, self.tlv4.as_ref());
        writer.finish().unwrap()
    }

    fn from_vector(values: &Value) -> Self {
        let number = |key: &str| values[key].as_str().map(|text| text.parse::<u64>().unwrap());
        Self {
            tlv1: number("amount_msat").map(Truncated),
            tlv2: values["scid"].as_str().map(|scid| scid.parse().unwrap()),
            tlv3: values["node_id"].as_str().map(|node_id| Tlv3 {
                node_id: node_id.parse().unwrap(),
                amount_msat_1: Msat::new(number("amount_msat_1").unwrap()),
                amount_msat_2: Msat::new(number("amount_msat_2").unwrap()),
            }),
            tlv4: number("cltv_delta").map(|delta| u16::try_from(delta).unwrap()),
        }
    }
}

/// The namespace `n2`: its `tlv1` and `tlv2`.
type N2 = (Option<Truncated<u64>>, Option<Truncated<u32>>);

fn decode_n2(bytes: &[u8]) -> Result<N2, DecodeError> {
    let (mut tlv1, mut tlv2) = (None, None);
    let mut stream = TlvStream::new(bytes);
    while let Some(record) = stream.next_record()? {
        match record.number {
            0 => tlv1 = Some(record.decode()?),
            11 => tlv2 = Some(record.decode()?),
            _ => record.ignore()?,
        }
    }
    Ok((tlv1, tlv2))
}

fn vectors(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/bolt1_tlv.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

fn stream(vector: &Value) -> Vec<u8> {
    hex::decode(vector["stream"].as_str().unwrap()).unwrap()
}

/// The error's name, without what it carries.
fn fault<T>(result: Result<T, DecodeError>) -> String {
    let debug = format!("{:?}", result.err().unwrap());
    debug.split(['(', ' ']).next().unwrap().to_owned()
}

#[test]
fn streams_that_fail_in_any_namespace() {
    for vector in vectors("fail_any").iter().chain(&vectors("fail_either")) {
        assert_eq!(fault(N1::decode(&stream(vector))), vector["fault"], "{vector}");
        assert_eq!(fault(decode_n2(&stream(vector))), vector["fault"], "{vector}");
    }
}

#[test]
fn streams_that_fail_in_n1() {
    for vector in vectors("fail_n1").iter().chain(&vectors("stream_fail_n1")) {
        assert_eq!(fault(N1::decode(&stream(vector))), vector["fault"], "{vector}");
    }
}

#[test]
fn streams_that_fail_in_n2() {
    for vector in &vectors("stream_fail_n2") {
        assert_eq!(fault(decode_n2(&stream(vector))), vector["fault"], "{vector}");
    }
}

#[test]
fn streams_of_unknown_odd_types_are_ignored() {
    for vector in vectors("ignored") {
        let bytes = hex::decode(vector.as_str().unwrap()).unwrap();
        assert_eq!(N1::decode(&bytes), Ok(N1::default()), "{vector}");
        assert_eq!(decode_n2(&bytes), Ok((None, None)), "{vector}");
    }
}

#[test]
fn streams_with_values_in_n1() {
    for vector in vectors("valid_n1") {
        let expected = N1::from_vector(&vector["values"]);
        assert_eq!(N1::decode(&stream(&vector)).as_ref(), Ok(&expected), "{vector}");
        assert_eq!(expected.encode(), stream(&vector), "{vector}");
    }
}

#[test]
fn an_invalid_stream_after_a_valid_one_fails() {
    for valid in vectors("valid_n1") {
        for part in ["fail_any", "fail_either", "fail_n1", "stream_fail_n1"] {
            for invalid in vectors(part) {
                let both = [stream(&valid), stream(&invalid)].concat();
                assert!(N1::decode(&both).is_err(), "{valid} {invalid}");
            }
        }
    }
}

#[test]
fn a_higher_stream_after_a_lower_one_decodes() {
    let valid = vectors("valid_n1");
    let number = |vector: &Value| TlvStream::new(&stream(vector)).next_record().unwrap().unwrap().number;
    for low in &valid {
        for high in valid.iter().filter(|high| number(high) > number(low)) {
            let both = [stream(low), stream(high)].concat();
            assert_eq!(N1::decode(&both).unwrap().encode(), both, "{low} {high}");
        }
    }
}

#[test]
fn n2_reads_its_own_types() {
    assert_eq!(decode_n2(&[0, 1, 7, 11, 2, 1, 0]), Ok((Some(Truncated(7)), Some(Truncated(256)))));
    assert_eq!(decode_n2(&[11, 5, 1, 0, 0, 0, 0]), Err(DecodeError::TooLong(1)));
}

/// A stream that breaks the order cannot be written.
#[test]
fn writing_out_of_order_is_refused() {
    let mut writer = Writer::new();
    let mut tlvs = TlvWriter::new(&mut writer);
    tlvs.record(3, &1_u16);
    tlvs.record(3, &2_u16);
    assert_eq!(writer.finish(), Err(EncodeError::TlvOrder { previous: 3, found: 3 }));
}

/// A length far beyond the input, up to 2^64-1, is refused before anything is made of it.
#[test]
fn prs_1_a_claimed_length_allocates_nothing() {
    for length in ["fdffff", "feffffffff", "ff7fffffffffffffff", "ffffffffffffffffff"] {
        let bytes = hex::decode(format!("01{length}00")).unwrap();
        assert_eq!(N1::decode(&bytes), Err(DecodeError::TlvPastEnd(1)), "{length}");
    }
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_n2(&bytes);
        if let Ok(n1) = N1::decode(&bytes) {
            prop_assert_eq!(N1::decode(&n1.encode()), Ok(n1));
        }
    }

    #[test]
    fn every_truncated_integer_comes_back(wide: u64, narrow: u16, shift in 0_u32..64) {
        let wide = Truncated(wide >> shift);
        let narrow = Truncated(narrow >> (shift % 16));
        let mut writer = Writer::new();
        let mut tlvs = TlvWriter::new(&mut writer);
        tlvs.record(1, &wide);
        tlvs.record(2, &narrow);
        let bytes = writer.finish().unwrap();
        let mut stream = TlvStream::new(&bytes);
        prop_assert_eq!(stream.next_record().unwrap().unwrap().decode(), Ok(wide));
        prop_assert_eq!(stream.next_record().unwrap().unwrap().decode(), Ok(narrow));
        prop_assert_eq!(stream.next_record(), Ok(None));
    }
}
