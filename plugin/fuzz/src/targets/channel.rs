//! One channel under any messages, orders, blocks and connections: no panic, and its rows are always those of a channel.

use std::sync::LazyLock;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{OutPoint, Script, Transaction};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, PaymentPreimage};
use outrigger_bolt::wire::Message;
use outrigger_channel::{
    ChainEvent, Channel, ClaimKind, Command, CommandId, Context, Effect, FailReason, HtlcSource, Input, Monitor,
    Signer, SoftSigner,
};

use super::Target;
use crate::draw::Draw;
use crate::pair::{Alice, Name, Pair, Setup, World, founding};

/// Steps of one input at most.
const MAX_STEPS: usize = 60;

pub(super) fn targets() -> Vec<Target> {
    vec![Target::new("channel_messages", channel, seeds).within(60)]
}

/// What steps see of the harness's world.
pub(super) fn context<'a>(world: &'a World, signer: &'a dyn Signer, script: &'a Script) -> Context<'a> {
    Context {
        height: world.height,
        feerates: world.feerates,
        policy: &world.policy,
        signer,
        shutdown_script: script,
        restored: false,
        node_id: super::opening::node(),
    }
}

/// Where an input begins: each side of a channel that waits for its funding transaction, of one in use, and of one that
/// has HTLCs.
struct Stage {
    channel: Channel,
    monitor: Monitor,
    purpose: &'static str,
}

static STAGES: LazyLock<(Vec<Stage>, World, Transaction)> = LazyLock::new(|| {
    let mut stages = Vec::new();
    let mut add = |pair: &Pair| {
        for name in Name::BOTH {
            let node = pair.node(name);
            let purpose = if name == Alice { "alice" } else { "bob" };
            stages.push(Stage { channel: node.channel.clone(), monitor: node.monitor.clone(), purpose });
        }
    };
    let (mut pair, tx) = Pair::funded(1, &Setup::default());
    add(&pair);
    pair.confirm_funding(&tx);
    pair.connect();
    pair.run();
    add(&pair);
    for name in Name::BOTH {
        for number in 1..3 {
            pair.pay(name, Msat::new(9_000_000 * number), crate::pair::Fate::Fulfilled);
        }
    }
    pair.run();
    add(&pair);
    (stages, pair.world, tx)
});

