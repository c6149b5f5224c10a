//! One process a directory (bad input 90). The lock is the file system's, and where that grants everything, as network file
//! systems may, it is our own: the file names its process, and a process that lives holds it. That sees no further than the pid
//! namespace of this process on this machine (ADR 12).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs4::fs_std::FileExt;

use super::StartFault;
use crate::store::generation::make_directory;

/// The rights that nobody but the owner may have (KEY-1).
const OTHERS: u32 = 0o077;

/// Makes the network's directory, private to its owner, and takes its lock. One that is there and not private is refused.
pub(super) fn lock_directory(directory: &Path) -> Result<File, StartFault> {
    lock_making_room(directory, || Ok(()))
}

/// The same; where the disk does not even take who has the lock, `make_room` comes first.
pub(super) fn lock_making_room(
    directory: &Path,
    make_room: impl FnOnce() -> io::Result<()>,
) -> Result<File, StartFault> {
    let (file, kept) = lock_by(directory, <File as FileExt>::try_lock_exclusive, make_room)?;
    if let Kept::ByName { unseen } = kept {
        let directory = directory.display();
        tracing::warn!(
            %directory,
            "the file system of the data directory locks nothing: only a second process of this machine, and of this container, \
             would be kept out. Two that run on one directory lose money: start none elsewhere, and move it to a local disk"
        );
        if let Some(pid) = unseen {
            tracing::warn!(
                pid,
                "the last one that ran here did so in another container, at another boot or on another machine: whether it has ended \
                 cannot be seen from here; make sure that it has"
            );
        }
    }
    Ok(file)
}

/// What keeps a second process out.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    /// The file system's lock.
    ByLock,
    /// The name in the file, since the file system grants every lock; with the process that it named before, where it cannot be seen
    /// whether that lives.
    ByName { unseen: Option<u32> },
}

/// Takes the lock by `lock`, which says whether it was granted.
fn lock_by(
    directory: &Path,
    lock: impl Fn(&File) -> io::Result<bool>,
    make_room: impl FnOnce() -> io::Result<()>,
) -> Result<(File, Kept), StartFault> {
    let fault = |reason: io::Error| StartFault::Directory { path: directory.to_owned(), reason: reason.to_string() };
    make_directory(directory).map_err(fault)?;
    let mode = fs::metadata(directory).map_err(fault)?.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(StartFault::TooOpen { path: directory.to_owned(), mode });
    }
    let path = directory.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
    let is_granted = lock(&file).map_err(|reason| unlockable(fault, reason))?;
    let mut text = String::new();
    // What is no text was not written by this program, and names nobody.
    let _ = file.read_to_string(&mut text);
    let holder = Holder::parse(&text);
    let own = Holder::of_this_process();
    let standing = holder.as_ref().map_or(Standing::Over, |holder| holder.seen_by(&own));
    if !is_granted || standing == Standing::Lives {
        let pid = holder.map(|holder| format!(" (process {})", holder.pid)).unwrap_or_default();
        return Err(StartFault::Running { path, pid });
    }
    let kept = if is_granted_twice(&path, &lock) {
        Kept::ByName { unseen: holder.filter(|_| standing == Standing::Unseen).map(|holder| holder.pid) }
    } else {
        Kept::ByLock
    };
    // Where locks belong to the process, the end of the second try took this one away.
    if !lock(&file).map_err(fault)? {
        return Err(StartFault::Running { path, pid: String::new() });
    }
    let words = format!("{own}\n");
    // Not cut first: the block that is there is not given to whoever fills the disk.
    let mut write = || {
        file.rewind()?;
        file.write_all(words.as_bytes())?;
        file.set_len(words.len() as u64)
    };
    // At once, since where locks do nothing it is the name that keeps others out; and again where that needs the room first.
    let written = write();
    make_room().and_then(|()| if written.is_err() { write() } else { Ok(()) }).map_err(fault)?;
    Ok((file, kept))
}

/// Whether a lock that is held is granted once more: then the file system keeps nobody out. Not where it cannot be tried.
fn is_granted_twice(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> bool {
    let again = OpenOptions::new().read(true).write(true).open(path);
    again.and_then(|again| lock(&again)).unwrap_or(false)
}

/// A file system that knows no locks is not used: there nothing would keep a second process out.
fn unlockable(fault: impl FnOnce(io::Error) -> StartFault, reason: io::Error) -> StartFault {
    match reason.kind() {
        io::ErrorKind::Unsupported => {
            fault(io::Error::other(format!("its file system locks no files ({reason}), so two nodes could run on it")))
        }
        _ => fault(reason),
    }
}

/// A process, told from a later one of the same id by its start time, in the kernel's ticks since boot.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    started: Option<u64>,
    place: Option<Place>,
}

/// Where the id of a process has a meaning.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// The kernel's id of the boot of the machine.
    boot: String,
    /// The namespace of process ids, which a container has of its own.
    namespace: String,
}

/// What is seen of the process that a lock names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Lives,
    /// It has ended, or is ourselves.
    Over,
    /// It ran in another container, at another boot or on another machine: nobody here can tell. Nobody is refused for it: after a
    /// reboot, or where a container was made anew, it is what is left.
    Unseen,
}

impl Holder {
    fn of_this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started: start_time(pid), place: Place::of_this_process() }
    }

    /// Pid and start time, and behind them the boot and the namespace where they are known.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let started = words.next().and_then(|word| word.parse().ok());
        let place = words.next().zip(words.next());
        let place = place.map(|(boot, namespace)| Place { boot: boot.to_owned(), namespace: namespace.to_owned() });
        Some(Self { pid, started, place })
    }

    /// Whether this very process runs here, and is not the one that asks.
    fn seen_by(&self, own: &Self) -> Standing {
        match (&self.place, &own.place) {
            (Some(place), Some(here)) if place != here => Standing::Unseen,
            _ if self.pid == own.pid || self.started.is_none() || self.started != start_time(self.pid) => {
                Standing::Over
            }
            _ => Standing::Lives,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.started.unwrap_or_default())?;
        self.place.as_ref().map_or(Ok(()), |Place { boot, namespace }| write!(f, " {boot} {namespace}"))
    }
}

