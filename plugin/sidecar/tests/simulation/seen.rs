//! What others have seen of a node: the log of its peers, and what readers of its events were told. Whatever a crash
//! leaves, each start must know as much.

use std::collections::BTreeMap;

use outrigger_bolt::id::ChannelId;
use outrigger_channel::{HtlcKey, Offerer};
use outrigger_sidecar::store::row::{EventRow, SettlementRow};
use redb::Database;

use super::ledger::Outcome;
use super::node::Node;
use super::rows;

/// What left, by the node that it left.
#[derive(Clone, Default)]
pub struct Seen {
    /// The newest commitment of the peer that was signed.
    pub signed: BTreeMap<(usize, ChannelId), u64>,
    /// The newest own commitment whose secret was told.
    pub revoked: BTreeMap<(usize, ChannelId), u64>,
    /// The answer to a received HTLC.
    pub answered: BTreeMap<(usize, ChannelId, u64), Outcome>,
    /// `shutdown`: no HTLC is offered after it (BOLT 2, "Closing Initiation").
    pub shut_down: Vec<(usize, ChannelId)>,
    /// Channels whose funding transaction may be published.
    pub funded: Vec<(usize, ChannelId)>,
    /// Events, as `event.list` gave them.
    events: BTreeMap<usize, Vec<(u64, EventRow)>>,
}

impl Seen {
    /// Readers are told of new events.
    pub fn events_are_told(&mut self, node: &Node) {
        let core = &node.live().core;
        let newest = node.live().newest_event();
        let known = self.events.entry(node.number).or_default();
        let last = known.last().map_or(0, |(seq, _)| *seq);
        if last < newest {
            let (events, _) = core.reader.events(last, &[], usize::MAX).unwrap();
            known.extend(events.into_iter().filter(|(seq, _)| *seq <= newest));
        }
    }

    /// What a start found is at least what was seen. Channels that were never funded are forgotten.
    pub fn held_against(&self, node: &Node, is_had: impl Fn(&ChannelId) -> bool) {
        self.rows_held_against(node, is_had);
        self.events_are_kept(node);
    }

    /// The rows of channels that a start found are at least what was seen.
    pub fn rows_held_against(&self, node: &Node, is_had: impl Fn(&ChannelId) -> bool) {
        let (number, db) = (node.number, &node.live().db);
        let is_of = |of: &usize, channel: &ChannelId| *of == number && is_had(channel);
        for ((of, channel), signed) in self.signed.iter().filter(|((of, channel), _)| is_of(of, channel)) {
            let Some(head) = head_unless_closed(db, channel) else { continue };
            let known = head.remote_number;
            assert!(known >= *signed, "node {of} has signed commitment {signed} of {channel} and knows of {known}");
        }
        for ((of, channel), revoked) in self.revoked.iter().filter(|((of, channel), _)| is_of(of, channel)) {
            let Some(head) = head_unless_closed(db, channel) else { continue };
            let monitor = rows::monitor_head(db, channel).expect("a channel has a monitor");
            let newest = head.local_number.min(monitor.local.number);
            assert!(newest > *revoked, "node {of} has revoked commitment {revoked} of {channel} and holds {newest}");
        }
        for ((of, channel, htlc_id), outcome) in self.answered.iter().filter(|((of, channel, _), _)| is_of(of, channel))
        {
            let received = HtlcKey { offerer: Offerer::Remote, id: *htlc_id };
            if rows::htlc(db, channel, received).is_none() {
                continue;
            }
            let decision = node.live().core.reader.settlement(channel, *htlc_id).unwrap();
            let known = match &decision {
                None => None,
                Some(SettlementRow::Fulfil(_) | SettlementRow::FulfilledDownstream(..)) => Some(Outcome::Fulfilled),
                Some(SettlementRow::Fail(_) | SettlementRow::FailedDownstream(..)) => Some(Outcome::Failed),
            };
            assert_eq!(known, Some(*outcome), "node {of} has answered HTLC {htlc_id} of {channel}");
        }
        for (of, channel) in self.shut_down.iter().filter(|(of, channel)| is_of(of, channel)) {
            let Some(head) = head_unless_closed(db, channel) else { continue };
            assert!(head.local_shutdown.is_some(), "node {of} has shut {channel} down and does not know it");
        }
        for (of, channel) in self.funded.iter().filter(|(of, channel)| is_of(of, channel)) {
            let is_known = rows::head(db, channel).is_some() || rows::is_closed(db, channel);
            assert!(is_known, "node {of} has signed for the funding of {channel} and does not know it");
        }
    }

    /// Whether the rows of a start know less of some channel than was seen, or do not know it.
    pub fn is_behind(&self, node: &Node) -> bool {
        let own = self.signed.iter().filter(|((of, _), _)| *of == node.number);
        let mut known = own.map(|((_, channel), signed)| (rows::head(&node.live().db, channel), *signed));
        known.any(|(head, signed)| head.is_none_or(|head| head.remote_number < signed))
    }

    /// Nothing that was seen of a node counts any more: an older disk was put into the place of its own.
    pub fn forget(&mut self, node: usize) {
        let Self { signed, revoked, answered, shut_down, funded, events } = self;
        signed.retain(|(of, _), _| *of != node);
        revoked.retain(|(of, _), _| *of != node);
        answered.retain(|(of, ..), _| *of != node);
        shut_down.retain(|(of, _)| *of != node);
        funded.retain(|(of, _)| *of != node);
        events.remove(&node);
    }

    /// What was told is there, under the same number.
    fn events_are_kept(&self, node: &Node) {
        let told = self.events.get(&node.number).map_or(&[][..], Vec::as_slice);
        let (kept, _) = node.live().core.reader.events(0, &[], usize::MAX).unwrap();
        let same = kept.iter().zip(told).all(|(kept, told)| kept == told);
        assert!(same && kept.len() >= told.len(), "node {}: {told:?} was told and {kept:?} is left", node.number);
    }

    /// Each event is there once: no two that say the same, and each that the rows call for.
    pub fn events_once(&self, node: &Node) {
        let (events, _) = node.live().core.reader.events(0, &[], usize::MAX).unwrap();
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        for (seq, event) in &events {
            let words = format!("{} {}", event.kind, event.fields);
            let before = known.insert(words.clone(), *seq);
            assert_eq!(before, None, "node {} tells twice: {words}", node.number);
        }
        for (at, (seq, _)) in events.iter().enumerate() {
            assert_eq!(*seq, at as u64 + 1, "node {}: a number is missing", node.number);
        }
    }

    /// How many events of this kind a node has in which this word stands.
    pub fn count(node: &Node, kind: &str, word: &str) -> usize {
        let (events, _) = node.live().core.reader.events(0, &[kind.to_owned()], usize::MAX).unwrap();
        events.iter().filter(|(_, event)| event.fields.to_string().contains(word)).count()
    }
}

/// The head of a channel that must have rows, or nothing once it is in history.
fn head_unless_closed(db: &Database, channel: &ChannelId) -> Option<outrigger_channel::ChannelHead> {
    let head = rows::head(db, channel);
    assert!(head.is_some() || rows::is_closed(db, channel), "channel {channel} was lost");
    head
}
