//! What counts as wrong, and what as late: a database in memory, and a backup that gives what the test says.

use std::cell::{Cell, RefCell};

use bitcoin::BlockHash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use redb::backends::InMemoryBackend;

use super::super::image::TipRecord;
use super::super::sealed::RecordName;
use super::super::source::{NamedRecord, SourceFault};
use super::*;
use crate::store::initialise;
use crate::store::schema::{Table, channel_key};
use crate::store::seal::seal;

const FIRST: ChannelId = ChannelId([1; 32]);

/// The write at which each channel of the database stands.
const STANDS: u64 = 5;

fn node() -> NodeId {
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[1; 32]).unwrap()))
}

fn put(db: &Database, channel: &ChannelId, id: u64) {
    let transaction = db.begin_write().unwrap();
    let rows = [(Table::ChannelParams, b"params".to_vec()), (Table::Persist, id.to_be_bytes().to_vec())];
    for (table, row) in rows {
        let (key, mut open) = (channel_key(channel), transaction.open_table(table.definition()).unwrap());
        open.insert(key.as_slice(), seal(table, &key, &row).as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

fn database(channels: u8) -> Database {
    let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    initialise(&db, "regtest", &node()).unwrap();
    (1..=channels).for_each(|channel| put(&db, &ChannelId([channel; 32]), STANDS));
    let transaction = db.begin_write().unwrap();
    for key in (channels.saturating_add(1)..=CHANNELS).map(|channel| [channel; 32]) {
        let row = seal(Table::Persist, &key, &STANDS.to_be_bytes());
        transaction.open_table(Table::Persist.definition()).unwrap().insert(&key[..], row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    db
}

/// What is read of a channel at its `number`th look.
type Script<'a> = dyn Fn(&ChannelId, usize) -> Result<StoredChannel, SourceFault> + 'a;

struct Scripted<'a> {
    script: &'a Script<'a>,
    looks: usize,
    /// Lists that were read.
    lists: usize,
    odd: Option<&'static str>,
    unread: Option<&'static str>,
    sink: &'a Sink<'a>,
}

impl Source for Scripted<'_> {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        self.lists += 1;
        (self.odd, self.unread) =
            (self.sink.odd, self.sink.cut.filter(|(lists, _)| self.lists <= *lists).map(|(_, words)| words));
        (self.sink.lists)()
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        self.looks += 1;
        (self.script)(channel, self.looks)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        Ok((self.sink.tip)())
    }

    fn faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.odd).map(str::to_owned).into_iter().collect()
    }

    fn unread(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unread).map(str::to_owned).into_iter().collect()
    }
}

fn gap(channel: &ChannelId, words: &str) -> StoredChannel {
    StoredChannel { faults: vec![words.to_owned()], ..StoredChannel::nothing(*channel) }
}

fn unread(channel: &ChannelId, words: &str) -> StoredChannel {
    StoredChannel { unread: vec![words.to_owned()], ..StoredChannel::nothing(*channel) }
}

/// A channel as the database has it, at this write.
fn whole(channel: &ChannelId, id: u64) -> StoredChannel {
    let mut image = Image::new("regtest", node(), *channel, id);
    image.rows.insert((Table::ChannelParams, channel_key(channel)), b"params".to_vec());
    let full = NamedRecord { name: RecordName::full(*channel, id), content: image.encode() };
    StoredChannel { full: Some(full), newest: Some(id), faults: Vec::new(), ..gap(channel, "") }
}

/// How the sink stands beside what is read of it: what it has of a channel at each question, what it lists, its record of the chain, and
/// whether it is well.
#[derive(Clone, Copy)]
struct Sink<'a> {
    complete: &'a dyn Fn(&ChannelId) -> Option<u64>,
    lists: &'a dyn Fn() -> Result<Vec<ChannelId>, SourceFault>,
    tip: &'a dyn Fn() -> Option<Vec<u8>>,
    has_tip: bool,
    odd: Option<&'static str>,
    /// So many of its lists are cut short, in words.
    cut: Option<(usize, &'static str)>,
    is_well: bool,
}

/// It lists more than most of these databases have lived with: what is listed is known to them.
const WELL: Sink<'_> = Sink {
    complete: &|_| Some(STANDS),
    lists: &|| Ok((1..=CHANNELS).map(|channel| ChannelId([channel; 32])).collect()),
    tip: &|| None,
    has_tip: false,
    odd: None,
    cut: None,
    is_well: true,
};

/// Channels that each database knows; those that do not live are over.
const CHANNELS: u8 = 200;

