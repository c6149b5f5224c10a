//! Room on the disk that holds the data directory (DSK-8). A file, the ballast, keeps some of it from everybody else. Where less than
//! its size is free besides, or it has yet to be made, the node promises nothing new; and where there is none left at all it stops, and the
//! next start takes the ballast away first: what stands is settled, closed and claimed with what that sets free.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;

/// The ballast's name in the data directory of the network.
const NAME: &str = "ballast";

/// Fewer free bytes are a full disk: bitcoind stops below 50 MiB, and does not start.
const FULL: u64 = 64 << 20;

/// What a start tries to write, at most: a quota, or a file system without room for what it keeps of files, is told by that alone.
const TRIAL: u64 = 1 << 20;

/// Looks between two times that a ballast is tried to be made, where it could not be: ten minutes of them.
const PAUSE: u32 = 600;

/// What a disk is found to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes that are free for us; [`u64::MAX`] where nobody knows.
    pub free: u64,
    /// Bytes that are to be free before anything is promised again.
    pub wanted: u64,
    /// Whether there is too little to promise anything more.
    pub is_low: bool,
    /// Whether there is a ballast.
    pub has_ballast: bool,
}

/// Looks after the room of one data directory.
#[derive(Debug)]
pub struct Room {
    directory: PathBuf,
    /// The size of the ballast, and the least that is to be free besides, in bytes; 0 for neither.
    reserve: u64,
    is_low: bool,
    /// Bytes were refused of which the file system says that they are free, as a quota does: what it says is not believed.
    is_refused: bool,
    /// Every byte of the ballast was written, whatever blocks the file system tells of.
    is_written: bool,
    /// Looks before a ballast is tried to be made again.
    pause: u32,
}

impl Room {
    /// Over a directory that nobody else writes to. Touches nothing.
    pub fn of(directory: &Path, reserve: u64) -> Self {
        Self { directory: directory.to_owned(), reserve, is_low: false, is_refused: false, is_written: false, pause: 0 }
    }

    /// Takes the ballast away where the disk is full, before anything of the start is written; and one that is not what is wanted.
    ///
    /// # Errors
    ///
    /// The ballast cannot be taken away.
    pub fn at_start(&mut self) -> io::Result<()> {
        let _ = fs::remove_file(self.unfinished());
        let is_other = is_file(&self.ballast()) && !self.has_ballast();
        if is_other {
            fs::remove_file(self.ballast())?;
        }
        if self.reserve == 0 {
            return Ok(());
        }
        self.is_refused = !self.takes_a_trial();
        if self.is_refused || self.free() < self.full() { self.take_away() } else { Ok(()) }
    }

    /// Takes the ballast away where the disk is full: bitcoind may have stopped for that, and starts first.
    ///
    /// # Errors
    ///
    /// The ballast cannot be taken away.
    pub fn at_end(&self) -> io::Result<()> {
        if self.reserve > 0 && self.free() < self.full() { self.take_away() } else { Ok(()) }
    }

    fn take_away(&self) -> io::Result<()> {
        if !is_file(&self.ballast()) {
            return Ok(());
        }
        let before = self.free();
        fs::remove_file(self.ballast())?;
        tracing::warn!(
            free_bytes = before,
            set_free_bytes = self.free().saturating_sub(before),
            "the disk of the data directory is full: the ballast was taken away, so that what stands can be settled; make room"
        );
        Ok(())
    }

