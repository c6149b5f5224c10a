//! Outrigger's side: the release binaries, driven through their interface as any caller can.

mod backup;
mod payer;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Bitcoind, Client, Done, Sidecar, until};
use outrigger_rpc_schema::{ChannelInfo, ChannelList, ChannelOpen, ChannelOpenWait, ChannelState, StoreReport};
use tokio::task::JoinSet;

pub(crate) use backup::Backup;
use payer::CALLS;
pub(crate) use payer::Stream;

use crate::purse::Purse;
use crate::shape::Shape;
use crate::stack::{CAPACITY_SAT, CHUNK, MORE_SAT, Stack, Watched};
use crate::sync::SyncFile;

/// What a node has beside the capacity of its channels: for fees, and for what it keeps back to close them alone.
const SPARE_SAT: u64 = 1_000_000;

/// A coin for channels of which there are thousands: each funds one in every block.
const COIN_SAT: u64 = 60_000_000;

/// Openings at one time.
const OPENINGS: usize = 24;

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
    shape: Shape,
    streams: Vec<Stream>,
    amount_msat: u64,
    purse: Purse,
    /// Coins of the first node for channels of which there are many.
    coins: usize,
    /// Places that its backups were given.
    places: usize,
}

/// What every daemon is told: the limits that LDK's side has too.
const TERMS: [&str; 12] = [
    "--channel-minimum-depth-blocks",
    "1",
    "--channel-max-accepted-htlcs",
    "483",
    "--channel-max-pending-per-peer",
    "1000",
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
        let mut purse = Purse::mine(bitcoind).await?;
        let places = 0..shape.roles().len();
        let nodes = all(places.map(|place| node(directory, bitcoind, place, shape)).collect()).await?;
        fund(&nodes, bitcoind, shape, &mut purse).await?;
        open(&nodes, bitcoind, shape).await?;
        let (streams, coins, places) = (Vec::new(), 0, 0);
        let mut outrigger = Self { bitcoind, nodes, shape, streams, amount_msat, purse, coins, places };
        outrigger.streams = shape.streams().into_iter().map(|(from, to)| outrigger.stream(from, to, CALLS)).collect();
        Ok(outrigger)
    }

    /// Payments from one node to another, with so many calls to either at one time.
    pub(crate) fn stream(&self, from: usize, to: usize, calls: usize) -> Stream {
        let client = |node: usize| self.nodes[node].sidecar.client();
        Stream::new(client(from), client(to), self.shape != Shape::Pair, calls)
    }

    /// One of the nodes.
    pub(crate) fn sidecar(&self, node: usize) -> &Sidecar {
        &self.nodes[node].sidecar
    }

    /// Coins of their own for so many channels, so that no funding transaction stands on many that are not confirmed.
    async fn give_coins(&mut self, wanted: usize) -> Done<()> {
        let missing = wanted.saturating_sub(self.coins);
        if missing > 0 {
            let address = self.nodes[0].sidecar.new_address().await?;
            self.purse.pay(self.bitcoind, &vec![(address, COIN_SAT); missing]).await?;
            self.coins = wanted;
        }
        self.until_synced().await
    }

    async fn until_synced(&self) -> Done<()> {
        for node in &self.nodes {
            node.sidecar.until_synced_with(self.bitcoind).await?;
        }
        Ok(())
    }

    /// Opens so many channels from the first node to the second; the ids of their funding transactions.
    async fn open_some(&self, names: std::ops::Range<usize>) -> Done<HashSet<String>> {
        let (from, to) = (&self.nodes[0].sidecar, &self.nodes[1].sidecar);
        let node_id = to.node_id().await?;
        let (mut opening, mut txids) = (JoinSet::new(), HashSet::new());
        for number in names {
            if opening.len() >= OPENINGS {
                txids.insert(opening.join_next().await.ok_or("no opening is under way")???);
            }
            let order = ChannelOpen {
                node_id: node_id.clone(),
                funding_sat: MORE_SAT,
                idempotency_key: format!("more {number}"),
                ..Default::default()
            };
            opening.spawn(signed(from.client(), order));
        }
        while let Some(opened) = opening.join_next().await {
            txids.insert(opened??);
        }
        Ok(txids)
    }
}

