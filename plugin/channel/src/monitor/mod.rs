//! The monitor of one channel: what may stand on the chain, known from its own rows and the HTLC rows alone.
//!
//! It learns from the updates that the channel's steps make, in the transaction of the step, and works on after the
//! channel failed. It never holds more than the commitments that can still be published without being punished; the
//! revoked past is evidence and secrets.

mod check;
mod claim;
mod classify;
mod contents;
mod lesson;
pub(crate) mod onchain;
mod revoked;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use outrigger_bolt::id::PaymentPreimage;
use outrigger_bolt::keys::SecretStore;
use outrigger_bolt::tx::commitment::CommitmentTx;

use crate::changes::{
    Evidence, FundingSpend, HtlcRow, MonitorChanges, MonitorHead, MonitorRows, MonitorStep, MonitorUpdate,
    ReplacedCommitment, SignedCommitment,
};
use crate::channel::Channel;
use crate::commitments::htlc::HtlcKey;
use crate::commitments::spec::CommitmentSpec;
use crate::input::{Command, CommandId, Context, Input};
use crate::row::CorruptRows;
use crate::signer::{Guard, Signer, SigningRefused};
use crate::transition::{ChannelNote, Effect, Transition};

use lesson::Lesson;

pub use claim::{CannotClaim, Claim, ClaimKind, SWEEP_DUST};
pub use classify::Spend;
pub use onchain::{Enforcement, Publish};
pub use revoked::{RevokedCommitment, RevokedOutput};

/// What the chain could show of one channel, and how to answer it.
#[derive(Clone)]
pub struct Monitor {
    rows: MonitorRows,
    secrets: SecretStore,
    /// The local commitment before the newest one. Whether its secret has left is not for rows to know: a start has none.
    previous: Option<Box<Previous>>,
}

/// The local commitment before the newest one, and preimages that went with what it held.
#[derive(Clone)]
struct Previous {
    replaced: ReplacedCommitment,
    preimages: Vec<PaymentPreimage>,
}

/// An update that cannot follow the rows. The monitor is unchanged; the step that made the update must not be staged,
/// and the channel is to be failed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateRefused {
    /// The first update of a monitor, and only the first, tells that the channel is funded.
    #[error("update {id} does not belong at the start of a monitor")]
    NotFunded { id: u64 },
    /// Ids are gapless from 1.
    #[error("update {found} came where {expected} was due")]
    Gap { expected: u64, found: u64 },
    /// A commitment that is not the successor of the newest one, or of one that is not revoked.
    #[error("commitment {found} came where {expected} was due")]
    Commitment { expected: u64, found: u64 },
    /// The peer's secret is not the one behind its point, or breaks the chain of its secrets (BOLT 3, "Efficient
    /// Per-commitment Secret Storage").
    #[error("secret {number} is not the one that was promised")]
    Secret { number: u64 },
    /// After the failure of a channel nothing new is signed.
    #[error("the channel has failed")]
    Failed,
}

impl Monitor {
    /// The monitor of a channel that has just been funded, and its first rows.
    pub fn new(update: &MonitorUpdate) -> Result<(Self, MonitorChanges), UpdateRefused> {
        let [MonitorStep::Funded { params, local, remote }] = update.steps.as_slice() else {
            return Err(UpdateRefused::NotFunded { id: update.id });
        };
        if update.id != 1 {
            return Err(UpdateRefused::Gap { expected: 1, found: update.id });
        }
        let head = MonitorHead {
            update_id: update.id,
            local: without_htlc_signatures(local),
            remote: remote.clone(),
            remote_next: None,
            next_secret_number: remote.number,
            failed: false,
            may_publish: true,
            closed: false,
            told_spend: None,
            closing: None,
            reserved: false,
            replaced: None,
        };
        let changes =
            MonitorChanges { params: Some(Arc::clone(params)), head: Some(head.clone()), ..MonitorChanges::default() };
        let rows = MonitorRows {
            params: Arc::clone(params),
            head,
            secrets: BTreeMap::new(),
            htlc_signatures: BTreeMap::new(),
            preimages: BTreeMap::new(),
            spend: None,
            taken: BTreeMap::new(),
            htlcs: BTreeMap::new(),
        };
        Ok((Self { rows, secrets: SecretStore::default(), previous: None }, changes))
    }