    /// Looks at the disk, and makes the ballast where there is plenty of room for it. A disk that does not say what it has is taken for one
    /// with room.
    pub fn look(&mut self) -> Found {
        let (mut free, mut has_ballast) = (self.free(), self.has_ballast());
        if !has_ballast && self.reserve > 0 && free >= without_ballast(self.reserve) {
            has_ballast = self.try_to_make_ballast();
            free = self.free();
        }
        let found = found(self.reserve, free, has_ballast, self.is_low);
        self.is_low = found.is_low || self.is_refused;
        Found { is_low: self.is_low, ..found }
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    fn unfinished(&self) -> PathBuf {
        self.directory.join("ballast.new")
    }

    /// Bytes that are free for us. File systems that count nothing say that they have no blocks at all.
    fn free(&self) -> u64 {
        let counted = statvfs(&self.directory).ok().filter(|disk| self.reserve > 0 && disk.f_blocks > 0);
        counted.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn full(&self) -> u64 {
        self.reserve.min(FULL)
    }

    /// Whether the disk takes a few bytes now. Whatever else refuses them is no want of room.
    fn takes_a_trial(&self) -> bool {
        let trial = self.unfinished();
        let written = begun(&trial).and_then(|file| {
            fill(&file, TRIAL.min(self.reserve))?;
            file.sync_data()
        });
        let _ = fs::remove_file(&trial);
        !written.is_err_and(|fault| is_want_of_room(&fault))
    }

    /// Whether all of it is there, and goes when its name does: a length without blocks keeps nothing, and neither does a second name.
    fn has_ballast(&self) -> bool {
        let kept = |found: fs::Metadata| {
            let is_kept = self.is_written || found.blocks().saturating_mul(512) >= self.reserve;
            found.is_file() && found.nlink() == 1 && found.len() == self.reserve && is_kept
        };
        self.reserve > 0 && fs::symlink_metadata(self.ballast()).is_ok_and(kept)
    }

    fn try_to_make_ballast(&mut self) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let made = self.make_ballast();
        let has_ballast = made.is_ok() && self.has_ballast();
        if !has_ballast {
            self.pause = PAUSE;
            let reason =
                made.as_ref().err().map_or_else(|| "something else has its name".to_owned(), io::Error::to_string);
            tracing::warn!(
                reason,
                "no ballast can be kept on the disk of the data directory: see that it never fills up"
            );
        }
        self.is_refused =
            if has_ballast { false } else { self.is_refused || made.is_err_and(|fault| is_want_of_room(&fault)) };
        has_ballast
    }

    /// Where bytes were refused before, all that is to be free is asked for at once.
    fn make_ballast(&mut self) -> io::Result<()> {
        let new = self.unfinished();
        let asked =
            if self.is_refused { self.reserve.saturating_add(without_ballast(self.reserve)) } else { self.reserve };
        let made = begun(&new).and_then(|file| {
            match fallocate(&file, FallocateFlags::empty(), 0, asked) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(fault) => return Err(fault.into()),
            }
            // Where a file system gives no blocks without bytes, bytes are written.
            let is_written = file.metadata()?.blocks().saturating_mul(512) < asked;
            if is_written {
                fill(&file, asked)?;
                file.sync_data()?;
            }
            file.set_len(self.reserve)?;
            fs::rename(&new, self.ballast())?;
            Ok(is_written)
        });
        match made {
            Ok(is_written) => self.is_written = is_written,
            Err(_) => drop(fs::remove_file(&new)),
        }
        made.map(drop)
    }
}

fn is_want_of_room(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// A new file of this name, in the place of what a crash left; never what a link leads to.
fn begun(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    let only_ours = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(only_ours).open(path)
}

/// Writes so many bytes that no file system stores in less (splitmix64).
fn fill(mut file: &File, size: u64) -> io::Result<()> {
    let (mut block, mut left, mut state) = (vec![0; 1 << 16], size, size);
    while left > 0 {
        for word in block.as_chunks_mut::<8>().0 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *word = (mixed ^ (mixed >> 31)).to_le_bytes();
        }
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(block.get(..part).unwrap_or(&block))?;
        left -= part as u64;
    }
    Ok(())
}

/// What is to be free where there is no ballast: the ballast, and what is to be free beside it.
const fn without_ballast(reserve: u64) -> u64 {
    reserve.saturating_mul(2).saturating_add(reserve / 2)
}

