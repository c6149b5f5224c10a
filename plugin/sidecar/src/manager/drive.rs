//! The drive loop: step the channel, update its monitor, apply, stage, submit; all under the peer's lock, so that the
//! writer's queue has the order of the states.

use std::collections::BTreeSet;

use bitcoin::{Transaction, Txid};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, ShortChannelId};
use outrigger_bolt::wire::Message;
use outrigger_channel::{
    Channel, ChannelNote, Command, CommandId, Effect, Guard, Input, Link, MonitorChanges, MonitorStep, OpeningInput,
    Phase, Refusal, Reply, Transition, Watch,
};

use super::deliver::Deliver;
use super::env::Env;
use super::forwarding::is_usable;
use super::mail::Mail;
use super::obstacle::{complaint, ending};
use super::peer::{Live, Peer, Slot, stands};
use super::relay::register::HtlcName;
use super::relay::{Letter, Telling, is_still_to_be_told};
use super::settlement::{completed_forwards, prefer_preimage};
use crate::clock::Clock;
use crate::store::row::EventRow;
use crate::store::{Address, Batch, ChainOrder, Held, Step};

/// One visit to one peer: what it does is staged into one batch.
pub(super) struct Drive<'a> {
    pub(super) env: &'a Env,
    pub(super) deliver: &'a Deliver,
    pub(super) batch: Batch,
    /// Channels that may have something to sign.
    touched: BTreeSet<ChannelId>,
    /// What the visit has for others.
    pub(super) letters: Vec<Letter>,
}

impl<'a> Drive<'a> {
    pub(super) fn new(env: &'a Env, deliver: &'a Deliver) -> Self {
        Self { env, deliver, batch: Batch::default(), touched: BTreeSet::new(), letters: Vec::new() }
    }

    /// Handles one piece of mail.
    pub(super) fn handle(&mut self, peer: &mut Peer, mail: Mail) {
        match mail {
            Mail::Connected { connection, features } => self.connected(peer, connection, features),
            Mail::Disconnected { connection } => self.disconnected(peer, connection),
            Mail::Message { connection, message, bytes: _ } => {
                // A message that was still queued when its connection ended is a message that never came (CST-2).
                if connection == peer.connection() {
                    self.message(peer, &message);
                }
            }
            Mail::Open(order) => self.open(peer, *order),
            Mail::Funded { channel, funding } => self.funded(peer, channel, funding),
            Mail::Order { channel, id, command } => self.order(peer, channel, id, command),
            Mail::FeerateMoved => self.touch_opened(peer),
            Mail::Archived { channel } => self.archived(peer, channel),
            Mail::Restored => self.restored(peer),
            Mail::Stalled { channel, is_stalled } => self.stalled(peer, channel, is_stalled),
            Mail::Heard { channel } => self.heard(peer, &channel),
            Mail::Unstored(unstored) => self.unstored(peer, *unstored),
            Mail::FundPublicly { channel, tx } => self.fund_publicly(peer, channel, *tx),
            Mail::Incoming(htlc) => self.incoming(peer, htlc, Telling::New),
            Mail::Offer(offer) => self.offer(peer, *offer),
            Mail::Again(htlc) => self.again(peer, htlc),
            Mail::Settled { channel, htlc_id, settlement } => self.settled(peer, channel, htlc_id, settlement),
            Mail::Height { channel, height } => {
                let event = outrigger_channel::ChainEvent::Height(height);
                self.step_channel(peer, channel, Input::Chain(event));
            }
        }
    }

    /// Ends the visit: each touched channel signs what has gathered, once, and the batch goes to the writer. What is left
    /// is for others, once the peer's lock is gone.
    #[must_use = "letters that nobody tells are lost"]
    pub(super) fn finish(mut self, peer: &mut Peer) -> Vec<Letter> {
        for channel in std::mem::take(&mut self.touched) {
            self.propose_feerate(peer, channel);
            self.step_channel(peer, channel, Input::Command(NOBODY, Command::Commit));
            self.rank(peer, &channel);
            peer.weigh(&channel);
        }
        self.tally(peer);
        self.env.writer.submit(self.batch);
        self.letters.retain(|letter| is_still_to_be_told(self.env, peer, letter));
        self.letters
    }

    /// The estimate moved: each channel that we opened looks whether it wants another feerate, when the visit ends.
    fn touch_opened(&mut self, peer: &Peer) {
        let opened = peer.slots.iter().filter(|(_, slot)| slot.channel.rows().params.is_opener);
        self.touched.extend(opened.map(|(channel, _)| *channel));
    }

