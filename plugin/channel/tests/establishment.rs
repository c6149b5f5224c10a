//! Opening a channel, from both sides, up to its first use (BOLT 2, "Channel Establishment v1").
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Txid};
use duo::{
    Alice, Bob, Duo, TEMPORARY_ID, Terms, context, funding_tx, high_s, node_id, order, policy, sat, scid_alias, sent,
    signer, wired,
};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{AcceptChannel, ChannelReady, FundingCreated, Message, OpenChannel};
use outrigger_channel::{
    ChainEvent, ChannelNote, Command, Effect, FundingTold, Input, Opening, OpeningInput, OpeningStep, Phase,
    Publication, Refusal, Rule, Signer, Violation, Watch,
};

fn open_message(terms: &Terms) -> (Opening, OpenChannel) {
    let alice = signer(Alice);
    let (opening, message) = Opening::open(order(terms), &context(500, &terms.alice, &alice)).expect("an order");
    let Message::OpenChannel(open) = message else { panic!("{message:?}") };
    (opening, open)
}

fn accept(open: &OpenChannel, terms: &Terms) -> Result<(Opening, AcceptChannel), Violation> {
    let bob = signer(Bob);
    let (opening, message) =
        Opening::accept(open, node_id(Alice), (0, scid_alias(Bob)), &terms.features, &context(500, &terms.bob, &bob))?;
    let Message::AcceptChannel(accept) = message else { panic!("{message:?}") };
    Ok((opening, accept))
}

/// What Bob says of an `open_channel` that is good but for this change.
fn refused(change: impl FnOnce(&mut OpenChannel)) -> Rule {
    let terms = Terms::default();
    let (_, mut open) = open_message(&terms);
    change(&mut open);
    match accept(&open, &terms) {
        Err(Violation::Fail(rule)) => rule,
        other => panic!("{other:?}"),
    }
}

/// What Alice says of an `accept_channel` that is good but for this change.
fn refused_accept(change: impl FnOnce(&mut AcceptChannel)) -> String {
    let terms = Terms::default();
    let (mut opening, open) = open_message(&terms);
    let (_, mut accept) = accept(&open, &terms).expect("good terms");
    change(&mut accept);
    let alice = signer(Alice);
    let step = opening
        .step(OpeningInput::Message(&wired(&Message::AcceptChannel(accept))), &context(500, &terms.alice, &alice));
    gone(step)
}

/// The reason of an opening that is over, which the peer was told.
fn gone(step: OpeningStep) -> String {
    let OpeningStep::Gone { effects, reason } = step else { panic!("{step:?}") };
    let messages = sent(&effects);
    assert!(matches!(messages.as_slice(), [Message::Error(error)] if error.data.to_string() == reason));
    reason
}

#[test]
fn both_sides_open_fund_and_become_ready() {
    let terms = Terms::default();
    let (alices, bobs, tx) = duo::open(&terms, false);
    assert_eq!(alices.channel_id, bobs.channel_id);
    assert!(alices.effects.iter().any(
        |effect| matches!(effect, Effect::Publish { what: Publication::Funding, tx: published } if *published == tx)
    ));
    assert!(!bobs.effects.iter().any(|effect| matches!(effect, Effect::Publish { .. })));
    for birth in [&alices, &bobs] {
        assert!(birth.effects.iter().any(|effect| matches!(effect, Effect::Watch(Watch::Funding { .. }))));
        assert_eq!(birth.changes.head.as_ref(), Some(&birth.channel.rows().head));
    }
    // What the peer opened is news once it is in a block (FND-6).
    let is_pending = |effect: &Effect| matches!(effect, Effect::Note(ChannelNote::Pending { .. }));
    assert!(alices.effects.iter().any(is_pending) && !bobs.effects.iter().any(is_pending));
    let mut duo = Duo::born(&terms);
    duo.take_effects(Alice);
    assert_eq!(duo.add(Alice, sat(1000), 1), Err(Refusal::NotReady));
    assert_eq!(duo.alice.channel.summary(500).state, "funding");
    assert_eq!(duo.alice.channel.summary(500).confirmations_needed, 3);
    duo.confirm();
    duo.run();
    for who in [Alice, Bob] {
        assert_eq!(*duo.side(who).channel.phase(), Phase::Normal);
        let effects = duo.take_effects(who);
        assert_eq!(effects.iter().filter(|effect| is_pending(effect)).count(), usize::from(who == Bob));
        let ready = effects.into_iter().any(|effect| {
            matches!(effect, Effect::Note(ChannelNote::Ready { short_channel_id })
                if short_channel_id.to_string() == "501x4x0")
        });
        assert!(ready);
        let summary = duo.side(who).channel.summary(503);
        assert_eq!((summary.state, summary.connected, summary.confirmations_needed), ("normal", true, 0));
    }
    assert_eq!(duo.balances(Alice), (600_000_000, 400_000_000));
}

