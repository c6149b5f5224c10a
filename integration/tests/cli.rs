//! The command line as an operator and a script use it.

use std::path::Path;
use std::process::{Output, Stdio};

use outrigger_integration::regtest::REWARD_SAT;
use outrigger_integration::sidecar::{cli_executable, executable};
use outrigger_integration::{Done, Sidecar, on_regtest};
use serde_json::{Value, json};
use tokio::process::Command;

/// Exit codes, as `outrigger-cli --help` lists them.
const DONE: Option<i32> = Some(0);
const REFUSED: Option<i32> = Some(1);
const USAGE: Option<i32> = Some(2);
const UNREACHABLE: Option<i32> = Some(3);

#[tokio::test(flavor = "multi_thread")]
async fn results_are_readable_or_one_line_of_json() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let alice_id = alice.node_id().await?;

        let readable = said(&alice, &["node.info"]).await?;
        assert!(readable.contains(&alice_id) && readable.lines().count() > 5, "{readable}");
        assert!(serde_json::from_str::<Value>(&readable).is_err(), "{readable}");
        let info = json_of(&alice, &["node.info"]).await?;
        assert_eq!((&info["node_id"], &info["alias"]), (&json!(alice_id), &json!("alice")));

        let readable = said(&alice, &["wallet.balance"]).await?;
        assert!(readable.contains("5,000,000,000 sat"), "{readable}");
        assert_eq!(json_of(&alice, &["wallet.balance"]).await?["confirmed_sat"], REWARD_SAT);
        let peers = json_of(&alice, &["peer.list"]).await?;
        assert_eq!(peers["items"][0]["node_id"], bob.node_id().await?);

        let invoice = json_of(&bob, &["invoice.create", "amount_msat=1000", "description=a=b c"]).await?;
        let payment_hash = invoice["payment_hash"].as_str().ok_or("no payment hash")?.to_owned();
        let shown = json_of(&bob, &["invoice.get", &format!("payment_hash={payment_hash}")]).await?;
        assert_eq!((&shown["description"], &shown["state"]), (&json!("a=b c"), &json!("open")));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_tour_open_pay_and_close() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
        let address = json_of(&alice, &["wallet.new_address"]).await?;
        regtest.bitcoind.mine(1, address["address"].as_str().ok_or("no address")?).await?;
        regtest.bitcoind.mine_to_nobody(100).await?;
        tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
        let node_id = format!("node_id={}", bob.node_id().await?);
        said(&alice, &["peer.connect", &node_id, &format!("address={}", bob.address())]).await?;
        let open = ["channel.open", &node_id, "funding_sat=100000", "idempotency_key=first"];
        let begun = json_of(&alice, &open).await?;
        let op_id = begun["op_id"].as_str().ok_or("no op_id")?;
        let opened = json_of(&alice, &["channel.open_wait", &format!("op_id={op_id}")]).await?;
        let channel_id = opened["channel_id"].as_str().ok_or("the name is not final")?.to_owned();
        assert_eq!(json_of(&alice, &open).await?, opened, "the same call opens nothing more");
        regtest.confirm(opened["funding_txid"].as_str().ok_or("the transaction is not final")?).await?;
        for node in [&alice, &bob] {
            node.until_channel_is(&channel_id, outrigger_rpc_schema::ChannelState::Normal).await?;
        }

        let invoice = json_of(&bob, &["invoice.create", "amount_msat=7000000", "description=tour"]).await?;
        let invoice = format!("invoice={}", invoice["invoice"].as_str().ok_or("no invoice")?);
        let sent = json_of(&alice, &["payment.send", &invoice]).await?;
        let payment_id = format!("payment_id={}", sent["payment_id"].as_str().ok_or("no payment id")?);
        let paid = json_of(&alice, &["payment.wait", &payment_id, "timeout_secs=30"]).await?;
        assert_eq!((&paid["state"], &paid["amount_msat"]), (&json!("succeeded"), &json!(7_000_000)));
        alice.until_idle(&channel_id).await?;

        let readable = said(&alice, &["channel.list"]).await?;
        assert!(readable.contains(&channel_id) && readable.contains("7,000,000 msat"), "{readable}");
        let closing = json_of(&alice, &["channel.close", &format!("channel_id={channel_id}")]).await?;
        assert_eq!(closing["channel_id"], channel_id);
        regtest.confirm(&alice.closing_txid(&channel_id).await?).await?;
        let kinds = json_of(&bob, &["event.list", "kinds=channel_ready,invoice_paid"]).await?;
        let kinds: Vec<_> = kinds["items"].as_array().ok_or("no events")?.iter().map(|event| &event["kind"]).collect();
        assert_eq!(kinds, ["channel_ready", "invoice_paid"]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_who_is_to_blame() -> Done<()> {
    on_regtest(async |regtest| {
        let mut alice = regtest.sidecar("alice").await?;
        let unknown = format!("channel_id={}", "00".repeat(32));
        let refused = cli(alice.directory(), &["channel.get", &unknown]).await?;
        let told = String::from_utf8(refused.stderr)?;
        assert_eq!((refused.status.code(), refused.stdout.len()), (REFUSED, 0), "{told}");
        assert!(told.contains("channel_not_found") && told.contains("hint:"), "{told}");
        let refused = cli(alice.directory(), &["--json", "channel.get", &unknown]).await?;
        let fault: Value = serde_json::from_slice(&refused.stderr)?;
        assert_eq!((refused.status.code(), &fault["data"]["kind"]), (REFUSED, &json!("channel_not_found")));

        for (words, names) in [
            (&["no.such_method"][..], "no.such_method"),
            (&["channel.get"], "channel_id"),
            (&["channel.get", "chanel_id=00"], "did you mean channel_id?"),
            (&["invoice.create", "description=x", "amount_msat=-1"], "amount_msat"),
            (&["invoice.create", "00"], "name=value"),
            // The only parameter of a method needs no name.
            (&["channel.get", "00"], "channel_id"),
            (&["--no-such-flag", "node.info"], "--no-such-flag"),
            // Well formed for the command line, and not for the daemon.
            (&["channel.get", "channel_id=00"], "channel_id"),
        ] {
            let wrong = cli(alice.directory(), words).await?;
            let told = String::from_utf8(wrong.stderr)?;
            assert_eq!((wrong.status.code(), wrong.stdout.len()), (USAGE, 0), "{words:?}: {told}");
            assert!(told.contains(names), "{words:?}: {told}");
        }

        alice.stop().await?;
        let nobody = cli(alice.directory(), &["node.info"]).await?;
        assert_eq!((nobody.status.code(), nobody.stdout.len()), (UNREACHABLE, 0));
        let nowhere = cli(&regtest.directory("nobody")?, &["node.info"]).await?;
        assert_eq!((nowhere.status.code(), nowhere.stdout.len()), (UNREACHABLE, 0));
        assert!(String::from_utf8(nowhere.stderr)?.contains("outriggerd"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn help_needs_no_daemon() -> Done<()> {
    let empty = tempfile::tempdir()?;
    for words in [&["--help"][..], &["help"], &[]] {
        let help = cli(empty.path(), words).await?;
        let text = String::from_utf8(help.stdout)?;
        assert_eq!(help.status.code(), DONE, "{words:?}");
        for method in outrigger_rpc_schema::methods() {
            assert!(text.contains(method.name), "{} is not in: {text}", method.name);
        }
    }
    for method in outrigger_rpc_schema::methods() {
        let help = cli(empty.path(), &[method.name, "--help"]).await?;
        let text = String::from_utf8(help.stdout)?;
        assert_eq!(help.status.code(), DONE, "{}", method.name);
        assert!(method.parameters.iter().all(|parameter| text.contains(&parameter.name)), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn both_programs_print_a_manual_page_that_roff_takes() -> Done<()> {
    let pages = [
        (cli_executable()?, vec!["--data-dir", "channel.force_close", "feerate_sat_per_vb", "OUTRIGGER_NETWORK"]),
        (executable()?, vec!["--bitcoind-url", "--forwarding-fee-base-msat", "RESTORE", "--dry-run", "SIGABRT"]),
    ];
    for (program, words) in pages {
        let page = Command::new(&program).arg("man").output().await?;
        assert_eq!(page.status.code(), DONE, "{}", program.display());
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("page.1");
        std::fs::write(&file, page.stdout)?;
        let mut groff = Command::new("groff");
        let read = groff.args(["-man", "-Tascii", "-ww", "-rLL=100n", "-P-cbou"]).arg(&file).output().await;
        let read = match read {
            Ok(read) => read,
            Err(_) if !std::env::var("OUTRIGGER_SHELLS").unwrap_or_default().contains("groff") => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        let (text, warnings) = (String::from_utf8(read.stdout)?, String::from_utf8_lossy(&read.stderr).into_owned());
        assert!(read.status.success() && warnings.is_empty(), "{}: {warnings}", program.display());
        for word in words {
            assert!(text.contains(word), "{}: {word}: {text}", program.display());
        }
    }
    Ok(())
}

/// What the command line prints for people.
async fn said(node: &Sidecar, words: &[&str]) -> Done<String> {
    let output = cli(node.directory(), words).await?;
    assert_eq!(output.status.code(), DONE, "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What it prints for scripts: one line, one object.
async fn json_of(node: &Sidecar, words: &[&str]) -> Done<Value> {
    let text = said(node, &[words, &["--json"]].concat()).await?;
    assert_eq!(text.lines().count(), 1, "{text}");
    let result: Value = serde_json::from_str(&text)?;
    assert!(result.is_object(), "{text}");
    Ok(result)
}

async fn cli(data_dir: &Path, words: &[&str]) -> Done<Output> {
    let mut command = Command::new(cli_executable()?);
    command.arg("--data-dir").arg(data_dir).args(words).stdin(Stdio::null());
    command.env_remove("OUTRIGGER_DATA_DIR").env_remove("OUTRIGGER_NETWORK").env_remove("COLUMNS");
    Ok(command.output().await?)
}
