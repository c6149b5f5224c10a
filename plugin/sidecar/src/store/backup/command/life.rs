//! One life of a program: the pipes to it are read and written until it ends, whoever else may hold their other ends.
//!
//! What a program has started may hold its pipes for longer than it lives, and leave its process group. So pipes are waited for
//! together with the end of the life, and nothing that comes behind that is heard: a completion belongs to the life that it came in.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionbio;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::lock::Mutex;

/// What may still stand in a pipe when its writer has ended, in bytes: no pipe holds more.
const LAST_BYTES: usize = 1024 * 1024;

/// The end of a life, which threads wait for: clones are of the same one.
#[derive(Clone)]
pub(super) struct Life {
    /// Reads as closed once the life has ended.
    ended: Arc<OwnedFd>,
    /// Open for as long as it lasts.
    lasts: Arc<Mutex<Option<OwnedFd>>>,
}

impl Life {
    /// A life that has begun.
    pub(super) fn begin() -> io::Result<Self> {
        let (ended, lasts) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { ended: Arc::new(ended), lasts: Arc::new(Mutex::new(Some(lasts))) })
    }

    /// It is over: who waits for a pipe takes what stands in it, and no more.
    pub(super) fn end(&self) {
        *self.lasts.lock() = None;
    }

    /// Waits until the leader of this process group has ended, ends with it what is left of its group, and then the life. The leader
    /// is not buried: its number stays its own, so no stranger's group can be meant.
    pub(super) fn watch(&self, leader: Pid) {
        while let Err(fault) = waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            if fault != rustix::io::Errno::INTR {
                // It is no child of ours any more.
                return self.end();
            }
        }
        // There may be nothing left of it.
        let _ = kill_process_group(leader, Signal::KILL);
        self.end();
    }

    /// Waits until the pipe is ready, or the life has ended. Says which: the pipe first, as far as it is.
    fn wait(&self, pipe: &impl AsFd, flags: PollFlags) -> io::Result<(bool, bool)> {
        let mut fds = [PollFd::new(pipe, flags), PollFd::new(&*self.ended, PollFlags::IN)];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(fault) => return Err(fault.into()),
            }
        }
        let [pipe, ended] = &fds;
        Ok((!pipe.revents().is_empty(), !ended.revents().is_empty()))
    }

    /// A pipe from the program, which ends with the life.
    pub(super) fn reads<P: Read + AsFd>(&self, pipe: P) -> Living<P> {
        Living { pipe, life: self.clone(), left: LAST_BYTES }
    }

    /// A pipe to the program, which breaks with the life.
    pub(super) fn writes<P: Write + AsFd>(&self, pipe: P) -> io::Result<Living<P>> {
        ioctl_fionbio(&pipe, true)?;
        Ok(Living { pipe, life: self.clone(), left: 0 })
    }
}

/// A pipe for as long as a life lasts.
pub(super) struct Living<P> {
    pipe: P,
    life: Life,
    /// Bytes that may be read behind its end.
    left: usize,
}

impl<P: Read + AsFd> Read for Living<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (is_ready, has_ended) = self.life.wait(&self.pipe, PollFlags::IN)?;
        if !has_ended {
            return self.pipe.read(buffer);
        }
        if !is_ready {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let read = self.pipe.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}

impl<P: Write + AsFd> Write for Living<P> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            let (_, has_ended) = self.life.wait(&self.pipe, PollFlags::OUT)?;
            if has_ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match self.pipe.write(buffer) {
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}