/// Gives every node coins for the channels that it funds.
async fn fund(nodes: &[Node], bitcoind: &Bitcoind, shape: Shape, purse: &mut Purse) -> Done<()> {
    let mut payments = Vec::new();
    for (from, _) in shape.channels() {
        payments.push((nodes[from].sidecar.new_address().await?, CAPACITY_SAT + SPARE_SAT));
    }
    purse.pay(bitcoind, &payments).await?;
    for node in nodes {
        node.sidecar.until_synced_with(bitcoind).await?;
    }
    for (from, _) in shape.channels() {
        until(LIMIT, "coins", async || Ok((nodes[from].sidecar.balance().await?.confirmed_sat > 0).then_some(())))
            .await?;
    }
    Ok(())
}

/// Waits for all of these at once; gives what they give, in their order.
async fn all<T>(futures: Vec<impl Future<Output = Done<T>>>) -> Done<Vec<T>> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    let found = poll_fn(|context| {
        let mut is_done = true;
        for (future, found) in &mut waiting {
            if found.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(outcome) => *found = Some(outcome),
                    Poll::Pending => is_done = false,
                }
            }
        }
        if !is_done {
            return Poll::Pending;
        }
        Poll::Ready(waiting.iter_mut().filter_map(|(_, found)| found.take()).collect())
    });
    found.await
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
        let before = usable(&self.nodes[0].sidecar.client()).await?;
        self.give_coins(count.min(CHUNK)).await?;
        let mut opened = 0;
        while opened < count {
            let chunk = CHUNK.min(count - opened);
            let txids = self.open_some(before + opened..before + opened + chunk).await?;
            until(LIMIT, "the mempool to hold the funding transactions", async || {
                let held: HashSet<_> = self.bitcoind.mempool().await?.iter().map(ToString::to_string).collect();
                Ok(txids.is_subset(&held).then_some(()))
            })
            .await?;
            opened += chunk;
            self.bitcoind.mine_to_nobody(1).await?;
            self.until_synced().await?;
        }
        self.bitcoind.mine_to_nobody(6).await?;
        for node in &self.nodes {
            until_usable(node, before + count).await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Done<f64> {
        self.restarted_after(async || Ok(())).await
    }

    async fn set_amount(&mut self, amount_msat: u64) -> Done<()> {
        self.amount_msat = amount_msat;
        self.streams.iter_mut().for_each(Stream::forget_invoices);
        Ok(())
    }

    async fn commitments(&mut self) -> Done<Option<u64>> {
        let mut signed = 0;
        for node in &self.nodes {
            let channels = channels(&node.sidecar.client()).await?;
            signed += channels.iter().map(|channel| channel.commitment_number).sum::<u64>();
        }
        Ok(Some(signed))
    }

    async fn store(&mut self) -> Done<Option<StoreReport>> {
        Ok(Some(self.nodes[0].sidecar.info().await?.store))
    }

    fn watched(&self) -> Vec<&Watched> {
        self.nodes.iter().map(|node| &node.watched).collect()
    }

    async fn supply(&mut self, per_stream: usize) -> Done<()> {
        for stream in &mut self.streams {
            stream.give_back(per_stream as u64 * self.amount_msat, CAPACITY_SAT * 1000).await?;
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
            if stream.has_ended() {
                // Its fault comes out.
                stream.stop(self.amount_msat).await?;
            }
        }
        Ok(self.streams.iter().map(Stream::paid).sum())
    }

    async fn stop(&mut self) -> Done<Vec<u64>> {
        self.streams.iter().for_each(Stream::end);
        let mut took = Vec::new();
        for stream in &mut self.streams {
            took.extend(stream.stop(self.amount_msat).await?);
        }
        Ok(took)
    }
}

/// Opens a channel; the id of its funding transaction, once that is signed.
async fn signed(client: Client, order: ChannelOpen) -> Done<String> {
    let op_id = client.call(order).await?.op_id;
    loop {
        let opened = client.call(ChannelOpenWait { op_id: op_id.clone(), ..Default::default() }).await?;
        if let Some(failure) = opened.failure {
            return Err(format!("a channel was not opened: {failure}").into());
        }
        if let Some(txid) = opened.funding_txid {
            return Ok(txid);
        }
    }
}

/// How many channels can be used now.
async fn usable(client: &Client) -> Done<usize> {
    let channels = channels(client).await?;
    Ok(channels.iter().filter(|it| it.connected && it.state == ChannelState::Normal).count())
}

async fn until_usable(node: &Node, count: usize) -> Done<()> {
    let client = node.sidecar.client();
    until(LONG, "channels between daemons", async || Ok((usable(&client).await? >= count).then_some(()))).await
}

async fn channels(client: &Client) -> Done<Vec<ChannelInfo>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = client.call(ChannelList { after, limit: Some(1000), ..Default::default() }).await?;
        found.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}
