//! What a failed channel has in the chain: the spend of its funding output, what of it is ours, and when all of that is
//! buried (BOLT 5). Derived from the rows of what stands in the chain now; a reorganisation takes rows back, nothing else.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{OutPoint, Transaction, ecdsa};
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::PaymentHash;
use outrigger_bolt::tx::commitment::{self, HtlcDirection};

use super::claim::{self, Claim, ClaimKind};
use super::{Monitor, Spend, contents};
use crate::changes::{ChannelHead, ChannelParams, FundingSpend, Removal, Taken};
use crate::commitments::htlc::{Offerer, Side};
use crate::commitments::spec::commitment_htlc;
use crate::input::{ChainEvent, Context};
use crate::phase::closing::buried_at;
use crate::signer::Signer;
use crate::transition::{ChannelNote, Effect, HtlcOutcome, Watch};

/// Blocks after its expiry at which an HTLC that we offered is to be timed out on the chain, and before its expiry at which one is
/// to be claimed there whose preimage we know (BOLT 2, "`cltv_expiry_delta` Selection": `G`, and `2R+G+S`).
const TIMEOUT_GRACE: u32 = 2;
const CLAIM_BLOCKS: u32 = 18;

/// All that is to be enforced for one failed channel as the chain stands now. Whoever carries it out replaces what was
/// given before: it is the whole, never an addition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// Our newest commitment, while nothing in the chain spends the funding output. None where it must not be published.
    pub publish: Option<Publish>,
    /// What can be taken from the chain and was not taken yet.
    pub claims: Vec<Claim>,
}

/// Our newest commitment on its way into a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Signed by both.
    pub tx: Transaction,
    /// What it pays by itself.
    pub fee: Sat,
    /// Its anchor of ours, by which a child can pay more; none where neither a balance nor an HTLC of ours is in it.
    pub anchor: Option<Claim>,
    /// What is ours in it: the bound of all fees for it.
    pub at_stake: Sat,
}

impl Monitor {
    /// What is to be enforced now, or `None` where the channel has not failed, or is over.
    pub fn enforcement(&self, signer: &dyn Signer) -> Option<Enforcement> {
        let head = &self.rows.head;
        if !head.failed || head.closed {
            return None;
        }
        let publish = if self.rows.spend.is_none() { self.publish(signer) } else { None };
        Some(Enforcement { publish, claims: self.claims(signer) })
    }

    /// What of ours stands in the chain and was not taken yet; not what is too small to be worth its fee.
    pub fn claims(&self, signer: &dyn Signer) -> Vec<Claim> {
        let mut claims = self.balances(signer);
        claims.retain(|claim| claim.is_worth_taking() && !self.rows.taken.contains_key(&claim.outpoint));
        claims
    }

    /// What the chain must tell of a failed channel's outputs; the same before and after a restart. `depth` is the
    /// policy's `close_depth`.
    pub fn watches(&self, signer: &dyn Signer, depth: u32) -> Vec<Watch> {
        if !self.rows.head.failed || self.rows.head.closed {
            return Vec::new();
        }
        let output = |claim: Claim| Watch::Output { outpoint: claim.outpoint, kind: claim.kind, value: claim.value() };
        let mut watches: Vec<_> = self.balances(signer).into_iter().map(output).collect();
        watches.extend(self.due_height().map(Watch::Height));
        watches.extend(self.untold().map(|taken| Watch::Height(buried_at(taken.height, depth))));
        watches.extend(self.end_height(signer).map(|end| Watch::Height(buried_at(end, depth))));
        watches
    }

