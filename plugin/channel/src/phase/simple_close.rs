//! The second half of a cooperative close under `option_simple_close`: each side pays for a transaction of its own and the
//! other signs it, as often as it likes (BOLT 2, "Closing Negotiation: `closing_complete` and `closing_sig`"; BOLT 3,
//! "Closing Transaction").

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Transaction, TxOut};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_bolt::features::Feature;
use outrigger_bolt::tx::Unaffordable;
use outrigger_bolt::tx::closing::{ClosingVariant, closing_weight, simple_closing_outputs, simple_closing_transaction};
use outrigger_bolt::wire::{ClosingComplete, ClosingSig, Message};

use super::closing::{MAX_CLOSES, Party, conclude, is_one_too_many, is_signed, parties, wanted_still};
use super::shutdown::{
    Resent, change_negotiation, check_feerate, check_form_of_peer, gave_signature, is_all_there, may_negotiate,
    set_script_of_peer,
};
use crate::changes::{ChannelParams, Phase};
use crate::draft::Draft;
use crate::input::Context;
use crate::signer::Signer;
use crate::transition::{ChannelNote, Effect};
use crate::violation::{Refusal, Rule, Violation};

/// A `closing_complete` of ours that the peer has yet to answer. BOLT 2: no other before the `closing_sig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    message: ClosingComplete,
    feerate: FeeratePerKw,
}

/// What a replacement must pay on top, so that mempools take it (BIP 125 with Bitcoin Core's default).
const INCREMENTAL_RELAY: FeeratePerKw = FeeratePerKw::new(250);

/// Whether both sides offer `option_simple_close` on this connection.
pub(super) fn is_negotiated(draft: &Draft<'_>) -> bool {
    draft.link().features().is_some_and(|features| features.supports(Feature::SIMPLE_CLOSE))
}

/// Sends our `closing_complete`, if one is due and affordable. Where it is not, the peer's own closes the channel.
///
/// BOLT 2 has both sides send one, and lets each pay for its own. A side that did not ask for the close waits for the peer's
/// offer first, and goes without one where that does as well: two that pay the same only keep each other out of mempools.
pub(super) fn propose(draft: &mut Draft<'_>, cx: &Context<'_>) {
    let Some(feerate) = wanted_still(&draft.head().phase) else { return };
    if draft.negotiation().proposal.is_some() || !may_negotiate(draft) {
        return;
    }
    let Some((closer, closee)) = parties(draft.head()) else { return };
    let floor = cx.feerates.floor.max(FeeratePerKw::FLOOR);
    let mut close = Close { params: draft.params(), closer, closee, fee: Sat::ZERO, locktime: cx.height };
    if draft.negotiation().awaits_closer && close.is_affordable_to_peer(feerate) {
        return;
    }
    let Some(variants) = close.choose(feerate, floor) else { return };
    if !is_all_there(draft) {
        return;
    }
    let message = close.complete(&variants, cx);
    draft.send(Message::ClosingComplete(message.clone()));
    gave_signature(draft);
    change_negotiation(draft, |negotiation| negotiation.proposal = Some(Box::new(Proposal { message, feerate })));
}

/// An order to replace the close by one of ours that pays more.
pub(super) fn bump(draft: &mut Draft<'_>, feerate: FeeratePerKw, cx: &Context<'_>) -> Result<(), Refusal> {
    let features = draft.link().features().ok_or(Refusal::NotConnected)?;
    if !features.supports(Feature::SIMPLE_CLOSE) {
        return Err(Refusal::ShuttingDown);
    }
    let closes = draft.head().phase.closes_to_publish();
    if closes.len() >= MAX_CLOSES {
        return Err(Refusal::TooManyCloses);
    }
    let dearest = closes.iter().map(|close| paid_feerate(draft.params(), close)).max();
    check_feerate(feerate, dearest.map_or(FeeratePerKw::FLOOR, replacing), cx)?;
    want(draft, Some(feerate));
    change_negotiation(draft, |negotiation| negotiation.awaits_closer = false);
    propose(draft, cx);
    Ok(())
}

