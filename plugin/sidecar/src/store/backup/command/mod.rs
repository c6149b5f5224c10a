//! An operator's own program as a sink: the Persist contract on JSON-RPC 2.0 over its standard input and output, one object a
//! line. `contrib/sinks.md` tells the protocol to those who write one.
//!
//! What it is given is sealed: it can neither read it nor change it nor put one record in the place of another. A program that
//! ends, hangs, floods or breaks the protocol is ended and started again, after growing waits, and every write that was
//! not complete is given to it again.

mod child;
mod ledger;
mod life;
mod read;
mod remains;

use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::OutPoint;
use crossbeam_channel::{Receiver, Sender};
use outrigger_bolt::id::{ChannelId, NodeId};
use serde_json::{Value, json};

use super::sealed::{MAX_RECORD_BYTES, RecordKind, RecordName, Sealer, fits};
use super::{Answer, Full, Holding, Persist, Reader, SinkEnds, SinkFault, TipRecord, Update};
use crate::lock::Mutex;
use child::{Child, OnCompleted, OnEnd, Remains, SHORT_LINE, odd_answer, shown};
use ledger::{Ledger, Place};
use read::Unanswered;

#[cfg(test)]
mod tests;

pub use child::{ChildFault, line_of_a_program};
pub use read::CommandSource;

/// The protocol's version.
pub const PROTOCOL: u64 = 1;

/// Bytes of a line that lists records.
const LIST_LINE: usize = 4 * 1024 * 1024;

/// Bytes of a line that brings a record.
const RECORD_LINE: usize = MAX_RECORD_BYTES as usize / 3 * 4 + SHORT_LINE;

/// How long an answer may take before the program is taken to hang.
pub const ANSWER_LIMIT: Duration = child::ANSWER_LIMIT;

/// A program, and for whom it keeps.
#[derive(Clone)]
pub struct Program {
    /// The sink's name, for logs.
    pub name: String,
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    pub network: String,
    pub node_id: NodeId,
    pub sealer: Arc<Sealer>,
    /// How long an answer may take.
    pub limit: Duration,
}

/// A write as it goes to the program, and goes again after it was started anew.
pub(super) struct Request {
    method: &'static str,
    params: Value,
}

/// What the program says to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Completed,
    InProgress,
    /// It takes no record of this size.
    TooLarge(String),
    PermanentFailure(String),
}

/// The program under the Persist contract.
pub struct CommandSink {
    machine: Arc<Mutex<Machine>>,
    ledger: Arc<Ledger>,
    sealer: Arc<Sealer>,
    ends: SinkEnds,
}

/// The program's life, which the sink's thread and the one that watches it share.
struct Machine {
    program: Program,
    child: Option<Child>,
    remains: Remains,
    ledger: Arc<Ledger>,
    /// Told of each end of the program.
    deaths: Sender<()>,
}

impl Program {
    /// Starts it and makes sure that it speaks this protocol.
    fn start(&self, on_completed: OnCompleted, on_end: OnEnd, remains: &Remains) -> Result<Child, ChildFault> {
        let mut child = Child::start(&self.name, &self.command, self.limit, (on_completed, on_end), remains)?;
        let hello = json!({ "protocol": PROTOCOL, "network": self.network, "node_id": self.node_id.to_string() });
        let answer = child.ask("hello", hello, SHORT_LINE)?;
        if answer.get("protocol").and_then(Value::as_u64) != Some(PROTOCOL) {
            return Err(odd_answer("hello", &answer));
        }
        Ok(child)
    }

    /// The fault as one of a sink: all of a program's are got over by starting it again, once it was mended.
    fn passing(&self, fault: &ChildFault) -> SinkFault {
        SinkFault::Passing(format!("the program {}: {fault}", self.command.first().map_or("", String::as_str)))
    }
}

impl Machine {
    /// The program, started where it does not run: then everything that is open is given to it again.
    fn child(&mut self) -> Result<&mut Child, ChildFault> {
        let running = self.child.take().filter(|child| !child.has_ended());
        let child = match running {
            Some(child) => child,
            None => self.revived()?,
        };
        Ok(self.child.insert(child))
    }

    fn revived(&self) -> Result<Child, ChildFault> {
        let (ledger, deaths) = (self.ledger.clone(), self.deaths.clone());
        let on_completed = Arc::new(move |channel: ChannelId, id: u64| ledger.completed(&channel, id));
        let on_end = Arc::new(move || {
            // One word of an end that nobody has looked at yet is enough.
            let _ = deaths.try_send(());
        });
        let mut child = self.program.start(on_completed, on_end, &self.remains)?;
        self.look_what_is_left(&mut child)?;
        for (channel, id, request) in self.ledger.to_give_again() {
            match give(&mut child, &request)? {
                Verdict::Completed => drop(self.ledger.completed(&channel, id)),
                Verdict::InProgress => {}
                Verdict::TooLarge(words) => {
                    self.ledger.withdraw(&channel, id);
                    self.ledger.too_large(&channel, &words);
                }
                // What was answered before cannot be answered otherwise: the promises wait until it is mended.
                Verdict::PermanentFailure(words) => {
                    return Err(ChildFault::Refused { method: request.method, words });
                }
            }
        }
        Ok(child)
    }

