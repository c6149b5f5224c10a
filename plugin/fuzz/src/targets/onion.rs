//! BOLT 4: packets, payloads, failures.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{PaymentSecret, ShortChannelId};
use outrigger_bolt::onion::{
    self, Failure, FinalPayload, ForwardPayload, Hop, OnionPacket, Payload, PaymentData, PeelError, Unwrapped, failure,
};

use super::Target;
use crate::allocation::bounded;
use crate::draw::Draw;

/// The associated data of every packet here.
const HASH: [u8; 32] = [9; 32];

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target::new("onion_packet", packet, || vec![built(1).to_vec(), built(3).to_vec()]),
        Target::new("onion_route", route, || vec![vec![], vec![3, 40, 1, 2, 3], vec![19, 255]]),
        Target::new("onion_payload_length", payload_length, || {
            vec![vec![0], vec![1], vec![0xfd, 0xff, 0xff], vec![0xfe, 0xff, 0xff, 0xff, 0xff]]
        }),
        Target::new("onion_payload_final", |data| payload(data, true), || vec![encoded(&last_payload())]),
        Target::new("onion_payload_forward", |data| payload(data, false), || vec![encoded(&forward_payload())]),
        Target::new("onion_failure_message", failure_message, || {
            let details = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat::new(1), height: 2 };
            vec![details.encode(), Failure::TemporaryNodeFailure.encode(), vec![]]
        }),
        Target::new("onion_failure_reason", failure_reason, || {
            vec![failure::create(&[0; 32], &Failure::TemporaryNodeFailure), vec![], vec![0; 65_535]]
        }),
    ]
}

fn key(number: usize) -> SecretKey {
    SecretKey::from_slice(&[u8::try_from(number + 1).expect("a small number"); 32]).expect("a key")
}

fn point(number: usize) -> PublicKey {
    key(number).public_key(&Secp256k1::new())
}

fn ecdh(number: usize) -> impl FnOnce(&PublicKey) -> [u8; 32] {
    move |point| SharedSecret::new(point, &key(number)).secret_bytes()
}

fn last_payload() -> Payload {
    Payload::Final(FinalPayload {
        amt_to_forward: Msat::new(1000),
        outgoing_cltv_value: 600,
        payment_data: Some(PaymentData { payment_secret: PaymentSecret([3; 32]), total_msat: Msat::new(1000) }),
        payment_metadata: Some(vec![1, 2, 3]),
        keysend_preimage: None,
    })
}

fn forward_payload() -> Payload {
    Payload::Forward(ForwardPayload {
        amt_to_forward: Msat::new(1000),
        outgoing_cltv_value: 600,
        short_channel_id: ShortChannelId::from_u64(7),
    })
}

fn encoded(payload: &Payload) -> Vec<u8> {
    payload.encode().expect("a short payload")
}

fn built(hops: usize) -> [u8; 1366] {
    let hop = |number| {
        let payload = if number + 1 == hops { last_payload() } else { forward_payload() };
        Hop { node: point(number), payload: encoded(&payload) }
    };
    let hops: Vec<_> = (0..hops).map(hop).collect();
    onion::build(&key(99), &hops, &HASH).expect("a short route").packet.to_bytes()
}

/// Any packet to one node: the true ones are peeled, all others are malformed.
fn packet(data: &[u8]) {
    let mut bytes = [0; 1366];
    let len = data.len().min(1366);
    bytes[..len].copy_from_slice(&data[..len]);
    let packet = OnionPacket::from_bytes(&bytes);
    assert_eq!(packet.to_bytes(), bytes);
    match bounded(bytes.len(), || onion::peel(ecdh(0), &packet, &HASH)) {
        Ok(peeled) => drop(Payload::decode(&peeled.payload, peeled.next.is_none())),
        Err(PeelError::InvalidPayload { .. }) => {}
        Err(PeelError::Malformed(malformed)) => {
            assert_eq!(malformed.sha256_of_onion, sha256::Hash::hash(&bytes).to_byte_array());
            assert_ne!(malformed.code & 0x8000, 0, "BADONION");
        }
    }
}

