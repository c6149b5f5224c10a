//! The second half of a cooperative close: the fee is agreed on, the transaction published and buried (BOLT 2, "Legacy
//! Closing Negotiation: `closing_signed`"; BOLT 3, "Legacy Closing Transaction").

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Transaction, TxOut, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::tx::Unaffordable;
use outrigger_bolt::tx::closing::{Share, closing_outputs, closing_transaction, closing_weight};
use outrigger_bolt::wire::{ClosingSigned, FeeRange, Message, Warning};

use super::shutdown::{Resent, change_negotiation, gave_signature, may_negotiate, own_script};
use super::{ended, funding, restored, simple_close};
use crate::changes::{ChannelHead, ChannelParams, Phase};
use crate::commitments::htlc::Side;
use crate::draft::Draft;
use crate::input::Context;
use crate::monitor::onchain;
use crate::signer::Signer;
use crate::transition::{ChannelNote, Effect, Publication, Watch};
use crate::violation::{Rule, Violation};

/// A fee that we proposed in `closing_signed`, and those that we would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) fee: Sat,
    pub(crate) range: FeeRange,
}

/// How a `closing_signed` of the peer is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is the fee that we proposed: nothing more to say.
    Agreed,
    /// The same fee back, which seals it.
    Accept,
    /// Another fee.
    Counter(Sat),
}

/// The opener, who pays the fee, speaks first.
pub(super) fn make_first_offer(draft: &mut Draft<'_>, cx: &Context<'_>) -> Result<(), Violation> {
    let Some(closing) = Closing::of(draft, cx) else { return Ok(()) };
    let Ok(tx) = closing.transaction(closing.preferred, draft.params().local.dust_limit) else {
        return Err(Violation::Fail(Rule::ClosingFee));
    };
    send_offer(draft, cx, &tx, Offer { fee: closing.preferred, range: closing.range });
    Ok(())
}

/// The peer proposes a fee, or agrees to ours.
pub(crate) fn on_closing_signed(
    draft: &mut Draft<'_>,
    message: &ClosingSigned,
    cx: &Context<'_>,
) -> Result<(), Violation> {
    match draft.head().phase {
        Phase::ShuttingDown { .. } | Phase::Closing { confirmed_height: None, .. } => {}
        // The close is in a block: nothing is left to be agreed on.
        Phase::Closing { confirmed_height: Some(_), .. } | Phase::Closed { .. } | Phase::Failed { .. } => return Ok(()),
        Phase::Funding(_) | Phase::Normal => return Err(Violation::Warn(Rule::EarlyClosingSigned)),
    }
    if simple_close::is_negotiated(draft) {
        return Err(Violation::Warn(Rule::UnexpectedMessage("closing_signed")));
    }
    // The opener speaks first.
    let out_of_turn = draft.params().is_opener && draft.negotiation().offer.is_none();
    if out_of_turn || !may_negotiate(draft) {
        return Err(Violation::Warn(Rule::EarlyClosingSigned));
    }
    let Some(closing) = Closing::of(draft, cx) else {
        return Err(Violation::Warn(Rule::EarlyClosingSigned));
    };
    let tx = closing.signed_by_peer(message, cx.signer).map_err(Violation::Warn)?;
    if is_one_too_many(draft, &tx) {
        return Ok(());
    }
    let answer = closing.answer(message, draft.negotiation().offer, draft.negotiation().counteroffer)?;
    change_negotiation(draft, |negotiation| {
        negotiation.counteroffer = Some(message.fee_satoshis);
        negotiation.resent = Resent::Complete;
    });
    match answer {
        Answer::Agreed => conclude(draft, cx, tx, &message.signature),
        Answer::Accept => {
            send_offer(draft, cx, &tx, Offer { fee: message.fee_satoshis, range: closing.range });
            conclude(draft, cx, tx, &message.signature);
        }
        Answer::Counter(fee) => {
            let ours = closing.transaction(fee, draft.params().local.dust_limit);
            let ours = ours.map_err(|()| Violation::Fail(Rule::ClosingFee))?;
            send_offer(draft, cx, &ours, Offer { fee, range: closing.range });
        }
    }
    Ok(())
}

