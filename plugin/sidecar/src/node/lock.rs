//! One process a directory (bad input 90). The lock is the file system's, and where that grants everything, as network file
//! systems may, it is our own: the file names its process, and a process that lives holds it. That sees no further than the pid
//! namespace of this process on this machine (ADR 12).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use fs4::fs_std::FileExt;

use self::holder::{Holder, Standing};
use super::StartFault;
use crate::store::generation::{make_directory, make_private};

mod holder;

/// No name that this program writes into a lock is longer, in bytes.
const LONGEST_NAME: u64 = 4096;

/// How long a name has to stand in a lock that keeps nobody out before it is believed.
const SETTLES: Duration = Duration::from_millis(300);

/// File systems that other machines may have at the same time, by their numbers in `statfs(2)`.
const SHARED: [(u32, &str); 17] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x786f_4256, "vboxsf"),
    (0x7461_636f, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x6b41_4653, "AFS"),
    (0x1983_0326, "BeeGFS"),
    (0xbacb_acbc, "vmhgfs"),
];

/// Makes the network's directory, private to its owner, and takes its lock. One that is there and not private becomes so.
pub(super) fn lock_directory(directory: &Path) -> Result<File, StartFault> {
    lock_making_room(directory, || Ok(()))
}

/// The same; where the disk does not even take who has the lock, `make_room` comes first.
pub(super) fn lock_making_room(
    directory: &Path,
    make_room: impl FnOnce() -> io::Result<()>,
) -> Result<File, StartFault> {
    let settle = || std::thread::sleep(SETTLES);
    let (file, kept, unseen) =
        lock_by(directory, (<File as FileExt>::try_lock_exclusive, shared_by_machines), settle, make_room)?;
    let place = directory.display();
    match kept {
        KeptBy::Name => tracing::warn!(
            directory = %place,
            "the file system of the data directory locks nothing: only a second process of this machine, and of this container, \
             would be kept out. Two that run on one directory lose money: start none elsewhere, and move it to a local disk"
        ),
        KeptBy::LockHere(kind) => tracing::warn!(
            directory = %place,
            "the data directory is on {kind}, where a lock may hold on this machine alone. Two that run on one directory lose money: \
             start none on another machine, and move it to a local disk"
        ),
        KeptBy::Lock => return Ok(file),
    }
    if let Some(pid) = unseen {
        tracing::warn!(
            pid,
            "the last one that ran here did so in another container, at another boot or on another machine: whether it has ended \
             cannot be seen from here; make sure that it has"
        );
    }
    Ok(file)
}

/// What the file system of a directory is called, where other machines may have it too; nothing where that cannot be asked.
fn shared_by_machines(directory: &Path) -> Option<&'static str> {
    let found = rustix::fs::statfs(directory).ok()?.f_type;
    // The number has 32 bits, in a word of the machine's size and sign.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits are what there is of it")]
    let found = found as u32;
    SHARED.iter().find(|(number, _)| *number == found).map(|(_, name)| *name)
}

/// What keeps a second process out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptBy {
    /// The file system's lock.
    Lock,
    /// The same, on this machine at least; others may have that file system too, which is called so.
    LockHere(&'static str),
    /// The name in the file, since the file system grants every lock.
    Name,
}

