//! The reference page: every example of it, as a reader pastes it into a shell, before a daemon.

use std::collections::BTreeMap;
use std::path::Path;

use outrigger_integration::door::Shown;
use outrigger_integration::schema::Schema;
use outrigger_integration::{Done, Door, Regtest, Sidecar, on_regtest};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{ChannelOpen, ChannelState, InvoiceCreate, methods};
use serde_json::{Value, json};
use tokio::process::Command;

/// Two daemons with two channels between them, and a payment.
struct Stage {
    alice: Sidecar,
    bob: Sidecar,
    channels: [String; 2],
    payment_id: String,
    payment_hash: String,
    txid: String,
    op_id: String,
}

impl Stage {
    async fn set(regtest: &Regtest) -> Done<Self> {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let order = ChannelOpen {
            node_id: bob.node_id().await?,
            funding_sat: 300_000,
            idempotency_key: "second".to_owned(),
            ..Default::default()
        };
        let second = regtest.open(&alice, order.clone()).await?.channel_id;
        let op_id = alice.call(order).await?.op_id;
        for node in [&alice, &bob] {
            node.until_channel_is(&second, ChannelState::Normal).await?;
        }
        let payment = alice.pay(&bob.invoice(1_000_000, "before").await?).await?;
        let invoice = InvoiceCreate { description: "mine".to_owned(), ..Default::default() };
        let payment_hash = alice.call(invoice).await?.payment_hash;
        let (channels, txid) = ([opened.channel_id, second], opened.funding_txid);
        Ok(Self { alice, bob, channels, payment_id: payment.payment_id, payment_hash, txid, op_id })
    }

    /// What is the reader's own in an example of this method.
    async fn variables(&self, method: &str) -> Done<BTreeMap<&'static str, String>> {
        let [first, second] = &self.channels;
        let channel_id = if method == "channel.force_close" { second } else { first };
        Ok(BTreeMap::from([
            ("dir", network_directory(self.alice.directory(), "regtest").display().to_string()),
            ("node_id", self.bob.node_id().await?),
            ("peer_address", self.bob.address()),
            ("channel_id", channel_id.clone()),
            ("payment_id", self.payment_id.clone()),
            ("payment_hash", self.payment_hash.clone()),
            ("txid", self.txid.clone()),
            ("op_id", self.op_id.clone()),
            ("invoice", self.bob.invoice(2_000_000, "an example").await?),
            ("bitcoin_address", self.bob.new_address().await?),
        ]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_reference_page_works() -> Done<()> {
    on_regtest(async |regtest| {
        let examples = examples()?;
        let stage = Stage::set(regtest).await?;
        for (method, script) in &examples {
            let output = Command::new("bash")
                .args(["-euc", script])
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .envs(stage.variables(method).await?)
                .output()
                .await?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{script}\n{said}");
            let mut answer: Value = serde_json::from_slice(&output.stdout)?;
            assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(1)), "{script}\n{answer}");
            assert!(answer["result"].is_object(), "{script}\n{answer}");
            // What was asked is judged by the test of the document's own examples.
            let result = Schema::current().result_fault(method, &answer["result"].take());
            assert_eq!(result, None, "{script}");
        }
        Ok(())
    })
    .await
}

/// Those are messages for a connection on which both sides speak, and are sent over one as they stand there.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_reference_page_for_a_session_works() -> Done<()> {
    on_regtest(async |regtest| {
        let page = page()?;
        let alice = regtest.sidecar("alice").await?;
        let door = Door::of(&alice)?;
        let session = door.session(Shown::Header(door.owner())).await?;
        let mut session = session.map_err(|status| format!("refused with {status}"))?;
        let mut subscription_id = Value::Null;
        let of_sessions: Vec<_> = methods().iter().filter(|method| method.needs_session).collect();
        assert_eq!(of_sessions.len(), 2, "one begins what the other ends");
        for method in of_sessions {
            let mut message: Value = serde_json::from_str(example(&page, method.name, "```json\n")?)?;
            if let Some(given) = message["params"].get_mut("subscription_id") {
                *given = subscription_id.clone();
            }
            let answer = session.send(&message).await?;
            assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(1)), "{message}\n{answer}");
            assert_eq!(Schema::current().answer_fault(method.name, &message["params"], &answer), None);
            assert!(answer["result"].is_object(), "{message}\n{answer}");
            subscription_id = answer["result"]["subscription_id"].clone();
        }
        Ok(())
    })
    .await
}

fn page() -> Done<String> {
    Ok(std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../rpc-schema/REFERENCE.md"))?)
}

/// The first block that begins so in what the page says of a method.
fn example<'a>(page: &'a str, method: &'static str, begin: &str) -> Done<&'a str> {
    let section = page.split_once(&format!("\n## {method}\n")).ok_or(method)?.1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    Ok(section.split_once(begin).and_then(|(_, rest)| rest.split_once("```")).ok_or(method)?.0)
}

/// The examples of the page by method, those last that take something away from the others.
fn examples() -> Done<Vec<(String, String)>> {
    let page = page()?;
    let mut examples = Vec::new();
    for method in methods().iter().filter(|method| !method.needs_session) {
        examples.push((method.name.to_owned(), example(&page, method.name, "```sh\n")?.to_owned()));
    }
    examples.sort_by_key(|(name, _)| match name.as_str() {
        "channel.close" | "channel.force_close" => 1,
        "peer.disconnect" => 2,
        "node.stop" => 3,
        _ => 0,
    });
    Ok(examples)
}
