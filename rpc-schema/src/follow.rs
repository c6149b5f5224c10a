//! Events as they come, over a WebSocket that is opened again where it is lost.

use std::fmt;
use std::time::Duration;

use jsonrpsee::core::client::{ClientT, Subscription, SubscriptionClientT};
use jsonrpsee::ws_client::{PingConfig, WsClient, WsClientBuilder};
use serde_json::value::to_raw_value;

use crate::client::{ByName, Door, Place, Trust};
use crate::{
    CallError, ErrorKind, Event, EventNotice, EventSubscribe, EventSubscribed, EventTold, EventsEnded, Method, Refusal,
    tls,
};

/// Between two attempts to reach a daemon that was lost.
const RETRY: Duration = Duration::from_secs(1);

/// What a connection may take to be made, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events after a number, and then those that come. A connection that is lost is made again, and goes on behind the last event that was
/// given: none is missed, and none comes twice.
pub struct Events {
    place: Place,
    asked: EventSubscribe,
    line: Option<Line>,
    has_begun: bool,
    is_lost: bool,
    when_lost: Box<dyn FnMut(&CallError) + Send>,
}

/// A connection with its subscription.
struct Line {
    notices: Subscription<EventNotice>,
    /// Ends the connection when it goes.
    _client: WsClient,
}

/// Why a line gives no event.
enum Broken {
    /// Another line may.
    Passing(CallError),
    /// Nor will another.
    Lasting(CallError),
}

impl Events {
    pub(crate) fn new(place: Place, asked: EventSubscribe) -> Self {
        Self { place, asked, line: None, has_begun: false, is_lost: false, when_lost: Box::new(|_| ()) }
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
        loop {
            match self.attempt().await {
                Ok(event) => return Ok(event),
                Err(Broken::Lasting(fault)) => return Err(fault),
                Err(Broken::Passing(fault)) => {
                    self.line = None;
                    if !std::mem::replace(&mut self.is_lost, true) {
                        (self.when_lost)(&fault);
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<Event, Broken> {
        loop {
            let line = match &mut self.line {
                Some(line) => line,
                None => {
                    let line = self.open().await?;
                    (self.has_begun, self.is_lost) = (true, false);
                    self.line.insert(line)
                }
            };
            let notice = match line.notices.next().await {
                Some(Ok(notice)) => notice,
                Some(Err(fault)) => return Err(Broken::Lasting(CallError::Garbled(fault.to_string()))),
                None => return Err(Broken::Passing(CallError::Unreachable("the connection has ended".to_owned()))),
            };
            match notice {
                EventNotice::Told(EventTold { event, .. }) => {
                    let is_new = self.asked.after_seq.is_none_or(|after| event.seq > after);
                    if is_new {
                        self.asked.after_seq = Some(event.seq);
                        return Ok(event);
                    }
                }
                EventNotice::Ended(EventsEnded { error, .. }) => {
                    let code = i32::try_from(error.code).unwrap_or(i32::MAX);
                    let refusal = Refusal { code, message: error.message, data: Some(Box::new(error.data)) };
                    return Err(self.judged(CallError::Refused(refusal)));
                }
            }
        }
    }

    /// A connection on which the subscription has begun.
    async fn open(&mut self) -> Result<Line, Broken> {
        let door = self.place.door().map_err(|fault| self.judged(fault))?;
        let client = door.socket().await.map_err(|fault| self.judged(fault))?;
        let begun = async {
            let notices = client.subscribe_to_method(EventSubscribe::NAME).await?;
            let parameters = ByName(to_raw_value(&self.asked));
            let EventSubscribed { after_seq, .. } = client.request(EventSubscribe::NAME, parameters).await?;
            Ok((notices, after_seq))
        };
        let (notices, after_seq) = begun.await.map_err(|fault| self.judged(fault))?;
        self.asked.after_seq = Some(after_seq);
        Ok(Line { notices, _client: client })
    }

    /// Whether another attempt may mend it. What never worked is told at once.
    fn judged(&self, fault: CallError) -> Broken {
        let is_of_files = matches!(self.place, Place::Directory(_));
        let may_pass = match &fault {
            CallError::Refused(refusal) => {
                refusal.data.as_ref().is_some_and(|data| data.retryable || data.kind == ErrorKind::Stopping.name())
            }
            CallError::Garbled(_) => false,
            // While a daemon starts again, the files in its directory are of two runs.
            CallError::Untrusted(_) => self.has_begun && is_of_files,
            CallError::Rejected(status) => self.has_begun && (is_of_files || *status >= 500),
            CallError::NotFound { .. } | CallError::Unreachable(_) => self.has_begun,
        };
        if may_pass { Broken::Passing(fault) } else { Broken::Lasting(fault) }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("place", &self.place).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Door {
    /// A connection on which both sides speak.
    async fn socket(&self) -> Result<WsClient, CallError> {
        // One attempt: what is shown goes to nobody whom an answer names.
        let builder = WsClientBuilder::default()
            .set_headers(self.headers())
            .max_redirections(1)
            .connection_timeout(PATIENCE)
            .request_timeout(PATIENCE)
            .enable_ws_ping(PingConfig::new());
        let (scheme, builder) = match &self.trust {
            Trust::Plain => ("ws", builder),
            Trust::Machine => {
                tls::choose_cryptography();
                ("wss", builder)
            }
            Trust::These(certificates) => ("wss", builder.with_custom_cert_store(tls::trusting(certificates)?)),
            Trust::Own(certificates) => ("wss", builder.with_custom_cert_store(tls::trusting_first(certificates)?)),
        };
        Ok(builder.build(format!("{scheme}://{}", self.address)).await?)
    }
}
