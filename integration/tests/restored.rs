//! A daemon that is started from an old copy of its database: the first peer that knows better puts it into restored
//! mode, in which it signs and publishes nothing on any channel.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_integration::regtest::Opened;
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    ChannelClose, ChannelForceClose, ChannelOpen, ChannelState, EventKind, EventList, InvoiceCreate, NodeStatus,
    NodeStatusReport, PaymentSend, PaymentState, Phase,
};

const CAPACITY_SAT: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_7_bad_input_56_bad_input_87_an_old_copy_of_the_database_signs_and_publishes_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = regtest.pair().await?;
        let carol = regtest.sidecar("carol").await?;
        carol.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&carol).await?;
        let with_bob = channel(regtest, &alice, &bob, "bob").await?;
        let with_carol = channel(regtest, &alice, &carol, "carol").await?;
        paid(&alice, &bob, 10_000_000).await?;
        // What an HTLC of the old copy holds on chain is not resolved yet.
        alice.until_idle(&with_bob.channel_id).await?;

        alice.stop().await?;
        // The whole directory, as a snapshot of the machine has it: nothing at home knows that it is old.
        let copy = regtest.directory("copy")?;
        copy_files(&home(&alice), &copy)?;
        alice.start_again().await?;
        for (node, opened) in [(&bob, &with_bob), (&carol, &with_carol)] {
            alice.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
            node.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        }
        paid(&alice, &bob, 20_000_000).await?;
        paid(&bob, &alice, 5_000_000).await?;
        let newest_bob_sat = 25_000;
        // An invoice that the old copy does not know either.
        let wanted = bob.invoice(1_000_000, "after the copy").await?;

        alice.stop().await?;
        copy_files(&copy, &home(&alice))?;
        alice.start_again().await?;
        // Bob alone has seen a newer state; Carol has not, and her channel is as old as Bob's for all that anybody knows.
        let status = until_restored(&alice).await?;
        let reason = status.reason.ok_or("no reason")?;
        assert!(reason.contains(&with_bob.channel_id) && reason.contains("Leave the node running"), "{reason}");
        for (node, opened) in [(&bob, &with_bob), (&carol, &with_carol)] {
            alice.until_channel_is(&opened.channel_id, ChannelState::Failed).await?;
            node.until_channel_is(&opened.channel_id, ChannelState::Failed).await?;
        }

        // Only the peers publish, and Bob his newest state.
        let bobs = regtest.bitcoind.until_spent(&with_bob.funding_txid).await?;
        let carols = regtest.bitcoind.until_spent(&with_carol.funding_txid).await?;
        assert!(regtest.bitcoind.outputs_sat(&bobs).await?.contains(&newest_bob_sat), "Bob publishes his newest state");
        let mempool = regtest.bitcoind.mempool().await?;
        assert_eq!(mempool.len(), 2, "nobody else publishes anything: {mempool:?}");

        refuses_everything(&alice, bob.node_id().await?, &wanted, &with_carol.channel_id).await?;
        assert_eq!(proofs(&alice).await?, 1, "told once");

        // It stays so over a crash, and over whatever peers say from then on.
        alice.kill().await?;
        alice.start_again().await?;
        let status = until_restored(&alice).await?;
        assert!(status.reason.is_some_and(|reason| reason.contains(&with_bob.channel_id)));
        alice.connect(&bob).await?;
        alice.connect(&carol).await?;
        refuses_everything(&alice, bob.node_id().await?, &wanted, &with_carol.channel_id).await?;
        assert_eq!(proofs(&alice).await?, 1);
        regtest.bitcoind.mine_to_nobody(1).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        for (opened, txid) in [(&with_bob, &bobs), (&with_carol, &carols)] {
            assert_eq!(alice.closing_txid(&opened.channel_id).await?, *txid);
        }
        assert_eq!(until_restored(&alice).await?.phase, Phase::Restored);

        // What is Alice's in the peers' commitments comes home all the same.
        until(LIMIT, "both sweeps to be published", async || {
            Ok((regtest.bitcoind.mempool().await?.len() == 2).then_some(()))
        })
        .await?;
        regtest.bitcoind.mine_to_nobody(6).await?;
        for opened in [&with_bob, &with_carol] {
            alice.until_channel_is(&opened.channel_id, ChannelState::Closed).await?;
        }
        Ok(())
    })
    .await
}

