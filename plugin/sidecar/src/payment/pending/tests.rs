use outrigger_bolt::id::{NodeId, PaymentHash};
use outrigger_bolt::onion::Unwrapped;
use outrigger_channel::FailReason;

use super::super::plan::{Trust, Way};
use super::*;
use crate::store::part::PartHop;

const AMOUNT: Msat = Msat::new(8_000_000);

fn node() -> NodeId {
    let secret = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
    NodeId::new(secret.public_key(&bitcoin::secp256k1::Secp256k1::signing_only()))
}

fn part() -> PartRow {
    let route = vec![PartHop { node: node(), channel: None }];
    PartRow { sends: AMOUNT, amount: AMOUNT, channel: ChannelId([2; 32]), route }
}

/// A payment with its only HTLC in flight, over the first of two ways.
fn pending(in_parts: bool) -> Pending {
    let row = PaymentRow {
        payment_id: [1; 32],
        payment_hash: PaymentHash([1; 32]),
        destination: node(),
        amount: AMOUNT,
        created_at: 1,
        next_part: 0,
        again: None,
        charge: None,
        lost: Msat::ZERO,
        state: PaymentState::Pending,
    };
    let mut pending = Pending::of(row, BTreeMap::new());
    pending.recipe = Some(Recipe {
        payee: node(),
        hash: PaymentHash([1; 32]),
        secret: None,
        keysend: None,
        metadata: None,
        amount: AMOUNT,
        max_fee: AMOUNT,
        final_cltv_blocks: 40,
        in_parts,
        ways: vec![Way::untried(Vec::new()); 2],
        outlets: Trust::default(),
        given: None,
        timeout: Duration::from_secs(60),
        deadline: Clock::monotonic() + Duration::from_secs(60),
    });
    pending.takes_off(0, Flight { row: part(), way: Some(0) });
    pending
}

/// What is thought of the first way and of the channel of ours after this, if another attempt is made.
fn learnt(in_parts: bool, explained: Explained) -> Option<(Msat, Trust)> {
    match pending(in_parts).fails(0, explained, Clock::monotonic()) {
        (Some(_), Some(Next::Again { recipe, missing: AMOUNT, .. })) => Some((recipe.ways[0].most, recipe.outlets)),
        (None, Some(Next::Over(_))) => None,
        (_, next) => panic!("{}", next.is_some()),
    }
}

fn trusted_with(most: u64) -> Trust {
    let mut trust = Trust::default();
    trust.trust(ChannelId([2; 32]), Msat::new(most));
    trust
}

const ALL: Msat = Msat::new(u64::MAX);

#[test]
fn pay_4_a_refusal_of_our_own_channel_says_nothing_of_the_way_and_a_disconnect_nothing_at_all() {
    let refused = |refusal: Refusal| Explained::refused(&part(), &refusal);
    let full = || refused(Refusal::TooMuchInFlight(AMOUNT));
    assert_eq!(learnt(true, full()), Some((ALL, trusted_with(AMOUNT.get() / 2))));
    assert_eq!(learnt(false, full()), Some((ALL, trusted_with(0))), "half of it would not be enough");
    assert_eq!(learnt(true, refused(Refusal::NotConnected)), Some((ALL, trusted_with(0))));
    for in_parts in [false, true] {
        let unsent = Explained::never_committed(&part());
        assert_eq!(learnt(in_parts, unsent), Some((ALL, Trust::default())), "another way may carry it");
        let unreadable = |_: &[u8]| Unwrapped::Unattributable;
        let failed = Explained::failed(&part(), &FailReason::Encrypted(Vec::new()), unreadable);
        assert_eq!(learnt(in_parts, failed), Some((Msat::ZERO, Trust::default())));
        let late = Explained::new("mpp_timeout", String::new(), Verdict::Incomplete);
        assert_eq!(learnt(in_parts, late), None, "alone it comes too late again");
        let without_output = Explained::no_output(&part());
        assert_eq!(learnt(in_parts, without_output), None, "the payee may have been paid for it");
    }
}

#[test]
fn a_recipe_that_is_given_up_leaves_the_row_too() {
    let mut pending = pending(true);
    pending.row.again = Some(crate::store::row::AgainRow {
        whom: crate::store::row::PaidFor::Invoice("lnbcrt".to_owned()),
        max_fee: AMOUNT,
        until: 9,
    });
    pending.takes_off(1, Flight { row: part(), way: Some(1) });
    let (Some(left), Some(Next::Wait)) =
        pending.fails(0, Explained::new("final", String::new(), Verdict::Final), Clock::monotonic())
    else {
        panic!("the other part is waited for")
    };
    assert_eq!((left.row.again, left.row.next_part, left.flights.len()), (None, 2, 1));
}
