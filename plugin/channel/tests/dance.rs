//! A random schedule of two channels: orders, messages, disconnects and crashes at every point where the store can be cut.
//! Every seed ends in healing: all payments resolved, every millisatoshi accounted for.
//!
//! A failure prints its seed; `DANCE_SEED=n` replays that one, `DANCE_SEEDS=n` sets how many are danced.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use bitcoin::Transaction;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_channel::{Command, Phase, Refusal, Reply};
use pair::{Alice, Bob, Cut, CutKind, Fate, Name, Pair, Setup, founding};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seeds where nobody says how many: as many as a check has time for.
const SEEDS: u64 = 300;

/// One seed's schedule.
struct Dance {
    pair: Pair,
    rng: ChaCha8Rng,
    /// How often a step is a fault.
    faults: f64,
    /// The funding transaction, until it is in a block.
    funding: Option<Transaction>,
}

impl Dance {
    fn name(&mut self) -> Name {
        if self.rng.random_bool(0.5) { Alice } else { Bob }
    }

    /// Amounts around both dust limits, around what can be spent at most, and in between.
    fn amount(&mut self, from: Name) -> Msat {
        let node = self.pair.node(from);
        let spendable = node.channel.summary(self.pair.world.height).spendable.get();
        let params = &node.channel.rows().params;
        let dust_limits = [params.local.dust_limit, params.remote.dust_limit];
        let msat = match self.rng.random_range(0..6) {
            0 => self.rng.random_range(1..2_000),
            1 => {
                let dust_limit = dust_limits[self.rng.random_range(0..2)].get() * 1000;
                self.rng.random_range(dust_limit - 2_000..dust_limit + 2_000)
            }
            2 => spendable,
            3 => spendable.saturating_sub(self.rng.random_range(0..3_000)),
            _ => self.rng.random_range(0..=spendable / 2),
        };
        Msat::new(msat)
    }

    fn fate(&mut self) -> Fate {
        match self.rng.random_range(0..6) {
            0 => Fate::Failed,
            1 => Fate::Malformed,
            2 => Fate::ByTurns,
            _ => Fate::Fulfilled,
        }
    }

