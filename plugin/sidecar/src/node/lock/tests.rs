use std::fs;
use std::process::{Child, Command};

use super::holder::{Place, stands_for, start_time};
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
fn lock_on_a_file_system_that_grants_all(directory: &Path) -> Result<(KeptBy, Option<u32>), StartFault> {
    lock_by(directory, (|_: &File| Ok(true), |_: &Path| None), || (), || Ok(())).map(|(_, kept, unseen)| (kept, unseen))
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
    // A lock of a later process, of one without its start, of none; no text; longer than any name, though it begins with one.
    let left = [
        format!("{pid} {}\n", started.unwrap() + 1).into_bytes(),
        format!("{pid}\n").into_bytes(),
        b"4294967295 1\n".to_vec(),
        b"no number".to_vec(),
        vec![0xff; 40],
        format!("{}\n{}", other.holder(), "x".repeat(1 << 20)).into_bytes(),
    ];
    for left in left {
        let dir = private();
        fs::write(dir.path().join("lock"), left).unwrap();
        lock_directory(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join("lock")).unwrap();
        assert_eq!(text, format!("{}\n", Holder::of_this_process()));
    }
}

#[test]
fn dsk_10_a_file_system_that_knows_no_locks_is_refused_and_nothing_is_written() {
    let dir = private();
    let unsupported = |_: &File| Err(io::Error::from(io::ErrorKind::Unsupported));
    let fault = lock_by(dir.path(), (unsupported, |_: &Path| None), || (), || panic!("nothing is made")).unwrap_err();
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
    let settle = || panic!("a lock that holds is not waited for");
    let lock = <File as FileExt>::try_lock_exclusive;
    let (held, kept, unseen) = lock_by(dir.path(), (lock, |_: &Path| None), settle, || Ok(())).unwrap();
    assert_eq!((kept, unseen), (KeptBy::Lock, None));
    // The second try has not taken it away.
    refusal(dir.path());
    drop(held);
    let dir = private();
    assert_eq!(lock_on_a_file_system_that_grants_all(dir.path()).unwrap(), (KeptBy::Name, None));
    let other = Other::start();
    fs::write(dir.path().join("lock"), format!("{}\n", other.holder())).unwrap();
    let fault = lock_on_a_file_system_that_grants_all(dir.path()).unwrap_err();
    assert!(matches!(fault, StartFault::Running { .. }), "{fault}");
}

#[test]
fn bad_input_90_dsk_10_of_two_that_start_at_once_where_every_lock_is_granted_the_last_name_holds() {
    let dir = private();
    let other = Other::start();
    let named = format!("{}\n", other.holder());
    let path = dir.path().join("lock");
    let comes_between = || fs::write(&path, &named).unwrap();
    let grants_all = |_: &File| Ok(true);
    let lock = <File as FileExt>::try_lock_exclusive;
    let tries: [Box<dyn Fn() -> Result<_, StartFault>>; 3] = [
        Box::new(|| lock_by(dir.path(), (grants_all, |_: &Path| None), comes_between, || Ok(()))),
        // Its lock holds here; it is not known whether it does elsewhere.
        Box::new(|| lock_by(dir.path(), (lock, |_: &Path| Some("NFS")), comes_between, || Ok(()))),
        // After the lock was read, and before this name is written.
        Box::new(|| {
            let asked = std::cell::Cell::new(0);
            let grants_all = |_: &File| {
                asked.set(asked.get() + 1);
                if asked.get() == 3 {
                    comes_between();
                }
                Ok(true)
            };
            lock_by(dir.path(), (grants_all, |_: &Path| None), || panic!("nothing is waited for"), || Ok(()))
        }),
    ];
    for (at, start) in tries.iter().enumerate() {
        drop(fs::remove_file(&path));
        let fault = start().unwrap_err();
        assert!(fault.to_string().contains(&format!("(process {})", other.0.id())), "{at}: {fault}");
        assert_eq!(fs::read_to_string(&path).unwrap(), named, "{at}: its name is left");
    }
}

