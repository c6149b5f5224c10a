//! WebSocket and the socket file: the same interface, and events as they come.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outrigger_rpc_schema::rendezvous::SOCKET_FILE;
use outrigger_rpc_schema::{EventKind, EventNotice, Scope, TokenRevoke};
use serde_json::{Value, json};
use soketto::connection::Error;
use soketto::handshake::{Client, ServerResponse, client::Header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::stage::{NODE_ID, PAGE, Stage, judge};

/// What any of these tests may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Socket<T> {
    sender: soketto::Sender<Compat<T>>,
    receiver: soketto::Receiver<Compat<T>>,
}

/// Opens a WebSocket with these headers; or the status that it is refused with.
pub(crate) async fn open<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    host: &str,
    headers: &[(&str, &str)],
) -> Result<Socket<T>, u16> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let mut client = Client::new(stream.compat(), host, "/");
    client.set_headers(&headers);
    let response = client.handshake().await.expect("an answer");
    match response {
        ServerResponse::Accepted { .. } => {
            let (sender, receiver) = client.into_builder().finish();
            Ok(Socket { sender, receiver })
        }
        ServerResponse::Rejected { status_code } | ServerResponse::Redirect { status_code, .. } => Err(status_code),
    }
}

impl Stage {
    async fn socket_with(&self, headers: &[(&str, &str)]) -> Result<Socket<TcpStream>, u16> {
        let stream = TcpStream::connect(self.server.address()).await.expect("connects");
        open(stream, &self.server.address().to_string(), headers).await
    }

    /// A WebSocket of the owner's.
    async fn socket(&self) -> Socket<TcpStream> {
        let authorization = self.authorization();
        let value = authorization.strip_prefix("Authorization: ").expect("the header");
        self.socket_with(&[("Authorization", value)]).await.expect("opened")
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Socket<T> {
    pub(crate) async fn say(&mut self, text: &str) {
        self.sender.send_text(text).await.expect("sent");
        self.sender.flush().await.expect("sent");
    }

    /// The next message; none once the server has closed.
    pub(crate) async fn hear(&mut self) -> Option<Value> {
        let mut message = Vec::new();
        let heard = tokio::time::timeout(LIMIT, self.receiver.receive_data(&mut message)).await.expect("in time");
        match heard {
            Ok(_) => Some(as_told(serde_json::from_slice(&message).expect("JSON"))),
            Err(Error::Closed) => None,
            Err(Error::Io(_)) => None,
            Err(other) => panic!("{other}"),
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()).await;
        let answer = self.hear().await.expect("an answer");
        judge(method, &answer);
        answer
    }

    async fn subscribe(&mut self, params: Value) -> Value {
        self.call("event.subscribe", params).await["result"].clone()
    }

    /// The number of the next event.
    async fn next_seq(&mut self) -> u64 {
        let heard = self.hear().await.expect("an event");
        assert_eq!(heard["method"], "event.subscribe", "{heard}");
        heard["params"]["event"]["seq"].as_u64().unwrap_or_else(|| panic!("no event: {heard}"))
    }
}

/// A message; where it is a notice, all of it is what the types of the schema have, from which clients are made.
fn as_told(message: Value) -> Value {
    if message.get("method").is_some() {
        let read: EventNotice = serde_json::from_value(message["params"].clone()).expect("a notice of the schema");
        assert_eq!(serde_json::to_value(read).expect("is written"), message["params"]);
    }
    message
}

#[tokio::test]
async fn rpc_3_bad_input_80_a_websocket_is_opened_by_whom_a_call_is_taken_from_and_by_nobody_else() {
    let stage = Stage::open().await;
    let token = stage.token("page", &[Scope::Read]);
    let bearer = format!("Bearer {token}");
    for (headers, status) in [
        (vec![], 401),
        (vec![("Authorization", "Bearer outr_00")], 401),
        (vec![("Authorization", bearer.as_str()), ("Origin", "http://evil.example")], 403),
        (vec![("Authorization", bearer.as_str()), ("Origin", "null")], 403),
        (vec![("Authorization", bearer.as_str()), ("Origin", "file://")], 403),
        (vec![("Sec-WebSocket-Protocol", "outrigger")], 401),
        (vec![("Sec-WebSocket-Protocol", "outrigger, outr_00")], 401),
    ] {
        assert_eq!(stage.socket_with(&headers).await.err(), Some(status), "{headers:?}");
    }
    let stream = TcpStream::connect(stage.server.address()).await.expect("connects");
    assert_eq!(open(stream, "evil.example", &[("Authorization", &bearer)]).await.err(), Some(403));
    let mut named = stage.socket_with(&[("Authorization", &bearer), ("Origin", PAGE)]).await.expect("opened");
    assert_eq!(named.call("wallet.balance", json!({})).await["result"]["confirmed_sat"], 1);
    // A browser can set no header but this.
    let protocols = format!("outrigger, {token}");
    let request = format!(
        "GET / HTTP/1.1\r\n{}\r\nOrigin: {PAGE}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n",
        stage.host()
    );
    let mut stream = TcpStream::connect(stage.server.address()).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 1000];
    let length = stream.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("sec-websocket-protocol: outrigger\r\n"), "{answer}");
    assert!(!answer.contains(&token), "the secret is not sent back");
}

