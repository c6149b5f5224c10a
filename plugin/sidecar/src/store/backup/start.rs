//! What a start makes of its file for the sinks: the channels and their ids, and whether a sink knows more than the file.

use std::collections::{BTreeMap, HashMap};

use bitcoin::OutPoint;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::ChannelRows;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase};

use super::Holding;
use super::followed::Followed;
use super::image::TipRecord;
use super::kept::{committed_in, id_in};
use super::numbering::Standing;
use super::owed::Owed;
use super::refusals::Refusals;
use super::verified::Verified;
use crate::store::StoreError;
use crate::store::load::Snapshot;
use crate::store::read::unreadable;
use crate::store::schema::{FOLLOWED_KEY, REFUSALS_KEY, SINKS_KEY, Table, VERIFIED_KEY};
use crate::store::seal::{seal, unseal};

/// A channel at the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtStart {
    pub(super) peer: NodeId,
    pub(super) funding: OutPoint,
    /// The id that the file had, 0 where it had none.
    found: u64,
    /// The id that it has now.
    pub(super) id: u64,
    /// The number of its newest local commitment, and the id of the commit that it came with, where that is known; else the
    /// newest id.
    pub(super) local_number: u64,
    /// How far its rows say that they have followed the chain.
    told: Option<Followed>,
    pub(super) committed: u64,
    /// It has failed for want of a sink, and nothing of it is kept: what every required sink has was not known.
    pub(super) is_withheld: bool,
}

/// A channel as its rows are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) channel: ChannelId,
    pub(super) peer: NodeId,
    pub(super) funding: OutPoint,
    pub(super) local_number: u64,
    pub(super) is_withheld: bool,
}

/// The channels that live, frozen ones apart: nothing of those is written.
#[derive(Debug, Default)]
pub struct Start {
    channels: BTreeMap<ChannelId, AtStart>,
    owed: Vec<((ChannelId, u64), crate::store::row::SettlementRow)>,
    refusals: Refusals,
    verified: Verified,
    /// A block that the rows of all channels have taken in.
    followed: Option<Followed>,
}

impl Start {
    /// Reads the ids of the channels, and raises them where a sink is new: nothing that was ever completed anywhere has such a number.
    /// The file remembers the `standing` ones, which have their places: any other is new at the next start too. Where nothing has
    /// changed nothing is written.
    pub fn of(db: &Database, snapshot: &Snapshot, names: &[&str], standing: &[&str]) -> Result<Self, StoreError> {
        let loaded = || snapshot.channels.iter().filter(|_| !names.is_empty());
        let channels = loaded().map(|loaded| {
            let ChannelRows { params, head, .. } = loaded.channel.rows();
            let (peer, funding, local_number) = (params.peer, params.funding, head.local_number);
            Found { channel: params.channel_id, peer, funding, local_number, is_withheld: head.phase.is_withheld() }
        });
        let mut start = Self::over(db, channels, (names, standing))?;
        for loaded in loaded() {
            let settled =
                loaded.settlements.iter().map(|(htlc_id, row)| ((loaded.channel.id(), *htlc_id), row.clone()));
            start.owed.extend(settled);
        }
        Ok(start)
    }

