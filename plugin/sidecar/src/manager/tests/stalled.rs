//! Channels that wait for a backup, and channels that a backup will never have.

use outrigger_bolt::wire::Error;
use outrigger_channel::Publication;

use super::*;
use crate::store::backup::Unstored;
use crate::store::backup::refusals::Refusals;
use crate::store::row::BroadcastRow;

/// What the sinks tell of a channel that the backup "second" refused.
fn unstored(channel: ChannelId, is_new: bool) -> Unstored {
    let reason = "the backup second will never have it".to_owned();
    Unstored { channel, reason, is_new, complete: None, refusals: Refusals([("second".to_owned(), channel)].into()) }
}

async fn until(rogue: &Rogue, id: &ChannelId, is_stalled: bool) {
    rogue.bench.manager.set_stalled(id, is_stalled);
    let is_so = || rogue.bench.manager.channel(id).unwrap().is_stalled == is_stalled;
    rogue.bench.until("the channel has learnt whether it is stalled", is_so).await;
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
    rogue.bench.manager.fail_unstored(unstored(channel.id(), false));
    let Message::Error(error) = rogue.hear_type(Error::TYPE).await else { panic!("an error") };
    assert_eq!(error.data.to_string(), "the backup second will never have it");
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!((view.summary.state, view.closing_txid), ("failed", None));
    rogue.bench.durable().await;
    let enforced: Vec<_> = rogue.bench.orders.try_iter().collect();
    let publishes = |order: &ChainOrder| match order {
        ChainOrder::Enforce { enforcement, .. } => {
            enforcement.as_ref().is_some_and(|enforced| enforced.publish.is_some())
        }
        ChainOrder::Publish(_) => true,
        ChainOrder::Forget(_)
        | ChainOrder::Send(_)
        | ChainOrder::NewBlock
        | ChainOrder::BlockLeft
        | ChainOrder::Fund(_)
        | ChainOrder::Release(_)
        | ChainOrder::Reached(_) => false,
    };
    assert!(!enforced.iter().any(publishes), "{enforced:?}");
}

/// The funding transaction was held for the backup: its coins are free again, and no row of the channel is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_refused_before_anything_of_it_left_is_forgotten_and_its_coins_are_free() {
    let mut rogue = Rogue::connect();
    let (channel, tx) = rogue.is_funded(Msat::ZERO).await;
    rogue.bench.manager.fail_unstored(unstored(channel.id(), true));
    rogue.hear_type(Error::TYPE).await;
    let released = loop {
        if let ChainOrder::Release(txid) = rogue.bench.orders.recv_timeout(LIMIT).unwrap() {
            break txid;
        }
    };
    assert_eq!(released, tx.compute_txid());
    let is_gone = || rogue.bench.manager.channel(&channel.id()).is_none();
    rogue.bench.until("the channel is forgotten", is_gone).await;
    let found = rogue.bench.load();
    assert!(found.channels.is_empty() && found.broadcasts.is_empty());
}

/// What the start and a reorganisation do with a channel's funding transaction: published at the start without backups
/// and with them, and kept from whoever publishes what a reorganisation left.
fn fate(manager: &Manager, row: &BroadcastRow) -> (bool, bool, bool) {
    let at_start = |has_backups| manager.publishes_at_start(row, has_backups);
    (at_start(false), at_start(true), manager.keeps_to_itself(row))
}

/// It may have waited for the backup that refused the channel, and then nobody else has it.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_the_funding_transaction_of_a_channel_that_a_backup_refused_leaves_by_no_other_door() {
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.is_funded(Msat::ZERO).await;
    let manager = rogue.bench.manager.clone();
    let rows = rogue.bench.load().broadcasts;
    assert_eq!(manager.env().reader.broadcasts().unwrap(), rows);
    let [row]: [_; 1] = rows.try_into().unwrap();
    assert_eq!(row.what, Publication::Funding);
    assert_eq!(fate(&manager, &row), (true, false, true));
    manager.fail_unstored(unstored(channel.id(), false));
    rogue.hear_type(Error::TYPE).await;
    assert_eq!(fate(&manager, &row), (false, false, true));
    assert_eq!(rogue.bench.load().broadcasts, [row]);
}

/// It was published: with its commitment it brings the money back.
#[tokio::test(flavor = "multi_thread")]
async fn the_funding_transaction_of_a_channel_that_failed_by_itself_is_published_again() {
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.is_funded(Msat::ZERO).await;
    let manager = rogue.bench.manager.clone();
    let [row]: [_; 1] = rogue.bench.load().broadcasts.try_into().unwrap();
    assert_eq!(manager.command(channel.id(), Command::Fail { reason: "by hand".into() }).await, Ok(Reply::Done));
    assert_eq!(fate(&manager, &row), (true, true, false));
}

/// What is kept in reserve is worth nothing without it.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_the_funding_transaction_is_published_again_where_a_commitment_is_kept_in_reserve() {
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.is_funded(Msat::ZERO).await;
    let manager = rogue.bench.manager.clone();
    let [row]: [_; 1] = rogue.bench.load().broadcasts.try_into().unwrap();
    manager.fail_unstored(Unstored { complete: Some(0), ..unstored(channel.id(), false) });
    rogue.hear_type(Error::TYPE).await;
    assert_eq!(fate(&manager, &row), (true, true, false));
}

/// The step that forgets the channel is not taken any more: its rows stand, and so do its coins.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_refusal_that_comes_while_the_node_stops_frees_no_coins() {
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.is_funded(Msat::ZERO).await;
    let manager = rogue.bench.manager.clone();
    assert!(manager.env().meet_fault("a fault of another channel"));
    manager.fail_unstored(unstored(channel.id(), true));
    // Letters are dealt with in their order.
    rogue.dealt_with().await;
    rogue.bench.durable().await;
    assert!(!rogue.bench.orders.try_iter().any(|order| matches!(order, ChainOrder::Release(_))));
    let found = rogue.bench.load();
    assert_eq!((found.channels.len(), found.broadcasts.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_no_funding_transaction_leaves_a_node_whose_file_is_old_and_closes_still_do() {
    let mut rogue = Rogue::connect();
    rogue.is_funded(Msat::ZERO).await;
    let manager = rogue.bench.manager.clone();
    let [funding]: [_; 1] = rogue.bench.load().broadcasts.try_into().unwrap();
    let close = BroadcastRow { what: Publication::MutualClose, ..funding.clone() };
    manager.prove_old("a backup holds more");
    assert_eq!(fate(&manager, &funding), (false, false, true));
    assert_eq!(fate(&manager, &close), (true, true, false));
}