/// A route with payloads of any bytes: each hop finds its own, and a failure of any hop reaches the origin.
fn route(data: &[u8]) {
    let mut draw = Draw::new(data);
    let count = 1 + draw.below(20);
    let payloads: Vec<Vec<u8>> = (0..count)
        .map(|_| {
            let len = 2 + draw.below(120);
            let mut payload = draw.bytes(len).to_vec();
            payload.resize(len, 0);
            payload
        })
        .collect();
    let hops: Vec<_> = payloads
        .iter()
        .enumerate()
        .map(|(number, payload)| Hop { node: point(number), payload: payload.clone() })
        .collect();
    let needed: usize = payloads.iter().map(|payload| payload.len() + 33).sum();
    let Ok(built) = onion::build(&key(99), &hops, &HASH) else {
        return assert!(needed > 1300, "{needed} bytes fit");
    };
    let mut packet = built.packet;
    let failing = draw.below(count);
    let mut failing_secret = [0; 32];
    for (number, payload) in payloads.iter().enumerate() {
        let peeled = onion::peel(ecdh(number), &packet, &HASH).expect("a packet of this route");
        assert_eq!((&peeled.payload, peeled.shared_secret), (payload, built.shared_secrets[number]));
        if number == failing {
            failing_secret = peeled.shared_secret;
        }
        match peeled.next {
            Some(next) => packet = next,
            None => assert_eq!(number + 1, count),
        }
    }
    let message = draw.rest();
    let mut reason = failure::seal(&failing_secret, message, 256);
    for secret in built.shared_secrets[..failing].iter().rev() {
        reason = failure::wrap(secret, reason);
    }
    let kept = &message[..message.len().min(65_535)];
    let told = Unwrapped::Attributed { hop: failing, failure: Failure::decode(kept) };
    assert_eq!(failure::unwrap(&built.shared_secrets, &reason), told);
}

/// An authentic packet whose payloads begin with these bytes: a length that does not fit fails the HTLC, and nothing is
/// allocated for it (bad input 66).
fn payload_length(data: &[u8]) {
    let built =
        onion::build(&key(99), &[Hop { node: point(0), payload: vec![0; 1000] }], &HASH).expect("a short route");
    // What the payloads begin with is known, so the stream over them is too.
    let known = [&[0xfd, 0x03, 0xe8][..], &[0; 1000]].concat();
    let mut bytes = built.packet.to_bytes();
    for (byte, (wanted, was)) in bytes[34..].iter_mut().zip(data.iter().zip(&known)) {
        *byte ^= wanted ^ was;
    }
    let mu = hmac(b"mu", &[&built.shared_secrets[0]]);
    let tag = hmac(&mu, &[&bytes[34..1334], &HASH]);
    bytes[1334..].copy_from_slice(&tag);
    match bounded(1366, || onion::peel(ecdh(0), &OnionPacket::from_bytes(&bytes), &HASH)) {
        Ok(peeled) => assert!((2..1300).contains(&peeled.payload.len())),
        Err(PeelError::InvalidPayload { shared_secret }) => assert_eq!(shared_secret, built.shared_secrets[0]),
        Err(PeelError::Malformed(malformed)) => panic!("an authentic packet is {malformed}"),
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    parts.iter().for_each(|part| engine.input(part));
    Hmac::from_engine(engine).to_byte_array()
}

fn payload(data: &[u8], is_final: bool) {
    match bounded(data.len(), || Payload::decode(data, is_final)) {
        Ok(read) => {
            let again = Payload::decode(&encoded(&read), is_final).expect("what we write can be read");
            assert_eq!(again, read);
            assert_eq!(matches!(read, Payload::Final(_)), is_final);
        }
        Err(invalid) => assert!(usize::from(invalid.offset) <= data.len(), "a fault behind the payload"),
    }
}

fn failure_message(data: &[u8]) {
    let read = bounded(data.len(), || Failure::decode(data));
    let again = Failure::decode(&read.encode());
    if !matches!(read, Failure::Other { .. }) {
        assert_eq!(again, read);
    }
    assert!(!read.to_string().is_empty());
    let _ = read.is_permanent();
}

/// Bad input 70: whatever comes back is attributed to a hop that made it, or to nobody.
fn failure_reason(data: &[u8]) {
    let secrets = [[1; 32], [2; 32], [3; 32]];
    let read = bounded(data.len(), || failure::unwrap(&secrets, data));
    if let Unwrapped::Attributed { hop, .. } = read {
        assert!(hop < secrets.len());
    }
    let sealed = failure::wrap(&secrets[0], failure::seal(&secrets[1], data, 256));
    assert!(matches!(failure::unwrap(&secrets, &sealed), Unwrapped::Attributed { hop: 1, .. }));
}
