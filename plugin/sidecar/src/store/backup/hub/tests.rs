//! The contract, statement by statement: a file, the writer's commits made by hand, and sinks with every fault.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;
use std::time::{Duration, Instant};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Transaction, absolute, transaction};
use crossbeam_channel::Receiver;
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{PaymentHash, PaymentPreimage, ShortChannelId};
use outrigger_bolt::keys::Basepoints;
use outrigger_bolt::wire::{Message, Warning};
use outrigger_channel::{
    ChannelParams, CommandId, Effect, FailReason, HtlcOutcome, HtlcSource, IncomingHtlc, Publication, Reply, Row,
    SideParams, Watch,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::Full;
use super::super::ends::SinkFault;
use super::super::image::Image;
use super::super::kept::{id_in, image_in};
use super::super::stand_in::{Kept, Manner, StandIn};
use super::super::start::{Found, known_sinks};
use super::*;
use crate::store::row::{Downstream, EventRow, SettlementRow};
use crate::store::schema::{Table, channel_key, htlc_key, numbered_key, preimage_key};
use crate::store::seal::seal;
use crate::store::{self, Address, Batch, Commits, Writer};

mod held;
mod refused;
mod runs;
mod shown;
mod tips;

thread_local! {
    static BEGUN: Instant = Instant::now();
    static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// A channel that the next start finds failed for want of a sink.
    static WITHHELD: Cell<Option<ChannelId>> = const { Cell::new(None) };
}

fn now() -> Instant {
    BEGUN.with(|begun| *begun + PASSED.get())
}

fn pass(time: Duration) {
    PASSED.set(PASSED.get() + time);
}

const CLOCKS: Clocks = Clocks { now, unix: || 1_800_000_000 };
/// The number of the local commitment that each channel of a start has.
const LOADED: u64 = 40;
const FIRST: ChannelId = ChannelId([1; 32]);
const SECOND: ChannelId = ChannelId([2; 32]);

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

fn at(channel: ChannelId, connection: u64) -> Address {
    Address { peer: node(9), connection, channel }
}

/// The row of a channel with node 9.
fn params_of(channel: ChannelId) -> Vec<u8> {
    let point = PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[7; 32]).unwrap());
    let side = SideParams {
        basepoints: Basepoints {
            funding_pubkey: point,
            revocation: point,
            payment: point,
            delayed_payment: point,
            htlc: point,
        },
        dust_limit: Sat::new(354),
        channel_reserve: Sat::new(1000),
        to_self_delay: 144,
        max_htlc_value_in_flight: Msat::new(1_000_000),
        max_accepted_htlcs: 30,
        htlc_minimum: Msat::new(1),
        upfront_shutdown_script: None,
    };
    let params = ChannelParams {
        channel_id: channel,
        peer: node(9),
        keys_index: 1,
        is_opener: true,
        announce: false,
        channel_type: Features::channel_type_anchors(),
        funding: OutPoint { txid: Txid::from_byte_array(channel.0), vout: 0 },
        capacity: Sat::new(100_000),
        push: Msat::ZERO,
        minimum_depth: 3,
        opened_height: 500,
        scid_alias: ShortChannelId::alias(1),
        local: side.clone(),
        remote: side,
    };
    params.encode()
}

/// A channel as a start finds it.
fn found(channel: ChannelId) -> Found {
    let is_withheld = WITHHELD.get() == Some(channel);
    Found { channel, peer: node(9), funding: unknown_funding(), local_number: LOADED, is_withheld }
}

/// A word for the peer of a channel.
fn say(channel: ChannelId, text: &str) -> Effect {
    Effect::Send(Message::Warning(Warning { channel_id: channel, data: text.into() }))
}

fn error(channel: ChannelId) -> Effect {
    Effect::Send(Message::Error(outrigger_bolt::wire::Error { channel_id: channel, data: "why".into() }))
}

/// A received HTLC that is to be handed on.
fn incoming(channel: ChannelId) -> Effect {
    Effect::Incoming(IncomingHtlc {
        channel,
        htlc_id: 1,
        amount: Msat::new(1000),
        payment_hash: PaymentHash([4; 32]),
        cltv_expiry: 500,
        onion: Box::new([0; 1366]),
        over_exposed: false,
    })
}

/// A failure that is to be told upstream.
fn failed() -> Effect {
    Effect::Settle {
        htlc_id: 0,
        source: HtlcSource::Payment { payment_id: [1; 32], part: 0 },
        amount: Msat::new(1),
        payment_hash: PaymentHash([3; 32]),
        outcome: HtlcOutcome::NoOutput,
    }
}

fn publish_funding() -> Effect {
    Effect::Publish { what: Publication::Funding, tx: funding_tx() }
}

/// A promise with a number.
fn promise(number: u64) -> Effect {
    Effect::Reply(CommandId(number), Ok(Reply::Added { htlc_id: number }))
}

/// An enforcement with a number.
fn enforcement(number: u32) -> Effect {
    Effect::Watch(Watch::Height(number))
}

