//! What is shown of the sinks, and what is known of them beside.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use outrigger_bolt::id::ChannelId;

use super::Hub;
use crate::store::backup::desk::{Desk, SinkView};

impl Hub {
    /// The sinks as they are shown.
    pub fn views(&self) -> Vec<SinkView> {
        self.desks.iter().map(|desk| desk.view(self.clocks.now)).collect()
    }

    /// The names of the required sinks that have not told what they hold since this start.
    pub fn unheard(&self) -> Vec<&str> {
        let is_unheard = |desk: &&Desk| !desk.has_told.load(Ordering::Acquire) || desk.is_mute.load(Ordering::Acquire);
        let required = self.desks.iter().filter(|desk| desk.terms.is_required);
        required.filter(is_unheard).map(|desk| desk.terms.name.as_str()).collect()
    }

    /// A restore from the sink of this name was tried and found right now: `keep` is to queue the row of `meta` that says so, which is told
    /// of by [`is_verified`](Self::is_verified) once it is durable. Rows come to it in the order in which they are to be written.
    pub fn verified<R>(&self, name: &str, keep: impl FnOnce(Option<Vec<u8>>) -> R) -> (u64, R) {
        let at_unix = (self.clocks.unix)();
        let mut verified = self.verified.lock();
        verified.0.insert(name.to_owned(), at_unix);
        (at_unix, keep(verified.encode()))
    }

    /// The database knows that a restore from the sink of this name was found right then.
    pub fn is_verified(&self, name: &str, at_unix: u64) {
        let found = self.desks.iter().find(|desk| desk.terms.name == name);
        found.into_iter().for_each(|desk| desk.is_verified(at_unix));
    }

    /// A restore from the sink of this name was tried, and nothing was wrong but that these channels were not tried.
    pub fn partly_verified(&self, name: &str, untried: &[ChannelId]) {
        let found = self.desks.iter().find(|desk| desk.terms.name == name);
        found.into_iter().for_each(|desk| desk.is_partly_verified(untried));
    }

    /// Why no restore is tried from the sink of this name, or not of all channels; nothing where one is.
    pub fn unverified(&self, name: &str, reason: Option<String>) {
        let found = self.desks.iter().find(|desk| desk.terms.name == name);
        found.into_iter().for_each(|desk| desk.is_unverified(reason.clone()));
    }

    /// Whether the sink of this name was given a record of the tip since the start.
    pub fn has_tip(&self, name: &str) -> bool {
        let found = self.desks.iter().find(|desk| desk.terms.name == name);
        found.is_some_and(|desk| desk.with(|lanes| lanes.has_given_tip()))
    }

    /// Up to which id the sink of this name has all of a channel; nothing where it is not to have it.
    pub fn complete_in(&self, name: &str, channel: &ChannelId) -> Option<u64> {
        self.desks.iter().find(|desk| desk.terms.name == name)?.complete(channel)
    }

    /// A restore from the sink of this name was tried and was not right. Says whether that is news.
    pub fn not_verified(&self, name: &str, reason: &str) -> bool {
        let found = self.desks.iter().find(|desk| desk.terms.name == name);
        found.is_some_and(|desk| desk.is_not_verified(reason))
    }

    /// Whether the promises of a channel have waited so long that it takes no new HTLCs.
    pub fn is_stalled(&self, channel: &ChannelId) -> bool {
        self.has_required && self.stalled.read().contains(channel)
    }

    /// How many channels are stalled.
    pub fn stalled_channels(&self) -> usize {
        self.stalled.read().len()
    }

    /// Looks which channels are stalled now; gives those for which that has changed. To be called every second or so.
    pub fn look_for_stalls(&self) -> Vec<ChannelId> {
        let now: HashSet<_> = self.gate.lock().stalled((self.clocks.now)()).collect();
        let mut stalled = self.stalled.write();
        let changed = now.symmetric_difference(&stalled).copied().collect();
        *stalled = now;
        changed
    }
}
