//! What must hold at the end of a seed, when everything runs, is connected and rests: of what nothing happened to, all; of channels
//! that ended alone, and of what they left standing elsewhere, what can be said for certain.

use std::collections::BTreeSet;

use outrigger_bolt::id::{ChannelId, PaymentHash};
use outrigger_channel::{ChannelHead, Offerer};
use outrigger_sidecar::store::schema::Table;

use super::backup::Backup;
use super::behaviours::{Behaviour, Lie};
use super::ledger::{Founded, Ledger, Name, Outcome};
use super::node::Node;
use super::rows;
use super::world::World;

/// Blocks after which the commitment of a channel that ended alone is in the chain, and what its peer may take at once is taken.
const BURIED: usize = 8;

/// A balance below it may be less than what taking it costs.
const WORTH_TAKING: i128 = 5_000;

/// Rows that are there while something is under way, those of HTLCs apart.
const UNDER_WAY: [Table; 6] =
    [Table::Onion, Table::Settlement, Table::Outcome, Table::Part, Table::UnderWay, Table::Preimage];

impl World {
    /// HTLCs that stand in channels which go on.
    fn htlcs(&self) -> BTreeSet<Name> {
        let of_node = |node: &Node| {
            let db = &node.live().db;
            let name = |channel: ChannelId, offerer: Offerer, id: u64| match offerer {
                Offerer::Local => (channel, node.number, id),
                Offerer::Remote => (channel, self.ledger.other_of(&channel, node.number), id),
            };
            let rows = rows::htlcs(db).into_iter().map(|(channel, key, _)| name(channel, key.offerer, key.id));
            rows.collect::<Vec<_>>()
        };
        let all = self.nodes.iter().filter(|node| node.live.is_some()).flat_map(of_node);
        all.filter(|(channel, ..)| !self.ledger.ends_alone(channel)).collect()
    }

    /// HTLCs that nothing ends before the chain does: they were relayed into a channel that ended alone, at once or over others.
    pub fn standing(&self) -> BTreeSet<Name> {
        self.htlcs().into_iter().filter(|name| self.ledger.leads_into_an_end(name)).collect()
    }

    /// Nothing is under way any more, and no channel or disk says otherwise.
    pub fn assert_at_rest(&self) {
        let standing = self.standing();
        let left: Vec<_> = self.htlcs().difference(&standing).copied().collect();
        assert!(left.is_empty(), "HTLCs stand although everything is connected and at rest: {left:?}");
        self.ledger.at_rest(&self.nodes, &standing);
    }

    /// Whether what becomes of a payment depends on a channel that ended alone, or on rows that were lost.
    pub fn is_unsure(&self, hash: &PaymentHash) -> bool {
        let of_hash = self.ledger.htlcs.iter().filter(|(_, htlc)| htlc.hash == *hash);
        of_hash.into_iter().any(|(name, _)| self.ledger.ends_alone(&name.0) || self.ledger.leads_into_an_end(name))
            || self.waits_for_an_end(hash)
            || self.payments.iter().any(|payment| {
                let is_old = self.nodes[payment.payer].is_old || self.nodes[payment.payee].is_old;
                is_old && payment.invoice.as_ref().is_some_and(|(known, _)| known == hash)
            })
    }

    /// Whether a part of a payment was given to a channel that ended alone before it was offered there. A start lets go of none before the
    /// peer of its channel is in step, or the channel over (BAK-1).
    fn waits_for_an_end(&self, hash: &PaymentHash) -> bool {
        let begun =
            self.payments.iter().filter_map(|payment| Some((payment.payer, payment.answer.as_ref()?.as_ref().ok()?)));
        begun.filter(|(_, begun)| begun.payment_hash == *hash).any(|(payer, begun)| {
            let parts = rows::parts(&self.nodes[payer].live().db, &begun.payment_id);
            parts.iter().any(|part| self.ledger.ends_alone(&part.channel))
        })
    }

