//! What we send: updates, `commitment_signed`, and both again after a reconnection (BOLT 2, "Normal Operation").

use std::sync::Arc;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, PaymentHash, PaymentPreimage};
use outrigger_bolt::wire::{
    CommitmentSigned, Message, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee, UpdateFulfillHtlc,
};

use super::fee::cost_cap;
use super::htlc::{HtlcKey, HtlcState, Move, Offerer, Side, Stage};
use super::outlook::Outlook;
use super::spec::CommitmentSpec;
use crate::changes::{ChannelParams, HtlcRow, LastSent, MonitorStep, RemoteCommitment, Removal};
use crate::draft::Draft;
use crate::input::{Context, FailReason, Policy};
use crate::link::{self, ProposedAdd};
use crate::transition::{Effect, HtlcSource, Reply};
use crate::violation::{Refusal, Violation};

/// Expiries from here on would be times (BOLT 2, `update_add_htlc`).
pub(crate) const FIRST_TIME_EXPIRY: u32 = 500_000_000;

/// An HTLC that we want to offer.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) amount: Msat,
    pub(crate) payment_hash: PaymentHash,
    pub(crate) cltv_expiry: u32,
    pub(crate) onion: Box<[u8; 1366]>,
    pub(crate) source: HtlcSource,
}

/// Offers an HTLC. Its id counts on from the last; it is in no row before it is signed.
pub(crate) fn add_htlc(draft: &mut Draft<'_>, offer: Offer, policy: &Policy) -> Result<Reply, Refusal> {
    let params = draft.params();
    check_offer(params, draft.outlook(), &offer)?;
    if draft.outlook().exposes_too_much(params, 1, offer.amount, policy) {
        return Err(Refusal::DustExposure(policy.max_dust_exposure));
    }
    if !draft.outlook().htlc_is_within_cap(params, policy) {
        return Err(Refusal::CommitmentTooCostly(cost_cap(params.capacity, policy)));
    }
    let outlook = draft.outlook_mut();
    let id = outlook.next_local_htlc_id;
    if !outlook.put_add(params, Side::Remote, Offerer::Local, offer.amount) {
        return Err(Refusal::InsufficientBalance { spendable: Msat::ZERO });
    }
    outlook.next_local_htlc_id = id.saturating_add(1);
    outlook.count_in(params, offer.amount);
    outlook.is_unanswered();
    let row = HtlcRow {
        amount: offer.amount,
        payment_hash: offer.payment_hash,
        cltv_expiry: offer.cltv_expiry,
        state: HtlcState::Adding(Stage::Proposed),
        source: Some(offer.source),
        removal: None,
    };
    let add = ProposedAdd { row, onion: Arc::from(offer.onion) };
    draft.send(add_message(params.channel_id, id, &add.row, &add.onion));
    draft.put_add(HtlcKey::offered(id), add);
    Ok(Reply::Added { htlc_id: id })
}

fn check_offer(params: &ChannelParams, outlook: &Outlook, offer: &Offer) -> Result<(), Refusal> {
    let limits = &params.remote;
    let offered = &outlook.remote.totals.offered_by_local;
    if offer.amount == Msat::ZERO || offer.amount < limits.htlc_minimum {
        return Err(Refusal::AmountTooSmall(limits.htlc_minimum));
    }
    if offer.cltv_expiry >= FIRST_TIME_EXPIRY {
        return Err(Refusal::ExpiryIsTime);
    }
    if offered.count >= limits.max_accepted_htlcs {
        return Err(Refusal::TooManyHtlcs(limits.max_accepted_htlcs));
    }
    if offered.value.saturating_add(offer.amount) > limits.max_htlc_value_in_flight {
        return Err(Refusal::TooMuchInFlight(limits.max_htlc_value_in_flight));
    }
    if offer.amount > outlook.affordable(params) {
        return Err(Refusal::InsufficientBalance { spendable: outlook.spendable(params) });
    }
    if !outlook.opener_can_take_htlc(params) {
        return Err(Refusal::PeerCannotAffordHtlc);
    }
    Ok(())
}

