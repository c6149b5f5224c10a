//! Messages of BOLT 1, 2 and 7, and what they are made of.

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use outrigger_bolt::features::Features;
use outrigger_bolt::wire::codec::{BigSize, Decode, Encode, Reader, Truncated, Writer};
use outrigger_bolt::wire::tlv::{Extension, TlvStream, TlvWriter};
use outrigger_bolt::wire::{ChannelUpdate, DecodeError, EncodeError, Message, PeerText, channel_id_in};

use super::Target;
use crate::allocation::bounded;

/// Type, name and fields of every message: `h` 32 bytes, `p` a point, `s` a signature, `v` bytes behind their u16 length,
/// `o` an onion, digits integers of so many bytes; behind `+` the records of the extension, each its type and its fields.
const MESSAGES: [(u16, &str, &str); 27] = [
    (1, "wire_warning", "hv"),
    (16, "wire_init", "vv+1h,3v,5:"),
    (17, "wire_error", "hv"),
    (18, "wire_ping", "2v"),
    (19, "wire_pong", "v"),
    (32, "wire_open_channel", "hh888888422pppppp1+0:,1v"),
    (33, "wire_accept_channel", "h8888422pppppp+0:,1v"),
    (34, "wire_funding_created", "hh2s"),
    (35, "wire_funding_signed", "hs"),
    (36, "wire_channel_ready", "hp+18"),
    (38, "wire_shutdown", "hv"),
    (39, "wire_closing_signed", "h8s+188"),
    (40, "wire_closing_complete", "hvv84+1s,2s,3s"),
    (41, "wire_closing_sig", "hvv84+1s,2s,3s"),
    (128, "wire_update_add_htlc", "h88h4o+0p"),
    (130, "wire_update_fulfill_htlc", "h8h"),
    (131, "wire_update_fail_htlc", "h8v"),
    (132, "wire_commitment_signed", "hsn"),
    (133, "wire_revoke_and_ack", "hhp"),
    (134, "wire_update_fee", "h4"),
    (135, "wire_update_fail_malformed_htlc", "h8h2"),
    (136, "wire_channel_reestablish", "h88hp"),
    (256, "wire_channel_announcement", "ssssvhhh"),
    (257, "wire_node_announcement", "sv4pv"),
    (258, "wire_channel_update", "sh841128448"),
    (259, "wire_announcement_signatures", "h8ss"),
    (265, "wire_gossip_timestamp_filter", "h44"),
];

pub(super) fn targets() -> Vec<Target> {
    let of_type = |(number, name, fields): (u16, &'static str, &'static str)| {
        Target::new(name, move |data| message(&[&number.to_be_bytes(), data].concat()), move || seeds_of(fields))
    };
    let mut targets: Vec<_> = MESSAGES.into_iter().map(of_type).collect();
    targets.extend([
        Target::new("wire_message", message, || {
            MESSAGES.iter().map(|(number, _, fields)| [&number.to_be_bytes()[..], &payload(fields)].concat()).collect()
        }),
        Target::new("wire_tlv_stream", tlv_stream, || vec![vec![], vec![0, 1, 2, 0xfd, 0x01, 0x00, 2, 3, 4]]),
        Target::new("wire_bigsize", bigsize, || vec![vec![0], vec![0xfd, 1, 0], vec![0xff; 9]]),
        Target::new("wire_truncated_integer", truncated, || vec![vec![], vec![1, 2, 3]]),
        Target::new("wire_features", features, || vec![Features::init().to_be_bytes(), vec![0xff; 300]]),
        Target::new("wire_peer_text", peer_text, || vec!["sync error \u{202e}\u{2028}".into(), vec![0xff; 400]]),
        Target::new("wire_channel_update_signed", channel_update, || vec![payload("sh841128448")]),
    ]);
    targets
}

/// The point of a message's fields.
fn point(number: u8) -> [u8; 33] {
    SecretKey::from_slice(&[number.max(1); 32]).expect("a key").public_key(&Secp256k1::new()).serialize()
}

/// A payload with these fields.
pub(super) fn payload(fields: &str) -> Vec<u8> {
    let (fixed, records) = fields.split_once('+').unwrap_or((fields, ""));
    let mut bytes = values(fixed);
    for record in records.split(',').filter(|record| !record.is_empty()) {
        let (number, value) = record.split_at(1);
        let value = match value {
            "v" => vec![1, 2, 3],
            other => values(other.trim_start_matches(':')),
        };
        bytes.push(number.as_bytes()[0] - b'0');
        bytes.push(u8::try_from(value.len()).expect("a short value"));
        bytes.extend(value);
    }
    bytes
}

