//! Gossip is accepted: what no graph is kept for goes unheard, and no amount of it costs the peer its connection or
//! its other messages their way.

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message, PeerText};
use outrigger_sidecar::net::{
    GOSSIP_BURST_BYTES, GOSSIP_BYTES_PER_SECOND, IGNORED_BURST, IGNORED_PER_SECOND, PING_WHEN_IDLE,
};
use tokio::time::Instant;

use super::Node;

const PIPE: usize = 1 << 20;
/// `channel_update` as far as the connection looks: its type, and bytes that only the manager reads.
const UPDATE_LEN: usize = 138;

fn error() -> Message {
    Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from("no") })
}

fn update() -> Vec<u8> {
    [&258u16.to_be_bytes()[..], &[7; UPDATE_LEN - 2]].concat()
}

#[tokio::test]
async fn gossip_of_the_graph_and_queries_are_accepted_and_ignored() {
    let (mut node, mut peer) = Node::connected().await;
    for type_number in [256u16, 257, 261, 262, 263, 264, 265] {
        for payload in [&[][..], &[0xff; 500], &[0; 65_533]] {
            peer.say(&[&type_number.to_be_bytes()[..], payload].concat()).await;
        }
    }
    peer.ping(3).await;
    assert_eq!(peer.hear_pong().await, 3, "neither an answer nor a complaint came first");
    assert!(node.events.none());
}

#[tokio::test(start_paused = true)]
async fn dos_9_updates_beyond_the_budget_are_dropped_and_channel_messages_are_not() {
    let (mut node, mut peer) = Node::connected_by_pipe(PIPE).await;
    let looked_at = usize::try_from(GOSSIP_BURST_BYTES).unwrap() / UPDATE_LEN;
    for _ in 0..looked_at + 5_000 {
        peer.say(&update()).await;
    }
    peer.send(error()).await;
    peer.ping(1).await;
    assert_eq!(peer.hear_pong().await, 1, "the flood costs nobody the connection");
    for _ in 0..looked_at {
        assert!(matches!(node.events.message().await.1, Message::Gossip(_)));
    }
    assert_eq!(node.events.message().await.1, error(), "the next message behind the flood");
    assert!(node.events.none());
    // A quiet minute later there is room again, for as much as the minute earned.
    let bytes = peer.hear_ping().await;
    peer.pong(bytes).await;
    let earned = usize::try_from(PING_WHEN_IDLE.as_secs() * GOSSIP_BYTES_PER_SECOND).unwrap() / UPDATE_LEN;
    for _ in 0..looked_at + 5_000 {
        peer.say(&update()).await;
    }
    peer.send(error()).await;
    let mut heard = 0;
    while matches!(node.events.message().await.1, Message::Gossip(_)) {
        heard += 1;
    }
    assert!((earned..=looked_at).contains(&heard), "{heard} updates");
}

/// What nobody has use for is read at full speed for a while, and then so fast that it costs others nothing.
#[tokio::test(start_paused = true)]
async fn dos_9_a_flood_of_what_is_ignored_is_read_slowly_beyond_a_burst() {
    let (mut node, mut peer) = Node::connected_by_pipe(PIPE).await;
    let begun = Instant::now();
    for (number, at_least_secs) in [(IGNORED_BURST, 0), (10 * IGNORED_PER_SECOND, 9)] {
        for _ in 0..number {
            peer.say(&0x8001u16.to_be_bytes()).await;
        }
        peer.send(error()).await;
        assert_eq!(node.events.message().await.1, error());
        let took = begun.elapsed().as_secs();
        assert!((at_least_secs..=at_least_secs + 2).contains(&took), "{took} s for {number} more");
    }
    assert!(node.events.none());
}

#[tokio::test]
async fn dos_9_unknown_odd_messages_of_any_number_reach_nobody() {
    let (mut node, mut peer) = Node::connected().await;
    for _ in 0..200 {
        peer.say(&[&0x8001u16.to_be_bytes()[..], &[0; 65_533]].concat()).await;
    }
    peer.send(error()).await;
    assert_eq!(node.events.message().await.1, error());
    assert!(node.events.none());
}