#[tokio::test]
async fn rpc_calls_over_websocket_are_those_over_http() {
    let stage = Stage::open().await;
    let mut socket = stage.socket().await;
    assert_eq!(socket.call("wallet.balance", json!({})).await["result"]["confirmed_sat"], 1);
    assert_eq!(socket.call("chanel.open", json!({})).await["error"]["code"], -32601);
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"node.status","params":{{"a":{}{}}}}}"#,
        "[".repeat(99),
        "]".repeat(99)
    );
    for bad in ["", "{", deep.as_str(), r#"{"jsonrpc":"2.0","id":1,"method":"node.status","method":"node.stop"}"#] {
        socket.say(bad).await;
        assert_eq!(socket.hear().await.expect("an answer")["error"]["code"], -32700, "{bad}");
    }
    let pay = json!({ "jsonrpc": "2.0", "method": "payment.send", "params": { "invoice": "lnbcrt1" } });
    socket.say(&pay.to_string()).await;
    assert_eq!(socket.hear().await.expect("an answer")["error"]["data"]["kind"], "notification_refused");
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "wallet.balance" });
    socket.say(&json!([call, call]).to_string()).await;
    assert_eq!(socket.hear().await.expect("an answer").as_array().map(Vec::len), Some(2));
    socket.say(&Value::Array(vec![call; 21]).to_string()).await;
    assert_eq!(socket.hear().await.expect("an answer")["error"]["code"], -32010);
    // A notification that moves nothing has no answer: the next one is that of the next call.
    socket.say(&json!({ "jsonrpc": "2.0", "method": "wallet.balance" }).to_string()).await;
    assert_eq!(socket.call("node.status", json!({})).await["result"]["phase"], "starting");
}

#[tokio::test]
async fn bad_input_81_a_message_of_1_mib_is_read_and_one_byte_more_is_not() {
    let stage = Stage::open().await;
    let mut socket = stage.socket().await;
    let padded = |length: usize| {
        let mut text = r#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#.to_owned();
        text.push_str(&" ".repeat(length - text.len()));
        text
    };
    socket.say(&padded(1024 * 1024)).await;
    assert_eq!(socket.hear().await.expect("an answer")["result"]["phase"], "starting");
    socket.say(&padded(1024 * 1024 + 1)).await;
    assert_eq!(socket.hear().await.expect("an answer")["error"]["code"], -32007);
    assert_eq!(socket.hear().await, None, "the connection is closed");
}

