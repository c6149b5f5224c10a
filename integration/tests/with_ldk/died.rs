//! The sidecar's disk dies, and what it is restored to asks LDK to close: LDK's commitment brings our balance home.

use std::path::{Path, PathBuf};

use outrigger_integration::{Done, Regtest, on_regtest, until};
use outrigger_rpc_schema::{
    BackupState, BackupStatus, ChannelState, EventKind, EventList, NodeStatus, PaymentGet, PaymentState, Phase,
};

use crate::meeting::{CAPACITY_SAT, LIMIT, Meeting, Side, Terms};

/// What LDK has to begin with.
const PUSHED_MSAT: u64 = 300_000_000;
/// What the sidecar offers to LDK, and LDK holds.
const HELD_MSAT: u64 = 40_000_000;
/// What the two anchors of a commitment hold (BOLT 3).
const ANCHORS_SAT: u64 = 660;
/// Within so many blocks the balance is home: the commitment, the sweep, and what buries it.
const MOST_BLOCKS: u32 = 30;

/// The sidecar with a required mirror, LDK, and a channel that has seen payments both ways.
async fn mirrored(regtest: &Regtest) -> Done<(Meeting, PathBuf)> {
    let mirror = regtest.directory("disk")?.join("mirror.redb");
    let config = format!(
        "[[backup]]\nname = \"second\"\nkind = \"mirror\"\nrequirement = \"required\"\npath = \"{}\"\n",
        mirror.display()
    );
    std::fs::write(regtest.directory("sidecar")?.join("outrigger.toml"), config)?;
    let terms = Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
    let meeting = Meeting::of(regtest, terms).await?;
    Ok((meeting, mirror))
}

/// LDK holds an HTLC of the sidecar's that it will never claim.
async fn held(meeting: &Meeting) -> Done<()> {
    let held = meeting.ldk.hold_invoice(HELD_MSAT, 1)?;
    let payment_id = meeting.sidecar.send(&held.invoice).await?;
    meeting.ldk.until_held(&held).await?;
    let payment = meeting.sidecar.call(PaymentGet { payment_id }).await?;
    assert_eq!(payment.state, PaymentState::Pending);
    Ok(())
}

/// The disk dies, the node is restored, and LDK, which has `ldk_msat` beside the HTLC, closes for what it is told.
async fn comes_home(regtest: &Regtest, mut meeting: Meeting, mirror: &Path, ldk_msat: u64) -> Done<()> {
    let id = meeting.opened.channel_id.clone();
    meeting.sidecar.lose_disk().await?;
    let from = format!("mirror:{}", mirror.display());
    let (code, dry) = meeting.sidecar.restore(&from, &["--dry-run"]).await?;
    assert_eq!((code, &dry["is_whole"]), (Some(0), &true.into()), "{dry}");
    let (code, told) = meeting.sidecar.restore(&from, &[]).await?;
    assert_eq!((code, &told["channels"]), (Some(0), &dry["channels"]), "{told}");
    assert_eq!((&told["channels"][0]["outcome"], &told["channels"][0]["htlcs"]), (&"restored".into(), &1.into()));

    meeting.sidecar.start_again().await?;
    meeting.sidecar.until_phase(&[Phase::Restored]).await?;
    let reason = meeting.reconnecting(meeting.ldk.until_closed(&id)).await?;
    let is_for_us = reason.contains("CounterpartyForceClosed") || reason.contains("ProcessingError");
    assert!(is_for_us, "{reason}");
    let commitment = regtest.bitcoind.until_spent(&meeting.opened.funding_txid).await?;
    let fee_sat = CAPACITY_SAT - regtest.bitcoind.outputs_sat(&commitment).await?.iter().sum::<u64>();
    meeting.sidecar.until_channel_is(&id, ChannelState::Failed).await?;
    let before_sat = meeting.sidecar.balance().await?.confirmed_sat;
    let asked = EventList { kinds: Some(vec![EventKind::ChannelSwept]), ..Default::default() };
    for _ in 0..MOST_BLOCKS {
        if !meeting.sidecar.call(asked.clone()).await?.items.is_empty() {
            break;
        }
        regtest.bitcoind.mine_to_nobody(1).await?;
        meeting.sidecar.until_synced_with(&regtest.bitcoind).await?;
    }
    let closing_txid = meeting.sidecar.channel(&id).await?.closing_txid;
    assert_eq!(closing_txid, Some(commitment), "LDK's commitment, and nothing of ours, spent the channel");
    let swept = meeting.sidecar.call(asked).await?.items;
    let home_sat: u64 = swept.iter().filter_map(|event| event.amount_sat).sum();
    let fees_sat: u64 = swept.iter().filter_map(|event| event.fee_sat).sum();
    // This release claims no HTLC on chain: the one in flight stays where it is.
    let ours_sat = (CAPACITY_SAT * 1000 - ldk_msat - HELD_MSAT) / 1000;
    assert_eq!(home_sat + fees_sat, ours_sat - fee_sat - ANCHORS_SAT, "all that was ours: {swept:?}");
    let balance = meeting.sidecar.balance().await?;
    let all_sat = (balance.confirmed_sat, balance.unconfirmed_sat, balance.locked_sat);
    assert_eq!(all_sat, (before_sat + home_sat, 0, 0), "to the satoshi");
    assert_eq!(meeting.sidecar.call(NodeStatus {}).await?.phase, Phase::Restored);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_ldk_closes_for_a_node_that_was_restored_and_all_comes_home() -> Done<()> {
    on_regtest(async |regtest| {
        let (meeting, mirror) = mirrored(regtest).await?;
        let ldk_msat = meeting.pay_ldk(&[20_000_000], PUSHED_MSAT).await?;
        let ldk_msat = meeting.ldk_pays(&[5_000_000], ldk_msat).await?;
        held(&meeting).await?;
        comes_home(regtest, meeting, &mirror, ldk_msat).await
    })
    .await
}

/// LDK sees by our `channel_reestablish` that we have lost states (BOLT 2, data loss).
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_ldk_closes_for_a_node_that_was_restored_from_an_old_copy() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut meeting, mirror) = mirrored(regtest).await?;
        held(&meeting).await?;
        meeting.sidecar.stop().await?;
        let copy = regtest.directory("copies")?.join("old.redb");
        std::fs::copy(&mirror, &copy)?;
        meeting.sidecar.start_again().await?;
        let id = meeting.opened.channel_id.clone();
        let usable = until(LIMIT, "the channel to work again", async || {
            let is_usable = meeting.ldk.channel(&id).is_some_and(|channel| channel.is_usable);
            Ok((is_usable && meeting.sidecar.channel(&id).await?.connected).then_some(()))
        });
        meeting.reconnecting(usable).await?;
        let mut ldk_msat = PUSHED_MSAT;
        for _ in 0..3 {
            let invoice = meeting.ldk.invoice(7_000_000)?;
            assert_eq!(meeting.sidecar.pay(&invoice).await?.state, PaymentState::Succeeded);
            ldk_msat += 7_000_000;
        }
        until(LIMIT, "the payments to be irrevocable, and the mirror to be complete", async || {
            let items = meeting.sidecar.call(BackupStatus {}).await?.items;
            let is_complete = items.iter().all(|item| item.state == BackupState::Complete);
            Ok((is_complete && meeting.sidecar.channel(&id).await?.htlcs == 1).then_some(()))
        })
        .await?;
        comes_home(regtest, meeting, &copy, ldk_msat).await
    })
    .await
}
