//! Every field of every message of a channel at its limits: each field is set, in the bytes of a message that would be
//! good, to 0, 1, the most that it holds, and to each limit of the channel and one to either side of it. What comes of
//! it stands in `limits/table.txt`, by the values from which on the outcome is another. The refused move no row.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;
#[path = "matrix/messages.rs"]
mod messages;
#[path = "matrix/outcome.rs"]
mod outcome;
#[path = "matrix/states.rs"]
mod states;

use std::collections::BTreeSet;

use duo::{Alice, Bob, Duo, Who};
use messages::{Opened, kind, openings};
use outcome::{hand_over, hand_to_opening};
use outrigger_bolt::wire::Message;
use outrigger_channel::{Opening, Violation};
use states::{Connection, STATES};

const TABLE: &str = include_str!("limits/table.txt");

/// What a field holds.
#[derive(Clone, Copy)]
enum Field {
    /// An integer of so many bytes.
    Int(&'static str, usize),
    /// Bytes that mean no number: a point, a hash, a signature, a secret.
    Bytes(&'static str, usize),
    /// A count of so many bytes of two, and as many items of so many bytes.
    Counted(&'static str, usize),
}

use Field::{Bytes, Counted, Int};

/// The fields of a message in their order, after its type (BOLT 2).
fn layout(kind: &str) -> Vec<Field> {
    let point = |name| Bytes(name, 33);
    let signature = |name| Bytes(name, 64);
    let own = match kind {
        "open_channel" => return open_layout(),
        "accept_channel" => return accept_layout(),
        "funding_created" => {
            vec![Bytes("funding_txid", 32), Int("funding_output_index", 2), signature("signature")]
        }
        "funding_signed" => vec![signature("signature")],
        "channel_ready" => vec![point("second_per_commitment_point")],
        "shutdown" => vec![Counted("scriptpubkey", 1)],
        "closing_signed" => vec![Int("fee_satoshis", 8), signature("signature")],
        "closing_complete" | "closing_sig" => vec![
            Counted("closer_scriptpubkey", 1),
            Counted("closee_scriptpubkey", 1),
            Int("fee_satoshis", 8),
            Int("locktime", 4),
        ],
        "announcement_signatures" => {
            vec![Int("short_channel_id", 8), signature("node_signature"), signature("bitcoin_signature")]
        }
        "update_add_htlc" => {
            vec![Int("id", 8), Int("amount_msat", 8), Bytes("payment_hash", 32), Int("cltv_expiry", 4)]
        }
        "update_fulfill_htlc" => vec![Int("id", 8), Bytes("payment_preimage", 32)],
        "update_fail_htlc" => vec![Int("id", 8), Counted("reason", 1)],
        "update_fail_malformed_htlc" => {
            vec![Int("id", 8), Bytes("sha256_of_onion", 32), Int("failure_code", 2)]
        }
        "commitment_signed" => vec![signature("signature"), Counted("htlc_signature", 64)],
        "revoke_and_ack" => vec![Bytes("per_commitment_secret", 32), point("next_per_commitment_point")],
        "update_fee" => vec![Int("feerate_per_kw", 4)],
        "channel_reestablish" => vec![
            Int("next_commitment_number", 8),
            Int("next_revocation_number", 8),
            Bytes("your_last_per_commitment_secret", 32),
            point("my_current_per_commitment_point"),
        ],
        _ => panic!("{kind} has no layout"),
    };
    [vec![Bytes("channel_id", 32)], own].concat()
}

fn keys() -> Vec<Field> {
    let names = ["funding_pubkey", "revocation", "payment", "delayed_payment", "htlc", "first_per_commitment_point"];
    names.map(|name| Bytes(name, 33)).to_vec()
}

fn open_layout() -> Vec<Field> {
    let terms = vec![
        Bytes("chain_hash", 32),
        Bytes("temporary_channel_id", 32),
        Int("funding_satoshis", 8),
        Int("push_msat", 8),
        Int("dust_limit_satoshis", 8),
        Int("max_htlc_value_in_flight_msat", 8),
        Int("channel_reserve_satoshis", 8),
        Int("htlc_minimum_msat", 8),
        Int("feerate_per_kw", 4),
        Int("to_self_delay", 2),
        Int("max_accepted_htlcs", 2),
    ];
    [terms, keys(), vec![Int("channel_flags", 1)]].concat()
}

fn accept_layout() -> Vec<Field> {
    let terms = vec![
        Bytes("temporary_channel_id", 32),
        Int("dust_limit_satoshis", 8),
        Int("max_htlc_value_in_flight_msat", 8),
        Int("channel_reserve_satoshis", 8),
        Int("htlc_minimum_msat", 8),
        Int("minimum_depth", 4),
        Int("to_self_delay", 2),
        Int("max_accepted_htlcs", 2),
    ];
    [terms, keys()].concat()
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Int(name, _) | Bytes(name, _) | Counted(name, _) => name,
        }
    }

    /// The bytes that the field takes at the start of these.
    fn len(self, bytes: &[u8]) -> usize {
        match self {
            Int(_, len) | Bytes(_, len) => len,
            Counted(_, item) => 2 + item * usize::from(u16::from_be_bytes([bytes[0], bytes[1]])),
        }
    }

    /// What bytes that mean no number are set to: a name for each value, and the value.
    fn values(self, now: &[u8]) -> Vec<(String, Vec<u8>)> {
        match self {
            Int(..) => Vec::new(),
            Bytes(_, len) => {
                let mut one = vec![0; len];
                one[len - 1] = 1;
                let mut flipped = now.to_vec();
                flipped[len - 1] ^= 1;
                [("zero", vec![0; len]), ("one", one), ("ones", vec![255; len]), ("flipped", flipped)]
                    .map(|(name, bytes)| (name.to_owned(), bytes))
                    .to_vec()
            }
            Counted(_, item) => {
                let count = usize::from(u16::from_be_bytes([now[0], now[1]]));
                let counts = [0, 1, count.saturating_sub(1), count + 1, 483, 484, 60_000 / item];
                let counts: BTreeSet<usize> = counts.into_iter().collect();
                let filled = |wanted: usize| {
                    let items = now[2..].iter().copied().cycle().take(wanted * item);
                    let items: Vec<u8> = if count == 0 { vec![0; wanted * item] } else { items.collect() };
                    [&(wanted as u16).to_be_bytes()[..], &items].concat()
                };
                counts.into_iter().map(|count| (format!("x{count}"), filled(count))).collect()
            }
        }
    }
}

/// Every number that means something in a channel: what both sides set, what they have, where they stand.
fn limits(duo: &Duo, victim: Who) -> BTreeSet<u64> {
    let rows = duo.side(victim).channel.rows();
    let (params, head, policy) = (&rows.params, &rows.head, &duo.side(victim).policy);
    let mut limits: BTreeSet<u64> = BTreeSet::from([
        253,
        354,
        483,
        10_000,
        2016,
        1 << 24,
        1 << 48,
        500_000_000,
        u64::from(policy.max_commitment_feerate.get()),
        u64::from(policy.max_minimum_depth),
        policy.min_funding.get(),
        policy.max_funding.get(),
        params.capacity.get(),
        params.capacity.get() * 10,
        params.capacity.get() / 10,
        u64::from(duo.height),
        head.local_number,
        head.remote_number,
        head.next_remote_htlc_id,
        head.next_local_htlc_id,
        head.local_commitment.to_remote.get(),
        head.local_commitment.to_local.get(),
    ]);
    for side in [&params.local, &params.remote] {
        limits.extend([
            side.dust_limit.get(),
            side.dust_limit.get() * 1000,
            side.channel_reserve.get(),
            side.htlc_minimum.get(),
            side.max_htlc_value_in_flight.get(),
            u64::from(side.max_accepted_htlcs),
            u64::from(side.to_self_delay),
        ]);
    }
    let summary = duo.side(victim).channel.summary(duo.height);
    limits.extend([summary.receivable.get(), summary.spendable.get()]);
    limits
}

/// The bytes of a message with one field set anew.
fn with_field(bytes: &[u8], layout: &[Field], which: usize, value: &[u8]) -> Vec<u8> {
    let (start, len) = place(bytes, layout, which);
    [&bytes[..start], value, &bytes[start + len..]].concat()
}

fn place(bytes: &[u8], layout: &[Field], which: usize) -> (usize, usize) {
    let mut start = 2;
    for field in &layout[..which] {
        start += field.len(&bytes[start..]);
    }
    (start, layout[which].len(&bytes[start..]))
}

/// Sets each field of the message to each value; `judge` says what a message that can be read comes to. The outcomes of a
/// field are told by the values from which on they are another.
fn sweep(
    message: &Message,
    limits: &BTreeSet<u64>,
    mut judge: impl FnMut(&Message) -> String,
) -> Vec<(String, String)> {
    let (bytes, layout) = (message.encode().expect("an encoding"), layout(kind(message)));
    let mut lines = Vec::new();
    // Whose channel it is decides who is asked, not what comes of it.
    let fields = layout.iter().enumerate().filter(|(_, field)| field.name() != "channel_id");
    for (which, field) in fields {
        let (start, len) = place(&bytes, &layout, which);
        let mut line = String::new();
        let mut outcome = |value: &[u8]| {
            let changed = with_field(&bytes, &layout, which, value);
            // What cannot be read never reaches a channel: the connection answers it with a warning.
            Message::decode(&changed).map_or_else(|_| "u".to_owned(), |message| judge(&message))
        };
        if let Int(_, width) = *field {
            line = thresholds(&integers(&bytes[start..start + len], limits), |value| {
                outcome(&value.to_be_bytes()[8 - width..])
            });
        } else {
            for (name, value) in field.values(&bytes[start..start + len]) {
                line.push_str(&format!(" {name}:{}", outcome(&value)));
            }
        }
        lines.push((format!("{}.{}", kind(message), field.name()), line.trim().to_owned()));
    }
    lines
}

/// The values from which on the outcome is another, found between those that are tried.
fn thresholds(values: &BTreeSet<u64>, mut outcome: impl FnMut(u64) -> String) -> String {
    let mut line = String::new();
    let mut last: Option<(u64, String)> = None;
    for value in values {
        let found = outcome(*value);
        if let Some((below, before)) = last.as_ref().filter(|(_, before)| *before != found) {
            let (mut low, mut high) = (*below, *value);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if outcome(middle) == *before { low = middle } else { high = middle }
            }
            line.push_str(&format!(" {high}:{found}"));
        } else if last.is_none() {
            line.push_str(&format!(" {value}:{found}"));
        }
        last = Some((*value, found));
    }
    line
}