    /// Every backup has all of every channel that it is to have.
    pub fn assert_backups(&self) {
        for node in self.nodes.iter().filter(|node| !node.is_old) {
            let is_whole =
                |backup: &&Backup| backup.behaviour.keeps() && backup.behaviour != Behaviour::Lying(Lie::More);
            for backup in node.backups.iter().filter(is_whole) {
                backup.assert_complete(node);
                for (channel, founded) in self.ledger.funded() {
                    let is_sure = !self.ledger.ends_alone(channel) && !backup.has_refused(channel);
                    let is_had = is_sure && founded.nodes.contains(&node.number);
                    let has = backup.has(channel, |_| true);
                    assert!(has || !is_had, "node {}: backup {} lacks {channel}", node.number, backup.name());
                }
            }
        }
    }

    /// What ended alone comes to its end in the chain, and everybody takes what is his.
    pub fn end_what_ends_alone(&mut self) {
        let ended: Vec<_> = self.ledger.funded().map(|(channel, founded)| (*channel, founded.clone())).collect();
        let ended: Vec<_> = ended.into_iter().filter(|(channel, _)| self.ledger.ends_alone(channel)).collect();
        if ended.is_empty() {
            return;
        }
        self.force_refused();
        for _ in 0..BURIED {
            self.rest();
            (0..self.links.len()).for_each(|link| self.connect(link));
            self.rest();
            self.mine();
        }
        self.rest();
        for (channel, founded) in ended {
            self.assert_ended(&channel, &founded);
        }
    }

    /// A channel that ended alone is closed by whoever may, and what each side has in the commitment that is in the chain comes to
    /// it, also where its rows are old.
    fn assert_ended(&mut self, channel: &ChannelId, founded: &Founded) {
        let heads = founded.nodes.map(|node| rows::head(&self.nodes[node].live().db, channel));
        if !self.chain.has(&founded.funding.txid) {
            return;
        }
        let may_publish = |node: usize| {
            let is_refused = self.ledger.refused.contains(&(node, *channel));
            !self.nodes[node].is_old && !is_refused && rows::head(&self.nodes[node].live().db, channel).is_some()
        };
        let publishers: Vec<_> = founded.nodes.into_iter().filter(|node| may_publish(*node)).collect();
        let Some(spend) = self.chain.spender(&founded.funding) else {
            assert!(publishers.is_empty(), "nodes {publishers:?} can close {channel}, and nobody does");
            return;
        };
        self.counts.one("channels ended alone");
        let Some(publisher) = self.ledger.published.get(&spend.compute_txid()).copied() else { return };
        let side = usize::from(founded.nodes[0] != publisher);
        let other = founded.nodes[1 - side];
        let (Some(own), true) = (&heads[side], may_publish(publisher)) else { return };
        let Some(params) = rows::params(&self.nodes[publisher].live().db, channel) else { return };
        let opener = params.is_opener;
        let paid_out: u64 = spend.output.iter().map(|output| output.value.to_sat()).sum();
        let costs = i128::from(params.capacity.get()) - i128::from(paid_out) + 660;
        let totals = own.local_commitment;
        for (node, balance, pays) in [(publisher, totals.to_local, opener), (other, totals.to_remote, !opener)] {
            if heads[usize::from(founded.nodes[0] != node)].is_none() {
                continue;
            }
            let due = i128::from(balance.get() / 1000) - if pays { costs } else { 0 };
            let txid = spend.compute_txid();
            let home = self.ledger.claimed.iter().filter(|((of, outpoint), _)| *of == node && outpoint.txid == txid);
            let home: u64 = home.map(|(_, value)| value.to_sat()).sum();
            assert!(
                i128::from(home) >= due || due < WORTH_TAKING,
                "node {node} takes {home} sat of {due} in {channel}, which node {publisher} has published"
            );
            if self.nodes[node].is_old && home > 0 {
                self.counts.one("balances that came home after a loss");
            }
        }
    }
}

impl Ledger {
    /// Whether an HTLC was relayed into a channel that ended alone, at once or over others.
    fn leads_into_an_end(&self, name: &Name) -> bool {
        let mut next = self.downstream.get(name);
        while let Some(down) = next {
            if self.ends_alone(&down.0) {
                return true;
            }
            next = self.downstream.get(down);
        }
        false
    }

