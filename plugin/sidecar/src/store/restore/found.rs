//! What a restore tells of each channel of a backup, and of the backup itself.

use std::collections::{HashMap, HashSet};

use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::tx::fee::commitment_cost;
use outrigger_channel::{Channel, Phase};

use crate::store::backup::followed::Followed;
use crate::store::backup::image::{Image, TipRecord};

/// Peers that are named as those whom a lost channel may be with, at most.
const MOST_NAMED: usize = 8;

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
    /// What is damaged, missing or odd for certain.
    pub faults: Vec<String>,
    /// What could not be read now, and may be there all the same.
    pub unread: Vec<String>,
}

/// What a backup gave.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    pub channels: Vec<Found>,
    /// The newest record of how far the chain was followed.
    pub tip: Option<TipRecord>,
    /// From where the chain is followed: that block, or an earlier one that the rows of every channel have taken in.
    pub follows: Option<Followed>,
    /// What is odd in the backup beside its channels: something of it may be missing.
    pub faults: Vec<String>,
    /// What of it could not be read now beside its channels, and may be there all the same.
    pub unread: Vec<String>,
    /// Whether the list of its channels could not be read to its end: one that is not in it may be there all the same.
    pub is_cut: bool,
}

impl Rebuilt {
    /// Whether nothing is missing of what the backup tells of, nor how far the chain was followed: without that a close which is in a
    /// block already is never seen.
    pub fn is_whole(&self) -> bool {
        let is_sound = |found: &Found| found.faults.is_empty() && !matches!(found.fate, Fate::Frozen | Fate::Lost);
        self.follows.is_some() && self.faults.is_empty() && !self.is_unread() && self.channels.iter().all(is_sound)
    }

    /// Whether anything is damaged, missing or odd for certain, whatever another look may find of what could not be read.
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty() || self.channels.iter().any(|found| !found.faults.is_empty())
    }

    /// Whether anything could not be read now: another look may find it.
    pub fn is_unread(&self) -> bool {
        !self.unread.is_empty() || self.channels.iter().any(|found| !found.unread.is_empty())
    }
}

impl Found {
    /// A channel that the backup does not list, and why it is missed. Where the list `is_cut` it may be there all the same.
    pub(super) fn absent(channel: ChannelId, is_cut: bool, words: String) -> Self {
        let (faults, unread) = if is_cut { (Vec::new(), vec![words]) } else { (vec![words], Vec::new()) };
        Self { faults, unread, ..Self::lost(channel) }
    }

    /// A channel of which nothing is known.
    pub(super) fn lost(channel: ChannelId) -> Self {
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
            unread: Vec::new(),
        }
    }

    /// What is missing: it may be behind what could not be read.
    fn misses(&mut self, words: String) {
        let told = if self.unread.is_empty() { &mut self.faults } else { &mut self.unread };
        told.push(words);
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
        self.misses(format!(
            "the record of the chain tells of write {id}, and those after {reached} are missing: {follows}"
        ));
    }

    pub(super) fn tell(&mut self, channel: &Channel) {
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
pub(super) fn follows(tip: Option<&TipRecord>, images: &[Image], channels: &mut [Found]) -> Option<Followed> {
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

/// The channels that the record of the tip names and the backup has nothing of: of them nobody would hear otherwise. `seen` are those
/// that it has anything of, and where its list `is_cut` it may have others.
pub(super) fn lost(tip: &TipRecord, (seen, is_cut): (&HashSet<ChannelId>, bool), channels: &[Found]) -> Vec<Found> {
    let met: HashSet<_> = channels.iter().filter_map(|found| found.peer).collect();
    let peers = tip.peers.iter().filter(|(peer, _)| !met.contains(peer)).take(MOST_NAMED);
    let peers: Vec<_> = peers.map(|(peer, address)| format!("{peer}@{address}")).collect();
    let whose =
        if peers.is_empty() { String::new() } else { format!("; its peer may be one of these: {}", peers.join(", ")) };
    let named = tip.channels.iter().flatten().filter(|(channel, _)| !seen.contains(channel));
    let told = |(channel, id): &(ChannelId, u64)| {
        let words = format!(
            "the record of the chain at block {} names it at write {id}, and the backup has nothing of it{whose}",
            tip.height
        );
        Found { newest: Some(*id), ..Found::absent(*channel, is_cut, words) }
    };
    named.map(told).collect()
}
