//! Reading a mirror back, without changing a byte of it: what redb writes as it opens and repairs a file is kept from it.

use std::fs::File;
use std::sync::Arc;

use outrigger_bolt::id::ChannelId;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::{MirrorPlace, is_mirror};
use crate::store::backup::kept::image_in;
use crate::store::backup::sealed::RecordName;
use crate::store::backup::source::{NamedRecord, Source, SourceFault, StoredChannel};
use crate::store::reserve::Reserve;
use crate::store::schema::{TIP_KEY, Table};
use crate::store::seal::unseal;
use crate::store::{StoreError, check_identity};

/// A mirror that is read.
pub struct MirrorSource {
    place: MirrorPlace,
    db: Arc<Database>,
}

impl MirrorSource {
    /// Opens the mirror of this node and network.
    pub fn open(place: MirrorPlace) -> Result<Self, SourceFault> {
        let unreadable = |fault: &dyn std::fmt::Display| SourceFault::unreadable(place.path.display(), fault);
        let file = File::options().read(true).write(true).open(&place.path).map_err(|fault| unreadable(&fault))?;
        // redb would make a new database of an empty file.
        if file.metadata().map_err(|fault| unreadable(&fault))?.len() == 0 {
            return Err(unreadable(&"it is empty"));
        }
        let storage = Reserve::of(Box::new(FileBackend::new(file).map_err(|fault| unreadable(&fault))?));
        let db = Database::builder().create_with_backend(storage).map_err(|fault| unreadable(&fault))?;
        let source = Self { place, db: Arc::new(db) };
        source.check().map_err(|fault| source.unreadable(&fault))?;
        Ok(source)
    }

    /// One that is open already, as the mirror of this node.
    pub(super) fn over(place: MirrorPlace, db: Arc<Database>) -> Self {
        Self { place, db }
    }

    fn check(&self) -> Result<(), StoreError> {
        check_identity(&*self.db, &self.place.path, &self.place.network, &self.place.node_id)?;
        if is_mirror(&*self.db)? {
            return Ok(());
        }
        let (found, wanted) = ("a node's database", "a mirror: start from a database only where it is the newest");
        Err(StoreError::Foreign { path: self.place.path.clone(), found: found.to_owned(), wanted: wanted.to_owned() })
    }

    /// Store faults name their file themselves, but for those of rows.
    fn unreadable(&self, fault: &StoreError) -> SourceFault {
        SourceFault::unreadable(format_args!("the mirror {}", self.place.path.display()), fault)
    }

    fn listed(&self) -> Result<Vec<ChannelId>, StoreError> {
        let transaction = self.db.begin_read()?;
        let mut channels = Vec::new();
        for table in [Table::Persist, Table::ChannelParams, Table::ClosedChannel] {
            for entry in transaction.open_table(table.definition())?.iter()? {
                channels.extend(entry?.0.value().try_into().map(ChannelId));
            }
        }
        channels.sort_unstable();
        channels.dedup();
        Ok(channels)
    }

    fn newest_tip(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let meta = self.db.begin_read()?.open_table(Table::Meta.definition())?;
        let Some(row) = meta.get(TIP_KEY)? else { return Ok(None) };
        // A damaged one is as good as none.
        Ok(unseal(Table::Meta, TIP_KEY, row.value()).ok().map(<[u8]>::to_vec))
    }
}

impl Source for MirrorSource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        self.listed().map_err(|fault| self.unreadable(&fault))
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let read = || {
            let transaction = self.db.begin_read()?;
            image_in(&transaction, (&self.place.network, &self.place.node_id), channel)
        };
        let mut stored =
            StoredChannel { channel: *channel, full: None, updates: Vec::new(), newest: None, faults: Vec::new() };
        match read() {
            Ok(image) => {
                stored.newest = Some(image.id);
                let name = RecordName::full(*channel, image.id);
                stored.full = Some(NamedRecord { name, content: image.encode() });
            }
            // A row that is damaged costs its channel, and no other.
            Err(fault @ StoreError::Corrupt { .. }) => stored.faults.push(fault.to_string()),
            Err(fault) => return Err(self.unreadable(&fault)),
        }
        Ok(stored)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        self.newest_tip().map_err(|fault| self.unreadable(&fault))
    }
}
