//! Starts over files and disks that are damaged, through the daemon's own doors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic wherever it likes")]

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, PaymentHash};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{
    self as schema, ChannelClose, ChannelForceClose, ChannelGet, ChannelList, ChannelState, Client, EventKind,
    EventList, NodeInfo, PaymentGet,
};
use outrigger_sidecar::config::Config;
use outrigger_sidecar::key::{NodeKeys, Seed};
use outrigger_sidecar::node::Node;
use outrigger_sidecar::store::part::{PartHop, PartRow};
use outrigger_sidecar::store::row::{PaymentRow, PaymentState};
use outrigger_sidecar::store::schema::{Table, UnderWay};
use outrigger_sidecar::store::seal::seal;
use outrigger_sidecar::store::{self, Age, Batch, Generation, Held, StoreError, Writer, generation};
use redb::backends::InMemoryBackend;
use redb::{Database, StorageBackend};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

const LIMIT: Duration = Duration::from_secs(20);

/// A node without bitcoind: it waits for it, and its interface answers.
async fn node(directory: &Path) -> Node {
    let arguments = [
        "outriggerd",
        "--network",
        "regtest",
        "--data-dir",
        &directory.display().to_string(),
        "--bitcoind-url",
        "127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
        "--rpc-address",
        "127.0.0.1:0",
    ]
    .map(OsString::from);
    Node::start(&Config::read(arguments, directory).unwrap()).await.unwrap()
}

async fn stopped(node: Node) {
    let stop = node.stopper();
    stop();
    node.run().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_95_bak_6_a_frozen_channel_is_shown_with_its_reason_and_refuses_orders() {
    let dir = tempfile::tempdir().unwrap();
    let network = network_directory(dir.path(), "regtest");
    generation::make_directory(&network).unwrap();
    let seed = Seed::create(&network, || Ok([7; 32])).unwrap();
    let node_id = NodeKeys::derive(&seed, bitcoin::Network::Regtest).node_id();
    let db = store::open(&network, "regtest", &node_id).unwrap();
    let name = [0xab; 32];
    // Nothing of it can be read but its name.
    let row = seal(Table::ChannelParams, &name, &[1, 0x64, 1, 0]);
    // A payment that was under way, perhaps through that channel.
    let payment = PaymentRow {
        payment_id: [5; 32],
        payment_hash: PaymentHash([6; 32]),
        destination: node_id,
        amount: Msat::new(1000),
        created_at: 7,
        next_part: 0,
        again: None,
        charge: None,
        lost: Msat::ZERO,
        state: PaymentState::Pending,
    };
    let (id, begun) = (payment.payment_id, UnderWay::Payment(payment.payment_id).key());
    let route = vec![PartHop { node: node_id, channel: None }];
    let part = PartRow { sends: Msat::new(1000), amount: Msat::new(1000), channel: ChannelId(name), route };
    let part_key = PartRow::key(&id, 0);
    let rows = [
        (Table::ChannelParams, name.to_vec(), row),
        (Table::Payment, id.to_vec(), seal(Table::Payment, &id, &payment.encode())),
        (Table::UnderWay, begun.clone(), seal(Table::UnderWay, &begun, &[])),
        (Table::Part, part_key.clone(), seal(Table::Part, &part_key, &part.encode())),
    ];
    let transaction = db.begin_write().unwrap();
    for (table, key, row) in rows {
        transaction.open_table(table.definition()).unwrap().insert(key.as_slice(), row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(db);

    let node = node(dir.path()).await;
    let client = Client::in_directory(&network).unwrap();
    let channel_id = "ab".repeat(32);
    let listed = client.call(ChannelList::default()).await.unwrap().items;
    let [frozen] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((frozen.channel_id.as_str(), frozen.state), (channel_id.as_str(), ChannelState::Frozen));
    let reason = frozen.frozen_reason.as_deref().unwrap();
    assert!(reason.contains("ChannelParams") && reason.contains("cannot be read"), "{reason}");
    assert_eq!((frozen.spendable_msat, frozen.receivable_msat, frozen.connected), (0, 0, false));
    assert_eq!(client.call(ChannelGet { channel_id: channel_id.clone() }).await.unwrap(), *frozen);
    let only = |state| ChannelList { state: Some(state), ..Default::default() };
    assert_eq!(client.call(only(ChannelState::Frozen)).await.unwrap().items.len(), 1);
    assert_eq!(client.call(only(ChannelState::Normal)).await.unwrap().items, []);
    let close = ChannelClose { channel_id: channel_id.clone(), ..Default::default() };
    let refused = client.call(close).await.unwrap_err().to_string();
    assert!(refused.contains("the channel is frozen") && refused.contains("channel.get says why"), "{refused}");
    let force = ChannelForceClose { channel_id: channel_id.clone() };
    assert_eq!(client.call(force).await.unwrap_err().to_string(), refused);
    let kinds = Some(vec![EventKind::ChannelFrozen]);
    let events = client.call(EventList { kinds, ..Default::default() }).await.unwrap().items;
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.channel_id.as_deref(), Some(channel_id.as_str()));
    assert!(event.message.as_deref().is_some_and(|message| message.contains("do not delete it")), "{event:?}");
    let payment = client.call(PaymentGet { payment_id: "05".repeat(32) }).await.unwrap();
    assert_eq!(
        payment.state,
        schema::PaymentState::Pending,
        "it may be in the frozen channel: it must not be made again"
    );
    // The node itself is there.
    client.call(NodeInfo {}).await.unwrap();
    stopped(node).await;
}

/// A daemon that is stopped well tells what it leaves from every copy that was made while it ran.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_bak_7_a_copy_from_before_the_last_commit_of_a_clean_stop_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let network = network_directory(dir.path(), "regtest");
    let running = node(dir.path()).await;
    let companion = network.join(generation::FILE);
    let number = || {
        let text = std::fs::read_to_string(&companion).unwrap();
        text.lines().find_map(|line| line.strip_prefix("generation ")).unwrap().parse::<u64>().unwrap()
    };
    let (copy, before) = (std::fs::read(network.join(store::FILE)).unwrap(), number());
    stopped(running).await;
    assert_eq!(number(), before + 1);
    let seed = Seed::load(&network).unwrap().unwrap();
    let node_id = NodeKeys::derive(&seed, bitcoin::Network::Regtest).node_id();
    let newest = std::fs::read(network.join(store::FILE)).unwrap();
    // Beside the file as the stop left it, in a directory that nobody has open.
    let age = |database: &[u8]| {
        let beside = tempfile::tempdir().unwrap();
        std::fs::copy(&companion, beside.path().join(generation::FILE)).unwrap();
        std::fs::write(beside.path().join(store::FILE), database).unwrap();
        let (db, file) = store::open_and_load(beside.path(), "regtest", &node_id).unwrap();
        Generation::at_start(beside.path(), ("regtest", &node_id), &db, file.restored.is_some()).unwrap()
    };
    assert!(matches!(age(&copy), Some(Age::Old(_))), "a copy of the running database");
    assert!(matches!(age(&newest), Some(Age::Newest(_))), "what the stop left");
}

/// The words name the file, wherever in the start it is met.
#[test]
fn bad_input_96_a_file_that_the_disk_refuses_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let seed = Seed::create(dir.path(), || Ok([7; 32])).unwrap();
    let node_id = NodeKeys::derive(&seed, bitcoin::Network::Regtest).node_id();
    let refused = |path: &Path| {
        let fault = store::open(dir.path(), "regtest", &node_id).unwrap_err();
        assert!(matches!(fault, StoreError::Io(_)), "{fault}");
        let words = fault.to_string();
        let is_told = words.contains(&path.display().to_string()) && words.contains("Look whether the disk is there");
        assert!(is_told, "{words}");
    };
    // A directory where a file should be is what any user can bring about.
    let (database, companion) = (dir.path().join(store::FILE), dir.path().join(generation::FILE));
    let unfinished = dir.path().join(format!("{}.new", store::FILE));
    for path in [&database, &unfinished, &companion] {
        std::fs::create_dir(path).unwrap();
        refused(path);
        std::fs::remove_dir(path).unwrap();
    }
    drop(store::open(dir.path(), "regtest", &node_id).unwrap());
}

