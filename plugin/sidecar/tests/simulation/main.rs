//! Whole nodes in one thread: manager, payments and store over a simulated disk, network, chain and clock. A seed decides
//! the order of all that happens, what goes wrong, and when nodes die.
//!
//! All along: money is conserved to the msat; no secret leaves early; nothing is signed for a revoked state; an HTLC has
//! one outcome on both edges of a relay and for payer and payee; no channel fails. And after healing everything is resolved,
//! and every channel can pay again.
//!
//! In half of the seeds nodes have backups, of which each behaves in a way of its own (`behaviours.rs`). One that refuses a channel
//! costs that channel and no other; a disk that dies costs its node's channels (`losses.rs`): their peers close them, nobody
//! publishes what is revoked, and everybody takes what is his (`aftermath.rs`).
//!
//! A failure prints its seed. `SIMULATION_SEED=n` replays that one, with `SIMULATION_TRACE=1` line by line;
//! `SIMULATION_SEEDS=n` runs so many, `SIMULATION_SECONDS=n` as many as there is time for. One seed of four has the daemon's
//! signers, the others fake ones (`fake.rs`), which changes nothing of what happens; `SIMULATION_SIGNERS=real` or `fake` gives
//! them to all. With `SIMULATION_GO_ON=1` a run goes on behind a failure, and names every seed that fails.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "the modules of one test")]

mod aftermath;
mod backup;
mod behaviours;
mod chain;
mod clock;
mod disk;
mod fake;
mod faults;
#[path = "../../../channel/tests/layered/mod.rs"]
mod layered;
mod ledger;
mod losses;
mod machine;
mod network;
mod node;
mod orders;
mod payments;
mod remaking;
mod rows;
mod sample;
mod schedule;
mod seen;
mod signer;
mod sinks;
mod stopped;
mod stops;
mod sweep;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schedule::simulate;
use signer::Signing;
use world::{Counts, Tracing};

/// Seeds where nobody says how many.
const SEEDS: u64 = 24;

/// What must have happened over so many seeds.
const KINDS: &[&str] = &[
    "channels",
    "payments succeeded",
    "payments failed",
    "relays",
    "crashes",
    "disconnects",
    "fee changes",
    "blocks",
    "replays",
    "channels paid over again",
    "channels closed",
    "payments split",
    "payments tried again",
    "keysend payments succeeded",
    "payments abandoned",
    "channels opened amid all else",
    "reorganisations",
    "checkpoints",
    "required backups",
    "backups that follow",
];

/// As many seeds as have had everything.
const MANY: u64 = 400;

/// What must have happened over so many.
const KINDS_OF_MANY: &[&str] = &[
    "prompt backups",
    "slow backups",
    "failing backups",
    "refusing backups",
    "backups that complete what they do not keep",
    "backups that forget",
    "backups that complete twice",
    "backups that tell too little",
    "backups that tell too much",
    "backups away",
    "backups that forgot",
    "backups replaced",
    "channels stalled",
    "channels that a backup refuses",
    "channels ended alone",
    "nodes that a lie puts into restored mode",
    "restores from a stale backup",
    "restores from a backup as it is",
    "restores that know all that was told",
    "restores that know less than was told",
    "balances that came home after a loss",
    "disks that refuse one operation",
    "disks that refuse all from some operation on",
    "full disks",
];

/// Who signs in the world of this seed.
fn signing(seed: u64) -> Signing {
    match std::env::var("SIMULATION_SIGNERS").as_deref() {
        Ok("real") => Signing::Real,
        Ok("fake") => Signing::Fake,
        Ok(other) => panic!("SIMULATION_SIGNERS={other}"),
        Err(_) => Signing::of(seed),
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Which seeds are run.
struct Share {
    next: AtomicU64,
    last: u64,
    until: Option<Instant>,
    failed: AtomicBool,
}

impl Share {
    fn from_environment() -> Self {
        let seed = number("SIMULATION_SEED");
        let until = number("SIMULATION_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let first = seed.unwrap_or_else(|| number("SIMULATION_FIRST").unwrap_or(0));
        let seeds = match (seed, until) {
            (Some(_), _) => 1,
            (None, Some(_)) => number("SIMULATION_SEEDS").unwrap_or(u64::MAX - first),
            (None, None) => number("SIMULATION_SEEDS").unwrap_or(SEEDS),
        };
        Self { next: AtomicU64::new(first), last: first + seeds, until, failed: AtomicBool::new(false) }
    }

    fn take(&self) -> Option<u64> {
        if self.failed.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        (seed < self.last).then_some(seed)
    }
}

#[test]
fn every_seed_keeps_the_laws_and_heals_per_2_bak_1_bak_2_dsk_1_dsk_8() {
    let tracing = if std::env::var_os("SIMULATION_TRACE").is_some() { Tracing::Shown } else { Tracing::Off };
    let goes_on = std::env::var_os("SIMULATION_GO_ON").is_some();
    let share = Share::from_environment();
    let total = Mutex::new(([0u64; 2], Counts::default()));
    let failures = Mutex::new(Vec::new());
    let run = || {
        while let Some(seed) = share.take() {
            let signing = signing(seed);
            match catch_unwind(AssertUnwindSafe(|| simulate(seed, signing, tracing))) {
                Ok((counts, _)) => {
                    let mut total = total.lock().unwrap();
                    total.0[signing as usize] += 1;
                    total.1.merge(&counts);
                }
                Err(_) => {
                    share.failed.store(!goes_on, Ordering::Relaxed);
                    failures.lock().unwrap().push(seed);
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for number in 0..workers {
            let worker = std::thread::Builder::new().name(format!("worlds-{number}"));
            worker.spawn_scoped(scope, run).unwrap();
        }
    });
    let ([real, fake], counts) = total.into_inner().unwrap();
    let seeds = real + fake;
    println!("simulation: {seeds} seeds ({real} with real signers and {fake} with fake ones), {:?}", counts.0);
    let failures = failures.into_inner().unwrap();
    if let Some(seed) = failures.first() {
        println!("simulation: seeds that fail: {failures:?}");
        panic!("seed {seed} fails; replay it: SIMULATION_SEED={seed} cargo test --workspace --test simulation");
    }
    for (least, kinds) in [(SEEDS, KINDS), (MANY, KINDS_OF_MANY)] {
        for kind in kinds.iter().filter(|_| seeds >= least) {
            assert!(counts.0.get(kind).is_some_and(|count| *count > 0), "no seed had {kind}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_schedule_each_time() {
    for seed in 0..3 {
        let [first, second] = [(); 2].map(|()| simulate(seed, signing(seed), Tracing::Digested).1);
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_schedule_whoever_signs() {
    for seed in 0..3 {
        let [real, fake] = [Signing::Real, Signing::Fake].map(|signing| simulate(seed, signing, Tracing::Digested).1);
        assert_eq!(real, fake, "seed {seed}");
    }
}
