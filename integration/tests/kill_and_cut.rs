//! Two daemons that pay each other while they are killed and the wire between them is cut, anywhere.

use std::time::Duration;

use outrigger_integration::proxy::{Proxy, Way};
use outrigger_integration::{Dice, Done, Moment, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    CallError, ChannelClose, ChannelOpen, ChannelOpenWait, ChannelState, InvoiceGet, InvoiceState, OpenState,
    PaymentGet, PaymentInfo, PaymentSend, PaymentState, Refusal, WalletSend,
};
use tokio::task::JoinHandle;

/// What the channel holds.
const CAPACITY_SAT: u64 = 1_000_000;
/// What the second daemon has to begin with.
const PUSHED_MSAT: u64 = 500_000_000;
/// How often something is killed or cut.
const ROUNDS: u32 = 25;
/// How many payments each way are under way then.
const PAYMENTS: u32 = 4;
/// Time for one step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Of two hundred payments none is lost, paid twice or unknown for ever, and no channel fails, whatever is killed or cut
/// while HTLCs of all sizes are in flight both ways. `OUTRIGGER_SEED` repeats a run, as far as the machine's timing
/// allows.
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_cuts_anywhere_lose_no_payment() -> Done<()> {
    let mut dice = Dice::thrown()?;
    on_regtest(async |regtest| {
        let (mut alice, mut bob, wire) = wired(regtest).await?;
        let bob_id = bob.node_id().await?;
        let channel_id = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSHED_MSAT).await?.channel_id;

        let mut bob_msat = PUSHED_MSAT;
        for round in 0..ROUNDS {
            let mut moment = Moment::thrown(&mut dice, 12_000);
            let blow = dice.one_of([Blow::Cut, Blow::KillAlice, Blow::KillBob, Blow::KillBoth]);
            let what = format!("round {round}: {blow:?}, {moment}");
            let there = invoiced(&bob, &mut dice).await?;
            let back = invoiced(&alice, &mut dice).await?;
            moment.arm(&wire);
            let sending = [begun(&alice, &there), begun(&bob, &back)];
            let over =
                async || Done::Ok(sending.iter().all(JoinHandle::is_finished) && is_idle(&alice, &channel_id).await?);
            moment.come(&wire, over).await?;
            blow.strike(&mut alice, &mut bob, &wire).await?;
            for calls in sending {
                calls.await?;
            }

            // The answers may have been lost with the process; the same calls tell again.
            alice.reconnecting(&bob_id, wire.address(), normal(&alice, &bob, &channel_id)).await?;
            let (there, back) = (sent(&alice, &there).await?, sent(&bob, &back).await?);
            let end = async {
                let there = until(LIMIT, "all payments there", async || all_ended(&alice, &there).await).await?;
                let back = until(LIMIT, "all payments back", async || all_ended(&bob, &back).await).await?;
                Done::Ok((there, back))
            };
            let (there, back) = alice.reconnecting(&bob_id, wire.address(), end).await?;
            alice.reconnecting(&bob_id, wire.address(), normal(&alice, &bob, &channel_id)).await?;
            bob_msat += received(&alice, &bob, &there, &what).await?;
            bob_msat -= received(&bob, &alice, &back, &what).await?;
            let idle = async { tokio::try_join!(alice.until_idle(&channel_id), bob.until_idle(&channel_id)) };
            let (hers, his) = alice.reconnecting(&bob_id, wire.address(), idle).await?;
            let expected = (ChannelState::Normal, CAPACITY_SAT * 1000 - bob_msat, bob_msat);
            assert_eq!((hers.state, hers.local_msat, hers.remote_msat), expected, "{what}");
            assert_eq!((his.state, his.remote_msat, his.local_msat), expected, "{what}");
        }
        assert_eq!(regtest.bitcoind.mempool().await?, [], "nobody published anything");
        Ok(())
    })
    .await
}

/// Where the wire is held while the two agree on a channel or on its end: each leaves another message lost.
const HELD: [(Way, usize); 5] = [(Way::Out, 0), (Way::Back, 0), (Way::Out, 120), (Way::Back, 120), (Way::Out, 400)];

