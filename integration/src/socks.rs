//! A SOCKS5 proxy of our own making: it holds each byte that it is told against RFC 1928, connects where a test says, and is as rude as
//! a test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::{Done, until};

/// What the proxy was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The password, by which callers keep their connections apart; the user name is always the same.
    pub password: String,
    /// Whom to connect to: a name as it was given, or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What comes of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A connection to this address, as `ip:port`.
    Connect(String),
    /// This reply code, and the end.
    Reply(u8),
    /// The end, without a word.
    HangUp,
    /// What speaks another protocol says, as soon as it is greeted.
    Say(&'static [u8]),
}

/// The proxy.
pub struct Socks {
    address: String,
    shared: Arc<Mutex<Shared>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: HashMap<String, Answer>,
    requests: Vec<Request>,
    /// What a caller did that the RFC does not let it do.
    faults: Vec<String>,
}

impl Socks {
    /// Listens on a port of its own. A host that no test has named cannot be reached.
    pub async fn start() -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let answering = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let shared = answering.clone();
                tokio::spawn(async move {
                    if let Err(fault) = serve(caller, &shared).await {
                        locked(&shared).faults.push(fault.to_string());
                    }
                });
            }
        });
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on this comes of requests for a host.
    pub fn answer(&self, host: &str, answer: Answer) {
        locked(&self.shared).answers.insert(host.to_owned(), answer);
    }

    /// All requests so far. Fails where one was not as the RFC has it.
    pub fn requests(&self) -> Done<Vec<Request>> {
        let shared = locked(&self.shared);
        match shared.faults.first() {
            Some(fault) => Err(fault.clone().into()),
            None => Ok(shared.requests.clone()),
        }
    }

    /// Waits until there were so many requests for a host; gives all requests for it.
    pub async fn until_asked(&self, host: &str, times: usize) -> Done<Vec<Request>> {
        until(crate::sidecar::LIMIT, &format!("{times} requests for {host}"), async || {
            let found: Vec<Request> = self.requests()?.into_iter().filter(|request| request.host == host).collect();
            Ok((found.len() >= times).then_some(found))
        })
        .await
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A test that panicked while it held the lock has failed already.
fn locked(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn serve(mut caller: TcpStream, shared: &Mutex<Shared>) -> Done<()> {
    let [version, count] = take(&mut caller).await?;
    let mut methods = vec![0; usize::from(count)];
    caller.read_exact(&mut methods).await?;
    if version != 5 || !methods.contains(&2) {
        return Err(format!("a greeting of version {version} that offers {methods:?}").into());
    }
    if let Some(Answer::Say(words)) = every(shared) {
        return Ok(caller.write_all(words).await?);
    }
    caller.write_all(&[5, 2]).await?;
    let [version] = take(&mut caller).await?;
    let (user, password) = (text(&mut caller).await?, text(&mut caller).await?);
    if version != 1 || user != "outrigger" || password.is_empty() {
        return Err(format!("a login of version {version} as {user:?}").into());
    }
    caller.write_all(&[1, 0]).await?;
    let [version, command, reserved, kind] = take(&mut caller).await?;
    if (version, command, reserved) != (5, 1, 0) {
        return Err(format!("a request that begins with {version}, {command}, {reserved}").into());
    }
    let host = match kind {
        1 => std::net::Ipv4Addr::from(take::<4>(&mut caller).await?).to_string(),
        3 => text(&mut caller).await?,
        4 => std::net::Ipv6Addr::from(take::<16>(&mut caller).await?).to_string(),
        other => return Err(format!("an address of kind {other}").into()),
    };
    let port = u16::from_be_bytes(take(&mut caller).await?);
    let answer = {
        let mut shared = locked(shared);
        let answer = shared.answers.get(&host).cloned();
        shared.requests.push(Request { password, host, port });
        answer.unwrap_or(Answer::Reply(4))
    };
    match answer {
        Answer::Connect(target) => {
            let mut peer = TcpStream::connect(target).await?;
            caller.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
            // Either side may end it.
            drop(copy_bidirectional(&mut caller, &mut peer).await);
            Ok(())
        }
        Answer::Reply(code) => Ok(caller.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?),
        Answer::HangUp | Answer::Say(_) => Ok(()),
    }
}

/// What is answered to everybody, under the name `*`.
fn every(shared: &Mutex<Shared>) -> Option<Answer> {
    locked(shared).answers.get("*").cloned()
}

async fn take<const N: usize>(caller: &mut TcpStream) -> Done<[u8; N]> {
    let mut bytes = [0; N];
    caller.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// A text behind a byte with its length.
async fn text(caller: &mut TcpStream) -> Done<String> {
    let mut bytes = vec![0; usize::from(caller.read_u8().await?)];
    caller.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes)?)
}
