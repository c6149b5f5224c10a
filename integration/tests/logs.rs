//! What the daemon logs over a whole life: nothing that is secret, in files of its owner's alone, a line an event.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use outrigger_integration::{Bare, Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::{COOKIE_FILE, network_directory};
use outrigger_rpc_schema::{
    CallError, InvoiceCreate, LogLevel, LogLevels, NodeStop, PaymentState, Phase, Scope, TokenCreate,
};
use serde_json::Value;

/// Every file of the log in a directory, with its name.
fn files(directory: &Path) -> Done<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        assert_eq!(entry.metadata()?.permissions().mode() & 0o7777, 0o600, "{entry:?}");
        files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path())?));
    }
    files.sort();
    Ok(files)
}

/// What nobody may learn from a log.
fn secrets(node: &Sidecar) -> Done<Vec<String>> {
    let place = network_directory(node.directory(), "regtest");
    let words = std::fs::read_to_string(place.join("seed"))?;
    let words: Vec<_> = words.split_whitespace().collect();
    // Three of them that follow each other do not come about by chance.
    let mut secrets: Vec<_> = words.windows(3).map(|three| three.join(" ")).collect();
    let cookie = std::fs::read_to_string(place.join(COOKIE_FILE))?;
    secrets.push(cookie.split_once(':').ok_or("a cookie")?.1.trim().to_owned());
    Ok(secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_5_nothing_secret_is_logged_at_any_level() -> Done<()> {
    on_regtest(async |regtest| {
        let logs = ["alice", "bob"].map(|name| regtest.directory(&format!("logs of {name}")));
        let [hers, his] = logs;
        let (hers, his) = (hers?, his?);
        let settings = |directory: &Path, format: &str| {
            let file = directory.join("log").display().to_string();
            ["--log-level", "trace", "--log-format", format, "--log-max-bytes", "1000000000", "--log-file", &file]
                .map(str::to_owned)
        };
        let (for_alice, for_bob) = (settings(&hers, "text"), settings(&his, "json"));
        let mut alice = regtest.sidecar_with("alice", &for_alice.each_ref().map(String::as_str)).await?;
        let bob = regtest.sidecar_with("bob", &for_bob.each_ref().map(String::as_str)).await?;
        let mut secret = [secrets(&alice)?, secrets(&bob)?].concat();
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&bob).await?;
        regtest.channel(&alice, &bob, 1_000_000, 100_000_000).await?;
        let token = TokenCreate { name: "shop".into(), scopes: vec![Scope::Read], ..TokenCreate::default() };
        secret.push(alice.call(token).await?.token);
        assert_eq!(alice.pay(&bob.invoice(1_000_000, "a thing").await?).await?.state, PaymentState::Succeeded);
        let unpaid = bob.call(InvoiceCreate {
            amount_msat: Some(2_000_000),
            description: "not paid yet".into(),
            ..InvoiceCreate::default()
        });
        let unpaid = unpaid.await?.invoice;
        let (_, password) = regtest.bitcoind.credentials()?;
        secret.push(password);
        // A start tells more than anything else.
        alice.stop().await?;
        alice.start_again().await?;
        secret.extend(secrets(&alice)?);
        regtest.bitcoind.restart().await?;
        secret.push(regtest.bitcoind.credentials()?.1);
        regtest.bitcoind.mine_to_nobody(1).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;

        let before = [files(&hers)?, files(&his)?].concat();
        bob.until_synced_with(&regtest.bitcoind).await?;
        let (bob_id, bob_address) = (bob.node_id().await?, bob.address());
        let paid = alice.reconnecting(&bob_id, &bob_address, async {
            until(outrigger_integration::sidecar::LIMIT, "the payment to be taken on", async || {
                Ok(alice.send(&unpaid).await.ok())
            })
            .await
        });
        let paid = alice.payment_end(&paid.await?).await?;
        secret.push(paid.preimage.ok_or("a preimage")?);
        assert_eq!(before.len(), 2);
        let said: Vec<_> = before.iter().flat_map(|(_, text)| text.lines()).collect();
        assert!(said.len() > 50, "there is something to look through");
        for secret in secret {
            let found = said.iter().find(|line| line.contains(&secret));
            assert_eq!(found, None, "a secret of {} letters is logged", secret.len());
        }
        // The same of what goes to the standard error.
        for node in [&alice, &bob] {
            assert_eq!(
                std::fs::read_to_string(node.directory().join("outriggerd.log"))?,
                "",
                "all of it is in the file"
            );
        }
        for line in before[1].1.lines() {
            let line: Value = serde_json::from_str(line)?;
            assert!(line["at"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_are_changed_while_the_node_runs_and_files_are_put_aside() -> Done<()> {
    on_regtest(async |regtest| {
        let directory = regtest.directory("logs")?;
        let file = directory.join("log").display().to_string();
        let settings =
            ["--log-file", &file, "--log-max-bytes", "10000", "--log-kept-files", "2", "--log-level", "error"];
        let node = regtest.sidecar_with("alice", &settings).await?;
        let level = |report: &outrigger_rpc_schema::LogLevelsReport, part: &str| {
            report.targets.iter().find(|target| target.target == part).map(|target| target.level)
        };
        let report = node.call(LogLevels::default()).await?;
        assert_eq!((report.level, level(&report, "chain")), (LogLevel::Error, Some(LogLevel::Error)));
        assert_eq!(files(&directory)?, [("log".to_owned(), String::new())]);

        let loud = |target: &str| LogLevels { level: Some(LogLevel::Trace), target: Some(target.to_owned()) };
        match node.call(loud("chian")).await {
            Err(CallError::Refused(refusal)) => {
                assert_eq!(refusal.message, "parameter target is no part of the daemon; did you mean chain?");
            }
            other => panic!("{other:?}"),
        }
        let report = node.call(loud("rpc")).await?;
        assert_eq!(
            (report.level, level(&report, "rpc"), level(&report, "net")),
            (LogLevel::Error, Some(LogLevel::Trace), Some(LogLevel::Error))
        );
        // Each call is told of now.
        let kept = until(outrigger_integration::sidecar::LIMIT, "three files of log", async || {
            for _ in 0..50 {
                node.call(LogLevels::default()).await?;
            }
            // Lines are written behind the calls: a file may be put aside while this reads.
            let names = |kept: &Vec<(String, String)>| kept.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            Ok(files(&directory).ok().filter(|kept| names(kept) == ["log", "log.1", "log.2"]))
        })
        .await?;
        for (name, text) in kept {
            assert!(!text.is_empty() || name == "log");
            assert!(text.len() <= 10_000 && text.lines().all(|line| line.contains("outrigger_sidecar::rpc")), "{name}");
        }
        Ok(())
    })
    .await
}

/// Without waiting (Linux).
const O_NONBLOCK: i32 = 0o4000;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nothing_up() -> Done<()> {
    let bare = Bare::new()?;
    let pipe = bare.home().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
    // Open in both directions: a reader is there, and does not read.
    let mut full = File::options().read(true).write(true).custom_flags(O_NONBLOCK).open(&pipe)?;
    for chunk in [&[b'x'; 4096][..], b"x"] {
        while full.write(chunk).is_ok() {}
    }
    assert_eq!(full.write(b"x").err().map(|fault| fault.kind()), Some(ErrorKind::WouldBlock));

    let mut running = bare.start_into(File::options().write(true).open(&pipe)?, &["--log-level", "trace"])?;
    running.status(|status| status.phase == Phase::WaitingForBitcoind).await?;
    running.client().await?.call(NodeStop {}).await?;
    assert_eq!(running.ended().await?.code(), Some(0));
    let mut some = [0; 1 << 20];
    let read = full.read(&mut some)?;
    assert!(some[..read].iter().all(|byte| *byte == b'x'), "nothing of it was written");
    Ok(())
}