fn values(fields: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, field) in (1_u8..).zip(fields.chars()) {
        match field {
            'h' => bytes.extend([number; 32]),
            'p' => bytes.extend(point(number)),
            's' => bytes.extend([number; 64]),
            'v' => bytes.extend([0, 3, 1, 2, 3]),
            'n' => bytes.extend([&[0, 2][..], &[number; 128]].concat()),
            'o' => bytes.extend([number; 1366]),
            digit => bytes.extend((0..digit.to_digit(10).expect("a field")).map(|place| place as u8)),
        }
    }
    bytes
}

fn seeds_of(fields: &str) -> Vec<Vec<u8>> {
    vec![payload(fields), payload(fields.split('+').next().expect("fields"))]
}

/// The whole message: what is read is written as the same message, and any fault names its sender's mistake.
fn message(data: &[u8]) {
    let decoded = bounded(data.len(), || Message::decode(data));
    let named = channel_id_in(data);
    let message = match decoded {
        Ok(message) => message,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return;
        }
    };
    if let Some(channel) = message.channel_id() {
        assert!(named.is_none_or(|named| named == channel), "the raw bytes name another channel");
    }
    match message.encode() {
        Ok(bytes) => {
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message), "read, written, read");
            assert_eq!(
                Message::decode(&bytes).and_then(|again| again.encode().map_err(|_| DecodeError::Short)),
                Ok(bytes)
            );
        }
        Err(EncodeError::TooLong) => assert!(data.len() > 65_535),
        Err(fault @ EncodeError::TlvOrder { .. }) => panic!("{fault}"),
    }
}

/// Records come by rising types, and writing them again gives the same bytes.
fn tlv_stream(data: &[u8]) {
    let mut stream = TlvStream::new(data);
    let mut writer = Writer::new();
    let mut again = TlvWriter::new(&mut writer);
    loop {
        match stream.next_record() {
            Ok(Some(record)) => again.record(record.number, &record.value.to_vec()),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    assert_eq!(writer.finish().as_deref(), Ok(data), "one stream, one encoding");
    let extension = Extension::decode_value(data);
    assert_eq!(extension.map(|extension| extension.as_bytes().to_vec()).unwrap_or(data.to_vec()), data);
}

fn bigsize(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok(number) = BigSize::decode(&mut reader) else { return };
    let read = data.len() - reader.remaining();
    assert_eq!(written(&number), data[..read], "one number, one encoding");
}

fn truncated(data: &[u8]) {
    if let Ok(number) = Truncated::<u64>::decode_value(data) {
        assert_eq!(written(&number), data, "one number, one encoding");
    }
    if let Ok(number) = Truncated::<u32>::decode_value(data) {
        assert_eq!(written(&number), data, "one number, one encoding");
    }
}

fn written(value: &impl Encode) -> Vec<u8> {
    let mut writer = Writer::new();
    value.encode(&mut writer);
    writer.finish().expect("a number has an encoding")
}

fn features(data: &[u8]) {
    let read = bounded(data.len(), || Features::from_be_bytes(data));
    assert_eq!(Features::from_be_bytes(&read.to_be_bytes()), read);
    let ours = Features::init();
    let (_, _) = (read.check(&ours), read.check_dependencies());
    let both = read.union(&ours);
    assert!(read.bits().all(|bit| u16::try_from(bit).is_ok_and(|bit| both.has_bit(bit)) || bit > 65_535));
    assert!(!format!("{read:?}").is_empty());
}

/// What is shown of a peer's text is short and printable, whatever it holds (bad input 17).
fn peer_text(data: &[u8]) {
    let shown = PeerText::from(data.to_vec()).to_string();
    assert!(shown.chars().count() <= 256 + 1, "{} characters are shown", shown.chars().count());
    assert!(shown.chars().all(|char| (' '..='~').contains(&char) || char == '…'), "{shown:?}");
}

fn channel_update(data: &[u8]) {
    let Ok(update) = ChannelUpdate::decode_value(data) else { return };
    let key = SecretKey::from_slice(&[1; 32]).expect("a key").public_key(&Secp256k1::new());
    assert!(!update.is_signed_by(&Secp256k1::verification_only(), &key), "nobody signed this");
    let Ok(message) = update.clone().into_message() else { return };
    let Message::Gossip(gossip) = message else { panic!("not gossip") };
    assert_eq!(ChannelUpdate::from_gossip(&gossip), Some(Ok(update)));
}
