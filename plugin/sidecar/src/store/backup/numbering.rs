//! Ids for what commits change: the writer alone knows what became one commit, so ids are given there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outrigger_bolt::id::ChannelId;
use outrigger_channel::{ChannelParams, Row};
use redb::{Database, ReadableDatabase};

use super::followed::Followed;
use super::image::{RowChange, Update};
use super::kept::{channel_of, committed_key, id_in};
use crate::store::StoreError;
use crate::store::batch::Write;
use crate::store::schema::{FOLLOWED_KEY, Table, channel_key};

/// Rows that a commit writes, by table and key.
type Rows<'a> = BTreeMap<(Table, &'a [u8]), &'a Option<Vec<u8>>>;

/// Gives each channel's changes in a commit the next id of its sequence.
#[derive(Debug)]
pub(super) struct Numbering {
    db: Arc<Database>,
    /// The ids of the channels that were met; those of others stand in the file.
    newest: HashMap<ChannelId, u64>,
    /// How far all rows have followed the chain, and how far those of each channel say so.
    followed: Option<Followed>,
    told: HashMap<ChannelId, Followed>,
}

impl Numbering {
    pub(super) fn new(db: Arc<Database>, newest: HashMap<ChannelId, u64>) -> Self {
        Self { db, newest, followed: None, told: HashMap::new() }
    }

    /// A block that the rows of all channels have taken in, and the ids from which on they have: nothing before this start has taken
    /// in a block.
    pub(super) fn standing(&self) -> Option<(Followed, Vec<(ChannelId, u64)>)> {
        let mut ids: Vec<_> = self.newest.iter().map(|(channel, id)| (*channel, *id)).collect();
        ids.sort_unstable();
        self.followed.map(|followed| (followed, ids))
    }

    /// What these writes are to sinks, an update for each channel that they concern. The ids that these take become rows of the same
    /// transaction. Of two writes of one row the later one stands. `commitments` are the numbers of the local commitments that come
    /// with them: with which id is a row too.
    pub(super) fn number(
        &mut self,
        writes: &mut Vec<Write>,
        commitments: &BTreeMap<ChannelId, u64>,
    ) -> Result<Vec<Arc<Update>>, StoreError> {
        let mut changed: BTreeMap<ChannelId, Rows<'_>> = BTreeMap::new();
        let is_block = |write: &&Write| write.table == Table::Meta && write.key == FOLLOWED_KEY;
        if let Some(block) = writes.iter().rev().find(is_block) {
            self.followed = block.value.as_deref().and_then(|row| Followed::decode(row).ok());
        }
        for write in writes.iter() {
            if let Some(channel) = channel_of(write.table, &write.key) {
                changed.entry(channel).or_default().insert((write.table, &write.key), &write.value);
            }
        }
        let mut updates = Vec::with_capacity(changed.len());
        for (channel, rows) in changed {
            let after = match self.newest.get(&channel) {
                Some(newest) => *newest,
                None => id_in(&self.db.begin_read()?, &channel)?,
            };
            let id = after.saturating_add(1);
            self.newest.insert(channel, id);
            let change = |((table, key), value): ((Table, &[u8]), &Option<Vec<u8>>)| RowChange {
                table,
                key: key.to_vec(),
                value: value.clone(),
            };
            let mut update = Update { channel, after, id, changes: rows.into_iter().map(change).collect() };
            update.changes.extend(self.follow(&update));
            updates.push(Arc::new(update));
        }
        let is_followed = |change: &&RowChange| change.table == Table::Followed;
        let follows = updates.iter().filter_map(|update| update.changes.iter().find(is_followed));
        let follows = follows.map(|row| Write { table: row.table, key: row.key.clone(), value: row.value.clone() });
        let follows: Vec<_> = follows.collect();
        writes.extend(follows);
        writes.extend(updates.iter().map(|update| Write {
            table: Table::Persist,
            key: channel_key(&update.channel),
            value: Some(update.id.to_be_bytes().to_vec()),
        }));
        for update in &updates {
            let row = |value| Write { table: Table::Persist, key: committed_key(&update.channel), value };
            if update.is_last() {
                writes.push(row(None));
            } else if let Some(number) = commitments.get(&update.channel) {
                writes.push(row(Some([number.to_be_bytes(), update.id.to_be_bytes()].concat())));
            }
        }
        Ok(updates)
    }

    /// What the channel's rows say from this update on of how far they have followed the chain, where they do not say it yet. Of one
    /// that is over nothing is followed.
    fn follow(&mut self, update: &Update) -> Option<RowChange> {
        let row = |value| Some(RowChange { table: Table::Followed, key: channel_key(&update.channel), value });
        if update.is_last() {
            self.told.remove(&update.channel);
            return row(None);
        }
        let followed = self.followed?;
        let before = self.told.insert(update.channel, followed);
        if before == Some(followed) { None } else { row(Some(followed.encode())) }
    }

    /// The channel is over: its id is found in the file, should anything still come.
    pub(super) fn forget(&mut self, channel: &ChannelId) {
        self.newest.remove(channel);
        self.told.remove(channel);
    }
}

impl Update {
    fn value(&self, table: Table) -> Option<&Option<Vec<u8>>> {
        self.changes.iter().find(|change| change.table == table).map(|change| &change.value)
    }

    /// Whose a channel is that comes to life, and what it is filed by; of others that is known, or found in the image.
    pub(super) fn params(&self) -> Option<ChannelParams> {
        let row = self.value(Table::ChannelParams)?.as_deref()?;
        ChannelParams::decode(row).ok()
    }

    /// Whether the channel comes to life with it.
    pub(super) fn is_first(&self) -> bool {
        self.after == 0 && matches!(self.value(Table::ChannelParams), Some(Some(_)))
    }

    /// Whether the channel's life ends with it: its rows go into history, or nowhere.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.value(Table::ChannelParams), Some(None))
    }
}
