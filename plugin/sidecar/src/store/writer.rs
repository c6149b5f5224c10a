//! The one writer. It takes all that is waiting, commits once, and hands the effects on. While one commit syncs, the next
//! batch gathers. What comes of a commit's own orders is waited for, and no longer than a commit takes; rows that nobody waits
//! for wait for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use redb::Database;
use tokio::sync::{Notify, oneshot};

use super::StoreError;
use super::backup::Hub;
use super::batch::{Batch, Held, Released};
use super::commit::Keeper;
use super::generation::Generation;
use super::journal::Journal;
use super::retention::EventLimits;
use crate::measure::Histogram;

/// Batches that may wait before sockets are paused. `submit` itself never waits.
const BACKLOG_LIMIT: usize = 4096;

/// The most batches that one commit takes: bounds the time until the first of them is released.
const GROUP_LIMIT: usize = 8192;

/// The longest wait for what comes of a commit's orders. It is never longer than the last commit took.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// How long rows wait for company that nobody waits for: what a crash takes of them is asked of the peer again.
const LINGER: Duration = Duration::from_millis(100);

/// How long nothing may come before what the journal has is made durable in the database too.
const REST: Duration = Duration::from_secs(1);

/// How often the wait for what comes of orders looks whether the node is at rest.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// What the writer has done since the start.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Commits: what was made durable together, by one sync where there is a journal.
    pub commits: AtomicU64,
    /// Checkpoints, which made the same durable in the database; none of them released anything.
    pub checkpoints: AtomicU64,
    /// Batches that were taken from the queue.
    pub batches: AtomicU64,
    /// Rows that were written or deleted.
    pub rows: AtomicU64,
    /// What the rows hold that were written, keys included: before journal and database make pages of it.
    pub bytes: AtomicU64,
    /// Microseconds that commits took, syncs included. 0 where the writer has no clock.
    pub micros: AtomicU64,
    /// The same by how long each took; nothing where the writer has no clock.
    pub commit_times: Histogram,
    /// How long records of the journal took to reach the disk.
    pub sync_times: Histogram,
}

impl WriterStats {
    /// Takes note of a row that is written, or deleted.
    pub(super) fn wrote(&self, key: &[u8], value: Option<&[u8]>) {
        self.rows.fetch_add(1, Ordering::Relaxed);
        let written = value.map_or(0, |value| key.len().saturating_add(value.len()));
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
    }
}

/// The queue end of the writer; cloned freely.
#[derive(Clone, Debug)]
pub struct Writer {
    queue: Sender<Batch>,
    waiting: Arc<AtomicUsize>,
    room: Arc<Notify>,
    stats: Arc<WriterStats>,
}

impl Writer {
    /// The queue end, and the commits that whoever has them makes of what is queued.
    pub fn new(db: Arc<Database>) -> Result<(Self, Commits), StoreError> {
        let (queue, batches) = crossbeam_channel::unbounded();
        let writer =
            Self { queue, waiting: Arc::default(), room: Arc::default(), stats: Arc::new(WriterStats::default()) };
        let commits = Commits {
            batches,
            keeper: Keeper::new(db, writer.stats.clone())?,
            waiting: writer.waiting.clone(),
            room: writer.room.clone(),
            stats: writer.stats.clone(),
            rest: Rest { is_busy: Box::new(|| false), now: || None },
            sinks: None,
            took: Duration::ZERO,
        };
        Ok((writer, commits))
    }

    /// Starts the writer thread. `deliver` is called before each commit with the orders that stay within the node, and
    /// after it with all else; it only enqueues. `fatal` is called when a commit fails, and does not return: nothing was
    /// sent, so disk and peers still agree.
    pub fn start(
        db: Arc<Database>,
        deliver: impl Fn(Released, u64) + Send + 'static,
        fatal: impl Fn(StoreError) + Send + 'static,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let (writer, commits) = Self::new(db)?;
        let thread = commits.on_a_thread(deliver, fatal)?;
        Ok((writer, thread))
    }

