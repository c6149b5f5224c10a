//! The way of a line to where it is written: a queue with a bound and a thread of its own. Whoever logs never waits for a disk or a
//! reader. What does not fit any more is lost, counted, and told once there is room again.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tracing_subscriber::fmt::MakeWriter;

use super::line::Lines;

/// The most bytes of lines that wait, each counted with [`OVERHEAD`].
const MOST_BYTES: usize = 4 << 20;

/// What a line takes beside its bytes.
const OVERHEAD: usize = 64;

/// Where lines end up. It may block.
pub(super) trait Sink: Send + 'static {
    /// Writes a line with its end. After a fault the line is lost, and the next one is tried all the same.
    fn take(&mut self, line: &[u8]) -> io::Result<()>;
}

/// The process's standard error, by a handle of its own: whoever else writes there does not wait for a lock that this holds.
impl Sink for File {
    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        self.write_all(line)
    }
}

enum Order {
    Line(Vec<u8>),
    /// So many lines are missing here.
    Lost(u64),
    /// Says that everything before it was written.
    Flush(Sender<()>),
}

/// The end that lines are put into.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    orders: Sender<Order>,
    room: Arc<Room>,
}

#[derive(Debug, Default)]
struct Room {
    /// What waits.
    bytes: AtomicUsize,
    /// Lines that were lost and not yet told of.
    lost: AtomicU64,
}

impl Queue {
    /// Begins the thread that writes into `sink`.
    pub(super) fn start(sink: impl Sink, lines: Lines) -> io::Result<Self> {
        let (orders, taken) = unbounded();
        let room = Arc::new(Room::default());
        let thread = Scribe { sink, lines, room: room.clone() };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || thread.work(&taken))?;
        Ok(Self { orders, room })
    }

    /// Takes a line without waiting.
    fn put(&self, line: &[u8]) {
        let weight = line.len().saturating_add(OVERHEAD);
        let before = self.room.bytes.fetch_add(weight, Ordering::Relaxed);
        if before.saturating_add(weight) > MOST_BYTES {
            self.room.bytes.fetch_sub(weight, Ordering::Relaxed);
            self.room.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost = self.room.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.order(Order::Lost(lost));
        }
        self.order(Order::Line(line.to_vec()));
    }

    /// Waits until everything is written that was put in before, for so long at most. Says whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let (done, is_done) = bounded(1);
        self.order(Order::Flush(done));
        is_done.recv_timeout(patience).is_ok()
    }

    fn order(&self, order: Order) {
        // The thread ends with the last end of the queue.
        let _ = self.orders.send(order);
    }
}

/// What the thread has.
struct Scribe<S> {
    sink: S,
    lines: Lines,
    room: Arc<Room>,
}

impl<S: Sink> Scribe<S> {
    fn work(mut self, orders: &Receiver<Order>) {
        for order in orders {
            match order {
                Order::Line(line) => {
                    if self.sink.take(&line).is_err() {
                        self.room.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    self.room.bytes.fetch_sub(line.len().saturating_add(OVERHEAD), Ordering::Relaxed);
                }
                Order::Lost(lost) => self.tell(lost),
                Order::Flush(done) => {
                    self.tell_all();
                    // Whoever asked may have given up.
                    let _ = done.try_send(());
                }
            }
            if orders.is_empty() {
                self.tell_all();
            }
        }
    }

    /// Tells of what was lost behind everything that is written.
    fn tell_all(&mut self) {
        let lost = self.room.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.tell(lost);
        }
    }

    fn tell(&mut self, lost: u64) {
        let line = self.lines.notice("lines of the log are missing here: they could not be written", lost);
        if self.sink.take(line.as_bytes()).is_err() {
            self.room.lost.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// One line's way into the queue.
pub(super) struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::lock::Mutex;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A disk that takes each line when it is told to, with the answer that it is told.
    struct Slow {
        asked: Sender<()>,
        answers: Receiver<io::Result<()>>,
        taken: Arc<Mutex<VecDeque<String>>>,
    }

    impl Sink for Slow {
        fn take(&mut self, line: &[u8]) -> io::Result<()> {
            let _ = self.asked.send(());
            // Everything is taken once nobody tells any more.
            self.answers.recv().unwrap_or(Ok(()))?;
            self.taken.lock().push_back(String::from_utf8_lossy(line).into_owned());
            Ok(())
        }
    }

    struct Bench {
        queue: Queue,
        asked: Receiver<()>,
        answers: Sender<io::Result<()>>,
        taken: Arc<Mutex<VecDeque<String>>>,
    }

    fn bench() -> Bench {
        let ((asked, is_asked), (answers, answer)) = (unbounded(), unbounded());
        let taken = Arc::new(Mutex::new(VecDeque::new()));
        let slow = Slow { asked, answers: answer, taken: taken.clone() };
        let queue = Queue::start(slow, Lines { json: true }).unwrap();
        Bench { queue, asked: is_asked, answers, taken }
    }

    fn log(queue: &Queue, text: &str) {
        queue.make_writer().write_all(text.as_bytes()).unwrap();
    }

    /// What is said of lost lines in this line.
    fn lost(line: &str) -> Option<u64> {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["fields"]["lines"].as_u64()
    }

    #[test]
    fn a_log_that_stands_still_costs_lines_alone_and_they_are_counted_in_their_place() {
        let Bench { queue, asked, answers, taken } = bench();
        let long = "x".repeat((1 << 20) - OVERHEAD);
        log(&queue, &long);
        asked.recv_timeout(LIMIT).unwrap();
        // The disk has the first and does not give it back: three more fit, and whoever logs the others does not wait either.
        for _ in 0..8 {
            log(&queue, &long);
        }
        assert!(!queue.flush(Duration::ZERO), "nothing is written");
        answers.send(Ok(())).unwrap();
        // The second is asked for once the first has left: there is room for one.
        asked.recv_timeout(LIMIT).unwrap();
        log(&queue, "after");
        drop(answers);
        assert!(queue.flush(LIMIT));
        let mut taken: Vec<_> = taken.lock().drain(..).collect();
        assert_eq!(taken.pop().as_deref(), Some("after"));
        assert_eq!(taken.pop().as_deref().and_then(lost), Some(5));
        assert_eq!(taken, vec![long; 4]);
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_told_when_there_is_room() {
        let Bench { queue, asked, answers, taken } = bench();
        log(&queue, "one");
        asked.recv_timeout(LIMIT).unwrap();
        log(&queue, "two");
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        // Both lines, and what is said of them.
        for _ in 0..3 {
            answers.send(full()).unwrap();
        }
        drop(answers);
        assert!(queue.flush(LIMIT));
        let taken: Vec<_> = taken.lock().drain(..).collect();
        assert_eq!(taken.iter().map(|line| lost(line)).collect::<Vec<_>>(), [Some(2)]);
    }
}
