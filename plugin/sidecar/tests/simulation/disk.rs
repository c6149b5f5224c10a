//! A disk that keeps what was synced. A crash leaves that, and of what was written since, any part (redb must do with it).

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use redb::StorageBackend;

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct Platter {
    /// What reads see.
    seen: Vec<u8>,
    /// What a crash leaves for certain.
    durable: Vec<u8>,
    /// What has happened since the last sync.
    since: Vec<Change>,
    /// Writes and syncs until the power fails.
    left: Option<u32>,
    /// The machine is gone: nothing that is written reaches anything.
    dead: bool,
}

/// One node's disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    /// The disk as the next start finds it. What is still open over the old one writes into nothing from here on.
    pub fn crash(&self, rng: &mut ChaCha8Rng) -> Self {
        let mut platter = self.0.lock();
        platter.dead = true;
        let mut left = std::mem::take(&mut platter.durable);
        let since = std::mem::take(&mut platter.since);
        let kept = [0.0, 0.5, 1.0][rng.random_range(0..3)];
        for change in since {
            if !rng.random_bool(kept) {
                continue;
            }
            match change {
                Change::Write(at, bytes) => {
                    if left.len() < at + bytes.len() {
                        left.resize(at + bytes.len(), 0);
                    }
                    left[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                Change::Length(len) => left.resize(len.max(left.len()), 0),
            }
        }
        Self(Arc::new(Mutex::new(Platter { seen: left.clone(), durable: left, ..Platter::default() })))
    }

    /// The power fails at the write or sync after so many.
    pub fn fail_after(&self, operations: u32) {
        self.0.lock().left = Some(operations);
    }
}

impl Platter {
    fn change(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the power is gone"))?;
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        let platter = self.0.lock();
        let found = platter.seen.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.0.lock();
        if !platter.dead {
            platter.change()?;
            platter.since.push(Change::Length(len as usize));
        }
        platter.seen.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.0.lock();
        if platter.dead {
            return Ok(());
        }
        platter.change()?;
        for change in std::mem::take(&mut platter.since) {
            match change {
                Change::Write(at, bytes) => platter.durable[at..at + bytes.len()].copy_from_slice(&bytes),
                Change::Length(len) => platter.durable.resize(len, 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        let mut platter = self.0.lock();
        if !platter.dead {
            platter.change()?;
            platter.since.push(Change::Write(at, data.to_vec()));
        }
        let end = at + data.len();
        if platter.seen.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        platter.seen[at..end].copy_from_slice(data);
        Ok(())
    }
}
