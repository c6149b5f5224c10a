//! The crash sweep of the backups that keep files, a real mirror with its journal and a real directory: a life of each, on a machine that
//! stops at each of its operations, with every kind of damage, and once more while the next start repairs what is left. Each time what was
//! completed is there, what was under way is there whole or not at all, and the backup goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint};
use crossbeam_channel::Receiver;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::HtlcKey;
use outrigger_sidecar::store::backup::directory::{DirectorySink, DirectorySource, make_place_on};
use outrigger_sidecar::store::backup::mirror::{Mirror, MirrorPlace, MirrorSource};
use outrigger_sidecar::store::backup::sealed::Sealer;
use outrigger_sidecar::store::backup::source::Source;
use outrigger_sidecar::store::backup::{Answer, Full, Image, Persist, RowChange, SinkEnds, TipRecord, Update};
use outrigger_sidecar::store::schema::{Table, channel_key, htlc_key};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::disk::Damage;
use super::machine::{Asked, Content, Machine, Noted};
use super::node::NETWORK;

const LIMIT: Duration = Duration::from_secs(30);

/// A full write of the directory after so many updates.
const FULL_EVERY: usize = 3;

/// What a stop leaves: of the machine, or of the process alone.
const DAMAGES: [Damage; 6] =
    [Damage::Kept, Damage::Dropped, Damage::Torn(512), Damage::Torn(4096), Damage::Reordered, Damage::Cached];

/// Of so many stops of the machine one is followed by another. Of a process alone each is: what it leaves is seen at once, and tells itself
/// from what is kept by what a later stop of the machine takes.
const SECOND_EVERY: u64 = 8;

/// A process alone stops at one operation of so many.
const PROCESS_EVERY: u64 = 3;

/// Channels by their first bytes: one that lives, one that goes into history, one that is forgotten, and one that comes late.
const LIVES: u8 = 1;
const CLOSES: u8 = 2;
const FORGOTTEN: u8 = 3;
const LATE: u8 = 4;

/// The id at which the channel is over.
const OVER_AT: u64 = 4;

/// The id at which its rows are more than the journal of the mirror takes.
const LARGE_AT: u64 = 10;

fn node() -> NodeId {
    "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619".parse().unwrap()
}

fn channel(number: u8) -> ChannelId {
    ChannelId([number; 32])
}

fn is_over(number: u8, id: u64) -> bool {
    matches!(number, CLOSES | FORGOTTEN) && id >= OVER_AT
}

/// The rows of a channel at an id: no two are the same, and each fills several pages.
fn image(number: u8, id: u64) -> Image {
    let channel = channel(number);
    let mut image = Image::new(NETWORK, node(), channel, id);
    if is_over(number, id) {
        if number == CLOSES {
            image.rows.insert((Table::ClosedChannel, channel_key(&channel)), b"over".to_vec());
        }
        return image;
    }
    let len = if number == LIVES && id == LARGE_AT { 70_000 } else { 5_000 };
    for (table, value) in [
        (Table::ChannelParams, b"params".to_vec()),
        (Table::ChannelHead, id.to_be_bytes().to_vec()),
        (Table::MonitorHead, id.to_be_bytes().into_iter().cycle().take(len).collect()),
    ] {
        image.rows.insert((table, channel_key(&channel)), value);
    }
    image.rows.insert((Table::Htlc, htlc_key(&channel, HtlcKey::received(id))), b"htlc".to_vec());
    image
}

/// What changed of it with this id.
fn update(number: u8, id: u64) -> Update {
    let (before, now) = (image(number, id - 1), image(number, id));
    let gone = before.rows.keys().filter(|key| !now.rows.contains_key(key)).map(|key| (key, None));
    let come = now.rows.iter().filter(|(key, row)| before.rows.get(key) != Some(row));
    let come = come.map(|(key, row)| (key, Some(row.clone())));
    let change = |((table, key), value): (&(Table, Vec<u8>), _)| RowChange { table: *table, key: key.clone(), value };
    Update { channel: channel(number), after: id - 1, id, changes: gone.chain(come).map(change).collect() }
}

/// The records of the tip, in the order in which they come: two are of one block.
fn tip(number: usize) -> TipRecord {
    let height = [0, 144, 288, 288, 432, 576][number.min(5)] + 144 * u32::try_from(number.max(5) - 5).unwrap();
    let hash = BlockHash::from_byte_array([u8::try_from(height / 144).unwrap(); 32]);
    let channels = Some(vec![(channel(LIVES), number as u64)]);
    TipRecord { network: NETWORK.to_owned(), node_id: node(), height, hash, at_unix: 1, peers: Vec::new(), channels }
}

