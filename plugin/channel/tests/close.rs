//! Cooperative close: `shutdown`, `closing_signed`, burial (BOLT 2, "Channel Close").
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use bitcoin::ScriptBuf;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::tx::closing::{Share, closing_outputs, closing_transaction};
use outrigger_bolt::wire::{ClosingSigned, FeeRange, Message, Padding, Pong, Shutdown};
use outrigger_channel::{ChainEvent, Command, Input, Phase, Refusal, Signer, Spend};
use pair::{Alice, Bob, Fate, Name, Pair, Setup};

const FEERATE: FeeratePerKw = FeeratePerKw::new(2_000);

fn shutdown_of(pair: &Pair, name: Name) -> Command {
    Command::Shutdown { script: pair.node(name).shutdown_script.clone(), feerate: FEERATE }
}

/// Two sides that have both said `shutdown`, the opener's first `closing_signed` still on its way.
fn negotiating() -> Pair {
    let mut pair = Pair::connected(1, &Setup::default());
    pair.order(Alice, shutdown_of(&pair, Alice)).expect("an open channel can be closed");
    pair.receive(Bob);
    pair.flush(Bob);
    pair.receive(Alice);
    pair.flush(Alice);
    assert!(matches!(pair.node(Alice).sent.last(), Some(Message::ClosingSigned(_))));
    pair
}

/// `closing_signed` as `from` could sign it, for any fee.
fn offer(pair: &Pair, from: Name, fee: Sat, fee_range: Option<FeeRange>) -> Message {
    let node = pair.node(from);
    let rows = node.channel.rows();
    let (local, remote) = (rows.head.local_commitment.to_local, rows.head.local_commitment.to_remote);
    let (alice, bob) = if from == Alice { (local, remote) } else { (remote, local) };
    let opener = Share { script_pubkey: &pair.node(Alice).shutdown_script, balance: alice };
    let accepter = Share { script_pubkey: &pair.node(Bob).shutdown_script, balance: bob };
    let outputs = closing_outputs(&opener, &accepter, fee, rows.params.local.dust_limit).expect("affordable");
    let tx = closing_transaction(rows.params.funding, outputs);
    Message::ClosingSigned(ClosingSigned {
        channel_id: rows.params.channel_id,
        fee_satoshis: fee,
        signature: node.signer.sign_closing(&rows.params, &tx),
        fee_range,
    })
}

fn range(least: u64, most: u64) -> Option<FeeRange> {
    Some(FeeRange { min_fee_satoshis: Sat::new(least), max_fee_satoshis: Sat::new(most) })
}

fn last_offer(pair: &Pair, name: Name) -> ClosingSigned {
    match pair.node(name).sent.last() {
        Some(Message::ClosingSigned(message)) => message.clone(),
        other => panic!("{other:?} is not closing_signed"),
    }
}

/// The warning that this side sent last, after which it hung up.
fn warning(pair: &Pair, name: Name) -> String {
    assert!(!pair.is_connected(), "a warning ends the connection");
    match pair.node(name).sent.last() {
        Some(Message::Warning(warning)) => warning.data.to_string(),
        other => panic!("{other:?} is not a warning"),
    }
}

/// The reason that this side failed the channel for.
fn failure(pair: &Pair, name: Name) -> String {
    match pair.phase(name) {
        Phase::Failed { reason, publish: true, .. } => reason.clone(),
        other => panic!("{other:?} is not failed"),
    }
}

#[test]
fn either_side_closes_and_the_close_is_buried() {
    for name in Name::BOTH {
        let mut pair = Pair::connected(2, &Setup::default());
        pair.order(name, shutdown_of(&pair, name)).expect("an open channel can be closed");
        pair.run();
        pair.assert_closed_fairly();
        assert_eq!(pair.world.mempool.len(), 1, "both publish the same transaction");
        let tx = pair.world.mempool.values().next().cloned().expect("the close");
        assert_eq!(pair.node(name).monitor.classify(&tx, &pair.node(name).signer), Spend::Mutual);
        pair.bury_close();
    }
}

#[test]
fn both_sides_close_at_once() {
    let mut pair = Pair::connected(3, &Setup::default());
    for name in Name::BOTH {
        let order = shutdown_of(&pair, name);
        pair.command(name, order);
    }
    pair.run();
    pair.assert_closed_fairly();
    pair.bury_close();
}

