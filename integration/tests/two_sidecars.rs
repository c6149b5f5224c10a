//! Two daemons on a bitcoind.

use std::time::{Duration, SystemTime};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use outrigger_integration::bitcoind::free_port;
use outrigger_integration::proxy::{Proxy, Way};
use outrigger_integration::regtest::{Opened, REWARD_SAT};
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelClose, ChannelInfo, ChannelList, ChannelOpen, ChannelState, EventKind, EventList, InvoiceCreate, InvoiceGet,
    InvoiceInfo, InvoiceState, OpenState, PaymentGet, PaymentInfo, PaymentSend, PaymentState, PeerConnect, PeerList,
};
use serde_json::json;
use tokio::task::JoinSet;

/// What a channel of these tests holds.
const CAPACITY_SAT: u64 = 1_000_000;
/// Time for one step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_pays_both_ways_and_its_opener_closes_it() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        paid(&alice, &bob, 50_000_000).await?;
        paid(&bob, &alice, 20_000_000).await?;
        assert_balances(&alice, &bob, &opened, 30_000_000).await?;
        let closing_txid = alice.close(&opened.channel_id).await?;
        assert_closed(regtest, [&alice, &bob], &alice, &opened, &closing_txid, 30_000_000).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn five_payments_at_a_time_each_way_and_the_accepter_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 400_000_000).await?;
        // Amounts that are no whole satoshi: what is left of one goes to the fee of the closing transaction.
        let (there, back) = tokio::join!(
            paid_in_parallel(&alice, &bob, [10_000_001, 11_000_002, 12_000_003, 13_000_004, 14_000_005]),
            paid_in_parallel(&bob, &alice, [20_000_010, 21_000_020, 22_000_030, 23_000_040, 24_000_050]),
        );
        let bob_msat = 400_000_000 + there? - back?;
        assert_balances(&alice, &bob, &opened, bob_msat).await?;
        let closing_txid = bob.close(&opened.channel_id).await?;
        assert_closed(regtest, [&alice, &bob], &bob, &opened, &closing_txid, bob_msat).await
    })
    .await
}

/// `option_simple_close`: the close is replaced by a dearer one, and a channel that is history is shown and answered still.
#[tokio::test(flavor = "multi_thread")]
async fn cst_20_a_close_is_replaced_by_a_dearer_one_and_becomes_history() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let channel_id = &opened.channel_id;
        paid(&alice, &bob, 50_000_000).await?;
        assert_balances(&alice, &bob, &opened, 50_000_000).await?;
        let close = |feerate| ChannelClose { channel_id: channel_id.clone(), feerate_sat_per_vb: feerate };
        alice.call(close(Some(5))).await?;
        let cheap = alice.closing_txid(channel_id).await?;
        regtest.bitcoind.until_mempool_holds(&cheap).await?;
        assert_eq!(alice.refusal(close(Some(5))).await?, "channel_state_unfit", "mempools would not take it");
        alice.call(close(Some(20))).await?;
        let dear = until(LIMIT, "the close to be replaced", async || {
            Ok(alice.channel(channel_id).await?.closing_txid.filter(|txid| *txid != cheap))
        });
        let dear = dear.await?;
        let fee_sat = regtest.confirm(&dear).await?;
        assert!(!regtest.bitcoind.mempool().await?.iter().any(|txid| txid.to_string() == cheap));
        assert_all_is_back([&alice, &bob], &alice, &opened, fee_sat, 50_000_000).await?;
        for node in [&alice, &bob] {
            assert_eq!(node.closing_txid(channel_id).await?, dear);
        }
        // Under a hundred blocks it leaves memory, and is told of still; after a restart too.
        regtest.bitcoind.mine_to_nobody(100).await?;
        for is_restarted in [false, true] {
            if is_restarted {
                bob.kill().await?;
                bob.start_again().await?;
            }
            for node in [&alice, &bob] {
                node.until_synced_with(&regtest.bitcoind).await?;
                let listed = node.call(ChannelList { state: Some(ChannelState::Closed), ..Default::default() }).await?;
                let ids: Vec<_> = listed.items.iter().map(|channel| &channel.channel_id).collect();
                assert_eq!(ids, [channel_id]);
                assert_eq!(node.channel(channel_id).await?.closing_txid.as_ref(), Some(&dear));
                assert_eq!(node.refusal(close(None)).await?, "channel_state_unfit");
            }
        }
        Ok(())
    })
    .await
}

