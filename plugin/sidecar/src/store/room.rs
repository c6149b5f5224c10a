//! Room on the disk that holds the data directory (DSK-8). A file, the ballast, keeps some of it from everybody else. Where less than
//! its size is free besides, or less than twice that where it is not there, the node promises nothing new; and where there is none left at
//! all it stops, and the next start takes the ballast away first: what stands is settled, closed and claimed with what that sets free.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// The ballast's name in the data directory of the network.
const NAME: &str = "ballast";

/// What a disk is found to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes that are free for us.
    pub free: u64,
    /// Bytes that are to be free before anything is promised again.
    pub wanted: u64,
    /// Whether that is too little to promise anything more.
    pub is_low: bool,
}

/// What is to become of the ballast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ballast {
    /// It is made, or stays.
    Kept,
    /// As it is, there or not.
    AsItIs,
    /// It is taken away.
    Gone,
}

/// Looks after the room of one data directory.
#[derive(Debug)]
pub struct Room {
    directory: PathBuf,
    /// The size of the ballast, and the least that is to be free besides, in bytes; 0 for neither.
    reserve: u64,
    is_low: bool,
}

impl Room {
    /// Over a directory that nobody else writes to. Where its disk is full the ballast goes, before anything of the start is written.
    ///
    /// # Errors
    ///
    /// The operating system does not say what the disk has, or does not take the ballast away.
    pub fn at_start(directory: &Path, reserve: u64) -> io::Result<Self> {
        let mut room = Self { directory: directory.to_owned(), reserve, is_low: false };
        let free = room.free()?;
        if at_start(reserve, free) == Ballast::Gone && room.ballast().exists() {
            fs::remove_file(room.ballast())?;
            if reserve > 0 {
                tracing::warn!(
                    free_bytes = free,
                    set_free_bytes = reserve,
                    "the disk of the data directory is full: the ballast was taken away, so that what stands can be settled; make room"
                );
            }
        }
        room.look()?;
        Ok(room)
    }

