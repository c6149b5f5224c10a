//! Channels in the making: the peer's wishes checked against the operator's policy, ours carried through to funding.

use bitcoin::Transaction;
use outrigger_bolt::id::{ChannelId, ShortChannelId};
use outrigger_bolt::wire::{Error, Message, OpenChannel, Warning};
use outrigger_channel::{Birth, Guard, Monitor, Opening, OpeningInput, OpeningStep, Signer};
use std::sync::Arc;
use std::time::Instant;

use super::drive::{Drive, RESTORED};
use super::mail::OpenOrder;
use super::operations;
use super::peer::{Leaving, OpenerOrder, OpeningSlot, Peer, Slot, stands};
use super::pending::OPENING_TIMEOUT;
use super::registered::Registered;
use crate::clock::{Clock, NoEntropy};
use crate::store::row::OperationRow;
use crate::store::schema::UnderWay;
use crate::store::{Address, ChainOrder, FundingRequest, Held, Step};

/// Why an opening is refused that bears the name of a channel, or of another opening, with the same peer.
const IN_USE: &str = "this temporary_channel_id is in use";

impl Drive<'_> {
    /// The peer wants to open a channel.
    pub(super) fn accept(&mut self, peer: &mut Peer, open: &OpenChannel) {
        let at = opening_address(peer, open.temporary_channel_id);
        if self.is_taken(peer, &at.channel) {
            tracing::info!(peer = %peer.node_id, channel = %at.channel, "refused a channel: {IN_USE}");
            return self.send(at, Message::Warning(Warning { channel_id: at.channel, data: IN_USE.into() }));
        }
        if let Some(reason) = self.refusal(peer, open) {
            tracing::info!(peer = %peer.node_id, reason, "refused a channel");
            return self.send_error(at, reason);
        }
        let (Ok((signer, keys_index)), Ok(scid_alias)) = (self.fresh_keys(), fresh_alias()) else {
            return self.send_error(at, "internal error: no randomness");
        };
        let script = self.env.shutdown_script();
        let features = peer.features().cloned().unwrap_or_default();
        let own = (keys_index, scid_alias);
        match Opening::accept(open, peer.node_id, own, &features, &self.env.context(&*signer, &script)) {
            Ok((opening, answer)) => {
                peer.openings.insert(
                    open.temporary_channel_id,
                    OpeningSlot { opening, signer, order: None, begun: Clock::monotonic() },
                );
                self.send(at, answer);
            }
            Err(violation) => {
                tracing::info!(peer = %peer.node_id, reason = %violation, "refused a channel");
                self.send_error(at, &violation.to_string());
            }
        }
    }

    /// What only the node knows; the channel's own terms are `Opening::accept`'s to judge.
    fn refusal(&self, peer: &mut Peer, open: &OpenChannel) -> Option<&'static str> {
        if !self.env.chain.is_synced() {
            Some("this node is still syncing with the chain; try again later")
        } else if self.env.is_restored() {
            Some("this node has lost data and opens no channels")
        } else if self.env.room.is_low() {
            Some("this node cannot keep another channel now; try again later")
        } else if open.chain_hash != self.env.policy.chain_hash {
            Some("this node is on another chain")
        } else if !self.env.chain.is_accepting() {
            Some("this node keeps too few coins for another channel now; try again later")
        } else if !self.env.pending.has_room(peer.pending()) {
            Some("too many pending channels; wait until one is confirmed")
        } else if open.temporary_channel_id == ChannelId([0; 32]) {
            Some("a temporary_channel_id of zeros would name every channel")
        } else if !self.admits(peer) {
            Some("too many pending channels with other peers; try again later")
        } else {
            None
        }
    }

    /// Whether a channel or an opening with the peer has this name. It is told so in a `warning`: an `error` would speak of that
    /// channel, of which nobody has complained (BOLT 1).
    fn is_taken(&self, peer: &Peer, name: &ChannelId) -> bool {
        peer.openings.contains_key(name)
            || peer.leaving.contains_key(name)
            || peer.slots.contains_key(name)
            || self.env.frozen.contains(name)
    }

    fn admits(&self, peer: &mut Peer) -> bool {
        let admitted = !peer.is_stranger() || self.env.pending.admit(peer.node_id);
        peer.is_tallied |= admitted;
        admitted
    }

    /// The register of channels in the making learns how the visit left the peer. For a peer without any it costs
    /// nothing.
    pub(super) fn tally(&self, peer: &mut Peer) {
        let is_opening = !peer.openings.is_empty();
        if !is_opening && !peer.is_tallied {
            return;
        }
        let is_pending_stranger = peer.is_stranger() && peer.pending() > 0;
        self.env.pending.note(peer.node_id, is_pending_stranger, is_opening);
        peer.is_tallied = is_opening || is_pending_stranger;
    }

    /// Ends the openings that take too long.
    pub(super) fn expire_openings(&mut self, peer: &mut Peer, now: Instant) {
        let is_late = |slot: &OpeningSlot| now.saturating_duration_since(slot.begun) >= OPENING_TIMEOUT;
        let late: Vec<_> = peer.openings.iter().filter(|(_, slot)| is_late(slot)).map(|(id, _)| *id).collect();
        for channel in late {
            let reason = "the channel was not signed in time: the other side did not answer; open again";
            self.step_opening(peer, channel, OpeningInput::Abandon(reason));
        }
    }

    /// An operator wants to open a channel to the peer.
    pub(super) fn open(&mut self, peer: &mut Peer, order: OpenOrder) {
        if peer.live.is_none() {
            return self.operation_failed(order.operation, "the peer is not connected; peer.connect first");
        }
        if !self.env.chain.is_synced() {
            return self.operation_failed(order.operation, "the chain is not synced yet; see node.status");
        }
        if self.env.is_restored() {
            return self.operation_failed(order.operation, RESTORED);
        }
        if self.env.room.is_low() {
            let words = "the disk of the data directory has too little room for another channel; see node.status";
            return self.operation_failed(order.operation, words);
        }
        let (Ok((signer, keys_index)), Ok(temporary), Ok(scid_alias)) =
            (self.fresh_keys(), Clock::random_bytes(), fresh_alias())
        else {
            return self.operation_failed(order.operation, "the operating system gives no randomness");
        };
        let temporary_channel_id = ChannelId(temporary);
        let script = self.env.shutdown_script();
        let cx = self.env.context(&*signer, &script);
        let wish = outrigger_channel::OpenOrder {
            peer: peer.node_id,
            keys_index,
            features: peer.features().cloned().unwrap_or_default(),
            temporary_channel_id,
            funding: order.funding,
            push: order.push,
            announce: order.announce,
            commitment_feerate: cx.feerates.commitment,
            shutdown_script: None,
            scid_alias,
        };
        match Opening::open(wish, &cx) {
            Ok((opening, message)) => {
                let order = OpenerOrder {
                    operation: order.operation,
                    funding_feerate: order.funding_feerate,
                    awaits_wallet: false,
                    reserved: None,
                };
                let slot = OpeningSlot { opening, signer, order: Some(order), begun: Clock::monotonic() };
                peer.openings.insert(temporary_channel_id, slot);
                self.send(opening_address(peer, temporary_channel_id), message);
            }
            Err(refusal) => self.operation_failed(order.operation, &refusal.to_string()),
        }
    }

    /// The wallet's answer to a funding request.
    pub(super) fn funded(
        &mut self,
        peer: &mut Peer,
        channel: ChannelId,
        funding: Result<Box<(Transaction, u32)>, String>,
    ) {
        let leaving = peer.leaving.remove(&channel);
        let waits = |slot: &&mut OpeningSlot| slot.order.as_ref().is_some_and(|order| order.awaits_wallet);
        let slot = peer.openings.get_mut(&channel).filter(waits).filter(|_| leaving.is_none());
        let Some(slot) = slot else {
            // The opening ended while the wallet worked, whoever has its name by now.
            if let Ok(funding) = funding {
                self.batch.hold(Held::Chain(ChainOrder::Release(funding.0.compute_txid())));
            }
            if let Some(Leaving { operation, reason }) = leaving {
                self.operation_failed(operation, &reason);
            }
            return;
        };
        slot.order.iter_mut().for_each(|order| order.awaits_wallet = false);
        match funding {
            Ok(funding) => {
                let (tx, output_index) = *funding;
                if let Some(order) = &mut slot.order {
                    order.reserved = Some(tx.compute_txid());
                }
                self.step_opening(peer, channel, OpeningInput::Funding { tx, output_index });
            }
            Err(reason) => {
                self.send_error(opening_address(peer, channel), "the opener could not fund the channel");
                self.gone(peer, channel, &reason);
            }
        }
    }

    /// Steps an opening and carries out what it asks for.
    pub(super) fn step_opening(&mut self, peer: &mut Peer, channel: ChannelId, input: OpeningInput<'_>) {
        let at = opening_address(peer, channel);
        let Some(slot) = peer.openings.get_mut(&channel) else { return };
        let step = slot.opening.step(input, &self.env.context(&*slot.signer, &self.env.shutdown_script()));
        match step {
            OpeningStep::Wait(effects) => self.hold_all(at, effects),
            OpeningStep::Fund { script_pubkey, amount } => {
                slot.order.iter_mut().for_each(|order| order.awaits_wallet = true);
                let feerate = slot.order.as_ref().and_then(|order| order.funding_feerate);
                let request = FundingRequest { peer: at.peer, channel, script_pubkey, amount, feerate };
                self.batch.hold(Held::Chain(ChainOrder::Fund(request)));
            }
            OpeningStep::Renamed(id, effects) => {
                if let Some(slot) = peer.openings.remove(&channel) {
                    peer.openings.insert(id, slot);
                }
                self.hold_all(at, effects);
            }
            OpeningStep::Born(birth) => self.born(peer, channel, *birth),
            OpeningStep::Gone { effects, reason } => {
                self.hold_all(at, effects);
                self.gone(peer, channel, &reason);
            }
        }
    }

    /// Ends every opening with the peer.
    pub(super) fn abandon_openings(&mut self, peer: &mut Peer, reason: &str) {
        for channel in peer.openings.keys().copied().collect::<Vec<_>>() {
            self.gone(peer, channel, reason);
        }
    }

    /// The channel has its first commitments: from here on it has rows, and the call that asked for it is answered in
    /// the same transaction.
    fn born(&mut self, peer: &mut Peer, opening: ChannelId, birth: Birth) {
        let (monitor, monitor_changes) = match Monitor::new(&birth.monitor) {
            Ok(monitor) => monitor,
            Err(refused) => {
                tracing::error!(channel = %birth.channel_id, %refused, "a new channel has no monitor");
                self.refuse_birth(peer, opening, "internal error");
                return self.gone(peer, opening, "a new channel has no monitor");
            }
        };
        let Some(slot) = peer.openings.get(&opening) else { return };
        let registered = Registered::new(peer.node_id, slot.signer.clone());
        let is_named = opening != birth.channel_id && peer.openings.contains_key(&birth.channel_id);
        let is_taken = is_named
            || self.env.frozen.contains(&birth.channel_id)
            || self.in_history(&birth.channel_id).is_some()
            || !self.deliver.register(birth.channel_id, registered);
        if is_taken {
            // Bad input 35: a funding output serves one channel, and a name one channel or opening.
            let reason = "this funding output belongs to another channel";
            self.refuse_birth(peer, opening, reason);
            return self.gone(peer, opening, reason);
        }
        let Some(OpeningSlot { signer, order, .. }) = peer.openings.remove(&opening) else { return };
        let funding_txid = birth.channel.rows().params.funding.txid;
        let operation = order.map(|order| order.operation.pending(birth.channel_id, funding_txid));
        if let Some(row) = &operation {
            operations::put_end(&mut self.batch, row);
        }
        // Where backups are waited for its end is not known yet: not before the funding transaction may leave.
        let op_id = operation.as_ref().map(|row| row.op_id);
        let unsent = operation.filter(|_| self.env.waits_for_sinks);
        if let Some(row) = &unsent {
            self.batch.begin(&UnderWay::Opening(row.idempotency_key.clone()));
        }
        if let Some(script) = &birth.channel.rows().params.local.upfront_shutdown_script {
            self.env.gave_shutdown_script(script);
        }
        let at = opening_address(peer, birth.channel_id);
        let guard = Guard::of(&monitor.rows().head);
        let slot = Slot {
            channel: birth.channel,
            monitor,
            signer,
            settlements: Default::default(),
            updates: Default::default(),
            terms: Default::default(),
            replaced: None,
            obstacle: None,
            archived: None,
            is_stalled: false,
            is_unheard: false,
            unsent,
            ranked: None,
            hinted: None,
        };
        self.deliver.name(peer.node_id, &slot.channel);
        if stands(&slot.channel) {
            self.env.channel_stands();
        }
        peer.slots.insert(birth.channel_id, slot);
        let step = Step { changes: &birth.changes, monitor: &monitor_changes, guard, effects: birth.effects, op_id };
        self.batch.stage(at, step, Clock::now_unix());
    }

    /// Ends an opening by the name that it has with the peer, which until `funding_signed` is the temporary one (BOLT 1): an `error`
    /// under a name that another channel has would have both sides fail that one.
    fn refuse_birth(&mut self, peer: &Peer, opening: ChannelId, reason: &str) {
        let at = opening_address(peer, opening);
        if peer.slots.contains_key(&opening) || self.env.frozen.contains(&opening) {
            return self.send(at, Message::Warning(Warning { channel_id: opening, data: reason.into() }));
        }
        self.send_error(at, reason);
    }

    fn gone(&mut self, peer: &mut Peer, channel: ChannelId, reason: &str) {
        let Some(slot) = peer.openings.remove(&channel) else { return };
        tracing::info!(peer = %peer.node_id, %channel, reason, "an opening ended");
        let Some(order) = slot.order else { return };
        if order.awaits_wallet {
            // Its end is told when its coins are free again, and these are not even chosen yet.
            let leaving = Leaving { operation: order.operation, reason: reason.to_owned() };
            peer.leaving.insert(channel, leaving);
            return;
        }
        if let Some(txid) = order.reserved {
            self.batch.hold(Held::Chain(ChainOrder::Release(txid)));
        }
        self.operation_failed(order.operation, reason);
    }

    pub(super) fn operation_failed(&mut self, operation: OperationRow, reason: &str) {
        operations::fail(&mut self.batch, operation, reason);
    }

    fn hold_all(&mut self, at: Address, effects: Vec<outrigger_channel::Effect>) {
        for effect in effects {
            self.batch.hold_effect(at, effect);
        }
    }

    /// Refuses an opening. An error under a name of zeros would speak of every channel (BOLT 1), so that is a warning.
    fn send_error(&mut self, at: Address, reason: &str) {
        if at.channel == ChannelId([0; 32]) {
            return self.send(at, Message::Warning(Warning { channel_id: at.channel, data: reason.into() }));
        }
        self.send(at, Message::Error(Error { channel_id: at.channel, data: reason.into() }));
    }

    fn fresh_keys(&self) -> Result<(Arc<dyn Signer>, u64), NoEntropy> {
        let keys_index = u64::from_be_bytes(Clock::random_bytes()?);
        Ok((self.env.signer(keys_index), keys_index))
    }
}

/// Of 63 random bits: no two channels of a node ever have the same.
fn fresh_alias() -> Result<ShortChannelId, NoEntropy> {
    Ok(ShortChannelId::alias(u64::from_be_bytes(Clock::random_bytes()?)))
}

fn opening_address(peer: &Peer, channel: ChannelId) -> Address {
    Address { peer: peer.node_id, connection: peer.connection(), channel }
}
