//! A database made from a backup. It is in restored mode from before its first start, and for good (ADR 5).

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use outrigger_bolt::id::NodeId;
use outrigger_channel::Channel;
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

use super::backup::followed::Followed;
use super::backup::image::{Image, TipRecord};
use super::backup::kept::image_in;
use super::backup::source::{Source, SourceFault, StoredChannel};
use super::fresh::Site;
use super::load::{self, FrozenChannel};
use super::schema::{RESTORED_KEY, Table};
use super::seal::seal;
use super::{FILE, StoreError, fresh, generation, initialise, journal};

pub(in crate::store) mod compare;
mod found;

pub use found::{Fate, Found, Rebuilt};
use found::{follows, lost};

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFault {
    #[error("{0}")]
    Source(#[from] SourceFault),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0} holds a database already: a backup is restored where there is none, so nothing was changed")]
    Occupied(String),
    #[error("the backup has no channel that can be restored{0}")]
    Nothing(String),
    #[error("the wallet cannot go on from the backup: {0}")]
    Wallet(String),
    /// What there is, and what may be there too.
    #[error("something of the backup could not be read: nothing was written")]
    Unread(Box<Rebuilt>),
}

/// Refuses a directory in which a database is or was.
pub fn check_vacant(dir: &Path) -> Result<(), RestoreFault> {
    let is_there = |name: &str| std::fs::symlink_metadata(dir.join(name)).is_ok();
    match [FILE, generation::FILE, journal::FILE].into_iter().find(|name| is_there(name)) {
        Some(name) => Err(RestoreFault::Occupied(dir.join(name).display().to_string())),
        None => Ok(()),
    }
}

/// What is needed to make rows of a backup.
pub struct Restore<'a> {
    pub network: &'a str,
    pub node_id: NodeId,
    /// Why the database counts as old.
    pub proof: &'a str,
    /// Makes the wallet's first row, from where the chain is followed.
    pub wallet: &'a dyn Fn(Followed) -> Result<Vec<u8>, String>,
    /// Whether to go on without what cannot be read now. Else nothing is made then: a database without it would stand in the way of one
    /// that has all.
    pub takes_what_is_there: bool,
}

