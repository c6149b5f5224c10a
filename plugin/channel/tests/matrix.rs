//! The channel is a total function (FND-10): every message in every phase, over every link, as opener and as accepter,
//! first, repeated, and after a reconnection. What each of these cells comes to stands in `matrix/table.txt`; a cell that
//! comes to something else, or that is missing there, fails the test and prints the line as it would have to be.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;
#[path = "matrix/messages.rs"]
mod messages;
#[path = "matrix/outcome.rs"]
mod outcome;
#[path = "matrix/silence.rs"]
mod silence;
#[path = "matrix/states.rs"]
mod states;

use std::collections::{BTreeMap, BTreeSet};

use duo::{Alice, Bob, Duo, Who};
use messages::{kind, openings};
use outcome::{hand_over, hand_to_opening};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_bolt::wire::Message;
use outrigger_channel::{ChainEvent, Command, CommandId, FailReason, Input, Link, Phase};
use states::{Connection, STATES, State};

const TABLE: &str = include_str!("matrix/table.txt");

/// First, at once again, and the first time and then after a reconnection.
fn triple(duo: &Duo, victim: Who, message: &Message) -> String {
    let hand_over = |duo: &mut Duo| {
        if duo.side(victim).restored {
            silence::check(duo, victim, Input::Message(message));
        }
        hand_over(duo, victim, message)
    };
    let mut repeated = duo.clone();
    let first = hand_over(&mut repeated);
    let again = hand_over(&mut repeated);
    let mut reconnected = duo.clone();
    hand_over(&mut reconnected);
    reconnect(&mut reconnected, victim, message);
    let later = hand_over(&mut reconnected);
    for mut end in [repeated, reconnected] {
        end.disconnect();
        end.connect();
        let over = matches!(end.side(victim).channel.phase(), Phase::Failed { .. } | Phase::Closed { .. });
        let waits = matches!(end.side(victim).channel.link(), Link::Reestablishing(_));
        // Under restored mode nothing goes on but a close that both have signed, and that without a word.
        let stands = duo_is_silent(&end, victim);
        assert!(
            if end.side(victim).restored { (over || stands) && !waits } else { over != waits },
            "it goes on, or ends"
        );
    }
    format!("{first}{again}{later}")
}

/// Whether the close that both have signed is all that is left to do.
fn duo_is_silent(duo: &Duo, victim: Who) -> bool {
    let side = duo.side(victim);
    side.restored && matches!(side.channel.phase(), Phase::Closing { .. })
}

/// A new connection, in step where the peer has anything to say; a `channel_reestablish` is handed over as the first.
fn reconnect(duo: &mut Duo, victim: Who, message: &Message) {
    duo.reconnect();
    if matches!(message, Message::ChannelReestablish(_)) {
        return;
    }
    let said = duo.side_mut(victim.other()).outbox.pop_front();
    if let (Some(said), Link::Reestablishing(_)) = (said, duo.side(victim).channel.link()) {
        duo.message(victim, &said);
    }
}

/// What the table says: by connection, message and state, the triples of opener and accepter.
fn expected() -> BTreeMap<(String, String, String), (String, String)> {
    let mut cells = BTreeMap::new();
    let (mut section, mut columns) = (String::new(), Vec::new());
    for line in TABLE.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some(name) = words[0].strip_suffix(':') {
            section = name.to_owned();
            columns = words[1..].iter().map(|word| (*word).to_owned()).collect();
            continue;
        }
        assert_eq!(words.len(), columns.len() + 1, "a line has a cell for each state: {line}");
        for (column, cell) in columns.iter().zip(&words[1..]) {
            let (opener, accepter) = cell.split_once('/').unwrap_or((cell, cell));
            let key = (section.clone(), words[0].to_owned(), column.clone());
            let twice = cells.insert(key, (opener.to_owned(), accepter.to_owned()));
            assert!(twice.is_none(), "a cell stands once: {line}");
        }
    }
    cells
}

fn cell(opener: &str, accepter: &str) -> String {
    if opener == accepter { opener.to_owned() } else { format!("{opener}/{accepter}") }
}