#[test]
fn a_channel_without_a_push_pays_from_the_opener_first() {
    let mut duo = Duo::normal(&Terms { push: Msat::ZERO, ..Terms::default() });
    assert!(duo.add(Bob, sat(1000), 1).is_err());
    duo.add(Alice, sat(1000), 1).expect("room");
    duo.run();
    duo.fulfill(Bob, 0, 1).expect("standing");
    duo.run();
    assert_eq!(duo.balances(Bob), (1_000_000, 999_000_000));
}

#[test]
fn bad_input_20_channel_type_missing_unknown_or_legacy() {
    assert_eq!(refused(|open| open.channel_type = None), Rule::ChannelTypeMissing);
    let legacy = Features::empty().require(Feature::STATIC_REMOTEKEY);
    assert_eq!(refused(|open| open.channel_type = Some(legacy)), Rule::ChannelTypeUnsuitable);
    let unknown = Features::channel_type_anchors().with_bit(200);
    assert_eq!(refused(|open| open.channel_type = Some(unknown)), Rule::ChannelTypeUnsuitable);
    // Neither side has offered what these types need.
    for feature in [Feature::ZEROCONF, Feature::SCID_ALIAS] {
        let variant = Features::channel_type_anchors().require(feature);
        assert_eq!(refused(|open| open.channel_type = Some(variant)), Rule::ChannelTypeUnsuitable);
    }
    let odd = Features::empty().offer(Feature::STATIC_REMOTEKEY).offer(Feature::ANCHORS);
    assert_eq!(refused(|open| open.channel_type = Some(odd)), Rule::ChannelTypeUnsuitable);
}

#[test]
fn bad_input_21_wrong_chain() {
    assert_eq!(refused(|open| open.chain_hash = bitcoin::constants::ChainHash::BITCOIN), Rule::UnknownChain);
}

#[test]
fn bad_input_22_push_above_funding() {
    assert_eq!(refused(|open| open.push_msat = Msat::new(1_000_000_001)), Rule::PushAboveFunding);
    assert_eq!(refused(|open| open.push_msat = Msat::new(u64::MAX)), Rule::PushAboveFunding);
}

#[test]
fn bad_input_23_dust_limit_and_reserve() {
    assert_eq!(refused(|open| open.dust_limit_satoshis = Sat::new(353)), Rule::DustLimitTooSmall);
    assert_eq!(refused(|open| open.dust_limit_satoshis = Sat::new(10_001)), Rule::DustLimitTooLarge);
    assert_eq!(
        refused(|open| {
            open.dust_limit_satoshis = Sat::new(5_000);
            open.channel_reserve_satoshis = Sat::new(4_999);
        }),
        Rule::ReserveBelowDust
    );
    assert_eq!(refused(|open| open.channel_reserve_satoshis = Sat::new(100_001)), Rule::ReserveTooLarge);
}

#[test]
fn cst_9_a_reserve_of_zero_is_refused() {
    assert_eq!(refused(|open| open.channel_reserve_satoshis = Sat::ZERO), Rule::ReserveBelowDust);
    // Below our own dust limit, though not below the peer's.
    let mut terms = Terms::default();
    terms.bob.dust_limit = Sat::new(1000);
    let (_, mut open) = open_message(&terms);
    open.channel_reserve_satoshis = Sat::new(999);
    assert_eq!(accept(&open, &terms).map(|_| ()), Err(Violation::Fail(Rule::ReserveBelowDust)));
}

