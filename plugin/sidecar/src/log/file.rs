//! The log's file: readable by its owner only, put aside when it is large. What the disk does not take is lost, and nothing else
//! with it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::queue::Sink;
use crate::config::LogFile;

const MODE: u32 = 0o600;

/// Opens a file, does not follow a link at its end, and does not wait for whoever reads from a pipe.
const FLAGS: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// A file that is put aside at a size.
#[derive(Debug)]
pub(super) struct Rotating {
    file: File,
    written: u64,
    settings: LogFile,
    /// Whether the last line did not get in whole.
    is_torn: bool,
    open: fn(&LogFile) -> io::Result<File>,
}

impl Rotating {
    /// Goes on with the file that is there.
    pub(super) fn open(settings: &LogFile) -> io::Result<Self> {
        let file = open(settings)?;
        let written = file.metadata()?.len();
        Ok(Self { file, written, settings: settings.clone(), is_torn: false, open })
    }

    /// The name of the file that was put aside so many times ago.
    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.settings.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Whether the file that is written to has the log's name. Where somebody moved or deleted it, and where an earlier fault left
    /// it under another name, a new one is begun; where that cannot be, the one that is open is gone on with.
    fn is_in_place(&mut self) -> bool {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::symlink_metadata(&self.settings.path).map(place).ok();
        if named.is_some() && named == self.file.metadata().map(place).ok() {
            return true;
        }
        let Ok(file) = (self.open)(&self.settings) else { return false };
        let Ok(metadata) = file.metadata() else { return false };
        (self.file, self.written, self.is_torn) = (file, metadata.len(), false);
        true
    }

    /// Puts the file aside and begins another. Where the disk refuses, the old one is gone on with, under its name.
    fn rotate(&mut self) -> io::Result<()> {
        if self.settings.kept == 0 {
            self.file.set_len(0)?;
            (self.written, self.is_torn) = (0, false);
            return Ok(());
        }
        // No further than to the first that is missing: an attempt that failed costs none of those behind.
        let is_missing = |number: &usize| matches!(fs::symlink_metadata(self.aside(*number)), Err(fault) if fault.kind() == io::ErrorKind::NotFound);
        let free = (1..self.settings.kept).find(is_missing).unwrap_or(self.settings.kept);
        for number in (0..free).rev() {
            let from = if number == 0 { self.settings.path.clone() } else { self.aside(number) };
            match fs::rename(from, self.aside(number.saturating_add(1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        match (self.open)(&self.settings) {
            Ok(file) => {
                (self.file, self.written, self.is_torn) = (file, 0, false);
                Ok(())
            }
            Err(fault) => {
                // Where that fails too, the next line looks for the log's name first.
                let _ = fs::rename(self.aside(1), &self.settings.path);
                Err(fault)
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => taken,
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => 0,
                Err(fault) => return Err(fault),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            self.written = self.written.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
            self.is_torn = !bytes.is_empty();
        }
        Ok(())
    }
}

impl Sink for Rotating {
    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        let after = self.written.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        if self.is_in_place() && self.written > 0 && after > self.settings.max_bytes {
            // A fault is met again at the next line; until then the file grows.
            let _ = self.rotate();
        }
        if self.is_torn {
            self.write(b"\n")?;
        }
        self.write(line)
    }
}

fn open(settings: &LogFile) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(MODE).custom_flags(FLAGS).open(&settings.path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // One that is there already may have another mode.
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(log: &mut Rotating, text: &str) {
        log.take(text.as_bytes()).unwrap();
    }

    fn files(dir: &Path) -> Vec<(String, String)> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| {
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o7777, MODE, "{entry:?}");
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn rpc_5_files_are_the_owners_alone_put_aside_at_their_size_and_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "older\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut log = Rotating::open(&LogFile { path, max_bytes: 10, kept: 2 }).unwrap();
        write(&mut log, "one\n");
        assert_eq!(files(dir.path()), owned(&[("log", "older\none\n")]), "a file that is just full is not put aside");
        for line in ["two\n", "three\n", "a line longer than a file\n", "four\n"] {
            write(&mut log, line);
        }
        let expected = [("log", "four\n"), ("log.1", "a line longer than a file\n"), ("log.2", "two\nthree\n")];
        assert_eq!(files(dir.path()), owned(&expected));
    }

    #[test]
    fn where_none_is_kept_the_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Rotating::open(&LogFile { path: dir.path().join("log"), max_bytes: 4, kept: 0 }).unwrap();
        write(&mut log, "one\n");
        write(&mut log, "two\n");
        assert_eq!(files(dir.path()), owned(&[("log", "two\n")]));
    }

    #[test]
    fn a_log_that_cannot_be_put_aside_or_written_costs_lines_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::open(&LogFile { path: path.clone(), max_bytes: 4, kept: 1 }).unwrap();
        // A directory that is not empty cannot be renamed over.
        fs::create_dir(dir.path().join("log.1")).unwrap();
        fs::write(dir.path().join("log.1/x"), "").unwrap();
        write(&mut log, "one\n");
        write(&mut log, "two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_log_that_cannot_be_begun_anew_is_gone_on_with_and_older_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (number, text) in [(1, "newer\n"), (2, "old\n")] {
            let path = dir.path().join(format!("log.{number}"));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(MODE)).unwrap();
        }
        let mut log = Rotating::open(&LogFile { path, max_bytes: 4, kept: 3 }).unwrap();
        write(&mut log, "one\n");
        log.open = |_| Err(io::Error::from(io::ErrorKind::StorageFull));
        for line in ["two\n", "three\n", "four\n"] {
            write(&mut log, line);
        }
        let expected = [("log", "one\ntwo\nthree\nfour\n"), ("log.2", "newer\n"), ("log.3", "old\n")];
        assert_eq!(files(dir.path()), owned(&expected));
        log.open = open;
        write(&mut log, "five\n");
        let expected =
            [("log", "five\n"), ("log.1", "one\ntwo\nthree\nfour\n"), ("log.2", "newer\n"), ("log.3", "old\n")];
        assert_eq!(files(dir.path()), owned(&expected));
    }

