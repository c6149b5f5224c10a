//! An operator whose disk died gets going from a sink: the node that is restored signs nothing and publishes no commitment, its
//! peer closes, and the operator's balance comes home to the satoshi.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_integration::proxy::{Proxy, Way};
use outrigger_integration::regtest::{Opened, REWARD_SAT};
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{
    BackupState, BackupStatus, ChannelForceClose, ChannelState, EventKind, EventList, InvoiceCreate, InvoiceGet,
    InvoiceState, NodeStatus, PaymentSend, PaymentState, Phase,
};
use serde_json::Value;
use tokio::task::JoinHandle;

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 300_000_000;
const LIMIT: Duration = Duration::from_secs(60);
/// What Alice sends to Carol, and never arrives.
const STUCK_MSAT: u64 = 40_000_000;
/// What each payment is that goes on while the disk dies: it has an output of its own.
const EACH_MSAT: u64 = 1_000_000;
const PAYMENTS: usize = 40;
/// What an anchor of a commitment holds (BOLT 3).
const ANCHOR_SAT: u64 = 330;
/// Within so many blocks the balance is home: the commitment, the sweep, and what buries it.
const MOST_BLOCKS: u32 = 30;

/// Where Alice keeps her channels beside her database.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Mirror,
    Directory,
    Command,
}

impl Kind {
    /// What stands in Alice's configuration for a sink below `disk`.
    fn config(self, disk: &Path) -> String {
        let place = match self {
            Self::Mirror => format!("kind = \"mirror\"\npath = \"{}\"", disk.join("mirror.redb").display()),
            Self::Directory => {
                format!("kind = \"directory\"\nconsolidate_every = 7\npath = \"{}\"", disk.display())
            }
            Self::Command => {
                format!("kind = \"command\"\ncommand = [\"{}\", \"{}\"]", keeper().display(), disk.display())
            }
        };
        format!("[[backup]]\nname = \"second\"\nrequirement = \"required\"\n{place}\n")
    }

    /// How an operator names it to `restore`.
    fn source(self, disk: &Path) -> String {
        match self {
            Self::Mirror => format!("mirror:{}", disk.join("mirror.redb").display()),
            Self::Directory => format!("directory:{}", disk.display()),
            Self::Command => format!("command:{} {}", keeper().display(), disk.display()),
        }
    }
}

/// The example of a program that keeps backups.
fn keeper() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/examples/keep-in-directory")
}

/// Alice has a required sink and a channel with Bob, and Bob one with Carol.
struct Trio {
    alice: Sidecar,
    bob: Sidecar,
    carol: Sidecar,
    /// From Bob to Carol.
    wire: Proxy,
    /// Between Alice and Bob.
    opened: Opened,
    /// Between Bob and Carol.
    beyond: Opened,
}

impl Trio {
    async fn new(regtest: &Regtest, kind: Kind, disk: &Path) -> Done<Self> {
        std::fs::write(regtest.directory("alice")?.join("outrigger.toml"), kind.config(disk))?;
        let (alice, bob, carol) =
            tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"), regtest.sidecar("carol"))?;
        alice.fund(&regtest.bitcoind).await?;
        bob.fund(&regtest.bitcoind).await?;
        for node in [&alice, &bob, &carol] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        let wire = Proxy::start(&carol.address()).await?;
        alice.connect(&bob).await?;
        bob.connect_to(&carol.node_id().await?, wire.address()).await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let beyond = regtest.channel(&bob, &carol, CAPACITY_SAT, PUSH_MSAT).await?;
        for node in [&alice, &bob, &carol] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        Ok(Self { alice, bob, carol, wire, opened, beyond })
    }

