//! A node with a required backup: what leaves, what is told and what is kept when that is late or refuses a channel, over starts.

use bitcoin::OutPoint;
use outrigger_bolt::wire::{Error, OpenChannel, RevokeAndAck as Revocation, Warning};

use super::*;
use crate::clock::Clock;
use crate::lock::Mutex;
use crate::manager::operations::end_interrupted;
use crate::store::backup::{
    Answer, Clocks, Full, Holding, Hub, News, Open, Persist, SinkEnds, SinkFault, SinkTerms, Start, TipRecord, Update,
};

/// What the backup does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It has it at once.
    Sound,
    /// It has it once the test says so.
    Slow,
    /// The same with this channel alone.
    SlowWith(ChannelId),
    /// It will never have it.
    Refusing,
    /// Its disk is away: it is not even known what it holds.
    Away,
}

/// A backup that outlives the node.
#[derive(Clone)]
pub(super) struct Vault(Arc<Mutex<Shelf>>);

struct Shelf {
    manner: Manner,
    kept: BTreeMap<ChannelId, u64>,
    open: Vec<(ChannelId, u64)>,
    ends: Option<SinkEnds>,
    /// Else nothing waits for it.
    is_required: bool,
}

impl Vault {
    fn new(manner: Manner) -> Self {
        Self(Arc::new(Mutex::new(Shelf {
            manner,
            kept: BTreeMap::new(),
            open: Vec::new(),
            ends: None,
            is_required: true,
        })))
    }

    pub(super) fn is_now(&self, manner: Manner) {
        self.0.lock().manner = manner;
    }

    /// Nothing waits for it from the next start on.
    pub(super) fn only_follows(&self) {
        self.0.lock().is_required = false;
    }

    /// It has had a write of the channel that the file knows nothing of.
    pub(super) fn has_more_of(&self, channel: &ChannelId) {
        self.0.lock().kept.insert(*channel, 1_000);
    }

    /// What it has.
    pub(super) fn kept(&self) -> BTreeMap<ChannelId, u64> {
        self.0.lock().kept.clone()
    }

    /// Completes all that it was given.
    pub(super) fn catch_up(&self) {
        let mut shelf = self.0.lock();
        let (open, ends) = (std::mem::take(&mut shelf.open), shelf.ends.clone().unwrap());
        shelf.kept.extend(open.iter().copied());
        drop(shelf);
        open.iter().for_each(|(channel, id)| ends.channel_monitor_updated(channel, *id));
    }

    /// Whether it was given something of the channel that it has yet to complete.
    pub(super) fn has_open(&self, channel: &ChannelId) -> bool {
        self.0.lock().open.iter().any(|(open, _)| open == channel)
    }

    fn take(&self, channel: &ChannelId, id: u64) -> Answer {
        let mut shelf = self.0.lock();
        match shelf.manner {
            Manner::SlowWith(late) if late == *channel => {
                shelf.open.push((*channel, id));
                Answer::InProgress
            }
            Manner::Sound | Manner::SlowWith(_) => {
                shelf.kept.insert(*channel, id);
                Answer::Completed
            }
            Manner::Slow | Manner::Away => {
                shelf.open.push((*channel, id));
                Answer::InProgress
            }
            Manner::Refusing => Answer::PermanentFailure("no room, ever".to_owned()),
        }
    }
}

impl Persist for Vault {
    fn persist_new_channel(&mut self, channel: &ChannelId, _: OutPoint, _: &Full<'_>, id: u64) -> Answer {
        self.take(channel, id)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        _: OutPoint,
        _: Option<&Update>,
        _: &Full<'_>,
        id: u64,
    ) -> Answer {
        self.take(channel, id)
    }

    fn persist_tip(&mut self, _: &TipRecord) -> Answer {
        Answer::Completed
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        let Shelf { manner, kept, .. } = &*self.0.lock();
        if *manner == Manner::Away {
            return Err(SinkFault::Passing("its disk is away".to_owned()));
        }
        let kept = kept.clone();
        Ok(kept.into_iter().map(|(channel, id)| Holding { channel, id }).collect())
    }
}

