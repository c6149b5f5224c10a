//! A sync fails and is not the end: what it left in the system's cache is seen by whoever opens the files next, and is on no disk. Then
//! the power fails. What was completed, or was seen after a start, is there.

use super::paired::{changed, channel, image_of};
use super::swept::{CHANNELS, FATES, HALF, Machine, OnMachine, assert_kept};
use super::*;
use crate::store::{Batch, Writer, open_on, unseal};

/// Ids that are written.
const LAST: u64 = 9;

/// Operations after the one that fails, at a third of which the power fails.
const AFTER: usize = 40;

/// What one commit writes: at some ids more than the journal takes.
fn jobs(id: u64) -> Vec<Job> {
    if id == 1 {
        return CHANNELS.map(|number| Job::Full(Box::new(image_of(channel(number), 1)), 1)).into();
    }
    let mut jobs: Vec<_> = CHANNELS.map(|number| changed(channel(number), id)).into();
    if id.is_multiple_of(4) {
        let mut large = image_of(channel(CHANNELS[0]), id);
        large.rows.insert((Table::ChannelParams, channel_key(&channel(CHANNELS[0]))), vec![7; HALF]);
        jobs[0] = Job::Full(Box::new(large), id);
    }
    jobs
}

/// Writes on as the sink does, through faults, with a stop in order in the midst, until all is written or the power fails. Says what
/// was completed or seen, and whether that was all.
fn written_on(machine: &Machine, files: Files) -> (u64, bool) {
    let mut kept = 0;
    for last in [LAST / 2, LAST] {
        loop {
            let mut work = || -> Result<(), StoreError> {
                let open = machine.opened(files)?;
                let held = holdings_in(&open.db)?;
                kept = held.iter().map(|holding| holding.id).min().unwrap_or_default().max(kept);
                for id in kept + 1..=last {
                    assert!(open.commit(&jobs(id))?, "at {id} it is another file");
                    kept = id;
                    if id.is_multiple_of(3) {
                        open.checkpoint(false)?;
                    }
                }
                open.checkpoint(true)
            };
            match work() {
                Ok(()) => break,
                Err(_) if machine.done().1 => return (kept, false),
                Err(_) => {}
            }
        }
    }
    (kept, true)
}

/// Each sync fails in turn, once or twice in a row, and after it the power at some of the next operations.
fn swept(made: &Machine, work: impl Fn(&Machine) -> (u64, bool), check: impl Fn(&Machine, u64, &str)) -> usize {
    let (mut points, mut seen) = (0, 0);
    for from in 1.. {
        let times = 1 + from % 2;
        let whole = made.after(FATES[0], usize::MAX).failing(from, times);
        assert_eq!(work(&whole), (LAST, true), "from {from}");
        let Some(first) = whole.failed().first().copied() else { return points };
        // From here to the next sync it is the same one.
        if first == seen {
            continue;
        }
        seen = first;
        for ends_at in (first + 1 + from % 3..(first + AFTER).min(whole.done().0)).step_by(3) {
            let machine = made.after(FATES[0], ends_at).failing(from, times);
            let (kept, _) = work(&machine);
            // What was not synced is lost, or came in part.
            let fate = if ends_at % 2 == 0 { FATES[ends_at % FATES.len()] } else { FATES[0] };
            check(
                &machine.after(fate, usize::MAX),
                kept,
                &format!("a sync failed at {first}, the power at {ends_at}, {fate:?}"),
            );
            points += 1;
        }
    }
    points
}

#[test]
fn dsk_1_dsk_2_what_a_failed_sync_left_of_a_mirror_is_not_taken_for_durable() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.make().unwrap();
    let files = place.files().unwrap();
    let made = Machine::new();
    let points =
        swept(&made, |machine| written_on(machine, files), |left, kept, when| assert_kept(left, files, kept, when));
    assert!(points > 100, "{points}");
}

/// The number of the newest row, where every one before it is there too.
fn newest_row(db: &Database) -> u64 {
    let table = db.begin_read().unwrap().open_table(Table::Wallet.definition()).unwrap();
    let rows: Vec<_> = table.iter().unwrap().map(|entry| entry.unwrap()).collect();
    for (number, (key, value)) in rows.iter().enumerate() {
        assert_eq!(key.value(), (number as u64 + 1).to_be_bytes());
        unseal(Table::Wallet, key.value(), value.value()).unwrap();
    }
    rows.len() as u64
}

/// A node that dies of each fault, and is started again.
fn committed_on(machine: &Machine) -> (u64, bool) {
    let mut kept = 0;
    for last in [LAST / 2, LAST] {
        loop {
            let mut work = || -> Result<(), StoreError> {
                let (db, journal) = open_on(Box::new(OnMachine(machine.clone(), 0)), machine, "regtest", &node(1))?;
                // What it finds it acts upon.
                kept = newest_row(&db).max(kept);
                let (writer, commits) = Writer::new(db)?;
                let mut commits = commits.journaled(journal);
                for number in kept + 1..=last {
                    let mut batch = Batch::default();
                    let len = if number.is_multiple_of(4) { HALF } else { 40 };
                    batch.put(Table::Wallet, number.to_be_bytes().to_vec(), Some(vec![7; len]));
                    writer.submit(batch);
                    drop(commits.next(1).unwrap()?);
                    kept = number;
                    if number.is_multiple_of(3) {
                        commits.checkpoint()?;
                    }
                }
                let mut end = Batch::default();
                end.conclude();
                writer.submit(end);
                drop(commits.next(1).unwrap()?);
                Ok(())
            };
            match work() {
                Ok(()) => break,
                Err(_) if machine.done().1 => return (kept, false),
                Err(_) => {}
            }
        }
    }
    (kept, true)
}

#[test]
fn dsk_1_dsk_2_bad_input_96_what_a_failed_sync_left_of_the_database_is_not_taken_for_durable() {
    let check = |left: &Machine, kept: u64, when: &str| {
        let opened = open_on(Box::new(OnMachine(left.clone(), 0)), left, "regtest", &node(1));
        let (db, _) = opened.unwrap_or_else(|fault| panic!("{when}: {fault}"));
        let found = newest_row(&db);
        assert!((kept..=kept + 1).contains(&found), "{when}: {kept} were kept, {found} are there");
    };
    let points = swept(&Machine::new(), committed_on, check);
    assert!(points > 100, "{points}");
}
