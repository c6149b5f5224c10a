//! Channels that fail before every required backup has told what it holds. One of them may prove that the file is an old copy, and
//! then our newest commitment may be revoked: whoever publishes it forfeits the channel. So it waits for their word, and for no
//! write of theirs: a backup that is late with what it is given keeps nothing from the chain.

use std::collections::BTreeSet;

use outrigger_bolt::id::ChannelId;
use outrigger_channel::Phase;

use super::drive::Drive;
use super::peer::{Peer, Slot};
use super::{Mail, Manager};
use crate::lock::Mutex;
use crate::store::Address;
use crate::store::schema::UnderWay;

/// What the word of required backups is waited for with.
#[derive(Debug, Default)]
pub(super) struct Hearing(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// A required backup has not told yet, since this start, what it holds.
    is_open: bool,
    channels: BTreeSet<ChannelId>,
}

impl Hearing {
    /// `is_open`: there is a required backup, and nothing was heard of it.
    pub(super) fn new(is_open: bool) -> Self {
        Self(Mutex::new(Waiting { is_open, channels: BTreeSet::new() }))
    }

    fn is_open(&self) -> bool {
        self.0.lock().is_open
    }

    /// Whether a channel that fails now waits; it is known from here on.
    fn keeps(&self, channel: ChannelId) -> bool {
        let mut waiting = self.0.lock();
        if waiting.is_open {
            waiting.channels.insert(channel);
        }
        waiting.is_open
    }

    fn load(&self, channel: ChannelId) {
        self.0.lock().channels.insert(channel);
    }

    fn forget(&self, channel: &ChannelId) {
        self.0.lock().channels.remove(channel);
    }

    /// Every required backup has told. Gives the channels that waited.
    fn close(&self) -> BTreeSet<ChannelId> {
        let mut waiting = self.0.lock();
        waiting.is_open = false;
        std::mem::take(&mut waiting.channels)
    }

    /// How many channels wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().channels.len()
    }
}

impl Manager {
    /// Every required backup has told since this start what it holds, and none that the file is old: what failed before is published.
    /// In restored mode nothing is.
    pub fn heard(&self) {
        if self.env.is_restored() {
            return;
        }
        for channel in self.env.hearing.close() {
            if let Some(registered) = self.deliver.registered(&channel) {
                self.post(&registered.peer, Mail::Heard { channel });
            }
        }
    }

    /// Channels that failed before a required backup had told what it holds, in this run or before.
    pub(crate) fn load_unheard(&self, channels: Vec<ChannelId>) {
        for channel in channels {
            let Some(registered) = self.deliver.registered(&channel) else { continue };
            self.directory.with(&registered.peer, |peer| {
                if let Some(slot) = peer.slots.get_mut(&channel) {
                    slot.is_unheard = true;
                    self.env.hearing.load(channel);
                }
            });
        }
    }

    /// How many channels are not published because a required backup has not told yet what it holds.
    pub fn unheard_channels(&self) -> usize {
        self.env.hearing.waiting()
    }
}

impl Drive<'_> {
    /// A channel has just failed. Where a required backup has not told what it holds, that is a row of the same commit: a start
    /// cannot tell otherwise which failures came of a time at which the file was known to be the newest.
    pub(super) fn has_failed(&mut self, at: Address, slot: &mut Slot) {
        if slot.monitor.rows().head.may_publish && self.env.hearing.keeps(at.channel) {
            tracing::warn!(channel = %at.channel, "its commitment is not published before every required backup has told what it holds");
            slot.is_unheard = true;
            self.batch.begin(&UnderWay::Unheard(at.channel));
        }
    }

    /// Every required backup has told what it holds.
    pub(super) fn heard(&mut self, peer: &mut Peer, channel: &ChannelId) {
        let Some(slot) = peer.slots.get_mut(channel).filter(|slot| slot.is_unheard) else { return };
        self.is_heard(slot);
        if slot.monitor.rows().head.failed && slot.archived.is_none() {
            tracing::info!(%channel, "every required backup has told what it holds: what the failed channel waited with is published");
            self.enforce(slot);
        }
    }

    /// Where no required backup is left to be heard: the operator has taken out of the configuration what was waited for.
    pub(super) fn hear_nobody(&mut self, peer: &mut Peer) {
        if !self.env.hearing.is_open() {
            peer.slots.values_mut().for_each(|slot| self.is_heard(slot));
        }
    }

    /// The channel waits no more for what backups hold.
    pub(super) fn is_heard(&mut self, slot: &mut Slot) {
        if std::mem::take(&mut slot.is_unheard) {
            let channel = slot.channel.id();
            self.env.hearing.forget(&channel);
            self.batch.end(&UnderWay::Unheard(channel));
        }
    }
}

/// What an operator is told of a channel whose commitment waits for the word of a backup, and can do.
pub(super) fn waits(slot: &Slot) -> Option<String> {
    let waits = slot.is_unheard && matches!(slot.channel.phase(), Phase::Failed { publish: true, spend: None, .. });
    waits.then(|| {
        format!(
            "our commitment is not published yet: a required backup has not told since this start what it holds (backup.status says \
             which), and might prove that {} is an old copy, of which publishing anything may forfeit the channel. It is published once \
             every required backup has told. Mend that backup, or mount its disk; or take it out of the configuration and start again, \
             by which you take that risk. What is ours in the chain already is claimed meanwhile",
            crate::store::FILE
        )
    })
}
