//! The newest commitment that every required backup has is kept for a channel that one of them will never have: never revoked,
//! published at the first deadline of an HTLC or by order, and nothing newer ever (the Persist contract, "PermanentFailure").
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use bitcoin::Transaction;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::tx::commitment::HtlcDirection;
use outrigger_bolt::wire::Message;
use outrigger_channel::{
    CannotPublish, ChainEvent, Command, Enforcement, Guard, Input, Monitor, Phase, ReleaseRefused, Signer,
    SigningRefused, Spend, Watch,
};
use pair::{Alice, Bob, Fate, Name, Pair, Setup};

/// Blocks, as BOLT 2 counts them ("`cltv_expiry_delta` Selection").
const TIMEOUT_GRACE: u32 = 2;
const CLAIM_BLOCKS: u32 = 18;

/// What a step away from a commitment leaves: it as it was signed, and what follows it not told to anybody.
struct Held {
    pair: Pair,
    /// The older commitment, with both signatures, and its number.
    older: Transaction,
    number: u64,
}

/// Signs and hands over until `name` has taken a commitment whose revocation of the older one has not left.
fn held(mut pair: Pair, name: Name) -> Held {
    let number = local_number(&pair, name);
    let older = published(&pair, name);
    for _ in 0..100 {
        pair.command(name.other(), Command::Commit);
        pair.flush(name.other());
        while pair.in_flight(name) > 0 {
            pair.receive(name);
            if local_number(&pair, name) > number {
                assert!(pair.node(name).has_staged(), "its revocation waits");
                return Held { pair, older, number };
            }
        }
        pair.flush(name);
        pair.receive(name.other());
        pair.flush(name.other());
    }
    panic!("no commitment was signed");
}

/// Two payments under way, one each.
fn with_htlcs() -> Pair {
    let mut pair = Pair::connected(31, &Setup::default());
    pair.pay(Alice, Msat::new(120_000_000), Fate::Fulfilled);
    pair.heal();
    pair.pay(Alice, Msat::new(50_000_000), Fate::Fulfilled);
    pair.pay(Bob, Msat::new(30_000_000), Fate::Fulfilled);
    pair.run();
    pair
}

fn local_number(pair: &Pair, name: Name) -> u64 {
    pair.node(name).monitor.rows().head.local.number
}

/// What would be published now, had the channel failed.
fn published(pair: &Pair, name: Name) -> Transaction {
    let node = pair.node(name);
    node.monitor.local_commitment_tx(&node.signer).expect("a commitment")
}

fn withhold(pair: &mut Pair, name: Name, complete: Option<u64>) {
    let reason = "the backup has no room, ever".to_owned();
    pair.order(name, Command::Withhold { reason, is_new: false, complete }).expect("always taken");
}

fn enforcement(pair: &Pair, name: Name) -> Enforcement {
    let node = pair.node(name);
    node.monitor.enforcement(&node.signer).expect("a failed channel")
}

/// Nothing is published, and `reserved` says whether something is kept for later.
fn assert_withheld(pair: &Pair, name: Name, is_reserved: bool) {
    let node = pair.node(name);
    assert!(
        matches!(pair.phase(name), Phase::Failed { publish: false, reserved, spend: None, .. } if *reserved == is_reserved),
        "{:?}",
        pair.phase(name)
    );
    assert_eq!(enforcement(pair, name).publish, None);
    assert_eq!(node.monitor.local_commitment_tx(&node.signer), Err(CannotPublish::Withheld));
}

fn force_close(pair: &mut Pair, name: Name) {
    pair.order(name, Command::Fail { reason: "by order".to_owned() }).expect("always taken");
}

fn due_heights(pair: &Pair, name: Name) -> Vec<u32> {
    let node = pair.node(name);
    let watches = node.monitor.watches(&node.signer, pair.world.policy.close_depth);
    let height = |watch| if let Watch::Height(height) = watch { Some(height) } else { None };
    watches.into_iter().filter_map(height).collect()
}

fn tell(pair: &mut Pair, name: Name, height: u32) {
    pair.world.height = height;
    pair.input(name, Input::Chain(ChainEvent::Height(height)));
    pair.flush(name);
}