/// Something that is given to a backup.
#[derive(Clone, Copy, Debug)]
enum Write {
    New(u8),
    Full(u8, u64),
    Update(u8, u64),
    Tip(usize),
}

/// What happens beside operations.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// The first start has made its place.
    Made,
    Given(u8, u64),
    Completed(u8, u64),
    TipGiven(usize),
    TipCompleted(usize),
}

/// What is known of a backup at a moment.
#[derive(Clone, Debug, Default)]
struct Known {
    is_made: bool,
    given: BTreeMap<u8, u64>,
    completed: BTreeMap<u8, u64>,
    tip_given: usize,
    tip_completed: usize,
}

impl Known {
    fn take(&mut self, told: Told) {
        match told {
            Told::Made => self.is_made = true,
            Told::Given(number, id) => rise(&mut self.given, number, id),
            Told::Completed(number, id) => rise(&mut self.completed, number, id),
            Told::TipGiven(number) => self.tip_given = number,
            Told::TipCompleted(number) => self.tip_completed = number,
        }
    }

    /// The ids that may be there.
    fn may_be(&self, number: u8) -> std::ops::RangeInclusive<u64> {
        self.completed.get(&number).copied().unwrap_or(1)..=self.given.get(&number).copied().unwrap_or(0)
    }
}

fn rise(ids: &mut BTreeMap<u8, u64>, number: u8, id: u64) {
    let at = ids.entry(number).or_default();
    *at = id.max(*at);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mirror,
    Directory,
}

impl Kind {
    fn place(self, machine: &Machine<Told>) -> MirrorPlace {
        MirrorPlace::new(machine.path().join("mirror.redb"), NETWORK, node()).on(Arc::new(machine.clone()))
    }

    /// As the first start that has its name.
    fn make(self, machine: &Machine<Told>) {
        match self {
            Self::Mirror => self.place(machine).make().unwrap(),
            Self::Directory => make_place_on(machine, machine.path(), (NETWORK, &node())).unwrap(),
        }
        machine.tell(Told::Made);
    }

    fn open(self, machine: &Machine<Told>, ends: SinkEnds) -> Box<dyn Persist> {
        match self {
            Self::Mirror => Box::new(Mirror::new(self.place(machine), ends)),
            Self::Directory => {
                let (path, owner) = (machine.path().to_owned(), (NETWORK.to_owned(), node()));
                Box::new(DirectorySink::new(path, owner, sealer(), FULL_EVERY, ends).on(Arc::new(machine.clone())))
            }
        }
    }

    /// As a restore reads it.
    fn source(self, machine: &Machine<Told>) -> Box<dyn Source> {
        match self {
            Self::Mirror => Box::new(MirrorSource::open(self.place(machine)).unwrap()),
            Self::Directory => Box::new(DirectorySource::open(machine.path(), (NETWORK, &node()), sealer()).unwrap()),
        }
    }

    /// The kinds of operations that a life of it has.
    fn asks(self) -> BTreeSet<Asked> {
        use Asked::{Create, Length, MakeDirectory, Remove, Rename, Sync, SyncNames, Write};
        match self {
            Self::Mirror => BTreeSet::from([Create, Write, Length, Sync, Rename, SyncNames]),
            Self::Directory => BTreeSet::from([Create, Write, Sync, Rename, Remove, MakeDirectory, SyncNames]),
        }
    }
}

fn sealer() -> Arc<Sealer> {
    Arc::new(Sealer::new(&[1; 32], NETWORK, &node()))
}

/// A backup that runs.
struct Running {
    machine: Machine<Told>,
    sink: Box<dyn Persist>,
    ends: SinkEnds,
    completed: Receiver<(ChannelId, u64)>,
    /// A tip that the mirror has been given, and nothing behind it.
    tip: Option<usize>,
}

