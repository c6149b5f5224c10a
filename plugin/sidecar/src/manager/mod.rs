//! The per-peer channel manager: every channel lives under its peer, and peers proceed in parallel.
//!
//! It imports neither `net` nor `chain` nor `rpc`: it speaks to them through the queue ends given to [`deliver`].

mod accept;
pub mod block;
pub mod deliver;
pub mod directory;
mod drive;
pub mod env;
pub mod forwarding;
pub mod frozen;
mod hints;
mod history;
mod mail;
mod obstacle;
pub mod operations;
pub mod outbox;
pub mod outlets;
mod pace;
mod peer;
pub mod pending;
pub mod registered;
pub mod relay;
mod restored;
mod settlement;
mod stalled;
pub mod terms;
mod unheard;
pub mod workers;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bitcoin::Txid;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::onion::Failure;
use outrigger_bolt::wire::Init;
use outrigger_channel::{
    Channel, Command, Feerates, HtlcKey, HtlcRow, HtlcSource, Offerer, Phase, Refusal, Reply, Summary,
};
use tokio::sync::{Notify, oneshot};

pub use mail::{Mail, OpenOrder};
pub use peer::Peer;

use crate::clock::Clock;
use crate::store::load::LoadedChannel;
use crate::store::{Batch, ChainOrder, Held};
use deliver::{Deliver, ReplyTo};
use directory::PeerDirectory;
use drive::Drive;
use env::Env;
use outbox::{Connection, Heard, Origin, Outbox, PeerHandler, Room};
use pace::Pace;
use peer::Slot;
use registered::Registered;
use relay::Letter;
use relay::register::HtlcName;
use terms::ForwardingPolicy;

/// Mail that one visit to a peer handles: a bound on how long its lock is held.
const MAIL_PER_VISIT: usize = 256;

/// Bytes of a peer's messages that may wait before its socket is paused.
const MAILBOX_BYTES: usize = 1024 * 1024;

/// The only door to peers and channels.
pub struct Manager {
    directory: Arc<PeerDirectory>,
    deliver: Arc<Deliver>,
    env: Env,
    connections: AtomicU64,
    /// Rung after each visit to a peer: its mailbox may have room again.
    visited: Notify,
    pace: Pace,
}

/// A peer in a listing.
#[derive(Clone, Debug)]
pub struct PeerView {
    pub node_id: NodeId,
    pub connected: bool,
    pub features: Option<Features>,
    pub channels: usize,
}

/// A channel in a listing.
#[derive(Clone, Debug)]
pub struct ChannelView {
    pub channel_id: ChannelId,
    pub peer: NodeId,
    pub summary: Summary,
    /// The transaction that spends the funding output, or that we publish to spend it.
    pub closing_txid: Option<Txid>,
    /// Why a cooperative close that was begun has not come about, or a channel of a restored node has not ended, and what to do.
    pub obstacle: Option<String>,
    /// Whether a required backup is so late with it that it takes no new HTLCs.
    pub is_stalled: bool,
    /// What is asked for forwarding over it; none of a channel in history.
    pub forwarding: Option<ForwardingPolicy>,
}

impl Manager {
    /// Takes the loaded channels in. What a crash may have lost is made again from their rows: watches at once, the
    /// rest as released effects when [`resume`](Self::resume) is called.
    pub fn new(directory: Arc<PeerDirectory>, deliver: Arc<Deliver>, env: Env, loaded: Vec<LoadedChannel>) -> Self {
        let manager = Self {
            directory,
            deliver,
            env,
            connections: AtomicU64::new(1),
            visited: Notify::new(),
            pace: Pace::default(),
        };
        let received = received_htlcs(&loaded);
        for LoadedChannel { channel, monitor, settlements, updates, terms } in loaded {
            let (peer, id) = (channel.rows().params.peer, channel.id());
            manager.deliver.name(peer, &channel);
            manager.load_relayed(&channel, &received);
            let signer = manager.env.signer(channel.rows().params.keys_index);
            // Rows have one channel for each id.
            let _is_new = manager.deliver.register(id, Registered::new(peer, signer.clone()));
            if let Some(number) = monitor.rows().head.closing {
                manager.deliver.ends_with(&id, number);
            }
            manager.directory.ensure(peer);
            let on_chain = monitor.watches(&*signer, manager.env.policy.close_depth);
            for watch in channel.watches().into_iter().chain(on_chain) {
                // What is reached already is told in `resume`.
                let _height = manager.deliver.watch_now(peer, id, watch);
            }
            let mut slot = Slot {
                channel,
                monitor,
                signer,
                settlements,
                updates,
                terms,
                replaced: None,
                obstacle: None,
                archived: None,
                is_stalled: false,
                is_unheard: false,
                unsent: None,
                ranked: None,
                hinted: None,
            };
            if peer::stands(&slot.channel) {
                manager.env.channel_stands();
            }
            manager.directory.with(&peer, |peer| {
                let mut drive = Drive::new(&manager.env, &manager.deliver);
                drive.load_settlements(&mut slot);
                peer.slots.insert(id, slot);
                drive.rank(peer, &id);
                peer.is_tallied = true;
                drive.tally(peer);
                manager.env.writer.submit(drive.batch);
            });
        }
        // A crash may have left channels a block ahead of the tip, and that block may be gone by now: what stands above
        // the tip is seen again if it is still there.
        manager.block_disconnected(manager.env.chain.height().saturating_add(1));
        manager
    }

