//! One of the two ends a channel alone, or LDK has forgotten it.

use outrigger_integration::proxy::Way;
use outrigger_integration::{Done, Regtest, on_regtest, until};
use outrigger_rpc_schema::{ChannelForceClose, ChannelState, Event, EventKind, EventList, NodeStatus, Phase};

use crate::cell::ClosingPoint;
use crate::meeting::{CAPACITY_SAT, LIMIT, Meeting, Side, Terms};

/// What the accepter has to begin with.
const PUSHED_MSAT: u64 = 400_000_000;

/// What the sidecar takes from its share at most for the commitment transaction's fee, which the opener pays, and anchors.
const MOST_FOR_COMMITMENT_SAT: u64 = 3_000;
/// What an anchor holds (BOLT 3).
const ANCHOR_SAT: u64 = 330;
/// Within so many blocks the money is home: the delay of a balance, and what buries the sweep.
const MOST_BLOCKS: u32 = 144 + 20;

#[tokio::test(flavor = "multi_thread")]
async fn ldk_fails_a_channel_that_it_opened_and_the_sidecar_has_its_money() -> Done<()> {
    one_side_closes(Side::Ldk, Side::Ldk).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ldk_fails_a_channel_that_it_accepted_and_the_sidecar_has_its_money() -> Done<()> {
    one_side_closes(Side::Sidecar, Side::Ldk).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_fails_a_channel_that_ldk_opened_and_has_its_money() -> Done<()> {
    one_side_closes(Side::Ldk, Side::Sidecar).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_fails_a_channel_that_it_opened_and_has_its_money() -> Done<()> {
    one_side_closes(Side::Sidecar, Side::Sidecar).await
}

async fn one_side_closes(opener: Side, closer: Side) -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
        let meeting = Meeting::of(regtest, terms).await?;
        let id = &meeting.opened.channel_id;
        let ldk_msat = meeting.ldk_pays(&[9_000_001], meeting.agreed().await?).await?;
        let share_sat = (CAPACITY_SAT * 1000 - ldk_msat) / 1000;
        let before_sat = meeting.sidecar.balance().await?.confirmed_sat;
        match closer {
            Side::Ldk => meeting.ldk.force_close(id)?,
            Side::Sidecar => {
                // LDK would publish too if it heard of it, and only one of the two gets in.
                meeting.wire.hold_after(Way::Out, 0);
                meeting.sidecar.call(ChannelForceClose { channel_id: id.clone() }).await?;
            }
        }
        assert_failed(regtest, &meeting).await?;
        let closing = event(&meeting, EventKind::ChannelClosing).await?.ok_or("channel_closing")?;
        let output_sat = closing.amount_sat.ok_or("what the commitment transaction pays us")?;
        match opener {
            Side::Ldk => assert_eq!(output_sat, share_sat),
            Side::Sidecar => assert!((share_sat - MOST_FOR_COMMITMENT_SAT..share_sat).contains(&output_sat)),
        }
        for _ in 0..MOST_BLOCKS {
            if meeting.sidecar.channel(id).await?.state == ChannelState::Closed {
                break;
            }
            regtest.bitcoind.mine_to_nobody(1).await?;
            meeting.sidecar.until_synced_with(&regtest.bitcoind).await?;
        }
        meeting.sidecar.until_channel_is(id, ChannelState::Closed).await?;
        let swept = event(&meeting, EventKind::ChannelSwept).await?.ok_or("channel_swept")?;
        let (home_sat, fee_sat) = (swept.amount_sat.unwrap_or_default(), swept.fee_sat.unwrap_or_default());
        assert_eq!(home_sat + fee_sat, output_sat);
        let balance = meeting.sidecar.balance().await?;
        let (anchor_sat, paid_sat) = child(regtest, &meeting).await?;
        let expected = (before_sat + home_sat + anchor_sat - paid_sat, 0, 0);
        assert_eq!((balance.confirmed_sat, balance.unconfirmed_sat, balance.locked_sat), expected);
        Ok(())
    })
    .await
}

