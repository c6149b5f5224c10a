//! What the daemon logs over a whole life: nothing that is secret, in files of its owner's alone, a line an event.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::Network;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha512};
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::Secp256k1;
use outrigger_integration::door::Shown;
use outrigger_integration::{Bare, Done, Door, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::{COOKIE_FILE, network_directory};
use outrigger_rpc_schema::{
    CallError, EventList, InvoiceCreate, LogLevel, LogLevels, NodeStop, PaymentState, Phase, Scope, TokenCreate,
};
use serde_json::{Map, Value, json};

/// Words of BIP 39's own vectors, and the entropy that they stand for.
const WORDS: &str = "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel tennis maple dilemma \
                     loan word shrug inflict delay length";
const ENTROPY: &str = "68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c";

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

/// The bytes that BIP 39 makes of words, with an empty passphrase.
fn stretched(words: &str) -> [u8; 64] {
    let hashed = |message: &[u8]| {
        let mut engine = HmacEngine::<sha512::Hash>::new(words.as_bytes());
        engine.input(message);
        Hmac::from_engine(engine).to_byte_array()
    };
    let mut last = hashed(b"mnemonic\0\0\0\x01");
    let mut all = last;
    for _ in 1..2048 {
        last = hashed(&last);
        all.iter_mut().zip(last).for_each(|(one, next)| *one ^= next);
    }
    all
}

/// What nobody may learn of a node's seed and cookie.
async fn secrets(node: &Sidecar) -> Done<Vec<String>> {
    let place = network_directory(node.directory(), "regtest");
    let words = std::fs::read_to_string(place.join("seed"))?;
    let words: Vec<_> = words.split_whitespace().collect();
    // Three of them that follow each other do not come about by chance.
    let mut secrets: Vec<_> = words.windows(3).map(|three| three.join(" ")).collect();
    let seed = stretched(&words.join(" "));
    let master = Xpriv::new_master(Network::Regtest, &seed)?;
    let path = [9735, 1, 0].map(ChildNumber::from_hardened_idx).into_iter().collect::<Result<Vec<_>, _>>()?;
    let (secp, key) = (Secp256k1::new(), master.derive_priv(&Secp256k1::new(), &path)?.private_key);
    assert_eq!(key.public_key(&secp).to_string(), node.node_id().await?, "it is this node's seed");
    secrets.extend([seed.to_lower_hex_string(), master.to_string(), key.secret_bytes().to_lower_hex_string()]);
    let cookie = std::fs::read_to_string(place.join(COOKIE_FILE))?;
    secrets.push(STANDARD.encode(cookie.trim()));
    secrets.push(cookie.split_once(':').ok_or("a cookie")?.1.trim().to_owned());
    Ok(secrets)
}

/// A token of this node, what is nearly one and what is nearly the cookie are shown in every way that there is. Gives what all of that must
/// not be known by.
async fn shown(node: &Sidecar) -> Done<Vec<String>> {
    let order = TokenCreate { name: "shop".into(), scopes: vec![Scope::Read], ..TokenCreate::default() };
    let (door, token) = (Door::of(node)?, node.call(order).await?.token);
    let (known, last) = token.split_at(token.len() - 1);
    let wrong = format!("{known}{}", if last == "0" { "1" } else { "0" });
    let basic = STANDARD.encode(format!("__cookie__:{}", "ab".repeat(32)));
    for (shown, status) in [(&*token, 200), (&wrong, 401)] {
        let bearer = format!("Bearer {shown}");
        assert_eq!(door.call("node.info", &json!({}), Some(&bearer)).await?.status, status);
        assert_eq!(door.get("/metrics", Some(&bearer)).await?.status, status);
        for way in [Shown::Header(&bearer), Shown::Protocol(shown)] {
            match door.session(way).await? {
                Ok(mut session) => {
                    let told = session.call("node.info", &json!({})).await?;
                    assert_eq!((&told["result"]["node_id"], status), (&json!(node.node_id().await?), 200), "{way:?}");
                }
                Err(refused) => assert_eq!(refused, status, "{way:?}"),
            }
        }
    }
    assert_eq!(door.call("node.info", &json!({}), Some(&format!("Basic {basic}"))).await?.status, 401);
    let secret = known.rsplit('_').next().filter(|secret| secret.len() == 63).ok_or("a token's secret")?;
    Ok(vec![secret.to_owned(), "ab".repeat(32), basic])
}

/// What every method answers that tells and changes nothing, and what is measured, with the name of each. Methods that name something
/// get it from `named`.
async fn told(node: &Sidecar, named: &Value) -> Done<Vec<(String, String)>> {
    let (door, mut told) = (Door::of(node)?, Vec::new());
    let document = node.client().call_untyped("rpc.discover", &Map::new()).await?;
    for method in document["methods"].as_array().ok_or("no methods")? {
        let name = method["name"].as_str().ok_or("no name")?;
        let tells = method["x-scopes"].as_array().is_some_and(|scopes| scopes.contains(&json!("read")));
        if !tells && name != "token.list" {
            continue;
        }
        let mut parameters = Map::new();
        for parameter in method["params"].as_array().into_iter().flatten().filter(|one| one["required"] == true) {
            let of = parameter["name"].as_str().ok_or("no name")?;
            parameters.insert(of.to_owned(), named.get(of).ok_or(format!("{name} needs {of}"))?.clone());
        }
        let answer = door.call(name, &parameters.into(), Some(door.owner())).await?;
        let is_told = serde_json::from_str::<Value>(&answer.body)?["result"].is_object();
        // Over HTTP there is no session that events could come to.
        assert_eq!(is_told, !["event.subscribe", "event.unsubscribe"].contains(&name), "{name}: {}", answer.body);
        told.push((name.to_owned(), answer.body));
    }
    told.push(("/metrics".to_owned(), door.get("/metrics", Some(door.owner())).await?.body));
    Ok(told)
}

/// What the methods want to be told, of a node that has paid and then was paid: of each kind the newest that its events name.
async fn named(node: &Sidecar) -> Done<Value> {
    let events = node.call(EventList { limit: Some(1000), ..EventList::default() }).await?.items;
    let invoice = node.invoice(1_000_000, "not paid yet").await?;
    let mut named = json!({ "state": "normal", "subscription_id": "1", "invoice": invoice });
    for event in events {
        for (name, field) in serde_json::to_value(event)?.as_object().into_iter().flatten() {
            if field.is_string() {
                named[name] = field.clone();
            }
        }
    }
    Ok(named)
}

/// Alice, whose words are known beforehand, and Bob, who log all that they do into these directories, as text and as JSON.
async fn loud(regtest: &Regtest, hers: &Path, his: &Path) -> Done<(Sidecar, Sidecar)> {
    let settings = |directory: &Path, format: &str| {
        let file = directory.join("log").display().to_string();
        ["--log-level", "trace", "--log-format", format, "--log-max-bytes", "1000000000", "--log-file", &file]
            .map(str::to_owned)
    };
    let place = network_directory(&regtest.directory("alice")?, "regtest");
    std::fs::DirBuilder::new().mode(0o700).create(&place)?;
    let mut seed = File::options().write(true).create_new(true).mode(0o600).open(place.join("seed"))?;
    writeln!(seed, "{WORDS}")?;
    let (for_alice, for_bob) = (settings(hers, "text"), settings(his, "json"));
    let alice = regtest.sidecar_with("alice", &for_alice.each_ref().map(String::as_str)).await?;
    let bob = regtest.sidecar_with("bob", &for_bob.each_ref().map(String::as_str)).await?;
    Ok((alice, bob))
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_5_nothing_secret_is_logged_at_any_level_nor_told_by_any_method() -> Done<()> {
    on_regtest(async |regtest| {
        let logs = ["alice", "bob"].map(|name| regtest.directory(&format!("logs of {name}")));
        let [hers, his] = logs;
        let (hers, his) = (hers?, his?);
        let (mut alice, bob) = loud(regtest, &hers, &his).await?;
        let mut secret = [vec![ENTROPY.to_owned()], secrets(&alice).await?, secrets(&bob).await?].concat();
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&bob).await?;
        regtest.channel(&alice, &bob, 1_000_000, 100_000_000).await?;
        secret.extend([shown(&alice).await?, shown(&bob).await?].concat());
        assert_eq!(alice.pay(&bob.invoice(1_000_000, "a thing").await?).await?.state, PaymentState::Succeeded);
        assert_eq!(bob.pay(&alice.invoice(500_000, "another").await?).await?.state, PaymentState::Succeeded);
        let unpaid = bob.call(InvoiceCreate {
            amount_msat: Some(2_000_000),
            description: "not paid yet".into(),
            ..InvoiceCreate::default()
        });
        let unpaid = unpaid.await?.invoice;
        let (_, password) = regtest.bitcoind.credentials()?;
        secret.push(password);
        // A start tells more than anything else.
        let old = Door::of(&alice)?;
        alice.stop().await?;
        alice.start_again().await?;
        let new = Door::of(&alice)?;
        assert_ne!(new.owner(), old.owner(), "each start has a cookie of its own");
        assert_eq!(new.call("node.info", &json!({}), Some(old.owner())).await?.status, 401);
        secret.extend(secrets(&alice).await?);
        regtest.bitcoind.restart().await?;
        secret.push(regtest.bitcoind.credentials()?.1);
        regtest.bitcoind.mine_to_nobody(1).await?;
        alice.until_synced_with(&regtest.bitcoind).await?;

        let answers = told(&alice, &named(&alice).await?).await?;
        assert!(answers.len() >= 30, "{}", answers.len());
        for (name, answer) in &answers {
            let found = secret.iter().find(|secret| answer.contains(*secret));
            assert_eq!(found.map(String::len), None, "{name} tells a secret of so many letters");
        }
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
