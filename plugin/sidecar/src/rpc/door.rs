//! The doors that strangers may knock at: connections are taken in, counted, and spoken HTTP to.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonrpsee::server::{HttpBody, HttpResponse};
use soketto::handshake::http::Server as Handshake;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::auth::{Caller, PROTOCOL};
use super::desk::{Call, Desk};
use super::gate::{Errand, Rules, turned_away, whole};
use super::tls::TlsDoor;
use super::unread::{Patience, Unread};
use super::websocket;

/// How long a request's head may take, and how long a connection may be idle between two.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What is kept of a request's head before all of it is there: one that is longer is refused with 431. A body is taken in pieces of this
/// size.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What the kernel keeps for a reader that is slow.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long nothing is taken in after the kernel could not: too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a connection comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// The port: nobody is let in unknown.
    Port,
    /// The socket file, which its owner alone can open.
    SocketFile,
}

/// What a connection holds: its place, and the watch over its reader.
type Held = (Arc<OwnedSemaphorePermit>, Patience);

/// What is behind a door.
#[derive(Clone)]
pub(super) struct House {
    pub(super) desk: Arc<Desk>,
    pub(super) rules: Arc<Rules>,
    pub(super) stop: watch::Receiver<bool>,
    /// Gone once every connection is.
    pub(super) alive: mpsc::Sender<Infallible>,
}

/// Takes connections in until the house is asked to stop, `places` at once; whoever comes then is turned away. Nothing that a caller
/// does or leaves undone keeps the next one waiting: `receive` is a task of its own.
pub(super) async fn attend<S, F, G>(
    house: House,
    places: usize,
    accept: impl Fn() -> F,
    receive: impl Fn(House, S, Arc<OwnedSemaphorePermit>) -> G,
) where
    S: AsFd,
    F: Future<Output = io::Result<S>>,
    G: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(places));
    loop {
        let stream = tokio::select! {
            stream = accept() => stream,
            () = stopped(house.stop.clone()) => return,
        };
        match (stream, places.clone().try_acquire_owned()) {
            (Ok(stream), Ok(place)) => {
                // A buffer of another size is no reason to refuse.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
                drop(tokio::spawn(receive(house.clone(), stream, Arc::new(place))));
            }
            (Ok(stream), Err(_)) => {
                tracing::warn!("a caller was turned away: there are as many connections as are served at once");
                drop(stream);
            }
            (Err(fault), _) => {
                tracing::warn!(%fault, "no connection of a caller could be taken in");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Resolves once the house is asked to stop.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender is gone with the server.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl House {
    /// A connection to the port, which begins with TLS where there is one.
    pub(super) async fn knock(self, tls: Option<Arc<TlsDoor>>, stream: TcpStream, place: Arc<OwnedSemaphorePermit>) {
        let Some(tls) = tls else { return self.speak(Entrance::Port, stream, place).await };
        let stream = tokio::select! {
            stream = tls.enter(stream) => stream,
            () = stopped(self.stop.clone()) => None,
        };
        if let Some(stream) = stream {
            self.speak(Entrance::Port, stream, place).await;
        }
    }

    /// Speaks HTTP: the same whatever brought the connection.
    pub(super) async fn speak<S>(self, entrance: Entrance, stream: S, place: Arc<OwnedSemaphorePermit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = self.stop.clone();
        let (stream, patience) = Unread::of(stream);
        let service = hyper::service::service_fn(move |request| {
            let (house, held) = (self.clone(), (place.clone(), patience.clone()));
            async move { Ok::<_, Infallible>(house.meet(entrance, request, held).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        // A fault of the connection concerns its caller alone, who sees it.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stopped(stop) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }

    async fn meet(self, entrance: Entrance, request: http::Request<Incoming>, held: Held) -> HttpResponse {
        let caller = match self.rules.verdict(entrance, &request) {
            Ok(Errand::Call(caller)) => caller,
            Ok(Errand::Session(caller)) => return self.upgraded(request, caller, held),
            Ok(Errand::File(file)) => return file.answer(),
            Ok(Errand::Metrics) => return self.rules.metrics().await,
            Err(status) => return turned_away(status),
        };
        match whole(HttpBody::new(request.into_body())).await {
            Ok(body) => self.desk.answer(body, Call { caller, line: None }).await,
            Err(status) => turned_away(status),
        }
    }

    fn upgraded(self, mut request: http::Request<Incoming>, caller: Caller, (place, patience): Held) -> HttpResponse {
        let mut handshake = Handshake::new();
        let Ok(response) = handshake.receive_request(&request) else { return turned_away(StatusCode::BAD_REQUEST) };
        let mut response = response.map(|()| HttpBody::empty());
        if request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL) {
            // A browser that named protocols wants one of them back; the other one is its secret.
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(PROTOCOL));
        }
        let upgrade = hyper::upgrade::on(&mut request);
        // A reader at rest is not slow: a session ends by what waits for it, and by pings.
        patience.have();
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                websocket::run(handshake, upgraded, (self.desk.clone(), caller), stopped(self.stop.clone())).await;
            }
            drop((place, self.alive));
        });
        response
    }
}
