//! LDK ends a channel alone, or has forgotten it.

use outrigger_integration::{Done, Regtest, on_regtest, until};
use outrigger_rpc_schema::{ChannelState, EventKind, EventList, NodeStatus, Phase};

use crate::meeting::{LIMIT, Meeting, Side, Terms};

/// What the accepter has to begin with.
const PUSHED_MSAT: u64 = 400_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn ldk_fails_a_channel_that_it_opened_and_the_sidecar_says_so() -> Done<()> {
    ldk_force_closes(Side::Ldk).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ldk_fails_a_channel_that_it_accepted_and_the_sidecar_says_so() -> Done<()> {
    ldk_force_closes(Side::Sidecar).await
}

async fn ldk_force_closes(opener: Side) -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
        let meeting = Meeting::of(regtest, terms).await?;
        meeting.ldk.force_close(&meeting.opened.channel_id)?;
        assert_failed(regtest, &meeting).await
    })
    .await
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
    let asked = EventList { kinds: Some(vec![EventKind::ChannelFailed]), ..Default::default() };
    let told = sidecar.call(asked).await?.items;
    assert_eq!(told.len(), 1, "{told:?}");
    let message = told.first().and_then(|event| event.message.clone()).unwrap_or_default();
    assert!(!message.is_empty(), "{told:?}");
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
