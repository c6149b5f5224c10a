//! Cooperative close under `option_simple_close`: each side pays for a transaction of its own (BOLT 2, "Closing
//! Negotiation: `closing_complete` and `closing_sig`").
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use std::collections::BTreeSet;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Sequence, Transaction, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::tx::closing::{
    ClosingVariant, Share, closing_weight, simple_closing_outputs, simple_closing_transaction,
};
use outrigger_bolt::wire::{ClosingComplete, ClosingSig, ClosingSigned, Message, Shutdown};
use outrigger_channel::{ChainEvent, ChannelNote, Command, Input, Link, Phase, Refusal, Reply, Signer, Spend};
use pair::founding::{self, wallet_script};
use pair::{Alice, Bob, Fate, Name, Pair, Setup};

/// Less than what the side that did not ask for the close thinks right, so that it pays for one of its own as well.
const FEERATE: FeeratePerKw = FeeratePerKw::new(1_000);

/// With `option_simple_close`, and no script fixed upfront.
fn free_scripts() -> Features {
    founding::legacy_features().offer(Feature::SIMPLE_CLOSE)
}

fn setup() -> Setup {
    Setup { features: founding::features(), ..Setup::default() }
}

fn close_of(pair: &Pair, name: Name, feerate: FeeratePerKw) -> Command {
    Command::Shutdown { script: pair.node(name).shutdown_script.clone(), feerate }
}

fn order_close(pair: &mut Pair, name: Name, feerate: FeeratePerKw) {
    let order = close_of(pair, name, feerate);
    pair.order(name, order).expect("an open channel can be closed");
}

/// Both have said `shutdown`; nothing that came after is delivered.
fn negotiating(features: Features) -> Pair {
    let mut pair = Pair::connected(1, &Setup { features, ..Setup::default() });
    order_close(&mut pair, Alice, FEERATE);
    pair.receive(Bob);
    pair.flush(Bob);
    pair.receive(Alice);
    pair.flush(Alice);
    assert!(matches!(pair.node(Alice).sent.last(), Some(Message::ClosingComplete(_))));
    pair
}

fn closes(pair: &Pair, name: Name) -> BTreeSet<Txid> {
    pair.phase(name).closes_to_publish().into_iter().map(Transaction::compute_txid).collect()
}

fn fee_of(pair: &Pair, tx: &Transaction) -> u64 {
    let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
    pair.node(Alice).channel.rows().params.capacity.get() - paid
}

fn last_complete(pair: &Pair, name: Name) -> ClosingComplete {
    let messages = pair.node(name).sent.iter().rev();
    let mut complete =
        messages.filter_map(|message| if let Message::ClosingComplete(m) = message { Some(m) } else { None });
    complete.next().cloned().expect("closing_complete")
}

/// The warning that this side sent last, after which it hung up.
fn warning(pair: &Pair, name: Name) -> String {
    assert!(!pair.is_connected(), "a warning ends the connection");
    match pair.node(name).sent.last() {
        Some(Message::Warning(warning)) => warning.data.to_string(),
        other => panic!("{other:?} is not a warning"),
    }
}

/// A `closing_complete` as `from` could make it.
struct Draft<'a> {
    pair: &'a Pair,
    from: Name,
    closer_script: ScriptBuf,
    closee_script: ScriptBuf,
    fee: u64,
    locktime: u32,
}

impl<'a> Draft<'a> {
    fn new(pair: &'a Pair, from: Name) -> Self {
        let script = |name| pair.node(name).shutdown_script.clone();
        Self {
            pair,
            from,
            closer_script: script(from),
            closee_script: script(from.other()),
            fee: 1_000,
            locktime: pair.world.height,
        }
    }

    fn tx(&self, variant: ClosingVariant) -> Transaction {
        let rows = self.pair.node(self.from).channel.rows();
        let totals = &rows.head.local_commitment;
        let closer = Share { script_pubkey: &self.closer_script, balance: totals.to_local };
        let closee = Share { script_pubkey: &self.closee_script, balance: totals.to_remote };
        let outputs = simple_closing_outputs(&closer, &closee, Sat::new(self.fee), variant).expect("affordable");
        simple_closing_transaction(rows.params.funding, outputs, self.locktime)
    }

    fn sign(&self, by: Name, variant: ClosingVariant) -> Option<Signature> {
        let node = self.pair.node(by);
        Some(node.signer.sign_closing(&node.channel.rows().params, &self.tx(variant)))
    }

