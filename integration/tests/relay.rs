//! Three sidecars: Alice pays Carol through Bob, who has a channel with each. The relay is measured by what each of the
//! three has at the end, to the millisatoshi.

use outrigger_integration::proxy::Proxy;
use outrigger_integration::regtest::Opened;
use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Dice, Done, Moment, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelSetPolicy, ChannelState, ForwardList, ForwardStats, InvoiceCreate, PaymentGet, PaymentInfo, PaymentSend,
    PaymentState,
};

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 400_000_000;
/// What Bob asks by default: a base and a share in millionths.
const BASE_MSAT: u64 = 1000;
const PPM: u64 = 100;

const fn fee_msat(amount_msat: u64) -> u64 {
    BASE_MSAT + amount_msat * PPM / 1_000_000
}

struct Chain {
    alice: Sidecar,
    bob: Sidecar,
    carol: Sidecar,
    /// From Alice to Bob.
    wire: Proxy,
    /// Between Alice and Bob.
    first: Opened,
    /// Between Bob and Carol.
    second: Opened,
}

impl Chain {
    async fn new(regtest: &Regtest, of_bob: &[&str]) -> Done<Self> {
        let (alice, bob, carol) =
            tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar_with("bob", of_bob), regtest.sidecar("carol"))?;
        alice.fund(&regtest.bitcoind).await?;
        bob.fund(&regtest.bitcoind).await?;
        for node in [&alice, &bob, &carol] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        let wire = Proxy::start(&bob.address()).await?;
        alice.connect_to(&bob.node_id().await?, wire.address()).await?;
        bob.connect(&carol).await?;
        let first = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let second = regtest.channel(&bob, &carol, CAPACITY_SAT, PUSH_MSAT).await?;
        for node in [&alice, &bob, &carol] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        Ok(Self { alice, bob, carol, wire, first, second })
    }

    /// An invoice of Carol's, once she can hint at her channel: Bob has told her what he asks.
    async fn invoice(&self, amount_msat: u64, description: &str) -> Done<String> {
        self.invoice_of(&self.carol, amount_msat, description).await
    }

    async fn invoice_of(&self, payee: &Sidecar, amount_msat: u64, description: &str) -> Done<String> {
        until(LIMIT, "an invoice with a route hint", async || {
            let order = InvoiceCreate {
                amount_msat: Some(amount_msat),
                description: description.to_owned(),
                ..Default::default()
            };
            let created = payee.call(order).await?;
            Ok((created.route_hints > 0).then_some(created.invoice))
        })
        .await
    }

    /// What Alice, Bob on each side, and Carol have in their channels, nothing being under way.
    async fn balances(&self) -> Done<[u64; 4]> {
        let of = async |node: &Sidecar, opened: &Opened| -> Done<u64> {
            node.until_idle(&opened.channel_id).await.map(|channel| channel.local_msat)
        };
        Ok([
            of(&self.alice, &self.first).await?,
            of(&self.bob, &self.first).await?,
            of(&self.bob, &self.second).await?,
            of(&self.carol, &self.second).await?,
        ])
    }

    async fn until_normal(&self) -> Done<()> {
        for (node, opened) in [
            (&self.alice, &self.first),
            (&self.bob, &self.first),
            (&self.bob, &self.second),
            (&self.carol, &self.second),
        ] {
            node.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        }
        Ok(())
    }
}

fn moved(before: [u64; 4], amount_msat: u64, fee_msat: u64) -> [u64; 4] {
    let [alice, bob_first, bob_second, carol] = before;
    let sent = amount_msat + fee_msat;
    [alice - sent, bob_first + sent, bob_second - amount_msat, carol + amount_msat]
}

