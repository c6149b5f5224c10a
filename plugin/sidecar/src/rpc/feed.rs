//! The newest events, read from the file once for all who follow them. Whoever is further behind reads the file.

use std::collections::VecDeque;
use std::sync::Arc;

use outrigger_rpc_schema::{Event, EventKind};
use tokio::sync::watch;

use super::{Backend, Doors, EventQuery, Fault};
use crate::lock::Mutex;

/// Events that are kept in memory, and the bytes that they may have.
const MAX_EVENTS: usize = 1024;
const MAX_BYTES: usize = 1024 * 1024;

/// Events that are read at once.
const PAGE: usize = 256;

/// The newest events.
#[derive(Debug)]
pub(super) struct Feed {
    recent: Mutex<Recent>,
    /// The newest event that may be told; none before the node is there.
    newest: watch::Sender<Option<u64>>,
}

#[derive(Debug, Default)]
struct Recent {
    /// All events with a higher number are here.
    after: u64,
    newest: u64,
    has_begun: bool,
    events: VecDeque<Arc<Told>>,
    bytes: usize,
}

/// An event as it is told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) seq: u64,
    pub(super) kind: EventKind,
    pub(super) json: String,
}

/// Events that follow each other.
pub(super) struct Page {
    pub(super) events: Vec<Arc<Told>>,
    /// After which event the next page begins.
    pub(super) next: u64,
}

impl Told {
    pub(super) fn of(event: &Event) -> Arc<Self> {
        // An event has only what JSON can say.
        let json = serde_json::to_string(event).unwrap_or_default();
        Arc::new(Self { seq: event.seq, kind: event.kind, json })
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self { recent: Mutex::default(), newest: watch::Sender::new(None) }
    }
}

impl Feed {
    /// The events after this one, at most `most`; none where they are not in memory.
    pub(super) fn page(&self, after: u64, most: usize) -> Option<Page> {
        let recent = self.recent.lock();
        if !recent.has_begun || after < recent.after || after > recent.newest {
            return None;
        }
        let first = recent.events.partition_point(|event| event.seq <= after);
        let events: Vec<_> = recent.events.range(first..).take(most).cloned().collect();
        let is_all = first.saturating_add(events.len()) >= recent.events.len();
        let next = events.last().filter(|_| !is_all).map_or(recent.newest, |event| event.seq);
        Some(Page { events, next })
    }

    /// The newest event that may be told.
    pub(super) async fn newest(&self) -> u64 {
        self.beyond(0).await
    }

    /// The newest event, once there is one of this number or a higher one.
    pub(super) async fn beyond(&self, seq: u64) -> u64 {
        let mut newest = self.newest.subscribe();
        // The sender is `self.newest`: it cannot be gone while this borrow lives.
        let reached = newest.wait_for(|newest| newest.is_some_and(|newest| newest >= seq)).await;
        reached.map_or(seq, |newest| newest.unwrap_or(seq))
    }

    /// Nothing before is in memory; what follows this event is told from here on.
    fn begin(&self, after: u64) {
        *self.recent.lock() = Recent { after, newest: after, has_begun: true, ..Recent::default() };
        self.newest.send_replace(Some(after));
    }

    /// Nothing can be told from memory: whoever follows looks into the file, and hears there what is wrong.
    fn cannot_tell(&self, newest: u64) {
        *self.recent.lock() = Recent::default();
        self.newest.send_replace(Some(newest));
    }

    fn push(&self, events: &[Event], newest: u64) {
        let told: Vec<_> = events.iter().map(Told::of).collect();
        let mut recent = self.recent.lock();
        for event in told {
            recent.bytes = recent.bytes.saturating_add(event.json.len());
            recent.events.push_back(event);
        }
        recent.newest = newest;
        while recent.events.len() > MAX_EVENTS || recent.bytes > MAX_BYTES {
            let Some(oldest) = recent.events.pop_front() else { break };
            recent.bytes = recent.bytes.saturating_sub(oldest.json.len());
            recent.after = oldest.seq;
        }
        drop(recent);
        self.newest.send_replace(Some(newest));
    }
}