fn funding_tx() -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![],
        output: vec![],
    }
}

/// What has left, in words.
fn word(held: &store::Held) -> Option<(ChannelId, String)> {
    let store::Held::Channel { at, effect, .. } = held else { return None };
    let text = match &**effect {
        Effect::Reply(id, Ok(Reply::Added { .. })) => format!("promise {}", id.0),
        Effect::Watch(Watch::Height(height)) => format!("enforcement {height}"),
        Effect::Send(message) => format!("{} on {}", message.name(), at.connection),
        Effect::Incoming(_) => "incoming".to_owned(),
        Effect::Settle { outcome: HtlcOutcome::Fulfilled(_), .. } => "fulfilled".to_owned(),
        Effect::Settle { .. } => "failed".to_owned(),
        Effect::Publish { what, .. } => format!("publish {what:?}"),
        other => format!("{other:?}"),
    };
    Some((at.channel, text))
}

/// What a sink holds, and outlives a start.
type Store = Arc<Mutex<Kept>>;

/// One run of a node's store over a file.
struct Bench {
    dir: Arc<tempfile::TempDir>,
    db: Arc<Database>,
    hub: Arc<Hub>,
    writer: Writer,
    commits: Commits,
    sinks: Vec<StandIn>,
    news: Receiver<News>,
    left: Arc<StdMutex<Vec<(ChannelId, String)>>>,
}

impl Bench {
    fn new(sinks: &[(Manner, bool)]) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let db = store::open(dir.path(), "regtest", &node(1)).unwrap();
        let sinks: Vec<_> = sinks.iter().map(|(manner, required)| (*manner, *required, Store::default())).collect();
        Self::over(dir, db, &sinks, &[])
    }

    /// A start over the file: `live` are its channels with the ids that the file has.
    fn over(
        dir: Arc<tempfile::TempDir>,
        db: Arc<Database>,
        sinks: &[(Manner, bool, Store)],
        live: &[ChannelId],
    ) -> Self {
        let (told, news) = crossbeam_channel::unbounded();
        let mut terms: Vec<(SinkTerms, Open)> = Vec::new();
        let made = Arc::new(StdMutex::new(Vec::new()));
        for (number, (manner, is_required, kept)) in sinks.iter().enumerate() {
            let name = format!("sink-{number}");
            let (manner, kept, made) = (*manner, kept.clone(), made.clone());
            let open = move |ends: SinkEnds| -> Box<dyn Persist> {
                let sink = StandIn::new(manner, kept, ends);
                made.lock().unwrap().push(sink.clone());
                Box::new(sink)
            };
            terms.push((SinkTerms { name, kind: "mirror", is_required: *is_required }, Box::new(open)));
        }
        let names: Vec<_> = terms.iter().map(|(terms, _)| terms.name.as_str()).collect();
        let found = live.iter().map(|channel| found(*channel));
        let start = Start::over(&db, found, (&names, &names)).unwrap();
        let last_event = store::last_event(&db).unwrap();
        let (hub, _) = Hub::new(("regtest", node(1)), db.clone(), (start, last_event), CLOCKS, terms, told);
        let left = Arc::new(StdMutex::new(Vec::new()));
        let leaving = left.clone();
        hub.deliver_to(move |released, _| leaving.lock().unwrap().extend(released.open().iter().filter_map(word)));
        let (writer, commits) = Writer::new(db.clone()).unwrap();
        let commits = commits.keeping(Some(hub.clone()));
        let sinks = made.lock().unwrap().clone();
        Self { dir, db, hub, writer, commits, sinks, news, left }
    }

    /// What the node is told next, but that it has heard every required sink.
    fn next_news(&self) -> Option<News> {
        self.news.try_iter().find(|news| !matches!(news, News::Heard))
    }

    /// The same file and sinks after the process ended, with these channels.
    fn restarted(self, live: &[ChannelId]) -> Self {
        let terms = self.hub.desks.iter().map(|desk| desk.terms.is_required);
        let sinks: Vec<_> =
            self.sinks.iter().zip(terms).map(|(sink, is)| (sink.manner, is, sink.kept.clone())).collect();
        let Self { dir, db, hub, writer, commits, sinks: old, .. } = self;
        drop((hub, writer, commits, old));
        Self::over(dir, db, &sinks, live)
    }

    /// Every sink tells what it holds.
    fn hear(&self) {
        for (number, sink) in self.sinks.iter().enumerate() {
            let mut sink = sink.clone();
            let holdings = sink.holdings().unwrap();
            self.hub.meet(number, &mut sink, &holdings).unwrap();
        }
    }

    /// Commits one batch and releases it, as the writer's thread does.
    fn commit(&mut self, batch: Batch) {
        self.writer.submit(batch);
        let mut gathered = self.commits.gather(1).unwrap();
        let (orders, seq) = self.commits.orders(&mut gathered);
        self.hub.release(orders, seq);
        let (released, seq) = self.commits.finish(gathered).unwrap();
        self.hub.release(released, seq);
    }

    /// One step of a channel: its head changes, and this follows.
    fn step(&mut self, channel: ChannelId, number: u64, effects: Vec<Effect>) {
        self.commit(changed(channel, number, effects));
    }

    fn open(&mut self, channel: ChannelId, effects: Vec<Effect>) {
        let mut batch = changed(channel, 0, effects);
        batch.put(Table::ChannelParams, channel_key(&channel), Some(params_of(channel)));
        self.commit(batch);
    }

    /// Gives a sink one thing. Says whether there was any.
    fn give(&mut self, number: usize) -> bool {
        let Some(work) = self.hub.desks[number].with(Lanes::next) else { return false };
        let mut sink = self.sinks[number].clone();
        self.hub.give(number, &mut sink, work);
        self.sinks[number].manner = sink.manner;
        true
    }

    fn give_all(&mut self) {
        for number in 0..self.sinks.len() {
            while self.give(number) {}
        }
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.left.lock().unwrap()).into_iter().map(|(_, text)| text).collect()
    }

    fn id(&self, channel: &ChannelId) -> u64 {
        id_in(&self.db.begin_read().unwrap(), channel).unwrap()
    }

    fn image(&self, channel: &ChannelId) -> Image {
        image_in(&self.db.begin_read().unwrap(), ("regtest", &node(1)), channel).unwrap()
    }

    fn calls(&self, number: usize) -> Vec<(&'static str, u64)> {
        let calls = std::mem::take(&mut self.sinks[number].kept.lock().calls);
        calls.into_iter().map(|(kind, _, id)| (kind, id)).collect()
    }
}

