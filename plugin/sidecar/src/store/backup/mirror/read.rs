//! Reading a mirror back, without changing a byte of it or of its journal: what redb writes as it opens and repairs a file, and what
//! the journal has beyond it, is kept from the disk.

use std::sync::Arc;

use outrigger_bolt::id::ChannelId;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::handle::Handle;
use super::place::Looked;
use super::{MirrorPlace, broken, words_to_read};
use crate::fatal::contain;
use crate::store::StoreError;
use crate::store::backup::SinkEnds;
use crate::store::backup::kept::image_in;
use crate::store::backup::sealed::RecordName;
use crate::store::backup::source::{NamedRecord, Source, SourceFault, StoredChannel};
use crate::store::schema::{TIP_KEY, Table};
use crate::store::seal::unseal;

/// A mirror that is read.
pub struct MirrorSource {
    place: MirrorPlace,
    file: OpenFile,
    /// What is told with each channel where the journal was given up.
    lost: Option<String>,
    /// What is damaged beside channels, in words.
    faults: Vec<String>,
}

/// How it is open.
enum OpenFile {
    /// To be read, and for nothing else.
    Own(Database),
    /// As the sink has it, which is asked for it before each read: nothing stays open that it has closed.
    Sinks(Arc<Handle>, SinkEnds),
}

impl MirrorSource {
    /// Opens the mirror of this node and network, with its journal.
    pub fn open(place: MirrorPlace) -> Result<Self, SourceFault> {
        let Looked { db, lost, torn } =
            place.looked_at().map_err(|fault| SourceFault::unreadable(place.path.display(), words_to_read(&fault)))?;
        Ok(Self { place, file: OpenFile::Own(db), lost, faults: Vec::from_iter(torn) })
    }

    /// What a sink of this node writes, read beside it.
    pub(super) fn beside(handle: Arc<Handle>, ends: SinkEnds) -> Result<Self, SourceFault> {
        let source =
            Self { place: handle.place.clone(), file: OpenFile::Sinks(handle, ends), lost: None, faults: Vec::new() };
        source.read_in(|_| Ok(()))?;
        Ok(source)
    }

    /// Reads in the file. What panics over a page of a sink's is that sink's trouble too: its own thread may wait for what is locked
    /// then.
    fn read_in<R>(&self, read: impl FnOnce(&Database) -> Result<R, StoreError>) -> Result<R, SourceFault> {
        let done = match &self.file {
            OpenFile::Own(db) => read(db),
            OpenFile::Sinks(handle, ends) => {
                let gone = |words| SourceFault::unreadable(self.place.path.display(), words);
                let (open, ends) = (handle.standing().map_err(gone)?, ends.clone());
                let stuck = open.clone();
                let tell = move |words: &str| {
                    stuck.let_go();
                    ends.trouble(&broken(words));
                };
                contain(tell, || {
                    let done = read(&open.db);
                    // The last one that has it closes it.
                    drop(open);
                    done
                })
            }
        };
        done.map_err(|fault| self.unreadable(&fault))
    }

    /// Store faults name their file themselves, but for those of rows.
    fn unreadable(&self, fault: &StoreError) -> SourceFault {
        SourceFault::unreadable(format_args!("the mirror {}", self.place.path.display()), words_to_read(fault))
    }
}

/// The channels, and what is no channel's name among them.
fn listed(db: &Database) -> Result<(Vec<ChannelId>, Vec<String>), StoreError> {
    let transaction = db.begin_read()?;
    let (mut channels, mut faults) = (Vec::new(), Vec::new());
    for table in [Table::Persist, Table::ChannelParams, Table::ClosedChannel] {
        for entry in transaction.open_table(table.definition())?.iter()? {
            match entry?.0.value().try_into() {
                Ok(name) => channels.push(ChannelId(name)),
                Err(_) => faults.push(format!("a row of {} is under no channel's name", table.name())),
            }
        }
    }
    channels.sort_unstable();
    channels.dedup();
    faults.dedup();
    Ok((channels, faults))
}

/// The record of the chain, or what is wrong with it.
fn newest_tip(db: &Database) -> Result<Result<Option<Vec<u8>>, String>, StoreError> {
    let meta = db.begin_read()?.open_table(Table::Meta.definition())?;
    let Some(row) = meta.get(TIP_KEY)? else { return Ok(Ok(None)) };
    let tip = unseal(Table::Meta, TIP_KEY, row.value());
    Ok(tip.map(|tip| Some(tip.to_vec())).map_err(|fault| format!("its record of the chain is lost: {fault}")))
}

impl Source for MirrorSource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        let (channels, faults) = self.read_in(listed)?;
        self.faults.extend(faults);
        Ok(channels)
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let owner = (self.place.network.as_str(), &self.place.node_id);
        let image = |db: &Database| {
            let read = db.begin_read().map_err(StoreError::from).and_then(|open| image_in(&open, owner, channel));
            match read {
                // A row that is damaged costs its channel, and no other.
                Err(fault @ StoreError::Corrupt { .. }) => Ok(Err(fault.to_string())),
                read => read.map(Ok),
            }
        };
        let mut stored = StoredChannel::nothing(*channel);
        stored.faults.extend(self.lost.clone());
        match self.read_in(image)? {
            Ok(image) => {
                stored.newest = Some(image.id);
                let name = RecordName::full(*channel, image.id);
                stored.full = Some(NamedRecord { name, content: image.encode() });
            }
            Err(fault) => stored.faults.push(fault),
        }
        Ok(stored)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        let tip = self.read_in(newest_tip)?;
        Ok(tip.unwrap_or_else(|words| {
            self.faults.push(words);
            None
        }))
    }

    fn faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }
}
