//! The scripts of `contrib/examples`, run as their first lines say.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use outrigger_integration::sidecar::{LIMIT, cli_executable};
use outrigger_integration::{Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::{ChannelState, InvoiceCreate, PaymentInfo, PaymentState};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// A script, as a user of this daemon runs it.
fn script(node: &Sidecar, name: &str, words: &[&str]) -> Done<Command> {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/examples").join(name));
    let cli = cli_executable()?;
    let programs = cli.parent().ok_or("a program without a directory")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{programs}:{path}")).env("OUTRIGGER_DATA_DIR", node.directory());
    // Nothing is left beside the scripts.
    command.env("PYTHONDONTWRITEBYTECODE", "1").env_remove("OUTRIGGER_NETWORK").args(words).stdin(Stdio::null());
    command.kill_on_drop(true);
    Ok(command)
}

async fn output(node: &Sidecar, name: &str, words: &[&str]) -> Done<Output> {
    Ok(tokio::time::timeout(LIMIT, script(node, name, words)?.output()).await??)
}

/// What a script says that does what it should.
async fn said(node: &Sidecar, name: &str, words: &[&str]) -> Done<String> {
    let output = output(node, name, words).await?;
    assert!(output.status.success(), "{name} {words:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn paid(from: &Sidecar, invoice: &str) -> Done<PaymentInfo> {
    let payment = from.pay(invoice.trim()).await?;
    assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
    Ok(payment)
}

/// A program that writes down what it was given, and the file that it writes to.
fn notebook(directory: &Path) -> Done<(String, PathBuf)> {
    use std::os::unix::fs::PermissionsExt;
    let (program, notes) = (directory.join("note"), directory.join("notes"));
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>'{}'\n", notes.display()))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700))?;
    Ok((program.display().to_string(), notes))
}

/// The lines that were written down since the last look.
fn taken(notes: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(notes).unwrap_or_default();
    // It may not have been made yet.
    drop(std::fs::remove_file(notes));
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_in_shell_gives_an_invoice_and_waits_for_its_payment() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let order = ["order 1", "5000", "a cup of coffee"];
        let mut shop = script(&bob, "shop.sh", &order)?.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(shop.stdout.take().ok_or("no pipe")?).lines();
        let invoice = tokio::time::timeout(LIMIT, lines.next_line()).await??.ok_or("no invoice")?;
        assert!(shop.try_wait()?.is_none(), "it waits");
        paid(&alice, &invoice).await?;
        assert_eq!(tokio::time::timeout(LIMIT, lines.next_line()).await??.as_deref(), Some("paid: order 1, 5000 msat"));
        assert_eq!(tokio::time::timeout(LIMIT, shop.wait()).await??.code(), Some(0));

        let again = said(&bob, "shop.sh", &order).await?;
        assert_eq!(again, format!("{invoice}\npaid: order 1, 5000 msat\n"));
        let other = output(&bob, "shop.sh", &["order 1", "6000", "a cup of coffee"]).await?;
        assert_eq!(other.status.code(), Some(2));
        assert!(String::from_utf8(other.stderr)?.contains("idempotency_conflict"));
        let expired = output(&bob, "shop.sh", &["order 2", "5000", "tea", "1"]).await?;
        assert_eq!(expired.status.code(), Some(1));
        assert_eq!(String::from_utf8(expired.stderr)?, "expired: order 2\n");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_in_python_delivers_each_order_that_is_paid() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let directory = regtest.directory("shop")?;
        let (note, notes) = notebook(&directory)?;
        let state = directory.join("state").display().to_string();
        let deliver = ["deliver", &state, "--once", &note];

        said(&bob, "shop.py", &deliver).await?;
        let invoices = [
            said(&bob, "shop.py", &["sell", "1001", "5000", "coffee"]).await?,
            said(&bob, "shop.py", &["sell", "1002", "7000", "tea"]).await?,
        ];
        assert_eq!(said(&bob, "shop.py", &["sell", "1001", "5000", "coffee"]).await?, invoices[0]);
        let refused = output(&bob, "shop.py", &["sell", "1001", "1", "coffee"]).await?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8(refused.stderr)?.contains("idempotency_conflict"));
        // Paid, and no order of this shop.
        paid(&alice, &bob.invoice(1000, "another").await?).await?;
        for invoice in &invoices {
            paid(&alice, invoice).await?;
        }
        said(&bob, "shop.py", &deliver).await?;
        assert_eq!(taken(&notes), ["1001 5000", "1002 7000"]);
        said(&bob, "shop.py", &deliver).await?;
        assert_eq!(taken(&notes), Vec::<String>::new(), "nothing is delivered twice");

        paid(&alice, &said(&bob, "shop.py", &["sell", "1003", "9000", "cake"]).await?).await?;
        let failed = output(&bob, "shop.py", &["deliver", &state, "--once", "false"]).await?;
        assert_eq!(failed.status.code(), Some(1));
        said(&bob, "shop.py", &deliver).await?;
        assert_eq!(taken(&notes), ["1003 9000"], "what failed is tried again");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_tells_each_change_of_a_channel_once_and_a_daemon_that_is_away() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, bob) = regtest.pair().await?;
        let channel_id = regtest.channel(&alice, &bob, 1_000_000, 0).await?.channel_id;
        let directory = regtest.directory("alert")?;
        let (note, notes) = notebook(&directory)?;
        let state = directory.join("state").display().to_string();
        let alert = ["--once", &state, &note];

        said(&alice, "channel_alert.sh", &alert).await?;
        let told = taken(&notes);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("channel_ready {channel_id}")), "{told:?}");
        said(&alice, "channel_alert.sh", &alert).await?;
        assert_eq!(taken(&notes), Vec::<String>::new());

        alice.stop().await?;
        for times in [1, 0] {
            assert_eq!(output(&alice, "channel_alert.sh", &alert).await?.status.code(), Some(1));
            let told = taken(&notes);
            assert_eq!(told.len(), times, "{told:?}");
            assert!(told.iter().all(|line| line.starts_with("no events: ")), "{told:?}");
        }
        alice.start_again().await?;
        alice.connect(&bob).await?;
        alice.until_channel_is(&channel_id, ChannelState::Normal).await?;
        regtest.confirm(&alice.close(&channel_id).await?).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        alice.until_channel_is(&channel_id, ChannelState::Closed).await?;
        said(&alice, "channel_alert.sh", &alert).await?;
        let told = taken(&notes);
        let first: Vec<&str> = told.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(first, ["events", "channel_closing", "channel_closed"], "{told:?}");
        Ok(())
    })
    .await
}

