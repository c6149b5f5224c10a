//! `/metrics` of a live node: read by a small reader of the format, held against the interface, and against every name that the
//! dashboard and the alerts ask for.

#[path = "metrics/rules.rs"]
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use outrigger_integration::proxy::{Proxy, Way};
use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, Door, on_regtest, until};
use outrigger_rpc_schema::{ChainStatus, NodeInfo, Scope, TokenCreate, WalletBalance};
use rules::{Alert, Samples};

/// Samples by name and labels as they are written, and the kind of each family.
struct Exposed {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
}

/// Reads the format, and fails at what Prometheus would refuse: a sample without its family, a family twice, a name that is none,
/// a histogram whose buckets fall.
fn read(text: &str) -> Done<Exposed> {
    let (mut samples, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut family = String::new();
    let is_name = |name: &str| {
        name.chars().next().is_some_and(|first| first.is_ascii_lowercase())
            && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
    };
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, about) = help.split_once(' ').ok_or("a family without words")?;
            assert!(is_name(name) && about.ends_with('.') && helped.insert(name.to_owned()), "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("a family without a kind")?;
            assert!(["counter", "gauge", "histogram"].contains(&kind) && helped.contains(name), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            family = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or("a sample without a value")?;
            let name = series.split('{').next().unwrap_or_default();
            let own = name.strip_prefix(family.as_str()).ok_or(format!("{line} is not of {family}"))?;
            let is_histogram = kinds.get(&family).map(String::as_str) == Some("histogram");
            let is_its = if is_histogram { ["_bucket", "_sum", "_count"].contains(&own) } else { own.is_empty() };
            assert!(is_its, "{line}");
            let number: f64 = value.parse()?;
            assert!(number.is_finite() && number >= 0.0, "{line}");
            assert!(samples.insert(series.to_owned(), number).is_none(), "{line} stands twice");
        }
    }
    assert!(text.ends_with('\n'));
    let mut last = (String::new(), 0.0);
    for line in text.lines().filter(|line| line.contains("le=\"")) {
        let (series, value) = line.rsplit_once(' ').ok_or("a sample")?;
        let (of, bound) = series.split_once("le=\"").ok_or("a bucket")?;
        let value: f64 = value.parse()?;
        assert!(last.0 != of || value >= last.1, "{line} falls");
        if bound == "+Inf\"}" {
            let labels = of.split_once("_bucket{").ok_or("a bucket")?;
            let rest = labels.1.trim_end_matches(',');
            let count =
                if rest.is_empty() { format!("{}_count", labels.0) } else { format!("{}_count{{{rest}}}", labels.0) };
            assert_eq!(samples.get(&count), Some(&value), "{count}");
        }
        last = (of.to_owned(), value);
    }
    Ok(Exposed { samples, kinds })
}

