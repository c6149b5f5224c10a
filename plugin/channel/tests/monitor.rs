//! The monitor and the signer: what may be published, what is revoked, and what a corrupted caller is refused.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::keys::CommitmentKeys;
use outrigger_bolt::tx::commitment::CommitmentPlan;
use outrigger_bolt::wire::{Message, PerCommitmentSecret, RevokeAndAck};
use outrigger_channel::{
    CannotPublish, Command, CorruptRows, Evidence, Guard, HtlcKey, Monitor, MonitorHead, MonitorStep, MonitorUpdate,
    Offerer, Phase, ReleaseRefused, RevokedOutput, Signer, SigningRefused, SoftSigner, Spend, UpdateRefused,
};
use pair::{Alice, Bob, Fate, Name, Pair, Setup};
use proptest::collection::vec;
use proptest::prelude::*;

/// A channel with some past: payments of all fates in both directions, one of them still standing.
fn with_a_past() -> Pair {
    let mut pair = Pair::connected(21, &Setup::default());
    for round in 0..4u64 {
        pair.pay(Alice, Msat::new(20_000_000 + round), Fate::Fulfilled);
        pair.pay(Bob, Msat::new(10_000_000 + round), Fate::Failed);
        pair.pay(Alice, Msat::new(300_000), Fate::Fulfilled);
        pair.heal();
    }
    pair.pay(Bob, Msat::new(33_000_000), Fate::Fulfilled);
    pair.run();
    pair
}

fn head(pair: &Pair, name: Name) -> &MonitorHead {
    &pair.node(name).monitor.rows().head
}

#[test]
fn key_4_a_secret_is_released_only_below_the_newest_durable_commitment() {
    let pair = with_a_past();
    for name in Name::BOTH {
        let (head, signer) = (head(&pair, name), &pair.node(name).signer);
        let guard = Guard::of(head);
        let newest = head.local.number;
        assert!(newest > 4);
        for number in 0..newest {
            let secret = signer.release_secret(number, &guard).expect("a revoked commitment");
            let point = bitcoin::secp256k1::SecretKey::from_slice(&secret).expect("a key");
            let point = point.public_key(&bitcoin::secp256k1::Secp256k1::new());
            assert_eq!(point, signer.per_commitment_point(number));
        }
        for number in [newest, newest + 1, u64::MAX] {
            let refused = Err(ReleaseRefused::NotReplaced { number, durable: newest });
            assert_eq!(signer.release_secret(number, &guard), refused);
        }
        let sealed = Guard::of(&MonitorHead { may_publish: false, ..head.clone() });
        for number in [0, newest - 1] {
            assert_eq!(signer.release_secret(number, &sealed), Err(ReleaseRefused::Sealed { number }));
        }
    }
}

#[test]
fn key_4_a_local_commitment_is_signed_only_while_its_secret_is_kept() {
    let pair = with_a_past();
    let node = pair.node(Alice);
    let rows = node.monitor.rows();
    let (params, newest) = (&rows.params, rows.head.local.number);
    let guard = Guard::of(&rows.head);
    let sign = |number: u64, of_number: u64| {
        let point = node.signer.per_commitment_point(of_number);
        let (ours, theirs) = (&params.local.basepoints, &params.remote.basepoints);
        let keys = CommitmentKeys::derive(ours, theirs, &point).expect("keys");
        let plan = CommitmentPlan {
            funding_outpoint: params.funding,
            number,
            opener_payment_basepoint: ours.payment,
            accepter_payment_basepoint: theirs.payment,
            owner_is_opener: true,
            to_self_delay: params.remote.to_self_delay,
            dust_limit: params.local.dust_limit,
            feerate: rows.head.local.feerate,
            to_owner: rows.head.local.to_local,
            to_other: rows.head.local.to_remote,
            htlcs: &[],
            keys: &keys,
            owner_funding_pubkey: ours.funding_pubkey,
            other_funding_pubkey: theirs.funding_pubkey,
        };
        node.signer.sign_local_commitment(&guard, params, &plan).map(|_| ())
    };
    assert_eq!(sign(newest, newest), Ok(()));
    let revoked = SigningRefused::Revoked { number: newest - 1, durable: newest };
    assert_eq!(sign(newest - 1, newest - 1), Err(revoked));
    assert_eq!(sign(newest, newest - 1), Err(SigningRefused::ForeignPoint { number: newest }));
}