    /// A program that comes back may have another place before it, or an empty one. It is given updates of no channel of which it
    /// does not list what it completed.
    fn look_what_is_left(&self, child: &mut Child) -> Result<(), ChildFault> {
        let kept = self.ledger.kept();
        if kept.is_empty() {
            return Ok(());
        }
        let held = read::listed(child, &kept)?;
        let lost = kept.iter().filter(|(channel, id)| held.get(channel).is_none_or(|held| held < id));
        lost.for_each(|(channel, _)| self.ledger.lose(channel));
        Ok(())
    }

    /// Gives it what no channel waits for. Whatever it answers is not looked at.
    fn tell(&mut self, method: &'static str, params: Value) -> Result<(), SinkFault> {
        let answer = self.child().and_then(|child| child.ask(method, params, SHORT_LINE));
        answer.map(drop).map_err(|fault| self.ended(&fault))
    }

    /// Asks for what it keeps. A program that refuses that lives on: what it has in its hands is not to be lost for a look.
    fn look(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Unanswered<SinkFault>> {
        let answer = self.child().map(|child| child.ask(method, params, line));
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(fault @ ChildFault::Refused { .. })) => Err(Unanswered::Refused(fault)),
            Ok(Err(fault)) | Err(fault) => Err(Unanswered::Gone(self.ended(&fault))),
        }
    }

    fn ended(&mut self, fault: &ChildFault) -> SinkFault {
        self.child = None;
        self.program.passing(fault)
    }
}

/// Gives one write to the program.
fn give(child: &mut Child, request: &Request) -> Result<Verdict, ChildFault> {
    let answer = child.ask(request.method, request.params.clone(), SHORT_LINE)?;
    match answer.get("answer").and_then(Value::as_str) {
        Some("completed") => Ok(Verdict::Completed),
        Some("in_progress") => Ok(Verdict::InProgress),
        Some("too_large") => Ok(Verdict::TooLarge(reason(&answer))),
        Some("permanent_failure") => Ok(Verdict::PermanentFailure(reason(&answer))),
        Some(_) | None => Err(odd_answer(request.method, &answer)),
    }
}

/// What it says of a write that it does not take.
fn reason(answer: &Value) -> String {
    let words = answer.get("reason").and_then(Value::as_str).unwrap_or("it gives no reason");
    shown(words.as_bytes())
}

impl CommandSink {
    /// Starts nothing yet: the program is started with the first call.
    pub fn new(program: Program, ends: SinkEnds) -> Self {
        let ledger = Arc::new(Ledger::new(ends.clone()));
        let (deaths, died) = crossbeam_channel::bounded(1);
        let sealer = program.sealer.clone();
        let machine = Machine { program, child: None, remains: Remains::default(), ledger: ledger.clone(), deaths };
        let machine = Arc::new(Mutex::new(machine));
        let (watched, watcher_ends) = (Arc::downgrade(&machine), ends.clone());
        let watch = move || watch(&watched, &died, &watcher_ends);
        if let Err(fault) = std::thread::Builder::new().name("sink-watch".to_owned()).spawn(watch) {
            tracing::error!(%fault, "nobody watches a program that keeps backups: it is started again with the next write");
        }
        Self { machine, ledger, sealer, ends }
    }

    /// Gives a write to the program until it has an answer. `given` is the id that the node awaits, `name.id` the one at which the
    /// record stands, which is as new or newer.
    /// An update is nothing where the program turns out to have lost its channel.
    fn write(&self, name: &RecordName, given: u64, request: Request) -> Option<Answer> {
        let request = Arc::new(request);
        let done = self.ends.until_well(|| {
            let mut machine = self.machine.lock();
            let started = machine.child().map(drop);
            if let Err(fault) = started {
                return Err(machine.ended(&fault));
            }
            if name.kind == RecordKind::Update && !self.ledger.may_follow(name) {
                return Ok(None);
            }
            match self.ledger.enter(name, given, &request) {
                Place::Complete => return Ok(Some(Answer::Completed)),
                Place::Open => return Ok(Some(Answer::InProgress)),
                Place::New => {}
            }
            let answer = match machine.child().and_then(|child| give(child, &request)) {
                Ok(Verdict::Completed) => Ok(self.ledger.answered(name, given)),
                Ok(Verdict::InProgress) => {
                    self.ledger.accepted(name);
                    Ok(Answer::InProgress)
                }
                Ok(Verdict::TooLarge(words)) => {
                    self.ledger.withdraw(&name.channel, name.id);
                    self.ledger.too_large(&name.channel, &words);
                    Ok(Answer::InProgress)
                }
                Ok(Verdict::PermanentFailure(words)) => {
                    self.ledger.withdraw(&name.channel, name.id);
                    Ok(Answer::PermanentFailure(words))
                }
                Err(fault) => {
                    let fault = machine.ended(&fault);
                    // It may have told the completion before it ended.
                    if self.ledger.withdraw(&name.channel, name.id) { Err(fault) } else { Ok(Answer::InProgress) }
                }
            };
            answer.map(Some)
        });
        match done {
            Some(Ok(answer)) => answer,
            Some(Err(fault)) => Some(Answer::PermanentFailure(fault.to_string())),
            None => Some(Answer::InProgress),
        }
    }

