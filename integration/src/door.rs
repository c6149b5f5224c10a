//! The port of a daemon without a client before it: whatever is shown there, in whatever way, and what comes back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, COOKIE_FILE, network_directory};
use serde_json::{Value, json};
use soketto::connection::Error;
use soketto::handshake::{Client, ServerResponse, client::Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::sidecar::LIMIT;
use crate::{Done, Sidecar};

/// What the JSON-RPC port of one start of a daemon takes.
#[derive(Clone, Debug)]
pub struct Door {
    address: String,
    owner: String,
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head, in small letters.
    pub head: String,
    /// The body.
    pub body: String,
}

/// How a secret is shown by whoever opens a WebSocket.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// As the value of `Authorization`.
    Header(&'a str),
    /// As a protocol beside the daemon's own, which is the one way that a browser has.
    Protocol(&'a str),
}

/// A WebSocket.
pub struct Session {
    sender: soketto::Sender<Compat<TcpStream>>,
    receiver: soketto::Receiver<Compat<TcpStream>>,
}

impl Door {
    /// The port that a daemon has now; its next start has another, and another cookie.
    pub fn of(node: &Sidecar) -> Done<Self> {
        let place = network_directory(node.directory(), "regtest");
        let address = std::fs::read_to_string(place.join(ADDRESS_FILE))?.trim().to_owned();
        let cookie = std::fs::read_to_string(place.join(COOKIE_FILE))?;
        Ok(Self { address, owner: format!("Basic {}", STANDARD.encode(cookie.trim())) })
    }

    /// What the owner shows as `Authorization`: the cookie.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// A GET with this `Authorization`.
    pub async fn get(&self, path: &str, authorization: Option<&str>) -> Done<Answer> {
        self.request("GET", path, authorization, "").await
    }

    /// A call of JSON-RPC with this `Authorization`.
    pub async fn call(&self, method: &str, parameters: &Value, authorization: Option<&str>) -> Done<Answer> {
        self.request("POST", "/", authorization, &request(method, parameters)).await
    }

    async fn request(&self, verb: &str, path: &str, authorization: Option<&str>, body: &str) -> Done<Answer> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let shown = authorization.map(|shown| format!("Authorization: {shown}\r\n")).unwrap_or_default();
        let request = format!(
            "{verb} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n{shown}\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await??;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
        Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    /// Opens a WebSocket; or gives the status that it is refused with.
    pub async fn session(&self, shown: Shown<'_>) -> Done<Result<Session, u16>> {
        let headers = match shown {
            Shown::Header(value) => vec![Header { name: "Authorization", value: value.as_bytes() }],
            Shown::Protocol(_) => Vec::new(),
        };
        let stream = TcpStream::connect(&self.address).await?;
        let mut client = Client::new(stream.compat(), &self.address, "/");
        client.set_headers(&headers);
        if let Shown::Protocol(secret) = shown {
            client.add_protocol("outrigger");
            client.add_protocol(secret);
        }
        Ok(match client.handshake().await? {
            ServerResponse::Accepted { .. } => {
                let (sender, receiver) = client.into_builder().finish();
                Ok(Session { sender, receiver })
            }
            ServerResponse::Rejected { status_code } | ServerResponse::Redirect { status_code, .. } => Err(status_code),
        })
    }
}

impl Session {
    /// Calls a method. Nothing else may be under way, or come by itself.
    pub async fn call(&mut self, method: &str, parameters: &Value) -> Done<Value> {
        self.say(request(method, parameters)).await
    }

    /// Sends this request as it is. Nothing else may be under way, or come by itself.
    pub async fn send(&mut self, request: &Value) -> Done<Value> {
        self.say(request.to_string()).await
    }

    async fn say(&mut self, request: String) -> Done<Value> {
        self.sender.send_text(request).await?;
        self.sender.flush().await?;
        self.hear().await?.ok_or_else(|| "the session has ended".into())
    }

    /// The next message; none once the daemon has closed the session.
    pub async fn hear(&mut self) -> Done<Option<Value>> {
        let mut heard = Vec::new();
        match tokio::time::timeout(LIMIT, self.receiver.receive_data(&mut heard)).await? {
            Ok(_) => Ok(Some(serde_json::from_slice(&heard)?)),
            // Where the last of what was sent was not read, the end is no orderly one.
            Err(Error::Closed | Error::Io(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn request(method: &str, parameters: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": parameters }).to_string()
}