impl Running {
    fn start(kind: Kind, machine: &Machine<Told>) -> (Self, BTreeMap<u8, u64>) {
        let (tells, completed) = crossbeam_channel::unbounded();
        let on = machine.clone();
        let complete = move |channel: &ChannelId, id| {
            on.tell(Told::Completed(channel.0[0], id));
            tells.send((*channel, id)).unwrap();
        };
        let ends = SinkEnds::new(complete, Instant::now);
        let mut sink = kind.open(machine, ends.clone());
        let holdings = sink.holdings().unwrap_or_else(|fault| panic!("it cannot tell what it holds: {fault}"));
        sink.settle().unwrap_or_else(|fault| panic!("it cannot settle what it holds: {fault}"));
        // It counts from now on: what waited for it goes out, with no other write.
        let held: BTreeMap<_, _> = holdings.iter().map(|holding| (holding.channel.0[0], holding.id)).collect();
        held.iter().for_each(|(number, id)| machine.tell(Told::Completed(*number, *id)));
        (Self { machine: machine.clone(), sink, ends, completed, tip: None }, held)
    }

    /// Gives what one commit changed, and waits until it is complete.
    fn give(&mut self, writes: &[Write]) {
        let mut open = BTreeSet::new();
        for write in writes {
            let (number, id, answer) = match *write {
                Write::Tip(number) => {
                    self.give_tip(number);
                    continue;
                }
                Write::New(number) => (number, 1, self.write(number, 1, None, true)),
                Write::Full(number, id) => (number, id, self.write(number, id, None, false)),
                Write::Update(number, id) => (number, id, self.write(number, id, Some(&update(number, id)), false)),
            };
            match answer {
                Answer::Completed => self.machine.tell(Told::Completed(number, id)),
                Answer::InProgress => drop(open.insert((channel(number), id))),
                Answer::PermanentFailure(words) => panic!("{write:?}: {words}"),
            }
        }
        self.sink.all_given();
        while !open.is_empty() {
            let words = || format!("{writes:?} is not completed: {:?}", self.ends.trouble_now());
            let done = self.completed.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{}", words()));
            assert!(open.remove(&done), "{done:?} was completed twice, or never given");
            if let Some(number) = self.tip.take() {
                self.machine.tell(Told::TipCompleted(number));
            }
        }
    }

    fn write(&mut self, number: u8, id: u64, update: Option<&Update>, is_new: bool) -> Answer {
        self.machine.tell(Told::Given(number, id));
        let (read, channel, funding) = (|| Ok(image(number, id)), channel(number), OutPoint::null());
        let full = Full::new(&read);
        match is_new {
            true => self.sink.persist_new_channel(&channel, funding, &full, id),
            false => self.sink.update_persisted_channel(&channel, funding, update, &full, id),
        }
    }

    /// The mirror does not say when it has it: what comes behind it is completed later.
    fn give_tip(&mut self, number: usize) {
        self.machine.tell(Told::TipGiven(number));
        match self.sink.persist_tip(&tip(number)) {
            Answer::Completed => self.machine.tell(Told::TipCompleted(number)),
            Answer::InProgress => self.tip = Some(number),
            Answer::PermanentFailure(words) => panic!("{words}"),
        }
    }

    fn end(self) {
        assert_eq!(self.ends.trouble_now().map(|(words, _)| words), None);
        drop(self.sink);
    }
}

/// Channels that come, change, close and are forgotten, tips, consolidation, epochs that fill and one write that no epoch takes, a full write
/// of what is there, an end in order and another start.
fn live(kind: Kind) -> Machine<Told> {
    use Write::{Full, New, Tip, Update};
    let machine = Machine::with(Content::default());
    kind.make(&machine);
    let (mut running, held) = Running::start(kind, &machine);
    assert!(held.is_empty());
    running.give(&[New(LIVES), New(CLOSES), New(FORGOTTEN)]);
    running.give(&[Tip(1), Update(LIVES, 2), Update(CLOSES, 2)]);
    for id in 3..=5 {
        running.give(&[Update(LIVES, id)]);
    }
    running.give(&[Tip(2), Update(FORGOTTEN, 2)]);
    running.give(&[Update(CLOSES, 3), Update(FORGOTTEN, 3), Tip(3)]);
    running.give(&[Update(CLOSES, OVER_AT)]);
    running.give(&[Update(LIVES, 6), Update(FORGOTTEN, OVER_AT)]);
    running.give(&[Tip(4), Update(LIVES, 7)]);
    running.give(&[Update(LIVES, 8)]);
    running.give(&[Update(LIVES, 9)]);
    running.give(&[Full(LIVES, LARGE_AT)]);
    running.give(&[Full(LIVES, LARGE_AT)]);
    running.end();
    let (mut running, held) = Running::start(kind, &machine);
    assert_eq!(held, BTreeMap::from([(LIVES, LARGE_AT)]));
    running.give(&[Update(LIVES, 11), New(LATE)]);
    running.give(&[Tip(5), Update(LATE, 2)]);
    running.end();
    machine
}