    /// The same for these channels.
    pub(super) fn over(
        db: &Database,
        channels: impl Iterator<Item = Found>,
        (names, standing): (&[&str], &[&str]),
    ) -> Result<Self, StoreError> {
        let transaction = db.begin_read()?;
        let known = known_names(&transaction)?;
        let is_new = names.iter().any(|name| !known.iter().any(|known| known == name));
        let refused = told_in(&transaction, REFUSALS_KEY, Refusals::decode)?;
        let verified = told_in(&transaction, VERIFIED_KEY, Verified::decode)?;
        let followed = followed_in(&transaction, (Table::Meta, FOLLOWED_KEY))?;
        let mut start = Self { refusals: refused.clone(), verified: verified.clone(), followed, ..Self::default() };
        start.refusals.0.retain(|name, _| names.contains(&name.as_str()));
        start.verified.0.retain(|name, _| names.contains(&name.as_str()));
        for Found { channel, peer, funding, local_number, is_withheld } in channels {
            let found = id_in(&transaction, &channel)?;
            let id = if is_new || found == 0 { found.saturating_add(1) } else { found };
            // Where it gets a number of its own, that is of rows which say how far they have followed.
            let told = followed.filter(|_| id != found);
            let told =
                told.map_or_else(|| followed_in(&transaction, (Table::Followed, &channel.0)), |own| Ok(Some(own)))?;
            // A row of another number is of another time: what a version without such rows has written came between.
            let committed = committed_in(&transaction, &channel)?.filter(|(number, _)| *number == local_number);
            let committed = committed.map_or(id, |(_, with)| with.min(id));
            let at_start = AtStart { peer, funding, found, id, local_number, committed, is_withheld, told };
            start.channels.insert(channel, at_start);
        }
        drop(transaction);
        let is_known = known == standing && refused == start.refusals && verified == start.verified;
        start.write(db, standing, is_known)?;
        Ok(start)
    }

