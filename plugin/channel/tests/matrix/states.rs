//! Every state that a channel can be in, as one side of it. The peer's next words wait in its outbox.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

use std::fmt;

use bitcoin::ScriptBuf;
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_bolt::features::Feature;
use outrigger_bolt::wire::{Message, PerCommitmentSecret};
use outrigger_channel::{ChainEvent, Command, Guard, Input, Phase, Signer};

use crate::duo::{self, Alice, Duo, SHUTDOWN_SCRIPT, Terms, Who, sat, signer};

/// A state by name, and how `victim` comes to it.
#[derive(Clone, Copy)]
pub struct State {
    pub name: &'static str,
    pub arrange: fn(Who) -> Duo,
    /// Whether the channel is over, so that it has no link any more.
    pub over: bool,
}

const fn live(name: &'static str, arrange: fn(Who) -> Duo) -> State {
    State { name, arrange, over: false }
}

const fn over(name: &'static str, arrange: fn(Who) -> Duo) -> State {
    State { name, arrange, over: true }
}

pub const STATES: [State; 19] = [
    live("unconfirmed", |_| Duo::born(&Terms::default())),
    live("peer_ready", peer_ready),
    live("ready_due", ready_due),
    live("normal", |_| normal()),
    live("announced", |_| Duo::normal(&Terms { announce: true, ..Terms::default() })),
    live("standing", |_| standing()),
    live("proposed", proposed),
    live("signed", signed),
    live("fee_signed", fee_signed),
    live("shutting", shutting),
    live("resending", resending),
    live("bargaining", |victim| bargaining(normal(), victim, victim)),
    live("offering", |victim| bargaining(simple(), victim, victim.other())),
    live("offered", |victim| bargaining(simple(), victim, victim)),
    live("closing", |victim| closing(normal(), victim)),
    live("simple", |victim| closing(simple(), victim)),
    over("closed", closed),
    over("failed", failed),
    over("behind", behind),
];

/// How far the two are in talk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    Live,
    Reestablishing,
    Down,
}

impl Connection {
    pub const ALL: [Self; 3] = [Self::Live, Self::Reestablishing, Self::Down];

    /// The state over this connection.
    pub fn over(self, duo: &Duo) -> Duo {
        let mut duo = duo.clone();
        match self {
            Self::Live => {}
            Self::Reestablishing => duo.reconnect(),
            Self::Down => duo.disconnect(),
        }
        duo
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "connected",
            Self::Reestablishing => "reestablishing",
            Self::Down => "disconnected",
        })
    }
}

/// The peer's `channel_ready` came, and the victim has not seen the funding transaction in a block.
fn peer_ready(victim: Who) -> Duo {
    let mut duo = Duo::born(&Terms::default());
    let tx = duo.tx.clone();
    duo.height = 503;
    let confirmed = ChainEvent::FundingConfirmed { height: 501, tx_index: 4, tx: &tx };
    duo.input(victim.other(), Input::Chain(confirmed));
    duo.receive(victim);
    duo
}

/// The funding transaction is buried; the victim's `channel_ready` is out, the peer's waits.
fn ready_due(victim: Who) -> Duo {
    let mut duo = Duo::born(&Terms::default());
    duo.confirm();
    duo.receive(victim.other());
    duo
}

fn normal() -> Duo {
    Duo::normal(&Terms::default())
}

/// Each side has received an HTLC that stands.
fn standing() -> Duo {
    let mut duo = normal();
    duo.add(Alice, sat(50_000), 1).expect("room");
    duo.add(Alice.other(), sat(20_000), 1).expect("room");
    duo.run();
    duo
}

/// Both have proposed; the victim has seen the peer's proposals, and the `commitment_signed` for them waits.
fn proposed(victim: Who) -> Duo {
    let mut duo = standing();
    let peer = victim.other();
    duo.add(victim, sat(5_000), 2).expect("room");
    duo.add(peer, sat(6_000), 3).expect("room");
    duo.fulfill(peer, 0, 1).expect("standing");
    duo.receive(victim);
    duo.receive(victim);
    duo.commit(peer);
    duo
}

/// The victim has signed; the peer's `revoke_and_ack` and `commitment_signed` wait.
fn signed(victim: Who) -> Duo {
    let mut duo = standing();
    duo.add(victim, sat(5_000), 2).expect("room");
    duo.fail(victim, 0).expect("standing");
    duo.commit(victim);
    for _ in 0..3 {
        duo.receive(victim.other());
    }
    duo.commit(victim.other());
    duo
}