#[test]
fn cst_17_shutdown_waits_for_htlcs_and_refuses_new_ones() {
    let setup = Setup::default();
    let mut pair = Pair::connected(4, &setup);
    pair.pay(Alice, Msat::new(20_000_000), Fate::Fulfilled);
    pair.pay(Bob, Msat::new(30_000_000), Fate::Failed);
    pair.run();
    pair.order(Bob, shutdown_of(&pair, Bob)).expect("an open channel can be closed");
    pair.run();
    for name in Name::BOTH {
        assert!(matches!(pair.phase(name), Phase::ShuttingDown { .. }));
        let refused = pair.pay(name, Msat::new(1_000_000), Fate::Fulfilled);
        pair.flush(name);
        assert_eq!(pair.node_mut(name).replies.remove(&refused), Some(Err(Refusal::ShuttingDown)));
        assert!(!pair.node(name).sent.iter().any(|message| matches!(message, Message::ClosingSigned(_))));
    }
    pair.heal();
    pair.assert_settled(&setup);
    pair.assert_closed_fairly();
}

#[test]
fn cst_17_shutdown_at_every_point_of_an_htlcs_life() {
    let setup = Setup::default();
    for closer in Name::BOTH {
        for point in 0..24 {
            let mut pair = Pair::connected(5, &setup);
            pair.pay(Alice, Msat::new(25_000_000), Fate::Fulfilled);
            for turn in 0..point {
                let name = Name::BOTH[turn % 2];
                pair.command(name, Command::Commit);
                pair.remove_all(name);
                pair.flush(name);
                pair.receive(name);
            }
            let order = shutdown_of(&pair, closer);
            pair.command(closer, order);
            pair.heal();
            pair.assert_settled(&setup);
            pair.assert_closed_fairly();
        }
    }
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
        for point in 0..20 {
            let mut pair = Pair::connected(6, &Setup::default());
            let order = shutdown_of(&pair, Bob);
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
                let order = shutdown_of(&pair, Bob);
                pair.command(Bob, order);
                pair.heal();
            }
            for name in Name::BOTH {
                let phase = pair.phase(name);
                assert!(matches!(phase, Phase::Closing { .. }), "{cut:?} at {point}: {name:?} is in {phase:?}");
            }
            pair.assert_closed_fairly();
            pair.bury_close();
        }
    }
}

#[test]
fn cst_20_a_close_in_the_mempool_is_agreed_on_again_after_a_reconnection() {
    let mut pair = negotiating();
    // Bob signs and closes; his answer is lost.
    pair.receive(Bob);
    pair.flush(Bob);
    assert!(matches!(pair.phase(Bob), Phase::Closing { .. }));
    pair.disconnect();
    assert!(matches!(pair.phase(Alice), Phase::ShuttingDown { .. }));
    pair.heal();
    pair.assert_closed_fairly();
    assert_eq!(pair.world.mempool.len(), 1, "the same fee gives the same transaction");
}

#[test]
fn reo_a_close_that_is_reorganised_away_is_published_again() {
    let mut pair = negotiating();
    pair.run();
    let tx = pair.world.mempool.values().next().cloned().expect("the close");
    pair.mine();
    for name in Name::BOTH {
        pair.crash(name);
        pair.input(name, Input::Chain(ChainEvent::FundingSpendUnconfirmed));
        pair.flush(name);
        let phase = pair.phase(name);
        assert!(matches!(phase, Phase::Closing { tx: agreed, confirmed_height: None, .. } if *agreed == tx));
        assert!(pair.world.mempool.remove(&tx.compute_txid()).is_some(), "{name:?} publishes again");
    }
    pair.world.mempool.insert(tx.compute_txid(), tx);
    pair.bury_close();
}

#[test]
fn a_restart_while_the_close_is_being_buried_changes_nothing() {
    let mut pair = negotiating();
    pair.run();
    pair.mine();
    for name in Name::BOTH {
        pair.crash(name);
    }
    for _ in 0..pair.world.policy.close_depth {
        pair.mine();
    }
    for name in Name::BOTH {
        assert!(matches!(pair.phase(name), Phase::Closed { .. }), "{:?}", pair.phase(name));
    }
}