fn seeds() -> Vec<Vec<u8>> {
    let of_stage = |stage: u8| vec![stage, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    (0..6).map(of_stage).chain([vec![2; 200], (0..=255).collect()]).collect()
}

fn channel(data: &[u8]) {
    let (stages, world, funding) = &*STAGES;
    let mut draw = Draw::new(data);
    let Stage { channel, monitor, purpose } = &stages[draw.below(stages.len())];
    let (mut channel, mut monitor) = (channel.clone(), monitor.clone());
    let signer = SoftSigner::new(founding::bytes(&format!("{purpose} channel"), 1));
    let script = founding::wallet_script(&format!("{purpose} wallet"), 1);
    let features = founding::features();
    let mut cx = context(world, &signer, &script);
    for _ in 0..MAX_STEPS {
        if draw.is_empty() {
            return;
        }
        let message;
        let spend;
        let input = match draw.below(16) {
            0..8 => match any_message(&mut draw, &channel) {
                Some(any) => {
                    message = any;
                    Input::Message(&message)
                }
                None => continue,
            },
            8..12 => Input::Command(CommandId(1), command(&mut draw, &channel)),
            12..14 => Input::Connected(if draw.byte() & 7 == 0 { &EMPTY } else { &features }),
            14 => Input::Disconnected,
            _ => {
                // What spends the funding output may be our own commitment.
                spend = match monitor.local_commitment_tx(&signer) {
                    Ok(tx) if draw.byte() & 1 == 0 => tx,
                    Ok(_) | Err(_) => funding.clone(),
                };
                Input::Chain(chain_event(&mut draw, &mut cx.height, funding, &spend))
            }
        };
        step(&mut channel, &mut monitor, input, &cx);
    }
}

static EMPTY: Features = Features::empty();

/// One step as the sidecar makes it. Afterwards the rows are those of a channel and its monitor, and tell the same.
fn step(channel: &mut Channel, monitor: &mut Monitor, input: Input<'_>, cx: &Context<'_>) {
    let before = channel.clone();
    let (mut transition, learned) = monitor.follow(channel, input, cx);
    assert_eq!(before, *channel, "a step leaves the value whole");
    if let Some(update) = &transition.monitor {
        monitor.apply(&learned, &update.htlcs);
    }
    channel.take_in(&mut transition);
    let rows = channel.rows();
    let loaded = Channel::load(rows.clone()).expect("rows of a channel");
    assert_eq!(loaded.rows(), rows);
    Monitor::load(monitor.rows().clone()).expect("rows of a monitor").check_against(rows).expect("one channel's rows");
    for effect in transition.effects {
        if let Effect::Send(message) = effect {
            message.encode().expect("what a channel sends has an encoding");
        }
    }
    drop(channel.summary(cx.height));
}

/// A message of any type about this channel: fields near what fits, or bytes as they come.
fn any_message(draw: &mut Draw<'_>, channel: &Channel) -> Option<Message> {
    let number =
        [1, 17, 34, 35, 36, 38, 39, 40, 41, 128, 128, 128, 130, 131, 132, 133, 134, 135, 136, 136, 259][draw.below(21)];
    let mut bytes = u16::to_be_bytes(number).to_vec();
    bytes.extend(name_of(draw, channel).0);
    if draw.byte() & 7 == 0 {
        bytes.extend(draw.bytes(300));
    } else {
        fields(draw, channel, number, &mut bytes);
    }
    Message::decode(&bytes).ok()
}

fn name_of(draw: &mut Draw<'_>, channel: &Channel) -> ChannelId {
    if draw.byte() & 15 == 0 { ChannelId([0; 32]) } else { channel.id() }
}

/// The fields of a message behind its channel.
fn fields(draw: &mut Draw<'_>, channel: &Channel, number: u16, bytes: &mut Vec<u8>) {
    let head = &channel.rows().head;
    match number {
        1 | 17 => {
            let text: &[u8] = match draw.below(3) {
                0 => b"internal error",
                1 => b"sync error",
                _ => draw.bytes(40),
            };
            bytes.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
            bytes.extend(text);
        }
        34 => {
            bytes.extend(draw.array::<34>());
            bytes.extend(signature(draw));
        }
        35 => bytes.extend(signature(draw)),
        36 => bytes.extend(point(draw, head.remote_next_point)),
        38 => {
            let script = founding::wallet_script("bob wallet", u64::from(draw.byte() & 1)).into_bytes();
            let script = if draw.byte() & 3 == 0 { draw.bytes(40).to_vec() } else { script };
            bytes.extend(u16::try_from(script.len()).unwrap_or_default().to_be_bytes());
            bytes.extend(script);
        }
        39 => {
            bytes.extend(draw.number(5_000).to_be_bytes());
            bytes.extend(signature(draw));
        }
        128 => {
            bytes.extend(near(draw, head.next_remote_htlc_id).to_be_bytes());
            bytes.extend(draw.number(500_000_000).to_be_bytes());
            bytes.extend(PaymentPreimage([draw.byte(); 32]).payment_hash().0);
            bytes.extend(u32::try_from(draw.number(1000)).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend([draw.byte(); 1366]);
        }
        130 => {
            bytes.extend(near(draw, head.next_local_htlc_id).to_be_bytes());
            let known = founding::bytes("preimage", draw.number(4));
            bytes.extend(if draw.byte() & 1 == 0 { known } else { [draw.byte(); 32] });
        }
        131 | 135 => {
            bytes.extend(near(draw, head.next_local_htlc_id).to_be_bytes());
            bytes.extend(draw.array::<34>());
        }
        132 => {
            bytes.extend(signature(draw));
            let count = draw.u16() % 6;
            bytes.extend(count.to_be_bytes());
            (0..count).for_each(|_| bytes.extend(signature(draw)));
        }
        133 => {
            bytes.extend(draw.array::<32>());
            bytes.extend(point(draw, head.remote_next_point));
        }
        134 => bytes.extend(u32::try_from(draw.number(30_000)).unwrap_or(u32::MAX).to_be_bytes()),
        136 => {
            bytes.extend(near(draw, head.remote_number + 1).to_be_bytes());
            bytes.extend(near(draw, head.local_number).to_be_bytes());
            bytes.extend(if draw.byte() & 1 == 0 { [0; 32] } else { draw.array() });
            bytes.extend(point(draw, Some(head.remote_point)));
        }
        _ => bytes.extend(draw.bytes(200)),
    }
}

/// A number at or beside this one, seldom any other.
fn near(draw: &mut Draw<'_>, number: u64) -> u64 {
    match draw.below(8) {
        0..4 => number,
        4 => number.wrapping_sub(1),
        5 => number.wrapping_add(1),
        6 => number.wrapping_sub(2),
        _ => draw.number(10),
    }
}

fn point(draw: &mut Draw<'_>, known: Option<PublicKey>) -> [u8; 33] {
    match known {
        Some(known) if draw.byte() & 1 == 0 => known.serialize(),
        _ => {
            let secret = SecretKey::from_slice(&[1 + draw.byte() % 200; 32]).expect("a key");
            secret.public_key(&Secp256k1::new()).serialize()
        }
    }
}

fn signature(draw: &mut Draw<'_>) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&[draw.byte() & 0x7f; 32]);
    signature[32..].copy_from_slice(&[draw.byte() & 0x7f; 32]);
    signature
}

fn command(draw: &mut Draw<'_>, channel: &Channel) -> Command {
    let head = &channel.rows().head;
    match draw.below(8) {
        0 | 1 => Command::AddHtlc {
            amount: Msat::new(draw.number(600_000_000)),
            payment_hash: PaymentPreimage([draw.byte(); 32]).payment_hash(),
            cltv_expiry: u32::try_from(draw.number(1000)).unwrap_or(u32::MAX),
            onion: Box::new([draw.byte(); 1366]),
            source: HtlcSource::Payment { payment_id: draw.array(), part: draw.u16() },
        },
        2 => {
            let preimage = PaymentPreimage(founding::bytes("preimage", draw.number(4)));
            Command::Fulfill { htlc_id: near(draw, head.next_remote_htlc_id), preimage }
        }
        3 => {
            let reason = FailReason::Encrypted(draw.bytes(300).to_vec());
            Command::FailHtlc { htlc_id: near(draw, head.next_remote_htlc_id), reason }
        }
        4 => Command::UpdateFee(FeeratePerKw::new(draw.u32() % 40_000)),
        5 => Command::Shutdown {
            script: founding::wallet_script("alice wallet", draw.number(2)),
            feerate: FeeratePerKw::new(draw.u32() % 40_000),
        },
        6 => Command::Fail { reason: "ordered".to_owned() },
        _ => Command::Commit,
    }
}

fn chain_event<'a>(
    draw: &mut Draw<'_>,
    height: &mut u32,
    funding: &'a Transaction,
    spend: &'a Transaction,
) -> ChainEvent<'a> {
    *height = height.saturating_add(u32::from(draw.byte()));
    match draw.below(10) {
        0 => ChainEvent::FundingConfirmed { height: *height, tx_index: draw.u32() % 4, tx: funding },
        1 => ChainEvent::FundingUnconfirmed,
        2 | 3 => ChainEvent::FundingSpent { height: *height, tx: spend },
        4 => ChainEvent::FundingSpendUnconfirmed,
        5 => {
            let outpoint = OutPoint::new(spend.compute_txid(), draw.u32() % 6);
            let kind = [ClaimKind::Anchor, ClaimKind::ToLocal, ClaimKind::ToRemote][draw.below(3)];
            ChainEvent::OutputSpent {
                outpoint,
                kind,
                value: Sat::new(draw.number(1 << 20)),
                height: *height,
                tx: spend,
            }
        }
        6 => ChainEvent::OutputsUnspent { from_height: height.saturating_sub(u32::from(draw.byte())) },
        7 => ChainEvent::TakenBuried { height: *height },
        8 => ChainEvent::Buried { height: *height },
        _ => ChainEvent::Height(*height),
    }
}
