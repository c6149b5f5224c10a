//! Channels that wait for a backup, and channels that a backup will never have.

use outrigger_bolt::wire::Error;

use super::*;

async fn until(rogue: &Rogue, id: &ChannelId, is_stalled: bool) {
    rogue.bench.manager.set_stalled(id, is_stalled);
    while rogue.bench.manager.channel(id).unwrap().is_stalled != is_stalled {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_channel_takes_no_new_htlcs_and_is_shown_as_such_until_it_goes_on() {
    let mut rogue = Rogue::connect();
    let channel = rogue.is_opened_to(Msat::ZERO).await;
    let (id, manager) = (channel.id(), rogue.bench.manager.clone());
    let able = |manager: &Manager| manager.outlets(&rogue.id, Msat::new(1000), 10).largest.len();
    assert_eq!(able(&manager), 1);
    until(&rogue, &id, true).await;
    assert_eq!(able(&manager), 0, "no payment of ours is planned over it");
    assert_eq!(manager.command(id, add(1)).await, Err(Refusal::Stalled));
    assert!(Refusal::Stalled.is_retryable());
    until(&rogue, &id, false).await;
    assert_eq!(able(&manager), 1);
    assert!(matches!(manager.command(id, add(1)).await, Ok(Reply::Added { htlc_id: 0 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_a_required_backup_refuses_fails_with_an_error_and_is_not_published() {
    let mut rogue = Rogue::connect();
    let channel = rogue.is_opened_to(Msat::ZERO).await;
    rogue.bench.manager.fail_unstored(&channel.id(), "the backup second will never have it".into(), false);
    let Message::Error(error) = rogue.hear_type(Error::TYPE).await else { panic!("an error") };
    assert_eq!(error.data.to_string(), "the backup second will never have it");
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!((view.summary.state, view.closing_txid), ("failed", None));
    rogue.bench.manager.env().writer.barrier().await;
    let enforced: Vec<_> = rogue.bench.orders.try_iter().collect();
    let publishes = |order: &ChainOrder| match order {
        ChainOrder::Enforce { enforcement, .. } => {
            enforcement.as_ref().is_some_and(|enforced| enforced.publish.is_some())
        }
        ChainOrder::Publish(_) => true,
        ChainOrder::Forget(_)
        | ChainOrder::NewBlock
        | ChainOrder::BlockLeft
        | ChainOrder::Fund(_)
        | ChainOrder::Release(_) => false,
    };
    assert!(!enforced.iter().any(publishes), "{enforced:?}");
}

/// The funding transaction was held for the backup: its coins are free again, and no row of the channel is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_refused_before_anything_of_it_left_is_forgotten_and_its_coins_are_free() {
    let mut rogue = Rogue::connect();
    let (channel, tx) = rogue.is_funded(Msat::ZERO).await;
    rogue.bench.manager.fail_unstored(&channel.id(), "the backup second will never have it".into(), true);
    rogue.hear_type(Error::TYPE).await;
    let released = loop {
        if let ChainOrder::Release(txid) = rogue.bench.orders.recv_timeout(LIMIT).unwrap() {
            break txid;
        }
    };
    assert_eq!(released, tx.compute_txid());
    while rogue.bench.manager.channel(&channel.id()).is_some() {
        tokio::task::yield_now().await;
    }
    let found = rogue.bench.load();
    assert!(found.channels.is_empty() && found.broadcasts.is_empty());
}
