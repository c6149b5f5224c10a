//! The sample with rows that are not of this format, or not as they were written. What of it may be skipped changes nothing; what may
//! not costs that row, as `FORMAT.md` says for its table, and nothing else.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use outrigger_bolt::id::{ChannelId, PaymentHash};
use outrigger_channel::{ChannelHead, ChannelParams, Evidence, FundingSpend, HtlcRow, MonitorHead, Row, Taken};
use outrigger_sidecar::store::backup::Followed;
use outrigger_sidecar::store::backup::kept::image_in;
use outrigger_sidecar::store::channel_update;
use outrigger_sidecar::store::closed::ClosedRow;
use outrigger_sidecar::store::forward::{Direction, ForwardRow, ForwardTotals, TotalsKey};
use outrigger_sidecar::store::journal::JournalRow;
use outrigger_sidecar::store::load::load;
use outrigger_sidecar::store::part::PartRow;
use outrigger_sidecar::store::replay::ReplayRow;
use outrigger_sidecar::store::row::{
    BroadcastRow, EventRow, InvoiceRow, OperationRow, OutcomeRow, PaymentRow, SettlementRow, SweepRow,
};
use outrigger_sidecar::store::schema::{FOLLOWED_KEY, JOURNAL_KEY, Table, UnderWay};
use outrigger_sidecar::store::seal::{seal, unseal};
use outrigger_sidecar::store::terms::TermsRow;
use outrigger_sidecar::store::token::TokenRow;
use outrigger_sidecar::store::{self, Batch, FILE, Reader, StoreError, Writer};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{is_update, loaded};

const DOCUMENT: &str = include_str!("../../../src/store/FORMAT.md");

/// Fields that no row of this format has, each of one byte: number, length, value.
const ODD: [u8; 3] = [99, 1, 0];
const EVEN: [u8; 3] = [100, 1, 0];

/// A version that no row of this format has.
const TO_COME: u8 = 0xfe;

/// A row as text, or what is wrong with it.
type Read = fn(&[u8]) -> Result<String, String>;

/// What comes of a row that this program cannot understand.
#[derive(Clone, Copy)]
enum Outcome {
    /// A start freezes its channel.
    Frozen,
    /// No start comes of it.
    Refused,
    /// A start does not read it. Who asks for it is told what is wrong.
    Asked(fn(&Reader, &[u8]) -> Result<String, StoreError>),
    /// It is taken to say nothing.
    Silent,
    /// No part of this program reads it.
    Unread,
}

/// Each table whose rows are a version and fields.
fn versioned() -> Vec<(Table, Read, Outcome)> {
    use Outcome::{Asked, Frozen, Refused, Silent, Unread};
    vec![
        (Table::ChannelParams, |row| text(ChannelParams::decode(row)), Frozen),
        (Table::ChannelHead, |row| text(ChannelHead::decode(row)), Frozen),
        (Table::ClosedChannel, |row| text(ClosedRow::decode(row)), Asked(ask_closed)),
        (Table::Htlc, |row| text(HtlcRow::decode(row)), Frozen),
        (Table::MonitorHead, |row| text(MonitorHead::decode(row)), Frozen),
        (Table::Evidence, |row| text(Evidence::decode(row)), Unread),
        (Table::FundingSpend, |row| text(FundingSpend::decode(row)), Frozen),
        (Table::Taken, |row| text(Taken::decode(row)), Frozen),
        (Table::Sweep, |row| text(SweepRow::decode(row)), Frozen),
        (Table::Settlement, |row| text(SettlementRow::decode(row)), Frozen),
        (Table::Forward, |row| text(ForwardRow::decode(row)), Asked(ask_forward)),
        (Table::ForwardTotals, |row| text(ForwardTotals::decode(row)), Asked(ask_totals)),
        (Table::Replay, |row| text(ReplayRow::decode(row)), Asked(ask_replay)),
        (Table::Outcome, |row| text(OutcomeRow::decode(row)), Refused),
        (Table::Payment, |row| text(PaymentRow::decode(row)), Asked(ask_payment)),
        (Table::Part, |row| text(PartRow::decode(row)), Refused),
        (Table::Invoice, |row| text(InvoiceRow::decode(row)), Asked(ask_invoice)),
        (Table::Event, |row| text(EventRow::decode(row)), Asked(ask_event)),
        (Table::Operation, |row| text(OperationRow::decode(row)), Asked(ask_operation)),
        (Table::Broadcast, |row| text(BroadcastRow::decode(row)), Frozen),
        (Table::ChannelUpdate, |row| text(channel_update::decode(row)), Frozen),
        (Table::ForwardingTerms, |row| text(TermsRow::decode(row)), Frozen),
        (Table::Token, |row| text(TokenRow::decode(row)), Refused),
        (Table::Followed, |row| text(Followed::decode(row)), Silent),
    ]
}

