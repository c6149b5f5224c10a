//! Deadlines, on tokio's paused clock: it moves only when every task waits, and then to the next timer.

use std::time::Duration;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::amount::Sat;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::transport::Initiator;
use outrigger_bolt::wire::{
    ClosingComplete, ClosingSig, CommitmentSigned, Error, Message, PeerText, PerCommitmentSecret, RevokeAndAck,
};
use outrigger_sidecar::net::{
    ACT_TIMEOUT, ANSWER_TIMEOUT, DialFault, INIT_TIMEOUT, PING_AFTER_SEND, PING_WHEN_IDLE, PONG_TIMEOUT, Socket,
    WRITE_TIMEOUT,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::raw_peer::{EPHEMERAL, RawPeer};
use super::{Node, PEER, secret};

const PIPE: usize = 1 << 20;

fn error() -> Message {
    Message::Error(Error { channel_id: ChannelId([7; 32]), data: PeerText::from("no") })
}

/// Timers of tokio are exact to the millisecond.
fn assert_elapsed(since: Instant, expected: Duration) {
    let elapsed = since.elapsed();
    assert!(elapsed >= expected && elapsed <= expected + Duration::from_millis(5), "{elapsed:?}, not {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn bad_input_02_act_one_of_49_bytes_is_dropped_after_5_seconds() {
    let mut node = Node::new();
    let start = Instant::now();
    let (act_one, _) = Initiator::begin(secret(PEER), &node.network.node_id(), secret(EPHEMERAL));
    let mut stream = node.pipe(PIPE);
    stream.write_all(&act_one[..49]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert_elapsed(start, Duration::from_secs(5));
    assert!(node.events.none());
}

#[tokio::test(start_paused = true)]
async fn dos_7_silence_in_any_act_is_dropped_after_5_seconds() {
    let node = Node::new();
    let start = Instant::now();
    let mut stream = node.pipe(PIPE);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert_elapsed(start, ACT_TIMEOUT);

    let start = Instant::now();
    let (act_one, _) = Initiator::begin(secret(PEER), &node.network.node_id(), secret(EPHEMERAL));
    let mut stream = node.pipe(PIPE);
    stream.write_all(&act_one).await.unwrap();
    stream.read_exact(&mut [0; 50]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert_elapsed(start, ACT_TIMEOUT);

    let start = Instant::now();
    let (ours, _theirs) = tokio::io::duplex(PIPE);
    let (reader, writer) = tokio::io::split(ours);
    let peer = Node::with_key(PEER).network.node_id();
    let fault = node.network.greet(peer, Socket::new(reader, writer)).await.unwrap_err();
    assert_eq!(fault, DialFault::Timeout("waiting for the peer's handshake"));
    assert_elapsed(start, ACT_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn bad_input_05_no_init_is_dropped_after_60_seconds() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    let start = Instant::now();
    peer.hear_init().await;
    assert_eq!(peer.hear().await, None);
    assert_elapsed(start, INIT_TIMEOUT);
    assert!(node.events.none());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_peer_is_pinged_and_stays_while_it_answers() {
    let (mut node, mut peer) = Node::connected_by_pipe(PIPE).await;
    for _ in 0..10 {
        let start = Instant::now();
        let bytes = peer.hear_ping().await;
        assert_elapsed(start, PING_WHEN_IDLE);
        peer.pong(bytes).await;
    }
    assert!(node.events.none());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_dropped() {
    let (mut node, mut peer) = Node::connected_by_pipe(PIPE).await;
    let start = Instant::now();
    let bytes = peer.hear_ping().await;
    // Neither other messages nor a pong of another size stand for the answer.
    peer.pong(bytes + 1).await;
    peer.ping(0).await;
    assert_eq!(peer.hear_pong().await, 0);
    assert_eq!(peer.hear().await, None);
    assert_elapsed(start, PING_WHEN_IDLE + PONG_TIMEOUT);
    node.events.disconnected().await;
}

#[tokio::test(start_paused = true)]
async fn cst_14_a_message_into_a_dead_connection_is_noticed_within_25_seconds() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, connection, outbox) = node.events.connected().await;
    let start = Instant::now();
    assert!(outbox.send(error()));
    // The link is a black hole from here on: open, and nothing comes out of it.
    assert_eq!(node.events.disconnected().await, connection);
    assert_elapsed(start, PING_AFTER_SEND + PONG_TIMEOUT);
    assert!(!outbox.send(error()));
}

fn commitment(channel: u8) -> Message {
    let signature = Signature::from_compact(&[1; 64]).unwrap();
    Message::CommitmentSigned(CommitmentSigned {
        channel_id: ChannelId([channel; 32]),
        signature,
        htlc_signatures: Vec::new(),
        funding_txid: None,
    })
}

fn revocation(channel: u8) -> Message {
    Message::RevokeAndAck(RevokeAndAck {
        channel_id: ChannelId([channel; 32]),
        per_commitment_secret: PerCommitmentSecret([3; 32]),
        next_per_commitment_point: secret(PEER).public_key(&Secp256k1::new()),
    })
}

fn closing_complete(channel: u8) -> Message {
    Message::ClosingComplete(ClosingComplete {
        channel_id: ChannelId([channel; 32]),
        closer_scriptpubkey: ScriptBuf::new(),
        closee_scriptpubkey: ScriptBuf::new(),
        fee_satoshis: Sat::new(200),
        locktime: 0,
        closer_output_only: None,
        closee_output_only: None,
        closer_and_closee_outputs: Some(Signature::from_compact(&[1; 64]).unwrap()),
    })
}

fn closing_sig(channel: u8) -> Message {
    let Message::ClosingComplete(asked) = closing_complete(channel) else { unreachable!() };
    Message::ClosingSig(ClosingSig {
        channel_id: asked.channel_id,
        closer_scriptpubkey: asked.closer_scriptpubkey,
        closee_scriptpubkey: asked.closee_scriptpubkey,
        fee_satoshis: asked.fee_satoshis,
        locktime: asked.locktime,
        closer_output_only: None,
        closee_output_only: None,
        closer_and_closee_outputs: asked.closer_and_closee_outputs,
    })
}

/// Hears all that the node says, answers its pings, and tells when the node hangs up.
async fn answer_pings(peer: &mut RawPeer) {
    while let Some(message) = peer.hear().await {
        if let Message::Ping(ping) = message {
            peer.pong(ping.num_pong_bytes).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cst_14_a_peer_that_answers_pings_and_never_revokes_is_dropped_after_60_seconds() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, connection, outbox) = node.events.connected().await;
    let start = Instant::now();
    assert!(outbox.send(commitment(7)));
    assert!(outbox.send(commitment(8)));
    // The revocation of one channel is not that of another.
    peer.send(revocation(8)).await;
    answer_pings(&mut peer).await;
    assert_elapsed(start, ANSWER_TIMEOUT);
    assert_eq!(node.events.message().await.1, revocation(8));
    assert_eq!(node.events.disconnected().await, connection, "nothing else is said: no error, no warning");
}

#[tokio::test(start_paused = true)]
async fn cst_14_a_revocation_or_an_error_ends_the_wait() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    for answer in [revocation(7), error()] {
        assert!(outbox.send(commitment(7)));
        assert_eq!(peer.hear().await, Some(commitment(7)));
        peer.send(answer.clone()).await;
        assert_eq!(node.events.message().await.1, answer);
    }
    // What we fail ourselves is owed nothing more.
    assert!(outbox.send(commitment(7)));
    assert!(outbox.send(error()));
    let kept = timeout(5 * ANSWER_TIMEOUT, answer_pings(&mut peer)).await;
    assert!(kept.is_err(), "the connection stands");
    assert!(node.events.none());
}

#[tokio::test(start_paused = true)]
async fn a_closing_complete_that_is_never_answered_ends_the_connection_after_60_seconds() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, connection, outbox) = node.events.connected().await;
    let start = Instant::now();
    assert!(outbox.send(closing_complete(7)));
    assert!(outbox.send(closing_complete(8)));
    // Neither the answer of another channel nor another answer of this one is what is owed, nor is the peer's own offer.
    let said = [closing_sig(8), revocation(7), closing_complete(7)];
    for message in &said {
        peer.send(message.clone()).await;
    }
    answer_pings(&mut peer).await;
    assert_elapsed(start, ANSWER_TIMEOUT);
    for message in said {
        assert_eq!(node.events.message().await.1, message);
    }
    assert_eq!(node.events.disconnected().await, connection, "nothing else is said: no error, no warning");
}

#[tokio::test(start_paused = true)]
async fn a_closing_sig_or_an_error_for_all_channels_ends_the_wait() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    let for_all = Message::Error(Error { channel_id: ChannelId([0; 32]), data: PeerText::from("no") });
    for answer in [closing_sig(7), error(), for_all] {
        assert!(outbox.send(closing_complete(7)));
        assert_eq!(peer.hear().await, Some(closing_complete(7)));
        peer.send(answer.clone()).await;
        assert_eq!(node.events.message().await.1, answer);
    }
    // The revocation that is owed beside it is not forgiven by it.
    assert!(outbox.send(commitment(7)));
    let start = Instant::now();
    assert!(outbox.send(closing_complete(7)));
    peer.send(closing_sig(7)).await;
    answer_pings(&mut peer).await;
    assert_elapsed(start, ANSWER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn cst_14_a_revocation_that_we_do_not_read_is_not_missed() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    assert!(outbox.send(commitment(7)));
    node.manager.set_room(false);
    // Room is asked for before a message is read: this one is the last for now.
    peer.send(error()).await;
    node.events.message().await;
    assert!(outbox.send(commitment(8)));
    peer.send(revocation(8)).await;
    assert!(timeout(5 * ANSWER_TIMEOUT, node.events.next()).await.is_err());
    node.manager.set_room(true);
    assert_eq!(node.events.message().await.1, revocation(8));
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_confirmed_by_one_ping() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(PIPE), PEER, &node.network.node_id()).await;
    peer.exchange_init().await;
    let (_, _, outbox) = node.events.connected().await;
    let start = Instant::now();
    assert!(outbox.send(error()));
    assert!(outbox.send(error()));
    assert_eq!(peer.hear().await, Some(error()));
    assert_eq!(peer.hear().await, Some(error()));
    let bytes = peer.hear_ping().await;
    assert_elapsed(start, PING_AFTER_SEND);
    peer.pong(bytes).await;
    // Neither the ping nor a pong of ours asks for another ping before its time.
    peer.ping(9).await;
    assert_eq!(peer.hear_pong().await, 9);
    let answered = Instant::now();
    peer.hear_ping().await;
    assert_elapsed(answered, PING_WHEN_IDLE);
}

#[tokio::test(start_paused = true)]
async fn a_pong_that_we_do_not_read_is_not_missed() {
    let (mut node, mut peer) = Node::connected_by_pipe(PIPE).await;
    let bytes = peer.hear_ping().await;
    // Room is asked for before a message is read: this one is the last for now.
    node.manager.set_room(false);
    peer.send(error()).await;
    node.events.message().await;
    peer.pong(bytes).await;
    assert!(timeout(10 * PONG_TIMEOUT, node.events.next()).await.is_err());
    node.manager.set_room(true);
    peer.ping(4).await;
    assert_eq!(peer.hear_pong().await, 4);
    // From here on a missing pong counts again.
    let start = Instant::now();
    node.events.disconnected().await;
    assert_elapsed(start, PING_WHEN_IDLE + PONG_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_dropped() {
    let mut node = Node::new();
    let mut peer = RawPeer::initiate(node.pipe(200), PEER, &node.network.node_id()).await;
    // Without room nothing is read and no pong is missed: the write itself must have its limit.
    node.manager.set_room(false);
    peer.exchange_init().await;
    let (_, connection, outbox) = node.events.connected().await;
    let start = Instant::now();
    for _ in 0..100 {
        assert!(outbox.send(error()));
    }
    assert_eq!(node.events.disconnected().await, connection);
    assert_elapsed(start, WRITE_TIMEOUT);
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn dos_9_pings_beyond_the_allowance_are_not_answered() {
    let (mut node, mut peer) = Node::connected_by_pipe(PIPE).await;
    for _ in 0..1000 {
        peer.ping(1).await;
    }
    for _ in 0..32 {
        assert_eq!(peer.hear_pong().await, 1);
    }
    // Time moves on until our own ping is due, so the allowance is full again.
    let bytes = peer.hear_ping().await;
    peer.pong(bytes).await;
    peer.ping(2).await;
    assert_eq!(peer.hear_pong().await, 2);
    assert!(node.events.none());
}

#[tokio::test(start_paused = true)]
async fn a_farewell_that_nobody_reads_does_not_hold_the_connection() {
    let node = Node::new();
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let (reader, writer) = tokio::io::split(ours);
    let network = node.network.clone();
    let answered = tokio::spawn(async move { network.answer(Socket::new(reader, writer)).await });
    let mut peer = RawPeer::initiate(theirs, PEER, &node.network.node_id()).await;
    let start = Instant::now();
    peer.say(&[0, 18, 0, 1, 0, 0]).await;
    answered.await.unwrap();
    assert_elapsed(start, outrigger_sidecar::net::FAREWELL_TIMEOUT);
}
