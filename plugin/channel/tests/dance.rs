//! A random schedule of two channels: orders, messages, disconnects and crashes at every point where the store can be cut.
//! Every seed ends in healing: all payments resolved, every millisatoshi accounted for.
//!
//! A failure prints its seed; `DANCE_SEED=n` replays that one, `DANCE_SEEDS=n` sets how many are danced.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_channel::{Command, Phase};
use pair::{Alice, Fate, Name, Pair, Setup};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One seed's schedule.
struct Dance {
    pair: Pair,
    rng: ChaCha8Rng,
    /// How often a step is a fault.
    faults: f64,
}

impl Dance {
    fn name(&mut self) -> Name {
        if self.rng.random_bool(0.5) { Alice } else { Alice.other() }
    }

    /// Amounts around the dust limit, around what can be spent at most, and in between.
    fn amount(&mut self, from: Name) -> Msat {
        let spendable = self.pair.node(from).channel.summary(self.pair.world.height).spendable.get();
        let msat = match self.rng.random_range(0..6) {
            0 => self.rng.random_range(1..2_000),
            1 => self.rng.random_range(352_000..358_000),
            2 => spendable,
            3 => spendable.saturating_sub(self.rng.random_range(0..3_000)),
            _ => self.rng.random_range(0..=spendable / 2),
        };
        Msat::new(msat)
    }

    fn fate(&mut self) -> Fate {
        match self.rng.random_range(0..5) {
            0 => Fate::Failed,
            1 => Fate::Malformed,
            _ => Fate::Fulfilled,
        }
    }

    fn step(&mut self) {
        if self.rng.random_bool(self.faults) {
            return self.fault();
        }
        let name = self.name();
        match self.rng.random_range(0..100) {
            0..12 => {
                let (amount, fate) = (self.amount(name), self.fate());
                self.pair.pay(name, amount, fate);
            }
            12..26 => self.remove_one(name),
            26..36 => {
                self.pair.command(name, Command::Commit);
            }
            36..39 => {
                let feerate = FeeratePerKw::new(self.rng.random_range(253..4_000));
                self.pair.command(name, Command::UpdateFee(feerate));
            }
            39..69 => {
                self.pair.receive(name);
            }
            69..80 => {
                self.pair.commit(name);
            }
            _ => self.pair.flush(name),
        }
        if !self.pair.is_connected() && self.rng.random_bool(0.5) {
            self.pair.connect();
        }
    }

    fn fault(&mut self) {
        let name = self.name();
        match self.rng.random_range(0..4) {
            0 => self.pair.disconnect(),
            // Over the old connection, which neither side saw end.
            1 => self.pair.connect(),
            2 => self.pair.crash(name),
            _ => self.pair.commit_and_crash(name),
        }
    }

    fn remove_one(&mut self, name: Name) {
        let ids: Vec<u64> = self.pair.node(name).incoming.keys().copied().collect();
        if !ids.is_empty() {
            let id = ids[self.rng.random_range(0..ids.len())];
            self.pair.remove(name, id);
        }
    }

    fn shutdown(&mut self) {
        let name = self.name();
        let script = self.pair.node(name).shutdown_script.clone();
        self.pair.command(name, Command::Shutdown { script, feerate: FeeratePerKw::new(2_000) });
    }

    fn assert_alive(&self) {
        for name in Name::BOTH {
            let node = self.pair.node(name);
            assert!(!node.is_failed(), "{name:?} failed: {:?}", self.pair.phase(name));
            assert!(node.disconnects.is_empty(), "two that keep the rules never warn: {:?}", node.disconnects);
        }
    }

    /// Pays once in each direction, where there is money to pay with.
    fn pay_again(&mut self) {
        for name in Name::BOTH {
            let before = self.pair.node(name).outcomes().len();
            let spendable = self.pair.node(name).channel.summary(self.pair.world.height).spendable;
            if spendable >= Msat::new(1_000) {
                self.pair.pay(name, Msat::new(1_000), Fate::Fulfilled);
                self.pair.heal();
                assert_eq!(self.pair.node(name).outcomes().len(), before + 1, "the channel can pay again");
            }
        }
    }

    fn close(&mut self) {
        if !self.pair.is_shutting_down() {
            self.shutdown();
        }
        self.pair.heal();
        for name in Name::BOTH {
            let phase = self.pair.phase(name);
            assert!(matches!(phase, Phase::Closing { .. }), "{name:?} is not closing but in {phase:?}");
        }
        self.pair.assert_closed_fairly();
        self.pair.bury_close();
    }
}

/// Channels of every size and slope: full limits are met from both sides.
fn setup(rng: &mut ChaCha8Rng) -> Setup {
    let capacity = [40_000, 150_000, 1_000_000][rng.random_range(0..3)];
    let push = [0, capacity / 10, capacity / 2, capacity * 8 / 10][rng.random_range(0..4)];
    Setup {
        capacity: Sat::new(capacity),
        push: Msat::new(push * 1_000 + rng.random_range(0..1_000)),
        feerate: FeeratePerKw::new(rng.random_range(253..2_500)),
        ..Setup::default()
    }
}

fn dance(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let setup = setup(&mut rng);
    let faults = [0.0, 0.01, 0.04, 0.15][rng.random_range(0..4)];
    let steps = rng.random_range(40..300);
    let closing_at = rng.random_bool(0.3).then(|| rng.random_range(0..steps));
    let mut dance = Dance { pair: Pair::connected(seed, &setup), rng, faults };
    for step in 0..steps {
        if closing_at == Some(step) {
            dance.shutdown();
        }
        dance.step();
        dance.assert_alive();
    }
    dance.pair.heal();
    dance.assert_alive();
    if !dance.pair.is_shutting_down() {
        dance.pay_again();
    }
    dance.pair.assert_settled(&setup);
    for name in Name::BOTH {
        dance.pair.node(name).assert_past();
    }
    if dance.pair.is_shutting_down() || dance.rng.random_bool(0.3) {
        dance.close();
    }
}

/// Says which seed it was, whatever the reason of the failure.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the dance of seed {0} failed; replay it with DANCE_SEED={0}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn cst_2_cst_3_cst_4_cst_5_per_1_per_3_every_dance_heals() {
    let seeds = match number("DANCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DANCE_SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        let _announce = Announce(seed);
        dance(seed);
    }
}
