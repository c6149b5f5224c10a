//! The targets on any toolchain: seeds of the corpus, and inputs that a number repeats.
//!
//! `outrigger-fuzz run [--seconds N] [--seed N] [TARGET...]`, `replay TARGET FILE`, `list [without-daemon]`, `seeds`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use outrigger_fuzz::corpus;
use outrigger_fuzz::mutation::{self, Random};
use outrigger_fuzz::targets::{self, Target};

/// Exit code of a run that found something.
const FOUND: i32 = 1;
/// Exit code of a call that was not understood.
const USAGE: i32 = 2;

const HELP: &str = "outrigger-fuzz run [--seconds N] [--seed N] [TARGET...]
    each of the targets, or all, for its share of N seconds (60), with inputs made from the seed (1)
outrigger-fuzz replay TARGET FILE...
    one input each
outrigger-fuzz list [without-daemon]
    the names of the targets, or of those that a build without the daemon has
outrigger-fuzz seeds
    writes corpus/TARGET/valid-*";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["list"] => targets::all().iter().for_each(|target| println!("{}", target.name)),
        ["list", "without-daemon"] => targets::names_without_daemon().iter().for_each(|name| println!("{name}")),
        ["seeds"] => write_seeds(),
        ["replay", name, files @ ..] => replay(name, files),
        ["run", rest @ ..] => run(rest),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("{HELP}");
    exit(USAGE)
}

fn write_seeds() {
    for target in targets::all() {
        match corpus::write(target) {
            Ok(count) => println!("{}: {count}", target.name),
            Err(fault) => fail(&format!("{}: {fault}", target.name)),
        }
    }
}

fn named(name: &str) -> &'static Target {
    targets::named(name).unwrap_or_else(|| fail(&format!("there is no target {name}; see outrigger-fuzz list")))
}

fn fail(message: &str) -> ! {
    eprintln!("outrigger-fuzz: {message}");
    exit(USAGE)
}

fn replay(name: &str, files: &[&str]) {
    let target = named(name);
    for file in files {
        let input = std::fs::read(file).unwrap_or_else(|fault| fail(&format!("{file}: {fault}")));
        target.run(&input);
        println!("{name}: {file}: nothing found");
    }
}

fn run(arguments: &[&str]) {
    let (mut seconds, mut seed, mut chosen) = (60, 1, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| usage());
        match *argument {
            "--seconds" => seconds = number(),
            "--seed" => seed = number(),
            name => chosen.push(named(name)),
        }
    }
    if chosen.is_empty() {
        chosen.extend(targets::all());
    }
    watch();
    report_panics();
    let share = Duration::from_secs(seconds) / u32::try_from(chosen.len()).unwrap_or(u32::MAX);
    let (begun, mut inputs) = (Instant::now(), 0);
    for target in &chosen {
        inputs += run_one(target, seed, share);
    }
    println!(
        "outrigger-fuzz: {} targets, {inputs} inputs, nothing found; seed {seed}, {} s",
        chosen.len(),
        begun.elapsed().as_secs()
    );
}

/// Runs one target for a while: its seeds once, whatever the time, then others.
fn run_one(target: &'static Target, seed: u64, share: Duration) -> u64 {
    let seeds = corpus::read(target).unwrap_or_else(|fault| fail(&format!("the corpus of {}: {fault}", target.name)));
    // Each target has its own row of inputs, whichever others run.
    let salt = target.name.bytes().fold(seed, |mixed, byte| mixed.rotate_left(7) ^ u64::from(byte));
    let mut random = Random::new(salt);
    let (begun, mut count) = (Instant::now(), 0);
    for input in &seeds {
        run_input(target, input);
        count += 1;
    }
    while begun.elapsed() < share {
        let input = mutation::input(&mut random, &seeds);
        run_input(target, &input);
        count += 1;
    }
    println!("{:<34} {count:>9} inputs", target.name);
    count
}

/// The input that runs now, for whoever has to tell of it.
static CURRENT: Mutex<Option<(&'static Target, Vec<u8>, Instant)>> = Mutex::new(None);

fn run_input(target: &'static Target, input: &[u8]) {
    set_current(Some((target, input.to_vec(), Instant::now())));
    target.run(input);
    set_current(None);
}

fn set_current(current: Option<(&'static Target, Vec<u8>, Instant)>) {
    *CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = current;
}

/// A panic anywhere ends the run: the input is kept, and the command that replays it is said.
fn report_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        found("it panicked");
    }));
}

/// Ends the process when one input takes too long.
fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let current = CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let late = current.as_ref().is_some_and(|(target, _, begun)| begun.elapsed() > target.limit);
            drop(current);
            if late {
                found("it takes too long");
            }
        }
    });
}

fn found(what: &str) -> ! {
    let current = CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    let Some((target, input, _)) = current else { exit(FOUND) };
    let path = keep(target, &input);
    let manifest = corpus::home().join("Cargo.toml");
    eprintln!("outrigger-fuzz: FOUND: {}: {what}, for {} bytes. Replay it:", target.name, input.len());
    eprintln!(
        "  cargo run --manifest-path {} --bin outrigger-fuzz -- replay {} {}",
        manifest.display(),
        target.name,
        path.display()
    );
    let _ = std::io::stderr().flush();
    exit(FOUND)
}

fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let folder = corpus::home().join("artifacts");
    let digest = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |mixed, byte| (mixed ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let path = folder.join(format!("{}-{digest:016x}", target.name));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    if let Err(fault) = kept {
        eprintln!("outrigger-fuzz: the input could not be kept: {fault}: {}", hex(input));
        return Path::new("-").to_owned();
    }
    path
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
