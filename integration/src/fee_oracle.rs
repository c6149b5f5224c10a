//! A door before bitcoind's RPC that says of fees what a test wants, and passes everything else on.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Done, Fault};

/// Satoshi per 1000 weight units in a bitcoin per 1000 virtual bytes.
const SAT_PER_KW: f64 = 25_000_000.0;

/// Stands before one bitcoind, for one node.
pub struct FeeOracle {
    port: u16,
    feerate: Arc<watch::Sender<Option<u32>>>,
    accepting: JoinHandle<()>,
}

impl FeeOracle {
    /// Listens on a port of its own and passes calls to the bitcoind at `target`.
    pub async fn start(target: &str) -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let feerate = Arc::new(watch::Sender::new(None));
        let desk = Desk { target: target.to_owned(), feerate: feerate.clone() };
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let desk = desk.clone();
                // A caller that goes away in the middle of a call is no fault of the test.
                tokio::spawn(async move { drop(desk.serve(caller).await) });
            }
        });
        Ok(Self { port, feerate, accepting })
    }

    /// Where to call instead of bitcoind, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port to call instead of bitcoind's.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on bitcoind's estimates and the least that its mempool takes are this many satoshi per 1000 weight units.
    pub fn say(&self, sat_per_kw: u32) {
        self.feerate.send_replace(Some(sat_per_kw));
    }
}

impl Drop for FeeOracle {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct Desk {
    target: String,
    feerate: Arc<watch::Sender<Option<u32>>>,
}

/// One HTTP message: its head with the empty line, and its body.
struct Exchange {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Desk {
    /// Answers the calls that come on one connection.
    async fn serve(&self, mut caller: TcpStream) -> Done<()> {
        let mut bitcoind = None;
        while let Some(request) = read(&mut caller).await? {
            let answer = self.answer(&request, &mut bitcoind).await?;
            caller.write_all(&answer.head).await?;
            caller.write_all(&answer.body).await?;
        }
        Ok(())
    }

    async fn answer(&self, request: &Exchange, bitcoind: &mut Option<TcpStream>) -> Done<Exchange> {
        let Some(sat_per_kw) = *self.feerate.borrow() else { return self.ask(request, bitcoind).await };
        let feerate = f64::from(sat_per_kw) / SAT_PER_KW;
        let call: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let mut told = match call["method"].as_str() {
            Some("estimatesmartfee") => {
                let result = json!({ "feerate": feerate, "blocks": 2 });
                json!({ "result": result, "error": null, "id": call["id"] })
            }
            Some("getmempoolinfo") => {
                let mut told: Value = serde_json::from_slice(&self.ask(request, bitcoind).await?.body)?;
                told["result"]["mempoolminfee"] = json!(feerate);
                told
            }
            _ => return self.ask(request, bitcoind).await,
        };
        let body = as_bitcoind_writes(&mut told).into_bytes();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        Ok(Exchange { head: head.into_bytes(), body })
    }

    /// Asks bitcoind, on the connection that is there or, where it has ended, on another.
    async fn ask(&self, request: &Exchange, bitcoind: &mut Option<TcpStream>) -> Done<Exchange> {
        if let Some(stream) = bitcoind
            && let Ok(answer) = exchange(stream, request).await
        {
            return Ok(answer);
        }
        exchange(bitcoind.insert(TcpStream::connect(&self.target).await?), request).await
    }
}

/// The text of an answer, with each feerate as bitcoind writes it: eight decimals.
fn as_bitcoind_writes(told: &mut Value) -> String {
    let mut written = Vec::new();
    for name in FEERATES {
        if let Some(feerate) = told["result"].get_mut(name)
            && let Some(bitcoin) = feerate.as_f64()
        {
            *feerate = json!(name);
            written.push((format!("\"{name}\":\"{name}\""), format!("\"{name}\":{bitcoin:.8}")));
        }
    }
    written.iter().fold(told.to_string(), |text, (place, feerate)| text.replace(place, feerate))
}

/// The members of the answers that are in bitcoin per 1000 virtual bytes.
const FEERATES: [&str; 4] = ["feerate", "mempoolminfee", "minrelaytxfee", "incrementalrelayfee"];

async fn exchange(bitcoind: &mut TcpStream, request: &Exchange) -> Done<Exchange> {
    bitcoind.write_all(&request.head).await?;
    bitcoind.write_all(&request.body).await?;
    Ok(read(bitcoind).await?.ok_or("bitcoind gave no answer")?)
}

/// Reads one message; none at the end of the connection.
async fn read(from: &mut TcpStream) -> Done<Option<Exchange>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let length = content_length(bytes.get(..end).unwrap_or_default())?;
            if bytes.len() >= end + 4 + length {
                let body = bytes.split_off(end + 4);
                return Ok(Some(Exchange { head: bytes, body }));
            }
        }
        match from.read(&mut buffer).await? {
            0 if bytes.is_empty() => return Ok(None),
            0 => return Err(Fault::from("the connection ended within a message")),
            count => bytes.extend(buffer.iter().take(count)),
        }
    }
}

fn content_length(head: &[u8]) -> Done<usize> {
    for line in std::str::from_utf8(head)?.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            return Ok(value.trim().parse()?);
        }
    }
    Ok(0)
}
