//! A batch: rows that are written together, and the effects that wait for them.
//!
//! Effects go in and have one way out: [`Released`], which only a finished commit makes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{ScriptBuf, Transaction, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_channel::{
    ChannelChanges, ChannelNote, ChannelParams, Command, CommandId, Effect, Enforcement, Guard, HtlcOutcome,
    HtlcSource, MonitorChanges, Publication, Row,
};
use tokio::sync::oneshot;

use super::StoreError;
use super::backup::gate;
use super::channel_update::UpdateOf;
use super::forward::{ForwardRow, ForwardTotals, TotalsKey, day_of};
use super::row::{BroadcastRow, Downstream, EventRow, OutcomeRow, PUBLICATIONS, SettlementRow};
use super::schema::{Table, UnderWay, channel_key, htlc_key, numbered_key, outcome_key, outpoint_key, preimage_key};
use super::token::{Spent, TokenId};

/// Where an effect of a channel belongs. `connection` is the one that stood when the step was made: a message for an
/// older one is dropped, since `channel_reestablish` says what to send again (CST-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub peer: NodeId,
    pub connection: u64,
    pub channel: ChannelId,
}

/// The wallet is asked for a funding transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingRequest {
    pub peer: NodeId,
    /// The opening's temporary id.
    pub channel: ChannelId,
    pub script_pubkey: ScriptBuf,
    pub amount: Sat,
    /// The operator's choice; the wallet's estimate if none.
    pub feerate: Option<FeeratePerKw>,
}

/// Work for the wallet and the broadcaster.
#[derive(Debug)]
pub enum ChainOrder {
    Publish(Transaction),
    /// A transaction of the operator's, until a block holds it.
    Send(Transaction),
    Forget(Txid),
    /// A block came and everything before this was ordered: what is published is looked at again.
    NewBlock,
    /// A block is about to be taken back. The next one may hold the same transactions.
    BlockLeft,
    Fund(FundingRequest),
    /// An opening ended before its funding transaction was published: its inputs are free again.
    Release(Txid),
    /// All that is to be enforced for a failed channel as its rows stand now, in the place of what was ordered before; none
    /// where the channel is over.
    Enforce {
        channel: ChannelId,
        params: Arc<ChannelParams>,
        enforcement: Option<Box<Enforcement>>,
    },
    /// Somebody waits until all that was ordered before has been carried out.
    Reached(oneshot::Sender<()>),
}

/// Something that happens only after the commit of the batch that holds it, or, where it stays within the node, once that has its
/// place in the queue.
#[derive(Debug)]
pub enum Held {
    /// An effect of a channel. `guard` is the signer's, as the rows of the same step make it.
    Channel { at: Address, effect: Box<Effect>, guard: Option<Guard> },
    /// An order to a channel, decided by rows of this batch.
    Order { peer: NodeId, channel: ChannelId, id: CommandId, command: Command },
    /// A received HTLC was decided by a row of this batch: its channel is told.
    Settled { peer: NodeId, channel: ChannelId, htlc_id: u64, settlement: SettlementRow },
    /// The rows of a channel have gone into history: it may leave memory.
    Archived { peer: NodeId, channel: ChannelId },
    /// Work for the wallet or the broadcaster.
    Chain(ChainOrder),
    /// Somebody waits for these rows to be durable.
    Durable(oneshot::Sender<()>),
}

impl Held {
    /// Whether it stays within the node: nothing of it is a promise to anybody. Where sinks are required, an HTLC is not handed
    /// on, nor its failure told, before they have it.
    fn is_order(&self, waits_for_sinks: bool) -> bool {
        match self {
            Self::Order { .. } | Self::Settled { .. } => true,
            Self::Channel { effect, .. } => match &**effect {
                Effect::Incoming(_) | Effect::Settle { .. } => !waits_for_sinks || !gate::is_promise(effect),
                Effect::Send(_)
                | Effect::Revoke { .. }
                | Effect::Disconnect(_)
                | Effect::Publish { .. }
                | Effect::Restored { .. }
                | Effect::Watch(_)
                | Effect::Removed { .. }
                | Effect::Reply(..)
                | Effect::Note(_) => false,
            },
            Self::Archived { .. } | Self::Chain(_) | Self::Durable(_) => false,
        }
    }

