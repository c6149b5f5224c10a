//! The one writer. It takes all that is waiting, commits once, and hands the effects on. While one commit syncs, the next
//! batch gathers. What comes of a commit's own orders is waited for, and no longer than a commit takes; rows that nobody waits
//! for wait for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use redb::{Database, Durability, ReadableTable, WriteTransaction};
use tokio::sync::{Notify, oneshot};

use super::StoreError;
use super::backup::Hub;
use super::batch::{Batch, Held, Released, Write};
use super::forward::{FORWARDS_KEPT, ForwardTotals};
use super::generation::{self, Generation};
use super::read::unreadable;
use super::schema::{GENERATION_KEY, RESTORED_KEY, Table};
use super::seal::{seal, unseal};

/// Commits between two that also save the allocator state, so that a start after a crash need not walk the file. Its
/// cost grows with the file, so it is not paid at each commit.
const CHECKPOINT_EVERY: u64 = 256;

/// Batches that may wait before sockets are paused. `submit` itself never waits.
const BACKLOG_LIMIT: usize = 4096;

/// The most batches that one commit takes: bounds the time until the first of them is released.
const GROUP_LIMIT: usize = 8192;

/// The longest wait for what comes of a commit's orders. It is never longer than the last commit took.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// How long rows wait for company that nobody waits for: what a crash takes of them is asked of the peer again.
const LINGER: Duration = Duration::from_millis(100);

/// How often the wait for what comes of orders looks whether the node is at rest.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// What the writer has done since the start.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Transactions that were written and synced.
    pub commits: AtomicU64,
    /// Batches that were taken from the queue.
    pub batches: AtomicU64,
    /// Rows that were written or deleted.
    pub rows: AtomicU64,
    /// What the rows hold that were written, keys included: before redb makes pages of it.
    pub bytes: AtomicU64,
    /// Microseconds that commits took, syncs included. 0 where the writer has no clock.
    pub micros: AtomicU64,
}