    fn bare(&self) -> ClosingComplete {
        ClosingComplete {
            channel_id: self.pair.node(self.from).id(),
            closer_scriptpubkey: self.closer_script.clone(),
            closee_scriptpubkey: self.closee_script.clone(),
            fee_satoshis: Sat::new(self.fee),
            locktime: self.locktime,
            closer_output_only: None,
            closee_output_only: None,
            closer_and_closee_outputs: None,
        }
    }

    /// With the signatures that the side with more money must give.
    fn complete(&self) -> ClosingComplete {
        ClosingComplete {
            closer_output_only: self.sign(self.from, ClosingVariant::CloserOnly),
            closer_and_closee_outputs: self.sign(self.from, ClosingVariant::Both),
            ..self.bare()
        }
    }
}

#[test]
fn each_side_pays_for_a_close_of_its_own() {
    for closer in Name::BOTH {
        let mut pair = Pair::connected(2, &setup());
        order_close(&mut pair, closer, FEERATE);
        pair.run();
        pair.assert_closed_fairly();
        assert_eq!(closes(&pair, Alice), closes(&pair, Bob), "both know both");
        assert_eq!(closes(&pair, Alice), pair.world.mempool.keys().copied().collect());
        assert_eq!(pair.world.mempool.len(), 2);
        for tx in pair.world.mempool.values() {
            assert_eq!(tx.input[0].sequence, Sequence(0xffff_fffd));
            assert_eq!(tx.lock_time.to_consensus_u32(), pair.world.height);
            for name in Name::BOTH {
                let node = pair.node(name);
                assert_eq!(node.monitor.classify(tx, &node.signer), Spend::Mutual);
            }
        }
        pair.bury_close();
    }
}

#[test]
fn a_side_that_was_asked_leaves_it_at_a_close_that_pays_enough() {
    for closer in Name::BOTH {
        let mut pair = Pair::connected(2, &setup());
        order_close(&mut pair, closer, FeeratePerKw::new(2_000));
        pair.run();
        pair.assert_closed_fairly();
        assert_eq!(pair.world.mempool.len(), 1, "the same fee twice would only compete");
        assert_eq!(closes(&pair, Alice), closes(&pair, Bob));
        let asked = pair.node(closer.other());
        assert!(!asked.sent.iter().any(|message| matches!(message, Message::ClosingComplete(_))));
        pair.bury_close();
    }
    // Unless the other side cannot pay for any.
    let mut pair = Pair::connected(2, &Setup { push: Msat::ZERO, ..setup() });
    order_close(&mut pair, Bob, FeeratePerKw::new(2_000));
    pair.run();
    pair.assert_closed_fairly();
    assert_eq!(last_complete(&pair, Alice).fee_satoshis, fee_for(&pair, Alice, FeeratePerKw::new(1_500)));
    pair.bury_close();
}

/// What a close with one output, to this side, costs.
fn fee_for(pair: &Pair, name: Name, feerate: FeeratePerKw) -> Sat {
    feerate.fee(closing_weight([pair.node(name).shutdown_script.as_script()]))
}

#[test]
fn a_close_that_cannot_confirm_yet_is_signed_and_not_waited_for() {
    let mut pair = Pair::connected(2, &setup());
    order_close(&mut pair, Alice, FEERATE);
    pair.receive(Bob);
    pair.flush(Bob);
    let draft = Draft { fee: 9_000, locktime: pair.world.height + 1_000, ..Draft::new(&pair, Alice) };
    let message = Message::ClosingComplete(draft.complete());
    pair.inject(Bob, &message);
    assert_eq!(closes(&pair, Bob).len(), 1, "it does no harm to sign it");
    assert_eq!(last_complete(&pair, Bob).locktime, pair.world.height, "Bob's own is final");
}

#[test]
fn whichever_confirms_is_the_close() {
    for index in 0..2 {
        let mut pair = Pair::connected(3, &setup());
        order_close(&mut pair, Bob, FEERATE);
        pair.run();
        let txid = *pair.world.mempool.keys().nth(index).expect("two closes");
        pair.world.mempool.retain(|found, _| *found == txid);
        pair.bury_close();
        for name in Name::BOTH {
            assert!(matches!(pair.phase(name), Phase::Closed { txid: closed, .. } if *closed == txid));
        }
    }
}

