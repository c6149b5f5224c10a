//! Two LDK nodes and a sidecar, each of them sender, middle and receiver in turn: whole payments, payments in parts, and such
//! that nobody asked for.

use outrigger_integration::regtest::Opened;
use outrigger_integration::{Done, FeeOracle, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelOpen, ChannelState, InvoiceCreate, InvoiceGet, InvoiceState, PaymentInfo, PaymentSend, PaymentState,
    PaymentWait, RouteHop,
};

use crate::meeting::{CAPACITY_SAT, LIMIT, LOW_FEERATE, Side, Terms};
use crate::node::{LdkNode, Standing, payment_hash};

const PUSH_MSAT: u64 = 400_000_000;
/// What a sidecar asks for forwarding, by the default configuration: a base, and a share in millionths.
const BASE_MSAT: u64 = 1000;
const PPM: u64 = 100;
/// What LDK asks: a base alone; and the blocks between the two HTLCs.
const LDK_BASE_MSAT: u64 = 1000;
const LDK_DELTA_BLOCKS: u32 = 72;
/// More than LDK takes in flight over one of these channels, a tenth of what they hold; less than over two.
const MORE_THAN_ONE_MSAT: u64 = 150_000_000;

struct Stage {
    sidecar: Sidecar,
    /// Two LDK nodes.
    first: LdkNode,
    second: LdkNode,
    _fees: FeeOracle,
}

impl Stage {
    async fn of(regtest: &Regtest) -> Done<Self> {
        let fees = FeeOracle::start(&regtest.bitcoind.address()).await?;
        fees.say(LOW_FEERATE);
        let (data, door) = (regtest.directory("sidecar")?, fees.address());
        let more = ["--invoice-accept-keysend", "true"];
        let sidecar = Sidecar::start_behind(&data, "sidecar", &door, &regtest.bitcoind, &more).await?;
        let first = LdkNode::start(&regtest.directory("first")?, &regtest.bitcoind, fees.port())?;
        let second = LdkNode::start(&regtest.directory("second")?, &regtest.bitcoind, fees.port())?;
        sidecar.fund(&regtest.bitcoind).await?;
        first.fund(&regtest.bitcoind).await?;
        second.until_synced_with(&regtest.bitcoind).await?;
        for ldk in [&first, &second] {
            sidecar.connect_to(&ldk.node_id(), &ldk.address()).await?;
        }
        Ok(Self { sidecar, first, second, _fees: fees })
    }

    /// The sidecar opens a channel to an LDK node, which gets a share of it.
    async fn channel(&self, regtest: &Regtest, ldk: &LdkNode, announce: bool, name: &str) -> Done<Opened> {
        let order = ChannelOpen {
            node_id: ldk.node_id(),
            funding_sat: CAPACITY_SAT,
            push_msat: Some(PUSH_MSAT),
            announce: Some(announce),
            idempotency_key: name.to_owned(),
            ..Default::default()
        };
        let opened = regtest.open(&self.sidecar, order).await?;
        ldk.until_usable(&opened.channel_id).await?;
        ldk.until_forwarding_known(&opened.channel_id).await?;
        self.sidecar.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        Ok(opened)
    }

    async fn synced(&self, regtest: &Regtest) -> Done<()> {
        self.sidecar.until_synced_with(&regtest.bitcoind).await?;
        self.first.until_synced_with(&regtest.bitcoind).await?;
        self.second.until_synced_with(&regtest.bitcoind).await
    }

    /// What the sidecar has in this channel once nothing is under way in it.
    async fn has_msat(&self, opened: &Opened) -> Done<u64> {
        Ok(self.sidecar.until_idle(&opened.channel_id).await?.local_msat)
    }

    async fn pay(&self, order: PaymentSend) -> Done<PaymentInfo> {
        let payment_id = self.sidecar.call(order).await?.payment_id;
        Ok(self.sidecar.call(PaymentWait { payment_id, timeout_secs: Some(60) }).await?)
    }

    /// An invoice of the sidecar's, with a way for those who have no channel with it.
    async fn invoice(&self, amount_msat: u64) -> Done<String> {
        until(LIMIT, "an invoice with a route hint", async || {
            let order = InvoiceCreate { amount_msat: Some(amount_msat), ..Default::default() };
            let created = self.sidecar.call(order).await?;
            Ok((created.route_hints > 0).then_some(created.invoice))
        })
        .await
    }
}

/// An LDK node pays an invoice, which it must be able to.
async fn ldk_pays(ldk: &LdkNode, invoice: &str) -> Done<()> {
    ldk.send(invoice)?;
    assert!(ldk.payment_end(invoice).await?.is_some(), "LDK could not pay {invoice}");
    Ok(())
}

