//! The hub: from the writer to every sink and back. It knows which sinks there are, gives each what commits changed, and lets
//! promises go once the required ones have completed.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use crossbeam_channel::Sender;
use outrigger_bolt::id::{ChannelId, NodeId};
use redb::{Database, ReadableDatabase};
use tokio::sync::watch;

use super::desk::{Desk, SinkTerms};
use super::ends::{Now, SinkEnds};
use super::followed::Followed;
use super::gate::{Gate, HeldEvents};
use super::image::{TipRecord, Update};
use super::lanes::{Completed, Lanes};
use super::news::{News, Unstored};
use super::numbering::Numbering;
use super::owed::Owed;
use super::refusals::Refusals;
use super::start::Start;
use super::verified::Verified;
use super::{Answer, Holding, Persist};
use crate::lock::{Mutex, RwLock};
use crate::store::StoreError;
use crate::store::batch::{Released, Write};

/// Time as the hub reads it.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    pub now: Now,
    /// Seconds since 1970.
    pub unix: fn() -> u64,
}

/// Makes a sink of the ends that it is given. What it refuses was refused before.
pub type Open = Box<dyn FnOnce(SinkEnds) -> Box<dyn Persist>>;

/// Delivers what may leave.
type Deliver = dyn Fn(Released, u64) + Send + Sync;

/// All sinks, and what waits for them.
pub struct Hub {
    network: String,
    node_id: NodeId,
    db: Arc<Database>,
    clocks: Clocks,
    has_required: bool,
    desks: Vec<Desk>,
    /// Threads of sinks that have not ended.
    living: AtomicUsize,
    numbering: Mutex<Numbering>,
    gate: Mutex<Gate>,
    owed: Mutex<Owed>,
    /// When a restore from each sink was last found right, as it goes into the database.
    verified: Mutex<Verified>,
    start: Start,
    stalled: RwLock<HashSet<ChannelId>>,
    /// The newest event that may be told.
    readable: watch::Sender<u64>,
    deliver: OnceLock<Box<Deliver>>,
    news: Sender<News>,
    /// The first proof that the file is old.
    proof: OnceLock<String>,
}

impl Hub {
    /// The hub over this file, with a sink for each of these terms, which `open` makes in their order. `start` says which channels
    /// there are; `last_event` is the newest event in the file.
    pub fn new(
        (network, node_id): (&str, NodeId),
        db: Arc<Database>,
        (start, last_event): (Start, u64),
        clocks: Clocks,
        sinks: Vec<(SinkTerms, Open)>,
        news: Sender<News>,
    ) -> (Arc<Self>, Vec<Box<dyn Persist>>) {
        let mut made = Vec::with_capacity(sinks.len());
        let hub = Arc::new_cyclic(|hub: &Weak<Self>| {
            let desks = sinks.into_iter().enumerate().map(|(number, (terms, open))| {
                let told = hub.clone();
                let complete = move |channel: &ChannelId, id: u64| {
                    if let Some(hub) = told.upgrade() {
                        hub.completed(number, channel, id);
                    }
                };
                let told = hub.clone();
                let lost = move |channel: &ChannelId| {
                    if let Some(hub) = told.upgrade() {
                        hub.lost(number, channel);
                    }
                };
                let ends = SinkEnds::new(complete, clocks.now).losing(lost);
                made.push(open(ends.clone()));
                let mut lanes = Lanes::default();
                let now = (clocks.now)();
                start.channels().for_each(|(channel, at)| lanes.load(*channel, at.funding, at.id, now));
                let before = (start.refused_by(&terms.name), start.verified().0.get(&terms.name).copied());
                Desk::new(terms, ends, lanes, before)
            });
            let desks: Vec<_> = desks.collect();
            let has_required = desks.iter().any(|desk| desk.terms.is_required);
            let mut gate = Gate::starting_at(last_event);
            if has_required {
                start.channels().for_each(|(channel, at)| gate.load(*channel, at));
            }
            Self {
                network: network.to_owned(),
                node_id,
                numbering: Mutex::new(Numbering::new(db.clone(), &start)),
                db,
                clocks,
                has_required,
                desks,
                living: AtomicUsize::new(0),
                gate: Mutex::new(gate),
                owed: Mutex::new(start.owed()),
                verified: Mutex::new(start.verified().clone()),
                start,
                stalled: RwLock::default(),
                readable: watch::Sender::new(last_event),
                deliver: OnceLock::new(),
                news,
                proof: OnceLock::new(),
            }
        });
        (hub, made)
    }