/// What an integer is set to: its limits, those of the channel, what it is, and one to either side of each.
fn integers(now: &[u8], limits: &BTreeSet<u64>) -> BTreeSet<u64> {
    let most = if now.len() == 8 { u64::MAX } else { (1 << (8 * now.len())) - 1 };
    let now = now.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let middle = [0, 1, most, most / 2, now].into_iter().chain(limits.iter().copied());
    let around = middle.flat_map(|value| [value.saturating_sub(1), value, value.saturating_add(1)]);
    around.filter(|value| *value <= most).collect()
}

/// Where each message is what the peer says next, by its place in the matrix.
const NATURAL: [(&str, &str, Connection); 15] = [
    ("channel_ready", "ready_due", Connection::Live),
    ("update_add_htlc", "standing", Connection::Live),
    ("update_fulfill_htlc", "standing", Connection::Live),
    ("update_fail_htlc", "standing", Connection::Live),
    ("update_fail_malformed_htlc", "standing", Connection::Live),
    ("update_fee", "standing", Connection::Live),
    ("commitment_signed", "proposed", Connection::Live),
    ("revoke_and_ack", "signed", Connection::Live),
    ("channel_reestablish", "standing", Connection::Reestablishing),
    ("channel_reestablish", "signed", Connection::Reestablishing),
    ("shutdown", "standing", Connection::Live),
    ("closing_signed", "bargaining", Connection::Live),
    ("closing_complete", "offering", Connection::Live),
    ("closing_sig", "offered", Connection::Live),
    ("announcement_signatures", "announced", Connection::Live),
];