#[test]
fn key_the_same_seed_gives_the_same_keys_and_another_seed_none_of_them() {
    let points = |seed: u8| {
        let signer = SoftSigner::new([seed; 32]);
        let basepoints = signer.basepoints();
        [
            basepoints.funding_pubkey,
            basepoints.revocation,
            basepoints.payment,
            basepoints.delayed_payment,
            basepoints.htlc,
            signer.per_commitment_point(0),
            signer.per_commitment_point(1),
        ]
    };
    assert_eq!(points(1), points(1));
    let all: std::collections::BTreeSet<_> = [points(1), points(2)].concat().into_iter().collect();
    assert_eq!(all.len(), 14, "no key stands for two purposes");
}

#[test]
fn cst_1_a_restored_store_signs_and_publishes_nothing() {
    for behind in 1..=5 {
        let mut pair = Pair::connected(22, &Setup::default());
        let mut snapshots = Vec::new();
        for round in 0..12u64 {
            snapshots.push((head(&pair, Alice).local.number, pair.node(Alice).store.clone()));
            pair.pay(Bob, Msat::new(5_000_000 + round), Fate::Fulfilled);
            pair.run();
            snapshots.push((head(&pair, Alice).local.number, pair.node(Alice).store.clone()));
            pair.heal();
        }
        let newest = head(&pair, Alice).local.number;
        let old = snapshots.into_iter().find(|(number, _)| *number == newest - behind);
        let (_, old) = old.expect("a snapshot of every number");
        pair.disconnect();
        pair.restore(Alice, old);
        let sent_before = pair.node(Alice).sent.len();
        pair.connect();
        for name in Name::BOTH {
            pair.flush(name);
        }
        pair.receive(Alice);
        pair.flush(Alice);
        let phase = pair.phase(Alice).clone();
        assert!(matches!(phase, Phase::Failed { publish: false, .. }), "{behind} behind: {phase:?}");
        let node = pair.node(Alice);
        assert_eq!(node.monitor.local_commitment_tx(&node.signer), Err(CannotPublish::Withheld));
        let names: Vec<_> = node.sent[sent_before..].iter().map(outrigger_bolt::wire::Message::name).collect();
        assert_eq!(names, ["channel_reestablish", "error"], "nothing else leaves");
        assert!(pair.world.mempool.is_empty());
        // It stays so over a restart, whatever the peer says next.
        pair.crash(Alice);
        let node = pair.node(Alice);
        assert_eq!(node.monitor.local_commitment_tx(&node.signer), Err(CannotPublish::Withheld));
    }
}

#[test]
fn a_failed_channel_publishes_its_newest_commitment_and_learns_no_other() {
    let mut pair = with_a_past();
    let update = |pair: &Pair, steps| MonitorUpdate {
        id: head(pair, Alice).update_id + 1,
        steps,
        htlcs: std::collections::BTreeMap::new(),
    };
    pair.order(Alice, Command::Fail { reason: "asked for".to_owned() }).expect("an order");
    let node = pair.node(Alice);
    let tx = node.monitor.local_commitment_tx(&node.signer).expect("our newest commitment");
    assert_eq!(node.monitor.classify(&tx, &node.signer), Spend::Local);
    let mut local = node.monitor.rows().head.local.clone();
    local.number += 1;
    let later = update(&pair, vec![MonitorStep::LocalCommitment(local)]);
    assert_eq!(pair.node(Alice).monitor.step(&later), Err(UpdateRefused::Failed));
}

