//! DSK-8 through the real binary, on a real file system that is full: `tmpfs` in a mount namespace, reached by way of `/proc`.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Stdio;

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::EventKind::{DiskLow, DiskRelieved};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{
    ChannelOpen, ChannelState, Event, EventKind, EventList, InvoiceCreate, NodeStatus, PaymentSend, PaymentState,
    WalletNewAddress,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What a full or broken disk ends the process with.
const STORAGE_EXIT_CODE: Option<i32> = Some(3);

const MIB: u64 = 1 << 20;

/// What the daemon of these tests is told to keep back.
const RESERVE: u64 = 4 * MIB;

/// A file system of 48 MiB that lives as long as this does, and a file on it that takes what is to be taken.
struct SmallDisk {
    _holder: Child,
    directory: PathBuf,
}

impl SmallDisk {
    /// None where this machine lets nobody mount: then the limits on files in `hostile.rs` are what proves the outcome.
    async fn mounted(regtest: &Regtest) -> Done<Option<Self>> {
        let point = regtest.directory("disk")?;
        let words = "mount -t tmpfs -o size=48m tmpfs \"$DIR\" && echo mounted && exec sleep infinity";
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--map-root-user", "bash", "-c", words]).env("DIR", &point).kill_on_drop(true);
        let mut holder = holder.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut said = BufReader::new(holder.stdout.take().ok_or("no output")?).lines();
        if said.next_line().await?.as_deref() != Some("mounted") {
            println!("this machine lets nobody mount: bad_input_96_dsk_8 alone proves the outcome here");
            return Ok(None);
        }
        let pid = holder.id().ok_or("no process")?;
        let directory = PathBuf::from(format!("/proc/{pid}/root{}", point.display()));
        Ok(Some(Self { _holder: holder, directory }))
    }

    fn node(&self) -> PathBuf {
        self.directory.join("alice")
    }

    /// Fills everything but these bytes.
    fn fill(&self, left: u64) -> Done<()> {
        let mut filler = File::create(self.directory.join("filler"))?;
        let block = [7; 1 << 16];
        for part in [block.len(), 4096] {
            loop {
                match filler.write_all(block.get(..part).unwrap_or(&block)) {
                    Ok(()) => {}
                    Err(fault) if fault.kind() == ErrorKind::StorageFull => break,
                    Err(fault) => return Err(fault.into()),
                }
            }
        }
        let taken = filler.metadata()?.len();
        Ok(filler.set_len(taken.saturating_sub(left))?)
    }

    fn empty(&self) -> Done<()> {
        Ok(std::fs::remove_file(self.directory.join("filler"))?)
    }

    /// The bytes of the ballast, if it is there.
    fn ballast(&self) -> Option<u64> {
        std::fs::metadata(network_directory(&self.node(), "regtest").join("ballast")).ok().map(|found| found.len())
    }
}

/// A node on that disk, one elsewhere, and the name of a channel that carries payments both ways.
async fn pair_on(disk: &SmallDisk, regtest: &Regtest) -> Done<(Sidecar, Sidecar, String)> {
    std::fs::create_dir(disk.node())?;
    let reserve = RESERVE.to_string();
    let alice = Sidecar::start(&disk.node(), "alice", &regtest.bitcoind, &["--disk-reserve-bytes", &reserve]).await?;
    let bob = regtest.sidecar("bob").await?;
    alice.fund(&regtest.bitcoind).await?;
    bob.until_synced_with(&regtest.bitcoind).await?;
    alice.connect(&bob).await?;
    let channel = regtest.channel(&alice, &bob, 1_000_000, 400_000_000).await?;
    Ok((alice, bob, channel.channel_id))
}

async fn until_low(node: &Sidecar, is_low: bool) -> Done<String> {
    let what = if is_low { "the node to see that its disk is full" } else { "the node to see that there is room" };
    until(LIMIT, what, async || {
        let words = node.call(NodeStatus {}).await?.disk;
        Ok((words.is_some() == is_low).then(|| words.unwrap_or_default()))
    })
    .await
}

async fn told(node: &Sidecar) -> Done<Vec<Event>> {
    let query = EventList { kinds: Some(vec![DiskLow, DiskRelieved]), limit: Some(1000), ..EventList::default() };
    Ok(node.call(query).await?.items)
}

async fn until_told(node: &Sidecar, count: usize) -> Done<Vec<Event>> {
    until(LIMIT, "word of the disk", async || Ok(Some(told(node).await?).filter(|events| events.len() >= count))).await
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind).collect()
}

/// Has the node write until the disk takes no more, and the process is gone.
async fn until_stopped(node: &mut Sidecar) -> Done<()> {
    for _ in 0..20_000 {
        if node.call(WalletNewAddress::default()).await.is_err() {
            assert_eq!(node.until_ended().await?, STORAGE_EXIT_CODE);
            return Ok(());
        }
    }
    Err("the disk never filled up".into())
}