/// Whatever is killed or cut while a channel is agreed on: either there is a channel on both sides, or no coins are
/// spent and none stay locked.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_is_cut_short_ends_as_a_channel_or_as_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob, wire) = wired(regtest).await?;
        let bob_id = bob.node_id().await?;
        for (round, (way, allowance)) in [(Way::Back, 400)].into_iter().chain(HELD).enumerate() {
            let blow = [Blow::KillAlice, Blow::KillBob, Blow::Cut][round % 3];
            let what = format!("round {round}: {blow:?} once {allowance} bytes have gone {way:?}");
            let before = alice.balance().await?;
            let order = ChannelOpen {
                node_id: bob_id.clone(),
                funding_sat: 100_000,
                idempotency_key: what.clone(),
                ..Default::default()
            };
            wire.hold_after(way, allowance);
            let begun = alice.call(order.clone()).await?;
            assert_eq!(begun.state, OpenState::Opening, "{what}");
            wire.until_held(way, 1).await?;
            blow.strike(&mut alice, &mut bob, &wire).await?;
            let opened = alice.end_of_opening(&begun.op_id).await?;
            assert_eq!(alice.call(order).await?, opened, "{what}: the same call tells the same");
            if let (OpenState::Pending, Some(channel_id), Some(txid)) =
                (opened.state, opened.channel_id, opened.funding_txid)
            {
                regtest.confirm(&txid).await?;
                alice.reconnecting(&bob_id, wire.address(), normal(&alice, &bob, &channel_id)).await?;
            } else {
                assert_eq!(alice.balance().await?, before, "{what}");
                assert!(opened.failure.is_some(), "{what}");
                assert_eq!(regtest.bitcoind.mempool().await?, [], "{what}");
            }
            until(LIMIT, "the peer to be back", async || Ok(alice.connect_to(&bob_id, wire.address()).await.ok()))
                .await?;
        }
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let invoice = bob.invoice(1_000_000, "all is well").await?;
        assert_eq!(alice.pay(&invoice).await?.state, PaymentState::Succeeded);
        bob.until_idle(&opened.channel_id).await?;
        Ok(())
    })
    .await
}

/// A peer that says nothing keeps no caller waiting: what it was asked is known by its id, before a kill and after.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_an_opening_is_answered_at_once_and_waited_for_by_its_id() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob, wire) = wired(regtest).await?;
        let bob_id = bob.node_id().await?;
        let before = alice.balance().await?;
        let order = |key: &str| ChannelOpen {
            node_id: bob_id.clone(),
            funding_sat: 100_000,
            idempotency_key: key.to_owned(),
            ..Default::default()
        };
        let wait = |op_id: &str, secs| ChannelOpenWait { op_id: op_id.to_owned(), timeout_secs: Some(secs) };

        wire.hold_after(Way::Back, 0);
        let begun = alice.call(order("silent")).await?;
        wire.until_held(Way::Back, 1).await?;
        assert_eq!((begun.state, &begun.channel_id, &begun.funding_txid), (OpenState::Opening, &None, &None));
        assert_eq!(alice.call(order("silent")).await?, begun, "a repeat is answered at once too");
        assert_eq!(alice.call(wait(&begun.op_id, 1)).await?, begun, "as it is when the time is over");
        Blow::KillAlice.strike(&mut alice, &mut bob, &wire).await?;
        let failed = alice.call(wait(&begun.op_id, 60)).await?;
        assert_eq!((failed.state, &failed.op_id, &failed.channel_id), (OpenState::Failed, &begun.op_id, &None));
        assert!(failed.failure.as_deref().is_some_and(|words| words.contains("nothing was spent")), "{failed:?}");
        assert_eq!(alice.call(order("silent")).await?, failed);
        assert_eq!(alice.balance().await?, before);
        alice.until_synced_with(&regtest.bitcoind).await?;
        until(LIMIT, "the peer to be back", async || Ok(alice.connect_to(&bob_id, wire.address()).await.ok())).await?;

        // Whoever waits hears of it; and it is not asked again after a kill.
        wire.hold_after(Way::Back, 0);
        let begun = alice.call(order("late")).await?;
        wire.until_held(Way::Back, 1).await?;
        let waiting = tokio::spawn({
            let (client, wait) = (alice.client(), wait(&begun.op_id, 60));
            async move { client.call(wait).await }
        });
        wire.release(Way::Back);
        let pending = waiting.await??;
        assert_eq!((pending.state, &pending.op_id), (OpenState::Pending, &begun.op_id));
        regtest.confirm(pending.funding_txid.as_deref().ok_or("no transaction")?).await?;
        Blow::KillAlice.strike(&mut alice, &mut bob, &wire).await?;
        assert_eq!(alice.call(wait(&begun.op_id, 60)).await?, pending);
        assert_ne!(begun.op_id, failed.op_id);

        assert_eq!(alice.refusal(wait(&"00".repeat(16), 60)).await?, "operation_not_found");
        assert_eq!(alice.refusal(wait(&begun.op_id.to_uppercase(), 60)).await?, "invalid_parameter");
        let send = WalletSend {
            address: bob.new_address().await?,
            amount_sat: 20_000,
            idempotency_key: "coins".to_owned(),
            ..Default::default()
        };
        alice.until_synced_with(&regtest.bitcoind).await?;
        let sent = alice.call(send).await?.op_id;
        let refused = alice.call(wait(&sent, 60)).await;
        let Err(CallError::Refused(Refusal { message, data: Some(data), .. })) = refused else {
            return Err(format!("it is no opening: {refused:?}").into());
        };
        assert_eq!((data.kind.as_str(), data.parameter.as_deref()), ("invalid_parameter", Some("op_id")));
        assert_eq!(message, "parameter op_id is of wallet.send, and not of channel.open");
        assert_eq!(data.hint, "wallet.wait waits for a transaction, by its txid.");
        Ok(())
    })
    .await
}