/// Reads what is released as it is, once there is a node, for as long as it lives.
pub(super) async fn read<B: Backend>(doors: Arc<Doors<B>>) {
    let node = doors.when_opened().await;
    let (mut after, mut news) = match node.event_news() {
        Ok(found) => found,
        Err(fault) => return tracing::error!(%fault, "events cannot be followed"),
    };
    doors.feed().begin(after);
    loop {
        let newest = *news.borrow_and_update();
        if let Err(fault) = read_on(&doors, &mut after).await {
            tracing::error!(%fault, "events cannot be followed now; it is tried again with the next one");
            doors.feed().cannot_tell(newest);
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Reads all that there is after this event. What was deleted before it was read is passed over: whoever wanted it is told so.
async fn read_on<B: Backend>(doors: &Doors<B>, after: &mut u64) -> Result<(), Fault> {
    let node = doors.node()?;
    if !doors.feed().recent.lock().has_begun {
        doors.feed().begin(*after);
    }
    loop {
        let query = EventQuery { after_seq: Some(*after), kinds: Vec::new(), limit: PAGE };
        let page = match node.event_list(query).await {
            Ok(page) => page,
            Err(fault) => {
                let Some(oldest) = fault.gap().filter(|oldest| oldest > after) else { return Err(fault) };
                tracing::warn!(
                    after_seq = *after,
                    oldest,
                    "events were deleted before they could be told; see event.keep_kib"
                );
                *after = oldest;
                doors.feed().begin(oldest);
                continue;
            }
        };
        *after = page.next_seq;
        if !page.items.is_empty() {
            doors.feed().push(&page.items, *after);
        }
        if page.items.len() < PAGE {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Event {
        serde_json::from_value(serde_json::json!({ "seq": seq, "at": 1, "kind": "invoice_paid" })).unwrap()
    }

    fn seqs(page: Option<Page>) -> Option<(Vec<u64>, u64)> {
        page.map(|page| (page.events.iter().map(|event| event.seq).collect(), page.next))
    }

    #[test]
    fn pages_follow_each_other_without_gap_and_end_with_the_newest() {
        let feed = Feed::default();
        assert_eq!(seqs(feed.page(0, 9)), None, "there is no node yet");
        feed.begin(10);
        assert_eq!(seqs(feed.page(9, 9)), None, "that is in the file");
        assert_eq!(seqs(feed.page(10, 9)), Some((vec![], 10)));
        // Event 12 is not told: numbers may be missing.
        feed.push(&[event(11), event(13)], 14);
        assert_eq!(seqs(feed.page(10, 1)), Some((vec![11], 11)));
        assert_eq!(seqs(feed.page(11, 1)), Some((vec![13], 14)));
        assert_eq!(seqs(feed.page(12, 9)), Some((vec![13], 14)));
        assert_eq!(seqs(feed.page(14, 9)), Some((vec![], 14)));
        assert_eq!(seqs(feed.page(15, 9)), None, "nothing is known of it");
    }

    #[test]
    fn rpc_7_no_more_events_are_kept_than_there_is_room_for() {
        let feed = Feed::default();
        feed.begin(0);
        let all: Vec<_> = (1..=2000).map(event).collect();
        feed.push(&all, 2000);
        assert_eq!(feed.recent.lock().events.len(), MAX_EVENTS);
        let oldest = 2000 - MAX_EVENTS as u64;
        assert_eq!(seqs(feed.page(oldest - 1, 1)), None);
        assert_eq!(seqs(feed.page(oldest, 1)), Some((vec![oldest + 1], oldest + 1)));
        let mut long = event(2001);
        long.message = Some("x".repeat(MAX_BYTES));
        feed.push(&[long], 2001);
        let left = {
            let recent = feed.recent.lock();
            (recent.events.len(), recent.bytes)
        };
        assert_eq!(left, (0, 0));
        assert_eq!(seqs(feed.page(2001, 1)), Some((vec![], 2001)));
    }
}
