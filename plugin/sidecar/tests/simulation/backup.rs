//! A backup of a node on another machine: what it was given, what of that it has for good, and what it has said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bitcoin::OutPoint;
use outrigger_bolt::id::ChannelId;
use outrigger_channel::{ChannelHead, Row};
use outrigger_sidecar::clock::Clock;
use outrigger_sidecar::store::backup::kept::image_in;
use outrigger_sidecar::store::backup::sealed::RecordName;
use outrigger_sidecar::store::backup::source::{NamedRecord, Source, SourceFault, StoredChannel};
use outrigger_sidecar::store::backup::{
    Answer, Clocks, Full, Holding, Image, Persist, SinkEnds, SinkFault, SinkTerms, TipRecord, Update,
};
use outrigger_sidecar::store::row::SettlementRow;
use outrigger_sidecar::store::schema::{Table, numbered_key};
use parking_lot::Mutex;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::ReadableDatabase;

use super::behaviours::{Behaviour, Lie};
use super::node::{NETWORK, Node};

/// The clocks of a node that is simulated.
pub const CLOCKS: Clocks = Clocks { now: Clock::monotonic, unix: Clock::now_unix };

/// One thing that it was given.
#[derive(Clone)]
enum Write {
    Whole(Image, u64),
    Update(Update),
}

/// What a backup has for good.
#[derive(Clone, Default)]
struct Held {
    images: BTreeMap<ChannelId, Image>,
    tip: Option<TipRecord>,
}

#[derive(Clone)]
struct Kept {
    has: Held,
    /// What it had at some moment: what it falls back to where it forgets, and what an old copy of it has.
    before: Option<Held>,
    /// What it has said that it will have, of each channel in the order in which it came.
    waiting: Vec<Write>,
    /// What it has, and has not said so.
    untold: Vec<(ChannelId, u64)>,
    /// Where it says so once it has it.
    ends: Option<SinkEnds>,
    /// Nothing becomes durable, and it tells nothing.
    is_away: bool,
    /// The next thing that goes against its nature is done where there is an occasion.
    is_bad_now: bool,
    /// The next write of this channel is refused.
    bad_for: Option<ChannelId>,
    /// The channels that it has refused for good.
    refused: BTreeSet<ChannelId>,
    /// It has told of more than it was ever given.
    has_boasted: bool,
    rng: ChaCha8Rng,
}

/// The backup; clones are the same one.
#[derive(Clone)]
pub struct Backup {
    /// What its node calls it.
    name: String,
    is_required: bool,
    took_a_place: bool,
    pub behaviour: Behaviour,
    kept: Arc<Mutex<Kept>>,
}

impl Write {
    fn channel(&self) -> ChannelId {
        match self {
            Self::Whole(image, _) => image.channel,
            Self::Update(update) => update.channel,
        }
    }

    fn id(&self) -> u64 {
        match self {
            Self::Whole(_, id) => *id,
            Self::Update(update) => update.id,
        }
    }
}

impl Kept {
    fn keep(&mut self, write: Write, behaviour: Behaviour) {
        match write {
            Write::Whole(image, _) => drop(self.has.images.insert(image.channel, image)),
            Write::Update(update) => {
                let applied = self.has.images.get_mut(&update.channel).map(|image| image.apply(&update));
                let is_whole = matches!(applied, Some(Ok(())));
                assert!(is_whole || !behaviour.keeps(), "updates have no gap, and follow a full write: {applied:?}");
            }
        }
    }

    /// What is done with a write where it comes.
    fn given(&mut self, write: Write, behaviour: Behaviour) -> Answer {
        let channel = write.channel();
        let is_bad = self.bad_for.take_if(|bad| *bad == channel).is_some();
        if behaviour == Behaviour::Refusing && (std::mem::take(&mut self.is_bad_now) || is_bad) {
            self.refused.insert(channel);
        }
        if self.refused.contains(&channel) {
            return Answer::PermanentFailure("no room for this channel, ever".to_owned());
        }
        if !behaviour.answers_at_once() {
            self.waiting.push(write);
            return Answer::InProgress;
        }
        if behaviour.keeps() || self.rng.random_bool(0.5) {
            self.keep(write, behaviour);
        }
        Answer::Completed
    }

    fn living(&self) -> Vec<Holding> {
        let living = self.has.images.values().filter(|image| image.is_live());
        living.map(|image| Holding { channel: image.channel, id: image.id }).collect()
    }

    /// What it tells its node at a start.
    fn told(&mut self, behaviour: Behaviour) -> Vec<Holding> {
        let mut living = self.living();
        let Behaviour::Lying(lie) = behaviour else { return living };
        let at = if living.is_empty() { 0 } else { self.rng.random_range(0..living.len()) };
        let Some(one) = living.get_mut(at) else { return living };
        match lie {
            Lie::Drops | Lie::Forgets | Lie::Twice => {}
            Lie::Less if self.rng.random_bool(0.5) => drop(living.remove(at)),
            Lie::Less => one.id = one.id.saturating_sub(self.rng.random_range(0..5)),
            Lie::More if !std::mem::take(&mut self.is_bad_now) => {}
            Lie::More => {
                self.has_boasted = true;
                if self.rng.random_bool(0.5) {
                    one.id += self.rng.random_range(1000..2000);
                } else {
                    living.push(Holding { channel: ChannelId(self.rng.random()), id: 7 });
                }
            }
        }
        living
    }
}

