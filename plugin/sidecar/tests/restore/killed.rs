//! `outriggerd restore` is killed while it reads and while it writes, and is run again: nothing of the first one is in its way, and
//! what it makes is whole and in restored mode.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread;

use bitcoin::secp256k1::{Secp256k1, SecretKey};

use super::*;

/// The signals by which the kernel ends it, by their numbers in Linux: at once, and where a file would become too long.
const SIGKILL: i32 = 9;
const SIGXFSZ: i32 = 25;

/// Bytes of an address: some peers with such make a database that grows while it is filled.
const LONG: usize = 64 * 1024;

fn unfinished(lost: &Lost) -> PathBuf {
    lost.network_dir().join(format!("{FILE}.new"))
}

fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.len())
}

/// A node with so many rows that a restore writes for a while.
fn large() -> Lost {
    let mut lost = Lost::sample();
    let peer = |number: u8| {
        let secret = SecretKey::from_slice(&[number; 32]).unwrap();
        (NodeId::new(secret.public_key(&Secp256k1::new())), char::from(b'a' + number % 26).to_string().repeat(LONG))
    };
    lost.peers.extend((1..=100).map(peer));
    lost.peers.sort_by_key(|(peer, _)| peer.serialize());
    lost
}

fn begun(lost: &Lost, from: &str, around: &[&str]) -> Child {
    let mut words = around.to_vec();
    words.extend([env!("CARGO_BIN_EXE_outriggerd"), "restore", "--json", "--network", "regtest", "--from", from]);
    Command::new(words[0])
        .args(&words[1..])
        .arg("--data-dir")
        .arg(lost.dir.path())
        .env("HOME", lost.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// It ends whole, in one more run or because the first one had come so far. Says whether that had.
fn assert_comes_back(lost: &Lost, from: &str) -> bool {
    let names = fs::read_dir(lost.network_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).filter(|name| name != "lock").collect();
    names.sort();
    let was_made = names.iter().any(|name| name == FILE);
    let expected: &[&str] = if was_made { &[FILE, "seed"] } else { &["outrigger.redb.new", "seed"] };
    // Where nothing was written yet the unfinished one is not there either.
    assert!(names == expected || names == ["seed"], "{names:?}");
    if was_made {
        let words = lost.refused(&["--from", from]);
        assert!(words.contains("holds a database already"), "{words}");
    } else {
        let told = lost.restored(from, 0);
        assert_eq!((&told["written"], &told["is_whole"]), (&true.into(), &true.into()), "{told}");
    }
    assert_eq!(size(&unfinished(lost)), None);
    lost.assert_rows();
    was_made
}

fn begin_anew(lost: &Lost) {
    for name in [FILE, journal::FILE, "generation", "outrigger.redb.new"] {
        let _was_there = fs::remove_file(lost.network_dir().join(name));
    }
}

/// How long the database is that nothing disturbs.
fn whole(lost: &Lost, from: &str) -> u64 {
    lost.restored(from, 0);
    let length = size(&lost.network_dir().join(FILE)).unwrap();
    lost.assert_rows();
    begin_anew(lost);
    length
}

#[test]
fn bak_5_dsk_2_dsk_4_a_restore_that_is_killed_as_its_file_grows_leaves_no_database_and_the_next_one_is_whole() {
    let lost = large();
    let from = format!("directory:{}", lost.keep_in_directory().display());
    let length = whole(&lost, &from);
    for eighth in 1..4 {
        // A limit in blocks of 512 bytes, or 1024 in some shells: the kernel ends what would write or grow beyond it.
        let limit = format!("ulimit -c 0; ulimit -f {}; exec \"$@\"", length * eighth / 8 / 512);
        let status = begun(&lost, &from, &["sh", "-c", &limit, "sh"]).wait().unwrap();
        assert_eq!(status.signal(), Some(SIGXFSZ), "{eighth} eighths of {length} bytes: {status}");
        assert!(size(&unfinished(&lost)).is_some(), "it was writing");
        assert!(!assert_comes_back(&lost, &from), "{eighth} eighths");
        begin_anew(&lost);
    }
}

#[test]
fn bak_5_dsk_2_dsk_11_a_restore_that_is_killed_at_any_moment_leaves_no_database_or_all_of_it() {
    let lost = large();
    let from = format!("directory:{}", lost.keep_in_directory().display());
    let length = whole(&lost, &from);
    let has = |least: u64| size(&unfinished(&lost)).is_some_and(|size| size >= least);
    let moments: [&dyn Fn() -> bool; 6] = [
        &|| size(&lost.network_dir().join("lock")).is_some(),
        &|| has(0),
        &|| has(1),
        &|| has(length / 2),
        &|| has(length),
        &|| size(&lost.network_dir().join(FILE)).is_some(),
    ];
    for moment in moments {
        let mut child = begun(&lost, &from, &["env"]);
        while !moment() && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        // It may have come to its end before.
        assert!(status.signal() == Some(SIGKILL) || status.code() == Some(0), "{status}");
        let was_made = assert_comes_back(&lost, &from);
        assert!(was_made || status.signal() == Some(SIGKILL), "it said that it was made");
        begin_anew(&lost);
    }
}

/// The program that has the backup kills who asks it.
#[test]
fn bak_5_a_restore_that_is_killed_while_it_reads_has_written_nothing() {
    let lost = Lost::sample();
    let (example, kept) = lost.keep_by_program();
    let text = fs::read_to_string(example).unwrap();
    for method in ["list_channels", "fetch", "fetch_tip"] {
        let part = "    case $method in";
        assert!(text.contains(part));
        let program = lost.dir.path().join("killer");
        let spoilt = format!("    if [[ $method == {method} ]]; then kill -9 $PPID; exit; fi\n{part}");
        fs::write(&program, text.replace(part, &spoilt)).unwrap();
        let by = |program: &Path| format!("command:bash {} {}", program.display(), kept.display());
        let status = begun(&lost, &by(&program), &["env"]).wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{method}: {status}");
        assert_eq!(size(&unfinished(&lost)), None, "{method}");
        let sound = lost.dir.path().join("sound");
        fs::write(&sound, &text).unwrap();
        assert!(!assert_comes_back(&lost, &by(&sound)), "{method}");
        begin_anew(&lost);
    }
}
