//! The operator's first day: what is in force and who said so, how bitcoind is found, what is answered before anything is open,
//! and what is said of each thing that is wrong.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Bare, Bitcoind, Client, Done, FakeBitcoind, on_regtest, until};
use outrigger_rpc_schema::{
    CallError, ConfigGet, ConfigItem, ConfigOrigin, ConfigReport, NodeInfo, NodeStatus, NodeStatusReport, NodeStop,
    OptionKind, OptionTakes, Phase, PluginManifest, PluginOption, WalletBalance,
};
use serde_json::json;

const SIGABRT: i32 = 6;

fn item<'a>(report: &'a ConfigReport, key: &str) -> Done<&'a ConfigItem> {
    Ok(report.items.iter().find(|item| item.key == key).ok_or(format!("no key {key}"))?)
}

/// Whether bitcoind was asked, and something is to be said of it.
fn is_told(status: &NodeStatusReport) -> bool {
    status.phase != Phase::Starting && status.reason.is_some()
}

/// Value, kind of origin and place of a key.
fn told(report: &ConfigReport, key: &str) -> Done<(String, ConfigOrigin, Option<String>)> {
    let ConfigItem { value, origin, place, .. } = item(report, key)?.clone();
    Ok((value, origin, place))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_told_with_its_value_and_who_said_so() -> Done<()> {
    let fake = FakeBitcoind::start(|_| Err((-28, "Loading block index…")))?;
    let mut bare = Bare::new()?;
    let file = "# mine\nalias = \"file\"\n\n[channel]\nmin_funding_sat = 50000\nmax_funding_sat = 60000\n";
    let file = bare.write(".outrigger/outrigger.toml", file)?.display().to_string();
    let conf = format!("# bitcoind's\nrpcuser=op\nrpcpassword=canary-secret\n[regtest]\nrpcport={}\n", fake.port());
    let conf = bare.write(".bitcoin/bitcoin.conf", &conf)?.display().to_string();
    bare.set("OUTRIGGERD_CHANNEL_MAX_FUNDING_SAT", "70000");
    bare.set("OUTRIGGERD_LOG_LEVEL", "debug");
    let mut running = bare.start(&["--listen", "127.0.0.1:0", "--log-level", "info"])?;
    let client = running.client().await?;
    let report = client.call(ConfigGet::default()).await?;
    assert_eq!(report.file.as_ref(), Some(&file));
    let expected = [
        ("alias", "file", ConfigOrigin::File, Some(format!("{file}:2"))),
        ("channel.min_funding_sat", "50000", ConfigOrigin::File, Some(format!("{file}:5"))),
        (
            "channel.max_funding_sat",
            "70000",
            ConfigOrigin::Environment,
            Some("OUTRIGGERD_CHANNEL_MAX_FUNDING_SAT".to_owned()),
        ),
        ("log_level", "info", ConfigOrigin::Flag, Some("--log-level".to_owned())),
        ("forwarding.max_htlcs", "10000", ConfigOrigin::Default, None),
        ("bitcoind.url", fake.address(), ConfigOrigin::BitcoinConf, Some(format!("{conf}:5"))),
        ("bitcoind.user", "op", ConfigOrigin::BitcoinConf, Some(format!("{conf}:3"))),
        ("bitcoind.password", "(hidden)", ConfigOrigin::BitcoinConf, Some(format!("{conf}:3"))),
        ("bitcoind.cookie", "", ConfigOrigin::Default, None),
    ];
    for (key, value, origin, place) in expected {
        assert_eq!(told(&report, key)?, (value.to_owned(), origin, place), "{key}");
    }
    assert_eq!(item(&report, "listen")?.default, "127.0.0.1:19735");
    assert_eq!(item(&report, "data_dir")?.value, bare.home().join(".outrigger").display().to_string());
    assert!(!json!(report).to_string().contains("canary-secret"));

    // bitcoind was asked with what its own configuration says.
    let waits = running.status(is_told).await?;
    assert!(waits.reason.ok_or("a reason")?.contains("wait: bitcoind is starting"));
    let shown = fake.shown();
    assert!(!shown.is_empty() && shown.iter().all(|shown| shown == "Basic b3A6Y2FuYXJ5LXNlY3JldA=="), "{shown:?}");

    let some = client.call(ConfigGet { keys: Some(vec!["alias".into(), "listen".into()]) }).await?;
    let keys: Vec<_> = some.items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys, ["alias", "listen"]);
    match client.call(ConfigGet { keys: Some(vec!["allias".into()]) }).await {
        Err(CallError::Refused(refusal)) => {
            assert_eq!(refusal.message, "parameter keys names \"allias\", which is no key; did you mean alias?");
        }
        other => panic!("{other:?}"),
    }

    // The same without a node, and without touching anything.
    let before = entries(&bare)?;
    let look = ["--network", "regtest", "--check-config", "--rpc-address", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let output = bare.run(&[&look[..], &["--log-level", "info", "--json"]].concat(), "")?;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(serde_json::from_slice::<ConfigReport>(&output.stdout)?, report);
    let output = bare.run(&look, "")?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains(&format!("= file  # {file}:2 (file)\n")) && !text.contains("canary-secret"), "{text}");
    assert!(text.contains(&format!("rpcuser and rpcpassword of {conf}:3")), "{text}");
    assert_eq!(entries(&bare)?, before);
    Ok(())
}