    /// Alice pays Carol, and Bob's offer never gets to her: an HTLC stays in flight, and no preimage is known to anybody but Carol.
    /// Gives what it holds in Alice's channel.
    async fn strand(&self) -> Done<u64> {
        let invoice = until(LIMIT, "an invoice with a route hint", async || {
            let order = InvoiceCreate {
                amount_msat: Some(STUCK_MSAT),
                description: "never arrives".to_owned(),
                ..Default::default()
            };
            let created = self.carol.call(order).await?;
            Ok((created.route_hints > 0).then_some(created.invoice))
        })
        .await?;
        self.wire.hold_after(Way::Out, 0);
        self.alice.send(&invoice).await?;
        for (node, channel) in [(&self.alice, &self.opened), (&self.bob, &self.opened), (&self.bob, &self.beyond)] {
            until(LIMIT, "the HTLC to be in flight", async || {
                Ok((node.channel(&channel.channel_id).await?.htlcs == 1).then_some(()))
            })
            .await?;
        }
        let before_msat = CAPACITY_SAT * 1000 - PUSH_MSAT;
        until(LIMIT, "the HTLC to have left the balance", async || {
            let left_msat = self.alice.channel(&self.opened.channel_id).await?.local_msat;
            Ok(before_msat.checked_sub(left_msat).filter(|taken| *taken >= STUCK_MSAT))
        })
        .await
    }

    /// Alice pays Bob again and again, for as long as she lives. Gives the payment hashes.
    async fn busy(&self) -> Done<(Vec<String>, JoinHandle<()>)> {
        let (mut hashes, mut invoices) = (Vec::new(), Vec::new());
        for number in 0..PAYMENTS {
            let description = format!("payment {number}");
            let order = InvoiceCreate { amount_msat: Some(EACH_MSAT), description, ..Default::default() };
            let created = self.bob.call(order).await?;
            hashes.push(created.payment_hash);
            invoices.push(created.invoice);
        }
        let client = self.alice.client();
        let paying = tokio::spawn(async move {
            for invoice in invoices {
                if client.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await.is_err() {
                    return;
                }
            }
        });
        Ok((hashes, paying))
    }
}

/// What Bob has been paid of these, in satoshi.
async fn received_sat(bob: &Sidecar, hashes: &[String]) -> Done<u64> {
    let mut paid = 0;
    for payment_hash in hashes {
        let invoice = bob.call(InvoiceGet { payment_hash: payment_hash.clone() }).await?;
        paid += u64::from(invoice.state == InvoiceState::Paid) * EACH_MSAT / 1000;
    }
    Ok(paid)
}

async fn paid(from: &Sidecar, to: &Sidecar, amount_msat: u64) -> Done<()> {
    let payment = from.pay(&to.invoice(amount_msat, "a payment").await?).await?;
    assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    Ok(())
}

