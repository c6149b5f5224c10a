//! What is due in the chain while a required backup is silent: before it has told what it holds our commitment waits, for that may prove
//! the file to be old; that it is late with what it was given keeps nothing back.

use outrigger_bolt::wire::Error;

use super::sinks::{Manner, Node, refused_amid_a_payment};
use super::*;

/// Why the channel fails.
#[derive(Clone, Copy, Debug)]
enum Ends {
    ByThePeer,
    ByOrder,
}

/// A node with a channel in use that has started again; the disk of its backup is away.
async fn silent() -> (Node, Rogue, ChannelId) {
    let node = Node::new(Manner::Sound);
    let mut rogue = Rogue::connect_to(node.bench.clone()).that_keeps_its_word();
    let id = rogue.is_opened_to(Msat::new(100_000_000)).await.id();
    node.until("rest", |node| node.hub.is_drained()).await;
    let node = node.restarted(Manner::Away).await;
    node.bench.manager.resume();
    rogue.reconnect(node.bench.clone());
    (node, rogue, id)
}

/// The channel fails while nothing is known of what the backup holds.
async fn failed(ends: Ends) -> (Node, Rogue, ChannelId) {
    let (node, rogue, id) = silent().await;
    match ends {
        Ends::ByThePeer => rogue.tell(Message::Error(Error { channel_id: id, data: "enough".into() })),
        Ends::ByOrder => {
            let fail = Command::Fail { reason: "by order".to_owned() };
            assert_eq!(node.bench.manager.command(id, fail).await, Ok(Reply::Done));
        }
    }
    node.until("the failure", |node| node.head(&id).failed).await;
    assert_waits(&node, &id).await;
    (node, rogue, id)
}