    fn step(&mut self) {
        if self.rng.random_bool(self.faults) {
            return self.fault();
        }
        let name = self.name();
        match self.rng.random_range(0..100) {
            0..10 => {
                let (amount, fate) = (self.amount(name), self.fate());
                self.pair.pay(name, amount, fate);
            }
            10..13 => self.equals(name),
            13..26 => self.remove_one(name),
            26..36 => {
                self.pair.command(name, Command::Commit);
            }
            36..39 => {
                let highest = if self.rng.random_bool(0.2) { 26_000 } else { 4_000 };
                let feerate = FeeratePerKw::new(self.rng.random_range(253..highest));
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

    /// Several HTLCs at once that nothing but their ids tells apart, sometimes of both sides.
    fn equals(&mut self, name: Name) {
        let hashes: Vec<_> = self.pair.world.payments.keys().copied().collect();
        if hashes.is_empty() {
            return;
        }
        let hash = hashes[self.rng.random_range(0..hashes.len())];
        for _ in 0..self.rng.random_range(1..4) {
            let from = if self.rng.random_bool(0.8) { name } else { name.other() };
            let delay = self.rng.random_range(0..2);
            self.pair.offer(from, hash, delay);
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

    fn confirm(&mut self) {
        if let Some(tx) = self.funding.take() {
            self.pair.confirm_funding(&tx);
        }
    }

    fn shutdown(&mut self) {
        let name = self.name();
        shut_down(&mut self.pair, name);
    }

    fn assert_alive(&self) {
        assert_alive(&self.pair);
    }

    /// Pays once in each direction, where there is money to pay with. A feerate so high that one more HTLC would cost more
    /// than the cap has to fall first.
    fn pay_again(&mut self) {
        for name in Name::BOTH {
            let before = self.pair.node(name).outcomes().len();
            let spendable = self.pair.node(name).channel.summary(self.pair.world.height).spendable;
            if spendable >= Msat::new(1_000) {
                if let Err(Refusal::CommitmentTooCostly(_)) = self.pay_once(name) {
                    self.pair.order(Alice, Command::UpdateFee(FeeratePerKw::new(1_000))).expect("the opener can");
                    self.pair.heal();
                    self.pay_once(name).expect("the feerate has fallen");
                }
                assert_eq!(self.pair.node(name).outcomes().len(), before + 1, "the channel can pay again");
            }
        }
    }

    fn pay_once(&mut self, name: Name) -> Result<Reply, Refusal> {
        let order = self.pair.pay(name, Msat::new(1_000), Fate::Fulfilled);
        self.pair.heal();
        self.pair.node_mut(name).replies.remove(&order).expect("an answer")
    }

    fn close(&mut self) {
        if !self.pair.is_shutting_down() {
            self.shutdown();
        }
        close(&mut self.pair);
    }
}

fn shut_down(pair: &mut Pair, name: Name) {
    let script = pair.node(name).shutdown_script.clone();
    pair.command(name, Command::Shutdown { script, feerate: FeeratePerKw::new(2_000) });
}

fn close(pair: &mut Pair) {
    pair.heal();
    for name in Name::BOTH {
        let phase = pair.phase(name);
        assert!(matches!(phase, Phase::Closing { .. }), "{name:?} is not closing but in {phase:?}");
    }
    pair.assert_closed_fairly();
    pair.bury_close();
}

fn assert_alive(pair: &Pair) {
    for name in Name::BOTH {
        let node = pair.node(name);
        assert!(!node.is_failed(), "{name:?} failed: {:?}", pair.phase(name));
        assert!(node.disconnects.is_empty(), "two that keep the rules never warn: {:?}", node.disconnects);
    }
}

/// Channels of every size and slope: full limits are met from both sides.
fn setup(rng: &mut ChaCha8Rng) -> Setup {
    let capacity = [40_000, 150_000, 1_000_000][rng.random_range(0..3)];
    let push = [0, capacity / 10, capacity / 2, capacity * 8 / 10][rng.random_range(0..4)];
    let mut pick = |of: [u64; 3]| of[rng.random_range(0..3)];
    let dust_limits = [(); 2].map(|()| Sat::new(pick([354, 354, 990])));
    // Both closes are danced (BOLT 2, "Channel Close").
    let features = if pick([0, 0, 1]) == 0 { founding::features() } else { founding::legacy_features() };
    let max_accepted_htlcs = [(); 2].map(|()| pick([3, 30, 30]) as u16);
    // The same for both: it decides what an opener's feerate may cost.
    let max_dust_exposure = [Sat::new(pick([50_000, 50_000, 12_000])); 2];
    Setup {
        capacity: Sat::new(capacity),
        push: Msat::new(push * 1_000 + rng.random_range(0..1_000)),
        feerate: FeeratePerKw::new(rng.random_range(253..1_500)),
        dust_limits,
        max_accepted_htlcs,
        max_dust_exposure,
        features,
        ..Setup::default()
    }
}

fn begin(seed: u64, mut rng: ChaCha8Rng, setup: &Setup) -> Dance {
    let faults = [0.0, 0.01, 0.04, 0.15][rng.random_range(0..4)];
    if rng.random_bool(0.8) {
        return Dance { pair: Pair::connected(seed, setup), rng, faults, funding: None };
    }
    let (mut pair, tx) = Pair::funded(seed, setup);
    pair.connect();
    Dance { pair, rng, faults, funding: Some(tx) }
}

fn dance(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let setup = setup(&mut rng);
    let mut dance = begin(seed, rng, &setup);
    let steps = dance.rng.random_range(40..300);
    let confirming_at = dance.rng.random_range(0..steps);
    let closing_at = dance.rng.random_bool(0.3).then(|| dance.rng.random_range(0..steps));
    for step in 0..steps {
        if confirming_at == step {
            dance.confirm();
        }
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

/// Says which one it was, whatever the reason of the failure.
struct Announce<T: std::fmt::Display>(T);

impl<T: std::fmt::Display> Drop for Announce<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Dances every second seed, so that two cores can share them.
fn dance_share(remainder: u64) {
    let seeds = match number("DANCE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DANCE_SEEDS").unwrap_or(SEEDS),
    };
    let mut danced = 0;
    for seed in seeds.filter(|seed| seed % 2 == remainder) {
        let _announce = Announce(format!("seed {seed}; replay it with DANCE_SEED={seed}"));
        dance(seed);
        danced += 1;
    }
    println!("{danced} seeds danced");
}

#[test]
fn cst_2_cst_3_cst_4_cst_5_per_1_per_3_fee_1_cst_11_every_even_dance_heals() {
    dance_share(0);
}

#[test]
fn cst_2_cst_3_cst_4_cst_5_per_1_per_3_fee_1_cst_11_every_odd_dance_heals() {
    dance_share(1);
}

/// Moves until nothing moves any more, over as many connections as it takes.
fn settle(pair: &mut Pair) {
    for _ in 0..20 {
        if !pair.is_connected() {
            pair.connect();
        }
        pair.run();
        if pair.is_connected() {
            return;
        }
    }
    panic!("no connection stays");
}

/// A channel's life in short: HTLCs that cross, equal ones, dust; a fee change that crosses them; removals that cross; a
/// close that waits for the last of them.
fn life(setup: &Setup, closer: Name, cut: Option<Cut>) -> usize {
    let mut pair = Pair::open(7, setup);
    pair.cut = cut;
    settle(&mut pair);
    pair.pay(Alice, Msat::new(50_000_000), Fate::ByTurns);
    let hash = *pair.world.payments.keys().next().expect("a payment");
    pair.offer(Alice, hash, 0);
    pair.pay(Alice, Msat::new(200_000), Fate::Failed);
    pair.pay(Bob, Msat::new(30_000_000), Fate::Malformed);
    settle(&mut pair);
    pair.command(Alice, Command::UpdateFee(FeeratePerKw::new(1_700)));
    pair.pay(Bob, Msat::new(353_999), Fate::Fulfilled);
    pair.command(Bob, Command::Commit);
    settle(&mut pair);
    pair.remove(Bob, 0);
    pair.pay(Alice, Msat::new(20_000_000), Fate::Fulfilled);
    pair.command(Alice, Command::Commit);
    pair.remove_all(Alice);
    settle(&mut pair);
    shut_down(&mut pair, closer);
    settle(&mut pair);
    for name in Name::BOTH {
        pair.remove_all(name);
    }
    settle(&mut pair);
    pair.heal();
    assert_alive(&pair);
    pair.assert_settled(setup);
    for name in Name::BOTH {
        pair.node(name).assert_past();
    }
    close(&mut pair);
    pair.delivered
}

#[test]
fn cst_2_cst_3_cst_20_a_whole_life_heals_from_a_cut_before_and_after_each_of_its_messages() {
    let setups = [founding::legacy_features(), founding::features()].map(|f| Setup { features: f, ..Setup::default() });
    let mut lives = 0;
    for (turn, kind) in CutKind::ALL.into_iter().enumerate() {
        let closers = [Alice, Bob];
        let lengths = setups.iter().flat_map(|setup| closers.map(|closer| life(setup, closer, None)));
        for at in 0..lengths.max().expect("four") {
            // Every message, under both closes, begun by either side, is met by each kind of cut or by its neighbour.
            let (setup, closer, cut) = (&setups[at % 2], closers[(at / 2 + turn) % 2], Cut { at, kind });
            let _announce = Announce(format!("{closer:?} closes, {cut:?}"));
            life(setup, closer, Some(cut));
            lives += 1;
        }
    }
    println!("{lives} lives with one cut each");
}
