//! Channels whose end is buried for good: out of memory, and answered for from their one row (CST-20).

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Error, Message, Warning};
use outrigger_channel::{Channel, Effect, Input, Offerer, Signer, Watch};

use super::drive::Drive;
use super::peer::{Peer, Slot};
use super::relay::register::HtlcName;
use crate::clock::Clock;
use crate::store::Address;

impl Drive<'_> {
    /// Sends a channel's rows into history. It stays in memory until that is durable, so that its peer never hears of an
    /// unknown channel in between. `waits` is what it had asked of the chain that will not come any more.
    pub(super) fn archive(&mut self, at: Address, slot: &mut Slot, waits: Vec<Watch>) {
        let settlements: Vec<u64> = slot.settlements.keys().copied().collect();
        for key in slot.channel.rows().htlcs.keys().filter(|key| key.offerer == Offerer::Remote) {
            self.env.relay.forget(&HtlcName { channel: at.channel, htlc_id: key.id });
        }
        self.is_heard(slot);
        self.batch.archive(at, &slot.channel, slot.monitor.rows(), &settlements);
        slot.archived = Some(waits);
    }

    /// The channel is in history: its row answers from here on.
    pub(super) fn archived(&mut self, peer: &mut Peer, channel: ChannelId) {
        let Some(slot) = self.take_out(peer, &channel) else { return };
        let waits = slot.archived.unwrap_or_default();
        self.deliver.unregister(peer.node_id, channel, slot.channel.rows().params.funding, &waits);
    }

    /// A message for a channel that is not in memory. One of this peer in history answers `channel_reestablish` with its
    /// numbers, and then as any closed channel does; of others nothing is known (BOLT 2, "Message Retransmission").
    pub(super) fn unknown_channel(&mut self, peer: &mut Peer, channel_id: ChannelId, message: &Message) {
        let at = Address { peer: peer.node_id, connection: peer.connection(), channel: channel_id };
        if matches!(message, Message::AcceptChannel(_)) {
            // Bad input 32: there is no channel that an error could speak of.
            let text = "accept_channel for an opening that we do not know";
            self.send(at, Message::Warning(Warning { channel_id, data: text.into() }));
            return self.batch.hold_effect(at, Effect::Disconnect(text.to_owned()));
        }
        let known = matches!(message, Message::ChannelReestablish(_)).then(|| self.in_history(&channel_id)).flatten();
        match known.filter(|channel| channel.rows().params.peer == peer.node_id) {
            Some(channel) => {
                if let Some(live) = &mut peer.live {
                    live.answered.insert(channel_id);
                }
                let signer = self.env.signer(channel.rows().params.keys_index);
                self.answer_for(at, &channel, &*signer, Input::Message(message));
            }
            None => self.send(at, Message::Error(Error { channel_id, data: "unknown channel".into() })),
        }
    }

    /// What a channel in history answers. It writes no rows: nothing that it could learn is worth one.
    pub(super) fn answer_for(&mut self, at: Address, channel: &Channel, signer: &dyn Signer, input: Input<'_>) {
        let script = self.env.shutdown_script();
        let transition = channel.step(input, &self.env.context(signer, &script));
        for effect in &transition.effects {
            if let Effect::Restored { proof } = effect {
                self.enter_restored(at, proof);
            }
        }
        self.batch.stage_answer(at, transition.effects, Clock::now_unix());
    }

    /// The channel of this id in history.
    pub(super) fn in_history(&self, channel: &ChannelId) -> Option<Channel> {
        match self.env.reader.closed(channel) {
            Ok(found) => found,
            Err(fault) => {
                tracing::error!(%channel, %fault, "a closed channel cannot be read");
                None
            }
        }
    }
}