#[test]
fn cst_17_shutdown_waits_for_htlcs() {
    let setup = setup();
    let mut pair = Pair::connected(4, &setup);
    pair.pay(Alice, Msat::new(20_000_000), Fate::Fulfilled);
    pair.pay(Bob, Msat::new(30_000_000), Fate::Failed);
    pair.run();
    order_close(&mut pair, Bob, FEERATE);
    pair.run();
    for name in Name::BOTH {
        assert!(matches!(pair.phase(name), Phase::ShuttingDown { .. }));
        assert!(!pair.node(name).sent.iter().any(|message| matches!(message, Message::ClosingComplete(_))));
    }
    pair.heal();
    pair.assert_settled(&setup);
    pair.assert_closed_fairly();
    pair.bury_close();
}

/// How a close is interrupted.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Disconnect,
    Crash(Name),
    CommitAndCrash(Name),
}

#[test]
fn cst_3_a_close_survives_a_cut_at_every_point() {
    let cuts =
        [Cut::Disconnect, Cut::Crash(Alice), Cut::Crash(Bob), Cut::CommitAndCrash(Alice), Cut::CommitAndCrash(Bob)];
    for cut in cuts {
        for point in 0..28 {
            let mut pair = Pair::connected(6, &setup());
            let order = close_of(&pair, Bob, FEERATE);
            pair.command(Bob, order);
            for turn in 0..point {
                let name = Name::BOTH[turn / 2 % 2];
                let _moved = if turn % 2 == 0 { pair.commit(name) } else { pair.receive(name) };
            }
            match cut {
                Cut::Disconnect => pair.disconnect(),
                Cut::Crash(name) => pair.crash(name),
                Cut::CommitAndCrash(name) => pair.commit_and_crash(name),
            }
            pair.heal();
            if !pair.is_shutting_down() {
                // The order itself was lost with the crash: its caller had no answer.
                let order = close_of(&pair, Bob, FEERATE);
                pair.command(Bob, order);
                pair.heal();
            }
            pair.assert_closed_fairly();
            for name in Name::BOTH {
                let Phase::Closing { wanted, .. } = pair.phase(name) else { panic!("{cut:?} at {point}") };
                assert_eq!(*wanted, None, "{cut:?} at {point}: {name:?} has its own close signed");
            }
            pair.bury_close();
        }
    }
}

#[test]
fn a_signed_close_is_not_asked_for_again() {
    let mut pair = negotiating(founding::features());
    pair.run();
    let before = closes(&pair, Alice);
    for _ in 0..3 {
        pair.world.height += 1;
        pair.disconnect();
        pair.heal();
    }
    assert_eq!(closes(&pair, Alice), before);
    assert_eq!(closes(&pair, Bob), before);
}

#[test]
fn a_restart_publishes_every_close_again() {
    let mut pair = negotiating(founding::features());
    pair.run();
    let signed = closes(&pair, Bob);
    pair.world.mempool.clear();
    pair.crash(Bob);
    assert_eq!(pair.world.mempool.keys().copied().collect::<BTreeSet<_>>(), signed);
    pair.bury_close();
}