/// Whatever is killed or cut while a close is agreed on, the channel ends with one closing transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_is_cut_short_still_ends_together() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob, wire) = wired(regtest).await?;
        let bob_id = bob.node_id().await?;
        let mut bob_sat = 0;
        for (round, (way, allowance)) in HELD.into_iter().enumerate() {
            let blow = [Blow::KillAlice, Blow::KillBob, Blow::Cut][round % 3];
            let what = format!("round {round}: {blow:?} once {allowance} bytes have gone {way:?}");
            let order = ChannelOpen {
                node_id: bob_id.clone(),
                funding_sat: 100_000,
                push_msat: Some(30_000_000),
                idempotency_key: what.clone(),
                ..Default::default()
            };
            let opened = regtest.open(&alice, order).await?;
            normal(&alice, &bob, &opened.channel_id).await?;
            wire.hold_after(way, allowance);
            alice.call(ChannelClose { channel_id: opened.channel_id.clone(), ..Default::default() }).await?;
            until(LIMIT, "the wire to be held or the close to be agreed on", async || {
                let agreed = bob.channel(&opened.channel_id).await?.closing_txid.is_some();
                Ok((agreed || wire.held(way) > 0).then_some(()))
            })
            .await?;
            blow.strike(&mut alice, &mut bob, &wire).await?;

            let agreed = async {
                tokio::try_join!(alice.closing_txid(&opened.channel_id), bob.closing_txid(&opened.channel_id))
            };
            alice.reconnecting(&bob_id, wire.address(), agreed).await?;
            // By `option_simple_close` each side may have a transaction of its own, for which it pays: one confirms.
            let closing_txid = regtest.bitcoind.until_spent(&opened.funding_txid).await?;
            let is_hers = regtest.bitcoind.outputs_sat(&closing_txid).await?.contains(&30_000);
            let fee_sat = regtest.confirm(&closing_txid).await?;
            bob_sat += if is_hers { 30_000 } else { 30_000 - fee_sat };
            for node in [&alice, &bob] {
                let channel = node.until_channel_is(&opened.channel_id, ChannelState::Closed).await?;
                assert_eq!(channel.closing_txid.as_ref(), Some(&closing_txid), "{what}");
            }
            assert_eq!(bob.balance().await?.confirmed_sat, bob_sat, "{what}");
            until(LIMIT, "the peer to be back", async || Ok(alice.connect_to(&bob_id, wire.address()).await.ok()))
                .await?;
        }
        Ok(())
    })
    .await
}