    /// What the channel is to be told of a chain event: what the monitor knows already is dropped, and a height that buries
    /// the end of the channel says so.
    pub(super) fn informed<'a>(&self, event: ChainEvent<'a>, cx: &Context<'_>) -> Option<ChainEvent<'a>> {
        match event {
            ChainEvent::OutputSpent { outpoint, height, tx, .. } => {
                let known = self.rows.taken.get(&outpoint);
                let repeated = known.is_some_and(|taken| taken.txid == tx.compute_txid() && taken.height == height);
                let concerns_us = self.rows.spend.is_some() && !self.rows.head.closed;
                (concerns_us && !repeated).then_some(event)
            }
            ChainEvent::Height(height) if self.rows.head.failed && !self.rows.head.closed => {
                let is_buried = |found: &u32| height >= buried_at(*found, cx.policy.close_depth);
                let end = self.end_height(cx.signer).filter(is_buried);
                let taken = self.untold().map(|taken| taken.height).filter(is_buried).max();
                let of_taken = taken.map_or(event, |height| ChainEvent::TakenBuried { height });
                let due = self.due_height().filter(|due| height >= *due);
                let of_taken = due.map_or(of_taken, |_| ChainEvent::Due);
                Some(end.map_or(of_taken, |height| ChainEvent::Buried { height }))
            }
            ChainEvent::FundingConfirmed { .. }
            | ChainEvent::FundingUnconfirmed
            | ChainEvent::FundingSpent { .. }
            | ChainEvent::FundingSpendUnconfirmed
            | ChainEvent::OutputsUnspent { .. }
            | ChainEvent::Height(_)
            | ChainEvent::TakenBuried { .. }
            | ChainEvent::Buried { .. }
            | ChainEvent::Due => Some(event),
        }
    }

    /// What an operator is told of a spend of the funding output by which the channel has failed, or after which it had.
    /// `proves`: it proves that our rows are old, so nothing in them explains it (OCC-16).
    pub(super) fn spend_note(&self, spend: &FundingSpend, proves: bool, signer: &dyn Signer) -> ChannelNote {
        let params = &self.rows.params;
        let what = if proves { Spend::Unknown } else { self.classify(&spend.tx, signer) };
        let number = number_of(params, &spend.tx);
        let ours = number.map(|number| claim::balances(params, signer, number, (&spend.tx, spend.height)));
        let (ours, left): (Vec<_>, Vec<_>) = ours.unwrap_or_default().into_iter().partition(Claim::is_worth_taking);
        let sum = |claims: &[Claim]| claims.iter().map(Claim::value).fold(Sat::ZERO, Sat::saturating_add);
        ChannelNote::Spent {
            txid: spend.tx.compute_txid(),
            height: spend.height,
            what,
            ours: sum(&ours),
            left: sum(&left),
            from_height: ours.iter().map(|claim| claim.from_height).max().unwrap_or(spend.height),
            fee: params.capacity.saturating_sub(paid_out(&spend.tx)),
        }
    }