/// Claims a received HTLC. A failure of it that is proposed and not signed gives way: the connection is dropped, which
/// takes it back, and the claim is to be repeated on the next one.
pub(crate) fn fulfill_htlc(draft: &mut Draft<'_>, id: u64, preimage: PaymentPreimage) -> Result<Reply, Refusal> {
    let key = HtlcKey::received(id);
    let row = draft.htlc(key).ok_or(Refusal::UnknownHtlc)?;
    if preimage.payment_hash() != row.payment_hash {
        return Err(Refusal::WrongPreimage);
    }
    match draft.removal(key).or(row.removal.as_ref()) {
        Some(Removal::Fulfilled(_)) => return Ok(Reply::Done),
        Some(Removal::Failed(_)) if row.removal.is_some() => return Err(Refusal::FailureCommitted),
        Some(Removal::Failed(_)) => {
            draft.effect(Effect::Disconnect("an update_fail_htlc is taken back: the preimage is known".to_owned()));
            // Taken back here and now: nothing may sign the failure before the connection is really gone.
            link::on_disconnected(draft);
            return Err(Refusal::FailureProposed);
        }
        None => {}
    }
    propose_removal(draft, key, Removal::Fulfilled(preimage))
}

/// Fails a received HTLC. One that is being removed already is left as it is.
pub(crate) fn fail_htlc(draft: &mut Draft<'_>, id: u64, reason: FailReason) -> Result<Reply, Refusal> {
    let key = HtlcKey::received(id);
    let row = draft.htlc(key).ok_or(Refusal::UnknownHtlc)?;
    if row.removal.is_some() || draft.removal(key).is_some() {
        return Ok(Reply::Done);
    }
    propose_removal(draft, key, Removal::Failed(reason))
}

/// BOLT 2: no HTLC is removed before it is irrevocably committed on both sides.
fn propose_removal(draft: &mut Draft<'_>, key: HtlcKey, removal: Removal) -> Result<Reply, Refusal> {
    let params = draft.params();
    let row = draft.htlc(key).ok_or(Refusal::UnknownHtlc)?;
    if row.state != HtlcState::STANDING {
        return Err(Refusal::HtlcNotCommitted);
    }
    let amount = row.amount;
    if !draft.outlook_mut().put_removal(params, Side::Remote, key.offerer, (amount, &removal)) {
        return Err(Refusal::HtlcNotCommitted);
    }
    draft.send(removal_message(params.channel_id, key.id, &removal));
    draft.put_removal(key, removal);
    Ok(Reply::Done)
}

/// Signs the next remote commitment where there is something to sign and no revocation is due.
pub(crate) fn commitment(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    let head = draft.head();
    if head.awaiting_revocation() || !draft.outlook().remote.changed {
        return Ok(());
    }
    let Some(next_point) = head.remote_next_point else { return Ok(()) };
    sign_updates(draft);
    let outlook = draft.outlook_mut();
    outlook.remote.changed = false;
    let fee_signed = std::mem::take(&mut outlook.fee_proposed);
    let (next, next_id) = (outlook.remote, outlook.next_local_htlc_id);
    let head = draft.head_mut();
    head.revoking_point = Some(head.remote_point);
    head.remote_point = next_point;
    head.remote_next_point = None;
    head.remote_number = head.remote_number.saturating_add(1);
    head.remote_commitment = next.totals;
    head.fee.remote = next.feerate;
    if fee_signed {
        head.fee.change = Some((next.feerate, Stage::Signed));
    }
    head.next_local_htlc_id = next_id;
    head.last_sent = LastSent::Commitment;
    let remote = RemoteCommitment {
        number: head.remote_number,
        point: head.remote_point,
        feerate: next.feerate,
        to_local: next.totals.to_local,
        to_remote: next.totals.to_remote,
    };
    let signed = commitment_signed(draft, cx)?;
    draft.monitor(MonitorStep::RemoteCommitment(remote));
    draft.send(Message::CommitmentSigned(signed));
    Ok(())
}

/// Moves our proposals into rows, and the peer's updates that are due on with them.
fn sign_updates(draft: &mut Draft<'_>) {
    for (key, row) in moved(draft, Move::SignedRemote) {
        draft.put_htlc(key, row);
    }
    let adds: Vec<(HtlcKey, ProposedAdd)> = draft
        .adds()
        .into_iter()
        .filter(|(key, _)| key.offerer == Offerer::Local)
        .map(|(key, add)| (key, add.clone()))
        .collect();
    for (key, add) in adds {
        draft.put_htlc(key, HtlcRow { state: HtlcState::Adding(Stage::Signed), ..add.row });
        draft.put_onion(key, add.onion);
        draft.take_add(key);
    }
    for (key, removal) in proposed_removals(draft, Offerer::Remote) {
        if let Some(row) = draft.htlc(key).cloned() {
            draft.put_htlc(key, HtlcRow { state: HtlcState::Removing(Stage::Signed), removal: Some(removal), ..row });
        }
        draft.remove_onion(key);
        draft.take_removal(key);
    }
}

