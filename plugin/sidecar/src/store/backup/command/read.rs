//! Reading back what a program keeps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_bolt::id::ChannelId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::child::{Child, ChildFault, odd_answer};
use super::{LIST_LINE, Machine, Program, RECORD_LINE, kind_of, named};
use crate::lock::Mutex;
use crate::store::backup::directory::Names;
use crate::store::backup::sealed::{RecordKind, RecordName, Sealer};
use crate::store::backup::source::{NamedRecord, Source, SourceFault, StoredChannel};
use crate::store::backup::{Holding, Image, SinkFault, Update};

/// The most channels that a program may list.
const MAX_CHANNELS: usize = 1_000_000;

/// A program that is only asked for what it keeps.
pub struct CommandSource {
    child: Child,
    program: Program,
}

#[derive(Deserialize)]
struct Channels {
    channel_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Records {
    records: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    kind: String,
    #[serde(default)]
    follows: u64,
    update_id: u64,
}

#[derive(Deserialize)]
struct Fetched {
    record: Option<String>,
    #[serde(default)]
    height: Option<u32>,
}

/// One question and its answer.
trait Ask {
    type Fault;
    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Self::Fault>;
    fn odd(&self, fault: ChildFault) -> Self::Fault;
}

struct By<F>(F);

impl<F: FnMut(&'static str, Value, usize) -> Result<Value, SinkFault>> Ask for By<F> {
    type Fault = SinkFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, SinkFault> {
        (self.0)(method, params, line)
    }

    fn odd(&self, fault: ChildFault) -> SinkFault {
        SinkFault::Passing(fault.to_string())
    }
}

impl Ask for CommandSource {
    type Fault = SourceFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, SourceFault> {
        self.child.ask(method, params, line).map_err(|fault| self.odd(fault))
    }

    fn odd(&self, fault: ChildFault) -> SourceFault {
        SourceFault::unreadable(self.program.command.join(" "), fault)
    }
}

impl Ask for Child {
    type Fault = ChildFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, ChildFault> {
        Self::ask(self, method, params, line)
    }

    fn odd(&self, fault: ChildFault) -> ChildFault {
        fault
    }
}

/// A program that keeps on the side, asked between two writes.
pub(super) struct LiveSource {
    machine: Arc<Mutex<Machine>>,
    sealer: Arc<Sealer>,
    place: String,
}

impl LiveSource {
    pub(super) fn new(machine: Arc<Mutex<Machine>>, sealer: Arc<Sealer>) -> Self {
        let place = machine.lock().program.command.join(" ");
        Self { machine, sealer, place }
    }
}

impl Ask for LiveSource {
    type Fault = SourceFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, SourceFault> {
        let answer = self.machine.lock().ask(method, params, line);
        answer.map_err(|fault| SourceFault::unreadable(&self.place, fault))
    }

    fn odd(&self, fault: ChildFault) -> SourceFault {
        SourceFault::unreadable(&self.place, fault)
    }
}

impl Source for LiveSource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        channels(self, true)
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let sealer = self.sealer.clone();
        stored(self, &sealer, channel)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        let sealer = self.sealer.clone();
        newest_tip(self, &sealer)
    }
}

/// The id to which a program that was started again holds each of these channels, by the names that it lists.
pub(super) fn listed(child: &mut Child, wanted: &[(ChannelId, u64)]) -> Result<HashMap<ChannelId, u64>, ChildFault> {
    let there: HashSet<_> = channels(child, false)?.into_iter().collect();
    let mut held = HashMap::new();
    for (channel, _) in wanted.iter().filter(|(channel, _)| there.contains(channel)) {
        if let Some((_, id)) = names(child, channel)?.reach() {
            held.insert(*channel, id);
        }
    }
    Ok(held)
}