/// Tables whose rows have no version: their forms are for ever.
const BARE: &[Table] = &[
    Table::Onion,
    Table::Secret,
    Table::HtlcSignatures,
    Table::Preimage,
    Table::ReplayByHeight,
    Table::PaymentByHash,
    Table::OperationId,
    Table::UnderWay,
    Table::PeerAddress,
    Table::Persist,
    Table::TokenSpent,
];

/// Tables of which neither is true: `meta`, of which each key has its own form, and `wallet`, JSON behind a version byte, of which
/// `wallet/stored.rs` has the test.
const NEITHER: &[Table] = &[Table::Meta, Table::Wallet];

fn text<R: Debug, E: Display>(row: Result<R, E>) -> Result<String, String> {
    row.map(|row| format!("{row:?}")).map_err(|fault| fault.to_string())
}

fn number(key: &[u8]) -> u64 {
    u64::from_be_bytes(key.try_into().unwrap())
}

fn hash(key: &[u8]) -> [u8; 32] {
    key.try_into().unwrap()
}

fn ask_closed(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.closed(&ChannelId(hash(key))).map(|found| format!("{:?}", found.unwrap().rows()))
}

fn ask_forward(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.forwards(Some(number(key) - 1), Direction::OldestFirst, 1).map(|found| format!("{found:?}"))
}

fn ask_totals(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    let day = TotalsKey::parse(key).unwrap().day;
    reader.forward_totals((day, day)).map(|found| format!("{found:?}"))
}

fn ask_replay(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.replay(&hash(key)).map(|found| format!("{:?}", found.unwrap()))
}

fn ask_payment(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.payment(&hash(key)).map(|found| format!("{:?}", found.unwrap()))
}

fn ask_invoice(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.invoice(&PaymentHash(hash(key))).map(|found| format!("{:?}", found.unwrap()))
}

fn ask_event(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.events(number(key) - 1, &[], 1).map(|(found, _)| format!("{found:?}"))
}

fn ask_operation(reader: &Reader, key: &[u8]) -> Result<String, StoreError> {
    reader.operation(std::str::from_utf8(key).unwrap()).map(|found| format!("{:?}", found.unwrap()))
}

/// The rows of a table, without what stands behind each.
fn rows(db: &Database, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let open = db.begin_read().unwrap().open_table(table.definition()).unwrap();
    let rows = open.iter().unwrap().map(|entry| {
        let (key, value) = entry.unwrap();
        (key.value().to_vec(), unseal(table, key.value(), value.value()).unwrap().to_vec())
    });
    rows.collect()
}

fn put(db: &Database, table: Table, key: &[u8], sealed: &[u8]) {
    let transaction = db.begin_write().unwrap();
    transaction.open_table(table.definition()).unwrap().insert(key, sealed).unwrap();
    transaction.commit().unwrap();
}

fn with_field(row: &[u8], field: [u8; 3]) -> Vec<u8> {
    [row, field.as_slice()].concat()
}

fn with_version(row: &[u8], version: u8) -> Vec<u8> {
    [&[version], &row[1..]].concat()
}

