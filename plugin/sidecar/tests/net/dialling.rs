//! Outbound connections, and peers that are kept connected.

use outrigger_bolt::features::Features;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message, PeerText};
use outrigger_sidecar::manager::outbox::Outbox;
use outrigger_sidecar::net::DialFault;
use tokio::net::TcpListener;

use super::fake_manager::Event;
use super::raw_peer::RawPeer;
use super::{Node, PEER, init, init_on};

fn error() -> Message {
    Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from("no") })
}

/// A place where a peer of our own making can be dialled, under [`PEER`]'s key.
async fn place() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn answer(listener: &TcpListener) -> RawPeer {
    let (stream, _) = listener.accept().await.unwrap();
    RawPeer::respond(stream, PEER).await
}

async fn answer_and_exchange_init(listener: &TcpListener) -> RawPeer {
    let mut peer = answer(listener).await;
    peer.exchange_init().await;
    peer
}

fn peer_id() -> outrigger_bolt::id::NodeId {
    Node::with_key(PEER).network.node_id()
}

#[tokio::test]
async fn two_nodes_connect_and_talk_both_ways() {
    let (mut there, address) = Node::listening().await;
    let mut here = Node::with_key(PEER);
    let features = here.network.connect(there.network.node_id(), &address.to_string()).await;
    assert_eq!(features, Ok(Features::init()));
    let (dialled, _, outbox_here) = here.events.connected().await;
    let (dialler, _, outbox_there) = there.events.connected().await;
    assert_eq!((dialled, dialler), (there.network.node_id(), here.network.node_id()));
    assert!(outbox_here.send(error()));
    assert!(outbox_there.send(error()));
    assert_eq!(here.events.message().await.1, error());
    assert_eq!(there.events.message().await.1, error());
    // A second call finds the connection that is up.
    let again = here.network.connect(there.network.node_id(), &address.to_string()).await;
    assert_eq!(again, Ok(Features::init()));
    here.network.stop().await;
    here.events.disconnected().await;
    there.events.disconnected().await;
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let (listener, address) = place().await;
    drop(listener);
    let fault = Node::new().network.connect(peer_id(), &address).await.unwrap_err();
    assert_eq!((fault.clone(), fault.kind(), fault.retryable()), (DialFault::Refused, "refused", true));
}

#[tokio::test]
async fn an_address_without_a_port_is_none() {
    let fault = Node::new().network.connect(peer_id(), "127.0.0.1").await.unwrap_err();
    assert_eq!((fault.kind(), fault.hint().is_empty(), fault.retryable()), ("no_address", false, false));
    assert_eq!(fault.to_string(), "the address must be host:port, an IPv6 address in brackets");
}

#[tokio::test]
async fn another_node_at_the_address_is_a_wrong_key() {
    let (mut there, address) = Node::listening().await;
    let mut here = Node::with_key(PEER);
    let stranger = Node::with_key(0x77).network.node_id();
    let fault = here.network.connect(stranger, &address.to_string()).await.unwrap_err();
    assert_eq!(fault, DialFault::WrongKey("instead of act two: the peer hung up".to_owned()));
    assert!(here.events.none() && there.events.none());
}

#[tokio::test]
async fn a_peer_on_another_chain_is_init_refused() {
    let mut node = Node::new();
    let (listener, address) = place().await;
    let peer = async {
        let mut peer = answer(&listener).await;
        peer.send(Message::Init(init_on(bitcoin::Network::Signet))).await;
        peer.hear_init().await;
        peer.is_warned("we are on none of your chains").await;
    };
    let (dialled, ()) = tokio::join!(node.network.connect(peer_id(), &address), peer);
    assert_eq!(dialled, Err(DialFault::InitRefused("the peer is on none of our chains".to_owned())));
    assert!(node.events.none());
}

#[tokio::test]
async fn the_reason_of_a_peer_that_refuses_us_is_shown_escaped() {
    let node = Node::new();
    let (listener, address) = place().await;
    let peer = async {
        let mut peer = answer(&listener).await;
        peer.send(Message::Error(Error { channel_id: ChannelId([0; 32]), data: PeerText::from("go\x1b[31m") })).await;
        peer
    };
    let (dialled, _) = tokio::join!(node.network.connect(peer_id(), &address), peer);
    assert_eq!(dialled, Err(DialFault::InitRefused("the peer says: go\\u{1b}[31m".to_owned())));
}

