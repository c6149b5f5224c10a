//! A required mirror beside a daemon: what waits for it, and what it proves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_integration::{Done, Door, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{
    BackupInfo, BackupState, BackupStatus, ChannelForceClose, ChannelList, ChannelOpen, ChannelOpenWait, ChannelState,
    EventKind, EventList, NodeStatus, OpenState, PaymentState, Phase,
};

const CAPACITY_SAT: u64 = 1_000_000;
const LIMIT: Duration = Duration::from_secs(60);
/// At every height that this divides a node that runs gives its backups a record of the chain,
const TIP_EVERY: u32 = 144;
/// of the block so far below.
const RECORD_DEPTH: u32 = 6;

/// A daemon whose required mirror is in `disk`.
async fn mirrored(regtest: &Regtest, name: &str, disk: &Path) -> Done<Sidecar> {
    configure(regtest, name, disk)?;
    regtest.sidecar(name).await
}

/// A required mirror in `disk`, from the next start of the daemon on.
fn configure(regtest: &Regtest, name: &str, disk: &Path) -> Done<()> {
    let path = disk.join("mirror.redb");
    let file = format!(
        "[[backup]]\nname = \"second\"\nkind = \"mirror\"\nrequirement = \"required\"\npath = \"{}\"\n",
        path.display()
    );
    Ok(std::fs::write(regtest.directory(name)?.join("outrigger.toml"), file)?)
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

/// What `/metrics` tells of what waits for the mirror: channels that are held, events that are not told, and the mirror's lag in writes, in
/// bytes and in seconds.
async fn measured(node: &Sidecar) -> Done<[u64; 5]> {
    let door = Door::of(node)?;
    let told = door.get("/metrics", Some(door.owner())).await?;
    assert_eq!(told.status, 200);
    let mut values = [0; 5];
    for (value, series) in values.iter_mut().zip([
        "outrigger_channels_held",
        "outrigger_events_held",
        "outrigger_backup_lag_updates{backup=\"second\"}",
        "outrigger_backup_lag_bytes{backup=\"second\"}",
        "outrigger_backup_lag_seconds{backup=\"second\"}",
    ]) {
        let line =
            told.body.lines().find_map(|line| line.strip_prefix(series)).ok_or_else(|| format!("no {series}"))?;
        *value = line.trim().parse()?;
    }
    Ok(values)
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
        until(LIMIT, "the measures to be zero", async || Ok((measured(&alice).await? == [0; 5]).then_some(()))).await?;

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
        assert!(troubled.reason.is_some() && troubled.hint.is_some());
        assert!(troubled.lag_updates > 0 && troubled.lag_bytes > 0, "{troubled:?}");
        let status = alice.call(NodeStatus {}).await?;
        assert!(status.backups.is_some_and(|words| words.contains("second") && words.contains("late with them")));

        // A channel that the mirror lacks has no name for a caller: its funding transaction may still never leave.
        let order = ChannelOpen {
            node_id: bob.node_id().await?,
            funding_sat: 100_000,
            idempotency_key: "while it is away".to_owned(),
            ..Default::default()
        };
        let begun = alice.call(order).await?;
        until(LIMIT, "the second channel to be a row", async || {
            Ok((alice.call(ChannelList::default()).await?.items.len() == 2).then_some(()))
        })
        .await?;
        let waited = alice.call(ChannelOpenWait { op_id: begun.op_id.clone(), timeout_secs: Some(1) }).await?;
        assert_eq!((waited.state, &waited.channel_id, &waited.funding_txid), (OpenState::Opening, &None, &None));
        let [held, events, updates, bytes, seconds] = measured(&alice).await?;
        assert!(held >= 1 && events >= 1, "{held} channels and {events} events are held");
        // A channel is held where the mirror is late by 20 s.
        assert!(updates >= 1 && (20..300).contains(&seconds), "{updates} {seconds}");
        // Both channels are due as a whole: each counts, by an estimate.
        assert!(bytes >= 2 * 2_048, "{bytes}");

        std::fs::rename(&away, &disk)?;
        let opened = alice.end_of_opening(&begun.op_id).await?;
        assert_eq!(opened.state, OpenState::Pending, "{opened:?}");
        regtest.confirm(opened.funding_txid.as_deref().ok_or("no transaction")?).await?;
        for node in [&alice, &bob] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        until(LIMIT, "the channel to go on", async || Ok((!alice.channel(&channel_id).await?.stalled).then_some(())))
            .await?;
        until_agreed([&alice, &bob], &channel_id).await?;
        paid(&alice, &bob, 1_000_000).await?;
        until_complete(&alice).await?;
        until(LIMIT, "nothing to wait any more", async || Ok((measured(&alice).await? == [0; 5]).then_some(())))
            .await?;
        Ok(())
    })
    .await
}