    #[test]
    fn a_log_that_was_moved_or_deleted_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::open(&LogFile { path: path.clone(), max_bytes: 8, kept: 1 }).unwrap();
        write(&mut log, "one\n");
        fs::rename(&path, dir.path().join("log.mine")).unwrap();
        write(&mut log, "two\n");
        assert_eq!(files(dir.path()), owned(&[("log", "two\n"), ("log.mine", "one\n")]));
        fs::remove_file(&path).unwrap();
        write(&mut log, "three\n");
        // In the place of the log stands what is not to be written to: what is open is gone on with, and nothing is put aside.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        write(&mut log, "lost with its file\n");
        fs::remove_dir(&path).unwrap();
        write(&mut log, "four\n");
        assert_eq!(files(dir.path()), owned(&[("log", "four\n"), ("log.mine", "one\n")]));
    }

    #[test]
    fn a_line_that_the_disk_took_in_part_does_not_run_into_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Rotating::open(&LogFile { path: path.clone(), max_bytes: 100, kept: 1 }).unwrap();
        let file = std::mem::replace(&mut log.file, File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(log.write(b"lost\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((log.written, log.is_torn), (0, false), "nothing was taken");
        log.file = file;
        log.write(b"one half").unwrap();
        log.is_torn = true;
        write(&mut log, "two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one half\ntwo\n");
    }

    #[test]
    fn a_link_or_a_directory_in_the_place_of_the_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(Rotating::open(&LogFile { path: path.clone(), max_bytes: 4, kept: 1 }).is_err());
        assert!(!dir.path().join("elsewhere").exists());
        assert!(Rotating::open(&LogFile { path: dir.path().to_owned(), max_bytes: 4, kept: 1 }).is_err());
    }
}
