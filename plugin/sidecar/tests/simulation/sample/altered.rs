//! The sample with rows that are not of this format, or not as they were written: nothing is made of them.

use outrigger_sidecar::store::load::load;
use outrigger_sidecar::store::schema::Table;
use outrigger_sidecar::store::seal::{seal, unseal};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{is_update, loaded};

/// Tables whose rows begin with a version, and that a start reads.
const VERSIONED: &[Table] = &[
    Table::ChannelParams,
    Table::ChannelHead,
    Table::Htlc,
    Table::MonitorHead,
    Table::FundingSpend,
    Table::Taken,
    Table::Sweep,
    Table::Settlement,
    Table::Outcome,
    Table::Payment,
    Table::Part,
    Table::Broadcast,
    Table::ForwardingTerms,
    Table::Token,
];

/// A version that no row of this format has.
const TO_COME: u8 = 0xfe;

fn rewrite(db: &Database, table: Table, altered: impl Fn(&[u8], &[u8]) -> Vec<u8>) {
    let transaction = db.begin_write().unwrap();
    {
        let mut open = transaction.open_table(table.definition()).unwrap();
        let mut rows = Vec::new();
        for entry in open.iter().unwrap() {
            let (key, value) = entry.unwrap();
            rows.push((key.value().to_vec(), value.value().to_vec()));
        }
        assert!(!rows.is_empty(), "{table:?}");
        for (key, value) in rows {
            open.insert(key.as_slice(), altered(&key, &value).as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// The start is refused for the table, or channels are frozen for it: never is it read as if nothing were.
fn assert_told(db: &impl ReadableDatabase, table: Table) {
    match load(db) {
        Err(fault) => assert!(fault.to_string().contains(&format!("{table:?}")), "{table:?}: {fault}"),
        Ok(snapshot) => {
            let is_told = snapshot.frozen.iter().any(|frozen| frozen.reason.contains(&format!("{table:?}")));
            assert!(is_told, "{table:?} is read: {:?}", snapshot.frozen);
        }
    }
}

#[test]
fn per_7_bad_input_92_rows_of_the_sample_in_a_version_to_come_are_not_taken_for_rows_of_this_one() {
    if is_update() {
        return;
    }
    let (db, _, _dir) = loaded();
    assert_eq!(load(&*db).unwrap().frozen.len(), 0);
    for table in VERSIONED {
        let (db, _, _dir) = loaded();
        rewrite(&db, *table, |key, sealed| {
            let mut row = unseal(*table, key, sealed).unwrap().to_vec();
            assert_ne!(std::mem::replace(&mut row[0], TO_COME), TO_COME);
            seal(*table, key, &row)
        });
        assert_told(&*db, *table);
    }
}

#[test]
fn per_7_bad_input_91_a_bit_that_flips_in_a_row_of_the_sample_is_told() {
    if is_update() {
        return;
    }
    for table in VERSIONED {
        let (db, _, _dir) = loaded();
        rewrite(&db, *table, |_, sealed| {
            let mut sealed = sealed.to_vec();
            let middle = sealed.len() / 2;
            sealed[middle] ^= 1;
            sealed
        });
        assert_told(&*db, *table);
    }
}
