//! The whole job on a regtest chain: two sidecars, a channel, a payment each way, a cooperative close. Started by
//! `contrib/quickstart`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use outrigger_integration::sidecar::cli_executable;
use outrigger_integration::{Bitcoind, Done, Sidecar, until};
use outrigger_rpc_schema::{ChannelOpen, ChannelState, PaymentInfo};
use serde_json::{Value, json};

/// What the channel holds.
const CAPACITY_SAT: u64 = 1_000_000;
/// What is paid each way.
const PAID_MSAT: [u64; 2] = [50_000_000, 20_000_000];
/// How long the slowest step may take.
const LIMIT: Duration = Duration::from_secs(120);

struct Options {
    json: bool,
    keep: bool,
}

const USAGE: &str = "usage: contrib/quickstart [--json] [--keep]

Starts a regtest chain and two Lightning sidecars in a new directory, opens a channel between them, pays an invoice each
way, and closes the channel.

  --json  print one JSON object on standard output at the end; everything else goes to standard error
  --keep  leave the processes running and say how to talk to them and how to stop them
";

fn options() -> Result<Options, String> {
    let mut options = Options { json: false, keep: false };
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => options.json = true,
            "--keep" => options.keep = true,
            other => return Err(format!("unknown argument {other}\n\n{USAGE}")),
        }
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match options() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let outcome = tokio::select! {
        outcome = run(&options) => outcome,
        () = interrupted() => Err("interrupted; everything that was started is stopped".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("\nquickstart failed: {fault}");
            eprintln!("Nothing of yours was touched, and nothing is left running.");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => (),
        () = terminated => (),
    }
}

/// Says what happens, step by step.
struct Narrator {
    begun: Instant,
    step: u32,
    bold: bool,
}

