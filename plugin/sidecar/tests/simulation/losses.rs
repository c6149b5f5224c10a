//! Disks that die. What is restored from a backup is in restored mode for good: it signs nothing, publishes nothing, and its peers
//! close its channels.
//!
//! What must not be lost is said exactly. A required backup that keeps what it completes has everything that a peer was ever told: a
//! restore from it, as it is when the disk dies, knows every signature and secret that has left, and every answer to an HTLC. What
//! is restored from anything else, an old copy of a backup, one that lies, one that nobody waited for, may know less; it may lack
//! channels, and HTLCs under way. Of each channel that it has, it takes its whole balance in whatever its peer publishes.

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_sidecar::store::backup::Followed;
use outrigger_sidecar::store::backup::source::Source;
use outrigger_sidecar::store::restore::{Rebuilt, Restore, RestoreFault};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::backup::Backup;
use super::disk::{Damage, Disk};
use super::ledger::Founded;
use super::node::{NETWORK, Node};
use super::world::World;

/// The wallet's row for a place in the chain, whose hash says how many reorganisations were taken in.
fn place_of(from: Followed) -> Vec<u8> {
    let hash: &[u8; 32] = from.hash.as_ref();
    let forks: [u8; 8] = std::array::from_fn(|at| hash[at]);
    (u64::from_be_bytes(forks) << 32 | u64::from(from.height)).to_be_bytes().to_vec()
}

/// Makes the database of a node on a disk, of what its backup has.
pub fn restored(source: &mut dyn Source, node_id: NodeId, disk: &Disk) -> Result<Rebuilt, RestoreFault> {
    let wallet = |from: Followed| Ok(place_of(from));
    let proof = "it comes of a backup";
    Restore { network: NETWORK, node_id, proof, wallet: &wallet, takes_what_is_there: false }.onto(source, disk)
}

impl World {
    /// A disk with what this backup of a node has.
    pub fn rebuilt(&self, node: usize, mut source: Backup) -> (Disk, Rebuilt) {
        let disk = Disk::default();
        let rebuilt = restored(&mut source, self.nodes[node].id, &disk).expect("a restore");
        (Disk::of(disk.bytes()), rebuilt)
    }

    /// Whether both of its nodes must know a channel. One that ended alone before its funding transaction was in a block may be
    /// forgotten, as those that never were.
    pub fn is_had(&self, channel: &ChannelId) -> bool {
        let is_funded = |founded: &Founded| self.chain.has(&founded.funding.txid);
        let never_was = self.ledger.ends_alone(channel) && !self.ledger.channels.get(channel).is_some_and(is_funded);
        !self.ledger.never_funded.contains(channel) && !never_was
    }

    /// The disk of some node dies that has a backup with anything in it.
    pub fn lose_some_disk(&mut self) {
        let has_backup = |node: &&Node| !node.is_old && node.backups.iter().any(Backup::has_any);
        let candidates: Vec<_> = self.nodes.iter().filter(has_backup).map(|node| node.number).collect();
        let Some(node) = candidates.choose(&mut self.rng).copied() else { return };
        self.fall(node, Damage::Dropped);
        let Some(backup) = self.nodes[node].backups.choose(&mut self.rng).cloned() else { return };
        let before = if self.rng.random_bool(0.5) { backup.as_before() } else { None };
        let is_stale = before.is_some();
        let source = before.unwrap_or_else(|| backup.copied());
        if !source.has_any() {
            return;
        }
        self.note(format_args!("{node}: its disk dies; restored from {}, stale: {is_stale}", backup.name()));
        let (disk, rebuilt) = self.rebuilt(node, source);
        let is_newest = backup.is_relied_on() && !is_stale;
        let may_lack = !backup.behaviour.keeps() || backup.refusals() > 0;
        assert!(rebuilt.is_whole() || may_lack, "node {node}: {rebuilt:?}");
        let kind = if is_stale { "restores from a stale backup" } else { "restores from a backup as it is" };
        self.counts.one(kind);
        let node_is = &mut self.nodes[node];
        (node_is.disk, node_is.is_old) = (disk, true);
        self.ledger.old.insert(node);
        self.start(node);
        if is_newest {
            self.counts.one("restores that know all that was told");
            // What was told before a backup was put into the place of another stood in that other: this one has it with its first
            // write of the channel.
            let is_given = |channel: &_| !backup.took_a_place() || backup.has(channel, |_| true);
            let is_had = |channel: &_| self.is_had(channel) && !backup.has_refused(channel) && is_given(channel);
            self.ledger.seen.rows_held_against(&self.nodes[node], is_had);
        }
        if self.ledger.seen.is_behind(&self.nodes[node]) {
            self.counts.one("restores that know less than was told");
        }
        self.ledger.seen.forget(node);
    }
}
