//! The interface over real sockets, before a node that answers with what it was asked.
#![expect(clippy::expect_used, clippy::panic, reason = "a test stops at its first surprise")]

#[path = "rpc/limits.rs"]
mod limits;
#[path = "rpc/operator_page.rs"]
mod operator_page;
#[path = "rpc/plugin.rs"]
mod plugin;
#[path = "rpc/refusals.rs"]
mod refusals;
#[path = "rpc/sessions.rs"]
mod sessions;
#[path = "rpc/stage.rs"]
mod stage;
#[path = "rpc/tokens.rs"]
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::ChannelId;
use outrigger_rpc_schema as schema;
use outrigger_rpc_schema::{CallError, Phase};
use outrigger_sidecar::rpc::{Doors, InvoiceOrder, OpenOrder, Place, ServerFault, start};
use serde_json::{Value, json};
use stage::{NODE_ID, PAGE, Recorder, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

const STATUS: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#;

#[tokio::test]
async fn status_answers_before_there_is_a_node() {
    let stage = Stage::empty().await;
    let status = stage.client().call(schema::NodeStatus {}).await.expect("answers");
    assert_eq!(status.phase, Phase::Starting);
    let error = stage.call("wallet.balance", json!({})).await.error();
    assert_eq!(error, (1001, "starting".to_owned()));
    stage.doors.open(Arc::clone(&stage.node));
    stage.doors.report(|status| {
        status.phase = Phase::Syncing;
        status.block_height = Some(5);
        status.target_height = Some(10);
    });
    let status = stage.client().call(schema::NodeStatus {}).await.expect("answers");
    assert_eq!((status.phase, status.block_height, status.target_height), (Phase::Syncing, Some(5), Some(10)));
    let balance = stage.client().call(schema::WalletBalance {}).await.expect("answers");
    assert_eq!(balance, schema::WalletBalanceReport { confirmed_sat: 1, unconfirmed_sat: 2, locked_sat: 3 });
}

#[tokio::test]
async fn bad_input_79_without_the_cookie_nobody_learns_anything() {
    let stage = Stage::open().await;
    let json = "Content-Type: application/json".to_owned();
    let wrong = format!("Authorization: Basic {}", STANDARD.encode(format!("__cookie__:{}", "08".repeat(32))));
    let empty = "Authorization: Basic ".to_owned();
    for headers in [
        vec![stage.host(), json.clone()],
        vec![stage.host(), json.clone(), wrong],
        vec![stage.host(), json.clone(), empty],
        vec![stage.host(), json, stage.authorization(), stage.authorization()],
    ] {
        let answer = stage.send("POST", &headers, STATUS).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{headers:?}");
    }
}

#[tokio::test]
async fn bad_input_80_foreign_hosts_and_origins_are_turned_away() {
    let stage = Stage::open().await;
    let port = stage.server.address().port();
    let right = [stage.authorization(), "Content-Type: application/json".to_owned()];
    let with = |more: &[String]| [more, &right].concat();
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.nip.io:{port}"),
        format!("user@127.0.0.1:{port}"),
        "127.0.0.1".to_owned(),
        format!("127.0.0.1:{}", port ^ 1),
    ] {
        let answer = stage.send("POST", &with(&[format!("Host: {host}")]), STATUS).await;
        assert_eq!(answer.status, 403, "{host}");
    }
    let twice = stage.send("POST", &with(&[stage.host(), stage.host()]), STATUS).await;
    assert_eq!(twice.status, 403, "two Host headers");
    assert_eq!(stage.send("POST", &with(&[]), STATUS).await.status, 403, "no Host header");
    for origin in ["http://evil.example".to_owned(), "null".to_owned(), format!("http://127.0.0.1:{port}")] {
        let answer = stage.send("POST", &with(&[stage.host(), format!("Origin: {origin}")]), STATUS).await;
        assert_eq!(answer.status, 403, "{origin}");
    }
    let page = stage.send("POST", &with(&[stage.host(), format!("Origin: {PAGE}")]), STATUS).await;
    assert_eq!(page.json()["result"]["phase"], "starting", "a page that was named");
    let both = [stage.host(), format!("Origin: {PAGE}"), "Origin: http://evil.example".to_owned()];
    assert_eq!(stage.send("POST", &with(&both), STATUS).await.status, 403, "two pages");
    for name in [format!("LocalHost:{port}"), "node.example:443".to_owned()] {
        let named = stage.send("POST", &with(&[format!("Host: {name}")]), STATUS).await;
        assert_eq!(named.json()["result"]["phase"], "starting", "{name}");
    }
}