#[test]
fn reo_a_close_that_is_reorganised_away_is_published_again_with_its_rivals() {
    let mut pair = negotiating(founding::features());
    pair.run();
    let signed = closes(&pair, Alice);
    pair.mine();
    for name in Name::BOTH {
        pair.world.mempool.clear();
        pair.crash(name);
        assert!(pair.world.mempool.is_empty(), "nothing to publish while one is in a block");
        pair.input(name, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
        pair.flush(name);
        assert_eq!(closes(&pair, name), signed);
        assert_eq!(pair.world.mempool.keys().copied().collect::<BTreeSet<_>>(), signed, "{name:?}");
    }
    pair.bury_close();
}

#[test]
fn a_higher_feerate_replaces_the_close() {
    for name in Name::BOTH {
        let mut pair = negotiating(founding::features());
        pair.run();
        let dearest = pair.world.mempool.values().map(|tx| fee_of(&pair, tx)).max().expect("two closes");
        order_close(&mut pair, name, FeeratePerKw::new(4_000));
        pair.run();
        pair.assert_closed_fairly();
        let newest = pair.phase(name).closes_to_publish().last().copied().cloned().expect("a close");
        assert_eq!(pair.world.mempool.len(), 3);
        let told = ChannelNote::Closing { txid: newest.compute_txid() };
        assert_eq!(pair.node(name).notes.last(), Some(&told), "what was ordered is told");
        assert!(fee_of(&pair, &newest) > dearest);
        let weight = closing_weight(newest.output.iter().map(|output| output.script_pubkey.as_script()));
        assert_eq!(fee_of(&pair, &newest), FeeratePerKw::new(4_000).fee(weight).get(), "as it was ordered");
        let replaced = Refusal::FeerateOutOfRange {
            floor: FeeratePerKw::new(4_250),
            maximum: pair.world.policy.max_commitment_feerate,
        };
        let cheap = close_of(&pair, name, FeeratePerKw::new(4_100));
        assert_eq!(pair.order(name, cheap), Err(replaced), "mempools would refuse it");
        pair.disconnect();
        let late = close_of(&pair, name, FeeratePerKw::new(8_000));
        assert_eq!(pair.order(name, late), Err(Refusal::NotConnected));
        pair.world.mempool.retain(|txid, _| *txid == newest.compute_txid());
        pair.bury_close();
    }
}

#[test]
fn a_replacement_waits_for_the_closing_sig_and_outlives_a_crash() {
    let mut pair = negotiating(founding::features());
    let sent = |pair: &Pair| pair.node(Alice).sent.iter().filter(|m| matches!(m, Message::ClosingComplete(_))).count();
    assert_eq!(sent(&pair), 1);
    order_close(&mut pair, Alice, FeeratePerKw::new(5_000));
    assert_eq!(sent(&pair), 1, "BOLT 2: not before the peer's closing_sig");
    let mut crashed = negotiating(founding::features());
    order_close(&mut crashed, Alice, FeeratePerKw::new(5_000));
    crashed.crash(Alice);
    for mut pair in [pair, crashed] {
        pair.heal();
        pair.assert_closed_fairly();
        let feerate = |tx: &Transaction| {
            let weight = closing_weight(tx.output.iter().map(|output| output.script_pubkey.as_script()));
            fee_of(&pair, tx) == FeeratePerKw::new(5_000).fee(weight).get()
        };
        assert!(pair.world.mempool.values().any(feerate), "the newest order is followed");
        pair.bury_close();
    }
}

#[test]
fn a_bump_after_a_close_by_closing_signed_is_refused() {
    let mut pair = Pair::connected(7, &Setup::default());
    order_close(&mut pair, Alice, FEERATE);
    pair.run();
    let again = close_of(&pair, Alice, FeeratePerKw::new(9_000));
    assert_eq!(pair.order(Alice, again), Err(Refusal::ShuttingDown));
}

/// What each side signs, by its balance: BOLT 2, the sender of `closing_complete`.
#[test]
fn the_lesser_side_gives_up_dust_and_the_other_side_offers_to() {
    // Bob's balance in msat; whether Alice and Bob send closing_complete, and with which signatures.
    let cases = [
        (0, Some((true, false, false)), None),
        // Too little for a fee that is relayed; then dust, which the other side's close leaves to the miners already.
        (100_000, Some((true, false, false)), None),
        (293_000, Some((true, false, false)), None),
        // An output, but nothing is left of it after a fee.
        (294_000, Some((true, false, true)), Some((false, true, false))),
        (1_200_000, Some((true, false, true)), Some((false, true, false))),
        (100_000_000, Some((true, false, true)), Some((false, false, true))),
        (500_000_000, Some((true, false, true)), Some((true, false, true))),
        (700_000_000, Some((false, false, true)), Some((true, false, true))),
    ];
    for (push, alice, bob) in cases {
        let mut pair = Pair::connected(8, &Setup { push: Msat::new(push), ..setup() });
        order_close(&mut pair, Alice, FEERATE);
        pair.run();
        let fields = |name: Name| {
            pair.node(name).sent.iter().find_map(|message| match message {
                Message::ClosingComplete(m) => Some((
                    m.closer_output_only.is_some(),
                    m.closee_output_only.is_some(),
                    m.closer_and_closee_outputs.is_some(),
                )),
                _ => None,
            })
        };
        assert_eq!((fields(Alice), fields(Bob)), (alice, bob), "{push}");
        for tx in pair.world.mempool.values() {
            for output in &tx.output {
                assert!(output.value >= output.script_pubkey.minimal_non_dust(), "{push}: it could not be relayed");
            }
        }
        pair.bury_close();
    }
}

#[test]
fn an_op_return_script_burns_what_it_is_owed() {
    let mut pair = Pair::connected(9, &Setup { features: free_scripts(), ..Setup::default() });
    order_close(&mut pair, Alice, FEERATE);
    pair.receive(Bob);
    pair.flush(Bob);
    let script = ScriptBuf::from_bytes([&[0x6a, 8][..], b"farewell"].concat());
    let shutdown = Shutdown { channel_id: pair.node(Alice).id(), scriptpubkey: script.clone() };
    pair.inject(Alice, &Message::Shutdown(shutdown));
    let complete = last_complete(&pair, Alice);
    assert_eq!(complete.closee_scriptpubkey, script);
    let draft = Draft { closer_script: script.clone(), fee: 400_000, ..Draft::new(&pair, Bob) };
    let message = ClosingComplete { closer_and_closee_outputs: draft.sign(Bob, ClosingVariant::Both), ..draft.bare() };
    pair.inject(Alice, &Message::ClosingComplete(message));
    let close = pair.phase(Alice).closes_to_publish().last().copied().cloned().expect("a close");
    let burnt = close.output.iter().find(|output| output.script_pubkey == script).expect("the output stands");
    assert_eq!(burnt.value, bitcoin::Amount::ZERO);
    assert_eq!(close.output.len(), 2);
}

#[test]
fn a_peer_may_change_its_script_unless_it_was_fixed() {
    let other = wallet_script("another", 9);
    let mut pair = negotiating(free_scripts());
    pair.run();
    let draft = Draft { closer_script: other.clone(), fee: 3_000, ..Draft::new(&pair, Bob) };
    let message = ClosingComplete { closer_and_closee_outputs: draft.sign(Bob, ClosingVariant::Both), ..draft.bare() };
    pair.inject(Alice, &Message::ClosingComplete(message.clone()));
    assert_eq!(pair.node(Alice).channel.rows().head.remote_shutdown, Some(other.clone()));
    assert!(pair.is_connected());
    order_close(&mut pair, Alice, FeeratePerKw::new(9_000));
    assert_eq!(last_complete(&pair, Alice).closee_scriptpubkey, other, "BOLT 2: the script that it named last");
    // A new connection may bring another still, the same connection may not.
    pair.connect();
    pair.flush(Alice);
    pair.flush(Bob);
    pair.receive(Alice);
    let shutdown = |script: &ScriptBuf| {
        Message::Shutdown(Shutdown { channel_id: message.channel_id, scriptpubkey: script.clone() })
    };
    let third = wallet_script("a third", 9);
    pair.inject(Alice, &shutdown(&third));
    assert_eq!(pair.node(Alice).channel.rows().head.remote_shutdown, Some(third));
    pair.inject(Alice, &shutdown(&other));
    assert_eq!(warning(&pair, Alice), "shutdown scriptpubkey is not the upfront_shutdown_script");

    let mut fixed = negotiating(founding::features());
    fixed.run();
    let draft = Draft { closer_script: other, ..Draft::new(&fixed, Bob) };
    let message = ClosingComplete { closer_and_closee_outputs: draft.sign(Bob, ClosingVariant::Both), ..draft.bare() };
    fixed.inject(Alice, &Message::ClosingComplete(message));
    assert_eq!(warning(&fixed, Alice), "shutdown scriptpubkey is not the upfront_shutdown_script");
}

/// A `closing_complete` of Bob's that Alice warns of; she stays where she was.
fn warned(change: impl FnOnce(&mut Draft<'_>), finish: impl FnOnce(&Draft<'_>) -> ClosingComplete) -> String {
    let mut pair = negotiating(free_scripts());
    let before = pair.node(Alice).channel.rows().clone();
    let mut draft = Draft::new(&pair, Bob);
    change(&mut draft);
    let message = finish(&draft);
    pair.inject(Alice, &Message::ClosingComplete(message));
    assert_eq!(*pair.node(Alice).channel.rows(), before, "nothing is kept");
    assert!(pair.world.mempool.is_empty(), "nothing is published");
    let text = warning(&pair, Alice);
    pair.heal();
    pair.assert_closed_fairly();
    text
}

#[test]
fn bad_input_64_closing_complete_that_drops_our_output_is_warned_of() {
    let missing = "the signature that closing_complete must hold for our output is missing";
    let only = |draft: &Draft<'_>| ClosingComplete {
        closer_output_only: draft.sign(Bob, ClosingVariant::CloserOnly),
        ..draft.bare()
    };
    assert_eq!(warned(|_| {}, only), missing);
    assert_eq!(warned(|_| {}, |draft: &Draft<'_>| draft.bare()), missing);
}

#[test]
fn bad_input_64_closing_complete_with_a_wrong_signature_is_warned_of() {
    let text = "closing signature is invalid or not low-S";
    let mislabelled = |draft: &Draft<'_>| ClosingComplete {
        closer_and_closee_outputs: draft.sign(Bob, ClosingVariant::CloserOnly),
        ..draft.bare()
    };
    assert_eq!(warned(|_| {}, mislabelled), text);
    let other_locktime = |draft: &Draft<'_>| ClosingComplete { locktime: 7, ..draft.complete() };
    assert_eq!(warned(|_| {}, other_locktime), text);
    let high = |draft: &Draft<'_>| ClosingComplete {
        closer_and_closee_outputs: draft.sign(Bob, ClosingVariant::Both).map(|signature| high_s(&signature)),
        ..draft.bare()
    };
    assert_eq!(warned(|_| {}, high), text);
}

