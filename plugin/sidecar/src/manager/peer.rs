//! One peer: its connection, its channels, and the openings that have no row yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::wire::ChannelUpdate;
use outrigger_channel::{Channel, Monitor, Opening, Phase, Signer, Watch};

use super::Manager;
use super::workers::HEAVY_HTLCS;
use crate::store::channel_update::ChannelUpdates;
use crate::store::row::{OperationRow, SettlementRow};
use crate::store::terms::TermsRow;

/// A channel under its peer.
pub(super) struct Slot {
    pub(super) channel: Channel,
    pub(super) monitor: Monitor,
    pub(super) signer: Arc<dyn Signer>,
    /// Decided outcomes of received HTLCs, told to the channel again at every reestablish until they are irrevocable.
    pub(super) settlements: BTreeMap<u64, SettlementRow>,
    /// The newest `channel_update` of each side.
    pub(super) updates: ChannelUpdates,
    /// What the operator asks for forwarding over it, where that is not what the config says.
    pub(super) terms: TermsRow,
    /// The update that the newest of ours took the place of, and when: what it asked is good for a while. Lost in a crash.
    pub(super) replaced: Option<(ChannelUpdate, Instant)>,
    /// Why the cooperative close that was begun has not come about. Lost in a crash: the next connection tries again.
    pub(super) obstacle: Option<String>,
    /// Its rows are on their way into history: it writes none any more. What it waits for still goes with it.
    pub(super) archived: Option<Vec<Watch>>,
    /// Its promises have waited long for a backup: it takes no new HTLCs.
    pub(super) is_stalled: bool,
    /// It failed before every required backup had told what it holds, and they have not since: what it publishes waits for that.
    pub(super) is_unheard: bool,
    /// The call that asked for it, while its funding transaction has not left: it waits for backups, and `under_way` says so.
    pub(super) unsent: Option<OperationRow>,
    /// What it could send when it was last ranked; none where it was not usable.
    pub(super) ranked: Option<Msat>,
    /// Its place among the channels that invoices name.
    pub(super) hinted: Option<u32>,
}

/// A channel in the making. It has no row: a disconnect or a crash forgets it, which is safe before `funding_signed`.
pub(super) struct OpeningSlot {
    pub(super) opening: Opening,
    pub(super) signer: Arc<dyn Signer>,
    /// The operator's call, if we open.
    pub(super) order: Option<OpenerOrder>,
    /// When it began.
    pub(super) begun: Instant,
}

/// What the opener remembers of the operator's call.
#[derive(Debug)]
pub(super) struct OpenerOrder {
    pub(super) operation: OperationRow,
    pub(super) funding_feerate: Option<outrigger_bolt::amount::FeeratePerKw>,
    /// Whether the wallet was asked for the funding transaction, and has not answered.
    pub(super) awaits_wallet: bool,
    /// The transaction whose inputs the wallet keeps for us.
    pub(super) reserved: Option<bitcoin::Txid>,
}

/// A call whose opening is over while the wallet makes its funding transaction: its end is told with the wallet's answer.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) operation: OperationRow,
    pub(super) reason: String,
}

/// A live connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: u64,
    pub(super) features: Features,
    /// Channels that are over and whose `channel_reestablish` was answered on it. It is answered once: the answer has our numbers, and
    /// two nodes that hold a channel for over would answer each other for ever.
    pub(super) answered: BTreeSet<ChannelId>,
}

/// Everything of one peer, behind one lock.
pub struct Peer {
    pub(super) node_id: NodeId,
    pub(super) live: Option<Live>,
    pub(super) slots: BTreeMap<ChannelId, Slot>,
    pub(super) openings: BTreeMap<ChannelId, OpeningSlot>,
    /// By the temporary id that the wallet answers to.
    pub(super) leaving: BTreeMap<ChannelId, Leaving>,
    /// The usable channels by what they can send.
    pub(super) by_spendable: BTreeSet<(Msat, ChannelId)>,
    /// Whether the register of channels in the making has to hear of this peer.
    pub(super) is_tallied: bool,
    /// Channels with so many HTLCs that a visit takes long.
    heavy: BTreeSet<ChannelId>,
    gone: bool,
}

impl Peer {
    pub(super) fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            live: None,
            slots: BTreeMap::new(),
            openings: BTreeMap::new(),
            leaving: BTreeMap::new(),
            by_spendable: BTreeSet::new(),
            is_tallied: false,
            heavy: BTreeSet::new(),
            gone: false,
        }
    }

    /// Looks how many HTLCs a channel has after a step.
    pub(super) fn weigh(&mut self, channel: &ChannelId) {
        let is_heavy = |slot: &Slot| slot.channel.rows().htlcs.len() >= HEAVY_HTLCS;
        if self.slots.get(channel).is_some_and(is_heavy) {
            self.heavy.insert(*channel);
        } else {
            self.heavy.remove(channel);
        }
    }

    /// Whether a visit takes long.
    pub(super) fn is_heavy(&self) -> bool {
        !self.heavy.is_empty()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn mark_gone(&mut self) {
        self.gone = true;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.live.is_none() && self.slots.is_empty() && self.openings.is_empty() && self.leaving.is_empty()
    }

    /// Channels that the peer opens and that are in no block yet, those without a row included.
    pub(super) fn pending(&self) -> usize {
        let unsigned = self.openings.values().filter(|slot| slot.order.is_none()).count();
        let unconfirmed = self.slots.values().filter(|slot| is_unconfirmed_by_peer(&slot.channel)).count();
        unsigned.saturating_add(unconfirmed)
    }

    /// Whether none of the channels with it was paid for: what stands was asked for by the peer and is in no block.
    pub(super) fn is_stranger(&self) -> bool {
        self.slots
            .values()
            .all(|slot| is_unconfirmed_by_peer(&slot.channel) || matches!(slot.channel.phase(), Phase::Closed { .. }))
    }

    /// The generation of the live connection; 0 means none.
    pub(super) fn connection(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.connection)
    }

    /// Takes note that the peer asks for a channel that is in memory and over. Says whether it was answered on this connection before.
    pub(super) fn has_heard_the_end_of(&mut self, channel: &ChannelId) -> bool {
        let is_over = |slot: &Slot| matches!(slot.channel.phase(), Phase::Failed { .. } | Phase::Closed { .. });
        let is_over = self.slots.get(channel).is_some_and(is_over);
        let Some(live) = &mut self.live else { return false };
        live.answered.contains(channel) || (is_over && !live.answered.insert(*channel))
    }

    /// Features that the peer told in `init`.
    pub fn features(&self) -> Option<&Features> {
        self.live.as_ref().map(|live| &live.features)
    }
}

impl Manager {
    /// Whether the peer has a channel that is no mere promise of its own, and is not closed.
    pub fn has_funded_channel(&self, peer: &NodeId) -> bool {
        self.directory.with(peer, |peer| !peer.is_stranger()).unwrap_or_default()
    }
}

/// Whether the channel may still have to be closed alone.
pub(super) fn stands(channel: &Channel) -> bool {
    channel.is_backed() && !matches!(channel.phase(), Phase::Closed { .. })
}

/// Whether the channel is but a promise of the peer's. One that fails as such is none the less (FND-6).
fn is_unconfirmed_by_peer(channel: &Channel) -> bool {
    match channel.phase() {
        Phase::Funding(_) => !channel.rows().params.is_opener,
        Phase::Failed { .. } => !channel.is_backed(),
        Phase::Normal | Phase::ShuttingDown { .. } | Phase::Closing { .. } | Phase::Closed { .. } => false,
    }
}
