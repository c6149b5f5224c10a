//! A database made from a backup. It is in restored mode from before its first start, and for good (ADR 5).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::tx::fee::commitment_cost;
use outrigger_channel::{Channel, Phase};
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, WriteTransaction};

use super::backup::followed::Followed;
use super::backup::image::{Image, TipRecord};
use super::backup::kept::image_in;
use super::backup::source::{Source, SourceFault, StoredChannel};
use super::load::{self, FrozenChannel};
use super::reserve::Reserve;
use super::schema::{RESTORED_KEY, Table};
use super::seal::seal;
use super::{FILE, StoreError, create_with, generation, initialise, journal};

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
}

/// What became of one channel of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is watched, and its peer is asked to close it.
    Restored,
    /// It had closed for good, and is shown in history.
    History,
    /// It had failed, and no block had a commitment of it: its peer alone may publish one now.
    Waiting,
    /// It had begun to close on the chain: what is not home yet is brought home.
    Closing,
    /// Its rows do not fit together: they are kept, and nothing is done with them.
    Frozen,
    /// It cannot be read, or does not fit: it is left out.
    Lost,
}

impl Fate {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::History => "history",
            Self::Waiting => "waiting",
            Self::Closing => "closing",
            Self::Frozen => "frozen",
            Self::Lost => "lost",
        }
    }
}

/// A channel of a backup.
#[derive(Clone, Debug)]
pub struct Found {
    pub channel: ChannelId,
    pub fate: Fate,
    pub peer: Option<NodeId>,
    pub capacity: Option<Sat>,
    /// Our balance by these rows; HTLCs apart.
    pub balance: Option<Msat>,
    /// HTLCs in flight by these rows.
    pub htlcs: usize,
    /// What the peer's commitment takes from our balance for its fee and the anchors, at most: the opener pays both (BOLT 3).
    pub cost: Option<Sat>,
    /// The id that it was restored to.
    pub reached: Option<u64>,
    /// The newest id that the backup tells of.
    pub newest: Option<u64>,
    /// What is damaged, missing or odd.
    pub faults: Vec<String>,
}

/// What a backup gave.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    pub channels: Vec<Found>,
    /// The newest record of how far the chain was followed.
    pub tip: Option<TipRecord>,
    /// From where the chain is followed: that block, or an earlier one that the rows of every channel have taken in.
    pub follows: Option<Followed>,
}

impl Rebuilt {
    /// Whether nothing is missing of what the backup tells of, nor how far the chain was followed: without that a close which is in a
    /// block already is never seen.
    pub fn is_whole(&self) -> bool {
        let is_sound = |found: &Found| found.faults.is_empty() && !matches!(found.fate, Fate::Frozen | Fate::Lost);
        self.follows.is_some() && self.channels.iter().all(is_sound)
    }
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
}

