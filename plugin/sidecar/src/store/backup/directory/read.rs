//! Reading a directory back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_bolt::id::{ChannelId, NodeId};

use super::names::{channels_in, is_place, names_in, place_of, tips};
use super::{Names, OVER, read_record};
use crate::store::backup::sealed::{RecordName, Sealer};
use crate::store::backup::source::{NoRecord, Source, SourceFault, StoredChannel};

/// Reads such a directory back, and changes nothing in it.
pub struct DirectorySource {
    root: PathBuf,
    sealer: Arc<Sealer>,
    faults: Vec<String>,
    unread: Vec<String>,
}

impl DirectorySource {
    /// The place of this node in a directory; refused where there is none, with the nodes that have one.
    pub fn open(dir: &Path, (network, node_id): (&str, &NodeId), sealer: Arc<Sealer>) -> Result<Self, SourceFault> {
        let root = place_of(dir, network, node_id);
        match fs::metadata(&root) {
            Ok(there) if there.is_dir() => return Ok(Self { root, sealer, faults: Vec::new(), unread: Vec::new() }),
            // It is not known to be another's.
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                return Err(SourceFault::unreadable(root.display(), fault));
            }
            Ok(_) | Err(_) => {}
        }
        let entries = fs::read_dir(dir).map_err(|fault| SourceFault::unreadable(dir.display(), fault))?;
        let others = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let others: Vec<_> = others.filter(|name| is_place(name)).take(8).collect();
        Err(SourceFault::NotOurs {
            place: dir.display().to_string(),
            wanted: format!("{network}-{node_id}"),
            found: if others.is_empty() { "no node's".to_owned() } else { others.join(", ") },
        })
    }

    /// Every channel that lives, by what was written last.
    pub fn living(&self) -> Result<Vec<ChannelId>, SourceFault> {
        channels_in(&self.root).map_err(|fault| SourceFault::unreadable(self.root.display(), fault))
    }

    /// Where the channel's directory stands. What comes after its end begins another one among those that live, which does not count before
    /// it has a record.
    fn above(&self, channel: &ChannelId) -> PathBuf {
        let (lives, over) = (self.root.join(channel.to_string()), self.root.join(OVER));
        let has_nothing = || matches!(names_in(&lives, channel), Ok(Some(names)) if names == Names::default());
        let is_over = !lives.is_dir() || (over.join(channel.to_string()).is_dir() && has_nothing());
        if is_over { over } else { self.root.clone() }
    }
}

impl Source for DirectorySource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        let mut found = self.living()?;
        match channels_in(&self.root.join(OVER)) {
            Ok(over) => found.extend(over),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => self.unread.push(format!("{}: {fault}", self.root.join(OVER).display())),
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let root = self.above(channel);
        let dir = root.join(channel.to_string());
        let names = names_in(&dir, channel)
            .map_err(|fault| SourceFault::unreadable(dir.display(), fault))?
            .ok_or_else(|| SourceFault::unreadable(dir.display(), "it holds too many records"))?;
        Ok(StoredChannel::gather(*channel, &names, |name| read_record(&self.sealer, &root, name)))
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        let heights = tips(&self.root).map_err(|fault| SourceFault::unreadable(self.root.display(), fault))?;
        for height in heights.iter().rev() {
            match read_record(&self.sealer, &self.root, RecordName::tip(*height)) {
                Ok(record) => return Ok(Some(record.content)),
                // An older one never passes for it in silence.
                Err(NoRecord::Lost(words)) => {
                    self.faults.push(format!("its record of the chain at block {height} is lost: {words}"));
                }
                Err(NoRecord::Unread(words)) => self.unread.push(words),
            }
        }
        Ok(None)
    }

    fn faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    fn unread(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unread)
    }
}