#[test]
fn occ_a_commitment_that_confirms_instead_of_the_close_fails_the_channel() {
    let mut pair = negotiating();
    let published = pair.node(Bob).monitor.local_commitment_tx(&pair.node(Bob).signer).expect("Bob's commitment");
    pair.world.mempool.clear();
    pair.world.mempool.insert(published.compute_txid(), published.clone());
    pair.mine();
    let Phase::Failed { spend, .. } = pair.phase(Alice) else { panic!("{:?}", pair.phase(Alice)) };
    assert_eq!(*spend, Some((published.compute_txid(), pair.world.height)));
    assert_eq!(pair.node(Alice).monitor.classify(&published, &pair.node(Alice).signer), Spend::Remote);
}

#[test]
fn a_shutdown_before_the_channel_is_ready_is_answered_once_it_is() {
    let (mut pair, tx) = Pair::funded(7, &Setup::default());
    pair.connect();
    pair.run();
    assert_eq!(pair.order(Alice, shutdown_of(&pair, Alice)), Err(Refusal::NotReady));
    let shutdown = Shutdown { channel_id: pair.node(Bob).id(), scriptpubkey: pair.node(Alice).shutdown_script.clone() };
    pair.inject(Bob, &Message::Shutdown(shutdown));
    assert!(matches!(pair.phase(Bob), Phase::Funding(_)));
    pair.confirm_funding(&tx);
    pair.run();
    pair.assert_closed_fairly();
}

/// An output without a script would be anybody's.
#[test]
fn a_shutdown_is_not_answered_without_an_address_of_ours() {
    let mut pair = Pair::connected(9, &Setup::default());
    let script = std::mem::take(&mut pair.node_mut(Bob).shutdown_script);
    pair.order(Alice, shutdown_of(&pair, Alice)).expect("an open channel can be closed");
    pair.receive(Bob);
    pair.flush(Bob);
    assert_eq!(*pair.phase(Bob), Phase::Normal);
    assert_eq!(pair.node(Bob).channel.rows().head.local_shutdown, None);
    assert_eq!(pair.node(Bob).disconnects.len(), 1);
    assert!(!pair.node(Bob).sent.iter().any(|message| matches!(message, Message::Shutdown(_))));
    pair.node_mut(Bob).shutdown_script = script;
    pair.heal();
    pair.assert_closed_fairly();
}

#[test]
fn an_order_without_a_connection_goes_out_with_the_next() {
    let mut pair = Pair::connected(8, &Setup::default());
    pair.disconnect();
    pair.order(Bob, shutdown_of(&pair, Bob)).expect("it is taken");
    pair.heal();
    pair.assert_closed_fairly();
}

#[test]
fn an_upfront_script_is_the_only_one_that_is_taken() {
    let upfront = pair::founding::wallet_script("upfront", 1);
    let setup = Setup { upfront_script: Some(upfront.clone()), ..Setup::default() };
    let mut pair = Pair::connected(9, &setup);
    assert_eq!(pair.order(Alice, shutdown_of(&pair, Alice)), Err(Refusal::ShutdownScriptFixed));
    let order = Command::Shutdown { script: upfront.clone(), feerate: FEERATE };
    pair.order(Alice, order).expect("the script that was fixed");
    pair.run();
    let Phase::Closing { tx, .. } = pair.phase(Bob) else { panic!("{:?}", pair.phase(Bob)) };
    assert!(tx.output.iter().any(|output| output.script_pubkey == upfront));
}

#[test]
fn own_orders_are_held_to_the_rules() {
    let mut pair = Pair::connected(10, &Setup::default());
    let script = ScriptBuf::from_bytes(vec![0x51]);
    assert_eq!(pair.order(Alice, Command::Shutdown { script, feerate: FEERATE }), Err(Refusal::ShutdownScript));
    let script = pair.node(Alice).shutdown_script.clone();
    let maximum = pair.world.policy.max_commitment_feerate;
    let dear = Command::Shutdown { script, feerate: FeeratePerKw::new(maximum.get() + 1) };
    let refused = Err(Refusal::FeerateOutOfRange { floor: FeeratePerKw::FLOOR, maximum });
    assert_eq!(pair.order(Alice, dear), refused);
    pair.order(Alice, shutdown_of(&pair, Alice)).expect("a good order");
    pair.order(Alice, shutdown_of(&pair, Alice)).expect("the same order again");
    let script = pair::founding::wallet_script("another", 1);
    let another = Command::Shutdown { script, feerate: FEERATE };
    assert_eq!(pair.order(Alice, another), Err(Refusal::ShutdownScriptFixed));
    assert_eq!(pair.order(Alice, Command::UpdateFee(FEERATE)), Err(Refusal::ShuttingDown));
    pair.run();
    assert_eq!(pair.order(Alice, shutdown_of(&pair, Alice)), Err(Refusal::ShuttingDown));
}