/// What a restore finds: each channel as it was at one id, not before the one that was completed, and nothing damaged.
fn assert_read(kind: Kind, source: &mut dyn Source, known: &Known, when: &str) {
    let listed = source.channels().unwrap();
    let mut faults = Vec::new();
    for number in known.given.keys() {
        let image_found = listed.contains(&channel(*number)).then(|| {
            let mut stored = source.read(&channel(*number)).unwrap();
            let found = stored.image();
            // Of a channel that nothing was completed of there may be an empty directory.
            let is_new = !known.completed.contains_key(number) && found.is_none();
            faults.extend(
                stored.faults.into_iter().filter(|words| !is_new || words != "no full write of it can be read"),
            );
            faults.extend(stored.unread);
            found
        });
        match image_found.flatten() {
            // The id of what is over is nobody's.
            Some(found) => assert!(
                known
                    .may_be(*number)
                    .any(|id| { image(*number, id).rows == found.rows && (id == found.id || is_over(*number, id)) }),
                "{when}: channel {number} is there at {} with {} rows, and should be at {:?}",
                found.id,
                found.rows.len(),
                known.may_be(*number)
            ),
            None => assert!(
                !known.completed.contains_key(number)
                    || (*number == FORGOTTEN && known.may_be(*number).any(|id| is_over(*number, id))),
                "{when}: channel {number} is lost, at {:?}",
                known.completed.get(number)
            ),
        }
    }
    let found = source.tip().unwrap().map(|tip| TipRecord::decode(&tip).unwrap());
    let may_be = known.tip_completed..=known.tip_given;
    let is_kept = match &found {
        Some(found) => may_be.clone().any(|number| number > 0 && tip(number) == *found),
        None => known.tip_completed == 0,
    };
    assert!(is_kept, "{when}: the tip is {found:?}, and should be of {may_be:?}");
    faults.extend(source.faults());
    faults.extend(source.unread());
    // Whether the last record of a journal was cut by the stop or damaged since cannot be told (ADR 16).
    faults.retain(|words| kind != Kind::Mirror || !words.contains("its last record is not whole"));
    assert!(faults.is_empty(), "{when}: {faults:?}");
}

/// What the backup tells a start: each channel that lives, at an id that may be.
fn assert_held(held: &BTreeMap<u8, u64>, known: &Known, when: &str) {
    for (number, id) in held {
        assert!(known.may_be(*number).contains(id), "{when}: it says that it holds {number} at {id}: {known:?}");
        assert!(!is_over(*number, *id), "{when}: {number} is over");
    }
    for number in known.completed.keys().filter(|number| !known.may_be(**number).any(|id| is_over(**number, id))) {
        assert!(held.contains_key(number), "{when}: it says nothing of {number}: {known:?}");
    }
}

/// Starts with what is left, of a node whose database has all that was given, and goes on.
fn started(kind: Kind, content: Content, known: &Known, when: &str) -> Machine<Told> {
    let machine = Machine::with(content);
    if known.is_made {
        assert_read(kind, &mut *kind.source(&machine), known, when);
    } else {
        kind.make(&machine);
    }
    let (mut running, held) = Running::start(kind, &machine);
    assert_held(&held, known, when);
    let mut next = BTreeMap::new();
    let mut writes = Vec::new();
    for (number, given) in &known.given {
        if held.get(number) != Some(given) {
            writes.push(Write::Full(*number, *given));
        }
        if !is_over(*number, *given) {
            writes.push(Write::Update(*number, given + 1));
        }
        next.insert(*number, given + u64::from(!is_over(*number, *given)));
    }
    let tip_given = known.tip_given + 1;
    let new = next.keys().last().map_or(LATE, |last| LATE.max(*last)) + 1;
    rise(&mut next, new, 1);
    writes.extend([Write::Tip(tip_given), Write::New(new)]);
    running.give(&writes);
    running.end();
    let known = Known { is_made: true, given: next.clone(), completed: next, tip_given, tip_completed: tip_given };
    let mut source = kind.source(&machine);
    assert_read(kind, &mut *source, &known, &format!("{when}, then written on"));
    machine
}

