//! A required mirror beside a daemon: what waits for it, and what it proves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    BackupInfo, BackupState, BackupStatus, ChannelState, EventKind, EventList, NodeStatus, PaymentState, Phase,
};

const CAPACITY_SAT: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);

/// A daemon whose required mirror is in `disk`.
async fn mirrored(regtest: &Regtest, name: &str, disk: &Path) -> Done<Sidecar> {
    let path = disk.join("mirror.redb");
    let file = format!(
        "[[backup]]\nname = \"second\"\nkind = \"mirror\"\nrequirement = \"required\"\npath = \"{}\"\n",
        path.display()
    );
    std::fs::write(regtest.directory(name)?.join("outrigger.toml"), file)?;
    regtest.sidecar(name).await
}

async fn backup(node: &Sidecar) -> Done<BackupInfo> {
    Ok(node.call(BackupStatus {}).await?.items.pop().ok_or("no backup")?)
}

async fn until_complete(node: &Sidecar) -> Done<BackupInfo> {
    until(LIMIT, "the mirror to be complete", async || {
        Ok(Some(backup(node).await?).filter(|backup| backup.state == BackupState::Complete))
    })
    .await
}

async fn paid(from: &Sidecar, to: &Sidecar, amount_msat: u64) -> Done<()> {
    let payment = from.pay(&to.invoice(amount_msat, "a payment").await?).await?;
    assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    Ok(())
}

/// Alice, mirrored, and Bob, with a channel between them.
async fn pair(regtest: &Regtest, disk: &Path) -> Done<(Sidecar, Sidecar, String)> {
    let (alice, bob) = (mirrored(regtest, "alice", disk).await?, regtest.sidecar("bob").await?);
    alice.fund(&regtest.bitcoind).await?;
    tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
    alice.connect(&bob).await?;
    let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 300_000_000).await?;
    Ok((alice, bob, opened.channel_id))
}

async fn until_agreed(nodes: [&Sidecar; 2], channel_id: &str) -> Done<()> {
    for node in nodes {
        until(LIMIT, "the channel to be agreed on", async || {
            Ok(node.channel(channel_id).await?.connected.then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn per_2_a_required_mirror_that_is_away_stalls_its_channels_and_loses_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let (disk, away) = (regtest.directory("disk")?, regtest.directory("mounts")?.join("away"));
        let (mut alice, bob, channel_id) = pair(regtest, &disk).await?;
        paid(&alice, &bob, 20_000_000).await?;
        paid(&bob, &alice, 5_000_000).await?;
        let whole = until_complete(&alice).await?;
        assert_eq!((whole.lag_updates, whole.lag_bytes, whole.required), (0, 0, true));
        assert!(whole.completed_at.is_some() && whole.verify_failure.is_none());

        until(LIMIT, "a restore to be tried", async || Ok(backup(&alice).await?.verified_at)).await?;

        alice.kill().await?;
        alice.start_again().await?;
        until_agreed([&alice, &bob], &channel_id).await?;
        paid(&alice, &bob, 1_000_000).await?;

        alice.stop().await?;
        std::fs::rename(&disk, &away)?;
        alice.start_again().await?;
        // Nothing is said to Bob, so the channel is never agreed on with him.
        until(LIMIT, "the channel to be stalled", async || Ok(alice.channel(&channel_id).await?.stalled.then_some(())))
            .await?;
        assert!(!bob.channel(&channel_id).await?.connected);
        let troubled = backup(&alice).await?;
        assert_eq!(troubled.state, BackupState::Troubled, "{troubled:?}");
        assert!(troubled.reason.is_some() && troubled.hint.is_some() && troubled.lag_updates > 0);
        let status = alice.call(NodeStatus {}).await?;
        assert!(status.backups.is_some_and(|words| words.contains("second") && words.contains("late with them")));

        std::fs::rename(&away, &disk)?;
        until(LIMIT, "the channel to go on", async || Ok((!alice.channel(&channel_id).await?.stalled).then_some(())))
            .await?;
        until_agreed([&alice, &bob], &channel_id).await?;
        paid(&alice, &bob, 1_000_000).await?;
        until_complete(&alice).await?;
        Ok(())
    })
    .await
}

/// A witness on another disk: what neither the generation beside the database nor a silent peer can tell.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_5_a_mirror_proves_that_a_whole_directory_is_an_old_copy() -> Done<()> {
    on_regtest(async |regtest| {
        let disk = regtest.directory("disk")?;
        let (mut alice, mut bob, channel_id) = pair(regtest, &disk).await?;
        alice.until_idle(&channel_id).await?;
        alice.stop().await?;
        let (home, copy) = (home(&alice), regtest.directory("mounts")?.join("copy"));
        copy_directory(&home, &copy)?;
        alice.start_again().await?;
        until_agreed([&alice, &bob], &channel_id).await?;
        paid(&alice, &bob, 20_000_000).await?;
        until_complete(&alice).await?;
        alice.stop().await?;
        // Nobody is there to tell it so.
        bob.stop().await?;

        std::fs::remove_dir_all(&home)?;
        copy_directory(&copy, &home)?;
        alice.start_again().await?;
        let status = until(LIMIT, "restored mode", async || {
            Ok(Some(alice.call(NodeStatus {}).await?).filter(|status| status.phase == Phase::Restored))
        })
        .await?;
        let reason = status.reason.ok_or("no reason")?;
        assert!(reason.contains("the backup second holds channel") && reason.contains(&channel_id), "{reason}");
        let query = EventList { kinds: Some(vec![EventKind::NodeRestored]), ..Default::default() };
        assert_eq!(alice.call(query).await?.items.len(), 1, "told once");
        alice.until_channel_is(&channel_id, ChannelState::Failed).await?;
        assert!(regtest.bitcoind.mempool().await?.is_empty(), "nothing is published");
        Ok(())
    })
    .await
}

fn home(node: &Sidecar) -> PathBuf {
    Path::new(node.directory()).join("regtest")
}

fn copy_directory(from: &Path, to: &Path) -> Done<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
