//! Two daemons while their bitcoind is away, and after it has come back with another cookie.

use std::time::Duration;

use outrigger_integration::proxy::{Proxy, Way};
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChainNotifyBlock, ChainState, ChainStatus, ChannelOpen, ChannelState, InvoiceGet, InvoiceState, NodeStatus,
    NodeStatusReport, PaymentSend, PaymentState, Phase,
};

/// What a channel of these tests holds.
const CAPACITY_SAT: u64 = 1_000_000;
/// Time for one step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoind_that_comes_back_with_another_cookie_is_waited_for() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        let wire = Proxy::start(&bob.address()).await?;
        alice.connect_to(&bob.node_id().await?, wire.address()).await?;
        let channel_id = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?.channel_id;
        let (early, late) = (bob.invoice(10_000_000, "early").await?, bob.invoice(20_000_000, "late").await?);

        // One HTLC is under way when bitcoind goes.
        wire.hold_after(Way::Back, 0);
        let early_id = alice.send(&early).await?;
        wire.until_held(Way::Back, 1).await?;
        let height = regtest.bitcoind.height().await?;
        let cookie = regtest.bitcoind.credentials()?;
        regtest.bitcoind.stop().await?;
        for node in [&alice, &bob] {
            // What has been taken in is known all the same.
            assert_eq!(assert_waits(node).await?.block_height, Some(height));
        }
        let open = ChannelOpen {
            node_id: bob.node_id().await?,
            funding_sat: CAPACITY_SAT,
            idempotency_key: "second".to_owned(),
            ..Default::default()
        };
        assert_eq!(alice.refusal(open).await?, "bitcoind_unavailable");
        let pay = PaymentSend { invoice: Some(late.clone()), ..Default::default() };
        assert_eq!(alice.refusal(pay).await?, "bitcoind_unavailable");

        // Nothing is received without a view of the chain, and nothing hangs or is lost: it is refused, for now.
        wire.release(Way::Back);
        let refused = alice.payment_end(&early_id).await?;
        let kind = refused.failure.as_ref().map(|failure| failure.kind.as_str());
        assert_eq!((refused.state, kind), (PaymentState::Failed, Some("temporary_node_failure")), "{refused:?}");
        let invoice = bob.call(InvoiceGet { payment_hash: refused.payment_hash.clone() }).await?;
        assert_eq!(invoice.state, InvoiceState::Open);
        assert_balances(&alice, &bob, &channel_id, 0).await?;

        regtest.bitcoind.start_again().await?;
        assert_ne!(regtest.bitcoind.credentials()?, cookie);
        regtest.bitcoind.mine_to_nobody(3).await?;
        for node in [&alice, &bob] {
            assert_goes_on(regtest, node).await?;
        }
        for invoice in [&early, &late] {
            assert_eq!(alice.pay(invoice).await?.state, PaymentState::Succeeded);
        }
        assert_balances(&alice, &bob, &channel_id, 30_000_000).await?;

        let closing_txid = alice.close(&channel_id).await?;
        regtest.confirm(&closing_txid).await?;
        for node in [&alice, &bob] {
            node.until_channel_is(&channel_id, ChannelState::Closed).await?;
        }
        assert_eq!(bob.balance().await?.confirmed_sat, 30_000);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_without_bitcoind_waits_for_it() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = regtest.pair().await?;
        let channel_id = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?.channel_id;
        let invoice = bob.invoice(10_000_000, "once bitcoind is there").await?;
        let height = regtest.bitcoind.height().await?;
        until(LIMIT, "the newest block", async || Ok((alice.info().await?.block_height == Some(height)).then_some(())))
            .await?;
        alice.kill().await?;
        regtest.bitcoind.stop().await?;
        alice.launch_again().await?;
        assert_eq!(assert_waits(&alice).await?.block_height, Some(height));
        let pay = PaymentSend { invoice: Some(invoice.clone()), ..Default::default() };
        assert_eq!(alice.refusal(pay).await?, "bitcoind_unavailable");
        // Its channels are its own whether or not bitcoind is there.
        assert_eq!(alice.channel(&channel_id).await?.local_msat, CAPACITY_SAT * 1000);

        regtest.bitcoind.start_again().await?;
        regtest.bitcoind.mine_to_nobody(3).await?;
        for node in [&alice, &bob] {
            assert_goes_on(regtest, node).await?;
            node.until_channel_is(&channel_id, ChannelState::Normal).await?;
        }
        assert_eq!(alice.pay(&invoice).await?.state, PaymentState::Succeeded);
        assert_balances(&alice, &bob, &channel_id, 10_000_000).await
    })
    .await
}

/// `node.status` names bitcoind and what is waited for. One that is just stopping may call itself busy first.
async fn assert_waits(node: &Sidecar) -> Done<NodeStatusReport> {
    let status = until(LIMIT, "the daemon to say that it waits for bitcoind to be started", async || {
        let status = node.call(NodeStatus {}).await?;
        let says_so = status.reason.as_ref().is_some_and(|reason| reason.contains("start bitcoind"));
        Ok((status.phase == Phase::WaitingForBitcoind && says_so).then_some(status))
    })
    .await?;
    let chain = node.call(ChainStatus {}).await?;
    assert_eq!(chain.state, ChainState::WaitingForBitcoind);
    let (info, notified) = (node.info().await?, node.call(ChainNotifyBlock::default()).await?);
    let heights = [chain.block_height, info.block_height, notified.block_height];
    assert_eq!(heights, [status.block_height; 3], "they are told of one block");
    assert!(info.block_hash.is_some() && info.block_hash == chain.block_hash);
    Ok(status)
}

/// The daemon is ready again by itself, and has seen what was mined meanwhile.
async fn assert_goes_on(regtest: &Regtest, node: &Sidecar) -> Done<()> {
    let height = regtest.bitcoind.height().await?;
    let status = node.until_phase(&[Phase::Ready]).await?;
    assert_eq!(status.reason, None);
    until(LIMIT, &format!("the daemon to reach block {height}"), async || {
        Ok((node.info().await?.block_height == Some(height)).then_some(()))
    })
    .await
}

/// Waits until the channel is idle and checks both sides' view of who owns what.
async fn assert_balances(alice: &Sidecar, bob: &Sidecar, channel_id: &str, bob_msat: u64) -> Done<()> {
    let (hers, his) = tokio::try_join!(alice.until_idle(channel_id), bob.until_idle(channel_id))?;
    let expected = (ChannelState::Normal, CAPACITY_SAT * 1000 - bob_msat, bob_msat);
    assert_eq!((hers.state, hers.local_msat, hers.remote_msat), expected);
    assert_eq!((his.state, his.remote_msat, his.local_msat), expected);
    Ok(())
}
