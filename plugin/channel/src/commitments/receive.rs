//! What the peer sends: updates, `commitment_signed`, `revoke_and_ack` (BOLT 2, "Normal Operation").

use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, SecretKey};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, PaymentPreimage};
use outrigger_bolt::keys::{InvalidSignature, public_key};
use outrigger_bolt::tx::htlc::second_stage_sighash;
use outrigger_bolt::wire::{CommitmentSigned, RevokeAndAck, UpdateAddHtlc};

use super::deferral;
use super::htlc::{HtlcKey, HtlcState, Move, Offerer, Side, Stage};
use super::send::{FIRST_TIME_EXPIRY, moved, proposed_removals};
use super::spec::{BuiltCommitment, CommitmentSpec};
use crate::changes::{ChannelParams, HtlcRow, LastSent, MonitorStep, Removal, SignedCommitment};
use crate::draft::Draft;
use crate::input::{Context, FailReason, Policy};
use crate::link::ProposedAdd;
use crate::signer::Signer;
use crate::transition::{Effect, HtlcOutcome, IncomingHtlc};
use crate::violation::{Rule, Violation};

/// Takes an offer of the peer in. It is in no row before it is signed.
pub(crate) fn add_htlc(draft: &mut Draft<'_>, message: &UpdateAddHtlc) -> Result<(), Violation> {
    let params = draft.params();
    let limits = &params.local;
    let outlook = draft.outlook_mut();
    let expected = outlook.next_remote_htlc_id;
    // The updates that no commitment_signed covered went with the last connection, their ids too: a repeated one is new.
    if message.id != expected {
        return Err(Violation::Fail(Rule::HtlcIdOutOfOrder { expected, found: message.id }));
    }
    let amount = message.amount_msat;
    if amount == Msat::ZERO || amount < limits.htlc_minimum {
        return Err(Violation::Warn(Rule::AmountTooSmall(limits.htlc_minimum)));
    }
    if message.cltv_expiry >= FIRST_TIME_EXPIRY {
        return Err(Violation::Warn(Rule::ExpiryIsTime));
    }
    let offered = &outlook.local.totals.offered_by_remote;
    if offered.count.saturating_add(outlook.deferred.count) >= limits.max_accepted_htlcs {
        return Err(Violation::Warn(Rule::TooManyHtlcs));
    }
    if offered.value.saturating_add(outlook.deferred.value).saturating_add(amount) > limits.max_htlc_value_in_flight {
        return Err(Violation::Warn(Rule::TooMuchInFlight));
    }
    outlook.next_remote_htlc_id = expected.saturating_add(1);
    outlook.count_in(params, amount);
    outlook.local.changed = true;
    let row = HtlcRow {
        amount,
        payment_hash: message.payment_hash,
        cltv_expiry: message.cltv_expiry,
        state: HtlcState::Adding(Stage::Proposed),
        source: None,
        removal: None,
    };
    let onion = Arc::new(*message.onion_routing_packet);
    draft.put_add(HtlcKey::received(message.id), ProposedAdd { row, onion });
    deferral::charge(draft, amount)
}

/// The preimage of an HTLC that we offered: proof of payment from this moment on, whatever becomes of the message.
pub(crate) fn fulfill_htlc(draft: &mut Draft<'_>, id: u64, preimage: PaymentPreimage) -> Result<(), Violation> {
    let key = HtlcKey::offered(id);
    learn_preimage(draft, key, preimage);
    let row = removable(draft, id)?;
    if row.payment_hash != preimage.payment_hash() {
        return Err(Violation::Warn(Rule::WrongPreimage(id)));
    }
    propose_removal(draft, key, row.amount, Removal::Fulfilled(preimage))
}

/// Tells the monitor if any HTLC here has this hash, and whoever the HTLC belongs to if it is the one named.
pub(crate) fn learn_preimage(draft: &mut Draft<'_>, key: HtlcKey, preimage: PaymentPreimage) {
    let payment_hash = preimage.payment_hash();
    let named = draft.htlc(key).filter(|row| row.payment_hash == payment_hash).map(|row| (row.source, row.amount));
    if named.is_none() && !draft.htlcs().values().any(|row| row.payment_hash == payment_hash) {
        return;
    }
    draft.monitor(MonitorStep::Preimage(preimage));
    if let Some((Some(source), amount)) = named {
        let outcome = HtlcOutcome::Fulfilled(preimage);
        draft.effect(Effect::Settle { htlc_id: key.id, source, amount, payment_hash, outcome });
    }
}