/// Holds what was found against the table, and shows the lines that differ.
fn compare(found: &BTreeMap<(String, String, String), (String, String)>, order: &[String], columns: &[&str]) {
    let expected = expected();
    let sections: BTreeSet<&String> = found.keys().map(|(section, _, _)| section).collect();
    let mut wrong = Vec::new();
    for section in &sections {
        let names = columns.iter().filter(|name| found.keys().any(|(s, _, state)| s == *section && state == *name));
        let names: Vec<&str> = names.copied().collect();
        for message in order {
            let cells = names.iter().map(|state| ((*section).clone(), message.clone(), (*state).to_owned()));
            let cells: Vec<_> = cells.collect();
            if cells.iter().all(|key| !found.contains_key(key)) {
                continue;
            }
            if cells.iter().any(|key| expected.get(key) != found.get(key)) {
                let line: Vec<String> = cells.iter().map(|key| cell(&found[key].0, &found[key].1)).collect();
                wrong.push(format!("{section}: {message:<26} {}", line.join(" ")));
            }
        }
    }
    let known: BTreeSet<_> = expected.keys().filter(|(section, _, _)| sections.contains(section)).collect();
    let gone: Vec<_> = known.into_iter().filter(|key| !found.contains_key(*key)).collect();
    assert!(gone.is_empty(), "the table has cells that nothing comes to: {gone:?}");
    assert!(wrong.is_empty(), "the table says otherwise ({}):\n{}", columns.join(" "), wrong.join("\n"));
}

#[test]
fn fnd_10_cst_20_every_message_in_every_state_of_a_channel() {
    let mut found = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut cells = 0;
    for State { name, arrange, over } in STATES {
        let arranged = Who::BOTH.map(arrange);
        for connection in Connection::ALL.into_iter().filter(|connection| !over || *connection == Connection::Live) {
            let section = if over { "over".to_owned() } else { connection.to_string() };
            let [opener, accepter] = [Alice, Bob].map(|victim| {
                let duo = connection.over(&arranged[victim as usize]);
                let messages = messages::all(&duo, victim);
                order = messages.iter().map(|message| kind(message).to_owned()).collect();
                messages.iter().map(|message| triple(&duo, victim, message)).collect::<Vec<_>>()
            });
            for ((message, opener), accepter) in order.iter().zip(opener).zip(accepter) {
                found.insert((section.clone(), message.clone(), name.to_owned()), (opener, accepter));
                cells += 6;
            }
        }
    }
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len(), "each message has a line of its own");
    println!("{cells} cells: {} messages in {} states", order.len(), found.len() / order.len() * 2);
    compare(&found, &order, &STATES.map(|state| state.name));
}

/// One section for all connections: under restored mode they make no difference.
#[test]
fn bak_7_every_message_in_every_state_under_restored_mode() {
    let mut found: BTreeMap<(String, String, String), (String, String)> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut cells = 0;
    for State { name, arrange, over } in STATES {
        let arranged = Who::BOTH.map(|victim| {
            let mut duo = arrange(victim);
            duo.side_mut(victim).restored = true;
            duo
        });
        for connection in Connection::ALL.into_iter().filter(|connection| !over || *connection == Connection::Live) {
            let [opener, accepter] = [Alice, Bob].map(|victim| {
                let mut calm = arranged[victim as usize].clone();
                calm.side_mut(victim).restored = false;
                let mut duo = connection.over(&calm);
                let messages = messages::all(&duo, victim);
                order = messages.iter().map(|message| kind(message).to_owned()).collect();
                duo.side_mut(victim).restored = true;
                messages.iter().map(|message| triple(&duo, victim, message)).collect::<Vec<_>>()
            });
            for ((message, opener), accepter) in order.iter().zip(opener).zip(accepter) {
                let key = ("restored".to_owned(), message.clone(), name.to_owned());
                let cell = (opener, accepter);
                cells += 6;
                if let Some(other) = found.insert(key.clone(), cell.clone()) {
                    assert_eq!(other, cell, "{key:?}, {connection}");
                }
            }
        }
    }
    println!("{cells} cells under restored mode: {} messages in {} states", order.len(), STATES.len() * 2);
    compare(&found, &order, &STATES.map(|state| state.name));
}