fn changed(channel: ChannelId, number: u64, effects: Vec<Effect>) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::ChannelHead, channel_key(&channel), Some(number.to_be_bytes().to_vec()));
    effects.into_iter().for_each(|effect| batch.hold_effect(at(channel, 1), effect));
    batch
}

#[test]
fn promises_wait_for_every_required_sink_enforcements_and_other_channels_do_not() {
    let mut bench = Bench::new(&[(Manner::Slow, true), (Manner::Sound, true), (Manner::Slow, false)]);
    bench.hear();
    bench.open(FIRST, vec![enforcement(1), promise(1), enforcement(2)]);
    assert_eq!(bench.taken(), ["enforcement 1", "enforcement 2"]);
    bench.give_all();
    assert!(bench.taken().is_empty(), "one required sink has it, and one has not");
    // A channel that no sink has anything to do with, and a promise of an opening that has no row.
    let mut batch = Batch::default();
    batch.hold_effect(at(SECOND, 1), promise(7));
    bench.commit(batch);
    assert_eq!(bench.taken(), ["promise 7"]);
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["promise 1"], "the one that follows is waited for by nobody");
    bench.step(FIRST, 1, vec![promise(2)]);
    bench.step(FIRST, 2, vec![promise(3)]);
    bench.give_all();
    bench.sinks[0].complete(1);
    assert!(bench.taken().is_empty(), "a completion out of order lets nothing go");
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["promise 2", "promise 3"]);
    assert_eq!(bench.calls(0), [("new", 1), ("update", 2), ("update", 3)]);
    assert_eq!(bench.sinks[2].kept.lock().open.len(), 3);
}

#[test]
fn promises_of_one_channel_keep_their_order_though_nothing_of_theirs_is_new() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    let mut rowless = Batch::default();
    rowless.hold_effect(at(FIRST, 1), promise(2));
    bench.commit(rowless);
    assert!(bench.taken().is_empty(), "a promise without rows waits behind those before it");
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["promise 1", "promise 2"]);
}

#[test]
fn a_sink_that_only_follows_is_waited_for_by_nobody_and_its_lag_is_shown() {
    let mut bench = Bench::new(&[(Manner::Forgetful, false)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.step(FIRST, 1, vec![promise(2)]);
    assert_eq!(bench.taken(), ["promise 1", "promise 2"]);
    bench.give_all();
    pass(Duration::from_secs(90));
    let view = bench.hub.views().remove(0);
    assert_eq!((view.lag.updates, view.lag.channels, view.lag.waited), (2, 1, Duration::from_secs(90)));
    assert!(bench.hub.look_for_stalls().is_empty());
}

/// Law 1, as "Relay" of the architecture has it.
#[test]
fn a_preimage_goes_upstream_at_once_and_a_failure_or_a_new_htlc_waits_for_the_sinks() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, Vec::new());
    bench.give_all();
    bench.sinks[0].complete(0);
    let settle = |outcome| Effect::Settle {
        htlc_id: 0,
        source: HtlcSource::Relayed { channel: SECOND, htlc_id: 3 },
        amount: Msat::new(1000),
        payment_hash: PaymentHash([3; 32]),
        outcome,
    };
    let failed = settle(HtlcOutcome::Failed(FailReason::Encrypted(vec![1])));
    let fulfilled = settle(HtlcOutcome::Fulfilled(PaymentPreimage([5; 32])));
    bench.step(FIRST, 1, vec![incoming(FIRST), failed, fulfilled]);
    assert_eq!(bench.taken(), ["fulfilled"]);
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["incoming", "failed"]);
}

