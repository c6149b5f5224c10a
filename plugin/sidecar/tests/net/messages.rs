//! What happens to messages once two nodes are peers.

use std::time::Duration;

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message, Padding, PeerText, Ping, Pong, Warning};
use tokio::time::timeout;

use super::raw_peer::RawPeer;
use super::{Node, PEER, init};

fn error() -> Message {
    Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from("no") })
}

#[tokio::test]
async fn messages_reach_the_manager_in_order_with_their_size() {
    let (mut node, mut peer) = Node::connected().await;
    let warning = Message::Warning(Warning { channel_id: ChannelId([7; 32]), data: PeerText::from("careful") });
    peer.send(error()).await;
    peer.send(warning.clone()).await;
    let (connection, heard, bytes) = node.events.message().await;
    assert_eq!((heard, bytes), (error(), 2 + 32 + 2 + 2));
    let (again, heard, _) = node.events.message().await;
    assert_eq!((heard, again), (warning, connection));
}

#[tokio::test]
async fn what_comes_in_one_piece_is_handed_on_in_one_piece() {
    let (mut node, mut peer) = Node::connected().await;
    let said = error().encode().unwrap();
    let mut bytes: Vec<u8> = (0..4).flat_map(|_| peer.encrypt(&said)).collect();
    let rest = bytes.split_off(bytes.len() - 5);
    peer.write(&bytes).await;
    for _ in 0..3 {
        assert_eq!(node.events.message().await.1, error());
    }
    assert_eq!(node.manager.groups(), [3], "and what is not whole is waited for");
    peer.write(&rest).await;
    assert_eq!(node.events.message().await.1, error());
    assert_eq!(node.manager.groups(), [3, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_message_may_be_cut_anywhere_behind_another() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(64 * 1024), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    node.events.connected().await;
    let said = error().encode().unwrap();
    let whole = said.len() + 34;
    for cut in 0..=whole {
        let (first, second) = (peer.encrypt(&said), peer.encrypt(&said));
        peer.write(&[&first, &second[..cut]].concat()).await;
        // Time passes only once every task waits: the reader has seen what there is.
        let so_far = usize::from(cut == whole);
        for _ in 0..=so_far {
            assert_eq!(node.events.message().await.1, error());
        }
        assert!(timeout(Duration::from_millis(1), node.events.next()).await.is_err(), "{cut}");
        peer.write(&second[cut..]).await;
        for _ in so_far..1 {
            assert_eq!(node.events.message().await.1, error());
        }
    }
}

#[tokio::test]
async fn a_thousand_messages_in_one_piece_are_read_over_a_change_of_keys_and_a_large_one_behind_them() {
    let (mut node, mut peer) = Node::connected().await;
    let large = Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from(vec![b'x'; 65_000]) });
    let mut bytes: Vec<u8> = (0..1000).flat_map(|_| peer.encrypt(&error().encode().unwrap())).collect();
    bytes.extend(peer.encrypt(&large.encode().unwrap()));
    peer.write(&bytes).await;
    for _ in 0..1000 {
        assert_eq!(node.events.message().await.1, error());
    }
    assert_eq!(node.events.message().await.1, large);
}

#[tokio::test]
async fn what_came_before_a_fault_in_one_piece_with_it_was_said() {
    let (mut node, mut peer) = Node::connected().await;
    let mut bytes = peer.encrypt(&error().encode().unwrap());
    let mut broken = peer.encrypt(&error().encode().unwrap());
    if let Some(last) = broken.last_mut() {
        *last ^= 1;
    }
    bytes.extend(broken);
    peer.write(&bytes).await;
    assert_eq!(node.events.message().await.1, error());
    node.events.disconnected().await;
    assert_eq!(peer.hear().await, None);
}

#[tokio::test]
async fn bad_input_09_second_init_is_ignored() {
    let (mut node, mut peer) = Node::connected().await;
    peer.send(Message::Init(init())).await;
    peer.ping(3).await;
    assert_eq!(peer.hear_pong().await, 3);
    assert!(node.events.none());
}

#[tokio::test]
async fn bad_input_14_unknown_even_type_is_dropped() {
    let (mut node, mut peer) = Node::connected().await;
    peer.say(&[0x80, 0x00, 1, 2, 3]).await;
    assert_eq!(peer.hear().await, None);
    node.events.disconnected().await;
}

#[tokio::test]
async fn bad_input_14_unknown_odd_type_is_ignored() {
    let (mut node, mut peer) = Node::connected().await;
    peer.say(&[0x80, 0x01, 1, 2, 3]).await;
    peer.ping(3).await;
    assert_eq!(peer.hear_pong().await, 3);
    assert!(node.events.none());
}

