//! Decided outcomes of received HTLCs, on their way into the channel: none < failed < fulfilled. The row is in the writer's queue
//! before the channel hears of it, so it is durable before anything that the channel says of it, and it is told again until the
//! removal is irrevocable (FWD-9).

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::onion::{self, Failure, OnionPacket, failure};
use outrigger_channel::{Effect, FailReason, HtlcKey, HtlcOutcome, HtlcSource, Input};

use super::drive::{Drive, NOBODY};
use super::peer::{Peer, Slot};
use super::relay::register::HtlcName;
use crate::store::forward::ForwardRow;
use crate::store::row::{Downstream, SettlementRow};
use crate::store::schema::{Table, numbered_key};
use crate::store::{Address, Batch};

impl Drive<'_> {
    /// A received HTLC was decided, here or by what became of it downstream; the row is queued.
    pub(super) fn settled(&mut self, peer: &mut Peer, channel: ChannelId, htlc_id: u64, settlement: SettlementRow) {
        let at = Address { peer: peer.node_id, connection: peer.connection(), channel };
        self.env.relay.release(&HtlcName { channel, htlc_id });
        // The row of a channel that is no more goes at the next start.
        let Some(slot) = peer.slots.get_mut(&channel) else { return };
        if slot.archived.is_some() || !slot.channel.rows().htlcs.contains_key(&HtlcKey::received(htlc_id)) {
            // Nothing is left to settle, and no removal will come that takes the row away.
            return forget(&mut self.batch, &channel, htlc_id);
        }
        if let Some(known) = slot.settlements.get(&htlc_id)
            && known.is_fulfilled()
            && !settlement.is_fulfilled()
        {
            // What was fulfilled stays so; the row of the failure stands over it.
            return self.batch.put(Table::Settlement, numbered_key(&channel, htlc_id), Some(known.encode()));
        }
        let settlement = self.wrapped(slot, htlc_id, settlement);
        let command = settlement.command(htlc_id);
        slot.settlements.insert(htlc_id, settlement);
        self.step_slot(at, slot, Input::Command(NOBODY, command));
    }

    /// What was decided is told again after every reestablish, until its removal is irrevocable.
    pub(super) fn repeat_settlements(&mut self, at: Address, slot: &mut Slot) {
        let told = slot.settlements.iter().filter(|(_, settlement)| !settlement.is_raw());
        let commands: Vec<_> = told.map(|(id, settlement)| settlement.command(*id)).collect();
        for command in commands {
            self.step_slot(at, slot, Input::Command(NOBODY, command));
        }
    }

    /// The decisions that a start found, without those whose HTLC is gone, which a step downstream may have told again after its
    /// removal.
    pub(super) fn load_settlements(&mut self, slot: &mut Slot) {
        let channel = slot.channel.id();
        for (htlc_id, settlement) in std::mem::take(&mut slot.settlements) {
            if slot.channel.rows().htlcs.contains_key(&HtlcKey::received(htlc_id)) {
                slot.settlements.insert(htlc_id, settlement);
            } else {
                forget(&mut self.batch, &channel, htlc_id);
            }
        }
    }

    /// Failures from downstream are told anew after a start, under the name of the channel that told them: as before it, they wait for
    /// what must have that channel.
    pub(super) fn resume_failures(&mut self, at: Address, slot: &Slot) {
        for (htlc_id, settlement) in &slot.settlements {
            let SettlementRow::FailedDownstream(reason, offered) = settlement else { continue };
            let received = slot.channel.rows().htlcs.get(&HtlcKey::received(*htlc_id));
            let Some(payment_hash) = received.map(|row| row.payment_hash) else { continue };
            let peer = self.deliver.registered(&offered.channel).map_or(at.peer, |registered| registered.peer);
            let outcome = reason.clone().map_or(HtlcOutcome::NoOutput, HtlcOutcome::Failed);
            let source = HtlcSource::Relayed { channel: at.channel, htlc_id: *htlc_id };
            let told =
                Effect::Settle { htlc_id: offered.htlc_id, source, amount: offered.amount, payment_hash, outcome };
            self.batch.hold_effect(Address { peer, connection: 0, channel: offered.channel }, told);
        }
    }

    /// The decision as the channel is to carry it out: a failure that came from downstream is wrapped once more (BOLT 4,
    /// "Returning Errors"), one of an onion that was malformed for the next peer is told to the origin (BOLT 2,
    /// `update_fail_malformed_htlc`), and one with the channel is ours.
    fn wrapped(&self, slot: &Slot, htlc_id: u64, settlement: SettlementRow) -> SettlementRow {
        let SettlementRow::FailedDownstream(reason, offered) = settlement else { return settlement };
        let onion = slot.channel.rows().onions.get(&HtlcKey::received(htlc_id));
        let packet = onion.map(|onion| OnionPacket::from_bytes(onion));
        let secret = packet.and_then(|packet| onion::shared_secret(|point| self.env.keys.ecdh(point), &packet).ok());
        let Some(secret) = secret else {
            // Without its onion the HTLC is on its way out already.
            return SettlementRow::FailedDownstream(reason, offered);
        };
        SettlementRow::Fail(FailReason::Encrypted(match reason {
            // One of no length was none, or too long to be kept: the origin is told of the channel that brought it.
            Some(FailReason::Encrypted(reason)) if reason.is_empty() => {
                failure::create(&secret, &Failure::PermanentChannelFailure)
            }
            Some(FailReason::Encrypted(reason)) => failure::wrap(&secret, reason),
            Some(FailReason::Malformed { sha256_of_onion, failure_code }) => {
                failure::create(&secret, &Failure::from_malformed(failure_code, sha256_of_onion))
            }
            None => failure::create(&secret, &Failure::PermanentChannelFailure),
        }))
    }
}

/// The forwards that a step completes, to be asked before the channel takes it in: the fee of what was claimed downstream is
/// ours once the removal of what was received is irrevocable, which a channel tells once.
pub(super) fn completed_forwards(slot: &Slot, effects: &[Effect], settled_at: u64) -> Vec<ForwardRow> {
    let completed = |effect: &Effect| {
        let Effect::Removed { htlc_id } = *effect else { return None };
        let SettlementRow::FulfilledDownstream(_, outgoing) = slot.settlements.get(&htlc_id)? else { return None };
        let amount = slot.channel.rows().htlcs.get(&HtlcKey::received(htlc_id))?.amount;
        let incoming = Downstream { channel: slot.channel.id(), htlc_id, amount };
        Some(ForwardRow { incoming, outgoing: *outgoing, settled_at })
    };
    effects.iter().filter_map(completed).collect()
}

/// Takes the row of a decision away.
pub(super) fn forget(batch: &mut Batch, channel: &ChannelId, htlc_id: u64) {
    batch.put(Table::Settlement, numbered_key(channel, htlc_id), None);
}

/// A failure downstream of an HTLC whose preimage is known after all is none: it is claimed upstream (FWD-1). An outcome is
/// told by the HTLC's id, a preimage by its hash. What it carried came back, so the claim costs nothing downstream. To be
/// asked before the monitor takes the step in, with which it may forget the preimage.
pub(super) fn prefer_preimage(slot: &Slot, effect: &mut Effect) {
    if let Effect::Settle { source: HtlcSource::Relayed { .. }, payment_hash, outcome, amount, .. } = effect
        && matches!(outcome, HtlcOutcome::Failed(_))
        && let Some(preimage) = slot.monitor.rows().preimages.get(payment_hash)
    {
        *outcome = HtlcOutcome::Fulfilled(*preimage);
        *amount = Msat::ZERO;
    }
}
