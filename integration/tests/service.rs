//! The daemon beside what supervises it: systemd over its notification socket, and bitcoind over its notify lines.

use std::collections::VecDeque;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outrigger_integration::bitcoind::free_port;
use outrigger_integration::sidecar::{cli_executable, executable};
use outrigger_integration::{Bitcoind, Client, Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::SOCKET_FILE;
use outrigger_rpc_schema::{InvoiceCreate, NodeInfo, NodeStatus, Phase};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(60);

/// What systemd would be at the other end of `NOTIFY_SOCKET`.
struct Systemd {
    socket: UnixDatagram,
    heard: VecDeque<String>,
}

impl Systemd {
    fn new(socket: UnixDatagram) -> Done<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, heard: VecDeque::new() })
    }

    fn at(path: &Path) -> Done<Self> {
        Self::new(UnixDatagram::bind(path)?)
    }

    fn hear(&mut self) {
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            self.heard.push_back(String::from_utf8_lossy(&message[..length]).into_owned());
        }
    }

    /// The next message.
    async fn next(&mut self) -> Done<String> {
        until(LIMIT, "a message to the supervisor", async || {
            self.hear();
            Ok(self.heard.pop_front())
        })
        .await
    }

    /// All messages up to the first that begins so, it too.
    async fn up_to(&mut self, begin: &str) -> Done<Vec<String>> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.next().await.map_err(|fault| format!("{fault}: {begin:?} did not come: {messages:?}"))?);
            if messages.last().is_some_and(|message| message.starts_with(begin)) {
                return Ok(messages);
            }
        }
    }
}

/// The environment that systemd gives to a service.
fn environment(socket: &str, watchdog_micros: u64) -> Vec<(String, String)> {
    let named = |name: &str, value: String| (name.to_owned(), value);
    vec![named("NOTIFY_SOCKET", socket.to_owned()), named("WATCHDOG_USEC", watchdog_micros.to_string())]
}