    /// Follows the estimate with a channel that was visited anyhow: no pass over the channels is needed for that.
    fn propose_feerate(&mut self, peer: &mut Peer, channel: ChannelId) {
        let (Some(slot), Some(estimate)) = (peer.slots.get(&channel), self.env.chain.followed()) else { return };
        if let Some(feerate) = slot.channel.feerate_to_propose(estimate, &self.env.policy) {
            tracing::info!(%channel, feerate = feerate.get(), "proposing another commitment feerate");
            self.step_channel(peer, channel, Input::Command(NOBODY, Command::UpdateFee(feerate)));
        }
    }

    /// Steps one channel and takes the transition in. Where the input is a command, gives the answer to it, which leaves
    /// for whoever waits for it once the rows are durable.
    pub(super) fn step_channel(&mut self, peer: &mut Peer, channel: ChannelId, input: Input<'_>) -> Option<Answer> {
        let at = Address { peer: peer.node_id, connection: peer.connection(), channel };
        let Some(slot) = peer.slots.get_mut(&channel) else {
            return self.refuse_command(at, &input, Refusal::UnknownChannel);
        };
        self.step_slot(at, slot, input)
    }

    fn refuse_command(&mut self, at: Address, input: &Input<'_>, refusal: Refusal) -> Option<Answer> {
        let Input::Command(id, _) = input else { return None };
        self.refuse(at, *id, refusal.clone());
        Some(Err(refusal))
    }

    pub(super) fn step_slot(&mut self, at: Address, slot: &mut Slot, input: Input<'_>) -> Option<Answer> {
        if self.env.is_faulty() {
            return self.refuse_command(at, &input, Refusal::Stopping);
        }
        if slot.archived.is_some() {
            let ended = matches!(input, Input::Command(..)).then_some(Err(Refusal::Ended));
            self.answer_for(at, &slot.channel, &*slot.signer, input);
            return ended;
        }
        if slot.is_stalled && matches!(input, Input::Command(_, Command::AddHtlc { .. })) {
            return self.refuse_command(at, &input, Refusal::Stalled);
        }
        let (was_connected, was_usable) = (is_in_step(slot), is_usable(&slot.channel));
        let is_commit = matches!(input, Input::Command(_, Command::Commit));
        let complaint = complaint(&input);
        let script = self.env.shutdown_script();
        let (transition, learned) =
            slot.monitor.follow(&slot.channel, input, &self.env.context(&*slot.signer, &script));
        if let Some(fault) = &transition.fault {
            tracing::error!(channel = %at.channel, %fault, "a fault of this node: it stops before another channel fails");
            if !self.env.meet_fault(&format!("{}: {fault}", at.channel)) {
                return Some(Err(Refusal::Stopping));
            }
        }
        let answer = transition.effects.iter().find_map(answer_in);
        let obstacle = complaint.or_else(|| transition.effects.iter().find_map(ending));
        self.take_in(at, slot, transition, learned);
        self.note_obstacle(at, slot, obstacle);
        if !is_commit {
            self.touched.insert(at.channel);
        }
        if !was_usable && is_usable(&slot.channel) {
            self.tell_update(at, slot);
        }
        if !was_connected && is_in_step(slot) {
            self.repeat_settlements(at, slot);
        }
        answer
    }

