//! Being a plugin: what a host learns, what it says at the beginning, and the pipe that it speaks over.

use std::io::{BufRead, BufReader, Write, pipe};

use outrigger_rpc_schema::{ConfigItem, ConfigReport, EventKind, OptionKind, document, methods};
use serde_json::{Value, json};

use crate::stage::{NODE_ID, Stage};

#[tokio::test]
async fn rpc_a_host_can_drive_everything_from_the_manifest() {
    let stage = Stage::open().await;
    let answer = stage.call("plugin.manifest", json!({})).await.json();
    let manifest = &answer["result"];
    assert_eq!((&manifest["name"], &manifest["protocol"]), (&json!("outrigger"), &json!(1)));
    let listed = manifest["groups"].as_array().expect("groups").iter().flat_map(|group| {
        let prefix = format!("{}.", group["name"].as_str().expect("a name"));
        let names = group["methods"].as_array().expect("methods").iter();
        names.map(move |name| {
            let name = name.as_str().expect("a name").to_owned();
            assert!(name.starts_with(&prefix));
            name
        })
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort();
    let mut all: Vec<_> = methods().iter().map(|method| method.name.to_owned()).collect();
    all.sort();
    assert_eq!(listed, all);
    assert_eq!(manifest["event_kinds"], json!(EventKind::ALL.as_slice()));
    let options = manifest["options"].as_array().expect("options");
    let named = |name: &str| options.iter().find(|option| option["name"] == name).expect("an option");
    assert_eq!(named("rpc.allow_remote")["takes"], json!({ "kind": OptionKind::Boolean }));
    assert_eq!(named("network")["default"], "signet");
    assert_eq!(named("network")["takes"], json!({ "kind": "text", "choices": ["regtest", "signet"] }));
    assert_eq!(named("alias")["takes"], json!({ "kind": "text", "longest_bytes": 32 }));
    assert_eq!(named("rpc.page")["flag"], "--rpc-page");
    assert_eq!(named("bitcoind.password").get("flag"), None, "a secret stands in the file alone");
    assert_eq!(
        named("backup.consolidate_every"),
        &json!({
            "name": "backup.consolidate_every",
            "takes": { "kind": "integer", "least": "1", "most": "10000" },
            "default": "100",
            "description": "Updates of a channel after which a directory gets one file in their place.",
            "repeats": true,
            "required": false,
            "only_of_kinds": ["directory"],
        })
    );
    assert_eq!(named("backup.command")["takes"], json!({ "kind": "list" }));
    assert_eq!(stage.call("rpc.discover", json!({})).await.json()["result"], document());
}

#[tokio::test]
async fn rpc_a_host_is_told_which_of_its_options_are_in_force() {
    let stage = Stage::open().await;
    let item = ConfigItem { key: "network".to_owned(), value: "regtest".to_owned(), ..ConfigItem::default() };
    stage.doors.set_config(ConfigReport { file: None, items: vec![item] });
    let options = json!(["network=regtest", "network=signet", "nothing=1", "network"]);
    let answer = stage.call("plugin.init", json!({ "options": options })).await.json();
    assert_eq!(answer["result"]["accepted"], json!(["network=regtest"]));
    assert_eq!(answer["result"]["refused"], json!(["network=signet", "nothing=1", "network"]));
    // Over HTTP nobody can be told of events.
    let answer = stage.call("plugin.init", json!({ "subscriptions": ["invoice_paid"] })).await;
    assert_eq!(answer.error(), (1703, "event_no_session".to_owned()));
}

/// The two ends of a pipe that the daemon has as its standard input and output.
struct Host {
    says: std::io::PipeWriter,
    hears: BufReader<std::io::PipeReader>,
}

impl Host {
    fn of(stage: &mut Stage) -> Self {
        let ((input, says), (hears, output)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        stage.server.serve_parent(stage.doors.clone(), (input, output));
        Self { says, hears: BufReader::new(hears) }
    }

    fn say(&mut self, line: &str) {
        self.says.write_all(format!("{line}\n").as_bytes()).expect("said");
    }

    /// The next line; null at the end.
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        let length = self.hears.read_line(&mut line).expect("read");
        if length == 0 { Value::Null } else { serde_json::from_str(&line).expect("a message a line") }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string());
        self.hear()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_a_parent_has_the_same_interface_a_message_a_line() {
    let mut stage = Stage::open().await;
    let mut host = Host::of(&mut stage);
    assert_eq!(host.call("wallet.balance", json!({}))["result"]["confirmed_sat"], 1);
    host.say("\n");
    assert_eq!(host.call("payment.send", json!({ "invoice": "lnbcrt1" }))["result"]["state"], "pending", "full rights");
    for (bad, code) in [("{", -32700), (r#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#, -32601)] {
        host.say(bad);
        assert_eq!(host.hear()["error"]["code"], code, "{bad}");
    }
    host.say(&" ".repeat(1024 * 1024 + 1));
    assert_eq!(host.hear()["error"]["code"], -32007, "a line that is too long");
    let init = host.call("plugin.init", json!({ "subscriptions": ["invoice_paid"] }));
    assert_eq!(init["result"]["subscription_id"], "1");
    stage.node.happens(EventKind::PaymentFailed, "not asked for");
    stage.node.happens(EventKind::InvoicePaid, "asked for");
    assert_eq!(host.hear()["params"]["event"]["seq"], 2);
    stage.server.stop().await;
    let mut last = host.hear();
    if last["params"]["error"].is_object() {
        last = host.hear();
    }
    assert_eq!(last, Value::Null, "the pipe is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_the_end_of_the_parents_pipe_is_a_stop_and_what_is_under_way_is_answered() {
    let mut stage = Stage::open().await;
    let mut host = Host::of(&mut stage);
    let params = json!({ "node_id": NODE_ID, "funding_sat": 1, "idempotency_key": "slow" });
    host.say(&json!({ "jsonrpc": "2.0", "id": 7, "method": "channel.open", "params": params }).to_string());
    stage.node.begun.notified().await;
    let Host { says, hears } = host;
    drop(says);
    stage.doors.stop_requested().await;
    let stopping = tokio::spawn(stage.server.stop());
    stage.node.released.notify_one();
    let mut lines = hears.lines();
    let answer: Value = serde_json::from_str(&lines.next().expect("an answer").expect("read")).expect("JSON");
    assert_eq!((&answer["id"], &answer["result"]["state"]), (&json!(7), &json!("opening")));
    assert!(lines.next().is_none());
    stopping.await.expect("stopped");
}