/// What a browser sends for the script of a page: it asks first for what is not simple, and sends what is simple with all that it has.
#[tokio::test]
async fn rpc_1_whatever_a_browser_sends_for_a_foreign_page_is_refused_and_nothing_is_carried_out() {
    let stage = Stage::open().await;
    let pay = br#"{"jsonrpc":"2.0","id":1,"method":"payment.send","params":{"invoice":"lnbcrt1"}}"#;
    let ask = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type"];
    let (text, form) = ("Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded");
    let json = "Content-Type: application/json";
    let authorization = stage.authorization();
    for (origin, verb, more, expected) in [
        // Before a call with a token or of JSON: nobody is told that it may.
        (Some("https://evil.example"), "OPTIONS", ask.to_vec(), 403),
        (Some("null"), "OPTIONS", ask.to_vec(), 403),
        // A script that needs no leave: fetch in mode no-cors, a form, a beacon. The browser may know a password of this server.
        (Some("https://evil.example"), "POST", vec![text, &authorization], 403),
        (Some("https://evil.example"), "POST", vec![form, &authorization], 403),
        (Some("null"), "POST", vec![text, &authorization], 403),
        (Some("https://evil.example"), "POST", vec![json, &authorization], 403),
        // An old browser that does not say which page it is.
        (None, "POST", vec![text, &authorization], 415),
        (None, "POST", vec![form, &authorization], 415),
        (None, "POST", vec![text], 401),
        // An image, a script, a link.
        (None, "GET", vec![authorization.as_str()], 405),
        (Some("https://evil.example"), "GET", vec![], 403),
    ] {
        let origin = origin.map(|origin| format!("Origin: {origin}"));
        let more = more.into_iter().map(str::to_owned);
        let headers: Vec<_> = [stage.host()].into_iter().chain(origin).chain(more).collect();
        let answer = stage.send(verb, &headers, if verb == "POST" { pay } else { b"" }).await;
        assert_eq!((answer.status, answer.body.as_str()), (expected, ""), "{verb} {headers:?}");
        assert!(!answer.head.contains("access-control-"), "no page is given leave: {}", answer.head);
    }
    assert!(stage.orders().is_empty(), "{:?}", stage.orders());
}

