//! What a mirror was told to be complete of, remembered beside it: files that have its name later are only those that it was written
//! to where they hold at least that.

use std::collections::HashMap;

use outrigger_bolt::id::ChannelId;

use super::Job;
use crate::store::backup::Holding;

/// Channels that live, each at the id that was completed.
#[derive(Debug, Default)]
pub(super) struct Completed(HashMap<ChannelId, u64>);

impl Completed {
    pub(super) fn of(holdings: &[Holding]) -> Self {
        Self(holdings.iter().map(|holding| (holding.channel, holding.id)).collect())
    }

    /// Whether a mirror that holds this may be the one that all of it was completed in. What the jobs change, which are to be written,
    /// may be there or not: they may have come to the disk although that failed.
    pub(super) fn is_in(&self, holdings: &[Holding], jobs: &[Job]) -> bool {
        let found: HashMap<_, _> = holdings.iter().map(|holding| (holding.channel, holding.id)).collect();
        let is_kept = |(channel, id): (&ChannelId, &u64)| match found.get(channel) {
            Some(at) => at >= id,
            None => jobs.iter().any(|job| job.ends(channel)),
        };
        let is_known =
            |channel: &ChannelId| self.0.contains_key(channel) || jobs.iter().any(|job| job.channel() == Some(channel));
        self.0.iter().all(is_kept) && found.keys().all(is_known)
    }

    /// They are complete.
    pub(super) fn take(&mut self, jobs: &[Job]) {
        for job in jobs {
            let (channel, id) = match job {
                Job::Full(image, _) => (image.channel, Some(image.id).filter(|_| image.is_live())),
                Job::Update(update) => (update.channel, Some(update.id).filter(|_| !update.is_last())),
                Job::Known(..) | Job::Tip(_) => continue,
            };
            match id {
                Some(id) => drop(self.0.insert(channel, id)),
                None => drop(self.0.remove(&channel)),
            }
        }
    }
}

impl Job {
    /// The channel that it writes.
    fn channel(&self) -> Option<&ChannelId> {
        match self {
            Self::Full(image, _) => Some(&image.channel),
            Self::Update(update) => Some(&update.channel),
            Self::Known(channel, _) => Some(channel),
            Self::Tip(_) => None,
        }
    }

    /// Whether nothing of this channel is held any more when it is written.
    pub(super) fn ends(&self, channel: &ChannelId) -> bool {
        match self {
            Self::Full(image, _) => image.channel == *channel && !image.is_live(),
            Self::Update(update) => update.channel == *channel && update.is_last(),
            Self::Known(..) | Self::Tip(_) => false,
        }
    }
}
