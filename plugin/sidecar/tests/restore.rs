//! A node comes back from each kind of backup, by the program's own door, and is in restored mode from its first start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test may panic wherever it likes")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use outrigger_bolt::address::PeerAddress;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::{ChannelHead, MonitorHead, Phase, Row};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{
    BackupInfo, BackupState, BackupStatus, ChannelForceClose, ChannelList, Client, EventKind, EventList, NodeStatus,
};
use outrigger_sidecar::clock::Clock;
use outrigger_sidecar::config::Config;
use outrigger_sidecar::key::{NodeKeys, Seed};
use outrigger_sidecar::node::Node;
use outrigger_sidecar::store::backup::command::{ANSWER_LIMIT, CommandSink, Program};
use outrigger_sidecar::store::backup::directory::{DirectorySink, make_place};
use outrigger_sidecar::store::backup::followed::Followed;
use outrigger_sidecar::store::backup::image::{Image, TipRecord};
use outrigger_sidecar::store::backup::kept::image_in;
use outrigger_sidecar::store::backup::mirror::{Mirror, MirrorPlace};
use outrigger_sidecar::store::backup::sealed::Sealer;
use outrigger_sidecar::store::backup::{Answer, Full, Persist, SinkEnds};
use outrigger_sidecar::store::schema::{TIP_KEY, Table};
use outrigger_sidecar::store::seal::{seal, unseal};
use outrigger_sidecar::store::{self, FILE, generation, journal};
use outrigger_sidecar::wallet::Wallet;
use redb::{ReadableDatabase, ReadableTable};
use serde_json::Value;

#[path = "restore/killed.rs"]
mod killed;
#[path = "restore/shipped.rs"]
mod shipped;

const LIMIT: Duration = Duration::from_secs(60);

/// The seed of the node whose database is kept as a sample.
const SEED: u8 = 2;

/// What a node that died had, and a place to restore it to.
struct Lost {
    dir: tempfile::TempDir,
    keys: NodeKeys,
    images: Vec<Image>,
    /// Where the record of the chain says that peers are reached.
    peers: Vec<(NodeId, String)>,
}