fn entries(bare: &Bare) -> Done<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for directory in [bare.home().join(".outrigger"), bare.network_dir()] {
        for entry in std::fs::read_dir(directory)? {
            found.push(entry?.path());
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn bad_input_88_a_configuration_that_is_wrong_is_told_by_check_config_and_by_a_start() -> Done<()> {
    let bare = Bare::new()?;
    let file = bare.write(".outrigger/outrigger.toml", "")?;
    let open = bare.home().join("open");
    std::fs::create_dir(&open)?;
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let (path, log) = (file.display(), open.join("log"));
    let (log, open) = (log.display(), open.display());
    let cases = [
        ("netwrok = \"regtest\"".to_owned(), format!("{path}: unknown key netwrok; did you mean network?")),
        ("network = 5".to_owned(), format!("network (from {path}:1): must be regtest or signet")),
        (
            "\n\n[forwarding]\n# none\ncltv_expiry_delta = 33\n".to_owned(),
            format!("forwarding.cltv_expiry_delta (from {path}:5): must be a whole number from 34 to 2016"),
        ),
        (
            "log_targets = \"chan=debug\"".to_owned(),
            format!("log_targets (from {path}:1): there is no part chan; did you mean chain?"),
        ),
        (
            "log_targets = \"chain=loud\"".to_owned(),
            format!("log_targets (from {path}:1): chain: the level must be one of error, warn, info, debug, trace"),
        ),
        (
            format!("log_file = \"{log}\""),
            format!("log_file (from {path}:1): everybody can write to its directory: chmod o-w {open}"),
        ),
        (
            "log_file = \"/nonexistent/log\"".to_owned(),
            format!(
                "log_file (from {path}:1): its directory /nonexistent cannot be used: No such file or directory (os error 2); make it \
                 first"
            ),
        ),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, &text)?;
        for (arguments, code) in [(&["--check-config"][..], 2), (&[], 1)] {
            let output = bare.run(arguments, "")?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), said), (Some(code), format!("outriggerd: {expected}\n")), "{text}");
        }
        let output = bare.run(&["--check-config", "--json"], "")?;
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout)?, json!({ "fault": expected }));
    }
    assert!(!bare.home().join(".outrigger/signet").exists(), "nothing was touched");

    std::fs::write(&file, "")?;
    let variables = [
        (
            "OUTRIGGERD_NETWROK",
            "x",
            "unknown variable OUTRIGGERD_NETWROK in the environment; did you mean OUTRIGGERD_NETWORK?",
        ),
        (
            "OUTRIGGERD_BITCOIND_PASSWORD",
            "x",
            "bitcoind.password (from OUTRIGGERD_BITCOIND_PASSWORD): a secret stands in the configuration file, not in the environment",
        ),
        (
            "OUTRIGGERD_LOG_KEPT_FILES",
            "x",
            "log_kept_files (from OUTRIGGERD_LOG_KEPT_FILES): must be a whole number from 0 to 1000",
        ),
    ];
    for (name, value, expected) in variables {
        let mut bare = Bare::new()?;
        bare.set(name, value);
        let output = bare.run(&["--check-config"], "")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said), (Some(2), format!("outriggerd: {expected}\n")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bitcoind_is_found_by_its_data_directory_and_what_was_tried_is_told() -> Done<()> {
    on_regtest(async |regtest| {
        let chain = regtest.directory("bitcoind")?;
        let (address, data_dir) = (regtest.bitcoind.address(), chain.display().to_string());
        let bare = Bare::new()?;
        let by_directory = ["--bitcoind-url", &address, "--bitcoind-data-dir", &data_dir, "--listen", "127.0.0.1:0"];
        let mut running = bare.start(&by_directory)?;
        running.status(|status| status.phase == Phase::Ready).await?;
        let report = running.client().await?.call(ConfigGet::default()).await?;
        let cookie = chain.join("regtest/.cookie").display().to_string();
        let expected = (cookie.clone(), ConfigOrigin::BitcoindDirectory, Some(data_dir.clone()));
        assert_eq!(told(&report, "bitcoind.cookie")?, expected);
        assert_eq!(told(&report, "bitcoind.url")?.1, ConfigOrigin::Flag);
        let log = std::fs::read_to_string(bare.log())?;
        assert!(log.contains(&format!("auth=\"the cookie file {cookie}\" auth_from={data_dir}")), "{log}");
        drop(running);

        // A user and a password of the operator's own, which bitcoind knows by a hash.
        let salt_and_hash = "f7efda5c189b999524f151318c0c86$813956925e48871a2879bf04a87582de298af50695e3d5934992d70681726d0a";
        let rpcauth = format!("-rpcauth=op:{salt_and_hash}");
        regtest.bitcoind.restart_with(&[&rpcauth]).await?;
        let bare = Bare::new()?;
        bare.write(".outrigger/outrigger.toml", "[bitcoind]\nuser = \"op\"\npassword = \"wrong\"\n")?;
        let by_password = ["--bitcoind-url", &address, "--listen", "127.0.0.1:0"];
        let mut running = bare.start(&by_password)?;
        let file = bare.home().join(".outrigger/outrigger.toml").display().to_string();
        let expected = format!(
            "bitcoind: Unauthorized: HTTP status 401; correct the RPC user and password, or the path of the cookie file (tried for \
             credentials, in this order: bitcoind.user and bitcoind.password of {file}:3). {SAFE}"
        );
        let waits = running.status(is_told).await?;
        assert_eq!((waits.phase, waits.reason), (Phase::WaitingForBitcoind, Some(expected)));
        drop(running);
        bare.write(".outrigger/outrigger.toml", "[bitcoind]\nuser = \"op\"\npassword = \"canary\"\n")?;
        let mut running = bare.start(&by_password)?;
        running.status(|status| status.phase == Phase::Ready).await?;
        let report = running.client().await?.call(ConfigGet::default()).await?;
        assert_eq!(told(&report, "bitcoind.user")?, ("op".to_owned(), ConfigOrigin::File, Some(format!("{file}:3"))));
        assert_eq!(told(&report, "bitcoind.password")?.0, "(hidden)");
        Ok(())
    })
    .await
}

/// What is said of everything that keeps the node from its bitcoind.
const SAFE: &str =
    "Nothing is opened, accepted or paid until then; where channels are open do not leave it so for hours";

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_was_said_everything_that_was_tried_is_told_in_its_order() -> Done<()> {
    let fake = FakeBitcoind::start(|_| Err((-28, "not asked")))?;
    let bare = Bare::new()?;
    let conf = bare.write(".bitcoin/bitcoin.conf", "rpcauth=op:1$2\n[regtest]\ndatadir=/nowhere/at/all\n")?;
    let conf = conf.display();
    let mut running = bare.start(&["--bitcoind-url", fake.address()])?;
    let expected = format!(
        "bitcoind: NoCookie: /nowhere/at/all/regtest/.cookie: No such file or directory (os error 2); start bitcoind with server=1, or \
         correct the path of its cookie file (tried for credentials, in this order: bitcoind.user and bitcoind.password: not set; \
         bitcoind.cookie: not set; rpcpassword in {conf}: none; rpcauth of {conf}:1: only a hash; set bitcoind.user and \
         bitcoind.password to what it was made of; the cookie file /nowhere/at/all/regtest/.cookie). {SAFE}"
    );
    let waits = running.status(is_told).await?;
    assert_eq!((waits.phase, waits.reason), (Phase::WaitingForBitcoind, Some(expected)));
    assert_eq!(fake.shown(), Vec::<String>::new());
    Ok(())
}

/// A bitcoind that cannot be used, by what it answers.
fn unusable(method: &str, genesis: &str, pruned_from: Option<u32>) -> Result<serde_json::Value, (i32, &'static str)> {
    let hash = "11".repeat(32);
    match method {
        "getblockchaininfo" => Ok(json!({
            "blocks": 500, "headers": 500, "bestblockhash": hash, "initialblockdownload": false, "pruneheight": pruned_from,
        })),
        "getblockhash" => Ok(json!(genesis)),
        "getblockheader" => Ok(json!({
            "height": 500, "confirmations": 1, "previousblockhash": hash, "chainwork": "00".repeat(32), "time": 1, "mediantime": 1,
        })),
        _ => Err((-1, "not in the script")),
    }
}

const REGTEST_GENESIS: &str = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
const SIGNET_GENESIS: &str = "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6";

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_is_wrong_with_bitcoind_is_told_with_what_is_safe_and_what_to_do() -> Done<()> {
    let nobody = free_address()?;
    let not_bitcoind = FakeBitcoind::start(|_| Ok(json!("it works")))?;
    let warming = FakeBitcoind::start(|_| Err((-28, "Verifying blocks…")))?;
    let other = FakeBitcoind::start(|method| unusable(method, SIGNET_GENESIS, None))?;
    let pruned = FakeBitcoind::start(|method| unusable(method, REGTEST_GENESIS, Some(400)))?;
    let wait = Phase::WaitingForBitcoind;
    let cases: [(&str, &[&str], Phase, String); 6] = [
        (
            &nobody,
            &[],
            wait,
            format!(
                "bitcoind: Unreachable: {nobody}: Connection refused (os error 111); start bitcoind, or correct its RPC address. {SAFE}"
            ),
        ),
        (
            warming.address(),
            &[],
            wait,
            format!("bitcoind: WarmingUp: Verifying blocks…; wait: bitcoind is starting. {SAFE}"),
        ),
        (
            "192.0.2.1:8332",
            &[],
            wait,
            format!(
                "bitcoind: Remote: 192.0.2.1:8332 is not on this machine; use bitcoind on this machine or through a tunnel, or allow a \
                 remote one explicitly. {SAFE}"
            ),
        ),
        (
            other.address(),
            &[],
            Phase::Syncing,
            format!(
                "bitcoind follows another chain: its first block is {SIGNET_GENESIS}, that of regtest is {REGTEST_GENESIS}; connect to \
                 the right bitcoind"
            ),
        ),
        (
            pruned.address(),
            &["--wallet-start-height", "300"],
            Phase::Syncing,
            "wallet.start_height is 300, and bitcoind pruned that block and has blocks from 400 on: give a height from there on, or run \
             bitcoind with -reindex and less pruning"
                .to_owned(),
        ),
        (
            pruned.address(),
            &["--wallet-start-height", "501"],
            Phase::Syncing,
            "wallet.start_height is 501, and bitcoind's newest block is 500: give the height of a block that is there".to_owned(),
        ),
    ];
    for (address, more, phase, reason) in cases {
        let bare = Bare::new()?;
        bare.write(".bitcoin/regtest/.cookie", "__cookie__:00")?;
        let mut running = bare.start(&[&["--bitcoind-url", address][..], more].concat())?;
        let status = running.status(is_told).await?;
        assert_eq!((status.phase, status.reason), (phase, Some(reason)));
    }
    let bare = Bare::new()?;
    bare.write(".bitcoin/regtest/.cookie", "__cookie__:00")?;
    let mut running = bare.start(&["--bitcoind-url", not_bitcoind.address()])?;
    let reason = running.status(is_told).await?.reason.ok_or("a reason")?;
    assert!(reason.ends_with(&format!("check that the RPC address is that of a bitcoind. {SAFE}")), "{reason}");
    Ok(())
}

fn free_address() -> Done<String> {
    Ok(format!("127.0.0.1:{}", outrigger_integration::bitcoind::free_port()?))
}

#[test]
fn each_thing_that_keeps_a_node_from_starting_is_told_with_what_is_safe_and_what_to_do() -> Done<()> {
    let bare = Bare::new()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let file = bare.write("a-file", "")?.display().to_string();
    let cases = [
        (
            vec!["--rpc-address", &taken],
            1,
            format!(
                "cannot listen for JSON-RPC on {taken}: Address already in use (os error 98). Nothing was started. Where another program \
                 has the port, stop it or choose another with rpc.address (--rpc-address); port 0 takes any that is free"
            ),
        ),
        (
            vec!["--data-dir", &file],
            3,
            format!(
                "the data directory {file}/regtest cannot be used: Not a directory (os error 20). Nothing was changed. See that it is \
                 there, ours and on a disk that can be written, or choose another with --data-dir"
            ),
        ),
        (
            vec!["--network", "mainnet"],
            1,
            "network (from --network): mainnet is refused: this version cannot yet collect every output of a channel that a peer closes \
             alone, so real money could be lost; use signet or regtest"
                .to_owned(),
        ),
    ];
    for (arguments, code, expected) in cases {
        let network: &[&str] = if arguments.contains(&"--network") { &[] } else { &["--network", "regtest"] };
        let output = bare.run(&[network, &arguments].concat(), "")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), said.lines().last()),
            (Some(code), Some(&*format!("outriggerd: {expected}")))
        );
    }
    Ok(())
}

