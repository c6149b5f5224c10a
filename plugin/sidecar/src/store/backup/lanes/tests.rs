//! What a sink is given, and in what order.

use super::lane::{LEAST_IMAGE, OPEN_WRITES};
use super::*;
use crate::store::backup::RowChange;
use crate::store::schema::{Table, channel_key};
use bitcoin::Txid;
use bitcoin::hashes::Hash;

const CHANNEL: ChannelId = ChannelId([1; 32]);
const OTHER: ChannelId = ChannelId([2; 32]);

fn funding() -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout: 0 }
}

fn update(channel: ChannelId, id: u64, bytes: usize) -> Arc<Update> {
    let value = Some(vec![0; bytes]);
    let table = if id == 1 { Table::ChannelParams } else { Table::ChannelHead };
    let changes = vec![RowChange { table, key: channel_key(&channel), value }];
    Arc::new(Update { channel, after: id - 1, id, changes })
}

/// Lanes of a sink that is known to hold the channel at this id.
fn holding(id: u64) -> Lanes {
    let mut lanes = Lanes::default();
    lanes.load(CHANNEL, funding(), id, Instant::now());
    lanes.told(&[Holding { channel: CHANNEL, id }], &HashMap::from([(CHANNEL, id)]));
    lanes
}

/// What is given next: the channel's first byte, and the id of an update or 0 for a full write.
fn next(lanes: &mut Lanes) -> Option<(u8, u64)> {
    match lanes.next()? {
        Work::Full { channel, .. } => Some((channel.0[0], 0)),
        Work::Update { update, .. } => Some((update.channel.0[0], update.id)),
        Work::Tip(_) => Some((0, 0)),
    }
}

/// A sink that has lost a channel is given all of it, and nothing of it counts as complete before.
#[test]
fn per_2_what_a_sink_has_lost_is_due_in_full_and_complete_with_that() {
    let now = Instant::now();
    let mut lanes = holding(4);
    assert_eq!(lanes.complete(&CHANNEL), Some(4));
    lanes.lost(&CHANNEL, now);
    lanes.lost(&OTHER, now);
    assert_eq!(lanes.complete(&CHANNEL), Some(0));
    assert!(matches!(lanes.next(), Some(Work::Full { whole: Whole::Again, .. })));
    lanes.reads(&CHANNEL, 5, now);
    assert_eq!(lanes.completed(&CHANNEL, 5), Completed::UpTo(5));
    lanes.answered(&CHANNEL);
    assert!(lanes.next().is_none());
}

#[test]
fn a_gap_and_an_overflow_collapse_into_one_full_write() {
    let now = Instant::now();
    let mut lanes = holding(4);
    lanes.add(&update(CHANNEL, 6, 10), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 0)), "update 5 never came");
    lanes.reads(&CHANNEL, 6, now);
    lanes.answered(&CHANNEL);
    assert_eq!(lanes.completed(&CHANNEL, 6), Completed::UpTo(6));

    let many = QUEUE_UPDATES as u64 + 1;
    (7..7 + many).for_each(|id| lanes.add(&update(CHANNEL, id, 10), funding(), now));
    assert_eq!((lanes.updates, lanes.bytes), (0, 0), "nothing waits in memory");
    lanes.add(&update(OTHER, 1, 10), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 0)));
    assert_eq!(lanes.lag(now).updates, many + 1);

    let mut lanes = holding(4);
    lanes.add(&update(CHANNEL, 5, QUEUE_BYTES), funding(), now);
    assert_eq!((next(&mut lanes), lanes.bytes), (Some((1, 0)), 0));
}

