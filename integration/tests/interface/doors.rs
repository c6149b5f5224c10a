//! The doors of a daemon, and bytes said there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_integration::{Dice, Done};
use outrigger_rpc_schema::Scope;
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, COOKIE_FILE, SOCKET_FILE};
use serde_json::Value;
use soketto::handshake::{Client, ServerResponse, client::Header};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// What an answer may take: far more than any method does. Beyond it the daemon hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Longer than the longest message.
const TOO_LONG: usize = 1024 * 1024 + 1;

/// Where something is said, and as whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// HTTP on the port, with the cookie.
    Port,
    /// HTTP on the port, with the token of this place among [`TOKENS`].
    Token(usize),
    /// HTTP on the socket file.
    SocketFile,
    /// A WebSocket, with the cookie.
    WebSocket,
    /// The pipe of a daemon that was started as a child: one for all visitors.
    Pipe,
}

/// What the tokens of a visitor may do.
pub(crate) const TOKENS: [&[Scope]; 4] =
    [&[Scope::Read, Scope::Invoice], &[Scope::Pay], &[Scope::Channel], &[Scope::Read]];

/// What came back.
#[derive(Debug)]
pub(crate) enum Heard {
    /// An answer, and none where there was nothing to say.
    Answer(Option<Value>),
    /// The head said that nothing was taken.
    TurnedAway(u16),
    /// The WebSocket is closed to a reader that fell behind.
    Behind,
}

/// Somebody who can go in by each of the doors.
pub(crate) struct Visitor {
    place: PathBuf,
    address: String,
    cookie: String,
    /// One for each of [`TOKENS`].
    tokens: Vec<String>,
    socket: Option<Socket>,
    pipe: Arc<Mutex<Pipe>>,
    /// Notices of subscriptions that have come meanwhile.
    pub(crate) notices: Vec<Value>,
}

/// What is heard is taken in all the time, as any client does: a reader that answers no ping while it is busy elsewhere is given up.
struct Socket {
    sender: soketto::Sender<Compat<TcpStream>>,
    heard: UnboundedReceiver<Result<Vec<u8>, soketto::connection::Error>>,
}

impl Visitor {
    /// A visitor of the daemon whose network directory this is.
    pub(crate) fn of(place: &Path, tokens: &[String], pipe: Arc<Mutex<Pipe>>) -> Done<Self> {
        let address = std::fs::read_to_string(place.join(ADDRESS_FILE))?.trim().to_owned();
        let cookie = format!("Basic {}", STANDARD.encode(std::fs::read_to_string(place.join(COOKIE_FILE))?.trim()));
        let tokens = tokens.iter().map(|token| format!("Bearer {token}")).collect();
        Ok(Self { place: place.to_owned(), address, cookie, tokens, socket: None, pipe, notices: Vec::new() })
    }

    /// Says this at a door, and gives what comes back, where something `is_awaited`.
    pub(crate) async fn say(&mut self, door: Door, message: &[u8], is_awaited: bool) -> Done<Heard> {
        let heard = tokio::time::timeout(LIMIT, async {
            match door {
                Door::Port => self.post(TcpStream::connect(&self.address).await?, Some(&self.cookie), message).await,
                Door::Token(which) => {
                    let token = self.tokens.get(which).ok_or("no such token")?;
                    self.post(TcpStream::connect(&self.address).await?, Some(token), message).await
                }
                Door::SocketFile => {
                    self.post(UnixStream::connect(self.place.join(SOCKET_FILE)).await?, None, message).await
                }
                Door::WebSocket => self.over_socket(message, is_awaited).await,
                Door::Pipe => {
                    let pipe = Arc::clone(&self.pipe);
                    pipe.lock().await.say(message, is_awaited, &mut self.notices).await
                }
            }
        });
        heard.await.map_err(|_| format!("there was no answer in {} s", LIMIT.as_secs()))?
    }

