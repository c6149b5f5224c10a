//! What a restore would bring back, held against the database that lives.

use std::collections::{HashMap, HashSet};

use outrigger_bolt::id::ChannelId;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::{Fate, Found, Rebuilt, Restore, RestoreFault};
use crate::store::StoreError;
use crate::store::backup::image::Image;
use crate::store::backup::kept::{id_in, image_in, rows_in};
use crate::store::backup::source::Source;
use crate::store::schema::Table;

impl Restore<'_> {
    /// Makes it in memory, and holds every channel of either side against the other. Nothing may change `live` meanwhile. A backup
    /// without channels is told as one.
    pub fn compared(&self, source: &mut dyn Source, live: &Database) -> Result<Rebuilt, RestoreFault> {
        let (mut rebuilt, images) = self.gather(source)?;
        let restored = self.filled(&rebuilt, &images)?.begin_read().map_err(StoreError::from)?;
        let live = live.begin_read().map_err(StoreError::from)?;
        let owner = (self.network, &self.node_id);
        let living = living(&live)?;
        let places = rebuilt.channels.iter().enumerate().map(|(place, found)| (found.channel, place));
        let places: HashMap<_, _> = places.collect();
        for channel in &living {
            let Some(found) = places.get(channel).and_then(|place| rebuilt.channels.get_mut(*place)) else {
                let missing = Found::absent(*channel, rebuilt.is_cut, "the backup does not have it".to_owned());
                rebuilt.channels.push(missing);
                continue;
            };
            // What could not be read of it is told, and may be all that differs.
            if !matches!(found.fate, Fate::Lost) && found.unread.is_empty() {
                found.faults.extend(difference(&live, &image_in(&restored, owner, channel)?)?);
            }
        }
        let living: HashSet<_> = living.into_iter().collect();
        for found in rebuilt.channels.iter_mut().filter(|found| !living.contains(&found.channel)) {
            found.faults.extend(over_here(&live, found)?);
        }
        Ok(rebuilt)
    }
}

/// What is wrong with a channel of a backup that does not live in this file.
fn over_here(live: &ReadTransaction, found: &Found) -> Result<Option<String>, StoreError> {
    let life = Life::of(live, &found.channel)?;
    let at = || found.reached.or(found.newest).unwrap_or_default();
    Ok(match (life, &found.fate) {
        (Life::Unknown, _) => Some("this database does not know it, so it is an old copy, or another's".to_owned()),
        (Life::Living | Life::Over, Fate::History | Fate::Lost) => None,
        // It may be over there too, by what could not be read.
        (Life::Living | Life::Over, _) if !found.unread.is_empty() => None,
        (Life::Living | Life::Over, Fate::Restored | Fate::Waiting | Fate::Closing | Fate::Frozen) => {
            Some(format!("it is over here, and the backup has it as it was at write {}", at()))
        }
    })
}

/// What a file knows of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Life {
    Living,
    /// It is in history, or was forgotten.
    Over,
    /// It has never heard of it, or had no backup while it lived.
    Unknown,
}

impl Life {
    pub(in crate::store) fn of(transaction: &ReadTransaction, channel: &ChannelId) -> Result<Self, StoreError> {
        let has = |table: Table| -> Result<bool, StoreError> {
            Ok(transaction.open_table(table.definition())?.get(channel.0.as_slice())?.is_some())
        };
        Ok(if has(Table::ChannelParams)? {
            Self::Living
        } else if has(Table::ClosedChannel)? || id_in(transaction, channel)? > 0 {
            Self::Over
        } else {
            Self::Unknown
        })
    }
}

/// The channels that live in this file.
pub(in crate::store) fn living(transaction: &ReadTransaction) -> Result<Vec<ChannelId>, StoreError> {
    let params = transaction.open_table(Table::ChannelParams.definition())?;
    let mut channels = Vec::new();
    for entry in params.iter()? {
        channels.extend(entry?.0.value().try_into().map(ChannelId));
    }
    Ok(channels)
}

/// Whether a row is the channel's own. A backup may have more preimages, for other channels, and another address of the peer.
pub(in crate::store) const fn is_own(table: Table) -> bool {
    !matches!(table, Table::PeerAddress | Table::Preimage)
}

/// How what came of a backup differs from the channel as it stands in this file.
pub(in crate::store) fn difference(live: &ReadTransaction, found: &Image) -> Result<Option<String>, StoreError> {
    let id = id_in(live, &found.channel)?;
    if found.id != id {
        return Ok(Some(format!("it is at write {} in the backup and at {id} here", found.id)));
    }
    let (mut lacks, mut met) = (0_usize, 0_usize);
    rows_in(live, &found.channel, |table, key, row| {
        let there = found.rows.get(&(table, key.to_vec()));
        lacks = lacks.saturating_add(usize::from(there.is_none_or(|there| there != row)));
        met = met.saturating_add(usize::from(is_own(table) && there.is_some()));
    })?;
    let extra = found.rows.keys().filter(|(table, _)| is_own(*table)).count().saturating_sub(met);
    Ok((lacks > 0 || extra > 0)
        .then(|| format!("{lacks} of its rows are missing or other ones, and {extra} are too many")))
}