/// Names of this node's metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("outrigger_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_the_interface_tells_and_is_for_who_may_read() -> Done<()> {
    on_regtest(async |regtest| {
        let mirror = regtest.directory("second disk")?.join("mirror.redb");
        let file = format!(
            "[[backup]]\nname = \"second-disk\"\nkind = \"mirror\"\nrequirement = \"required\"\npath = {mirror:?}\n"
        );
        std::fs::write(regtest.directory("alice")?.join("outrigger.toml"), file)?;
        let (alice, bob) = tokio::try_join!(regtest.sidecar("alice"), regtest.sidecar("bob"))?;
        alice.fund(&regtest.bitcoind).await?;
        tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
        let wire = Proxy::start(&bob.address()).await?;
        alice.connect_to(&bob.node_id().await?, wire.address()).await?;
        let opened = regtest.channel(&alice, &bob, 1_000_000, 200_000_000).await?;
        alice.pay(&bob.invoice(10_000_000, "a thing").await?).await?;
        let channel = alice.until_idle(&opened.channel_id).await?;
        let token = async |name: &str, scope| -> Done<String> {
            let order = TokenCreate { name: name.into(), scopes: vec![scope], ..TokenCreate::default() };
            Ok(format!("Bearer {}", alice.call(order).await?.token))
        };
        let (reader, shop) = (token("prometheus", Scope::Read).await?, token("shop", Scope::Invoice).await?);
        let door = Door::of(&alice)?;
        let unknown = format!("Bearer outr_{}", "0".repeat(80));
        for (shown, status) in
            [(None, 401), (Some(unknown.as_str()), 401), (Some("Basic eDp5"), 401), (Some(shop.as_str()), 403)]
        {
            let told = door.get("/metrics", shown).await?;
            assert_eq!((told.status, told.body.as_str()), (status, ""), "{shown:?}");
        }
        assert_eq!(door.get("/metrics", Some(door.owner())).await?.status, 200);
        let exposed = until(LIMIT, "the backup to have all", async || {
            let told = door.get("/metrics", Some(&reader)).await?;
            assert_eq!(told.status, 200);
            assert!(told.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", told.head);
            let exposed = read(&told.body)?;
            let lag = exposed.samples.get("outrigger_backup_lag_updates{backup=\"second-disk\"}").copied();
            Ok((lag == Some(0.0)).then_some(exposed))
        })
        .await?;
        let is = |series: &str, value: u64| {
            assert_eq!(exposed.samples.get(series).copied(), Some(value as f64), "{series} of {:?}", exposed.samples);
        };
        is("outrigger_channels{state=\"normal\"}", 1);
        is("outrigger_channels{state=\"failed\"}", 0);
        is("outrigger_channels_held", 0);
        is("outrigger_peers_connected", 1);
        is("outrigger_htlcs", 0);
        is("outrigger_channel_balance_msat{kind=\"local\"}", channel.local_msat);
        is("outrigger_channel_balance_msat{kind=\"remote\"}", channel.remote_msat);
        is("outrigger_channel_balance_msat{kind=\"spendable\"}", channel.spendable_msat);
        is("outrigger_channel_balance_msat{kind=\"receivable\"}", channel.receivable_msat);
        is("outrigger_wallet_balance_sat{kind=\"confirmed\"}", alice.call(WalletBalance {}).await?.confirmed_sat);
        is("outrigger_synced", 1);
        is("outrigger_block_height", regtest.bitcoind.height().await?.into());
        let chain = alice.call(ChainStatus {}).await?;
        let blocks = chain.calls.iter().find(|call| call.method == "getblock").ok_or("no block was asked for")?;
        is("outrigger_bitcoind_call_seconds_count{method=\"getblock\"}", blocks.calls);
        is("outrigger_bitcoind_call_errors_total{method=\"getblock\"}", 0);
        assert!(blocks.half_within_micros <= blocks.most_within_micros && blocks.mean_micros > 0, "{blocks:?}");
        assert_eq!(chain.budget.calls_at_once, 2);
        assert!((1..=2).contains(&chain.budget.calls_peak) && chain.budget.turns >= blocks.calls, "{chain:?}");
        let store = alice.call(NodeInfo {}).await?.store;
        let commits = exposed.samples.get("outrigger_commit_seconds_count").copied().unwrap_or_default();
        let most = store.commits as f64;
        assert!(commits > 0.0 && commits <= most, "{commits} of {most}");
        assert!(exposed.samples.get("outrigger_journal_fsync_seconds_count").copied() > Some(0.0));
        let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib");
        for file in ["grafana/outrigger.json", "prometheus/alerts.yml"] {
            let names = named(&std::fs::read_to_string(contrib.join(file))?);
            assert!(names.len() >= 5, "{file} names {names:?}");
            for name in names {
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                let is_known = exposed.kinds.contains_key(&name)
                    || family.is_some_and(|family| exposed.kinds.get(family).map(String::as_str) == Some("histogram"));
                assert!(is_known, "{file} asks for {name}, which the node does not tell");
            }
        }
        let _: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(contrib.join("grafana/outrigger.json"))?)?;
        alerts_fire(&exposed, &std::fs::read_to_string(contrib.join("prometheus/alerts.yml"))?)?;

        // Of a payment that the other side does not answer, until it does.
        wire.hold_after(Way::Back, 0);
        alice.send(&bob.invoice(1_000_000, "on its way").await?).await?;
        for (pending, when) in [(1.0, "the HTLC to be counted"), (0.0, "the HTLC to be settled")] {
            until(LIMIT, when, async || {
                let told = read(&door.get("/metrics", Some(&reader)).await?.body)?;
                Ok((told.samples.get("outrigger_htlcs") == Some(&pending)).then_some(()))
            })
            .await?;
            wire.release(Way::Back);
        }
        Ok(())
    })
    .await
}

