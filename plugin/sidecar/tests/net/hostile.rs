//! Extensions that break the rules of a TLV stream, in messages about a channel; and texts that a log must not show raw.

use std::io::Write;
use std::sync::{Arc, Mutex};

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{ChannelReady, Error, Message, PeerText, Warning};
use tracing_subscriber::fmt::MakeWriter;

use super::raw_peer::RawPeer;
use super::{NODE, Node, secret};

const CHANNEL: [u8; 32] = [7; 32];
/// The key of a peer that no other test of this process has.
const LOGGED_PEER: u8 = 0x33;

/// The payloads of messages with a channel at their head, up to their extension.
fn messages() -> [(&'static str, Vec<u8>); 4] {
    let point = secret(NODE).public_key(&bitcoin::secp256k1::Secp256k1::new()).serialize();
    [
        ("channel_ready", [&[0, 36][..], &CHANNEL, &point].concat()),
        ("revoke_and_ack", [&[0, 133][..], &CHANNEL, &[1; 32], &point].concat()),
        ("update_fee", [&[0, 134][..], &CHANNEL, &[0, 0, 1, 0]].concat()),
        ("channel_reestablish", [&[0, 136][..], &CHANNEL, &[0; 16], &[0; 32], &point].concat()),
    ]
}

const BROKEN: [(&[u8], &str); 7] = [
    (&[0x05, 0x00, 0x03, 0x00], "tlv type 3 after 5: not strictly increasing"),
    (&[0x05, 0x00, 0x05, 0x00], "tlv type 5 after 5: not strictly increasing"),
    (&[0xfd, 0x00, 0x05, 0x00], "bigsize is not minimally encoded"),
    (&[0x05, 0xfd, 0x00, 0x01, 0xaa], "bigsize is not minimally encoded"),
    (&[0x05, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "tlv type 5: length exceeds the remaining bytes"),
    (&[0x05, 0x02, 0xaa], "tlv type 5: length exceeds the remaining bytes"),
    (&[0x06, 0x00], "unknown even tlv type 6"),
];

/// W, and it names the channel; what the message said of the channel was never read, so the channel itself is not failed.
#[tokio::test]
async fn bad_input_15_a_broken_extension_of_a_channel_message_is_warned_of_by_the_channels_name() {
    for (name, start) in messages() {
        for (extension, why) in BROKEN {
            let (mut node, mut peer) = Node::connected().await;
            peer.say(&[&start[..], extension].concat()).await;
            let data = PeerText::from(format!("a message cannot be read: {why}").as_str());
            let warning = Message::Warning(Warning { channel_id: ChannelId(CHANNEL), data });
            assert_eq!(peer.hear().await, Some(warning), "{name}: {why}");
            assert_eq!(peer.hear().await, None, "{name}: {why}");
            node.events.disconnected().await;
        }
    }
}

#[tokio::test]
async fn bad_input_15_unknown_odd_records_of_a_channel_message_are_ignored() {
    let (mut node, mut peer) = Node::connected().await;
    let odd = [0x05, 0x01, 0xaa, 0xfd, 0x01, 0x03, 0x00];
    for (name, start) in messages() {
        peer.say(&[&start[..], &odd].concat()).await;
        let (_, heard, _) = node.events.message().await;
        assert_eq!((heard.name(), heard.channel_id()), (name, Some(ChannelId(CHANNEL))));
        assert!(!matches!(heard, Message::ChannelReady(ChannelReady { short_channel_id: Some(_), .. })));
    }
}

/// What was logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The log as `main` sets it up, and in it no byte but printable ASCII, and no line longer than a text that was cut.
#[tokio::test]
async fn bad_input_17_prs_5_prs_9_the_log_shows_a_peers_text_escaped_and_cut() {
    let log = Log::default();
    tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).init();
    let (mut node, address) = Node::listening().await;
    let mut peer = RawPeer::connect(address, LOGGED_PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    node.events.connected().await;
    let id = secret(LOGGED_PEER).public_key(&bitcoin::secp256k1::Secp256k1::new()).to_string();
    let mut cut = "é\u{202e}日".repeat(20).into_bytes();
    cut.truncate(cut.len() - 1);
    let texts = [
        b"ok\x1b[2J\r\n\xe2\x80\xae evil \xe2\x80\xa8 line".to_vec(),
        vec![b'x'; 65_535 - 36],
        vec![0xff; 65_535 - 36],
        cut,
        b"2026-01-01 ERROR somebody else said this\n".repeat(3),
    ];
    for text in &texts {
        let channel_id = ChannelId(CHANNEL);
        peer.send(Message::Error(Error { channel_id, data: PeerText::from(text.clone()) })).await;
        peer.send(Message::Warning(Warning { channel_id, data: PeerText::from(text.clone()) })).await;
        node.events.message().await;
        node.events.message().await;
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = logged.lines().filter(|line| line.contains(&id)).collect();
    let of_texts = lines.iter().filter(|line| line.contains("error: ") || line.contains("warning: ")).count();
    assert_eq!(of_texts, texts.len() * 2, "one line each: {logged}");
    assert!(logged.chars().all(|char| char == '\n' || (' '..='~').contains(&char)), "{logged:?}");
    assert!(lines.iter().all(|line| line.len() < 256 + 66 + 120), "{logged}");
}
