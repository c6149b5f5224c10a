//! One of each message that there is: what the peer would say next where it has something to say, else something like it.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, ShortChannelId};
use outrigger_bolt::wire::{
    AnnouncementSignatures, ChannelReady, ChannelReestablish, ClosingComplete, ClosingSig, ClosingSigned,
    CommitmentSigned, Error, FundingCreated, FundingSigned, Init, Message, Padding, PerCommitmentSecret, Ping, Pong,
    RevokeAndAck, Shutdown, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee, UpdateFulfillHtlc,
    Warning,
};
use outrigger_channel::{Opening, OpeningInput, OpeningStep, Signer};

use crate::duo::{self, Alice, Bob, Duo, Terms, Who, context, hash, order, preimage, sat, signer};

/// The name of a message in the table. A variant that is new must be named here, and then has no line there.
pub fn kind(message: &Message) -> &'static str {
    match message {
        Message::Gossip(_) => "gossip",
        Message::Unknown(_) => "unknown_odd",
        Message::Error(error) if error.data.to_string() == PASSING => "error_passing",
        Message::Init(_)
        | Message::Error(_)
        | Message::Warning(_)
        | Message::Ping(_)
        | Message::Pong(_)
        | Message::OpenChannel(_)
        | Message::AcceptChannel(_)
        | Message::FundingCreated(_)
        | Message::FundingSigned(_)
        | Message::ChannelReady(_)
        | Message::Shutdown(_)
        | Message::ClosingSigned(_)
        | Message::ClosingComplete(_)
        | Message::ClosingSig(_)
        | Message::UpdateAddHtlc(_)
        | Message::UpdateFulfillHtlc(_)
        | Message::UpdateFailHtlc(_)
        | Message::UpdateFailMalformedHtlc(_)
        | Message::CommitmentSigned(_)
        | Message::RevokeAndAck(_)
        | Message::UpdateFee(_)
        | Message::ChannelReestablish(_)
        | Message::AnnouncementSignatures(_) => message.name(),
    }
}

/// What LND says where a new connection cures it.
const PASSING: &str = "internal error";

/// Every message, for `victim` in this state, in the order of their numbers.
pub fn all(duo: &Duo, victim: Who) -> Vec<Message> {
    let mut all = about_the_connection(duo);
    all.extend(about_the_opening(duo, victim));
    all.extend(about_the_close(duo, victim));
    all.extend(about_htlcs(duo, victim));
    all.extend(about_commitments(duo, victim));
    all.sort_by_key(|message| (message.type_number(), kind(message)));
    let waiting = &duo.side(victim.other()).outbox;
    for message in &mut all {
        if let Some(next) = waiting.iter().find(|next| kind(next) == kind(message)) {
            *message = next.clone();
        }
    }
    all
}

fn about_the_connection(duo: &Duo) -> Vec<Message> {
    let channel_id = duo.bob.channel.id();
    let error = |text: &str| Message::Error(Error { channel_id, data: text.into() });
    let opaque = |number: u16| Message::decode(&number.to_be_bytes()).expect("odd, or gossip");
    vec![
        Message::Init(Init {
            globalfeatures: Features::empty(),
            features: duo::features(),
            networks: None,
            remote_addr: None,
        }),
        error("you broke it"),
        error(PASSING),
        Message::Warning(Warning { channel_id, data: "mind the gap".into() }),
        Message::Ping(Ping { num_pong_bytes: 1, byteslen: Padding(1) }),
        Message::Pong(Pong { byteslen: Padding(1) }),
        opaque(258),
        opaque(31_337),
        Message::AnnouncementSignatures(AnnouncementSignatures {
            channel_id,
            short_channel_id: ShortChannelId::new(501, 4, 0).expect("a place"),
            node_signature: duo.bob.monitor.rows().head.local.signature,
            bitcoin_signature: duo.bob.monitor.rows().head.local.signature,
        }),
    ]
}