    /// What came home in blocks up to this height, told once, when it is buried.
    pub(super) fn swept_notes(&self, up_to: u32) -> impl Iterator<Item = ChannelNote> + '_ {
        self.untold().filter(move |taken| taken.height <= up_to).map(|taken| ChannelNote::Swept {
            txid: taken.txid,
            amount: taken.value.saturating_sub(taken.fee.unwrap_or(Sat::ZERO)),
            fee: taken.fee,
        })
    }

    /// What becomes of HTLCs that we offered where the channel ends on the chain without an output for them (BOLT 5, "HTLC
    /// Output Handling"): it does not end while there are any outputs of HTLCs. One whose preimage is known is claimed with
    /// it, whoever told that (FWD-1): its own removal, which was told already, or that of another with its hash. Where rows
    /// are known to be old, one that they show as open may have been fulfilled since: nothing is told of it.
    pub(super) fn without_output(&self, are_old: bool) -> impl Iterator<Item = Effect> + '_ {
        let offered = self.rows.htlcs.iter().filter(|(key, _)| key.offerer == Offerer::Local);
        offered.filter_map(move |(key, row)| {
            let (source, payment_hash) = (row.source?, row.payment_hash);
            let (amount, outcome) = match (&row.removal, self.rows.preimages.get(&payment_hash)) {
                (Some(Removal::Fulfilled(_)), _) => return None,
                // Its own amount came back; what the other brought is told of the other.
                (Some(Removal::Failed(_)), Some(preimage)) => (Msat::ZERO, HtlcOutcome::Fulfilled(*preimage)),
                (None, Some(preimage)) => (row.amount, HtlcOutcome::Fulfilled(*preimage)),
                (Some(Removal::Failed(reason)), None) => (row.amount, HtlcOutcome::Failed(reason.clone())),
                (None, None) if are_old => return None,
                (None, None) => (row.amount, HtlcOutcome::NoOutput),
            };
            Some(Effect::Settle { htlc_id: key.id, source, amount, payment_hash, outcome })
        })
    }

    fn untold(&self) -> impl Iterator<Item = &Taken> {
        self.rows.taken.values().filter(|taken| !taken.told)
    }

    /// Our balances in the spend of the funding output, taken or not.
    fn balances(&self, signer: &dyn Signer) -> Vec<Claim> {
        let Some(FundingSpend { tx, height }) = &self.rows.spend else { return Vec::new() };
        let Some(number) = number_of(&self.rows.params, tx) else { return Vec::new() };
        claim::balances(&self.rows.params, signer, number, (tx, *height))
    }

    /// The height of the newest block that holds the spend or something that was taken from it, once nothing more is to be
    /// taken. HTLC outputs and penalties are not resolved yet, so a channel that has any stays failed.
    fn end_height(&self, signer: &dyn Signer) -> Option<u32> {
        let spend = self.rows.spend.as_ref()?;
        if self.has_more(&spend.tx, signer) {
            return None;
        }
        let mut last = spend.height;
        for claim in self.balances(signer) {
            match self.rows.taken.get(&claim.outpoint) {
                Some(taken) => last = last.max(taken.height),
                None if claim.is_worth_taking() => return None,
                // Too small: it stays where it is. From this height on that is final.
                None => last = last.max(claim.from_height),
            }
        }
        Some(last)
    }

    /// Whether the spend holds what only a later release resolves.
    fn has_more(&self, spend: &Transaction, signer: &dyn Signer) -> bool {
        match self.classify(spend, signer) {
            Spend::Mutual => false,
            Spend::Local => {
                let txid = spend.compute_txid();
                let found = self.own_commitments(signer).find(|commitment| commitment.tx.compute_txid() == txid);
                found.is_none_or(|commitment| !commitment.htlc_outputs.is_empty())
            }
            Spend::Remote | Spend::RemoteNext => {
                let txid = spend.compute_txid();
                let remote = self.remote_commitments(signer).unwrap_or_default();
                let found = remote.iter().find(|commitment| commitment.tx.compute_txid() == txid);
                found.is_none_or(|commitment| !commitment.htlc_outputs.is_empty())
            }
            Spend::Revoked(_) => true,
            Spend::Unknown => !self.rows.htlcs.is_empty(),
        }
    }

    fn publish(&self, signer: &dyn Signer) -> Option<Publish> {
        if !self.rows.head.may_publish {
            return None;
        }
        let commitment = self.closing_commitment(signer).ok()?;
        let tx = self.local_commitment_tx(signer).ok()?;
        let params = &self.rows.params;
        let at_stake = self.at_stake();
        let fee = params.capacity.saturating_sub(paid_out(&tx));
        let anchor = commitment.owner_anchor_index.and_then(|vout| claim::anchor(params, &tx, vout, at_stake));
        Some(Publish { tx, fee, anchor, at_stake })
    }

    /// What is ours in the commitment that is published: the balance, what we offered, and what we know the preimage of.
    fn at_stake(&self) -> Sat {
        let (to_local, htlcs) = match &self.rows.head.replaced {
            None => (self.rows.head.local.to_local, contents::standing(&self.rows)),
            Some(replaced) => (replaced.commitment.to_local, replaced.htlcs.clone()),
        };
        let ours = htlcs.iter().filter(|htlc| match htlc.direction {
            HtlcDirection::Offered => true,
            HtlcDirection::Received => self.rows.preimages.contains_key(&htlc.payment_hash),
        });
        let htlcs: Msat = ours.map(|htlc| htlc.amount).sum();
        to_local.saturating_add(htlcs).to_sat_floor()
    }

    /// The height at which the commitment that is reserved is published: the first deadline of an HTLC in it, or in what came after
    /// it on either side, while nothing in the chain spends the funding output.
    fn due_height(&self) -> Option<u32> {
        if !self.rows.head.reserved || self.rows.spend.is_some() {
            return None;
        }
        let replaced = self.rows.head.replaced.iter().flat_map(|replaced| &replaced.htlcs);
        let replaced = replaced.map(|htlc| (htlc.direction, htlc.payment_hash, htlc.cltv_expiry));
        let standing = self.rows.htlcs.iter().map(|(key, row)| {
            let htlc = commitment_htlc(Side::Local, *key, row);
            (htlc.direction, htlc.payment_hash, htlc.cltv_expiry)
        });
        let deadline = |(direction, payment_hash, cltv_expiry): (HtlcDirection, PaymentHash, u32)| match direction {
            HtlcDirection::Offered => Some(cltv_expiry.saturating_add(TIMEOUT_GRACE)),
            HtlcDirection::Received => {
                let is_ours = self.rows.preimages.contains_key(&payment_hash);
                is_ours.then(|| cltv_expiry.saturating_sub(CLAIM_BLOCKS))
            }
        };
        replaced.chain(standing).filter_map(deadline).min()
    }
}