/// All that a start makes of the file, as text: by channel, which channels are frozen and why, and the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    channels: BTreeMap<ChannelId, String>,
    frozen: BTreeMap<ChannelId, String>,
    rest: String,
}

fn whole(db: &Database) -> Result<Whole, StoreError> {
    let file = load(db)?;
    let of_channel = |loaded: &store::load::LoadedChannel| {
        let id = loaded.channel.id();
        let broadcasts: Vec<_> = file.broadcasts.iter().filter(|row| row.channel == id).collect();
        let sweeps: Vec<_> = file.sweeps.iter().filter(|(of, _, _)| *of == id).collect();
        let store::load::LoadedChannel { channel, monitor, settlements, updates, terms } = loaded;
        let rows = (channel.rows(), monitor.rows());
        (id, format!("{rows:?} {settlements:?} {updates:?} {terms:?} {broadcasts:?} {sweeps:?}"))
    };
    let payments = (&file.outcomes, &file.pending_payments, &file.parts, &file.openings);
    let others = (&file.unheard, &file.wallet, &file.peer_addresses, &file.tokens, &file.stray_settlements);
    let told = (&file.restored, file.is_reserve_low, &file.troubles);
    Ok(Whole {
        channels: file.channels.iter().map(of_channel).collect(),
        frozen: file.frozen.iter().map(|frozen| (frozen.channel_id, frozen.reason.clone())).collect(),
        rest: format!("{payments:?} {others:?} {told:?}"),
    })
}

/// How far the rows of the channel with this key had followed the chain.
fn followed(db: &Database, key: &[u8]) -> Option<Followed> {
    let id = super::scripts::node(super::NODE, super::signers()).id;
    image_in(&db.begin_read().unwrap(), ("regtest", &id), &ChannelId(hash(key))).unwrap().followed()
}

/// The first row of the table that the outcome is about: of a channel that lives, or of what has ended.
fn chosen(db: &Database, table: Table, outcome: Outcome) -> (Vec<u8>, Vec<u8>) {
    let living = whole(db).unwrap().channels;
    let begun = rows(db, Table::UnderWay);
    let is_fit = |key: &[u8]| match outcome {
        Outcome::Frozen => living.contains_key(&ChannelId(hash(&key[..32]))),
        Outcome::Asked(_) => !begun.iter().any(|(name, _)| name[1..] == *key),
        Outcome::Refused | Outcome::Silent | Outcome::Unread => true,
    };
    rows(db, table).into_iter().find(|(key, _)| is_fit(key)).unwrap_or_else(|| panic!("{table:?} has none"))
}

/// The row with this key, put in the place of what was there, has this outcome, and no other row has another than before.
fn assert_outcome(table: Table, outcome: Outcome, altered: impl Fn(&[u8]) -> Vec<u8>, fault: &str) {
    let (db, _, _dir) = loaded();
    let before = whole(&db).unwrap();
    let (key, row) = chosen(&db, table, outcome);
    let answers = |ask: fn(&Reader, &[u8]) -> Result<String, StoreError>| -> Vec<_> {
        let reader = Reader::new(db.clone());
        rows(&db, table).into_iter().map(|(key, _)| (key.clone(), text(ask(&reader, &key)))).collect()
    };
    let asked = if let Outcome::Asked(ask) = outcome { answers(ask) } else { Vec::new() };
    put(&db, table, &key, &seal(table, &key, &altered(&row)));
    match outcome {
        Outcome::Frozen => {
            let channel = ChannelId(hash(&key[..32]));
            let mut expected = before;
            expected.channels.remove(&channel).unwrap();
            expected.frozen.insert(channel, format!("a row of table {table:?} cannot be read: {fault}"));
            assert_eq!(whole(&db).unwrap(), expected, "{table:?}");
        }
        Outcome::Refused => assert_refused(&db, table, fault),
        Outcome::Asked(ask) => {
            assert_eq!(whole(&db).unwrap(), before, "{table:?}");
            for ((at, answer), (_, earlier)) in answers(ask).into_iter().zip(asked) {
                if at == key {
                    let reason = StoreError::Corrupt { path: FILE.into(), reason: fault.to_owned() };
                    assert_eq!(answer, Err(reason.to_string()), "{table:?}");
                } else {
                    assert_eq!(answer, earlier, "{table:?}");
                }
            }
        }
        Outcome::Silent => {
            assert_eq!(whole(&db).unwrap(), before, "{table:?}");
            for (of, _) in rows(&db, table) {
                assert_eq!(followed(&db, &of).is_none(), of == key);
            }
        }
        Outcome::Unread => assert_eq!(whole(&db).unwrap(), before, "{table:?}"),
    }
}

