//! A token in the hands of another program.

use outrigger_integration::door::Shown;
use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Client, Done, Door, on_regtest, until};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{
    CallError, ChannelOpen, ChannelOpenWait, InvoiceCreate, NodeInfo, OpenState, PaymentAbandon, PaymentList,
    PaymentSend, PaymentState, PaymentWait, Scope, TokenCreate, TokenList, TokenRevoke,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_typed_client_calls_with_a_token_what_its_scopes_allow_until_it_is_revoked() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = regtest.sidecar("alice").await?;
        let order = TokenCreate { name: "a screen".to_owned(), scopes: vec![Scope::Read], ..Default::default() };
        let token = alice.call(order).await?.token;
        let address = std::fs::read_to_string(network_directory(alice.directory(), "regtest").join(ADDRESS_FILE))?;
        let screen = Client::with_token(address.trim(), &token)?;
        assert_eq!(screen.call(NodeInfo {}).await?.node_id, alice.node_id().await?);
        let invoice = InvoiceCreate { description: "not for a screen".to_owned(), ..Default::default() };
        let refused = screen.call(invoice).await.map_err(|error| error.kind().map(str::to_owned));
        assert_eq!(refused.map(|created| created.invoice), Err(Some("auth_scope_missing".to_owned())));
        alice.call(TokenRevoke { name: "a screen".to_owned() }).await?;
        let revoked = screen.call(NodeInfo {}).await;
        assert!(matches!(revoked, Err(CallError::Rejected(401))), "{revoked:?}");
        Ok(())
    })
    .await
}

/// Two programs choose the same keys, and know the same invoice.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_6_no_token_is_answered_with_what_another_did_nor_ends_it() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let address = std::fs::read_to_string(network_directory(alice.directory(), "regtest").join(ADDRESS_FILE))?;
        let mut programs = Vec::new();
        for name in ["shop", "till"] {
            let scopes = vec![Scope::Invoice, Scope::Pay];
            let token = alice.call(TokenCreate { name: name.to_owned(), scopes, ..Default::default() }).await?.token;
            programs.push(Client::with_token(address.trim(), &token)?);
        }
        let [shop, till] = programs.as_slice() else { return Err("two".into()) };
        let order = |amount_msat| InvoiceCreate {
            amount_msat: Some(amount_msat),
            description: "oars".to_owned(),
            idempotency_key: Some("1".to_owned()),
            ..Default::default()
        };
        let (first, second) = (shop.call(order(1000)).await?, till.call(order(2000)).await?);
        assert_ne!(first.payment_hash, second.payment_hash);
        assert_eq!(shop.call(order(1000)).await?.invoice, first.invoice);
        let conflict =
            shop.call(order(3000)).await.map_err(|error| (error.kind().map(str::to_owned), error.to_string()));
        let Err((kind, words)) = conflict else { return Err("a conflict".into()) };
        assert_eq!(kind.as_deref(), Some("idempotency_conflict"));
        assert!(words.contains(r#"idempotency_key "1" was used before"#), "{words}");

        // Nor does one that may open channels find what another opened.
        let mut openers = Vec::new();
        for (name, scope) in [("one", Scope::Channel), ("two", Scope::Channel), ("all", Scope::Admin)] {
            let order = TokenCreate { name: name.to_owned(), scopes: vec![scope], ..Default::default() };
            openers.push(Client::with_token(address.trim(), &alice.call(order).await?.token)?);
        }
        let [one, two, all] = openers.as_slice() else { return Err("three".into()) };
        let (node_id, idempotency_key) = (bob.node_id().await?, "1".to_owned());
        let open = ChannelOpen { node_id, funding_sat: 100_000, idempotency_key, ..Default::default() };
        let op_id = one.call(open).await?.op_id;
        let wait = || ChannelOpenWait { op_id: op_id.clone(), timeout_secs: Some(60) };
        let opened = one.call(wait()).await?;
        assert_eq!(opened.state, OpenState::Pending);
        let refused = two.call(wait()).await.map_err(|error| error.kind().map(str::to_owned));
        assert_eq!(refused.map(|opened| opened.op_id), Err(Some("operation_not_found".to_owned())));
        assert_eq!((all.call(wait()).await?, alice.call(wait()).await?), (opened.clone(), opened), "these may all");

        let invoice = bob.call(order(5000)).await?.invoice;
        let pay = || PaymentSend { invoice: Some(invoice.clone()), ..Default::default() };
        let paid = shop.call(pay()).await?;
        let of_shop = || PaymentAbandon { payment_id: paid.payment_id.clone() };
        // An invoice is paid once, whoever asks.
        assert_eq!(till.call(pay()).await?.payment_id, paid.payment_id);
        let refused = till.call(of_shop()).await.map_err(|error| error.kind().map(str::to_owned));
        assert_eq!(refused.map(|payment| payment.state), Err(Some("auth_scope_missing".to_owned())));
        let wait = PaymentWait { payment_id: paid.payment_id.clone(), ..Default::default() };
        assert_eq!(shop.call(wait).await?.state, PaymentState::Succeeded);
        assert_eq!(shop.call(of_shop()).await?.state, PaymentState::Succeeded, "it only tells the end");
        assert_eq!(alice.call(of_shop()).await?.state, PaymentState::Succeeded, "the owner may");
        Ok(())
    })
    .await
}

