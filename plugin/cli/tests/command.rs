//! The built program before a server that answers as the daemon does.
#![expect(clippy::expect_used, reason = "a test stops at its first surprise")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use jsonrpsee::RpcModule;
use jsonrpsee::server::{Server, ServerHandle};
use jsonrpsee::types::ErrorObjectOwned;
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, COOKIE_FILE};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A data directory with a regtest daemon's files in it, and what answers at the address they name.
struct Stage {
    data_dir: TempDir,
    _server: ServerHandle,
}

impl Stage {
    async fn new() -> Self {
        let mut module = RpcModule::new(());
        module
            .register_method(
                "wallet.balance",
                |_, _, _| json!({ "confirmed_sat": 1_234_567, "unconfirmed_sat": 0, "locked_sat": 0 }),
            )
            .expect("a name of its own");
        module
            .register_method("invoice.create", |params, _, _| {
                let given: Value = params.parse().expect("parameters");
                json!({ "invoice": given.to_string(), "payment_hash": "00", "expires_at": 0 })
            })
            .expect("a name of its own");
        module
            .register_method("channel.get", |_, _, _| {
                let data =
                    json!({ "kind": "channel_not_found", "retryable": false, "hint": "channel.list shows them." });
                Err::<Value, _>(ErrorObjectOwned::owned(1401, "no channel 00", Some(data)))
            })
            .expect("a name of its own");
        let server = Server::builder().build("127.0.0.1:0").await.expect("a port");
        let address = server.local_addr().expect("an address");
        let handle = server.start(module);
        let data_dir = tempfile::tempdir().expect("a directory");
        leave_files(data_dir.path(), "regtest", address);
        Self { data_dir, _server: handle }
    }

    async fn run(&self, words: &[&str]) -> Output {
        run(self.data_dir.path(), words).await
    }
}

fn leave_files(data_dir: &Path, network: &str, address: SocketAddr) {
    let directory = data_dir.join(network);
    std::fs::create_dir(&directory).expect("created");
    std::fs::write(directory.join(ADDRESS_FILE), format!("{address}\n")).expect("written");
    std::fs::write(directory.join(COOKIE_FILE), "__cookie__:00").expect("written");
}

fn command(data_dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-cli"));
    command.env_clear().env("OUTRIGGER_DATA_DIR", data_dir).args(words);
    command
}

async fn run(data_dir: &Path, words: &[&str]) -> Output {
    let mut command = command(data_dir, words);
    tokio::task::spawn_blocking(move || command.output()).await.expect("runs").expect("starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn a_result_is_readable_and_with_json_raw() {
    let stage = Stage::new().await;
    let readable = stage.run(&["wallet.balance"]).await;
    assert_eq!(readable.status.code(), Some(0), "{}", text(&readable.stderr));
    assert_eq!(text(&readable.stdout), "confirmed:   1,234,567 sat\nlocked:      0 sat\nunconfirmed: 0 sat\n");
    let raw = stage.run(&["wallet.balance", "--json"]).await;
    let value: Value = serde_json::from_slice(&raw.stdout).expect("JSON");
    assert_eq!(value, json!({ "confirmed_sat": 1_234_567, "unconfirmed_sat": 0, "locked_sat": 0 }));
}

#[tokio::test]
async fn parameters_are_sent_with_their_types() {
    let stage = Stage::new().await;
    let output = stage.run(&["--json", "invoice.create", "description=two words", "amount_msat=5"]).await;
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let sent: Value = serde_json::from_str(value["invoice"].as_str().expect("text")).expect("JSON");
    assert_eq!(sent, json!({ "description": "two words", "amount_msat": 5 }));
}

#[tokio::test]
async fn a_refusal_shows_kind_and_hint_and_exits_with_1() {
    let stage = Stage::new().await;
    let output = stage.run(&["channel.get", "channel_id=00"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let expected = "error: no channel 00\nkind:  channel_not_found (1401)\nhint:  channel.list shows them.\n";
    assert_eq!(text(&output.stderr), expected);
    let output = stage.run(&["--json", "channel.get", "channel_id=00"]).await;
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(1401), &json!("channel_not_found")));
}

#[tokio::test]
async fn wrong_usage_exits_with_2_before_the_daemon_is_asked() {
    let nowhere = tempfile::tempdir().expect("a directory");
    for (words, message) in [
        (&["chanel.get"][..], "no method \"chanel.get\"; did you mean channel.get?"),
        (&["channel.get"], "missing parameter channel_id"),
        (&["node.status", "verbose=true"], "unknown parameter \"verbose\""),
        (&["node.status", "--verbose"], "unexpected argument '--verbose'"),
    ] {
        let output = run(nowhere.path(), words).await;
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(text(&output.stderr).contains(message), "{words:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn no_daemon_exits_with_3() {
    let stage = tempfile::tempdir().expect("a directory");
    let output = run(stage.path(), &["node.status"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("no daemon runs with the data directory"));
    let output = run(stage.path(), &["node.status", "--network", "signet"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("rpc_address"));
    // A listener that is gone again: its port is free.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    leave_files(stage.path(), "regtest", gone);
    let output = run(stage.path(), &["node.status"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("cannot reach the daemon"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn two_daemons_are_told_apart_by_their_network() {
    let stage = Stage::new().await;
    leave_files(stage.data_dir.path(), "signet", "127.0.0.1:1".parse().expect("an address"));
    let output = stage.run(&["wallet.balance"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("give --network (regtest, signet)"));
    assert_eq!(stage.run(&["wallet.balance", "--network", "regtest"]).await.status.code(), Some(0));
}

#[tokio::test]
async fn help_describes_every_method_from_the_schema() {
    let nowhere = tempfile::tempdir().expect("a directory");
    let overview = text(&run(nowhere.path(), &["help"]).await.stdout);
    for method in outrigger_rpc_schema::methods() {
        assert!(overview.contains(method.name), "{}", method.name);
        let help = text(&run(nowhere.path(), &[method.name, "--help"]).await.stdout);
        for parameter in &method.parameters {
            assert!(help.contains(&format!("{}=...", parameter.name)), "{}: {}", method.name, parameter.name);
        }
        assert!(help.contains("Result:\n  "), "{}", method.name);
    }
    let open = text(&run(nowhere.path(), &["channel.open", "--help"]).await.stdout);
    assert!(open.contains("How far it is. One of opening, pending, failed, unknown."), "{open}");
}

#[tokio::test]
async fn what_cannot_be_written_is_told_of_any_call() {
    let stage = Stage::new().await;
    for (words, told) in [
        (&["wallet.balance"][..], "error: the standard output cannot be written"),
        (&["--json", "wallet.balance"], r#""kind":"output""#),
        (&["help"], "error: the standard output cannot be written"),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut command = command(stage.data_dir.path(), words);
        let output = tokio::task::spawn_blocking(move || command.stdout(full).output()).await;
        let output = output.expect("no panic").expect("it runs");
        let complaints = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{complaints}");
        assert!(complaints.contains(told), "{words:?}: {complaints}");
    }
}

#[tokio::test]
async fn the_exit_codes_of_a_follower_are_described() {
    let directory = tempfile::tempdir().expect("a directory");
    let help = text(&run(directory.path(), &["event.subscribe", "--help"]).await.stdout);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "exit code 0 where nobody reads",
        "1 where they cannot be written",
        "2 where after_seq is beyond",
        "and 3 where",
    ] {
        assert!(help.contains(words), "{words}: {help}");
    }
    let manual = text(&run(directory.path(), &["man"]).await.stdout);
    assert!(manual.contains("beyond the newest event, as after a restore"), "{manual}");
}