#[test]
fn bad_input_96_a_disk_without_room_stops_a_first_start_with_words() -> Done<()> {
    let bare = Bare::new()?;
    // Files of more than so many KiB are refused, as on a full disk.
    let program = bare.command(&[])?.get_program().to_owned();
    let mut command = Command::new("bash");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --network regtest --rpc-address 127.0.0.1:0"])
        .arg(program);
    let output = command.env_clear().env("HOME", bare.home()).env("PATH", "/usr/bin:/bin").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("outriggerd: ") && last.contains("File too large (os error 27)"), "{said}");
    assert!(last.contains("nothing was sent, so restarting is safe once the disk is well"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_told_before_the_store_is_open_and_while_it_cannot_be() -> Done<()> {
    let bare = Bare::new()?;
    let output = bare.run(&["init", "--network", "regtest", "--json"], "")?;
    assert_eq!(output.status.code(), Some(0));
    // Who reads this waits for whoever writes: the store is not opened before.
    let pipe = bare.network_dir().join("generation");
    assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
    let mut running = bare.start(&[])?;
    let client = running.client().await?;
    let status = running.status(|_| true).await?;
    assert_eq!((status.phase, status.network.as_str()), (Phase::Starting, "regtest"));
    assert_eq!(status.reason.as_deref(), Some("the database is being opened and checked"));
    for answer in [client.call(NodeInfo {}).await.map(drop), client.call(WalletBalance {}).await.map(drop)] {
        let Err(CallError::Refused(refusal)) = answer else { panic!("{answer:?}") };
        let data = refusal.data.ok_or("data")?;
        assert_eq!((refusal.code, data.kind.as_str(), data.retryable), (1001, "starting", true));
    }
    // What needs no store is answered.
    assert!(client.call(ConfigGet::default()).await?.items.len() > 40);
    std::fs::write(&pipe, "no generation")?;
    assert_eq!(running.ended().await?.code(), Some(1));
    let log = std::fs::read_to_string(bare.log())?;
    assert!(log.lines().last().is_some_and(|line| line.contains("is not as it was written")), "{log}");

    // A node that is asked to stop while its store cannot be opened ends.
    let mut running = bare.start(&[])?;
    let client = running.client().await?;
    client.call(NodeStop {}).await?;
    assert_eq!(running.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clk_2_a_clock_that_is_behind_the_chain_is_told() -> Done<()> {
    on_regtest(async |regtest| {
        let node = regtest.sidecar("alice").await?;
        assert_eq!(node.call(NodeStatus {}).await?.clock, None);
        // The chain's time is the median of eleven blocks.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        regtest.bitcoind.call("setmocktime", json!([now + 4 * 3600])).await?;
        regtest.bitcoind.mine_to_nobody(12).await?;
        let told = until(LIMIT, "the clock to be told of", async || Ok(node.call(NodeStatus {}).await?.clock)).await?;
        assert_eq!(
            told,
            "the machine's clock is more than two hours behind the chain: set the machine's clock. Nothing is lost: where it is \
             behind, the chain's time counts in invoices and updates"
        );
        node.until_ready().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_for_peers_that_is_taken_is_told_by_its_address() -> Done<()> {
    on_regtest(async |regtest| {
        let bitcoind: &Bitcoind = &regtest.bitcoind;
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let taken = taken.local_addr()?.to_string();
        let bare = Bare::new()?;
        let cookie = bitcoind.cookie().display().to_string();
        let arguments = ["--bitcoind-url", &bitcoind.address(), "--bitcoind-cookie", &cookie, "--listen", &taken];
        let mut running = bare.start(&arguments)?;
        assert_eq!(running.ended().await?.code(), Some(1));
        let log = std::fs::read_to_string(bare.log())?;
        let expected = format!(
            "outriggerd: cannot listen for peers on {taken}: Address already in use (os error 98). Nothing is lost. Where another program \
             has the port, stop it or choose another with listen (--listen)"
        );
        assert_eq!(log.lines().last(), Some(&*expected));
        Ok(())
    })
    .await
}

/// Every file below a directory.
fn files_below(directory: &Path) -> Done<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The memory of a process that crashes has the seed in it. Whoever starts the daemon lets it leave as large a core as the machine
/// allows.
#[tokio::test(flavor = "multi_thread")]
async fn key_5_a_daemon_that_crashes_leaves_no_core_file_and_no_word_of_its_seed() -> Done<()> {
    on_regtest(async |regtest| {
        let bare = Bare::new()?;
        let cookie = regtest.bitcoind.cookie().display().to_string();
        let log = bare.home().join("daemon.log").display().to_string();
        let daemon =
            bare.command(&["--network", "regtest", "--rpc-address", "127.0.0.1:0", "--listen", "127.0.0.1:0"])?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -c $(ulimit -H -c) && exec \"$0\" \"$@\""]).arg(daemon.get_program());
        command.args(daemon.get_args()).args(["--log-level", "trace", "--log-file", &log, "--disk-reserve-bytes", "0"]);
        command.args(["--bitcoind-url", &regtest.bitcoind.address(), "--bitcoind-cookie", &cookie]);
        command.env_clear().env("HOME", bare.home()).env("PATH", "/usr/bin:/bin").current_dir(bare.home());
        command.stdout(File::create(bare.home().join("stdout.log"))?).stderr(File::create(bare.log())?);
        let mut child = command.stdin(Stdio::null()).spawn()?;
        let ready = until(LIMIT, "the daemon to be ready", async || {
            let Ok(client) = Client::in_directory(&bare.network_dir()) else { return Ok(None) };
            let status = client.call(NodeStatus {}).await.ok();
            Ok(status.filter(|status| status.phase == Phase::Ready))
        });
        let ready = ready.await;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()));
        let asked = Command::new("/bin/sh").arg("-c").arg(format!("kill -ABRT {}", child.id())).status()?;
        let ended = until(LIMIT, "the daemon to end", async || Ok(child.try_wait()?)).await?;
        ready?;
        assert!(asked.success());
        assert_eq!(ended.signal(), Some(SIGABRT), "{ended}");
        // A program that the kernel hands cores to is started all the same, and told the limit.
        let is_piped = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?.starts_with('|');
        assert!(is_piped || !ended.core_dumped(), "{ended}");
        let limits = limits?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).ok_or("no such limit")?;
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");

        let seed = bare.network_dir().join("seed");
        let words = std::fs::read_to_string(&seed)?;
        let words: Vec<_> = words.split_whitespace().collect();
        let (files, mut logs) = (files_below(bare.home())?, 0);
        for file in files.iter().filter(|file| **file != seed) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            assert!(!name.starts_with("core"), "{}", file.display());
            let bytes = std::fs::read(file)?;
            let text = String::from_utf8_lossy(&bytes);
            // Three of them that follow each other do not come about by chance.
            let told = words.windows(3).find(|three| text.contains(&three.join(" ")));
            assert!(told.is_none(), "{} has words of the seed", file.display());
            logs += usize::from(name.ends_with(".log") && !bytes.is_empty());
        }
        assert!(logs > 0 && words.len() == 24, "there is something to look through: {files:?}");
        Ok(())
    })
    .await
}

/// A value as it stands in the file, and what it must be instead where it is refused.
type Tried = (String, Option<String>);

/// The values at the limits of what an option takes, and those beyond.
fn around_the_limits(takes: &OptionTakes) -> Done<Vec<Tried>> {
    if let Some(choices) = &takes.choices {
        let (last, rest) = choices.split_last().ok_or("a choice")?;
        let refusal = format!("{} or {last}", rest.join(", "));
        let fit = choices.iter().map(|choice| (format!("{choice:?}"), None));
        return Ok(fit.chain([("\"no-such\"".to_owned(), Some(refusal))]).collect());
    }
    if let Some(longest) = takes.longest_bytes {
        let text = |length: u16| format!("{:?}", "a".repeat(usize::from(length)));
        let refusal = format!("a text of at most {longest} bytes without control characters");
        let bell = ("\"\\u0007\"".to_owned(), Some(refusal.clone()));
        return Ok(vec![(text(longest), None), (text(longest + 1), Some(refusal)), bell]);
    }
    Ok(match (takes.kind, &takes.least, &takes.most) {
        (OptionKind::Integer, Some(least), Some(most)) => {
            let refusal = Some(format!("a whole number from {least} to {most}"));
            let (below, above) = (least.parse::<i64>()? - 1, most.parse::<i64>()? + 1);
            let beyond = [below.to_string(), above.to_string(), "1.5".to_owned(), "\"1\"".to_owned()];
            let fit = [least, most].map(|number| (number.clone(), None));
            fit.into_iter().chain(beyond.map(|value| (value, refusal.clone()))).collect()
        }
        (OptionKind::Boolean, ..) => {
            let refusal = Some("true or false".to_owned());
            vec![("true".to_owned(), None), ("\"true\"".to_owned(), refusal.clone()), ("1".to_owned(), refusal)]
        }
        (OptionKind::List, ..) => {
            let refusal = Some("a list of texts: the program and its arguments".to_owned());
            vec![
                ("[\"keep\", \"x\"]".to_owned(), None),
                ("[]".to_owned(), refusal.clone()),
                ("\"keep\"".to_owned(), refusal),
            ]
        }
        (OptionKind::Text, None, None) => vec![("5".to_owned(), Some("a text".to_owned()))],
        other => return Err(format!("whole numbers alone have a range: {other:?}").into()),
    })
}

/// A file with one option and what must stand beside it.
fn file_with(option: &PluginOption, value: &str) -> Done<String> {
    let Some((section, name)) = option.name.split_once('.') else { return Ok(format!("{} = {value}\n", option.name)) };
    if !option.repeats {
        return Ok(format!("[{section}]\n{name} = {value}\n"));
    }
    let first = option.only_of_kinds.as_ref().and_then(|kinds| kinds.first()).map_or("mirror", String::as_str);
    let kind = if name == "kind" { value.trim_matches('"') } else { first };
    let place = if kind == "command" { ("command", "[\"keep\"]") } else { ("path", "\"/m\"") };
    let quoted = format!("{kind:?}");
    let whole = [("name", "\"a\""), ("kind", quoted.as_str()), ("requirement", "\"follow\""), place];
    let mut text = format!("[[{section}]]\n{name} = {value}\n");
    whole.iter().filter(|(key, _)| *key != name).for_each(|(key, value)| text.push_str(&format!("{key} = {value}\n")));
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_88_every_option_is_told_with_what_it_takes_and_nothing_else_is_taken() -> Done<()> {
    let host = Bare::new()?;
    let place = host.home().join("files");
    std::fs::create_dir(&place)?;
    let place = place.display().to_string();
    let backup = format!(
        "alias = \"x\"\n[[backup]]\nname = \"files\"\nkind = \"directory\"\nrequirement = \"follow\"\npath = \"{place}\"\n\
         [[backup]]\nname = \"own\"\nkind = \"command\"\nrequirement = \"follow\"\ncommand = [\"true\", \"canary-secret\"]\n"
    );
    let file = host.write(".outrigger/outrigger.toml", &backup)?.display().to_string();
    let mut running = host.start(&["--listen", "127.0.0.1:0"])?;
    let client = running.client().await?;
    let (manifest, report) = (client.call(PluginManifest {}).await?, client.call(ConfigGet::default()).await?);
    let at = |line| (ConfigOrigin::File, Some(format!("{file}:{line}")));
    for (key, value, (origin, place)) in [
        ("backup.files.name", "files", at(3)),
        ("backup.files.kind", "directory", at(4)),
        ("backup.files.path", place.as_str(), at(6)),
        ("backup.files.consolidate_every", "100", (ConfigOrigin::Default, None)),
        ("backup.own.kind", "command", at(9)),
        ("backup.own.verify_every_hours", "24", (ConfigOrigin::Default, None)),
        ("backup.own.command", "true", at(11)),
    ] {
        assert_eq!(told(&report, key)?, (value.to_owned(), origin, place), "{key}");
    }
    assert!(item(&report, "backup.own.path").is_err(), "no key of a command");
    assert!(!json!(report).to_string().contains("canary-secret"));

    let other = Bare::new()?;
    for option in &manifest.options {
        let key = if option.repeats { option.name.replacen('.', ".files.", 1) } else { option.name.clone() };
        let is_told = option.only_of_kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind == "directory"));
        assert_eq!(item(&report, &key).ok().map(|item| &item.takes), is_told.then_some(&option.takes), "{key}");
        for (value, refusal) in around_the_limits(&option.takes)? {
            let path = other.write(".outrigger/outrigger.toml", &file_with(option, &value)?)?;
            let output = other.run(&["--check-config"], "")?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let line = if option.name.contains('.') { 2 } else { 1 };
            let from = format!("outriggerd: {} (from {}:{line}): must be ", option.name, path.display());
            match refusal {
                Some(fit) => {
                    assert_eq!((said, output.status.code()), (format!("{from}{fit}\n"), Some(2)), "{value}");
                }
                // It may be at odds with another key, as where the smallest channel is to be above the largest.
                None => assert!(!said.starts_with(&from), "{} = {value}: {said}", option.name),
            }
        }
    }
    let named = |name: &str| manifest.options.iter().find(|option| option.name == name).ok_or(name.to_owned());
    assert_eq!(named("forwarding.cltv_expiry_delta")?.takes.least.as_deref(), Some("34"));
    assert_eq!(
        named("backup.kind")?.takes.choices.as_deref(),
        Some(&["mirror", "directory", "command"].map(str::to_owned)[..])
    );
    Ok(())
}