#[test]
fn a_new_connection_drops_what_was_to_be_said_on_older_ones_and_nothing_else() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, Vec::new());
    let mut batch = Batch::default();
    batch.hold_effect(at(FIRST, 1), say(FIRST, "old"));
    batch.hold_effect(at(FIRST, 1), promise(1));
    batch.hold_effect(at(FIRST, 2), say(FIRST, "new"));
    bench.commit(batch);
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(bench.taken(), ["promise 1", "warning on 2"]);
}

#[test]
fn at_the_start_a_channel_that_is_proved_complete_gets_no_full_write_and_others_do_before_anything_is_said() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, Vec::new());
    bench.open(SECOND, Vec::new());
    bench.give_all();
    bench.calls(0);
    // The second one's next step does not come to the sink before the process ends.
    bench.step(SECOND, 1, vec![promise(1)]);
    assert!(bench.taken().is_empty());
    let mut bench = bench.restarted(&[FIRST, SECOND]);
    let reestablish = |bench: &mut Bench, channel| {
        let mut batch = Batch::default();
        batch.hold_effect(at(channel, 2), promise(9));
        bench.commit(batch);
    };
    reestablish(&mut bench, FIRST);
    reestablish(&mut bench, SECOND);
    bench.give_all();
    assert!(bench.taken().is_empty() && bench.calls(0).is_empty(), "it is not known yet what the sink holds");
    bench.hear();
    assert_eq!(bench.taken(), ["promise 9"], "the first is proved complete");
    bench.give_all();
    assert_eq!(bench.calls(0), [("full", 2)]);
    assert_eq!(bench.taken(), ["promise 9"]);
    assert_eq!(bench.sinks[0].kept.lock().images[&SECOND], bench.image(&SECOND));
}

#[test]
fn a_sink_that_is_added_begins_with_a_full_write_under_an_id_that_was_never_used() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, Vec::new());
    bench.give_all();
    let (dir, db, kept) = (bench.dir.clone(), bench.db.clone(), bench.sinks[0].kept.clone());
    drop(bench);
    // A time without sinks, in which the channel goes on.
    let mut bench = Bench::over(dir.clone(), db.clone(), &[], &[FIRST]);
    bench.commits = Writer::new(db.clone())
        .map(|(writer, commits)| {
            bench.writer = writer;
            commits
        })
        .unwrap();
    bench.step(FIRST, 1, vec![promise(1)]);
    assert_eq!(bench.taken(), ["promise 1"]);
    assert_eq!(bench.id(&FIRST), 1, "without a sink no id is written");
    drop(bench);
    let mut bench = Bench::over(dir, db, &[(Manner::Sound, true, kept)], &[FIRST]);
    bench.calls(0);
    bench.hear();
    bench.give_all();
    assert_eq!(bench.calls(0), [("full", 2)]);
    assert_eq!(bench.sinks[0].kept.lock().images[&FIRST], bench.image(&FIRST));
}

#[test]
fn bak_1_a_sink_ahead_of_the_file_proves_that_this_is_an_old_copy_and_is_left_as_it_is() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, Vec::new());
    bench.give_all();
    let kept = bench.sinks[0].kept.clone();
    kept.lock().images.get_mut(&FIRST).unwrap().id = 5;
    let mut bench = bench.restarted(&[FIRST]);
    bench.hear();
    let News::Ahead { proof } = bench.next_news().unwrap() else { panic!("no proof") };
    assert!(
        proof.contains("sink-0 holds channel") && proof.contains("at write 5") && proof.contains("is at 1"),
        "{proof}"
    );
    assert_eq!(bench.hub.views()[0].state, super::super::State::Ahead);
    bench.calls(0);
    bench.step(FIRST, 1, vec![promise(1), enforcement(1)]);
    bench.give_all();
    assert_eq!(bench.taken(), ["enforcement 1"]);
    assert!(bench.calls(0).is_empty());
    assert_eq!(kept.lock().images[&FIRST].id, 5);
}