impl Place {
    /// Nothing where the machine does not tell.
    fn of_this_process() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let word = |text: &str| {
            Some(text.trim().to_owned()).filter(|word| !word.is_empty() && !word.contains(char::is_whitespace))
        };
        Some(Self { boot: word(&boot)?, namespace: word(namespace.to_str()?)? })
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

    /// A directory such as the daemon makes.
    fn private() -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt;
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    fn refusal(directory: &Path) -> String {
        match lock_directory(directory) {
            Err(fault @ StartFault::Running { .. }) => fault.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// A file system that grants every lock.
    fn lock_on_a_file_system_that_grants_all(directory: &Path) -> Result<Kept, StartFault> {
        lock_by(directory, |_| Ok(true), || Ok(())).map(|(_, kept)| kept)
    }

    /// A process that lives until it is dropped.
    struct Other(Child);

    impl Other {
        fn start() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        fn holder(&self) -> Holder {
            Holder { pid: self.0.id(), started: start_time(self.0.id()), place: Place::of_this_process() }
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
        let dir = private();
        let mut other = Other::start();
        let Holder { pid, started, .. } = other.holder();
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
        let dir = private();
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
        let dir = private();
        // Nobody holds the file system's lock: the name alone has to do.
        let other = Other::start();
        let Holder { pid, started, .. } = other.holder();
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
        let Holder { pid, started, .. } = other.holder();
        let left = [
            format!("{pid} {}\n", started.unwrap() + 1),
            format!("{pid}\n"),
            "4294967295 1\n".into(),
            "no number".into(),
        ];
        for left in left {
            let dir = private();
            fs::write(dir.path().join("lock"), left).unwrap();
            lock_directory(dir.path()).unwrap();
            let text = fs::read_to_string(dir.path().join("lock")).unwrap();
            assert_eq!(Holder::parse(&text), Some(Holder::of_this_process()));
        }
    }
    #[test]
    fn dsk_10_a_file_system_that_knows_no_locks_is_refused_and_nothing_is_written() {
        let dir = private();
        let unsupported = |_: &File| Err(io::Error::from(io::ErrorKind::Unsupported));
        let fault = lock_by(dir.path(), unsupported, || panic!("nothing is made")).unwrap_err();
        let expected = format!(
            "the data directory {} cannot be used: its file system locks no files (unsupported), so two nodes could run on it. \
             Nothing was changed. See that it is there, ours and on a disk that can be written, or choose another with --data-dir",
            dir.path().display()
        );
        assert_eq!(fault.to_string(), expected);
        assert_eq!(fs::read_to_string(dir.path().join("lock")).unwrap(), "");
    }

    #[test]
    fn dsk_10_a_file_system_that_grants_every_lock_is_told_from_one_that_keeps_others_out() {
        let dir = private();
        let (held, kept) = lock_by(dir.path(), <File as FileExt>::try_lock_exclusive, || Ok(())).unwrap();
        assert_eq!(kept, Kept::ByLock);
        // The second try has not taken it away.
        refusal(dir.path());
        drop(held);
        let dir = private();
        assert_eq!(lock_on_a_file_system_that_grants_all(dir.path()).unwrap(), Kept::ByName { unseen: None });
        let other = Other::start();
        fs::write(dir.path().join("lock"), format!("{}\n", other.holder())).unwrap();
        let fault = lock_on_a_file_system_that_grants_all(dir.path()).unwrap_err();
        assert!(matches!(fault, StartFault::Running { .. }), "{fault}");
    }

    /// A container that is made anew has another namespace, and a machine another boot after each start: neither may be refused, even
    /// where a process that lives here has the id and the start time of the one that is named.
    #[test]
    fn bak_7_dsk_10_a_process_of_another_container_boot_or_machine_is_not_seen_and_refuses_no_start() {
        let other = Other::start();
        let here = Place::of_this_process().unwrap();
        let of_another_boot = Place { boot: "5f0c3b1e-0000-4000-8000-000000000000".to_owned(), ..here };
        let here = Place::of_this_process().unwrap();
        let of_another_container = Place { namespace: "pid:[1]".to_owned(), ..here };
        for place in [of_another_boot, of_another_container] {
            let dir = private();
            let named = Holder { place: Some(place), ..other.holder() };
            fs::write(dir.path().join("lock"), format!("{named}\n")).unwrap();
            let kept = lock_on_a_file_system_that_grants_all(dir.path()).unwrap();
            assert_eq!(kept, Kept::ByName { unseen: Some(named.pid) });
            let text = fs::read_to_string(dir.path().join("lock")).unwrap();
            assert_eq!(Holder::parse(&text), Some(Holder::of_this_process()), "{text}");
        }
        // The same where the id is our own, as it is in every container whose first process is the node.
        let dir = private();
        let here = Place::of_this_process().unwrap();
        let twin =
            Holder { place: Some(Place { namespace: "pid:[1]".to_owned(), ..here }), ..Holder::of_this_process() };
        fs::write(dir.path().join("lock"), format!("{twin}\n")).unwrap();
        let kept = lock_on_a_file_system_that_grants_all(dir.path()).unwrap();
        assert_eq!(kept, Kept::ByName { unseen: Some(twin.pid) });
    }
}
