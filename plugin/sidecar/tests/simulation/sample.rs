//! A database of the format as it stands, kept beside the tests: whatever becomes of this program, it must be loaded.
//!
//! `UPDATE_SAMPLE=1 cargo test -p outriggerd --test simulation sample` makes it anew, as long as no release has written the
//! format; from then on it stays as it is, and the next format gets a file of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_sidecar::store::load::load;
use outrigger_sidecar::store::schema::Table;
use outrigger_sidecar::store::seal::unseal;
use outrigger_sidecar::store::{self, FILE};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::chain::Chain;
use super::disk::Disk;
use super::node::Node;
use super::rows;
use super::schedule::feerates;
use super::signer::{Signers, Signing};
use super::sweep::scripts;
use super::world::{Tracing, World};

/// Whose database it is: a node that relays, pays, is paid, and has channels on both sides.
const NODE: usize = 1;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("fixtures").join(name)
}

/// What a reader of the sample must find: every channel, and how many rows each table has.
fn told(db: &Database) -> String {
    let file = load(db).unwrap();
    let mut text = String::new();
    for loaded in &file.channels {
        let head = &loaded.channel.rows().head;
        let balances = (head.local_commitment.to_local, head.local_commitment.to_remote);
        writeln!(
            text,
            "channel {} {} commitments {} {} balances {} {} htlcs {}",
            loaded.channel.id(),
            loaded.channel.summary(0).state,
            head.local_number,
            head.remote_number,
            balances.0.get(),
            balances.1.get(),
            loaded.channel.rows().htlcs.len()
        )
        .unwrap();
    }
    let under_way = (file.frozen.len(), file.outcomes.len(), file.pending_payments.len(), file.parts.len());
    writeln!(text, "frozen, outcomes, pending payments, parts: {under_way:?}").unwrap();
    for table in Table::ALL {
        writeln!(text, "{} {}", table.name(), rows::count(db, *table)).unwrap();
    }
    text
}

fn signers() -> Signers {
    Signers { signing: Signing::Real, journal: Arc::default() }
}

/// Every row is as it was written.
fn assert_sealed(db: &Database) {
    let transaction = db.begin_read().unwrap();
    for table in Table::ALL {
        for entry in transaction.open_table(table.definition()).unwrap().iter().unwrap() {
            let (key, value) = entry.unwrap();
            unseal(*table, key.value(), value.value()).unwrap();
        }
    }
}

/// A world in which much is under way at the node, stopped well.
fn make() -> Vec<u8> {
    let mut world = World::new(5, Signing::Real, Tracing::Off);
    scripts::found(&mut world, 3, 2);
    scripts::pay(&mut world, &[0, 1, 2], 30_000_000);
    scripts::pay(&mut world, &[1, 2], 5_000_000);
    scripts::pay(&mut world, &[0, 1], 6_000_000);
    world.give(1, 0, outrigger_bolt::amount::Msat::new(100_000));
    world.give(2, 1, outrigger_bolt::amount::Msat::new(90_000));
    world.rest();
    scripts::close_one(&mut world, NODE);
    world.rest();
    for _ in 0..110 {
        world.mine();
        world.rest();
    }
    scripts::pay(&mut world, &[0, 1, 2], 40_000_000);
    scripts::pay(&mut world, &[2, 1, 0], 7_000_000);
    scripts::pay(&mut world, &[1, 2], 8_000_000);
    let is_full = |world: &World| {
        let db = &world.nodes[NODE].live().db;
        let under_way = [Table::Htlc, Table::Onion, Table::Part, Table::UnderWay, Table::HtlcSignatures];
        under_way.iter().all(|table| rows::count(db, *table) > 0) && rows::count(db, Table::Htlc) > 2
    };
    while !is_full(&world) {
        assert!(world.step(), "it came to rest before");
    }
    world.stop(NODE);
    world.nodes[NODE].disk.bytes()
}

/// The node over these bytes, compacted.
fn compacted(bytes: Vec<u8>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), bytes).unwrap();
    let mut db = Database::open(dir.path().join(FILE)).unwrap();
    while db.compact().unwrap() {}
    drop(db);
    std::fs::read(dir.path().join(FILE)).unwrap()
}

#[test]
fn per_7_the_sample_database_of_format_2_is_loaded_row_by_row() {
    let (file, text) = (fixture("format-2.redb"), fixture("format-2.txt"));
    let id = scripts::node(NODE, signers()).id;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join(FILE);
    if std::env::var_os("UPDATE_SAMPLE").is_some() {
        std::fs::write(&file, compacted(make())).unwrap();
    }
    std::fs::copy(&file, &place).unwrap();
    let (db, _) = store::open_and_load(dir.path(), "regtest", &id).unwrap();
    // It may be older than a table, of which it has no row then.
    let transaction = db.begin_write().unwrap();
    for table in Table::ALL {
        transaction.open_table(table.definition()).unwrap();
    }
    transaction.commit().unwrap();
    assert_sealed(&db);
    if std::env::var_os("UPDATE_SAMPLE").is_some() {
        std::fs::write(&text, told(&db)).unwrap();
    }
    let expected = std::fs::read_to_string(&text).unwrap();
    assert_eq!(told(&db), expected);
    // A node goes on from it.
    let mut node: Node = scripts::node(NODE, signers());
    node.disk = Disk::of(std::fs::read(&file).unwrap());
    node.feerates = feerates(1_000);
    node.start(&Chain::default()).unwrap();
    let channels = expected.lines().filter(|line| line.starts_with("channel ")).count();
    assert_eq!(node.live().core.manager.channels(None, None, usize::MAX, |_| true).len(), channels);
    // The sample has something of what there is.
    for table in [Table::Htlc, Table::Onion, Table::Payment, Table::Part, Table::Event, Table::ClosedChannel] {
        assert!(rows::count(&db, table) > 0, "{table:?}");
    }
}