    /// Monitor, apply, stage: nothing of the transition is lost, and nothing of it leaves here. `learned` is what the
    /// monitor makes of it.
    fn take_in(&mut self, at: Address, slot: &mut Slot, transition: Transition, learned: MonitorChanges) {
        let Transition { changes, volatile, monitor, mut effects, fault: _ } = transition;
        let (mut on_chain, had_failed) = (false, slot.monitor.rows().head.failed);
        let never_was = effects.iter().any(never_was);
        let waits = if never_was { slot.channel.watches() } else { Vec::new() };
        // It goes now, and not when its end is buried.
        effects.retain(|effect| !never_was || !matches!(effect, Effect::Watch(_)));
        // Answers that nobody waits for would make rows look awaited.
        effects.retain(|effect| !matches!(effect, Effect::Reply(NOBODY, _)));
        effects.iter_mut().for_each(|effect| prefer_preimage(slot, effect));
        let now_unix = Clock::now_unix();
        completed_forwards(slot, &effects, now_unix).into_iter().for_each(|forward| self.batch.forwarded(forward));
        if let Some(update) = monitor {
            on_chain = update.steps.iter().any(is_on_chain);
            slot.monitor.apply(&learned, &update.htlcs);
        }
        let (closes, was_backed) = (txids_of_closes(slot), slot.channel.is_backed());
        let id_before = slot.channel.rows().head.short_channel_id;
        let stood = stands(&slot.channel);
        slot.channel.apply(&changes);
        self.rename(at, &slot.channel, id_before);
        slot.channel.settle(volatile);
        on_chain |= was_backed != slot.channel.is_backed();
        match (stood, stands(&slot.channel)) {
            (false, true) => self.env.channel_stands(),
            (true, false) => self.env.channel_ended(),
            (true, true) | (false, false) => {}
        }
        if on_chain {
            effects.extend(self.watch_outputs(at, slot));
            if let Some(number) = slot.monitor.rows().head.closing {
                self.deliver.ends_with(&at.channel, number);
            }
        }
        for effect in &effects {
            match effect {
                Effect::Removed { htlc_id } => {
                    slot.settlements.remove(htlc_id);
                    self.env.relay.forget(&HtlcName { channel: at.channel, htlc_id: *htlc_id });
                }
                Effect::Restored { proof } => self.enter_restored(at, proof),
                Effect::Send(_)
                | Effect::Revoke { .. }
                | Effect::Disconnect(_)
                | Effect::Publish { .. }
                | Effect::Watch(_)
                | Effect::Incoming(_)
                | Effect::Settle { .. }
                | Effect::Reply(..)
                | Effect::Note(_) => {}
            }
        }
        if !had_failed && slot.monitor.rows().head.failed {
            self.has_failed(at, slot);
        }
        let guard = Guard::of(&slot.monitor.rows().head);
        let step = Step { changes: &changes, monitor: &learned, guard, effects, op_id: None };
        let mut forgotten: Vec<_> = step.effects.iter().flat_map(|effect| no_longer_published(slot, effect)).collect();
        if !matches!(slot.channel.phase(), Phase::Closing { .. }) {
            forgotten.extend(closes);
        }
        self.batch.stage(at, step, now_unix);
        for txid in forgotten {
            self.batch.hold(Held::Chain(ChainOrder::Forget(txid)));
        }
        if on_chain && slot.monitor.rows().head.failed {
            self.enforce(slot);
        }
        if never_was {
            // FND-8: what a peer can make for nothing leaves no row behind. Its reestablish finds no such channel.
            self.archive(at, slot, waits);
        } else if slot.channel.is_history(self.env.chain.height()) {
            self.archive(at, slot, Vec::new());
        }
    }

    /// A peer, or the chain, has proved that the file is old.
    pub(super) fn enter_restored(&self, at: Address, proof: &str) {
        tracing::error!(peer = %at.peer, %proof, "{RESTORED}");
        let event = EventRow::restored(Clock::now_unix(), at.peer, at.channel, proof);
        self.env.enter_restored(proof, event);
    }

    /// What the monitor waits for in the chain. The index knows at once: the very next block, or this one, may hold it,
    /// and what would be missed for the sake of a commit is not seen again (OCC-13).
    fn watch_outputs(&self, at: Address, slot: &Slot) -> Vec<Effect> {
        let watches = slot.monitor.watches(&*slot.signer, self.env.policy.close_depth);
        for watch in watches.iter().filter(|watch| matches!(watch, Watch::Output { .. })) {
            let _height = self.deliver.watch_now(at.peer, at.channel, watch.clone());
        }
        watches.into_iter().map(Effect::Watch).collect()
    }

    /// Orders all that is to be enforced for the channel now, in the place of what was ordered before: it follows from the
    /// rows of this batch, and waits for them.
    pub(super) fn enforce(&mut self, slot: &Slot) {
        let mut enforcement = slot.monitor.enforcement(&*slot.signer).map(Box::new);
        let is_kept_back = self.env.is_restored() || slot.is_unheard || !slot.channel.is_backed();
        if let Some(enforcement) = enforcement.as_mut().filter(|_| is_kept_back) {
            // Of old rows nothing is published that may be revoked, nor of those that a backup may yet prove to be old; claims
            // promise nothing. And a commitment without a funding output would only lock the coins of its child.
            enforcement.publish = None;
        }
        let (channel, params) = (slot.channel.id(), slot.channel.rows().params.clone());
        self.batch.hold(Held::Chain(ChainOrder::Enforce { channel, params, enforcement }));
    }

