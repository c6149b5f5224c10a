//! What has been said on the wires, held against what stands on the disks: the invariants, looked at all along.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, SignOnly};
use bitcoin::{Amount, OutPoint, Txid};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, PaymentHash, PaymentPreimage};
use outrigger_bolt::wire::{CommitmentSigned, Message, RevokeAndAck, UpdateAddHtlc};
use outrigger_channel::{ChannelHead, HtlcKey, HtlcSource, Offerer, Phase, Totals};
use outrigger_sidecar::store::backup::Image;
use outrigger_sidecar::store::row::SettlementRow;

use super::backup::{head_in, settlement_in};
use super::node::Node;
use super::rows;
use super::seen::Seen;
use super::signer::Journal;

/// An HTLC: its channel, the node that offered it, its id.
pub type Name = (ChannelId, usize, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Fulfilled,
    Failed,
}

#[derive(Clone, Debug)]
pub struct Htlc {
    pub amount: Msat,
    pub hash: PaymentHash,
    pub to: usize,
    /// A row of its offerer says that it is signed: nothing else will have its name.
    pub is_signed: bool,
    /// As its receiver has told it.
    pub outcome: Option<Outcome>,
}

/// What a channel began with.
#[derive(Clone, Debug)]
pub struct Founded {
    pub nodes: [usize; 2],
    pub balances: [Msat; 2],
    pub funding: OutPoint,
    /// One of its nodes alone has had rows of it so far.
    pub is_untouched: bool,
}

