//! The points at which a script is interrupted.

use std::fmt;

use super::super::disk::{Damage, Failing, File, Operation};
use super::super::world::World;
use super::script::Run;

/// Operations of what follows a crash within which the machine stops for the second time: a start has some thirty.
const SECOND: u64 = 36;

/// What goes wrong at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The machine stops at this operation of the disk, on whichever file.
    Crash { operation: u64, damage: Damage },
    /// It does, and once more while the start repairs what is left.
    Twice { operation: u64, second: u64 },
    /// The process dies there and the machine goes on, until it stops later: of what was written since the last sync before both,
    /// this is left.
    Later { operation: u64, second: u64, damage: Damage },
    /// The disk refuses this operation; `was_sync` where nobody knows then what is on it.
    Refused { operation: u64, failing: Failing, was_sync: bool },
    /// The process ends after this commit, when so many of its effects are delivered.
    Killed { commit: usize, keep: usize },
    /// The machine stops where the node does something for its backup, or the backup for it: before, or after.
    Stopped { act: usize, is_after: bool },
}

/// A point of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    script: &'static str,
    node: usize,
    fault: Fault,
    /// Not where the product gets over what goes wrong.
    pub must_fall: bool,
}

/// What of a later stop is left, each in its turn.
fn damage_of(operation: u64) -> Damage {
    Damage::ALL[(operation % Damage::ALL.len() as u64) as usize]
}

/// The faults at one operation.
fn at(operation: u64, (file, asked): (File, Operation)) -> Vec<(Fault, bool)> {
    let mut faults: Vec<_> = Damage::ALL.map(|damage| (Fault::Crash { operation, damage }, true)).into_iter().collect();
    faults.push((Fault::Twice { operation, second: operation % SECOND }, true));
    let (second, damage) = ((operation * 7 + 3) % SECOND, damage_of(operation));
    faults.push((Fault::Later { operation, second, damage }, true));
    let was_sync = asked == Operation::Sync;
    let refused = |failing, must_fall| (Fault::Refused { operation, failing, was_sync }, must_fall);
    faults.extend([Failing::Once, Failing::ForEver].map(|failing| refused(failing, true)));
    // The number of the generation may wait for room, and nothing may be written after it.
    let must_fall = file != File::Unfinished;
    let takes_room = matches!(asked, Operation::Write | Operation::Grow);
    faults.extend(takes_room.then(|| refused(Failing::Full, must_fall)));
    faults
}

impl Point {
    /// Every point of a script, of which this is a run without any.
    pub fn all(script: &'static str, run: &Run) -> Vec<Self> {
        let mut faults = Vec::new();
        for (node, operations) in run.operations.iter().enumerate() {
            let each = (0..).zip(operations).flat_map(|(operation, asked)| at(operation, *asked));
            faults.extend(each.map(|(fault, must_fall)| (node, fault, must_fall)));
        }
        let mut commits = vec![0; run.operations.len()];
        for (node, released) in &run.released {
            let commit = commits[*node];
            commits[*node] += 1;
            faults.extend((0..=released.len()).map(|keep| (*node, Fault::Killed { commit, keep }, true)));
        }
        for (node, acts) in &run.acts {
            let both = |act| [false, true].map(|is_after| (*node, Fault::Stopped { act, is_after }, true));
            faults.extend((0..*acts).flat_map(both));
        }
        faults.into_iter().map(|(node, fault, must_fall)| Self { script, node, fault, must_fall }).collect()
    }

    /// Whether two runs without any fault come by it alike. Signatures of other signers have other lengths, so their pages may be
    /// filled otherwise.
    pub fn is_alike(&self, one: &Run, other: &Run) -> bool {
        match self.fault {
            Fault::Crash { operation, .. }
            | Fault::Twice { operation, .. }
            | Fault::Later { operation, .. }
            | Fault::Refused { operation, .. } => {
                let asked = |run: &Run| run.operations[self.node].get(operation as usize).copied();
                asked(one) == asked(other)
            }
            Fault::Killed { commit, .. } => {
                let released = |run: &Run| run.released.iter().filter(|(of, _)| *of == self.node).nth(commit).cloned();
                released(one) == released(other)
            }
            Fault::Stopped { .. } => one.acts.get(&self.node) == other.acts.get(&self.node),
        }
    }

    /// What kind of fault it is.
    pub fn kind(&self) -> &'static str {
        match self.fault {
            Fault::Crash { damage, .. } => match damage {
                Damage::Kept | Damage::Cached => "kept",
                Damage::Dropped => "dropped",
                Damage::Torn(512) => "torn-512",
                Damage::Torn(_) => "torn-4096",
                Damage::Reordered => "reordered",
            },
            Fault::Twice { .. } => "twice",
            Fault::Later { .. } => "later",
            Fault::Refused { failing: Failing::Power | Failing::Once, .. } => "refused-once",
            Fault::Refused { failing: Failing::ForEver, .. } => "refused-for-ever",
            Fault::Refused { failing: Failing::Full, .. } => "full",
            Fault::Killed { .. } => "killed",
            Fault::Stopped { .. } => "backup",
        }
    }

    /// Whether the process of this node ends after a commit.
    pub fn is_kill_of(&self, node: usize) -> bool {
        self.node == node && matches!(self.fault, Fault::Killed { .. })
    }

    /// From here on the fault lies ahead.
    pub fn prepare(&self, world: &mut World) {
        let disk = &world.nodes[self.node].disk;
        let plan = &mut world.plan;
        match self.fault {
            Fault::Crash { operation, damage } => {
                disk.fail_after(operation, Failing::Power);
                plan.damage = damage;
            }
            Fault::Twice { operation, second } => {
                disk.fail_after(operation, Failing::Power);
                (plan.damage, plan.again) = (Damage::Reordered, Some((second, Damage::Reordered)));
            }
            Fault::Later { operation, second, damage } => {
                disk.fail_after(operation, Failing::Power);
                (plan.damage, plan.again) = (Damage::Cached, Some((second, damage)));
            }
            Fault::Refused { operation, failing, was_sync } => {
                disk.fail_after(operation, failing);
                plan.damage = if was_sync { Damage::Reordered } else { Damage::Kept };
            }
            Fault::Killed { commit, keep } => plan.killed = Some((self.node, commit, keep)),
            Fault::Stopped { act, is_after } => {
                (plan.damage, plan.stopped) = (Damage::Reordered, Some((self.node, act, is_after)));
            }
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/", self.script, self.node)?;
        match self.fault {
            Fault::Crash { operation, .. }
            | Fault::Twice { operation, .. }
            | Fault::Later { operation, .. }
            | Fault::Refused { operation, .. } => write!(f, "{operation}/{}", self.kind()),
            Fault::Killed { commit, keep } => write!(f, "commit-{commit}/{}-{keep}", self.kind()),
            Fault::Stopped { act, is_after } => {
                write!(f, "act-{act}/{}-{}", self.kind(), if is_after { "after" } else { "before" })
            }
        }
    }
}