fn assert_refused(db: &Database, table: Table, fault: &str) {
    let path = format!("{FILE}, table {table:?}").into();
    let expected = StoreError::Corrupt { path, reason: fault.to_owned() };
    assert_eq!(whole(db).unwrap_err().to_string(), expected.to_string());
}

/// What a reader says of this row.
fn fault_of(read: Read, row: &[u8]) -> String {
    read(row).unwrap_err()
}

#[test]
fn per_7_each_table_has_rows_of_versions_or_is_told_to_be_bare() {
    let with_fields: Vec<_> = versioned().into_iter().map(|(table, _, _)| table).collect();
    let mut named = [with_fields.as_slice(), BARE, NEITHER].concat();
    named.sort_unstable();
    assert_eq!(named, Table::ALL);
    // The first paragraph of the section is the list.
    let (_, bare) = DOCUMENT.split_once("\n## Bare forms\n\n").unwrap();
    let (list, _) = bare.split_once("\n\n").unwrap();
    for table in Table::ALL {
        assert_eq!(list.contains(&format!("`{}`", table.name())), BARE.contains(table) || *table == Table::Meta);
    }
    let (_, costs) = DOCUMENT.split_once("\n## Rows of a later program\n").unwrap();
    let (costs, _) = costs.split_once("\n## ").unwrap();
    for (table, _, outcome) in versioned() {
        let words: &[_] = match outcome {
            Outcome::Frozen => &["its channel is frozen"],
            Outcome::Refused => &["the start is refused"],
            Outcome::Asked(_) => &["a start does not need it; ", "an HTLC that brings", "a list of that day"],
            Outcome::Silent => &["it says nothing"],
            Outcome::Unread => &["no release reads it"],
        };
        let told: Vec<_> =
            costs.lines().filter(|line| words.iter().any(|words| line.contains(&format!("| {words}")))).collect();
        assert!(told.iter().any(|line| line.contains(&format!("`{}`", table.name()))), "{table:?}: {told:?}");
    }
}

/// Odd fields are skipped, even ones and other versions are not: by what reads each row of each table.
#[test]
fn per_7_a_reader_of_any_table_skips_an_odd_field_alone() {
    if is_update() {
        return;
    }
    let (db, _, _dir) = loaded();
    let assert_read = |name: &str, read: Read, row: &[u8]| {
        let whole = read(row).unwrap();
        assert_eq!(read(&with_field(row, ODD)), Ok(whole), "{name}");
        let even = fault_of(read, &with_field(row, EVEN));
        assert!(even.contains("field 100") && even.contains("must be understood"), "{name}: {even}");
        let after_odd = fault_of(read, &with_field(&with_field(row, ODD), EVEN));
        assert_eq!(after_odd, even, "{name}");
        let newer = fault_of(read, &with_version(row, TO_COME));
        assert!(newer.contains("version 254"), "{name}: {newer}");
    };
    for (table, read, _) in versioned() {
        let all = rows(&db, table);
        assert!(!all.is_empty(), "{table:?}");
        all.iter().for_each(|(_, row)| assert_read(table.name(), read, row));
    }
    for (key, row) in rows(&db, Table::Meta) {
        match key.as_slice() {
            FOLLOWED_KEY => assert_read("followed", |row| text(Followed::decode(row)), &row),
            JOURNAL_KEY => assert_read("journal", |row| text(JournalRow::decode(row)), &row),
            _ => {}
        }
    }
}