/// Two daemons, the first with coins and connected to the second by a wire that can be held and cut.
async fn wired(regtest: &Regtest) -> Done<(Sidecar, Sidecar, Proxy)> {
    let (alice, bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
    alice.fund(&regtest.bitcoind).await?;
    tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
    let wire = Proxy::start(&bob.address()).await?;
    alice.connect_to(&bob.node_id().await?, wire.address()).await?;
    Ok((alice, bob, wire))
}

/// Waits until both can pay through the channel.
async fn normal(alice: &Sidecar, bob: &Sidecar, channel_id: &str) -> Done<()> {
    for node in [alice, bob] {
        node.until_channel_is(channel_id, ChannelState::Normal).await?;
    }
    Ok(())
}

/// What happens to the two.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Cut,
    KillAlice,
    KillBob,
    KillBoth,
}

impl Blow {
    async fn strike(self, alice: &mut Sidecar, bob: &mut Sidecar, wire: &Proxy) -> Done<()> {
        let (kills_alice, kills_bob) = match self {
            Self::Cut => (false, false),
            Self::KillAlice => (true, false),
            Self::KillBob => (false, true),
            Self::KillBoth => (true, true),
        };
        if kills_alice {
            alice.kill().await?;
        }
        if kills_bob {
            bob.kill().await?;
        }
        wire.cut();
        if kills_alice {
            alice.start_again().await?;
        }
        if kills_bob {
            bob.start_again().await?;
        }
        Ok(())
    }
}

/// Makes invoices. Some are too small for an output of their own.
async fn invoiced(to: &Sidecar, dice: &mut Dice) -> Done<Vec<String>> {
    let mut invoices = Vec::new();
    for _ in 0..PAYMENTS {
        let largest_msat = dice.one_of([400_000, 2_000_000, 20_000_000]);
        invoices.push(to.invoice(1 + dice.below(largest_msat), "anything").await?);
    }
    Ok(invoices)
}

/// Begins to pay them, one after the other, as far as the process lives.
fn begun(from: &Sidecar, invoices: &[String]) -> JoinHandle<()> {
    let (client, invoices) = (from.client(), invoices.to_vec());
    tokio::spawn(async move {
        for invoice in invoices {
            drop(client.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await);
        }
    })
}

/// Pays each that is not being paid; gives the names of the payments.
async fn sent(from: &Sidecar, invoices: &[String]) -> Done<Vec<String>> {
    let mut payments = Vec::new();
    for invoice in invoices {
        payments.push(from.send(invoice).await?);
    }
    Ok(payments)
}

async fn is_idle(node: &Sidecar, channel_id: &str) -> Done<bool> {
    Ok(node.channel(channel_id).await?.htlcs == 0)
}

/// The payments, once all have ended.
async fn all_ended(node: &Sidecar, payment_ids: &[String]) -> Done<Option<Vec<PaymentInfo>>> {
    let mut ended = Vec::new();
    for payment_id in payment_ids {
        let payment = node.call(PaymentGet { payment_id: payment_id.clone() }).await?;
        if payment.state == PaymentState::Pending {
            return Ok(None);
        }
        ended.push(payment);
    }
    Ok(Some(ended))
}

/// What the receiver has of these payments, in millisatoshi, both sides agreeing on each of them. One that never left is
/// said to be safe to pay again, so it is.
async fn received(from: &Sidecar, to: &Sidecar, payments: &[PaymentInfo], what: &str) -> Done<u64> {
    let mut sum_msat = 0;
    for payment in payments {
        let asked = InvoiceGet { payment_hash: payment.payment_hash.clone() };
        let invoice = to.call(asked.clone()).await?;
        let has_arrived = invoice.state == InvoiceState::Paid;
        assert_eq!(has_arrived, payment.state == PaymentState::Succeeded, "{what}: {payment:?} {invoice:?}");
        if let Some(failure) = &payment.failure {
            assert!(
                ["disconnected", "interrupted", "refused_by_channel"].contains(&failure.kind.as_str()),
                "{what}: {payment:?}"
            );
            let again = from.pay(&invoice.invoice.ok_or("the invoice")?).await?;
            assert_eq!(again.state, PaymentState::Succeeded, "{what}: {again:?}");
        }
        assert_eq!(to.call(asked).await?.received_msat, Some(payment.amount_msat), "{what}");
        sum_msat += payment.amount_msat;
    }
    Ok(sum_msat)
}