/// Of another opening, under the name of this channel.
fn about_the_opening(duo: &Duo, victim: Who) -> Vec<Message> {
    let (channel_id, terms) = (duo.bob.channel.id(), Terms::default());
    let (alice, bob) = (signer(Alice), signer(Bob));
    let (_, open) = Opening::open(order(&terms), &context(500, &terms.alice, &alice)).expect("an order to follow");
    let Message::OpenChannel(mut open) = open else { panic!("{open:?}") };
    let (_, accept) = Opening::accept(
        &open,
        duo::node_id(Alice),
        (0, duo::scid_alias(Bob)),
        &duo::features(),
        &context(500, &terms.bob, &bob),
    )
    .expect("taken");
    let Message::AcceptChannel(mut accept) = accept else { panic!("{accept:?}") };
    (open.temporary_channel_id, accept.temporary_channel_id) = (channel_id, channel_id);
    let signature = duo.bob.monitor.rows().head.local.signature;
    vec![
        Message::OpenChannel(open),
        Message::AcceptChannel(accept),
        Message::FundingCreated(FundingCreated {
            temporary_channel_id: channel_id,
            funding_txid: Txid::from_byte_array([9; 32]),
            funding_output_index: 0,
            signature,
        }),
        Message::FundingSigned(FundingSigned { channel_id, signature }),
        Message::ChannelReady(ChannelReady {
            channel_id,
            second_per_commitment_point: signer(victim.other()).per_commitment_point(1),
            short_channel_id: None,
        }),
    ]
}

fn about_the_close(duo: &Duo, victim: Who) -> Vec<Message> {
    let (channel_id, signature) = (duo.bob.channel.id(), duo.bob.monitor.rows().head.local.signature);
    let script = ScriptBuf::from_bytes(duo::SHUTDOWN_SCRIPT.to_vec());
    let peer = &duo.side(victim.other()).channel.rows().head;
    let shutdown = peer.local_shutdown.clone().unwrap_or_else(|| script.clone());
    vec![
        Message::Shutdown(Shutdown { channel_id, scriptpubkey: shutdown }),
        Message::ClosingSigned(ClosingSigned { channel_id, fee_satoshis: Sat::new(1000), signature, fee_range: None }),
        Message::ClosingComplete(ClosingComplete {
            channel_id,
            closer_scriptpubkey: script.clone(),
            closee_scriptpubkey: script.clone(),
            fee_satoshis: Sat::new(1000),
            locktime: 0,
            closer_output_only: None,
            closee_output_only: None,
            closer_and_closee_outputs: Some(signature),
        }),
        Message::ClosingSig(ClosingSig {
            channel_id,
            closer_scriptpubkey: script.clone(),
            closee_scriptpubkey: script,
            fee_satoshis: Sat::new(1000),
            locktime: 0,
            closer_output_only: None,
            closee_output_only: None,
            closer_and_closee_outputs: Some(signature),
        }),
    ]
}

/// The next add of the peer, and removals of the first HTLC that the victim offered, where there is one.
fn about_htlcs(duo: &Duo, victim: Who) -> Vec<Message> {
    let channel_id = duo.bob.channel.id();
    let id = duo.side(victim).channel.rows().head.next_remote_htlc_id;
    vec![
        Message::UpdateAddHtlc(UpdateAddHtlc {
            channel_id,
            id,
            amount_msat: sat(1000),
            payment_hash: hash(9),
            cltv_expiry: 600,
            onion_routing_packet: Box::new([0; 1366]),
            path_key: None,
        }),
        Message::UpdateFulfillHtlc(UpdateFulfillHtlc { channel_id, id: 0, payment_preimage: preimage(1) }),
        Message::UpdateFailHtlc(UpdateFailHtlc { channel_id, id: 0, reason: vec![0; 292] }),
        Message::UpdateFailMalformedHtlc(UpdateFailMalformedHtlc {
            channel_id,
            id: 0,
            sha256_of_onion: [0; 32],
            failure_code: 0x8000 | 4,
        }),
    ]
}

fn about_commitments(duo: &Duo, victim: Who) -> Vec<Message> {
    let channel_id = duo.bob.channel.id();
    let signature = duo.side(victim).monitor.rows().head.local.signature;
    vec![
        Message::CommitmentSigned(CommitmentSigned {
            channel_id,
            signature,
            htlc_signatures: Vec::new(),
            funding_txid: None,
        }),
        Message::RevokeAndAck(RevokeAndAck {
            channel_id,
            per_commitment_secret: PerCommitmentSecret([3; 32]),
            next_per_commitment_point: signer(victim.other()).per_commitment_point(2),
        }),
        Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(900) }),
        Message::ChannelReestablish(reestablish(duo, victim.other())),
    ]
}

