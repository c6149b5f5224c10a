//! What a lock names its process by, and what can be seen of that process from here.

use std::fmt;
use std::fs;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;

/// A process, told from a later one of the same id by its start time, in the kernel's ticks since boot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) started: Option<u64>,
    pub(super) place: Place,
}

/// Where the id of a process has a meaning, as far as that is known: a unit or a container may hide what tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The kernel's id of the boot of the machine.
    pub(super) boot: Option<String>,
    /// Stands for the machine: its id is told to nobody.
    pub(super) machine: Option<String>,
    /// The namespace of process ids, which a container has of its own.
    pub(super) namespace: Option<String>,
}

/// What is seen of the process that a lock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Lives,
    /// It has ended, or is ourselves.
    Over,
    /// It ran in another container, at another boot or on another machine: nobody here can tell. Nobody is refused for it: after a
    /// reboot, or where a container was made anew, it is what is left.
    Unseen,
}

impl Holder {
    pub(super) fn of_this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started: start_time(pid), place: Place::of_this_process() }
    }

    /// Pid and start time, and behind them the boot and the namespace where they are known.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let started = words.next().and_then(|word| word.parse().ok());
        let mut known = || words.next().filter(|word| *word != UNKNOWN).map(str::to_owned);
        let (boot, namespace) = (known(), known());
        let place = Place { boot, namespace, machine: known() };
        Some(Self { pid, started, place })
    }

    /// Whether this very process runs here, and is not the one that asks.
    pub(super) fn seen_by(&self, own: &Self) -> Standing {
        let (named, here) = (self.place.parts(), own.place.parts());
        // What one of them does not know tells nothing.
        let is_elsewhere =
            named.iter().zip(here).any(|(named, here)| named.zip(here).is_some_and(|(named, here)| named != here));
        if is_elsewhere {
            Standing::Unseen
        } else if self.pid == own.pid || self.started.is_none() || self.started != start_time(self.pid) {
            Standing::Over
        } else {
            Standing::Lives
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started.unwrap_or_default())?;
        self.place.parts().iter().try_for_each(|part| write!(f, " {}", part.unwrap_or(UNKNOWN)))
    }
}

/// What stands in a lock for what is not known.
const UNKNOWN: &str = "-";

impl Place {
    /// In the order in which a lock has them.
    fn parts(&self) -> [Option<&str>; 3] {
        [self.boot.as_deref(), self.namespace.as_deref(), self.machine.as_deref()]
    }

    pub(super) fn of_this_process() -> Self {
        let word = |text: &str| {
            Some(text.trim().to_owned()).filter(|word| !word.is_empty() && !word.contains(char::is_whitespace))
        };
        Self {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().and_then(|text| word(&text)),
            namespace: fs::read_link("/proc/self/ns/pid").ok().and_then(|link| word(link.to_str()?)),
            machine: fs::read_to_string("/etc/machine-id").ok().and_then(|text| word(&text)).map(|id| stands_for(&id)),
        }
    }
}

/// What is written for the id of a machine, which is not to be told (`machine-id(5)`).
pub(super) fn stands_for(machine: &str) -> String {
    let digest = sha256::Hash::hash(format!("outriggerd lock {machine}").as_bytes()).to_byte_array();
    digest.iter().take(8).copied().collect::<Vec<_>>().to_lower_hex_string()
}

/// When the process was started, where `/proc` tells and it has not ended. One that ended stays there until its parent has asked
/// for its exit code; it writes nothing more once none of its threads is left.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may hold anything; the state is the first word behind it, the start time the 20th.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut words = behind.split_whitespace();
    let is_dead = matches!(words.next()?, "Z" | "X");
    let has_threads = || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1);
    if is_dead && !has_threads() {
        return None;
    }
    words.nth(18)?.parse().ok()
}