#[tokio::test]
async fn rpc_events_are_replayed_and_go_on_without_gap_or_repetition() {
    let stage = Stage::empty().await;
    for _ in 0..3000 {
        stage.node.happens(EventKind::InvoicePaid, "before");
    }
    stage.doors.open(stage.node.clone());
    let mut socket = stage.socket().await;
    let begun = socket.subscribe(json!({ "after_seq": 5 })).await;
    assert_eq!(begun, json!({ "subscription_id": "1", "after_seq": 5 }));
    let node = stage.node.clone();
    let more = tokio::spawn(async move {
        for _ in 0..3000 {
            node.happens(EventKind::PaymentFailed, "meanwhile");
            tokio::task::yield_now().await;
        }
    });
    for expected in 6..=6000 {
        assert_eq!(socket.next_seq().await, expected);
    }
    more.await.expect("all happened");
    // Another, by its kind, from where the first one stands.
    let mut other = stage.socket().await;
    other.subscribe(json!({ "after_seq": 2990, "kinds": ["payment_failed"] })).await;
    assert_eq!(other.next_seq().await, 3001);
    // One that names no number hears what comes.
    let mut live = stage.socket().await;
    assert_eq!(live.subscribe(json!({})).await["after_seq"], 6000);
    stage.node.happens(EventKind::ChannelReady, "now");
    assert_eq!((live.next_seq().await, socket.next_seq().await), (6001, 6001));
}

#[tokio::test]
async fn rpc_a_subscription_names_what_it_cannot_tell() {
    let stage = Stage::open().await;
    for _ in 0..9 {
        stage.node.happens(EventKind::InvoicePaid, "one");
    }
    stage.node.gap.store(4, Ordering::Relaxed);
    let mut socket = stage.socket().await;
    let gap = socket.call("event.subscribe", json!({ "after_seq": 3 })).await;
    assert_eq!((&gap["error"]["data"]["kind"], &gap["error"]["data"]["after_seq"]), (&json!("event_gap"), &json!(4)));
    let ahead = socket.call("event.subscribe", json!({ "after_seq": 10 })).await;
    assert_eq!(ahead["error"]["data"]["parameter"], "after_seq");
    let over_http = stage.call("event.subscribe", json!({})).await;
    assert_eq!(over_http.error(), (1703, "event_no_session".to_owned()));
    for number in 1..=32 {
        assert_eq!(socket.subscribe(json!({})).await["subscription_id"], number.to_string());
    }
    let refused = socket.call("event.subscribe", json!({})).await;
    assert_eq!(refused["error"]["data"]["kind"], "event_too_many_subscriptions");
    assert_eq!(stage.socket().await.subscribe(json!({})).await["subscription_id"], "1", "another session has its own");
    for (id, ended) in [("7", true), ("7", false), ("x", false)] {
        assert_eq!(socket.call("event.unsubscribe", json!({ "subscription_id": id })).await["result"]["ended"], ended);
    }
    assert_eq!(socket.subscribe(json!({})).await["subscription_id"], "33");
}

#[tokio::test]
async fn rpc_6_a_token_that_is_taken_back_ends_its_connections() {
    let stage = Stage::open().await;
    let token = stage.token("page", &[Scope::Read]);
    let bearer = format!("Bearer {token}");
    let mut follower = stage.socket_with(&[("Authorization", &bearer)]).await.expect("opened");
    follower.subscribe(json!({})).await;
    let mut caller = stage.socket_with(&[("Authorization", &bearer)]).await.expect("opened");
    assert_eq!(caller.call("node.stop", json!({})).await["error"]["data"]["kind"], "auth_scope_missing");
    stage.client().call(TokenRevoke { name: "page".into() }).await.expect("taken back");
    assert_eq!(caller.call("wallet.balance", json!({})).await["error"]["data"]["kind"], "auth_token_ended");
    stage.node.happens(EventKind::InvoicePaid, "secret");
    let last = follower.hear().await.expect("why it ends");
    assert_eq!(last["params"]["error"]["data"]["kind"], "auth_token_ended", "{last}");
    assert_eq!(follower.hear().await, None, "the connection is closed");
}