#[test]
fn updates_that_do_not_follow_are_refused_and_change_nothing() {
    let pair = with_a_past();
    let node = pair.node(Alice);
    let rows = node.monitor.rows().clone();
    let peer = &pair.node(Bob).signer;
    let next = rows.head.update_id + 1;
    let (local, remote) = (rows.head.local.clone(), rows.head.remote.clone());
    let try_update = |id: u64, steps: Vec<MonitorStep>| {
        let mut monitor = Monitor::load(rows.clone()).expect("rows of a monitor");
        let refused = monitor.update(&MonitorUpdate { id, steps, htlcs: std::collections::BTreeMap::new() });
        assert_eq!(*monitor.rows(), rows, "refused, it changes nothing");
        refused.expect_err("it does not follow")
    };
    for id in [0, next - 1, next + 1] {
        assert_eq!(try_update(id, vec![]), UpdateRefused::Gap { expected: next, found: id });
    }
    let (expected, found) = (local.number + 1, local.number);
    assert_eq!(
        try_update(next, vec![MonitorStep::LocalCommitment(local.clone())]),
        UpdateRefused::Commitment { expected, found }
    );
    let mut second = remote.clone();
    second.number += 2;
    let (expected, found) = (remote.number + 1, remote.number + 2);
    assert_eq!(
        try_update(next, vec![MonitorStep::RemoteCommitment(second)]),
        UpdateRefused::Commitment { expected, found }
    );
    let funded = MonitorStep::Funded { params: rows.params.clone(), local, remote: remote.clone() };
    assert_eq!(try_update(next, vec![funded]), UpdateRefused::NotFunded { id: next });
    // A secret that does not answer to the point, one that is no key, and one with nothing to revoke to.
    let number = remote.number;
    let mut successor = remote;
    successor.number += 1;
    successor.point = peer.per_commitment_point(successor.number);
    let signed = MonitorStep::RemoteCommitment(successor);
    for secret in [[1; 32], [0; 32]] {
        let steps = vec![signed.clone(), MonitorStep::Revocation { number, secret }];
        assert_eq!(try_update(next, steps), UpdateRefused::Secret { number });
    }
    let alone = vec![MonitorStep::Revocation { number, secret: [1; 32] }];
    let (expected, found) = (number, number);
    assert_eq!(try_update(next, alone), UpdateRefused::Commitment { expected, found });
}

#[test]
fn bad_input_53_a_secret_that_breaks_the_chain_of_secrets_is_refused() {
    let pair = with_a_past();
    let peer = &pair.node(Bob).signer;
    let mut monitor = Monitor::load(pair.node(Alice).monitor.rows().clone()).expect("rows of a monitor");
    // The peer's true secrets, as if all of them were due.
    let mut all = monitor.rows().head.clone();
    all.local.number = 1 << 40;
    let guard = Guard::of(&all);
    let stranger = bitcoin::secp256k1::SecretKey::from_slice(&[5; 32]).expect("a key");
    let first = monitor.rows().head.remote.number + 1;
    let mut refused = None;
    for number in first..first + 3 {
        let mut commitment = monitor.rows().head.remote.clone();
        commitment.number = number;
        // One point in the middle is no part of the chain, though its secret answers to it.
        commitment.point = match number == first {
            true => stranger.public_key(&bitcoin::secp256k1::Secp256k1::new()),
            false => peer.per_commitment_point(number),
        };
        let secret = match number - 1 == first {
            true => stranger.secret_bytes(),
            false => peer.release_secret(number - 1, &guard).expect("a secret"),
        };
        let steps =
            vec![MonitorStep::RemoteCommitment(commitment), MonitorStep::Revocation { number: number - 1, secret }];
        let id = monitor.rows().head.update_id + 1;
        let update = MonitorUpdate { id, steps, htlcs: std::collections::BTreeMap::new() };
        if let Err(error) = monitor.update(&update) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(UpdateRefused::Secret { .. })), "{refused:?}");
}