/// What this side says first on a new connection.
fn reestablish(duo: &Duo, who: Who) -> ChannelReestablish {
    let mut duo = duo.clone();
    duo.reconnect();
    let said = duo.side(who).outbox.iter().find_map(|message| match message {
        Message::ChannelReestablish(reestablish) => Some(reestablish.clone()),
        _ => None,
    });
    // Of a channel that is over: the numbers of the start.
    said.unwrap_or_else(|| ChannelReestablish {
        channel_id: duo.bob.channel.id(),
        next_commitment_number: 1,
        next_revocation_number: 0,
        your_last_per_commitment_secret: PerCommitmentSecret([0; 32]),
        my_current_per_commitment_point: signer(who).per_commitment_point(0),
    })
}

/// An opening at one of the points where it waits.
#[derive(Clone)]
pub struct Opened {
    pub name: &'static str,
    pub opening: Opening,
    pub victim: Who,
    pub id: ChannelId,
    /// What the peer says next, where it is its turn.
    pub next: Option<Message>,
}

/// Every point at which an opening waits for a message of the peer, or for the wallet.
pub fn openings() -> Vec<Opened> {
    let terms = Terms::default();
    let (alice, bob) = (signer(Alice), signer(Bob));
    let (alice_cx, bob_cx) = (context(500, &terms.alice, &alice), context(500, &terms.bob, &bob));
    let (mut opener, open) = Opening::open(order(&terms), &alice_cx).expect("an order to follow");
    let Message::OpenChannel(open) = open else { panic!("{open:?}") };
    let (mut accepter, accept) =
        Opening::accept(&open, duo::node_id(Alice), (0, duo::scid_alias(Bob)), &duo::features(), &bob_cx)
            .expect("accepted");
    let temporary = |name, opening: &Opening, victim, next| {
        let (opening, id) = (opening.clone(), duo::TEMPORARY_ID);
        Opened { name, opening, victim, id, next }
    };
    let accept_due = temporary("accept_due", &opener, Alice, Some(accept.clone()));
    let OpeningStep::Fund { script_pubkey, amount } = opener.step(OpeningInput::Message(&accept), &alice_cx) else {
        panic!("the opener funds")
    };
    let funding_due = temporary("funding_due", &opener, Alice, None);
    let tx = duo::funding_tx(script_pubkey, amount, false);
    let OpeningStep::Renamed(id, effects) = opener.step(OpeningInput::Funding { tx, output_index: 0 }, &alice_cx)
    else {
        panic!("funded")
    };
    let created = duo::sent(&effects).remove(0);
    let created_due = temporary("created_due", &accepter, Bob, Some(created.clone()));
    let OpeningStep::Born(birth) = accepter.step(OpeningInput::Message(&created), &bob_cx) else { panic!("signed") };
    let next = Some(duo::sent(&birth.effects).remove(0));
    let signed_due = Opened { name: "signed_due", opening: opener, victim: Alice, id, next };
    vec![accept_due, funding_due, created_due, signed_due]
}

/// Gives the message the name of another channel, where it names one.
pub fn rename(message: &mut Message, id: ChannelId) {
    match message {
        Message::Error(message) => message.channel_id = id,
        Message::Warning(message) => message.channel_id = id,
        Message::OpenChannel(message) => message.temporary_channel_id = id,
        Message::AcceptChannel(message) => message.temporary_channel_id = id,
        Message::FundingCreated(message) => message.temporary_channel_id = id,
        Message::FundingSigned(message) => message.channel_id = id,
        Message::ChannelReady(message) => message.channel_id = id,
        Message::Shutdown(message) => message.channel_id = id,
        Message::ClosingSigned(message) => message.channel_id = id,
        Message::ClosingComplete(message) => message.channel_id = id,
        Message::ClosingSig(message) => message.channel_id = id,
        Message::UpdateAddHtlc(message) => message.channel_id = id,
        Message::UpdateFulfillHtlc(message) => message.channel_id = id,
        Message::UpdateFailHtlc(message) => message.channel_id = id,
        Message::UpdateFailMalformedHtlc(message) => message.channel_id = id,
        Message::CommitmentSigned(message) => message.channel_id = id,
        Message::RevokeAndAck(message) => message.channel_id = id,
        Message::UpdateFee(message) => message.channel_id = id,
        Message::ChannelReestablish(message) => message.channel_id = id,
        Message::AnnouncementSignatures(message) => message.channel_id = id,
        Message::Init(_) | Message::Ping(_) | Message::Pong(_) | Message::Gossip(_) | Message::Unknown(_) => {}
    }
}
