//! A daemon and an LDK node on a bitcoind.

mod ldk;

use std::time::Duration;

use ldk::LdkNode;
use outrigger_integration::proxy::{Proxy, Way};
use outrigger_integration::regtest::{Opened, REWARD_SAT};
use outrigger_integration::{Dice, Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelInfo, ChannelList, ChannelOpen, ChannelState, PaymentInfo, PaymentSend, PaymentState, PaymentWait,
};
use tokio::task::JoinSet;

/// What a channel of these tests holds.
const CAPACITY_SAT: u64 = 1_000_000;
/// Time for one step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_opens_an_announced_channel_pays_is_paid_and_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let meeting =
            Meeting::of(regtest, Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: true }).await?;
        let ldk_msat = meeting.pay_around(0).await?;
        let closing_txid = meeting.sidecar.close(&meeting.opened.channel_id).await?;
        let reason = meeting.ldk.until_closed(&meeting.opened.channel_id).await?;
        assert!(reason.contains("CounterpartyInitiatedCooperativeClosure"), "{reason}");
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn ldk_opens_a_private_channel_pays_is_paid_and_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let meeting = Meeting::of(regtest, Terms { opener: Side::Ldk, dialler: Side::Ldk, announce: false }).await?;
        let ldk_msat = meeting.pay_around(CAPACITY_SAT * 1000).await?;
        meeting.ldk.close(&meeting.opened.channel_id)?;
        let closing_txid = meeting.sidecar.closing_txid(&meeting.opened.channel_id).await?;
        let reason = meeting.ldk.until_closed(&meeting.opened.channel_id).await?;
        assert!(reason.contains("LocallyInitiatedCooperativeClosure"), "{reason}");
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

/// Where the wire is cut: nearest to these many bytes after the payment began, one message or another is lost. On the
/// wire `update_add_htlc` has 1486 bytes, `commitment_signed` with one HTLC 198 and `revoke_and_ack` 133.
const CUTS: [(Way, usize); 4] = [(Way::Out, 0), (Way::Back, 0), (Way::Back, 133), (Way::Out, 1486 + 198)];