#[test]
fn per_7_odd_fields_in_every_row_of_the_sample_change_nothing() {
    if is_update() {
        return;
    }
    let (db, _, _dir) = loaded();
    let before = whole(&db).unwrap();
    let answers = |ask: fn(&Reader, &[u8]) -> Result<String, StoreError>, table| -> Vec<_> {
        let reader = Reader::new(db.clone());
        rows(&db, table).into_iter().map(|(key, _)| ask(&reader, &key).unwrap()).collect()
    };
    for (table, _, outcome) in versioned() {
        let asked = if let Outcome::Asked(ask) = outcome { answers(ask, table) } else { Vec::new() };
        for (key, row) in rows(&db, table) {
            put(&db, table, &key, &seal(table, &key, &with_field(&row, ODD)));
        }
        assert_eq!(whole(&db).unwrap(), before, "{table:?}");
        match outcome {
            Outcome::Asked(ask) => assert_eq!(answers(ask, table), asked, "{table:?}"),
            Outcome::Silent => rows(&db, table).iter().for_each(|(key, _)| assert!(followed(&db, key).is_some())),
            Outcome::Frozen | Outcome::Refused | Outcome::Unread => {}
        }
    }
}

#[test]
fn per_7_bad_input_92_an_even_field_or_another_version_costs_that_row_and_no_other() {
    if is_update() {
        return;
    }
    for (table, read, outcome) in versioned() {
        let (db, _, _dir) = loaded();
        let (_, row) = chosen(&db, table, outcome);
        let fault = fault_of(read, &with_field(&row, EVEN));
        assert_outcome(table, outcome, |row| with_field(row, EVEN), &fault);
        let fault = fault_of(read, &with_version(&row, TO_COME));
        assert_outcome(table, outcome, |row| with_version(row, TO_COME), &fault);
    }
}

/// What is under way is needed: a start is refused that cannot read it.
#[test]
fn per_7_bad_input_92_a_payment_or_an_opening_under_way_that_cannot_be_understood_refuses_the_start() {
    if is_update() {
        return;
    }
    let (db, _, _dir) = loaded();
    let pending = rows(&db, Table::UnderWay).into_iter().find_map(|(key, _)| match UnderWay::parse(&key) {
        Some(UnderWay::Payment(id)) => Some(id),
        _ => None,
    });
    let pending = pending.unwrap();
    let (key, row) = rows(&db, Table::Payment).into_iter().find(|(key, _)| *key == pending).unwrap();
    let even = with_field(&row, EVEN);
    put(&db, Table::Payment, &key, &seal(Table::Payment, &key, &even));
    assert_refused(&db, Table::Payment, &fault_of(|row| text(PaymentRow::decode(row)), &even));

    let (db, _, _dir) = loaded();
    let (key, row) = rows(&db, Table::Operation).into_iter().next().unwrap();
    let begun = UnderWay::Opening(String::from_utf8(key.clone()).unwrap()).key();
    put(&db, Table::UnderWay, &begun, &seal(Table::UnderWay, &begun, &[]));
    whole(&db).unwrap();
    let even = with_field(&row, EVEN);
    put(&db, Table::Operation, &key, &seal(Table::Operation, &key, &even));
    assert_refused(&db, Table::Operation, &fault_of(|row| text(OperationRow::decode(row)), &even));
}