#[test]
fn bad_input_24_max_accepted_htlcs() {
    assert_eq!(refused(|open| open.max_accepted_htlcs = 484), Rule::MaxAcceptedHtlcs);
    assert_eq!(refused(|open| open.max_accepted_htlcs = 0), Rule::MaxAcceptedHtlcs);
}

#[test]
fn bad_input_25_to_self_delay() {
    assert_eq!(refused(|open| open.to_self_delay = 2017), Rule::ToSelfDelayTooLong(2016));
}

#[test]
fn bad_input_26_funding_too_large_or_nothing() {
    let largest = Sat::new(16_000_000);
    let large = refused(|open| open.funding_satoshis = Sat::new(16_000_001));
    assert_eq!(large, Rule::FundingTooLarge(largest));
    assert_eq!(refused(|open| open.funding_satoshis = Sat::ZERO), Rule::FundingTooSmall(Sat::new(20_000)));
    // Whatever the operator allows, 2^24 needs a feature that we do not offer.
    let mut terms = Terms::default();
    terms.bob.max_funding = Sat::new(1 << 30);
    let (_, mut open) = open_message(&terms);
    open.funding_satoshis = Sat::new(1 << 24);
    let rule = Rule::FundingTooLarge(Sat::new((1 << 24) - 1));
    assert_eq!(accept(&open, &terms).map(|_| ()), Err(Violation::Fail(rule)));
}

#[test]
fn bad_input_28_nobody_above_the_reserve_or_a_fee_that_cannot_be_paid() {
    let unpaid = refused(|open| open.push_msat = sat(1_000_000 - 1783));
    assert_eq!(unpaid, Rule::OpenerCannotPayFee);
    let rule = refused(|open| {
        open.funding_satoshis = Sat::new(20_000);
        open.push_msat = sat(2_000);
        open.channel_reserve_satoshis = Sat::new(2_000);
        open.feerate_per_kw = FeeratePerKw::new(14_000);
    });
    assert_eq!(rule, Rule::NobodyAboveReserve);
}

#[test]
fn feerates_outside_of_the_bounds_are_refused() {
    assert_eq!(refused(|open| open.feerate_per_kw = FeeratePerKw::new(252)), Rule::FeerateTooLow);
    let maximum = FeeratePerKw::new(25_000);
    assert_eq!(refused(|open| open.feerate_per_kw = FeeratePerKw::new(25_001)), Rule::FeerateTooHigh(maximum));
}

#[test]
fn limits_that_make_a_channel_useless_are_refused() {
    assert_eq!(refused(|open| open.htlc_minimum_msat = sat(10_001)), Rule::HtlcMinimumTooLarge);
    assert_eq!(refused(|open| open.max_htlc_value_in_flight_msat = Msat::new(999)), Rule::MaxInFlightTooSmall);
    let script = ScriptBuf::from_bytes(vec![0x6a, 1, 1]);
    assert_eq!(refused(|open| open.upfront_shutdown_script = Some(script)), Rule::ShutdownScript);
}

#[test]
fn bad_input_32_accept_channel_that_does_not_fit() {
    let other_id = refused_accept(|accept| accept.temporary_channel_id = ChannelId([6; 32]));
    assert_eq!(other_id, Rule::WrongTemporaryId.to_string());
    let untyped = refused_accept(|accept| accept.channel_type = None);
    assert_eq!(untyped, Rule::ChannelTypeMissing.to_string());
    let changed = Features::empty().require(Feature::STATIC_REMOTEKEY);
    let changed = refused_accept(|accept| accept.channel_type = Some(changed));
    assert_eq!(changed, Rule::ChannelTypeChanged.to_string());
    let reserve = refused_accept(|accept| accept.channel_reserve_satoshis = Sat::new(353));
    assert_eq!(reserve, Rule::ReserveBelowDust.to_string());
    let depth = refused_accept(|accept| accept.minimum_depth = 1_000_000);
    assert_eq!(depth, Rule::MinimumDepthTooLong(144).to_string());
    let dust = refused_accept(|accept| {
        accept.dust_limit_satoshis = Sat::new(10_000);
        accept.channel_reserve_satoshis = Sat::new(9_999);
    });
    assert_eq!(dust, Rule::ReserveBelowDust.to_string());
}