/// A socket that takes in little: what it does not read waits at the server.
async fn narrow(stage: &Stage) -> Socket<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let stream = socket.connect(stage.server.address()).await.expect("connects");
    let authorization = stage.authorization();
    let value = authorization.strip_prefix("Authorization: ").expect("the header");
    open(stream, &stage.server.address().to_string(), &[("Authorization", value)]).await.expect("opened")
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_7_bad_input_86_a_reader_that_falls_behind_is_closed_with_the_number_to_go_on_from() {
    let stage = Stage::open().await;
    let mut slow = narrow(&stage).await;
    slow.subscribe(json!({})).await;
    // Others hear all of it meanwhile, one by one: nothing is ahead of the reader that it did not wait for.
    let mut quick = stage.socket().await;
    quick.subscribe(json!({})).await;
    for number in 1..=1500 {
        stage.node.happens(EventKind::InvoicePaid, &"x".repeat(1000));
        assert_eq!(quick.next_seq().await, number);
    }
    let (mut last, mut ended) = (0, None);
    while let Some(heard) = slow.hear().await {
        match heard["params"]["event"]["seq"].as_u64() {
            Some(seq) => {
                assert_eq!(seq, last + 1);
                last = seq;
            }
            None => ended = Some(heard),
        }
    }
    let ended = ended.expect("the reader is told");
    let data = &ended["params"]["error"]["data"];
    assert_eq!((&data["kind"], &data["retryable"]), (&json!("event_behind"), &json!(true)));
    let after = data["after_seq"].as_u64().expect("a number");
    assert!(last == after && after < 1500, "{last} {after}");
    let mut again = stage.socket().await;
    again.subscribe(json!({ "after_seq": last })).await;
    for expected in last + 1..=1500 {
        assert_eq!(again.next_seq().await, expected);
    }
}

/// Where events are deleted faster than they are told, nobody waits for ever: who wanted them hears of the gap, and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_7_events_that_are_deleted_before_they_are_told_are_a_gap_and_no_silence() {
    let stage = Stage::open().await;
    let mut follower = stage.socket().await;
    follower.subscribe(json!({})).await;
    stage.node.happens(EventKind::InvoicePaid, "told");
    assert_eq!(follower.next_seq().await, 1);
    stage.node.gap.store(3, Ordering::Relaxed);
    for label in ["deleted", "deleted", "kept"] {
        stage.node.happens(EventKind::InvoicePaid, label);
    }
    let ended = follower.hear().await.expect("why it ends");
    let data = &ended["params"]["error"]["data"];
    assert_eq!((&data["kind"], &data["after_seq"]), (&json!("event_gap"), &json!(3)), "{ended}");
    follower.subscribe(json!({ "after_seq": 3 })).await;
    assert_eq!(follower.next_seq().await, 4);
    stage.node.happens(EventKind::InvoicePaid, "live again");
    assert_eq!(follower.next_seq().await, 5);
}

/// Resident memory of this process, clients included.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_7_a_thousand_subscribers_of_which_half_never_read_cost_bounded_memory_and_hold_up_no_payment() {
    const READERS: usize = 500;
    const EVENTS: u64 = 900;
    /// The readers keep up: they are waited for after so many.
    const STRIDE: u64 = 50;
    let stage = Stage::open().await;
    let mut deaf = Vec::new();
    for _ in 0..READERS {
        let mut socket = narrow(&stage).await;
        socket.subscribe(json!({})).await;
        deaf.push(socket);
    }
    let (tells, mut told) = tokio::sync::mpsc::channel(READERS);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..READERS {
        let mut socket = stage.socket().await;
        socket.subscribe(json!({})).await;
        let tells = tells.clone();
        readers.spawn(async move {
            for expected in 1..=EVENTS {
                assert_eq!(socket.next_seq().await, expected);
                if expected % STRIDE == 0 {
                    tells.send(()).await.expect("somebody waits");
                }
            }
        });
    }
    let (before, pages) = (resident_bytes(), stage.node.pages.load(Ordering::Relaxed));
    let mut paid = 0;
    for number in 1..=EVENTS {
        stage.node.happens(EventKind::InvoicePaid, &"x".repeat(1000));
        if number % STRIDE == 0 {
            for _ in 0..READERS {
                told.recv().await.expect("a reader");
            }
            let answer = stage.call("payment.send", json!({ "invoice": "lnbcrt1" })).await;
            assert_eq!(answer.json()["result"]["state"], "pending");
            paid += 1;
        }
    }
    while let Some(read) = readers.join_next().await {
        read.expect("each reader hears each event once");
    }
    assert_eq!(paid, 18);
    // Not two pages of each reader's, and not one of each event's for each.
    let read = stage.node.pages.load(Ordering::Relaxed) - pages;
    assert!(read < 2 * EVENTS as usize + 2 * READERS, "events were read {read} times");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 150 * 1024 * 1024, "{grown} bytes more");
    drop(deaf);
}

