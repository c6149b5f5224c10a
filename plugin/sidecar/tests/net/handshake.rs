//! BOLT 8's handshake over real sockets: whatever is wrong with an act, the socket closes and nothing is said.

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::transport::handshake::{ACT_ONE_LEN, ACT_TWO_LEN};
use outrigger_bolt::transport::{Initiator, Responder};
use outrigger_bolt::wire::{Error, Message, PeerText};
use outrigger_sidecar::net::{DialFault, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::raw_peer::{EPHEMERAL, RawPeer};
use super::{NODE, Node, PEER, init, secret};

/// The node hangs up, having said nothing more and having told its manager nothing.
async fn assert_dropped(mut node: Node, mut stream: TcpStream) {
    let mut said = Vec::new();
    // A reset is as good as an end: both say nothing.
    let _ = stream.read_to_end(&mut said).await;
    assert_eq!(said, Vec::<u8>::new());
    assert!(node.events.none());
}

async fn assert_act_one_is_dropped(spoil: impl FnOnce(&mut [u8; ACT_ONE_LEN])) {
    let (node, address) = Node::listening().await;
    let (mut act_one, _) = Initiator::begin(secret(PEER), &node.network.node_id(), secret(EPHEMERAL));
    spoil(&mut act_one);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&act_one).await.unwrap();
    assert_dropped(node, stream).await;
}

#[tokio::test]
async fn bad_input_01_act_one_of_another_version_is_dropped() {
    assert_act_one_is_dropped(|act_one| act_one[0] = 1).await;
}

#[tokio::test]
async fn bad_input_03_act_one_with_a_key_off_the_curve_is_dropped() {
    assert_act_one_is_dropped(|act_one| act_one[1] = 4).await;
}

#[tokio::test]
async fn bad_input_04_act_one_with_a_bad_tag_is_dropped() {
    assert_act_one_is_dropped(|act_one| act_one[ACT_ONE_LEN - 1] ^= 1).await;
}

#[tokio::test]
async fn bad_input_04_act_three_with_a_bad_tag_or_static_key_is_dropped() {
    for spoiled in [0, 1, 20, 49, 50, 65] {
        let (node, address) = Node::listening().await;
        let (act_one, initiator) = Initiator::begin(secret(PEER), &node.network.node_id(), secret(EPHEMERAL));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&act_one).await.unwrap();
        let mut act_two = [0; ACT_TWO_LEN];
        stream.read_exact(&mut act_two).await.unwrap();
        let (mut act_three, _) = initiator.act_two(&act_two).unwrap();
        act_three[spoiled] ^= 1;
        stream.write_all(&act_three).await.unwrap();
        assert_dropped(node, stream).await;
    }
}

#[tokio::test]
async fn bad_input_04_act_two_with_a_bad_tag_is_a_wrong_key() {
    let mut node = Node::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let spoil = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut act_one = [0; ACT_ONE_LEN];
        stream.read_exact(&mut act_one).await.unwrap();
        let responder = Responder::new(secret(PEER), secret(EPHEMERAL));
        let (mut act_two, _) = responder.act_one(&act_one).unwrap();
        act_two[49] ^= 1;
        stream.write_all(&act_two).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    };
    let peer = Node::with_key(PEER).network.node_id();
    let (dialled, ()) = tokio::join!(node.network.connect(peer, &address), spoil);
    assert_eq!(dialled, Err(DialFault::WrongKey("act two: bad tag".to_owned())));
    assert!(node.events.none());
}

#[tokio::test]
async fn bad_input_06_a_spoiled_length_is_dropped() {
    let (node, peer) = Node::connected().await;
    assert_spoiled_packet_is_dropped(node, peer, 17).await;
}

#[tokio::test]
async fn bad_input_06_a_spoiled_message_is_dropped() {
    let (node, peer) = Node::connected().await;
    assert_spoiled_packet_is_dropped(node, peer, 18).await;
}

async fn assert_spoiled_packet_is_dropped(mut node: Node, mut peer: RawPeer, spoiled: usize) {
    let mut packet = peer.encrypt(&Message::Init(init()).encode().unwrap());
    packet[spoiled] ^= 1;
    peer.write(&packet).await;
    assert_eq!(peer.hear().await, None);
    node.events.disconnected().await;
}

#[tokio::test]
async fn bad_input_06_a_replayed_packet_is_dropped() {
    let (mut node, mut peer) = Node::connected().await;
    let packet = peer.encrypt(&[0x80, 0x01]);
    peer.write(&packet).await;
    peer.write(&packet).await;
    assert_eq!(peer.hear().await, None);
    node.events.disconnected().await;
}

#[tokio::test]
async fn bad_input_06_keys_rotate_with_the_peer() {
    let (mut node, mut peer) = Node::stranger().await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    let message = |number: u32| {
        let data = PeerText::from(number.to_string().as_str());
        Message::Error(Error { channel_id: ChannelId([7; 32]), data })
    };
    // A key is used twice a message and 1000 times in all: two rotations each way.
    for number in 0..1100 {
        peer.send(message(number)).await;
        assert_eq!(node.events.message().await.1, message(number));
        assert!(outbox.send(message(number)));
        assert_eq!(peer.hear().await, Some(message(number)));
    }
}

#[tokio::test]
async fn bad_input_07_a_message_of_one_byte_is_dropped() {
    for message in [&[][..], &[0]] {
        let (mut node, mut peer) = Node::connected().await;
        peer.say(message).await;
        assert_eq!(peer.hear().await, None);
        node.events.disconnected().await;
    }
}

#[tokio::test]
async fn a_socket_that_closes_at_once_is_forgotten() {
    let mut node = Node::new();
    let (reader, writer) = tokio::io::split(tokio::io::duplex(64).0);
    node.network.answer(Socket::new(reader, writer)).await;
    assert!(node.events.none());
    assert_eq!(node.network.node_id(), Node::with_key(NODE).network.node_id());
}