#[test]
fn bad_input_53_a_peer_whose_secret_breaks_the_chain_fails_the_channel_and_nothing_else() {
    let mut pair = Pair::connected(23, &Setup::default());
    let mut all = head(&pair, Bob).clone();
    all.local.number = 1 << 40;
    let (guard, curve) = (Guard::of(&all), bitcoin::secp256k1::Secp256k1::new());
    let stranger = bitcoin::secp256k1::SecretKey::from_slice(&[5; 32]).expect("a key");
    for number in 0..4 {
        assert!(!pair.node(Alice).is_failed(), "the first three secrets may be of one chain");
        pair.pay(Alice, Msat::new(2_000_000), Fate::Fulfilled);
        pair.command(Alice, Command::Commit);
        pair.flush(Alice);
        let bob = &pair.node(Bob).signer;
        // The point of commitment 2 is no part of the chain, though its secret answers to it.
        let secret = match number {
            2 => stranger.secret_bytes(),
            _ => bob.release_secret(number, &guard).expect("a secret"),
        };
        let next_per_commitment_point = match number {
            0 => stranger.public_key(&curve),
            _ => bob.per_commitment_point(number + 2),
        };
        let message = RevokeAndAck {
            channel_id: pair.node(Alice).id(),
            per_commitment_secret: PerCommitmentSecret(secret),
            next_per_commitment_point,
        };
        pair.inject(Alice, &Message::RevokeAndAck(message));
    }
    let Phase::Failed { reason, publish: true, .. } = pair.phase(Alice) else { panic!("{:?}", pair.phase(Alice)) };
    assert_eq!(reason, "secret 3 is not the one that was promised");
    assert!(matches!(pair.node(Alice).sent.last(), Some(Message::Error(_))));
    let node = pair.node(Alice);
    node.monitor.local_commitment_tx(&node.signer).expect("our newest commitment can be published");
}

#[test]
fn rows_put_together_from_two_states_are_told() {
    let pair = with_a_past();
    let node = pair.node(Alice);
    let rows = node.channel.rows().clone();
    node.monitor.check_against(&rows).expect("rows that belong together");
    let mut changed = Vec::new();
    let mut change = |edit: &dyn Fn(&mut outrigger_channel::ChannelRows)| {
        let mut rows = rows.clone();
        edit(&mut rows);
        changed.push(rows);
    };
    change(&|rows| rows.head.local_number += 1);
    change(&|rows| rows.head.remote_number -= 1);
    change(&|rows| rows.head.monitor_update_id -= 1);
    change(&|rows| rows.head.last_remote_secret = None);
    change(&|rows| rows.head.revoking_point = Some(rows.head.remote_point));
    change(&|rows| rows.head.local_commitment.to_local = Msat::new(1));
    change(&|rows| {
        rows.head.phase = Phase::Failed { reason: String::new(), publish: true, reserved: false, spend: None }
    });
    change(&|rows| rows.htlcs.clear());
    change(&|rows| std::sync::Arc::make_mut(&mut rows.params).keys_index += 1);
    for rows in changed {
        let error: CorruptRows = node.monitor.check_against(&rows).expect_err("a mismatch");
        assert!(error.to_string().contains("disagree"), "{error}");
    }
    let mut monitor = node.monitor.rows().clone();
    monitor.secrets.pop_first();
    assert!(Monitor::load(monitor).is_err(), "a secret is missing");
    let mut monitor = node.monitor.rows().clone();
    monitor.head.next_secret_number -= 1;
    assert!(Monitor::load(monitor).is_err(), "secrets and commitments do not meet");
}

