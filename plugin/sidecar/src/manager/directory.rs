//! The peers, and the lock rule: at most one peer lock per thread, checked in release builds too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use outrigger_bolt::id::NodeId;

use super::mail::Mail;
use super::peer::Peer;
use crate::lock::{Mutex, RwLock, Sole};

/// Bytes of a peer's messages that wait for the one that makes them count. It is less than what pauses the peer's socket.
/// A peer without a channel may hold as much.
const PATIENT_BYTES: usize = 128 * 1024;

/// Marks that this thread holds a lock of the directory, its own or a peer's.
fn alone() -> Sole {
    Sole::begin("a second peer lock on one thread")
}

/// One peer: its state behind its lock, and the mail that waits for it.
struct Entry {
    mailbox: Mutex<Mailbox>,
    peer: Mutex<Peer>,
    /// Whether visits take long.
    is_heavy: AtomicBool,
}

impl Entry {
    fn of(peer: NodeId) -> Self {
        Self { mailbox: Mutex::default(), peer: Mutex::new(Peer::new(peer)), is_heavy: AtomicBool::new(false) }
    }
}

#[derive(Debug, Default)]
struct Mailbox {
    mail: VecDeque<Mail>,
    /// What the peer's own mail holds.
    bytes: usize,
    /// Whether anything in it is worth a visit.
    due: bool,
    /// Whether a worker has the mailbox, or will: one worker at a time keeps the order.
    scheduled: bool,
    /// The peer was forgotten: what is put in here would never be read.
    closed: bool,
}

impl Mailbox {
    fn put(&mut self, mail: Mail) {
        self.bytes = self.bytes.saturating_add(mail.bytes());
        self.due |= !mail.waits_for_more() || self.bytes > PATIENT_BYTES;
        self.mail.push_back(mail);
    }

    /// Sees to it that a worker has the box, if there is anything to do.
    fn claim<M>(&mut self) -> Posted<M> {
        if self.scheduled || !self.due {
            return Posted::Waiting;
        }
        self.scheduled = true;
        Posted::Schedule
    }
}

/// All peers. A guard never leaves, and no lock crosses an await: callers give a closure.
#[derive(Default)]
pub struct PeerDirectory {
    peers: RwLock<HashMap<NodeId, Arc<Entry>>>,
}

impl PeerDirectory {
    /// Runs `f` on the peer, alone; `None` if there is no such peer. The outer lock is dropped before the inner is taken.
    pub fn with<R>(&self, peer: &NodeId, f: impl FnOnce(&mut Peer) -> R) -> Option<R> {
        let entry = self.entry(peer)?;
        let _guard = alone();
        let mut peer = entry.peer.lock();
        if peer.is_gone() {
            return None;
        }
        let found = f(&mut peer);
        entry.is_heavy.store(peer.is_heavy(), Ordering::Relaxed);
        Some(found)
    }

    /// Whether visits to the peer take long.
    pub fn is_heavy(&self, peer: &NodeId) -> bool {
        self.entry(peer).is_some_and(|entry| entry.is_heavy.load(Ordering::Relaxed))
    }

    /// Every peer at this moment, in the order of their ids, for listings and what is rare.
    pub fn ids(&self) -> Vec<NodeId> {
        let _guard = alone();
        let mut ids: Vec<_> = self.peers.read().keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Makes sure that the peer is there.
    pub fn ensure(&self, peer: NodeId) {
        let _guard = alone();
        self.peers.write().entry(peer).or_insert_with(|| Arc::new(Entry::of(peer)));
    }

    /// Forgets the peer if it is neither connected nor has a channel nor mail.
    pub fn forget_idle(&self, peer: &NodeId) {
        let Some(entry) = self.entry(peer) else { return };
        if !close_if_idle(&entry) {
            return;
        }
        let _guard = alone();
        let mut peers = self.peers.write();
        // Closed by us alone, so whoever stands here under this name now is as old, or was made after it.
        if peers.get(peer).is_some_and(|found| Arc::ptr_eq(found, &entry)) {
            peers.remove(peer);
        }
    }

    /// Puts mail into the peer's box. Says whether a worker must be told: nobody has the box yet.
    #[must_use = "a box that nobody drains is a stuck peer"]
    pub fn post(&self, peer: &NodeId, mail: Mail) -> Posted<Box<Mail>> {
        let Some(entry) = self.entry(peer) else { return Posted::NoSuchPeer(Box::new(mail)) };
        let mut mailbox = entry.mailbox.lock();
        if mailbox.closed {
            return Posted::NoSuchPeer(Box::new(mail));
        }
        mailbox.put(mail);
        mailbox.claim()
    }

    /// The same with much mail at once: no worker sees a part of it.
    #[must_use = "a box that nobody drains is a stuck peer"]
    pub fn post_all(&self, peer: &NodeId, mail: Vec<Mail>) -> Posted<Vec<Mail>> {
        let Some(entry) = self.entry(peer) else { return Posted::NoSuchPeer(mail) };
        let mut mailbox = entry.mailbox.lock();
        if mailbox.closed {
            return Posted::NoSuchPeer(mail);
        }
        mail.into_iter().for_each(|piece| mailbox.put(piece));
        mailbox.claim()
    }

    /// The mail that waits, at most `limit` pieces. The box stays with the worker until it is given back.
    pub fn take_mail(&self, peer: &NodeId, limit: usize) -> Vec<Mail> {
        let Some(entry) = self.entry(peer) else { return Vec::new() };
        let mut mailbox = entry.mailbox.lock();
        let count = mailbox.mail.len().min(limit);
        let taken: Vec<_> = mailbox.mail.drain(..count).collect();
        mailbox.bytes = mailbox.bytes.saturating_sub(taken.iter().map(Mail::bytes).sum());
        mailbox.due = !mailbox.mail.is_empty();
        taken
    }

    /// Gives the box back if nothing in it is worth a visit. Else the caller has it still, and must see that it is drained.
    pub fn give_back(&self, peer: &NodeId) -> bool {
        let Some(entry) = self.entry(peer) else { return true };
        let mut mailbox = entry.mailbox.lock();
        mailbox.scheduled = mailbox.due;
        !mailbox.scheduled
    }

    /// Bytes of the peer's own messages that wait.
    pub fn backlog(&self, peer: &NodeId) -> usize {
        self.entry(peer).map_or(0, |entry| entry.mailbox.lock().bytes)
    }

    fn entry(&self, peer: &NodeId) -> Option<Arc<Entry>> {
        let _guard = alone();
        self.peers.read().get(peer).cloned()
    }
}

/// Ends a peer that is neither connected nor has a channel nor mail: no visit and no mail comes after.
fn close_if_idle(entry: &Entry) -> bool {
    let _guard = alone();
    let mut peer = entry.peer.lock();
    let mut mailbox = entry.mailbox.lock();
    // A box that another worker has may have been emptied for a visit yet to come.
    if peer.is_gone() || !peer.is_idle() || mailbox.scheduled || !mailbox.mail.is_empty() {
        return false;
    }
    mailbox.closed = true;
    peer.mark_gone();
    true
}

/// What became of a piece of mail.
#[derive(Debug)]
pub enum Posted<M> {
    /// A worker is at the box already, or what was put into it waits for more.
    Waiting,
    /// The caller must put the peer on the workers' queue.
    Schedule,
    /// There is no such peer; the mail comes back.
    NoSuchPeer(M),
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