/// The sink that is furthest behind is one whose updates gave way to a full write: it never shows less than the others.
#[test]
fn a_full_write_that_is_due_counts_in_bytes_before_it_is_made() {
    let now = Instant::now();
    let size = |bytes| update(CHANNEL, 5, bytes).size() as u64;
    let least = LEAST_IMAGE as u64;

    // A start knows nothing of it yet.
    let mut lanes = Lanes::default();
    lanes.load(CHANNEL, funding(), 4, now);
    lanes.load(OTHER, funding(), 4, now);
    assert_eq!(lanes.lag(now).bytes, 2 * least);
    lanes.told(&[Holding { channel: OTHER, id: 4 }], &HashMap::from([(OTHER, 4)]));
    assert_eq!(lanes.lag(now).bytes, least, "the other is there");

    // An overflow: all that gave way, however often, and what waits behind it.
    let mut lanes = holding(4);
    let many = QUEUE_UPDATES as u64 + 1;
    (5..5 + many).for_each(|id| lanes.add(&update(CHANNEL, id, 10), funding(), now));
    assert_eq!(lanes.lag(now).bytes, many * size(10));
    (5 + many..5 + 2 * many).for_each(|id| lanes.add(&update(CHANNEL, id, 10), funding(), now));
    assert_eq!(lanes.lag(now).bytes, 2 * many * size(10));
    lanes.add(&update(CHANNEL, 5 + 2 * many, 7), funding(), now);
    assert_eq!(lanes.lag(now).bytes, 2 * many * size(10) + size(7));

    // It is read, at the newest id, and then made: it counts what it has.
    assert_eq!(next(&mut lanes), Some((1, 0)));
    lanes.reads(&CHANNEL, 5 + 2 * many, now);
    assert_eq!(lanes.lag(now).bytes, 2 * many * size(10));
    lanes.made(&CHANNEL, 5 + 2 * many, 50_000);
    assert_eq!(lanes.lag(now).bytes, 50_000);
    lanes.answered(&CHANNEL);
    lanes.completed(&CHANNEL, 5 + 2 * many);
    assert_eq!(lanes.lag(now), Lag::default());

    // A gap: as much as the last one, since less gave way.
    lanes.add(&update(CHANNEL, 7 + 2 * many, 10), funding(), now);
    assert_eq!((lanes.bytes, lanes.lag(now).bytes), (0, 50_000));
    lanes.add(&update(CHANNEL, 8 + 2 * many, 10), funding(), now);
    assert_eq!(lanes.lag(now).bytes, 50_000 + size(10));

    // A new channel, whose first rows come with its full write.
    let mut lanes = holding(4);
    lanes.add(&update(OTHER, 1, 9_000), funding(), now);
    assert_eq!(lanes.lag(now).bytes, size(9_000));

    // What the sink refuses for good is not waited for.
    lanes.give_up(&OTHER);
    assert_eq!(lanes.lag(now).bytes, 0);
}

#[test]
fn a_full_write_voids_what_came_before_it_and_what_follows_it_is_given_after_it() {
    let now = Instant::now();
    let mut lanes = Lanes::default();
    lanes.load(CHANNEL, funding(), 3, now);
    lanes.told(&[], &HashMap::new());
    assert_eq!(next(&mut lanes), Some((1, 0)));
    // Commits go on while the image is read, at 5.
    (4..=7).for_each(|id| lanes.add(&update(CHANNEL, id, 10), funding(), now));
    assert_eq!(next(&mut lanes), None, "one thing of a channel at a time");
    lanes.reads(&CHANNEL, 5, now);
    lanes.answered(&CHANNEL);
    assert_eq!(next(&mut lanes), Some((1, 6)));
    lanes.answered(&CHANNEL);
    assert_eq!(next(&mut lanes), Some((1, 7)));
    assert_eq!(lanes.completed(&CHANNEL, 7), Completed::UpTo(0), "the full write is still on its way");
    assert_eq!(lanes.completed(&CHANNEL, 5), Completed::UpTo(5));
    assert_eq!(lanes.completed(&CHANNEL, 6), Completed::UpTo(7));
    assert_eq!(lanes.completed(&CHANNEL, 6), Completed::Stray);
    assert_eq!(lanes.completed(&CHANNEL, 8), Completed::Stray);
    assert_eq!(lanes.lag(now), Lag::default());
}

