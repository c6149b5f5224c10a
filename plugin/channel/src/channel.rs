//! One channel: its rows, what a disconnect takes away, and the step.

mod shown;

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{Message, Pong, Warning};

use crate::changes::{ChannelChanges, ChannelHead, ChannelParams, ChannelRows, Phase};
use crate::commitments::htlc::{HtlcKey, HtlcState, Offerer};
use crate::draft::Draft;
use crate::input::{ChainEvent, Command, CommandId, Context, Input, Policy};
use crate::link::{self, Link, Volatile, VolatileChanges};
use crate::phase::{announcement, ended, funding, normal, restored, shutdown};
use crate::row::CorruptRows;
use crate::transition::{Effect, IncomingHtlc, Publication, Transition, Watch};
use crate::violation::{Refusal, Rule, Violation};

pub use shown::Summary;

/// A channel whose funding transaction is signed. Before that it is an [`Opening`](crate::Opening).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    rows: ChannelRows,
    volatile: Volatile,
}

impl Channel {
    /// The channel that these rows are, with no connection: what a crash leaves is what a disconnect leaves.
    pub fn load(rows: ChannelRows) -> Result<Self, CorruptRows> {
        rows.check()?;
        let volatile = Volatile::at_rest(&rows);
        Ok(Self { rows, volatile })
    }

    /// A closed channel as it stands in history: parameters and head, and nothing else that it ever had. It answers its
    /// peer (BOLT 2, "Message Retransmission"); that is all that is left to do.
    pub fn of_history(params: Arc<ChannelParams>, head: ChannelHead) -> Result<Self, CorruptRows> {
        if !matches!(head.phase, Phase::Closed { .. }) {
            return Err(CorruptRows("a channel in history that is not closed"));
        }
        Ok(Self::with_link(
            ChannelRows { params, head, htlcs: BTreeMap::new(), onions: BTreeMap::new() },
            Link::Disconnected,
        ))
    }

    /// Whether the end of the channel is so deep below this block height that its rows may go, its head apart.
    pub fn is_history(&self, height: u32) -> bool {
        ended::history_height(&self.rows.head).is_some_and(|from| from <= height)
    }

    /// Whether the funding transaction was ever in a block. A channel that never was leaves no history (FND-8).
    pub fn was_funded(&self) -> bool {
        self.rows.head.short_channel_id.is_some()
    }

    /// Whether there is a funding output as far as we can know: we made its transaction, or it was in a block. What a peer
    /// only promised is worth no coin of ours.
    pub fn is_backed(&self) -> bool {
        self.rows.params.is_opener || self.was_funded()
    }

    pub(crate) fn with_link(rows: ChannelRows, link: Link) -> Self {
        let volatile = Volatile { link, ..Volatile::at_rest(&rows) };
        Self { rows, volatile }
    }

    /// The rows as the steps taken in so far leave them.
    pub fn rows(&self) -> &ChannelRows {
        &self.rows
    }

    /// The channel's name.
    pub fn id(&self) -> ChannelId {
        self.rows.params.channel_id
    }

    pub fn phase(&self) -> &Phase {
        &self.rows.head.phase
    }

    pub fn link(&self) -> &Link {
        &self.volatile.link
    }

    /// What this input leads to. The channel is as it was until the transition is taken in.
    pub fn step(&self, input: Input<'_>, cx: &Context<'_>) -> Transition {
        let mut draft = self.draft(cx);
        if restored::ignores(&draft, &input, cx) {
            return draft.finish();
        }
        let ordered = if let Input::Command(id, _) = &input { Some(*id) } else { None };
        let outcome = match input {
            Input::Connected(features) => {
                link::on_connected(&mut draft, features, cx);
                Ok(())
            }
            Input::Disconnected => {
                link::on_disconnected(&mut draft);
                Ok(())
            }
            Input::Message(message) => on_message(&mut draft, message, cx),
            Input::Command(id, command) => on_command(&mut draft, id, command, cx),
            Input::Chain(event) => on_chain(&mut draft, event, cx),
        };
        match outcome {
            Ok(()) => draft.finish(),
            Err(violation) => {
                let mut draft = self.answer(&violation, draft, cx);
                let Some(id) = ordered else { return draft.finish() };
                draft.effect(Effect::Reply(id, Err(Refusal::Ended)));
                // No order of ours may come to a commitment that cannot be built.
                let fault = matches!(violation.rule(), Rule::Unaffordable).then(|| violation.to_string());
                Transition { fault, ..draft.finish() }
            }
        }
    }

