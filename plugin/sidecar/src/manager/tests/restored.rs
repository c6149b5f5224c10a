//! A node that was started from an old copy of its file: what its channels do, whatever the peer does or the operator asks for.

use outrigger_bolt::wire::{ChannelReestablish, Error, PerCommitmentSecret};

use super::frozen::{UNKNOWN_EVEN, change, followed_by};
use super::history::mine;
use super::*;
use crate::store::row::EventRow;
use crate::store::schema::{RESTORED_KEY, Table};

/// The node again, with the proof in its file that this is an old one.
async fn old_copy(bench: &Bench) -> Arc<Bench> {
    let mut batch = Batch::default();
    batch.put(Table::Meta, RESTORED_KEY.to_vec(), Some(b"a proof".to_vec()));
    batch.event(EventRow::new(1, "node_restored", serde_json::json!({})));
    bench.manager.env().writer.submit(batch);
    let bench = bench.started_again_as_it_was().await;
    assert!(bench.manager.env().is_restored());
    bench.manager.resume();
    bench
}

/// Whether wallet or mempool were given anything that ends a channel, but for closes that both have signed.
fn publishes(bench: &Bench) -> bool {
    bench.orders.try_iter().any(|order| match order {
        ChainOrder::Enforce { enforcement, .. } => enforcement.is_some_and(|found| found.publish.is_some()),
        // BOLT 3: the upper byte of a commitment's lock time.
        ChainOrder::Publish(tx) => tx.lock_time.to_consensus_u32() >> 24 == 0x20,
        ChainOrder::Forget(_)
        | ChainOrder::Send(_)
        | ChainOrder::NewBlock
        | ChainOrder::BlockLeft
        | ChainOrder::Fund(_)
        | ChainOrder::Release(_)
        | ChainOrder::Reached(_) => false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_4_a_peer_that_never_closes_is_asked_on_each_connection_for_a_thousand_blocks() {
    let mut rogue = Rogue::connect().that_keeps_its_word();
    let channel = rogue.open_normal().await;
    let id = channel.id();
    let mut bench = old_copy(&rogue.bench).await;
    let mut height = HEIGHT + 1;
    for round in 0..10 {
        if round == 5 {
            // A start asks as the one before did.
            bench = bench.started_again_as_it_was().await;
            bench.manager.resume();
        }
        rogue.reconnect(bench.clone());
        // As if nothing were wrong.
        rogue.tell(rogue.reestablish(&channel));
        let mut heard = rogue.dealt_with().await;
        heard.retain(|message| !matches!(message, Message::ChannelReestablish(_)));
        assert!(!heard.is_empty(), "{round}: it is asked again");
        for message in heard {
            let Message::Error(error) = message else { panic!("{round}: {message:?}") };
            let words = error.data.to_string();
            assert!(error.channel_id == id && words.contains("please close the channel from your side"), "{words}");
        }
        for _ in 0..100 {
            height += 1;
            mine(&bench, height);
        }
        let view = bench.manager.channel(&id).unwrap();
        assert_eq!((view.summary.state, view.closing_txid, view.peer), ("failed", None, rogue.id()));
        let by_hand = view.obstacle.unwrap();
        assert!(!by_hand.contains("  "), "{by_hand}");
        for words in [&rogue.id().to_string(), &channel.rows().params.funding.to_string(), "peer.connect"] {
            assert!(by_hand.contains(words), "{by_hand}");
        }
        let peers = bench.manager.peers();
        assert!(peers.len() == 1 && peers[0].connected && peers[0].channels == 1, "{peers:?}");
        assert!(!publishes(&bench), "{round}");
    }
    // It closes after all: what is ours comes home, and nothing is left to be done by hand.
    let close = rogue.bench.manager.directory.with(&rogue.id(), |peer| {
        let (monitor, signer) = (&peer.slots[&id].monitor, &peer.slots[&id].signer);
        monitor.remote_commitments(&**signer).unwrap()[0].tx.clone()
    });
    bench.manager.block_connected(height + 1, &block_of(vec![coinbase(), close.unwrap()]));
    let view = bench.manager.channel(&id).unwrap();
    assert_eq!((view.obstacle, view.closing_txid.is_some()), (None, true));
}

/// A channel in this state, of a node whose file proves old.
async fn in_state(state: &str) -> (Rogue, ChannelId) {
    let mut rogue = Rogue::connect().that_keeps_its_word();
    let id = match state {
        "funding" => rogue.fund().await.0.id(),
        "normal" => rogue.open_normal().await.id(),
        "shutting_down" => {
            let mut channel = rogue.open_normal().await;
            let order = Command::Shutdown { script: script(), feerate: FeeratePerKw::new(1500) };
            rogue.step(&mut channel, Input::Command(CommandId(1), order));
            rogue.dealt_with().await;
            channel.id()
        }
        "closing" => {
            let mut channel = rogue.open_normal().await;
            rogue.close(&mut channel).await;
            rogue.dealt_with().await;
            channel.id()
        }
        "failed" => {
            let id = rogue.open_normal().await.id();
            rogue.bench.manager.command(id, Command::Fail { reason: "by order".to_owned() }).await.unwrap();
            id
        }
        "closed" => rogue.open_close_and_bury().await.0.id(),
        other => panic!("{other}"),
    };
    let shown = rogue.bench.manager.channel(&id).map_or("closed", |view| view.summary.state);
    assert_eq!(shown, state);
    (rogue, id)
}

const STATES: [&str; 6] = ["funding", "normal", "shutting_down", "closing", "failed", "closed"];

/// There is no call that abandons a channel: one is forgotten only once its funding output provably never was (FND-6).
#[tokio::test(flavor = "multi_thread")]
async fn bak_6_a_restored_node_publishes_no_commitment_in_any_state_whoever_asks_for_it() {
    for state in STATES {
        let (rogue, id) = in_state(state).await;
        let bench = old_copy(&rogue.bench).await;
        let order = Command::Fail { reason: "closed by its operator".to_owned() };
        let answer = bench.manager.command(id, order).await;
        assert_eq!(answer.is_err(), state == "closed", "{state}: {answer:?}");
        bench.durable().await;
        assert!(!publishes(&bench), "{state}");
        let view = bench.manager.channel(&id);
        let expected = match state {
            // Both have signed how it ends.
            "closing" => Some("closing"),
            "closed" => None,
            _ => Some("failed"),
        };
        assert_eq!(view.as_ref().map(|view| view.summary.state), expected, "{state}");
        let still_there = bench.load().channels.len();
        assert_eq!(still_there, usize::from(state != "closed"), "{state}: nothing is abandoned");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_6_a_frozen_channel_refuses_to_be_closed_in_any_state() {
    for state in STATES.into_iter().filter(|state| *state != "closed") {
        let (rogue, id) = in_state(state).await;
        rogue.bench.durable().await;
        change(&rogue.bench, Table::ChannelHead, &id, followed_by(&UNKNOWN_EVEN));
        let bench = rogue.bench.started_again_as_it_was().await;
        bench.manager.resume();
        for order in [
            Command::Fail { reason: "closed by its operator".to_owned() },
            Command::Shutdown { script: script(), feerate: FeeratePerKw::new(1500) },
        ] {
            assert_eq!(bench.manager.command(id, order).await, Err(Refusal::Frozen), "{state}");
        }
        bench.durable().await;
        assert!(!publishes(&bench), "{state}");
        assert_eq!(bench.load().frozen.len(), 1, "{state}: its rows are there");
    }
}

/// What a peer says that has seen a newer state of the channel than the node's file has.
fn proof(rogue: &Rogue, channel: &Channel) -> Message {
    let Message::ChannelReestablish(said) = rogue.reestablish(channel) else { panic!("channel_reestablish") };
    let of_node = |peer: &mut Peer| {
        (peer.slots[&channel.id()].monitor.rows().head.clone(), peer.slots[&channel.id()].signer.clone())
    };
    let (mut later, signer) = rogue.bench.manager.directory.with(&rogue.id(), of_node).unwrap();
    later.local.number += 2;
    let next_revocation_number = later.local.number;
    let secret = signer.release_secret(next_revocation_number - 1, &Guard::of(&later)).unwrap();
    Message::ChannelReestablish(ChannelReestablish {
        next_revocation_number,
        your_last_per_commitment_secret: PerCommitmentSecret(secret),
        ..said
    })
}

fn events_of(bench: &Bench, kind: &str) -> usize {
    bench.reader.events(0, &[], 1000).unwrap().0.iter().filter(|(_, event)| event.kind == kind).count()
}

/// The machine stops in the midst of the step that has heard the proof: its own rows never come, and those of another peer's
/// channel do, which a worker has failed meanwhile. What the file says of that channel must not be taken for what a backup's
/// refusal leaves, of which the newest commitment is published.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_whatever_is_durable_of_restored_mode_its_row_is_before_that_one() {
    let mut tells = Rogue::connect().that_keeps_its_word();
    let channel = tells.open_normal().await;
    let bench = tells.bench.clone();
    let mut other = Rogue::meet(bench.clone(), 10).that_keeps_its_word();
    let id = other.open_normal().await.id();
    tells.reconnect(bench.clone());
    tells.dealt_with().await;
    let proof = proof(&tells, &channel);
    let of_other = other.id();
    bench.manager.directory.with(&tells.id(), |peer| {
        let mut drive = Drive::new(&bench.manager.env, &bench.manager.deliver);
        let connection = peer.connection();
        drive.handle(peer, Mail::Message { connection, message: Box::new(proof), bytes: 0 });
        assert!(bench.manager.env().is_restored());
        // Another worker: `Drive` there is the one thing that this thread is at.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                bench.manager.visit_with(&of_other, |drive, peer| {
                    let trouble = Message::Error(Error { channel_id: id, data: "your numbers are old".into() });
                    let connection = peer.connection();
                    drive.handle(peer, Mail::Message { connection, message: Box::new(trouble), bytes: 0 });
                });
            });
        });
        // And here everything ends.
    });
    assert_eq!(bench.manager.channel(&id).unwrap().summary.state, "failed");
    let bench = bench.started_again_as_it_was().await;
    assert!(bench.manager.env().is_restored(), "the file knows of the channel's end, and not why");
    assert_eq!(events_of(&bench, "node_restored"), 1);
    bench.manager.resume();
    let order = Command::Fail { reason: "closed by its operator".to_owned() };
    assert_eq!(bench.manager.command(id, order).await, Ok(Reply::Done));
    mine(&bench, HEIGHT + 1000);
    bench.durable().await;
    assert!(!publishes(&bench), "an old commitment");
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_3_whoever_proves_it_first_is_told_of_once() {
    let mut rogue = Rogue::connect().that_keeps_its_word();
    let channel = rogue.open_normal().await;
    rogue.reconnect(rogue.bench.clone());
    rogue.dealt_with().await;
    let proof = proof(&rogue, &channel);
    rogue.tell(proof.clone());
    rogue.dealt_with().await;
    assert!(rogue.bench.manager.env().is_restored());
    rogue.bench.manager.prove_old("a backup holds more");
    rogue.tell(proof);
    rogue.dealt_with().await;
    rogue.bench.durable().await;
    assert_eq!(events_of(&rogue.bench, "node_restored"), 1);
    let bench = rogue.bench.started_again_as_it_was().await;
    let shown = bench.manager.env().restored().borrow().clone().unwrap();
    assert!(!shown.contains("backup"), "the first proof is the one that is shown: {shown}");
}