/// The cells of a sheet, its head taken off.
fn rows(sheet: &str) -> Vec<Vec<&str>> {
    sheet.lines().skip(1).map(|line| line.split(',').collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_sheet_and_the_books_tell_what_the_node_has() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let channel_id = regtest.channel(&alice, &bob, 1_000_000, 0).await?.channel_id;
        let payment = paid(&alice, &bob.invoice(300_000_000, "a formula").await?).await?;
        let order =
            InvoiceCreate { amount_msat: Some(20_000_000), description: "=1+1,\nsum".to_owned(), ..Default::default() };
        let invoice = alice.call(order).await?;
        paid(&bob, &invoice.invoice).await?;
        alice.until_idle(&channel_id).await?;

        let (balance, channel) = (alice.balance().await?, alice.channel(&channel_id).await?);
        let sheet = said(&alice, "balance_sheet.py", &[]).await?;
        let amount = |account: &str, name: &str| {
            let row = rows(&sheet).into_iter().find(|row| row[0] == account && row[1] == name);
            row.and_then(|row| row[3].parse::<u64>().ok())
        };
        assert_eq!(amount("wallet", "confirmed"), Some(balance.confirmed_sat * 1000), "{sheet}");
        assert_eq!(amount("channel", &channel_id), Some(channel.local_msat), "{sheet}");
        assert_eq!(amount("sum", "channel"), Some(channel.local_msat), "{sheet}");
        assert_eq!(rows(&sheet).iter().filter(|row| row[0] == "channel").count(), 1, "{sheet}");

        let books = regtest.directory("books")?.join("books.csv");
        let export = [books.to_str().ok_or("a path that is no text")?];
        said(&alice, "accounting_export.py", &export).await?;
        let first = std::fs::read_to_string(&books)?;
        let hashes = [&payment.payment_hash, &invoice.payment_hash];
        let lines: Vec<&str> = first.lines().collect();
        assert_eq!(lines.len(), 3, "{first}");
        let paid_line = format!("payment_succeeded,,300000000,,0,{},{}", hashes[0], bob.node_id().await?);
        assert!(lines[1].ends_with(&paid_line), "{first}");
        assert!(lines[2].ends_with(&format!("invoice_paid,20000000,,,,{},\"'=1+1, sum\"", hashes[1])), "{first}");

        // An interruption cut the last line short.
        std::fs::write(&books, &first[..first.len() - 9])?;
        said(&alice, "accounting_export.py", &export).await?;
        assert_eq!(std::fs::read_to_string(&books)?, first);
        said(&alice, "accounting_export.py", &export).await?;
        assert_eq!(std::fs::read_to_string(&books)?, first, "nothing is written twice");

        regtest.confirm(&alice.close(&channel_id).await?).await?;
        until(LIMIT, "the channel to be closed in the books", async || {
            said(&alice, "accounting_export.py", &export).await?;
            let now = std::fs::read_to_string(&books)?;
            assert!(now.starts_with(&first), "{now}");
            Ok(now[first.len()..].contains(",channel_closed,").then_some(()))
        })
        .await
    })
    .await
}