    /// Starts the sinks, each on a thread of its own. What may leave goes to `deliver`, which only enqueues.
    pub fn run(
        self: &Arc<Self>,
        sinks: Vec<Box<dyn Persist>>,
        deliver: impl Fn(Released, u64) + Send + Sync + 'static,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        self.deliver_to(deliver);
        let serve = |(number, sink): (usize, Box<dyn Persist>)| {
            let hub = self.clone();
            self.living.fetch_add(1, Ordering::AcqRel);
            let work = move || {
                hub.serve(number, sink);
                hub.living.fetch_sub(1, Ordering::AcqRel);
            };
            std::thread::Builder::new().name(format!("sink-{number}")).spawn(work)
        };
        sinks.into_iter().enumerate().map(serve).collect()
    }

    /// Where what may leave goes; the first word counts.
    pub fn deliver_to(&self, deliver: impl Fn(Released, u64) + Send + Sync + 'static) {
        let _is_first = self.deliver.set(Box::new(deliver));
    }

    /// Whether promises wait for any sink.
    pub fn has_required(&self) -> bool {
        self.has_required
    }

    /// Sinks are given nothing more, and their threads end.
    pub fn stop(&self) {
        self.desks.iter().for_each(Desk::stop);
    }

    /// Numbers the writes of a commit to come: what they are to sinks. The ids become writes of the same commit.
    /// `commitments` are the numbers of the local commitments that come with it.
    pub(in crate::store) fn number(
        &self,
        writes: &mut Vec<Write>,
        commitments: &BTreeMap<ChannelId, u64>,
    ) -> Result<Vec<Arc<Update>>, StoreError> {
        self.numbering.lock().number(writes, commitments)
    }

    /// The commit of these updates is durable: sinks are given them. Called before what it released is.
    pub(in crate::store) fn committed(&self, updates: Vec<Arc<Update>>) {
        if updates.is_empty() {
            return self.numbering.lock().committed(&updates);
        }
        let now = (self.clocks.now)();
        {
            let mut owed = self.owed.lock();
            updates.iter().for_each(|update| owed.take_in(update));
        }
        let params: Vec<_> = updates.iter().map(|update| update.params()).collect();
        // Under the gate's lock, as all that asks how far sinks are: no completion is looked at before the gate knows
        // the id, and every sink has it to do.
        let mut gate = self.gate.lock();
        if self.has_required {
            let born = params.iter().flatten().map(|born| (born.channel_id, born.peer));
            gate.committed(updates.iter().map(|update| (update.channel, update.id)).collect(), born);
        }
        let fundings: Vec<_> =
            params.iter().map(|born| born.as_ref().map_or_else(unknown_funding, |born| born.funding)).collect();
        let add = |lanes: &mut Lanes| {
            updates.iter().zip(&fundings).for_each(|(update, funding)| lanes.add(update, *funding, now));
        };
        self.desks.iter().for_each(|desk| desk.with(add));
        drop(gate);
        // Behind it: a record of the tip that names these ids is given behind them.
        self.numbering.lock().committed(&updates);
    }

    /// What the writer released. Promises stay until every required sink has what they stand on.
    pub fn release(&self, released: Released, last_seq: u64) {
        let now = (self.clocks.now)();
        let mut gate = self.gate.lock();
        gate.events(last_seq, now);
        let passed = if self.has_required { gate.pass(released, now) } else { released };
        self.tell(&gate, passed, last_seq);
    }

    /// A block that sinks are to know of. Where the file says which one the rows of all channels have taken in it is that one: of it is
    /// known which ids have it.
    pub fn tip(&self, height: u32, hash: BlockHash, peers: Vec<(NodeId, String)>) {
        let standing = self.numbering.lock().standing();
        let (block, channels) = standing.map_or((Followed { height, hash }, None), |(block, ids)| (block, Some(ids)));
        let (network, node_id, at_unix) = (self.network.clone(), self.node_id, (self.clocks.unix)());
        let Followed { height, hash } = block;
        let tip = TipRecord { network, node_id, height, hash, at_unix, peers, channels };
        for desk in &self.desks {
            desk.with(|lanes| lanes.add_tip(tip.clone()));
        }
    }

