//! Events as they come, over a WebSocket that is opened again where it is lost.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jsonrpsee::core::client::{ClientT, Subscription, SubscriptionClientT, SubscriptionCloseReason};
use jsonrpsee::ws_client::WsClient;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::time::{Instant, sleep_until};

use crate::client::{ByName, Place};
use crate::{CallError, ErrorKind, Event, EventSubscribe, EventSubscribed, EventsEnded, Method, Refusal};

/// Between two attempts to reach a daemon that was lost.
const RETRY: Duration = Duration::from_secs(1);

/// Events after a number, and then those that come. A connection that is lost is made again, and goes on behind the last event that was
/// given: none is missed, and none comes twice.
pub struct Events {
    place: Place,
    asked: EventSubscribe,
    line: Line,
    has_begun: bool,
    is_lost: bool,
    when_lost: Box<dyn FnMut(&CallError) + Send>,
}

/// How far the way to the daemon is. It stands outside the future that waits for an event: where that is dropped again and again, as under
/// short time limits, the next goes on from here.
enum Line {
    /// Not begun.
    Away,
    /// It begins then.
    Paused(Instant),
    /// It is made.
    Opening(Pin<Box<dyn Future<Output = Result<Begun, CallError>> + Send>>),
    /// It leads there.
    Open(Subscribed),
}

/// A connection with its subscription.
struct Subscribed {
    notices: Subscription<Value>,
    /// Ends the connection when it goes.
    _client: WsClient,
}

/// The same, and the number behind which it tells.
struct Begun {
    subscribed: Subscribed,
    after_seq: u64,
}

impl Events {
    pub(crate) fn new(place: Place, asked: EventSubscribe) -> Self {
        Self { place, asked, line: Line::Away, has_begun: false, is_lost: false, when_lost: Box::new(|_| ()) }
    }

    /// Has this told, once each time, when the daemon is lost; it is looked for again then.
    #[must_use]
    pub fn when_lost(mut self, tell: impl FnMut(&CallError) + Send + 'static) -> Self {
        self.when_lost = Box::new(tell);
        self
    }

    /// The number after which the next event comes: what to go on from another time. None before the daemon has answered, where none
    /// was asked for.
    pub fn after_seq(&self) -> Option<u64> {
        self.asked.after_seq
    }

    /// The next event, which is waited for. An error is lasting: the daemon cannot be reached at first, or it will not tell any more, as
    /// with `event_gap`, where what comes next is kept no longer, or with a token that has ended. A future that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Event, CallError> {
        self.next_as().await
    }

    /// The same as it came, with what only a newer version knows.
    pub async fn next_untyped(&mut self) -> Result<Value, CallError> {
        self.next_as().await
    }

    async fn next_as<T: DeserializeOwned>(&mut self) -> Result<T, CallError> {
        loop {
            match self.step().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                // What came and was not given comes again on another line.
                Err(fault) if !self.may_pass(&fault) => {
                    self.line = Line::Away;
                    return Err(fault);
                }
                Err(fault) => {
                    self.line = Line::Paused(Instant::now() + RETRY);
                    if !std::mem::replace(&mut self.is_lost, true) {
                        (self.when_lost)(&fault);
                    }
                }
            }
        }
    }

    /// One step towards the next event. Nothing waits between what it has heard and what it keeps of it.
    async fn step<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CallError> {
        match &mut self.line {
            Line::Away => {
                self.line = Line::Opening(Box::pin(opened(self.place.clone(), self.asked.clone())));
                Ok(None)
            }
            Line::Paused(until) => {
                sleep_until(*until).await;
                self.line = Line::Away;
                Ok(None)
            }
            Line::Opening(opening) => {
                let Begun { subscribed, after_seq } = opening.await?;
                (self.has_begun, self.is_lost) = (true, false);
                self.asked.after_seq = Some(after_seq);
                self.line = Line::Open(subscribed);
                Ok(None)
            }
            Line::Open(Subscribed { notices, .. }) => match notices.next().await {
                Some(Ok(notice)) => self.heard(notice),
                Some(Err(fault)) => Err(CallError::Garbled(fault.to_string())),
                // More came than is held here for whoever takes it: the daemon is there, and has the rest.
                None if matches!(notices.close_reason(), Some(SubscriptionCloseReason::Lagged)) => {
                    self.line = Line::Away;
                    Ok(None)
                }
                None => Err(CallError::Unreachable("the connection has ended".to_owned())),
            },
        }
    }

    /// The event that a notification tells, if it is a new one.
    fn heard<T: DeserializeOwned>(&mut self, mut notice: Value) -> Result<Option<T>, CallError> {
        let garbled = |fault: serde_json::Error| CallError::Garbled(fault.to_string());
        if let Some(event) = notice.get_mut("event").map(Value::take) {
            let seq = event.get("seq").and_then(Value::as_u64);
            let seq = seq.ok_or_else(|| CallError::Garbled("an event without a number".to_owned()))?;
            if self.asked.after_seq.is_some_and(|after| seq <= after) {
                return Ok(None);
            }
            let event = serde_json::from_value(event).map_err(garbled)?;
            self.asked.after_seq = Some(seq);
            return Ok(Some(event));
        }
        let EventsEnded { error, .. } = serde_json::from_value(notice).map_err(garbled)?;
        // Behind events of other kinds. Those behind a gap are gone: whoever asked is to know before it goes on.
        if error.data.kind != ErrorKind::EventGap.name() {
            self.asked.after_seq = self.asked.after_seq.max(error.data.after_seq);
        }
        let code = i32::try_from(error.code).unwrap_or(i32::MAX);
        Err(CallError::Refused(Refusal { code, message: error.message, data: Some(Box::new(error.data)) }))
    }

    /// Whether another attempt may mend it. What never worked is told at once.
    fn may_pass(&self, fault: &CallError) -> bool {
        let is_of_files = matches!(self.place, Place::Directory(_));
        match fault {
            CallError::Refused(refusal) => {
                refusal.data.as_ref().is_some_and(|data| data.retryable || data.kind == ErrorKind::Stopping.name())
            }
            CallError::Garbled(_) => false,
            // While a daemon starts again, the files in its directory are of two runs.
            CallError::Untrusted(_) => self.has_begun && is_of_files,
            CallError::Rejected(status) => self.has_begun && (is_of_files || *status >= 500),
            CallError::NotFound { .. } | CallError::Unreachable(_) => self.has_begun,
        }
    }
}