/// LDK has both signatures of a close, has published it, and knows no channel any more; the sidecar never got the last one.
/// It fails the channel for the error that LDK answers with, and its commitment does not compete with the close.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_whose_last_signature_is_lost_is_let_be_in_the_mempool() -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener: Side::Ldk, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
        let meeting = Meeting::of(regtest, terms).await?;
        let id = meeting.opened.channel_id.clone();
        let ldk_msat = meeting.ldk_pays(&[9_000_001], meeting.agreed().await?).await?;
        let share_sat = (CAPACITY_SAT * 1000 - ldk_msat) / 1000;
        // The daemon asks for a little more than LDK offers first, and LDK agrees.
        meeting.ldk.until_pinged().await?;
        let hold = ClosingPoint::SecondOffer.hold(Side::Ldk, Side::Ldk);
        meeting.wire.hold_after(hold.way, hold.pass);
        meeting.ldk.close(&id).await?;
        meeting.wire.until_held(hold.way, hold.held).await?;
        assert!(meeting.ldk.until_closed(&id).await?.contains("CooperativeClosure"));
        let close = regtest.bitcoind.until_spent(&meeting.opened.funding_txid).await?;
        let meeting = meeting.struck(regtest, None).await?;
        let failed = meeting.sidecar.until_channel_is(&id, ChannelState::Failed);
        meeting.reconnecting(failed).await?;
        assert!(regtest.bitcoind.outputs_sat(&close).await?.contains(&share_sat), "it pays each side its own");
        for _ in 0..2 {
            let now = regtest.bitcoind.until_spent(&meeting.opened.funding_txid).await?;
            assert_eq!(now, close);
            meeting.sidecar.call(ChannelForceClose { channel_id: id.clone() }).await?;
        }
        regtest.bitcoind.mine_to_nobody(6).await?;
        let ended = meeting.sidecar.until_channel_is(&id, ChannelState::Closed).await?;
        assert_eq!(ended.closing_txid, Some(close));
        assert_eq!(meeting.sidecar.balance().await?.confirmed_sat, share_sat);
        Ok(())
    })
    .await
}

/// What a child has brought home and has paid to get the sidecar's commitment in, where one was needed and is in a block.
async fn child(regtest: &Regtest, meeting: &Meeting) -> Done<(u64, u64)> {
    let asked = EventList { kinds: Some(vec![EventKind::ChannelFeePaid]), ..Default::default() };
    let swept = event(meeting, EventKind::ChannelSwept).await?.and_then(|swept| swept.txid);
    for paid in meeting.sidecar.call(asked).await?.items {
        let txid = paid.txid.filter(|txid| Some(txid) != swept.as_ref());
        if let (Some(txid), Some(fee_sat)) = (txid, paid.fee_sat)
            && regtest.bitcoind.confirmations(&txid).await?.is_some_and(|depth| depth > 0)
        {
            return Ok((ANCHOR_SAT, fee_sat));
        }
    }
    Ok((0, 0))
}

/// The only event of this kind.
async fn event(meeting: &Meeting, kind: EventKind) -> Done<Option<Event>> {
    let asked = EventList { kinds: Some(vec![kind]), ..Default::default() };
    let mut told = meeting.sidecar.call(asked).await?.items;
    assert!(told.len() <= 1, "{told:?}");
    Ok(told.pop())
}

/// An LDK node that has lost its channels answers a reestablish with one of zeros and an error. That is no proof of
/// anything but its own loss: the channel fails, and the node is not taken for a restored one.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_ldk_has_forgotten_fails_and_nothing_else_does() -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
        let meeting = Meeting::of(regtest, terms).await?;
        meeting.pay_ldk(&[10_000_001], PUSHED_MSAT).await?;
        let meeting = meeting.forgotten(regtest).await?;
        let ldk_id = meeting.ldk.node_id();
        let failed = meeting.sidecar.until_channel_is(&meeting.opened.channel_id, ChannelState::Failed);
        meeting.sidecar.reconnecting(&ldk_id, meeting.wire.address(), failed).await?;
        assert_failed(regtest, &meeting).await
    })
    .await
}

/// The channel has failed, with words, and what spends its funding output is seen and named.
async fn assert_failed(regtest: &Regtest, meeting: &Meeting) -> Done<()> {
    let (sidecar, id) = (&meeting.sidecar, &meeting.opened.channel_id);
    sidecar.until_channel_is(id, ChannelState::Failed).await?;
    let message = event(meeting, EventKind::ChannelFailed).await?.and_then(|told| told.message).unwrap_or_default();
    assert!(!message.is_empty());
    println!("channel failed: {message}");

    let spender = regtest.bitcoind.until_spent(&meeting.opened.funding_txid).await?;
    regtest.bitcoind.mine_to_nobody(1).await?;
    sidecar.until_synced_with(&regtest.bitcoind).await?;
    until(LIMIT, "the sidecar to name what spends the funding output", async || {
        Ok((sidecar.channel(id).await?.closing_txid.as_ref() == Some(&spender)).then_some(()))
    })
    .await?;
    assert_eq!(sidecar.call(NodeStatus {}).await?.phase, Phase::Ready);
    Ok(())
}