    /// Looks at the disk, and makes the ballast where there is plenty of room for it.
    ///
    /// # Errors
    ///
    /// The operating system does not say what the disk has. A ballast that cannot be made is no error.
    pub fn look(&mut self) -> io::Result<Found> {
        let mut free = self.free()?;
        if while_it_runs(self.reserve, free) == Ballast::Kept && !self.has_ballast() {
            if let Err(fault) = self.make_ballast() {
                tracing::debug!(%fault, "no ballast can be made on the disk of the data directory");
                let _ = fs::remove_file(self.ballast());
            }
            free = self.free()?;
        }
        let found = found(self.reserve, free, self.has_ballast(), self.is_low);
        self.is_low = found.is_low;
        Ok(found)
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    fn free(&self) -> io::Result<u64> {
        let disk = statvfs(&self.directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Whether all of it is there: a file of that length which has no blocks keeps nothing.
    fn has_ballast(&self) -> bool {
        let kept = |found: fs::Metadata| found.len() >= self.reserve && found.blocks() * 512 >= self.reserve;
        fs::symlink_metadata(self.ballast()).is_ok_and(kept)
    }

    fn make_ballast(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(self.ballast())?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.reserve) {
            // Where a file system gives no blocks without bytes, bytes are written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => fill(file, self.reserve),
            allocated => Ok(allocated?),
        }
    }
}

fn fill(mut file: File, size: u64) -> io::Result<()> {
    let (block, mut left) = ([0xb1; 1 << 16], size);
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(block.get(..part).unwrap_or(&block))?;
        left -= part as u64;
    }
    Ok(())
}

/// A start goes on with less than half of the reserve only without the ballast.
const fn at_start(reserve: u64, free: u64) -> Ballast {
    if reserve == 0 || free < reserve / 2 { Ballast::Gone } else { Ballast::AsItIs }
}

/// Where the ballast is made, twice its size is left.
const fn while_it_runs(reserve: u64, free: u64) -> Ballast {
    if reserve > 0 && free / 3 >= reserve { Ballast::Kept } else { Ballast::AsItIs }
}

/// Half of the reserve more than what is too little ends it, so that it does not come and go with each file.
const fn found(reserve: u64, free: u64, has_ballast: bool, was_low: bool) -> Found {
    let least = if has_ballast { reserve } else { reserve.saturating_mul(2) };
    let wanted = least.saturating_add(reserve / 2);
    Found { free, wanted, is_low: free < if was_low { wanted } else { least } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn dsk_8_too_little_room_begins_at_the_reserve_and_ends_half_above_it() {
        for (free, has_ballast, was_low, is_low) in [
            (64 * MIB, true, false, false),
            (64 * MIB - 1, true, false, true),
            (0, true, false, true),
            (96 * MIB - 1, true, true, true),
            (96 * MIB, true, true, false),
            // What the ballast sets free is not there for promises.
            (128 * MIB - 1, false, false, true),
            (128 * MIB, false, false, false),
            (160 * MIB - 1, false, true, true),
            (160 * MIB, false, true, false),
        ] {
            let wanted = if has_ballast { 96 * MIB } else { 160 * MIB };
            let expected = Found { free, wanted, is_low };
            assert_eq!(found(64 * MIB, free, has_ballast, was_low), expected);
        }
        for was_low in [false, true] {
            assert!(!found(0, 0, true, was_low).is_low, "whoever wants no reserve is never short of it");
            assert!(!found(u64::MAX, u64::MAX, true, was_low).is_low);
        }
    }

    #[test]
    fn dsk_8_the_ballast_goes_at_the_start_of_a_full_disk_and_is_made_where_there_is_plenty() {
        assert_eq!(at_start(64 * MIB, 32 * MIB - 1), Ballast::Gone);
        assert_eq!(at_start(64 * MIB, 32 * MIB), Ballast::AsItIs);
        assert_eq!(at_start(0, 1000 * MIB), Ballast::Gone);
        assert_eq!(while_it_runs(64 * MIB, 192 * MIB), Ballast::Kept);
        assert_eq!(while_it_runs(64 * MIB, 192 * MIB - 1), Ballast::AsItIs);
        assert_eq!(while_it_runs(0, 1000 * MIB), Ballast::AsItIs);
    }

    #[test]
    fn dsk_8_the_ballast_has_blocks_and_is_its_owners_alone_and_is_made_whole_again() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = directory.path().join(NAME);
        let mut room = Room::at_start(directory.path(), MIB).unwrap();
        let of = |path: &Path| {
            fs::metadata(path).map(|found| (found.len(), found.blocks() * 512 >= MIB, found.mode() & 0o777))
        };
        assert_eq!(of(&ballast).unwrap(), (MIB, true, 0o600));
        // One that was cut, or is nothing but a length, is no ballast.
        fs::write(&ballast, b"short").unwrap();
        assert!(!room.look().unwrap().is_low);
        assert_eq!(of(&ballast).unwrap(), (MIB, true, 0o600));
        fs::write(&ballast, b"").unwrap();
        File::options().write(true).open(&ballast).unwrap().set_len(MIB).unwrap();
        room.look().unwrap();
        assert_eq!(of(&ballast).unwrap(), (MIB, true, 0o600));
        // Whoever wants none has none; and of a reserve that no disk has everything is low.
        Room::at_start(directory.path(), 0).unwrap();
        assert!(!ballast.exists());
        assert!(Room::at_start(directory.path(), u64::MAX).unwrap().look().unwrap().is_low);
        assert!(!ballast.exists());
        let mut filled = File::create(&ballast).unwrap();
        fill(filled.try_clone().unwrap(), MIB + 1).unwrap();
        filled.flush().unwrap();
        assert_eq!(fs::metadata(&ballast).unwrap().len(), MIB + 1);
    }
}