/// The other signature that is as valid: `s` replaced by the order of the curve less `s`.
fn high_s(signature: &Signature) -> Signature {
    let mut bytes = signature.serialize_compact();
    let s = bitcoin::secp256k1::SecretKey::from_slice(&bytes[32..]).expect("s is below the order");
    bytes[32..].copy_from_slice(&s.negate().secret_bytes());
    Signature::from_compact(&bytes).expect("a signature")
}

#[test]
fn bad_input_64_closing_complete_with_a_fee_above_the_balance_is_warned_of() {
    let dear = |draft: &Draft<'_>| ClosingComplete { fee_satoshis: Sat::new(400_001), ..draft.complete() };
    assert_eq!(warned(|_| {}, dear), "closing fee_satoshis is outside what was agreed on");
}

#[test]
fn bad_input_64_closing_complete_with_a_wrong_script_is_warned_of() {
    let other = wallet_script("another", 1);
    let text = warned(|draft| draft.closee_script = other, |draft: &Draft<'_>| draft.complete());
    assert_eq!(text, "closee_scriptpubkey is not the script of our shutdown");
    for bytes in [vec![], vec![0x6a, 5, 1, 1, 1, 1, 1], vec![0x51, 1, 7]] {
        let text =
            warned(|draft| draft.closer_script = ScriptBuf::from_bytes(bytes), |draft: &Draft<'_>| draft.complete());
        assert_eq!(text, "shutdown scriptpubkey has none of the allowed forms");
    }
}

#[test]
fn bad_input_64_closing_messages_out_of_turn_are_warned_of() {
    let early =
        "closing_complete or closing_sig where HTLCs are pending, shutdown is not complete, or closing_signed is due";
    let mut pair = Pair::connected(10, &setup());
    let complete = Message::ClosingComplete(Draft::new(&pair, Bob).complete());
    pair.inject(Alice, &complete);
    assert_eq!(warning(&pair, Alice), early);
    assert_eq!(*pair.phase(Alice), Phase::Normal);
    // With HTLCs, and where closing_signed was negotiated.
    let mut pair = Pair::connected(11, &setup());
    pair.pay(Bob, Msat::new(5_000_000), Fate::Fulfilled);
    pair.run();
    order_close(&mut pair, Alice, FEERATE);
    pair.run();
    let complete = Message::ClosingComplete(Draft::new(&pair, Bob).complete());
    pair.inject(Alice, &complete);
    assert_eq!(warning(&pair, Alice), early);
    let mut pair = Pair::connected(12, &Setup::default());
    order_close(&mut pair, Alice, FEERATE);
    pair.receive(Bob);
    pair.flush(Bob);
    pair.receive(Alice);
    pair.flush(Alice);
    let complete = Message::ClosingComplete(Draft::new(&pair, Bob).complete());
    pair.inject(Alice, &complete);
    assert_eq!(warning(&pair, Alice), early);
    // And the other way round.
    let mut pair = negotiating(founding::features());
    let signature = Draft::new(&pair, Bob).sign(Bob, ClosingVariant::Both).expect("a signature");
    let channel_id = pair.node(Alice).id();
    let legacy = ClosingSigned { channel_id, fee_satoshis: Sat::new(1_000), signature, fee_range: None };
    pair.inject(Alice, &Message::ClosingSigned(legacy));
    assert_eq!(warning(&pair, Alice), "closing_signed is not expected now");
}

/// Bob's answer to Alice's `closing_complete`, as he would sign it.
fn answer(pair: &Pair) -> ClosingSig {
    let asked = last_complete(pair, Alice);
    let draft = Draft { fee: asked.fee_satoshis.get(), locktime: asked.locktime, ..Draft::new(pair, Alice) };
    ClosingSig {
        channel_id: asked.channel_id,
        closer_scriptpubkey: asked.closer_scriptpubkey,
        closee_scriptpubkey: asked.closee_scriptpubkey,
        fee_satoshis: asked.fee_satoshis,
        locktime: asked.locktime,
        closer_output_only: None,
        closee_output_only: None,
        closer_and_closee_outputs: draft.sign(Bob, ClosingVariant::Both),
    }
}

#[test]
fn bad_input_64_closing_sig_that_does_not_answer_is_warned_of() {
    let mismatch = "closing_sig does not answer our closing_complete";
    let unsigned = |signed: &mut ClosingSig| signed.closer_and_closee_outputs = None;
    type Change = (&'static str, fn(&mut ClosingSig));
    let changes: [Change; 7] = [
        ("fee", |signed| signed.fee_satoshis = Sat::new(signed.fee_satoshis.get() + 1)),
        ("locktime", |signed| signed.locktime += 1),
        ("closer", |signed| signed.closer_scriptpubkey = ScriptBuf::new()),
        ("closee", |signed| signed.closee_scriptpubkey = signed.closer_scriptpubkey.clone()),
        ("two signatures", |signed| signed.closer_output_only = signed.closer_and_closee_outputs),
        ("another field", |signed| signed.closee_output_only = signed.closer_and_closee_outputs.take()),
        ("none", unsigned),
    ];
    for (what, change) in changes {
        let mut pair = negotiating(free_scripts());
        let mut signed = answer(&pair);
        change(&mut signed);
        pair.inject(Alice, &Message::ClosingSig(signed));
        assert_eq!(warning(&pair, Alice), mismatch, "{what}");
        assert!(matches!(pair.phase(Alice), Phase::ShuttingDown { .. }), "{what}");
    }
    let mut pair = negotiating(free_scripts());
    let mut signed = answer(&pair);
    signed.closer_and_closee_outputs = signed.closer_and_closee_outputs.map(|signature| high_s(&signature));
    pair.inject(Alice, &Message::ClosingSig(signed));
    assert_eq!(warning(&pair, Alice), "closing signature is invalid or not low-S");
    let mut pair = negotiating(free_scripts());
    let signed = Message::ClosingSig(answer(&pair));
    pair.inject(Alice, &signed);
    assert!(matches!(pair.phase(Alice), Phase::Closing { wanted: None, .. }));
    pair.inject(Alice, &signed);
    assert_eq!(warning(&pair, Alice), "closing_sig is not expected now", "it was answered already");
}

/// The closee may choose to leave its own output out where the closer signed that too.
#[test]
fn a_peer_may_give_up_its_own_output() {
    let mut pair = negotiating(free_scripts());
    let mut signed = answer(&pair);
    let asked = last_complete(&pair, Alice);
    let draft = Draft { fee: asked.fee_satoshis.get(), locktime: asked.locktime, ..Draft::new(&pair, Alice) };
    signed.closer_and_closee_outputs = None;
    signed.closer_output_only = draft.sign(Bob, ClosingVariant::CloserOnly);
    let txid = draft.tx(ClosingVariant::CloserOnly).compute_txid();
    pair.inject(Alice, &Message::ClosingSig(signed));
    assert_eq!(closes(&pair, Alice), BTreeSet::from([txid]));
}

#[test]
fn dos_a_peer_cannot_make_us_keep_closes_without_end() {
    let mut pair = negotiating(free_scripts());
    for fee in 0..60 {
        let message = Draft { fee: 1_000 + fee, ..Draft::new(&pair, Bob) }.complete();
        pair.inject(Alice, &Message::ClosingComplete(message));
        assert!(matches!(pair.node(Alice).channel.link(), Link::Connected(_)), "it costs no connection");
    }
    assert_eq!(closes(&pair, Alice).len(), 20);
    assert_eq!(pair.world.mempool.len(), 20);
    let Some(Message::Warning(told)) = pair.node(Alice).sent.last() else { panic!("a warning") };
    assert_eq!(told.data.to_string(), "too many closing transactions are signed already: let one of them confirm");
    let notes = pair.node(Alice).notes.iter().filter(|note| matches!(note, ChannelNote::Closing { .. }));
    assert_eq!(notes.count(), 1, "one event, whatever the peer does");
    // What was signed is answered for still.
    let known = Draft::new(&pair, Bob).complete();
    pair.inject(Alice, &Message::ClosingComplete(known));
    assert!(matches!(pair.node(Alice).sent.last(), Some(Message::ClosingSig(_))));
    let bump = close_of(&pair, Alice, FeeratePerKw::new(20_000));
    assert_eq!(pair.order(Alice, bump), Err(Refusal::TooManyCloses));
}

#[test]
fn occ_a_commitment_that_confirms_instead_of_the_close_fails_the_channel() {
    let mut pair = negotiating(founding::features());
    pair.run();
    let published = pair.node(Bob).monitor.local_commitment_tx(&pair.node(Bob).signer).expect("Bob's commitment");
    pair.world.mempool.clear();
    pair.world.mempool.insert(published.compute_txid(), published.clone());
    pair.mine();
    assert!(matches!(pair.phase(Alice), Phase::Failed { .. }));
    assert_eq!(pair.node(Alice).monitor.classify(&published, &pair.node(Alice).signer), Spend::Remote);
}

/// A reconnection in every phase of a close: the peer hears our numbers first, and `shutdown` as long as one is due.
#[test]
fn cst_20_every_phase_of_a_close_answers_channel_reestablish() {
    let with_htlc = |pair: &mut Pair| {
        pair.pay(Bob, Msat::new(5_000_000), Fate::Fulfilled);
        pair.run();
    };
    let close = |pair: &mut Pair| order_close(pair, Alice, FEERATE);
    type Stage<'a> = (&'static str, bool, &'a dyn Fn(&mut Pair));
    let stages: [Stage<'_>; 6] = [
        ("waiting for an HTLC", true, &|pair| {
            with_htlc(pair);
            close(pair);
            pair.run();
        }),
        ("one shutdown said", true, &|pair| close(pair)),
        ("negotiating", true, &|pair| {
            close(pair);
            pair.receive(Bob);
            pair.flush(Bob);
            pair.receive(Alice);
            pair.flush(Alice);
        }),
        ("signed", true, &|pair| {
            close(pair);
            pair.run();
        }),
        ("in a block", true, &|pair| {
            close(pair);
            pair.run();
            pair.mine();
        }),
        ("buried", false, &|pair| {
            close(pair);
            pair.run();
            pair.bury_close();
        }),
    ];
    for features in [founding::features(), founding::legacy_features()] {
        for (stage, says_shutdown, arrange) in &stages {
            let mut pair = Pair::connected(13, &Setup { features: features.clone(), ..Setup::default() });
            arrange(&mut pair);
            for is_crash in [false, true] {
                if is_crash {
                    pair.crash(Bob);
                }
                pair.connect();
                let before = pair.node(Bob).sent.len();
                for name in Name::BOTH {
                    pair.flush(name);
                }
                // What Alice would say to a peer that has lost the channel's history.
                let reestablish =
                    pair.node(Alice).sent.iter().rev().find(|m| matches!(m, Message::ChannelReestablish(_)));
                let reestablish = reestablish.cloned().expect("channel_reestablish");
                pair.inject(Bob, &reestablish);
                let answers = &pair.node(Bob).sent[before..];
                assert!(matches!(answers.first(), Some(Message::ChannelReestablish(_))), "{stage}: {answers:?}");
                let shutdown = answers.iter().any(|message| matches!(message, Message::Shutdown(_)));
                assert_eq!(
                    shutdown,
                    *says_shutdown && pair.node(Bob).channel.rows().head.local_shutdown.is_some(),
                    "{stage}"
                );
                let error = answers.iter().any(|message| matches!(message, Message::Error(_)));
                assert_eq!(error, !says_shutdown, "{stage}: a closed channel says that it is");
            }
        }
    }
}

/// The peer may negotiate as soon as it has our signature on a commitment without HTLCs, which is before we hear of it: a
/// feerate that we proposed then would make its `closing_complete` look too early (dances 2657 and 3132).
#[test]
fn cst_5_no_feerate_is_proposed_once_the_last_htlc_is_signed_away_while_closing() {
    let mut pair = Pair::connected(1, &setup());
    pair.pay(Alice, Msat::new(50_000_000), Fate::Fulfilled);
    pair.run();
    let id = *pair.node(Bob).incoming.keys().next().expect("an HTLC stands");
    order_close(&mut pair, Alice, FEERATE);
    pair.run();
    let signs = |pair: &mut Pair, name: Name| {
        pair.command(name, Command::Commit);
        pair.flush(name);
        while pair.receive(name.other()) {}
    };
    assert_eq!(pair.order(Alice, Command::UpdateFee(FeeratePerKw::new(1_700))), Ok(Reply::Done), "an HTLC stands");
    pair.run();
    pair.remove(Bob, id);
    signs(&mut pair, Bob);
    signs(&mut pair, Alice);
    let late = Command::UpdateFee(FeeratePerKw::new(2_100));
    assert_eq!(pair.order(Alice, late), Err(Refusal::ShuttingDown), "it is signed away");
    pair.run();
    for name in Name::BOTH {
        assert!(matches!(pair.phase(name), Phase::Closing { .. }), "{:?}", pair.phase(name));
        assert!(pair.node(name).disconnects.is_empty());
    }
}
