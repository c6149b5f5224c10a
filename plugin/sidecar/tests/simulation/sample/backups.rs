//! Backups of the node whose database the sample is, as they are written now: a mirror with its journal, as a kill leaves them, and a
//! sealed directory. Each has every channel, most as a full write and the update behind it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use crossbeam_channel::Receiver;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_sidecar::clock::Clock;
use outrigger_sidecar::store::backup::directory::{DirectorySink, DirectorySource, make_place};
use outrigger_sidecar::store::backup::kept::image_in;
use outrigger_sidecar::store::backup::mirror::{Mirror, MirrorPlace, MirrorSource};
use outrigger_sidecar::store::backup::sealed::Sealer;
use outrigger_sidecar::store::backup::source::Source;
use outrigger_sidecar::store::backup::{Answer, Full, Image, Persist, RowChange, SinkEnds, TipRecord, Update};
use outrigger_sidecar::store::schema::Table;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::super::disk::Disk;
use super::super::losses::restored;
use super::super::node::NETWORK;
use super::super::sweep::scripts;
use super::pack::{packed, unpack};
use super::{NODE, fixture, signers};

const MIRROR: &str = "mirror-1.packed";
const DIRECTORY: &str = "directory-1.packed";

/// How long a sink may take for a thing.
const PATIENCE: Duration = Duration::from_secs(20);

/// More updates than any channel has.
const FULL_EVERY: usize = 100;

/// What the database has of each channel.
fn images(db: &Database, id: &NodeId) -> Vec<Image> {
    let read = db.begin_read().unwrap();
    let mut channels = BTreeSet::new();
    for table in [Table::ChannelParams, Table::ClosedChannel] {
        for entry in read.open_table(table.definition()).unwrap().iter().unwrap() {
            channels.insert(ChannelId(entry.unwrap().0.value().try_into().unwrap()));
        }
    }
    channels.iter().map(|channel| image_in(&read, (NETWORK, id), channel).unwrap()).collect()
}

/// A channel that lives, as it may have been before its newest write, and that write.
fn split(image: &Image) -> Option<(Image, Update)> {
    let is_written = |table: Table| matches!(table, Table::Evidence | Table::MonitorHead);
    let ((table, key), value) = image.rows.iter().rev().find(|((table, _), _)| is_written(*table))?;
    let mut before = Image { id: image.id - 1, ..image.clone() };
    before.rows.remove(&(*table, key.clone()));
    let row = RowChange { table: *table, key: key.clone(), value: Some(value.clone()) };
    let update = Update { channel: image.channel, after: before.id, id: image.id, changes: vec![row] };
    image.is_live().then_some((before, update))
}

/// The newest tip, which tells of every channel that lives.
fn tip(id: &NodeId, images: &[Image]) -> TipRecord {
    let live = images.iter().filter(|image| image.is_live());
    TipRecord {
        network: NETWORK.to_owned(),
        node_id: *id,
        height: 123,
        hash: BlockHash::from_byte_array([7; 32]),
        at_unix: 1_800_000_000,
        peers: vec![(*id, "peer.example:9735".to_owned())],
        channels: Some(live.map(|image| (image.channel, image.id)).collect()),
    }
}

/// A life of a sink.
struct Life {
    sink: Box<dyn Persist>,
    heard: Receiver<(ChannelId, u64)>,
    open: BTreeSet<(ChannelId, u64)>,
}

impl Life {
    fn of(open: impl Fn(SinkEnds) -> Box<dyn Persist>) -> Self {
        let (told, heard) = crossbeam_channel::unbounded();
        let tell = move |channel: &ChannelId, id| told.send((*channel, id)).unwrap();
        let mut sink = open(SinkEnds::new(tell, Clock::monotonic));
        sink.holdings().unwrap();
        Self { sink, heard, open: BTreeSet::new() }
    }

    fn give(&mut self, image: &Image, update: Option<&Update>) {
        let funding = OutPoint { txid: Txid::from_byte_array(image.channel.0), vout: 0 };
        let read = || Ok(image.clone());
        let full = Full::new(&read);
        match self.sink.update_persisted_channel(&image.channel, funding, update, &full, image.id) {
            Answer::Completed => {}
            Answer::InProgress => {
                self.open.insert((image.channel, image.id));
            }
            Answer::PermanentFailure(words) => panic!("{words}"),
        }
    }

    fn settle(&mut self) {
        self.sink.all_given();
        while !self.open.is_empty() {
            assert!(self.open.remove(&self.heard.recv_timeout(PATIENCE).unwrap()));
        }
    }
}

