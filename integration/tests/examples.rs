//! The scripts of `contrib/examples`, run as their first lines say.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use outrigger_integration::sidecar::{LIMIT, cli_executable};
use outrigger_integration::{Done, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{
    ChannelForceClose, ChannelState, InvoiceCreate, PaymentInfo, PaymentSend, PaymentState, PaymentWait, Scope,
    TokenCreate, WalletSend,
};
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
    for variable in ["NETWORK", "URL", "TOKEN_FILE", "CA"] {
        command.env_remove(format!("OUTRIGGER_{variable}"));
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1").args(words).stdin(Stdio::null());
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

/// Events wait for a required backup, and so does the one that would tell of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_tells_of_a_required_backup_that_events_wait_for() -> Done<()> {
    on_regtest(async |regtest| {
        let disk = regtest.directory("disk")?;
        let path = disk.join("mirror.redb").display().to_string();
        let backup = format!(
            "[[backup]]\nname = \"second\"\nkind = \"mirror\"\nrequirement = \"required\"\npath = \"{path}\"\n"
        );
        std::fs::write(regtest.directory("alice")?.join("outrigger.toml"), backup)?;
        let (alice, bob) = regtest.pair().await?;
        let channel_id = regtest.channel(&alice, &bob, 1_000_000, 0).await?.channel_id;
        let directory = regtest.directory("alert")?;
        let (note, notes) = notebook(&directory)?;
        let state = directory.join("state").display().to_string();
        let alert = ["--once", &state, &note];
        let until_told = async |word: &str| {
            until(LIMIT, word, async || {
                said(&alice, "channel_alert.sh", &alert).await?;
                Ok(Some(taken(&notes)).filter(|told| !told.is_empty()))
            })
            .await
        };
        let ready = until_told("channel_ready").await?;
        assert!(ready.len() == 1 && ready[0].starts_with(&format!("channel_ready {channel_id}")), "{ready:?}");

        let away = regtest.directory("away")?.join("disk");
        std::fs::rename(&disk, &away)?;
        // It goes out once the mirror has it.
        alice.connect(&bob).await?;
        let invoice = bob.invoice(1_000_000, "cake").await?;
        let order = PaymentSend { invoice: Some(invoice), ..PaymentSend::default() };
        let payment_id = alice.call(order).await?.payment_id;
        assert_eq!(until_told("the backup").await?, ["events wait for the backup second: see backup.status"]);
        std::fs::rename(&away, &disk)?;
        let wait = PaymentWait { payment_id, timeout_secs: Some(60) };
        assert_eq!(alice.call(wait).await?.state, PaymentState::Succeeded);
        let told = until_told("its end").await?;
        assert_eq!(told[0], "events wait for no backup any more");
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
        assert_eq!(lines.len(), 6, "{first}");
        for (line, kind) in lines[1..4].iter().zip(["wallet_received", "channel_pending", "wallet_confirmed"]) {
            assert_eq!(line.split(',').nth(2), Some(kind), "{first}");
        }
        let paid_line = format!("payment_succeeded,,-300000000,0,{},{}", hashes[0], bob.node_id().await?);
        assert!(lines[4].ends_with(&paid_line), "{first}");
        assert!(lines[5].ends_with(&format!("invoice_paid,,20000000,,{},\"'=1+1, sum\"", hashes[1])), "{first}");

        // An interruption cut the last line short.
        std::fs::write(&books, &first[..first.len() - 9])?;
        said(&alice, "accounting_export.py", &export).await?;
        assert_eq!(std::fs::read_to_string(&books)?, first);
        said(&alice, "accounting_export.py", &export).await?;
        assert_eq!(std::fs::read_to_string(&books)?, first, "nothing is written twice");
        let old = regtest.directory("books")?.join("old.csv");
        std::fs::write(&old, "seq,time,kind,in_msat\n7,now,invoice_paid,1\n")?;
        let refused = output(&alice, "accounting_export.py", &[old.to_str().ok_or("a path that is no text")?]).await?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8(refused.stderr)?.contains("an older release began it"));
        books_that_cannot_go_on(&alice, &regtest.directory("books")?, &first).await?;

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

/// The books of another database, and a number that says where new books begin.
async fn books_that_cannot_go_on(node: &Sidecar, directory: &Path, first: &str) -> Done<()> {
    let head = first.lines().next().ok_or("no head")?;
    let other = directory.join("other.csv");
    let foreign = format!("{head}\n1000000,now,invoice_paid,,1,,,\n");
    std::fs::write(&other, &foreign)?;
    let other_path = other.to_str().ok_or("a path that is no text")?;
    let fresh = directory.join("fresh.csv");
    let fresh_path = fresh.to_str().ok_or("a path that is no text")?;
    let after = |line: usize| first.lines().nth(line).and_then(|line| line.split(',').next()).ok_or("no number");
    for (words, told) in [
        (&[other_path][..], "has no event 1000000 yet"),
        (&[other_path, "1"], "says itself where to go on"),
        (&[fresh_path, "-1"], "accounting_export.py new_books.csv"),
        (&[fresh_path, "1000000"], "has no event 1000000 yet"),
    ] {
        let refused = output(node, "accounting_export.py", words).await?;
        let complaints = String::from_utf8(refused.stderr)?;
        assert_eq!(refused.status.code(), Some(1), "{words:?}: {complaints}");
        assert!(complaints.contains(told), "{words:?}: {complaints}");
    }
    assert_eq!((std::fs::read_to_string(&other)?, fresh.exists()), (foreign, false), "nothing is written");
    said(node, "accounting_export.py", &[fresh_path, after(4)?]).await?;
    let rest: Vec<&str> = first.lines().skip(5).collect();
    assert_eq!(std::fs::read_to_string(&fresh)?.lines().skip(1).collect::<Vec<_>>(), rest);
    Ok(())
}

/// What names a daemon and a token to a script.
fn named<'a>(url: &'a str, file: &'a str) -> [(&'static str, &'a str); 2] {
    [("OUTRIGGER_URL", url), ("OUTRIGGER_TOKEN_FILE", file)]
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_show_a_token_of_few_scopes_to_a_daemon_that_is_named_by_its_url() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let address = std::fs::read_to_string(network_directory(bob.directory(), "regtest").join(ADDRESS_FILE))?;
        let url = format!("http://{}", address.trim());
        let directory = regtest.directory("tokens")?;
        let token = async |name: &str, scopes: &[Scope]| -> Done<String> {
            let order = TokenCreate { name: name.to_owned(), scopes: scopes.to_vec(), ..TokenCreate::default() };
            let path = directory.join(name);
            std::fs::write(&path, bob.call(order).await?.token)?;
            Ok(path.display().to_string())
        };
        let shop = token("shop", &[Scope::Invoice, Scope::Read]).await?;
        let screen = token("screen", &[Scope::Read]).await?;
        // No daemon is where the script would look for one on this machine.
        let nowhere = regtest.directory("nowhere")?;
        let run = async |name: &str, words: &[&str], variables: &[(&str, &str)]| -> Done<Output> {
            let mut command = script(&bob, name, words)?;
            command.env("OUTRIGGER_DATA_DIR", &nowhere).envs(variables.iter().copied());
            Ok(tokio::time::timeout(LIMIT, command.output()).await??)
        };
        let done = async |name: &str, words: &[&str], file: &str| -> Done<String> {
            let output = run(name, words, &named(&url, file)).await?;
            assert!(output.status.success(), "{name} {words:?}: {output:?}");
            Ok(String::from_utf8(output.stdout)?)
        };

        let invoice = done("shop.py", &["sell", "1001", "5000", "coffee"], &shop).await?;
        paid(&alice, &invoice).await?;
        let (note, notes) = notebook(&directory)?;
        let state = directory.join("state").display().to_string();
        done("shop.py", &["deliver", &state, "--once", &note], &shop).await?;
        assert_eq!(taken(&notes), ["1001 5000"]);
        let sheet = done("balance_sheet.py", &[], &screen).await?;
        assert!(sheet.lines().any(|line| line.starts_with("sum,channel,")), "{sheet}");
        let books = directory.join("books.csv").display().to_string();
        done("accounting_export.py", &[&books], &screen).await?;
        assert!(std::fs::read_to_string(&books)?.contains(",invoice_paid,"));
        done("channel_alert.sh", &["--once", &directory.join("alert").display().to_string(), &note], &screen).await?;
        assert!(taken(&notes).iter().any(|line| line.starts_with("channel_ready ")));
        let expired = run("shop.sh", &["order 2", "5000", "tea", "1"], &named(&url, &shop)).await?;
        assert_eq!(expired.status.code(), Some(1), "{expired:?}");
        assert_eq!(String::from_utf8(expired.stderr)?, "expired: order 2\n");

        let sell = ["sell", "1002", "5000", "tea"];
        for (variables, words) in [
            (named(&url, &screen).to_vec(), "auth_scope_missing"),
            (vec![("OUTRIGGER_URL", url.as_str())], "OUTRIGGER_TOKEN_FILE"),
            (
                vec![("OUTRIGGER_URL", "http://192.0.2.1:9737"), ("OUTRIGGER_TOKEN_FILE", &shop)],
                "is not sent unencrypted",
            ),
            (
                vec![("OUTRIGGER_URL", "http://localhost.example"), ("OUTRIGGER_TOKEN_FILE", &shop)],
                "is not sent unencrypted",
            ),
            // Without a URL a token says nothing, as with outrigger-cli.
            (vec![("OUTRIGGER_TOKEN_FILE", shop.as_str())], "rpc_address"),
        ] {
            let refused = run("shop.py", &sell, &variables).await?;
            let told = String::from_utf8(refused.stderr)?;
            assert_eq!(refused.status.code(), Some(1), "{variables:?}: {told}");
            assert!(told.contains(words), "{variables:?}: {told}");
        }
        Ok(())
    })
    .await
}

