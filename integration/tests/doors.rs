//! The interface as other programs use it: tokens, the socket file, the parent's pipe, and coins sent on chain.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use outrigger_integration::schema::Schema;
use outrigger_integration::sidecar::executable;
use outrigger_integration::{Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, SOCKET_FILE};
use outrigger_rpc_schema::{
    CallError, ChannelForceClose, ChannelOpen, ChannelState, ChannelWait, EventKind, EventList, PaymentState, Refusal,
    Scope, SendState, TokenCreate, TokenList, WalletNewAddress, WalletSend, WalletUtxos, WalletWait,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// The answer to a call over plain HTTP.
fn post(mut stream: impl Read + Write, host: &str, headers: &str, method: &str, params: Value) -> Done<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
    let answer: Value = serde_json::from_str(body)?;
    Schema::current().answer_fault(method, &params, &answer).map_or(Ok(answer), |fault| Err(fault.into()))
}

/// A call with a token.
fn call_with(node: &Sidecar, token: &str, method: &str, params: Value) -> Done<Value> {
    let address = std::fs::read_to_string(node.directory().join("regtest").join(ADDRESS_FILE))?;
    let address = address.trim();
    post(TcpStream::connect(address)?, address, &format!("Authorization: Bearer {token}\r\n"), method, params)
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_6_a_token_pays_within_its_budget_and_not_beyond() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let made = alice
            .call(TokenCreate {
                name: "shop".into(),
                scopes: vec![Scope::Pay],
                budget_msat: Some(1_500_000),
                ..TokenCreate::default()
            })
            .await?;
        let pay = async |amount_msat| {
            let invoice = bob.invoice(amount_msat, "a thing").await?;
            call_with(&alice, &made.token, "payment.send", json!({ "invoice": invoice, "max_fee_msat": 0 }))
        };
        let first = pay(1_000_000).await?;
        let payment_id = first["result"]["payment_id"].as_str().ok_or(first.to_string())?.to_owned();
        assert_eq!(alice.payment_end(&payment_id).await?.state, PaymentState::Succeeded);
        let second = pay(500_001).await?;
        assert_eq!(second["error"]["data"]["kind"], "auth_budget_exceeded", "{second}");
        let balance = call_with(&alice, &made.token, "wallet.balance", json!({}))?;
        assert_eq!(balance["error"]["data"]["kind"], "auth_scope_missing", "{balance}");
        let spent = alice.call(TokenList::default()).await?.items.pop().ok_or("no token")?.spent_msat;
        assert_eq!(spent, 1_000_000);
        let last = pay(500_000).await?;
        let payment_id = last["result"]["payment_id"].as_str().ok_or(last.to_string())?.to_owned();
        assert_eq!(alice.payment_end(&payment_id).await?.state, PaymentState::Succeeded);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_coins_are_sent_once_for_a_key_and_outlive_a_crash_before_their_block() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = regtest.pair().await?;
        let send = WalletSend {
            address: bob.new_address().await?,
            amount_sat: 50_000,
            idempotency_key: "rent".into(),
            feerate_sat_per_vb: Some(5),
        };
        let sent = alice.call(send.clone()).await?;
        assert_eq!(sent.state, SendState::Pending);
        regtest.bitcoind.until_mempool_holds(&sent.txid).await?;
        assert_eq!(alice.call(send.clone()).await?, sent, "the same key sends nothing more");
        let other = WalletSend { amount_sat: 50_001, ..send.clone() };
        assert_eq!(alice.refusal(other).await?, "idempotency_conflict");
        let wrong = WalletSend { address: "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq".into(), ..send.clone() };
        assert_eq!(alice.refusal(WalletSend { idempotency_key: "b".into(), ..wrong }).await?, "invalid_parameter");
        let all = WalletSend { amount_sat: 21_000_000_000_000, idempotency_key: "c".into(), ..send.clone() };
        assert_eq!(alice.refusal(all).await?, "insufficient_funds");
        let dear = WalletSend { feerate_sat_per_vb: Some(600_000), idempotency_key: "d".into(), ..send.clone() };
        assert_eq!(alice.refusal(dear).await?, "feerate_out_of_range", "it would go to miners");
        let open = ChannelOpen {
            node_id: bob.node_id().await?,
            funding_sat: 100_000,
            idempotency_key: "e".into(),
            feerate_sat_per_vb: Some(600_000),
            ..ChannelOpen::default()
        };
        assert_eq!(alice.refusal(open).await?, "feerate_out_of_range");
        let named = |key: &str| WalletNewAddress { idempotency_key: Some(key.to_owned()) };
        let till = alice.call(named("till")).await?;
        assert_eq!(alice.call(named("till")).await?, till);
        assert_ne!(alice.call(named("other")).await?, till);
        assert_eq!(alice.refusal(named("rent")).await?, "idempotency_conflict");
        assert_eq!(alice.refusal(named("")).await?, "invalid_parameter");
        let paid = WalletSend { idempotency_key: "till".into(), ..send.clone() };
        assert_eq!(alice.refusal(paid).await?, "idempotency_conflict");
        alice.kill().await?;
        alice.start_again().await?;
        assert_eq!(alice.call(send.clone()).await?, sent, "a start knows the key");
        assert_eq!(alice.call(named("till")).await?, till);
        regtest.bitcoind.mine_to_nobody(1).await?;
        let confirmed = until(LIMIT, "the block to be seen", async || {
            Ok(Some(alice.call(send.clone()).await?).filter(|sent| sent.state == SendState::Confirmed))
        });
        assert_eq!(confirmed.await?.txid, sent.txid);
        let arrived = until(LIMIT, "the coins to be seen", async || {
            let found = bob.call(WalletUtxos::default()).await?.items;
            Ok(found.into_iter().find(|utxo| utxo.amount_sat == 50_000 && utxo.confirmed_height.is_some()))
        });
        assert_eq!(arrived.await?.outpoint.split(':').next(), Some(sent.txid.as_str()));
        let events = alice.call(EventList { kinds: Some(vec![EventKind::WalletSent]), ..EventList::default() }).await?;
        assert_eq!(events.items.len(), 1);
        assert_eq!(events.items[0].txid.as_deref(), Some(sent.txid.as_str()));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_coins_on_their_way_and_channels_are_waited_for_and_what_comes_to_them_is_an_event() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let send = WalletSend { address: bob.new_address().await?, amount_sat: 50_000, ..WalletSend::default() };
        let txid = alice.call(WalletSend { idempotency_key: "rent".into(), ..send }).await?.txid;
        let wait = WalletWait { txid: txid.clone(), depth_blocks: Some(2), timeout_secs: Some(60) };
        let brief = alice.call(WalletWait { timeout_secs: Some(1), ..wait.clone() }).await?;
        assert_eq!((brief.state, brief.confirmed_height, brief.depth_blocks), (SendState::Pending, None, 0));
        let unknown = WalletWait { txid: "00".repeat(32), ..wait.clone() };
        assert_eq!(alice.refusal(unknown).await?, "wallet_transaction_not_found");
        assert_eq!(alice.refusal(WalletWait { txid: "AB".repeat(32), ..wait.clone() }).await?, "invalid_parameter");
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        let client = alice.client();
        let waiting = tokio::spawn(async move { client.call(wait).await });
        regtest.bitcoind.mine_to_nobody(2).await?;
        let deep = tokio::time::timeout(LIMIT, waiting).await???;
        let height = regtest.bitcoind.height().await?;
        assert_eq!((deep.state, deep.confirmed_height, deep.depth_blocks), (SendState::Confirmed, Some(height - 1), 2));
        let kinds = Some(vec![EventKind::WalletSent, EventKind::WalletConfirmed]);
        let events = alice.call(EventList { kinds, ..EventList::default() }).await?.items;
        let told: Vec<_> = events.iter().map(|event| (event.kind, event.txid.as_deref(), event.block_height)).collect();
        let sent = Some(txid.as_str());
        assert_eq!(told, [(EventKind::WalletSent, sent, None), (EventKind::WalletConfirmed, sent, Some(height - 1))]);

        let order = ChannelOpen {
            node_id: bob.node_id().await?,
            funding_sat: 100_000,
            idempotency_key: "a channel".into(),
            ..ChannelOpen::default()
        };
        let (channel_id, funding_txid) = alice.open(order).await?;
        let wait = |state, secs| ChannelWait { channel_id: channel_id.clone(), state, timeout_secs: Some(secs) };
        assert_eq!(alice.call(wait(ChannelState::Normal, 1)).await?.state, ChannelState::Funding, "as it is then");
        let (client, normal) = (alice.client(), wait(ChannelState::Normal, 60));
        let waiting = tokio::spawn(async move { client.call(normal).await });
        regtest.confirm(&funding_txid).await?;
        assert_eq!(tokio::time::timeout(LIMIT, waiting).await???.state, ChannelState::Normal);
        bob.until_channel_is(&channel_id, ChannelState::Normal).await?;
        alice.call(ChannelForceClose { channel_id: channel_id.clone() }).await?;
        assert_eq!(alice.call(wait(ChannelState::Closing, 60)).await?.state, ChannelState::Failed, "it never will be");
        let nowhere = ChannelWait { channel_id: "00".repeat(32), ..wait(ChannelState::Closed, 60) };
        assert_eq!(alice.refusal(nowhere).await?, "channel_not_found");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_events_that_are_kept_no_longer_are_a_gap_that_names_where_to_go_on_and_payments_do_not_mind() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = regtest.sidecar_with("alice", &["--event-keep-kib", "1"]).await?;
        let bob = regtest.sidecar("bob").await?;
        alice.fund(&regtest.bitcoind).await?;
        tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
        alice.connect(&bob).await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        for round in 0..12 {
            assert_eq!(alice.pay(&bob.invoice(1_000, "one of many").await?).await?.state, PaymentState::Succeeded);
            let name = format!("{round} {}", "x".repeat(100));
            alice.call(TokenCreate { name, scopes: vec![Scope::Read], ..TokenCreate::default() }).await?;
        }
        let whole = alice.call(EventList::default()).await?;
        let seqs: Vec<_> = whole.items.iter().map(|event| event.seq).collect();
        let (first, last) = (seqs[0], seqs[seqs.len() - 1]);
        assert!(first > 10 && (2..8).contains(&seqs.len()), "some hundred bytes each: {seqs:?}");
        assert_eq!(seqs, (first..=last).collect::<Vec<_>>(), "what is kept has no gap");
        let from = |after_seq| EventList { after_seq: Some(after_seq), ..EventList::default() };
        for gone in [0, first - 2] {
            let refused = alice.call(from(gone)).await.err();
            let Some(CallError::Refused(Refusal { data: Some(data), .. })) = refused else {
                return Err(format!("{refused:?}").into());
            };
            assert_eq!((data.kind.as_str(), data.after_seq), ("event_gap", Some(first - 1)));
        }
        assert_eq!(alice.call(from(first - 1)).await?.items, whole.items, "and from there on nothing is missing");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_a_host_that_spawns_the_daemon_speaks_over_its_pipe_and_ends_it_by_hanging_up() -> Done<()> {
    on_regtest(async |regtest| {
        let directory = regtest.directory("child")?;
        let mut child = Command::new(executable()?)
            .args(["--stdio", "--network", "regtest", "--rpc-address", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(&directory)
            .args(["--bitcoind-url", &regtest.bitcoind.address()])
            .arg("--bitcoind-cookie")
            .arg(regtest.bitcoind.cookie())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (mut says, hears) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
        let mut lines = BufReader::new(hears).lines();
        says.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"plugin.manifest\"}\n")?;
        let manifest: Value = serde_json::from_str(&lines.next().ok_or("no answer")??)?;
        assert_eq!(manifest["result"]["name"], "outrigger");
        let socket = UnixStream::connect(directory.join("regtest").join(SOCKET_FILE))?;
        let status = post(socket, "localhost", "", "node.status", json!({}))?;
        assert_eq!(status["result"]["network"], "regtest", "{status}");
        drop(says);
        assert!(lines.next().is_none(), "nothing more is said");
        assert_eq!(child.wait()?.code(), Some(0));
        assert!(!directory.join("regtest").join(SOCKET_FILE).exists());
        Ok(())
    })
    .await
}
