//! Channels in the making, as many peers ask for them.

use bitcoin::{OutPoint, Txid};
use outrigger_bolt::wire::Error;
use redb::{ReadableDatabase, ReadableTableMetadata};

use super::*;
use crate::clock::Clock;
use crate::manager::pending::{MAX_PENDING_PEERS, MAX_PENDING_PER_PEER, OPENING_TIMEOUT};
use crate::store::row::EventRow;
use crate::store::schema::{EVENT_BYTES_KEY, Table};

/// Rows of every table, events apart.
async fn rows(bench: &Bench) -> u64 {
    bench.durable().await;
    let read = bench.db.begin_read().unwrap();
    let tables = Table::ALL.iter().filter(|table| **table != Table::Event);
    let count: u64 = tables.map(|table| read.open_table(table.definition()).unwrap().len().unwrap()).sum();
    // Events stay, and what they hold is counted in a row.
    let counted = read.open_table(Table::Meta.definition()).unwrap().get(EVENT_BYTES_KEY).unwrap();
    count - u64::from(counted.is_some())
}

fn refusal(message: Message) -> String {
    let Message::Error(Error { data, .. }) = message else { panic!("{message:?}") };
    data.to_string()
}

/// Waits until no channel is in memory, and looks that none is waited for.
async fn nothing_left(bench: &Bench) {
    bench.until("no channel is in memory", || every_channel(&bench.manager).is_empty()).await;
    assert_eq!(bench.manager.deliver().index().lock().len(), 0, "nothing is watched");
}

/// A block without news for anybody.
fn empty_block() -> Block {
    block_of(vec![coinbase()])
}

