//! A daemon among callers that send anything, beside a second instance, and on a disk that refuses.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use outrigger_integration::bitcoind::free_port;
use outrigger_integration::sidecar::executable;
use outrigger_integration::{Bitcoind, Client, Dice, Done, on_regtest, until};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{CallError, ChannelList, InvoiceCreate, InvoiceGet, NodeStatus, Phase};
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};

/// Time for one step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Calls of each method; `OUTRIGGER_CALLS` sets another number.
const CALLS: u64 = 40;
/// What a process ends with when the disk refused.
const STORAGE_EXIT_CODE: Option<i32> = Some(3);

/// The interface as it is published.
const DOCUMENT: &str = include_str!("../../rpc-schema/openrpc.json");

#[tokio::test(flavor = "multi_thread")]
async fn prs_8_calls_made_from_the_schema_never_stop_a_live_node() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, 1_000_000, 0).await?;
        let document: Value = serde_json::from_str(DOCUMENT)?;
        let known = Known {
            texts: vec![
                alice.node_id().await?,
                bob.node_id().await?,
                bob.address(),
                opened.channel_id.clone(),
                alice.invoice(1_000, "to ourselves").await?,
                bob.invoice(1_000, "to the other").await?,
                "00".repeat(32),
                "ff".repeat(33),
                String::new(),
                "é\u{202e}\0日".repeat(40),
                "x".repeat(20_000),
                "-1".to_owned(),
                "' OR 1=1; --".to_owned(),
                format!("127.0.0.1:{}", free_port()?),
            ],
        };
        let mut dice = Dice::thrown()?;
        let calls = std::env::var("OUTRIGGER_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(CALLS);
        let kinds: Vec<&String> = document["components"]["errors"].as_object().ok_or("no errors")?.keys().collect();
        let (mut answered, mut refused) = (0_u32, 0_u32);
        for method in document["methods"].as_array().ok_or("no methods")? {
            let name = method["name"].as_str().ok_or("no name")?;
            // It does what it says; it has no parameters to get wrong.
            if name == "node.stop" {
                continue;
            }
            for _ in 0..calls {
                let parameters = known.parameters(&mut dice, method)?;
                match alice.client().call_untyped(name, &parameters).await {
                    Ok(answer) => {
                        assert!(answer.is_object(), "{name} {parameters:?}: {answer}");
                        answered += 1;
                    }
                    Err(CallError::Refused(refusal)) => {
                        let data =
                            refusal.data.as_ref().ok_or_else(|| format!("{name} {parameters:?}: {refusal:?}"))?;
                        let kind = data.kind.to_string();
                        assert!(kinds.contains(&&kind), "{name} {parameters:?}: {kind} is not in the document");
                        assert_ne!(kind, "internal", "{name} {parameters:?}: {}", refusal.message);
                        refused += 1;
                    }
                    Err(other) => return Err(format!("{name} {parameters:?}: {other}").into()),
                }
            }
        }
        assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
        println!("{answered} calls were answered and {refused} refused");
        for node in [&alice, &bob] {
            assert_eq!(node.call(NodeStatus {}).await?.phase, Phase::Ready);
            let log = std::fs::read_to_string(node.directory().join("outriggerd.log"))?;
            assert!(!log.contains("panicked"), "{log}");
        }
        Ok(())
    })
    .await
}

/// Texts that mean something to this node, and some that nobody expects.
struct Known {
    texts: Vec<String>,
}

impl Known {
    /// Mostly what the schema wants, each value from the ends of what it may be.
    fn parameters(&self, dice: &mut Dice, method: &Value) -> Done<Map<String, Value>> {
        let mut given = Map::new();
        for parameter in method["params"].as_array().ok_or("no parameters")? {
            let name = parameter["name"].as_str().ok_or("no name")?;
            let is_required = parameter["required"] == true;
            if dice.below(10) < if is_required { 9 } else { 5 } {
                given.insert(name.to_owned(), self.value(dice, name, &parameter["schema"]));
            }
        }
        if dice.below(20) == 0 {
            given.insert("nobody_knows".to_owned(), json!(1));
        }
        Ok(given)
    }

