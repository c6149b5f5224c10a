//! Openings under any messages, on both sides.

use std::sync::LazyLock;

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_bolt::wire::{Decode, Message, OpenChannel};
use outrigger_channel::{OpenOrder, Opening, OpeningInput, OpeningStep, SoftSigner};

use super::Target;
use super::channel::context;
use crate::draw::Draw;
use crate::pair::{Pair, Setup, World, founding};

const TEMPORARY: ChannelId = ChannelId([5; 32]);
/// What the accepter takes for the channel: its keys, and its alias.
const KEYS: (u64, ShortChannelId) = (0, ShortChannelId::from_u64(7));

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target::new("opening_accept", accept, || vec![payload(&open().1)]),
        Target::new("opening_messages", messages, || {
            let (world, signer, script) = (world(), SoftSigner::new([2; 32]), founding::wallet_script("bob wallet", 1));
            let Message::OpenChannel(offer) = open().1 else { panic!("not open_channel") };
            let cx = context(world, &signer, &script);
            let (_, answer) = Opening::accept(&offer, node(), KEYS, &founding::features(), &cx).expect("a good offer");
            let answer = whole(&answer);
            let len = u16::try_from(answer.len()).expect("a message").to_be_bytes();
            vec![[&[0][..], &len, &answer].concat(), vec![1, 0, 3, 0, 35, 0]]
        }),
    ]
}

fn world() -> &'static World {
    static WORLD: LazyLock<World> = LazyLock::new(|| Pair::funded(1, &Setup::default()).0.world);
    &WORLD
}

/// Any node.
pub(super) fn node() -> NodeId {
    NodeId::new(SecretKey::from_slice(&[8; 32]).expect("a key").public_key(&Secp256k1::new()))
}

fn whole(message: &Message) -> Vec<u8> {
    message.encode().expect("a message of ours has an encoding")
}

fn payload(message: &Message) -> Vec<u8> {
    whole(message)[2..].to_vec()
}

fn open() -> (Opening, Message) {
    let (signer, script) = (SoftSigner::new([1; 32]), founding::wallet_script("alice wallet", 1));
    let order = OpenOrder {
        peer: node(),
        keys_index: 1,
        temporary_channel_id: TEMPORARY,
        funding: Sat::new(1_000_000),
        push: Msat::new(100_000_000),
        announce: false,
        commitment_feerate: FeeratePerKw::new(1000),
        shutdown_script: None,
        scid_alias: ShortChannelId::alias(1),
        features: founding::features(),
    };
    Opening::open(order, &context(world(), &signer, &script)).expect("a good order")
}

/// Any `open_channel`: refused with a reason, or answered with limits that we keep ourselves.
fn accept(data: &[u8]) {
    let Ok(offer) = OpenChannel::decode_value(data) else { return };
    let (world, signer, script) = (world(), SoftSigner::new([2; 32]), founding::wallet_script("bob wallet", 1));
    match Opening::accept(&offer, node(), KEYS, &founding::features(), &context(world, &signer, &script)) {
        Ok((opening, answer)) => {
            assert_eq!(opening.temporary_id(), offer.temporary_channel_id);
            assert!(offer.funding_satoshis <= world.policy.max_funding);
            assert_eq!(Message::decode(&whole(&answer)), Ok(answer));
        }
        Err(violation) => assert!(!violation.to_string().is_empty()),
    }
}

/// Messages in a row to an opening of ours, or to one that we accepted.
fn messages(data: &[u8]) {
    let world = world();
    let (signer, script) = (SoftSigner::new([1; 32]), founding::wallet_script("alice wallet", 1));
    let cx = context(world, &signer, &script);
    let mut draw = Draw::new(data);
    let mut opening = if draw.byte() & 1 == 0 {
        open().0
    } else {
        let Message::OpenChannel(offer) = open().1 else { panic!("not open_channel") };
        let accepter = SoftSigner::new([2; 32]);
        let cx = context(world, &accepter, &script);
        Opening::accept(&offer, node(), KEYS, &founding::features(), &cx).expect("a good offer").0
    };
    for _ in 0..6 {
        if draw.is_empty() {
            return;
        }
        let len = usize::from(draw.u16());
        let Ok(message) = Message::decode(draw.bytes(len)) else { continue };
        match opening.step(OpeningInput::Message(&message), &cx) {
            OpeningStep::Wait(_) | OpeningStep::Fund { .. } => {}
            OpeningStep::Gone { reason, .. } => return assert!(!reason.is_empty()),
            OpeningStep::Renamed(..) | OpeningStep::Born(_) => panic!("nobody signed this channel"),
        }
    }
}
