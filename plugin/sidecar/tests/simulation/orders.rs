//! What happens in the chain, and what nodes have done in it: that is held against what they may do.

use std::time::Duration;

use bitcoin::Transaction;
use outrigger_bolt::id::ChannelId;
use outrigger_channel::Enforcement;
use outrigger_sidecar::store::ChainOrder;
use outrigger_sidecar::store::backup::Image;
use rand::Rng;

use super::node::Node;
use super::rows;
use super::world::World;

impl World {
    pub fn carry_out(&mut self, node: usize, order: ChainOrder) {
        match order {
            ChainOrder::Publish(tx) => {
                self.assert_backed(node, &tx);
                self.chain.publish(tx);
            }
            ChainOrder::Fund(request) => {
                let funding = self.chain.fund(&request);
                self.nodes[node].live().core.manager.funded(&request.peer, request.channel, Ok(funding));
            }
            ChainOrder::Enforce { channel, enforcement: Some(found), .. }
                if self.ledger.never_funded.contains(&channel) =>
            {
                assert!(found.publish.is_none() && found.claims.is_empty(), "there is no output to spend");
            }
            ChainOrder::Enforce { channel, enforcement: Some(found), .. } => {
                assert!(self.ledger.ends_alone(&channel), "node {node} ends channel {channel} alone");
                let is_published = found.publish.is_some();
                assert!(
                    !is_published || !self.nodes[node].is_old,
                    "node {node} publishes an old commitment of {channel}"
                );
                self.enforce(node, channel, *found);
            }
            ChainOrder::Enforce { enforcement: None, .. }
            | ChainOrder::Forget(_)
            | ChainOrder::Send(_)
            | ChainOrder::NewBlock
            | ChainOrder::BlockLeft
            | ChainOrder::Release(_)
            | ChainOrder::Reached(_) => {}
        }
    }

    /// What the wallet and the mempool do for a channel that its operator ended.
    fn enforce(&mut self, node: usize, channel: ChannelId, found: Enforcement) {
        if let Some(publish) = found.publish {
            let keys_index = rows::params(&self.nodes[node].live().db, &channel).map(|params| params.keys_index);
            self.signers.journal.lock().publishes((node, keys_index.expect("a channel has keys")));
            self.ledger.published.entry(publish.tx.compute_txid()).or_insert(node);
            self.chain.publish(publish.tx);
        }
        let own = found.claims.iter().map(|claim| ((node, claim.outpoint), claim.output.value));
        self.ledger.claimed.extend(own);
        found
            .claims
            .into_iter()
            .for_each(|claim| self.chain.claim(claim.outpoint, claim.output.value, claim.from_height));
    }

    /// A channel that is funded by this transaction is in the required backups of the node that publishes it.
    fn assert_backed(&self, node: usize, tx: &Transaction) {
        let Node { backups, live: Some(live), is_old: false, .. } = &self.nodes[node] else { return };
        let txid = tx.compute_txid();
        for view in live.core.manager.channels(None, None, usize::MAX, |view| view.summary.funding.txid == txid) {
            let channel = view.channel_id;
            for backup in backups.iter().filter(|backup| backup.is_relied_on()) {
                let is_there = backup.has(&channel, Image::is_live);
                assert!(is_there, "node {node} funds {channel}, which its backup {} does not have", backup.name());
            }
        }
    }

    pub fn mine(&mut self) {
        let count = self.chain.mine();
        self.counts.one("blocks");
        self.clock.pass(Duration::from_secs(600));
        self.note(format_args!("block {} with {count} transactions", self.chain.height()));
    }

    /// Blocks are taken back, and one more than those comes in their place. What was in them may come later, or not yet.
    pub fn reorganise(&mut self) {
        let depth = self.rng.random_range(1..3);
        if !self.chain.take_back(depth) {
            return;
        }
        self.counts.one("reorganisations");
        self.note(format_args!("{depth} blocks are taken back"));
        let is_late = self.rng.random_bool(0.5);
        let waiting = if is_late { self.chain.hold_back() } else { Vec::new() };
        for _ in 0..=depth {
            self.mine();
        }
        waiting.into_iter().for_each(|tx| self.chain.publish(tx));
    }
}
