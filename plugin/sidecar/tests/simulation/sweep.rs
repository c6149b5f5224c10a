//! The crash sweep: short scripts, each run again for every write, sync, growth and rename of a node's disk, with every kind of
//! damage, for every effect that a commit released, and for everything that is done for a backup. Then the node starts from what
//! is left, and all must be as if its connections had been cut.
//!
//! `SWEEP_SECONDS=n` runs as many points as there is time for, `SWEEP_ALL=1` all of them, `SWEEP_SEED=n` another schedule
//! of the scripts and another order of the points, `SWEEP_SCRIPT=name` those of one script. With `SWEEP_GO_ON=1` it goes on
//! after a failure and names all. A failure prints the one command that
//! replays its point. One point of four has the daemon's signers, the others fake ones (`fake.rs`).

mod points;
mod refused;
mod script;
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
use self::refused::REFUSALS;
use self::script::Script;
use self::scripts::{FIVE_PARTS, LOSER, SCRIPTS};
use super::number;
use super::signer::Signing;
use super::world::Tracing;

/// Points between two lines that tell how far it is.
const PROGRESS_EVERY: usize = 5000;

/// Points where nobody says how many.
const POINTS: usize = 48;

/// Each variant of an effect, and of what else waits for a commit: some script releases it, so that a kill comes before and
/// after each.
const RELEASED: &[&str] = &[
    "Send",
    "Revoke",
    "Disconnect",
    "Publish",
    "Restored",
    "Watch",
    "Incoming",
    "Settle",
    "Removed",
    "Reply",
    "Note",
    "Order",
    "Settled",
    "Archived",
    "Chain",
    "Durable",
];

/// Of so many points one has real signers.
const REAL_EVERY: usize = 4;

/// Who signs at the point of this number, where the schedule allows for either. Points of every kind have either.
fn signing(number: usize) -> Signing {
    if number.is_multiple_of(REAL_EVERY) { Signing::Real } else { Signing::Fake }
}

/// A point of a script, and who signs there.
type Task = (&'static Script, Point, Signing);

fn every_script() -> impl Iterator<Item = &'static Script> {
    SCRIPTS.iter().chain(REFUSALS)
}

/// How often each variant was given out.
type Given = BTreeMap<&'static str, u64>;

/// The points of all scripts under a seed, or of one, each with who signs; and what commits released in them, and what was told
/// before its commit: only between those of a commit and their delivery comes a kill.
fn every_point(seed: u64, only: Option<&str>) -> (Vec<Task>, [Given; 2]) {
    let mut found = Vec::new();
    let mut given = [Given::new(), Given::new()];
    for script in every_script().filter(|script| only.is_none_or(|only| only == script.name)) {
        let run = script.run(seed, None, Signing::Fake, Tracing::Off);
        let real = script.run(seed, None, Signing::Real, Tracing::Off);
        run.released.iter().flat_map(|(_, names)| names).for_each(|name| *given[0].entry(name).or_default() += 1);
        run.ordered.iter().for_each(|name| *given[1].entry(name).or_default() += 1);
        let points = Point::all(script.name, &run);
        println!("crash sweep: script {} has {} points", script.name, points.len());
        found.extend(points.into_iter().enumerate().map(|(number, point)| {
            let signing = if point.is_alike(&run, &real) { signing(number) } else { Signing::Fake };
            (script, point, signing)
        }));
    }
    (found, given)
}

fn replay(seed: u64, name: &str) {
    let (points, _) = every_point(seed, name.split('/').next());
    let found = points.iter().find(|(_, point, _)| point.to_string() == name);
    let (script, point, signing) = found.expect("a point of this seed");
    let tracing = if std::env::var_os("SIMULATION_TRACE").is_some() { Tracing::Shown } else { Tracing::Off };
    script.run(seed, Some(point), *signing, tracing);
    println!("crash sweep: {name} passes");
}

/// What came of points.
struct Swept {
    /// How many passed, by their kinds.
    passed: BTreeMap<&'static str, usize>,
    failures: Vec<String>,
}

impl Swept {
    fn count(&self) -> usize {
        self.passed.values().sum()
    }