#[test]
fn bad_input_63_a_script_of_no_allowed_form_is_warned_of() {
    let mut scripts: Vec<Vec<u8>> = vec![vec![], vec![0x6a], vec![0x51, 1, 7], vec![0x61, 2, 1, 1]];
    scripts.push([&[0x76, 0xa9, 20][..], &[1; 20], &[0x88, 0xac]].concat());
    scripts.push([&[0xa9, 20][..], &[1; 20], &[0x87]].concat());
    scripts.push([&[0x51, 41][..], &[1; 41]].concat());
    scripts.push([&[0x00, 21][..], &[1; 21]].concat());
    scripts.push([&[0x6a, 6][..], &[1; 6]].concat());
    for script in scripts {
        let mut pair = Pair::connected(11, &Setup::default());
        let scriptpubkey = ScriptBuf::from_bytes(script);
        let message = Shutdown { channel_id: pair.node(Bob).id(), scriptpubkey };
        pair.inject(Bob, &Message::Shutdown(message));
        assert_eq!(warning(&pair, Bob), "shutdown scriptpubkey has none of the allowed forms");
        assert!(matches!(pair.phase(Bob), Phase::Normal), "the channel lives on");
        assert_eq!(pair.node(Bob).channel.rows().head.remote_shutdown, None, "nothing is kept");
    }
}

#[test]
fn bad_input_63_another_script_than_the_upfront_one_ends_the_connection() {
    let upfront = pair::founding::wallet_script("upfront", 2);
    let mut pair = Pair::connected(12, &Setup { upfront_script: Some(upfront), ..Setup::default() });
    let scriptpubkey = pair.node(Alice).shutdown_script.clone();
    let message = Shutdown { channel_id: pair.node(Bob).id(), scriptpubkey };
    pair.inject(Bob, &Message::Shutdown(message));
    assert_eq!(warning(&pair, Bob), "shutdown scriptpubkey is not the upfront_shutdown_script");
    assert!(matches!(pair.phase(Bob), Phase::Normal), "the channel lives on");
}

#[test]
fn bad_input_63_shutdown_twice_is_ignored_and_a_changed_one_warned_of() {
    let mut pair = negotiating();
    let before = pair.node(Bob).sent.len();
    let scriptpubkey = pair.node(Alice).shutdown_script.clone();
    let again = Shutdown { channel_id: pair.node(Bob).id(), scriptpubkey };
    pair.inject(Bob, &Message::Shutdown(again.clone()));
    assert_eq!(pair.node(Bob).sent.len(), before, "the same again is ignored");
    assert!(pair.is_connected());
    let changed = Shutdown { scriptpubkey: pair::founding::wallet_script("changed", 1), ..again };
    pair.inject(Bob, &Message::Shutdown(changed));
    assert_eq!(warning(&pair, Bob), "shutdown scriptpubkey is not the upfront_shutdown_script");
    pair.heal();
    pair.assert_closed_fairly();
}

#[test]
fn bad_input_63_shutdown_over_unsigned_updates_is_warned_of() {
    let mut pair = Pair::connected(13, &Setup::default());
    pair.pay(Alice, Msat::new(5_000_000), Fate::Fulfilled);
    pair.flush(Alice);
    pair.receive(Bob);
    let scriptpubkey = pair.node(Alice).shutdown_script.clone();
    pair.inject(Bob, &Message::Shutdown(Shutdown { channel_id: pair.node(Bob).id(), scriptpubkey }));
    assert_eq!(warning(&pair, Bob), "shutdown while updates of yours are not committed");
}