    /// The node is in restored mode: nothing is promised any more, and no sink is given what may be older than what it has.
    /// Not to be called under a peer's lock.
    pub fn give_up(&self) {
        let mut gate = self.gate.lock();
        self.desks.iter().for_each(|desk| desk.with(Lanes::turn_off));
        let freed = gate.open();
        let newest = gate.newest();
        self.tell(&gate, freed, newest);
    }

    /// Whether every sink has told what it holds.
    pub fn has_heard_all(&self) -> bool {
        self.desks.iter().all(|desk| desk.has_told.load(Ordering::Acquire))
    }

    /// Whether every sink has everything that it is to have.
    pub fn is_drained(&self) -> bool {
        let now = (self.clocks.now)();
        self.desks.iter().all(|desk| desk.with(|lanes| lanes.lag(now).updates == 0))
    }

    /// Whether every sink's thread has ended, and what it had to put in order before.
    pub fn has_ended(&self) -> bool {
        self.living.load(Ordering::Acquire) == 0
    }

    /// The proof that the file is an old copy, where a sink has told of one: known before that sink counts as heard.
    pub fn proof(&self) -> Option<&str> {
        self.proof.get().map(String::as_str)
    }

    /// The newest event that may be told, and word of it.
    pub fn readable_events(&self) -> watch::Receiver<u64> {
        self.readable.subscribe()
    }

    /// The events that required sinks hold back.
    pub fn held_events(&self) -> HeldEvents {
        self.gate.lock().held_events((self.clocks.now)())
    }

    /// What a sink holds is known and durable.
    pub(super) fn learn(&self, number: usize, holdings: &[Holding]) {
        let Some(desk) = self.desks.get(number) else { return };
        if let Some(behind) = self.judged(desk, holdings) {
            self.take_in(desk, behind, holdings);
            self.has_told(desk);
        }
    }

    /// Channels that are to be given in full, with their ids; nothing where what is there and not here proves that this file is old.
    pub(super) fn judged(&self, desk: &Desk, holdings: &[Holding]) -> Option<Vec<(ChannelId, u64)>> {
        let judged = self
            .db
            .begin_read()
            .map_err(StoreError::from)
            .and_then(|transaction| self.start.judge(&transaction, &desk.terms.name, holdings));
        match judged {
            Ok(Ok(behind)) => return Some(behind),
            Ok(Err(proof)) => self.is_ahead(desk, proof),
            Err(fault) => {
                let _ = self.news.send(News::Storage(fault));
            }
        }
        None
    }

    /// What is there needs no full write, and nothing waits for it.
    pub(super) fn take_in(&self, desk: &Desk, behind: Vec<(ChannelId, u64)>, holdings: &[Holding]) {
        let now = (self.clocks.now)();
        desk.with(|lanes| {
            behind.into_iter().for_each(|(channel, id)| lanes.load(channel, unknown_funding(), id, now));
            lanes.told(holdings, &self.start.ids());
        });
        self.clear_all();
    }

    /// What it holds does not prove the file old.
    pub(super) fn has_told(&self, desk: &Desk) {
        if !desk.has_told.swap(true, Ordering::AcqRel) {
            self.tell_if_heard();
        }
    }

    /// A sink has what the file has not: the file is an old copy, nothing is promised any more, and the sink is given nothing.
    fn is_ahead(&self, desk: &Desk, proof: String) {
        let mut gate = self.gate.lock();
        gate.seal();
        desk.with(Lanes::turn_off);
        drop(gate);
        let _is_first = self.proof.set(proof.clone());
        desk.has_told.store(true, Ordering::Release);
        let _ = self.news.send(News::Ahead { proof });
    }

    /// What a sink said to a write.
    fn answered(&self, number: usize, (channel, id): (&ChannelId, u64), answer: Answer, is_new: bool) {
        let Some(desk) = self.desks.get(number) else { return };
        match answer {
            Answer::Completed => self.completed(number, channel, id),
            Answer::InProgress => {}
            Answer::PermanentFailure(reason) => self.failed(desk, channel, &reason, is_new),
        }
        desk.with(|lanes| lanes.answered(channel));
    }