    fn value(&self, dice: &mut Dice, name: &str, schema: &Value) -> Value {
        if dice.below(8) == 0 {
            return self.misfit(dice);
        }
        if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.is_empty()) {
            return choices[usize::try_from(dice.below(choices.len() as u64)).unwrap_or_default()].clone();
        }
        match schema["type"].as_str() {
            // Waiting is not what is tested here.
            Some("integer") if name == "timeout_secs" => json!(dice.below(2)),
            Some("integer") => {
                let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
                let least = schema["minimum"].as_u64().unwrap_or(0);
                let near = dice.one_of([0, 1, 2, 546, 999, 1000, 21_000, 1 << 31, 1 << 32, (1 << 53) + 1]);
                json!(dice.one_of([least, most, near, most.wrapping_sub(1), least.wrapping_add(1), u64::MAX]))
            }
            Some("boolean") => json!(dice.below(2) == 0),
            Some("array") => (0..dice.below(4)).map(|_| self.value(dice, name, &schema["items"])).collect(),
            _ => self.text(dice),
        }
    }

    fn text(&self, dice: &mut Dice) -> Value {
        let text = &self.texts[usize::try_from(dice.below(self.texts.len() as u64)).unwrap_or_default()];
        // Now and then cut or bent.
        match dice.below(6) {
            0 => json!(text.chars().skip(1).collect::<String>()),
            1 => json!(text.chars().rev().collect::<String>()),
            _ => json!(text),
        }
    }

    fn misfit(&self, dice: &mut Dice) -> Value {
        match dice.below(7) {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(1.5),
            3 => json!({ "a": [1] }),
            4 => json!([[]]),
            5 => json!(true),
            _ => self.text(dice),
        }
    }
}

/// The arguments of a daemon over this data directory.
fn arguments(directory: &Path, bitcoind: &Bitcoind) -> Done<Vec<String>> {
    let pairs = [
        ("--network", "regtest".to_owned()),
        ("--data-dir", directory.display().to_string()),
        ("--bitcoind-url", bitcoind.address()),
        ("--bitcoind-cookie", bitcoind.cookie().display().to_string()),
        ("--listen", format!("127.0.0.1:{}", free_port()?)),
        ("--rpc-address", "127.0.0.1:0".to_owned()),
    ];
    Ok(pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect())
}

/// How a daemon ended, and what it said.
async fn ended(child: Child) -> Done<(ExitStatus, String)> {
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await??;
    Ok((output.status, String::from_utf8(output.stderr)?))
}

fn daemon(command: &mut Command) -> Done<Child> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    Ok(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_90_a_second_instance_names_pid_and_lock_and_leaves_the_first_alone() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = regtest.sidecar("alice").await?;
        let network = network_directory(alice.directory(), "regtest");
        let address = std::fs::read_to_string(network.join(ADDRESS_FILE))?;
        let second = daemon(Command::new(executable()?).args(arguments(alice.directory(), &regtest.bitcoind)?))?;
        let (status, said) = ended(second).await?;
        assert_eq!(status.code(), Some(1));
        let pid = alice.pid().ok_or("no process")?;
        let lock = network.join("lock");
        let expected = format!(
            "outriggerd: another outriggerd (process {pid}) runs on {}: stop it first; two would lose money\n",
            lock.display()
        );
        assert_eq!(said, expected, "nothing but these words");
        assert_eq!(std::fs::read_to_string(network.join(ADDRESS_FILE))?, address, "callers still find the first");
        assert_eq!(alice.call(NodeStatus {}).await?.phase, Phase::Ready);
        Ok(())
    })
    .await
}