/// The verdict, and how often it was waited.
fn verdict(db: &Database, sink: &Sink<'_>, script: &Script<'_>) -> (Verdict, usize) {
    let restore = Restore {
        network: "regtest",
        node_id: node(),
        proof: "tried",
        wallet: &|_| Ok(Vec::new()),
        takes_what_is_there: false,
    };
    let pauses = Cell::new(0);
    let pause = |_| {
        pauses.set(pauses.get() + 1);
        true
    };
    let look = Look {
        restore: &restore,
        db,
        complete: sink.complete,
        has_tip: &|| sink.has_tip,
        is_well: &|| sink.is_well,
        pause: &pause,
    };
    let verdict = look.verify(&mut Scripted { script, looks: 0, lists: 0, odd: None, unread: None, sink }).unwrap();
    (verdict, pauses.get())
}

fn is_later(verdict: &Verdict, words: &str) -> bool {
    matches!(verdict, Verdict::Later(told) if told.contains(words))
}

#[test]
fn bak_1_what_is_as_the_database_has_it_is_right_at_the_first_look() {
    let found = verdict(&database(3), &WELL, &|channel, _| Ok(whole(channel, STANDS)));
    assert_eq!(found, (Verdict::Right(3), 0));
}

#[test]
fn bak_1_a_fault_that_stays_is_wrong_and_one_that_goes_is_not() {
    let db = database(1);
    let (found, _) = verdict(&db, &WELL, &|channel, _| Ok(gap(channel, "update 5 is missing")));
    assert_eq!(found, Verdict::Wrong(format!("channel {FIRST}: update 5 is missing")));
    let gone =
        |channel: &ChannelId, look| Ok(if look < ATTEMPTS { gap(channel, "a gap") } else { whole(channel, STANDS) });
    assert_eq!(verdict(&db, &WELL, &gone).0, Verdict::Right(1));
}

#[test]
fn bak_1_one_gap_after_looks_at_a_backup_that_is_late_is_not_wrong() {
    let (db, asked) = (database(1), Cell::new(0));
    // Late for all looks but the last ones.
    let late = |from: usize| {
        asked.set(0);
        let asked = &asked;
        move |_: &ChannelId| {
            asked.set(asked.get() + 1);
            Some(if asked.get() > from { STANDS } else { STANDS - 1 })
        }
    };
    let broken = |channel: &ChannelId, _| Ok(gap(channel, "a gap"));
    for looks in [1, AGREE - 1] {
        let complete = late(ATTEMPTS - looks);
        let (found, _) = verdict(&db, &Sink { complete: &complete, ..WELL }, &broken);
        assert!(is_later(&found, "a gap"), "{looks}: {found:?}");
    }
    let complete = late(ATTEMPTS - AGREE);
    let (found, _) = verdict(&db, &Sink { complete: &complete, ..WELL }, &broken);
    assert!(matches!(found, Verdict::Wrong(_)), "{found:?}");
}

#[test]
fn bak_1_looks_that_do_not_agree_or_at_a_channel_that_moves_are_not_wrong() {
    let (found, _) = verdict(&database(1), &WELL, &|channel, look| Ok(gap(channel, &format!("a gap at {look}"))));
    assert!(is_later(&found, "a gap at 20"), "{found:?}");
    let (db, id) = (database(1), Cell::new(STANDS));
    let moves = |channel: &ChannelId, _| {
        id.set(id.get() + 1);
        put(&db, channel, id.get());
        Ok(gap(channel, "a gap"))
    };
    let sink = Sink { complete: &|_| Some(u64::MAX), ..WELL };
    let (found, _) = verdict(&db, &sink, &moves);
    assert!(is_later(&found, "it moved on while it was read"), "{found:?}");
}

#[test]
fn bak_1_what_cannot_be_read_of_a_backup_in_trouble_is_not_wrong() {
    let away = |_: &ChannelId, _| Err(SourceFault::unreadable("the mirror", "it was closed"));
    let db = database(1);
    let (found, _) = verdict(&db, &Sink { is_well: false, ..WELL }, &away);
    assert!(is_later(&found, "the backup is in trouble (the mirror: it was closed)"), "{found:?}");
    let words = format!("channel {FIRST}: the mirror: it was closed");
    assert_eq!(verdict(&db, &WELL, &away).0, Verdict::Unread(words), "it is well, and cannot be read");
}