/// What is left of a machine that stops again while it starts, at one of its operations.
fn stopped_again(machine: &Machine<Told>, known: &Known, rng: &mut ChaCha8Rng) -> Option<(Content, Known, String)> {
    let (mut content, notes) = machine.notes();
    let all = notes.iter().filter(|note| matches!(note, Noted::Asked(_))).count();
    let (mut known, stops_at) = (known.clone(), rng.random_range(0..all));
    let damage = Damage::ALL[rng.random_range(0..Damage::ALL.len())];
    let mut at = 0;
    for note in notes {
        match note {
            Noted::Told(told) => known.take(told),
            Noted::Asked(operation) => {
                content.begin(&operation);
                if at == stops_at {
                    let when = format!("then operation {at}, {:?}, {damage:?}", operation.asked);
                    return Some((content.crash(damage, rng), known, when));
                }
                content.end(&operation);
                at += 1;
            }
        }
    }
    None
}

/// One stop: where it comes, what it leaves, and what is known then.
struct Stop {
    content: Content,
    known: Known,
    when: String,
    seed: u64,
    /// By another stop.
    is_followed: bool,
}

fn check(kind: Kind, Stop { content, known, when, seed, is_followed }: Stop) {
    let machine = started(kind, content, &known, &when);
    if !is_followed {
        return;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (content, known, then) = stopped_again(&machine, &known, &mut rng).expect("a start does something");
    drop(started(kind, content, &known, &format!("{when}, {then}")));
}

#[derive(Debug, Default)]
struct Counts {
    operations: u64,
    asked: BTreeMap<Asked, u64>,
    points: u64,
    /// Where the damage left what no other one does.
    different: BTreeMap<String, u64>,
}

/// Every stop of a life, each content once.
fn every_stop(kind: Kind, mut stop: impl FnMut(Stop)) -> Counts {
    let (mut content, notes) = live(kind).notes();
    let (mut known, mut counts) = (Known::default(), Counts::default());
    for note in notes {
        let operation = match note {
            Noted::Told(told) => {
                known.take(told);
                continue;
            }
            Noted::Asked(operation) => operation,
        };
        content.begin(&operation);
        let mut before: Vec<Content> = Vec::new();
        for (number, damage) in (0..).zip(DAMAGES) {
            if damage == Damage::Cached && counts.operations % PROCESS_EVERY > 0 {
                continue;
            }
            let is_followed = damage == Damage::Cached || (counts.operations + number).is_multiple_of(SECOND_EVERY);
            let seed = counts.operations * DAMAGES.len() as u64 + number;
            let left = content.crash(damage, &mut ChaCha8Rng::seed_from_u64(seed));
            counts.points += 1;
            if !before.iter().any(|before| before.is_same(&left)) {
                *counts.different.entry(format!("{damage:?}")).or_default() += 1;
                before.push(left.clone());
                let when = format!("operation {}, {:?}, {damage:?}", counts.operations, operation.asked);
                stop(Stop { content: left, known: known.clone(), when, seed, is_followed });
            }
        }
        content.end(&operation);
        counts.operations += 1;
        *counts.asked.entry(operation.asked).or_default() += 1;
    }
    counts
}

fn swept(kind: Kind) {
    let begun = Instant::now();
    let (stops, queue) = crossbeam_channel::bounded::<Stop>(2);
    let failures = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let counts = std::thread::scope(|scope| {
        for _ in 0..workers {
            let queue = queue.clone();
            let failures = &failures;
            scope.spawn(move || {
                for stop in queue {
                    let when = stop.when.clone();
                    if catch_unwind(AssertUnwindSafe(|| check(kind, stop))).is_err() {
                        failures.lock().push(when);
                    }
                }
            });
        }
        drop(queue);
        let counts = every_stop(kind, |stop| drop(stops.send(stop)));
        drop(stops);
        counts
    });
    let failures = failures.into_inner();
    println!("stops of a {kind:?}: {counts:?}, {} s", begun.elapsed().as_secs());
    assert!(failures.is_empty(), "{} stops fail: {failures:#?}", failures.len());
    assert_eq!(counts.asked.keys().copied().collect::<BTreeSet<_>>(), kind.asks());
    let different: BTreeSet<_> = counts.different.keys().cloned().collect();
    assert_eq!(different, DAMAGES.map(|damage| format!("{damage:?}")).into(), "a damage never came");
}

#[test]
fn per_1_bak_1_bak_5_dsk_2_dsk_4_dsk_7_a_mirror_that_stops_at_any_operation_has_what_it_completed_and_goes_on() {
    swept(Kind::Mirror);
}

#[test]
fn per_1_bak_1_bak_5_dsk_2_dsk_4_dsk_7_a_directory_that_stops_at_any_operation_has_what_it_completed_and_goes_on() {
    swept(Kind::Directory);
}