#[test]
fn bad_input_44_an_htlc_after_shutdown_is_warned_of() {
    let mut pair = Pair::connected(14, &Setup::default());
    pair.pay(Bob, Msat::new(5_000_000), Fate::Fulfilled);
    pair.flush(Bob);
    let add = pair.node(Bob).sent.last().cloned().expect("update_add_htlc");
    let mut pair = negotiating_with_htlc();
    pair.inject(Alice, &add_with_id(&pair, &add));
    assert_eq!(warning(&pair, Alice), "update_add_htlc after shutdown");
}

fn offers(pair: &Pair, name: Name) -> bool {
    pair.node(name).sent.iter().any(|sent| matches!(sent, Message::ClosingSigned(_)))
}

/// Which side pays, the opener or the other, makes a difference to who offers a fee.
fn resent_after_shutdown(payer: Name, payee: Name) {
    let mut pair = Pair::connected(16, &Setup::default());
    pair.pay(payer, Msat::new(5_000_000), Fate::Fulfilled);
    pair.command(payer, Command::Commit);
    pair.flush(payer);
    let order = shutdown_of(&pair, payee);
    pair.order(payee, order).expect("an open channel can be closed");
    pair.receive(payer);
    pair.flush(payer);
    assert!(matches!(pair.node(payer).sent.last(), Some(Message::Shutdown(_))), "the HTLC is signed");
    // All that the payer sent is lost. Here it sends `shutdown` again before the HTLC, as LDK does.
    pair.disconnect();
    pair.connect();
    pair.flush(payer);
    pair.flush(payee);
    pair.receive(payee);
    let scriptpubkey = pair.node(payer).shutdown_script.clone();
    pair.inject(payee, &Message::Shutdown(Shutdown { channel_id: pair.node(payee).id(), scriptpubkey }));
    pair.order(payee, Command::Commit).expect("always taken");
    assert!(!offers(&pair, payee), "no fee is offered before what was queued with `shutdown` is there");
    assert_eq!(matches!(pair.node(payee).sent.last(), Some(Message::Ping(_))), payee == Alice, "the opener asks");
    pair.receive(payer);
    pair.flush(payer);
    while pair.receive(payee) {}
    pair.flush(payee);
    assert!(pair.is_connected(), "what was signed before is no new HTLC: {:?}", pair.node(payee).sent.last());
    assert!(!offers(&pair, payee), "nor while its HTLC is pending");
    pair.heal();
    pair.assert_closed_fairly();
}

#[test]
fn an_htlc_that_is_sent_again_after_shutdown_is_taken() {
    resent_after_shutdown(Alice, Bob);
    resent_after_shutdown(Bob, Alice);
}

fn receive_all(pair: &mut Pair, to: Name) {
    while pair.receive(to) {}
    pair.flush(to);
}

/// Bob is asked to close, and its `shutdown` is lost. On the next connection it has come.
fn shutting_down_again() -> Pair {
    let mut pair = Pair::connected(17, &Setup::default());
    let order = shutdown_of(&pair, Bob);
    pair.order(Bob, order).expect("an open channel can be closed");
    pair.disconnect();
    pair.connect();
    for name in Name::BOTH {
        pair.flush(name);
    }
    pair.receive(Bob);
    pair.flush(Bob);
    receive_all(&mut pair, Alice);
    assert!(matches!(pair.node(Bob).sent.last(), Some(Message::Shutdown(_))), "{:?}", pair.node(Bob).sent.last());
    pair
}

#[test]
fn the_opener_offers_a_fee_once_its_own_ping_is_answered() {
    let mut pair = shutting_down_again();
    let Some(Message::Ping(ping)) = pair.node(Alice).sent.last().cloned() else { panic!("the opener asks") };
    let pong = |bytes: u16| Message::Pong(Pong { byteslen: Padding(bytes) });
    for bytes in [0, ping.num_pong_bytes - 1, ping.num_pong_bytes + 1] {
        pair.inject(Alice, &pong(bytes));
        assert!(!offers(&pair, Alice), "a pong of {bytes} answers another ping");
    }
    pair.inject(Alice, &pong(ping.num_pong_bytes));
    assert!(offers(&pair, Alice));
    let asked = pair.node(Alice).sent.iter().filter(|sent| matches!(sent, Message::Ping(_))).count();
    assert_eq!(asked, 1);
    pair.heal();
    pair.assert_closed_fairly();
}

