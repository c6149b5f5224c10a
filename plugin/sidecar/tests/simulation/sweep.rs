//! The crash sweep: short scripts, each run again for every write, sync and growth of a node's disk, with every kind of
//! damage, and for every effect that a commit released. Then the node starts from what is left, and all must be as if its
//! connections had been cut.
//!
//! `SWEEP_SECONDS=n` runs as many points as there is time for, `SWEEP_ALL=1` all of them, `SWEEP_SEED=n` another schedule
//! of the scripts and another order of the points. A failure prints the one command that replays its point.

mod points;
pub mod scripts;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use self::points::Point;
use self::scripts::{SCRIPTS, Script};
use super::number;
use super::world::Tracing;

/// Points where nobody says how many.
const POINTS: usize = 48;

/// What is released in some commit of some script, so that a kill comes before and after each. `Restored` is not: it comes
/// with the scripts of a restore. `Disconnect` and `Archived` end what they are about.
const RELEASED: &[&str] = &[
    "Send", "Revoke", "Publish", "Watch", "Incoming", "Settle", "Removed", "Reply", "Note", "Order", "Settled",
    "Chain", "Durable",
];

/// The points of all scripts under a seed, and what commits released in them.
fn every_point(seed: u64) -> (Vec<(&'static Script, Point)>, BTreeMap<&'static str, u64>) {
    let mut found = Vec::new();
    let mut released: BTreeMap<&str, u64> = BTreeMap::new();
    for script in SCRIPTS {
        let run = script.run(seed, None, Tracing::Off);
        for name in run.released.iter().flat_map(|(_, names)| names) {
            *released.entry(name).or_default() += 1;
        }
        found.extend(Point::all(script.name, &run).into_iter().map(|point| (script, point)));
    }
    (found, released)
}

fn replay(seed: u64, name: &str) {
    let (points, _) = every_point(seed);
    let (script, point) = points.iter().find(|(_, point)| point.to_string() == name).expect("a point of this seed");
    let tracing = if std::env::var_os("SIMULATION_TRACE").is_some() { Tracing::Shown } else { Tracing::Off };
    script.run(seed, Some(point), tracing);
    println!("crash sweep: {name} passes");
}

#[test]
fn crash_sweep_per_1_per_2_per_3_per_4_per_5_dsk_1_dsk_2_dsk_4_dsk_8_no_point_loses_or_closes_anything() {
    let seed = number("SWEEP_SEED").unwrap_or(0);
    if let Ok(name) = std::env::var("SWEEP_POINT") {
        return replay(seed, &name);
    }
    let begun = Instant::now();
    let (mut points, released) = every_point(seed);
    let all = points.len();
    points.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let until = number("SWEEP_SECONDS").map(|seconds| begun + Duration::from_secs(seconds));
    if until.is_none() && std::env::var_os("SWEEP_ALL").is_none() {
        points.truncate(POINTS);
    }
    let next = AtomicUsize::new(0);
    let (passed, failures) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    let run = || {
        while until.is_none_or(|until| Instant::now() < until) && failures.lock().unwrap().is_empty() {
            let Some((script, point)) = points.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match catch_unwind(AssertUnwindSafe(|| script.run(seed, Some(point), Tracing::Off))) {
                Ok(_) => *passed.lock().unwrap().entry(point.kind()).or_insert(0) += 1,
                Err(_) => failures.lock().unwrap().push(point.to_string()),
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for number in 0..workers {
            let worker = std::thread::Builder::new().name(format!("sweep-{number}"));
            worker.spawn_scoped(scope, run).unwrap();
        }
    });
    let passed: BTreeMap<&str, usize> = passed.into_inner().unwrap();
    let swept: usize = passed.values().sum();
    println!("crash sweep: {swept} points of {all}, {} scripts, seed {seed}; {passed:?}", SCRIPTS.len());
    println!("crash sweep: effects that kills came between: {released:?}");
    if let Some(point) = failures.into_inner().unwrap().first() {
        let test = "cargo test -p outriggerd --test simulation crash_sweep";
        panic!("point {point} fails; replay it: SWEEP_SEED={seed} SWEEP_POINT={point} {test}");
    }
    for name in RELEASED {
        assert!(released.contains_key(name), "no script releases {name}");
    }
    assert!(swept > 0, "no point was run");
}

#[test]
fn a_point_of_the_sweep_gives_the_same_run_each_time() {
    let (points, _) = every_point(0);
    for at in [0, points.len() / 3, points.len() * 2 / 3] {
        let (script, point) = &points[at];
        let [first, second] = [(); 2].map(|()| script.run(0, Some(point), Tracing::Digested).digest);
        assert_eq!(first, second, "{point}");
    }
}
