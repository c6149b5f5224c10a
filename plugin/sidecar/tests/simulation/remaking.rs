//! The writes of a restore itself: whatever stops one, at whichever of them, there is no database that a start would take, or one that
//! has all of the backup and is in restored mode. Where there is none the next restore makes it.

use std::collections::BTreeMap;

use outrigger_bolt::id::NodeId;
use outrigger_sidecar::store::restore::RestoreFault;
use outrigger_sidecar::store::schema::Table;
use outrigger_sidecar::store::{Snapshot, open_and_load_on};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::backup::Backup;
use super::disk::{Damage, Disk, Failing, File, Operation};
use super::losses::restored;
use super::node::NETWORK;
use super::signer::Signing;
use super::sweep::scripts::{LOSER, close_one, found_with, pay};
use super::world::{Tracing, World};

/// What a stop leaves: of the machine, or of the process alone.
const DAMAGES: [Damage; 6] =
    [Damage::Kept, Damage::Dropped, Damage::Torn(512), Damage::Torn(4096), Damage::Reordered, Damage::Cached];

type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// The backup of a node with a channel that lives, one that is over, and HTLCs under way.
struct Stage {
    node: NodeId,
    backup: Backup,
    /// What a restore that nothing disturbs makes.
    whole: Rows,
    asked: Vec<(File, Operation)>,
}

fn rows(db: &Database) -> Rows {
    let transaction = db.begin_read().unwrap();
    let mut rows = Rows::new();
    for table in Table::ALL {
        for entry in transaction.open_table(table.definition()).unwrap().iter().unwrap() {
            let (key, value) = entry.unwrap();
            rows.insert((*table, key.value().to_vec()), value.value().to_vec());
        }
    }
    rows
}

impl Stage {
    fn new() -> Self {
        let mut world = World::new(0, Signing::Fake, Tracing::Off);
        found_with(&mut world, 3, 1, &[LOSER]);
        pay(&mut world, &[0, 1, 2], 30_000_000);
        world.rest();
        pay(&mut world, &[1, 2], 5_000_000);
        world.rest();
        close_one(&mut world, LOSER);
        world.rest();
        world.mine();
        world.rest();
        pay(&mut world, &[2, 1], 4_000_000);
        for _ in 0..20 {
            world.step();
        }
        world.stop(LOSER);
        let mut stage = Self {
            node: world.nodes[LOSER].id,
            backup: world.nodes[LOSER].backups[0].copied(),
            whole: Rows::new(),
            asked: Vec::new(),
        };
        let disk = Disk::default();
        stage.restore(&disk).unwrap();
        stage.asked = disk.asked();
        stage.whole = stage.started(&disk).0;
        stage
    }

    fn restore(&self, disk: &Disk) -> Result<(), RestoreFault> {
        let rebuilt = restored(&mut self.backup.copied(), self.node, disk)?;
        assert!(rebuilt.is_whole(), "{rebuilt:?}");
        Ok(())
    }

    /// What a start finds.
    fn started(&self, disk: &Disk) -> (Rows, Snapshot) {
        let owner = (NETWORK, &self.node);
        let (db, found) = open_and_load_on(disk.database(), (disk, disk), owner).unwrap();
        (rows(&db), found)
    }

    /// Whether there was a database; where there was none one is restored. Either way it is what it is to be.
    fn had(&self, disk: &Disk, after: &str) -> bool {
        let had = !disk.bytes().is_empty();
        if !had {
            self.restore(disk).unwrap_or_else(|fault| panic!("{after}: {fault}"));
        }
        let (rows, found) = self.started(disk);
        assert!(rows == self.whole, "{after}: other rows than those of a restore that nothing disturbs");
        assert_eq!(found.restored.as_deref(), Some("it comes of a backup"), "{after}");
        had
    }
}

#[test]
fn bak_1_bak_5_dsk_1_dsk_2_dsk_4_dsk_7_a_restore_that_stops_at_any_write_leaves_nothing_to_start_from_or_all_of_it() {
    let stage = Stage::new();
    let kinds = [Operation::Write, Operation::Sync, Operation::Grow, Operation::Rename];
    assert!(kinds.iter().all(|kind| stage.asked.iter().any(|(_, asked)| asked == kind)), "{:?}", stage.asked);
    assert!(stage.asked.iter().all(|(file, _)| matches!(file, File::Draft | File::Directory)), "{:?}", stage.asked);
    let mut left = BTreeMap::new();
    for operation in 0..stage.asked.len() as u64 {
        let disk = Disk::default();
        disk.fail_after(operation, Failing::Power);
        assert!(stage.restore(&disk).is_err(), "it is told that it did not come to its end");
        for damage in DAMAGES {
            let after = format!("operation {operation}, {:?}, {damage:?}", stage.asked[operation as usize]);
            let disk = disk.copied().crash(damage, &mut ChaCha8Rng::seed_from_u64(operation));
            *left.entry(stage.had(&disk, &after)).or_insert(0) += 1;
        }
    }
    println!("remaking: stops of {} operations; a database was there or not: {left:?}", stage.asked.len());
    assert_eq!(left.len(), 2, "some stops come behind the new name");
}

#[test]
fn bak_5_dsk_1_dsk_8_a_restore_that_the_disk_refuses_anything_of_says_so_and_leaves_nothing() {
    let stage = Stage::new();
    for failing in [Failing::Once, Failing::ForEver, Failing::Full] {
        let mut told = BTreeMap::new();
        for operation in 0..stage.asked.len() as u64 {
            let disk = Disk::default();
            disk.fail_after(operation, failing);
            let is_made = stage.restore(&disk).is_ok();
            // Where there is no room, all else is done all the same.
            let has_failed = disk.has_failed();
            assert!(has_failed || failing == Failing::Full);
            let after = format!("operation {operation}, {:?}, {failing:?}", stage.asked[operation as usize]);
            let disk = Disk::with(disk.content());
            assert_eq!(is_made, !has_failed, "{after}: what is refused is told");
            let had = stage.had(&disk, &after);
            // A disk that is gone keeps the name that could not be taken back.
            assert!(had == is_made || failing == Failing::ForEver, "{after}: it was told that nothing was made");
            *told.entry(is_made).or_insert(0) += 1;
        }
        println!("remaking: {failing:?}: told to be made or not: {told:?}");
        assert!(told.get(&false).is_some_and(|refused| *refused > 10), "{failing:?}: {told:?}");
    }
}

/// What a restore has told of is there for good.
#[test]
fn bak_5_dsk_7_what_was_restored_outlives_a_crash_right_behind_it() {
    let stage = Stage::new();
    let disk = Disk::default();
    stage.restore(&disk).unwrap();
    for damage in DAMAGES {
        let disk = disk.copied().crash(damage, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(stage.had(&disk, &format!("{damage:?}")), "{damage:?}: nothing is there");
    }
}
