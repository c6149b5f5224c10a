//! Ids for what commits change: the writer alone knows what became one commit, so ids are given there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use outrigger_bolt::id::ChannelId;
use outrigger_channel::{ChannelParams, Row};
use redb::{Database, ReadableDatabase};

use super::followed::Followed;
use super::image::{RowChange, Update};
use super::kept::{CommittedRow, channel_of, committed_key, id_in};
use super::start::Start;
use crate::store::StoreError;
use crate::store::batch::Write;
use crate::store::schema::{FOLLOWED_KEY, Table, channel_key};

/// Rows that a commit writes, by table and key.
type Rows<'a> = BTreeMap<(Table, &'a [u8]), &'a Option<Vec<u8>>>;

/// What the file says of its channels.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// A block that the rows of all channels have taken in, with all before it.
    pub(super) followed: Option<Followed>,
    /// The ids of the channels that live.
    pub(super) ids: BTreeMap<ChannelId, u64>,
}

/// Gives each channel's changes in a commit the next id of its sequence.
#[derive(Debug)]
pub(super) struct Numbering {
    db: Arc<Database>,
    /// The ids of the channels that were met; those of others stand in the file.
    newest: HashMap<ChannelId, u64>,
    /// How far all rows have followed the chain, and how far those of each channel say so.
    followed: Option<Followed>,
    told: HashMap<ChannelId, Followed>,
    /// What is durable of that.
    durable: Standing,
}

impl Numbering {
    /// Goes on from what a start found: nothing is given the number of anything before, and how far the rows had followed the chain
    /// is known before they change.
    pub(super) fn new(db: Arc<Database>, start: &Start) -> Self {
        let durable = start.standing();
        let newest = durable.ids.iter().map(|(channel, id)| (*channel, *id)).collect();
        Self { db, newest, followed: durable.followed, told: start.told(), durable }
    }

    /// A block that the rows of all channels have taken in, and the ids at which they have; nothing before the first block. Of what is
    /// durable alone: a commit under way may never be.
    pub(super) fn standing(&self) -> Option<(Followed, Vec<(ChannelId, u64)>)> {
        let Standing { followed, ids } = &self.durable;
        followed.map(|followed| (followed, ids.iter().map(|(channel, id)| (*channel, *id)).collect()))
    }

    /// The commit that was numbered last is durable, and sinks have these updates before them.
    pub(super) fn committed(&mut self, updates: &[Arc<Update>]) {
        self.durable.followed = self.followed;
        for update in updates {
            let channel = update.channel;
            if update.is_last() {
                self.durable.ids.remove(&channel);
                // Its id is found in the file, should anything still come.
                self.newest.remove(&channel);
            } else if update.is_born() || self.durable.ids.contains_key(&channel) {
                self.durable.ids.insert(channel, update.id);
            }
        }
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
                let committed = CommittedRow { number: *number, id: update.id };
                writes.push(row(Some(committed.encode())));
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

    /// Whether the channel has a life from here on.
    fn is_born(&self) -> bool {
        matches!(self.value(Table::ChannelParams), Some(Some(_)))
    }

    /// Whether the channel comes to life with it.
    pub(super) fn is_first(&self) -> bool {
        self.after == 0 && self.is_born()
    }

    /// Whether the channel's life ends with it: its rows go into history, or nowhere.
    pub(super) fn is_last(&self) -> bool {
        matches!(self.value(Table::ChannelParams), Some(None))
    }

    /// Whether the channel was never funded, and nothing of it is kept from here on.
    pub(super) fn forgets(&self) -> bool {
        self.is_last() && !matches!(self.value(Table::ClosedChannel), Some(Some(_)))
    }
}