    fn node(byte: u8) -> NodeId {
        let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
        NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
    }

    #[test]
    fn cst_16_a_second_peer_lock_on_one_thread_stops_the_process() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        directory.ensure(node(2));
        let nested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            directory.with(&node(1), |_| directory.with(&node(2), |_| ()));
        }));
        assert!(nested.is_err());
        assert_eq!(directory.with(&node(2), |_| 7), Some(7), "the guard is given back");
    }

    #[test]
    fn mail_keeps_its_order_and_one_worker_has_the_box() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 1 }), Posted::Schedule));
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 2 }), Posted::Waiting));
        let order: Vec<_> = directory
            .take_mail(&node(1), 10)
            .into_iter()
            .map(|mail| match mail {
                Mail::Disconnected { connection } => connection,
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(order, [1, 2]);
        assert!(directory.give_back(&node(1)));
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 3 }), Posted::Schedule));
    }

    #[test]
    fn dos_11_a_box_with_mail_left_stays_with_its_worker() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        for connection in 0..3 {
            let _ = directory.post(&node(1), Mail::Disconnected { connection });
        }
        assert_eq!(directory.take_mail(&node(1), 2).len(), 2);
        assert!(!directory.give_back(&node(1)), "one piece is left");
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 3 }), Posted::Waiting));
    }

    fn update() -> Mail {
        use outrigger_bolt::amount::FeeratePerKw;
        use outrigger_bolt::id::ChannelId;
        use outrigger_bolt::wire::{Message, UpdateFee};
        let (channel_id, feerate_per_kw) = (ChannelId([1; 32]), FeeratePerKw::FLOOR);
        let message = Box::new(Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw }));
        Mail::Message { connection: 1, message, bytes: 38 }
    }

    #[test]
    fn updates_wait_for_the_message_that_makes_them_count() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        assert!(matches!(directory.post_all(&node(1), vec![update(), update()]), Posted::Waiting), "nobody is woken");
        directory.forget_idle(&node(1));
        assert_eq!(directory.ids(), [node(1)], "a peer with mail is not forgotten");
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 1 }), Posted::Schedule));
        assert_eq!(directory.take_mail(&node(1), 10).len(), 3, "in one visit");
        let _ = directory.post(&node(1), update());
        assert!(directory.give_back(&node(1)), "an update that came meanwhile is worth no visit");
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 1 }), Posted::Schedule));
    }

    #[test]
    fn dos_1_updates_without_end_are_visited_before_the_box_is_full() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        let mut posted = 0_usize;
        while matches!(directory.post(&node(1), update()), Posted::Waiting) {
            posted += 1;
            assert!(posted < 10_000, "nobody comes");
        }
        assert!(directory.backlog(&node(1)) < crate::manager::MAILBOX_BYTES, "else the peer would never be read again");
    }

    #[test]
    fn mail_for_a_peer_that_is_being_forgotten_comes_back() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        let entry = directory.entry(&node(1)).unwrap();
        assert!(close_if_idle(&entry));
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 1 }), Posted::NoSuchPeer(_)));
        assert!(!close_if_idle(&entry), "one worker alone forgets it");
    }

    #[test]
    fn a_peer_without_reason_to_stay_is_forgotten() {
        let directory = PeerDirectory::default();
        directory.ensure(node(1));
        directory.forget_idle(&node(1));
        assert!(directory.ids().is_empty());
        assert!(matches!(directory.post(&node(1), Mail::Disconnected { connection: 1 }), Posted::NoSuchPeer(_)));
    }
}
