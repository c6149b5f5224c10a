//! The connection and what goes with it: proposals that no `commitment_signed` covers, and `channel_reestablish`.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_bolt::features::Features;
use outrigger_bolt::wire::{AnnouncementSignatures, ChannelReestablish, Message, PerCommitmentSecret};

use crate::changes::{ChannelHead, ChannelRows, HtlcRow, LastSent, Phase, Removal};
use crate::commitments::htlc::HtlcKey;
use crate::commitments::outlook::Outlook;
use crate::commitments::{receive, send};
use crate::draft::Draft;
use crate::input::Context;
use crate::phase::shutdown::Negotiation;
use crate::phase::{ended, funding, restored, shutdown};
use crate::transition::{Effect, HtlcOutcome};
use crate::violation::{Rule, Violation};

/// How far the peer can be talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Disconnected,
    /// Our `channel_reestablish` is out, the peer's is due: nothing else may be sent or accepted (BOLT 2).
    Reestablishing(Features),
    /// In step with the peer. The features are those that both sides offered.
    Connected(Features),
}

impl Link {
    /// What both sides offered in `init`, while connected.
    pub fn features(&self) -> Option<&Features> {
        match self {
            Self::Disconnected => None,
            Self::Reestablishing(features) | Self::Connected(features) => Some(features),
        }
    }
}

/// An `update_add_htlc` that no `commitment_signed` covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProposedAdd {
    pub(crate) row: HtlcRow,
    pub(crate) onion: Arc<[u8; 1366]>,
}

/// All that a disconnect or a crash takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volatile {
    pub(crate) link: Link,
    pub(crate) adds: BTreeMap<HtlcKey, ProposedAdd>,
    pub(crate) removals: BTreeMap<HtlcKey, Removal>,
    pub(crate) outlook: Outlook,
    pub(crate) negotiation: Negotiation,
    /// The peer's, held until we know our own `short_channel_id`. It comes again on the next connection (BOLT 7).
    pub(crate) early_announcement: Option<AnnouncementSignatures>,
}

/// What a step changes of it. `reset` comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolatileChanges {
    pub(crate) reset: bool,
    pub(crate) link: Option<Link>,
    pub(crate) adds: BTreeMap<HtlcKey, Option<ProposedAdd>>,
    pub(crate) removals: BTreeMap<HtlcKey, Option<Removal>>,
    pub(crate) outlook: Option<Outlook>,
    pub(crate) negotiation: Option<Negotiation>,
    pub(crate) early_announcement: Option<AnnouncementSignatures>,
}

impl Volatile {
    /// The volatile part of a channel that was just loaded.
    pub(crate) fn at_rest(rows: &ChannelRows) -> Self {
        Self {
            link: Link::Disconnected,
            adds: BTreeMap::new(),
            removals: BTreeMap::new(),
            outlook: Outlook::of_rows(rows),
            negotiation: Negotiation::default(),
            early_announcement: None,
        }
    }

    /// Takes a step's changes in. `rows` are those after the step.
    pub(crate) fn settle(&mut self, changes: VolatileChanges, rows: &ChannelRows) {
        if changes.reset {
            *self = Self::at_rest(rows);
        }
        if let Some(link) = changes.link {
            self.link = link;
        }
        if let Some(outlook) = changes.outlook {
            self.outlook = outlook;
        }
        if let Some(negotiation) = changes.negotiation {
            self.negotiation = negotiation;
        }
        if let Some(signatures) = changes.early_announcement {
            self.early_announcement = Some(signatures);
        }
        overlay(&mut self.adds, changes.adds);
        overlay(&mut self.removals, changes.removals);
    }
}

fn overlay<T>(base: &mut BTreeMap<HtlcKey, T>, changes: BTreeMap<HtlcKey, Option<T>>) {
    for (key, value) in changes {
        match value {
            Some(value) => base.insert(key, value),
            None => base.remove(&key),
        };
    }
}

/// A new connection: whatever the last one left is rolled back, and the peer is told where we stand.
pub(crate) fn on_connected(draft: &mut Draft<'_>, features: &Features, cx: &Context<'_>) {
    on_disconnected(draft);
    match draft.head().phase {
        Phase::Failed { .. } => {
            // Our numbers first: a peer that has lost data finds its proof in them, and by the `error` alone would publish what it
            // has revoked (BAK-1). And where we have fallen behind only the peer can end the channel: some peers do so for old
            // numbers alone, not for an error.
            let reestablish = own_reestablish(draft, cx);
            draft.send(Message::ChannelReestablish(reestablish));
            ended::send_reason(draft);
        }
        Phase::Closed { .. } => {}
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } | Phase::Closing { .. } => {
            draft.set_link(Link::Reestablishing(features.clone()));
            let reestablish = own_reestablish(draft, cx);
            draft.send(Message::ChannelReestablish(reestablish));
        }
    }
}

/// The connection is gone, and with it every update that no `commitment_signed` covers, on both sides (BOLT 2; CST-4).
pub(crate) fn on_disconnected(draft: &mut Draft<'_>) {
    if matches!(draft.link(), Link::Disconnected) {
        return;
    }
    let never_committed = |(key, add): (HtlcKey, &ProposedAdd)| {
        let source = add.row.source?;
        let (amount, payment_hash) = (add.row.amount, add.row.payment_hash);
        let outcome = HtlcOutcome::NeverCommitted;
        Some(Effect::Settle { htlc_id: key.id, source, amount, payment_hash, outcome })
    };
    let effects: Vec<Effect> = draft.adds().into_iter().filter_map(never_committed).collect();
    draft.reset_volatile();
    for effect in effects {
        draft.effect(effect);
    }
}