async fn ended(payment: &PaymentInfo) -> Done<()> {
    assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_goes_through_a_peer_and_the_fee_stays_with_it() -> Done<()> {
    on_regtest(async |regtest| {
        let chain = Chain::new(regtest, &[]).await?;
        let before = chain.balances().await?;
        let amount = 50_000_000;
        let paid = chain.alice.pay(&chain.invoice(amount, "oars").await?).await?;
        ended(&paid).await?;
        assert_eq!(paid.fee_msat, Some(fee_msat(amount)));
        assert_eq!(chain.balances().await?, moved(before, amount, fee_msat(amount)));
        // And back, over Alice's own hint.
        let invoice = chain.invoice_of(&chain.alice, 7_000_001, "thanks").await?;
        ended(&chain.carol.pay(&invoice).await?).await?;
        let [alice, bob_first, bob_second, carol] = moved(before, amount, fee_msat(amount));
        let sent = 7_000_001 + fee_msat(7_000_001);
        let after = [alice + 7_000_001, bob_first - 7_000_001, bob_second + sent, carol - sent];
        assert_eq!(chain.balances().await?, after);
        // A dust amount has no output of its own, and is relayed all the same.
        ended(&chain.alice.pay(&chain.invoice(1_000, "a nail").await?).await?).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_payments_at_once_both_ways_all_arrive() -> Done<()> {
    on_regtest(async |regtest| {
        let chain = Chain::new(regtest, &[]).await?;
        let mut expected = chain.balances().await?;
        let mut ids = Vec::new();
        for number in 0..10 {
            let amount = 100_000 + number;
            ids.push((&chain.alice, chain.alice.send(&chain.invoice(amount, "out").await?).await?));
            let back = chain.invoice_of(&chain.alice, amount, "back").await?;
            ids.push((&chain.carol, chain.carol.send(&back).await?));
            let [alice, bob_first, bob_second, carol] = moved(expected, amount, fee_msat(amount));
            let sent = amount + fee_msat(amount);
            expected = [alice + amount, bob_first - amount, bob_second + sent, carol - sent];
        }
        for (payer, id) in ids {
            ended(&payer.payment_end(&id).await?).await?;
        }
        assert_eq!(chain.balances().await?, expected, "each has what it should");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_cannot_go_on_fails_with_the_node_and_the_reason() -> Done<()> {
    on_regtest(async |regtest| {
        let mut chain = Chain::new(regtest, &[]).await?;
        // More than Bob has left with Carol, and less than Alice has with Bob.
        let spendable = chain.bob.channel(&chain.second.channel_id).await?.spendable_msat;
        ended(&chain.bob.pay(&chain.carol.invoice(100_000_000, "a mast").await?).await?).await?;
        let invoice = chain.invoice(spendable - 50_000_000, "a boat").await?;
        let before = chain.balances().await?;
        let bob = chain.bob.node_id().await?;
        // Carol is away: Bob cannot reach her.
        let small = chain.invoice(1_000_000, "a rope").await?;
        chain.carol.kill().await?;
        until(LIMIT, "Bob to miss Carol", async || {
            Ok((!chain.bob.channel(&chain.second.channel_id).await?.connected).then_some(()))
        })
        .await?;
        let failed = chain.alice.pay(&small).await?;
        assert_eq!(failed.state, PaymentState::Failed);
        let words = failed.failure.ok_or("a reason")?.message;
        assert!(words.contains(&bob) && words.contains("temporary_channel_failure"), "{words}");
        // A fee below what the way costs is refused before anything is sent.
        let order = PaymentSend { invoice: Some(small.clone()), max_fee_msat: Some(1), ..Default::default() };
        assert_eq!(chain.alice.refusal(order).await?, "fee_too_high");
        chain.carol.start_again().await?;
        chain.bob.connect(&chain.carol).await?;
        chain.until_normal().await?;
        assert_eq!(chain.balances().await?, before, "nothing has moved");
        ended(&chain.alice.pay(&small).await?).await?;
        // What Bob does not have with Carol he cannot send on.
        let large = chain.alice.pay(&invoice).await?;
        assert_eq!(large.state, PaymentState::Failed);
        let words = large.failure.ok_or("a reason")?.message;
        assert!(words.contains(&bob) && words.contains("temporary_channel_failure"), "{words}");
        Ok(())
    })
    .await
}

/// How often the relay is killed.
const ROUNDS: u32 = 8;

/// `OUTRIGGER_SEED` repeats a run, as far as the machine's timing allows.
#[tokio::test(flavor = "multi_thread")]
async fn fwd_9_a_kill_of_the_relay_at_any_moment_loses_nothing() -> Done<()> {
    let mut dice = Dice::thrown()?;
    on_regtest(async |regtest| {
        let mut chain = Chain::new(regtest, &[]).await?;
        let bob_id = chain.bob.node_id().await?;
        let mut expected = chain.balances().await?;
        for round in 0..ROUNDS {
            let mut moment = Moment::thrown(&mut dice, 8_000);
            let what = format!("round {round}: {moment}");
            let mut invoices = Vec::new();
            for number in 0..3 {
                invoices.push(chain.invoice(1_000_000 + number, "through a storm").await?);
            }
            moment.arm(&chain.wire);
            let mut ids = Vec::new();
            for invoice in &invoices {
                ids.push(chain.alice.send(invoice).await?);
            }
            moment.come(&chain.wire, async || all_ended(&chain.alice, &ids).await).await?;
            chain.bob.kill().await?;
            chain.wire.cut();
            chain.bob.start_again().await?;
            chain.bob.connect(&chain.carol).await?;
            let ended = async {
                chain.until_normal().await?;
                until(LIMIT, "all payments to end", async || Ok(all_ended(&chain.alice, &ids).await?.then_some(())))
                    .await
            };
            let ended = chain.alice.reconnecting(&bob_id, chain.wire.address(), ended).await;
            ended.map_err(|fault| format!("{what}: {fault}"))?;
            for id in &ids {
                let payment = chain.alice.payment_end(id).await?;
                if payment.state == PaymentState::Succeeded {
                    let fee = payment.fee_msat.ok_or("a fee")?;
                    assert_eq!(fee, fee_msat(payment.amount_msat), "{what}");
                    expected = moved(expected, payment.amount_msat, fee);
                }
            }
            assert_eq!(chain.balances().await?, expected, "{what}: each has what the payments say");
        }
        ended(&chain.alice.pay(&chain.invoice(2_000_000, "calm").await?).await?).await
    })
    .await
}

async fn all_ended(payer: &Sidecar, ids: &[String]) -> Done<bool> {
    for payment_id in ids {
        if payer.call(PaymentGet { payment_id: payment_id.clone() }).await?.state == PaymentState::Pending {
            return Ok(false);
        }
    }
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_earned_is_listed_and_summed_and_each_channel_has_terms_of_its_own() -> Done<()> {
    on_regtest(async |regtest| {
        let mut chain = Chain::new(regtest, &[]).await?;
        let [first, second] = [&chain.first, &chain.second].map(|opened| opened.channel_id.clone());
        let before = chain.balances().await?;
        for amount in [50_000_000, 3_000_000] {
            ended(&chain.alice.pay(&chain.invoice(amount, "oars").await?).await?).await?;
        }
        let sent = fee_msat(50_000_000) + fee_msat(3_000_000);
        assert_eq!(chain.balances().await?, moved(before, 53_000_000, sent));
        let bob = &chain.bob;
        let page = until(LIMIT, "both forwards", async || {
            let page = bob.call(ForwardList::default()).await?;
            Ok((page.items.len() == 2).then_some(page))
        })
        .await?;
        let seen: Vec<_> = page.items.iter().map(|forward| (forward.outgoing_msat, forward.fee_msat)).collect();
        assert_eq!(seen, [(50_000_000, fee_msat(50_000_000)), (3_000_000, fee_msat(3_000_000))]);
        assert!(page.items.iter().all(|one| one.incoming_channel_id == first && one.outgoing_channel_id == second));
        let newest = ForwardList { newest_first: Some(true), limit: Some(1), ..Default::default() };
        let page = bob.call(newest).await?;
        assert_eq!((page.items.len(), page.items[0].outgoing_msat), (1, 3_000_000));
        let rest = ForwardList { newest_first: Some(true), after: page.next, ..Default::default() };
        assert_eq!(bob.call(rest).await?.items.iter().map(|one| one.outgoing_msat).collect::<Vec<_>>(), [50_000_000]);

        // Terms of Bob's channel with Carol: the peer hears them, and so her next invoice has them.
        let wrong = ChannelSetPolicy { channel_id: "00".repeat(32), ..Default::default() };
        assert_eq!(bob.refusal(wrong).await?, "channel_not_found");
        let order = ChannelSetPolicy {
            channel_id: second.clone(),
            fee_base_msat: Some(7000),
            fee_proportional_millionths: Some(0),
            htlc_maximum_msat: Some(60_000_000),
            ..Default::default()
        };
        let terms = bob.call(order).await?;
        assert_eq!(
            (terms.fee_base_msat, terms.cltv_delta_blocks, terms.htlc_maximum_msat),
            (7000, 80, Some(60_000_000))
        );
        assert_eq!(bob.channel(&second).await?.forwarding, Some(terms.clone()));
        assert_eq!(bob.channel(&first).await?.forwarding.map(|terms| terms.fee_base_msat), Some(1000));
        let paid = until(LIMIT, "a payment for the new fee", async || {
            let paid = chain.alice.pay(&chain.invoice(1_000_000, "dear").await?).await?;
            ended(&paid).await?;
            Ok((paid.fee_msat == Some(7000)).then_some(paid))
        })
        .await?;
        assert_eq!(paid.amount_msat, 1_000_000);
        // They are in Bob's file; what was asked before them is good for a while, but not after a restart.
        let large = chain.invoice(60_000_001, "a hull").await?;
        ended(&chain.alice.pay(&large).await?).await?;
        chain.bob.kill().await?;
        chain.wire.cut();
        chain.bob.start_again().await?;
        chain.bob.connect(&chain.carol).await?;
        let bob_id = chain.bob.node_id().await?;
        chain.alice.reconnecting(&bob_id, chain.wire.address(), chain.until_normal()).await?;
        let bob = &chain.bob;
        assert_eq!(bob.channel(&second).await?.forwarding, Some(terms));
        let too_large = chain.alice.pay(&chain.invoice(60_000_001, "another hull").await?).await?;
        assert_eq!(too_large.state, PaymentState::Failed, "{too_large:?}");

        let report = bob.call(ForwardStats::default()).await?;
        let listed = bob.call(ForwardList::default()).await?.items;
        let fees: u64 = listed.iter().map(|forward| forward.fee_msat).sum();
        assert_eq!((report.settled, report.fees_msat), (listed.len() as u64, fees));
        assert_eq!((report.refused, report.failed, report.pending), (1, 0, 0));
        assert_eq!(report.channels.iter().map(|channel| &channel.channel_id).collect::<Vec<_>>(), [&second, &first]);
        let backwards = ForwardStats { since_at: Some(2), until_at: Some(1), ..Default::default() };
        assert_eq!(bob.refusal(backwards).await?, "invalid_parameter");
        let long_ago = ForwardStats { until_at: Some(86_400), ..Default::default() };
        assert_eq!(bob.call(long_ago).await?.settled, 0);
        Ok(())
    })
    .await
}