#[test]
fn bad_input_44_a_new_htlc_after_all_was_sent_again_is_warned_of() {
    let mut other = Pair::connected(14, &Setup::default());
    other.pay(Bob, Msat::new(5_000_000), Fate::Fulfilled);
    other.flush(Bob);
    let add = other.node(Bob).sent.last().cloned().expect("update_add_htlc");
    let mut answered = shutting_down_again();
    receive_all(&mut answered, Bob);
    receive_all(&mut answered, Alice);
    assert!(offers(&answered, Alice), "the pong is there");
    let add = add_with_id(&answered, &add);
    answered.inject(Alice, &add);
    assert_eq!(warning(&answered, Alice), "update_add_htlc after shutdown");
    // To the side that does not offer, a signature tells that nothing more is sent again.
    let mut signed = Pair::connected(16, &Setup::default());
    signed.pay(Alice, Msat::new(5_000_000), Fate::Fulfilled);
    signed.command(Alice, Command::Commit);
    signed.flush(Alice);
    let order = shutdown_of(&signed, Bob);
    signed.order(Bob, order).expect("an open channel can be closed");
    signed.receive(Alice);
    signed.flush(Alice);
    signed.disconnect();
    signed.connect();
    signed.run();
    signed.inject(Bob, &add_with_id(&signed, &add));
    assert_eq!(warning(&signed, Bob), "update_add_htlc after shutdown");
}

/// Both have said `shutdown`, and an HTLC keeps the channel from being closed.
fn negotiating_with_htlc() -> Pair {
    let mut pair = Pair::connected(15, &Setup::default());
    pair.pay(Bob, Msat::new(5_000_000), Fate::Fulfilled);
    pair.run();
    let order = shutdown_of(&pair, Alice);
    pair.command(Alice, order);
    pair.run();
    pair
}

fn add_with_id(pair: &Pair, add: &Message) -> Message {
    let Message::UpdateAddHtlc(add) = add else { panic!("{add:?} is not update_add_htlc") };
    let mut add = add.clone();
    add.channel_id = pair.node(Alice).id();
    add.id = 1;
    Message::UpdateAddHtlc(add)
}

#[test]
fn bad_input_64_closing_signed_out_of_turn_is_warned_of() {
    let text = "closing_signed while HTLCs are pending or shutdown is not complete";
    let mut pair = Pair::connected(16, &Setup::default());
    let early = offer(&pair, Alice, Sat::new(1_000), None);
    pair.inject(Bob, &early);
    assert_eq!(warning(&pair, Bob), text);
    let mut pair = negotiating_with_htlc();
    let early = offer(&pair, Alice, Sat::new(1_000), None);
    pair.inject(Bob, &early);
    assert_eq!(warning(&pair, Bob), text);
}

#[test]
fn bad_input_64_a_signature_for_another_transaction_is_warned_of() {
    let mut pair = negotiating();
    let Message::ClosingSigned(mut forged) = offer(&pair, Alice, Sat::new(1_000), None) else { unreachable!() };
    forged.fee_satoshis = Sat::new(1_001);
    pair.inject(Bob, &Message::ClosingSigned(forged));
    assert_eq!(warning(&pair, Bob), "closing signature is invalid or not low-S");
    pair.heal();
    pair.assert_closed_fairly();
}

#[test]
fn bad_input_64_a_high_s_signature_is_warned_of() {
    let mut pair = negotiating();
    let Message::ClosingSigned(mut high) = offer(&pair, Alice, Sat::new(1_000), None) else { unreachable!() };
    high.signature = high_s(&high.signature);
    pair.inject(Bob, &Message::ClosingSigned(high));
    assert_eq!(warning(&pair, Bob), "closing signature is invalid or not low-S");
}

/// The other signature that is as valid: `s` replaced by the order of the curve less `s`.
fn high_s(signature: &bitcoin::secp256k1::ecdsa::Signature) -> bitcoin::secp256k1::ecdsa::Signature {
    let mut bytes = signature.serialize_compact();
    let s = bitcoin::secp256k1::SecretKey::from_slice(&bytes[32..]).expect("s is below the order");
    bytes[32..].copy_from_slice(&s.negate().secret_bytes());
    bitcoin::secp256k1::ecdsa::Signature::from_compact(&bytes).expect("a signature")
}

