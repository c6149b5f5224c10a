//! Reading back what a program keeps. Whatever it answers, a look at it ends, and costs no channel but the one that it is about: names
//! that are none, come twice or out of order are told and passed over, and so is what it refuses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_bolt::id::ChannelId;
use serde_json::{Value, json};

use super::child::{Child, ChildFault, odd_answer, shown};
use super::{LIST_LINE, Machine, RECORD_LINE, kind_of, named};
use crate::lock::Mutex;
use crate::store::backup::directory::Names;
use crate::store::backup::sealed::{RecordKind, RecordName, Sealer};
use crate::store::backup::source::{NamedRecord, NoRecord, Source, SourceFault, StoredChannel};
use crate::store::backup::{Holding, Image, SinkFault, Update};

mod patient;

pub use patient::CommandSource;

/// The most channels that a program may list.
const MAX_CHANNELS: usize = 1_000_000;

/// The most oddities of one list, and of one reading, that are told.
const MOST_TOLD: usize = 32;

/// What was odd, in words, once each.
#[derive(Debug, Default)]
struct Oddities {
    told: BTreeSet<String>,
    untold: Vec<String>,
}

impl Oddities {
    fn tell(&mut self, words: String) {
        if self.told.len() < MOST_TOLD && self.told.insert(words.clone()) {
            self.untold.push(words);
        }
    }

    fn take_in(&mut self, others: Vec<String>) {
        others.into_iter().for_each(|words| self.tell(words));
    }

    /// What was told since this was last asked. It may be told again from then on.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(self).untold
    }
}

/// A list, and what is odd about it.
struct Listed<T> {
    items: T,
    odd: Vec<String>,
    /// Why it, or the rest of it, could not be had now, in words.
    unread: Option<String>,
}

impl<T> Listed<T> {
    fn whole(items: T, odd: Vec<String>) -> Self {
        Self { items, odd, unread: None }
    }
}

/// Why a question has no answer that can be used.
pub(super) enum Unanswered<F> {
    /// The program said no, or something else than it was asked for. It lives on, and other questions may have answers.
    Refused(ChildFault),
    /// It is not there any more.
    Gone(F),
}

impl<F> Unanswered<F> {
    /// The fault, where either of the two ends what is being done.
    fn fault(self, refused: impl FnOnce(ChildFault) -> F) -> F {
        match self {
            Self::Refused(fault) => refused(fault),
            Self::Gone(fault) => fault,
        }
    }
}

/// Why there is no record.
enum UnreadRecord<F> {
    /// Others may be there.
    None(NoRecord),
    Gone(F),
}

/// One question and its answer.
trait Ask {
    type Fault;
    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Unanswered<Self::Fault>>;
}

struct By<F>(F);

impl<F: FnMut(&'static str, Value, usize) -> Result<Value, Unanswered<SinkFault>>> Ask for By<F> {
    type Fault = SinkFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Unanswered<SinkFault>> {
        (self.0)(method, params, line)
    }
}

impl Ask for Child {
    type Fault = ChildFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Unanswered<ChildFault>> {
        Self::ask(self, method, params, line).map_err(|fault| match fault {
            ChildFault::Refused { .. } => Unanswered::Refused(fault),
            fault => Unanswered::Gone(fault),
        })
    }
}

/// A program that keeps on the side, asked between two writes.
pub(super) struct LiveSource {
    asked: Asked,
    sealer: Arc<Sealer>,
    odd: Oddities,
    unread: Vec<String>,
}

/// Whom it asks.
struct Asked {
    machine: Arc<Mutex<Machine>>,
    place: String,
}

impl LiveSource {
    pub(super) fn new(machine: Arc<Mutex<Machine>>, sealer: Arc<Sealer>) -> Self {
        let place = machine.lock().program.command.join(" ");
        Self { asked: Asked { machine, place }, sealer, odd: Oddities::default(), unread: Vec::new() }
    }
}

impl Ask for Asked {
    type Fault = SourceFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Unanswered<SourceFault>> {
        let answer = self.machine.lock().look(method, params, line);
        answer.map_err(|none| match none {
            Unanswered::Refused(fault) => Unanswered::Refused(fault),
            Unanswered::Gone(fault) => Unanswered::Gone(SourceFault::unreadable(&self.place, fault)),
        })
    }
}