/// Bob's opening, and the `funding_created` that is on its way to him.
fn created() -> (Opening, FundingCreated) {
    let terms = Terms::default();
    let alice = signer(Alice);
    let cx = context(500, &terms.alice, &alice);
    let (mut opener, open) = open_message(&terms);
    let (accepter, accept) = accept(&open, &terms).expect("good terms");
    let step = opener.step(OpeningInput::Message(&Message::AcceptChannel(accept)), &cx);
    let OpeningStep::Fund { script_pubkey, amount } = step else { panic!("{step:?}") };
    let tx = funding_tx(script_pubkey, amount, false);
    let OpeningStep::Renamed(id, effects) = opener.step(OpeningInput::Funding { tx, output_index: 0 }, &cx) else {
        panic!("funded")
    };
    assert_eq!(opener.channel_id(), id);
    let Message::FundingCreated(created) = sent(&effects).remove(0) else { panic!("funding_created") };
    (accepter, created)
}

#[test]
fn fnd_3_bad_input_33_zero_txid_or_bad_signature_stores_nothing() {
    let policy = policy();
    let bob = signer(Bob);
    let cx = context(500, &policy, &bob);
    let (mut accepter, mut message) = created();
    message.funding_txid = Txid::all_zeros();
    let step = accepter.step(OpeningInput::Message(&Message::FundingCreated(message)), &cx);
    assert_eq!(gone(step), Rule::ZeroFundingTxid.to_string());

    let (mut accepter, mut message) = created();
    message.funding_output_index = u16::MAX;
    let step = accepter.step(OpeningInput::Message(&Message::FundingCreated(message.clone())), &cx);
    assert!(gone(step).starts_with("signature does not sign"));
    // Over is over.
    message.funding_output_index = 0;
    let step = accepter.step(OpeningInput::Message(&Message::FundingCreated(message)), &cx);
    assert_eq!(gone(step), Rule::UnexpectedMessage("funding_created").to_string());
}

#[test]
fn cst_10_bad_input_33_a_high_s_signature_opens_nothing() {
    let policy = policy();
    let bob = signer(Bob);
    let (mut accepter, mut message) = created();
    message.signature = high_s(&message.signature);
    let step = accepter.step(OpeningInput::Message(&Message::FundingCreated(message)), &context(500, &policy, &bob));
    assert_eq!(gone(step), Rule::HighS.to_string());
}

#[test]
fn orders_that_cannot_be_followed_are_refused() {
    let alice = signer(Alice);
    let policy = policy();
    let cx = context(500, &policy, &alice);
    let refusal = |change: &dyn Fn(&mut outrigger_channel::OpenOrder)| {
        let mut order = order(&Terms::default());
        change(&mut order);
        Opening::open(order, &cx).map(|_| ()).expect_err("a refusal")
    };
    let (minimum, maximum) = (Sat::new(20_000), Sat::new(16_000_000));
    assert_eq!(refusal(&|order| order.funding = Sat::new(1)), Refusal::FundingOutOfRange { minimum, maximum });
    assert_eq!(refusal(&|order| order.push = sat(1_000_000)), Refusal::PushTooLarge);
    assert_eq!(refusal(&|order| order.features = Features::empty()), Refusal::PeerLacksAnchors);
    assert_eq!(refusal(&|order| order.shutdown_script = Some(ScriptBuf::new())), Refusal::ShutdownScript);
}

#[test]
fn the_opener_refuses_a_transaction_that_does_not_pay_the_channel() {
    let terms = Terms::default();
    let alice = signer(Alice);
    let cx = context(500, &terms.alice, &alice);
    let (mut opener, open) = open_message(&terms);
    let (_, accept) = accept(&open, &terms).expect("good terms");
    let OpeningStep::Fund { script_pubkey, amount } =
        opener.step(OpeningInput::Message(&Message::AcceptChannel(accept)), &cx)
    else {
        panic!("funds")
    };
    let short = amount.saturating_sub(Sat::new(1));
    let tx = funding_tx(script_pubkey, short, false);
    let step = opener.step(OpeningInput::Funding { tx, output_index: 0 }, &cx);
    assert_eq!(gone(step), Refusal::FundingOutputMissing(terms.funding).to_string());
    assert_eq!(opener.temporary_id(), TEMPORARY_ID);
}

