//! The scenarios: what is set up, what is paid, and which figures come of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use outrigger_integration::{Bitcoind, Done};

use crate::ldk::{Ldk, Pace};
use crate::machine::{curve_micros, description, rss_of, sync_ms};
use crate::outrigger::Outrigger;
use crate::report::Figure;
use crate::shape::Shape;
use crate::stack::{Plan, Round, Stack, round};
use crate::sync::SyncCost;

/// Above every dust limit: an output of the commitment transactions.
const AMOUNT_MSAT: u64 = 360_000;

/// How many channels there are in the scenarios with many.
const MANY: [usize; 2] = [100, 1000];

/// Payments in flight while a channel ages.
const AGED_WINDOW: usize = 50;

const CPU_EACH: &str = "ms of both ends' processors each";

/// A run of the benchmark.
pub(crate) struct Run<'a> {
    bitcoind: &'a Bitcoind,
    directory: PathBuf,
    is_quick: bool,
    /// The scenarios asked for; all if none are named.
    only: Vec<String>,
    pub(crate) figures: Vec<Figure>,
}

/// Both sides' rounds of one scenario, one after the other in turn.
pub(crate) struct Rounds {
    pub(crate) outrigger: Vec<Round>,
    pub(crate) ldk: Vec<Round>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(bitcoind: &'a Bitcoind, directory: PathBuf, is_quick: bool, only: Vec<String>) -> Self {
        Self { bitcoind, directory, is_quick, only, figures: Vec::new() }
    }

    /// Everything, or what was asked for.
    pub(crate) async fn all(&mut self) -> Done<()> {
        if self.wants_group("floor_") {
            self.floor()?;
        }
        if self.wants_group("relay_8_") {
            self.relay(8).await?;
        }
        if self.wants_group("one_channel_32_") || self.wants_group("latency_") {
            self.pair().await?;
        }
        if self.wants_group("aged_20000") {
            self.aged().await?;
        }
        if self.wants_group("start_") || self.wants_group("cpu_") {
            for count in self.counts() {
                self.many(count).await?;
            }
        }
        for many in [1, 2, 4, 16] {
            if self.wants_group(&format!("relay_{many}_")) {
                self.relay(many).await?;
            }
        }
        if self.wants_group("flight_") {
            self.flight().await?;
        }
        Ok(())
    }

    /// Channels of the scenarios with many; what was asked for alone decides where it names a count.
    fn counts(&self) -> Vec<usize> {
        let named = |name: &String| name.split('_').nth(1)?.parse().ok();
        let asked: Vec<usize> = self.only.iter().filter_map(named).filter(|count| *count >= 10).collect();
        match (asked.is_empty(), self.is_quick) {
            (false, _) => asked,
            (true, true) => vec![20],
            (true, false) => MANY.to_vec(),
        }
    }

