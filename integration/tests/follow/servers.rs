//! Servers that do to a follower what a daemon of ours seldom does, or never.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_integration::Done;
use outrigger_integration::sidecar::LIMIT;
use outrigger_rpc_schema::{CallError, Client, EventSubscribe, Events, NodeInfo};
use serde_json::{Value, json};
use soketto::handshake::Server;
use soketto::handshake::server::Response;
use soketto::{Data, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

const TOKEN: &str = "outr_0123456789";

/// Somebody who follows, at the side of the server.
struct Caller {
    sender: soketto::Sender<Compat<TcpStream>>,
    receiver: soketto::Receiver<Compat<TcpStream>>,
    id: Value,
    after_seq: u64,
}

impl Caller {
    /// The next one, who has asked and waits for an answer.
    async fn of(listener: &TcpListener) -> Done<Self> {
        let (stream, _) = tokio::time::timeout(LIMIT, listener.accept()).await??;
        let mut server = Server::new(stream.compat());
        let key = server.receive_request().await?.key();
        server.send_response(&Response::Accept { key, protocol: None }).await?;
        let (sender, mut receiver) = server.into_builder().finish();
        let mut heard = Vec::new();
        tokio::time::timeout(LIMIT, receiver.receive_data(&mut heard)).await??;
        let asked: Value = serde_json::from_slice(&heard)?;
        assert_eq!(asked["method"], "event.subscribe");
        let after_seq = asked["params"]["after_seq"].as_u64().ok_or("no number is asked for")?;
        Ok(Self { sender, receiver, id: asked["id"].clone(), after_seq })
    }

    /// The same, who is answered.
    async fn served(listener: &TcpListener) -> Done<Self> {
        let mut caller = Self::of(listener).await?;
        let result = json!({ "subscription_id": "1", "after_seq": caller.after_seq });
        caller.send(json!({ "jsonrpc": "2.0", "id": caller.id, "result": result })).await?;
        Ok(caller)
    }

    async fn send(&mut self, message: Value) -> Done<()> {
        self.sender.send_text(message.to_string()).await?;
        Ok(self.sender.flush().await?)
    }

    async fn tell(&mut self, seq: u64) -> Done<()> {
        let event = json!({ "seq": seq, "at": 1, "kind": "token_created" });
        let params = json!({ "subscription_id": "1", "event": event });
        self.send(json!({ "jsonrpc": "2.0", "method": "event.subscribe", "params": params })).await
    }

    /// All up to this one, whether it takes them or not, and the last that it has a second time.
    async fn flood(&mut self, until: u64) -> Done<()> {
        for seq in self.after_seq..=until {
            self.tell(seq).await?;
        }
        self.has_taken_all().await
    }

    /// The last word.
    async fn end(&mut self, kind: &str, retryable: bool, after_seq: u64) -> Done<()> {
        let data = json!({ "kind": kind, "retryable": retryable, "hint": "", "after_seq": after_seq });
        let params = json!({ "subscription_id": "1", "error": { "code": 1, "message": "", "data": data } });
        self.send(json!({ "jsonrpc": "2.0", "method": "event.subscribe", "params": params })).await
    }

    async fn refuse(&mut self, code: i32) -> Done<()> {
        let error = json!({ "code": code, "message": "beyond the newest event" });
        self.send(json!({ "jsonrpc": "2.0", "id": self.id, "error": error })).await
    }

    /// Until its side of the connection has taken all that was sent: an answer to a ping comes behind it.
    async fn has_taken_all(&mut self) -> Done<()> {
        self.sender.send_ping(b"all"[..].try_into()?).await?;
        self.sender.flush().await?;
        let mut heard = Vec::new();
        loop {
            match tokio::time::timeout(LIMIT, self.receiver.receive(&mut heard)).await?? {
                Incoming::Pong(_) => return Ok(()),
                Incoming::Data(Data::Text(_) | Data::Binary(_)) => {}
                Incoming::Closed(why) => return Err(format!("it has left: {why:?}").into()),
            }
        }
    }
}

/// A server's socket, one who will follow it, and how often that one has told of a loss.
async fn pair(after_seq: u64) -> Done<(TcpListener, Events, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::with_token(&listener.local_addr()?.to_string(), TOKEN)?;
    let losses = Arc::new(AtomicUsize::new(0));
    let told = losses.clone();
    let events = client.follow(EventSubscribe { after_seq: Some(after_seq), kinds: None });
    let events = events.when_lost(move |_| {
        told.fetch_add(1, Ordering::Relaxed);
    });
    Ok((listener, events, losses))
}

async fn next(events: &mut Events) -> Done<u64> {
    Ok(tokio::time::timeout(LIMIT, events.next()).await??.seq)
}

#[tokio::test]
async fn rpc_who_takes_events_too_slowly_gets_each_once_all_the_same() -> Done<()> {
    const ALL: u64 = 5000;
    let (listener, mut events, losses) = pair(0).await?;
    let flooded = Notify::new();
    let asked = Mutex::new(Vec::new());
    let server = async {
        loop {
            let mut caller = Caller::served(&listener).await?;
            asked.lock().map_err(|fault| fault.to_string())?.push(caller.after_seq);
            // One that has gone again with what it has will ask for the rest.
            if caller.flood(ALL).await.is_ok() {
                flooded.notify_one();
            }
        }
    };
    let taker = async {
        let mut told = vec![next(&mut events).await?];
        flooded.notified().await;
        while told.len() < ALL as usize {
            told.push(next(&mut events).await?);
        }
        Done::Ok(told)
    };
    let told = tokio::select! {
        ended = server => return ended,
        told = taker => told?,
    };
    assert_eq!(told, (1..=ALL).collect::<Vec<_>>());
    let asked = asked.into_inner()?;
    assert!(asked.len() > 1 && asked[1] < ALL && asked.is_sorted_by(|one, next| one < next), "{asked:?}");
    assert_eq!(losses.load(Ordering::Relaxed), 0, "the daemon was there all the time");
    Ok(())
}

#[tokio::test]
async fn rpc_short_limits_on_each_event_lose_none_and_come_to_a_connection() -> Done<()> {
    const HALF: u64 = 20;
    let (listener, mut events, losses) = pair(0).await?;
    // The server goes on when somebody has given up waiting.
    let given_up = Notify::new();
    let server = async {
        // It takes long to answer.
        let mut caller = Caller::of(&listener).await?;
        for _ in 0..5 {
            given_up.notified().await;
        }
        let result = json!({ "subscription_id": "1", "after_seq": 0 });
        caller.send(json!({ "jsonrpc": "2.0", "id": caller.id, "result": result })).await?;
        for seq in 1..=HALF {
            given_up.notified().await;
            caller.tell(seq).await?;
        }
        caller.has_taken_all().await?;
        drop(caller);
        let mut caller = Caller::served(&listener).await?;
        assert_eq!(caller.after_seq, HALF);
        for seq in HALF + 1..=2 * HALF {
            given_up.notified().await;
            caller.tell(seq).await?;
        }
        Done::Ok(caller)
    };
    let taker = async {
        let mut told = vec![];
        while told.len() < 2 * HALF as usize {
            match tokio::time::timeout(Duration::from_millis(1), events.next()).await {
                Ok(event) => told.push(event?.seq),
                Err(_) => given_up.notify_one(),
            }
        }
        Done::Ok(told)
    };
    let both = async { tokio::try_join!(server, taker) };
    let (_caller, told) = tokio::time::timeout(LIMIT, both).await??;
    assert_eq!(told, (1..=2 * HALF).collect::<Vec<_>>());
    assert_eq!(losses.load(Ordering::Relaxed), 1);
    let other = listener.into_std()?;
    assert_eq!(
        other.accept().err().map(|fault| fault.kind()),
        Some(io::ErrorKind::WouldBlock),
        "two connections, no more"
    );
    Ok(())
}

/// The word that it fell behind says where the daemon was, the one of a gap what is gone.
#[tokio::test]
async fn rpc_a_last_word_says_where_the_next_subscription_begins_and_a_gap_is_told_first() -> Done<()> {
    let (listener, mut events, losses) = pair(6).await?;
    let server = async {
        let mut caller = Caller::served(&listener).await?;
        caller.tell(7).await?;
        caller.end("event_behind", true, 9).await?;
        let mut again = Caller::served(&listener).await?;
        assert_eq!(again.after_seq, 9);
        for seq in 9..=10 {
            again.tell(seq).await?;
        }
        again.end("event_gap", false, 20).await?;
        Done::Ok((caller, again))
    };
    let taker = async {
        let told = (next(&mut events).await?, next(&mut events).await?);
        Done::Ok((told, tokio::time::timeout(LIMIT, events.next()).await?))
    };
    let (_callers, (told, gap)) = tokio::try_join!(server, taker)?;
    assert_eq!((told, losses.load(Ordering::Relaxed)), ((7, 10), 1));
    assert_eq!(gap.err().as_ref().and_then(CallError::kind), Some("event_gap"));
    assert_eq!(events.after_seq(), Some(10));
    Ok(())
}

/// As after a restore: the numbers begin again.
#[tokio::test]
async fn rpc_a_number_that_a_restored_daemon_does_not_know_ends_the_following() -> Done<()> {
    let (listener, mut events, losses) = pair(6).await?;
    let server = async {
        let mut caller = Caller::served(&listener).await?;
        caller.tell(7).await?;
        caller.has_taken_all().await?;
        drop(caller);
        let mut caller = Caller::of(&listener).await?;
        assert_eq!(caller.after_seq, 7);
        caller.refuse(-32602).await?;
        Done::Ok(caller)
    };
    let taker = async { Done::Ok((next(&mut events).await?, tokio::time::timeout(LIMIT, events.next()).await?)) };
    let (_caller, (seq, refused)) = tokio::try_join!(server, taker)?;
    assert_eq!((seq, losses.load(Ordering::Relaxed)), (7, 1));
    assert!(matches!(&refused, Err(CallError::Refused(refusal)) if refusal.code == -32602), "{refused:?}");
    assert_eq!(events.after_seq(), Some(7));
    Ok(())
}

/// What cannot be read is an error, and is not passed over by whoever asks again.
#[tokio::test]
async fn rpc_an_event_that_cannot_be_read_is_asked_for_again() -> Done<()> {
    let (listener, mut events, losses) = pair(6).await?;
    let server = async {
        let mut caller = Caller::served(&listener).await?;
        let params = json!({ "subscription_id": "1", "event": { "seq": 7, "kind": 7 } });
        caller.send(json!({ "jsonrpc": "2.0", "method": "event.subscribe", "params": params })).await?;
        caller.tell(8).await?;
        let mut again = Caller::served(&listener).await?;
        assert_eq!(again.after_seq, 6);
        again.tell(7).await?;
        Done::Ok((caller, again))
    };
    let taker = async { Done::Ok((tokio::time::timeout(LIMIT, events.next()).await?, next(&mut events).await?)) };
    let (_callers, (garbled, seq)) = tokio::try_join!(server, taker)?;
    assert!(matches!(garbled, Err(CallError::Garbled(_))), "{garbled:?}");
    assert_eq!((seq, losses.load(Ordering::Relaxed)), (7, 0));
    Ok(())
}

/// One request is answered so; the head of it.
async fn redirected(listener: &TcpListener, status: u16, location: &str) -> Done<String> {
    let (mut stream, _) = tokio::time::timeout(LIMIT, listener.accept()).await??;
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if tokio::time::timeout(LIMIT, stream.read_buf(&mut head)).await?? == 0 {
            return Err("it has left before its request was whole".into());
        }
    }
    let answer = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    Ok(String::from_utf8(head)?)
}