    /// Makes the effects again that a crash may have lost: undecided HTLCs, decided ones that the monitor has not heard
    /// of, transactions to publish. Called once, when the chain is synced.
    pub fn resume(&self) {
        for peer in self.directory.ids() {
            self.visit_with(&peer, |drive, peer| {
                if self.env.is_restored() {
                    drive.restored(peer);
                }
                drive.keep_withheld(peer);
                drive.hear_nobody(peer);
                drive.resume(peer);
            });
        }
    }

    /// Visits a peer, where there is such a one: its lock is held for the visit, and what that has for others is told
    /// after it.
    fn visit_with(&self, peer: &NodeId, work: impl FnOnce(&mut Drive<'_>, &mut Peer)) {
        let letters = self.directory.with(peer, |peer| {
            let mut drive = Drive::new(&self.env, &self.deliver);
            work(&mut drive, peer);
            drive.finish(peer)
        });
        self.tell_others(letters.unwrap_or_default());
    }

    /// What a visit has for one other peer goes into its box at once.
    fn tell_others(&self, letters: Vec<Letter>) {
        let mut post: BTreeMap<NodeId, Vec<Mail>> = BTreeMap::new();
        for letter in letters {
            match letter {
                Letter::Payment(notice) => self.deliver.notify(notice),
                Letter::Mail(peer, mail) => post.entry(peer).or_default().push(mail),
            }
        }
        for (peer, mail) in post {
            for returned in self.deliver.post_all(&peer, mail).err().unwrap_or_default() {
                if let Mail::Offer(offer) = returned {
                    // Its last channel ended, and the peer was forgotten.
                    let mut batch = Batch::default();
                    offer.fail(&Failure::UnknownNextPeer, &self.env, &mut batch);
                    self.env.writer.submit(batch);
                }
            }
        }
    }

    /// Decisions on HTLCs of channels that are no more: a step downstream may have told them after the end.
    pub fn forget_settlements(&self, stray: &[(ChannelId, u64)]) {
        let mut batch = Batch::default();
        stray.iter().for_each(|(channel, htlc_id)| settlement::forget(&mut batch, channel, *htlc_id));
        self.env.writer.submit(batch);
    }

    /// Received HTLCs for which this channel offers one: they are not dispatched again.
    fn load_relayed(&self, channel: &Channel, received: &HashMap<HtlcName, (NodeId, Msat)>) {
        for row in channel.rows().htlcs.values() {
            let Some(HtlcSource::Relayed { channel, htlc_id }) = row.source else { continue };
            let name = HtlcName { channel, htlc_id };
            // One whose removal upstream is complete already is in no register.
            if let Some((from, amount)) = received.get(&name) {
                self.env.relay.load(name, *from, *amount);
            }
        }
    }

    /// New estimates. `is_estimate` says that the one for commitments is bitcoind's own, which channels that we opened
    /// follow. Once it has moved enough, the connected peers are told: what that costs follows the moves of the estimate,
    /// and no block. A channel that is not connected looks when it is re-established.
    pub fn set_feerates(&self, feerates: Feerates, is_estimate: bool) {
        self.env.chain.set_feerates(feerates);
        if is_estimate && self.env.chain.follow(feerates.commitment) {
            for peer in self.deliver.connected_peers() {
                self.post(&peer, Mail::FeerateMoved);
            }
        }
    }

    /// Ends openings in which the peers have taken too long to sign. Called every so often, with the time.
    pub fn expire_openings(&self, now: Instant) {
        for peer in self.env.pending.opening() {
            self.visit_with(&peer, |drive, peer| drive.expire_openings(peer, now));
        }
    }

    /// Asks the peer's worker to open a channel. The answer stands in the operation's row.
    pub fn open_channel(&self, peer: &NodeId, order: OpenOrder) -> Result<(), Box<Mail>> {
        self.deliver.post(peer, Mail::Open(Box::new(order)))
    }

    /// The wallet's answer to a funding request.
    pub fn funded(&self, peer: &NodeId, channel: ChannelId, funding: Result<(bitcoin::Transaction, u32), String>) {
        let mail = Mail::Funded { channel, funding: funding.map(Box::new) };
        if let Err(mail) = self.deliver.post(peer, mail)
            && let Mail::Funded { funding: Ok(funding), .. } = *mail
        {
            // The peer was forgotten, and the opening with it: the coins are free again.
            let mut batch = Batch::default();
            batch.hold(Held::Chain(ChainOrder::Release(funding.0.compute_txid())));
            self.env.writer.submit(batch);
        }
    }

    /// Gives an order to a channel and waits for its answer, which is durable.
    pub async fn command(&self, channel: ChannelId, command: Command) -> Result<Reply, Refusal> {
        if self.env.frozen.contains(&channel) {
            return Err(Refusal::Frozen);
        }
        let Registered { peer, .. } = self.deliver.registered(&channel).ok_or(Refusal::UnknownChannel)?;
        let (waiter, answer) = oneshot::channel();
        let id = self.env.next_command();
        self.deliver.expect_reply(id, ReplyTo::Caller(waiter));
        if self.deliver.post(&peer, Mail::Order { channel, id, command }).is_err() {
            self.deliver.forget_reply(id);
            return Err(Refusal::UnknownChannel);
        }
        answer.await.unwrap_or(Err(Refusal::UnknownChannel))
    }

    /// Every peer, connected or with a channel. A connection counts from the moment on that net has told of it: what
    /// is asked of the peer then waits in its mailbox behind that word.
    pub fn peers(&self) -> Vec<PeerView> {
        let view = |id: NodeId| {
            let connected = self.deliver.is_connected(&id);
            self.directory.with(&id, |peer| PeerView {
                node_id: id,
                connected,
                features: peer.features().filter(|_| connected).cloned(),
                channels: peer.slots.len(),
            })
        };
        self.directory.ids().into_iter().filter_map(view).collect()
    }

    /// Channels that are not in history, in the order of their ids: those behind `after`, of one peer where one is named, that
    /// are `wanted`; `count` of them at the most. No other is made into a view, but for those that are passed over.
    pub fn channels(
        &self,
        peer: Option<&NodeId>,
        after: Option<&ChannelId>,
        count: usize,
        wanted: impl Fn(&ChannelView) -> bool,
    ) -> Vec<ChannelView> {
        let behind = (after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after)), Bound::Unbounded);
        let peers = peer.map_or_else(|| self.directory.ids(), |peer| vec![*peer]);
        let mut found: Vec<(ChannelId, NodeId)> = Vec::new();
        for peer in peers {
            self.directory.with(&peer, |state| {
                found.extend(state.slots.range(behind).map(|(channel, _)| (*channel, peer)));
            });
        }
        found.sort_unstable();
        let view = |(channel, peer): (ChannelId, NodeId)| {
            self.directory.with(&peer, |state| state.slots.get(&channel).map(|slot| self.view(slot)))?
        };
        found.into_iter().filter_map(view).filter(wanted).take(count).collect()
    }

    /// One channel that is not in history.
    pub fn channel(&self, channel: &ChannelId) -> Option<ChannelView> {
        let Registered { peer, .. } = self.deliver.registered(channel)?;
        self.directory.with(&peer, |state| state.slots.get(channel).map(|slot| self.view(slot)))?
    }

    /// How a channel is shown, one in history too.
    pub fn view_of(&self, channel: &Channel) -> ChannelView {
        ChannelView {
            channel_id: channel.id(),
            peer: channel.rows().params.peer,
            summary: channel.summary(self.env.chain.height()),
            closing_txid: closing_txid(channel.phase()),
            obstacle: None,
            is_stalled: false,
            forwarding: None,
        }
    }

    /// Whether the received HTLC still stands in a channel that settles by messages.
    pub fn holds(&self, peer: &NodeId, htlc: &HtlcName) -> bool {
        let holds = |peer: &mut Peer| {
            let slot = peer.slots.get(&htlc.channel).filter(|slot| relay::may_settle(slot));
            slot.is_some_and(|slot| slot.channel.rows().htlcs.contains_key(&HtlcKey::received(htlc.htlc_id)))
        };
        self.directory.with(peer, holds).unwrap_or_default()
    }

    /// Whether a connection to the peer stands.
    pub fn is_connected(&self, peer: &NodeId) -> bool {
        self.deliver.is_connected(peer)
    }

    /// A channel that is not in history: one that failed names the commitment that it publishes.
    fn view(&self, slot: &Slot) -> ChannelView {
        let view = self.view_of(&slot.channel);
        let closing_txid = view.closing_txid.or_else(|| published_txid(slot));
        let forwarding = Some(self.env.forwarding.under(&slot.terms));
        let waits = if self.env.is_restored() {
            restored::waits_for_peer(slot)
        } else {
            unheard::waits(slot).or_else(|| stalled::refused(slot))
        };
        let obstacle = waits.or_else(|| slot.obstacle.as_deref().map(obstacle::in_words));
        ChannelView { closing_txid, obstacle, is_stalled: slot.is_stalled, forwarding, ..view }
    }

    /// What is being relayed now.
    pub fn relaying(&self) -> relay::register::Load {
        self.env.relay.load_of_node()
    }

    /// What steps see of the world.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The queue ends.
    pub fn deliver(&self) -> &Arc<Deliver> {
        &self.deliver
    }

    fn post(&self, peer: &NodeId, mail: Mail) {
        // Mail for a peer that is gone is about a connection or an opening that is gone too.
        drop(self.deliver.post(peer, mail));
    }

    /// A peer may be forgotten between `ensure` and `post`; then it is made anew.
    fn post_to_new(&self, peer: NodeId, mail: Mail) {
        let mut mail = mail;
        loop {
            self.directory.ensure(peer);
            match self.deliver.post(&peer, mail) {
                Ok(()) => return,
                Err(returned) => mail = *returned,
            }
        }
    }
}