/// How an output was taken by a transaction in the block at `height`. The fee is known where the output is all that the
/// transaction spends.
pub(crate) fn taken(kind: ClaimKind, value: Sat, outpoint: OutPoint, (tx, height): (&Transaction, u32)) -> Taken {
    let alone = matches!(tx.input.as_slice(), [input] if input.previous_output == outpoint);
    let fee = alone.then(|| value.saturating_sub(paid_out(tx)));
    Taken { kind, txid: tx.compute_txid(), height, value, fee, told: false }
}

/// Whether what `tx` spends is the channel's funding output, and not just what a peer that opened the channel named as such.
/// An output that was seen in a block, or made by us, is spent by both sides' signatures alone; any other proves itself by
/// ours.
pub(crate) fn is_of_channel(params: &ChannelParams, head: &ChannelHead, tx: &Transaction, signer: &dyn Signer) -> bool {
    params.is_opener || head.short_channel_id.is_some() || is_signed_by_us(params, tx, signer)
}

/// Whether the witness of a commitment or close holds our signature. Anybody may have changed its S on the way.
fn is_signed_by_us(params: &ChannelParams, tx: &Transaction, signer: &dyn Signer) -> bool {
    let [input] = tx.input.as_slice() else { return false };
    let (sighash, key) = (params.funding_output().sighash(tx), &params.local.basepoints.funding_pubkey);
    let found = input.witness.iter().filter_map(|element| ecdsa::Signature::from_slice(element).ok());
    let mut signatures = found.map(|found| low_s(found.signature));
    input.previous_output == params.funding
        && signatures.any(|signature| signer.verify(&sighash, &signature, key).is_ok())
}

fn low_s(mut signature: Signature) -> Signature {
    signature.normalize_s();
    signature
}

impl ChannelParams {
    /// Whether a spend of the funding output has the form of a commitment, whoever's and however old. If not, both have
    /// signed it as a close.
    pub fn is_commitment(&self, spend: &Transaction) -> bool {
        number_of(self, spend).is_some()
    }
}

/// The number in a spend that has the form of a commitment; closes have none (BOLT 3, "Commitment Transaction").
pub(crate) fn number_of(params: &ChannelParams, tx: &Transaction) -> Option<u64> {
    let (opener, accepter) =
        if params.is_opener { (&params.local, &params.remote) } else { (&params.remote, &params.local) };
    let factor = commitment::obscuring_factor(&opener.basepoints.payment, &accepter.basepoints.payment);
    commitment::commitment_number(tx, factor)
}

fn paid_out(tx: &Transaction) -> Sat {
    tx.output.iter().map(|output| Sat::from(output.value)).fold(Sat::ZERO, Sat::saturating_add)
}
