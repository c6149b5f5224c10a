//! BOLT 4: packets and payloads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{PaymentPreimage, PaymentSecret, ShortChannelId};
use outrigger_bolt::onion::{
    BuildError, FinalPayload, ForwardPayload, Hop, InvalidPayload, Malformed, OnionPacket, Payload, PaymentData,
    PeelError, Peeled, build, peel,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

const ASSOCIATED_DATA: [u8; 32] = [0x42; 32];

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn node(byte: u8) -> PublicKey {
    key(byte).public_key(&Secp256k1::new())
}

fn peel_as(byte: u8, packet: &OnionPacket, associated_data: &[u8]) -> Result<Peeled, PeelError> {
    peel(|point| SharedSecret::new(point, &key(byte)).secret_bytes(), packet, associated_data)
}

/// The vectors keep the length in front of each payload.
fn without_length(framed: &[u8]) -> Vec<u8> {
    let length_bytes = if framed[0] == 0xfd { 3 } else { 1 };
    framed[length_bytes..].to_vec()
}

fn hops_of(vector: &Value) -> Vec<Hop> {
    let hop = |hop: &Value| Hop {
        node: hop["pubkey"].as_str().unwrap().parse().unwrap(),
        payload: without_length(&bytes(&hop["payload"])),
    };
    vector.as_array().unwrap().iter().map(hop).collect()
}

/// The packet of a payment along a blinded path. Hops up to the path's first node peel with their own keys; those behind
/// it need the keys of route blinding, which is not there yet.
#[test]
fn blinded_payment_onion_vector_builds_and_peels_up_to_the_blinded_path() {
    let vector: Value = serde_json::from_str(include_str!("fixtures/bolt04-blinded-payment-onion-test.json")).unwrap();
    let generate = &vector["generate"];
    let hops = hops_of(&generate["full_route"]["hops"]);
    let session_key = SecretKey::from_slice(&bytes(&generate["session_key"])).unwrap();
    let associated_data = bytes(&generate["associated_data"]);
    let built = build(&session_key, &hops, &associated_data).unwrap();
    assert_eq!(hex::encode(built.packet.to_bytes()), generate["onion"].as_str().unwrap());

    let seen = vector["decrypt"]["hops"].as_array().unwrap();
    for (place, next) in [(0, 1), (1, 2)] {
        let packet = OnionPacket::from_bytes(&bytes(&seen[place]["onion"]).try_into().unwrap());
        let node_key = bytes(&seen[place]["node_privkey"]);
        let peeled = peel_as(node_key[0], &packet, &associated_data).unwrap();
        assert_eq!(peeled.payload, hops[place].payload);
        assert_eq!(hex::encode(peeled.next.unwrap().to_bytes()), seen[next]["onion"].as_str().unwrap());
    }
}

#[test]
fn onion_test_vector_builds_and_peels() {
    let vector: Value = serde_json::from_str(include_str!("fixtures/bolt04-onion-test.json")).unwrap();
    let generate = &vector["generate"];
    let hops = hops_of(&generate["hops"]);
    let session_key = SecretKey::from_slice(&bytes(&generate["session_key"])).unwrap();
    let associated_data = bytes(&generate["associated_data"]);
    let built = build(&session_key, &hops, &associated_data).unwrap();
    assert_eq!(hex::encode(built.packet.to_bytes()), vector["onion"].as_str().unwrap());

    let mut packet = Some(OnionPacket::from_bytes(&bytes(&vector["onion"]).try_into().unwrap()));
    let keys = vector["decode"].as_array().unwrap();
    assert_eq!(keys.len(), hops.len());
    for (place, hop) in hops.iter().enumerate() {
        let node_key = bytes(&keys[place]);
        let peeled = peel_as(node_key[0], &packet.unwrap(), &associated_data).unwrap();
        assert_eq!(peeled.payload, hop.payload);
        assert_eq!(peeled.shared_secret, built.shared_secrets[place]);
        packet = peeled.next;
    }
    assert_eq!(packet, None);
}

fn route(payloads: &[usize]) -> Vec<Hop> {
    (1..).zip(payloads).map(|(byte, length)| Hop { node: node(byte), payload: vec![byte; *length] }).collect()
}

fn peel_all(hops: &[Hop], packet: OnionPacket) {
    let mut packet = Some(packet);
    for (byte, hop) in (1..).zip(hops) {
        let peeled = peel_as(byte, &packet.unwrap(), &ASSOCIATED_DATA).unwrap();
        assert_eq!(peeled.payload, hop.payload);
        packet = peeled.next;
    }
    assert_eq!(packet, None);
}

#[test]
fn any_number_of_hops_up_to_1300_bytes() {
    // Frames of 1 + 2 + 32, of 1 + 33 + 32, and a single one that fills the packet.
    for payloads in [vec![2; 37], vec![33; 19], vec![1300 - 32 - 3], vec![2, 1300 - 32 - 3 - 35], vec![1230, 2]] {
        let hops = route(&payloads);
        peel_all(&hops, build(&key(0x41), &hops, &ASSOCIATED_DATA).unwrap().packet);
    }
    let refused = |payloads: &[usize]| build(&key(0x41), &route(payloads), &ASSOCIATED_DATA).err();
    assert_eq!(refused(&[1300 - 32 - 2]), Some(BuildError::TooLarge { needed: 1301 }));
    assert_eq!(refused(&[2; 38]), Some(BuildError::TooLarge { needed: 38 * 35 }));
    assert_eq!(refused(&[70_000]), Some(BuildError::TooLarge { needed: 70_000 + 5 + 32 }));
    assert_eq!(refused(&[]), Some(BuildError::NoHops));
    assert_eq!(refused(&[5, 1]), Some(BuildError::PayloadTooShort { hop: 1 }));
}

#[test]
fn bad_input_65_version_key_or_hmac_wrong_is_malformed() {
    let packet = build(&key(0x41), &route(&[20, 20]), &ASSOCIATED_DATA).unwrap().packet.to_bytes();
    let sha256_of_onion = |bytes: &[u8]| sha256::Hash::hash(bytes).to_byte_array();
    // Which byte to change into what, and the BADONION code that answers.
    let cases = [(0, 1, 0xc004), (0, 0xff, 0xc004), (1, 5, 0xc006), (40, 0, 0xc005), (1340, 0, 0xc005)];
    for (place, byte, code) in cases {
        let mut broken = packet;
        assert_ne!(broken[place], byte);
        broken[place] = byte;
        let outcome = peel_as(1, &OnionPacket::from_bytes(&broken), &ASSOCIATED_DATA);
        let malformed = Malformed { code, sha256_of_onion: sha256_of_onion(&broken) };
        assert_eq!(outcome, Err(PeelError::Malformed(malformed)), "byte {place}");
    }
    let malformed = Malformed { code: 0xc005, sha256_of_onion: sha256_of_onion(&packet) };
    let packet = OnionPacket::from_bytes(&packet);
    assert_eq!(peel_as(1, &packet, &[0; 32]), Err(PeelError::Malformed(malformed)), "of another payment");
    assert_eq!(peel_as(2, &packet, &ASSOCIATED_DATA), Err(PeelError::Malformed(malformed)), "for another node");
}

/// An authentic packet for node 1 whose decrypted payloads start with these bytes.
fn authentic_packet(start: &[u8]) -> (OnionPacket, [u8; 32]) {
    let shared_secret = SharedSecret::new(&node(1), &key(0x41)).secret_bytes();
    let hmac = |key: &[u8], parts: &[&[u8]]| {
        use bitcoin::hashes::{HashEngine, Hmac, HmacEngine};
        let mut engine = HmacEngine::<sha256::Hash>::new(key);
        parts.iter().for_each(|part| engine.input(part));
        Hmac::from_engine(engine).to_byte_array()
    };
    // The stream is what a packet of known content is XORed with.
    let known = build(&key(0x41), &route(&[1265]), &ASSOCIATED_DATA).unwrap().packet.to_bytes();
    let plain = [&[0xfd, 0x04, 0xf1][..], &[1; 1265], &[0; 32]].concat();
    let mut wanted = start.to_vec();
    wanted.resize(1300, 0);
    let payloads: Vec<u8> = known[34..1334]
        .iter()
        .zip(&plain)
        .zip(&wanted)
        .map(|((known, plain), wanted)| known ^ plain ^ wanted)
        .collect();
    let mac = hmac(&hmac(b"mu", &[&shared_secret]), &[&payloads, &ASSOCIATED_DATA]);
    let packet = [&known[..34], &payloads, &mac].concat();
    (OnionPacket::from_bytes(&packet.try_into().unwrap()), shared_secret)
}

#[test]
fn bad_input_66_payload_length_that_does_not_fit_fails_the_htlc() {
    let lengths: [&[u8]; 10] = [
        &[0],
        &[1, 7],
        &[0xfd, 0x00, 0x05],
        &[0xfd, 0x04, 0xf2],
        &[0xfd, 0xff, 0xff],
        &[0xfe, 0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
        &[0xfe, 0, 0, 0x05, 0x14],
        &[0xff, 0, 0, 0, 0, 0, 0, 0, 2],
    ];
    for start in lengths {
        let (packet, shared_secret) = authentic_packet(start);
        let outcome = peel_as(1, &packet, &ASSOCIATED_DATA);
        assert_eq!(outcome, Err(PeelError::InvalidPayload { shared_secret }), "{start:02x?}");
    }
    let (packet, shared_secret) = authentic_packet(&[2, 0xaa, 0xbb]);
    let peeled = peel_as(1, &packet, &ASSOCIATED_DATA);
    assert_eq!(peeled, Ok(Peeled { shared_secret, payload: vec![0xaa, 0xbb], next: None }));
}

fn forward() -> ForwardPayload {
    ForwardPayload {
        amt_to_forward: Msat::new(15_000),
        outgoing_cltv_value: 1500,
        short_channel_id: ShortChannelId::from_u64(1),
    }
}

fn last() -> FinalPayload {
    FinalPayload {
        amt_to_forward: Msat::new(10_000),
        outgoing_cltv_value: 1000,
        payment_data: Some(PaymentData { payment_secret: PaymentSecret([0x24; 32]), total_msat: Msat::new(20_000) }),
        payment_metadata: Some(vec![0x2a; 300]),
        keysend_preimage: Some(PaymentPreimage([9; 32])),
    }
}

#[test]
fn payloads_of_the_onion_test_vector() {
    let vector: Value = serde_json::from_str(include_str!("fixtures/bolt04-onion-test.json")).unwrap();
    let payload = |place: usize| without_length(&bytes(&vector["generate"]["hops"][place]["payload"]));
    let first = Payload::decode(&payload(0), false);
    assert_eq!(first, Ok(Payload::Forward(forward())));
    assert_eq!(first.unwrap().encode().unwrap(), payload(0));

    let Ok(Payload::Final(last)) = Payload::decode(&payload(4), true) else { panic!("no final payload") };
    assert_eq!((last.amt_to_forward, last.outgoing_cltv_value), (Msat::new(10_000), 1000));
    assert_eq!(last.payment_data.map(|data| data.total_msat), Some(Msat::new(10_000)));
    // Its odd record 301 is passed over.
    assert!(payload(4).starts_with(&Payload::Final(last).encode().unwrap()));
}

#[test]
fn bad_input_67_payloads_that_cannot_be_acted_on() {
    let invalid = |tlv_type, offset| Err(InvalidPayload { tlv_type, offset });
    // Payload, whether it is the final node's, and the outcome.
    let cases: [(&str, bool, Result<Payload, InvalidPayload>); 17] = [
        ("02023a98040205dc06080000000000000001", false, Ok(Payload::Forward(forward()))),
        ("040205dc06080000000000000001", false, invalid(2, 0)),
        ("02023a9806080000000000000001", false, invalid(4, 0)),
        ("02023a98040205dc", false, invalid(6, 0)),
        ("02023a98040205dc06080000000000000001", true, invalid(6, 0)),
        ("", true, invalid(2, 0)),
        // Unknown even type 14, unknown odd type 15.
        ("02023a98040205dc060800000000000000010e0101", false, invalid(14, 18)),
        ("02023a98040205dc060800000000000000010f0101", false, Ok(Payload::Forward(forward()))),
        // encrypted_recipient_data and current_path_key belong to blinded paths, which are not understood.
        ("02023a98040205dc0a0101", true, invalid(10, 8)),
        // Not minimal, too long, out of order, past the end, cut off.
        ("0203003a98040205dc06080000000000000001", false, invalid(2, 0)),
        ("02023a9804050102030405", true, invalid(4, 4)),
        ("040205dc02023a98", true, invalid(2, 4)),
        ("02023a98040205dc02023a98", true, invalid(2, 8)),
        ("02023a98040205dc0608000001", false, invalid(6, 8)),
        ("02023a98fd", false, invalid(0, 4)),
        ("02023a98040205dc06070000000000000001", false, invalid(6, 8)),
        // payment_data of 31 bytes.
        ("02023a98040205dc081f24242424242424242424242424242424242424242424242424242424242424", true, invalid(8, 8)),
    ];
    for (hex, is_final, outcome) in cases {
        assert_eq!(Payload::decode(&hex::decode(hex).unwrap(), is_final), outcome, "{hex}");
    }
    let for_the_last = Payload::Final(last()).encode().unwrap();
    assert_eq!(Payload::decode(&for_the_last, true), Ok(Payload::Final(last())));
    let with_scid = [&hex::decode("02023a98040205dc06080000000000000001").unwrap()[..], &[0x08, 32], &[7; 32]].concat();
    assert_eq!(Payload::decode(&with_scid, false), Err(InvalidPayload { tlv_type: 8, offset: 0 }));
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
    }
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn random_packets_do_not_panic(packet in prop::collection::vec(any::<u8>(), 1366), good_start in any::<bool>()) {
        let mut packet: [u8; 1366] = packet.try_into().unwrap();
        if good_start {
            packet[0] = 0;
            packet[1..34].copy_from_slice(&node(7).serialize());
        }
        let onion = OnionPacket::from_bytes(&packet);
        prop_assert_eq!(onion.to_bytes(), packet);
        prop_assert!(matches!(peel_as(1, &onion, &ASSOCIATED_DATA), Err(PeelError::Malformed(_))));
    }

    #[test]
    fn random_routes_are_peeled_hop_by_hop(
        lengths in prop::collection::vec(2_usize..300, 1..8), session in 1_u8..255, flip in 1_usize..1366
    ) {
        let hops = route(&lengths);
        let needed: usize = lengths.iter().map(|length| length + 32 + if *length < 0xfd { 1 } else { 3 }).sum();
        match build(&key(session), &hops, &ASSOCIATED_DATA) {
            Ok(built) => {
                prop_assert!(needed <= 1300);
                let mut broken = built.packet.to_bytes();
                broken[flip] ^= 1;
                let outcome = peel_as(1, &OnionPacket::from_bytes(&broken), &ASSOCIATED_DATA);
                prop_assert!(matches!(outcome, Err(PeelError::Malformed(_))));
                peel_all(&hops, built.packet);
            }
            Err(error) => prop_assert_eq!(error, BuildError::TooLarge { needed }),
        }
    }

    #[test]
    fn authentic_packets_of_random_content_do_not_panic(start in prop::collection::vec(any::<u8>(), 0..1300)) {
        let (packet, secret) = authentic_packet(&start);
        match peel_as(1, &packet, &ASSOCIATED_DATA) {
            Ok(peeled) => { let _ = Payload::decode(&peeled.payload, peeled.next.is_none()); }
            Err(error) => prop_assert_eq!(error, PeelError::InvalidPayload { shared_secret: secret }),
        }
    }

    #[test]
    fn payloads_of_random_bytes_do_not_panic(payload in prop::collection::vec(any::<u8>(), 0..80), last in any::<bool>()) {
        if let Ok(decoded) = Payload::decode(&payload, last) {
            prop_assert_eq!(Payload::decode(&decoded.encode().unwrap(), last), Ok(decoded));
        }
    }
}