/// Who is killed while an HTLC is in flight.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Sender,
    Receiver,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_ends_the_same_on_both_sides_when_its_sender_is_killed() -> Done<()> {
    on_regtest(async |regtest| killed_with_an_htlc_in_flight(regtest, Victim::Sender).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_ends_the_same_on_both_sides_when_its_receiver_is_killed() -> Done<()> {
    on_regtest(async |regtest| killed_with_an_htlc_in_flight(regtest, Victim::Receiver).await).await
}

/// Where the wire is held in each round: the sizes on the wire are 1486 bytes of `update_add_htlc`, 198 of
/// `commitment_signed` with one HTLC and 133 of `revoke_and_ack`.
const HELD: [(Way, usize, &str); 5] = [
    (Way::Out, 0, "the sender's update_add_htlc is lost"),
    (Way::Back, 0, "the receiver's revoke_and_ack is lost"),
    (Way::Back, 133, "the receiver's commitment_signed is lost"),
    (Way::Out, 1486 + 198, "the sender's revoke_and_ack is lost"),
    (Way::Back, 133 + 198, "the receiver's update_fulfill_htlc is lost"),
];

async fn killed_with_an_htlc_in_flight(regtest: &Regtest, victim: Victim) -> Done<()> {
    let (mut alice, mut bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
    alice.fund(&regtest.bitcoind).await?;
    bob.until_synced_with(&regtest.bitcoind).await?;
    let wire = Proxy::start(&bob.address()).await?;
    let bob_id = bob.node_id().await?;
    alice.connect_to(&bob_id, wire.address()).await?;
    let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;

    let mut bob_msat = 0;
    for (round, (way, allowance, what)) in HELD.into_iter().enumerate() {
        let amount_msat = 10_000_000 + u64::try_from(round)?;
        let invoice = bob.invoice(amount_msat, what).await?;
        wire.hold_after(way, allowance);
        let payment_id = alice.send(&invoice).await?;
        wire.until_held(way, 1).await?;
        let node = match victim {
            Victim::Sender => &mut alice,
            Victim::Receiver => &mut bob,
        };
        node.kill().await?;
        wire.cut();
        node.start_again().await?;

        let end = alice.payment_end(&payment_id);
        let payment = alice.reconnecting(&bob_id, wire.address(), end).await?;
        assert_eq!(payment.state, PaymentState::Succeeded, "{what}: {payment:?}");
        let paid = invoice_of(&bob, &payment.payment_hash).await?;
        assert_eq!((paid.state, paid.received_msat), (InvoiceState::Paid, Some(amount_msat)), "{what}");
        bob_msat += amount_msat;
        assert_balances(&alice, &bob, &opened, bob_msat).await?;
    }
    assert_eq!(regtest.bitcoind.mempool().await?, [], "nobody published anything");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_outside_the_limits_is_refused_with_the_reason() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = regtest.sidecar("alice").await?;
        let bob = regtest
            .sidecar_with("bob", &["--channel-min-funding-sat", "200000", "--channel-max-funding-sat", "300000"])
            .await?;
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&bob).await?;
        let node_id = bob.node_id().await?;
        let order = |funding_sat: u64| ChannelOpen {
            node_id: node_id.clone(),
            funding_sat,
            idempotency_key: funding_sat.to_string(),
            ..Default::default()
        };
        // The first two break Alice's own limits, the others Bob's, in whose words they are told.
        for (funding_sat, limit) in
            [(10_000, "20000"), (16_777_216, "16777215"), (199_999, "200000"), (300_001, "300000")]
        {
            let reason = alice.open(order(funding_sat)).await.err().ok_or("a channel was opened")?.to_string();
            assert!(reason.contains("funding") && reason.contains(limit), "{funding_sat}: {reason}");
            assert_eq!(alice.call(order(funding_sat)).await?.state, OpenState::Failed);
        }
        let too_much = ChannelOpen { push_msat: Some(250_000_001), ..order(250_000) };
        assert_eq!(alice.refusal(too_much).await?, "invalid_parameter");
        assert_eq!(alice.call(ChannelList::default()).await?.items, []);
        assert_eq!(bob.call(ChannelList::default()).await?.items, []);
        let balance = alice.balance().await?;
        assert_eq!((balance.confirmed_sat, balance.locked_sat), (REWARD_SAT, 0), "no coins were spent or kept");
        // The limits themselves are inside.
        for funding_sat in [200_000, 300_000] {
            alice.open(order(funding_sat)).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_there_is_named_as_such() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
        let (alice_id, bob_id) = (alice.node_id().await?, bob.node_id().await?);
        let stranger = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
        let connect = |node_id: &str, address: &str| PeerConnect { node_id: node_id.into(), address: address.into() };

        let closed_port = format!("127.0.0.1:{}", free_port()?);
        assert_eq!(alice.refusal(connect(&bob_id, &closed_port)).await?, "peer_unreachable");
        assert_eq!(alice.refusal(connect(stranger, &bob.address())).await?, "peer_handshake_failed");
        assert_eq!(alice.refusal(connect(&alice_id, &alice.address())).await?, "peer_is_self");
        assert_eq!(alice.refusal(connect("02c6", &bob.address())).await?, "invalid_parameter");

        let open = ChannelOpen {
            node_id: bob_id,
            funding_sat: CAPACITY_SAT,
            idempotency_key: "nobody".to_owned(),
            ..Default::default()
        };
        assert_eq!(alice.refusal(open).await?, "peer_not_connected");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payee_that_is_away_is_told_from_one_without_a_channel() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let pay = |invoice: &str| PaymentSend { invoice: Some(invoice.to_owned()), ..Default::default() };
        let invoice = bob.invoice(10_000_000, "later").await?;
        assert_eq!(alice.refusal(pay(&invoice)).await?, "no_route");
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        bob.kill().await?;
        until(LIMIT, "Alice to see that Bob is gone", async || {
            Ok((!alice.channel(&opened.channel_id).await?.connected).then_some(()))
        })
        .await?;
        assert_eq!(alice.refusal(pay(&invoice)).await?, "peer_not_connected");
        bob.start_again().await?;
        alice.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        assert_eq!(alice.pay(&invoice).await?.state, PaymentState::Succeeded);
        assert_balances(&alice, &bob, &opened, 10_000_000).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganised_chain_is_followed_and_the_channel_goes_on() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        paid(&alice, &bob, 50_000_000).await?;
        // Bob sees it happen, then misses the second time: he finds at his start that his blocks are gone.
        let funded_at = regtest.bitcoind.height().await? - 5;
        for is_down in [false, true] {
            if is_down {
                bob.kill().await?;
            }
            regtest.reorganise(funded_at).await?;
            regtest.bitcoind.mine_to_nobody(6).await?;
            if is_down {
                bob.start_again().await?;
            }
            for node in [&alice, &bob] {
                until_at_the_tip(regtest, node).await?;
                node.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
            }
            paid(&bob, &alice, 10_000_000).await?;
        }
        assert_balances(&alice, &bob, &opened, 30_000_000).await?;
        let closing_txid = bob.close(&opened.channel_id).await?;
        assert_closed(regtest, [&alice, &bob], &bob, &opened, &closing_txid, 30_000_000).await?;
        let bob_sat = bob.balance().await?.confirmed_sat;
        regtest.reorganise(regtest.bitcoind.height().await? - 2).await?;
        regtest.bitcoind.mine_to_nobody(6).await?;
        for node in [&alice, &bob] {
            until_at_the_tip(regtest, node).await?;
        }
        assert_eq!(bob.balance().await?.confirmed_sat, bob_sat);
        Ok(())
    })
    .await
}

async fn until_at_the_tip(regtest: &Regtest, node: &Sidecar) -> Done<()> {
    let best = regtest.bitcoind.call("getbestblockhash", json!([])).await?;
    until(LIMIT, "the node to reach the best block", async || {
        Ok((node.info().await?.block_hash.as_deref() == best.as_str()).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_opens_one_channel() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = regtest.pair().await?;
        let order = ChannelOpen {
            node_id: bob.node_id().await?,
            funding_sat: CAPACITY_SAT,
            idempotency_key: "once".to_owned(),
            ..Default::default()
        };
        let (first, second) = tokio::try_join!(alice.call(order.clone()), alice.call(order.clone()))?;
        assert_eq!(first.op_id, second.op_id);
        let (channel_id, funding_txid) = alice.open(order.clone()).await?;

        let other = ChannelOpen { funding_sat: CAPACITY_SAT + 1, ..order.clone() };
        assert_eq!(alice.refusal(other).await?, "idempotency_conflict");
        alice.kill().await?;
        alice.start_again().await?;
        let again = alice.call(order).await?;
        assert_eq!((again.op_id, again.state), (first.op_id, OpenState::Pending));
        assert_eq!((again.channel_id, again.funding_txid), (Some(channel_id), Some(funding_txid)));
        assert_eq!(alice.call(ChannelList::default()).await?.items.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_makes_one_invoice_and_one_payment() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let key = || Some("order-17".to_owned());
        let brief = |amount_msat| InvoiceCreate {
            amount_msat: Some(amount_msat),
            description: "keyed".to_owned(),
            idempotency_key: key(),
            ..Default::default()
        };
        let created = bob.call(brief(10_000_000)).await?;
        assert_eq!(bob.call(brief(10_000_000)).await?.invoice, created.invoice);
        assert_eq!(bob.refusal(brief(20_000_000)).await?, "idempotency_conflict");

        let pay = |invoice: &str| PaymentSend {
            invoice: Some(invoice.to_owned()),
            idempotency_key: key(),
            ..Default::default()
        };
        let (first, second) = tokio::try_join!(alice.call(pay(&created.invoice)), alice.call(pay(&created.invoice)))?;
        assert_eq!(first.payment_id, second.payment_id);
        assert_eq!(alice.payment_end(&first.payment_id).await?.state, PaymentState::Succeeded);
        assert_eq!(alice.call(pay(&created.invoice)).await?.payment_id, first.payment_id);
        let other = bob.invoice(30_000_000, "another").await?;
        assert_eq!(alice.refusal(pay(&other)).await?, "idempotency_conflict");
        assert_balances(&alice, &bob, &opened, 10_000_000).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_invoice_is_paid_once() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let brief = InvoiceCreate {
            amount_msat: Some(10_000_000),
            description: "once".to_owned(),
            expiry_secs: Some(2),
            ..Default::default()
        };
        let created = bob.call(brief).await?;
        let order = PaymentSend { invoice: Some(created.invoice), ..Default::default() };
        let (first, second) = tokio::try_join!(alice.call(order.clone()), alice.call(order.clone()))?;
        assert_eq!(first.payment_id, second.payment_id);
        let paid = alice.payment_end(&first.payment_id).await?;
        assert_eq!(paid.state, PaymentState::Succeeded);

        let again = alice.call(order.clone()).await?;
        assert_eq!((&again.payment_id, again.state), (&first.payment_id, PaymentState::Succeeded));
        until(LIMIT, "the invoice to expire", async || {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
            Ok((now > created.expires_at).then_some(()))
        })
        .await?;
        let again = alice.call(order).await?;
        assert_eq!((&again.payment_id, again.state), (&first.payment_id, PaymentState::Succeeded));
        assert_eq!(invoice_of(&bob, &created.payment_hash).await?.state, InvoiceState::Paid);
        assert_eq!(alice.call(PaymentGet { payment_id: first.payment_id }).await?, paid);
        assert_balances(&alice, &bob, &opened, 10_000_000).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_does_not_fit_is_refused_before_any_money_moves() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let pay = |invoice: &str, amount_msat| PaymentSend {
            invoice: Some(invoice.to_owned()),
            amount_msat,
            ..Default::default()
        };

        let invoice = bob.invoice(10_000_000, "fixed").await?;
        assert_eq!(alice.refusal(pay(&invoice, Some(10_000_001))).await?, "invoice_amount_mismatch");
        assert_eq!(alice.refusal(pay("lnbcrt1nonsense", None)).await?, "invoice_invalid");
        let own = alice.invoice(10_000_000, "own").await?;
        assert_eq!(alice.refusal(pay(&own, None)).await?, "payment_to_self");
        let large = bob.invoice(CAPACITY_SAT * 1000, "all of it").await?;
        assert_eq!(alice.refusal(pay(&large, None)).await?, "insufficient_capacity");

        let open = InvoiceCreate { description: "any amount".to_owned(), ..Default::default() };
        let open = bob.call(open).await?;
        assert_eq!(alice.refusal(pay(&open.invoice, None)).await?, "invoice_amount_required");
        let sent = alice.call(pay(&open.invoice, Some(7_000_000))).await?;
        assert_eq!(alice.payment_end(&sent.payment_id).await?.state, PaymentState::Succeeded);
        assert_eq!(invoice_of(&bob, &open.payment_hash).await?.received_msat, Some(7_000_000));

        let brief = InvoiceCreate { amount_msat: Some(10_000_000), expiry_secs: Some(1), ..InvoiceCreate::default() };
        let brief = bob.call(brief).await?;
        until(LIMIT, "the invoice to expire", async || {
            let state = invoice_of(&bob, &brief.payment_hash).await?.state;
            Ok((state == InvoiceState::Expired).then_some(()))
        })
        .await?;
        assert_eq!(alice.refusal(pay(&brief.invoice, None)).await?, "invoice_expired");
        assert_balances(&alice, &bob, &opened, 7_000_000).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn following_the_events_misses_none_and_repeats_none() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        paid(&alice, &bob, 50_000_000).await?;
        assert_balances(&alice, &bob, &opened, 50_000_000).await?;
        paid(&bob, &alice, 20_000_000).await?;
        assert_balances(&alice, &bob, &opened, 30_000_000).await?;
        bob.kill().await?;
        bob.start_again().await?;
        bob.until_idle(&opened.channel_id).await?;
        let closing_txid = alice.close(&opened.channel_id).await?;
        assert_closed(regtest, [&alice, &bob], &alice, &opened, &closing_txid, 30_000_000).await?;

        use EventKind::{ChannelClosed, ChannelClosing, ChannelPending, ChannelReady, InvoicePaid, PaymentSucceeded};
        let mut told = followed(&alice, 2).await?;
        assert_eq!(told, followed(&alice, 1000).await?);
        // Where Bob's restart took long.
        told.retain(|(_, kind)| !matches!(kind, EventKind::PeerDisconnected | EventKind::PeerConnected));
        let expected = [
            // Her first coins.
            EventKind::WalletReceived,
            ChannelPending,
            // Alice paid for the channel.
            EventKind::WalletConfirmed,
            ChannelReady,
            PaymentSucceeded,
            InvoicePaid,
            ChannelClosing,
            // What was hers comes home in the block that closes the channel.
            EventKind::WalletReceived,
            ChannelClosed,
        ];
        assert_eq!(told.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), expected);
        let mut told = followed(&bob, 1).await?;
        // Bob has no coins until the channel is closed, and hears so at some block.
        let all = told.len();
        told.retain(|(_, kind)| *kind != EventKind::WalletReserveLow);
        assert!(told.len() < all);
        let expected = [
            ChannelPending,
            ChannelReady,
            InvoicePaid,
            PaymentSucceeded,
            ChannelClosing,
            EventKind::WalletReceived,
            ChannelClosed,
        ];
        assert_eq!(told.iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), expected);

        let payments = EventList { kinds: Some(vec![PaymentSucceeded]), ..Default::default() };
        let only = bob.call(payments).await?.items;
        assert_eq!(
            only.iter().map(|event| (event.kind, event.amount_msat)).collect::<Vec<_>>(),
            [(PaymentSucceeded, Some(20_000_000))]
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_a_start_keep_everything() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let payment = paid(&alice, &bob, 50_000_000).await?;
        let open_invoice = bob.invoice(20_000_000, "paid after the restart").await?;
        assert_balances(&alice, &bob, &opened, 50_000_000).await?;
        let before = Kept::of(&alice, &payment).await?;
        let invoice = invoice_of(&bob, &payment.payment_hash).await?;

        alice.stop().await?;
        bob.stop().await?;
        regtest.bitcoind.mine_to_nobody(3).await?;
        alice.start_again().await?;
        bob.start_again().await?;

        alice.until_idle(&opened.channel_id).await?;
        assert_eq!(Kept::of(&alice, &payment).await?, before);
        assert_eq!(invoice_of(&bob, &payment.payment_hash).await?, invoice);
        assert_eq!(alice.pay(&open_invoice).await?.state, PaymentState::Succeeded);
        assert_balances(&alice, &bob, &opened, 70_000_000).await?;
        paid(&bob, &alice, 30_000_000).await?;
        assert_balances(&alice, &bob, &opened, 40_000_000).await?;
        let closing_txid = bob.close(&opened.channel_id).await?;
        assert_closed(regtest, [&alice, &bob], &bob, &opened, &closing_txid, 40_000_000).await
    })
    .await
}

/// What a restart must not change.
#[derive(Debug, PartialEq)]
struct Kept {
    node_id: String,
    channels: Vec<ChannelInfo>,
    payment: PaymentInfo,
    confirmed_sat: u64,
    events: Vec<(u64, EventKind)>,
    peers: Vec<(String, Option<String>, u32)>,
}

impl Kept {
    async fn of(node: &Sidecar, payment: &PaymentInfo) -> Done<Self> {
        let peers = node.call(PeerList::default()).await?.items;
        Ok(Self {
            node_id: node.node_id().await?,
            channels: node.call(ChannelList::default()).await?.items,
            payment: node.call(PaymentGet { payment_id: payment.payment_id.clone() }).await?,
            confirmed_sat: node.balance().await?.confirmed_sat,
            events: followed(node, 1000).await?,
            peers: peers.into_iter().map(|peer| (peer.node_id, peer.address, peer.channels)).collect(),
        })
    }
}

/// Makes an invoice at `to`, pays it from `from`, and checks what both say of it.
async fn paid(from: &Sidecar, to: &Sidecar, amount_msat: u64) -> Done<PaymentInfo> {
    let invoice = to.invoice(amount_msat, "a payment").await?;
    let payment = from.pay(&invoice).await?;
    assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    assert_eq!((payment.amount_msat, payment.fee_msat), (amount_msat, Some(0)));
    let preimage = Vec::from_hex(payment.preimage.as_deref().unwrap_or_default())?;
    assert_eq!(sha256::Hash::hash(&preimage).to_byte_array().to_lower_hex_string(), payment.payment_hash);
    let invoice = invoice_of(to, &payment.payment_hash).await?;
    assert_eq!((invoice.state, invoice.received_msat), (InvoiceState::Paid, Some(amount_msat)));
    Ok(payment)
}

/// Pays several invoices at the same time; gives their sum in millisatoshi.
async fn paid_in_parallel(from: &Sidecar, to: &Sidecar, amounts_msat: [u64; 5]) -> Done<u64> {
    let mut payments = JoinSet::new();
    for amount_msat in amounts_msat {
        let invoice = to.invoice(amount_msat, "one of five").await?;
        let client = from.client();
        payments.spawn(async move {
            let sent = client.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await?;
            client.call(outrigger_rpc_schema::PaymentWait { payment_id: sent.payment_id, timeout_secs: Some(60) }).await
        });
    }
    for payment in payments.join_all().await {
        let payment = payment?;
        assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    }
    Ok(amounts_msat.iter().sum())
}

/// Waits until the channel is idle and checks both sides' view of who owns what.
async fn assert_balances(alice: &Sidecar, bob: &Sidecar, opened: &Opened, bob_msat: u64) -> Done<()> {
    let alice_msat = CAPACITY_SAT * 1000 - bob_msat;
    let (hers, his) = tokio::try_join!(alice.until_idle(&opened.channel_id), bob.until_idle(&opened.channel_id))?;
    assert_eq!((hers.state, hers.local_msat, hers.remote_msat), (ChannelState::Normal, alice_msat, bob_msat));
    assert_eq!((his.state, his.local_msat, his.remote_msat), (ChannelState::Normal, bob_msat, alice_msat));
    assert_eq!((hers.closing_txid, his.closing_txid), (None, None));
    Ok(())
}

/// Confirms the closing transaction and accounts for every satoshi: Bob, who began with none, has his share of the
/// channel, and Alice the rest of her coins but the fees of two transactions.
async fn assert_closed(
    regtest: &Regtest,
    [alice, bob]: [&Sidecar; 2],
    closer: &Sidecar,
    opened: &Opened,
    closing_txid: &str,
    bob_msat: u64,
) -> Done<()> {
    assert_eq!(alice.closing_txid(&opened.channel_id).await?, closing_txid);
    assert_eq!(bob.closing_txid(&opened.channel_id).await?, closing_txid);
    let closing_fee_sat = regtest.confirm(closing_txid).await?;
    assert_all_is_back([alice, bob], closer, opened, closing_fee_sat, bob_msat).await
}

/// With `option_simple_close`, who asks for a close pays for it.
async fn assert_all_is_back(
    [alice, bob]: [&Sidecar; 2],
    closer: &Sidecar,
    opened: &Opened,
    closing_fee_sat: u64,
    bob_msat: u64,
) -> Done<()> {
    // What is left of a satoshi goes to the fee.
    let shared_sat = CAPACITY_SAT - closing_fee_sat;
    let bob_sat = if std::ptr::eq(closer, alice) {
        bob_msat / 1000
    } else {
        shared_sat - (CAPACITY_SAT * 1000 - bob_msat) / 1000
    };
    let alice_sat = REWARD_SAT - opened.funding_fee_sat - CAPACITY_SAT + shared_sat - bob_sat;
    for (node, expected_sat) in [(alice, alice_sat), (bob, bob_sat)] {
        node.until_channel_is(&opened.channel_id, ChannelState::Closed).await?;
        let balance = node.balance().await?;
        assert_eq!((balance.confirmed_sat, balance.unconfirmed_sat, balance.locked_sat), (expected_sat, 0, 0));
    }
    Ok(())
}

async fn invoice_of(node: &Sidecar, payment_hash: &str) -> Done<InvoiceInfo> {
    Ok(node.call(InvoiceGet { payment_hash: payment_hash.to_owned() }).await?)
}

/// All events so far, page by page.
async fn followed(node: &Sidecar, limit: u32) -> Done<Vec<(u64, EventKind)>> {
    let mut told: Vec<(u64, EventKind)> = Vec::new();
    let mut after_seq = None;
    loop {
        let page = node.call(EventList { after_seq, kinds: None, limit: Some(limit) }).await?;
        let Some(last) = page.items.last() else { return Ok(told) };
        assert!(page.items.len() <= usize::try_from(limit)? && page.next_seq == last.seq, "{page:?}");
        told.extend(page.items.iter().map(|event| (event.seq, event.kind)));
        assert!(told.iter().is_sorted_by(|a, b| a.0 < b.0), "{told:?}");
        after_seq = Some(page.next_seq);
    }
}
