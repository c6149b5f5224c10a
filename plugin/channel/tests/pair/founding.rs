//! How the two come to have a channel: by the opening conversation itself.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_bolt::wire::Message;
use outrigger_channel::{
    Birth, Channel, Context, Effect, Monitor, MonitorChanges, OpenOrder, Opening, OpeningInput, OpeningStep, Policy,
    Signer,
};

use super::node::Node;
use super::signer::LoggingSigner;
use super::store::{Store, Writes};
use super::{Setup, World};

/// Thirty-two bytes that this purpose and number always give.
pub fn bytes(purpose: &str, number: u64) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(purpose.as_bytes());
    engine.input(&number.to_be_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// What both sides offer in `init`: all that we do.
pub fn features() -> Features {
    Features::init()
}

/// The same without `option_simple_close`, and without the script upfront: how a close was before.
pub fn legacy_features() -> Features {
    let left_out = [Feature::SIMPLE_CLOSE, Feature::UPFRONT_SHUTDOWN_SCRIPT].map(|feature| feature.odd_bit());
    let bits = features().bits().filter_map(|bit| u16::try_from(bit).ok()).collect::<Vec<_>>();
    bits.into_iter().filter(|bit| !left_out.contains(bit)).fold(Features::empty(), Features::with_bit)
}

/// Where a close pays one side.
pub fn wallet_script(purpose: &str, seed: u64) -> ScriptBuf {
    let [hash @ .., _, _, _, _, _, _, _, _, _, _, _, _] = bytes(purpose, seed);
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(hash))
}

fn node_id(purpose: &str, seed: u64) -> NodeId {
    let secret = SecretKey::from_slice(&bytes(purpose, seed)).expect("a key");
    NodeId::new(secret.public_key(&Secp256k1::new()))
}

/// The founders' keys and scripts.
struct Founder {
    node_id: NodeId,
    signer: LoggingSigner,
    script: ScriptBuf,
    policy: Policy,
}

impl Founder {
    fn new(purpose: &str, seed: u64, policy: Policy) -> Self {
        let script = wallet_script(&format!("{purpose} wallet"), seed);
        let node_id = node_id(&format!("{purpose} node"), seed);
        Self { node_id, signer: LoggingSigner::new(bytes(&format!("{purpose} channel"), seed)), script, policy }
    }

    fn context<'a>(&'a self, world: &'a World) -> Context<'a> {
        Context {
            height: world.height,
            feerates: world.feerates,
            policy: &self.policy,
            signer: &self.signer,
            node_id: self.node_id,
            shutdown_script: &self.script,
            restored: false,
        }
    }
}

/// A transaction that pays the funding output, and nothing else of interest.
fn funding_transaction(seed: u64, script_pubkey: ScriptBuf, amount: Amount) -> Transaction {
    let previous_output = OutPoint::new(Txid::from_byte_array(bytes("coin", seed)), 0);
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: amount, script_pubkey }],
    }
}

/// The opening conversation, from `open_channel` to `funding_signed`, and the funding transaction.
pub fn found(seed: u64, setup: &Setup, world: &World) -> ([Node; 2], Transaction) {
    let [alice, bob] = setup.policies(&world.policy);
    let (alice, bob) = (Founder::new("alice", seed, alice), Founder::new("bob", seed, bob));
    let order = OpenOrder {
        peer: bob.node_id,
        keys_index: 1,
        temporary_channel_id: ChannelId(bytes("temporary", seed)),
        funding: setup.capacity,
        push: setup.push,
        announce: false,
        commitment_feerate: setup.feerate,
        shutdown_script: setup.upfront_script.clone(),
        scid_alias: ShortChannelId::alias(1),
        features: setup.features.clone(),
    };
    let (mut opening, open) = Opening::open(order, &alice.context(world)).expect("a good order");
    let Message::OpenChannel(open) = open else { panic!("not open_channel") };
    let (mut accepting, accept) =
        Opening::accept(&open, alice.node_id, (1, ShortChannelId::alias(2)), &setup.features, &bob.context(world))
            .expect("a good offer");
    let asked = opening.step(OpeningInput::Message(&accept), &alice.context(world));
    let OpeningStep::Fund { script_pubkey, amount } = asked else { panic!("{asked:?}") };
    let tx = funding_transaction(seed, script_pubkey, amount.into());
    let funding = OpeningInput::Funding { tx: tx.clone(), output_index: 0 };
    let OpeningStep::Renamed(_, effects) = opening.step(funding, &alice.context(world)) else { panic!("not renamed") };
    let created = sent(&effects);
    let OpeningStep::Born(of_bob) = accepting.step(OpeningInput::Message(&created), &bob.context(world)) else {
        panic!("the accepter refuses funding_created")
    };
    let signed = sent(&of_bob.effects);
    let OpeningStep::Born(of_alice) = opening.step(OpeningInput::Message(&signed), &alice.context(world)) else {
        panic!("the opener refuses funding_signed")
    };
    let points = [alice.signer.per_commitment_point(0), bob.signer.per_commitment_point(0)];
    let [alice_point, bob_point] = points;
    let alice = node(alice, &of_alice, bob_point);
    let bob = node(bob, &of_bob, alice_point);
    ([alice, bob], tx)
}

fn sent(effects: &[Effect]) -> Message {
    let message = effects.iter().find_map(|effect| match effect {
        Effect::Send(message) => Some(message.clone()),
        _ => None,
    });
    message.expect("a message")
}

fn node(founder: Founder, birth: &Birth, peer_point: bitcoin::secp256k1::PublicKey) -> Node {
    let (monitor, monitor_changes): (Monitor, MonitorChanges) = Monitor::new(&birth.monitor).expect("a first update");
    let writes = Writes::of(&birth.changes, &monitor_changes);
    let mut store = Store::default();
    store.apply(&writes);
    let channel = Channel::load(store.channel()).expect("rows of a channel");
    assert_eq!(channel.rows(), birth.channel.rows(), "a channel is born from its rows");
    let first = (founder.signer.only_commitment(), peer_point);
    let who = (founder.node_id, founder.signer, founder.policy);
    Node::new(channel, (monitor, store), who, founder.script, first)
}
