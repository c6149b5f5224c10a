//! Channels whose required backups are late, or will never have them.

use bitcoin::Transaction;
use outrigger_bolt::id::ChannelId;
use outrigger_channel::{Command, Effect, Input, Phase, Publication};

use super::drive::{Drive, NOBODY};
use super::peer::{Peer, Slot};
use super::restored::waits_for_peer;
use super::{Mail, Manager};
use crate::store::backup::Unstored;
use crate::store::row::{BroadcastRow, OperationRow, OperationState};
use crate::store::schema::{REFUSALS_KEY, Table, UnderWay};
use crate::store::{Address, Batch, ChainOrder, Held};

/// What an operator is told of a channel that a required backup refused, and can do.
pub(super) fn refused(slot: &Slot) -> Option<String> {
    let Phase::Failed { publish: false, reserved, spend: None, .. } = slot.channel.phase() else { return None };
    if !reserved {
        let replaced = "a required backup refused the channel and lacks its newest commitment, so that is not published. Replace that \
            backup and start again: once every required backup has it, or none is left to ask, channel.force_close publishes it. Until then";
        return waits_for_peer(slot).map(|words| format!("{replaced} {words}"));
    }
    let kept = "the newest commitment that every required backup has is kept: it is published at the first deadline of an HTLC, or now \
        by channel.force_close";
    Some(kept.to_owned())
}

impl Manager {
    /// A channel's promises have waited long for a backup, or do so no more: it takes no new HTLCs meanwhile.
    pub fn set_stalled(&self, channel: &ChannelId, is_stalled: bool) {
        if let Some(registered) = self.deliver.registered(channel) {
            self.post(&registered.peer, Mail::Stalled { channel: *channel, is_stalled });
        }
    }

    /// A required backup will never have this channel: it is failed, and nothing of it published but what every required backup has.
    /// The refusal is remembered first: a crash between the two costs no second channel.
    pub fn fail_unstored(&self, unstored: Unstored) {
        let mut batch = Batch::default();
        batch.put(Table::Meta, REFUSALS_KEY.to_vec(), unstored.refusals.encode());
        self.env.writer.submit(batch);
        if let Some(registered) = self.deliver.registered(&unstored.channel) {
            self.post(&registered.peer, Mail::Unstored(Box::new(unstored)));
        }
    }

    /// It is known by now that every required backup has the local commitment of this number, of a channel that failed for want of
    /// one: it is kept, to be published at the first deadline of an HTLC or by order.
    pub fn keep(&self, channel: ChannelId, number: u64) {
        if let Some(registered) = self.deliver.registered(&channel) {
            self.post(&registered.peer, Mail::Order { channel, id: NOBODY, command: kept(number) });
        }
    }

    /// Openings that the start found whose funding transactions had not left.
    pub(crate) fn load_unsent(&self, openings: Vec<OperationRow>) {
        for operation in openings {
            let OperationState::Pending { channel_id, .. } = operation.state else { continue };
            let Some(registered) = self.deliver.registered(&channel_id) else { continue };
            self.directory.with(&registered.peer, |peer| {
                if let Some(slot) = peer.slots.get_mut(&channel_id) {
                    slot.unsent = Some(operation);
                }
            });
        }
    }
}

/// Funding transactions that are in the file and may not have left: they have waited for a backup, or the file may be
/// old.
impl Manager {
    /// Whether the start publishes at once what this row says. Where there are backups the funding transaction of a channel that
    /// waits for it does so until they have the channel: [`resume`](Self::resume) orders it again, and that of no other.
    pub fn publishes_at_start(&self, row: &BroadcastRow, has_backups: bool) -> bool {
        let is_frozen = self.env.frozen.contains(&row.channel);
        match row.what {
            Publication::MutualClose => !is_frozen,
            Publication::Funding => {
                let may_leave = !is_frozen && !self.is_withheld(&row.channel) && !self.is_unsent(&row.channel);
                may_leave && !(has_backups && self.is_awaited(&row.channel))
            }
        }
    }

    /// Whether nobody but its channel may have this transaction published, also where a reorganisation has taken others
    /// from the chain: while the channel waits for it, it is out if it may be.
    pub fn keeps_to_itself(&self, row: &BroadcastRow) -> bool {
        match row.what {
            Publication::MutualClose => false,
            Publication::Funding => {
                self.env.frozen.contains(&row.channel)
                    || self.is_withheld(&row.channel)
                    || self.is_awaited(&row.channel)
                    || self.is_unsent(&row.channel)
            }
        }
    }