impl Narrator {
    fn step(&mut self, what: &str) {
        self.step += 1;
        let (on, off) = if self.bold { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
        eprintln!("\n{on}{}. {what}{off}  ({:.1} s)", self.step, self.begun.elapsed().as_secs_f64());
    }

    fn would_type(&self, command: &str) {
        eprintln!("   $ {command}");
    }

    fn result(&self, text: &str) {
        eprintln!("   {text}");
    }
}

/// One sidecar and how an operator would call it.
struct Node {
    name: &'static str,
    sidecar: Sidecar,
    node_id: String,
}

impl Node {
    fn cli(&self, call: &str) -> String {
        format!("outrigger-cli --data-dir {} --network regtest {call}", self.sidecar.directory().display())
    }
}

async fn run(options: &Options) -> Done<()> {
    let directory = tempfile::Builder::new().prefix("outrigger-quickstart-").tempdir()?;
    let mut narrator = Narrator { begun: Instant::now(), step: 0, bold: std::io::stderr().is_terminal() };

    narrator.step("Starting bitcoind on a new regtest chain");
    let chain_directory = directory.path().join("bitcoind");
    std::fs::create_dir(&chain_directory)?;
    let mut bitcoind = Bitcoind::start(&chain_directory).await?;
    let version = bitcoind.version().await?;
    // A chain whose tip is old counts as not synced, and a new one has only the genesis block of 2011.
    bitcoind.mine_to_nobody(1).await?;
    narrator.result(&format!("{version}, RPC at {}", bitcoind.address()));

    let alice = start(&mut narrator, "alice", directory.path(), &bitcoind).await?;
    let bob = start(&mut narrator, "bob", directory.path(), &bitcoind).await?;
    fund(&mut narrator, &alice, &bitcoind).await?;
    let opened = open(&mut narrator, &alice, &bob, &bitcoind).await?;
    let (channel_id, funding_txid) = opened;
    let there = pay(&mut narrator, &alice, &bob, PAID_MSAT[0]).await?;
    let back = pay(&mut narrator, &bob, &alice, PAID_MSAT[1]).await?;
    let closing_txid = close(&mut narrator, &alice, &bob, &bitcoind, &channel_id).await?;

    let mut report = json!({
        "bitcoind_version": version,
        "nodes": [identity(&alice), identity(&bob)],
        "channel": { "channel_id": channel_id, "funding_txid": funding_txid, "capacity_sat": CAPACITY_SAT },
        "payments": [there, back],
        "close": { "txid": closing_txid, "confirmed": true },
        "balances": [balances(&alice).await?, balances(&bob).await?],
    });
    report["elapsed_secs"] = json!((narrator.begun.elapsed().as_secs_f64() * 10.0).round() / 10.0);
    narrator.step("Done: funded, opened, paid each way, closed, and every satoshi accounted for");

    if options.keep {
        keep(directory.keep(), &narrator, [alice, bob], bitcoind);
    } else {
        for mut node in [alice, bob] {
            node.sidecar.stop().await?;
        }
        bitcoind.stop().await?;
    }
    if options.json {
        println!("{report}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn start(narrator: &mut Narrator, name: &'static str, directory: &Path, bitcoind: &Bitcoind) -> Done<Node> {
    narrator.step(&format!("Starting {name}'s sidecar beside bitcoind"));
    let data = directory.join(name);
    narrator.would_type(&format!(
        "outriggerd --network regtest --data-dir {} --bitcoind-url {} --bitcoind-cookie {} --alias {name}",
        data.display(),
        bitcoind.address(),
        bitcoind.cookie().display()
    ));
    let sidecar = Sidecar::start(&data, name, bitcoind, &[]).await?;
    let node_id = sidecar.node_id().await?;
    narrator.result(&format!("{name} is {node_id}"));
    Ok(Node { name, sidecar, node_id })
}

async fn fund(narrator: &mut Narrator, node: &Node, bitcoind: &Bitcoind) -> Done<()> {
    narrator.step(&format!(
        "Funding {}'s on-chain wallet: one block reward, and 100 blocks until it may be spent",
        node.name
    ));
    narrator.would_type(&node.cli("wallet.new_address"));
    node.sidecar.fund(bitcoind).await?;
    narrator.result(&format!("{} holds {} sat", node.name, node.sidecar.balance().await?.confirmed_sat));
    Ok(())
}

async fn open(narrator: &mut Narrator, from: &Node, to: &Node, bitcoind: &Bitcoind) -> Done<(String, String)> {
    narrator.step(&format!("Connecting {} to {} and opening a channel of {CAPACITY_SAT} sat", from.name, to.name));
    for node in [from, to] {
        node.sidecar.until_synced_with(bitcoind).await?;
    }
    narrator.would_type(&from.cli(&format!("peer.connect node_id={} address={}", to.node_id, to.sidecar.address())));
    from.sidecar.connect(&to.sidecar).await?;
    narrator.would_type(
        &from.cli(&format!(
            "channel.open node_id={} funding_sat={CAPACITY_SAT} idempotency_key=first-channel",
            to.node_id
        )),
    );
    let order = ChannelOpen {
        node_id: to.node_id.clone(),
        funding_sat: CAPACITY_SAT,
        idempotency_key: "first-channel".into(),
        ..Default::default()
    };
    let opened = from.sidecar.call(order).await?;
    narrator.result(&format!("the opening has begun; its op_id is {}", opened.op_id));
    narrator.would_type(&from.cli(&format!("channel.open_wait op_id={}", opened.op_id)));
    let opened = from.sidecar.end_of_opening(&opened.op_id).await?;
    let (channel_id, funding_txid) = opened
        .channel_id
        .zip(opened.funding_txid)
        .ok_or_else(|| format!("the channel was not opened: {}", opened.failure.unwrap_or_default()))?;
    narrator.result(&format!("channel {channel_id}"));
    narrator.result(&format!("funded by transaction {funding_txid}"));

    narrator.step("Mining until the channel is usable on both sides");
    bitcoind.until_mempool_holds(&funding_txid).await?;
    bitcoind.mine_to_nobody(6).await?;
    for node in [from, to] {
        node.sidecar.until_channel_is(&channel_id, ChannelState::Normal).await?;
    }
    narrator.would_type(&from.cli(&format!("channel.get channel_id={channel_id}")));
    let channel = from.sidecar.channel(&channel_id).await?;
    narrator.result(&format!("{} can send {} msat", from.name, channel.spendable_msat));
    Ok((channel_id, funding_txid))
}

async fn pay(narrator: &mut Narrator, from: &Node, to: &Node, amount_msat: u64) -> Done<Value> {
    narrator.step(&format!("{} pays {} {amount_msat} msat", from.name, to.name));
    narrator.would_type(&to.cli(&format!("invoice.create amount_msat={amount_msat} description=quickstart")));
    let invoice = to.sidecar.invoice(amount_msat, "quickstart").await?;
    narrator.would_type(&from.cli(&format!("payment.send invoice={invoice}")));
    let begun = Instant::now();
    let PaymentInfo { state, preimage, failure, .. } = from.sidecar.pay(&invoice).await?;
    let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Some(preimage) = preimage else {
        let why = failure.map_or_else(|| "it is still pending".to_owned(), |failure| failure.message);
        return Err(format!("the payment did not succeed: {why}").into());
    };
    narrator.result(&format!("paid in {wall_ms} ms; proof of payment {preimage}"));
    Ok(json!({
        "from": from.name, "to": to.name, "amount_msat": amount_msat, "state": state, "preimage": preimage,
        "wall_ms": wall_ms,
    }))
}

async fn close(narrator: &mut Narrator, from: &Node, to: &Node, bitcoind: &Bitcoind, channel_id: &str) -> Done<String> {
    narrator.step("Closing the channel together");
    narrator.would_type(&from.cli(&format!("channel.close channel_id={channel_id}")));
    let closing_txid = from.sidecar.close(channel_id).await?;
    narrator.result(&format!("closed by transaction {closing_txid}"));
    bitcoind.until_mempool_holds(&closing_txid).await?;
    bitcoind.mine_to_nobody(6).await?;
    for node in [from, to] {
        node.sidecar.until_channel_is(channel_id, ChannelState::Closed).await?;
        let coins = until(LIMIT, "the coins to be back in the wallet", async || {
            Ok(Some(node.sidecar.balance().await?.confirmed_sat).filter(|coins| *coins > 0))
        });
        narrator.result(&format!("{} holds {} sat on chain", node.name, coins.await?));
    }
    Ok(closing_txid)
}

fn identity(node: &Node) -> Value {
    json!({ "node_id": node.node_id, "alias": node.name })
}

async fn balances(node: &Node) -> Done<Value> {
    let balance = node.sidecar.balance().await?;
    Ok(json!({
        "alias": node.name, "confirmed_sat": balance.confirmed_sat, "unconfirmed_sat": balance.unconfirmed_sat,
    }))
}

/// Leaves everything running, and says how to go on and how to end it.
fn keep(directory: PathBuf, narrator: &Narrator, nodes: [Node; 2], bitcoind: Bitcoind) {
    let cli = cli_executable().unwrap_or_else(|_| "outrigger-cli".into());
    narrator.result("The processes go on. Talk to them:");
    for node in &nodes {
        let data = node.sidecar.directory().display();
        narrator.would_type(&format!("{} --data-dir {data} --network regtest node.info", cli.display()));
    }
    narrator.result("bitcoind:");
    let data = directory.join("bitcoind");
    narrator.would_type(&format!(
        "bitcoin-cli -regtest -datadir={} -rpcport={} getblockchaininfo",
        data.display(),
        bitcoind.rpc_port()
    ));
    narrator.result("Stop everything and remove its files:");
    let pids: Vec<String> =
        nodes.iter().filter_map(|node| node.sidecar.pid()).chain(bitcoind.pid()).map(|pid| pid.to_string()).collect();
    narrator.would_type(&format!("kill {}; sleep 3; rm -r {}", pids.join(" "), directory.display()));
    // Dropping a child would end it.
    std::mem::forget((nodes, bitcoind));
}