/// What the program holds of each channel and is whole by the names that it lists, where the newest record opens.
pub(super) fn holdings(
    sealer: &Sealer,
    ask: impl FnMut(&'static str, Value, usize) -> Result<Value, SinkFault>,
) -> Result<Vec<Holding>, SinkFault> {
    let mut program = By(ask);
    let mut holdings = Vec::new();
    for channel in channels(&mut program, false)? {
        // One channel of which it cannot tell costs no other: it is written anew.
        let names = match names(&mut program, &channel) {
            Ok(names) => names,
            Err(fault) => match channels(&mut program, false) {
                Ok(_) => {
                    tracing::warn!(%channel, %fault, "a backup cannot tell what it holds: it is written anew");
                    continue;
                }
                Err(gone) => return Err(gone),
            },
        };
        let Some((full, id)) = names.reach() else { continue };
        let newest = match names.updates.iter().find(|(_, to)| **to == id && id > full) {
            Some((from, to)) => RecordName::update(channel, *from, *to),
            None => RecordName::full(channel, id),
        };
        match record(&mut program, sealer, newest)? {
            Ok(newest) if is_over(&newest) => {}
            Ok(_) => holdings.push(Holding { channel, id }),
            Err(fault) => tracing::warn!(%channel, %fault, "what a backup holds cannot be read: it is written anew"),
        }
    }
    Ok(holdings)
}

/// Whether the channel was over with this record: the database may not know it any more.
fn is_over(record: &NamedRecord) -> bool {
    match record.name.kind {
        RecordKind::Full => Image::decode(&record.content).is_ok_and(|image| !image.is_live()),
        RecordKind::Update => Update::decode(&record.content).is_ok_and(|update| update.is_last()),
        RecordKind::Tip => false,
    }
}

/// Every channel that the program keeps anything of, page by page, in the order of their names; those that are over may be left
/// out where `over` does not ask for them.
fn channels<A: Ask>(program: &mut A, over: bool) -> Result<Vec<ChannelId>, A::Fault> {
    let method = "list_channels";
    let mut found: Vec<ChannelId> = Vec::new();
    loop {
        let after = found.last().map(ToString::to_string);
        let answer = program.ask(method, json!({ "after": after, "over": over }), LIST_LINE)?;
        let page = Channels::deserialize(&answer).map_err(|_| program.odd(odd_answer(method, &answer)))?;
        if page.channel_ids.is_empty() {
            return Ok(found);
        }
        for name in &page.channel_ids {
            let channel =
                name.parse::<ChannelId>().ok().filter(|channel| found.last().is_none_or(|last| channel > last));
            // A list that does not rise might never end.
            let channel = channel.filter(|_| found.len() < MAX_CHANNELS);
            found.push(channel.ok_or_else(|| program.odd(odd_answer(method, &answer)))?);
        }
    }
}

fn names<A: Ask>(program: &mut A, channel: &ChannelId) -> Result<Names, A::Fault> {
    let method = "list_records";
    let answer = program.ask(method, json!({ "channel_id": channel.to_string() }), LIST_LINE)?;
    let listed = Records::deserialize(&answer).map_err(|_| program.odd(odd_answer(method, &answer)))?;
    let mut names = Names::default();
    for Listed { kind, follows, update_id: id } in listed.records {
        let name = match kind_of(&kind) {
            Some(RecordKind::Full) => RecordName::full(*channel, id),
            Some(RecordKind::Update) if follows < id => RecordName::update(*channel, follows, id),
            Some(_) | None => return Err(program.odd(odd_answer(method, &answer))),
        };
        names.insert(&name);
    }
    Ok(names)
}

/// A record, or what is wrong with it.
fn record<A: Ask>(program: &mut A, sealer: &Sealer, name: RecordName) -> Result<Result<NamedRecord, String>, A::Fault> {
    let method = "fetch";
    let answer = program.ask(method, named(&name), RECORD_LINE)?;
    let fetched = Fetched::deserialize(&answer).map_err(|_| program.odd(odd_answer(method, &Value::Null)))?;
    let what = format!("{} {} of channel {}", name.kind.word(), name.id, name.channel);
    let Some(text) = fetched.record else { return Ok(Err(format!("{what}: the program has lost it"))) };
    let Ok(bytes) = STANDARD.decode(text) else { return Ok(Err(format!("{what}: it is no base64"))) };
    let opened = sealer.open(&name, &bytes);
    Ok(opened.map(|content| NamedRecord { name, content }).map_err(|fault| format!("{what}: {fault}")))
}

impl CommandSource {
    /// Starts the program.
    pub fn start(program: Program) -> Result<Self, SourceFault> {
        let started = program.start(Arc::new(|_, _| false), Arc::new(|| {}));
        match started {
            Ok(child) => Ok(Self { child, program }),
            Err(fault) => Err(SourceFault::unreadable(program.command.join(" "), fault)),
        }
    }
}

impl Source for CommandSource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        channels(self, true)
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let sealer = self.program.sealer.clone();
        stored(self, &sealer, channel)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        let sealer = self.program.sealer.clone();
        newest_tip(self, &sealer)
    }
}

/// What a program has of a channel.
fn stored<A: Ask>(program: &mut A, sealer: &Sealer, channel: &ChannelId) -> Result<StoredChannel, A::Fault>
where
    A::Fault: std::fmt::Display,
{
    let names = names(program, channel)?;
    let mut broken = None;
    let stored = StoredChannel::gather(*channel, &names, |name| match record(program, sealer, name) {
        Ok(record) => record,
        Err(fault) => {
            let words = fault.to_string();
            broken = Some(fault);
            Err(words)
        }
    });
    broken.map_or(Ok(stored), Err)
}

/// The newest record of the chain that a program has.
fn newest_tip<A: Ask>(program: &mut A, sealer: &Sealer) -> Result<Option<Vec<u8>>, A::Fault> {
    let method = "fetch_tip";
    let answer = program.ask(method, json!({}), LIST_LINE)?;
    let tip = Fetched::deserialize(&answer).map_err(|_| program.odd(odd_answer(method, &answer)))?;
    let (Some(record), Some(height)) = (tip.record, tip.height) else { return Ok(None) };
    let opened = STANDARD.decode(record).ok().map(|bytes| sealer.open(&RecordName::tip(height), &bytes));
    Ok(opened.and_then(Result::ok))
}
