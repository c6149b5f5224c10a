//! The Persist contract as a suite that anybody's sink can be put through: what it is given, what it must complete, and what
//! must be read back of it, over restarts and kills. `outriggerd sink-check` runs it on an operator's program.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Txid};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use outrigger_bolt::id::{ChannelId, NodeId};

use super::ends::Now;
use super::image::{Image, RowChange, TipRecord, Update};
use super::source::Source;
use super::{Answer, Full, Persist, SinkEnds};
use crate::store::schema::Table;

mod checks;
#[cfg(test)]
mod tests;

/// What is put through the suite.
pub trait Subject {
    /// A life of the sink, over what its last life left.
    fn sink(&mut self, ends: SinkEnds) -> Result<Box<dyn Persist>, String>;

    /// Ends a life as a crash would: nothing is finished any more.
    fn kill(&mut self, sink: Box<dyn Persist>) {
        drop(sink);
    }

    /// Whether what is kept can be read while the sink lives; else its life ends for each look.
    fn reads_beside(&self) -> bool {
        true
    }

    /// Reads what is kept.
    fn source(&mut self) -> Result<Box<dyn Source>, String>;

    /// The same in the name of another node; nothing where the sink is one node's by its place.
    fn source_of_another(&mut self) -> Option<Result<Box<dyn Source>, String>> {
        None
    }

    /// Checks that have no meaning for it, by name and each with why. A sink has none: it is asked everything.
    fn left_out(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// For whom the sink keeps, and how long it has.
#[derive(Clone)]
pub struct Terms {
    pub network: String,
    pub node_id: NodeId,
    /// How long a completion may take.
    pub patience: Duration,
    pub now: Now,
    /// What the last check draws its order from.
    pub seed: u64,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub name: &'static str,
    /// What the contract asks.
    pub asks: &'static str,
    /// What is wrong, where anything is.
    pub fault: Option<String>,
}

/// A statement of the contract, and how it is looked at.
struct Check {
    name: &'static str,
    asks: &'static str,
    run: fn(&mut Bench<'_>) -> Result<(), String>,
}

/// Puts the subject through every check that has a meaning for it, each on channels of its own. Where not even a new channel is
/// kept, nothing else is looked at.
pub fn run(subject: &mut dyn Subject, terms: &Terms) -> Vec<Outcome> {
    let mut first = 1;
    let mut outcomes = Vec::new();
    let left_out = subject.left_out();
    for check in checks::ALL.iter().filter(|check| left_out.iter().all(|(name, _)| *name != check.name)) {
        let fault = Bench::open(subject, terms, first).and_then(|mut bench| (check.run)(&mut bench)).err();
        let is_hopeless = outcomes.is_empty() && fault.is_some();
        outcomes.push(Outcome { name: check.name, asks: check.asks, fault });
        if is_hopeless {
            break;
        }
        first += checks::CHANNELS_EACH;
    }
    outcomes
}

/// One check under way: the sink, what it was given, and what it has to have.
struct Bench<'a> {
    subject: &'a mut dyn Subject,
    terms: &'a Terms,
    /// The number of the check's first channel.
    first: u64,
    /// Nothing between two lives.
    life: Option<Life>,
    /// The newest id that was complete, by channel.
    complete: BTreeMap<ChannelId, u64>,
    /// The newest id that was given, by channel: what is kept may be as new.
    given: BTreeMap<ChannelId, u64>,
}

struct Life {
    sink: Box<dyn Persist>,
    heard: Receiver<(ChannelId, u64)>,
    ends: SinkEnds,
    /// What it said at its start that it holds.
    held: BTreeMap<ChannelId, u64>,
    /// Writes that are to be completed by a call.
    open: BTreeSet<(ChannelId, u64)>,
}

/// A write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    New,
    Full,
    /// What changed since this id.
    Update {
        after: u64,
    },
}

impl<'a> Bench<'a> {
    fn open(subject: &'a mut dyn Subject, terms: &'a Terms, first: u64) -> Result<Self, String> {
        let mut bench = Self { subject, terms, first, life: None, complete: BTreeMap::new(), given: BTreeMap::new() };
        bench.start()?;
        Ok(bench)
    }