#[tokio::test]
async fn bad_input_15_unreadable_message_is_warned() {
    let (mut node, mut peer) = Node::connected().await;
    peer.say(&[0, 18, 0, 1, 0, 9]).await;
    peer.is_warned("a message cannot be read: insufficient length for the contents").await;
    node.events.disconnected().await;
}

#[tokio::test]
async fn bad_input_15_the_warning_names_the_channel_of_the_message() {
    let (mut node, mut peer) = Node::connected().await;
    // revoke_and_ack that ends after its channel_id.
    peer.say(&[&[0, 133][..], &[7; 32]].concat()).await;
    let data = PeerText::from("a message cannot be read: insufficient length for the contents");
    let warning = Message::Warning(Warning { channel_id: ChannelId([7; 32]), data });
    assert_eq!(peer.hear().await, Some(warning));
    assert_eq!(peer.hear().await, None);
    node.events.disconnected().await;
}

#[tokio::test]
async fn bad_input_15_the_warning_arrives_though_the_peer_talks_on() {
    let (mut node, mut peer) = Node::connected().await;
    peer.say(&[0, 18, 0, 1, 0, 9]).await;
    // Bytes that nobody reads would make a hasty close take the warning back.
    for _ in 0..8 {
        peer.say(&[&[0x80, 0x01][..], &[0; 10_000]].concat()).await;
    }
    node.events.disconnected().await;
    peer.is_warned("a message cannot be read: insufficient length for the contents").await;
}

#[tokio::test]
async fn bad_input_15_the_warning_follows_all_that_was_queued() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(200), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    for _ in 0..50 {
        assert!(outbox.send(error()));
    }
    peer.say(&[0, 18, 0, 1, 0, 9]).await;
    node.events.disconnected().await;
    assert!(!outbox.send(error()));
    for _ in 0..50 {
        assert_eq!(peer.hear().await, Some(error()));
    }
    peer.is_warned("a message cannot be read: insufficient length for the contents").await;
}

#[tokio::test]
async fn bad_input_18_ping_of_65532_is_ignored() {
    let (_node, mut peer) = Node::connected().await;
    peer.ping(65532).await;
    peer.ping(65535).await;
    peer.ping(65531).await;
    peer.ping(0).await;
    assert_eq!(peer.hear_pong().await, 65531);
    assert_eq!(peer.hear_pong().await, 0);
}

#[tokio::test]
async fn bad_input_19_pong_that_answers_nothing_is_ignored() {
    let (mut node, mut peer) = Node::connected().await;
    peer.pong(17).await;
    peer.pong(16).await;
    peer.ping(1).await;
    assert_eq!(peer.hear_pong().await, 1);
    assert!(node.events.none());
}

/// A channel asks for pongs of other lengths than the connection does; which of them it awaits is its own to know.
#[tokio::test]
async fn a_pong_of_a_length_that_channels_ask_for_reaches_the_manager() {
    let (mut node, mut peer) = Node::connected().await;
    for bytes in [255, 256, 511, 512] {
        peer.pong(bytes).await;
    }
    for bytes in [256, 511] {
        let (_, message, _) = node.events.message().await;
        assert_eq!(message, Message::Pong(Pong { byteslen: Padding(bytes) }));
    }
    peer.ping(1).await;
    assert_eq!(peer.hear_pong().await, 1);
    assert!(node.events.none());
}

#[tokio::test]
async fn a_closed_outbox_ends_the_connection_after_its_last_message() {
    let (mut node, mut peer) = Node::stranger().await;
    peer.exchange_init().await;
    let (_, connection, outbox) = node.events.connected().await;
    assert!(outbox.send(error()));
    outbox.close("enough");
    assert!(!outbox.send(Message::Ping(Ping { num_pong_bytes: 0, byteslen: Padding(0) })));
    assert_eq!(peer.hear().await, Some(error()));
    assert_eq!(peer.hear().await, None);
    assert_eq!(node.events.disconnected().await, connection);
}

#[tokio::test]
async fn a_message_too_long_for_the_wire_ends_the_connection() {
    let (mut node, mut peer) = Node::stranger().await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    let data = PeerText::from(vec![b'x'; 65_535 - 36 + 1]);
    assert!(!outbox.send(Message::Error(Error { channel_id: ChannelId([7; 32]), data })));
    assert_eq!(peer.hear().await, None);
    node.events.disconnected().await;
}

#[tokio::test]
async fn nothing_is_read_while_the_manager_has_no_room_and_writing_goes_on() {
    let (mut node, mut peer) = Node::stranger().await;
    node.manager.set_room(false);
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    peer.send(error()).await;
    for _ in 0..3 {
        assert!(outbox.send(error()));
        assert_eq!(peer.hear().await, Some(error()));
    }
    assert!(node.events.none());
    node.manager.set_room(true);
    assert_eq!(node.events.message().await.1, error());
}
