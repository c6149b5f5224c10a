//! Carrying plans out: sign, store, publish, and read bitcoind's answer.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::id::ChannelId;
use outrigger_channel::{Claim, Enforcement, Publish};
use serde_json::json;

use super::plan::{Draft, Lack, Market, Plan, Prior, plan_child, plan_sweep};
use super::{Shared, Tools, Work};
use crate::chain::PackageAnswer;
use crate::chain::fault::{FaultKind, RpcFault};
use crate::clock::Clock;
use crate::store::Batch;
use crate::store::row::{EventRow, SweepRow};
use crate::store::schema::{Table, outpoint_key};
use crate::wallet::{Coin, Wallet, WalletFault};

/// How often a child is made anew in one visit because coins of it turned out to be gone.
const MOST_ATTEMPTS: usize = 4;

/// What became of something that was handed to bitcoind.
enum Answer {
    /// The network has it.
    Taken,
    /// A coin of this transaction is not there.
    CoinGone,
    /// The mempool does not want it, for this reason.
    Refused(String),
    /// bitcoind could not be asked.
    NotAsked(RpcFault),
}

/// Which output a transaction is made for.
#[derive(Clone, Copy)]
enum Goal<'a> {
    Child(&'a Publish, &'a Claim),
    Sweep(&'a Claim),
}

impl<'a> Goal<'a> {
    fn claim(self) -> &'a Claim {
        match self {
            Self::Child(_, claim) | Self::Sweep(claim) => claim,
        }
    }
}

/// The thread's own memory. All of it may be lost.
pub(super) struct Carrier {
    tools: Tools,
    /// By output, how often it was outbid since the last plan, at most once a block, and at which height last.
    refusals: BTreeMap<(ChannelId, OutPoint), (u32, u32)>,
    /// What the operator was told of and is not told again.
    told: BTreeSet<(ChannelId, OutPoint)>,
}