/// Half of the reserve more than what is too little ends it, so that it does not come and go with each file.
const fn found(reserve: u64, free: u64, has_ballast: bool, was_low: bool) -> Found {
    let (least, wanted) = if has_ballast {
        (reserve, reserve.saturating_add(reserve / 2))
    } else {
        (without_ballast(reserve), without_ballast(reserve))
    };
    Found { free, wanted, is_low: free < if was_low { wanted } else { least }, has_ballast }
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
            (160 * MIB - 1, false, false, true),
            (160 * MIB, false, false, false),
            (160 * MIB - 1, false, true, true),
            (160 * MIB, false, true, false),
        ] {
            let wanted = if has_ballast { 96 * MIB } else { 160 * MIB };
            assert_eq!(found(64 * MIB, free, has_ballast, was_low), Found { free, wanted, is_low, has_ballast });
        }
        for was_low in [false, true] {
            assert!(!found(0, 0, false, was_low).is_low, "whoever wants no reserve is never short of it");
            assert!(!found(u64::MAX, u64::MAX, false, was_low).is_low, "nor who does not know what there is");
        }
    }

    fn state(path: &Path) -> (u64, bool, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.len(), found.blocks() * 512 >= MIB, found.mode() & 0o777)
    }

    #[test]
    fn dsk_8_the_ballast_has_blocks_and_is_its_owners_alone_and_is_made_whole_again() {
        let directory = tempfile::tempdir().unwrap();
        let (ballast, other) = (directory.path().join(NAME), directory.path().join("other"));
        let whole = (MIB, true, 0o600);
        let mut room = Room::of(directory.path(), MIB);
        room.at_start().unwrap();
        assert!(!ballast.exists(), "a start makes none");
        let found = room.look();
        assert!(found.has_ballast && !found.is_low);
        assert_eq!(state(&ballast), whole);
        // One that was cut, is nothing but a length, or has a second name is no ballast, and nothing of that other is touched.
        fs::write(&ballast, b"short").unwrap();
        assert!(room.look().has_ballast);
        assert_eq!(state(&ballast), whole);
        fs::write(&ballast, b"").unwrap();
        File::options().write(true).open(&ballast).unwrap().set_len(MIB).unwrap();
        assert!(room.look().has_ballast);
        assert_eq!(state(&ballast), whole);
        fs::hard_link(&ballast, &other).unwrap();
        assert!(room.look().has_ballast);
        assert_eq!((fs::metadata(&ballast).unwrap().nlink(), state(&other)), (1, whole));
        fs::remove_file(&ballast).unwrap();
        std::os::unix::fs::symlink(&other, &ballast).unwrap();
        fs::write(&other, b"mine").unwrap();
        room.at_start().unwrap();
        assert!(room.look().has_ballast);
        assert_eq!((state(&ballast), fs::read(&other).unwrap()), (whole, b"mine".to_vec()));
        assert!(!directory.path().join("ballast.new").exists());
    }

    #[test]
    fn dsk_8_where_no_ballast_can_be_made_the_node_goes_on_and_tries_again_after_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = directory.path().join(NAME);
        fs::create_dir(&ballast).unwrap();
        fs::write(ballast.join("file"), b"in it").unwrap();
        let mut room = Room::of(directory.path(), MIB);
        room.at_start().unwrap();
        let found = room.look();
        assert!(!found.has_ballast && !found.is_low);
        fs::remove_dir_all(&ballast).unwrap();
        let looks = (0..=PAUSE).take_while(|_| !room.look().has_ballast).count();
        assert_eq!(looks, PAUSE as usize);
    }

    #[test]
    fn dsk_8_a_disk_that_refused_what_it_called_free_is_low_until_it_gives_all_that_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let mut room = Room { is_refused: true, pause: 1, ..Room::of(directory.path(), MIB) };
        let found = room.look();
        assert!(found.is_low && !found.has_ballast && found.free >= found.wanted, "{found:?}");
        let found = room.look();
        assert!(!found.is_low && found.has_ballast, "{found:?}");
        assert_eq!(state(&directory.path().join(NAME)), (MIB, true, 0o600));
    }

    #[test]
    fn dsk_8_a_start_takes_the_ballast_away_where_the_disk_is_full_or_none_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = directory.path().join(NAME);
        let make = || assert!(Room::of(directory.path(), MIB).look().has_ballast);
        make();
        fs::write(directory.path().join("ballast.new"), b"what a crash left").unwrap();
        Room::of(directory.path(), MIB).at_start().unwrap();
        Room::of(directory.path(), MIB).at_end().unwrap();
        assert!(ballast.exists() && !directory.path().join("ballast.new").exists(), "there is room");
        // One of another size is none. No disk has so much.
        for other in [MIB - 1, MIB + 1, u64::MAX / 4] {
            make();
            let mut room = Room::of(directory.path(), other);
            room.at_start().unwrap();
            assert!(!ballast.exists());
            assert_eq!(room.look().is_low, other > 2 * MIB);
            drop(fs::remove_file(&ballast));
        }
        make();
        let mut unwilling = Room::of(directory.path(), 0);
        unwilling.at_start().unwrap();
        assert!(!ballast.exists());
        assert_eq!(unwilling.look(), Found { free: u64::MAX, wanted: 0, is_low: false, has_ballast: false });
    }
}
