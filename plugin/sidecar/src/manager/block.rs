//! Blocks: one index of outpoints and one of heights for the whole node, so that a block touches only the channels
//! that it concerns (law 6).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::{Block, OutPoint, Transaction, Txid};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::{ChainEvent, ClaimKind, Input, Phase, Watch};

use super::Manager;

/// What an output is to the channel that waits for its spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Funding,
    Output { kind: ClaimKind, value: Sat },
}

/// What channels wait for.
#[derive(Debug, Default)]
pub struct ChainIndex {
    height: u32,
    by_txid: HashMap<Txid, BTreeSet<(NodeId, ChannelId)>>,
    /// Several channels may wait for one output: a peer can name any as the funding output of a channel, those too that
    /// another channel has in the chain.
    by_outpoint: HashMap<OutPoint, BTreeMap<(NodeId, ChannelId), Watched>>,
    by_height: BTreeMap<u32, BTreeSet<(NodeId, ChannelId)>>,
}

impl ChainIndex {
    /// Adds a wish. Returns the current height if a height was wished for that is already reached.
    pub fn watch(&mut self, peer: NodeId, channel: ChannelId, watch: Watch) -> Option<u32> {
        match watch {
            Watch::Funding { outpoint, script_pubkey: _ } => {
                self.by_txid.entry(outpoint.txid).or_default().insert((peer, channel));
                self.by_outpoint.entry(outpoint).or_default().insert((peer, channel), Watched::Funding);
                None
            }
            Watch::Output { outpoint, kind, value } => {
                let watched = Watched::Output { kind, value };
                self.by_outpoint.entry(outpoint).or_default().insert((peer, channel), watched);
                None
            }
            Watch::Height(height) if height <= self.height => Some(self.height),
            Watch::Height(height) => {
                self.by_height.entry(height).or_default().insert((peer, channel));
                None
            }
        }
    }

    /// Forgets the outputs of a channel, and what else it still waits for.
    pub(super) fn forget(&mut self, peer: NodeId, channel: ChannelId, funding: OutPoint, waits: &[Watch]) {
        let concerned = (peer, channel);
        if let Some(channels) = self.by_txid.get_mut(&funding.txid) {
            channels.remove(&concerned);
            if channels.is_empty() {
                self.by_txid.remove(&funding.txid);
            }
        }
        // Once in the life of a channel: no index of its outputs is kept for that.
        self.by_outpoint.retain(|_, channels| {
            channels.remove(&concerned);
            !channels.is_empty()
        });
        for wait in waits {
            if let Watch::Height(height) = wait
                && let Some(channels) = self.by_height.get_mut(height)
            {
                channels.remove(&concerned);
                if channels.is_empty() {
                    self.by_height.remove(height);
                }
            }
        }
    }

    /// How many wishes stand.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let outputs = self.by_outpoint.values().map(BTreeMap::len).sum::<usize>();
        self.by_txid.len() + outputs + self.by_height.values().map(BTreeSet::len).sum::<usize>()
    }

    /// The channels that wait for a spend of this output.
    pub fn spender_concerns(&self, outpoint: &OutPoint) -> Vec<(NodeId, ChannelId)> {
        self.by_outpoint.get(outpoint).map(|channels| channels.keys().copied().collect()).unwrap_or_default()
    }

    fn funded_by(&self, txid: &Txid) -> Vec<(NodeId, ChannelId)> {
        self.by_txid.get(txid).map(|channels| channels.iter().copied().collect()).unwrap_or_default()
    }

    fn reach(&mut self, height: u32) -> BTreeSet<(NodeId, ChannelId)> {
        self.height = height;
        let later = self.by_height.split_off(&height.saturating_add(1));
        std::mem::replace(&mut self.by_height, later).into_values().flatten().collect()
    }
}

/// One piece of news for one channel.
type Concern<'a> = ((NodeId, ChannelId), ChainEvent<'a>);

impl Manager {
    /// Takes a block in: every channel that it concerns has stepped, and its rows are queued, when this returns.
    pub fn block_connected(&self, height: u32, block: &Block) {
        self.env.chain.set_height(height);
        for (tx_index, tx) in (0u32..).zip(&block.txdata) {
            // One after the other: what a transaction makes a channel wait for may be in the next one of this block.
            let concerns = concerns_of(&self.deliver.index().lock(), height, tx_index, tx);
            self.tell(concerns);
        }
        let reached = self.deliver.index().lock().reach(height);
        self.tell(reached.into_iter().map(|channel| (channel, ChainEvent::Height(height))).collect());
    }

    fn tell(&self, concerns: Vec<Concern<'_>>) {
        for ((peer, channel), event) in concerns {
            self.visit_with(&peer, |drive, peer| {
                drive.step_channel(peer, channel, Input::Chain(event));
            });
        }
    }

    /// Takes a block back. Rare, so every channel is asked whether it stood on that block, or above it; right after a
    /// restart too.
    pub fn block_disconnected(&self, height: u32) {
        self.env.chain.set_height(height.saturating_sub(1));
        self.deliver.index().lock().height = height.saturating_sub(1);
        for peer in self.directory.ids() {
            self.visit_with(&peer, |drive, peer| {
                let stood_on: Vec<_> = peer
                    .slots
                    .iter()
                    .flat_map(|(id, slot)| {
                        let funding = slot.channel.rows().head.funding_height.is_some_and(|found| found >= height);
                        let spend = spend_height(slot.channel.phase()).is_some_and(|found| found >= height);
                        let taken = slot.monitor.rows().taken.values().any(|taken| taken.height >= height);
                        let events = [
                            taken.then_some(ChainEvent::OutputsUnspent { from_height: height }),
                            spend.then_some(ChainEvent::FundingSpendUnconfirmed),
                            funding.then_some(ChainEvent::FundingUnconfirmed),
                        ];
                        events.into_iter().flatten().map(|event| (*id, event))
                    })
                    .collect();
                for (channel, event) in stood_on {
                    drive.step_channel(peer, channel, Input::Chain(event));
                }
            });
        }
    }
}

fn concerns_of<'a>(index: &ChainIndex, height: u32, tx_index: u32, tx: &'a Transaction) -> Vec<Concern<'a>> {
    let mut concerns = Vec::new();
    for channel in index.funded_by(&tx.compute_txid()) {
        concerns.push((channel, ChainEvent::FundingConfirmed { height, tx_index, tx }));
    }
    for input in &tx.input {
        let outpoint = input.previous_output;
        for (channel, watched) in index.by_outpoint.get(&outpoint).into_iter().flatten() {
            let event = match *watched {
                Watched::Funding => ChainEvent::FundingSpent { height, tx },
                Watched::Output { kind, value } => ChainEvent::OutputSpent { outpoint, kind, value, height, tx },
            };
            concerns.push((*channel, event));
        }
    }
    concerns
}

/// The height at which the funding output was spent, as far as the channel knows.
fn spend_height(phase: &Phase) -> Option<u32> {
    match phase {
        Phase::Closing { confirmed_height, .. } => *confirmed_height,
        Phase::Failed { spend, .. } => spend.map(|(_, height)| height),
        Phase::Closed { height, .. } => Some(*height),
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } => None,
    }
}