    /// What every step begins with.
    fn draft(&self, cx: &Context<'_>) -> Draft<'_> {
        let mut draft = Draft::new(&self.rows, &self.volatile);
        restored::enter(&mut draft, cx);
        draft
    }

    /// Drops what a broken input began, but never a preimage that came with it, and answers as BOLT 1 says.
    fn answer(&self, violation: &Violation, broken: Draft<'_>, cx: &Context<'_>) -> Draft<'_> {
        let mut draft = self.draft(cx);
        broken.salvage_into(&mut draft);
        let (channel_id, text) = (self.id(), violation.rule().to_string());
        match violation {
            Violation::Warn(_) => {
                draft.send(Message::Warning(Warning { channel_id, data: text.as_str().into() }));
                draft.effect(Effect::Disconnect(text));
                link::on_disconnected(&mut draft);
            }
            Violation::Fail(rule) => fail(&mut draft, rule),
        }
        draft
    }

    /// Takes the rows of a step in.
    pub fn apply(&mut self, changes: &ChannelChanges) {
        if let Some(params) = &changes.params {
            self.rows.params = params.clone();
        }
        if let Some(head) = &changes.head {
            self.rows.head = head.clone();
        }
        for (key, row) in &changes.htlcs {
            match row {
                Some(row) => self.rows.htlcs.insert(*key, row.clone()),
                None => self.rows.htlcs.remove(key),
            };
        }
        for (key, onion) in &changes.onions {
            match onion {
                Some(onion) => self.rows.onions.insert(*key, onion.clone()),
                None => self.rows.onions.remove(key),
            };
        }
    }

    /// Takes the volatile part of a step in, after its rows.
    pub fn settle(&mut self, changes: VolatileChanges) {
        self.volatile.settle(changes, &self.rows);
    }

    /// [`apply`](Self::apply) and [`settle`](Self::settle) in their order. The transition keeps its rows for disk.
    pub fn take_in(&mut self, transition: &mut Transition) {
        self.apply(&transition.changes);
        self.settle(std::mem::take(&mut transition.volatile));
    }

    /// What the chain must tell this channel; the same before and after a restart.
    pub fn watches(&self) -> Vec<Watch> {
        let (head, params) = (&self.rows.head, &self.rows.params);
        let mut watches = match head.phase {
            Phase::Closed { .. } => Vec::new(),
            Phase::Funding(_)
            | Phase::Normal
            | Phase::ShuttingDown { .. }
            | Phase::Closing { .. }
            | Phase::Failed { .. } => {
                let script_pubkey = params.funding_output().script_pubkey();
                vec![Watch::Funding { outpoint: params.funding, script_pubkey }]
            }
        };
        if !head.channel_ready_sent {
            watches.extend(funding::ready_height(head, params).map(Watch::Height));
            watches.extend(funding::forgotten_height(head, params).map(Watch::Height));
            watches.extend(funding::stuck_height(head, params).map(Watch::Height));
        }
        watches.extend(shutdown::watches(head));
        watches.extend(ended::history_height(head).map(Watch::Height));
        watches
    }

    /// Effects that a crash may have lost and that no reconnection repeats.
    pub fn resume(&self, policy: &Policy) -> Vec<Effect> {
        let (what, transactions) = match &self.rows.head.phase {
            Phase::Funding(funding) => {
                (Publication::Funding, funding.tx.iter().map(|tx| tx.as_ref().clone()).collect::<Vec<_>>())
            }
            phase @ (Phase::Normal
            | Phase::ShuttingDown { .. }
            | Phase::Closing { .. }
            | Phase::Closed { .. }
            | Phase::Failed { .. }) => {
                (Publication::MutualClose, phase.closes_to_publish().into_iter().cloned().collect())
            }
        };
        let publish = transactions.into_iter().map(|tx| Effect::Publish { what, tx });
        let received = self.rows.htlcs.keys().filter(|key| key.offerer == Offerer::Remote);
        let incoming = received.filter_map(|key| self.incoming(key.id, policy)).map(Effect::Incoming);
        publish.into_iter().chain(incoming).collect()
    }