async fn start(regtest: &Regtest, environment: &[(String, String)], more: &[&str]) -> Done<Sidecar> {
    let (directory, bitcoind) = (regtest.directory("alice")?, &regtest.bitcoind);
    Sidecar::start_in(environment, &directory, "alice", &bitcoind.address(), bitcoind, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_the_start_the_chain_signs_of_life_and_the_end_in_this_order() -> Done<()> {
    on_regtest(async |regtest| {
        let path = regtest.directory("systemd")?.join("notify");
        let mut systemd = Systemd::at(&path)?;
        let mut alice = start(regtest, &environment(&path.display().to_string(), 2_000_000), &[]).await?;
        let first = systemd.next().await?;
        assert!(first.starts_with("STATUS=regtest: starting"), "{first}");
        let before = systemd.up_to("READY=1").await?;
        assert!(!before.contains(&"WATCHDOG=1".to_owned()), "no beat before the node is there: {before:?}");
        systemd.up_to("WATCHDOG=1").await?;
        regtest.bitcoind.mine_to_nobody(1).await?;
        systemd.up_to("STATUS=regtest: ready, block 2").await?;
        systemd.up_to("WATCHDOG=1").await?;

        regtest.bitcoind.stop().await?;
        // One that is just stopping may call itself busy first.
        let says_so = |line: &String| line.contains("start bitcoind");
        while !systemd.up_to("STATUS=regtest: waiting for bitcoind, block 2; ").await?.last().is_some_and(says_so) {}
        // A node that waits for bitcoind is alive.
        systemd.up_to("WATCHDOG=1").await?;
        alice.stop().await?;
        let rest = systemd.up_to("STOPPING=1").await?;
        assert_eq!(rest.last().map(String::as_str), Some("STOPPING=1\nSTATUS=stopping"));
        systemd.hear();
        assert!(systemd.heard.iter().all(|message| message == "WATCHDOG=1"), "{:?}", systemd.heard);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_found_under_an_abstract_name_and_its_absence_stops_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let name = format!("outrigger-test-{}", std::process::id());
        let mut systemd = Systemd::new(UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?)?;
        let other_process = ("WATCHDOG_PID".to_owned(), "1".to_owned());
        let mut named = environment(&format!("@{name}"), 1_000);
        named.push(other_process);
        let mut alice = start(regtest, &named, &[]).await?;
        let heard = systemd.up_to("STATUS=regtest: ready, block 1").await?;
        assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
        drop(systemd);
        alice.stop().await?;
        let said = std::fs::read_to_string(alice.directory().join("outriggerd.log"))?;
        assert_eq!(said.matches("the supervisor (NOTIFY_SOCKET) cannot be told").count(), 1, "{said}");

        let mut alone = start(regtest, &environment("nowhere", 1_000), &[]).await?;
        alone.stop().await?;
        let said = std::fs::read_to_string(alone.directory().join("outriggerd.log"))?;
        assert!(said.contains("it must be an absolute path, or @ and a name"), "{said}");
        Ok(())
    })
    .await
}

/// Stands before the syncs of a process: while the file is there that `STALL` names, none comes back.
const STALLING_DISK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void stall(void) {
  const char *file = getenv("STALL");
  while (file && access(file, F_OK) == 0)
    usleep(20000);
}
int fsync(int file) { stall(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file); }
int fdatasync(int file) { stall(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file); }
"#;

async fn stalling_disk(directory: &Path) -> Done<PathBuf> {
    let (source, library) = (directory.join("stall.c"), directory.join("stall.so"));
    std::fs::write(&source, STALLING_DISK)?;
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    let built = built.await?;
    assert!(built.status.success(), "{built:?}");
    Ok(library)
}

#[tokio::test(flavor = "multi_thread")]
async fn dsk_signs_of_life_end_while_the_writer_stands_still_and_come_back_with_it() -> Done<()> {
    on_regtest(async |regtest| {
        let directory = regtest.directory("systemd")?;
        let (path, stall) = (directory.join("notify"), directory.join("stall"));
        let mut systemd = Systemd::at(&path)?;
        let library = stalling_disk(&directory).await?.display().to_string();
        let mut given = environment(&path.display().to_string(), 2_000_000);
        given.push(("LD_PRELOAD".to_owned(), library));
        given.push(("STALL".to_owned(), stall.display().to_string()));
        let mut alice = start(regtest, &given, &[]).await?;
        systemd.up_to("WATCHDOG=1").await?;

        std::fs::write(&stall, "")?;
        let client = alice.client();
        let order = InvoiceCreate { description: "a commit".into(), ..InvoiceCreate::default() };
        let waits = tokio::spawn(async move { client.call(order).await });
        systemd.up_to("STATUS=stands still").await?;
        // The interface goes on, and that alone is no life.
        assert_eq!(alice.call(NodeStatus {}).await?.phase, Phase::Ready);
        assert!(!waits.is_finished());
        std::fs::remove_file(&stall)?;
        assert_eq!(systemd.next().await?, "STATUS=regtest: ready, block 1", "nothing was said meanwhile");
        assert_eq!(systemd.next().await?, "WATCHDOG=1");
        assert!(waits.await??.invoice.starts_with("lnbcrt"));
        alice.stop().await
    })
    .await
}

/// A directory of units with ours and a bitcoind's.
fn units(directory: &Path) -> Done<PathBuf> {
    let unit =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd/outriggerd.service"))?;
    let ours = directory.join("outriggerd.service");
    std::fs::write(&ours, unit.replace("/usr/bin/outriggerd", &executable()?.display().to_string()))?;
    std::fs::write(directory.join("bitcoind.service"), "[Service]\nExecStart=/bin/true\n")?;
    Ok(ours)
}

/// Where this machine has no systemd there is nothing to ask; CI's has one.
#[tokio::test]
async fn the_unit_is_valid_and_its_service_is_well_confined() -> Done<()> {
    let directory = tempfile::tempdir()?;
    let unit = units(directory.path())?;
    let analyze = async |words: &[&str]| {
        let places = format!("{}:", directory.path().display());
        let asked = Command::new("systemd-analyze").args(words).arg(&unit).env("SYSTEMD_UNIT_PATH", places).output();
        match asked.await {
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok::<_, outrigger_integration::Fault>(None),
            answer => {
                let answer = answer?;
                let said = [answer.stdout, answer.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
                Ok(Some((answer.status.success(), said.concat())))
            }
        }
    };
    let Some(verified) = analyze(&["verify", "--man=no"]).await? else {
        eprintln!("there is no systemd-analyze: the unit is not checked");
        return Ok(());
    };
    assert_eq!(verified, (true, String::new()));
    // The exposure of what may do everything is 9.6; a number above the threshold, in tenths, is a failure.
    let (is_below, said) =
        analyze(&["security", "--offline=true", "--threshold=18", "--no-pager"]).await?.unwrap_or_default();
    let level = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or(&said);
    eprintln!("{level}");
    assert!(is_below, "{said}");
    Ok(())
}

/// What stands before the daemon in a container whose policy is to start it again.
#[tokio::test]
async fn a_container_is_started_again_after_a_crash_and_never_after_an_exit_code() -> Done<()> {
    let held = |script: &str| {
        let held = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/docker/held");
        let mut command = Command::new(held);
        command.args(["sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn()
    };
    let terminate = |child: &tokio::process::Child| {
        let pid = child.id().ok_or("it has ended")?.to_string();
        Ok::<_, outrigger_integration::Fault>(std::process::Command::new("kill").args(["-TERM", &pid]).status()?)
    };
    // The shell's way to tell SIGABRT.
    assert_eq!(held("kill -ABRT $$")?.wait().await?.code(), Some(134));
    // A stop is passed on, and is the end whatever the code is.
    let mut child = held("trap 'exit 3' TERM; echo ready; for _ in $(seq 600); do sleep 0.1; done")?;
    let mut ready = BufReader::new(child.stdout.take().ok_or("a pipe")?).lines();
    assert_eq!(ready.next_line().await?.as_deref(), Some("ready"));
    assert!(terminate(&child)?.success());
    assert_eq!(child.wait().await?.code(), Some(3));
    for code in [0, 4] {
        let mut child = held(&format!("exit {code}"))?;
        let mut said = BufReader::new(child.stderr.take().ok_or("a pipe")?).lines();
        let last = said.next_line().await?.ok_or("why it stays")?;
        assert!(last.starts_with(&format!("ended with exit code {code}, and not started again by itself")), "{last}");
        assert_eq!(child.try_wait()?, None, "it stays");
        assert!(terminate(&child)?.success());
        assert_eq!(child.wait().await?.code(), Some(code));
    }
    Ok(())
}

/// Strings of a line in brackets.
fn listed(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// No container is built here: what can be wrong with the files is what they name of the tree, and of the daemon.
#[tokio::test]
async fn the_containers_are_made_of_what_is_here_and_give_options_that_there_are() -> Done<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docker = root.join("contrib/docker");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).ok_or("rust-version")?;
    let compose = std::fs::read_to_string(docker.join("compose.yaml"))?;
    let mut orders = Vec::new();
    for file in compose.lines().filter_map(|line| line.trim().strip_prefix("dockerfile: ")) {
        let text = std::fs::read_to_string(root.join(file))?;
        assert!(text.contains(&format!("FROM rust:{}-", rust.trim_matches('"'))), "{file} builds with another Rust");
        let copied =
            text.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--from"));
        for from in copied.filter_map(|line| line.split_whitespace().next()) {
            assert!(root.join(from).exists(), "{file} copies {from}");
        }
        let line = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(listed).unwrap_or_default();
        orders.push([line("ENTRYPOINT "), line("CMD ")]);
    }
    let [_, [ours, by_default]] = orders.as_slice() else { return Err("two images".into()) };
    let options = compose.lines().filter_map(|line| line.strip_prefix("      - --"));
    let options: Vec<String> = options.map(|option| format!("--{option}")).collect();
    let host = options.iter().find_map(|option| option.strip_prefix("--bitcoind-url=")?.split(':').next());
    let alias = host.ok_or("--bitcoind-url")?;
    assert!(
        compose.contains(&format!("      inside:\n        aliases: [{alias}]\n")),
        "{alias} is a name on both networks"
    );
    let held =
        compose.lines().find_map(|line| line.strip_prefix("    entrypoint: ")).map(listed).ok_or("an entrypoint")?;
    assert_eq!(held.split_first(), Some((&"held".to_owned(), ours.as_slice())));
    for given in [by_default, &options] {
        let mut asked = Command::new(executable()?);
        let asked = asked.arg("--check-config").args(ours.iter().skip(1)).args(given).env_clear().output().await?;
        assert!(asked.status.success(), "{given:?}: {}", String::from_utf8_lossy(&asked.stderr));
    }
    Ok(())
}

/// Lines of `contrib/bitcoind-notify.md` that an operator copies into bitcoin.conf.
fn notify_lines() -> Done<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/bitcoind-notify.md"))?;
    let is_setting =
        |line: &&str| ["startupnotify=", "blocknotify=", "shutdownnotify="].iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = page.lines().filter(is_setting).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    Ok(lines.join("\n") + "\n")
}

/// A daemon that bitcoind has started: nobody's child here.
struct Started {
    place: PathBuf,
}

impl Started {
    fn pid(&self) -> Option<u32> {
        let held = std::fs::read_to_string(self.place.join("lock")).ok()?;
        held.split_whitespace().next()?.parse().ok()
    }

    fn runs(&self) -> bool {
        let of = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
        // The name of a process that ends is gone before its lock is.
        let is_locked = std::fs::File::open(self.place.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
        is_locked || self.pid().and_then(of).is_some_and(|program| program.ends_with("outriggerd"))
    }

    /// A client, once the daemon answers and its store is open.
    async fn client(&self) -> Done<Client> {
        until(LIMIT, "a daemon that answers", async || {
            let Ok(client) = Client::in_directory(&self.place) else { return Ok(None) };
            let status = client.call(NodeStatus {}).await.ok();
            Ok(status.filter(|status| status.phase != Phase::Starting).map(|_| client))
        })
        .await
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.runs()
            && let Some(pid) = self.pid()
        {
            drop(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status());
        }
    }
}

async fn until_height(client: &Client, bitcoind: &Bitcoind) -> Done<()> {
    let height = bitcoind.height().await?;
    until(LIMIT, &format!("the daemon to reach block {height}"), async || {
        Ok((client.call(NodeInfo {}).await?.block_height == Some(height)).then_some(()))
    })
    .await
}

/// The node looks for blocks by itself every ten minutes, which is longer than this test waits for anything.
#[tokio::test(flavor = "multi_thread")]
async fn btc_a_bitcoind_with_the_notify_lines_starts_the_daemon_tells_it_of_blocks_and_stops_it() -> Done<()> {
    let home = tempfile::tempdir()?;
    let (chain, data) = (home.path().join(".bitcoin"), home.path().join(".outrigger"));
    for directory in [&chain, &data] {
        std::fs::create_dir(directory)?;
    }
    std::fs::write(chain.join("bitcoin.conf"), notify_lines()?)?;
    let (rpc, listen) = (free_port()?, free_port()?);
    let config = format!(
        "network = \"regtest\"\nlisten = \"127.0.0.1:{listen}\"\n[rpc]\naddress = \"127.0.0.1:0\"\n[bitcoind]\nurl = \"127.0.0.1:{rpc}\"\n\
         poll_secs = 600\n"
    );
    std::fs::write(data.join("outrigger.toml"), config)?;
    let mut path = std::env::var("PATH").unwrap_or_default();
    for program in [executable()?, cli_executable()?] {
        path = format!("{}:{path}", program.parent().ok_or("a program without a directory")?.display());
    }
    let environment =
        [("HOME", home.path().display().to_string()), ("PATH", path)].map(|(name, value)| (name.to_owned(), value));
    let started = Started { place: data.join("regtest") };

    let mut bitcoind = Bitcoind::start_in(&environment, &chain, rpc).await?;
    let client = started.client().await?;
    let node_id = client.call(NodeInfo {}).await?.node_id;
    // The first block ends bitcoind's initial download, in which it tells of none.
    for _ in 0..3 {
        bitcoind.mine_to_nobody(1).await?;
    }
    until_height(&client, &bitcoind).await?;
    bitcoind.mine_to_nobody(1).await?;
    until_height(&client, &bitcoind).await?;

    bitcoind.stop().await?;
    until(LIMIT, "the daemon to end", async || Ok((!started.runs()).then_some(()))).await?;
    assert!(!started.place.join(SOCKET_FILE).exists(), "it ended by itself and cleared up");
    let said = std::fs::read_to_string(data.join("outriggerd.log"))?;
    assert!(said.contains("stopping") && !said.contains("panicked"), "{said}");

    bitcoind.start_again().await?;
    let client = started.client().await?;
    assert_eq!(client.call(NodeInfo {}).await?.node_id, node_id);
    bitcoind.mine_to_nobody(1).await?;
    until_height(&client, &bitcoind).await?;
    bitcoind.stop().await?;
    until(LIMIT, "the daemon to end again", async || Ok((!started.runs()).then_some(()))).await
}

/// A hash stands alone, as bitcoind's `%s` is.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_told_by_the_command_line_of_the_design() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = regtest.sidecar("alice").await?;
        let hash = regtest.bitcoind.mine_to_nobody(1).await?.pop().ok_or("no block")?.to_string();
        let mut command = Command::new(cli_executable()?);
        command.arg("--data-dir").arg(alice.directory()).args(["--json", "chain.notify_block", &hash]);
        let output = command.stdin(Stdio::null()).output().await?;
        assert!(output.status.success(), "{output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        assert!(told["block_height"].is_u64(), "{told}");
        Ok(())
    })
    .await
}