/// A connection on which the subscription has begun.
async fn opened(place: Place, asked: EventSubscribe) -> Result<Begun, CallError> {
    let client = place.door()?.socket().await?;
    let notices = client.subscribe_to_method(EventSubscribe::NAME).await?;
    let parameters = ByName(to_raw_value(&asked));
    let EventSubscribed { after_seq, .. } = client.request(EventSubscribe::NAME, parameters).await?;
    Ok(Begun { subscribed: Subscribed { notices, _client: client }, after_seq })
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("place", &self.place).field("asked", &self.asked).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    fn events(after_seq: u64) -> Events {
        let asked = EventSubscribe { after_seq: Some(after_seq), kinds: None };
        Events::new(Place::Directory(PathBuf::new()), asked)
    }

    fn told(seq: u64) -> Value {
        json!({ "subscription_id": "1", "event": { "seq": seq, "at": 1, "kind": "channel_painted", "colour": "red" } })
    }

    #[test]
    fn an_event_of_a_newer_version_is_given_as_it_came_and_none_comes_twice() {
        let mut events = events(6);
        let event = events.heard::<Value>(told(7)).unwrap_or_default();
        assert_eq!(event, Some(told(7)["event"].clone()));
        assert!(matches!(events.heard::<Value>(told(7)), Ok(None)));
        assert!(matches!(events.heard::<Event>(told(8)), Ok(Some(Event { seq: 8, .. }))));
        assert_eq!(events.after_seq(), Some(8));

        // What cannot be read is not passed over.
        let garbled = |heard| matches!(heard, Err(CallError::Garbled(_)));
        assert!(garbled(events.heard::<Event>(json!({ "event": { "seq": 9 } }))));
        assert!(garbled(events.heard::<Event>(json!({ "event": { "at": 9 } }))));
        assert!(garbled(events.heard::<Event>(json!({ "subscription_id": "1" }))));
        assert_eq!(events.after_seq(), Some(8));
    }

    #[test]
    fn what_the_last_word_names_is_where_it_goes_on_unless_it_lies_before_or_behind_a_gap() {
        for (kind, retryable, after_seq, may_pass, goes_on) in [
            ("stopping", false, Some(9), true, 9),
            ("event_behind", true, Some(9), true, 9),
            ("event_behind", true, Some(5), true, 6),
            ("event_behind", true, None, true, 6),
            ("event_gap", false, Some(9), false, 6),
        ] {
            let mut events = events(6);
            let data = json!({ "kind": kind, "retryable": retryable, "hint": "", "after_seq": after_seq });
            let error = json!({ "code": 1, "message": "", "data": data });
            let heard = events.heard::<Event>(json!({ "subscription_id": "1", "error": error }));
            assert_eq!(heard.err().map(|fault| events.may_pass(&fault)), Some(may_pass), "{kind}");
            assert_eq!(events.after_seq(), Some(goes_on), "{kind} {after_seq:?}");
        }
    }
}