/// A refusal that passes says nothing of what is kept: neither of a channel, nor of the list, nor of the record of the chain.
#[test]
fn bak_1_what_is_refused_for_a_while_is_looked_at_again_and_what_stays_refused_is_not_wrong() {
    let db = database(1);
    let passing = |channel: &ChannelId, look| {
        Ok(if look < ATTEMPTS { unread(channel, "it is locked") } else { whole(channel, STANDS) })
    };
    assert_eq!(verdict(&db, &WELL, &passing), (Verdict::Right(1), ATTEMPTS - 1));
    let staying = |channel: &ChannelId, _| Ok(unread(channel, "it is locked"));
    let words = format!("channel {FIRST}: it is locked");
    assert_eq!(verdict(&db, &WELL, &staying).0, Verdict::Unread(words));
    let read = |channel: &ChannelId, _| Ok(whole(channel, STANDS));
    let cut = |lists| verdict(&db, &Sink { cut: Some((lists, "the next page is refused")), ..WELL }, &read);
    assert_eq!(cut(ATTEMPTS - 1), (Verdict::Right(1), ATTEMPTS - 1));
    let words = "what it lists: the next page is refused".to_owned();
    assert_eq!(cut(ATTEMPTS).0, Verdict::Unread(words));
}

#[test]
fn bak_1_a_backup_that_has_less_than_it_completed_is_wrong() {
    let (found, _) = verdict(&database(1), &WELL, &|channel, _| Ok(whole(channel, STANDS - 1)));
    let words = "it has told that it has every write up to 5, and what can be read of it ends with 4";
    assert_eq!(found, Verdict::Wrong(format!("channel {FIRST}: {words}")));
}

/// A node with thousands of channels does not stand before a late backup for hours.
#[test]
fn bak_1_a_try_ends_where_the_backup_is_late_with_many_channels() {
    let seen = RefCell::new(Vec::new());
    let complete = |channel: &ChannelId| {
        seen.borrow_mut().push(*channel);
        Some(STANDS - 1)
    };
    let read = |channel: &ChannelId, _| Ok(whole(channel, STANDS));
    let (found, pauses) = verdict(&database(200), &Sink { complete: &complete, ..WELL }, &read);
    assert!(is_later(&found, "the backup is late"), "{found:?}");
    assert_eq!(pauses, LATE * (ATTEMPTS - 1));
    let mut seen = seen.into_inner();
    seen.dedup();
    assert_eq!(seen.len(), LATE);
}

/// What is freed while a backup is looked at can be used again: no read of the database outlives its look.
#[test]
fn bak_1_no_transaction_is_open_while_a_backup_is_read() {
    let db = database(2);
    let pages = |db: &Database| {
        let transaction = db.begin_write().unwrap();
        let pages = transaction.stats().unwrap().allocated_pages();
        transaction.abort().unwrap();
        pages
    };
    let busy = || {
        for id in 0..100_u64 {
            let transaction = db.begin_write().unwrap();
            let row = id.to_be_bytes();
            transaction.open_table(Table::Event.definition()).unwrap().insert(&row[..], &row[..]).unwrap();
            transaction.commit().unwrap();
        }
    };
    busy();
    let before = pages(&db);
    let read = |channel: &ChannelId, _| {
        busy();
        Ok(whole(channel, STANDS))
    };
    assert_eq!(verdict(&db, &WELL, &read).0, Verdict::Right(2));
    assert!(pages(&db) <= before + 8, "{} pages after {before}", pages(&db));
}

/// A restore goes by the list: what is readable and not listed is not restored.
#[test]
fn bak_1_what_a_backup_lists_is_what_the_database_knows() {
    let db = database(2);
    let read = |channel: &ChannelId, _| Ok(whole(channel, STANDS));
    let without = || Ok(vec![FIRST]);
    let (found, _) = verdict(&db, &Sink { lists: &without, ..WELL }, &read);
    let second = ChannelId([2; 32]);
    let words = format!("what it lists: channel {second} is not there, and it has told that it has it");
    assert_eq!(found, Verdict::Wrong(words));
    let behind = |channel: &ChannelId| Some(if *channel == FIRST { STANDS } else { 0 });
    let (found, _) = verdict(&db, &Sink { lists: &without, complete: &behind, ..WELL }, &read);
    assert!(is_later(&found, "the backup is late"), "it has not told so: {found:?}");
    let stranger = || Ok(vec![FIRST, second, ChannelId([0xfe; 32])]);
    let (found, _) = verdict(&db, &Sink { lists: &stranger, ..WELL }, &read);
    let words = "is there, and this database does not know it, so it is an old copy, or another's";
    assert!(matches!(&found, Verdict::Wrong(told) if told.contains(words)), "{found:?}");
    let (found, _) = verdict(&db, &Sink { lists: &stranger, is_well: false, ..WELL }, &read);
    assert!(is_later(&found, "the backup is in trouble"), "{found:?}");
    // A channel that comes to life behind the list is in the next one.
    let looks = Cell::new(0);
    let late = || {
        looks.set(looks.get() + 1);
        Ok(if looks.get() < 3 { vec![FIRST] } else { vec![FIRST, second] })
    };
    assert_eq!(verdict(&db, &Sink { lists: &late, ..WELL }, &read).0, Verdict::Right(2));
    let (found, _) = verdict(&db, &Sink { odd: Some("it lists 7 as a channel"), ..WELL }, &read);
    assert_eq!(found, Verdict::Wrong("what it lists: it lists 7 as a channel".to_owned()));
}