fn send_offer(draft: &mut Draft<'_>, cx: &Context<'_>, tx: &Transaction, offer: Offer) {
    let message = ClosingSigned {
        channel_id: draft.channel_id(),
        fee_satoshis: offer.fee,
        signature: cx.signer.sign_closing(draft.params(), tx),
        fee_range: Some(offer.range),
    };
    draft.send(Message::ClosingSigned(message));
    gave_signature(draft);
    change_negotiation(draft, |negotiation| negotiation.offer = Some(offer));
}

/// Both have signed: the close goes out, and stays in the head row until one is buried.
pub(super) fn conclude(draft: &mut Draft<'_>, cx: &Context<'_>, mut tx: Transaction, theirs: &Signature) {
    let params = draft.params();
    let ours = cx.signer.sign_closing(params, &tx);
    let witness = params.funding_output().witness([
        (&params.local.basepoints.funding_pubkey, &ours),
        (&params.remote.basepoints.funding_pubkey, theirs),
    ]);
    if let Some(input) = tx.input.first_mut() {
        input.witness = witness;
    }
    let txid = tx.compute_txid();
    // Agreed on again after a reconnection: the same transaction needs no new row.
    if is_signed(&draft.head().phase, txid) {
        return;
    }
    let is_first = !matches!(draft.head().phase, Phase::Closing { .. });
    let wanted = wanted_still(&draft.head().phase);
    let others = draft.head().phase.closes_to_publish().into_iter().cloned().collect();
    draft.set_phase(Phase::Closing { tx: tx.clone(), others, wanted, confirmed_height: None });
    draft.effect(Effect::Publish { what: Publication::MutualClose, tx });
    // Of more that the peer makes us sign there is no word: news have rows.
    if is_first {
        draft.effect(Effect::Note(ChannelNote::Closing { txid }));
    }
}

/// Closes of one channel that both have signed, at most: each stands in the head row and is published again and again.
pub(super) const MAX_CLOSES: usize = 20;

/// Whether enough closes wait for a block without this one, which the peer asks for. It costs the peer nothing to ask, and
/// us a row: it is told so, and keeps its connection.
pub(super) fn is_one_too_many(draft: &mut Draft<'_>, close: &Transaction) -> bool {
    let phase = &draft.head().phase;
    let too_many = phase.closes_to_publish().len() >= MAX_CLOSES && !is_signed(phase, close.compute_txid());
    if too_many {
        let (channel_id, data) = (draft.channel_id(), Rule::TooManyCloses.to_string());
        draft.send(Message::Warning(Warning { channel_id, data: data.as_str().into() }));
    }
    too_many
}

/// Whether this close is one that both have signed.
pub(super) fn is_signed(phase: &Phase, txid: Txid) -> bool {
    phase.closes_to_publish().iter().any(|close| close.compute_txid() == txid)
}

/// The feerate at which a transaction of our own is still to be signed by the peer, with `option_simple_close`.
pub(super) fn wanted_still(phase: &Phase) -> Option<FeeratePerKw> {
    match phase {
        Phase::ShuttingDown { feerate, .. } => Some(*feerate),
        Phase::Closing { wanted, confirmed_height: None, .. } => *wanted,
        Phase::Funding(_)
        | Phase::Normal
        | Phase::Closing { confirmed_height: Some(_), .. }
        | Phase::Closed { .. }
        | Phase::Failed { .. } => None,
    }
}

/// What a close is made from, once both have said `shutdown` and no HTLC is left.
struct Closing<'a> {
    params: &'a ChannelParams,
    opener: Party,
    accepter: Party,
    /// The fee that we would choose.
    preferred: Sat,
    /// The fees that we take.
    range: FeeRange,
}