    /// A received HTLC that is irrevocably committed and that nothing removes, as relay and receive see it.
    pub fn incoming(&self, htlc_id: u64, policy: &Policy) -> Option<IncomingHtlc> {
        let key = HtlcKey::received(htlc_id);
        let row = self.rows.htlcs.get(&key).filter(|row| row.state == HtlcState::STANDING)?;
        let over_exposed = self.exposes_too_much(row.amount, policy);
        Some(row.incoming((self.id(), htlc_id), self.rows.onions.get(&key)?, over_exposed))
    }

    /// Whether this `pong` answers a `ping` that the channel sent: it is then a message to the channel.
    pub fn awaits_pong(&self, pong: &Pong) -> bool {
        shutdown::is_awaited(&self.volatile.negotiation, self.id(), pong)
    }
}

fn on_message(draft: &mut Draft<'_>, message: &Message, cx: &Context<'_>) -> Result<(), Violation> {
    if matches!(draft.head().phase, Phase::Failed { .. } | Phase::Closed { .. }) {
        ended::on_message(draft, message, cx);
        return Ok(());
    }
    if let Message::Error(error) = message {
        let text = error.data.to_string();
        if !is_passing(&text) {
            return Err(Violation::Fail(Rule::PeerError(text)));
        }
        draft.effect(Effect::Disconnect(text));
        link::on_disconnected(draft);
        return Ok(());
    }
    match draft.link() {
        // What is left of a connection that is over (CST-2).
        Link::Disconnected => Ok(()),
        Link::Reestablishing(_) => on_early_message(draft, message, cx),
        Link::Connected(_) => normal::on_message(draft, message, cx),
    }
}

/// Nothing of a channel may come before its `channel_reestablish` (BOLT 2). LND sends two messages early all the same, which
/// move nothing that a reestablish compares: `channel_ready`, where the channel was confirmed without a connection
/// (<https://github.com/lightningnetwork/lnd/issues/4006>), and `announcement_signatures`.
fn on_early_message(draft: &mut Draft<'_>, message: &Message, cx: &Context<'_>) -> Result<(), Violation> {
    if let Message::ChannelReestablish(reestablish) = message {
        return link::on_reestablish(draft, reestablish, cx);
    }
    if let Message::ChannelReady(ready) = message {
        return funding::on_channel_ready(draft, ready, cx);
    }
    if let Message::AnnouncementSignatures(signatures) = message {
        return announcement::on_signatures(draft, signatures, cx);
    }
    if matches!(message, Message::Warning(_)) || message.channel_id().is_none() {
        Ok(())
    } else {
        Err(Violation::Warn(Rule::BeforeReestablish))
    }
}

/// Texts by which known peers tell of a trouble of their own that a new connection cures. Any other `error` fails the
/// channel, as BOLT 1 says (CST-13).
fn is_passing(text: &str) -> bool {
    ["internal error", "sync error"].contains(&text)
}

fn on_command(draft: &mut Draft<'_>, id: CommandId, command: Command, cx: &Context<'_>) -> Result<(), Violation> {
    // Under restored mode nothing but a close that both have signed is left.
    let ended = cx.restored || matches!(draft.head().phase, Phase::Failed { .. } | Phase::Closed { .. });
    let (commit, failure) = match &command {
        Command::Commit => (!ended, None),
        Command::Fail { reason } => (false, Some(Rule::Ordered(reason.clone())).filter(|_| !ended)),
        Command::Withhold { reason, is_new, complete: _ } => {
            // Where nothing has left, a failure in the meantime has put nothing into the chain either.
            let is_unfunded = *is_new
                && !cx.restored
                && matches!(draft.head().phase, Phase::Funding(_) | Phase::Failed { spend: None, .. });
            if is_unfunded {
                let height = draft.params().opened_height;
                funding::forget(draft, height, reason);
            }
            (false, Some(Rule::Unstored(reason.clone())).filter(|_| !ended && !is_unfunded))
        }
        Command::AddHtlc { .. }
        | Command::Fulfill { .. }
        | Command::FailHtlc { .. }
        | Command::UpdateFee(_)
        | Command::Shutdown { .. } => (false, None),
    };
    if commit {
        normal::commit(draft, cx)?;
    }
    if let Some(rule) = failure {
        fail(draft, &rule);
    }
    if let Command::Withhold { complete: Some(number), .. } = command
        && !cx.restored
    {
        draft.reserve(number);
    }
    let reply = if ended || matches!(command, Command::Fail { .. } | Command::Withhold { .. }) {
        ended::on_command(draft, command)
    } else {
        normal::on_command(draft, command, cx)
    };
    draft.effect(Effect::Reply(id, reply));
    Ok(())
}