/// The longest reason that is kept: those of BOLT 4 have 292 bytes, and one is held for each HTLC until its removal is
/// irrevocable upstream, in memory and in the file.
pub(crate) const MAX_REASON_BYTES: usize = 4096;

/// A reason that is too long is as good as none: empty, it can be read by nobody.
fn within_bounds(reason: FailReason) -> FailReason {
    match reason {
        FailReason::Encrypted(bytes) if bytes.len() > MAX_REASON_BYTES => FailReason::Encrypted(Vec::new()),
        FailReason::Encrypted(_) | FailReason::Malformed { .. } => reason,
    }
}

/// A failure of an HTLC that we offered. It counts for nothing before the removal is irrevocable.
pub(crate) fn fail_htlc(draft: &mut Draft<'_>, id: u64, reason: FailReason) -> Result<(), Violation> {
    /// BOLT 4, "Failure Messages": the receiver could not read the onion.
    const BADONION: u16 = 0x8000;
    if let FailReason::Malformed { failure_code, .. } = reason
        && failure_code & BADONION == 0
    {
        return Err(Violation::Warn(Rule::NotBadOnion));
    }
    let amount = removable(draft, id)?.amount;
    propose_removal(draft, HtlcKey::offered(id), amount, Removal::Failed(within_bounds(reason)))
}

/// BOLT 2: only an HTLC that is irrevocably committed may be removed, and only once.
fn removable<'d>(draft: &'d Draft<'_>, id: u64) -> Result<&'d HtlcRow, Violation> {
    let key = HtlcKey::offered(id);
    if draft.add(key).is_some() {
        return Err(Violation::Warn(Rule::HtlcNotCommitted(id)));
    }
    let row = draft.htlc(key).ok_or(Violation::Warn(Rule::UnknownHtlc(id)))?;
    if row.removal.is_some() || draft.removal(key).is_some() {
        return Err(Violation::Fail(Rule::HtlcAlreadyRemoved(id)));
    }
    if row.state != HtlcState::STANDING {
        return Err(Violation::Warn(Rule::HtlcNotCommitted(id)));
    }
    Ok(row)
}

fn propose_removal(draft: &mut Draft<'_>, key: HtlcKey, amount: Msat, removal: Removal) -> Result<(), Violation> {
    let params = draft.params();
    if !draft.outlook_mut().put_removal(params, Side::Local, key.offerer, (amount, &removal)) {
        return Err(Violation::Fail(Rule::UnknownHtlc(key.id)));
    }
    draft.put_removal(key, removal);
    Ok(())
}

/// The peer signs our next commitment; the one before it is revoked in the same step.
pub(crate) fn commitment_signed(
    draft: &mut Draft<'_>,
    message: &CommitmentSigned,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    if message.funding_txid.is_some_and(|txid| txid != draft.params().funding.txid) {
        return Err(Violation::Fail(Rule::ForeignFunding));
    }
    tolerate_empty(draft)?;
    deferral::settle(draft)?;
    let revoked = draft.head().local_number;
    take_signed_updates(draft);
    take_signed_head(draft);
    let (head, params) = (draft.head(), draft.params());
    let spec = CommitmentSpec::of(
        Side::Local,
        (head.local_number, cx.signer.per_commitment_point(head.local_number)),
        (head.fee.local, &head.local_commitment),
        &draft.htlcs(),
    );
    let built = spec.build(params, cx.signer).map_err(Violation::Fail)?;
    check_signatures(params, &built, message, cx.signer).map_err(Violation::Fail)?;
    draft.monitor(MonitorStep::LocalCommitment(SignedCommitment {
        number: spec.number,
        feerate: spec.feerate,
        to_local: spec.to_local,
        to_remote: spec.to_remote,
        signature: message.signature,
        htlc_signatures: message.htlc_signatures.clone(),
    }));
    draft.effect(Effect::Revoke { number: revoked });
    Ok(())
}