    /// Answers a command that reached no channel. It waits its turn like any other effect.
    pub(super) fn refuse(&mut self, at: Address, id: CommandId, refusal: Refusal) {
        if id == NOBODY {
            return;
        }
        self.batch.hold_effect(at, Effect::Reply(id, Err(refusal)));
    }

    /// Sends a message that no row stands behind.
    pub(super) fn send(&mut self, at: Address, message: Message) {
        self.batch.hold_effect(at, Effect::Send(message));
    }

    fn connected(&mut self, peer: &mut Peer, connection: u64, features: Features) {
        if peer.live.is_some() {
            self.lost(peer);
        }
        peer.live = Some(Live { connection, features: features.clone(), answered: BTreeSet::new() });
        for channel in peer.slots.keys().copied().collect::<Vec<_>>() {
            self.step_channel(peer, channel, Input::Connected(&features));
        }
    }

    fn disconnected(&mut self, peer: &mut Peer, connection: u64) {
        if peer.connection() == connection {
            self.lost(peer);
        }
    }

    fn lost(&mut self, peer: &mut Peer) {
        peer.live = None;
        for channel in peer.slots.keys().copied().collect::<Vec<_>>() {
            self.step_channel(peer, channel, Input::Disconnected);
        }
        self.abandon_openings(peer, "the peer disconnected before the channel was signed");
    }

    fn message(&mut self, peer: &mut Peer, message: &Message) {
        if let Message::OpenChannel(open) = message {
            return self.accept(peer, open);
        }
        if let Message::Gossip(gossip) = message {
            return self.heard_gossip(peer, gossip);
        }
        if let Message::Pong(pong) = message {
            let asked = |slot: &Slot| slot.channel.awaits_pong(pong);
            let asking: Vec<_> =
                peer.slots.iter().filter(|(_, slot)| asked(slot)).map(|(channel, _)| *channel).collect();
            for channel in asking {
                self.step_channel(peer, channel, Input::Message(message));
            }
            return;
        }
        let is_complaint = matches!(message, Message::Error(_) | Message::Warning(_));
        let Some(channel) = message.channel_id() else {
            if is_complaint {
                // BOLT 1: an all-zero channel_id refers to all channels with this peer, and with no other.
                for channel in peer.slots.keys().copied().collect::<Vec<_>>() {
                    self.step_channel(peer, channel, Input::Message(message));
                }
                for channel in peer.openings.keys().copied().collect::<Vec<_>>() {
                    self.step_opening(peer, channel, OpeningInput::Message(message));
                }
            }
            return;
        };
        if matches!(message, Message::ChannelReestablish(_)) && peer.has_heard_the_end_of(&channel) {
            return;
        }
        if peer.openings.contains_key(&channel) {
            self.step_opening(peer, channel, OpeningInput::Message(message));
        } else if peer.slots.contains_key(&channel) {
            self.step_channel(peer, channel, Input::Message(message));
        } else if self.env.frozen.contains(&channel) {
            self.message_to_frozen(Address { peer: peer.node_id, connection: peer.connection(), channel }, message);
        } else if !is_complaint {
            self.unknown_channel(peer, channel, message);
        }
    }

    fn order(&mut self, peer: &mut Peer, channel: ChannelId, id: CommandId, command: Command) {
        self.step_channel(peer, channel, Input::Command(id, command));
    }

    /// Onions may call the channel by another id than before, once its funding transaction stands elsewhere.
    fn rename(&self, at: Address, channel: &Channel, before: Option<ShortChannelId>) {
        if before == channel.rows().head.short_channel_id {
            return;
        }
        if let Some(before) = before {
            self.deliver.unname(at.channel, before);
        }
        self.deliver.name(at.peer, channel);
    }

    /// Every channel steps once under restored mode, whatever the step: it fails without publishing.
    pub(super) fn restored(&mut self, peer: &mut Peer) {
        for channel in peer.slots.keys().copied().collect::<Vec<_>>() {
            self.step_channel(peer, channel, Input::Command(NOBODY, Command::Commit));
            self.rank(peer, &channel);
            // Nothing is published any more, whatever a backup tells.
            peer.slots.get_mut(&channel).into_iter().for_each(|slot| self.is_heard(slot));
        }
        self.abandon_openings(peer, RESTORED);
    }