/// The chain tells the time where the machine's clock is behind it: so an hour passes with some blocks.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_6_a_token_that_expires_ends_at_every_door_and_in_what_is_open() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let door = Door::of(&alice)?;
        let mut bearers = Vec::new();
        for (name, expiry_secs) in [("for an hour", Some(3600)), ("for ever", None)] {
            let scopes = vec![Scope::Read, Scope::Pay];
            let order = TokenCreate { name: name.to_owned(), scopes, expiry_secs, ..Default::default() };
            bearers.push(format!("Bearer {}", alice.call(order).await?.token));
        }
        let [hour, ever] = bearers.as_slice() else { return Err("two".into()) };
        let opened = async |bearer: &str| -> Done<_> {
            let session = door.session(Shown::Header(bearer)).await?;
            session.map_err(|status| format!("refused with {status}").into())
        };
        let (mut caller, mut follower, mut other) = (opened(hour).await?, opened(hour).await?, opened(ever).await?);
        let invoice = json!({ "invoice": bob.invoice(1_000_000, "while it is good").await? });
        let paid = caller.call("payment.send", &invoice).await?;
        let wait = PaymentWait {
            payment_id: paid["result"]["payment_id"].as_str().ok_or("no payment")?.to_owned(),
            ..Default::default()
        };
        assert_eq!(alice.call(wait).await?.state, PaymentState::Succeeded);
        assert!(follower.call("event.subscribe", &json!({})).await?["result"]["subscription_id"].is_string());

        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        regtest.bitcoind.call("setmocktime", json!([now + 4000])).await?;
        // The chain's time is the median of eleven blocks.
        regtest.bitcoind.mine_to_nobody(12).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        let status = async |bearer: &str| Done::Ok(door.call("node.info", &json!({}), Some(bearer)).await?.status);
        until(LIMIT, "the token to expire", async || Ok((status(hour).await? == 401).then_some(()))).await?;
        assert_eq!((status(ever).await?, door.get("/metrics", Some(hour)).await?.status), (200, 401));
        assert_eq!(door.session(Shown::Header(hour)).await?.err(), Some(401));

        let invoice = json!({ "invoice": bob.invoice(1_000_000, "too late").await? });
        let payments = alice.call(PaymentList::default()).await?.items.len();
        assert_eq!(door.call("payment.send", &invoice, Some(hour)).await?.status, 401);
        let refused = caller.call("payment.send", &invoice).await?;
        let (code, kind) = (&refused["error"]["code"], &refused["error"]["data"]["kind"]);
        assert_eq!((code, kind), (&json!(1802), &json!("auth_token_ended")), "{refused}");
        let read = caller.call("node.info", &json!({})).await?;
        assert_eq!(read["error"]["data"]["kind"], "auth_token_ended", "{read}");
        assert_eq!(alice.call(PaymentList::default()).await?.items.len(), payments, "nothing was begun");

        // Another's payment is an event, of which this follower hears no word: only why it ends.
        let paid = other.call("payment.send", &invoice).await?;
        assert!(paid["result"]["payment_id"].is_string(), "{paid}");
        let mut last = None;
        while let Some(heard) = follower.hear().await? {
            assert_ne!(heard["params"]["event"]["payment_id"], paid["result"]["payment_id"], "{heard}");
            last = Some(heard);
        }
        let last = last.ok_or("it ended without a word")?;
        assert_eq!(last["params"]["error"]["data"]["kind"], "auth_token_ended", "{last}");
        let names: Vec<_> = alice.call(TokenList::default()).await?.items.into_iter().map(|token| token.name).collect();
        assert_eq!(names, ["for an hour", "for ever"], "it is told until it is taken back");
        Ok(())
    })
    .await
}
