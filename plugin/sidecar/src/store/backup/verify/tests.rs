//! What counts as wrong, and what as late: a database in memory, and a backup that gives what the test says.

use std::cell::{Cell, RefCell};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use redb::backends::InMemoryBackend;

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
    db
}

/// What is read of a channel at its `number`th look.
type Script<'a> = dyn Fn(&ChannelId, usize) -> Result<StoredChannel, SourceFault> + 'a;

struct Scripted<'a> {
    script: &'a Script<'a>,
    looks: usize,
}

impl Source for Scripted<'_> {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        Ok(Vec::new())
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        self.looks += 1;
        (self.script)(channel, self.looks)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        Ok(None)
    }
}

fn gap(channel: &ChannelId, words: &str) -> StoredChannel {
    StoredChannel { channel: *channel, full: None, updates: Vec::new(), newest: None, faults: vec![words.to_owned()] }
}

/// A channel as the database has it, at this write.
fn whole(channel: &ChannelId, id: u64) -> StoredChannel {
    let mut image = Image::new("regtest", node(), *channel, id);
    image.rows.insert((Table::ChannelParams, channel_key(channel)), b"params".to_vec());
    let full = NamedRecord { name: RecordName::full(*channel, id), content: image.encode() };
    StoredChannel { full: Some(full), newest: Some(id), faults: Vec::new(), ..gap(channel, "") }
}

/// How the sink stands beside what is read of it: what it has of a channel at each question, and whether it is well.
struct Sink<'a> {
    complete: &'a dyn Fn(&ChannelId) -> Option<u64>,
    is_well: bool,
}

const WELL: Sink<'_> = Sink { complete: &|_| Some(STANDS), is_well: true };

/// The verdict, and how often it was waited.
fn verdict(db: &Database, sink: &Sink<'_>, script: &Script<'_>) -> (Verdict, usize) {
    let restore = Restore { network: "regtest", node_id: node(), proof: "tried", wallet: &|_| Ok(Vec::new()) };
    let pauses = Cell::new(0);
    let pause = |_| {
        pauses.set(pauses.get() + 1);
        true
    };
    let look = Look { restore: &restore, db, complete: sink.complete, is_well: &|| sink.is_well, pause: &pause };
    let verdict = look.verify(&mut Scripted { script, looks: 0 }).unwrap();
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
        let (found, _) = verdict(&db, &Sink { complete: &complete, is_well: true }, &broken);
        assert!(is_later(&found, "a gap"), "{looks}: {found:?}");
    }
    let complete = late(ATTEMPTS - AGREE);
    let (found, _) = verdict(&db, &Sink { complete: &complete, is_well: true }, &broken);
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
    let sink = Sink { complete: &|_| Some(u64::MAX), is_well: true };
    let (found, _) = verdict(&db, &sink, &moves);
    assert!(is_later(&found, "it moved on while it was read"), "{found:?}");
}

#[test]
fn bak_1_what_cannot_be_read_of_a_backup_in_trouble_is_not_wrong() {
    let away = |_: &ChannelId, _| Err(SourceFault::unreadable("the mirror", "it was closed"));
    let db = database(1);
    let (found, _) = verdict(&db, &Sink { is_well: false, ..WELL }, &away);
    assert!(is_later(&found, "the backup is in trouble (the mirror: it was closed)"), "{found:?}");
    assert!(matches!(verdict(&db, &WELL, &away).0, Verdict::Wrong(_)), "it is well, and cannot be read");
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
    let (found, pauses) = verdict(&database(200), &Sink { complete: &complete, is_well: true }, &read);
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