/// Full writes in one life, what follows them in the next; and what is in the directory while that one lives.
fn written(dir: &Path, images: &[Image], tip: &TipRecord, open: impl Fn(SinkEnds) -> Box<dyn Persist>) -> Vec<u8> {
    let mut life = Life::of(&open);
    for image in images {
        life.give(&split(image).map_or_else(|| image.clone(), |(before, _)| before), None);
    }
    life.settle();
    drop(life);
    let mut life = Life::of(&open);
    let _ = life.sink.persist_tip(tip);
    for image in images {
        let Some((_, update)) = split(image) else { continue };
        life.give(image, Some(&update));
    }
    life.settle();
    packed(dir)
}

fn place(dir: &Path, id: &NodeId) -> MirrorPlace {
    MirrorPlace::new(dir.join("mirror.redb"), NETWORK, *id)
}

fn sealer(id: &NodeId) -> Arc<Sealer> {
    Arc::new(Sealer::new(scripts::node(NODE, signers()).keys.backup_secret(), NETWORK, id))
}

/// Writes both anew.
pub fn make(db: &Database, id: &NodeId) {
    let images = images(db, id);
    let tip = tip(id, &images);
    let dir = tempfile::tempdir().unwrap();
    let mirror = place(dir.path(), id);
    mirror.make().unwrap();
    let bytes = written(dir.path(), &images, &tip, |ends| Box::new(Mirror::new(mirror.clone(), ends)));
    std::fs::write(fixture(MIRROR), bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    make_place(dir.path(), (NETWORK, id)).unwrap();
    let bytes = written(dir.path(), &images, &tip, |ends| {
        let owner = (NETWORK.to_owned(), *id);
        Box::new(DirectorySink::new(dir.path().to_owned(), owner, sealer(id), FULL_EVERY, ends))
    });
    std::fs::write(fixture(DIRECTORY), bytes).unwrap();
}

fn unpacked(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    unpack(&std::fs::read(fixture(name)).unwrap(), dir.path());
    dir
}

/// What is read back of every channel, and of the chain, is what the database has.
fn assert_has_all(source: &mut dyn Source, db: &Database, id: &NodeId) {
    let images = images(db, id);
    let mut listed = source.channels().unwrap();
    listed.sort();
    assert_eq!(listed, images.iter().map(|image| image.channel).collect::<Vec<_>>());
    assert!(images.iter().any(|image| !image.is_live()) && images.iter().filter(|image| image.is_live()).count() > 2);
    for image in &images {
        let mut stored = source.read(&image.channel).unwrap();
        let found = stored.image().unwrap();
        assert_eq!([stored.faults, stored.unread].concat(), Vec::<String>::new(), "{}", image.channel);
        assert_eq!(found.rows, image.rows, "{}", image.channel);
        // What is over has no id in a mirror.
        assert!(found.id == image.id || !image.is_live(), "{} is at {}", image.channel, found.id);
    }
    assert_eq!(source.tip().unwrap(), Some(tip(id, &images).encode()));
    assert_eq!([source.faults(), source.unread()].concat(), Vec::<String>::new());
    let rebuilt = restored(source, *id, &Disk::default()).unwrap();
    assert!(rebuilt.is_whole(), "{rebuilt:?}");
    assert_eq!(rebuilt.channels.len(), images.len());
}

/// Both are read back, row by row.
pub fn assert_kept(db: &Database, id: &NodeId) {
    let dir = unpacked(MIRROR);
    assert_has_all(&mut MirrorSource::open(place(dir.path(), id)).unwrap(), db, id);
    let dir = unpacked(DIRECTORY);
    assert_has_all(&mut DirectorySource::open(dir.path(), (NETWORK, id), sealer(id)).unwrap(), db, id);
}

/// Without its journal the mirror lacks what came last: it is of a kill, and its journal is read with it.
pub fn assert_journal_counts(db: &Database, id: &NodeId) {
    let dir = unpacked(MIRROR);
    let journal = dir.path().join("mirror.redb.journal");
    std::fs::remove_file(&journal).unwrap();
    assert!(MirrorSource::open(place(dir.path(), id)).is_err());
    std::fs::write(dir.path().join("mirror.redb.journal.lost"), "").unwrap();
    let mut alone = MirrorSource::open(place(dir.path(), id)).unwrap();
    for image in images(db, id).iter().filter(|image| image.is_live()) {
        let (before, _) = split(image).unwrap();
        assert_eq!(alone.read(&image.channel).unwrap().image(), Some(before));
    }
}