#[test]
fn per_5_the_commitment_that_every_backup_has_is_published_by_order_and_never_revoked() {
    for name in Name::BOTH {
        let mut pair = with_htlcs();
        for receiver in Name::BOTH {
            pair.remove_all(receiver);
        }
        let Held { mut pair, older, number } = held(pair, name);
        withhold(&mut pair, name, Some(number));
        assert_withheld(&pair, name, true);
        let (node, head) = (pair.node(name), &pair.node(name).monitor.rows().head);
        assert_eq!((head.closing, head.local.number), (Some(number), number + 1));
        let sealed = node.signer.release_secret(number, &Guard::of(head));
        assert_eq!(sealed, Err(ReleaseRefused::Sealed { number }));
        force_close(&mut pair, name);
        let node = pair.node(name);
        let publish = enforcement(&pair, name).publish.expect("a commitment");
        assert_eq!(publish.tx, older, "with both signatures, as it would have been published before");
        assert!(publish.anchor.is_some());
        let head = &node.monitor.rows().head;
        for kept in [number, number + 1] {
            let refused = Err(ReleaseRefused::NotReplaced { number: kept, durable: number });
            assert_eq!(node.signer.release_secret(kept, &Guard::of(head)), refused);
        }
        assert_eq!(node.monitor.classify(&older, &node.signer), Spend::Local);
        // It stands in the chain, and what is ours in it is found.
        pair.input(name, Input::Chain(ChainEvent::FundingSpent { height: 700, tx: &older }));
        pair.flush(name);
        let Enforcement { publish, claims } = enforcement(&pair, name);
        assert_eq!((publish, claims.len()), (None, 1), "our balance");
        // A reorganisation takes it out: it goes in again.
        pair.input(name, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
        pair.flush(name);
        assert_eq!(enforcement(&pair, name).publish.expect("a commitment").tx, older);
    }
}

#[test]
fn per_5_where_every_backup_has_the_newest_one_that_is_kept() {
    let mut pair = with_htlcs();
    let (newest, number) = (published(&pair, Alice), local_number(&pair, Alice));
    withhold(&mut pair, Alice, Some(number));
    assert_withheld(&pair, Alice, true);
    assert_eq!(pair.node(Alice).monitor.rows().head.replaced, None);
    force_close(&mut pair, Alice);
    assert_eq!(enforcement(&pair, Alice).publish.expect("a commitment").tx, newest);
}

#[test]
fn per_5_nothing_is_kept_where_it_is_not_known_what_every_backup_has() {
    // After a start, or of a number that nobody knows any more, or of one to come.
    let newest = local_number(&with_htlcs(), Alice);
    for complete in [None, Some(newest - 2), Some(newest + 1), Some(u64::MAX)] {
        let mut pair = with_htlcs();
        withhold(&mut pair, Alice, complete);
        assert_withheld(&pair, Alice, false);
        force_close(&mut pair, Alice);
        assert_withheld(&pair, Alice, false);
        assert!(due_heights(&pair, Alice).is_empty());
    }
    // The start knows the newest one alone: whether the secret of the older one has left stands in no row.
    let Held { mut pair, number, .. } = held(with_removals(), Alice);
    pair.flush(Alice);
    pair.crash(Alice);
    withhold(&mut pair, Alice, Some(number));
    assert_withheld(&pair, Alice, false);
}

fn with_removals() -> Pair {
    let mut pair = with_htlcs();
    pair.remove_all(Alice);
    pair.remove_all(Bob);
    pair
}

#[test]
fn per_5_it_is_published_at_the_first_deadline_of_an_htlc_before_and_after_a_start() {
    for is_restarted in [false, true] {
        for name in Name::BOTH {
            let Held { mut pair, older, number } = held(with_removals(), name);
            withhold(&mut pair, name, Some(number));
            if is_restarted {
                pair.crash(name);
                assert_withheld(&pair, name, true);
            }
            let replaced = pair.node(name).monitor.rows().head.replaced.as_ref().expect("the older one");
            // What was received was claimed: its preimage must reach the chain in time.
            let deadlines = replaced.htlcs.iter().map(|htlc| match htlc.direction {
                HtlcDirection::Offered => htlc.cltv_expiry + TIMEOUT_GRACE,
                HtlcDirection::Received => htlc.cltv_expiry - CLAIM_BLOCKS,
            });
            let first = deadlines.min().expect("an HTLC");
            assert_eq!((replaced.htlcs.len(), due_heights(&pair, name)), (2, vec![first]));
            tell(&mut pair, name, first - 1);
            assert_withheld(&pair, name, true);
            tell(&mut pair, name, first);
            assert_eq!(enforcement(&pair, name).publish.expect("due").tx, older);
            assert!(due_heights(&pair, name).is_empty(), "it is not due twice");
        }
    }
}

#[test]
fn per_5_a_preimage_that_went_with_the_newer_commitment_is_kept_for_the_older_one() {
    // Bob's HTLC stands in the older commitment of Alice, who has claimed it: the newer one is without it.
    let Held { mut pair, number, .. } = held(with_removals(), Alice);
    let known = |pair: &Pair| pair.node(Alice).monitor.rows().preimages.clone();
    withhold(&mut pair, Alice, Some(number));
    let head = &pair.node(Alice).monitor.rows().head;
    let replaced = head.replaced.as_ref().expect("the older one");
    let held_hashes: Vec<_> = replaced.htlcs.iter().map(|htlc| htlc.payment_hash).collect();
    assert!(known(&pair).keys().any(|hash| held_hashes.contains(hash)), "{held_hashes:?}");
    // And it outlives a start.
    let kept = known(&pair);
    pair.crash(Alice);
    assert_eq!(known(&pair), kept);
}

#[test]
fn per_5_the_peer_is_told_why_and_may_close_and_nothing_that_it_says_changes_what_is_kept() {
    let Held { mut pair, number, .. } = held(with_removals(), Alice);
    withhold(&mut pair, Alice, Some(number));
    let told = pair.node(Alice).sent.iter().filter(|message| matches!(message, Message::Error(_))).count();
    assert_eq!(told, 1);
    let revocations = |pair: &Pair| {
        pair.node(Alice).sent.iter().filter(|message| matches!(message, Message::RevokeAndAck(_))).count()
    };
    let before = revocations(&pair);
    // It comes back, and asks for what it did not get.
    pair.crash(Bob);
    pair.connect();
    pair.run();
    assert_withheld(&pair, Alice, true);
    assert_eq!(revocations(&pair), before, "nothing is revoked any more");
    // It publishes what it has: then there is nothing to publish, and no deadline.
    let node = pair.node(Bob);
    let theirs = node.monitor.local_commitment(&node.signer).expect("Bob's").tx;
    pair.input(Alice, Input::Chain(ChainEvent::FundingSpent { height: 700, tx: &theirs }));
    pair.flush(Alice);
    assert!(due_heights(&pair, Alice).iter().all(|height| *height > 700));
    assert!(!enforcement(&pair, Alice).claims.is_empty(), "our balance");
    tell(&mut pair, Alice, 5000);
    assert!(
        matches!(pair.phase(Alice), Phase::Failed { publish: false, reserved: true, .. }),
        "{:?}",
        pair.phase(Alice)
    );
}

#[test]
fn bak_1_restored_mode_takes_back_what_was_kept_for_good() {
    for is_due in [false, true] {
        let Held { mut pair, number, .. } = held(with_removals(), Alice);
        withhold(&mut pair, Alice, Some(number));
        if is_due {
            force_close(&mut pair, Alice);
            assert!(enforcement(&pair, Alice).publish.is_some());
        }
        pair.node_mut(Alice).restored = true;
        pair.order(Alice, Command::Commit).expect("always taken");
        assert_withheld(&pair, Alice, false);
        force_close(&mut pair, Alice);
        assert_withheld(&pair, Alice, false);
        pair.node_mut(Alice).restored = false;
        pair.crash(Alice);
        assert_withheld(&pair, Alice, false);
    }
}

#[test]
fn key_4_once_one_commitment_is_published_no_other_is_signed_and_no_later_secret_leaves() {
    let mut pair = with_htlcs();
    let number = local_number(&pair, Alice);
    force_close(&mut pair, Alice);
    let rows = pair.node(Alice).monitor.rows();
    assert_eq!(rows.head.closing, Some(number), "an ordinary failure says so too");
    // A monitor whose rows say that another one ends the channel signs nothing else.
    let mut other = rows.clone();
    other.head.closing = Some(number + 1);
    assert!(Monitor::load(other.clone()).is_err(), "no such rows are believed");
    let node = pair.node(Alice);
    let guard = Guard::of(&other.head);
    assert_eq!(guard.released_below(), number);
    let refused = SigningRefused::NotTheLast { number, closing: number + 1 };
    other.head.closing = Some(number);
    let monitor = Monitor::load(other).expect("rows of a monitor");
    assert!(monitor.local_commitment_tx(&node.signer).is_ok(), "unlike {refused}");
}

#[test]
fn rows_that_keep_what_cannot_be_kept_are_not_believed() {
    let Held { mut pair, number, .. } = held(with_removals(), Alice);
    withhold(&mut pair, Alice, Some(number));
    let rows = pair.node(Alice).monitor.rows().clone();
    assert!(Monitor::load(rows.clone()).is_ok());
    let bend = |change: &dyn Fn(&mut outrigger_channel::MonitorHead)| {
        let mut bent = rows.clone();
        change(&mut bent.head);
        Monitor::load(bent).err().map(|fault| fault.0)
    };
    let neither = Some("the commitment that is published is neither the newest nor the one before it");
    assert_eq!(bend(&|head| head.closing = None), neither);
    assert_eq!(bend(&|head| head.closing = Some(number + 1)), neither);
    assert_eq!(bend(&|head| head.closing = Some(number - 1)), neither);
    assert_eq!(bend(&|head| head.replaced = None), neither);
    assert_eq!(bend(&|head| head.local.number += 1).map(|_| ()), Some(()));
    let unfailed = Some("a commitment is reserved for a channel that has not failed");
    assert_eq!(bend(&|head| head.failed = false), unfailed);
    assert_eq!(bend(&|head| head.may_publish = true), unfailed);
}