    /// Whether a scenario whose name begins so was asked for.
    fn wants_group(&self, prefix: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name.starts_with(prefix))
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|asked| asked == name)
    }

    fn rounds(&self) -> usize {
        if self.is_quick { 1 } else { 5 }
    }

    fn secs(&self, whole: f64) -> Duration {
        Duration::from_secs_f64(if self.is_quick { whole / 2.0 } else { whole })
    }

    async fn both(&mut self, name: &str, plan: Plan, ours: &mut impl Stack, theirs: &mut impl Stack) -> Done<Rounds> {
        let mut rounds = Rounds { outrigger: Vec::new(), ldk: Vec::new() };
        for number in 0..self.rounds() {
            let our = round(ours, plan).await?;
            let their = round(theirs, Plan { most_per_second: plan.most_per_second.min(600), ..plan }).await?;
            for (side, it) in [("outrigger", &our), ("ldk", &their)] {
                eprintln!(
                    "{name} round {number} {side}: {:.0}/s, hub {:.2} ms, all {:.2} ms, syncs hub {:.2} all {:.2}, p50 {:.1} ms p99 {:.1} ms, paid {}",
                    it.per_second(),
                    it.hub_ms(),
                    it.all_ms(),
                    it.hub_syncs_each(),
                    it.all_syncs_each(),
                    it.latency_ms(0.5),
                    it.latency_ms(0.99),
                    it.paid
                );
            }
            rounds.outrigger.push(our);
            rounds.ldk.push(their);
        }
        Ok(rounds)
    }

    fn note(
        &mut self,
        name: &str,
        unit: &'static str,
        more_is_better: bool,
        rounds: &Rounds,
        of: impl Fn(&Round) -> f64,
    ) {
        let figure = Figure {
            name: name.to_owned(),
            unit,
            outrigger: rounds.outrigger.iter().map(&of).collect(),
            ldk: rounds.ldk.iter().map(&of).collect(),
            more_is_better,
        };
        self.put(figure);
    }

    /// A hub between `many` senders and as many receivers.
    async fn relay(&mut self, many: usize) -> Done<()> {
        let shape = Shape::Hub(many);
        let directory = self.directory.join(format!("relay-{many}"));
        let mut ours = Outrigger::start(&directory, self.bitcoind, shape, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, shape, AMOUNT_MSAT, Pace::Background).await?;
        let costs = [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000)), ("nosync", SyncCost::Nothing)];
        for (label, cost) in costs {
            let name = format!("relay_{many}_{label}");
            let of_native = label == "native" && self.wants(&format!("relay_{many}_cpu"));
            let is_sweep = many != 8 && label != "native";
            if is_sweep || !(of_native || self.wants(&name)) {
                continue;
            }
            let time = self.secs(4.0);
            let plan = Plan { window: 32, cost, warm: Duration::from_secs(1), time, most_per_second: 2000 / many };
            let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
            self.note(&name, "payments/s", true, &rounds, Round::per_second);
            if label == "native" {
                self.note(
                    &format!("relay_{many}_cpu"),
                    "ms of the hub's processor each",
                    false,
                    &rounds,
                    Round::hub_ms,
                );
                self.note(&format!("relay_{many}_memory"), "MB resident in the hub", false, &rounds, Round::hub_mb);
                let [_, verify, _] = curve_micros()?;
                let name = format!("relay_{many}_verifications");
                let unit = "verifications' worth of the hub's processor each";
                self.note(&name, unit, false, &rounds, |round| round.hub_ms() * 1e3 / verify);
            }
            self.note(
                &format!("relay_{many}_syncs_{label}"),
                "syncs of the hub each",
                false,
                &rounds,
                Round::hub_syncs_each,
            );
        }
        Ok(())
    }

    /// The machine, and what a sync of its disk takes.
    pub(crate) fn machine(&self) -> Done<String> {
        let sync = sync_ms(&self.directory)?;
        Ok(format!("{}; a write of 4 KiB and its sync take {sync:.2} ms", description()))
    }

    /// One channel.
    async fn pair(&mut self) -> Done<()> {
        let directory = self.directory.join("pair");
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::Background).await?;
        let mut at_once = Ldk::start(&directory.join("at-once"), Shape::Pair, AMOUNT_MSAT, Pace::AtOnce).await?;
        for (label, cost) in [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000))] {
            let name = format!("one_channel_32_{label}");
            if self.wants(&name) {
                let time = self.secs(2.0);
                let plan = Plan { window: 32, cost, warm: Duration::from_millis(500), time, most_per_second: 2000 };
                let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
                self.note(&name, "payments/s", true, &rounds, Round::per_second);
            }
            let name = format!("latency_{label}");
            if self.wants(&name) {
                let time = self.secs(3.0);
                let plan = Plan { window: 1, cost, warm: Duration::from_millis(300), time, most_per_second: 400 };
                let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
                self.note(&name, "ms, median", false, &rounds, |round| round.latency_ms(0.5));
                self.note(&format!("{name}_p99"), "ms", false, &rounds, |round| round.latency_ms(0.99));
                let name = format!("{name}_beside_at_once");
                let rounds = self.both(&name, plan, &mut ours, &mut at_once).await?;
                self.note(&name, "ms, median", false, &rounds, |round| round.latency_ms(0.5));
            }
        }
        Ok(())
    }

    /// One channel with more and more payments in flight.
    async fn flight(&mut self) -> Done<()> {
        let directory = self.directory.join("flight");
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::Background).await?;
        for window in [1, 8, 50, 100, 400] {
            let name = format!("flight_{window}");
            if !self.wants(&name) {
                continue;
            }
            let (warm, time) = (Duration::from_millis(500), Duration::from_secs(2));
            let plan = Plan { window, cost: SyncCost::Native, warm, time, most_per_second: 2000 };
            let rounds =
                Rounds { outrigger: vec![round(&mut ours, plan).await?], ldk: vec![round(&mut theirs, plan).await?] };
            self.note(&name, "payments/s", true, &rounds, Round::per_second);
        }
        Ok(())
    }

    /// What is left of the rate after many payments: the last of them beside the first. Syncs cost nothing, so that it is the
    /// nodes that are measured, and not how a disk feels after minutes.
    async fn aged(&mut self) -> Done<()> {
        let directory = self.directory.join("aged");
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::AtOnce).await?;
        let (total, slice) = if self.is_quick { (1000, 250) } else { (20_000, 2500) };
        let our = ageing(&mut ours, total, slice).await?;
        let their = ageing(&mut theirs, total, slice).await?;
        for (name, of) in [("first", 0), ("last", our.len().min(their.len()).saturating_sub(1))] {
            let (outrigger, ldk) = (vec![our[of]], vec![their[of]]);
            let name = format!("aged_20000_{name}");
            self.put(Figure { name, unit: "payments/s", outrigger, ldk, more_is_better: true });
        }
        let kept = |rates: &[f64]| rates.last().zip(rates.first()).map(|(last, first)| last / first);
        let (outrigger, ldk) = (kept(&our).into_iter().collect(), kept(&their).into_iter().collect());
        let (name, unit) = ("aged_20000".to_owned(), "share of the first rate that is left");
        self.put(Figure { name, unit, outrigger, ldk, more_is_better: true });
        Ok(())
    }

    /// So many more channels between the two: what a payment costs beside them, and how long a start takes.
    async fn many(&mut self, count: usize) -> Done<()> {
        let directory = self.directory.join(format!("many-{count}"));
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::AtOnce).await?;
        let cost = SyncCost::Nothing;
        let (warm, time) = (Duration::from_millis(500), self.secs(4.0));
        let plan = Plan { window: 1, cost, warm, time, most_per_second: 400 };
        let before =
            Rounds { outrigger: vec![round(&mut ours, plan).await?], ldk: vec![round(&mut theirs, plan).await?] };
        self.note(&format!("cpu_{count}_before"), CPU_EACH, false, &before, Round::all_ms);
        let begun = Instant::now();
        open_more(&mut ours, count).await?;
        let after_ours = begun.elapsed();
        open_more(&mut theirs, count).await?;
        eprintln!("{count} channels: {after_ours:.1?} beside {:.1?}", begun.elapsed() - after_ours);
        let rounds = self.both(&format!("cpu_{count}_channels"), plan, &mut ours, &mut theirs).await?;
        self.note(&format!("cpu_{count}_channels"), CPU_EACH, false, &rounds, Round::all_ms);
        self.note(&format!("latency_{count}_channels"), "ms, median", false, &rounds, |round| round.latency_ms(0.5));
        let (mut outrigger, mut ldk) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds() {
            outrigger.push(ours.restart().await?);
            ldk.push(theirs.restart().await?);
        }
        self.put(Figure { name: format!("start_{count}"), unit: "s", outrigger, ldk, more_is_better: false });
        let first_mb = |stack: &[&crate::stack::Watched]| stack.first().map(|it| rss_of(it.pid)).transpose();
        let mb = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / 1e6).into_iter().collect();
        let (outrigger, ldk) = (mb(first_mb(&ours.watched())?), mb(first_mb(&theirs.watched())?));
        self.put(Figure { name: format!("start_{count}_memory"), unit: "MB", outrigger, ldk, more_is_better: false });
        Ok(())
    }

    /// What the machine takes for what cannot be saved.
    fn floor(&mut self) -> Done<()> {
        let [sign, verify, multiply] = curve_micros()?;
        for (name, unit, value) in [
            ("floor_sign", "µs", sign),
            ("floor_verify", "µs", verify),
            ("floor_point_multiplication", "µs", multiply),
            ("floor_sync", "ms, 4 KiB", sync_ms(&self.directory)?),
        ] {
            let (name, outrigger) = (name.to_owned(), vec![value]);
            self.put(Figure { name, unit, outrigger, ldk: Vec::new(), more_is_better: false });
        }
        Ok(())
    }

    fn put(&mut self, figure: Figure) {
        eprintln!("{}", figure.row());
        self.figures.push(figure);
    }
}

/// Opens channels without paying for syncs.
async fn open_more(stack: &mut impl Stack, count: usize) -> Done<()> {
    for watched in stack.watched() {
        watched.sync.set(SyncCost::Nothing)?;
    }
    stack.more_channels(count).await
}

/// Payments a second in each slice of so many, one slice after the other.
async fn ageing(stack: &mut impl Stack, total: usize, slice: usize) -> Done<Vec<f64>> {
    for watched in stack.watched() {
        watched.sync.set(SyncCost::Nothing)?;
    }
    // What is in flight at the end was begun too.
    stack.supply(total + 2 * AGED_WINDOW).await?;
    stack.start(AGED_WINDOW).await?;
    let mut rates = Vec::new();
    let (mut at, mut paid) = (Instant::now(), stack.paid().await?);
    let first = paid;
    while rates.len() < total / slice {
        let now = stack.paid().await?;
        if now >= first + (slice * (rates.len() + 1)) as u64 {
            rates.push((now - paid) as f64 / at.elapsed().as_secs_f64());
            (at, paid) = (Instant::now(), now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stack.stop().await?;
    Ok(rates)
}