/// The lines of the table, and how many values were tried.
fn channel_lines() -> (Vec<String>, usize) {
    let (mut lines, mut tried) = (Vec::new(), 0);
    for (wanted, state, connection) in NATURAL {
        for (role, victim) in [("opener", Alice), ("accepter", Bob)] {
            let arrange = STATES.iter().find(|known| known.name == state).expect("a state").arrange;
            let duo = connection.over(&arrange(victim));
            let messages = messages::all(&duo, victim);
            let message = messages.iter().find(|message| kind(message) == wanted).expect("a message");
            let found = sweep(message, &limits(&duo, victim), |message| {
                tried += 1;
                let mut duo = duo.clone();
                let outcome = hand_over(&mut duo, victim, message).to_string();
                duo.reconnect();
                outcome
            });
            lines.extend(found.into_iter().map(|(field, outcomes)| format!("{state}/{role} {field} {outcomes}")));
        }
    }
    (lines, tried)
}

/// What the accepter makes of an `open_channel`.
fn accepted(open: &Message) -> &'static str {
    let Message::OpenChannel(open) = open else { panic!("{open:?}") };
    let (policy, bob) = (duo::policy(), duo::signer(Bob));
    let (keys, cx) = ((0, duo::scid_alias(Bob)), duo::context(500, &policy, &bob));
    match Opening::accept(open, duo::node_id(Alice), keys, &duo::features(), &cx) {
        Ok(_) => "a",
        Err(Violation::Warn(_)) => "W",
        Err(Violation::Fail(_)) => "E",
    }
}

