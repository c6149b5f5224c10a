//! A thousand callers who follow the events of a daemon that pays, of whom half never read.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_integration::schema::Schema;
use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, on_regtest};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, COOKIE_FILE, network_directory};
use outrigger_rpc_schema::{
    CallError, EventKind, EventList, PaymentState, PaymentWait, Scope, TokenCreate, TokenRevoke,
};
use serde_json::{Value, json};
use soketto::connection::Error;
use soketto::handshake::{Client, ServerResponse, client::Header};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

const CAPACITY_SAT: u64 = 1_000_000;
const READERS: usize = 500;
const DEAF: usize = 500;
/// Payments at a time, and times.
const AT_ONCE: usize = 10;
const ROUNDS: usize = 6;
/// Tokens that are made and taken back when the payments are over, with an event each: more than a reader may be behind by (512), and
/// than fits into the sockets of one that never reads.
const TOKENS: usize = 700;
/// What all of them may cost the daemon: 150 KiB each.
const MOST_BYTES: u64 = 150 * 1024 * (READERS + DEAF) as u64;

type Socket = (soketto::Sender<Compat<TcpStream>>, soketto::Receiver<Compat<TcpStream>>);

/// A follower of everything that happens from now on. What is sent to it has little room in its own socket.
async fn follower(place: &Path) -> Done<Socket> {
    let address = std::fs::read_to_string(place.join(ADDRESS_FILE))?.trim().to_owned();
    let cookie = format!("Basic {}", STANDARD.encode(std::fs::read_to_string(place.join(COOKIE_FILE))?.trim()));
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(address.parse()?).await?;
    let headers = [Header { name: "Authorization", value: cookie.as_bytes() }];
    let mut client = Client::new(stream.compat(), &address, "/");
    client.set_headers(&headers);
    let ServerResponse::Accepted { .. } = client.handshake().await? else { return Err("no WebSocket".into()) };
    let (mut sender, mut receiver) = client.into_builder().finish();
    let subscribe = json!({ "jsonrpc": "2.0", "id": 1, "method": "event.subscribe", "params": {} });
    sender.send_text(subscribe.to_string()).await?;
    sender.flush().await?;
    assert!(heard(&mut receiver).await?["result"]["subscription_id"].is_string());
    Ok((sender, receiver))
}

async fn heard(receiver: &mut soketto::Receiver<Compat<TcpStream>>) -> Done<Value> {
    let mut heard = Vec::new();
    tokio::time::timeout(LIMIT, receiver.receive_data(&mut heard)).await??;
    judged(&heard)
}

fn judged(heard: &[u8]) -> Done<Value> {
    let heard: Value = serde_json::from_slice(heard)?;
    let fault = match heard.get("method") {
        Some(_) => Schema::current().notice_fault(&heard),
        None => Schema::current().result_fault("event.subscribe", &heard["result"]),
    };
    fault.map_or(Ok(heard), |fault| Err(fault.into()))
}

/// The payments that it hears of, in the order in which it does, up to as many as there are.
async fn payments(mut socket: Socket) -> Done<Vec<String>> {
    let (mut seq, mut paid) = (0, Vec::new());
    while paid.len() < AT_ONCE * ROUNDS {
        let event = heard(&mut socket.1).await?["params"]["event"].take();
        let next = event["seq"].as_u64().ok_or_else(|| format!("no event: {event}"))?;
        assert!(next > seq, "{next} behind {seq}");
        seq = next;
        if event["kind"] == "payment_succeeded" {
            paid.push(event["payment_id"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(paid)
}

/// What one that never read finds when it does: the events in their order, and their end; with the number to go on from where it came in
/// time to hear that.
async fn behind(mut socket: Socket) -> Done<()> {
    let mut last = None;
    loop {
        let mut said = Vec::new();
        let params = match tokio::time::timeout(LIMIT, socket.1.receive_data(&mut said)).await? {
            Ok(_) => judged(&said)?["params"].take(),
            Err(Error::Closed | Error::Io(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Some(seq) = params["event"]["seq"].as_u64() {
            assert!(last.is_none_or(|last| seq == last + 1), "{seq} behind {last:?}");
            last = Some(seq);
            continue;
        }
        let data = &params["error"]["data"];
        assert_eq!((&data["kind"], &data["retryable"]), (&json!("event_behind"), &json!(true)), "{params}");
        assert_eq!(data["after_seq"].as_u64(), last, "{params}");
        return Ok(());
    }
}

fn resident_bytes(pid: u32) -> Done<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).ok_or("no pages")?.parse()?;
    Ok(pages * 4096)
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_7_a_thousand_subscribers_of_which_half_never_read_hold_up_no_payment() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let (place, pid) = (network_directory(alice.directory(), "regtest"), alice.pid().ok_or("no process")?);
        let before = resident_bytes(pid)?;
        let (mut hearing, mut deaf) = (JoinSet::new(), Vec::new());
        for _ in 0..DEAF {
            deaf.push(follower(&place).await?);
        }
        for _ in 0..READERS {
            let reader = follower(&place).await?;
            hearing.spawn(async move { payments(reader).await.map_err(|error| error.to_string()) });
        }
        let mut sent = Vec::new();
        for round in 0..ROUNDS {
            let mut under_way = JoinSet::new();
            for number in 0..AT_ONCE {
                let invoice = bob.invoice(1_000_000, &format!("{round} {number}")).await?;
                sent.push(alice.send(&invoice).await?);
                let (client, payment_id) = (alice.client(), sent[sent.len() - 1].clone());
                under_way.spawn(async move { client.call(PaymentWait { payment_id, timeout_secs: Some(60) }).await });
            }
            while let Some(ended) = under_way.join_next().await {
                let payment = ended??;
                assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
            }
        }
        alice.until_idle(&opened.channel_id).await?;
        let kinds = Some(vec![EventKind::PaymentSucceeded]);
        let events = alice.call(EventList { kinds, limit: Some(1000), ..Default::default() }).await?.items;
        let told: Vec<String> = events.into_iter().filter_map(|event| event.payment_id).collect();
        let mut all = (told.clone(), sent);
        all.0.sort();
        all.1.sort();
        assert_eq!(all.0, all.1, "each payment is told once");
        while let Some(paid) = hearing.join_next().await {
            assert_eq!(paid??, told, "in the order of the file");
        }
        let mut making = JoinSet::new();
        for maker in 0..AT_ONCE {
            let client = alice.client();
            making.spawn(async move {
                for number in (maker..TOKENS).step_by(AT_ONCE) {
                    let name = format!("{number:0>60}");
                    let order = TokenCreate { name: name.clone(), scopes: vec![Scope::Read], ..Default::default() };
                    client.call(order).await?;
                    client.call(TokenRevoke { name }).await?;
                }
                Ok::<_, CallError>(())
            });
        }
        while let Some(made) = making.join_next().await {
            made??;
        }
        let grown = resident_bytes(pid)?.saturating_sub(before);
        assert!(grown < MOST_BYTES, "{grown} bytes more");
        // None of them goes on without what was not kept for it.
        let mut ended = JoinSet::new();
        for reader in deaf {
            ended.spawn(async move { behind(reader).await.map_err(|error| error.to_string()) });
        }
        while let Some(ended) = ended.join_next().await {
            ended??;
        }
        let invoice = bob.invoice(1_000_000, "and on").await?;
        assert_eq!(alice.pay(&invoice).await?.state, PaymentState::Succeeded);
        Ok(())
    })
    .await
}