/// Every received HTLC that has a row: who sent it, and what it brings.
fn received_htlcs(loaded: &[LoadedChannel]) -> HashMap<HtlcName, (NodeId, Msat)> {
    let of_channel = |loaded: &LoadedChannel| {
        let (channel, peer) = (loaded.channel.id(), loaded.channel.rows().params.peer);
        let received = loaded.channel.rows().htlcs.iter().filter(|(key, _)| key.offerer == Offerer::Remote);
        let named = move |(key, row): (&HtlcKey, &HtlcRow)| (HtlcName { channel, htlc_id: key.id }, (peer, row.amount));
        received.map(named).collect::<Vec<_>>()
    };
    loaded.iter().flat_map(of_channel).collect()
}

/// The commitment of ours that is published where the channel has failed and nothing in the chain spends its funding output.
fn published_txid(slot: &Slot) -> Option<Txid> {
    let rows = slot.monitor.rows();
    let has_failed = rows.head.failed && rows.head.may_publish && !rows.head.closed;
    let publishes = has_failed && !slot.is_unheard && rows.spend.is_none() && slot.channel.is_backed();
    let commitment = publishes.then(|| slot.monitor.closing_commitment(&*slot.signer).ok()).flatten();
    commitment.map(|commitment| commitment.txid())
}