    fn write_full(
        &self,
        method: &'static str,
        (channel, funding): (&ChannelId, OutPoint),
        full: &Full<'_>,
        id: u64,
    ) -> Answer {
        let Ok(image) = full.image() else { return Answer::InProgress };
        let (name, content) = (RecordName::full(*channel, image.id), image.encode());
        if !fits(&self.ends, channel, content.len()) {
            return Answer::InProgress;
        }
        let mut params = self.params(&name, ("monitor", &content), funding);
        params["over"] = (!image.is_live()).into();
        let answer = self.write(&name, id, Request { method, params });
        if !image.is_live() {
            self.ledger.is_over(channel);
        }
        answer.unwrap_or(Answer::InProgress)
    }

    /// The parts that all writes have, the content sealed, under the word for what it is.
    fn params(&self, name: &RecordName, (word, content): (&str, &[u8]), funding: OutPoint) -> Value {
        json!({
            "channel_id": name.channel.to_string(),
            "funding_outpoint": funding.to_string(),
            "update_id": name.id,
            (word): STANDARD.encode(self.sealer.seal(name, content)),
        })
    }

    /// Ends the program as a crash of the machine would, when it is called.
    pub fn killer(&self) -> impl Fn() + Send + use<> {
        let machine = self.machine.clone();
        move || {
            if let Some(child) = &mut machine.lock().child {
                child.kill();
            }
        }
    }
}

impl Persist for CommandSink {
    fn persist_new_channel(&mut self, channel: &ChannelId, funding: OutPoint, full: &Full<'_>, id: u64) -> Answer {
        self.write_full("persist_new_channel", (channel, funding), full, id)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        funding: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        id: u64,
    ) -> Answer {
        let method = "update_persisted_channel";
        let Some(update) = update.filter(|update| self.ledger.takes(update)) else {
            return self.write_full(method, (channel, funding), full, id);
        };
        let name = RecordName::update(*channel, update.after, update.id);
        let mut params = self.params(&name, ("update", &update.encode()), funding);
        params["follows"] = update.after.into();
        params["over"] = update.is_last().into();
        match self.write(&name, id, Request { method, params }) {
            Some(answer) if update.is_last() => {
                self.ledger.is_over(channel);
                answer
            }
            Some(answer) => answer,
            None => self.write_full(method, (channel, funding), full, id),
        }
    }

    fn reader(&self) -> Option<Reader> {
        let (machine, sealer) = (self.machine.clone(), self.sealer.clone());
        Some(Box::new(move || Ok(Box::new(read::LiveSource::new(machine.clone(), sealer.clone())))))
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        let name = RecordName::tip(tip.height);
        let record = STANDARD.encode(self.sealer.seal(&name, &tip.encode()));
        let kept = self.machine.lock().tell("persist_tip", json!({ "height": tip.height, "tip": record }));
        match kept {
            Ok(()) => {
                self.ends.well();
                Answer::Completed
            }
            // Nobody waits for it: the next one is tried.
            Err(fault) => {
                self.ends.trouble(&fault.to_string());
                Answer::InProgress
            }
        }
    }

    /// By the names that the program lists, of which the newest is fetched and opened: what it only says proves nothing.
    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let mut machine = self.machine.lock();
        let sealer = self.sealer.clone();
        let holdings = read::holdings(&sealer, |method, params, line| machine.look(method, params, line))?;
        holdings.iter().for_each(|(holding, updates)| self.ledger.holds(holding, *updates));
        Ok(holdings.into_iter().map(|(holding, _)| holding).collect())
    }
}

/// Starts the program again where it ends while writes are open: nobody else may call for a long time.
fn watch(machine: &Weak<Mutex<Machine>>, died: &Receiver<()>, ends: &SinkEnds) {
    for () in died {
        // Where nothing is open it has nothing to do, and nothing to say either: what ended the program is told by whoever asked it.
        if machine.upgrade().is_none_or(|machine| machine.lock().ledger.to_give_again().is_empty()) {
            continue;
        }
        // Where the process stops, nothing is started any more.
        let _ = ends.until_well(|| {
            let Some(machine) = machine.upgrade() else { return Ok(()) };
            let mut machine = machine.lock();
            if machine.ledger.to_give_again().is_empty() {
                return Ok(());
            }
            let started = machine.child().map(drop);
            started.map_err(|fault| machine.ended(&fault))
        });
    }
}

/// A record's kind, what it follows and its id, as the protocol writes them.
fn named(name: &RecordName) -> Value {
    json!({
        "channel_id": name.channel.to_string(),
        "kind": name.kind.word(),
        "follows": name.from,
        "update_id": name.id,
    })
}

/// The word for kinds that channels have.
fn kind_of(word: &str) -> Option<RecordKind> {
    RecordKind::of_word(word).filter(|kind| *kind != RecordKind::Tip)
}