/// What the node publishes of its own waits for the word of those that promises wait for, and not for what they have yet to write.
#[test]
fn bak_1_it_is_told_once_every_required_sink_has_told_what_it_holds_and_never_where_one_cannot_or_is_ahead() {
    let bench = Bench::new(&[(Manner::Slow, true), (Manner::Sound, false), (Manner::Sound, true)]);
    assert_eq!(bench.hub.unheard(), ["sink-0", "sink-2"]);
    let tells = |bench: &Bench, number: usize| {
        let mut sink = bench.sinks[number].clone();
        let holdings = sink.holdings().unwrap();
        bench.hub.meet(number, &mut sink, &holdings).unwrap();
    };
    tells(&bench, 0);
    tells(&bench, 1);
    assert!(bench.news.try_recv().is_err());
    assert_eq!(bench.hub.unheard(), ["sink-2"]);
    tells(&bench, 2);
    assert!(matches!(bench.news.try_recv(), Ok(News::Heard)));
    assert!(bench.hub.unheard().is_empty() && bench.news.try_recv().is_err());
    // One that cannot tell is given everything, and is as silent as before.
    let bench = Bench::new(&[(Manner::Sound, true), (Manner::Sound, true)]);
    bench.hub.step(0, &mut Mute);
    tells(&bench, 1);
    assert!(bench.hub.has_heard_all() && bench.news.try_recv().is_err());
    assert_eq!(bench.hub.unheard(), ["sink-0"]);
    // Nothing is required: nobody waits.
    let bench = Bench::new(&[(Manner::Sound, false)]);
    tells(&bench, 0);
    assert!(bench.news.try_recv().is_err());
    // One that follows has proved the file old.
    let bench = Bench::new(&[(Manner::Sound, false), (Manner::Sound, true)]);
    let mut image = Image::new("regtest", node(1), FIRST, 3);
    image.rows.insert((Table::ChannelParams, channel_key(&FIRST)), b"params".to_vec());
    bench.sinks[0].kept.lock().images.insert(FIRST, image);
    tells(&bench, 0);
    tells(&bench, 1);
    assert!(matches!(bench.news.try_recv(), Ok(News::Ahead { .. })));
    assert!(bench.news.try_recv().is_err());
}

/// A sink whose disk takes no writes now: what it holds is seen and not settled.
struct Unsettled(StandIn);

impl Persist for Unsettled {
    fn persist_new_channel(&mut self, _: &ChannelId, _: OutPoint, _: &Full<'_>, _: u64) -> Answer {
        panic!("nothing is given to it")
    }

    fn update_persisted_channel(
        &mut self,
        _: &ChannelId,
        _: OutPoint,
        _: Option<&Update>,
        _: &Full<'_>,
        _: u64,
    ) -> Answer {
        panic!("nothing is given to it")
    }

    fn persist_tip(&mut self, _: &TipRecord) -> Answer {
        panic!("nothing is given to it")
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        self.0.holdings()
    }

    fn settle(&mut self) -> Result<(), SinkFault> {
        Err(SinkFault::Passing("it is read-only".to_owned()))
    }

    fn kept_tip(&mut self) -> Option<Vec<u8>> {
        self.0.kept_tip()
    }
}

