//! The log's file: readable by its owner only, put aside when it is large. What the disk does not take is lost, and nothing else
//! with it: the node does not wait for its log.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFile;
use crate::lock::Mutex;

const MODE: u32 = 0o600;

/// Opens a file, does not follow a link at its end, and does not wait for whoever reads from a pipe.
const FLAGS: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// A file that is put aside at a size.
#[derive(Clone, Debug)]
pub(super) struct Rotating(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    file: File,
    written: u64,
    settings: LogFile,
}

impl Rotating {
    /// Goes on with the file that is there.
    pub(super) fn open(settings: &LogFile) -> io::Result<Self> {
        let file = open(settings)?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Kept { file, written, settings: settings.clone() }))))
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

impl Kept {
    /// The name of the file that was put aside so many times ago.
    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.settings.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Puts the file aside and begins another. Where the disk refuses, the old one is gone on with.
    fn rotate(&mut self) -> io::Result<()> {
        if self.settings.kept == 0 {
            fs::remove_file(&self.settings.path)?;
        }
        for number in (0..self.settings.kept).rev() {
            let from = if number == 0 { self.settings.path.clone() } else { self.aside(number) };
            match fs::rename(from, self.aside(number.saturating_add(1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.file = open(&self.settings)?;
        self.written = 0;
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let after = self.written.saturating_add(length);
        // A fault is met again at the next line; until then the file grows.
        let is_new = self.written > 0 && after > self.settings.max_bytes && self.rotate().is_ok();
        self.file.write_all(line)?;
        self.written = if is_new { length } else { after };
        Ok(line.len())
    }
}

/// One line's way into the file.
pub(super) struct Line<'a>(&'a Rotating);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // What cannot be written is lost; whoever logs is not told.
        let _ = self.0.0.lock().take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Rotating {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(log: &Rotating, text: &str) {
        log.make_writer().write_all(text.as_bytes()).unwrap();
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
        let log = Rotating::open(&LogFile { path, max_bytes: 10, kept: 2 }).unwrap();
        write(&log, "one\n");
        assert_eq!(files(dir.path()), owned(&[("log", "older\none\n")]), "a file that is just full is not put aside");
        for line in ["two\n", "three\n", "a line longer than a file\n", "four\n"] {
            write(&log, line);
        }
        let expected = [("log", "four\n"), ("log.1", "a line longer than a file\n"), ("log.2", "two\nthree\n")];
        assert_eq!(files(dir.path()), owned(&expected));
    }

    #[test]
    fn where_none_is_kept_the_file_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let log = Rotating::open(&LogFile { path: dir.path().join("log"), max_bytes: 4, kept: 0 }).unwrap();
        write(&log, "one\n");
        write(&log, "two\n");
        assert_eq!(files(dir.path()), owned(&[("log", "two\n")]));
    }

    #[test]
    fn a_log_that_cannot_be_put_aside_or_written_costs_lines_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Rotating::open(&LogFile { path: path.clone(), max_bytes: 4, kept: 1 }).unwrap();
        // A directory that is not empty cannot be renamed over.
        fs::create_dir(dir.path().join("log.1")).unwrap();
        fs::write(dir.path().join("log.1/x"), "").unwrap();
        write(&log, "one\n");
        write(&log, "two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        log.0.lock().file = File::options().write(true).open("/dev/full").unwrap();
        write(&log, "lost\n");
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