#[tokio::test]
async fn rpc_5_a_redirect_is_an_error_and_takes_the_token_nowhere() -> Done<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0")?;
    elsewhere.set_nonblocking(true)?;
    let (here, there) = (listener.local_addr()?, elsewhere.local_addr()?);
    let client = Client::with_token(&here.to_string(), TOKEN)?;
    for status in [301, 302, 307, 308] {
        for location in [format!("ws://{there}/"), format!("http://{there}/"), "/elsewhere".to_owned()] {
            let mut events = client.follow(EventSubscribe::default());
            let asked = async { Done::Ok(tokio::time::timeout(LIMIT, events.next()).await?.map(|event| event.seq)) };
            let (head, told) = tokio::try_join!(redirected(&listener, status, &location), asked)?;
            assert!(head.starts_with("GET / ") && head.contains(TOKEN), "{head}");
            assert!(matches!(told, Err(CallError::Rejected(code)) if code == status), "{status} {location}: {told:?}");

            let asked = async { Done::Ok(tokio::time::timeout(LIMIT, client.call(NodeInfo {})).await?.map(|_| ())) };
            let (head, told) = tokio::try_join!(redirected(&listener, status, &location), asked)?;
            assert!(head.starts_with("POST / ") && head.contains(TOKEN), "{head}");
            assert!(matches!(told, Err(CallError::Rejected(code)) if code == status), "{status} {location}: {told:?}");
        }
    }
    // Who had gone there would have been there before the error came.
    assert_eq!(elsewhere.accept().err().map(|fault| fault.kind()), Some(io::ErrorKind::WouldBlock));
    let here = listener.into_std()?;
    assert_eq!(here.accept().err().map(|fault| fault.kind()), Some(io::ErrorKind::WouldBlock), "nor here again");
    Ok(())
}