    /// Something is durable in a sink.
    fn completed(&self, number: usize, channel: &ChannelId, id: u64) {
        let Some(desk) = self.desks.get(number) else { return };
        match desk.with(|lanes| lanes.completed(channel, id)) {
            Completed::UpTo(_) => {
                desk.has_completed((self.clocks.unix)());
                if desk.terms.is_required {
                    self.clear(channel);
                }
            }
            Completed::Stray => {
                let sink = &desk.terms.name;
                tracing::warn!(%sink, %channel, id, "the sink completed what it was not given, or had completed before");
            }
        }
    }

    /// A sink has lost what it had of a channel: it is given all of it again, and what comes waits for that.
    fn lost(&self, number: usize, channel: &ChannelId) {
        let Some(desk) = self.desks.get(number) else { return };
        let sink = &desk.terms.name;
        tracing::error!(%sink, %channel, "the sink has lost what it had of the channel: it is written anew");
        desk.with(|lanes| lanes.lost(channel, (self.clocks.now)()));
    }

    /// A sink will never have the channel. Only what is required costs it its life; a second time is the sink's fault and not the
    /// channel's.
    fn failed(&self, desk: &Desk, channel: &ChannelId, reason: &str, is_new: bool) {
        let SinkTerms { name, is_required, .. } = &desk.terms;
        let is_second = desk.has_refused(channel, reason);
        tracing::error!(sink = %name, %channel, %reason, "the sink will never have the channel");
        // Others may complete the channel meanwhile: that it is dead in this sink lets nothing go.
        let mut gate = self.gate.lock();
        desk.with(|lanes| lanes.give_up(channel));
        if !is_required {
            return;
        }
        if is_second {
            gate.seal();
            let reason = format!("the backup {name} failed for good a second time: {reason}");
            let _ = self.news.send(News::Dead { reason });
            return;
        }
        let (freed, complete) = gate.fail(channel);
        let newest = gate.newest();
        self.tell(&gate, freed, newest);
        let reason = format!("the backup {name} will never have it: {reason}");
        let unstored = Unstored { channel: *channel, reason, is_new, complete, refusals: self.refusals() };
        // Under the gate's lock, as in `clear`: what is known of a channel that failed is told behind that it does.
        let _ = self.news.send(News::Unstored(unstored));
    }

    /// What required sinks have refused for good.
    fn refusals(&self) -> Refusals {
        let required = self.desks.iter().filter(|desk| desk.terms.is_required);
        Refusals(required.filter_map(|desk| Some((desk.terms.name.clone(), desk.refused()?))).collect())
    }

    /// Lets go what every required sink has. Under the gate's lock no sink is without a channel that another has to do:
    /// one that has none of it has completed its end, or will never have it, and then the gate knows.
    fn clear(&self, channel: &ChannelId) {
        let mut gate = self.gate.lock();
        let required = || self.desks.iter().filter(|desk| desk.terms.is_required);
        let cleared = required().filter_map(|desk| desk.complete(channel)).min().unwrap_or(u64::MAX);
        let has = required().filter_map(|desk| desk.had(channel)).min().unwrap_or(u64::MAX);
        let kept = gate.has(channel, has);
        let freed = gate.cleared(channel, cleared);
        let newest = gate.newest();
        self.tell(&gate, freed, newest);
        if let Some(number) = kept {
            let _ = self.news.send(News::Kept { channel: *channel, number });
        }
    }

    fn clear_all(&self) {
        if self.has_required {
            self.start.channels().for_each(|(channel, _)| self.clear(channel));
        }
    }

    /// Under the gate's lock, so that what goes on keeps the order in which it was let go.
    fn tell(&self, gate: &Gate, passed: Released, last_seq: u64) {
        if let Some(deliver) = self.deliver.get() {
            deliver(passed, last_seq);
        }
        let readable = gate.readable();
        self.readable.send_if_modified(|newest| std::mem::replace(newest, readable) != readable);
    }
}

/// No output of a transaction.
fn unknown_funding() -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout: u32::MAX }
}

mod give;
mod serve;
mod shown;
#[cfg(test)]
mod tests;