/// The alerts that fire where these samples follow those of a range before.
fn firing(alerts: &[Alert], before: &Samples, now: &Samples) -> Done<Vec<String>> {
    let mut fired = Vec::new();
    for Alert { name, expression } in alerts {
        let found = rules::outcome(expression, before, now).map_err(|fault| format!("{name}: {fault}"))?;
        fired.extend((!found.is_empty()).then(|| name.clone()));
    }
    Ok(fired)
}

/// Every alert is worked out over what this node tells: as it stands none fires, and with one figure beyond what is right that one does,
/// alone, and not at the limit.
fn alerts_fire(exposed: &Exposed, rules: &str) -> Done<()> {
    let alerts = rules::alerts(rules)?;
    let of = |instance: &str| -> Done<Samples> {
        exposed.samples.iter().map(|(written, value)| Ok((rules::series(written, instance)?, *value))).collect()
    };
    let well = of("a")?;
    for Alert { name, expression } in &alerts {
        rules::is_told(expression, &well).map_err(|fault| format!("{name}: {fault}"))?;
    }
    assert_eq!(firing(&alerts, &well, &well)?, Vec::<String>::new());
    assert_eq!(firing(&alerts, &Samples::new(), &Samples::new())?, ["OutriggerDown"]);
    let with = |changes: &[(&str, f64)]| -> Done<Samples> {
        let mut samples = well.clone();
        for (written, value) in changes {
            let known = samples.insert(rules::series(written, "a")?, *value);
            assert!(known.is_some(), "the node does not tell {written}");
        }
        Ok(samples)
    };
    let errors = "outrigger_bitcoind_call_errors_total{method=\"getblockchaininfo\"}";
    let failures = exposed.samples.get(errors).copied().ok_or("no errors are counted")?;
    let lag = "outrigger_backup_lag_seconds{backup=\"second-disk\"}";
    // Of 1,000 more syncs so many lasted longer than this.
    let syncs = |slow: f64, bound: f64| -> Done<Samples> {
        let mut samples = well.clone();
        for (labels, count) in &mut samples {
            if labels.get("__name__").map(String::as_str) == Some("outrigger_journal_fsync_seconds_bucket") {
                let le = labels.get("le").map_or("+Inf", String::as_str);
                let is_above = le == "+Inf" || le.parse::<f64>()? > bound;
                *count += if is_above { 1000.0 } else { 1000.0 - slow };
            }
        }
        Ok(samples)
    };
    let quiet = ("outrigger_peers_connected", 0.0);
    for (now, expected) in [
        (with(&[("outrigger_synced", 0.0)])?, Some("OutriggerNotSynced")),
        (with(&[("outrigger_channels{state=\"failed\"}", 1.0)])?, Some("OutriggerChannelFailed")),
        (with(&[("outrigger_channels{state=\"frozen\"}", 1.0)])?, Some("OutriggerChannelFrozen")),
        (with(&[("outrigger_channels_held", 1.0)])?, Some("OutriggerChannelsHeld")),
        (with(&[("outrigger_disk_low", 1.0)])?, Some("OutriggerDiskLow")),
        (with(&[(lag, 61.0)])?, Some("OutriggerBackupBehind")),
        (with(&[(lag, 60.0)])?, None),
        (with(&[quiet])?, Some("OutriggerNoPeers")),
        (with(&[quiet, ("outrigger_channels{state=\"normal\"}", 0.0)])?, None),
        (syncs(11.0, 1.0)?, Some("OutriggerSlowDisk")),
        (syncs(9.0, 1.0)?, None),
        (with(&[(errors, failures + 31.0)])?, Some("OutriggerBitcoindErrors")),
        (with(&[(errors, failures + 30.0)])?, None),
    ] {
        let changed: Vec<_> = now.iter().filter(|(labels, value)| well.get(*labels) != Some(value)).collect();
        assert_eq!(firing(&alerts, &well, &now)?, Vec::from_iter(expected.map(str::to_owned)), "{changed:?}");
    }
    // Of two nodes one has no peer and needs none, and the other has both: neither waits for anything.
    let mut both = well.clone();
    let needs_none = |(labels, value): (rules::Labels, f64)| {
        let name = labels.get("__name__").map_or("", String::as_str);
        let is_none = ["outrigger_peers_connected", "outrigger_channels"].contains(&name);
        (labels, if is_none { 0.0 } else { value })
    };
    both.extend(of("b")?.into_iter().map(needs_none));
    assert_eq!(firing(&alerts, &both, &both)?, Vec::<String>::new());
    Ok(())
}