/// A disk in memory whose syncs fail from a moment on.
#[derive(Debug)]
struct Faulty {
    disk: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl StorageBackend for Faulty {
    fn len(&self) -> Result<u64, io::Error> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        // Once is enough: after a failed sync nothing is known of what is on the disk (DSK-1).
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.write(offset, data)
    }
}

/// EIO on a sync: nothing of the batch leaves, nothing is tried again, and what stops the process is told why.
#[test]
fn bad_input_96_per_5_dsk_1_a_failed_sync_releases_nothing_and_is_not_tried_again() {
    let fails = Arc::new(AtomicBool::new(false));
    let disk = Faulty { disk: InMemoryBackend::new(), fails: fails.clone() };
    let db = Arc::new(Database::builder().create_with_backend(disk).unwrap());
    let transaction = db.begin_write().unwrap();
    for table in Table::ALL {
        transaction.open_table(table.definition()).unwrap();
    }
    transaction.commit().unwrap();

    let (released, seen) = mpsc::channel();
    let (fatal, faults) = mpsc::channel();
    let deliver = move |effects: store::Released, _| released.send(effects.open().len()).unwrap();
    let (writer, thread) = Writer::start(db, deliver, move |fault| fatal.send(fault).unwrap()).unwrap();
    let submit = || {
        let (waiter, durable) = oneshot::channel();
        let mut batch = Batch::default();
        batch.put(Table::Wallet, vec![0; 8], Some(vec![1]));
        batch.hold(Held::Durable(waiter));
        writer.submit(batch);
        durable
    };
    drop(submit());
    assert_eq!(seen.recv_timeout(LIMIT).unwrap(), 1);
    fails.store(true, Ordering::SeqCst);
    let mut never = submit();
    let fault = faults.recv_timeout(LIMIT).unwrap();
    assert!(matches!(&fault, StoreError::Io(told) if told.contains(store::FILE)), "{fault}");
    assert!(fault.to_string().contains("nothing was sent, so restarting is safe"), "{fault}");
    thread.join().unwrap();
    // Who waits for the row is not even told that nobody will answer: the process ends before anybody could go on.
    assert_eq!(never.try_recv(), Err(TryRecvError::Empty));
    let mut later = submit();
    assert_eq!(later.try_recv(), Err(TryRecvError::Empty));
    assert!(seen.try_recv().is_err() && faults.try_recv().is_err());
}
