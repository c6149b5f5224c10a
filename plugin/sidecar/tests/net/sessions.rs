//! Connections that follow, replace or crowd one another.

use std::time::Duration;

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message, PeerText};
use outrigger_sidecar::net::{ACT_TIMEOUT, OUTBOX_BYTES};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::raw_peer::RawPeer;
use super::{Node, PEER};

fn error(text: &str) -> Message {
    Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from(text) })
}

#[tokio::test]
async fn the_newest_connection_of_a_peer_wins() {
    let (mut node, address) = Node::listening().await;
    let mut older = RawPeer::connect(address, PEER, &node.network.node_id()).await;
    older.exchange_init().await;
    let (_, first, old_outbox) = node.events.connected().await;
    let mut newer = RawPeer::connect(address, PEER, &node.network.node_id()).await;
    newer.exchange_init().await;
    // The manager hears of the end of the old one before it hears of the new one.
    assert_eq!(node.events.disconnected().await, first);
    let (_, second, outbox) = node.events.connected().await;
    assert!(second > first);
    assert_eq!(older.hear().await, None);
    assert!(!old_outbox.send(error("old")));
    assert!(outbox.send(error("new")));
    assert_eq!(newer.hear().await, Some(error("new")));
}

#[tokio::test]
async fn a_connection_before_its_init_replaces_nothing() {
    let (mut node, address) = Node::listening().await;
    let mut older = RawPeer::connect(address, PEER, &node.network.node_id()).await;
    older.exchange_init().await;
    node.events.connected().await;
    let mut newer = RawPeer::connect(address, PEER, &node.network.node_id()).await;
    newer.hear_init().await;
    older.ping(5).await;
    assert_eq!(older.hear_pong().await, 5);
    assert!(node.events.none());
}

#[tokio::test]
async fn peers_do_not_disturb_each_other() {
    let (mut node, address) = Node::listening().await;
    let mut peers = Vec::new();
    for key in 0x30..0x40 {
        let mut peer = RawPeer::connect(address, key, &node.network.node_id()).await;
        peer.exchange_init().await;
        let (_, _, outbox) = node.events.connected().await;
        peers.push((peer, outbox));
    }
    for (index, (peer, outbox)) in peers.iter_mut().enumerate() {
        let message = error(&index.to_string());
        assert!(outbox.send(message.clone()));
        assert_eq!(peer.hear().await, Some(message));
    }
    assert!(node.events.none());
}

#[tokio::test]
async fn cst_2_queued_messages_die_with_their_session() {
    // A pipe that holds next to nothing: the peer reads nothing, so the queue keeps what is sent.
    let mut node = Node::new();
    let mut older = RawPeer::initiate(node.pipe(512), PEER, &node.network.node_id()).await;
    older.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    for _ in 0..100 {
        assert!(outbox.send(error("of the old session")));
    }
    drop(older);
    node.events.disconnected().await;
    assert!(!outbox.send(error("of no session")));
    assert_eq!(outbox.queued_bytes(), 0);
    let mut newer = RawPeer::initiate(node.pipe(512), PEER, &node.network.node_id()).await;
    newer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    assert!(outbox.send(error("of the new session")));
    assert_eq!(newer.hear().await, Some(error("of the new session")));
}

#[tokio::test]
async fn what_one_commit_says_passes_whole_however_much_it_is() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(1 << 20), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    let large = Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from(vec![b'x'; 65_000]) });
    let count = 2 * OUTBOX_BYTES / 65_000;
    assert!(outbox.send_all(vec![large.clone(); count]));
    for _ in 0..count {
        assert_eq!(peer.hear().await, Some(large.clone()));
    }
    assert!(outbox.send(large.clone()), "the connection stands");
    assert_eq!(peer.hear().await, Some(large));
}

#[tokio::test(start_paused = true)]
async fn dos_1_a_peer_that_does_not_read_is_closed_at_the_budget() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(512), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, connection, outbox) = node.events.connected().await;
    let large = Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from(vec![b'x'; 65_000]) });
    assert!(outbox.send(large.clone()));
    // Time passes only once every task waits: the writer hangs in its first write now.
    assert!(timeout(Duration::from_millis(1), node.events.next()).await.is_err());
    let mut accepted = 65_036;
    while outbox.send(large.clone()) {
        accepted += 65_036;
        assert!(outbox.queued_bytes() <= OUTBOX_BYTES);
    }
    assert!(accepted > OUTBOX_BYTES - 65_036);
    let start = Instant::now();
    assert_eq!(node.events.disconnected().await, connection);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(outbox.queued_bytes(), 0);
}

#[tokio::test]
async fn dos_7_silent_connections_do_not_keep_a_peer_out() {
    let (mut node, address) = Node::listening().await;
    let start = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..150 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut peer = RawPeer::connect(address, PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    node.events.connected().await;
    // The oldest made way for the newer ones; those after them still have their time.
    for stream in &mut silent[..50] {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
    assert!(start.elapsed() < ACT_TIMEOUT, "they ended by their own time");
    // A known peer is no stranger any more: as many again do not touch it.
    for _ in 0..150 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    peer.ping(2).await;
    assert_eq!(peer.hear_pong().await, 2);
}

#[tokio::test]
async fn stop_ends_every_connection_and_the_listener() {
    let (mut node, mut peer) = Node::connected().await;
    let (_node, address) = {
        let address = node.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut silent = TcpStream::connect(address).await.unwrap();
        node.network.stop().await;
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
        (&node, address)
    };
    assert_eq!(peer.hear().await, None);
    assert!(TcpStream::connect(address).await.is_err());
    node.events.disconnected().await;
}
