//! Daemons that reach each other through a SOCKS5 proxy, as through Tor.

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::socks::{Answer, Socks};
use outrigger_integration::{Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{CallError, PaymentState, PeerConnect, PeerList};

/// Onion services that Tor's specification gives as examples.
const SERVICE: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
const OTHER_SERVICE: &str = "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion";

/// What a caller reads who cannot connect: kind, message, hint, and whether to try again.
async fn unreachable(node: &Sidecar, node_id: &str, address: &str) -> Done<(String, String, String, bool)> {
    let order = PeerConnect { node_id: node_id.to_owned(), address: address.to_owned() };
    match node.call(order).await {
        Err(CallError::Refused(refusal)) => {
            let data = refusal.data.ok_or("a refusal without data")?;
            Ok((data.kind, refusal.message, data.hint, data.retryable))
        }
        other => Err(format!("{address}: {other:?}").into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_onion_services_are_reached_through_the_proxy_and_others_directly() -> Done<()> {
    on_regtest(async |regtest| {
        let tor = Socks::start().await?;
        let announced = format!("{SERVICE}:9735");
        let (through, reached) = (["--proxy", tor.address()], ["--external-addresses", &announced]);
        let (mut alice, bob, carol) = tokio::try_join!(
            regtest.sidecar_with("alice", &through),
            regtest.sidecar_with("bob", &reached),
            regtest.sidecar("carol"),
        )?;
        assert_eq!(
            bob.info().await?.addresses,
            [announced.as_str()],
            "where it listens is reached from this machine only"
        );
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        tor.answer(SERVICE, Answer::Connect(bob.address()));
        tor.answer(OTHER_SERVICE, Answer::Connect(carol.address()));

        // Read to the caller, and asked of the proxy, in one spelling.
        let bob_id = bob.node_id().await?;
        alice.connect_to(&bob_id, &announced.to_uppercase().replace(".ONION", ".onion")).await?;
        let first = tor.until_asked(SERVICE, 1).await?;
        assert_eq!((first[0].port, first[0].password.len()), (9735, 64));
        let peers = alice.call(PeerList::default()).await?.items;
        assert_eq!(peers[0].address.as_deref(), Some(announced.as_str()));
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let paid = alice.pay(&bob.invoice(10_000_000, "over the proxy").await?).await?;
        assert_eq!(paid.state, PaymentState::Succeeded);

        alice.connect_to(&carol.node_id().await?, &format!("{OTHER_SERVICE}:1234")).await?;
        let other = tor.until_asked(OTHER_SERVICE, 1).await?;
        assert_eq!(other[0].port, 1234);
        assert_ne!(other[0].password, first[0].password, "what one peer sees is not joined with what another sees");

        // A start dials what was known, through the proxy again, and under another name than before.
        alice.kill().await?;
        alice.start_again().await?;
        let again = tor.until_asked(SERVICE, 2).await?;
        assert_ne!(again[1].password, first[0].password);

        // What has no onion needs no proxy.
        let dave = regtest.sidecar("dave").await?;
        let before = tor.requests()?.len();
        alice.connect(&dave).await?;
        assert!(tor.requests()?[before..].iter().all(|request| request.host.ends_with(".onion")));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_where_everything_goes_through_the_proxy_no_name_is_looked_up_here() -> Done<()> {
    on_regtest(async |regtest| {
        let tor = Socks::start().await?;
        let flags = ["--proxy", tor.address(), "--always-use-proxy", "true"];
        let (alice, bob) = tokio::try_join!(regtest.sidecar_with("alice", &flags), regtest.sidecar("bob"))?;
        // No resolver knows a name that ends so (RFC 6761).
        tor.answer("bob.invalid", Answer::Connect(bob.address()));
        let bob_id = bob.node_id().await?;
        alice.connect_to(&bob_id, "bob.invalid:9735").await?;
        tor.answer("203.0.113.7", Answer::Reply(5));
        tor.answer("2001:db8::7", Answer::Reply(8));
        let stranger = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let (_, refused, ..) = unreachable(&alice, stranger, "203.0.113.7:9735").await?;
        assert_eq!(refused, "the peer's address refused the proxy's connection (reply 0x05)");
        let (_, unknown, _, retryable) = unreachable(&alice, stranger, "[2001:db8::7]:1").await?;
        assert_eq!((&*unknown, retryable), ("the proxy does not know this kind of address (reply 0x08)", false));
        let asked: Vec<_> = tor.requests()?.into_iter().map(|request| (request.host, request.port)).collect();
        let expected = [("bob.invalid", 9735), ("203.0.113.7", 9735), ("2001:db8::7", 1)];
        assert_eq!(asked, expected.map(|(host, port)| (host.to_owned(), port)));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_a_proxy_that_misbehaves_is_told_with_what_to_do() -> Done<()> {
    on_regtest(async |regtest| {
        let tor = Socks::start().await?;
        let through = ["--proxy", tor.address()];
        let (alice, plain) =
            tokio::try_join!(regtest.sidecar_with("alice", &through), regtest.sidecar("plain"))?;
        let (stranger, address) = (plain.node_id().await?, format!("{SERVICE}:9735"));
        let said = async |words: &str, hint: &str, retry: bool| {
            let (kind, message, told, retryable) = unreachable(&alice, &stranger, &address).await?;
            assert_eq!((kind.as_str(), retryable), ("peer_unreachable", retry), "{message}");
            assert_eq!(message, words);
            assert!(told.contains(hint), "{told}");
            Ok::<_, outrigger_integration::Fault>(())
        };
        said("the proxy cannot reach the peer's host (reply 0x04)", "the peer may be away", true).await?;
        tor.answer(SERVICE, Answer::Reply(2));
        said("the proxy's rules forbid this connection (reply 0x02)", "configuration forbids it", false).await?;
        tor.answer(SERVICE, Answer::HangUp);
        said("the proxy hung up after it was told whom to connect to", "Look at the proxy's log", true).await?;
        tor.answer("*", Answer::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        let http = "what listens at the proxy's address does not speak SOCKS5: its answer after our greeting began with byte 0x48";
        said(http, "is the SOCKS5 port of Tor", false).await?;
        let gone = tor.address().to_owned();
        drop(tor);
        // What it still has in its queue is hung up on first.
        let refused = format!("the proxy at {gone} refused the connection");
        until(LIMIT, "the proxy's port to be closed", async || {
            Ok((unreachable(&alice, &stranger, &address).await?.1 == refused).then_some(()))
        })
        .await?;
        said(&refused, "Start Tor", true).await?;

        // Without a proxy nobody is asked for an onion service, a resolver least of all.
        let (kind, message, hint, retryable) = unreachable(&plain, &alice.node_id().await?, &address).await?;
        assert_eq!((kind.as_str(), retryable), ("peer_unreachable", false));
        assert_eq!(message, "an onion service can be reached through Tor only, and no proxy is configured");
        assert!(hint.contains("127.0.0.1:9050"), "{hint}");
        let typo = address.replacen('p', "q", 1);
        let (kind, message, ..) = unreachable(&plain, &alice.node_id().await?, &typo).await?;
        assert_eq!(kind, "invalid_parameter");
        assert_eq!(message, "parameter address has a wrong checksum: a letter of the onion service's name is wrong");
        Ok(())
    })
    .await
}