fn succeeded(payment: &PaymentInfo, fee_msat: u64) {
    assert_eq!((payment.state, payment.fee_msat), (PaymentState::Succeeded, Some(fee_msat)), "{payment:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ldk_is_the_middle_between_a_sidecar_and_ldk() -> Done<()> {
    on_regtest(async |regtest| {
        let stage = Stage::of(regtest).await?;
        // LDK forwards over channels that were agreed to be announced, and no others.
        let own = stage.channel(regtest, &stage.first, true, "to the middle").await?;
        // It is told of that one, too, and it is the other that is waited for below.
        stage.first.until_channel_pending().await?;
        let terms = Terms { opener: Side::Ldk, dialler: Side::Ldk, announce: true, push_msat: PUSH_MSAT };
        stage.first.open(&stage.second.node_id(), &stage.second.address(), terms)?;
        let (far, funding_txid) = stage.first.until_channel_pending().await?;
        regtest.confirm(&funding_txid).await?;
        stage.first.until_usable(&far).await?;
        stage.second.until_usable(&far).await?;
        stage.synced(regtest).await?;
        let before = stage.has_msat(&own).await?;

        // A sidecar pays over a route that it is given: LDK takes the fee that it asks for, and says so where it is less.
        let amount = 30_000_000;
        let scid = stage.first.short_channel_id(&far)?;
        let route = |fee_msat: u64| {
            let hop = |ldk: &LdkNode, short_channel_id, amount_msat, expiry_blocks| RouteHop {
                node_id: ldk.node_id(),
                short_channel_id,
                amount_msat,
                expiry_blocks,
            };
            Some(vec![
                hop(&stage.first, None, amount + fee_msat, 50 + LDK_DELTA_BLOCKS),
                hop(&stage.second, Some(scid.clone()), amount, 50),
            ])
        };
        let invoice = stage.second.invoice(amount)?;
        let order =
            |fee_msat| PaymentSend { invoice: Some(invoice.clone()), route: route(fee_msat), ..Default::default() };
        let failed = stage.pay(order(LDK_BASE_MSAT - 1)).await?;
        assert_eq!(failed.state, PaymentState::Failed, "{failed:?}");
        let failure = failed.failure.ok_or("a reason")?;
        let names_them = failure.message.contains(&stage.first.node_id()) && failure.message.contains(&scid);
        assert!(failure.kind == "fee_insufficient" && names_them, "{failure:?}");
        let paid = stage.pay(order(LDK_BASE_MSAT)).await?;
        succeeded(&paid, LDK_BASE_MSAT);
        assert_eq!(stage.second.payment_end(&invoice).await?, paid.preimage);
        assert_eq!(stage.has_msat(&own).await?, before - amount - LDK_BASE_MSAT);

        // LDK pays the sidecar through LDK, by the hint in the sidecar's invoice.
        let back = 20_000_001;
        ldk_pays(&stage.second, &stage.invoice(back).await?).await?;
        assert_eq!(stage.has_msat(&own).await?, before - amount - LDK_BASE_MSAT + back);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_the_middle_between_ldk_and_ldk_and_pays_and_is_paid_in_parts_and_unasked() -> Done<()> {
    on_regtest(async |regtest| {
        let stage = Stage::of(regtest).await?;
        let to_first = stage.channel(regtest, &stage.first, false, "first").await?;
        let to_second = stage.channel(regtest, &stage.second, false, "second").await?;
        stage.synced(regtest).await?;
        let (mut with_first, mut with_second) = (stage.has_msat(&to_first).await?, stage.has_msat(&to_second).await?);

        // LDK pays LDK over the sidecar, and back: each router takes the hint of the other's invoice.
        let amount = 30_000_000;
        let fee = BASE_MSAT + amount * PPM / 1_000_000;
        ldk_pays(&stage.first, &stage.second.invoice(amount)?).await?;
        (with_first, with_second) = (with_first + amount + fee, with_second - amount);
        ldk_pays(&stage.second, &stage.first.invoice(amount)?).await?;
        (with_first, with_second) = (with_first - amount, with_second + amount + fee);
        assert_eq!((stage.has_msat(&to_first).await?, stage.has_msat(&to_second).await?), (with_first, with_second));

        // Unasked, both ways.
        let gift = PaymentSend {
            node_id: Some(stage.first.node_id()),
            amount_msat: Some(5_000_000),
            idempotency_key: Some("a gift".to_owned()),
            ..Default::default()
        };
        let given = stage.pay(gift.clone()).await?;
        succeeded(&given, 0);
        assert_eq!(stage.sidecar.call(gift).await?.payment_id, given.payment_id, "once");
        let hash = stage.first.send_unasked(&stage.sidecar.node_id().await?, 6_000_000)?;
        until(LIMIT, "LDK's gift to arrive", async || {
            Ok(matches!(stage.first.standing(&hash), Standing::Succeeded(_)).then_some(()))
        })
        .await?;
        let taken = stage.sidecar.call(InvoiceGet { payment_hash: hash }).await?;
        assert_eq!((taken.state, taken.received_msat, taken.invoice), (InvoiceState::Paid, Some(6_000_000), None));
        with_first = with_first - 5_000_000 + 6_000_000;
        assert_eq!(stage.has_msat(&to_first).await?, with_first);

        // What one channel does not take goes over two, both ways.
        let large = PaymentSend { invoice: Some(stage.first.invoice(MORE_THAN_ONE_MSAT)?), ..Default::default() };
        assert_eq!(stage.sidecar.refusal(large).await?, "insufficient_capacity");
        let also = stage.channel(regtest, &stage.first, false, "also to the first").await?;
        stage.synced(regtest).await?;
        let both = async || -> Done<u64> { Ok(stage.has_msat(&to_first).await? + stage.has_msat(&also).await?) };
        let before = both().await?;
        let invoice = stage.first.invoice(MORE_THAN_ONE_MSAT)?;
        let paid = stage.pay(PaymentSend { invoice: Some(invoice.clone()), ..Default::default() }).await?;
        succeeded(&paid, 0);
        assert_eq!(stage.first.payment_end(&invoice).await?, paid.preimage);
        assert_eq!(both().await?, before - MORE_THAN_ONE_MSAT);
        // More than LDK has in either of them.
        let larger = 600_000_000;
        let invoice = stage.sidecar.invoice(larger, "in parts").await?;
        ldk_pays(&stage.first, &invoice).await?;
        assert_eq!(both().await?, before - MORE_THAN_ONE_MSAT + larger);
        let received = stage.sidecar.call(InvoiceGet { payment_hash: payment_hash(&invoice)? }).await?;
        assert_eq!((received.state, received.received_msat), (InvoiceState::Paid, Some(larger)));
        Ok(())
    })
    .await
}
