//! What the program itself makes of a data directory that is damaged, cut, empty, another's or in use: words, exit code 1, and not a
//! byte changed; whichever of its three files it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic wherever it likes")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_sidecar::key::Seed;
use outrigger_sidecar::store::{FILE, generation, journal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LIMIT: Duration = Duration::from_secs(60);
const PAGE: usize = 4096;
const FILES: [&str; 3] = [FILE, journal::FILE, generation::FILE];

/// What came of a start.
#[derive(Debug)]
enum Start {
    /// Its interface is there.
    Runs,
    Refused(Option<i32>, String),
}

/// A data directory that a node had, and what stood in it.
struct Left {
    dir: tempfile::TempDir,
    whole: Vec<Vec<u8>>,
}

impl Left {
    /// What a kill leaves: the journal has what the database may lack.
    fn by_a_kill() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = network_directory(dir.path(), "regtest");
        generation::make_directory(&network).unwrap();
        Seed::create(&network, || Ok([5; 32])).unwrap();
        let mut left = Self { dir, whole: Vec::new() };
        // Once: a second one would take in what the journal has, and begin no epoch before its first commit.
        assert!(matches!(left.start("regtest"), Start::Runs));
        left.whole = FILES.map(|name| fs::read(left.place(name)).unwrap()).into();
        left
    }

    fn place(&self, name: &str) -> PathBuf {
        network_directory(self.dir.path(), "regtest").join(name)
    }

    /// Puts back what was there, but for one file that has these bytes.
    fn with(&self, changed: &str, bytes: &[u8]) {
        for (name, whole) in FILES.iter().zip(&self.whole) {
            fs::write(self.place(name), if *name == changed { bytes } else { whole }).unwrap();
        }
    }

    fn start(&self, network: &str) -> Start {
        started(self.dir.path(), network)
    }

    /// A start over these bytes is refused in words, and changes nothing; or it runs, where that is allowed.
    fn is_refused(&self, name: &str, bytes: &[u8], what: &str) -> bool {
        self.with(name, bytes);
        let before = self.files();
        let (code, said) = match self.start("regtest") {
            Start::Runs => return false,
            Start::Refused(code, said) => (code, said),
        };
        assert_eq!(code, Some(1), "{name} {what}: {said}");
        let is_clear = [
            "do not delete it",
            "ask for help",
            "Make sure that",
            "Put back",
            "put it back",
            "newer version",
            "belongs to",
        ];
        assert!(is_clear.iter().any(|words| said.contains(words)), "{name} {what}: {said}");
        assert!(said.contains(name) && !said.contains("panicked"), "{name} {what}: {said}");
        assert!(self.files() == before, "{name} {what}: a file was changed");
        true
    }

    /// The three files, and the names of all others.
    fn files(&self) -> (Vec<Vec<u8>>, Vec<String>) {
        let names =
            fs::read_dir(self.place("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        // What callers find a node by is made at each start.
        let mut names: Vec<_> =
            names.filter(|name| !["lock", ".cookie", ADDRESS_FILE].contains(&name.as_str())).collect();
        names.sort();
        (FILES.map(|name| fs::read(self.place(name)).unwrap()).into(), names)
    }
}

/// Starts the program and waits until its interface is there or it has ended; one that runs is killed.
fn started(dir: &Path, network: &str) -> Start {
    let address = network_directory(dir, network).join(ADDRESS_FILE);
    drop(fs::remove_file(&address));
    let mut child = Command::new(env!("CARGO_BIN_EXE_outriggerd"))
        .args(["--network", network, "--bitcoind-url", "127.0.0.1:1", "--listen", "127.0.0.1:0"])
        .args(["--rpc-address", "127.0.0.1:0", "--log-level", "error", "--data-dir"])
        .arg(dir)
        .env("HOME", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Start::Refused(status.code(), said(&mut child));
        }
        if is_open(&address) {
            child.kill().unwrap();
            child.wait().unwrap();
            return Start::Runs;
        }
        assert!(begun.elapsed() < LIMIT, "it neither runs nor ends");
        std::thread::yield_now();
    }
}

/// Whether the node behind the interface has read its files. It has written to its journal then.
fn is_open(address: &Path) -> bool {
    let Some(directory) = address.parent().filter(|_| address.exists()) else { return false };
    let Ok(client) = outrigger_rpc_schema::Client::in_directory(directory) else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let invoice = outrigger_rpc_schema::InvoiceCreate { description: "oars".to_owned(), ..Default::default() };
    runtime.block_on(client.call(invoice)).is_ok()
}

fn said(child: &mut Child) -> String {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn bad_input_91_dsk_9_dsk_11_each_file_cut_behind_any_page_or_empty_or_zeroes_is_refused_by_the_program() {
    let left = Left::by_a_kill();
    for (name, whole) in FILES.iter().zip(&left.whole) {
        // Of the text behind each byte; of the journal, of which most is zeroes, behind its first pages and now and then.
        let (step, dense) = if *name == generation::FILE { (1, 0) } else { (PAGE, 64 * PAGE) };
        let cuts = (0..whole.len()).step_by(step).filter(|cut| *cut <= dense || step == 1 || cut % (64 * PAGE) == 0);
        let cuts: Vec<_> = if *name == FILE { (0..whole.len()).step_by(PAGE).collect() } else { cuts.collect() };
        for cut in &cuts {
            let (kept, lost) = whole.split_at(*cut);
            let is_refused = left.is_refused(name, kept, &format!("cut at {cut}"));
            let used = lost.iter().filter(|byte| **byte != 0).count();
            assert!(is_refused || used == 0, "{name} cut at {cut} was taken, and {used} bytes were not zero behind it");
        }
        assert!(left.is_refused(name, &vec![0; whole.len()], "zeroes"), "{name} of zeroes was taken");
        println!("{name}: {} cuts", cuts.len());
    }
    left.with("", &[]);
    assert!(matches!(left.start("regtest"), Start::Runs), "what was there is as good as ever");
}

/// `PAGES_SEED=n` repeats one.
#[test]
fn bad_input_91_dsk_9_ten_pages_of_each_file_flipped_at_random_are_told_by_the_program_or_do_not_matter() {
    let left = Left::by_a_kill();
    let chosen = std::env::var("PAGES_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let mut refused = [0; 3];
    for seed in chosen.map_or(0..12, |seed| seed..seed + 1) {
        for ((name, whole), refused) in FILES.iter().zip(&left.whole).zip(&mut refused) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut bent = whole.clone();
            // The pages in use are at the beginning of the journal's halves.
            let pages = whole.len().div_ceil(PAGE);
            for _ in 0..10 {
                let half = if rng.random() { pages / 2 } else { 0 };
                let page = match seed % 2 {
                    0 => (half + rng.random_range(0..pages.min(16))).min(pages - 1) * PAGE,
                    _ => rng.random_range(0..pages) * PAGE,
                };
                for _ in 0..rng.random_range(1..200) {
                    let at = page + rng.random_range(0..PAGE.min(whole.len() - page));
                    bent[at] ^= 1 << rng.random_range(0..8);
                }
            }
            *refused += usize::from(left.is_refused(name, &bent, &format!("PAGES_SEED={seed}")));
        }
    }
    println!("{refused:?} were refused");
    assert!(chosen.is_some() || refused.iter().all(|refused| *refused > 0), "{refused:?}");
}

#[test]
fn bad_input_91_the_files_of_another_network_or_node_are_refused_by_the_program_and_not_changed() {
    let left = Left::by_a_kill();
    // Another network.
    let signet = network_directory(left.dir.path(), "signet");
    generation::make_directory(&signet).unwrap();
    for name in FILES.iter().chain(&["seed"]) {
        fs::copy(left.place(name), signet.join(name)).unwrap();
    }
    let read = |dir: &Path| FILES.map(|name| fs::read(dir.join(name)).unwrap());
    let before = read(&signet);
    let Start::Refused(code, said) = left.start("signet") else { panic!("it runs on another network") };
    assert!(code == Some(1) && said.contains("network regtest") && said.contains("network signet"), "{said}");
    assert!(said.contains("nothing was changed") && read(&signet) == before, "{said}");
    // Without the text the database itself tells.
    fs::remove_file(signet.join(generation::FILE)).unwrap();
    let Start::Refused(code, said) = left.start("signet") else { panic!("it runs on another network") };
    assert!(code == Some(1) && said.contains("network regtest") && said.contains(FILE), "{said}");

    // Another node: the seed is not the one that signed.
    let other = tempfile::tempdir().unwrap();
    let place = network_directory(other.path(), "regtest");
    generation::make_directory(&place).unwrap();
    Seed::create(&place, || Ok([6; 32])).unwrap();
    for name in FILES {
        fs::copy(left.place(name), place.join(name)).unwrap();
    }
    let before = read(&place);
    let Start::Refused(code, said) = started(other.path(), "regtest") else { panic!("it runs as another node") };
    assert!(code == Some(1) && said.contains("node 0") && said.contains("nothing was changed"), "{said}");
    assert!(read(&place) == before);

    // The journal of another directory of the same node.
    let twin = tempfile::tempdir().unwrap();
    let place = network_directory(twin.path(), "regtest");
    generation::make_directory(&place).unwrap();
    Seed::create(&place, || Ok([5; 32])).unwrap();
    assert!(matches!(started(twin.path(), "regtest"), Start::Runs));
    let foreign = fs::read(place.join(journal::FILE)).unwrap();
    assert!(left.is_refused(journal::FILE, &foreign, "another's"), "the journal of another database was taken");
}

/// KEY-1: others may not read what claims payments, however the directory came to be. A start that refused it would let deadlines pass.
#[test]
fn key_1_a_network_directory_that_others_may_read_becomes_private_and_so_is_all_that_is_made_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let left = Left::by_a_kill();
    let place = network_directory(left.dir.path(), "regtest");
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    let made: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(made.len() > 4, "{made:?}");
    for path in &made {
        assert_eq!(mode(path) & 0o077, 0, "{}: {:o}", path.display(), mode(path));
    }
    for shared in [0o755, 0o710, 0o2750, 0o701] {
        fs::set_permissions(&place, fs::Permissions::from_mode(shared)).unwrap();
        assert!(matches!(left.start("regtest"), Start::Runs), "{shared:o}");
        assert_eq!(mode(&place), 0o700, "{shared:o}");
    }
}

/// The name in the lock holds the directory also where the file system's lock does nothing.
#[test]
fn bad_input_90_dsk_10_the_program_refuses_a_directory_whose_lock_names_a_process_that_lives() {
    let left = Left::by_a_kill();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", other.id())).unwrap();
    let started = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().to_owned();
    let named = format!("{} {started}\n", other.id());
    fs::write(left.place("lock"), &named).unwrap();
    let before = left.files();
    let Start::Refused(code, said) = left.start("regtest") else { panic!("a second one runs") };
    assert!(code == Some(1) && said.contains(&format!("(process {})", other.id())), "{said}");
    assert_eq!(fs::read_to_string(left.place("lock")).unwrap(), named);
    assert!(left.files() == before);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(matches!(left.start("regtest"), Start::Runs));
}
