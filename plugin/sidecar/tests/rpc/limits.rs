//! What a caller may cost who is slow, or many: connections end by limits that are told, and others are served meanwhile.
//!
//! Time is tokio's paused clock, which moves only when every task waits. What is written to a socket file is there to read at once, so no
//! time passes between the two ends.

use std::time::Duration;

use outrigger_rpc_schema::rendezvous::SOCKET_FILE;
use outrigger_sidecar::rpc::{BODY_TIMEOUT, HEAD_TIMEOUT, MAX_ON_PORT, MAX_ON_SOCKET_FILE, UNREAD_TIMEOUT};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};

use crate::stage::Stage;

/// How often a caller who drips sends something: well within what an idle connection may take.
const DRIP: Duration = Duration::from_secs(7);

/// Asks for an answer of which the buffers of the kernel hold the least part.
fn long() -> String {
    format!("[{}]", [r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#; 6].join(","))
}

/// A request of the socket file, of which the connection stays open.
fn request(body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn balance() -> String {
    request(r#"{"jsonrpc":"2.0","id":1,"method":"wallet.balance"}"#)
}

impl Stage {
    async fn by_file(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join(SOCKET_FILE)).await.expect("connects")
    }

    /// Another client's call by the socket file is answered.
    async fn file_is_served(&self) {
        let mut stream = self.by_file().await;
        stream.write_all(balance().as_bytes()).await.expect("sent");
        let answer = first_words(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"confirmed_sat\":1"), "{answer}");
    }
}

/// What comes first; empty where the connection is over.
async fn first_words(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap_or_default();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// All that is still to come.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // One that was cut off may end with a fault.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test(start_paused = true)]
async fn rpc_7_a_head_that_does_not_end_is_waited_for_so_long_and_nobody_waits_behind_it() {
    let stage = Stage::open().await;
    for begin in ["", "P", "POST / HTTP/1.1\r\nHost: x\r\n"] {
        let (mut slow, start) = (stage.by_file().await, Instant::now());
        slow.write_all(begin.as_bytes()).await.expect("sent");
        stage.file_is_served().await;
        assert_eq!(
            (rest(&mut slow).await.as_str(), start.elapsed().as_secs()),
            ("", HEAD_TIMEOUT.as_secs()),
            "{begin:?}"
        );
    }
    // Each byte that drips in buys no time.
    let (mut slow, start) = (stage.by_file().await, Instant::now());
    while slow.write_all(b"X").await.is_ok() {
        stage.file_is_served().await;
        sleep(DRIP).await;
    }
    assert!(start.elapsed() <= HEAD_TIMEOUT + DRIP, "{:?}", start.elapsed());
    // Nor does a connection stay that had its answer and says nothing more.
    let mut idle = stage.by_file().await;
    idle.write_all(balance().as_bytes()).await.expect("sent");
    assert!(first_words(&mut idle).await.starts_with("HTTP/1.1 200"));
    let start = Instant::now();
    assert_eq!((rest(&mut idle).await.as_str(), start.elapsed().as_secs()), ("", HEAD_TIMEOUT.as_secs()));
}

#[tokio::test(start_paused = true)]
async fn rpc_7_a_body_that_does_not_end_is_refused_with_408_however_it_drips() {
    let stage = Stage::open().await;
    let whole = balance();
    for drips in [false, true] {
        let (mut slow, start) = (stage.by_file().await, Instant::now());
        let mut left = whole.len() - 5;
        slow.write_all(&whole.as_bytes()[..left]).await.expect("sent");
        stage.file_is_served().await;
        while drips && start.elapsed() + DRIP < BODY_TIMEOUT {
            sleep(DRIP).await;
            left += 1;
            slow.write_all(&whole.as_bytes()[left - 1..left]).await.expect("sent");
        }
        assert!(left < whole.len(), "the last byte is kept back");
        let answer = first_words(&mut slow).await;
        assert_eq!(start.elapsed().as_secs(), BODY_TIMEOUT.as_secs(), "{answer}");
        assert!(
            answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("\r\n\r\n"),
            "a status and nothing else: {answer}"
        );
    }
    assert_eq!(stage.orders().len(), 2, "nothing of a body that did not come was carried out");
}

#[tokio::test(start_paused = true)]
async fn rpc_7_an_answer_of_which_nothing_is_taken_is_given_up_and_one_that_is_taken_slowly_is_not() {
    let stage = Stage::open().await;
    let whole = {
        let mut quick = stage.by_file().await;
        quick
            .write_all(request(&long()).replace("Host: x", "Host: x\r\nConnection: close").as_bytes())
            .await
            .expect("sent");
        rest(&mut quick).await
    };
    let mut deaf = stage.by_file().await;
    deaf.write_all(request(&long()).as_bytes()).await.expect("sent");
    sleep(UNREAD_TIMEOUT + DRIP).await;
    stage.file_is_served().await;
    let heard = rest(&mut deaf).await.len();
    assert!(heard > 0 && heard < whole.len() / 2, "{heard} of {}", whole.len());

    let mut slow = stage.by_file().await;
    slow.write_all(request(&long()).replace("Host: x", "Host: x\r\nConnection: close").as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    let start = Instant::now();
    loop {
        sleep(DRIP).await;
        let mut piece = vec![0; 64 * 1024];
        match slow.read(&mut piece).await.expect("not cut off") {
            0 => break,
            length => heard.extend_from_slice(&piece[..length]),
        }
    }
    assert!(start.elapsed() > 2 * UNREAD_TIMEOUT, "it was no slow reader");
    assert_eq!(heard.len(), whole.len());
}

/// A session at rest is not slow: it is asked now and then whether it is there, and nothing else ends it.
#[tokio::test(start_paused = true)]
async fn rpc_7_a_session_may_let_what_it_hears_wait_for_longer_than_an_answer() {
    let stage = Stage::open().await;
    let mut socket = crate::sessions::open(stage.by_file().await, "localhost", &[]).await.expect("opened");
    socket.say(&long()).await;
    sleep(2 * UNREAD_TIMEOUT).await;
    let heard = socket.hear().await.expect("the answer");
    assert_eq!(heard[5]["result"]["info"]["title"], outrigger_rpc_schema::document()["info"]["title"]);
}

#[tokio::test]
async fn rpc_7_a_head_has_so_many_bytes_and_headers() {
    let stage = Stage::open().await;
    let with = |more: Vec<String>| {
        let json = "Content-Type: application/json".to_owned();
        [vec![stage.host(), stage.authorization(), json], more].concat()
    };
    let status = br#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#;
    for (more, expected) in [
        (vec![format!("X: {}", "x".repeat(60 * 1024))], 200),
        (vec![format!("X: {}", "x".repeat(128 * 1024))], 431),
        // Two of `send`'s own, and these three.
        ((0..95).map(|number| format!("X-{number}: x")).collect(), 200),
        ((0..96).map(|number| format!("X-{number}: x")).collect(), 431),
    ] {
        let count = more.len();
        assert_eq!(stage.send("POST", &with(more), status).await.status, expected, "{count} more");
    }
}

#[tokio::test]
async fn rpc_7_the_port_has_so_many_places_and_who_fills_it_keeps_nobody_from_the_socket_file() {
    let stage = Stage::open().await;
    let mut strangers = Vec::new();
    for _ in 0..MAX_ON_PORT {
        strangers.push(TcpStream::connect(stage.server.address()).await.expect("connects"));
    }
    let mut one_more = TcpStream::connect(stage.server.address()).await.expect("the kernel connects");
    assert_eq!(rest(&mut one_more).await, "", "turned away without a word");
    stage.file_is_served().await;
    // None of those who were let in was let go for another.
    let mut last = strangers.pop().expect("a stranger");
    last.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    assert!(first_words(&mut last).await.starts_with("HTTP/1.1 403 "));
    drop(strangers);
    until_served(async || stage.call("wallet.balance", json!({})).await.status == 200).await;
}

#[tokio::test]
async fn rpc_7_the_socket_file_has_so_many_places_too_and_the_port_its_own() {
    let stage = Stage::open().await;
    let mut held = Vec::new();
    for _ in 0..MAX_ON_SOCKET_FILE {
        let mut stream = stage.by_file().await;
        stream.write_all(balance().as_bytes()).await.expect("sent");
        assert!(first_words(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let mut one_more = stage.by_file().await;
    assert_eq!(rest(&mut one_more).await, "", "turned away without a word");
    assert_eq!(stage.call("wallet.balance", json!({})).await.json()["result"]["confirmed_sat"], 1);
    held.pop();
    until_served(async || {
        let mut stream = stage.by_file().await;
        stream.write_all(balance().as_bytes()).await.is_ok()
            && first_words(&mut stream).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

/// Calls again until there is a place.
async fn until_served(mut call: impl AsyncFnMut() -> bool) {
    for _ in 0..100_000 {
        if call().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("places that are free again are given to nobody");
}