#[derive(Clone)]
pub struct Ledger {
    pub htlcs: BTreeMap<Name, Htlc>,
    pub channels: BTreeMap<ChannelId, Founded>,
    /// Channels that their opener has forgotten before it signed the funding transaction: they end, and nothing was in them.
    pub never_funded: BTreeSet<ChannelId>,
    /// Channels that their operators have ended alone, or that a backup refused.
    pub ended_alone: BTreeSet<ChannelId>,
    /// Nodes in restored mode: all of their channels are closed by the peers.
    pub old: BTreeSet<usize>,
    /// Channels that a backup refused to a node.
    pub refused: BTreeSet<(usize, ChannelId)>,
    /// Who published a commitment.
    pub published: BTreeMap<Txid, usize>,
    /// What each node may take from the chain by itself, with its value.
    pub claimed: BTreeMap<(usize, OutPoint), Amount>,
    /// What left each node, for a start to be held against.
    pub seen: Seen,
    /// What was offered for what was received, both ways.
    pub downstream: HashMap<Name, Name>,
    pub upstream: HashMap<Name, Name>,
    /// Preimages that reached a node.
    pub told: HashSet<(usize, PaymentHash)>,
    /// The signature that went out for a commitment, by its per-commitment point.
    signatures: HashMap<PublicKey, Signature>,
    /// What was offered, and the onion of each HTLC.
    pub adds: Vec<(usize, UpdateAddHtlc)>,
    onions: HashMap<Name, Box<[u8; 1366]>>,
    /// The received HTLC for which a node has relayed an onion.
    processed: HashMap<(usize, Box<[u8; 1366]>), Name>,
    /// The head of each channel when it was last looked at.
    looked_at: HashMap<(usize, ChannelId), Vec<u8>>,
    secp: Secp256k1<SignOnly>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            htlcs: BTreeMap::new(),
            channels: BTreeMap::new(),
            never_funded: BTreeSet::new(),
            ended_alone: BTreeSet::new(),
            old: BTreeSet::new(),
            refused: BTreeSet::new(),
            published: BTreeMap::new(),
            claimed: BTreeMap::new(),
            seen: Seen::default(),
            downstream: HashMap::new(),
            upstream: HashMap::new(),
            told: HashSet::new(),
            signatures: HashMap::new(),
            adds: Vec::new(),
            onions: HashMap::new(),
            processed: HashMap::new(),
            looked_at: HashMap::new(),
            secp: Secp256k1::signing_only(),
        }
    }

    /// How many HTLCs were offered for received ones.
    pub fn relayed(&self) -> u64 {
        self.downstream.len() as u64
    }

    /// A message leaves a node. What it promises must be on the node's disk.
    pub fn sent(&mut self, from: &Node, to: usize, message: &Message, journal: &mut Journal) {
        assert!(!from.is_old || !binds(message), "node {} has old rows and sends {}", from.number, message.name());
        match message {
            Message::UpdateAddHtlc(add) => {
                self.onions.insert((add.channel_id, from.number, add.id), add.onion_routing_packet.clone());
                self.adds.push((from.number, add.clone()));
                let htlc =
                    Htlc { amount: add.amount_msat, hash: add.payment_hash, to, is_signed: false, outcome: None };
                self.added((add.channel_id, from.number, add.id), htlc);
            }
            Message::UpdateFulfillHtlc(told) => {
                self.fulfils(from, (told.channel_id, to, told.id), told.payment_preimage);
            }
            Message::UpdateFailHtlc(told) => self.fails(from, (told.channel_id, to, told.id)),
            Message::UpdateFailMalformedHtlc(told) => self.fails(from, (told.channel_id, to, told.id)),
            Message::CommitmentSigned(signed) => self.signs(from, signed, journal),
            Message::RevokeAndAck(revoked) => self.revokes(from, revoked, journal),
            Message::Error(error) => self.fails_channel(from, &error.channel_id, &error.data.to_string()),
            Message::Shutdown(shutdown) => self.seen.shut_down.push((from.number, shutdown.channel_id)),
            Message::FundingSigned(signed) => self.seen.funded.push((from.number, signed.channel_id)),
            Message::Warning(warning) => panic!("node {} warns node {to}: {}", from.number, warning.data),
            _ => {}
        }
    }

    /// Only what was never opened is refused: an opening, or a channel whose opener died before its rows were durable.
    fn fails_channel(&mut self, by: &Node, channel: &ChannelId, words: &str) {
        let Some(founded) = self.channels.get(channel) else { return };
        let forgotten = rows::head(&by.live().db, channel).is_none();
        let is_new = founded.is_untouched && forgotten;
        if !is_new && self.ends_alone(channel) {
            return;
        }
        assert!(is_new || self.never_funded.contains(channel), "node {} fails channel {channel}: {words}", by.number);
        self.never_funded.insert(*channel);
    }

    /// Whether a channel may end by what one side does: its operator, a backup, or a node in restored mode.
    pub fn ends_alone(&self, channel: &ChannelId) -> bool {
        let is_of_old = |founded: &Founded| founded.nodes.iter().any(|node| self.old.contains(node));
        self.ended_alone.contains(channel) || self.channels.get(channel).is_some_and(is_of_old)
    }

    /// Channels that were funded, as far as anybody knows.
    pub fn funded(&self) -> impl Iterator<Item = (&ChannelId, &Founded)> {
        self.channels.iter().filter(|(channel, _)| !self.never_funded.contains(channel))
    }

    /// A message reaches a node.
    pub fn arrives(&mut self, at: usize, message: &Message) {
        if let Message::UpdateFulfillHtlc(told) = message {
            self.told.insert((at, told.payment_preimage.payment_hash()));
        }
    }

    fn added(&mut self, name: Name, htlc: Htlc) {
        match self.htlcs.get_mut(&name).filter(|known| known.is_signed) {
            Some(known) => {
                let same = known.amount == htlc.amount && known.hash == htlc.hash;
                assert!(same, "HTLC {name:?} was {known:?} and is {htlc:?}");
            }
            None => drop(self.htlcs.insert(name, htlc)),
        }
    }

    fn fulfils(&mut self, by: &Node, name: Name, preimage: PaymentPreimage) {
        let (number, live) = (by.number, by.live());
        let known = self.htlcs.get_mut(&name).unwrap_or_else(|| panic!("node {number} fulfils no HTLC: {name:?}"));
        let hash = preimage.payment_hash();
        assert_eq!(hash, known.hash, "node {number} fulfils {name:?} with another preimage");
        let invoice = live.core.reader.invoice(&hash).unwrap();
        match invoice {
            Some(invoice) => {
                let paid = invoice.paid.unwrap_or_else(|| panic!("node {number} tells a preimage before it is paid"));
                assert!(known.amount <= paid.amount, "node {number} tells its preimage for another HTLC");
            }
            None => {
                assert!(self.told.contains(&(number, hash)), "node {number} tells a preimage that nobody told it");
                assert!(
                    self.downstream.contains_key(&name),
                    "node {number} tells the preimage of an HTLC it did not relay"
                );
            }
        }
        let decision = live.core.reader.settlement(&name.0, name.2).unwrap();
        match decision {
            Some(SettlementRow::Fulfil(known)) => assert_eq!(known, preimage),
            Some(SettlementRow::FulfilledDownstream(known, over)) => {
                let down = (over.channel, number, over.htlc_id);
                assert_eq!((known, self.downstream.get(&name)), (preimage, Some(&down)));
            }
            other => panic!("node {number} fulfils {name:?} and its disk says {other:?}"),
        }
        assert_ne!(known.outcome, Some(Outcome::Failed), "node {number} fulfils {name:?} after it failed it");
        known.outcome = Some(Outcome::Fulfilled);
        self.seen.answered.insert((number, name.0, name.2), Outcome::Fulfilled);
    }

    fn fails(&mut self, by: &Node, name: Name) {
        let (number, live) = (by.number, by.live());
        let known = self.htlcs.get(&name).unwrap_or_else(|| panic!("node {number} fails no HTLC: {name:?}"));
        assert_ne!(known.outcome, Some(Outcome::Fulfilled), "node {number} fails {name:?} after it fulfilled it");
        let decision = live.core.reader.settlement(&name.0, name.2).unwrap();
        assert!(
            matches!(decision, Some(SettlementRow::Fail(_) | SettlementRow::FailedDownstream(..))),
            "node {number} fails {name:?} and its disk says {decision:?}"
        );
        match self.downstream.get(&name) {
            // Where the channel ended alone the chain ends the HTLC: a commitment without it is buried, and its row stays.
            Some(down) if self.ends_alone(&down.0) => {
                let outcome = self.htlcs[down].outcome;
                assert_ne!(outcome, Some(Outcome::Fulfilled), "node {number} fails {name:?}, {down:?} was paid");
            }
            Some(down) => {
                let (outcome, offered) = (self.htlcs[down].outcome, HtlcKey { offerer: Offerer::Local, id: down.2 });
                assert_eq!(outcome, Some(Outcome::Failed), "node {number} fails {name:?}, {down:?} did not");
                let row = rows::htlc(&live.db, &down.0, offered);
                assert_eq!(row, None, "node {number} fails {name:?} while {down:?} may still be claimed");
            }
            None => {}
        }
        let is_decided = |image: &Image| settlement_in(image, name.2).is_some_and(|row| !row.is_fulfilled());
        assert_backed(by, &name.0, is_decided, "a failure");
        if let Some(known) = self.htlcs.get_mut(&name) {
            known.outcome = Some(Outcome::Failed);
        }
        self.seen.answered.insert((number, name.0, name.2), Outcome::Failed);
    }

    /// One commitment of the peer, one signature, for ever; and the node knows that it has signed.
    fn signs(&mut self, by: &Node, signed: &CommitmentSigned, journal: &Journal) {
        let number = by.number;
        let point = journal.signed[&signed.signature];
        let whose = journal.points[&point];
        let first = *self.signatures.entry(point).or_insert(signed.signature);
        assert_eq!(first, signed.signature, "node {number} signs two commitments for {whose:?}");
        let head = rows::head(&by.live().db, &signed.channel_id).expect("a channel that signs has rows");
        assert!(head.remote_number >= whose.number, "node {number} signs for {whose:?} and forgets it in a crash");
        let stands = |head: ChannelHead| head.remote_number >= whose.number;
        assert_backed(by, &signed.channel_id, |image| head_in(image).is_some_and(stands), "a signature");
        let newest = self.seen.signed.entry((number, signed.channel_id)).or_default();
        *newest = whose.number.max(*newest);
    }

    /// A secret leaves: the commitment that takes the place of the revoked one is on the disk, channel's and monitor's.
    fn revokes(&mut self, by: &Node, revoked: &RevokeAndAck, journal: &mut Journal) {
        let secret = SecretKey::from_slice(&revoked.per_commitment_secret.0).expect("a secret");
        let point = PublicKey::from_secret_key(&self.secp, &secret);
        let whose = journal.points[&point];
        assert_eq!(whose.node, by.number, "a node revokes what is not its own");
        let db = &by.live().db;
        let head = rows::head(db, &revoked.channel_id).expect("a channel that revokes has rows");
        let monitor = rows::monitor_head(db, &revoked.channel_id).expect("a channel has a monitor");
        let newest = head.local_number.min(monitor.local.number);
        assert!(newest > whose.number, "the secret of {whose:?} is out while the disk holds commitment {newest}");
        let stands = |head: ChannelHead| head.local_number > whose.number;
        assert_backed(by, &revoked.channel_id, |image| head_in(image).is_some_and(stands), "a secret");
        journal.reveals(point, whose);
        let newest = self.seen.revoked.entry((by.number, revoked.channel_id)).or_default();
        *newest = whose.number.max(*newest);
    }

    /// A node has made a commit: what stands on its disk now.
    pub fn committed(&mut self, node: &Node, peer_of: impl Fn(&ChannelId) -> Option<usize>) {
        let db = &node.live().db;
        let looked_at = &mut self.looked_at;
        let mut is_new = |channel, row: &[u8]| {
            let before = looked_at.entry((node.number, channel)).or_default();
            let is_new = before.as_slice() != row;
            if is_new {
                *before = row.to_vec();
            }
            is_new
        };
        for (channel, head) in rows::heads(db, &mut is_new) {
            if let Phase::Failed { reason, .. } = &head.phase
                && !self.never_funded.contains(&channel)
                && !self.ends_alone(&channel)
                // A channel may be made and fail in one commit.
                && !self.old.contains(&node.number)
            {
                panic!("node {} has failed channel {channel}: {reason:?}", node.number);
            }
            let Some(peer) = peer_of(&channel) else { continue };
            let founded = self.channels.entry(channel).or_insert_with(|| Founded {
                nodes: [node.number, peer],
                balances: [head.local_commitment.to_local, head.local_commitment.to_remote],
                funding: rows::params(db, &channel).expect("a channel with a head").funding,
                is_untouched: true,
            });
            founded.is_untouched &= founded.nodes[0] == node.number;
            let capacity = founded.balances[0].checked_add(founded.balances[1]).unwrap();
            for totals in [&head.local_commitment, &head.remote_commitment] {
                assert_eq!(sum(totals), capacity, "node {}: money of {channel}: {totals:?}", node.number);
            }
        }
        for (channel, key, row) in rows::htlcs(db).into_iter().filter(|(_, key, _)| key.offerer == Offerer::Local) {
            let to = self.other_of(&channel, node.number);
            let htlc = Htlc { amount: row.amount, hash: row.payment_hash, to, is_signed: true, outcome: None };
            let name = (channel, node.number, key.id);
            self.added(name, htlc);
            let Some(HtlcSource::Relayed { channel: from, htlc_id }) = row.source else { continue };
            let up = (from, self.other_of(&from, node.number), htlc_id);
            self.link(node.number, up, name, row.amount);
        }
    }

    fn link(&mut self, node: usize, up: Name, down: Name, amount: Msat) {
        let before = self.downstream.insert(up, down);
        assert!(before.is_none_or(|before| before == down), "node {node} relays {up:?} twice: {before:?} and {down:?}");
        let before = self.upstream.insert(down, up);
        assert!(before.is_none_or(|before| before == up), "node {node} relays {before:?} and {up:?} as {down:?}");
        let onion = self.onions[&up].clone();
        let first = *self.processed.entry((node, onion)).or_insert(up);
        assert_eq!(first, up, "node {node} relays one onion twice");
        let brings = self.htlcs[&up].amount;
        assert!(brings >= amount, "node {node} relays {amount} of {brings}");
    }

    pub fn other_of(&self, channel: &ChannelId, node: usize) -> usize {
        let founded = &self.channels[channel];
        if founded.nodes[0] == node { founded.nodes[1] } else { founded.nodes[0] }
    }

    /// What went out and in of a node for a hash, to the msat.
    pub fn flow(&self, node: usize, hash: &PaymentHash) -> (u64, u64) {
        let done = self.htlcs.iter().filter(|(_, htlc)| htlc.hash == *hash && htlc.outcome == Some(Outcome::Fulfilled));
        let (mut out, mut into) = (0, 0);
        for ((_, from, _), htlc) in done {
            out += if *from == node { htlc.amount.get() } else { 0 };
            into += if htlc.to == node { htlc.amount.get() } else { 0 };
        }
        (out, into)
    }

    /// Whether the node had the preimage for its money, from another HTLC than this.
    pub fn was_paid_for(&self, node: usize, hash: &PaymentHash, but: &Name) -> bool {
        self.htlcs.iter().any(|(name, htlc)| {
            name.1 == node && name != but && htlc.hash == *hash && htlc.outcome == Some(Outcome::Fulfilled)
        })
    }

    /// What the HTLCs that were fulfilled leave each side of a channel, in msat.
    pub fn balances(&self, channel: &ChannelId, founded: &Founded) -> [i128; 2] {
        let mut expected = founded.balances.map(|balance| i128::from(balance.get()));
        for ((_, from, _), htlc) in self.htlcs.iter().filter(|((of, ..), _)| of == channel) {
            if htlc.outcome == Some(Outcome::Fulfilled) {
                let payer = usize::from(founded.nodes[0] != *from);
                expected[payer] -= i128::from(htlc.amount.get());
                expected[1 - payer] += i128::from(htlc.amount.get());
            }
        }
        expected
    }
}

/// Whether a message binds its sender to the newest state of a channel: none does that a node with old rows may send.
fn binds(message: &Message) -> bool {
    matches!(
        message,
        Message::CommitmentSigned(_)
            | Message::RevokeAndAck(_)
            | Message::FundingCreated(_)
            | Message::FundingSigned(_)
            | Message::UpdateAddHtlc(_)
            | Message::ClosingSigned(_)
            | Message::ClosingComplete(_)
            | Message::ClosingSig(_)
    )
}

/// What a promise stands on is in the required backups of who makes it, but for those that lie.
fn assert_backed(by: &Node, channel: &ChannelId, holds: impl Fn(&Image) -> bool, what: &str) {
    for backup in by.backups.iter().filter(|backup| backup.is_relied_on()) {
        let (number, name) = (by.number, backup.name());
        assert!(
            backup.has(channel, &holds),
            "node {number} tells {what} of {channel} before backup {name} has its rows"
        );
    }
}

fn sum(totals: &Totals) -> Msat {
    let values = [totals.to_local, totals.to_remote, totals.offered_by_local.value, totals.offered_by_remote.value];
    values.into_iter().fold(Msat::ZERO, |sum, value| sum.checked_add(value).unwrap())
}
