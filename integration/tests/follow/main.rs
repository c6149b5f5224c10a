//! Events as they come: `outrigger-cli event.subscribe` and the client that it stands on, over a crash of the daemon.

mod servers;

use std::path::Path;
use std::process::Stdio;

use outrigger_integration::sidecar::{LIMIT, cli_executable};
use outrigger_integration::{Done, Sidecar, on_regtest};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{Client, EventKind, EventList, EventSubscribe, Scope, TokenCreate, TokenRevoke};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// A command line that follows, and what it says.
struct Follower {
    child: Child,
    told: Lines<BufReader<ChildStdout>>,
    complaints: Lines<BufReader<ChildStderr>>,
}

/// The command line with these words.
fn command(data_dir: &Path, words: &[&str]) -> Done<Command> {
    let mut command = Command::new(cli_executable()?);
    if !words.contains(&"--url") {
        command.arg("--data-dir").arg(data_dir);
    }
    for variable in ["DATA_DIR", "NETWORK", "URL", "TOKEN_FILE", "CA"] {
        command.env_remove(format!("OUTRIGGER_{variable}"));
    }
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

impl Follower {
    fn of(data_dir: &Path, words: &[&str]) -> Done<Self> {
        let mut child = command(data_dir, words)?.spawn()?;
        let told = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        let complaints = BufReader::new(child.stderr.take().ok_or("no pipe")?).lines();
        Ok(Self { child, told, complaints })
    }

    async fn event(&mut self) -> Done<Value> {
        Ok(serde_json::from_str(&line(&mut self.told).await?.ok_or("it tells no more")?)?)
    }

    /// Its exit code, and all that it still had to say on either side.
    async fn end(mut self) -> Done<(Option<i32>, String, String)> {
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await??;
        Ok((status.code(), rest(&mut self.told).await?, rest(&mut self.complaints).await?))
    }
}

async fn line<T: AsyncRead + Unpin>(lines: &mut Lines<BufReader<T>>) -> Done<Option<String>> {
    Ok(tokio::time::timeout(LIMIT, lines.next_line()).await??)
}

async fn rest<T: AsyncRead + Unpin>(lines: &mut Lines<BufReader<T>>) -> Done<String> {
    let mut text = String::new();
    while let Some(line) = line(lines).await? {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Something that is told: a token of this name.
async fn happens(node: &Sidecar, name: &str) -> Done<String> {
    let order = TokenCreate { name: name.to_owned(), scopes: vec![Scope::Read], ..TokenCreate::default() };
    Ok(node.call(order).await?.token)
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_events_come_live_and_over_a_crash_of_the_daemon_none_is_missed_and_none_comes_twice() -> Done<()> {
    on_regtest(async |regtest| {
        let mut alice = regtest.sidecar("alice").await?;
        let mut follower =
            Follower::of(alice.directory(), &["--json", "event.subscribe", "after_seq=0", "kinds=token_created"])?;
        let kinds = Some(vec![EventKind::TokenCreated]);
        let client = Client::in_directory(&network_directory(alice.directory(), "regtest"))?;
        let mut events = client.follow(EventSubscribe { after_seq: Some(0), kinds: kinds.clone() });

        let (mut told, mut typed) = (Vec::new(), Vec::new());
        for name in ["replayed or live", "live", "live too"] {
            happens(&alice, name).await?;
            told.push(follower.event().await?);
            typed.push(tokio::time::timeout(LIMIT, events.next()).await??);
            assert_eq!(told[told.len() - 1]["message"], name, "it is told while nothing else happens");
        }
        // What nobody may have heard of before the crash, and what happens before anybody is back.
        for number in 0..20 {
            happens(&alice, &format!("before the crash {number}")).await?;
        }
        alice.kill().await?;
        let lost = line(&mut follower.complaints).await?.ok_or("it says nothing")?;
        let lost: Value = serde_json::from_str(&lost)?;
        assert_eq!(lost["data"]["kind"], "unreachable", "{lost}");
        alice.start_again().await?;
        for name in ["after the crash", "the last"] {
            happens(&alice, name).await?;
        }
        let all = alice.call(EventList { kinds, limit: Some(1000), ..EventList::default() }).await?.items;
        assert_eq!(all.len(), 25);
        while told.last().is_none_or(|event| event["message"] != "the last") {
            told.push(follower.event().await?);
        }
        assert_eq!(json!(told), serde_json::to_value(&all)?, "no gap and no repetition");
        while typed.len() < all.len() {
            typed.push(tokio::time::timeout(LIMIT, events.next()).await??);
        }
        assert_eq!(typed, all);
        assert_eq!(events.after_seq(), all.last().map(|event| event.seq));

        // Nothing came twice behind the last one either: the next line is the next event.
        happens(&alice, "one more").await?;
        assert_eq!(follower.event().await?["message"], "one more");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_the_exit_code_of_a_follower_says_why_it_tells_no_more() -> Done<()> {
    on_regtest(async |regtest| {
        let mut alice = regtest.sidecar_with("alice", &["--event-keep-kib", "1"]).await?;
        let address = std::fs::read_to_string(network_directory(alice.directory(), "regtest").join(ADDRESS_FILE))?;
        let url = format!("http://{}", address.trim());
        let file = |name: &str, text: &str| -> Done<String> {
            let path = regtest.directory("tokens")?.join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let screen = file("screen", &happens(&alice, "screen").await?)?;
        let wrong = file("wrong", "outr_00")?;
        let with = |token: &str| -> Done<Follower> {
            Follower::of(alice.directory(), &["--url", &url, "--token-file", token, "event.subscribe", "after_seq=0"])
        };
        let mut follower = with(&screen)?;
        let first = line(&mut follower.told).await?.ok_or("it tells nothing")?;
        assert!(first.starts_with("1  ") && first.contains(" UTC  token_created  message: screen"), "{first}");
        alice.call(TokenRevoke { name: "screen".to_owned() }).await?;
        let (code, _, complaints) = follower.end().await?;
        assert_eq!(code, Some(1), "{complaints}");
        assert!(complaints.contains("auth_token_ended"), "{complaints}");

        let (code, told, complaints) = with(&wrong)?.end().await?;
        assert_eq!((code, told.as_str()), (Some(3), ""), "{complaints}");
        assert!(complaints.contains("HTTP 401") && complaints.contains("hint:"), "{complaints}");

        for number in 0..20 {
            happens(&alice, &format!("{number} {}", "x".repeat(100))).await?;
        }
        let asked =
            |words: &[&str]| Follower::of(alice.directory(), &[&["--json", "event.subscribe"][..], words].concat());
        let (code, told, complaints) = asked(&["after_seq=0"])?.end().await?;
        let gap: Value = serde_json::from_str(&complaints)?;
        assert_eq!((code, told.as_str(), &gap["data"]["kind"]), (Some(1), "", &json!("event_gap")));
        let mut from_there = asked(&[&format!("after_seq={}", gap["data"]["after_seq"])])?;
        assert_eq!(from_there.event().await?["seq"].as_u64(), gap["data"]["after_seq"].as_u64().map(|seq| seq + 1));

        let (code, _, complaints) = asked(&["after_seq=1000000"])?.end().await?;
        assert_eq!(code, Some(2), "{complaints}");
        let (code, _, complaints) = asked(&["kinds=no_such_kind"])?.end().await?;
        assert_eq!(code, Some(2), "{complaints}");
        what_cannot_be_written(&alice, &format!("after_seq={}", gap["data"]["after_seq"])).await?;
        alice.stop().await?;
        let (code, _, complaints) = Follower::of(alice.directory(), &["event.subscribe"])?.end().await?;
        assert_eq!(code, Some(3), "{complaints}");
        Ok(())
    })
    .await
}

/// A follower that cannot write says so; one whose reader is gone has done its work.
async fn what_cannot_be_written(node: &Sidecar, after_seq: &str) -> Done<()> {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
    for (words, told) in [
        (&["--json", "event.subscribe", after_seq][..], r#""kind":"output""#),
        (&["event.subscribe", after_seq], "error: the standard output cannot be written"),
    ] {
        let mut command = command(node.directory(), words)?;
        let output = tokio::time::timeout(LIMIT, command.stdout(full()?).spawn()?.wait_with_output()).await??;
        let complaints = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{complaints}");
        assert!(complaints.contains(told), "{complaints}");
    }
    let mut mute = command(node.directory(), &["event.subscribe", "kinds=no_such_kind"])?;
    let output = tokio::time::timeout(LIMIT, mute.stderr(full()?).spawn()?.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(2));

    let mut unread = Follower::of(node.directory(), &["event.subscribe", after_seq])?;
    line(&mut unread.told).await?.ok_or("it tells nothing")?;
    drop(unread.told);
    happens(node, "unread").await?;
    assert_eq!(tokio::time::timeout(LIMIT, unread.child.wait()).await??.code(), Some(0));
    Ok(())
}
