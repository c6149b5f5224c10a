//! A token in the hands of another program.

use outrigger_integration::{Done, on_regtest};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{
    CallError, ChannelOpen, ChannelOpenWait, Client, InvoiceCreate, NodeInfo, OpenState, PaymentAbandon, PaymentSend,
    PaymentState, PaymentWait, Scope, TokenCreate, TokenRevoke,
};

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