    /// Whether something happens once it is released.
    fn is_awaited(&self) -> bool {
        match self {
            Self::Channel { effect, .. } => match &**effect {
                Effect::Removed { .. } | Effect::Note(_) => false,
                Effect::Send(_)
                | Effect::Revoke { .. }
                | Effect::Disconnect(_)
                | Effect::Publish { .. }
                | Effect::Restored { .. }
                | Effect::Watch(_)
                | Effect::Incoming(_)
                | Effect::Settle { .. }
                | Effect::Reply(..) => true,
            },
            Self::Order { .. } | Self::Settled { .. } | Self::Archived { .. } | Self::Chain(_) | Self::Durable(_) => {
                true
            }
        }
    }
}

/// One step of one channel, to be staged whole: there is no way to stage a channel without its monitor.
#[derive(Debug)]
pub struct Step<'a> {
    pub changes: &'a ChannelChanges,
    pub monitor: &'a MonitorChanges,
    /// What the signer may do once these rows are durable.
    pub guard: Guard,
    pub effects: Vec<Effect>,
    /// The call that asked for the channel, where it is born of this step.
    pub op_id: Option<[u8; 16]>,
}

/// One write: a value, or `None` to delete.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// Rows and effects of one step or of many.
#[derive(Debug, Default)]
#[must_use = "a batch that is not submitted is a step that never was"]
pub struct Batch {
    pub(super) writes: Vec<Write>,
    pub(super) events: Vec<EventRow>,
    pub(super) forwards: Vec<ForwardRow>,
    /// To be added to what the rows hold: several peers' workers have a part in one sum, so the writer makes it.
    pub(super) totals: BTreeMap<TotalsKey, ForwardTotals>,
    /// To be added to what was spent with a token, likewise.
    pub(super) spent: BTreeMap<TokenId, Spent>,
    /// The numbers of the local commitments that come with it.
    pub(super) commitments: BTreeMap<ChannelId, u64>,
    held: Vec<Held>,
    /// Nothing comes after it: the generation of the file rises.
    pub(super) is_last: bool,
    /// What it rests on could not be read.
    pub(super) fault: Option<StoreError>,
}

/// Effects whose rows are durable; or orders, which stay within the node and whose rows are in the writer's hands (ADR 11). Made
/// by the writer alone, opened by `manager::deliver` alone.
#[derive(Debug)]
#[must_use = "released effects that nobody delivers are lost"]
pub struct Released {
    held: Vec<Held>,
}

impl Released {
    /// What is left of released effects once some of them have been kept back.
    pub(super) fn of(held: Vec<Held>) -> Self {
        Self { held }
    }

    /// Whether there is nothing to deliver.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What there is to deliver, to be looked at: only who opens it can carry it out.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// Forgets all but the first `count`: what is left where a process ends in the midst of delivery.
    pub fn keep(&mut self, count: usize) {
        self.held.truncate(count);
    }

    /// The effects, in the order in which they were staged.
    pub fn open(self) -> Vec<Held> {
        self.held
    }
}

impl Batch {
    /// Takes in one step of one channel: its rows, its monitor's rows, what must be known of its effects after a
    /// crash, and the effects themselves. `at_unix` is the time that events of the step carry.
    pub fn stage(&mut self, at: Address, step: Step<'_>, at_unix: u64) {
        self.stage_channel(&at.channel, step.changes);
        self.stage_monitor(&at.channel, step.monitor);
        let revoked = step.effects.iter().rev().find_map(revoked);
        let is_first = step.changes.params.is_some();
        let number = revoked.map(|number| number.saturating_add(1)).or(is_first.then_some(0));
        if let Some(number) = number {
            self.comes(at.channel, number);
        }
        for effect in step.effects {
            self.stage_effect(at, &effect, (at_unix, step.op_id));
            self.held.push(Held::Channel { at, effect: Box::new(effect), guard: Some(step.guard) });
        }
    }

