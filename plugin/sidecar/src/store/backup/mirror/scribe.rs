//! The thread that writes a mirror.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::handle::{Backlog, Handle};
use super::{ANOTHER, GONE, GROUP_LIMIT, Job, fault_of};
use crate::store::backup::{SinkEnds, SinkFault};

/// How long nothing may come before what the journal has is made durable in the mirror's own file too.
const REST: Duration = Duration::from_secs(1);

/// What it works with.
pub(super) struct Scribe {
    pub(super) handle: Arc<Handle>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) ends: SinkEnds,
}

impl Scribe {
    /// Commits what comes, and completes it, until nothing comes any more. The journal is empty then.
    pub(super) fn work(self, queue: &Receiver<Vec<Job>>) {
        while let Some(mut jobs) = self.next(queue) {
            while jobs.len() < GROUP_LIMIT
                && let Ok(more) = queue.try_recv()
            {
                jobs.extend(more);
            }
            if !self.does(|| self.commit(&jobs)) {
                return self.conclude();
            }
            jobs.iter().for_each(|job| complete(&self.ends, job));
            self.backlog.leave(jobs.iter().map(Job::size).sum());
            // Between commits, when all that was committed is completed.
            if self.handle.now().is_some_and(|open| open.is_filling()) && !self.does(|| self.catch_up()) {
                return self.conclude();
            }
        }
        self.conclude();
    }

    /// The next jobs; when none come for a while the journal is turned over first. None at the end.
    fn next(&self, queue: &Receiver<Vec<Job>>) -> Option<Vec<Job>> {
        match queue.recv_timeout(REST) {
            Err(RecvTimeoutError::Timeout) => {}
            jobs => return jobs.ok(),
        }
        // What is not open has not been written to.
        if self.handle.now().is_some() && !self.does(|| self.catch_up()) {
            return None;
        }
        queue.recv().ok()
    }

    /// Does it, again and again while that may help. False where nothing more is to be done: the process ends, or the operator is
    /// shown what is wrong, and what waits for the mirror waits on. A file that is damaged or another's may be taken away, or the
    /// configuration changed, and no channel need die for it.
    fn does(&self, work: impl Fn() -> Result<(), SinkFault>) -> bool {
        let done = self.ends.until_well(|| {
            let done = work();
            if done.is_err() {
                self.handle.close();
            }
            done
        });
        matches!(done, Some(Ok(())))
    }

    fn commit(&self, jobs: &[Job]) -> Result<(), SinkFault> {
        let path = &self.handle.place.path;
        let passing = |words: &str| Err(SinkFault::Passing(format!("{}: {words}", path.display())));
        let open = self.handle.open_for(jobs).map_err(fault_of)?;
        if !open.commit(jobs).map_err(|fault| fault_of(fault.of_file(path)))? {
            return passing(ANOTHER);
        }
        // Files that were taken away while they were written to have it, and nobody will find it.
        if !self.handle.stands(&open) {
            return passing(GONE);
        }
        self.handle.completes(jobs);
        Ok(())
    }

    fn catch_up(&self) -> Result<(), SinkFault> {
        let open = self.handle.open().map_err(fault_of)?;
        open.checkpoint(false).map_err(|fault| fault_of(fault.of_file(&self.handle.place.path)))
    }

    /// After a stop in order the mirror's own file is whole without its journal. Where that cannot be, it is told what to keep.
    fn conclude(&self) {
        if let Err(why) = self.concluded() {
            let path = self.handle.place.path.display();
            tracing::warn!(mirror = %path, %why, "{LEFT_WITH_JOURNAL}");
        }
        self.handle.close();
    }

    fn concluded(&self) -> Result<(), String> {
        let Some(open) = self.handle.now() else {
            return if self.ends.trouble_now().is_some() { Err(NOT_OPEN.to_owned()) } else { Ok(()) };
        };
        if !self.handle.stands(&open) {
            return Err(GONE.to_owned());
        }
        open.checkpoint(true).map_err(|fault| fault.to_string())
    }
}

/// What it means that a mirror was not made whole at the end.
const LEFT_WITH_JOURNAL: &str = "a mirror is not written any more, and was not made whole: its journal may have what its own file lacks, so the two \
    go together wherever they are moved; nothing that it completed is lost, and what it had not is given to it at the next start";

/// Why nothing can be made whole.
const NOT_OPEN: &str = "it could not be opened, or was closed after a fault";

fn complete(ends: &SinkEnds, job: &Job) {
    match job {
        Job::Full(image, id) => ends.channel_monitor_updated(&image.channel, *id),
        Job::Update(update) => ends.channel_monitor_updated(&update.channel, update.id),
        Job::Known(channel, id) => ends.channel_monitor_updated(channel, *id),
        Job::Tip(_) => {}
    }
}
