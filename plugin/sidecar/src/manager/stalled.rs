//! Channels whose required backups are late, or will never have them.

use outrigger_bolt::id::ChannelId;
use outrigger_channel::{Command, Phase, Publication};

use super::drive::{Drive, NOBODY};
use super::peer::Peer;
use super::{Mail, Manager};
use crate::store::row::BroadcastRow;
use crate::store::{Batch, ChainOrder, Held};

impl Manager {
    /// A channel's promises have waited long for a backup, or do so no more: it takes no new HTLCs meanwhile.
    pub fn set_stalled(&self, channel: &ChannelId, is_stalled: bool) {
        if let Some(registered) = self.deliver.registered(channel) {
            self.post(&registered.peer, Mail::Stalled { channel: *channel, is_stalled });
        }
    }

    /// A required backup will never have this channel: it is failed, and nothing of it published. One that is new was told to nobody,
    /// and its coins are free again.
    pub fn fail_unstored(&self, channel: &ChannelId, reason: String, is_new: bool) {
        let Some(registered) = self.deliver.registered(channel) else { return };
        let opened = |peer: &mut Peer| {
            let slot = peer.slots.get(channel)?;
            let params = &slot.channel.rows().params;
            let is_ours = is_new && params.is_opener && matches!(slot.channel.phase(), Phase::Funding(_));
            is_ours.then_some(params.funding.txid)
        };
        let opened = self.directory.with(&registered.peer, opened).flatten();
        let command = Command::Withhold { reason, is_new };
        self.post(&registered.peer, Mail::Order { channel: *channel, id: NOBODY, command });
        if let Some(txid) = opened {
            let mut batch = Batch::default();
            batch.hold(Held::Chain(ChainOrder::Release(txid)));
            self.env.writer.submit(batch);
        }
    }
}

/// Funding transactions that are in the file and may not have left: they have waited for a backup, or the file may be
/// old.
impl Manager {
    /// Whether the start publishes at once what this row says. Where there are backups a funding transaction waits
    /// until they have its channel: [`resume`](Self::resume) orders it again.
    pub fn publishes_at_start(&self, row: &BroadcastRow, has_backups: bool) -> bool {
        let is_frozen = self.env.frozen.contains(&row.channel);
        match row.what {
            Publication::MutualClose => !is_frozen,
            Publication::Funding => !is_frozen && !has_backups && !self.is_withheld(&row.channel),
        }
    }

    /// Whether nobody but its channel may have this transaction published, also where a reorganisation has taken others
    /// from the chain: while the channel waits for it, it is out if it may be.
    pub fn keeps_to_itself(&self, row: &BroadcastRow) -> bool {
        let is_awaited = || matches!(self.phase(&row.channel), Some(Phase::Funding(_)));
        match row.what {
            Publication::MutualClose => false,
            Publication::Funding => {
                self.env.frozen.contains(&row.channel) || self.is_withheld(&row.channel) || is_awaited()
            }
        }
    }

    /// Whether nothing is published for the channel any more: its rows are old, or a backup will never have the newest.
    fn is_withheld(&self, channel: &ChannelId) -> bool {
        self.env.is_restored() || matches!(self.phase(channel), Some(Phase::Failed { publish: false, .. }))
    }

    fn phase(&self, channel: &ChannelId) -> Option<Phase> {
        let registered = self.deliver.registered(channel)?;
        let phase = |peer: &mut Peer| peer.slots.get(channel).map(|slot| slot.channel.phase().clone());
        self.directory.with(&registered.peer, phase)?
    }
}

impl Drive<'_> {
    pub(super) fn stalled(&mut self, peer: &mut Peer, channel: ChannelId, is_stalled: bool) {
        let Some(slot) = peer.slots.get_mut(&channel) else { return };
        slot.is_stalled = is_stalled;
        if is_stalled {
            tracing::warn!(%channel, "a required backup is late with the channel: it takes no new HTLCs");
        } else {
            tracing::info!(%channel, "the backups have the channel: it goes on");
        }
        self.rank(peer, &channel);
    }
}