/// What the mirror holds might prove the database to be an old copy: before that is known our commitment is not published.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_a_channel_that_is_closed_by_force_while_the_mirror_is_away_is_published_once_that_is_there() -> Done<()>
{
    on_regtest(async |regtest| {
        let (disk, away) = (regtest.directory("disk")?, regtest.directory("mounts")?.join("away"));
        let (mut alice, mut bob, channel_id) = pair(regtest, &disk).await?;
        paid(&alice, &bob, 20_000_000).await?;
        until_complete(&alice).await?;
        // Else his commitment may come before hers once he hears of it.
        bob.stop().await?;
        alice.stop().await?;
        std::fs::rename(&disk, &away)?;
        alice.start_again().await?;
        for is_restarted in [false, true] {
            if is_restarted {
                alice.kill().await?;
                alice.start_again().await?;
            }
            let closing = alice.call(ChannelForceClose { channel_id: channel_id.clone() }).await?;
            assert_eq!((closing.state, closing.closing_txid), (ChannelState::Failed, None));
            let reason = alice.channel(&channel_id).await?.reason.ok_or("no reason")?;
            assert!(reason.contains("closed by its operator; our commitment is not published yet"), "{reason}");
            until(LIMIT, "the status to tell of it", async || {
                let words = alice.call(NodeStatus {}).await?.backups.unwrap_or_default();
                Ok(words.contains("not published before second has told what it holds").then_some(()))
            })
            .await?;
            assert!(regtest.bitcoind.mempool().await?.is_empty());
        }
        std::fs::rename(&away, &disk)?;
        let txid = alice.closing_txid(&channel_id).await?;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        let failed = alice.channel(&channel_id).await?;
        assert_eq!(failed.reason.as_deref(), Some("closed by its operator"));
        Ok(())
    })
    .await
}