/// Starts a daemon over a file that is damaged; gives how it ended and what it said, or nothing where it runs.
async fn over_damage(directory: &Path, bitcoind: &Bitcoind, file: &[u8]) -> Done<Option<(ExitStatus, String)>> {
    let network = network_directory(directory, "regtest");
    std::fs::write(network.join("outrigger.redb"), file)?;
    drop(std::fs::remove_file(network.join(ADDRESS_FILE)));
    let mut child = daemon(Command::new(executable()?).args(arguments(directory, bitcoind)?))?;
    let runs = until(LIMIT, "the daemon to answer or to end", async || {
        if child.try_wait()?.is_some() {
            return Ok(Some(false));
        }
        let Ok(client) = Client::in_directory(&network) else { return Ok(None) };
        Ok(client.call(ChannelList::default()).await.ok().map(|_| true))
    })
    .await?;
    if runs {
        child.kill().await?;
        return Ok(None);
    }
    ended(child).await.map(Some)
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_91_a_damaged_file_ends_the_start_with_words_and_is_never_made_anew() -> Done<()> {
    on_regtest(async |regtest| {
        let mut alice = regtest.sidecar("alice").await?;
        alice.invoice(1_000, "a row").await?;
        alice.stop().await?;
        let directory = alice.directory().to_owned();
        let path = network_directory(&directory, "regtest").join("outrigger.redb");
        let whole = std::fs::read(&path)?;
        let mut foreign = whole.clone();
        foreign[0] ^= 1;
        let half = whole.len() / 2;
        for file in [vec![], foreign, whole[..half].to_vec(), whole[..4096].to_vec(), vec![0; whole.len()]] {
            let (status, said) = over_damage(&directory, &regtest.bitcoind, &file).await?.ok_or("it started")?;
            assert_eq!(status.code(), Some(1), "{said}");
            assert!(said.contains("do not delete it") && said.contains("start from no older copy"), "{said}");
            assert!(!said.contains("panicked"), "{said}");
            assert_eq!(std::fs::read(&path)?, file, "nothing was overwritten");
        }
        // The first bytes of each page in use say what the page is: redb believes them, and the operator is told the same.
        let in_use = (1..whole.len() / 4096).map(|page| page * 4096).filter(|page| whole[*page..page + 8] != [0; 8]);
        let mut refused = 0;
        for page in in_use.take(24) {
            let mut bent = whole.clone();
            bent[page] ^= 0xff;
            if let Some((status, said)) = over_damage(&directory, &regtest.bitcoind, &bent).await? {
                assert!(!status.success() && said.contains("do not delete it"), "page {}: {said}", page / 4096);
                refused += 1;
            }
        }
        assert!(refused > 0, "no page mattered");
        // A page that did not matter let it run, and its generation rise: this file is older than that one was.
        std::fs::write(&path, &whole)?;
        for beside in ["generation", "outrigger.journal"] {
            std::fs::remove_file(network_directory(&directory, "regtest").join(beside))?;
        }
        alice.start_again().await
    })
    .await
}

/// A shell's words that start the daemon where files cannot grow over so many KiB. The signal of that limit is not heard,
/// so that writes fail as on a full disk.
fn limited(directory: &Path, bitcoind: &Bitcoind, kib: u64) -> Done<Command> {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"")).arg("bash").arg(executable()?);
    command.args(arguments(directory, bitcoind)?);
    Ok(command)
}

fn assert_stopped_for_storage((status, said): &(ExitStatus, String), reason: &str) {
    assert_eq!(status.code(), STORAGE_EXIT_CODE, "{said}");
    assert!(said.contains(reason), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_96_dsk_8_a_disk_that_takes_no_more_stops_the_process_and_loses_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let directory = regtest.directory("alice")?;
        // The very first start already finds no room.
        let first = daemon(&mut limited(&directory, &regtest.bitcoind, 4)?)?;
        assert_stopped_for_storage(&ended(first).await?, "File too large");

        let mut alice = regtest.sidecar("alice").await?;
        alice.stop().await?;
        // The journal has its length from the first start on: it is the database that meets the limit.
        let network = network_directory(&directory, "regtest");
        let longest = ["outrigger.redb", "outrigger.journal"].map(|name| std::fs::metadata(network.join(name)));
        let [database, journal] = longest.map(|found| found.map(|found| found.len()));
        let room = database?.max(journal?) / 1024 + 64;
        let child = daemon(&mut limited(&directory, &regtest.bitcoind, room)?)?;
        let client = reached(&directory).await?;
        let answered = fill(&client).await?;
        assert_stopped_for_storage(&ended(child).await?, "restarting is safe once the disk is well");

        // With room again it goes on, and has all that it ever answered.
        alice.start_again().await?;
        for payment_hash in &answered {
            alice.call(InvoiceGet { payment_hash: payment_hash.clone() }).await?;
        }
        println!("{} invoices were answered before the disk was full", answered.len());
        assert!(!answered.is_empty());
        Ok(())
    })
    .await
}