#[test]
fn dsk_10_whoever_holds_the_lock_from_another_container_or_machine_is_not_called_by_a_number() {
    let dir = private();
    let path = dir.path().join("lock");
    let elsewhere = Holder {
        place: Place { namespace: Some("pid:[1]".to_owned()), ..Place::of_this_process() },
        ..Holder::of_this_process()
    };
    fs::write(&path, format!("{elsewhere}\n")).unwrap();
    let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    assert!(FileExt::try_lock_exclusive(&held).unwrap());
    let said = refusal(dir.path());
    assert!(said.contains("another outriggerd (of another container or machine) runs on"), "{said}");
}

/// As under the unit, which hides the boot: what can be compared is, and what was known once and is not now says nothing.
#[test]
fn dsk_10_what_hides_the_boot_leaves_the_rest_of_a_name_to_be_compared() {
    let other = Other::start();
    let here = Holder { place: Place { boot: None, ..Place::of_this_process() }, ..Holder::of_this_process() };
    let named = |boot: Option<&str>, namespace: Option<&str>| {
        let place = Place { boot: boot.map(str::to_owned), namespace: namespace.map(str::to_owned), machine: None };
        Holder::parse(&format!("{}\n", Holder { place, ..other.holder() })).unwrap()
    };
    let own = here.place.namespace.as_deref();
    assert_eq!(named(None, own).seen_by(&here), Standing::Lives);
    assert_eq!(named(None, None).seen_by(&here), Standing::Lives);
    assert_eq!(named(None, Some("pid:[1]")).seen_by(&here), Standing::Unseen);
    assert_eq!(named(Some("5f0c3b1e"), own).seen_by(&here), Standing::Lives, "started by hand, and then by the unit");
    assert_eq!(named(Some("5f0c3b1e"), Some("pid:[1]")).seen_by(&here), Standing::Unseen);
}

/// A container that is made anew has another namespace, and a machine another boot after each start: neither may be refused, even
/// where a process that lives here has the id and the start time of the one that is named.
#[test]
fn bak_7_dsk_10_a_process_of_another_container_boot_or_machine_is_not_seen_and_refuses_no_start() {
    let other = Other::start();
    let here = Place::of_this_process();
    let here = Place { machine: Some(stands_for("this")), ..here };
    assert!(here.boot.is_some() && here.namespace.is_some(), "{here:?}");
    let of_another_boot = Place { boot: Some("5f0c3b1e-0000-4000-8000-000000000000".to_owned()), ..here.clone() };
    let of_another_container = Place { namespace: Some("pid:[1]".to_owned()), ..here.clone() };
    // The unit hides the boot, and the first namespace has the same number everywhere.
    let of_another_machine = Place { boot: None, machine: Some(stands_for("another")), ..here.clone() };
    for place in [of_another_boot, of_another_container, of_another_machine] {
        let dir = private();
        let named = Holder { place, ..other.holder() };
        fs::write(dir.path().join("lock"), format!("{named}\n")).unwrap();
        let kept = lock_on_a_file_system_that_grants_all(dir.path()).unwrap();
        assert_eq!(kept, (KeptBy::Name, Some(named.pid)));
        let text = fs::read_to_string(dir.path().join("lock")).unwrap();
        assert_eq!(Holder::parse(&text), Some(Holder::of_this_process()), "{text}");
    }
    // The same where the id is our own, as it is in every container whose first process is the node.
    let dir = private();
    let twin = Holder { place: Place { namespace: Some("pid:[1]".to_owned()), ..here }, ..Holder::of_this_process() };
    fs::write(dir.path().join("lock"), format!("{twin}\n")).unwrap();
    let kept = lock_on_a_file_system_that_grants_all(dir.path()).unwrap();
    assert_eq!(kept, (KeptBy::Name, Some(twin.pid)));
}