impl Source for LiveSource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        let listed = channels(&mut self.asked, true)
            .map_err(|none| none.fault(|fault| SourceFault::unreadable(&self.asked.place, fault)))?;
        self.odd.take_in(listed.odd);
        self.unread.extend(listed.unread);
        Ok(listed.items.into_iter().collect())
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        stored(&mut self.asked, &self.sealer, channel)
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        let tip = newest_tip(&mut self.asked, &self.sealer)?;
        self.odd.take_in(tip.odd);
        self.unread.extend(tip.unread);
        Ok(tip.items)
    }

    fn faults(&mut self) -> Vec<String> {
        self.odd.take()
    }

    fn unread(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unread)
    }
}

/// The id to which a program that was started again holds each of these channels, by the names that it lists. One of which it cannot
/// tell it does not hold.
pub(super) fn listed(child: &mut Child, wanted: &[(ChannelId, u64)]) -> Result<HashMap<ChannelId, u64>, ChildFault> {
    let there = channels(child, false).map_err(|none| none.fault(|fault| fault))?.items;
    let mut held = HashMap::new();
    for (channel, _) in wanted.iter().filter(|(channel, _)| there.contains(channel)) {
        match names(child, channel) {
            Ok(names) => held.extend(names.items.reach().map(|(_, id)| (*channel, id))),
            Err(Unanswered::Refused(fault)) => untold(channel, &fault.to_string()),
            Err(Unanswered::Gone(fault)) => return Err(fault),
        }
    }
    Ok(held)
}