/// BOLT 2 forbids a `commitment_signed` without updates. The first on a connection is let pass.
fn tolerate_empty(draft: &mut Draft<'_>) -> Result<(), Violation> {
    let outlook = draft.outlook_mut();
    if outlook.local.changed {
        return Ok(());
    }
    if outlook.empty_commitments > 0 {
        return Err(Violation::Warn(Rule::EmptyCommitment));
    }
    outlook.empty_commitments = 1;
    Ok(())
}

/// Moves the peer's proposals into rows: signed by it, and revoked to by us. Ours that were due are settled.
fn take_signed_updates(draft: &mut Draft<'_>) {
    let params = draft.params();
    for (key, row) in moved(draft, Move::LocalSignedAndRevoked) {
        match row.state {
            HtlcState::Adding(_) => draft.put_htlc(key, row),
            HtlcState::Removing(_) => {
                draft.remove_htlc(key);
                draft.outlook_mut().count_out(params, row.amount);
                draft.effect(Effect::Removed { htlc_id: key.id });
            }
        }
    }
    // Removals first: the peer may have added with what a removal of the same signature gave it.
    for (key, removal) in proposed_removals(draft, Offerer::Local) {
        if let Some(row) = draft.htlc(key).cloned() {
            let row = HtlcRow { state: HtlcState::Removing(Stage::Revoked), removal: Some(removal), ..row };
            draft.outlook_mut().take_due(params, key, &row);
            draft.put_htlc(key, row);
        }
        draft.take_removal(key);
    }
    let adds: Vec<(HtlcKey, ProposedAdd)> = draft
        .adds()
        .into_iter()
        .filter(|(key, _)| key.offerer == Offerer::Remote)
        .map(|(key, add)| (key, add.clone()))
        .collect();
    for (key, add) in adds {
        let row = HtlcRow { state: HtlcState::Adding(Stage::Revoked), ..add.row };
        draft.outlook_mut().take_due(params, key, &row);
        draft.put_htlc(key, row);
        draft.put_onion(key, add.onion);
        draft.take_add(key);
    }
}

/// Makes the next local commitment the newest one.
fn take_signed_head(draft: &mut Draft<'_>) {
    let is_opener = draft.params().is_opener;
    let outlook = draft.outlook_mut();
    outlook.local.changed = false;
    outlook.all_signed();
    let (next, next_id) = (outlook.local, outlook.next_remote_htlc_id);
    // The opener's feerate is due in its own commitment once we have revoked to it.
    let is_signed = std::mem::take(&mut outlook.fee_received);
    if !is_opener && (is_signed || outlook.remote.feerate != next.feerate) {
        outlook.set_feerate(Side::Remote, next.feerate);
    }
    let head = draft.head_mut();
    head.local_number = head.local_number.saturating_add(1);
    head.local_commitment = next.totals;
    head.fee.local = next.feerate;
    if matches!(head.fee.change, Some((_, Stage::Revoked))) {
        head.fee.change = None;
    }
    head.next_remote_htlc_id = next_id;
    head.last_sent = LastSent::Revocation;
}

/// Whether the peer signed this local commitment and the second stage of each of its HTLC outputs, in a form that
/// bitcoind relays (BOLT 2, `commitment_signed`; CST-10).
pub(crate) fn check_signatures(
    params: &ChannelParams,
    built: &BuiltCommitment,
    message: &CommitmentSigned,
    signer: &dyn Signer,
) -> Result<(), Rule> {
    let commitment = &built.commitment;
    let txid = commitment.tx.compute_txid();
    let sighash = params.funding_output().sighash(&commitment.tx);
    signer.verify(&sighash, &message.signature, &params.remote.basepoints.funding_pubkey).map_err(
        |error| match error {
            InvalidSignature::HighS => Rule::HighS,
            InvalidSignature::Mismatch => Rule::BadSignature(txid),
        },
    )?;
    let (expected, found) = (commitment.htlc_outputs.len(), message.htlc_signatures.len());
    if expected != found {
        return Err(Rule::HtlcSignatureCount { expected, found });
    }
    for (index, (output, signature)) in commitment.htlc_outputs.iter().zip(&message.htlc_signatures).enumerate() {
        let sighash = second_stage_sighash(txid, output, &built.keys, built.to_self_delay);
        signer.verify(&sighash, signature, &built.keys.other_htlc).map_err(|error| match error {
            InvalidSignature::HighS => Rule::HighS,
            InvalidSignature::Mismatch => Rule::BadHtlcSignature(index),
        })?;
    }
    Ok(())
}

