//! What the event feed says of the chain, of backups, of peers and of coins that come.

use std::path::Path;

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::EventKind::{
    BackupBehind, BackupComplete, ChainBlind, ChainSynced, PeerConnected, PeerDisconnected, WalletConfirmed,
    WalletReceived,
};
use outrigger_rpc_schema::{Event, EventKind, EventList, PaymentState, WalletSend};

/// What a channel of these tests holds.
const CAPACITY_SAT: u64 = 1_000_000;

/// The events of these kinds, oldest first.
async fn told(node: &Sidecar, kinds: &[EventKind]) -> Done<Vec<Event>> {
    let query = EventList { kinds: Some(kinds.to_vec()), limit: Some(1000), ..EventList::default() };
    Ok(node.call(query).await?.items)
}

/// The same, once there are so many. What was there before the daemon's first look is told after a minute.
async fn until_told(node: &Sidecar, kinds: &[EventKind], count: usize) -> Done<Vec<Event>> {
    until(2 * LIMIT, &format!("{count} of {kinds:?}"), async || {
        Ok(Some(told(node, kinds).await?).filter(|events| events.len() >= count))
    })
    .await
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn coins_that_come_and_go_are_told_by_each_block_that_holds_them_and_once() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let deposit = told(&alice, &[WalletReceived]).await?;
        assert_eq!(deposit.len(), 1, "{deposit:?}");
        let had_sat = deposit[0].amount_sat.ok_or("no amount")?;
        assert_eq!(had_sat, alice.balance().await?.confirmed_sat);

        let send = WalletSend { address: bob.new_address().await?, amount_sat: 50_000, ..WalletSend::default() };
        let txid = alice.call(WalletSend { idempotency_key: "rent".into(), ..send }).await?.txid;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        let fee_sat = regtest.bitcoind.fee_sat(&txid).await?;
        regtest.bitcoind.mine_to_nobody(1).await?;
        let height = regtest.bitcoind.height().await?;
        let received = |height| (Some(txid.clone()), Some(50_000), Some(height));
        let seen = |event: &Event| (event.txid.clone(), event.amount_sat, event.block_height);
        let came = until_told(&bob, &[WalletReceived], 1).await?;
        assert_eq!(came.iter().map(seen).collect::<Vec<_>>(), [received(height)]);
        let went = until_told(&alice, &[WalletConfirmed], 1).await?;
        let amounts = |event: &Event| (event.received_sat, event.spent_sat, event.fee_sat, event.block_height);
        let moved = |height| (Some(had_sat - 50_000 - fee_sat), Some(had_sat), Some(fee_sat), Some(height));
        assert_eq!(went.iter().map(amounts).collect::<Vec<_>>(), [moved(height)]);
        assert_eq!((went[0].txid.as_ref(), went[0].amount_sat), (Some(&txid), None));

        // Another branch has no such block; a later one of it does.
        regtest.reorganise(height).await?;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        regtest.bitcoind.mine_to_nobody(1).await?;
        let again = regtest.bitcoind.height().await?;
        let came = until_told(&bob, &[WalletReceived], 2).await?;
        assert_eq!(came.iter().map(seen).collect::<Vec<_>>(), [received(height), received(again)]);
        let went = until_told(&alice, &[WalletConfirmed], 2).await?;
        assert_eq!(went.iter().map(amounts).collect::<Vec<_>>(), [moved(height), moved(again)]);

        bob.kill().await?;
        bob.start_again().await?;
        regtest.bitcoind.mine_to_nobody(1).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        assert_eq!(told(&bob, &[WalletReceived, WalletConfirmed]).await?, came);
        assert_eq!(told(&alice, &[WalletReceived]).await?, deposit);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoind_that_is_away_is_told_once_over_a_crash_and_so_is_its_return() -> Done<()> {
    on_regtest(async |regtest| {
        let chain = [ChainBlind, ChainSynced];
        let (mut alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        assert_eq!(told(&alice, &chain).await?, []);
        regtest.bitcoind.stop().await?;
        let blind = until_told(&alice, &chain, 1).await?;
        let words = blind[0].message.as_deref().ok_or("no words")?;
        assert!(words.contains("start bitcoind") && words.contains("see chain.status"), "{words}");
        alice.kill().await?;
        alice.launch_again().await?;
        regtest.bitcoind.start_again().await?;
        regtest.bitcoind.mine_to_nobody(3).await?;
        let both = until_told(&alice, &chain, 2).await?;
        assert_eq!(kinds(&both), chain);
        assert_eq!(both[0], blind[0]);
        // The height is that of the look: blocks of the way there may be told of.
        assert!(both[1].block_height.is_some_and(|height| height > 0), "{both:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_a_channel_is_told_when_it_is_lost_and_back_and_one_without_is_not() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let mut carol = regtest.sidecar("carol").await?;
        carol.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&carol).await?;
        regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let peer = [PeerDisconnected, PeerConnected];
        carol.stop().await?;
        bob.stop().await?;
        let lost = until_told(&alice, &peer, 1).await?;
        let words = lost[0].message.as_deref().ok_or("no words")?;
        assert!(words.contains("it is dialled again and again"), "{words}");
        bob.start_again().await?;
        alice.connect(&bob).await?;
        let both = until_told(&alice, &peer, 2).await?;
        let bob_id = bob.node_id().await?;
        let seen: Vec<_> = both.iter().map(|event| (event.kind, event.node_id.as_deref())).collect();
        assert_eq!(seen, [(PeerDisconnected, Some(bob_id.as_str())), (PeerConnected, Some(bob_id.as_str()))]);
        assert_eq!(told(&bob, &peer).await?, [], "a start waits longer before it calls a peer lost");
        Ok(())
    })
    .await
}

/// A program that keeps a backup, and fails while there is a file `broken` beside it.
fn keeper(directory: &Path) -> Done<String> {
    use std::os::unix::fs::PermissionsExt;
    let keep = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/examples/keep-in-directory");
    let (program, broken) = (directory.join("keeper"), directory.join("broken"));
    let kept = directory.join("kept");
    let [keep, kept, broken] = [keep, kept, broken].map(|path| path.display().to_string());
    // What follows the directory is asked to ship each file, and is given its name.
    std::fs::write(&program, format!("#!/bin/bash\nexec '{keep}' '{kept}' bash -c '[ ! -e \"{broken}\" ]'\n"))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    Ok(program.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_trouble_is_told_and_so_is_it_when_it_has_everything_again() -> Done<()> {
    on_regtest(async |regtest| {
        let disk = regtest.directory("disk")?;
        let file = format!(
            "[[backup]]\nname = \"second-disk\"\nkind = \"command\"\nrequirement = \"follow\"\ncommand = [\"{}\"]\n",
            keeper(&disk)?
        );
        std::fs::write(regtest.directory("alice")?.join("outrigger.toml"), file)?;
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, CAPACITY_SAT, 0).await?;
        let backup = [BackupBehind, BackupComplete];
        assert_eq!(told(&alice, &backup).await?, []);
        std::fs::write(disk.join("broken"), "")?;
        let payment = alice.pay(&bob.invoice(20_000_000, "while it fails").await?).await?;
        assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
        let behind = until_told(&alice, &backup, 1).await?;
        let words = behind[0].message.as_deref().ok_or("no words")?;
        assert!(words.contains("nothing waits for it") && words.contains("Mend it"), "{words}");
        std::fs::remove_file(disk.join("broken"))?;
        let both = until_told(&alice, &backup, 2).await?;
        assert_eq!(kinds(&both), backup);
        assert!(both.iter().all(|event| event.backup.as_deref() == Some("second-disk")), "{both:?}");
        Ok(())
    })
    .await
}