/// What wallet and channels hold by the balance sheet, and by the books as they are after another export, in millisatoshi.
async fn sums(node: &Sidecar, books: &Path) -> Done<[[i64; 2]; 2]> {
    said(node, "accounting_export.py", &[books.to_str().ok_or("a path that is no text")?]).await?;
    let (sheet, books) = (said(node, "balance_sheet.py", &[]).await?, std::fs::read_to_string(books)?);
    let of_sheet =
        |account: &str| rows(&sheet).iter().filter(|row| row[0] == account).map(|row| row[3].parse::<i64>()).sum();
    let of_books = |column: usize| {
        let cells = rows(&books).into_iter().map(|row| row[column]).filter(|cell| !cell.is_empty());
        cells.map(str::parse::<i64>).sum()
    };
    let sums: [Result<i64, std::num::ParseIntError>; 4] =
        [of_sheet("wallet"), of_sheet("channel"), of_books(3), of_books(4)];
    let [wallet, channels, wallet_books, channel_books] = sums;
    Ok([[wallet?, channels?], [wallet_books?, channel_books?]])
}

/// The books sum to the balance sheet, once the node has heard of everything.
async fn assert_books(node: &Sidecar, books: &Path, what: &str) -> Done<[i64; 2]> {
    let mut last = None;
    let balanced = until(LIMIT, "the books to be the balance sheet", async || {
        let [sheet, books] = sums(node, books).await?;
        last = Some((sheet, books));
        Ok((sheet == books).then_some(sheet))
    })
    .await;
    balanced.map_err(|fault| format!("{what}: {fault}: sheet and books say {last:?}").into())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_sum_to_the_balance_sheet_whatever_moves_money() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let carol = regtest.sidecar("carol").await?;
        carol.fund(&regtest.bitcoind).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        carol.connect(&alice).await?;
        let directory = regtest.directory("books")?;
        let books = ["alice", "bob", "carol"].map(|name| directory.join(format!("{name}.csv")));
        let nodes = || [&alice, &bob, &carol].into_iter().zip(&books);
        let balanced = async |what: &str| -> Done<Vec<[i64; 2]>> {
            let mut held = Vec::new();
            for (node, books) in nodes() {
                held.push(assert_books(node, books, what).await?);
            }
            Ok(held)
        };
        let deposited = balanced("a deposit").await?;
        assert!(deposited[0][0] > 0 && deposited[1] == [0, 0] && deposited[0][1] == 0, "{deposited:?}");

        let channel_id = regtest.channel(&alice, &bob, 1_000_000, 123_456_789).await?.channel_id;
        regtest.channel(&carol, &alice, 900_000, 50_000_001).await?;
        let open = balanced("two channels, with a push each").await?;
        assert_eq!(open[1], [0, 123_456_789]);
        assert_eq!(open[0][1], 1_000_000_000 - 123_456_789 + 50_000_001);

        paid(&alice, &bob.invoice(30_000_111, "there").await?).await?;
        paid(&bob, &alice.invoice(7_000_001, "and back").await?).await?;
        let relayed = paid(&carol, &bob.invoice(11_000_007, "through alice").await?).await?;
        assert!(relayed.fee_msat > Some(0), "{relayed:?}");
        for node in [&alice, &bob] {
            node.until_idle(&channel_id).await?;
        }
        let after = balanced("payments in both directions and a forward").await?;
        let bob_msat = 123_456_789 + 30_000_111 - 7_000_001 + 11_000_007;
        assert_eq!(after[1], [0, bob_msat]);
        assert!(std::fs::read_to_string(&books[0])?.contains(",forwards,"), "what was earned is a line");

        regtest.confirm(&alice.close(&channel_id).await?).await?;
        for node in [&alice, &bob] {
            node.until_channel_is(&channel_id, ChannelState::Closed).await?;
        }
        let closed = balanced("a close").await?;
        assert_eq!(closed[1], [bob_msat / 1000 * 1000, 0], "Bob pays no fee, and loses what is no whole satoshi");
        let address = bob.new_address().await?;
        let send = WalletSend { address, amount_sat: 40_000, idempotency_key: "rent".into(), ..WalletSend::default() };
        let fee_sat = regtest.confirm(&alice.call(send).await?.txid).await?;
        let sent = balanced("coins that are sent").await?;
        let fee_msat = i64::try_from(fee_sat)? * 1000;
        assert_eq!(sent[0][0], closed[0][0] - 40_000_000 - fee_msat);
        assert_eq!(sent[1][0], closed[1][0] + 40_000_000);
        Ok(())
    })
    .await
}

