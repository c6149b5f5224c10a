//! The database itself under the suite: redb and its journal, as a start opens them and the writer writes them. Each write is a
//! batch, and each batch a commit of its own.

use redb::{Database, ReadableDatabase, ReadableTable};
use tokio::sync::oneshot;

use super::*;
use crate::store::backup::kept::{id_in, image_in, rows_in};
use crate::store::backup::sealed::RecordName;
use crate::store::backup::source::{NamedRecord, SourceFault, StoredChannel};
use crate::store::{self, Batch, Commits, Generation, Held, StoreError, Writer};

/// The database of a node, which is all that there is of the node.
struct InDatabase {
    dir: tempfile::TempDir,
}

impl InDatabase {
    /// The files as they are now: what a process that is killed at this moment leaves.
    fn left(&self) -> tempfile::TempDir {
        let left = tempfile::tempdir().unwrap();
        copy(self.dir.path(), left.path());
        left
    }
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn in_words(fault: StoreError) -> String {
    fault.to_string()
}

impl Subject for InDatabase {
    fn sink(&mut self, _: SinkEnds) -> Result<Box<dyn Persist>, String> {
        let staging = Staging::start(self.dir.path()).map_err(in_words)?;
        Ok(Box::new(staging))
    }

    /// What an end in order does to the files does not count.
    fn kill(&mut self, sink: Box<dyn Persist>) {
        let left = self.left();
        drop(sink);
        for file in std::fs::read_dir(self.dir.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        copy(left.path(), self.dir.path());
    }

    /// Not what a reader of the process sees, but what a start would find were the process killed now.
    fn source(&mut self) -> Result<Box<dyn Source>, String> {
        let left = self.left();
        let Terms { network, node_id, .. } = terms();
        let db = store::open_to_look(left.path(), &network, &node_id).map_err(in_words)?;
        Ok(Box::new(AsLeft { db, _left: left }))
    }

    fn left_out(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "gap",
                "the writer numbers what a commit changes behind the number that stands, so no gap can be written; one that is \
                 found between channel and monitor freezes the channel",
            ),
            (
                "tip",
                "the rows of the database say themselves how far they have followed the chain, and take part in the commit that \
                 says so; a record of the tip is for those who keep rows elsewhere",
            ),
        ]
    }
}

/// A life of the database: the writer, driven by hand.
struct Staging {
    db: Arc<Database>,
    writer: Writer,
    commits: Commits,
}

impl Staging {
    /// A start, as the daemon makes it.
    fn start(dir: &Path) -> Result<Self, StoreError> {
        let Terms { network, node_id, .. } = terms();
        let (db, mut file) = store::open_and_load(dir, &network, &node_id)?;
        let age = Generation::at_start(dir, (&network, &node_id), &db, file.restored.is_some())?;
        let generation = file.aged(age);
        assert_eq!(file.restored, None, "a kill was taken for an old copy");
        assert!(file.journal.is_some(), "a database that is not old has its journal");
        let (writer, commits) = Writer::new(db.clone())?;
        let commits = commits.raising(generation).journaled(file.journal.take());
        Ok(Self { db, writer, commits })
    }

    fn id_of(&self, channel: &ChannelId) -> u64 {
        id_in(&self.db.begin_read().unwrap(), channel).unwrap()
    }

    /// Commits these rows of a channel, and the id at which they stand, alone. They are complete where the commit released who waits.
    fn commit(&mut self, channel: &ChannelId, id: u64, rows: impl IntoIterator<Item = RowChange>) -> Answer {
        if self.commits.is_checkpoint_due() {
            self.commits.checkpoint().unwrap();
        }
        let (waits, mut durable) = oneshot::channel();
        let mut batch = Batch::default();
        rows.into_iter().for_each(|row| batch.put(row.table, row.key, row.value));
        batch.put(Table::Persist, channel.0.to_vec(), Some(id.to_be_bytes().to_vec()));
        batch.hold(Held::Durable(waits));
        self.writer.submit(batch);
        let (released, _) = self.commits.next(1).unwrap().unwrap();
        for held in released.open() {
            if let Held::Durable(waits) = held {
                waits.send(()).unwrap();
            }
        }
        match durable.try_recv() {
            Ok(()) => Answer::Completed,
            Err(_) => Answer::InProgress,
        }
    }