/// The row that names the journal is read before anything else is: a file is refused untouched for it.
#[test]
fn per_7_bad_input_92_a_row_of_the_journal_that_cannot_be_understood_refuses_the_file() {
    if is_update() {
        return;
    }
    for field in [ODD, EVEN] {
        let (db, id, dir) = loaded();
        let (key, row) = rows(&db, Table::Meta).into_iter().find(|(key, _)| key == JOURNAL_KEY).unwrap();
        let altered = with_field(&row, field);
        put(&db, Table::Meta, &key, &seal(Table::Meta, &key, &altered));
        let expected = whole(&db).unwrap();
        drop(db);
        let before = std::fs::read(dir.path().join(FILE)).unwrap();
        match store::open_and_load(dir.path(), "regtest", &id) {
            Ok((db, _)) => assert_eq!((field, whole(&db).unwrap()), (ODD, expected)),
            Err(fault) => {
                let fault = fault.to_string();
                let expected = fault_of(|row| text(JournalRow::decode(row)), &altered);
                assert!(field == EVEN && fault.contains(&expected), "{fault}");
                assert!(std::fs::read(dir.path().join(FILE)).unwrap() == before, "the file was changed");
            }
        }
    }
}

/// Sums go on behind an odd field. Behind what cannot be understood they begin anew: no forward stops for them.
#[test]
fn per_7_a_sum_of_forwards_that_cannot_be_understood_begins_anew() {
    if is_update() {
        return;
    }
    for (field, is_kept) in [(ODD, true), (EVEN, false)] {
        let (db, _, _dir) = loaded();
        let (key, row) = rows(&db, Table::ForwardTotals).swap_remove(0);
        put(&db, Table::ForwardTotals, &key, &seal(Table::ForwardTotals, &key, &with_field(&row, field)));
        let (writer, thread) = Writer::start(db.clone(), |_, _| {}, |fault| panic!("{fault}")).unwrap();
        let mut batch = Batch::default();
        batch.count(TotalsKey::parse(&key).unwrap(), &ForwardTotals::one_refused());
        writer.submit(batch);
        drop(writer);
        thread.join().unwrap();
        let mut expected = if is_kept { ForwardTotals::decode(&row).unwrap() } else { ForwardTotals::default() };
        expected.add(&ForwardTotals::one_refused());
        assert_eq!(rows(&db, Table::ForwardTotals), [(key, expected.encode())]);
    }
}

/// An address is a bare text. What is none is not taken for one, and no more is lost.
#[test]
fn bad_input_91_what_is_no_address_is_not_taken_for_one() {
    if is_update() {
        return;
    }
    let (db, _, _dir) = loaded();
    let kept = load(&*db).unwrap().peer_addresses;
    let [(peer, _), (other, address)] = kept.as_slice() else { panic!("{kept:?}") };
    let key = peer.serialize();
    let not_text: &[u8] = b"peer\xff.example:9735";
    for row in [not_text, b"", b"peer.example", b"peer.example:0", b"peer.example:port", b"a b:1"] {
        put(&db, Table::PeerAddress, &key, &seal(Table::PeerAddress, &key, row));
        assert_eq!(load(&*db).unwrap().peer_addresses, [(*other, address.clone())], "{row:?}");
        let reader = Reader::new(db.clone());
        assert_eq!(reader.peer_address(peer).unwrap(), None, "{row:?}");
        assert_eq!(reader.peer_address(other).unwrap().as_ref(), Some(address));
    }
}

#[test]
fn per_7_bad_input_91_a_bit_that_flips_in_a_row_of_the_sample_is_told() {
    if is_update() {
        return;
    }
    for (table, _, outcome) in versioned() {
        let (db, _, _dir) = loaded();
        let (key, row) = chosen(&db, table, outcome);
        let mut sealed = seal(table, &key, &row);
        let middle = sealed.len() / 2;
        sealed[middle] ^= 1;
        put(&db, table, &key, &sealed);
        let found = load(&*db);
        match outcome {
            // The start is refused for a row that is not as it was written, whatever it is of.
            Outcome::Frozen | Outcome::Refused => {
                let fault = found.err().unwrap().to_string();
                assert!(fault.contains(&format!("{table:?}")), "{table:?}: {fault}");
            }
            Outcome::Asked(ask) => {
                assert!(ask(&Reader::new(db), &key).is_err(), "{table:?} is read");
            }
            Outcome::Silent | Outcome::Unread => assert_eq!(found.unwrap().frozen, []),
        }
    }
}
