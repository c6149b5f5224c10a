//! The `init` exchange (BOLT 1, "The `init` Message").

use bitcoin::Network::Signet;
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::wire::{Init, Message};

use super::fake_manager::Event;
use super::{Node, init, init_on};

/// A peer that begins with this `init` is dropped, and nothing is said to it.
async fn assert_dropped(theirs: Init) {
    let (mut node, mut peer) = Node::stranger().await;
    peer.send(Message::Init(theirs)).await;
    peer.hear_init().await;
    assert_eq!(peer.hear().await, None);
    assert!(node.events.none());
}

/// A peer that begins with this message is told so, and dropped.
async fn assert_warned(first: &[u8], text: &str) {
    let (mut node, mut peer) = Node::stranger().await;
    peer.say(first).await;
    peer.hear_init().await;
    peer.is_warned(text).await;
    assert!(node.events.none());
}

#[tokio::test]
async fn init_is_exchanged_and_handed_over() {
    let (mut node, mut peer) = Node::stranger().await;
    let theirs = init();
    peer.send(Message::Init(theirs.clone())).await;
    assert_eq!(peer.hear_init().await, init());
    let Event::Connected(id, heard, _, outbox) = node.events.next().await else { panic!("no connection") };
    assert_eq!((id, heard), (Node::with_key(super::PEER).network.node_id(), theirs));
    assert!(!outbox.is_closed());
}

#[tokio::test]
async fn bad_input_08_first_message_not_init_is_warned() {
    assert_warned(&[0, 18, 0, 1, 0, 0], "init must be the first message").await;
    assert_warned(&[0x80, 0], "init must be the first message").await;
    assert_warned(&[0x80, 1], "init must be the first message").await;
}

#[tokio::test]
async fn bad_input_10_unknown_required_feature_is_dropped() {
    let features = Features::init().with_bit(100);
    assert_dropped(Init { features, ..init() }).await;
}

#[tokio::test]
async fn bad_input_11_missing_dependency_is_dropped() {
    let features = Features::empty().offer(Feature::ZEROCONF);
    assert_dropped(Init { features, ..init() }).await;
}

#[tokio::test]
async fn bad_input_12_no_common_chain_is_warned() {
    let other = Message::Init(init_on(Signet)).encode().unwrap();
    assert_warned(&other, "we are on none of your chains").await;
}

#[tokio::test]
async fn bad_input_13_garbage_in_remote_addr_is_ignored() {
    let (mut node, mut peer) = Node::stranger().await;
    peer.send(Message::Init(Init { remote_addr: Some(vec![0xff; 300]), ..init() })).await;
    peer.hear_init().await;
    node.events.connected().await;
}

#[tokio::test]
async fn bad_input_15_broken_extension_of_init_is_warned() {
    // The invalid examples of BOLT 1, appendix C.
    for (extension, why) in [
        (&[0x01][..], "insufficient length for the contents"),
        (&[0xca, 0x01, 0x2a], "unknown even tlv type 202"),
        (&[0xc9, 0x01, 0x01, 0xc9, 0x01, 0x02], "tlv type 201 after 201: not strictly increasing"),
    ] {
        let message = [&[0, 16, 0, 0, 0, 0], extension].concat();
        assert_warned(&message, &format!("init cannot be read: {why}")).await;
    }
}

#[tokio::test]
async fn a_peer_that_the_manager_refuses_is_told_why() {
    let (mut node, mut peer) = Node::stranger().await;
    node.manager.refuse("too many peers");
    peer.send(Message::Init(init())).await;
    peer.hear_init().await;
    peer.is_warned("too many peers").await;
    assert!(node.events.none());
}
