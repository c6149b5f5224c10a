//! One process a directory (bad input 90). The lock is the file system's, and where that grants everything, as network file
//! systems may, it is our own: the file names its process by id and start time, and a process that lives holds it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use fs4::fs_std::FileExt;

use super::StartFault;
use crate::store::generation::make_directory;

/// Makes the network's directory, private to its owner, and takes its lock.
pub(super) fn lock_directory(directory: &Path) -> Result<File, StartFault> {
    lock_making_room(directory, || Ok(()))
}

/// The same; where the disk does not even take who has the lock, `make_room` comes first.
pub(super) fn lock_making_room(
    directory: &Path,
    make_room: impl FnOnce() -> io::Result<()>,
) -> Result<File, StartFault> {
    let fault = |reason: io::Error| StartFault::Directory { path: directory.to_owned(), reason: reason.to_string() };
    make_directory(directory).map_err(fault)?;
    let path = directory.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
    let is_granted = FileExt::try_lock_exclusive(&file).map_err(fault)?;
    let mut text = String::new();
    // What is no text was not written by this program, and names nobody.
    let _ = file.read_to_string(&mut text);
    let holder = Holder::parse(&text);
    if !is_granted || holder.as_ref().is_some_and(Holder::is_another_that_lives) {
        let pid = holder.map(|holder| format!(" (process {})", holder.pid)).unwrap_or_default();
        return Err(StartFault::Running { path, pid });
    }
    let own = Holder::of_this_process();
    let words = format!("{} {}\n", own.pid, own.started.unwrap_or_default());
    // Not cut first: the block that is there is not given to whoever fills the disk.
    let mut write = || {
        file.rewind()?;
        file.write_all(words.as_bytes())?;
        file.set_len(words.len() as u64)
    };
    // At once, since where locks do nothing it is the name that keeps others out; and again where that needs the room first.
    let written = write();
    make_room().and_then(|()| if written.is_err() { write() } else { Ok(()) }).map_err(fault)?;
    Ok(file)
}

/// A process, told from a later one of the same id by its start time, in the kernel's ticks since boot.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    started: Option<u64>,
}

impl Holder {
    fn of_this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started: start_time(pid) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        Some(Self { pid, started: words.next().and_then(|word| word.parse().ok()) })
    }

    /// Whether this very process runs on this machine, and is not ourselves; not where the machine does not tell.
    fn is_another_that_lives(&self) -> bool {
        self.pid != std::process::id() && self.started.is_some() && self.started == start_time(self.pid)
    }
}

/// When the process was started, where `/proc` tells and it has not ended. One that ended stays there until its parent has asked
/// for its exit code; it writes nothing more once none of its threads is left.
fn start_time(pid: u32) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn refusal(directory: &Path) -> String {
        match lock_directory(directory) {
            Err(fault @ StartFault::Running { .. }) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// A process that lives until it is dropped.
    struct Other(Child);

    impl Other {
        fn start() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn holder(&self) -> Holder {
            Holder { pid: self.0.id(), started: start_time(self.0.id()) }
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// bitcoind's `startupnotify` leaves a daemon to the first process of the machine, which may take its time.
    #[test]
    fn bad_input_90_a_process_that_has_ended_holds_nothing_though_nobody_asked_for_its_exit_code() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = Other::start();
        let Holder { pid, started } = other.holder();
        fs::write(dir.path().join("lock"), format!("{pid} {}\n", started.unwrap())).unwrap();
        refusal(dir.path());
        other.0.kill().unwrap();
        let begun = std::time::Instant::now();
        while start_time(pid).is_some() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it does not end");
            std::thread::yield_now();
        }
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "its exit code waits still");
        lock_directory(dir.path()).unwrap();
    }

    #[test]
    fn bad_input_90_a_second_instance_is_told_pid_and_path_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("regtest");
        let held = lock_directory(&directory).unwrap();
        let expected = format!(
            "another outriggerd (process {}) runs on {}: stop it first; two would lose money",
            std::process::id(),
            directory.join("lock").display()
        );
        assert_eq!(refusal(&directory), expected);
        drop(held);
        lock_directory(&directory).unwrap();
    }

    #[test]
    fn bad_input_90_dsk_10_where_file_locks_do_nothing_the_named_process_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        // Nobody holds the file system's lock: the name alone has to do.
        let other = Other::start();
        let Holder { pid, started } = other.holder();
        let left = format!("{pid} {}\n", started.unwrap());
        fs::write(dir.path().join("lock"), &left).unwrap();
        assert!(refusal(dir.path()).contains(&format!("(process {pid})")));
        assert_eq!(fs::read_to_string(dir.path().join("lock")).unwrap(), left, "nothing was overwritten");
        drop(other);
        lock_directory(dir.path()).unwrap();
    }

    #[test]
    fn bad_input_90_a_dead_process_or_a_later_one_of_its_id_holds_nothing() {
        let other = Other::start();
        let Holder { pid, started } = other.holder();
        let left = [
            format!("{pid} {}\n", started.unwrap() + 1),
            format!("{pid}\n"),
            "4294967295 1\n".into(),
            "no number".into(),
        ];
        for left in left {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("lock"), left).unwrap();
            lock_directory(dir.path()).unwrap();
            let text = fs::read_to_string(dir.path().join("lock")).unwrap();
            assert_eq!(Holder::parse(&text), Some(Holder::of_this_process()));
        }
    }
}