    /// Whether nothing is published for the channel any more: its rows are old, or a backup will never have any that may be. A
    /// commitment that is kept in reserve spends the funding output one day.
    fn is_withheld(&self, channel: &ChannelId) -> bool {
        self.env.is_restored()
            || matches!(self.phase(channel), Some(Phase::Failed { publish: false, reserved: false, .. }))
    }

    /// Whether the channel waits for its funding transaction.
    fn is_awaited(&self, channel: &ChannelId) -> bool {
        matches!(self.phase(channel), Some(Phase::Funding(_)))
    }

    /// Whether its funding transaction has not left yet: that it may is a row first.
    fn is_unsent(&self, channel: &ChannelId) -> bool {
        let Some(registered) = self.deliver.registered(channel) else { return false };
        let is_unsent = |peer: &mut Peer| peer.slots.get(channel).is_some_and(|slot| slot.unsent.is_some());
        self.directory.with(&registered.peer, is_unsent).unwrap_or_default()
    }

    fn phase(&self, channel: &ChannelId) -> Option<Phase> {
        let registered = self.deliver.registered(channel)?;
        let phase = |peer: &mut Peer| peer.slots.get(channel).map(|slot| slot.channel.phase().clone());
        self.directory.with(&registered.peer, phase)?
    }
}

/// The order to keep a commitment, for a channel that has failed.
fn kept(number: u64) -> Command {
    Command::Withhold { reason: String::new(), is_new: false, complete: Some(number) }
}

impl Drive<'_> {
    /// Channels that failed for want of a backup, where none is required any more: what every required backup has is what there is.
    pub(super) fn keep_withheld(&mut self, peer: &mut Peer) {
        if self.env.waits_for_sinks || self.env.is_restored() {
            return;
        }
        let withheld = peer.slots.iter().filter(|(_, slot)| slot.channel.phase().is_withheld());
        let withheld: Vec<_> = withheld.map(|(id, slot)| (*id, slot.channel.rows().head.local_number)).collect();
        for (channel, number) in withheld {
            self.step_channel(peer, channel, Input::Command(NOBODY, kept(number)));
        }
    }

    /// A required backup will never have the channel. One of which nothing has left never was: the coins of its funding transaction
    /// are free again, and the call that asked for it is answered.
    pub(super) fn unstored(&mut self, peer: &mut Peer, unstored: Unstored) {
        let Unstored { channel, reason, is_new, complete, refusals: _ } = unstored;
        let Some(slot) = peer.slots.get_mut(&channel) else { return };
        // Of one that has failed the mark alone proves it: what a backup was given first says nothing of what came before.
        let is_new = slot.unsent.is_some() || (is_new && matches!(slot.channel.phase(), Phase::Funding(_)));
        let command = Command::Withhold { reason: reason.clone(), is_new, complete };
        self.step_channel(peer, channel, Input::Command(NOBODY, command));
        // The step may not have been taken: the node stops, or its file is old.
        let Some(slot) = peer.slots.get_mut(&channel).filter(|slot| is_new && slot.archived.is_some()) else { return };
        let params = &slot.channel.rows().params;
        if !params.is_opener {
            return;
        }
        self.batch.hold(Held::Chain(ChainOrder::Release(params.funding.txid)));
        if let Some(operation) = slot.unsent.take() {
            self.operation_failed(operation, &format!("{reason}; nothing was spent"));
        }
    }

    /// A channel that failed while its funding transaction waited for backups: it waits on, and leaves once they have the channel. The
    /// commitment that is published is worth nothing without it.
    pub(super) fn resume_unsent(&mut self, at: Address, slot: &Slot) {
        if slot.unsent.is_none() || !matches!(slot.channel.phase(), Phase::Failed { publish: true, .. }) {
            return;
        }
        let rows = match self.env.reader.broadcasts() {
            Ok(rows) => rows,
            Err(fault) => return tracing::error!(%fault, "what the channel publishes cannot be read"),
        };
        let what = Publication::Funding;
        for row in rows.into_iter().filter(|row| row.channel == at.channel && row.what == what) {
            self.batch.hold_effect(at, Effect::Publish { what, tx: row.tx });
        }
    }

    /// Every required backup has the channel: its funding transaction leaves, once it is in a row that it may.
    pub(super) fn fund_publicly(&mut self, peer: &mut Peer, channel: ChannelId, tx: Transaction) {
        let Some(slot) = peer.slots.get_mut(&channel) else { return };
        let has_ended = matches!(slot.channel.phase(), Phase::Failed { publish: false, .. } | Phase::Closed { .. });
        if has_ended || self.env.is_restored() {
            return;
        }
        if let Some(operation) = slot.unsent.take() {
            self.batch.end(&UnderWay::Opening(operation.idempotency_key));
        }
        self.batch.hold(Held::Chain(ChainOrder::Publish(tx)));
    }

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