/// What is no message: orders of our own, the connection, and the chain with either side's commitment in it.
#[test]
fn bak_7_every_order_and_chain_event_in_every_state_under_restored_mode() {
    let mut cells = 0;
    for State { name: _, arrange, over: _ } in STATES {
        for victim in Who::BOTH {
            let duo = arrange(victim);
            let funding = duo.tx.clone();
            let commitments = Who::BOTH.map(|who| {
                let side = duo.side(who);
                side.monitor.local_commitment_tx(&*side.signer).ok()
            });
            let script = bitcoin::ScriptBuf::from_bytes(duo::SHUTDOWN_SCRIPT.to_vec());
            let orders = [
                duo::add(duo::sat(5000), 7),
                Command::Fulfill { htlc_id: 0, preimage: duo::preimage(1) },
                Command::FailHtlc { htlc_id: 0, reason: FailReason::Encrypted(vec![3; 292]) },
                Command::UpdateFee(FeeratePerKw::new(900)),
                Command::Commit,
                Command::Shutdown { script, feerate: FeeratePerKw::new(1500) },
                Command::Fail { reason: "by order".to_owned() },
            ];
            let (height, features) = (duo.height + 7, duo::features());
            let mut events = vec![
                ChainEvent::FundingConfirmed { height, tx_index: 4, tx: &funding },
                ChainEvent::FundingUnconfirmed,
                ChainEvent::FundingSpendUnconfirmed,
                ChainEvent::OutputsUnspent { from_height: height },
                ChainEvent::Height(height),
            ];
            events.extend(commitments.iter().flatten().map(|tx| ChainEvent::FundingSpent { height, tx }));
            for order in &orders {
                let mut duo = duo.clone();
                for _ in 0..2 {
                    silence::check(&duo, victim, Input::Command(CommandId(9), order.clone()));
                    duo.side_mut(victim).restored = true;
                    duo.input(victim, Input::Command(CommandId(9), order.clone()));
                    cells += 1;
                }
            }
            for event in &events {
                for after in &events {
                    let mut duo = duo.clone();
                    silence::check(&duo, victim, Input::Chain(*event));
                    duo.side_mut(victim).restored = true;
                    duo.input(victim, Input::Chain(*event));
                    silence::check(&duo, victim, Input::Chain(*after));
                    duo.input(victim, Input::Chain(*after));
                    silence::check(&duo, victim, Input::Connected(&features));
                    silence::check(&duo, victim, Input::Disconnected);
                    cells += 4;
                }
            }
        }
    }
    println!("{cells} cells under restored mode");
}

#[test]
fn fnd_10_every_message_in_every_state_of_an_opening() {
    let duo = Duo::born(&duo::Terms::default());
    let (mut found, mut order, mut columns) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut cells = 0;
    for opened in openings() {
        columns.push(opened.name);
        let mut messages = messages::all(&duo, opened.victim);
        order = messages.iter().map(|message| kind(message).to_owned()).collect();
        for message in &mut messages {
            messages::rename(message, opened.id);
            if let Some(next) = opened.next.as_ref().filter(|next| kind(next) == kind(message)) {
                *message = next.clone();
            }
        }
        for (message, name) in messages.iter().zip(&order) {
            let mut opening = opened.clone();
            let first = hand_to_opening(&mut opening, message, false);
            let again = hand_to_opening(&mut opening, message, false);
            let told = format!("{first}{again}");
            let restored = hand_to_opening(&mut opened.clone(), message, true);
            assert_eq!(restored.to_string(), "E", "restored mode ends an opening, whatever comes: {name}");
            found.insert(("opening".to_owned(), name.clone(), opened.name.to_owned()), (told.clone(), told));
            cells += 2;
        }
    }
    println!("{cells} cells: {} messages in {} states of an opening", order.len(), columns.len());
    compare(&found, &order, &columns);
}