/// A node over a file with a required backup.
pub(super) struct Node {
    pub(super) bench: Arc<Bench>,
    pub(super) hub: Arc<Hub>,
    pub(super) vault: Vault,
    dead: Receiver<String>,
}

impl Node {
    pub(super) fn new(manner: Manner) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let seed = Seed::create(dir.path(), || Ok([1; 32])).unwrap();
        let keys = Arc::new(NodeKeys::derive(&seed, Network::Regtest));
        let db = store::open(dir.path(), "regtest", &keys.node_id()).unwrap();
        Self::over((dir, db), keys, Vault::new(manner))
    }

    /// The node after a crash; its backup behaves like this from now on.
    pub(super) async fn restarted(self, manner: Manner) -> Self {
        self.bench.manager.env().writer.barrier().await;
        self.hub.stop();
        self.vault.0.lock().open.clear();
        self.vault.is_now(manner);
        let keys = self.bench.manager.env().keys.clone();
        Self::over((self.bench.dir.clone(), self.bench.db.clone()), keys, self.vault.clone())
    }

    fn over((dir, db): (Arc<tempfile::TempDir>, Arc<redb::Database>), keys: Arc<NodeKeys>, vault: Vault) -> Self {
        let mut file = store::load::load(&*db).unwrap();
        let start = Start::of(&db, &file, &["vault"], &["vault"]).unwrap();
        let is_required = vault.0.lock().is_required;
        let terms = SinkTerms { name: "vault".to_owned(), kind: "mirror", is_required };
        let shelf = vault.clone();
        let open: Open = Box::new(move |ends| {
            shelf.0.lock().ends = Some(ends);
            Box::new(shelf)
        });
        let (told, news) = crossbeam_channel::unbounded();
        let clocks = Clocks { now: Clock::monotonic, unix: Clock::now_unix };
        let at_start = (start, store::last_event(&db).unwrap());
        let (hub, made) =
            Hub::new(("regtest", keys.node_id()), db.clone(), at_start, clocks, vec![(terms, open)], told);
        let (work, mailboxes) = crossbeam_channel::unbounded();
        let (payments, notices) = crossbeam_channel::unbounded();
        let (chain, orders) = crossbeam_channel::unbounded();
        let (events_end, events) = watch::channel(0);
        let directory = Arc::new(PeerDirectory::default());
        let ends = Ends { payments, chain, events: events_end };
        let deliver = Arc::new(Deliver::new(directory.clone(), work, ends));
        let delivery = deliver.clone();
        hub.run(made, move |released, seq| delivery.deliver(released, seq)).unwrap();
        let (writer, commits) = Writer::new(db.clone()).unwrap();
        let gate = hub.clone();
        let commits = commits.keeping(Some(hub.clone()));
        commits.on_a_thread(move |released, seq| gate.release(released, seq), |fault| panic!("{fault}")).unwrap();
        let reader = Reader::new(db.clone());
        let (view, terms) = (ChainView::new(HEIGHT, feerates()), (forwarding_policy(), CAPS));
        let env = Env::new(view, policy(), terms, keys, (writer, reader.clone()), file.restored.take());
        let env = env.waiting_for_sinks(is_required);
        env.chain.set_synced(true);
        env.set_shutdown_script(script());
        let manager = Arc::new(Manager::new(directory, deliver, env, std::mem::take(&mut file.channels)));
        let is_unsent = |row: &OperationRow| matches!(row.state, OperationState::Pending { .. });
        let (unsent, interrupted) = file.openings.drain(..).partition(is_unsent);
        manager.load_unsent(unsent);
        manager.load_unheard(std::mem::take(&mut file.unheard));
        end_interrupted(&manager, interrupted);
        let (worker, heavy) = (manager.clone(), Heavy::default());
        std::thread::spawn(move || worker.work(&mailboxes, &heavy));
        let (told, dead) = crossbeam_channel::unbounded();
        let hears = manager.clone();
        std::thread::spawn(move || {
            for news in news {
                match news {
                    News::Unstored(unstored) => hears.fail_unstored(unstored),
                    News::Kept { channel, number } => hears.keep(channel, number),
                    News::Heard => hears.heard(),
                    News::Ahead { proof } => hears.prove_old(&proof),
                    News::Dead { reason } => drop(told.send(reason)),
                    other => panic!("{other:?}"),
                }
            }
        });
        let bench = Arc::new(Bench { manager, reader, db, notices, events, orders, dir });
        Self { bench, hub, vault, dead }
    }

    pub(super) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waits = async {
            while !done(self) {
                self.bench.manager.env().writer.barrier().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, waits).await.unwrap_or_else(|_| panic!("{what} never came"));
    }

    fn operation(&self) -> OperationState {
        self.bench.reader.operation("retry-1").unwrap().unwrap().state
    }

    pub(super) fn head(&self, channel: &ChannelId) -> MonitorHead {
        let found = self.bench.load().channels.into_iter().find(|loaded| loaded.channel.id() == *channel).unwrap();
        found.monitor.rows().head.clone()
    }

    /// The local commitment that stands now.
    pub(super) fn newest(&self, channel: &ChannelId) -> bitcoin::Txid {
        let newest = |peer: &mut Peer| {
            let slot = &peer.slots[channel];
            slot.monitor.local_commitment(&*slot.signer).unwrap().txid()
        };
        let Registered { peer, .. } = self.bench.manager.deliver().registered(channel).unwrap();
        self.bench.manager.directory.with(&peer, newest).unwrap()
    }

    /// What the newest order says is to be published.
    pub(super) async fn published(&self) -> Option<bitcoin::Txid> {
        self.published_now().await.expect("an order")
    }

    /// The same, where there is a new order.
    pub(super) async fn published_now(&self) -> Option<Option<bitcoin::Txid>> {
        Some(self.enforced().await?.publish.map(|publish| publish.tx.compute_txid()))
    }

    /// What the newest order says, where there is a new one.
    pub(super) async fn enforced(&self) -> Option<outrigger_channel::Enforcement> {
        self.bench.manager.env().writer.barrier().await;
        let enforced = self.bench.orders.try_iter().filter_map(|order| match order {
            ChainOrder::Enforce { enforcement, .. } => Some(enforcement),
            _ => None,
        });
        Some(*enforced.last()?.expect("a failed channel"))
    }
}

