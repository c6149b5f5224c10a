//! BOLT 8, appendix A: every transport vector, and the bad inputs of a handshake and of a frame.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use outrigger_bolt::transport::cipher::{LENGTH_HEADER_LEN, MAC_LEN, MAX_PACKET_LEN};
use outrigger_bolt::transport::handshake::{ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN};
use outrigger_bolt::transport::{
    Act, BadMac, Decryptor, Encryptor, Established, HandshakeError, HandshakeFault, Initiator, MessageTooLong,
    Responder,
};
use outrigger_bolt::wire::{DecodeError, Message};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/bolt8.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

fn secret(value: &Value) -> SecretKey {
    SecretKey::from_slice(&bytes(value)).unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn node(secret: &SecretKey) -> NodeId {
    NodeId::new(secret.public_key(&Secp256k1::new()))
}

/// The fault that the vector's error names.
fn expected_error(step: &Value) -> HandshakeError {
    let error = step["error"].as_str().unwrap();
    let (act, fault) = error.split_once('_').unwrap();
    let act = match act {
        "ACT1" => Act::One,
        "ACT2" => Act::Two,
        "ACT3" => Act::Three,
        other => panic!("act {other} in the fixture"),
    };
    let fault = match fault {
        "READ_FAILED" => HandshakeFault::Length,
        "BAD_VERSION" | "BAD_VERSION 1" => HandshakeFault::Version(1),
        "BAD_PUBKEY" => HandshakeFault::PublicKey,
        "BAD_CIPHERTEXT" => HandshakeFault::Ciphertext,
        "BAD_TAG" => HandshakeFault::Tag,
        other => panic!("fault {other} in the fixture"),
    };
    HandshakeError { act, fault }
}

/// The keys show only in what they encrypt and decrypt.
fn assert_keys(mut established: Established, sk: [u8; 32], rk: [u8; 32]) {
    let ck = array(&fixture()["messages"]["ck"]);
    let ours = established.encryptor.encrypt(b"ours").unwrap();
    assert_eq!(ours, Encryptor::new(sk, ck).encrypt(b"ours").unwrap());
    let theirs = Encryptor::new(rk, ck).encrypt(b"theirs").unwrap();
    assert_eq!(receive(&mut established.decryptor, &theirs), Ok(b"theirs".to_vec()));
}

fn receive(decryptor: &mut Decryptor, packet: &[u8]) -> Result<Vec<u8>, BadMac> {
    let (header, body) = packet.split_first_chunk::<LENGTH_HEADER_LEN>().unwrap();
    let length = decryptor.decrypt_length(header)?;
    assert_eq!(usize::from(length) + MAC_LEN, body.len());
    decryptor.decrypt_message(body)
}

fn run_initiator(vector: &Value) {
    let remote = NodeId::from_slice(&bytes(&vector["rs.pub"])).unwrap();
    let steps = vector["steps"].as_array().unwrap();
    let (act_one, initiator) = Initiator::begin(secret(&vector["ls.priv"]), &remote, secret(&vector["e.priv"]));
    assert_eq!(act_one.to_vec(), bytes(&steps[0]["output"]));
    match (initiator.act_two(&bytes(&steps[1]["input"])), &steps[2..]) {
        (Ok((act_three, established)), [output, keys]) => {
            assert_eq!(act_three.to_vec(), bytes(&output["output"]));
            assert_eq!(established.remote, remote);
            assert_keys(established, array(&keys["sk"]), array(&keys["rk"]));
        }
        (Err(error), [expected]) => assert_eq!(error, expected_error(expected)),
        (_, rest) => panic!("unexpected outcome before {rest:?}"),
    }
}

fn run_responder(vector: &Value) {
    let steps = vector["steps"].as_array().unwrap();
    let responder = Responder::new(secret(&vector["ls.priv"]), secret(&vector["e.priv"]));
    let (act_two, responder) = match (responder.act_one(&bytes(&steps[0]["input"])), &steps[1..]) {
        (Ok(going_on), _) => going_on,
        (Err(error), [expected]) => return assert_eq!(error, expected_error(expected)),
        (Err(error), rest) => panic!("{error} before {rest:?}"),
    };
    assert_eq!(act_two.to_vec(), bytes(&steps[1]["output"]));
    match (responder.act_three(&bytes(&steps[2]["input"])), &steps[3]) {
        (Ok(established), keys) => {
            assert_eq!(established.remote, node(&key(0x11)));
            assert_keys(established, array(&keys["sk"]), array(&keys["rk"]));
        }
        (Err(error), expected) => assert_eq!(error, expected_error(expected)),
    }
}

#[test]
fn handshake_vectors() {
    let fixture = fixture();
    let vectors = fixture["handshakes"].as_array().unwrap();
    assert_eq!(vectors.len(), 15);
    for vector in vectors {
        println!("{}", vector["name"]);
        if vector["rs.pub"].is_null() { run_responder(vector) } else { run_initiator(vector) }
    }
}

/// 1002 messages, and so two rotations of the key.
#[test]
fn message_encryption_vectors() {
    let messages = &fixture()["messages"];
    let (ck, sk) = (array(&messages["ck"]), array(&messages["sk"]));
    let (mut encryptor, mut decryptor) = (Encryptor::new(sk, ck), Decryptor::new(sk, ck));
    let mut compared = 0;
    for count in 0..=1001 {
        let packet = encryptor.encrypt(&bytes(&messages["message"])).unwrap();
        if let Some(expected) = messages["outputs"].get(count.to_string()) {
            assert_eq!(packet, bytes(expected), "output {count}");
            compared += 1;
        }
        assert_eq!(receive(&mut decryptor, &packet), Ok(b"hello".to_vec()));
    }
    assert_eq!(compared, 6);
}

fn connect() -> (Established, Established) {
    let (act_one, initiator) = Initiator::begin(key(1), &node(&key(2)), key(3));
    let (act_two, responder) = Responder::new(key(2), key(4)).act_one(&act_one).unwrap();
    let (act_three, initiator) = initiator.act_two(&act_two).unwrap();
    (initiator, responder.act_three(&act_three).unwrap())
}

#[test]
fn both_sides_agree_and_know_each_other() {
    let (mut initiator, mut responder) = connect();
    assert_eq!(initiator.remote, node(&key(2)));
    assert_eq!(responder.remote, node(&key(1)));
    for count in 0..1200_u32 {
        let message = count.to_be_bytes();
        let packet = initiator.encryptor.encrypt(&message).unwrap();
        assert_eq!(receive(&mut responder.decryptor, &packet), Ok(message.to_vec()));
        let packet = responder.encryptor.encrypt(&message).unwrap();
        assert_eq!(receive(&mut initiator.decryptor, &packet), Ok(message.to_vec()));
    }
}

#[test]
fn bad_input_01_act_one_of_another_version() {
    let (mut act_one, _) = Initiator::begin(key(1), &node(&key(2)), key(3));
    act_one[0] = 1;
    let error = Responder::new(key(2), key(4)).act_one(&act_one).err();
    assert_eq!(error, Some(HandshakeError { act: Act::One, fault: HandshakeFault::Version(1) }));
}

#[test]
fn bad_input_02_act_one_of_49_bytes() {
    let (act_one, _) = Initiator::begin(key(1), &node(&key(2)), key(3));
    let error = Responder::new(key(2), key(4)).act_one(&act_one[..49]).err();
    assert_eq!(error, Some(HandshakeError { act: Act::One, fault: HandshakeFault::Length }));
}

#[test]
fn bad_input_03_act_one_with_a_key_off_the_curve() {
    let (mut act_one, _) = Initiator::begin(key(1), &node(&key(2)), key(3));
    // x = 5 has no point on the curve.
    act_one[1..34].copy_from_slice(&[[2; 1].as_slice(), &[0; 31], &[5]].concat());
    assert!(PublicKey::from_slice(&act_one[1..34]).is_err());
    let error = Responder::new(key(2), key(4)).act_one(&act_one).err();
    assert_eq!(error, Some(HandshakeError { act: Act::One, fault: HandshakeFault::PublicKey }));
}

/// Whoever expects another node gets nowhere: the responder cannot read act one.
#[test]
fn an_initiator_that_expects_another_node_fails_at_act_one() {
    let (act_one, _) = Initiator::begin(key(1), &node(&key(9)), key(3));
    let error = Responder::new(key(2), key(4)).act_one(&act_one).err();
    assert_eq!(error, Some(HandshakeError { act: Act::One, fault: HandshakeFault::Tag }));
}

#[test]
fn bad_input_04_any_bit_of_act_two_or_act_three_changed() {
    let (act_one, _) = Initiator::begin(key(1), &node(&key(2)), key(3));
    let (act_two, _) = Responder::new(key(2), key(4)).act_one(&act_one).unwrap();
    for bit in 0..ACT_TWO_LEN * 8 {
        let mut changed = act_two;
        changed[bit / 8] ^= 1 << (bit % 8);
        let (_, initiator) = Initiator::begin(key(1), &node(&key(2)), key(3));
        assert_eq!(initiator.act_two(&changed).err().unwrap().act, Act::Two, "bit {bit}");
    }
    let (_, initiator) = Initiator::begin(key(1), &node(&key(2)), key(3));
    let (act_three, _) = initiator.act_two(&act_two).unwrap();
    for bit in 0..ACT_THREE_LEN * 8 {
        let mut changed = act_three;
        changed[bit / 8] ^= 1 << (bit % 8);
        let (_, responder) = Responder::new(key(2), key(4)).act_one(&act_one).unwrap();
        let error = responder.act_three(&changed).err().unwrap();
        let fault = match bit / 8 {
            0 => HandshakeFault::Version(changed[0]),
            1..=49 => HandshakeFault::Ciphertext,
            _ => HandshakeFault::Tag,
        };
        assert_eq!(error, HandshakeError { act: Act::Three, fault }, "bit {bit}");
    }
}

#[test]
fn bad_input_06_length_mac_wrong() {
    let (mut initiator, mut responder) = connect();
    let packet = initiator.encryptor.encrypt(b"hello").unwrap();
    let mut header = *packet.first_chunk::<LENGTH_HEADER_LEN>().unwrap();
    header[0] ^= 1;
    assert_eq!(responder.decryptor.decrypt_length(&header), Err(BadMac));
}

#[test]
fn bad_input_06_replayed_packet() {
    let (mut initiator, mut responder) = connect();
    let packet = initiator.encryptor.encrypt(b"hello").unwrap();
    assert_eq!(receive(&mut responder.decryptor, &packet), Ok(b"hello".to_vec()));
    assert_eq!(receive(&mut responder.decryptor, &packet), Err(BadMac));
}

/// The first packet of a key is sent again when, a rotation later, its nonce comes round.
#[test]
fn bad_input_06_packet_under_the_key_before_a_rotation() {
    let (mut initiator, mut responder) = connect();
    let first = initiator.encryptor.encrypt(b"hello").unwrap();
    assert_eq!(receive(&mut responder.decryptor, &first), Ok(b"hello".to_vec()));
    for _ in 1..500 {
        let packet = initiator.encryptor.encrypt(b"hello").unwrap();
        assert_eq!(receive(&mut responder.decryptor, &packet), Ok(b"hello".to_vec()));
    }
    assert_eq!(receive(&mut responder.decryptor, &first), Err(BadMac));
    let packet = initiator.encryptor.encrypt(b"hello").unwrap();
    assert_eq!(receive(&mut responder.decryptor, &packet), Ok(b"hello".to_vec()));
}

#[test]
fn bad_input_07_frame_shorter_than_2_bytes() {
    for frame in [&[][..], &[0]] {
        let (mut initiator, mut responder) = connect();
        let packet = initiator.encryptor.encrypt(frame).unwrap();
        let received = receive(&mut responder.decryptor, &packet).unwrap();
        assert_eq!(Message::decode(&received), Err(DecodeError::NoType));
    }
}

#[test]
fn the_longest_message_fits_and_one_byte_more_is_refused() {
    let (mut initiator, mut responder) = connect();
    let longest = vec![7; 65535];
    let packet = initiator.encryptor.encrypt(&longest).unwrap();
    assert_eq!(packet.len(), MAX_PACKET_LEN);
    assert_eq!(MAX_PACKET_LEN, 65569);
    assert_eq!(receive(&mut responder.decryptor, &packet), Ok(longest));
    assert_eq!(initiator.encryptor.encrypt(&[0; 65536]), Err(MessageTooLong(65536)));
    // A refused message used no nonce.
    let packet = initiator.encryptor.encrypt(b"next").unwrap();
    assert_eq!(receive(&mut responder.decryptor, &packet), Ok(b"next".to_vec()));
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    let config = ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"));
    ProptestConfig { cases: 64, ..config }
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn random_acts_never_get_through(one: [u8; 32], noise in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(Responder::new(key(2), key(4)).act_one(&noise).is_err());
        let (_, initiator) = Initiator::begin(key(1), &node(&key(2)), key(3));
        prop_assert!(initiator.act_two(&noise).is_err());
        let (act_one, _) = Initiator::begin(key(1), &node(&key(2)), key(3));
        let (_, responder) = Responder::new(key(2), key(4)).act_one(&act_one).unwrap();
        prop_assert!(responder.act_three(&noise).is_err());
        let mut exact = [0; ACT_ONE_LEN];
        exact[1] = 2;
        exact[2..34].copy_from_slice(&one);
        prop_assert!(Responder::new(key(2), key(4)).act_one(&exact).is_err());
    }

    #[test]
    fn random_frames_never_get_through(
        header: [u8; LENGTH_HEADER_LEN],
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut decryptor = Decryptor::new([1; 32], [2; 32]);
        prop_assert_eq!(decryptor.decrypt_length(&header), Err(BadMac));
        prop_assert_eq!(decryptor.decrypt_message(&body), Err(BadMac));
    }
}