#[test]
fn an_error_or_an_abandoned_opening_ends_it() {
    let terms = Terms::default();
    let alice = signer(Alice);
    let cx = context(500, &terms.alice, &alice);
    let (mut opener, _) = open_message(&terms);
    let error = outrigger_bolt::wire::Error { channel_id: TEMPORARY_ID, data: "no\u{1b}[31m".into() };
    let step = opener.step(OpeningInput::Message(&Message::Error(error)), &cx);
    let OpeningStep::Gone { effects, reason } = step else { panic!("{step:?}") };
    assert!(effects.is_empty() && !reason.contains('\u{1b}'));
    let (mut opener, _) = open_message(&terms);
    gone(opener.step(OpeningInput::Abandon("enough"), &cx));
}

/// Bob, whose funding transaction of the right txid turns out to be this one.
fn confirmed_with(change: impl FnOnce(&mut bitcoin::Transaction)) -> Duo {
    let terms = Terms::default();
    let bob = signer(Bob);
    let (alice_policy, alice) = (policy(), signer(Alice));
    let cx = context(500, &alice_policy, &alice);
    let (mut opener, open) = open_message(&terms);
    let (mut accepter, accept) = accept(&open, &terms).expect("good terms");
    let OpeningStep::Fund { script_pubkey, amount } =
        opener.step(OpeningInput::Message(&Message::AcceptChannel(accept)), &cx)
    else {
        panic!("funds")
    };
    // The opener signs for the outpoint of a transaction that pays something else.
    let good = funding_tx(script_pubkey, amount, false);
    let mut bad = good.clone();
    change(&mut bad);
    let created = created_for(&open, &terms, &bad);
    let step = accepter.step(OpeningInput::Message(&Message::FundingCreated(created)), &context(500, &terms.bob, &bob));
    let OpeningStep::Born(birth) = step else { panic!("{step:?}") };
    let mut duo = Duo::born(&terms);
    duo.bob.channel = birth.channel;
    duo.bob.monitor = outrigger_channel::Monitor::new(&birth.monitor).expect("a first update").0;
    duo.height = 510;
    duo.input(Bob, Input::Chain(ChainEvent::FundingConfirmed { height: 501, tx_index: 4, tx: &bad }));
    duo
}

/// `funding_created` for output 0 of any transaction, with a valid signature.
fn created_for(open: &OpenChannel, terms: &Terms, tx: &bitcoin::Transaction) -> FundingCreated {
    use outrigger_bolt::keys::CommitmentKeys;
    use outrigger_bolt::tx::commitment::{CommitmentPlan, CommitmentTx};
    let (alice, bob) = (signer(Alice), signer(Bob));
    let (ours, theirs) = (alice.basepoints(), bob.basepoints());
    let funding = bitcoin::OutPoint { txid: tx.compute_txid(), vout: 0 };
    let keys = CommitmentKeys::derive(theirs, ours, &bob.per_commitment_point(0)).expect("keys");
    let to_other = terms.funding.to_msat().expect("fits").saturating_sub(terms.push);
    let plan = CommitmentPlan {
        funding_outpoint: funding,
        number: 0,
        opener_payment_basepoint: ours.payment,
        accepter_payment_basepoint: theirs.payment,
        owner_is_opener: false,
        to_self_delay: open.to_self_delay,
        dust_limit: Sat::new(354),
        feerate: terms.feerate,
        to_owner: terms.push,
        to_other,
        htlcs: &[],
        keys: &keys,
        owner_funding_pubkey: theirs.funding_pubkey,
        other_funding_pubkey: ours.funding_pubkey,
    };
    let commitment = CommitmentTx::build(&plan).expect("affordable");
    let params = Duo::born(terms).alice.channel.rows().params.clone();
    let (signature, _) = alice.sign_remote_commitment(&params, &commitment, &keys);
    FundingCreated {
        temporary_channel_id: TEMPORARY_ID,
        funding_txid: funding.txid,
        funding_output_index: 0,
        signature,
    }
}

