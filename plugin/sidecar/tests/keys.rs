//! What the program answers of calls that it finds in its file, before it has seen a block: of those that were under way, in a file that is
//! the newest and in an old one, and of a build that gave calls no ids to be found by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic wherever it likes")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{
    ChannelOpen, ChannelOpenWait, ChannelOpened, Client, EventKind, EventList, Method, OpenState,
};
use outrigger_sidecar::key::{NodeKeys, Seed};
use outrigger_sidecar::store::row::{EventRow, OperationRow, OperationState};
use outrigger_sidecar::store::schema::{RESTORED_KEY, Table, UnderWay};
use outrigger_sidecar::store::{self, Batch, Writer, generation};

const LIMIT: Duration = Duration::from_secs(60);
const FUNDING_SAT: u64 = 500_000;

/// A node whose file has these rows, and no bitcoind.
struct Node {
    dir: Rc<tempfile::TempDir>,
    node_id: NodeId,
    child: Child,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Node {
    fn over(rows: Batch) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = network_directory(dir.path(), "regtest");
        generation::make_directory(&network).unwrap();
        let seed = Seed::create(&network, || Ok([5; 32])).unwrap();
        Self::started(Rc::new(dir), NodeKeys::derive(&seed, Network::Regtest).node_id(), rows)
    }

    /// The same node after a `kill -9`, with these rows besides.
    fn restarted(mut self, rows: Batch) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Self::started(self.dir.clone(), self.node_id, rows)
    }

    fn started(dir: Rc<tempfile::TempDir>, node_id: NodeId, rows: Batch) -> Self {
        let network = network_directory(dir.path(), "regtest");
        let (db, _) = store::open_and_load(&network, "regtest", &node_id).unwrap();
        let (writer, mut commits) = Writer::new(db).unwrap();
        writer.submit(rows);
        drop(commits.next(16).unwrap().unwrap());
        drop((writer, commits));
        let child = Command::new(env!("CARGO_BIN_EXE_outriggerd"))
            .args(["--network", "regtest", "--bitcoind-url", "127.0.0.1:1", "--listen", "127.0.0.1:0"])
            .args(["--rpc-address", "127.0.0.1:0", "--log-level", "error", "--data-dir"])
            .arg(dir.path())
            .env("HOME", dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = Self::until_open(&runtime, network);
        Self { dir, node_id, child, runtime, client }
    }

    fn until_open(runtime: &tokio::runtime::Runtime, network: PathBuf) -> Client {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < LIMIT, "it does not start");
            std::thread::yield_now();
            if !network.join(ADDRESS_FILE).exists() {
                continue;
            }
            let Ok(client) = Client::in_directory(&network) else { continue };
            if runtime.block_on(client.call(EventList::default())).is_ok() {
                return client;
            }
        }
    }

    fn call<M: Method>(&self, method: M) -> Result<M::Result, Option<String>> {
        let answer = self.runtime.block_on(self.client.call(method));
        answer.map_err(|fault| fault.kind().map(str::to_owned))
    }

    /// The same, by its id.
    fn waited(&self, op_id: [u8; 16]) -> Result<ChannelOpened, Option<String>> {
        self.call(ChannelOpenWait { op_id: hex(op_id), timeout_secs: Some(600) })
    }

    fn kinds(&self) -> Vec<(EventKind, Option<String>)> {
        let events = self.call(EventList::default()).unwrap().items;
        events.into_iter().map(|event| (event.kind, event.op_id)).collect()
    }
}

fn hex(op_id: [u8; 16]) -> String {
    op_id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn peer() -> String {
    format!("02{}", "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
}

fn order(key: &str) -> ChannelOpen {
    ChannelOpen { node_id: peer(), funding_sat: FUNDING_SAT, idempotency_key: key.to_owned(), ..ChannelOpen::default() }
}

/// The row of that call, as every build has written it.
fn row(key: &str, op_id: [u8; 16], state: OperationState) -> OperationRow {
    let node: Vec<u8> = (0..33).map(|at| u8::from_str_radix(&peer()[2 * at..2 * at + 2], 16).unwrap()).collect();
    let mut body = Vec::new();
    let (funding, nothing) = (FUNDING_SAT.to_be_bytes(), 0u64.to_be_bytes());
    for part in [&b"channel.open"[..], &node, &funding, &nothing, &[0], &0u32.to_be_bytes()] {
        body.extend_from_slice(&(part.len() as u64).to_be_bytes());
        body.extend_from_slice(part);
    }
    let body = sha256::Hash::hash(&body).to_byte_array();
    OperationRow { idempotency_key: key.to_owned(), op_id, body, state }
}

fn signed() -> OperationState {
    OperationState::Pending { channel_id: ChannelId([4; 32]), funding_txid: bitcoin::Txid::from_byte_array([5; 32]) }
}

/// A proof that the file is old.
fn proved_old() -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Meta, RESTORED_KEY.to_vec(), Some(b"a proof".to_vec()));
    batch.event(EventRow::new(1, "node_restored", serde_json::json!({ "message": "a proof" })));
    batch
}