    fn assert_none_fails(&self, seed: u64) {
        let Self { failures, .. } = self;
        if failures.len() > 1 {
            println!("crash sweep: {} points fail: {}", failures.len(), failures.join(" "));
        }
        if let Some(point) = failures.first() {
            let test = "cargo test --workspace --test simulation crash_sweep";
            panic!("point {point} fails; replay it: SWEEP_SEED={seed} SWEEP_POINT={point} {test}");
        }
    }
}

/// Runs points, in as many threads as there are processors, until the first fails.
fn sweep(seed: u64, points: &[Task], until: Option<Instant>) -> Swept {
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let (passed, failures) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    let goes_on = std::env::var_os("SWEEP_GO_ON").is_some();
    let run = || {
        while until.is_none_or(|until| Instant::now() < until) && (goes_on || failures.lock().unwrap().is_empty()) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((script, point, signing)) = points.get(number) else { return };
            if number > 0 && number.is_multiple_of(PROGRESS_EVERY) {
                println!("crash sweep: {number} of {} points begun, {} s", points.len(), begun.elapsed().as_secs());
            }
            match catch_unwind(AssertUnwindSafe(|| script.run(seed, Some(point), *signing, Tracing::Off))) {
                Ok(_) => *passed.lock().unwrap().entry(point.kind()).or_insert(0) += 1,
                Err(_) => {
                    println!("crash sweep: point {point} fails");
                    failures.lock().unwrap().push(point.to_string());
                }
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
    Swept { passed: passed.into_inner().unwrap(), failures: failures.into_inner().unwrap() }
}

#[test]
fn crash_sweep_per_1_per_2_per_3_per_4_per_5_dsk_1_dsk_2_dsk_4_dsk_8_no_point_loses_or_closes_anything() {
    let seed = number("SWEEP_SEED").unwrap_or(0);
    if let Ok(name) = std::env::var("SWEEP_POINT") {
        return replay(seed, &name);
    }
    let begun = Instant::now();
    let only = std::env::var("SWEEP_SCRIPT").ok();
    let (mut points, [released, ordered]) = every_point(seed, only.as_deref());
    let all = points.len();
    points.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let until = number("SWEEP_SECONDS").map(|seconds| begun + Duration::from_secs(seconds));
    if until.is_none() && std::env::var_os("SWEEP_ALL").is_none() {
        points.truncate(POINTS);
    }
    let swept = sweep(seed, &points, until);
    let seconds = begun.elapsed().as_secs();
    let (count, scripts) = (swept.count(), every_script().count());
    println!("crash sweep: {count} points of {all}, {scripts} scripts, seed {seed}, {seconds} s; {:?}", swept.passed);
    println!("crash sweep: effects that kills came between: {released:?}; told before their commits: {ordered:?}");
    swept.assert_none_fails(seed);
    for name in RELEASED.iter().filter(|_| only.is_none()) {
        assert!(released.contains_key(name), "no script releases {name} behind its commit");
    }
    assert!(count > 0, "no point was run");
}

/// PER-1: the payee's process ends after each commit of a claim of five parts over five channels, with each number of its effects
/// delivered. All parts are claimed or none is, and payer and payee say the same of it.
#[test]
fn per_1_a_claim_of_five_parts_over_five_channels_outlives_a_kill_at_each_commit() {
    let (mut points, _) = every_point(0, Some(FIVE_PARTS));
    points.retain(|(_, point, _)| point.is_kill_of(LOSER));
    let swept = sweep(0, &points, None);
    swept.assert_none_fails(0);
    assert_eq!(swept.count(), points.len());
    println!("crash sweep: {} kills of the payee of five parts", points.len());
}

#[test]
fn a_point_of_the_sweep_gives_the_same_run_each_time() {
    let (points, _) = every_point(0, None);
    for at in [0, points.len() / 3, points.len() * 2 / 3] {
        let (script, point, signing) = &points[at];
        let [first, second] = [(); 2].map(|()| script.run(0, Some(point), *signing, Tracing::Digested).digest);
        assert_eq!(first, second, "{point}");
    }
}