/// What the program holds of each channel and is whole by the names that it lists, where the newest record opens; and how many updates
/// it holds behind the newest full record. One that will not tell now is asked again: what it holds may prove that the database is
/// old, and is not to be written over before.
pub(super) fn holdings(
    sealer: &Sealer,
    ask: impl FnMut(&'static str, Value, usize) -> Result<Value, Unanswered<SinkFault>>,
) -> Result<Vec<(Holding, usize)>, SinkFault> {
    let mut program = By(ask);
    let passing = |fault: ChildFault| SinkFault::Passing(fault.to_string());
    let mut holdings = Vec::new();
    let there = channels(&mut program, false).map_err(|none| none.fault(passing))?;
    if let Some(words) = there.unread {
        return Err(SinkFault::Passing(words));
    }
    for words in there.odd {
        tracing::warn!(words, "a backup lists what it holds in another way than it is asked for");
    }
    for channel in there.items {
        let names = names(&mut program, &channel).map_err(|none| none.fault(passing))?.items;
        let Some((full, id)) = names.reach() else { continue };
        let newest = match names.updates.iter().find(|(_, to)| **to == id && id > full) {
            Some((from, to)) => RecordName::update(channel, *from, *to),
            None => RecordName::full(channel, id),
        };
        let updates = names.updates.range(full..).count();
        match record(&mut program, sealer, newest) {
            Ok(newest) if is_over(&newest) => {}
            Ok(_) => holdings.push((Holding { channel, id }, updates)),
            // A channel of which it has lost the newest costs no other: it is written anew.
            Err(UnreadRecord::None(NoRecord::Lost(words))) => untold(&channel, &words),
            Err(UnreadRecord::None(NoRecord::Unread(words))) => return Err(SinkFault::Passing(words)),
            Err(UnreadRecord::Gone(fault)) => return Err(fault),
        }
    }
    Ok(holdings)
}

fn untold(channel: &ChannelId, fault: &str) {
    tracing::warn!(%channel, %fault, "a backup cannot tell what it holds: it is written anew");
}

/// Whether the channel was over with this record: the database may not know it any more.
fn is_over(record: &NamedRecord) -> bool {
    match record.name.kind {
        RecordKind::Full => Image::decode(&record.content).is_ok_and(|image| !image.is_live()),
        RecordKind::Update => Update::decode(&record.content).is_ok_and(|update| update.is_last()),
        RecordKind::Tip => false,
    }
}

/// Every channel that the program keeps anything of, page by page; those that are over may be left out where `over` does not ask for
/// them. Each page must bring one that is new, so it ends. What is listed behind a page that cannot be had is missing, and told.
fn channels<A: Ask>(program: &mut A, over: bool) -> Result<Listed<BTreeSet<ChannelId>>, Unanswered<A::Fault>> {
    let method = "list_channels";
    let (mut found, mut odd, mut unread) = (BTreeSet::new(), Oddities::default(), None);
    loop {
        let after = found.last().map(ToString::to_string);
        let answer = program.ask(method, json!({ "after": after, "over": over }), LIST_LINE);
        let page = answer.and_then(|answer| match answer.get("channel_ids").and_then(Value::as_array) {
            Some(page) => Ok(page.clone()),
            None => Err(Unanswered::Refused(odd_answer(method, &answer))),
        });
        let page = match page {
            Ok(page) => page,
            Err(Unanswered::Refused(fault)) if !found.is_empty() => {
                unread = Some(fault.to_string());
                break;
            }
            Err(none) => return Err(none),
        };
        let (last, before) = (found.last().copied(), found.len());
        let (mut previous, mut page_odd) = (last, Vec::new());
        for name in &page {
            match name.as_str().and_then(|name| name.parse::<ChannelId>().ok()) {
                None => odd.tell(format!("it lists {} as a channel", shown(name.to_string().as_bytes()))),
                Some(channel) if !found.insert(channel) => page_odd.push(format!("it lists channel {channel} twice")),
                Some(channel) => {
                    if previous.is_some_and(|previous| channel < previous) {
                        page_odd.push(format!("it lists channel {channel} behind a higher one"));
                    }
                    previous = previous.max(Some(channel));
                }
            }
        }
        if found.len() > before {
            odd.take_in(page_odd);
        } else if !page_odd.is_empty() {
            odd.tell("it lists no other channels when it is asked for those behind the last one".to_owned());
        }
        if found.len() > MAX_CHANNELS {
            odd.tell(format!("it lists more than {MAX_CHANNELS} channels"));
        }
        if found.len() == before || found.len() > MAX_CHANNELS {
            break;
        }
    }
    Ok(Listed { items: found, odd: odd.untold, unread })
}

/// The names of the records that it lists of a channel. Of two updates that follow the same id the shorter one is one of ours.
fn names<A: Ask>(program: &mut A, channel: &ChannelId) -> Result<Listed<Names>, Unanswered<A::Fault>> {
    let method = "list_records";
    let answer = program.ask(method, json!({ "channel_id": channel.to_string() }), LIST_LINE)?;
    let Some(records) = answer.get("records").and_then(Value::as_array) else {
        return Err(Unanswered::Refused(odd_answer(method, &answer)));
    };
    let (mut names, mut odd) = (Names::default(), Oddities::default());
    for record in records {
        let Some(name) = record_name(channel, record) else {
            odd.tell(format!("it lists {} as a record", shown(record.to_string().as_bytes())));
            continue;
        };
        let there = match name.kind {
            RecordKind::Full => names.fulls.get(&name.id),
            RecordKind::Update | RecordKind::Tip => names.updates.get(&name.from),
        };
        match there {
            Some(there) if *there == name.id => odd.tell(format!("it lists {} {} twice", name.kind.word(), name.id)),
            Some(there) => {
                odd.tell(format!("it lists updates to {there} and to {} that follow {}", name.id, name.from));
                if name.id < *there {
                    names.insert(&name);
                }
            }
            None => names.insert(&name),
        }
    }
    Ok(Listed::whole(names, odd.untold))
}

/// The record of this channel that an entry of a list names.
fn record_name(channel: &ChannelId, entry: &Value) -> Option<RecordName> {
    let number = |name: &str| entry.get(name).and_then(Value::as_u64);
    let of_another = entry.get("channel_id").is_some_and(|named| named.as_str() != Some(&channel.to_string()));
    let id = number("update_id").filter(|_| !of_another)?;
    match kind_of(entry.get("kind")?.as_str()?)? {
        RecordKind::Full => Some(RecordName::full(*channel, id)),
        RecordKind::Update => {
            number("follows").filter(|from| *from < id).map(|from| RecordName::update(*channel, from, id))
        }
        RecordKind::Tip => None,
    }
}

/// A record; or what is wrong with it, in words.
fn record<A: Ask>(program: &mut A, sealer: &Sealer, name: RecordName) -> Result<NamedRecord, UnreadRecord<A::Fault>> {
    let method = "fetch";
    let what = format!("{} {} of channel {}", name.kind.word(), name.id, name.channel);
    let lost = |words: &dyn std::fmt::Display| UnreadRecord::None(NoRecord::Lost(format!("{what}: {words}")));
    let refused = |fault: &ChildFault| UnreadRecord::None(NoRecord::Unread(format!("{what}: {fault}")));
    let answer = program.ask(method, named(&name), RECORD_LINE).map_err(|none| match none {
        Unanswered::Refused(fault) => refused(&fault),
        Unanswered::Gone(fault) => UnreadRecord::Gone(fault),
    })?;
    let text = match answer.get("record") {
        Some(Value::String(text)) => text,
        Some(Value::Null) => return Err(lost(&"the program has lost it")),
        Some(_) | None => return Err(refused(&odd_answer(method, &Value::Null))),
    };
    let bytes = STANDARD.decode(text).map_err(|_| lost(&"it is no base64"))?;
    let content = sealer.open(&name, &bytes).map_err(|fault| lost(&fault))?;
    Ok(NamedRecord { name, content })
}

/// What a program has of a channel.
fn stored<A: Ask>(program: &mut A, sealer: &Sealer, channel: &ChannelId) -> Result<StoredChannel, A::Fault> {
    let Listed { items: names, odd, .. } = match names(program, channel) {
        Ok(names) => names,
        Err(Unanswered::Refused(fault)) => {
            return Ok(StoredChannel { unread: vec![fault.to_string()], ..StoredChannel::nothing(*channel) });
        }
        Err(Unanswered::Gone(fault)) => return Err(fault),
    };
    let mut gone = None;
    let mut stored = StoredChannel::gather(*channel, &names, |name| {
        if gone.is_some() {
            return Err(NoRecord::Unread(String::new()));
        }
        record(program, sealer, name).map_err(|unread| match unread {
            UnreadRecord::None(none) => none,
            UnreadRecord::Gone(fault) => {
                gone = Some(fault);
                NoRecord::Unread(String::new())
            }
        })
    });
    stored.faults.splice(0..0, odd);
    gone.map_or(Ok(stored), Err)
}

/// The newest record of the chain that a program has. One that cannot be used is told, and is as good as none.
fn newest_tip<A: Ask>(program: &mut A, sealer: &Sealer) -> Result<Listed<Option<Vec<u8>>>, A::Fault> {
    let method = "fetch_tip";
    let unfit = |words: String| Ok(Listed::whole(None, vec![words]));
    let answer = match program.ask(method, json!({}), LIST_LINE) {
        Ok(answer) => answer,
        Err(Unanswered::Refused(fault)) => {
            return Ok(Listed { items: None, odd: Vec::new(), unread: Some(fault.to_string()) });
        }
        Err(Unanswered::Gone(fault)) => return Err(fault),
    };
    let height = answer.get("height").and_then(Value::as_u64).and_then(|height| u32::try_from(height).ok());
    let (text, height) = match (answer.get("record"), height) {
        (Some(Value::Null), _) => return Ok(Listed::whole(None, Vec::new())),
        (Some(Value::String(text)), Some(height)) => (text, height),
        (_, _) => return unfit(odd_answer(method, &answer).to_string()),
    };
    let opened = STANDARD.decode(text).map_err(|_| "it is no base64".to_owned());
    let opened =
        opened.and_then(|bytes| sealer.open(&RecordName::tip(height), &bytes).map_err(|fault| fault.to_string()));
    match opened {
        Ok(tip) => Ok(Listed::whole(Some(tip), Vec::new())),
        Err(words) => unfit(format!("its record of the chain at block {height}: {words}")),
    }
}
