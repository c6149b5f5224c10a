//! Who visits the peers. Visits that take long have workers of their own, which stand back: a commitment of one peer with
//! hundreds of HTLCs delays no payment of another.

use crossbeam_channel::{Receiver, Sender};
use outrigger_bolt::id::NodeId;

use super::{MAIL_PER_VISIT, Manager};

/// HTLCs of one channel from which on a visit takes long: each is signed and verified with every commitment, which takes some
/// ten milliseconds for so many.
pub(super) const HEAVY_HTLCS: usize = 128;

/// The queue of peers whose visits take long.
#[derive(Clone, Debug)]
pub struct Heavy {
    put: Sender<NodeId>,
    take: Receiver<NodeId>,
}

impl Default for Heavy {
    fn default() -> Self {
        let (put, take) = crossbeam_channel::unbounded();
        Self { put, take }
    }
}

impl Heavy {
    fn schedule(&self, peer: NodeId) {
        // This has the other end.
        let _ = self.put.send(peer);
    }
}

impl Manager {
    /// Drains mailboxes until every queue end is gone; one of a small pool of threads.
    pub fn work(&self, queue: &Receiver<NodeId>, heavy: &Heavy) {
        while let Ok(peer) = queue.recv() {
            if self.directory.is_heavy(&peer) {
                // No commit waits for what comes of it.
                self.deliver.rests();
                heavy.schedule(peer);
            } else {
                self.drain(&peer);
            }
        }
    }

    /// The same for peers whose visits take long, on a thread that has less of the processor than others.
    pub fn work_on_heavy(&self, heavy: &Heavy) {
        while let Ok(peer) = heavy.take.recv() {
            if self.visit(&peer) {
                self.directory.forget_idle(&peer);
            } else {
                heavy.schedule(peer);
            }
        }
    }

    /// One visit to a peer that stood in the workers' queue. No two at a time for one peer: a queue has it once.
    pub fn drain(&self, peer: &NodeId) {
        if self.visit(peer) {
            self.deliver.rests();
            self.directory.forget_idle(peer);
        } else {
            // Behind the others: a peer that never stops talking must not keep a worker to itself (DOS-11).
            self.deliver.schedule(peer);
        }
    }

    /// Says whether the mailbox was given back: nothing in it is worth another visit.
    fn visit(&self, peer: &NodeId) -> bool {
        let mail = self.directory.take_mail(peer, MAIL_PER_VISIT);
        self.visit_with(peer, |drive, peer| mail.into_iter().for_each(|piece| drive.handle(peer, piece)));
        self.visited.notify_waiters();
        self.directory.give_back(peer)
    }
}