/// Takes the lock by `lock`, which says whether it was granted. Where it may be granted to others too, whoever came at the same moment
/// has mostly written its name once `settle` is over, and the last name holds. Gives the process too that was named before, where it
/// cannot be seen whether that lives.
fn lock_by(
    directory: &Path,
    (lock, shared): (impl Fn(&File) -> io::Result<bool>, impl FnOnce(&Path) -> Option<&'static str>),
    settle: impl FnOnce(),
    make_room: impl FnOnce() -> io::Result<()>,
) -> Result<(File, KeptBy, Option<u32>), StartFault> {
    let fault = |reason: io::Error| StartFault::Directory { path: directory.to_owned(), reason: reason.to_string() };
    make_directory(directory).map_err(fault)?;
    let before = make_private(directory);
    if let Some(mode) = before.map_err(|reason| StartFault::TooOpen { path: directory.to_owned(), reason })? {
        let directory = directory.display();
        // Refused it would let deadlines pass.
        tracing::warn!(%directory, "others on this machine could read the directory (mode {mode:o}): it is its owner's alone now");
    }
    let path = directory.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
    let is_granted = lock(&file).map_err(|reason| unlockable(fault, reason))?;
    let text = name_in(&mut file).map_err(fault)?;
    let holder = text.as_deref().and_then(Holder::parse);
    let own = Holder::of_this_process();
    let standing = holder.as_ref().map_or(Standing::Over, |holder| holder.seen_by(&own));
    if !is_granted || standing == Standing::Lives {
        return Err(StartFault::Running { path, pid: whose(holder.as_ref(), standing) });
    }
    let unseen = holder.filter(|_| standing == Standing::Unseen).map(|holder| holder.pid);
    let kept = match shared(directory) {
        _ if is_granted_twice(&path, &lock) => KeptBy::Name,
        Some(kind) => KeptBy::LockHere(kind),
        None => KeptBy::Lock,
    };
    // Where locks belong to the process, the end of the second try took this one away.
    if !lock(&file).map_err(fault)? {
        return Err(StartFault::Running { path, pid: String::new() });
    }
    let words = format!("{own}\n");
    // At once, since where locks do nothing it is the name that keeps others out; and again where that needs the room first.
    let written = write_name(&mut file, text.as_deref(), &words);
    let written = make_room()
        .and_then(|()| written.or_else(|_| write_name(&mut file, text.as_deref(), &words)))
        .map_err(fault)?;
    if written && kept != KeptBy::Lock {
        settle();
    }
    // By its path: another machine may have put another file there.
    let last = File::open(&path).and_then(|mut last| name_in(&mut last)).map_err(fault)?;
    if last.as_deref() != Some(&words) {
        let last = last.as_deref().and_then(Holder::parse);
        let standing = last.as_ref().map_or(Standing::Over, |last| last.seen_by(&own));
        return Err(StartFault::Running { path, pid: whose(last.as_ref(), standing) });
    }
    Ok((file, kept, unseen))
}

/// What stands in a lock. What is no text, or longer than a name, was not written by this program, and names nobody.
fn name_in(file: &mut File) -> io::Result<Option<String>> {
    let mut read = Vec::new();
    file.rewind()?;
    file.take(LONGEST_NAME + 1).read_to_end(&mut read)?;
    Ok(if read.len() as u64 > LONGEST_NAME { None } else { String::from_utf8(read).ok() })
}

/// Puts a name in the place of what was read. False, and nothing written, where another came between.
fn write_name(file: &mut File, before: Option<&str>, words: &str) -> io::Result<bool> {
    let now = name_in(file)?;
    // A try before may have written a part.
    let is_as_before = now.as_deref() == before || now.is_some_and(|now| words.starts_with(&now));
    if !is_as_before {
        return Ok(false);
    }
    // Not cut first: the block that is there is not given to whoever fills the disk.
    file.rewind()?;
    file.write_all(words.as_bytes())?;
    file.set_len(words.len() as u64)?;
    // Another machine reads what is there, and not what is in the memory of this one.
    file.sync_data()?;
    Ok(true)
}

/// Whose the lock is, in words. The number of a process means nothing where that is not seen.
fn whose(holder: Option<&Holder>, standing: Standing) -> String {
    match (holder, standing) {
        (Some(_), Standing::Unseen) => " (of another container or machine)".to_owned(),
        (Some(holder), Standing::Lives | Standing::Over) => format!(" (process {})", holder.pid),
        (None, _) => String::new(),
    }
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

#[cfg(test)]
mod tests;
