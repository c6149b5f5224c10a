//! What backups cost, of Outrigger alone: the same payments with none and with one of each kind at the node that all of them
//! pass, on the same channels and the same disk, in turns.

mod aged;
mod stalled;

pub(crate) use aged::CONSOLIDATED;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use outrigger_integration::Done;

use super::{AMOUNT_MSAT, PER_SECOND, Run};
use crate::outrigger::{Backup, Outrigger};
use crate::report::Figure;
use crate::shape::Shape;
use crate::stack::{Plan, Round, round};
use crate::sync::SyncCost;

/// The backups that are compared, by the names that their figures have.
const KINDS: [&str; 5] = ["none", "mirror", "mirror_follow", "directory", "command"];

const COSTS: [(&str, SyncCost); 2] = [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000))];

fn backup(kind: &str, place: &Path) -> Backup {
    match kind {
        "mirror" => Backup::Mirror { is_required: true },
        "mirror_follow" => Backup::Mirror { is_required: false },
        "directory" => Backup::Directory { consolidate_every: 100 },
        "command" => Backup::Command(vec![example().to_owned(), place.display().to_string()]),
        _ => Backup::None,
    }
}

/// The program of `contrib/sinks.md`.
fn example() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/examples/keep-in-directory")
}

/// What payments are counted and timed by.
struct Measured<'a> {
    /// What the names of its figures begin with.
    name: &'a str,
    /// Syncs that are told with it.
    syncs: (&'static str, fn(&Round) -> f64),
    shape: Shape,
    window: usize,
    warm: Duration,
    secs: f64,
    most_per_second: usize,
}

impl Run<'_> {
    /// A hub with eight senders and eight receivers, and with the backup.
    pub(in crate::scenarios) async fn sinks_relay(&mut self) -> Done<()> {
        let syncs: fn(&Round) -> f64 = Round::hub_syncs_each;
        self.cost_of_sinks(&Measured {
            name: "sinks_relay_8",
            syncs: ("syncs of the hub each, its backup's among them", syncs),
            shape: Shape::Hub(8),
            window: 32,
            warm: Duration::from_secs(1),
            secs: 2.5,
            most_per_second: 1500 / 8,
        })
        .await
    }

    /// A sender that has the backup, and a receiver.
    pub(in crate::scenarios) async fn sinks_one_channel(&mut self) -> Done<()> {
        let syncs: fn(&Round) -> f64 = Round::all_syncs_each;
        self.cost_of_sinks(&Measured {
            name: "sinks_one_channel_32",
            syncs: ("syncs of both ends each, the backup's among them", syncs),
            shape: Shape::Pair,
            window: 32,
            warm: Duration::from_millis(500),
            secs: 2.0,
            most_per_second: 2000,
        })
        .await
    }

    async fn cost_of_sinks(&mut self, measured: &Measured<'_>) -> Done<()> {
        let directory = self.directory.join(measured.name);
        let mut stack = Outrigger::start(&directory, self.bitcoind, measured.shape, AMOUNT_MSAT).await?;
        let mut rounds: BTreeMap<(&str, &str), Vec<Round>> = BTreeMap::new();
        let mut number = 0;
        while self.has_time(number) {
            for kind in KINDS {
                let place = stack.new_place()?;
                stack.keep(&backup(kind, &place), &place).await?;
                for (label, cost) in COSTS {
                    let Measured { window, warm, secs, most_per_second, .. } = *measured;
                    let plan = Plan { window, cost, warm, time: self.secs(secs), most_per_second };
                    let found = round(&mut stack, plan).await?;
                    eprintln!("{} {label} {kind} round {number}: {}", measured.name, found.words());
                    rounds.entry((label, kind)).or_default().push(found);
                }
            }
            number += 1;
        }
        self.tell_cost_of_sinks(measured, &rounds);
        Ok(())
    }

    fn tell_cost_of_sinks(&mut self, measured: &Measured<'_>, rounds: &BTreeMap<(&str, &str), Vec<Round>>) {
        let Measured { name, syncs: (syncs_unit, syncs), .. } = *measured;
        for (label, _) in COSTS {
            let of = |kind: &'static str, value: fn(&Round) -> f64| -> Vec<f64> {
                rounds.get(&(label, kind)).into_iter().flatten().map(value).collect()
            };
            for kind in KINDS {
                let outrigger = of(kind, Round::per_second);
                let name_of_rate = format!("{name}_{label}_{kind}");
                let (unit, ldk) = (PER_SECOND, Vec::new());
                self.put(Figure { name: name_of_rate, unit, outrigger, ldk, more_is_better: true });
                self.put_of_outrigger(&format!("{name}_syncs_{label}_{kind}"), syncs_unit, of(kind, syncs));
            }
            // Round by round, for the machine is the same within one.
            let each = |value: fn(&Round) -> f64| -> Vec<f64> {
                of("mirror", value).into_iter().zip(of("none", value)).map(|(with, without)| with / without).collect()
            };
            let (kept, times) = (each(Round::per_second), each(syncs));
            self.put_of_outrigger(&format!("{name}_{label}_mirror_kept"), "share of the rate without a backup", kept);
            self.put_of_outrigger(
                &format!("{name}_syncs_{label}_mirror_times"),
                "times the syncs without a backup",
                times,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_but_none_has_a_backup_and_the_example_is_where_it_is_said_to_be() {
        let place = Path::new("/place");
        let without: Vec<_> = KINDS.into_iter().filter(|kind| backup(kind, place) == Backup::None).collect();
        assert_eq!(without, ["none"]);
        assert!(Path::new(example()).exists());
    }
}