/// What a signed close pays, rounded up.
fn paid_feerate(params: &ChannelParams, close: &Transaction) -> FeeratePerKw {
    let paid = close.output.iter().fold(Sat::ZERO, |sum, output| sum.saturating_add(output.value.into()));
    let fee = params.capacity.saturating_sub(paid).get();
    let weight = closing_weight(close.output.iter().map(|output| output.script_pubkey.as_script()));
    let feerate = fee.saturating_mul(1000).div_ceil(weight.max(1));
    FeeratePerKw::new(u32::try_from(feerate).unwrap_or(u32::MAX))
}

/// The peer pays for a close and asks us to sign it.
pub(crate) fn on_closing_complete(
    draft: &mut Draft<'_>,
    message: &ClosingComplete,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    if !is_due(draft)? {
        return Ok(());
    }
    let Some((local, remote)) = parties(draft.head()) else {
        return Err(Violation::Warn(Rule::EarlyClosingComplete));
    };
    // BOLT 2: it names the script that we sent last; ours never changes.
    if message.closee_scriptpubkey != local.script {
        return Err(Violation::Warn(Rule::ClosingScript));
    }
    check_form_of_peer(draft, &message.closer_scriptpubkey).map_err(Violation::Warn)?;
    let closer = Party { script: message.closer_scriptpubkey.clone(), balance: remote.balance };
    let (fee, locktime) = (message.fee_satoshis, message.locktime);
    let close = Close { params: draft.params(), closer, closee: local, fee, locktime };
    let (variant, signature) = close.selected(message).map_err(Violation::Warn)?;
    let tx = close.signed_by_peer((variant, &signature), cx.signer).map_err(Violation::Warn)?;
    if is_one_too_many(draft, &tx) {
        return Ok(());
    }
    set_script_of_peer(draft, &message.closer_scriptpubkey);
    change_negotiation(draft, |negotiation| negotiation.resent = Resent::Complete);
    let mut answer = ClosingSig {
        channel_id: draft.channel_id(),
        closer_scriptpubkey: message.closer_scriptpubkey.clone(),
        closee_scriptpubkey: message.closee_scriptpubkey.clone(),
        fee_satoshis: fee,
        locktime,
        closer_output_only: None,
        closee_output_only: None,
        closer_and_closee_outputs: None,
    };
    let ours = Some(cx.signer.sign_closing(draft.params(), &tx));
    match variant {
        ClosingVariant::CloserOnly => answer.closer_output_only = ours,
        ClosingVariant::CloseeOnly => answer.closee_output_only = ours,
        ClosingVariant::Both => answer.closer_and_closee_outputs = ours,
    }
    draft.send(Message::ClosingSig(answer));
    let paid = may_confirm(&tx, cx).then(|| paid_feerate(draft.params(), &tx));
    conclude(draft, cx, tx, &signature);
    change_negotiation(draft, |negotiation| negotiation.awaits_closer = false);
    if paid.is_some_and(|paid| wanted_still(&draft.head().phase).is_some_and(|ours| ours < replacing(paid))) {
        // One that is under way is answered all the same.
        want(draft, None);
    }
    propose(draft, cx);
    Ok(())
}

/// Whether mempools take this close: it is final, and none of its outputs is dust.
fn may_confirm(close: &Transaction, cx: &Context<'_>) -> bool {
    let is_final = close.lock_time.to_consensus_u32() <= cx.height;
    is_final && close.output.iter().all(|output| output.value >= output.script_pubkey.minimal_non_dust())
}

/// The least that a close must pay to replace one that pays this.
fn replacing(feerate: FeeratePerKw) -> FeeratePerKw {
    FeeratePerKw::new(feerate.get().saturating_add(INCREMENTAL_RELAY.get()))
}

/// What a close of ours that the peer has yet to sign shall pay.
fn want(draft: &mut Draft<'_>, feerate: Option<FeeratePerKw>) {
    if let Phase::Closing { wanted, .. } = &mut draft.head_mut().phase {
        *wanted = feerate;
    }
}