impl Carrier {
    pub(super) fn new(tools: Tools) -> Self {
        Self { tools, refusals: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Does what is due for each of the channels.
    pub(super) fn visit(&mut self, works: Vec<(ChannelId, Work)>, shared: &Shared) {
        self.tools.estimator.refresh();
        let estimates = self.tools.estimator.current();
        for (channel, work) in works {
            let mut height = None;
            self.tools.purse.with(&mut |wallet, _| height = wallet.tip().map(|(height, _)| height));
            let Some(height) = height else { return };
            let market = Market { height, target: estimates.normal, floor: estimates.floor };
            match work.enforcement.clone() {
                Some(enforcement) => self.serve(channel, &work, &enforcement, &market, shared),
                None => self.end(channel, shared),
            }
        }
    }

    fn serve(&mut self, channel: ChannelId, work: &Work, todo: &Enforcement, market: &Market, shared: &Shared) {
        let mut active = Vec::new();
        if let Some(publish) = &todo.publish {
            active.extend(publish.anchor.as_ref().map(|anchor| anchor.outpoint));
            self.publish(channel, work, publish, market, shared);
        }
        for claim in &todo.claims {
            active.push(claim.outpoint);
            self.sweep(channel, work, claim, market, shared);
        }
        let idle = shared.rows(channel).into_iter().filter(|(outpoint, _)| !active.contains(outpoint));
        for (outpoint, row) in idle {
            self.set_free(outpoint, &row);
        }
    }

    /// Publishes the commitment, with its child where it needs one.
    fn publish(&mut self, channel: ChannelId, work: &Work, publish: &Publish, market: &Market, shared: &Shared) {
        if let Some(close) = self.close_of_both(work, publish) {
            tracing::debug!(%channel, txid = %close, "both have signed a close that waits for a block");
            return;
        }
        let mut gone = Vec::new();
        for _ in 0..MOST_ATTEMPTS {
            let child = publish
                .anchor
                .as_ref()
                .and_then(|anchor| self.make(channel, work, Goal::Child(publish, anchor), market, &gone, shared));
            let answer = match &child {
                Some(child) => self.submit(&publish.tx, child),
                None => self.broadcast(&publish.tx),
            };
            let anchor = publish.anchor.as_ref().map(|anchor| anchor.outpoint);
            match (answer, &child) {
                // Made anew without these coins in the same block (OCC-7).
                (Answer::CoinGone, Some(child)) => {
                    gone.extend(child.input.iter().map(|input| input.previous_output));
                }
                (answer, _) => {
                    let rival = self.rival(publish);
                    return self.note(
                        (channel, market.height),
                        anchor.filter(|_| rival.is_none() && child.is_some()),
                        &publish.tx,
                        answer,
                        rival,
                    );
                }
            }
        }
    }

    /// Publishes the transaction that brings one output home, once a block may hold it.
    fn sweep(&mut self, channel: ChannelId, work: &Work, claim: &Claim, market: &Market, shared: &Shared) {
        if let Some(tx) = self.make(channel, work, Goal::Sweep(claim), market, &[], shared) {
            let answer = self.broadcast(&tx);
            self.note((channel, market.height), Some(claim.outpoint), &tx, answer, None);
        }
    }

    /// The transaction to publish for an output, planned now: a new one, which is a row before it is returned, or the one
    /// before. None where there is nothing to publish.
    fn make(
        &mut self,
        channel: ChannelId,
        work: &Work,
        goal: Goal<'_>,
        market: &Market,
        gone: &[OutPoint],
        shared: &Shared,
    ) -> Option<Transaction> {
        let outpoint = goal.claim().outpoint;
        let before = shared.row(channel, outpoint);
        let refusals = self.refusals.get(&(channel, outpoint)).map_or(0, |(count, _)| *count);
        let (mut made, mut lack) = (None, None);
        self.tools.purse.with(&mut |wallet, batch| {
            (made, lack) = match step(wallet, work, goal, (before.as_ref(), refusals, gone), market) {
                Ok(Step::Nothing) => (None, None),
                Ok(Step::Same(tx)) => (Some((tx, None)), None),
                Ok(Step::New(row)) => {
                    store(batch, channel, work, outpoint, &row, goal);
                    (Some((row.tx.clone(), Some(row))), None)
                }
                Ok(Step::Lacks(lack)) => (None, Some(lack)),
                Err(fault) => {
                    tracing::error!(%channel, %outpoint, %fault, "a transaction for a failed channel was not made");
                    (None, None)
                }
            };
        });
        if let Some(lack) = lack {
            self.tell_lack(channel, work, outpoint, lack);
        }
        let (tx, row) = made?;
        if let Some(row) = row {
            self.refusals.remove(&(channel, outpoint));
            self.told.remove(&(channel, outpoint));
            shared.put(channel, outpoint, row);
        }
        Some(tx)
    }

    /// The operator hears once what lacks and what to do.
    fn tell_lack(&mut self, channel: ChannelId, work: &Work, outpoint: OutPoint, lack: Lack) {
        if !self.told.insert((channel, outpoint)) {
            return;
        }
        tracing::warn!(%channel, %lack, "a failed channel cannot pay the fee that it should");
        let node_id = work.params.peer;
        self.tools.purse.with(&mut |_, batch| {
            let fields = json!({
                "channel_id": channel.to_string(), "node_id": node_id.to_string(), "message": lack.to_string()
            });
            batch.event(EventRow::new(Clock::now_unix(), "channel_underpaid", fields));
        });
    }

    fn note(
        &mut self,
        (channel, height): (ChannelId, u32),
        outpoint: Option<OutPoint>,
        tx: &Transaction,
        answer: Answer,
        rival: Option<Txid>,
    ) {
        let txid = tx.compute_txid();
        match answer {
            Answer::Taken => tracing::debug!(%channel, %txid, "published"),
            Answer::Refused(reason) => {
                tracing::warn!(%channel, %txid, %reason, ?rival, "not taken by bitcoind, will be planned again");
                // More money cures nothing else: what lacks its parent, or is not standard, would only get dear.
                if let Some(outpoint) = outpoint.filter(|_| is_outbid(&reason)) {
                    let (count, last) = self.refusals.entry((channel, outpoint)).or_insert((0, 0));
                    if *last < height {
                        (*count, *last) = (count.saturating_add(1), height);
                    }
                }
            }
            Answer::CoinGone => tracing::warn!(%channel, %txid, ?rival, "what it spends is not there now"),
            Answer::NotAsked(fault) => tracing::warn!(%channel, %txid, %fault, hint = fault.hint(), "not published"),
        }
    }

    /// Another commitment in the mempool, which ours may give way to: then a refusal is no reason to pay more.
    fn rival(&self, publish: &Publish) -> Option<Txid> {
        let funding = publish.tx.input.first()?.previous_output;
        let found = self.tools.source.mempool_spender(funding).ok()??;
        (found != publish.tx.compute_txid()).then_some(found)
    }

    /// A close in the mempool that both have signed: a peer that got our signature, and whose own was lost, knows no such
    /// channel any more, and says so as an error. It gives each side what it has, at once and for less, so nothing of ours
    /// competes with it for as long as the mempool has it.
    fn close_of_both(&self, work: &Work, publish: &Publish) -> Option<Txid> {
        let rival = self.rival(publish)?;
        let tx = self.tools.source.mempool_transaction(rival).ok()??;
        (!work.params.is_commitment(&tx)).then_some(rival)
    }

    /// A transaction for an output that is not to be spent now: a child whose commitment is in a block or has lost against
    /// another, a sweep of what a reorganisation took back. Where no mempool has it, its coins are free.
    fn set_free(&self, outpoint: OutPoint, row: &SweepRow) {
        let txid = row.tx.compute_txid();
        let mut counts = false;
        self.tools.purse.with(&mut |wallet, _| counts = wallet.counts_unconfirmed(txid));
        if counts && self.tools.source.mempool_spender(outpoint) == Ok(None) {
            tracing::info!(%txid, "its coins are free again");
            self.tools.purse.with(&mut |wallet, _| wallet.release(txid));
        }
    }

    /// The channel is over, and with it the rows of its transactions.
    fn end(&mut self, channel: ChannelId, shared: &Shared) {
        let rows = shared.rows(channel);
        for (outpoint, row) in &rows {
            self.set_free(*outpoint, row);
        }
        self.tools.purse.with(&mut |_, batch| {
            for (outpoint, _) in &rows {
                batch.put(Table::Sweep, outpoint_key(&channel, outpoint), None);
            }
        });
        shared.forget(channel);
        self.told.retain(|(owner, _)| *owner != channel);
        self.refusals.retain(|(owner, _), _| *owner != channel);
    }

    /// Parent and child together; one after the other where bitcoind knows no packages.
    fn submit(&self, parent: &Transaction, child: &Transaction) -> Answer {
        let package = [parent.clone(), child.clone()];
        match self.tools.source.submit_package(&package) {
            Ok(PackageAnswer::Accepted) => Answer::Taken,
            Ok(PackageAnswer::Refused(reasons)) => package_answer(&reasons, child.compute_txid()),
            Err(fault) if fault.kind == FaultKind::NoSuchCall => match self.broadcast(parent) {
                Answer::Taken => self.broadcast(child),
                refused => refused,
            },
            Err(fault) => fault_answer(fault),
        }
    }

    fn broadcast(&self, tx: &Transaction) -> Answer {
        match self.tools.source.broadcast(tx) {
            Ok(_) => Answer::Taken,
            Err(fault) => fault_answer(fault),
        }
    }
}

/// What one look at the wallet leads to.
enum Step {
    Nothing,
    Same(Transaction),
    New(SweepRow),
    Lacks(Lack),
}

/// Plans for one output and signs what is new. The wallet counts it from here on.
fn step(
    wallet: &mut Wallet,
    work: &Work,
    goal: Goal<'_>,
    (before, refusals, gone): (Option<&SweepRow>, u32, &[OutPoint]),
    market: &Market,
) -> Result<Step, WalletFault> {
    if before.is_some_and(|row| wallet.has_confirmed(row.tx.compute_txid())) {
        // In a block already: the channel is about to say so.
        return Ok(Step::Nothing);
    }
    let prior = before.map(|row| Prior { tx: &row.tx, fee: row.fee, since_height: row.since_height, refusals });
    let to = before.and_then(|row| row.tx.output.first()).map(|output| output.script_pubkey.clone());
    // Of the right length; the real one is taken only where it is needed.
    let placeholder = ScriptBuf::from_bytes([[0x00, 0x14].as_slice(), &[0; 20]].concat());
    let planned_to = to.as_ref().unwrap_or(&placeholder);
    let plan = match goal {
        Goal::Child(publish, _) => {
            let mut coins: Vec<Coin> = wallet.coins(before.map(|row| &row.tx));
            coins.retain(|coin| !gone.contains(&coin.outpoint));
            plan_child(publish, prior, &coins, planned_to, market)
        }
        Goal::Sweep(claim) => plan_sweep(claim, prior, planned_to, market),
    };
    match plan {
        Plan::Alone | Plan::NotYet => Ok(Step::Nothing),
        Plan::Lacks(lack) => Ok(Step::Lacks(lack)),
        Plan::Keep => {
            let Some(row) = before else { return Ok(Step::Nothing) };
            if !wallet.counts_unconfirmed(row.tx.compute_txid()) {
                wallet.saw_unconfirmed(&row.tx);
            }
            Ok(Step::Same(row.tx.clone()))
        }
        Plan::Make(draft) => {
            let to = match (to, goal) {
                (Some(to), _) => to,
                (None, Goal::Child(..)) => wallet.change_script()?,
                (None, Goal::Sweep(_)) => wallet.new_address()?.script_pubkey(),
            };
            let row =
                sign(wallet, work, goal.claim(), draft, to, before.map_or(market.height, |row| row.since_height))?;
            if let Some(before) = before {
                wallet.release(before.tx.compute_txid());
            }
            wallet.saw_unconfirmed(&row.tx);
            Ok(Step::New(row))
        }
    }
}

fn sign(
    wallet: &Wallet,
    work: &Work,
    claim: &Claim,
    draft: Draft,
    to: ScriptBuf,
    since_height: u32,
) -> Result<SweepRow, WalletFault> {
    let Draft { mut tx, spent, fee } = draft;
    if let Some(output) = tx.output.first_mut() {
        output.script_pubkey = to;
    }
    wallet.sign_coins(&mut tx, &spent)?;
    let witness = claim
        .witness(&*work.signer, &work.params, &tx, 0)
        .map_err(|refused| WalletFault::Inconsistent(refused.to_string()))?;
    if let Some(input) = tx.input.first_mut() {
        input.witness = witness;
    }
    Ok(SweepRow { tx, fee, since_height })
}

fn store(batch: &mut Batch, channel: ChannelId, work: &Work, outpoint: OutPoint, row: &SweepRow, goal: Goal<'_>) {
    batch.put(Table::Sweep, outpoint_key(&channel, &outpoint), Some(row.encode()));
    let message = match goal {
        Goal::Child(publish, _) => {
            format!("pays for our commitment {}, which pays {} by itself", publish.tx.compute_txid(), publish.fee)
        }
        Goal::Sweep(claim) => format!("brings {} of {} to the wallet", left(claim, row.fee), claim.outpoint),
    };
    let fields = json!({
        "channel_id": channel.to_string(),
        "node_id": work.params.peer.to_string(),
        "txid": row.tx.compute_txid().to_string(),
        "fee_sat": row.fee.get(),
        "message": message,
    });
    batch.event(EventRow::new(Clock::now_unix(), "channel_fee_paid", fields));
}

fn left(claim: &Claim, fee: Sat) -> Sat {
    claim.value().saturating_sub(fee)
}

fn fault_answer(fault: RpcFault) -> Answer {
    match fault.kind.refusal() {
        Some(-27) => Answer::Taken,
        Some(-25) if is_missing(&fault.message) => Answer::CoinGone,
        Some(_) => Answer::Refused(fault.message),
        None => Answer::NotAsked(fault),
    }
}

/// A coin of the child is gone where bitcoind says so of the child alone: without its parent it lacks the anchor too.
fn package_answer(reasons: &[(Option<Txid>, String)], child: Txid) -> Answer {
    let of_child = reasons.iter().any(|(txid, reason)| *txid == Some(child) && is_missing(reason));
    let of_parent = reasons.iter().any(|(txid, _)| *txid != Some(child));
    if of_child && !of_parent {
        return Answer::CoinGone;
    }
    let reasons: Vec<&str> = reasons.iter().map(|(_, reason)| reason.as_str()).collect();
    Answer::Refused(reasons.join("; "))
}

fn is_missing(reason: &str) -> bool {
    reason.contains("missingorspent")
}

/// Whether bitcoind wants more money: than what is in its mempool pays (BIP 125), or because its floor has risen.
fn is_outbid(reason: &str) -> bool {
    ["insufficient fee", "rejecting replacement", "mempool min fee not met"].iter().any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn txid(number: u8) -> Txid {
        Txid::from_byte_array([number; 32])
    }

    fn name(answer: Answer) -> &'static str {
        match answer {
            Answer::Taken => "taken",
            Answer::CoinGone => "coin gone",
            Answer::Refused(_) => "refused",
            Answer::NotAsked(_) => "not asked",
        }
    }

    #[test]
    fn occ_7_a_missing_coin_of_the_child_is_told_from_a_missing_parent() {
        let missing = || "bad-txns-inputs-missingorspent".to_owned();
        let (parent, child) = (Some(txid(1)), Some(txid(2)));
        let cases = [
            (vec![(child, missing())], "coin gone"),
            (vec![(parent, missing()), (child, missing())], "refused"),
            (vec![(parent, missing())], "refused"),
            (vec![(child, "insufficient fee, rejecting replacement".to_owned())], "refused"),
            (vec![(None, "package-mempool-limits".to_owned())], "refused"),
            (vec![], "refused"),
        ];
        for (reasons, expected) in cases {
            assert_eq!(name(package_answer(&reasons, txid(2))), expected, "{reasons:?}");
        }
    }

    #[test]
    fn btc_8_refusals_of_sweeps_by_their_codes() {
        let refused = |code, text: &str| fault_answer(RpcFault::new(FaultKind::Refused(code), text));
        assert_eq!(name(refused(-27, "Transaction already in block chain")), "taken");
        assert_eq!(name(refused(-25, "bad-txns-inputs-missingorspent")), "coin gone");
        assert_eq!(name(refused(-26, "non-BIP68-final")), "refused");
        assert_eq!(name(fault_answer(RpcFault::new(FaultKind::Unreachable, "no"))), "not asked");
    }

    #[test]
    fn occ_2_only_being_outbid_makes_the_next_one_dearer() {
        assert!(is_outbid("insufficient fee, rejecting replacement 00; new feerate 0.1 <= old feerate 0.2"));
        assert!(is_outbid("mempool min fee not met, 4735 < 4742"));
        for reason in ["min relay fee not met, 1 < 2", "missing-inputs", "non-BIP68-final"] {
            assert!(!is_outbid(reason), "{reason}");
        }
    }
}
