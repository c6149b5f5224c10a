//! Outrigger's side: the release binaries, driven through their interface as any caller can.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Bitcoind, Done, Sidecar, until};
use outrigger_rpc_schema::{
    CallError, ChannelList, ChannelOpen, ChannelState, Client, EventKind, EventList, InvoiceCreate, InvoiceCreated,
    PaymentInfo, PaymentSend, PaymentState, PaymentWait,
};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::shape::Shape;
use crate::stack::{CAPACITY_SAT, CHUNK, MORE_SAT, Stack, Watched};
use crate::sync::SyncFile;

/// Calls to one daemon at a time: it takes 64 connections.
const CALLS: usize = 48;

/// Time for channels among thousands.
const LONG: Duration = Duration::from_secs(300);

/// A daemon with its meters.
struct Node {
    sidecar: Sidecar,
    watched: Watched,
}

/// Daemons with their channels.
pub(crate) struct Outrigger<'a> {
    bitcoind: &'a Bitcoind,
    nodes: Vec<Node>,
    streams: Vec<Stream>,
    amount_msat: u64,
}

/// What every daemon is told: the limits that LDK's side has too.
const TERMS: [&str; 10] = [
    "--channel-minimum-depth-blocks",
    "1",
    "--channel-max-accepted-htlcs",
    "483",
    "--channel-max-dust-exposure-sat",
    "5000000",
    "--forwarding-peer-max-htlcs",
    "483",
    "--log-level",
    "warn",
];

async fn node(directory: &Path, bitcoind: &Bitcoind, place: usize, shape: Shape) -> Done<Node> {
    let name = format!("outrigger-{place}");
    let directory = directory.join(&name);
    std::fs::create_dir_all(&directory)?;
    let sync = SyncFile::new(&directory.join("sync"))?;
    let environment = sync.environment()?;
    let sidecar = Sidecar::start_in(&environment, &directory, &name, &bitcoind.address(), bitcoind, &TERMS).await?;
    let pid = sidecar.pid().ok_or("a daemon without a process")?;
    Ok(Node { sidecar, watched: Watched { pid, role: shape.roles()[place], sync } })
}

impl<'a> Outrigger<'a> {
    pub(crate) async fn start(directory: &Path, bitcoind: &'a Bitcoind, shape: Shape, amount_msat: u64) -> Done<Self> {
        let mut nodes = Vec::new();
        for place in 0..shape.roles().len() {
            nodes.push(node(directory, bitcoind, place, shape).await?);
        }
        fund(&nodes, bitcoind, shape).await?;
        open(&nodes, bitcoind, shape).await?;
        let stream = |(sender, receiver): (usize, usize)| Stream {
            sender: nodes[sender].sidecar.client(),
            receiver: nodes[receiver].sidecar.client(),
            is_relayed: shape != Shape::Pair,
            shared: Arc::default(),
            invoices: VecDeque::new(),
            task: None,
        };
        let streams = shape.streams().into_iter().map(stream).collect();
        Ok(Self { bitcoind, nodes, streams, amount_msat })
    }
}

/// Gives every node coins for the channels that it funds.
async fn fund(nodes: &[Node], bitcoind: &Bitcoind, shape: Shape) -> Done<()> {
    for (from, _) in shape.channels() {
        bitcoind.mine(1, &nodes[from].sidecar.new_address().await?).await?;
    }
    bitcoind.mine_to_nobody(100).await?;
    for node in nodes {
        node.sidecar.until_synced_with(bitcoind).await?;
    }
    for (from, _) in shape.channels() {
        until(LIMIT, "coins", async || Ok((nodes[from].sidecar.balance().await?.confirmed_sat > 0).then_some(())))
            .await?;
    }
    Ok(())
}

async fn open(nodes: &[Node], bitcoind: &Bitcoind, shape: Shape) -> Done<()> {
    let mut opened = Vec::new();
    for (from, to) in shape.channels() {
        let (from, to) = (&nodes[from].sidecar, &nodes[to].sidecar);
        from.connect(to).await?;
        let order = ChannelOpen {
            node_id: to.node_id().await?,
            funding_sat: CAPACITY_SAT,
            idempotency_key: to.node_id().await?,
            ..Default::default()
        };
        let (channel, txid) = from.open(order).await?;
        bitcoind.until_mempool_holds(&txid).await?;
        opened.push((from, to, channel));
    }
    bitcoind.mine_to_nobody(6).await?;
    for (from, to, channel) in opened {
        for node in [from, to] {
            node.until_channel_is(&channel, ChannelState::Normal).await?;
        }
    }
    Ok(())
}

