//! What restored mode promises of a step, whatever it is made of (ADR 5).
#![allow(unreachable_pub, reason = "a part of one test binary")]

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::amount::Sat;
use outrigger_bolt::keys::{Basepoints, CommitmentKeys};
use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
use outrigger_bolt::wire::Message;
use outrigger_channel::{
    ChannelParams, Context, Effect, Guard, HtlcKey, HtlcOutcome, Input, MonitorChanges, Phase, Publication,
    ReleaseRefused, Signer, SigningRefused, SoftSigner, Transition,
};

use crate::duo::{Duo, Side, Who, context};

/// Gives away points, which promise nothing, and signs nothing.
struct Silent<'a>(&'a SoftSigner);

impl Signer for Silent<'_> {
    fn basepoints(&self) -> &Basepoints {
        self.0.basepoints()
    }

    fn per_commitment_point(&self, number: u64) -> PublicKey {
        self.0.per_commitment_point(number)
    }

    fn sign_remote_commitment(
        &self,
        _: &ChannelParams,
        _: &CommitmentTx,
        _: &CommitmentKeys,
    ) -> (Signature, Vec<Signature>) {
        panic!("a commitment of the peer is signed under restored mode")
    }

    fn sign_local_commitment(
        &self,
        _: &Guard,
        _: &ChannelParams,
        _: &CommitmentPlan<'_>,
    ) -> Result<Signature, SigningRefused> {
        panic!("a local commitment is signed under restored mode")
    }

    fn sign_closing(&self, _: &ChannelParams, _: &Transaction) -> Signature {
        panic!("a close is signed under restored mode")
    }

    fn sign_anchor(&self, _: &ChannelParams, _: &Transaction, _: usize) -> Option<Signature> {
        panic!("an anchor is spent under restored mode")
    }

    fn sign_to_local(&self, _: &ChannelParams, _: u64, _: (&Transaction, usize, Sat)) -> Option<Signature> {
        panic!("no step signs a claim")
    }

    fn sign_to_remote(&self, _: (&Transaction, usize, Sat)) -> Option<Signature> {
        panic!("no step signs a claim")
    }

    fn release_secret(&self, _: u64, _: &Guard) -> Result<[u8; 32], ReleaseRefused> {
        panic!("a secret is given away under restored mode")
    }
}

/// Holds the step that `input` would lead to against all that restored mode promises. The duo stays as it is.
pub fn check(duo: &Duo, victim: Who, input: Input<'_>) {
    let side = duo.side(victim);
    let told = if let Input::Message(message) = &input { Some((*message).clone()) } else { None };
    let signer = Silent(&side.signer);
    let cx = Context { restored: true, signer: &signer, ..context(duo.height, &side.policy, &side.signer) };
    let (transition, learned) = side.monitor.follow(&side.channel, input, &cx);
    assert_eq!(transition.fault, None);
    for effect in &transition.effects {
        check_effect(side, effect);
    }
    check_rows(side, &transition);
    check_chain(side, &transition, &learned, &signer);
    if let Some(Message::UpdateFulfillHtlc(fulfill)) = told {
        let key = HtlcKey::offered(fulfill.id);
        let hash = fulfill.payment_preimage.payment_hash();
        let row = side.channel.rows().htlcs.get(&key).filter(|row| row.payment_hash == hash);
        let settled = |effect: &Effect| matches!(effect, Effect::Settle { htlc_id, outcome: HtlcOutcome::Fulfilled(_), .. } if *htlc_id == key.id);
        assert_eq!(row.is_some(), transition.effects.iter().any(settled), "a preimage is proof of payment");
        assert_eq!(row.is_some(), learned.preimages.contains_key(&hash), "the monitor learns it");
    }
}

fn check_effect(side: &Side, effect: &Effect) {
    match effect {
        Effect::Send(Message::Error(_) | Message::ChannelReestablish(_)) | Effect::Watch(_) | Effect::Note(_) => {}
        Effect::Publish { what: Publication::MutualClose, tx } => {
            let signed = side.channel.phase().closes_to_publish();
            assert!(signed.contains(&tx), "only what both have signed before");
        }
        Effect::Settle { outcome: HtlcOutcome::Fulfilled(_) | HtlcOutcome::NeverCommitted, .. } | Effect::Reply(..) => {
        }
        Effect::Send(_)
        | Effect::Revoke { .. }
        | Effect::Disconnect(_)
        | Effect::Publish { .. }
        | Effect::Restored { .. }
        | Effect::Incoming(_)
        | Effect::Settle { .. }
        | Effect::Removed { .. } => panic!("under restored mode: {effect:?}"),
    }
}

/// No commitment moves, and no HTLC: what was signed is what may stand in the chain one day.
fn check_rows(side: &Side, transition: &Transition) {
    let changes = &transition.changes;
    assert!(changes.htlcs.is_empty() && changes.onions.is_empty() && changes.params.is_none());
    let Some(after) = &changes.head else { return };
    let before = &side.channel.rows().head;
    assert_eq!((after.local_number, after.remote_number), (before.local_number, before.remote_number));
    assert_eq!(after.local_commitment, before.local_commitment);
    assert_eq!(after.remote_commitment, before.remote_commitment);
    assert!(!matches!(after.phase, Phase::Failed { publish: true, .. }), "no failure asks for a commitment");
}

/// What stands in the chain afterwards is claimed as ever, and nothing of ours goes there.
fn check_chain(side: &Side, transition: &Transition, learned: &MonitorChanges, signer: &Silent<'_>) {
    let mut monitor = side.monitor.clone();
    if let Some(update) = &transition.monitor {
        monitor.apply(learned, &update.htlcs);
    }
    let spent = monitor.rows().spend.is_some();
    if let Some(enforced) = monitor.enforcement(signer) {
        assert_eq!(enforced.publish, None, "no local commitment is published");
        assert!(spent || enforced.claims.is_empty());
    }
    assert_eq!(monitor.rows().head.local, side.monitor.rows().head.local);
    assert_eq!(monitor.rows().head.remote, side.monitor.rows().head.remote);
}
