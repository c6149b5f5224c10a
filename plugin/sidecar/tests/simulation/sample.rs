//! A database of the format as it stands, kept beside the tests, and backups of it (`sample/backups.rs`): whatever becomes of this
//! program, they must be loaded. It has a row in every table.
//!
//! `UPDATE_SAMPLE=1 cargo test --workspace --test simulation sample` makes them anew, as long as no release has written the
//! format; from then on it stays as it is, and the next format gets a file of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bitcoin::{Amount, Transaction, TxIn, TxOut, absolute, transaction};
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::Command;
use outrigger_sidecar::manager::terms::TermsChange;
use outrigger_sidecar::store::backup::refusals::Refusals;
use outrigger_sidecar::store::backup::verified::Verified;
use outrigger_sidecar::store::load::load;
use outrigger_sidecar::store::row::SweepRow;
use outrigger_sidecar::store::schema::{
    META_KEYS, REFUSALS_KEY, RESERVE_LOW_KEY, RESTORED_KEY, TROUBLES_KEY, Table, VERIFIED_KEY, outpoint_key,
};
use outrigger_sidecar::store::seal::unseal;
use outrigger_sidecar::store::terms::TermsRow;
use outrigger_sidecar::store::token::{Spent, TokenRow};
use outrigger_sidecar::store::troubles::{Subject, Troubles};
use outrigger_sidecar::store::{self, Batch, FILE};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::backup::Backup;
use super::chain::Chain;
use super::disk::Disk;
use super::node::Node;
use super::rows;
use super::schedule::feerates;
use super::signer::{Signers, Signing};
use super::sweep::scripts;
use super::world::{Tracing, World};

mod altered;
mod backups;
mod pack;

/// Whose database it is: a node that relays, pays, is paid, and has channels on both sides.
const NODE: usize = 1;

/// Whether the samples are being made anew.
fn is_update() -> bool {
    std::env::var_os("UPDATE_SAMPLE").is_some()
}

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
    writeln!(text, "keys of meta: {}", keys_of_meta(db).join(" ")).unwrap();
    text
}

fn keys_of_meta(db: &Database) -> Vec<String> {
    let meta = db.begin_read().unwrap().open_table(Table::Meta.definition()).unwrap();
    let name = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    meta.iter().unwrap().map(|entry| name(entry.unwrap().0.value())).collect()
}

