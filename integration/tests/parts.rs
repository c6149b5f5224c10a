//! Two sidecars with two channels: payments in parts, while either of them is killed at any moment. Each has at the end what the
//! payment says, to the millisatoshi, and no part is claimed without the other (PER-1, PAY-2, PAY-3).

use std::time::Duration;

use outrigger_integration::proxy::Proxy;
use outrigger_integration::{Dice, Done, Moment, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelInfo, ChannelList, ChannelOpen, ChannelState, InvoiceCreate, InvoiceGet, InvoiceState, PaymentAbandon,
    PaymentGet, PaymentInfo, PaymentSend, PaymentState,
};

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 400_000_000;

/// Time for a payment to end, of which a part may have been lost: the others fail after a minute.
const LIMIT: Duration = Duration::from_secs(150);

struct Pair {
    alice: Sidecar,
    bob: Sidecar,
    bob_id: String,
    /// From Alice to Bob.
    wire: Proxy,
}

impl Pair {
    async fn new(regtest: &Regtest) -> Done<Self> {
        let (alice, bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        let (wire, bob_id) = (Proxy::start(&bob.address()).await?, bob.node_id().await?);
        alice.connect_to(&bob_id, wire.address()).await?;
        for name in ["one", "two"] {
            let order = ChannelOpen {
                node_id: bob_id.clone(),
                funding_sat: CAPACITY_SAT,
                push_msat: Some(PUSH_MSAT),
                idempotency_key: name.to_owned(),
                ..Default::default()
            };
            let opened = regtest.open(&alice, order).await?;
            for node in [&alice, &bob] {
                node.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
            }
        }
        for node in [&alice, &bob] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        Ok(Self { alice, bob, bob_id, wire })
    }

    /// Both channels as a node sees them, once nothing is under way in either.
    async fn idle(node: &Sidecar) -> Done<Vec<ChannelInfo>> {
        until(LIMIT, "both channels to be idle", async || {
            let channels = node.call(ChannelList::default()).await?.items;
            let works = |channel: &ChannelInfo| {
                channel.htlcs == 0 && channel.connected && channel.state == ChannelState::Normal
            };
            Ok((channels.len() == 2 && channels.iter().all(works)).then_some(channels))
        })
        .await
    }

    /// What Alice has, and what Bob has.
    async fn balances(&self) -> Done<[u64; 2]> {
        let sum = |channels: Vec<ChannelInfo>| channels.iter().map(|channel| channel.local_msat).sum();
        Ok([sum(Self::idle(&self.alice).await?), sum(Self::idle(&self.bob).await?)])
    }

    /// More than either channel can send, and less than both: it has to go in parts.
    async fn amount(payer: &Sidecar) -> Done<u64> {
        let mut spendable: Vec<_> = Self::idle(payer).await?.iter().map(|channel| channel.spendable_msat).collect();
        spendable.sort_unstable();
        let [small, large] = spendable[..] else { return Err("two channels".into()) };
        Ok(large + small / 2)
    }

    async fn end(payer: &Sidecar, payment_id: &str) -> Done<PaymentInfo> {
        until(LIMIT, "the payment to end", async || {
            let payment = payer.call(PaymentGet { payment_id: payment_id.to_owned() }).await?;
            Ok((payment.state != PaymentState::Pending).then_some(payment))
        })
        .await
    }
}

/// What both have once this much has gone from the one to the other.
fn moved(before: [u64; 2], alice_pays: bool, amount_msat: u64) -> [u64; 2] {
    let [alice, bob] = before;
    if alice_pays { [alice - amount_msat, bob + amount_msat] } else { [alice + amount_msat, bob - amount_msat] }
}

/// How often one of them is killed.
const ROUNDS: u32 = 8;

/// `OUTRIGGER_SEED` repeats a run, as far as the machine's timing allows.
#[tokio::test(flavor = "multi_thread")]
async fn per_1_pay_2_a_payment_in_parts_survives_a_kill_of_either_side_at_any_moment() -> Done<()> {
    let mut dice = Dice::thrown()?;
    on_regtest(async |regtest| {
        let mut pair = Pair::new(regtest).await?;
        let mut expected = pair.balances().await?;
        for round in 0..ROUNDS {
            let alice_pays = expected[0] >= expected[1];
            let (payer, payee) = if alice_pays { (&pair.alice, &pair.bob) } else { (&pair.bob, &pair.alice) };
            let amount_msat = Pair::amount(payer).await?;
            let order = InvoiceCreate { amount_msat: Some(amount_msat), ..Default::default() };
            let created = payee.call(order).await?;
            let mut moment = Moment::thrown(&mut dice, 6_000);
            let kill_alice = dice.one_of([true, false]);
            let who = if kill_alice { "Alice" } else { "Bob" };
            let what = format!("round {round}: {who} is killed, Alice pays: {alice_pays}, {moment}");
            moment.arm(&pair.wire);
            let pay = PaymentSend { invoice: Some(created.invoice), ..Default::default() };
            let payment_id = payer.call(pay).await?.payment_id;
            let is_over = async || {
                let payment = payer.call(PaymentGet { payment_id: payment_id.clone() }).await?;
                Ok(payment.state != PaymentState::Pending)
            };
            moment.come(&pair.wire, is_over).await?;
            let victim = if kill_alice { &mut pair.alice } else { &mut pair.bob };
            victim.kill().await?;
            pair.wire.cut();
            victim.start_again().await?;
            let payer = if alice_pays { &pair.alice } else { &pair.bob };
            let ended = pair.alice.reconnecting(&pair.bob_id, pair.wire.address(), Pair::end(payer, &payment_id));
            let ended = tokio::time::timeout(LIMIT, ended).await.map_err(|_| format!("{what}: it never ends"))?;
            let payment = ended.map_err(|fault| format!("{what}: {fault}"))?;
            let has_succeeded = payment.state == PaymentState::Succeeded;
            if has_succeeded {
                assert_eq!(payment.fee_msat, Some(0), "{what}");
                expected = moved(expected, alice_pays, amount_msat);
            }
            assert_eq!(pair.balances().await?, expected, "{what}: each has what the payment says: {payment:?}");
            let payee = if alice_pays { &pair.bob } else { &pair.alice };
            let invoice = payee.call(InvoiceGet { payment_hash: created.payment_hash }).await?;
            assert_eq!(invoice.state == InvoiceState::Paid, has_succeeded, "{what}: {invoice:?} {payment:?}");
            assert!(!has_succeeded || invoice.received_msat == Some(amount_msat), "{what}: {invoice:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_payment_is_decided_by_the_network() -> Done<()> {
    on_regtest(async |regtest| {
        let pair = Pair::new(regtest).await?;
        let paid = pair.alice.pay(&pair.bob.invoice(1_000_000, "oars").await?).await?;
        let abandon = PaymentAbandon { payment_id: paid.payment_id.clone() };
        assert_eq!(pair.alice.call(abandon).await?, paid, "it has ended, and that is all that is told");
        let unknown = PaymentAbandon { payment_id: "00".repeat(32) };
        assert_eq!(pair.alice.refusal(unknown).await?, "payment_not_found");
        // What has left is held on the wire: to abandon it does not bring it back.
        pair.wire.hold_after(outrigger_integration::proxy::Way::Out, 0);
        let payment_id = pair.alice.send(&pair.bob.invoice(2_000_000, "a mast").await?).await?;
        let abandoned = pair.alice.call(PaymentAbandon { payment_id: payment_id.clone() }).await?;
        assert_eq!(abandoned.state, PaymentState::Pending);
        pair.wire.until_held(outrigger_integration::proxy::Way::Out, 1).await?;
        pair.wire.cut();
        let ended = pair.alice.reconnecting(&pair.bob_id, pair.wire.address(), Pair::end(&pair.alice, &payment_id));
        assert_eq!(ended.await?.state, PaymentState::Succeeded);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_11_a_call_that_is_repeated_pays_once_whatever_happens_in_between() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = tokio::try_join!(
            regtest.sidecar("alice"),
            regtest.sidecar_with("bob", &["--invoice-accept-keysend", "true"])
        )?;
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&bob).await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let before = alice.until_idle(&opened.channel_id).await?.local_msat;
        let node_id = Some(bob.node_id().await?);
        let gift = |amount_msat| PaymentSend {
            node_id: node_id.clone(),
            amount_msat: Some(amount_msat),
            idempotency_key: Some("a gift".to_owned()),
            ..Default::default()
        };
        // As of a caller that never hears the first answer, and of three that call at once.
        let client = alice.client();
        let calls = (client.call(gift(5_000)), client.call(gift(5_000)), client.call(gift(5_000)));
        let (first, second, third) = tokio::try_join!(calls.0, calls.1, calls.2)?;
        assert!(first.payment_id == second.payment_id && second.payment_id == third.payment_id);
        alice.kill().await?;
        alice.start_again().await?;
        assert_eq!(alice.call(gift(5_000)).await?.payment_id, first.payment_id, "after a start, too");
        assert_eq!(alice.refusal(gift(5_001)).await?, "idempotency_conflict");
        let route = PaymentSend { timeout_secs: Some(5), ..gift(5_000) };
        assert_eq!(alice.refusal(route).await?, "idempotency_conflict");
        alice.connect(&bob).await?;
        let payment = Pair::end(&alice, &first.payment_id).await?;
        assert_eq!(alice.call(gift(5_000)).await?.payment_id, first.payment_id);
        let paid = if payment.state == PaymentState::Succeeded { 5_000 } else { 0 };
        assert_eq!(alice.until_idle(&opened.channel_id).await?.local_msat, before - paid);
        Ok(())
    })
    .await
}