#[test]
fn bak_1_the_record_of_the_chain_is_there_is_ours_and_names_nothing_that_the_database_has_not() {
    let db = database(1);
    let read = |channel: &ChannelId, _| Ok(whole(channel, STANDS));
    let record = |id| {
        let (network, hash, channels) =
            ("regtest".to_owned(), BlockHash::from_byte_array([7; 32]), Some(vec![(FIRST, id)]));
        TipRecord { network, node_id: node(), height: 144, hash, at_unix: 1, peers: Vec::new(), channels }
    };
    let with = |tip: Option<Vec<u8>>, has_tip| verdict(&db, &Sink { tip: &|| tip.clone(), has_tip, ..WELL }, &read).0;
    assert_eq!(with(Some(record(STANDS).encode()), true), Verdict::Right(1));
    assert_eq!(with(None, false), Verdict::Right(1), "it was given none");
    for (tip, words) in [
        (None, "it was given one, and none can be read".to_owned()),
        (Some(b"?".to_vec()), "its record of the chain cannot be read: a row that ends inside a field".to_owned()),
        (
            Some(TipRecord { network: "signet".to_owned(), ..record(STANDS) }.encode()),
            format!("is of node {} on signet", node()),
        ),
        (Some(record(STANDS + 1).encode()), format!("it names write 6 of channel {FIRST}, and the database is at 5")),
    ] {
        let found = with(tip, true);
        assert!(matches!(&found, Verdict::Wrong(told) if told.contains(&words)), "{words}: {found:?}");
    }
}

/// Rows change with each look, and the sink has each change before the database moves on to the next.
#[test]
fn bak_1_rows_that_change_while_a_backup_is_looked_at_are_compared_as_they_were() {
    let (db, id) = (database(1), Cell::new(STANDS));
    let complete = |_: &ChannelId| Some(id.get());
    let sink = Sink { complete: &complete, ..WELL };
    let moving = |extra: bool| {
        let (db, id) = (&db, &id);
        move |channel: &ChannelId, _| {
            // It is read as it was, or with a row that it never had, and then a commit comes.
            let mut stored = whole(channel, id.get());
            if extra {
                let mut image = stored.image().unwrap();
                image.rows.insert((Table::FundingSpend, channel_key(channel)), b"?".to_vec());
                stored.full = Some(NamedRecord { name: RecordName::full(*channel, image.id), content: image.encode() });
            }
            id.set(id.get() + 1);
            put(db, channel, id.get());
            Ok(stored)
        }
    };
    assert_eq!(verdict(&db, &sink, &moving(false)), (Verdict::Right(1), 0), "at the first look");
    assert_eq!(id.get(), STANDS + 1);
    let (found, _) = verdict(&db, &sink, &moving(true));
    assert!(is_later(&found, "it moved on while it was read"), "{found:?}");
    // Once it holds still, what is wrong is found.
    let wrong = moving(true);
    let until = id.get() + 5;
    let still = |channel: &ChannelId, look| {
        let stored = wrong(channel, look);
        if id.get() > until {
            id.set(until);
            put(&db, channel, until);
        }
        stored
    };
    let (found, _) = verdict(&db, &sink, &still);
    let words = "0 of its rows are missing or other ones, and 1 are too many";
    assert_eq!(found, Verdict::Wrong(format!("channel {FIRST}: {words}")));
}

/// A try holds copies of a channel, so one that is too large is told and not read.
#[test]
fn bak_1_a_channel_that_is_too_large_is_told_and_not_read() {
    let db = database(2);
    let transaction = db.begin_write().unwrap();
    let key = [FIRST.0.as_slice(), &[0; 9]].concat();
    let row = seal(Table::Evidence, &key, &vec![0; usize::try_from(MOST_BYTES).unwrap()]);
    transaction.open_table(Table::Evidence.definition()).unwrap().insert(key.as_slice(), row.as_slice()).unwrap();
    transaction.commit().unwrap();
    let read = |channel: &ChannelId, _| {
        assert_ne!(*channel, FIRST, "it is not read");
        Ok(whole(channel, STANDS))
    };
    let (found, _) = verdict(&db, &WELL, &read);
    let words =
        format!("channel {FIRST} has 67108943 bytes of rows, and 67108864 are tried at most while the node runs");
    assert!(
        matches!(&found, Verdict::Partly(untried, told) if *untried == [FIRST] && told.starts_with(&words)),
        "{found:?}"
    );
}