    /// The monitor that these rows hold, or why they cannot be those of one monitor.
    pub fn load(rows: MonitorRows) -> Result<Self, CorruptRows> {
        let secrets = check::secrets(&rows)?;
        check::rows(&rows)?;
        Ok(Self { rows, secrets, previous: None })
    }

    /// The rows as they are to be found on disk.
    pub fn rows(&self) -> &MonitorRows {
        &self.rows
    }

    /// Takes one update in and returns the rows that it writes. Refused, it leaves the monitor as it was.
    pub fn update(&mut self, update: &MonitorUpdate) -> Result<MonitorChanges, UpdateRefused> {
        let changes = self.step(update)?;
        self.apply(&changes, &update.htlcs);
        Ok(changes)
    }

    /// Steps the channel and its monitor together: what the input leads to, and the rows that the monitor writes with it.
    /// Nothing has happened yet.
    ///
    /// A peer can make an update that the monitor refuses: its secret answers to its point and still breaks the chain of
    /// its secrets. Such a step never was; the channel is failed instead (BOLT 2, `revoke_and_ack`). Any other refusal is a
    /// [fault](Transition::fault) of ours.
    pub fn follow(&self, channel: &Channel, input: Input<'_>, cx: &Context<'_>) -> (Transition, MonitorChanges) {
        let input = match input {
            Input::Chain(event) => match self.informed(event, cx) {
                Some(event) => Input::Chain(event),
                None => return (Transition::default(), MonitorChanges::default()),
            },
            Input::Command(id, Command::Withhold { reason, is_new, complete }) => {
                // A start does not know the older one any more, nor whether its secret has left.
                let complete = complete.filter(|number| self.has_local(*number));
                Input::Command(id, Command::Withhold { reason, is_new, complete })
            }
            Input::Connected(_) | Input::Disconnected | Input::Message(_) | Input::Command(..) => input,
        };
        let mut transition = channel.step(input, cx);
        self.tell_of_the_end(&mut transition, cx);
        let refused = match self.learn_from(&transition) {
            Ok(changes) => return (transition, changes),
            Err(refused) => refused,
        };
        let order = Command::Fail { reason: refused.to_string() };
        let mut failure = channel.step(Input::Command(CommandId(0), order), cx);
        // Nobody gave that order.
        failure.effects.retain(|effect| !matches!(effect, Effect::Reply(..)));
        failure.fault = (!matches!(refused, UpdateRefused::Secret { .. })).then(|| refused.to_string());
        match self.learn_from(&failure) {
            Ok(changes) => (failure, changes),
            // Not even that can be told: the step never was.
            Err(refused) => {
                let fault = Some(format!("the monitor does not follow its channel: {refused}"));
                (Transition { fault, ..Transition::default() }, MonitorChanges::default())
            }
        }
    }