#[test]
fn losing_evidence_leaves_every_output_but_the_htlcs_takeable() {
    let pair = with_a_past();
    let node = pair.node(Alice);
    node.assert_past();
    let mut with_htlcs = 0;
    for (number, commitment) in node.given_by_number() {
        let Some(revoked) = node.monitor.revoked_commitment(number) else { continue };
        let none = std::iter::empty::<(HtlcKey, &Evidence)>();
        let found = revoked.outputs(&commitment.tx, none);
        let unexplained = found.iter().filter(|output| output.is_none()).count();
        assert_eq!(unexplained, commitment.htlc_outputs.len());
        with_htlcs += unexplained;
        let to_owner = commitment.to_owner_index.map(|index| found[index as usize]);
        assert!(to_owner.is_none_or(|output| output == Some(RevokedOutput::ToRemoteOwner)));
        let to_us = commitment.to_other_index.map(|index| found[index as usize]);
        assert!(to_us.is_none_or(|output| output == Some(RevokedOutput::ToUs)));
    }
    assert!(with_htlcs > 0, "some of them had HTLCs");
}

#[test]
fn evidence_is_kept_for_every_htlc_ever_signed_and_preimages_until_they_have_done_their_work() {
    let mut pair = with_a_past();
    let signed = |pair: &Pair, offerer| pair.node(Alice).store.evidence(offerer).count();
    assert_eq!((signed(&pair, Offerer::Local), signed(&pair, Offerer::Remote)), (8, 5));
    let preimages = |pair: &Pair, name| pair.node(name).monitor.rows().preimages.len();
    pair.remove_all(Alice);
    assert_eq!(preimages(&pair, Alice), 1, "known from the order on, before any message");
    pair.run();
    assert_eq!((preimages(&pair, Alice), preimages(&pair, Bob)), (0, 0), "the removal is irrevocable on both sides");
    assert_eq!(signed(&pair, Offerer::Remote), 5);
}

fn any_spend(funding: OutPoint) -> impl Strategy<Value = Transaction> {
    let output = (any::<u64>(), vec(any::<u8>(), 0..50)).prop_map(|(value, script)| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: ScriptBuf::from_bytes(script),
    });
    let input = (any::<bool>(), any::<u32>(), vec(vec(any::<u8>(), 0..80), 0..5)).prop_map(
        move |(spends, sequence, witness)| TxIn {
            previous_output: if spends { funding } else { OutPoint::null() },
            script_sig: ScriptBuf::new(),
            sequence: Sequence(sequence),
            witness: Witness::from_slice(&witness),
        },
    );
    let sequence = prop_oneof![any::<u32>(), (0u32..1 << 24).prop_map(|low| 0x8000_0000 | low)];
    let lock_time = prop_oneof![any::<u32>(), (0u32..1 << 24).prop_map(|low| 0x2000_0000 | low)];
    (vec(input, 0..3), vec(output, 0..20), sequence, lock_time).prop_map(|(mut input, output, sequence, lock_time)| {
        if let Some(first) = input.first_mut() {
            first.sequence = Sequence(sequence);
        }
        Transaction { version: Version::TWO, lock_time: LockTime::from_consensus(lock_time), input, output }
    })
}

#[test]
fn fnd_2_any_spend_is_classified_without_panic() {
    let pair = with_a_past();
    let node = pair.node(Alice);
    let funding = node.monitor.rows().params.funding;
    proptest!(|(tx in any_spend(funding))| {
        let spend = node.monitor.classify(&tx, &node.signer);
        let is_known = matches!(spend, Spend::Local | Spend::Remote | Spend::RemoteNext);
        prop_assert!(!is_known, "{:?} is {:?}", tx.compute_txid(), spend);
        if let Some(revoked) = node.monitor.revoked_commitment(1) {
            let outputs = revoked.outputs(&tx, std::iter::empty::<(HtlcKey, &Evidence)>());
            prop_assert_eq!(outputs.len(), tx.output.len());
        }
    });
}