fn opening_lines() -> (Vec<String>, usize) {
    let (mut lines, mut tried) = (Vec::new(), 0);
    let duo = Duo::born(&duo::Terms::default());
    for opened in openings() {
        let Opened { name, victim, next: Some(next), .. } = &opened else { continue };
        let found = sweep(next, &limits(&duo, *victim), |message| {
            tried += 1;
            hand_to_opening(&mut opened.clone(), message, false).to_string()
        });
        lines.extend(found.into_iter().map(|(field, outcomes)| format!("{name} {field} {outcomes}")));
    }
    let (terms, alice) = (duo::Terms::default(), duo::signer(Alice));
    let (_, open) = Opening::open(duo::order(&terms), &duo::context(500, &terms.alice, &alice)).expect("an order");
    let found = sweep(&open, &limits(&duo, Bob), |message| {
        tried += 1;
        accepted(message).to_owned()
    });
    lines.extend(found.into_iter().map(|(field, outcomes)| format!("open_due {field} {outcomes}")));
    (lines, tried)
}

#[test]
fn prs_fnd_10_every_field_of_every_message_at_its_limits() {
    let ((mut lines, of_channels), (of_opening, of_openings)) = (channel_lines(), opening_lines());
    lines.extend(of_opening);
    let expected: Vec<&str> = TABLE.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).collect();
    println!("{} fields, {} messages", lines.len(), of_channels + of_openings);
    let wrong: Vec<&String> = lines.iter().filter(|line| !expected.contains(&line.as_str())).collect();
    let gone: Vec<&&str> = expected.iter().filter(|line| !lines.iter().any(|found| found == **line)).collect();
    assert!(wrong.is_empty() && gone.is_empty(), "found:\n{}\nnot found:\n{}", join(&wrong), join(&gone));
}

fn join(lines: &[impl std::fmt::Display]) -> String {
    lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