pub(crate) fn own_reestablish(draft: &Draft<'_>, cx: &Context<'_>) -> ChannelReestablish {
    let head = draft.head();
    ChannelReestablish {
        channel_id: draft.channel_id(),
        next_commitment_number: head.local_number.saturating_add(1),
        next_revocation_number: next_revocation_number(head),
        your_last_per_commitment_secret: PerCommitmentSecret(head.last_remote_secret.unwrap_or([0; 32])),
        my_current_per_commitment_point: cx.signer.per_commitment_point(head.local_number),
    }
}

/// The number of the remote commitment that the peer revokes next.
fn next_revocation_number(head: &ChannelHead) -> u64 {
    head.remote_number.saturating_sub(u64::from(head.awaiting_revocation()))
}

/// The peer tells where it stands. What it missed is sent again, in the order in which it went out.
pub(crate) fn on_reestablish(
    draft: &mut Draft<'_>,
    message: &ChannelReestablish,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    // Proof that we are the ones who lost data comes before everything else (CST-1).
    if let Some(proof) = proof_of_loss(draft.head(), message, cx) {
        restored::proved(draft, proof);
        return Err(Violation::Fail(Rule::FallenBehind));
    }
    let lost = compare(draft.head(), message, cx)?;
    if let Link::Reestablishing(features) = draft.link() {
        let features = features.clone();
        draft.set_link(Link::Connected(features));
        shutdown::on_reestablished(draft);
    }
    let head = draft.head();
    let both_at_start = message.next_commitment_number == 1 && head.local_number == 0;
    if both_at_start && head.channel_ready_sent {
        funding::send_channel_ready(draft, cx);
    }
    resend(draft, lost, cx)?;
    match draft.head().phase {
        Phase::ShuttingDown { .. } | Phase::Closing { .. } => shutdown::on_connected_closing(draft, cx),
        Phase::Funding(_) | Phase::Normal | Phase::Closed { .. } | Phase::Failed { .. } => Ok(()),
    }
}

/// What the peer never received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lost {
    commitment: bool,
    revocation: bool,
}

/// Holds the peer's numbers and secret against ours (BOLT 2, "Message Retransmission").
fn compare(head: &ChannelHead, message: &ChannelReestablish, cx: &Context<'_>) -> Result<Lost, Violation> {
    let next_revocation = message.next_revocation_number;
    if message.next_commitment_number == 0 {
        return Err(Violation::Fail(Rule::ZeroCommitmentNumber));
    }
    let expected = head.remote_number.saturating_add(1);
    let commitment = message.next_commitment_number == head.remote_number && head.awaiting_revocation();
    if !commitment && message.next_commitment_number != expected {
        let found = message.next_commitment_number;
        return Err(Violation::Fail(Rule::CommitmentNumber { expected, found }));
    }
    let revocation = next_revocation.checked_add(1) == Some(head.local_number);
    if !revocation && next_revocation != head.local_number {
        return Err(Violation::Fail(Rule::RevocationNumber { expected: head.local_number, found: next_revocation }));
    }
    if !last_secret_is_ours(message, cx) {
        return Err(Violation::Fail(Rule::LastSecret));
    }
    Ok(Lost { commitment, revocation })
}

/// What the peer proves where it knows a secret of ours that our rows say was never told: that they are old. A number
/// alone proves nothing (BAK-2 holds the other way round too: the right numbers do not prove that we are current).
pub(crate) fn proof_of_loss(head: &ChannelHead, message: &ChannelReestablish, cx: &Context<'_>) -> Option<String> {
    let (theirs, ours) = (message.next_revocation_number, head.local_number);
    let ahead = theirs > ours && last_secret_is_ours(message, cx);
    ahead.then(|| {
        let channel_id = message.channel_id;
        format!("the peer of channel {channel_id} knows the secret before commitment {theirs}; this file is at {ours}")
    })
}

/// Whether `your_last_per_commitment_secret` is the one that revokes our commitment before `next_revocation_number`,
/// or all zero where that is 0. Told by its point: our secrets stay where they are.
fn last_secret_is_ours(message: &ChannelReestablish, cx: &Context<'_>) -> bool {
    /// Commitment numbers have 48 bits (BOLT 3).
    const NUMBERS: u64 = 1 << 48;
    let secret = &message.your_last_per_commitment_secret.0;
    match message.next_revocation_number.checked_sub(1) {
        None => *secret == [0; 32],
        Some(number) => number < NUMBERS && receive::answers_to(secret, &cx.signer.per_commitment_point(number)),
    }
}

/// BOLT 2: what went out first goes out first again.
fn resend(draft: &mut Draft<'_>, lost: Lost, cx: &Context<'_>) -> Result<(), Violation> {
    let head = draft.head();
    let commitment_first = head.last_sent == LastSent::Revocation;
    let revoked = head.local_number.saturating_sub(1);
    if lost.commitment && commitment_first {
        send::resend_commitment(draft, cx)?;
    }
    if lost.revocation {
        draft.effect(Effect::Revoke { number: revoked });
    }
    if lost.commitment && !commitment_first {
        send::resend_commitment(draft, cx)?;
    }
    Ok(())
}