    async fn post<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        secret: Option<&str>,
        message: &[u8],
    ) -> Done<Heard> {
        let authorization = secret.map(|secret| format!("Authorization: {secret}\r\n")).unwrap_or_default();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n{authorization}\
             Content-Length: {}\r\n\r\n",
            self.address,
            message.len()
        );
        answer(stream, &[head.as_bytes(), message].concat()).await
    }

    /// A request that no door takes, and the status that it must have.
    pub(crate) async fn intrude(&self, dice: &mut Dice) -> Done<Option<String>> {
        let (host, json) = (format!("Host: {}\r\n", self.address), "Content-Type: application/json\r\n");
        let secret = format!("Authorization: {}\r\n", self.cookie);
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"wallet.new_address"}"#;
        let (verb, headers, length, wanted) = match dice.below(9) {
            0 => (
                dice.one_of(["GET", "PUT", "DELETE", "OPTIONS", "PATCH"]),
                format!("{host}{json}{secret}"),
                body.len(),
                405,
            ),
            1 => ("POST", format!("{host}{json}"), body.len(), 401),
            2 => (
                "POST",
                format!("{host}{json}Authorization: Bearer outr_{:032x}\r\n", dice.below(u64::MAX)),
                body.len(),
                401,
            ),
            3 => (
                "POST",
                format!("{host}{json}Authorization: Basic {}\r\n", STANDARD.encode("__cookie__:00")),
                body.len(),
                401,
            ),
            4 => ("POST", format!("{host}{secret}Content-Type: text/plain\r\n"), body.len(), 415),
            5 => ("POST", format!("Host: evil.example\r\n{json}{secret}"), body.len(), 403),
            6 => ("POST", format!("{host}{json}{secret}Origin: http://evil.example\r\n"), body.len(), 403),
            7 => ("POST", format!("{host}{json}{secret}"), TOO_LONG, 413),
            _ => ("POST", format!("{host}{json}{secret}X: {}\r\n", "x".repeat(500_000)), body.len(), 431),
        };
        let head = format!("{verb} / HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
        let stream = TcpStream::connect(&self.address).await?;
        let heard = tokio::time::timeout(LIMIT, answer(stream, format!("{head}{body}").as_bytes())).await;
        match heard {
            Ok(Ok(Heard::TurnedAway(status))) if status == wanted => Ok(None),
            // The rest of a head that is too long was not read: the connection may end under it.
            Ok(Err(_)) if wanted == 431 => Ok(None),
            Ok(heard) => {
                Ok(Some(format!("wanted HTTP {wanted}, and heard {heard:?}: {}", head.get(..300).unwrap_or(&head))))
            }
            Err(_) => Ok(Some(format!("no answer, and HTTP {wanted} was wanted"))),
        }
    }

    async fn over_socket(&mut self, message: &[u8], is_awaited: bool) -> Done<Heard> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open().await?,
        };
        match std::str::from_utf8(message) {
            Ok(text) => socket.sender.send_text(text).await?,
            Err(_) => socket.sender.send_binary(message).await?,
        }
        socket.sender.flush().await?;
        if !is_awaited {
            self.socket = Some(socket);
            return Ok(Heard::Answer(None));
        }
        loop {
            let heard = socket.heard.recv().await.ok_or("the connection is closed")??;
            let heard: Value = serde_json::from_slice(&heard)?;
            if heard["method"] != "event.subscribe" {
                self.socket = Some(socket);
                return Ok(Heard::Answer(Some(heard)));
            }
            let is_behind = heard["params"]["error"]["data"]["kind"] == "event_behind";
            self.notices.push(heard);
            if is_behind {
                return Ok(Heard::Behind);
            }
        }
    }

    async fn open(&self) -> Done<Socket> {
        let headers = [Header { name: "Authorization", value: self.cookie.as_bytes() }];
        let stream = TcpStream::connect(&self.address).await?;
        let mut client = Client::new(stream.compat(), &self.address, "/");
        client.set_headers(&headers);
        match client.handshake().await? {
            ServerResponse::Accepted { .. } => {
                let (sender, mut receiver) = client.into_builder().finish();
                let (hears, heard) = unbounded_channel();
                tokio::spawn(async move {
                    loop {
                        let mut message = Vec::new();
                        let received = receiver.receive_data(&mut message).await.map(|_| message);
                        let is_over = received.is_err();
                        if hears.send(received).is_err() || is_over {
                            return;
                        }
                    }
                });
                Ok(Socket { sender, heard })
            }
            other => Err(format!("no WebSocket was opened: {other:?}").into()),
        }
    }
}

/// A daemon that was started as a child, and its pipe. It is killed with this.
pub(crate) struct Pipe {
    child: Child,
    says: ChildStdin,
    hears: Lines<BufReader<ChildStdout>>,
}

impl Pipe {
    /// Starts a daemon that serves its standard input and output.
    pub(crate) fn open(mut command: Command) -> Done<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let says = child.stdin.take().ok_or("no pipe")?;
        let hears = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        Ok(Self { child, says, hears })
    }

    /// Says one line, and gives the answer where one `is_awaited`; what comes of subscriptions before it is put aside.
    async fn say(&mut self, message: &[u8], is_awaited: bool, notices: &mut Vec<Value>) -> Done<Heard> {
        self.says.write_all(&[message, b"\n"].concat()).await?;
        self.says.flush().await?;
        if !is_awaited {
            return Ok(Heard::Answer(None));
        }
        loop {
            let Some(line) = self.hears.next_line().await? else {
                return Err(format!("the child has hung up: {:?}", self.child.try_wait()?).into());
            };
            let heard: Value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}"))?;
            if heard["method"] != "event.subscribe" {
                return Ok(Heard::Answer(Some(heard)));
            }
            notices.push(heard);
        }
    }

    /// Hangs up, which ends the child; gives its exit code.
    pub(crate) async fn close(self) -> Done<Option<i32>> {
        let Self { mut child, says, .. } = self;
        drop(says);
        Ok(tokio::time::timeout(LIMIT, child.wait()).await??.code())
    }
}

/// Sends a request and reads the answer to its end.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Done<Heard> {
    // What is turned away early is not read to its end, and then this may fail: the answer counts.
    let sent = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status else { return Err(format!("no HTTP: {sent:?} {read:?} {text:?}").into()) };
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        200 if body.is_empty() || body == "null" => Ok(Heard::Answer(None)),
        200 => Ok(Heard::Answer(Some(serde_json::from_str(body).map_err(|error| format!("{error}: {body:?}"))?))),
        status => Ok(Heard::TurnedAway(status)),
    }
}
