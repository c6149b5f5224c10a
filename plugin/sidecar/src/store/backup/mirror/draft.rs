//! What jobs make of the rows that a mirror has: the rows that change, as they are to stand, however often they are written.

use std::collections::BTreeMap;

use outrigger_bolt::id::ChannelId;
use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::{Job, id_in};
use crate::store::StoreError;
use crate::store::backup::image::{Image, Update};
use crate::store::backup::kept::tables;
use crate::store::journal::rows::SealedRow;
use crate::store::schema::{TIP_KEY, Table};
use crate::store::seal::seal;

/// The rows that the jobs change, table by table and each once. None where one does not follow what stands there: then it is another
/// file than the one that was written before.
pub(super) fn rows_of(db: &Database, jobs: &[Job]) -> Result<Option<Vec<SealedRow>>, StoreError> {
    let mut draft = Draft { stands: db.begin_read()?, rows: BTreeMap::new() };
    for (number, job) in jobs.iter().enumerate() {
        let is_ended_by = |channel: &ChannelId| jobs.iter().skip(number).any(|job| job.ends(channel));
        let follows = match job {
            Job::Full(image, _) => {
                draft.put_image(image)?;
                true
            }
            Job::Update(update) => draft.put_update(update, is_ended_by(&update.channel))?,
            Job::Tip(tip) => {
                draft.put(Table::Meta, TIP_KEY, Some(&tip.encode()));
                true
            }
            Job::Known(channel, id) => match draft.id_of(channel)? {
                Some(at) => at >= *id,
                None => is_ended_by(channel) || draft.is_over(channel)?,
            },
        };
        if !follows {
            return Ok(None);
        }
    }
    let row = |((table, key), value)| SealedRow { table, key, value };
    Ok(Some(draft.rows.into_iter().map(row).collect()))
}

/// A table as it stands.
type Stands = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What stands, and what is to stand.
struct Draft {
    stands: ReadTransaction,
    /// Rows with their checks; none where they are deleted.
    rows: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
}

impl Draft {
    fn put(&mut self, table: Table, key: &[u8], row: Option<&[u8]>) {
        self.rows.insert((table, key.to_vec()), row.map(|row| seal(table, key, row)));
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(row) = self.rows.get(&(table, key.to_vec())) {
            return Ok(row.clone());
        }
        let Some(open) = self.table(table)? else { return Ok(None) };
        Ok(open.get(key)?.map(|row| row.value().to_vec()))
    }

    /// None where the mirror is older than the table.
    fn table(&self, table: Table) -> Result<Option<Stands>, StoreError> {
        match self.stands.open_table(table.definition()) {
            Ok(open) => Ok(Some(open)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The id at which the rows of a channel that lives stand.
    fn id_of(&self, channel: &ChannelId) -> Result<Option<u64>, StoreError> {
        self.get(Table::Persist, &channel.0)?.map(|row| id_in(&channel.0, &row)).transpose()
    }

    /// The id of a channel that lives; one that is over is not held any more.
    fn put_id(&mut self, channel: &ChannelId, id: Option<u64>) {
        self.put(Table::Persist, &channel.0, id.map(u64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
    }

    fn is_over(&self, channel: &ChannelId) -> Result<bool, StoreError> {
        Ok(self.get(Table::ClosedChannel, &channel.0)?.is_some())
    }

    /// The rows of the image, and no other of the channel.
    fn put_image(&mut self, image: &Image) -> Result<(), StoreError> {
        let channel = image.channel.0.as_slice();
        for table in tables() {
            let written = self.rows.range((table, channel.to_vec())..).map(|((table, key), _)| (*table, key.clone()));
            let mut old: Vec<_> =
                written.take_while(|(of, key)| *of == table && key.starts_with(channel)).map(|(_, key)| key).collect();
            let open = self.table(table)?;
            for entry in open.map(|open| open.range(channel..)).transpose()?.into_iter().flatten() {
                let key = entry?.0.value().to_vec();
                if !key.starts_with(channel) {
                    break;
                }
                old.push(key);
            }
            old.iter().for_each(|key| self.put(table, key, None));
        }
        // One that was never funded leaves nothing (FND-8).
        let rows = image.rows.iter().filter(|_| !image.is_forgotten());
        rows.for_each(|((table, key), value)| self.put(*table, key, Some(value)));
        self.put_id(&image.channel, Some(image.id).filter(|_| image.is_live()));
        Ok(())
    }

    /// Says whether the update follows what stands there; else nothing of it is written. A commit that failed may have come to the
    /// disk, and is made again: then all of it is there already, or the channel is over, or its end is among the jobs and nothing of it
    /// is left.
    fn put_update(&mut self, update: &Update, is_ended: bool) -> Result<bool, StoreError> {
        match self.id_of(&update.channel)? {
            Some(at) if at >= update.id => return Ok(true),
            Some(at) if at == update.after => {}
            None if is_ended || self.is_over(&update.channel)? => {}
            Some(_) | None => return Ok(false),
        }
        update.changes.iter().for_each(|change| self.put(change.table, &change.key, change.value.as_deref()));
        self.put_id(&update.channel, Some(update.id).filter(|_| !update.is_last()));
        Ok(true)
    }
}