#[test]
fn bad_input_64_a_fee_that_the_opener_does_not_have_is_warned_of() {
    let mut pair = negotiating();
    let Message::ClosingSigned(mut message) = offer(&pair, Alice, Sat::new(1_000), None) else { unreachable!() };
    message.fee_satoshis = Sat::new(900_000);
    pair.inject(Bob, &Message::ClosingSigned(message));
    assert_eq!(warning(&pair, Bob), "closing fee_satoshis is outside what was agreed on");
}

#[test]
fn bad_input_64_ranges_without_overlap_are_warned_of() {
    let mut pair = negotiating();
    let first = last_offer(&pair, Alice);
    let most = first.fee_range.expect("a range").max_fee_satoshis.get();
    let dear = offer(&pair, Bob, Sat::new(most + 10), range(most + 1, most + 1_000));
    pair.inject(Alice, &dear);
    let (theirs, ours) = (format!("{} sat to {} sat", most + 1, most + 1_000), format!("to {most} sat"));
    let text = warning(&pair, Alice);
    assert!(text.contains(&theirs) && text.ends_with(&ours), "{text}");
    assert!(matches!(pair.phase(Alice), Phase::ShuttingDown { .. }), "the next connection may do better");
}

#[test]
fn bad_input_64_a_fee_above_the_cap_fails_the_channel() {
    let mut pair = negotiating();
    let most = last_offer(&pair, Alice).fee_range.expect("a range").max_fee_satoshis.get();
    let dear = offer(&pair, Bob, Sat::new(most + 10), range(most - 100, most + 1_000));
    pair.inject(Alice, &dear);
    assert_eq!(failure(&pair, Alice), "closing fee_satoshis is outside what was agreed on");
}

#[test]
fn bad_input_64_bargaining_that_does_not_converge_is_warned_of() {
    let mut pair = negotiating();
    let most = last_offer(&pair, Alice).fee_range.expect("a range").max_fee_satoshis;
    let dear = Sat::new(most.get() * 10);
    let first = offer(&pair, Bob, dear, None);
    pair.inject(Alice, &first);
    let counter = last_offer(&pair, Alice);
    assert!(counter.fee_satoshis < most, "strictly between, and below the cap");
    // Not strictly between our last fee and the peer's own.
    let again = offer(&pair, Bob, Sat::new(dear.get() + 1), None);
    pair.inject(Alice, &again);
    assert_eq!(warning(&pair, Alice), "closing fee_satoshis is outside what was agreed on");
    let mut pair = negotiating();
    for round in 0.. {
        let closer = offer(&pair, Bob, Sat::new(dear.get() - round), None);
        pair.inject(Alice, &closer);
        if !pair.is_connected() {
            break;
        }
        assert!(last_offer(&pair, Alice).fee_satoshis <= most, "never above the cap");
    }
    assert_eq!(warning(&pair, Alice), "closing fee_satoshis is outside what was agreed on");
    assert!(matches!(pair.phase(Alice), Phase::ShuttingDown { .. }), "money is not put on the chain for a fee");
}

/// LND names the fee that it likes, comes down by a tenth each round, and takes what is within three tenths of its own.
#[test]
fn a_peer_that_bargains_as_lnd_does_is_met() {
    for times in 1..=3 {
        let mut pair = negotiating();
        let most = last_offer(&pair, Alice).fee_range.expect("a range").max_fee_satoshis.get();
        let mut theirs = most * times;
        for _ in 0..20 {
            let message = offer(&pair, Bob, Sat::new(theirs), None);
            pair.inject(Alice, &message);
            assert!(pair.is_connected(), "{times}: {:?}", pair.node(Alice).sent.last());
            let ours = last_offer(&pair, Alice).fee_satoshis.get();
            if matches!(pair.phase(Alice), Phase::Closing { .. }) {
                break;
            }
            theirs = if ours >= theirs - theirs * 3 / 10 { ours } else { theirs - theirs / 10 };
        }
        assert!(matches!(pair.phase(Alice), Phase::Closing { .. }), "{times}");
    }
}