    /// Nothing is under way any more but what stands: both sides of each channel have what the HTLCs that were fulfilled leave them,
    /// both edges of each relay have the same outcome, and no row waits for anything.
    fn at_rest(&self, nodes: &[Node], standing: &BTreeSet<Name>) {
        for (down, up) in &self.upstream {
            let (down_outcome, up_outcome) = (self.htlcs[down].outcome, self.htlcs[up].outcome);
            // A preimage that is known claims what is there for it, whatever became of the other edge (FWD-1).
            let knew = self.was_paid_for(down.1, &self.htlcs[up].hash, down);
            let is_claimed = up_outcome == Some(Outcome::Fulfilled) && knew;
            // What an end left open is closed in the chain. Meanwhile nobody gives up what he has the preimage for.
            let is_open = [down, up].into_iter().any(|name| self.ends_alone(&name.0) || standing.contains(name));
            let has_given_up = up_outcome == Some(Outcome::Failed)
                && down_outcome == Some(Outcome::Fulfilled)
                && self.told.contains(&(down.1, self.htlcs[up].hash));
            let is_bad = if is_open { has_given_up } else { down_outcome != up_outcome && !is_claimed };
            assert!(!is_bad, "the edges of one relay: {down:?} {down_outcome:?} and {up:?} {up_outcome:?}");
        }
        for (channel, founded) in self.funded().filter(|(channel, _)| !self.ends_alone(channel)) {
            self.channel_at_rest((channel, founded), nodes, standing);
        }
        for node in nodes {
            self.node_at_rest(node, standing);
        }
    }

    fn channel_at_rest(&self, (channel, founded): (&ChannelId, &Founded), nodes: &[Node], standing: &BTreeSet<Name>) {
        let mut expected = self.balances(channel, founded);
        for name in standing.iter().filter(|(of, ..)| of == channel) {
            expected[usize::from(founded.nodes[0] != name.1)] -= i128::from(self.htlcs[name].amount.get());
        }
        for side in 0..2 {
            let head = rows::head(&nodes[founded.nodes[side]].live().db, channel).expect("an open channel");
            let mine = [expected[side], expected[1 - side]];
            for totals in [&head.local_commitment, &head.remote_commitment] {
                let found = [totals.to_local, totals.to_remote].map(|msat| i128::from(msat.get()));
                assert_eq!(found, mine, "node {} in {channel}", founded.nodes[side]);
            }
            assert_agree(&head, &nodes[founded.nodes[1 - side]], channel);
        }
    }

    fn node_at_rest(&self, node: &Node, standing: &BTreeSet<Name>) {
        let number = node.number;
        let mut own = self.funded().filter(|(_, founded)| founded.nodes.contains(&number));
        let is_touched = own
            .any(|(channel, _)| self.ends_alone(channel) || standing.iter().any(|(standing, ..)| standing == channel));
        if is_touched {
            return;
        }
        let db = &node.live().db;
        let relayed = self.downstream.keys().filter(|up| self.htlcs[*up].to == number);
        let earned = relayed.filter(|up| self.htlcs[*up].outcome == Some(Outcome::Fulfilled)).count() as u64;
        assert_eq!(rows::count(db, Table::Forward), earned, "the forwards of node {number}");
        for table in UNDER_WAY.into_iter().chain([Table::Htlc]) {
            let left = rows::count(db, table);
            assert_eq!(left, 0, "node {number} has {left} rows of {table:?} left");
        }
    }
}

/// Both sides count the commitments alike.
fn assert_agree(head: &ChannelHead, other: &Node, channel: &ChannelId) {
    let theirs = rows::head(&other.live().db, channel).expect("an open channel");
    assert_eq!((head.local_number, head.remote_number), (theirs.remote_number, theirs.local_number));
    assert_eq!((head.fee.local, head.fee.change), (theirs.fee.local, theirs.fee.change), "the feerates of {channel}");
}