/// One side of the close.
#[derive(Clone)]
pub(super) struct Party {
    pub(super) script: ScriptBuf,
    pub(super) balance: Msat,
}

impl Party {
    pub(super) fn share(&self) -> Share<'_> {
        Share { script_pubkey: &self.script, balance: self.balance }
    }
}

/// Both sides, ours first, once both have said `shutdown`.
pub(super) fn parties(head: &ChannelHead) -> Option<(Party, Party)> {
    let totals = &head.local_commitment;
    let local = Party { script: head.local_shutdown.clone()?, balance: totals.to_local };
    let remote = Party { script: head.remote_shutdown.clone()?, balance: totals.to_remote };
    Some((local, remote))
}

impl<'a> Closing<'a> {
    fn of(draft: &Draft<'a>, cx: &Context<'_>) -> Option<Self> {
        let (params, head) = (draft.params(), draft.head());
        let (local, remote) = parties(head)?;
        let (opener, accepter) = match params.opener() {
            Side::Local => (local, remote),
            Side::Remote => (remote, local),
        };
        let weight = closing_weight([opener.script.as_script(), accepter.script.as_script()]);
        let balance = opener.balance.to_sat_floor();
        let floor = cx.feerates.floor.max(FeeratePerKw::FLOOR).fee(weight).min(balance);
        let wanted = agreed_fee(params, head).unwrap_or_else(|| wanted_feerate(head, cx).fee(weight));
        let most = match params.opener() {
            // We pay: up to twice what we want, and never above what we would pay for a commitment.
            Side::Local => {
                let twice = wanted.saturating_add(wanted);
                twice.min(cx.policy.max_commitment_feerate.fee(weight)).max(floor).min(balance)
            }
            // The peer pays: as much as it has.
            Side::Remote => balance,
        };
        let range = FeeRange { min_fee_satoshis: floor, max_fee_satoshis: most };
        Some(Self { params, opener, accepter, preferred: wanted.clamp(floor, most), range })
    }

    /// Our variant of the transaction: without outputs below this dust limit.
    fn transaction(&self, fee: Sat, dust_limit: Sat) -> Result<Transaction, ()> {
        self.of_outputs(self.outputs(fee, dust_limit).map_err(|_| ())?).ok_or(())
    }

    fn outputs(&self, fee: Sat, dust_limit: Sat) -> Result<Vec<TxOut>, Unaffordable> {
        closing_outputs(&self.opener.share(), &self.accepter.share(), fee, dust_limit)
    }

    fn of_outputs(&self, outputs: Vec<TxOut>) -> Option<Transaction> {
        (!outputs.is_empty()).then(|| closing_transaction(self.params.funding, outputs))
    }

    /// The variant that the peer signed: by its dust limit, by ours, or without its own output, which it may give up
    /// (BOLT 3). Dust limits are at least 354 sat here, so no output is below what its script needs to be relayed.
    fn signed_by_peer(&self, message: &ClosingSigned, signer: &dyn Signer) -> Result<Transaction, Rule> {
        let by_limit = |dust_limit| self.outputs(message.fee_satoshis, dust_limit).map_err(|_| Rule::ClosingFee);
        let theirs = by_limit(self.params.remote.dust_limit)?;
        let ours = by_limit(self.params.local.dust_limit)?;
        let peer_script = match self.params.opener() {
            Side::Local => &self.accepter.script,
            Side::Remote => &self.opener.script,
        };
        let mut given_up = ours.clone();
        given_up.retain(|output| output.script_pubkey != *peer_script);
        let funding = self.params.funding_output();
        let key = &self.params.remote.basepoints.funding_pubkey;
        [theirs, ours, given_up]
            .into_iter()
            .filter_map(|outputs| self.of_outputs(outputs))
            .find(|tx| signer.verify(&funding.sighash(tx), &message.signature, key).is_ok())
            .ok_or(Rule::ClosingSignature)
    }

