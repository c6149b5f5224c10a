//! The operator's page in a browser: three daemons, a headless Chromium before the middle one, and what it shows held against the
//! interface. `contrib/page/look.mjs` looks; what it asks for by a line that begins with `@` is done here.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outrigger_integration::bitcoind::free_port;
use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{BackupState, BackupStatus, InvoiceCreate, PaymentSend, PaymentState, Scope, TokenCreate};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// The whole look may take so long, on a busy machine.
const WHOLE_LOOK: Duration = Duration::from_secs(400);

/// Three daemons in a row, of which the middle one has a page and a backup.
struct Row {
    payer: Sidecar,
    shown: Sidecar,
    payee: Sidecar,
    port: u16,
}

impl Row {
    async fn new(regtest: &Regtest) -> Done<Self> {
        let port = free_port()?;
        let mirror = regtest.directory("second disk")?.join("mirror.redb");
        let file = format!(
            "[rpc]\npage = true\nhosts = \"127.0.0.1:{port}\"\n\n[[backup]]\nname = \"second-disk\"\nkind = \"mirror\"\n\
             requirement = \"required\"\npath = {mirror:?}\n"
        );
        std::fs::write(regtest.directory("lagoon")?.join("outrigger.toml"), file)?;
        let started =
            tokio::try_join!(regtest.sidecar("windward"), regtest.sidecar("lagoon"), regtest.sidecar("leeward"));
        let (payer, shown, payee) = started?;
        payer.fund(&regtest.bitcoind).await?;
        shown.fund(&regtest.bitcoind).await?;
        for node in [&payer, &shown, &payee] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        payer.connect(&shown).await?;
        shown.connect(&payee).await?;
        regtest.channel(&payer, &shown, 2_000_000, 300_000_000).await?;
        regtest.channel(&shown, &payee, 1_000_000, 400_000_000).await?;
        for node in [&payer, &shown, &payee] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        Ok(Self { payer, shown, payee, port })
    }

    /// Payments of each kind: to the node, by it, through it, and one that fails.
    async fn payments(&self) -> Done<()> {
        let paid = async |from: &Sidecar, invoice: &str| -> Done<()> {
            let payment = from.pay(invoice).await?;
            assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
            Ok(())
        };
        paid(&self.payer, &self.shown.invoice(250_000_000, "mooring for a month").await?).await?;
        paid(&self.shown, &self.payee.invoice(40_000_000, "a new sail").await?).await?;
        for amount_msat in [100_000_000, 7_500_001] {
            let through = until(LIMIT, "an invoice with a route hint", async || {
                let order = InvoiceCreate {
                    amount_msat: Some(amount_msat),
                    description: "rope".into(),
                    ..InvoiceCreate::default()
                };
                let created = self.payee.call(order).await?;
                Ok((created.route_hints > 0).then_some(created.invoice))
            });
            paid(&self.payer, &through.await?).await?;
        }
        let unasked = PaymentSend {
            node_id: Some(self.payee.node_id().await?),
            amount_msat: Some(5_000_000),
            idempotency_key: Some("a gift".into()),
            ..PaymentSend::default()
        };
        let unasked = self.shown.call(unasked).await?.payment_id;
        assert_eq!(self.shown.payment_end(&unasked).await?.state, PaymentState::Failed, "the payee takes no keysend");
        until(LIMIT, "the backup to be complete", async || {
            let backups = self.shown.call(BackupStatus {}).await?.items;
            Ok(backups.iter().all(|backup| backup.state == BackupState::Complete).then_some(()))
        })
        .await
    }

    async fn token(&self, name: &str, scope: Scope) -> Done<String> {
        let order = TokenCreate { name: name.to_owned(), scopes: vec![scope], ..TokenCreate::default() };
        Ok(self.shown.call(order).await?.token)
    }
}

/// Where pictures of the page are kept; they are made anew where `UPDATE_SHOTS` is set.
fn pictures() -> Option<PathBuf> {
    std::env::var_os("UPDATE_SHOTS").map(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/page"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_node_and_goes_on_by_seq_after_a_lost_connection() -> Done<()> {
    on_regtest(async |regtest| {
        let mut row = Row::new(regtest).await?;
        row.payments().await?;
        let directory = |node: &Sidecar| network_directory(node.directory(), "regtest");
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/page/check"));
        command
            .env("OUTRIGGER_PAGE_PORT", row.port.to_string())
            .env("OUTRIGGER_TOKEN", row.token("page", Scope::Read).await?)
            .env("OUTRIGGER_NARROW_TOKEN", row.token("shop", Scope::Invoice).await?)
            .env("OUTRIGGER_SHOWN", directory(&row.shown))
            .env("OUTRIGGER_PAYER", directory(&row.payer))
            .env("OUTRIGGER_PAYEE", directory(&row.payee))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(pictures) = pictures() {
            command.env("OUTRIGGER_PAGE_SHOTS", pictures);
        }
        let mut look = command.spawn()?;
        let mut answers = look.stdin.take().ok_or("no pipe")?;
        let mut lines = BufReader::new(look.stdout.take().ok_or("no pipe")?).lines();
        let seen = tokio::time::timeout(WHOLE_LOOK, async {
            let mut seen = Vec::new();
            while let Some(line) = lines.next_line().await? {
                match line.as_str() {
                    "@kill" => row.shown.kill().await?,
                    "@start" => {
                        row.shown.start_again().await?;
                        row.payer.connect(&row.shown).await?;
                        let known = row.payer.call(outrigger_rpc_schema::ChannelList::default()).await?.items;
                        let channel = known.first().ok_or("no channel")?;
                        row.payer.until_idle(&channel.channel_id).await?;
                    }
                    _ => {
                        seen.push(line);
                        continue;
                    }
                }
                answers.write_all(b"done\n").await?;
            }
            Done::Ok(seen)
        });
        let seen = seen.await.map_err(|_| "the look took too long")??;
        let output = look.wait_with_output().await?;
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}\n{why}", seen.join("\n"));
        let steps = seen.iter().filter(|line| line.starts_with("seen: ")).count();
        assert!(steps >= 14, "{}", seen.join("\n"));
        assert_eq!(seen.last().map(String::as_str), Some(format!("all seen: {steps}").as_str()), "{why}");
        Ok(())
    })
    .await
}