#[tokio::test(flavor = "multi_thread")]
async fn payments_survive_a_cut_wire_and_ldk_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let meeting =
            Meeting::of(regtest, Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false }).await?;
        let mut ldk_msat = 0;
        for (way, allowance) in CUTS {
            let invoice = meeting.ldk.invoice(40_000_000)?;
            meeting.wire.hold_after(way, allowance);
            let payment_id = meeting.sidecar.send(&invoice).await?;
            meeting.wire.until_held(way, 1).await?;
            meeting.wire.cut();
            let payment = meeting.reconnecting(meeting.sidecar.payment_end(&payment_id)).await?;
            assert_eq!(payment.state, PaymentState::Succeeded, "{way:?} {allowance}: {payment:?}");
            assert_eq!(meeting.ldk.payment_end(&invoice).await?, payment.preimage);
            ldk_msat += 40_000_000;
            meeting.assert_balance(ldk_msat).await?;
        }
        for (way, allowance) in CUTS {
            let way = if way == Way::Out { Way::Back } else { Way::Out };
            let invoice = meeting.sidecar.invoice(15_000_000, "back").await?;
            meeting.wire.hold_after(way, allowance);
            meeting.ldk.send(&invoice)?;
            meeting.wire.until_held(way, 1).await?;
            meeting.wire.cut();
            let preimage = meeting.reconnecting(meeting.ldk.payment_end(&invoice)).await?;
            assert!(preimage.is_some(), "{way:?} {allowance}");
            ldk_msat -= 15_000_000;
            meeting.assert_balance(ldk_msat).await?;
        }
        meeting.ldk.close(&meeting.opened.channel_id)?;
        let closing_txid = meeting.sidecar.closing_txid(&meeting.opened.channel_id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_survive_a_kill_of_the_sidecar_and_it_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let mut meeting =
            Meeting::of(regtest, Terms { opener: Side::Ldk, dialler: Side::Sidecar, announce: true }).await?;
        let mut ldk_msat = CAPACITY_SAT * 1000;
        let invoice = meeting.sidecar.invoice(200_000_000, "to begin with").await?;
        meeting.ldk.send(&invoice)?;
        assert!(meeting.ldk.payment_end(&invoice).await?.is_some());
        ldk_msat -= 200_000_000;
        meeting.assert_balance(ldk_msat).await?;

        // LDK claims while the daemon is gone.
        let held = meeting.ldk.hold_invoice(40_000_000, 1)?;
        let payment_id = meeting.sidecar.send(&held.invoice).await?;
        meeting.ldk.until_held(&held).await?;
        meeting.sidecar.kill().await?;
        meeting.ldk.claim(&held)?;
        meeting.sidecar.start_again().await?;
        let payment = meeting.sidecar.payment_end(&payment_id).await?;
        assert_eq!((payment.state, payment.preimage), (PaymentState::Succeeded, Some(held.preimage)));
        ldk_msat += 40_000_000;
        meeting.assert_balance(ldk_msat).await?;

        // LDK fails it while the daemon is gone.
        let held = meeting.ldk.hold_invoice(40_000_000, 2)?;
        let payment_id = meeting.sidecar.send(&held.invoice).await?;
        meeting.ldk.until_held(&held).await?;
        meeting.sidecar.kill().await?;
        meeting.ldk.fail(&held)?;
        meeting.sidecar.start_again().await?;
        let payment = meeting.sidecar.payment_end(&payment_id).await?;
        let kind = payment.failure.map(|failure| failure.kind);
        assert_eq!(payment.state, PaymentState::Failed);
        assert_eq!(kind.as_deref(), Some("incorrect_or_unknown_payment_details"));
        meeting.assert_balance(ldk_msat).await?;

        // The daemon has released its preimage, and LDK has not heard of it.
        let invoice = meeting.sidecar.invoice(15_000_000, "killed while it claims").await?;
        meeting.wire.hold_after(Way::Out, 133 + 198);
        meeting.ldk.send(&invoice)?;
        meeting.wire.until_held(Way::Out, 1).await?;
        meeting.sidecar.kill().await?;
        meeting.wire.cut();
        meeting.sidecar.start_again().await?;
        assert!(meeting.ldk.payment_end(&invoice).await?.is_some());
        ldk_msat -= 15_000_000;
        meeting.assert_balance(ldk_msat).await?;

        let closing_txid = meeting.sidecar.close(&meeting.opened.channel_id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_survives_a_restart_of_ldk() -> Done<()> {
    on_regtest(async |regtest| {
        let meeting =
            Meeting::of(regtest, Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false }).await?;
        let held = meeting.ldk.hold_invoice(40_000_000, 3)?;
        let payment_id = meeting.sidecar.send(&held.invoice).await?;
        meeting.ldk.until_held(&held).await?;
        let meeting = meeting.struck(regtest, Some(Side::Ldk)).await?;
        meeting.ldk.claim(&held)?;
        let payment = meeting.sidecar.payment_end(&payment_id).await?;
        assert_eq!((payment.state, payment.preimage), (PaymentState::Succeeded, Some(held.preimage)));
        meeting.assert_balance(40_000_000).await.map(drop)
    })
    .await
}

/// How often something is killed or cut.
const ROUNDS: u32 = 8;

/// Whatever is killed or cut while payments go both ways, both nodes agree on the end of each.
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_cuts_anywhere_lose_no_payment() -> Done<()> {
    let mut dice = Dice::thrown()?;
    on_regtest(async |regtest| {
        let terms = Terms { opener: Side::Ldk, dialler: Side::Sidecar, announce: false };
        let mut meeting = Meeting::of(regtest, terms).await?;
        let mut ldk_msat = meeting.ldk_pays(&[300_000_000], CAPACITY_SAT * 1000).await?;
        for round in 0..ROUNDS {
            let (way, allowance) = (dice.one_of([Way::Out, Way::Back]), dice.below(8_000));
            let kill = dice.one_of([None, Some(Side::Sidecar), Some(Side::Ldk)]);
            let what = format!("round {round}: {kill:?} killed, cut once {allowance} bytes have gone {way:?}");
            let (mut there, mut back) = (Vec::new(), Vec::new());
            meeting.wire.hold_after(way, usize::try_from(allowance)?);
            for _ in 0..=dice.below(3) {
                let largest_msat = dice.one_of([400_000, 10_000_000]);
                let amount_msat = 1_000 + dice.below(largest_msat);
                let invoice = meeting.ldk.invoice(amount_msat)?;
                there.push((meeting.sidecar.send(&invoice).await?, invoice, amount_msat));
                let amount_msat = 1_000 + dice.below(largest_msat);
                let invoice = meeting.sidecar.invoice(amount_msat, "back").await?;
                meeting.ldk.send(&invoice)?;
                back.push((invoice, amount_msat));
            }
            until(LIMIT, "the wire to be held or nothing to be pending", async || {
                let idle = meeting.sidecar.channel(&meeting.opened.channel_id).await?.htlcs == 0;
                Ok((idle || meeting.wire.held(way) > 0).then_some(()))
            })
            .await?;
            meeting = meeting.struck(regtest, kill).await?;
            for (payment_id, invoice, amount_msat) in there {
                let payment = meeting.reconnecting(meeting.sidecar.payment_end(&payment_id)).await?;
                if payment.state == PaymentState::Succeeded {
                    assert_eq!(meeting.ldk.payment_end(&invoice).await?, payment.preimage, "{what}");
                    ldk_msat += amount_msat;
                } else {
                    let kind = payment.failure.map(|failure| failure.kind).unwrap_or_default();
                    assert!(
                        ["disconnected", "interrupted", "refused_by_channel"].contains(&kind.as_str()),
                        "{what}: {kind}"
                    );
                }
            }
            for (invoice, amount_msat) in back {
                let paid = meeting.reconnecting(meeting.ldk.payment_end(&invoice)).await?.is_some();
                ldk_msat -= if paid { amount_msat } else { 0 };
            }
            meeting.reconnecting(meeting.assert_balance(ldk_msat)).await.map_err(|fault| format!("{what}: {fault}"))?;
        }
        assert_eq!(regtest.bitcoind.mempool().await?, [], "nobody published anything");
        let closing_txid = meeting.sidecar.close(&meeting.opened.channel_id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Sidecar,
    Ldk,
}

/// How the two meet.
#[derive(Clone, Copy, Debug)]
struct Terms {
    opener: Side,
    dialler: Side,
    announce: bool,
}

/// A daemon, an LDK node, a wire from the one to the other, and a channel that works.
struct Meeting {
    sidecar: Sidecar,
    ldk: LdkNode,
    wire: Proxy,
    opened: Opened,
    opener: Side,
}

impl Meeting {
    async fn of(regtest: &Regtest, terms: Terms) -> Done<Self> {
        let sidecar = regtest.sidecar("sidecar").await?;
        let ldk = LdkNode::start(&regtest.directory("ldk")?, &regtest.bitcoind)?;
        match terms.opener {
            Side::Sidecar => sidecar.fund(&regtest.bitcoind).await?,
            Side::Ldk => ldk.fund(&regtest.bitcoind).await?,
        }
        sidecar.until_synced_with(&regtest.bitcoind).await?;
        ldk.until_synced_with(&regtest.bitcoind).await?;
        let wire = Proxy::start(&ldk.address()).await?;
        if terms.dialler == Side::Sidecar {
            sidecar.connect_to(&ldk.node_id(), wire.address()).await?;
        }
        let opened = match terms.opener {
            Side::Sidecar => sidecar_opens(regtest, &sidecar, &ldk, terms.announce).await?,
            Side::Ldk => ldk_opens(regtest, &sidecar, &ldk, terms).await?,
        };
        ldk.until_usable(&opened.channel_id).await?;
        // The defaults of outrigger.example.toml: announced or not, LDK knows them from our `channel_update`.
        assert_eq!(ldk.until_forwarding_known(&opened.channel_id).await?, (1000, 100, 80));
        let channel = sidecar.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        assert_eq!((channel.announce, channel.is_opener), (terms.announce, terms.opener == Side::Sidecar));
        assert_eq!(channel.funding_outpoint.split(':').next(), Some(opened.funding_txid.as_str()));
        Ok(Self { sidecar, ldk, wire, opened, opener: terms.opener })
    }

    /// Kills one of the two, or none, cuts the wire, and starts it again.
    async fn struck(self, regtest: &Regtest, kill: Option<Side>) -> Done<Self> {
        let Self { mut sidecar, ldk, wire, opened, opener } = self;
        if kill == Some(Side::Sidecar) {
            sidecar.kill().await?;
        }
        wire.cut();
        if kill == Some(Side::Sidecar) {
            sidecar.start_again().await?;
        }
        let ldk = if kill == Some(Side::Ldk) { ldk.restart(&regtest.bitcoind)? } else { ldk };
        Ok(Self { sidecar, ldk, wire, opened, opener })
    }

    /// Waits for `done` and asks for the connection all the while.
    async fn reconnecting<T>(&self, done: impl Future<Output = Done<T>>) -> Done<T> {
        self.sidecar.reconnecting(&self.ldk.node_id(), self.wire.address(), done).await
    }

    /// One payment each way from the opener on, then five at a time each way; gives what LDK has then.
    async fn pay_around(&self, ldk_msat: u64) -> Done<u64> {
        let mut ldk_msat = ldk_msat;
        if self.opener == Side::Sidecar {
            ldk_msat = self.pay_ldk(&[90_000_000], ldk_msat).await?;
            ldk_msat = self.ldk_pays(&[15_000_001], ldk_msat).await?;
        } else {
            ldk_msat = self.ldk_pays(&[90_000_000], ldk_msat).await?;
            ldk_msat = self.pay_ldk(&[15_000_001], ldk_msat).await?;
        }
        ldk_msat = self.pay_ldk(&[9_000_001, 9_000_002, 9_000_003, 9_000_004, 9_000_005], ldk_msat).await?;
        self.ldk_pays(&[8_000_001, 8_000_002, 8_000_003, 8_000_004, 8_000_005], ldk_msat).await
    }

    /// The daemon pays LDK, all at the same time.
    async fn pay_ldk(&self, amounts_msat: &[u64], ldk_msat: u64) -> Done<u64> {
        let mut payments = JoinSet::new();
        for amount_msat in amounts_msat {
            let invoice = self.ldk.invoice(*amount_msat)?;
            let client = self.sidecar.client();
            payments.spawn(async move {
                let order = PaymentSend { invoice: Some(invoice.clone()), ..Default::default() };
                let payment_id = client.call(order).await?.payment_id;
                let payment = client.call(PaymentWait { payment_id, timeout_secs: Some(60) }).await?;
                Done::Ok((invoice, payment))
            });
        }
        for paid in payments.join_all().await {
            let (invoice, payment): (String, PaymentInfo) = paid?;
            assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
            assert_eq!(self.ldk.payment_end(&invoice).await?, payment.preimage);
        }
        let ldk_msat = ldk_msat + amounts_msat.iter().sum::<u64>();
        self.assert_balance(ldk_msat).await?;
        Ok(ldk_msat)
    }

    /// LDK pays the daemon, all at the same time.
    async fn ldk_pays(&self, amounts_msat: &[u64], ldk_msat: u64) -> Done<u64> {
        let mut invoices = Vec::new();
        for amount_msat in amounts_msat {
            invoices.push(self.sidecar.invoice(*amount_msat, "from ldk").await?);
        }
        for invoice in &invoices {
            self.ldk.send(invoice)?;
        }
        for invoice in &invoices {
            assert!(self.ldk.payment_end(invoice).await?.is_some(), "LDK could not pay {invoice}");
        }
        let ldk_msat = ldk_msat - amounts_msat.iter().sum::<u64>();
        self.assert_balance(ldk_msat).await?;
        Ok(ldk_msat)
    }

    /// Waits until the channel is idle on both sides and checks who owns what.
    async fn assert_balance(&self, ldk_msat: u64) -> Done<ChannelInfo> {
        let channel = self.sidecar.until_idle(&self.opened.channel_id).await?;
        let expected = (ChannelState::Normal, CAPACITY_SAT * 1000 - ldk_msat, ldk_msat);
        assert_eq!((channel.state, channel.local_msat, channel.remote_msat), expected);
        self.ldk.until_usable(&self.opened.channel_id).await?;
        Ok(channel)
    }

    /// Confirms the closing transaction and accounts for every satoshi on both sides.
    async fn assert_closed(&self, regtest: &Regtest, closing_txid: &str, ldk_msat: u64) -> Done<()> {
        let closing_fee_sat = regtest.confirm(closing_txid).await?;
        let all_sat = REWARD_SAT - self.opened.funding_fee_sat - closing_fee_sat;
        let (sidecar_sat, ldk_sat) = match self.opener {
            Side::Sidecar => (all_sat - ldk_msat / 1000, ldk_msat / 1000),
            Side::Ldk => {
                let sidecar_sat = (CAPACITY_SAT * 1000 - ldk_msat) / 1000;
                (sidecar_sat, all_sat - sidecar_sat)
            }
        };
        self.sidecar.until_channel_is(&self.opened.channel_id, ChannelState::Closed).await?;
        let balance = self.sidecar.balance().await?;
        assert_eq!((balance.confirmed_sat, balance.unconfirmed_sat, balance.locked_sat), (sidecar_sat, 0, 0));
        self.ldk.until_synced_with(&regtest.bitcoind).await?;
        assert_eq!(self.ldk.total_sat(), ldk_sat);
        assert!(self.sidecar.call(ChannelList::default()).await?.items.iter().all(|channel| channel.htlcs == 0));
        Ok(())
    }
}

async fn sidecar_opens(regtest: &Regtest, sidecar: &Sidecar, ldk: &LdkNode, announce: bool) -> Done<Opened> {
    let order = ChannelOpen {
        node_id: ldk.node_id(),
        funding_sat: CAPACITY_SAT,
        announce: Some(announce),
        idempotency_key: "with ldk".to_owned(),
        ..Default::default()
    };
    regtest.open(sidecar, order).await
}

/// LDK dials if it is not connected by then.
async fn ldk_opens(regtest: &Regtest, sidecar: &Sidecar, ldk: &LdkNode, terms: Terms) -> Done<Opened> {
    let sidecar_id = sidecar.node_id().await?;
    if terms.dialler == Side::Sidecar {
        until(LIMIT, "LDK to see the connection", async || Ok(ldk.is_connected_to(&sidecar_id).then_some(()))).await?;
    }
    ldk.open(&sidecar_id, &sidecar.address(), CAPACITY_SAT, terms.announce)?;
    let (channel_id, funding_txid) = ldk.until_channel_pending().await?;
    let funding_fee_sat = regtest.confirm(&funding_txid).await?;
    Ok(Opened { channel_id, funding_txid, funding_fee_sat })
}
