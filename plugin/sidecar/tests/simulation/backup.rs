//! A backup of a node on another machine: what it was given, what of that it has for good, and what it has said of it.

use std::collections::BTreeMap;
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
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use redb::ReadableDatabase;

use super::node::{NETWORK, Node};

/// The clocks of a node that is simulated.
pub const CLOCKS: Clocks = Clocks { now: Clock::monotonic, unix: Clock::now_unix };

/// What its node calls it.
pub const NAME: &str = "copy";

/// One thing that it was given.
#[derive(Clone)]
enum Write {
    Whole(Image, u64),
    Update(Update),
}

#[derive(Clone, Default)]
struct Kept {
    /// What it has for good.
    images: BTreeMap<ChannelId, Image>,
    tip: Option<TipRecord>,
    /// What it has said that it will have, of each channel in the order in which it came.
    waiting: Vec<Write>,
    /// Where it says so once it has it.
    ends: Option<SinkEnds>,
}

/// The backup; clones are the same one.
#[derive(Clone, Default)]
pub struct Backup(Arc<Mutex<Kept>>);

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
    fn keep(&mut self, write: Write) {
        match write {
            Write::Whole(image, _) => drop(self.images.insert(image.channel, image)),
            Write::Update(update) => {
                let image = self.images.get_mut(&update.channel).expect("an update follows a full write");
                image.apply(&update).expect("updates have no gap");
            }
        }
    }
}

impl Backup {
    /// What a node is to know of it.
    pub fn terms() -> SinkTerms {
        SinkTerms { name: NAME.to_owned(), kind: "command", is_required: true }
    }

    /// Connects it with a node that starts.
    pub fn open(&self, ends: SinkEnds) -> Box<dyn Persist> {
        self.0.lock().ends = Some(ends);
        Box::new(self.clone())
    }

    /// Another one that holds the same, and is connected with nobody.
    pub fn copied(&self) -> Self {
        let kept = Kept { ends: None, ..self.0.lock().clone() };
        Self(Arc::new(Mutex::new(kept)))
    }

    /// Whether it has yet to make anything durable.
    pub fn is_behind(&self) -> bool {
        !self.0.lock().waiting.is_empty()
    }

    /// Makes something durable, the oldest of some channel, and says so.
    pub fn complete_one(&self, rng: &mut ChaCha8Rng) {
        let (ends, channel, id) = {
            let mut kept = self.0.lock();
            let some = kept.waiting.choose(rng).expect("something that waits").channel();
            let oldest = kept.waiting.iter().position(|write| write.channel() == some).expect("it waits");
            let write = kept.waiting.remove(oldest);
            let id = write.id();
            kept.keep(write);
            (kept.ends.clone(), some, id)
        };
        if let Some(ends) = ends {
            ends.channel_monitor_updated(&channel, id);
        }
    }

    /// Its node is gone. A first part of what it was given is durable, and nobody was told.
    pub fn lose_node(&self, rng: &mut ChaCha8Rng) {
        let mut kept = self.0.lock();
        let writes = std::mem::take(&mut kept.waiting);
        let kept_of_them = rng.random_range(0..=writes.len());
        writes.into_iter().take(kept_of_them).for_each(|write| kept.keep(write));
        kept.ends = None;
    }

    /// Whether it has the rows that a promise of this channel stands on, which `holds` looks at.
    pub fn has(&self, channel: &ChannelId, holds: impl FnOnce(&Image) -> bool) -> bool {
        self.0.lock().images.get(channel).is_some_and(holds)
    }

    /// It has of every channel what the database has, but for preimages that it keeps longer for other channels.
    pub fn assert_complete(&self, node: &Node) {
        let transaction = node.live().db.begin_read().unwrap();
        let kept = self.0.lock();
        for image in kept.images.values() {
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
        // A database that cannot be read is about to end its process.
        if let Ok(image) = full.image() {
            self.0.lock().waiting.push(Write::Whole(image, id));
        }
        Answer::InProgress
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
        self.0.lock().waiting.push(Write::Update(update.clone()));
        Answer::InProgress
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        self.0.lock().tip = Some(tip.clone());
        Answer::Completed
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let kept = self.0.lock();
        let living = kept.images.values().filter(|image| image.is_live());
        Ok(living.map(|image| Holding { channel: image.channel, id: image.id }).collect())
    }
}

impl Source for Backup {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        Ok(self.0.lock().images.keys().copied().collect())
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let kept = self.0.lock();
        let record =
            |image: &Image| NamedRecord { name: RecordName::full(*channel, image.id), content: image.encode() };
        let full = kept.images.get(channel).map(record);
        let newest = full.as_ref().map(|record| record.name.id);
        Ok(StoredChannel { channel: *channel, full, updates: Vec::new(), newest, faults: Vec::new() })
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        Ok(self.0.lock().tip.as_ref().map(TipRecord::encode))
    }
}
