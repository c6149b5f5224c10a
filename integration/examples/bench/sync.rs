//! What a sync of the disk costs, how many there were, and what was written: the file through which a process of the
//! benchmark, whichever side it is of, is told the first and tells the others.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use outrigger_integration::Done;

/// What a sync costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncCost {
    /// What the disk takes.
    Native,
    /// Nothing: it is not carried out.
    Nothing,
    /// So many microseconds on top of what the disk takes.
    More(u64),
}

/// Shared with one process.
pub(crate) struct SyncFile {
    path: PathBuf,
    file: File,
}

impl SyncFile {
    pub(crate) fn new(path: &Path) -> Done<Self> {
        std::fs::write(path, [0; 24])?;
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// What the process is started with: the library that `contrib/bench` compiled, and this file.
    pub(crate) fn environment(&self) -> Done<Vec<(String, String)>> {
        let library =
            std::env::var("OUTRIGGER_BENCH_SHIM").map_err(|_| "run contrib/bench: it compiles what counts syncs")?;
        let file = self.path.display().to_string();
        Ok(vec![("LD_PRELOAD".to_owned(), library), ("OUTRIGGER_BENCH_SYNC".to_owned(), file)])
    }

    pub(crate) fn set(&self, cost: SyncCost) -> Done<()> {
        let micros = match cost {
            SyncCost::Native => 0,
            SyncCost::Nothing => 1,
            SyncCost::More(micros) => micros,
        };
        Ok(self.file.write_all_at(&u64::to_ne_bytes(micros), 8)?)
    }

    /// Syncs since the process began.
    pub(crate) fn count(&self) -> Done<u64> {
        self.number_at(0)
    }

    /// Bytes that were written to files since the process began.
    pub(crate) fn bytes(&self) -> Done<u64> {
        self.number_at(16)
    }

    fn number_at(&self, offset: u64) -> Done<u64> {
        let mut number = [0; 8];
        self.file.read_exact_at(&mut number, offset)?;
        Ok(u64::from_ne_bytes(number))
    }
}