    /// BOLT 2, the receiving node of `closing_signed`.
    fn answer(
        &self,
        message: &ClosingSigned,
        offer: Option<Offer>,
        counteroffer: Option<Sat>,
    ) -> Result<Answer, Violation> {
        let fee = message.fee_satoshis;
        if offer.is_some_and(|offer| offer.fee == fee) {
            return Ok(Answer::Agreed);
        }
        match &message.fee_range {
            Some(theirs) => self.answer_range(fee, theirs, offer),
            None => self.answer_bargain(fee, offer, counteroffer),
        }
    }

    /// The modern way: both give a range, and the accepter chooses within the overlap.
    fn answer_range(&self, fee: Sat, theirs: &FeeRange, offer: Option<Offer>) -> Result<Answer, Violation> {
        let least = self.range.min_fee_satoshis.max(theirs.min_fee_satoshis);
        let most = self.range.max_fee_satoshis.min(theirs.max_fee_satoshis);
        if least > most {
            return Err(Violation::Warn(Rule::ClosingFeeRanges { theirs: *theirs, ours: self.range }));
        }
        let within = (least..=most).contains(&fee);
        match (self.params.opener(), offer) {
            (Side::Local, _) | (Side::Remote, None) if within => Ok(Answer::Accept),
            (Side::Remote, None) => Ok(Answer::Counter(fee.clamp(least, most))),
            // The opener got a fee outside of what it asked for, or the accepter another than the one it chose.
            (Side::Local, _) | (Side::Remote, Some(_)) => Err(Violation::Fail(Rule::ClosingFee)),
        }
    }

    /// The old way: each fee lies strictly between the last two, until both are the same.
    fn answer_bargain(&self, fee: Sat, offer: Option<Offer>, counteroffer: Option<Sat>) -> Result<Answer, Violation> {
        let range = self.range.min_fee_satoshis..=self.range.max_fee_satoshis;
        if range.contains(&fee) {
            return Ok(Answer::Accept);
        }
        let Some(offer) = offer else {
            return Ok(Answer::Counter(self.preferred));
        };
        if counteroffer.is_some_and(|last| !strictly_between(fee, offer.fee, last)) {
            return Err(Violation::Warn(Rule::ClosingFee));
        }
        let next = half_way(offer.fee, fee.clamp(*range.start(), *range.end()));
        // Nobody is to blame where the ranges do not meet: the next connection may find other fees.
        if strictly_between(next, offer.fee, fee) {
            Ok(Answer::Counter(next))
        } else {
            Err(Violation::Warn(Rule::ClosingFee))
        }
    }
}

/// Half of the way to what we would give at most, the last satoshi of it included. Peers such as LND come towards us by
/// a tenth in each round, so a limit that is offered at once leaves no fee to answer with while they do.
fn half_way(from: Sat, to: Sat) -> Sat {
    match Sat::new(from.get().midpoint(to.get())) {
        middle if middle == from => to,
        middle => middle,
    }
}

fn strictly_between(fee: Sat, one: Sat, other: Sat) -> bool {
    one.min(other) < fee && fee < one.max(other)
}

fn wanted_feerate(head: &ChannelHead, cx: &Context<'_>) -> FeeratePerKw {
    match head.phase {
        Phase::ShuttingDown { feerate, .. } => feerate,
        Phase::Funding(_) | Phase::Normal | Phase::Closing { .. } | Phase::Closed { .. } | Phase::Failed { .. } => {
            cx.feerates.normal
        }
    }
}

/// The fee of a close that is agreed on already: offered again, it gives the same transaction.
fn agreed_fee(params: &ChannelParams, head: &ChannelHead) -> Option<Sat> {
    let Phase::Closing { tx, confirmed_height: None, .. } = &head.phase else { return None };
    let (balance, script) = match params.opener() {
        Side::Local => (head.local_commitment.to_local, head.local_shutdown.as_ref()?),
        Side::Remote => (head.local_commitment.to_remote, head.remote_shutdown.as_ref()?),
    };
    let kept = tx.output.iter().find(|output| output.script_pubkey == *script)?.value;
    Msat::to_sat_floor(balance).checked_sub(kept.into())
}

