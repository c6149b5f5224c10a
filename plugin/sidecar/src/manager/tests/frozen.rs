//! A channel of which a row cannot be read stands still, and the others go on (bad input 95).

use outrigger_bolt::wire::{ChannelReady, ChannelReestablish, Error, OpenChannel, Shutdown, Warning};
use outrigger_channel::{MonitorHead, Row};
use redb::{ReadableDatabase, ReadableTable};

use super::*;
use crate::store::schema::{Table, channel_key};
use crate::store::seal::{seal, unseal};

/// Field 100 of one byte, behind the last field of any row.
pub(super) const UNKNOWN_EVEN: [u8; 3] = [100, 1, 0];
/// Field 101, which might be skipped if its length were not 2^63.
const ENDLESS: [u8; 10] = [101, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];

/// Changes one row of a channel in the file.
pub(super) fn change(bench: &Bench, table: Table, channel: &ChannelId, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let transaction = bench.db.begin_write().unwrap();
    {
        let mut open = transaction.open_table(table.definition()).unwrap();
        let key = channel_key(channel);
        let row = unseal(table, &key, open.get(key.as_slice()).unwrap().unwrap().value()).unwrap().to_vec();
        open.insert(key.as_slice(), seal(table, &key, &change(row)).as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

pub(super) fn followed_by(tail: &[u8]) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |row| [&row, tail].concat()
}

/// Every row whose key begins with the channel.
fn rows(bench: &Bench, channel: &ChannelId) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let transaction = bench.db.begin_read().unwrap();
    let mut rows = Vec::new();
    for table in Table::ALL {
        let open = transaction.open_table(table.definition()).unwrap();
        for entry in open.iter().unwrap() {
            let (key, value) = entry.unwrap();
            if key.value().starts_with(&channel.0) {
                rows.push((*table, key.value().to_vec(), value.value().to_vec()));
            }
        }
    }
    rows
}

/// Nothing is under way any more, and all that was is in the file.
async fn settle(bench: &Bench) {
    bench.at_rest().await;
    bench.durable().await;
}

/// The node again, the peer being gone.
fn restarted(rogue: Rogue) -> Bench {
    let Rogue { bench, connection, id, .. } = rogue;
    bench.manager.disconnected(&id, connection);
    bench.restarted()
}

/// Two channels with one peer; what is done to the file of the first freezes it alone.
async fn freezes(damage: impl FnOnce(&Bench, &ChannelId), reason: &str) {
    let mut rogue = Rogue::connect();
    let (first, second) = (rogue.open().await.id(), rogue.open().await.id());
    settle(&rogue.bench).await;
    damage(&rogue.bench, &first);
    let peer = rogue.id;
    let bench = Arc::new(restarted(rogue));
    let before = rows(&bench, &first);

    let frozen = bench.manager.env().frozen.get(&first).unwrap();
    assert!(frozen.reason.contains(reason), "{}", frozen.reason);
    assert_eq!(frozen.peer, Some(peer));
    let others: Vec<_> = every_channel(&bench.manager).into_iter().map(|view| view.channel_id).collect();
    assert_eq!(others, [second], "the other channel is there");
    assert_eq!(bench.manager.command(first, Command::Commit).await, Err(Refusal::Frozen));
    let fail = Command::Fail { reason: "an operator's wish".to_owned() };
    assert_eq!(bench.manager.command(first, fail).await, Err(Refusal::Frozen), "nothing of it is published");

    settle(&bench).await;
    let (events, _) = bench.reader.events(0, &["channel_frozen".to_owned()], 10).unwrap();
    let [(_, event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.fields["channel_id"], first.to_string());
    let message = event.fields["message"].as_str().unwrap();
    assert!(message.contains(reason) && message.contains("do not delete it"), "{message}");

    bench.manager.resume();
    let mut rogue = Rogue::meet(bench, 9);
    answers_safely(&mut rogue, first, second).await;
    settle(&rogue.bench).await;
    assert_eq!(rows(&rogue.bench, &first), before, "its rows stay as they were");
    let published: Vec<_> = rogue.bench.orders.try_iter().collect();
    assert!(published.is_empty(), "{published:?}");
}

/// The peer comes back with both channels and says whatever it likes about the first.
async fn answers_safely(rogue: &mut Rogue, first: ChannelId, second: ChannelId) {
    let Message::ChannelReestablish(of_second) = rogue.hear_type(ChannelReestablish::TYPE).await else {
        panic!("the other channel goes on")
    };
    assert_eq!(of_second.channel_id, second);
    let point = rogue.signer.per_commitment_point(0);
    let about_first = Message::ChannelReestablish(ChannelReestablish {
        channel_id: first,
        next_commitment_number: 1,
        next_revocation_number: 0,
        your_last_per_commitment_secret: PerCommitmentSecret([0; 32]),
        my_current_per_commitment_point: point,
    });
    rogue.tell(about_first);
    let Message::Warning(warning) = rogue.hear_type(Warning::TYPE).await else {
        panic!("a warning, so that the peer keeps it open")
    };
    assert_eq!(warning.channel_id, first);
    assert!(warning.data.to_string().contains("frozen"), "{}", warning.data);
    for message in [
        Message::Error(Error { channel_id: first, data: "we fail it".into() }),
        Message::ChannelReady(ChannelReady {
            channel_id: first,
            second_per_commitment_point: point,
            short_channel_id: None,
        }),
        Message::Shutdown(Shutdown { channel_id: first, scriptpubkey: script() }),
    ] {
        rogue.tell(message);
    }
    // Its name cannot be taken for another channel either: what is told back names it, and is no error of that channel.
    rogue.tell(Message::OpenChannel(open_named(first)));
    let Message::Warning(refused) = rogue.hear_type(Warning::TYPE).await else { panic!("refused") };
    assert_eq!((refused.channel_id, refused.data.to_string().as_str()), (first, "this temporary_channel_id is in use"));
    // All that was before has been handled, and the connection and the other channel stand.
    rogue.tell(Message::ChannelReestablish(ChannelReestablish { channel_id: second, ..of_second }));
    rogue.hear_type(ChannelReady::TYPE).await;
    assert!(rogue.bench.manager.channel(&second).unwrap().summary.connected);
}

fn open_named(temporary_channel_id: ChannelId) -> OpenChannel {
    let signer = SoftSigner::new([5; 32]);
    let basepoints = signer.basepoints();
    OpenChannel {
        chain_hash: policy().chain_hash,
        temporary_channel_id,
        funding_satoshis: Sat::new(1_000_000),
        push_msat: Msat::ZERO,
        dust_limit_satoshis: Sat::new(354),
        max_htlc_value_in_flight_msat: Msat::new(1_000_000_000),
        channel_reserve_satoshis: Sat::new(10_000),
        htlc_minimum_msat: Msat::new(1),
        feerate_per_kw: FeeratePerKw::new(1000),
        to_self_delay: 144,
        max_accepted_htlcs: 30,
        funding_pubkey: basepoints.funding_pubkey,
        revocation_basepoint: basepoints.revocation,
        payment_basepoint: basepoints.payment,
        delayed_payment_basepoint: basepoints.delayed_payment,
        htlc_basepoint: basepoints.htlc,
        first_per_commitment_point: signer.per_commitment_point(0),
        channel_flags: 0,
        upfront_shutdown_script: None,
        channel_type: Some(Features::channel_type_anchors()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_95_an_unknown_even_field_freezes_its_channel() {
    let reason = "field 100 is not known and must be understood";
    for table in [Table::ChannelParams, Table::ChannelHead, Table::MonitorHead] {
        freezes(|bench, channel| change(bench, table, channel, followed_by(&UNKNOWN_EVEN)), reason).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_95_per_8_a_length_of_2_to_the_63_freezes_its_channel() {
    for table in [Table::ChannelParams, Table::ChannelHead, Table::MonitorHead] {
        freezes(|bench, channel| change(bench, table, channel, followed_by(&ENDLESS)), "not a TLV stream").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_95_a_gap_in_the_monitors_updates_freezes_its_channel() {
    let behind = |row: Vec<u8>| {
        let head = MonitorHead::decode(&row).unwrap();
        MonitorHead { update_id: head.update_id - 1, ..head }.encode()
    };
    freezes(|bench, channel| change(bench, Table::MonitorHead, channel, behind), "updates are missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_95_a_file_put_together_from_two_is_refused_as_a_whole() {
    let mut rogue = Rogue::connect();
    let channel = rogue.open().await.id();
    settle(&rogue.bench).await;
    let of_another_time = |row: Vec<u8>| {
        let mut head = MonitorHead::decode(&row).unwrap();
        head.local.to_local = Msat::new(head.local.to_local.get() - 1);
        head.encode()
    };
    change(&rogue.bench, Table::MonitorHead, &channel, of_another_time);
    let refused = store::load::load(&*rogue.bench.db).err().unwrap().to_string();
    assert!(refused.contains("disagree on the local commitment") && refused.contains("do not delete it"), "{refused}");
}