impl Lost {
    /// The database of `four-channels.redb`, which a node of format 2 left: three channels with an HTLC each, and one in history.
    fn sample() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let network = network_directory(dir.path(), "regtest");
        generation::make_directory(&network).unwrap();
        let seed = Seed::create(&network, || Ok([SEED; 32])).unwrap();
        let keys = NodeKeys::derive(&seed, bitcoin::Network::Regtest);
        let died = dir.path().join("died");
        fs::create_dir(&died).unwrap();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/four-channels.redb"), died.join(FILE))
            .unwrap();
        let (db, _) = store::open_and_load(&died, "regtest", &keys.node_id()).unwrap();
        // It is older than some tables.
        let transaction = db.begin_write().unwrap();
        for table in Table::ALL {
            transaction.open_table(table.definition()).unwrap();
        }
        transaction.commit().unwrap();
        let transaction = db.begin_read().unwrap();
        let mut images = Vec::new();
        for table in [Table::ChannelParams, Table::ClosedChannel] {
            for entry in transaction.open_table(table.definition()).unwrap().iter().unwrap() {
                let channel = ChannelId(entry.unwrap().0.value().try_into().unwrap());
                let mut image = image_in(&transaction, ("regtest", &keys.node_id()), &channel).unwrap();
                image.id = 5;
                images.push(image);
            }
        }
        assert_eq!(images.len(), 4);
        // An address that the peer had once; the newer one comes with the tip.
        let peer = images[0].params().unwrap().peer.serialize().to_vec();
        images[0].rows.insert((Table::PeerAddress, peer), b"old.example:9735".to_vec());
        let peers = vec![(images[0].params().unwrap().peer, "peer.example:9735".to_owned())];
        Self { dir, keys, images, peers }
    }

    fn node_id(&self) -> NodeId {
        self.keys.node_id()
    }

    fn network_dir(&self) -> PathBuf {
        network_directory(self.dir.path(), "regtest")
    }

    fn sealer(&self) -> Arc<Sealer> {
        Arc::new(Sealer::new(self.keys.backup_secret(), "regtest", &self.node_id()))
    }

    /// Gives everything to a sink and waits until it is complete.
    fn keep(&self, sink: impl FnOnce(SinkEnds) -> Box<dyn Persist>) {
        let (told, heard) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(move |channel: &ChannelId, id| told.send((*channel, id)).unwrap(), Clock::monotonic);
        let mut sink = sink(ends);
        let tip = TipRecord {
            network: "regtest".to_owned(),
            node_id: self.node_id(),
            height: 144,
            hash: BlockHash::from_byte_array([9; 32]),
            at_unix: 1_800_000_000,
            peers: self.peers.clone(),
            channels: Some(self.images.iter().map(|image| (image.channel, 5)).collect()),
        };
        assert!(!matches!(sink.persist_tip(&tip), Answer::PermanentFailure(_)));
        for image in &self.images {
            let read = || Ok(image.clone());
            let funding = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
            let answer = sink.persist_new_channel(&image.channel, funding, &Full::new(&read), image.id);
            sink.all_given();
            match answer {
                Answer::Completed => {}
                Answer::InProgress => assert_eq!(heard.recv_timeout(LIMIT), Ok((image.channel, image.id))),
                Answer::PermanentFailure(words) => panic!("{words}"),
            }
        }
    }

    fn keep_in_directory(&self) -> PathBuf {
        let path = self.dir.path().join("backup");
        fs::create_dir(&path).unwrap();
        let owner = ("regtest".to_owned(), self.node_id());
        make_place(&path, (&owner.0, &owner.1)).unwrap();
        self.keep(|ends| Box::new(DirectorySink::new(path.clone(), owner, self.sealer(), 100, ends)));
        path
    }

    /// The node's database as it was before it died, with its journal.
    fn lives(&self) {
        for file in [FILE, journal::FILE] {
            fs::copy(self.dir.path().join("died").join(file), self.network_dir().join(file)).unwrap();
        }
        // The sample comes from a world that has no wallet.
        let db = redb::Database::open(self.network_dir().join(FILE)).unwrap();
        let transaction = db.begin_write().unwrap();
        while transaction.open_table(Table::Wallet.definition()).unwrap().pop_first().unwrap().is_some() {}
        transaction.commit().unwrap();
    }

    /// What the daemon says of its backups, once it has so many and all are so.
    async fn backups_once(&self, number: usize, are_so: fn(&BackupInfo) -> bool) -> Vec<BackupInfo> {
        let told = async {
            loop {
                tokio::task::yield_now().await;
                let Ok(client) = Client::in_directory(&self.network_dir()) else { continue };
                let Ok(told) = client.call(BackupStatus {}).await else { continue };
                if told.items.len() == number && told.items.iter().all(are_so) {
                    return told.items;
                }
            }
        };
        tokio::time::timeout(LIMIT, told).await.expect("the daemon tells of its backups")
    }

    /// The program, and where it keeps.
    fn keep_by_program(&self) -> (PathBuf, PathBuf) {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
        let kept = self.dir.path().join("kept");
        let program = Program {
            name: "test".to_owned(),
            command: vec![example.display().to_string(), kept.display().to_string()],
            network: "regtest".to_owned(),
            node_id: self.node_id(),
            sealer: self.sealer(),
            limit: ANSWER_LIMIT,
        };
        self.keep(|ends| Box::new(CommandSink::new(program, ends)));
        (example, kept)
    }

    fn restore(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_outriggerd"))
            .args(["restore", "--network", "regtest", "--data-dir"])
            .arg(self.dir.path())
            .args(words)
            .env("HOME", self.dir.path())
            .output()
            .unwrap()
    }

    fn verify(&self, from: &str) -> (Option<i32>, Value) {
        let output = Command::new(env!("CARGO_BIN_EXE_outriggerd"))
            .args(["verify-backup", "--json", "--network", "regtest", "--from", from, "--data-dir"])
            .arg(self.dir.path())
            .env("HOME", self.dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|fault| panic!("{fault}: {said}")))
    }

    /// Restores with `--json`, ending with this code.
    fn restored(&self, from: &str, code: i32) -> Value {
        self.told(&["--json", "--from", from], code)
    }

    /// Ends with this code, with `--json` among the words.
    fn told(&self, words: &[&str], code: i32) -> Value {
        let output = self.restore(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Something could not be read: nothing is made, and the next one finds nothing in its way.
    fn unread(&self, words: &[&str]) -> Value {
        let told = self.told(words, 6);
        assert_eq!((&told["written"], &told["is_whole"]), (&false.into(), &false.into()));
        let left = fs::read_dir(self.network_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name != "lock").collect();
        assert_eq!(left, ["seed"]);
        told
    }

    fn refused(&self, words: &[&str]) -> String {
        let output = self.restore(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    /// The rows that were kept are there, and nothing else of any channel.
    fn assert_rows(&self) {
        let (db, file) = store::open_and_load(&self.network_dir(), "regtest", &self.node_id()).unwrap();
        assert!(file.restored.unwrap().starts_with("it was restored from "));
        assert_eq!((file.channels.len(), file.frozen.len()), (3, 0));
        let transaction = db.begin_read().unwrap();
        for image in &self.images {
            let mut found = image_in(&transaction, ("regtest", &self.node_id()), &image.channel).unwrap();
            let mut expected = image.clone();
            for image in [&mut found, &mut expected] {
                image.rows.retain(|(table, _), _| *table != Table::PeerAddress);
            }
            assert_eq!(found, expected);
        }
        let addresses = transaction.open_table(Table::PeerAddress.definition()).unwrap();
        for (peer, address) in &self.peers {
            let row = addresses.get(peer.serialize().as_slice()).unwrap().expect("the newest");
            let address_of = unseal(Table::PeerAddress, &peer.serialize(), row.value()).unwrap();
            assert!(address_of == address.as_bytes(), "the newest");
        }
        let is_one = |(_, address): &&(NodeId, String)| address.parse::<PeerAddress>().is_ok();
        assert!(file.peer_addresses.iter().eq(self.peers.iter().filter(is_one)), "those that are addresses are told");
        assert_eq!(file.wallet.len(), 1);
    }
}

fn outcomes(told: &Value) -> Vec<&str> {
    let mut outcomes: Vec<_> =
        told["channels"].as_array().unwrap().iter().map(|channel| channel["outcome"].as_str().unwrap()).collect();
    outcomes.sort_unstable();
    outcomes
}

/// The program itself, killed when it is dropped.
struct Daemon(std::process::Child);

impl Daemon {
    fn start(directory: &Path) -> Self {
        let daemon = Command::new(env!("CARGO_BIN_EXE_outriggerd"))
            .args(["--network", "regtest", "--bitcoind-url", "127.0.0.1:1", "--listen", "127.0.0.1:0"])
            .args(["--rpc-address", "127.0.0.1:0", "--log-level", "error", "--data-dir"])
            .arg(directory)
            .env("HOME", directory)
            .spawn();
        Self(daemon.unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What is ours in each channel of the database, in millisatoshi, and its HTLCs, in the order of the channels.
fn sampled() -> Vec<(u64, u64)> {
    vec![(435_904_000, 0), (592_000_000, 2), (400_000_000, 1)]
}

/// A node without bitcoind: it waits for it, and its interface answers.
async fn node(directory: &Path) -> Node {
    let words = ["outriggerd", "--network", "regtest", "--bitcoind-url", "127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let more = ["--rpc-address", "127.0.0.1:0", "--data-dir", directory.to_str().unwrap()];
    let arguments = words.into_iter().chain(more).map(OsString::from);
    Node::start(&Config::read(arguments, directory).unwrap()).await.unwrap()
}

/// A close of a channel whose rows are older than the record of the chain may be in a block between the two.
#[test]
fn bak_1_rows_that_are_older_than_the_record_of_the_chain_are_followed_from_their_own_block() {
    let mut lost = Lost::sample();
    let own = Followed { height: 77, hash: BlockHash::from_byte_array([8; 32]) };
    let live = lost.images.iter_mut().filter(|image| image.is_live());
    for (image, is_behind) in live.zip([true, false, true]) {
        let followed = Followed { height: if is_behind { 77 } else { 5 }, ..own };
        image.rows.insert((Table::Followed, image.channel.0.to_vec()), followed.encode());
        image.id = if is_behind { 4 } else { 5 };
    }
    let backup = lost.keep_in_directory();
    let told = lost.restored(&format!("directory:{}", backup.display()), 2);
    // The quiet channel, whose rows are as new as the record says, is not a reason to go further back.
    assert_eq!(told["block_height"], 77);
    let behind: Vec<_> =
        told["channels"].as_array().unwrap().iter().filter(|found| found["newest"] != found["restored_to"]).collect();
    assert_eq!(behind.len(), 2);
    for found in behind {
        assert_eq!((&found["restored_to"], &found["newest"]), (&4.into(), &5.into()));
        let fault = found["faults"][0].as_str().unwrap();
        assert!(fault.contains("those after 4 are missing: it is followed from block 77 on"), "{fault}");
    }
    let (_, file) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
    let rows: Vec<_> = file.wallet.iter().map(|(_, row)| row.clone()).collect();
    let seed = Seed::load(&lost.network_dir()).unwrap().unwrap();
    let wallet = Wallet::load(&seed, bitcoin::Network::Regtest, &rows).unwrap();
    assert_eq!(wallet.tip(), Some((own.height, own.hash)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bak_1_a_node_restored_from_a_directory_starts_in_restored_mode_with_its_channels() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let told = lost.restored(&format!("directory:{}", backup.display()), 0);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    assert_eq!((&told["is_whole"], &told["block_height"]), (&Value::Bool(true), &Value::from(144)));
    let first = told["channels"].as_array().unwrap().iter().find(|channel| channel["outcome"] == "restored").unwrap();
    let (balance_msat, htlcs) = sampled()[0];
    assert_eq!((&first["restored_to"], &first["newest"], &first["htlcs"]), (&5.into(), &5.into(), &htlcs.into()));
    assert_eq!(first["balance_msat"], balance_msat);
    assert!(first["expect"].as_str().unwrap().contains("asked to close"));
    lost.assert_rows();

    let node = node(lost.dir.path()).await;
    let client = Client::in_directory(&lost.network_dir()).unwrap();
    let stop = node.stopper();
    let running = tokio::spawn(node.run());
    // bitcoind never answers: what it waits for and what it is are told together.
    let told = async {
        loop {
            let reason = client.call(NodeStatus {}).await.unwrap().reason;
            match reason.filter(|reason| reason.contains("restored")) {
                Some(reason) => return reason,
                None => tokio::task::yield_now().await,
            }
        }
    };
    let reason = tokio::time::timeout(LIMIT, told).await.expect("the daemon says that it was restored");
    assert!(reason.contains("restored mode") && reason.contains("it was restored from directory:"), "{reason}");
    let listed = client.call(ChannelList::default()).await.unwrap().items;
    assert_eq!(listed.len(), 4, "history is listed too");
    // BAK-6: what would publish our commitment is refused.
    let order = ChannelForceClose { channel_id: lost.images[0].channel.to_string() };
    let refused = client.call(order).await.unwrap_err().to_string();
    assert!(refused.contains("restored mode"), "{refused}");
    stop();
    running.await.unwrap().unwrap();
}

fn backup(name: &str, kind: &str, place: String) -> String {
    format!("[[backup]]\nname = \"{name}\"\nkind = \"{kind}\"\nrequirement = \"required\"\n{place}\n")
}

fn is_complete(backup: &BackupInfo) -> bool {
    backup.state == BackupState::Complete && backup.lag_updates == 0
}

fn is_troubled(backup: &BackupInfo) -> bool {
    backup.state == BackupState::Troubled
}

/// What is made on a mount point counts as complete, and is not there once the disk is.
#[tokio::test(flavor = "multi_thread")]
async fn per_2_a_backup_whose_disk_is_not_mounted_is_waited_for_and_never_made_anew() {
    let lost = Lost::sample();
    lost.lives();
    let [disk, away] = ["disk", "away"].map(|name| lost.dir.path().join(name));
    let config = [
        backup("second", "mirror", format!("path = \"{}\"", disk.join("mirror.redb").display())),
        backup("files", "directory", format!("path = \"{}\"", disk.display())),
    ]
    .concat();
    let file = lost.dir.path().join("outrigger.toml");
    fs::write(&file, &config).unwrap();

    // It is not there yet when they are new: the next start makes them.
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(2, is_troubled).await;
    drop(daemon);
    fs::create_dir(&disk).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(2, is_complete).await;
    drop(daemon);

    fs::rename(&disk, &away).unwrap();
    fs::create_dir(&disk).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    for troubled in lost.backups_once(2, is_troubled).await {
        let reason = troubled.reason.unwrap();
        assert!(reason.contains("Its disk may not be mounted: mount it."), "{reason}");
    }
    assert!(fs::read_dir(&disk).unwrap().next().is_none(), "nothing is made on the mount point");
    fs::remove_dir(&disk).unwrap();
    fs::rename(&away, &disk).unwrap();
    lost.backups_once(2, is_complete).await;
    drop(daemon);

    // To begin them anew they are taken out of the configuration for one start.
    fs::remove_dir_all(&disk).unwrap();
    fs::create_dir(&disk).unwrap();
    fs::write(&file, "").unwrap();
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(0, is_complete).await;
    drop(daemon);
    fs::write(&file, &config).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(2, is_complete).await;
    drop(daemon);
}

/// A node keeps its channels in a backup of each kind, and each gives them back, row by row.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_channels_in_each_kind_of_backup_and_comes_back_from_any() {
    let lost = Lost::sample();
    lost.lives();
    let place = |name: &str| lost.dir.path().join(name).display().to_string();
    fs::create_dir(lost.dir.path().join("files")).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
    let config = [
        backup("second", "mirror", format!("path = \"{}\"", place("mirror.redb"))),
        backup("files", "directory", format!("path = \"{}\"", place("files"))),
        backup("program", "command", format!("command = [\"{}\", \"{}\"]", example.display(), place("kept"))),
    ];
    fs::write(lost.dir.path().join("outrigger.toml"), config.concat()).unwrap();

    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(3, is_complete).await;
    drop(daemon);

    for name in ["second", "files", "program"] {
        // The node has never seen a chain, so no backup tells of one. Nothing else is amiss.
        let (code, told) = lost.verify(name);
        assert_eq!((code, &told["is_whole"]), (Some(2), &false.into()), "{name}: {told}");
        assert_eq!(told["block_height"], Value::Null, "{name}");
        assert!(told["channels"].as_array().unwrap().iter().all(|found| found["faults"] == serde_json::json!([])));
        assert_eq!(outcomes(&told), ["restored", "restored", "restored"], "{name}");
    }
    // The disk dies.
    fs::rename(lost.network_dir().join(FILE), lost.dir.path().join("old")).unwrap();
    fs::remove_file(lost.network_dir().join("generation")).unwrap();
    fs::remove_file(lost.network_dir().join(journal::FILE)).unwrap();
    for name in ["second", "files", "program"] {
        let told = lost.restored(name, 2);
        assert_eq!(outcomes(&told), ["restored", "restored", "restored"], "{name}");
        let (_, file) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
        let mut restored: Vec<_> = file.channels.iter().map(|loaded| loaded.channel.rows().head.clone()).collect();
        restored.sort_by_key(|head| head.local_commitment.to_local);
        assert_eq!(restored.len(), 3);
        let balances: Vec<_> = restored.iter().map(|head| head.local_commitment.to_local.get()).collect();
        let mut sampled: Vec<_> = sampled().into_iter().map(|(balance_msat, _)| balance_msat).collect();
        sampled.sort_unstable();
        assert_eq!(balances, sampled, "{name}");
        // In restored mode it has no journal.
        fs::remove_file(lost.network_dir().join(FILE)).unwrap();
    }
}

/// A restore from each is tried while the node runs. One of them has changed unseen: it is complete by its ids, and would bring back
/// something else.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_a_restore_is_tried_while_the_node_runs_and_one_that_is_not_right_is_shown() {
    let lost = Lost::sample();
    lost.lives();
    let place = |name: &str| lost.dir.path().join(name).display().to_string();
    fs::create_dir(lost.dir.path().join("files")).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
    let config = [
        backup("second", "mirror", format!("path = \"{}\"", place("mirror.redb"))),
        backup("files", "directory", format!("path = \"{}\"", place("files"))),
        backup("program", "command", format!("command = [\"{}\", \"{}\"]", example.display(), place("kept"))),
    ];
    fs::write(lost.dir.path().join("outrigger.toml"), config.concat()).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    let right = lost.backups_once(3, |backup| backup.verified_at.is_some()).await;
    assert!(right.iter().all(|backup| backup.verify_failure.is_none()));
    let verified_at = |told: &[BackupInfo], name: &str| {
        told.iter().find(|backup| backup.name == name).and_then(|backup| backup.verified_at)
    };
    drop(daemon);

    let db = redb::Database::open(lost.dir.path().join("mirror.redb")).unwrap();
    let transaction = db.begin_write().unwrap();
    let (table, key) = (Table::FundingSpend, lost.images[0].channel.0);
    let row = seal(table, &key, b"?");
    transaction.open_table(table.definition()).unwrap().insert(key.as_slice(), row.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    // Of one none is tried any more: what is known of it outlives the process all the same, which was killed.
    let untried = format!("path = \"{}\"\nverify_every_hours = 0", place("files"));
    let config = [config[0].clone(), backup("files", "directory", untried), config[2].clone()];
    fs::write(lost.dir.path().join("outrigger.toml"), config.concat()).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    let told = lost.backups_once(3, |backup| (backup.name == "second") == backup.verify_failure.is_some()).await;
    for name in ["second", "files"] {
        assert_eq!(verified_at(&told, name), verified_at(&right, name), "{name}");
    }
    let wrong = told.into_iter().find(|backup| backup.name == "second").unwrap();
    let words = wrong.verify_failure.unwrap();
    assert!(words.contains(&lost.images[0].channel.to_string()), "{words}");
    assert!(words.contains("0 of its rows are missing or other ones, and 1 are too many"), "{words}");
    assert!(wrong.hint.unwrap().contains("Keep both"));
    assert!(wrong.unverified.is_none());
    let client = Client::in_directory(&lost.network_dir()).unwrap();
    let shown = async {
        loop {
            let status = client.call(NodeStatus {}).await.unwrap();
            let events = EventList { kinds: Some(vec![EventKind::BackupNotVerified]), ..Default::default() };
            let events = client.call(events).await.unwrap().items;
            if let (Some(words), [event]) = (status.backups, events.as_slice()) {
                return (words, event.message.clone().unwrap());
            }
            tokio::task::yield_now().await;
        }
    };
    let (status, event) = tokio::time::timeout(LIMIT, shown).await.unwrap();
    assert!(status.contains("second would not bring back what there is"), "{status}");
    assert!(event.contains("the backup second would not bring back what this node has"), "{event}");
    drop(daemon);
}

/// A channel that a backup cannot take is shown, with the others complete, and so is that no restore is tried from that backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_a_channel_is_too_large_for_says_so_and_that_no_restore_is_tried_from_it() {
    let lost = Lost::sample();
    lost.lives();
    let large = lost.images[0].channel;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
    let text = fs::read_to_string(example).unwrap();
    let part = "    case $method in";
    assert!(text.contains(part));
    let answer = r#"{"jsonrpc":"2.0","id":%s,"result":{"answer":"too_large","reason":"the bucket is small"}}"#;
    let spoil = format!(
        "    if [[ $method == update_persisted_channel && $channel == *{large} ]]; then field id; printf '{answer}\\n' \"$value\"; continue; fi\n{part}"
    );
    let program = lost.dir.path().join("spoilt");
    fs::write(&program, text.replace(part, &spoil)).unwrap();
    let (kept, files) = (lost.dir.path().join("kept"), lost.dir.path().join("files"));
    fs::create_dir(&files).unwrap();
    let config = [
        backup(
            "program",
            "command",
            format!("command = [\"bash\", \"{}\", \"{}\"]", program.display(), kept.display()),
        ),
        backup("files", "directory", format!("path = \"{}\"\nverify_every_hours = 0", files.display())),
    ];
    fs::write(lost.dir.path().join("outrigger.toml"), config.concat()).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    let told = lost.backups_once(2, |backup| backup.unverified.is_some() && backup.lag_updates <= 2).await;
    let [program, files] = ["program", "files"].map(|name| told.iter().find(|backup| backup.name == name).unwrap());
    assert_eq!(program.state, BackupState::Troubled);
    let place = kept.join(lost.node_id().to_string());
    assert!(program.lag_updates > 0 && fs::read_dir(place).unwrap().count() == 2, "the others are there");
    let reason = program.reason.clone().unwrap();
    let words = format!("channel {large} has a record that is too large for the program: the bucket is small");
    assert!(reason.starts_with(&words), "{reason}");
    let words = "it is in trouble, and no restore is tried from it before it is well";
    assert_eq!((program.unverified.as_deref(), program.verified_at), (Some(words), None));
    assert!(is_complete(files));
    assert_eq!(files.unverified.as_deref(), Some("verify_every_hours is 0, so no restore is tried from it"));
    drop(daemon);
}

#[test]
fn a_node_comes_back_from_a_mirror_which_is_not_changed_by_a_byte() {
    let lost = Lost::sample();
    let path = lost.dir.path().join("mirror.redb");
    let place = MirrorPlace::new(path.clone(), "regtest", lost.node_id());
    place.make().unwrap();
    lost.keep(|ends| Box::new(Mirror::new(place, ends)));
    let before = fs::read(&path).unwrap();
    let told = lost.restored(&format!("mirror:{}", path.display()), 0);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    assert!(fs::read(&path).unwrap() == before, "the mirror was changed");
    let (_, file) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
    assert_eq!(file.channels.len(), 3);
    let refused = lost.refused(&["--from", "mirror:/nowhere/mirror.redb"]);
    assert!(refused.contains("holds a database already"), "{refused}");
}

/// A user that is nobody's: what is not its own it can only read. Root may write everything.
const NOBODY: u32 = 65534;

/// Gives everything in a directory to nobody.
fn give_away(dir: &Path) {
    std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => give_away(&entry.path()),
            false => std::os::unix::fs::chown(entry.path(), Some(NOBODY), Some(NOBODY)).unwrap(),
        }
    }
}

#[test]
fn a_node_comes_back_from_a_mirror_that_can_only_be_read() {
    let lost = Lost::sample();
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().join("mirror.redb");
    let place = MirrorPlace::new(path.clone(), "regtest", lost.node_id());
    place.make().unwrap();
    lost.keep(|ends| Box::new(Mirror::new(place, ends)));
    // As on a disk that is mounted to be read alone.
    let may_only = |mode: u32, path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let journal = disk.path().join("mirror.redb.journal");
    [&path, &journal].into_iter().for_each(|file| may_only(0o444, file));
    may_only(0o555, disk.path());
    let program = lost.dir.path().join("outriggerd");
    fs::copy(env!("CARGO_BIN_EXE_outriggerd"), &program).unwrap();
    let mut command = Command::new(&program);
    if rustix::process::getuid().is_root() {
        give_away(lost.dir.path());
        command.uid(NOBODY).gid(NOBODY);
    }
    let read = |file: &Path| fs::read(file).unwrap();
    let before = (read(&path), read(&journal));
    let output = command
        .args([
            "restore",
            "--json",
            "--network",
            "regtest",
            "--from",
            &format!("mirror:{}", path.display()),
            "--data-dir",
        ])
        .arg(lost.dir.path())
        .env("HOME", lost.dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    assert!(before == (read(&path), read(&journal)), "the mirror was changed");
    may_only(0o755, disk.path());
}

#[test]
fn bak_5_a_channel_whose_parameters_are_gone_is_told_as_lost_and_not_passed_over() {
    let lost = Lost::sample();
    let path = lost.dir.path().join("mirror.redb");
    let place = MirrorPlace::new(path.clone(), "regtest", lost.node_id());
    place.make().unwrap();
    lost.keep(|ends| Box::new(Mirror::new(place, ends)));
    let channel = lost.images[1].channel;
    let db = redb::Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    transaction.open_table(Table::ChannelParams.definition()).unwrap().remove(channel.0.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    let told = lost.restored(&format!("mirror:{}", path.display()), 2);
    assert_eq!(outcomes(&told), ["history", "lost", "restored", "restored"]);
    let name = channel.to_string();
    let damaged =
        told["channels"].as_array().unwrap().iter().find(|found| found["channel_id"] == name.as_str()).unwrap();
    assert_eq!(
        damaged["faults"],
        serde_json::json!(["what both sides agreed is missing: the rest of its rows cannot be used"])
    );
}

#[test]
fn a_node_comes_back_from_a_program() {
    let lost = Lost::sample();
    let (example, kept) = lost.keep_by_program();
    let told = lost.restored(&format!("command:{} {}", example.display(), kept.display()), 0);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    lost.assert_rows();
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let output = lost.restore(&["--dry-run", "--from", &format!("directory:{}", backup.display())]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("a dry run, which wrote nothing, of: node "), "{said}");
    for (balance_msat, htlcs) in sampled() {
        let told = format!("ours {} sat, {htlcs} HTLCs; write 5 of 5", balance_msat / 1000);
        assert!(said.contains(&told), "{told}: {said}");
    }
    assert!(said.contains("The chain is followed from block 144 on."), "{said}");
    let left: Vec<_> = fs::read_dir(lost.network_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["seed"]);
}

#[test]
fn a_channel_that_is_damaged_is_left_out_and_told_and_the_others_come_back() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let channel = lost.images[1].channel;
    let place = backup.join(format!("regtest-{}", lost.node_id())).join(channel.to_string());
    let file = place.join("full-00000000000000000005.sealed");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let told = lost.restored(&format!("directory:{}", backup.display()), 2);
    assert_eq!(outcomes(&told), ["history", "lost", "restored", "restored"]);
    assert_eq!(told["is_whole"], false);
    let name = channel.to_string();
    let damaged =
        told["channels"].as_array().unwrap().iter().find(|found| found["channel_id"] == name.as_str()).unwrap();
    assert!(damaged["faults"][0].as_str().unwrap().contains("it is damaged"), "{damaged}");
    assert_eq!((&damaged["newest"], &damaged["restored_to"]), (&5.into(), &Value::Null));
    let (_, file) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
    assert_eq!(file.channels.len(), 2);
}

/// The program answers wrongly for one channel, or ends each time that it is asked for it: what it has of that is not known.
#[test]
fn bak_5_what_a_program_does_not_give_back_now_keeps_a_restore_from_writing_anything() {
    let lost = Lost::sample();
    let (example, kept) = lost.keep_by_program();
    let channel = lost.images[1].channel;
    let spoilt = |words: &str| {
        let program = lost.dir.path().join("spoilt");
        let text = fs::read_to_string(&example).unwrap();
        let part = "    field method;";
        assert!(text.contains(part));
        let condition = format!("[[ $line == *list_records* && $line == *{channel}* ]]");
        fs::write(&program, text.replace(part, &format!("    if {condition}; then {words}; fi; field method;")))
            .unwrap();
        format!("command:bash {} {}", program.display(), kept.display())
    };
    let wrong = spoilt("field id; echo '{\"jsonrpc\":\"2.0\",\"id\":'$value',\"result\":{}}'; continue");
    let told = lost.unread(&["--json", "--from", &wrong]);
    assert!(unread_of(&told, channel)[0].contains("list_records"), "{told}");
    let told = lost.unread(&["--json", "--dry-run", "--from", &wrong]);
    assert_eq!(outcomes(&told), ["history", "lost", "restored", "restored"]);
    let ends = spoilt("exit 1");
    let told = lost.unread(&["--json", "--from", &ends]);
    assert!(unread_of(&told, channel)[0].contains("it ended or closed its output"), "{told}");
    let told = lost.told(&["--json", "--take-what-is-there", "--from", &ends], 2);
    assert_eq!((&told["written"], &told["is_whole"]), (&true.into(), &false.into()));
    assert_eq!(outcomes(&told), ["history", "lost", "restored", "restored"]);
    assert_eq!(unread_of(&told, channel).len(), 1, "it is named: {told}");
    let (_, file) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
    assert_eq!(file.channels.len(), 2, "the others come back");
}

/// The example with one part of its text in another's place.
fn spoilt(lost: &Lost, (part, other): (&str, &str)) -> String {
    let (example, kept) = lost.keep_by_program();
    let program = lost.dir.path().join("spoilt");
    let text = fs::read_to_string(&example).unwrap();
    assert!(text.contains(part));
    fs::write(&program, text.replace(part, other)).unwrap();
    format!("command:bash {} {}", program.display(), kept.display())
}

fn faults_of(told: &Value, channel: ChannelId) -> Vec<String> {
    words_of(told, channel, "faults")
}

fn unread_of(told: &Value, channel: ChannelId) -> Vec<String> {
    words_of(told, channel, "unread")
}

fn words_of(told: &Value, channel: ChannelId, field: &str) -> Vec<String> {
    let name = channel.to_string();
    let found = told["channels"].as_array().unwrap().iter().find(|found| found["channel_id"] == name.as_str());
    serde_json::from_value(found.unwrap()[field].clone()).unwrap()
}

/// Names that are none, that come twice or out of order: each is told, and what is there comes back.
#[test]
fn bad_input_95_faulty_names_of_channels_are_told_and_cost_no_channel() {
    let lost = Lost::sample();
    let list = "result=$(list channel_ids \"${found[@]}\")";
    let faulty = format!(
        "((${{#found[@]}} > 2)) && found=(\"${{found[3]}}\" \"${{found[0]}}\" \"${{found[@]}}\" 7 '\"zz\"' null); {list}"
    );
    let told = lost.restored(&spoilt(&lost, (list, &faulty)), 2);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    let mut channels: Vec<_> = lost.images.iter().map(|image| image.channel).collect();
    channels.sort_unstable();
    for channel in &channels {
        assert_eq!(faults_of(&told, *channel), Vec::<String>::new());
    }
    let mut faults: Vec<String> = serde_json::from_value(told["faults"].clone()).unwrap();
    faults.sort();
    let [first, second, third, last] = channels.as_slice() else { panic!("four channels") };
    let mut expected = vec![
        format!("it lists channel {first} behind a higher one"),
        format!("it lists channel {second} behind a higher one"),
        format!("it lists channel {third} behind a higher one"),
        format!("it lists channel {first} twice"),
        format!("it lists channel {last} twice"),
        "it lists 7 as a channel".to_owned(),
        r#"it lists \"zz\" as a channel"#.to_owned(),
        "it lists null as a channel".to_owned(),
    ];
    expected.sort();
    assert_eq!(faults, expected);
    lost.assert_rows();
}

/// A program that takes no notice of what it is asked for lists the same for ever.
#[test]
fn bad_input_95_a_list_that_begins_anew_ends() {
    let lost = Lost::sample();
    let told = lost.restored(&spoilt(&lost, ("[[ ${dir##*/} > ${value/null/} ]] &&", "")), 2);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    let words = "it lists no other channels when it is asked for those behind the last one";
    assert_eq!(told["faults"], serde_json::json!([words]));
}

#[test]
fn bad_input_95_faulty_names_of_records_are_told_with_their_channel_and_what_is_whole_comes_back() {
    let lost = Lost::sample();
    let channel = lost.images[1].channel;
    let list = "result=$(list records \"${found[@]}\")";
    let faulty = [
        r#"{"kind":"full","update_id":-3}"#,
        r#"{"kind":"tip","update_id":9}"#,
        r#"{"kind":"update","follows":9,"update_id":2}"#,
        r#"{"kind":"update","update_id":2}"#,
        r#"{"kind":"full","update_id":9,"channel_id":"ab"}"#,
        r#"{"kind":"full","update_id":18446744073709551616}"#,
        "7",
    ];
    let all: Vec<_> = faulty.iter().map(|entry| format!("'{entry}'")).collect();
    let spoil = format!("[[ $channel == *{channel} ]] && found+=({} \"${{found[0]}}\"); {list}", all.join(" "));
    let told = lost.restored(&spoilt(&lost, (list, &spoil)), 2);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    let faults = faults_of(&told, channel);
    assert_eq!(faults.len(), faulty.len() + 1, "{faults:?}");
    assert!(
        faults[..7].iter().all(|fault| fault.starts_with("it lists ") && fault.ends_with(" as a record")),
        "{faults:?}"
    );
    assert_eq!(faults[7], "it lists full 5 twice");
    assert_eq!(faults_of(&told, lost.images[0].channel), Vec::<String>::new());
    lost.assert_rows();
}

/// What it gives under another's name is lost alone. What it refuses may be there.
#[test]
fn bad_input_95_records_that_are_another_s_are_lost_alone_and_refused_ones_are_not_given_up() {
    let lost = Lost::sample();
    let [refused, other] = [lost.images[1].channel, lost.images[2].channel];
    let fetch = "fetch) field kind;";
    let spoil = format!(
        "fetch) if [[ $channel == *{refused} ]]; then field id
            {REFUSE}; continue; fi
        if [[ $channel == *{other} ]]; then channel=$node/{refused}; fi; field kind;"
    );
    let from = spoilt(&lost, (fetch, &spoil));
    let output = lost.restore(&["--from", &from]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.starts_with("NOT restored, nothing was written: node "), "{said}");
    assert!(
        said.contains(&format!("channel {refused}: lost\n")) && said.contains("  not read: full 5 of channel"),
        "{said}"
    );
    assert!(said.contains("Nothing was written: run it again."), "{said}");
    let told = lost.unread(&["--json", "--from", &from]);
    assert!(unread_of(&told, refused)[0].contains("it answered fetch with an error"), "{told}");
    assert!(unread_of(&told, refused)[0].contains("it is locked"), "{told}");
    let told = lost.told(&["--json", "--take-what-is-there", "--from", &from], 2);
    assert_eq!(outcomes(&told), ["history", "lost", "lost", "restored"]);
    assert!(faults_of(&told, other)[0].contains("it is damaged, stands under another's name"), "{told}");
}

/// An answer of the example in the midst of a request whose id is in `$value`.
const REFUSE: &str = r#"printf '{"jsonrpc":"2.0","id":%s,"error":{"code":1,"message":"it is locked"}}\n' "$value""#;

/// A store that is away for a moment refuses each kind of question once.
#[test]
fn bak_5_a_refusal_that_passes_costs_a_restore_nothing() {
    let lost = Lost::sample();
    let asked = lost.dir.path().join("asked");
    fs::create_dir(&asked).unwrap();
    let part = "    case $method in";
    let spoil = format!(
        "    if [[ $method != hello && $method != persist* && $method != update* && ! -e {0}/$method ]]; then touch {0}/$method; field id; {REFUSE}; continue; fi\n{part}",
        asked.display()
    );
    let told = lost.restored(&spoilt(&lost, (part, &spoil)), 0);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    assert_eq!(fs::read_dir(&asked).unwrap().count(), 4, "each was refused");
    lost.assert_rows();
}

/// What is not listed would not even be missed without the record of the chain; and without that a close may never be seen.
#[test]
fn bak_5_a_list_that_is_cut_short_or_a_record_of_the_chain_that_is_refused_writes_nothing() {
    let lost = Lost::sample();
    let list = "list_channels)\n        field after;";
    let cut =
        format!("list_channels)\n        field after; if [[ $value != null ]]; then field id; {REFUSE}; continue; fi;");
    let told = lost.unread(&["--json", "--from", &spoilt(&lost, (list, &cut))]);
    let words = told["unread"][0].as_str().unwrap();
    assert!(words.contains("it answered list_channels with an error"), "{told}");
    let tip = "    fetch_tip)\n";
    let from = spoilt(&lost, (tip, &format!("{tip} field id; {REFUSE}; continue\n")));
    let told = lost.unread(&["--json", "--from", &from]);
    assert!(told["unread"][0].as_str().unwrap().contains("it answered fetch_tip with an error"), "{told}");
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    let told = lost.told(&["--json", "--take-what-is-there", "--from", &from], 2);
    assert_eq!((&told["written"], &told["block_height"]), (&true.into(), &Value::Null));
    // The same look beside the database: nothing differs that could be read.
    let (code, told) = lost.verify(&from);
    assert_eq!((code, &told["is_whole"]), (Some(6), &false.into()), "{told}");
}

/// In the place of a file something that no disk reads, until it is called.
fn unreadable(path: &Path) -> impl FnOnce() {
    let (path, aside) = (path.to_owned(), path.with_extension("aside"));
    fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    move || {
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
}

/// A disk that reads one file badly does not say that it is not there.
#[test]
fn bak_5_a_file_that_cannot_be_read_now_keeps_a_restore_from_writing_anything() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let place = backup.join(format!("regtest-{}", lost.node_id()));
    let from = format!("directory:{}", backup.display());
    let channel = lost.images[1].channel;
    let record = place.join(channel.to_string()).join("full-00000000000000000005.sealed");
    let mend = unreadable(&record);
    let told = lost.unread(&["--json", "--from", &from]);
    assert!(unread_of(&told, channel)[0].starts_with(&record.display().to_string()), "{told}");
    lost.unread(&["--json", "--dry-run", "--from", &from]);
    mend();
    let tip = place.join(format!("tip-{:020}.sealed", 144));
    let mend = unreadable(&tip);
    let told = lost.unread(&["--json", "--from", &from]);
    assert!(told["unread"][0].as_str().unwrap().starts_with(&tip.display().to_string()), "{told}");
    mend();
    let told = lost.restored(&from, 0);
    assert_eq!((&told["written"], outcomes(&told).len()), (&true.into(), 4));
    lost.assert_rows();
}

/// A disk that does not read one file costs its channel one full write, or its own promises, and no other channel anything.
#[tokio::test(flavor = "multi_thread")]
async fn per_2_bak_1_a_file_of_a_required_directory_that_cannot_be_read_at_a_start_concerns_its_channel_alone() {
    let lost = Lost::sample();
    lost.lives();
    let files = lost.dir.path().join("files");
    fs::create_dir(&files).unwrap();
    let config = backup("files", "directory", format!("path = \"{}\"", files.display()));
    fs::write(lost.dir.path().join("outrigger.toml"), config).unwrap();
    let place = files.join(format!("regtest-{}", lost.node_id()));
    let live: Vec<_> = lost.images.iter().filter(|image| image.is_live()).map(|image| image.channel).collect();
    let directory = |channel: &ChannelId| place.join(channel.to_string());
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let daemon = Daemon::start(lost.dir.path());
    // The first start changes rows of each channel once it has begun.
    let is_change = |name: &PathBuf| name.file_name().unwrap().to_str().unwrap().starts_with("update-");
    let is_changed = |channel| {
        names(&directory(channel)).iter().any(|name| is_change(name) && name.extension().unwrap() == "sealed")
    };
    let changed = async {
        while !live.iter().all(|channel| directory(channel).is_dir() && is_changed(channel)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, changed).await.expect("each channel is changed once");
    drop(daemon);
    // So the next one writes each in full and nothing else.
    live.iter().for_each(|channel| fs::remove_dir_all(directory(channel)).unwrap());
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(1, is_complete).await;
    drop(daemon);
    let [channel, other] = [live[0], live[1]].map(|channel| directory(&channel));
    let newest = names(&channel).last().unwrap().clone();
    let whole = fs::read(&newest).unwrap();
    // In its place something that no disk reads.
    fs::remove_file(&newest).unwrap();
    std::os::unix::fs::symlink(&newest, &newest).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(1, is_complete).await;
    assert!(fs::read(&newest).unwrap() == whole, "it was written anew");
    let aside = newest.with_extension("sealed.damaged");
    assert!(aside.is_symlink(), "and what stood there is kept");
    drop(daemon);
    fs::remove_file(&aside).unwrap();

    // What cannot be read is named as newer than the database: it may be the proof that this is an old copy.
    let newer = channel.join(format!("full-{:020}.sealed", 1_000));
    std::os::unix::fs::symlink(&newer, &newer).unwrap();
    let before = names(&channel);
    fs::remove_dir_all(&other).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    let troubled = lost.backups_once(1, is_troubled).await;
    let reason = troubled[0].reason.as_ref().unwrap();
    assert!(reason.contains(&live[0].to_string()) && !reason.contains("channels more"), "{reason}");
    assert!(reason.contains("is newer than the database: an old copy") && reason.contains("others go on"), "{reason}");
    let written = async {
        while !other.is_dir() || names(&other).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, written).await.expect("the other channel is written anew");
    assert_eq!(names(&channel), before, "nothing is written over it");
    drop(daemon);
    fs::remove_file(&newer).unwrap();
    let daemon = Daemon::start(lost.dir.path());
    lost.backups_once(1, is_complete).await;
    drop(daemon);
}

#[test]
fn bad_input_95_a_record_of_the_chain_that_is_none_is_told_and_costs_no_channel() {
    let lost = Lost::sample();
    let told = lost.restored(&spoilt(&lost, ("\"height\\\":$((10#${file##*.}))", "\"height\\\":-1")), 2);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    assert_eq!(told["block_height"], Value::Null);
    let faults = told["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 1, "{told}");
    assert!(faults[0].as_str().unwrap().starts_with("it answered fetch_tip with something else"), "{told}");
}

/// The newest record of the chain is damaged, in a place where an older one is and in one where none is.
#[test]
fn bak_1_bad_input_91_an_older_record_of_the_chain_never_passes_for_a_damaged_newest_one() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let newest = backup.join(format!("regtest-{}", lost.node_id())).join(format!("tip-{:020}.sealed", 288));
    fs::write(&newest, b"?").unwrap();
    let from = format!("directory:{}", backup.display());
    let told = lost.restored(&from, 2);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    assert_eq!((&told["is_whole"], &told["block_height"]), (&false.into(), &144.into()));
    let fault = told["faults"][0].as_str().unwrap();
    assert!(fault.starts_with("its record of the chain at block 288 is lost: "), "{told}");
    assert!(fault.contains(&newest.display().to_string()), "{told}");
    let (code, told) = lost.verify(&from);
    assert_eq!((code, told["faults"][0].as_str()), (Some(2), Some(fault)));
    fs::remove_file(&newest).unwrap();
    assert_eq!(lost.verify(&from).0, Some(0));

    let lost = Lost::sample();
    let path = lost.dir.path().join("mirror.redb");
    let place = MirrorPlace::new(path.clone(), "regtest", lost.node_id());
    place.make().unwrap();
    lost.keep(|ends| Box::new(Mirror::new(place, ends)));
    let db = redb::Database::open(&path).unwrap();
    let transaction = db.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(Table::Meta.definition()).unwrap();
        let mut row = meta.get(TIP_KEY).unwrap().unwrap().value().to_vec();
        *row.last_mut().unwrap() ^= 1;
        meta.insert(TIP_KEY, row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(db);
    let from = format!("mirror:{}", path.display());
    let told = lost.restored(&from, 2);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
    let fault = told["faults"][0].as_str().unwrap();
    assert!(fault.starts_with("its record of the chain is lost: "), "{told}");
    let (code, told) = lost.verify(&from);
    assert_eq!((code, told["faults"][0].as_str()), (Some(2), Some(fault)));
}

#[test]
fn a_restore_without_a_record_of_the_chain_is_not_whole_and_says_so() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    fs::remove_file(backup.join(format!("regtest-{}/tip-{:020}.sealed", lost.node_id(), 144))).unwrap();
    let from = format!("directory:{}", backup.display());
    let output = lost.restore(&["--dry-run", "--from", &from]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("No record of the chain was found: a close that is in a block already will not be seen."),
        "{said}"
    );
    let told = lost.restored(&from, 2);
    assert_eq!((&told["is_whole"], &told["block_height"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "restored"]);
}

/// Of a channel that is gone without a trace nobody but the record of the chain tells.
#[test]
fn bak_1_a_channel_that_the_record_of_the_chain_names_and_the_backup_lacks_is_told_as_lost() {
    let mut lost = Lost::sample();
    let gone = lost.images[1].channel;
    let other = NodeKeys::derive(
        &Seed::create(&lost.dir.path().join("died"), || Ok([9; 32])).unwrap(),
        bitcoin::Network::Regtest,
    );
    lost.peers.push((other.node_id(), "other.example:9735".to_owned()));
    let backup = lost.keep_in_directory();
    fs::remove_dir_all(backup.join(format!("regtest-{}", lost.node_id())).join(gone.to_string())).unwrap();
    let from = format!("directory:{}", backup.display());
    let output = lost.restore(&["--dry-run", "--from", &from]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("channel {gone}: lost\n")), "{said}");
    assert!(
        said.contains("Channels: 1 history, 1 lost, 2 restored. Something that the backup tells of is missing"),
        "{said}"
    );
    let told = lost.restored(&from, 2);
    assert_eq!(outcomes(&told), ["history", "lost", "restored", "restored"]);
    assert_eq!(told["is_whole"], false);
    let missing = &told["channels"][3];
    assert_eq!((&missing["channel_id"], &missing["outcome"]), (&gone.to_string().into(), &"lost".into()));
    assert_eq!((&missing["newest"], &missing["restored_to"]), (&5.into(), &Value::Null));
    let words = format!(
        "the record of the chain at block 144 names it at write 5, and the backup has nothing of it; its peer may be one of these: \
         {}@other.example:9735",
        other.node_id()
    );
    assert_eq!(missing["faults"], serde_json::json!([words]));
    let (_, file) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
    assert_eq!(file.channels.len(), 2, "the others come back");
}

/// A failed channel of which no block has a commitment: nothing of it is published any more.
#[test]
fn bak_4_a_channel_that_had_failed_waits_for_its_peer_and_says_so() {
    let mut lost = Lost::sample();
    let image = &mut lost.images[0];
    let key = |table| (table, image.channel.0.to_vec());
    let (head, monitor_head) = (key(Table::ChannelHead), key(Table::MonitorHead));
    let mut row = ChannelHead::decode(&image.rows[&head]).unwrap();
    row.phase = Phase::Failed { reason: "the test failed it".to_owned(), publish: true, reserved: false, spend: None };
    image.rows.insert(head, row.encode());
    let mut row = MonitorHead::decode(&image.rows[&monitor_head]).unwrap();
    row.failed = true;
    image.rows.insert(monitor_head, row.encode());
    let told = lost.restored(&format!("directory:{}", lost.keep_in_directory().display()), 0);
    assert_eq!(outcomes(&told), ["history", "restored", "restored", "waiting"]);
    let found = told["channels"].as_array().unwrap().iter().find(|found| found["outcome"] == "waiting").unwrap();
    let expected = found["expect"].as_str().unwrap();
    assert!(expected.contains("publishes none any more, so it waits for the peer, which is asked"), "{expected}");
}

#[test]
fn what_cannot_be_restored_is_refused_with_what_to_do_and_nothing_is_made() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let from = format!("directory:{}", backup.display());
    let words = lost.refused(&["--from", "directory:/nowhere"]);
    assert!(words.contains("/nowhere: No such file or directory"), "{words}");
    let words = lost.refused(&["--from", "mirror:/nowhere/m.redb"]);
    assert!(words.contains("/nowhere/m.redb: No such file or directory"), "{words}");
    let words = lost.refused(&["--from", "command:/nowhere/program"]);
    assert!(words.contains("it cannot be started: /nowhere/program"), "{words}");
    let words = lost.refused(&["--from", "nothing"]);
    assert!(words.contains("must be mirror:FILE, directory:PATH"), "{words}");
    // A database is no mirror: it may be an old copy.
    let words = lost.refused(&["--from", &format!("mirror:{}", lost.dir.path().join("died").join(FILE).display())]);
    assert!(words.contains("belongs to a node's database"), "{words}");
    // Another node's seed.
    fs::remove_file(lost.network_dir().join("seed")).unwrap();
    let words = lost.refused(&["--from", &from]);
    assert!(words.contains("put the file `seed` with the 24 words"), "{words}");
    Seed::create(&lost.network_dir(), || Ok([SEED + 1; 32])).unwrap();
    let words = lost.refused(&["--from", &from]);
    assert!(words.contains("has no backup of this node and network"), "{words}");
    assert!(words.contains(&format!("but regtest-{}", lost.node_id())), "{words}");
    assert!(!lost.network_dir().join(FILE).exists());
}

#[test]
fn bak_5_a_data_directory_that_has_a_database_or_had_one_is_not_touched() {
    let lost = Lost::sample();
    let from = format!("directory:{}", lost.keep_in_directory().display());
    for name in ["generation", FILE] {
        fs::write(lost.network_dir().join(name), b"something").unwrap();
        let words = lost.refused(&["--from", &from]);
        assert!(words.contains("holds a database already") && words.contains("nothing was changed"), "{words}");
        assert_eq!(fs::read(lost.network_dir().join(name)).unwrap(), b"something");
    }
}

/// The database is what a restore from the same backup made: it differs in nothing.
#[test]
fn verify_backup_holds_what_would_be_restored_against_the_database_row_by_row() {
    let lost = Lost::sample();
    let from = format!("directory:{}", lost.keep_in_directory().display());
    lost.restored(&from, 0);
    let files = || {
        let entries = fs::read_dir(lost.network_dir()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .filter(|path| !path.ends_with("lock"))
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let (code, told) = lost.verify(&from);
    assert_eq!((code, &told["is_whole"]), (Some(0), &true.into()), "{told}");
    assert!(files() == before, "nothing was changed, and no journal made");
    // The database goes on: a row changes, and a channel comes that the backup does not have.
    let change = |table: Table, key: &[u8], row: &[u8]| {
        let (db, _) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(table.definition()).unwrap().insert(key, seal(table, key, row).as_slice()).unwrap();
        transaction.commit().unwrap();
    };
    let name = lost.images[0].channel.to_string();
    let fault = |told: &Value| {
        let found = told["channels"].as_array().unwrap().iter().find(|found| found["channel_id"] == name.as_str());
        found.unwrap()["faults"][0].as_str().unwrap().to_owned()
    };
    change(Table::FundingSpend, &lost.images[0].channel.0, b"?");
    let (code, told) = lost.verify(&from);
    assert_eq!(code, Some(2));
    assert_eq!(fault(&told), "1 of its rows are missing or other ones, and 0 are too many");
    change(Table::Persist, &lost.images[0].channel.0, &6_u64.to_be_bytes());
    let (code, told) = lost.verify(&from);
    assert_eq!((code, fault(&told).as_str()), (Some(2), "it is at write 5 in the backup and at 6 here"));
    change(Table::ChannelParams, &[0xab; 32], b"?");
    let (code, told) = lost.verify(&from);
    let found =
        told["channels"].as_array().unwrap().iter().find(|found| found["channel_id"] == "ab".repeat(32)).unwrap();
    assert_eq!((code, &found["faults"][0]), (Some(2), &"the backup does not have it".into()));
}

/// What is wrong for certain is not to wait for another look, and what only follows from what could not be read is not certain.
#[test]
fn bak_5_what_differs_for_certain_is_told_by_the_exit_code_of_verify_backup_beside_what_could_not_be_read() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let from = format!("directory:{}", backup.display());
    lost.restored(&from, 0);
    let place = backup.join(format!("regtest-{}", lost.node_id()));
    let record = |image: &Image| place.join(image.channel.to_string()).join("full-00000000000000000005.sealed");
    let other = record(&lost.images[1]);
    let mend = unreadable(&other);
    let (code, told) = lost.verify(&from);
    assert_eq!((code, faults_of(&told, lost.images[1].channel)), (Some(6), Vec::new()), "{told}");
    assert_eq!(unread_of(&told, lost.images[1].channel).last().unwrap(), "no full write of it can be read");
    // Another channel's record is damaged.
    let whole = fs::read(record(&lost.images[0])).unwrap();
    fs::write(record(&lost.images[0]), b"?").unwrap();
    let (code, told) = lost.verify(&from);
    assert_eq!((code, told["unread"].as_array().unwrap().len()), (Some(2), 0), "{told}");
    assert!(faults_of(&told, lost.images[0].channel)[0].contains("is damaged"), "{told}");
    assert!(!unread_of(&told, lost.images[1].channel).is_empty());
    // A restore would write nothing, and says that first.
    assert_eq!(lost.told(&["--json", "--dry-run", "--from", &from], 6)["written"], false);
    fs::write(record(&lost.images[0]), whole).unwrap();
    mend();
    assert_eq!(lost.verify(&from).0, Some(0));
}

/// What the backup has and the database does not is a difference too: the database may be the old one.
#[test]
fn bak_1_verify_backup_tells_of_channels_that_only_the_backup_has_and_of_a_backup_that_has_none() {
    let lost = Lost::sample();
    let backup = lost.keep_in_directory();
    let from = format!("directory:{}", backup.display());
    lost.restored(&from, 0);
    let [unknown, over] = [&lost.images[0], &lost.images[1]].map(|image| image.channel);
    let (db, _) = store::open_and_load(&lost.network_dir(), "regtest", &lost.node_id()).unwrap();
    let transaction = db.begin_write().unwrap();
    for channel in [unknown, over] {
        for table in Table::ALL.iter().filter(|table| !matches!(table, Table::Persist)) {
            let mut open = transaction.open_table(table.definition()).unwrap();
            let keys = open.range(channel.0.as_slice()..).unwrap().map(|row| row.unwrap().0.value().to_vec());
            let keys: Vec<_> = keys.take_while(|key| key.starts_with(&channel.0)).collect();
            keys.iter().for_each(|key| drop(open.remove(key.as_slice()).unwrap()));
        }
    }
    transaction.open_table(Table::Persist.definition()).unwrap().remove(unknown.0.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(db);
    let (code, told) = lost.verify(&from);
    assert_eq!((code, &told["compared"], &told["dry_run"]), (Some(2), &true.into(), &false.into()));
    let faults = |told: &Value, channel: ChannelId| {
        let name = channel.to_string();
        let found = told["channels"].as_array().unwrap().iter().find(|found| found["channel_id"] == name.as_str());
        found.unwrap()["faults"].clone()
    };
    let words = "this database does not know it, so it is an old copy, or another's";
    assert_eq!(faults(&told, unknown), serde_json::json!([words]));
    let words = "it is over here, and the backup has it as it was at write 5";
    assert_eq!(faults(&told, over), serde_json::json!([words]));
    assert_eq!(faults(&told, lost.images[2].channel), serde_json::json!([]));

    // The backup is there, and empty.
    let place = backup.join(format!("regtest-{}", lost.node_id()));
    fs::remove_dir_all(&place).unwrap();
    fs::create_dir(&place).unwrap();
    let (code, told) = lost.verify(&from);
    assert_eq!((code, outcomes(&told)), (Some(2), vec!["lost"]), "{told}");
    assert_eq!(faults(&told, lost.images[2].channel), serde_json::json!(["the backup does not have it"]));
}

#[test]
fn sink_check_says_of_each_statement_whether_a_program_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
    let check = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_outriggerd"))
            .args(["sink-check", "--json", "--seed", "7", "--"])
            .args(words)
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), told)
    };
    let (code, told) = check(&[example.to_str().unwrap(), dir.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!((&told["keeps_the_contract"], &told["seed"]), (&true.into(), &7.into()));
    assert!(told["checks"].as_array().unwrap().len() > 10);
    // What it ships elsewhere it still keeps to the letter.
    let shipped = tempfile::tempdir().unwrap();
    let [here, elsewhere] = [dir.path().join("here"), shipped.path().to_owned()].map(|path| path.display().to_string());
    let (code, told) = check(&[example.to_str().unwrap(), &here, "cp", "--parents", "-t", &elsewhere]);
    assert_eq!(code, Some(0), "{told}");
    assert!(fs::read_dir(&elsewhere).unwrap().next().is_some());
    let (code, told) = check(&[
        "bash",
        "-c",
        r#"read -r line; echo '{"jsonrpc":"2.0","id":1,"result":{"protocol":1}}'
        while read -r line; do
            if [[ $line == *list_channels* ]]; then echo '{"jsonrpc":"2.0","id":2,"result":{"channel_ids":[]}}'; continue; fi
            [[ $line =~ \"id\":([0-9]+) ]]; echo '{"jsonrpc":"2.0","id":'${BASH_REMATCH[1]}',"result":{"answer":"permanent_failure","reason":"full"}}'
        done"#,
    ]);
    assert_eq!((code, &told["keeps_the_contract"]), (Some(1), &false.into()));
    assert!(told["checks"][0]["fault"].as_str().unwrap().ends_with("for good: full"), "{told}");
}