/// The peer revokes the commitment before its newest: what we signed for it is irrevocable on its side.
pub(crate) fn revoke_and_ack(draft: &mut Draft<'_>, message: &RevokeAndAck, policy: &Policy) -> Result<(), Violation> {
    let point = draft.head().revoking_point.ok_or(Violation::Fail(Rule::UnsolicitedRevocation))?;
    let secret = message.per_commitment_secret.0;
    if !answers_to(&secret, &point) {
        return Err(Violation::Fail(Rule::WrongSecret));
    }
    for (key, row) in moved(draft, Move::RemoteRevoked) {
        take_revoked(draft, key, row, policy);
    }
    let head = draft.head_mut();
    head.revoking_point = None;
    head.remote_next_point = Some(message.next_per_commitment_point);
    head.last_remote_secret = Some(secret);
    let number = head.remote_number.saturating_sub(1);
    if let Some((feerate, Stage::Signed)) = head.fee.change {
        head.fee.change = Some((feerate, Stage::Revoked));
        draft.outlook_mut().set_feerate(Side::Local, feerate);
    }
    draft.monitor(MonitorStep::Revocation { number, secret });
    Ok(())
}

/// Whether the secret is the one behind this per-commitment point.
pub(crate) fn answers_to(secret: &[u8; 32], point: &PublicKey) -> bool {
    SecretKey::from_slice(secret).is_ok_and(|key| public_key(&key) == *point)
}

/// An update that the peer's revocation moved: ours is due in our commitment now, the peer's is irrevocable.
fn take_revoked(draft: &mut Draft<'_>, key: HtlcKey, row: HtlcRow, policy: &Policy) {
    let params = draft.params();
    match (row.state, row.state.update(key.offerer)) {
        (HtlcState::Adding(_) | HtlcState::Removing(_), (Side::Local, _)) => {
            draft.outlook_mut().take_due(params, key, &row);
            if key.offerer == Offerer::Local {
                draft.outlook_mut().is_unsigned(params, row.amount);
            }
            draft.remove_onion(key);
            draft.put_htlc(key, row);
        }
        (HtlcState::Adding(_), (Side::Remote, _)) => {
            if let Some(incoming) = incoming(draft, key, &row, policy) {
                draft.effect(Effect::Incoming(incoming));
            }
            draft.put_htlc(key, row);
        }
        (HtlcState::Removing(_), (Side::Remote, _)) => {
            draft.remove_htlc(key);
            draft.outlook_mut().count_out(params, row.amount);
            if let (Some(Removal::Failed(reason)), Some(source)) = (row.removal, row.source) {
                let (amount, payment_hash, outcome) = (row.amount, row.payment_hash, HtlcOutcome::Failed(reason));
                draft.effect(Effect::Settle { htlc_id: key.id, source, amount, payment_hash, outcome });
            }
        }
    }
}

fn incoming(draft: &Draft<'_>, key: HtlcKey, row: &HtlcRow, policy: &Policy) -> Option<IncomingHtlc> {
    let over_exposed = draft.outlook().exposes_too_much(draft.params(), 0, row.amount, policy);
    draft.onion(key).map(|onion| row.incoming((draft.channel_id(), key.id), onion, over_exposed))
}

impl HtlcRow {
    /// The received HTLC as relay and receive see it.
    pub(crate) fn incoming(
        &self,
        (channel, htlc_id): (ChannelId, u64),
        onion: &Arc<[u8; 1366]>,
        over_exposed: bool,
    ) -> IncomingHtlc {
        IncomingHtlc {
            channel,
            htlc_id,
            amount: self.amount,
            payment_hash: self.payment_hash,
            cltv_expiry: self.cltv_expiry,
            onion: Box::new(**onion),
            over_exposed,
        }
    }
}
