//! A session over WebSocket: one text for each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jsonrpsee::types::error::reject_too_big_request;
use jsonrpsee::types::{Id, Response, ResponsePayload};
use soketto::base::Error as Codec;
use soketto::connection::Error;
use soketto::data::ByteSlice125;
use soketto::handshake::http::Server as Handshake;
use soketto::{Incoming, Receiver, Sender};
use tokio::io::BufStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::auth::Caller;
use super::desk::{Desk, MAX_BODY_BYTES};
use super::session::{LAST_WORDS, Next, Outgoing, Session};

/// How often a caller is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Pings that may go unanswered.
const MAX_SILENT_PINGS: u32 = 3;

type Socket = Compat<BufStream<TokioIo<Upgraded>>>;

/// Serves a connection that has become a WebSocket, until either side ends it or `stop` does.
pub(super) async fn run(
    handshake: Handshake,
    upgraded: Upgraded,
    (desk, caller): (Arc<Desk>, Caller),
    stop: impl Future<Output = ()>,
) {
    let mut builder = handshake.into_builder(BufStream::new(TokioIo::new(upgraded)).compat());
    builder.set_max_message_size(MAX_BODY_BYTES as usize);
    builder.set_max_frame_size(MAX_BODY_BYTES as usize);
    let (sender, receiver) = builder.finish();
    let (session, outgoing) = Session::open(caller, true);
    let _closing = session.closing();
    let unheard = AtomicU32::new(0);
    let concluding = async {
        stop.await;
        session.conclude().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = hear(receiver, &session, &desk, &unheard) => {}
        () = tell(sender, outgoing, &unheard) => {}
        () = concluding => {}
    }
}

/// Takes messages in, as many as there is room for, until the caller goes.
async fn hear(mut receiver: Receiver<Socket>, session: &Arc<Session>, desk: &Arc<Desk>, unheard: &AtomicU32) {
    loop {
        let mut message = Vec::new();
        match receiver.receive(&mut message).await {
            // The next one is read once there is room for this one.
            Ok(Incoming::Data(_)) => session.take(desk, message, session.room().await),
            Ok(Incoming::Pong(_)) => {}
            // What follows is the rest of it, and nothing that could be told from a message.
            Err(Error::MessageTooLarge { .. } | Error::Codec(Codec::PayloadTooLarge { .. })) => {
                session.part(too_big());
                std::future::pending::<()>().await;
            }
            Ok(Incoming::Closed(_)) | Err(_) => return,
        }
        unheard.store(0, Ordering::Relaxed);
    }
}

pub(super) fn too_big() -> String {
    let payload = ResponsePayload::<()>::error(reject_too_big_request(MAX_BODY_BYTES));
    serde_json::to_string(&Response::new(payload, Id::Null)).unwrap_or_default()
}

/// Says what is to be said, until the session is over or the caller is gone.
async fn tell(mut sender: Sender<Socket>, mut outgoing: Outgoing, unheard: &AtomicU32) {
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = tokio::select! {
            next = outgoing.next() => Some(next),
            _ = pings.tick() => None,
        };
        let sent = match next {
            Some(Next::Over(words)) => {
                // Whoever did not read so far may not read this either.
                let _ = tokio::time::timeout(LAST_WORDS, part(sender, words)).await;
                return;
            }
            Some(Next::Say(text)) => outgoing.unless_over(send(&mut sender, text)).await,
            None if unheard.fetch_add(1, Ordering::Relaxed) >= MAX_SILENT_PINGS => return,
            None => outgoing.unless_over(ping(&mut sender)).await,
        };
        if !matches!(sent, Some(Ok(()))) {
            return;
        }
    }
}

async fn send(sender: &mut Sender<Socket>, text: String) -> Result<(), Error> {
    sender.send_text_owned(text).await?;
    sender.flush().await
}

async fn ping(sender: &mut Sender<Socket>) -> Result<(), Error> {
    let nothing: &[u8] = &[];
    let nothing = ByteSlice125::try_from(nothing).map_err(|_| Error::Closed)?;
    sender.send_ping(nothing).await?;
    sender.flush().await
}

async fn part(mut sender: Sender<Socket>, words: Option<String>) -> Result<(), Error> {
    if let Some(text) = words {
        send(&mut sender, text).await?;
    }
    sender.close().await
}