/// A new backup of a node that has channels gets all of each before anything more is promised for it.
#[tokio::test(flavor = "multi_thread")]
async fn per_2_a_mirror_that_is_added_to_a_node_with_channels_has_them_in_full_after_the_next_start() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = regtest.pair().await?;
        let mut channels = Vec::new();
        for push_msat in [300_000_000, 400_000_000] {
            let order = ChannelOpen {
                node_id: bob.node_id().await?,
                funding_sat: CAPACITY_SAT,
                push_msat: Some(push_msat),
                idempotency_key: format!("with {push_msat} msat for Bob"),
                ..Default::default()
            };
            let channel_id = regtest.open(&alice, order).await?.channel_id;
            for node in [&alice, &bob] {
                node.until_channel_is(&channel_id, ChannelState::Normal).await?;
                node.until_synced_with(&regtest.bitcoind).await?;
            }
            channels.push(channel_id);
        }
        paid(&alice, &bob, 20_000_000).await?;
        paid(&bob, &alice, 5_000_000).await?;
        assert!(alice.call(BackupStatus {}).await?.items.is_empty());
        let mut before = Vec::new();
        for channel in &channels {
            before.push(alice.until_idle(channel).await?.local_msat);
        }

        alice.stop().await?;
        let disk = regtest.directory("disk")?;
        configure(regtest, "alice", &disk)?;
        alice.start_again().await?;
        let whole = until_complete(&alice).await?;
        assert_eq!((whole.lag_updates, whole.required, &*whole.kind), (0, true, "mirror"));
        for (channel, before) in channels.iter().zip(before) {
            until_agreed([&alice, &bob], channel).await?;
            assert_eq!(alice.until_idle(channel).await?.local_msat, before);
        }
        let verified = until(LIMIT, "a restore to be tried", async || {
            Ok(Some(backup(&alice).await?).filter(|backup| backup.verified_at.is_some()))
        })
        .await?;
        assert_eq!((verified.verify_failure, verified.unverified), (None, None), "of every channel");
        paid(&alice, &bob, 1_000_000).await?;

        // From then on it is one that was known before.
        alice.kill().await?;
        alice.start_again().await?;
        until_complete(&alice).await?;
        for channel in &channels {
            until_agreed([&alice, &bob], channel).await?;
        }
        paid(&bob, &alice, 1_000_000).await?;
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
        alice.until_channel_is(&channel_id, ChannelState::Failed).await?;
        let told = async || {
            let query = EventList { kinds: Some(vec![EventKind::NodeRestored]), ..Default::default() };
            Done::Ok(alice.call(query).await?.items.len())
        };
        // The mode holds before its event is durable.
        until(LIMIT, "the event", async || Ok((told().await? > 0).then_some(()))).await?;
        assert_eq!(told().await?, 1, "told once");
        assert!(regtest.bitcoind.mempool().await?.is_empty(), "nothing is published");
        Ok(())
    })
    .await
}

/// A restore follows the chain from the record on, so a node makes one while it runs for long, and not only at its starts.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_a_directory_gets_a_record_of_the_tip_at_every_144th_block_while_the_node_runs() -> Done<()> {
    on_regtest(async |regtest| {
        let disk = regtest.directory("disk")?;
        let file = format!(
            "[[backup]]\nname = \"files\"\nkind = \"directory\"\nrequirement = \"required\"\npath = \"{}\"\n",
            disk.display()
        );
        std::fs::write(regtest.directory("alice")?.join("outrigger.toml"), file)?;
        let (mut alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, 300_000_000).await?;
        let place = disk.join(format!("regtest-{}", alice.node_id().await?));
        let at_start = tips_in(&place)?;
        let opened_at = regtest.bitcoind.height().await?;
        regtest.bitcoind.mine_to_nobody(TIP_EVERY - 1 - opened_at).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        assert_eq!(tips_in(&place)?, at_start, "nothing is recorded between");

        regtest.bitcoind.mine_to_nobody(2).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        let recorded = TIP_EVERY - RECORD_DEPTH;
        until(LIMIT, "the record at block 144", async || Ok(tips_in(&place)?.contains(&recorded).then_some(())))
            .await?;
        assert_eq!(tips_in(&place)?, at_start.into_iter().chain([recorded]).collect());

        alice.lose_disk().await?;
        let (code, told) = alice.restore(&format!("directory:{}", disk.display()), &[]).await?;
        assert_eq!(
            (code, &told["is_whole"], &told["block_height"]),
            (Some(0), &true.into(), &recorded.into()),
            "{told}"
        );
        assert_eq!(told["channels"][0]["channel_id"], opened.channel_id, "{told}");
        Ok(())
    })
    .await
}

/// The heights of the records of the tip in a directory of a node.
fn tips_in(place: &Path) -> Done<BTreeSet<u32>> {
    let mut heights = BTreeSet::new();
    for entry in std::fs::read_dir(place)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(height) = name.strip_prefix("tip-").and_then(|rest| rest.strip_suffix(".sealed")) {
            heights.insert(height.parse()?);
        }
    }
    Ok(heights)
}

fn home(node: &Sidecar) -> PathBuf {
    Path::new(node.directory()).join("regtest")
}

fn copy_directory(from: &Path, to: &Path) -> Done<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
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