/// Nothing is published, and the operator is told why and what to do.
async fn assert_waits(node: &Node, id: &ChannelId) {
    assert_eq!(node.published().await, None);
    let head = node.head(id);
    assert_eq!((head.closing, head.may_publish), (Some(head.local.number), true), "its secret stays");
    assert_eq!((node.bench.load().unheard, node.bench.manager.unheard_channels()), (vec![*id], 1));
    assert_eq!(node.hub.unheard(), ["vault"]);
    let view = node.bench.manager.channel(id).unwrap();
    assert_eq!((view.summary.state, view.closing_txid), ("failed", None));
    let words = view.obstacle.unwrap();
    for part in ["has not told since this start what it holds", "mount its disk", "take it out of the configuration"] {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_what_fails_before_a_required_backup_has_told_what_it_holds_is_published_once_that_is_whole() {
    for (ends, is_restarted) in [(Ends::ByThePeer, false), (Ends::ByThePeer, true), (Ends::ByOrder, true)] {
        let (mut node, _rogue, id) = failed(ends).await;
        if is_restarted {
            node = node.restarted(Manner::Away).await;
            node.bench.manager.resume();
            assert_waits(&node, &id).await;
        }
        node.vault.is_now(Manner::Sound);
        node.until("its word", |node| node.bench.load().unheard.is_empty()).await;
        let newest = node.newest(&id);
        assert_eq!(node.published().await, Some(newest), "{ends:?}");
        let view = node.bench.manager.channel(&id).unwrap();
        assert_eq!((view.closing_txid, view.obstacle), (Some(newest), None));
        assert_eq!((node.hub.unheard().len(), node.bench.manager.unheard_channels()), (0, 0));
        // It failed before: from the next start on nobody is waited for.
        let node = node.restarted(Manner::Away).await;
        node.bench.manager.resume();
        assert_eq!(node.published().await, Some(newest), "{ends:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_what_fails_before_a_required_backup_has_told_that_it_is_ahead_is_never_published() {
    for is_restarted in [false, true] {
        let (mut node, _rogue, id) = failed(Ends::ByThePeer).await;
        if is_restarted {
            node = node.restarted(Manner::Away).await;
            node.bench.manager.resume();
            assert_waits(&node, &id).await;
        }
        node.vault.has_more_of(&id);
        node.vault.is_now(Manner::Sound);
        node.until("restored mode", |node| node.bench.manager.env().is_restored()).await;
        node.until("its end", |node| !node.head(&id).may_publish).await;
        assert_eq!(node.published().await, None);
        let fail = Command::Fail { reason: "by order".to_owned() };
        assert_eq!(node.bench.manager.command(id, fail).await, Ok(Reply::Done));
        assert!(node.published_now().await.is_none_or(|published| published.is_none()));
        let words = node.bench.manager.channel(&id).unwrap().obstacle.unwrap();
        assert!(words.contains("the peer alone can close the channel now"), "{words}");
        // Nor once it is not required any more.
        node.vault.only_follows();
        let node = node.restarted(Manner::Sound).await;
        node.bench.manager.resume();
        assert_eq!(node.published().await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_an_operator_who_takes_the_silent_backup_out_has_what_failed_published() {
    let (node, _rogue, id) = failed(Ends::ByOrder).await;
    node.vault.only_follows();
    let node = node.restarted(Manner::Away).await;
    assert_eq!(node.bench.manager.unheard_channels(), 1);
    node.bench.manager.resume();
    assert_eq!(node.published().await, Some(node.newest(&id)));
    assert_eq!((node.bench.load().unheard.len(), node.bench.manager.unheard_channels()), (0, 0));
}

/// The peer's newest commitment comes into the chain: what is ours in it is claimed, whatever the backup may yet tell.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_what_is_in_the_chain_is_claimed_while_a_required_backup_has_told_nothing() {
    let (node, _rogue, id) = silent().await;
    spends(&node, &id, HEIGHT + 2);
    node.until("the failure", |node| node.head(&id).failed).await;
    let enforcement = node.enforced().await.expect("an order");
    assert!(enforcement.publish.is_none() && !enforcement.claims.is_empty(), "{enforcement:?}");
    assert_eq!((node.hub.unheard(), node.bench.load().unheard), (vec!["vault"], vec![id]));
    assert_eq!(node.bench.manager.channel(&id).unwrap().obstacle, None, "nothing waits");
    // A reorganisation takes it back: then ours would be due, and waits.
    node.bench.manager.block_disconnected(HEIGHT + 2);
    node.until("the reorganisation", |node| node.bench.manager.channel(&id).unwrap().obstacle.is_some()).await;
    assert_waits(&node, &id).await;
}

/// A commitment that is kept in reserve was in every required backup when it was kept: no word of theirs can make it a revoked one.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_a_commitment_that_is_kept_in_reserve_is_published_while_a_required_backup_has_told_nothing() {
    let node = Node::new(Manner::Sound);
    let (_rogue, id, kept, _) = refused_amid_a_payment(&node).await;
    node.until("the failure", |node| node.head(&id).reserved).await;
    let node = node.restarted(Manner::Away).await;
    node.bench.manager.resume();
    assert_eq!(node.published().await, None);
    let preimage = PaymentPreimage([1; 32]);
    assert_eq!(node.bench.manager.command(id, Command::Fulfill { htlc_id: 0, preimage }).await, Ok(Reply::Done));
    node.bench.manager.block_connected(HEIGHT + 300, &block_of(vec![coinbase()]));
    node.until("the deadline", |node| node.head(&id).may_publish).await;
    assert_eq!(node.published().await, Some(kept));
    assert_eq!((node.hub.unheard(), node.bench.load().unheard), (vec!["vault"], vec![]));
}

/// A block holds the peer's newest commitment.
fn spends(node: &Node, channel: &ChannelId, height: u32) {
    let manager = &node.bench.manager;
    let newest = |peer: &mut Peer| {
        let slot = &peer.slots[channel];
        slot.monitor.remote_commitments(&*slot.signer).unwrap().pop().unwrap().tx
    };
    let Registered { peer, .. } = manager.deliver().registered(channel).unwrap();
    let tx = manager.directory.with(&peer, newest).unwrap();
    manager.block_connected(height, &block_of(vec![coinbase(), tx]));
}

/// Issue 5: "none of the stalled channel's deadlines is missed". The backup has refused one channel and completes nothing of any other.
#[tokio::test(flavor = "multi_thread")]
async fn per_2_while_a_required_backup_completes_nothing_what_is_due_in_the_chain_is_ordered() {
    let node = Node::new(Manner::Sound);
    let (_rogue, reserved, kept, _) = refused_amid_a_payment(&node).await;
    node.until("the refusal", |node| node.head(&reserved).reserved).await;
    node.vault.is_now(Manner::Sound);
    let spent = Rogue::meet(node.bench.clone(), 10).that_keeps_its_word().open_normal().await.id();
    node.until("rest", |node| node.hub.is_drained()).await;
    node.vault.is_now(Manner::Slow);
    let (had, expiry) = (node.vault.kept(), HEIGHT + 100);
    // The peer's HTLC has a deadline from the moment on that its preimage is known.
    let preimage = PaymentPreimage([1; 32]);
    let fulfill = Command::Fulfill { htlc_id: 0, preimage };
    assert_eq!(node.bench.manager.command(reserved, fulfill).await, Ok(Reply::Done));
    node.bench.manager.block_connected(expiry - 19, &block_of(vec![coinbase()]));
    node.bench.manager.env().writer.barrier().await;
    assert!(!node.head(&reserved).may_publish, "one block early");
    node.published_now().await;
    node.bench.manager.block_connected(expiry - 18, &block_of(vec![coinbase()]));
    node.until("the deadline", |node| node.head(&reserved).may_publish).await;
    assert_eq!(node.published().await, Some(kept));
    // What spends the funding output of another channel is claimed from with its block.
    spends(&node, &spent, expiry - 17);
    node.until("the failure", |node| node.head(&spent).failed).await;
    let enforcement = node.enforced().await.expect("an order");
    assert!(enforcement.publish.is_none() && !enforcement.claims.is_empty(), "{enforcement:?}");
    node.until("the write", |node| node.vault.has_open(&spent)).await;
    assert_eq!(node.vault.kept(), had, "nothing was completed");
}
