//! Payments both ways, while nothing, the wire, the daemon or LDK is hit.

use outrigger_integration::proxy::Way;
use outrigger_integration::{Done, on_regtest};
use outrigger_rpc_schema::PaymentState;

use crate::meeting::{CAPACITY_SAT, Meeting, Side, Terms};

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_opens_an_announced_channel_pays_is_paid_and_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let meeting =
            Meeting::of(regtest, Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: true, push_msat: 0 })
                .await?;
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
        let meeting =
            Meeting::of(regtest, Terms { opener: Side::Ldk, dialler: Side::Ldk, announce: false, push_msat: 0 })
                .await?;
        let ldk_msat = meeting.pay_around(CAPACITY_SAT * 1000).await?;
        meeting.ldk.close(&meeting.opened.channel_id).await?;
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
        let meeting = Meeting::of(
            regtest,
            Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false, push_msat: 0 },
        )
        .await?;
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
        meeting.ldk.close(&meeting.opened.channel_id).await?;
        let closing_txid = meeting.sidecar.closing_txid(&meeting.opened.channel_id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn payments_survive_a_kill_of_the_sidecar_and_it_closes() -> Done<()> {
    on_regtest(async |regtest| {
        let mut meeting =
            Meeting::of(regtest, Terms { opener: Side::Ldk, dialler: Side::Sidecar, announce: true, push_msat: 0 })
                .await?;
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
        let meeting = Meeting::of(
            regtest,
            Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false, push_msat: 0 },
        )
        .await?;
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