#[test]
fn bargaining_without_a_range_ends_with_the_fee_that_both_named() {
    let mut pair = negotiating();
    let ours = last_offer(&pair, Alice);
    let within = Sat::new(ours.fee_satoshis.get() + 1);
    let message = offer(&pair, Bob, within, None);
    pair.inject(Alice, &message);
    assert_eq!(last_offer(&pair, Alice).fee_satoshis, within, "the same fee back");
    assert!(matches!(pair.phase(Alice), Phase::Closing { .. }));
}

#[test]
fn the_accepter_chooses_within_the_overlap() {
    let mut pair = negotiating();
    // Below what bitcoind would relay: Bob asks for more, as far as Alice's range goes.
    let cheap = offer(&pair, Alice, Sat::new(1), range(1, 400));
    pair.inject(Bob, &cheap);
    let chosen = last_offer(&pair, Bob);
    assert!(chosen.fee_satoshis > Sat::new(100) && chosen.fee_satoshis <= Sat::new(400), "{chosen:?}");
    assert!(matches!(pair.phase(Bob), Phase::ShuttingDown { .. }));
    let other = offer(&pair, Alice, Sat::new(chosen.fee_satoshis.get() + 1), range(1, 400));
    pair.inject(Bob, &other);
    assert_eq!(failure(&pair, Bob), "closing fee_satoshis is outside what was agreed on");
}

#[test]
fn a_side_may_give_up_its_own_output() {
    let mut pair = negotiating();
    let fee = Sat::new(1_000);
    let node = pair.node(Alice);
    let rows = node.channel.rows();
    let bob = Share { script_pubkey: &pair.node(Bob).shutdown_script, balance: rows.head.local_commitment.to_remote };
    let alice = Share { script_pubkey: &node.shutdown_script, balance: rows.head.local_commitment.to_local };
    let mut outputs = closing_outputs(&alice, &bob, fee, Sat::new(354)).expect("affordable");
    outputs.retain(|output| output.script_pubkey != node.shutdown_script);
    let tx = closing_transaction(rows.params.funding, outputs);
    let message = ClosingSigned {
        channel_id: rows.params.channel_id,
        fee_satoshis: fee,
        signature: node.signer.sign_closing(&rows.params, &tx),
        fee_range: range(500, 5_000),
    };
    pair.inject(Bob, &Message::ClosingSigned(message));
    let Phase::Closing { tx: agreed, .. } = pair.phase(Bob) else { panic!("{:?}", pair.phase(Bob)) };
    assert_eq!(agreed.compute_txid(), tx.compute_txid());
}

#[test]
fn a_balance_that_is_dust_has_no_output() {
    for push in [0, 100_000, 353_000, 354_000, 355_999] {
        let setup = Setup { push: Msat::new(push), ..Setup::default() };
        let mut pair = Pair::connected(17, &setup);
        pair.order(Alice, shutdown_of(&pair, Alice)).expect("an open channel can be closed");
        pair.run();
        pair.assert_closed_fairly();
        let Phase::Closing { tx, .. } = pair.phase(Bob) else { panic!("{:?}", pair.phase(Bob)) };
        assert_eq!(tx.output.len(), if push < 354_000 { 1 } else { 2 });
    }
}

/// Every connection starts the negotiation over, and a peer may agree on another fee each time.
#[test]
fn dos_a_peer_cannot_make_us_keep_closes_without_end() {
    let mut pair = negotiating();
    for round in 0..40 {
        pair.connect();
        for name in Name::BOTH {
            pair.flush(name);
        }
        // Bob hears Alice's channel_reestablish, channel_ready and shutdown, and then what she never sent.
        pair.receive(Bob);
        pair.flush(Bob);
        pair.receive(Alice);
        pair.flush(Alice);
        while pair.receive(Bob) {}
        pair.flush(Bob);
        let another = offer(&pair, Alice, Sat::new(1_000 + round), range(500, 5_000));
        pair.inject(Bob, &another);
        assert!(pair.is_connected(), "{round}: {:?}", pair.node(Bob).sent.last());
    }
    assert_eq!(pair.phase(Bob).closes_to_publish().len(), 20);
    let Some(Message::Warning(told)) = pair.node(Bob).sent.last() else { panic!("{:?}", pair.node(Bob).sent.last()) };
    assert_eq!(told.data.to_string(), "too many closing transactions are signed already: let one of them confirm");
}
