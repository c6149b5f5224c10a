//! The points at which a script is interrupted.

use std::fmt;

use super::super::disk::{Damage, Failing, Operation};
use super::super::world::World;
use super::scripts::Run;

/// Operations of a start within which the second of two crashes comes.
const SECOND: u64 = 16;

/// What goes wrong at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The machine stops at this operation of the disk, on whichever file.
    Crash { operation: u64, damage: Damage },
    /// It does, and once more while the start repairs what is left.
    Twice { operation: u64, second: u64 },
    /// The disk refuses this operation; `was_sync` where nobody knows then what is on it.
    Refused { operation: u64, failing: Failing, was_sync: bool },
    /// The process ends after this commit, when so many of its effects are delivered.
    Killed { commit: usize, keep: usize },
}

/// A point of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    script: &'static str,
    node: usize,
    fault: Fault,
}

impl Point {
    /// Every point of a script, of which this is a run without any.
    pub fn all(script: &'static str, run: &Run) -> Vec<Self> {
        let mut faults = Vec::new();
        for (node, operations) in run.operations.iter().enumerate() {
            for (operation, asked) in (0..).zip(operations) {
                faults.extend(Damage::ALL.map(|damage| (node, Fault::Crash { operation, damage })));
                faults.push((node, Fault::Twice { operation, second: operation % SECOND }));
                let was_sync = *asked == Operation::Sync;
                let refused = |failing| (node, Fault::Refused { operation, failing, was_sync });
                faults.extend([Failing::Once, Failing::ForEver].map(refused));
                faults.extend((*asked == Operation::Grow).then(|| refused(Failing::Full)));
            }
        }
        let mut commits = vec![0; run.operations.len()];
        for (node, released) in &run.released {
            let commit = commits[*node];
            commits[*node] += 1;
            faults.extend((0..=released.len()).map(|keep| (*node, Fault::Killed { commit, keep })));
        }
        faults.into_iter().map(|(node, fault)| Self { script, node, fault }).collect()
    }

    /// What kind of fault it is.
    pub fn kind(&self) -> &'static str {
        match self.fault {
            Fault::Crash { damage: Damage::Kept, .. } => "kept",
            Fault::Crash { damage: Damage::Dropped, .. } => "dropped",
            Fault::Crash { damage: Damage::Torn(512), .. } => "torn-512",
            Fault::Crash { damage: Damage::Torn(_), .. } => "torn-4096",
            Fault::Crash { damage: Damage::Reordered, .. } => "reordered",
            Fault::Twice { .. } => "twice",
            Fault::Refused { failing: Failing::Power | Failing::Once, .. } => "refused-once",
            Fault::Refused { failing: Failing::ForEver, .. } => "refused-for-ever",
            Fault::Refused { failing: Failing::Full, .. } => "full",
            Fault::Killed { .. } => "killed",
        }
    }

    /// From here on the fault lies ahead.
    pub fn prepare(&self, world: &mut World) {
        let disk = &world.nodes[self.node].disk;
        match self.fault {
            Fault::Crash { operation, damage } => {
                disk.fail_after(operation, Failing::Power);
                world.plan.damage = damage;
            }
            Fault::Twice { operation, second } => {
                disk.fail_after(operation, Failing::Power);
                world.plan.damage = Damage::Reordered;
                world.plan.again = Some(second);
            }
            Fault::Refused { operation, failing, was_sync } => {
                disk.fail_after(operation, failing);
                world.plan.damage = if was_sync { Damage::Reordered } else { Damage::Kept };
            }
            Fault::Killed { commit, keep } => world.plan.killed = Some((self.node, commit, keep)),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.script, self.node)?;
        match self.fault {
            Fault::Crash { operation, .. } | Fault::Twice { operation, .. } | Fault::Refused { operation, .. } => {
                write!(f, "{operation}/{}", self.kind())
            }
            Fault::Killed { commit, keep } => write!(f, "commit-{commit}/{}-{keep}", self.kind()),
        }
    }
}