    fn start(&mut self) -> Result<(), String> {
        let (told, heard) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(
            move |channel: &ChannelId, id| {
                // Who does not listen any more has ended that life.
                let _ = told.send((*channel, id));
            },
            self.terms.now,
        );
        let mut sink = self.subject.sink(ends.clone())?;
        let asked = within(self.terms.patience, ends.clone(), || {
            ends.until_well(|| {
                let holdings = sink.holdings()?;
                sink.settle().map(|()| holdings)
            })
        });
        let held = match asked {
            Some(Ok(holdings)) => holdings.into_iter().map(|holding| (holding.channel, holding.id)).collect(),
            Some(Err(fault)) => return Err(format!("it does not say what it holds: {fault}")),
            None => return Err(format!("it did not say what it holds in time{}", trouble(&ends))),
        };
        self.life = Some(Life { sink, heard, ends, held, open: BTreeSet::new() });
        Ok(())
    }

    /// The sink's process ends in order, and begins again.
    fn restart(&mut self) -> Result<(), String> {
        self.end();
        self.start()
    }

    fn end(&mut self) {
        if let Some(life) = self.life.take() {
            life.ends.stop();
            drop(life.sink);
        }
    }

    /// The sink is killed, and begins again.
    fn kill(&mut self) -> Result<(), String> {
        if let Some(mut life) = self.life.take() {
            life.sink.all_given();
            // What it had completed until then counts.
            self.heard_so_far(&life)?;
            life.ends.stop();
            self.subject.kill(life.sink);
        }
        self.start()
    }

    fn heard_so_far(&mut self, life: &Life) -> Result<(), String> {
        for (channel, id) in life.heard.try_iter() {
            if !life.open.contains(&(channel, id)) {
                return Err(stray(&channel, id));
            }
            self.note(channel, id);
        }
        Ok(())
    }

    fn note(&mut self, channel: ChannelId, id: u64) {
        let newest = self.complete.entry(channel).or_default();
        *newest = id.max(*newest);
    }

    fn channel(&self, number: u64) -> ChannelId {
        let mut name = [0xc4; 32];
        let number = (self.first + number).to_be_bytes();
        name.iter_mut().zip(number).for_each(|(to, from)| *to = from);
        ChannelId(name)
    }

    /// Gives a write of the check's `number`th channel. The view that goes with it is at `view`.
    fn give(&mut self, number: u64, id: u64, view: u64, write: Write) -> Result<(), String> {
        let channel = self.channel(number);
        let image = image(self.terms, channel, view);
        let changes = match write {
            Write::New | Write::Full => None,
            Write::Update { after } => Some(update(channel, after, id)),
        };
        self.give_image(&image, id, write == Write::New, changes.as_ref())
    }

    /// The last write of a channel's life: its rows go into history.
    fn give_over(&mut self, number: u64, id: u64, as_update: bool) -> Result<(), String> {
        let channel = self.channel(number);
        let mut over = Image::new(&self.terms.network, self.terms.node_id, channel, id);
        let row = |table, value| RowChange { table, key: channel.0.to_vec(), value };
        let changes = vec![
            row(Table::ChannelParams, None),
            row(Table::ChannelHead, None),
            row(Table::ClosedChannel, Some(b"over".to_vec())),
        ];
        over.rows.insert((Table::ClosedChannel, channel.0.to_vec()), b"over".to_vec());
        let update = Update { channel, after: id - 1, id, changes };
        self.give_image(&over, id, false, as_update.then_some(&update))
    }

    fn give_image(&mut self, image: &Image, id: u64, is_new: bool, update: Option<&Update>) -> Result<(), String> {
        let (channel, view) = (image.channel, image.id);
        let read = || Ok(image.clone());
        let (full, funding) = (Full::new(&read), funding(&channel));
        let Some(life) = &mut self.life else { return Err("the sink is not running".to_owned()) };
        // What it does may be told before it answers.
        life.open.insert((channel, id));
        let newest = self.given.entry(channel).or_default();
        *newest = view.max(*newest);
        let (ends, sink) = (life.ends.clone(), &mut life.sink);
        let answer = within(self.terms.patience, ends, || match is_new {
            true => sink.persist_new_channel(&channel, funding, &full, id),
            false => sink.update_persisted_channel(&channel, funding, update, &full, id),
        });
        match answer {
            Answer::Completed => {
                life.open.remove(&(channel, id));
                self.note(channel, id);
                Ok(())
            }
            Answer::InProgress => Ok(()),
            Answer::PermanentFailure(words) => {
                Err(format!("it gave up id {id} of channel {} for good: {words}", short(&channel)))
            }
        }
    }