#[tokio::test]
async fn rpc_2_the_target_of_an_absolute_request_is_checked_too() {
    let stage = Stage::open().await;
    let headers = format!("{}\r\n{}\r\nContent-Type: application/json\r\n", stage.host(), stage.authorization());
    let length = STATUS.len();
    let own = stage.server.address();
    for (target, status) in [("evil.example".to_owned(), 403), (own.to_string(), 200)] {
        let head =
            format!("POST http://{target}/ HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(stage.exchange(&[head.as_bytes(), STATUS].concat()).await.status, status, "{target}");
    }
}

#[tokio::test]
async fn bad_input_80_only_posts_of_json_are_taken() {
    let stage = Stage::open().await;
    let right = [stage.host(), stage.authorization()];
    for verb in ["GET", "PUT", "OPTIONS", "DELETE"] {
        let headers = [&right[..], &["Content-Type: application/json".to_owned()]].concat();
        assert_eq!(stage.send(verb, &headers, STATUS).await.status, 405, "{verb}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"] {
        let headers = [&right[..], &[format!("Content-Type: {kind}")]].concat();
        assert_eq!(stage.send("POST", &headers, STATUS).await.status, 415, "{kind}");
    }
    assert_eq!(stage.send("POST", &right, STATUS).await.status, 415, "no content type");
}

#[tokio::test]
async fn bad_input_81_a_body_of_1_mib_is_read_and_one_byte_more_is_not() {
    let stage = Stage::open().await;
    let padded = |length: usize| {
        let mut body = STATUS.to_vec();
        body.resize(length, b' ');
        body
    };
    assert_eq!(stage.post(&padded(1024 * 1024)).await.json()["result"]["phase"], "starting");
    assert_eq!(stage.post(&padded(1024 * 1024 + 1)).await.status, 413);
}

#[tokio::test]
async fn bad_input_81_a_chunked_body_has_the_same_limit() {
    let stage = Stage::open().await;
    let head = format!(
        "POST / HTTP/1.1\r\n{}\r\n{}\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        stage.host(),
        stage.authorization()
    );
    let size = 1024 * 1024 + 1;
    let chunk = format!("{size:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(size));
    assert_eq!(stage.exchange(format!("{head}{chunk}").as_bytes()).await.status, 413);
}

#[tokio::test]
async fn bad_input_81_a_batch_has_at_most_20_requests() {
    let stage = Stage::open().await;
    let batch = |count: usize| {
        let requests = (0..count).map(|id| json!({ "jsonrpc": "2.0", "id": id, "method": "node.status" }));
        Value::Array(requests.collect())
    };
    let answers = stage.rpc(batch(20)).await.json();
    assert_eq!(answers.as_array().map(Vec::len), Some(20));
    assert_eq!(answers[19]["id"], 19);
    assert_eq!(stage.rpc(batch(21)).await.json()["error"]["code"], -32010);
}

#[tokio::test]
async fn bad_input_81_unsound_json_is_a_parse_error() {
    let stage = Stage::open().await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"node.status","params":{{"a":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let bodies: [&[u8]; 6] = [
        deep.as_bytes(),
        br#"{"jsonrpc":"2.0","id":1,"method":"node.status","method":"node.stop"}"#,
        br#"{"jsonrpc":"2.0","id":1,"method":"payment.send","params":{"amount_msat":1,"amount_msat":2}}"#,
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\xff\"}",
        b"node.status",
        b"",
    ];
    for body in bodies {
        assert_eq!(stage.post(body).await.error(), (-32700, "parse_error".to_owned()));
    }
    assert_eq!(stage.doors.status().phase, Phase::Starting, "nothing was carried out");
}

#[tokio::test]
async fn bad_input_81_what_is_no_request_is_refused_in_the_words_of_every_refusal_and_nothing_is_carried_out() {
    let stage = Stage::open().await;
    let request = |id: Value| json!({ "jsonrpc": "2.0", "id": id, "method": "wallet.balance" });
    for (message, id) in [
        (json!(5), Value::Null),
        (json!([]), Value::Null),
        (json!({ "jsonrpc": "1.0", "id": 7, "method": "wallet.balance" }), json!(7)),
        (json!({ "jsonrpc": "2.0", "id": "a", "method": 7 }), json!("a")),
        // No answer can bear such an id, and it is no notification either.
        (request(json!(-1)), Value::Null),
        (request(json!(1.5)), Value::Null),
        (request(json!([])), Value::Null),
    ] {
        let answer = stage.rpc(message.clone()).await;
        assert_eq!(answer.error(), (-32600, "invalid_request".to_owned()), "{message}");
        assert_eq!(answer.json()["id"], id, "{message}");
    }
    let batch = stage.rpc(json!([request(json!(-1)), 5, { "jsonrpc": "1.0", "id": 7 }])).await.json();
    let told: Vec<_> =
        batch.as_array().into_iter().flatten().map(|one| (&one["error"]["data"]["kind"], &one["id"])).collect();
    let kind = json!("invalid_request");
    assert_eq!(told, [(&kind, &Value::Null), (&kind, &Value::Null), (&kind, &json!(7))], "{batch}");
    assert_eq!(stage.orders(), [""; 0], "the node was asked for nothing");
}

#[tokio::test]
async fn bad_input_82_a_wrong_parameter_is_named() {
    let stage = Stage::open().await;
    let open = |funding_sat: Value| json!({ "node_id": NODE_ID, "funding_sat": funding_sat, "idempotency_key": "a" });
    let two_to_the_64 = serde_json::from_str("18446744073709551616").expect("a number");
    for wrong in [json!(-1), json!(1.5), json!("1000"), Value::Null, two_to_the_64] {
        let answer = stage.call("channel.open", open(wrong.clone())).await;
        assert_eq!(answer.error(), (-32602, "invalid_parameter".to_owned()), "{wrong}");
        assert_eq!(answer.json()["error"]["data"]["parameter"], "funding_sat", "{wrong}");
    }
    for (method, params, parameter) in [
        ("node.status", json!({ "verbose": true }), "verbose"),
        ("invoice.create", json!({ "amount_msat": 1 }), "description"),
        ("channel.get", json!({ "channel_id": "AB".repeat(32) }), "channel_id"),
        ("channel.list", json!({ "after": "x" }), "after"),
        ("peer.connect", json!({ "node_id": NODE_ID, "address": "nowhere" }), "address"),
        ("payment.send", json!({}), "invoice"),
        ("payment.send", json!({ "node_id": NODE_ID, "amount_msat": 1 }), "idempotency_key"),
        ("payment.send", json!({ "node_id": NODE_ID, "idempotency_key": "a" }), "amount_msat"),
        ("payment.send", json!({ "node_id": NODE_ID, "invoice": "lnbcrt1" }), "node_id"),
        ("invoice.create", json!({ "description": "x".repeat(640) }), "description"),
    ] {
        let answer = stage.call(method, params).await;
        assert_eq!(answer.error().0, -32602, "{method} {parameter}");
        assert_eq!(answer.json()["error"]["data"]["parameter"], parameter, "{method}");
    }
    let mut push_too_much = open(json!(1));
    push_too_much["push_msat"] = json!(1001);
    assert_eq!(stage.call("channel.open", push_too_much).await.json()["error"]["data"]["parameter"], "push_msat");
    assert_eq!(stage.call("node.status", json!([true])).await.error().0, -32602);
    assert_eq!(stage.orders(), [""; 0], "the node was asked for nothing");
}

#[tokio::test]
async fn bad_input_83_a_notification_that_moves_money_is_refused() {
    let stage = Stage::open().await;
    let open = json!({ "node_id": NODE_ID, "funding_sat": 1, "idempotency_key": "a" });
    for (method, params) in [
        ("channel.open", open.clone()),
        ("payment.send", json!({ "invoice": "lnbcrt1" })),
        ("wallet.send", json!({ "address": "a", "amount_sat": 1, "idempotency_key": "a" })),
        ("channel.close", json!({ "channel_id": "00".repeat(32) })),
        ("channel.force_close", json!({ "channel_id": "00".repeat(32) })),
    ] {
        let notification = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        let answer = stage.rpc(notification.clone()).await;
        assert_eq!(answer.error(), (-32600, "notification_refused".to_owned()), "{method}");
        let answer = stage.rpc(json!([notification])).await.json();
        assert_eq!(answer[0]["error"]["data"]["kind"], "notification_refused", "{method}");
    }
    assert_eq!(stage.orders(), [""; 0], "the node was asked for nothing");
    let harmless = stage.rpc(json!({ "jsonrpc": "2.0", "method": "wallet.balance" })).await;
    assert_eq!(harmless.json(), Value::Null);
    assert_eq!(stage.orders(), [r#""wallet_balance""#], "carried out without an answer");
}

#[tokio::test]
async fn bad_input_84_an_idempotency_conflict_reaches_the_caller() {
    let stage = Stage::open().await;
    let open = json!({ "node_id": NODE_ID, "funding_sat": 1, "idempotency_key": "taken" });
    assert_eq!(stage.call("channel.open", open).await.error(), (1003, "idempotency_conflict".to_owned()));
    let send = json!({ "address": "a", "amount_sat": 1, "idempotency_key": "taken" });
    assert_eq!(stage.call("wallet.send", send).await.error(), (1003, "idempotency_conflict".to_owned()));
}

#[tokio::test]
async fn what_moves_money_goes_on_when_the_caller_hangs_up() {
    let stage = Stage::open().await;
    let params = json!({ "node_id": NODE_ID, "funding_sat": 1, "idempotency_key": "slow" });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "channel.open", "params": params }).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\n{}\r\n{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        stage.host(),
        stage.authorization(),
        body.len()
    );
    let mut socket = TcpStream::connect(stage.server.address()).await.expect("connects");
    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("sent");
    stage.node.begun.notified().await;
    socket.shutdown().await.expect("hangs up");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("the server hangs up too");
    assert_eq!(answer, b"", "the server has given the call up");
    stage.node.released.notify_one();
    let finished = tokio::time::timeout(Duration::from_secs(10), stage.node.finished.notified()).await;
    finished.expect("the call went on");
}

#[tokio::test]
async fn unknown_methods_are_told_apart_and_the_nearest_is_named() {
    let stage = Stage::open().await;
    let answer = stage.call("chanel.open", json!({})).await;
    assert_eq!(answer.error(), (-32601, "unknown_method".to_owned()));
    assert_eq!(answer.json()["error"]["data"]["hint"], "Did you mean channel.open?");
    assert_eq!(answer.json()["id"], 1);
}

#[tokio::test]
async fn parameters_reach_the_node_in_its_own_types() {
    let stage = Stage::open().await;
    let client = stage.client();
    let call = schema::ChannelOpen {
        node_id: NODE_ID.to_owned(),
        funding_sat: 100_000,
        idempotency_key: "first".to_owned(),
        push_msat: Some(5),
        feerate_sat_per_vb: Some(2),
        ..Default::default()
    };
    let opened = client.call(call).await.expect("answers");
    assert_eq!(opened.state, schema::OpenState::Opening);
    let order = OpenOrder {
        node_id: NODE_ID.parse().expect("a key"),
        funding: Sat::new(100_000),
        push: Msat::new(5),
        announce: false,
        feerate: Some(FeeratePerKw::new(500)),
        idempotency_key: "first".to_owned(),
    };
    client.call(schema::InvoiceCreate { description: "tea".to_owned(), ..Default::default() }).await.expect("answers");
    let invoice = InvoiceOrder {
        amount: None,
        description: "tea".to_owned(),
        expiry: Duration::from_secs(3600),
        label: None,
        idempotency_key: None,
    };
    assert_eq!(stage.orders(), [format!("{order:?}"), format!("{invoice:?}")]);
}

/// The time for new attempts has bounds at the door.
#[tokio::test]
async fn rpc_the_time_of_a_payment_is_1_to_3600_seconds() {
    let stage = Stage::open().await;
    let send = |secs: u64| stage.call("payment.send", json!({ "invoice": "lnbcrt1", "timeout_secs": secs }));
    for bad in [0, 3601, u64::from(u32::MAX), 1 << 40] {
        let answer = send(bad).await;
        assert_eq!(answer.error(), (-32602, "invalid_parameter".to_owned()), "{bad}");
        let message = &answer.json()["error"]["message"];
        assert_eq!(message, "parameter timeout_secs must be a whole number from 1 to 3600", "{bad}");
    }
    for good in [1, 3600] {
        assert_eq!(send(good).await.json()["result"]["state"], "pending", "{good}");
    }
    let orders = stage.orders();
    assert!(
        orders.len() == 2 && orders[0].contains("timeout: 1s") && orders[1].contains("timeout: 3600s"),
        "{orders:?}"
    );
}

#[tokio::test]
async fn pages_follow_each_other_and_end() {
    let stage = Stage::open().await;
    let client = stage.client();
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let call = schema::ChannelList { after, limit: Some(2), ..Default::default() };
        let page = client.call(call).await.expect("answers");
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|channel| channel.channel_id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let all: Vec<String> = (0..5).map(|number| ChannelId([number; 32]).to_string()).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_refusal_carries_code_kind_and_hint() {
    let stage = Stage::open().await;
    let call = schema::ChannelGet { channel_id: "00".repeat(32) };
    let Err(CallError::Refused(refusal)) = stage.client().call(call).await else { panic!("not refused") };
    assert_eq!(refusal.code, 1401);
    let data = refusal.data.expect("data");
    assert_eq!((data.kind.as_str(), data.retryable), ("channel_not_found", false));
    assert!(!data.hint.is_empty());
}

#[tokio::test]
async fn stop_answers_ends_waits_and_removes_the_files() {
    let stage = Stage::open().await;
    let client = stage.client();
    let waiting = client.clone();
    let wait = tokio::spawn(async move {
        waiting.call(schema::PaymentWait { payment_id: "7".to_owned(), timeout_secs: Some(600) }).await
    });
    let answer = client.call(schema::NodeStop {}).await.expect("answers");
    assert_eq!(answer.phase, Phase::Stopping);
    stage.doors.stop_requested().await;
    assert_eq!(wait.await.expect("ends").expect_err("is refused").kind(), Some("stopping"));
    let error = stage.call("wallet.balance", json!({})).await.error();
    assert_eq!(error, (1002, "stopping".to_owned()));
    stage.server.stop().await;
    assert_eq!(std::fs::read_dir(stage.directory.path()).expect("listed").count(), 0);
    assert!(matches!(client.call(schema::NodeStatus {}).await, Err(CallError::Unreachable(_))));
}

#[tokio::test]
async fn rpc_4_an_address_of_the_network_is_not_bound() {
    let directory = tempfile::tempdir().expect("a directory");
    let doors = Doors::<Recorder>::new("regtest");
    let all: SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let refused = start(Place::at(all), directory.path(), &Zeroizing::new([7; 32]), doors).await;
    assert!(matches!(refused, Err(ServerFault::NotLoopback(address)) if address == all));
    assert_eq!(std::fs::read_dir(directory.path()).expect("listed").count(), 0);
}