fn on_chain(draft: &mut Draft<'_>, event: ChainEvent<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    let failed = matches!(draft.head().phase, Phase::Failed { .. });
    let ended = failed || matches!(draft.head().phase, Phase::Closed { .. });
    match event {
        ChainEvent::FundingConfirmed { .. } | ChainEvent::FundingUnconfirmed if ended && !failed => Ok(()),
        ChainEvent::FundingConfirmed { height, tx_index, tx } if failed => {
            funding::found(draft, (height, tx_index), tx);
            Ok(())
        }
        ChainEvent::FundingConfirmed { height, tx_index, tx } => {
            funding::on_confirmed(draft, (height, tx_index), tx, cx)
        }
        ChainEvent::FundingUnconfirmed => {
            funding::on_unconfirmed(draft);
            Ok(())
        }
        ChainEvent::FundingSpent { height, tx } => {
            if failed {
                ended::on_funding_spent(draft, height, tx, cx);
            } else {
                shutdown::on_funding_spent(draft, height, tx, cx);
                end_talk(draft);
            }
            Ok(())
        }
        ChainEvent::OutputSpent { outpoint, kind, value, height, tx } => {
            ended::on_output_spent(draft, outpoint, (kind, value), (tx, height));
            Ok(())
        }
        ChainEvent::OutputsUnspent { from_height } => {
            ended::on_outputs_unspent(draft, from_height);
            Ok(())
        }
        ChainEvent::TakenBuried { height } => {
            ended::on_taken_buried(draft, height);
            Ok(())
        }
        ChainEvent::Buried { height } => {
            ended::on_buried(draft, height);
            Ok(())
        }
        ChainEvent::FundingSpendUnconfirmed => {
            ended::on_funding_spend_unconfirmed(draft);
            shutdown::on_funding_spend_unconfirmed(draft, cx);
            Ok(())
        }
        ChainEvent::Due => {
            ended::publish_reserved(draft);
            Ok(())
        }
        ChainEvent::Height(height) if !ended => {
            shutdown::on_height(draft, height, cx);
            funding::on_height(draft, cx)
        }
        ChainEvent::Height(_) => {
            funding::forget_in_time(draft, cx);
            Ok(())
        }
    }
}

/// A channel that the chain has just failed has no more to say to its peer than why.
fn end_talk(draft: &mut Draft<'_>) {
    if matches!(draft.head().phase, Phase::Failed { .. }) {
        ended::send_reason(draft);
        link::on_disconnected(draft);
    }
}

/// Fails the channel (BOLT 5). Adds that were never signed are told so; what was signed is the monitor's.
///
/// Two channels end otherwise. A mutual close that both have signed stands: peers forget such channels and say so with an
/// `error`. And where nothing of ours can be in the funding output, which is not even in a block, there is nothing to
/// publish (FND-8).
fn fail(draft: &mut Draft<'_>, rule: &Rule) {
    let stands = match draft.head().phase {
        // In a block: nothing else can spend the funding output now.
        Phase::Closing { confirmed_height: Some(_), .. } => true,
        Phase::Closing { confirmed_height: None, .. } => !matches!(rule, Rule::Ordered(_)),
        Phase::Funding(_)
        | Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closed { .. }
        | Phase::Failed { .. } => false,
    };
    if stands {
        if !matches!(rule, Rule::PeerError(_)) {
            let message = ended::error_message(draft.channel_id(), &rule.to_string());
            draft.send(message);
        }
        return link::on_disconnected(draft);
    }
    let publish = !matches!(rule, Rule::FallenBehind | Rule::Unstored(_));
    // Old rows do not know what is at stake.
    if !matches!(rule, Rule::FallenBehind) && funding::nothing_at_stake(draft.head(), draft.params()) {
        return funding::forget(draft, draft.params().opened_height, &rule.to_string());
    }
    draft.fail(rule.to_string(), publish);
    if !matches!(rule, Rule::PeerError(_)) {
        ended::send_reason(draft);
    }
    link::on_disconnected(draft);
}