    /// News that only the monitor can tell: what a spend of the funding output is, and what came home in the end.
    fn tell_of_the_end(&self, transition: &mut Transition, cx: &Context<'_>) {
        let steps = transition.monitor.iter().flat_map(|update| &update.steps);
        let proves = transition.effects.iter().any(|effect| matches!(effect, Effect::Restored { .. }));
        let (mut notes, mut lost) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                MonitorStep::FundingSpent(spend) if self.rows.head.told_spend == Some(spend.place()) => {}
                MonitorStep::FundingSpent(spend) => notes.push(self.spend_note(spend, proves, cx.signer)),
                MonitorStep::TakenBuried { height } => notes.extend(self.swept_notes(*height)),
                MonitorStep::Closed => {
                    notes.extend(self.swept_notes(u32::MAX));
                    lost.extend(self.without_output(cx.restored || proves));
                }
                MonitorStep::Funded { .. }
                | MonitorStep::LocalCommitment(_)
                | MonitorStep::RemoteCommitment(_)
                | MonitorStep::Revocation { .. }
                | MonitorStep::Preimage(_)
                | MonitorStep::Failed { .. }
                | MonitorStep::Reserved { .. }
                | MonitorStep::Due
                | MonitorStep::FundingUnspent
                | MonitorStep::OutputTaken(..)
                | MonitorStep::OutputsUntaken { .. } => {}
            }
        }
        // What came home is told before the channel's end.
        let end =
            transition.effects.iter().position(|effect| matches!(effect, Effect::Note(ChannelNote::Closed { .. })));
        let place = end.unwrap_or(transition.effects.len());
        transition.effects.splice(place..place, notes.into_iter().map(Effect::Note).chain(lost));
    }

    fn learn_from(&self, transition: &Transition) -> Result<MonitorChanges, UpdateRefused> {
        transition.monitor.as_ref().map_or_else(|| Ok(MonitorChanges::default()), |update| self.step(update))
    }

    /// What an update would write. Nothing has happened yet.
    pub fn step(&self, update: &MonitorUpdate) -> Result<MonitorChanges, UpdateRefused> {
        let expected = self.rows.head.update_id.saturating_add(1);
        if update.id != expected {
            return Err(UpdateRefused::Gap { expected, found: update.id });
        }
        let mut lesson = Lesson::begin(self);
        for step in &update.steps {
            lesson.learn(step)?;
        }
        lesson.keep_evidence(&update.htlcs);
        lesson.forget_preimages(&update.htlcs);
        Ok(lesson.end(update.id))
    }

    /// Takes rows in, with the HTLC rows that the channel wrote in the same step.
    pub fn apply(&mut self, changes: &MonitorChanges, htlcs: &BTreeMap<HtlcKey, Option<HtlcRow>>) {
        self.keep_previous(changes);
        let rows = &mut self.rows;
        if let Some(head) = &changes.head {
            rows.head = head.clone();
        }
        for (slot, (number, secret)) in &changes.secrets {
            rows.secrets.insert(*slot, (*number, *secret));
            let inserted = self.secrets.insert(*number, *secret);
            debug_assert!(inserted.is_ok(), "a step lets no secret through that breaks the chain");
        }
        write(&mut rows.htlc_signatures, &changes.htlc_signatures);
        write(&mut rows.preimages, &changes.preimages);
        if let Some(spend) = &changes.spend {
            rows.spend = spend.clone();
        }
        write(&mut rows.taken, &changes.taken);
        write(&mut rows.htlcs, htlcs);
    }

    /// Keeps the local commitment that these rows replace, with the preimages that they take away.
    fn keep_previous(&mut self, changes: &MonitorChanges) {
        let newest = self.rows.head.local.number;
        if changes.head.as_ref().is_none_or(|head| head.local.number == newest) {
            return;
        }
        let replaced = contents::replaced(&self.rows);
        let forgotten = changes.preimages.iter().filter(|(_, preimage)| preimage.is_none()).map(|(hash, _)| hash);
        let held = forgotten.filter(|hash| replaced.htlcs.iter().any(|htlc| htlc.payment_hash == **hash));
        let preimages = held.filter_map(|hash| self.rows.preimages.get(hash).copied()).collect();
        self.previous = Some(Box::new(Previous { replaced, preimages }));
    }

    /// Whether the local commitment of this number is at hand: the newest one, or the one before it.
    fn has_local(&self, number: u64) -> bool {
        let previous = self.previous.as_ref().map(|previous| previous.replaced.commitment.number);
        self.rows.head.local.number == number || previous == Some(number)
    }

    /// Compares what channel and monitor both know. They are written in one transaction, so a difference means that
    /// the file was damaged or put together from two.
    pub fn check_against(&self, channel: &crate::changes::ChannelRows) -> Result<(), CorruptRows> {
        check::against(&self.rows, channel)
    }

    /// Whether there is nothing more to watch for.
    pub fn is_closed(&self) -> bool {
        self.rows.head.closed
    }

    /// Our newest commitment, built from the rows.
    pub fn local_commitment(&self, signer: &dyn Signer) -> Result<CommitmentTx, CorruptRows> {
        self.build(&self.local_spec(signer), signer)
    }

    /// The peer's commitments that it may publish unpunished: its newest whose predecessor is revoked, and the one that
    /// we signed after it, if any.
    pub fn remote_commitments(&self, signer: &dyn Signer) -> Result<Vec<CommitmentTx>, CorruptRows> {
        contents::remote(&self.rows).iter().map(|spec| self.build(spec, signer)).collect()
    }

    /// The commitment of ours that is published where any is: the newest one, or the one before it where a required backup has
    /// that and no newer one.
    pub fn closing_commitment(&self, signer: &dyn Signer) -> Result<CommitmentTx, CorruptRows> {
        self.build(&self.closing_spec(signer), signer)
    }

    /// That one with both signatures, ready to be published. The signer's guard has the last word.
    pub fn local_commitment_tx(&self, signer: &dyn Signer) -> Result<Transaction, CannotPublish> {
        let (head, params) = (&self.rows.head, &self.rows.params);
        if !head.may_publish {
            return Err(CannotPublish::Withheld);
        }
        let spec = self.closing_spec(signer);
        let theirs = head.replaced.as_ref().map_or(&head.local, |replaced| &replaced.commitment).signature;
        let keys = spec.keys(params, signer).map_err(|_| NOT_A_COMMITMENT)?;
        let ours = signer.sign_local_commitment(&Guard::of(head), params, &spec.plan(params, &keys))?;
        let mut tx = self.build(&spec, signer)?.tx;
        let witness = params.funding_output().witness([
            (&params.local.basepoints.funding_pubkey, &ours),
            (&params.remote.basepoints.funding_pubkey, &theirs),
        ]);
        if let Some(input) = tx.input.first_mut() {
            input.witness = witness;
        }
        Ok(tx)
    }

    fn local_spec(&self, signer: &dyn Signer) -> CommitmentSpec {
        contents::local(&self.rows, signer.per_commitment_point(self.rows.head.local.number))
    }

    fn closing_spec(&self, signer: &dyn Signer) -> CommitmentSpec {
        let Some(replaced) = &self.rows.head.replaced else { return self.local_spec(signer) };
        contents::of_replaced(replaced, signer.per_commitment_point(replaced.commitment.number))
    }

    /// Our newest commitment, and the one that is published in its stead.
    fn own_commitments(&self, signer: &dyn Signer) -> impl Iterator<Item = CommitmentTx> + use<> {
        let newest = self.local_commitment(signer).ok();
        let other = self.rows.head.replaced.as_ref().and_then(|_| self.closing_commitment(signer).ok());
        newest.into_iter().chain(other)
    }

    fn build(&self, spec: &CommitmentSpec, signer: &dyn Signer) -> Result<CommitmentTx, CorruptRows> {
        spec.build(&self.rows.params, signer).map(|built| built.commitment).map_err(|_| NOT_A_COMMITMENT)
    }

    /// What a transaction that spends the funding output is.
    pub fn classify(&self, spend: &Transaction, signer: &dyn Signer) -> Spend {
        classify::classify(self, spend, signer)
    }

    /// The scripts of a revoked commitment of the peer, or `None` where its secret is not known.
    pub fn revoked_commitment(&self, number: u64) -> Option<RevokedCommitment<'_>> {
        RevokedCommitment::of(&self.rows.params, self.secrets.get(number)?)
    }
}

