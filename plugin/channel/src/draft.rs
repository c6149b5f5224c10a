//! A step in the making: an overlay on the rows and the volatile part, which are read through it and never cloned whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{AnnouncementSignatures, Message};

use crate::changes::{
    ChannelChanges, ChannelHead, ChannelParams, ChannelRows, HtlcRow, MonitorStep, MonitorUpdate, Phase, Removal,
};
use crate::commitments::htlc::HtlcKey;
use crate::commitments::outlook::Outlook;
use crate::link::{Link, ProposedAdd, Volatile, VolatileChanges};
use crate::phase::shutdown::Negotiation;
use crate::transition::{ChannelNote, Effect, HtlcOutcome, Transition};

/// What a step has written so far, over what it began with.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    rows: &'a ChannelRows,
    base: &'a Volatile,
    changes: ChannelChanges,
    volatile: VolatileChanges,
    steps: Vec<MonitorStep>,
    effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(rows: &'a ChannelRows, base: &'a Volatile) -> Self {
        Self {
            rows,
            base,
            changes: ChannelChanges::default(),
            volatile: VolatileChanges::default(),
            steps: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub(crate) fn params(&self) -> &'a ChannelParams {
        &self.rows.params
    }

    pub(crate) fn channel_id(&self) -> ChannelId {
        self.rows.params.channel_id
    }

    pub(crate) fn head(&self) -> &ChannelHead {
        self.changes.head.as_ref().unwrap_or(&self.rows.head)
    }

    /// The head as this step leaves it; it is written with the step from the first call on.
    pub(crate) fn head_mut(&mut self) -> &mut ChannelHead {
        self.changes.head.get_or_insert_with(|| self.rows.head.clone())
    }

    pub(crate) fn set_phase(&mut self, phase: Phase) {
        self.head_mut().phase = phase;
    }

    pub(crate) fn htlc(&self, key: HtlcKey) -> Option<&HtlcRow> {
        match self.changes.htlcs.get(&key) {
            Some(row) => row.as_ref(),
            None => self.rows.htlcs.get(&key),
        }
    }

    /// All HTLC rows as this step leaves them, in key order.
    pub(crate) fn htlcs(&self) -> BTreeMap<HtlcKey, &HtlcRow> {
        let mut all: BTreeMap<HtlcKey, &HtlcRow> = self.rows.htlcs.iter().map(|(key, row)| (*key, row)).collect();
        for (key, row) in &self.changes.htlcs {
            match row {
                Some(row) => all.insert(*key, row),
                None => all.remove(key),
            };
        }
        all
    }

    /// Whether no HTLC is in any commitment, nor proposed.
    pub(crate) fn has_no_htlcs(&self) -> bool {
        self.htlcs().is_empty() && self.adds().is_empty()
    }

    pub(crate) fn put_htlc(&mut self, key: HtlcKey, row: HtlcRow) {
        self.changes.htlcs.insert(key, Some(row));
    }

    /// Deletes the HTLC's row, and its onion.
    pub(crate) fn remove_htlc(&mut self, key: HtlcKey) {
        self.changes.htlcs.insert(key, None);
        self.remove_onion(key);
    }

    pub(crate) fn onion(&self, key: HtlcKey) -> Option<&Arc<[u8; 1366]>> {
        match self.changes.onions.get(&key) {
            Some(onion) => onion.as_ref(),
            None => self.rows.onions.get(&key),
        }
    }

    pub(crate) fn put_onion(&mut self, key: HtlcKey, onion: Arc<[u8; 1366]>) {
        self.changes.onions.insert(key, Some(onion));
    }

    pub(crate) fn remove_onion(&mut self, key: HtlcKey) {
        if self.onion(key).is_some() {
            self.changes.onions.insert(key, None);
        }
    }

    pub(crate) fn link(&self) -> &Link {
        self.volatile.link.as_ref().unwrap_or(&self.base.link)
    }

    pub(crate) fn set_link(&mut self, link: Link) {
        self.volatile.link = Some(link);
    }

    pub(crate) fn outlook(&self) -> &Outlook {
        self.volatile.outlook.as_ref().unwrap_or(&self.base.outlook)
    }

    pub(crate) fn outlook_mut(&mut self) -> &mut Outlook {
        self.volatile.outlook.get_or_insert(self.base.outlook)
    }

    /// Where the closing negotiation stands; it begins anew on every connection (BOLT 2).
    pub(crate) fn negotiation(&self) -> &Negotiation {
        self.volatile.negotiation.as_ref().unwrap_or(&self.base.negotiation)
    }

    pub(crate) fn set_negotiation(&mut self, negotiation: Negotiation) {
        self.volatile.negotiation = Some(negotiation);
    }

    /// `announcement_signatures` of the peer that came before our own `short_channel_id` was known.
    pub(crate) fn early_announcement(&self) -> Option<&AnnouncementSignatures> {
        self.volatile.early_announcement.as_ref().or(self.base.early_announcement.as_ref())
    }

    pub(crate) fn hold_announcement(&mut self, signatures: AnnouncementSignatures) {
        self.volatile.early_announcement = Some(signatures);
    }

    /// An add that no `commitment_signed` covers yet.
    pub(crate) fn add(&self, key: HtlcKey) -> Option<&ProposedAdd> {
        match self.volatile.adds.get(&key) {
            Some(add) => add.as_ref(),
            None => self.base.adds.get(&key),
        }
    }

    /// All adds that no `commitment_signed` covers yet.
    pub(crate) fn adds(&self) -> BTreeMap<HtlcKey, &ProposedAdd> {
        overlaid(&self.base.adds, &self.volatile.adds)
    }

    pub(crate) fn put_add(&mut self, key: HtlcKey, add: ProposedAdd) {
        self.volatile.adds.insert(key, Some(add));
    }

    pub(crate) fn take_add(&mut self, key: HtlcKey) {
        self.volatile.adds.insert(key, None);
    }

    /// A removal that no `commitment_signed` covers yet.
    pub(crate) fn removal(&self, key: HtlcKey) -> Option<&Removal> {
        match self.volatile.removals.get(&key) {
            Some(removal) => removal.as_ref(),
            None => self.base.removals.get(&key),
        }
    }

    /// All removals that no `commitment_signed` covers yet.
    pub(crate) fn removals(&self) -> BTreeMap<HtlcKey, &Removal> {
        overlaid(&self.base.removals, &self.volatile.removals)
    }

    pub(crate) fn put_removal(&mut self, key: HtlcKey, removal: Removal) {
        self.volatile.removals.insert(key, Some(removal));
    }

    pub(crate) fn take_removal(&mut self, key: HtlcKey) {
        self.volatile.removals.insert(key, None);
    }

    /// Forgets all that is volatile, as a disconnect does; the link is down afterwards.
    pub(crate) fn reset_volatile(&mut self) {
        self.volatile = VolatileChanges { reset: true, ..VolatileChanges::default() };
        self.volatile.link = Some(Link::Disconnected);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.effects.push(Effect::Send(message));
    }

    /// Tells the monitor. All steps of one draft make one update.
    pub(crate) fn monitor(&mut self, step: MonitorStep) {
        self.steps.push(step);
    }

    /// Hands on what outlives this draft where a violation ends it: a preimage, once told, is proof, and so is a secret.
    pub(crate) fn salvage_into(self, other: &mut Draft<'_>) {
        let preimages = self.steps.into_iter().filter(|step| matches!(step, MonitorStep::Preimage(_)));
        other.steps.extend(preimages);
        let proves = |effect: &Effect| {
            matches!(effect, Effect::Restored { .. } | Effect::Settle { outcome: HtlcOutcome::Fulfilled(_), .. })
        };
        other.effects.extend(self.effects.into_iter().filter(proves));
    }

    /// Ends the channel by an error (BOLT 5, "Failing a Channel"). Does nothing to a channel that has failed already:
    /// the first reason stays, and so does what it says of publishing.
    pub(crate) fn fail(&mut self, reason: String, publish: bool) {
        if matches!(self.head().phase, Phase::Failed { .. } | Phase::Closed { .. }) {
            return;
        }
        self.set_phase(Phase::Failed { reason: reason.clone(), publish, reserved: false, spend: None });
        self.monitor(MonitorStep::Failed { publish });
        self.effect(Effect::Note(ChannelNote::Failed { reason }));
    }

    /// Keeps the local commitment of this number for later, where the channel has failed without publishing and keeps none yet. Not
    /// for a channel under restored mode.
    pub(crate) fn reserve(&mut self, number: u64) {
        if !self.head().phase.is_withheld() {
            return;
        }
        if let Phase::Failed { reserved, .. } = &mut self.head_mut().phase {
            *reserved = true;
        }
        self.monitor(MonitorStep::Reserved { number });
    }

    pub(crate) fn finish(mut self) -> Transition {
        let monitor = (!self.steps.is_empty()).then(|| {
            let steps = std::mem::take(&mut self.steps);
            let head = self.head_mut();
            head.monitor_update_id = head.monitor_update_id.saturating_add(1);
            MonitorUpdate { id: head.monitor_update_id, steps, htlcs: self.changes.htlcs.clone() }
        });
        Transition { changes: self.changes, volatile: self.volatile, monitor, effects: self.effects, fault: None }
    }
}

fn overlaid<'m, T>(
    base: &'m BTreeMap<HtlcKey, T>,
    overlay: &'m BTreeMap<HtlcKey, Option<T>>,
) -> BTreeMap<HtlcKey, &'m T> {
    let mut all: BTreeMap<HtlcKey, &T> = base.iter().map(|(key, value)| (*key, value)).collect();
    for (key, value) in overlay {
        match value {
            Some(value) => all.insert(*key, value),
            None => all.remove(key),
        };
    }
    all
}