#[test]
fn an_image_that_was_read_later_than_a_commit_has_it_already() {
    let now = Instant::now();
    let mut lanes = holding(4);
    lanes.add(&update(CHANNEL, 6, 10), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 0)));
    // The writer has made commit 7 durable, and has not handed it over yet.
    lanes.reads(&CHANNEL, 7, now);
    lanes.answered(&CHANNEL);
    lanes.add(&update(CHANNEL, 7, 10), funding(), now);
    assert_eq!(next(&mut lanes), None);
    assert_eq!(lanes.completed(&CHANNEL, 7), Completed::UpTo(7));
}

#[test]
fn a_sink_that_completes_nothing_is_not_given_more_and_more() {
    let now = Instant::now();
    let mut lanes = holding(4);
    let more = 2 * OPEN_WRITES as u64;
    (5..5 + more).for_each(|id| lanes.add(&update(CHANNEL, id, 10), funding(), now));
    let mut given = 0;
    while next(&mut lanes).is_some() {
        lanes.answered(&CHANNEL);
        given += 1;
    }
    assert_eq!(given, OPEN_WRITES);
    assert_eq!(lanes.completed(&CHANNEL, 5), Completed::UpTo(5));
    assert_eq!(next(&mut lanes), Some((1, 5 + OPEN_WRITES as u64)));
}

#[test]
fn channels_take_turns_and_the_newest_tip_comes_when_there_is_time() {
    let now = Instant::now();
    let mut lanes = holding(4);
    lanes.add(&update(CHANNEL, 5, 10), funding(), now);
    lanes.add(&update(CHANNEL, 6, 10), funding(), now);
    lanes.add(&update(OTHER, 1, 10), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 5)));
    lanes.answered(&CHANNEL);
    assert_eq!([next(&mut lanes), next(&mut lanes), next(&mut lanes)], [Some((2, 0)), Some((1, 6)), None]);
}

#[test]
fn a_channel_whose_life_is_over_leaves_no_lane_behind() {
    let now = Instant::now();
    let mut lanes = holding(4);
    let gone = RowChange { table: Table::ChannelParams, key: channel_key(&CHANNEL), value: None };
    let last = Update { channel: CHANNEL, after: 4, id: 5, changes: vec![gone] };
    lanes.add(&Arc::new(last), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 5)));
    lanes.answered(&CHANNEL);
    assert_eq!(lanes.completed(&CHANNEL, 5), Completed::UpTo(5));
    assert!(lanes.lanes.is_empty());
}

fn tip(channels: &[(ChannelId, u64)]) -> TipRecord {
    let secret = bitcoin::secp256k1::SecretKey::from_slice(&[1; 32]).unwrap();
    let node_id = outrigger_bolt::id::NodeId::new(secret.public_key(&bitcoin::secp256k1::Secp256k1::new()));
    let (network, hash, peers) = ("regtest".to_owned(), bitcoin::BlockHash::from_byte_array([7; 32]), Vec::new());
    TipRecord { network, node_id, height: 144, hash, at_unix: 1, peers, channels: Some(channels.to_vec()) }
}

fn named(work: Option<Work>) -> Vec<(ChannelId, u64)> {
    match work {
        Some(Work::Tip(tip)) => tip.channels.unwrap(),
        other => panic!("{other:?} is no tip"),
    }
}

