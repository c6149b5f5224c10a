//! Two channels and all that is between them, on a schedule that the bytes choose: orders, messages, lost connections, and
//! crashes at every point where the store can be cut. It ends in healing, as the dance of the channel's own tests does.

use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_channel::{Command, Phase};

use super::Target;
use crate::draw::Draw;
use crate::pair::{Alice, Bob, Fate, Name, Pair, Setup, founding};

/// Steps of one input at most: a healing takes some time.
const MAX_STEPS: usize = 250;

pub(super) fn targets() -> Vec<Target> {
    vec![Target::new("dance", dance, seeds).within(120)]
}

fn seeds() -> Vec<Vec<u8>> {
    let mut random = crate::mutation::Random::new(7);
    let mut bytes = |count: usize| (0..count).map(|_| random.next() as u8).collect::<Vec<u8>>();
    vec![bytes(40), bytes(150), bytes(400), vec![0; 60]]
}

fn setup(draw: &mut Draw<'_>) -> Setup {
    let capacity = [40_000, 150_000, 1_000_000][draw.below(3)];
    let push = [0, capacity / 10, capacity / 2, capacity * 8 / 10][draw.below(4)];
    Setup {
        capacity: Sat::new(capacity),
        push: Msat::new(push * 1_000 + u64::from(draw.byte())),
        feerate: FeeratePerKw::new(253 + u32::from(draw.byte()) * 8),
        // Both closes.
        features: if draw.byte() & 1 == 0 { founding::features() } else { founding::legacy_features() },
        ..Setup::default()
    }
}

fn dance(data: &[u8]) {
    let mut draw = Draw::new(data);
    let setup = setup(&mut draw);
    let mut pair = Pair::connected(u64::from(draw.byte()), &setup);
    for _ in 0..MAX_STEPS {
        if draw.is_empty() {
            break;
        }
        step(&mut pair, &mut draw);
        assert_alive(&pair);
    }
    pair.heal();
    assert_alive(&pair);
    pair.assert_settled(&setup);
    for name in Name::BOTH {
        pair.node(name).assert_past();
    }
    if pair.is_shutting_down() {
        pair.heal();
        let is_closing = |name| matches!(pair.phase(name), Phase::Closing { .. });
        assert!(Name::BOTH.into_iter().all(is_closing), "a close comes to its end");
        pair.assert_closed_fairly();
    }
}

fn step(pair: &mut Pair, draw: &mut Draw<'_>) {
    let choice = draw.byte();
    let name = if choice & 1 == 0 { Alice } else { Bob };
    match choice >> 1 {
        0..16 => {
            let amount = amount(pair, name, draw);
            let fate = [Fate::Fulfilled, Fate::Fulfilled, Fate::Failed, Fate::Malformed][draw.below(4)];
            pair.pay(name, amount, fate);
        }
        16..32 => {
            let ids: Vec<u64> = pair.node(name).incoming.keys().copied().collect();
            if !ids.is_empty() {
                pair.remove(name, ids[draw.below(ids.len())]);
            }
        }
        32..44 => drop(pair.command(name, Command::Commit)),
        44..47 => {
            let feerate = FeeratePerKw::new(253 + u32::from(draw.u16() % 3_750));
            pair.command(name, Command::UpdateFee(feerate));
        }
        47 => {
            let script = pair.node(name).shutdown_script.clone();
            pair.command(name, Command::Shutdown { script, feerate: FeeratePerKw::new(2_000) });
        }
        48..84 => drop(pair.receive(name)),
        84..98 => drop(pair.commit(name)),
        98..120 => pair.flush(name),
        120..122 => pair.disconnect(),
        122..124 => pair.connect(),
        124..126 => pair.crash(name),
        _ => pair.commit_and_crash(name),
    }
    if !pair.is_connected() && choice & 2 == 0 {
        pair.connect();
    }
}

/// Around the dust limit, around what can be spent at most, and in between.
fn amount(pair: &Pair, from: Name, draw: &mut Draw<'_>) -> Msat {
    let spendable = pair.node(from).channel.summary(pair.world.height).spendable.get();
    Msat::new(match draw.below(6) {
        0 => 1 + u64::from(draw.u16() % 2_000),
        1 => 352_000 + u64::from(draw.u16() % 6_000),
        2 => spendable,
        3 => spendable.saturating_sub(u64::from(draw.u16() % 3_000)),
        _ => spendable / (1 + u64::from(draw.byte())),
    })
}

fn assert_alive(pair: &Pair) {
    for name in Name::BOTH {
        let node = pair.node(name);
        assert!(!node.is_failed(), "{name:?} failed: {:?}", pair.phase(name));
        assert!(node.disconnects.is_empty(), "two that keep the rules never warn: {:?}", node.disconnects);
    }
}