#[test]
fn fnd_1_bad_input_34_a_funding_output_that_is_not_what_was_agreed() {
    let mut wrong_script = confirmed_with(|tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0x51]));
    let mut one_sat_less = confirmed_with(|tx| tx.output[0].value = Amount::from_sat(999_999));
    let mut one_sat_more = confirmed_with(|tx| tx.output[0].value = Amount::from_sat(1_000_001));
    let mut no_output = confirmed_with(|tx| tx.output.clear());
    let mut other_index = confirmed_with(|tx| {
        let other = bitcoin::TxOut { value: Amount::from_sat(5_000), script_pubkey: ScriptBuf::new() };
        tx.output.insert(0, other);
    });
    for duo in [&mut wrong_script, &mut one_sat_less, &mut one_sat_more, &mut no_output, &mut other_index] {
        assert!(matches!(duo.bob.channel.phase(), Phase::Closed { .. }));
        let effects = duo.take_effects(Bob);
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Note(ChannelNote::FundingMismatch { .. }))));
        assert!(matches!(duo.bob.outbox.pop_front(), Some(Message::Error(_))));
        assert!(!duo.bob.channel.rows().head.channel_ready_sent);
        assert!(duo.bob.monitor.is_closed());
        let watches = duo.bob.channel.watches();
        assert!(matches!(watches.as_slice(), [Watch::Height(_)]), "only when it is to be forgotten: {watches:?}");
    }
}

#[test]
fn fnd_4_a_coinbase_needs_a_hundred_confirmations() {
    let mut duo = Duo::born_of(&Terms::default(), true);
    let tx = duo.tx.clone();
    duo.height = 599;
    duo.input(Bob, Input::Chain(ChainEvent::FundingConfirmed { height: 501, tx_index: 0, tx: &tx }));
    assert!(!duo.bob.channel.rows().head.channel_ready_sent);
    let effects = duo.take_effects(Bob);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Watch(Watch::Height(600)))));
    assert!(duo.bob.channel.watches().contains(&Watch::Height(600)));
    duo.height = 600;
    duo.input(Bob, Input::Chain(ChainEvent::Height(600)));
    assert!(duo.bob.channel.rows().head.channel_ready_sent);
}

#[test]
fn bad_input_36_channel_ready_twice_or_early() {
    let mut duo = Duo::born(&Terms::default());
    let ready = |point: u64| {
        Message::ChannelReady(ChannelReady {
            channel_id: Duo::born(&Terms::default()).alice.channel.id(),
            second_per_commitment_point: signer(Alice).per_commitment_point(point),
            short_channel_id: None,
        })
    };
    duo.message(Bob, &ready(1));
    assert!(matches!(duo.bob.channel.phase(), Phase::Funding(_)));
    duo.message(Bob, &ready(9));
    let point = duo.bob.channel.rows().head.remote_next_point;
    assert_eq!(point, Some(signer(Alice).per_commitment_point(1)), "the first one counts");
    assert!(duo.bob.outbox.is_empty());
    duo.confirm();
    assert_eq!(*duo.bob.channel.phase(), Phase::Normal);
}

#[test]
fn fnd_10_updates_before_channel_ready_are_warned_of() {
    let mut duo = Duo::born(&Terms::default());
    let message = Message::CommitmentSigned(outrigger_bolt::wire::CommitmentSigned {
        channel_id: duo.bob.channel.id(),
        signature: created().1.signature,
        htlc_signatures: Vec::new(),
        funding_txid: None,
    });
    duo.message(Bob, &message);
    let Some(Message::Warning(warning)) = duo.bob.outbox.pop_front() else { panic!("a warning") };
    assert_eq!(warning.data.to_string(), Rule::BeforeReady.to_string());
    assert!(matches!(duo.bob.channel.phase(), Phase::Funding(_)));
    assert_eq!(duo.order(Bob, Command::UpdateFee(FeeratePerKw::new(500))), Err(Refusal::NotReady));
}

