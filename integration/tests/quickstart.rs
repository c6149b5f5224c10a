//! The quickstart as a newcomer runs it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::FromHex;
use outrigger_integration::regtest::REWARD_SAT;
use outrigger_integration::{Done, until};
use serde_json::Value;
use tokio::process::Command;

/// Time for a whole run, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn it_prints_one_object_and_leaves_nothing_running() -> Done<()> {
    let scratch = tempfile::tempdir()?;
    let output = tokio::time::timeout(LIMIT, quickstart(scratch.path(), &["--json"]).output()).await??;
    let said = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{said}");

    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(keys(&report), keys_of("bitcoind_version nodes channel payments close balances elapsed_secs"));
    assert!(report["bitcoind_version"].as_str().is_some_and(|version| version.contains("Satoshi")), "{report}");
    assert!(report["elapsed_secs"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
    check_nodes(&report["nodes"]);
    let channel = &report["channel"];
    assert_eq!(keys(channel), keys_of("channel_id funding_txid capacity_sat"));
    assert!(is_hex(&channel["channel_id"], 32) && is_hex(&channel["funding_txid"], 32), "{channel}");
    assert_eq!(channel["capacity_sat"], 1_000_000);
    check_payments(&report["payments"])?;
    let close = &report["close"];
    assert_eq!(keys(close), keys_of("txid confirmed"));
    assert!(is_hex(&close["txid"], 32) && close["confirmed"] == true, "{close}");
    check_balances(&report["balances"]);

    // Each step says what an operator would type.
    for call in [
        "wallet.new_address",
        "peer.connect",
        "channel.open node_id",
        "channel.open_wait",
        "invoice.create",
        "payment.send",
        "channel.close",
    ] {
        assert!(said.lines().any(|line| line.trim_start().starts_with('$') && line.contains(call)), "{call}: {said}");
    }
    assert_nothing_left(scratch.path())
}

#[tokio::test]
async fn an_interruption_leaves_nothing_running() -> Done<()> {
    let scratch = tempfile::tempdir()?;
    let mut run = quickstart(scratch.path(), &["--json"]).spawn()?;
    let pid = run.id().ok_or("the quickstart has ended")?;
    until(LIMIT, "bitcoind and both daemons to run", async || {
        if let Some(status) = run.try_wait()? {
            return Err(format!("the quickstart ended with {status} before it was interrupted").into());
        }
        let programs = processes_under(scratch.path())?;
        let daemons = programs.iter().filter(|program| program.ends_with("outriggerd")).count();
        let bitcoinds = programs.iter().filter(|program| program.ends_with("bitcoind")).count();
        Ok((daemons == 2 && bitcoinds == 1).then_some(()))
    })
    .await?;
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().await?.success());
    let output = tokio::time::timeout(LIMIT, run.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_nothing_left(scratch.path())
}

fn quickstart(scratch: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.args(arguments).env("TMPDIR", scratch).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn check_nodes(nodes: &Value) {
    let nodes = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    let aliases: Vec<_> = nodes.iter().map(|node| node["alias"].clone()).collect();
    assert_eq!(aliases, ["alice", "bob"]);
    for node in nodes {
        assert_eq!(keys(node), keys_of("node_id alias"));
        assert!(is_hex(&node["node_id"], 33), "{node}");
    }
}

fn check_payments(payments: &Value) -> Done<()> {
    let payments = payments.as_array().map(Vec::as_slice).unwrap_or_default();
    let ways: Vec<_> = payments.iter().map(|payment| (payment["from"].clone(), payment["to"].clone())).collect();
    assert_eq!(ways, [("alice".into(), "bob".into()), ("bob".into(), "alice".into())]);
    for payment in payments {
        assert_eq!(keys(payment), keys_of("from to amount_msat state preimage wall_ms"));
        assert_eq!(payment["state"], "succeeded");
        assert!(payment["amount_msat"].as_u64() > Some(0) && payment["wall_ms"].is_u64(), "{payment}");
        let preimage = Vec::from_hex(payment["preimage"].as_str().unwrap_or_default())?;
        assert_eq!(preimage.len(), sha256::Hash::LEN, "{payment}");
    }
    Ok(())
}

/// All coins are on chain again: one block reward but the fees of two transactions.
fn check_balances(balances: &Value) {
    let balances = balances.as_array().map(Vec::as_slice).unwrap_or_default();
    let aliases: Vec<_> = balances.iter().map(|balance| balance["alias"].clone()).collect();
    assert_eq!(aliases, ["alice", "bob"]);
    let sats: Vec<_> = balances.iter().filter_map(|balance| balance["confirmed_sat"].as_u64()).collect();
    // Bob was paid 50,000 sat and paid 20,000.
    assert_eq!(sats.get(1), Some(&30_000));
    let fees_sat = REWARD_SAT - sats.iter().sum::<u64>();
    assert!((1..10_000).contains(&fees_sat), "{fees_sat} sat of fees");
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

fn keys_of(names: &str) -> BTreeSet<String> {
    names.split(' ').map(str::to_owned).collect()
}

fn is_hex(value: &Value, bytes: usize) -> bool {
    value.as_str().is_some_and(|text| Vec::from_hex(text).is_ok_and(|decoded| decoded.len() == bytes))
}

fn assert_nothing_left(scratch: &Path) -> Done<()> {
    assert_eq!(processes_under(scratch)?, Vec::<PathBuf>::new());
    let left: Vec<_> = std::fs::read_dir(scratch)?.collect::<Result<_, _>>()?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// The programs of all processes that name this directory in their arguments.
fn processes_under(directory: &Path) -> Done<Vec<PathBuf>> {
    let directory = directory.display().to_string();
    let mut programs = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        // A process may end while it is looked at.
        let Ok(arguments) = std::fs::read(entry?.path().join("cmdline")) else { continue };
        let arguments = String::from_utf8_lossy(&arguments);
        if arguments.contains(&directory) {
            programs.extend(arguments.split('\0').next().map(PathBuf::from));
        }
    }
    Ok(programs)
}