#[tokio::test(flavor = "multi_thread")]
async fn fnd_7_bad_input_29_the_fifth_pending_channel_of_a_peer_is_refused_wherever_the_first_four_stand() {
    let mut peer = Rogue::connect();
    // All said before anything is heard: what waits to be handled counts as well.
    let mut openings: Vec<_> = (0..MAX_PENDING_PER_PEER + 1).map(|_| peer.ask()).collect();
    let fifth = openings.pop().unwrap();
    for opening in &openings {
        let Message::AcceptChannel(accept) = peer.hear().await else { panic!("accept_channel") };
        assert_eq!(accept.temporary_channel_id, opening.temporary_id());
    }
    let Message::Error(error) = peer.hear().await else { panic!("error") };
    assert_eq!(error.channel_id, fifth.temporary_id());
    assert_eq!(error.data.to_string(), "too many pending channels; wait until one is confirmed");

    // Signed but in no block, they count as before; a confirmed one makes room.
    let mut peer = Rogue::meet(peer.bench.clone(), 10);
    for _ in 1..MAX_PENDING_PER_PEER {
        peer.fund().await;
    }
    let (mut fourth, tx) = peer.fund().await;
    peer.ask();
    assert!(refusal(peer.hear().await).starts_with("too many pending channels"));
    peer.bench.manager.block_connected(HEIGHT + 1, &block_of(vec![coinbase(), tx.clone()]));
    let confirmed = ChainEvent::FundingConfirmed { height: HEIGHT + 1, tx_index: 1, tx: &tx };
    peer.step(&mut fourth, Input::Chain(confirmed));
    peer.until(&mut fourth, |channel, _| channel.summary(HEIGHT + 1).state == "normal").await;
    assert!(peer.dealt_with().await.is_empty());
    peer.ask();
    assert!(matches!(peer.hear().await, Message::AcceptChannel(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fnd_6_bad_input_29_the_51st_stranger_is_refused_and_a_peer_with_a_channel_is_not() {
    let bench = Arc::new(Bench::new());
    let mut known = Rogue::meet(bench.clone(), 1);
    known.open_normal().await;
    let mut strangers = Vec::new();
    for number in 100..100 + u16::try_from(MAX_PENDING_PEERS).unwrap() {
        let mut stranger = Rogue::meet(bench.clone(), number);
        stranger.ask();
        assert!(matches!(stranger.hear().await, Message::AcceptChannel(_)));
        strangers.push(stranger);
    }
    let mut late = Rogue::meet(bench.clone(), 99);
    late.ask();
    assert_eq!(refusal(late.hear().await), "too many pending channels with other peers; try again later");
    known.ask();
    assert!(matches!(known.hear().await, Message::AcceptChannel(_)));
    // Those that are counted go on.
    strangers[0].ask();
    assert!(matches!(strangers[0].hear().await, Message::AcceptChannel(_)));
    // One leaves before it has signed anything, and there is room.
    let leaving = strangers.pop().unwrap();
    bench.manager.disconnected(&leaving.id, leaving.connection);
    let has_left = || bench.manager.peers().iter().all(|peer| peer.node_id != leaving.id);
    bench.until("the peer that left is forgotten", has_left).await;
    late.ask();
    assert!(matches!(late.hear().await, Message::AcceptChannel(_)));
}

/// Strangers whose channels are signed and whose transactions never come, and what they cost.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_6_fnd_8_channels_that_are_never_funded_leave_nothing_after_2016_blocks() {
    let bench = Arc::new(Bench::new());
    let baseline = rows(&bench).await;
    for number in 0..40 {
        let mut stranger = Rogue::meet(bench.clone(), 100 + number);
        for _ in 0..MAX_PENDING_PER_PEER {
            stranger.fund().await;
        }
        // They come back, and forget.
        bench.manager.disconnected(&stranger.id, stranger.connection);
    }
    // Three small rows each, and nothing else: no event that would stay.
    assert_eq!(rows(&bench).await, baseline + 3 * 160);
    assert_eq!(bench.reader.events(0, &[], 10).unwrap().0, []);
    // A start in between finds them, and when their time ends.
    let bench = bench.started_again(forwarding_policy()).await;
    assert_eq!(every_channel(&bench.manager).len(), 160);
    // They are counted from the start on: there is room for ten more.
    let mut newcomers = Vec::new();
    for number in 0..11 {
        let mut newcomer = Rogue::meet(bench.clone(), 200 + number);
        newcomer.ask();
        assert_eq!(matches!(newcomer.hear().await, Message::AcceptChannel(_)), number < 10, "{number}");
        newcomers.push(newcomer);
    }
    bench.manager.block_connected(HEIGHT + 2015, &empty_block());
    assert_eq!(rows(&bench).await, baseline + 3 * 160);
    bench.manager.block_connected(HEIGHT + 2016, &empty_block());
    assert_eq!(rows(&bench).await, baseline);
    nothing_left(&bench).await;
    // What comes back asks for a channel that never was.
    let mut stranger = Rogue::meet(bench.clone(), 100);
    assert!(stranger.dealt_with().await.is_empty());
    stranger.ask();
    assert!(matches!(stranger.hear().await, Message::AcceptChannel(_)), "all is as at first");
}

/// A peer that fails what it has just opened, again and again, is never told that there are too many, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_8_an_abandoned_channel_leaves_no_row_and_no_watch() {
    let mut peer = Rogue::connect();
    peer.push_msat = 0;
    let bench = peer.bench.clone();
    let baseline = rows(&bench).await;
    for _ in 0..50 {
        let (channel, _) = peer.fund().await;
        peer.tell(Message::Error(Error { channel_id: channel.id(), data: "never mind".into() }));
        peer.dealt_with().await;
    }
    assert_eq!(rows(&bench).await, baseline);
    nothing_left(&bench).await;
    assert_eq!(bench.reader.events(0, &[], 10).unwrap().0, []);
}

fn operation(bench: &Bench) -> OperationState {
    bench.reader.operation("retry-1").unwrap().unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn fnd_9_dos_7_an_opening_whose_peer_falls_silent_ends_after_ten_minutes_and_not_before() {
    let mut peer = Rogue::connect();
    for _ in 0..MAX_PENDING_PER_PEER {
        peer.ask();
        peer.hear().await;
    }
    let begun = Clock::monotonic();
    // A clock that stands before the beginning ends nothing (CLK-1).
    peer.bench.manager.expire_openings(begun - OPENING_TIMEOUT);
    peer.bench.manager.expire_openings(begun + OPENING_TIMEOUT / 2);
    peer.ask();
    assert!(refusal(peer.hear().await).starts_with("too many pending channels"));
    peer.bench.manager.expire_openings(begun + OPENING_TIMEOUT);
    for _ in 0..MAX_PENDING_PER_PEER {
        assert!(refusal(peer.hear().await).starts_with("the channel was not signed in time"));
    }
    peer.ask();
    assert!(matches!(peer.hear().await, Message::AcceptChannel(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fnd_9_fnd_13_a_peer_that_never_accepts_or_never_signs_keeps_neither_our_call_nor_our_coins() {
    let mut peer = Rogue::connect();
    peer.wanted(Msat::ZERO).await;
    peer.bench.manager.expire_openings(Clock::monotonic() + OPENING_TIMEOUT);
    assert!(refusal(peer.hear().await).starts_with("the channel was not signed in time"));
    peer.bench.durable().await;
    assert!(matches!(operation(&peer.bench), OperationState::Failed { .. }));

    let open = peer.wanted(Msat::ZERO).await;
    let (_, tx) = peer.accepted(&open).await;
    peer.bench.manager.funded(&peer.id, open.temporary_channel_id, Ok((tx.clone(), 0)));
    assert!(matches!(peer.hear().await, Message::FundingCreated(_)));
    peer.bench.manager.expire_openings(Clock::monotonic() + OPENING_TIMEOUT);
    assert!(refusal(peer.hear().await).starts_with("the channel was not signed in time"));
    let order = peer.bench.orders.recv_timeout(LIMIT).unwrap();
    assert!(matches!(&order, ChainOrder::Release(txid) if *txid == tx.compute_txid()), "{order:?}");
    assert!(matches!(operation(&peer.bench), OperationState::Failed { .. }));
    let (events, _) = peer.bench.reader.events(0, &[], 10).unwrap();
    assert_eq!(events.iter().map(|(_, event)| event.kind.as_str()).collect::<Vec<_>>(), ["open_failed"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fnd_13_a_disconnection_at_every_message_frees_what_the_opening_held() {
    for stage in 0..3 {
        let mut peer = Rogue::connect();
        let open = peer.wanted(Msat::ZERO).await;
        let temporary = open.temporary_channel_id;
        let mut funding: Option<Txid> = None;
        if stage > 0 {
            let (_, tx) = peer.accepted(&open).await;
            funding = Some(tx.compute_txid());
            if stage > 1 {
                peer.bench.manager.funded(&peer.id, temporary, Ok((tx, 0)));
                assert!(matches!(peer.hear().await, Message::FundingCreated(_)));
            } else {
                // The wallet answers an opening that is over.
                let bench = peer.bench.clone();
                peer.reconnect(bench.clone());
                assert!(peer.dealt_with().await.is_empty());
                bench.manager.funded(&peer.id, temporary, Ok((tx, 0)));
            }
        }
        let bench = peer.bench.clone();
        peer.reconnect(bench.clone());
        assert!(peer.dealt_with().await.is_empty());
        if let Some(txid) = funding {
            let order = bench.orders.recv_timeout(LIMIT).unwrap();
            assert!(matches!(&order, ChainOrder::Release(released) if *released == txid), "{stage}: {order:?}");
        }
        bench.durable().await;
        assert!(matches!(operation(&bench), OperationState::Failed { .. }), "{stage}");
        assert!(bench.orders.is_empty(), "{stage}");
    }
}

/// A peer that has ended an opening cannot put one of its own into its place while the wallet works: the coins would be kept for it, and
/// its end never told.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_9_fnd_13_a_peer_cannot_take_the_name_of_an_opening_whose_coins_are_being_chosen() {
    let mut peer = Rogue::connect();
    let open = peer.wanted(Msat::ZERO).await;
    let (_, tx) = peer.accepted(&open).await;
    peer.tell(Message::Error(Error { channel_id: open.temporary_channel_id, data: "changed my mind".into() }));
    peer.tell(Message::OpenChannel(open.clone()));
    let Message::Warning(refused) = peer.hear().await else { panic!("the name was given away") };
    assert_eq!(refused.data.to_string(), "this temporary_channel_id is in use");
    peer.bench.manager.funded(&peer.id, open.temporary_channel_id, Ok((tx.clone(), 0)));
    let order = peer.bench.orders.recv_timeout(LIMIT).unwrap();
    assert!(matches!(&order, ChainOrder::Release(txid) if *txid == tx.compute_txid()), "{order:?}");
    peer.bench.durable().await;
    assert!(matches!(operation(&peer.bench), OperationState::Failed { .. }));
}

/// Whoever hears that it has failed may open again at once: nothing is told before the wallet, whose answer is on its way, keeps no coins
/// for it. The peer is away for good meanwhile, and known nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_13_an_opening_that_ends_while_the_wallet_works_is_told_of_with_the_release_of_its_coins() {
    for has_coins in [true, false] {
        let mut peer = Rogue::connect();
        let open = peer.wanted(Msat::ZERO).await;
        let (_, tx) = peer.accepted(&open).await;
        let (bench, id) = (peer.bench.clone(), peer.id);
        bench.manager.disconnected(&id, peer.connection);
        let is_away = || bench.manager.directory.with(&id, |peer| peer.live.is_none() && peer.openings.is_empty());
        bench.until("the peer is away", || is_away() == Some(true)).await;
        bench.durable().await;
        assert_eq!(bench.reader.operation("retry-1").unwrap(), None, "nothing is told yet");
        assert_eq!(bench.reader.events(0, &[], 10).unwrap().0, []);
        let answer = if has_coins { Ok((tx.clone(), 0)) } else { Err("too few coins".to_owned()) };
        bench.manager.funded(&id, open.temporary_channel_id, answer);
        bench.until("the end", || bench.reader.operation("retry-1").unwrap().is_some()).await;
        bench.durable().await;
        let OperationState::Failed { reason } = operation(&bench) else { panic!("{:?}", operation(&bench)) };
        assert_eq!(reason, "the peer disconnected before the channel was signed");
        let kinds = bench.reader.events(0, &[], 10).unwrap().0;
        assert_eq!(kinds.iter().map(|(_, event)| event.kind.as_str()).collect::<Vec<_>>(), ["open_failed"]);
        let released: Vec<_> = bench.orders.try_iter().collect();
        let is_its = |order: &ChainOrder| matches!(order, ChainOrder::Release(txid) if *txid == tx.compute_txid());
        assert!(released.len() == usize::from(has_coins) && released.iter().all(is_its), "{released:?}");
        bench.until("the peer is forgotten", || bench.manager.directory.with(&id, |_| ()).is_none()).await;
    }
}

/// What the node is ordered to do on the chain for its failed channels, in order; whether it publishes a commitment.
fn publishes(bench: &Bench) -> Vec<(ChannelId, bool)> {
    let enforced = bench.orders.try_iter().filter_map(|order| match order {
        ChainOrder::Enforce { channel, enforcement, .. } => Some((channel, enforcement?.publish.is_some())),
        _ => None,
    });
    enforced.collect()
}

/// A peer signs channels in which something is ours, fails them, and never pays for them: as often as it likes, it costs no
/// coin of ours, and no more rows than channels in the making do.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_6_fnd_8_a_failed_promise_stays_a_promise() {
    let mut peer = Rogue::connect();
    let bench = peer.bench.clone();
    let baseline = rows(&bench).await;
    let mut promised = Vec::new();
    for _ in 0..MAX_PENDING_PER_PEER {
        let (channel, tx) = peer.fund().await;
        peer.tell(Message::Error(Error { channel_id: channel.id(), data: "no".into() }));
        assert!(peer.dealt_with().await.is_empty());
        assert_eq!(bench.manager.channel(&channel.id()).unwrap().summary.state, "failed");
        promised.push((channel.id(), tx));
    }
    peer.ask();
    bench.durable().await;
    bench.assert_counted(0);
    assert!(refusal(peer.hear().await).starts_with("too many pending channels"));
    assert!(publishes(&bench).iter().all(|(_, publishes)| !publishes), "no coin is locked for a promise");
    assert!(promised.iter().all(|(id, _)| bench.manager.channel(id).unwrap().closing_txid.is_none()));

    // One is kept in the end, and its commitment goes out.
    let (kept, tx) = promised.pop().unwrap();
    bench.manager.block_connected(HEIGHT + 1, &block_of(vec![coinbase(), tx]));
    bench.durable().await;
    assert_eq!(publishes(&bench), [(kept, true)]);
    bench.assert_counted(1);
    assert!(bench.manager.channel(&kept).unwrap().closing_txid.is_some());
    bench.manager.block_disconnected(HEIGHT + 1);
    bench.durable().await;
    assert_eq!(publishes(&bench), [(kept, false)], "the block is gone, and with it the output");
    bench.assert_counted(0);

    // It waits on in vain, as the others do, and after a start too.
    let bench = bench.started_again(forwarding_policy()).await;
    bench.manager.resume();
    bench.durable().await;
    bench.assert_counted(0);
    assert!(publishes(&bench).iter().all(|(_, publishes)| !publishes));
    bench.manager.block_connected(HEIGHT + 2015, &empty_block());
    assert_eq!(every_channel(&bench.manager).len(), MAX_PENDING_PER_PEER);
    bench.manager.block_connected(HEIGHT + 2016, &empty_block());
    nothing_left(&bench).await;
    let (events, _) = bench.reader.events(0, &[], 100).unwrap();
    let kinds: Vec<_> = events.iter().map(|(_, event)| event.kind.as_str()).collect();
    let of = |kind: &str| kinds.iter().filter(|told| **told == kind).count();
    assert_eq!([of("channel_failed"), of("channel_pending"), of("channel_closed")], [4, 1, 4], "{events:?}");
    assert_eq!(events.len(), 9);
    // What was told to be ours with a block is taken back with the channel.
    let ours = |(_, event): &(u64, EventRow)| event.fields["amount_msat"].as_u64().filter(|ours| *ours > 0);
    let told: Vec<_> = events.iter().filter_map(|event| Some((event.1.kind.as_str(), ours(event)?))).collect();
    assert!(matches!(told[..], [("channel_pending", pushed), ("channel_closed", gone)] if pushed == gone), "{told:?}");
    bench.assert_counted(0);
    assert_eq!(rows(&bench).await, baseline, "and nothing else is left");
}

/// However its connections and openings follow one another, a peer has one opening of a name, and none of an older
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_9_openings_of_an_older_connection_are_gone_whatever_the_order_of_the_news() {
    let mut peer = Rogue::connect();
    let bench = peer.bench.clone();
    for _ in 0..3 {
        let opening = peer.ask();
        assert!(matches!(peer.hear().await, Message::AcceptChannel(_)));
        // The same name again, on the same connection, is refused; the first goes on.
        peer.asked -= 1;
        peer.ask();
        let Message::Warning(refused) = peer.hear().await else { panic!("an error would end the first one") };
        assert_eq!(refused.data.to_string(), "this temporary_channel_id is in use");
        // The new connection may be told before the end of the old one, and the opening is asked for at once.
        let (older, old_connection) = (peer.id, peer.connection);
        let (sender, queue) = outbox(1 << 20);
        let init = bench.manager.our_init();
        peer.connection = bench.manager.connected(peer.id, Origin::Peer, &init, sender).unwrap();
        peer.queue = queue;
        peer.asked -= 1;
        let again = peer.ask();
        assert_eq!(again.temporary_id(), opening.temporary_id());
        bench.manager.disconnected(&older, old_connection);
        assert!(matches!(peer.hear().await, Message::AcceptChannel(_)), "the name is free again");
        assert!(peer.dealt_with().await.is_empty());
        peer.reconnect(bench.clone());
        peer.asked -= 1;
    }
    assert!(every_channel(&bench.manager).is_empty());
}

/// An opener that fails before its transaction went out, and crashes, publishes it at the next start: the peer may have it
/// in its rows, and coins of ours may be in it.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_5_a_funding_transaction_is_published_after_a_failure_and_a_crash() {
    let mut peer = Rogue::connect();
    let (channel, tx) = peer.is_funded(Msat::ZERO).await;
    peer.tell(Message::Error(Error { channel_id: channel.id(), data: "no".into() }));
    peer.dealt_with().await;
    let view = peer.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!(view.summary.state, "failed");
    peer.bench.durable().await;
    let broadcasts = peer.bench.load().broadcasts;
    assert!(broadcasts.iter().any(|row| row.tx == tx), "what a start publishes: {broadcasts:?}");
}

/// What peers say and what callers order at the same time blocks nobody for good.
#[tokio::test(flavor = "multi_thread")]
async fn cst_16_a_thousand_closes_at_once_are_all_answered() {
    let mut peer = Rogue::connect();
    let channel = peer.open_normal().await;
    let bench = peer.bench.clone();
    let unknown = ChannelId::from_funding(OutPoint::null());
    let mut closes = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let (bench, channel) = (bench.clone(), if number % 2 == 0 { channel.id() } else { unknown });
        closes.spawn(async move {
            let close = Command::Shutdown { script: script(), feerate: FeeratePerKw::new(1000) };
            (channel, bench.manager.command(channel, close).await)
        });
    }
    let mut taken = 0;
    while let Some(closed) = closes.join_next().await {
        match closed.unwrap() {
            (named, answer) if named == unknown => assert_eq!(answer, Err(Refusal::UnknownChannel)),
            (_, Ok(Reply::Done)) => taken += 1,
            (_, Ok(Reply::Added { .. })) => panic!("an HTLC"),
            (_, Err(Refusal::ShuttingDown)) => {}
            (_, Err(other)) => panic!("{other}"),
        }
    }
    assert!(taken >= 1);
    assert!(matches!(peer.hear().await, Message::Shutdown(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn dos_7_guests_are_limited_and_peers_with_a_channel_or_dialled_ones_are_not() {
    use crate::manager::deliver::MAX_GUESTS;
    let bench = Arc::new(Bench::new());
    let mut known = Rogue::meet(bench.clone(), 1);
    known.open().await;
    let guests: Vec<_> =
        (0..u16::try_from(MAX_GUESTS).unwrap()).map(|number| Rogue::meet(bench.clone(), 100 + number)).collect();
    let init = bench.manager.our_init();
    let newcomer = NodeId::new(SecretKey::from_slice(&[77; 32]).unwrap().public_key(&Secp256k1::new()));
    let come = |peer, origin| bench.manager.connected(peer, origin, &init, outbox(1 << 20).0);
    assert!(come(newcomer, Origin::Peer).unwrap_err().starts_with("too many peers without a channel"));
    assert!(!bench.manager.is_connected(&newcomer));
    let dialled = come(newcomer, Origin::Us).unwrap();
    bench.manager.disconnected(&newcomer, dialled);
    // A guest's own next connection takes its place, and a peer with a channel comes back.
    assert!(come(guests[0].id, Origin::Peer).is_ok());
    bench.manager.disconnected(&known.id, known.connection);
    known.reconnect(bench.clone());
    // One leaves, one comes.
    bench.manager.disconnected(&guests[1].id, guests[1].connection);
    assert!(come(newcomer, Origin::Peer).is_ok());
}