/// Each table of the schema has a row, or says why not; so has each key of `meta`.
fn assert_full(db: &Database) {
    for table in Table::ALL {
        let is_without = WITHOUT.iter().any(|(without, _)| without == table);
        assert_eq!(rows::count(db, *table) == 0, is_without, "{table:?} has a row, or is named in WITHOUT");
    }
    let keys = keys_of_meta(db);
    for key in META_KEYS {
        let is_without = KEYS_WITHOUT.iter().any(|(without, _)| without == key);
        let name = std::str::from_utf8(key).unwrap();
        assert_eq!(!keys.iter().any(|key| key == name), is_without, "{name} is there, or named in KEYS_WITHOUT");
    }
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

/// Tables of which the sample has no row, each with why.
const WITHOUT: &[(Table, &str)] = &[];

/// Keys of `meta` that the sample has not, likewise.
const KEYS_WITHOUT: &[(&[u8], &str)] =
    &[(RESTORED_KEY, "a file that is known to be old signs nothing more, and a node goes on from the sample")];

/// Rounds of payments until every table has a row at one time.
const ROUNDS: usize = 200;

/// Every table that the sample is to have has a row, and nothing is on its way to the disk that might take one away.
fn is_full(world: &World) -> bool {
    let live = world.nodes[NODE].live();
    let is_at_rest = live.gathered.is_none() && live.duties.commits.waiting() == 0;
    let has = |table: &Table| WITHOUT.iter().any(|(without, _)| without == table) || rows::count(&live.db, *table) > 0;
    is_at_rest && rows::count(&live.db, Table::Htlc) > 2 && Table::ALL.iter().all(has)
}

/// Channels of the node that have neither ended nor failed.
fn in_use(world: &World) -> Vec<ChannelId> {
    let db = &world.nodes[NODE].live().db;
    let of_node =
        world.ledger.funded().filter(|(_, founded)| founded.nodes.contains(&NODE)).map(|(channel, _)| *channel);
    of_node.filter(|channel| !world.ledger.ends_alone(channel) && rows::head(db, channel).is_some()).collect()
}

/// The operator of the node ends a channel alone. Its commitment is in the chain, and some of its outputs are taken there.
fn end_one_alone(world: &mut World) -> ChannelId {
    let channel = *in_use(world).first().expect("a channel");
    world.ledger.ended_alone.insert(channel);
    world.order(NODE, channel, Command::Fail { reason: "the operator wants it".to_owned() });
    world.rest();
    for _ in 0..20 {
        world.mine();
        world.rest();
        if rows::count(&world.nodes[NODE].live().db, Table::Taken) > 0 {
            return channel;
        }
    }
    panic!("nothing of the commitment was taken");
}

/// The operator asks another fee for forwarding over a channel.
fn ask_another_fee(world: &mut World) {
    let channel = *in_use(world).first().expect("a channel");
    let manager = world.nodes[NODE].live().core.manager.clone();
    let set = TermsRow { fee_base_msat: Some(2_000), ..TermsRow::default() };
    let mut asked = Box::pin(async move { manager.set_terms(channel, TermsChange { from_config: false, set }).await });
    let mut context = Context::from_waker(Waker::noop());
    assert!(asked.as_mut().poll(&mut context).is_pending(), "it waits for the commit");
    world.rest();
    assert!(matches!(asked.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
}

/// Rows of owners that the simulation has not: the door to peers, the wallet and its sweeper, callers' tokens, sinks that refuse. They
/// are as those write them.
fn stage_what_others_write(world: &mut World, failed: ChannelId) {
    let claimed = world.ledger.claimed.keys().find(|(node, _)| *node == NODE);
    let outpoint = claimed.expect("a claim").1;
    let node = &world.nodes[NODE];
    let mut batch = Batch::default();
    for peer in [0, 2].map(|peer: usize| world.nodes[peer].id) {
        batch.put(Table::PeerAddress, peer.serialize().to_vec(), Some(b"peer.example:9735".to_vec()));
    }
    let (version, lock_time) = (transaction::Version::TWO, absolute::LockTime::ZERO);
    let input = vec![TxIn { previous_output: outpoint, ..TxIn::default() }];
    let output = vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: node.script() }];
    let tx = Transaction { version, lock_time, input, output };
    let sweep = SweepRow { tx, fee: Sat::new(300), since_height: node.live().tip };
    batch.put(Table::Sweep, outpoint_key(&failed, &outpoint), Some(sweep.encode()));
    let token = TokenRow {
        id: [7; 8],
        name: "till".to_owned(),
        salt: [8; 16],
        hash: [9; 32],
        scopes: 7,
        created_at: 1_800_000_000,
        expires_at: Some(1_900_000_000),
        budget: Some(Msat::new(1_000_000)),
    };
    batch.put(Table::Token, token.id.to_vec(), Some(token.encode()));
    batch.put(Table::TokenSpent, token.id.to_vec(), Some(0_u64.to_be_bytes().to_vec()));
    batch.spend(token.id, Spent { more: Msat::new(70_000), less: Msat::ZERO });
    let sink = Backup::default().name().to_owned();
    let verified = Verified([(sink.clone(), 1_800_000_000)].into());
    batch.put(Table::Meta, VERIFIED_KEY.to_vec(), verified.encode());
    let refusals = Refusals([(sink, failed)].into());
    batch.put(Table::Meta, REFUSALS_KEY.to_vec(), refusals.encode());
    batch.put(Table::Meta, RESERVE_LOW_KEY.to_vec(), Some(vec![1]));
    let troubles = Troubles([Subject::Chain, Subject::Peer(world.nodes[0].id)].into());
    batch.put(Table::Meta, TROUBLES_KEY.to_vec(), troubles.encode());
    node.live().core.manager.env().writer.submit(batch);
    world.rest();
}

/// A world in which much is under way at the node, stopped well.
fn make() -> Vec<u8> {
    let mut world = World::new(5, Signing::Real, Tracing::Off);
    scripts::found_with(&mut world, 3, 3, &[NODE]);
    scripts::pay(&mut world, &[0, 1, 2], 30_000_000);
    scripts::pay(&mut world, &[1, 2], 5_000_000);
    scripts::pay(&mut world, &[0, 1], 6_000_000);
    world.give(1, 0, Msat::new(100_000));
    world.give(2, 1, Msat::new(90_000));
    world.rest();
    scripts::close_one(&mut world, NODE);
    world.rest();
    for _ in 0..110 {
        world.mine();
        world.rest();
    }
    let failed = end_one_alone(&mut world);
    ask_another_fee(&mut world);
    // Its funding transaction waits for a block.
    world.open(1, 0, (300_000, 50_000_000));
    world.rest();
    stage_what_others_write(&mut world, failed);
    for _ in 0..ROUNDS {
        let ways: [&[usize]; 8] = [&[0, 1, 2], &[2, 1, 0], &[1, 2], &[1, 0], &[2, 1], &[0, 1], &[1, 0], &[1, 2]];
        ways.iter().zip(1..).for_each(|(way, times)| scripts::pay(&mut world, way, times * 1_000_000));
        while world.step() {
            if is_full(&world) {
                world.stop(NODE);
                return world.nodes[NODE].disk.bytes();
            }
        }
    }
    let db = &world.nodes[NODE].live().db;
    let empty: Vec<_> = Table::ALL.iter().filter(|table| rows::count(db, **table) == 0).collect();
    panic!("at no time has every table a row; at the end these have none: {empty:?}");
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
    if is_update() {
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
    if is_update() {
        std::fs::write(&text, told(&db)).unwrap();
        backups::make(&db, &id);
    }
    assert_full(&db);
    let expected = std::fs::read_to_string(&text).unwrap();
    assert_eq!(told(&db), expected);
    // A node goes on from it, with the backup that it had.
    let mut node: Node = scripts::node(NODE, signers());
    node.backups.push(Backup::default());
    node.disk = Disk::of(std::fs::read(&file).unwrap());
    node.feerates = feerates(1_000);
    node.start(&Chain::default()).unwrap();
    let channels = expected.lines().filter(|line| line.starts_with("channel ")).count();
    assert_eq!(node.live().core.manager.channels(None, None, usize::MAX, |_| true).len(), channels);
}

/// The sample as a start finds it.
fn loaded() -> (Arc<Database>, NodeId, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("format-2.redb"), dir.path().join(FILE)).unwrap();
    let id = scripts::node(NODE, signers()).id;
    let (db, _) = store::open_and_load(dir.path(), "regtest", &id).unwrap();
    (db, id, dir)
}

#[test]
fn per_7_the_sample_backups_are_read_back_row_by_row() {
    // The other test makes them.
    if is_update() {
        return;
    }
    let (db, id, _dir) = loaded();
    backups::assert_kept(&db, &id);
    backups::assert_journal_counts(&db, &id);
}