/// The rows that this move takes a stage further, moved. Removals come first: an add may spend what they give.
pub(super) fn moved(draft: &Draft<'_>, event: Move) -> Vec<(HtlcKey, HtlcRow)> {
    let after = |(key, row): (HtlcKey, &HtlcRow)| {
        let state = row.state.after(key.offerer, event)?;
        Some((key, HtlcRow { state, ..row.clone() }))
    };
    let mut rows: Vec<(HtlcKey, HtlcRow)> = draft.htlcs().into_iter().filter_map(after).collect();
    rows.sort_by_key(|(_, row)| matches!(row.state, HtlcState::Adding(_)));
    rows
}

/// Removals that no signature covers, of HTLCs that this side offered.
pub(super) fn proposed_removals(draft: &Draft<'_>, offerer: Offerer) -> Vec<(HtlcKey, Removal)> {
    let removals = draft.removals().into_iter().filter(|(key, _)| key.offerer == offerer);
    removals.map(|(key, removal)| (key, removal.clone())).collect()
}

/// The signatures of the newest remote commitment, from rows alone: made again, they are the same.
fn commitment_signed(draft: &Draft<'_>, cx: &Context<'_>) -> Result<CommitmentSigned, Violation> {
    let (head, params) = (draft.head(), draft.params());
    let spec = CommitmentSpec::of(
        Side::Remote,
        (head.remote_number, head.remote_point),
        (head.fee.remote, &head.remote_commitment),
        &draft.htlcs(),
    );
    let built = spec.build(params, cx.signer).map_err(Violation::Fail)?;
    let (signature, htlc_signatures) = cx.signer.sign_remote_commitment(params, &built.commitment, &built.keys);
    let funding_txid = Some(params.funding.txid);
    Ok(CommitmentSigned { channel_id: params.channel_id, signature, htlc_signatures, funding_txid })
}

/// Sends the last `commitment_signed` again with the updates that it covers (BOLT 2, "Message Retransmission"). Removals
/// come first and adds last, so that every step on the way is as affordable as the end.
pub(crate) fn resend_commitment(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    let channel_id = draft.channel_id();
    let mut removals = Vec::new();
    let mut adds = Vec::new();
    for (key, row) in draft.htlcs() {
        match (row.state.update(key.offerer), row.state, &row.removal, draft.onion(key)) {
            ((Side::Local, Stage::Signed), HtlcState::Removing(_), Some(removal), _) => {
                removals.push(removal_message(channel_id, key.id, removal));
            }
            ((Side::Local, Stage::Signed), HtlcState::Adding(_), _, Some(onion)) => {
                adds.push(add_message(channel_id, key.id, row, onion));
            }
            ((Side::Local | Side::Remote, _), HtlcState::Adding(_) | HtlcState::Removing(_), _, _) => {}
        }
    }
    let fee = match draft.head().fee.change {
        Some((feerate_per_kw, Stage::Signed)) => Some(Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw })),
        Some((_, Stage::Proposed | Stage::Revoked | Stage::Acknowledged | Stage::Settled)) | None => None,
    };
    let signed = commitment_signed(draft, cx)?;
    for message in removals.into_iter().chain(fee).chain(adds) {
        draft.send(message);
    }
    draft.send(Message::CommitmentSigned(signed));
    Ok(())
}

fn add_message(channel_id: ChannelId, id: u64, row: &HtlcRow, onion: &Arc<[u8; 1366]>) -> Message {
    Message::UpdateAddHtlc(UpdateAddHtlc {
        channel_id,
        id,
        amount_msat: row.amount,
        payment_hash: row.payment_hash,
        cltv_expiry: row.cltv_expiry,
        onion_routing_packet: Box::new(**onion),
        path_key: None,
    })
}

fn removal_message(channel_id: ChannelId, id: u64, removal: &Removal) -> Message {
    match removal {
        Removal::Fulfilled(preimage) => {
            Message::UpdateFulfillHtlc(UpdateFulfillHtlc { channel_id, id, payment_preimage: *preimage })
        }
        Removal::Failed(FailReason::Encrypted(reason)) => {
            Message::UpdateFailHtlc(UpdateFailHtlc { channel_id, id, reason: reason.clone() })
        }
        Removal::Failed(FailReason::Malformed { sha256_of_onion, failure_code }) => {
            Message::UpdateFailMalformedHtlc(UpdateFailMalformedHtlc {
                channel_id,
                id,
                sha256_of_onion: *sha256_of_onion,
                failure_code: *failure_code,
            })
        }
    }
}