#[tokio::test]
async fn rpc_the_socket_file_is_the_owners_alone_and_needs_no_cookie() {
    let stage = Stage::open().await;
    let path = stage.directory.path().join(SOCKET_FILE);
    assert_eq!(stage.server.socket_file(), Some(path.as_path()));
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let post = |headers: &str, body: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let status = r#"{"jsonrpc":"2.0","id":1,"method":"wallet.balance"}"#;
    for (headers, expected) in [
        ("Content-Type: application/json\r\n", "HTTP/1.1 200"),
        ("Content-Type: text/plain\r\n", "HTTP/1.1 415"),
        ("Content-Type: application/json\r\nOrigin: http://evil.example\r\n", "HTTP/1.1 403"),
    ] {
        let mut stream = UnixStream::connect(&path).await.expect("connects");
        stream.write_all(post(headers, status).as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(expected), "{headers}: {answer}");
    }
    let stream = UnixStream::connect(&path).await.expect("connects");
    let mut socket = open(stream, "localhost", &[]).await.expect("opened");
    socket.subscribe(json!({})).await;
    stage.node.happens(EventKind::InvoicePaid, "paid");
    assert_eq!(socket.next_seq().await, 1);
    stage.server.stop().await;
    assert!(!path.exists());
    let mut words = Vec::new();
    while let Some(heard) = socket.hear().await {
        words.push(heard);
    }
    assert!(UnixStream::connect(&path).await.is_err());
}

#[tokio::test]
async fn rpc_stop_over_websocket_is_answered_before_the_connection_ends() {
    let stage = Stage::open().await;
    let mut socket = stage.socket().await;
    let params = json!({ "node_id": NODE_ID, "funding_sat": 1, "idempotency_key": "slow" });
    let open = json!({ "jsonrpc": "2.0", "id": 7, "method": "channel.open", "params": params });
    socket.say(&open.to_string()).await;
    stage.node.begun.notified().await;
    assert_eq!(socket.call("node.stop", json!({})).await["result"]["phase"], "stopping");
    let (stopping, node) = (tokio::spawn(stage.server.stop()), stage.node.clone());
    node.released.notify_one();
    let answer = socket.hear().await.expect("the answer to what was under way");
    assert_eq!((&answer["id"], &answer["result"]["state"]), (&json!(7), &json!("opening")));
    assert_eq!(socket.hear().await, None);
    stopping.await.expect("stopped");
}

/// A caller with as many calls under way as a session has is not read on: what it says next begins when one of them is answered.
#[tokio::test]
async fn rpc_7_a_session_has_16_calls_under_way_and_others_are_answered_meanwhile() {
    let stage = Stage::open().await;
    let mut busy = stage.socket().await;
    let params = json!({ "node_id": NODE_ID, "funding_sat": 1, "idempotency_key": "slow" });
    for id in 1..=16 {
        let open = json!({ "jsonrpc": "2.0", "id": id, "method": "channel.open", "params": params });
        busy.say(&open.to_string()).await;
        stage.node.begun.notified().await;
    }
    busy.say(&json!({ "jsonrpc": "2.0", "id": 17, "method": "wallet.balance" }).to_string()).await;
    for _ in 0..20 {
        assert_eq!(stage.socket().await.call("chain.feerates", json!({})).await["result"]["floor_sat_per_vb"], 2);
    }
    assert!(!stage.orders().contains(&"\"wallet_balance\"".to_owned()), "the 17th call has begun");
    stage.node.released.notify_one();
    assert_eq!(busy.hear().await.expect("an answer")["result"]["state"], "opening");
    let next = busy.hear().await.expect("an answer");
    assert_eq!((&next["id"], &next["result"]["confirmed_sat"]), (&json!(17), &json!(1)));
    for _ in 1..16 {
        stage.node.released.notify_one();
        assert_eq!(busy.hear().await.expect("an answer")["result"]["state"], "opening");
    }
}
