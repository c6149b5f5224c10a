//! Inbound connections: accepted, limited until they have shown a key and an `init`, then run.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::connection::{self, Live};
use super::handshake;
use super::socket::Socket;
use super::{Shared, Stopped};
use crate::lock::Mutex;
use crate::manager::outbox::Origin;

/// Connections that have not yet shown a key and an acceptable `init`. One more drops the oldest of them: an honest
/// peer is through within a round trip or two, so silent ones cannot keep it out (DOS-7).
pub(super) const MAX_STRANGERS: usize = 100;
/// Rest after an error of `accept`, such as too many open files, which would otherwise return at once.
const ACCEPT_REST: Duration = Duration::from_secs(1);

/// Opens a listener and accepts until the network stops.
pub(super) async fn listen(net: &Arc<Shared>, address: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    tracing::info!("listening for peers at {local}");
    let net = Arc::clone(net);
    let mut stopped = net.stopped();
    tokio::spawn(async move {
        let strangers = Strangers::default();
        tokio::select! {
            () = accept(&net, &listener, &strangers) => {}
            () = stopped.wait() => {}
        }
    });
    Ok(local)
}

async fn accept(net: &Arc<Shared>, listener: &TcpListener, strangers: &Strangers) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => strangers.admit(net, stream, from),
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// Runs an inbound connection to its end. `known` is called once the peer has shown a key and an acceptable `init`.
pub(super) async fn answer(net: &Arc<Shared>, socket: Socket, mut stopped: Stopped, known: impl FnOnce()) {
    let met = tokio::select! {
        met = meet(net, socket) => met,
        () = stopped.wait() => return,
    };
    match met {
        Ok(live) => {
            known();
            live.run(stopped).await;
        }
        Err(fault) => tracing::debug!("an inbound connection came to nothing: {fault}"),
    }
}

async fn meet(net: &Arc<Shared>, socket: Socket) -> Result<Live, connection::MeetFault> {
    let session = handshake::respond(&net.node_secret, socket).await?;
    connection::join(net, session, Origin::Peer).await
}

/// The tasks of connections that are not yet known peers, oldest first.
#[derive(Clone, Default)]
struct Strangers {
    tasks: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: VecDeque<(u64, AbortHandle)>,
}

impl Strangers {
    fn admit(&self, net: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
        tracing::debug!("connection from {from}");
        // Held until the task is listed, so that it cannot leave the list before.
        let mut queue = self.tasks.lock();
        let number = queue.next;
        queue.next = number.wrapping_add(1);
        let net = Arc::clone(net);
        let stopped = net.stopped();
        let strangers = self.clone();
        let task = tokio::spawn(async move {
            answer(&net, Socket::from(stream), stopped, || strangers.remove(number)).await;
            strangers.remove(number);
        });
        queue.waiting.push_back((number, task.abort_handle()));
        if queue.waiting.len() > MAX_STRANGERS
            && let Some((_, oldest)) = queue.waiting.pop_front()
        {
            oldest.abort();
        }
    }

    fn remove(&self, number: u64) {
        self.tasks.lock().waiting.retain(|(waiting, _)| *waiting != number);
    }
}