    /// The next id of a channel, as an update.
    fn follow(&mut self, number: u64, id: u64) -> Result<(), String> {
        self.give(number, id, id, Write::Update { after: id - 1 })
    }

    /// Waits until everything that was given is complete.
    fn settle(&mut self) -> Result<(), String> {
        let Some(life) = &mut self.life else { return Ok(()) };
        life.sink.all_given();
        let mut done = Vec::new();
        while let Some(waits) = life.open.first().copied() {
            // A sink that was stopped has had its time.
            let patience = if life.ends.is_stopping() { Duration::ZERO } else { self.terms.patience };
            match life.heard.recv_timeout(patience) {
                Ok(told) if life.open.remove(&told) => done.push(told),
                Ok((channel, id)) => return Err(stray(&channel, id)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(format!(
                        "id {} of channel {} was not completed within {} s{}",
                        waits.1,
                        short(&waits.0),
                        self.terms.patience.as_secs(),
                        trouble(&life.ends)
                    ));
                }
            }
        }
        done.into_iter().for_each(|(channel, id)| self.note(channel, id));
        Ok(())
    }

    /// Whether anything is completed that is not open, when it has had time to.
    fn hears_nothing_more(&mut self, time: Duration) -> Result<(), String> {
        match self.life.as_ref().map(|life| life.heard.recv_timeout(time)) {
            Some(Ok((channel, id))) => Err(stray(&channel, id)),
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// What is read back is the channel at exactly this id.
    fn reads_back(&mut self, number: u64, id: u64) -> Result<(), String> {
        let channel = self.channel(number);
        let found = self.read(&channel)?;
        if found.id != id {
            return Err(format!("channel {} is read back at id {}, and {id} was completed", short(&channel), found.id));
        }
        self.is_true(&found)
    }

    /// What is read back is the channel at some id that was given, and nothing that was complete is missing.
    fn reads_back_no_less(&mut self, number: u64) -> Result<(), String> {
        let channel = self.channel(number);
        let Some(complete) = self.complete.get(&channel).copied() else { return Ok(()) };
        let found = self.read(&channel)?;
        if found.id < complete {
            return Err(format!(
                "channel {} is read back at id {}, and {complete} was completed",
                short(&channel),
                found.id
            ));
        }
        if self.given.get(&channel).is_none_or(|given| found.id > *given) {
            return Err(format!("channel {} is read back at id {}, which was never given", short(&channel), found.id));
        }
        self.is_true(&found)
    }

    fn read(&mut self, channel: &ChannelId) -> Result<Image, String> {
        if self.subject.reads_beside() {
            return self.read_now(channel);
        }
        self.end();
        let read = self.read_now(channel)?;
        self.start()?;
        Ok(read)
    }

    fn read_now(&mut self, channel: &ChannelId) -> Result<Image, String> {
        let mut source = self.subject.source()?;
        if !source.channels().map_err(|fault| fault.to_string())?.contains(channel) {
            return Err(format!("channel {} is not listed", short(channel)));
        }
        let mut stored = source.read(channel).map_err(|fault| fault.to_string())?;
        let image = stored.image();
        image.ok_or_else(|| {
            format!(
                "channel {} cannot be read back: {}",
                short(channel),
                stored.faults.iter().chain(&stored.unread).cloned().collect::<Vec<_>>().join("; ")
            )
        })
    }

    /// A channel that is over is read back as such, whatever its id is by then, and is not said to live at another one.
    fn is_over(&mut self, number: u64, id: u64) -> Result<(), String> {
        let channel = self.channel(number);
        let found = self.read(&channel)?;
        if found.is_live() || !found.is_closed() {
            return Err(format!("channel {} was over at id {id}, and is read back otherwise", short(&channel)));
        }
        match self.life.as_ref().and_then(|life| life.held.get(&channel)) {
            Some(held) if *held != id => {
                Err(format!("channel {} was over at id {id}, and it says that it holds {held}", short(&channel)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Another node finds nothing of this one's.
    fn is_hidden_from_another(&mut self) -> Result<(), String> {
        let Some(source) = self.subject.source_of_another() else { return Ok(()) };
        let mut source = source?;
        let listed = source.channels().map_err(|fault| fault.to_string())?;
        match listed.first() {
            Some(channel) => Err(format!("another node is listed channel {}, which is this one's", short(channel))),
            None => Ok(()),
        }
    }

    fn is_true(&self, found: &Image) -> Result<(), String> {
        if *found == image(self.terms, found.channel, found.id) {
            return Ok(());
        }
        Err(format!("channel {} is read back with other rows than it had at id {}", short(&found.channel), found.id))
    }

    /// The sink says that it holds this much of a channel: neither less than it completed nor more than it can give back.
    fn holds(&mut self, number: u64, id: u64) -> Result<(), String> {
        let channel = self.channel(number);
        let held = self.life.as_ref().and_then(|life| life.held.get(&channel).copied());
        if held == Some(id) {
            return Ok(());
        }
        let said = held.map_or_else(|| "does not say that it holds".to_owned(), |held| format!("says id {held} of"));
        Err(format!("after a start it {said} channel {}, and {id} was completed", short(&channel)))
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the sink says of itself.
fn trouble(ends: &SinkEnds) -> String {
    ends.trouble_now().map(|(words, _)| format!("; it says: {words}")).unwrap_or_default()
}

/// Does the work; a sink that tries for too long is told that the process ends.
fn within<R>(patience: Duration, ends: SinkEnds, work: impl FnOnce() -> R) -> R {
    let (done, waits) = crossbeam_channel::bounded::<()>(0);
    let watch = move || {
        if waits.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            ends.stop();
        }
    };
    let watcher = std::thread::Builder::new().name("patience".to_owned()).spawn(watch);
    let worked = work();
    drop(done);
    // One that panicked has stopped nothing.
    drop(watcher.map(std::thread::JoinHandle::join));
    worked
}

fn stray(channel: &ChannelId, id: u64) -> String {
    format!("it completed id {id} of channel {}, which is not open: twice, or never given", short(channel))
}

/// A channel by the part of its name that differs.
fn short(channel: &ChannelId) -> String {
    channel.to_string().chars().take(16).collect()
}

fn funding(channel: &ChannelId) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array(channel.0), vout: 0 }
}

/// What a channel's rows are at an id: a head that moves, HTLCs that come and go, evidence that stays.
fn image(terms: &Terms, channel: ChannelId, id: u64) -> Image {
    let mut image = Image::new(&terms.network, terms.node_id, channel, id);
    for change in (1..=id).flat_map(|id| changes(&channel, id)) {
        match change.value {
            Some(value) => image.rows.insert((change.table, change.key), value),
            None => image.rows.remove(&(change.table, change.key)),
        };
    }
    image
}

fn update(channel: ChannelId, after: u64, id: u64) -> Update {
    let mut rows = BTreeMap::new();
    for RowChange { table, key, value } in (after + 1..=id).flat_map(|id| changes(&channel, id)) {
        rows.insert((table, key), value);
    }
    let changes = rows.into_iter().map(|((table, key), value)| RowChange { table, key, value }).collect();
    Update { channel, after, id, changes }
}

fn changes(channel: &ChannelId, id: u64) -> Vec<RowChange> {
    let key = |rest: &[u8]| [channel.0.as_slice(), rest].concat();
    let htlc = |id: u64| key(&[&[0], id.to_be_bytes().as_slice()].concat());
    let put = |table, key, value: Vec<u8>| RowChange { table, key, value: Some(value) };
    let mut changes = vec![
        put(Table::ChannelHead, key(&[]), [b"head".as_slice(), &id.to_be_bytes()].concat()),
        put(Table::Htlc, htlc(id), vec![id.to_be_bytes()[7]; 100]),
        put(Table::Evidence, htlc(id), id.to_be_bytes().to_vec()),
    ];
    if id == 1 {
        changes.push(put(Table::ChannelParams, key(&[]), b"parameters".to_vec()));
    }
    if let Some(gone) = id.checked_sub(3) {
        changes.push(RowChange { table: Table::Htlc, key: htlc(gone), value: None });
    }
    changes
}

fn tip(terms: &Terms, height: u32) -> TipRecord {
    TipRecord {
        network: terms.network.clone(),
        node_id: terms.node_id,
        height,
        hash: BlockHash::from_byte_array([7; 32]),
        at_unix: 1_800_000_000,
        peers: vec![(terms.node_id, "host.example:9735".to_owned())],
        channels: Some(vec![(ChannelId([0xc4; 32]), 7)]),
    }
}