/// One that was never funded leaves nothing in a mirror. Were it named by the newest record of the tip, a restore would miss it.
#[test]
fn bak_1_a_record_that_names_a_channel_which_was_forgotten_is_given_again_before_the_channel_goes() {
    let now = Instant::now();
    let end = |closed: bool| {
        let mut changes = vec![RowChange { table: Table::ChannelParams, key: channel_key(&CHANNEL), value: None }];
        if closed {
            let value = Some(vec![1]);
            changes.push(RowChange { table: Table::ClosedChannel, key: channel_key(&CHANNEL), value });
        }
        Arc::new(Update { channel: CHANNEL, after: 4, id: 5, changes })
    };
    let mut lanes = holding(4);
    lanes.add_tip(tip(&[(CHANNEL, 4), (OTHER, 9)]));
    assert_eq!(named(lanes.next()).len(), 2);
    lanes.add(&end(false), funding(), now);
    assert_eq!(named(lanes.next()), [(OTHER, 9)]);
    assert_eq!(next(&mut lanes), Some((1, 5)));

    // One that waits yet is changed, and waits no more for what goes.
    let mut lanes = holding(3);
    lanes.add(&update(CHANNEL, 4, 10), funding(), now);
    lanes.add_tip(tip(&[(CHANNEL, 4), (OTHER, 9)]));
    lanes.add(&end(false), funding(), now);
    assert_eq!(named(lanes.next()), [(OTHER, 9)]);

    // The one before it is given again first: the newer one may wait for long.
    let mut lanes = holding(4);
    lanes.add_tip(tip(&[(CHANNEL, 4), (OTHER, 9)]));
    assert_eq!(named(lanes.next()).len(), 2);
    lanes.add(&update(OTHER, 1, 10), funding(), now);
    lanes.add_tip(tip(&[(CHANNEL, 4), (OTHER, 9), (ChannelId([9; 32]), 1)]));
    lanes.add(&end(false), funding(), now);
    assert_eq!(named(lanes.next()), [(OTHER, 9)]);

    // What is in history stays there, and is found.
    let mut lanes = holding(4);
    lanes.add_tip(tip(&[(CHANNEL, 4), (OTHER, 9)]));
    assert_eq!(named(lanes.next()).len(), 2);
    lanes.add(&end(true), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 5)));
}

#[test]
fn a_channel_that_no_record_takes_waits_alone_until_what_is_left_of_it_does() {
    let now = Instant::now();
    let gone = |after, id| {
        let rows = [(Table::ChannelParams, None), (Table::ClosedChannel, Some(vec![1]))];
        let changes = rows.map(|(table, value)| RowChange { table, key: channel_key(&CHANNEL), value }).to_vec();
        Arc::new(Update { channel: CHANNEL, after, id, changes })
    };
    let mut lanes = holding(4);
    lanes.lost(&CHANNEL, now);
    lanes.add_tip(tip(&[(CHANNEL, 4)]));
    assert_eq!(next(&mut lanes), Some((1, 0)));
    lanes.reads(&CHANNEL, 4, now);
    lanes.set_apart(&CHANNEL, now);
    lanes.answered(&CHANNEL);
    assert_eq!(named(lanes.next()), [(CHANNEL, 4)], "the record of the chain does not wait for it");
    let more = 2 * OPEN_WRITES as u64;
    (5..5 + more).for_each(|id| lanes.add(&update(CHANNEL, id, 10), funding(), now));
    lanes.add(&update(OTHER, 1, 10), funding(), now);
    assert_eq!([next(&mut lanes), next(&mut lanes)], [Some((2, 0)), None]);
    assert_eq!((lanes.updates, lanes.bytes, lanes.complete(&CHANNEL)), (0, 0, Some(0)));
    assert_eq!(lanes.lag(now).updates, 4 + more + 1, "and it is shown");

    lanes.add(&gone(4 + more, 5 + more), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 0)));
    lanes.reads(&CHANNEL, 5 + more, now);
    assert_eq!(lanes.completed(&CHANNEL, 5 + more), Completed::UpTo(5 + more));
    lanes.answered(&CHANNEL);
    assert!(!lanes.lanes.contains_key(&CHANNEL) && next(&mut lanes).is_none());

    // Where not even that fits it is not tried again and again.
    let mut lanes = holding(4);
    lanes.add(&update(CHANNEL, 5, 10), funding(), now);
    lanes.set_apart(&CHANNEL, now);
    lanes.add(&gone(5, 6), funding(), now);
    assert_eq!(next(&mut lanes), Some((1, 0)));
    lanes.reads(&CHANNEL, 6, now);
    lanes.set_apart(&CHANNEL, now);
    lanes.answered(&CHANNEL);
    assert_eq!(next(&mut lanes), None);
}