/// Only a commitment that can be built is ever signed.
const NOT_A_COMMITMENT: CorruptRows = CorruptRows("a signed commitment cannot be built");

/// Why our newest commitment is not at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotPublish {
    /// It is not to be published: the peer proved that it knows of a newer state, so that it is revoked (CST-1), or a backup
    /// that must have it never will; then one that it has may be published later.
    #[error("our newest commitment is withheld: it is revoked, or no backup has it")]
    Withheld,
    #[error(transparent)]
    Refused(#[from] SigningRefused),
    #[error(transparent)]
    Corrupt(#[from] CorruptRows),
}

impl FundingSpend {
    /// What spends, and the height of its block.
    fn place(&self) -> (Txid, u32) {
        (self.tx.compute_txid(), self.height)
    }
}

impl Evidence {
    /// What the scripts of this HTLC need.
    pub fn of(row: &HtlcRow) -> Self {
        Self { payment_hash: row.payment_hash, cltv_expiry: row.cltv_expiry, amount: row.amount }
    }
}

fn without_htlc_signatures(commitment: &SignedCommitment) -> SignedCommitment {
    SignedCommitment { htlc_signatures: Vec::new(), ..commitment.clone() }
}

fn write<K: Ord + Clone, V: Clone>(table: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
    }
}