async fn channel(regtest: &Regtest, from: &Sidecar, to: &Sidecar, key: &str) -> Done<Opened> {
    let order = ChannelOpen {
        node_id: to.node_id().await?,
        funding_sat: CAPACITY_SAT,
        idempotency_key: key.to_owned(),
        ..Default::default()
    };
    let opened = regtest.open(from, order).await?;
    for node in [from, to] {
        node.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
    }
    Ok(opened)
}

async fn paid(from: &Sidecar, to: &Sidecar, amount_msat: u64) -> Done<()> {
    let payment = from.pay(&to.invoice(amount_msat, "a payment").await?).await?;
    assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    Ok(())
}

/// Of the database alone that was put back the start itself knows, before any peer does.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_bak_3_an_old_database_beside_its_generation_is_in_restored_mode_from_the_start() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob) = regtest.pair().await?;
        let opened = channel(regtest, &alice, &bob, "bob").await?;
        alice.stop().await?;
        let (database, copy) = (home(&alice).join("outrigger.redb"), regtest.directory("copy")?);
        copy_files(&home(&alice), &copy)?;
        alice.start_again().await?;
        alice.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        bob.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        paid(&alice, &bob, 20_000_000).await?;
        alice.until_idle(&opened.channel_id).await?;
        let wanted = bob.invoice(1_000_000, "after the copy").await?;
        alice.stop().await?;
        let newest = std::fs::read(&database)?;

        // Nobody is there to tell it so.
        let bob_id = bob.node_id().await?;
        bob.stop().await?;
        std::fs::copy(copy.join("outrigger.redb"), &database)?;
        for _ in 0..2 {
            alice.start_again().await?;
            let reason = until_restored(&alice).await?.reason.ok_or("no reason")?;
            assert!(
                reason.contains("an old copy was put back") && reason.contains("Leave the node running"),
                "{reason}"
            );
            refuses_everything(&alice, bob_id.clone(), &wanted, &opened.channel_id).await?;
            assert_eq!(proofs(&alice).await?, 1, "told once");
            alice.kill().await?;
        }
        assert!(regtest.bitcoind.mempool().await?.is_empty(), "nothing is published");

        // Who has the newest puts it back, and no channel was lost.
        std::fs::write(&database, newest)?;
        bob.start_again().await?;
        alice.start_again().await?;
        alice.connect(&bob).await?;
        alice.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        assert_eq!(alice.call(NodeStatus {}).await?.phase, Phase::Ready);
        paid(&alice, &bob, 1_000_000).await
    })
    .await
}

fn home(node: &Sidecar) -> PathBuf {
    Path::new(node.directory()).join("regtest")
}

/// The database and what stands beside it.
fn copy_files(from: &Path, to: &Path) -> Done<()> {
    for name in ["outrigger.redb", "outrigger.journal", "generation"] {
        std::fs::copy(from.join(name), to.join(name))?;
    }
    Ok(())
}

async fn until_restored(node: &Sidecar) -> Done<NodeStatusReport> {
    until(LIMIT, "the node to be in restored mode", async || {
        let status = node.call(NodeStatus {}).await?;
        Ok((status.phase == Phase::Restored).then_some(status))
    })
    .await
}

async fn refuses_everything(node: &Sidecar, peer: String, invoice: &str, channel_id: &str) -> Done<()> {
    let open = ChannelOpen {
        node_id: peer,
        funding_sat: CAPACITY_SAT,
        idempotency_key: "under restored mode".to_owned(),
        ..Default::default()
    };
    assert_eq!(node.refusal(open).await?, "restored");
    let pay = PaymentSend { invoice: Some(invoice.to_owned()), ..Default::default() };
    assert_eq!(node.refusal(pay).await?, "restored");
    let invoice = InvoiceCreate { amount_msat: Some(1000), description: "no".to_owned(), ..Default::default() };
    assert_eq!(node.refusal(invoice).await?, "restored");
    let close = ChannelClose { channel_id: channel_id.to_owned(), ..Default::default() };
    assert_eq!(node.refusal(close).await?, "restored");
    let close = ChannelForceClose { channel_id: channel_id.to_owned() };
    assert_eq!(node.refusal(close).await?, "restored");
    Ok(())
}

async fn proofs(node: &Sidecar) -> Done<usize> {
    let query = EventList { kinds: Some(vec![EventKind::NodeRestored]), ..Default::default() };
    Ok(node.call(query).await?.items.len())
}