/// Of a channel that one side closes alone, and of a block that is taken back with the commitment in it, the books of both close.
#[tokio::test(flavor = "multi_thread")]
async fn the_books_sum_to_the_balance_sheet_after_a_close_of_one_side_and_a_reorganisation() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let channel_id = regtest.channel(&alice, &bob, 1_000_000, 300_000_001).await?.channel_id;
        paid(&bob, &alice.invoice(7_000_000, "before the end").await?).await?;
        let directory = regtest.directory("books")?;
        let books = ["alice", "bob"].map(|name| directory.join(format!("{name}.csv")));
        let nodes = [&alice, &bob];
        for node in nodes {
            node.until_idle(&channel_id).await?;
        }
        let mut open = Vec::new();
        for (node, books) in nodes.into_iter().zip(&books) {
            open.push(assert_books(node, books, "a channel").await?);
        }
        assert_eq!(open[1], [0, 293_000_001]);

        let force = ChannelForceClose { channel_id: channel_id.clone() };
        let txid = alice.call(force).await?.closing_txid.ok_or("a transaction")?;
        // The peer that hears of it may publish its own, and one of the two gets in.
        until(LIMIT, "a commitment to be published", async || Ok(regtest.bitcoind.mempool().await?.first().copied()))
            .await?;
        let mine = async |blocks: u32| -> Done<()> {
            regtest.bitcoind.mine_to_nobody(blocks).await?;
            for node in nodes {
                node.until_synced_with(&regtest.bitcoind).await?;
            }
            Ok(())
        };
        mine(1).await?;
        for (node, books) in nodes.into_iter().zip(&books) {
            said(node, "accounting_export.py", &[books.to_str().ok_or("a path that is no text")?]).await?;
        }
        let height = regtest.bitcoind.height().await?;
        regtest.reorganise(height).await?;
        mine(1).await?;
        until(LIMIT, "both sides to have their money", async || {
            mine(8).await?;
            let mut states = Vec::new();
            for node in nodes {
                states.push(node.channel(&channel_id).await?.state);
            }
            Ok(states.iter().all(|state| *state == ChannelState::Closed).then_some(()))
        })
        .await?;
        let mut closed = Vec::new();
        for (node, books) in nodes.into_iter().zip(&books) {
            closed.push(assert_books(node, books, &format!("a close of one side, perhaps by {txid}")).await?);
        }
        assert!(closed.iter().all(|held| held[1] == 0), "{closed:?}");
        assert!(closed[1][0] > 280_000_000 && closed[0][0] > open[0][0] + 690_000_000, "{closed:?}");
        Ok(())
    })
    .await
}