impl Restore<'_> {
    /// Makes the database in `dir`, all of it or nothing.
    pub fn into_directory(&self, source: &mut dyn Source, dir: &Path) -> Result<Rebuilt, RestoreFault> {
        check_vacant(dir)?;
        self.onto(source, &fresh::Directory(dir))
    }

    /// The same in another place, which has none yet.
    pub fn onto(&self, source: &mut dyn Source, site: &dyn Site) -> Result<Rebuilt, RestoreFault> {
        let (rebuilt, images) = self.gathered(source)?;
        let wallet = self.wallet_row(&rebuilt)?;
        fresh::create(site, self.network, &self.node_id, |db| {
            self.fill(db, &rebuilt, &images, wallet.as_deref())?;
            // What does not load is no database to start from.
            load::load(db).map(drop)
        })?;
        Ok(rebuilt)
    }

    /// Makes it in memory alone, to see what would come of it.
    pub fn in_memory(&self, source: &mut dyn Source) -> Result<(Rebuilt, Arc<Database>), RestoreFault> {
        let (rebuilt, images) = self.gathered(source)?;
        let db = self.filled(&rebuilt, &images)?;
        Ok((rebuilt, Arc::new(db)))
    }

    fn filled(&self, rebuilt: &Rebuilt, images: &[Image]) -> Result<Database, RestoreFault> {
        let (db, wallet) = (self.scratch()?, self.wallet_row(rebuilt)?);
        self.fill(&db, rebuilt, images, wallet.as_deref())?;
        load::load(&db)?;
        Ok(db)
    }

    fn wallet_row(&self, rebuilt: &Rebuilt) -> Result<Option<Vec<u8>>, RestoreFault> {
        rebuilt.follows.map(self.wallet).transpose().map_err(RestoreFault::Wallet)
    }

    fn scratch(&self) -> Result<Database, StoreError> {
        let db = Database::builder().create_with_backend(InMemoryBackend::new())?;
        initialise(&db, self.network, &self.node_id)?;
        Ok(db)
    }

    /// The same, where there is anything to restore.
    fn gathered(&self, source: &mut dyn Source) -> Result<(Rebuilt, Vec<Image>), RestoreFault> {
        let (rebuilt, images) = self.gather(source)?;
        if !self.takes_what_is_there && rebuilt.is_unread() {
            return Err(RestoreFault::Unread(Box::new(rebuilt)));
        }
        if images.is_empty() {
            let of_channels = rebuilt.channels.iter().flat_map(|found| found.faults.iter().chain(&found.unread));
            let of_backup = rebuilt.faults.iter().chain(&rebuilt.unread);
            let faults: Vec<_> = of_backup.chain(of_channels).take(8).cloned().collect();
            let faults = if faults.is_empty() { String::new() } else { format!(": {}", faults.join("; ")) };
            return Err(RestoreFault::Nothing(faults));
        }
        Ok((rebuilt, images))
    }

    /// Every channel that the backup has or tells of, and the images of those that are taken over.
    fn gather(&self, source: &mut dyn Source) -> Result<(Rebuilt, Vec<Image>), RestoreFault> {
        let (mut faults, mut unread) = (Vec::new(), Vec::new());
        let tip = source.tip().unwrap_or_else(|fault| {
            unread.push(fault.to_string());
            None
        });
        let tip = tip.and_then(|bytes| self.tip_of(&bytes).map_err(|fault| faults.push(fault)).ok());
        unread.extend(source.unread());
        let (mut channels, mut images, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let listed = source.channels()?;
        let cut = source.unread();
        let is_cut = !cut.is_empty();
        unread.extend(cut);
        for channel in listed {
            if !seen.insert(channel) {
                faults.push(format!("it lists channel {channel} twice"));
                continue;
            }
            let mut stored = match source.read(&channel) {
                Ok(stored) => stored,
                // One that cannot be read keeps no other from being looked at, while the backup still answers.
                Err(fault) if source.tip().is_ok() => {
                    channels.push(Found { unread: vec![fault.to_string()], ..Found::lost(channel) });
                    continue;
                }
                Err(fault) => return Err(fault.into()),
            };
            let image = stored.image();
            // One that was never funded was nothing.
            if image.as_ref().is_some_and(Image::is_forgotten) {
                continue;
            }
            let (found, image) = self.judge(stored, image);
            channels.push(found);
            images.extend(image);
        }
        let named = tip.as_ref().map(|tip| lost(tip, (&seen, is_cut), &channels));
        channels.extend(named.into_iter().flatten());
        let follows = follows(tip.as_ref(), &images, &mut channels);
        faults.extend(source.faults());
        unread.extend(source.unread());
        // It was asked for its record of the chain again behind each channel that could not be read.
        let mut told = HashSet::new();
        faults.retain(|words| told.insert(words.clone()));
        unread.retain(|words| told.insert(words.clone()));
        Ok((Rebuilt { channels, tip, follows, faults, unread, is_cut }, images))
    }

    /// The record of the tip, or what is wrong with it.
    pub(super) fn tip_of(&self, bytes: &[u8]) -> Result<TipRecord, String> {
        let tip =
            TipRecord::decode(bytes).map_err(|fault| format!("its record of the chain cannot be read: {fault}"))?;
        if !self.is_ours(&tip.network, &tip.node_id) {
            return Err(format!("its record of the chain is of node {} on {}", tip.node_id, tip.network));
        }
        Ok(tip)
    }

    fn is_ours(&self, network: &str, node_id: &NodeId) -> bool {
        network == self.network && *node_id == self.node_id
    }

    /// What becomes of a channel; without its image it is left out.
    fn judge(&self, stored: StoredChannel, image: Option<Image>) -> (Found, Option<Image>) {
        let mut found = Found {
            reached: image.as_ref().map(|image| image.id),
            newest: stored.newest,
            faults: stored.faults,
            unread: stored.unread,
            ..Found::lost(stored.channel)
        };
        let Some(image) = image else { return (found, None) };
        if !self.is_ours(&image.network, &image.node_id) {
            let words = format!("it belongs to node {} on {}", image.node_id, image.network);
            found.faults.push(words);
            return (found, None);
        }
        if let Some(params) = image.params() {
            (found.peer, found.capacity) = (Some(params.peer), Some(params.capacity));
        }
        if !image.is_live() && !image.is_closed() {
            found.faults.push("what both sides agreed is missing: the rest of its rows cannot be used".to_owned());
            return (found, None);
        }
        match self.tried(&image) {
            Ok(Tried::Live(channel)) => {
                found.tell(&channel);
                (found, Some(image))
            }
            Ok(Tried::Frozen(frozen)) => {
                found.fate = Fate::Frozen;
                found.faults.push(frozen.reason);
                (found, Some(image))
            }
            Ok(Tried::History) => {
                found.fate = Fate::History;
                (found, Some(image))
            }
            Err(fault) => {
                found.faults.push(fault.to_string());
                (found, None)
            }
        }
    }

    /// The channel as a start would load it, alone in a database of its own: one that does not fit costs no other its restore.
    fn tried(&self, image: &Image) -> Result<Tried, StoreError> {
        let db = self.scratch()?;
        let transaction = db.begin_write()?;
        write_image(&transaction, image)?;
        transaction.commit()?;
        let mut snapshot = load::load(&db)?;
        match (snapshot.channels.pop(), snapshot.frozen.pop()) {
            (Some(loaded), _) => Ok(Tried::Live(Box::new(loaded.channel))),
            (None, Some(frozen)) => Ok(Tried::Frozen(frozen)),
            (None, None) => Ok(Tried::History),
        }
    }

    /// A channel as it is read back when it was restored alone, into a database of its own that a start would load. Holds no more than
    /// two copies of it at a time.
    pub(super) fn read_back(&self, image: Image) -> Result<Image, StoreError> {
        let db = self.scratch()?;
        let transaction = db.begin_write()?;
        write_image(&transaction, &image)?;
        transaction.commit()?;
        let channel = image.channel;
        drop(image);
        load::load(&db)?;
        image_in(&db.begin_read()?, (self.network, &self.node_id), &channel)
    }

    fn fill(
        &self,
        db: &Database,
        rebuilt: &Rebuilt,
        images: &[Image],
        wallet: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let mut transaction = db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        put(&transaction, Table::Meta, RESTORED_KEY, self.proof.as_bytes())?;
        if let Some(row) = wallet {
            put(&transaction, Table::Wallet, &0_u64.to_be_bytes(), row)?;
        }
        images.iter().try_for_each(|image| write_image(&transaction, image))?;
        // Behind what the images have: a full write may be as old as its channel.
        for (peer, address) in rebuilt.tip.iter().flat_map(|tip| &tip.peers) {
            put(&transaction, Table::PeerAddress, &peer.serialize(), address.as_bytes())?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// What a start makes of one channel.
enum Tried {
    Live(Box<Channel>),
    Frozen(FrozenChannel),
    History,
}

fn write_image(transaction: &WriteTransaction, image: &Image) -> Result<(), StoreError> {
    for ((table, key), row) in &image.rows {
        put(transaction, *table, key, row)?;
    }
    put(transaction, Table::Persist, &image.channel.0, &image.id.to_be_bytes())
}

fn put(transaction: &WriteTransaction, table: Table, key: &[u8], row: &[u8]) -> Result<(), StoreError> {
    transaction.open_table(table.definition())?.insert(key, seal(table, key, row).as_slice())?;
    Ok(())
}