/// Waits until a daemon in this directory answers.
async fn reached(directory: &Path) -> Done<Client> {
    let network = network_directory(directory, "regtest");
    until(LIMIT, "the daemon's interface", async || {
        let Ok(client) = Client::in_directory(&network) else { return Ok(None) };
        Ok(client.call(NodeStatus {}).await.ok().filter(|status| status.phase == Phase::Ready).map(|_| client))
    })
    .await
}

/// Makes invoices until the daemon is gone; gives the payment hashes of those that it answered.
async fn fill(client: &Client) -> Done<Vec<String>> {
    let mut answered = Vec::new();
    for _ in 0..8000 {
        let order = InvoiceCreate { amount_msat: Some(1000), description: "x".repeat(600), ..Default::default() };
        let at_once = std::array::from_fn::<_, 8, _>(|_| client.call(order.clone()));
        let [a, b, c, d, e, f, g, h] = at_once;
        let (a, b, c, d, e, f, g, h) = tokio::join!(a, b, c, d, e, f, g, h);
        let before = answered.len();
        answered.extend([a, b, c, d, e, f, g, h].into_iter().flatten().map(|invoice| invoice.payment_hash));
        if answered.len() < before + 8 {
            return Ok(answered);
        }
    }
    Err("the disk never filled up".into())
}

/// The daemon in a mount namespace of its own, after these words have arranged the file system at `$DIR`.
fn in_namespace(directory: &Path, bitcoind: &Bitcoind, mounts: &str) -> Done<Command> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "bash", "-c", &format!("{mounts} && exec \"$@\""), "bash"]);
    command.arg(executable()?).args(arguments(directory, bitcoind)?).env("DIR", directory);
    Ok(command)
}

/// Whether this machine lets us mount in a namespace of our own.
async fn can_mount(directory: &Path) -> bool {
    let words = "mount -t tmpfs -o size=1m tmpfs \"$DIR\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "bash", "-c", words]).env("DIR", directory).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Where the machine does not let us mount, the limit on files above is what proves the outcome.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_96_a_read_only_or_full_file_system_stops_the_process() -> Done<()> {
    on_regtest(async |regtest| {
        let mut alice = regtest.sidecar("alice").await?;
        alice.stop().await?;
        let directory = alice.directory().to_owned();
        if !can_mount(&directory).await {
            println!("this machine lets nobody mount: only bad_input_96_dsk_8 proves the outcome here");
            return Ok(());
        }
        let before = files(&directory)?;
        let read_only = "mount --bind \"$DIR\" \"$DIR\" && mount -o remount,ro,bind \"$DIR\"";
        let child = daemon(&mut in_namespace(&directory, &regtest.bitcoind, read_only)?)?;
        assert_stopped_for_storage(&ended(child).await?, "Read-only file system");
        assert_eq!(files(&directory)?, before, "nothing was written");

        let empty = regtest.directory("bob")?;
        let full = "mount -t tmpfs -o size=64k tmpfs \"$DIR\"";
        let child = daemon(&mut in_namespace(&empty, &regtest.bitcoind, full)?)?;
        assert_stopped_for_storage(&ended(child).await?, "No space left on device");
        Ok(())
    })
    .await
}

/// Every file below, with its content.
fn files(directory: &Path) -> Done<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push((path.clone(), std::fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}