/// The transaction that ends the channel, as far as it is known.
fn closing_txid(phase: &Phase) -> Option<Txid> {
    match phase {
        Phase::Closing { tx, .. } => Some(tx.compute_txid()),
        Phase::Closed { txid, .. } => Some(*txid),
        Phase::Failed { spend, .. } => spend.map(|(txid, _)| txid),
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } => None,
    }
}

impl PeerHandler for Manager {
    fn our_init(&self) -> Init {
        Init {
            globalfeatures: Features::default(),
            features: Features::init(),
            networks: Some(vec![self.env.policy.chain_hash]),
            remote_addr: None,
        }
    }

    fn connected(&self, peer: NodeId, origin: Origin, init: &Init, outbox: Outbox) -> Result<Connection, String> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        if !self.deliver.connected(peer, connection, origin, outbox) {
            return Err("too many peers without a channel are connected; try again later".to_owned());
        }
        self.post_to_new(peer, Mail::Connected { connection, features: init.combined_features() });
        Ok(Connection(connection))
    }

    fn messages(&self, peer: &NodeId, connection: Connection, heard: Vec<Heard>) {
        let now = Clock::monotonic();
        let counted = |heard: &Heard| self.pace.count(peer, &heard.message, now);
        if heard.iter().filter(|heard| counted(heard)).count() > 0 {
            tracing::warn!(%peer, "the peer moves its channels on without pause: it is read more slowly");
        }
        let connection = connection.0;
        let mail = heard.into_iter().map(|Heard { message, bytes }| {
            let message = Box::new(message);
            Mail::Message { connection, message, bytes }
        });
        // A peer that is forgotten has no connection.
        drop(self.deliver.post_all(peer, mail.collect()));
    }

    fn room<'a>(&'a self, peer: &'a NodeId) -> Room<'a> {
        Box::pin(async move {
            self.env.writer.room().await;
            loop {
                let visited = self.visited.notified();
                if self.directory.backlog(peer) < MAILBOX_BYTES {
                    break;
                }
                visited.await;
            }
            let pause = self.pace.pause(peer, Clock::monotonic());
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        })
    }

    fn disconnected(&self, peer: &NodeId, connection: Connection) {
        self.deliver.disconnected(peer, connection.0);
        self.post(peer, Mail::Disconnected { connection: connection.0 });
    }
}

#[cfg(test)]
pub(crate) mod tests;