    /// A local commitment comes with this batch. One that came before may be told again: it counts as having come with this one.
    pub(super) fn comes(&mut self, channel: ChannelId, number: u64) {
        self.commitments.insert(channel, number);
    }

    /// Holds an effect behind which no row stands: a message of an opening, a refusal.
    pub fn hold_effect(&mut self, at: Address, effect: Effect) {
        self.held.push(Held::Channel { at, effect: Box::new(effect), guard: None });
    }

    /// Takes in what a channel in history answers. It has no rows to write any more, but an effect may have.
    pub fn stage_answer(&mut self, at: Address, effects: Vec<Effect>, at_unix: u64) {
        for effect in effects {
            self.stage_effect(at, &effect, (at_unix, None));
            self.hold_effect(at, effect);
        }
    }

    /// Writes or deletes one row.
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.push(Write { table, key, value });
    }

    /// Something begins: a start before its end must look at it.
    pub fn begin(&mut self, begun: &UnderWay) {
        self.put(Table::UnderWay, begun.key(), Some(Vec::new()));
    }

    /// Its end is in a row of this batch.
    pub fn end(&mut self, begun: &UnderWay) {
        self.put(Table::UnderWay, begun.key(), None);
    }

    /// Adds an event; its sequence number is given at the commit.
    pub fn event(&mut self, event: EventRow) {
        self.events.push(event);
    }

    /// Adds a forward that went through, and counts it; its number is given at the commit.
    pub fn forwarded(&mut self, forward: ForwardRow) {
        self.count(forward.totals_key(), &forward.totals());
        self.forwards.push(forward);
    }

    /// Adds to the totals of a day.
    pub fn count(&mut self, key: TotalsKey, more: &ForwardTotals) {
        self.totals.entry(key).or_default().add(more);
    }

    /// Adds to what was spent with a token.
    pub fn spend(&mut self, token: TokenId, more: Spent) {
        self.spent.entry(token).or_default().add(&more);
    }

    /// What was to be decided in this batch could not be read from the file: it is never written, nor is any after it, and
    /// the process stops. No decision is safer than a wrong one.
    pub fn give_up(&mut self, fault: StoreError) {
        self.fault.get_or_insert(fault);
    }

    /// Holds something until the commit.
    pub fn hold(&mut self, held: Held) {
        self.held.push(held);
    }

    /// The process ends well after this batch: what it leaves is told from every copy that was made before.
    pub fn conclude(&mut self) {
        self.is_last = true;
    }

    /// Folds a later batch into this one: group commit.
    pub fn merge(&mut self, later: Self) {
        self.writes.extend(later.writes);
        self.events.extend(later.events);
        self.forwards.extend(later.forwards);
        later.totals.iter().for_each(|(key, more)| self.count(*key, more));
        later.spent.iter().for_each(|(token, more)| self.spend(*token, *more));
        self.commitments.extend(later.commitments);
        self.held.extend(later.held);
        self.is_last |= later.is_last;
        later.fault.into_iter().for_each(|fault| self.give_up(fault));
    }

    /// Whether the batch has no row. It still keeps its place in the queue.
    pub fn is_rowless(&self) -> bool {
        let has_rows = !self.writes.is_empty() || !self.events.is_empty();
        let has_sums = !self.totals.is_empty() || !self.spent.is_empty();
        !has_rows && !self.is_last && self.forwards.is_empty() && !has_sums
    }

    /// Whether anybody waits for these rows to be durable: a peer for a message, a caller for an answer, a reader of events; or
    /// whether a preimage is among them, which is money. Asked once the orders are out of it.
    pub(super) fn is_awaited(&self) -> bool {
        let is_money = |write: &Write| write.table == Table::Preimage;
        let has_claims = self.fault.is_some() || !self.events.is_empty() || self.writes.iter().any(is_money);
        has_claims || self.held.iter().any(Held::is_awaited)
    }

    /// Takes out what is for this node's own ears: orders to channels and news of HTLCs. They may be told as soon as this
    /// batch has its place in the queue: what comes of them is queued behind it, so it is never durable without these rows,
    /// and nothing of it leaves before both are.
    pub(super) fn take_orders(&mut self, waits_for_sinks: bool) -> Released {
        let is_order = |held: &Held| held.is_order(waits_for_sinks);
        let (orders, held) = std::mem::take(&mut self.held).into_iter().partition(is_order);
        self.held = held;
        Released { held: orders }
    }

    /// The one exit of all other effects. The caller is the writer, after the commit.
    pub(super) fn release(self) -> Released {
        Released { held: self.held }
    }

    fn stage_channel(&mut self, channel: &ChannelId, changes: &ChannelChanges) {
        if let Some(params) = &changes.params {
            self.put(Table::ChannelParams, channel_key(channel), Some(params.encode()));
        }
        if let Some(head) = &changes.head {
            self.put(Table::ChannelHead, channel_key(channel), Some(head.encode()));
        }
        for (key, row) in &changes.htlcs {
            self.put(Table::Htlc, htlc_key(channel, *key), row.as_ref().map(|row| row.encode()));
        }
        for (key, onion) in &changes.onions {
            self.put(Table::Onion, htlc_key(channel, *key), onion.as_ref().map(|onion| onion.to_vec()));
        }
    }

    fn stage_monitor(&mut self, channel: &ChannelId, changes: &MonitorChanges) {
        if let Some(head) = &changes.head {
            self.put(Table::MonitorHead, channel_key(channel), Some(head.encode()));
        }
        for (key, evidence) in &changes.evidence {
            self.put(Table::Evidence, htlc_key(channel, *key), Some(evidence.encode()));
        }
        for (slot, (number, secret)) in &changes.secrets {
            let mut value = number.to_be_bytes().to_vec();
            value.extend_from_slice(secret);
            self.put(Table::Secret, numbered_key(channel, u64::from(*slot)), Some(value));
        }
        for (number, signatures) in &changes.htlc_signatures {
            let value = signatures
                .as_ref()
                .map(|signatures| signatures.iter().flat_map(|signature| signature.serialize_compact()).collect());
            self.put(Table::HtlcSignatures, numbered_key(channel, *number), value);
        }
        if let Some(spend) = &changes.spend {
            self.put(Table::FundingSpend, channel_key(channel), spend.as_ref().map(Row::encode));
        }
        for (outpoint, taken) in &changes.taken {
            self.put(Table::Taken, outpoint_key(channel, outpoint), taken.as_ref().map(Row::encode));
        }
        for (hash, preimage) in &changes.preimages {
            self.put(
                Table::Preimage,
                preimage_key(channel, hash),
                preimage.as_ref().map(|preimage| preimage.0.to_vec()),
            );
        }
    }

    /// The rows from which an effect is made again after a crash, where the channel's own rows do not suffice.
    fn stage_effect(&mut self, at: Address, effect: &Effect, (at_unix, op_id): (u64, Option<[u8; 16]>)) {
        match effect {
            Effect::Settle { htlc_id, source, amount, payment_hash, outcome } => {
                let offered = Downstream { channel: at.channel, htlc_id: *htlc_id, amount: *amount };
                self.stage_outcome(offered, *source, *payment_hash, outcome, at_unix);
            }
            Effect::Publish { what, tx } => {
                let row = BroadcastRow { channel: at.channel, what: *what, tx: tx.clone() };
                self.put(Table::Broadcast, row.key(), Some(row.encode()));
            }
            Effect::Removed { htlc_id } => {
                self.put(Table::Settlement, numbered_key(&at.channel, *htlc_id), None);
            }
            Effect::Note(note) => {
                let event = EventRow::of_channel(at_unix, at.peer, at.channel, note);
                self.events.extend(event.map(|event| event.of_call(op_id)));
                for what in no_longer_published(note) {
                    self.put(Table::Broadcast, BroadcastRow::key_of(&at.channel, *what), None);
                }
                if is_end(note) {
                    self.put(Table::ForwardingTerms, channel_key(&at.channel), None);
                    for whose in [UpdateOf::Local, UpdateOf::Remote] {
                        self.put(Table::ChannelUpdate, whose.key(&at.channel), None);
                    }
                }
            }
            // Whoever hears of a proof first has its row queued before this batch (`Env::enter_restored`).
            Effect::Restored { .. }
            | Effect::Send(_)
            | Effect::Revoke { .. }
            | Effect::Disconnect(_)
            | Effect::Watch(_)
            | Effect::Incoming(_)
            | Effect::Reply(..) => {}
        }
    }

    /// An outcome is a row in the transaction of the step that learned it: of a payment of ours, or the settlement of the
    /// HTLC that was relayed. An add that was never committed needs none: its HTLC has no row either.
    fn stage_outcome(
        &mut self,
        offered: Downstream,
        source: HtlcSource,
        payment_hash: PaymentHash,
        outcome: &HtlcOutcome,
        at_unix: u64,
    ) {
        match source {
            HtlcSource::Payment { payment_id, part } => {
                if let Some(row) = OutcomeRow::of(part, payment_hash, outcome) {
                    let key = outcome_key(&payment_id, &offered.channel, offered.htlc_id);
                    self.put(Table::Outcome, key, Some(row.encode()));
                }
            }
            HtlcSource::Relayed { channel, htlc_id } => {
                let Some(row) = SettlementRow::of_downstream(outcome, offered) else { return };
                self.put(Table::Settlement, numbered_key(&channel, htlc_id), Some(row.encode()));
                if !row.is_fulfilled() {
                    let outgoing = Some(offered.channel);
                    let key = TotalsKey { day: day_of(at_unix), incoming: channel, outgoing };
                    self.count(key, &ForwardTotals::one_failed());
                }
            }
        }
    }
}