#[tokio::test]
async fn a_peer_that_hangs_up_in_place_of_init_is_init_refused() {
    let node = Node::new();
    let (listener, address) = place().await;
    let (dialled, ()) =
        tokio::join!(node.network.connect(peer_id(), &address), async { drop(answer(&listener).await) });
    assert_eq!(dialled.unwrap_err().kind(), "init_refused");
}

#[tokio::test]
async fn a_kept_peer_is_dialled_again_after_it_hangs_up() {
    let mut node = Node::new();
    let (listener, address) = place().await;
    let dialer = node.network.dialer();
    dialer.keep(peer_id(), &*address);
    let mut last = None;
    for _ in 0..3 {
        let peer = answer_and_exchange_init(&listener).await;
        let (_, connection, _) = node.events.connected().await;
        assert!(Some(connection) > last);
        drop(peer);
        assert_eq!(node.events.disconnected().await, connection);
        last = Some(connection);
    }
}

#[tokio::test]
async fn a_kept_peer_is_found_at_its_new_address() {
    let mut node = Node::new();
    let (closed, old) = place().await;
    drop(closed);
    let (listener, new) = place().await;
    let dialer = node.network.dialer();
    dialer.keep(peer_id(), old);
    dialer.keep(peer_id(), new);
    let mut peer = answer_and_exchange_init(&listener).await;
    node.events.connected().await;
    peer.ping(1).await;
    assert_eq!(peer.hear_pong().await, 1);
}

#[tokio::test]
async fn a_dropped_peer_is_not_dialled_again() {
    let mut node = Node::new();
    let (listener, address) = place().await;
    let dialer = node.network.dialer();
    dialer.keep(peer_id(), &*address);
    let peer = answer_and_exchange_init(&listener).await;
    node.events.connected().await;
    dialer.drop(&peer_id());
    drop(peer);
    node.events.disconnected().await;
    // Well past the longest wait.
    tokio::time::pause();
    let again = tokio::time::timeout(std::time::Duration::from_secs(600), listener.accept()).await;
    assert!(again.is_err());
}

#[tokio::test]
async fn a_kept_peer_that_connects_to_us_is_not_dialled() {
    let (mut node, at) = Node::listening().await;
    let (listener, address) = place().await;
    let mut inbound = RawPeer::connect(at, PEER, &node.network.node_id()).await;
    inbound.exchange_init().await;
    let (_, connection, _) = node.events.connected().await;
    node.network.dialer().keep(peer_id(), address);
    inbound.ping(1).await;
    assert_eq!(inbound.hear_pong().await, 1);
    assert!(node.events.none());
    drop(inbound);
    assert_eq!(node.events.disconnected().await, connection);
    let mut outbound = answer(&listener).await;
    outbound.send(Message::Init(init())).await;
    assert!(node.events.connected().await.1 > connection);
}

#[tokio::test]
async fn two_nodes_that_dial_each_other_settle_on_one_connection() {
    let (mut here, at_here) = Node::listening().await;
    let mut there = Node::with_key(PEER);
    let at_there = there.network.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    here.network.dialer().keep(there.network.node_id(), at_there.to_string());
    there.network.dialer().keep(here.network.node_id(), at_here.to_string());
    // However often they cut each other off, in the end a message passes and comes back.
    let mut echo = None;
    loop {
        tokio::select! {
            event = here.events.next() => match event {
                Event::Connected(_, _, _, outbox) => assert!(outbox.send(error()) || outbox.is_closed()),
                Event::Message(..) => return,
                Event::Disconnected(_) => {}
            },
            event = there.events.next() => match event {
                Event::Connected(_, _, _, outbox) => echo = Some(outbox),
                Event::Message(_, message, _) => {
                    let outbox: &Outbox = echo.as_ref().unwrap();
                    assert!(outbox.send(*message) || outbox.is_closed());
                }
                Event::Disconnected(_) => {}
            },
        }
    }
}