#[test]
fn fnd_6_a_channel_that_is_never_funded_is_forgotten_by_the_accepter_alone() {
    let mut duo = Duo::born(&Terms::default());
    assert!(duo.bob.channel.watches().contains(&Watch::Height(2516)));
    for height in [2515, 2516] {
        duo.height = height;
        for who in [Alice, Bob] {
            duo.input(who, Input::Chain(ChainEvent::Height(height)));
        }
        let forgotten = matches!(duo.bob.channel.phase(), Phase::Closed { .. });
        assert_eq!(forgotten, height == 2516);
    }
    assert!(matches!(duo.alice.channel.phase(), Phase::Funding(_)), "the opener may have published");
    let is_end = |effect: &Effect| matches!(effect, Effect::Note(ChannelNote::NeverFunded { told: None, .. }));
    assert!(duo.take_effects(Bob).iter().any(is_end), "nothing was told of it, and nothing is");
    // FND-8: the monitor has nothing to watch either.
    assert!(duo.bob.monitor.is_closed());

    // Once it is confirmed, time does not matter any more.
    let mut duo = Duo::born(&Terms::default());
    duo.confirm();
    duo.height = 9999;
    duo.input(Bob, Input::Chain(ChainEvent::Height(9999)));
    assert!(!matches!(duo.bob.channel.phase(), Phase::Closed { .. }));
}

#[test]
fn bad_input_59_cst_20_a_closed_channel_still_answers() {
    let mut duo = Duo::born(&Terms::default());
    duo.height = 2516;
    duo.input(Bob, Input::Chain(ChainEvent::Height(2516)));
    duo.connect();
    let reestablish = duo.alice.outbox.pop_front().expect("channel_reestablish");
    duo.bob.outbox.clear();
    duo.message(Bob, &reestablish);
    let answer: Vec<Message> = duo.bob.outbox.drain(..).collect();
    assert!(matches!(answer.as_slice(), [Message::ChannelReestablish(_), Message::Error(_)]), "{answer:?}");
}

/// A block that is seen again, after a crash or a reorganisation, is no news.
#[test]
fn per_4_an_operator_hears_once_that_the_peers_funding_transaction_is_in_a_block() {
    let mut duo = Duo::born(&Terms::default());
    let tx = duo.tx.clone();
    let mut told = 0;
    duo.height = 501;
    for _ in 0..3 {
        duo.input(Bob, Input::Chain(ChainEvent::FundingConfirmed { height: 501, tx_index: 4, tx: &tx }));
        let is_pending = |effect: &&Effect| matches!(effect, Effect::Note(ChannelNote::Pending { .. }));
        told += duo.take_effects(Bob).iter().filter(is_pending).count();
        duo.input(Bob, Input::Chain(ChainEvent::FundingUnconfirmed));
    }
    assert_eq!(told, 1);
    duo.confirm();
    let head = &duo.bob.channel.rows().head;
    assert!(head.channel_ready_sent && head.told == FundingTold::default(), "{head:?}");
}

#[test]
fn an_operator_hears_once_of_an_own_funding_transaction_that_never_confirms() {
    let mut duo = Duo::born(&Terms::default());
    let funding = duo.alice.channel.rows().params.funding;
    assert!(duo.alice.channel.watches().contains(&Watch::Height(644)));
    assert!(!duo.bob.channel.watches().contains(&Watch::Height(644)));
    let mut told = Vec::new();
    for height in [643, 644, 644, 645, 2516, 9999] {
        duo.height = height;
        duo.input(Alice, Input::Chain(ChainEvent::Height(height)));
        let stuck = |effect: &Effect| matches!(effect, Effect::Note(ChannelNote::FundingStuck { txid, blocks: 144 }) if *txid == funding.txid);
        told.extend(duo.take_effects(Alice).iter().filter(|effect| stuck(effect)).map(|_| height));
    }
    assert_eq!(told, [644]);
    // Confirmed after all, the channel becomes what it was to be.
    duo.confirm();
    assert!(duo.alice.channel.rows().head.channel_ready_sent);
}