    /// Remembers names and ids that are new, and forgets what is told of sinks that are there no more.
    fn write(&self, db: &Database, standing: &[&str], is_known: bool) -> Result<(), StoreError> {
        let raised: Vec<_> = self.channels.iter().filter(|(_, channel)| channel.id != channel.found).collect();
        if raised.is_empty() && is_known {
            return Ok(());
        }
        let mut transaction = db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        {
            let mut meta = transaction.open_table(Table::Meta.definition())?;
            if standing.is_empty() {
                meta.remove(SINKS_KEY)?;
            } else {
                let row = seal(Table::Meta, SINKS_KEY, standing.join("\n").as_bytes());
                meta.insert(SINKS_KEY, row.as_slice())?;
            }
            for (key, row) in [(REFUSALS_KEY, self.refusals.encode()), (VERIFIED_KEY, self.verified.encode())] {
                match row {
                    None => drop(meta.remove(key)?),
                    Some(row) => drop(meta.insert(key, seal(Table::Meta, key, &row).as_slice())?),
                }
            }
            let mut ids = transaction.open_table(Table::Persist.definition())?;
            let mut follow = transaction.open_table(Table::Followed.definition())?;
            for (channel, at_start) in raised {
                let row = seal(Table::Persist, &channel.0, &at_start.id.to_be_bytes());
                ids.insert(channel.0.as_slice(), row.as_slice())?;
                if let Some(told) = at_start.told {
                    let row = seal(Table::Followed, &channel.0, &told.encode());
                    follow.insert(channel.0.as_slice(), row.as_slice())?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Each channel as the start found it.
    pub(super) fn channels(&self) -> impl Iterator<Item = (&ChannelId, &AtStart)> {
        self.channels.iter()
    }

    /// The ids.
    pub(super) fn ids(&self) -> HashMap<ChannelId, u64> {
        self.channels.iter().map(|(channel, at_start)| (*channel, at_start.id)).collect()
    }

    /// What stands in the file once the start has written to it.
    pub(super) fn standing(&self) -> Standing {
        Standing { followed: self.followed, ids: self.ids().into_iter().collect() }
    }

    /// How far the rows of each channel say that they have followed the chain.
    pub(super) fn told(&self) -> HashMap<ChannelId, Followed> {
        self.channels.iter().filter_map(|(channel, at_start)| Some((*channel, at_start.told?))).collect()
    }

    /// Which channel this sink has refused for good before.
    pub(super) fn refused_by(&self, name: &str) -> Option<ChannelId> {
        self.refusals.0.get(name).copied()
    }

    /// When a restore from each sink was last found right.
    pub(super) const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// What downstream channels keep for upstream ones.
    pub(super) fn owed(&self) -> Owed {
        let mut owed = Owed::default();
        for ((upstream, htlc_id), row) in &self.owed {
            let id = self.channels.get(upstream).map_or(0, |channel| channel.id);
            owed.settled((*upstream, *htlc_id), id, row);
        }
        owed
    }

    /// Compares what a sink holds with the file. Either the channels that are over here and not yet there, with their ids, or the
    /// proof that the file is an old copy: ids only rise, and are durable here before a sink hears of them.
    pub(super) fn judge(
        &self,
        transaction: &ReadTransaction,
        sink: &str,
        holdings: &[Holding],
    ) -> Result<Result<Vec<(ChannelId, u64)>, String>, StoreError> {
        let mut behind = Vec::new();
        for Holding { channel, id } in holdings {
            let found = self.found(transaction, channel)?;
            if *id > found {
                return Ok(Err(is_old(&format!("holds channel {channel} at write {id}"), sink, found)));
            }
            if *id < found && !self.channels.contains_key(channel) && !has_life(transaction, channel)? {
                behind.push((*channel, found));
            }
        }
        Ok(Ok(behind))
    }

    /// The proof that the file is an old copy, where a sink's record of the tip names a channel at a write that the file has not: such
    /// a record is of what was durable here, and outlives what the sink holds of the channel itself.
    pub(super) fn judge_tip(
        &self,
        transaction: &ReadTransaction,
        sink: &str,
        tip: &TipRecord,
    ) -> Result<Option<String>, StoreError> {
        for (channel, id) in tip.channels.iter().flatten() {
            let found = self.found(transaction, channel)?;
            if *id > found {
                return Ok(Some(is_old(&format!("names channel {channel} at write {id}"), sink, found)));
            }
        }
        Ok(None)
    }

    /// The id of a channel's rows in the file as the start found it; nought where the file has never heard of it. What is frozen, in
    /// history or forgotten keeps its own.
    fn found(&self, transaction: &ReadTransaction, channel: &ChannelId) -> Result<u64, StoreError> {
        self.channels.get(channel).map_or_else(|| id_in(transaction, channel), |at_start| Ok(at_start.found))
    }
}

fn is_old(what: &str, sink: &str, found: u64) -> String {
    let here = if found == 0 { "knows no such channel".to_owned() } else { format!("is at {found}") };
    format!("the backup {sink} {what} and {} {here}: an old copy was put back", crate::store::FILE)
}

/// Whether the channel lives in this file.
pub(super) fn has_life(transaction: &ReadTransaction, channel: &ChannelId) -> Result<bool, StoreError> {
    let params = transaction.open_table(Table::ChannelParams.definition())?;
    Ok(params.get(channel.0.as_slice())?.is_some())
}

/// The sinks that the last start had in their places.
pub fn known_sinks(db: &Database) -> Result<Vec<String>, StoreError> {
    known_names(&db.begin_read()?)
}

fn known_names(transaction: &ReadTransaction) -> Result<Vec<String>, StoreError> {
    let meta = transaction.open_table(Table::Meta.definition())?;
    let Some(row) = meta.get(SINKS_KEY)? else { return Ok(Vec::new()) };
    let names = unseal(Table::Meta, SINKS_KEY, row.value()).map_err(unreadable)?;
    Ok(String::from_utf8_lossy(names).lines().map(str::to_owned).collect())
}

/// The block that a row names. One that cannot be understood says nothing, and is written anew.
fn followed_in(transaction: &ReadTransaction, (table, key): (Table, &[u8])) -> Result<Option<Followed>, StoreError> {
    let open = transaction.open_table(table.definition())?;
    let Some(row) = open.get(key)? else { return Ok(None) };
    Ok(Followed::decode(unseal(table, key, row.value()).map_err(unreadable)?).ok())
}

/// What a row of `meta` tells; of one that is not there, nothing.
fn told_in<R: Default>(
    transaction: &ReadTransaction,
    key: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<R, &'static str>,
) -> Result<R, StoreError> {
    let meta = transaction.open_table(Table::Meta.definition())?;
    let Some(row) = meta.get(key)? else { return Ok(R::default()) };
    decode(unseal(Table::Meta, key, row.value()).map_err(unreadable)?).map_err(unreadable)
}