/// The peer has signed the close that we pay for.
pub(crate) fn on_closing_sig(draft: &mut Draft<'_>, message: &ClosingSig, cx: &Context<'_>) -> Result<(), Violation> {
    if !is_due(draft)? {
        return Ok(());
    }
    let Some(proposal) = draft.negotiation().proposal.clone() else {
        return Err(Violation::Warn(Rule::UnexpectedMessage("closing_sig")));
    };
    let Some((closer, remote)) = parties(draft.head()) else {
        return Err(Violation::Warn(Rule::EarlyClosingComplete));
    };
    let (variant, signature) = proposal.answer(message).map_err(Violation::Warn)?;
    // The peer may have named another script since: its answer is to the one that we named.
    let closee = Party { script: proposal.message.closee_scriptpubkey.clone(), balance: remote.balance };
    let (fee, locktime) = (proposal.message.fee_satoshis, proposal.message.locktime);
    let close = Close { params: draft.params(), closer, closee, fee, locktime };
    let tx = close.signed_by_peer((variant, &signature), cx.signer).map_err(Violation::Warn)?;
    let (phase, txid) = (&draft.head().phase, tx.compute_txid());
    let is_another = matches!(phase, Phase::Closing { .. }) && !is_signed(phase, txid);
    conclude(draft, cx, tx, &signature);
    if is_another {
        draft.effect(Effect::Note(ChannelNote::Closing { txid }));
    }
    change_negotiation(draft, |negotiation| negotiation.proposal = None);
    if wanted_still(&draft.head().phase) == Some(proposal.feerate) {
        want(draft, None);
    }
    propose(draft, cx);
    Ok(())
}

/// Whether the negotiation goes on; not once a close is in a block.
fn is_due(draft: &Draft<'_>) -> Result<bool, Violation> {
    match draft.head().phase {
        Phase::Closing { confirmed_height: Some(_), .. } | Phase::Closed { .. } | Phase::Failed { .. } => Ok(false),
        Phase::ShuttingDown { .. } | Phase::Closing { confirmed_height: None, .. }
            if is_negotiated(draft) && may_negotiate(draft) =>
        {
            Ok(true)
        }
        Phase::ShuttingDown { .. }
        | Phase::Closing { confirmed_height: None, .. }
        | Phase::Funding(_)
        | Phase::Normal => Err(Violation::Warn(Rule::EarlyClosingComplete)),
    }
}

impl Proposal {
    /// BOLT 2, the receiver of `closing_sig`: the same facts, and exactly one signature, in a field that we filled.
    fn answer(&self, message: &ClosingSig) -> Result<(ClosingVariant, Signature), Rule> {
        let asked = &self.message;
        let is_same = message.closer_scriptpubkey == asked.closer_scriptpubkey
            && message.closee_scriptpubkey == asked.closee_scriptpubkey
            && message.fee_satoshis == asked.fee_satoshis
            && message.locktime == asked.locktime;
        if !is_same {
            return Err(Rule::ClosingSigMismatch);
        }
        let (variant, signature) =
            match (&message.closer_output_only, &message.closee_output_only, &message.closer_and_closee_outputs) {
                (Some(signature), None, None) => (ClosingVariant::CloserOnly, *signature),
                (None, Some(signature), None) => (ClosingVariant::CloseeOnly, *signature),
                (None, None, Some(signature)) => (ClosingVariant::Both, *signature),
                (None, None, None) | (Some(_), Some(_), _) | (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => {
                    return Err(Rule::ClosingSigMismatch);
                }
            };
        field(asked, variant).map(|_| (variant, signature)).ok_or(Rule::ClosingSigMismatch)
    }
}

/// The closer's signature for one variant.
fn field(message: &ClosingComplete, variant: ClosingVariant) -> Option<Signature> {
    match variant {
        ClosingVariant::CloserOnly => message.closer_output_only,
        ClosingVariant::CloseeOnly => message.closee_output_only,
        ClosingVariant::Both => message.closer_and_closee_outputs,
    }
}

/// One close in the making; the closer pays its fee.
struct Close<'a> {
    params: &'a ChannelParams,
    closer: Party,
    closee: Party,
    fee: Sat,
    locktime: u32,
}