/// Pays by the channel between both, once they are in step again.
async fn paid(from: &Sidecar, to: &Sidecar, invoice: &str) -> Done<()> {
    let (address, node_id) = (to.address(), to.node_id().await?);
    let begun = until(LIMIT, "a payment to begin", async || Ok(from.send(invoice).await.ok()));
    let payment_id = from.reconnecting(&node_id, &address, begun).await?;
    assert_eq!(from.payment_end(&payment_id).await?.state, PaymentState::Succeeded);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dsk_8_a_node_on_a_full_disk_promises_nothing_new_and_settles_what_stands() -> Done<()> {
    on_regtest(async |regtest| {
        let Some(disk) = SmallDisk::mounted(regtest).await? else { return Ok(()) };
        let (mut alice, bob, channel) = pair_on(&disk, regtest).await?;
        assert_eq!((disk.ballast(), alice.call(NodeStatus {}).await?.disk), (Some(RESERVE), None));

        // Less than the reserve is left: nothing new is promised, and what pays the node is taken.
        let [first, second] = [alice.invoice(2_000_000, "first").await?, alice.invoice(3_000_000, "second").await?];
        disk.fill(2 * MIB + MIB / 2)?;
        let words = until_low(&alice, true).await?;
        assert!(
            words.contains("and 6 MiB are wanted (disk_reserve_bytes)") && words.contains("make room on it"),
            "{words}"
        );
        let order = ChannelOpen { node_id: bob.node_id().await?, funding_sat: 100_000, ..Default::default() };
        assert_eq!(alice.refusal(ChannelOpen { idempotency_key: "another".into(), ..order }).await?, "disk_low");
        let invoice = bob.invoice(1_000_000, "too late").await?;
        let order = PaymentSend { invoice: Some(invoice), ..Default::default() };
        assert_eq!(alice.refusal(order).await?, "disk_low");
        let order = InvoiceCreate { amount_msat: Some(1), ..Default::default() };
        assert_eq!(alice.refusal(order).await?, "disk_low");
        let order = ChannelOpen { node_id: alice.node_id().await?, funding_sat: 100_000, ..Default::default() };
        bob.fund(&regtest.bitcoind).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        let op_id = bob.call(ChannelOpen { idempotency_key: "to alice".into(), ..order }).await?.op_id;
        let failure = bob.end_of_opening(&op_id).await?.failure.ok_or("alice accepted a channel")?;
        assert!(failure.contains("cannot keep another channel now"), "{failure}");
        paid(&bob, &alice, &first).await?;
        assert_eq!(disk.ballast(), Some(RESERVE));
        assert_eq!(kinds(&until_told(&alice, 1).await?), [DiskLow]);

        // Nothing is left: the process stops, and starts on what the ballast kept.
        disk.fill(0)?;
        until_stopped(&mut alice).await?;
        alice.start_again().await?;
        assert_eq!(disk.ballast(), None);
        until_low(&alice, true).await?;
        paid(&bob, &alice, &second).await?;
        assert_eq!(kinds(&told(&alice).await?), [DiskLow], "a start does not tell it again");

        // So is a close, to its end in the chain.
        let txid = alice.close(&channel).await?;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        regtest.bitcoind.mine_to_nobody(6).await?;
        alice.until_channel_is(&channel, ChannelState::Closed).await?;

        disk.empty()?;
        until_low(&alice, false).await?;
        assert_eq!(kinds(&until_told(&alice, 2).await?), [DiskLow, DiskRelieved]);
        assert_eq!(disk.ballast(), Some(RESERVE));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn dsk_8_with_whatever_is_left_a_start_goes_on_and_claims_what_is_its_own() -> Done<()> {
    on_regtest(async |regtest| {
        let Some(disk) = SmallDisk::mounted(regtest).await? else { return Ok(()) };
        let (mut alice, bob, _) = pair_on(&disk, regtest).await?;
        for left_kib in [0, 4, 8, 16, 32, 64, 128, 256, 512, 1024] {
            until_ballast(&disk).await?;
            let invoice = alice.invoice(1_000_000 + left_kib, "what stands is settled").await?;
            alice.kill().await?;
            let lock = network_directory(&disk.node(), "regtest").join("lock");
            match left_kib {
                4 => drop(File::create(&lock)?),
                8 => std::fs::remove_file(&lock)?,
                _ => {}
            }
            disk.fill(left_kib * 1024)?;
            alice.start_again().await.map_err(|fault| format!("with {left_kib} KiB left: {fault}"))?;
            assert_eq!(disk.ballast(), None, "with {left_kib} KiB left");
            until_low(&alice, true).await?;
            paid(&bob, &alice, &invoice).await?;
            disk.empty()?;
            until_low(&alice, false).await?;
        }
        Ok(())
    })
    .await
}

async fn until_ballast(disk: &SmallDisk) -> Done<()> {
    until(LIMIT, "the ballast", async || Ok(disk.ballast().filter(|bytes| *bytes == RESERVE).map(|_| ()))).await
}
