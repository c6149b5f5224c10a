//! Full against incremental writes, over the age of a channel: what a directory costs for each write, by how many updates it
//! keeps before a full write takes their place. An image of a channel grows with its history, an update does not.

use std::path::Path;

use outrigger_integration::Done;

use super::super::aged::{AGES, flow};
use super::super::{AMOUNT_MSAT, Run};
use crate::machine::{ThreadMeters, thread_of};
use crate::outrigger::{Backup, Outrigger};
use crate::shape::Shape;
use crate::stack::Stack;
use crate::sync::SyncCost;

/// Updates of the channel after which the directory gets a full write in their place.
pub(crate) const CONSOLIDATED: [usize; 4] = [1, 10, 100, 1000];

/// Payments between two looks at how many writes there were.
const PAYMENTS: usize = 20;

/// The thread on which the node's one sink works.
const SINK_THREAD: &str = "sink-0";

/// What a write costs on average, full ones among them in their share.
struct Cost {
    /// Bytes that the sink wrote to files.
    written: f64,
    /// Milliseconds of its thread on a processor.
    ms: f64,
}

impl Run<'_> {
    /// Of the sender, whose directory is required: so each commit becomes one write. Payments are made one at a time, and syncs cost
    /// nothing, so that what the kinds of writes take is told apart from what the disk does.
    pub(in crate::scenarios) async fn sinks_aged(&mut self) -> Done<()> {
        let directory = self.directory.join("sinks-aged");
        let mut stack = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let scale = if self.is_quick { 100 } else { 1 };
        let (mut age, mut found) = (0, Vec::new());
        for wanted in AGES {
            let place = stack.new_place()?;
            stack.keep(&Backup::None, &place).await?;
            at_no_cost(&stack)?;
            // What was paid to measure counts too.
            let wanted_now = (wanted / scale).saturating_sub(age) / 2;
            flow(&mut stack, wanted_now).await?;
            age += 2 * wanted_now;
            for consolidate_every in CONSOLIDATED {
                let (cost, payments) = self.cost_of_writes(&mut stack, consolidate_every).await?;
                age += 2 * payments;
                found.push((format!("sinks_aged_{wanted}_every_{consolidate_every}"), cost));
            }
        }
        for (name, cost) in found {
            self.put_of_outrigger(&format!("{name}_written"), "bytes written for each write", vec![cost.written]);
            self.put_of_outrigger(&format!("{name}_time"), "ms of processor for each write", vec![cost.ms]);
        }
        Ok(())
    }

    /// With so many updates to each full write; also how many payments were made for it.
    async fn cost_of_writes(&self, stack: &mut Outrigger<'_>, consolidate_every: usize) -> Done<(Cost, usize)> {
        let place = stack.new_place()?;
        stack.keep(&Backup::Directory { consolidate_every }, &place).await?;
        at_no_cost(stack)?;
        let pid = stack.watched().first().ok_or("a stack without nodes")?.pid;
        let thread = thread_of(pid, SINK_THREAD)?;
        let meters =
            || Ok::<_, outrigger_integration::Fault>((ThreadMeters::read(pid, thread)?, newest_write(&place)?));
        let (before, first) = meters()?;
        // Whole runs of updates, each with the full write that ends it.
        let wanted =
            if self.is_quick { 20 } else { consolidate_every.max(100).next_multiple_of(consolidate_every) } as u64;
        let mut payments = 0;
        loop {
            flow_one_by_one(stack).await?;
            payments += PAYMENTS;
            let (after, last) = meters()?;
            let writes = last.saturating_sub(first);
            if writes >= wanted {
                let written = (after.written - before.written) as f64 / writes as f64;
                let ms = (after.ran - before.ran).as_secs_f64() * 1e3 / writes as f64;
                return Ok((Cost { written, ms }, payments));
            }
        }
    }
}

fn at_no_cost(stack: &impl Stack) -> Done<()> {
    stack.watched().iter().try_for_each(|watched| watched.sync.set(SyncCost::Nothing))
}

/// Makes some payments, one at a time.
async fn flow_one_by_one(stack: &mut Outrigger<'_>) -> Done<()> {
    stack.supply(2 * PAYMENTS).await?;
    let wanted = stack.paid().await? + PAYMENTS as u64;
    stack.start(1).await?;
    while stack.paid().await? < wanted {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    stack.stop().await?;
    Ok(())
}

/// The newest id of the one channel in a directory: `full-N.sealed` or `update-M-N.sealed`, below the node and the channel.
fn newest_write(place: &Path) -> Done<u64> {
    let (mut newest, mut open) = (0, vec![place.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("full-") || name.starts_with("update-") {
                let id = name.strip_suffix(".sealed").and_then(|name| name.rsplit('-').next()?.parse().ok());
                newest = newest.max(id.unwrap_or_default());
            }
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_write_of_a_directory_is_known_by_the_names_in_it() {
        let place = tempfile::tempdir().unwrap();
        let channel = place.path().join("regtest-02aa").join("77");
        std::fs::create_dir_all(&channel).unwrap();
        assert_eq!(newest_write(place.path()).unwrap(), 0);
        for name in ["full-007.sealed", "update-007-008.sealed", "update-008-009.sealed.new", "full-099.damaged"] {
            std::fs::write(channel.join(name), "").unwrap();
        }
        std::fs::write(channel.parent().unwrap().join("tip-101.sealed"), "").unwrap();
        assert_eq!(newest_write(place.path()).unwrap(), 8);
    }
}