    /// Queues a batch. Never waits, so it may be called under a peer lock: queue order equals state order.
    pub fn submit(&self, batch: Batch) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The writer ends only with the process; a batch sent after that was never promised to anyone.
        let _ = self.queue.send(batch);
    }

    /// Resolves once everything that was queued before is durable. Costs no commit of its own.
    pub async fn barrier(&self) {
        self.durable(Batch::default()).await;
    }

    /// The same at the end of the process: one more commit, which raises the generation and leaves the journal empty.
    pub async fn conclude(&self) {
        let mut last = Batch::default();
        last.conclude();
        self.durable(last).await;
    }

    async fn durable(&self, mut batch: Batch) {
        let (waiter, durable) = oneshot::channel();
        batch.hold(Held::Durable(waiter));
        self.submit(batch);
        // The writer drops the waiter only with the process.
        let _ = durable.await;
    }

    /// Whether sockets should be read: the backlog is within its limit.
    pub fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < BACKLOG_LIMIT
    }

    /// Waits until the backlog is within its limit.
    pub async fn room(&self) {
        loop {
            let notified = self.room.notified();
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> &WriterStats {
        &self.stats
    }
}

/// The other end of the queue: what is waiting there becomes one commit after the other.
pub struct Commits {
    batches: Receiver<Batch>,
    keeper: Keeper,
    waiting: Arc<AtomicUsize>,
    room: Arc<Notify>,
    stats: Arc<WriterStats>,
    rest: Rest,
    /// Who keeps the rows of channels elsewhere too.
    sinks: Option<Arc<Hub>>,
    /// How long the last commit took.
    took: Duration,
}

/// Who knows whether the node is at rest, and what time it is.
struct Rest {
    is_busy: Box<dyn Fn() -> bool + Send>,
    now: fn() -> Option<Instant>,
}

impl Rest {
    fn since(&self, begun: Option<Instant>) -> Duration {
        let elapsed = (self.now)().zip(begun).map(|(now, begun)| now.saturating_duration_since(begun));
        elapsed.unwrap_or_default()
    }
}

/// What becomes one commit.
#[must_use = "what was gathered is to be committed, or the process to end"]
pub struct Gathered {
    batch: Batch,
    /// Of how many batches it is.
    count: usize,
}

/// What a batch was that was taken into a commit.
struct Joined {
    had_orders: bool,
    is_awaited: bool,
}

/// Tells orders, and says whether there were any.
fn tell((orders, last_seq): Committed, deliver: &impl Fn(Released, u64)) -> bool {
    let is_any = !orders.is_empty();
    if is_any {
        deliver(orders, last_seq);
    }
    is_any
}

/// What a commit released, and the newest event on disk.
type Committed = (Released, u64);

impl Commits {
    /// Makes commits on a thread of its own, until every queue end is gone. See [`Writer::start`].
    pub fn on_a_thread(
        mut self,
        deliver: impl Fn(Released, u64) + Send + 'static,
        fatal: impl Fn(StoreError) + Send + 'static,
    ) -> Result<JoinHandle<()>, StoreError> {
        let run = move || {
            if let Err(fault) = self.run(&deliver) {
                fatal(fault);
                // Who waits for a row that is still queued would take its end for an answer.
                std::mem::forget(self);
            }
        };
        std::thread::Builder::new().name("writer".into()).spawn(run).map_err(StoreError::io)
    }

    /// Commits until every queue end is gone. Checkpoints come between commits, when what was committed is released.
    fn run(&mut self, deliver: &impl Fn(Released, u64)) -> Result<(), StoreError> {
        loop {
            if self.is_checkpoint_due() || (self.is_ahead() && self.is_at_rest()) {
                self.checkpoint()?;
            }
            let Some(mut gathered) = self.gather(GROUP_LIMIT) else { return Ok(()) };
            // While the disk syncs, what comes of them gathers for the next commit.
            let has_orders = tell(self.orders(&mut gathered), deliver);
            let brings_more = self.linger(&mut gathered, deliver) || has_orders;
            // Nothing leaves before the sinks have it too, and then all of it comes back at once: what the workers are at is
            // worth the wait, else each commit of few rows is one of the sinks as well.
            if brings_more || self.waits_for_sinks() {
                self.follow(&mut gathered, deliver);
            }
            let (released, last_seq) = self.finish(gathered)?;
            deliver(released, last_seq);
        }
    }

    /// Whether nothing comes for a while.
    fn is_at_rest(&self) -> bool {
        let mut next = crossbeam_channel::Select::new();
        next.recv(&self.batches);
        next.ready_timeout(REST).is_err()
    }

    /// Whether a checkpoint should come before the next commit.
    pub fn is_checkpoint_due(&self) -> bool {
        self.keeper.is_checkpoint_due((self.rest.now)())
    }

    /// Whether the journal has what the database may lack.
    pub fn is_ahead(&self) -> bool {
        self.keeper.is_ahead()
    }

    /// Makes durable in the database what only the journal has for good. What was gathered before may be committed after it.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.keeper.checkpoint((self.rest.now)())
    }

    /// The same commits, which ask `is_busy` whether anybody works on what was told, and `now` for the monotonic time.
    pub fn asking(self, is_busy: impl Fn() -> bool + Send + 'static, now: fn() -> Option<Instant>) -> Self {
        Self { rest: Rest { is_busy: Box::new(is_busy), now }, ..self }
    }

    /// The same commits, which raise the generation now and then.
    pub fn raising(mut self, generation: Option<Generation>) -> Self {
        self.keeper.generation = generation;
        self
    }

    /// The same commits, which go into this journal first.
    pub fn journaled(mut self, journal: Option<Journal>) -> Self {
        self.keeper.journal = journal;
        self
    }

    /// The same commits, which keep no more events than this, and take no event for later than `latest` says (seconds since 1970).
    pub fn keeping_events(mut self, limits: EventLimits, latest: fn() -> u64) -> Self {
        (self.keeper.events.limits, self.keeper.events.latest) = (limits, latest);
        self
    }

    /// The same commits, of which these sinks are told.
    pub fn keeping(self, sinks: Option<Arc<Hub>>) -> Self {
        Self { sinks, ..self }
    }

    fn waits_for_sinks(&self) -> bool {
        self.sinks.as_ref().is_some_and(|sinks| sinks.has_required())
    }

    /// Takes others into a commit that nobody waits for, until somebody does: a peer's revocation alone moves nothing that leaves,
    /// and is sent again where a crash took it. Says whether there were orders among them.
    fn linger(&self, gathered: &mut Gathered, deliver: &impl Fn(Released, u64)) -> bool {
        let Some(begun) = (self.rest.now)() else { return false };
        let (mut had_orders, mut is_awaited) = (false, gathered.batch.is_awaited());
        while !is_awaited && gathered.count < GROUP_LIMIT {
            let left = LINGER.saturating_sub(self.rest.since(Some(begun)));
            let Ok(next) = self.batches.recv_timeout(left) else { break };
            let joined = self.join(gathered, next, deliver);
            had_orders |= joined.had_orders;
            is_awaited = joined.is_awaited;
        }
        had_orders
    }

    /// Takes what comes of a commit's orders into the same commit: HTLCs that came together go on together, and a channel signs
    /// once for all of them. No longer than a commit takes: then nothing is won by waiting.
    fn follow(&self, gathered: &mut Gathered, deliver: &impl Fn(Released, u64)) {
        let (begun, longest) = ((self.rest.now)(), self.took.min(LONGEST_WAIT));
        while gathered.count < GROUP_LIMIT {
            // Asked first: whoever was at work then has queued what came of it before it is seen to rest.
            let is_busy = (self.rest.is_busy)();
            if let Ok(next) = self.batches.try_recv() {
                self.join(gathered, next, deliver);
                continue;
            }
            let left = longest.saturating_sub(self.rest.since(begun));
            if !is_busy || left.is_zero() {
                return;
            }
            if let Ok(next) = self.batches.recv_timeout(left.min(LOOK_AGAIN)) {
                self.join(gathered, next, deliver);
            }
        }
    }

    /// Takes one batch in and tells its orders.
    fn join(&self, gathered: &mut Gathered, mut next: Batch, deliver: &impl Fn(Released, u64)) -> Joined {
        self.took_from_queue(1);
        let had_orders = tell((next.take_orders(self.waits_for_sinks()), self.last_seq()), deliver);
        let is_awaited = next.is_awaited();
        gathered.batch.merge(next);
        gathered.count = gathered.count.saturating_add(1);
        Joined { had_orders, is_awaited }
    }

    /// How many batches wait.
    pub fn waiting(&self) -> usize {
        self.batches.len()
    }

    /// The next commit: what is waiting, `limit` batches at the most, or the first that comes. `None` once every queue end
    /// is gone. After a fault there must be no other: what it was about is not on disk, and was not sent. Orders that stay
    /// within the node are told with all else, and not before.
    pub fn next(&mut self, limit: usize) -> Option<Result<Committed, StoreError>> {
        let gathered = self.gather(limit)?;
        Some(self.finish(gathered))
    }

    /// What is waiting, `limit` batches at the most, or the first that comes: the next commit. `None` once every queue end is
    /// gone.
    pub fn gather(&self, limit: usize) -> Option<Gathered> {
        let mut batch = self.batches.recv().ok()?;
        let mut count = 1;
        while count < limit {
            let Ok(next) = self.batches.try_recv() else { break };
            batch.merge(next);
            count += 1;
        }
        self.took_from_queue(count);
        Some(Gathered { batch, count })
    }

    /// Takes out of a commit to come the orders that stay within the node; with them comes the newest event on disk.
    pub fn orders(&self, gathered: &mut Gathered) -> Committed {
        (gathered.batch.take_orders(self.waits_for_sinks()), self.last_seq())
    }

    /// Makes the commit. What was gathered before it must have been committed.
    pub fn finish(&mut self, gathered: Gathered) -> Result<Committed, StoreError> {
        let Gathered { mut batch, count: _ } = gathered;
        match self.commit(&mut batch) {
            Ok(()) => Ok((batch.release(), self.last_seq())),
            Err(fault) => {
                // Nothing of it may even be dropped: who waits for a row would take that for its answer.
                std::mem::forget(batch);
                Err(fault)
            }
        }
    }

    /// The newest event on disk.
    fn last_seq(&self) -> u64 {
        self.keeper.last_seq()
    }

    fn took_from_queue(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        self.room.notify_waiters();
        self.stats.batches.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn commit(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        if let Some(fault) = batch.fault.take() {
            return Err(fault);
        }
        if batch.is_rowless() {
            return Ok(());
        }
        let begun = (self.rest.now)();
        let updates =
            self.sinks.as_ref().map(|sinks| sinks.number(&mut batch.writes, &batch.commitments)).transpose()?;
        self.keeper.commit(batch, begun)?;
        if let (Some(sinks), Some(updates)) = (&self.sinks, updates) {
            sinks.committed(updates);
        }
        self.took = self.rest.since(begun);
        if begun.is_some() {
            self.stats.commit_times.observe(self.took);
        }
        self.stats.micros.fetch_add(u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }
}