/// The opener's new feerate is signed, and not yet answered.
fn fee_signed(victim: Who) -> Duo {
    let mut duo = standing();
    duo.order(Alice, Command::UpdateFee(FeeratePerKw::new(1200))).expect("affordable");
    if victim == Alice {
        duo.commit(Alice);
        duo.receive(Alice.other());
        duo.receive(Alice.other());
        duo.commit(Alice.other());
    } else {
        duo.receive(victim);
        duo.commit(Alice);
    }
    duo
}

fn shut_down(duo: &mut Duo, who: Who) {
    let script = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
    duo.order(who, Command::Shutdown { script, feerate: FeeratePerKw::new(1500) }).expect("a good script");
}

/// The victim has said `shutdown`, the peer's waits; HTLCs stand.
fn shutting(victim: Who) -> Duo {
    let mut duo = standing();
    shut_down(&mut duo, victim);
    duo.receive(victim.other());
    duo
}

/// The peer had signed an HTLC before it said `shutdown`, and all of it was lost. On the next connection it begins with
/// `shutdown`; the HTLC waits.
fn resending(victim: Who) -> Duo {
    let mut duo = normal();
    let peer = victim.other();
    duo.add(peer, sat(6_000), 3).expect("room");
    duo.commit(peer);
    shut_down(&mut duo, victim);
    duo.receive(peer);
    duo.reconnect();
    for who in [peer, victim, peer] {
        duo.receive(who);
    }
    let last = duo.side_mut(peer).outbox.pop_back();
    let Some(said @ Message::Shutdown(_)) = last else { panic!("its last word is shutdown, not {last:?}") };
    duo.message(victim, &said);
    duo
}

/// An open channel of two that agreed on `option_simple_close`.
fn simple() -> Duo {
    Duo::normal(&Terms { features: duo::features().offer(Feature::SIMPLE_CLOSE), ..Terms::default() })
}

/// Both have said `shutdown`, `asking` first, and nothing stands; the peer's next word about the close waits.
fn bargaining(mut duo: Duo, victim: Who, asking: Who) -> Duo {
    shut_down(&mut duo, asking);
    for _ in 0..10 {
        match duo.side(victim.other()).outbox.front() {
            Some(Message::ClosingSigned(_) | Message::ClosingComplete(_) | Message::ClosingSig(_)) => return duo,
            Some(_) => drop(duo.receive(victim)),
            None => drop(duo.receive(victim.other())),
        }
    }
    panic!("the two never bargain");
}

fn closing(mut duo: Duo, victim: Who) -> Duo {
    shut_down(&mut duo, victim);
    duo.run();
    assert!(matches!(duo.side(victim).channel.phase(), Phase::Closing { .. }));
    duo
}

fn closed(victim: Who) -> Duo {
    let mut duo = closing(normal(), victim);
    let Phase::Closing { tx, .. } = duo.side(victim).channel.phase().clone() else { panic!("closing") };
    for height in 510..530 {
        duo.height = height;
        for who in Who::BOTH {
            if height == 510 {
                duo.input(who, Input::Chain(ChainEvent::FundingSpent { height, tx: &tx }));
            }
            duo.input(who, Input::Chain(ChainEvent::Height(height)));
        }
    }
    assert!(matches!(duo.side(victim).channel.phase(), Phase::Closed { .. }));
    duo
}

fn failed(victim: Who) -> Duo {
    let mut duo = standing();
    duo.order(victim, Command::Fail { reason: "asked to".to_owned() }).expect("always taken");
    duo
}

/// The peer has proved that the victim has lost data.
fn behind(victim: Who) -> Duo {
    let mut duo = standing();
    duo.reconnect();
    let Some(Message::ChannelReestablish(mut said)) = duo.side_mut(victim.other()).outbox.pop_front() else {
        panic!("the first word")
    };
    said.next_revocation_number += 2;
    let mut durable = duo.side(victim).monitor.rows().head.clone();
    durable.local.number = said.next_revocation_number;
    let secret = signer(victim).release_secret(said.next_revocation_number - 1, &Guard::of(&durable)).expect("given");
    said.your_last_per_commitment_secret = PerCommitmentSecret(secret);
    duo.message(victim, &Message::ChannelReestablish(said));
    assert!(matches!(duo.side(victim).channel.phase(), Phase::Failed { publish: false, .. }));
    duo
}
