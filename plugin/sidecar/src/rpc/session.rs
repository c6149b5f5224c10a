//! A session: a connection on which messages go both ways, whatever frames them. What it may hold is bounded: calls that have
//! no answer yet, messages that wait for their reader, subscriptions. A caller that does not read is not read either.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::auth::Caller;
use super::desk::{Call, Desk};
use super::{Answer, Fault};
use crate::lock::Mutex;

/// Calls of one session that wait for their answer or for room to give it.
const MAX_CALLS: u32 = 16;

/// Messages of one session that wait for their reader.
const MAX_WAITING: usize = 16;

/// Subscriptions of one session.
pub(super) const MAX_SUBSCRIPTIONS: usize = 32;

/// How long calls under way and last words may take where a session ends.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);

/// How a session ends.
#[derive(Clone, Debug, Default)]
struct End {
    /// What is said last, behind all that waits for its reader.
    words: Option<String>,
}

/// A connection on which messages go both ways.
pub(super) struct Session {
    caller: Caller,
    out: mpsc::Sender<String>,
    room: Arc<Semaphore>,
    end: watch::Sender<Option<End>>,
    subscriptions: Mutex<Subscriptions>,
    /// Whether a reader that falls behind loses the connection, or its subscription alone.
    ends_behind: bool,
}

#[derive(Default)]
struct Subscriptions {
    running: BTreeMap<u64, AbortHandle>,
    last: u64,
}

/// What is to be said on a session.
pub(super) struct Outgoing {
    texts: mpsc::Receiver<String>,
    end: watch::Receiver<Option<End>>,
}

/// A session as one call of it sees it.
#[derive(Clone)]
pub(super) struct Line {
    session: Arc<Session>,
    /// What the call has begun, and what goes on once its answer is said.
    begun: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
}

/// Ends the session when its connection does.
pub(super) struct Closing(Arc<Session>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.finish(End::default());
        let running = std::mem::take(&mut self.0.subscriptions.lock().running);
        running.values().for_each(AbortHandle::abort);
    }
}

impl Session {
    /// A session of this caller, and what is to be said on it.
    pub(super) fn open(caller: Caller, ends_behind: bool) -> (Arc<Self>, Outgoing) {
        let (out, texts) = mpsc::channel(MAX_WAITING);
        let (end, ended) = watch::channel(None);
        let room = Arc::new(Semaphore::new(MAX_CALLS as usize));
        let session = Self { caller, out, room, end, subscriptions: Mutex::default(), ends_behind };
        (Arc::new(session), Outgoing { texts, end: ended })
    }

    /// What ends the session when it is dropped.
    pub(super) fn closing(self: &Arc<Self>) -> Closing {
        Closing(self.clone())
    }

    /// Room for another call. There is none while too many have no answer yet; once the session has ended, never.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        loop {
            match self.room.clone().acquire_owned().await {
                Ok(room) if self.end.borrow().is_none() => return room,
                Ok(_) | Err(_) => std::future::pending::<()>().await,
            }
        }
    }

    /// Answers a message, beside others.
    pub(super) fn take(self: &Arc<Self>, desk: &Arc<Desk>, message: Vec<u8>, room: OwnedSemaphorePermit) {
        let (session, desk) = (self.clone(), desk.clone());
        let line = Line { session: self.clone(), begun: Arc::default() };
        tokio::spawn(async move {
            let call = Call { caller: session.caller.clone(), line: Some(line.clone()) };
            tokio::select! {
                reply = desk.reply(message, call) => {
                    if let Some(text) = reply {
                        session.say(text).await;
                    }
                }
                () = session.cut_off() => {}
            }
            for begun in std::mem::take(&mut *line.begun.lock()) {
                let _ = begun.send(());
            }
            drop(room);
        });
    }

    /// Says something, once there is room for it. Whether somebody may hear it.
    pub(super) async fn say(&self, text: String) -> bool {
        self.out.send(text).await.is_ok()
    }

    /// Resolves when there is room to say something, which is then said at once by what it gives.
    pub(super) async fn turn(&self) -> Option<mpsc::Permit<'_, String>> {
        self.out.reserve().await.ok()
    }

    /// Ends the session once its calls have their answers.
    pub(super) async fn conclude(&self) {
        // Whoever has all the room: no call is under way. What is read from now on finds none.
        let _ = tokio::time::timeout(LAST_WORDS, self.room.acquire_many(MAX_CALLS)).await;
        self.finish(End::default());
    }

    /// Ends the session with these words, behind what waits for its reader.
    pub(super) fn part(&self, words: String) {
        self.finish(End { words: Some(words) });
    }

    /// A subscription has ended: its reader is told, and where it fell behind, or may not read any more, the connection ends.
    pub(super) async fn unsubscribed(&self, id: u64, words: String, is_behind: bool) {
        self.forget(id);
        if is_behind && self.ends_behind {
            self.part(words);
        } else {
            self.say(words).await;
        }
    }

    /// Forgets a subscription, and says whether there was one.
    pub(super) fn forget(&self, id: u64) -> Option<AbortHandle> {
        self.subscriptions.lock().running.remove(&id)
    }

    fn finish(&self, end: End) {
        self.end.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert(end);
            is_first
        });
    }

    /// Resolves when nobody will hear what is said any more.
    async fn cut_off(&self) {
        self.out.closed().await;
    }
}

impl Line {
    /// Begins a subscription, which `follow` makes of its number. It begins once the call that asked for it is answered.
    pub(super) fn subscribe<F>(&self, follow: impl FnOnce(Arc<Session>, u64) -> F) -> Answer<u64>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut subscriptions = self.session.subscriptions.lock();
        if subscriptions.running.len() >= MAX_SUBSCRIPTIONS {
            return Err(Fault::too_many_subscriptions(MAX_SUBSCRIPTIONS));
        }
        subscriptions.last = subscriptions.last.saturating_add(1);
        let id = subscriptions.last;
        let (answered, begins) = oneshot::channel();
        self.begun.lock().push(answered);
        let following = follow(self.session.clone(), id);
        let task = tokio::spawn(async move {
            let _ = begins.await;
            following.await;
        });
        subscriptions.running.insert(id, task.abort_handle());
        Ok(id)
    }

    /// Ends a subscription of this session.
    pub(super) fn unsubscribe(&self, id: u64) -> bool {
        self.session.forget(id).map(|task| task.abort()).is_some()
    }
}

/// What to do next with a session's outgoing side.
pub(super) enum Next {
    Say(String),
    /// The session is over once this is said.
    Over(Option<String>),
}

impl Outgoing {
    /// What is to be said next.
    pub(super) async fn next(&mut self) -> Next {
        tokio::select! {
            biased;
            end = ended(&mut self.end) => match self.texts.try_recv() {
                Ok(text) => Next::Say(text),
                Err(_) => Next::Over(end.words),
            },
            text = self.texts.recv() => text.map_or(Next::Over(None), Next::Say),
        }
    }

    /// Does `saying`, unless the session ends and that takes too long then. None where it was given up.
    pub(super) async fn unless_over<T>(&self, saying: impl Future<Output = T>) -> Option<T> {
        let mut end = self.end.clone();
        tokio::select! {
            said = saying => Some(said),
            () = async { ended(&mut end).await; tokio::time::sleep(LAST_WORDS).await } => None,
        }
    }
}

async fn ended(end: &mut watch::Receiver<Option<End>>) -> End {
    match end.wait_for(Option::is_some).await {
        Ok(end) => end.clone().unwrap_or_default(),
        // The session is gone.
        Err(_) => End::default(),
    }
}