/// The names of all files below, with what they hold.
fn files(directory: &Path) -> Done<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push((path.clone(), std::fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

fn copy_directory(from: &Path, to: &Path) -> Done<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for (path, content) in files(from)? {
        let copy = to.join(path.strip_prefix(from)?);
        if let Some(above) = copy.parent() {
            std::fs::create_dir_all(above)?;
            let shown = path.parent().ok_or("a file in a directory")?;
            std::fs::set_permissions(above, std::fs::metadata(shown)?.permissions())?;
        }
        std::fs::write(copy, content)?;
    }
    Ok(())
}

/// Restores Alice: a dry run first, which changes nothing, then the real one; both tell the same.
async fn restored(alice: &Sidecar, from: &str) -> Done<Value> {
    let before = files(alice.directory())?;
    let (code, told) = alice.restore(from, &["--dry-run"]).await?;
    assert_eq!((code, &told["dry_run"], &told["is_whole"]), (Some(0), &true.into(), &true.into()), "{told}");
    assert_eq!(files(alice.directory())?, before, "a dry run changes nothing");
    let (code, real) = alice.restore(from, &[]).await?;
    assert_eq!((code, &real["dry_run"], &real["is_whole"]), (Some(0), &false.into(), &true.into()), "{real}");
    assert_eq!(real["channels"], told["channels"]);
    assert_eq!(real["channels"].as_array().map(Vec::len), Some(1), "{real}");
    let channel = real["channels"][0].clone();
    assert_eq!(channel["outcome"], "restored", "{channel}");
    assert!(channel["expect"].as_str().is_some_and(|words| words.contains("asked to close")), "{channel}");
    let network = network_directory(alice.directory(), "regtest");
    assert!(network.join("outrigger.redb").exists());
    Ok(channel)
}

/// Alice starts from what was restored while Bob is away, and publishes nothing. Bob comes back, is asked to close, and publishes his
/// commitment; Alice's balance in it comes to her wallet. HTLCs in flight stay where they are: this release claims none. Bob was paid
/// `net_sat` beyond what he had at first, and these payments. Gives what she had in the wallet before.
async fn comes_home(
    regtest: &Regtest,
    trio: &mut Trio,
    (net_sat, hashes): (u64, &[String]),
    (stuck_sat, cost_sat): (u64, u64),
) -> Done<u64> {
    trio.bob.stop().await?;
    trio.alice.start_again().await?;
    let Trio { alice, bob, opened, .. } = trio;
    let status = alice.until_phase(&[Phase::Restored]).await?;
    let reason = status.reason.unwrap_or_default();
    assert!(reason.contains("it was restored from") && reason.contains("Leave the node running"), "{reason}");
    alice.until_synced_with(&regtest.bitcoind).await?;
    let invoice = InvoiceCreate { amount_msat: Some(1000), description: "no".to_owned(), ..Default::default() };
    assert_eq!(alice.refusal(invoice).await?, "restored");
    let close = ChannelForceClose { channel_id: opened.channel_id.clone() };
    assert_eq!(alice.refusal(close).await?, "restored");
    assert!(regtest.bitcoind.mempool().await?.is_empty(), "she publishes nothing");

    // She knows from the backup where Bob is.
    bob.start_again().await?;
    for node in [&*alice, &*bob] {
        node.until_channel_is(&opened.channel_id, ChannelState::Failed).await?;
    }
    let commitment = regtest.bitcoind.until_spent(&opened.funding_txid).await?;
    let mut outputs_sat = regtest.bitcoind.outputs_sat(&commitment).await?;
    let commitment_fee_sat = CAPACITY_SAT - outputs_sat.iter().sum::<u64>();
    assert!(cost_sat >= commitment_fee_sat + 2 * ANCHOR_SAT, "{cost_sat} was told, {commitment_fee_sat} is the fee");
    let before_sat = alice.balance().await?.confirmed_sat;

    let query = EventList { kinds: Some(vec![EventKind::ChannelSwept]), ..Default::default() };
    for _ in 0..MOST_BLOCKS {
        if !alice.call(query.clone()).await?.items.is_empty() {
            break;
        }
        regtest.bitcoind.mine_to_nobody(1).await?;
        tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
    }
    assert_eq!(
        alice.channel(&opened.channel_id).await?.closing_txid,
        Some(commitment),
        "nothing else spent the channel"
    );
    let swept = alice.call(query).await?.items;
    let home_sat: u64 = swept.iter().filter_map(|event| event.amount_sat).sum();
    let fees_sat: u64 = swept.iter().filter_map(|event| event.fee_sat).sum();
    let in_flight_sat = in_flight(&mut outputs_sat, stuck_sat)?;
    let taken =
        outputs_sat.iter().position(|output| *output == home_sat + fees_sat).ok_or("what is hers is no output")?;
    outputs_sat.remove(taken);
    let [bobs_sat] = outputs_sat.as_slice() else { return Err(format!("other outputs: {outputs_sat:?}").into()) };
    // What Bob has been paid is his; what was on its way may be, where he has told the preimage.
    let paid_sat = net_sat + received_sat(bob, hashes).await?;
    let settled_sat = bobs_sat - PUSH_MSAT / 1000;
    assert!(
        (settled_sat..=settled_sat + in_flight_sat).contains(&paid_sat),
        "{settled_sat} {paid_sat} {in_flight_sat}"
    );
    let balance = alice.balance().await?;
    assert_eq!(
        (balance.confirmed_sat, balance.unconfirmed_sat, balance.locked_sat),
        (before_sat + home_sat, 0, 0),
        "to the satoshi"
    );
    assert_eq!(alice.call(NodeStatus {}).await?.phase, Phase::Restored);
    Ok(before_sat)
}

/// Takes anchors and HTLCs out of the outputs of a commitment: the one that is stuck, and those of payments, whose sum is given.
fn in_flight(outputs_sat: &mut Vec<u64>, stuck_sat: u64) -> Done<u64> {
    for known in [ANCHOR_SAT, ANCHOR_SAT, stuck_sat] {
        let place = outputs_sat.iter().position(|output| *output == known).ok_or(format!("no output of {known}"))?;
        outputs_sat.remove(place);
    }
    let all = outputs_sat.len();
    outputs_sat.retain(|output| *output != EACH_MSAT / 1000);
    Ok(u64::try_from(all - outputs_sat.len())? * EACH_MSAT / 1000)
}

/// The disk dies amid payments, and the sink has everything that anybody was told.
async fn dies_amid_payments(kind: Kind) -> Done<()> {
    on_regtest(async |regtest| {
        let disk = regtest.directory("disk")?;
        let mut trio = Trio::new(regtest, kind, &disk).await?;
        let stuck_msat = trio.strand().await?;
        let (hashes, paying) = trio.busy().await?;
        until(LIMIT, "payments to go on", async || {
            Ok((received_sat(&trio.bob, &hashes).await? >= 3 * EACH_MSAT / 1000).then_some(()))
        })
        .await?;
        trio.alice.lose_disk().await?;
        paying.await?;

        let channel = restored(&trio.alice, &kind.source(&disk)).await?;
        assert_eq!(channel["peer"], trio.bob.node_id().await?);
        assert_eq!((&channel["capacity_sat"], &channel["faults"]), (&CAPACITY_SAT.into(), &Value::Array(vec![])));
        assert!(channel["htlcs"].as_u64() >= Some(1), "{channel}");
        let most_msat = CAPACITY_SAT * 1000 - PUSH_MSAT - stuck_msat;
        assert!(channel["balance_msat"].as_u64().is_some_and(|balance| balance < most_msat), "{channel}");

        let cost_sat = channel["cost_sat"].as_u64().ok_or("no cost")?;
        let before_sat = comes_home(regtest, &mut trio, (0, &hashes), (stuck_msat / 1000, cost_sat)).await?;
        assert_eq!(before_sat, REWARD_SAT - trio.opened.funding_fee_sat - CAPACITY_SAT, "the change is found again");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_a_node_whose_disk_dies_amid_payments_comes_home_from_its_mirror() -> Done<()> {
    dies_amid_payments(Kind::Mirror).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_a_node_whose_disk_dies_amid_payments_comes_home_from_a_directory() -> Done<()> {
    dies_amid_payments(Kind::Directory).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_a_node_whose_disk_dies_amid_payments_comes_home_from_a_program() -> Done<()> {
    dies_amid_payments(Kind::Command).await
}

/// A copy of the sink that missed the newest states does no harm: the end is the same.
async fn comes_home_from_an_old_copy(kind: Kind) -> Done<()> {
    on_regtest(async |regtest| {
        let (disk, copy) = (regtest.directory("disk")?, regtest.directory("copies")?.join("old"));
        let mut trio = Trio::new(regtest, kind, &disk).await?;
        let stuck_msat = trio.strand().await?;
        trio.alice.stop().await?;
        copy_directory(&disk, &copy)?;
        trio.alice.start_again().await?;
        for node in [&trio.alice, &trio.bob] {
            node.until_channel_is(&trio.opened.channel_id, ChannelState::Normal).await?;
        }
        paid(&trio.alice, &trio.bob, 20_000_000).await?;
        paid(&trio.bob, &trio.alice, 5_000_000).await?;
        until(LIMIT, "the payments to be irrevocable", async || {
            Ok((trio.alice.channel(&trio.opened.channel_id).await?.htlcs == 1).then_some(()))
        })
        .await?;
        until(LIMIT, "the sink to be complete", async || {
            let complete = |state| state == BackupState::Complete;
            Ok(trio.alice.call(BackupStatus {}).await?.items.iter().all(|item| complete(item.state)).then_some(()))
        })
        .await?;
        trio.alice.lose_disk().await?;
        let channel = restored(&trio.alice, &kind.source(&copy)).await?;
        assert_eq!(channel["htlcs"], 1, "{channel}");
        let cost_sat = channel["cost_sat"].as_u64().ok_or("no cost")?;
        comes_home(regtest, &mut trio, (15_000, &[]), (stuck_msat / 1000, cost_sat)).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_an_old_copy_of_a_mirror_brings_the_same_home() -> Done<()> {
    comes_home_from_an_old_copy(Kind::Mirror).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_2_an_old_copy_of_a_directory_brings_the_same_home() -> Done<()> {
    comes_home_from_an_old_copy(Kind::Directory).await
}
