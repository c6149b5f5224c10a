//! BOLT 8: each act on both sides, the whole handshake, and the cipher after it.

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use outrigger_bolt::transport::cipher::LENGTH_HEADER_LEN;
use outrigger_bolt::transport::{Act, Decryptor, Encryptor, Established, HandshakeError, Initiator, Responder};

use super::Target;
use crate::allocation::bounded;
use crate::draw::Draw;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target::new("handshake_act_one", act_one, || vec![begin().0.to_vec()]),
        Target::new("handshake_act_two", act_two, || {
            let (act_one, _) = begin();
            vec![respond(&act_one).expect("a good act one").0.to_vec()]
        }),
        Target::new("handshake_act_three", act_three, || {
            let (act_one, initiator) = begin();
            let (act_two, _) = respond(&act_one).expect("a good act one");
            vec![initiator.act_two(&act_two).expect("a good act two").0.to_vec()]
        }),
        Target::new("handshake", handshake, || vec![vec![], vec![1, 3, 0x80], vec![2, 20, 1], vec![3, 65, 0xff]]),
        Target::new("cipher", cipher, || {
            // Past the first rotation of the keys, then one packet that was bent.
            let rotation = [0, 2, 7, 7].repeat(501);
            vec![vec![0, 3, 1, 2, 3], [&rotation[..], &[1, 0, 1]].concat(), vec![2, 0], vec![3, 200]]
        }),
    ]
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).expect("a key")
}

fn node(byte: u8) -> NodeId {
    NodeId::new(key(byte).public_key(&Secp256k1::new()))
}

fn begin() -> ([u8; 50], Initiator) {
    Initiator::begin(key(1), &node(2), key(3))
}

type ActTwo = ([u8; 50], outrigger_bolt::transport::handshake::ResponderAfterActTwo);

fn respond(act_one: &[u8]) -> Result<ActTwo, HandshakeError> {
    Responder::new(key(2), key(4)).act_one(act_one)
}

/// To the side that was connected to: only an act made for its key gets an answer.
fn act_one(data: &[u8]) {
    match bounded(data.len(), || respond(data)) {
        Ok((act_two, _)) => assert_eq!((data.len(), data[0], act_two[0]), (50, 0, 0)),
        Err(error) => assert_eq!(error.act, Act::One),
    }
}

/// To the side that connected: only the true answer to its act is taken.
fn act_two(data: &[u8]) {
    let (act_one, initiator) = begin();
    let (truth, _) = respond(&act_one).expect("a good act one");
    match bounded(data.len(), || initiator.act_two(data)) {
        Ok((_, established)) => assert_eq!((data, established.remote), (&truth[..], node(2))),
        Err(error) => assert_eq!(error.act, Act::Two),
    }
}

/// To the side that was connected to, again.
fn act_three(data: &[u8]) {
    let (act_one, initiator) = begin();
    let (act_two, responder) = respond(&act_one).expect("a good act one");
    let (truth, _) = initiator.act_two(&act_two).expect("a good act two");
    match bounded(data.len(), || responder.act_three(data)) {
        Ok(established) => assert_eq!((data, established.remote), (&truth[..], node(1))),
        Err(error) => assert_eq!(error.act, Act::Three),
    }
}

/// A whole handshake in which at most one act is bent: it is that act which is refused, and one left whole is not.
fn handshake(data: &[u8]) {
    let mut draw = Draw::new(data);
    let bent = draw.below(4);
    let at = usize::from(draw.byte());
    let by = draw.byte();
    let bend = |act: &mut [u8], number: usize| {
        let at = at % act.len();
        act[at] ^= if bent == number { by } else { 0 };
    };
    let is_refused = |number| bent == number && by != 0;

    let (mut one, initiator) = begin();
    bend(&mut one, 1);
    let Ok((mut two, responder)) = respond(&one) else { return assert!(is_refused(1), "act one was whole") };
    assert!(!is_refused(1), "a bent act one was taken");
    bend(&mut two, 2);
    let Ok((mut three, ours)) = initiator.act_two(&two) else { return assert!(is_refused(2), "act two was whole") };
    assert!(!is_refused(2), "a bent act two was taken");
    bend(&mut three, 3);
    let Ok(theirs) = responder.act_three(&three) else { return assert!(is_refused(3), "act three was whole") };
    assert!(!is_refused(3), "a bent act three was taken");
    assert_eq!((ours.remote, theirs.remote), (node(2), node(1)));
    let (Established { encryptor, .. }, Established { decryptor, .. }) = (ours, theirs);
    assert_eq!(carried(encryptor, decryptor, draw.rest()), Some(()));
}

fn carried(mut encryptor: Encryptor, mut decryptor: Decryptor, message: &[u8]) -> Option<()> {
    let packet = encryptor.encrypt(message).ok()?;
    let (header, body) = packet.split_first_chunk::<LENGTH_HEADER_LEN>()?;
    let len = decryptor.decrypt_length(header).ok()?;
    assert_eq!(usize::from(len), message.len());
    assert_eq!(decryptor.decrypt_message(body).ok()?, message);
    Some(())
}

/// Packets in a row, over the rotations of the keys: what is whole arrives, what is bent, replayed or made up does not.
fn cipher(data: &[u8]) {
    let (sk, ck) = ([5; 32], [6; 32]);
    let (mut encryptor, mut decryptor) = (Encryptor::new(sk, ck), Decryptor::new(sk, ck));
    let mut draw = Draw::new(data);
    let mut last = Vec::new();
    while !draw.is_empty() {
        let (kind, len) = (draw.below(4), usize::from(draw.byte()));
        let message = draw.bytes(len);
        let mut packet = encryptor.encrypt(message).expect("a short message");
        match kind {
            0 => {}
            1 => {
                let at = usize::from(draw.byte()) % packet.len();
                packet[at] ^= 1 << draw.below(8);
            }
            2 => packet = std::mem::replace(&mut last, packet),
            _ => packet = draw.bytes(200).to_vec(),
        }
        let read = bounded(packet.len(), || open(&mut decryptor, &packet));
        if kind == 0 {
            assert_eq!(read.as_deref(), Some(message));
            last = packet;
        } else {
            // Bad input 6: the connection is beyond use.
            return assert_eq!(read, None, "a packet of kind {kind} was taken");
        }
    }
}

fn open(decryptor: &mut Decryptor, packet: &[u8]) -> Option<Vec<u8>> {
    let (header, body) = packet.split_first_chunk::<LENGTH_HEADER_LEN>()?;
    let len = decryptor.decrypt_length(header).ok()?;
    let message = decryptor.decrypt_message(body).ok()?;
    assert_eq!(usize::from(len), message.len());
    Some(message)
}