/// A transaction at this height spends the funding output; in any phase but Failed.
pub(crate) fn on_funding_spent(draft: &mut Draft<'_>, height: u32, tx: &Transaction, cx: &Context<'_>) {
    let (params, head) = (draft.params(), draft.head());
    let txid = tx.compute_txid();
    if matches!(head.phase, Phase::Closed { .. }) {
        return;
    }
    if !onchain::is_of_channel(params, head, tx, cx.signer) {
        return funding::never_was(draft, height);
    }
    let proof = restored::proof_in(draft, tx);
    match onchain::number_of(params, tx) {
        None if proof.is_none() => {
            let all = head.phase.closes_to_publish();
            let others = all.into_iter().filter(|close| close.compute_txid() != txid).cloned().collect();
            let wanted = wanted_still(&head.phase);
            let confirmed_height = Some(height);
            draft.set_phase(Phase::Closing { tx: tx.clone(), others, wanted, confirmed_height });
            bury(draft, height, cx);
        }
        number => {
            let what = if number.is_some() { "commitment transaction" } else { "a close that no record is of," };
            // The peer holds a newer state, and ours is revoked (CST-1). Under restored mode it may be so without proof.
            let publish = proof.is_none() && !cx.restored;
            draft.fail(format!("{what} {txid} spent the funding output"), publish);
            ended::spent(draft, (height, tx), proof, cx);
        }
    }
}

/// A reorganisation took the close out of its block: it goes out again.
pub(crate) fn on_funding_spend_unconfirmed(draft: &mut Draft<'_>, _: &Context<'_>) {
    if !matches!(draft.head().phase, Phase::Closing { confirmed_height: Some(_), .. }) {
        return;
    }
    if let Phase::Closing { confirmed_height, .. } = &mut draft.head_mut().phase {
        *confirmed_height = None;
    }
    let closes: Vec<Transaction> = draft.head().phase.closes_to_publish().into_iter().cloned().collect();
    for tx in closes {
        draft.effect(Effect::Publish { what: Publication::MutualClose, tx });
    }
}

/// A height came that the phase Closing may have asked for.
pub(crate) fn on_height(draft: &mut Draft<'_>, height: u32, cx: &Context<'_>) {
    bury(draft, height, cx);
}

/// Ends the channel once its close is as deep as the policy asks, or asks to be told when it is.
fn bury(draft: &mut Draft<'_>, height: u32, cx: &Context<'_>) {
    let Phase::Closing { tx, confirmed_height: Some(confirmed), .. } = &draft.head().phase else { return };
    let (txid, confirmed) = (tx.compute_txid(), *confirmed);
    let buried = buried_at(confirmed, cx.policy.close_depth);
    if height < buried {
        draft.effect(Effect::Watch(Watch::Height(buried)));
        return;
    }
    let to_us = own_script(draft.head(), draft.params());
    let paid = tx.output.iter().filter(|output| Some(&output.script_pubkey) == to_us);
    let paid = paid.map(|output| Sat::from(output.value)).fold(Sat::ZERO, Sat::saturating_add);
    let ours = draft.head().local_commitment.to_local;
    let note = ChannelNote::Closed { txid, height: confirmed, ours, paid: Some(paid) };
    ended::close(draft, txid, confirmed, note);
}

/// The height of the block that buries a close under `depth` blocks, its own included.
pub(crate) fn buried_at(confirmed: u32, depth: u32) -> u32 {
    confirmed.saturating_add(depth.saturating_sub(1))
}

/// What the phase Closing waits for in the chain, besides the funding output: a block of this height or later, which then
/// asks for the one that buries the close.
pub(crate) fn watches(head: &ChannelHead) -> Option<Watch> {
    match head.phase {
        Phase::Closing { confirmed_height, .. } => confirmed_height.map(Watch::Height),
        Phase::Funding(_)
        | Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closed { .. }
        | Phase::Failed { .. } => None,
    }
}
