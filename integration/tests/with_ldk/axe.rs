//! The axe: two hundred payments, both ways, while the daemon is killed, LDK is restarted and the wire is cut.

use outrigger_integration::{Dice, Done, Moment, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelState, InvoiceGet, InvoiceState, PaymentGet, PaymentInfo, PaymentSend, PaymentState,
};

use crate::meeting::{HIGH_FEERATE, LIMIT, LOW_FEERATE, Meeting, Side, Terms};
use crate::node::{Standing, payment_hash};

/// How often something is killed or cut.
const ROUNDS: u32 = 25;
/// How many payments each way are under way then.
const PAYMENTS: u32 = 4;
/// What the accepter has to begin with.
const PUSHED_MSAT: u64 = 500_000_000;

/// Whatever is killed or cut while payments go both ways, the channel goes on, and both nodes agree on the end of each
/// payment and on the balance. `OUTRIGGER_SEED` repeats a run, as far as the machine's timing allows.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_payments_survive_the_axe() -> Done<()> {
    let mut dice = Dice::thrown()?;
    on_regtest(async |regtest| {
        let opener = dice.one_of(Side::BOTH);
        let terms = Terms { opener, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
        let mut meeting = Meeting::of(regtest, terms).await?;
        let mut ldk_msat = meeting.agreed().await?;
        let (mut paid, mut changes, mut feerate) = (0, 0, meeting.ldk.feerate(&meeting.opened.channel_id));
        for round in 0..ROUNDS {
            let mut moment = Moment::thrown(&mut dice, 8_000);
            let kill =
                dice.one_of([Some(Side::Sidecar), Some(Side::Sidecar), Some(Side::Sidecar), Some(Side::Ldk), None]);
            let what = format!("{opener:?} opened, round {round}: {kill:?} killed {moment}");
            meeting.say_fees(regtest, dice.one_of([LOW_FEERATE, HIGH_FEERATE])).await?;
            let orders = Orders::made(&meeting, &mut dice).await?;
            moment.arm(&meeting.wire);
            let calls = orders.begun(&meeting)?;
            let over = async || Done::Ok(calls.is_finished() && meeting.is_idle().await?);
            moment.come(&meeting.wire, over).await?;
            meeting = meeting.struck(regtest, kill).await?;
            calls.await?;
            let id = &meeting.opened.channel_id;
            meeting.reconnecting(meeting.sidecar.until_channel_is(id, ChannelState::Normal)).await?;
            let ended =
                meeting.reconnecting(orders.ended(&meeting)).await.map_err(|fault| format!("{what}: {fault}"))?;
            ldk_msat = ldk_msat + ended.to_ldk_msat - ended.from_ldk_msat;
            paid += ended.paid;
            let agreed = meeting.reconnecting(meeting.agreed()).await.map_err(|fault| format!("{what}: {fault}"))?;
            assert_eq!(agreed, ldk_msat, "{what}");
            let before = std::mem::replace(&mut feerate, meeting.ldk.feerate(&meeting.opened.channel_id));
            changes += u32::from(before != feerate);
        }
        println!("{paid} of {} payments succeeded; {changes} changes of the feerate", ROUNDS * PAYMENTS * 2);
        assert!(paid > ROUNDS * PAYMENTS, "most payments go through: only {paid} did");
        assert_eq!(regtest.bitcoind.mempool().await?, [], "nobody published anything");
        let closing_txid = meeting.sidecar.close(&meeting.opened.channel_id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

/// The payments of one round: invoices and their amounts.
struct Orders {
    to_ldk: Vec<(String, u64)>,
    from_ldk: Vec<(String, u64)>,
}

/// What has become of them.
#[derive(Default)]
struct Ended {
    to_ldk_msat: u64,
    from_ldk_msat: u64,
    paid: u32,
}

impl Orders {
    /// Some are too small for an output of their own.
    async fn made(meeting: &Meeting, dice: &mut Dice) -> Done<Self> {
        let (mut to_ldk, mut from_ldk) = (Vec::new(), Vec::new());
        for _ in 0..PAYMENTS {
            let largest_msat = dice.one_of([400_000, 10_000_000]);
            let amount_msat = 1_000 + dice.below(largest_msat);
            to_ldk.push((meeting.ldk.invoice(amount_msat)?, amount_msat));
            let amount_msat = 1_000 + dice.below(largest_msat);
            from_ldk.push((meeting.sidecar.invoice(amount_msat, "from LDK").await?, amount_msat));
        }
        Ok(Self { to_ldk, from_ldk })
    }

    /// Begins to pay them; the daemon's as far as its process lives.
    fn begun(&self, meeting: &Meeting) -> Done<tokio::task::JoinHandle<()>> {
        let client = meeting.sidecar.client();
        let invoices: Vec<String> = self.to_ldk.iter().map(|(invoice, _)| invoice.clone()).collect();
        let calls = tokio::spawn(async move {
            for invoice in invoices {
                drop(client.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await);
            }
        });
        for (invoice, _) in &self.from_ldk {
            // LDK refuses at once what no channel of its own carries at this moment, while a feerate moves for example: it has
            // failed then, and is held to that below.
            drop(meeting.ldk.send(invoice));
        }
        Ok(calls)
    }

    /// Waits until each has ended, the same on both sides.
    async fn ended(&self, meeting: &Meeting) -> Done<Ended> {
        let mut ended = Ended::default();
        for (invoice, amount_msat) in &self.to_ldk {
            // The answer may have been lost with the process; the same call tells again.
            let payment_id = meeting.sidecar.send(invoice).await?;
            let payment_hash = payment_hash(invoice)?;
            let (payment, standing) = until(LIMIT, "a payment to LDK to end on both sides", async || {
                let payment = meeting.sidecar.call(PaymentGet { payment_id: payment_id.clone() }).await?;
                let standing = meeting.ldk.standing(&payment_hash);
                let agreed = payment.state != PaymentState::Succeeded || standing != Standing::Pending;
                Ok((payment.state != PaymentState::Pending && agreed).then_some((payment, standing)))
            })
            .await?;
            if has_arrived(&payment, &standing)? {
                ended.to_ldk_msat += amount_msat;
                ended.paid += 1;
            }
        }
        for (invoice, amount_msat) in &self.from_ldk {
            let paid = meeting.ldk.payment_end(invoice).await?.is_some();
            let told = meeting.sidecar.call(InvoiceGet { payment_hash: payment_hash(invoice)? }).await?;
            let expected = if paid { (InvoiceState::Paid, Some(*amount_msat)) } else { (InvoiceState::Open, None) };
            if (told.state, told.received_msat) != expected {
                return Err(format!("LDK says paid: {paid}, and the sidecar {told:?}").into());
            }
            if paid {
                ended.from_ldk_msat += amount_msat;
                ended.paid += 1;
            }
        }
        Ok(ended)
    }
}

/// Whether both say that it has; one that never left may be said to have failed.
fn has_arrived(payment: &PaymentInfo, standing: &Standing) -> Done<bool> {
    let kind = payment.failure.as_ref().map(|failure| failure.kind.as_str());
    match (payment.state, standing, kind) {
        (PaymentState::Succeeded, Standing::Succeeded(preimage), None) if *preimage == payment.preimage => Ok(true),
        (
            PaymentState::Failed,
            Standing::Pending | Standing::Failed,
            Some("disconnected" | "interrupted" | "refused_by_channel"),
        ) => Ok(false),
        _ => Err(format!("the sidecar says {payment:?}, and LDK {standing:?}").into()),
    }
}