impl Restore<'_> {
    /// Makes the database in `dir`, all of it or nothing.
    pub fn into_directory(&self, source: &mut dyn Source, dir: &Path) -> Result<Rebuilt, RestoreFault> {
        check_vacant(dir)?;
        let (rebuilt, images) = self.gather(source)?;
        let wallet = self.wallet_row(&rebuilt)?;
        create_with(dir, self.network, &self.node_id, |db| {
            self.fill(db, &rebuilt, &images, wallet.as_deref())?;
            // What does not load is no database to start from.
            load::load(db).map(drop)
        })?;
        Ok(rebuilt)
    }

    /// Makes it on other storage than a directory, which has nothing yet.
    pub fn onto(&self, source: &mut dyn Source, storage: Box<dyn StorageBackend>) -> Result<Rebuilt, RestoreFault> {
        let (rebuilt, images) = self.gather(source)?;
        let (wallet, storage) = (self.wallet_row(&rebuilt)?, Reserve::of(storage));
        let db = Database::builder().create_with_backend(storage.clone()).map_err(StoreError::from)?;
        initialise(&db, self.network, &self.node_id)?;
        self.fill(&db, &rebuilt, &images, wallet.as_deref())?;
        load::load(&db)?;
        drop(db);
        storage.release().map_err(StoreError::io)?;
        Ok(rebuilt)
    }

    /// Makes it in memory alone, to see what would come of it.
    pub fn in_memory(&self, source: &mut dyn Source) -> Result<(Rebuilt, Arc<Database>), RestoreFault> {
        let (rebuilt, images) = self.gather(source)?;
        let (db, wallet) = (self.scratch()?, self.wallet_row(&rebuilt)?);
        self.fill(&db, &rebuilt, &images, wallet.as_deref())?;
        load::load(&db)?;
        Ok((rebuilt, Arc::new(db)))
    }

    /// Makes it in memory, and holds every channel against the database that lives. Nothing may change that meanwhile.
    pub fn compared(&self, source: &mut dyn Source, live: &Database) -> Result<Rebuilt, RestoreFault> {
        let (mut rebuilt, restored) = self.in_memory(source)?;
        let (live, restored) =
            (live.begin_read().map_err(StoreError::from)?, restored.begin_read().map_err(StoreError::from)?);
        let owner = (self.network, &self.node_id);
        for channel in living(&live)? {
            let wanted = image_in(&live, owner, &channel)?;
            let has = rebuilt.channels.iter().position(|found| found.channel == channel);
            let Some(found) = has.and_then(|place| rebuilt.channels.get_mut(place)) else {
                let mut missing = Found::lost(channel);
                missing.faults.push("the backup does not have it".to_owned());
                rebuilt.channels.push(missing);
                continue;
            };
            if !matches!(found.fate, Fate::Lost) {
                found.faults.extend(difference(&wanted, &image_in(&restored, owner, &channel)?));
            }
        }
        Ok(rebuilt)
    }

    fn wallet_row(&self, rebuilt: &Rebuilt) -> Result<Option<Vec<u8>>, RestoreFault> {
        rebuilt.follows.map(self.wallet).transpose().map_err(RestoreFault::Wallet)
    }

    fn scratch(&self) -> Result<Database, StoreError> {
        let db = Database::builder().create_with_backend(InMemoryBackend::new())?;
        initialise(&db, self.network, &self.node_id)?;
        Ok(db)
    }

    /// Every channel of the backup, and the images of those that are taken over.
    fn gather(&self, source: &mut dyn Source) -> Result<(Rebuilt, Vec<Image>), RestoreFault> {
        let tip = source.tip()?.and_then(|bytes| TipRecord::decode(&bytes).ok());
        let tip = tip.filter(|tip| self.is_ours(&tip.network, &tip.node_id));
        let (mut channels, mut images) = (Vec::new(), Vec::new());
        for channel in source.channels()? {
            let mut stored = match source.read(&channel) {
                Ok(stored) => stored,
                // One that cannot be read costs no other its restore, while the backup still answers.
                Err(fault) if source.tip().is_ok() => {
                    channels.push(Found { faults: vec![fault.to_string()], ..Found::lost(channel) });
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
        if images.is_empty() {
            let faults: Vec<_> = channels.iter().flat_map(|found| found.faults.iter().cloned()).take(8).collect();
            let faults = if faults.is_empty() { String::new() } else { format!(": {}", faults.join("; ")) };
            return Err(RestoreFault::Nothing(faults));
        }
        let follows = follows(tip.as_ref(), &images, &mut channels);
        Ok((Rebuilt { channels, tip, follows }, images))
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

    /// A channel as it is read back when it was restored alone, into a database of its own that a start would load.
    pub(super) fn read_back(&self, image: &Image) -> Result<Image, StoreError> {
        let db = self.scratch()?;
        let transaction = db.begin_write()?;
        write_image(&transaction, image)?;
        transaction.commit()?;
        load::load(&db)?;
        image_in(&db.begin_read()?, (self.network, &self.node_id), &image.channel)
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

impl Found {
    /// A channel of which nothing is known.
    fn lost(channel: ChannelId) -> Self {
        Self {
            channel,
            fate: Fate::Lost,
            peer: None,
            capacity: None,
            balance: None,
            htlcs: 0,
            cost: None,
            reached: None,
            newest: None,
            faults: Vec::new(),
        }
    }

    /// The record of the tip tells of this id, and the rows are older.
    fn is_behind(&mut self, id: u64, followed: Option<Followed>) {
        self.newest = self.newest.max(Some(id));
        let reached = self.reached.unwrap_or_default();
        let follows = match followed {
            Some(Followed { height, .. }) => format!("it is followed from block {height} on"),
            None => {
                "how far it had followed the chain is not known, so a close that is in a block already may not be seen"
                    .to_owned()
            }
        };
        self.faults.push(format!(
            "the record of the chain tells of write {id}, and those after {reached} are missing: {follows}"
        ));
    }

    fn tell(&mut self, channel: &Channel) {
        let rows = channel.rows();
        self.balance = Some(rows.head.local_commitment.to_local);
        self.htlcs = rows.htlcs.len();
        let cost = || commitment_cost(rows.head.fee.remote, rows.htlcs.len());
        self.cost = Some(if rows.params.is_opener { cost() } else { Sat::new(0) });
        self.fate = match channel.phase() {
            Phase::Failed { spend: None, .. } => Fate::Waiting,
            Phase::Failed { spend: Some(_), .. } | Phase::Closed { .. } => Fate::Closing,
            Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } | Phase::Closing { .. } => Fate::Restored,
        };
    }
}

/// From where the chain is followed. The record of the tip tells which ids of the channels have taken in its block: rows that are
/// older are followed from what they say themselves, or some close of that channel may never be seen.
fn follows(tip: Option<&TipRecord>, images: &[Image], channels: &mut [Found]) -> Option<Followed> {
    let newest = tip.map(|tip| Followed { height: tip.height, hash: tip.hash });
    let known: Option<HashMap<_, _>> = tip.and_then(|tip| Some(tip.channels.as_ref()?.iter().copied().collect()));
    let mut from = newest;
    for image in images.iter().filter(|image| image.is_live()) {
        let told = known.as_ref().and_then(|known| known.get(&image.channel).copied());
        let is_behind = newest.is_none() || known.is_none() || told.is_some_and(|id| image.id < id);
        if !is_behind {
            continue;
        }
        let found = channels.iter_mut().find(|found| found.channel == image.channel);
        if let (Some(found), Some(id)) = (found, told) {
            found.is_behind(id, image.followed());
        }
        let earlier = image.followed().filter(|own| from.is_none_or(|from| own.height < from.height));
        from = earlier.or(from);
    }
    from
}

/// The channels that live in this file.
pub(super) fn living(transaction: &ReadTransaction) -> Result<Vec<ChannelId>, StoreError> {
    let params = transaction.open_table(Table::ChannelParams.definition())?;
    let mut channels = Vec::new();
    for entry in params.iter()? {
        channels.extend(entry?.0.value().try_into().map(ChannelId));
    }
    Ok(channels)
}

/// How what came of a backup differs from the channel as it is. A backup may have more preimages, for other channels, and another
/// address of the peer.
pub(super) fn difference(wanted: &Image, found: &Image) -> Option<String> {
    if found.id != wanted.id {
        return Some(format!("it is at write {} in the backup and at {} here", found.id, wanted.id));
    }
    let is_compared = |table: Table| !matches!(table, Table::PeerAddress | Table::Preimage);
    let lacks = wanted.rows.iter().filter(|((table, _), _)| *table != Table::PeerAddress);
    let lacks = lacks.filter(|(name, row)| found.rows.get(*name) != Some(*row)).count();
    let extra = found.rows.keys().filter(|name| is_compared(name.0) && !wanted.rows.contains_key(*name)).count();
    (lacks + extra > 0).then(|| format!("{lacks} of its rows are missing or other ones, and {extra} are too many"))
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
