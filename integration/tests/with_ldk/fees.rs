//! Changes of the commitment feerate by either side as the opener. Both look at their estimates once a minute, and the
//! daemon with each block.

use std::time::Duration;

use outrigger_integration::{Done, on_regtest, until};

use crate::meeting::{HIGH_FEERATE, LIMIT, LOW_FEERATE, Meeting, Side, Terms};

/// Time for LDK's minute, on a busy machine.
const MINUTES: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread")]
async fn ldk_changes_the_feerate_while_htlcs_are_pending_both_ways() -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener: Side::Ldk, dialler: Side::Sidecar, announce: false, push_msat: 400_000_000 };
        let meeting = Meeting::of(regtest, terms).await?;
        let id = meeting.opened.channel_id.clone();
        let before_msat = meeting.agreed().await?;
        assert_eq!(meeting.ldk.feerate(&id), Some(LOW_FEERATE));
        // One stays in both commitments over the change; others come and go.
        let held = meeting.ldk.hold_invoice(40_000_000, 1)?;
        let held_id = meeting.sidecar.send(&held.invoice).await?;
        meeting.ldk.until_held(&held).await?;
        meeting.fees.say(HIGH_FEERATE);
        regtest.bitcoind.mine_to_nobody(1).await?;
        let mut ldk_msat = before_msat;
        until(MINUTES, "LDK to change the feerate", async || {
            let (there, back) = (meeting.ldk.invoice(5_000_001)?, meeting.sidecar.invoice(3_000_001, "back").await?);
            let there_id = meeting.sidecar.send(&there).await?;
            meeting.ldk.send(&back)?;
            assert!(meeting.ldk.payment_end(&back).await?.is_some());
            let payment = meeting.sidecar.payment_end(&there_id).await?;
            assert_eq!(meeting.ldk.payment_end(&there).await?, payment.preimage);
            ldk_msat += 2_000_000;
            Ok((meeting.ldk.feerate(&id) == Some(HIGH_FEERATE)).then_some(()))
        })
        .await?;
        // It holds over a restart, and so does the HTLC.
        let meeting = meeting.struck(regtest, Some(Side::Sidecar)).await?;
        meeting.ldk.until_usable(&id).await?;
        assert_eq!(meeting.ldk.feerate(&id), Some(HIGH_FEERATE));
        meeting.ldk.claim(&held)?;
        assert_eq!(meeting.sidecar.payment_end(&held_id).await?.preimage, Some(held.preimage));
        ldk_msat += 40_000_000;
        meeting.assert_balance(ldk_msat).await?;
        let closing_txid = meeting.sidecar.close(&id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_changes_the_feerate_with_an_htlc_pending() -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false, push_msat: 400_000_000 };
        let meeting = Meeting::of(regtest, terms).await?;
        let id = meeting.opened.channel_id.clone();
        assert_eq!(meeting.ldk.feerate(&id), Some(LOW_FEERATE));
        let held = meeting.ldk.hold_invoice(40_000_000, 1)?;
        let held_id = meeting.sidecar.send(&held.invoice).await?;
        meeting.ldk.until_held(&held).await?;
        assert_eq!(meeting.move_fees(regtest).await?, HIGH_FEERATE);
        until(LIMIT, "the sidecar to propose the new feerate and LDK to take it", async || {
            Ok((meeting.ldk.feerate(&id) == Some(HIGH_FEERATE)).then_some(()))
        })
        .await?;
        // It holds over a restart, and so does the HTLC.
        let meeting = meeting.struck(regtest, Some(Side::Sidecar)).await?;
        meeting.ldk.until_usable(&id).await?;
        assert_eq!(meeting.ldk.feerate(&id), Some(HIGH_FEERATE));
        meeting.ldk.claim(&held)?;
        assert_eq!(meeting.sidecar.payment_end(&held_id).await?.preimage, Some(held.preimage));
        meeting.assert_balance(440_000_000).await?;
        let ldk_msat = meeting.ldk_pays(&[3_000_001], 440_000_000).await?;
        let ldk_msat = meeting.pay_ldk(&[5_000_001], ldk_msat).await?;
        let closing_txid = meeting.sidecar.close(&id).await?;
        meeting.assert_closed(regtest, &closing_txid, ldk_msat).await
    })
    .await
}
