//! `event.*`.

use std::sync::Arc;

use jsonrpsee::types::ErrorObjectOwned;
use outrigger_rpc_schema::{
    ErrorKind, EventKind, EventList, EventPage, EventSubscribe, EventSubscribed, EventUnsubscribe, EventUnsubscribed,
    Method,
};

use super::auth::Caller;
use super::desk::Call;
use super::feed::{Page, Told};
use super::rights::Bearers;
use super::serve::Serve;
use super::session::Session;
use super::{Answer, Backend, Doors, EventQuery, Fault, page};

/// Events that a subscription holds at once.
const AT_ONCE: usize = 32;

/// Events that may come while one waits for its reader to take it: then the reader has fallen behind.
pub(super) const MAX_BEHIND: u64 = 512;

impl<B: Backend> Serve<B> for EventList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<EventPage> {
        let query = EventQuery {
            after_seq: self.after_seq,
            kinds: self.kinds.unwrap_or_default(),
            limit: page::limit(self.limit),
        };
        doors.node()?.event_list(query).await
    }
}

impl<B: Backend> Serve<B> for EventSubscribe {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<EventSubscribed> {
        let line = call.line.ok_or_else(Fault::no_session)?;
        let node = doors.node()?;
        let newest = doors.feed().newest().await;
        let after = self.after_seq.unwrap_or(newest);
        if after > newest {
            let problem = format!("is beyond the newest event, {newest}: it is of another database");
            return Err(Fault::invalid_parameter("after_seq", problem));
        }
        // What is no longer kept is told at once.
        node.event_list(EventQuery { after_seq: Some(after), kinds: Vec::new(), limit: 1 }).await?;
        let follower = Follower { after, kinds: self.kinds.unwrap_or_default(), caller: call.caller };
        let id = line.subscribe(|session, id| follower.follow(doors.clone(), session, id))?;
        Ok(EventSubscribed { subscription_id: id.to_string(), after_seq: after })
    }
}

impl<B: Backend> Serve<B> for EventUnsubscribe {
    async fn serve(self, _: Arc<Doors<B>>, call: Call) -> Answer<EventUnsubscribed> {
        let line = call.line.ok_or_else(Fault::no_session)?;
        let ended = self.subscription_id.parse().is_ok_and(|id: u64| line.unsubscribe(id));
        Ok(EventUnsubscribed { ended })
    }
}

/// A subscription.
struct Follower {
    /// The newest event that was told, or passed over.
    after: u64,
    /// All where it is empty.
    kinds: Vec<EventKind>,
    caller: Caller,
}

impl Follower {
    /// Tells of events until the subscription ends; and then why, with the number to go on from.
    async fn follow<B: Backend>(mut self, doors: Arc<Doors<B>>, session: Arc<Session>, id: u64) {
        let why = tokio::select! {
            why = self.run(&doors, &session, id) => why,
            () = doors.stop_requested() => Fault::stopping(),
        };
        let is_over = matches!(why.kind(), ErrorKind::EventBehind | ErrorKind::AuthTokenEnded);
        let why = if why.kind() == ErrorKind::EventGap { why } else { why.after_seq(self.after) };
        let error = serde_json::to_string(&ErrorObjectOwned::from(why)).unwrap_or_default();
        session.unsubscribed(id, notice(id, "error", &error), is_over).await;
    }

    async fn run<B: Backend>(&mut self, doors: &Doors<B>, session: &Session, id: u64) -> Fault {
        loop {
            let page = match doors.feed().page(self.after, AT_ONCE) {
                Some(page) => page,
                None => match self.in_file(doors).await {
                    Ok(page) => page,
                    Err(fault) => return fault,
                },
            };
            for event in &page.events {
                if let Err(fault) = self.tell(doors, session, (id, event.as_ref())).await {
                    return fault;
                }
            }
            let is_all = page.next <= self.after && page.events.is_empty();
            self.after = self.after.max(page.next);
            if is_all {
                doors.feed().beyond(self.after.saturating_add(1)).await;
            }
        }
    }

    async fn in_file<B: Backend>(&self, doors: &Doors<B>) -> Answer<Page> {
        let query = EventQuery { after_seq: Some(self.after), kinds: Vec::new(), limit: AT_ONCE };
        let page = doors.node()?.event_list(query).await?;
        Ok(Page { events: page.items.iter().map(Told::of).collect(), next: page.next_seq })
    }

    async fn tell<B: Backend>(&mut self, doors: &Doors<B>, session: &Session, (id, event): (u64, &Told)) -> Answer<()> {
        if let Caller::Token(token) = &self.caller
            && doors.rights(token).is_none()
        {
            return Err(Fault::token_ended());
        }
        if self.kinds.is_empty() || self.kinds.contains(&event.kind) {
            let too_far = doors.feed().newest().await.saturating_add(MAX_BEHIND);
            tokio::select! {
                biased;
                turn = session.turn() => match turn {
                    Some(turn) => turn.send(notice(id, "event", &event.json)),
                    None => return Err(Fault::stopping()),
                },
                _ = doors.feed().beyond(too_far) => return Err(Fault::event_behind(self.after)),
            }
        }
        self.after = event.seq;
        Ok(())
    }
}

/// A message of a subscription: a notification of JSON-RPC.
fn notice(id: u64, what: &str, json: &str) -> String {
    let method = EventSubscribe::NAME;
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"subscription_id":"{id}","{what}":{json}}}}}"#)
}