impl Stack for Outrigger<'_> {
    async fn more_channels(&mut self, count: usize) -> Done<()> {
        let (from, to) = (&self.nodes[0].sidecar, &self.nodes[1].sidecar);
        // Coins of their own, so that no funding transaction stands on many that are not confirmed.
        let blocks = u32::try_from(CHUNK + count / 1000)?;
        self.bitcoind.mine(blocks, &from.new_address().await?).await?;
        self.bitcoind.mine_to_nobody(100).await?;
        from.until_synced_with(self.bitcoind).await?;
        let node_id = to.node_id().await?;
        let mut opened = 0;
        while opened < count {
            let chunk = CHUNK.min(count - opened);
            let mut opening = JoinSet::new();
            for number in opened..opened + chunk {
                let order = ChannelOpen {
                    node_id: node_id.clone(),
                    funding_sat: MORE_SAT,
                    idempotency_key: format!("more {number}"),
                    ..Default::default()
                };
                opening.spawn(signed(from.client(), order));
            }
            let txids = opening.join_all().await.into_iter().collect::<Done<Vec<_>>>()?;
            for txid in txids {
                self.bitcoind.until_mempool_holds(&txid).await?;
            }
            opened += chunk;
            self.bitcoind.mine_to_nobody(1).await?;
            for node in [from, to] {
                node.until_synced_with(self.bitcoind).await?;
            }
        }
        self.bitcoind.mine_to_nobody(6).await?;
        for node in [from, to] {
            until(LONG, "channels between daemons", async || Ok((usable(&node.client()).await? > count).then_some(())))
                .await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Done<f64> {
        let node = &mut self.nodes[0];
        node.sidecar.stop().await?;
        let begun = Instant::now();
        node.sidecar.start_again().await?;
        let took = begun.elapsed().as_secs_f64();
        node.watched.pid = node.sidecar.pid().ok_or("a daemon without a process")?;
        Ok(took)
    }

    fn watched(&self) -> Vec<&Watched> {
        self.nodes.iter().map(|node| &node.watched).collect()
    }

    async fn supply(&mut self, per_stream: usize) -> Done<()> {
        for stream in &mut self.streams {
            stream.supply(per_stream, self.amount_msat).await?;
        }
        Ok(())
    }

    async fn start(&mut self, window: usize) -> Done<()> {
        for stream in &mut self.streams {
            stream.start(window);
        }
        Ok(())
    }

    async fn paid(&mut self) -> Done<u64> {
        for stream in &mut self.streams {
            if stream.task.as_ref().is_some_and(JoinHandle::is_finished) {
                // Before it was told to: only a fault ends it.
                stream.stop().await?;
            }
        }
        Ok(self.streams.iter().map(|stream| stream.shared.paid.load(Ordering::Relaxed)).sum())
    }

    async fn stop(&mut self) -> Done<Vec<u64>> {
        for stream in &self.streams {
            stream.shared.stopping.store(true, Ordering::Relaxed);
        }
        let mut took = Vec::new();
        for stream in &mut self.streams {
            took.extend(stream.stop().await?);
        }
        Ok(took)
    }
}

/// Opens a channel; the id of its funding transaction, once that is signed.
async fn signed(client: Client, order: ChannelOpen) -> Done<String> {
    loop {
        let opened = client.call(order.clone()).await?;
        if let Some(failure) = opened.failure {
            return Err(format!("a channel was not opened: {failure}").into());
        }
        if let Some(txid) = opened.funding_txid {
            return Ok(txid);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many channels can be used now.
async fn usable(client: &Client) -> Done<usize> {
    let (mut found, mut after) = (0, None);
    loop {
        let state = Some(ChannelState::Normal);
        let page = client.call(ChannelList { state, after, limit: Some(1000), ..Default::default() }).await?;
        found += page.items.iter().filter(|channel| channel.connected).count();
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Payments from one daemon to another, in a closed loop.
struct Stream {
    sender: Client,
    receiver: Client,
    is_relayed: bool,
    shared: Arc<Shared>,
    invoices: VecDeque<String>,
    task: Option<JoinHandle<Done<Ended>>>,
}

#[derive(Default)]
struct Shared {
    paid: AtomicU64,
    stopping: AtomicBool,
    /// The last event that was read.
    seen: AtomicU64,
}

/// What a loop leaves behind.
struct Ended {
    took: Vec<u64>,
    invoices: VecDeque<String>,
}

impl Stream {
    async fn supply(&mut self, count: usize, amount_msat: u64) -> Done<()> {
        let missing = count.saturating_sub(self.invoices.len());
        let order =
            InvoiceCreate { amount_msat: Some(amount_msat), description: "bench".to_owned(), ..Default::default() };
        until(LIMIT, "an invoice that the sender finds a way for", async || {
            Ok((!self.is_relayed || self.receiver.call(order.clone()).await?.route_hints > 0).then_some(()))
        })
        .await?;
        let mut asking = JoinSet::new();
        for _ in 0..missing {
            if asking.len() >= CALLS {
                self.take(asking.join_next().await)?;
            }
            let (client, order) = (self.receiver.clone(), order.clone());
            asking.spawn(async move { client.call(order).await });
        }
        while !asking.is_empty() {
            self.take(asking.join_next().await)?;
        }
        Ok(())
    }

    fn take(&mut self, made: Option<Result<Result<InvoiceCreated, CallError>, JoinError>>) -> Done<()> {
        self.invoices.push_back(made.ok_or("no invoice was asked for")???.invoice);
        Ok(())
    }

    fn start(&mut self, window: usize) {
        self.shared.stopping.store(false, Ordering::Relaxed);
        let payer = Payer {
            client: self.sender.clone(),
            shared: self.shared.clone(),
            begun: HashMap::new(),
            order: VecDeque::new(),
            early: HashSet::new(),
            told: HashSet::new(),
            ended: Ended { took: Vec::new(), invoices: std::mem::take(&mut self.invoices) },
        };
        self.task = Some(tokio::spawn(payer.pay(window)));
    }

    async fn stop(&mut self) -> Done<Vec<u64>> {
        let Ended { took, invoices } = self.task.take().ok_or("nothing was started")?.await??;
        self.invoices = invoices;
        Ok(took)
    }
}

/// A loop that pays. One wait for the oldest payment and one page of events tell of all that ended with it: what a caller
/// does that has many payments under way.
struct Payer {
    client: Client,
    shared: Arc<Shared>,
    begun: HashMap<String, Instant>,
    order: VecDeque<String>,
    /// Ended before the answer to their sending was read.
    early: HashSet<String>,
    /// Ended, and its event was not read yet.
    told: HashSet<String>,
    ended: Ended,
}

type Waited = JoinHandle<Result<PaymentInfo, CallError>>;

impl Payer {
    async fn pay(mut self, window: usize) -> Done<Ended> {
        let mut sending: JoinSet<Result<(String, Instant), CallError>> = JoinSet::new();
        let mut waiting: Option<Waited> = None;
        self.read_events().await?;
        loop {
            let stopping = self.shared.stopping.load(Ordering::Relaxed);
            while !stopping && self.begun.len() + sending.len() < window && sending.len() < CALLS {
                let invoice = self.ended.invoices.pop_front().ok_or("the invoices were too few")?;
                let client = self.client.clone();
                sending.spawn(async move {
                    let begun = Instant::now();
                    let sent = client.call(PaymentSend { invoice: Some(invoice), ..Default::default() }).await?;
                    Ok((sent.payment_id, begun))
                });
            }
            if sending.is_empty() && self.begun.is_empty() {
                return Ok(self.ended);
            }
            if waiting.is_none() {
                waiting = self.oldest().map(|payment_id| {
                    let client = self.client.clone();
                    let wait = PaymentWait { payment_id, timeout_secs: Some(30) };
                    tokio::spawn(async move { client.call(wait).await })
                });
            }
            tokio::select! {
                Some(sent) = sending.join_next() => {
                    let (payment_id, begun) = sent??;
                    self.sent(payment_id, begun)?;
                }
                waited = finished(&mut waiting) => {
                    let waited = waited??;
                    waiting = None;
                    if waited.state != PaymentState::Succeeded {
                        return Err(format!("a payment did not arrive: {waited:?}").into());
                    }
                    self.heard(waited.payment_id).await?;
                }
            }
        }
    }

    /// The payment that was begun first of those under way.
    fn oldest(&mut self) -> Option<String> {
        while let Some(first) = self.order.front() {
            if self.begun.contains_key(first) {
                return Some(first.clone());
            }
            self.order.pop_front();
        }
        None
    }

    /// The wait for a payment is over: whatever else ended with it stands in the events.
    async fn heard(&mut self, payment_id: String) -> Done<()> {
        if let Some(begun) = self.begun.remove(&payment_id) {
            self.arrived(begun)?;
            self.told.insert(payment_id);
        }
        if self.begun.is_empty() { Ok(()) } else { self.read_events().await }
    }

    fn sent(&mut self, payment_id: String, begun: Instant) -> Done<()> {
        if self.early.remove(&payment_id) {
            return self.arrived(begun);
        }
        self.order.push_back(payment_id.clone());
        self.begun.insert(payment_id, begun);
        Ok(())
    }

    fn arrived(&mut self, begun: Instant) -> Done<()> {
        self.ended.took.push(u64::try_from(begun.elapsed().as_micros())?);
        self.shared.paid.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read_events(&mut self) -> Done<()> {
        loop {
            let page = self
                .client
                .call(EventList {
                    after_seq: Some(self.shared.seen.load(Ordering::Relaxed)),
                    kinds: Some(vec![EventKind::PaymentSucceeded, EventKind::PaymentFailed]),
                    limit: Some(1000),
                })
                .await?;
            self.shared.seen.store(page.next_seq, Ordering::Relaxed);
            let is_last = page.items.len() < 1000;
            for event in page.items {
                if event.kind == EventKind::PaymentFailed {
                    return Err(format!("a payment failed: {:?}", event.message).into());
                }
                let payment_id = event.payment_id.ok_or("an event without its payment")?;
                match self.begun.remove(&payment_id) {
                    Some(begun) => self.arrived(begun)?,
                    None if self.told.remove(&payment_id) => {}
                    None => drop(self.early.insert(payment_id)),
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// The end of the wait; never where none is under way.
async fn finished(waiting: &mut Option<Waited>) -> Result<Result<PaymentInfo, CallError>, JoinError> {
    match waiting {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