/// The number of the commitment that is revoked, once its successor is durable.
fn revoked(effect: &Effect) -> Option<u64> {
    if let Effect::Revoke { number } = effect { Some(*number) } else { None }
}

/// What needs no more broadcasting after this news.
fn no_longer_published(note: &ChannelNote) -> &'static [Publication] {
    match note {
        ChannelNote::Ready { .. } => &[Publication::Funding],
        ChannelNote::Closed { .. } => &PUBLICATIONS,
        ChannelNote::Pending { .. }
        | ChannelNote::ShuttingDown { .. }
        | ChannelNote::Closing { .. }
        | ChannelNote::Spent { .. }
        | ChannelNote::Swept { .. }
        | ChannelNote::Failed { .. }
        | ChannelNote::FundingMismatch { .. }
        | ChannelNote::NeverFunded { .. }
        | ChannelNote::FundingStuck { .. } => &[],
    }
}

/// Whether nothing will be forwarded over the channel any more, for good.
fn is_end(note: &ChannelNote) -> bool {
    match note {
        ChannelNote::Closed { .. } | ChannelNote::NeverFunded { .. } => true,
        ChannelNote::Pending { .. }
        | ChannelNote::Ready { .. }
        | ChannelNote::ShuttingDown { .. }
        | ChannelNote::Closing { .. }
        | ChannelNote::Spent { .. }
        | ChannelNote::Swept { .. }
        | ChannelNote::Failed { .. }
        | ChannelNote::FundingMismatch { .. }
        | ChannelNote::FundingStuck { .. } => false,
    }
}