/// A kill may have left in memory what is seen: nothing goes out for it. But what a failed channel publishes waits for the word alone.
#[test]
fn per_1_bak_1_what_a_sink_holds_counts_once_it_is_settled_and_its_word_before_that() {
    let mut bench = Bench::new(&[(Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![]);
    bench.give_all();
    let bench = bench.restarted(&[FIRST]);
    for told in [true, false] {
        bench.hub.step(0, &mut Unsettled(bench.sinks[0].clone()));
        assert_eq!(matches!(bench.news.try_recv(), Ok(News::Heard)), told, "it is told once");
        assert!(bench.hub.unheard().is_empty() && bench.hub.has_heard_all());
        assert_eq!(bench.hub.desks[0].complete(&FIRST), Some(0));
        assert!(bench.hub.desks[0].ends.trouble_now().is_some() && bench.hub.has_work(0));
    }
    let holdings = bench.sinks[0].clone().holdings().unwrap();
    bench.hub.step(0, &mut bench.sinks[0].clone());
    assert_eq!(bench.hub.desks[0].complete(&FIRST), Some(holdings[0].id));
    assert!(bench.hub.desks[0].ends.trouble_now().is_none() && !bench.hub.has_work(0));
    assert!(bench.news.try_recv().is_err());
}

/// A sink that can never tell what it holds.
struct Mute;

impl Persist for Mute {
    fn persist_new_channel(&mut self, _: &ChannelId, _: OutPoint, _: &Full<'_>, _: u64) -> Answer {
        Answer::InProgress
    }

    fn update_persisted_channel(
        &mut self,
        _: &ChannelId,
        _: OutPoint,
        _: Option<&Update>,
        _: &Full<'_>,
        _: u64,
    ) -> Answer {
        Answer::InProgress
    }

    fn persist_tip(&mut self, _: &TipRecord) -> Answer {
        Answer::Completed
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        Err(SinkFault::Lasting("it is damaged".to_owned()))
    }
}

#[test]
fn bak_5_an_empty_file_beside_a_full_sink_is_an_old_copy() {
    let kept = Store::default();
    let mut image = Image::new("regtest", node(1), FIRST, 3);
    image.rows.insert((Table::ChannelParams, channel_key(&FIRST)), b"params".to_vec());
    kept.lock().images.insert(FIRST, image);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let db = store::open(dir.path(), "regtest", &node(1)).unwrap();
    let bench = Bench::over(dir, db, &[(Manner::Sound, false, kept)], &[]);
    bench.hear();
    let News::Ahead { proof } = bench.next_news().unwrap() else { panic!("no proof") };
    assert!(proof.contains("knows no such channel"), "{proof}");
}

#[test]
fn a_channel_that_waits_for_twenty_seconds_is_stalled_until_it_has_been_completed() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.open(SECOND, vec![promise(2)]);
    bench.give_all();
    bench.sinks[0].complete(1);
    pass(Duration::from_millis(19_999));
    assert!(bench.hub.look_for_stalls().is_empty());
    pass(Duration::from_millis(1));
    assert_eq!(bench.hub.look_for_stalls(), [FIRST]);
    assert!(bench.hub.is_stalled(&FIRST) && !bench.hub.is_stalled(&SECOND));
    assert!(bench.hub.look_for_stalls().is_empty(), "it is told once");
    bench.sinks[0].complete(0);
    assert_eq!(bench.hub.look_for_stalls(), [FIRST]);
    assert!(!bench.hub.is_stalled(&FIRST));
}

#[test]
fn a_completion_that_nobody_asked_for_or_that_comes_twice_counts_for_nothing() {
    let mut bench = Bench::new(&[(Manner::Lying, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.give_all();
    assert!(bench.taken().is_empty(), "ids that it was not given");
    let mut bench = Bench::new(&[(Manner::Twice, true), (Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.give_all();
    assert!(bench.taken().is_empty(), "twice in one sink is not once in both");
    bench.sinks[1].complete(0);
    assert_eq!(bench.taken(), ["promise 1"]);
}

#[test]
fn permanent_failure_drops_words_and_htlcs_nobody_was_told_of_and_the_second_one_stops_the_node() {
    let mut bench = Bench::new(&[(Manner::Failing, true)]);
    bench.hear();
    bench.open(FIRST, vec![say(FIRST, "?"), Effect::Revoke { number: 0 }, publish_funding(), failed(), promise(1)]);
    bench.give_all();
    assert_eq!(bench.taken(), ["failed", "promise 1"]);
    let News::Unstored(unstored) = bench.next_news().unwrap() else { panic!("none") };
    let reason = "the backup sink-0 will never have it: no room, ever".to_owned();
    let refusals = Refusals([("sink-0".to_owned(), FIRST)].into());
    assert_eq!(unstored, Unstored { channel: FIRST, reason, is_new: true, complete: None, refusals });
    // Its error goes out, and nothing else that is for the peer.
    bench.step(FIRST, 1, vec![say(FIRST, "?"), error(FIRST)]);
    assert_eq!(bench.taken(), ["error on 1"]);
    bench.open(SECOND, vec![promise(2)]);
    bench.give_all();
    assert!(matches!(bench.next_news().unwrap(), News::Dead { .. }), "one dead backup does not close every channel");
    assert!(bench.taken().is_empty());
}

#[test]
fn one_permanent_failure_of_a_sink_that_only_follows_costs_no_channel() {
    let mut bench = Bench::new(&[(Manner::FailingOnce, false), (Manner::Sound, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    bench.give_all();
    assert_eq!(bench.taken(), ["promise 1"]);
    assert!(bench.next_news().is_none());
    assert!(matches!(bench.hub.views()[0].state, super::super::State::Failed { .. }));
}

/// PER-5: the first write of a channel fails softly, or for good, or is late: nothing is broadcast before it is durable.
#[test]
fn per_5_no_funding_transaction_leaves_before_the_first_write_is_durable() {
    for manner in [Manner::Slow, Manner::Forgetful, Manner::Failing, Manner::FailingOnce, Manner::Lying, Manner::Sound]
    {
        let mut bench = Bench::new(&[(manner, true)]);
        bench.hear();
        bench.open(FIRST, vec![publish_funding()]);
        assert!(bench.taken().is_empty(), "{manner:?}");
        bench.give_all();
        let expected: &[&str] = if manner == Manner::Sound { &["publish Funding"] } else { &[] };
        assert_eq!(bench.taken(), expected, "{manner:?}");
        if manner == Manner::Slow {
            bench.sinks[0].complete(0);
            assert_eq!(bench.taken(), ["publish Funding"]);
        }
    }
}

#[test]
fn events_are_told_in_their_order_once_the_sinks_have_what_they_speak_of() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    let readable = bench.hub.readable_events();
    let event = || EventRow::new(7, "channel_ready", serde_json::json!({}));
    let mut batch = changed(FIRST, 0, Vec::new());
    batch.put(Table::ChannelParams, channel_key(&FIRST), Some(Vec::new()));
    batch.event(event());
    bench.commit(batch);
    let mut other = Batch::default();
    other.event(event());
    bench.commit(other);
    assert_eq!(*readable.borrow(), 0, "readers follow the numbers: the second waits behind the first");
    bench.give_all();
    bench.sinks[0].complete(0);
    assert_eq!(*readable.borrow(), 2);
}

/// The downstream channel forgets a preimage soon; a sink that has not got the settlement upstream must not.
#[test]
fn per_2_a_preimage_stays_in_a_sink_until_the_upstream_channel_has_it_there() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    let (upstream, downstream) = (FIRST, SECOND);
    bench.open(upstream, Vec::new());
    bench.open(downstream, Vec::new());
    bench.give_all();
    bench.sinks[0].complete(0);
    bench.sinks[0].complete(0);
    let preimage = PaymentPreimage([7; 32]);
    let key = preimage_key(&downstream, &preimage.payment_hash());
    let mut learned = changed(downstream, 1, Vec::new());
    learned.put(Table::Preimage, key.clone(), Some(preimage.0.to_vec()));
    let offered = Downstream { channel: downstream, htlc_id: 0, amount: Msat::new(1) };
    let row = SettlementRow::FulfilledDownstream(preimage, offered);
    learned.put(Table::Settlement, numbered_key(&upstream, 4), Some(row.encode()));
    bench.commit(learned);
    let mut forgotten = changed(downstream, 2, Vec::new());
    forgotten.put(Table::Preimage, key.clone(), None);
    bench.commit(forgotten);
    bench.give_all();
    // Given and not completed upstream: the row stays.
    let holds = |bench: &Bench| {
        let kept = bench.sinks[0].kept.lock();
        kept.images[&downstream].rows.contains_key(&(Table::Preimage, key.clone()))
    };
    assert!(holds(&bench));
    // A full write keeps it too, for as long.
    let full = |bench: &Bench| {
        let transaction = bench.db.begin_read().unwrap();
        bench.hub.image(&transaction, 0, &downstream).unwrap().rows.contains_key(&(Table::Preimage, key.clone()))
    };
    assert!(full(&bench));
    while !bench.sinks[0].kept.lock().open.is_empty() {
        bench.sinks[0].complete(0);
    }
    assert!(!full(&bench));
}

/// PER-2 on a virtual clock: every write takes 0 to 60 s, completions come in any order, and the process ends twice.
#[test]
fn per_2_random_latencies_out_of_order_completions_and_two_restarts() {
    for seed in 0..60_u64 {
        Schedule::new(seed).run();
    }
}

/// What a promise stands on: its channel's id when it was made.
struct Schedule {
    seed: u64,
    rng: ChaCha8Rng,
    /// By promise: the channel and the id that every required sink must have.
    stands_on: BTreeMap<u64, (ChannelId, u64)>,
    /// Completed in each sink, and what is durable there then.
    pending: Vec<BTreeMap<Instant, Vec<(ChannelId, u64)>>>,
    promises: u64,
    released: BTreeMap<ChannelId, u64>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (stands_on, pending, released) = (BTreeMap::new(), vec![BTreeMap::new(); 2], BTreeMap::new());
        Self { seed, rng, stands_on, pending, promises: 0, released }
    }

    fn run(&mut self) {
        let mut bench = Bench::new(&[(Manner::Slow, true), (Manner::Slow, true)]);
        bench.hear();
        let channels = [FIRST, SECOND, ChannelId([3; 32])];
        channels.iter().for_each(|channel| bench.open(*channel, Vec::new()));
        for life in 0..3 {
            for _ in 0..60 {
                self.act(&mut bench, channels);
                self.check(&bench);
            }
            if life < 2 {
                // What was held is lost with the process, and made again from rows; here it is simply gone.
                self.stands_on.clear();
                self.pending = vec![BTreeMap::new(); 2];
                bench = bench.restarted(&channels);
                bench.hear();
            }
        }
        self.settle(&mut bench);
        assert!(self.stands_on.is_empty(), "seed {}: promises that never left: {:?}", self.seed, self.stands_on);
        for (channel, sink) in channels.iter().flat_map(|channel| (0..2).map(move |sink| (channel, sink))) {
            let kept = bench.sinks[sink].kept.lock();
            assert_eq!(kept.images[channel].rows, bench.image(channel).rows, "seed {}", self.seed);
        }
    }

    fn act(&mut self, bench: &mut Bench, channels: [ChannelId; 3]) {
        let channel = channels[self.rng.random_range(0..3)];
        match self.rng.random_range(0..10) {
            0..=3 => {
                self.promises += 1;
                let number = self.promises;
                let mut batch = changed(channel, number, vec![promise(number)]);
                let htlc = outrigger_channel::HtlcKey::received(self.rng.random_range(0..4));
                let value = self.rng.random_bool(0.6).then(|| number.to_be_bytes().to_vec());
                batch.put(Table::Htlc, htlc_key(&channel, htlc), value);
                self.stands_on.insert(number, (channel, bench.id(&channel) + 1));
                bench.commit(batch);
            }
            4 => {
                self.promises += 1;
                let mut batch = Batch::default();
                batch.hold_effect(at(channel, 1), promise(self.promises));
                self.stands_on.insert(self.promises, (channel, bench.id(&channel)));
                bench.commit(batch);
            }
            5..=7 => {
                let sink = self.rng.random_range(0..2);
                self.give(bench, sink);
            }
            _ => {
                pass(Duration::from_millis(self.rng.random_range(0..30_000)));
                self.complete(bench);
            }
        }
    }

    /// Gives a sink one thing, which it completes within a minute.
    fn give(&mut self, bench: &mut Bench, sink: usize) -> bool {
        let given = bench.give(sink);
        let open: Vec<_> = bench.sinks[sink].kept.lock().open.drain(..).collect();
        for write in open {
            let due = now() + Duration::from_millis(self.rng.random_range(0..60_000));
            self.pending[sink].entry(due).or_default().push(write);
        }
        given
    }

    fn complete(&mut self, bench: &Bench) {
        for sink in 0..2 {
            let later = self.pending[sink].split_off(&(now() + Duration::from_nanos(1)));
            for (channel, id) in std::mem::replace(&mut self.pending[sink], later).into_values().flatten() {
                bench.sinks[sink].ends_for_test().channel_monitor_updated(&channel, id);
            }
        }
    }

    /// Nothing left before every required sink had completed what it stands on, and each channel's promises left in order.
    fn check(&mut self, bench: &Bench) {
        for text in bench.taken() {
            let number: u64 = text.strip_prefix("promise ").unwrap().parse().unwrap();
            let (channel, id) = self.stands_on.remove(&number).unwrap();
            for desk in &bench.hub.desks {
                let complete = desk.complete(&channel).unwrap();
                assert!(complete >= id, "seed {}: promise {number} at {id} left at {complete}", self.seed);
            }
            let before = self.released.insert(channel, number).unwrap_or(0);
            assert!(before < number, "seed {}: promise {number} left after {before}", self.seed);
        }
    }

    fn settle(&mut self, bench: &mut Bench) {
        loop {
            let given = (0..2).map(|sink| self.give(bench, sink)).collect::<Vec<_>>();
            pass(Duration::from_secs(60));
            self.complete(bench);
            self.check(bench);
            if given == [false, false] && self.pending.iter().all(BTreeMap::is_empty) {
                return;
            }
        }
    }
}

/// The rows that a start reads are those of the file; ids stand beside them, sealed.
#[test]
fn ids_are_rows_of_the_transaction_that_they_number() {
    let mut bench = Bench::new(&[(Manner::Sound, false)]);
    bench.open(FIRST, Vec::new());
    bench.step(FIRST, 1, Vec::new());
    let mut both = changed(FIRST, 2, Vec::new());
    both.put(Table::ChannelHead, channel_key(&SECOND), Some(vec![1]));
    both.put(Table::Event, vec![1; 8], Some(vec![1]));
    bench.commit(both);
    assert_eq!((bench.id(&FIRST), bench.id(&SECOND)), (3, 1));
    let table = bench.db.begin_read().unwrap().open_table(Table::Persist.definition()).unwrap();
    let row = seal(Table::Persist, &FIRST.0, &3_u64.to_be_bytes());
    assert_eq!(table.get(FIRST.0.as_slice()).unwrap().unwrap().value(), row);
}

/// A disk that was not there when its backup was new: the next start makes the place.
#[test]
fn a_sink_without_its_place_is_new_to_the_next_start_too() {
    let bench = Bench::new(&[]);
    let start = |standing: &[&str]| {
        let live = [found(FIRST)].into_iter();
        let start = Start::over(&bench.db, live, (&["first", "second"], standing)).unwrap();
        (start.ids()[&FIRST], known_sinks(&bench.db).unwrap())
    };
    assert_eq!(start(&["first"]), (1, vec!["first".to_owned()]));
    assert_eq!(start(&["first"]), (2, vec!["first".to_owned()]));
    let both = vec!["first".to_owned(), "second".to_owned()];
    assert_eq!(start(&["first", "second"]), (3, both.clone()));
    assert_eq!(start(&["first", "second"]), (3, both));
    assert_eq!(start(&[]), (3, Vec::new()));
}

/// Law 6: what is over takes no room, whatever the sinks say of it later.
#[test]
fn a_channel_that_is_over_is_forgotten_by_gate_and_lanes() {
    let mut bench = Bench::new(&[(Manner::Slow, true)]);
    bench.hear();
    bench.open(FIRST, vec![promise(1)]);
    let mut last = changed(FIRST, 1, vec![promise(2)]);
    last.put(Table::ChannelParams, channel_key(&FIRST), None);
    last.hold(store::Held::Archived { peer: node(9), channel: FIRST });
    bench.commit(last);
    bench.give_all();
    while !bench.sinks[0].kept.lock().open.is_empty() {
        bench.sinks[0].complete(0);
    }
    assert_eq!(bench.taken(), ["promise 1", "promise 2"]);
    assert_eq!(bench.hub.gate.lock().known(), 0);
    assert_eq!(bench.hub.desks[0].complete(&FIRST), None);
}