/// The opening up to the signatures; the funding transaction has not left.
async fn signed(rogue: &mut Rogue) -> (ChannelId, Transaction) {
    let open = rogue.wanted(Msat::ZERO).await;
    let (mut opening, tx) = rogue.accepted(&open).await;
    rogue.bench.manager.funded(&rogue.id, open.temporary_channel_id, Ok((tx.clone(), 0)));
    let created = rogue.hear().await;
    let OpeningStep::Born(birth) = opening.step(OpeningInput::Message(&created), &rogue.context(HEIGHT)) else {
        panic!("{created:?}")
    };
    rogue.carry_out(birth.channel_id, birth.effects);
    (birth.channel_id, tx)
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_an_opening_is_under_way_until_every_required_backup_has_it_and_it_is_a_row_that_it_may_leave() {
    let node = Node::new(Manner::Slow);
    let mut rogue = Rogue::connect_to(node.bench.clone());
    let (channel, tx) = signed(&mut rogue).await;
    node.until("the channel", |node| node.bench.manager.channel(&channel).is_some()).await;
    node.until("its first write", |node| node.vault.0.lock().open == [(channel, 1)]).await;
    assert!(matches!(node.operation(), OperationState::Pending { .. }));
    assert!(node.bench.reader.is_opening("retry-1").unwrap());
    assert!(node.bench.orders.try_recv().is_err(), "the funding transaction waits");
    // A start finds it as it was.
    let node = node.restarted(Manner::Slow).await;
    node.bench.manager.resume();
    node.until("a full write", |node| !node.vault.0.lock().open.is_empty()).await;
    assert!(matches!(node.operation(), OperationState::Pending { .. }));
    assert!(node.bench.reader.is_opening("retry-1").unwrap());
    let [row]: [_; 1] = node.bench.reader.broadcasts().unwrap().try_into().unwrap();
    assert!(!node.bench.manager.publishes_at_start(&row, false), "nor past the backup, were that taken out");
    node.vault.is_now(Manner::Sound);
    node.vault.catch_up();
    let order = node.bench.orders.recv_timeout(LIMIT).unwrap();
    assert!(matches!(&order, ChainOrder::Publish(published) if *published == tx), "{order:?}");
    assert!(!node.bench.reader.is_opening("retry-1").unwrap(), "the row that says so went first");
    assert!(node.bench.manager.publishes_at_start(&row, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_channel_that_is_refused_before_its_funding_leaves_never_was_before_a_start_and_after_one() {
    for is_restarted in [false, true] {
        let node = Node::new(if is_restarted { Manner::Slow } else { Manner::Refusing });
        let mut rogue = Rogue::connect_to(node.bench.clone());
        let (channel, tx) = signed(&mut rogue).await;
        let node = if is_restarted {
            node.until("the channel", |node| node.bench.manager.channel(&channel).is_some()).await;
            let node = node.restarted(Manner::Refusing).await;
            node.bench.manager.resume();
            node
        } else {
            node
        };
        let order = node.bench.orders.recv_timeout(LIMIT).unwrap();
        assert!(matches!(order, ChainOrder::Release(txid) if txid == tx.compute_txid()), "{order:?}");
        node.until("its end", |node| node.bench.manager.channel(&channel).is_none()).await;
        let OperationState::Failed { reason } = node.operation() else { panic!("{:?}", node.operation()) };
        assert_eq!(reason, "the backup vault will never have it: no room, ever; nothing was spent");
        assert!(!node.bench.reader.is_opening("retry-1").unwrap());
        // Who keeps books by events takes back what was told; both of the call's name it and the channel.
        let events = node.bench.reader.events(0, &[], 10).unwrap().0;
        let [pending, failed, closed] = ["channel_pending", "open_failed", "channel_closed"].map(|kind| {
            let found = events.iter().find(|(_, event)| event.kind == kind);
            found.unwrap_or_else(|| panic!("{kind}: {events:?}")).1.fields.clone()
        });
        for event in [&pending, &failed, &closed] {
            assert_eq!(event["channel_id"].as_str(), Some(channel.to_string().as_str()), "{event}");
        }
        let op_id = Some("01".repeat(16));
        assert_eq!([&pending, &failed].map(|event| event["op_id"].as_str().map(str::to_owned)), [op_id.clone(), op_id]);
        assert_eq!(closed["amount_msat"], pending["amount_msat"]);
        assert!(pending["amount_msat"].as_u64() > Some(0) && events.len() == 3, "{events:?}");
        let found = node.bench.load();
        assert!(found.channels.is_empty() && found.broadcasts.is_empty() && found.openings.is_empty());
        assert!(!node.bench.orders.try_iter().any(|order| matches!(order, ChainOrder::Publish(_))));
        assert!(node.dead.try_recv().is_err());
    }
}

/// The second channel that a backup refuses is its own fault and not the channel's: the node stops, and a start between the two does not
/// make it forget the first.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_second_channel_that_a_backup_refuses_stops_the_node_also_behind_a_start() {
    for is_restarted in [false, true] {
        let mut node = Node::new(Manner::Refusing);
        let mut rogue = Rogue::connect_to(node.bench.clone());
        signed(&mut rogue).await;
        let has_failed = |row: OperationRow| matches!(row.state, OperationState::Failed { .. });
        node.until("the first refusal", |node| node.bench.reader.operation("retry-1").unwrap().is_some_and(has_failed))
            .await;
        assert!(matches!(node.bench.orders.recv_timeout(LIMIT), Ok(ChainOrder::Release(_))));
        assert!(node.dead.try_recv().is_err(), "the first costs its channel alone");
        if is_restarted {
            node = node.restarted(Manner::Refusing).await;
            rogue.reconnect(node.bench.clone());
        }
        // The end of the first one, if it was told of that.
        rogue.dealt_with().await;
        let (second, _) = signed(&mut rogue).await;
        let bench = node.bench.clone();
        let dead = tokio::task::spawn_blocking(move || node.dead.recv_timeout(LIMIT)).await.unwrap();
        assert_eq!(dead.unwrap(), "the backup vault failed for good a second time: no room, ever", "{is_restarted}");
        let found = bench.load().channels.into_iter().find(|loaded| loaded.channel.id() == second).unwrap();
        assert!(!found.monitor.rows().head.failed, "the sink is at fault");
    }
}

/// The peer's `error` comes while the funding transaction waits: it waits on, and goes with the channel.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_channel_that_failed_before_its_funding_left_never_was_once_it_is_refused() {
    for is_restarted in [false, true] {
        let node = Node::new(Manner::Slow);
        let mut rogue = Rogue::connect_to(node.bench.clone());
        let (channel, tx) = signed(&mut rogue).await;
        node.until("its first write", |node| node.vault.has_open(&channel)).await;
        if !is_restarted {
            node.vault.is_now(Manner::Refusing);
        }
        rogue.tell(Message::Error(Error { channel_id: channel, data: "no, thanks".into() }));
        let node = if is_restarted {
            node.until("the failure", |node| node.head(&channel).failed).await;
            let node = node.restarted(Manner::Slow).await;
            let [row]: [_; 1] = node.bench.reader.broadcasts().unwrap().try_into().unwrap();
            assert!(!node.bench.manager.publishes_at_start(&row, true));
            assert!(node.bench.manager.keeps_to_itself(&row), "nor does a reorganisation publish it");
            let node = node.restarted(Manner::Refusing).await;
            node.bench.manager.resume();
            node
        } else {
            node
        };
        let released = loop {
            match node.bench.orders.recv_timeout(LIMIT).unwrap() {
                ChainOrder::Release(txid) => break txid,
                order => assert!(!matches!(order, ChainOrder::Publish(_)), "{order:?}"),
            }
        };
        assert_eq!(released, tx.compute_txid());
        node.until("its end", |node| node.bench.manager.channel(&channel).is_none()).await;
        let OperationState::Failed { reason } = node.operation() else { panic!("{:?}", node.operation()) };
        assert_eq!(reason, "the backup vault will never have it: no room, ever; nothing was spent");
        let found = node.bench.load();
        assert!(found.channels.is_empty() && found.broadcasts.is_empty() && found.openings.is_empty());
    }
}

/// Where the backup takes it, it goes as it would have gone without the start.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_the_funding_of_a_channel_that_failed_while_it_waited_leaves_after_a_start_with_its_backup() {
    let node = Node::new(Manner::Slow);
    let mut rogue = Rogue::connect_to(node.bench.clone());
    let (channel, tx) = signed(&mut rogue).await;
    node.until("its first write", |node| node.vault.has_open(&channel)).await;
    rogue.tell(Message::Error(Error { channel_id: channel, data: "no, thanks".into() }));
    node.until("the failure", |node| node.head(&channel).failed).await;
    let node = node.restarted(Manner::Slow).await;
    node.bench.manager.resume();
    node.until("a full write", |node| node.vault.has_open(&channel)).await;
    assert!(node.bench.reader.is_opening("retry-1").unwrap());
    node.vault.is_now(Manner::Sound);
    node.vault.catch_up();
    loop {
        match node.bench.orders.recv_timeout(LIMIT).unwrap() {
            ChainOrder::Publish(published) => break assert_eq!(published, tx),
            order => assert!(!matches!(order, ChainOrder::Release(_)), "{order:?}"),
        }
    }
    assert!(!node.bench.reader.is_opening("retry-1").unwrap(), "the row that says so went first");
}

/// A channel in use, with a payment to us on its way: the peer signs our next commitment, and the backup will never have it.
pub(super) async fn refused_amid_a_payment(node: &Node) -> (Rogue, ChannelId, bitcoin::Txid, u64) {
    let mut rogue = Rogue::connect_to(node.bench.clone()).that_keeps_its_word();
    let mut channel = rogue.is_opened_to(Msat::new(100_000_000)).await;
    let id = channel.id();
    node.until("rest", |node| node.hub.is_drained()).await;
    let (newest, number) = (node.newest(&id), node.head(&id).local.number);
    node.vault.is_now(Manner::Refusing);
    rogue.step(&mut channel, Input::Command(CommandId(1), add(1)));
    rogue.step(&mut channel, Input::Command(CommandId(1), Command::Commit));
    (rogue, id, newest, number)
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_refusal_amid_a_payment_keeps_the_commitment_that_the_backup_has_and_tells_its_secret_to_nobody() {
    let node = Node::new(Manner::Sound);
    let (mut rogue, id, kept, number) = refused_amid_a_payment(&node).await;
    loop {
        match rogue.hear().await {
            Message::Error(error) => {
                assert_eq!(error.data.to_string(), "the backup vault will never have it: no room, ever");
                break;
            }
            message => assert_ne!(message.type_number(), Revocation::TYPE, "{message:?}"),
        }
    }
    let head = node.head(&id);
    assert_eq!((head.closing, head.reserved, head.may_publish), (Some(number), true, false));
    assert_eq!((head.local.number, head.replaced.unwrap().commitment.number), (number + 1, number));
    assert_eq!(node.published().await, None);
    let view = node.bench.manager.channel(&id).unwrap();
    assert_eq!(view.summary.state, "failed");
    assert!(view.obstacle.unwrap().contains("is kept: it is published at the first deadline"));
    // The start keeps it too, whatever the backup says meanwhile; the peer asks for what it did not get.
    for manner in [Manner::Slow, Manner::Sound] {
        let again = Node::over(
            (node.bench.dir.clone(), node.bench.db.clone()),
            node.bench.manager.env().keys.clone(),
            Vault::new(manner),
        );
        again.bench.manager.resume();
        rogue.reconnect(again.bench.clone());
        assert!(rogue.dealt_with().await.iter().all(|message| message.type_number() != Revocation::TYPE));
        assert_eq!(again.head(&id).closing, Some(number));
        again.hub.stop();
    }
    let fail = Command::Fail { reason: "by order".to_owned() };
    assert_eq!(node.bench.manager.command(id, fail).await, Ok(Reply::Done));
    assert_eq!(node.published().await, Some(kept), "by order");
    assert_eq!(node.bench.manager.channel(&id).unwrap().closing_txid, Some(kept));
}

/// A node that started after a crash; the backup lacks our newest commitment, which follows the one of this number, and refuses it.
async fn unknown_after_a_crash() -> (Node, ChannelId, u64) {
    let node = Node::new(Manner::Sound);
    let mut rogue = Rogue::connect_to(node.bench.clone()).that_keeps_its_word();
    let mut channel = rogue.is_opened_to(Msat::new(100_000_000)).await;
    let id = channel.id();
    node.until("rest", |node| node.hub.is_drained()).await;
    let number = node.head(&id).local.number;
    node.vault.is_now(Manner::Slow);
    rogue.step(&mut channel, Input::Command(CommandId(1), add(1)));
    rogue.step(&mut channel, Input::Command(CommandId(1), Command::Commit));
    node.until("the commitment", |node| node.head(&id).local.number == number + 1).await;
    // Whether its revocation has left is not known any more, whatever the backup says that it has.
    let node = node.restarted(Manner::Refusing).await;
    node.bench.manager.resume();
    (node, id, number)
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_crash_between_the_refusal_and_its_row_publishes_nothing_that_may_be_revoked() {
    let (node, id, number) = unknown_after_a_crash().await;
    node.until("the failure", |node| node.head(&id).failed).await;
    let head = node.head(&id);
    assert_eq!((head.closing, head.reserved, head.may_publish), (None, false, false));
    let fail = Command::Fail { reason: "by order".to_owned() };
    assert_eq!(node.bench.manager.command(id, fail).await, Ok(Reply::Done));
    assert_eq!(node.published().await, None);
    let view = node.bench.manager.channel(&id).unwrap();
    assert_eq!(view.closing_txid, None);
    let words = view.obstacle.unwrap();
    assert!(
        words.contains("Replace that backup") && words.contains("the peer alone can close the channel now"),
        "{words}"
    );
    // Nor do more starts with that backup change anything.
    let node = node.restarted(Manner::Refusing).await;
    node.bench.manager.resume();
    node.until("the refusal", |node| node.hub.views()[0].lag.updates == 0).await;
    assert_eq!(node.head(&id).closing, None);
    // It is mended, and has everything.
    let node = node.restarted(Manner::Sound).await;
    node.bench.manager.resume();
    node.until("the commitment", |node| node.head(&id).reserved).await;
    let head = node.head(&id);
    assert_eq!((head.closing, head.may_publish, head.replaced), (Some(number + 1), false, None));
    assert_eq!(node.published().await, None);
    let fail = Command::Fail { reason: "by order".to_owned() };
    assert_eq!(node.bench.manager.command(id, fail).await, Ok(Reply::Done));
    assert_eq!(node.published().await, Some(node.newest(&id)));
}

/// The operator has taken it out of the configuration: no required backup lacks anything.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_where_the_backup_that_refused_is_not_required_any_more_the_newest_commitment_is_kept() {
    let (node, id, number) = unknown_after_a_crash().await;
    node.until("the failure", |node| node.head(&id).failed).await;
    assert_eq!(node.head(&id).closing, None);
    node.vault.only_follows();
    let node = node.restarted(Manner::Refusing).await;
    node.bench.manager.resume();
    node.until("the commitment", |node| node.head(&id).reserved).await;
    assert_eq!((node.head(&id).closing, node.published().await), (Some(number + 1), None));
    assert!(node.bench.manager.channel(&id).unwrap().obstacle.unwrap().contains("channel.force_close"));
    // Restored mode takes it back.
    node.bench.manager.prove_old("a proof");
    node.until("restored mode", |node| !node.head(&id).reserved).await;
    assert_eq!(node.published().await, None);
    node.bench.manager.keep(id, number + 1);
    node.bench.manager.command(id, Command::Commit).await.unwrap();
    node.bench.durable().await;
    assert!(!node.head(&id).reserved && node.published_now().await.is_none());
}

/// The backup had our newest commitment, and not the step that followed it, when the process ended; the start is refused.
#[tokio::test(flavor = "multi_thread")]
async fn per_5_a_refusal_right_after_a_start_keeps_the_commitment_that_the_backup_had_before() {
    let node = Node::new(Manner::Sound);
    let mut rogue = Rogue::connect_to(node.bench.clone()).that_keeps_its_word();
    let mut channel = rogue.is_opened_to(Msat::new(100_000_000)).await;
    let id = channel.id();
    node.until("rest", |node| node.hub.is_drained()).await;
    let number = node.head(&id).local.number;
    rogue.step(&mut channel, Input::Command(CommandId(1), add(1)));
    rogue.step(&mut channel, Input::Command(CommandId(1), Command::Commit));
    node.until("the commitment", |node| node.head(&id).local.number == number + 1).await;
    node.until("rest", |node| node.hub.is_drained()).await;
    // The peer's revocation is the next step.
    let remote = node.head(&id).remote.number;
    node.vault.is_now(Manner::Slow);
    rogue.until(&mut channel, |_, message| matches!(message, Message::CommitmentSigned(_))).await;
    node.until("the revocation", |node| node.head(&id).remote.number == remote + 1).await;
    assert_eq!(node.head(&id).local.number, number + 1);
    let node = node.restarted(Manner::Refusing).await;
    node.bench.manager.resume();
    node.until("the failure", |node| node.head(&id).failed).await;
    let head = node.head(&id);
    assert_eq!((head.closing, head.reserved, head.may_publish), (Some(number + 1), true, false));
    assert_eq!(node.published().await, None);
    let fail = Command::Fail { reason: "by order".to_owned() };
    assert_eq!(node.bench.manager.command(id, fail).await, Ok(Reply::Done));
    assert_eq!(node.published().await, Some(node.newest(&id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn per_5_it_is_published_when_a_block_brings_the_first_deadline() {
    let node = Node::new(Manner::Sound);
    let (mut rogue, id, kept, _) = refused_amid_a_payment(&node).await;
    rogue.hear_type(Error::TYPE).await;
    node.until("the failure", |node| node.head(&id).reserved).await;
    // The one HTLC is the peer's, and its preimage unknown: it sets no deadline.
    assert_eq!(node.published().await, None);
    node.bench.manager.block_connected(HEIGHT + 300, &block_of(vec![coinbase()]));
    node.bench.manager.env().writer.barrier().await;
    assert!(node.head(&id).reserved);
    // With its preimage it has one, which is past: at once.
    let preimage = PaymentPreimage([1; 32]);
    assert_eq!(node.bench.manager.command(id, Command::Fulfill { htlc_id: 0, preimage }).await, Ok(Reply::Done));
    node.until("the deadline", |node| node.head(&id).may_publish).await;
    assert_eq!(node.published().await, Some(kept));
}

/// What waits for a channel waits under its name, and so does what an opening is told that takes the same one.
#[tokio::test(flavor = "multi_thread")]
async fn dos_an_opening_under_the_name_of_a_channel_drops_nothing_that_waits_for_it() {
    let node = Node::new(Manner::Sound);
    let mut rogue = Rogue::connect_to(node.bench.clone()).that_keeps_its_word();
    let mut channel = rogue.is_opened_to(Msat::new(100_000_000)).await;
    let id = channel.id();
    node.until("rest", |node| node.hub.is_drained()).await;
    node.vault.is_now(Manner::Slow);
    rogue.step(&mut channel, Input::Command(CommandId(1), add(1)));
    rogue.step(&mut channel, Input::Command(CommandId(1), Command::Commit));
    node.until("the commitment", |node| node.vault.has_open(&id)).await;
    let (_, open) = Opening::open(rogue.wish(9), &rogue.context(HEIGHT)).unwrap();
    let Message::OpenChannel(open) = open else { panic!("{open:?}") };
    rogue.tell(Message::OpenChannel(OpenChannel { temporary_channel_id: id, ..open }));
    assert!(rogue.dealt_with().await.is_empty(), "what answers it waits behind the rest");
    node.vault.is_now(Manner::Sound);
    node.vault.catch_up();
    rogue.hear_type(Revocation::TYPE).await;
    let Message::Warning(refused) = rogue.hear_type(Warning::TYPE).await else { panic!("a warning") };
    assert_eq!((refused.channel_id, &*refused.data.to_string()), (id, "this temporary_channel_id is in use"));
    assert_eq!(node.bench.manager.channel(&id).unwrap().summary.state, "normal");
}
