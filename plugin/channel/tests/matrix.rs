//! The channel is a total function (FND-10): every message in every phase, over every link, as opener and as accepter,
//! first, repeated, and after a reconnection. What each of these cells comes to stands in `matrix/table.txt`; a cell that
//! comes to something else, or that is missing there, fails the test and prints the line as it would have to be.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;
#[path = "matrix/messages.rs"]
mod messages;
#[path = "matrix/outcome.rs"]
mod outcome;
#[path = "matrix/states.rs"]
mod states;

use std::collections::{BTreeMap, BTreeSet};

use duo::{Alice, Bob, Duo, Who};
use messages::{kind, openings};
use outcome::{hand_over, hand_to_opening};
use outrigger_bolt::wire::Message;
use outrigger_channel::{Link, Phase};
use states::{Connection, STATES, State};

const TABLE: &str = include_str!("matrix/table.txt");

/// First, at once again, and the first time and then after a reconnection.
fn triple(duo: &Duo, victim: Who, message: &Message) -> String {
    let mut repeated = duo.clone();
    let first = hand_over(&mut repeated, victim, message);
    let again = hand_over(&mut repeated, victim, message);
    let mut reconnected = duo.clone();
    hand_over(&mut reconnected, victim, message);
    reconnect(&mut reconnected, victim, message);
    let later = hand_over(&mut reconnected, victim, message);
    for mut end in [repeated, reconnected] {
        end.disconnect();
        end.connect();
        let over = matches!(end.side(victim).channel.phase(), Phase::Failed { .. } | Phase::Closed { .. });
        let waits = matches!(end.side(victim).channel.link(), Link::Reestablishing(_));
        assert!(over != waits, "a channel that is not over goes on");
    }
    format!("{first}{again}{later}")
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
            let first = hand_to_opening(&mut opening, message);
            let again = hand_to_opening(&mut opening, message);
            let told = format!("{first}{again}");
            found.insert(("opening".to_owned(), name.clone(), opened.name.to_owned()), (told.clone(), told));
            cells += 2;
        }
    }
    println!("{cells} cells: {} messages in {} states of an opening", order.len(), columns.len());
    compare(&found, &order, &columns);
}