impl WriterStats {
    fn wrote(&self, key: &[u8], value: &[u8]) {
        self.rows.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add((key.len() + value.len()) as u64, Ordering::Relaxed);
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
            next_seq: next_number(&db, Table::Event)?,
            next_forward: next_number(&db, Table::Forward)?,
            db,
            waiting: writer.waiting.clone(),
            room: writer.room.clone(),
            stats: writer.stats.clone(),
            rest: Rest { is_busy: Box::new(|| false), now: || None },
            generation: None,
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

    /// The same at the end of the process: one more commit, which raises the generation.
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
    db: Arc<Database>,
    /// Of events.
    next_seq: u64,
    next_forward: u64,
    waiting: Arc<AtomicUsize>,
    room: Arc<Notify>,
    stats: Arc<WriterStats>,
    rest: Rest,
    /// None where it does not rise: the file is known to be old, or stands in no directory.
    generation: Option<Generation>,
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
            while let Some(mut gathered) = self.gather(GROUP_LIMIT) {
                // While the disk syncs, what comes of them gathers for the next commit.
                let has_orders = tell(self.orders(&mut gathered), &deliver);
                if self.linger(&mut gathered, &deliver) || has_orders {
                    self.follow(&mut gathered, &deliver);
                }
                match self.finish(gathered) {
                    Ok((released, last_seq)) => deliver(released, last_seq),
                    Err(fault) => {
                        fatal(fault);
                        // Who waits for a row that is still queued would take its end for an answer.
                        return std::mem::forget(self);
                    }
                }
            }
        };
        std::thread::Builder::new().name("writer".into()).spawn(run).map_err(StoreError::io)
    }

    /// The same commits, which ask `is_busy` whether anybody works on what was told, and `now` for the monotonic time.
    pub fn asking(self, is_busy: impl Fn() -> bool + Send + 'static, now: fn() -> Option<Instant>) -> Self {
        Self { rest: Rest { is_busy: Box::new(is_busy), now }, ..self }
    }

    /// The same commits, which raise the generation now and then.
    pub fn raising(self, generation: Option<Generation>) -> Self {
        Self { generation, ..self }
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
        self.next_seq.saturating_sub(1)
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
        let updates = self.sinks.as_ref().map(|sinks| sinks.number(&mut batch.writes)).transpose()?;
        self.write(batch)?;
        if let (Some(sinks), Some(updates)) = (&self.sinks, updates) {
            sinks.committed(updates);
        }
        self.took = self.rest.since(begun);
        self.stats.micros.fetch_add(u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(())
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        let number = self.stats.commits.fetch_add(1, Ordering::Relaxed);
        if batch.writes.iter().any(is_restored) {
            self.generation = None;
        }
        let generation = self.generation.as_mut().and_then(|age| age.due((self.rest.now)(), batch.is_last));
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // Peers choose some of our bytes: a one-phase commit could be steered into a checksum collision.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(number.is_multiple_of(CHECKPOINT_EVERY));
        // Stable: of two writes of one key the later one stands.
        batch.writes.sort_by_key(|write| write.table);
        for writes in batch.writes.chunk_by(|one, next| one.table == next.table) {
            let Some(table) = writes.first().map(|write| write.table) else { continue };
            let mut open = transaction.open_table(table.definition())?;
            for write in writes {
                match &write.value {
                    Some(value) => {
                        self.stats.wrote(&write.key, value);
                        open.insert(write.key.as_slice(), seal(write.table, &write.key, value).as_slice())?;
                    }
                    None => {
                        self.stats.rows.fetch_add(1, Ordering::Relaxed);
                        open.remove(write.key.as_slice())?;
                    }
                }
            }
        }
        if !batch.events.is_empty() {
            let mut open = transaction.open_table(Table::Event.definition())?;
            for event in &batch.events {
                let (key, row) = (self.next_seq.to_be_bytes(), event.encode());
                self.stats.wrote(&key, &row);
                open.insert(key.as_slice(), seal(Table::Event, &key, &row).as_slice())?;
                self.next_seq += 1;
            }
        }
        self.write_forwards(&transaction, batch)?;
        if let Some(number) = generation {
            let row = generation::sealed(number);
            transaction.open_table(Table::Meta.definition())?.insert(GENERATION_KEY, row.as_slice())?;
        }
        transaction.commit()?;
        if let (Some(age), Some(number)) = (&mut self.generation, generation) {
            age.is_durable(number, (self.rest.now)())?;
        }
        Ok(())
    }

    /// Forwards get their numbers, and sums what is to be added to them. As many rows as come in go out at the far end.
    fn write_forwards(&mut self, transaction: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
        if !batch.forwards.is_empty() {
            let mut open = transaction.open_table(Table::Forward.definition())?;
            for forward in &batch.forwards {
                let (key, row) = (self.next_forward.to_be_bytes(), forward.encode());
                self.stats.wrote(&key, &row);
                open.insert(key.as_slice(), seal(Table::Forward, &key, &row).as_slice())?;
                if let Some(oldest) = self.next_forward.checked_sub(FORWARDS_KEPT) {
                    open.remove(oldest.to_be_bytes().as_slice())?;
                }
                self.next_forward += 1;
            }
        }
        if !batch.totals.is_empty() {
            let mut open = transaction.open_table(Table::ForwardTotals.definition())?;
            for (name, more) in &batch.totals {
                let key = name.encode();
                let mut sum = open.get(key.as_slice())?.map(|row| read_totals(&key, row.value())).unwrap_or_default();
                sum.add(more);
                let row = sum.encode();
                self.stats.wrote(&key, &row);
                open.insert(key.as_slice(), seal(Table::ForwardTotals, &key, &row).as_slice())?;
            }
        }
        Ok(())
    }
}

/// From a proof that the file is old its generation rises no more: a newer file may still be put back.
fn is_restored(write: &Write) -> bool {
    write.table == Table::Meta && write.key == RESTORED_KEY
}

/// A sum as it stands. One that is damaged begins anew: no channel needs it, and nothing else may stop for it.
fn read_totals(key: &[u8], row: &[u8]) -> ForwardTotals {
    let read = unseal(Table::ForwardTotals, key, row).map_err(unreadable);
    read.and_then(|row| ForwardTotals::decode(row).map_err(unreadable)).unwrap_or_else(|fault| {
        tracing::error!(%fault, "the totals of a day's forwards were lost");
        ForwardTotals::default()
    })
}

/// One past the newest number on disk; the first is 1.
pub(super) fn next_number(db: &Database, table: Table) -> Result<u64, StoreError> {
    use redb::ReadableDatabase;
    let table = db.begin_read()?.open_table(table.definition())?;
    let last = table.last()?.and_then(|(key, _)| key.value().try_into().ok().map(u64::from_be_bytes));
    Ok(last.map_or(1, |seq| seq + 1))
}