/// Two calls that are under way: one that was not signed yet, and one whose funding transaction has not left.
fn under_way() -> Batch {
    let mut batch = Batch::default();
    for row in [row("unsigned", [1; 16], OperationState::Opening), row("signed", [2; 16], signed())] {
        batch.remember(&row);
        batch.begin(&UnderWay::Opening(row.idempotency_key));
    }
    batch
}

#[test]
fn bak_1_an_opening_that_the_loss_of_data_interrupted_is_not_called_failed() {
    let mut batch = under_way();
    batch.merge(proved_old());
    let node = Node::over(batch);
    let unknown = node.waited([1; 16]).unwrap();
    assert_eq!((unknown.state, &unknown.op_id), (OpenState::Unknown, &hex([1; 16])));
    assert!(unknown.failure.as_deref().is_some_and(|words| words.contains("may have been signed")), "{unknown:?}");
    assert_eq!(node.call(order("unsigned")).unwrap(), unknown, "nor is it begun again");
    // Nothing is waited for any more.
    let pending = node.waited([2; 16]).unwrap();
    assert_eq!((pending.state, pending.channel_id), (OpenState::Pending, Some("04".repeat(32))));
    assert_eq!(node.kinds(), [(EventKind::NodeRestored, None)]);
}

#[test]
fn bak_1_an_opening_that_was_called_failed_is_called_so_no_more_once_the_file_proves_old() {
    let node = Node::over(under_way());
    assert_eq!(node.waited([1; 16]).unwrap().state, OpenState::Failed);
    let node = node.restarted(proved_old());
    let unknown = node.waited([1; 16]).unwrap();
    assert_eq!(unknown.state, OpenState::Unknown);
    assert!(unknown.failure.as_deref().is_some_and(|words| words.contains("may have been signed")), "{unknown:?}");
    assert_eq!(node.call(order("unsigned")).unwrap(), unknown, "nor is it begun again");
    assert_eq!(node.kinds(), [(EventKind::OpenFailed, Some(hex([1; 16]))), (EventKind::NodeRestored, None)]);
}

#[test]
fn fnd_13_an_opening_that_a_crash_interrupted_has_failed() {
    let node = Node::over(under_way());
    let failed = node.waited([1; 16]).unwrap();
    assert_eq!(failed.state, OpenState::Failed);
    assert!(failed.failure.as_deref().is_some_and(|words| words.contains("nothing was spent")), "{failed:?}");
    assert_eq!(node.call(order("unsigned")).unwrap(), failed);
    assert_eq!(node.kinds(), [(EventKind::OpenFailed, Some(hex([1; 16])))]);
    assert_eq!(node.call(order("signed")).unwrap().state, OpenState::Opening, "a backup is waited for");
}

#[test]
fn rpc_a_key_of_before_calls_had_ids_is_answered() {
    let mut batch = Batch::default();
    let failed = OperationState::Failed { reason: "the peer said no".to_owned() };
    for row in [row("failed", [8; 16], failed), row("signed", [9; 16], signed())] {
        batch.put(Table::Operation, row.key(), Some(row.encode()));
    }
    let node = Node::over(batch);
    let failed = node.call(order("failed")).unwrap();
    assert_eq!((failed.state, failed.op_id), (OpenState::Failed, hex([8; 16])));
    assert_eq!(failed.failure.as_deref(), Some("the peer said no"));
    let pending = node.call(order("signed")).unwrap();
    assert_eq!((pending.state, pending.channel_id), (OpenState::Pending, Some("04".repeat(32))));
    let other = ChannelOpen { funding_sat: FUNDING_SAT + 1, ..order("signed") };
    assert_eq!(node.call(other).unwrap_err().as_deref(), Some("idempotency_conflict"));
    assert_eq!(node.waited([9; 16]).unwrap_err().as_deref(), Some("operation_not_found"));
}