impl Default for Backup {
    fn default() -> Self {
        Self::new("copy", true, Behaviour::default(), 0)
    }
}

impl Backup {
    pub fn new(name: &str, is_required: bool, behaviour: Behaviour, seed: u64) -> Self {
        let kept = Kept {
            has: Held::default(),
            before: None,
            waiting: Vec::new(),
            untold: Vec::new(),
            ends: None,
            is_away: false,
            is_bad_now: false,
            bad_for: None,
            refused: BTreeSet::new(),
            has_boasted: false,
            rng: ChaCha8Rng::seed_from_u64(seed),
        };
        let kept = Arc::new(Mutex::new(kept));
        Self { name: name.to_owned(), is_required, took_a_place: false, behaviour, kept }
    }

    /// An empty one for the place of another.
    pub fn in_place_of(dead: &Self, seed: u64) -> Self {
        let made = Self::new(&format!("{}-anew", dead.name), true, Behaviour::Prompt, seed);
        Self { took_a_place: true, ..made }
    }

    /// Whether it began empty, in the place of another.
    pub fn took_a_place(&self) -> bool {
        self.took_a_place
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Whether promises are held to what it has: it is required, and has for good what it completes.
    pub fn is_relied_on(&self) -> bool {
        self.is_required && self.behaviour.keeps()
    }

    /// What a node is to know of it.
    pub fn terms(&self) -> SinkTerms {
        SinkTerms { name: self.name.clone(), kind: "command", is_required: self.is_required }
    }

    /// Connects it with a node that starts.
    pub fn open(&self, ends: SinkEnds) -> Box<dyn Persist> {
        self.kept.lock().ends = Some(ends);
        Box::new(self.clone())
    }

    /// Another one that holds the same, and is connected with nobody.
    pub fn copied(&self) -> Self {
        let kept = Kept { ends: None, ..self.kept.lock().clone() };
        Self { kept: Arc::new(Mutex::new(kept)), ..self.clone() }
    }

    /// It as it was when it was last remembered.
    pub fn as_before(&self) -> Option<Self> {
        let old = self.copied();
        let before = old.kept.lock().before.take()?;
        old.kept.lock().has = before;
        Some(old)
    }

    /// What it has now is what an old copy of it has.
    pub fn remember(&self) {
        let mut kept = self.kept.lock();
        kept.before = Some(kept.has.clone());
    }

    /// Whether it has any channel.
    pub fn has_any(&self) -> bool {
        self.kept.lock().has.images.values().any(Image::is_live)
    }

    /// Whether it has anything to make durable or to say.
    pub fn is_behind(&self) -> bool {
        let kept = self.kept.lock();
        let has_work = !kept.waiting.is_empty() || !kept.untold.is_empty();
        has_work && !kept.is_away
    }

    pub fn is_away(&self) -> bool {
        self.kept.lock().is_away
    }

    /// It is away, or back: the operator is shown which.
    pub fn set_away(&self, is_away: bool) {
        let ends = {
            let mut kept = self.kept.lock();
            kept.is_away = is_away;
            kept.ends.clone()
        };
        match ends {
            Some(ends) if is_away => ends.trouble("its disk is away"),
            Some(ends) => ends.well(),
            None => {}
        }
    }

    /// What goes against its nature is done at the next occasion.
    pub fn turn_bad(&self) {
        self.kept.lock().is_bad_now = true;
    }

    /// What it has not gone against yet it does not go against any more: an end to [`Self::turn_bad`].
    pub fn stay_good(&self) {
        self.kept.lock().is_bad_now = false;
    }

    /// The next write of this channel is refused, and those of others are not.
    pub fn turn_bad_for(&self, channel: ChannelId) {
        self.kept.lock().bad_for = Some(channel);
    }

    /// Whether it has refused this channel for good.
    pub fn has_refused(&self, channel: &ChannelId) -> bool {
        self.kept.lock().refused.contains(channel)
    }

    /// How many channels it has refused for good.
    pub fn refusals(&self) -> usize {
        self.kept.lock().refused.len()
    }

    /// Whether it has told its node of more than it was ever given.
    pub fn has_boasted(&self) -> bool {
        self.kept.lock().has_boasted
    }

    /// Makes something durable, the oldest of some channel, or says so of what is.
    pub fn complete_one(&self, rng: &mut ChaCha8Rng) {
        let (ends, told) = {
            let mut kept = self.kept.lock();
            let is_said = !kept.untold.is_empty() && (kept.waiting.is_empty() || rng.random_bool(0.5));
            if !is_said {
                let some = kept.waiting.choose(rng).expect("something that waits").channel();
                let oldest = kept.waiting.iter().position(|write| write.channel() == some).expect("it waits");
                let write = kept.waiting.remove(oldest);
                kept.untold.push((some, write.id()));
                kept.keep(write, self.behaviour);
            }
            if !is_said && self.behaviour.tells_later() {
                return;
            }
            let at = rng.random_range(0..kept.untold.len());
            (kept.ends.clone(), kept.untold.remove(at))
        };
        let (channel, id) = told;
        let times = if self.behaviour == Behaviour::Lying(Lie::Twice) { 2 } else { 1 };
        for ends in ends.iter().cycle().take(times) {
            ends.channel_monitor_updated(&channel, id);
        }
    }

    /// Its node is gone. A first part of what it was given is durable, and nobody was told. Says whether it has forgotten what it had.
    pub fn lose_node(&self, rng: &mut ChaCha8Rng) -> bool {
        let mut kept = self.kept.lock();
        let writes = std::mem::take(&mut kept.waiting);
        let kept_of_them = rng.random_range(0..=writes.len());
        if !kept.is_away {
            writes.into_iter().take(kept_of_them).for_each(|write| kept.keep(write, self.behaviour));
        }
        kept.untold.clear();
        kept.ends = None;
        let forgets = self.behaviour == Behaviour::Lying(Lie::Forgets) && rng.random_bool(0.5);
        if forgets {
            kept.has = kept.before.take().unwrap_or_default();
        }
        forgets
    }

    /// Whether it has the rows that a promise of this channel stands on, which `holds` looks at.
    pub fn has(&self, channel: &ChannelId, holds: impl FnOnce(&Image) -> bool) -> bool {
        self.kept.lock().has.images.get(channel).is_some_and(holds)
    }

    /// It has of every channel what the database has, but for preimages that it keeps longer for other channels.
    pub fn assert_complete(&self, node: &Node) {
        let transaction = node.live().db.begin_read().unwrap();
        let kept = self.kept.lock();
        for image in kept.has.images.values().filter(|image| !kept.refused.contains(&image.channel)) {
            let wanted = image_in(&transaction, (NETWORK, &node.id), &image.channel).unwrap();
            let rows = |image: &Image| {
                let of_the_channel = |table: Table| !matches!(table, Table::Preimage | Table::PeerAddress);
                let rows = image.rows.clone().into_iter().filter(|((table, _), _)| of_the_channel(*table));
                rows.collect::<BTreeMap<_, _>>()
            };
            let id = (image.channel, image.id);
            assert_eq!(id, (wanted.channel, wanted.id), "the backup of node {}", node.number);
            assert_eq!(rows(image), rows(&wanted), "the backup of node {} differs in {}", node.number, image.channel);
        }
    }
}

/// The head of a channel in an image.
pub fn head_in(image: &Image) -> Option<ChannelHead> {
    let row = image.rows.get(&(Table::ChannelHead, image.channel.0.to_vec()))?;
    Some(ChannelHead::decode(row).unwrap())
}

/// The decision on a received HTLC in an image.
pub fn settlement_in(image: &Image, htlc_id: u64) -> Option<SettlementRow> {
    let row = image.rows.get(&(Table::Settlement, numbered_key(&image.channel, htlc_id)))?;
    Some(SettlementRow::decode(row).unwrap())
}

impl Persist for Backup {
    fn persist_new_channel(&mut self, _channel: &ChannelId, _funding: OutPoint, full: &Full<'_>, id: u64) -> Answer {
        match full.image() {
            Ok(image) => self.kept.lock().given(Write::Whole(image, id), self.behaviour),
            // A database that cannot be read is about to end its process.
            Err(_) => Answer::InProgress,
        }
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        funding: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        id: u64,
    ) -> Answer {
        let Some(update) = update else { return self.persist_new_channel(channel, funding, full, id) };
        self.kept.lock().given(Write::Update(update.clone()), self.behaviour)
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        let mut kept = self.kept.lock();
        if kept.is_away {
            return Answer::InProgress;
        }
        kept.has.tip = Some(tip.clone());
        Answer::Completed
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let mut kept = self.kept.lock();
        if kept.is_away {
            Err(SinkFault::Passing("its disk is away".to_owned()))
        } else {
            Ok(kept.told(self.behaviour))
        }
    }
}

impl Source for Backup {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        Ok(self.kept.lock().has.images.keys().copied().collect())
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let kept = self.kept.lock();
        let record =
            |image: &Image| NamedRecord { name: RecordName::full(*channel, image.id), content: image.encode() };
        let full = kept.has.images.get(channel).map(record);
        let newest = full.as_ref().map(|record| record.name.id);
        Ok(StoredChannel { full, newest, ..StoredChannel::nothing(*channel) })
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        Ok(self.kept.lock().has.tip.as_ref().map(TipRecord::encode))
    }
}