impl Close<'_> {
    fn outputs(&self, variant: ClosingVariant) -> Result<Vec<TxOut>, Unaffordable> {
        simple_closing_outputs(&self.closer.share(), &self.closee.share(), self.fee, variant)
    }

    fn transaction(&self, variant: ClosingVariant) -> Result<Transaction, Unaffordable> {
        Ok(simple_closing_transaction(self.params.funding, self.outputs(variant)?, self.locktime))
    }

    /// Settles on a fee, and on the variants that BOLT 2 has the closer sign. None where no variant is affordable and
    /// could be relayed.
    fn choose(&mut self, feerate: FeeratePerKw, floor: FeeratePerKw) -> Option<Vec<ClosingVariant>> {
        let both = [self.closer.script.as_script(), self.closee.script.as_script()];
        let [of_closer, of_closee] = both.map(|script| closing_weight([script]));
        let of_both = closing_weight(both);
        let (closer, closee) = (self.closer.share(), self.closee.share());
        let balance = closer.balance.to_sat_floor();
        let closee_is_dust = closee.is_dust(closee.value(Sat::ZERO).ok()?);
        let is_lesser = closer.balance < closee.balance;
        let (weight, most, variants) = if closee_is_dust {
            // The lesser side may not leave the other's output out, which could not be relayed.
            let most = balance.checked_sub(closer.dust_threshold()).filter(|_| !is_lesser)?;
            (of_closer, most, vec![ClosingVariant::CloserOnly])
        } else if !is_lesser {
            let most = balance.checked_sub(closer.dust_threshold())?;
            (of_both, most, vec![ClosingVariant::CloserOnly, ClosingVariant::Both])
        } else if closer.value(feerate.fee(of_both)).is_ok_and(|value| !closer.is_dust(value)) {
            (of_both, balance, vec![ClosingVariant::Both])
        } else {
            // Our output is dust, or what is left of it is not worth its fee.
            (of_closee, balance, vec![ClosingVariant::CloseeOnly])
        };
        self.fee = feerate.fee(weight).min(most);
        (self.fee >= floor.fee(weight)).then_some(variants)
    }

    /// Whether the peer, as the closer, could pay this feerate. Ours stands well above what any mempool asks for, so a peer
    /// that could pay it has no reason to stay silent.
    fn is_affordable_to_peer(&self, feerate: FeeratePerKw) -> bool {
        let (closer, closee) = (self.closee.clone(), self.closer.clone());
        Close { closer, closee, ..*self }.choose(feerate, feerate).is_some()
    }

    /// Our `closing_complete` for these variants.
    fn complete(&self, variants: &[ClosingVariant], cx: &Context<'_>) -> ClosingComplete {
        let sign = |variant: ClosingVariant| -> Option<Signature> {
            let tx = self.transaction(variant).ok().filter(|_| variants.contains(&variant))?;
            Some(cx.signer.sign_closing(self.params, &tx))
        };
        ClosingComplete {
            channel_id: self.params.channel_id,
            closer_scriptpubkey: self.closer.script.clone(),
            closee_scriptpubkey: self.closee.script.clone(),
            fee_satoshis: self.fee,
            locktime: self.locktime,
            closer_output_only: sign(ClosingVariant::CloserOnly),
            closee_output_only: sign(ClosingVariant::CloseeOnly),
            closer_and_closee_outputs: sign(ClosingVariant::Both),
        }
    }

    /// BOLT 2, the receiver of `closing_complete`: which signature counts. Our output is never left out while it is worth
    /// relaying.
    fn selected(&self, message: &ClosingComplete) -> Result<(ClosingVariant, Signature), Rule> {
        let ours = self.closee.share();
        let value = ours.value(Sat::ZERO).map_err(|_| Rule::ClosingFee)?;
        let variant = if ours.is_dust(value) {
            ClosingVariant::CloserOnly
        } else if message.closer_and_closee_outputs.is_some() {
            ClosingVariant::Both
        } else {
            ClosingVariant::CloseeOnly
        };
        field(message, variant).map(|signature| (variant, signature)).ok_or(Rule::ClosingVariant)
    }

    fn signed_by_peer(
        &self,
        (variant, signature): (ClosingVariant, &Signature),
        signer: &dyn Signer,
    ) -> Result<Transaction, Rule> {
        let tx = self.transaction(variant).map_err(|_| Rule::ClosingFee)?;
        let key = &self.params.remote.basepoints.funding_pubkey;
        let sighash = self.params.funding_output().sighash(&tx);
        signer.verify(&sighash, signature, key).map_err(|_| Rule::ClosingSignature)?;
        Ok(tx)
    }
}