    /// What a crash may have lost, made again from rows. A settlement may be all that stands of a preimage: told again, it
    /// reaches the monitor even of a channel that is never re-established.
    pub(super) fn resume(&mut self, peer: &mut Peer) {
        let (node, connection) = (peer.node_id, peer.connection());
        for (channel, slot) in &mut peer.slots {
            let at = Address { peer: node, connection, channel: *channel };
            let is_due = |effect: &Effect| match effect {
                Effect::Incoming(htlc) => !slot.settlements.contains_key(&htlc.htlc_id),
                Effect::Send(_)
                | Effect::Revoke { .. }
                | Effect::Disconnect(_)
                | Effect::Publish { .. }
                | Effect::Restored { .. }
                | Effect::Watch(_)
                | Effect::Settle { .. }
                | Effect::Removed { .. }
                | Effect::Reply(..)
                | Effect::Note(_) => true,
            };
            let effects: Vec<_> = slot.channel.resume(&self.env.policy).into_iter().filter(is_due).collect();
            for effect in effects {
                self.batch.hold_effect(at, effect);
            }
            self.resume_failures(at, slot);
            self.resume_unsent(at, slot);
            if slot.monitor.rows().head.failed {
                self.enforce(slot);
            }
            self.repeat_settlements(at, slot);
        }
    }
}

/// What a channel answers to a command.
pub(super) type Answer = Result<Reply, Refusal>;

fn answer_in(effect: &Effect) -> Option<Answer> {
    if let Effect::Reply(_, answer) = effect { Some(answer.clone()) } else { None }
}

/// Whether the channel never existed: no funding transaction came, or one that is not what was agreed.
fn never_was(effect: &Effect) -> bool {
    matches!(effect, Effect::Note(ChannelNote::NeverFunded { .. }))
}

/// Transactions that are deep enough in the chain by what the channel says: published again at each block they would cost
/// a call for every channel there ever was.
fn no_longer_published(slot: &Slot, effect: &Effect) -> Vec<Txid> {
    let funding = slot.channel.rows().params.funding.txid;
    match effect {
        Effect::Note(ChannelNote::Ready { .. }) => vec![funding],
        Effect::Note(ChannelNote::Closed { txid, .. }) => vec![funding, *txid],
        Effect::Note(
            ChannelNote::Pending { .. }
            | ChannelNote::ShuttingDown { .. }
            | ChannelNote::Closing { .. }
            | ChannelNote::Spent { .. }
            | ChannelNote::Swept { .. }
            | ChannelNote::Failed { .. }
            | ChannelNote::FundingMismatch { .. }
            | ChannelNote::NeverFunded { .. }
            | ChannelNote::FundingStuck { .. },
        )
        | Effect::Send(_)
        | Effect::Revoke { .. }
        | Effect::Disconnect(_)
        | Effect::Publish { .. }
        | Effect::Restored { .. }
        | Effect::Watch(_)
        | Effect::Incoming(_)
        | Effect::Settle { .. }
        | Effect::Removed { .. }
        | Effect::Reply(..) => Vec::new(),
    }
}

/// The closes that both have signed: one of them may be in the chain, and the others never will.
fn txids_of_closes(slot: &Slot) -> Vec<Txid> {
    match slot.channel.phase() {
        Phase::Closing { tx, others, .. } => others.iter().chain([tx]).map(Transaction::compute_txid).collect(),
        Phase::Funding(_)
        | Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closed { .. }
        | Phase::Failed { .. } => Vec::new(),
    }
}

/// What the operator is told of restored mode, after the proof.
pub(super) const RESTORED: &str = "the node's file is older than what its peers were told: it runs in restored mode, \
    signs nothing and waits for its peers to close; leave it running";

/// The command whose answer nobody waits for.
pub(super) const NOBODY: CommandId = CommandId(0);

/// Whether a fact for the monitor changes what is to be enforced on the chain.
fn is_on_chain(step: &MonitorStep) -> bool {
    match step {
        MonitorStep::Failed { .. }
        | MonitorStep::Reserved { .. }
        | MonitorStep::Due
        | MonitorStep::FundingSpent(_)
        | MonitorStep::FundingUnspent
        | MonitorStep::OutputTaken(..)
        | MonitorStep::OutputsUntaken { .. }
        | MonitorStep::Closed
        | MonitorStep::Preimage(_) => true,
        MonitorStep::Funded { .. }
        | MonitorStep::LocalCommitment(_)
        | MonitorStep::RemoteCommitment(_)
        | MonitorStep::TakenBuried { .. }
        | MonitorStep::Revocation { .. } => false,
    }
}

/// Whether the channel was re-established on the live connection.
fn is_in_step(slot: &Slot) -> bool {
    matches!(slot.channel.link(), Link::Connected(_))
}