    /// The rows of the view, and no other of the channel.
    fn whole(&mut self, full: &Full<'_>) -> Answer {
        let image = full.image().unwrap();
        if image.id < self.id_of(&image.channel) {
            return Answer::Completed;
        }
        let mut rows = Vec::new();
        let look = |table, key: &[u8], _: &[u8]| rows.push(RowChange { table, key: key.to_vec(), value: None });
        rows_in(&self.db.begin_read().unwrap(), &image.channel, look).unwrap();
        // Of two writes of one row the later one stands.
        rows.extend(image.rows.into_iter().map(|((table, key), value)| RowChange { table, key, value: Some(value) }));
        self.commit(&image.channel, image.id, rows)
    }
}

impl Persist for Staging {
    fn persist_new_channel(&mut self, _: &ChannelId, _: OutPoint, full: &Full<'_>, _: u64) -> Answer {
        self.whole(full)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        _: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        _: u64,
    ) -> Answer {
        let stands = self.id_of(channel);
        match update {
            Some(update) if update.id <= stands => Answer::Completed,
            Some(update) if update.after == stands => self.commit(channel, update.id, update.changes.clone()),
            Some(_) | None => self.whole(full),
        }
    }

    fn persist_tip(&mut self, _: &TipRecord) -> Answer {
        Answer::InProgress
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let read = self.db.begin_read().unwrap();
        let id = |channel| Holding { channel, id: id_in(&read, &channel).unwrap() };
        Ok(listed(&self.db).into_iter().map(id).collect())
    }
}

/// The channels that have an id.
fn listed(db: &Database) -> Vec<ChannelId> {
    let table = db.begin_read().unwrap().open_table(Table::Persist.definition()).unwrap();
    table.iter().unwrap().filter_map(|entry| Some(ChannelId(entry.unwrap().0.value().try_into().ok()?))).collect()
}

/// What a process that was killed has left.
struct AsLeft {
    db: Database,
    _left: tempfile::TempDir,
}

impl Source for AsLeft {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        Ok(listed(&self.db))
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let Terms { network, node_id, .. } = terms();
        let image = image_in(&self.db.begin_read().unwrap(), (&network, &node_id), channel).unwrap();
        let name = RecordName::full(*channel, image.id);
        let full = Some(NamedRecord { name, content: image.encode() });
        Ok(StoredChannel { full, newest: Some(image.id), ..StoredChannel::nothing(*channel) })
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        Ok(None)
    }
}

#[test]
fn per_2_the_database_itself_keeps_the_contract_with_batches_of_one() {
    let mut subject = InDatabase { dir: tempfile::tempdir().unwrap() };
    let outcomes = run(&mut subject, &terms());
    let left_out: Vec<_> = subject.left_out().iter().map(|(name, _)| *name).collect();
    let (looked_at, found): (Vec<_>, Vec<_>) = outcomes.into_iter().map(|found| (found.name, found.fault)).unzip();
    let asked = checks::ALL.iter().map(|check| check.name).filter(|name| !left_out.contains(name));
    assert_eq!(looked_at, asked.collect::<Vec<_>>());
    assert_eq!(checks::ALL.len() - looked_at.len(), left_out.len(), "each that is left out is one of the suite");
    assert_eq!(found, vec![None; looked_at.len()]);
    // What another node would be shown of it: nothing, and nothing is made in its place.
    let another =
        NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[2; 32]).unwrap()));
    let refused = store::open_to_look(subject.dir.path(), "regtest", &another);
    assert!(matches!(refused, Err(StoreError::Foreign { .. })));
}
