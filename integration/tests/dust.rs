//! What HTLCs without an output of their own may come to: it goes to miners when a channel ends on chain (BOLT 2, "Bounding
//! exposure to trimmed in-flight HTLCs").

use std::path::Path;

use outrigger_integration::{Done, Sidecar, on_regtest};
use outrigger_rpc_schema::{ChannelInfo, PaymentState};

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 400_000_000;
/// The dust limit of both, by the default configuration: what each HTLC without an output counts as.
const DUST_LIMIT_SAT: u64 = 354;

/// The cap of the daemon whose data is there, from its next start on.
fn cap(directory: &Path, sat: u64) -> Done<()> {
    Ok(std::fs::write(directory.join("outrigger.toml"), format!("[channel]\nmax_dust_exposure_sat = {sat}\n"))?)
}

fn balances(channel: &ChannelInfo) -> (u64, u64) {
    (channel.local_msat, channel.remote_msat)
}

/// Pays and gives the kind of the failure, where the payment failed.
async fn paid(payer: &Sidecar, payee: &Sidecar, amount_msat: u64) -> Done<Option<String>> {
    let end = payer.pay(&payee.invoice(amount_msat, "dust").await?).await?;
    assert_eq!(end.state == PaymentState::Failed, end.failure.is_some());
    Ok(end.failure.map(|failure| failure.kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn fee_1_dust_beyond_the_cap_is_failed_and_not_offered_and_nothing_is_lost() -> Done<()> {
    on_regtest(async |regtest| {
        cap(&regtest.directory("bob")?, DUST_LIMIT_SAT - 1)?;
        let (alice, mut bob) = regtest.pair().await?;
        let id = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?.channel_id;
        let before = balances(&bob.channel(&id).await?);

        // One satoshi below the limit the HTLC has no output: it is committed, and then failed by the side that minds.
        let invoice = bob.invoice(353_999, "dust").await?;
        let failed = alice.pay(&invoice).await?;
        assert_eq!(failed.state, PaymentState::Failed, "{failed:?}");
        let failure = failed.failure.ok_or("a failure")?;
        assert_eq!(failure.kind, "temporary_node_failure", "{failure:?}");
        assert_eq!(failed.preimage, None, "no preimage is told");
        assert_eq!(balances(&bob.until_idle(&id).await?), before, "nothing has moved");

        // The same side does not offer what it would not take.
        assert_eq!(paid(&bob, &alice, 353_999).await?.as_deref(), Some("refused_by_channel"));
        assert_eq!(balances(&bob.until_idle(&id).await?), before);

        // With an output it is no dust, either way.
        assert_eq!(paid(&alice, &bob, 354_000).await?, None);
        assert_eq!(paid(&bob, &alice, 354_000).await?, None);
        assert_eq!(balances(&bob.until_idle(&id).await?), before);

        // One satoshi more of cap is room for one: the invoice that failed is paid.
        bob.stop().await?;
        cap(bob.directory(), DUST_LIMIT_SAT)?;
        bob.start_again().await?;
        alice.connect(&bob).await?;
        // Each side says for itself when it agrees on the channel again.
        bob.until_idle(&id).await?;
        alice.until_idle(&id).await?;
        let paid_now = alice.pay(&invoice).await?;
        assert_eq!(paid_now.state, PaymentState::Succeeded, "{paid_now:?}");
        assert_eq!(paid(&bob, &alice, 353_000).await?, None);
        let after = balances(&bob.until_idle(&id).await?);
        assert_eq!(after, (before.0 + 999, before.1 - 999), "to the millisatoshi");
        assert_eq!(balances(&alice.until_idle(&id).await?), (after.1, after.0));
        Ok(())
    })
    .await
}
